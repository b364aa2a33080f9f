//! Who is who: however a name is spelled its bearer must prove it, a login is itself and nobody else, and what was authorised is this
//! request and no other (RFC 3261 §19.1.4, §22; RFC 7616 §3.4.6).

use std::net::IpAddr;
use std::sync::Arc;
use strowger::base::{Key, Transport};
use strowger::settings::UriCheck;
use strowger::stack::Element;
use strowger::stack::auth::digest::{Algorithm, ha1};
use strowger::stack::auth::nonce::Nonces;
use strowger::stack::auth::users::{Entry, Users};
use strowger::stack::counters::AuthOutcome;
use strowger::stack::route::{Action, NextHop, Route};
use strowger::stack::settings::{Listener, Mode, Settings};

use crate::auth::{
    ALICES, BOBS, Client, ask, bench, call, challenge, dialog, in_dialog, invite, invite_with, proxy, register, register_with,
    registrar, said,
};
use crate::bench::*;
use crate::message::{Request, Text, unique};

pub const GATEWAY: &str = "10.0.1.9:5060";

/// What a phone puts between the quotes.
fn quoted(name: &str) -> String {
    name.replace('\\', "\\\\").replace('"', "\\\"")
}

/// Credentials of a user whose name may need quoting.
pub fn credentials(user: &str, password: &str, uri: &str, method: &str, challenge: &str) -> String {
    let client = Client { user: user.to_owned().leak(), password: password.to_owned().leak(), uri: uri.to_owned().leak(), ..BOBS };
    let line = client.answer(challenge, method, "");
    let (raw, escaped) = (format!("username=\"{user}\""), quoted(user));
    line.replace(&raw, &format!("username=\"{escaped}\""))
}

// ---- whose name a request bears ------------------------------------------------------------------------------------------------

/// The proxy with a listener on every address of the machine, one behind a NAT and one of IPv6.
fn many_names() -> Bench {
    let mut b = bench(|settings| {
        settings.auth.challenge_proxy = true;
        let listener = |address: &str, advertise: &str| Listener {
            transport: Transport::Udp,
            address: address.parse().unwrap(),
            advertise: advertise.into(),
        };
        settings.listeners.push(listener("0.0.0.0:5080", "203.0.113.7:5062"));
        settings.listeners.push(listener("[::]:5080", "gw.example.org:5062"));
        let local = ["10.0.0.1", "192.0.2.33", "2001:db8::33"];
        settings.local_addresses = local.map(|ip| ip.parse::<IpAddr>().unwrap()).into();
    });
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    b
}

#[test]
fn a_name_of_ours_is_asked_for_however_it_is_spelled() {
    let mut b = many_names();
    for from in [
        "sip:ceo@example.com",
        "sip:ceo@example.com:9999",
        "sip:ceo@example.com.",
        "sip:ceo@example.com.:5060",
        "sip:ceo@EXAMPLE.Com",
        "sips:ceo@example.com",
        "SIP:ceo@example.com",
        "sip:%63e%6F@example.com",
        "sip:ceo:secret@example.com",
        "sip:ceo@example.com;maddr=192.0.2.1",
        "sip:ceo@example.com;transport=tls;user=phone",
        "sip:ceo@example.com?Subject=x",
        "sip:ceo@10.0.0.1:9999",
        "sip:ceo@10.0.0.01",
        "sip:ceo@192.0.2.33:1",
        "sip:ceo@127.0.0.1:9999",
        "sip:ceo@127.1.2.3",
        "sip:ceo@0.0.0.0",
        "sip:ceo@[::ffff:10.0.0.1]",
        "sip:ceo@[::ffff:a00:1]:9999",
        "sip:ceo@203.0.113.7",
        "sip:ceo@GW.example.org.:1",
        "sip:ceo@[2001:DB8:0:0::33]:9999",
        "sip:ceo@[::1]",
        "sip:example.com",
        "tel:1003;phone-context=example.com",
        "im:ceo@example.com",
        "pres:ceo@Example.com.",
    ] {
        for spelled in [format!("<{from}>;tag=a"), format!("CEO <{from}>;tag=a")] {
            let answer = b.send_for_one(ALICE, invite().from(&spelled));
            assert_eq!(answer.status(), 407, "{spelled}: {answer}");
        }
    }
    // No address, as some libraries would read it.
    for from in ["sip:ceo@10.0.1", "sip:ceo@0x0a.0.0.1", "sip:ceo@0x0a000001", "sip:ceo@167772161.", "sip:ceo@10.0.0.0x1:5060"] {
        let answer = b.send_for_one(ALICE, invite().from(&format!("<{from}>;tag=a")));
        assert_eq!(answer.status(), 400, "{from}: {answer}");
    }
    // Nobody of ours: not asked, as before.
    for from in [
        "sip:ceo@0xfeed.example.org",
        "sip:ceo@3f2a9c1b7d12",
        "sip:ceo@example.com.example.org",
        "sip:ceo@10.0.0.2",
        "sip:ceo@192.0.2.34",
        "sip:example.com@example.org",
        "sip:anonymous@anonymous.invalid",
        "tel:+4930123456",
    ] {
        let sent = b.send(ALICE, invite().from(&format!("<{from}>;tag=a")));
        assert_eq!(the(&sent, BOB).method(), "INVITE", "{from}");
    }
}

