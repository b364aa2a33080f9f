//! The start line of a message (RFC 3261 §7.1, §7.2): a request line or a status line.

use super::cursor::{self, SPACE, TOKEN};
use super::error::Fault;
use super::lines::blame;
use super::method::Method;
use crate::base::Span;

/// The content of a start line, with positions.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StartLine {
    pub(super) method: Method,
    /// 0 in a request.
    pub(super) status: u16,
    /// The method; empty in a response.
    pub(super) method_span: Span,
    pub(super) request_uri: Span,
    pub(super) reason: Span,
}

/// True if [`StartLine::read`] would find SIP in the line with this end; its CR may still be there.
#[inline]
pub(super) fn is_start_line(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match line.get(..4) {
        Some(word) if word.eq_ignore_ascii_case(b"SIP/") => {
            let end = memchr::memchr(b' ', line).unwrap_or(line.len());
            version(&line[..end]).is_some()
        }
        _ => line.ends_with(b" SIP/2.0") || request_line_version(cursor::trim_end(line)).is_some(),
    }
}

impl StartLine {
    /// Reads the line at `start..end`. An error means that this is not SIP at all.
    pub(super) fn read(&mut self, bytes: &[u8], start: usize, end: usize, faults: &mut Option<Fault>) -> Result<(), Fault> {
        start_line(self, &bytes[start..end], start, faults)
    }
}

fn start_line(found: &mut StartLine, line: &[u8], start: usize, faults: &mut Option<Fault>) -> Result<(), Fault> {
    if line.get(..4).is_some_and(|word| word.eq_ignore_ascii_case(b"SIP/")) {
        return status_line(found, line, start, faults);
    }
    let space = cursor::skip(line, 0, TOKEN);
    let uri_start = start + space + 1;
    if let Some(head) = line.strip_suffix(b" SIP/2.0") {
        let uri_end = start + head.len();
        if space > 0 && line[space] == b' ' && uri_start < uri_end {
            found.method = Method::parse(&line[..space]);
            found.method_span = Span::new(start, start + space);
            found.request_uri = Span::new(uri_start, uri_end);
            // A URI cannot contain a space; `check` would also notice, but it is the start line's fault.
            if head[space + 1] == b' ' || head.ends_with(b" ") {
                blame(faults, Fault::StartLine);
            }
            return Ok(());
        }
    }
    unusual_request_line(found, line, start, faults)
}

/// `SIP-Version SP Status-Code SP Reason-Phrase`; the second space is optional if no reason follows.
fn status_line(found: &mut StartLine, line: &[u8], start: usize, faults: &mut Option<Fault>) -> Result<(), Fault> {
    found.status = 999;
    let version_end = memchr::memchr(b' ', line).unwrap_or(line.len());
    if !line[..version_end].eq_ignore_ascii_case(b"SIP/2.0") {
        if version(&line[..version_end]).is_none() {
            return Err(Fault::NotSip);
        }
        blame(faults, Fault::Version);
    }
    let rest = line.get(version_end + 1..).unwrap_or_default();
    let code_end = memchr::memchr(b' ', rest).unwrap_or(rest.len());
    match rest[..code_end] {
        [a @ b'1'..=b'6', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
            found.status = u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
        }
        _ => blame(faults, Fault::StatusCode),
    }
    let reason = start + (version_end + 1 + code_end + 1).min(line.len());
    found.reason = Span::new(reason, start + line.len());
    Ok(())
}

/// A request line not in the usual form: as much of it as a response needs, and the fault.
fn unusual_request_line(found: &mut StartLine, line: &[u8], start: usize, faults: &mut Option<Fault>) -> Result<(), Fault> {
    let trimmed = cursor::trim_end(line);
    let (last, major_minor) = request_line_version(trimmed).ok_or(Fault::NotSip)?;
    let method_end = cursor::skip(line, 0, TOKEN);
    let method = &line[..method_end];
    found.method = Method::parse(method);
    found.method_span = Span::new(start, start + method_end);
    let uri_start = cursor::skip_space(line, method_end).min(last);
    let uri = cursor::trim(&line[uri_start..last]);
    let uri_start = uri_start + cursor::skip_space(&line[uri_start..last], 0);
    found.request_uri = Span::new(start + uri_start, start + uri_start + uri.len());
    if major_minor != (2, 0) {
        blame(faults, Fault::Version);
    } else if method.is_empty() || line.get(method_end) != Some(&b' ') {
        blame(faults, Fault::Method);
    } else if uri.is_empty() {
        blame(faults, Fault::RequestUri);
    } else if last != method_end + 1 + uri.len() || line[last] != b' ' || trimmed.len() != line.len() {
        blame(faults, Fault::StartLine);
    }
    // What remains is `sip/2.0` in lower case, which the grammar accepts.
    Ok(())
}

/// The last white space of a line, trailing white space aside, and the SIP-Version after it: they identify a request line.
pub(super) fn request_line_version(line: &[u8]) -> Option<(usize, (u32, u32))> {
    let last = line.iter().rposition(|&b| cursor::is(b, SPACE))?;
    Some((last, version(&line[last + 1..])?))
}

/// `"SIP" "/" 1*DIGIT "." 1*DIGIT`, in any case.
fn version(text: &[u8]) -> Option<(u32, u32)> {
    let (name, number) = text.split_at_checked(4)?;
    if !name.eq_ignore_ascii_case(b"SIP/") {
        return None;
    }
    let dot = memchr::memchr(b'.', number)?;
    Some((cursor::number_saturating(&number[..dot])?, cursor::number_saturating(&number[dot + 1..])?))
}
