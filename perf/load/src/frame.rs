//! Message boundaries in a stream of bytes (RFC 3261 §18.3): the header ends at an empty line, and Content-Length says how much follows it.

use memchr::{memchr, memmem};

use crate::mark::{self, Mark};

/// What stands at the front of the bytes received so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame {
    /// A message of this many bytes, after `skip` bytes of blank lines.
    Message { skip: usize, length: usize },
    /// Nothing whole. `skip` bytes are blank lines (keep-alive, RFC 5626 §4.4.1) and can be thrown away.
    Partial { skip: usize },
    /// A header without a readable Content-Length: nobody can say where the next message begins.
    Broken(&'static str),
}

/// A longer message than any that is sent here. What grows past it is not SIP.
pub const LONGEST: usize = 64 * 1024;

pub fn next(bytes: &[u8]) -> Frame {
    let skip = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    let rest = &bytes[skip..];
    let Some(end) = memmem::find(rest, b"\r\n\r\n") else {
        return match rest.len() {
            0..LONGEST => Frame::Partial { skip },
            _ => Frame::Broken("no end of the header"),
        };
    };
    match content_length(&rest[..end + 2]) {
        Ok(body) if body > LONGEST => Frame::Broken("Content-Length out of all proportion"),
        Ok(body) if rest.len() < end + 4 + body => Frame::Partial { skip },
        Ok(body) => Frame::Message { skip, length: end + 4 + body },
        Err(why) => Frame::Broken(why),
    }
}

/// The same where each message has a mark before it, which the bytes skipped then are.
pub fn next_marked(bytes: &[u8]) -> Frame {
    match Mark::read(bytes) {
        Some(mark) if mark.length > LONGEST => Frame::Broken("what came is not marked"),
        Some(mark) if bytes.len() >= mark::LENGTH + mark.length => Frame::Message { skip: mark::LENGTH, length: mark.length },
        _ => Frame::Partial { skip: 0 },
    }
}

/// The number of a header's Content-Length, which a stream cannot do without (RFC 3261 §20.14).
fn content_length(header: &[u8]) -> Result<usize, &'static str> {
    let mut rest = header;
    let mut found = None;
    while let Some(newline) = memchr(b'\n', rest) {
        let line = &rest[..newline];
        rest = &rest[newline + 1..];
        if !matches!(line.first(), Some(b'C' | b'c' | b'L' | b'l')) {
            continue;
        }
        let Some(colon) = memchr(b':', line) else {
            continue;
        };
        let name = line[..colon].trim_ascii_end();
        if !name.eq_ignore_ascii_case(b"Content-Length") && !name.eq_ignore_ascii_case(b"l") {
            continue;
        }
        let value = line[colon + 1..].trim_ascii();
        if value.is_empty() || value.len() > 9 || !value.iter().all(u8::is_ascii_digit) {
            return Err("Content-Length is not a number");
        }
        let number = value.iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
        if found.is_some_and(|before| before != number) {
            return Err("two different Content-Lengths");
        }
        found = Some(number);
    }
    found.ok_or("no Content-Length")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &[u8] = b"SIP/2.0 200 OK\r\nContact: <sip:a>\r\nl : 4\r\nCSeq: 1 X\r\n\r\nbody";
    const TWO: &[u8] = b"BYE sip:a SIP/2.0\r\ncontent-LENGTH:0\r\n\r\n";

    fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while let Frame::Message { skip, length } = next(bytes) {
            found.push(bytes[skip..skip + length].to_vec());
            bytes = &bytes[skip + length..];
        }
        assert_eq!(next(bytes), Frame::Partial { skip: bytes.len() });
        found
    }

    #[test]
    fn messages_and_blank_lines_come_apart() {
        let stream = [b"\r\n\r\n", ONE, TWO, b"\r\n", TWO, b"\r\n\r\n"].concat();
        assert_eq!(split(&stream), [ONE, TWO, TWO]);
    }

    #[test]
    fn every_cut_waits_for_the_rest() {
        let stream = [b"\r\n\r\n", ONE].concat();
        for length in 0..stream.len() {
            assert!(matches!(next(&stream[..length]), Frame::Partial { .. }), "cut at {length}");
        }
    }

    #[test]
    fn marked_messages_come_apart_and_a_cut_waits() {
        let one = [&Mark::of(TWO).bytes()[..], TWO].concat();
        assert_eq!(next_marked(&[&one[..], &one].concat()), Frame::Message { skip: mark::LENGTH, length: TWO.len() });
        for length in 0..one.len() {
            assert_eq!(next_marked(&one[..length]), Frame::Partial { skip: 0 }, "cut at {length}");
        }
        assert_eq!(next_marked(ONE), Frame::Broken("what came is not marked"));
    }

    #[test]
    fn what_cannot_be_framed_is_told() {
        for (bytes, why) in [
            (&b"X\r\nContent-Type: a\r\n\r\n"[..], "no Content-Length"),
            (b"X\r\nContent-Length: -1\r\n\r\n", "Content-Length is not a number"),
            (b"X\r\nContent-Length: 1\r\nl: 2\r\n\r\n", "two different Content-Lengths"),
            (b"X\r\nContent-Length: 99999999\r\n\r\n", "Content-Length out of all proportion"),
        ] {
            assert_eq!(next(bytes), Frame::Broken(why));
        }
        assert_eq!(next(&[b'x'; LONGEST]), Frame::Broken("no end of the header"));
    }
}
