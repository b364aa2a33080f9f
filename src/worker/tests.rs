//! Workers over real loopback sockets, with small elements that echo, forward and count.

mod handover;
mod introducing;
mod pulse;
mod streams;
mod tapping;

use super::metrics::ProcessStats;
use super::*;
use crate::base::metric::Families;
use crate::base::{Errand, Transport};
use crate::net::ListenerCounters;
use crate::net::tls::{Certificate, Role};
use crate::sip::Fault;
use crate::stack::Settings;
use crate::stack::auth::users::Users;
use crate::stack::counterpart::Counterpart;
use crate::stack::{Counters, Occupancy};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time;

/// What an element sends on `to`.
const TO_DEAD: &[u8] = b"OPTIONS sip:x SIP/2.0\r\n\r\n";

/// How an answer over TCP begins.
const FINAL: &[u8] = b"SIP/2.0 200 ";

/// What the elements of one crew saw, for the test to check.
#[derive(Default)]
struct Notes {
    lost: Mutex<Vec<(u8, Vec<u8>)>>,
    ended: Mutex<Vec<(u8, Flow)>>,
    fired_at_ms: Mutex<Vec<u64>>,
    configured: AtomicU64,
    drained: AtomicU64,
}

/// Answers each datagram with its own bytes. One that begins with `mail` is answered by the other core; one that begins with `to`
/// is sent to the port that follows; `timer` requests a timer.
struct Echo {
    core: u8,
    cores: u8,
    notes: Arc<Notes>,
    timeout: Option<Instant>,
    counters: Counters,
    users: Arc<Users>,
    /// Whatever comes on a connection is another process's.
    is_left: bool,
    /// It is that process.
    is_new: bool,
}

/// Returns the flow of `port call …` over TCP.
fn dialled(flow: Flow, text: &[u8]) -> Flow {
    let mut words = std::str::from_utf8(text).unwrap().split(' ');
    let mut number = || words.next().unwrap().parse::<u64>().unwrap();
    let peer = SocketAddr::new(flow.peer.ip(), number() as u16);
    Flow::towards(Transport::Tcp, flow.listener, flow.core, peer, 0, number())
}

impl Element for Echo {
    fn handle(&mut self, now: Instant, flow: Flow, bytes: &[u8], outbox: &mut Outbox) -> bool {
        outbox.note(b"1@a", format_args!("it is {}", "echoed"));
        if self.is_left {
            outbox.mail(self.core + self.cores, Errand::Request, flow, bytes);
        } else if bytes.starts_with(b"mail") {
            let other = (self.core + 1) % self.cores;
            outbox.mail(other, Errand::Orphan { tried: 1, crossed: false }, flow, bytes);
        } else if let Some(port) = bytes.strip_prefix(b"to ") {
            let port = std::str::from_utf8(port).unwrap().parse().unwrap();
            let peer = SocketAddr::new(flow.peer.ip(), port);
            let flow = Flow::datagram(flow.listener, peer);
            outbox.send(flow, |out| out.extend_from_slice(TO_DEAD));
        } else if let Some(rest) = bytes.strip_prefix(b"DIAL ") {
            // DIAL port call …: this very message is sent there over TCP. HANGUP sends nothing, but ends the call.
            outbox.send(dialled(flow, rest), |out| out.extend_from_slice(bytes));
        } else if let Some(rest) = bytes.strip_prefix(b"HANGUP ") {
            outbox.release(dialled(flow, rest));
        } else if bytes == b"timer" {
            self.timeout = Some(now.after_ms(30));
        } else if bytes == b"nowhere" {
            outbox.send(Flow::datagram(99, flow.peer), |out| out.push(b'x'));
        } else {
            outbox.send(flow, |out| out.extend_from_slice(bytes));
        }
        true
    }

    fn handle_mail(&mut self, _now: Instant, errand: Errand, flow: Flow, bytes: &[u8], outbox: &mut Outbox) {
        let mailed = [Errand::Orphan { tried: 1, crossed: false }, Errand::Request];
        assert!(mailed.contains(&errand) && !self.is_left);
        assert_eq!(self.is_new, usize::from(flow.core) >= self.cores.into());
        outbox.send(flow, |out| {
            if flow.transport == Transport::Tcp {
                out.extend_from_slice(FINAL); // so that it is not waited for any more
            }
            out.extend_from_slice(bytes);
            out.push(b'0' + self.core);
        });
    }

    fn handle_unframed(&mut self, _now: Instant, flow: Flow, bytes: &[u8], _fault: Fault, outbox: &mut Outbox) -> bool {
        outbox.send(flow, |out| {
            out.extend_from_slice(b"unframed ");
            out.extend_from_slice(bytes);
        });
        // What it sends is not a final response, and none is to be waited for.
        false
    }

