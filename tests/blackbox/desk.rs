//! The operator's desk: a reload that loses no call, draining, log levels, a scrape read by Prometheus's own parser, and `top`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::UAC;
use crate::agent::Agent;
use crate::auth::guarded;
use crate::calls::callee;
use crate::message::Message;
use crate::pki::{Authority, Kind};
use crate::place::{CALLEE, CALLER, Place, SERVER, STRANGER, wait_for};
use crate::process::{self, Outcome, Process};
use crate::server::{Conf, Server, binary};
use crate::sipp::{Scenario, Sipp};

/// Every name that operators may rely on, and the kind of metric that it is.
const NAMES: [(&str, &str); 15] = [
    ("strowger_messages_total", "counter"),
    ("strowger_requests_total", "counter"),
    ("strowger_responses_total", "counter"),
    ("strowger_retransmissions_total", "counter"),
    ("strowger_transactions", "gauge"),
    ("strowger_connections", "gauge"),
    ("strowger_tls_handshakes_total", "counter"),
    ("strowger_tls_handshake_calls_total", "counter"),
    ("strowger_auth_total", "counter"),
    ("strowger_registrations_total", "counter"),
    ("strowger_bindings", "gauge"),
    ("strowger_dropped_total", "counter"),
    ("strowger_limit_hits_total", "counter"),
    ("strowger_loop_delay_seconds", "histogram"),
    ("strowger_idle_sweep_visited_total", "counter"),
];

fn reload(place: &Place, server: &Server) -> Outcome {
    server.command(place, &["reload"])
}

fn reloaded(place: &Place, server: &Server) {
    let outcome = reload(place, server);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
}

fn invite(agent: &Agent, server: &Server, user: &str) -> Message {
    let invite = agent.request("INVITE", &server.uri(user));
    let answer = agent.ask(&invite);
    agent.acknowledge(&invite, &answer);
    answer
}

// ---- reload --------------------------------------------------------------------------------------------------------------

#[test]
fn a_reload_changes_what_the_conf_says() {
    let place = Place::new("desk-reload");
    let with = |route: &str, t1: &str| Conf::new(&place).set("timers", "t1", t1).route(&format!("to_user_prefix = \"9\"\n{route}"));
    let before = with("action = \"reject\"\nstatus = 410", "\"1s\"");
    let mut server = before.start(&place);
    let agent = Agent::new(place.at(CALLER), server.address);
    let phone = Agent::new(place.at(CALLEE), server.address);
    server.bind(&place, "bob", phone.address);
    // How long it takes until a phone that says nothing is asked again.
    let patience = |server: &Server| {
        let call = agent.request("INVITE", &server.uri("bob"));
        agent.send(&call);
        phone.expect("INVITE", |message| message.is("INVITE"));
        let first = Instant::now();
        phone.expect("INVITE again", |message| message.is("INVITE") && message.call_id() == call.call_id);
        let took = first.elapsed();
        agent.send(&call.cancel());
        phone.forget();
        took
    };
    assert_eq!(invite(&agent, &server, "911").status(), Some(410));
    assert!(patience(&server) > Duration::from_millis(800));
    let register = agent.register(&server.address.to_string(), "carol", "<sip:c@192.0.2.1>", 600);
    assert_eq!(agent.ask(&register).status(), Some(200));

    // This writes the users; the conf is another.
    drop(guarded(&place, &["carol"]));
    let after = with("action = \"reject\"\nstatus = 606", "\"100ms\"")
        .set("server", "domains", "[\"other.test\"]")
        .set("auth", "challenge_register", "true")
        .set("auth", "realm", "\"strowger.test\"")
        .set("auth", "users", &format!("{:?}", place.path("users.txt").display().to_string()))
        .set("registrar", "max_expires", "\"2m\"")
        .set("registrar", "default_expires", "\"2m\"")
        .set("limits", "message_size", "\"2KiB\"")
        .set("log", "level", "\"debug\"");
    after.write(&place);
    let said = server.log().len();
    reloaded(&place, &server);
    let line = server.expect_log_after(said, &["INFO", "reloaded", "[timers] t1"]);
    for key in ["[[route]]", "[server] domains", "[auth] challenge_register", "[log] level"] {
        assert!(line.contains(key), "{key}: {line}");
    }
    assert_eq!(invite(&agent, &server, "911").status(), Some(606));
    let took = patience(&server);
    assert!(took < Duration::from_millis(800), "{took:?}");
    let ask = |expires| {
        let register = agent.register(&server.address.to_string(), "carol", "<sip:c@192.0.2.1>", expires);
        agent.ask(&register)
    };
    assert_eq!(ask(600).status(), Some(401));
    assert_eq!(server.stat(&place, "strowger_users"), 1.0);
    let log = server.command(&place, &["log"]);
    assert_eq!(log.stdout.trim(), "debug");
    let mut long = agent.request("OPTIONS", &format!("sip:{}", server.address));
    long.body = vec![b'x'; 3000];
    assert_eq!(agent.ask(&long).status(), Some(513));

    // And back, by the signal: the users go too.
    before.write(&place);
    let said = server.log().len();
    server.signal("HUP");
    server.expect_log_after(said, &["INFO", "reloaded", "[auth] challenge_register"]);
    assert_eq!(invite(&agent, &server, "911").status(), Some(410));
    let answer = ask(600);
    assert_eq!(answer.status(), Some(200));
    assert!(answer.header("contact").unwrap().contains("expires=600"));
    wait_for(Duration::from_secs(5), || (server.stat(&place, "strowger_users") == 0.0).then_some(()))
        .expect("nobody is challenged, and nobody is kept");
    // What has not changed is said so.
    let said = server.log().len();
    reloaded(&place, &server);
    server.expect_log_after(said, &["reloaded, the conf says what it said before"]);
    server.assert_alive(&place, STRANGER);
}

