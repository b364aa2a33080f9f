//! What runs out is said and survived: whoever reads the log, the log's disk, descriptors, memory; and a clock that is wrong.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::agent::{Agent, unique};
use crate::failures::assert_call_works;
use crate::message::Message;
use crate::place::{CALLEE, CALLER, Place, SERVER, STRANGER, wait_for};
use crate::process;
use crate::server::{Conf, Server};

const PATIENCE: Duration = Duration::from_secs(20);

/// What the log says when lines found no room.
const LOST: &str = "lines of the log are lost here";

/// So that a pipe opens before anybody writes to it.
const O_NONBLOCK: i32 = 0o4000;

fn command(place: &Place, program: &str, arguments: &[&str]) -> String {
    let outcome = process::run(place, program, Path::new(program), arguments, PATIENCE);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    outcome.stdout
}

/// Has a stranger send ACKs of no call, each of which is a line of the log at level "debug", until the server has lost some lines.
fn lose_lines(place: &Place, server: &Server) {
    let lost = || server.stat(place, "strowger_log_lines_lost_total");
    let before = lost();
    let stranger = Agent::new(place.at_port(STRANGER, 0), server.address);
    server.bind(place, "echo", stranger.address);
    let ack = stranger.request("ACK", &server.uri("echo")).bytes();
    let is_lost = wait_for(Duration::from_secs(60), || {
        for _ in 0..500 {
            stranger.send_bytes(&ack);
        }
        (lost() > before).then_some(())
    });
    assert!(is_lost.is_some(), "no line is lost:\n{:.3000}", server.log());
}

fn descriptor(server: &Server, number: u32) -> String {
    let link = fs::read_link(format!("/proc/{}/fd/{number}", server.id()));
    link.map_or(String::new(), |path| path.display().to_string())
}

/// It ends within seconds although what it has logged cannot be written.
fn stop(server: Server) {
    server.signal("TERM");
    let outcome = server.finish(PATIENCE);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
}

