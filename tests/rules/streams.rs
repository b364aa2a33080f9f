//! TCP and TLS: which transport, listener and connection a message takes (RFC 3261 §16.6 step 7, §18), what the peer's certificate
//! must prove (RFC 5922), and what a lost connection does (§16.9, §18.4).

use strowger::base::{Channel, Flow, Rng, Transport, Transport::*};
use strowger::sip::Fault;
use strowger::stack::counters::Drop;
use strowger::stack::route::{Action, NextHop};
use strowger::stack::settings::Mode;

use crate::bench::*;
use crate::message::{Request, param};
use crate::proxy::route;

const GATE: &str = "10.0.5.1:5070";
const SPARE: &str = "10.0.5.2:5070";

pub fn hop(transport: Transport, at: &str, host: &str) -> NextHop {
    let (address, transport_name) = (address(at), transport.name());
    let (ip, port) = (address.ip(), address.port());
    let uri = match host {
        "" => format!("sip:{at};transport={transport_name}"),
        host => format!("sip:{host}:{port};maddr={ip};transport={transport_name}"),
    };
    NextHop { identity: 0, uri: uri.parse().unwrap(), address: Some(address), transport, host: host.into() }
}

/// Everything goes to these next hops.
fn relay(hops: &[NextHop]) -> Bench {
    let routes = vec![route(Action::Relay(hops.to_vec()))];
    Bench::with(|settings| {
        settings.listeners = listeners();
        settings.routes = routes.into();
    })
}

/// The same, for many requests at a time.
fn with_room() -> Bench {
    Bench::with(|settings| {
        settings.listeners = listeners();
        settings.routes = vec![route(Action::Relay(vec![]))].into();
        settings.per_core.transactions = 10_000;
    })
}

/// Everything goes where the Request-URI says.
fn follow() -> Bench {
    relay(&[])
}

fn name_of(flow: &Flow) -> u64 {
    match flow.channel {
        Channel::Peer { name, .. } => name,
        other => panic!("{other:?}"),
    }
}

// ---- the next hop ----------------------------------------------------------------------------------------------------------

#[test]
fn the_uri_says_transport_port_and_address() {
    let mut b = follow();
    for (uri, transport, to) in [
        ("sip:x@10.0.7.7", Udp, "10.0.7.7:5060"),
        ("sip:x@10.0.7.7:5099", Udp, "10.0.7.7:5099"),
        ("sip:x@10.0.7.7;transport=udp", Udp, "10.0.7.7:5060"),
        ("sip:x@10.0.7.7;transport=TCP", Tcp, "10.0.7.7:5060"),
        ("sip:x@10.0.7.7:5099;transport=tcp", Tcp, "10.0.7.7:5099"),
        ("sip:x@10.0.7.7;transport=tls", Tls, "10.0.7.7:5061"),
        ("sip:x@far.example;maddr=10.0.7.8;transport=tcp", Tcp, "10.0.7.8:5060"),
    ] {
        let sent = only(b.send(ALICE, Request::new("MESSAGE", uri)));
        assert_eq!((sent.flow.transport, sent.to.as_str()), (transport, to), "{uri}");
        assert_eq!(sent.listener, transport as u16, "{uri}");
        let sent_by = format!("10.0.0.1:{}", transport.default_port());
        let via = format!("SIP/2.0/{} {sent_by};branch=", transport.name());
        assert!(sent.header("Via").unwrap().starts_with(&via), "{sent}");
    }
}

#[test]
fn a_transport_that_nobody_speaks_here_fails_the_branch() {
    let mut b = follow();
    for uri in ["sip:x@10.0.7.7;transport=sctp", "sip:x@10.0.7.7;transport=ws"] {
        let answer = b.send_for_one(ALICE, Request::new("MESSAGE", uri));
        assert_eq!(answer.status(), 500, "{uri}");
    }
    let mut b = Bench::with(|settings| settings.routes = vec![route(Action::Relay(vec![]))].into());
    for uri in ["sip:x@10.0.7.7;transport=tcp", "sip:x@10.0.7.7;transport=tls"] {
        let answer = b.send_for_one(ALICE, Request::new("MESSAGE", uri));
        assert_eq!(answer.status(), 500, "{uri}");
    }
    b.assert_quiet();
}