#[test]
fn a_conf_that_is_wrong_changes_nothing() {
    let place = Place::new("desk-wrong");
    let conf = Conf::new(&place).route("to_user_prefix = \"9\"\naction = \"reject\"\nstatus = 410");
    let mut server = conf.start(&place);
    let agent = Agent::new(place.at(CALLER), server.address);
    let good = conf.text();
    let other = good.replace("410", "606");
    let file = place.path("strowger.toml").display().to_string();
    for (text, words) in [
        // One fault, two, and a text that is not TOML.
        (format!("{other}\n[timers]\nt1 = \"soon\"\n"), vec!["t1 must be a time"]),
        (format!("{other}\n[timers]\nt1 = \"soon\"\nt9 = 1\n"), vec!["t1 must be a time", "unknown key \"t9\""]),
        (format!("{other}\n[timers\n"), vec!["this is not TOML"]),
        (format!("{other}\n[udp]\nbatch = 8\n"), vec!["[udp] batch cannot change while the server runs"]),
        (
            format!("[udp]\ngather = \"1ms\"\n{other}\n[[listen]]\naddress = \"127.0.0.1:9\"\n"),
            vec!["[[listen]], [udp] gather cannot change"],
        ),
        (
            other.replace("[control]", "[limits]\ntransactions = 900000000\n[control]"),
            vec!["[limits] transactions (above that of the start) cannot change"],
        ),
        (format!("{other}\n[auth]\nchallenge_register = true\nusers = \"nowhere/users\"\n"), vec!["nowhere/users"]),
    ] {
        place.write("strowger.toml", &text);
        let said = server.log().len();
        let refused = reload(&place, &server);
        assert_eq!(refused.code, Some(1), "{text}: {refused:?}");
        assert_eq!(refused.stderr.trim().lines().count(), words.len(), "{refused:?}");
        for (line, word) in refused.stderr.lines().zip(&words) {
            assert!(line.contains(word), "{refused:?}");
            if word.contains("must be") || word.contains("unknown") {
                let place = line.strip_prefix(&format!("{file}:")).expect("the file");
                let mut numbers = place.split(':');
                assert!(numbers.next().unwrap().parse::<u32>().is_ok(), "{line}");
                assert!(numbers.next().unwrap().parse::<u32>().is_ok(), "{line}");
            }
            // The same is in the log.
            server.expect_log_after(said, &["ERROR", "reload refused", line]);
        }
        assert_eq!(invite(&agent, &server, "911").status(), Some(410));
    }
    std::fs::remove_file(place.path("strowger.toml")).expect("the conf goes");
    let refused = reload(&place, &server);
    assert!(refused.code == Some(1) && refused.stderr.contains("cannot be read"), "{refused:?}");
    assert_eq!(invite(&agent, &server, "911").status(), Some(410));
    place.write("strowger.toml", &other);
    reloaded(&place, &server);
    assert_eq!(invite(&agent, &server, "911").status(), Some(606));
    server.assert_alive(&place, STRANGER);
}

