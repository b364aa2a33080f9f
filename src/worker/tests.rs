//! Workers over real loopback sockets, with small elements that echo, forward and count.

use super::*;
use crate::base::Errand;
use crate::net::Buffers;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time;

/// What the elements of one crew saw, for the test to look at.
#[derive(Default)]
struct Notes {
    lost: Mutex<Vec<(u8, Flow)>>,
    fired_at_ms: Mutex<Vec<u64>>,
    configured: AtomicU64,
}

/// Answers each datagram with its own bytes. One that begins with `mail` goes by the other core; one that begins with `to`
/// is sent to the port behind it; `timer` asks to be woken.
struct Echo {
    core: u8,
    cores: u8,
    notes: Arc<Notes>,
    timeout: Option<Instant>,
    counters: Counters,
}

impl Element for Echo {
    fn handle(&mut self, now: Instant, flow: Flow, bytes: &[u8], outbox: &mut Outbox) {
        if bytes.starts_with(b"mail") {
            let other = (self.core + 1) % self.cores;
            outbox.mail(other, Errand::Orphan { tried: 1 }, flow, bytes);
        } else if let Some(port) = bytes.strip_prefix(b"to ") {
            let port = std::str::from_utf8(port).unwrap().parse().unwrap();
            let peer = SocketAddr::new(flow.peer.ip(), port);
            let flow = Flow::datagram(flow.listener, peer);
            outbox.send(flow, |out| {
                out.extend_from_slice(b"OPTIONS sip:x SIP/2.0\r\n\r\n")
            });
        } else if bytes == b"timer" {
            self.timeout = Some(now.after_ms(30));
        } else if bytes == b"nowhere" {
            outbox.send(Flow::datagram(99, flow.peer), |out| out.push(b'x'));
        } else {
            outbox.send(flow, |out| out.extend_from_slice(bytes));
        }
    }

    fn handle_mail(
        &mut self,
        _now: Instant,
        errand: Errand,
        flow: Flow,
        bytes: &[u8],
        outbox: &mut Outbox,
    ) {
        assert_eq!(errand, Errand::Orphan { tried: 1 });
        outbox.send(flow, |out| {
            out.extend_from_slice(bytes);
            out.push(b'0' + self.core);
        });
    }

    fn handle_flow_lost(&mut self, _now: Instant, flow: Flow, _outbox: &mut Outbox) {
        self.notes.lost.lock().unwrap().push((self.core, flow));
    }

    fn handle_timers(&mut self, now: Instant, _outbox: &mut Outbox) {
        if self.timeout.is_some_and(|due| due <= now) {
            let late_ms = now.ms_since(self.timeout.take().unwrap());
            self.notes.fired_at_ms.lock().unwrap().push(late_ms);
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.timeout
    }

    fn handle_config(&mut self, _settings: Arc<Settings>) {
        self.notes.configured.fetch_add(1, Ordering::SeqCst);
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn occupancy(&self) -> Occupancy {
        Occupancy::default()
    }
}

fn crew(cores: usize, listeners: &[&str]) -> (Crew, Arc<Notes>) {
    let options = Options {
        cores: vec![0; cores],
        batch: 16,
        ..Options::default()
    };
    let listeners: Vec<SocketAddr> = listeners.iter().map(|text| text.parse().unwrap()).collect();
    let bound = bind(options, &listeners).unwrap();
    let notes = Arc::new(Notes::default());
    let crew = bound.spawn_elements(|core| Echo {
        core,
        cores: cores as u8,
        notes: notes.clone(),
        timeout: None,
        counters: Counters::default(),
    });
    (crew.unwrap(), notes)
}

fn client(address: SocketAddr) -> UdpSocket {
    let socket = match address {
        SocketAddr::V4(_) => UdpSocket::bind("127.0.0.1:0"),
        SocketAddr::V6(_) => UdpSocket::bind("[::1]:0"),
    };
    let socket = socket.unwrap();
    socket.connect(address).unwrap();
    let patience = time::Duration::from_secs(5);
    socket.set_read_timeout(Some(patience)).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_536];
    let len = socket.recv(&mut buffer).expect("an answer");
    buffer.truncate(len);
    buffer
}

/// Waits until `test` holds; fails after five seconds.
fn until(what: &str, mut test: impl FnMut() -> bool) {
    let start = time::Instant::now();
    while !test() {
        assert!(
            start.elapsed() < time::Duration::from_secs(5),
            "never: {what}"
        );
        std::thread::sleep(time::Duration::from_millis(2));
    }
}

#[test]
fn batches_of_all_sizes_over_both_families() {
    let (crew, _) = crew(1, &["127.0.0.1:0", "[::1]:0"]);
    let mut sent = 0;
    for address in crew.addresses() {
        let socket = client(*address);
        for burst in [1, 15, 16, 17, 100] {
            for number in 0..burst {
                let message = format!("INVITE sip:{burst}@{number} SIP/2.0\r\n\r\n");
                socket.send(message.as_bytes()).unwrap();
            }
            sent += burst;
            for number in 0..burst {
                let message = format!("INVITE sip:{burst}@{number} SIP/2.0\r\n\r\n");
                assert_eq!(receive(&socket), message.as_bytes());
            }
        }
    }
    let stats = crew.stats();
    let sum = |pick: fn(&ListenerCounters) -> u64| -> u64 {
        stats
            .listeners
            .iter()
            .map(|(_, counters)| pick(counters))
            .sum()
    };
    assert_eq!(sum(|counters| counters.received.messages[0]), sent);
    assert_eq!(sum(|counters| counters.sent.messages[0]), sent);
    assert!(sum(|counters| counters.received.batches) <= sent);
    assert!(stats.delay.count() > 0 && stats.workers[0].cpu_ns > 0);
}

#[test]
fn the_largest_datagram() {
    let (crew, _) = crew(1, &["127.0.0.1:0", "[::1]:0"]);
    for (address, len) in crew.addresses().iter().zip([65_507, 65_527]) {
        let socket = client(*address);
        let message: Vec<u8> = (0..len).map(|n| (n % 251) as u8 | 0x80).collect();
        for _ in 0..20 {
            socket.send(&message).unwrap();
            assert_eq!(receive(&socket), message);
        }
        socket.send(b"").unwrap();
        assert_eq!(receive(&socket), b"", "an empty datagram is one, too");
    }
}
