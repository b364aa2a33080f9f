//! The content of the conf as plain data: a row for each key ([`table`]) and the words that some keys take ([`words`]). The modules
//! that act on the conf are built on this one, and take a section as it is.

mod collector;
mod shared_store;
pub(crate) mod table;
mod words;

pub use collector::Collector;
pub use shared_store::{SharedStore, StoreKind};
use std::time::Duration;
pub use table::*;
pub use words::*;

/// A time in milliseconds.
pub type Millis = u64;

/// A time in seconds, as `Expires` counts it.
pub type Seconds = u32;

/// How many of something there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// `0` in the conf: as many as a share of the memory holds.
    FromMemory,
    Exactly(usize),
}

impl Capacity {
    /// Returns the number, if `share` bytes of memory are available at `bytes_each`. At least one.
    pub fn resolve(self, share: u64, bytes_each: usize) -> usize {
        match self {
            Capacity::Exactly(count) => count,
            Capacity::FromMemory => {
                let count = share / bytes_each.max(1) as u64;
                usize::try_from(count).unwrap_or(usize::MAX).max(1)
            }
        }
    }
}

impl Connections {
    /// Connections of the whole server, if the process may open `files` files: some are left for listeners, polls and operators.
    pub fn most(&self, files: usize) -> usize {
        self.max.unwrap_or_else(|| files.saturating_sub(64 + files / 16).max(1))
    }
}

impl Tls {
    /// How long a session can be resumed.
    pub fn lifetime(&self) -> Duration {
        Duration::from_secs(self.session_lifetime.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_comes_from_memory_unless_named() {
        assert_eq!(Capacity::FromMemory.resolve(1 << 20, 1024), 1024);
        assert_eq!(Capacity::FromMemory.resolve(10, 1024), 1);
        assert_eq!(Capacity::Exactly(7).resolve(1 << 20, 1024), 7);
    }
}
