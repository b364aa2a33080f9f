//! Connections that are ill-treated: cut into bytes, held up, half closed, reset, refused, idle, too many; and the requests that are too large for UDP.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::agent::Agent;
use crate::line::End;
use crate::openssl_tool::options;
use crate::pki::{Authority, Kind};
use crate::place::{CALLEE, CALLER, Place, SECOND_CALLEE, SERVER, wait_for};
use crate::process::Process;
use crate::server::{Conf, Server};
use crate::stream_tap::listen;

const NAME: &str = "sip.example.test";

/// A server on UDP and TCP at the same port, and TLS.
fn conf(place: &Place) -> (Conf, Authority) {
    let authority = Authority::new(place, "ca");
    let certificate = authority.issue(place, "server", Kind::Ecdsa, &[NAME]);
    let conf = Conf::new(place).stream("tcp", place.at(SERVER)).tls(place, &[&certificate]);
    (conf, authority)
}

fn assert_ok(agent: &Agent, server: &Server) {
    let request = agent.request("OPTIONS", &format!("sip:{}", server.address));
    assert_eq!(agent.ask(&request).status(), Some(200));
}

#[test]
fn a_message_in_single_bytes() {
    let place = Place::new("bytes");
    let (conf, authority) = conf(&place);
    let server = conf.start(&place);
    let phone = Agent::new(place.at(CALLEE), server.address);
    server.bind(&place, "bob", phone.address);
    for caller in
        [Agent::tcp(place.ip(CALLER), server.address), Agent::tls(place.ip(CALLER), server.secure(), &authority, NAME, None)]
    {
        let mut request = caller.request("MESSAGE", &server.uri("bob"));
        request.body = (0..=255).collect();
        for byte in request.bytes() {
            caller.send_bytes(&[byte]);
        }
        let arrived = phone.expect("MESSAGE", |message| message.is("MESSAGE"));
        assert_eq!(arrived.body, request.body);
        phone.respond(&arrived, 200, &[]);
        assert_eq!(caller.final_for(&request).status(), Some(200));
    }
}

/// Fifty requests, with and without bodies and with keep-alives between them, in one write; one large one besides.
#[test]
fn many_messages_in_one_write() {
    let place = Place::new("pipeline");
    let (conf, authority) = conf(&place);
    let server = conf.start(&place);
    for caller in
        [Agent::tcp(place.ip(CALLER), server.address), Agent::tls(place.ip(CALLER), server.secure(), &authority, NAME, None)]
    {
        let requests: Vec<_> = (0..50)
            .map(|n| {
                let mut request = caller.request("OPTIONS", &format!("sip:{}", server.address));
                request.body = vec![b'x'; n * 7];
                request
            })
            .collect();
        let mut bytes = Vec::new();
        for (n, request) in requests.iter().enumerate() {
            bytes.extend(request.bytes());
            bytes.extend(b"\r\n".repeat(n % 3));
        }
        caller.send_bytes(&bytes);
        for request in &requests {
            let answer = caller.final_for(request);
            assert_eq!(answer.status(), Some(200), "in the order of the requests");
        }
        // Larger than a record of TLS and than what is read at once.
        let mut large = caller.request("OPTIONS", &format!("sip:{}", server.address));
        large.body = vec![b'y'; 50_000];
        assert_eq!(caller.ask(&large).status(), Some(200));
    }
}

