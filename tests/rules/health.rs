//! Next hops that fail: another one is asked in time, and those that have failed are asked last (RFC 3263 §4.3, RFC 3261 §16.7).

use std::sync::Arc;
use strowger::base::Transport;
use strowger::stack::Element;
use strowger::stack::health::{Cause, Failure, NamedBy};
use strowger::stack::route::{Action, NextHop, Route, Statuses};
use strowger::stack::settings::{Fork, Mode, Settings};

use crate::bench::*;
use crate::failover::hop;
use crate::message::Request;
use crate::names::{Zone, by_name};
use crate::proxy::route;
use crate::streams;

const GATE: &str = "10.0.5.1:5080";
const SPARE: &str = "10.0.5.2:5080";
const LAST: &str = "10.0.5.3:5080";

/// The default of `[next_hop] patience`, and the longest time for which a first failure is passed over.
const PATIENCE: u64 = 4000;
const PASSED_OVER: u64 = 33_000;

fn relay(hops: &[&str]) -> Route {
    route(Action::Relay(hops.iter().map(|at| hop(at)).collect()))
}

fn bench(route: Route) -> Bench {
    bench_with(route, |_| ())
}

fn bench_with(route: Route, change: impl FnOnce(&mut Settings)) -> Bench {
    Bench::with(|settings| {
        settings.listeners = listeners();
        settings.routes = vec![route].into();
        settings.limits.answer_factor = 0;
        change(settings);
    })
}

fn request(method: &str) -> Request {
    Request::new(method, "sip:+4930123@carrier.example")
}

/// The first copies of a request, each with where and when.
fn copies<'a>(sent: &'a [Sent], method: &str) -> Vec<&'a Sent> {
    let mut seen: Vec<&Sent> = Vec::new();
    for one in sent.iter().filter(|s| s.method() == method) {
        if !seen.iter().any(|known| known.branch() == one.branch()) {
            seen.push(one);
        }
    }
    seen
}

/// To which next hop a new request goes first, and its copy there.
#[track_caller]
fn first_copy(b: &mut Bench, method: &str) -> Sent {
    let sent = b.send(ALICE, request(method));
    let copies = copies(&sent, method);
    assert_eq!(copies.len(), 1, "{}", show(&sent));
    copies[0].clone()
}

#[track_caller]
fn goes_first_to(b: &mut Bench, hop: &str) {
    assert_eq!(first_copy(b, "MESSAGE").to, hop);
}

/// The first of two targets says nothing to a request, and the second one takes it.
#[track_caller]
fn first_has_failed(b: &mut Bench) {
    assert_eq!(first_copy(b, "MESSAGE").to, GATE);
    let sent = b.tick(PATIENCE);
    let at_spare = the(&sent, SPARE).clone();
    b.send(SPARE, at_spare.answer(200));
    one_has_failed(b, GATE, Cause::NoResponse);
}

fn failed(b: &Bench) -> Vec<(String, Failure)> {
    let list = b.health.list();
    list.into_iter().map(|(hop, failure)| (hop.address.to_string(), failure)).collect()
}

#[track_caller]
fn one_has_failed(b: &Bench, hop: &str, cause: Cause) {
    let failed = failed(b);
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!((failed[0].0.as_str(), failed[0].1.cause), (hop, cause));
}

#[test]
fn a_silent_target_costs_one_request_its_patience_and_the_next_nothing() {
    for method in ["INVITE", "MESSAGE", "OPTIONS"] {
        let mut b = bench(relay(&[GATE, SPARE]));
        assert_eq!(first_copy(&mut b, method).to, GATE);
        let sent = b.tick(PATIENCE);
        let at_spare = copies(&sent, method).into_iter().find(|s| s.to == SPARE).cloned();
        let at_spare = at_spare.unwrap_or_else(|| panic!("{method}: {}", show(&sent)));
        assert_eq!(at_spare.at, PATIENCE, "{method}");
        one_has_failed(&b, GATE, Cause::NoResponse);
        let answer = b.send(SPARE, at_spare.answer(486));
        assert_eq!(the(&answer, ALICE).status(), 486, "{method}");
        // Nothing is repeated to the silent one any more.
        assert!(to(&b.tick(60_000), GATE).is_empty(), "{method}");
        let mut b = bench(relay(&[GATE, SPARE]));
        first_copy(&mut b, method);
        b.tick(PATIENCE);
        // The next one goes to the good one at once.
        assert_eq!(first_copy(&mut b, method).to, SPARE, "{method}");
        b.assert_quiet();
    }
}

/// The conf names one host twice: it is not asked again at once.
#[test]
fn what_has_just_failed_is_not_asked_under_another_name_before_others() {
    let again = NextHop { uri: format!("sip:again@{GATE}").parse().unwrap(), ..hop(GATE) };
    let mut b = bench(route(Action::Relay(vec![hop(GATE), again, hop(SPARE), hop(LAST)])));
    let mut asked = vec![first_copy(&mut b, "MESSAGE").to];
    for _ in 0..3 {
        let sent = b.tick(PATIENCE);
        asked.push(copies(&sent, "MESSAGE").last().unwrap().to.clone());
    }
    assert_eq!(asked, [GATE, SPARE, LAST, GATE]);
}

