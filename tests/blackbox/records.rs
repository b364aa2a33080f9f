//! The records of calls on their way out: to a file that is moved away, to a socket that nobody reads, to a disk that is full.

use serde_json::Value;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::UAC;
use crate::UAS;
use crate::agent::{Agent, Request};
use crate::failures::assert_call_works;
use crate::message::Message;
use crate::place::{CALLEE, CALLER, Place, wait_for};
use crate::server::{Conf, Server};
use crate::sipp::{Scenario, Sipp};

const CALLS: u32 = 20;

fn conf(place: &Place, to: &str) -> Conf {
    Conf::new(place).set("records", "file", &format!("{to:?}"))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a record")).collect()
}

/// The records of a file, when there are so many.
#[track_caller]
fn records(file: &Path, count: usize) -> Vec<Value> {
    let found = wait_for(Duration::from_secs(5), || {
        let text = fs::read_to_string(file).unwrap_or_default();
        let is_whole = text.is_empty() || text.ends_with('\n');
        (is_whole && text.lines().count() >= count).then_some(text)
    });
    let text = found.unwrap_or_else(|| panic!("{count} records: {:?}", fs::read_to_string(file)));
    let all = lines(&text);
    assert_eq!(all.len(), count, "{text}");
    all
}

/// A call that is answered and goes on; the phone that called, its INVITE and the answer.
fn answered(place: &Place, server: &Server) -> (Agent, Request, Message) {
    let phone = Agent::new(place.at(CALLEE), server.address);
    server.bind(place, "bob", phone.address);
    let caller = Agent::new(place.at(CALLER), server.address);
    let invite = caller.request("INVITE", &server.uri("bob"));
    caller.send(&invite);
    let arrived = phone.expect("INVITE", |message| message.is("INVITE"));
    phone.accept(&arrived);
    let accepted = caller.final_for(&invite);
    assert_eq!(accepted.status(), Some(200), "{accepted:?}");
    caller.send(&caller.in_dialog("ACK", &invite, &accepted));
    phone.expect("ACK", |message| message.is("ACK"));
    (caller, invite, accepted)
}

#[test]
fn each_call_of_sipp_leaves_one_line() {
    let place = Place::new("records");
    let file = place.path("calls.json");
    let server = conf(&place, &file.display().to_string()).start(&place);
    server.bind(&place, "bob", place.at(CALLEE));
    let contact = place.at(CALLEE).to_string();
    let callee = Sipp::new(&place, "uas", place.at(CALLEE), Scenario::Text(UAS))
        .with(&["-key", "contact_user", "bob", "-key", "contact", &contact])
        .calls(CALLS)
        .answer();
    let now_ms = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let before_ms = now_ms();
    Sipp::new(&place, "uac", place.at(CALLER), Scenario::Text(UAC))
        .calls(CALLS)
        .with(&["-r", "20"])
        .call("bob", server.address, server.address)
        .succeed(CALLS);
    callee.succeed(CALLS);
    let took_ms = (now_ms() - before_ms) as u64;
    let all = records(&file, CALLS as usize);
    let mut ids: Vec<_> = all.iter().map(|record| record["call_id"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), CALLS as usize);
    for record in &all {
        assert_eq!((&record["end"], &record["status"]), (&"caller".into(), &200.into()), "{record}");
        assert_eq!(record["source"], place.at(CALLER).to_string());
        let to = place.at(CALLEE).to_string();
        assert_eq!(record["tried"], serde_json::json!([{"to": to, "transport": "UDP", "status": 200}]));
        let ms = |key: &str| record[key].as_u64().unwrap_or_else(|| panic!("{key}: {record}"));
        assert!(ms("ringing_ms") <= ms("answered_ms") && ms("answered_ms") <= ms("ended_ms"), "{record}");
        assert!(ms("ended_ms") <= took_ms, "{record}");
    }
    // All began within these seconds, by the clock on the wall.
    let seconds = |ms: u128| strowger::base::Timestamp(ms as u64).to_string()[..16].to_owned();
    let about = [seconds(before_ms), seconds(now_ms())];
    assert!(all.iter().all(|record| about.contains(&record["start"].as_str().unwrap()[..16].to_owned())), "{all:#?}");
    let stats = server.stats(&place);
    assert_eq!(stats["strowger_records_written_total"], f64::from(CALLS));
    assert_eq!((stats["strowger_records_lost_total"], stats["strowger_dialogs"]), (0.0, 0.0));
    let row = "{route=\"none\",target=\"location\",code=\"200\"}";
    assert_eq!(stats[&format!("strowger_route_responses_total{row}")], f64::from(CALLS));
    assert_eq!(stats["strowger_call_setup_seconds_count{route=\"none\"}"], f64::from(CALLS));
}