#[test]
fn a_server_without_udp_sends_by_what_it_has() {
    let mut b = Bench::with(|settings| {
        settings.listeners = listeners().split_off(1);
        settings.routes = vec![route(Action::Relay(vec![]))].into();
    });
    let sent = only(b.send(ALICE, Request::new("MESSAGE", "sip:x@10.0.7.7")));
    assert_eq!((sent.flow.transport, sent.to.as_str()), (Tcp, "10.0.7.7:5060"));
    assert_eq!(sent.listener, 0);
}

#[test]
fn two_requests_to_one_peer_share_a_connection_and_other_names_do_not() {
    let mut b = follow();
    let mut way = |uri: &str| only(b.send(ALICE, Request::new("MESSAGE", uri))).flow;
    let tcp = way("sip:x@10.0.7.7;transport=tcp");
    assert_eq!(tcp, way("sip:y@10.0.7.7:5060;transport=tcp"));
    assert_ne!(tcp, way("sip:x@10.0.7.8;transport=tcp"));
    assert_eq!(name_of(&tcp), 0);
    let tls = way("sip:x@one.example;maddr=10.0.7.7;transport=tls");
    assert_eq!(tls, way("sip:x@ONE.example;maddr=10.0.7.7;transport=tls"));
    let other = way("sip:x@two.example;maddr=10.0.7.7;transport=tls");
    assert_eq!(tls.peer, other.peer);
    assert_ne!(name_of(&tls), name_of(&other), "each name must be proved by itself");
}

#[test]
fn over_tls_the_peer_must_prove_the_host_of_the_uri_or_the_name_in_the_conf() {
    let mut b = follow();
    for (uri, host) in
        [("sip:x@Far.Example;maddr=10.0.7.8;transport=tls", "far.example"), ("sip:x@10.0.7.7;transport=tls", "10.0.7.7")]
    {
        let sent = only(b.send(ALICE, Request::new("MESSAGE", uri)));
        assert_eq!(sent.host.as_deref(), Some(host), "{uri}");
    }
    let mut b = relay(&[hop(Tls, GATE, "gate.example")]);
    let request = Request::invite();
    let sent = b.send(ALICE, &request);
    let at_gate = the(&sent, GATE).clone();
    assert_eq!(at_gate.host.as_deref(), Some("gate.example"));
    b.send(GATE, at_gate.answer(200));
    // What the next hop records of itself is an address; the conf knows its name.
    let bye = Request::new("BYE", "sip:bob@10.9.9.9")
        .to("<sip:bob@example.com>;tag=callee")
        .call_id(at_gate.header("Call-ID").unwrap())
        .add(&format!("Route: {}", at_gate.header("Record-Route").unwrap()))
        .add("Route: <sip:10.0.5.1:5070;transport=tls;lr>");
    let bye = b.send(ALICE, bye);
    let bye = the(&bye, GATE);
    assert_eq!(bye.flow, at_gate.flow);
    assert_eq!(bye.host.as_deref(), Some("gate.example"));
}

#[test]
fn the_topmost_route_says_the_transport_too() {
    let mut b = follow();
    let request = Request::new("MESSAGE", "sip:bob@far.example").add("Route: <sip:10.0.6.6;transport=tcp;lr>");
    let sent = only(b.send(ALICE, request));
    assert_eq!((sent.flow.transport, sent.to.as_str()), (Tcp, "10.0.6.6:5060"));
}

#[test]
fn cancel_ack_and_the_request_take_the_same_connection() {
    let mut b = relay(&[hop(Tls, GATE, "gate.example")]);
    let request = Request::invite();
    let sent = b.send(ALICE, &request);
    let at_gate = the(&sent, GATE).clone();
    b.send(GATE, at_gate.answer(180));
    let sent = b.send(ALICE, request.cancel());
    let cancel = the(&sent, GATE);
    assert_eq!((cancel.method(), cancel.flow), ("CANCEL", at_gate.flow));
    let sent = b.send(GATE, at_gate.answer(487));
    let ack = the(&sent, GATE);
    assert_eq!((ack.method(), ack.flow), ("ACK", at_gate.flow));
    b.assert_quiet();
}

