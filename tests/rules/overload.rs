//! A core that is behind: a share of what is new is refused, what has begun goes on.

use crate::auth;
use crate::bench::*;
use crate::message::{Request, unique};
use strowger::base::Load;
use strowger::stack::Element;
use strowger::stack::counters::Limit;

const TOO_MUCH: Load = Load { is_behind: true, waits_ms: 120, is_filling: false, is_losing: false, cannot_shed: false, shed: 0 };

/// The core takes less than comes, for so long.
fn behind(b: &mut Bench, ms: u64) {
    let until = b.now + ms;
    while b.now < until {
        drop(b.tick(1));
        let now = strowger::base::Instant::from_ms(b.now);
        b.cores[0].handle_load(now, TOO_MUCH);
    }
}

/// Of 100 new calls, those that are answered 503; each says when to come again.
fn refused(b: &mut Bench, method: &str) -> usize {
    let mut refused = 0;
    for _ in 0..100 {
        let request = Request::new(method, "sip:bob@example.com");
        let sent = b.send(ALICE, &request);
        let Some(answer) = sent.iter().find(|sent| sent.to == ALICE && sent.status() == 503) else {
            continue;
        };
        assert_eq!(sent.len(), 1, "{method}");
        let seconds: u32 = answer.header("Retry-After").unwrap().parse().unwrap();
        assert!((1..=5).contains(&seconds), "{seconds}");
        if method == "INVITE" {
            assert!(b.send(ALICE, request.ack(answer)).is_empty());
        }
        refused += 1;
    }
    refused
}

#[test]
fn a_share_of_what_is_new_is_503() {
    let mut b = Bench::new();
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    assert_eq!(refused(&mut b, "INVITE"), 0);
    behind(&mut b, 360);
    let some = refused(&mut b, "INVITE");
    assert!((30..95).contains(&some), "{some}");
    behind(&mut b, 2000);
    for method in ["INVITE", "REGISTER", "OPTIONS", "MESSAGE", "SUBSCRIBE"] {
        let most = refused(&mut b, method);
        assert!((97..=99).contains(&most), "{method}: {most}");
    }
}

#[test]
fn what_has_begun_goes_on() {
    let mut b = Bench::new();
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let invite = Request::invite();
    let relayed = b.send(ALICE, &invite).pop().unwrap();
    behind(&mut b, 2000);
    for _ in 0..100 {
        assert_eq!(b.send_for_one(ALICE, &invite).status(), 100, "come again");
    }
    let ok = only(b.send(BOB, relayed.answer(200).tag("b")));
    assert_eq!(ok.status(), 200);
    for method in ["INFO", "BYE"] {
        for _ in 0..100 {
            let within = Request::new(method, "sip:bob@10.0.1.2:5060").to("<sip:bob@example.com>;tag=b");
            let sent = b.send(ALICE, within);
            assert!(sent.iter().all(|sent| sent.to != ALICE || sent.status() != 503), "{method}");
        }
    }
}

/// An INVITE that begins a call.
fn call() -> Request {
    Request::invite().call_id(&format!("new{}", unique()))
}

/// What has begun is handled at once, and new calls when there is time.
#[test]
fn new_calls_wait_until_what_has_begun_is_done() {
    let mut b = Bench::new();
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let first = Request::invite();
    let relayed = b.send(ALICE, &first).pop().unwrap();
    only(b.send(BOB, relayed.answer(200).tag("b")));
    behind(&mut b, 100);
    assert!(b.send_while_busy(ALICE, call()).is_empty());
    let bye = Request::new("BYE", "sip:bob@10.0.1.2:5060").to("<sip:bob@example.com>;tag=b");
    assert_eq!(b.send_while_busy(ALICE, bye).len(), 1, "it does not wait for the call before it");
    let late = b.work_off();
    assert!(late.iter().any(|sent| sent.to == BOB && sent.method() == "INVITE"), "{late:?}");
    assert!(b.work_off().is_empty());
}

/// No more wait than can soon be served, and the others are told at once. What could not be served in time is forgotten.
#[test]
fn calls_for_which_there_is_no_room_are_503() {
    let mut b = Bench::new();
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    behind(&mut b, 1000);
    let refused = |sent: &[Sent]| sent.iter().filter(|sent| sent.to == ALICE && sent.status() == 503).count();
    let told: usize = (0..100).map(|_| refused(&b.send_while_busy(ALICE, call()))).sum();
    assert!((50..100).contains(&told), "{told}");
    let waited = b.work_off();
    let begun = waited.iter().filter(|sent| sent.to == BOB && sent.method() == "INVITE").count();
    assert_eq!((begun, refused(&waited)), (100 - told, 0));
    for _ in 0..10 {
        assert!(b.send_while_busy(ALICE, call()).is_empty());
    }
    // Their callers repeat them after 500 ms: each call is answered once.
    b.now += 450;
    let hits = |b: &Bench| b.cores[0].counters().limit_hits[Limit::Overload as usize];
    let before = hits(&b);
    assert!(b.work_off().is_empty());
    assert_eq!(hits(&b) - before, 10, "what gets no answer is counted");
}

