//! The comma-separated values of a header field, over all of its lines (RFC 3261 §7.3.1).

use super::cursor;
use super::header::{Header, Name};
use super::lines::{Line, Lines};
use crate::base::Span;

/// One value of a comma-separated header field.
#[derive(Clone, Copy, Debug, Default)]
pub struct Value<'a> {
    pub text: &'a [u8],
    pub span: Span,
    pub header: Header<'a>,
    /// True for the first of its line.
    pub first: bool,
    /// True for the last of its line.
    pub last: bool,
    /// Where the next value of the line starts, or where the line's field value ends.
    pub(super) next: u32,
}

/// Iterator over [`super::Message::values`].
#[derive(Clone, Debug)]
pub struct Values<'a> {
    bytes: &'a [u8],
    lines: &'a Lines,
    line: Option<&'a Line>,
    /// The line's header, once `inside` it; and the next value's offset in its field value.
    header: Header<'a>,
    inside: bool,
    at: usize,
}

impl<'a> Values<'a> {
    pub(super) fn new(bytes: &'a [u8], lines: &'a Lines, name: Name) -> Values<'a> {
        Values { bytes, lines, line: lines.first(name), header: Header::default(), inside: false, at: 0 }
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        loop {
            let line = self.line?;
            if !self.inside {
                self.header = line.header(self.bytes);
                self.inside = true;
                self.at = 0;
                if self.header.value.is_empty() {
                    // `Supported:` and the like: no value at all.
                    self.line = self.lines.next(line);
                    self.inside = false;
                    continue;
                }
            }
            let list = self.header.value;
            let start = self.at;
            let end = value_end(list, start);
            let text = cursor::trim_end(&list[start..end]);
            let last = end == list.len();
            if last {
                self.line = self.lines.next(line);
                self.inside = false;
            } else {
                self.at = cursor::skip_space(list, end + 1);
            }
            let base = line.value_start as usize;
            return Some(Value {
                text,
                span: Span::new(base + start, base + start + text.len()),
                header: self.header,
                first: start == 0,
                last,
                next: (base + if last { list.len() } else { self.at }) as u32,
            });
        }
    }
}

/// Iterates over the values of a comma-separated list that stands alone, without white space around them.
pub fn listed(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut at = Some(0);
    std::iter::from_fn(move || {
        let start = at?;
        let end = value_end(list, start);
        at = (end < list.len()).then_some(end + 1);
        list.get(start..end).map(cursor::trim)
    })
}

/// Returns the comma that ends the value at `at`, or the end of the list.
fn value_end(list: &[u8], mut at: usize) -> usize {
    while let Some(found) = next_mark(&list[at..]) {
        at += found;
        let end = match list[at] {
            b',' => return at,
            b'"' => cursor::quoted_end(list, at),
            _ => memchr::memchr(b'>', &list[at..]).map(|close| at + close + 1),
        };
        match end {
            Some(end) => at = end,
            None => break, // never closed: the rest is one value, and no parser will take it
        }
    }
    list.len()
}

/// Returns the first comma, quote or opening bracket. An address mostly begins with one, and nothing follows it.
#[inline(always)]
fn next_mark(text: &[u8]) -> Option<usize> {
    match text.first()? {
        b',' | b'"' | b'<' => Some(0),
        _ => memchr::memchr3(b',', b'"', b'<', text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Byte by byte.
    fn end_slowly(list: &[u8]) -> usize {
        let mut at = 0;
        while let Some(byte) = list.get(at) {
            let rest = &list[at + 1..];
            let close = match byte {
                b',' => return at,
                b'"' => {
                    let mut is_escaped = false;
                    rest.iter().position(|byte| {
                        let closes = *byte == b'"' && !is_escaped;
                        is_escaped = *byte == b'\\' && !is_escaped;
                        closes
                    })
                }
                b'<' => rest.iter().position(|byte| *byte == b'>'),
                _ => {
                    at += 1;
                    continue;
                }
            };
            match close {
                Some(close) => at += close + 2,
                None => break,
            }
        }
        list.len()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn a_value_ends_where_it_does_byte_by_byte(list in "[a,\"<>\\\\;]{0,16}|[a-z]{0,40}[,\"<]?[a-z]{0,9}>?,?") {
            prop_assert_eq!(value_end(list.as_bytes(), 0), end_slowly(list.as_bytes()));
        }
    }
}
