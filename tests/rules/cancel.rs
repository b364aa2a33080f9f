//! CANCEL (RFC 3261 §9, §16.10): every moment at which one can come.

use crate::bench::*;
use crate::message::{Request, param};

fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.register("bob", "<sip:bob@10.0.1.2:5060>");
    bench
}

fn invited(b: &mut Bench) -> (Request, Sent) {
    let request = Request::invite().cseq(3);
    let sent = b.send(ALICE, &request);
    let at_bob = the(&sent, BOB).clone();
    (request, at_bob)
}

#[test]
fn after_a_provisional_response_it_is_answered_200_and_sent_on_at_once() {
    let mut b = bench();
    let (request, at_bob) = invited(&mut b);
    b.send(BOB, at_bob.answer(180));
    let sent = b.send(ALICE, request.cancel());
    let ok = the(&sent, ALICE);
    assert_eq!(ok.gist(), "200 CANCEL");
    assert!(param(ok.header("To").unwrap(), "tag").is_some());
    let cancel = the(&sent, BOB).clone();
    // §9.1: as the INVITE that this branch sent.
    assert_eq!(cancel.gist(), "CANCEL");
    assert_eq!(cancel.uri(), at_bob.uri());
    assert_eq!(cancel.all("Via"), [at_bob.header("Via").unwrap()]);
    assert_eq!(cancel.header("CSeq"), Some("3 CANCEL"));
    for name in ["From", "To", "Call-ID"] {
        assert_eq!(cancel.header(name), at_bob.header(name), "{name}");
    }
    assert_eq!(cancel.header("Max-Forwards"), Some("70"));
    assert!(cancel.body.is_empty());
    // Its 200 stays here; the 487 goes to the caller.
    assert!(b.send(BOB, cancel.answer(200)).is_empty());
    let sent = b.send(BOB, at_bob.answer(487));
    assert_eq!(the(&sent, BOB).method(), "ACK");
    let answer = the(&sent, ALICE);
    assert_eq!(answer.gist(), "487 INVITE");
    assert!(b.send(ALICE, request.ack(answer)).is_empty());
    b.assert_quiet();
}

#[test]
fn before_a_provisional_response_it_waits_for_one() {
    let mut b = bench();
    let (request, at_bob) = invited(&mut b);
    let sent = b.send(ALICE, request.cancel());
    assert_eq!(only(sent).gist(), "200 CANCEL");
    let sent = b.send(BOB, at_bob.answer(100));
    let cancel = only(sent);
    assert_eq!((cancel.to.as_str(), cancel.method()), (BOB, "CANCEL"));
    // One that is not 100 does the same, and passes.
    let (request, at_bob) = invited(&mut b);
    b.send(ALICE, request.cancel());
    let sent = b.send(BOB, at_bob.answer(180));
    assert_eq!(the(&sent, BOB).method(), "CANCEL");
    assert_eq!(the(&sent, ALICE).status(), 180);
    // And only once.
    assert_eq!(only(b.send(BOB, at_bob.answer(183))).to, ALICE);
    b.send(BOB, at_bob.answer(487));
    b.assert_quiet();
}

#[test]
fn a_callee_that_never_says_anything_ends_as_487() {
    let mut b = bench();
    let (request, _) = invited(&mut b);
    b.tick(1000);
    b.send(ALICE, request.cancel());
    let sent = b.tick(40_000);
    let answer = to(&sent, ALICE)[0];
    assert_eq!((answer.at, answer.gist().as_str()), (32_000, "487 INVITE"));
    assert!(!sent.iter().any(|s| s.method() == "CANCEL"));
    b.send(ALICE, request.ack(answer));
    b.assert_quiet();
}

#[test]
fn a_callee_that_answers_nothing_more_after_the_cancel_is_given_up_after_64_t1() {
    let mut b = bench();
    let (request, at_bob) = invited(&mut b);
    b.send(BOB, at_bob.answer(180));
    b.tick(5000);
    let sent = b.send(ALICE, request.cancel());
    b.send(BOB, the(&sent, BOB).answer(200));
    // A provisional response does not prolong it.
    b.tick(10_000);
    b.send(BOB, at_bob.answer(180));
    let sent = b.tick(30_000);
    let answer = to(&sent, ALICE)[0];
    assert_eq!((answer.at, answer.gist().as_str()), (37_000, "487 INVITE"));
    b.send(ALICE, request.ack(answer));
    b.assert_quiet();
}

