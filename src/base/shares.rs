//! How much of a resource each holder has, so that one holder cannot take everything: a fixed-size table, indexed by a keyed hash
//! of the holder. Two holders may share an entry, and then its allowance; none can choose with whom.
//!
//! The allowance follows from what is free (dynamic thresholds, Choudhury and Hahne 1998): up to four times that. A single holder
//! gets four fifths of everything, two get four ninths each, and the next one always finds something.

use super::Key;
use super::source::source;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

/// Holders of fewer than this are not limited: one may need that many.
pub const FEWEST: usize = 64;

const ENTRIES: usize = 1 << 12;

/// The allowance of one holder, as a multiple of what is free.
const TIMES: usize = 4;

/// A holder: its entry, or [`ShareHolder::NOBODY`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShareHolder(u16);

impl ShareHolder {
    /// A holder that is not counted.
    pub const NOBODY: ShareHolder = ShareHolder(u16::MAX);

    /// The number under which another process with the same key has the same holder.
    pub fn number(self) -> u16 {
        self.0
    }

    pub fn of_number(number: u16) -> ShareHolder {
        ShareHolder(number)
    }
}

impl Default for ShareHolder {
    fn default() -> ShareHolder {
        ShareHolder::NOBODY
    }
}

/// See the module documentation.
#[derive(Debug)]
pub struct Shares {
    key: Key,
    /// The secret odd factor that sources are hashed with.
    factor: u64,
    held: Box<[AtomicU32]>,
}

impl Shares {
    pub fn new(key: Key) -> Shares {
        Shares {
            key: key.derive("shares"),
            factor: key.derive("sources' shares").hash_numbers(0, 0, 0) | 1,
            held: (0..ENTRIES).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Returns the holder for an IPv4 address or an IPv6 /64 network.
    pub fn of_source(&self, ip: IpAddr) -> ShareHolder {
        // The high bits of a product with a secret factor: universal hashing in a few instructions.
        ShareHolder((source(ip).wrapping_mul(self.factor) >> (64 - ENTRIES.trailing_zeros())) as u16)
    }

    /// Returns the holder for a name, an address-of-record.
    pub fn of_name(&self, name: &[u8]) -> ShareHolder {
        ShareHolder((self.key.hash(&[name]) % ENTRIES as u64) as u16)
    }

    /// True if it may hold more when `free` of `total` are free.
    pub fn admits(&self, holder: ShareHolder, free: usize, total: usize) -> bool {
        total < FEWEST || (self.held(holder) as usize) < free.saturating_mul(TIMES)
    }

    pub fn held(&self, holder: ShareHolder) -> u32 {
        self.entry(holder).map_or(0, |held| held.load(Ordering::Relaxed))
    }

    pub fn take(&self, holder: ShareHolder, count: u32) {
        if let Some(held) = self.entry(holder) {
            held.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Returns what was taken before.
    pub fn give_back(&self, holder: ShareHolder, count: u32) {
        if let Some(held) = self.entry(holder) {
            let before = held.fetch_sub(count, Ordering::Relaxed);
            debug_assert!(before >= count, "{holder:?} gives back {count} of {before}");
        }
    }

    fn entry(&self, holder: ShareHolder) -> Option<&AtomicU32> {
        self.held.get(usize::from(holder.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_next_finds_something() {
        let shares = Shares::new(Key::new(1, 2));
        let total = 1000;
        let mut taken = 0;
        let mut fill = |n: u32| {
            let holder = shares.of_source(IpAddr::V4(n.into()));
            let mut got = 0;
            while taken < total && shares.admits(holder, total - taken, total) {
                shares.take(holder, 1);
                (taken, got) = (taken + 1, got + 1);
            }
            got
        };
        assert_eq!(fill(1), 800);
        assert_eq!(fill(2), 160);
        assert_eq!(fill(3), 32);
        assert!(fill(4) > 0 && fill(5) > 0);
    }

    #[test]
    fn what_is_given_back_is_free_again_and_nobody_holds_nothing() {
        let shares = Shares::new(Key::new(1, 2));
        let holder = shares.of_name(b"alice@example.com");
        shares.take(holder, 7);
        assert_eq!(shares.held(holder), 7);
        assert!(shares.admits(holder, 2, 64) && !shares.admits(holder, 1, 64));
        assert!(shares.admits(holder, 1, 63), "too few to be shared");
        shares.give_back(holder, 7);
        assert_eq!(shares.held(holder), 0);
        shares.take(ShareHolder::NOBODY, 5);
        assert_eq!(shares.held(ShareHolder::NOBODY), 0);
        assert!(shares.admits(ShareHolder::NOBODY, 1, 64));
    }

    #[test]
    fn a_network_of_ipv6_is_one() {
        let shares = Shares::new(Key::new(1, 2));
        let of = |ip: &str| shares.of_source(ip.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
    }
}
