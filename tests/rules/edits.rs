//! What a relay route changes in the requests that take it: the Request-URI, and header fields.

use std::sync::Arc;

use strowger::base::Transport;
use strowger::stack::route::{Action, Edits, NextHop, Route};
use strowger::stack::settings::Mode;

use crate::bench::*;
use crate::failover::hop;
use crate::message::Request;
use crate::names::{Zone, by_name};
use crate::proxy::route;

const GATE: &str = "10.0.5.1:5080";
const SPARE: &str = "10.0.5.2:5080";

fn edited(hops: Vec<NextHop>, edits: Edits) -> Route {
    Route { edits: Arc::new(edits), ..route(Action::Relay(hops)) }
}

fn number() -> Edits {
    Edits {
        strip: 1,
        prefix: b"0049".to_vec(),
        set_host: Some(b"carrier.example:5070".to_vec()),
        add_header: b"X-Account: 42\r\nX-Way: out\r\n".to_vec(),
        remove_header: vec![b"x-internal".to_vec(), b"subject".to_vec()],
    }
}

fn bench(edits: Edits) -> Bench {
    bench_in(Mode::Stateful, edits)
}

fn bench_in(mode: Mode, edits: Edits) -> Bench {
    let routes = vec![edited(vec![hop(GATE), hop(SPARE)], edits)];
    Bench::with(|settings| {
        settings.proxy.mode = mode;
        settings.routes = routes.into();
    })
}

fn invite() -> Request {
    Request::new("INVITE", "sip:030123@example.com;user=phone")
        .add("X-Internal: a")
        .add("x-INTERNAL: b")
        .add("s: lunch")
        .add("X-Internals: c")
}

#[track_caller]
fn check(copy: &Sent) {
    assert_eq!(copy.uri(), "sip:004930123@carrier.example:5070;user=phone");
    assert_eq!((copy.all("X-Account"), copy.all("X-Way")), (vec!["42"], vec!["out"]));
    assert_eq!((copy.all("X-Internal").len(), copy.all("Subject").len(), copy.all("s").len()), (0, 0, 0));
    assert_eq!(copy.all("X-Internals"), ["c"]);
}

#[test]
fn the_request_uri_and_the_header_fields_are_changed_on_every_pass() {
    let mut b = bench(number());
    let request = invite();
    let sent = b.send(ALICE, &request);
    let at_gate = the(&sent, GATE).clone();
    check(&at_gate);
    // The next target gets the same changes, once.
    let sent = b.send(GATE, at_gate.answer(503));
    let ack = the(&sent, GATE);
    assert_eq!((ack.method(), ack.uri()), ("ACK", at_gate.uri()));
    let at_spare = the(&sent, SPARE).clone();
    check(&at_spare);
    b.send(SPARE, at_spare.answer(180));
    let sent = b.send(ALICE, request.cancel());
    let cancel = the(&sent, SPARE);
    assert_eq!((cancel.method(), cancel.uri()), ("CANCEL", at_spare.uri()));
    b.send(SPARE, cancel.answer(200));
    let sent = b.send(SPARE, at_spare.answer(487));
    assert_eq!((the(&sent, SPARE).method(), the(&sent, SPARE).uri()), ("ACK", at_spare.uri()));
    b.send(ALICE, request.ack(the(&sent, ALICE)));
    b.assert_quiet();
}

#[test]
fn without_state_invite_and_cancel_are_changed_alike() {
    let mut b = bench_in(Mode::Stateless, number());
    let request = invite();
    let at_gate = only(b.send(ALICE, &request));
    check(&at_gate);
    assert_eq!(only(b.send(ALICE, &request)).bytes, at_gate.bytes);
    let cancel = only(b.send(ALICE, request.cancel()));
    assert_eq!((cancel.uri(), cancel.branch()), (at_gate.uri(), at_gate.branch()));
    let busy = b.send_for_one(GATE, at_gate.answer(486));
    let ack = only(b.send(ALICE, request.ack(&busy)));
    assert_eq!((ack.uri(), ack.branch()), (at_gate.uri(), at_gate.branch()));
}

#[test]
fn what_waits_for_a_name_leaves_with_its_changes() {
    for mode in [Mode::Stateful, Mode::Stateless] {
        let named = by_name("sip:gate.example.net:5080");
        let mut b = Bench::with(|settings| {
            settings.proxy.mode = mode;
            settings.routes = vec![edited(vec![named], number())].into();
        });
        assert!(b.send(ALICE, invite()).iter().all(|sent| sent.to == ALICE));
        assert!(!b.asked.is_empty());
        let sent = Zone::new("gate.example.net A 10.0.5.1").serve(&mut b);
        check(the(&sent, GATE));
    }
}

#[test]
fn a_number_that_is_too_short_is_answered_484() {
    for uri in ["sip:1@example.com", "sip:%31@example.com", "sip:example.com", "tel:1"] {
        let edits = Edits { strip: 2, prefix: b"7".to_vec(), ..Edits::default() };
        let mut b = bench(edits);
        let sent = only(b.send(ALICE, Request::new("INVITE", uri)));
        assert_eq!((sent.status(), sent.to.as_str()), (484, ALICE), "{uri}");
        b.assert_quiet();
    }
}

