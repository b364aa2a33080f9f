//! A relay route that shares its requests out among its next hops by weight (RFC 2782), all requests of a call the same.

use std::collections::BTreeMap;

use strowger::stack::route::{Action, Route};
use strowger::stack::settings::Mode;

use crate::bench::*;
use crate::failover::hop;
use crate::message::Request;
use crate::proxy::route;

const FIRST: &str = "10.0.5.1:5080";
const SECOND: &str = "10.0.5.2:5080";
const THIRD: &str = "10.0.5.3:5080";

fn bench(weights: &[u16], mode: Mode) -> Bench {
    let hops = [FIRST, SECOND, THIRD].map(hop);
    let route = Route { weights: weights.to_vec(), ..route(Action::Relay(hops.into())) };
    Bench::with(|settings| {
        settings.proxy.mode = mode;
        settings.proxy.record_route = false;
        settings.routes = vec![route].into();
        settings.cores = 2;
    })
}

fn request(method: &str, call: &str) -> Request {
    Request::new(method, "sip:+4930123@carrier.example").call_id(call)
}

/// To which next hop this leaves.
fn first_hop(sent: &[Sent]) -> String {
    let mut away = sent.iter().filter(|sent| sent.to != ALICE);
    let one = away.next().expect("a copy that left").to.clone();
    assert!(away.next().is_none(), "{}", show(sent));
    one
}

#[test]
fn each_next_hop_has_its_share() {
    for mode in [Mode::Stateful, Mode::Stateless] {
        let mut b = bench(&[1, 3, 0], mode);
        let mut shares = BTreeMap::new();
        for call in 0..800 {
            let sent = b.send(ALICE, request("MESSAGE", &format!("call-{call}")));
            *shares.entry(first_hop(&sent)).or_insert(0u32) += 1;
        }
        let share = |at: &str| shares.get(at).copied().unwrap_or(0);
        assert!((150..=250).contains(&share(FIRST)), "{shares:?}");
        assert!((550..=650).contains(&share(SECOND)), "{shares:?}");
        assert_eq!(share(THIRD), 0, "one without a weight is for when the others fail");
    }
}

#[test]
fn all_requests_of_a_call_go_the_same_way_on_every_core_and_without_state() {
    for mode in [Mode::Stateful, Mode::Stateless] {
        let mut b = bench(&[1, 1, 1], mode);
        let mut ways = BTreeMap::new();
        for number in 0..40 {
            let call = format!("call-{number}");
            let way = first_hop(&b.send_by(0, 0, ALICE, request("MESSAGE", &call)));
            for method in ["OPTIONS", "INFO", "BYE"] {
                let sent = b.send_by(1, 0, ALICE, request(method, &call).to("<sip:b@carrier.example>;tag=b"));
                assert_eq!(first_hop(&sent), way, "{method} of {call}");
            }
            *ways.entry(way).or_insert(0) += 1;
        }
        assert_eq!(ways.len(), 3, "{ways:?}");
    }
}

#[test]
fn cancel_follows_its_invite_without_state() {
    let mut b = bench(&[1, 1, 1], Mode::Stateless);
    for number in 0..20 {
        let invite = request("INVITE", &format!("call-{number}"));
        let way = first_hop(&b.send(ALICE, &invite));
        let cancel = b.send(ALICE, invite.cancel());
        assert_eq!((first_hop(&cancel), cancel[0].method()), (way, "CANCEL"));
    }
}

#[test]
fn who_fails_is_followed_by_the_others_and_the_one_without_weight_comes_last() {
    let mut firsts = BTreeMap::new();
    for number in 0..40 {
        let mut b = bench(&[1, 0, 1], Mode::Stateful);
        let invite = request("INVITE", &format!("call-{number}"));
        let mut sent = b.send(ALICE, &invite);
        let mut way = Vec::new();
        for _ in 0..3 {
            let copy = sent.iter().find(|sent| sent.method() == "INVITE").expect("a copy").clone();
            way.push(copy.to.clone());
            sent = b.send(&copy.to, copy.answer(503));
        }
        assert_eq!(way[2], SECOND, "{way:?}");
        assert_ne!(way[0], way[1]);
        *firsts.entry(way[0].clone()).or_insert(0) += 1;
        assert_eq!(the(&sent, ALICE).status(), 500);
        b.send(ALICE, invite.ack(the(&sent, ALICE)));
        b.assert_quiet();
    }
    assert_eq!(firsts.len(), 2, "both with a weight come first at times: {firsts:?}");
}