/// As logrotate does it. A conf that cannot be read does not stop that.
#[test]
fn a_file_that_was_moved_away_is_made_anew_by_sighup() {
    let place = Place::new("records-rotate");
    let (file, moved) = (place.path("calls.json"), place.path("calls.json.1"));
    let server = conf(&place, &file.display().to_string()).start(&place);
    assert_call_works(&place, &server, "bob", 5070);
    records(&file, 1);
    for (spoilt, sign) in [(false, "reloaded"), (true, "reload refused")] {
        fs::rename(&file, &moved).unwrap();
        if spoilt {
            place.write("strowger.toml", "nonsense = 1\n");
        }
        server.signal("HUP");
        server.expect_log(&[sign]);
        assert_call_works(&place, &server, "bob", if spoilt { 5072 } else { 5071 });
        records(&file, 1);
        records(&moved, 1);
    }
}

#[test]
fn a_socket_gets_them_and_its_reader_may_come_and_go() {
    let place = Place::new("records-socket");
    let path = place.path("records.sock");
    let server = conf(&place, &format!("unixgram:{}", path.display())).start(&place);
    server.expect_log(&["nobody listens", "records.sock"]);
    // Nobody is there as yet: the call does not care, and its record waits.
    assert_call_works(&place, &server, "bob", 5070);
    let reader = UnixDatagram::bind(&path).unwrap();
    reader.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut line = [0; 4096];
    let mut next = |reader: &UnixDatagram| {
        let len = reader.recv(&mut line).expect("a record");
        let text = std::str::from_utf8(&line[..len]).unwrap().to_owned();
        let mut all = lines(&text);
        assert_eq!(all.len(), 1, "a datagram for each: {text}");
        all.remove(0)
    };
    assert_eq!(next(&reader)["end"], "caller");
    // It stops reading while its queue is full: calls go on.
    for port in 5071..5091 {
        assert_call_works(&place, &server, &format!("user{port}"), port);
    }
    for _ in 5071..5091 {
        assert_eq!(next(&reader)["status"], 200);
    }
    assert_eq!(server.stat(&place, "strowger_records_lost_total"), 0.0);
}

/// The limit of a file's size (RLIMIT_FSIZE) comes with a signal that ends a process. Every line is whole in one file.
#[test]
fn a_file_that_may_not_grow_stops_no_call_and_no_line_is_torn() {
    let place = Place::new("records-limit");
    let (file, moved) = (place.path("calls.json"), place.path("calls.json.1"));
    let conf = conf(&place, &file.display().to_string()).set("log", "level", "\"warn\"");
    let mut server = conf.start_by(&place, "ulimit -S -f 8; exec \"$@\"");
    for port in 5070..5090 {
        assert_call_works(&place, &server, &format!("user{port}"), port);
    }
    server.expect_log(&["calls.json does not take them", "File too large"]);
    let old = fs::read_to_string(&file).unwrap();
    assert!(old.len() <= 4096 && old.ends_with('\n'), "{old}");
    fs::rename(&file, &moved).unwrap();
    let first = lines(&old).len();
    assert!((5..20).contains(&first), "{old}");
    server.signal("HUP");
    let rest = (20 - first).min(first);
    wait_for(Duration::from_secs(5), || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        (text.lines().count() >= rest).then_some(())
    });
    let new = fs::read_to_string(&file).unwrap();
    let mut ids: Vec<_> = lines(&old).iter().chain(&lines(&new)).map(|record| record["call_id"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), lines(&old).len() + lines(&new).len(), "none twice");
    server.assert_alive(&place, CALLER);
}

