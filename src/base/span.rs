//! A part of a run of bytes.

use std::ops::Range;

/// A part of a run of bytes, as offsets of 32 bits. A list of byte strings is one run and a span for each: it is kept for its memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    pub const fn new(start: usize, end: usize) -> Span {
        Span { start: start as u32, end: end as u32 }
    }

    /// Where `part` lies in `whole`, of which it is a slice.
    #[inline]
    pub fn of(part: &[u8], whole: &[u8]) -> Span {
        if part.is_empty() {
            return Span::default();
        }
        let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        Span::new(start, start + part.len())
    }

    /// Puts `part` behind `run`, and says where it lies.
    #[inline]
    pub fn append(part: &[u8], run: &mut Vec<u8>) -> Span {
        Span::written(run, |run| run.extend_from_slice(part))
    }

    /// Where that lies which `write` puts behind `run`.
    #[inline]
    pub fn written(run: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> Span {
        let start = run.len();
        write(run);
        Span::new(start, run.len())
    }

    /// The bytes; none if `run` does not reach so far.
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
