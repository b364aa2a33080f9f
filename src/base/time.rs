//! Time as a number: milliseconds since an origin that the caller chose.

use super::calendar::civil;
use std::fmt;

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

/// A time in milliseconds since 1970, shown as RFC 3339 writes it, UTC: `2026-11-29T10:00:00.123Z`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timestamp(pub u64);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [year, month, day, hour, minute, second] = civil(self.0 / 1000);
        let millis = self.0 % 1000;
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}