/// Alice is herself in each of these, and asked for in the realm that her password was made for.
#[test]
fn a_user_proves_itself_however_its_name_is_spelled() {
    let mut b = many_names();
    for from in [
        "sip:alice@example.com:9999",
        "sip:alice@example.com.",
        "sip:al%69ce@EXAMPLE.com;maddr=192.0.2.1",
        "sips:alice@example.com",
    ] {
        let from = format!("<{from}>;tag=a");
        let asked = challenge(&b.send_for_one(ALICE, invite().from(&from)), "SHA-256");
        assert_eq!(said(&asked, "realm"), Some("example.com"), "{from}");
        let line = ALICES.answer(&asked, "INVITE", "");
        let line = format!("Proxy-Authorization: {line}");
        let sent = b.send(ALICE, invite().from(&from).add(&line));
        assert_eq!(the(&sent, BOB).method(), "INVITE", "{from}");
        let other = invite().from("<sip:ceo@example.com.>;tag=a");
        let asked = challenge(&b.send_for_one(ALICE, other.clone()), "SHA-256");
        let line = ALICES.answer(&asked, "INVITE", "");
        let refused = b.send_for_one(ALICE, other.add(&format!("Proxy-Authorization: {line}")));
        assert_eq!(refused.status(), 403);
    }
}

#[test]
fn a_trailing_dot_says_nothing() {
    let mut b = registrar();
    let request = || register().from("<sip:bob@example.com.>;tag=b").to("<sip:bob@example.com.>");
    let asked = challenge(&b.send_for_one(BOB, request()), "SHA-256");
    assert_eq!(said(&asked, "realm"), Some("example.com"));
    let line = BOBS.answer(&asked, "REGISTER", "");
    let ok = b.send_for_one(BOB, request().add(&format!("Authorization: {line}")));
    assert_eq!(ok.status(), 200, "{ok}");
    for uri in ["sip:bob@example.com", "sip:bob@Example.com.", "sip:bob@example.com.:5060"] {
        let call = Request::new("INVITE", uri).from("<sip:x@example.org>;tag=a");
        let sent = b.send(ALICE, call);
        assert_eq!(the(&sent, BOB).method(), "INVITE", "{uri}");
    }
    let request = register().to("<sip:bob@example.com.>").without("Contact");
    let line = credentials("bob", "b", "sip:example.com", "REGISTER", &{
        let asked = b.send_for_one(BOB, request.clone());
        challenge(&asked, "MD5")
    });
    let query = b.send_for_one(BOB, request.add(&format!("Authorization: {line}")));
    assert_eq!(query.all("Contact").len(), 1, "{query}");
}

/// A To with a foreign port names the same user: the registrar asks it, and binds it.
#[test]
fn an_address_is_registered_whatever_port_it_is_written_with() {
    let mut b = registrar();
    let request = || register().to("<sip:bob@example.com:9999;maddr=192.0.2.1>");
    let asked = challenge(&b.send_for_one(BOB, request()), "SHA-256");
    let line = BOBS.answer(&asked, "REGISTER", "");
    let ok = b.send_for_one(BOB, request().add(&format!("Authorization: {line}")));
    assert_eq!(ok.status(), 200, "{ok}");
    let call = Request::invite().from("<sip:x@example.org>;tag=a");
    assert_eq!(the(&b.send(ALICE, call), BOB).method(), "INVITE");
    let foreign = b.send_for_one(BOB, register().to("<sip:bob@example.org>"));
    assert_eq!(foreign.status(), 404);
}

