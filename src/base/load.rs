//! How far a core is behind with what has come for it.

/// What a core sees of its own sockets.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Load {
    /// More has come than was taken in this turn.
    pub is_behind: bool,
    /// How long what comes now will wait, as it goes at the moment; milliseconds. 0 while the core is not behind.
    pub waits_ms: u64,
    /// Some of it was lost of late: the kernel had no room.
    pub is_losing: bool,
    /// Messages that the kernel has dropped unread so far because the rules wanted it.
    pub shed: u64,
}
