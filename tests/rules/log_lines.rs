//! What the log and whoever follows calls are told: each line about a message bears its Call-ID and the word of its subject, and no reason is
//! kept silent.

use log::kv::Key;
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::cell::RefCell;
use std::sync::Once;
use strowger::base::{NoteKind, Transport};
use strowger::stack::route::{Action, NextHop, Route};

use crate::auth;
use crate::bench::*;
use crate::failover::hop;
use crate::message::Request;
use crate::proxy::route;

const GATE: &str = "10.0.5.1:5080";
const SPARE: &str = "10.0.5.2:5080";

/// A line of the log.
#[derive(Clone, Debug)]
struct Line {
    level: Level,
    target: String,
    call_id: Option<String>,
    text: String,
}

thread_local!(static LINES: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) });

/// Keeps the lines of each thread apart: a test is one.
struct Kept;

impl Log for Kept {
    fn enabled(&self, _: &Metadata) -> bool {
        true
    }

    fn log(&self, record: &Record) {
        let line = Line {
            level: record.level(),
            target: record.target().to_owned(),
            call_id: record.key_values().get(Key::from_str("call_id")).map(|id| id.to_string()),
            text: record.args().to_string(),
        };
        LINES.with_borrow_mut(|lines| lines.push(line));
    }

    fn flush(&self) {}
}

/// The lines at info and above since the last call.
fn lines() -> Vec<Line> {
    static BEGIN: Once = Once::new();
    BEGIN.call_once(|| {
        log::set_logger(&Kept).unwrap();
        log::set_max_level(LevelFilter::Debug);
    });
    let mut lines = LINES.with_borrow_mut(std::mem::take);
    lines.retain(|line| line.level <= Level::Info);
    lines
}

/// The texts of the lines at info and above since the last call.
pub fn texts() -> Vec<String> {
    lines().into_iter().map(|line| line.text).collect()
}

/// The one line since the last call: subject, Call-ID and text.
#[track_caller]
fn line() -> (String, String, String) {
    let lines = lines();
    let [line] = &lines[..] else {
        panic!("{lines:#?}");
    };
    let call_id = line.call_id.clone().expect("a Call-ID");
    (line.target.clone(), call_id, line.text.clone())
}

fn bench() -> Bench {
    lines();
    let mut b = Bench::with(|settings| settings.limits.answer_factor = 0);
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    b
}

fn relay(hops: &[&str]) -> Bench {
    lines();
    let relay = Route { methods: vec![b"INVITE".to_vec()], ..route(Action::Relay(hops.iter().map(|at| hop(at)).collect())) };
    Bench::with(|settings| settings.routes = vec![relay].into())
}

fn invite(call_id: &str) -> Request {
    Request::invite().call_id(call_id)
}

#[test]
fn a_line_names_its_subject_and_its_call() {
    let mut b = bench();
    b.send(ALICE, invite("refused@a").set("Max-Forwards", "0"));
    let (target, call_id, text) = line();
    assert_eq!((target.as_str(), call_id.as_str()), ("routing", "refused@a"));
    assert!(text.ends_with("answered 483 Too Many Hops"), "{text}");
    let register = Request::new("REGISTER", "sip:example.com").call_id("reg@a").add("Contact: *");
    assert_eq!(b.send_for_one(ALICE, register).status(), 400);
    let (target, call_id, _) = line();
    assert_eq!((target.as_str(), call_id.as_str()), ("registrar", "reg@a"));
    let mut b = auth::proxy();
    lines();
    let challenge = auth::call(&mut b);
    lines();
    let wrong = auth::Client { password: "wrong", ..auth::ALICES };
    b.send(ALICE, auth::invite_with(&wrong, &challenge).call_id("guess@a"));
    let (target, call_id, text) = line();
    assert_eq!((target.as_str(), call_id.as_str()), ("auth", "guess@a"));
    assert!(text.contains("user \"alice\""), "{text}");
}

#[test]
fn a_call_id_of_any_length_leaves_a_bounded_line() {
    let mut b = bench();
    b.send(ALICE, invite(&"x".repeat(3000)).set("Max-Forwards", "0"));
    let (_, call_id, text) = line();
    assert!(call_id.len() < 300 && text.len() < 300, "{call_id} {text}");
    // Where there are several, or one that is none, the line shows the first as it is.
    b.send(ALICE, invite("two@a").add("Call-ID: other@a"));
    assert_eq!(line().1, "two@a");
    b.send(ALICE, invite("sp ace"));
    assert_eq!(line().1, "sp ace");
}

#[test]
fn a_response_with_our_via_alone_is_told() {
    let mut b = bench();
    for status in [180, 200] {
        let sent = b.send(ALICE, invite("via@a"));
        let mut answer = the(&sent, BOB).answer(status);
        let mut vias = 0;
        answer.lines.retain(|line| {
            vias += usize::from(line.starts_with("Via:"));
            !line.starts_with("Via:") || vias == 1
        });
        b.send(BOB, answer);
        let lines = lines();
        assert!(lines.iter().all(|line| line.call_id.as_deref() == Some("via@a")), "{lines:#?}");
        assert!(lines[0].text.ends_with("bad_response: its only Via is ours"), "{lines:#?}");
        b = bench();
    }
}

