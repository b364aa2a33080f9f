//! Bindings survive: a restart, a kill at any moment, and a disk that is full, locked, torn or somebody else's.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use crate::agent::{Agent, Request, bind, unique};
use crate::message::{Message, parameter};
use crate::place::{CALLEE, CALLER, Place, SECOND_CALLEE, SERVER, wait_for};
use crate::process::{self, Process};
use crate::server::{Conf, Server, binary};

const PATIENCE: Duration = Duration::from_secs(20);

fn conf(place: &Place, durability: &str) -> Conf {
    Conf::new(place).set("registrar", "durability", &format!("{durability:?}"))
}

/// Stops it as an operator does.
fn stop(server: Server) {
    server.signal("TERM");
    let outcome = server.finish(PATIENCE);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
}

/// What Debian's own `sqlite3` says to this.
fn sqlite3(place: &Place, statements: &str) -> String {
    let file = place.path("strowger.db").display().to_string();
    let arguments = ["-batch", file.as_str(), statements];
    let outcome = process::run(place, "sqlite3", Path::new("sqlite3"), &arguments, PATIENCE);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    outcome.stdout
}

fn until(what: &str, mut test: impl FnMut() -> bool) {
    assert!(wait_for(PATIENCE, || test().then_some(())).is_some(), "never: {what}");
}

/// Another program that has the database to itself, until it is dropped.
struct Lock(Process);

impl Lock {
    fn new(place: &Place) -> Lock {
        let file = place.path("strowger.db").display().to_string();
        let arguments = ["-batch".to_owned(), file];
        let (process, mut input) = Process::converse(place, "lock", Path::new("sqlite3"), &arguments);
        let wanted = ".timeout 10000\nBEGIN EXCLUSIVE;\nSELECT 'locked';\n";
        input.write_all(wanted.as_bytes()).expect("it listens");
        until("locked", || process.stdout().contains("locked"));
        // It ends with its input.
        std::mem::forget(input);
        Lock(process)
    }

    fn release(self) {
        drop(self.0);
    }
}