/// Routes go by the same spelling: an escape or a dot is no way around a rejection.
#[test]
fn no_spelling_passes_by_a_route() {
    let reject = |host: Option<&str>, prefix: Option<&str>| Route {
        to_host: host.map(|host| host.as_bytes().to_vec().into()),
        to_user_prefix: prefix.map(|prefix| prefix.as_bytes().to_vec()),
        ..route(Action::Reject(488))
    };
    let mut b = bench(|settings| {
        settings.routes = vec![
            reject(None, Some("+49")),
            reject(Some("blocked.example"), None),
            reject(Some("192.0.2.1"), None),
            route(Action::Relay(vec![hop()])),
        ]
        .into();
    });
    for uri in [
        "sip:+4930@example.com",
        "sip:%2B4930@example.com",
        "sip:%2b%34%3930@example.com",
        "sip:+(4)9-30@example.com;user=phone",
        "sip:+(4)9-30@example.com",
        "sip:+%2D4.9%2830@example.com",
        "sip:+4-930;phone-context=+1@example.com",
        "sip:+4-930,1@example.com",
        "sip:+4-930p1@example.com",
        "sip:+%204/9_30@example.com;user=phone",
        "sip:+4%3B9%0030;ext=1@example.com",
        "tel:+4-9;ext=1",
        "sip:+4%C2%A0930@example.com",
        "sip:x@blocked.example.",
        "sip:x@BLOCKED.example..",
        "sip:x@192.0.2.001",
        "sip:x@[::ffff:192.0.2.1]",
    ] {
        assert_eq!(b.send_for_one(ALICE, Request::new("INVITE", uri)).status(), 488, "{uri}");
    }
}

// ---- a login is itself -----------------------------------------------------------------------------------------------------------

/// Users with their passwords, in the realm example.com.
fn with_users(names: &[(&str, &str)]) -> Bench {
    let mut b = registrar();
    b.know(names);
    b
}

fn register_as(b: &mut Bench, aor: &str, login: &str, password: &str) -> Sent {
    let request = || register().to(&format!("<{aor}>"));
    let asked = challenge(&b.send_for_one(BOB, request()), "MD5");
    let line = credentials(login, password, "sip:example.com", "REGISTER", &asked);
    b.send_for_one(BOB, request().add(&format!("Authorization: {line}")))
}

#[test]
fn a_login_with_an_at_is_itself() {
    let mut b = with_users(&[("bob", "b"), ("bob@partner.example", "p")]);
    let status = |b: &mut Bench, aor: &str, login: &str, password: &str| register_as(b, aor, login, password).status();
    let (bob, partner) = ("sip:bob@example.com", "bob@partner.example");
    assert_eq!(status(&mut b, bob, partner, "p"), 403);
    assert_eq!(status(&mut b, "sip:bob%40partner.example@example.com", partner, "p"), 200);
    assert_eq!(status(&mut b, "sip:bob%40partner.example@example.com", "bob", "b"), 403);
    assert_eq!(status(&mut b, bob, "bob", "b"), 200);
    assert_eq!(status(&mut b, bob, "bob@example.com", "b"), 200, "its whole address");
    assert_eq!(status(&mut b, bob, "bob@EXAMPLE.com", "b"), 401, "another hash");
    assert_eq!(b.outcomes(AuthOutcome::Forbidden), 2);
}

/// One realm for several domains: a bare name is the user in the domain that the request names, one with a domain in that.
#[test]
fn in_a_realm_of_several_domains_a_login_with_an_at_is_of_its_domain() {
    let mut b = bench(|settings| {
        settings.auth.challenge_register = true;
        settings.auth.realm = "example.com".to_owned();
        settings.domains.push(b"partner.example".to_vec());
    });
    b.know(&[("bob", "b"), ("eve@partner.example", "e")]);
    for (aor, login, password, status) in [
        ("sip:eve@partner.example", "eve@partner.example", "e", 200),
        ("sip:eve@Partner.example.:99", "eve@partner.example", "e", 200),
        ("sip:eve@example.com", "eve@partner.example", "e", 403),
        ("sip:bob@example.com", "bob", "b", 200),
        ("sip:bob@partner.example", "bob", "b", 200),
        ("sip:eve@partner.example", "bob", "b", 403),
    ] {
        let answer = register_as(&mut b, aor, login, password);
        assert_eq!(answer.status(), status, "{login} as {aor}: {answer}");
    }
}

