//! One trace session: what it wants to see, what it has been shown, and when that is enough.

use super::event::{Event, Kind};
use super::filter::Wanted;
use super::queue::Queue;
use std::collections::hash_map::RandomState;
use std::collections::{HashSet, VecDeque};
use std::hash::BuildHasher;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most calls that one session follows; beyond that the oldest are dropped.
const FOLLOWED: usize = 10_000;

/// What is requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    pub wanted: Wanted,
    pub time: Duration,
    /// Messages; decisions and timers do not count.
    pub count: u64,
}

impl Query {
    pub const DEFAULT_SECONDS: u32 = 60;
    pub const MOST_SECONDS: u32 = 3600;
    pub const DEFAULT_COUNT: u32 = 10_000;
    pub const MOST_COUNT: u32 = 1_000_000;
}

impl Default for Query {
    fn default() -> Query {
        Query {
            wanted: Wanted::default(),
            time: Duration::from_secs(Query::DEFAULT_SECONDS.into()),
            count: Query::DEFAULT_COUNT.into(),
        }
    }
}

/// Why a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Its time is over.
    Time,
    /// It has shown as many messages as requested.
    Count,
    /// The server is stopping.
    Shutdown,
}

impl End {
    pub const fn word(self) -> &'static str {
        match self {
            End::Time => "time",
            End::Count => "count",
            End::Shutdown => "shutdown",
        }
    }
}

/// What has arrived since the previous batch.
#[derive(Debug)]
pub struct Batch {
    pub events: VecDeque<Arc<Event>>,
    /// Nothing follows these.
    pub end: Option<End>,
}

#[derive(Debug)]
pub struct Session {
    wanted: Wanted,
    count: u64,
    until: Instant,
    state: Mutex<State>,
    /// There is something to take.
    news: Condvar,
    /// Shortens Call-IDs; its key is unknown to senders that choose them.
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue,
    followed: HashSet<u64>,
    /// The same, oldest first.
    order: VecDeque<u64>,
    messages: u64,
    lost: u64,
    /// Calls no longer followed because too many others were.
    forgotten: u64,
    end: Option<End>,
    is_awaited: bool,
}

impl Session {
    pub fn new(query: Query) -> Session {
        Session {
            wanted: query.wanted,
            count: query.count,
            until: Instant::now() + query.time,
            state: Mutex::default(),
            news: Condvar::new(),
            hasher: RandomState::new(),
        }
    }

    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Returns whether something is to be shown: if it fits, its call is followed from now on; otherwise its call must be followed
    /// already.
    pub fn wants(&self, call_id: &[u8], fits: bool) -> bool {
        if self.wanted.is_everything() {
            return true;
        }
        if call_id.is_empty() {
            return fits;
        }
        let call = self.hasher.hash_one(call_id);
        let mut state = self.state();
        match fits {
            true => {
                state.follow(call);
                true
            }
            false => state.followed.contains(&call),
        }
    }

    /// Queues an event. Returns false if there was no room, and it is lost.
    pub fn push(&self, event: Arc<Event>) -> bool {
        let mut state = self.state();
        // What comes after the end does not count as lost.
        if state.end.is_some() {
            return true;
        }
        let is_message = matches!(event.kind, Kind::Received | Kind::Sent);
        if !state.queue.push(event) {
            state.lost += 1;
            return false;
        }
        state.messages += u64::from(is_message);
        if state.messages >= self.count {
            state.end = Some(End::Count);
        }
        self.ring(state);
        true
    }

    /// Ends the session.
    pub fn end(&self, why: End) {
        let mut state = self.state();
        state.end.get_or_insert(why);
        self.ring(state);
    }

    /// Returns what has arrived; if nothing has, waits at most this long.
    pub fn take(&self, patience: Duration) -> Batch {
        let left = self.until.saturating_duration_since(Instant::now());
        let mut state = self.state();
        state.is_awaited = true;
        let is_quiet = |state: &mut State| state.queue.is_empty() && state.end.is_none();
        let waited = self.news.wait_timeout_while(state, patience.min(left), is_quiet);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_awaited = false;
        if Instant::now() >= self.until {
            state.end.get_or_insert(End::Time);
        }
        Batch { events: state.queue.take_all(), end: state.end }
    }