#[test]
fn a_restart_keeps_what_was_bound() {
    let place = Place::new("restart");
    let with = conf(&place, "batched").stream("tcp", place.at(SERVER));
    let server = with.start(&place);
    let domain = server.address.to_string();

    // A phone behind a NAT: its contact is of no use, only the way on which it came.
    let nat = Agent::new(place.at_port(CALLEE, 40123), server.address);
    let mut register = nat.register(&domain, "nat", "<sip:nat@10.9.9.9:5060>", 600);
    register.via = format!("SIP/2.0/UDP 10.9.9.9:5060;branch=z9hG4bKn{};rport", unique());
    assert_eq!(nat.ask(&register).status(), Some(200));

    // One with everything that a registration can bring.
    let rich = Agent::new(place.at(SECOND_CALLEE), server.address);
    let contact = format!("<{}>;q=0.7;+sip.instance=\"<urn:uuid:1>\";reg-id=2", rich.uri());
    let first = rich.register(&domain, "rich", &contact, 600);
    let path = format!("Path: <sip:{};lr>", place.at(SECOND_CALLEE));
    assert_eq!(rich.ask(&first.clone().with(&path)).status(), Some(200));

    // One that has a connection, and one that has left.
    let wired = Agent::tcp(place.ip(CALLER), server.address);
    let contact = "<sip:wired@10.9.9.8;transport=tcp>";
    let mut register = wired.register(&domain, "wired", contact, 600);
    register.via = format!("SIP/2.0/TCP 10.9.9.8:5060;branch=z9hG4bKw{}", unique());
    assert_eq!(wired.ask(&register).status(), Some(200));
    let gone = Agent::new(place.at_port(CALLER, 5070), server.address);
    let came = gone.register(&domain, "gone", "<sip:gone@192.0.2.9>", 600);
    assert_eq!(gone.ask(&came).status(), Some(200));
    let left = Request { call_id: came.call_id.clone(), ..gone.register(&domain, "gone", "<sip:gone@192.0.2.9>", 0) };
    assert_eq!(gone.ask(&left).status(), Some(200));
    server.bind(&place, "hand", place.at(CALLEE));

    let before = server.command(&place, &["ul", "show"]).stdout;
    stop(server);
    drop(wired);
    let columns = "SELECT aor, contact, q, instance, reg_id, transport, peer, removed FROM strowger_binding \
                   WHERE aor LIKE 'rich@%' OR aor LIKE 'gone@%' ORDER BY aor DESC";
    assert_eq!(
        sqlite3(&place, columns),
        format!(
            "rich@{ip}|{}|0.7|\"<urn:uuid:1>\"|2|udp|{}|0\ngone@{ip}|sip:gone@192.0.2.9|1.0||0|udp|{}|1\n",
            rich.uri(),
            place.at(SECOND_CALLEE),
            place.at_port(CALLER, 5070),
            ip = place.ip(SERVER),
        )
    );
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(place.path("strowger.db")).expect("it is there").permissions());
    assert_eq!(mode & 0o777, 0o600, "nobody else can read it");

    let server = with.start(&place);
    server.expect_log(&["strowger.db: 5 bindings read"]);
    let after = server.command(&place, &["ul", "show"]).stdout;
    let untimed = |text: &str| {
        let words = text.split_whitespace().filter(|word| {
            let bare = word.trim_end_matches('s');
            bare.parse::<u32>().is_err()
        });
        words.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(untimed(&after), untimed(&before));

    let caller = Agent::new(place.at_port(CALLER, 5080), server.address);
    caller.send(&caller.request("MESSAGE", &server.uri("nat")));
    let came = nat.expect("the MESSAGE", |message| message.is("MESSAGE"));
    assert!(came.start.contains("10.9.9.9"), "{came:?}");
    caller.send(&caller.request("MESSAGE", &server.uri("rich")));
    let came = rich.expect("the MESSAGE", |message| message.is("MESSAGE"));
    assert!(came.header("route").is_some(), "by its Path: {came:?}");
    let answer = caller.ask(&caller.request("MESSAGE", &server.uri("wired")));
    assert_eq!(answer.status(), Some(480), "its connection is gone");

    // The order of requests is remembered too, of what is bound and of what was removed.
    let late = Request { cseq: 0, ..first };
    assert_eq!(rich.ask(&late).status(), Some(500));
    let late = Request { via: gone.request("REGISTER", "sip:x").via, ..came_again(&gone, &domain, &left) };
    assert_eq!(gone.ask(&late).status(), Some(500), "it must not come back");
}

/// The REGISTER before `left`, late.
fn came_again(agent: &Agent, domain: &str, left: &Request) -> Request {
    Request { call_id: left.call_id.clone(), cseq: left.cseq - 1, ..agent.register(domain, "gone", "<sip:gone@192.0.2.9>", 600) }
}

// ---- kill -9 -----------------------------------------------------------------------------------------------------------

/// What happened to one address-of-record, by CSeq.
#[derive(Default, Clone)]
struct Line {
    sent: u32,
    /// The latest that was answered 200, and when.
    acknowledged: Option<(u32, Instant)>,
    /// All of them, for who asks what was known at some moment.
    history: Vec<(u32, Instant)>,
}

/// Registers many addresses as fast as they are answered, and remembers each answer.
struct Crowd {
    socket: UdpSocket,
    server: std::net::SocketAddr,
    lines: Vec<Line>,
    rng: u64,
    others: BTreeMap<u16, u32>,
}

impl Crowd {
    fn new(place: &Place, size: usize, seed: u64) -> Crowd {
        let socket = bind(place.at(CALLEE));
        let patience = Some(Duration::from_millis(1));
        socket.set_read_timeout(patience).expect("a time-out");
        Crowd { socket, server: place.at(SERVER), lines: vec![Line::default(); size], rng: seed | 1, others: BTreeMap::new() }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        self.rng % below
    }