    fn handle_flow_lost(&mut self, _now: Instant, flow: Flow, _outbox: &mut Outbox) {
        self.notes.ended.lock().unwrap().push((self.core, flow));
    }

    fn handle_undelivered(&mut self, _now: Instant, sent: &[u8], _outbox: &mut Outbox) {
        let mut lost = self.notes.lost.lock().unwrap();
        lost.push((self.core, sent.to_vec()));
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

    fn handle_counterpart(&mut self, counterpart: Option<Counterpart>) {
        self.is_left = matches!(counterpart, Some(Counterpart::Successor));
    }

    fn handle_drain(&mut self) {
        self.notes.drained.fetch_add(1, Ordering::SeqCst);
    }

    fn handle_users(&mut self, users: Arc<Users>) -> Arc<Users> {
        std::mem::replace(&mut self.users, users)
    }

    fn counters(&self) -> Counters {
        self.counters.clone()
    }

    fn occupancy(&self) -> Occupancy {
        Occupancy::default()
    }
}

fn crew(cores: usize, listeners: &[&str]) -> (Crew, Arc<Notes>) {
    let mut options = Options { cores: vec![0; cores], ..Options::default() };
    options.udp.batch = 16;
    let datagrams = |text: &&str| (Transport::Udp, text.parse().unwrap());
    crew_of(options, &listeners.iter().map(datagrams).collect::<Vec<_>>())
}

fn crew_of(options: Options, listeners: &[(Transport, SocketAddr)]) -> (Crew, Arc<Notes>) {
    let cores = options.cores.len();
    let bound = bind(options, listeners).unwrap();
    let notes = Arc::new(Notes::default());
    let crew = bound.spawn_elements(|core| echo(core, cores, &notes));
    (crew.unwrap(), notes)
}

fn echo(core: u8, cores: usize, notes: &Arc<Notes>) -> Echo {
    Echo {
        core,
        cores: cores as u8,
        notes: notes.clone(),
        timeout: None,
        counters: Counters::default(),
        users: Arc::default(),
        is_left: false,
        is_new: false,
    }
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
        assert!(start.elapsed() < time::Duration::from_secs(5), "never: {what}");
        std::thread::sleep(time::Duration::from_millis(2));
    }
}

