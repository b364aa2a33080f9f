//! When a registration is answered (RFC 3261 §10.3 step 8): a 200 that promises what must be on disk waits until it is.

use strowger::stack::location::Durability;
use strowger::stack::location::journal::Taken;
use strowger::stack::registrar::unstored;

use crate::bench::*;
use crate::message::{Request, Text, unique};

/// A REGISTER of Bob's, of one Call-ID.
fn register(cseq: u32, contact: &str) -> Request {
    Request::new("REGISTER", "sip:example.com")
        .via(BOB, &format!("z9hG4bKreg{}", unique()))
        .from("<sip:bob@example.com>;tag=b")
        .to("<sip:bob@example.com>")
        .call_id("bobs-phone")
        .cseq(cseq)
        .add(contact)
}

const BOUND: &str = "Contact: <sip:bob@10.0.1.2:5060>";

fn bench(durability: Durability) -> Bench {
    Bench::with_journal(durability, |_| ())
}

/// A round that takes everything, and whether the disk gets it.
fn round(b: &Bench, reaches_disk: bool) -> u64 {
    let mut round = b.location.begin_round(false);
    let mut taken = Taken::default();
    while let Some(shard) = round.next_shard() {
        b.location.take_changed(shard, false, &mut taken);
    }
    match reaches_disk {
        true => b.location.finish_round(round.number),
        false => b.location.set_failing(true),
    }
    round.number
}

/// Sends it; nothing may leave. The round that its answer waits for, and the answer.
#[track_caller]
fn held(b: &mut Bench, request: &Request) -> (u64, Sent) {
    let sent = b.send(BOB, request);
    assert!(sent.is_empty(), "{}", show(&sent));
    let mut held = std::mem::take(&mut b.held);
    assert_eq!(held.len(), 1);
    held.remove(0)
}

#[test]
fn a_change_is_answered_when_its_round_is_on_disk() {
    let mut b = bench(Durability::Acknowledged);
    let (waits_for, answer) = held(&mut b, &register(1, BOUND));
    assert_eq!((answer.status(), answer.to.as_str()), (200, BOB));
    assert_eq!(round(&b, true), waits_for);
    assert_eq!(b.location.progress().durable, waits_for);
    // A refresh and a removal are changes.
    for contact in [BOUND, "Contact: <sip:bob@10.0.1.2:5060>;expires=0"] {
        let (waits_for, _) = held(&mut b, &register(unique() as u32 + 10, contact));
        assert_eq!(round(&b, true), waits_for);
    }
    let (waits_for, _) = held(&mut b, &register(90_000, "Expires: 0").add("Contact: *"));
    assert!(waits_for > b.location.progress().durable);
}

#[test]
fn what_changes_nothing_is_answered_at_once() {
    let mut b = bench(Durability::Acknowledged);
    held(&mut b, &register(1, BOUND));
    let query = Request::new("REGISTER", "sip:example.com").via(BOB, "z9hG4bKquery").to("<sip:bob@example.com>");
    assert_eq!(only(b.send(BOB, query)).status(), 200);
    let stale = only(b.send(BOB, register(0, BOUND)));
    assert_eq!(stale.status(), 500);
    let brief = only(b.send(BOB, register(2, "Contact: <sip:bob@10.0.1.2>;expires=1")));
    assert_eq!(brief.status(), 423);
    assert!(b.held.is_empty());
}

#[test]
fn a_repetition_waits_for_the_same_and_no_longer() {
    let mut b = bench(Durability::Acknowledged);
    let request = register(1, BOUND);
    let (first, _) = held(&mut b, &request);
    // Sent again before it was taken, by the same transaction and by another of the same CSeq.
    assert_eq!(held(&mut b, &request).0, first);
    assert_eq!(held(&mut b, &register(1, BOUND)).0, first);
    // While it is on its way.
    let mut under_way = b.location.begin_round(false);
    let mut taken = Taken::default();
    while let Some(shard) = under_way.next_shard() {
        b.location.take_changed(shard, false, &mut taken);
    }
    assert_eq!(held(&mut b, &request).0, under_way.number);
    b.location.finish_round(under_way.number);
    assert_eq!(only(b.send(BOB, &request)).status(), 200);
    assert_eq!(only(b.send(BOB, register(1, BOUND))).status(), 200);
}

#[test]
fn a_disk_that_takes_nothing_is_told_before_anything_changes() {
    let mut b = bench(Durability::Acknowledged);
    held(&mut b, &register(1, BOUND));
    round(&b, true);
    held(&mut b, &register(2, BOUND));
    round(&b, false);
    for refused in [register(3, "Contact: <sip:bob@10.0.1.9>"), register(4, "Expires: 0").add("Contact: *")] {
        let refused = only(b.send(BOB, refused));
        assert_eq!(refused.status(), 503, "{refused}");
        let retry_after = refused.header("Retry-After").map(str::to_owned);
        assert_eq!(retry_after, Some(unstored::RETRY_AFTER_S.to_string()));
    }
    assert_eq!(strowger::stack::Element::counters(&b.cores[0]).unstored, 2, "each of them counts");
    // What is bound stays bound: calls go on.
    let call = b.send(ALICE, Request::new("MESSAGE", "sip:bob@example.com"));
    assert_eq!(only(call).to, BOB);
    let query = register(5, "Expires: 60");
    assert_eq!(only(b.send(BOB, query)).all("Contact").len(), 1);
    b.location.finish_round(2);
    assert_eq!(held(&mut b, &register(3, BOUND)).0, 3);
}

#[test]
fn where_nobody_waits_for_the_disk_it_hurts_nobody() {
    let mut b = bench(Durability::Batched);
    assert_eq!(only(b.send(BOB, register(1, BOUND))).status(), 200);
    round(&b, false);
    assert_eq!(only(b.send(BOB, register(2, BOUND))).status(), 200);
    assert!(b.held.is_empty());
    assert!(b.location.has_changes());
}

#[test]
fn a_held_answer_becomes_a_refusal_of_the_same_transaction() {
    let mut b = bench(Durability::Acknowledged);
    let request = register(1, BOUND).add("Path: <sip:p.example;lr>");
    let (_, answer) = held(&mut b, &request);
    assert!(answer.header("Contact").is_some() && answer.header("Path").is_some());
    let mut bytes = Vec::new();
    unstored::refuse(&answer.bytes, &mut bytes);
    let refusal = Text::new(&bytes);
    assert_eq!(refusal.status(), 503);
    for kept in ["Via", "From", "To", "Call-ID", "CSeq", "Content-Length"] {
        assert_eq!(refusal.all(kept), answer.all(kept), "{kept}");
    }
    assert!(refusal.header("Contact").is_none() && refusal.header("Path").is_none());
    assert!(refusal.header("Retry-After").is_some());
}