/// The limits of connections change under those that are open.
#[test]
fn an_idle_timeout_that_becomes_shorter() {
    let place = Place::new("desk-idle");
    let with = |idle: &str| Conf::new(&place).stream("tcp", place.at(SERVER)).set("connections", "idle_timeout", idle);
    let server = with("\"1h\"").start(&place);
    let agent = Agent::tcp(place.ip(CALLER), server.address);
    let options = agent.request("OPTIONS", &format!("sip:{}", server.address));
    assert_eq!(agent.ask(&options).status(), Some(200));
    assert!(agent.end(Duration::from_millis(1500)).is_none());
    with("\"1s\"").write(&place);
    reloaded(&place, &server);
    assert!(agent.end(Duration::from_secs(5)).is_some(), "it is closed");
}

/// Calls are set up, held and ended while the conf changes to and fro beneath them.
#[test]
fn no_call_is_lost_by_reloads() {
    const CALLS: u32 = 150;
    let place = Place::new("desk-calls");
    let conf = |t1: &str, status: u16| {
        Conf::new(&place)
            .stream("tcp", place.at(SERVER))
            .set("timers", "t1", t1)
            .set("proxy", "max_breadth", &status.to_string())
            .set("connections", "idle_timeout", &format!("\"{status}s\""))
            .route(&format!("to_user_prefix = \"9\"\naction = \"reject\"\nstatus = {status}"))
    };
    let confs = [conf("\"500ms\"", 410), conf("\"300ms\"", 606)];
    let server = confs[0].start(&place);
    server.bind(&place, "bob", place.at(CALLEE));
    let callee = callee(&place, "uas", CALLEE, place.at(CALLEE)).calls(CALLS).answer();
    let caller = Sipp::new(&place, "uac", place.at(CALLER), Scenario::Text(UAC))
        .calls(CALLS)
        .with(&["-r", "30", "-d", "1000"])
        .call("bob", server.address, server.address);
    let mut reloads = 0;
    let over = AtomicBool::new(false);
    let report = std::thread::scope(|scope| {
        let calls = scope.spawn(|| {
            let report = caller.succeed(CALLS);
            over.store(true, Ordering::Relaxed);
            report
        });
        while !over.load(Ordering::Relaxed) && !calls.is_finished() {
            reloads += 1;
            confs[reloads % 2].write(&place);
            reloaded(&place, &server);
        }
        calls.join().expect("every call succeeds")
    });
    callee.succeed(CALLS);
    assert!(reloads >= 50, "{reloads} reloads while there were calls");
    assert_eq!(report.successful, CALLS);
    assert_eq!(server.stat(&place, "strowger_requests_pending"), 0.0);
}

// ---- draining ------------------------------------------------------------------------------------------------------------