#[test]
fn what_the_last_target_says_is_the_answer_though_another_said_nothing() {
    for status in [404, 486, 500, 502, 504, 603] {
        for method in ["INVITE", "MESSAGE"] {
            let mut b = bench(relay(&[GATE, SPARE]));
            first_copy(&mut b, method);
            let sent = b.tick(PATIENCE);
            let at_spare = copies(&sent, method).into_iter().find(|s| s.to == SPARE).cloned().expect("a copy for the spare");
            let sent = b.send(SPARE, at_spare.answer(status));
            assert_eq!(the(&sent, ALICE).status(), status, "{method}");
        }
        // The servers of one name as well.
        let mut b = bench(route(Action::Relay(vec![by_name("sip:gate.example:5080")])));
        b.send(ALICE, request("INVITE"));
        let mut zone = Zone::new("gate.example A 10.0.5.1\ngate.example A 10.0.5.2");
        let first = zone.serve(&mut b).into_iter().find(|s| s.method() == "INVITE").expect("a copy");
        let sent = b.tick(PATIENCE);
        let second = copies(&sent, "INVITE").into_iter().find(|s| s.to != first.to).cloned().expect("a copy for the other");
        let sent = b.send(&second.to, second.answer(status));
        assert_eq!(the(&sent, ALICE).status(), status, "of one name");
    }
}

#[test]
fn an_answer_from_another_port_counts_and_one_from_another_host_does_not() {
    for (from, is_well) in [("10.0.5.1:31000", true), ("10.0.9.9:5080", false)] {
        let mut b = bench(relay(&[GATE, SPARE]));
        first_has_failed(&mut b);
        b.tick(PASSED_OVER);
        let trial = first_copy(&mut b, "MESSAGE");
        assert_eq!(trial.to, GATE);
        b.send(from, trial.answer(200));
        assert_eq!(failed(&b).is_empty(), is_well, "{from}");
    }
    // Whoever is further down the path knows the branch as well, and must not talk a gateway down.
    let mut b = bench(relay(&[GATE, SPARE]));
    let copy = first_copy(&mut b, "MESSAGE");
    b.send("10.0.9.9:5080", copy.answer(503));
    assert!(failed(&b).is_empty());
}

#[test]
fn over_tcp_too_though_no_timer_repeats_anything() {
    let hops = [GATE, SPARE].map(|at| streams::hop(Transport::Tcp, at, ""));
    for method in ["INVITE", "MESSAGE"] {
        let mut b = bench(route(Action::Relay(hops.to_vec())));
        assert_eq!(first_copy(&mut b, method).to, GATE);
        let sent = b.tick(PATIENCE);
        let copies = copies(&sent, method);
        assert_eq!(copies.len(), 1, "{}", show(&sent));
        assert_eq!((copies[0].to.as_str(), copies[0].at), (SPARE, PATIENCE));
        b.assert_quiet();
    }
}

#[test]
fn a_provisional_response_ends_patience() {
    let mut b = bench(relay(&[GATE, SPARE]));
    let at_gate = first_copy(&mut b, "INVITE");
    b.tick(PATIENCE - 1);
    b.send(GATE, at_gate.answer(100));
    assert!(to(&b.tick(60_000), SPARE).is_empty());
    assert!(failed(&b).is_empty());
    b.assert_quiet();
}

#[test]
fn a_route_has_a_patience_of_its_own_and_timer_b_goes_before_a_longer_one() {
    for (patience, tried_at) in [(500, Some(500)), (10_000, Some(10_000)), (32_000, None), (60_000, None)] {
        let mut b = bench(Route { patience: Some(patience), ..relay(&[GATE, SPARE]) });
        first_copy(&mut b, "INVITE");
        let sent = b.tick(31_999);
        let at_spare = copies(&sent, "INVITE").into_iter().find(|s| s.to == SPARE).map(|s| s.at);
        assert_eq!(at_spare, tried_at, "patience {patience}");
        if tried_at.is_none() {
            // Its time-out is §16.8's: the next target follows then.
            let sent = b.tick(1);
            assert_eq!(the(&sent, SPARE).method(), "INVITE");
            one_has_failed(&b, GATE, Cause::NoResponse);
        }
        b.assert_quiet();
    }
}

#[test]
fn where_there_is_nothing_else_a_silent_target_has_until_timer_b_or_f() {
    let mut b = bench(relay(&[GATE]));
    let at_gate = first_copy(&mut b, "INVITE");
    let sent = b.tick(20_000);
    assert!(to(&sent, ALICE).is_empty(), "{}", show(&sent));
    assert!(!to(&sent, GATE).is_empty(), "its request is repeated");
    one_has_failed(&b, GATE, Cause::NoResponse);
    let ringing = b.send_for_one(GATE, at_gate.answer(180));
    assert_eq!((ringing.status(), ringing.to.as_str()), (180, ALICE));
    assert!(failed(&b).is_empty(), "an answer makes it well");
    let answer = b.send_for_one(GATE, at_gate.answer(200));
    assert_eq!(answer.status(), 200);
    b.assert_quiet();
    let mut b = bench(relay(&[GATE]));
    first_copy(&mut b, "INVITE");
    let sent = b.tick(32_000);
    assert_eq!(the(&sent, ALICE).status(), 408);
    b.assert_quiet();
}

