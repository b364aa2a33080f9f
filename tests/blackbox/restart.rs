//! `strowger restart`: another process serves, and nobody notices. The number of restarts under calls: `STROWGER_RESTARTS`.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::agent::{Agent, PATIENCE, Request};
use crate::message::Message;
use crate::openssl_tool::SClient;
use crate::pki::{Authority, Kind};
use crate::place::{CALLEE, CALLER, Place, SECOND_CALLEE, SERVER, wait_for};
use crate::redis::Redis;
use crate::server::{Conf, Server};
use crate::sipp::{Scenario, Sipp};
use crate::{UAC, UAS};

const NAME: &str = "sip.example.test";

/// Short timers: a finished transaction is forgotten soon.
fn conf(place: &Place) -> Conf {
    Conf::new(place).set("timers", "t1", "\"100ms\"").set("timers", "linger", "\"3s\"").set("server", "cores", "[0, 1]")
}

fn until(what: &str, mut test: impl FnMut() -> bool) {
    assert!(wait_for(Duration::from_secs(30), || test().then_some(())).is_some(), "never: {what}");
}

fn has_predecessor(place: &Place, server: &Server) -> bool {
    server.stat(place, "strowger_predecessor") > 0.0
}

fn until_alone(place: &Place, server: &Server) {
    until("the predecessor ends", || !has_predecessor(place, server));
}

/// Datagrams to this address that the kernel has thrown away.
fn kernel_drops(server: &Server) -> u64 {
    let std::net::SocketAddr::V4(address) = server.address else {
        panic!("IPv4");
    };
    let wanted = format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port());
    let table = fs::read_to_string("/proc/net/udp").expect("the kernel's table");
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let own = lines.filter(|columns| columns.get(1) == Some(&wanted.as_str()));
    own.filter_map(|columns| columns.last()?.parse::<u64>().ok()).sum()
}

fn callee(place: &Place) -> Sipp<'_> {
    let contact = place.at(CALLEE).to_string();
    let keys = ["-key", "contact_user", "bob", "-key", "contact", &contact];
    Sipp::new(place, "uas", place.at(CALLEE), Scenario::Text(UAS)).with(&keys)
}

#[test]
fn calls_go_on_over_restarts_and_no_datagram_is_lost() {
    let place = Place::new("restart-calls");
    let mut server = conf(&place).start(&place);
    server.bind(&place, "bob", place.at(CALLEE));
    let restarts: u32 = std::env::var("STROWGER_RESTARTS").ok().and_then(|number| number.parse().ok()).unwrap_or(3);
    let rate = 200;
    // A predecessor lives some 7 s with these timers.
    let calls = rate * (8 * restarts + 4);
    let seconds = format!("{}s", 8 * restarts + 60);
    let long = ["-timeout", &seconds, "-max_retrans", "3"];
    let callee = callee(&place).calls(calls).with(&long).answer();
    let rate = rate.to_string();
    let caller = Sipp::new(&place, "uac", place.at(CALLER), Scenario::Text(UAC))
        .calls(calls)
        .with(&long)
        .with(&["-r", &rate, "-d", "1000"])
        .call("bob", server.address, server.address);
    for _ in 0..restarts {
        thread::sleep(Duration::from_secs(1));
        server.restart(&place, &[]);
        until_alone(&place, &server);
    }
    let within = Duration::from_secs(u64::from(8 * restarts) + 80);
    let reports = [caller.succeed_within(calls, within), callee.succeed_within(calls, within)];
    for report in reports {
        assert_eq!(report.retransmissions, 0, "what is sent again was lost");
    }
    assert_eq!(kernel_drops(&server), 0);
    assert_eq!(server.stat(&place, "strowger_restarts_total"), f64::from(restarts));
}

/// The REGISTER of a phone that is reached by its connection.
fn register_request(phone: &Agent, server: &Server, user: &str) -> Request {
    let contact = format!("<{}>;+sip.instance=\"<urn:uuid:{user}>\";reg-id=1", phone.uri());
    phone.register(&server.address.to_string(), user, &contact, 600)
}