#[test]
fn names_with_any_character_are_users() {
    let users = [
        ("9901#1", "sip:9901%231@example.com"),
        ("john doe", "sip:john%20doe@example.com"),
        ("café", "sip:caf%C3%A9@example.com"),
        ("café", "sip:caf%c3%a9@example.com"),
        ("50%", "sip:50%25@example.com"),
        ("\"q\" \\uote", "sip:%22q%22%20%5Cuote@example.com"),
        ("a;b", "sip:a;b@example.com"),
        ("a;b", "sip:a%3Bb@example.com"),
        ("%41", "sip:%2541@example.com"),
        ("A", "sip:%41@example.com"),
        ("<b>", "sip:%3Cb%3E@example.com"),
    ];
    let names: Vec<_> = users.iter().map(|(name, _)| (*name, "pw")).collect();
    let mut b = with_users(&names);
    for (name, aor) in users {
        let answer = register_as(&mut b, aor, name, "pw");
        assert_eq!(answer.status(), 200, "{name} as {aor}: {answer}");
        let sent = b.send(ALICE, Request::new("INVITE", aor).from("<sip:x@example.org>;tag=a"));
        assert_eq!(the(&sent, BOB).method(), "INVITE", "{aor}");
    }
    for (name, aor) in [
        ("%41", "sip:%41@example.com"),
        ("A", "sip:%2541@example.com"),
        ("50%", "sip:50%2525@example.com"),
        ("john doe", "sip:john+doe@example.com"),
        ("9901#1", "sip:9901@example.com"),
    ] {
        let answer = register_as(&mut b, aor, name, "pw");
        assert_eq!(answer.status(), 403, "{name} is not {aor}: {answer}");
    }
    // A quoted string may quote what need not be.
    let request = || register().to("<sip:A@example.com>");
    let asked = challenge(&b.send_for_one(BOB, request()), "MD5");
    let line = credentials("A", "pw", "sip:example.com", "REGISTER", &asked);
    let line = line.replace("username=\"A\"", "username=\"\\A\"");
    let answer = b.send_for_one(BOB, request().add(&format!("Authorization: {line}")));
    assert_eq!(answer.status(), 200);
}

#[test]
fn who_has_no_hash_is_as_unknown_as_anybody() {
    let users = |more: &[Entry]| {
        let mut users = Users::new(Key::new(3, 4), 4);
        let hash = |algorithm| Some(ha1(algorithm, b"bob", b"example.com", b"b"));
        users.insert(&Entry {
            name: b"bob",
            domain: b"example.com",
            md5: hash(Algorithm::Md5),
            sha256: hash(Algorithm::Sha256),
            ..Entry::default()
        });
        more.iter().for_each(|entry| users.insert(entry));
        Arc::new(users)
    };
    let bare = Entry { name: b"bare", domain: b"example.com", ..Entry::default() };
    let mut b = registrar();
    for users in [users(&[]), users(&[bare])] {
        b.cores[0].handle_users(users);
        let asked = ask(&mut b);
        assert_eq!(asked.all("WWW-Authenticate").len(), 2, "both algorithms");
        let bare = Client { user: "bare", ..BOBS };
        let before = b.outcomes(AuthOutcome::UnknownUser);
        let answer = register_with(&mut b, &bare, &challenge(&asked, "SHA-256"));
        assert_eq!(answer.status(), 401);
        assert_eq!(b.outcomes(AuthOutcome::UnknownUser), before + 1);
    }
}

// ---- routes for our users --------------------------------------------------------------------------------------------------------

pub fn route(action: Action) -> Route {
    Route {
        methods: Vec::new(),
        from_source: Vec::new(),
        to_host: None,
        to_user_prefix: None,
        user_agent: Vec::new(),
        action,
        outgoing: None,
        challenge: None,
        users_only: false,
        ..Route::default()
    }
}

