//! Relay routes with several next hops: the others are spares, tried in order when the one before has failed.

use strowger::base::Transport;
use strowger::stack::Element;
use strowger::stack::route::{Action, Network, NextHop, Route};

use crate::bench::*;
use crate::message::Request;
use crate::proxy::route;

const GATE: &str = "10.0.5.1:5080";
const SPARE: &str = "10.0.5.2:5080";
const LAST: &str = "10.0.5.3:5080";

pub fn hop(at: &str) -> NextHop {
    NextHop {
        identity: 0,
        uri: format!("sip:{at}").parse().unwrap(),
        address: Some(address(at)),
        transport: Transport::Udp,
        host: address(at).ip().to_string().into_bytes(),
    }
}

fn relay(hops: &[&str]) -> Route {
    route(Action::Relay(hops.iter().map(|at| hop(at)).collect()))
}

fn bench(hops: &[&str]) -> Bench {
    let routes = vec![relay(hops)];
    Bench::with(|settings| settings.routes = routes.into())
}

fn invite() -> Request {
    Request::new("INVITE", "sip:+4930123@carrier.example")
}

#[test]
fn a_relay_route_sends_to_its_first_hop_and_keeps_the_request_uri() {
    let mut b = bench(&[GATE, SPARE]);
    let sent = b.send(ALICE, invite());
    assert_eq!(sent.len(), 2, "{}", show(&sent));
    let at_gate = the(&sent, GATE);
    assert_eq!(at_gate.uri(), "sip:+4930123@carrier.example");
    let answer = b.send_for_one(GATE, at_gate.answer(200));
    assert_eq!((answer.status(), answer.to.as_str()), (200, ALICE));
    b.assert_quiet();
}

#[test]
fn a_hop_that_answers_503_is_followed_by_the_next() {
    let mut b = bench(&[GATE, SPARE, LAST]);
    let request = invite();
    let sent = b.send(ALICE, &request);
    let at_gate = the(&sent, GATE).clone();
    let sent = b.send(GATE, at_gate.answer(503));
    assert_eq!(the(&sent, GATE).method(), "ACK");
    let at_spare = the(&sent, SPARE).clone();
    assert_eq!(at_spare.method(), "INVITE");
    assert_eq!(to(&sent, ALICE).len(), 0);
    assert_ne!(at_spare.branch(), at_gate.branch());
    let sent = b.send(SPARE, at_spare.answer(503));
    let at_last = the(&sent, LAST).clone();
    // All have failed: 500, since 503 says nothing of us (§16.7 step 6).
    let sent = b.send(LAST, at_last.answer(503));
    let answer = the(&sent, ALICE);
    assert_eq!(answer.status(), 500);
    b.send(ALICE, request.ack(answer));
    b.assert_quiet();
}

#[test]
fn a_hop_that_says_nothing_is_followed_by_the_next_when_patience_is_over() {
    let mut b = bench(&[GATE, SPARE]);
    b.send(ALICE, invite());
    let sent = b.tick(4000);
    let at_spare = the(&sent, SPARE);
    assert_eq!((at_spare.at, at_spare.method()), (4000, "INVITE"));
    let ok = b.send_for_one(SPARE, at_spare.answer(200));
    assert_eq!((ok.status(), ok.to.as_str()), (200, ALICE));
    b.assert_quiet();
}

#[test]
fn a_hop_whose_port_is_closed_is_followed_by_the_next_at_once() {
    let mut b = bench(&[GATE, SPARE]);
    let sent = b.send(ALICE, invite());
    // An ICMP error brings back only the beginning of the datagram.
    let sent = b.undelivered(&the(&sent, GATE).bytes[..200]);
    let at_spare = only(sent);
    assert_eq!((at_spare.to.as_str(), at_spare.method()), (SPARE, "INVITE"));
    let sent = b.undelivered(&at_spare.bytes);
    assert_eq!(only(sent).status(), 500);
    b.assert_quiet();
}

