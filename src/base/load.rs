//! How far a core is behind with its input.

/// What a core sees of its own sockets.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Load {
    /// More has arrived than was taken in this turn.
    pub is_behind: bool,
    /// How long what arrives now will wait at the current rate, in milliseconds. 0 while the core is not behind.
    pub waits_ms: u64,
    /// The kernel has little room left for what arrives.
    pub is_filling: bool,
    /// Some input was lost recently: the kernel had no room.
    pub is_losing: bool,
    /// The kernel refuses to drop what the rules request.
    pub cannot_shed: bool,
    /// Messages that the kernel has dropped unread so far because the rules requested it.
    pub shed: u64,
}
