//! What was already read of a message, kept as offsets in its index: rules ask for the same few values again and again.

use std::cell::Cell;

use super::error::Fault;
use super::header::Span;

/// A value that is read at most once for each message.
#[derive(Debug)]
pub(super) struct Memo<T: Copy>(Cell<Known<T>>);

#[derive(Clone, Copy, Debug)]
enum Known<T> {
    Unread,
    Read(T),
    Bad(Fault),
}

impl<T: Copy> Default for Memo<T> {
    fn default() -> Memo<T> {
        Memo(Cell::new(Known::Unread))
    }
}

impl<T: Copy> Memo<T> {
    /// Another message: nothing is known.
    #[inline]
    pub(super) fn clear(&mut self) {
        *self.0.get_mut() = Known::Unread;
    }

    /// What is known, or what `read` finds now.
    #[inline]
    pub(super) fn get(&self, read: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        match self.0.get() {
            Known::Read(value) => Ok(value),
            Known::Bad(fault) => Err(fault),
            Known::Unread => {
                let value = read();
                self.0.set(match value {
                    Ok(value) => Known::Read(value),
                    Err(fault) => Known::Bad(fault),
                });
                value
            }
        }
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
    pub(super) fn in_text<'a>(self, whole: &'a [u8]) -> &'a [u8] {
        whole.get(self.range()).unwrap_or_default()
    }
}