/// Calls the phone, which answers by its connection, and is the one that ends the call.
fn call(place: &Place, server: &Server, user: &str, phone: &Agent) {
    let caller = Agent::new(place.at_port(CALLER, 0), server.address);
    let invite = caller.request("INVITE", &server.uri(user));
    caller.send(&invite);
    let came = phone.expect("an INVITE", |message| message.is("INVITE"));
    phone.accept(&came);
    let answer = caller.final_for(&invite);
    assert_eq!(answer.status(), Some(200), "{answer:?}");
    caller.send(&caller.in_dialog("ACK", &invite, &answer));
    phone.expect("its ACK", |message| message.is("ACK") && message.call_id() == invite.call_id);
    // The BYE goes back by the route that the INVITE has come with.
    let mut bye = phone.request("BYE", &came.contacts()[0]);
    bye.call_id.clone_from(&invite.call_id);
    bye.to = came.header("from").unwrap_or_default().to_owned();
    bye.from = format!("{};tag={}", came.header("to").unwrap_or_default(), phone.tag());
    bye.extra = came.all("record-route").iter().map(|route| format!("Route: {route}")).collect();
    phone.send(&bye);
    let came = caller.expect("a BYE", |message| message.is("BYE") && message.call_id() == invite.call_id);
    caller.respond(&came, 200, &[]);
    let answer = phone.final_for(&bye);
    assert_eq!(answer.status(), Some(200), "{answer:?}");
}