// ---- Record-Route ----------------------------------------------------------------------------------------------------------

/// The Record-Routes without their cookies, top first, of an INVITE that came by one transport and left by another.
fn recorded(came_by: Transport, uri: &str) -> Vec<String> {
    let mut b = follow();
    let request = Request::new("INVITE", uri).by(came_by);
    let sent = match came_by {
        Udp => b.send(ALICE, request),
        stream => {
            let flow = b.open(stream, 0, 1, ALICE);
            b.send_on(0, flow, request)
        }
    };
    let invite = sent.iter().find(|s| s.status() == 0).unwrap_or_else(|| panic!("{}", show(&sent)));
    let bare = |value: &&str| value.split(";lr;sc=").next().unwrap().to_string();
    invite.all("Record-Route").iter().map(bare).collect()
}

#[test]
fn record_route_names_each_side_by_its_own_transport() {
    let udp = "<sip:10.0.0.1:5060";
    let tcp = "<sip:10.0.0.1:5060;transport=tcp";
    let tls = "<sip:10.0.0.1:5061;transport=tls";
    let sips = "<sips:10.0.0.1:5061";
    assert_eq!(recorded(Udp, "sip:b@10.0.1.2"), [udp]);
    assert_eq!(recorded(Tcp, "sip:b@10.0.1.2;transport=tcp"), [tcp]);
    assert_eq!(recorded(Tls, "sip:b@10.0.1.2;transport=tls"), [tls]);
    assert_eq!(recorded(Tls, "sips:b@10.0.1.2"), [sips]);
    // The side of the next hop stands on top (RFC 5658 §3).
    let both = |a: &str, b: &str| {
        let mut pair = [a.to_string(), b.to_string()];
        pair.sort();
        pair
    };
    for (came_by, uri, pair) in [
        (Udp, "sip:b@10.0.1.2;transport=tcp", both(udp, tcp)),
        (Tcp, "sip:b@10.0.1.2", both(udp, tcp)),
        (Tcp, "sip:b@10.0.1.2;transport=tls", both(tcp, tls)),
        (Tls, "sip:b@10.0.1.2;transport=tcp", both(tcp, tls)),
    ] {
        let mut seen = recorded(came_by, uri);
        assert_eq!(seen.len(), 2);
        seen.sort();
        assert_eq!(seen, pair, "{came_by:?} to {uri}");
    }
}

#[test]
fn a_dialog_between_two_transports_leaves_by_the_side_of_its_receiver() {
    let mut b = follow();
    let alice = b.open(Tcp, 0, 1, ALICE);
    let invite = Request::new("INVITE", "sip:bob@10.0.1.2:5060").by(Tcp);
    let sent = b.send_on(0, alice, &invite);
    let at_bob = the(&sent, BOB).clone();
    assert_eq!(at_bob.flow.transport, Udp);
    b.send(BOB, at_bob.answer(200));
    let routes: Vec<String> = at_bob.all("Record-Route").iter().map(|r| r.to_string()).collect();
    assert_eq!(routes.len(), 2);
    let in_dialog = |method: &str, uri: &str, routes: &mut dyn Iterator<Item = &String>| {
        let mut request = Request::new(method, uri).call_id(at_bob.header("Call-ID").unwrap());
        for route in routes {
            request = request.add(&format!("Route: {route}"));
        }
        request
    };
    let bye = in_dialog("BYE", "sip:bob@10.0.1.2:5060", &mut routes.iter().rev()).by(Tcp).to("<sip:bob@example.com>;tag=callee");
    let bye = only(b.send_on(0, alice, bye));
    assert_eq!((bye.to.as_str(), bye.flow.transport, bye.all("Route").len()), (BOB, Udp, 0));
    let bye = in_dialog("BYE", "sip:alice@10.0.1.1:5060;transport=tcp", &mut routes.iter())
        .via("10.0.1.2:5060", "z9hG4bKbobsbye")
        .from("<sip:bob@example.com>;tag=callee")
        .to("<sip:alice@example.com>;tag=alice");
    let bye = only(b.send(BOB, bye));
    assert_eq!((bye.flow, bye.all("Route").len()), (alice, 0));
}

