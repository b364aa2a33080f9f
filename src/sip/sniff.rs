//! Readers of raw bytes, for the wires: the kind of a datagram, its method and the branch of its topmost Via, without an index.

use super::cursor::{self, SPACE, TOKEN};
use super::header::Name;
use super::method::Method;
use super::start_line::request_line_version;
use super::via::Via;

/// What bytes seem to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Request,
    Response,
    /// Nothing but CRLFs, NULs or spaces: what clients send to keep a NAT open.
    KeepAlive,
    Garbage,
}

/// A guess from the first bytes, in O(start line). `Garbage` is never parseable; the others may still have faults.
pub fn kind(bytes: &[u8]) -> Kind {
    let bytes = skip_crlf(bytes);
    if bytes.starts_with(b"SIP/") {
        return Kind::Response;
    }
    let method = cursor::skip(bytes, 0, TOKEN);
    if method > 0 && bytes.get(method) == Some(&b' ') {
        return Kind::Request;
    }
    match bytes.get(..4) {
        Some(word) if word.eq_ignore_ascii_case(b"SIP/") => Kind::Response,
        _ if bytes.len() <= 64 && bytes.iter().all(|&b| b == 0 || cursor::is(b, SPACE)) => Kind::KeepAlive,
        // A request line whose method is not a token can still be answered.
        _ if is_request_line(bytes) => Kind::Request,
        _ => Kind::Garbage,
    }
}

fn is_request_line(bytes: &[u8]) -> bool {
    memchr::memchr(b'\n', bytes).is_some_and(|end| request_line_version(cursor::trim_end(&bytes[..end])).is_some())
}

/// The method of a request; `Other` for anything else.
pub fn method(bytes: &[u8]) -> Method {
    let bytes = skip_crlf(bytes);
    let end = cursor::skip(bytes, 0, TOKEN);
    if bytes.get(end) != Some(&b' ') {
        return Method::Other;
    }
    Method::parse(&bytes[..end])
}

/// Returns the branch of the topmost Via: the same as a full parse, whenever that finds no fault.
pub fn top_via_branch(bytes: &[u8]) -> Option<&[u8]> {
    top_via(bytes)?.branch()
}

/// Returns the topmost Via, under the same condition; its position in the message is not known.
#[inline]
pub fn top_via(bytes: &[u8]) -> Option<Via<'_>> {
    let bytes = skip_crlf(bytes);
    let mut at = memchr::memchr(b'\n', bytes)? + 1;
    loop {
        let line = &bytes[at..];
        if matches!(line.first()?, b'\r' | b'\n') {
            return None;
        }
        let mut end = at + memchr::memchr(b'\n', line)?;
        // Without a colon it is an unreadable line, which a response may have (see `Message::unread_lines`).
        if matches!(line[0], b'v' | b'V')
            && let Some(colon) = memchr::memchr(b':', &bytes[at..end])
            && Name::parse(cursor::trim_end(&line[..colon])) == Name::Via
        {
            while matches!(bytes.get(end + 1), Some(b' ' | b'\t')) {
                end += 1 + memchr::memchr(b'\n', &bytes[end + 1..])?;
            }
            let value = cursor::trim(&bytes[at + colon + 1..end]);
            return Some(Via::parse_prefix(value).ok()?.0);
        }
        at = end + 1;
    }
}

/// Returns where the first request begins that follows lines that are not SIP.
pub fn request_behind(bytes: &[u8]) -> Option<usize> {
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', bytes) {
        let line = cursor::trim_end(&bytes[start..end]);
        let method = cursor::skip(line, 0, TOKEN);
        if method > 0 && line.get(method) == Some(&b' ') && request_line_version(line).is_some() {
            return Some(start);
        }
        start = end + 1;
    }
    None
}