fn hop() -> NextHop {
    NextHop {
        identity: 0,
        uri: format!("sip:{GATEWAY}").parse().unwrap(),
        address: Some(GATEWAY.parse().unwrap()),
        transport: Transport::Udp,
        host: b"10.0.1.9".to_vec(),
    }
}

/// The proxy with a gateway behind the prefix 49, for our users alone.
pub fn gateway(change: impl FnOnce(&mut Settings)) -> Bench {
    bench(|settings| {
        settings.routes = vec![Route {
            to_user_prefix: Some(b"49".to_vec()),
            user_agent: Vec::new(),
            users_only: true,
            ..route(Action::Relay(vec![hop()]))
        }]
        .into();
        change(settings);
    })
}

pub const OUTSIDE: &str = "sip:4930@example.com";

pub fn dial(method: &str, from: &str) -> Request {
    Request::new(method, OUTSIDE).from(&format!("<{from}>;tag=a"))
}

pub fn as_alice(b: &mut Bench, request: &Request) -> Vec<Sent> {
    let asked = challenge(&b.send_for_one(ALICE, request.clone()), "SHA-256");
    let line = credentials("alice", "a", OUTSIDE, &request.method, &asked);
    let mut request = request.clone();
    let branch = format!("z9hG4bKalice{}", unique());
    request = request.via(ALICE, &branch);
    b.send(ALICE, request.add(&format!("Proxy-Authorization: {line}")))
}

#[test]
fn a_route_for_users_takes_nobody_who_has_not_proved_to_be_one() {
    for challenge_proxy in [false, true] {
        for mode in [Mode::Stateful, Mode::Stateless] {
            let mut b = gateway(|settings| {
                settings.auth.challenge_proxy = challenge_proxy;
                settings.proxy.mode = mode;
            });
            for method in ["INVITE", "MESSAGE", "OPTIONS", "SUBSCRIBE", "REGISTER"] {
                for from in ["sip:ceo@example.org", "tel:+4930123456", "sip:alice@example.com.example.org", "urn:service:sos"] {
                    let answer = b.send_for_one(ALICE, dial(method, from));
                    assert_eq!(answer.status(), 403, "{method} from {from}: {answer}");
                }
                for from in ["sip:alice@example.com", "sip:alice@10.0.0.1:99", "sip:anonymous@anonymous.invalid"] {
                    let answer = b.send_for_one(ALICE, dial(method, from));
                    assert_eq!(answer.status(), 407, "{method} from {from}: {answer}");
                }
                let sent = as_alice(&mut b, &dial(method, "sip:alice@example.com"));
                assert_eq!(the(&sent, GATEWAY).method(), method);
                let refused = as_alice(&mut b, &dial(method, "sip:bob@example.com"));
                assert_eq!(only(refused).status(), 403);
            }
        }
    }
}

/// Everything else goes on as it did: the demand is the route's.
#[test]
fn other_ways_are_open_as_they_were() {
    let mut b = gateway(|_| ());
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let sent = b.send(ALICE, invite().from("<sip:x@example.org>;tag=a"));
    assert_eq!(the(&sent, BOB).method(), "INVITE");
}

#[test]
fn a_caller_who_withholds_its_name_proves_to_be_one_of_ours() {
    let mut b = gateway(|settings| settings.domains.insert(0, b"example.net".to_vec()));
    let anonymous = dial("INVITE", "sip:anonymous@Anonymous.invalid");
    let asked = b.send_for_one(ALICE, anonymous.clone());
    let asked = challenge(&asked, "SHA-256");
    assert_eq!(said(&asked, "realm"), Some("example.com"), "the domain it calls in");
    let sent = as_alice(&mut b, &anonymous);
    let at_gateway = the(&sent, GATEWAY);
    assert_eq!(at_gateway.header("Proxy-Authorization"), None);
    assert!(at_gateway.header("From").unwrap().contains("Anonymous.invalid"));
    // A wrong password is no user.
    let line = credentials("alice", "x", OUTSIDE, "INVITE", &asked);
    let wrong = anonymous.add(&format!("Proxy-Authorization: {line}"));
    assert_eq!(b.send_for_one(ALICE, wrong).status(), 407);
    // Where no realm is known nobody can prove anything.
    let mut b = gateway(|settings| {
        settings.domains.clear();
        settings.routes.change(|routes| routes[0].to_user_prefix = None);
    });
    let elsewhere = Request::new("INVITE", "sip:4930@example.org").from("<sip:anonymous@anonymous.invalid>;tag=a");
    assert_eq!(b.send_for_one(ALICE, elsewhere).status(), 403);
}

