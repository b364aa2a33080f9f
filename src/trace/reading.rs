//! What a trace needs from a message: its Call-ID and the addresses that identify users. Parsed leniently, so that broken messages
//! can be traced too: those are often the reason for a trace.

use crate::sip::{Name, NameAddr};
use memchr::memchr;
use std::ops::Range;

/// Parts of a message; empty where it has none.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Reading<'a> {
    pub call_id: &'a [u8],
    /// The whole values: most traces never need the addresses in them.
    pub from: &'a [u8],
    pub to: &'a [u8],
    pub request_uri: &'a [u8],
}

impl<'a> Reading<'a> {
    pub fn of(bytes: &'a [u8]) -> Reading<'a> {
        let mut reading = Reading::default();
        let mut lines = Lines::of(bytes);
        let Some(first) = lines.by_ref().find(|line| !bytes[line.clone()].trim_ascii().is_empty()) else {
            return reading;
        };
        reading.request_uri = request_uri(&bytes[first]);
        for line in lines {
            let text = &bytes[line];
            match text.first() {
                Some(b'c' | b'C' | b'i' | b'I' | b'f' | b'F' | b't' | b'T') => {}
                _ if text.trim_ascii().is_empty() => break,
                _ => continue,
            }
            let Some((name, value)) = field(text) else {
                continue;
            };
            let part = match name {
                Name::CallId => &mut reading.call_id,
                Name::From => &mut reading.from,
                Name::To => &mut reading.to,
                _ => continue,
            };
            // Of several the first counts, as in the rules.
            if part.is_empty() {
                *part = value;
            }
            let parts = [reading.call_id, reading.from, reading.to];
            if parts.iter().all(|part| !part.is_empty()) {
                break;
            }
        }
        reading
    }

    /// Returns the URIs of From and To, empty if missing, and the Request-URI.
    pub fn uris(&self) -> [&'a [u8]; 3] {
        let uri = |value| NameAddr::parse(value).map_or(&b""[..], |address| address.uri);
        [self.request_uri, uri(self.from), uri(self.to)]
    }
}

fn request_uri(line: &[u8]) -> &[u8] {
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    match words.next() {
        Some(first) if !first.starts_with(b"SIP/") => words.next().unwrap_or(&[]),
        _ => &[],
    }
}

/// Returns name and value of a header line, which may be folded.
pub fn field(line: &[u8]) -> Option<(Name, &[u8])> {
    let colon = memchr(b':', line)?;
    let name = Name::parse(line[..colon].trim_ascii_end());
    Some((name, line[colon + 1..].trim_ascii()))
}

/// The lines of a message with their line ends; one that begins with a blank belongs to the line before it (RFC 3261 §7.3.1).
pub struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    pub fn of(bytes: &'a [u8]) -> Lines<'a> {
        Lines { bytes, at: 0 }
    }
}

impl Iterator for Lines<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let start = self.at;
        if start >= self.bytes.len() {
            return None;
        }
        let end_of_line = |at: usize| memchr(b'\n', &self.bytes[at..]).map_or(self.bytes.len(), |end| at + end + 1);
        let mut end = end_of_line(start);
        let is_blank = self.bytes[start..end].trim_ascii().is_empty();
        while !is_blank && matches!(self.bytes.get(end), Some(b' ' | b'\t')) {
            end = end_of_line(end);
        }
        self.at = end;
        Some(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> [String; 4] {
        let reading = Reading::of(text.as_bytes());
        let [request_uri, from, to] = reading.uris();
        [reading.call_id, from, to, request_uri].map(|part| String::from_utf8_lossy(part).into_owned())
    }

    #[test]
    fn requests_responses_and_broken_ones() {
        let head = "From: \"A\" <sip:a@x>;tag=1\r\nt: sip:b@y;tag=2\r\nCALL-id : 7@z \r\n";
        assert_eq!(
            read(&format!("INVITE sip:c@d SIP/2.0\r\n{head}\r\nCall-ID: body\r\n")),
            ["7@z", "sip:a@x", "sip:b@y", "sip:c@d"]
        );
        assert_eq!(read(&format!("\r\n\r\nSIP/2.0 200 OK\r\n{head}")), ["7@z", "sip:a@x", "sip:b@y", ""]);
        assert_eq!(read("BYE sip:c@d SIP/2.0\nno colon\ni:\r\n 9@z\r\nFrom: <broken\r\ni: 10\r\n\r\n"), ["9@z", "", "", "sip:c@d"]);
        for text in ["", "\r\n", "x", "\0\0\0", "SIP/2.0", "INVITE"] {
            assert_eq!(read(text), ["", "", "", ""], "{text:?}");
        }
    }
}