#[test]
fn a_phone_keeps_its_connection_and_is_called_by_it_after_a_restart() {
    let place = Place::new("restart-phone");
    let authority = Authority::new(&place, "ca");
    let certificate = authority.issue(&place, "server", Kind::Ecdsa, &[NAME]);
    let mut server = conf(&place).stream("tcp", place.at(SERVER)).tls(&place, &[&certificate]).start(&place);
    let phones = [
        ("secure", Agent::tls(place.ip(CALLEE), server.secure(), &authority, NAME, None)),
        ("plain", Agent::tcp(place.ip(SECOND_CALLEE), server.address)),
    ];
    for (user, phone) in &phones {
        let answer = phone.ask(&register_request(phone, &server, user));
        assert_eq!(answer.status(), Some(200), "{answer:?}");
        call(&place, &server, user, phone);
    }
    let before = server.serving();
    server.restart(&place, &[]);
    assert_ne!(server.serving(), before);
    for (user, phone) in &phones {
        call(&place, &server, user, phone);
        let answer = phone.ask(&register_request(phone, &server, user));
        assert_eq!(answer.status(), Some(200), "{answer:?}");
        call(&place, &server, user, phone);
        assert_eq!(server.show(&place, user).stdout.lines().count(), 2, "one binding");
    }
    // Both processes' connections are shown, and whose they are.
    let shown = server.command(&place, &["connections"]).stdout;
    assert_eq!(shown.lines().filter(|line| line.ends_with(&format!(" {before}"))).count(), 2, "{shown}");
    until("the numbers", || server.stat(&place, "strowger_predecessor_connections") == 2.0);

    // While the old process lives there is no other restart, but its time can be shortened.
    let refused = server.try_restart(&place, &[]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains(&format!("process {before} of the restart before still has")), "{refused:?}");
    assert!(refused.stderr.contains("--deadline"), "{refused:?}");
    let refused = server.try_restart(&place, &["--deadline", "1"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    until_alone(&place, &server);
    server.expect_log(&["which is the deadline", "2 connections are cut off"]);
    for (_, phone) in &phones {
        assert!(phone.end(PATIENCE).is_some(), "it is cut off then");
    }
    // And then it can be restarted again.
    server.restart(&place, &[]);
    server.assert_alive(&place, CALLER);
}

/// Transactions that were begun by the old process end in the new one, or by it.
#[test]
fn what_has_begun_before_a_restart_ends_after_it() {
    let place = Place::new("restart-within");
    let mut server = conf(&place).start(&place);
    let callee = Agent::new(place.at(CALLEE), server.address);
    server.bind(&place, "bob", callee.address);
    let caller = Agent::new(place.at(CALLER), server.address);
    let (answered, cancelled) = (caller.request("INVITE", &server.uri("bob")), caller.request("INVITE", &server.uri("bob")));
    let ring = |invite: &Request| {
        caller.send(invite);
        let came = callee.expect("an INVITE", |message| message.is("INVITE") && message.call_id() == invite.call_id);
        callee.respond(&came, 180, &[]);
        caller.expect("180", |message| message.answers("INVITE", 180) && message.call_id() == invite.call_id);
        came
    };
    let rings = [ring(&answered), ring(&cancelled)];
    server.restart(&place, &[]);
    // A repetition is none for the callee.
    caller.send(&answered);
    assert!(callee.receive(Duration::from_millis(300)).is_none(), "the callee is asked again");
    callee.accept(&rings[0]);
    let answer = caller.final_for(&answered);
    assert_eq!(answer.status(), Some(200), "{answer:?}");
    caller.send(&caller.in_dialog("ACK", &answered, &answer));
    callee.expect("the ACK", |message| message.is("ACK"));
    caller.send(&cancelled.cancel());
    let cancel = callee.expect("the CANCEL", |message| message.is("CANCEL"));
    callee.respond(&cancel, 200, &[]);
    callee.respond(&rings[1], 487, &[]);
    let answer = caller.final_for(&cancelled);
    assert_eq!(answer.status(), Some(487), "{answer:?}");
    caller.acknowledge(&cancelled, &answer);
    callee.expect("the ACK of the 487", |message| message.is("ACK") && message.call_id() == cancelled.call_id);
    let bye = caller.in_dialog("BYE", &answered, &answer_of(&caller, &answered));
    caller.send(&bye);
    let came = callee.expect("the BYE", |message| message.is("BYE"));
    callee.respond(&came, 200, &[]);
    assert_eq!(caller.final_for(&bye).status(), Some(200));
    until_alone(&place, &server);
}

fn answer_of(caller: &Agent, invite: &Request) -> Message {
    let log = caller.log();
    let found = log.into_iter().find(|message| message.answers("INVITE", 200) && message.call_id() == invite.call_id);
    found.expect("the answer")
}

/// Sets a flag when it is dropped.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn connections_are_accepted_all_the_time_and_sessions_are_resumed() {
    let place = Place::new("restart-connections");
    let authority = Authority::new(&place, "ca");
    let certificate = authority.issue(&place, "server", Kind::Ecdsa, &[NAME]);
    let mut server = conf(&place).tls(&place, &[&certificate]).start(&place);
    let session = place.path("session").display().to_string();
    let mut first = SClient::connect(&place, server.secure(), &["-sess_out", &session]);
    first.ask();
    first.leave();
    let (stop, opened) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            let (stop, opened, authority, server, ip) = (&stop, &opened, &authority, server.secure(), place.ip(CALLER));
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // Whatever is refused, closed or not answered fails the test here.
                    let client = Agent::tls(ip, server, authority, NAME, None);
                    let answer = client.ask(&client.request("OPTIONS", &format!("sip:{server}")));
                    assert_eq!(answer.status(), Some(200), "{answer:?}");
                    opened.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // However this ends, the clients must.
        let _stop = Stop(&stop);
        let more = || {
            let before = opened.load(Ordering::Relaxed);
            until("connections", || opened.load(Ordering::Relaxed) > before + 20);
        };
        for _ in 0..2 {
            more();
            server.restart(&place, &["--deadline", "4"]);
            until_alone(&place, &server);
        }
        more();
    });
    let mut again = SClient::connect(&place, server.secure(), &["-sess_in", &session]);
    again.ask();
    let said = again.leave();
    assert!(said.contains("Reused, TLS"), "{said}");
}