/// What belongs to a call that was let pass is not asked again: ACK and CANCEL never, and the rest by its own route.
#[test]
fn a_call_through_a_route_for_users_can_be_held_and_ended() {
    let mut b = gateway(|_| ());
    let invite = dial("INVITE", "sip:alice@example.com").add("Contact: <sip:alice@10.0.1.1:5060>");
    let sent = as_alice(&mut b, &invite);
    let at_gateway = the(&sent, GATEWAY).clone();
    let answer = at_gateway.answer(200).add("Contact: <sip:4930@10.0.1.9:5060>");
    let ok = b.send_for_one(GATEWAY, answer);
    let routes: Vec<String> = ok.all("Record-Route").iter().map(|r| r.to_string()).collect();
    let call_id = ok.header("Call-ID").unwrap().to_string();
    let inside = |method: &str, cseq| {
        let mut request = Request::new(method, "sip:4930@10.0.1.9:5060")
            .from("<sip:alice@example.com>;tag=a")
            .to("<sip:bob@example.com>;tag=callee")
            .call_id(&call_id)
            .cseq(cseq);
        for route in &routes {
            request = request.top(&format!("Route: {route}"));
        }
        request
    };
    for (method, cseq) in [("ACK", 1), ("INVITE", 2), ("BYE", 3)] {
        let sent = b.send(ALICE, inside(method, cseq));
        assert_eq!(the(&sent, GATEWAY).method(), method);
    }
    let hangs_up = Request::new("BYE", "sip:alice@10.0.1.1:5060")
        .via(GATEWAY, &format!("z9hG4bKgw{}", unique()))
        .from("<sip:bob@example.com>;tag=callee")
        .to("<sip:alice@example.com>;tag=a")
        .call_id(&call_id)
        .cseq(1);
    let hangs_up = at_gateway.all("Record-Route").iter().fold(hangs_up, |bye, route| bye.top(&format!("Route: {route}")));
    assert_eq!(the(&b.send(GATEWAY, hangs_up), ALICE).method(), "BYE");
}

/// Bob's calls go on to a number behind the gateway. That is no way out for anybody: not for strangers, and not for a user who has
/// called bob and would pay for the number.
#[test]
fn a_user_who_forwards_to_a_number_lets_nobody_out() {
    for (from, challenge_proxy, expected) in [
        ("sip:x@example.org", false, 403),
        ("sip:x@example.org", true, 403),
        ("tel:+491", true, 403),
        ("sip:alice@example.com", false, 407),
        ("sip:alice@example.com", true, 403),
    ] {
        let mut b = gateway(|settings| settings.auth.challenge_proxy = challenge_proxy);
        b.register("bob", "<sip:4930@10.0.0.1:5060>");
        let called = Request::new("INVITE", "sip:bob@example.com").from(&format!("<{from}>;tag=a"));
        let mut sent = b.send(ALICE, called.clone());
        if sent.iter().any(|sent| sent.status() == 407) {
            let asked = challenge(the(&sent, ALICE), "SHA-256");
            let line = credentials("alice", "a", "sip:bob@example.com", "INVITE", &asked);
            let called = called.via(ALICE, &format!("z9hG4bKalice{}", unique()));
            sent = b.send(ALICE, called.add(&format!("Proxy-Authorization: {line}")));
        }
        let again = the(&sent, PROXY).bytes.clone();
        let sent = b.send(PROXY, again);
        assert_eq!(the(&sent, PROXY).status(), expected, "{from}");
    }
}

#[test]
fn a_registration_by_a_route_for_users_is_asked() {
    let mut b = gateway(|settings| {
        let registering = Route { methods: vec![b"REGISTER".to_vec()], users_only: true, ..route(Action::Location) };
        settings.routes.change(|routes| routes[0] = registering);
    });
    assert_eq!(b.send_for_one(BOB, register()).status(), 401);
    let answer = register_as(&mut b, "sip:bob@example.com", "bob", "b");
    assert_eq!(answer.status(), 200);
}

// ---- this request and no other ---------------------------------------------------------------------------------------------------

