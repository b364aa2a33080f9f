//! What the step that prepares a message for a hop adds and keeps back (RFC 3261 §16.6 steps 2 to 9, §22.3; RFC 3325; RFC 3581 §4): on every
//! pass, by every transport.

use strowger::base::Transport::*;
use strowger::base::{Channel, Flow};
use strowger::stack::Settings;
use strowger::stack::counters::Drop;
use strowger::stack::route::{Action, Network, Route};
use strowger::stack::settings::{Fork, Mode};

use crate::auth::{self, ALICES};
use crate::bench::*;
use crate::failover;
use crate::message::{Request, Text, Wire, param, unique};
use crate::names::{Zone, by_name};
use crate::proxy::route;
use crate::streams::hop;

const GATE: &str = "10.0.5.1:5070";
const SPARE: &str = "10.0.5.2:5070";

/// Credentials for the realm of this server, and for another, as one and the same client has them.
const OURS: &str =
    "Proxy-Authorization: Digest username=\"alice\", realm=\"example.com\", nonce=\"n\", uri=\"sip:example.com\", response=\"0\"";
const THEIRS: &str =
    "Proxy-Authorization: Digest username=\"alice\", realm=\"example.org\", nonce=\"n\", uri=\"sip:example.com\", response=\"0\"";

/// Asks its own callers, and nobody that comes from elsewhere.
fn asks(settings: &mut Settings) {
    settings.auth.challenge_proxy = true;
    settings.auth.challenge_register = true;
}

/// A request that is not challenged, and brings credentials all the same.
fn armed(method: &str, uri: &str) -> Request {
    Request::new(method, uri).from("<sip:alice@elsewhere.example>;tag=alice").add(OURS).add(THEIRS)
}

/// The credentials of the other realm are there, and none else.
#[track_caller]
fn assert_disarmed(sent: &Text) {
    let left = sent.all("Proxy-Authorization").join("\n");
    let (_, theirs) = THEIRS.split_once(": ").unwrap();
    assert_eq!(left, theirs, "{sent}");
}

#[track_caller]
fn assert_all_disarmed(sent: &[Sent], gists: &[&str]) {
    let requests: Vec<&Sent> = sent.iter().filter(|sent| sent.status() == 0).collect();
    let seen: Vec<String> = requests.iter().map(|sent| sent.gist()).collect();
    assert_eq!(seen, gists, "{}", show(sent));
    for request in requests {
        assert_disarmed(request);
    }
}

// ---- credentials for our realm ------------------------------------------------------------------------------------------------

#[test]
fn credentials_that_were_proved_leave_on_no_branch_of_a_serial_fork() {
    let mut b = auth::bench(|settings| {
        asks(settings);
        settings.auth.challenge_register = false;
        settings.proxy.fork = Fork::Sequential;
    });
    b.register("bob", "<sip:bob@10.0.1.2:5060>;q=0.9");
    b.register("bob", "<sip:bob@10.0.1.3:5060>;q=0.5");
    b.register("bob", "<sip:bob@10.0.1.4:5060>;q=0.1");
    let asked = auth::call(&mut b);
    let sent = b.send(ALICE, auth::invite_with(&ALICES, &asked).add(THEIRS));
    assert_disarmed(the(&sent, BOB));
    let sent = b.send(BOB, the(&sent, BOB).answer(486));
    assert_disarmed(the(&sent, CAROL));
    // After a silence, too.
    let sent = b.tick(32_000);
    let at_dave = to(&sent, DAVE);
    assert!(!at_dave.is_empty(), "{}", show(&sent));
    assert_disarmed(at_dave[0]);
}

#[test]
fn nor_to_the_next_target_after_503() {
    for method in ["INVITE", "MESSAGE"] {
        let mut b = Bench::with(|settings| {
            asks(settings);
            settings.routes = vec![route(Action::Relay(vec![failover::hop(GATE), failover::hop(SPARE)]))].into();
        });
        let sent = b.send(ALICE, armed(method, "sip:1@carrier.example"));
        assert_disarmed(the(&sent, GATE));
        let sent = b.send(GATE, the(&sent, GATE).answer(503));
        assert_disarmed(the(&sent, SPARE));
    }
}

#[test]
fn nor_after_a_wait_for_a_name_nor_to_the_next_server_of_it() {
    let zone = || {
        Zone::new(
            "_sip._udp.gate.example SRV 1 0 5070 one.example.
             _sip._udp.gate.example SRV 2 0 5070 two.example.
             one.example A 10.0.5.1
             two.example A 10.0.5.2",
        )
    };
    let bench = |mode| {
        Bench::with(|settings| {
            asks(settings);
            settings.proxy.mode = mode;
            let next = by_name("sip:gate.example;transport=udp");
            settings.routes = vec![route(Action::Relay(vec![next]))].into();
        })
    };
    let mut b = bench(Mode::Stateful);
    let waiting = b.send(ALICE, armed("INVITE", "sip:1@carrier.example"));
    assert_all_disarmed(&waiting, &[]);
    let sent = zone().serve(&mut b);
    assert_all_disarmed(&sent, &["INVITE"]);
    let ack = only(b.send(GATE, the(&sent, GATE).answer(503)));
    assert_eq!((ack.method(), ack.all("Proxy-Authorization").len()), ("ACK", 0));
    assert_disarmed(the(&zone().serve(&mut b), SPARE));

    // Without a transaction: an ACK to a 2xx, and everything without state.
    let mut b = bench(Mode::Stateful);
    let ack = armed("ACK", "sip:1@carrier.example").to("<sip:1@carrier.example>;tag=callee");
    assert!(b.send(ALICE, ack).is_empty());
    assert_all_disarmed(&zone().serve(&mut b), &["ACK"]);
    for method in ["INVITE", "MESSAGE", "ACK", "BYE"] {
        let mut b = bench(Mode::Stateless);
        assert!(b.send(ALICE, armed(method, "sip:1@carrier.example")).is_empty());
        assert_all_disarmed(&zone().serve(&mut b), &[method]);
    }
}

