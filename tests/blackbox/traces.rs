//! `strowger trace`: what it shows over every transport, what it hides, when it ends, and that nobody else notices.

use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agent::{Agent, Request};
use crate::auth::guarded;
use crate::pki::{Authority, Kind};
use crate::place::{CALLEE, CALLER, Place, SERVER, STRANGER, wait_for};
use crate::process::{self, Process};
use crate::server::{Conf, Server};

const NAME: &str = "sip.example.test";

/// How long a command may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until so many clients follow calls.
fn await_traces(place: &Place, server: &Server, count: u32) {
    let counted = wait_for(Duration::from_secs(5), || (server.stat(place, "strowger_traces") == f64::from(count)).then_some(()));
    assert!(counted.is_some(), "{} traces instead of {count}", server.stat(place, "strowger_traces"));
}

/// Starts a trace, the `number`th that runs, and waits until it has begun.
fn follow(place: &Place, server: &Server, number: u32, arguments: &[&str]) -> Process {
    let all: Vec<&str> = ["trace"].iter().chain(arguments).copied().collect();
    let process = server.begin(place, &format!("trace-{number}"), &all);
    await_traces(place, server, number);
    process
}

/// What a trace with `--json` has printed when it ended by itself.
fn events(process: Process) -> Vec<Value> {
    let outcome = process.finish(PATIENCE);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    outcome.stdout.lines().map(read).collect()
}

/// Kind, transport, both addresses and the start line of a message.
fn ends(event: &Value) -> String {
    let word = |key: &str| event[key].as_str().unwrap_or("-").to_owned();
    let start = word("message").lines().next().unwrap_or_default().to_owned();
    format!("{} {} {} {} {start}", word("kind"), word("transport"), word("from"), word("to"))
}

/// The messages among the events, without what was decided.
fn messages_of(events: &[Value]) -> Vec<&Value> {
    events.iter().filter(|event| event["kind"] != "decision").collect()
}

/// Sends a request to bob, who answers 200.
fn say(caller: &Agent, phone: &Agent, request: &Request) {
    caller.send(request);
    let arrived = phone.expect("the request", |message| message.call_id() == request.call_id);
    phone.respond(&arrived, 200, &[]);
    assert_eq!(caller.final_for(request).status(), Some(200));
}