#[test]
fn when_all_have_failed_each_request_is_tried_at_the_one_whose_failure_is_longest_ago() {
    let mut b = bench(relay(&[GATE, SPARE, LAST]));
    first_copy(&mut b, "INVITE");
    let sent = b.tick(20_000);
    let order: Vec<_> = copies(&sent, "INVITE").iter().map(|s| (s.to.clone(), s.at)).collect();
    let expected = [(GATE, 500), (SPARE, 4000), (LAST, 8000)];
    assert_eq!(order, expected.map(|(to, at)| (to.to_owned(), at)));
    assert_eq!(failed(&b).len(), 3);
    // No request is refused: it is tried at all of them, in the order of their failures.
    let at_gate = first_copy(&mut b, "MESSAGE");
    assert_eq!(at_gate.to, GATE);
    let answer = b.send_for_one(GATE, at_gate.answer(200));
    assert_eq!(answer.status(), 200);
    assert_eq!(failed(&b).len(), 2);
    goes_first_to(&mut b, GATE);
    b.assert_quiet();
}

#[test]
fn one_request_tries_a_failed_target_again_and_its_answer_makes_it_well_for_all() {
    let mut b = bench(relay(&[GATE, SPARE]));
    first_has_failed(&mut b);
    b.tick(PASSED_OVER);
    let trial = first_copy(&mut b, "MESSAGE");
    assert_eq!(trial.to, GATE);
    for _ in 0..3 {
        goes_first_to(&mut b, SPARE);
    }
    b.send(GATE, trial.answer(200));
    goes_first_to(&mut b, GATE);
    // A trial without an answer lets it be passed over for longer.
    let mut b = bench(relay(&[GATE, SPARE]));
    first_has_failed(&mut b);
    b.tick(PASSED_OVER);
    assert_eq!(first_copy(&mut b, "MESSAGE").to, GATE);
    b.tick(PATIENCE);
    let (_, failure) = failed(&b)[0].clone();
    assert_eq!(failure.failures, 2);
    assert!(failure.until.ms_since(failure.last) >= 54_000, "{failure:?}");
    b.assert_quiet();
}

#[test]
fn a_target_that_answers_others_has_not_failed_though_one_request_is_lost() {
    let mut b = bench(relay(&[GATE, SPARE]));
    first_copy(&mut b, "INVITE");
    b.tick(1000);
    let other = first_copy(&mut b, "MESSAGE");
    b.tick(1000);
    b.send(GATE, other.answer(200));
    let sent = b.tick(2000);
    assert_eq!(copies(&sent, "INVITE").last().map(|s| s.to.as_str()), Some(SPARE));
    assert!(failed(&b).is_empty());
    goes_first_to(&mut b, GATE);
}

#[test]
fn a_refused_or_lost_connection_and_a_closed_port_fail_a_target_at_once() {
    let hops = [GATE, SPARE].map(|at| streams::hop(Transport::Tcp, at, ""));
    let mut b = bench(route(Action::Relay(hops.to_vec())));
    let at_gate = first_copy(&mut b, "INVITE");
    let sent = b.lose(at_gate.flow);
    assert_eq!(the(&sent, SPARE).method(), "INVITE");
    one_has_failed(&b, GATE, Cause::NoConnection);
    goes_first_to(&mut b, SPARE);
    b.assert_quiet();

    let mut b = bench(relay(&[GATE, SPARE]));
    let at_gate = first_copy(&mut b, "INVITE");
    let sent = b.undelivered(&at_gate.bytes);
    assert_eq!(the(&sent, SPARE).method(), "INVITE");
    one_has_failed(&b, GATE, Cause::Unreachable);
    goes_first_to(&mut b, SPARE);
    b.assert_quiet();
}

#[test]
fn a_503_fails_a_target_for_as_long_as_its_retry_after_says() {
    for (line, until) in [
        (None, 27_000..33_001),
        (Some("Retry-After: 120"), 120_000..120_001),
        (Some("Retry-After: 90 (maintenance);duration=3600"), 90_000..90_001),
        (Some("Retry-After: 5000000000"), 600_000..600_001),
    ] {
        let mut b = bench(relay(&[GATE, SPARE]));
        let at_gate = first_copy(&mut b, "INVITE");
        let answer = at_gate.answer(503);
        let answer = line.into_iter().fold(answer, |answer, line| answer.add(line));
        let sent = b.send(GATE, answer);
        assert_eq!(the(&sent, SPARE).method(), "INVITE");
        one_has_failed(&b, GATE, Cause::Unavailable);
        let passed_over = failed(&b)[0].1.until.as_ms();
        assert!(until.contains(&passed_over), "{line:?}: {passed_over}");
        goes_first_to(&mut b, SPARE);
        b.assert_quiet();
    }
}

