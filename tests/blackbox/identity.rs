//! Who is who on the wire: names in every spelling, logins with any character, a gateway for users alone, and credentials that are used a second
//! time, for another request, or after a restart.

use std::path::Path;
use std::time::Duration;

use md5::{Digest, Md5};

use crate::agent::{Agent, Request, unique};
use crate::auth::guarded;
use crate::message::Message;
use crate::place::{CALLEE, CALLER, Place, SECOND_CALLEE, STRANGER};
use crate::process::{self, Outcome, Process};
use crate::server::{Conf, Server, binary};

const PATIENCE: Duration = Duration::from_secs(20);

/// What nobody may receive does not come within this time.
const SILENCE: Duration = Duration::from_millis(300);

fn md5(text: &str) -> String {
    format!("{:x}", Md5::digest(text.as_bytes()))
}

/// A user as its phone knows it.
pub struct Login<'l> {
    name: &'l str,
    password: &'l str,
    count: u32,
}

impl<'l> Login<'l> {
    /// The same at the next use of a nonce, or a later one.
    pub fn counting(self, count: u32) -> Login<'l> {
        Login { count, ..self }
    }

    pub fn new(name: &'l str, password: &'l str) -> Login<'l> {
        Login { name, password, count: 1 }
    }

    /// The request with an answer to this challenge; a CSeq and a branch of its own. `uri` is what the credentials are made for.
    pub fn answer(&self, request: &Request, challenge: &Challenge, uri: &str) -> Request {
        let Challenge { realm, nonce, .. } = challenge;
        let ha1 = md5(&format!("{}:{realm}:{}", self.name, self.password));
        let ha2 = md5(&format!("{}:{uri}", request.method));
        let count = format!("{:08x}", self.count);
        let response = md5(&format!("{ha1}:{nonce}:{count}:abc:auth:{ha2}"));
        let name = self.name.replace('\\', "\\\\").replace('"', "\\\"");
        let field = match challenge.status {
            401 => "Authorization",
            _ => "Proxy-Authorization",
        };
        again(request).with(&format!(
            "{field}: Digest username=\"{name}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", \
             response=\"{response}\", algorithm=MD5, cnonce=\"abc\", qop=auth, nc={count}"
        ))
    }
}

/// The same in a transaction of its own.
fn again(request: &Request) -> Request {
    let mut again = request.clone();
    again.cseq += 1;
    again.via = request.via.replace(&request.branch(), &format!("z9hG4bKt{}", unique()));
    again
}

/// The challenge for MD5 in a 401 or 407.
#[derive(Debug)]
pub struct Challenge {
    status: u16,
    realm: String,
    nonce: String,
    pub stale: bool,
}

impl Challenge {
    pub fn of(answer: &Message) -> Challenge {
        let status = answer.status().unwrap_or_default();
        let lines = challenges(answer);
        let line = lines.iter().find(|line| line.contains("algorithm=MD5"));
        let line = line.unwrap_or_else(|| panic!("no challenge for MD5: {answer:?}"));
        let quoted = |name: &str| {
            let (_, rest) = line.split_once(&format!("{name}=\""))?;
            Some(rest.split('"').next()?.to_owned())
        };
        Challenge {
            status,
            realm: quoted("realm").expect("a realm"),
            nonce: quoted("nonce").expect("a nonce"),
            stale: line.contains("stale=true"),
        }
    }
}

/// All lines of WWW-Authenticate or Proxy-Authenticate.
fn challenges(answer: &Message) -> Vec<&String> {
    let wanted = ["www-authenticate", "proxy-authenticate"];
    let headers = answer.headers.iter();
    headers.filter(|(name, _)| wanted.contains(&name.as_str())).map(|(_, value)| value).collect()
}

/// Sends a request, which must be challenged; the request again with its answer to that.
pub fn signed(agent: &Agent, login: &Login, request: &Request) -> Request {
    let first = ask(agent, request);
    assert!(matches!(first.status(), Some(401 | 407)), "{} {}: {}", request.method, request.uri, first.start);
    login.answer(request, &Challenge::of(&first), &request.uri)
}

/// The final response to the request that answers the challenge.
fn ask_as(agent: &Agent, login: &Login, request: &Request) -> Message {
    ask(agent, &signed(agent, login, request))
}

