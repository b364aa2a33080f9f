//! A server that is about to stop: nothing new begins, what has begun ends as it should.

use crate::bench::*;
use crate::message::Request;
use strowger::stack::Element;

fn draining(b: &mut Bench) {
    for core in &mut b.cores {
        core.handle_drain();
    }
}

#[test]
fn what_would_begin_a_dialog_is_503_and_says_when_to_come_again() {
    let mut b = Bench::new();
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    draining(&mut b);
    for method in ["INVITE", "SUBSCRIBE", "REFER"] {
        let request = Request::new(method, "sip:bob@example.com");
        let answer = b.send_for_one(ALICE, &request);
        assert_eq!(answer.status(), 503, "{method}");
        assert_eq!(answer.header("Retry-After"), Some("10"), "{method}");
        assert_eq!(b.send_for_one(ALICE, &request).bytes, answer.bytes);
        if method == "INVITE" {
            assert!(b.send(ALICE, request.ack(&answer)).is_empty());
        }
    }
    b.assert_quiet();
}

#[test]
fn what_begins_no_dialog_passes() {
    let mut b = Bench::new();
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    draining(&mut b);
    // This is a REGISTER too.
    b.register("carol", "<sip:carol@10.0.1.3:5060>");
    let options = Request::new("OPTIONS", "sip:example.com");
    assert_eq!(b.send_for_one(ALICE, options).status(), 200);
    for method in ["MESSAGE", "PUBLISH", "BYE", "INFO"] {
        let relayed = b.send_for_one(ALICE, Request::new(method, "sip:bob@example.com"));
        assert_eq!((relayed.method(), relayed.to.as_str()), (method, BOB));
        let answers = b.send(BOB, relayed.answer(200));
        assert_eq!(only(answers).status(), 200, "{method}");
    }
}

#[test]
fn a_dialog_goes_on() {
    let mut b = Bench::new();
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let invite = Request::invite();
    let relayed = b.send(ALICE, &invite).pop().unwrap();
    draining(&mut b);
    // The INVITE under way: again, cancelled, answered.
    assert_eq!(b.send_for_one(ALICE, &invite).status(), 100);
    let ringing = b.send(BOB, relayed.answer(180).tag("b"));
    assert_eq!(only(ringing).status(), 180);
    let ok = only(b.send(BOB, relayed.answer(200).tag("b")));
    assert_eq!(ok.status(), 200);
    // A re-INVITE of it has a To tag.
    let again = Request::invite().to(&format!("{};tag=b", "<sip:bob@example.com>"));
    let sent = b.send(ALICE, again);
    assert!(sent.iter().any(|sent| sent.to == BOB), "{:?}", sent.iter().map(|sent| sent.gist()).collect::<Vec<_>>());
}

/// bob's calls go to carol, by this very server: a call that had begun before comes by for the second time.
#[test]
fn what_has_been_here_before_has_begun() {
    let mut b = Bench::new();
    b.register("bob", &format!("<sip:carol@{PROXY}>"));
    for aor in [&b"carol@10.0.0.1"[..], b"carol@10.0.0.1:5060"] {
        b.location.add(Default::default(), aor, b"sip:carol@10.0.1.3:5060", 3600).unwrap();
    }
    let sent = b.send(ALICE, Request::invite());
    let spiral = sent.iter().find(|sent| sent.to == PROXY).expect("to itself");
    draining(&mut b);
    let sent = b.send(PROXY, spiral.bytes.as_slice());
    assert!(
        sent.iter().any(|sent| sent.to == CAROL && sent.method() == "INVITE"),
        "{:?}",
        sent.iter().map(|sent| sent.gist()).collect::<Vec<_>>()
    );
}