#[test]
fn late_answers_of_a_silent_target_still_count() {
    // A late 180: it is cancelled, and the caller hears nothing of it.
    let mut b = bench(relay(&[GATE, SPARE]));
    let at_gate = first_copy(&mut b, "INVITE");
    let sent = b.tick(PATIENCE);
    let at_spare = the(&sent, SPARE).clone();
    let cancel = b.send_for_one(GATE, at_gate.answer(180));
    assert_eq!((cancel.to.as_str(), cancel.method()), (GATE, "CANCEL"));
    assert!(failed(&b).is_empty(), "it has answered");
    b.send(GATE, cancel.answer(200));
    let ack = b.send_for_one(GATE, at_gate.answer(487));
    assert_eq!((ack.to.as_str(), ack.method()), (GATE, "ACK"));
    let answer = b.send_for_one(SPARE, at_spare.answer(200));
    assert_eq!((answer.status(), answer.to.as_str()), (200, ALICE));
    b.assert_quiet();

    // A late 200 takes the call; the other branch is cancelled.
    for method in ["INVITE", "MESSAGE"] {
        let mut b = bench(relay(&[GATE, SPARE]));
        let at_gate = first_copy(&mut b, method);
        let sent = b.tick(PATIENCE);
        let at_spare = copies(&sent, method).into_iter().find(|s| s.to == SPARE).unwrap().clone();
        b.send(SPARE, at_spare.answer(180));
        let sent = b.send(GATE, at_gate.answer(200));
        assert_eq!(the(&sent, ALICE).status(), 200, "{method}");
        let cancels = to(&sent, SPARE).iter().filter(|s| s.method() == "CANCEL").count();
        assert_eq!(cancels, usize::from(method == "INVITE"));
        b.assert_quiet();
    }

    // A late 486 is better than the time-out it counted as; a late 603 ends the search.
    for (late, ends) in [(486, false), (603, true)] {
        let mut b = bench(relay(&[GATE, SPARE, LAST]));
        let at_gate = first_copy(&mut b, "INVITE");
        let sent = b.tick(PATIENCE);
        let at_spare = the(&sent, SPARE).clone();
        b.send(SPARE, at_spare.answer(180));
        let sent = b.send(GATE, at_gate.answer(late));
        assert_eq!(to(&sent, SPARE).iter().any(|s| s.method() == "CANCEL"), ends);
        assert!(to(&sent, ALICE).is_empty());
        let status = if ends { 487 } else { 503 };
        let sent = b.send(SPARE, at_spare.answer(status));
        assert_eq!(to(&sent, LAST).is_empty(), ends, "{}", show(&sent));
        if let Some(at_last) = to(&sent, LAST).first() {
            let sent = b.send(LAST, at_last.answer(503));
            assert_eq!(the(&sent, ALICE).status(), 486);
        } else {
            assert_eq!(the(&sent, ALICE).status(), 603);
        }
        b.assert_quiet();
    }
}

#[test]
fn a_2xx_after_the_caller_has_another_final_answer_does_not_reach_it() {
    for wait in [0, 10_000] {
        let mut b = bench(relay(&[GATE, SPARE]));
        let invite = request("INVITE");
        let sent = b.send(ALICE, &invite);
        let at_gate = the(&sent, GATE).clone();
        let sent = b.tick(PATIENCE);
        let at_spare = the(&sent, SPARE).clone();
        let sent = b.send(SPARE, at_spare.answer(486));
        b.send(ALICE, invite.ack(the(&sent, ALICE)));
        b.tick(wait);
        assert!(to(&b.send(GATE, at_gate.answer(200)), ALICE).is_empty(), "after {wait} ms");
        b.assert_quiet();
    }
}

#[test]
fn a_call_that_is_cancelled_while_a_target_is_silent_goes_nowhere_else() {
    let mut b = bench(relay(&[GATE, SPARE]));
    let invite = request("INVITE");
    b.send(ALICE, &invite);
    b.tick(1000);
    let sent = b.send(ALICE, invite.cancel());
    assert_eq!(only(sent).status(), 200);
    let sent = b.tick(40_000);
    assert!(to(&sent, SPARE).is_empty(), "{}", show(&sent));
    assert_eq!(to(&sent, ALICE)[0].status(), 487);
    b.assert_quiet();

    // The second one is tried already when the caller gives up.
    let mut b = bench(relay(&[GATE, SPARE, LAST]));
    let invite = request("INVITE");
    b.send(ALICE, &invite);
    let sent = b.tick(PATIENCE);
    let at_spare = the(&sent, SPARE).clone();
    b.send(SPARE, at_spare.answer(180));
    let sent = b.send(ALICE, invite.cancel());
    assert_eq!(the(&sent, SPARE).method(), "CANCEL");
    assert!(to(&sent, GATE).is_empty());
    let sent = b.send(SPARE, at_spare.answer(487));
    assert_eq!(the(&sent, ALICE).status(), 487);
    assert!(to(&b.tick(40_000), LAST).is_empty());
    b.assert_quiet();
}

