//! Two crews in one process, joined by real links, with the same sockets: the second takes the place of the first.

use super::*;
use crate::worker::links;
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

const CORES: usize = 2;

fn options() -> Options {
    let mut options = Options { cores: vec![0; CORES], ..Options::default() };
    options.udp.batch = 16;
    options
}

fn listeners() -> [(Transport, SocketAddr); 2] {
    [Transport::Udp, Transport::Tcp].map(|transport| (transport, "127.0.0.1:0".parse().unwrap()))
}

/// The sockets of a crew, as another process gets them.
fn inherited(crew: &Crew) -> Vec<Inherited> {
    let sockets = crew.listening_sockets().unwrap();
    let transports = [Transport::Udp, Transport::Tcp].into_iter().zip(crew.addresses().to_vec());
    transports.zip(sockets).map(|((transport, address), sockets)| Inherited { transport, address, sockets }).collect()
}

/// What the successor has before it takes over: all but its workers.
fn prepared(old: &Crew) -> Bound {
    let options = Options { inherited: Arc::new(Mutex::new(inherited(old))), ..options() };
    let at: Vec<_> = [Transport::Udp, Transport::Tcp].into_iter().zip(old.addresses().to_vec()).collect();
    let bound = bind(options, &at).unwrap();
    assert_eq!(bound.addresses(), old.addresses());
    bound
}

fn start(mut bound: Bound, legacy: Legacy, links: Vec<OwnedFd>) -> (Crew, Arc<Notes>) {
    let at: Vec<_> = [Transport::Udp, Transport::Tcp].into_iter().zip(bound.addresses().to_vec()).collect();
    bound.follow(legacy, links, &at);
    let notes = Arc::new(Notes::default());
    let crew = bound.spawn_elements(|core| Echo { is_new: true, ..echo(core, CORES, &notes) }).unwrap();
    (crew, notes)
}

fn duplicates(ends: &[OwnedFd]) -> Vec<OwnedFd> {
    ends.iter().map(|end| end.try_clone().unwrap()).collect()
}

fn phone(crew: &Crew) -> TcpStream {
    let phone = TcpStream::connect(crew.addresses()[1]).unwrap();
    phone.set_nodelay(true).unwrap();
    phone.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    phone
}