#[test]
fn calls_over_every_transport_by_every_filter() {
    let place = Place::new("trace-transports");
    let authority = Authority::new(&place, "ca");
    let certificate = authority.issue(&place, "server", Kind::Ecdsa, &[NAME]);
    let conf = Conf::new(&place).stream("tcp", place.at(SERVER)).tls(&place, &[&certificate]);
    let mut server = conf.start(&place);
    let phone = Agent::new(place.at(CALLEE), server.address);
    server.bind(&place, "bob", phone.address);
    let callers = [
        Agent::new(place.at_port(CALLER, 0), server.address),
        Agent::tcp(place.ip(STRANGER), server.address),
        Agent::tls(place.ip(CALLER), server.secure(), &authority, NAME, None),
    ];
    let requests: Vec<Request> = callers
        .iter()
        .enumerate()
        .map(|(number, caller)| {
            let mut request = caller.request("MESSAGE", &server.uri("bob"));
            request.from = format!("<sip:caller%2D{number}@example.test>;tag=1");
            request.body = b"not for everyone".to_vec();
            request
        })
        .collect();
    let stranger = place.ip(STRANGER).to_string();
    let traces = [
        follow(&place, &server, 1, &["--json", "--count", "12"]),
        follow(&place, &server, 2, &["--json", "--count", "4", "--peer", &stranger]),
        follow(&place, &server, 3, &["--json", "--count", "4", "--user", "sips:caller-2@EXAMPLE.test"]),
        follow(&place, &server, 4, &["--json", "--count", "4", "--call", &requests[0].call_id]),
    ];
    let fifth = server.command(&place, &["trace"]);
    assert_eq!(fifth.code, Some(1));
    assert!(fifth.stderr.contains("4 traces are running, which is the limit"), "{fifth:?}");
    for (caller, request) in callers.iter().zip(&requests) {
        say(caller, &phone, request);
    }
    let expected = |number: usize| {
        let (caller, request) = (&callers[number], &requests[number]);
        let transport = caller.transport().to_ascii_lowercase();
        let (there, here) = (caller.address, caller.peer);
        let (phone, ours) = (phone.address, server.address);
        [
            format!("received {transport} {there} {here} MESSAGE {} SIP/2.0", request.uri),
            format!("sent udp {ours} {phone} MESSAGE sip:bob@{phone} SIP/2.0"),
            format!("received udp {phone} {ours} SIP/2.0 200 Said by the test"),
            format!("sent {transport} {here} {there} SIP/2.0 200 Said by the test"),
        ]
    };
    let [all, by_peer, by_user, by_call] = traces.map(events);
    let messages = messages_of(&all);
    assert_eq!(messages.iter().map(|event| ends(event)).collect::<Vec<_>>(), [expected(0), expected(1), expected(2)].concat());
    assert!(messages[8]["message"].as_str().unwrap().contains("not for everyone"), "TLS in the clear");
    // What was decided stands between what came and what left.
    let words: Vec<&str> = all[1..3].iter().filter_map(|event| event["text"].as_str()).collect();
    let branch = format!("branch to sip:bob@{0}: sent to {0} over UDP", phone.address);
    assert_eq!(words, [format!("{}: no [[route]]: forwarded, targets: 1", server.uri("bob")), branch]);
    for (events, number) in [(by_call, 0), (by_peer, 1), (by_user, 2)] {
        let messages = messages_of(&events);
        assert_eq!(messages.iter().map(|event| ends(event)).collect::<Vec<_>>(), expected(number));
        assert!(events.iter().all(|event| event["call_id"] == *requests[number].call_id));
    }
    await_traces(&place, &server, 0);
    assert_eq!(server.stat(&place, "strowger_trace_lost_total"), 0.0);
    assert!(server.stat(&place, "strowger_trace_events_total") >= 24.0);
    server.assert_alive(&place, CALLER);
}

#[test]
fn wireshark_opens_the_capture_as_sip() {
    let place = Place::new("trace-pcap");
    let authority = Authority::new(&place, "ca");
    let certificate = authority.issue(&place, "server", Kind::Ecdsa, &[NAME]);
    let server = Conf::new(&place).tls(&place, &[&certificate]).start(&place);
    let phone = Agent::new(place.at(CALLEE), server.address);
    server.bind(&place, "bob", phone.address);
    let caller = Agent::tls(place.ip(CALLER), server.secure(), &authority, NAME, None);
    let trace = follow(&place, &server, 1, &["--pcap", "calls.pcap"]);
    let request = caller.request("INFO", &server.uri("bob"));
    say(&caller, &phone, &request);
    let file = place.path("calls.pcap");
    let whole = wait_for(Duration::from_secs(5), || {
        let read = read_capture(&place, &file);
        (read.len() == 4).then_some(read)
    });
    // It is whole although the trace has not ended, and stays so when it is interrupted.
    let read = whole.unwrap_or_else(|| panic!("{:?}", read_capture(&place, &file)));
    trace.signal("INT");
    trace.finish(PATIENCE);
    assert_eq!(read_capture(&place, &file), read);
    await_traces(&place, &server, 0);
    let call_id = &request.call_id;
    let line = |from: std::net::SocketAddr, to: std::net::SocketAddr, kind: u8, method: &str, status: &str| {
        let (from, to) = ((from.ip(), from.port()), (to.ip(), to.port()));
        format!("{}\t{}\t{}\t{}\t{kind}\t{call_id}\t{method}\t{status}", from.0, from.1, to.0, to.1)
    };
    let (there, here, phone, ours) = (caller.address, caller.peer, phone.address, server.address);
    assert_eq!(
        read,
        [
            line(there, here, 2, "INFO", ""),
            line(ours, phone, 3, "INFO", ""),
            line(phone, ours, 3, "", "200"),
            line(here, there, 2, "", "200"),
        ]
    );
}

