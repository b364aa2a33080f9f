//! What becomes of calls that stand open, that are refused, and that nobody answers: how they are counted, and what a search makes of it.

use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_strowger-load");

/// A relay between callers and answerers that refuses the INVITEs that its judge does not let pass.
struct Server {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn header<'a>(message: &'a str, name: &str) -> &'a str {
    let mut lines = message.split("\r\n").skip(1);
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_else(|| panic!("no {name} in {message}"))
}

fn refusal(request: &str, status: &str) -> String {
    let copied: String =
        ["Via", "From", "Call-ID", "CSeq"].iter().map(|name| format!("{name}: {}\r\n", header(request, name))).collect();
    let to = header(request, "To");
    format!("SIP/2.0 {status}\r\n{copied}To: {to};tag=t\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")
}

impl Server {
    /// The judge says with what an INVITE is answered that does not pass. A provisional response comes beside what the answerer says.
    fn start(host: &str, mut judge: impl FnMut() -> Option<&'static str> + Send + 'static) -> Server {
        let socket = UdpSocket::bind(format!("{host}:25060")).expect("a free port");
        let patience = Some(Duration::from_millis(50));
        socket.set_read_timeout(patience).expect("a time-out");
        let at = |port: u16| -> SocketAddr { format!("{host}:{port}").parse().expect("an address") };
        let (caller, answerer) = (at(15070), at(15570));
        let over = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            let mut refused: HashSet<String> = HashSet::new();
            while !shared.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                let message = std::str::from_utf8(&buffer[..length]).expect("text");
                let call = header(message, "Call-ID").to_owned();
                if message.starts_with("INVITE ")
                    && let Some(status) = judge()
                {
                    let response = refusal(message, status);
                    socket.send_to(response.as_bytes(), from).expect("sent");
                    if !status.starts_with('1') {
                        refused.insert(call);
                        continue;
                    }
                }
                if message.starts_with("ACK ") && refused.remove(&call) {
                    continue;
                }
                let to = match from == caller {
                    true => answerer,
                    false => caller,
                };
                socket.send_to(&buffer[..length], to).expect("sent");
            }
        });
        Server { over, thread: Some(thread) }
    }
}

fn load(host: &str, line: &str) -> (Value, Output) {
    let output = Command::new(BINARY)
        .arg("call")
        .args(line.split_whitespace())
        .args(["--server", &format!("{host}:25060")])
        .args(["--local", &format!("{host}:0"), "--floor"])
        .args(["--wait", "sleep", "--json", "-"])
        .output()
        .expect("generator");
    let results: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (results[0].clone(), output)
}

fn count(result: &Value, name: &str) -> u64 {
    result["counts"][name].as_u64().expect("a count")
}

fn failed(result: &Value) -> f64 {
    result["failed_share"].as_f64().expect("a share")
}

fn spans(result: &Value, name: &str) -> u64 {
    result["latency_us"][name]["count"].as_u64().unwrap_or(0)
}

#[test]
fn calls_ring_and_stand_open_as_long_as_asked_and_end_well() {
    let _server = Server::start("127.1.3.1", || None);
    let line = "--rate 100 --duration 1.5 --ring 0.2 --hold 0.8 --settle 0";
    let (result, output) = load("127.1.3.1", line);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(result["clean"], true, "{result:#}\n{said}");
    // Those of the last second still stood open at the end, and ended in the drain.
    let scheduled = count(&result, "scheduled");
    assert!((149..=151).contains(&scheduled), "{scheduled}");
    let open = result["outstanding_at_end"].as_u64().expect("a number");
    assert!((95..=110).contains(&open), "{open}");
    assert_eq!(result["good"], scheduled);
    assert_eq!(failed(&result), 0.0);
    assert_eq!(spans(&result, "whole"), scheduled);
    let shortest = result["latency_us"]["whole"]["min"].as_f64().expect("µs");
    // Three digits of it are kept.
    assert!((998_000.0..1_500_000.0).contains(&shortest), "{shortest}");
    let [rang, answered] = ["to_180", "to_200"].map(|span| result["latency_us"][span]["p50"].as_f64().expect("µs"));
    assert!(rang < 150_000.0, "{rang}");
    assert!((199_000.0..500_000.0).contains(&answered), "{answered}");
}