// ---- responses -------------------------------------------------------------------------------------------------------------

#[test]
fn a_response_takes_the_requests_own_connection() {
    let mut b = follow();
    let alice = b.open(Tcp, 0, 1, "10.0.1.1:33333");
    let invite = Request::new("INVITE", "sip:bob@10.0.1.2:5060").by(Tcp);
    let sent = b.send_on(0, alice, &invite);
    let trying = the(&sent, "10.0.1.1:33333");
    assert_eq!((trying.status(), trying.flow), (100, alice));
    let at_bob = the(&sent, BOB).clone();
    let ok = b.send_for_one(BOB, at_bob.answer(200));
    assert_eq!(ok.flow, alice);
    assert_eq!(ok.all("Via").len(), 1);
    let answer = b.send_on(0, alice, Request::new("OPTIONS", "sip:nobody@10.0.1.2;transport=x").by(Tcp));
    assert_eq!(only(answer).flow, alice);
    b.assert_quiet();
}

#[test]
fn a_response_whose_connection_is_gone_goes_to_the_source_at_the_port_of_sent_by() {
    for (transport, host) in [(Tcp, None), (Tls, Some("alice.example"))] {
        let mut b = follow();
        let alice = b.open(transport, 0, 1, "10.0.1.1:33333");
        let invite = Request::new("INVITE", "sip:bob@10.0.1.2:5060").via("Alice.example:5999", "z9hG4bKgone").by(transport);
        let sent = b.send_on(0, alice, &invite);
        let at_bob = the(&sent, BOB).clone();
        assert!(b.lose(alice).is_empty(), "the caller may still be there");
        let ok = b.send_for_one(BOB, at_bob.answer(200));
        assert_eq!((ok.status(), ok.to.as_str()), (200, "10.0.1.1:5999"));
        assert!(matches!(ok.flow.channel, Channel::Peer { call: 0, .. }));
        assert_eq!(ok.host.as_deref(), host);
    }
}

#[test]
fn who_has_closed_his_side_still_gets_his_answer_and_no_requests() {
    let mut b = follow();
    let alice = b.open(Tcp, 0, 1, "10.0.1.1:33333");
    let sent = b.send_on(0, alice, Request::new("INVITE", "sip:bob@10.0.1.2:5060").by(Tcp));
    let at_bob = the(&sent, BOB).clone();
    b.live.half_close(0, 1, 7);
    let ok = b.send_for_one(BOB, at_bob.answer(200));
    assert_eq!((ok.status(), ok.flow), (200, alice));
    let bye = Request::new("BYE", "sip:alice@10.0.1.9:5060")
        .from("<sip:bob@example.com>;tag=callee")
        .to("<sip:alice@example.com>;tag=alice")
        .call_id(at_bob.header("Call-ID").unwrap());
    let routes = at_bob.all("Record-Route");
    let bye = routes.iter().fold(bye, |bye, route| bye.add(&format!("Route: {route}")));
    assert_eq!(b.send_for_one(BOB, bye).to, "10.0.1.9:5060");
}

#[test]
fn so_does_an_answer_of_our_own() {
    let mut b = relay(&[hop(Tcp, GATE, "")]);
    let alice = b.open(Tcp, 0, 1, "10.0.1.1:33333");
    let sent = b.send_on(0, alice, Request::new("INVITE", "sip:x@far.example").by(Tcp));
    let at_gate = the(&sent, GATE).clone();
    b.lose(alice);
    let answer = only(b.lose(at_gate.flow));
    assert_eq!((answer.status(), answer.to.as_str()), (500, "10.0.1.1:5060"));
    b.assert_quiet();
}