/// The final response. An INVITE's refusal is acknowledged.
fn ask(agent: &Agent, request: &Request) -> Message {
    let answer = agent.ask(request);
    if request.method == "INVITE" && answer.status() >= Some(300) {
        agent.acknowledge(request, &answer);
    }
    answer
}

fn status(answer: &Message) -> u16 {
    answer.status().unwrap_or_default()
}

/// A MESSAGE from this address-of-record.
fn message(agent: &Agent, from: &str, uri: &str) -> Request {
    let mut request = agent.request("MESSAGE", uri);
    request.from = format!("<{from}>;tag=f{}", unique());
    request.contact = None;
    request
}

/// Sends a request that `phone` gets and answers 200: what it got, and what came back.
fn through(agent: &Agent, phone: &Agent, request: &Request) -> (Message, Message) {
    agent.send(request);
    let got = phone.expect(&request.method, |message| message.is(&request.method));
    phone.respond(&got, 200, &[]);
    (got, agent.final_for(request))
}

/// UDP, and TCP to the same address.
fn ways(place: &Place, server: &Server, host: u8) -> [Agent; 2] {
    [Agent::new(place.at_port(host, 0), server.address), Agent::tcp(place.ip(host), server.address)]
}

#[test]
fn nobody_takes_a_name_of_ours_by_spelling_it_otherwise() {
    let place = Place::new("identity-names");
    let conf = guarded(&place, &["ceo", "bob"]);
    let server = conf.stream("tcp", place.at(1)).start(&place);
    let bob = Agent::new(place.at(CALLEE), server.address);
    let bound = server.command(&place, &["ul", "add", "bob@example.test", &format!("sip:bob@{}", bob.address)]);
    assert_eq!(bound.code, Some(0), "{bound:?}");
    let ip = server.address.ip();
    for agent in ways(&place, &server, STRANGER) {
        for from in [
            "sip:ceo@example.test".to_owned(),
            "sip:ceo@example.test:9999".to_owned(),
            "sip:ceo@example.test.".to_owned(),
            "sip:ceo@EXAMPLE.Test.:5060".to_owned(),
            "sips:ceo@example.test".to_owned(),
            "sip:%63eo@example.test".to_owned(),
            "sip:ceo:x@example.test;user=phone".to_owned(),
            "sip:ceo@example.test;maddr=192.0.2.1".to_owned(),
            "sip:ceo@example.test;transport=tls?a=b".to_owned(),
            format!("sip:ceo@{ip}:9999"),
            format!("sip:ceo@[::ffff:{ip}]"),
            "tel:1003;phone-context=example.test".to_owned(),
        ] {
            for method in ["INVITE", "MESSAGE", "SUBSCRIBE"] {
                let mut request = agent.request(method, "sip:bob@example.test");
                request.from = format!("\"The Boss\" <{from}>;tag=f{}", unique());
                let answer = ask(&agent, &request);
                assert_eq!(status(&answer), 407, "{method} from {from}");
            }
        }
        // The one that proves itself is let through, in the very spelling.
        let uri = "sip:bob@example.test";
        let request = message(&agent, "sip:ceo@example.test.:9999;maddr=192.0.2.1", uri);
        let login = Login::new("ceo", "open-ceo");
        let (seen, answer) = through(&agent, &bob, &signed(&agent, &login, &request));
        assert_eq!(status(&answer), 200, "{}", answer.start);
        assert!(seen.header("from").unwrap().contains("example.test.:9999"));
        let login = Login::new("bob", "open-bob");
        assert_eq!(status(&ask_as(&agent, &login, &again(&request))), 403);
    }
    assert!(bob.collect(SILENCE).is_empty());
    server.expect_log(&["bob", "acts for another user"]);
}

