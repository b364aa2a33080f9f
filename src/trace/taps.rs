//! What all cores share: the trace sessions, and where copies go.

use super::event::{Event, Kind, Way};
use super::exporter::Exporter;
use super::mask;
use super::reading::Reading;
use super::session::{Batch, End, Query, Session};
use crate::base::{Key, Notes};
use crate::settings::Trace;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The most sessions at a time: each costs the workers time.
pub const MOST_SESSIONS: usize = 4;

/// The taps of one server. While none is open, they cost one flag.
#[derive(Default)]
pub struct Taps {
    is_open: AtomicBool,
    readers: RwLock<Readers>,
    shown: AtomicU64,
    lost: AtomicU64,
    sent: Arc<AtomicU64>,
    unsent: Arc<AtomicU64>,
}

#[derive(Default)]
struct Readers {
    sessions: Vec<Arc<Session>>,
    export: Option<Export>,
    /// The server is stopping: no new sessions.
    is_closed: bool,
}

/// Where copies go, and of which calls.
struct Export {
    exporter: Exporter,
    share: f64,
}

/// What was copied since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceCounters {
    /// Sessions that are open.
    pub sessions: usize,
    /// Events handed to sessions.
    pub shown: u64,
    /// Events that a session had no room for.
    pub lost: u64,
    /// Messages sent to the collector.
    pub hep_sent: u64,
    /// Messages that could not be sent to it.
    pub hep_lost: u64,
}

impl Taps {
    /// True if anything is traced. All that a worker checks while nothing is.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// Hands out a message received or sent. `is_heard`: it was not refused unread; refused ones are not exported, or a flood would
    /// reach the collector.
    pub fn message(&self, core: u8, kind: Kind, way: Way, bytes: &[u8], is_heard: bool) {
        let reading = Reading::of(bytes);
        let mut copy = Copy::new(core, kind, Some(way), reading.call_id, bytes);
        let readers = self.readers();
        for session in &readers.sessions {
            let fits = session.wanted().fits(&reading, way.peer);
            if session.wants(reading.call_id, fits) {
                self.show(session, copy.event());
            }
        }
        if let Some(export) = readers.export.as_ref().filter(|_| is_heard)
            && is_picked(reading.call_id, export.share)
        {
            export.exporter.push(copy.event());
        }
    }

    /// Hands out a decision about a call, or a timer that fired.
    pub fn word(&self, core: u8, kind: Kind, call_id: &[u8], text: &str) {
        let mut copy = Copy::new(core, kind, None, call_id, text.as_bytes());
        for session in &self.readers().sessions {
            if session.wants(call_id, false) {
                self.show(session, copy.event());
            }
        }
    }

    /// Hands out all notes of the rules.
    pub fn words(&self, core: u8, notes: &Notes) {
        for (kind, call_id, text) in notes.iter() {
            self.word(core, kind.into(), call_id, text);
        }
    }

