//! Time as a number: milliseconds since an origin that the caller chose.

/// A moment, in milliseconds since the caller's origin. Rules compare and add; only a worker reads a clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Instant(u64);

impl Instant {
    /// A moment that is never reached.
    pub const NEVER: Instant = Instant(u64::MAX);

    pub const fn from_ms(ms: u64) -> Instant {
        Instant(ms)
    }

    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// This moment plus `ms` milliseconds; never overflows into the past.
    pub const fn after_ms(self, ms: u64) -> Instant {
        Instant(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this moment; 0 when `earlier` is later.
    pub const fn ms_since(self, earlier: Instant) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
