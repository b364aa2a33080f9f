//! Where this process stands in the line of processes: who came before it and lives, and who comes after it.

use super::wire::{Broken, Kind, Sender};
use super::words::Numbers;
use crate::server::lock::lock;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};
use strowger::control::ConnectionEntry;

/// What the running server knows of other processes of its kind.
#[derive(Default)]
pub struct Succession {
    /// Held by a restart in progress.
    attempt: Mutex<()>,
    /// The workers read nothing any more: another process serves, or is about to.
    pub is_quiet: AtomicBool,
    /// Restarts until now since the first start of all.
    pub restarts: AtomicU64,
    /// Attempts of this process that have failed.
    pub failures: AtomicU64,
    /// The one that serves now.
    successor: Mutex<Option<Arc<Successor>>>,
    /// The one that served before.
    predecessor: Mutex<Option<Arc<Predecessor>>>,
}

/// The process that serves in our place.
pub struct Successor {
    pub process: u32,
    pub sender: Sender,
    pub child: Mutex<Child>,
    pub state: Mutex<Ending>,
}

/// How this process comes to its end.
pub struct Ending {
    pub since: Instant,
    pub deadline: Instant,
    /// The successor has ended as well: nobody serves.
    pub is_alone: bool,
    /// When it is looked next what is left, and when the successor is told of it.
    pub next_look: Instant,
    pub next_word: Instant,
    /// Looks in a row that found nothing.
    pub quiet_looks: u32,
}

/// The process that served before this one, and lives.
pub struct Predecessor {
    pub process: u32,
    sender: Arc<Sender>,
    state: Mutex<Known>,
}

struct Known {
    numbers: Numbers,
    at: Instant,
    /// Who waits for its connections.
    asking: Option<mpsc::Sender<Vec<ConnectionEntry>>>,
}

/// How long an operator waits for what the predecessor has.
const ANSWER: Duration = Duration::from_secs(2);

impl Succession {
    /// Begins a restart, unless one is in progress.
    pub fn begin(&self) -> Option<MutexGuard<'_, ()>> {
        match self.attempt.try_lock() {
            Ok(turn) => Some(turn),
            Err(TryLockError::Poisoned(fault)) => Some(fault.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub fn is_quiet(&self) -> bool {
        self.is_quiet.load(Ordering::SeqCst)
    }

    pub fn set_quiet(&self, is_quiet: bool) {
        self.is_quiet.store(is_quiet, Ordering::SeqCst);
    }

    pub fn successor(&self) -> Option<Arc<Successor>> {
        lock(&self.successor).clone()
    }

    pub fn set_successor(&self, successor: Arc<Successor>) {
        *lock(&self.successor) = Some(successor);
    }

    pub fn predecessor(&self) -> Option<Arc<Predecessor>> {
        lock(&self.predecessor).clone()
    }

    pub fn set_predecessor(&self, predecessor: Option<Arc<Predecessor>>) {
        *lock(&self.predecessor) = predecessor;
    }
}

impl Predecessor {
    pub fn new(process: u32, sender: Arc<Sender>) -> Predecessor {
        let known = Known { numbers: Numbers::default(), at: Instant::now(), asking: None };
        Predecessor { process, sender, state: Mutex::new(known) }
    }

    pub fn note(&self, numbers: Numbers) {
        let mut state = lock(&self.state);
        (state.numbers, state.at) = (numbers, Instant::now());
    }

    /// Returns what it still has, as it said at last.
    pub fn numbers(&self) -> Numbers {
        let state = lock(&self.state);
        let since_ms = u64::try_from(state.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        Numbers { ends_in_ms: state.numbers.ends_in_ms.saturating_sub(since_ms), ..state.numbers }
    }

    /// Asks it for its connections. None if it does not answer in time.
    pub fn connections(&self) -> Vec<ConnectionEntry> {
        let (reply, answer) = mpsc::channel();
        lock(&self.state).asking = Some(reply);
        match self.sender.send(Kind::AskConnections, &[], &[]) {
            Ok(()) => answer.recv_timeout(ANSWER).unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    pub fn answer(&self, connections: Vec<ConnectionEntry>) {
        if let Some(asking) = lock(&self.state).asking.take() {
            let _ = asking.send(connections);
        }
    }

    /// Has it end by then.
    pub fn end_within(&self, kind: Kind, patience: Duration) -> Result<(), Broken> {
        self.sender.tell(kind, &u64::try_from(patience.as_millis()).unwrap_or(u64::MAX))
    }
}
