//! A Via of ours that somebody was sent must not make us write to whom that somebody likes (RFC 3261 §16.7, §16.11, §17.1.1.3).

use strowger::stack::counters::Drop;
use strowger::stack::settings::Mode;

use crate::bench::*;
use crate::message::{Request, Text};

/// An ACK to a 2xx as it reached Bob, who knows by it a branch of ours without a transaction.
fn ack_at_bob(b: &mut Bench) -> Text {
    let sent = b.send(ALICE, Request::invite());
    let at_bob = the(&sent, BOB).clone();
    b.send(BOB, at_bob.answer(200).tag("callee"));
    let mut ack = Request::new("ACK", "sip:bob@10.0.1.2:5060")
        .to("<sip:bob@example.com>;tag=callee")
        .call_id(at_bob.header("Call-ID").unwrap())
        .cseq(1);
    for route in at_bob.all("Record-Route") {
        ack = ack.top(&format!("Route: {route}"));
    }
    let ack = only(b.send(ALICE, ack));
    assert_eq!((ack.to.as_str(), ack.method()), (BOB, "ACK"));
    Text::new(&ack.bytes)
}

/// The answer with another Via below ours, and another method in CSeq.
fn bent(ack: &Text, status: u16, method: &str) -> String {
    let mut text = String::from_utf8(ack.answer(status).bytes()).unwrap();
    let below = ack.all("Via")[1].to_string();
    let cseq = ack.header("CSeq").unwrap().to_string();
    text = text.replace(&below, "SIP/2.0/UDP 10.9.9.9:5060;branch=z9hG4bKvictim");
    text.replace(&cseq, &cseq.replace("ACK", method))
}

#[test]
fn an_ack_has_no_answer_and_its_branch_leads_nowhere() {
    let mut b = Bench::new();
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let ack = ack_at_bob(&mut b);
    let before = b.dropped(Drop::StrayResponse);
    let mut count = 0;
    for status in [100, 183, 200, 302, 404, 603] {
        for method in ["ACK", "INVITE", "BYE", "MESSAGE", "ack"] {
            let sent = b.send(BOB, bent(&ack, status, method).as_str());
            assert!(sent.is_empty(), "{status} {method}: {}", show(&sent));
            count += 1;
        }
        assert!(b.send(BOB, ack.answer(status)).is_empty(), "{status}");
        count += 1;
    }
    assert_eq!(b.dropped(Drop::StrayResponse) - before, count);
    b.tick(100_000);
    b.assert_quiet();
}

#[test]
fn without_state_an_ack_has_no_answer_either() {
    let mut b = Bench::with(|settings| settings.proxy.mode = Mode::Stateless);
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let ack = ack_at_bob(&mut b);
    for status in [183, 200, 404] {
        assert!(b.send(BOB, ack.answer(status)).is_empty(), "{status}");
    }
    assert_eq!(b.dropped(Drop::StrayResponse), 3);
}

/// A copy of a re-INVITE without the dialog's cookie is refused, and its refusal must not swallow the ACK to the answer of the real one.
#[test]
fn what_is_refused_of_a_copy_does_not_stop_the_ack_of_the_call() {
    let mut b = Bench::new();
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let sent = b.send(ALICE, Request::invite());
    let at_bob = the(&sent, BOB).clone();
    let answer = at_bob.answer(200).tag("callee").add("Contact: <sip:bob@10.0.1.2:5060>");
    let ok = b.send_for_one(BOB, answer);
    let inside = |method: &str, cseq| {
        let mut request = Request::new(method, "sip:bob@10.0.1.2:5060")
            .to("<sip:bob@example.com>;tag=callee")
            .call_id(at_bob.header("Call-ID").unwrap())
            .cseq(cseq);
        for route in ok.all("Record-Route") {
            request = request.top(&format!("Route: {route}"));
        }
        request
    };
    let sent = b.send(ALICE, inside("INVITE", 2));
    let again = the(&sent, BOB).clone();
    for (name, value) in [("CSeq", "2 BYE"), ("Max-Forwards", "many")] {
        let copy = inside("INVITE", 2).without("Route").set(name, value);
        assert_eq!(only(b.send(DAVE, copy)).status(), 400, "{name}");
    }
    b.send_for_one(BOB, again.answer(200).add("Contact: <sip:bob@10.0.1.2:5060>"));
    let ack = only(b.send(ALICE, inside("ACK", 2)));
    assert_eq!((ack.to.as_str(), ack.method()), (BOB, "ACK"));
}
