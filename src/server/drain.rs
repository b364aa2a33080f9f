//! SIGTERM and `strowger drain`: no new dialogs; what has begun goes on; the server stops when nothing waits for an answer any
//! more, or when the time is over.

use super::start::{RunningServer, lock};
use std::time::{Duration, Instant};
use strowger::control::Draining;

/// So many looks in a row must find nothing: a request may lie in a socket that its worker has not read yet.
const QUIET_LOOKS: u32 = 2;

/// A server that drains.
pub(crate) struct Drain {
    since: Instant,
    deadline: Instant,
    quiet_looks: u32,
}

impl RunningServer {
    /// Not for longer than the conf says, however long a command has asked for before.
    pub(crate) fn drain_by_signal(&self) {
        let patience = self.current().conf.server.drain_deadline;
        let until = Instant::now() + patience;
        self.drain_until("SIGTERM", |before| before.map_or(until, |b| b.min(until)));
    }

    pub(crate) fn drain_by_command(&self, deadline: Option<Duration>) -> Draining {
        let patience = deadline.unwrap_or(self.current().conf.server.drain_deadline);
        let until = Instant::now() + patience;
        self.drain_until("by command", |_| until)
    }

    /// Begins to drain, or changes until when. `until` gets what was in force before.
    fn drain_until(&self, why: &str, until: impl FnOnce(Option<Instant>) -> Instant) -> Draining {
        let left = {
            let mut drain = lock(&self.drain);
            let deadline = until(drain.as_ref().map(|drain| drain.deadline));
            let since = drain
                .as_ref()
                .map_or_else(Instant::now, |drain| drain.since);
            *drain = Some(Drain {
                since,
                deadline,
                quiet_looks: 0,
            });
            deadline.saturating_duration_since(Instant::now())
        };
        self.manager.stopping("draining", left);
        let (pending, _) = self.pending();
        log::info!(
            "draining, {why}: no new dialogs; {pending} requests wait for their answer, for {:.1} s at most",
            left.as_secs_f64()
        );
        Draining {
            pending,
            deadline_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Requests that wait for their answer, after no new dialogs begin; and whether all workers have said so.
    fn pending(&self) -> (usize, bool) {
        let crew = self.crew();
        crew.drain();
        let stats = crew.stats();
        let pending = stats.occupancy.pending;
        (pending, stats.workers.len() == stats.cores.len())
    }

    /// True when it drains and has come to its end. To be asked now and then.
    pub(crate) fn is_drained(&self) -> bool {
        if lock(&self.drain).is_none() {
            return false;
        }
        let (pending, is_whole) = self.pending();
        let mut drain = lock(&self.drain);
        let Some(drain) = drain.as_mut() else {
            return false;
        };
        let took = drain.since.elapsed().as_secs_f64();
        drain.quiet_looks = match pending == 0 && is_whole {
            true => drain.quiet_looks + 1,
            false => 0,
        };
        let is_over = Instant::now() >= drain.deadline;
        if drain.quiet_looks >= QUIET_LOOKS || (is_over && drain.quiet_looks > 0) {
            log::info!("drained after {took:.1} s: no request waits for its answer any more");
            return true;
        }
        if is_over {
            log::warn!(
                "drained for {took:.1} s, which is the deadline: {pending} requests still wait for their answer"
            );
        }
        is_over
    }
}