#[test]
fn a_server_that_drains_ends_what_it_has_begun_and_begins_nothing() {
    let place = Place::new("desk-drain");
    let server = Conf::new(&place).stream("tcp", place.at(SERVER)).start(&place);
    let agent = Agent::new(place.at(CALLER), server.address);
    let phone = Agent::new(place.at(CALLEE), server.address);
    server.bind(&place, "bob", phone.address);
    // One call is under way, another one established.
    let established = agent.request("INVITE", &server.uri("bob"));
    agent.send(&established);
    phone.accept(&phone.expect("INVITE", |message| message.is("INVITE")));
    let answer = agent.final_for(&established);
    agent.send(&agent.in_dialog("ACK", &established, &answer));
    let ringing = agent.request("INVITE", &server.uri("bob"));
    agent.send(&ringing);
    let asked = phone.expect("INVITE", |message| message.is("INVITE") && message.call_id() == ringing.call_id);

    let said = server.command(&place, &["drain", "--deadline", "20"]);
    assert!(said.code == Some(0) && said.stdout.starts_with("draining: 1 requests wait"), "{said:?}");
    server.expect_log(&["INFO", "draining", "1 requests wait"]);
    assert_eq!(server.stat(&place, "strowger_draining"), 1.0);
    for method in ["INVITE", "SUBSCRIBE", "REFER"] {
        let refused = match method {
            "INVITE" => invite(&agent, &server, "bob"),
            _ => agent.ask(&agent.request(method, &server.uri("bob"))),
        };
        assert_eq!(refused.status(), Some(503), "{method}");
        assert_eq!(refused.header("retry-after"), Some("10"), "{method}");
    }
    // A reload does not end it, and connections are still taken.
    reloaded(&place, &server);
    let late = Agent::tcp(place.ip(STRANGER), server.address);
    let refused = late.ask(&late.request("INVITE", &server.uri("bob")));
    assert_eq!(refused.status(), Some(503));
    // Who is registered stays so, and who asks is answered.
    let register = agent.register(&server.address.to_string(), "eve", "<sip:e@192.0.2.1>", 60);
    assert_eq!(agent.ask(&register).status(), Some(200));
    let options = agent.request("OPTIONS", &format!("sip:{}", server.address));
    assert_eq!(agent.ask(&options).status(), Some(200));
    // The established call ends as it should.
    let bye = agent.in_dialog("BYE", &established, &answer);
    agent.send(&bye);
    let at_phone = phone.expect("BYE", |message| message.is("BYE"));
    phone.respond(&at_phone, 200, &[]);
    assert_eq!(agent.final_for(&bye).status(), Some(200));
    // The other one is answered: then there is nothing to wait for.
    phone.respond(&asked, 486, &[]);
    assert_eq!(agent.final_for(&ringing).status(), Some(486));
    let outcome = server.finish(Duration::from_secs(5));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stderr.contains("no request waits for its answer any more"), "{outcome:?}");
    assert!(!place.path("control.sock").exists());
}

#[test]
fn a_drain_waits_for_calls_where_it_knows_of_them() {
    let place = Place::new("desk-drain-calls");
    let conf = || Conf::new(&place).set("records", "file", "\"calls.json\"");
    let establish = |server: &Server| {
        let agent = Agent::new(place.at(CALLER), server.address);
        let phone = Agent::new(place.at(CALLEE), server.address);
        server.bind(&place, "bob", phone.address);
        let call = agent.request("INVITE", &server.uri("bob"));
        agent.send(&call);
        phone.accept(&phone.expect("INVITE", |message| message.is("INVITE")));
        let answer = agent.final_for(&call);
        agent.send(&agent.in_dialog("ACK", &call, &answer));
        phone.expect("ACK", |message| message.is("ACK"));
        (agent, phone, call, answer)
    };
    let server = conf().start(&place);
    let (agent, phone, call, answer) = establish(&server);
    let said = server.command(&place, &["drain", "--calls"]);
    assert!(said.stdout.starts_with("draining: 0 requests wait for their answer and 1 calls are in progress"), "{said:?}");
    assert!(said.stdout.contains("stops in 43200.0 s at the latest"), "{said:?}");
    // Longer than a drain without calls takes to find that there is nothing to do.
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(server.stat(&place, "strowger_draining"), 1.0);
    let bye = agent.in_dialog("BYE", &call, &answer);
    agent.send(&bye);
    phone.respond(&phone.expect("BYE", |message| message.is("BYE")), 200, &[]);
    assert_eq!(agent.final_for(&bye).status(), Some(200));
    let outcome = server.finish(Duration::from_secs(5));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stderr.contains("no request waits for its answer any more, and no call is in progress"), "{outcome:?}");
    drop((agent, phone));

    // The deadline ends it all the same, and a drain without calls does not wait for them.
    for arguments in [&["drain", "--calls", "--deadline", "1"][..], &["drain"]] {
        let server = conf().start(&place);
        let (_agent, _phone, ..) = establish(&server);
        assert_eq!(server.command(&place, arguments).code, Some(0));
        let outcome = server.finish(Duration::from_secs(5));
        let is_late = outcome.stderr.contains("and 1 calls go on without this server");
        assert_eq!((outcome.code, is_late), (Some(0), arguments.len() > 1), "{outcome:?}");
    }

    // Where nobody knows of calls, nothing begins.
    let blind = Conf::new(&place).start(&place);
    let said = blind.command(&place, &["drain", "--calls"]);
    assert!(said.code == Some(1) && said.stderr.contains("set [records] file"), "{said:?}");
    assert_eq!(blind.stat(&place, "strowger_draining"), 0.0);
    drop(blind);
    let aside = conf().set("proxy", "record_route", "false").start(&place);
    let said = aside.command(&place, &["drain", "--calls"]);
    assert!(said.code == Some(1) && said.stderr.contains("[proxy] record_route is false"), "{said:?}");
}