#[test]
fn a_response_with_the_wrong_method_is_told() {
    let mut b = bench();
    let sent = b.send(ALICE, invite("cseq@a"));
    let mut answer = the(&sent, BOB).answer(200);
    for line in &mut answer.lines {
        *line = line.replace("1 INVITE", "1 BYE");
    }
    assert!(b.send(BOB, answer).is_empty());
    let (_, call_id, text) = line();
    assert_eq!(call_id, "cseq@a");
    assert!(text.ends_with("the method in CSeq is not that of the request"), "{text}");
}

#[test]
fn an_ack_that_goes_nowhere_is_told() {
    let mut b = bench();
    for (uri, why) in [
        ("sip:elsewhere@10.9.9.9", "Not Our Domain"),
        ("sip:nobody@example.com", "Not Found"),
        ("sip:10.0.0.1:5060", "No User In Request-URI"),
        ("sip:bob@example.com", "of no transaction and no dialog"),
    ] {
        let ack = Request::new("ACK", uri).call_id("ack@a").to("<sip:bob@example.com>;tag=callee");
        assert!(b.send(ALICE, ack).is_empty());
        let (target, call_id, text) = line();
        assert_eq!((target.as_str(), call_id.as_str()), ("routing", "ack@a"));
        assert!(text.ends_with(why), "{uri}: {text}");
    }
}

#[test]
fn a_failover_and_an_answer_of_our_own_are_told() {
    let mut b = relay(&[GATE, SPARE]);
    let request = Request::new("INVITE", "sip:+4930123@carrier.example").call_id("over@a");
    let sent = b.send(ALICE, &request);
    let at_gate = the(&sent, GATE).clone();
    // That a next hop has failed is said of it, and of no call.
    let of_the_call = || {
        let (mut hops, lines): (Vec<_>, Vec<_>) = lines().into_iter().partition(|line| line.call_id.is_none());
        let hop = hops.pop().expect("a line about the next hop");
        assert!(hops.is_empty() && hop.text.contains("has failed: 503 Service Unavailable"), "{hop:?}");
        assert!(lines.iter().all(|line| line.call_id.as_deref() == Some("over@a")), "{lines:#?}");
        lines
    };
    let sent = b.send(GATE, at_gate.answer(503));
    let told = of_the_call();
    assert_eq!(told.len(), 1, "{told:#?}");
    let text = &told[0].text;
    assert!(text.ends_with("branch to 10.0.5.1:5080 over UDP failed: answered 503 Service Unavailable"), "{text}");
    let at_spare = the(&sent, SPARE).clone();
    b.send(SPARE, at_spare.answer(503));
    let told = of_the_call();
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[1].text.ends_with("answered 500 No Next Hop Reached"), "{told:#?}");
}

/// The texts of the notes since the last call, all of this call.
#[track_caller]
fn notes(b: &mut Bench, of: &str) -> Vec<String> {
    let notes = std::mem::take(&mut b.notes);
    assert!(notes.iter().all(|(_, call_id, _)| call_id == of), "{notes:#?}");
    notes.into_iter().map(|(_, _, text)| text).collect()
}

#[test]
fn whoever_follows_a_call_learns_what_was_decided_and_why() {
    let mut b = relay(&[GATE, SPARE]);
    b.follow_calls();
    let request = Request::new("INVITE", "sip:+4930123@carrier.example").call_id("c@a");
    let sent = b.send(ALICE, &request);
    let expected = [
        "sip:+4930123@carrier.example: [[route]] 1: forwarded, targets: 2",
        "branch to sip:+4930123@carrier.example: sent to 10.0.5.1:5080 over UDP",
    ];
    assert_eq!(notes(&mut b, "c@a"), expected);
    let at_gate = the(&sent, GATE).clone();
    let sent = b.send(GATE, at_gate.answer(503));
    let expected = [
        "branch to 10.0.5.1:5080 over UDP failed: answered 503 Service Unavailable",
        "branch to sip:+4930123@carrier.example: sent to 10.0.5.2:5080 over UDP",
    ];
    assert_eq!(notes(&mut b, "c@a"), expected);
    let at_spare = the(&sent, SPARE).clone();
    b.send(SPARE, at_spare.answer(503));
    let said = notes(&mut b, "c@a");
    assert_eq!(said.last().unwrap(), "no branch is left, answered 500 No Next Hop Reached");
    b.send(ALICE, invite("d@a").set("Max-Forwards", "0"));
    assert_eq!(notes(&mut b, "d@a"), ["answered 483 Too Many Hops"]);
}