// ---- names -----------------------------------------------------------------------------------------------------------------

/// A route to a name with two servers; which is the first of them differs from call to call.
fn named() -> (Bench, Zone) {
    let zone = Zone::new(
        "gates.example A 10.0.5.1
         gates.example A 10.0.5.2",
    );
    let hops = vec![by_name("sip:gates.example:5080;transport=udp")];
    (bench(route(Action::Relay(hops))), zone)
}

#[test]
fn of_a_name_with_two_servers_the_other_one_is_tried_in_time_and_then_first() {
    for method in ["INVITE", "MESSAGE"] {
        let (mut b, mut zone) = named();
        b.send(ALICE, request(method));
        let sent = zone.serve(&mut b);
        let silent = copies(&sent, method)[0].to.clone();
        let good = if silent == GATE { SPARE } else { GATE };
        let sent = b.tick(PATIENCE);
        let at_good = copies(&sent, method).into_iter().find(|s| s.to == good).cloned();
        let at_good = at_good.unwrap_or_else(|| panic!("{method}: {}", show(&sent)));
        assert_eq!(at_good.at, PATIENCE);
        one_has_failed(&b, &silent, Cause::NoResponse);
        let sent = b.send(good, at_good.answer(486));
        assert_eq!(the(&sent, ALICE).status(), 486, "{method}");
        // Whatever the Call-ID, the failed one is passed over.
        for _ in 0..20 {
            goes_first_to(&mut b, good);
        }
        b.assert_quiet();
    }
}

#[test]
fn a_silent_server_is_not_given_up_for_one_that_dns_does_not_know() {
    let mut zone = Zone::new(
        "_sip._udp.gates.example SRV 1 0 5080 one.example.
         _sip._udp.gates.example SRV 2 0 5080 two.example.
         one.example A 10.0.5.1",
    );
    for answers_meanwhile in [false, true] {
        let mut b = bench(route(Action::Relay(vec![by_name("sip:gates.example;transport=udp")])));
        b.send(ALICE, request("INVITE"));
        let mut sent = Vec::new();
        while b.asked.first().is_some_and(|question| !question.name.to_string().starts_with("two")) {
            sent.extend(zone.serve_one(&mut b));
        }
        let at_gate = only(sent);
        b.tick(PATIENCE);
        if answers_meanwhile {
            b.send(GATE, at_gate.answer(100));
        }
        zone.serve(&mut b);
        let sent = b.tick(12_000);
        assert!(to(&sent, ALICE).is_empty(), "{}", show(&sent));
        assert_eq!(to(&sent, GATE).is_empty(), answers_meanwhile, "{}", show(&sent));
        let sent = b.send(GATE, at_gate.answer(180));
        assert_eq!(only(sent).to, ALICE);
        let sent = b.send(GATE, at_gate.answer(486));
        assert_eq!(the(&sent, ALICE).status(), 486);
        b.assert_quiet();
    }
}

#[test]
fn when_all_servers_of_a_name_have_failed_a_request_still_goes_to_the_least_recent_failure() {
    let (mut b, mut zone) = named();
    b.send(ALICE, request("INVITE"));
    let sent = zone.serve(&mut b);
    let first = copies(&sent, "INVITE")[0].to.clone();
    b.tick(20_000);
    assert_eq!(failed(&b).len(), 2);
    for _ in 0..10 {
        goes_first_to(&mut b, &first);
    }
}

#[test]
fn a_name_whose_servers_have_all_failed_comes_behind_a_target_that_is_well() {
    let mut zone = Zone::new("gates.example A 10.0.5.1");
    let hops = vec![by_name("sip:gates.example:5080;transport=udp"), hop(SPARE)];
    let mut b = bench(route(Action::Relay(hops)));
    b.send(ALICE, request("MESSAGE"));
    let sent = zone.serve(&mut b);
    assert_eq!(only(sent).to, GATE);
    b.tick(PATIENCE);
    goes_first_to(&mut b, SPARE);
    b.assert_quiet();
}

#[test]
fn a_failed_server_is_asked_if_dns_does_not_say_in_time_where_another_one_is() {
    let mut zone = Zone::new(
        "_sip._udp.gates.example SRV 1 0 5080 one.example.
         _sip._udp.gates.example SRV 2 0 5080 two.example.
         one.example A 10.0.5.1
         two.example A 10.0.5.2",
    );
    let mut b = bench(route(Action::Relay(vec![by_name("sip:gates.example;transport=udp")])));
    b.send(ALICE, request("MESSAGE"));
    // Of the second server nobody says anything.
    let mut sent = Vec::new();
    while let Some(question) = b.asked.first().copied() {
        match question.name.to_string().starts_with("two") {
            true => drop(b.asked.remove(0)),
            false => sent.extend(zone.serve_one(&mut b)),
        }
    }
    let at_gate = only(sent);
    assert_eq!(at_gate.to, GATE);
    b.send(GATE, at_gate.answer(503));
    one_has_failed(&b, GATE, Cause::Unavailable);
    b.tick(10_000);
    let sent = b.send(ALICE, request("MESSAGE"));
    assert!(sent.is_empty(), "{}", show(&sent));
    let sent = b.tick(10_000);
    assert!(to(&sent, GATE).iter().any(|s| s.method() == "MESSAGE"), "{}", show(&sent));
}