#[test]
fn a_branch_that_comes_again_with_other_contents_is_authorised_by_nothing() {
    let mut b = registrar();
    b.know(&[("alice", "a"), ("bob", "b")]);
    let asked = challenge(&ask(&mut b), "SHA-256");
    let line = format!("Authorization: {}", BOBS.answer(&asked, "REGISTER", ""));
    let query = register().without("Contact").add(&line);
    assert_eq!(b.send_for_one(BOB, query.clone()).status(), 200);
    for changed in [
        query.clone().add("Contact: <sip:evil@10.0.1.4:5060>"),
        query.clone().add("Contact: *").add("Expires: 0"),
        query.clone().add("Expires: 60"),
        query.clone().set("CSeq", "4000 REGISTER"),
        query.clone().call_id("another"),
        query.clone().from("<sip:bob@example.com>;tag=other"),
        query.clone().body("x"),
        query.clone().add("Path: <sip:10.0.1.4;lr>"),
        query.clone().top("Route: <sip:10.0.0.1;lr>"),
    ] {
        let answer = b.send_for_one(BOB, changed.clone());
        assert_eq!(answer.status(), 401, "{changed:?}");
        assert_eq!(said(&challenge(&answer, "SHA-256"), "stale"), Some("true"));
    }
    assert_eq!(b.send_for_one(DAVE, query.clone()).status(), 401, "from another address");
    assert_eq!(b.send_for_one(BOB, query).status(), 200, "the same again");
    let call = Request::invite().from("<sip:x@example.org>;tag=a");
    assert_eq!(b.send_for_one(ALICE, call).status(), 480, "nobody was bound");
}

#[test]
fn an_invite_that_found_nobody_authorises_no_other() {
    for check_uri in [UriCheck::Address, UriCheck::Off] {
        let mut b = bench(|settings| {
            settings.auth.challenge_proxy = true;
            settings.auth.check_uri = check_uri;
        });
        b.register("bob", "<sip:bob@10.0.1.2:5060>");
        let nobody = "sip:nobody@example.com";
        let request = invite();
        let request = Request { uri: nobody.into(), ..request };
        let asked = challenge(&b.send_for_one(ALICE, request.clone()), "SHA-256");
        let line = credentials("alice", "a", nobody, "INVITE", &asked);
        let tried = request.add(&format!("Proxy-Authorization: {line}"));
        assert_eq!(b.send_for_one(ALICE, tried.clone()).status(), 404);
        let other = Request { uri: "sip:bob@example.com".into(), ..tried };
        let answer = b.send_for_one(ALICE, other);
        let expected = match check_uri {
            UriCheck::Off => 407,
            _ => 400,
        };
        assert_eq!(answer.status(), expected, "{answer}");
    }
}

#[test]
fn a_nonce_of_an_earlier_run_is_stale_and_binds_nothing() {
    let mut b = registrar();
    let asked = challenge(&ask(&mut b), "SHA-256");
    let line = BOBS.answer(&asked, "REGISTER", "");
    let captured = register().add(&format!("Authorization: {line}"));
    assert_eq!(b.send_for_one(BOB, captured.clone()).status(), 200);
    // The same secret, another run: the counts are gone.
    b.cores[0].share_nonces(Arc::new(Nonces::new(Key::new(5, 6), 2, 1000)));
    let replayed = captured.set("Contact", "<sip:evil@10.0.1.4:5060>");
    let answer = b.send_for_one(BOB, replayed);
    assert_eq!(answer.status(), 401);
    let asked = challenge(&answer, "SHA-256");
    assert_eq!(said(&asked, "stale"), Some("true"));
    assert_eq!(register_with(&mut b, &BOBS, &asked).status(), 200);
}

/// A reload is no start.
#[test]
fn a_nonce_outlives_other_settings() {
    let mut b = registrar();
    let asked = challenge(&ask(&mut b), "SHA-256");
    let mut settings = Settings { domains: vec![b"example.com".to_vec()], listeners: vec![listener(PROXY)], ..Settings::default() };
    settings.auth.challenge_register = true;
    b.cores[0].handle_config(Arc::new(settings));
    assert_eq!(register_with(&mut b, &BOBS, &asked).status(), 200);
}

// ---- made for this Request-URI ---------------------------------------------------------------------------------------------------

