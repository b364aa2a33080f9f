//! The stateless proxy (RFC 3261 §16.11).

use strowger::stack::Element;
use strowger::stack::settings::Mode;

use crate::bench::*;
use crate::failover::hop;
use crate::message::Request;
use crate::proxy::route;
use strowger::stack::route::{Action, Route};

fn bench() -> Bench {
    let mut b = Bench::with(|settings| settings.proxy.mode = Mode::Stateless);
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    b
}

#[test]
fn a_call_passes_and_nothing_is_remembered() {
    let mut b = bench();
    let at_bob = only(b.send(ALICE, Request::invite()));
    assert_eq!((at_bob.to.as_str(), at_bob.uri()), (BOB, "sip:bob@10.0.1.2:5060"));
    assert_eq!(at_bob.header("Max-Forwards"), Some("69"));
    assert!(b.cores[0].occupancy().is_quiet());
    for status in [100, 180, 200, 200] {
        // Even a 100 passes: there is nobody else to send one.
        let answer = b.send_for_one(BOB, at_bob.answer(status));
        assert_eq!((answer.status(), answer.to.as_str()), (status, ALICE));
        assert_eq!(answer.all("Via").len(), 1);
    }
    assert!(b.cores[0].occupancy().is_quiet());
    assert!(b.tick(100_000).is_empty());
}

#[test]
fn a_retransmission_is_forwarded_bit_for_bit_alike() {
    let mut b = bench();
    let request = Request::invite();
    let first = only(b.send(ALICE, &request));
    b.tick(500);
    assert_eq!(only(b.send(ALICE, &request)).bytes, first.bytes);
    let other = only(b.send(ALICE, Request::invite()));
    assert_ne!(other.branch(), first.branch());
}

#[test]
fn cancel_and_the_ack_to_a_non_2xx_have_the_branch_of_their_invite() {
    let mut b = bench();
    let request = Request::invite();
    let at_bob = only(b.send(ALICE, &request));
    let cancel = only(b.send(ALICE, request.cancel()));
    assert_eq!((cancel.to.as_str(), cancel.method()), (BOB, "CANCEL"));
    assert_eq!(cancel.branch(), at_bob.branch());
    assert_eq!(cancel.uri(), at_bob.uri());
    let busy = b.send_for_one(BOB, at_bob.answer(486));
    let ack = only(b.send(ALICE, request.ack(&busy)));
    assert_eq!((ack.to.as_str(), ack.branch()), (BOB, at_bob.branch()));
    // Without the magic cookie too (RFC 2543 callers).
    let request = Request::invite().set("Via", "SIP/2.0/UDP 10.0.1.1:5060");
    let at_bob = only(b.send(ALICE, &request));
    let cancel = only(b.send(ALICE, request.cancel()));
    assert_eq!(cancel.branch(), at_bob.branch());
}

#[test]
fn they_take_its_way_where_a_route_names_only_invite() {
    let gate = "10.0.5.1:5080";
    let mut b = Bench::with(|settings| {
        settings.proxy.mode = Mode::Stateless;
        settings.routes = vec![Route { methods: vec![b"INVITE".to_vec()], ..route(Action::Relay(vec![hop(gate)])) }].into();
    });
    let request = Request::new("INVITE", "sip:1@carrier.example");
    let at_gate = only(b.send(ALICE, &request));
    let cancel = only(b.send(ALICE, request.cancel()));
    assert_eq!((cancel.to.as_str(), cancel.branch()), (gate, at_gate.branch()));
    let busy = b.send_for_one(gate, at_gate.answer(486));
    assert_eq!(only(b.send(ALICE, request.ack(&busy))).to, gate);
}

#[test]
fn it_forks_to_nobody_and_takes_the_best_target() {
    let mut b = bench();
    b.register("carol", "<sip:carol@10.0.1.3:5060>;q=0.4");
    b.register("carol", "<sip:carol@10.0.1.4:5060>;q=0.9");
    let sent = b.send(ALICE, Request::new("INVITE", "sip:carol@example.com"));
    assert_eq!(only(sent).to, DAVE);
}

#[test]
fn what_it_refuses_it_answers_and_the_ack_ends_here() {
    let mut b = bench();
    for (request, status) in [
        (Request::new("INVITE", "sip:nobody@example.com"), 404),
        (Request::invite().set("Max-Forwards", "0"), 483),
        (Request::invite().add("Proxy-Require: x"), 420),
        (Request::invite().add("Max-Breadth: 0"), 440),
    ] {
        let answer = b.send_for_one(ALICE, &request);
        assert_eq!(answer.status(), status);
        assert!(b.send(ALICE, request.ack(&answer)).is_empty());
    }
}

#[test]
fn a_cancel_goes_round_no_longer_than_its_max_forwards() {
    let mut b = bench();
    let cancel = Request::invite().cancel().set("Max-Forwards", "0");
    let sent = b.send(ALICE, cancel);
    assert!(sent.iter().all(|s| s.status() == 483), "{}", show(&sent));
}

#[test]
fn the_ack_to_a_2xx_follows_its_route() {
    let mut b = bench();
    let request = Request::invite();
    let at_bob = only(b.send(ALICE, &request));
    let ok = b.send_for_one(BOB, at_bob.answer(200));
    let ack = Request::new("ACK", "sip:bob@10.0.1.2:5060")
        .to(ok.header("To").unwrap())
        .call_id(ok.header("Call-ID").unwrap())
        .top(&format!("Route: {}", ok.header("Record-Route").unwrap()));
    let ack = only(b.send(ALICE, ack));
    assert_eq!((ack.to.as_str(), ack.all("Route").len()), (BOB, 0));
}

#[test]
fn responses_whose_branch_it_did_not_make_are_dropped() {
    let mut b = bench();
    let at_bob = only(b.send(ALICE, Request::invite()));
    let real = String::from_utf8(at_bob.answer(200).bytes()).unwrap();
    let branch = at_bob.branch();
    for at in 8..branch.len() {
        let digit = if &branch[at..=at] == "0" { "1" } else { "0" };
        let forged = real.replace(branch, &format!("{}{digit}{}", &branch[..at], &branch[at + 1..]));
        assert!(b.send(BOB, forged.as_str()).is_empty(), "digit {at}");
    }
}

#[test]
fn a_loop_is_noticed_without_memory() {
    let mut b = bench();
    let at_bob = only(b.send(ALICE, Request::invite()));
    let looped = at_bob.to_string().replacen("sip:bob@10.0.1.2:5060 ", "sip:bob@example.com ", 1).replacen(
        "Via:",
        "Via: SIP/2.0/UDP 10.0.1.2:5060;branch=z9hG4bKb\r\nVia:",
        1,
    );
    assert_eq!(b.send_for_one(BOB, looped.as_str()).status(), 482);
}