#[test]
fn a_stateless_response_goes_back_by_the_connection_that_was_opened_from_there() {
    let mut b = Bench::with(|settings| {
        settings.listeners = listeners();
        settings.proxy.mode = Mode::Stateless;
        settings.routes = vec![route(Action::Relay(vec![hop(Tls, GATE, "gate.example")]))].into();
    });
    let alice = b.open(Tcp, 0, 1, "10.0.1.1:33333");
    // The port names the connection. Who has not asked for it doesn't get it back in its own Via (RFC 3581 §4): ours keeps it.
    let request = Request::new("MESSAGE", "sip:x@far.example").via("10.0.9.9:5060", "z9hG4bKstateless").by(Tcp);
    let at_gate = only(b.send_on(0, alice, request));
    assert_eq!(at_gate.host.as_deref(), Some("gate.example"));
    let below = at_gate.all("Via")[1];
    assert_eq!(param(below, "received"), Some("10.0.1.1"));
    assert_eq!(param(below, "rport"), None);
    assert_eq!(at_gate.via_param("sp"), Some("33333"));
    let gate = b.open(Tls, 0, 2, GATE);
    let ok = only(b.send_on(0, gate, at_gate.answer(200)));
    assert_eq!((ok.flow.channel, ok.flow.transport), (Channel::Back, Tcp));
    assert_eq!((ok.to.as_str(), ok.listener), ("10.0.1.1:33333", Tcp as u16));
}

// ---- timers over a reliable transport -------------------------------------------------------------------------------------

#[test]
fn nothing_is_repeated_over_a_stream() {
    for method in ["INVITE", "MESSAGE"] {
        let mut b = relay(&[hop(Tcp, GATE, "")]);
        let alice = b.open(Tcp, 0, 1, ALICE);
        let sent = b.send_on(0, alice, Request::new(method, "sip:x@far.example").by(Tcp));
        assert_eq!(to(&sent, GATE).len(), 1);
        // Until timer B or F. A non-INVITE gets its 100 when it is late (RFC 4320), and no final answer.
        let sent: Vec<_> = when(&b.tick(40_000));
        let expected: &[(u64, &str)] = match method {
            "INVITE" => &[(32_000, "408 INVITE")],
            _ => &[(3500, "100 MESSAGE")],
        };
        let expected: Vec<_> = expected.iter().map(|(at, gist)| (*at, gist.to_string())).collect();
        assert_eq!(sent, expected, "{method}");
        b.assert_quiet();
    }
}

#[test]
fn a_final_answer_is_not_repeated_over_a_stream_and_its_ack_ends_the_transaction() {
    let mut b = relay(&[hop(Tcp, GATE, "")]);
    let alice = b.open(Tcp, 0, 1, ALICE);
    let request = Request::new("INVITE", "sip:x@far.example").by(Tcp);
    let sent = b.send_on(0, alice, &request);
    let at_gate = the(&sent, GATE).clone();
    let gate = b.open(Tcp, 0, 2, GATE);
    let sent = b.send_on(0, gate, at_gate.answer(486));
    let busy = the(&sent, ALICE).clone();
    // Timer D is 0: the branch is over at once.
    b.tick(1);
    assert_eq!(b.client_transactions(), 0);
    assert!(b.tick(20_000).is_empty());
    assert_eq!(b.server_transactions(), 1, "timer H waits for the ACK");
    assert!(b.send_on(0, alice, request.ack(&busy)).is_empty());
    // Timer I is 0.
    b.tick(1);
    assert_eq!(b.server_transactions(), 0);
    b.assert_quiet();
}

#[test]
fn a_non_invite_over_streams_leaves_nothing_behind() {
    let mut b = relay(&[hop(Tcp, GATE, "")]);
    let alice = b.open(Tcp, 0, 1, ALICE);
    let sent = b.send_on(0, alice, Request::new("MESSAGE", "sip:x@far.example").by(Tcp));
    let at_gate = the(&sent, GATE).clone();
    b.send(GATE, at_gate.answer(200));
    // Timers J and K are 0.
    b.tick(1);
    assert_eq!((b.client_transactions(), b.server_transactions()), (0, 0));
    b.assert_quiet();
}

