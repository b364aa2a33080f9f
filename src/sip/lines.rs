//! The header lines of a message: located in its bytes, and linked in order and by name.

use super::cursor::{self, TOKEN};
use super::error::Fault;
use super::header::{Header, Name};
use crate::base::Span;

/// No header line; also the end of a chain.
const NONE: u16 = u16::MAX;

/// The header lines of one message.
#[derive(Debug)]
pub(super) struct Lines {
    list: Vec<Line>,
    /// The first line of each name.
    first: [u16; Name::COUNT],
    /// The last one, valid where `first` is.
    last: [u16; Name::COUNT],
}

/// One header line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    start: u32,
    end: u32,
    pub(super) value_start: u32,
    pub(super) value_end: u32,
    name_len: u16,
    /// The next line of the same name.
    next: u16,
    name: Name,
}

impl Default for Lines {
    fn default() -> Lines {
        Lines { list: Vec::new(), first: [NONE; Name::COUNT], last: [NONE; Name::COUNT] }
    }
}

impl Lines {
    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.first = [NONE; Name::COUNT];
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Line> {
        self.list.iter()
    }

    #[inline]
    pub(super) fn has(&self, name: Name) -> bool {
        self.first[name as usize] != NONE
    }

    #[inline]
    pub(super) fn first(&self, name: Name) -> Option<&Line> {
        self.list.get(usize::from(self.first[name as usize]))
    }

    /// The next line of the same name.
    #[inline]
    pub(super) fn next(&self, line: &Line) -> Option<&Line> {
        self.list.get(usize::from(line.next))
    }

    #[inline(always)]
    pub(super) fn push(&mut self, line: Line) {
        let place = self.list.len() as u16;
        let name = line.name as usize;
        if self.first[name] == NONE {
            self.first[name] = place;
        } else if let Some(before) = self.list.get_mut(usize::from(self.last[name])) {
            before.next = place;
        }
        self.last[name] = place;
        self.list.push(line);
    }

    /// A line after the last one that is read: kept if an answer cannot be made without it (RFC 3261 §8.2.6.2).
    pub(super) fn push_for_answer(&mut self, line: Line) {
        let is_needed = match line.name {
            Name::Via => true,
            Name::From | Name::To | Name::CallId | Name::CSeq => !self.has(line.name),
            _ => false,
        };
        if is_needed && self.list.len() < usize::from(NONE) {
            self.push(line);
        }
    }
}

impl Line {
    /// No line of the same name follows.
    #[inline]
    pub(super) fn is_last(&self) -> bool {
        self.next == NONE
    }

    #[inline]
    pub(super) fn value<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        self.value_span().in_text(bytes)
    }

    #[inline]
    fn value_span(&self) -> Span {
        Span { start: self.value_start, end: self.value_end }
    }

    #[inline]
    pub(super) fn header<'a>(&self, bytes: &'a [u8]) -> Header<'a> {
        let raw_name = Span { start: self.start, end: self.start + u32::from(self.name_len) };
        Header {
            name: self.name,
            raw_name: raw_name.in_text(bytes),
            value: self.value(bytes),
            line: Span { start: self.start, end: self.end },
            value_span: self.value_span(),
        }
    }
}

/// Keeps the first fault.
pub(super) fn blame(faults: &mut Option<Fault>, fault: Fault) {
    faults.get_or_insert(fault);
}

/// The end of the line at `start`, and the start of the next one. A lone CR or LF is a fault; of the two only the LF ends a line.
#[inline(always)]
pub(super) fn line_end(bytes: &[u8], start: usize, faults: &mut Option<Fault>) -> Option<(usize, usize)> {
    let mut at = start;
    loop {
        at = cr_or_lf(bytes, at)?;
        if bytes[at] == b'\n' {
            blame(faults, Fault::BareLf);
            return Some((at, at + 1));
        }
        if bytes.get(at + 1) == Some(&b'\n') {
            return Some((at, at + 2));
        }
        blame(faults, Fault::BareCr);
        at += 1;
    }
}

