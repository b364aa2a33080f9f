//! Requests that must not go on as they are: hops used up, loops, extensions nobody has; and the questions that the server answers for itself.

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::exhaustion::preloadable;
use crate::message::Message;
use crate::place::{CALLEE, CALLEE_TAP, CALLER, Place, SECOND_CALLEE, SERVER, wait_for};
use crate::server::{Conf, Server};

#[test]
fn hops_used_up() {
    let place = Place::new("hops");
    let server = Conf::new(&place).start(&place);
    let phone = Agent::new(place.at(CALLEE), server.address);
    let caller = Agent::new(place.at(CALLER), server.address);
    server.bind(&place, "bob", phone.address);
    for method in ["INVITE", "MESSAGE"] {
        let mut request = caller.request(method, &server.uri("bob"));
        request.max_forwards = Some(0);
        let refused = caller.ask(&request);
        assert_eq!(refused.status(), Some(483), "{refused:?}");
        if method == "INVITE" {
            caller.acknowledge(&request, &refused);
        }
    }
    assert!(phone.receive(Duration::from_millis(200)).is_none());
    for (given, left) in [(Some(1), 0), (Some(255), 254), (None, 70)] {
        let mut request = caller.request("MESSAGE", &server.uri("bob"));
        request.max_forwards = given;
        caller.send(&request);
        let arrived = phone.expect("MESSAGE", |message| message.is("MESSAGE"));
        assert_eq!(arrived.max_forwards(), Some(left), "Max-Forwards was {given:?} (16.6, step 3)");
        phone.respond(&arrived, 200, &[]);
        caller.final_for(&request);
    }
}