#[test]
fn nor_when_a_large_request_that_no_connection_takes_goes_by_udp() {
    let mut b = Bench::with(|settings| {
        asks(settings);
        settings.listeners = listeners();
        settings.routes = vec![route(Action::Relay(vec![]))].into();
    });
    let request = armed("MESSAGE", "sip:x@10.0.6.6").body(&"x".repeat(1300));
    let by_tcp = only(b.send(ALICE, request));
    assert_eq!(by_tcp.flow.transport, Tcp);
    assert_disarmed(&by_tcp);
    let by_udp = only(b.lose(by_tcp.flow));
    assert_eq!(by_udp.flow.transport, Udp);
    assert_disarmed(&by_udp);
}

#[test]
fn nor_with_what_follows_in_the_dialog() {
    let mut b = auth::proxy();
    let (routes, call_id) = auth::dialog(&mut b);
    for (number, method) in ["ACK", "INFO", "INVITE", "UPDATE", "BYE"].into_iter().enumerate() {
        let request = auth::in_dialog(method, &routes, &call_id).cseq(number as u32 + 1).add(OURS).add(THEIRS);
        let sent = b.send(ALICE, request);
        assert_disarmed(the(&sent, BOB));
    }
}

#[test]
fn nor_by_a_route_that_asks_nobody_nor_from_whom_nobody_asks() {
    let relay = |methods: &[&str], challenge| Route {
        methods: methods.iter().map(|m| m.as_bytes().to_vec()).collect(),
        challenge,
        ..route(Action::Relay(vec![failover::hop(GATE)]))
    };
    for mode in [Mode::Stateful, Mode::Stateless] {
        let mut b = Bench::with(|settings| {
            asks(settings);
            settings.proxy.mode = mode;
            settings.routes = vec![relay(&[], Some(false))].into();
        });
        for method in ["INVITE", "OPTIONS", "MESSAGE", "SUBSCRIBE", "REGISTER"] {
            for from in ["example.com", "elsewhere.example"] {
                let request = armed(method, "sip:1@carrier.example").from(&format!("<sip:alice@{from}>;tag=alice"));
                let sent = b.send(ALICE, request);
                assert_disarmed(the(&sent, GATE));
            }
        }
    }
    // Where a route alone asks, what takes another one is as safe.
    let mut b = Bench::with(|settings| {
        settings.routes = vec![relay(&["INVITE"], Some(true)), relay(&[], None)].into();
    });
    let sent = b.send(ALICE, armed("MESSAGE", "sip:1@carrier.example"));
    assert_disarmed(the(&sent, GATE));
}

#[test]
fn a_request_that_comes_back_to_us_has_none_left() {
    let mut b = Bench::with(asks);
    b.location.add(Default::default(), b"bob@example.com", b"sip:carol@10.0.0.1:5060", 3600).unwrap();
    let sent = b.send_for_one(ALICE, armed("MESSAGE", "sip:bob@example.com"));
    assert_eq!(sent.to, PROXY);
    assert_disarmed(&sent);
}

#[test]
fn whatever_names_our_realm_is_ours_and_nothing_else_is() {
    let rest = "nonce=\"n\", uri=\"sip:b@c\", response=\"0\"";
    let ours = [
        format!("Digest username=\"alice\", realm=\"example.com\", {rest}"),
        format!("DIGEST username=\"alice\", Realm = \"EXAMPLE.com\" ,{rest}"),
        format!("Digest username=\"alice\",realm=\"example.com.\",{rest}"),
        format!("Digest username=\"alice\",realm=\"exam\\ple.com\",{rest}"),
        format!("Digest username=\"alice\",realm=example.com,{rest}"),
        format!("Digest username=\"alice\",\r\n realm=\"example.com\",\r\n {rest}"),
        // The advertised address is a domain as any other: who is at it is asked in this realm.
        format!("Digest username=\"alice\", realm=\"10.0.0.1\", {rest}"),
        // What cannot be read.
        "Digest username=\"alice\", realm=\"example.com\"".into(),
        format!("Digest realm=\"example.org\", realm=\"example.com\", {rest}"),
        format!("Digest username=\"a\", realm=\"example.org\", {rest}, Digest username=\"a\", realm=\"example.com\", {rest}"),
        "Digest username=\"alice, realm=\"example.com\", response=\"0".into(),
        "Digest realm=\"example.com".into(),
        "realm=\"example.com\"".into(),
        format!("Digest2 realm=\"example.com\", {rest}"),
    ];
    let others = [
        format!("Digest username=\"alice\", realm=\"example.org\", {rest}"),
        format!("Digest username=\"alice@example.com\", realm=\"sub.example.com\", {rest}"),
        format!("Digest username=\"alice\", realm=\"\", {rest}"),
        format!("Digest username=\"alice\", realm=\"example.org\", opaque=\"realm=example.com\", {rest}"),
        "Basic YWxpY2U6YQ==".into(),
        "Bearer example.com".into(),
        "".into(),
    ];
    let mut b = Bench::with(|settings| {
        asks(settings);
        settings.routes = vec![route(Action::Relay(vec![failover::hop(GATE)]))].into();
    });
    for name in ["Proxy-Authorization", "Authorization"] {
        for spelled in [name.to_string(), name.to_uppercase(), format!("{name} ")] {
            for (values, left) in [(&ours[..], 0), (&others[..], 1)] {
                for value in values {
                    let request = Request::new("MESSAGE", "sip:1@carrier.example")
                        .from("<sip:alice@elsewhere.example>;tag=alice")
                        .top(&format!("{spelled}: {value}"));
                    let sent = b.send_for_one(ALICE, request);
                    assert_eq!(sent.to, GATE, "{sent}");
                    assert_eq!(sent.all(name).len(), left, "{spelled}: {value}\n{sent}");
                }
            }
            // All of them, among others.
            let mut request = Request::new("MESSAGE", "sip:1@carrier.example").from("<sip:alice@elsewhere.example>;tag=alice");
            for value in ours.iter().chain(&others) {
                request = request.top(&format!("{spelled}: {value}"));
            }
            let sent = b.send_for_one(ALICE, request);
            assert_eq!(sent.all(name).len(), others.len(), "{sent}");
        }
    }
}

