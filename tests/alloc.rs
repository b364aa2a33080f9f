//! In its steady state the server allocates nothing for a message: whole calls and registrations are driven through the rules
//! alone, through one worker over real sockets, and through two workers that mail each other, under a counting allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use strowger::base::dns::{Answer, Outcome, Question, Records};
use strowger::base::{Flow, Instant, Key, Outbox, Transport};
use strowger::net::Limits;
use strowger::stack::location::Durability;
use strowger::stack::location::journal::Taken;
use strowger::stack::settings::{Listener, Settings};
use strowger::stack::{Element, Endpoint, Location};
use strowger::worker::mailbox::{Change, Command, PostOffice};
use strowger::worker::{Clock, Options, Worker, bind};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: every call goes on to the system's allocator unchanged; the counter is a plain number of the calling thread.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        unsafe { System.realloc(block, layout, new_size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `work` and returns how often this thread allocated in it.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Vec::<u8>::with_capacity(100)))), 1);
    assert_eq!(allocations(|| ()), 0);
}

/// A server under test: takes a message from one of the two phones and says what came out for whom.
trait Server {
    /// Phones' addresses: caller, callee.
    fn phones(&self) -> [SocketAddr; 2];
    /// Delivers a message of phone `from` and waits until `expected` messages have come out; returns them with the phone they
    /// went to.
    fn deliver(&mut self, from: usize, message: &str, expected: usize) -> Vec<(usize, String)>;
    /// From now on, finished transactions are remembered for so long.
    fn set_linger(&mut self, linger_ms: u64);
    /// Waits until all transactions of the warm-up are forgotten.
    fn rest(&mut self);
    /// Allocations of the server's own code so far.
    fn allocated(&self) -> u64;
}

const CALLER: usize = 0;
const CALLEE: usize = 1;

fn settings(address: SocketAddr, cores: usize, linger_ms: u64) -> Settings {
    let mut settings = Settings {
        domains: vec![b"example.com".to_vec()],
        listeners: vec![Listener { transport: Transport::Udp, address, advertise: address.to_string().into_bytes() }],
        cores: cores as u8,
        ..Settings::default()
    };
    settings.timers.linger = linger_ms;
    settings
}

fn location() -> Arc<Location> {
    Arc::new(Location::new(SECRET, 10_000))
}

const SECRET: Key = Key::new(17, 18);

// ---- the phones ------------------------------------------------------------------------------------------------------------

/// The lines of a message whose name is one of `names`, in their order.
fn lines(message: &str, names: &[&str]) -> String {
    let head = message.split("\r\n\r\n").next().unwrap();
    let mut found = String::new();
    for line in head.split("\r\n").skip(1) {
        let name = line.split(':').next().unwrap();
        if names.iter().any(|wanted| wanted.eq_ignore_ascii_case(name)) {
            found.push_str(line);
            found.push_str("\r\n");
        }
    }
    found
}

/// What the callee answers to a request that it got.
fn answer(request: &str, status: &str, contact: SocketAddr) -> String {
    let copied = lines(request, &["Via", "Record-Route", "From", "Call-ID", "CSeq"]);
    let to = lines(request, &["To"]);
    let tag = if to.contains("tag=") { "" } else { ";tag=callee" };
    format!("SIP/2.0 {status}\r\n{copied}{}{tag}\r\nContact: <sip:bob@{contact}>\r\nContent-Length: 0\r\n\r\n", to.trim_end(),)
}

/// A request of the caller.
fn request(method: &str, uri: &str, phone: SocketAddr, number: u32, more: &str) -> String {
    let (cseq, tag) = match method {
        "BYE" => (2, ";tag=callee"),
        "ACK" => (1, ";tag=callee"),
        _ => (1, ""),
    };
    format!(
        "{method} {uri} SIP/2.0\r\n\
         Via: SIP/2.0/UDP {phone};branch=z9hG4bK-{method}-{number};rport\r\n\
         Max-Forwards: 70\r\n\
         From: \"Alice\" <sip:alice@example.com>;tag=a{number}\r\n\
         To: <sip:bob@example.com>{tag}\r\n\
         Call-ID: call-{number}@alice\r\n\
         CSeq: {cseq} {method}\r\n\
         {more}Content-Length: 0\r\n\r\n"
    )
}

