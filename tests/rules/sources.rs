//! Who is not heard, and why: guessed passwords, shares of users and addresses-of-record, and routes that answer nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use strowger::base::{Flow, Instant, Key, Question, Sources, Transport};
use strowger::stack::Element;
use strowger::stack::Settings;
use strowger::stack::auth::digest::Algorithm;
use strowger::stack::counters::{AuthOutcome, Drop, Limit};
use strowger::stack::route::{Action, Network};
use strowger::stack::settings::Mode;

use crate::auth::{ALICES, BOBS, Client, bench, challenge, register, said};
use crate::bench::*;
use crate::message::{Request, unique};
use crate::proxy::route;

/// Asks for passwords, allows ten wrong ones, and has two cores that know the same of sources.
fn guarded(change: impl FnOnce(&mut Settings)) -> (Bench, Arc<Sources>) {
    let mut b = bench(|settings| {
        settings.auth.challenge_register = true;
        settings.auth.challenge_proxy = true;
        settings.auth.guesses = 10;
        settings.cores = 2;
        settings.listeners = listeners();
        change(settings);
    });
    let sources = Arc::new(Sources::new(Key::new(8, 9), 0));
    for core in &mut b.cores {
        core.share_sources(sources.clone());
    }
    b.now = 1_000_000;
    (b, sources)
}

fn by(b: &mut Bench, core: usize, from: &str, request: Request) -> Sent {
    only(b.send_by(core, 0, from, request))
}

fn nonce(b: &mut Bench, from: &str) -> String {
    let answer = by(b, 0, from, register());
    assert_eq!(answer.status(), 401, "{answer}");
    challenge(&answer, "SHA-256")
}

/// A REGISTER for bob's address by who claims to be `user`, with a count of its own.
fn try_with(asked: &str, user: &'static str, password: &'static str) -> Request {
    let nc = unique() as u32;
    let client = Client { user, password, nc, ..BOBS };
    let line = client.answer(asked, "REGISTER", "");
    register().add(&format!("Authorization: {line}"))
}

/// What so many wrong passwords for a user are answered.
fn statuses(b: &mut Bench, from: &str, user: &'static str, count: usize) -> Vec<u16> {
    let asked = nonce(b, from);
    (0..count).map(|_| by(b, 0, from, try_with(&asked, user, "wrong")).status()).collect()
}

fn ten_and_no_more() -> Vec<u16> {
    [vec![401; 10], vec![403; 20]].concat()
}

#[test]
fn beyond_ten_wrong_passwords_a_minute_none_is_looked_at() {
    for user in ["bob", "nobody"] {
        let (mut b, sources) = guarded(|_| ());
        assert_eq!(statuses(&mut b, BOB, user, 30), ten_and_no_more(), "{user}");
        assert_eq!(b.limit_hits(Limit::Guesses), 20);
        assert_eq!(b.outcomes(AuthOutcome::TooMany), 20);
        assert_eq!(sources.banned(Instant::from_ms(b.now)), 0, "the conf says no ban");
    }
    let (mut b, _) = guarded(|_| ());
    statuses(&mut b, BOB, "bob", 10);
    let asked = nonce(&mut b, BOB);
    let right = |b: &mut Bench, core, from| {
        let asked = nonce(b, from);
        by(b, core, from, try_with(&asked, "bob", "b"))
    };
    let refused = right(&mut b, 0, BOB);
    assert_eq!((refused.status(), refused.reason()), (403, "Too Many Wrong Passwords"));
    assert_eq!(right(&mut b, 1, BOB).status(), 403, "another core knows it");
    assert_eq!(right(&mut b, 0, "10.0.1.2:7777").status(), 403, "another port");
    assert_eq!(right(&mut b, 0, "[::ffff:10.0.1.2]:5060").status(), 403);
    let whole = by(&mut b, 0, BOB, try_with(&asked, "bob@example.com", "wrong"));
    assert_eq!(whole.status(), 403, "the same user by another spelling");
    assert_eq!(right(&mut b, 0, CAROL).status(), 200, "another source");
    let other = by(&mut b, 0, BOB, try_with(&asked, "alice", "wrong"));
    assert_eq!(other.status(), 401, "another user");
    b.now += 60_000;
    assert_eq!(right(&mut b, 0, BOB).status(), 200, "the minute is over");
}