#[test]
fn a_trailing_dot_says_nothing() {
    let place = Place::new("identity-dot");
    let gateway = Agent::new(place.at(SECOND_CALLEE), place.at(1));
    let conf = guarded(&place, &["bob", "alice"])
        .route(&format!("to_host = \"gw.example\"\naction = \"relay\"\ntarget = [\"sip:{}\"]", gateway.address));
    let server = conf.set("auth", "challenge_proxy", "false").start(&place);
    let bob = Agent::new(place.at(CALLEE), server.address);
    let login = Login::new("bob", "open-bob");
    let register = |domain: &str, contact: &str, expires| {
        let request = bob.register(domain, "bob", contact, expires);
        ask_as(&bob, &login, &request)
    };
    let contact = format!("<sip:bob@{}>", bob.address);
    let bound = register("example.test.", &contact, 600);
    assert_eq!(status(&bound), 200, "{}", bound.start);
    assert_eq!(register("EXAMPLE.test", "", 600).contacts().len(), 1);

    let caller = Agent::new(place.at(CALLER), server.address);
    let route = "Route: <sip:example.test.;lr>";
    for uri in ["sip:bob@example.test.", "sip:bob@example.test", "sip:b%6Fb@Example.test.:5060"] {
        let request = message(&caller, "sip:x@example.org", uri);
        let (seen, answer) = through(&caller, &bob, &request);
        assert_eq!(status(&answer), 200);
        assert!(seen.is("MESSAGE"));
        let request = message(&caller, "sip:x@example.org", uri).with(route);
        let (seen, _) = through(&caller, &bob, &request);
        assert!(seen.header("route").is_none(), "{seen:?}");
    }
    for uri in ["sip:x@gw.example", "sip:x@GW.example."] {
        let request = message(&caller, "sip:x@example.org", uri);
        let (seen, _) = through(&caller, &gateway, &request);
        assert_eq!(seen.request_uri(), uri);
    }

    let ul = |arguments: &[&str]| -> Outcome { server.command(&place, &[&["ul"], arguments].concat()) };
    let shown = ul(&["show", "bob@example.test."]);
    assert!(shown.stdout.contains("sip:bob@example.test"), "{shown:?}");
    assert_eq!(ul(&["add", "alice@example.test.", "sip:alice@192.0.2.1"]).code, Some(0));
    assert_eq!(ul(&["show", "alice@example.test"]).code, Some(0));
    assert_eq!(ul(&["rm", "alice@Example.test.."]).code, Some(0));
    assert_eq!(status(&register("example.test.", &contact, 0)), 200);
    assert_eq!(ul(&["show", "bob@example.test"]).code, Some(1));
}

#[test]
fn a_gateway_for_users_takes_nobody_else() {
    let place = Place::new("identity-gateway");
    let gateway = Agent::new(place.at(CALLEE), place.at(1));
    let conf = guarded(&place, &["alice", "bob"])
        .set("auth", "challenge_proxy", "false")
        .route(&format!("to_user_prefix = \"49\"\naction = \"relay\"\nfrom = \"users\"\ntarget = [\"sip:{}\"]", gateway.address));
    let server = conf.stream("tcp", place.at(1)).start(&place);
    let outside = "sip:4930123@example.test";
    for agent in ways(&place, &server, STRANGER) {
        for method in ["INVITE", "MESSAGE", "OPTIONS"] {
            for (from, expected) in [
                ("sip:ceo@example.org", 403),
                ("tel:+4930999", 403),
                ("sip:alice@example.test.example.org", 403),
                ("sip:alice@example.test", 407),
                ("sip:alice@example.test.:99", 407),
                ("sip:anonymous@anonymous.invalid", 407),
            ] {
                let mut request = agent.request(method, outside);
                request.from = format!("<{from}>;tag=f{}", unique());
                let answer = ask(&agent, &request);
                assert_eq!(status(&answer), expected, "{method} from {from}");
                // An escape in the number is no way around it.
                let mut request = agent.request(method, "sip:%34%39301@example.test");
                request.from = format!("<{from}>;tag=f{}", unique());
                assert_eq!(status(&ask(&agent, &request)), expected, "{method} from {from}");
            }
        }
        assert!(gateway.collect(SILENCE).is_empty());
        let alice = Login::new("alice", "open-alice");
        for from in ["sip:alice@example.test", "sip:anonymous@anonymous.invalid"] {
            let request = message(&agent, from, outside);
            let (seen, answer) = through(&agent, &gateway, &signed(&agent, &alice, &request));
            assert_eq!(status(&answer), 200);
            assert!(seen.header("from").unwrap().contains(from));
            assert_eq!(seen.header("proxy-authorization"), None);
        }
        let request = message(&agent, "sip:bob@example.test", outside);
        assert_eq!(status(&ask_as(&agent, &alice, &request)), 403);
    }
    server.expect_log(&["ceo@example.org", "403 For Our Users Only"]);
}