// ---- forks -----------------------------------------------------------------------------------------------------------------

fn phones(count: usize, fork: Fork, qs: &[&str]) -> Bench {
    let mut b = Bench::with(|settings| {
        settings.limits.answer_factor = 0;
        settings.proxy.fork = fork;
    });
    for n in 0..count {
        let q = qs.get(n).map_or(String::new(), |q| format!(";q={q}"));
        b.register("bob", &format!("<sip:bob@{}>{q}", phone(n)));
    }
    b
}

fn phone(n: usize) -> String {
    format!("10.0.2.{}:5060", n + 1)
}

#[test]
fn a_dead_phone_does_not_keep_the_answer_of_a_busy_one() {
    for method in ["INVITE", "MESSAGE"] {
        let mut b = phones(2, Fork::Parallel, &[]);
        let sent = b.send(ALICE, Request::new(method, "sip:bob@example.com"));
        let at = [0, 1].map(|n| the(&sent, &phone(n)).clone());
        let sent = b.send(&phone(1), at[1].answer(486));
        assert!(to(&sent, ALICE).is_empty());
        let sent = b.tick(PATIENCE);
        let answer = to(&sent, ALICE).into_iter().find(|s| s.status() >= 200).expect("an answer");
        assert_eq!((answer.status(), answer.at), (486, PATIENCE), "{method}");
        assert!(to(&b.tick(60_000), &phone(0)).is_empty(), "nothing is repeated to the dead one");
        b.assert_quiet();
    }
}

#[test]
fn a_server_error_is_an_answer_too_though_another_next_hop_is_silent() {
    for method in ["INVITE", "MESSAGE"] {
        let mut b = phones(2, Fork::Parallel, &[]);
        let sent = b.send(ALICE, Request::new(method, "sip:bob@example.com"));
        let at_second = the(&sent, &phone(1)).clone();
        b.send(&phone(1), at_second.answer(500));
        let sent = b.tick(PATIENCE);
        assert!(to(&sent, ALICE).iter().any(|s| s.status() == 500), "{method}: {}", show(&sent));
        b.assert_quiet();
    }
    let mut b = bench(relay(&[GATE, SPARE]));
    first_copy(&mut b, "MESSAGE");
    let sent = b.tick(PATIENCE);
    let at_spare = the(&sent, SPARE).clone();
    let sent = b.send(SPARE, at_spare.answer(500));
    assert_eq!(the(&sent, ALICE).status(), 500);
    b.assert_quiet();
}

#[test]
fn a_phone_that_rings_late_rings_and_is_waited_for_as_long_as_others_do() {
    let mut b = phones(2, Fork::Parallel, &[]);
    let sent = b.send(ALICE, Request::invite());
    let at = [0, 1].map(|n| the(&sent, &phone(n)).clone());
    b.send(&phone(1), at[1].answer(180));
    let sent = b.tick(PATIENCE + 1000);
    assert!(!to(&sent, &phone(0)).is_empty(), "it may yet answer");
    let ringing = b.send_for_one(&phone(0), at[0].answer(180));
    assert_eq!((ringing.status(), ringing.to.as_str()), (180, ALICE));
    // It is waited for again.
    let sent = b.send(&phone(1), at[1].answer(486));
    assert!(to(&sent, ALICE).is_empty(), "{}", show(&sent));
    let sent = b.send(&phone(0), at[0].answer(200));
    assert_eq!(the(&sent, ALICE).status(), 200);
    b.assert_quiet();

    // One that still says nothing is cancelled when the other has answered, as soon as it rings.
    let mut b = phones(2, Fork::Parallel, &[]);
    let sent = b.send(ALICE, Request::invite());
    let at = [0, 1].map(|n| the(&sent, &phone(n)).clone());
    b.send(&phone(1), at[1].answer(180));
    b.tick(PATIENCE + 1000);
    let sent = b.send(&phone(1), at[1].answer(486));
    assert_eq!(the(&sent, ALICE).status(), 486);
    let cancel = b.send_for_one(&phone(0), at[0].answer(180));
    assert_eq!((cancel.to.as_str(), cancel.method()), (phone(0).as_str(), "CANCEL"));
    b.assert_quiet();
}