fn skip_crlf(mut bytes: &[u8]) -> &[u8] {
    while let Some(rest) = bytes.strip_prefix(b"\r\n") {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::{Index, Message};

    #[test]
    fn kinds() {
        for (bytes, expected) in [
            (&b"INVITE sip:a SIP/2.0\r\n"[..], Kind::Request),
            (b"\r\n\r\nINVITE sip:a SIP/2.0\r\n", Kind::Request),
            (b"SIP/2.0 200 OK\r\n", Kind::Response),
            (b"sip/2.0 200 OK\r\n", Kind::Response),
            (b"\r\n\r\n", Kind::KeepAlive),
            (b"\r\n", Kind::KeepAlive),
            (b"\0\0\0\0", Kind::KeepAlive),
            (b"\0", Kind::KeepAlive),
            (b"", Kind::KeepAlive),
            (b"OPT{ONS sip:a SIP/2.0\r\nx", Kind::Request),
            (b"\x00\x01\x00\x00stun", Kind::Garbage),
            (b"\x16\x03\x01", Kind::Garbage),
            (b"hello", Kind::Garbage),
            (&[0; 65], Kind::Garbage),
        ] {
            assert_eq!(kind(bytes), expected, "{}", bytes.escape_ascii());
        }
        assert_eq!(method(b"\r\nACK sip:a SIP/2.0\r\n"), Method::Ack);
        assert_eq!(method(b"SIP/2.0 200 OK\r\n"), Method::Other);
        assert_eq!(method(b"ACK"), Method::Other);
    }

    #[test]
    fn the_branch_is_that_of_the_whole_parse() {
        let mut count = 0;
        for rfc in ["rfc4475", "rfc5118"] {
            for entry in std::fs::read_dir(format!("{}/tests/data/{rfc}", env!("CARGO_MANIFEST_DIR"))).unwrap() {
                let bytes = std::fs::read(entry.unwrap().path()).unwrap();
                let mut index = Index::default();
                let Ok(message) = Message::parse(&bytes, &mut index) else {
                    continue;
                };
                assert_ne!(kind(&bytes), Kind::Garbage);
                assert_eq!(kind(&bytes) == Kind::Request, message.is_request());
                if message.is_request() {
                    assert_eq!(method(&bytes), message.method());
                }
                if message.fault().is_none() {
                    let branch = message.top_via().ok().and_then(|via| via.branch());
                    assert_eq!(top_via_branch(&bytes), branch);
                    count += usize::from(branch.is_some());
                }
            }
        }
        assert!(count > 45, "{count}");
    }

    #[test]
    fn a_request_behind_something_else() {
        for (bytes, expected) in [
            (&b"HELLO\r\nOPTIONS sip:a SIP/2.0\r\n"[..], Some(7)),
            (b"HELLO\n\nOPTIONS sip:a SIP/2.0\nBYE sip:a SIP/2.0\n", Some(7)),
            (b"OPTIONS sip:a SIP/2.0\r\n", Some(0)),
            (b"x\r\nOPTIONS sip:a SIP/2.0", None),
            (b"x\r\nSIP/2.0 200 OK\r\n", None),
            (b"x\r\n SIP/2.0\r\n", None),
            (b"GET / HTTP/1.1\r\n\r\n", None),
            (b"", None),
        ] {
            assert_eq!(request_behind(bytes), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn no_branch() {
        for bytes in [
            &b""[..],
            b"\r\n",
            b"SIP/2.0 200 OK",
            b"SIP/2.0 200 OK\r\n",
            b"SIP/2.0 200 OK\r\n\r\nVia: SIP/2.0/UDP h;branch=a\r\n",
            b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h\r\nVia: SIP/2.0/UDP h;branch=a\r\n\r\n",
            b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=a",
            b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h\r\n ;branch=a",
            b"SIP/2.0 200 OK\r\nVersion: SIP/2.0/UDP h;branch=a\r\n\r\n",
            b"SIP/2.0 200 OK\r\nVia SIP/2.0/UDP h;branch=a\r\n\r\n",
        ] {
            assert_eq!(top_via_branch(bytes), None, "{}", bytes.escape_ascii());
        }
        let bytes = b"SIP/2.0 200 OK\r\nX: y\r\nvIA : SIP/2.0/UDP h\r\n ;branch=a , SIP/2.0/UDP g;branch=b\r\n\r\n";
        assert_eq!(top_via_branch(bytes), Some(&b"a"[..]));
        // An unreadable line of a response hides nothing.
        let bytes = b"SIP/2.0 200 OK\r\nVi/2.0\r\n more\r\nv: SIP/2.0/UDP h;branch=b\r\n\r\n";
        assert_eq!(top_via_branch(bytes), Some(&b"b"[..]));
    }
}
