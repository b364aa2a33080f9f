//! The clients that are being served: a bounded number of them, and where all places are taken one that idles gives way.

use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a new client waits for the threads of those that were closed to end.
const PATIENCE: Duration = Duration::from_millis(200);

/// Clients that idled and were closed for others, of all that the process serves.
static DISPLACED: AtomicU64 = AtomicU64::new(0);

/// The same, for the metrics.
pub fn displaced() -> u64 {
    DISPLACED.load(Ordering::Relaxed)
}

/// A client's connection, seen from another thread than the one that serves it.
pub trait Line: Send + Sync {
    /// Whatever is read from it or written to it from now on, it has ended.
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

/// Those that are served.
pub struct Guests<L> {
    most: usize,
    table: Mutex<Table<L>>,
    /// A thread that served has ended.
    ended: Condvar,
}

struct Table<L> {
    /// Those that came first are first.
    list: Vec<Guest<L>>,
    next: u64,
    /// Threads that serve: also those whose client has been closed and that have not ended yet.
    threads: usize,
    displaced: u64,
}

struct Guest<L> {
    number: u64,
    source: u64,
    line: Arc<L>,
    /// Its answer is being made. Else it waits for its client.
    is_busy: bool,
}

/// What comes of entering.
#[derive(Debug, PartialEq, Eq)]
pub enum Entered {
    /// The new one has this number.
    Freely(u64),
    /// The same, and another was closed for it.
    Instead(u64),
    /// All places are taken, and nobody gives way.
    Full,
}

impl<L: Line> Guests<L> {
    /// `most` at a time.
    pub fn new(most: usize) -> Guests<L> {
        Guests {
            most,
            table: Mutex::new(Table {
                list: Vec::new(),
                next: 0,
                threads: 0,
                displaced: 0,
            }),
            ended: Condvar::new(),
        }
    }

    /// A thread that dies leaves the table whole: each change of it is one call.
    fn table(&self) -> MutexGuard<'_, Table<L>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client from `source` wants to be served. Where all places are taken, the oldest that idles gives way, of the source that has most
    /// of them; not to a source that has more. Whoever enters is to [leave](Guests::leave).
    pub fn enter(&self, source: u64, line: &Arc<L>) -> Entered {
        // One that was closed ends at once, as soon as the machine lets it.
        let waited = self
            .ended
            .wait_timeout_while(self.table(), PATIENCE, |table| table.threads >= 2 * self.most);
        let (mut table, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let is_full = table.list.len() >= self.most;
        if table.threads >= 2 * self.most || (is_full && !table.displace(source)) {
            return Entered::Full;
        }
        let number = table.next;
        table.next += 1;
        table.threads += 1;
        table.list.push(Guest {
            number,
            source,
            line: Arc::clone(line),
            is_busy: false,
        });
        match is_full {
            true => Entered::Instead(number),
            false => Entered::Freely(number),
        }
    }

    /// Its answer is made now: meanwhile it gives way to nobody. False: it has been closed.
    pub fn set_busy(&self, number: u64, is_busy: bool) -> bool {
        let mut table = self.table();
        let mut guests = table.list.iter_mut();
        let guest = guests.find(|guest| guest.number == number);
        guest.map(|guest| guest.is_busy = is_busy).is_some()
    }

    pub fn leave(&self, number: u64) {
        let mut table = self.table();
        table.threads -= 1;
        table.list.retain(|guest| guest.number != number);
        self.ended.notify_one();
    }

    /// Closes all that are there.
    pub fn hang_up(&self) {
        for guest in &self.table().list {
            guest.line.hang_up();
        }
    }

    /// How many are being served.
    #[cfg(test)]
    pub(super) fn served(&self) -> usize {
        self.table().list.len()
    }

    /// How many were closed for others.
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
        // The last of equals is found, so the oldest has to be that.
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
        let guests = Guests::new(4);
        let lines: Vec<Arc<Fake>> = (0..9).map(|_| Arc::default()).collect();
        let closed = |at: usize| lines[at].0.load(Ordering::SeqCst);
        for (number, source) in [(0, 5), (1, 6), (2, 6), (3, 6)] {
            let entered = guests.enter(source, &lines[number]);
            assert_eq!(entered, Entered::Freely(number as u64));
        }
        assert!(guests.set_busy(1, true));
        assert_eq!(guests.enter(7, &lines[4]), Entered::Instead(4));
        assert!(closed(2) && !closed(0) && !closed(1) && !closed(3));
        assert!(!guests.set_busy(2, true), "it is gone");
        // Whoever has most loses its own, and not if that is busy.
        assert_eq!(guests.enter(6, &lines[5]), Entered::Instead(5));
        assert!(closed(3));
        assert!(guests.set_busy(5, true));
        assert_eq!(guests.enter(6, &lines[6]), Entered::Full);
        assert_eq!((guests.served(), guests.displaced()), (4, 2));
        // Threads that have not ended are no more than as many again.
        assert_eq!(guests.enter(8, &lines[6]), Entered::Instead(6));
        assert_eq!(guests.enter(9, &lines[7]), Entered::Instead(7));
        assert_eq!(guests.enter(9, &lines[8]), Entered::Full);
        guests.leave(2);
        assert!(matches!(guests.enter(9, &lines[8]), Entered::Instead(_)));
        guests.hang_up();
        assert!(closed(8));
    }
}
