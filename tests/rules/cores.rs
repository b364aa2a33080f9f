//! Several cores: what one core gets and another must have goes by mail, once round and no further.

use strowger::stack::counters::Drop;

use crate::bench::*;
use crate::message::Request;

fn bench(cores: u8) -> Bench {
    let mut b = Bench::with(|settings| {
        settings.cores = cores;
        settings.limits.answer_factor = 0;
    });
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    b
}

fn invited(b: &mut Bench, core: usize) -> (Request, Sent) {
    let request = Request::invite();
    let sent = b.send_by(core, 0, ALICE, &request);
    (request, the(&sent, BOB).clone())
}

#[test]
fn a_response_that_reaches_another_core_goes_home() {
    let mut b = bench(3);
    let (_, at_bob) = invited(&mut b, 1);
    for core in [0, 2, 1] {
        let sent = b.send_by(core, 0, BOB, at_bob.answer(180));
        assert_eq!(only(sent).to, ALICE);
    }
    assert_eq!(only(b.send_by(2, 0, BOB, at_bob.answer(200))).status(), 200);
    b.assert_quiet();
}

#[test]
fn a_response_for_a_core_that_is_no_more_is_dropped() {
    let mut big = bench(3);
    let (_, at_bob) = invited(&mut big, 2);
    let mut small = bench(2);
    assert!(small.send_by(0, 0, BOB, at_bob.answer(200)).is_empty());
    assert_eq!(small.dropped(Drop::NoSuchCore), 1);
}

#[test]
fn an_orphan_cancel_finds_its_invite_and_is_answered_once() {
    let mut b = bench(4);
    let (request, at_bob) = invited(&mut b, 1);
    b.send_by(1, 0, BOB, at_bob.answer(180));
    let sent = b.send_by(3, 0, "10.0.1.1:6666", request.cancel());
    assert_eq!(sent.len(), 2, "{}", show(&sent));
    assert_eq!(the(&sent, BOB).method(), "CANCEL");
    assert_eq!(the(&sent, ALICE).gist(), "200 CANCEL");
    let sent = b.send_by(0, 0, BOB, at_bob.answer(487));
    assert_eq!(the(&sent, ALICE).gist(), "487 INVITE");
    b.send_by(1, 0, ALICE, request.ack(the(&sent, ALICE)));
    b.assert_quiet();
}

#[test]
fn a_cancel_that_no_core_knows_is_answered_481_once() {
    let mut b = bench(4);
    let sent = b.send_by(2, 0, ALICE, Request::invite().cancel());
    assert_eq!(only(sent).gist(), "481 CANCEL");
}

#[test]
fn an_orphan_ack_stops_the_repetitions_of_a_forwarded_failure() {
    let mut b = bench(4);
    let (request, at_bob) = invited(&mut b, 1);
    let sent = b.send_by(1, 0, BOB, at_bob.answer(486));
    let busy = the(&sent, ALICE).clone();
    assert!(b.send_by(2, 0, "10.0.1.1:6666", request.ack(&busy)).is_empty());
    let sent = b.tick(10_000);
    assert!(to(&sent, ALICE).is_empty(), "{}", show(&sent));
    b.assert_quiet();
}

#[test]
fn an_orphan_ack_stops_the_repetitions_of_an_answer_of_our_own() {
    let mut b = bench(2);
    b.register("lost", "<sip:lost@224.0.0.1>");
    let request = Request::new("INVITE", "sip:lost@example.com");
    let sent = b.send_by(0, 0, ALICE, &request);
    let answer = sent.last().unwrap().clone();
    assert_eq!(answer.status(), 500);
    assert!(b.send_by(1, 0, ALICE, request.ack(&answer)).is_empty());
    let sent = b.tick(10_000);
    assert!(sent.is_empty(), "{}", show(&sent));
    // Repeated when all is over it is still nobody else's.
    assert!(b.send_by(1, 0, ALICE, request.ack(&answer)).is_empty());
    b.assert_quiet();
}

#[test]
fn an_ack_to_a_2xx_passes_whichever_core_gets_it() {
    let mut b = bench(3);
    let (_, at_bob) = invited(&mut b, 0);
    let ok = only(b.send_by(0, 0, BOB, at_bob.answer(200)));
    for core in 0..3 {
        let ack = Request::new("ACK", "sip:bob@10.0.1.2:5060")
            .to(ok.header("To").unwrap())
            .call_id(ok.header("Call-ID").unwrap())
            .top(&format!("Route: {}", ok.header("Record-Route").unwrap()));
        assert_eq!(only(b.send_by(core, 0, ALICE, ack)).to, BOB);
        // And without Record-Route, after one look round.
        let ack = Request::new("ACK", "sip:bob@example.com").to(ok.header("To").unwrap()).call_id(ok.header("Call-ID").unwrap());
        assert_eq!(only(b.send_by(core, 0, ALICE, ack)).to, BOB);
    }
    b.assert_quiet();
}

#[test]
fn a_request_within_a_dialog_needs_no_core_of_its_own() {
    let mut b = bench(2);
    let (_, at_bob) = invited(&mut b, 0);
    let ok = only(b.send_by(0, 0, BOB, at_bob.answer(200)));
    let bye = Request::new("BYE", "sip:bob@10.0.1.2:5060")
        .to(ok.header("To").unwrap())
        .call_id(ok.header("Call-ID").unwrap())
        .cseq(2)
        .top(&format!("Route: {}", ok.header("Record-Route").unwrap()));
    let at_bob = only(b.send_by(1, 0, ALICE, bye));
    assert_eq!(at_bob.to, BOB);
    assert_eq!(only(b.send_by(0, 0, BOB, at_bob.answer(200))).to, ALICE);
    b.assert_quiet();
}

#[test]
fn a_report_of_a_closed_port_concerns_only_the_core_that_sent() {
    let mut b = bench(3);
    let (_, at_bob) = invited(&mut b, 2);
    assert_eq!(only(b.undelivered(&at_bob.bytes)).status(), 500);
    b.assert_quiet();
}

#[test]
fn all_cores_see_one_location_service() {
    let mut b = bench(2);
    let (_, at_bob) = invited(&mut b, 1);
    assert_eq!(at_bob.uri(), "sip:bob@10.0.1.2:5060");
}

#[test]
fn a_loop_through_another_core_is_a_loop() {
    let mut b = bench(2);
    let (_, at_bob) = invited(&mut b, 0);
    let looped = at_bob.to_string().replacen("sip:bob@10.0.1.2:5060 ", "sip:bob@example.com ", 1).replacen(
        "Via:",
        "Via: SIP/2.0/UDP 10.0.1.2:5060;branch=z9hG4bKb\r\nVia:",
        1,
    );
    assert_eq!(only(b.send_by(1, 0, BOB, looped.as_str())).status(), 482);
}
