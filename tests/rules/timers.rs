//! The timers of RFC 3261 §17 (table 4), of RFC 4320 and of RFC 6026, each at its time to the millisecond.

use std::sync::Arc;

use strowger::stack::counters::Drop;
use strowger::stack::{Element, Settings};

use crate::bench::*;
use crate::message::Request;

fn bench() -> Bench {
    let mut bench = Bench::with(|settings| settings.limits.answer_factor = 0);
    bench.register("bob", "<sip:bob@10.0.1.2:5060>");
    bench
}

fn times(sent: &[Sent], peer: &str, gist: &str) -> Vec<u64> {
    sent.iter().filter(|s| s.to == peer && s.gist() == gist).map(|s| s.at).collect()
}

/// An INVITE that has reached Bob.
fn invited(b: &mut Bench) -> (Request, Sent) {
    let request = Request::invite();
    let sent = b.send(ALICE, &request);
    let at_bob = the(&sent, BOB).clone();
    (request, at_bob)
}

#[test]
fn timer_a_doubles_without_end_and_timer_b_ends_it_with_408() {
    let mut b = bench();
    let (request, at_bob) = invited(&mut b);
    let sent = b.tick(100_000);
    let again = times(&sent, BOB, "INVITE");
    assert_eq!(again, [500, 1500, 3500, 7500, 15_500, 31_500]);
    let first = to(&sent, BOB)[0];
    assert_eq!(first.bytes, at_bob.bytes, "bit for bit");
    assert_eq!(times(&sent, ALICE, "408 INVITE")[0], 32_000);
    b.send(ALICE, request.ack(to(&sent, ALICE)[0]));
    b.assert_quiet();
}

#[test]
fn a_provisional_response_stops_timers_a_and_b() {
    let mut b = bench();
    let (_, at_bob) = invited(&mut b);
    b.tick(600);
    b.send(BOB, at_bob.answer(100));
    assert!(b.tick(170_000).is_empty());
}

#[test]
fn timer_c_runs_from_the_request_and_every_provisional_response_but_100_sets_it_anew() {
    let mut b = bench();
    let (request, at_bob) = invited(&mut b);
    b.tick(100);
    b.send(BOB, at_bob.answer(100));
    b.tick(99_900);
    b.send(BOB, at_bob.answer(180));
    b.tick(79_999); // 180 s since the request: it would have fired without the 180
    let sent = b.tick(100_000);
    assert!(sent.is_empty(), "{}", show(&sent));
    let sent = b.tick(1);
    let cancel = only(sent);
    assert_eq!((cancel.at, cancel.gist().as_str()), (280_000, "CANCEL"));
    b.send(BOB, cancel.answer(200));
    let sent = b.send(BOB, at_bob.answer(487));
    let answer = the(&sent, ALICE);
    assert_eq!(answer.status(), 487);
    b.send(ALICE, request.ack(answer));
    b.assert_quiet();
}

#[test]
fn timer_c_counts_from_the_request_when_only_100_came() {
    let mut b = bench();
    let (_, at_bob) = invited(&mut b);
    b.tick(10_000);
    b.send(BOB, at_bob.answer(100));
    let sent = b.tick(180_000);
    assert_eq!(times(&sent, BOB, "CANCEL")[0], 180_000);
}

#[test]
fn a_timer_c_that_a_reload_has_shortened_fires_at_the_earlier_time() {
    let mut b = bench();
    let (_, at_bob) = invited(&mut b);
    b.tick(1000);
    b.send(BOB, at_bob.answer(180));
    let mut settings = Settings { listeners: vec![listener(PROXY)], ..Settings::default() };
    settings.timers.c = 60_000;
    b.cores[0].handle_config(Arc::new(settings));
    b.tick(1000);
    b.send(BOB, at_bob.answer(180));
    let sent = b.tick(180_000);
    assert_eq!(times(&sent, BOB, "CANCEL")[0], 62_000);
}

