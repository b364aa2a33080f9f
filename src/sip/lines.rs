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
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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

    #[inline]
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

    /// Where the next line starts.
    #[inline]
    pub(super) fn end(&self) -> usize {
        self.end as usize
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
            Some(eight) => cursor::first_below(u64::from_le_bytes(*eight), FIRST_ABOVE).or_else(|| {
                let eight = rest.get(8..16)?.first_chunk::<8>()?;
                Some(8 + cursor::first_below(u64::from_le_bytes(*eight), FIRST_ABOVE)?)
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

/// Reads the header line at `at` if it is as nearly all are written: a token of up to fifteen bytes, a colon, one space or none, and
/// a value without white space around it, on one line that ends in CRLF and is not the last one. Any other line, valid or not, is
/// left to [`header_line`], which reads the same in a line that is taken here.
#[inline(always)]
pub(super) fn plain_line(bytes: &[u8], at: usize) -> Option<Line> {
    let rest = bytes.get(at..)?;
    let (name, name_len) = Name::at_start(rest.first_chunk()?)?;
    let end = cr_or_lf(rest, 0)?;
    let [b'\r', b'\n', behind, ..] = rest.get(end..)? else {
        return None;
    };
    let value_start = name_len + 1 + usize::from(rest.get(name_len + 1) == Some(&b' '));
    // A CR in the name would end before this start.
    let value = rest.get(value_start..end)?;
    let is_plain = *behind > b' ' || *behind == b'\r';
    if !is_plain || *value.first()? <= b' ' || *value.last()? <= b' ' {
        return None;
    }
    if name == Name::Other && !cursor::all(&rest[..name_len], TOKEN) {
        return None;
    }
    Some(Line {
        start: at as u32,
        end: (at + end + 2) as u32,
        value_start: (at + value_start) as u32,
        value_end: (at + end) as u32,
        name_len: name_len as u16,
        next: NONE,
        name,
    })
}

/// Reads one header line: `at..first_end` is its first physical line, `end` the end of its last one, `next` what follows.
pub(super) fn header_line(bytes: &[u8], at: usize, first_end: usize, end: usize, next: usize) -> Option<Line> {
    let colon = at + memchr::memchr(b':', &bytes[at..first_end])?;
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
    let value_start = cursor::skip_space(&bytes[..end], colon + 1);
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The first line as the full reader reads it, if it has no fault.
    fn read_fully(bytes: &[u8]) -> Option<Line> {
        let mut fault = None;
        let (first_end, mut next) = line_end(bytes, 0, &mut fault)?;
        let mut end = first_end;
        while matches!(bytes.get(next), Some(b' ' | b'\t')) {
            (end, next) = line_end(bytes, next, &mut fault)?;
        }
        let line = header_line(bytes, 0, first_end, end, next)?;
        assert_eq!(fault, None, "a line with a fault is not plain");
        Some(line)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn a_plain_line_reads_the_same(
            name in "(Via|v|V|To|cseq|Max-Forwards|Max\rForwards|X-Other|X%|x|Session-ID-1234|Content-Encoding|WWW-Authenticate|\u{e9}|)[ \t]?",
            colon in "(: |: |:|:  |:\t| : |)",
            value in "([a-z:;,=<>@0-9]{0,40}|[a-z\u{0}-\u{20}:\u{e9}]{0,20}|70|0|)",
            end in "(\r\n|\r\n|\n|\r|\r\n |\r\n\t| \r\n)",
            behind in "(\r\n|v: x\r\n\r\n|\n|\u{0}|)",
        ) {
            let text = format!("{name}{colon}{value}{end}{behind}");
            if let Some(line) = plain_line(text.as_bytes(), 0) {
                prop_assert_eq!(Some(line), read_fully(text.as_bytes()));
                let shifted = format!("{text}{text}");
                let again = plain_line(shifted.as_bytes(), text.len());
                prop_assert_eq!(again.map(|line| line.end()), Some(text.len() + line.end()));
            }
        }
    }

    /// The property above would also hold if no line were plain.
    #[test]
    fn the_usual_lines_are_plain() {
        for line in [
            "Via: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK1\r\n\r\n",
            "Content-Length: 0\r\n\r\n",
            "Max-Forwards:70\r\nTo: x\r\n",
            "v: SIP/2.0/UDP 127.0.0.1\r\n\r\n",
            "X-Unheard-Of: a b  c\r\n\r\n",
        ] {
            assert!(plain_line(line.as_bytes(), 0).is_some(), "{line}");
        }
        for line in [
            "To: x\r\n",
            "To: a-long-value\r\n folded\r\n\r\n",
            "To: a-long-value\r\n\tfolded\r\n\r\n",
            "To: a-long-value\n\r\n",
            "To: a\rb-and-so-on\r\n\r\n",
            "To: a\nb-and-so-on\r\n\r\n",
            "To : a-long-value\r\n\r\n",
            "To:  a-long-value\r\n\r\n",
            "To: a-long-value \r\n\r\n",
            "Supported:\r\n\r\nbehind it",
            "Supported: \r\n\r\nbehind it",
            ": a value without a name\r\n\r\n",
            "no colon in all of this\r\n\r\n",
            "\r\nv=0: the body of a message\r\n\r\n",
        ] {
            assert!(plain_line(line.as_bytes(), 0).is_none(), "{line:?}");
        }
    }
}