#[test]
fn separators_in_a_number_are_no_digits() {
    for (uri, strip, dialled) in [
        ("sip:00-49-30123@example.com", 4, "sip:+4930123@example.com"),
        ("sip:(0)900@example.com", 1, "sip:+49900@example.com"),
        ("sip:0.9.1@example.com", 0, "sip:+490.9.1@example.com"),
        ("sip:a-b@example.com", 1, "sip:+49-b@example.com"),
    ] {
        let mut b = bench(Edits { strip, prefix: b"+49".to_vec(), ..Edits::default() });
        let sent = b.send(ALICE, Request::new("INVITE", uri));
        assert_eq!(the(&sent, GATE).uri(), dialled, "{uri}");
    }
}

#[test]
fn a_tel_uri_becomes_a_sip_uri_at_the_host() {
    let edits = || Edits { set_host: Some(b"carrier.example".to_vec()), ..Edits::default() };
    let mut b = bench(edits());
    let sent = b.send(ALICE, Request::new("INVITE", "tel:+49-30-123;isub=1"));
    assert_eq!(the(&sent, GATE).uri(), "sip:+49-30-123;isub=1@carrier.example;user=phone");
}

#[test]
fn without_targets_the_request_goes_to_the_host_that_is_set() {
    let edits = || Edits { set_host: Some(b"10.0.5.9:5090".to_vec()), ..Edits::default() };
    let mut b = Bench::with(|settings| settings.routes = vec![edited(Vec::new(), edits())].into());
    let sent = b.send(ALICE, Request::new("INVITE", "sip:030123@example.com"));
    assert_eq!(the(&sent, "10.0.5.9:5090").uri(), "sip:030123@10.0.5.9:5090");
    // It is the conf's: this machine may be named. By a parameter of its own the caller reaches nothing there.
    let here = Edits { set_host: Some(b"127.0.0.1:5090".to_vec()), ..Edits::default() };
    let mut b = Bench::with(|settings| settings.routes = vec![edited(Vec::new(), here)].into());
    let sent = b.send(ALICE, Request::new("INVITE", "sip:030123@example.com"));
    assert_eq!(to(&sent, "127.0.0.1:5090").len(), 1, "{}", show(&sent));
    let mut b = Bench::with(|settings| settings.routes = vec![edited(Vec::new(), edits())].into());
    let sent = b.send(ALICE, Request::new("INVITE", "sip:030123@example.com;maddr=127.0.0.1"));
    let away: Vec<_> = sent.iter().filter(|sent| sent.to != ALICE).collect();
    assert!(away.is_empty(), "{}", show(&sent));
}

#[test]
fn within_a_dialog_nothing_is_changed() {
    let mut b = bench(number());
    let request = invite().add("Contact: <sip:alice@10.0.1.1:5060>");
    let sent = b.send(ALICE, &request);
    let at_gate = the(&sent, GATE).clone();
    let ok = b.send_for_one(GATE, at_gate.answer(200).add("Contact: <sip:gw@10.0.5.1:5080>"));
    let route = ok.header("Record-Route").unwrap();
    let bye = Request::new("BYE", "sip:gw@10.0.5.1:5080")
        .to(ok.header("To").unwrap())
        .call_id(ok.header("Call-ID").unwrap())
        .cseq(2)
        .add(&format!("Route: {route}"));
    let sent = b.send(ALICE, bye);
    let at_gate = the(&sent, GATE);
    assert_eq!((at_gate.method(), at_gate.uri()), ("BYE", "sip:gw@10.0.5.1:5080"));
    assert!(at_gate.all("X-Account").is_empty());
}

#[test]
fn a_request_that_comes_back_changed_is_a_spiral_and_ends_by_max_forwards() {
    // The next hop of the route sends everything back.
    let edits = Edits { prefix: b"7".to_vec(), ..Edits::default() };
    let mut b = bench(edits);
    let mut message = invite().set("Max-Forwards", "3").bytes();
    let mut passes = 0;
    loop {
        let from = if passes == 0 { ALICE } else { GATE };
        let sent = b.send(from, &message[..]);
        let Some(copy) = sent.iter().find(|sent| sent.method() == "INVITE") else {
            let last = sent.iter().find(|sent| sent.status() >= 300).expect("an answer");
            assert_eq!(last.status(), 483, "{}", show(&sent));
            break;
        };
        passes += 1;
        message = copy.bytes.clone();
    }
    assert_eq!(passes, 3);
    // What comes back as it was is a loop.
    let same = Edits { add_header: b"X-Account: 42\r\n".to_vec(), ..Edits::default() };
    let mut b = bench(same);
    let sent = b.send(ALICE, invite());
    let copy = the(&sent, GATE).bytes.clone();
    let sent = b.send(GATE, &copy[..]);
    assert!(sent.iter().any(|sent| sent.status() == 482), "{}", show(&sent));
}

#[test]
fn what_is_too_large_for_a_datagram_with_its_changes_goes_by_tcp() {
    let edits = Edits { add_header: format!("X-Long: {}\r\n", "x".repeat(1200)).into_bytes(), ..Edits::default() };
    let routes = vec![edited(vec![hop(GATE)], edits)];
    let mut b = Bench::with(|settings| {
        settings.listeners = listeners();
        settings.routes = routes.into();
    });
    let sent = b.send(ALICE, invite());
    assert_eq!(the(&sent, GATE).flow.transport, Transport::Tcp);
}