#[test]
fn a_branch_that_ignores_timer_cs_cancel_ends_64_t1_later_with_408() {
    let mut b = bench();
    let (request, at_bob) = invited(&mut b);
    b.send(BOB, at_bob.answer(180));
    let sent = b.tick(213_000);
    // The CANCEL is repeated as any non-INVITE request, until its timer F.
    let cancels = times(&sent, BOB, "CANCEL");
    assert_eq!(cancels[..4], [180_000, 180_500, 181_500, 183_500]);
    assert_eq!(cancels[4..], [187_500, 191_500, 195_500, 199_500, 203_500, 207_500, 211_500]);
    assert_eq!(times(&sent, ALICE, "408 INVITE")[0], 212_000);
    b.send(ALICE, request.ack(to(&sent, ALICE)[0]));
    b.assert_quiet();
}

#[test]
fn timer_d_answers_a_repeated_final_response_with_the_same_ack_for_32_s() {
    let mut b = bench();
    let (request, at_bob) = invited(&mut b);
    let busy = at_bob.answer(486);
    let sent = b.send(BOB, &busy);
    let ack = the(&sent, BOB).clone();
    b.send(ALICE, request.ack(the(&sent, ALICE)));
    b.tick(31_999);
    let again = b.send_for_one(BOB, &busy);
    assert_eq!(again.bytes, ack.bytes);
    b.tick(1);
    assert!(b.send(BOB, &busy).is_empty());
    assert_eq!(b.dropped(Drop::StrayResponse), 1);
    b.assert_quiet();
}

#[test]
fn timer_g_repeats_a_failure_up_to_t2_and_timer_h_gives_up() {
    let mut b = bench();
    let (request, at_bob) = invited(&mut b);
    let sent = b.send(BOB, at_bob.answer(486));
    let answer = the(&sent, ALICE).clone();
    let sent = b.tick(60_000);
    let again = times(&sent, ALICE, "486 INVITE");
    assert_eq!(again, [500, 1500, 3500, 7500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500]);
    assert_eq!(to(&sent, ALICE)[0].bytes, answer.bytes);
    assert_eq!(b.server_transactions(), 0);
    b.send(ALICE, request.ack(&answer));
    b.assert_quiet();
}

#[test]
fn an_ack_stops_timer_g_and_timer_i_absorbs_more_of_them() {
    let mut b = bench();
    let (request, at_bob) = invited(&mut b);
    let sent = b.send(BOB, at_bob.answer(486));
    let ack = request.ack(the(&sent, ALICE));
    b.tick(600);
    assert!(b.send(ALICE, &ack).is_empty());
    assert!(b.send(ALICE, &ack).is_empty(), "absorbed");
    // A late repetition of the INVITE is absorbed too.
    assert!(b.send(ALICE, &request).is_empty());
    let sent = b.tick(4_999);
    assert!(to(&sent, ALICE).is_empty());
    assert_eq!(b.server_transactions(), 1);
    b.tick(1);
    assert_eq!(b.server_transactions(), 0);
    b.assert_quiet();
}

#[test]
fn timer_e_doubles_up_to_t2_and_timer_f_ends_it_in_silence() {
    let mut b = bench();
    let at_bob = only(b.send(ALICE, Request::new("MESSAGE", "sip:bob@example.com")));
    let sent = b.tick(40_000);
    assert_eq!(times(&sent, BOB, "MESSAGE"), [500, 1500, 3500, 7500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500]);
    assert_eq!(to(&sent, BOB)[0].bytes, at_bob.bytes);
    // RFC 4320 §4.2: no 408 to a non-INVITE. §4.1: a 100 at T2's time, 3.5 s after the request, and only then.
    assert_eq!(when(&sent.iter().filter(|s| s.to == ALICE).cloned().collect::<Vec<_>>()), [(3500, "100 MESSAGE".to_string())]);
    assert_eq!(b.server_transactions(), 0);
    b.assert_quiet();
}