#[test]
fn a_forged_report_of_a_closed_port_ends_nothing() {
    let mut b = bench(&[GATE, SPARE]);
    let sent = b.send(ALICE, invite());
    let at_gate = the(&sent, GATE).clone();
    let branch = at_gate.branch().to_string();
    let forged = at_gate.to_string().replace(&branch, "z9hG4bKs0000000000000001000");
    assert!(b.undelivered(forged.as_bytes()).is_empty());
    for cut in 0..at_gate.bytes.len() {
        let report = &at_gate.bytes[..cut];
        if !String::from_utf8_lossy(report).contains(&branch) {
            assert!(b.undelivered(report).is_empty());
        }
    }
    assert_eq!(b.send_for_one(GATE, at_gate.answer(180)).status(), 180);
    // Once it rings, a late report says nothing either.
    assert!(b.undelivered(&at_gate.bytes).is_empty());
    b.assert_quiet();
}

#[test]
fn an_answer_about_the_callee_is_final_and_no_spare_is_asked() {
    for status in [302, 401, 404, 407, 486, 500, 603] {
        let mut b = bench(&[GATE, SPARE]);
        let request = invite();
        let sent = b.send(ALICE, &request);
        let at_gate = the(&sent, GATE).clone();
        let sent = b.send(GATE, at_gate.answer(status));
        assert_eq!(to(&sent, SPARE).len(), 0, "{status}");
        let answer = the(&sent, ALICE);
        assert_eq!(answer.status(), status);
        b.send(ALICE, request.ack(answer));
        b.assert_quiet();
    }
}

#[test]
fn after_a_cancel_no_spare_is_asked() {
    let mut b = bench(&[GATE, SPARE]);
    let request = invite();
    let sent = b.send(ALICE, &request);
    let at_gate = the(&sent, GATE).clone();
    b.send(ALICE, request.cancel());
    let sent = b.send(GATE, at_gate.answer(503));
    assert_eq!(to(&sent, SPARE).len(), 0);
    let answer = the(&sent, ALICE);
    assert_eq!(answer.status(), 487);
    b.send(ALICE, request.ack(answer));
    b.assert_quiet();
}

#[test]
fn other_requests_fail_over_too() {
    let mut b = bench(&[GATE, SPARE]);
    let sent = b.send(ALICE, Request::new("MESSAGE", "sip:x@carrier.example"));
    let at_gate = only(sent);
    let at_spare = b.send_for_one(GATE, at_gate.answer(503));
    assert_eq!((at_spare.to.as_str(), at_spare.method()), (SPARE, "MESSAGE"));
    let answer = b.send_for_one(SPARE, at_spare.answer(202));
    assert_eq!((answer.status(), answer.to.as_str()), (202, ALICE));
    b.assert_quiet();
}

#[test]
fn reject_answers_its_status_and_its_ack_ends_here() {
    let mut b = Bench::with(|settings| settings.routes = vec![route(Action::Reject(403))].into());
    let request = invite();
    let answer = b.send_for_one(ALICE, &request);
    assert_eq!(answer.status(), 403);
    assert!(b.send(ALICE, request.ack(&answer)).is_empty());
    b.assert_quiet();
}

#[test]
fn the_first_route_whose_conditions_all_hold_wins() {
    let network = |text: &str, prefix| Network { address: text.parse().unwrap(), prefix };
    let routes = vec![
        Route { to_user_prefix: Some(b"0900".to_vec()), ..route(Action::Reject(403)) },
        Route {
            to_host: Some(b"carrier.example".to_vec().into()),
            from_source: vec![network("10.0.1.0", 24), network("2001:db8::", 32)],
            ..relay(&[GATE])
        },
        Route { methods: vec![b"MESSAGE".to_vec()], ..relay(&[SPARE]) },
    ];
    let mut b = Bench::with(|settings| settings.routes = routes.into());
    let mut where_to = |from: &str, method: &str, uri: &str| {
        let sent = b.send(from, Request::new(method, uri));
        let last = sent.last().unwrap();
        match last.status() {
            0 => last.to.clone(),
            status => status.to_string(),
        }
    };
    assert_eq!(where_to(ALICE, "OPTIONS", "sip:1@carrier.example"), GATE);
    assert_eq!(where_to(ALICE, "OPTIONS", "sip:1@CARRIER.example"), GATE);
    assert_eq!(where_to(ALICE, "OPTIONS", "sip:09001@carrier.example"), "403");
    assert_eq!(where_to("10.0.2.1:5060", "OPTIONS", "sip:1@carrier.example"), "404");
    assert_eq!(where_to("10.0.2.1:5060", "MESSAGE", "sip:1@carrier.example"), SPARE);
    // The number hidden behind escapes is the same number (§19.1.4).
    assert_eq!(where_to(ALICE, "OPTIONS", "sip:%30%39%30%30@carrier.example"), "403");
}

