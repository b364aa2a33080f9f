//! What becomes of calls that stand open, that are refused, and that nobody answers: how they are counted, and what a search makes of it.

use std::collections::HashSet;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use crate::programs::{Peer, Run, load};
use crate::server::{Server, across, header, reply};

/// A relay between callers and answerers. The judge says with what an INVITE is answered that does not pass; a provisional response comes
/// beside what the answerer says.
fn judging(host: &'static str, mut judge: impl FnMut() -> Option<&'static str> + Send + 'static) -> Server {
    let mut refused = HashSet::new();
    Server::udp(host, move |message, from| {
        let passed_on = (across(host, from), message.to_owned());
        let call = header(message, "Call-ID").expect("a Call-ID");
        if message.starts_with("INVITE ")
            && let Some(status) = judge()
        {
            let answer = (from, reply(message, status, "Retry-After: 1\r\n"));
            if status.starts_with('1') {
                return vec![answer, passed_on];
            }
            refused.insert(call.to_owned());
            return vec![answer];
        }
        match message.starts_with("ACK ") && refused.remove(call) {
            true => Vec::new(),
            false => vec![passed_on],
        }
    })
}

impl Run {
    fn spans(&self, name: &str) -> u64 {
        self.result()["latency_us"][name]["count"].as_u64().unwrap_or(0)
    }

    fn us(&self, span: &str, figure: &str) -> f64 {
        self.result()["latency_us"][span][figure].as_f64().expect("µs")
    }
}

#[test]
fn calls_ring_and_stand_open_as_long_as_asked_and_end_well() {
    let _server = judging("127.1.3.1", || None);
    let run = load("127.1.3.1", "call --floor --rate 100 --duration 1.5 --ring 0.2 --hold 0.8");
    let result = run.result();
    assert_eq!(result["clean"], true, "{result:#}\n{}", run.said);
    // Those of the last second still stood open at the end, and ended in the drain.
    let scheduled = run.count("scheduled");
    assert!((149..=151).contains(&scheduled), "{scheduled}");
    let open = result["outstanding_at_end"].as_u64().expect("a number");
    assert!((95..=110).contains(&open), "{open}");
    assert_eq!(result["good"], scheduled);
    assert_eq!(result["failed_share"], 0.0);
    assert_eq!(run.spans("whole"), scheduled);
    let shortest = run.us("whole", "min");
    // Three digits of it are kept.
    assert!((998_000.0..1_500_000.0).contains(&shortest), "{shortest}");
    let rang = run.us("to_180", "p50");
    assert!(rang < 150_000.0, "{rang}");
    let answered = run.us("to_200", "p50");
    assert!((199_000.0..500_000.0).contains(&answered), "{answered}");
}

#[test]
fn refused_calls_fail_and_have_latencies_of_their_own() {
    let mut number = 0;
    let _server = judging("127.1.3.2", move || {
        number += 1;
        match number % 4 {
            0 => Some("503 Service Unavailable"),
            1 => Some("404 Not Found"),
            _ => None,
        }
    });
    let run = load("127.1.3.2", "call --floor --window 4 --count 400");
    assert_eq!(run.code, Some(1));
    let counts = ["refused", "refused_503", "refused_4xx", "completed", "wrong"].map(|name| run.count(name));
    assert_eq!(counts, [200, 100, 100, 200, 0], "{:#}", run.result());
    assert_eq!(run.result()["good"], 200);
    assert_eq!(run.result()["failed_share"], 0.5);
    for span in ["to_180", "to_200", "bye_to_200", "whole", "to_refusal"] {
        assert_eq!(run.spans(span), 200, "{span}: {:#}", run.result());
    }
}

#[test]
fn a_call_in_which_something_was_wrong_has_failed_though_it_ended() {
    let mut number = 0;
    let _server = judging("127.1.3.6", move || {
        number += 1;
        // Its To tag is not the answerer's.
        (number % 10 == 0).then_some("183 Session Progress")
    });
    let run = load("127.1.3.6", "call --floor --window 4 --count 200");
    assert_eq!(run.code, Some(1));
    assert_eq!((run.count("wrong"), run.count("completed")), (20, 200), "{:#}", run.result());
    assert_eq!(run.result()["good"], 180);
    assert_eq!(run.spans("whole"), 180);
}

#[test]
fn calls_that_nobody_answers_or_that_were_never_begun_have_failed() {
    // Nobody listens there, and no more than 20 may be outstanding.
    let run = load("127.1.3.3", "call --floor --rate 100 --duration 1 --drain 0.2 --max-outstanding 20");
    assert_eq!(run.code, Some(1));
    let scheduled = run.count("scheduled");
    assert!((99..=101).contains(&scheduled), "{scheduled}");
    assert_eq!(run.count("skipped"), scheduled - 20);
    let result = run.result();
    assert_eq!(result["good"], 0);
    assert_eq!(result["failed_share"], 1.0);
    assert_eq!(result["generator_bound"], true);
    let because = result["generator_bound_because"].as_str().expect("why");
    assert!(because.contains("never begun"), "{because}");
    assert!(run.said.contains("GENERATOR BOUND: "), "{}", run.said);
}

#[test]
fn where_nobody_answers_the_first_registration_the_others_are_not_tried() {
    let _silent = UdpSocket::bind("127.1.3.7:25060").expect("a free port");
    let began = Instant::now();
    let run = load("127.1.3.7", "call --register-server 127.1.3.7:25060 --register-first --duration 1");
    run.refused("the first of 10000 users could not be registered within 10 s");
    assert!(began.elapsed() < Duration::from_secs(100), "{}", run.said);
}

#[test]
fn a_search_finds_the_rate_at_which_too_many_fail() {
    // It lets 200 calls a second pass and refuses the others.
    let mut last = Instant::now();
    let mut tokens = 0.0;
    let _server = judging("127.1.3.4", move || {
        tokens = f64::min(tokens + last.elapsed().as_secs_f64() * 200.0, 10.0);
        last = Instant::now();
        if tokens < 1.0 {
            return Some("503 Service Unavailable");
        }
        tokens -= 1.0;
        None
    });
    let line = "--search-failures 0.04 --search-from 300 --search-step 1.5 --duration 1 --search-resolution 0.04";
    let run = load("127.1.3.4", &format!("call --floor {line}"));
    let result = run.result();
    let found = result["search"]["rate"].as_f64().expect("a rate");
    // 4 % more than it lets pass, and what the bucket holds at the beginning.
    assert!((190.0..=225.0).contains(&found), "{result:#}");
    assert_eq!(result["rate_or_window"], found);
    assert_eq!(result["search"]["is_bracketed"], true);
    let tried = result["search"]["tried"].as_array().expect("what was tried");
    for one in tried {
        let passed = one["failed_share"].as_f64().expect("a share") <= 0.04;
        assert_eq!(one["passed"], passed);
    }
    // A line for each rate.
    assert_eq!(run.said.matches("% failed").count(), tried.len() + 1, "{}", run.said);
}

#[test]
fn each_rate_has_a_result_of_its_own() {
    let _relay = Peer::relay("--listen 127.1.3.5:25060");
    let run = load("127.1.3.5", "call --floor --rate 50,100,200 --duration 1");
    assert_eq!(run.results.len(), 3);
    for (result, rate) in run.results.iter().zip([50, 100, 200]) {
        let good = result["good"].as_u64().expect("a number");
        assert!(good.abs_diff(rate) <= 1, "{good} of {rate}");
    }
}
