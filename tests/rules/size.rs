//! The size of a request chooses its transport where nothing else does (RFC 3261 §18.1.1).

use strowger::base::Transport::*;
use strowger::stack::route::Action;

use crate::bench::*;
use crate::failover;
use crate::message::Request;
use crate::proxy::route;
use crate::streams::hop;

const GATE: &str = "10.0.5.1:5070";
const SPARE: &str = "10.0.5.2:5070";

fn bench(action: Action) -> Bench {
    Bench::with(|settings| {
        settings.listeners = listeners();
        settings.routes = vec![route(action)].into();
    })
}

fn large(method: &str, uri: &str) -> Request {
    Request::new(method, uri).body(&"x".repeat(1300))
}

#[test]
fn a_large_request_goes_by_tcp_where_the_uri_names_no_transport() {
    let mut b = bench(Action::Relay(vec![]));
    for (uri, transport) in
        [("sip:x@10.0.7.7:5066", Tcp), ("sip:x@10.0.7.7:5066;transport=udp", Udp), ("sip:x@10.0.7.7:5066;transport=tls", Tls)]
    {
        let sent = only(b.send(ALICE, large("MESSAGE", uri)));
        assert_eq!((sent.flow.transport, sent.to.as_str()), (transport, "10.0.7.7:5066"), "{uri}");
        let via = format!("SIP/2.0/{} ", transport.name());
        assert!(sent.header("Via").unwrap().starts_with(&via), "{sent}");
        assert_eq!(sent.uri(), uri);
    }
    b.assert_quiet();
}

#[test]
fn the_rule_counts_the_bytes_that_leave() {
    let mut b = bench(Action::Relay(vec![]));
    let transport_of = |b: &mut Bench, body: usize| {
        let request = Request::new("MESSAGE", "sip:x@10.0.7.7").body(&"x".repeat(body));
        let sent = only(b.send(ALICE, request));
        (sent.bytes.len(), sent.flow.transport)
    };
    let (empty, _) = transport_of(&mut b, 100);
    let rest = 1300 - (empty - 100);
    for body in rest - 8..rest + 8 {
        let (len, transport) = transport_of(&mut b, body);
        match transport {
            Udp => assert!(len <= 1300, "{len}"),
            _ => assert!(len > 1300 - 2, "{len}"),
        }
    }
}

#[test]
fn without_a_tcp_listener_it_stays_with_udp() {
    let mut b = Bench::with(|settings| settings.routes = vec![route(Action::Relay(vec![]))].into());
    let sent = only(b.send(ALICE, large("MESSAGE", "sip:x@10.0.7.7")));
    assert_eq!(sent.flow.transport, Udp);
}

#[test]
fn a_next_hop_of_the_conf_is_changed_only_where_the_conf_names_no_transport() {
    let open = failover::hop(GATE);
    let mut b = bench(Action::Relay(vec![open]));
    let sent = only(b.send(ALICE, large("MESSAGE", "sip:x@far.example")));
    assert_eq!((sent.to.as_str(), sent.flow.transport), (GATE, Tcp));
    let mut b = bench(Action::Relay(vec![hop(Udp, GATE, "")]));
    let sent = only(b.send(ALICE, large("MESSAGE", "sip:x@far.example")));
    assert_eq!((sent.to.as_str(), sent.flow.transport), (GATE, Udp));
}

#[test]
fn when_no_connection_comes_about_the_same_target_is_tried_by_udp() {
    for method in ["INVITE", "MESSAGE"] {
        let hops = vec![failover::hop(GATE), failover::hop(SPARE)];
        let mut b = bench(Action::Relay(hops));
        let request = large(method, "sip:x@far.example");
        let sent = b.send(ALICE, &request);
        let by_tcp = the(&sent, GATE).clone();
        assert_eq!(by_tcp.flow.transport, Tcp);
        let by_udp = only(b.lose(by_tcp.flow));
        assert_eq!((by_udp.to.as_str(), by_udp.flow.transport), (GATE, Udp));
        assert_ne!(by_udp.branch(), by_tcp.branch());
        assert_eq!(by_udp.body, request.body);
        // It is not tried by TCP again; the spare is the next, by TCP first.
        let at_spare = only(b.undelivered(&by_udp.bytes));
        assert_eq!((at_spare.to.as_str(), at_spare.flow.transport), (SPARE, Tcp));
        let at_spare = only(b.undelivered(&at_spare.bytes));
        assert_eq!((at_spare.to.as_str(), at_spare.flow.transport), (SPARE, Udp));
        let ok = b.send_for_one(SPARE, at_spare.answer(200));
        assert_eq!((ok.status(), ok.to.as_str()), (200, ALICE));
        b.assert_quiet();
    }
}