#[test]
fn bindings_that_were_answered_for_are_there_after_restarts_and_a_crash() {
    for durability in [None, Some("batched"), Some("acknowledged")] {
        let place = Place::new("restart-bindings");
        let with = match durability {
            None => conf(&place).set("registrar", "database", "\"\""),
            Some(durability) => conf(&place).set("registrar", "durability", &format!("{durability:?}")),
        };
        let mut server = with.start(&place);
        let domain = server.address.to_string();
        let stop = AtomicBool::new(false);
        let registered = thread::scope(|scope| {
            let registering = scope.spawn(|| {
                let phone = Agent::new(place.at(CALLEE), server_address(&place));
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    let user = format!("u{number}");
                    let answer = phone.ask(&phone.register(&domain, &user, &format!("<sip:{user}@192.0.2.1>"), 600));
                    assert_eq!(answer.status(), Some(200), "{durability:?} {user}: {answer:?}");
                    phone.forget();
                    number += 1;
                }
                number
            });
            let stop = Stop(&stop);
            for _ in 0..2 {
                thread::sleep(Duration::from_millis(300));
                server.restart(&place, &["--deadline", "1"]);
                until_alone(&place, &server);
            }
            thread::sleep(Duration::from_millis(300));
            drop(stop);
            registering.join().expect("all are answered 200")
        });
        let shown = server.command(&place, &["ul", "show"]).stdout;
        assert_eq!(shown.lines().count(), registered + 1, "{durability:?}");
        // One is removed, and stays so: the new process knows the rows of the old one.
        let aor = format!("u0@{}", server.address.ip());
        if durability.is_some() {
            assert_eq!(server.command(&place, &["ul", "rm", &aor]).code, Some(0));
            if durability == Some("batched") {
                until("it is stored", || server.stat(&place, "strowger_bindings_unstored") == 0.0);
            }
            thread::sleep(Duration::from_millis(1200));
            server.kill();
            let server = with.start(&place);
            let shown = server.command(&place, &["ul", "show"]).stdout;
            assert_eq!(shown.lines().count(), registered, "{durability:?}");
        }
    }
}

fn server_address(place: &Place) -> std::net::SocketAddr {
    place.at(SERVER)
}

#[test]
fn a_process_that_cannot_serve_leaves_the_old_one_serving_and_says_why() {
    let place = Place::new("restart-refused");
    let good = conf(&place);
    let mut server = good.start(&place);
    let process = server.serving();
    server.bind(&place, "bob", place.at(CALLEE));
    let taken = std::net::UdpSocket::bind(place.at(SECOND_CALLEE)).expect("an address");
    let key = fs::read_to_string(place.path("strowger.key")).expect("the key");
    let other_key = format!("{}\n", "7".repeat(64));
    let attempts: [(&str, Conf, Option<&str>, &[&str]); 6] = [
        ("a conf with faults", good.clone().set("limits", "no_such_key", "1"), None, &["strowger.toml:", "no_such_key"]),
        ("other cores", good.clone().set("server", "cores", "[0]"), None, &["[server] cores: 1 of them", "has 2"]),
        ("a listener that is taken", good.clone().listen(place.at(SECOND_CALLEE)), None, &["cannot listen", "in use"]),
        ("a control socket that is none", good.clone().set("control", "socket", "\"/dev/null\""), None, &["control socket"]),
        ("another key", good.clone(), Some(&other_key), &["key file", "has changed"]),
        (
            "a file of users that is not there",
            good.clone().set("auth", "users", "\"no/users.db\"").set("auth", "challenge_register", "true"),
            None,
            &["users"],
        ),
    ];
    for (what, conf, key_file, words) in attempts {
        conf.write(&place);
        if let Some(text) = key_file {
            fs::write(place.path("strowger.key"), text).expect("another key");
        }
        let log = server.log().len();
        let outcome = server.try_restart(&place, &[]);
        fs::write(place.path("strowger.key"), &key).expect("the key");
        assert_eq!(outcome.code, Some(1), "{what}: {outcome:?}");
        for word in words {
            assert!(outcome.stderr.contains(word), "{what}: {outcome:?}");
        }
        server.expect_log_after(log, &["restart refused", &format!("process {process} goes on serving")]);
        assert!(!has_predecessor(&place, &server), "{what}");
        server.assert_alive(&place, CALLER);
        assert_eq!(server.show(&place, "bob").stdout.lines().count(), 2, "{what}");
    }
    drop(taken);
    assert_eq!(server.stat(&place, "strowger_restarts_failed_total"), 6.0);

    // Killed, and stopped, at whatever it is doing.
    good.write(&place);
    for signal in ["KILL", "STOP"] {
        let outcome = server.restart_disturbed(&place, process, signal);
        assert_eq!(outcome.code, Some(1), "{signal}: {outcome:?}");
        server.assert_alive(&place, CALLER);
        assert_eq!(server.show(&place, "bob").stdout.lines().count(), 2, "{signal}");
    }
    // None of that was of consequence.
    let callee = callee(&place).calls(10).answer();
    Sipp::new(&place, "uac", place.at(CALLER), Scenario::Text(UAC))
        .calls(10)
        .call("bob", server.address, server.address)
        .succeed(10);
    callee.succeed(10);
    server.restart(&place, &[]);
    server.assert_alive(&place, CALLER);
}

