//! What may be expected of a message.

/// Who wrote a message, and so what may be expected of the server that gets it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Intent {
    /// A message that every rule protects.
    Honest,
    /// Well-formed, but nobody owes it anything.
    Hostile,
    /// Bytes that two readers may read differently.
    Mangled,
}
