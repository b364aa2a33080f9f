//! Forking: RFC 3261 §16.6 and §16.7 with several branches, and Max-Breadth (RFC 5393 §5.3).

use strowger::stack::counters::Limit;
use strowger::stack::settings::Fork;

use crate::bench::*;
use crate::message::Request;

/// Bob with some phones at 10.0.2.N, by their q.
fn bench(fork: Fork, qs: &[&str]) -> Bench {
    let mut b = Bench::with(|settings| {
        settings.proxy.fork = fork;
        settings.registrar.max_contacts = 100;
        settings.limits.answer_factor = 0;
    });
    for (n, q) in qs.iter().enumerate() {
        let q = if q.is_empty() { String::new() } else { format!(";q={q}") };
        b.register("bob", &format!("<sip:bob@{}>{q}", phone(n)));
    }
    b
}

fn phone(n: usize) -> String {
    format!("10.0.2.{}:5060", n + 1)
}

/// Which phones got an INVITE, by number.
fn rung(sent: &[Sent]) -> Vec<usize> {
    sent.iter()
        .filter(|s| s.method() == "INVITE" || s.method() == "MESSAGE")
        .map(|s| s.to["10.0.2.".len()..].split(':').next().unwrap().parse::<usize>().unwrap() - 1)
        .collect()
}

/// Invites, and gives what reached each phone in order of its number.
fn invite(b: &mut Bench, request: &Request, count: usize) -> Vec<Sent> {
    let sent = b.send(ALICE, request);
    assert_eq!(rung(&sent).len(), count, "{}", show(&sent));
    (0..count).map(|n| the(&sent, &phone(n)).clone()).collect()
}

fn statuses(sent: &[Sent]) -> Vec<u16> {
    to(sent, ALICE).iter().map(|s| s.status()).collect()
}

#[test]
fn in_parallel_all_are_rung_at_once_each_with_a_branch_of_its_own() {
    let mut b = bench(Fork::Parallel, &["0.1", "1", "", "0.5"]);
    let at = invite(&mut b, &Request::invite(), 4);
    let mut branches: Vec<_> = at.iter().map(|s| s.branch()).collect();
    branches.sort_unstable();
    branches.dedup();
    assert_eq!(branches.len(), 4);
    // Every provisional response passes.
    for (n, branch) in at.iter().enumerate() {
        let tag = format!("t{n}");
        let ringing = b.send_for_one(&phone(n), branch.answer(180).tag(&tag));
        assert!(ringing.header("To").unwrap().ends_with(&tag));
    }
    b.assert_quiet();
}

#[test]
fn the_first_2xx_passes_and_the_other_branches_are_cancelled() {
    let mut b = bench(Fork::Parallel, &["", "", ""]);
    let at = invite(&mut b, &Request::invite(), 3);
    b.send(&phone(0), at[0].answer(180));
    b.send(&phone(1), at[1].answer(180));
    let sent = b.send(&phone(0), at[0].answer(200));
    assert_eq!(statuses(&sent), [200]);
    assert_eq!(the(&sent, &phone(1)).method(), "CANCEL");
    assert!(to(&sent, &phone(2)).is_empty(), "has said nothing: it waits");
    assert!(to(&sent, &phone(0)).is_empty());
    let sent = b.send(&phone(2), at[2].answer(183));
    assert_eq!(the(&sent, &phone(2)).method(), "CANCEL");
    // Their 487 end here.
    for n in [1, 2] {
        let sent = b.send(&phone(n), at[n].answer(487));
        assert_eq!(only(sent).method(), "ACK");
    }
    b.assert_quiet();
}

#[test]
fn every_2xx_to_an_invite_passes() {
    let mut b = bench(Fork::Parallel, &["", ""]);
    let at = invite(&mut b, &Request::invite(), 2);
    assert_eq!(statuses(&b.send(&phone(0), at[0].answer(200).tag("one")),), [200]);
    let sent = b.send(&phone(1), at[1].answer(200).tag("two"));
    let second = the(&sent, ALICE);
    assert!(second.header("To").unwrap().ends_with("two"));
    // And each of their repetitions.
    for (n, tag) in [(0, "one"), (1, "two"), (0, "one")] {
        let again = b.send_for_one(&phone(n), at[n].answer(200).tag(tag));
        assert_eq!((again.status(), again.to.as_str()), (200, ALICE));
    }
    b.assert_quiet();
}