    fn show(&self, session: &Session, event: Arc<Event>) {
        let counter = match session.push(event) {
            true => &self.shown,
            false => &self.lost,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Opens a session. The error says why not.
    pub fn open(self: &Arc<Taps>, query: Query) -> Result<Tap, String> {
        let session = Arc::new(Session::new(query));
        let mut readers = self.readers_mut();
        if readers.is_closed {
            return Err("the server is ending".to_owned());
        }
        if readers.sessions.len() >= MOST_SESSIONS {
            return Err(format!("{MOST_SESSIONS} traces are running, which is the limit: end one, or wait until one ends"));
        }
        readers.sessions.push(session.clone());
        self.tell(&readers);
        Ok(Tap { taps: self.clone(), session })
    }

    /// Applies the conf's settings for the collector. The old collector's queue is dropped with it.
    pub fn configure(&self, trace: &Trace) -> Result<(), String> {
        let export = match &trace.hep {
            Some(collector) if trace.share > 0.0 => {
                let counters = [&self.sent, &self.unsent].map(Arc::clone);
                let exporter = Exporter::start(collector.clone(), trace.hep_id, counters)
                    .map_err(|error| format!("the thread of the collector's copies: {error}"))?;
                Some(Export { exporter, share: trace.share })
            }
            _ => None,
        };
        let before = {
            let mut readers = self.readers_mut();
            let before = std::mem::replace(&mut readers.export, export);
            self.tell(&readers);
            before
        };
        // Outside the lock: it waits a moment for what is in progress.
        drop(before);
        Ok(())
    }

    /// Stops copying to the collector; what waits is sent, unless that takes more than a moment.
    pub fn end_export(&self) {
        let before = {
            let mut readers = self.readers_mut();
            let before = readers.export.take();
            self.tell(&readers);
            before
        };
        drop(before);
    }

    /// Ends all sessions, and waits at most this long until they have been notified.
    pub fn close(&self, patience: Duration) {
        {
            let mut readers = self.readers_mut();
            readers.is_closed = true;
            readers.sessions.iter().for_each(|session| session.end(End::Shutdown));
        }
        let until = Instant::now() + patience;
        while !self.readers().sessions.is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn counters(&self) -> TraceCounters {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TraceCounters {
            sessions: self.readers().sessions.len(),
            shown: count(&self.shown),
            lost: count(&self.lost),
            hep_sent: count(&self.sent),
            hep_lost: count(&self.unsent),
        }
    }

    /// Sets the flag if there are readers.
    fn tell(&self, readers: &Readers) {
        let is_open = !readers.sessions.is_empty() || readers.export.is_some();
        self.is_open.store(is_open, Ordering::Relaxed);
    }

    /// Held while one event is handed out. Changes to the readers hold the lock just as briefly.
    fn readers(&self) -> RwLockReadGuard<'_, Readers> {
        self.readers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn readers_mut(&self) -> RwLockWriteGuard<'_, Readers> {
        self.readers.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether a call is in the share that is copied: the same for all of its messages, on every server.
fn is_picked(call_id: &[u8], share: f64) -> bool {
    // 53 bits are a fraction exactly; it is below 1.
    let place = (Key::new(0, 0).hash(&[call_id]) >> 11) as f64 / (1u64 << 53) as f64;
    place < share
}

/// A copy made on the first request, and then shared.
struct Copy<'a> {
    core: u8,
    kind: Kind,
    way: Option<Way>,
    call_id: &'a [u8],
    bytes: &'a [u8],
    made: Option<Arc<Event>>,
}

impl<'a> Copy<'a> {
    fn new(core: u8, kind: Kind, way: Option<Way>, call_id: &'a [u8], bytes: &'a [u8]) -> Copy<'a> {
        Copy { core, kind, way, call_id, bytes, made: None }
    }

    fn event(&mut self) -> Arc<Event> {
        let made = self.made.get_or_insert_with(|| {
            let mut bytes: Box<[u8]> = self.bytes.into();
            if self.kind.is_message() {
                mask::mask(&mut bytes);
            }
            let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
            Arc::new(Event {
                time_ns: since_1970.map_or(0, |time| time.as_nanos() as u64),
                core: self.core,
                kind: self.kind,
                way: self.way,
                call_id: self.call_id.into(),
                bytes,
            })
        });
        made.clone()
    }
}

/// An open session. Dropping it closes it.
pub struct Tap {
    taps: Arc<Taps>,
    session: Arc<Session>,
}

impl Tap {
    /// Returns what has arrived; if nothing has, waits at most this long.
    pub fn take(&self, patience: Duration) -> Batch {
        self.session.take(patience)
    }

    /// Returns the number of events that found no room.
    pub fn lost(&self) -> u64 {
        self.session.lost()
    }

    /// Returns the number of calls that were no longer followed because too many others were.
    pub fn forgotten(&self) -> u64 {
        self.session.forgotten()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let mut readers = self.taps.readers_mut();
        readers.sessions.retain(|session| !Arc::ptr_eq(session, &self.session));
        self.taps.tell(&readers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{NoteKind, Transport};
    use crate::settings::Collector;
    use crate::trace::Wanted;
    use std::net::UdpSocket;

    const MESSAGE: &[u8] = b"BYE sip:bob@x SIP/2.0\r\nCall-ID: 1@a\r\nFrom: <sip:alice@x>\r\nAuthorization: Digest s\r\n\r\n";

    fn way() -> Way {
        Way { transport: Transport::Udp, peer: "192.0.2.1:5060".parse().unwrap(), own: "192.0.2.9:5060".parse().unwrap() }
    }

    fn query(call: Option<&str>, peer: Option<&str>) -> Query {
        Query { wanted: Wanted::new(call, None, peer).unwrap(), ..Query::default() }
    }

    fn words(tap: &Tap) -> Vec<String> {
        let batch = tap.take(Duration::ZERO);
        let text = |event: &Arc<Event>| String::from_utf8_lossy(&event.bytes).into_owned();
        batch.events.iter().map(text).collect()
    }

    #[test]
    fn sessions_open_and_close_and_there_are_only_so_many() {
        let taps: Arc<Taps> = Arc::default();
        assert!(!taps.is_open());
        let mut open: Vec<Tap> = (0..MOST_SESSIONS).map(|_| taps.open(Query::default()).unwrap()).collect();
        let why = taps.open(Query::default()).err().unwrap();
        assert!(why.contains("which is the limit"), "{why}");
        assert!(taps.is_open() && taps.counters().sessions == MOST_SESSIONS);
        open.pop();
        assert!(taps.open(Query::default()).is_ok());
        open.clear();
        assert!(!taps.is_open());
        taps.message(0, Kind::Sent, way(), MESSAGE, true);
        assert_eq!(taps.counters(), TraceCounters::default());
        taps.close(Duration::ZERO);
        assert!(taps.open(Query::default()).is_err());
    }

    #[test]
    fn each_session_gets_what_it_wants_and_nothing_secret() {
        let taps: Arc<Taps> = Arc::default();
        let all = taps.open(Query::default()).unwrap();
        let peer = taps.open(query(None, Some("192.0.2.1"))).unwrap();
        let other = taps.open(query(Some("2@a"), None)).unwrap();
        let mut notes = Notes::default();
        notes.push(NoteKind::Decision, b"1@a", format_args!("chosen"));
        taps.words(0, &notes);
        taps.message(0, Kind::Received, way(), MESSAGE, true);
        taps.words(0, &notes);
        let message = String::from_utf8_lossy(MESSAGE).replace("Digest s", "Digest *");
        assert_eq!(words(&all), ["chosen", &message, "chosen"]);
        assert_eq!(words(&peer), [&message, "chosen"]);
        assert_eq!(words(&other), [""; 0]);
        assert_eq!(taps.counters().shown, 5);
    }

    #[test]
    fn a_share_of_calls() {
        let picked = |share| (0..1000).filter(|n| is_picked(format!("{n}@a").as_bytes(), share)).count();
        assert_eq!((picked(0.0), picked(1.0)), (0, 1000));
        assert!((200..300).contains(&picked(0.25)), "{}", picked(0.25));
        // A larger share includes all of a smaller one.
        assert!((0..1000).all(|n| !is_picked(&[n as u8], 0.1) || is_picked(&[n as u8], 0.2)));
    }

    #[test]
    fn copies_reach_the_collector_until_the_conf_says_otherwise() {
        let collector = UdpSocket::bind("127.0.0.1:0").unwrap();
        collector.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let taps = Taps::default();
        let conf = |share| Trace {
            hep: Some(Collector { host: "127.0.0.1".to_owned(), port: collector.local_addr().unwrap().port() }),
            hep_id: 7,
            share,
        };
        taps.configure(&conf(1.0)).unwrap();
        assert!(taps.is_open());
        taps.message(0, Kind::Received, way(), b"refused unread", false);
        taps.message(0, Kind::Received, way(), MESSAGE, true);
        let mut buffer = [0; 2000];
        let (length, _) = collector.recv_from(&mut buffer).unwrap();
        assert!(memchr::memmem::find(&buffer[..length], b"Call-ID: 1@a").is_some());
        assert!(memchr::memmem::find(&buffer[..length], b"Digest *").is_some());
        for conf in [conf(0.0), Trace::default()] {
            taps.configure(&conf).unwrap();
            assert!(!taps.is_open());
        }
        assert_eq!((taps.counters().hep_sent, taps.counters().hep_lost), (1, 0));
    }
}
