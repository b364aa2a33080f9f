//! The generator against its own relay on loopback: every datagram of a call is sent and counted once, and losses are made good and told.

use crate::programs::{self, Peer, Run};

/// Runs the relay and the generator at this host.
fn load(host: &str, relay: &str, line: &str) -> Run {
    let _relay = Peer::relay(&format!("--listen {host}:25060 {relay}"));
    programs::load(host, &format!("{line} --floor"))
}

#[test]
fn a_call_is_six_datagrams_out_and_seven_in() {
    let run = load("127.1.0.1", "", "call --window 8 --count 500").clean(500);
    for name in ["started", "trying_received", "ringing_received"] {
        assert_eq!(run.count(name), 500, "{name}");
    }
    assert_eq!(run.count("messages_sent"), 3_000);
    assert_eq!(run.count("messages_received"), 3_500);
}

#[test]
fn without_the_100_it_is_six_and_six() {
    let run = load("127.1.0.2", "--no-trying", "call --window 8 --count 500").clean(500);
    assert_eq!(run.count("trying_received"), 0);
    assert_eq!(run.count("messages_received"), 3_000);
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let run = load("127.1.0.3", "", "call --rate 500 --duration 2");
    let scheduled = run.count("scheduled");
    assert!((995..=1_005).contains(&scheduled), "{scheduled}");
    assert_eq!(run.count("started"), scheduled);
}

#[test]
fn in_turns_calls_leave_together_and_are_not_late_for_that() {
    let run = load("127.1.0.8", "", "call --rate 500 --duration 2 --turn 0.02 --hold 0.01 --drain 1");
    let scheduled = run.count("scheduled");
    assert!((995..=1_005).contains(&scheduled), "{scheduled}");
    assert_eq!(run.count("started"), scheduled);
    // Some on a busy machine; nine in ten if their waiting counted.
    assert!(run.count("late") < scheduled / 2, "{:#}", run.result());
    // Ten of them in each turn, the first of which has waited nearly all of it.
    let lag = &run.result()["latency_us"]["generator_lag"];
    assert!(lag["p50"].as_f64().is_some_and(|median| median > 5_000.0), "{lag}");
}

#[test]
fn what_a_server_costs_at_full_speed_is_told_apart() {
    let host = "127.1.0.9";
    let relay = Peer::relay(&format!("--listen {host}:25060"));
    let watched = format!("call --floor --window 4 --duration 0.5 --server-pid {}", relay.pid());
    let run = programs::load(host, &format!("{watched} --server-core 0"));
    let calm = &run.result()["calm"];
    let share = calm["share"].as_f64().expect("a share");
    assert!((0.0..=1.0).contains(&share) && calm["work_ns"].as_u64().is_some_and(|ns| ns > 0), "{calm}");
    assert!(calm["completed"].as_u64().is_some_and(|calm| calm <= run.count("completed")), "{calm}");
    assert!(programs::load(host, &watched).result()["calm"].is_null(), "nobody asked for it");
}

#[test]
fn lost_datagrams_are_sent_again_and_counted() {
    // Every call loses something of its thirteen datagrams now and then; a prime number hits each kind in turn.
    let run = load("127.1.0.4", "--lose 47", "call --window 64 --count 2000");
    assert_eq!(run.count("completed"), 2_000, "{:#}", run.result());
    assert_eq!(run.result()["clean"], false);
    assert_eq!(run.code, Some(1));
    for name in ["retransmitted_invite", "retransmitted_2xx", "retransmitted_request"] {
        assert!(run.count(name) > 0, "{name}: {:#}", run.result());
    }
    for name in ["timed_out", "refused", "wrong", "skipped"] {
        assert_eq!(run.count(name), 0, "{name}: {:#}", run.result());
    }
}

#[test]
fn registrations_are_one_and_one() {
    let run = load("127.1.0.5", "", "register --window 8 --count 500 --users 100").clean(500);
    assert_eq!(run.count("messages_sent"), 500);
}

#[test]
fn sockets_on_each_side_are_all_used() {
    load("127.1.0.6", "--sockets 4", "call --window 8 --count 200 --sockets 4").clean(200);
}

#[test]
fn a_silent_server_is_told_as_such() {
    // Everything is lost: nothing may be counted as done.
    let run = load("127.1.0.7", "--lose 1", "call --window 4 --duration 1.2 --drain 0");
    assert_eq!(run.code, Some(1));
    assert_eq!(run.count("completed"), 0);
    assert_eq!(run.count("started"), 4);
    assert_eq!(run.count("retransmitted_invite"), 4);
}
