//! What is sent to places that have proved nothing: bytes out for bytes in, and where a contact may lead (RFC 3261 §26.1.5).

use strowger::stack::counters::Limit;
use strowger::stack::route::Network;

use crate::bench::*;
use crate::message::{Request, Wire};

const VICTIM: &str = "203.0.113.9:5060";

fn bytes(sent: &[Sent], peer: &str) -> usize {
    let ip = |peer: &str| peer.rsplit_once(':').unwrap().0.to_owned();
    let there = sent.iter().filter(|sent| ip(&sent.to) == ip(peer));
    there.map(|sent| sent.bytes.len()).sum()
}

/// Bob at a phone of his own, and mallory with what `contacts` says, registered from DAVE.
fn bench(contacts: &[String]) -> Bench {
    let mut b = Bench::new();
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let register = Request::new("REGISTER", "sip:example.com")
        .via(DAVE, "z9hG4bKm")
        .from("<sip:mallory@example.com>;tag=r")
        .to("<sip:mallory@example.com>")
        .add(&format!("Contact: {}", contacts.join(", ")));
    assert_eq!(b.send_for_one(DAVE, register).status(), 200);
    b
}

fn call(user: &str) -> Request {
    Request::new("INVITE", &format!("sip:{user}@example.com"))
        .to(&format!("<sip:{user}@example.com>"))
        .call_id(&format!("c{}", crate::message::unique()))
}

fn len(request: &Request) -> usize {
    request.wire().len()
}

#[test]
fn contacts_at_machines_that_have_not_registered_them_get_three_times_the_request_at_most() {
    let many = |place: fn(usize) -> String| (0..10).map(place).collect::<Vec<_>>();
    let long = "x".repeat(900);
    let sets = [
        many(|n| format!("<sip:m@203.0.113.9:{}>", 5060 + n)),
        many(|n| format!("<sip:m@203.0.113.9:5060;x={n}>")),
        many(|n| format!("<sip:m@203.0.113.{n}>")),
        vec![format!("<sip:{long}@203.0.113.9>")],
        vec!["<sip:m@203.0.113.9>".to_owned()],
    ];
    for contacts in sets {
        for method in ["INVITE", "MESSAGE", "SUBSCRIBE"] {
            let mut b = bench(&contacts);
            let request = Request::new(method, "sip:mallory@example.com").to("<sip:mallory@example.com>").call_id("reflected");
            let mut sent = b.send(ALICE, &request);
            sent.extend(b.tick(200_000));
            let there: usize = sent.iter().filter(|sent| sent.to.starts_with("203.0.113.")).map(|sent| sent.bytes.len()).sum();
            assert!(there <= 3 * len(&request), "{there} {method} {contacts:?}");
            assert!(b.limit_hits(Limit::AnswerSize) > 0, "{method} {contacts:?}");
            b.assert_quiet();
        }
    }
}

#[test]
fn whoever_has_answered_once_is_called_as_any_other_for_an_hour() {
    let contacts = ["<sip:m@203.0.113.9>".to_owned(), "<sip:m@203.0.113.10>".to_owned()];
    let mut b = bench(&contacts);
    for ip in ["203.0.113.9", "203.0.113.10"] {
        let place = format!("{ip}:5060");
        // One after the other, as there is room.
        let sent = b.send(ALICE, call("mallory"));
        let at = to(&sent, &place).into_iter().next().cloned();
        if let Some(at) = at {
            b.send(&place, at.answer(486));
        } else {
            let first = the(&sent, VICTIM).clone();
            b.send(VICTIM, first.answer(486));
            let sent = b.send(ALICE, call("mallory"));
            let at = the(&sent, &place).clone();
            b.send(&place, at.answer(486));
        }
        b.tick(100_000);
    }
    let sent = b.send(ALICE, call("mallory"));
    assert!(!to(&sent, VICTIM).is_empty() && !to(&sent, "203.0.113.10:5060").is_empty());
    let again = b.tick(40_000);
    assert_eq!(to(&again, VICTIM).iter().filter(|s| s.method() == "INVITE").count(), 6);
    b.tick(3_600_000);
    let sent = b.send(ALICE, call("mallory"));
    let again = b.tick(40_000);
    let copies = |sent: &[Sent]| sent.iter().filter(|s| s.method() == "INVITE").count();
    assert!(copies(&sent) + copies(&again) <= 2, "forgotten");
}