#[test]
fn a_2xx_after_the_server_transaction_is_over_goes_by_its_via() {
    let mut b = bench(Fork::Parallel, &["", ""]);
    let at = invite(&mut b, &Request::invite(), 2);
    b.send(&phone(1), at[1].answer(180));
    b.tick(170_000);
    b.send(&phone(1), at[1].answer(180));
    let _ = &at;
    // The first phone was silent and is timed out; the second is cancelled when the caller gives up, and takes the call late.
    let mut b = bench(Fork::Parallel, &["", ""]);
    let request = Request::invite();
    let at = invite(&mut b, &request, 2);
    b.send(&phone(0), at[0].answer(200));
    // Says something just before its timer B, is cancelled then, and answers 200 all the same.
    b.tick(31_000);
    let sent = b.send(&phone(1), at[1].answer(180));
    assert_eq!(the(&sent, &phone(1)).method(), "CANCEL");
    b.tick(10_000);
    assert_eq!(b.server_transactions(), 0);
    let late = b.send_for_one(&phone(1), at[1].answer(200).tag("late"));
    assert_eq!((late.status(), late.to.as_str()), (200, ALICE));
    assert_eq!(late.all("Via").len(), 1);
    b.assert_quiet();
}

#[test]
fn only_the_first_2xx_to_another_request_passes() {
    let mut b = bench(Fork::Parallel, &["", ""]);
    let request = Request::new("MESSAGE", "sip:bob@example.com");
    let at = invite(&mut b, &request, 2);
    assert_eq!(statuses(&b.send(&phone(0), at[0].answer(200))), [200]);
    assert!(b.send(&phone(1), at[1].answer(200)).is_empty());
    b.assert_quiet();
}

#[test]
fn a_6xx_ends_all_and_is_the_answer_when_all_have_ended() {
    let mut b = bench(Fork::Parallel, &["", "", ""]);
    let request = Request::invite();
    let at = invite(&mut b, &request, 3);
    b.send(&phone(0), at[0].answer(180));
    b.send(&phone(1), at[1].answer(404));
    let sent = b.send(&phone(2), at[2].answer(603));
    assert!(statuses(&sent).is_empty(), "not before the others have ended");
    assert_eq!(the(&sent, &phone(0)).method(), "CANCEL");
    let sent = b.send(&phone(0), at[0].answer(487));
    assert_eq!(statuses(&sent), [603]);
    b.send(ALICE, request.ack(the(&sent, ALICE)));
    b.assert_quiet();
}

#[test]
fn a_2xx_after_a_6xx_still_passes() {
    let mut b = bench(Fork::Parallel, &["", ""]);
    let at = invite(&mut b, &Request::invite(), 2);
    b.send(&phone(0), at[0].answer(180));
    b.send(&phone(1), at[1].answer(600));
    let sent = b.send(&phone(0), at[0].answer(200));
    assert_eq!(statuses(&sent), [200]);
    b.assert_quiet();
}

#[test]
fn a_6xx_ends_a_sequential_search() {
    let mut b = bench(Fork::Sequential, &["0.9", "0.5"]);
    let request = Request::invite();
    let sent = b.send(ALICE, &request);
    assert_eq!(rung(&sent), [0]);
    let sent = b.send(&phone(0), the(&sent, &phone(0)).answer(603));
    assert_eq!(statuses(&sent), [603]);
    assert_eq!(rung(&sent), [0usize; 0]);
    b.send(ALICE, request.ack(the(&sent, ALICE)));
    b.assert_quiet();
}

