//! How long messages wait in the kernel before they are read, estimated periodically: what waits ÷ what is read per unit of time.

use crate::base::{Instant, Load};

/// Querying the kernel costs a system call for each socket: it is done once in this many milliseconds, and only while more arrives
/// than is read.
const PERIOD_MS: u64 = 20;

/// The kernel counts the memory of what waits, which for messages of usual lengths is about this many times their size.
const KERNEL_MEMORY: u64 = 2;

/// What the sockets of one core hold and have lost.
#[derive(Clone, Copy, Default, Debug)]
pub struct Backlog {
    /// Memory of what waits, as the kernel counts it.
    pub waiting_bytes: u64,
    /// A receive buffer is more than half full.
    pub is_filling: bool,
    /// Datagrams lost since the sockets were opened.
    pub lost: u64,
}

/// Estimates for one core.
#[derive(Debug, Default)]
pub struct Pressure {
    since: Instant,
    taken_bytes: u64,
    lost: u64,
    /// Everything that had arrived was read, at least once in this period.
    caught_up: bool,
    load: Load,
}

impl Pressure {
    /// Updates the estimate; called once a turn. `taken_bytes`: total bytes ever received; `ask`: queries the kernel.
    pub fn turn(&mut self, now: Instant, is_behind: bool, taken_bytes: u64, ask: impl FnOnce() -> Backlog) -> Load {
        self.load.is_behind = is_behind;
        self.caught_up |= !is_behind;
        let elapsed_ms = now.ms_since(self.since);
        if elapsed_ms < PERIOD_MS {
            return self.load;
        }
        let taken = taken_bytes.saturating_sub(self.taken_bytes);
        (self.since, self.taken_bytes) = (now, taken_bytes);
        // Only a whole period of continuous work shows how fast work is done.
        if std::mem::replace(&mut self.caught_up, !is_behind) {
            self.load = Load { is_behind, ..Load::default() };
            return self.load;
        }
        let backlog = ask();
        let waiting = backlog.waiting_bytes / KERNEL_MEMORY;
        self.load = Load {
            is_behind,
            waits_ms: waiting * elapsed_ms / taken.max(1),
            is_filling: backlog.is_filling,
            is_losing: backlog.lost > self.lost,
            ..Load::default()
        };
        self.lost = backlog.lost;
        self.load
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_ms(1000 + ms)
    }

    fn holding(waiting_bytes: u64, lost: u64) -> impl FnOnce() -> Backlog {
        move || Backlog { waiting_bytes, is_filling: false, lost }
    }

    #[test]
    fn what_waits_over_what_is_taken() {
        let mut pressure = Pressure::default();
        pressure.turn(at(0), false, 0, || unreachable!("nothing waits"));
        let idle = pressure.turn(at(20), true, 0, || unreachable!("it was idle before"));
        assert_eq!((idle.is_behind, idle.waits_ms), (true, 0));
        // 200,000 bytes in 20 ms; 1 MB waits: 100 ms of work.
        let load = pressure.turn(at(40), true, 200_000, holding(2_000_000, 0));
        assert_eq!((load.waits_ms, load.is_losing), (100, false));
        // Between two periods the kernel is not queried.
        let load = pressure.turn(at(50), true, 300_000, || unreachable!("too soon"));
        assert_eq!(load.waits_ms, 100);
        let load = pressure.turn(at(60), true, 400_000, holding(4_000, 7));
        assert_eq!((load.waits_ms, load.is_losing), (0, true));
        let load = pressure.turn(at(80), true, 600_000, holding(4_000, 7));
        assert!(!load.is_losing, "nothing since the last time");
        let load = pressure.turn(at(100), false, 800_000, || unreachable!("nothing waits"));
        assert_eq!(load, Load::default());
    }
}