#[test]
fn the_realm_of_the_conf_is_the_only_one_where_it_has_one() {
    let mut b = Bench::with(|settings| {
        asks(settings);
        settings.auth.realm = "The House".to_owned();
        settings.routes = vec![route(Action::Relay(vec![failover::hop(GATE)]))].into();
    });
    let house = OURS.replace("example.com", "the house");
    let request =
        Request::new("MESSAGE", "sip:1@carrier.example").from("<sip:alice@elsewhere.example>;tag=alice").add(&house).add(THEIRS);
    assert_disarmed(&b.send_for_one(ALICE, request));
}

#[test]
fn who_asks_nobody_keeps_nothing_back() {
    // An edge: users prove who they are to a server behind it, in a realm that has the name of the domain.
    let mut b = Bench::with(|settings| {
        settings.routes = vec![route(Action::Relay(vec![failover::hop(GATE)]))].into();
    });
    for method in ["INVITE", "REGISTER"] {
        let sent = b.send(ALICE, Request::new(method, "sip:example.com").add(OURS).add(&OURS.replace("Proxy-", "")));
        let at_gate = the(&sent, GATE);
        assert_eq!(at_gate.all("Proxy-Authorization").len(), 1, "{at_gate}");
        assert_eq!(at_gate.all("Authorization").len(), 1, "{at_gate}");
    }
    // One that asks who calls, and leaves it to that server who registers.
    let mut b = Bench::with(|settings| {
        settings.auth.challenge_proxy = true;
        settings.routes = vec![Route { challenge: Some(false), ..route(Action::Relay(vec![failover::hop(GATE)])) }].into();
    });
    for (method, left) in [("REGISTER", 1), ("MESSAGE", 0)] {
        let request = Request::new(method, "sip:example.com").add(&OURS.replace("Proxy-", ""));
        let at_gate = b.send_for_one(ALICE, request);
        assert_eq!(at_gate.all("Authorization").len(), left, "{at_gate}");
    }
}

#[test]
fn a_register_for_another_registrar_keeps_what_is_for_that_one() {
    let mut b = Bench::with(|settings| {
        asks(settings);
        settings.routes = vec![route(Action::Relay(vec![failover::hop(GATE)]))].into();
    });
    let request = Request::new("REGISTER", "sip:example.org")
        .from("<sip:alice@example.org>;tag=r")
        .to("<sip:alice@example.org>")
        .add(&OURS.replace("Proxy-", ""))
        .add(&THEIRS.replace("Proxy-", ""))
        .add(OURS)
        .add(THEIRS);
    let sent = b.send_for_one(ALICE, request);
    assert_disarmed(&sent);
    let left = sent.all("Authorization");
    assert_eq!(left.len(), 1, "{sent}");
    assert!(left[0].contains("example.org"), "{sent}");
}

// ---- Content-Length -------------------------------------------------------------------------------------------------------------

/// Without a Content-Length, as a datagram may come.
fn bare(message: impl Wire) -> Vec<u8> {
    let text = String::from_utf8(message.wire()).unwrap();
    let start = text.rfind("Content-Length:").unwrap();
    let end = start + text[start..].find("\r\n").unwrap() + 2;
    [&text.as_bytes()[..start], &text.as_bytes()[end..]].concat()
}

/// The message says once how long its body is.
#[track_caller]
fn assert_length(sent: &Sent, body: &str) {
    assert!(sent.flow.transport.is_reliable());
    let length = body.len().to_string();
    assert_eq!(sent.all("Content-Length"), [length.as_str()], "{sent}");
    assert_eq!(sent.body, body.as_bytes(), "{sent}");
}

const BODIES: [&str; 2] = ["", "v=0\r\no=- 1 1 IN IP4 10.0.1.1\r\n"];

#[test]
fn what_came_as_a_datagram_says_its_length_on_a_stream() {
    for transport in [Tcp, Tls] {
        for mode in [Mode::Stateful, Mode::Stateless] {
            let mut b = Bench::with(|settings| {
                settings.listeners = listeners();
                settings.proxy.mode = mode;
                let next = hop(transport, GATE, "gate.example");
                settings.routes = vec![route(Action::Relay(vec![next]))].into();
            });
            for method in ["MESSAGE", "OPTIONS", "INVITE", "ACK", "BYE", "NOTIFY"] {
                for body in BODIES {
                    let request = Request::new(method, "sip:1@carrier.example").body(body);
                    let sent = b.send(ALICE, bare(&request));
                    assert_length(the(&sent, GATE), body);
                }
            }
            // What says it already, in either form, is not told twice.
            for line in ["l: 4", "Content-Length:4", "CONTENT-LENGTH : 4", "l:\r\n 4"] {
                let request = Request::new("MESSAGE", "sip:1@carrier.example").top(line);
                let request = [bare(request), b"body and more".to_vec()].concat();
                let sent = b.send_for_one(ALICE, request);
                assert_length(&sent, "body");
            }
        }
    }
}