#[test]
fn timers_that_fire_are_told_as_such() {
    let mut b = relay(&[GATE]);
    b.follow_calls();
    b.send(ALICE, Request::new("INVITE", "sip:1@carrier.example").call_id("t@a"));
    b.notes.clear();
    b.tick(600);
    assert_eq!(b.notes, [(NoteKind::Timer, "t@a".to_owned(), "timer A: INVITE sent again to 10.0.5.1:5080".to_owned())]);
    b.notes.clear();
    b.tick(40_000);
    let of_b = b.notes.iter().find(|(_, _, text)| text.starts_with("timer B"));
    assert_eq!(of_b.unwrap(), &(NoteKind::Timer, "t@a".into(), "timer B: nothing final from 10.0.5.1:5080".into()));
    let own = b.notes.iter().any(|(_, _, text)| text.ends_with("answered 408 Request Timeout"));
    assert!(own, "{:#?}", b.notes);
    // While a phone rings for ever.
    b.notes.clear();
    let sent = b.send(ALICE, Request::new("INVITE", "sip:2@carrier.example").call_id("t@a"));
    b.send(GATE, the(&sent, GATE).answer(180));
    b.tick(200_000);
    let of_c = b.notes.iter().find(|(_, _, text)| text.starts_with("timer C"));
    assert_eq!(of_c.unwrap().0, NoteKind::Timer);
}

#[test]
fn an_answer_that_is_sent_again_is_told() {
    let mut b = Bench::with(|settings| settings.limits.answer_factor = 0);
    b.follow_calls();
    b.send(ALICE, Request::new("INVITE", "sip:nobody@example.com").call_id("t@a"));
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let sent = b.send(ALICE, Request::invite().call_id("u@a"));
    b.send(BOB, the(&sent, BOB).answer(486));
    b.notes.clear();
    b.tick(600);
    assert_eq!(b.notes, [(NoteKind::Timer, "u@a".to_owned(), format!("timer G: 486 to INVITE sent again to {ALICE}"))]);
}

#[test]
fn who_proves_itself_and_who_does_not_is_told() {
    let mut b = auth::proxy();
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    b.follow_calls();
    let challenge = auth::call(&mut b);
    let said: Vec<_> = b.notes.drain(..).map(|(_, _, text)| text).collect();
    assert_eq!(said, ["answered 407 Proxy Authentication Required"]);
    b.send(ALICE, auth::invite_with(&auth::ALICES, &challenge).call_id("p@a"));
    let said = notes(&mut b, "p@a");
    assert_eq!(said[0], "the password is right", "{said:#?}");
    assert!(said[1].contains("no [[route]]: forwarded, targets: 1"), "{said:#?}");
}

#[test]
fn who_answers_with_an_algorithm_that_it_has_no_hash_for_is_told_with_what_it_has() {
    lines();
    let mut b = auth::registrar();
    auth::know_users_of_every_kind(&mut b);
    // A phone that asks in the name of a user with both hashes, and answers as one that has MD5 alone.
    let challenge = auth::challenge(&auth::ask(&mut b), "SHA-256");
    let client = auth::Client { user: "alice", password: "b", ..auth::BOBS };
    assert_eq!(auth::register_with(&mut b, &client, &challenge).status(), 401);
    let (subject, _, text) = line();
    assert_eq!(subject, "auth");
    let wanted = "user \"alice\": answered with SHA-256, for which there is no hash of its password (there is MD5 alone): \
                  \"strowger user passwd\" makes all";
    assert!(text.contains(wanted), "{text}");
}

#[test]
fn while_nobody_follows_calls_nothing_is_noted() {
    let mut b = bench();
    let sent = b.send(ALICE, Request::invite());
    b.send(BOB, the(&sent, BOB).answer(486));
    b.tick(100_000);
    assert!(b.notes.is_empty());
}

/// A target that stands in two routes, by another transport in each: the line names the one that has failed.
#[test]
fn a_next_hop_that_has_failed_is_named_by_where_the_conf_has_it() {
    let by = |transport: Transport, to: &str| {
        let hop = NextHop { transport, uri: format!("sip:{GATE};transport={to}").parse().unwrap(), ..hop(GATE) };
        Route { to_user_prefix: Some(to.into()), ..route(Action::Relay(vec![hop])) }
    };
    let mut b = Bench::with(|settings| {
        settings.listeners = listeners();
        settings.routes = vec![by(Transport::Tcp, "tcp"), by(Transport::Udp, "udp")].into();
    });
    lines();
    for (user, whose) in [("udp1", "over UDP (target of [[route]] 2)"), ("tcp1", "over TCP (target of [[route]] 1)")] {
        let sent = b.send(ALICE, Request::new("INVITE", &format!("sip:{user}@example.com")));
        let at_gate = the(&sent, GATE).clone();
        match at_gate.flow.transport {
            Transport::Udp => drop(b.undelivered(&at_gate.bytes)),
            _ => drop(b.lose(at_gate.flow)),
        }
        let said = lines();
        let wanted = format!("next hop {GATE} {whose} has failed");
        assert!(said.iter().any(|line| line.text.starts_with(&wanted)), "{wanted}: {said:#?}");
    }
}