/// `strowger user`, the conf's own.
fn user(place: &Place, arguments: &[&str], input: &str) -> Outcome {
    use std::io::Write;
    let all = [&["-c", "strowger.toml", "user"], arguments].concat();
    let all: Vec<String> = all.iter().map(|word| (*word).to_owned()).collect();
    let (process, mut stdin) = Process::converse(place, "user", binary(), &all);
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    process.finish(PATIENCE)
}

/// The name, the user part of its address, and what `ul show` shows of it.
const NAMES: [(&str, &str); 7] = [
    ("9901#1", "9901%231"),
    ("john doe", "john%20doe"),
    ("café", "caf%C3%A9"),
    ("50%", "50%25"),
    ("\"q\" \\uote", "%22q%22%20%5Cuote"),
    ("bob@partner.test", "bob%40partner.test"),
    ("a;b", "a;b"),
];

#[test]
fn a_name_may_have_any_character() {
    let place = Place::new("identity-users");
    let conf = Conf::new(&place)
        .set("auth", "challenge_register", "true")
        .set("auth", "challenge_proxy", "true")
        .set("auth", "users", "\"users.db\"")
        .set("registrar", "database", "\"bindings.db\"");
    conf.write(&place);
    for (name, _) in NAMES.iter().chain(&[("bob", "bob")]) {
        let name = format!("{name}@example.test");
        let added = user(&place, &["add", &name, "--create", "--password-stdin"], "pw\n");
        assert_eq!(added.code, Some(0), "{name}: {added:?}");
    }
    let server = conf.start(&place);
    let phone = Agent::new(place.at(CALLEE), server.address);
    let contact = format!("<sip:phone@{}>", phone.address);
    for (name, written) in NAMES {
        for spelled in [written.to_owned(), written.replace("%C3%A9", "%c3%a9")] {
            let request = phone.register("example.test", &spelled, &contact, 600);
            let answer = ask_as(&phone, &Login::new(name, "pw"), &request);
            assert_eq!(status(&answer), 200, "{name} as {spelled}: {}", answer.start);
        }
        for typed in [name, written] {
            let shown = server.command(&place, &["ul", "show", &format!("{typed}@example.test")]);
            let aor = format!("sip:{written}@example.test");
            assert!(shown.stdout.contains(&aor), "{typed}: {shown:?}");
        }
        // It calls as itself, and is called.
        let caller = Agent::new(place.at(CALLER), server.address);
        let aor = format!("sip:{written}@example.test");
        let request = message(&caller, &aor, &aor);
        let login = Login::new(name, "pw");
        let (seen, answer) = through(&caller, &phone, &signed(&caller, &login, &request));
        assert_eq!((status(&answer), seen.is("MESSAGE")), (200, true), "{name}");
    }
    // A name with an @ is itself and not the user before the @.
    for (login, aor, expected) in
        [("bob@partner.test", "bob", 403), ("bob", "bob%40partner.test", 403), ("bob", "bob", 200), ("50%", "50%2525", 403)]
    {
        let request = phone.register("example.test", aor, &contact, 600);
        let answer = ask_as(&phone, &Login::new(login, "pw"), &request);
        assert_eq!(status(&answer), expected, "{login} as {aor}");
    }
    // A phone that logs in with its whole address.
    let request = phone.register("example.test", "bob", &contact, 600);
    let answer = ask_as(&phone, &Login::new("bob@example.test", "pw"), &request);
    assert_eq!(status(&answer), 200);

    server.signal("TERM");
    server.finish(PATIENCE);
    let server = conf.start(&place);
    for (name, written) in NAMES {
        let shown = server.command(&place, &["ul", "show", &format!("{written}@example.test")]);
        assert_eq!(shown.code, Some(0), "{name} after a restart: {shown:?}");
    }
}

