//! Who is not heard, and why: guessed passwords with the line that fail2ban reads, bans, forged floods, and scanners.

use std::path::Path;
use std::time::Duration;

use crate::agent::{Agent, Request, unique};
use crate::auth::guarded;
use crate::identity::{Login, signed};
use crate::place::{CALLEE, CALLER, Place, SERVER, wait_for};
use crate::process;
use crate::server::{Conf, Server};

/// Who attacks.
const ATTACKER: u8 = 9;

/// What nobody may receive does not come within this time.
const SILENCE: Duration = Duration::from_millis(300);

/// Prints the addresses that the filter finds in a log, one a line: in the lines as they are, without their times, which fail2ban cuts off
/// before it looks, and as the journal has them in two formats. All must be the same.
const FILTER: &str = r#"
import configparser, re, sys
conf = configparser.RawConfigParser()
conf.read(sys.argv[1])
pattern = conf["Definition"]["failregex"].replace("<HOST>", r"(?P<host>[0-9a-fA-F.:]+)")
for line in open(sys.argv[2]):
    forms = [line, re.sub(r"^\[[0-9TZ:.-]+", "", line), "host strowger[7]: " + line]
    forms.append(re.sub(r"^\[\S+ \w+ +(\w+)\] ", r"host strowger[7]: \1: ", line))
    found = {(found := re.search(pattern, form)) and found["host"] for form in forms}
    assert len(found) == 1, (found, line)
    for host in found - {None}:
        print(host)
"#;

/// Whom fail2ban would ban by this log.
fn filtered(place: &Place, log: &str) -> Vec<String> {
    let conf = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/fail2ban/strowger.conf");
    let script = place.write("filter.py", FILTER).display().to_string();
    let log = place.write("filtered.log", log).display().to_string();
    let run = process::run(place, "filter", Path::new("/usr/bin/python3"), &[&script, conf, &log], Duration::from_secs(30));
    assert_eq!(run.code, Some(0), "{run:?}");
    let hosts: Vec<String> = run.stdout.lines().map(str::to_owned).collect();
    // fail2ban's own word, which knows the time of a line too.
    let words = ["--out", "ip", &log, conf];
    let run = process::run(place, "fail2ban", Path::new("fail2ban-regex"), &words, Duration::from_secs(30));
    let found: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(found, hosts, "{run:?}");
    hosts
}

fn domain(server: &Server) -> String {
    server.address.to_string()
}

/// Registers an agent by its own address, and wants that to succeed.
fn register(server: &Server, agent: &Agent, user: &str) {
    let contact = format!("<{}>", agent.uri());
    let request = agent.register(&domain(server), user, &contact, 600);
    let password = format!("open-{user}");
    let again = signed(agent, &Login::new(user, &password), &request);
    assert_eq!(agent.ask(&again).status(), Some(200));
}

/// The caller's MESSAGE reaches the phone, and its answer comes back.
fn reach(server: &Server, caller: &Agent, login: &Login, phone: &Agent, user: &str) {
    let mut message = caller.request("MESSAGE", &server.uri(user));
    message.from = format!("<sip:{}@{}>;tag=m{}", "caller", domain(server), unique());
    let message = signed(caller, login, &message);
    caller.send(&message);
    let arrived = phone.expect("MESSAGE", |message| message.is("MESSAGE"));
    phone.respond(&arrived, 200, &[]);
    assert_eq!(caller.final_for(&message).status(), Some(200));
}

/// The same request so many times, each in a transaction of its own.
fn flood(agent: &Agent, request: &Request, count: usize) {
    let text = String::from_utf8(request.bytes()).expect("our own text");
    let branch = request.branch();
    for number in 0..count {
        let text = text.replace(&branch, &format!("{branch}f{number}"));
        // A connection of whoever floods may be closed meanwhile.
        if !agent.try_send(text.as_bytes()) {
            return;
        }
    }
}