#[test]
fn a_wildcard_answers_from_the_address_that_was_asked_by_way_of_another_core_too() {
    let (crew, _) = crew(2, &["127.0.0.1:0", "0.0.0.0:0"]);
    for address in crew.addresses() {
        let asked: &[&str] = match address.ip().is_unspecified() {
            true => &["127.0.0.2", "127.0.0.3"],
            false => &["127.0.0.1"],
        };
        for ip in asked {
            // Connected: it hears no other peer.
            let socket = client(SocketAddr::new(ip.parse().unwrap(), address.port()));
            socket.send(b"here").unwrap();
            assert_eq!(receive(&socket), b"here");
            socket.send(b"mail").unwrap();
            assert!(receive(&socket).starts_with(b"mail"));
        }
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
    let sum = |pick: fn(&ListenerCounters) -> u64| -> u64 { stats.listeners.iter().map(|(_, _, counters)| pick(counters)).sum() };
    assert_eq!(sum(|counters| counters.received.messages[0]), sent);
    assert_eq!(sum(|counters| counters.sent.messages[0]), sent);
    assert!(sum(|counters| counters.received.batches) <= sent);
    assert!(stats.numbers.delay.count() > 0 && stats.workers[0].cpu_ns > 0);
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

#[test]
fn mail_crosses_between_two_workers_and_the_kernel_spreads_the_peers() {
    let (crew, _) = crew(2, &["127.0.0.1:0"]);
    let mut seen = [0; 2];
    for _ in 0..64 {
        let socket = client(crew.addresses()[0]);
        for number in 0..10 {
            socket.send(format!("mail {number}.").as_bytes()).unwrap();
        }
        for number in 0..10 {
            let answer = receive(&socket);
            let (text, core) = answer.split_at(answer.len() - 1);
            assert_eq!(text, format!("mail {number}.").as_bytes(), "order is kept");
            seen[usize::from(core[0] - b'0')] += 1;
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0, "both cores took part: {seen:?}");
    let stats = crew.stats();
    assert_eq!((stats.numbers.mail.sent, stats.numbers.mail.received), (640, 640));
    assert!(stats.numbers.mail.deliveries <= 640);
    assert_eq!((stats.numbers.mail.dropped_full, stats.numbers.mail.dropped_unknown), (0, 0));
    assert_eq!(stats.workers.len(), 2);
    for worker in &stats.workers {
        assert!(worker.listeners[0].received.bytes > 0);
    }
}

#[test]
fn what_did_not_arrive_is_told_to_the_element_of_each_core() {
    for (listener, cores) in [("127.0.0.1:0", 1), ("[::1]:0", 1), ("127.0.0.1:0", 2)] {
        let (crew, notes) = crew(cores, &[listener]);
        let socket = client(crew.addresses()[0]);
        // A port without a listener: it was ours a moment ago.
        let dead = client(crew.addresses()[0]).local_addr().unwrap();
        socket.send(format!("to {}", dead.port()).as_bytes()).unwrap();
        let lost = || notes.lost.lock().unwrap().clone();
        until("the element is told", || lost().len() >= cores);
        let mut told: Vec<u8> = lost().iter().map(|(core, _)| *core).collect();
        told.sort_unstable();
        assert_eq!(told, (0..cores as u8).collect::<Vec<_>>());
        assert!(lost().iter().all(|(_, sent)| sent.starts_with(TO_DEAD)));
        // The error of one peer does not affect the others.
        for number in 0..100 {
            let message = format!("x{number}");
            socket.send(format!("to {}", dead.port()).as_bytes()).unwrap();
            socket.send(message.as_bytes()).unwrap();
            assert_eq!(receive(&socket), message.as_bytes());
        }
        let (_, _, counters) = crew.stats().listeners[0];
        assert!(counters.icmp_errors > 1);
        assert_eq!(counters.sent.messages[0], 101);
    }
}

#[test]
fn an_unroutable_peer_is_lost_and_a_missing_listener_is_counted() {
    let (crew, notes) = crew(1, &["127.0.0.1:0"]);
    let socket = client(crew.addresses()[0]);
    socket.send(b"to 0").unwrap();
    until("the element is told", || notes.lost.lock().unwrap().len() == 1);
    socket.send(b"nowhere").unwrap();
    socket.send(b"still there").unwrap();
    assert_eq!(receive(&socket), b"still there");
    let list = metrics::metrics(&crew.stats(), &ProcessStats::default());
    assert_eq!(value(&list, "strowger_dropped_total{reason=\"unreachable\"}"), 1.0);
    assert_eq!(value(&list, "strowger_dropped_total{reason=\"no_socket\"}"), 1.0);
}

fn value(list: &Families, name: &str) -> f64 {
    let value = list.value(name);
    value.unwrap_or_else(|| panic!("no metric {name}"))
}

fn names(list: &Families) -> Vec<String> {
    let samples = list.iter().flat_map(|family| &family.samples);
    samples.map(|sample| sample.name.clone()).collect()
}

#[test]
fn timers_fire_and_nothing_else_wakes_the_worker() {
    let (_crew, notes) = {
        let (crew, notes) = crew(1, &["127.0.0.1:0"]);
        let socket = client(crew.addresses()[0]);
        for round in 1..=10 {
            socket.send(b"timer").unwrap();
            until("it fires", || notes.fired_at_ms.lock().unwrap().len() == round);
        }
        let turns = crew.stats().workers[0].turns;
        assert!(turns < 60, "{turns} turns for ten messages and ten timers");
        (crew, notes)
    };
    let mut late = notes.fired_at_ms.lock().unwrap().clone();
    late.sort_unstable();
    assert!(late[0] <= 12, "the quickest within the grid: {late:?}");
}

#[test]
fn a_second_server_is_refused_and_so_is_a_silent_partner() {
    for cores in [1, 2] {
        let (crew, _) = crew(cores, &["127.0.0.1:0", "[::1]:0"]);
        for second in [1, 2] {
            for address in crew.addresses() {
                let options = Options { cores: vec![0; second], ..Options::default() };
                let free = (Transport::Udp, "127.0.0.1:0".parse().unwrap());
                let taken = (Transport::Udp, *address);
                let error = bind(options, &[free, taken]).err().unwrap();
                assert_eq!(error.to_string(), format!("cannot listen on udp {address}: address in use by another socket"));
            }
        }
    }
    // A socket of another owner that would share.
    let other = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    other.set_reuse_port(true).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    other.bind(&any.into()).unwrap();
    let taken = other.local_addr().unwrap().as_socket().unwrap();
    for cores in [1, 2] {
        let options = Options { cores: vec![0; cores], ..Options::default() };
        assert!(bind(options, &[(Transport::Udp, taken)]).is_err());
    }
}

#[test]
fn stop_joins_and_the_address_is_free_again() {
    let (mut crew, notes) = crew(2, &["127.0.0.1:0"]);
    let address = crew.addresses()[0];
    assert!(crew.is_whole());
    crew.reload(&Change { settings: Arc::default(), connections: crate::net::Limits::default(), tls: None });
    crew.drain();
    until("both are configured", || notes.configured.load(Ordering::SeqCst) == 2);
    until("both know of the end", || notes.drained.load(Ordering::SeqCst) == 2);
    crew.stop();
    assert!(UdpSocket::bind(address).is_ok());
    assert!(crew.stats().workers.is_empty(), "nobody answers any more");
}

#[test]
fn users_reach_every_worker_and_those_of_before_are_let_go() {
    let (crew, _) = crew(2, &["127.0.0.1:0"]);
    let first = Arc::new(Users::default());
    crew.users(&first);
    until("both have them", || Arc::strong_count(&first) == 3);
    let second = Arc::new(Users::default());
    crew.users(&second);
    until("both have the others", || Arc::strong_count(&second) == 3 && Arc::strong_count(&first) == 1);
}

#[test]
fn metrics_have_their_names_once_and_in_order() {
    let (crew, _) = crew(1, &["127.0.0.1:0"]);
    let address = crew.addresses()[0];
    let socket = client(address);
    socket.send(b"OPTIONS sip:x SIP/2.0\r\n\r\n").unwrap();
    receive(&socket);
    let certificate = |subject: &str, valid_until| {
        let mut certificate = Certificate::new("certs/a.pem".into(), Role::Trusted);
        (certificate.subject, certificate.valid_until) = (subject.to_owned(), valid_until);
        certificate
    };
    let beside = ProcessStats {
        certificates: vec![certificate("CA", 2_000_000_000), certificate("CA", 1_900_000_000), certificate("Other", 1)],
        store: crate::worker::metrics::Store::default(),
        bindings: 7,
        binding_bytes: 2240,
        users: 5,
        users_unreadable: true,
        started: Duration::from_millis(1_500),
        displaced_clients: 3,
        is_draining: true,
        sharing: Some(metrics::Shared { is_up: true, untold: 2, ..metrics::Shared::default() }),
        log_lines_lost: 0,
        trace: crate::trace::TraceCounters::default(),
        records: Some(metrics::RecordNumbers { dialogs: 4, written: 9, lost: 2, unrecorded: 1 }),
        trunks: vec![("carrier".to_owned(), true)],
        restarts: metrics::Restarts { restarts: 2, failures: 1, predecessor: Some((5, 6, 7.5)) },
    };
    let first = metrics::metrics(&crew.stats(), &beside);
    let second = metrics::metrics(&crew.stats(), &beside);
    assert_eq!(names(&first), names(&second));
    let mut sorted = names(&first);
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), names(&first).len());
    for family in first.iter() {
        assert!(family.help.ends_with('.'), "{}", family.name);
        assert!(!family.samples.is_empty(), "{}", family.name);
    }
    for direction in ["in", "out"] {
        let name = format!("strowger_messages_total{{transport=\"udp\",direction=\"{direction}\",kind=\"request\"}}");
        assert_eq!(value(&first, &name), 1.0);
    }
    assert_eq!(value(&first, "strowger_bindings"), 7.0);
    assert_eq!(value(&first, "strowger_users"), 5.0);
    assert_eq!(value(&first, "strowger_restarts_total"), 2.0);
    assert_eq!(value(&first, "strowger_predecessor_connections"), 6.0);
    assert_eq!(value(&first, "strowger_users_unreadable"), 1.0);
    assert_eq!(value(&first, "process_start_time_seconds"), 1.5);
    let expires =
        |name| format!("strowger_tls_certificate_expires_seconds{{file=\"certs/a.pem\",name=\"{name}\",role=\"trusted\"}}");
    assert_eq!((value(&first, &expires("CA")), value(&first, &expires("Other"))), (1_900_000_000.0, 1.0));
    assert_eq!(value(&first, "strowger_dialogs"), 4.0);
    assert_eq!(value(&first, "strowger_records_written_total"), 9.0);
    assert_eq!(value(&first, "strowger_records_lost_total"), 2.0);
    assert_eq!(value(&first, "strowger_calls_unrecorded_total"), 1.0);
    let without = ProcessStats { records: None, ..beside };
    assert_eq!(metrics::metrics(&crew.stats(), &without).value("strowger_dialogs"), None);
    assert_eq!(value(&first, "strowger_draining"), 1.0);
    assert_eq!(value(&first, "strowger_auth_total{outcome=\"stale\"}"), 0.0);
    let buffer = format!("strowger_udp_receive_buffer_bytes{{listener=\"{address}\"}}");
    assert!(value(&first, &buffer) >= 4096.0);
    let drops = format!("strowger_udp_kernel_drops_total{{listener=\"{address}\"}}");
    assert_eq!(value(&first, &drops), 0.0);
    assert!(value(&first, "strowger_worker_cpu_seconds_total{core=\"0\"}") > 0.0);
    assert!(value(&first, "process_resident_memory_bytes") > 1e6);
    let count = value(&second, "strowger_loop_delay_seconds_count");
    let last = value(&second, "strowger_loop_delay_seconds_bucket{le=\"+Inf\"}");
    assert!(count >= 1.0 && count == last);
}
