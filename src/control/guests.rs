//! The clients being served: a bounded number; if all places are taken, an idle one gives way.

use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a new client waits for the threads of closed clients to end.
const PATIENCE: Duration = Duration::from_millis(200);

/// Idle clients that were closed for others, over everything that the process serves.
static DISPLACED: AtomicU64 = AtomicU64::new(0);

/// Returns that number for the metrics.
pub fn displaced() -> u64 {
    DISPLACED.load(Ordering::Relaxed)
}

/// A client's connection, as seen from a thread other than the one that serves it.
pub trait Line: Send + Sync {
    /// Ends the connection for all further reads and writes.
    fn hang_up(&self);
}

impl Line for TcpStream {
    fn hang_up(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }
}

impl Line for UnixStream {
    fn hang_up(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }
}

/// The clients being served.
pub struct Guests<L> {
    most: usize,
    table: Mutex<Table<L>>,
    /// A serving thread has ended.
    ended: Condvar,
}

struct Table<L> {
    /// In order of arrival.
    list: Vec<Guest<L>>,
    next: u64,
    /// Serving threads, including those whose client has been closed but that have not ended yet.
    threads: usize,
    displaced: u64,
}

struct Guest<L> {
    number: u64,
    source: u64,
    line: Arc<L>,
    /// Its answer is being made. Otherwise it waits for its client.
    is_busy: bool,
}

/// One of the places, held while its client is served; it is given back even if the serving thread panics.
pub struct Place<L> {
    guests: Arc<Guests<L>>,
    pub number: u64,
    /// Another client was closed for this one.
    pub is_taken_over: bool,
}

impl<L> Place<L> {
    /// Notes that the client's answer is being made: meanwhile it never gives way. Returns false if it has been closed.
    pub fn set_busy(&self, is_busy: bool) -> bool {
        let mut table = self.guests.table();
        let mut guests = table.list.iter_mut();
        let guest = guests.find(|guest| guest.number == self.number);
        guest.map(|guest| guest.is_busy = is_busy).is_some()
    }
}

impl<L> Drop for Place<L> {
    fn drop(&mut self) {
        let mut table = self.guests.table();
        table.threads -= 1;
        table.list.retain(|guest| guest.number != self.number);
        self.guests.ended.notify_one();
    }
}

impl<L> Guests<L> {
    /// A thread that panics leaves the table consistent: each change is a single call.
    fn table(&self) -> MutexGuard<'_, Table<L>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L: Line> Guests<L> {
    /// `most`: the most clients at a time.
    pub fn new(most: usize) -> Guests<L> {
        Guests { most, table: Mutex::new(Table { list: Vec::new(), next: 0, threads: 0, displaced: 0 }), ended: Condvar::new() }
    }

    /// Returns a place for a client from `source`. If all are taken, the oldest idle client gives way, of the source that has most
    /// of them, but not to a source that has more. `None` if none gives way.
    pub fn enter(self: &Arc<Self>, source: u64, line: &Arc<L>) -> Option<Place<L>> {
        // A closed client's thread ends as soon as it is scheduled.
        let waited = self.ended.wait_timeout_while(self.table(), PATIENCE, |table| table.threads >= 2 * self.most);
        let (mut table, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let is_full = table.list.len() >= self.most;
        if table.threads >= 2 * self.most || (is_full && !table.displace(source)) {
            return None;
        }
        let number = table.next;
        table.next += 1;
        table.threads += 1;
        table.list.push(Guest { number, source, line: Arc::clone(line), is_busy: false });
        Some(Place { guests: Arc::clone(self), number, is_taken_over: is_full })
    }

    /// Returns how many may be served at a time.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Closes all clients.
    pub fn hang_up(&self) {
        for guest in &self.table().list {
            guest.line.hang_up();
        }
    }

    /// Returns how many are being served.
    #[cfg(test)]
    pub(super) fn served(&self) -> usize {
        self.table().list.len()
    }

    /// Returns how many were closed for others.
    #[cfg(test)]
    pub(super) fn displaced(&self) -> u64 {
        self.table().displaced
    }
}

impl<L: Line> Table<L> {
    fn displace(&mut self, source: u64) -> bool {
        let held = |source: u64| self.list.iter().filter(|guest| guest.source == source).count();
        let own = held(source);
        let idle = self.list.iter().enumerate().filter(|(_, guest)| !guest.is_busy);
        // `max_by_key` finds the last of equals, so the oldest must come last.
        let victim = idle.rev().max_by_key(|(_, guest)| held(guest.source));
        let Some((at, guest)) = victim.filter(|(_, guest)| held(guest.source) >= own) else {
            return false;
        };
        guest.line.hang_up();
        self.list.remove(at);
        self.displaced += 1;
        DISPLACED.fetch_add(1, Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[derive(Default)]
    struct Fake(AtomicBool);

    impl Line for Fake {
        fn hang_up(&self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn the_oldest_that_idles_gives_way_of_the_source_that_has_most() {
        let guests = Arc::new(Guests::new(4));
        let lines: Vec<Arc<Fake>> = (0..9).map(|_| Arc::default()).collect();
        let closed = |at: usize| lines[at].0.load(Ordering::SeqCst);
        let enter = |source, at: usize| guests.enter(source, &lines[at]);
        let mut places: Vec<_> = [5, 6, 6, 6].into_iter().zip(0..).map(|(source, at)| enter(source, at).unwrap()).collect();
        assert!(places.iter().all(|place| !place.is_taken_over));
        assert!(places[1].set_busy(true));
        let mut enter_instead = |source, at| {
            places.push(enter(source, at).expect("another gives way"));
            assert!(places[at].is_taken_over);
        };
        enter_instead(7, 4);
        assert!(closed(2) && !closed(0) && !closed(1) && !closed(3));
        // The source that has most loses one of its own, unless that is busy.
        enter_instead(6, 5);
        assert!(closed(3));
        assert!(!places[2].set_busy(true), "it is gone");
        assert!(places[5].set_busy(true));
        assert!(enter(6, 6).is_none());
        assert_eq!((guests.served(), guests.displaced()), (4, 2));
        // At most as many again are threads that have not ended.
        places.extend([enter(8, 6).unwrap(), enter(9, 7).unwrap()]);
        assert!(enter(9, 8).is_none());
        drop(places.remove(2));
        let last = enter(9, 8).unwrap();
        assert!(last.is_taken_over);
        guests.hang_up();
        assert!(closed(8));
    }
}