#[test]
fn a_drain_ends_at_its_deadline() {
    let place = Place::new("desk-deadline");
    for by_signal in [true, false] {
        let deadline = if by_signal { "\"1s\"" } else { "\"1h\"" };
        let server = Conf::new(&place).set("server", "drain_deadline", deadline).start(&place);
        let agent = Agent::new(place.at(CALLER), server.address);
        let phone = Agent::new(place.at(CALLEE), server.address);
        server.bind(&place, "bob", phone.address);
        agent.send(&agent.request("INVITE", &server.uri("bob")));
        phone.expect("INVITE", |message| message.is("INVITE"));
        let began = Instant::now();
        match by_signal {
            true => server.signal("TERM"),
            false => {
                // The second time another deadline; and it waits for the end.
                assert_eq!(server.command(&place, &["drain"]).code, Some(0));
                let said = server.command(&place, &["drain", "--deadline", "1", "--wait"]);
                assert_eq!(said.code, Some(0), "{said:?}");
            }
        }
        let outcome = server.finish(Duration::from_secs(10));
        let took = began.elapsed();
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert!(took > Duration::from_millis(900) && took < Duration::from_secs(5), "{took:?}");
        let line = outcome.stderr.lines().find(|line| line.contains("which is the deadline"));
        let line = line.expect("a line at the end");
        assert!(line.contains("WARN") && line.contains("1 requests still wait"), "{line}");
    }
}

#[test]
fn a_server_with_nothing_to_do_stops_at_once() {
    let place = Place::new("desk-idle-end");
    let server = Conf::new(&place).start(&place);
    server.signal("TERM");
    let outcome = server.finish(Duration::from_secs(2));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
}

// ---- the log -------------------------------------------------------------------------------------------------------------

#[test]
fn the_level_of_the_log_changes_while_it_runs() {
    let place = Place::new("desk-log");
    let server = Conf::new(&place).start(&place);
    let log = |arguments: &[&str]| {
        let outcome = server.command(&place, &[&["log"], arguments].concat());
        (outcome.code, outcome.stdout.trim().to_owned())
    };
    let refused = |user: &str| {
        let said = server.log().len();
        let agent = Agent::new(place.at_port(CALLER, 0), server.address);
        assert_eq!(invite(&agent, &server, user).status(), Some(404));
        std::thread::sleep(Duration::from_millis(100));
        server.log()[said..].contains(user)
    };
    assert_eq!(log(&[]), (Some(0), "info".to_owned()));
    assert!(refused("nobody"));
    assert_eq!(log(&["error"]), (Some(0), "error (before: info)".to_owned()));
    assert!(!refused("nobody"));
    assert_eq!(log(&["off"]), (Some(0), "off (before: error)".to_owned()));
    assert_eq!(log(&["trace"]), (Some(0), "trace (before: off)".to_owned()));
    assert!(refused("nobody"));
    assert_eq!(log(&["loud"]).0, Some(2));
    // A reload leaves it alone unless the conf says something new.
    reloaded(&place, &server);
    assert_eq!(log(&[]), (Some(0), "trace".to_owned()));
    Conf::new(&place).set("log", "level", "\"warn\"").write(&place);
    reloaded(&place, &server);
    assert_eq!(log(&[]), (Some(0), "warn".to_owned()));
    drop(server);

    let server = Conf::new(&place).start_with(&place, &[("RUST_LOG", "warn,worker=debug")]);
    let now = server.command(&place, &["log"]);
    assert_eq!(now.stdout.trim(), "warn,worker=debug (by RUST_LOG)");
    reloaded(&place, &server);
    assert!(!server.log().contains("reloaded"), "{}", server.log());
    assert!(server.command(&place, &["log", "info"]).stdout.starts_with("info (before: warn,worker=debug"));
    let said = server.log().len();
    reloaded(&place, &server);
    server.expect_log_after(said, &["reloaded"]);
}

