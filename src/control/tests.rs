//! The control socket as seen by a script and by our own client, on real sockets in a separate folder.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::server::Bounds;
use super::*;

/// An API with its own table, so that requests to it can be checked.
#[derive(Default)]
struct Table {
    entries: Mutex<Vec<AorEntry>>,
}

impl ControlApi for Table {
    fn version(&self) -> String {
        "1.2.3".to_owned()
    }

    fn metrics(&self) -> Families {
        let mut families = Families::default();
        families.gauge("strowger_bindings", "Contacts.").is(self.entries.lock().unwrap().len());
        families.histogram("strowger_loop_delay_seconds", "Turns.", &[0.5], &[1, 0], 0.25);
        families.counter("strowger_requests_total", "Requests.").of(&[("method", &"INVITE")], 1u64 << 40);
        families
    }

    fn health(&self) -> HealthReport {
        HealthReport { unready: vec!["draining".to_owned()], notes: vec!["the disk".to_owned()], ..HealthReport::default() }
    }

    fn drain(&self, deadline: Option<Duration>, calls: bool) -> Result<Draining, Refusal> {
        let deadline = deadline.unwrap_or(Duration::from_secs(30));
        Ok(Draining {
            calls: calls.then_some(3),
            pending: self.entries.lock().unwrap().len(),
            deadline_ms: deadline.as_millis() as u64,
        })
    }

    fn log(&self, level: Option<&str>) -> Result<String, Refusal> {
        match level {
            Some("loud") => Err(Refusal::Refused("loud: no level".to_owned())),
            level => Ok(level.unwrap_or("info").to_owned()),
        }
    }

    fn connections(&self) -> Vec<ConnectionEntry> {
        vec![ConnectionEntry {
            transport: "tls".to_owned(),
            peer: "192.0.2.7:5061".to_owned(),
            listener: "192.0.2.1:5061".to_owned(),
            outgoing: true,
            state: "open".to_owned(),
            quiet_ms: 1500,
            waiting_bytes: 7,
            process: 99,
        }]
    }

    fn reload(&self) -> Result<String, Refusal> {
        match self.entries.lock().unwrap().is_empty() {
            true => Ok("changed: nothing".to_owned()),
            false => Err(Refusal::Refused("a key that does not fit".to_owned())),
        }
    }

    fn ul_show(&self, aor: Option<&str>) -> Result<Vec<AorEntry>, Refusal> {
        let entries = self.entries.lock().unwrap();
        let Some(aor) = aor else {
            return Ok(entries.clone());
        };
        match entries.iter().find(|entry| entry.aor == aor) {
            Some(entry) => Ok(vec![entry.clone()]),
            None => Err(Refusal::NotFound(format!("{aor} is not registered"))),
        }
    }

    fn ul_add(&self, binding: &NewBinding) -> Result<u32, Refusal> {
        let NewBinding { aor, contact, expires, .. } = binding;
        if !contact.starts_with("sip:") {
            return Err(Refusal::Refused(format!("{contact:?} is not a SIP URI")));
        }
        let mut entries = self.entries.lock().unwrap();
        let expires = expires.unwrap_or(3600);
        let mut added = entry(aor, contact, u64::from(expires));
        if let Some(q) = binding.q {
            added.contacts[0].q = Some(q as f32);
        }
        added.contacts[0].path.extend(binding.path.clone());
        entries.push(added);
        Ok(expires)
    }

    fn ul_rm(&self, aor: &str, contact: Option<&str>) -> Result<usize, Refusal> {
        let mut entries = self.entries.lock().unwrap();
        let before = entries.len();
        entries.retain(|entry| entry.aor != aor || contact.is_some_and(|contact| entry.contacts[0].uri != contact));
        match before - entries.len() {
            0 => Err(Refusal::NotFound(format!("{aor} is not registered"))),
            removed => Ok(removed),
        }
    }
}

fn entry(aor: &str, contact: &str, expires_in_s: u64) -> AorEntry {
    AorEntry {
        aor: aor.to_owned(),
        contacts: vec![ContactEntry {
            uri: contact.to_owned(),
            q: Some(0.7),
            expires_in_s,
            call_id: "a84b4c76e66710".to_owned(),
            cseq: 314_159,
            path: vec!["<sip:edge.example.com;lr>".to_owned()],
            received: Some("192.0.2.1:5060".to_owned()),
        }],
    }
}

struct Folder {
    folder: tempfile::TempDir,
    table: Arc<Table>,
}

