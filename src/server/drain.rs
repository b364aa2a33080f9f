//! SIGTERM and `strowger drain`: no new dialogs; what has begun goes on; the server stops when nothing waits for an answer any
//! more, or at the deadline.

use super::lock::lock;
use super::notify::Manager;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use strowger::control::Draining;
use strowger::worker::Crew;

/// This many checks in a row must find nothing: a request may be in a socket that its worker has not read yet.
const QUIET_LOOKS: u32 = 2;

/// Whether the server is draining, and until when.
#[derive(Default)]
pub struct Drain {
    state: Mutex<Option<State>>,
}

struct State {
    since: Instant,
    deadline: Instant,
    quiet_looks: u32,
}

impl Drain {
    pub fn is_draining(&self) -> bool {
        lock(&self.state).is_some()
    }

    /// Drains for at most `patience`, even if a command has set a later deadline before.
    pub fn by_signal(&self, patience: Duration, crew: &Mutex<Crew>, manager: &Manager) {
        self.because("SIGTERM", patience, crew, manager);
    }

    /// Drains for at most `patience`, for a reason that is no signal.
    pub fn because(&self, why: &str, patience: Duration, crew: &Mutex<Crew>, manager: &Manager) {
        let until = Instant::now() + patience;
        let sooner = |before: Option<Instant>| before.map_or(until, |before| before.min(until));
        self.drain_until(why, sooner, crew, manager);
    }

    /// Returns whether the deadline was so long ago.
    pub fn is_late_by(&self, time: Duration) -> bool {
        lock(&self.state).as_ref().is_some_and(|state| Instant::now() >= state.deadline + time)
    }

    /// Drains for `patience` from now on, whatever was in force before.
    pub fn by_command(&self, patience: Duration, crew: &Mutex<Crew>, manager: &Manager) -> Draining {
        let until = Instant::now() + patience;
        self.drain_until("by command", |_| until, crew, manager)
    }

    /// Begins to drain, or changes the deadline. `until` gets the previous deadline.
    fn drain_until(
        &self,
        why: &str,
        until: impl FnOnce(Option<Instant>) -> Instant,
        crew: &Mutex<Crew>,
        manager: &Manager,
    ) -> Draining {
        let left = {
            let mut state = lock(&self.state);
            let deadline = until(state.as_ref().map(|state| state.deadline));
            let since = state.as_ref().map_or_else(Instant::now, |state| state.since);
            *state = Some(State { since, deadline, quiet_looks: 0 });
            deadline.saturating_duration_since(Instant::now())
        };
        manager.stopping("draining", left);
        let (pending, _) = pending(crew);
        log::info!(
            "draining, {why}: no new dialogs; {pending} requests wait for their answer, for {:.1} s at most",
            left.as_secs_f64()
        );
        Draining { pending, deadline_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX) }
    }

    /// True if the server is draining and has finished. To be called periodically.
    pub fn is_over(&self, crew: &Mutex<Crew>) -> bool {
        if !self.is_draining() {
            return false;
        }
        let (pending, is_whole) = pending(crew);
        let mut state = lock(&self.state);
        let Some(state) = state.as_mut() else {
            return false;
        };
        let took = state.since.elapsed().as_secs_f64();
        state.quiet_looks = match pending == 0 && is_whole {
            true => state.quiet_looks + 1,
            false => 0,
        };
        let is_late = Instant::now() >= state.deadline;
        if state.quiet_looks >= QUIET_LOOKS || (is_late && state.quiet_looks > 0) {
            log::info!("drained after {took:.1} s: no request waits for its answer any more");
            return true;
        }
        if is_late {
            log::warn!("drained for {took:.1} s, which is the deadline: {pending} requests still wait for their answer");
        }
        is_late
    }
}

/// Has the workers begin no new dialogs. Returns how many requests still wait for their answer, and whether all workers have
/// reported.
fn pending(crew: &Mutex<Crew>) -> (usize, bool) {
    let crew = lock(crew);
    crew.drain();
    let stats = crew.stats();
    let pending = stats.numbers.occupancy.pending;
    (pending, stats.workers.len() == stats.cores.len())
}
