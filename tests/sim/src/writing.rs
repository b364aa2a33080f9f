//! Messages as the laboratory's agents write them: plain, by hand.

use super::reading::{Field, Reading};

/// Appends all parts.
pub fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// A request's start line; header lines and [`finish`] follow.
pub fn request(method: &[u8], uri: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(640);
    put(&mut out, &[method, b" ", uri, b" SIP/2.0\r\n"]);
    out
}

pub fn line(out: &mut Vec<u8>, name: &str, value: &[&[u8]]) {
    put(out, &[name.as_bytes(), b": "]);
    put(out, value);
    out.extend_from_slice(b"\r\n");
}

/// Content-Length, the empty line and the body.
pub fn finish(out: &mut Vec<u8>, body: &[u8]) {
    line(out, "Content-Length", &[body.len().to_string().as_bytes()]);
    put(out, &[b"\r\n", body]);
}

/// A response to `request`, unfinished: RFC 3261 §8.2.6. `tag` is added to To if it has none.
pub fn response(request: &Reading, status: u16, reason: &str, tag: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(640);
    put(&mut out, &[b"SIP/2.0 ", status.to_string().as_bytes(), b" ", reason.as_bytes(), b"\r\n"]);
    for via in &request.vias {
        line(&mut out, "Via", &[request.get(via)]);
    }
    for name in [Field::From, Field::To, Field::CallId, Field::CSeq] {
        let value = request.value(name).unwrap_or(b"");
        match name {
            Field::From => line(&mut out, "From", &[value]),
            Field::To if !tag.is_empty() && request.tag(Field::To).is_none() => line(&mut out, "To", &[value, b";tag=", tag]),
            Field::To => line(&mut out, "To", &[value]),
            Field::CallId => line(&mut out, "Call-ID", &[value]),
            _ => line(&mut out, "CSeq", &[value]),
        }
    }
    out
}

/// A copy of `message` in which other bytes stand for a part.
pub fn replaced(message: &Reading, part: std::ops::Range<usize>, with: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.bytes.len() + with.len());
    put(&mut out, &[&message.bytes[..part.start], with, &message.bytes[part.end..]]);
    out
}

/// A copy of `message` with one header line more, the last.
pub fn with_line(message: &Reading, name: &str, value: &[u8]) -> Vec<u8> {
    let at = message.lines.last().map_or(0, |line| line.whole.end);
    let text = [name.as_bytes(), b": ", value, b"\r\n"].concat();
    replaced(message, at..at, &text)
}

/// A copy of `message` without the header lines of a field.
pub fn without(message: &Reading, field: Field) -> Vec<u8> {
    let mut out = message.bytes.clone();
    let lines = message.lines.iter().rev();
    for line in lines.filter(|line| line.field == field) {
        out.drain(line.whole.clone());
    }
    out
}