#[test]
fn a_provisional_response_slows_timer_e_down_to_t2() {
    let mut b = bench();
    let at_bob = only(b.send(ALICE, Request::new("MESSAGE", "sip:bob@example.com")));
    b.tick(600);
    b.send(BOB, at_bob.answer(100));
    let sent = b.tick(12_000);
    // The timer that runs fires at its time; from then on every T2.
    assert_eq!(times(&sent, BOB, "MESSAGE"), [1500, 5500, 9500]);
}

#[test]
fn rfc_4320_a_non_invite_gets_no_provisional_response_but_a_late_100() {
    let mut b = bench();
    let request = Request::new("MESSAGE", "sip:bob@example.com");
    let at_bob = only(b.send(ALICE, &request));
    // §4.1: not even one that the callee sends.
    assert!(b.send(BOB, at_bob.answer(183)).is_empty());
    assert!(b.send(BOB, at_bob.answer(100)).is_empty());
    assert!(b.send(ALICE, &request).is_empty(), "a repetition is absorbed before");
    b.tick(3_499);
    assert!(b.send(ALICE, &request).is_empty());
    let sent = b.tick(1);
    let trying = the(&sent, ALICE).clone();
    assert_eq!((trying.at, trying.status()), (3500, 100));
    // From then on a repetition brings it again.
    assert_eq!(b.send_for_one(ALICE, &request).bytes, trying.bytes);
    assert_eq!(b.send_for_one(BOB, at_bob.answer(200)).status(), 200);
    b.assert_quiet();
}

#[test]
fn rfc_4320_a_late_answer_to_a_non_invite_is_not_forwarded() {
    let mut b = bench();
    let at_bob = only(b.send(ALICE, Request::new("MESSAGE", "sip:bob@example.com")));
    b.tick(32_000);
    assert!(b.send(BOB, at_bob.answer(200)).is_empty());
    assert_eq!(b.dropped(Drop::StrayResponse), 1);
    b.assert_quiet();
}

#[test]
fn rfc_4320_a_408_to_a_non_invite_is_not_forwarded_either() {
    let mut b = bench();
    let at_bob = only(b.send(ALICE, Request::new("MESSAGE", "sip:bob@example.com")));
    assert!(b.send(BOB, at_bob.answer(408)).is_empty());
    b.assert_quiet();
}

#[test]
fn timer_j_repeats_the_answer_for_32_s() {
    let mut b = bench();
    let request = Request::new("MESSAGE", "sip:bob@example.com");
    let at_bob = only(b.send(ALICE, &request));
    let answer = b.send_for_one(BOB, at_bob.answer(202).body("ok"));
    b.tick(31_999);
    assert_eq!(b.send_for_one(ALICE, &request).bytes, answer.bytes);
    b.tick(1);
    assert_eq!(b.server_transactions(), 0);
    b.assert_quiet();
}

#[test]
fn timer_k_absorbs_repeated_answers_for_t4() {
    let mut b = bench();
    let at_bob = only(b.send(ALICE, Request::new("MESSAGE", "sip:bob@example.com")));
    b.send_for_one(BOB, at_bob.answer(200));
    b.tick(4_999);
    assert_eq!(b.client_transactions(), 1);
    assert!(b.send(BOB, at_bob.answer(200)).is_empty());
    assert_eq!(b.dropped(Drop::Absorbed), 1);
    b.tick(1);
    assert_eq!(b.client_transactions(), 0);
    b.assert_quiet();
}