#[test]
fn credentials_are_good_for_one_request() {
    let place = Place::new("identity-repeated");
    let conf = guarded(&place, &["bob", "alice"]);
    let server = conf.stream("tcp", place.at(1)).start(&place);
    let phone = Agent::new(place.at(CALLEE), server.address);
    for agent in ways(&place, &server, CALLER) {
        let mut bob = Login::new("bob", "open-bob");
        let query = agent.register("example.test", "bob", "", 600);
        let challenge = Challenge::of(&agent.ask(&query));
        let asked = bob.answer(&query, &challenge, "sip:example.test");
        assert_eq!(status(&agent.ask(&asked)), 200);
        // The branch, the credentials and all that they cover are the same.
        let mut bound = asked.clone();
        bound.contact = Some("<sip:evil@192.0.2.66>".to_owned());
        let mut removed = bound.clone();
        removed.contact = Some("*".to_owned());
        removed.extra[0] = "Expires: 0".to_owned();
        for changed in [bound, removed, asked.clone().with("Path: <sip:192.0.2.66;lr>")] {
            let answer = agent.ask(&changed);
            assert_eq!(status(&answer), 401, "{changed:?}", changed = changed.contact);
            let challenge = Challenge::of(&answer);
            assert!(challenge.stale, "the password is right: {answer:?}");
            let phone_goes_on = bob.answer(&changed, &challenge, "sip:example.test");
            assert!(phone_goes_on.extra.len() > changed.extra.len());
        }
        assert_eq!(status(&agent.ask(&asked)), 200, "the same again is the same");
        bob.count = 2;
        let counted = bob.answer(&query, &challenge, "sip:example.test");
        assert!(agent.ask(&counted).contacts().is_empty(), "nobody was bound");

        // An INVITE that found nobody, sent to somebody.
        let alice = Login::new("alice", "open-alice");
        let mut invite = agent.request("INVITE", "sip:nobody@example.test");
        invite.from = format!("<sip:alice@example.test>;tag=f{}", unique());
        let challenge = Challenge::of(&ask(&agent, &invite));
        let invite = alice.answer(&invite, &challenge, "sip:nobody@example.test");
        assert_eq!(status(&ask(&agent, &invite)), 404);
        let mut other = invite.clone();
        other.uri = "sip:bob@example.test".to_owned();
        server.command(&place, &["ul", "add", "bob@example.test", &format!("sip:bob@{}", phone.address)]);
        let answer = ask(&agent, &other);
        assert_eq!(status(&answer), 400, "made for another: {}", answer.start);
        server.command(&place, &["ul", "rm", "bob@example.test"]);
    }
    assert!(phone.collect(SILENCE).is_empty());
    server.expect_log(&["alice", "credentials for another Request-URI"]);
}

#[test]
fn credentials_for_a_friend_reach_nobody_else() {
    let place = Place::new("identity-uri");
    for (check, expected) in [("strict", 400), ("address", 400), ("off", 200)] {
        let conf = guarded(&place, &["alice"]).set("auth", "check_uri", &format!("{check:?}"));
        let server = conf.start(&place);
        let phone = Agent::new(place.at(CALLEE), server.address);
        server.command(&place, &["ul", "add", "bob@example.test", &format!("sip:bob@{}", phone.address)]);
        let agent = Agent::new(place.at(CALLER), server.address);
        let login = Login::new("alice", "open-alice");
        let request = message(&agent, "sip:alice@example.test", "sip:bob@example.test");
        let challenge = Challenge::of(&agent.ask(&request));
        let with = login.answer(&request, &challenge, "sip:friend@example.test");
        let answer = match expected {
            200 => through(&agent, &phone, &with).1,
            _ => agent.ask(&with),
        };
        assert_eq!(status(&answer), expected, "{check}: {}", answer.start);
        let request = agent.register("example.test", "alice", "<sip:a@192.0.2.1>", 600);
        let challenge = Challenge::of(&agent.ask(&request));
        let with = login.answer(&request, &challenge, "sip:friend@example.test");
        assert_eq!(status(&agent.ask(&with)), expected, "{check}");
        assert!(phone.collect(SILENCE).is_empty());
        end(server);
    }
}