/// With everything logged that there is, neither the password nor what is made of it stands in the log.
#[test]
fn no_secret_is_logged() {
    let place = Place::new("desk-secrets");
    let server = guarded(&place, &["phone", "caller"]).set("log", "level", "\"trace\"").start(&place);
    let secrets = crate::auth::register_and_fail(&place, &server);
    assert!(secrets.len() > 4, "{secrets:?}");
    assert_eq!(server.command(&place, &["reload"]).code, Some(0));
    assert_eq!(server.command(&place, &["ul", "show"]).code, Some(0));
    let agent = Agent::new(place.at_port(STRANGER, 0), server.address);
    let mut forged = agent.request("OPTIONS", &format!("sip:{}", server.address));
    forged.extra.push("Authorization: Digest open-phone".to_owned());
    agent.ask(&forged);
    let log = server.log();
    assert!(log.contains("wrong password"), "{log}");
    let key = std::fs::read(place.path("strowger.key")).expect("the server's key");
    let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let hashes = std::fs::read_to_string(place.path("users.txt")).expect("the users");
    let hashes = hashes.lines().map(|line| line.rsplit(':').next().unwrap().to_owned());
    for secret in secrets.into_iter().chain(hashes).chain([key, "open-phone".to_owned(), "response=".to_owned()]) {
        assert!(!log.contains(&secret), "{secret} in the log:\n{log}");
    }
}

#[test]
fn what_is_refused_has_a_line() {
    let place = Place::new("desk-lines");
    let server = guarded(&place, &["phone"])
        .set("registrar", "max_contacts", "1")
        .set("registrar", "min_expires", "\"30s\"")
        .stream("tcp", place.at(SERVER))
        .start(&place);
    let agent = Agent::new(place.at(CALLER), server.address);
    let peer = agent.address.to_string();
    // What is no SIP at all, and what cannot be read as far as to be answered.
    agent.send_bytes(b"GET / HTTP/1.1\r\n\r\n");
    server.expect_log(&[&peer, "dropped", "unreadable"]);
    agent.send_bytes(b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\r\n\r\n");
    server.expect_log(&[&peer, "dropped", "bad_response"]);
    let other = Agent::tcp(place.ip(STRANGER), server.address);
    other.send_bytes(b"INVITE sip:a SIP/2.0\r\nContent-Length: many\r\n\r\n");
    server.expect_log(&["TCP", &place.ip(STRANGER).to_string()]);
    // The control socket.
    let mut control = std::os::unix::net::UnixStream::connect(place.path("control.sock")).unwrap();
    control.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"selfdestruct\"}\n").unwrap();
    server.expect_log(&["control socket", "refused", "selfdestruct"]);
    let outcome = server.command(&place, &["ul", "rm", "nobody"]);
    assert_eq!(outcome.code, Some(1));
    server.expect_log(&["control socket", "refused", "nobody"]);
}

/// Of all that wait because a limit is reached there is one line, not one each.
#[test]
fn a_limit_that_is_hit_has_one_line() {
    let place = Place::new("desk-limit");
    let authority = Authority::new(&place, "ca");
    let certificate = authority.issue(&place, "server", Kind::Ecdsa, &["sip.example.test"]);
    let hello = crate::tls_server::hello(&place);
    let server = Conf::new(&place).tls(&place, &[&certificate]).set("connections", "handshakes", "2").start(&place);
    let began = Instant::now();
    let silent: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(server.secure()).expect("the kernel takes it");
            stream.write_all(&hello).expect("a ClientHello");
            stream
        })
        .collect();
    server.expect_log(&["WARN", "TLS clients wait: handshakes in progress: 1, limit: 2 ([connections] handshakes)"]);
    // At most one in a second, however long the machine let us wait.
    let (log, most) = (server.log(), 1 + began.elapsed().as_secs() as usize);
    let lines = log.matches("TLS clients wait").count();
    assert!((1..=most).contains(&lines), "{log}");
    assert!(server.stats(&place)["strowger_limit_hits_total{limit=\"tls_handshakes\"}"] >= 1.0);
    drop(silent);
}