#[test]
fn refused_calls_fail_and_have_latencies_of_their_own() {
    let mut number = 0;
    let _server = Server::start("127.1.3.2", move || {
        number += 1;
        match number % 4 {
            0 => Some("503 Service Unavailable"),
            1 => Some("404 Not Found"),
            _ => None,
        }
    });
    let (result, output) = load("127.1.3.2", "--window 4 --count 400 --settle 0");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(count(&result, "refused"), 200, "{result:#}");
    assert_eq!(count(&result, "refused_503"), 100);
    assert_eq!(count(&result, "refused_4xx"), 100);
    assert_eq!(count(&result, "completed"), 200);
    assert_eq!(count(&result, "wrong"), 0);
    assert_eq!(result["good"], 200);
    assert_eq!(failed(&result), 0.5);
    for span in ["to_180", "to_200", "bye_to_200", "whole", "to_refusal"] {
        assert_eq!(spans(&result, span), 200, "{span}: {result:#}");
    }
}

#[test]
fn a_call_in_which_something_was_wrong_has_failed_though_it_ended() {
    let mut number = 0;
    let _server = Server::start("127.1.3.6", move || {
        number += 1;
        // Its To tag is not the answerer's.
        (number % 10 == 0).then_some("183 Session Progress")
    });
    let (result, output) = load("127.1.3.6", "--window 4 --count 200 --settle 0");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(count(&result, "wrong"), 20, "{result:#}");
    assert_eq!(count(&result, "completed"), 200);
    assert_eq!(result["good"], 180);
    assert_eq!(spans(&result, "whole"), 180);
}

#[test]
fn calls_that_nobody_answers_or_that_were_never_begun_have_failed() {
    // Nobody listens there, and no more than 20 may be outstanding.
    let line = "--rate 100 --duration 1 --drain 0.2 --max-outstanding 20 --settle 0";
    let (result, output) = load("127.1.3.3", line);
    assert_eq!(output.status.code(), Some(1));
    let scheduled = count(&result, "scheduled");
    assert!((99..=101).contains(&scheduled), "{scheduled}");
    assert_eq!(count(&result, "skipped"), scheduled - 20);
    assert_eq!(result["good"], 0);
    assert_eq!(failed(&result), 1.0);
    assert_eq!(result["generator_bound"], true);
    let because = result["generator_bound_because"].as_str().expect("why");
    assert!(because.contains("never begun"), "{because}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("GENERATOR BOUND: "), "{said}");
}

#[test]
fn where_nobody_answers_the_first_registration_the_others_are_not_tried() {
    let silent = UdpSocket::bind("127.1.3.5:25060").expect("a free port");
    let began = Instant::now();
    let output = Command::new(BINARY)
        .args(
            "call --server 127.1.3.5:25060 --register-server 127.1.3.5:25060 --local 127.1.3.5:0 --register-first --duration 1"
                .split(' '),
        )
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("the first of 10000 users could not be registered within 10 s"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(100), "{said}");
    drop(silent);
}

#[test]
fn a_search_finds_the_rate_at_which_too_many_fail() {
    // It lets 200 calls a second pass and refuses the others.
    let mut last = Instant::now();
    let mut tokens = 0.0;
    let _server = Server::start("127.1.3.4", move || {
        tokens = f64::min(tokens + last.elapsed().as_secs_f64() * 200.0, 10.0);
        last = Instant::now();
        if tokens < 1.0 {
            return Some("503 Service Unavailable");
        }
        tokens -= 1.0;
        None
    });
    let line = "--search-failures 0.04 --search-from 300 --search-step 1.5 --settle 0.2 --duration 1 --search-resolution 0.04";
    let (result, output) = load("127.1.3.4", line);
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
    // Standard error is no terminal here: a plain line for each rate.
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.matches("% failed").count(), tried.len() + 1, "{said}");
}

struct Relay(Child);

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn each_rate_has_a_result_of_its_own() {
    let host = "127.1.3.5";
    let server = format!("{host}:25060");
    let _relay = Relay(Command::new(BINARY).args(["relay", "--listen", &server]).stdout(Stdio::null()).spawn().expect("relay"));
    while UdpSocket::bind(&server).is_ok() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = Command::new(BINARY)
        .args(["call", "--rate", "50,100,200", "--duration", "1"])
        .args(["--server", &server, "--local", &format!("{host}:0")])
        .args(["--floor", "--settle", "0", "--wait", "sleep", "--json", "-"])
        .output()
        .expect("generator");
    let results: Value = serde_json::from_slice(&output.stdout).expect("results");
    let good: Vec<u64> = (0..3).map(|at| results[at]["good"].as_u64().expect("a number")).collect();
    for (good, rate) in good.iter().zip([50, 100, 200]) {
        assert!(good.abs_diff(rate) <= 1, "{good} of {rate}");
    }
}
