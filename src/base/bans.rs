//! Sources that are ignored for a while. Two fixed-size tables, so that what can be forged never displaces what cannot: sources
//! that are known to be real, which no one else can get banned, and sources of datagrams that might have been forged.

use super::Instant;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Each of the two tables holds four times as many bans; in a full set, the ban that would end first is replaced.
const SETS: usize = 1 << 12;
const WAYS: usize = 4;

/// The low bits of an entry are the millisecond at which it ends; the high bits tell its source from others in the set.
const TIME_BITS: u32 = 44;
const TIME: u64 = (1 << TIME_BITS) - 1;

/// Which of the two tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sure {
    /// The source has a connection, or has answered what was sent to it, with what it is banned for.
    Yes,
    /// Datagrams have arrived with its address.
    No,
}

#[derive(Debug)]
pub struct Bans {
    /// Duration of a ban in milliseconds; 0: no bans.
    lasts_ms: AtomicU64,
    /// When the last ban ends: until then some source may be banned.
    last_ms: AtomicU64,
    sure: Box<[AtomicU64]>,
    unsure: Box<[AtomicU64]>,
}

impl Default for Bans {
    fn default() -> Bans {
        let table = || (0..SETS * WAYS).map(|_| AtomicU64::new(0)).collect();
        Bans { lasts_ms: AtomicU64::new(0), last_ms: AtomicU64::new(0), sure: table(), unsure: table() }
    }
}

impl Bans {
    /// Returns the duration of a ban in milliseconds; 0: there are no bans.
    pub fn lasts_ms(&self) -> u64 {
        self.lasts_ms.load(Ordering::Relaxed)
    }

    /// Sets the duration for bans that begin from now on. 0 ends all bans.
    pub fn set_lasts_ms(&self, ms: u64) {
        self.lasts_ms.store(ms, Ordering::Relaxed);
        if ms == 0 {
            self.last_ms.store(0, Ordering::Relaxed);
            for entry in self.sure.iter().chain(&self.unsure) {
                entry.store(0, Ordering::Relaxed);
            }
        }
    }

    /// True if nothing at all is banned: one load.
    pub fn is_empty(&self, now: Instant) -> bool {
        self.last_ms.load(Ordering::Relaxed) <= now.as_ms()
    }

    /// Bans `name`, a keyed hash. Returns false if it is already banned or bans are disabled.
    pub fn begin(&self, now: Instant, name: u64, sure: Sure) -> bool {
        let lasts_ms = self.lasts_ms();
        if lasts_ms == 0 {
            return false;
        }
        let until = (now.as_ms() + lasts_ms) & TIME;
        let mut first: Option<(&AtomicU64, u64)> = None;
        for entry in self.set(name, sure) {
            let value = entry.load(Ordering::Relaxed);
            let end = value & TIME;
            if value & !TIME == name & !TIME && end > now.as_ms() {
                return false;
            }
            if first.is_none_or(|(_, before)| end < before) {
                first = Some((entry, end));
            }
        }
        if let Some((entry, _)) = first {
            entry.store(name & !TIME | until, Ordering::Relaxed);
        }
        self.last_ms.fetch_max(until, Ordering::Relaxed);
        true
    }

    pub fn holds(&self, now: Instant, name: u64, sure: Sure) -> bool {
        self.set(name, sure).iter().any(|entry| {
            let value = entry.load(Ordering::Relaxed);
            value & !TIME == name & !TIME && value & TIME > now.as_ms()
        })
    }

    /// Returns the number of bans.
    pub fn count(&self, now: Instant) -> usize {
        if self.is_empty(now) {
            return 0;
        }
        let all = self.sure.iter().chain(&self.unsure);
        all.filter(|entry| entry.load(Ordering::Relaxed) & TIME > now.as_ms()).count()
    }

    fn set(&self, name: u64, sure: Sure) -> &[AtomicU64] {
        let table = match sure {
            Sure::Yes => &self.sure,
            Sure::No => &self.unsure,
        };
        let first = name as usize % SETS * WAYS;
        table.get(first..first + WAYS).unwrap_or(&[])
    }
}

/// A duration as logged.
pub struct Lasting(pub u64);

impl fmt::Display for Lasting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, each) = match self.0 {
            ms if ms % 3_600_000 == 0 => ("hour", 3_600_000),
            ms if ms % 60_000 == 0 => ("minute", 60_000),
            ms if ms % 1000 == 0 => ("second", 1000),
            _ => ("millisecond", 1),
        };
        let number = self.0 / each;
        let plural = if number == 1 { "" } else { "s" };
        write!(f, "{number} {unit}{plural}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Instant {
        Instant::from_ms(s * 1000)
    }

    fn name(number: u64) -> u64 {
        crate::base::Key::new(1, 2).hash_numbers(number, 0, 0)
    }

    #[test]
    fn a_ban_begins_once_and_ends_by_itself() {
        let bans = Bans::default();
        assert!(!bans.begin(at(5), name(1), Sure::Yes), "none wanted");
        bans.set_lasts_ms(10_000);
        assert!(bans.is_empty(at(5)));
        assert!(bans.begin(at(5), name(1), Sure::Yes));
        assert!(!bans.begin(at(6), name(1), Sure::Yes));
        assert!(!bans.is_empty(at(14)) && bans.holds(at(14), name(1), Sure::Yes));
        assert!(!bans.holds(at(14), name(1), Sure::No) && !bans.holds(at(14), name(2), Sure::Yes));
        assert_eq!((bans.count(at(14)), bans.count(at(15))), (1, 0));
        assert!(!bans.holds(at(15), name(1), Sure::Yes) && bans.is_empty(at(15)));
        assert!(bans.begin(at(15), name(1), Sure::Yes));
        bans.set_lasts_ms(0);
        assert!(bans.is_empty(at(16)) && !bans.holds(at(16), name(1), Sure::Yes));
    }

    #[test]
    fn what_can_be_forged_pushes_out_nothing_that_cannot() {
        let bans = Bans::default();
        bans.set_lasts_ms(600_000);
        for number in 0..1000 {
            assert!(bans.begin(at(1), name(number), Sure::Yes));
        }
        for number in 10_000..200_000 {
            bans.begin(at(2), name(number), Sure::No);
        }
        let held = |n: &u64| bans.holds(at(3), name(*n), Sure::Yes);
        assert_eq!((0..1000).filter(held).count(), 1000);
        assert_eq!(bans.count(at(3)), 1000 + SETS * WAYS);
    }

    #[test]
    fn times_are_said_as_people_say_them() {
        let said = |ms| Lasting(ms).to_string();
        assert_eq!(said(600_000), "10 minutes");
        assert_eq!(said(60_000), "1 minute");
        assert_eq!(said(7_200_000), "2 hours");
        assert_eq!(said(90_000), "90 seconds");
        assert_eq!(said(1500), "1500 milliseconds");
    }
}
