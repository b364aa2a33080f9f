//! SIGTERM and `strowger drain`: no new dialogs; what has begun goes on; the server stops when nothing waits for an answer any
//! more, and with `--calls` when no call is in progress any more either, or at the deadline.

use super::lock::lock;
use super::notify::Manager;
use super::records::Recorder;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use strowger::control::Draining;
use strowger::worker::Crew;

/// This many checks in a row must find nothing: a request may be in a socket that its worker has not read yet.
const QUIET_LOOKS: u32 = 2;

/// What is drained: the workers, and what is known of calls; and who is told.
pub struct Drained<'s> {
    pub crew: &'s Mutex<Crew>,
    pub recorder: Option<&'s Recorder>,
    pub manager: &'s Manager,
}

/// Whether the server is draining, and until when.
#[derive(Default)]
pub struct Drain {
    state: Mutex<Option<State>>,
}

struct State {
    since: Instant,
    deadline: Instant,
    /// It waits for calls to end.
    for_calls: bool,
    quiet_looks: u32,
}

impl Drain {
    pub fn is_draining(&self) -> bool {
        lock(&self.state).is_some()
    }

    /// Drains for at most `patience`, even if a command has set a later deadline before.
    pub fn by_signal(&self, patience: Duration, server: &Drained) {
        self.because("SIGTERM", patience, server);
    }

    /// Drains for at most `patience`, for a reason that is no signal.
    pub fn because(&self, why: &str, patience: Duration, server: &Drained) {
        let until = Instant::now() + patience;
        self.drain_until(why, server, |before| match before {
            Some((deadline, for_calls)) => (deadline.min(until), for_calls),
            None => (until, false),
        });
    }

    /// Returns whether the deadline was so long ago.
    pub fn is_late_by(&self, time: Duration) -> bool {
        lock(&self.state).as_ref().is_some_and(|state| Instant::now() >= state.deadline + time)
    }

    /// Drains for `patience` from now on, whatever was in force before. `for_calls`: also waits for established calls to end.
    pub fn by_command(&self, patience: Duration, for_calls: bool, server: &Drained) -> Draining {
        let until = Instant::now() + patience;
        self.drain_until("by command", server, |_| (until, for_calls))
    }

    /// Begins to drain, or changes what is waited for. `until` gets the previous deadline, and whether calls were waited for.
    fn drain_until(&self, why: &str, server: &Drained, until: impl FnOnce(Option<(Instant, bool)>) -> (Instant, bool)) -> Draining {
        let (left, for_calls) = {
            let mut state = lock(&self.state);
            let (deadline, for_calls) = until(state.as_ref().map(|state| (state.deadline, state.for_calls)));
            let since = state.as_ref().map_or_else(Instant::now, |state| state.since);
            *state = Some(State { since, deadline, for_calls, quiet_looks: 0 });
            (deadline.saturating_duration_since(Instant::now()), for_calls)
        };
        server.manager.stopping("draining", left);
        let (pending, _) = pending(server);
        let calls = for_calls.then(|| calls(server));
        let in_progress = calls.map_or_else(String::new, |calls| format!(" and {calls} calls are in progress"));
        log::info!(
            "draining, {why}: no new dialogs; {pending} requests wait for their answer{in_progress}, for {:.1} s at most",
            left.as_secs_f64()
        );
        Draining { pending, calls, deadline_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX) }
    }

    /// True if the server is draining and has finished. To be called periodically.
    pub fn is_over(&self, server: &Drained) -> bool {
        if !self.is_draining() {
            return false;
        }
        let (pending, is_whole) = pending(server);
        let mut state = lock(&self.state);
        let Some(state) = state.as_mut() else {
            return false;
        };
        let took = state.since.elapsed().as_secs_f64();
        let calls = if state.for_calls { calls(server) } else { 0 };
        state.quiet_looks = match pending == 0 && calls == 0 && is_whole {
            true => state.quiet_looks + 1,
            false => 0,
        };
        let is_late = Instant::now() >= state.deadline;
        if state.quiet_looks >= QUIET_LOOKS || (is_late && state.quiet_looks > 0) {
            let nor_calls = if state.for_calls { ", and no call is in progress" } else { "" };
            log::info!("drained after {took:.1} s: no request waits for its answer any more{nor_calls}");
            return true;
        }
        if is_late {
            let go_on = if calls > 0 { format!(", and {calls} calls go on without this server") } else { String::new() };
            log::warn!("drained for {took:.1} s, which is the deadline: {pending} requests still wait for their answer{go_on}");
        }
        is_late
    }
}

/// Has the workers begin no new dialogs. Returns how many requests still wait for their answer, and whether all workers have
/// reported.
fn pending(server: &Drained) -> (usize, bool) {
    let crew = lock(server.crew);
    crew.drain();
    let stats = crew.stats();
    let pending = stats.numbers.occupancy.pending;
    (pending, stats.workers.len() == stats.cores.len())
}

/// Returns how many established calls there are, as far as records of them tell.
fn calls(server: &Drained) -> usize {
    server.recorder.map_or(0, |recorder| recorder.numbers().dialogs)
}