#[test]
fn the_best_response_is_the_same_in_whatever_order_they_come() {
    // §16.7 step 6: 6xx, else the lowest class; in 4xx first 401, 407, 415, 420, 484; 503 last of its class, as 500.
    for (answers, best) in [
        ([486, 302, 503], 302),
        ([486, 401, 404], 401),
        ([480, 407, 600], 600),
        ([500, 503, 404], 404),
        ([408, 486, 503], 486),
        ([503, 503, 503], 500),
        ([503, 502, 503], 502),
        ([408, 503, 500], 408),
        ([484, 404, 302], 302),
        ([420, 404, 486], 420),
        ([415, 404, 603], 603),
    ] {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut b = bench(Fork::Parallel, &["", "", ""]);
            let request = Request::invite();
            let at = invite(&mut b, &request, 3);
            let mut seen = Vec::new();
            for n in order {
                let answer = at[n].answer(answers[n]).add(&format!("X-From: {}", answers[n]));
                let sent = b.send(&phone(n), answer);
                for s in to(&sent, ALICE) {
                    seen.push(s.status());
                    if best != 500 {
                        assert_eq!(s.header("X-From"), Some(best.to_string().as_str()));
                    }
                    b.send(ALICE, request.ack(s));
                }
                // A branch cancelled by the 6xx answers what it would have answered anyway.
            }
            assert_eq!(seen, [best], "{answers:?} in order {order:?}");
            b.assert_quiet();
        }
    }
}

#[test]
fn the_challenges_of_all_branches_go_with_the_best_401_or_407() {
    let mut b = bench(Fork::Parallel, &["", "", "", ""]);
    let request = Request::invite();
    let at = invite(&mut b, &request, 4);
    let www = |n: u32| format!("WWW-Authenticate: Digest realm=\"r{n}\", nonce=\"n,{n}\"");
    let proxy = |n: u32| format!("Proxy-Authenticate: Digest realm=\"p{n}\", nonce=\"n,{n}\"");
    b.send(&phone(0), at[0].answer(407).add(&proxy(0)).body("b0"));
    b.send(&phone(1), at[1].answer(486));
    b.send(&phone(2), at[2].answer(401).add(&www(2)).add(&www(22)));
    let sent = b.send(&phone(3), at[3].answer(401).add(&www(3)).add(&proxy(3)));
    let answer = the(&sent, ALICE);
    assert_eq!(answer.status(), 407);
    assert_eq!(answer.body, b"b0");
    let value = |line: String| line.split_once(": ").unwrap().1.to_string();
    assert_eq!(answer.all("WWW-Authenticate"), [value(www(2)), value(www(22)), value(www(3))]);
    assert_eq!(answer.all("Proxy-Authenticate"), [value(proxy(0)), value(proxy(3))]);
    b.send(ALICE, request.ack(answer));
    b.assert_quiet();
}

#[test]
fn one_challenge_is_passed_as_it_is() {
    let mut b = bench(Fork::Parallel, &["", ""]);
    let request = Request::invite();
    let at = invite(&mut b, &request, 2);
    b.send(&phone(0), at[0].answer(404));
    let challenge = "WWW-Authenticate: Digest realm=\"r\"";
    let sent = b.send(&phone(1), at[1].answer(401).add(challenge));
    let answer = the(&sent, ALICE);
    assert_eq!(answer.all("WWW-Authenticate"), ["Digest realm=\"r\""]);
    b.assert_quiet();
}

#[test]
fn a_silent_branch_counts_as_408_and_a_dead_one_as_503() {
    let mut b = bench(Fork::Parallel, &["", ""]);
    let at = invite(&mut b, &Request::invite(), 2);
    b.send(&phone(0), at[0].answer(486));
    let sent = b.tick(33_000);
    assert_eq!(statuses(&sent)[0], 486);
    b.assert_quiet();

    let mut b = bench(Fork::Parallel, &["", ""]);
    let at = invite(&mut b, &Request::invite(), 2);
    assert!(b.undelivered(&at[1].bytes).is_empty(), "the other still rings");
    let sent = b.send(&phone(0), at[0].answer(408));
    assert_eq!(statuses(&sent), [408]);
    b.assert_quiet();
}

#[test]
fn a_target_that_cannot_be_reached_does_not_stop_the_others() {
    for fork in [Fork::Parallel, Fork::Sequential] {
        let mut b = Bench::with(|settings| settings.proxy.fork = fork);
        b.register("bob", "<sip:bob@224.0.0.1>;q=1");
        b.register("bob", "<sip:bob@10.0.2.1:5060>;q=0.5");
        let request = Request::invite().set("Via", "SIP/2.0/UDP 10.0.1.1:5060;branch=z9hG4bKreach");
        let sent = b.send(ALICE, &request);
        assert_eq!(rung(&sent), [0]);
        let sent = b.send(&phone(0), the(&sent, &phone(0)).answer(404));
        assert_eq!(statuses(&sent), [404]);
        b.assert_quiet();
    }
}