/// Users who forward to others, who have contacts at third machines: each pass of the request has its own transaction here.
#[test]
fn a_tree_of_users_makes_no_more_of_it() {
    let mut b = Bench::new();
    let mut bind = |user: &str, contacts: Vec<String>| {
        let register = Request::new("REGISTER", "sip:example.com")
            .via(DAVE, &format!("z9hG4bKm{}", crate::message::unique()))
            .from(&format!("<sip:{user}@example.com>;tag=r"))
            .to(&format!("<sip:{user}@example.com>"))
            .call_id(user)
            .add(&format!("Contact: {}", contacts.join(", ")));
        assert_eq!(b.send_for_one(DAVE, register).status(), 200);
    };
    bind("mallory", (0..5).map(|n| format!("<sip:m{n}@{PROXY}>")).collect());
    for n in 0..5 {
        let ports = (0..5).map(|port| format!("<sip:m@203.0.113.9:{}>", 5060 + 10 * n + port));
        bind(&format!("m{n}"), ports.collect());
    }
    let request = call("mallory");
    let mut mail = b.send(ALICE, &request);
    let mut there = 0;
    for _ in 0..10 {
        let mut next = Vec::new();
        for sent in &mail {
            there += usize::from(sent.to.starts_with("203.0.113.")) * sent.bytes.len();
            if sent.to == PROXY {
                next.extend(b.send(PROXY, &sent.bytes));
            }
        }
        next.extend(b.tick(20_000));
        mail = next;
    }
    assert!(there <= 3 * len(&request), "{there} for {}", len(&request));
}

#[test]
fn somebody_else_cannot_answer_for_it() {
    let mut b = bench(&["<sip:m@203.0.113.9>".to_owned()]);
    let sent = b.send(ALICE, call("mallory"));
    // The branch is known to nobody but who got it; here the attacker is told by magic, and is elsewhere.
    let answer = the(&sent, VICTIM).answer(486);
    b.send(DAVE, answer);
    b.tick(100_000);
    let request = call("mallory");
    let mut sent = b.send(ALICE, &request);
    sent.extend(b.tick(100_000));
    assert!(bytes(&sent, VICTIM) <= 3 * len(&request));
}

#[test]
fn what_a_request_brings_back_to_a_forged_source_is_bounded() {
    // Whatever the phone answers, and however often it repeats that.
    let subject = format!("Subject: {}", "x".repeat(200));
    for (status, again) in [(486, 0), (200, 11), (180, 40), (302, 0), (603, 0)] {
        let mut b = bench(&["<sip:m@10.0.1.4:5060>".to_owned()]);
        let request = call("bob").via(VICTIM, "z9hG4bKforged").add(&subject);
        let sent = b.send(VICTIM, &request);
        let mut back = bytes(&sent, VICTIM);
        let at_bob = the(&sent, BOB).clone();
        let answer = at_bob.answer(status).tag("b").add("Contact: <sip:bob@10.0.1.2:5060>");
        let sent = b.send(BOB, answer.clone());
        let finals = to(&sent, VICTIM).len();
        assert_eq!(finals, 1, "{status}: the first one leaves");
        back += bytes(&sent, VICTIM);
        for _ in 0..again {
            back += bytes(&b.tick(1_000), VICTIM);
            back += bytes(&b.send(BOB, answer.clone()), VICTIM);
        }
        // The first final answer leaves, whatever there was before.
        let mut awaited = 0;
        if status == 180 {
            awaited = bytes(&b.send(BOB, at_bob.answer(486)), VICTIM);
        }
        back += bytes(&b.tick(100_000), VICTIM);
        assert!(back <= 3 * len(&request), "{status}: {back} and {awaited} for {}", len(&request));
        assert!(b.limit_hits(Limit::AnswerSize) > 0);
        b.assert_quiet();
    }
}

#[test]
fn each_repetition_of_the_request_is_answered_again() {
    let mut b = bench(&["<sip:m@10.0.1.4:5060>".to_owned()]);
    let request = call("bob");
    let sent = b.send(ALICE, &request);
    let at_bob = the(&sent, BOB).clone();
    b.send(BOB, at_bob.answer(486));
    b.tick(8_000);
    for _ in 0..20 {
        let sent = b.send(ALICE, &request);
        assert_eq!(to(&sent, ALICE).len(), 1, "a lost answer comes again");
    }
}

#[test]
fn whoever_hears_us_is_answered_as_often_as_the_rfc_has_it() {
    let mut b = bench(&["<sip:m@10.0.1.4:5060>".to_owned()]);
    // ALICE has answered a call.
    b.register("alice", "<sip:alice@10.0.1.1:5060>");
    let sent = b.send(DAVE, call("alice"));
    let at_alice = the(&sent, ALICE).clone();
    b.send(ALICE, at_alice.answer(486));
    b.tick(100_000);
    let sent = b.send(ALICE, call("bob"));
    let at_bob = the(&sent, BOB).clone();
    b.send(BOB, at_bob.answer(486));
    assert_eq!(to(&b.tick(60_000), ALICE).len(), 10, "timer G");
}