#[test]
fn a_reader_of_the_log_that_stops_holds_nobody_up() {
    let place = Place::new("logpipe");
    let pipe = place.path("log").display().to_string();
    command(&place, "mkfifo", &[&pipe]);
    let mut reader = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(&pipe).expect("the pipe");
    let script = format!("exec \"$@\" 2>{pipe}");
    let mut server = Conf::new(&place).set("log", "level", "\"debug\"").start_by(&place, &script);
    lose_lines(&place, &server);
    server.assert_alive(&place, CALLER);
    assert_call_works(&place, &server, "bob", 5080);
    assert!(server.stat(&place, "strowger_long_turns_total") < 1.0);
    // It is read again.
    let mut text = Vec::new();
    let heard = wait_for(PATIENCE, || {
        let mut piece = [0; 65536];
        while let Ok(count @ 1..) = reader.read(&mut piece) {
            text.extend_from_slice(&piece[..count]);
        }
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().find(|line| line.contains(LOST));
        line.map(str::to_owned)
    });
    let line = heard.expect("the line that tells of lost ones");
    assert!(line.contains("WARN"), "{line}");
    let text = String::from_utf8_lossy(&text);
    assert!(text.starts_with('['), "{text:.200}");
    // Read no more; and at the end nobody waits for long.
    lose_lines(&place, &server);
    let begin = Instant::now();
    stop(server);
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_reader_of_the_log_that_is_gone_ends_nothing() {
    let place = Place::new("loggone");
    // The reader reads one line and goes.
    let fifo = place.path("log").display().to_string();
    command(&place, "mkfifo", &[&fifo]);
    let script = format!("head -n 1 {fifo} >/dev/null & exec \"$@\" 2>{fifo}");
    let mut server = Conf::new(&place).set("log", "level", "\"debug\"").start_by(&place, &script);
    lose_lines(&place, &server);
    server.assert_alive(&place, CALLER);
    assert_call_works(&place, &server, "bob", 5080);
    stop(server);
}

#[test]
fn closed_and_full_descriptors_at_the_start_end_nothing() {
    for (script, out, error) in [
        ("exec \"$@\" <&- >&- 2>&-", "/dev/null", "/dev/null"),
        ("exec \"$@\" >/dev/full 2>/dev/full", "/dev/full", "/dev/full"),
        ("exec \"$@\" >&-", "/dev/null", ""),
    ] {
        let place = Place::new("closed");
        let mut server = Conf::new(&place).set("log", "level", "\"debug\"").start_unheard(&place, script);
        // No socket and no database has got a number that somebody prints to.
        assert_eq!(descriptor(&server, 1), out, "{script}");
        let second = descriptor(&server, 2);
        match error {
            "" => assert!(second.ends_with(".err"), "{second}"),
            error => assert_eq!(second, error, "{script}"),
        }
        server.assert_alive(&place, CALLER);
        assert_call_works(&place, &server, "bob", 5080);
        if error == "/dev/full" {
            lose_lines(&place, &server);
        }
        stop(server);
    }
}

#[test]
fn a_standard_output_that_nobody_reads_ends_nothing() {
    let place = Place::new("nobody");
    let fifo = place.path("out").display().to_string();
    command(&place, "mkfifo", &[&fifo]);
    let reader = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(&fifo).expect("the pipe");
    let mut filler = OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(&fifo).expect("the pipe");
    while filler.write(&[b'x'; 4096]).is_ok() {}
    let server = Conf::new(&place).start_unheard(&place, &format!("exec \"$@\" >{fifo}"));
    server.expect_log(&["standard output did not take the lines"]);
    assert_call_works(&place, &server, "bob", 5080);
    stop(server);
    drop(reader);
}

/// A file that may not grow is to the log a disk that is full: it goes on where room is made.
#[test]
fn a_full_disk_under_the_log_loses_lines_and_says_how_many() {
    let place = Place::new("logfull");
    let mut server =
        Conf::new(&place).set("log", "level", "\"debug\"").set("registrar", "database", "\"\"").start_limited(&place, 64);
    lose_lines(&place, &server);
    server.assert_alive(&place, CALLER);
    assert_call_works(&place, &server, "bob", 5080);
    assert!(!server.log().contains(LOST));
    let pid = server.id().to_string();
    command(&place, "prlimit", &["--pid", &pid, "--fsize=unlimited"]);
    let line = server.expect_log_within(PATIENCE, &[LOST]);
    assert!(line.contains("File too large"), "{line}");
    // All lines are whole, and none is missing but where that is said.
    let log = server.log();
    let torn = log.lines().find(|line| !line.starts_with("[20"));
    assert_eq!(torn, None);
    stop(server);
}

#[test]
fn a_panic_or_a_fatal_error_is_the_last_line_of_the_log() {
    let place = Place::new("fatal");
    let server = Conf::new(&place).start(&place);
    let file = place.path("strowger.toml").display().to_string();
    // With a database of its own, so that it is the port that it cannot have.
    let other = fs::read_to_string(&file).expect("the conf") + "\n[registrar]\ndatabase = \"\"\n";
    let other = place.write("other.toml", &other).display().to_string();
    let outcome = server.command(&place, &["run", "-c", &other]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let last = outcome.stderr.lines().last().unwrap_or_default();
    assert!(last.contains("Address already in use") || last.contains("in use"), "{outcome:?}");
    assert!(outcome.stderr.starts_with('['), "{outcome:?}");
    stop(server);
}

// ---- the clock ---------------------------------------------------------------------------------------------------------

/// A wall clock that a test sets: a library that the server is started with.
pub struct Clock {
    library: String,
    file: String,
}

const YEAR_S: i64 = 365 * 86_400;

impl Clock {
    pub fn new(place: &Place) -> Clock {
        let library = preloadable(place, include_str!("clock.c"));
        let file = place.path("shift").display().to_string();
        let clock = Clock { library, file };
        clock.set(0);
        clock
    }

    /// So many seconds from the right time.
    pub fn set(&self, seconds: i64) {
        let draft = format!("{}.new", self.file);
        fs::write(&draft, seconds.to_string()).expect("written");
        fs::rename(&draft, &self.file).expect("renamed");
    }

    pub fn start(&self, place: &Place, conf: &Conf) -> Server {
        let environment = [("LD_PRELOAD", self.library.as_str()), ("CLOCK_SHIFT", self.file.as_str())];
        conf.start_with(place, &environment)
    }
}

/// Builds a library that a server can be started with (`LD_PRELOAD`).
pub fn preloadable(place: &Place, source: &str) -> String {
    let source = place.write("preloaded.c", source).display().to_string();
    let library = place.path("preloaded.so").display().to_string();
    command(place, "cc", &["-shared", "-fPIC", "-O1", "-o", &library, &source]);
    library
}

/// For how many seconds a user's contact is bound, as the server tells.
fn remaining(place: &Place, server: &Server, user: &str) -> Option<u64> {
    let outcome = server.show(place, user);
    outcome.stdout.split_whitespace().filter_map(|word| word.trim_end_matches('s').parse().ok()).next()
}

fn register(place: &Place, server: &Server, user: &str) {
    let phone = Agent::new(place.at_port(CALLEE, 0), server.address);
    let contact = format!("<sip:{user}@{}>", phone.address);
    let register = phone.register(&server.address.to_string(), user, &contact, 600);
    assert_eq!(phone.ask(&register).status(), Some(200));
}

fn assert_bound(place: &Place, server: &Server, users: &[&str]) {
    for user in users {
        let outcome = server.show(place, user);
        assert_eq!(outcome.code, Some(0), "{user}: {outcome:?}\n{}", server.log());
        let left = remaining(place, server, user).unwrap_or_default();
        assert!((500..=600).contains(&left), "{user}: {outcome:?}");
    }
}

#[test]
fn a_clock_that_is_put_right_takes_no_binding() {
    for durability in ["batched", "acknowledged"] {
        for wrong in [-56 * YEAR_S, 14 * YEAR_S] {
            let place = Place::new("clock");
            let clock = Clock::new(&place);
            let conf = Conf::new(&place).set("registrar", "durability", &format!("{durability:?}"));
            clock.set(wrong);
            let server = clock.start(&place, &conf);
            register(&place, &server, "before");
            // NTP has found its servers.
            clock.set(0);
            server.expect_log(&["the clock was set by", "years"]);
            register(&place, &server, "after");
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
            let started = server.stat(&place, "process_start_time_seconds");
            assert!((now.as_secs_f64() - started).abs() < 60.0, "{started}");
            assert_bound(&place, &server, &["before", "after"]);
            stop(server);
            let server = clock.start(&place, &conf);
            assert_bound(&place, &server, &["before", "after"]);
            // Set while the server is down, in either direction, and by less than anybody could guess.
            stop(server);
            for shift in [7_200, -56 * YEAR_S, 14 * YEAR_S, 0] {
                clock.set(shift);
                let server = clock.start(&place, &conf);
                server.expect_log(&["the clock was set by", "since the bindings were written"]);
                assert_bound(&place, &server, &["before", "after"]);
                stop(server);
            }
        }
    }
}

// ---- descriptors, memory, signals --------------------------------------------------------------------------------------

#[test]
fn without_descriptors_the_server_waits_and_goes_on() {
    let place = Place::new("files");
    let metrics = place.at_port(SERVER, 9090);
    let address = place.at(SERVER);
    let mut server = Conf::new(&place).stream("tcp", address).set("metrics", "address", &format!("\"{metrics}\"")).start(&place);
    let open = |to: SocketAddr| {
        let stream = TcpStream::connect(to).expect("the kernel takes it");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out");
        stream
    };
    // From now on it may have ten more.
    let pid = server.id().to_string();
    let held = fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").count();
    let limit = format!("--nofile={}:", held + 10);
    command(&place, "prlimit", &["--pid", &pid, &limit]);
    // Of one each from many sources none gives way.
    let connections: Vec<Agent> = (100..140).map(|host| Agent::tcp(place.ip(host), address)).collect();
    server.expect_log(&["none can be accepted", "Too many open files", "ulimit -n"]);
    let scrapers: Vec<TcpStream> = (0..4).map(|_| open(metrics)).collect();
    server.expect_log(&["metrics: cannot accept", "Too many open files"]);
    // The thread that waits for operators has a descriptor for the next one. Who comes while that is taken waits.
    let operator = server.command(&place, &["stats"]);
    assert_eq!(operator.code, Some(0), "{operator:?}");
    let operators: Vec<UnixStream> =
        (0..2).map(|_| UnixStream::connect(place.path("control.sock")).expect("the kernel takes it")).collect();
    server.expect_log(&["control socket: cannot accept", "Too many open files"]);
    let before = (cpu(&server), server.log().len());
    std::thread::sleep(Duration::from_secs(4));
    let used = cpu(&server) - before.0;
    assert!(used < Duration::from_secs(1), "{used:?} of CPU in 4 s");
    let log = server.log()[before.1..].to_owned();
    for words in ["none can be accepted", "metrics: cannot accept"] {
        let told = log.matches(words).count();
        assert!((1..=5).contains(&told), "{words}: {told} times:\n{log}");
    }
    // What needs no descriptor goes on.
    server.assert_alive(&place, CALLER);
    drop((connections, scrapers, operators));
    let again = wait_for(PATIENCE, || {
        let outcome = server.command(&place, &["stats"]);
        (outcome.code == Some(0)).then_some(())
    });
    assert!(again.is_some(), "the control socket:\n{}", server.log());
    let phone = Agent::tcp(place.ip(CALLEE), address);
    let options = phone.request("OPTIONS", &format!("sip:{address}"));
    assert_eq!(phone.ask(&options).status(), Some(200));
    let mut scraper = open(metrics);
    scraper.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("it listens");
    let mut text = String::new();
    scraper.read_to_string(&mut text).expect("an answer");
    assert!(text.contains("strowger_log_lines_lost_total 0"), "{text:.300}");
    assert!(server.stat(&place, "strowger_connections_accept_errors_total") > 0.0);
    stop(server);
}

/// CPU time of the process.
fn cpu(server: &Server) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.id())).expect("stat");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|n| n.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// The flood would take more than there is: the limits that follow from the address space answer it.
#[test]
fn an_address_space_that_is_short_is_answered_503_and_no_abort() {
    let place = Place::new("space");
    let mut server = Conf::new(&place)
        .set("registrar", "database", "\"\"")
        .set("limits", "overload", "\"0s\"")
        // One source has no more than its share, unless it is trusted.
        .set("limits", "trusted_sources", "[\"127.0.0.0/8\"]")
        .start_by(&place, "ulimit -v 600000; exec \"$@\"");
    let silent = Agent::new(place.at(CALLEE), server.address);
    server.bind(&place, "bob", silent.address);
    let caller = Agent::new(place.at(CALLER), server.address);
    let domain = server.address.to_string();
    let hits = |limit: &str| {
        let name = format!("strowger_limit_hits_total{{limit={limit:?}}}");
        server.stats(&place)[&name]
    };
    let mut refused = 0;
    let reached = wait_for(Duration::from_secs(90), || {
        for _ in 0..20 {
            let mut invite = caller.request("INVITE", &server.uri("bob"));
            invite.body = vec![b'b'; 50_000];
            caller.send(&invite);
        }
        for _ in 0..500 {
            let user = format!("u{}", unique());
            let contact = format!("<sip:{user}{}@192.0.2.1>", "x".repeat(900));
            caller.send(&caller.register(&domain, &user, &contact, 3600));
        }
        let heard = caller.collect(Duration::from_millis(20));
        caller.forget();
        silent.forget();
        let is_503 = |message: &&Message| message.status() == Some(503);
        refused += heard.iter().filter(is_503).count();
        (hits("bindings") > 0.0 && hits("transaction_bytes") > 0.0).then_some(())
    });
    println!(
        "{} kB in memory, {refused} answers 503, {} bindings",
        server.resident_kib(),
        server.stat(&place, "strowger_bindings")
    );
    assert!(reached.is_some(), "not reached:\n{}", server.log());
    assert!(refused > 0);
    server.assert_alive(&place, SERVER + 7);
    // Requests still wait for the phone: it ends at once.
    server.signal("INT");
    let outcome = server.finish(PATIENCE);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
}