    fn register(&mut self) {
        let number = self.random(self.lines.len() as u64) as usize;
        self.lines[number].sent += 1;
        let cseq = self.lines[number].sent;
        let (own, server) = (self.socket.local_addr().expect("its address"), self.server);
        let message = format!(
            "REGISTER sip:{server} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKk{number}x{cseq}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:u{number}@{server}>;tag=f\r\nTo: <sip:u{number}@{server}>\r\n\
             Call-ID: k{number}\r\nCSeq: {cseq} REGISTER\r\nContact: <sip:u{number}@{own}>;expires=3600\r\n\
             Content-Length: 0\r\n\r\n"
        );
        // The server may be gone.
        let _ = self.socket.send_to(message.as_bytes(), self.server);
    }

    /// Takes what has come; waits a millisecond for more.
    fn hear(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let Some(answer) = Message::read(&buffer[..length]) else {
                continue;
            };
            if answer.status() != Some(200) {
                *self.others.entry(answer.status().unwrap_or(0)).or_default() += 1;
                continue;
            }
            let number: usize = answer.call_id()[1..].parse().expect("our Call-ID");
            let line = &mut self.lines[number];
            let now = Instant::now();
            line.history.push((answer.cseq(), now));
            if line.acknowledged.is_none_or(|(cseq, _)| cseq < answer.cseq()) {
                line.acknowledged = Some((answer.cseq(), now));
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            for _ in 0..16 {
                self.register();
            }
            self.hear();
        }
    }
}

/// CSeq by the number of the address, as the server has it.
fn bound(place: &Place) -> BTreeMap<usize, u32> {
    let mut stream = UnixStream::connect(place.path("control.sock")).expect("the control socket");
    stream.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ul.show\"}\n").expect("it listens");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("a line");
    let answer: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let entries = answer["result"].as_array().expect("a list");
    let each = entries.iter().map(|entry| {
        let contacts = entry["contacts"].as_array().expect("contacts");
        assert_eq!(contacts.len(), 1, "{entry}");
        let call_id = contacts[0]["call_id"].as_str().expect("a Call-ID");
        let number = call_id[1..].parse().expect("our Call-ID");
        let aor = entry["aor"].as_str().expect("an AOR");
        assert!(aor.starts_with(&format!("sip:u{number}@")), "{entry}");
        (number, contacts[0]["cseq"].as_u64().expect("a CSeq") as u32)
    });
    each.collect()
}

fn seed() -> u64 {
    let named = std::env::var("STROWGER_SEED").ok();
    let seed = named.and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.expect("a time after 1970").as_nanos() as u64
    });
    println!("STROWGER_SEED={seed} repeats this");
    seed
}

/// Every binding that was acknowledged is there after a hundred kills at any moment under load.
#[test]
fn what_was_acknowledged_survives_every_kill() {
    let place = Place::new("kill");
    let with = conf(&place, "acknowledged");
    let mut crowd = Crowd::new(&place, 500, seed());
    let (mut kills, mut acknowledged) = (0, 0);
    while kills < 100 {
        let server = with.start(&place);
        let found = bound(&place);
        for (number, line) in crowd.lines.iter().enumerate() {
            let there = found.get(&number).copied();
            assert!(there.unwrap_or(0) <= line.sent, "after {kills} kills: u{number} has {there:?}, sent were {}", line.sent);
            if let Some((cseq, _)) = line.acknowledged {
                assert!(
                    there.is_some_and(|there| there >= cseq),
                    "after {kills} kills: u{number} was acknowledged with {cseq}, there is {there:?}"
                );
            }
        }
        let time = 20 + crowd.random(180);
        let before = acknowledged_so_far(&crowd);
        crowd.run(Duration::from_millis(time));
        server.signal("KILL");
        drop(server.finish(PATIENCE));
        kills += 1;
        // What was sent before the end has been promised.
        crowd.hear();
        acknowledged += acknowledged_so_far(&crowd) - before;
    }
    assert!(acknowledged > 5_000, "only {acknowledged} registrations were acknowledged: {:?}", crowd.others);
    assert_eq!(crowd.others, BTreeMap::new(), "nothing was refused");
    let verdict = sqlite3(&place, "PRAGMA integrity_check");
    assert_eq!(verdict.trim(), "ok");
}

fn acknowledged_so_far(crowd: &Crowd) -> usize {
    crowd.lines.iter().map(|line| line.history.len()).sum()
}

