//! A part of a run of bytes.

use std::ops::Range;

/// A part of a run of bytes, as 32-bit offsets. A list of byte strings is one run and a span for each, so that its allocation is
/// reused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    pub const fn new(start: usize, end: usize) -> Span {
        Span { start: start as u32, end: end as u32 }
    }

    /// Returns the position of `part` in `whole`, of which it is a slice.
    #[inline]
    pub fn of(part: &[u8], whole: &[u8]) -> Span {
        if part.is_empty() {
            return Span::default();
        }
        let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        Span::new(start, start + part.len())
    }

    /// Appends `part` to `run`, and returns its span.
    #[inline]
    pub fn append(part: &[u8], run: &mut Vec<u8>) -> Span {
        Span::written(run, |run| run.extend_from_slice(part))
    }

    /// Returns the span of what `write` appends to `run`.
    #[inline]
    pub fn written(run: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> Span {
        let start = run.len();
        write(run);
        Span::new(start, run.len())
    }

    /// Returns the bytes; empty if `run` is too short.
    #[inline]
    pub fn in_text(self, run: &[u8]) -> &[u8] {
        run.get(self.range()).unwrap_or_default()
    }

    pub const fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    pub const fn len(self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    pub const fn is_empty(self) -> bool {
        self.end <= self.start
    }
}
