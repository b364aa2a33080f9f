//! The ways of working other than a stateful proxy for its own users: stateless, redirect, the route table, and what is refused to strangers.

use std::time::Duration;

use crate::UAC;
use crate::agent::Agent;
use crate::calls::callee;
use crate::failures::assert_call_works;
use crate::message::Message;
use crate::place::{CALLEE, CALLEE_TAP, CALLER, CALLER_TAP, Place, SECOND_CALLEE, STRANGER};
use crate::server::Conf;
use crate::sipp::{Scenario, Sipp};
use crate::tap::{Tap, Way};

/// §16.11: no 100, no retransmission, no memory; a repetition takes the same way with the same branch.
#[test]
fn stateless() {
    let place = Place::new("stateless");
    let server = Conf::new(&place).set("proxy", "mode", r#""stateless""#).start(&place);
    let before = Tap::new(place.at(CALLER_TAP), server.address);
    let behind = Tap::new(place.at(CALLEE_TAP), place.at(CALLEE));
    server.bind(&place, "bob", behind.address);
    let uas = callee(&place, "uas", CALLEE, behind.address).calls(20).answer();
    Sipp::new(&place, "uac", place.at(CALLER), Scenario::Text(UAC))
        .calls(20)
        .with(&["-r", "50"])
        .call("bob", server.address, before.address)
        .succeed(20);
    uas.succeed(20);
    assert_eq!(before.seen(Way::Back).iter().filter(|message| message.status() == Some(100)).count(), 0);
    for message in behind.seen(Way::Forth) {
        assert_eq!(message.vias().len(), 2);
        assert_eq!(message.max_forwards(), Some(69));
        assert!(message.top_via().branch.starts_with("z9hG4bK"));
    }
    assert_eq!(server.stat(&place, "strowger_transactions"), 0.0);

    let phone = Agent::new(place.at(SECOND_CALLEE), server.address);
    let caller = Agent::new(place.at_port(CALLER, 5070), server.address);
    server.bind(&place, "carol", phone.address);
    let invite = caller.request("INVITE", &server.uri("carol"));
    caller.send(&invite);
    caller.send(&invite);
    let other = caller.request("INVITE", &server.uri("carol"));
    caller.send(&other);
    let branches: Vec<String> = (0..3).map(|_| phone.expect("INVITE", |message| message.is("INVITE")).top_via().branch).collect();
    assert_eq!(branches[0], branches[1], "the same branch for the same transaction");
    assert_ne!(branches[0], branches[2]);
    caller.send(&invite.cancel());
    let cancel = phone.expect("CANCEL", |message| message.is("CANCEL"));
    assert_eq!(cancel.top_via().branch, branches[0], "a CANCEL matches its INVITE behind us");
    // A refused INVITE: the caller's own ACK has to reach the callee.
    let rung = phone.log()[2].clone();
    phone.respond(&rung, 486, &[]);
    let refused = caller.final_for(&other);
    assert_eq!(refused.status(), Some(486));
    caller.acknowledge(&other, &refused);
    let ack = phone.expect("ACK", |message| message.is("ACK"));
    assert_eq!(ack.top_via().branch, branches[2]);
}

/// §8.3: 302 with the contacts, the best first; nothing is sent to them.
#[test]
fn redirect() {
    let place = Place::new("redirect");
    let server = Conf::new(&place).set("proxy", "redirect", "true").start(&place);
    let phones: Vec<Agent> = [(5061, "0.2"), (5062, "0.9"), (5063, "0.5")]
        .iter()
        .map(|(port, q)| {
            let phone = Agent::new(place.at_port(CALLEE, *port), server.address);
            let register = phone.register(&server.address.to_string(), "bob", &format!("<sip:bob@{}>;q={q}", phone.address), 600);
            assert_eq!(phone.ask(&register).status(), Some(200));
            phone
        })
        .collect();
    let caller = Agent::new(place.at(CALLER), server.address);
    let invite = caller.request("INVITE", &server.uri("bob"));
    let moved = caller.ask(&invite);
    assert_eq!(moved.status(), Some(302), "{moved:?}");
    let wanted: Vec<String> = [1, 2, 0].iter().map(|n: &usize| format!("sip:bob@{}", phones[*n].address)).collect();
    assert_eq!(moved.contacts(), wanted, "the best first");
    let qs: Vec<f32> =
        moved.all("contact").iter().filter_map(|value| crate::message::parameter(value, "q")?.parse().ok()).collect();
    assert_eq!(qs, [0.9, 0.5, 0.2]);
    caller.acknowledge(&invite, &moved);
    assert!(caller.receive(Duration::from_millis(700)).is_none(), "the ACK ends it");
    assert!(phones.iter().all(|phone| phone.receive(Duration::from_millis(20)).is_none()), "nothing is relayed");
    let nobody = caller.request("INVITE", &server.uri("nobody"));
    let refused = caller.ask(&nobody);
    assert_eq!(refused.status(), Some(404), "{refused:?}");
    caller.acknowledge(&nobody, &refused);
    let message = caller.request("MESSAGE", &server.uri("bob"));
    assert_eq!(caller.ask(&message).status(), Some(302));
}

/// The first route that fits decides: by method, by where it comes from, by where it goes.
#[test]
fn routes() {
    let place = Place::new("routes");
    let (gateway, spare) = (place.at(SECOND_CALLEE), place.at_port(SECOND_CALLEE, 5070));
    let friend = place.ip(CALLER);
    let server = Conf::new(&place)
        .route("methods = [\"SUBSCRIBE\"]\naction = \"reject\"\nstatus = 489")
        .route(&format!(
            "to_host = \"example.net\"\nfrom_source = [\"{friend}/32\"]\naction = \"relay\"\ntarget = [\"sip:{gateway}\"]"
        ))
        .route(&format!("to_user_prefix = \"49\"\nfrom_source = [\"{friend}/32\"]\naction = \"relay\"\ntarget = [\"sip:{spare}\"]"))
        .route("to_host = \"example.net\"\naction = \"reject\"\nstatus = 403")
        .start(&place);
    let gateway = Agent::new(gateway, server.address);
    let spare = Agent::new(spare, server.address);
    let friend = Agent::new(place.at(CALLER), server.address);
    let stranger = Agent::new(place.at(STRANGER), server.address);

    friend.send(&friend.request("MESSAGE", "sip:bob@example.net;x=1"));
    let relayed = gateway.expect("MESSAGE", |message| message.is("MESSAGE"));
    assert_eq!(relayed.request_uri(), "sip:bob@example.net;x=1", "a route names the next hop, not the destination");
    assert_eq!(relayed.vias().len(), 2);
    gateway.respond(&relayed, 200, &[]);
    friend.expect("200", |message| message.answers("MESSAGE", 200));

    let prefixed = server.uri("4930123");
    friend.send(&friend.request("INVITE", &prefixed));
    assert_eq!(spare.expect("INVITE", |message| message.is("INVITE")).request_uri(), prefixed);

    assert_eq!(friend.ask(&friend.request("SUBSCRIBE", &server.uri("bob"))).status(), Some(489));
    assert_eq!(stranger.ask(&stranger.request("MESSAGE", "sip:bob@example.net")).status(), Some(403));
    assert_eq!(stranger.ask(&stranger.request("MESSAGE", &server.uri("4930123"))).status(), Some(404));
    assert!(
        gateway.receive(Duration::from_millis(200)).is_none()
            && spare.collect(Duration::from_millis(50)).iter().all(|message| !message.is("MESSAGE"))
    );
}

/// Two targets: when the first is dead or says 503, the second gets the call.
#[test]
fn a_route_with_a_spare_target() {
    let place = Place::new("failover");
    let (first, second) = (place.at(CALLEE), place.at(SECOND_CALLEE));
    let server = Conf::new(&place)
        .set("timers", "t1", r#""20ms""#)
        .route(&format!("to_host = \"example.net\"\naction = \"relay\"\ntarget = [\"sip:{first}\", \"sip:{second}\"]"))
        .start(&place);
    let first = Agent::new(first, server.address);
    let second = Agent::new(second, server.address);
    let caller = Agent::new(place.at(CALLER), server.address);
    let invite = caller.request("INVITE", "sip:bob@example.net");
    caller.send(&invite);
    let rung = first.expect("INVITE", |message| message.is("INVITE"));
    first.respond(&rung, 503, &[]);
    first.expect("ACK", |message| message.is("ACK"));
    let rung = second.expect("INVITE", |message| message.is("INVITE"));
    second.accept(&rung);
    assert_eq!(caller.final_for(&invite).status(), Some(200));
    assert!(caller.log().iter().all(|message| message.status() != Some(503)));
    // Silence for 64·T1.
    let invite = caller.request("INVITE", "sip:bob@example.net");
    caller.send(&invite);
    let rung = second.expect("INVITE", |message| message.is("INVITE") && message.call_id() == invite.call_id);
    second.accept(&rung);
    assert_eq!(caller.final_for(&invite).status(), Some(200));
}

/// A request for somebody else's domain is not carried there, by whatever name, route or tag it is dressed.
#[test]
fn strangers_are_not_relayed_for() {
    let place = Place::new("stranger");
    let mut server = Conf::new(&place).start(&place);
    let victim = Agent::new(place.at(CALLEE), server.address);
    let stranger = Agent::new(place.at(STRANGER), server.address);
    let us = format!("<sip:{};lr>", server.address);
    let them = format!("<sip:{};lr>", victim.address);
    let foreign = format!("sip:someone@{}", victim.address);
    let ours = server.uri("bob");
    let cases: Vec<(&str, &str, Vec<&str>)> = vec![
        ("a foreign domain", &foreign, vec![]),
        ("a foreign domain by our route", &foreign, vec![&us]),
        ("a route to a third party", &ours, vec![&them]),
        ("our route, then a third party's", &ours, vec![&us, &them]),
        ("a third party's route, then a foreign domain", &foreign, vec![&them]),
    ];
    for method in ["INVITE", "MESSAGE", "OPTIONS", "STRANGE"] {
        for (what, uri, routes) in &cases {
            let mut request = stranger.request(method, uri);
            request.extra = routes.iter().map(|route| format!("Route: {route}")).collect();
            let refused = stranger.ask(&request);
            assert!([403, 404, 405].contains(&refused.status().unwrap_or_default()), "{method}, {what}: {refused:?}");
            if method == "INVITE" {
                stranger.acknowledge(&request, &refused);
            }
        }
    }
    // Dressed as traffic within a dialog that never was.
    for method in ["BYE", "INFO", "ACK"] {
        let mut request = stranger.request(method, &foreign);
        request.to += ";tag=forged";
        stranger.send(&request);
        request = stranger.request(method, &foreign).with(&format!("Route: {us}"));
        request.to += ";tag=forged";
        stranger.send(&request);
    }
    let arrived = victim.collect(Duration::from_millis(500));
    assert!(arrived.is_empty(), "{arrived:#?}");
    server.assert_alive(&place, STRANGER);
}

/// A server that serves no registrations.
#[test]
fn registrar_switched_off() {
    let place = Place::new("noregistrar");
    let server = Conf::new(&place).set("registrar", "enabled", "false").start(&place);
    let phone = Agent::new(place.at(CALLEE), server.address);
    let refused = phone.ask(&phone.register(&server.address.to_string(), "a", "<sip:a@192.0.2.1>", 600));
    assert!(refused.status() >= Some(400), "{refused:?}");
    assert_call_works(&place, &server, "bob", 5080);
}

#[test]
fn record_route_switched_off() {
    let place = Place::new("norecordroute");
    let server = Conf::new(&place).set("proxy", "record_route", "false").start(&place);
    let phone = Agent::new(place.at(CALLEE), server.address);
    let caller = Agent::new(place.at(CALLER), server.address);
    server.bind(&place, "bob", phone.address);
    caller.send(&caller.request("INVITE", &server.uri("bob")));
    let invite = phone.expect("INVITE", |message: &Message| message.is("INVITE"));
    assert!(invite.all("record-route").is_empty(), "{invite:?}");
}