impl Folder {
    fn new() -> Folder {
        Folder { folder: tempfile::tempdir().unwrap(), table: Arc::default() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("strowger.sock")
    }

    fn start(&self, bounds: Bounds) -> Result<Server, String> {
        Server::start(&self.path(), self.table.clone(), bounds)
    }
}

/// A script: lines out, lines in.
struct Script(BufReader<UnixStream>);

impl Script {
    fn new(path: &Path) -> Script {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Script(BufReader::new(stream))
    }

    fn say(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// Returns the next line; `None` if the server has closed.
    fn hear(&mut self) -> Option<Value> {
        let mut line = String::new();
        // A server that closes with unread bytes of ours resets the connection.
        match self.0.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_str(&line).unwrap()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn ask(&mut self, line: &str) -> Value {
        self.say(&format!("{line}\n"));
        self.hear().unwrap()
    }
}

#[test]
fn a_client_does_what_the_desk_does() {
    let place = Folder::new();
    let _server = place.start(Bounds::default()).unwrap();
    let mut client = Client::connect(&place.path()).unwrap();
    assert_eq!(client.version().as_deref(), Ok("1.2.3"));
    assert_eq!(client.ul_show(None), Ok(vec![]));
    assert_eq!(client.reload(), Ok("changed: nothing".to_owned()));
    let connections = client.connections().unwrap();
    assert_eq!((connections.len(), connections[0].waiting_bytes), (1, 7));
    let binding =
        |aor: &str, contact: &str| NewBinding { aor: aor.to_owned(), contact: contact.to_owned(), ..NewBinding::default() };
    let short = NewBinding { expires: Some(60), ..binding("sip:1003@a", "sip:1003@192.0.2.100:5061") };
    assert_eq!(client.ul_add(&short), Ok(60));
    assert_eq!(client.ul_add(&binding("sip:1004@a", "sip:1004@192.0.2.100:5061")), Ok(3600));
    assert_eq!(client.reload(), Err("a key that does not fit".to_owned()));
    let first = entry("sip:1003@a", "sip:1003@192.0.2.100:5061", 60);
    let second = entry("sip:1004@a", "sip:1004@192.0.2.100:5061", 3600);
    assert_eq!(client.ul_show(None), Ok(vec![first.clone(), second]));
    assert_eq!(client.ul_show(Some("sip:1003@a")), Ok(vec![first]));
    assert_eq!(client.ul_show(Some("x")), Err("x is not registered".to_owned()));
    assert_eq!(client.ul_add(&binding("x", "tel:+1")), Err("\"tel:+1\" is not a SIP URI".to_owned()));
    assert!(client.ul_rm("sip:1004@a", Some("sip:other")).is_err());
    assert_eq!(client.ul_rm("sip:1004@a", Some("sip:1004@192.0.2.100:5061")), Ok(1));
    assert_eq!(client.ul_rm("sip:1003@a", None), Ok(1));
    assert!(place.table.entries.lock().unwrap().is_empty());

    let seen = client.stats("strowger_").unwrap();
    assert_eq!(seen, samples(&place.table.metrics(), "strowger_"));
    let seen: Vec<(&str, Number, Kind)> = seen.iter().map(|sample| (sample.name.as_str(), sample.value, sample.kind)).collect();
    let delay = |end: &'static str, value| (end, value, Kind::Counter);
    assert_eq!(
        seen,
        [
            ("strowger_bindings", Number::Count(0), Kind::Gauge),
            delay("strowger_loop_delay_seconds_bucket{le=\"0.5\"}", Number::Count(1)),
            delay("strowger_loop_delay_seconds_bucket{le=\"+Inf\"}", Number::Count(1)),
            delay("strowger_loop_delay_seconds_sum", Number::Real(0.25)),
            delay("strowger_loop_delay_seconds_count", Number::Count(1)),
            delay("strowger_requests_total{method=\"INVITE\"}", Number::Count(1 << 40)),
        ]
    );
    assert_eq!(client.stats("strowger_b").unwrap().len(), 1);

    let draining = |deadline_ms| Draining { pending: 0, calls: None, deadline_ms };
    assert_eq!(client.drain(None, false), Ok(draining(30_000)));
    assert_eq!(client.drain(Some(0), false), Ok(draining(0)));
    assert_eq!(client.drain(Some(0), true), Ok(Draining { calls: Some(3), ..draining(0) }));
    assert_eq!(client.log(None).as_deref(), Ok("info"));
    assert_eq!(client.log(Some("debug")).as_deref(), Ok("debug"));
    assert_eq!(client.log(Some("loud")), Err("loud: no level".to_owned()));
}

#[test]
fn what_goes_over_the_socket_is_json_rpc() {
    let place = Folder::new();
    let _server = place.start(Bounds::default()).unwrap();
    let mut script = Script::new(&place.path());
    for (line, answer) in [
        (r#"{"jsonrpc":"2.0","id":7,"method":"version"}"#, json!({"jsonrpc": "2.0", "id": 7, "result": "1.2.3"})),
        (
            r#"{"jsonrpc":"2.0","id":"a","method":"ul.add","params":["sip:b@a","sip:b@192.0.2.1",5]}"#,
            json!({"jsonrpc": "2.0", "id": "a", "result": 5}),
        ),
        (
            r#" {"params":{"aor":"sip:b@a"},"method":"ul.show","id":null,"jsonrpc":"2.0"} "#,
            json!({"jsonrpc": "2.0", "id": null, "result": [{
                "aor": "sip:b@a",
                "contacts": [{
                    "uri": "sip:b@192.0.2.1", "q": 0.7, "expires_in_s": 5,
                    "call_id": "a84b4c76e66710", "cseq": 314159,
                    "path": ["<sip:edge.example.com;lr>"], "received": "192.0.2.1:5060",
                }],
            }]}),
        ),
        (
            r#"{"jsonrpc":"2.0","id":3,"method":"ul.add","params":{"aor":"sip:c@a","contact":"sip:c@b","q":0.25,"path":"<sip:p;lr>"}}"#,
            json!({"jsonrpc": "2.0", "id": 3, "result": 3600}),
        ),
        (
            r#"{"params":{"aor":"sip:c@a"},"method":"ul.show","id":4,"jsonrpc":"2.0"}"#,
            json!({"jsonrpc": "2.0", "id": 4, "result": [{
                "aor": "sip:c@a",
                "contacts": [{
                    "uri": "sip:c@b", "q": 0.25, "expires_in_s": 3600,
                    "call_id": "a84b4c76e66710", "cseq": 314159,
                    "path": ["<sip:edge.example.com;lr>", "<sip:p;lr>"], "received": "192.0.2.1:5060",
                }],
            }]}),
        ),
        (
            r#"{"jsonrpc":"2.0","id":5,"method":"ul.rm","params":{"aor":"sip:c@a"}}"#,
            json!({"jsonrpc": "2.0", "id": 5, "result": 1}),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"stats","params":{"prefix":"strowger_bind"}}"#,
            json!({"jsonrpc": "2.0", "id": 1, "result": [
                {"name": "strowger_bindings", "value": 1, "kind": "gauge"},
            ]}),
        ),
        (
            r#"{"jsonrpc":"2.0","id":2,"method":"ul.rm","params":{"aor":"sip:b@a"}}"#,
            json!({"jsonrpc": "2.0", "id": 2, "result": 1}),
        ),
    ] {
        assert_eq!(script.ask(line), answer, "{line}");
    }
}

#[test]
fn what_is_wrong_is_answered_with_the_code_for_it() {
    let place = Folder::new();
    let _server = place.start(Bounds::default()).unwrap();
    let mut script = Script::new(&place.path());
    for (line, id, code) in [
        ("{", json!(null), -32700),
        ("hello", json!(null), -32700),
        ("{} {}", json!(null), -32700),
        ("[]", json!(null), -32600),
        ("1", json!(null), -32600),
        ("{}", json!(null), -32600),
        (r#"{"id":1,"method":"version"}"#, json!(1), -32600),
        (r#"{"jsonrpc":"1.0","id":1,"method":"version"}"#, json!(1), -32600),
        (r#"{"jsonrpc":"2.0","id":1}"#, json!(1), -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":1}"#, json!(1), -32600),
        (r#"{"jsonrpc":"2.0","id":{},"method":"version"}"#, json!(null), -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ul.shout"}"#, json!(1), -32601),
        (r#"{"jsonrpc":"2.0","id":1,"method":"version","params":5}"#, json!(1), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"version","params":[5]}"#, json!(1), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"stats","params":{"prefix":5}}"#, json!(1), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ul.show","params":{"aro":"x"}}"#, json!(1), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ul.add","params":{"aor":"x"}}"#, json!(1), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ul.add","params":["x","sip:x@a",0]}"#, json!(1), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ul.add","params":["x","sip:x@a",1.5]}"#, json!(1), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ul.add","params":["x","sip:x@a",4294967296]}"#, json!(1), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ul.add","params":["x","sip:x@a",1,2]}"#, json!(1), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ul.add","params":{"aor":"x","contact":"sip:x@a","q":"1"}}"#, json!(1), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ul.add","params":{"aor":"x","contact":"sip:x@a","q":-0.1}}"#, json!(1), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ul.rm"}"#, json!(1), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ul.rm","params":["x"]}"#, json!(1), rpc::NOT_FOUND),
        (r#"{"jsonrpc":"2.0","id":1,"method":"drain","params":[-1]}"#, json!(1), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"drain","params":[1,"yes"]}"#, json!(1), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"log","params":["loud"]}"#, json!(1), rpc::REFUSED),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ul.add","params":["x","y"]}"#, json!(1), rpc::REFUSED),
    ] {
        let answer = script.ask(line);
        assert_eq!(answer["jsonrpc"], "2.0", "{line}: {answer}");
        assert_eq!(answer["id"], id, "{line}: {answer}");
        assert_eq!(answer["error"]["code"], code, "{line}: {answer}");
        assert!(answer["error"]["message"].is_string(), "{line}: {answer}");
        assert!(answer.get("result").is_none(), "{line}: {answer}");
    }
    assert!(place.table.entries.lock().unwrap().is_empty());
    // Bytes that are not even text.
    script.0.get_mut().write_all(b"\xff\xfe\n").unwrap();
    assert_eq!(script.hear().unwrap()["error"]["code"], -32700);
}

#[test]
fn notifications_are_performed_and_not_answered() {
    let place = Folder::new();
    let _server = place.start(Bounds::default()).unwrap();
    let mut script = Script::new(&place.path());
    script.say("{\"jsonrpc\":\"2.0\",\"method\":\"ul.add\",\"params\":[\"x\",\"sip:x@a\"]}\n");
    script.say("{\"jsonrpc\":\"2.0\",\"method\":\"nonsense\"}\n\n  \r\n");
    let answer = script.ask(r#"{"jsonrpc":"2.0","id":1,"method":"version"}"#);
    assert_eq!(answer["id"], 1);
    assert_eq!(place.table.entries.lock().unwrap().len(), 1);
}

#[test]
fn lines_may_come_in_pieces_and_several_at_once() {
    let place = Folder::new();
    let _server = place.start(Bounds::default()).unwrap();
    let mut script = Script::new(&place.path());
    let line = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"version\"}\n";
    for piece in line.as_bytes().chunks(5) {
        script.0.get_mut().write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(script.hear().unwrap()["result"], "1.2.3");
    script.say(&line.repeat(50));
    for _ in 0..50 {
        assert_eq!(script.hear().unwrap()["result"], "1.2.3");
    }
    // An incomplete command at the end of the stream is not a command.
    script.say("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"version\"}");
    script.0.get_mut().shutdown(Shutdown::Write).unwrap();
    assert_eq!(script.hear(), None);
}

#[test]
fn a_line_beyond_the_bound_is_answered_and_the_client_closed() {
    let place = Folder::new();
    let bounds = Bounds { line: 1000, ..Bounds::default() };
    let _server = place.start(bounds).unwrap();
    let padded = |length: usize| {
        let line = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"version\"}";
        format!("{line}{}", " ".repeat(length - line.len()))
    };
    let mut script = Script::new(&place.path());
    assert_eq!(script.ask(&padded(1000))["result"], "1.2.3");
    assert_eq!(script.ask(&padded(1001))["error"]["code"], -32600);
    assert_eq!(script.hear(), None);
    // Without an end of line in sight, too.
    let mut script = Script::new(&place.path());
    script.say(&"x".repeat(1001));
    assert_eq!(script.hear().unwrap()["error"]["code"], -32600);
    assert_eq!(script.hear(), None);
}

#[test]
fn beyond_the_bound_the_oldest_client_that_idles_gives_way() {
    let place = Folder::new();
    let bounds = Bounds { clients: 2, ..Bounds::default() };
    let _server = place.start(bounds).unwrap();
    let version = r#"{"jsonrpc":"2.0","id":1,"method":"version"}"#;
    let mut first = Script::new(&place.path());
    first.ask(version);
    let mut second = Script::new(&place.path());
    second.ask(version);
    let mut third = Script::new(&place.path());
    third.ask(version);
    assert_eq!(first.hear(), None);
    second.ask(version);
    // One that comes and goes pushes out one more, and not those that come after.
    drop(Client::connect(&place.path()).unwrap().version().unwrap());
    assert_eq!(second.hear(), None);
    third.ask(version);
}

#[test]
fn a_client_that_says_nothing_whole_is_closed() {
    let place = Folder::new();
    let bounds = Bounds { idle: Duration::from_millis(200), ..Bounds::default() };
    let _server = place.start(bounds).unwrap();
    let mut silent = Script::new(&place.path());
    let started = Instant::now();
    assert_eq!(silent.hear(), None);
    assert!(started.elapsed() >= Duration::from_millis(190), "{:?}", started.elapsed());

    // A byte now and then does not keep the place.
    let mut slow = UnixStream::connect(place.path()).unwrap();
    let started = Instant::now();
    while slow.write_all(b"x").is_ok() {
        assert!(started.elapsed() < Duration::from_secs(20), "still connected");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_answer_that_nobody_reads_does_not_hold_a_thread() {
    let place = Folder::new();
    let bounds = Bounds { clients: 1, unread: Duration::from_millis(200), ..Bounds::default() };
    let _server = place.start(bounds).unwrap();
    fill(&place.table, 20_000);
    let mut script = Script::new(&place.path());
    script.say("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ul.show\"}\n");
    let deadline = Instant::now() + Duration::from_secs(20);
    while Client::connect(&place.path()).unwrap().version().is_err() {
        assert!(Instant::now() < deadline, "the place is never given back");
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut rest = Vec::new();
    let _ = script.0.read_to_end(&mut rest);
    assert_ne!(rest.last(), Some(&b'\n'), "the answer was read after all");
}

fn fill(table: &Table, count: usize) {
    let mut entries = table.entries.lock().unwrap();
    for user in 0..count {
        let aor = format!("sip:{user}@example.com");
        let contact = format!("sip:{user}@192.0.2.100:5061;transport=udp");
        entries.push(entry(&aor, &contact, user as u64));
    }
}

#[test]
fn a_hundred_thousand_aors_are_shown() {
    let place = Folder::new();
    let _server = place.start(Bounds::default()).unwrap();
    fill(&place.table, 100_000);
    let mut client = Client::connect(&place.path()).unwrap();
    let shown = client.ul_show(None).unwrap();
    assert!(shown == *place.table.entries.lock().unwrap());
    assert_eq!(shown.len(), 100_000);
    // The connection is good for more.
    assert_eq!(client.version().as_deref(), Ok("1.2.3"));
}

#[test]
fn the_socket_is_private_and_goes_with_its_server() {
    let place = Folder::new();
    let server = place.start(Bounds::default()).unwrap();
    let mode = fs::metadata(place.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(fs::read_dir(place.folder.path()).unwrap().count(), 1);
    let mut waiting = Script::new(&place.path());
    waiting.ask(r#"{"jsonrpc":"2.0","id":1,"method":"version"}"#);
    drop(server);
    assert!(!place.path().exists());
    assert_eq!(waiting.hear(), None);
    let refusal = Client::connect(&place.path()).map(|_| ()).unwrap_err();
    assert!(refusal.contains("no server answers at"), "{refusal}");
    assert!(refusal.contains("--control"), "{refusal}");
}

#[test]
fn a_socket_that_answers_is_not_taken_and_a_dead_one_is() {
    let place = Folder::new();
    let server = place.start(Bounds::default()).unwrap();
    let refusal = place.start(Bounds::default()).map(|_| ()).unwrap_err();
    assert!(refusal.contains("a server already answers there"), "{refusal}");
    assert!(Client::connect(&place.path()).unwrap().version().is_ok());
    drop(server);

    // A listener that goes leaves its file, as a server that is killed does.
    drop(UnixListener::bind(place.path()).unwrap());
    assert!(place.path().exists());
    let _server = place.start(Bounds::default()).unwrap();
    assert!(Client::connect(&place.path()).unwrap().version().is_ok());
}

#[test]
fn what_is_not_a_socket_is_left_alone() {
    let place = Folder::new();
    fs::write(place.path(), "precious").unwrap();
    let refusal = place.start(Bounds::default()).map(|_| ()).unwrap_err();
    assert!(refusal.contains("not a socket"), "{refusal}");
    assert_eq!(fs::read_to_string(place.path()).unwrap(), "precious");

    let elsewhere = place.folder.path().join("none").join("strowger.sock");
    let started = Server::start(&elsewhere, place.table.clone(), Bounds::default());
    assert!(started.map(|_| ()).unwrap_err().contains("none/strowger.sock"));
}

#[test]
fn a_socket_that_another_put_in_place_stays() {
    let place = Folder::new();
    let server = place.start(Bounds::default()).unwrap();
    fs::remove_file(place.path()).unwrap();
    let other = UnixListener::bind(place.path()).unwrap();
    drop(server);
    assert!(place.path().exists());
    drop(other);
}
