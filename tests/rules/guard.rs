//! Next hops for our users only (`from = "users"`), by whatever way they are named: the contact or Path of a binding, a contact within a
//! dialog, an ACK, a spiral. And whose name a callee may bear.

use strowger::stack::counters::Drop;
use strowger::stack::route::Action;
use strowger::stack::settings::Settings;

use crate::auth::challenge;
use crate::bench::*;
use crate::identity::{GATEWAY, OUTSIDE, as_alice, credentials, dial, gateway};
use crate::message::{Request, Text, unique};
use crate::names::{Zone, by_name};

const STRANGER: &str = "<sip:x@example.org>;tag=x";

fn binds(b: &mut Bench, user: &str, contact: &str, path: Option<&str>, from: &str) {
    let aor = format!("<sip:{user}@example.com>");
    let mut request = Request::new("REGISTER", "sip:example.com")
        .via(from, &format!("z9hG4bKreg{}", unique()))
        .from(&format!("{aor};tag=r"))
        .to(&aor)
        .call_id(&format!("reg-{}", unique()))
        .add(&format!("Contact: {contact}"));
    if let Some(path) = path {
        request = request.add(&format!("Path: {path}")).add("Supported: path");
    }
    let answer = b.send_for_one(from, request);
    assert_eq!(answer.status(), 200, "{answer}");
}

fn called(b: &mut Bench, method: &str, user: &str) -> Vec<Sent> {
    let request = Request::new(method, &format!("sip:{user}@example.com")).from(STRANGER);
    b.send("10.0.9.9:1024", request)
}

#[test]
fn no_binding_leads_to_a_next_hop_for_our_users() {
    for (contact, path) in [
        ("<sip:00900@10.0.1.9>", None),
        ("<sip:00900@10.0.1.9:5060>", None),
        ("<sip:00900@10.0.1.9:5061;transport=tcp>", None),
        ("<sip:00900@10.0.1.9;transport=tcp>", None),
        ("<sip:00900@[::ffff:10.0.1.9]>", None),
        ("<sip:00900@example.org;maddr=10.0.1.9>", None),
        ("<sip:00900@10.0.1.2:5060>", Some("<sip:10.0.1.9;lr>")),
        ("<sip:00900@10.0.1.2:5060>", Some("<sip:x@10.0.1.9:5060;lr>")),
        ("<sip:00900@10.0.1.2:5060>", Some("<sip:10.0.1.9>")),
    ] {
        let mut b = gateway(|_| ());
        binds(&mut b, "mallory", contact, path, BOB);
        for method in ["INVITE", "MESSAGE", "OPTIONS"] {
            let sent = called(&mut b, method, "mallory");
            assert!(to(&sent, GATEWAY).is_empty(), "{contact} {path:?}");
            let last = sent.last().unwrap();
            assert!(last.status() >= 403, "{contact} {path:?} {method}: {last}");
        }
    }
}

/// A datagram's source can be forged.
#[test]
fn nor_one_that_seems_to_come_from_there() {
    let mut b = gateway(|_| ());
    binds(&mut b, "desk", "<sip:desk@10.0.1.9:5060>", None, GATEWAY);
    let sent = called(&mut b, "INVITE", "desk");
    assert!(to(&sent, GATEWAY).is_empty(), "{}", show(&sent));
    // Another port of that machine is another server.
    binds(&mut b, "bob", "<sip:bob@10.0.1.9:5080>", None, BOB);
    let sent = called(&mut b, "INVITE", "bob");
    assert_eq!(the(&sent, "10.0.1.9:5080").method(), "INVITE");
}

fn named(target: &str) -> Bench {
    let target = target.to_string();
    gateway(move |settings| {
        settings.listeners = listeners();
        settings.routes.change(|routes| routes[0].action = Action::Relay(vec![by_name(&target)]));
    })
}

/// All that is sent for a call to this user, until every question is answered.
fn asked(b: &mut Bench, zone: &mut Zone, user: &str) -> Vec<Sent> {
    let mut sent = called(b, "INVITE", user);
    sent.extend(zone.serve(b));
    sent
}