/// What an INVITE for bob with credentials for `uri` gets: 0 where it is relayed.
fn called_with(b: &mut Bench, uri: &str) -> u16 {
    let asked = call(b);
    let client = Client { uri: uri.to_owned().leak(), ..ALICES };
    let sent = b.send(ALICE, invite_with(&client, &asked));
    let status = |sent: &Sent| match to(std::slice::from_ref(sent), BOB).len() {
        1 => 0,
        _ => sent.status(),
    };
    sent.iter().map(status).find(|status| *status != 100).unwrap()
}

#[test]
fn credentials_are_good_for_the_uri_that_they_were_made_for() {
    let calls = [
        // Request-URI sip:bob@example.com                          strict, address, off
        ("sip:bob@example.com", [0, 0, 0]),
        ("sip:b%6Fb@EXAMPLE.com", [0, 0, 0]),
        ("sip:bob@example.com:5060", [400, 0, 0]),
        ("sip:bob@example.com;transport=tcp", [400, 0, 0]),
        ("sips:bob@example.com", [400, 0, 0]),
        ("sip:bob@example.com.", [400, 0, 0]),
        ("sip:bob@10.0.0.1:5060", [400, 0, 0]),
        ("sip:10.0.0.1:5060", [400, 0, 0]),
        ("sip:example.com", [400, 0, 0]),
        ("sip:friend@example.com", [400, 400, 0]),
        ("sip:bob@example.org", [400, 400, 0]),
        ("sip:bob@10.0.1.2", [400, 400, 0]),
        ("sip:Bob@example.com", [400, 400, 0]),
        ("sip:alice@example.com", [400, 400, 0]),
        ("sip:example.org", [400, 400, 0]),
        ("urn:x", [400, 400, 0]),
        ("bob", [400, 400, 0]),
    ];
    let checks = [UriCheck::Strict, UriCheck::Address, UriCheck::Off];
    for (place, check) in checks.into_iter().enumerate() {
        let mut b = proxy();
        let mut settings =
            Settings { domains: vec![b"example.com".to_vec()], listeners: vec![listener(PROXY)], ..Settings::default() };
        settings.auth.challenge_proxy = true;
        settings.auth.check_uri = check;
        b.cores[0].handle_config(Arc::new(settings));
        for (uri, expected) in calls {
            assert_eq!(called_with(&mut b, uri), expected[place], "{check:?} {uri}");
        }
    }
}

#[test]
fn a_register_may_be_signed_for_its_address_of_record_and_no_other() {
    let mut b = registrar();
    for (uri, status) in [
        ("sip:example.com", 200),
        ("sip:example.com;transport=udp", 200),
        ("sip:10.0.0.1:5060", 200),
        ("sip:bob@example.com", 200),
        ("sip:friend@example.com", 400),
        ("sip:example.org", 400),
        ("sip:bob@example.org", 400),
    ] {
        let asked = challenge(&ask(&mut b), "SHA-256");
        let client = Client { uri: uri.to_owned().leak(), ..BOBS };
        let answer = register_with(&mut b, &client, &asked);
        assert_eq!(answer.status(), status, "{uri}: {answer}");
        assert_eq!(answer.header("Contact").is_some(), status == 200);
    }
    assert_eq!(b.outcomes(AuthOutcome::OtherUri), 3);
}

/// In a dialog the Request-URI is the other side's contact, and behind a strict router the last Route.
#[test]
fn a_bye_is_signed_for_the_contact_it_goes_to() {
    let mut b = bench(|settings| {
        settings.auth.challenge_proxy = true;
        settings.auth.challenge_bye = true;
    });
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let (routes, call_id) = dialog(&mut b);
    let bye = || in_dialog("BYE", &routes, &call_id).cseq(3);
    let asked = |b: &mut Bench| challenge(&b.send_for_one(ALICE, bye()), "SHA-256");
    let with = |uri: &str, asked: &str| {
        let line = credentials("alice", "a", uri, "BYE", asked);
        bye().add(&format!("Proxy-Authorization: {line}"))
    };
    let challenge = asked(&mut b);
    let refused: Text = b.send_for_one(ALICE, with("sip:carol@10.0.1.3", &challenge)).text;
    assert_eq!(refused.status(), 400);
    let challenge = asked(&mut b);
    let sent = b.send(ALICE, with("sip:bob@10.0.1.2:5060", &challenge));
    assert_eq!(the(&sent, BOB).method(), "BYE");
}