#[test]
fn in_sequence_the_next_is_rung_when_the_one_before_has_ended() {
    let mut b = bench(Fork::Sequential, &["0.5", "0.9", "0.1"]);
    let request = Request::invite();
    let sent = b.send(ALICE, &request);
    assert_eq!(rung(&sent), [1]);
    let first = the(&sent, &phone(1)).clone();
    b.send(&phone(1), first.answer(180));
    let sent = b.send(&phone(1), first.answer(486));
    assert_eq!(the(&sent, &phone(1)).method(), "ACK");
    assert_eq!(rung(&sent), [0]);
    let second = the(&sent, &phone(0)).clone();
    // Says nothing at all for as long as patience lasts: the next.
    let sent = b.tick(4000);
    assert!(sent.iter().filter(|s| s.to == phone(0)).all(|s| s.bytes == second.bytes));
    assert_eq!(rung(&sent).last(), Some(&2));
    let third = to(&sent, &phone(2))[0].clone();
    let sent = b.send(&phone(2), third.answer(404));
    assert_eq!(statuses(&sent), [486], "the first among equals");
    b.send(ALICE, request.ack(the(&sent, ALICE)));
    b.assert_quiet();
}

#[test]
fn a_call_that_rings_too_long_goes_to_the_next_after_timer_c() {
    let mut b = bench(Fork::Sequential, &["0.9", "0.5"]);
    let sent = b.send(ALICE, Request::invite());
    let first = the(&sent, &phone(0)).clone();
    b.send(&phone(0), first.answer(180));
    let sent = b.tick(180_000);
    let cancel = the(&sent, &phone(0)).clone();
    assert_eq!(cancel.method(), "CANCEL");
    b.send(&phone(0), cancel.answer(200));
    let sent = b.send(&phone(0), first.answer(487));
    assert_eq!(rung(&sent), [1]);
    let sent = b.send(&phone(1), the(&sent, &phone(1)).answer(200));
    assert_eq!(statuses(&sent), [200]);
    b.assert_quiet();
}

#[test]
fn a_phone_that_is_switched_off_holds_up_one_call_and_rings_last_until_it_answers() {
    let mut b = bench(Fork::Sequential, &["0.9", "0.5", "0.9"]);
    let answer = |b: &mut Bench, sent: &[Sent], n: usize, status: u16| {
        let invite = the(sent, &phone(n)).clone();
        b.send(&phone(n), invite.answer(status))
    };
    let request = Request::invite();
    let sent = b.send(ALICE, &request);
    assert_eq!(rung(&sent), [0, 2]);
    answer(&mut b, &sent, 2, 404);
    // The first says nothing: after the patience the one of lower q rings.
    let sent = b.tick(4_000);
    assert_eq!(rung(&sent).last(), Some(&1));
    let at_one = to(&sent, &phone(1))[0].clone();
    let sent = b.send(&phone(1), at_one.answer(486));
    b.send(ALICE, request.ack(the(&sent, ALICE)));
    // From now on it rings after all others have refused.
    let request = Request::invite();
    let sent = b.send(ALICE, &request);
    assert_eq!(rung(&sent), [2]);
    let sent = answer(&mut b, &sent, 2, 404);
    assert_eq!(rung(&sent), [1]);
    let sent = answer(&mut b, &sent, 1, 486);
    assert_eq!(rung(&sent), [0]);
    let late = the(&sent, &phone(0)).clone();
    let sent = b.send(&phone(0), late.answer(486));
    assert_eq!(statuses(&sent).last(), Some(&404), "the first among equals");
    b.send(ALICE, request.ack(the(&sent, ALICE)));
    // It has answered.
    let request = Request::invite();
    let sent = b.send(ALICE, &request);
    assert_eq!(rung(&sent), [0, 2]);
    answer(&mut b, &sent, 0, 404);
    let sent = answer(&mut b, &sent, 2, 404);
    let sent = answer(&mut b, &sent, 1, 404);
    b.send(ALICE, request.ack(the(&sent, ALICE)));
    b.tick(64_000);
    b.assert_quiet();
}