#[test]
fn a_next_hop_with_a_name_is_known_by_its_addresses() {
    let mut zone = Zone::new("gw.example.net A 10.0.1.9");
    let mut b = named("sip:gw.example.net");
    binds(&mut b, "mallory", "<sip:00900@10.0.1.9>", None, BOB);
    binds(&mut b, "bob", "<sip:bob@10.0.1.2:5060>", None, BOB);
    for round in 0..2 {
        let sent = asked(&mut b, &mut zone, "mallory");
        assert!(to(&sent, GATEWAY).is_empty(), "{round}: {}", show(&sent));
        assert_eq!(sent.last().unwrap().status(), 403, "{round}");
    }
    let sent = called(&mut b, "INVITE", "bob");
    assert_eq!(the(&sent, BOB).method(), "INVITE");
}

#[test]
fn by_whatever_transport_its_name_leads_there() {
    let mut zone = Zone::new(
        "_sip._udp.gw.example.net SRV 1 1 5080 h.example.net\n\
         _sip._tcp.gw.example.net SRV 1 1 5090 h.example.net\n\
         h.example.net A 10.0.1.9",
    );
    let mut b = named("sip:gw.example.net");
    for contact in [
        "<sip:00900@10.0.1.9:5080>",
        "<sip:00900@10.0.1.9:5090;transport=tcp>",
        "<sip:00900@10.0.1.9:5090>",
        "<sip:00900@h.example.net:5090>",
    ] {
        binds(&mut b, "mallory", contact, None, BOB);
        let sent = asked(&mut b, &mut zone, "mallory");
        let there = |sent: &&Sent| sent.to.starts_with("10.0.1.9:");
        assert!(!sent.iter().any(|sent| there(&sent)), "{contact}: {}", show(&sent));
        assert_eq!(sent.last().unwrap().status(), 403, "{contact}");
        b.tick(40_000);
    }
}

/// What the name leads the calls of our users to is remembered too.
#[test]
fn where_calls_have_gone_nobody_else_goes() {
    let mut b = named("sip:gw.example.net");
    binds(&mut b, "mallory", "<sip:00900@10.0.1.9>", None, BOB);
    let mut zone = Zone::new("gw.example.net A 10.0.1.8");
    let sent = asked(&mut b, &mut zone, "mallory");
    assert_eq!(the(&sent, GATEWAY).method(), "INVITE", "not yet known");
    let mut zone = Zone::new("gw.example.net A 10.0.1.9");
    b.tick(90_000_000);
    let mut sent = as_alice(&mut b, &dial("INVITE", "sip:alice@example.com"));
    sent.extend(zone.serve(&mut b));
    assert_eq!(the(&sent, GATEWAY).method(), "INVITE");
    let mut zone = Zone::new("gw.example.net A 10.0.1.8");
    b.tick(90_000_000);
    binds(&mut b, "mallory", "<sip:00900@10.0.1.9>", None, BOB);
    let sent = asked(&mut b, &mut zone, "mallory");
    assert!(to(&sent, GATEWAY).is_empty(), "{}", show(&sent));
}

/// What is not known of its name opens no way: it never was known, or is not any more.
#[test]
fn a_name_that_leads_nowhere_gives_nothing_away() {
    let mut zone = Zone::new("");
    let mut b = named("sip:gw.example.net");
    binds(&mut b, "mallory", "<sip:00900@10.0.1.9>", None, BOB);
    binds(&mut b, "bob", "<sip:bob@10.0.1.2:5060>", None, BOB);
    let sent = asked(&mut b, &mut zone, "mallory");
    assert!(to(&sent, GATEWAY).is_empty(), "{}", show(&sent));
    assert_eq!(sent.last().unwrap().status(), 500, "{}", show(&sent));
    // Who is where it has registered from can be called, and so can we.
    binds(&mut b, "carol", "<sip:bob@10.0.0.1:5060>", None, BOB);
    let sent = asked(&mut b, &mut zone, "carol");
    assert_eq!(the(&sent, PROXY).method(), "INVITE");
    let sent = asked(&mut b, &mut zone, "bob");
    assert_eq!(the(&sent, BOB).method(), "INVITE");
    // Once it was known, and its records have expired.
    let mut zone = Zone::new("gw.example.net A 10.0.1.9");
    let mut b = named("sip:gw.example.net");
    binds(&mut b, "mallory", "<sip:00900@10.0.1.9>", None, BOB);
    let sent = asked(&mut b, &mut zone, "mallory");
    assert_eq!(sent.last().unwrap().status(), 403);
    let mut zone = Zone::new("");
    for _ in 0..3 {
        b.tick(90_000_000);
        binds(&mut b, "mallory", "<sip:00900@10.0.1.9>", None, BOB);
        let sent = asked(&mut b, &mut zone, "mallory");
        assert!(to(&sent, GATEWAY).is_empty(), "{}", show(&sent));
        assert_eq!(sent.last().unwrap().status(), 403, "{}", show(&sent));
    }
}