/// Exactly one message for each of the phones named, in any order; returns them in the order of the names.
fn one_each<const N: usize>(messages: Vec<(usize, String)>, phones: [usize; N]) -> [String; N] {
    assert_eq!(messages.len(), N, "{messages:#?}");
    phones.map(|phone| {
        let mut mine = messages.iter().filter(|(to, _)| *to == phone);
        mine.next().unwrap_or_else(|| panic!("nothing for {phone}: {messages:#?}")).1.clone()
    })
}

/// The callee registers: a binding is made, or refreshed.
fn register(server: &mut impl Server, number: u32) {
    let phone = server.phones()[CALLEE];
    let message = format!(
        "REGISTER sip:example.com SIP/2.0\r\n\
         Via: SIP/2.0/UDP {phone};branch=z9hG4bK-register-{number};rport\r\n\
         Max-Forwards: 70\r\n\
         From: <sip:bob@example.com>;tag=r{number}\r\n\
         To: <sip:bob@example.com>\r\n\
         Call-ID: register@bob\r\n\
         CSeq: {number} REGISTER\r\n\
         Contact: <sip:bob@{phone}>;expires=3600\r\n\
         Content-Length: 0\r\n\r\n"
    );
    let [ok] = one_each(server.deliver(CALLEE, &message, 1), [CALLEE]);
    assert!(ok.starts_with("SIP/2.0 200 "), "{ok}");
}

/// INVITE, 100, 180, 200, ACK, BYE, 200: six messages in, seven out.
fn call(server: &mut impl Server, number: u32) {
    let [caller, callee] = server.phones();
    let contact = format!("Contact: <sip:alice@{caller}>\r\n");
    let invite = request("INVITE", "sip:bob@example.com", caller, number, &contact);
    let came = server.deliver(CALLER, &invite, 2);
    let [trying, invite] = one_each(came, [CALLER, CALLEE]);
    assert!(trying.starts_with("SIP/2.0 100 "), "{trying}");
    assert!(invite.starts_with("INVITE "), "{invite}");

    let ringing = answer(&invite, "180 Ringing", callee);
    let [ringing] = one_each(server.deliver(CALLEE, &ringing, 1), [CALLER]);
    assert!(ringing.starts_with("SIP/2.0 180 "), "{ringing}");
    let ok = answer(&invite, "200 OK", callee);
    let [ok] = one_each(server.deliver(CALLEE, &ok, 1), [CALLER]);
    assert!(ok.starts_with("SIP/2.0 200 "), "{ok}");

    let route = lines(&ok, &["Record-Route"]).replace("Record-Route", "Route");
    assert!(!route.is_empty(), "{ok}");
    let target = format!("sip:bob@{callee}");
    let ack = request("ACK", &target, caller, number, &route);
    let [ack] = one_each(server.deliver(CALLER, &ack, 1), [CALLEE]);
    assert!(ack.starts_with("ACK "), "{ack}");
    let bye = request("BYE", &target, caller, number, &route);
    let [bye] = one_each(server.deliver(CALLER, &bye, 1), [CALLEE]);
    assert!(bye.starts_with("BYE "), "{bye}");
    let ok = answer(&bye, "200 OK", callee);
    let [ok] = one_each(server.deliver(CALLEE, &ok, 1), [CALLER]);
    assert!(ok.contains("BYE"), "{ok}");
}

/// Warms the server up, then demands that calls and registrations cost no allocation.
///
/// Memory grows while more transactions live at once than ever before, and how many do depends on how fast this machine runs
/// the calls. So the warm-up lets all of its transactions live until its end, and later ones die young.
fn demand_nothing(server: &mut impl Server) {
    const WARM: u32 = 400;
    const STEADY: u32 = 600;
    // Numbers of six digits: messages of one length.
    let first = 100_000;
    server.set_linger(LONG_MS);
    for number in first..first + WARM {
        register(server, number);
        call(server, number);
    }
    let warm = server.allocated();
    assert!(warm > 0, "the warm-up makes the memory that is used again");
    server.set_linger(SHORT_MS);
    server.rest();
    let before = server.allocated();
    for number in first + WARM..first + WARM + STEADY {
        register(server, number);
        call(server, number);
    }
    let allocated = server.allocated() - before;
    assert_eq!(allocated, 0, "allocations in {STEADY} calls and registrations");
}

/// Longer than the warm-up takes.
const LONG_MS: u64 = 3_000;
/// A quarter of what the warm-up's calls take at the least: those that live at once are then far fewer than in the warm-up,
/// however fast this machine is (a call takes 50 µs or more over real sockets).
const SHORT_MS: u64 = 5;

// ---- the rules alone -------------------------------------------------------------------------------------------------------

