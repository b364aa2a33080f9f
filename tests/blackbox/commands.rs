//! The command line: exit codes, refusals, counters, the end.

use std::time::Duration;

use crate::agent::Agent;
use crate::failures::assert_call_works;
use crate::place::{CALLER, Place, wait_for};
use crate::process::{self, Outcome, Process};
use crate::server::{Conf, binary};

fn strowger(place: &Place, arguments: &[&str]) -> Outcome {
    process::run(place, "strowger-command", binary(), arguments, Duration::from_secs(10))
}

#[test]
fn version_and_help() {
    let place = Place::new("version");
    let version = strowger(&place, &["--version"]);
    assert_eq!(version.code, Some(0));
    assert!(version.stdout.starts_with(&format!("strowger {}", env!("CARGO_PKG_VERSION"))), "{version:?}");
    for arguments in [
        vec!["--help"],
        vec!["run", "--help"],
        vec!["check", "--help"],
        vec!["ul", "--help"],
        vec!["ul", "add", "--help"],
        vec!["stats", "--help"],
    ] {
        let help = strowger(&place, &arguments);
        assert!(help.code == Some(0) && help.stdout.contains("Usage"), "{arguments:?}: {help:?}");
    }
}

#[test]
fn wrong_usage() {
    let place = Place::new("usage");
    for arguments in [
        vec!["nonsense"],
        vec!["run", "--nonsense"],
        vec!["ul"],
        vec!["ul", "add"],
        vec!["ul", "add", "a@b", "sip:c@d", "--expires", "soon"],
        vec!["check", "a", "b"],
    ] {
        let outcome = strowger(&place, &arguments);
        assert!(outcome.code == Some(2) && !outcome.stderr.is_empty(), "{arguments:?}: {outcome:?}");
    }
}

#[test]
fn check_finds_what_is_wrong() {
    let place = Place::new("check");
    let good = Conf::new(&place).write(&place);
    let good = strowger(&place, &["check", "-c", &good.display().to_string()]);
    assert!(good.code == Some(0) && !good.stdout.trim().is_empty(), "{good:?}");
    let by_name = "action = \"relay\"\ntarget = [\"sip:gate.example.net\"]";
    let by_name = Conf::new(&place).route(by_name).write(&place);
    let by_name = strowger(&place, &["check", "-c", &by_name.display().to_string()]);
    let line = "next hop   by name, sip:gate.example.net";
    assert!(by_name.stdout.contains(line), "{by_name:?}");

    let cases = [
        ("[server]\ncores = [0]\n\n[proxy]\n  recrod_route = true\n", 5, 3, "record_route"),
        ("[regstrar]\nmax_contacts = 1\n", 1, 2, "registrar"),
        ("[timers]\nt1 = \"half a second\"\n", 2, 6, "500ms"),
        ("[[listen]]\ntransport = \"udp\"\naddress = \"here\"\n", 3, 11, "here"),
        ("[proxy]\nmode = \"statefull\"\n", 2, 8, "stateful"),
        ("[proxy]\nmode = \"stateful\n", 2, 0, ""),
    ];
    for (text, line, column, hint) in cases {
        let file = place.write("wrong.toml", text).display().to_string();
        let wrong = strowger(&place, &["check", "-c", &file]);
        assert_eq!(wrong.code, Some(1), "{text}: {wrong:?}");
        let said = wrong.stderr.trim();
        let place_named = if column > 0 { format!("{file}:{line}:{column}: ") } else { format!("{file}:{line}:") };
        assert!(said.starts_with(&place_named), "{text}: expected {place_named}, and read {said}");
        assert!(said.contains(hint), "{text}: no {hint} in {said}");
        let run = strowger(&place, &["run", "-c", &file]);
        assert_eq!(run.code, Some(1), "run refuses what check refuses: {run:?}");
        assert!(run.stderr.contains(&place_named), "{run:?}");
    }
    let missing = strowger(&place, &["check", "-c", "/nonexistent/strowger.toml"]);
    assert!(missing.code == Some(1) && missing.stderr.contains("/nonexistent/strowger.toml"), "{missing:?}");
}