// ---- metrics -------------------------------------------------------------------------------------------------------------

fn get(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the endpoint");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut all = String::new();
    stream.read_to_string(&mut all).expect("an answer");
    all
}

/// Prints one line for each family: name, kind, number of samples, help; read by the parser of Prometheus's own Python library.
const PARSE: &str = "
import sys, urllib.request
from prometheus_client.parser import text_string_to_metric_families
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
with direct.open('http://%s/metrics' % sys.argv[1], timeout=10) as answer:
    assert answer.headers['Content-Type'] == 'text/plain; version=0.0.4; charset=utf-8', answer.headers
    text = answer.read().decode()
for family in text_string_to_metric_families(text):
    print(family.name, family.type, len(family.samples), family.documentation)
    if family.type == 'histogram':
        series = {}
        for s in family.samples:
            labels = tuple(sorted((key, value) for key, value in s.labels.items() if key != 'le'))
            series.setdefault(labels, []).append(s)
        for samples in series.values():
            buckets = [s.value for s in samples if s.name.endswith('_bucket')]
            assert buckets == sorted(buckets), buckets
            assert samples[-1].name.endswith('_count') or samples[-1].name.endswith('_sum')
            count = [s.value for s in samples if s.name.endswith('_count')]
            last = [s.value for s in samples if s.labels.get('le') == '+Inf']
            assert count == last and len(count) == 1, (count, last)
            # The loop has turned; nobody has called.
            assert (count[0] > 0) == (family.name == 'strowger_loop_delay_seconds'), (family.name, count)
";