#[test]
fn phones_that_are_all_silent_have_until_timer_b_and_ring_next_time_too() {
    let mut b = phones(2, Fork::Parallel, &[]);
    let sent = b.send(ALICE, Request::invite());
    let at_first = the(&sent, &phone(0)).clone();
    let sent = b.tick(20_000);
    assert!(to(&sent, ALICE).is_empty(), "{}", show(&sent));
    assert_eq!(failed(&b).len(), 2);
    let contacts = b.health.list().iter().all(|(hop, _)| hop.named_by == NamedBy::Contact);
    assert!(contacts);
    let sent = b.send(ALICE, Request::invite());
    assert_eq!(to(&sent, &phone(0)).len() + to(&sent, &phone(1)).len(), 2);
    let sent = b.send(&phone(0), at_first.answer(200));
    assert_eq!(the(&sent, ALICE).status(), 200);
    b.assert_quiet();
}

#[test]
fn in_a_sequential_fork_the_next_phone_is_tried_in_place_of_a_silent_one() {
    let mut b = phones(2, Fork::Sequential, &["1", "0.5"]);
    let sent = b.send(ALICE, Request::invite());
    let at_first = the(&sent, &phone(0)).clone();
    let sent = b.tick(PATIENCE);
    let at_second = the(&sent, &phone(1)).clone();
    assert_eq!(at_second.at, PATIENCE);
    let cancel = b.send_for_one(&phone(0), at_first.answer(180));
    assert_eq!(cancel.method(), "CANCEL");
    let sent = b.send(&phone(1), at_second.answer(486));
    assert_eq!(the(&sent, ALICE).status(), 486);
    b.assert_quiet();
}

#[test]
fn with_a_breadth_of_one_a_silent_phone_makes_room_for_the_next() {
    let mut b = phones(3, Fork::Parallel, &[]);
    let sent = b.send(ALICE, Request::invite().add("Max-Breadth: 1"));
    let rung = |sent: &[Sent]| -> Vec<String> { copies(sent, "INVITE").iter().map(|s| s.to.clone()).collect() };
    assert_eq!(rung(&sent), [phone(0)]);
    for n in [1, 2] {
        let sent = b.tick(PATIENCE);
        let new = rung(&sent).into_iter().filter(|to| *to == phone(n)).count();
        assert_eq!(new, 1, "{}", show(&sent));
        let copy = copies(&sent, "INVITE").into_iter().find(|s| s.to == phone(n)).unwrap();
        assert_eq!(copy.header("Max-Breadth"), Some("1"));
    }
    b.assert_quiet();
}

// ---- [[route]] failover ----------------------------------------------------------------------------------------------------

#[test]
fn a_route_says_after_which_answers_the_next_target_is_tried() {
    let with = |ranges: &[(u16, u16)]| Route { failover: Statuses::new(ranges.to_vec()), ..relay(&[GATE, SPARE]) };
    type List = (&'static [(u16, u16)], &'static [u16]);
    let lists: [List; 4] = [
        (&[(503, 503)], &[503]),
        (&[(408, 408), (500, 599)], &[408, 500, 503]),
        (&[(404, 404), (486, 486)], &[404, 486]),
        (&[(300, 699)], &[302, 404, 408, 486, 500, 503, 603]),
    ];
    for (ranges, tried_after) in lists {
        for status in [302, 404, 408, 486, 500, 503, 603] {
            for method in ["INVITE", "MESSAGE"] {
                let mut b = bench(with(ranges));
                let at_gate = first_copy(&mut b, method);
                let sent = b.send(GATE, at_gate.answer(status));
                let what = format!("{status} to {method} with {ranges:?}: {}", show(&sent));
                let is_tried = copies(&sent, method).iter().any(|s| s.to == SPARE);
                assert_eq!(is_tried, tried_after.contains(&status), "{what}");
                if is_tried {
                    assert!(to(&sent, ALICE).is_empty(), "{what}");
                    let at_spare = copies(&sent, method)[0].clone();
                    let sent = b.send(SPARE, at_spare.answer(200));
                    assert_eq!(the(&sent, ALICE).status(), 200, "{what}");
                } else if method == "INVITE" || status != 408 {
                    let expected = if status == 503 { 500 } else { status };
                    assert_eq!(the(&sent, ALICE).status(), expected, "{what}");
                }
                b.assert_quiet();
            }
        }
    }
}

#[test]
fn what_the_last_target_says_is_the_answer_though_it_is_listed() {
    let mut b = bench(Route { failover: Statuses::new(vec![(400, 699)]), ..relay(&[GATE, SPARE]) });
    let at_gate = first_copy(&mut b, "INVITE");
    let sent = b.send(GATE, at_gate.answer(500));
    let at_spare = the(&sent, SPARE).clone();
    let sent = b.send(SPARE, at_spare.answer(486));
    assert_eq!(the(&sent, ALICE).status(), 486);
    b.assert_quiet();
}

#[test]
fn after_a_cancel_a_listed_answer_starts_nothing() {
    for status in [486, 487, 603] {
        let mut b = bench(Route { failover: Statuses::new(vec![(400, 699)]), ..relay(&[GATE, SPARE]) });
        let invite = request("INVITE");
        let sent = b.send(ALICE, &invite);
        let at_gate = the(&sent, GATE).clone();
        b.send(GATE, at_gate.answer(180));
        b.send(ALICE, invite.cancel());
        let sent = b.send(GATE, at_gate.answer(status));
        assert!(to(&sent, SPARE).is_empty());
        assert_eq!(the(&sent, ALICE).status(), status);
        b.assert_quiet();
    }
}