/// What is answered says nothing of who there is: neither where a user has no hash of that kind, nor with a nonce that is too old.
#[test]
fn whoever_guesses_learns_no_names() {
    let all = |user: &'static str, is_old: bool| {
        let (mut b, _) = guarded(|settings| {
            settings.auth.algorithms = vec![Algorithm::Sha512_256, Algorithm::Sha256];
        });
        let asked = nonce(&mut b, BOB).replace("SHA-256", "SHA-512-256");
        let asked = match is_old {
            true => nonce(&mut b, BOB),
            false => asked,
        };
        b.now += if is_old { 300_001 } else { 0 };
        let answer = |_| {
            let answer = by(&mut b, 0, BOB, try_with(&asked, user, "wrong"));
            let lines = answer.all("WWW-Authenticate");
            let stale = lines.iter().any(|line| line.contains("stale=true"));
            (answer.status(), answer.reason().to_string(), stale)
        };
        (0..30).map(answer).collect::<Vec<_>>()
    };
    assert_eq!(all("bob", false), all("nobody", false));
    assert_eq!(all("bob", false)[29].0, 403);
    assert_eq!(all("bob", true), all("nobody", true));
    // It proves nothing by an old nonce, and is challenged on.
    assert_eq!((all("bob", true)[9].2, all("bob", true)[29].2), (false, true));
}

#[test]
fn neighbours_of_an_ipv6_network_are_one_source() {
    let (mut b, _) = guarded(|_| ());
    let all = statuses(&mut b, "[2001:db8::1]:5060", "bob", 30);
    assert_eq!(all, ten_and_no_more());
    assert_eq!(statuses(&mut b, "[2001:db8::2:3]:5060", "bob", 1), [403]);
    assert_eq!(statuses(&mut b, "[2001:db8:0:1::1]:5060", "bob", 1), [401]);
}

#[test]
fn a_call_counts_as_a_register_does_and_a_stream_as_a_datagram() {
    let (mut b, _) = guarded(|_| ());
    let call = |b: &mut Bench, credentials: Option<String>| {
        let invite = match credentials {
            Some(line) => Request::invite().add(&format!("Proxy-Authorization: {line}")),
            None => Request::invite(),
        };
        b.send_for_one(ALICE, invite)
    };
    let asked = challenge(&call(&mut b, None), "SHA-256");
    let all: Vec<u16> = (1..=30)
        .map(|nc| {
            let wrong = Client { nc, password: "wrong", ..ALICES };
            call(&mut b, Some(wrong.answer(&asked, "INVITE", ""))).status()
        })
        .collect();
    assert_eq!(all, [vec![407; 10], vec![403; 20]].concat());
    assert_eq!(statuses(&mut b, ALICE, "alice", 1), [403], "and by REGISTER");

    let flow = b.open(Transport::Tcp, 0, 3, "10.0.1.9:40000");
    // No nonce need come from there: whoever has a connection is there.
    let asked = nonce(&mut b, CAROL);
    let all: Vec<u16> =
        (0..30).map(|_| only(b.send_on(0, flow, try_with(&asked, "bob", "wrong").by(Transport::Tcp))).status()).collect();
    assert_eq!(all, ten_and_no_more());
    let other = b.open(Transport::Tcp, 0, 4, "10.0.1.9:40001");
    let refused = only(b.send_on(0, other, try_with(&asked, "bob", "b").by(Transport::Tcp)));
    assert_eq!(refused.status(), 403, "another connection from there");
}

#[test]
fn passwords_in_anothers_name_shut_nobody_out() {
    let (mut b, sources) = guarded(|_| ());
    sources.set_ban_ms(600_000);
    // Mallory has the challenge, and forges bob's address.
    let stolen = nonce(&mut b, DAVE);
    for _ in 0..200 {
        let answer = by(&mut b, 0, BOB, try_with(&stolen, "bob", "wrong"));
        assert_eq!(answer.status(), 401);
    }
    assert_eq!(b.outcomes(AuthOutcome::WrongResponse), 10);
    assert_eq!(b.outcomes(AuthOutcome::TooMany), 190);
    assert_eq!(sources.banned(Instant::from_ms(b.now)), 0);
    // Even the right one is not looked at, and the challenge says that another nonce may help.
    let answer = by(&mut b, 0, BOB, try_with(&stolen, "bob", "b"));
    let asked = challenge(&answer, "SHA-256");
    assert_eq!(said(&asked, "stale"), Some("true"));
    assert_eq!(by(&mut b, 0, BOB, try_with(&asked, "bob", "b")).status(), 200);
}