/// RFC 5626 4.4.1: two line ends are a ping, and one is the pong.
#[test]
fn pings() {
    let place = Place::new("pings");
    let (conf, _) = conf(&place);
    let server = conf.start(&place);
    let mut stream = TcpStream::connect(server.address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out");
    for _ in 0..3 {
        stream.write_all(b"\r\n\r\n").expect("a ping");
        let mut pong = [0; 2];
        stream.read_exact(&mut pong).expect("a pong");
        assert_eq!(&pong, b"\r\n");
    }
    stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a time-out");
    assert!(stream.read(&mut [0; 2]).is_err(), "and nothing more");
}

/// What cannot be framed is answered where that is possible, and the connection ends; others do not notice.
#[test]
fn what_cannot_be_framed() {
    let place = Place::new("unframed");
    let (conf, _) = conf(&place);
    let server = conf.set("limits", "message_size", "\"4KiB\"").start(&place);
    let other = Agent::tcp(place.ip(CALLER), server.address);
    assert_ok(&other, &server);
    for (length, status) in [("", 400), ("Content-Length: 100000\r\n", 513)] {
        let caller = Agent::tcp(place.ip(CALLER), server.address);
        let request = caller.request("OPTIONS", &format!("sip:{}", server.address));
        let text = String::from_utf8(request.bytes()).expect("text");
        caller.send_bytes(text.replace("Content-Length: 0\r\n", length).as_bytes());
        assert_eq!(caller.final_for(&request).status(), Some(status));
        assert!(caller.end(Duration::from_secs(5)).is_some(), "it is closed");
    }
    let caller = Agent::tcp(place.ip(CALLER), server.address);
    caller.send_bytes(&[b'x'; 9000]);
    assert!(caller.end(Duration::from_secs(5)).is_some(), "it is closed");
    assert_eq!(server.stat(&place, "strowger_connections_unframed_total"), 3.0);
    assert_ok(&other, &server);
}

/// A phone that does not read: what waits for it has a bound, what is beyond that fails at once, and nobody else suffers.
#[test]
fn a_slow_reader() {
    let place = Place::new("slow");
    let (conf, _) = conf(&place);
    let mut server = conf.set("connections", "send_queue", "\"64KiB\"").set("timers", "t1", "\"50ms\"").start(&place);
    let slow = Agent::tcp(place.ip(CALLEE), server.address);
    SockRef::from(&slow.stream()).set_recv_buffer_size(4096).expect("a small buffer");
    let quick = Agent::tcp(place.ip(SECOND_CALLEE), server.address);
    for (phone, user) in [(&slow, "slow"), (&quick, "quick")] {
        let register = phone.register(&server.address.to_string(), user, &format!("<{}>", phone.uri()), 600);
        assert_eq!(phone.ask(&register).status(), Some(200));
    }
    let caller = Agent::tcp(place.ip(CALLER), server.address);
    let began = Instant::now();
    let mut requests = Vec::new();
    // The kernel's buffers on the way take some megabytes.
    for _ in 0..400 {
        let mut request = caller.request("MESSAGE", &server.uri("slow"));
        request.body = vec![b'x'; 40_000];
        caller.send(&request);
        requests.push(request);
    }
    let refused = caller.expect("the first refusal", |message| message.is_final_for("MESSAGE"));
    assert!(matches!(refused.status(), Some(500..=599)), "{refused:?}");
    assert!(began.elapsed() < Duration::from_millis(50 * 64), "a full queue is told at once, not after 64*T1");
    let full = server.stats(&place)["strowger_dropped_total{reason=\"send_queue_full\"}"];
    assert!(full >= 1.0, "counted: {full}");
    let request = caller.request("MESSAGE", &server.uri("quick"));
    caller.send(&request);
    let arrived = quick.expect("MESSAGE", |message| message.is("MESSAGE"));
    quick.respond(&arrived, 200, &[]);
    assert_eq!(caller.final_for(&request).status(), Some(200));
    server.assert_alive(&place, CALLER);
}

/// Who has said all that there is to say still hears the answers, by the same connection.
#[test]
fn a_half_closed_connection() {
    let place = Place::new("half");
    let (conf, _) = conf(&place);
    let server = conf.start(&place);
    let phone = Agent::new(place.at(CALLEE), server.address);
    server.bind(&place, "bob", phone.address);
    let caller = Agent::tcp(place.ip(CALLER), server.address);
    let request = caller.request("MESSAGE", &server.uri("bob"));
    let options = caller.request("OPTIONS", &format!("sip:{}", server.address));
    caller.send_bytes(&[request.bytes(), options.bytes()].concat());
    caller.stream().shutdown(Shutdown::Write).expect("half a connection");
    assert_eq!(caller.final_for(&options).status(), Some(200));
    let arrived = phone.expect("MESSAGE", |message| message.is("MESSAGE"));
    std::thread::sleep(Duration::from_millis(200));
    phone.respond(&arrived, 200, &[]);
    assert_eq!(caller.final_for(&request).status(), Some(200));
    assert_eq!(caller.end(Duration::from_secs(5)), Some(End::Goodbye));
    let opened = server.stat(&place, "strowger_connections_opened_total");
    assert_eq!(opened, 0.0);
}

fn reset(agent: Agent) {
    SockRef::from(&agent.stream()).set_linger(Some(Duration::ZERO)).expect("an end without goodbye");
}

/// The caller's connection is gone: the answer goes to the port that its Via names (18.2.2).
#[test]
fn a_caller_that_resets() {
    let place = Place::new("reset-caller");
    let (conf, _) = conf(&place);
    let mut server = conf.start(&place);
    let phone = Agent::new(place.at(CALLEE), server.address);
    server.bind(&place, "bob", phone.address);
    let door = listen(place.at(CALLER));
    let caller = Agent::tcp(place.ip(CALLER), server.address);
    let mut request = caller.request("INVITE", &server.uri("bob"));
    request.via = request.via.replace(&caller.address.to_string(), &place.at(CALLER).to_string());
    caller.send(&request);
    let arrived = phone.expect("INVITE", |message| message.is("INVITE"));
    phone.respond(&arrived, 180, &[]);
    caller.expect("180", |message| message.answers("INVITE", 180));
    reset(caller);
    let gone = wait_for(Duration::from_secs(2), || (server.stat(&place, "strowger_connections") == 0.0).then_some(()));
    assert!(gone.is_some(), "a reset is noticed");
    phone.accept(&arrived);
    let again = Agent::accept_from(&door);
    let answer = again.final_for(&request);
    assert_eq!(answer.status(), Some(200), "{answer:?}");
    server.assert_alive(&place, CALLER);
}

/// The same where the caller closes politely, with all that it has got read: it may still listen by that connection, and what is said there and
/// not heard goes the other way when it is said again. Nothing is asked of a port that nobody has named.
#[test]
fn a_caller_that_closes() {
    let place = Place::new("close-caller");
    let (conf, _) = conf(&place);
    let mut server = conf.start(&place);
    let phone = Agent::new(place.at(CALLEE), server.address);
    server.bind(&place, "bob", phone.address);
    let door = listen(place.at(CALLER));
    let caller = Agent::tcp(place.ip(CALLER), server.address);
    let mut request = caller.request("INVITE", &server.uri("bob"));
    request.via = request.via.replace(&caller.address.to_string(), &place.at(CALLER).to_string());
    caller.send(&request);
    let arrived = phone.expect("INVITE", |message| message.is("INVITE"));
    phone.respond(&arrived, 180, &[]);
    caller.expect("180", |message| message.answers("INVITE", 180));
    drop(caller);
    std::thread::sleep(Duration::from_millis(300));
    phone.accept(&arrived);
    std::thread::sleep(Duration::from_millis(500));
    phone.accept(&arrived);
    let again = Agent::accept_from(&door);
    let answer = again.final_for(&request);
    assert_eq!(answer.status(), Some(200), "{answer:?}");
    server.assert_alive(&place, CALLER);
}

/// A callee that resets before it has answered is one that has failed: the caller hears so at once.
#[test]
fn a_callee_that_resets() {
    let place = Place::new("reset-callee");
    let (conf, _) = conf(&place);
    let server = conf.start(&place);
    let door = listen(place.at(CALLEE));
    let contact = format!("sip:bob@{};transport=tcp", place.at(CALLEE));
    server.bind_to(&place, "bob", &contact);
    let caller = Agent::new(place.at(CALLER), server.address);
    let request = caller.request("INVITE", &server.uri("bob"));
    caller.send(&request);
    let phone = Agent::accept_from(&door);
    phone.expect("INVITE", |message| message.is("INVITE"));
    let began = Instant::now();
    reset(phone);
    let refused = caller.final_for(&request);
    assert!(matches!(refused.status(), Some(500..=599)), "{refused:?}");
    assert!(began.elapsed() < Duration::from_secs(2), "at once");
    caller.acknowledge(&request, &refused);
    // The next call opens a new connection.
    let request = caller.request("INVITE", &server.uri("bob"));
    caller.send(&request);
    let phone = Agent::accept_from(&door);
    let arrived = phone.expect("INVITE", |message| message.is("INVITE"));
    phone.accept(&arrived);
    assert_eq!(caller.final_for(&request).status(), Some(200));
}

/// A next hop that refuses connections: the next target gets the call, and where there is none, the caller an answer.
#[test]
fn a_next_hop_that_refuses() {
    let place = Place::new("refusing");
    let (conf, _) = conf(&place);
    let (dead, spare) = (place.at(CALLEE), place.at(SECOND_CALLEE));
    let server = conf
        .route(&format!(
            "to_host = \"example.net\"\naction = \"relay\"\ntarget = [\"sip:{dead};transport=tcp\", \"sip:{spare};transport=tcp\"]"
        ))
        .route(&format!("to_host = \"example.org\"\naction = \"relay\"\ntarget = [\"sip:{dead};transport=tcp\"]"))
        .start(&place);
    let door = listen(spare);
    let caller = Agent::new(place.at(CALLER), server.address);
    let began = Instant::now();
    let request = caller.request("INVITE", "sip:bob@example.net");
    caller.send(&request);
    let phone = Agent::accept_from(&door);
    let arrived = phone.expect("INVITE", |message| message.is("INVITE"));
    phone.accept(&arrived);
    assert_eq!(caller.final_for(&request).status(), Some(200));
    for method in ["INVITE", "MESSAGE"] {
        let request = caller.request(method, "sip:bob@example.org");
        let refused = caller.ask(&request);
        assert!(matches!(refused.status(), Some(500..=599)), "{refused:?}");
        caller.acknowledge(&request, &refused);
    }
    assert!(began.elapsed() < Duration::from_secs(3), "at once");
    server.expect_log(&[&dead.to_string(), "not connected"]);
    assert_eq!(server.stat(&place, "strowger_connections_failed_total"), 3.0);
}

/// What is idle is closed after its time, and what is not is left alone.
#[test]
fn idle_connections() {
    let place = Place::new("idle");
    let (conf, _) = conf(&place);
    let server = conf.set("connections", "idle_timeout", "\"1s\"").start(&place);
    let idle = Agent::tcp(place.ip(CALLER), server.address);
    let busy = Agent::tcp(place.ip(CALLER), server.address);
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(2600) {
        assert_ok(&busy, &server);
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(idle.end(Duration::from_millis(50)), Some(End::Goodbye));
    assert_ok(&busy, &server);
    assert_eq!(server.stat(&place, "strowger_connections_idle_closed_total"), 1.0);
    assert_eq!(server.stat(&place, "strowger_connections"), 1.0);
}

/// Beyond `max` nobody gets in; who is in stays, and who leaves makes room.
#[test]
fn the_limit_of_connections() {
    let place = Place::new("limit");
    let (conf, _) = conf(&place);
    let server = conf.set("connections", "max", "8").start(&place);
    let mut agents: Vec<Agent> = (0..8).map(|_| Agent::tcp(place.ip(CALLER), server.address)).collect();
    for agent in &agents {
        assert_ok(agent, &server);
    }
    let more = Agent::tcp(place.ip(CALLER), server.address);
    assert!(more.end(Duration::from_secs(5)).is_some(), "one too many");
    let hits = server.stats(&place)["strowger_limit_hits_total{limit=\"connections\"}"];
    assert_eq!(hits, 1.0);
    server.expect_log(&["connection refused", "8 are open"]);
    drop(agents.pop());
    let room = wait_for(Duration::from_secs(2), || (server.stat(&place, "strowger_connections") < 8.0).then_some(()));
    assert!(room.is_some());
    agents.push(Agent::tcp(place.ip(CALLER), server.address));
    for agent in &agents {
        assert_ok(agent, &server);
    }
}

/// 18.1.1: what is over 1,300 bytes goes by TCP where the URI leaves the transport open, and by UDP after all where nobody listens there.
#[test]
fn what_is_too_large_for_udp() {
    let place = Place::new("large");
    let (conf, _) = conf(&place);
    let server = conf.set("next_hop", "retry", "\"1s\"").start(&place);
    let by_udp = Agent::new(place.at(CALLEE), server.address);
    server.bind(&place, "bob", place.at(CALLEE));
    let caller = Agent::new(place.at(CALLER), server.address);
    let large = || {
        let mut request = caller.request("MESSAGE", &server.uri("bob"));
        request.body = vec![b'x'; 1400];
        request
    };
    // Nobody listens: UDP after all.
    let request = large();
    caller.send(&request);
    let arrived = by_udp.expect("MESSAGE by UDP", |message| message.is("MESSAGE"));
    assert_eq!(arrived.top_via().transport, "UDP", "{arrived:?}");
    assert_eq!(arrived.body, request.body);
    by_udp.respond(&arrived, 200, &[]);
    assert_eq!(caller.final_for(&request).status(), Some(200));

    // Until the port is tried again, what is large goes by UDP at once.
    let door = listen(place.at(CALLEE));
    let request = large();
    caller.send(&request);
    let arrived = by_udp.expect("MESSAGE by UDP", |message| message.call_id() == request.call_id);
    by_udp.respond(&arrived, 200, &[]);
    assert_eq!(caller.final_for(&request).status(), Some(200));
    std::thread::sleep(Duration::from_millis(1200));
    let request = large();
    caller.send(&request);
    let by_tcp = Agent::accept_from(&door);
    let arrived = by_tcp.expect("MESSAGE by TCP", |message| message.is("MESSAGE"));
    assert_eq!(arrived.top_via().transport, "TCP", "{arrived:?}");
    assert_eq!(arrived.body, request.body);
    by_tcp.respond(&arrived, 200, &[]);
    assert_eq!(caller.final_for(&request).status(), Some(200));
    // What is small still goes by UDP.
    let small = caller.request("MESSAGE", &server.uri("bob"));
    caller.send(&small);
    let arrived = by_udp.expect("MESSAGE by UDP", |message| message.call_id() == small.call_id);
    by_udp.respond(&arrived, 200, &[]);
    assert_eq!(caller.final_for(&small).status(), Some(200));
}

/// A request that comes with the last flight of the handshake is answered on its own connection.
#[test]
fn a_request_that_comes_with_the_handshake() {
    let place = Place::new("early");
    let (conf, authority) = conf(&place);
    let server = conf.start(&place);
    for round in 0..10 {
        let caller = Agent::tls(place.ip(CALLER), server.secure(), &authority, NAME, None);
        let request = caller.request("OPTIONS", &format!("sip:{}", server.address));
        caller.send(&request);
        assert_eq!(caller.final_for(&request).status(), Some(200), "{round}");
    }
    let opened = server.stat(&place, "strowger_connections_opened_total");
    assert_eq!(opened, 0.0, "connections to who has one already");
}

/// With SSLKEYLOGFILE a capture can be read, by tshark as by anybody; the log says that it is so.
#[test]
fn a_capture_can_be_read() {
    let place = Place::new("keylog");
    let (conf, authority) = conf(&place);
    let keys = place.path("keys.log");
    let capture = place.path("capture.pcap");
    let port = place.at_port(SERVER, 5061);
    let filter = format!("tcp port {} and host {}", port.port(), port.ip());
    let file = capture.display().to_string();
    let arguments = ["-i", "lo", "-q", "-w", &file, "-f", &filter].map(str::to_owned);
    let mut dumpcap = Process::start(&place, "dumpcap", std::path::Path::new("dumpcap"), &arguments, &[]);
    let capturing = wait_for(Duration::from_secs(5), || (capture.exists() || dumpcap.exited().is_some()).then(|| capture.exists()));
    if capturing != Some(true) {
        println!("skipped: nobody may capture here: {}", dumpcap.stderr());
        return;
    }
    let key_file = keys.display().to_string();
    let server = conf.start_with(&place, &[("SSLKEYLOGFILE", &key_file)]);
    server.expect_log(&["SSLKEYLOGFILE"]);
    let caller = Agent::tls(place.ip(CALLER), server.secure(), &authority, NAME, None);
    let text = options(server.secure());
    caller.send_bytes(text.as_bytes());
    caller.expect("200", |message| message.answers("OPTIONS", 200));
    drop(caller);
    let secret = wait_for(Duration::from_secs(5), || {
        let written = std::fs::read_to_string(&keys).unwrap_or_default();
        written.contains("CLIENT_").then_some(())
    });
    assert!(secret.is_some(), "no secrets in the file");
    let read = wait_for(Duration::from_secs(10), || {
        let output = Command::new("tshark")
            .args(["-r", &file, "-o", &format!("tls.keylog_file:{key_file}")])
            .args(["-d", "tls.port==5061,sip", "-Y", "sip", "-T", "fields"])
            .args(["-e", "sip.Method", "-e", "sip.Status-Code"])
            .output()
            .ok()?;
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        (lines.contains("OPTIONS") && lines.contains("200")).then_some(())
    });
    assert!(read.is_some(), "tshark reads no SIP in {file}");
    dumpcap.signal("INT");
    wait_for(Duration::from_secs(5), || dumpcap.exited());
}

/// The sweep looks at the oldest connection once in each tick of its clock, however many are open.
#[test]
fn ten_thousand_idle_connections_cost_one_look_a_tick() {
    const IDLE: usize = 10_000;
    const TICK: Duration = Duration::from_millis(100);
    let place = Place::new("idle");
    let (conf, _) = conf(&place);
    let server = conf.start(&place);
    let connect = |_| TcpStream::connect(server.address).expect("a connection");
    let idle: Vec<TcpStream> = (0..IDLE).map(connect).collect();
    let all = wait_for(Duration::from_secs(10), || (server.stat(&place, "strowger_connections") == IDLE as f64).then_some(()));
    assert!(all.is_some(), "all are open");
    let started = Instant::now();
    let before = server.stat(&place, "strowger_idle_sweep_visited_total");
    // Somebody keeps the loop turning.
    let busy = Agent::new(place.at(CALLER), server.address);
    while started.elapsed() < 20 * TICK {
        assert_ok(&busy, &server);
        std::thread::sleep(TICK / 20);
    }
    let after = server.stat(&place, "strowger_idle_sweep_visited_total");
    let ticks = started.elapsed().as_millis() / TICK.as_millis() + 1;
    let visited = (after - before) as u128;
    assert!((10..=ticks).contains(&visited), "{visited} visited in {ticks} ticks");
    assert_eq!(server.stat(&place, "strowger_connections"), idle.len() as f64);
}