/// What tshark reads as SIP: addresses and ports, the kind of port, Call-ID, method and status.
fn read_capture(place: &Place, file: &Path) -> Vec<String> {
    let file = file.display().to_string();
    let mut arguments = vec!["-r", &file, "-Y", "sip", "-T", "fields"];
    for field in [
        "exported_pdu.ipv4_src",
        "exported_pdu.src_port",
        "exported_pdu.ipv4_dst",
        "exported_pdu.dst_port",
        "exported_pdu.port_type",
        "sip.Call-ID",
        "sip.Method",
        "sip.Status-Code",
    ] {
        arguments.extend(["-e", field]);
    }
    let outcome = process::run(place, "tshark", Path::new("tshark"), &arguments, PATIENCE);
    outcome.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn credentials_are_never_shown() {
    let place = Place::new("trace-secrets");
    let server = guarded(&place, &["phone"]).start(&place);
    let phone = Agent::new(place.at(CALLER), server.address);
    let text = follow(&place, &server, 1, &["--count", "6"]);
    let json = follow(&place, &server, 2, &["--json", "--count", "6"]);
    for line in [
        "Authorization: Digest username=\"phone\", nonce=\"SECRET\", response=\"SECRET\"",
        "aUTHORIZATION :\r\n Digest username=\"phone\",\r\n\tresponse=\"SECRET\"",
        "Proxy-Authorization: SECRET",
    ] {
        let register = phone.register(&server.address.to_string(), "phone", "", 0).with(line);
        phone.ask(&register);
    }
    for process in [text, json] {
        let outcome = process.finish(PATIENCE);
        assert!(outcome.stdout.contains("Digest **"), "{outcome:?}");
        assert!(!outcome.stdout.contains("SECRET"), "{outcome:?}");
        assert_eq!(outcome.stdout.matches("401 Unauthorized").count() % 3, 0, "{outcome:?}");
    }
}

#[test]
fn text_in_a_pipe_and_one_line_each() {
    let place = Place::new("trace-text");
    let server = Conf::new(&place).start(&place);
    let agent = Agent::new(place.at(CALLER), server.address);
    let text = follow(&place, &server, 1, &["--count", "2"]);
    let brief = follow(&place, &server, 2, &["--count", "2", "--brief"]);
    let request = agent.request("OPTIONS", &format!("sip:{}", server.address));
    agent.ask(&request);
    let (here, there, call_id) = (server.address, agent.address, &request.call_id);
    let text = text.finish(PATIENCE).stdout;
    let head = format!("received udp {there} -> {here} OPTIONS sip:{here} SIP/2.0\n    OPTIONS sip:{here} SIP/2.0\n    Via: ");
    assert!(text.contains(&head) && !text.contains('\u{1b}') && !text.contains('\r'), "{text}");
    let brief = brief.finish(PATIENCE).stdout;
    let lines: Vec<&str> = brief.lines().collect();
    assert_eq!(lines.len(), 3, "{brief}");
    let request = format!("received udp {there} -> {here} OPTIONS {} [{call_id}]", request.cseq);
    assert!(lines[0].ends_with(&request), "{brief}");
    assert!(lines[1].contains("decision ") && lines[1].contains("for this server itself"), "{brief}");
    assert!(lines[2].contains(&format!("sent     udp {here} -> {there} 200 ")), "{brief}");
}

#[test]
fn a_ladder_on_a_terminal() {
    let place = Place::new("trace-ladder");
    let server = Conf::new(&place).start(&place);
    let agent = Agent::new(place.at(CALLER), server.address);
    let control = place.path("control.sock").display().to_string();
    let trace = |name: &str, before: &str| {
        let program = crate::server::binary().display();
        let command = format!("stty rows 24 cols 80; {before} exec '{program}' --control '{control}' trace --count 2");
        let arguments = ["-q", "-e", "-f", "-c", &command, "/dev/null"].map(str::to_owned);
        Process::start(&place, name, Path::new("script"), &arguments, &[])
    };
    let (coloured, plain) = (trace("coloured", ""), trace("plain", "NO_COLOR=1"));
    await_traces(&place, &server, 2);
    agent.ask(&agent.request("OPTIONS", &format!("sip:{}", server.address)));
    let [coloured, plain] = [coloured, plain].map(|process| process.finish(PATIENCE).stdout);
    assert!(coloured.contains("\u{1b}[36m OPTIONS 1 \u{1b}[0m"), "{coloured}");
    assert!(!plain.contains('\u{1b}'), "{plain}");
    let lines: Vec<&str> = plain.lines().map(str::trim_end).collect();
    let head = format!("udp {}", agent.address);
    assert!(lines[1].contains(&head) && lines[1].ends_with("strowger"), "{plain}");
    assert!(lines[2].contains("│──") && lines[2].contains("─ OPTIONS 1 ─") && lines[2].ends_with("─▶│"), "{plain}");
    assert!(lines[3].contains("· sip:") && lines[3].contains("for this server"), "{plain}");
    let answer = lines.iter().find(|line| line.contains(" 200 OK (1 OPTIONS) "));
    assert!(answer.is_some_and(|line| line.contains("│◀──")), "{plain}");
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{plain}");
}

/// A source that is turned away unread is seen, and why.
#[test]
fn what_is_not_read_is_shown_with_the_reason() {
    let place = Place::new("trace-gate");
    let server = Conf::new(&place).set("limits", "requests_per_source", "1").start(&place);
    let agent = Agent::new(place.at(CALLER), server.address);
    let trace = follow(&place, &server, 1, &["--json", "--seconds", "2"]);
    for _ in 0..30 {
        agent.send(&agent.request("OPTIONS", &format!("sip:{}", server.address)));
    }
    let events = events(trace);
    let came = events.iter().filter(|event| event["kind"] == "received").count();
    assert_eq!(came, 30, "{events:#?}");
    let is_reason = |event: &&Value| event["text"].as_str().is_some_and(|text| text.contains("not read: its source"));
    let refused = events.iter().filter(is_reason).count();
    let answered = events.iter().filter(|event| event["kind"] == "sent").count();
    assert!(refused > 0 && refused + answered == 30, "{refused} and {answered}");
}

#[test]
fn it_ends_when_its_client_does_though_nothing_comes() {
    let place = Place::new("trace-killed");
    let mut server = Conf::new(&place).start(&place);
    for signal in ["KILL", "INT"] {
        let trace = follow(&place, &server, 1, &["--seconds", "3600"]);
        trace.signal(signal);
        await_traces(&place, &server, 0);
    }
    // In the middle of messages, too.
    let agent = Agent::new(place.at(CALLER), server.address);
    let trace = follow(&place, &server, 1, &["--json"]);
    for number in 0..200 {
        if number == 100 {
            trace.signal("KILL");
        }
        agent.send(&agent.request("OPTIONS", &format!("sip:{}", server.address)));
    }
    await_traces(&place, &server, 0);
    server.assert_alive(&place, STRANGER);
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[test]
fn it_ends_by_time_and_by_count() {
    let place = Place::new("trace-ends");
    let server = Conf::new(&place).start(&place);
    let began = Instant::now();
    let outcome = follow(&place, &server, 1, &["--seconds", "1"]).finish(PATIENCE);
    let took = began.elapsed();
    assert!(outcome.code == Some(0) && outcome.stdout.is_empty(), "{outcome:?}");
    assert!((1.0..4.0).contains(&took.as_secs_f64()), "{took:?}");
    let agent = Agent::new(place.at(CALLER), server.address);
    let trace = follow(&place, &server, 1, &["--json", "--count", "3"]);
    for _ in 0..5 {
        agent.ask(&agent.request("OPTIONS", &format!("sip:{}", server.address)));
    }
    assert_eq!(messages_of(&events(trace)).len(), 3);
    for wrong in [["--seconds", "0"], ["--seconds", "3601"], ["--peer", "a.example"], ["--user", "@x"], ["--call", ""]] {
        let outcome = server.command(&place, &["trace", wrong[0], wrong[1]]);
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
    }
}

/// One who speaks to the control socket himself.
struct Script {
    reader: BufReader<UnixStream>,
}

impl Script {
    fn ask(server: &Server, params: Value) -> Script {
        let mut stream = server.control();
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let request = json!({ "jsonrpc": "2.0", "id": 7, "method": "trace", "params": params });
        writeln!(stream, "{request}").expect("a request");
        Script { reader: BufReader::new(stream) }
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("a line");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }
}

#[test]
fn the_control_socket_s_own_words() {
    let place = Place::new("trace-rpc");
    let server = Conf::new(&place).start(&place);
    let agent = Agent::new(place.at(CALLER), server.address);
    for (params, what) in [
        (json!({ "seconds": 0 }), "seconds must be a whole number from 1 to 3600, not 0"),
        (json!({ "seconds": "5" }), "seconds must be a whole number from 1 to 3600, not \"5\""),
        (json!({ "count": 1_000_001 }), "count must be a whole number from 1 to 1000000, not 1000001"),
        (json!({ "peer": "x" }), "peer \"x\" is no address"),
        (json!({ "user": "" }), "user \"\" is no user"),
        (json!({ "call": " " }), "call is empty"),
        (json!({ "colour": true }), "no parameter \"colour\""),
    ] {
        let answer = Script::ask(&server, params).line();
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(what), "{answer}");
    }
    // One that writes no more, as behind a pipe's end, reads still.
    let mut script = Script::ask(&server, json!({ "count": 2 }));
    script.reader.get_ref().shutdown(Shutdown::Write).expect("a half-closed socket");
    await_traces(&place, &server, 1);
    std::thread::sleep(Duration::from_millis(500));
    agent.ask(&agent.request("OPTIONS", &format!("sip:{}", server.address)));
    for kind in ["received", "decision", "sent"] {
        let event = script.line();
        assert_eq!((&event["method"], &event["params"]["kind"]), (&json!("trace"), &json!(kind)));
        assert!(event.get("id").is_none(), "{event}");
    }
    let result = json!({ "events": 3, "lost": 0, "forgotten": 0, "reason": "count" });
    assert_eq!(script.line(), json!({ "jsonrpc": "2.0", "id": 7, "result": result }));
    // Whoever follows when the server stops is told.
    let mut script = Script::ask(&server, json!({ "seconds": 3600 }));
    await_traces(&place, &server, 1);
    server.signal("INT");
    assert_eq!(script.line()["result"]["reason"], "shutdown");
    assert_eq!(server.finish(PATIENCE).code, Some(0));
}

/// The reader is stopped: calls go on, what it misses is counted, and in the end it is let go.
#[test]
fn a_reader_that_does_not_read_holds_up_nobody() {
    let place = Place::new("trace-stopped");
    let mut server = Conf::new(&place).start(&place);
    let agent = Agent::new(place.at(CALLER), server.address);
    let trace = follow(&place, &server, 1, &["--json", "--count", "1000000"]);
    trace.signal("STOP");
    let mut slowest = Duration::ZERO;
    for _ in 0..1500 {
        let mut request = agent.request("OPTIONS", &format!("sip:{}", server.address));
        request.body = vec![b'x'; 6000];
        let sent = Instant::now();
        assert_eq!(agent.ask(&request).status(), Some(200));
        slowest = slowest.max(sent.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert!(server.stat(&place, "strowger_trace_lost_total") > 0.0);
    // Ten seconds for a write that brought a part away, and ten for the next, which brought nothing.
    let let_go = wait_for(Duration::from_secs(45), || (server.stat(&place, "strowger_traces") == 0.0).then_some(()));
    assert!(let_go.is_some(), "the server still waits for it");
    trace.signal("CONT");
    let outcome = trace.finish(PATIENCE);
    assert!(outcome.code == Some(1) && outcome.stderr.contains("control socket"), "{}", outcome.stderr);
    server.assert_alive(&place, STRANGER);
}