#[test]
fn many_sources_guess_at_one_user_who_calls_on() {
    let (mut b, _) = guarded(|_| ());
    let home = nonce(&mut b, BOB);
    let at_home = |b: &mut Bench, port: u16| {
        let from = format!("10.0.1.2:{port}");
        by(b, 0, &from, try_with(&home, "bob", "b")).status()
    };
    assert_eq!(at_home(&mut b, 5060), 200);
    let mut looked_at = 0;
    for number in 0..300 {
        let from = format!("10.7.{}.{}:5060", number / 200, 1 + number % 200);
        let asked = nonce(&mut b, &from);
        let answer = by(&mut b, number % 2, &from, try_with(&asked, "bob", "wrong"));
        looked_at += usize::from(answer.status() == 401);
    }
    assert_eq!(looked_at, 100);
    assert_eq!(statuses(&mut b, DAVE, "bob", 1), [403]);
    assert_eq!((at_home(&mut b, 5060), at_home(&mut b, 6060)), (200, 200));
    assert_eq!(statuses(&mut b, DAVE, "alice", 1), [401], "others do not notice");
}

#[test]
fn one_source_guesses_at_many_users() {
    let (mut b, sources) = guarded(|_| ());
    sources.set_ban_ms(600_000);
    let asked = nonce(&mut b, DAVE);
    let mut looked_at = 0;
    for number in 0..300 {
        let user = format!("user{number}").leak();
        let answer = by(&mut b, 0, DAVE, try_with(&asked, user, "wrong"));
        looked_at += usize::from(answer.status() == 401);
    }
    assert_eq!(looked_at, 100);
    // It is there, so it is banned for good reason, and nobody else is.
    let now = Instant::from_ms(b.now);
    let is_banned = |from: &str| sources.is_banned(now, from.parse::<SocketAddr>().unwrap());
    assert!(is_banned(DAVE) && is_banned("10.0.1.4:9") && !is_banned(BOB));
    assert_eq!(sources.banned(now), 1);
}

#[test]
fn who_guesses_is_banned_where_the_conf_says_so() {
    let (mut b, sources) = guarded(|_| ());
    sources.set_ban_ms(600_000);
    let peer: SocketAddr = DAVE.parse().unwrap();
    statuses(&mut b, DAVE, "bob", 9);
    assert!(!sources.is_banned(Instant::from_ms(b.now), peer));
    statuses(&mut b, DAVE, "bob", 1);
    assert!(sources.is_banned(Instant::from_ms(b.now), peer));
    assert!(!sources.is_banned(Instant::from_ms(b.now + 600_000), peer));
}

#[test]
fn trusted_sources_and_a_conf_without_a_bound_let_all_be_tried() {
    let (mut b, sources) = guarded(|_| ());
    sources.set_ban_ms(600_000);
    sources.set_trusted(vec![Network { address: "10.0.1.2".parse().unwrap(), prefix: 32 }]);
    assert_eq!(statuses(&mut b, BOB, "bob", 30), [401; 30]);
    assert_eq!(statuses(&mut b, CAROL, "bob", 30), ten_and_no_more());
    // Forged in a trusted name.
    let stolen = nonce(&mut b, DAVE);
    for _ in 0..30 {
        by(&mut b, 0, BOB, try_with(&stolen, "bob", "wrong"));
    }
    assert_eq!(b.outcomes(AuthOutcome::WrongResponse), 30 + 10 + 10);
    let (mut b, _) = guarded(|settings| settings.auth.guesses = 0);
    assert_eq!(statuses(&mut b, BOB, "bob", 300), [401; 300]);
}

// ---- shares of users and addresses -------------------------------------------------------------------------------------------------