#[test]
fn crossing_a_200_it_changes_nothing() {
    let mut b = bench();
    let (request, at_bob) = invited(&mut b);
    b.send(BOB, at_bob.answer(180));
    b.send_for_one(BOB, at_bob.answer(200));
    let sent = b.send(ALICE, request.cancel());
    assert_eq!(only(sent).gist(), "200 CANCEL");
    b.assert_quiet();
    // The other order: our CANCEL is on its way when the 200 comes.
    let (request, at_bob) = invited(&mut b);
    b.send(BOB, at_bob.answer(180));
    let sent = b.send(ALICE, request.cancel());
    let cancel = the(&sent, BOB).clone();
    assert_eq!(b.send_for_one(BOB, at_bob.answer(200)).gist(), "200 INVITE");
    assert!(b.send(BOB, cancel.answer(481)).is_empty());
    let ack = Request::new("ACK", "sip:bob@10.0.1.2:5060")
        .to("<sip:bob@example.com>;tag=callee")
        .call_id(at_bob.header("Call-ID").unwrap())
        .top(&format!("Route: {}", at_bob.header("Record-Route").unwrap()));
    assert_eq!(b.send_for_one(ALICE, ack).to, BOB);
    b.assert_quiet();
}

#[test]
fn of_nothing_that_is_known_it_is_answered_481_and_not_forwarded() {
    let mut b = bench();
    let cancel = Request::invite().cancel();
    let answer = b.send_for_one(ALICE, cancel);
    assert_eq!(answer.gist(), "481 CANCEL");
    // Another branch, another sent-by: another transaction.
    let (request, at_bob) = invited(&mut b);
    b.send(BOB, at_bob.answer(180));
    let stranger = request.cancel().via("10.0.1.1:5060", "z9hG4bKother");
    assert_eq!(b.send_for_one(CAROL, stranger).gist(), "481 CANCEL");
    let branch = request.lines[0].split("branch=").nth(1).unwrap().to_string();
    let stranger = request.cancel().via("10.0.1.3:5060", &branch);
    assert_eq!(b.send_for_one(CAROL, stranger).gist(), "481 CANCEL");
    b.assert_quiet();
}

#[test]
fn twice_it_is_answered_twice_and_sent_on_once() {
    let mut b = bench();
    let (request, at_bob) = invited(&mut b);
    b.send(BOB, at_bob.answer(180));
    assert_eq!(b.send(ALICE, request.cancel()).len(), 2);
    let again = b.send_for_one(ALICE, request.cancel());
    assert_eq!(again.gist(), "200 CANCEL");
    b.send(BOB, at_bob.answer(487));
    // After the end it finds the transaction still.
    assert_eq!(b.send_for_one(ALICE, request.cancel()).gist(), "200 CANCEL");
    b.assert_quiet();
}

#[test]
fn our_cancel_is_repeated_until_it_is_answered() {
    let mut b = bench();
    let (request, at_bob) = invited(&mut b);
    b.send(BOB, at_bob.answer(180));
    let sent = b.send(ALICE, request.cancel());
    let cancel = the(&sent, BOB).clone();
    let sent = b.tick(1600);
    assert_eq!(when(&sent), [(500, "CANCEL".into()), (1500, "CANCEL".into())]);
    assert!(sent.iter().all(|s| s.bytes == cancel.bytes));
    b.send(BOB, cancel.answer(200));
    assert!(b.tick(10_000).is_empty());
    b.send(BOB, at_bob.answer(487));
    b.assert_quiet();
}

