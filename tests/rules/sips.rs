//! SIPS (RFC 5630): TLS on every hop or not at all, and no rewriting from one scheme to the other but where the RFC has it.

use strowger::base::Flow;
use strowger::base::Transport::*;
use strowger::stack::Settings;
use strowger::stack::route::Action;
use strowger::stack::settings::Mode;

use crate::bench::*;
use crate::message::Request;
use crate::proxy::route;
use crate::streams::hop;

const GATE: &str = "10.0.5.1:5071";
const BOB_TLS: &str = "10.0.1.2:5061";

fn with(change: impl FnOnce(&mut Settings)) -> (Bench, Flow) {
    let mut b = Bench::with(|settings| {
        settings.listeners = listeners();
        change(settings);
    });
    let alice = b.open(Tls, 0, 1, ALICE);
    (b, alice)
}

fn bench() -> (Bench, Flow) {
    with(|_| ())
}

fn relay(action: Action) -> (Bench, Flow) {
    with(|settings| settings.routes = vec![route(action)].into())
}

/// Bob registers over TLS; his connection and the status.
fn register(b: &mut Bench, uri: &str, lines: &[&str]) -> (Flow, Sent) {
    let bob = b.open(Tls, 0, 2, BOB_TLS);
    let mut request = Request::new("REGISTER", uri)
        .via(BOB_TLS, &format!("z9hG4bKreg{}", crate::message::unique()))
        .by(Tls)
        .to("<sip:bob@example.com>");
    for line in lines {
        request = request.add(line);
    }
    (bob, only(b.send_on(0, bob, request)))
}

fn bob_is_secure(b: &mut Bench) -> Flow {
    let (bob, answer) = register(b, "sips:example.com", &["Contact: <sips:bob@10.0.1.2>"]);
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.header("Contact").unwrap().split('>').next(), Some("<sips:bob@10.0.1.2"));
    bob
}

#[test]
fn a_sips_request_goes_to_a_sips_contact_over_tls() {
    let (mut b, alice) = bench();
    let bob = bob_is_secure(&mut b);
    let request = Request::new("MESSAGE", "sips:bob@example.com").by(Tls);
    let sent = only(b.send_on(0, alice, &request));
    assert_eq!((sent.flow, sent.uri()), (bob, "sips:bob@10.0.1.2"));
    // And by a new connection when that one is gone.
    b.lose(bob);
    let sent = only(b.send_on(0, alice, request.via("10.0.1.1", "z9hG4bKagain").by(Tls)));
    assert_eq!((sent.flow.transport, sent.to.as_str()), (Tls, BOB_TLS));
    assert_eq!(sent.host.as_deref(), Some("10.0.1.2"));
}

#[test]
fn a_sips_request_goes_to_no_sip_contact() {
    let (mut b, alice) = bench();
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let request = Request::new("MESSAGE", "sips:bob@example.com").by(Tls);
    let answer = only(b.send_on(0, alice, request));
    assert_eq!(answer.status(), 480);
    let warning = answer.header("Warning");
    assert_eq!(warning, Some("380 10.0.0.1:5061 \"SIPS Not Allowed\""));
}

#[test]
fn a_sip_request_reaches_a_sips_contact_as_a_sip_request_over_tls() {
    let (mut b, _) = bench();
    let bob = bob_is_secure(&mut b);
    let request = Request::new("MESSAGE", "sip:bob@example.com");
    let sent = only(b.send(ALICE, &request));
    assert_eq!((sent.flow, sent.uri()), (bob, "sip:bob@10.0.1.2"));
    b.lose(bob);
    let sent = only(b.send(ALICE, request.via("10.0.1.1:5060", "z9hG4bKagain")));
    assert_eq!((sent.flow.transport, sent.to.as_str()), (Tls, BOB_TLS));
    assert_eq!(sent.uri(), "sip:bob@10.0.1.2");
}

#[test]
fn a_redirect_shows_the_contact_as_it_was_registered() {
    let (mut b, _) = with(|settings| settings.proxy.redirect = true);
    bob_is_secure(&mut b);
    let answer = b.send_for_one(ALICE, Request::new("MESSAGE", "sip:bob@example.com"));
    assert_eq!(answer.header("Contact"), Some("<sips:bob@10.0.1.2>"));
}

#[test]
fn a_sips_request_that_came_without_tls_is_refused() {
    let (mut b, _) = bench();
    bob_is_secure(&mut b);
    let alice = b.open(Tcp, 0, 5, ALICE);
    for flow in [alice, Flow::datagram(0, address(ALICE))] {
        for method in ["MESSAGE", "REGISTER", "INVITE"] {
            let request = Request::new(method, "sips:bob@example.com").by(flow.transport);
            let answer = only(b.send_on(0, flow, request));
            assert_eq!(answer.status(), 400, "{method} over {:?}", flow.transport);
        }
    }
}