/// Where nobody waits for the disk, a kill takes the last batch and no more, and what is left is whole.
#[test]
fn a_kill_takes_the_last_batch_at_most() {
    let place = Place::new("batch");
    let with = conf(&place, "batched");
    let mut crowd = Crowd::new(&place, 500, seed());
    for kill in 0..4 {
        let server = with.start(&place);
        let time = 4_500 + crowd.random(1_500);
        crowd.run(Duration::from_millis(time));
        let end = Instant::now();
        server.signal("KILL");
        drop(server.finish(PATIENCE));
        crowd.hear();
        assert_eq!(sqlite3(&place, "PRAGMA integrity_check").trim(), "ok");
        let server = with.start(&place);
        let found = bound(&place);
        // A batch begins each second, and takes its time; so does a machine that runs other tests besides.
        let safe = end - Duration::from_millis(3_500);
        let mut old = 0;
        for (number, line) in crowd.lines.iter().enumerate() {
            let there = found.get(&number).copied().unwrap_or(0);
            assert!(there <= line.sent, "u{number} has {there} of {}", line.sent);
            let before = line.history.iter().filter(|(_, at)| *at < safe);
            if let Some(cseq) = before.map(|(cseq, _)| *cseq).max() {
                old += 1;
                assert!(there >= cseq, "kill {kill}: u{number} had {cseq} long before the end, there is {there}");
            }
        }
        assert!(old > 100, "{old} were old enough to count");
        // What a crash took the phones do not know: their next CSeq is higher all the same.
        stop(server);
    }
}

// ---- disks that are not well -------------------------------------------------------------------------------------------

/// A phone that registers again and again until it is answered so.
fn register_until(place: &Place, server: &Server, user: &str, status: u16) -> Message {
    let agent = Agent::new(place.at_port(CALLEE, 0), server.address);
    let answer = wait_for(PATIENCE, || {
        let contact = format!("<{}>", agent.uri());
        let request = agent.register(&server.address.to_string(), user, &contact, 600);
        let answer = agent.ask(&request);
        (answer.status() == Some(status)).then_some(answer)
    });
    answer.unwrap_or_else(|| panic!("{user} is never answered {status}"))
}

/// A call by way of a binding that an operator made, whatever the disk does.
fn assert_calls_go_on(place: &Place, server: &Server) {
    let callee = Agent::new(place.at_port(SECOND_CALLEE, 0), server.address);
    let caller = Agent::new(place.at_port(CALLER, 0), server.address);
    let user = format!("callee{}", callee.address.port());
    server.bind(place, &user, callee.address);
    caller.send(&caller.request("MESSAGE", &server.uri(&user)));
    callee.expect("the MESSAGE", |message| message.is("MESSAGE"));
}

/// Two would overwrite each other's rows.
#[test]
fn a_second_server_on_one_database_is_refused_and_told_whose_it_is() {
    let place = Place::new("second");
    let first = conf(&place, "batched").start(&place);
    register_until(&place, &first, "bob", 200);
    let elsewhere = place.at_port(SERVER, 5070);
    let text = |database: &str| {
        format!(
            "[[listen]]\ntransport = \"udp\"\naddress = \"{elsewhere}\"\n[registrar]\ndatabase = \"{database}\"\n\
             [control]\nsocket = \"second.sock\"\n[server]\nkey_file = \"second.key\"\n"
        )
    };
    let start = |database: &str| {
        place.write("second.toml", &text(database));
        process::run(&place, "second", binary(), &["run", "-c", "second.toml"], PATIENCE)
    };
    let whose = format!("another server has it: process {}", first.id());
    for database in ["strowger.db", "./strowger.db"] {
        let second = start(database);
        let said = second.stderr.lines().last().unwrap_or_default().to_owned();
        assert!(second.code == Some(1) && said.contains(database) && said.contains(&whose), "{second:?}");
    }
    register_until(&place, &first, "carol", 200);
    // However the first one ends, the next has it.
    first.signal("KILL");
    drop(first);
    let next = conf(&place, "batched").start(&place);
    next.expect_log(&["strowger.db: ", "bindings read"]);
    stop(next);
}