#[test]
fn a_connection_that_says_nothing_costs_one_request_its_patience() {
    for method in ["INVITE", "MESSAGE"] {
        let mut b = bench(Action::Relay(vec![failover::hop(GATE)]));
        let by_tcp = only(without_ours(b.send(ALICE, large(method, "sip:x@far.example"))));
        assert_eq!(by_tcp.flow.transport, Tcp, "{method}");
        let sent = without_ours(b.tick(4_000));
        let by_udp = sent.iter().find(|s| s.to == GATE).expect("the same server, by UDP").clone();
        assert_eq!((by_udp.flow.transport, by_udp.at), (Udp, 4_000), "{method}");
        let ok = the(&b.send(GATE, by_udp.answer(200)), ALICE).clone();
        assert_eq!(ok.status(), 200, "{method}");
        // Until the connection is tried again, what is large goes by UDP at once; the next hop is well.
        for _ in 0..3 {
            let next = only(without_ours(b.send(ALICE, large("MESSAGE", "sip:x@far.example"))));
            assert_eq!(next.flow.transport, Udp);
            b.send(GATE, next.answer(200));
        }
        b.tick(33_000);
        let trial = only(without_ours(b.send(ALICE, large("MESSAGE", "sip:x@far.example"))));
        assert_eq!(trial.flow.transport, Tcp);
        b.send_on(0, trial.flow, trial.answer(200));
        let again = only(without_ours(b.send(ALICE, large("MESSAGE", "sip:x@far.example"))));
        assert_eq!(again.flow.transport, Tcp, "it is well again");
        b.send_on(0, again.flow, again.answer(200));
        b.assert_quiet();
    }
    // Silence by both is a time-out.
    let mut b = bench(Action::Relay(vec![failover::hop(GATE)]));
    b.send(ALICE, large("INVITE", "sip:x@far.example"));
    let sent = b.tick(40_000);
    assert_eq!(to(&sent, ALICE)[0].status(), 408, "{}", show(&sent));
    b.assert_quiet();
}

/// Without the 100 of our own.
fn without_ours(sent: Vec<Sent>) -> Vec<Sent> {
    sent.into_iter().filter(|sent| !sent.start_line.contains(" 100 ")).collect()
}

#[test]
fn after_a_cancel_nothing_is_tried_again() {
    let mut b = bench(Action::Relay(vec![failover::hop(GATE)]));
    let request = large("INVITE", "sip:x@far.example");
    let sent = b.send(ALICE, &request);
    let by_tcp = the(&sent, GATE).clone();
    b.send(ALICE, request.cancel());
    let answer = only(b.lose(by_tcp.flow));
    assert_eq!((answer.status(), answer.to.as_str()), (487, ALICE));
    b.send(ALICE, request.ack(&answer));
    b.assert_quiet();
}

#[test]
fn the_way_behind_a_nat_is_fixed_whatever_the_size() {
    let mut b = Bench::with(|settings| settings.listeners = listeners());
    let nat = "198.51.100.7:40123";
    let register = Request::new("REGISTER", "sip:example.com")
        .set("Via", "SIP/2.0/UDP 192.168.0.5:5060;rport;branch=z9hG4bKnat")
        .to("<sip:bob@example.com>")
        .add("Contact: <sip:bob@192.168.0.5:5060>");
    b.send_for_one(nat, register);
    let sent = only(b.send(ALICE, large("MESSAGE", "sip:bob@example.com")));
    assert_eq!((sent.to.as_str(), sent.flow.transport), (nat, Udp));
}
