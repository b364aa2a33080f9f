//! `outgoing = "per-call"`: a connection for each call, given back when the call is over.

use strowger::base::{Channel, Flow, Transport::*};
use strowger::stack::Settings;
use strowger::stack::route::{Action, Route};
use strowger::stack::settings::{Mode, Outgoing};

use crate::bench::*;
use crate::message::Request;
use crate::proxy::route;
use crate::streams::hop;

const GATE: &str = "10.0.5.1:5070";
const SPARE: &str = "10.0.5.2:5070";

fn with(change: impl FnOnce(&mut Settings)) -> Bench {
    Bench::with(|settings| {
        settings.listeners = listeners();
        settings.outgoing = Outgoing::PerCall;
        settings.routes = vec![route(Action::Relay(vec![hop(Tcp, GATE, "")]))].into();
        change(settings);
    })
}

fn bench() -> Bench {
    with(|_| ())
}

fn call_of(flow: &Flow) -> u64 {
    match flow.channel {
        Channel::Peer { call, .. } => call,
        other => panic!("{other:?}"),
    }
}

fn invite() -> Request {
    Request::new("INVITE", "sip:x@far.example")
}

/// A call that was answered: the INVITE at the gate, and the route set.
fn answered(b: &mut Bench) -> Sent {
    let sent = b.send(ALICE, invite());
    let at_gate = the(&sent, GATE).clone();
    let contact = format!("Contact: <sip:bob@{GATE};transport=tcp>");
    let ok = b.send_for_one(GATE, at_gate.answer(200).add(&contact));
    assert_eq!(ok.status(), 200);
    let mut at_gate = at_gate;
    for route in ok.all("Record-Route") {
        let route = ("Callers-Route".into(), route.into());
        at_gate.text.headers.push(route);
    }
    at_gate
}

/// A request of the caller within the dialog; `remote` is what the callee gave as contact.
fn within(at_gate: &Sent, method: &str, remote: &str) -> Request {
    let mut request =
        Request::new(method, remote).to("<sip:bob@example.com>;tag=callee").call_id(at_gate.header("Call-ID").unwrap());
    for record in at_gate.all("Callers-Route").iter().rev() {
        request = request.add(&format!("Route: {record}"));
    }
    request
}

#[test]
fn each_call_has_a_connection_and_one_call_has_one() {
    let mut b = bench();
    let (first, second) = (answered(&mut b), answered(&mut b));
    assert_ne!(call_of(&first.flow), 0);
    assert_ne!(first.flow, second.flow);
    let remote = format!("sip:bob@{GATE};transport=tcp");
    for method in ["ACK", "INFO", "BYE"] {
        let sent = only(b.send(ALICE, within(&first, method, &remote)));
        assert_eq!(sent.flow, first.flow, "{method}");
    }
}

#[test]
fn a_connection_is_given_back_when_the_bye_is_done() {
    let mut b = bench();
    let at_gate = answered(&mut b);
    let remote = format!("sip:bob@{GATE};transport=tcp");
    // Neither the 2xx, nor an INFO, nor a re-INVITE that fails ends the call.
    let info = only(b.send(ALICE, within(&at_gate, "INFO", &remote)));
    b.send(GATE, info.answer(500));
    let sent = b.send(ALICE, within(&at_gate, "INVITE", &remote));
    b.send(GATE, the(&sent, GATE).answer(488));
    assert_eq!(b.released, []);
    let bye = only(b.send(ALICE, within(&at_gate, "BYE", &remote)));
    assert_eq!(b.released, []);
    assert_eq!(b.send_for_one(GATE, bye.answer(200)).to, ALICE);
    assert_eq!(b.released, [at_gate.flow]);
}

#[test]
fn a_bye_that_nobody_answers_gives_it_back_too() {
    let mut b = bench();
    let at_gate = answered(&mut b);
    let remote = format!("sip:bob@{GATE};transport=tcp");
    b.send(ALICE, within(&at_gate, "BYE", &remote));
    b.tick(40_000);
    assert_eq!(b.released, [at_gate.flow]);
    b.assert_quiet();
}