/// What a dialog is known by to one of its ends.
fn routes(text: &Text, request: Request) -> Request {
    let routes = text.all("Record-Route");
    routes.iter().rev().fold(request, |request, route| request.add(&format!("Route: {route}")))
}

#[test]
fn no_contact_of_a_dialog_leads_there_either() {
    let mut b = gateway(|_| ());
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let invite = Request::invite().from(STRANGER);
    let at_bob = the(&b.send("10.0.9.9:1024", invite), BOB).clone();
    let answer = at_bob.answer(200).add("Contact: <sip:00900@10.0.1.9:5060>");
    let ok = b.send_for_one(BOB, answer);
    for method in ["INVITE", "MESSAGE", "BYE", "ACK", "REFER"] {
        for uri in ["sip:00900@10.0.1.9:5060", "sip:00900@10.0.1.9"] {
            let inside = Request::new(method, uri)
                .from(STRANGER)
                .to("<sip:bob@example.com>;tag=callee")
                .call_id(at_bob.header("Call-ID").unwrap())
                .cseq(unique() as u32);
            let sent = b.send("10.0.9.9:1024", routes(&ok, inside));
            assert!(to(&sent, GATEWAY).is_empty(), "{method} {uri}");
        }
    }
}

#[test]
fn a_call_from_there_is_ended_by_whom_it_has_reached() {
    let mut b = gateway(|_| ());
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    // A gateway need not send from where it listens.
    for source in [GATEWAY, "10.0.1.9:40000"] {
        let invite = Request::invite()
            .via(source, &format!("z9hG4bKgw{}", unique()))
            .from("<sip:+4930@10.0.1.9>;tag=gw")
            .call_id(&format!("gw{}", unique()))
            .set("Contact", "<sip:4930@10.0.1.9:5060>");
        let at_bob = the(&b.send(source, invite), BOB).clone();
        let answer = at_bob.answer(200).add("Contact: <sip:bob@10.0.1.2:5060>");
        b.send_for_one(BOB, answer);
        for method in ["INVITE", "BYE"] {
            let inside = Request::new(method, "sip:4930@10.0.1.9:5060")
                .via(BOB, &format!("z9hG4bKbob{}", unique()))
                .from("<sip:bob@example.com>;tag=callee")
                .to("<sip:+4930@10.0.1.9>;tag=gw")
                .call_id(at_bob.header("Call-ID").unwrap())
                .cseq(unique() as u32);
            let sent = b.send(BOB, routes(&at_bob, inside));
            assert_eq!(the(&sent, GATEWAY).method(), method, "{source}");
        }
    }
}

#[test]
fn an_ack_of_no_call_of_our_users_stays_here() {
    let mut b = gateway(|_| ());
    for to in ["<sip:4930@example.com>;tag=x", "<sip:4930@example.com>"] {
        for from in [STRANGER, "<sip:alice@example.com>;tag=a"] {
            let ack = Request::new("ACK", OUTSIDE).from(from).to(to);
            assert!(b.send("10.0.9.9:1024", ack).is_empty(), "{from} {to}");
        }
    }
    assert_eq!(b.dropped(Drop::StrayAck), 4);
    // Nor is one of a call to somebody else.
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let invite = Request::invite().from(STRANGER);
    let at_bob = the(&b.send("10.0.9.9:1024", invite), BOB).clone();
    let ok = b.send_for_one(BOB, at_bob.answer(200).add("Contact: <sip:bob@10.0.1.2:5060>"));
    for uri in [OUTSIDE, "sip:4930@10.0.1.9", "sip:4930@example.org;maddr=10.0.1.9"] {
        let ack = Request::new("ACK", uri)
            .from(STRANGER)
            .to("<sip:bob@example.com>;tag=callee")
            .call_id(at_bob.header("Call-ID").unwrap());
        for ack in [routes(&ok, ack.clone()), ack] {
            assert!(b.send("10.0.9.9:1024", ack).is_empty(), "{uri}");
        }
    }
    // Of one that was answered it goes there, without a route of ours too.
    let invite = dial("INVITE", "sip:alice@example.com").to("<sip:4930@example.com>");
    let at_gateway = the(&as_alice(&mut b, &invite), GATEWAY).clone();
    b.send_for_one(GATEWAY, at_gateway.answer(200));
    let ack = Request::new("ACK", OUTSIDE)
        .from("<sip:alice@example.com>;tag=a")
        .to("<sip:4930@example.com>;tag=callee")
        .call_id(at_gateway.header("Call-ID").unwrap());
    let other = ack.clone().to("<sip:bob@example.com>;tag=callee");
    assert!(b.send("10.0.9.9:1024", other).is_empty());
    assert_eq!(the(&b.send(ALICE, ack), GATEWAY).method(), "ACK");
}

