//! Floods of connections: one source that takes all it can get, and others that are served all the same.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::agent::{Agent, Request};
use crate::line::End;
use crate::pki::{Authority, Kind};
use crate::place::{CALLEE, CALLER, Place, SECOND_CALLEE, SERVER, STRANGER, wait_for};
use crate::server::{Conf, Server};
use crate::tls_server::hello;

const NAME: &str = "sip.example.test";

fn conf(place: &Place) -> (Conf, Authority) {
    let authority = Authority::new(place, "ca");
    let certificate = authority.issue(place, "server", Kind::Ecdsa, &[NAME]);
    let conf = Conf::new(place).stream("tcp", place.at(SERVER)).tls(place, &[&certificate]);
    (conf, authority)
}

fn options(agent: &Agent, server: &Server) -> Request {
    agent.request("OPTIONS", &format!("sip:{}", server.address))
}

fn assert_ok(agent: &Agent, server: &Server) {
    let answer = agent.ask(&options(agent, server));
    assert_eq!(answer.status(), Some(200), "{answer:?}");
}

fn limit_hits(place: &Place, server: &Server, limit: &str) -> f64 {
    server.stats(place)[&format!("strowger_limit_hits_total{{limit=\"{limit}\"}}")]
}

/// Connections of one source that say nothing, or begin a handshake and say nothing more: they do not keep others from theirs, and when they
/// have stalled for a while those of the same source come in, too.
#[test]
fn handshakes_of_one_source_that_stall() {
    let place = Place::new("stall");
    let hello = hello(&place);
    let (conf, authority) = conf(&place);
    let server = conf.set("connections", "handshakes", "16").set("connections", "handshake_timeout", "\"60s\"").start(&place);
    let silent = |_| Agent::tcp(place.ip(STRANGER), server.secure());
    let mut held: Vec<Agent> = (0..100).map(silent).collect();
    for begins in [false, true] {
        if begins {
            for _ in 0..24 {
                let agent = silent(0);
                agent.send_bytes(&hello);
                held.push(agent);
            }
            server.expect_log(&["WARN", "TLS clients wait", "[connections] handshakes"]);
        }
        for number in 0..20 {
            let began = Instant::now();
            let from = place.ip([CALLER, CALLEE, SECOND_CALLEE][number % 3]);
            let other = Agent::tls(from, server.secure(), &authority, NAME, None);
            assert_ok(&other, &server);
            let took = began.elapsed();
            assert!(took < Duration::from_millis(900), "{number}: after {took:?}");
        }
    }
    let stats = server.stats(&place);
    let in_hand = stats["strowger_connections{transport=\"tls\",state=\"handshaking\"}"];
    assert_eq!(in_hand, 8.0, "half of the limit is what one source gets");
    assert!(limit_hits(&place, &server, "tls_handshakes") >= 1.0);
    // Behind the same address somebody means it: what has not moved for a second gives way, eight in a turn.
    let began = Instant::now();
    let mine = Agent::tls(place.ip(STRANGER), server.secure(), &authority, NAME, None);
    assert_ok(&mine, &server);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(20), "after {took:?}");
    assert!(limit_hits(&place, &server, "tls_stalled") >= 8.0);
    server.expect_log(&["its TLS handshake has stalled and others wait"]);
    drop(held);
}

/// A burst of clients behind one address is worked off where nobody else waits, whatever the limit.
#[test]
fn a_burst_behind_one_address_is_worked_off() {
    let place = Place::new("burst");
    let (conf, authority) = conf(&place);
    let server = conf.set("connections", "handshakes", "8").start(&place);
    let (server, authority, from) = (&server, &authority, place.ip(CALLER));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(move || {
                for _ in 0..25 {
                    let agent = Agent::tls(from, server.secure(), authority, NAME, None);
                    assert_ok(&agent, server);
                }
            });
        }
    });
    let full = server.stats(&place)["strowger_tls_handshakes_total{side=\"server\",kind=\"failed\"}"];
    assert_eq!(full, 0.0);
}

