//! A relay between a client and what it talks to. It writes down every datagram with its direction and time, and loses, doubles or delays those that a rule picks.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};

use crate::agent::bind;
use crate::message::Message;

/// `Forth` runs from whoever found the tap's address to the tap's target, `Back` from the target to whom it answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    Forth,
    Back,
}

/// What becomes of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Pass,
    Drop,
    Double,
    Delay(Duration),
}

#[derive(Clone)]
pub struct Record {
    pub at: Duration,
    pub way: Way,
    pub fate: Fate,
    pub bytes: Vec<u8>,
    /// None where the datagram is not SIP.
    pub message: Option<Message>,
}

type Rule = Box<dyn FnMut(Way, &Message) -> Fate + Send>;

/// Clients send to `address`. Each one gets a socket of its own towards the target, on the tap's IP address, so that answers find their way
/// back by the source address (`received` and `rport`), as through a NAT.
pub struct Tap {
    pub address: SocketAddr,
    records: Arc<Mutex<Vec<Record>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tap {
    pub fn new(address: SocketAddr, target: SocketAddr) -> Tap {
        Tap::with_rule(address, target, |_, _| Fate::Pass)
    }

    pub fn with_rule(address: SocketAddr, target: SocketAddr, rule: impl FnMut(Way, &Message) -> Fate + Send + 'static) -> Tap {
        let front = bind(address);
        front.set_nonblocking(true).expect("a socket that does not wait");
        let front = UdpSocket::from_std(front);
        let address = front.local_addr().expect("the tap's address");
        let records = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let poll = Poll::new().expect("a poll");
        let mut relay = Relay {
            front,
            target,
            poll,
            clients: Vec::new(),
            by_client: HashMap::new(),
            late: Vec::new(),
            rule: Box::new(rule),
            records: Arc::clone(&records),
            began: Instant::now(),
        };
        relay.poll.registry().register(&mut relay.front, FRONT, Interest::READABLE).expect("the tap in its poll");
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || relay.run(&stopped));
        Tap { address, records, stop, thread: Some(thread) }
    }

    /// Everything seen until now, what was dropped included.
    pub fn records(&self) -> Vec<Record> {
        self.records.lock().expect("the records").clone()
    }

    /// The messages that arrived at the tap in one direction.
    pub fn seen(&self, way: Way) -> Vec<Message> {
        self.records().into_iter().filter(|record| record.way == way).filter_map(|record| record.message).collect()
    }

    pub fn requests(&self, way: Way, method: &str) -> Vec<Message> {
        self.seen(way).into_iter().filter(|message| message.is(method)).collect()
    }

    pub fn responses(&self, way: Way, method: &str, status: u16) -> Vec<Message> {
        self.seen(way).into_iter().filter(|message| message.answers(method, status)).collect()
    }

    /// The datagrams that the rule did not let pass.
    pub fn dropped(&self) -> usize {
        self.records().iter().filter(|record| record.fate == Fate::Drop).count()
    }

    /// One line for each datagram: what a person wants to see when a test fails.
    pub fn ladder(&self) -> String {
        let mut text = String::new();
        for record in self.records() {
            let arrow = if record.way == Way::Forth { "-->" } else { "<--" };
            let what = record.message.as_ref().map_or_else(
                || format!("{} bytes that are not SIP", record.bytes.len()),
                |message| {
                    format!(
                        "{} [{}; {} Via; {}]",
                        message.start,
                        message.header("cseq").unwrap_or("no CSeq"),
                        message.vias().len(),
                        message.call_id()
                    )
                },
            );
            let _ = writeln!(
                text,
                "{:9.3} {arrow} {what} {}",
                record.at.as_secs_f64() * 1e3,
                if record.fate == Fate::Pass { String::new() } else { format!("{:?}", record.fate) }
            );
        }
        text
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if std::thread::panicking() {
            eprintln!("the tap on {} saw:\n{}", self.address, self.ladder());
        }
    }
}

const FRONT: Token = Token(usize::MAX);

struct Relay {
    front: UdpSocket,
    target: SocketAddr,
    poll: Poll,
    clients: Vec<(SocketAddr, UdpSocket)>,
    by_client: HashMap<SocketAddr, usize>,
    late: Vec<(Instant, Way, usize, Vec<u8>)>,
    rule: Rule,
    records: Arc<Mutex<Vec<Record>>>,
    began: Instant,
}

impl Relay {
    fn run(&mut self, stop: &AtomicBool) {
        let mut events = Events::with_capacity(256);
        let mut buffer = vec![0; 65536];
        while !stop.load(Ordering::Relaxed) {
            let _ = self.poll.poll(&mut events, Some(Duration::from_millis(5)));
            for event in &events {
                if event.token() == FRONT {
                    while let Ok((length, from)) = self.front.recv_from(&mut buffer) {
                        let client = self.client(from);
                        self.handle(Way::Forth, client, &buffer[..length]);
                    }
                } else {
                    let client = event.token().0;
                    loop {
                        match self.clients[client].1.recv_from(&mut buffer) {
                            Ok((length, _)) => self.handle(Way::Back, client, &buffer[..length]),
                            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                            Err(_) => break,
                        }
                    }
                }
            }
            let now = Instant::now();
            let (due, late) = std::mem::take(&mut self.late).into_iter().partition(|(at, ..)| *at <= now);
            self.late = late;
            let due: Vec<_> = due;
            for (_, way, client, bytes) in due {
                self.send(way, client, &bytes);
            }
        }
    }

    fn client(&mut self, from: SocketAddr) -> usize {
        if let Some(&client) = self.by_client.get(&from) {
            return client;
        }
        let local = SocketAddr::new(self.front.local_addr().expect("the tap's address").ip(), 0);
        let mut socket = UdpSocket::bind(local).expect("a socket towards the target");
        let client = self.clients.len();
        self.poll.registry().register(&mut socket, Token(client), Interest::READABLE).expect("a client in the poll");
        self.clients.push((from, socket));
        self.by_client.insert(from, client);
        client
    }

    fn handle(&mut self, way: Way, client: usize, bytes: &[u8]) {
        let message = Message::read(bytes);
        let fate = message.as_ref().map_or(Fate::Pass, |message| (self.rule)(way, message));
        let record = Record { at: self.began.elapsed(), way, fate, bytes: bytes.to_vec(), message };
        self.records.lock().expect("the records").push(record);
        match fate {
            Fate::Pass => self.send(way, client, bytes),
            Fate::Drop => {}
            Fate::Double => {
                self.send(way, client, bytes);
                self.send(way, client, bytes);
            }
            Fate::Delay(by) => self.late.push((Instant::now() + by, way, client, bytes.to_vec())),
        }
    }

    fn send(&self, way: Way, client: usize, bytes: &[u8]) {
        let (address, socket) = &self.clients[client];
        let _ = match way {
            Way::Forth => socket.send_to(bytes, self.target),
            Way::Back => self.front.send_to(bytes, *address),
        };
    }
}