#[test]
fn a_user_has_so_many_requests_a_second_from_wherever() {
    let (mut b, _) = guarded(|settings| settings.limits.requests_per_user = 5);
    let (home, away) = (nonce(&mut b, BOB), nonce(&mut b, CAROL));
    let mut all = Vec::new();
    for _ in 0..5 {
        all.push(by(&mut b, 0, BOB, try_with(&home, "bob", "b")));
        all.push(by(&mut b, 1, CAROL, try_with(&away, "bob@example.com", "wrong")));
        all.push(by(&mut b, 1, CAROL, try_with(&away, "bob", "b")));
    }
    let count = |status| all.iter().filter(|answer| answer.status() == status).count();
    assert_eq!((count(200), count(401), count(503)), (5, 5, 5));
    let refused = all.iter().find(|answer| answer.status() == 503).unwrap();
    assert_eq!(refused.header("Retry-After"), Some("1"));
    assert_eq!(b.limit_hits(Limit::PerUser), 5);
    b.now += 1000;
    assert_eq!(by(&mut b, 0, BOB, try_with(&home, "bob", "b")).status(), 200);
}

#[test]
fn an_address_of_record_is_called_and_registered_so_often_a_second() {
    for mode in [Mode::Stateful, Mode::Stateless] {
        let mut b = Bench::with(|settings| {
            settings.limits.requests_per_aor = 5;
            settings.proxy.mode = mode;
        });
        b.register("bob", "<sip:bob@10.0.1.2:5060>");
        b.now += 5000;
        let mut refused = 0;
        for number in 0..20 {
            let user = ["bob", "b%6Fb"][number % 2];
            let request = Request::new("MESSAGE", &format!("sip:{user}@example.com"));
            let sent = b.send(&format!("10.9.0.{}:5060", 1 + number), request);
            refused += usize::from(sent.iter().any(|sent| sent.status() == 480 && sent.header("Retry-After") == Some("1")));
        }
        assert_eq!(refused, 15, "{mode:?}");
        assert_eq!(b.limit_hits(Limit::PerAor), 15);
        assert_eq!(by(&mut b, 0, BOB, register()).status(), 480, "registered alike");
        // What is in a dialog goes on, and others do not notice.
        let within = Request::new("BYE", "sip:bob@10.0.1.2:5060").to("<sip:bob@example.com>;tag=b");
        let sent = b.send(ALICE, within);
        assert!(sent.iter().all(|sent| sent.to != ALICE || sent.status() != 480));
        let other = b.send_for_one(ALICE, Request::new("MESSAGE", "sip:eve@example.com"));
        assert_eq!(other.status(), 404);
        b.now += 1000;
        assert_eq!(by(&mut b, 0, BOB, register()).status(), 200);
    }
}

// ---- routes that answer nothing ----------------------------------------------------------------------------------------------------

/// Drops what says that it is a scanner, and serves the rest.
fn dropping(mode: Mode) -> Bench {
    let mut b = bench(|settings| {
        settings.proxy.mode = mode;
        settings.auth.challenge_proxy = true;
        settings.auth.challenge_register = true;
        let mut scanners = route(Action::Drop);
        scanners.user_agent = vec![b"friendly-scanner".to_vec(), b"sipvicious".to_vec()];
        settings.routes = vec![scanners].into();
    });
    b.now = 5000;
    b
}