#[test]
fn a_phone_that_refuses_is_no_failed_target_though_the_route_lists_its_answer() {
    let mut b = bench_with(Route { failover: Statuses::new(vec![(400, 699)]), ..route(Action::Location) }, |_| ());
    b.register("bob", "<sip:bob@10.0.2.1:5060>");
    let sent = b.send(ALICE, Request::invite());
    let at_bob = the(&sent, &phone(0)).clone();
    let sent = b.send(&phone(0), at_bob.answer(603));
    assert_eq!(the(&sent, ALICE).status(), 603);
    b.assert_quiet();
}

// ---- who may say what ------------------------------------------------------------------------------------------------------

#[test]
fn an_answer_from_elsewhere_or_with_a_guessed_branch_makes_nothing_well() {
    let mut b = bench(relay(&[GATE, SPARE]));
    let at_gate = first_copy(&mut b, "INVITE");
    b.tick(PATIENCE);
    one_has_failed(&b, GATE, Cause::NoResponse);
    // The right branch, from another place.
    b.send(LAST, at_gate.answer(100));
    one_has_failed(&b, GATE, Cause::NoResponse);
    // The right place, by another branch.
    let branch = at_gate.branch().to_owned();
    let mut forged = at_gate.clone();
    forged.text = crate::message::Text::new(at_gate.to_string().replace(&branch, "z9hG4bKs0000000000000001000").as_bytes());
    b.send(GATE, forged.answer(200));
    one_has_failed(&b, GATE, Cause::NoResponse);
    goes_first_to(&mut b, SPARE);
    // And nobody makes one fail: a forged 503 from elsewhere says nothing of it.
    let mut b = bench(relay(&[GATE, SPARE]));
    let at_gate = first_copy(&mut b, "INVITE");
    b.send(LAST, at_gate.answer(503).add("Retry-After: 600"));
    assert!(failed(&b).is_empty());
}

#[test]
fn what_a_caller_names_harms_no_target_of_the_conf_at_the_same_address() {
    let to_gate = Route { to_host: Some(b"carrier.example".to_vec().into()), ..relay(&[GATE, SPARE]) };
    let mut b = Bench::with(|settings| {
        settings.limits.answer_factor = 0;
        settings.routes = vec![to_gate, route(Action::Relay(Vec::new()))].into();
    });
    let stray = b.send_for_one(ALICE, Request::new("MESSAGE", &format!("sip:nobody@{GATE}")));
    assert_eq!(stray.to, GATE);
    b.undelivered(&stray.bytes);
    one_has_failed(&b, GATE, Cause::Unreachable);
    goes_first_to(&mut b, GATE);
}

// ---- reload, cores, modes --------------------------------------------------------------------------------------------------

#[test]
fn a_reload_in_between_changes_neither_targets_nor_failover_of_what_is_under_way() {
    let mut b = bench(Route { failover: Statuses::new(vec![(486, 486)]), ..relay(&[GATE, SPARE, LAST]) });
    let at_gate = first_copy(&mut b, "INVITE");
    let settings = Settings { listeners: listeners(), routes: vec![relay(&[LAST])].into(), ..Settings::default() };
    b.cores[0].handle_config(Arc::new(settings));
    let sent = b.send(GATE, at_gate.answer(486));
    let at_spare = the(&sent, SPARE).clone();
    assert_eq!(at_spare.method(), "INVITE");
    let sent = b.tick(PATIENCE);
    assert_eq!(copies(&sent, "INVITE").last().map(|s| s.to.as_str()), Some(LAST));
    goes_first_to(&mut b, LAST);
    b.assert_quiet();
}

#[test]
fn what_one_core_has_seen_all_cores_know() {
    let mut b = bench_with(relay(&[GATE, SPARE]), |settings| settings.cores = 2);
    first_copy(&mut b, "MESSAGE");
    b.tick(PATIENCE);
    let sent = b.send_by(1, 0, ALICE, request("MESSAGE"));
    assert_eq!(only(sent).to, SPARE);
}

#[test]
fn without_state_a_failed_target_is_passed_over_and_a_repetition_has_the_same_branch() {
    let mut b = bench_with(relay(&[GATE, SPARE]), |settings| settings.proxy.mode = Mode::Stateless);
    let message = request("MESSAGE");
    let first = b.send_for_one(ALICE, &message);
    assert_eq!(first.to, GATE);
    let gate = strowger::stack::health::Neighbour { named_by: NamedBy::Conf, transport: Transport::Udp, address: address(GATE) };
    let now = strowger::base::Instant::from_ms(b.now);
    b.health.note_failure(now, gate, Cause::NoResponse, 30_000, None);
    let again = b.send_for_one(ALICE, &message);
    assert_eq!((again.to.as_str(), again.branch()), (SPARE, first.branch()));
    goes_first_to(&mut b, SPARE);
}