#[test]
fn to_the_next_target_and_by_size_too() {
    let mut b = Bench::with(|settings| {
        settings.listeners = listeners();
        settings.routes = vec![route(Action::Relay(vec![failover::hop(GATE), hop(Tcp, SPARE, "")]))].into();
    });
    let request = Request::invite();
    let sent = b.send(ALICE, bare(&request));
    let at_gate = the(&sent, GATE);
    assert!(at_gate.all("Content-Length").is_empty(), "{at_gate}");
    let sent = b.send(GATE, at_gate.answer(503));
    assert_length(the(&sent, SPARE), BODIES[1]);

    let mut b = Bench::with(|settings| {
        settings.listeners = listeners();
        settings.routes = vec![route(Action::Relay(vec![]))].into();
    });
    let body = "x".repeat(1300);
    let request = Request::new("MESSAGE", "sip:x@10.0.6.6").body(&body);
    let by_tcp = only(b.send(ALICE, bare(request)));
    assert_length(&by_tcp, &body);
    // And as it came by UDP after all.
    let by_udp = only(b.lose(by_tcp.flow));
    assert!(by_udp.all("Content-Length").is_empty(), "{by_udp}");
    assert_eq!(by_udp.body, body.as_bytes());
}

/// A caller over a stream, and phones that answer by UDP without Content-Length.
fn to_phones(mode: Mode) -> (Bench, Flow) {
    let mut b = Bench::with(|settings| {
        settings.listeners = listeners();
        settings.proxy.mode = mode;
    });
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let alice = b.open(Tcp, 0, 1, ALICE);
    (b, alice)
}

#[test]
fn a_phones_answers_say_their_length_on_the_callers_stream() {
    for (mode, method) in
        [(Mode::Stateful, "INVITE"), (Mode::Stateful, "MESSAGE"), (Mode::Stateless, "INVITE"), (Mode::Stateless, "MESSAGE")]
    {
        let provisional = method == "INVITE" || mode == Mode::Stateless;
        for body in BODIES {
            for status in [183, 200, 302, 404, 486, 603] {
                if status == 183 && !provisional {
                    continue;
                }
                let (mut b, alice) = to_phones(mode);
                let request = Request::new(method, "sip:bob@example.com").by(Tcp);
                let sent = b.send_on(0, alice, request);
                let answer = the(&sent, BOB).answer(status).body(body);
                let sent = b.send(BOB, bare(answer));
                assert_length(the(&sent, ALICE), body);
            }
        }
    }
}

#[test]
fn so_does_the_best_of_several_answers() {
    for (first, second, best) in [(404, 486, 404), (486, 404, 486), (401, 407, 401)] {
        let (mut b, alice) = to_phones(Mode::Stateful);
        b.register("bob", "<sip:bob@10.0.1.3:5060>");
        let sent = b.send_on(0, alice, Request::invite().by(Tcp));
        let challenge = |status| match status {
            401 => "WWW-Authenticate: Digest realm=\"a\", nonce=\"1\"",
            407 => "Proxy-Authenticate: Digest realm=\"b\", nonce=\"2\"",
            _ => "X-Nothing: 0",
        };
        let answer = |phone: &str, status| bare(the(&sent, phone).answer(status).add(challenge(status)).body("why"));
        assert_eq!(to(&b.send(BOB, answer(BOB, first)), ALICE).len(), 0);
        let answers = b.send(CAROL, answer(CAROL, second));
        let answer = the(&answers, ALICE);
        assert_eq!(answer.status(), best);
        assert_length(answer, "why");
    }
}

#[test]
fn a_2xx_that_comes_when_its_transaction_is_over_says_it_too_and_finds_the_connection() {
    let (mut b, alice) = to_phones(Mode::Stateful);
    // Its connection is known by a port that its Via does not name.
    let alice = Flow { peer: address("10.0.1.1:44444"), ..alice };
    let request = Request::invite().via("10.0.1.1:5060", "z9hG4bKlate").by(Tcp);
    let sent = b.send_on(0, alice, request);
    let at_bob = the(&sent, BOB).clone();
    let ok = at_bob.answer(200).body("sdp");
    assert_length(only(b.send(BOB, bare(&ok))).at("10.0.1.1:44444"), "sdp");
    // Our own memory of it is over before the phone's, which repeats it.
    b.tick(31_900);
    let again = b.send(BOB, bare(&ok));
    for late in again {
        assert_length(late.at("10.0.1.1:44444"), "sdp");
    }
}

impl Sent {
    #[track_caller]
    fn at(&self, peer: &str) -> &Sent {
        assert_eq!(self.to, peer, "{self}");
        self
    }
}

#[test]
fn a_datagram_leaves_as_it_came() {
    let mut b = Bench::new();
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let sent = b.send(ALICE, bare(Request::invite()));
    let at_bob = the(&sent, BOB);
    assert!(at_bob.all("Content-Length").is_empty(), "{at_bob}");
    let ok = b.send_for_one(BOB, bare(at_bob.answer(200).body("sdp")));
    assert!(ok.all("Content-Length").is_empty(), "{ok}");
    assert_eq!(ok.body, b"sdp");
}