#[test]
fn told_to_stop_both_processes_end() {
    let place = Place::new("restart-stop");
    let mut server = conf(&place).stream("tcp", place.at(SERVER)).set("server", "drain_deadline", "\"5s\"").start(&place);
    let phone = Agent::tcp(place.ip(CALLEE), server.address);
    assert_eq!(phone.ask(&register_request(&phone, &server, "bob")).status(), Some(200));
    let before = server.serving();
    server.restart(&place, &[]);
    let after = server.serving();
    assert!(has_predecessor(&place, &server));
    let began = Instant::now();
    server.signal_serving("TERM");
    until("both end", || [before, after].iter().all(|process| !Path::new(&format!("/proc/{process}/fd/0")).exists()));
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    assert!(phone.end(PATIENCE).is_some());
    assert!(!place.path("control.sock").exists(), "the control socket is left");
}

/// If the new process is killed, nobody serves; the old one says so and ends.
#[test]
fn a_predecessor_that_is_left_alone_ends() {
    let place = Place::new("restart-alone");
    let mut server = conf(&place).stream("tcp", place.at(SERVER)).set("server", "drain_deadline", "\"1s\"").start(&place);
    let phone = Agent::tcp(place.ip(CALLEE), server.address);
    assert_eq!(phone.ask(&register_request(&phone, &server, "bob")).status(), Some(200));
    server.restart(&place, &[]);
    server.signal_serving("KILL");
    server.expect_log(&["nobody serves", "this one ends as well"]);
    assert!(phone.end(PATIENCE).is_some());
    let outcome = server.finish(Duration::from_secs(10));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
}

/// A server that shares its table leaves it and joins it again: what changes at that moment is known to the others all the same.
#[test]
fn a_shared_table_stays_shared_over_restarts() {
    const OTHER: u8 = 5;
    let place = Place::new("restart-shared");
    let redis = Redis::start(&place, place.at_port(SECOND_CALLEE, 6379));
    let shared = redis.url();
    let with = conf(&place).set("location", "shared", &shared).set("registrar", "durability", "\"acknowledged\"");
    let mut one = with.clone().set("location", "node", "\"one\"").start(&place);
    let other = with.beside(&place, "other", OTHER).set("location", "node", "\"other\"").start(&place);
    let add = |server: &Server, user: &str| {
        let outcome = server.command(&place, &["ul", "add", &format!("{user}@example.test"), "sip:u@192.0.2.1"]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
    };
    let knows = |server: &Server, users: &[&str]| {
        let shown = server.command(&place, &["ul", "show"]).stdout;
        shown.lines().count() == users.len() + 1 && users.iter().all(|user| shown.contains(&format!("sip:{user}@example.test")))
    };
    add(&one, "a");
    add(&one, "b");
    until("the other knows", || knows(&other, &["a", "b"]));
    one.restart(&place, &["--deadline", "2"]);
    // While the new process has not joined yet.
    assert_eq!(one.command(&place, &["ul", "rm", "a@example.test"]).code, Some(0));
    add(&one, "c");
    add(&other, "d");
    for server in [&one, &other] {
        until("both know", || knows(server, &["b", "c", "d"]));
    }
    until_alone(&place, &one);
    one.restart(&place, &["--deadline", "2"]);
    for server in [&one, &other] {
        until("both know", || knows(server, &["b", "c", "d"]));
    }
    until("it shares again", || one.stat(&place, "strowger_shared_up") == 1.0);
}