/// All places are taken by one source: a new connection of another takes the place of one of these, first of those that have brought nothing.
#[test]
fn one_source_takes_all_places() {
    let place = Place::new("places");
    let (conf, authority) = conf(&place);
    let server = conf.set("connections", "max", "12").start(&place);
    let taker = |_| Agent::tcp(place.ip(STRANGER), server.address);
    let useful: Vec<Agent> = (0..4).map(taker).collect();
    useful.iter().for_each(|agent| assert_ok(agent, &server));
    let silent: Vec<Agent> = (0..8).map(taker).collect();
    let all = wait_for(Duration::from_secs(2), || (server.stat(&place, "strowger_connections") == 12.0).then_some(()));
    assert!(all.is_some());
    // It does not make room for itself.
    let more = taker(0);
    assert!(more.end(Duration::from_secs(5)).is_some());
    assert_eq!(limit_hits(&place, &server, "connections"), 1.0);
    assert_eq!(limit_hits(&place, &server, "connections_of_source"), 0.0);
    let mut others = Vec::new();
    for number in 0..5 {
        let from = place.ip([CALLER, CALLEE][number % 2]);
        let other = match number {
            2 => Agent::tls(from, server.secure(), &authority, NAME, None),
            _ => Agent::tcp(from, server.address),
        };
        assert_ok(&other, &server);
        assert!(silent[number].end(Duration::from_secs(2)).is_some(), "the oldest silent one");
        others.push(other);
    }
    assert_eq!(limit_hits(&place, &server, "connections_of_source"), 5.0);
    let line = server.expect_log(&["closed: all places for connections are taken", "trusted_sources"]);
    assert!(line.contains(&place.ip(STRANGER).to_string()), "{line}");
    for agent in others.iter().chain(&useful) {
        assert_ok(agent, &server);
    }
    drop(silent);
}

/// What is trusted stands for many: it gives its places to nobody.
#[test]
fn a_trusted_source_gives_way_to_nobody() {
    let place = Place::new("trusted-places");
    let (conf, _) = conf(&place);
    let trusted = format!("[\"{}\"]", place.ip(STRANGER));
    let server = conf.set("connections", "max", "4").set("limits", "trusted_sources", &trusted).start(&place);
    let gateway: Vec<Agent> = (0..4).map(|_| Agent::tcp(place.ip(STRANGER), server.address)).collect();
    gateway.iter().for_each(|agent| assert_ok(agent, &server));
    let other = Agent::tcp(place.ip(CALLER), server.address);
    assert!(other.end(Duration::from_secs(5)).is_some());
    gateway.iter().for_each(|agent| assert_ok(agent, &server));
}

/// Pings are answered, are counted as requests, and have a bound.
#[test]
fn pings_have_a_bound() {
    let place = Place::new("ping-flood");
    let (conf, _) = conf(&place);
    let server = conf.set("connections", "keep_alive_bytes", "\"256B\"").start(&place);
    for blank in [&b"\r\n\r\n"[..], b"\r\n", b"\n\n\n", b"\0\0"] {
        let agent = Agent::tcp(place.ip(CALLER), server.address);
        for _ in 0..3 {
            (0..20).for_each(|_| agent.send_bytes(blank));
            assert_ok(&agent, &server);
        }
        for _ in 0..400 {
            if !agent.try_send(blank) {
                break;
            }
        }
        assert!(agent.end(Duration::from_secs(5)).is_some(), "{blank:?}");
    }
    assert_eq!(limit_hits(&place, &server, "keep_alive_bytes"), 4.0);
    server.expect_log(&["more than 256 bytes of keep-alives", "keep_alive_bytes"]);

    let place = Place::new("ping-counted");
    let (conf, _) = self::conf(&place);
    let server = conf.set("limits", "requests_per_source", "40").start(&place);
    let mut stream = Agent::tcp(place.ip(CALLER), server.address).stream();
    stream.write_all(&b"\r\n\r\n".repeat(100)).expect("pings");
    stream.set_read_timeout(Some(Duration::from_millis(500))).expect("a time-out");
    let (mut pongs, mut some) = (0, [0; 512]);
    while let Ok(count @ 1..) = stream.read(&mut some) {
        pongs += count / 2;
    }
    assert!((40..=45).contains(&pongs), "{pongs} of 100");
}