// ---- lost connections ------------------------------------------------------------------------------------------------------

#[test]
fn a_lost_connection_fails_what_has_heard_nothing_and_the_next_hop_is_asked() {
    let mut b = relay(&[hop(Tcp, GATE, ""), hop(Tcp, SPARE, "")]);
    let request = Request::new("INVITE", "sip:x@far.example");
    let sent = b.send(ALICE, &request);
    let at_gate = the(&sent, GATE).clone();
    let at_spare = only(b.lose(at_gate.flow));
    assert_eq!((at_spare.to.as_str(), at_spare.method()), (SPARE, "INVITE"));
    let answer = only(b.lose(at_spare.flow));
    assert_eq!(answer.status(), 500);
    b.send(ALICE, request.ack(&answer));
    assert!(b.lose(at_gate.flow).is_empty(), "once");
    b.assert_quiet();
}

#[test]
fn a_branch_that_rings_survives_the_loss_of_its_connection() {
    let mut b = relay(&[hop(Tcp, GATE, ""), hop(Tcp, SPARE, "")]);
    let request = Request::new("INVITE", "sip:x@far.example");
    let sent = b.send(ALICE, &request);
    let at_gate = the(&sent, GATE).clone();
    b.send(GATE, at_gate.answer(180));
    assert!(b.lose(at_gate.flow).is_empty());
    // The callee answers over a connection of its own (§18.2.2).
    let gate = b.open(Tcp, 0, 9, "10.0.5.1:44444");
    let ok = only(b.send_on(0, gate, at_gate.answer(200)));
    assert_eq!((ok.status(), ok.to.as_str()), (200, ALICE));
    b.assert_quiet();
}

#[test]
fn a_lost_connection_harms_nobody_elses_requests() {
    let mut b = relay(&[]);
    let ask = |b: &mut Bench, uri: &str| {
        let sent = b.send(ALICE, Request::new("MESSAGE", uri));
        only(sent)
    };
    let lost: Vec<_> = (0..5).map(|n| ask(&mut b, &format!("sip:{n}@10.0.7.7;transport=tcp"))).collect();
    let others =
        [ask(&mut b, "sip:x@10.0.7.8;transport=tcp"), ask(&mut b, "sip:x@10.0.7.7;transport=tls"), ask(&mut b, "sip:x@10.0.7.7")];
    // The middle one of the list has been answered, and so has the last one; the first is the youngest.
    b.send(BOB, lost[2].answer(200));
    b.send(BOB, lost[0].answer(200));
    let failed = b.lose(lost[0].flow);
    let calls: Vec<_> = failed.iter().map(|s| (s.status(), s.header("Call-ID").unwrap())).collect();
    let expected: Vec<_> = [4, 3, 1].map(|n: usize| (500, lost[n].header("Call-ID").unwrap())).into();
    assert_eq!(calls, expected);
    for other in &others {
        assert_eq!(b.send_for_one(BOB, other.answer(200)).status(), 200);
    }
    b.assert_quiet();
}