#[test]
fn what_was_captured_before_a_restart_is_stale_after_it() {
    let place = Place::new("identity-restart");
    let conf = guarded(&place, &["bob"]).set("auth", "nonce_lifetime", "\"24h\"");
    let server = conf.start(&place);
    let agent = Agent::new(place.at(CALLER), server.address);
    let bob = Login::new("bob", "open-bob");
    let request = agent.register("example.test", "bob", "<sip:bob@192.0.2.1>", 600);
    let challenge = Challenge::of(&agent.ask(&request));
    let captured = bob.answer(&request, &challenge, "sip:example.test");
    assert_eq!(status(&agent.ask(&captured)), 200);
    // A reload is no restart.
    let reloaded = server.command(&place, &["reload"]);
    assert_eq!(reloaded.code, Some(0), "{reloaded:?}");
    let counted = Login { count: 2, ..Login::new("bob", "open-bob") };
    let answer = agent.ask(&counted.answer(&again(&request), &challenge, "sip:example.test"));
    assert_eq!(status(&answer), 200, "{answer:?}");
    end(server);

    let server = conf.start(&place);
    let mut evil = captured.clone();
    evil.contact = Some("<sip:evil@192.0.2.66>".to_owned());
    for replayed in [captured, evil] {
        let answer = agent.ask(&replayed);
        assert_eq!(status(&answer), 401, "{answer:?}");
        assert!(Challenge::of(&answer).stale, "{answer:?}");
    }
    let mut request = again(&request);
    request.cseq += 10;
    let challenge = Challenge::of(&agent.ask(&request));
    let good = bob.answer(&request, &challenge, "sip:example.test");
    let bound = agent.ask(&good);
    assert_eq!(bound.contacts(), ["sip:bob@192.0.2.1"], "{bound:?}");
    end(server);
}

/// Rows of a database in which no hash stands, or half of one.
#[test]
fn a_row_that_nobody_can_use_is_nobody() {
    let place = Place::new("identity-rows");
    let conf = Conf::new(&place).set("auth", "challenge_register", "true").set("auth", "users", "\"users.db\"");
    conf.write(&place);
    let added = user(&place, &["add", "bob@example.test", "--create", "--password-stdin"], "pw\n");
    assert_eq!(added.code, Some(0), "{added:?}");
    let database = place.path("users.db").display().to_string();
    // Carol alone can answer for nothing but MD5, and alone is asked for that alone.
    let rows = format!(
        "INSERT INTO subscriber (username, domain, ha1) VALUES ('empty', 'example.test', ''), \
         ('short', 'example.test', 'd41d8cd98f00b204'), ('carol', 'example.test', '{}');",
        md5("carol:example.test:pw")
    );
    let arguments = ["-batch", &database, &rows];
    let made = process::run(&place, "sqlite3", Path::new("sqlite3"), &arguments, PATIENCE);
    assert_eq!(made.code, Some(0), "{made:?}");
    let server = conf.start(&place);
    let agent = Agent::new(place.at(CALLER), server.address);
    let answers = ["bob", "carol", "empty", "short", "nobody"].map(|name| {
        let request = agent.register("example.test", name, "<sip:x@192.0.2.1>", 600);
        let first = agent.ask(&request);
        assert_eq!(challenges(&first).len(), if name == "carol" { 1 } else { 2 }, "{name}: {first:?}");
        let login = Login::new(name, "pw");
        let with = login.answer(&request, &Challenge::of(&first), "sip:example.test");
        let answer = agent.ask(&with);
        (status(&answer), challenges(&answer).len())
    });
    assert_eq!(answers, [(200, 0), (200, 0), (401, 2), (401, 2), (401, 2)]);
    server.expect_log(&["2 of its rows cannot be used", "\"empty\""]);
}

/// sipsak signs for what it asks for, and takes a name as it is typed.
#[test]
fn sipsak_registers_with_a_password() {
    let place = Place::new("identity-sipsak");
    let server = guarded(&place, &["bob", "9901#1"]).start(&place);
    for (name, aor) in [("bob", "bob"), ("9901#1", "9901%231")] {
        let ip = place.ip(CALLER).to_string();
        let (uri, password) = (server.uri(aor), format!("open-{name}"));
        let contact = format!("sip:{aor}@{}", place.at(CALLER));
        let arguments = ["-H", &ip, "-k", &ip, "-U", "-i", "-x", "120", "-C", &contact, "-u", name, "-a", &password, "-s", &uri];
        let outcome = process::run(&place, "sipsak", Path::new("sipsak"), &arguments, PATIENCE);
        assert_eq!(outcome.code, Some(0), "{name}: {outcome:?}");
        let shown = server.show(&place, aor);
        assert!(shown.stdout.contains(&contact), "{name}: {shown:?}");
    }
}

fn end(server: Server) {
    server.signal("TERM");
    server.finish(PATIENCE);
}
