//! One pass over a received SIP message (RFC 3261 §7): where the headers are that a caller or an answerer must look at.

use memchr::{memchr, memchr_iter, memmem};

/// A header line of the message: `start..end` is the line without its CRLF, `value..end` what follows the colon and the blanks.
#[derive(Clone, Copy, Default, Debug)]
pub struct Line {
    pub start: u16,
    pub value: u16,
    pub end: u16,
}

/// At most this many lines of one repeated header are kept; more make the message wrong.
const REPEATED: usize = 8;

#[derive(Clone, Copy, Default, Debug)]
pub struct Lines {
    lines: [Line; REPEATED],
    count: usize,
}

impl Lines {
    fn push(&mut self, line: Line) {
        if self.count < REPEATED {
            self.lines[self.count] = line;
        }
        self.count += 1;
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn as_slice(&self) -> &[Line] {
        &self.lines[..self.count.min(REPEATED)]
    }
}

/// A whole message, and where its headers are. Absent headers have an empty line.
#[derive(Default, Debug)]
pub struct Message<'a> {
    pub raw: &'a [u8],
    pub via: Lines,
    pub record_route: Lines,
    pub routes: usize,
    pub from: Line,
    pub to: Line,
    pub call_id: Line,
    pub cseq: Line,
    pub contact: Line,
    pub max_forwards: Line,
    /// WWW-Authenticate and Proxy-Authenticate.
    pub challenges: Lines,
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    pub fn value(&self, line: Line) -> &'a [u8] {
        &self.raw[usize::from(line.value)..usize::from(line.end)]
    }

    /// The line with its CRLF.
    pub fn whole(&self, line: Line) -> &'a [u8] {
        &self.raw[usize::from(line.start)..usize::from(line.end) + 2]
    }

    /// The tag of From or To.
    pub fn tag(&self, line: Line) -> Option<&'a [u8]> {
        parameter(self.value(line), b"tag")
    }

    /// Status of a response; 0 for anything else.
    pub fn status(&self) -> u16 {
        match self.raw.get(..12) {
            Some(line) if line.starts_with(b"SIP/2.0 ") => {
                line[8..11].iter().fold(0, |sum, digit| sum * 10 + u16::from(digit.wrapping_sub(b'0').min(9)))
            }
            _ => 0,
        }
    }

    /// The number in the CSeq, less one, and the method, where the number has one digit: that of every request of a call.
    pub fn cseq(&self) -> Option<(u8, &'a [u8])> {
        match self.value(self.cseq) {
            [digit @ b'1'..=b'9', b' ', method @ ..] => Some((digit - b'1', method)),
            _ => None,
        }
    }
}

/// Finds the headers. Names are read in long and compact form and in any case; folded lines are not joined (nothing here sends them).
pub fn read(raw: &[u8]) -> Option<Message<'_>> {
    let mut found = Message { raw, ..Message::default() };
    if raw.len() > usize::from(u16::MAX) - 2 {
        return None;
    }
    let mut start = memchr(b'\n', raw)? + 1;
    for newline in memchr_iter(b'\n', &raw[start..]).map({
        let base = start;
        move |at| at + base
    }) {
        let end = newline.checked_sub(1)?;
        if end == start {
            found.body = &raw[newline + 1..];
            return Some(found);
        }
        if end < start || raw[end] != b'\r' {
            return None;
        }
        let line = &raw[start..end];
        let colon = memchr(b':', line)?;
        let name = line[..colon].trim_ascii_end();
        let mut value = colon + 1;
        while line.get(value).is_some_and(|&b| b == b' ' || b == b'\t') {
            value += 1;
        }
        let header = Line { start: start as u16, value: (start + value) as u16, end: end as u16 };
        let is = |long: &str| name.len() == 1 || name.eq_ignore_ascii_case(long.as_bytes());
        match (name.len(), line[0] | 0x20) {
            (3 | 1, b'v') if is("Via") => found.via.push(header),
            (12, b'r') if is("Record-Route") => found.record_route.push(header),
            (5, b'r') if is("Route") => found.routes += 1,
            (4 | 1, b'f') if is("From") => found.from = header,
            (2 | 1, b't') if is("To") => found.to = header,
            (7 | 1, b'c' | b'i' | b'm') => {
                if (line[0] | 0x20) == b'i' || name.eq_ignore_ascii_case(b"Call-ID") {
                    found.call_id = header;
                } else if (line[0] | 0x20) == b'm' || name.eq_ignore_ascii_case(b"Contact") {
                    found.contact = header;
                }
            }
            (4, b'c') if is("CSeq") => found.cseq = header,
            (12, b'm') if is("Max-Forwards") => found.max_forwards = header,
            (16, b'w') if is("WWW-Authenticate") => found.challenges.push(header),
            (18, b'p') if is("Proxy-Authenticate") => found.challenges.push(header),
            _ => {}
        }
        start = newline + 1;
    }
    None
}