#[test]
fn a_length_that_is_wrong_or_said_twice_is_refused_and_noise_is_cut_off() {
    let (mut b, alice) = to_phones(Mode::Stateful);
    for lines in [
        &["Content-Length: 5"][..],
        &["Content-Length: 4", "l: 4"],
        &["Content-Length: 4", "Content-Length: 4"],
        &["Content-Length: 4, 4"],
        &["Content-Length: -4"],
        &["Content-Length:"],
    ] {
        let mut request = Request::new("MESSAGE", "sip:bob@example.com");
        for line in lines {
            request = request.add(line);
        }
        let request = [bare(request), b"body".to_vec()].concat();
        let answer = b.send_for_one(ALICE, request);
        assert_eq!(answer.status(), 400, "{lines:?}");
    }
    // A response like that is none, whatever stream it would go to.
    let sent = b.send_on(0, alice, Request::invite().by(Tcp));
    let at_bob = the(&sent, BOB);
    let dropped = b.dropped(Drop::BadResponse);
    for answer in [at_bob.answer(200).add("Content-Length: 0"), at_bob.answer(200).add("l: 0")] {
        assert!(b.send(BOB, answer).is_empty());
    }
    assert_eq!(b.dropped(Drop::BadResponse), dropped + 2);
    // What stands behind the body is no next message on the stream.
    let ok = [at_bob.answer(200).body("sdp").bytes(), b"BYE sip:alice@10.0.1.1 SIP/2.0\r\n\r\n".to_vec()];
    assert_length(&only(b.send(BOB, ok.concat())), "sdp");
}

// ---- asserted identities ----------------------------------------------------------------------------------------------------------

const ASSERTED: [&str; 4] = [
    "P-Asserted-Identity: \"The Boss\" <sip:ceo@example.com>",
    "P-Asserted-Identity: <tel:+4930123>, <sip:ceo@example.com>",
    "p-asserted-IDENTITY : <sip:ceo@example.com>",
    "P-Asserted-Identity:\r\n <sip:ceo@example.com>",
];
const PREFERRED: &str = "P-Preferred-Identity: <sip:ceo@example.com>";

fn trusting(networks: &[(&str, u8)]) -> Bench {
    let mut b = Bench::with(|settings| {
        let network = |(address, prefix): &(&str, u8)| Network { address: address.parse().unwrap(), prefix: *prefix };
        settings.limits.trusted_sources = networks.iter().map(network).collect();
    });
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    b
}

fn asserting(mut request: Request) -> Request {
    for line in ASSERTED {
        request = request.add(line);
    }
    request.add(PREFERRED)
}

/// How many lines assert an identity, and how many prefer one.
fn identities(sent: &Text) -> (usize, usize) {
    let count = |name| sent.all(name).len();
    (count("P-Asserted-Identity"), count("P-Preferred-Identity"))
}

#[test]
fn what_a_stranger_asserts_reaches_nobody() {
    for mode in [Mode::Stateful, Mode::Stateless] {
        // Where routes are recorded, an ACK without one is nobody's.
        let mut b = Bench::with(|settings| {
            settings.proxy.mode = mode;
            settings.proxy.record_route = false;
        });
        b.register("bob", "<sip:bob@10.0.1.2:5060>");
        for method in ["INVITE", "MESSAGE", "OPTIONS", "SUBSCRIBE", "ACK"] {
            for privacy in ["none", "id", "user"] {
                let request = asserting(Request::new(method, "sip:bob@example.com")).add(&format!("Privacy: {privacy}"));
                let sent = b.send(ALICE, request);
                assert_eq!(identities(the(&sent, BOB)), (0, 0), "{method}");
            }
        }
    }
}

#[test]
fn what_a_phone_asserts_in_its_answers_or_in_the_dialog_reaches_nobody() {
    for mode in [Mode::Stateful, Mode::Stateless] {
        let mut b = Bench::with(|settings| settings.proxy.mode = mode);
        b.register("bob", "<sip:bob@10.0.1.2:5060>");
        let sent = b.send(ALICE, Request::invite());
        let at_bob = the(&sent, BOB).clone();
        let mut routes = Vec::new();
        for status in [183, 200] {
            let mut answer = at_bob.answer(status).add(PREFERRED);
            for line in ASSERTED {
                answer = answer.add(line);
            }
            let answer = b.send_for_one(BOB, answer);
            assert_eq!(identities(&answer), (0, 0), "{answer}");
            routes = answer.all("Record-Route").iter().map(|r| r.to_string()).collect();
        }
        for method in ["ACK", "INFO", "INVITE", "BYE"] {
            let mut request = asserting(Request::new(method, "sip:bob@10.0.1.2:5060"))
                .to("<sip:bob@example.com>;tag=callee")
                .call_id(at_bob.header("Call-ID").unwrap())
                .cseq(unique() as u32);
            for route in &routes {
                request = request.top(&format!("Route: {route}"));
            }
            let sent = b.send(ALICE, request);
            assert_eq!(identities(the(&sent, BOB)), (0, 0), "{method}");
        }
    }
}

#[test]
fn the_best_of_several_answers_asserts_nothing_either() {
    let mut b = trusting(&[]);
    b.register("bob", "<sip:bob@10.0.1.3:5060>");
    let sent = b.send(ALICE, Request::invite());
    let (bob, carol) = (the(&sent, BOB).clone(), the(&sent, CAROL).clone());
    b.send(BOB, bob.answer(486).add(ASSERTED[0]));
    let answers = b.send(CAROL, carol.answer(486).add(ASSERTED[0]));
    assert_eq!(identities(the(&answers, ALICE)), (0, 0));
}