#[test]
fn it_ends_a_fork_on_all_branches_and_the_best_answer_is_the_487() {
    let mut b = bench();
    b.register("bob", "<sip:bob@10.0.1.3:5060>");
    b.register("bob", "<sip:bob@10.0.1.4:5060>");
    let request = Request::invite();
    let sent = b.send(ALICE, &request);
    let branches: Vec<Sent> = [BOB, CAROL, DAVE].map(|peer| the(&sent, peer).clone()).into();
    b.send(BOB, branches[0].answer(180));
    b.send(CAROL, branches[1].answer(183));
    let sent = b.send(ALICE, request.cancel());
    assert_eq!(the(&sent, BOB).method(), "CANCEL");
    assert_eq!(the(&sent, CAROL).method(), "CANCEL");
    assert!(to(&sent, DAVE).is_empty(), "has not answered yet");
    let sent = b.send(DAVE, branches[2].answer(180));
    assert_eq!(the(&sent, DAVE).method(), "CANCEL");
    for (peer, branch) in [(BOB, &branches[0]), (CAROL, &branches[1])] {
        let sent = b.send(peer, branch.answer(487));
        assert!(to(&sent, ALICE).is_empty());
    }
    let sent = b.send(DAVE, branches[2].answer(487));
    let answer = the(&sent, ALICE);
    assert_eq!(answer.gist(), "487 INVITE");
    b.send(ALICE, request.ack(answer));
    b.assert_quiet();
}

#[test]
fn it_ends_a_sequential_search_and_no_further_target_is_tried() {
    let mut b = Bench::with(|settings| {
        settings.proxy.fork = strowger::stack::settings::Fork::Sequential;
    });
    b.register("bob", "<sip:bob@10.0.1.2:5060>;q=0.9");
    b.register("bob", "<sip:bob@10.0.1.3:5060>;q=0.5");
    let request = Request::invite();
    let sent = b.send(ALICE, &request);
    let at_bob = the(&sent, BOB).clone();
    b.send(BOB, at_bob.answer(180));
    b.send(ALICE, request.cancel());
    let sent = b.send(BOB, at_bob.answer(487));
    assert!(to(&sent, CAROL).is_empty());
    let answer = the(&sent, ALICE);
    assert_eq!(answer.gist(), "487 INVITE");
    b.send(ALICE, request.ack(answer));
    b.assert_quiet();
}

#[test]
fn a_non_invite_is_not_cancelled() {
    let mut b = bench();
    let request = Request::new("MESSAGE", "sip:bob@example.com");
    let at_bob = only(b.send(ALICE, &request));
    let sent = b.send(ALICE, request.cancel());
    assert!(matches!(only(sent).gist().as_str(), "200 CANCEL" | "481 CANCEL"));
    assert_eq!(b.send_for_one(BOB, at_bob.answer(200)).to, ALICE);
    b.assert_quiet();
}

#[test]
fn an_undelivered_cancel_does_not_end_the_branch() {
    let mut b = bench();
    let (request, at_bob) = invited(&mut b);
    b.send(BOB, at_bob.answer(180));
    let sent = b.send(ALICE, request.cancel());
    assert!(b.undelivered(&the(&sent, BOB).bytes).is_empty());
    let sent = b.send(BOB, at_bob.answer(487));
    assert_eq!(the(&sent, ALICE).status(), 487);
    b.assert_quiet();
}

#[test]
fn the_cancel_of_a_caller_without_the_magic_cookie_finds_its_invite() {
    let mut b = bench();
    let request = Request::invite().set("Via", "SIP/2.0/UDP 10.0.1.1:5060;branch=1");
    let sent = b.send(ALICE, &request);
    let at_bob = the(&sent, BOB).clone();
    b.send(BOB, at_bob.answer(180));
    let sent = b.send(ALICE, request.cancel());
    assert_eq!(the(&sent, ALICE).gist(), "200 CANCEL");
    assert_eq!(the(&sent, BOB).gist(), "CANCEL");
    let sent = b.send(BOB, at_bob.answer(487));
    assert!(b.send(ALICE, request.ack(the(&sent, ALICE))).is_empty());
    b.assert_quiet();
}

#[test]
fn for_a_request_other_than_invite_it_is_answered_200_and_changes_nothing() {
    // §9.2: it has no effect, but it has found its request.
    for method in ["BYE", "OPTIONS", "MESSAGE", "INFO", "PUBLISH"] {
        let mut b = bench();
        let request = Request::new(method, "sip:bob@example.com");
        let at_bob = only(b.send(ALICE, &request));
        let answer = only(b.send(ALICE, request.cancel()));
        assert_eq!((answer.gist(), answer.to.as_str()), ("200 CANCEL".into(), ALICE));
        assert_eq!(b.send_for_one(BOB, at_bob.answer(200)).status(), 200);
        b.assert_quiet();
        assert_eq!(only(b.send(ALICE, request.cancel())).gist(), "481 CANCEL");
    }
}
