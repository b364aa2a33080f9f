//! The main thread while the server runs: it handles signals and periodic checks.

use super::handover::wire::Kind;
use super::running::RunningServer;
use super::watch::Files;
use signal_hook::consts::{SIGHUP, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// How often signals are checked and a part of the location table is swept.
const PAUSE: Duration = Duration::from_millis(50);

/// How long after the deadline of a drain the predecessor of a restart is waited for.
const LAST: Duration = Duration::from_secs(2);

/// Why the server ends.
pub enum End {
    /// It was told to stop, and nothing waits for an answer any more, or the deadline has passed.
    Drained,
    /// Told to stop at once.
    Signal(i32),
    /// A worker has ended unexpectedly.
    Broken,
    /// Another process serves, and nothing is left here, or the deadline has passed.
    Succeeded,
}

impl RunningServer {
    /// Has the predecessor of a restart drain as well, if it still lives.
    pub(crate) fn drain_predecessor(&self, patience: Duration) {
        if let Some(predecessor) = self.succession.predecessor() {
            // If that fails, it has ended.
            let _ = predecessor.end_within(Kind::Drain, patience);
        }
    }

    /// Waits for a signal and for what follows from it, sweeps expired bindings meanwhile, and notices a worker that has ended.
    pub fn wait(self: &Arc<RunningServer>, signals: &mut Signals, mut files: Files) -> End {
        let clock = self.crew().clock();
        let mut told_to_stop = false;
        loop {
            for signal in signals.pending() {
                match signal {
                    SIGHUP => self.reload_soon(),
                    SIGTERM if !told_to_stop => {
                        told_to_stop = true;
                        let patience = self.current().conf.server.drain_deadline;
                        self.drain.by_signal(patience, &self.drained());
                        self.drain_predecessor(patience);
                    }
                    signal => return End::Signal(signal),
                }
            }
            if self.has_ended_as_predecessor() {
                return End::Succeeded;
            }
            // The predecessor drains as well, and a service manager ends what is left of us when we end.
            let is_last = self.succession.predecessor().is_none() || self.drain.is_late_by(LAST);
            if is_last && self.drain.is_over(&self.drained()) {
                return End::Drained;
            }
            if !self.crew().is_whole() {
                return End::Broken;
            }
            self.manager.alive(|| self.crew().pulse());
            if !self.succession.is_quiet() {
                self.look_at_files(&mut files);
                self.location.sweep_some(clock.now());
            }
            thread::sleep(PAUSE);
        }
    }
}
