//! The predecessor: what it does once another process serves, until it ends.

use super::succession::Successor;
use super::wire::{Broken, Kind, Message, Receiver};
use super::words::{Left, Numbers};
use crate::server::lock::lock;
use crate::server::running::RunningServer;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use strowger::control::ControlApi;
use strowger::net::sys;

/// How often it is looked whether anything is left, and told.
const LOOK: Duration = Duration::from_millis(200);
const WORD: Duration = Duration::from_secs(1);

/// So many looks in a row must find nothing: a message may be on its way between two workers.
const QUIET_LOOKS: u32 = 2;

/// How long the wire is waited for at a time.
const WAIT: Duration = Duration::from_secs(3600);

impl RunningServer {
    /// Closes what only the process that serves may have open, says so, and listens to it from then on.
    pub(crate) fn leave(self: &Arc<RunningServer>, successor: Arc<Successor>, receiver: Receiver) -> Result<(), String> {
        let server = self.clone();
        let spawned = thread::Builder::new().name("successor".to_owned()).spawn(move || {
            server.close_files(&successor);
            server.listen_to(&successor, receiver);
        });
        spawned.map(drop).map_err(|error| format!("the handover's thread: {error}"))
    }

    fn close_files(&self, successor: &Successor) {
        self.set_scrape(None);
        self.set_user_watcher(None);
        let left = match self.disk.leave() {
            Some((is_stored, is_restored)) => Left { is_stored, is_restored },
            None => Left { is_stored: false, is_restored: true },
        };
        self.sharing.close();
        if let Err(broken) = successor.sender.tell(Kind::Left, &left) {
            log::warn!("process {}: {broken}", successor.process);
        }
        self.location.clear();
        sys::return_free_memory();
    }

    /// Follows what the successor says until the wire is closed.
    fn listen_to(&self, successor: &Successor, mut receiver: Receiver) {
        loop {
            let message = match receiver.receive(Instant::now() + WAIT) {
                Ok(message) => message,
                Err(Broken::Late) => continue,
                Err(_) => break,
            };
            self.obey(successor, &message);
        }
        let mut state = lock(&successor.state);
        state.is_alone = true;
    }

    fn obey(&self, successor: &Successor, message: &Message) {
        let patience = || message.content::<u64>().ok().map(Duration::from_millis);
        match message.kind {
            Kind::AskConnections => {
                let _ = successor.sender.tell(Kind::Connections, &self.connections());
            }
            Kind::Deadline => {
                if let Some(patience) = patience() {
                    let mut state = lock(&successor.state);
                    state.deadline = state.deadline.min(Instant::now() + patience);
                }
            }
            Kind::Drain => {
                if let Some(patience) = patience() {
                    self.drain.because("with the process that serves", patience, &self.drained());
                }
            }
            _ => log::warn!("process {}: {:?} is nothing that a predecessor is told", successor.process, message.kind),
        }
    }

    /// Returns true if this process is a predecessor that has nothing left to do. To be called periodically.
    pub(crate) fn has_ended_as_predecessor(&self) -> bool {
        let Some(successor) = self.succession.successor() else {
            return false;
        };
        // So that it leaves nothing behind in the table of processes.
        let ended = lock(&successor.child).try_wait().ok().flatten();
        let now = Instant::now();
        let mut state = lock(&successor.state);
        if (ended.is_some() || state.is_alone) && !self.drain.is_draining() {
            let patience = self.current().conf.server.drain_deadline;
            log::error!("process {}, which served, has ended, and nobody serves: this one ends as well", successor.process);
            self.drain.because("because nobody serves", patience, &self.drained());
        }
        if now < state.next_look {
            return false;
        }
        state.next_look = now + LOOK;
        let remaining = self.crew().remaining();
        let is_done = remaining.transactions == 0 && remaining.connections == 0;
        state.quiet_looks = if is_done { state.quiet_looks + 1 } else { 0 };
        let took = state.since.elapsed().as_secs_f64();
        if state.quiet_looks >= QUIET_LOOKS {
            log::info!(
                "process {} ends, {took:.1} s after process {} began to serve: it has nothing left",
                own(),
                successor.process
            );
            return true;
        }
        if now >= state.deadline {
            log::warn!(
                "process {} ends, {took:.1} s after process {} began to serve, which is the deadline: {} transactions and {} connections are cut off",
                own(),
                successor.process,
                remaining.transactions,
                remaining.connections
            );
            return true;
        }
        if now >= state.next_word {
            state.next_word = now + WORD;
            let ends_in = state.deadline.saturating_duration_since(now);
            let numbers = Numbers {
                transactions: remaining.transactions,
                connections: remaining.connections,
                ends_in_ms: u64::try_from(ends_in.as_millis()).unwrap_or(u64::MAX),
            };
            // If it has ended, that is noticed above.
            let _ = successor.sender.tell(Kind::Numbers, &numbers);
        }
        false
    }
}

fn own() -> u32 {
    std::process::id()
}