#[test]
fn rfc_6026_timer_l_absorbs_repeated_invites_after_a_2xx_and_timer_m_passes_repeated_2xx() {
    let mut b = bench();
    let (request, at_bob) = invited(&mut b);
    let ok = at_bob.answer(200);
    b.send_for_one(BOB, &ok);
    // The proxy does not repeat a 2xx itself.
    assert!(b.tick(10_000).is_empty());
    assert!(b.send(ALICE, &request).is_empty(), "absorbed, not forwarded as new");
    assert_eq!(b.send_for_one(BOB, &ok).to, ALICE);
    b.tick(21_999);
    assert!(b.send(ALICE, &request).is_empty());
    assert_eq!(b.send_for_one(BOB, &ok).to, ALICE);
    assert_eq!((b.server_transactions(), b.client_transactions()), (1, 1));
    b.tick(1);
    assert_eq!((b.server_transactions(), b.client_transactions()), (0, 0));
    // RFC 6026 §8.9 (§16.7 step 1): a response of no transaction is not forwarded.
    assert!(b.send(BOB, &ok).is_empty());
    assert_eq!(b.dropped(Drop::StrayResponse), 1);
    b.assert_quiet();
}

#[test]
fn rfc_6026_a_failure_after_a_2xx_of_the_same_branch_is_ignored() {
    let mut b = bench();
    let (_, at_bob) = invited(&mut b);
    b.send_for_one(BOB, at_bob.answer(200));
    assert!(b.send(BOB, at_bob.answer(486)).is_empty());
    assert!(b.send(BOB, at_bob.answer(180)).is_empty());
    b.assert_quiet();
}

#[test]
fn a_repeated_invite_brings_the_last_provisional_response_again() {
    let mut b = bench();
    let (request, at_bob) = invited(&mut b);
    assert_eq!(b.send_for_one(ALICE, &request).status(), 100);
    let ringing = b.send_for_one(BOB, at_bob.answer(180).tag("x"));
    assert_eq!(b.send_for_one(ALICE, &request).bytes, ringing.bytes);
    let progress = b.send_for_one(BOB, at_bob.answer(183).tag("x").body("sdp"));
    assert_eq!(b.send_for_one(ALICE, &request).bytes, progress.bytes);
    let sent = b.send(BOB, at_bob.answer(486));
    let busy = the(&sent, ALICE).clone();
    assert_eq!(b.send_for_one(ALICE, &request).bytes, busy.bytes);
    b.assert_quiet();
}

#[test]
fn shorter_timers_of_the_conf_are_kept() {
    let mut b = Bench::with(|settings| {
        settings.timers.t1 = 100;
        settings.timers.t2 = 400;
        settings.timers.t4 = 500;
        settings.timers.linger = 1000;
        settings.timers.c = 5000;
    });
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let (request, at_bob) = invited(&mut b);
    let sent = b.tick(300);
    assert_eq!(times(&sent, BOB, "INVITE"), [100, 300]);
    b.send(BOB, at_bob.answer(180));
    let sent = b.tick(5000);
    assert_eq!(times(&sent, BOB, "CANCEL"), [5300]);
    let sent = b.send(BOB, at_bob.answer(487));
    b.send(ALICE, request.ack(the(&sent, ALICE)));
    b.tick(1000);
    assert_eq!(b.server_transactions(), 0);
    // Timer F of a non-INVITE is 64·T1.
    let start = b.now;
    b.send(ALICE, Request::new("MESSAGE", "sip:bob@example.com"));
    let sent = b.tick(10_000);
    assert_eq!(times(&sent, ALICE, "100 MESSAGE"), [start + 300]);
    let last = *times(&sent, BOB, "MESSAGE").last().unwrap();
    assert!(last < start + 6400 && last > start + 5800, "{last}");
    b.assert_quiet();
}

#[test]
fn a_timer_c_shorter_than_timer_b_ends_a_silent_branch() {
    let mut b = Bench::with(|settings| settings.timers.c = 4000);
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let (request, _) = invited(&mut b);
    let sent = b.tick(5000);
    let answer = *to(&sent, ALICE).first().unwrap();
    assert_eq!((answer.at, answer.status()), (4000, 408));
    b.send(ALICE, request.ack(answer));
    b.assert_quiet();
}
