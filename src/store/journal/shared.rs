//! What the journal's thread shares with, and receives from, the code that started it.

use crate::base::{Instant, Transport};
use crate::stack::location::{Durability, Location, RowRules};
use crate::store::clock::Seen;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{self, Duration};

/// What the journal keeps, and where.
pub struct Settings {
    pub path: PathBuf,
    /// As passed to the location service.
    pub durability: Durability,
    /// By position, as bound.
    pub listeners: Vec<(Transport, SocketAddr)>,
    /// Rules that bindings read back are checked against.
    pub rules: RowRules,
}

/// The clock of the rules, and those of the machine.
pub struct Clocks {
    pub now: Box<dyn Fn() -> Instant + Send>,
    /// The time since 1970 at time 0, milliseconds, by the wall clock as it is now.
    pub wall_ms: Box<dyn Fn() -> u64 + Send>,
    /// How long the machine has been up, milliseconds, and the name of this run of it, or nothing.
    pub up_ms: Box<dyn Fn() -> u64 + Send>,
    pub boot: String,
}

impl Clocks {
    /// Returns what the clocks show now, if the time since 1970 at time 0 was `wall_ms`.
    pub(super) fn showing(&self, wall_ms: u64) -> Seen {
        Seen { wall_ms: wall_ms.saturating_add((self.now)().as_ms()), boot: self.boot.clone(), up_ms: (self.up_ms)() }
    }
}

/// Callbacks of the thread.
pub struct Hooks {
    /// Called at its beginning.
    pub prepare: Box<dyn FnOnce() + Send>,
    /// Called when waiting answers may go, or must be refused.
    pub progress: Box<dyn Fn() + Send>,
}

/// Wakes the journal. Ringing costs next to nothing while it is awake.
#[derive(Default)]
pub struct Bell {
    is_rung: AtomicBool,
    pub(super) thread: OnceLock<Thread>,
}

impl Bell {
    pub fn ring(&self) {
        if !self.is_rung.swap(true, Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// Waits until it was rung, or the timeout has passed.
    pub(super) fn wait(&self, patience: Duration) {
        let end = time::Instant::now() + patience;
        while !self.is_rung.swap(false, Ordering::SeqCst) {
            let left = end.saturating_duration_since(time::Instant::now());
            if left.is_zero() {
                return;
            }
            thread::park_timeout(left);
        }
    }
}

#[derive(Default)]
pub(super) struct State {
    /// Addresses that a round holds. Locked while it takes them; otherwise those being taken would be counted nowhere.
    pub(super) in_hand: Mutex<usize>,
    pub(super) failures: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) batch_ns: AtomicU64,
    pub(super) unusable: AtomicU64,
    pub(super) is_stopping: AtomicBool,
    /// Memory has taken in what was on disk.
    pub(super) is_restored: AtomicBool,
}

impl State {
    pub(super) fn in_hand(&self) -> MutexGuard<'_, usize> {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn unstored(&self, location: &Location) -> usize {
        let in_hand = self.in_hand();
        location.untaken() + *in_hand
    }
}