#[test]
fn who_is_trusted_asserts_and_who_asks_for_privacy_has_it() {
    let (all, none) = ((ASSERTED.len(), 1), (0, 0));
    let request = || asserting(Request::new("MESSAGE", "sip:bob@example.com"));
    let alice = [("10.0.1.1", 32)];
    let both = [("10.0.1.0", 24)];
    for (trusted, privacy, left) in [
        // The identity goes to anybody, unless it is to stay among the trusted. The wish is never a stranger's business.
        (&alice[..], "", (ASSERTED.len(), 0)),
        (&alice, "Privacy: none", (ASSERTED.len(), 0)),
        (&alice, "Privacy: user;header", (ASSERTED.len(), 0)),
        (&alice, "Privacy: idle", (ASSERTED.len(), 0)),
        (&alice, "Privacy: id", none),
        (&alice, "privacy : critical; ID", none),
        (&alice, "Privacy: header;\r\n id;critical", none),
        (&alice, "Privacy: user\r\nPrivacy: id", none),
        (&both, "", all),
        (&both, "Privacy: id", all),
        // The receiver alone says nothing of the sender.
        (&[("10.0.1.2", 32)], "", none),
        (&[("10.0.2.0", 24), ("2001:db8::", 32)], "", none),
        (&[("0.0.0.0", 0)], "Privacy: id", all),
    ] {
        let mut b = trusting(trusted);
        let mut request = request();
        if !privacy.is_empty() {
            request = request.add(privacy);
        }
        let sent = b.send_for_one(ALICE, request);
        assert_eq!(identities(&sent), left, "{trusted:?} {privacy:?}");
    }
    // And in answers.
    for (trusted, privacy, left) in [
        (("10.0.1.2", 32), "X-None: 0", 1),
        (("10.0.1.2", 32), "Privacy: id", 0),
        (("10.0.1.1", 32), "X-None: 0", 0),
        (("10.0.1.0", 24), "Privacy: id", 1),
    ] {
        let mut b = trusting(&[trusted]);
        let at_bob = b.send_for_one(ALICE, request());
        let answer = at_bob.answer(200).add(ASSERTED[0]).add(privacy);
        let answer = b.send_for_one(BOB, answer);
        assert_eq!(identities(&answer), (left, 0), "{trusted:?} {privacy}");
    }
}

// ---- Via ------------------------------------------------------------------------------------------------------------------------

#[test]
fn nobody_gets_a_port_that_it_has_not_asked_for() {
    for transport in [Udp, Tcp, Tls] {
        for mode in [Mode::Stateful, Mode::Stateless] {
            let mut b = Bench::with(|settings| {
                settings.listeners = listeners();
                settings.proxy.mode = mode;
            });
            b.register("bob", "<sip:bob@10.0.1.2:5060>");
            let peer = "10.0.1.1:44444";
            let flow = match transport {
                Udp => Flow::datagram(0, address(peer)),
                _ => b.open(transport, 0, 1, peer),
            };
            for (params, port) in [
                (";branch=z9hG4bKa", None),
                (";rport;branch=z9hG4bKb", Some("44444")),
                (";branch=z9hG4bKc;rport=7", Some("44444")),
                (";branch=z9hG4bKd;x=rport", None),
            ] {
                for host in ["10.0.1.1", "phone.invalid", "192.168.0.5:5070"] {
                    let via = format!("SIP/2.0/{} {host}{params}", transport.name());
                    let received = (host != "10.0.1.1" || port.is_some()).then_some("10.0.1.1");
                    let seen = |via: &str| {
                        let value = |name| param(via, name).map(str::to_owned);
                        (value("rport"), value("received"))
                    };
                    let right = (port.map(str::to_owned), received.map(str::to_owned));
                    // Below ours, in the answers that pass, and in our own.
                    let request = Request::new("MESSAGE", "sip:bob@example.com").set("Via", &via);
                    let sent = b.send_on(0, flow, request);
                    let at_bob = the(&sent, BOB);
                    assert_eq!(seen(at_bob.all("Via")[1]), right, "{via}");
                    let ok = only(b.send(BOB, at_bob.answer(200)));
                    assert_eq!(seen(ok.header("Via").unwrap()), right, "{via}");
                    if transport.is_reliable() {
                        assert_eq!(ok.to, peer, "{ok}");
                    }
                    let request =
                        Request::new("MESSAGE", "sip:nobody@example.com").set("Via", &via.replace("z9hG4bK", "z9hG4bKown"));
                    let own = only(b.send_on(0, flow, request));
                    assert_eq!(own.status(), 404);
                    assert_eq!(seen(own.header("Via").unwrap()), right, "{via}");
                }
            }
        }
    }
}

#[test]
fn the_port_that_our_via_keeps_names_a_connection_and_nothing_else() {
    let mut b = Bench::with(|settings| {
        settings.listeners = listeners();
        settings.proxy.mode = Mode::Stateless;
    });
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let flow = b.open(Tcp, 0, 1, "10.0.1.1:44444");
    let request = |via: &str| Request::new("MESSAGE", "sip:bob@example.com").set("Via", via);
    let at_bob = only(b.send_on(0, flow, request("SIP/2.0/TCP 10.0.1.1:5070;branch=z9hG4bKa")));
    assert_eq!(at_bob.via_param("sp"), Some("44444"));
    let answer = |sp: &str| {
        let text = String::from_utf8(at_bob.answer(200).bytes()).unwrap();
        text.replace(";sp=44444", sp)
    };
    for (sp, to) in [
        (";sp=44444", "10.0.1.1:44444"),
        (";sp=5061;rport=9", "10.0.1.1:5061"),
        // Lost on the way, or no port: sent-by's.
        ("", "10.0.1.1:5070"),
        (";sp", "10.0.1.1:5070"),
        (";sp=0", "10.0.1.1:5070"),
        (";sp=70000", "10.0.1.1:5070"),
        (";sp=x", "10.0.1.1:5070"),
    ] {
        let ok = b.send_for_one(BOB, answer(sp).as_str());
        assert_eq!(ok.to, to, "{sp}");
        assert_eq!(ok.flow.channel, Channel::Back);
    }
    // Over UDP nothing is kept, and nothing is believed.
    let at_bob = b.send_for_one(ALICE, request("SIP/2.0/UDP 10.0.1.1:5070;branch=z9hG4bKb"));
    assert_eq!(at_bob.via_param("sp"), None);
    let text = String::from_utf8(at_bob.answer(200).bytes()).unwrap();
    let ok = b.send_for_one(BOB, text.replacen(";rport", ";rport;sp=9", 1).as_str());
    assert_eq!(ok.to, "10.0.1.1:5070");
    // Who has asked has it in its own Via.
    let at_bob = only(b.send_on(0, flow, request("SIP/2.0/TCP 10.0.1.1:5070;rport;branch=z9hG4bKc")));
    assert_eq!(at_bob.via_param("sp"), None);
}

