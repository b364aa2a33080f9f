//! P-Asserted-Identity within the trust domain (RFC 3325): who has proved to be one of our users is named to next hops that are trusted.

use strowger::base::Transport;
use strowger::stack::Settings;
use strowger::stack::route::{Action, Network};
use strowger::stack::settings::Mode;

use crate::auth::{ALICES, Client, bench, challenge};
use crate::bench::*;
use crate::failover::hop;
use crate::message::{Request, unique};
use crate::names::{Zone, by_name};
use crate::proxy::route;

/// Trusted.
const GATE: &str = "10.0.5.1:5080";
const SPARE: &str = "10.0.5.2:5080";
/// Not trusted.
const STRANGER: &str = "10.0.6.1:5080";

fn trusting(settings: &mut Settings) {
    settings.auth.challenge_proxy = true;
    settings.limits.trusted_sources = vec![Network { address: "10.0.5.0".parse().unwrap(), prefix: 24 }];
}

fn relaying(hops: &'static [&'static str]) -> Bench {
    bench(move |settings| {
        trusting(settings);
        settings.routes = vec![route(Action::Relay(hops.iter().map(|at| hop(at)).collect()))].into();
    })
}

fn invite(from: &str) -> Request {
    Request::new("INVITE", "sip:+4930@carrier.example").from(from)
}

const ALICES_CALL: Client = Client { uri: "sip:+4930@carrier.example", ..ALICES };

/// The request with credentials for what `from` is asked.
#[track_caller]
fn proved(b: &mut Bench, peer: &str, client: &Client, request: Request) -> Request {
    let asked = b.send_for_one(peer, &request);
    assert_eq!(asked.status(), 407, "{asked}");
    b.send(peer, request.ack(&asked));
    let line = client.answer(&challenge(&asked, "SHA-256"), &request.method.clone(), "");
    request.via(peer, &format!("z9hG4bKproved{}", unique())).add(&format!("Proxy-Authorization: {line}")).cseq(2)
}

const ALICE_IS: &str = "<sip:alice@example.com>;tag=1";
const NOBODY: &str = "\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=1";

#[test]
fn who_has_proved_a_name_is_named_to_the_trusted_on_every_copy() {
    let mut b = relaying(&[GATE, STRANGER, SPARE]);
    let request = proved(&mut b, ALICE, &ALICES_CALL, invite(ALICE_IS));
    let sent = b.send(ALICE, &request);
    let at_gate = the(&sent, GATE).clone();
    assert_eq!(at_gate.all("P-Asserted-Identity"), ["<sip:alice@example.com>"]);
    assert!(at_gate.all("Proxy-Authorization").is_empty());
    let sent = b.send(GATE, at_gate.answer(503));
    let at_stranger = the(&sent, STRANGER).clone();
    assert!(at_stranger.all("P-Asserted-Identity").is_empty(), "{at_stranger}");
    let sent = b.send(STRANGER, at_stranger.answer(503));
    let at_spare = the(&sent, SPARE).clone();
    assert_eq!(at_spare.all("P-Asserted-Identity"), ["<sip:alice@example.com>"]);
}

#[test]
fn what_the_caller_asserts_itself_is_replaced_and_its_privacy_stays() {
    let mut b = relaying(&[GATE]);
    let request = invite(ALICE_IS)
        .add("P-Asserted-Identity: <sip:ceo@example.com>")
        .add("P-Preferred-Identity: <sip:ceo@example.com>")
        .add("Privacy: id");
    let request = proved(&mut b, ALICE, &ALICES_CALL, request);
    let sent = b.send(ALICE, &request);
    let at_gate = the(&sent, GATE);
    assert_eq!(at_gate.all("P-Asserted-Identity"), ["<sip:alice@example.com>"]);
    assert!(at_gate.all("P-Preferred-Identity").is_empty());
    assert_eq!(at_gate.all("Privacy"), ["id"]);
}

#[test]
fn a_caller_who_withholds_its_name_is_known_to_the_trusted() {
    let mut b = bench(|settings| {
        trusting(settings);
        let mut users = route(Action::Relay(vec![hop(GATE)]));
        users.users_only = true;
        settings.routes = vec![users].into();
    });
    let request = proved(&mut b, ALICE, &ALICES_CALL, invite(NOBODY).add("Privacy: id"));
    let sent = b.send(ALICE, &request);
    let at_gate = the(&sent, GATE);
    assert_eq!(at_gate.header("From"), Some(NOBODY));
    assert_eq!(at_gate.all("P-Asserted-Identity"), ["<sip:alice@example.com>"]);
}

#[test]
fn nobody_is_named_who_has_proved_nothing() {
    let mut b = bench(|settings| {
        trusting(settings);
        settings.auth.challenge_proxy = false;
        settings.routes = vec![route(Action::Relay(vec![hop(GATE)]))].into();
    });
    let sent = b.send(ALICE, invite(ALICE_IS));
    assert!(the(&sent, GATE).all("P-Asserted-Identity").is_empty());
    // Nor is one who comes back with what it proved on another pass.
    let mut b = relaying(&[GATE]);
    let request = proved(&mut b, ALICE, &ALICES_CALL, invite(ALICE_IS));
    let sent = b.send(ALICE, &request);
    let copy = String::from_utf8(the(&sent, GATE).bytes.clone()).unwrap();
    let back = copy.replacen("+4930@", "+4940@", 1).replacen("P-Asserted-Identity: <sip:alice@example.com>\r\n", "", 1);
    let back = back.replacen("Via:", &format!("Via: SIP/2.0/UDP {GATE};branch=z9hG4bKback\r\nVia:"), 1);
    let sent = b.send(GATE, back.as_bytes());
    let again = sent.iter().find(|sent| sent.method() == "INVITE").expect("it goes on");
    assert!(again.all("P-Asserted-Identity").is_empty(), "{again}");
}

#[test]
fn what_somebody_trusted_has_asserted_stays() {
    let mut b = relaying(&[GATE]);
    let request = invite(ALICE_IS)
        .via(SPARE, "z9hG4bKspare")
        .add("P-Asserted-Identity: <tel:+493077>")
        .add("P-Preferred-Identity: <sip:alice@example.com>");
    let request = proved(&mut b, SPARE, &ALICES_CALL, request);
    let sent = b.send(SPARE, &request);
    assert_eq!(the(&sent, GATE).all("P-Asserted-Identity"), ["<tel:+493077>"]);
}

#[test]
fn it_survives_the_wait_for_a_name_with_and_without_state() {
    for mode in [Mode::Stateful, Mode::Stateless] {
        let mut b = bench(|settings| {
            trusting(settings);
            settings.proxy.mode = mode;
            settings.routes = vec![route(Action::Relay(vec![by_name("sip:gate.example.net:5080")]))].into();
        });
        let request = proved(&mut b, ALICE, &ALICES_CALL, invite(ALICE_IS));
        b.send(ALICE, &request);
        let sent = Zone::new("gate.example.net A 10.0.5.1").serve(&mut b);
        let at_gate = the(&sent, GATE);
        assert_eq!(at_gate.flow.transport, Transport::Udp);
        assert_eq!(at_gate.all("P-Asserted-Identity"), ["<sip:alice@example.com>"], "{mode:?}");
    }
}
