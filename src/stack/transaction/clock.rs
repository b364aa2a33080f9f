//! The timers of one transaction (RFC 3261 §17, table 4): at most one that repeats, one that ends it, and patience.

use super::timer::Timer;
use crate::base::{Flow, Instant, TimerId, Wheel};
use crate::settings::Timers;

/// One repeating and one ending timer, and patience; the wheel holds the nearest one.
pub(super) struct Clock {
    pub(super) node: TimerId,
    pub(super) repeat_at: Instant,
    pub(super) repeat_ms: u32,
    pub(super) repeat: Timer,
    pub(super) end: Timer,
    pub(super) end_at: Instant,
    pub(super) patience_at: Instant,
}

impl Clock {
    pub(super) fn new(node: TimerId) -> Clock {
        Clock {
            node,
            repeat_at: Instant::NEVER,
            repeat_ms: 0,
            repeat: Timer::A,
            end: Timer::B,
            end_at: Instant::NEVER,
            patience_at: Instant::NEVER,
        }
    }

    /// `at_t2`: the interval jumps to its ceiling instead of doubling.
    pub(super) fn start(&mut self, timer: Timer, now: Instant, timers: &Timers, flow: &Flow, at_t2: bool) {
        let Some(duration) = timer.duration_ms(timers, flow.transport) else {
            return;
        };
        if timer.repeats() {
            let running = self.repeat == timer && self.repeat_ms != 0;
            let interval = match (at_t2, running) {
                (true, _) => timers.t2,
                // Timer A doubles without a ceiling (§17.1.1.2); E and G stop at T2.
                (false, true) if timer == Timer::A => u64::from(self.repeat_ms) * 2,
                (false, true) => (u64::from(self.repeat_ms) * 2).min(timers.t2),
                (false, false) => duration,
            };
            self.repeat = timer;
            self.repeat_ms = interval.min(u64::from(u32::MAX)) as u32;
            self.repeat_at = now.after_ms(interval);
        } else {
            self.end = timer;
            self.end_at = now.after_ms(duration);
        }
    }

    pub(super) fn stop(&mut self, timer: Timer) {
        if timer == Timer::Patience {
            self.patience_at = Instant::NEVER;
        } else if timer.repeats() {
            self.repeat_at = Instant::NEVER;
            self.repeat_ms = 0;
        } else if self.end == timer {
            self.end_at = Instant::NEVER;
        }
    }

    /// Moves the end. If it comes later than it did, the wheel stays as it is, and is set anew when the earlier time has come.
    pub(super) fn move_end(&mut self, at: Instant, wheel: &mut Wheel) {
        let is_earlier = at < self.end_at;
        self.end_at = at;
        if is_earlier {
            self.arm(wheel);
        }
    }

    /// Sets patience to end at `at`, unless the transaction ends before.
    pub(super) fn start_patience(&mut self, at: Instant, wheel: &mut Wheel) {
        if at >= self.end_at {
            return;
        }
        self.patience_at = at;
        // Over UDP the first retransmission comes before, and the wheel stays as it is.
        if at < self.repeat_at {
            wheel.arm(&self.node, at);
        }
    }

    pub(super) fn arm(&self, wheel: &mut Wheel) {
        match self.repeat_at.min(self.end_at).min(self.patience_at) {
            Instant::NEVER => wheel.cancel(&self.node),
            deadline => wheel.arm(&self.node, deadline),
        }
    }

    /// Returns the timer that is due; a repeating one yields to patience, and both to the ending one.
    pub(super) fn due(&mut self, now: Instant) -> Option<Timer> {
        if self.end_at <= now {
            self.end_at = Instant::NEVER;
            Some(self.end)
        } else if self.patience_at <= now {
            self.patience_at = Instant::NEVER;
            Some(Timer::Patience)
        } else if self.repeat_at <= now {
            self.repeat_at = Instant::NEVER;
            Some(self.repeat)
        } else {
            None
        }
    }
}