#[test]
fn a_trusted_source_and_a_conf_without_the_bound_are_free() {
    let network = Network { address: "203.0.113.0".parse().unwrap(), prefix: 24 };
    for trusted in [true, false] {
        let mut b = Bench::with(|settings| match trusted {
            true => settings.limits.trusted_sources = vec![network],
            false => settings.limits.answer_factor = 0,
        });
        b.register("bob", "<sip:bob@10.0.1.2:5060>");
        let sent = b.send(VICTIM, call("bob").via(VICTIM, "z9hG4bKt"));
        let at_bob = the(&sent, BOB).clone();
        b.send(BOB, at_bob.answer(486));
        assert_eq!(to(&b.tick(60_000), VICTIM).len(), 10);
        assert_eq!(b.limit_hits(Limit::AnswerSize), 0);
    }
}

/// Where a contact leads: who got the INVITE.
fn called(b: &mut Bench) -> Vec<String> {
    let sent = b.send(ALICE, call("mallory"));
    let copies = sent.iter().filter(|sent| sent.method() == "INVITE");
    copies.map(|sent| format!("{} {}", sent.flow.transport.name(), sent.to)).collect()
}

#[test]
fn a_contact_on_this_machine_is_called_by_the_way_it_came() {
    for contact in [
        "<sip:m@127.0.0.1:6379;transport=tcp>",
        "<sip:m@127.0.0.1:53>",
        "<sip:m@[::1]:6379>",
        "<sip:m@10.0.0.1:6379>",
        "<sip:m@[::ffff:127.0.0.1]:25>",
    ] {
        let mut b = bench(&[contact.to_owned()]);
        let places = called(&mut b);
        assert_eq!(places, [format!("UDP {DAVE}")], "{contact}");
    }
    // Through another proxy there is no such way.
    let mut b = Bench::new();
    let register = Request::new("REGISTER", "sip:example.com")
        .via(DAVE, "z9hG4bKm")
        .from("<sip:mallory@example.com>;tag=r")
        .to("<sip:mallory@example.com>")
        .add("Via: SIP/2.0/UDP 10.0.9.9;branch=z9hG4bKphone")
        .add("Contact: <sip:m@127.0.0.1:6379;transport=tcp>");
    assert_eq!(b.send_for_one(DAVE, register).status(), 200);
    assert!(called(&mut b).is_empty());
}

#[test]
fn from_outside_no_private_address_is_reached_and_from_inside_it_is() {
    let outside = "198.51.100.7:5060";
    for (contact, source, place) in [
        ("10.0.9.9:5060", outside, outside),
        ("192.168.1.1:80", outside, outside),
        ("10.0.9.9:5060", DAVE, "10.0.9.9:5060"),
        ("198.51.100.8:5060", outside, "198.51.100.8:5060"),
    ] {
        let mut b = Bench::new();
        let register = Request::new("REGISTER", "sip:example.com")
            .via(source, "z9hG4bKm")
            .from("<sip:mallory@example.com>;tag=r")
            .to("<sip:mallory@example.com>")
            .add(&format!("Contact: <sip:m@{contact}>"));
        assert_eq!(b.send_for_one(source, register).status(), 200);
        assert_eq!(called(&mut b), [format!("UDP {place}")], "{contact} from {source}");
    }
}

#[test]
fn contact_networks_say_where_contacts_may_be() {
    let mut b = Bench::with(|settings| {
        settings.registrar.contact_networks = vec![Network { address: "203.0.113.0".parse().unwrap(), prefix: 24 }];
    });
    for (contact, place) in [("203.0.113.9:5060", VICTIM), ("10.0.9.9:5060", DAVE)] {
        let register = Request::new("REGISTER", "sip:example.com")
            .via(DAVE, &format!("z9hG4bKm{}", crate::message::unique()))
            .from("<sip:mallory@example.com>;tag=r")
            .to("<sip:mallory@example.com>")
            .call_id(contact)
            .add(&format!("Contact: <sip:m@{contact}>"));
        assert_eq!(b.send_for_one(DAVE, register).status(), 200);
        assert_eq!(called(&mut b), [format!("UDP {place}")]);
        let remove = Request::new("REGISTER", "sip:example.com")
            .via(DAVE, &format!("z9hG4bKm{}", crate::message::unique()))
            .from("<sip:mallory@example.com>;tag=r")
            .to("<sip:mallory@example.com>")
            .call_id(contact)
            .cseq(9)
            .add("Contact: *")
            .add("Expires: 0");
        assert_eq!(b.send_for_one(DAVE, remove).status(), 200);
    }
}