#[test]
fn a_bye_of_the_callee_gives_back_the_connection_that_it_came_by() {
    let mut b = bench();
    let at_gate = answered(&mut b);
    // As the wires name our own connection, once it is open.
    let gate = b.open(Tcp, 0, 6, GATE);
    let mut bye = Request::new("BYE", "sip:alice@10.0.1.1:5060")
        .via(GATE, "z9hG4bKgatesbye")
        .by(Tcp)
        .from("<sip:bob@example.com>;tag=callee")
        .to("<sip:alice@example.com>;tag=alice")
        .call_id(at_gate.header("Call-ID").unwrap());
    for record in at_gate.all("Record-Route") {
        bye = bye.add(&format!("Route: {record}"));
    }
    let at_alice = only(b.send_on(0, gate, bye));
    assert_eq!((at_alice.to.as_str(), at_alice.flow.transport), (ALICE, Udp));
    assert_eq!(b.released, []);
    let ok = b.send_for_one(ALICE, at_alice.answer(200));
    assert_eq!((ok.status(), ok.flow), (200, gate));
    assert_eq!(b.released, [gate]);
}

#[test]
fn a_call_that_fails_gives_it_back_after_its_ack() {
    for status in [302, 404, 486, 503, 603] {
        let mut b = bench();
        let sent = b.send(ALICE, invite());
        let at_gate = the(&sent, GATE).clone();
        b.send(GATE, at_gate.answer(180));
        assert_eq!(b.released, []);
        let sent = b.send(GATE, at_gate.answer(status));
        assert_eq!(the(&sent, GATE).method(), "ACK");
        assert_eq!(b.released, [at_gate.flow], "{status}");
    }
}

#[test]
fn so_does_one_that_was_cancelled_or_timed_out() {
    let mut b = bench();
    let request = invite();
    let sent = b.send(ALICE, &request);
    let at_gate = the(&sent, GATE).clone();
    b.send(GATE, at_gate.answer(180));
    b.send(ALICE, request.cancel());
    assert_eq!(b.released, []);
    b.send(GATE, at_gate.answer(487));
    assert_eq!(b.released, [at_gate.flow]);

    let mut b = bench();
    let sent = b.send(ALICE, invite());
    let at_gate = the(&sent, GATE).clone();
    b.tick(32_000);
    assert_eq!(b.released, [at_gate.flow]);
}

#[test]
fn a_lost_connection_is_not_given_back() {
    let mut b = bench();
    let sent = b.send(ALICE, invite());
    let at_gate = the(&sent, GATE).clone();
    assert_eq!(only(b.lose(at_gate.flow)).status(), 500);
    assert_eq!(b.released, []);
}

#[test]
fn a_request_outside_of_a_dialog_is_all_there_was() {
    for (method, kept) in [("MESSAGE", false), ("OPTIONS", false), ("SUBSCRIBE", true)] {
        let mut b = bench();
        let at_gate = only(b.send(ALICE, Request::new(method, "sip:x@far.example")));
        b.send(GATE, at_gate.answer(200));
        assert_eq!(b.released.is_empty(), kept, "{method}");
        let mut b = bench();
        let at_gate = only(b.send(ALICE, Request::new(method, "sip:x@far.example")));
        b.send(GATE, at_gate.answer(404));
        assert_eq!(b.released, [at_gate.flow], "{method}");
    }
}