/// A control group of its own below this process's; it is gone when this is dropped.
struct Group(PathBuf);

impl Group {
    /// `None` if this machine lets nobody make one.
    fn new(name: &str, bytes: u64) -> Option<Group> {
        let name = format!("strowger-test-{name}-{}", std::process::id());
        for (hierarchy, limit) in [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")] {
            if !Path::new(hierarchy).join("cgroup.procs").exists() {
                continue;
            }
            let group = Group(Path::new(hierarchy).join(&name));
            let made = fs::create_dir(&group.0).and_then(|()| fs::write(group.0.join(limit), bytes.to_string()));
            if made.is_ok() {
                return Some(group);
            }
        }
        None
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = wait_for(Duration::from_secs(5), || fs::remove_dir(&self.0).is_ok().then_some(()));
    }
}

/// The limits that follow from memory are those of the server's own group, and what fills the table counts by what it holds, be it
/// the contact or the address: it is refused before the kernel ends the server.
#[test]
fn a_control_group_that_is_full_is_answered_503_and_no_end() {
    let Some(group) = Group::new("bindings", 48 << 20) else {
        println!("nothing is tested: this machine lets nobody make a control group");
        return;
    };
    let join = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", group.0.display());
    for (user, contact) in [(20, 30), (20, 900), (900, 30)] {
        let place = Place::new(&format!("group{user}-{contact}"));
        let mut server = Conf::new(&place)
            .set("limits", "trusted_sources", "[\"127.0.0.0/8\"]")
            .set("limits", "overload", "\"0s\"")
            .start_by(&place, &join);
        let caller = Agent::new(place.at(CALLER), server.address);
        let domain = server.address.to_string();
        let full = wait_for(Duration::from_secs(90), || {
            for _ in 0..16 {
                let name = format!("u{}", unique());
                let name = format!("{name}{}", "x".repeat(user));
                let uri = format!("<sip:x{}@192.0.2.1>", "y".repeat(contact));
                caller.send(&caller.register(&domain, &name, &uri, 3600));
            }
            let heard = caller.collect(Duration::from_millis(2));
            caller.forget();
            heard.iter().any(|message| message.status() == Some(503)).then_some(())
        });
        let bindings = server.stat(&place, "strowger_bindings");
        println!("user {user}, contact {contact}: {bindings} bindings, {} kB in memory", server.resident_kib());
        assert!(full.is_some(), "not full:\n{}", server.log());
        // A quarter of the memory, by 512 bytes for each, or for each 320 bytes of its text.
        let most = f64::from(48 << 20) / 4.0 / 512.0;
        assert!(bindings <= most && bindings > most / 8.0, "{bindings} of {most}");
        // What the journal writes and the kernel keeps of it must find room, too.
        std::thread::sleep(Duration::from_secs(3));
        server.assert_alive(&place, SERVER + 7);
        stop(server);
    }
}

/// An operator's script that has gone wrong: reloads fall together, and calls go on beside them.
#[test]
fn two_thousand_reloads_a_second_harm_no_call() {
    let place = Place::new("hups");
    let server = Conf::new(&place).start(&place);
    let script = format!("i=0; while [ $i -lt 300000 ]; do kill -s HUP {} || exit 1; i=$((i+1)); done", server.id());
    let begin = Instant::now();
    let mut flood = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).spawn().expect("a shell");
    let mut calls = 0;
    while flood.try_wait().expect("its state").is_none() {
        assert_call_works(&place, &server, &format!("bob{calls}"), 6000 + calls);
        calls += 1;
        assert!(begin.elapsed() < Duration::from_secs(60), "{calls} calls");
    }
    let rate = 300_000.0 / begin.elapsed().as_secs_f64();
    println!("{rate:.0} signals a second, {calls} calls beside them");
    assert!(flood.wait().is_ok_and(|status| status.success()));
    assert!(rate > 2000.0, "only {rate} a second");
    assert!(calls > 3, "{calls} calls");
    assert_call_works(&place, &server, "last", 5999);
    stop(server);
}
