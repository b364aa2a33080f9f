//! What was already read of a message, kept as offsets in its index: rules ask for the same few values again and again.

use std::cell::OnceCell;

use super::error::Fault;
use super::header::Span;

/// A value that is read at most once for each message.
#[derive(Debug)]
pub(super) struct Memo<T>(OnceCell<Result<T, Fault>>);

impl<T> Default for Memo<T> {
    fn default() -> Memo<T> {
        Memo(OnceCell::new())
    }
}

impl<T> Memo<T> {
    /// Another message: nothing is known.
    #[inline]
    pub(super) fn clear(&mut self) {
        self.0 = OnceCell::new();
    }

    /// What is known, or what `read` finds now.
    #[inline]
    pub(super) fn get(&self, read: impl FnOnce() -> Result<T, Fault>) -> Result<&T, Fault> {
        self.0.get_or_init(read).as_ref().map_err(|fault| *fault)
    }
}

impl Span {
    /// Where `part` lies in `whole`, of which it is a slice.
    #[inline]
    pub(super) fn of(part: &[u8], whole: &[u8]) -> Span {
        if part.is_empty() {
            return Span::default();
        }
        let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        Span::new(start, start + part.len())
    }

    #[inline]
    pub(super) fn in_text(self, whole: &[u8]) -> &[u8] {
        whole.get(self.range()).unwrap_or_default()
    }
}
