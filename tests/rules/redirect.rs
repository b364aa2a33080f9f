//! The redirect server (RFC 3261 §8.3).

use strowger::stack::route::Action;

use crate::bench::*;
use crate::message::Request;
use crate::proxy::route;

fn bench() -> Bench {
    let mut b = Bench::with(|settings| settings.proxy.redirect = true);
    b.register("bob", "<sip:bob@10.0.1.2:5060;ob>;q=0.3");
    b.register("bob", "<sip:bob@10.0.1.3:5060>");
    b.register("bob", "<sip:bob@10.0.1.4:5060>;q=0.70");
    b
}

#[test]
fn the_contacts_are_answered_best_first_with_their_q() {
    let mut b = bench();
    let request = Request::invite();
    let answer = b.send_for_one(ALICE, &request);
    assert_eq!(answer.status(), 302);
    assert_eq!(
        answer.all("Contact"),
        ["<sip:bob@10.0.1.3:5060>", "<sip:bob@10.0.1.4:5060>;q=0.7", "<sip:bob@10.0.1.2:5060;ob>;q=0.3"]
    );
    // The INVITE again, its answer again; its ACK ends here.
    assert_eq!(b.send_for_one(ALICE, &request).bytes, answer.bytes);
    assert!(b.send(ALICE, request.ack(&answer)).is_empty());
    // A CANCEL finds nothing under way.
    assert!(b.send_for_one(ALICE, request.cancel()).gist().ends_with("CANCEL"));
    assert_eq!(b.send_for_one(ALICE, Request::new("MESSAGE", "sip:bob@example.com")).status(), 302);
    b.assert_quiet();
}

#[test]
fn nobody_is_redirected_to_whom_he_asked_for() {
    let mut b = bench();
    for contact in ["sip:carol@example.com", "sip:%63arol@EXAMPLE.com"] {
        b.location.remove(Default::default(), b"carol@example.com", None);
        b.location.add(Default::default(), b"carol@example.com", contact.as_bytes(), 3600).unwrap();
        let carol = Request::new("INVITE", "sip:carol@example.com");
        assert_eq!(b.send_for_one(ALICE, carol).status(), 404, "{contact}");
    }
    b.register("carol", "<sip:carol@10.0.1.3:5060>");
    let carol = Request::new("INVITE", "sip:carol@example.com");
    let answer = b.send_for_one(ALICE, carol);
    assert_eq!(answer.all("Contact"), ["<sip:carol@10.0.1.3:5060>"]);
}

#[test]
fn who_is_unknown_or_away_is_404_or_480() {
    let mut b = bench();
    let nobody = Request::new("INVITE", "sip:nobody@example.com");
    assert_eq!(b.send_for_one(ALICE, nobody).status(), 404);
    b.register("eve", "<sip:eve@10.0.1.3:5060>;expires=60");
    b.tick(60_000);
    let eve = Request::new("INVITE", "sip:eve@example.com");
    assert_eq!(b.send_for_one(ALICE, eve).status(), 480);
}

#[test]
fn a_redirect_route_answers_its_targets_or_the_registered_contacts() {
    let uris = vec![b"sip:a@other.example".to_vec(), b"tel:+123".to_vec()];
    let mut b = Bench::with(|settings| {
        settings.routes = vec![
            strowger::stack::route::Route { to_host: Some(b"moved.example".to_vec().into()), ..route(Action::Redirect(uris)) },
            strowger::stack::route::Route { methods: vec![b"INVITE".to_vec()], ..route(Action::Redirect(Vec::new())) },
        ]
        .into();
    });
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let answer = b.send_for_one(ALICE, Request::new("OPTIONS", "sip:x@moved.example"));
    assert_eq!(answer.status(), 302);
    assert_eq!(answer.all("Contact"), ["<sip:a@other.example>", "<tel:+123>"]);
    let answer = b.send_for_one(ALICE, Request::invite());
    assert_eq!(answer.all("Contact"), ["<sip:bob@10.0.1.2:5060>"]);
}

#[test]
fn the_registrar_still_registers() {
    let mut b = bench();
    b.register("dave", "<sip:dave@10.0.1.4:5060>");
    assert_eq!(b.location.bindings(), 4);
}