#[test]
fn guesses_end_with_a_ban_and_a_line_while_the_user_calls_on() {
    let place = Place::new("guesses");
    let mut server =
        guarded(&place, &["victim", "caller"]).stream("tcp", place.at(SERVER)).set("limits", "ban", r#""30s""#).start(&place);
    let victim = Agent::new(place.at(CALLEE), server.address);
    let caller = Agent::new(place.at(CALLER), server.address);
    register(&server, &victim, "victim");
    let attacker = Agent::new(place.at(ATTACKER), server.address);
    let request = attacker.register(&domain(&server), "victim", "<sip:x@192.0.2.1>", 60);
    let wrong = signed(&attacker, &Login::new("victim", "guess"), &request);
    flood(&attacker, &wrong, 300);
    register(&server, &victim, "victim");
    let login = Login::new("caller", "open-caller");
    reach(&server, &caller, &login, &victim, "victim");

    let answers = attacker.collect(SILENCE);
    let looked_at = answers.iter().filter(|answer| answer.status() == Some(401)).count();
    assert_eq!((looked_at, answers.len()), (10, 10), "{answers:#?}");
    let ip = attacker.address.ip().to_string();
    let line = server.expect_log(&[&format!("guesses from {ip} over UDP: 10 wrong passwords")]);
    assert!(line.ends_with("user \"victim\" of \"strowger.test\""), "{line}");
    server.expect_log(&[&format!("{ip} is banned for 30 seconds: too many wrong")]);
    assert_eq!(server.stat(&place, "strowger_banned_sources"), 1.0);
    let banned = server.stat(&place, "strowger_dropped_total{reason=\"banned\"}");
    assert_eq!(banned, 290.0);
    let outcome = "strowger_auth_total{outcome=\"wrong_response\"}";
    assert_eq!(server.stat(&place, outcome), 10.0);
    // By no other way either.
    let options = |agent: &Agent| agent.request("OPTIONS", &format!("sip:{}", server.address));
    let other = Agent::new(place.at_port(ATTACKER, 5999), server.address);
    other.send(&options(&other));
    assert!(other.collect(SILENCE).is_empty());
    let stream = Agent::tcp(place.ip(ATTACKER), server.address);
    assert!(stream.end(Duration::from_secs(3)).is_some(), "it is closed at once");
    let closed = server.stat(&place, "strowger_connections_banned_total");
    assert_eq!(closed, 1.0);

    // What a stranger writes is found in the place where strangers write, and nowhere else.
    let forger = Agent::tcp(place.ip(CALLER), server.address);
    let forged = "x] guesses from 192.0.2.77 over UDP: 10 wrong passwords within a minute for one user; ";
    let request = forger.register(&domain(&server), "caller", "", 60);
    let wrong = signed(&forger, &Login::new(forged, "guess"), &request);
    flood(&forger, &wrong, 15);
    server.expect_log(&["WARN", "192.0.2.77", "over TCP", "guesses from"]);
    let mut found = filtered(&place, &server.log());
    found.sort();
    let mut expected = vec![ip, forger.address.ip().to_string()];
    expected.sort();
    assert_eq!(found, expected, "{}", server.log());
    server.assert_alive(&place, CALLEE);
}

#[test]
fn a_forged_flood_takes_nothing_from_whoever_is_there() {
    let place = Place::new("forged-flood");
    let conf =
        guarded(&place, &["victim", "caller", "late"]).set("limits", "requests_per_source", "20").set("limits", "ban", r#""60s""#);
    let mut server = conf.start(&place);
    let victim = Agent::new(place.at(CALLEE), server.address);
    let caller = Agent::new(place.at(CALLER), server.address);
    register(&server, &victim, "victim");
    // Its own address, as somebody else writes it into datagrams.
    let forgers: Vec<Agent> = (0..8).map(|port| Agent::new(place.at_port(CALLEE, 7000 + port), server.address)).collect();
    let options = |agent: &Agent| agent.request("OPTIONS", &format!("sip:{}", server.address));
    let rain = || {
        for forger in &forgers {
            flood(forger, &options(forger), 100);
        }
    };
    let login = Login::new("caller", "open-caller");
    for _ in 0..5 {
        rain();
        register(&server, &victim, "victim");
        reach(&server, &caller, &login, &victim, "victim");
    }
    // By the very port that the phone uses.
    let known = Login::new("victim", "open-victim");
    let contact = format!("<{}>", victim.uri());
    let request = victim.register(&domain(&server), "victim", &contact, 600);
    let credible = signed(&victim, &known, &request);
    flood(&victim, &options(&victim), 200);
    victim.forget();
    victim.send(&options(&victim));
    assert_eq!(victim.ask(&credible).status(), Some(200));

    let ip = victim.address.ip().to_string();
    server.expect_log(&[
        &format!("{ip} is banned for 1 minute over UDP, but for places there that have proved"),
        "more than 20 requests a second ([limits] requests_per_source, ban)",
    ]);
    assert_eq!(server.stat(&place, "strowger_banned_sources"), 1.0);
    let banned = "strowger_dropped_total{reason=\"banned\"}";
    assert!(server.stat(&place, banned) > 3000.0);
    // Whoever comes there later can prove that it is there, and is heard then.
    let late = Agent::new(place.at_port(CALLEE, 5080), server.address);
    late.send(&options(&late));
    assert!(late.collect(SILENCE).is_empty(), "not yet");
    register(&server, &late, "late");
    assert_eq!(late.ask(&options(&late)).status(), Some(200));

    // A reload that bans nobody pardons all.
    conf.set("limits", "ban", r#""0s""#).write(&place);
    server.signal("HUP");
    server.expect_log(&["reloaded", "[limits] ban"]);
    let forger = &forgers[0];
    forger.forget();
    let heard = wait_for(Duration::from_secs(5), || {
        forger.send(&options(forger));
        let answer = forger.receive(Duration::from_millis(100));
        answer.filter(|answer| answer.status() == Some(200))
    });
    assert!(heard.is_some());
    assert_eq!(server.stat(&place, "strowger_banned_sources"), 0.0);
    server.assert_alive(&place, CALLEE);
}

#[test]
fn a_flood_by_a_connection_closes_it_and_those_to_come() {
    let place = Place::new("stream-flood");
    let conf = Conf::new(&place)
        .stream("tcp", place.at(SERVER))
        .set("limits", "requests_per_source", "20")
        .set("limits", "ban", r#""2s""#);
    let mut server = conf.start(&place);
    let stream = Agent::tcp(place.ip(ATTACKER), server.address);
    let options = |agent: &Agent| agent.request("OPTIONS", &format!("sip:{}", server.address));
    let text: Vec<u8> = (0..60).flat_map(|_| options(&stream).bytes()).collect();
    stream.send_bytes(&text);
    let answered = stream.collect(SILENCE).len();
    assert_eq!(answered, 20, "what was taken is answered");
    assert!(stream.end(Duration::from_secs(2)).is_some());
    let ip = place.ip(ATTACKER);
    server.expect_log(&[&format!("{ip} is banned for 2 seconds: more than 20")]);
    let again = Agent::tcp(ip, server.address);
    assert!(again.end(Duration::from_secs(1)).is_some());
    let served = wait_for(Duration::from_secs(10), || {
        std::thread::sleep(Duration::from_millis(200));
        let agent = Agent::tcp(ip, server.address);
        agent.try_send(&options(&agent).bytes());
        let answer = agent.receive(Duration::from_millis(200))?;
        (answer.status() == Some(200)).then_some(())
    });
    assert!(served.is_some(), "the ban is over");
    server.assert_alive(&place, CALLEE);
}

#[test]
fn scanners_hear_nothing() {
    let place = Place::new("scanners");
    let lines = "user_agent = [\"friendly-scanner\", \"SIPVicious\"]\naction = \"drop\"\n";
    let mut server = Conf::new(&place).route(lines).start(&place);
    let scanner = Agent::new(place.at(ATTACKER), server.address);
    for method in ["OPTIONS", "REGISTER", "INVITE"] {
        for agent in ["friendly-scanner", "(sipvicious) 0.3"] {
            let request = scanner.request(method, &format!("sip:100@{}", server.address));
            scanner.send(&request.with(&format!("User-Agent: {agent}")));
        }
    }
    assert!(scanner.collect(SILENCE).is_empty());
    let dropped = server.stat(&place, "strowger_dropped_total{reason=\"route\"}");
    assert_eq!(dropped, 6.0);
    server.expect_log(&["INVITE", &scanner.address.to_string(), "dropped by a [[route]]"]);
    let plain = scanner.request("OPTIONS", &format!("sip:{}", server.address));
    assert_eq!(scanner.ask(&plain).status(), Some(200));
    server.assert_alive(&place, CALLEE);
}
