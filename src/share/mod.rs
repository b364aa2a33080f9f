//! The location table that several servers share through Redis: memory is the truth on each of them, Redis is where they meet.
//!
//! Two threads, each with connections of its own, and a third for the [`sentinels`]; no worker ever waits for them. The [`teller`] tells Redis what has changed here.
//! The [`follower`] reads what Redis has when this server joins, then follows the streams of accepted changes, and writes a sign of
//! life ([`nodes`]). What they tell and take in, and when, are the rules of [`crate::stack::location::telling`]; that a change is accepted
//! or not is decided in Redis itself, by the [`script`].
//!
//! While Redis is away, both try again. What has changed stays on the lists of the location service, which are no longer than the
//! table; and if it cannot be known that nothing was missed, everything is read anew.

mod access;
mod backoff;
mod cluster;
mod follower;
mod form;
mod nodes;
#[cfg(test)]
mod redis_server;
mod reply;
mod room;
mod script;
mod sentinels;
mod session;
mod shards;
mod teller;
mod trouble;
mod wire;

use crate::settings::StoreKind;
use crate::stack::location::Location;
pub use access::{Access, Credentials};
use follower::Follower;
use room::Room;
pub use room::{Clocks, Hooks, Settings};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use teller::Teller;

/// What is counted of the shared table.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Numbers {
    /// The table is shared now.
    pub is_up: bool,
    /// Addresses-of-record with changes that Redis was not told.
    pub untold: usize,
    /// For how long there has been something to tell, in seconds.
    pub lag_seconds: f64,
    pub told: u64,
    pub rejected: u64,
    pub taken_in: u64,
    pub unusable: u64,
    pub no_room: u64,
    pub failures: u64,
    pub readings: u64,
}

/// Wakes the teller: an answer waits for it.
pub type Bell = SyncSender<()>;

/// The shared table before its threads run.
pub struct UnstartedShare {
    room: Arc<Room>,
    follower: Follower,
    bell: Bell,
    rung: Receiver<()>,
}

impl UnstartedShare {
    /// Connects to Redis and reads what it has. If that fails, the reason is logged and tried again later: calls go on with what memory
    /// has. Refuses only if another server has our name. `location` shares its table ([`Location::with_sharing`]).
    pub fn open(location: Arc<Location>, settings: Settings, clocks: Clocks) -> Result<UnstartedShare, String> {
        let room = Arc::new(Room::new(location, settings, clocks));
        let mut follower = Follower::new(room.clone());
        follower.begin().map_err(|trouble| format!("{}: {trouble}", room.settings.access.store))?;
        let (bell, rung) = sync_channel(1);
        Ok(UnstartedShare { room, follower, bell, rung })
    }

    /// The same without connecting: its threads do, once they run. Then nobody else has our name any more.
    pub fn follow(location: Arc<Location>, settings: Settings, clocks: Clocks) -> UnstartedShare {
        let room = Arc::new(Room::new(location, settings, clocks));
        let follower = Follower::new(room.clone());
        let (bell, rung) = sync_channel(1);
        UnstartedShare { room, follower, bell, rung }
    }

    pub fn bell(&self) -> Bell {
        self.bell.clone()
    }

    pub fn start(self, hooks: Hooks) -> io::Result<Share> {
        let UnstartedShare { room, follower, bell, rung } = self;
        let _ = room.hooks.set(hooks);
        let mut share = Share { room: room.clone(), bell, threads: Vec::new() };
        if let StoreKind::Sentinels(_) = room.settings.access.store.kind {
            let room = room.clone();
            share.spawn("sentinels", move || sentinels::watch(&room))?;
        }
        let teller = Teller::new(room.clone(), rung);
        share.spawn("teller", move || teller.run())?;
        share.spawn("follower", move || follower.run())?;
        Ok(share)
    }
}

/// The running shared table. Dropping it tells what has changed, and ends the threads.
pub struct Share {
    room: Arc<Room>,
    bell: Bell,
    threads: Vec<JoinHandle<()>>,
}

impl Share {
    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let room = self.room.clone();
        let prepared = move || {
            if let Some(hooks) = room.hooks.get() {
                (hooks.prepare)();
            }
            run();
        };
        self.threads.push(thread::Builder::new().name(name.to_owned()).spawn(prepared)?);
        Ok(())
    }

    pub fn numbers(&self) -> Numbers {
        let counts = &self.room.counts;
        let get = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        let untold = self.room.untold();
        let behind_ms = self.room.now().as_ms().saturating_sub(get(&counts.caught_up_ms));
        Numbers {
            is_up: self.room.is_up(),
            untold,
            lag_seconds: match untold {
                0 => 0.0,
                _ => behind_ms as f64 / 1000.0,
            },
            told: get(&counts.told),
            rejected: get(&counts.rejected),
            taken_in: get(&counts.taken_in),
            unusable: get(&counts.unusable),
            no_room: get(&counts.no_room),
            failures: get(&counts.failures),
            readings: get(&counts.readings),
        }
    }

    /// Has all changes so far told, and waits for that. False if they are not told in time.
    pub fn flush(&self, patience: Duration) -> bool {
        let Some(shared) = self.room.shared() else {
            return true;
        };
        let end = Instant::now() + patience;
        let round = shared.last_telling();
        while shared.progress().durable < round {
            if Instant::now() >= end || shared.progress().is_failing || !self.room.is_joined() {
                return false;
            }
            let _ = self.bell.try_send(());
            thread::sleep(Duration::from_millis(2));
        }
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.is_stopping.store(true, Ordering::SeqCst);
        let _ = self.bell.try_send(());
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a thread of the shared location table panicked");
            }
        }
    }
}