struct Rules {
    endpoint: Endpoint,
    outbox: Outbox,
    now: Instant,
    allocated: u64,
    /// The callee is known by a name, which has been looked up once.
    by_name: bool,
}

const RULES: &str = "127.0.0.1:5060";
const PHONES: [&str; 2] = ["127.0.0.1:7001", "127.0.0.1:7002"];

impl Server for Rules {
    fn phones(&self) -> [SocketAddr; 2] {
        PHONES.map(|text| text.parse().unwrap())
    }

    fn deliver(&mut self, from: usize, message: &str, _expected: usize) -> Vec<(usize, String)> {
        let flow = Flow::datagram(0, self.phones()[from]);
        self.now = self.now.after_ms(3);
        let message = match self.by_name {
            true => message.replace("sip:bob@127.0.0.1:", "sip:bob@pc.example:"),
            false => message.to_owned(),
        };
        self.allocated += allocations(|| {
            self.outbox.clear();
            self.endpoint.handle_timers(self.now, &mut self.outbox);
            self.endpoint.handle(self.now, flow, message.as_bytes(), &mut self.outbox);
        });
        while let Some(question) = self.outbox.questions.pop() {
            self.answer(question);
        }
        let phones = self.phones();
        let sent = self.outbox.transmits.iter().map(|transmit| {
            let to = phones.iter().position(|phone| *phone == transmit.flow.peer);
            let text = String::from_utf8(self.outbox.get(transmit.span).to_vec());
            (to.expect("it goes to a phone"), text.unwrap())
        });
        sent.collect()
    }

    fn set_linger(&mut self, linger_ms: u64) {
        let settings = settings(RULES.parse().unwrap(), 1, linger_ms);
        self.endpoint.handle_config(Arc::new(settings));
    }

    fn rest(&mut self) {
        self.now = self.now.after_ms(LONG_MS + 1);
        self.endpoint.handle_timers(self.now, &mut self.outbox);
        assert!(self.endpoint.occupancy().is_quiet());
    }

    fn allocated(&self) -> u64 {
        self.allocated
    }
}

impl Rules {
    fn new(by_name: bool) -> Rules {
        let settings = settings(RULES.parse().unwrap(), 1, LONG_MS);
        Rules {
            endpoint: Endpoint::new(Arc::new(settings), location(), Arc::default(), 0, SECRET),
            outbox: Outbox::default(),
            now: Instant::from_ms(1_000),
            allocated: 0,
            by_name,
        }
    }

    /// The address of the callee, good for the whole test.
    fn answer(&mut self, question: Question) {
        let outcome = Outcome::Found { records: Records::Addresses(vec![self.phones()[CALLEE].ip()]), ttl_ms: 86_400_000 };
        let answer = Answer { question, outcome };
        self.endpoint.handle_answer(self.now, answer, &mut self.outbox);
    }
}

#[test]
fn the_rules_allocate_nothing_for_a_message() {
    demand_nothing(&mut Rules::new(false));
}

#[test]
fn the_rules_allocate_nothing_for_a_message_to_a_name_that_is_known() {
    demand_nothing(&mut Rules::new(true));
}

// ---- workers over real sockets ---------------------------------------------------------------------------------------------

struct Workers {
    office: Arc<PostOffice>,
    workers: Vec<Worker>,
    location: Arc<Location>,
    taken: Taken,
    settings: Arc<Settings>,
    phones: [UdpSocket; 2],
    allocated: u64,
}

impl Workers {
    fn start(cores: usize) -> Workers {
        Workers::with(cores, location())
    }

    fn with(cores: usize, location: Arc<Location>) -> Workers {
        let options = Options {
            cores: vec![0; cores],
            // Responses are to cross by mail.
            steer: false,
            ..Options::default()
        };
        let bound = bind(options, &[(Transport::Udp, "127.0.0.1:0".parse().unwrap())]).unwrap();
        let address = bound.addresses()[0];
        let settings = Arc::new(settings(address, cores, LONG_MS));
        let make = |core| {
            let (settings, location) = (settings.clone(), location.clone());
            Endpoint::new(settings, location, Arc::default(), core, SECRET)
        };
        let (office, workers) = bound.workers(Clock::start(), make).unwrap();
        let mut server = Workers {
            office,
            workers,
            location: location.clone(),
            taken: Taken::default(),
            settings,
            phones: [phone(address), phone(address)],
            allocated: 0,
        };
        if cores > 1 {
            // The kernel chooses the core by the phone's port: phones are tried until each has a core of its own.
            for (number, core) in [(CALLER, 0), (CALLEE, 1)] {
                while server.core_of(number) != core {
                    server.phones[number] = phone(address);
                }
            }
        }
        server
    }