fn message(body: &str) -> Vec<u8> {
    format!("INFO sip:x SIP/2.0\r\nl: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Sends one message and returns what the answer says of who made it.
fn ask(phone: &mut TcpStream, body: &str) -> String {
    let sent = message(body);
    phone.write_all(&sent).unwrap();
    let mut head = [0; 12];
    phone.read_exact(&mut head).unwrap();
    match head.starts_with(FINAL) {
        // The element that was mailed puts FINAL before, and its number behind.
        true => {
            let mut rest = vec![0; sent.len() + 1];
            phone.read_exact(&mut rest).unwrap();
            assert_eq!(rest[..sent.len()], sent);
            format!("mailed to {}", rest[sent.len()] as char)
        }
        false => {
            let mut rest = vec![0; sent.len() - head.len()];
            phone.read_exact(&mut rest).unwrap();
            "here".to_owned()
        }
    }
}

/// Clients that each have some datagrams under way all the time.
struct Load {
    is_over: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<u64>>,
}

impl Load {
    fn start(at: SocketAddr) -> Load {
        let is_over = Arc::new(AtomicBool::new(false));
        let client = |number: u64| {
            let is_over = is_over.clone();
            std::thread::spawn(move || {
                let socket = client(at);
                let (mut next, mut under_way) = (0u64, HashSet::new());
                while !is_over.load(Ordering::Relaxed) || !under_way.is_empty() {
                    while under_way.len() < 8 && !is_over.load(Ordering::Relaxed) {
                        socket.send(format!("{number} {next}").as_bytes()).unwrap();
                        under_way.insert(format!("{number} {next}"));
                        next += 1;
                    }
                    let answer = String::from_utf8(receive(&socket)).unwrap();
                    assert!(under_way.remove(&answer), "{answer} twice");
                }
                socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
                assert!(socket.recv(&mut [0; 100]).is_err(), "answered twice");
                next
            })
        };
        Load { threads: (0..4).map(client).collect(), is_over }
    }

    /// Returns how many datagrams were sent, each of which was answered once.
    fn end(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.threads.into_iter().map(|thread| thread.join().expect("every datagram is answered once")).sum()
    }
}

#[test]
fn no_datagram_is_lost_and_none_is_answered_twice() {
    let (old, _) = crew_of(options(), &listeners());
    let load = Load::start(old.addresses()[0]);
    std::thread::sleep(Duration::from_millis(100));
    let bound = prepared(&old);
    let (own, others) = links(CORES).unwrap();
    let legacy = old.hand_over(own).unwrap();
    let received = |crew: &Crew| crew.stats().listeners[0].2.received.messages.iter().sum::<u64>();
    let by_old = received(&old);
    let (new, _) = start(bound, legacy, others);
    old.let_go();
    std::thread::sleep(Duration::from_millis(200));
    let sent = load.end();
    let by_new = received(&new);
    assert_eq!((by_old + by_new, received(&old)), (sent, by_old));
    assert!(by_old > 0 && by_new > 0, "{by_old} before, {by_new} after");
}

#[test]
fn connections_stay_and_new_ones_are_the_successors() {
    let (old, _) = crew_of(options(), &listeners());
    // They ask nothing before: an echo is no final answer, and the end of the connection would wait for one.
    let mut phones: Vec<TcpStream> = (0..8).map(|_| phone(&old)).collect();
    until("all are accepted", || old.remaining().connections == 8);
    let bound = prepared(&old);
    let (own, others) = links(CORES).unwrap();
    let legacy = old.hand_over(own).unwrap();
    assert_eq!(legacy.connections.len(), 8);
    // It comes while nobody accepts, and waits.
    let mut early = phone(&old);
    let (new, notes) = start(bound, legacy, others);
    old.let_go();
    assert_eq!(ask(&mut early, "between"), "here");
    let core_of = |answer: String| answer.strip_prefix("mailed to ").map(str::to_owned);
    let cores: HashSet<_> = phones.iter_mut().map(|phone| core_of(ask(phone, "after")).expect("by mail")).collect();
    assert!(cores.iter().all(|core| core == "0" || core == "1"));
    assert_eq!(ask(&mut phone(&new), "new"), "here");
    let left = old.remaining();
    assert_eq!(left, Remaining { transactions: 0, connections: 8, is_joined: true });
    // Each end is told to every core of the successor, by the predecessor's cores' numbers.
    drop(phones);
    until("the ends are known", || {
        let ended = notes.ended.lock().unwrap();
        let theirs =
            ended.iter().filter(|(_, flow)| usize::from(flow.core) >= CORES && matches!(flow.channel, Channel::Connection { .. }));
        theirs.count() == 8 * CORES
    });
    until("nothing is left", || old.remaining() == Remaining { is_joined: true, ..Remaining::default() });
    drop(old);
    until("the successor is alone", || !new.remaining().is_joined);
    assert_eq!(ask(&mut early, "alone"), "here");
}

#[test]
fn with_the_predecessor_its_connections_are_lost() {
    let (old, _) = crew_of(options(), &listeners());
    let mut phone = phone(&old);
    assert_eq!(ask(&mut phone, "before"), "here");
    let bound = prepared(&old);
    let (own, others) = links(CORES).unwrap();
    let legacy = old.hand_over(own).unwrap();
    let flow = legacy.connections[0];
    let (new, notes) = start(bound, legacy, others);
    drop(old);
    let theirs = Flow { core: flow.core + CORES as u8, ..flow };
    until("the end is known", || (0..CORES as u8).all(|core| notes.ended.lock().unwrap().contains(&(core, theirs))));
    until("nobody is joined", || !new.remaining().is_joined);
}

#[test]
fn a_predecessor_whose_successor_does_not_start_serves_again() {
    let (old, _) = crew_of(options(), &listeners());
    let mut phone = phone(&old);
    assert_eq!(ask(&mut phone, "before"), "here");
    let load = Load::start(old.addresses()[0]);
    let bound = prepared(&old);
    let (own, others) = links(CORES).unwrap();
    let kept = duplicates(&others);
    old.hand_over(own).unwrap();
    assert!(old.hand_over(links(CORES).unwrap().0).is_err(), "one is under way");
    phone.write_all(&message("meanwhile")).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    drop((bound, others));
    old.resume(kept).unwrap();
    // What was sent to the successor is handled as mail.
    let mut head = vec![0; FINAL.len() + message("meanwhile").len() + 1];
    phone.read_exact(&mut head).unwrap();
    assert!(head.starts_with(FINAL));
    assert_eq!(ask(&mut phone, "after"), "here");
    assert_eq!(ask(&mut super::handover::phone(&old), "new"), "here");
    assert!(load.end() > 0);
    assert!(!old.remaining().is_joined);
    // And another attempt succeeds.
    let bound = prepared(&old);
    let (own, others) = links(CORES).unwrap();
    let legacy = old.hand_over(own).unwrap();
    let (_new, _) = start(bound, legacy, others);
    assert!(ask(&mut phone, "later").starts_with("mailed"));
}

#[test]
fn nothing_is_lost_while_the_successor_takes_nothing() {
    // More than the links and the kernel hold; no phone lets more wait than its connection may.
    const PHONES: usize = 60;
    const MESSAGES: usize = 200;
    let (old, _) = crew_of(options(), &listeners());
    let mut phones: Vec<TcpStream> = (0..PHONES).map(|_| phone(&old)).collect();
    phones.iter_mut().for_each(|phone| assert_eq!(ask(phone, "before"), "here"));
    let bound = prepared(&old);
    let (own, others) = links(CORES).unwrap();
    let legacy = old.hand_over(own).unwrap();
    let one = message(&"x".repeat(1000));
    let send = |phone: &TcpStream| {
        let (mut writer, all) = (phone.try_clone().unwrap(), one.repeat(MESSAGES));
        std::thread::spawn(move || writer.write_all(&all).unwrap())
    };
    let senders: Vec<_> = phones.iter().map(send).collect();
    std::thread::sleep(Duration::from_millis(300));
    let (_new, _) = start(bound, legacy, others);
    let mut answer = vec![0; FINAL.len() + one.len() + 1];
    for (place, phone) in phones.iter_mut().enumerate() {
        for number in 0..MESSAGES {
            phone.read_exact(&mut answer).unwrap_or_else(|error| panic!("{place}, {number}: {error}"));
            assert!(answer.starts_with(FINAL), "{number}");
        }
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    assert_eq!(old.stats().numbers.mail.dropped_full, 0);
}

#[test]
fn other_cores_or_links_are_refused() {
    let (old, _) = crew_of(options(), &listeners());
    assert!(old.hand_over(links(1).unwrap().0).unwrap_err().contains("1 links for 2 cores"));
    let inherited = inherited(&old);
    let one = Options { cores: vec![0], inherited: Arc::new(Mutex::new(inherited)), ..options() };
    let refused = bind(one, &[(Transport::Udp, old.addresses()[0])]).err().unwrap().to_string();
    assert!(refused.contains("2 sockets") && refused.contains("1 cores"), "{refused}");
    assert_eq!(ask(&mut phone(&old), "still"), "here");
}