#[test]
fn equal_q_ring_together_and_the_next_q_after_all_of_them() {
    let mut b = bench(Fork::Sequential, &["0.8", "0.5", "0.8", "0.5"]);
    let request = Request::invite();
    let sent = b.send(ALICE, &request);
    assert_eq!(rung(&sent), [0, 2]);
    let (zero, two) = (the(&sent, &phone(0)).clone(), the(&sent, &phone(2)).clone());
    assert_eq!(rung(&b.send(&phone(0), zero.answer(486))), [0usize; 0]);
    let sent = b.send(&phone(2), two.answer(404));
    assert_eq!(rung(&sent), [1, 3]);
    let (one, three) = (the(&sent, &phone(1)).clone(), the(&sent, &phone(3)).clone());
    b.send(&phone(3), three.answer(180));
    let sent = b.send(&phone(1), one.answer(200));
    assert_eq!(statuses(&sent), [200]);
    assert_eq!(the(&sent, &phone(3)).method(), "CANCEL");
    b.send(&phone(3), three.answer(487));
    b.assert_quiet();
}

// ---- RFC 5393 §5.3 -----------------------------------------------------------------------------------------------------

fn breadths(sent: &[Sent]) -> Vec<u32> {
    sent.iter().filter_map(|s| s.header("Max-Breadth")?.parse().ok()).collect()
}

#[test]
fn max_breadth_is_60_where_there_is_none_and_shared_without_a_rest() {
    let mut b = bench(Fork::Parallel, &["", "", "", "", "", "", ""]);
    let sent = b.send(ALICE, Request::invite());
    let shares = breadths(&sent);
    assert_eq!(shares.len(), 7);
    assert_eq!(shares.iter().sum::<u32>(), 60);
    assert!(shares.iter().all(|share| (8..=9).contains(share)), "{shares:?}");
}

#[test]
fn max_breadth_of_the_request_is_kept_but_never_more_than_our_own() {
    let mut b = bench(Fork::Parallel, &["", ""]);
    let sent = b.send(ALICE, Request::invite().add("Max-Breadth: 5"));
    let mut shares = breadths(&sent);
    shares.sort_unstable();
    assert_eq!(shares, [2, 3]);
    assert_eq!(to(&sent, &phone(0))[0].all("Max-Breadth").len(), 1);
    // What came twice leaves once.
    let twice = Request::invite().add("Max-Breadth: 5");
    let sent = b.send(ALICE, twice.add("Max-Breadth: 50"));
    assert_eq!(to(&sent, &phone(0))[0].all("Max-Breadth").len(), 1);
    let sent = b.send(ALICE, Request::invite().add("Max-Breadth: 1000000"));
    assert_eq!(breadths(&sent).iter().sum::<u32>(), 60);
}

#[test]
fn max_breadth_of_zero_is_answered_440() {
    let mut b = bench(Fork::Parallel, &[""]);
    let request = Request::invite().add("Max-Breadth: 0");
    let answer = b.send_for_one(ALICE, &request);
    assert_eq!(answer.status(), 440);
    assert_eq!(answer.reason(), "Max-Breadth Exceeded");
    assert_eq!(b.limit_hits(Limit::MaxBreadth), 1);
    assert!(b.send(ALICE, request.ack(&answer)).is_empty());
    b.assert_quiet();
}

#[test]
fn targets_beyond_max_breadth_are_rung_as_others_end_and_their_share_is_reclaimed() {
    let mut b = bench(Fork::Parallel, &["", "", "", "", ""]);
    let request = Request::invite().add("Max-Breadth: 2");
    let sent = b.send(ALICE, &request);
    assert_eq!(rung(&sent), [0, 1]);
    assert_eq!(breadths(&sent), [1, 1]);
    assert_eq!(b.limit_hits(Limit::MaxBreadth), 1);
    let mut pending: Vec<Sent> = vec![the(&sent, &phone(0)).clone(), the(&sent, &phone(1)).clone()];
    for next in 2..5 {
        let first = pending.remove(0);
        let sent = b.send(&first.to.clone(), first.answer(486));
        assert_eq!(rung(&sent), [next], "one out, one in");
        assert_eq!(breadths(&sent), [1]);
        pending.push(the(&sent, &phone(next)).clone());
    }
    let first = pending.remove(0);
    assert!(statuses(&b.send(&first.to.clone(), first.answer(486))).is_empty());
    let last = pending.remove(0);
    let sent = b.send(&last.to.clone(), last.answer(486));
    assert_eq!(statuses(&sent), [486]);
    b.send(ALICE, request.ack(the(&sent, ALICE)));
    b.assert_quiet();
}