/// Half messages hold no more memory than they may together; those that are whole go through beside them.
#[test]
fn messages_that_are_never_whole_have_a_bound() {
    let place = Place::new("halves");
    let (conf, authority) = conf(&place);
    let server = conf.set("connections", "unfinished_bytes", "\"1MiB\"").start(&place);
    let mut half = b"OPTIONS sip:a SIP/2.0\r\nSubject: ".to_vec();
    half.resize(60_000, b'x');
    let held: Vec<Agent> = (0..60)
        .map(|number| {
            let from = place.ip(STRANGER);
            let agent = match number % 4 {
                0 => Agent::tls(from, server.secure(), &authority, NAME, None),
                _ => Agent::tcp(from, server.address),
            };
            agent.try_send(&half);
            agent
        })
        .collect();
    let other = Agent::tcp(place.ip(CALLER), server.address);
    let mut request = options(&other, &server);
    request.body = vec![b'x'; 20_000];
    for piece in request.bytes().chunks(4_000) {
        other.send_bytes(piece);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(other.final_for(&request).status(), Some(200));
    let bytes = server.stat(&place, "strowger_unfinished_bytes");
    assert!((300_000.0..=1_048_576.0).contains(&bytes), "{bytes}");
    let closed = limit_hits(&place, &server, "unfinished_bytes");
    assert!(closed >= 30.0, "{closed}");
    server.expect_log(&["incomplete messages hold more than", "unfinished_bytes"]);
    drop(held);
    let gone = wait_for(Duration::from_secs(5), || (server.stat(&place, "strowger_unfinished_bytes") == 0.0).then_some(()));
    assert!(gone.is_some());
    assert_ok(&other, &server);
}

/// A sender of something that never becomes a message is no reason to refuse calls of others.
#[test]
fn half_messages_at_full_speed_refuse_nobody_else() {
    let place = Place::new("rush");
    let (conf, _) = conf(&place);
    let server = conf.set("connections", "keep_alive_bytes", "\"64MiB\"").set("limits", "overload", "\"20ms\"").start(&place);
    let deadline = Instant::now() + Duration::from_secs(4);
    let (address, from) = (server.address, place.ip(STRANGER));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(move || {
                let blank = b"\n".repeat(1 << 16);
                while Instant::now() < deadline {
                    let mut stream = Agent::tcp(from, address).stream();
                    let _ = stream.set_write_timeout(Some(Duration::from_secs(2)));
                    while Instant::now() < deadline && stream.write_all(&blank).is_ok() {}
                }
            });
        }
        let other = Agent::new(place.at(CALLER), server.address);
        let mut asked = 0;
        while Instant::now() < deadline {
            assert_ok(&other, &server);
            asked += 1;
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(asked > 50, "{asked} in four seconds");
    });
    assert_eq!(limit_hits(&place, &server, "overload"), 0.0);
}

// ---- out of descriptors --------------------------------------------------------------------------------------------------

fn descriptors(server: &Server) -> usize {
    let list = std::fs::read_dir(format!("/proc/{}/fd", server.id()));
    list.expect("the server's descriptors").count()
}

fn cpu_ticks(server: &Server) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", server.id())).expect("its times");
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split(' ').collect();
    fields[12..14].iter().filter_map(|field| field.parse::<u64>().ok()).sum()
}

fn allow_descriptors(server: &Server, most: usize) {
    let limit = format!("--nofile={most}:");
    let pid = server.id().to_string();
    let set = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
    assert!(set.expect("prlimit (util-linux) is there").success());
}

/// The process has no descriptor left: that is said once a second at most, no core burns, a source that holds many gives one up for others, and
/// when there are some again all goes on, the control socket and the metrics too.
#[test]
fn out_of_descriptors() {
    let place = Place::new("descriptors");
    let (conf, _) = conf(&place);
    let metrics = place.at_port(SERVER, 9090);
    let mut server = conf.set("metrics", "address", &format!("{:?}", metrics.to_string())).start(&place);
    let connect = |ip: IpAddr| Agent::tcp(ip, server.address);
    let first: Vec<Agent> = (0..10).map(|_| connect(place.ip(STRANGER))).collect();
    first.iter().for_each(|agent| assert_ok(agent, &server));
    allow_descriptors(&server, descriptors(&server));
    let began = Instant::now();
    let other = connect(place.ip(CALLER));
    assert_ok(&other, &server);
    let ended = first.iter().filter(|agent| agent.end(Duration::from_millis(50)) == Some(End::Goodbye));
    assert!(ended.count() >= 1, "one of the many has given way");
    // Now nobody has more than he needs.
    allow_descriptors(&server, 1);
    let many: Vec<Agent> = (0..20).map(|number| connect(place.ip(100 + number))).collect();
    let scrape = TcpStream::connect(metrics).expect("the kernel takes it");
    let control = std::os::unix::net::UnixStream::connect(place.path("control.sock")).expect("the kernel takes it");
    std::thread::sleep(Duration::from_millis(300));
    let before = cpu_ticks(&server);
    std::thread::sleep(Duration::from_secs(2));
    let burnt = cpu_ticks(&server) - before;
    assert!(burnt < 40, "{burnt} ticks of 200");
    server.assert_alive(&place, CALLEE);
    let seconds = 1 + began.elapsed().as_secs() as usize;
    for words in ["none can be accepted", "metrics: cannot accept", "control socket: cannot accept"] {
        let log = server.log();
        let lines = log.matches(words).count();
        assert!((1..=seconds).contains(&lines), "{words}: {lines} lines in {seconds} s:\n{log}");
    }
    allow_descriptors(&server, 1024);
    drop((scrape, control));
    for agent in &many {
        assert_ok(agent, &server);
    }
    let errors = server.stat(&place, "strowger_connections_accept_errors_total");
    assert!(errors >= 2.0, "{errors}");
}
