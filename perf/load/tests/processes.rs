//! One load from several processes: each has its share, and the result is that of the whole.

use std::net::UdpSocket;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_strowger-load");

struct Relay(Child);

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn relay(server: &str) -> Relay {
    let relay = Command::new(BINARY).args(["relay", "--listen", server]).stdout(Stdio::null()).spawn().map(Relay).expect("relay");
    while UdpSocket::bind(server).is_ok() {
        std::thread::sleep(Duration::from_millis(10));
    }
    relay
}

fn load(line: &str) -> Output {
    Command::new(BINARY)
        .args(line.split_whitespace())
        .args(["--floor", "--settle", "0", "--wait", "sleep", "--json", "-"])
        .output()
        .expect("generator")
}

fn results(output: &Output) -> Vec<Value> {
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

fn count(result: &Value, name: &str) -> u64 {
    result["counts"][name].as_u64().expect("a count")
}

#[test]
fn shares_make_the_whole_load() {
    let relay = relay("127.1.5.1:25060");
    let server = format!("--server 127.1.5.1:25060 --server-pid {}", relay.0.id());
    // The relay sends to whom it hears from: the three are at 127.1.5.10, .11 and .12.
    let line = format!("call --processes 3 {server} --local 127.1.5.10:0 --rate 90,150 --window 7 --duration 1");
    let output = load(&line);
    let results = results(&output);
    assert_eq!(output.status.code(), Some(0), "{results:#?}");
    assert_eq!(results.len(), 3);
    for (result, rate) in results.iter().zip([90, 150]) {
        let scheduled = count(result, "scheduled");
        assert!(scheduled.abs_diff(rate) <= 3, "{scheduled} of {rate}");
        assert_eq!(result["rate_or_window"], rate as f64);
    }
    assert_eq!(results[2]["rate_or_window"], 7);
    for result in &results {
        assert_eq!(result["processes"], 3);
        assert_eq!(result["clean"], true);
        assert_eq!(result["failed_share"], 0.0);
        assert_eq!(result["good"], count(result, "scheduled"));
        // All latencies of all processes are in the histogram.
        assert_eq!(result["latency_us"]["to_200"]["count"], result["good"]);
        let each = result["server_cpu_us_each"].as_f64().expect("watched");
        assert!(each > 1.0 && each < 10_000.0, "{each}");
    }
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.matches(" all ").count(), 3, "{said}");
}

#[test]
fn users_and_counts_are_shared_out() {
    let _relay = relay("127.1.5.2:25060");
    let line = "register --processes 2 --server 127.1.5.2:25060 --local 127.1.5.20:0 --users 101 --window 4 --count 401";
    let output = load(line);
    let results = results(&output);
    assert_eq!(count(&results[0], "completed"), 401, "{results:#?}");
    assert_eq!(results[0]["clean"], true);
}

#[test]
fn a_process_that_cannot_run_ends_them_all() {
    // The second one's port is taken.
    let _taken = UdpSocket::bind("127.1.5.31:15070").expect("a free port");
    let line = "call --processes 2 --server 127.1.5.3:25060 --local 127.1.5.30:0 --rate 1 --duration 20";
    let output = load(line);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("cannot bind 127.1.5.31:15070"), "{said}");
    assert!(said.contains("process 1 has failed"), "{said}");
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
        assert_eq!(load(line).status.code(), Some(2), "{line}");
    }
}