/// Those that are refused at once, those that have waited in vain, and nothing else.
#[test]
fn every_registration_that_cannot_be_stored_counts() {
    let place = Place::new("unstored");
    let server = conf(&place, "acknowledged").start(&place);
    register_until(&place, &server, "first", 200);
    let unstored = || server.stat(&place, "strowger_registrations_unstored_total");
    assert_eq!(unstored(), 0.0);
    let lock = Lock::new(&place);
    register_until(&place, &server, "second", 503);
    let before = unstored();
    assert!(before >= 1.0);
    let agent = Agent::new(place.at_port(CALLEE, 0), server.address);
    for number in 0..5 {
        let contact = format!("<{}>", agent.uri());
        let request = agent.register(&server.address.to_string(), &format!("user{number}"), &contact, 600);
        assert_eq!(agent.ask(&request).status(), Some(503));
    }
    assert_eq!(unstored(), before + 5.0);
    lock.release();
    register_until(&place, &server, "third", 200);
    stop(server);
}

#[test]
fn a_locked_database_is_waited_for() {
    let place = Place::new("locked");
    let server = conf(&place, "acknowledged").start(&place);
    register_until(&place, &server, "first", 200);
    let lock = Lock::new(&place);
    let refused = register_until(&place, &server, "second", 503);
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    server.expect_log(&["strowger.db: bindings are not stored", "locked", "503"]);
    assert!(server.stat(&place, "strowger_store_failures_total") >= 1.0);
    assert!(server.stat(&place, "strowger_bindings_unstored") >= 1.0);
    assert_calls_go_on(&place, &server);
    lock.release();
    register_until(&place, &server, "third", 200);
    server.expect_log(&["strowger.db: bindings are stored again"]);
    until("all stored", || server.stat(&place, "strowger_bindings_unstored") == 0.0);
    let complaints = server.log().matches("are not stored").count();
    assert_eq!(complaints, 1, "one line until it is well");
    stop(server);
    let rows = sqlite3(&place, "SELECT aor FROM strowger_binding");
    assert!(rows.contains("first@") && rows.contains("third@"), "{rows}");
}

#[test]
fn a_torn_or_foreign_file_is_neither_served_nor_touched() {
    for (durability, answered) in [("batched", 200), ("acknowledged", 503)] {
        let place = Place::new("torn");
        let server = conf(&place, durability).start(&place);
        let domain = server.address.to_string();
        let phone = Agent::new(place.at(CALLEE), server.address);
        for n in 0..300 {
            let register = phone.register(&domain, &format!("u{n}"), "<sip:u@192.0.2.1>", 600);
            assert_eq!(phone.ask(&register).status(), Some(200));
        }
        stop(server);
        let mut bytes = fs::read(place.path("strowger.db")).expect("the database");
        let middle = bytes.len() / 2;
        bytes[middle..middle + 6000].fill(0x5a);
        for content in [bytes, b"alice:example.test:0123456789abcdef\n".repeat(50)] {
            fs::write(place.path("strowger.db"), &content).expect("a file");
            let server = conf(&place, durability).start(&place);
            server.expect_log(&["strowger.db: bindings are not stored", "move", "-wal"]);
            assert_eq!(bound(&place).len(), 0, "nothing of it is served");
            assert!(server.stat(&place, "strowger_store_failures_total") >= 1.0);
            assert_calls_go_on(&place, &server);
            register_until(&place, &server, "bob", answered);
            std::thread::sleep(Duration::from_millis(1200));
            let now = fs::read(place.path("strowger.db")).expect("the file");
            assert!(now == content, "not a byte of it has changed");
            // The operator moves it away.
            fs::rename(place.path("strowger.db"), place.path("torn.db")).expect("moved");
            server.expect_log(&["bindings are stored again"]);
            register_until(&place, &server, "carol", 200);
            stop(server);
            let rows = sqlite3(&place, "SELECT aor FROM strowger_binding");
            assert!(rows.contains("carol@") && rows.contains("callee"), "{rows}");
            fs::remove_file(place.path("strowger.db")).expect("removed");
        }
    }
}