// ---- 302 ------------------------------------------------------------------------------------------------------------------------

fn redirecting(change: impl FnOnce(&mut Settings)) -> Bench {
    let mut b = Bench::with(|settings| {
        settings.listeners = listeners();
        settings.proxy.redirect = true;
        change(settings);
    });
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    b
}

#[test]
fn our_302_to_an_invite_is_repeated_until_its_ack_comes() {
    let mut b = redirecting(|settings| settings.limits.answer_factor = 0);
    let request = Request::invite();
    let answer = b.send_for_one(ALICE, &request);
    assert_eq!(answer.status(), 302);
    // Timer G: from T1, doubled up to T2.
    let again = b.tick(12_000);
    let at: Vec<u64> = again.iter().map(|sent| sent.at).collect();
    assert_eq!(at, [500, 1500, 3500, 7500, 11_500]);
    assert!(again.iter().all(|sent| sent.bytes == answer.bytes));
    // The INVITE again gets the same; bob's new contact changes nothing.
    b.register("bob", "<sip:bob@10.0.1.3:5060>");
    assert_eq!(b.send_for_one(ALICE, &request).bytes, answer.bytes);
    // A CANCEL comes too late, and is understood.
    assert_eq!(b.send_for_one(ALICE, request.cancel()).status(), 200);
    assert!(b.send(ALICE, request.ack(&answer)).is_empty());
    assert!(b.send(ALICE, request.ack(&answer)).is_empty());
    assert!(b.tick(60_000).is_empty());
    // Without an ACK it ends after 64·T1 (timer H).
    let answer = b.send_for_one(ALICE, Request::invite());
    let again = b.tick(100_000);
    assert_eq!(again.len(), 10, "{}", show(&again));
    assert!(again.iter().all(|sent| sent.bytes == answer.bytes));
    b.assert_quiet();
}

#[test]
fn by_a_route_in_a_dialog_and_from_another_port_it_is_the_same() {
    for action in [Action::Redirect(vec![]), Action::Redirect(vec![b"sip:elsewhere.example".to_vec()])] {
        let mut b =
            redirecting(|settings| settings.routes = vec![Route { methods: vec![b"INVITE".to_vec()], ..route(action) }].into());
        for request in [
            Request::invite().set("Via", "SIP/2.0/UDP 10.0.1.1:5060;rport;branch=z9hG4bKa"),
            Request::invite().to("<sip:bob@example.com>;tag=callee"),
        ] {
            let answer = b.send_for_one("10.0.1.1:7777", &request);
            assert_eq!(answer.status(), 302);
            assert_eq!(b.tick(600).len(), 1);
            assert!(b.send("10.0.1.1:7777", request.ack(&answer)).is_empty());
            assert!(b.tick(60_000).is_empty());
        }
        b.assert_quiet();
    }
}

#[test]
fn over_a_stream_without_state_and_to_other_requests_it_leaves_once() {
    let mut b = redirecting(|_| ());
    let alice = b.open(Tcp, 0, 1, ALICE);
    let request = Request::invite().by(Tcp);
    let answer = only(b.send_on(0, alice, &request));
    assert_eq!(answer.status(), 302);
    assert!(b.tick(10_000).is_empty());
    assert!(b.send_on(0, alice, request.ack(&answer)).is_empty());
    let before = b.server_transactions();
    let answer = b.send_for_one(ALICE, Request::new("MESSAGE", "sip:bob@example.com"));
    assert_eq!((answer.status(), b.server_transactions()), (302, before));
    b.assert_quiet();

    for change in [(|settings: &mut Settings| settings.proxy.mode = Mode::Stateless) as fn(&mut Settings), |settings| {
        settings.per_core.transactions = 0
    }] {
        let mut b = redirecting(change);
        let request = Request::invite();
        let answer = b.send_for_one(ALICE, &request);
        assert_eq!((answer.status(), b.server_transactions()), (302, 0));
        assert!(b.tick(10_000).is_empty());
        assert_eq!(b.send_for_one(ALICE, &request).bytes, answer.bytes);
        assert!(b.send(ALICE, request.ack(&answer)).is_empty());
    }
}

#[test]
fn a_refusal_takes_no_memory() {
    let mut b = redirecting(|settings| settings.auth.challenge_proxy = true);
    let before = b.server_transactions();
    for (uri, status) in [("sip:nobody@example.com", 404), ("sip:x@elsewhere.example", 404), ("sip:bob@example.com", 407)] {
        let mut request = Request::new("INVITE", uri);
        if status == 404 {
            request = request.from("<sip:x@elsewhere.example>;tag=x");
        }
        assert_eq!(b.send_for_one(ALICE, request).status(), status);
        assert_eq!(b.server_transactions(), before);
    }
}

// ---- SIPS -----------------------------------------------------------------------------------------------------------------------

/// Bob is called by SIP and answers with a SIPS contact: the routes of the caller.
fn plain_dialog(b: &mut Bench, caller: Flow) -> (Vec<String>, String) {
    let request = Request::invite().by(caller.transport);
    let sent = b.send_on(0, caller, &request);
    let at_bob = sent.iter().find(|sent| sent.status() == 0).unwrap().clone();
    let ok = at_bob.answer(200).add("Contact: <sips:bob@10.0.1.2>");
    let ok = only(b.send_on(0, at_bob.flow, ok));
    let routes = ok.all("Record-Route");
    let routes = routes.iter().map(|r| r.to_string()).collect();
    (routes, ok.header("Call-ID").unwrap().to_string())
}