#[test]
fn those_that_wait_on_a_connection_are_known_whatever_came_before() {
    let mut b = with_room();
    let mut rng = Rng::new(11);
    // What is unanswered on each way, oldest first.
    let mut waiting: [Vec<Sent>; 3] = Default::default();
    let (mut failed, mut answered) = (0, 0);
    for step in 0..4000 {
        let way = rng.below(3) as usize;
        match rng.below(10) {
            0..6 => {
                let uri = format!("sip:{step}@10.0.7.{};transport=tcp", way + 1);
                let method = if rng.chance(500) { "MESSAGE" } else { "INVITE" };
                let sent = b.send(ALICE, Request::new(method, &uri));
                let request = sent.into_iter().find(|s| s.status() == 0);
                waiting[way].push(request.expect("a request"));
            }
            6..9 => {
                if waiting[way].is_empty() {
                    continue;
                }
                let place = rng.below(waiting[way].len() as u64) as usize;
                let request = waiting[way].remove(place);
                // A provisional answer is one too.
                let status = [180, 200, 486][rng.below(3) as usize];
                b.send(BOB, request.answer(status));
                answered += 1;
            }
            _ => {
                let Some(first) = waiting[way].first() else {
                    continue;
                };
                let sent = b.lose(first.flow);
                let mut told: Vec<_> = sent.iter().map(|s| s.header("Call-ID").unwrap()).collect();
                told.reverse();
                let lost: Vec<_> = waiting[way].iter().map(|s| s.header("Call-ID").unwrap()).collect();
                assert_eq!(told, lost, "step {step}");
                assert!(sent.iter().all(|s| s.status() == 500));
                failed += lost.len();
                waiting[way].clear();
            }
        }
    }
    assert!(failed > 500 && answered > 500, "{failed} {answered}");
    b.assert_quiet();
}

#[test]
fn what_no_connection_takes_is_followed_by_the_next_hop() {
    let mut b = relay(&[hop(Tls, GATE, "gate.example"), hop(Udp, SPARE, "")]);
    let sent = b.send(ALICE, Request::new("INVITE", "sip:x@far.example"));
    let at_gate = the(&sent, GATE).clone();
    let at_spare = only(b.undelivered(&at_gate.bytes));
    assert_eq!((at_spare.to.as_str(), at_spare.flow.transport), (SPARE, Udp));
    // The report of a response ends no transaction, though its topmost Via is ours: the request has been here twice.
    let response = at_spare.answer(200).bytes();
    assert!(b.undelivered(&response).is_empty());
    assert_eq!(b.send_for_one(SPARE, at_spare.answer(200)).status(), 200);
    b.assert_quiet();
}

#[test]
fn a_lost_cancel_leaves_the_branch_its_64_t1() {
    let mut b = relay(&[hop(Tcp, GATE, "")]);
    let request = Request::new("INVITE", "sip:x@far.example");
    let sent = b.send(ALICE, &request);
    let at_gate = the(&sent, GATE).clone();
    b.send(GATE, at_gate.answer(180));
    b.send(ALICE, request.cancel());
    assert!(b.lose(at_gate.flow).is_empty());
    let sent = b.tick(32_000);
    assert_eq!(the(&sent, ALICE).status(), 487);
    b.send(ALICE, request.ack(the(&sent, ALICE)));
    b.assert_quiet();
}

// ---- streams without boundaries ----------------------------------------------------------------------------------------------

#[test]
fn a_request_that_ends_the_framing_is_answered_with_its_fault() {
    let mut b = follow();
    let alice = b.open(Tcp, 0, 1, ALICE);
    let text = "MESSAGE sip:bob@10.0.1.2 SIP/2.0\r\nVia: SIP/2.0/TCP 10.0.1.1:5060;branch=z9hG4bKbad\r\n\
        From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: x\r\nCSeq: 1 MESSAGE\r\n\r\nbody";
    for (fault, status) in [(Fault::ContentLengthMissing, 400), (Fault::TooLarge, 513)] {
        let answer = only(b.unframed(alice, text.as_bytes(), fault));
        assert_eq!((answer.status(), answer.flow), (status, alice));
        assert_eq!(answer.reason(), fault.reason());
    }
    // The head is not all there: what can be read is answered.
    let cut = &text[..text.len() - 20];
    assert_eq!(only(b.unframed(alice, cut.as_bytes(), Fault::TooLarge)).status(), 513);
    for nothing in [
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP 10.0.0.1\r\n\r\n".to_string(),
        text.replace("MESSAGE", "ACK"),
        "GET / HTTP/1.1\r\n\r\n".into(),
        "\u{16}\u{3}\u{1}".into(),
        String::new(),
    ] {
        assert!(b.unframed(alice, nothing.as_bytes(), Fault::NotSip).is_empty(), "{nothing}");
    }
    assert_eq!(b.dropped(Drop::Unreadable), 5);
    b.assert_quiet();
}