// ---- whose name a callee may bear ----------------------------------------------------------------------------------------

fn asks(change: impl FnOnce(&mut Settings)) -> Bench {
    let mut b = gateway(|settings| {
        settings.auth.challenge_proxy = true;
        change(settings);
    });
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    b
}

/// A stranger's call to bob, who is told by To that he is alice. What bob sends then.
fn within(at_bob: &Text, method: &str) -> Request {
    let inside = Request::new(method, "sip:x@10.0.9.9:1024")
        .via(BOB, &format!("z9hG4bKbob{}", unique()))
        .from("<sip:alice@example.com>;tag=callee")
        .to(STRANGER)
        .call_id(at_bob.header("Call-ID").unwrap())
        .cseq(unique() as u32);
    let routes = at_bob.all("Record-Route");
    routes.iter().fold(inside, |request, route| request.add(&format!("Route: {route}")))
}

fn told_to_be(b: &mut Bench, name: &str, extra: &str, uri: &str) -> Sent {
    let invite = Request::new("INVITE", uri)
        .from(STRANGER)
        .to(&format!("<sip:{name}@example.com>"))
        .set("Contact", "<sip:x@10.0.9.9:1024>")
        .add(extra);
    the(&b.send("10.0.9.9:1024", invite), BOB).clone()
}

#[test]
fn the_name_in_to_is_proved_by_whom_it_was_not_meant_for() {
    let uris = ["sip:bob@example.com", "sip:b%6fb@example.com:5060;x=y"];
    let extras = ["Subject: x", "Supported: from-change"];
    for method in ["INVITE", "MESSAGE", "INFO", "REFER", "UPDATE"] {
        // alice has a password, which is hers alone; the desk has none, and bob may go by its name where he was called by it.
        for (named, borne) in [("alice", false), ("desk", true)] {
            for (extra, uri) in extras.into_iter().zip(uris) {
                let mut b = asks(|_| ());
                let at_bob = told_to_be(&mut b, named, extra, uri);
                let ok = at_bob.answer(200).add("Contact: <sip:bob@10.0.1.2:5060>");
                b.send(BOB, ok);
                let inside = |method: &str, name: &str| {
                    let from = format!("<sip:{name}@example.com>;tag=callee");
                    within(&at_bob, method).from(&from)
                };
                let proved = |b: &mut Bench, name: &str, user: &str, password: &str| {
                    let asked = b.send_for_one(BOB, inside(method, name));
                    let asked = challenge(&asked, "SHA-256");
                    let line = credentials(user, password, "sip:x@10.0.9.9:1024", method, &asked);
                    let line = format!("Proxy-Authorization: {line}");
                    b.send(BOB, inside(method, name).add(&line))
                };
                let answer = b.send_for_one(BOB, inside(method, named));
                assert_eq!(answer.status(), 407, "{method}");
                let changes = extra.contains("from-change");
                let ended = b.send(BOB, inside("BYE", named));
                match changes {
                    // There any name could be borne.
                    true => assert_eq!(only(ended).status(), 407),
                    false => assert_eq!(the(&ended, "10.0.9.9:1024").method(), "BYE"),
                }
                // From that nothing follows.
                let answer = b.send_for_one(BOB, inside(method, named));
                assert_eq!(answer.status(), 407, "{method}");
                let sent = proved(&mut b, named, "mallory", "m");
                assert_eq!(only(sent).status(), 407, "{method}");
                let refused = match changes {
                    true => only(proved(&mut b, "carol", "bob", "b")),
                    false => b.send_for_one(BOB, inside(method, "carol")),
                };
                assert_eq!(refused.status(), 403, "{method}");
                let sent = proved(&mut b, named, "bob", "b");
                match borne {
                    true => assert_eq!(the(&sent, "10.0.9.9:1024").method(), method),
                    false => assert_eq!(only(sent).status(), 403, "{method}"),
                }
            }
        }
    }
}

