//! The records of calls: one for each, whatever way it took, and none for what is no call.

use serde_json::Value;
use std::sync::Arc;
use strowger::base::Transport;
use strowger::settings::Mode;
use strowger::stack::calls::Calls;
use strowger::stack::route::Action;
use strowger::stack::{Element, Settings};

use crate::auth;
use crate::bench::*;
use crate::failover::hop;
use crate::message::{Request, unique};
use crate::proxy::route;

const WALL_MS: u64 = 1_764_410_400_000;
const GATE: &str = "10.0.5.1:5080";
const SPARE: &str = "10.0.5.2:5080";

fn recorded(b: &mut Bench) -> Arc<Calls> {
    let calls = Arc::new(Calls::new(100));
    for core in &mut b.cores {
        core.share_calls(Some(calls.clone()));
        core.set_clock(WALL_MS);
    }
    calls
}

fn bench_with(change: impl FnOnce(&mut Settings)) -> (Bench, Arc<Calls>) {
    let mut b = Bench::with(|settings| {
        settings.limits.answer_factor = 0;
        change(settings);
    });
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let calls = recorded(&mut b);
    (b, calls)
}

fn bench() -> (Bench, Arc<Calls>) {
    bench_with(|_| ())
}

/// The records that came since the last call.
fn records(b: &mut Bench) -> Vec<Value> {
    let lines = std::mem::take(&mut b.records);
    let text = String::from_utf8(lines).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[track_caller]
fn record(b: &mut Bench) -> Value {
    let mut all = records(b);
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

/// A call as its two ends see it.
struct Call {
    invite: Request,
    /// Route sets, in order.
    callers: Vec<String>,
    callees: Vec<String>,
    tag: String,
}

impl Call {
    fn of(invite: &Request, at_callee: &Sent, ok: &Sent, tag: &str) -> Call {
        let recorded = |sent: &Sent| sent.all("Record-Route").iter().map(|route| route.to_string()).collect::<Vec<_>>();
        Call {
            invite: invite.clone(),
            callers: recorded(ok).into_iter().rev().collect(),
            callees: recorded(at_callee),
            tag: tag.into(),
        }
    }

    fn call_id(&self) -> String {
        let line = self.invite.lines.iter().find(|line| line.starts_with("Call-ID: "));
        line.unwrap()["Call-ID: ".len()..].to_string()
    }

    fn by_caller(&self, method: &str) -> Request {
        let request = Request::new(method, "sip:bob@10.0.1.2:5060")
            .to(&format!("<sip:bob@example.com>;tag={}", self.tag))
            .call_id(&self.call_id())
            .cseq(2);
        routed(request, &self.callers)
    }

    fn by_callee(&self, method: &str) -> Request {
        let request = Request::new(method, "sip:alice@10.0.1.1:5060")
            .via("10.0.1.2:5060", &format!("z9hG4bKbob{}", unique()))
            .from(&format!("<sip:bob@example.com>;tag={}", self.tag))
            .to("\"Alice\" <sip:alice@example.com>;tag=alice")
            .call_id(&self.call_id())
            .cseq(2);
        routed(request, &self.callees)
    }
}

fn routed(mut request: Request, routes: &[String]) -> Request {
    for route in routes.iter().rev() {
        request = request.top(&format!("Route: {route}"));
    }
    request
}

const CONTACT: &str = "Contact: <sip:bob@10.0.1.2:5060>";

/// Bob has answered on 10.0.1.2.
fn answered(b: &mut Bench) -> Call {
    let invite = Request::invite();
    let sent = b.send(ALICE, &invite);
    let at_bob = the(&sent, BOB).clone();
    let ok = b.send_for_one(BOB, at_bob.answer(200).add(CONTACT));
    Call::of(&invite, &at_bob, &ok, "callee")
}

/// One side hangs up, and the other accepts that.
#[track_caller]
fn hang_up(b: &mut Bench, from: &str, bye: Request) {
    let sent = b.send(from, bye);
    let arrived = sent.iter().find(|sent| sent.method() == "BYE").expect("a BYE").clone();
    b.send(&arrived.to, arrived.answer(200));
}

#[test]
fn a_call_leaves_one_record_with_its_times() {
    let (mut b, calls) = bench();
    b.now = 1000;
    let invite = Request::invite();
    let sent = b.send(ALICE, &invite);
    let at_bob = the(&sent, BOB).clone();
    b.now = 1200;
    b.send(BOB, at_bob.answer(180));
    b.now = 1300;
    b.send(BOB, at_bob.answer(183));
    b.now = 3000;
    let ok = b.send_for_one(BOB, at_bob.answer(200).add(CONTACT));
    b.send(BOB, at_bob.answer(200).add(CONTACT));
    let call = Call::of(&invite, &at_bob, &ok, "callee");
    b.send(ALICE, call.by_caller("ACK"));
    assert_eq!((calls.len(), calls.answered()), (1, 1));
    assert_eq!(b.cores[0].occupancy().calls, 1);
    b.now = 63_000;
    let bye = call.by_callee("BYE");
    let sent = b.send(BOB, &bye);
    b.send(BOB, &bye);
    assert!(records(&mut b).is_empty(), "it has no answer yet");
    b.now = 63_500;
    b.send(ALICE, the(&sent, ALICE).answer(200));
    let expected = serde_json::json!({
        "start": "2025-11-29T10:00:01.000Z", "call_id": call.call_id(), "from": "sip:alice@example.com", "to": "sip:bob@example.com",
        "source": ALICE, "transport": "UDP", "tried": [{"to": BOB, "transport": "UDP", "status": 200}],
        "status": 200, "ringing_ms": 200, "answered_ms": 2000, "ended_ms": 62_000, "end": "callee",
    });
    assert_eq!(record(&mut b), expected);
    b.assert_quiet();
    assert!(records(&mut b).is_empty());
}

#[test]
fn a_bye_from_either_side_ends_it() {
    for side in ["caller", "callee"] {
        let (mut b, calls) = bench();
        let call = answered(&mut b);
        match side {
            "caller" => hang_up(&mut b, ALICE, call.by_caller("BYE")),
            _ => hang_up(&mut b, BOB, call.by_callee("BYE")),
        };
        assert_eq!(record(&mut b)["end"], side);
        assert!(calls.is_empty());
        b.assert_quiet();
    }
}

#[test]
fn a_bye_without_the_cookie_of_its_call_ends_nothing() {
    let (mut b, calls) = bench();
    let (call, other) = (answered(&mut b), answered(&mut b));
    let bye = call.by_caller("BYE");
    // None, another call's, and that of the other side.
    b.send(CAROL, bye.clone().without("Route"));
    b.send(CAROL, routed(bye.clone().without("Route"), &other.callers));
    b.send(CAROL, routed(bye.clone().without("Route"), &["<sip:10.0.0.1:5060;lr;sc=00000000>".into()]));
    // Its own, in a dialog that is none of this call's.
    b.send(ALICE, bye.clone().to("<sip:bob@example.com>;tag=other"));
    assert_eq!((records(&mut b).len(), calls.answered()), (0, 2));
    hang_up(&mut b, ALICE, bye);
    assert_eq!(record(&mut b)["call_id"], call.call_id());
}

#[test]
fn a_bye_that_comes_to_another_core_ends_it_too() {
    let (mut b, calls) = bench_with(|settings| settings.cores = 3);
    let invite = Request::invite();
    let sent = b.send_by(1, 0, ALICE, &invite);
    let at_bob = the(&sent, BOB).clone();
    let ok = only(b.send_by(1, 0, BOB, at_bob.answer(200).add(CONTACT)));
    let call = Call::of(&invite, &at_bob, &ok, "callee");
    assert_eq!(b.cores.iter().map(|core| core.occupancy().calls).sum::<usize>(), 1);
    let bye = only(b.send_by(2, 0, ALICE, call.by_caller("BYE")));
    b.send_by(2, 0, BOB, bye.answer(200));
    assert_eq!(record(&mut b)["end"], "caller");
    assert!(calls.is_empty());
    b.assert_quiet();
}

#[test]
fn a_call_whose_bye_is_lost_ends_as_lost() {
    let (mut b, calls) = bench_with(|settings| settings.records.lost_after = 60_000);
    let call = answered(&mut b);
    b.tick(50_000);
    // A refresh: it is alive.
    let sent = b.send(ALICE, call.by_caller("UPDATE"));
    b.send(BOB, the(&sent, BOB).answer(200));
    b.tick(55_000);
    assert_eq!((records(&mut b).len(), calls.len()), (0, 1));
    let sent = b.send(BOB, call.by_callee("INVITE").add(CONTACT));
    let at_alice = the(&sent, ALICE).clone();
    b.send(ALICE, at_alice.answer(200).add("Contact: <sip:alice@10.0.1.1:5060>"));
    b.tick(59_000);
    assert_eq!((records(&mut b).len(), calls.len()), (0, 1));
    b.tick(30_000);
    let line = record(&mut b);
    assert_eq!((&line["end"], &line["status"]), (&"lost".into(), &200.into()));
    assert_eq!(line["tried"].as_array().unwrap().len(), 1, "no copy of a re-INVITE is an attempt");
    b.assert_quiet();
}

#[test]
fn of_two_phones_that_ring_one_answers() {
    let (mut b, calls) = bench();
    b.register("bob", "<sip:bob@10.0.1.3:5060>");
    let invite = Request::invite();
    let sent = b.send(ALICE, &invite);
    let (at_bob, at_carol) = (the(&sent, BOB).clone(), the(&sent, CAROL).clone());
    b.send(BOB, at_bob.answer(180));
    b.send(CAROL, at_carol.answer(180));
    let sent = b.send(CAROL, at_carol.answer(200).tag("carol").add(CONTACT));
    assert_eq!(the(&sent, BOB).method(), "CANCEL");
    let call = Call::of(&invite, &at_carol, the(&sent, ALICE), "carol");
    b.send(BOB, at_bob.answer(487));
    assert!(records(&mut b).is_empty() && calls.answered() == 1);
    hang_up(&mut b, ALICE, call.by_caller("BYE"));
    let line = record(&mut b);
    let mut tried = line["tried"].as_array().unwrap().clone();
    tried.sort_by_key(|one| one["to"].to_string());
    assert_eq!(
        tried,
        [
            serde_json::json!({"to": BOB, "transport": "UDP", "status": 487}),
            serde_json::json!({"to": CAROL, "transport": "UDP", "status": 200}),
        ]
    );
    b.assert_quiet();
}

#[test]
fn when_two_phones_answer_at_once_the_call_goes_on_behind_the_bye_to_one() {
    let (mut b, _) = bench();
    b.register("bob", "<sip:bob@10.0.1.3:5060>");
    let invite = Request::invite();
    let sent = b.send(ALICE, &invite);
    let (at_bob, at_carol) = (the(&sent, BOB).clone(), the(&sent, CAROL).clone());
    let sent = b.send(BOB, at_bob.answer(200).tag("bob").add(CONTACT));
    let first = Call::of(&invite, &at_bob, the(&sent, ALICE), "bob");
    let sent = b.send(CAROL, at_carol.answer(200).tag("carol").add("Contact: <sip:bob@10.0.1.3:5060>"));
    let mut second = Call::of(&invite, &at_carol, the(&sent, ALICE), "carol");
    second.invite.uri = "sip:bob@10.0.1.3:5060".into();
    let mut bye = second.by_caller("BYE");
    bye.uri = "sip:bob@10.0.1.3:5060".into();
    hang_up(&mut b, ALICE, bye);
    assert!(records(&mut b).is_empty());
    hang_up(&mut b, BOB, first.by_callee("BYE"));
    assert_eq!(record(&mut b)["end"], "callee");
    b.assert_quiet();
}

fn gated(hops: &[&str]) -> (Bench, Arc<Calls>) {
    let relay = strowger::stack::route::Route {
        methods: vec![b"INVITE".to_vec()],
        ..route(Action::Relay(hops.iter().map(|at| hop(at)).collect()))
    };
    let never = strowger::stack::route::Route { to_user_prefix: Some(b"nobody".to_vec()), ..route(Action::Reject(403)) };
    bench_with(|settings| settings.routes = vec![never, relay].into())
}

#[test]
fn a_record_names_the_route_and_all_next_hops_that_were_tried() {
    let (mut b, _) = gated(&[GATE, SPARE, CAROL]);
    let request = Request::new("INVITE", "sip:+4930123@carrier.example");
    let sent = b.send(ALICE, &request);
    let at_gate = the(&sent, GATE).clone();
    let sent = b.send(GATE, at_gate.answer(503));
    let at_spare = the(&sent, SPARE).clone();
    let sent = b.undelivered(&at_spare.bytes);
    let at_carol = the(&sent, CAROL).clone();
    let sent = b.send(CAROL, at_carol.answer(486));
    assert_eq!(the(&sent, ALICE).status(), 486);
    let line = record(&mut b);
    let expected = serde_json::json!([
        {"to": GATE, "transport": "UDP", "status": 503},
        {"to": SPARE, "transport": "UDP", "failure": "port unreachable"},
        {"to": CAROL, "transport": "UDP", "status": 486},
    ]);
    assert_eq!(line["tried"], expected);
    assert_eq!((&line["route"], &line["status"], &line["end"]), (&2.into(), &486.into(), &"refused".into()));
    b.assert_quiet();
}

#[test]
fn an_answer_of_our_own_ends_a_call_as_any_does() {
    let (mut b, _) = gated(&[GATE]);
    b.send(ALICE, Request::new("INVITE", "sip:+4930123@carrier.example"));
    b.tick(40_000);
    let line = record(&mut b);
    assert_eq!((&line["status"], &line["tried"][0]["failure"]), (&408.into(), &"no response".into()));
    let sent = b.send(ALICE, Request::new("INVITE", "sip:+4930124@carrier.example"));
    let at_gate = the(&sent, GATE).clone();
    b.send(GATE, at_gate.answer(503));
    assert_eq!(record(&mut b)["status"], 500);
    b.assert_quiet();
}

#[test]
fn a_final_response_with_our_via_alone_answers_no_call() {
    let (mut b, calls) = bench();
    let sent = b.send(ALICE, Request::invite());
    let mut answer = the(&sent, BOB).answer(200).add(CONTACT);
    let mut vias = 0;
    answer.lines.retain(|line| {
        vias += usize::from(line.starts_with("Via:"));
        !line.starts_with("Via:") || vias == 1
    });
    b.send(BOB, answer);
    let line = record(&mut b);
    assert_eq!((&line["status"], &line["end"]), (&502.into(), &"refused".into()));
    assert!(line["answered_ms"].is_null() && calls.is_empty());
    b.assert_quiet();
}

#[test]
fn a_redirection_and_a_cancelled_call_leave_theirs() {
    let (mut b, _) = bench();
    let sent = b.send(ALICE, Request::invite());
    b.send(BOB, the(&sent, BOB).answer(302).add("Contact: <sip:bob@elsewhere.example>"));
    let line = record(&mut b);
    assert_eq!((&line["status"], &line["end"]), (&302.into(), &"refused".into()));
    // Whatever the phone answers to the CANCEL, or nothing.
    for status in [Some(487), Some(480), None] {
        let invite = Request::invite();
        let sent = b.send(ALICE, &invite);
        let at_bob = the(&sent, BOB).clone();
        b.send(BOB, at_bob.answer(180));
        b.send(ALICE, invite.cancel());
        match status {
            Some(status) => b.send(BOB, at_bob.answer(status)),
            None => b.tick(200_000),
        };
        let line = record(&mut b);
        assert_eq!((&line["status"], &line["end"]), (&status.unwrap_or(487).into(), &"cancelled".into()));
        assert_eq!(line["ringing_ms"], 0);
    }
    b.assert_quiet();
}

#[test]
fn a_call_that_comes_round_through_ourselves_is_one() {
    let (mut b, calls) = bench();
    b.register("carol", &format!("<sip:bob@{PROXY}>"));
    for aor in [&b"bob@10.0.0.1"[..], b"bob@10.0.0.1:5060"] {
        let added = b.location.add(Default::default(), aor, b"sip:bob@10.0.1.2:5060", 3600);
        assert!(added.is_ok());
    }
    b.register("carol", "<sip:carol@10.0.1.3:5060>");
    let invite = Request::new("INVITE", "sip:carol@example.com").add("Contact: <sip:alice@10.0.1.1:5060>");
    let sent = b.send(ALICE, &invite);
    let round = the(&sent, PROXY).clone();
    let at_carol = the(&sent, CAROL).clone();
    let sent = b.send(PROXY, &round.bytes);
    let at_bob = the(&sent, BOB).clone();
    assert_eq!(calls.len(), 1);
    // One of its ways ends: the call does not.
    let back = b.send(BOB, at_bob.answer(486));
    let back = the(&back, PROXY).bytes.clone();
    assert!(records(&mut b).is_empty());
    b.send(PROXY, back);
    assert!(records(&mut b).is_empty());
    let ok = b.send_for_one(CAROL, at_carol.answer(200).add("Contact: <sip:carol@10.0.1.3:5060>"));
    let mut bye = Call::of(&invite, &at_carol, &ok, "callee").by_caller("BYE");
    bye.uri = "sip:carol@10.0.1.3:5060".into();
    hang_up(&mut b, ALICE, bye);
    let line = record(&mut b);
    assert_eq!((&line["end"], &line["status"]), (&"caller".into(), &200.into()));
    assert_eq!(line["tried"].as_array().unwrap().len(), 3);
    b.assert_quiet();
}

#[test]
fn a_challenge_is_no_call_and_the_user_who_proves_itself_is_named() {
    let mut b = auth::proxy();
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let calls = recorded(&mut b);
    let challenge = auth::call(&mut b);
    assert!(calls.is_empty());
    let sent = b.send(ALICE, auth::invite_with(&auth::ALICES, &challenge));
    let at_bob = the(&sent, BOB).clone();
    // One further on asks for a password too: the caller comes again.
    b.send(BOB, at_bob.answer(407).add("Proxy-Authenticate: Digest realm=\"elsewhere\", nonce=\"1\""));
    assert!(calls.is_empty() && records(&mut b).is_empty());
    let challenge = auth::call(&mut b);
    let sent = b.send(ALICE, auth::invite_with(&auth::ALICES, &challenge));
    b.send(BOB, the(&sent, BOB).answer(603));
    let line = record(&mut b);
    assert_eq!((&line["user"], &line["status"]), (&"alice".into(), &603.into()));
}

#[test]
fn what_opens_no_call_leaves_no_record() {
    let (mut b, calls) = bench();
    for method in ["MESSAGE", "OPTIONS", "SUBSCRIBE"] {
        let sent = b.send(ALICE, Request::new(method, "sip:bob@example.com"));
        b.send(BOB, the(&sent, BOB).answer(200));
    }
    // What goes nowhere begins no call.
    assert_eq!(b.send_for_one(ALICE, Request::new("INVITE", "sip:nobody@example.com")).status(), 404);
    assert!(calls.is_empty());
    b.assert_quiet();
    assert!(records(&mut b).is_empty());
}

#[test]
fn without_a_transaction_or_a_table_there_are_no_records() {
    let (mut b, calls) = bench_with(|settings| settings.proxy.mode = Mode::Stateless);
    b.send(ALICE, Request::invite());
    assert!(calls.is_empty() && records(&mut b).is_empty());
    let (mut b, calls) = bench();
    b.cores[0].share_calls(None);
    let call = answered(&mut b);
    b.send(ALICE, call.by_caller("BYE"));
    assert!(calls.is_empty() && records(&mut b).is_empty());
    b.assert_quiet();
}

#[test]
fn where_we_do_not_stay_on_the_path_the_record_ends_with_the_answer() {
    let (mut b, calls) = bench_with(|settings| settings.proxy.record_route = false);
    answered(&mut b);
    let line = record(&mut b);
    assert_eq!((&line["end"], &line["status"]), (&"unseen".into(), &200.into()));
    assert_eq!(line["tried"][0]["status"], 200);
    assert!(calls.is_empty());
    b.assert_quiet();
}

#[test]
fn a_connection_that_breaks_is_named_as_what_it_is() {
    let (mut b, _) = bench_with(|settings| settings.listeners = listeners());
    b.register("carol", "<sip:carol@10.0.1.3:5060;transport=tcp>");
    let sent = b.send(ALICE, Request::new("INVITE", "sip:carol@example.com"));
    let flow = the(&sent, CAROL).flow;
    assert_eq!(flow.transport, Transport::Tcp);
    b.lose(flow);
    let line = record(&mut b);
    let tried = serde_json::json!([{"to": CAROL, "transport": "TCP", "failure": "no connection"}]);
    assert_eq!((&line["tried"], &line["status"]), (&tried, &500.into()));
    b.assert_quiet();
}

/// RFC 3261 §15.1.1: a 481, a 408 or silence says as well that it is over. At the time of the BYE, and by whom it came.
#[test]
fn a_bye_that_nobody_takes_ends_the_call_when_it_came() {
    for status in [Some(481), Some(408), None] {
        let (mut b, calls) = bench();
        let call = answered(&mut b);
        b.now = 5000;
        let sent = b.send(ALICE, call.by_caller("BYE"));
        b.now = 7000;
        match status {
            Some(status) => b.send(BOB, the(&sent, BOB).answer(status)),
            None => b.tick(64_000),
        };
        let line = record(&mut b);
        assert_eq!((&line["end"], &line["ended_ms"]), (&"caller".into(), &5000.into()), "{status:?}");
        assert!(calls.is_empty());
        b.tick(64_000);
        b.assert_quiet();
    }
    // Nobody is there any more.
    let (mut b, _) = bench();
    let call = answered(&mut b);
    let sent = b.send(ALICE, call.by_caller("BYE"));
    let undelivered = the(&sent, BOB).bytes.clone();
    b.undelivered(&undelivered);
    assert_eq!(record(&mut b)["end"], "caller");
    b.assert_quiet();
}

#[test]
fn a_bye_that_is_refused_ends_nothing_while_the_call_goes_on() {
    for status in [401, 407, 420, 500, 503] {
        let (mut b, calls) = bench();
        let call = answered(&mut b);
        b.now = 5000;
        let sent = b.send(ALICE, call.by_caller("BYE"));
        b.send(BOB, the(&sent, BOB).answer(status));
        assert_eq!((records(&mut b).len(), calls.answered()), (0, 1), "{status}");
        let sent = b.send(ALICE, call.by_caller("INFO").cseq(3));
        b.send(BOB, the(&sent, BOB).answer(200));
        b.now = 9000;
        hang_up(&mut b, BOB, call.by_callee("BYE"));
        let line = record(&mut b);
        assert_eq!((&line["end"], &line["ended_ms"]), (&"callee".into(), &9000.into()));
        b.assert_quiet();
    }
    // One that comes again with credentials counts when it is taken.
    let (mut b, _) = bench();
    let call = answered(&mut b);
    b.now = 5000;
    let sent = b.send(ALICE, call.by_caller("BYE"));
    b.send(BOB, the(&sent, BOB).answer(401));
    b.now = 5100;
    hang_up(&mut b, ALICE, call.by_caller("BYE").cseq(3));
    assert_eq!(record(&mut b)["ended_ms"], 5100);
    b.assert_quiet();
}

/// Whoever has sent it considers the call ended: it is no call of twelve hours.
#[test]
fn a_bye_that_is_refused_is_the_end_if_nothing_follows_it() {
    let (mut b, calls) = bench_with(|settings| settings.records.lost_after = 60_000);
    let call = answered(&mut b);
    b.now = 5000;
    let sent = b.send(BOB, call.by_callee("BYE"));
    b.send(ALICE, the(&sent, ALICE).answer(500));
    b.tick(59_000);
    assert_eq!(records(&mut b).len(), 0);
    b.tick(30_000);
    let line = record(&mut b);
    assert_eq!((&line["end"], &line["ended_ms"]), (&"callee".into(), &5000.into()));
    assert!(calls.is_empty());
    b.assert_quiet();
}

#[test]
fn of_two_byes_that_cross_the_first_counts_once() {
    let (mut b, calls) = bench();
    let call = answered(&mut b);
    b.now = 5000;
    let at_bob = the(&b.send(ALICE, call.by_caller("BYE")), BOB).clone();
    b.now = 5010;
    let at_alice = the(&b.send(BOB, call.by_callee("BYE")), ALICE).clone();
    b.now = 5020;
    b.send(ALICE, at_alice.answer(200));
    let line = record(&mut b);
    assert_eq!((&line["end"], &line["ended_ms"]), (&"caller".into(), &5000.into()));
    b.send(BOB, at_bob.answer(481));
    hang_up(&mut b, ALICE, call.by_caller("BYE").cseq(3));
    assert!(records(&mut b).is_empty() && calls.is_empty());
    b.assert_quiet();
}

#[test]
fn a_target_that_accepts_after_it_was_given_up_is_the_one_that_did() {
    for (status, shown, code) in [(200, serde_json::json!(200), 200), (486, Value::Null, 0)] {
        let (mut b, _) = gated(&[GATE, SPARE]);
        let invite = Request::new("INVITE", "sip:+4930123@carrier.example");
        let sent = b.send(ALICE, &invite);
        let at_gate = the(&sent, GATE).clone();
        let sent = b.tick(6_000);
        let at_spare = to(&sent, SPARE)[0].clone();
        b.send(SPARE, at_spare.answer(180));
        let gate = format!("sip:{GATE}");
        assert_eq!(counted(&b, 2, &gate), (1, vec![]), "it may still answer");
        let sent = b.send(GATE, at_gate.answer(status).add(CONTACT));
        if status == 200 {
            let call = Call::of(&invite, &at_gate, the(&sent, ALICE), "callee");
            b.send(SPARE, at_spare.answer(487));
            hang_up(&mut b, ALICE, call.by_caller("BYE"));
        } else {
            b.send(SPARE, at_spare.answer(480));
        }
        let line = record(&mut b);
        assert_eq!(line["tried"][0]["status"], shown, "{line}");
        assert_eq!(line["tried"][0]["failure"].is_null(), status == 200, "{line}");
        assert_eq!(counted(&b, 2, &gate), (1, vec![(code, 1)]));
        b.tick(200_000);
        assert_eq!(counted(&b, 2, &gate), (1, vec![(code, 1)]));
        b.assert_quiet();
    }
    // One that says nothing to the end is counted as that, once.
    let (mut b, _) = gated(&[GATE, SPARE]);
    b.send(ALICE, Request::new("INVITE", "sip:+4930123@carrier.example"));
    b.tick(200_000);
    assert_eq!(counted(&b, 2, &format!("sip:{GATE}")), (1, vec![(0, 1)]));
}

#[test]
fn no_record_has_a_password_that_stands_in_a_uri() {
    for (uri, shown) in [
        ("sip:alice:secret@example.com", "sip:alice:******@example.com"),
        ("sips:alice:a:b@example.com;x=y", "sips:alice:***@example.com;x=y"),
        ("sip:alice:@example.com:5061", "sip:alice:@example.com:5061"),
        ("sip:example.com:5060", "sip:example.com:5060"),
        ("tel:+4930123", "tel:+4930123"),
    ] {
        let (mut b, _) = bench();
        let sent = b.send(ALICE, Request::invite().from(&format!("<{uri}>;tag=alice")));
        b.send(BOB, the(&sent, BOB).answer(486));
        assert_eq!(record(&mut b)["from"], shown);
    }
}

/// What was counted of one next hop: copies that left, and their ends by code.
fn counted(b: &Bench, route: u16, target: &str) -> (u64, Vec<(u16, u64)>) {
    let counters = b.cores[0].counters().calls;
    let row = counters.rows.into_iter().find(|row| row.route == route && &*row.target == target);
    row.map(|row| (row.attempts, row.codes)).unwrap_or_default()
}

#[test]
fn calls_are_counted_by_route_and_next_hop_with_or_without_records() {
    let (mut b, _) = gated(&[GATE, SPARE]);
    b.cores[0].share_calls(None);
    let mut at_spare = None;
    // Both leave before the gate is known to have failed.
    let at_gate = [(); 2].map(|()| {
        let sent = b.send(ALICE, Request::new("INVITE", "sip:+4930123@carrier.example"));
        the(&sent, GATE).clone()
    });
    for at_gate in at_gate {
        let sent = b.send(GATE, at_gate.answer(503));
        at_spare = Some(the(&sent, SPARE).clone());
    }
    b.now = 1500;
    let at_spare = at_spare.unwrap();
    b.send(SPARE, at_spare.answer(200).add(CONTACT));
    b.send(SPARE, at_spare.answer(200).add(CONTACT));
    b.tick(40_000);
    assert_eq!(counted(&b, 2, &format!("sip:{GATE}")), (2, vec![(503, 2)]));
    let (attempts, codes) = counted(&b, 2, &format!("sip:{SPARE}"));
    assert_eq!((attempts, codes), (2, vec![(200, 1), (0, 1)]), "an answer, and a time-out");
    let setups = b.cores[0].counters().calls.setups;
    let setup = setups.iter().find(|setup| setup.route == 2).unwrap();
    assert_eq!((setup.sum_ms, setup.buckets[4], setup.buckets.iter().sum()), (1500, 1, 1));
    // By the location table: two phones, and what is no call is not counted.
    let (mut b, _) = bench();
    b.register("bob", "<sip:bob@10.0.1.3:5060>");
    let invite = Request::invite();
    let sent = b.send(ALICE, &invite);
    let (at_bob, at_carol) = (the(&sent, BOB).clone(), the(&sent, CAROL).clone());
    let ok = b.send(BOB, at_bob.answer(200).add(CONTACT));
    b.undelivered(&at_carol.bytes);
    let call = Call::of(&invite, &at_bob, the(&ok, ALICE), "callee");
    let sent = b.send(ALICE, call.by_caller("INVITE").add("Contact: <sip:alice@10.0.1.1:5060>"));
    b.send(BOB, the(&sent, BOB).answer(488));
    b.send(ALICE, Request::new("MESSAGE", "sip:bob@example.com"));
    assert_eq!(counted(&b, 0, "location"), (2, vec![(200, 1), (1, 1)]));
    b.send(ALICE, call.by_caller("BYE"));
    b.assert_quiet();
}