/// No file may grow beyond some size: to SQLite it is a disk that takes no more.
#[test]
fn a_full_disk_hurts_nobody_who_does_not_wait_for_it() {
    for (durability, answered) in [("batched", 200), ("acknowledged", 503)] {
        let place = Place::new("full");
        let server = conf(&place, durability).start_limited(&place, 100);
        let domain = server.address.to_string();
        let phone = Agent::new(place.at(CALLEE), server.address);
        let mut last = None;
        let full = wait_for(PATIENCE, || {
            for n in 0..20 {
                let user = format!("u{n}x{}", unique());
                let register = phone.register(&domain, &user, "<sip:u@192.0.2.1>", 600);
                last = phone.ask(&register).status();
            }
            server.log().contains("are not stored").then_some(())
        });
        assert!(full.is_some(), "the disk is never full: {}", server.log());
        server.expect_log(&["strowger.db: bindings are not stored"]);
        register_until(&place, &server, "bob", answered);
        assert_calls_go_on(&place, &server);
        // Room is made.
        let pid = server.id().to_string();
        let arguments = ["--pid", pid.as_str(), "--fsize=unlimited"];
        let made = process::run(&place, "prlimit", Path::new("prlimit"), &arguments, PATIENCE);
        assert_eq!(made.code, Some(0), "{made:?}");
        server.expect_log_within(PATIENCE, &["bindings are stored again"]);
        register_until(&place, &server, "carol", 200);
        until("all stored", || server.stat(&place, "strowger_bindings_unstored") == 0.0);
        let there = bound_users(&place);
        stop(server);
        let rows = sqlite3(&place, "SELECT aor FROM strowger_binding WHERE NOT removed");
        assert_eq!(rows.lines().count(), there, "all of memory is on disk");
        assert_eq!(sqlite3(&place, "PRAGMA integrity_check").trim(), "ok");
    }
}

fn bound_users(place: &Place) -> usize {
    let mut stream = UnixStream::connect(place.path("control.sock")).expect("the control socket");
    stream.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ul.show\"}\n").expect("it listens");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("a line");
    let answer: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    answer["result"].as_array().expect("a list").len()
}

/// Users and bindings in one file: what the journal writes is no change of the users, what an operator changes is, and an operator's
/// command does not take the file away under the server.
#[test]
fn users_and_bindings_share_a_database() {
    let place = Place::new("shared");
    let with = conf(&place, "acknowledged").set("auth", "challenge_proxy", "true");
    let add = |user: &str| {
        let file = with.write(&place).display().to_string();
        let arguments = ["-c", &file, "user", "add", user, "--password", "x", "--create"];
        let added = process::run(&place, "user", binary(), &arguments, PATIENCE);
        assert_eq!(added.code, Some(0), "{added:?}");
    };
    add("alice");
    let server = with.start(&place);
    let reads = |server: &Server| server.log().matches("users read from").count();
    assert_eq!(reads(&server), 1);
    for n in 0..6 {
        register_until(&place, &server, &format!("u{n}"), 200);
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(reads(&server), 1, "{}", server.log());
    for (number, user) in ["bob", "carol"].into_iter().enumerate() {
        add(user);
        until("the change is seen", || reads(&server) == 2 + number);
        register_until(&place, &server, "later", 200);
        assert!(place.path("strowger.db-wal").exists(), "it is in use");
    }
    assert_eq!(server.stat(&place, "strowger_users"), 3.0);
    server.signal("KILL");
    drop(server.finish(PATIENCE));
    let server = with.start(&place);
    assert_eq!(bound_users(&place), 7);
    let shown = server.show(&place, "u3");
    assert!(shown.stdout.contains("u3@"), "{shown:?}");
    let query = Agent::new(place.at_port(CALLEE, 0), server.address);
    let register = Request { contact: None, extra: Vec::new(), ..query.register(&server.address.to_string(), "u3", "", 0) };
    let answer = query.ask(&register);
    let contact = answer.all("contact").pop().expect("a contact");
    let left: u32 = parameter(&contact, "expires").and_then(|value| value.parse().ok()).expect("a time");
    assert!((500..=600).contains(&left), "{contact}");
}