#[test]
fn the_confs_that_come_along_are_right() {
    let place = Place::new("confs");
    for name in ["strowger", "chain", "outbound", "inbound", "local"] {
        let file = format!("{}/conf/{name}.toml", env!("CARGO_MANIFEST_DIR"));
        let outcome = strowger(&place, &["check", "-c", &file]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert!(outcome.stdout.contains("tcp 127.0.0.1:5060"), "{outcome:?}");
    }
}

/// A second server on the same port, or on the same control socket, says so and leaves the first one alone.
#[test]
fn a_second_instance_is_refused() {
    let place = Place::new("second");
    let mut server = Conf::new(&place).start(&place);
    let same_port = Conf::new(&place).set("control", "socket", &format!("{:?}", place.path("other.sock").display().to_string()));
    let same_socket = Conf::new(&place).only(place.at_port(CALLER, 5099));
    for (conf, named) in [(same_port, server.address.to_string()), (same_socket, "control.sock".to_owned())] {
        // That of the first one is refused before ports are asked for (durability).
        let conf = conf.set("registrar", "database", "\"\"");
        let file = place.write("second.toml", &conf.text()).display().to_string();
        let second = strowger(&place, &["run", "-c", &file]);
        assert_eq!(second.code, Some(1), "{second:?}");
        assert!(second.stderr.contains(&named), "{second:?}");
    }
    server.assert_alive(&place, CALLER);
    assert_eq!(server.command(&place, &["stats"]).code, Some(0), "the first one's control socket still works");
}

#[test]
fn nobody_at_the_control_socket() {
    let place = Place::new("nocontrol");
    let socket = place.path("nobody.sock").display().to_string();
    for command in [vec!["stats"], vec!["ul", "show"]] {
        let mut arguments = vec!["--control", socket.as_str()];
        arguments.extend(command);
        let outcome = strowger(&place, &arguments);
        assert!(
            outcome.code == Some(1) && outcome.stderr.trim().lines().count() == 1 && outcome.stderr.contains("nobody.sock"),
            "{outcome:?}"
        );
    }
}

/// SIGTERM ends an idle server with 0; the control socket goes with it, and the same conf starts again.
#[test]
fn the_end_and_a_new_beginning() {
    let place = Place::new("end");
    let conf = Conf::new(&place);
    for _ in 0..2 {
        let server = conf.start(&place);
        assert!(server.command(&place, &["stats"]).code == Some(0));
        server.signal("TERM");
        let outcome = server.finish(Duration::from_secs(5));
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert!(!place.path("control.sock").exists());
    }
    // Killed, it leaves its socket behind; that must not keep the next one from starting.
    let server = conf.start(&place);
    server.signal("KILL");
    server.finish(Duration::from_secs(5));
    let server = conf.start(&place);
    server.signal("INT");
    server.finish(Duration::from_secs(5));
}

/// The counters tell what happened, as text and as JSON, all or by prefix.
#[test]
fn counters() {
    let place = Place::new("stats");
    let server = Conf::new(&place).start(&place);
    assert_call_works(&place, &server, "bob", 5080);
    let agent = Agent::new(place.at(CALLER), server.address);
    agent.send_bytes(b"\r\n\r\n");
    agent.send_bytes(b"this is no SIP");
    assert_eq!(agent.ask(&agent.request("OPTIONS", &format!("sip:{}", server.address))).status(), Some(200));
    let stats = server.stats(&place);
    let count = |name: &str, label: &str| -> f64 {
        stats.iter().filter(|(key, _)| key.starts_with(name) && key.contains(label)).map(|(_, value)| value).sum()
    };
    for method in ["INVITE", "ACK", "BYE", "OPTIONS"] {
        assert_eq!(count("strowger_requests_total", &format!("method=\"{method}\"")), 1.0, "{method}: {stats:#?}");
    }
    assert_eq!(stats.get("strowger_bindings"), Some(&1.0));
    assert!(count("strowger_dropped_total", "") >= 1.0, "{stats:#?}");
    // Of the callee's: to the INVITE and to the BYE.
    assert_eq!(count("strowger_responses_total", "class=\"2"), 2.0, "{stats:#?}");
    assert!(count("strowger_messages_total", "transport=\"udp\"") >= 10.0, "{stats:#?}");

    let some = server.command(&place, &["stats", "strowger_requests"]);
    assert_eq!(some.code, Some(0));
    assert!(
        some.stdout.lines().all(|line| line.starts_with("strowger_requests") || line.starts_with('#'))
            && some.stdout.contains("INVITE"),
        "{some:?}"
    );
    let all = server.command(&place, &["stats"]);
    assert!(all.stdout.lines().count() > some.stdout.lines().count());
}

/// A server told to stop while a call is being set up says nothing wrong and does not hang.
#[test]
fn a_second_sigterm_stops_at_once() {
    let place = Place::new("sigterm");
    let conf = Conf::new(&place);
    let server = conf.start(&place);
    let agent = Agent::new(place.at(CALLER), server.address);
    let phone = Agent::new(place.at_port(CALLER, 5061), server.address);
    server.bind(&place, "bob", phone.address);
    agent.send(&agent.request("INVITE", &server.uri("bob")));
    phone.expect("INVITE", |message| message.is("INVITE"));
    server.signal("TERM");
    std::thread::sleep(Duration::from_millis(200));
    let mut process = server.into_process();
    if process.exited().is_none() {
        process.signal("TERM");
    }
    assert!(wait_for(Duration::from_secs(3), || process.exited()).is_some(), "two SIGTERMs stop the server");
    let _: Process = process;
}
