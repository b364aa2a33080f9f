//! One load from several processes: each has its share, and the result is that of the whole.

use std::net::UdpSocket;

use crate::programs::{Peer, Run, count, run};

fn load(line: &str) -> Run {
    run(&format!("{line} --floor --settle 0 --wait sleep --json -"))
}

#[test]
fn shares_make_the_whole_load() {
    let relay = Peer::relay("--listen 127.1.5.1:25060");
    let server = format!("--server 127.1.5.1:25060 --server-pid {}", relay.0.id());
    // The relay sends to whom it hears from: the three are at 127.1.5.10, .11 and .12.
    let line = format!("call --processes 3 {server} --local 127.1.5.10:0 --rate 90,150 --window 7 --duration 1");
    let run = load(&line);
    let results = &run.results;
    assert_eq!(run.code, Some(0), "{results:#?}");
    assert_eq!(results.len(), 3);
    for (result, rate) in results.iter().zip([90, 150]) {
        let scheduled = count(result, "scheduled");
        assert!(scheduled.abs_diff(rate) <= 3, "{scheduled} of {rate}");
        assert_eq!(result["rate_or_window"], rate as f64);
    }
    assert_eq!(results[2]["rate_or_window"], 7);
    for result in results {
        assert_eq!(result["processes"], 3);
        assert_eq!(result["clean"], true);
        assert_eq!(result["failed_share"], 0.0);
        assert_eq!(result["good"], count(result, "scheduled"));
        // All latencies of all processes are in the histogram.
        assert_eq!(result["latency_us"]["to_200"]["count"], result["good"]);
        let each = result["server_cpu_us_each"].as_f64().expect("watched");
        assert!(each > 1.0 && each < 10_000.0, "{each}");
    }
    assert_eq!(run.said.matches(" all ").count(), 3, "{}", run.said);
}

#[test]
fn users_and_counts_are_shared_out() {
    let _relay = Peer::relay("--listen 127.1.5.2:25060");
    load("register --processes 2 --server 127.1.5.2:25060 --local 127.1.5.20:0 --users 101 --window 4 --count 401").clean(401);
}

#[test]
fn a_process_that_cannot_run_ends_them_all() {
    // The second one's port is taken.
    let _taken = UdpSocket::bind("127.1.5.31:15070").expect("a free port");
    let run = load("call --processes 2 --server 127.1.5.3:25060 --local 127.1.5.30:0 --rate 1 --duration 20");
    run.refused("cannot bind 127.1.5.31:15070");
    run.refused("process 1 has failed");
}

#[test]
fn what_cannot_be_shared_is_refused() {
    for line in [
        "call --processes 2 --search",
        "call --processes 2 --role answerers",
        "call --processes 2 --routed",
        "call --processes 4 --window 3",
        "call --processes 2 --transport tcp",
    ] {
        load(line).refused("");
    }
}
