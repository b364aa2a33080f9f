//! Values already read from a message, kept as offsets in its index: rules ask for the same few values again and again.

use std::cell::OnceCell;

use super::error::Fault;

/// A value that is read at most once per message.
#[derive(Debug)]
pub(super) struct Memo<T>(OnceCell<Result<T, Fault>>);

impl<T> Default for Memo<T> {
    fn default() -> Memo<T> {
        Memo(OnceCell::new())
    }
}

impl<T> Memo<T> {
    /// Forgets the value: the message is another one.
    #[inline]
    pub(super) fn clear(&mut self) {
        self.0 = OnceCell::new();
    }

    /// Returns the known value, or what `read` returns now.
    #[inline]
    pub(super) fn get(&self, read: impl FnOnce() -> Result<T, Fault>) -> Result<&T, Fault> {
        self.0.get_or_init(read).as_ref().map_err(|fault| *fault)
    }
}