#[test]
fn the_share_of_a_silent_or_dead_branch_comes_back_too() {
    let mut b = bench(Fork::Parallel, &["", "", ""]);
    let sent = b.send(ALICE, Request::invite().add("Max-Breadth: 1"));
    assert_eq!(rung(&sent), [0]);
    let sent = b.undelivered(&the(&sent, &phone(0)).bytes);
    assert_eq!((rung(&sent), breadths(&sent)), (vec![1], vec![1]));
    let sent = b.tick(4000);
    let last = *to(&sent, &phone(2)).first().unwrap();
    assert_eq!((last.at, last.header("Max-Breadth")), (4000, Some("1")));
    let sent = b.send(&phone(2), last.answer(200));
    assert_eq!(statuses(&sent), [200]);
    b.assert_quiet();
}

#[test]
fn breadth_and_q_together_keep_the_order_of_q() {
    let mut b = bench(Fork::Sequential, &["0.5", "0.9", "0.9", "0.9"]);
    let sent = b.send(ALICE, Request::invite().add("Max-Breadth: 2"));
    assert_eq!(rung(&sent), [1, 2]);
    let (one, two) = (the(&sent, &phone(1)).clone(), the(&sent, &phone(2)).clone());
    let sent = b.send(&phone(1), one.answer(486));
    assert_eq!(rung(&sent), [3], "the rest of the same q first");
    let three = the(&sent, &phone(3)).clone();
    assert_eq!(rung(&b.send(&phone(2), two.answer(486))), [0usize; 0]);
    let sent = b.send(&phone(3), three.answer(486));
    assert_eq!((rung(&sent), breadths(&sent)), (vec![0], vec![2]));
    b.assert_quiet();
}

#[test]
fn a_cancel_while_targets_wait_for_breadth_ends_it() {
    let mut b = bench(Fork::Parallel, &["", "", ""]);
    let request = Request::invite().add("Max-Breadth: 1");
    let sent = b.send(ALICE, &request);
    let first = the(&sent, &phone(0)).clone();
    b.send(&phone(0), first.answer(180));
    b.send(ALICE, request.cancel());
    let sent = b.send(&phone(0), first.answer(487));
    assert_eq!(rung(&sent), [0usize; 0]);
    assert_eq!(statuses(&sent), [487]);
    b.send(ALICE, request.ack(the(&sent, ALICE)));
    b.assert_quiet();
}

#[test]
fn users_that_name_each_other_do_not_multiply_a_request() {
    // RFC 5393 §1: two users, each with contacts that lead back to both.
    for fork in [Fork::Parallel, Fork::Sequential] {
        storm(fork);
    }
}

fn storm(fork: Fork) {
    let mut b = Bench::with(|settings| {
        settings.proxy.fork = fork;
        settings.per_core.transactions = 100_000;
    });
    for from in ["a", "b"] {
        let contacts: Vec<_> = (0..10)
            .map(|n| {
                let to = if n < 5 { "a" } else { "b" };
                format!("<sip:{to}@{PROXY};x={n}>;q=0.{n}")
            })
            .collect();
        let register = Request::new("REGISTER", &format!("sip:{PROXY}"))
            .to(&format!("<sip:{from}@{PROXY}>"))
            .add(&format!("Contact: {}", contacts.join(", ")));
        assert_eq!(b.send_for_one(ALICE, register).status(), 200);
    }
    let request = Request::new("INVITE", &format!("sip:a@{PROXY}"));
    let mut mail = b.send(ALICE, &request);
    let (mut requests, mut finals) = (0, Vec::new());
    while let Some(sent) = mail.pop() {
        match sent.to.as_str() {
            PROXY => {
                requests += usize::from(sent.method() == "INVITE");
                assert!(requests < 50_000);
                mail.extend(b.send(PROXY, &sent.bytes));
            }
            ALICE if sent.status() >= 200 => finals.push(sent.status()),
            _ => {}
        }
    }
    assert_eq!(finals.len(), 1, "{finals:?} after {requests} requests");
    assert!([440, 482, 483, 500].contains(&finals[0]), "{finals:?}");
    assert!(requests < 5000, "{requests}");
}