#[test]
fn a_next_hop_without_tls_is_no_next_hop_for_a_sips_request() {
    for hops in [vec![hop(Tcp, GATE, "")], vec![hop(Udp, GATE, "")]] {
        for mode in [Mode::Stateful, Mode::Stateless] {
            let (mut b, alice) = with(|settings| {
                settings.proxy.mode = mode;
                settings.routes = vec![route(Action::Relay(hops.clone()))].into();
            });
            let request = Request::new("MESSAGE", "sips:bob@far.example").by(Tls);
            let answer = only(b.send_on(0, alice, request));
            assert_eq!(answer.status(), 480);
            let warning = answer.header("Warning");
            assert_eq!(warning, Some("380 10.0.0.1:5061 \"SIPS Not Allowed\""));
        }
    }
    let (mut b, alice) = relay(Action::Relay(vec![hop(Tls, GATE, "gate.example")]));
    let request = Request::new("MESSAGE", "sips:bob@far.example").by(Tls);
    let sent = only(b.send_on(0, alice, request));
    assert_eq!((sent.to.as_str(), sent.flow.transport), (GATE, Tls));
}

#[test]
fn a_sips_request_uri_makes_sips_of_the_route() {
    let (mut b, alice) = relay(Action::Relay(vec![]));
    let mut to = |route: &str| {
        let request = Request::new("MESSAGE", "sips:bob@far.example")
            .by(Tls)
            .via("10.0.1.1", &format!("z9hG4bKr{}", crate::message::unique()))
            .by(Tls)
            .add(&format!("Route: <{route};lr>"));
        let sent = only(b.send_on(0, alice, request));
        (sent.status(), sent.flow.transport, sent.to)
    };
    for route in ["sip:10.0.6.6", "sips:10.0.6.6", "sip:10.0.6.6;transport=tcp"] {
        assert_eq!(to(route), (0, Tls, "10.0.6.6:5061".into()), "{route}");
    }
    assert_eq!(to("sip:10.0.6.6;transport=udp").0, 480);
    // The other way round a SIPS route makes the hop secure, and the request stays what it is.
    let request = Request::new("MESSAGE", "sip:bob@far.example").add("Route: <sips:10.0.6.6;lr>");
    let sent = only(b.send(ALICE, request));
    assert_eq!((sent.flow.transport, sent.uri()), (Tls, "sip:bob@far.example"));
}

#[test]
fn a_sips_contact_is_bound_only_where_all_is_sips() {
    let (mut b, _) = bench();
    for (uri, lines) in [
        ("sip:example.com", &["Contact: <sips:bob@10.0.1.2>"][..]),
        ("sips:example.com", &["Contact: <sips:bob@10.0.1.2>, <sip:bob@10.0.1.3>"]),
        ("sips:example.com", &["Contact: <sips:bob@10.0.1.2>", "Path: <sips:10.0.6.6;lr>, <sip:10.0.6.7;lr>"]),
    ] {
        let (_, answer) = register(&mut b, uri, lines);
        assert_eq!(answer.status(), 400, "{uri} {lines:?}");
    }
    assert_eq!(b.location.bindings(), 0);
    let lines = ["Contact: <sips:bob@10.0.1.2>", "Path: <sips:10.0.6.6;lr>"];
    assert_eq!(register(&mut b, "sips:example.com", &lines).1.status(), 200);
    // A SIP contact may come by either.
    assert_eq!(register(&mut b, "sips:example.com", &["Contact: <sip:bob@10.0.1.4>"]).1.status(), 200);
}

#[test]
fn the_sips_version_of_a_contact_replaces_the_sip_version_and_back() {
    let (mut b, _) = bench();
    for contact in ["sip:bob@10.0.1.2", "sips:bob@10.0.1.2", "sip:bob@10.0.1.2"] {
        let line = format!("Contact: <{contact}>");
        let (_, answer) = register(&mut b, "sips:example.com", &[&line]);
        assert_eq!(answer.status(), 200);
        let contacts = answer.all("Contact");
        assert_eq!(contacts.len(), 1, "{answer}");
        assert!(contacts[0].starts_with(&format!("<{contact}>")), "{answer}");
    }
    // And each removes the other.
    let (_, answer) = register(&mut b, "sips:example.com", &["Contact: <sips:bob@10.0.1.2>;expires=0"]);
    assert_eq!((answer.status(), answer.all("Contact").len()), (200, 0));
}

#[test]
fn a_dialog_by_sips_stays_by_tls() {
    let (mut b, alice) = bench();
    let bob = bob_is_secure(&mut b);
    let request = Request::new("INVITE", "sips:bob@example.com").by(Tls).add("Contact: <sips:alice@10.0.1.1>");
    let sent = b.send_on(0, alice, &request);
    let at_bob = the(&sent, BOB_TLS).clone();
    let record = at_bob.header("Record-Route").unwrap();
    assert!(record.starts_with("<sips:10.0.0.1:5061;lr;sc="), "{record}");
    b.send_on(0, bob, at_bob.answer(200));
    let bye = Request::new("BYE", "sips:bob@10.0.1.2")
        .by(Tls)
        .to("<sips:bob@example.com>;tag=callee")
        .call_id(at_bob.header("Call-ID").unwrap())
        .add(&format!("Route: {record}"));
    let at_bob = only(b.send_on(0, alice, &bye));
    assert_eq!((at_bob.flow, at_bob.uri()), (bob, "sips:bob@10.0.1.2"));
}