#[test]
fn a_scrape_is_what_prometheus_reads() {
    let place = Place::new("desk-scrape");
    let address = place.at_port(SERVER, 9090);
    let conf = Conf::new(&place).set("metrics", "address", &format!("\"{address}\""));
    let server = conf.start(&place);
    let agent = Agent::new(place.at(CALLER), server.address);
    let options = agent.request("OPTIONS", &format!("sip:{}", server.address));
    assert_eq!(agent.ask(&options).status(), Some(200));

    let script = place.write("parse.py", PARSE).display().to_string();
    let parsed = process::run(
        &place,
        "parse",
        // That of the distribution, for which the parser is installed.
        Path::new("/usr/bin/python3"),
        &[&script, &address.to_string()],
        Duration::from_secs(30),
    );
    assert_eq!(parsed.code, Some(0), "{parsed:?}");
    let families: Vec<Vec<&str>> = parsed.stdout.lines().map(|line| line.splitn(4, ' ').collect()).collect();
    for (name, kind) in NAMES {
        // The parser takes the ending off that every counter has.
        let bare = name.strip_suffix("_total").unwrap_or(name);
        let family = families.iter().find(|family| family[0] == bare);
        let family = family.unwrap_or_else(|| panic!("no {name} in\n{}", parsed.stdout));
        assert_eq!(family[1], kind, "{family:?}");
        assert_ne!(family[2], "0", "{family:?}");
        assert!(family[3].len() > 10, "{family:?}");
    }
    // What a scrape has, "stats" has too, and the other way round.
    let text = get(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let (head, body) = text.split_once("\r\n\r\n").expect("a body");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let scraped: Vec<&str> =
        body.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').expect("a value").0).collect();
    let stats = server.command(&place, &["stats"]);
    let told: Vec<&str> = stats.stdout.lines().map(|line| line.rsplit_once(' ').expect("a value").0).collect();
    assert_eq!(scraped, told);
    for (request, status) in [("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404"), ("DELETE /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "405")]
    {
        assert!(get(address, request).starts_with(&format!("HTTP/1.1 {status} ")));
    }

    // Slow clients take all places: calls go on, and so do scrapes, for which the oldest of them gives way.
    let connect = |_| TcpStream::connect(address).expect("the kernel takes it");
    let slow: Vec<TcpStream> = (0..30).map(connect).collect();
    let options = agent.request("OPTIONS", &format!("sip:{}", server.address));
    assert_eq!(agent.ask(&options).status(), Some(200));
    for _ in 0..5 {
        let answer = get(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    server.expect_log(&["WARN", "metrics", "which is the limit"]);
    let displaced = server.stats(&place)["strowger_limit_hits_total{limit=\"desk_clients\"}"];
    assert!((22.0..=30.0).contains(&displaced), "{displaced}");
    drop(slow);

    // By a reload it moves, and goes.
    let next = place.at_port(SERVER, 9091);
    let moved = Conf::new(&place).set("metrics", "address", &format!("\"{next}\""));
    moved.write(&place);
    reloaded(&place, &server);
    assert!(get(next, "GET /metrics HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 200 "));
    assert!(TcpStream::connect(address).is_err(), "it has moved");
    // An address that is taken refuses the reload, whole.
    let taken = TcpListener::bind(address).expect("free again");
    conf.write(&place);
    let refused = reload(&place, &server);
    assert!(refused.code == Some(1) && refused.stderr.contains("[metrics] address"), "{refused:?}");
    assert!(get(next, "GET /metrics HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 200 "));
    drop(taken);
    Conf::new(&place).write(&place);
    reloaded(&place, &server);
    assert!(TcpStream::connect(next).is_err(), "it is gone");
}

// ---- top -----------------------------------------------------------------------------------------------------------------

#[test]
fn top_prints_one_screen_where_there_is_no_terminal() {
    let place = Place::new("desk-top");
    let server = Conf::new(&place).start(&place);
    let over = AtomicBool::new(false);
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            let agent = Agent::new(place.at(CALLER), server.address);
            while !over.load(Ordering::Relaxed) {
                agent.ask(&agent.request("OPTIONS", &format!("sip:{}", server.address)));
                agent.forget();
            }
        });
        let outcome = server.command(&place, &["top", "--interval", "0.5"]);
        over.store(true, Ordering::Relaxed);
        outcome
    });
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert!((15..=24).contains(&lines.len()), "{}", outcome.stdout);
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{}", outcome.stdout);
    assert!(lines[0].starts_with("strowger "), "{}", outcome.stdout);
    let udp = lines.iter().find(|line| line.starts_with("udp")).expect("a line for UDP");
    let requests: f64 = udp.split_whitespace().nth(1).unwrap().parse().expect("a rate");
    assert!(requests > 10.0, "{udp}");
    drop(server);
    let gone = process::run(&place, "top", binary(), &["--control", "nowhere.sock", "top", "--once"], Duration::from_secs(5));
    assert!(gone.code == Some(1) && gone.stderr.contains("no server answers at nowhere.sock"), "{gone:?}");
}

/// In a terminal it takes the screen, draws, says so when the server goes, finds the next one, and gives the screen back.
#[test]
fn top_lives_in_a_terminal() {
    let place = Place::new("desk-tty");
    let conf = Conf::new(&place);
    let server = conf.start(&place);
    let control = place.path("control.sock").display().to_string();
    let top = format!("stty rows 24 cols 80; exec '{}' --control '{control}' top --interval 0.2", binary().display());
    let arguments = ["-q", "-e", "-f", "-c", &top, "/dev/null"].map(str::to_owned);
    let (process, mut keys) = Process::converse(&place, "top", Path::new("script"), &arguments);
    let shows = |text: &str| {
        let seen = wait_for(Duration::from_secs(10), || process.stdout().contains(text).then_some(()));
        assert!(seen.is_some(), "no {text:?} on the screen:\n{}", process.stdout());
    };
    shows("\u{1b}[?1049h");
    shows("q quits");
    shows("loop turns/s");
    server.signal("KILL");
    server.finish(Duration::from_secs(5));
    shows("no server answers at");
    let server = conf.start(&place);
    let before = process.stdout().len();
    let again = wait_for(Duration::from_secs(10), || {
        let now = process.stdout();
        now.get(before..)?.contains("q quits").then_some(())
    });
    assert!(again.is_some(), "{}", process.stdout());
    keys.write_all(b"q").expect("a key");
    let outcome = process.finish(Duration::from_secs(5));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stdout.contains("\u{1b}[?1049l"), "the screen is given back");
    assert!(outcome.stdout.contains("\u{1b}[?25h"), "and the cursor");
    drop(server);
}