    /// One turn of each worker, whether or not something waits for it.
    fn turn(&mut self) {
        for (core, worker) in self.workers.iter_mut().enumerate() {
            // A command keeps the worker from sleeping.
            let command = Command::Configure(Change { settings: self.settings.clone(), connections: Limits::default(), tls: None });
            assert!(self.office.command(core, command));
            self.allocated += allocations(|| worker.tick().unwrap());
        }
        self.store();
    }

    /// What a journal does between two turns.
    fn store(&mut self) {
        if !self.location.has_changes() {
            return;
        }
        let mut round = self.location.begin_round(false);
        while let Some(shard) = round.next_shard() {
            self.location.take_changed(shard, false, &mut self.taken);
        }
        self.taken.clear();
        self.location.finish_round(round.number);
    }

    fn core_of(&mut self, phone: usize) -> usize {
        let received = |server: &mut Workers| -> Vec<u64> {
            let reports = server.workers.iter_mut().map(Worker::report);
            reports.map(|report| report.listeners[0].received.bytes).collect()
        };
        let before = received(self);
        self.phones[phone].send(b"\r\n\r\n").unwrap();
        self.turn();
        let after = received(self);
        let changed = before.iter().zip(&after).position(|(before, after)| before != after);
        changed.expect("one of the cores received it")
    }
}

fn phone(server: SocketAddr) -> UdpSocket {
    let phone = UdpSocket::bind("127.0.0.1:0").unwrap();
    phone.connect(server).unwrap();
    phone.set_nonblocking(true).unwrap();
    phone
}

impl Server for Workers {
    fn phones(&self) -> [SocketAddr; 2] {
        [CALLER, CALLEE].map(|number| self.phones[number].local_addr().unwrap())
    }

    fn deliver(&mut self, from: usize, message: &str, expected: usize) -> Vec<(usize, String)> {
        self.phones[from].send(message.as_bytes()).unwrap();
        let mut came = Vec::new();
        let mut buffer = [0; 4096];
        for _ in 0..100 {
            self.turn();
            for (number, phone) in self.phones.iter().enumerate() {
                while let Ok(len) = phone.recv(&mut buffer) {
                    let text = String::from_utf8(buffer[..len].to_vec()).unwrap();
                    came.push((number, text));
                }
            }
            if came.len() >= expected {
                break;
            }
        }
        came
    }

    fn set_linger(&mut self, linger_ms: u64) {
        let (address, cores) = (self.settings.listeners[0].address, self.workers.len());
        self.settings = Arc::new(settings(address, cores, linger_ms));
        self.turn();
    }

    fn rest(&mut self) {
        let start = std::time::Instant::now();
        loop {
            let late = start.elapsed() > Duration::from_millis(LONG_MS + 500);
            self.turn();
            // Asked of after a turn that began late enough: this thread may have stood still for as long as it liked.
            let quiet = |worker: &mut Worker| worker.report().numbers.occupancy.is_quiet();
            if self.workers.iter_mut().all(quiet) {
                return;
            }
            assert!(!late, "the warm-up's transactions are still there");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn allocated(&self) -> u64 {
        self.allocated
    }
}

#[test]
fn a_worker_allocates_nothing_for_a_message() {
    let mut server = Workers::start(1);
    demand_nothing(&mut server);
    let report = server.workers[0].report();
    assert_eq!(report.numbers.mail.sent, 0);
    assert_eq!(report.listeners[0].kernel_drops, 0);
}

#[test]
fn answers_that_wait_for_the_disk_allocate_nothing() {
    let location = Location::new(SECRET, 10_000).with_journal(Durability::Acknowledged);
    let mut server = Workers::with(1, Arc::new(location));
    demand_nothing(&mut server);
    let held = server.workers[0].report().numbers.held;
    assert_eq!((held.kept, held.refused, held.full), (1_000, 0, 0));
}

#[test]
fn mail_between_two_workers_allocates_nothing() {
    let mut server = Workers::start(2);
    demand_nothing(&mut server);
    let sent: u64 = server.workers.iter_mut().map(|worker| worker.report().numbers.mail.sent).sum();
    assert!(sent >= 1_000 * 3, "180, 200 and 200 of each call crossed: {sent}");
}