/// "strowger reload" finds the server by a conf that the server then refuses, and the file is made anew.
#[test]
fn a_reload_by_command_makes_the_file_anew_even_if_the_conf_is_refused() {
    let place = Place::new("records-refused");
    let (file, moved) = (place.path("calls.json"), place.path("calls.json.1"));
    let conf = conf(&place, &file.display().to_string());
    let server = conf.start(&place);
    for fault in ["nonsense = 1\n", "[proxy]\nfork = \"both\"\n", "[limits\nx\n"] {
        fs::rename(&file, &moved).unwrap();
        let path = place.write("strowger.toml", &format!("{}{fault}", conf.text()));
        let arguments = ["reload", "-c", path.to_str().unwrap()];
        let outcome = crate::process::run(&place, "reload", crate::server::binary(), &arguments, Duration::from_secs(5));
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stderr.contains("strowger.toml:"), "{outcome:?}");
        server.expect_log(&["reload refused"]);
        assert!(wait_for(Duration::from_secs(5), || file.exists().then_some(())).is_some(), "{fault}");
    }
}

#[test]
fn a_full_disk_stops_no_call() {
    let place = Place::new("records-full");
    let mut server = conf(&place, "/dev/full").start(&place);
    assert_call_works(&place, &server, "bob", 5070);
    server.expect_log(&["records: /dev/full does not take them", "No space left"]);
    assert_call_works(&place, &server, "bob", 5071);
    assert_eq!(server.stat(&place, "strowger_records_written_total"), 0.0);
    server.assert_alive(&place, CALLER);
    server.signal("TERM");
    let outcome = server.finish(Duration::from_secs(10));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stderr.contains("records of calls: 2 are lost at the end: /dev/full"), "{outcome:?}");
}

/// The server stops: a call that goes on without it leaves its record.
#[test]
fn at_the_end_of_the_server_nothing_is_lost() {
    let place = Place::new("records-end");
    let file = place.path("calls.json");
    let server = conf(&place, &file.display().to_string()).start(&place);
    let (_caller, invite, _) = answered(&place, &server);
    assert_eq!(server.stat(&place, "strowger_dialogs"), 1.0);
    assert!(fs::read_to_string(&file).unwrap().is_empty());
    server.signal("TERM");
    assert_eq!(server.finish(Duration::from_secs(10)).code, Some(0));
    let record = records(&file, 1).remove(0);
    assert_eq!((&record["end"], &record["status"]), (&"unseen".into(), &200.into()));
    assert!(String::from_utf8(invite.bytes()).unwrap().contains(record["call_id"].as_str().unwrap()));
}

#[test]
fn a_file_that_cannot_be_written_is_said_at_the_start() {
    let place = Place::new("records-nowhere");
    let fifo = place.path("fifo").display().to_string();
    let made = crate::process::run(&place, "mkfifo", Path::new("mkfifo"), &[&fifo], Duration::from_secs(5));
    assert_eq!(made.code, Some(0), "{made:?}");
    for (to, why) in [("/nonexistent/calls.json", "No such file"), (&fifo, "FIFO"), ("/proc/calls.json", "")] {
        let file = conf(&place, to).write(&place);
        for command in ["check", "run"] {
            let arguments = [command, "-c", file.to_str().unwrap()];
            let outcome = crate::process::run(&place, "strowger", crate::server::binary(), &arguments, Duration::from_secs(5));
            assert_eq!(outcome.code, Some(1), "{outcome:?}");
            assert!(outcome.stderr.contains(&format!("[records] file: {to}")) && outcome.stderr.contains(why), "{outcome:?}");
        }
    }
}

/// The line of the log that says why has the Call-ID in every format.
#[test]
fn a_line_of_the_log_bears_the_call_id() {
    for (format, word) in [("text", "; Call-ID "), ("json", "\"call_id\":\"")] {
        let place = Place::new(&format!("records-log-{format}"));
        let server = Conf::new(&place).set("log", "format", &format!("{format:?}")).start(&place);
        let caller = Agent::new(place.at(CALLER), server.address);
        let invite = caller.request("INVITE", &server.uri("nobody"));
        assert_eq!(caller.ask(&invite).status(), Some(404));
        let text = String::from_utf8(invite.bytes()).unwrap();
        let call_id = text.lines().find_map(|line| line.strip_prefix("Call-ID: ")).unwrap();
        server.expect_log(&["routing", "answered 404", &format!("{word}{call_id}")]);
    }
}