/// A header parameter's token, such as `tag` or `branch`, outside of any angle brackets.
pub fn parameter<'a>(value: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let parameters = match memchr::memrchr(b'>', value) {
        Some(at) => &value[at + 1..],
        None => value,
    };
    let mut rest = parameters;
    loop {
        let at = memmem::find(rest, name)?;
        let after = at + name.len();
        if at > 0 && rest[at - 1] == b';' && rest.get(after) == Some(&b'=') {
            let token = &rest[after + 1..];
            let end = token.iter().position(|b| matches!(b, b';' | b' ' | b'\t' | b',')).unwrap_or(token.len());
            return Some(&token[..end]);
        }
        rest = &rest[after..];
    }
}

/// The URI of a Contact: between the angle brackets, or the value up to its parameters.
pub fn contact_uri(value: &[u8]) -> &[u8] {
    if let Some(open) = memchr(b'<', value) {
        let inner = &value[open + 1..];
        return &inner[..memchr(b'>', inner).unwrap_or(inner.len())];
    }
    &value[..memchr(b';', value).unwrap_or(value.len())]
}

/// Splits a header value at its commas, but not at those within quotes or angle brackets.
pub fn split_list(value: &[u8]) -> Vec<&[u8]> {
    let (mut parts, mut start, mut quoted, mut angle) = (Vec::new(), 0, false, false);
    for (at, byte) in value.iter().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b'<' if !quoted => angle = true,
            b'>' if !quoted => angle = false,
            b',' if !quoted && !angle => {
                parts.push(value[start..at].trim_ascii());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(value[start..].trim_ascii());
    parts
}

/// Appends to a fixed buffer.
pub struct Writer<'a> {
    buffer: &'a mut [u8],
    length: usize,
    overflowed: bool,
}

impl<'a> Writer<'a> {
    pub fn new(buffer: &'a mut [u8]) -> Writer<'a> {
        Writer { buffer, length: 0, overflowed: false }
    }

    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        match self.buffer.get_mut(self.length..self.length + bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.length += bytes.len();
            }
            None => self.overflowed = true,
        }
    }

    /// Its length; 0 if it did not fit, and cannot be sent.
    pub fn length(&self) -> usize {
        match self.overflowed {
            true => 0,
            false => self.length,
        }
    }
}

/// Writes these one after the other; returns what [`Writer::length`] says.
pub fn write(parts: &[&[u8]], buffer: &mut [u8]) -> usize {
    let mut writer = Writer::new(buffer);
    parts.iter().for_each(|part| writer.push(part));
    writer.length()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &[u8] = b"SIP/2.0 200 OK\r\n\
        Via: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bKx\r\n\
        v: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bKabc;received=127.0.0.1\r\n\
        Record-Route: <sip:127.0.0.1;lr>\r\n\
        FROM: \"a,b\" <sip:u1@127.0.0.1>;tag=x1\r\n\
        t: <sip:u2@127.0.0.1;tag=no>;tag=y2\r\n\
        i:id1\r\n\
        CSeq: 1 INVITE\r\n\
        m: <sip:u2@127.0.0.1:5080>;expires=3\r\n\
        www-authenticate: Digest a\r\n\
        Proxy-Authenticate : Digest b\r\n\
        Content-Length: 2\r\n\r\nhi";

    #[test]
    fn finds_long_and_compact_names() {
        let found = read(OK).expect("complete");
        assert_eq!(found.status(), 200);
        assert_eq!(found.via.len(), 2);
        assert_eq!(parameter(found.value(found.via.as_slice()[1]), b"branch"), Some(&b"z9hG4bKabc"[..]));
        assert_eq!(found.tag(found.from), Some(&b"x1"[..]));
        assert_eq!(found.tag(found.to), Some(&b"y2"[..]));
        assert_eq!(found.value(found.call_id), b"id1");
        assert_eq!(found.cseq(), Some((0, &b"INVITE"[..])));
        assert_eq!(contact_uri(found.value(found.contact)), b"sip:u2@127.0.0.1:5080");
        assert_eq!(found.whole(found.record_route.as_slice()[0]), b"Record-Route: <sip:127.0.0.1;lr>\r\n");
        let challenges: Vec<_> = found.challenges.as_slice().iter().map(|line| found.value(*line)).collect();
        assert_eq!(challenges, [b"Digest a", b"Digest b"]);
        assert_eq!(found.body, b"hi");
        assert_eq!(found.value(found.max_forwards), b"");
    }

    #[test]
    fn every_cut_of_the_header_is_no_message() {
        let header = OK.len() - 2;
        for length in 0..header {
            assert!(read(&OK[..length]).is_none(), "cut at {length}");
        }
    }

    #[test]
    fn commas_split_outside_brackets_and_quotes() {
        assert_eq!(split_list(b"<sip:a;x=1,2>, \"p,q\" <sip:b> ,<sip:c>"), [&b"<sip:a;x=1,2>"[..], b"\"p,q\" <sip:b>", b"<sip:c>"]);
    }

    #[test]
    fn a_parameter_is_not_found_inside_another_name() {
        assert_eq!(parameter(b"<sip:a>;xtag=1;tag=2", b"tag"), Some(&b"2"[..]));
        assert_eq!(parameter(b"<sip:a>;xtag=1", b"tag"), None);
    }
}