    /// Returns the number of events that found no room.
    pub fn lost(&self) -> u64 {
        self.state().lost
    }

    /// Returns the number of calls that were no longer followed because too many others were.
    pub fn forgotten(&self) -> u64 {
        self.state().forgotten
    }

    fn ring(&self, state: MutexGuard<'_, State>) {
        let is_awaited = state.is_awaited;
        drop(state);
        // A system call, made only if a thread sleeps.
        if is_awaited {
            self.news.notify_one();
        }
    }

    /// A thread that panics leaves the state consistent.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn follow(&mut self, call: u64) {
        if !self.followed.insert(call) {
            return;
        }
        self.order.push_back(call);
        if self.order.len() > FOLLOWED
            && let Some(oldest) = self.order.pop_front()
        {
            self.followed.remove(&oldest);
            self.forgotten += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Transport;
    use crate::trace::event::tests::message;
    use crate::trace::queue::EVENTS;

    const NOW: Duration = Duration::ZERO;

    fn session(user: Option<&str>, time: Duration, count: u64) -> Session {
        let wanted = Wanted::new(None, user, None).unwrap();
        Session::new(Query { wanted, time, count })
    }

    fn event(kind: Kind) -> Arc<Event> {
        Arc::new(message(kind, Transport::Udp, "192.0.2.1:1", "192.0.2.2:2", "x"))
    }

    #[test]
    fn a_call_is_followed_from_the_first_message_that_fits() {
        let session = session(Some("alice"), Duration::from_secs(9), 100);
        assert!(!session.wants(b"1", false), "not yet");
        assert!(session.wants(b"1", true));
        assert!(session.wants(b"1", false), "its other leg");
        assert!(!session.wants(b"2", false));
        assert!(session.wants(b"", true) && !session.wants(b"", false));
        // The limit drops the oldest.
        for call in 0..FOLLOWED {
            assert!(session.wants(format!("call {call}").as_bytes(), true));
        }
        assert!(!session.wants(b"1", false));
        assert_eq!(session.forgotten(), 1);
        assert!(session.wants(b"call 0", false));
        assert_eq!(session.state().followed.len(), FOLLOWED);
    }

    #[test]
    fn it_ends_by_time_count_and_shutdown() {
        let timed = session(None, Duration::from_millis(30), 100);
        assert_eq!(timed.take(NOW).end, None);
        assert_eq!(timed.take(Duration::from_secs(9)).end, Some(End::Time));
        let counted = session(None, Duration::from_secs(9), 2);
        for kind in [Kind::Received, Kind::Decision, Kind::Timer, Kind::Sent, Kind::Sent, Kind::Decision] {
            assert!(counted.push(event(kind)));
        }
        let batch = counted.take(NOW);
        assert_eq!((batch.events.len(), batch.end), (4, Some(End::Count)), "decisions do not count");
        assert_eq!(counted.lost(), 0);
        let stopped = session(None, Duration::from_secs(9), 100);
        stopped.push(event(Kind::Sent));
        stopped.end(End::Shutdown);
        let batch = stopped.take(Duration::from_secs(9));
        assert_eq!((batch.events.len(), batch.end), (1, Some(End::Shutdown)));
    }

    #[test]
    fn what_finds_no_room_is_lost_and_counted() {
        let session = session(None, Duration::from_secs(9), u64::MAX);
        let event = event(Kind::Sent);
        let taken = (0..EVENTS + 7).filter(|_| session.push(event.clone())).count();
        assert_eq!((taken, session.lost()), (EVENTS, 7));
        assert_eq!(session.take(NOW).events.len(), EVENTS);
        assert!(session.push(event), "there is room again");
    }

    #[test]
    fn who_waits_is_woken() {
        let session = Arc::new(session(None, Duration::from_secs(30), 100));
        let other = session.clone();
        let waiting = std::thread::spawn(move || other.take(Duration::from_secs(20)).events.len());
        std::thread::sleep(Duration::from_millis(30));
        session.push(event(Kind::Sent));
        assert_eq!(waiting.join().unwrap(), 1);
    }
}