/// The first CR or LF from `at` on. Lines are short: a search without set-up finishes before a wider one has begun.
#[inline(always)]
fn cr_or_lf(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut rest = bytes.get(at..)?;
    loop {
        // Sixteen bytes at once: this compiles to one vector comparison. CR and LF are below 14, and a tab now and then.
        while let Some((sixteen, behind)) = rest.split_first_chunk::<16>() {
            if sixteen.iter().fold(false, |found, &b| found | (b < FIRST_ABOVE)) {
                break;
            }
            rest = behind;
            at += 16;
        }
        let first = match rest.first_chunk::<8>() {
            Some(eight) => first_below(*eight).or_else(|| {
                let eight = rest.get(8..16)?.first_chunk::<8>()?;
                Some(8 + first_below(*eight)?)
            }),
            None => None,
        };
        let first = match first {
            Some(first) => first,
            None => rest.iter().position(|&b| b < FIRST_ABOVE)?,
        };
        at += first;
        if matches!(rest[first], b'\r' | b'\n') {
            return Some(at);
        }
        rest = &rest[first + 1..];
        at += 1;
    }
}

const FIRST_ABOVE: u8 = b'\r' + 1;

/// The first byte below [`FIRST_ABOVE`].
#[inline(always)]
fn first_below(bytes: [u8; 8]) -> Option<usize> {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // The lowest set bit is right; those above it may be wrong, and are not used.
    let word = u64::from_le_bytes(bytes);
    let found = word.wrapping_sub(LOW * FIRST_ABOVE as u64) & !word & HIGH;
    (found != 0).then(|| found.trailing_zeros() as usize / 8)
}

/// Reads one header line: `at..first_end` is its first physical line, `end` the end of its last one, `next` what follows.
#[inline(always)]
pub(super) fn header_line(bytes: &[u8], at: usize, first_end: usize, end: usize, next: usize) -> Option<Line> {
    let colon = at + colon(&bytes[at..first_end])?;
    let mut token = &bytes[at..colon];
    let mut name = Name::parse(token);
    if name == Name::Other {
        // White space before the colon is rare, and not part of the name.
        while let [rest @ .., b' ' | b'\t'] = token {
            token = rest;
        }
        name = Name::parse(token);
        if name == Name::Other && !cursor::all(token, TOKEN) {
            return None;
        }
    }
    let mut value_start = colon + 1;
    if bytes[value_start..end].first() == Some(&b' ') {
        value_start += 1;
    }
    let value_start = cursor::skip_space(&bytes[..end], value_start);
    let value = cursor::trim_end(&bytes[value_start..end]);
    Some(Line {
        start: at as u32,
        end: next as u32,
        value_start: value_start as u32,
        value_end: (value_start + value.len()) as u32,
        name_len: u16::try_from(token.len()).ok()?,
        next: NONE,
        name,
    })
}

/// The first colon. Nearly all names are shorter than sixteen bytes, so two words are searched before anything with a set-up cost.
#[inline(always)]
fn colon(line: &[u8]) -> Option<usize> {
    if let Some((head, rest)) = line.split_first_chunk::<8>() {
        if let Some(at) = colon_in_word(*head) {
            return Some(at);
        }
        if let Some((head, rest)) = rest.split_first_chunk::<8>() {
            if let Some(at) = colon_in_word(*head) {
                return Some(8 + at);
            }
            return memchr::memchr(b':', rest).map(|at| 16 + at);
        }
        return rest.iter().position(|&b| b == b':').map(|at| 8 + at);
    }
    line.iter().position(|&b| b == b':')
}

#[inline(always)]
fn colon_in_word(bytes: [u8; 8]) -> Option<usize> {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // The lowest zero byte is now the first colon; bits above it may be wrong, and are not used.
    let zero = u64::from_le_bytes(bytes) ^ (LOW * b':' as u64);
    let found = zero.wrapping_sub(LOW) & !zero & HIGH;
    (found != 0).then(|| found.trailing_zeros() as usize / 8)
}