#[test]
fn a_tel_uri_goes_where_a_route_says_and_nowhere_without() {
    let routes = vec![Route { to_user_prefix: Some(b"+49".to_vec()), ..relay(&[GATE]) }];
    let mut b = Bench::with(|settings| settings.routes = routes.into());
    let sent = b.send(ALICE, Request::new("INVITE", "tel:+4930123456"));
    assert_eq!(the(&sent, GATE).uri(), "tel:+4930123456");
    // Visual separators do not change the number (RFC 3966 §4).
    let sent = b.send(ALICE, Request::new("MESSAGE", "tel:+4-9(30)12"));
    assert_eq!(only(sent).to, GATE);
    let answer = b.send_for_one(ALICE, Request::new("INVITE", "tel:+1555"));
    assert_eq!(answer.status(), 404);
}

#[test]
fn a_relay_route_without_hops_follows_the_request_uri() {
    let mut b = bench(&[]);
    let sent = b.send(ALICE, Request::new("INVITE", "sip:x@10.0.7.7:5099"));
    assert_eq!(the(&sent, "10.0.7.7:5099").uri(), "sip:x@10.0.7.7:5099");
    let sent = b.send(ALICE, Request::new("MESSAGE", "sip:x@far.example;maddr=10.0.7.8"));
    assert_eq!(only(sent).to, "10.0.7.8:5060");
    // A name that nobody knows anything of in time.
    let sent = b.send(ALICE, Request::new("MESSAGE", "sip:x@name.example"));
    assert!(sent.is_empty(), "{}", show(&sent));
    let sent = b.tick(4000);
    assert_eq!(sent.last().map(|answer| answer.status()), Some(500));
}

#[test]
fn a_cancel_and_an_ack_take_the_way_of_their_invite_whatever_the_routes_methods() {
    let mut b = Bench::with(|settings| {
        settings.proxy.record_route = false;
        settings.routes = vec![Route { methods: vec![b"INVITE".to_vec()], ..relay(&[GATE]) }].into();
    });
    let request = invite();
    let sent = b.send(ALICE, &request);
    let at_gate = the(&sent, GATE).clone();
    b.send(GATE, at_gate.answer(200));
    // Without Record-Route and through an outbound proxy: the ACK to the 2xx comes with a branch of its own.
    let ack = Request::new("ACK", "sip:+4930123@carrier.example").to("<sip:x@y>;tag=callee");
    let ack = only(b.send(ALICE, ack));
    assert_eq!((ack.to.as_str(), ack.method()), (GATE, "ACK"));
    b.assert_quiet();
}

#[test]
fn a_config_change_holds_for_what_comes_next() {
    let mut b = bench(&[GATE, SPARE]);
    let request = invite();
    let sent = b.send(ALICE, &request);
    let at_gate = the(&sent, GATE).clone();
    let settings =
        strowger::stack::Settings { listeners: vec![listener(PROXY)], routes: vec![relay(&[LAST])].into(), ..Default::default() };
    b.cores[0].handle_config(std::sync::Arc::new(settings));
    // What is under way keeps its targets.
    let sent = b.send(GATE, at_gate.answer(503));
    assert_eq!(the(&sent, SPARE).method(), "INVITE");
    let sent = b.send(ALICE, invite());
    assert_eq!(the(&sent, LAST).method(), "INVITE");
    b.assert_quiet();
}