/// A call that is repeated while its first copy waits is one call.
#[test]
fn a_repetition_of_what_waits_is_no_second_call() {
    let mut b = Bench::new();
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    behind(&mut b, 100);
    let invite = call();
    for _ in 0..2 {
        assert!(b.send_while_busy(ALICE, &invite).is_empty());
    }
    let begun = b.work_off().into_iter().filter(|sent| sent.to == BOB && sent.method() == "INVITE").count();
    assert_eq!(begun, 1);
}

/// A call that is challenged comes twice. If each time were a draw of its own, what the first has cost would be lost with the second.
#[test]
fn who_was_let_in_and_challenged_is_let_in() {
    let mut b = auth::proxy();
    let nonces: Vec<String> = (0..30)
        .map(|_| {
            let answer = only(b.send(ALICE, Request::invite()));
            auth::challenge(&answer, "SHA-256")
        })
        .collect();
    behind(&mut b, 2000);
    let refused = |b: &mut Bench, from: &str, nc: u32| {
        let mut refused = 0;
        for asked in &nonces {
            let client = auth::Client { nc, ..auth::ALICES };
            let line = client.answer(asked, "INVITE", "");
            // As the kernel would not know it for a new call, nor does the queue.
            let request = Request::invite().to("<sip:bob@example.com>;x=y").add(&format!("Proxy-Authorization: {line}"));
            let sent = b.send(from, request);
            refused += usize::from(sent.iter().any(|sent| sent.to == from && sent.status() == 503));
        }
        refused
    };
    assert_eq!(refused(&mut b, ALICE, 1), 0);
    assert!(refused(&mut b, ALICE, 2) > 25, "another request");
    assert!(refused(&mut b, CAROL, 1) > 25, "of somebody else");
    let line = auth::ALICES.answer(&nonces[0], "INVITE", "");
    let unasked = || {
        let request = Request::invite()
            .to("<sip:bob@example.com>;x=y")
            .from("<sip:a@elsewhere.test>;tag=x")
            .call_id(&format!("u{}", unique()));
        request.add(&format!("Proxy-Authorization: {line}"))
    };
    let passed = (0..30).filter(|_| !b.send(ALICE, unasked()).iter().any(|sent| sent.status() == 503));
    assert!(passed.count() < 5, "nobody looks at these credentials");
    behind(&mut b, 4000);
    assert!(refused(&mut b, ALICE, 1) > 25, "later");
}

#[test]
fn when_it_is_over_all_are_let_in_again() {
    let mut b = Bench::new();
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    behind(&mut b, 2000);
    assert!(refused(&mut b, "INVITE") > 90);
    for _ in 0..3000 {
        drop(b.tick(1));
        let now = strowger::base::Instant::from_ms(b.now);
        b.cores[0].handle_load(now, Load::default());
    }
    assert_eq!(refused(&mut b, "INVITE"), 0);
}

#[test]
fn the_conf_can_forbid_it() {
    let mut b = Bench::with(|settings| settings.limits.overload = 0);
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    behind(&mut b, 5000);
    assert_eq!(refused(&mut b, "INVITE"), 0);
}

/// RFC 7339: a neighbour that offers it is told in each response what share of its requests to lose; the others see nothing of that.
#[test]
fn neighbours_that_offer_it_are_told_what_to_lose() {
    let mut b = Bench::new();
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    for (is_behind, is_offered) in [(false, true), (true, true), (true, false)] {
        if is_behind {
            behind(&mut b, 1200);
        }
        // What is forwarded comes back, what is not is answered here: both say it.
        let mut seen = Vec::new();
        for number in 0..100 {
            let method = ["OPTIONS", "INVITE"][number % 2];
            let request = Request::new(method, "sip:bob@example.com");
            let sent_by = match is_offered {
                true => "10.0.1.1:5060;oc;oc-algo=\"rate,loss\"",
                false => "10.0.1.1:5060",
            };
            let branch = format!("z9hG4bKoc{}", unique());
            for message in b.send(ALICE, request.via(sent_by, &branch)) {
                if message.to == ALICE {
                    seen.push(message);
                    continue;
                }
                let back = b.send(BOB, message.answer(486).tag("b"));
                seen.extend(back.into_iter().filter(|back| back.to == ALICE));
            }
        }
        assert!(seen.len() >= 100, "{}", seen.len());
        for response in seen {
            let (lost, validity) = (response.via_param("oc"), response.via_param("oc-validity"));
            if !is_offered {
                assert_eq!((lost, validity), (None, None), "{response:?}");
                continue;
            }
            assert_eq!(response.via_param("oc-algo"), Some("\"loss\""), "{response:?}");
            assert!(response.via_param("oc-seq").is_some(), "{response:?}");
            let lost: u32 = lost.expect("a share").parse().expect("a number");
            match is_behind {
                false => assert_eq!((lost, validity), (0, Some("0")), "{response:?}"),
                true => {
                    assert!((10..=99).contains(&lost), "{response:?}");
                    assert_eq!(validity, Some("1000"), "{response:?}");
                }
            }
        }
    }
}