#[test]
fn scanners_are_answered_nothing_whatever_they_send() {
    for mode in [Mode::Stateful, Mode::Stateless] {
        let mut b = dropping(mode);
        let mut sent = 0;
        for agent in ["friendly-scanner", "Friendly-SCANNER/1.8", "(sipvicious)"] {
            let line = format!("User-Agent: {agent}");
            let wrong_via = Request::new("OPTIONS", "sip:example.com").set("CSeq", "x OPTIONS");
            let within = Request::new("BYE", "sip:bob@example.com").to("<sip:bob@example.com>;tag=x");
            let route = Request::new("INVITE", "sip:bob@example.net").add("Route: <sip:10.9.9.9;lr>");
            let invite = Request::invite();
            for request in [
                register(),
                Request::new("OPTIONS", "sip:example.com"),
                Request::new("OPTIONS", "sip:100@example.com"),
                Request::new("OPTIONS", "x:y"),
                Request::new("SUBSCRIBE", "sip:bob@example.org"),
                Request::invite().set("Max-Forwards", "0"),
                Request::invite().add("Proxy-Require: x"),
                invite.cancel(),
                invite,
                wrong_via,
                within,
                route,
            ] {
                sent += 1;
                let left = b.send(DAVE, request.add(&line));
                assert!(left.is_empty(), "{mode:?}: {}", show(&left));
                assert_eq!(b.dropped(Drop::Route), sent);
            }
            let ack = Request::new("ACK", "sip:bob@example.com").add(&line);
            assert!(b.send(DAVE, ack).is_empty());
            sent = b.dropped(Drop::Route);
            assert_eq!((b.server_transactions(), b.client_transactions()), (0, 0));
        }
        for agent in ["friendly", "a phone", ""] {
            let asked = b.send_for_one(DAVE, register().add(&format!("User-Agent: {agent}")));
            assert_eq!(asked.status(), 401, "{agent}");
        }
        assert_eq!(b.send_for_one(DAVE, register()).status(), 401);
        b.assert_quiet();
    }
}

#[test]
fn the_first_route_that_matches_decides_and_a_dialog_goes_on() {
    let network = |address: &str| Network { address: address.parse().unwrap(), prefix: 32 };
    let mut b = Bench::with(|settings| {
        let mut friends = route(Action::Location);
        friends.from_source = vec![network("10.0.1.1"), network("10.0.1.2")];
        let all = route(Action::Drop);
        settings.routes = vec![friends, all].into();
    });
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let sent = b.send(ALICE, Request::invite());
    let called = the(&sent, BOB);
    let route = called.header("Record-Route").unwrap().to_string();
    let ok = called.answer(200).tag("b").add("Contact: <sip:bob@10.0.1.2:5060>");
    let ok = only(b.send(BOB, ok));
    let to = ok.header("To").unwrap().to_string();
    // The caller has another address now: what goes by the dialog's own route is past the table of routes.
    let bye = Request::new("BYE", "sip:bob@10.0.1.2:5060")
        .set("Call-ID", ok.header("Call-ID").unwrap())
        .to(&to)
        .add(&format!("Route: {route}"));
    let sent = b.send(CAROL, bye);
    assert_eq!(the(&sent, BOB).method(), "BYE");
    assert_eq!(b.dropped(Drop::Route), 0);
    assert!(b.send(CAROL, Request::invite()).is_empty());
    assert_eq!(b.dropped(Drop::Route), 1);
}

#[test]
fn a_nonce_speaks_for_the_address_it_was_sent_to_and_for_no_other() {
    let (mut b, _) = guarded(|_| ());
    let asked = nonce(&mut b, BOB);
    let bears = |b: &mut Bench, core: usize, from: &str, request: &Request, after_ms: u64| {
        let flow = Flow::datagram(0, from.parse().unwrap());
        let at = Instant::from_ms(b.now + after_ms);
        b.cores[core].bears(at, flow, &request.bytes(), Question::BearsNonce)
    };
    let request = try_with(&asked, "bob", "b");
    assert!(bears(&mut b, 0, BOB, &request, 0));
    assert!(bears(&mut b, 1, "10.0.1.2:9999", &request, 299_000));
    assert!(!bears(&mut b, 0, BOB, &request, 301_000), "it is too old");
    assert!(!bears(&mut b, 0, ALICE, &request, 0));
    assert!(!bears(&mut b, 0, BOB, &register(), 0));
    // For a proxy's challenge the same; of several lines any.
    let line = BOBS.answer(&asked, "INVITE", "");
    let foreign = line.replace("nonce=\"", "nonce=\"0");
    let invite = |lines: &[&str]| {
        let add = |request: Request, line: &&str| request.add(&format!("Proxy-Authorization: {line}"));
        lines.iter().fold(Request::invite(), add)
    };
    assert!(bears(&mut b, 0, BOB, &invite(&[&foreign, &line]), 0));
    assert!(!bears(&mut b, 0, BOB, &invite(&[&foreign]), 0));
    assert!(!bears(&mut b, 0, BOB, &invite(&["Digest", "Basic x", ""]), 0));
}