/// alice's calls go on to bob: he was asked for by her name.
#[test]
fn who_is_called_for_another_bears_that_name_once_it_has_proved_its_own() {
    let mut b = asks(|_| ());
    b.register("alice", "<sip:bob@10.0.0.1:5060>");
    let aor = "<sip:bob@10.0.0.1>";
    let register = Request::new("REGISTER", "sip:10.0.0.1")
        .via(BOB, &format!("z9hG4bKreg{}", unique()))
        .from(&format!("{aor};tag=r"))
        .to(aor)
        .add("Contact: <sip:bob@10.0.1.2:5060>");
    assert_eq!(b.send_for_one(BOB, register).status(), 200);
    let invite = Request::new("INVITE", "sip:alice@example.com")
        .from(STRANGER)
        .to("<sip:alice@example.com>")
        .set("Contact", "<sip:x@10.0.9.9:1024>");
    let again = the(&b.send("10.0.9.9:1024", invite), PROXY).bytes.clone();
    let at_bob = the(&b.send(PROXY, again), BOB).clone();
    let inside = || within(&at_bob, "INFO").from("<sip:alice@example.com>;tag=callee");
    let asked = challenge(&b.send_for_one(BOB, inside()), "SHA-256");
    let line = credentials("bob", "b", "sip:x@10.0.9.9:1024", "INFO", &asked);
    let sent = b.send(BOB, inside().add(&format!("Proxy-Authorization: {line}")));
    assert!(sent.iter().any(|sent| sent.method() == "INFO"), "{}", show(&sent));
}

/// Nor does the cookie of a request within that dialog say more than its own.
#[test]
fn no_later_request_gives_the_name_away() {
    let mut b = asks(|_| ());
    let at_bob = told_to_be(&mut b, "alice", "Subject: x", "sip:bob@example.com");
    let answer = at_bob.answer(200).add("Contact: <sip:bob@10.0.1.2:5060>");
    let ok = b.send_for_one("10.0.1.2:5060", answer);
    for extra in ["Subject: x", "Supported: from-change"] {
        let inside = Request::new("INVITE", "sip:bob@10.0.1.2:5060")
            .from(STRANGER)
            .to("<sip:alice@example.com>;tag=callee")
            .set("Contact", "<sip:x@10.0.9.9:1024>")
            .call_id(at_bob.header("Call-ID").unwrap())
            .cseq(unique() as u32)
            .add(extra);
        let sent = b.send("10.0.9.9:1024", routes(&ok, inside));
        let at_bob = the(&sent, BOB).clone();
        let asked = b.send_for_one(BOB, within(&at_bob, "MESSAGE"));
        assert_eq!(asked.status(), 407, "{extra}: {asked}");
    }
}

#[test]
fn a_bye_is_asked_of_whom_can_answer() {
    // The gateway has been called by a number, and has no password.
    let mut b = asks(|settings| settings.auth.challenge_bye = true);
    let invite = dial("INVITE", "sip:alice@example.com").to("<sip:4930@example.com>").add("Contact: <sip:alice@10.0.1.1:5060>");
    let at_gateway = the(&as_alice(&mut b, &invite), GATEWAY).clone();
    b.send_for_one(GATEWAY, at_gateway.answer(200));
    let bye = |from: &str| {
        let bye = Request::new("BYE", "sip:alice@10.0.1.1:5060")
            .via(GATEWAY, &format!("z9hG4bKgw{}", unique()))
            .from(&format!("<sip:{from}@example.com>;tag=callee"))
            .to("<sip:alice@example.com>;tag=a")
            .call_id(at_gateway.header("Call-ID").unwrap());
        let routes = at_gateway.all("Record-Route");
        routes.iter().fold(bye, |bye, route| bye.add(&format!("Route: {route}")))
    };
    let sent = b.send(GATEWAY, bye("4930"));
    assert_eq!(the(&sent, ALICE).method(), "BYE");
    assert_eq!(b.send_for_one(GATEWAY, bye("bob")).status(), 403);
    // bob's own is asked.
    let called = Request::invite().from(STRANGER);
    let at_bob = the(&b.send("10.0.9.9:1024", called), BOB).clone();
    let bye = within(&at_bob, "BYE").from("<sip:bob@example.com>;tag=callee");
    assert_eq!(b.send_for_one(BOB, bye).status(), 407);
    // Where he is called the desk, which has no password, he is not.
    let at_bob = told_to_be(&mut b, "desk", "Subject: x", "sip:bob@example.com");
    let bye = within(&at_bob, "BYE").from("<sip:desk@example.com>;tag=callee");
    assert_eq!(the(&b.send(BOB, bye), "10.0.9.9:1024").method(), "BYE");
}
