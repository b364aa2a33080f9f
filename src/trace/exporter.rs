//! The thread that sends copies to the collector. Nothing waits for it: what its queue or the collector does not take is lost, and
//! counted.

use super::event::Event;
use super::hep;
use super::queue::Queue;
use crate::settings::Collector;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long after a failure the collector's name is looked up again.
const RETRY: Duration = Duration::from_secs(5);

/// How long shutdown waits for what is in the queue.
const FAREWELL: Duration = Duration::from_millis(200);

/// A running thread. Dropping this ends it once what waits has been sent or a moment has passed.
pub struct Exporter {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// There is something to send, or the thread is to end.
    work: Condvar,
    /// The thread has ended.
    ended: Condvar,
    sent: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
}

#[derive(Default)]
struct State {
    queue: Queue,
    is_asleep: bool,
    is_closed: bool,
    has_ended: bool,
}

impl Exporter {
    /// `counters`: of what was sent, and of what was lost.
    pub fn start(collector: Collector, agent: u32, counters: [Arc<AtomicU64>; 2]) -> io::Result<Exporter> {
        let [sent, lost] = counters;
        let shared = Arc::new(Shared { state: Mutex::default(), work: Condvar::new(), ended: Condvar::new(), sent, lost });
        let mut sender = Sender {
            shared: shared.clone(),
            collector,
            agent,
            way: None,
            tried: None,
            failed: None,
            taken: 0,
            is_down: false,
            datagram: Vec::new(),
        };
        thread::Builder::new().name("hep".to_owned()).spawn(move || {
            sender.run();
            sender.shared.state().has_ended = true;
            sender.shared.ended.notify_all();
        })?;
        Ok(Exporter { shared })
    }

    /// Queues a copy, or counts it as lost. It never waits for the collector.
    pub fn push(&self, event: Arc<Event>) {
        let mut state = self.shared.state();
        if !state.queue.push(event) {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if std::mem::take(&mut state.is_asleep) {
            drop(state);
            self.shared.work.notify_one();
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.is_closed = true;
        self.shared.work.notify_one();
        // It may be looking up a name, which can take long: then it ends later without being waited for.
        let waits = |state: &mut State| !state.has_ended;
        drop(self.shared.ended.wait_timeout_while(state, FAREWELL, waits));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of the thread.
struct Sender {
    shared: Arc<Shared>,
    collector: Collector,
    agent: u32,
    /// A socket that is connected to the collector.
    way: Option<UdpSocket>,
    /// When its address was last looked up.
    tried: Option<Instant>,
    /// When something last failed.
    failed: Option<Instant>,
    /// Datagrams that were accepted since.
    taken: u32,
    /// The log says that nothing can be sent.
    is_down: bool,
    datagram: Vec<u8>,
}

impl Sender {
    fn run(&mut self) {
        // Before the first message, so that no message waits for it.
        self.find();
        loop {
            let events = {
                let state = self.shared.state();
                let is_idle = |state: &mut State| {
                    state.is_asleep = state.queue.is_empty() && !state.is_closed;
                    state.is_asleep
                };
                let waited = self.shared.work.wait_while(state, is_idle);
                let mut state = waited.unwrap_or_else(PoisonError::into_inner);
                if state.queue.is_empty() {
                    return;
                }
                state.queue.take_all()
            };
            for event in events {
                let counter = match self.send(&event) {
                    true => &self.shared.sent,
                    false => &self.shared.lost,
                };
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn send(&mut self, event: &Event) -> bool {
        if !hep::write(event, self.agent, &mut self.datagram) {
            return false;
        }
        if self.way.is_none() {
            self.find();
        }
        let Some(socket) = &self.way else {
            return false;
        };
        match socket.send(&self.datagram) {
            Ok(_) => {
                self.note_up();
                true
            }
            // The socket's own queue is full for a moment.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => false,
            Err(error) => {
                self.note_down(&error);
                // The error may belong to the previous datagram; the next one that is due retries, with a fresh lookup.
                if self.may_try() {
                    self.way = None;
                }
                false
            }
        }
    }

    fn may_try(&self) -> bool {
        is_past(self.tried)
    }

    /// Looks up the collector's name, at most every few seconds.
    fn find(&mut self) {
        if !self.may_try() {
            return;
        }
        self.tried = Some(Instant::now());
        let Collector { host, port } = &self.collector;
        let found = (host.as_str(), *port).to_socket_addrs().and_then(|mut addresses| {
            let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            connect(addresses.next().ok_or_else(none)?)
        });
        match found {
            Ok(socket) => self.way = Some(socket),
            Err(error) => self.note_down(&error),
        }
    }

    fn note_down(&mut self, error: &io::Error) {
        self.failed = Some(Instant::now());
        self.taken = 0;
        if !std::mem::replace(&mut self.is_down, true) {
            log::warn!(
                "[trace] hep {}: {error}: copies are lost until it takes them (strowger_hep_lost_total); calls go on",
                self.collector
            );
        }
    }

    fn note_up(&mut self) {
        self.taken = self.taken.saturating_add(1);
        // A closed port is reported with the datagram after the one that it refused.
        if self.is_down && self.taken > 1 && is_past(self.failed) {
            self.is_down = false;
            log::info!("[trace] hep {}: copies are sent again", self.collector);
        }
    }
}

/// True if it is time to retry.
fn is_past(then: Option<Instant>) -> bool {
    then.is_none_or(|then| then.elapsed() >= RETRY)
}

/// Connects a non-blocking socket.
fn connect(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Transport;
    use crate::trace::event::{Kind, tests::message};
    use crate::trace::queue::EVENTS;

    fn event() -> Arc<Event> {
        let event = message(Kind::Sent, Transport::Udp, "192.0.2.1:1", "192.0.2.2:2", "x");
        Arc::new(event)
    }

    /// Sends this many to a collector, and returns how many were sent and lost.
    fn export(host: &str, port: u16, count: usize) -> (u64, u64) {
        let counters: [Arc<AtomicU64>; 2] = [Arc::default(), Arc::default()];
        let host = host.to_owned();
        let exporter = Exporter::start(Collector { host, port }, 0, counters.clone()).unwrap();
        for _ in 0..count {
            exporter.push(event());
        }
        let until = Instant::now() + Duration::from_secs(30);
        let read = || counters.each_ref().map(|counter| counter.load(Ordering::Relaxed));
        while read().iter().sum::<u64>() < count as u64 && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
        let [sent, lost] = read();
        (sent, lost)
    }

    #[test]
    fn a_closed_port_loses_and_counts() {
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (sent, lost) = export("127.0.0.1", closed.port(), 100);
        assert_eq!(sent + lost, 100);
        assert!(lost > 0, "the kernel reports what was refused");
    }

    #[test]
    fn an_unknown_name_loses_all() {
        assert_eq!(export("no-such-host.invalid", 9060, 50), (0, 50));
    }

    #[test]
    fn a_queue_that_is_full_loses_the_newest() {
        let counters: [Arc<AtomicU64>; 2] = [Arc::default(), Arc::default()];
        // Without a thread, nothing is taken.
        let exporter = Exporter {
            shared: Arc::new(Shared {
                state: Mutex::new(State { has_ended: true, ..State::default() }),
                work: Condvar::new(),
                ended: Condvar::new(),
                sent: counters[0].clone(),
                lost: counters[1].clone(),
            }),
        };
        let event = event();
        (0..EVENTS + 3).for_each(|_| exporter.push(event.clone()));
        assert_eq!(counters[1].load(Ordering::Relaxed), 3);
    }
}