#[test]
fn the_next_hop_of_the_same_call_has_its_own_and_a_shared_one_is_kept() {
    let mut b = with(|settings| {
        let hops = vec![hop(Tcp, GATE, ""), hop(Tcp, SPARE, "")];
        settings.routes = vec![route(Action::Relay(hops))].into();
    });
    let sent = b.send(ALICE, invite());
    let at_gate = the(&sent, GATE).clone();
    let sent = b.send(GATE, at_gate.answer(503));
    let at_spare = the(&sent, SPARE).clone();
    assert_eq!(b.released, [at_gate.flow]);
    assert_eq!(b.send_for_one(SPARE, at_spare.answer(200)).status(), 200);
    assert_eq!(b.released.len(), 1);

    // Two phones at one address: the loser's end is not the call's.
    let mut b = with(|settings| settings.routes.change(Vec::clear));
    for user in ["bob", "desk"] {
        let uri = format!("sip:{user}@{GATE};transport=tcp");
        b.location.add(Default::default(), b"bob@example.com", uri.as_bytes(), 60).unwrap();
    }
    let sent = b.send(ALICE, Request::invite());
    let branches: Vec<_> = to(&sent, GATE).into_iter().cloned().collect();
    assert_eq!(branches.len(), 2);
    assert_eq!(branches[0].flow, branches[1].flow);
    b.send(GATE, branches[0].answer(180));
    b.send(GATE, branches[1].answer(200));
    b.send(GATE, branches[0].answer(487));
    assert_eq!(b.released, []);
    // And when both fail, the last one gives it back.
    let sent = b.send(ALICE, Request::invite());
    let branches: Vec<_> = to(&sent, GATE).into_iter().cloned().collect();
    b.send(GATE, branches[0].answer(486));
    assert_eq!(b.released, []);
    b.send(GATE, branches[1].answer(486));
    assert_eq!(b.released, [branches[0].flow]);
}

#[test]
fn a_route_may_differ_from_the_rest_and_its_dialogs_remember() {
    for (general, special) in [(Outgoing::Reuse, Outgoing::PerCall), (Outgoing::PerCall, Outgoing::Reuse)] {
        let mut b = with(|settings| {
            settings.outgoing = general;
            let special =
                Route { to_host: Some(b"far.example".to_vec().into()), outgoing: Some(special), ..settings.routes[0].clone() };
            settings.routes.change(|routes| routes.insert(0, special));
        });
        let at_gate = answered(&mut b);
        assert_eq!(call_of(&at_gate.flow) != 0, special == Outgoing::PerCall);
        let remote = format!("sip:bob@{GATE};transport=tcp");
        let bye = only(b.send(ALICE, within(&at_gate, "BYE", &remote)));
        assert_eq!(bye.flow, at_gate.flow);
        let other = only(b.send(ALICE, Request::new("MESSAGE", "sip:x@other.example")));
        assert_eq!(call_of(&other.flow) != 0, general == Outgoing::PerCall);
    }
}

#[test]
fn without_memory_the_response_to_a_bye_gives_it_back() {
    let mut b = with(|settings| settings.proxy.mode = Mode::Stateless);
    let at_gate = only(b.send(ALICE, invite()));
    let gate = b.open(Tcp, 0, 6, GATE);
    for status in [180, 200] {
        b.send_on(0, gate, at_gate.answer(status));
    }
    let remote = format!("sip:bob@{GATE};transport=tcp");
    let bye = only(b.send(ALICE, within(&at_gate, "BYE", &remote)));
    assert_eq!(bye.flow, at_gate.flow);
    b.send_on(0, gate, bye.answer(100));
    assert_eq!(b.released, []);
    b.send_on(0, gate, bye.answer(200));
    assert_eq!(b.released, [gate]);
}

#[test]
fn datagrams_are_never_given_back() {
    let mut b = with(|settings| {
        settings.routes = vec![route(Action::Relay(vec![hop(Udp, GATE, "")]))].into();
    });
    let at_gate = answered(&mut b);
    let remote = format!("sip:bob@{GATE}");
    let bye = within(&at_gate, "BYE", &remote);
    let bye = only(b.send(ALICE, bye));
    b.send(GATE, bye.answer(200));
    assert_eq!(b.released, []);
}