/// Bindings that point back at the server: the request comes round and is found out (482), or at the latest runs out of hops (483). One that
/// points at its own address is not taken.
#[test]
fn loops_are_found() {
    let place = Place::new("loop");
    let mut server = Conf::new(&place).start(&place);
    let caller = Agent::new(place.at(CALLER), server.address);
    let own = server.uri("ouro");
    let refused = server.command(&place, &["ul", "add", own.trim_start_matches("sip:"), &own]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    // Two who point at each other.
    for (user, other) in [("tweedledum", "tweedledee"), ("tweedledee", "tweedledum")] {
        let added = server.command(&place, &["ul", "add", &format!("{user}@{}", server.address.ip()), &server.uri(other)]);
        assert_eq!(added.code, Some(0), "{added:?}");
    }
    for user in ["tweedledee", "tweedledum"] {
        for method in ["INVITE", "MESSAGE"] {
            let request = caller.request(method, &server.uri(user));
            let refused = caller.ask(&request);
            assert!([482, 483].contains(&refused.status().unwrap_or_default()), "{user}: {refused:?}");
            if method == "INVITE" {
                caller.acknowledge(&request, &refused);
            }
        }
    }
    let requests = server.stat(&place, "strowger_requests_total");
    assert!(requests < 600.0, "{requests} requests for four of the caller's: loops must die early");
    server.assert_alive(&place, CALLEE);
}

/// RFC 5393 §3: forking makes a loop explode. Ten contacts that all come back here, and the caller still has an answer soon.
#[test]
fn loops_do_not_multiply() {
    let place = Place::new("storm");
    let mut server = Conf::new(&place).start(&place);
    let caller = Agent::new(place.at(CALLER), server.address);
    let users = ["a", "b", "c"];
    for from in users {
        for to in users.into_iter().filter(|to| *to != from) {
            for n in 0..5 {
                let contact = format!("sip:{to}@{};x={n}", server.address);
                let added = server.command(&place, &["ul", "add", &format!("{from}@{}", server.address.ip()), &contact]);
                assert_eq!(added.code, Some(0), "{added:?}");
            }
        }
    }
    let request = caller.request("INVITE", &server.uri("a"));
    let refused = caller.ask(&request);
    assert!([440, 482, 483, 500, 503].contains(&refused.status().unwrap_or_default()), "{refused:?}");
    caller.acknowledge(&request, &refused);
    let requests = server.stat(&place, "strowger_requests_total");
    assert!(requests < 20_000.0, "{requests} requests for one of the caller's");
    server.assert_alive(&place, CALLEE);
}

/// What the server would have to understand and does not: 420, and the list of it (16.3 step 5, 8.2.2.3).
#[test]
fn extensions_that_nobody_has() {
    let place = Place::new("extensions");
    let server = Conf::new(&place).start(&place);
    let phone = Agent::new(place.at(CALLEE), server.address);
    let caller = Agent::new(place.at(CALLER), server.address);
    server.bind(&place, "bob", phone.address);
    let request = caller.request("INVITE", &server.uri("bob")).with("Proxy-Require: foo, bar");
    let refused = caller.ask(&request);
    assert_eq!(refused.status(), Some(420), "{refused:?}");
    assert!(refused.lists("unsupported", "foo") && refused.lists("unsupported", "bar"), "{refused:?}");
    caller.acknowledge(&request, &refused);
    assert!(phone.receive(Duration::from_millis(200)).is_none());

    // Require is for the far end: a proxy lets it pass, a registrar does not.
    let request = caller.request("MESSAGE", &server.uri("bob")).with("Require: foo");
    caller.send(&request);
    assert_eq!(phone.expect("MESSAGE", |message| message.is("MESSAGE")).header("require"), Some("foo"));
    let register = caller.register(&server.address.to_string(), "bob", "<sip:b@192.0.2.1>", 600).with("Require: foo");
    let refused = caller.ask(&register);
    assert_eq!(refused.status(), Some(420), "{refused:?}");
    assert!(refused.lists("unsupported", "foo"), "{refused:?}");
    assert_eq!(refused.all("contact").len(), 0);
    let options = caller.request("OPTIONS", &format!("sip:{}", server.address)).with("Require: foo");
    assert_eq!(caller.ask(&options).status(), Some(420));
}

/// OPTIONS to the server itself (11.2), and schemes that it does not route.
#[test]
fn questions_to_the_server() {
    let place = Place::new("options");
    let server = Conf::new(&place).start(&place);
    let caller = Agent::new(place.at(CALLER), server.address);
    for uri in [format!("sip:{}", server.address), "sip:example.test".to_owned()] {
        let answer = caller.ask(&caller.request("OPTIONS", &uri));
        assert_eq!(answer.status(), Some(200), "{answer:?}");
        for method in ["INVITE", "ACK", "CANCEL", "OPTIONS", "REGISTER"] {
            assert!(answer.lists("allow", method), "{method} is missing in Allow: {answer:?}");
        }
        assert!(answer.header("accept").is_some() && answer.header("supported").is_some(), "{answer:?}");
        assert!(answer.to_tag().is_some());
        assert_eq!(answer.vias().len(), 1);
    }
    let refused = caller.ask(&caller.request("MESSAGE", "nosuch:scheme"));
    assert_eq!(refused.status(), Some(416), "16.3 step 2: {refused:?}");
}

/// Methods the server has never heard of are relayed like any other (16).
#[test]
fn unknown_methods_pass() {
    let place = Place::new("methods");
    let server = Conf::new(&place).start(&place);
    let phone = Agent::new(place.at(CALLEE), server.address);
    let caller = Agent::new(place.at(CALLER), server.address);
    server.bind(&place, "bob", phone.address);
    for method in ["PUBLISH", "NEWMETHOD", "invite", "A.b-c!%*_+`'~9"] {
        let mut request = caller.request(method, &server.uri("bob")).with("X-Odd : kept \t as it is").with("x-odd:twice");
        request.body = (0..=255).rev().collect();
        caller.send(&request);
        let arrived = phone.expect(method, |message| message.is(method));
        assert_eq!(arrived.body, request.body);
        let text = String::from_utf8_lossy(&arrived.raw).into_owned();
        assert!(text.contains("\r\nX-Odd : kept \t as it is\r\nx-odd:twice\r\n"), "what is not edited leaves bit for bit: {text}");
        phone.respond(&arrived, 299, &[]);
        assert_eq!(caller.final_for(&request).status(), Some(299));
    }
}

/// 18.2.1, 18.2.2 and RFC 3581: whatever host a Via claims, the answer goes to the address that the request came from; to its port where `rport`
/// asks for that, else to the port that the Via names.
#[test]
fn answers_find_the_sender() {
    let place = Place::new("rport");
    let server = Conf::new(&place).start(&place);
    let caller = Agent::new(place.at_port(CALLER, 4444), server.address);
    for via in ["192.0.2.55:4444", "phone.invalid:4444", "[2001:db8::9]:4444", "127.0.0.1:4444"] {
        for (rport, port) in [("", 4444), (";rport", 4444), (";rport", 4445)] {
            let claimed = via.replace("4444", &port.to_string());
            let mut request = caller.request("OPTIONS", &format!("sip:{}", server.address));
            let branch = request.branch();
            request.via = format!("SIP/2.0/UDP {claimed};branch={branch}{rport}");
            let answer = caller.ask(&request);
            assert_eq!(answer.status(), Some(200));
            let top = answer.top_via();
            assert_eq!(top.sent_by, claimed, "{answer:?}");
            assert_eq!(top.received, Some(caller.address.ip().to_string()), "{answer:?}");
            if !rport.is_empty() {
                assert_eq!(top.rport.as_deref(), Some("4444"), "{answer:?}");
            }
        }
    }
}

/// Every limit of the conf has an answer to "full": 503 for transactions and bindings, and the server is itself again afterwards.
#[test]
fn full_is_said_and_not_suffered() {
    let place = Place::new("full");
    let mut server = Conf::new(&place)
        .set("limits", "transactions", "8")
        .set("limits", "bindings", "3")
        .set("timers", "t1", r#""20ms""#)
        .set("timers", "linger", r#""500ms""#)
        .start(&place);
    let phone = Agent::new(place.at(CALLEE), server.address);
    let caller = Agent::new(place.at(CALLER), server.address);
    let domain = server.address.to_string();
    let mut answers = Vec::new();
    for user in ["bob", "carol", "dave", "eve"] {
        let register = phone.register(&domain, user, &format!("<sip:{user}@{}>", phone.address), 600);
        answers.push(phone.ask(&register).status().unwrap_or_default());
    }
    assert_eq!(answers, [200, 200, 200, 503]);
    std::thread::sleep(Duration::from_millis(700));

    // The phone rings and rings: its transactions stay.
    let invites: Vec<_> = (0..24).map(|_| caller.request("INVITE", &server.uri("bob"))).collect();
    for invite in &invites {
        caller.send(invite);
    }
    let heard = caller.collect(Duration::from_millis(300));
    let refused: Vec<_> = heard.iter().filter(|message| message.is_final_for("INVITE")).collect();
    assert!(!refused.is_empty() && refused.iter().all(|message| message.status() == Some(503)), "{refused:#?}");
    assert!(heard.iter().filter(|message| message.answers("INVITE", 100)).count() <= 8);
    // 64·T1 later nobody has answered, and there is room again.
    std::thread::sleep(Duration::from_millis(2500));
    server.assert_alive(&place, CALLEE);
    let invite = caller.request("INVITE", &server.uri("nobody"));
    let answer = caller.ask(&invite);
    assert_eq!(answer.status(), Some(404), "{answer:?}");
}

/// A message over `message_size` is answered 513 where it can be answered at all, and never relayed.
#[test]
fn a_message_that_is_too_long() {
    let place = Place::new("toolong");
    let mut server = Conf::new(&place).set("limits", "message_size", r#""2KiB""#).start(&place);
    let phone = Agent::new(place.at(CALLEE), server.address);
    let caller = Agent::new(place.at(CALLER), server.address);
    server.bind(&place, "bob", phone.address);
    let mut request = caller.request("MESSAGE", &server.uri("bob"));
    request.body = vec![b'x'; 1500];
    caller.send(&request);
    let arrived = phone.expect("MESSAGE", |message| message.is("MESSAGE"));
    phone.respond(&arrived, 200, &[]);
    assert_eq!(caller.final_for(&request).status(), Some(200));
    let mut request = caller.request("MESSAGE", &server.uri("bob"));
    request.body = vec![b'x'; 3000];
    caller.send(&request);
    let answers = caller.collect(Duration::from_millis(300));
    assert!(answers.iter().all(|answer| answer.status() == Some(513)), "{answers:#?}");
    assert!(phone.receive(Duration::from_millis(100)).is_none());
    if answers.is_empty() {
        assert!(server.stat(&place, "strowger_dropped_total") >= 1.0, "dropped, and counted");
    }
    server.assert_alive(&place, CALLEE);
}

/// `[limits] requests_per_source`: who sends too many is not read, by UDP and by TCP alike, whatever port he takes; others do not notice.
#[test]
fn a_source_may_send_so_many_requests() {
    let place = Place::new("per-source");
    let mut server = Conf::new(&place).stream("tcp", place.at(SERVER)).set("limits", "requests_per_source", "40").start(&place);
    let phone = Agent::new(place.at(CALLEE), server.address);
    let flooder = Agent::new(place.at(CALLER), server.address);
    server.bind(&place, "bob", phone.address);
    let target = format!("sip:{}", server.address);
    for _ in 0..400 {
        flooder.send(&flooder.request("OPTIONS", &target));
    }
    let answered = flooder.collect(Duration::from_millis(700)).len();
    assert!((40..=80).contains(&answered), "{answered} of 400 requests were answered within a second");
    let refused = server.stat(&place, "strowger_limit_hits_total{limit=\"requests_per_source\"}");
    assert!((320.0..=360.0).contains(&refused), "{refused} of 400 were counted as dropped");
    server.expect_log(&[&flooder.address.ip().to_string(), "more than 40 a second", "requests_per_source"]);
    // Another transport is no way round it, and nobody else has to suffer.
    let stream = Agent::tcp(flooder.address.ip(), server.address);
    for _ in 0..400 {
        stream.send(&stream.request("OPTIONS", &target));
    }
    let answered = stream.collect(Duration::from_millis(700)).len();
    assert!(answered <= 80, "{answered} of 400 over TCP");
    let call = Agent::new(place.at(SECOND_CALLEE), server.address);
    let request = call.request("MESSAGE", &server.uri("bob"));
    call.send(&request);
    let arrived = phone.expect("MESSAGE", |message| message.is("MESSAGE"));
    phone.respond(&arrived, 200, &[]);
    assert_eq!(call.final_for(&request).status(), Some(200));
    server.assert_alive(&place, CALLEE);
}

/// Calls to somebody who never answers: each that is let in costs the server all that a call can cost.
struct Flood {
    caller: Agent,
    text: String,
    branch: String,
    sent: u32,
    _phone: Agent,
}

impl Flood {
    fn new(place: &Place, server: &Server) -> Flood {
        let phone = Agent::new(place.at(CALLEE), server.address);
        server.bind(place, "bob", phone.address);
        let caller = Agent::new(place.at(CALLER), server.address);
        let invite = caller.request("INVITE", &server.uri("bob"));
        let text = String::from_utf8(invite.bytes()).expect("our own text");
        let ours = invite.branch();
        // What looks like a branch of the server's own passes its filter.
        let branch = ours.replacen("z9hG4bKt", "z9hG4bKx", 1);
        Flood { caller, text: text.replace(&ours, &branch), branch, sent: 0, _phone: phone }
    }

    /// With To above everything that varies: the kernel's filter can't tell one call from the other.
    fn alike(self) -> Flood {
        let (to, rest): (Vec<&str>, Vec<&str>) = self.text.split("\r\n").partition(|line| line.starts_with("To:"));
        let [first, rest @ ..] = &rest[..] else { panic!("no request line in {}", self.text) };
        let text = [&[*first], &to[..], rest].concat().join("\r\n");
        Flood { text, ..self }
    }

    fn send(&mut self, calls: u32) {
        for _ in 0..calls {
            self.sent += 1;
            let branch = format!("{}f{}", self.branch, self.sent);
            self.caller.send_bytes(self.text.replace(&self.branch, &branch).as_bytes());
        }
    }

    /// Goes on until one is answered 503.
    fn until_refused(&mut self) -> Message {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(20) {
            self.send(2_000);
            while let Some(answer) = self.caller.receive(Duration::ZERO) {
                if answer.status() == Some(503) {
                    return answer;
                }
            }
        }
        panic!("{} calls, and none was too much", self.sent)
    }

    /// Goes on until `found` finds something, for so many seconds at most.
    fn until<T>(&mut self, seconds: u64, mut found: impl FnMut() -> Option<T>) -> Option<T> {
        wait_for(Duration::from_secs(seconds), || {
            self.send(5_000);
            self.caller.forget();
            found()
        })
    }
}

/// After an overload more and more is let in, and at last everything.
fn until_served(server: &Server, caller: &Agent) {
    let mut in_a_row = 0;
    let served = wait_for(Duration::from_secs(30), || {
        let options = caller.request("OPTIONS", &format!("sip:{}", server.address));
        match caller.ask(&options).status() {
            Some(200) => in_a_row += 1,
            _ => in_a_row = 0,
        }
        (in_a_row == 100).then_some(())
    });
    assert!(served.is_some(), "it never passed: {in_a_row}");
}

fn shed(place: &Place, server: &Server, by: &str) -> f64 {
    server.stat(place, &format!("strowger_shed_total{{by=\"{by}\"}}"))
}

/// `[limits] overload`: while more comes than a core can take, a share of what is new is refused, in words that say when to come again;
/// and soon after all are served again.
#[test]
fn overload_is_said_and_passes() {
    let place = Place::new("overload");
    let mut server = Conf::new(&place).start(&place);
    let mut flood = Flood::new(&place, &server);
    let refused = flood.until_refused();
    assert!(refused.start.contains("503 Overloaded"), "{refused:?}");
    let seconds: u32 = refused.header("retry-after").expect("when").parse().expect("a number");
    assert!((1..=5).contains(&seconds), "{refused:?}");
    server.expect_log(&["WARN", "overloaded", "answered 503", "[limits] overload"]);
    let hits = server.stat(&place, "strowger_limit_hits_total{limit=\"overload\"}");
    assert!(hits >= 1.0, "{hits}");
    // It goes on: the kernel drops most of what would be refused.
    let dropped = flood.until(20, || Some(shed(&place, &server, "kernel")).filter(|shed| *shed >= 1.0));
    assert!(dropped.is_some(), "the kernel dropped none of {}", flood.sent);
    assert!(shed(&place, &server, "answer") >= 1.0);
    flood.caller.forget();
    let caller = Agent::new(place.at(SECOND_CALLEE), server.address);
    until_served(&server, &caller);
    server.expect_log(&["no longer overloaded", "INVITEs dropped by the kernel"]);
    // Nothing is dropped any more: not one of these is sent twice.
    let dropped = shed(&place, &server, "kernel");
    for _ in 0..100 {
        let call = caller.request("INVITE", &server.uri("nobody"));
        let refused = caller.ask(&call);
        assert_eq!(refused.status(), Some(404), "{refused:?}");
        caller.acknowledge(&call, &refused);
    }
    assert_eq!(shed(&place, &server, "kernel") - dropped, 0.0);
    server.assert_alive(&place, CALLEE);
}

/// A flood of calls that are alike is found out, and dropped before the calls of others.
#[test]
fn calls_that_are_alike_are_dropped_before_others() {
    let place = Place::new("alike");
    let mut server = Conf::new(&place).start(&place);
    let mut flood = Flood::new(&place, &server).alike();
    flood.until_refused();
    let found = flood.until(30, || server.log().contains("many of the new INVITEs are alike").then_some(()));
    assert!(found.is_some(), "{} sent\n{}", flood.sent, server.log());
    // It goes on, and is dropped: the server has time for others, an eighth of whose calls is dropped too. Those were dropped for this
    // overload's lots before, so some time passes until the bound has fallen.
    let others = Agent::new(place.at(SECOND_CALLEE), server.address);
    let mut served = HashSet::new();
    flood.until(4, || None::<()>);
    for _ in 0..60 {
        flood.send(500);
        let call = others.request("INVITE", &server.uri("nobody"));
        let text = String::from_utf8(call.bytes()).expect("our own text");
        others.send_bytes(text.replacen("z9hG4bKt", "z9hG4bKx", 1).as_bytes());
        while let Some(answer) = others.receive(Duration::from_millis(10)) {
            if answer.status() == Some(404) {
                served.insert(answer.header("call-id").expect("whose").to_owned());
            }
        }
    }
    assert!(served.len() >= 30, "{} of 60\n{}", served.len(), server.log());
    let caller = Agent::new(place.at(CALLEE_TAP), server.address);
    until_served(&server, &caller);
    server.assert_alive(&place, CALLEE);
}

/// Where the kernel refuses the filter, that is told and all that is too much is answered; and it is asked again.
#[test]
fn a_kernel_that_refuses_the_filter_is_asked_again() {
    let place = Place::new("filters-refused");
    let refusing = place.write("refused", "");
    let library = preloadable(&place, include_str!("filters.c"));
    let file = refusing.display().to_string();
    let environment = [("LD_PRELOAD", library.as_str()), ("FILTERS_REFUSED", file.as_str())];
    let mut server = Conf::new(&place).start_with(&place, &environment);
    let mut flood = Flood::new(&place, &server);
    let is_told = flood.until(20, || server.log().contains("the kernel refuses the filter").then_some(()));
    assert!(is_told.is_some(), "{} calls", flood.sent);
    let answered = shed(&place, &server, "answer");
    let goes_on = flood.until(20, || (shed(&place, &server, "answer") > answered).then_some(()));
    assert!(goes_on.is_some(), "none of {} was answered", flood.sent);
    assert_eq!(shed(&place, &server, "kernel"), 0.0);
    fs::remove_file(&refusing).expect("it was there");
    let dropped = flood.until(40, || Some(shed(&place, &server, "kernel")).filter(|shed| *shed >= 1.0));
    assert!(dropped.is_some(), "the kernel dropped none of {}", flood.sent);
    flood.caller.forget();
    until_served(&server, &Agent::new(place.at(SECOND_CALLEE), server.address));
    server.assert_alive(&place, CALLEE);
}