fn in_dialog(method: &str, transport: strowger::base::Transport, routes: &[String], call_id: &str) -> Request {
    let mut request = Request::new(method, "sips:bob@10.0.1.2")
        .by(transport)
        .to("<sip:bob@example.com>;tag=callee")
        .call_id(call_id)
        .cseq(unique() as u32);
    for route in routes {
        request = request.top(&format!("Route: {route}"));
    }
    request
}

#[test]
fn in_a_dialog_that_began_by_sip_a_sips_target_can_be_acknowledged_and_hung_up_on() {
    for mode in [Mode::Stateful, Mode::Stateless] {
        for transport in [Udp, Tcp, Tls] {
            let mut b = Bench::with(|settings| {
                settings.listeners = listeners();
                settings.proxy.mode = mode;
            });
            b.register("bob", "<sip:bob@10.0.1.2:5060>");
            let alice = match transport {
                Udp => Flow::datagram(0, address(ALICE)),
                _ => b.open(transport, 0, 1, ALICE),
            };
            let (routes, call_id) = plain_dialog(&mut b, alice);
            for method in ["ACK", "INFO", "INVITE", "BYE"] {
                let request = in_dialog(method, transport, &routes, &call_id);
                let sent = b.send_on(0, alice, request);
                let at_bob = the(&sent, "10.0.1.2:5061");
                assert_eq!((at_bob.method(), at_bob.uri(), at_bob.flow.transport), (method, "sips:bob@10.0.1.2", Tls));
            }
        }
    }
}

#[test]
fn outside_of_one_and_where_tls_was_promised_no_method_passes() {
    for mode in [Mode::Stateful, Mode::Stateless] {
        let mut b = Bench::with(|settings| {
            settings.listeners = listeners();
            settings.proxy.mode = mode;
            settings.routes = vec![route(Action::Relay(vec![]))].into();
        });
        // The dialog began by SIPS: our Route says so.
        let alice = b.open(Tls, 0, 1, ALICE);
        let request = Request::new("INVITE", "sips:bob@10.0.1.2").by(Tls).add("Contact: <sips:alice@10.0.1.1>");
        let sent = b.send_on(0, alice, &request);
        let at_bob = the(&sent, "10.0.1.2:5061").clone();
        let routes: Vec<String> = at_bob.all("Record-Route").iter().map(|r| r.to_string()).collect();
        assert!(routes[0].starts_with("<sips:"), "{routes:?}");
        let call_id = at_bob.header("Call-ID").unwrap();
        let tcp = b.open(Tcp, 0, 2, ALICE);
        for flow in [Flow::datagram(0, address(ALICE)), tcp] {
            for (routes, call_id) in [(&routes[..], call_id), (&[], "another")] {
                for method in ["INFO", "INVITE", "BYE", "MESSAGE"] {
                    let request = in_dialog(method, flow.transport, routes, call_id);
                    let answer = only(b.send_on(0, flow, request));
                    assert_eq!(answer.status(), 400, "{method}");
                    assert_eq!(answer.reason(), "SIPS Request Not Over TLS");
                }
                let dropped = b.dropped(Drop::StrayAck);
                let ack = in_dialog("ACK", flow.transport, routes, call_id);
                assert!(b.send_on(0, flow, ack).is_empty());
                assert_eq!(b.dropped(Drop::StrayAck), dropped + 1);
            }
            if mode == Mode::Stateless {
                let cancel = Request::new("CANCEL", "sips:bob@10.0.1.2").by(flow.transport);
                assert_eq!(only(b.send_on(0, flow, cancel)).status(), 400);
            }
        }
        // Over TLS all of them do.
        for method in ["ACK", "INFO", "BYE"] {
            let request = in_dialog(method, Tls, &routes, call_id);
            let sent = b.send_on(0, alice, request);
            assert_eq!(the(&sent, "10.0.1.2:5061").method(), method);
        }
    }
}

/// It is SIPS that it has asked for: nothing leaves for it in clear, and the caller hears that at once.
#[test]
fn a_sips_target_without_tls_is_not_reached_in_clear() {
    for (listeners, status) in [(listeners(), 480), (vec![listener(PROXY)], 500)] {
        let mut b = Bench::with(|settings| settings.listeners = listeners);
        let alice = Flow::datagram(0, address(ALICE));
        // In the first case by the way from behind a NAT that its REGISTER has opened.
        let via = match status {
            480 => "SIP/2.0/UDP 192.168.0.5:5060;rport;branch=z9hG4bKnat",
            _ => "SIP/2.0/UDP 10.0.1.2:5060;branch=z9hG4bKplain",
        };
        let contact = match status {
            480 => "Contact: <sip:bob@192.168.0.5:5060>",
            _ => "Contact: <sip:bob@10.0.1.2:5060>",
        };
        let register = Request::new("REGISTER", "sip:example.com").set("Via", via).to("<sip:bob@example.com>").add(contact);
        assert_eq!(b.send_for_one(BOB, register).status(), 200);
        let (routes, call_id) = plain_dialog(&mut b, alice);
        let dropped = b.dropped(Drop::StrayAck);
        let ack = in_dialog("ACK", Udp, &routes, &call_id);
        assert!(b.send(ALICE, ack).is_empty());
        assert_eq!(b.dropped(Drop::StrayAck), dropped + 1);
        for method in ["INFO", "BYE"] {
            let request = in_dialog(method, Udp, &routes, &call_id);
            assert_eq!(b.send_for_one(ALICE, request).status(), status, "{method}");
        }
    }
}
