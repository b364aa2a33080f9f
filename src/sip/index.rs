//! The positions of the parts of a message (RFC 3261 §7), found in one pass over its bytes.

use super::cursor;
use super::error::Fault;
use super::header::Name;
use super::lines::{Lines, blame, header_line, line_end, plain_line};
use super::memo::Memo;
use super::name_addr::AddressParts;
use super::start_line::StartLine;
use super::uri::UriParts;
use super::via::ViaParts;
use crate::base::Span;

/// More header lines than this in one message are a fault. Real messages have about twenty; the limit keeps an index small.
pub const MAX_HEADER_LINES: usize = 1024;

/// The positions of the parts of a message. The caller owns it and lends it to one [`super::Message::parse`] after another; once
/// warm it does not allocate.
#[derive(Debug, Default)]
pub struct Index {
    pub(super) lines: Lines,
    pub(super) start_line: StartLine,
    pub(super) fault: Option<Fault>,
    /// A response has unreadable header lines.
    pub(super) has_unread_lines: bool,
    pub(super) start: u32,
    pub(super) headers_start: u32,
    pub(super) headers_end: u32,
    pub(super) body: Span,
    pub(super) top_via: Memo<ViaParts>,
    pub(super) from: Memo<AddressParts>,
    pub(super) to: Memo<AddressParts>,
    pub(super) uri: Memo<UriParts>,
    /// The number, and where in the field value the method begins.
    pub(super) cseq: Memo<(u32, u32)>,
}

impl Index {
    fn clear(&mut self) {
        self.lines.clear();
        self.start_line = StartLine::default();
        self.fault = None;
        self.has_unread_lines = false;
        self.top_via.clear();
        self.from.clear();
        self.to.clear();
        self.uri.clear();
        self.cseq.clear();
    }

    /// Keeps the first fault.
    fn blame(&mut self, fault: Fault) {
        blame(&mut self.fault, fault);
    }

    /// An error means that the bytes are not SIP; any lesser fault is kept.
    pub(super) fn fill(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.clear();
        if bytes.len() > u32::MAX as usize / 2 {
            return Err(Fault::TooLarge);
        }
        let mut start = 0;
        while bytes[start..].starts_with(b"\r\n") {
            start += 2;
        }
        self.start = start as u32;
        let (end, next) = line_end(bytes, start, &mut self.fault).ok_or(Fault::NotSip)?;
        self.start_line.read(bytes, start, end, &mut self.fault)?;
        self.headers_start = next as u32;
        let body_start = self.header_lines(bytes, next);
        self.find_body(bytes, body_start);
        Ok(())
    }

    /// Indexes the header lines from `at` on; returns where the body starts.
    fn header_lines(&mut self, bytes: &[u8], mut at: usize) -> usize {
        loop {
            if self.lines.len() < MAX_HEADER_LINES
                && let Some(line) = plain_line(bytes, at)
            {
                at = line.end();
                self.lines.push(line);
                continue;
            }
            match bytes.get(at..) {
                Some([b'\r', b'\n', ..]) => {
                    self.headers_end = at as u32;
                    return at + 2;
                }
                Some([b'\n', ..]) => {
                    self.blame(Fault::BareLf);
                    self.headers_end = at as u32;
                    return at + 1;
                }
                _ => {}
            }
            match self.unusual_line(bytes, at) {
                Some(next) => at = next,
                None => {
                    self.blame(Fault::Truncated);
                    self.headers_end = at as u32;
                    return bytes.len();
                }
            }
        }
    }

    /// Indexes the header line at `at`, however it is written; returns where the next one starts. `None` if it has no end.
    #[cold]
    fn unusual_line(&mut self, bytes: &[u8], at: usize) -> Option<usize> {
        let (first_end, mut next) = line_end(bytes, at, &mut self.fault)?;
        let mut end = first_end;
        while matches!(bytes.get(next), Some(b' ' | b'\t')) {
            (end, next) = line_end(bytes, next, &mut self.fault)?;
        }
        let line = header_line(bytes, at, first_end, end, next);
        if self.lines.len() >= MAX_HEADER_LINES {
            self.blame(Fault::TooManyHeaders);
            // It is refused; the search for what its answer needs goes on.
            if let Some(line) = line {
                self.lines.push_for_answer(line);
            }
            return Some(next);
        }
        match line {
            Some(line) => self.lines.push(line),
            None if self.start_line.status != 0 => self.has_unread_lines = true,
            None => self.blame(Fault::HeaderLine),
        }
        Some(next)
    }

    /// Finds the end of the body by Content-Length (§18.3, §20.14).
    fn find_body(&mut self, bytes: &[u8], start: usize) {
        let available = bytes.len() - start;
        let length = match self.lines.first(Name::ContentLength).copied() {
            None => available,
            Some(line) if !line.is_last() => {
                self.blame(Fault::ContentLengthRepeated);
                0
            }
            Some(line) => {
                let text = line.value(bytes);
                match cursor::number_saturating(text).map(|length| length as usize) {
                    Some(length) if length <= available => length,
                    Some(_) => {
                        self.blame(Fault::ContentLengthTooLong);
                        available
                    }
                    None => {
                        self.blame(Fault::ContentLength);
                        0
                    }
                }
            }
        };
        self.body = Span::new(start, start + length);
    }
}
