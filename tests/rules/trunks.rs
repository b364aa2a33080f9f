//! Trunks: registrations with carriers, and their challenges to what goes there, answered here. And probes, which are requests of our own as well.

use std::sync::Arc;

use strowger::base::{Instant, Key, Transport};
use strowger::sip::Credentials;
use strowger::stack::Element;
use strowger::stack::Settings;
use strowger::stack::auth::digest::{Algorithm, ha1, response};
use strowger::stack::health::{Health, NamedBy, Neighbour, Standing};
use strowger::stack::route::{Action, NextHop, Route};
use strowger::stack::settings::Mode;
use strowger::stack::trunk::Trunk;
use strowger::stack::trunk_table::{State, TrunkTable};

use crate::bench::*;
use crate::failover::hop;
use crate::log_lines::texts;
use crate::message::{Answer, Request, Text};
use crate::names::{Zone, by_name};
use crate::proxy::route;

const CARRIER: &str = "10.0.7.1:5080";
const SPARE: &str = "10.0.7.2:5080";
const PASSWORD: &str = "open sesame";

pub fn trunk(registrar: NextHop) -> Trunk {
    Trunk {
        name: "carrier".into(),
        registrar,
        user: b"4930".to_vec(),
        auth_user: b"login".to_vec(),
        realm: None,
        password: PASSWORD.as_bytes().to_vec().into(),
        register: true,
        expires: 600,
    }
}

struct Line {
    b: Bench,
    table: Arc<TrunkTable>,
}

impl Line {
    fn new(trunk: Trunk, change: impl FnOnce(&mut Settings)) -> Line {
        let mut b = Bench::with(|settings| {
            settings.trunks = vec![Arc::new(trunk)];
            change(settings);
        });
        let table = Arc::new(TrunkTable::default());
        table.keep(std::iter::empty());
        b.cores[0].share_trunks(table.clone());
        Line { b, table }
    }

    /// Up to the first REGISTER.
    #[track_caller]
    fn asked() -> (Line, Sent) {
        let mut line = Line::new(trunk(hop(CARRIER)), |_| ());
        let first = next(&mut line.b);
        assert_eq!((first.to.as_str(), first.method()), (CARRIER, "REGISTER"), "{first}");
        (line, first)
    }

    fn state(&self) -> State {
        self.table.all()[0].1.state.clone()
    }

    fn until(&self) -> u64 {
        self.table.all()[0].1.until.as_ms()
    }

    #[track_caller]
    fn answer(&mut self, answer: Answer) -> Vec<Sent> {
        self.b.send(CARRIER, answer)
    }
}

/// The next message, as soon as it leaves.
#[track_caller]
fn next(b: &mut Bench) -> Sent {
    for _ in 0..1000 {
        let due = b.cores.iter().filter_map(Element::next_timeout).min();
        let wait = due.map_or(1, |due| due.as_ms().saturating_sub(b.now));
        let mut sent = b.tick(wait.max(1));
        if !sent.is_empty() {
            return sent.remove(0);
        }
    }
    panic!("nothing has left");
}

/// Those that are no repetitions.
fn fresh(sent: Vec<Sent>) -> Vec<Sent> {
    let mut seen = std::collections::HashSet::new();
    sent.into_iter().filter(|sent| seen.insert(sent.branch().to_owned())).collect()
}

fn challenge(status: u16, more: &str) -> String {
    let name = if status == 401 { "WWW" } else { "Proxy" };
    format!("{name}-Authenticate: Digest realm=\"carrier.example\", {more}")
}

fn said<'a>(credentials: &'a str, name: &str) -> Option<&'a str> {
    let rest = credentials.strip_prefix("Digest ")?;
    rest.split(", ").find_map(|part| part.strip_prefix(name)?.strip_prefix('=')).map(|value| value.trim_matches('"'))
}

/// Whether the credentials of a request are what the password makes of a challenge; their nonce and their count.
#[track_caller]
fn check_credentials(request: &Text, name: &str, algorithm: &str, body: &str) -> (String, String) {
    let line = request.header(name).unwrap_or_else(|| panic!("no {name}: {request}"));
    assert_eq!(said(line, "username"), Some("login"));
    assert_eq!(said(line, "uri"), Some(request.uri()), "{line}");
    let (function, session) = Algorithm::parse(algorithm.as_bytes()).unwrap();
    let get = |name| said(line, name).map(str::as_bytes);
    let credentials = Credentials {
        username: b"login",
        realm: get("realm").unwrap(),
        nonce: get("nonce").unwrap(),
        uri: get("uri").unwrap(),
        response: b"",
        algorithm: get("algorithm"),
        cnonce: get("cnonce"),
        qop: get("qop"),
        nc: get("nc"),
    };
    let secret = ha1(function, b"login", credentials.realm, PASSWORD.as_bytes());
    let right = response(function, session, &secret, &credentials, request.method().as_bytes(), body.as_bytes());
    let right = String::from_utf8(right.unwrap().hex().bytes().to_vec()).unwrap();
    assert_eq!(said(line, "response"), Some(right.as_str()), "{line}");
    assert!(!request.to_string().contains(PASSWORD));
    let own = |name| said(line, name).unwrap_or_default().to_owned();
    (own("nonce"), own("nc"))
}

// ---- the registration ----------------------------------------------------------------------------------------------------

#[test]
fn a_trunk_registers_answers_the_challenge_and_refreshes() {
    for (algorithm, more) in [
        ("MD5", "nonce=\"n\""),
        ("MD5", "nonce=\"n\", algorithm=MD5, qop=\"auth\", opaque=\"o\""),
        ("SHA-256", "nonce=\"n\", algorithm=SHA-256, qop=\"auth,auth-int\""),
        ("SHA-256-sess", "nonce=\"n\", algorithm=SHA-256-sess, qop=\"auth-int\""),
    ] {
        let (mut line, first) = Line::asked();
        assert_eq!(first.uri(), "sip:10.0.7.1:5080");
        assert_eq!(first.header("To"), Some("<sip:4930@10.0.7.1>"));
        assert_eq!(first.header("Contact"), Some("<sip:4930@10.0.0.1:5060>"));
        assert_eq!(first.header("Expires"), Some("600"));
        assert!(first.all("Authorization").is_empty());
        assert_eq!(line.state(), State::Trying);
        let second = only(line.answer(first.answer(401).add(&challenge(401, more))));
        let (_, count) = check_credentials(&second, "Authorization", algorithm, "");
        assert_eq!(
            (second.header("Call-ID"), count.as_str()),
            (first.header("Call-ID"), if more.contains("qop") { "00000001" } else { "" })
        );
        assert_ne!(second.header("CSeq"), first.header("CSeq"));
        assert_ne!(second.branch(), first.branch());
        assert_eq!(more.contains("opaque"), second.header("Authorization").unwrap().contains("opaque=\"o\""));
        let now = line.b.now;
        let granted = second.answer(200).add("Contact: <sip:4930@10.0.0.1:5060>;expires=100");
        assert!(line.answer(granted).is_empty());
        assert_eq!((line.state(), line.until()), (State::Registered, now + 100_000));
        // Between the half and three quarters of what was granted, with the same nonce and its next count.
        assert!(line.b.tick(49_999).is_empty());
        let third = next(&mut line.b);
        assert!(third.at <= now + 75_000, "{}", third.at);
        let (nonce, count) = check_credentials(&third, "Authorization", algorithm, "");
        assert_eq!((nonce.as_str(), count.as_str()), ("n", if more.contains("qop") { "00000002" } else { "" }));
        // A nonce that has become too old is followed by the new one, the password is still right.
        let stale = challenge(401, &more.replace("nonce=\"n\"", "nonce=\"m\", stale=true"));
        let fourth = only(line.answer(third.answer(401).add(&stale)));
        assert_eq!(check_credentials(&fourth, "Authorization", algorithm, "").0, "m");
        line.answer(fourth.answer(200).add("Expires: 600"));
        assert_eq!(line.until(), line.b.now + 600_000);
    }
}

#[test]
fn a_refused_password_is_told_and_tried_again_later() {
    let (mut line, first) = Line::asked();
    let again = only(line.answer(first.answer(407).add(&challenge(407, "nonce=\"n\""))));
    check_credentials(&again, "Proxy-Authorization", "MD5", "");
    let refused = line.answer(again.answer(407).add(&challenge(407, "nonce=\"m\"")));
    assert!(refused.is_empty(), "one answer for each round: {}", show(&refused));
    assert_eq!(line.state(), State::Failed("the password is refused".into()));
    let next = next(&mut line.b);
    assert!(next.all("Proxy-Authorization").is_empty(), "a new round begins without an answer");
}

#[test]
fn the_waits_grow_with_each_failure() {
    let (mut line, mut sent) = Line::asked();
    let mut waits = Vec::new();
    for _ in 0..7 {
        assert!(line.answer(sent.answer(500)).is_empty());
        let before = line.b.now;
        sent = next(&mut line.b);
        waits.push(sent.at - before);
    }
    let expected = [30_000, 60_000, 120_000, 240_000, 480_000, 600_000, 600_000];
    for (wait, expected) in waits.iter().zip(expected) {
        assert!((expected * 9 / 10..=expected).contains(wait), "{waits:?}");
    }
    // A success begins it anew.
    line.answer(sent.answer(200).add("Expires: 60"));
    sent = next(&mut line.b);
    line.answer(sent.answer(500));
    let before = line.b.now;
    assert!(next(&mut line.b).at - before <= 30_000);
}

#[test]
fn what_the_registrar_asks_for_is_done() {
    // 423: for longer.
    let (mut line, first) = Line::asked();
    let longer = only(line.answer(first.answer(423).add("Min-Expires: 3600")));
    assert_eq!(longer.header("Expires"), Some("3600"));
    assert!(line.answer(longer.answer(423).add("Min-Expires: 7200")).is_empty(), "once");
    // Retry-After: not sooner.
    let (mut line, first) = Line::asked();
    line.answer(first.answer(503).add("Retry-After: 90 (busy)"));
    assert_eq!(line.state(), State::Failed("503 Whatever".into()));
    assert!(line.b.tick(89_999).is_empty());
    assert_eq!(line.b.tick(1).len(), 1);
    // Silence and a closed port are failures.
    let (mut line, _) = Line::asked();
    line.b.tick(32_000);
    assert_eq!(line.state(), State::Failed(format!("no response from {CARRIER}")));
    let (mut line, first) = Line::asked();
    line.b.undelivered(&first.bytes);
    assert_eq!(line.state(), State::Failed(format!("port unreachable from {CARRIER}")));
    // What cannot be answered is not.
    let (mut line, first) = Line::asked();
    let unknown = challenge(401, "nonce=\"n\", algorithm=SHA3");
    assert!(line.answer(first.answer(401).add(&unknown)).is_empty());
    assert!(matches!(line.state(), State::Failed(_)));
}

#[test]
fn the_registrars_name_leads_to_the_next_server_when_one_is_silent() {
    let mut line = Line::new(trunk(by_name("sip:carrier.example:5080")), |_| ());
    assert!(line.b.tick(1000).is_empty());
    let mut zone = Zone::new("carrier.example A 10.0.7.1\ncarrier.example A 10.0.7.2");
    let first = only(zone.serve(&mut line.b));
    assert_eq!(first.uri(), "sip:carrier.example:5080");
    assert_eq!(first.header("To"), Some("<sip:4930@carrier.example>"));
    let later = line.b.tick(32_000);
    let second = later.iter().find(|sent| sent.to != first.to).expect("the other server").clone();
    line.b.send(&second.to, second.answer(200));
    assert_eq!(line.state(), State::Registered);
    // A server without time is passed over as well; one that has challenged is no reason not to answer the next.
    let mut line = Line::new(trunk(by_name("sip:carrier.example:5080")), |_| ());
    line.b.tick(1000);
    let mut zone = Zone::new("carrier.example A 10.0.7.1\ncarrier.example A 10.0.7.2");
    let first = only(zone.serve(&mut line.b));
    let with_password = only(line.b.send(&first.to, first.answer(401).add(&challenge(401, "nonce=\"n\""))));
    let second = only(line.b.send(&first.to, with_password.answer(503).add("Retry-After: 600")));
    assert_ne!(second.to, first.to);
    let again = only(line.b.send(&second.to, second.answer(401).add(&challenge(401, "nonce=\"m\""))));
    assert_eq!(check_credentials(&again, "Authorization", "MD5", "").0, "m");
    // When none is left, the last one says why, and when to come again.
    let now = line.b.now;
    assert!(line.b.send(&second.to, again.answer(503).add("Retry-After: 700")).is_empty());
    assert_eq!(line.state(), State::Failed("503 Whatever".into()));
    assert_eq!(line.table.all()[0].1.next.as_ms() - now, 700_000);
    // No name, no registration; and it is tried again.
    let mut line = Line::new(trunk(by_name("sip:carrier.example:5080")), |_| ());
    line.b.tick(1000);
    Zone::new("").serve(&mut line.b);
    assert!(matches!(line.state(), State::Failed(_)), "{:?}", line.state());
}

/// Two servers of a name: the one asked first is silent, and the other has granted it. Returns both.
fn granted_by_the_second() -> (Line, Zone, String, Sent) {
    let mut line = Line::new(trunk(by_name("sip:carrier.example:5080")), |_| ());
    line.b.tick(1000);
    let mut zone = Zone::new("carrier.example A 10.0.7.1\ncarrier.example A 10.0.7.2");
    let first = only(zone.serve(&mut line.b));
    let patience = line.b.tick(4_100);
    let second = patience.iter().find(|sent| sent.to != first.to).expect("the other server, after the patience").clone();
    line.b.send(&second.to, second.answer(200));
    assert_eq!(line.state(), State::Registered);
    (line, zone, first.to.clone(), second)
}

#[test]
fn the_server_that_has_granted_a_registration_is_the_one_that_is_asked_on() {
    let (mut line, mut zone, silent, granting) = granted_by_the_second();
    // Long after the silent one may be tried again.
    for _ in 0..3 {
        let refresh = next(&mut line.b);
        assert_eq!((refresh.to.as_str(), refresh.method()), (granting.to.as_str(), "REGISTER"));
        // A challenge is answered where it came from.
        let again = only(line.b.send(&refresh.to, refresh.answer(401).add(&challenge(401, "nonce=\"n\""))));
        assert_eq!(again.to, granting.to);
        line.b.send(&again.to, again.answer(200));
    }
    // When it is silent itself, the other one is asked within the time that was granted.
    let refresh = next(&mut line.b);
    line.b.tick(4_100);
    // What was known of the name is no longer valid by then.
    let others = zone.serve(&mut line.b);
    let other = others.iter().find(|sent| sent.to == silent).expect("the other server").clone();
    assert!(line.until() > line.b.now + 100_000, "{} {}", line.until(), refresh.at);
    line.b.send(&silent, other.answer(200));
    assert_eq!(next(&mut line.b).to, silent);
}

#[test]
fn a_registration_is_given_back_to_the_server_that_has_granted_it() {
    let (mut line, _, _, granting) = granted_by_the_second();
    line.b.cores[0].handle_drain();
    let last = only(line.b.tick(0));
    assert_eq!((last.to.as_str(), last.header("Expires")), (granting.to.as_str(), Some("0")));
    let again = only(line.b.send(&last.to, last.answer(401).add(&challenge(401, "nonce=\"n\""))));
    assert_eq!((again.to.as_str(), again.header("Expires")), (granting.to.as_str(), Some("0")));
    line.b.send(&again.to, again.answer(200));
    line.b.tick(0);
    assert_eq!(line.b.cores[0].occupancy().pending, 0);
    line.b.assert_quiet();
}

/// The only server of a name keeps all of its time.
#[test]
fn a_silent_server_without_another_one_is_waited_for() {
    let mut line = Line::new(trunk(by_name("sip:carrier.example:5080")), |_| ());
    line.b.tick(1000);
    let first = only(Zone::new("carrier.example A 10.0.7.1").serve(&mut line.b));
    line.b.tick(20_000);
    line.b.send(&first.to, first.answer(200));
    assert_eq!(line.state(), State::Registered);
}

#[test]
fn a_registrar_over_tcp_is_reached_by_a_connection_and_told_of_it() {
    let by_tcp =
        NextHop { transport: Transport::Tcp, uri: format!("sip:{CARRIER};transport=tcp").parse().unwrap(), ..hop(CARRIER) };
    let mut line = Line::new(trunk(by_tcp), |settings| settings.listeners = listeners());
    let first = next(&mut line.b);
    assert_eq!(first.flow.transport, Transport::Tcp);
    assert!(first.header("Via").unwrap().starts_with("SIP/2.0/TCP 10.0.0.1:5060;"), "{first}");
    assert_eq!(first.header("Contact"), Some("<sip:4930@10.0.0.1:5060;transport=tcp>"));
    line.b.lose(first.flow);
    assert_eq!(line.state(), State::Failed(format!("no connection from {CARRIER}")));
    let second = next(&mut line.b);
    line.b.send_on(0, second.flow, second.answer(200));
    assert_eq!(line.state(), State::Registered);
    // A connection that ends later says nothing of the registration.
    line.b.lose(second.flow);
    assert_eq!(line.state(), State::Registered);
}

#[test]
fn a_server_that_stops_gives_its_registration_back() {
    let (mut line, first) = Line::asked();
    line.answer(first.answer(200));
    line.b.cores[0].handle_drain();
    let last = only(line.b.tick(0));
    assert_eq!((last.method(), last.header("Expires")), ("REGISTER", Some("0")));
    assert_eq!(line.b.cores[0].occupancy().pending, 1, "the server waits for it");
    line.answer(last.answer(200));
    line.b.tick(0);
    assert_eq!(line.b.cores[0].occupancy().pending, 0);
    line.b.assert_quiet();
    // A carrier that is not there keeps nobody.
    let (mut line, first) = Line::asked();
    line.answer(first.answer(200));
    line.b.cores[0].handle_drain();
    line.b.tick(4000);
    assert_eq!(line.b.cores[0].occupancy().pending, 0);
    // What was never granted need not be given back.
    let (mut line, _) = Line::asked();
    line.b.cores[0].handle_drain();
    let sent = line.b.tick(0);
    assert!(sent.iter().all(|sent| sent.header("Expires") != Some("0")), "{}", show(&sent));
}

#[test]
fn a_reload_keeps_what_has_not_changed_and_gives_back_what_is_gone() {
    let (mut line, first) = Line::asked();
    line.answer(first.answer(200));
    let with = |trunks: Vec<Trunk>| {
        let mut settings =
            Settings { domains: vec![b"example.com".to_vec()], listeners: vec![listener(PROXY)], ..Settings::default() };
        settings.trunks = trunks.into_iter().map(Arc::new).collect();
        Arc::new(settings)
    };
    line.b.cores[0].handle_config(with(vec![trunk(hop(CARRIER))]));
    assert!(line.b.tick(1000).is_empty(), "it is registered");
    assert_eq!(line.state(), State::Registered);
    // Another password is tried at once.
    let other = Trunk { password: b"other".to_vec().into(), ..trunk(hop(CARRIER)) };
    line.b.cores[0].handle_config(with(vec![other]));
    let again = next(&mut line.b);
    assert_eq!(again.header("Expires"), Some("600"));
    line.answer(again.answer(200));
    line.b.cores[0].handle_config(with(Vec::new()));
    let last = next(&mut line.b);
    assert_eq!(last.header("Expires"), Some("0"));
    line.answer(last.answer(200));
    assert!(line.table.all().is_empty());
    line.b.assert_quiet();
}

fn settings_with(trunks: Vec<Trunk>) -> Arc<Settings> {
    let mut settings = Settings { domains: vec![b"example.com".to_vec()], listeners: vec![listener(PROXY)], ..Settings::default() };
    settings.trunks = trunks.into_iter().map(Arc::new).collect();
    Arc::new(settings)
}

#[test]
fn what_is_granted_after_the_trunk_is_gone_is_given_back() {
    let (mut line, first) = Line::asked();
    line.b.cores[0].handle_config(settings_with(Vec::new()));
    assert!(line.b.tick(10).is_empty(), "first it has to be known what is granted");
    let last = only(line.answer(first.answer(200)));
    assert_eq!((last.method(), last.header("Expires")), ("REGISTER", Some("0")));
    assert_ne!(last.header("CSeq"), first.header("CSeq"));
    line.answer(last.answer(200));
    line.b.tick(0);
    assert_eq!(line.b.cores[0].occupancy().pending, 0);
    line.b.assert_quiet();
    // What is refused, or not answered in time, was not granted.
    for status in [Some(403), Some(401), None] {
        let (mut line, first) = Line::asked();
        line.b.cores[0].handle_config(settings_with(Vec::new()));
        line.b.tick(10);
        let sent = match status {
            Some(status) => line.answer(first.answer(status).add(&challenge(401, "nonce=\"n\""))),
            None => fresh(line.b.tick(4_000)).into_iter().filter(|sent| sent.branch() != first.branch()).collect(),
        };
        assert!(sent.is_empty(), "{}", show(&sent));
        line.b.tick(0);
        assert_eq!(line.b.cores[0].occupancy().pending, 0, "{status:?}");
        line.b.assert_quiet();
    }
}

#[test]
fn what_still_stands_after_a_refresh_has_failed_is_given_back() {
    // The refresh is refused, or silent, or on its way.
    for what in ["refused", "silent", "under way"] {
        let (mut line, first) = Line::asked();
        line.answer(first.answer(200));
        let refresh = next(&mut line.b);
        match what {
            "refused" => drop(line.answer(refresh.answer(503))),
            "silent" => drop(line.b.tick(32_000)),
            _ => {}
        }
        line.b.cores[0].handle_config(settings_with(Vec::new()));
        let sent = line.b.tick(4_000);
        let last = sent.iter().find(|sent| sent.header("Expires") == Some("0")).unwrap_or_else(|| panic!("{what}")).clone();
        line.answer(last.answer(200));
        line.b.tick(0);
        line.b.assert_quiet();
    }
    // Another account for the same address has tried in vain meanwhile.
    let (mut line, first) = Line::asked();
    line.answer(first.answer(200));
    line.b.cores[0].handle_config(settings_with(vec![Trunk { expires: 700, ..trunk(hop(CARRIER)) }]));
    let refused = next(&mut line.b);
    assert_eq!(refused.header("Expires"), Some("700"));
    line.answer(refused.answer(503));
    line.b.cores[0].handle_config(settings_with(Vec::new()));
    assert_eq!(only(line.b.tick(0)).header("Expires"), Some("0"));
}

#[test]
fn what_a_registrar_says_has_bounds() {
    let contact = |more: &str| format!("Contact: <sip:4930@10.0.0.1:5060>{more}");
    let granted = |lines: &[&str]| {
        let (mut line, first) = Line::asked();
        let now = line.b.now;
        let answer = lines.iter().fold(first.answer(200), |answer, one| answer.add(one));
        line.answer(answer);
        let standing = line.table.all()[0].1.clone();
        (standing.state, standing.until.as_ms().saturating_sub(now), standing.next.as_ms() - now)
    };
    // It is refreshed as if no more was granted than was asked for, but it stands, so long as that is believed.
    for lines in [[contact(";expires=99999999999999999999"), "X: y".into()], [contact(""), "Expires: 4294967296".into()]] {
        let (state, until, next) = granted(&lines.each_ref().map(String::as_str));
        assert_eq!((state, until), (State::Registered, 7 * 86_400_000));
        assert!((300_000..=450_000).contains(&next), "{next}");
    }
    // However little it is, it is not asked for all the time.
    assert_eq!(granted(&[&contact(";expires=1")]), (State::Registered, 1000, 10_000));
    // The one of ours counts, before one of the same user elsewhere.
    let (others, ours) = ("Contact: <sip:else@192.0.2.7>;expires=5, <sip:4930@192.0.2.8>;expires=6", contact(";expires=100"));
    assert_eq!(granted(&[others, &ours]).1, 100_000);
    assert_eq!(granted(&[others]).1, 6_000, "a gateway may change the host");
    assert_eq!(granted(&["Contact: <sip:%34930@10.0.0.1>;expires=90"]).1, 90_000);
    for (line, why) in [
        (contact(";expires=0"), "200 Whatever for no time at all"),
        ("Expires: 0".into(), "200 Whatever for no time at all"),
        ("Contact: <sip:else@192.0.2.7>;expires=5".into(), "200 Whatever without our Contact"),
    ] {
        let (state, until, next) = granted(&[&line]);
        assert_eq!((state, until), (State::Failed(why.into()), 0));
        assert!((27_000..=30_000).contains(&next), "{next}");
    }
    for (asked, waits) in
        [("0", 30_000..=30_000), ("2", 30_000..=30_000), ("999999999999", 3_600_000..=3_600_000), ("0x10", 27_000..=30_000)]
    {
        let (mut line, first) = Line::asked();
        let now = line.b.now;
        line.answer(first.answer(503).add(&format!("Retry-After: {asked}")));
        let wait = line.table.all()[0].1.next.as_ms() - now;
        assert!(waits.contains(&wait), "{asked}: {wait}");
    }
    for least in ["99999999999", "604801", "600", "10"] {
        let (mut line, first) = Line::asked();
        assert!(line.answer(first.answer(423).add(&format!("Min-Expires: {least}"))).is_empty(), "{least}");
        assert_eq!(line.state(), State::Failed("423 Whatever".into()));
    }
}

#[test]
fn only_the_first_core_registers() {
    let mut b = Bench::with(|settings| {
        settings.cores = 3;
        settings.trunks = vec![Arc::new(trunk(hop(CARRIER)))];
    });
    assert_eq!(fresh(b.tick(30_000)).len(), 1);
}

// ---- calls ---------------------------------------------------------------------------------------------------------------

fn calling(change: impl FnOnce(&mut Trunk)) -> Bench {
    let mut account = trunk(hop(CARRIER));
    account.register = false;
    change(&mut account);
    let route = Route { trunk: Some(Arc::new(account)), ..route(Action::Relay(vec![hop(CARRIER), hop(SPARE)])) };
    Bench::with(|settings| settings.routes = vec![route].into())
}

fn invite() -> Request {
    Request::new("INVITE", "sip:030123@carrier.example").body("v=0\r\n")
}

#[test]
fn a_challenge_to_a_call_is_answered_without_the_callers_knowing() {
    for (status, name) in [(401, "Authorization"), (407, "Proxy-Authorization")] {
        for (algorithm, more) in [
            ("MD5", "nonce=\"n\""),
            ("SHA-256", "nonce=\"n\", algorithm=SHA-256, qop=\"auth\""),
            ("MD5", "nonce=\"n\", algorithm=MD5, qop=\"auth-int\""),
        ] {
            let mut b = calling(|_| ());
            let sent = b.send(ALICE, invite());
            let first = the(&sent, CARRIER).clone();
            let sent = b.send(CARRIER, first.answer(status).add(&challenge(status, more)));
            let at_carrier = to(&sent, CARRIER);
            assert!(to(&sent, ALICE).is_empty(), "{}", show(&sent));
            assert_eq!(at_carrier.iter().map(|sent| sent.method()).collect::<Vec<_>>(), ["ACK", "INVITE"]);
            assert_eq!(at_carrier[0].branch(), first.branch());
            let second = at_carrier[1].clone();
            check_credentials(&second, name, algorithm, "v=0\r\n");
            assert_ne!(second.branch(), first.branch());
            for same in ["From", "To", "Call-ID", "CSeq", "Max-Forwards"] {
                assert_eq!(second.header(same), first.header(same));
            }
            assert_eq!(second.body, first.body);
            let ringing = b.send_for_one(CARRIER, second.answer(180));
            assert_eq!((ringing.status(), ringing.to.as_str()), (180, ALICE));
            let ok = b.send_for_one(CARRIER, second.answer(200));
            assert_eq!((ok.status(), ok.to.as_str()), (200, ALICE));
            b.assert_quiet();
        }
    }
}

#[test]
fn a_stale_nonce_is_followed_once_and_a_refused_password_is_no_business_of_the_caller() {
    let mut b = calling(|_| ());
    let request = invite();
    let sent = b.send(ALICE, &request);
    let first = the(&sent, CARRIER).clone();
    let sent = b.send(CARRIER, first.answer(407).add(&challenge(407, "nonce=\"n\"")));
    let second = to(&sent, CARRIER)[1].clone();
    let sent = b.send(CARRIER, second.answer(407).add(&challenge(407, "nonce=\"m\", stale=true")));
    let third = to(&sent, CARRIER)[1].clone();
    assert_eq!(check_credentials(&third, "Proxy-Authorization", "MD5", "").0, "m");
    let sent = b.send(CARRIER, third.answer(407).add(&challenge(407, "nonce=\"o\", stale=true")));
    let answer = the(&sent, ALICE);
    assert_eq!((answer.status(), answer.reason()), (502, "Trunk Password Refused"));
    assert!(answer.all("Proxy-Authenticate").is_empty());
    assert!(to(&sent, SPARE).is_empty(), "the account is the same there");
    b.send(ALICE, request.ack(answer));
    b.assert_quiet();
}

/// Its place is taken: another copy would ring twice, and nobody has asked the caller for anything.
#[test]
fn a_challenge_of_a_carrier_that_was_given_up_is_not_answered() {
    let mut b = calling(|_| ());
    let sent = b.send(ALICE, invite());
    let first = the(&sent, CARRIER).clone();
    let sent = b.tick(6_000);
    let at_spare = to(&sent, SPARE)[0].clone();
    let sent = b.send(CARRIER, first.answer(407).add(&challenge(407, "nonce=\"n\"")));
    assert_eq!(
        sent.iter().map(|sent| (sent.to.as_str(), sent.method())).collect::<Vec<_>>(),
        [(CARRIER, "ACK")],
        "{}",
        show(&sent)
    );
    let sent = b.send(SPARE, at_spare.answer(486));
    assert_eq!(the(&sent, ALICE).status(), 486);
}

#[test]
fn a_spare_is_asked_as_ever_and_its_challenge_is_answered_too() {
    let mut b = calling(|_| ());
    let sent = b.send(ALICE, invite());
    let first = the(&sent, CARRIER).clone();
    let sent = b.send(CARRIER, first.answer(407).add(&challenge(407, "nonce=\"n\"")));
    let second = to(&sent, CARRIER)[1].clone();
    let sent = b.send(CARRIER, second.answer(503));
    let at_spare = the(&sent, SPARE).clone();
    assert!(at_spare.all("Proxy-Authorization").is_empty());
    let sent = b.send(SPARE, at_spare.answer(407).add(&challenge(407, "nonce=\"s\"")));
    assert_eq!(check_credentials(to(&sent, SPARE)[1], "Proxy-Authorization", "MD5", "").0, "s");
}

#[test]
fn what_is_the_callers_own_is_left_alone() {
    let own = "Proxy-Authorization: Digest username=\"a\", realm=\"carrier.example\", nonce=\"x\", uri=\"sip:x\", response=\"0\"";
    let mut b = calling(|_| ());
    let sent = b.send(ALICE, invite().add(own));
    let first = the(&sent, CARRIER).clone();
    assert_eq!(first.all("Proxy-Authorization").len(), 1);
    let sent = b.send(CARRIER, first.answer(407).add(&challenge(407, "nonce=\"n\"")));
    assert_eq!(the(&sent, ALICE).status(), 407);
    // A challenge in another realm than the trunk's is somebody's behind it.
    let mut b = calling(|trunk| trunk.realm = Some(b"other.example".to_vec()));
    let sent = b.send(ALICE, invite());
    let first = the(&sent, CARRIER).clone();
    let sent = b.send(CARRIER, first.answer(407).add(&challenge(407, "nonce=\"n\"")));
    assert_eq!(the(&sent, ALICE).status(), 407);
}

#[test]
fn a_call_that_is_cancelled_is_not_tried_again() {
    let mut b = calling(|_| ());
    let request = invite();
    let sent = b.send(ALICE, &request);
    let first = the(&sent, CARRIER).clone();
    b.send(ALICE, request.cancel());
    let sent = b.send(CARRIER, first.answer(407).add(&challenge(407, "nonce=\"n\"")));
    assert_eq!(to(&sent, CARRIER).iter().map(|sent| sent.method()).collect::<Vec<_>>(), ["ACK"]);
    let answer = the(&sent, ALICE);
    assert_eq!(answer.status(), 487);
    b.send(ALICE, request.ack(answer));
    b.assert_quiet();
}

#[test]
fn one_nonce_for_several_requests_is_counted() {
    let mut b = calling(|_| ());
    for count in ["00000001", "00000002", "00000003"] {
        let sent = b.send(ALICE, Request::new("MESSAGE", "sip:030@carrier.example"));
        let first = the(&sent, CARRIER).clone();
        let more = "nonce=\"n\", qop=\"auth\"";
        let second = only(b.send(CARRIER, first.answer(401).add(&challenge(401, more))));
        assert_eq!(check_credentials(&second, "Authorization", "MD5", "").1, count);
    }
}

/// The credentials make the request too large for UDP, and the carrier has no TCP.
#[test]
fn an_answer_that_is_too_large_for_udp_is_given_once_by_udp() {
    for method in ["INVITE", "MESSAGE"] {
        for nonce in ["n".repeat(40), "n".repeat(8000)] {
            let mut account = trunk(hop(CARRIER));
            account.register = false;
            let route = Route { trunk: Some(Arc::new(account)), ..route(Action::Relay(vec![hop(CARRIER), hop(SPARE)])) };
            let mut b = Bench::with(|settings| {
                settings.listeners = listeners();
                settings.routes = vec![route].into();
            });
            let mut request = Request::new(method, "sip:030123@carrier.example");
            request = request.body(&"x".repeat(1300 - 700));
            let sent = b.send(ALICE, &request);
            let first = the(&sent, CARRIER).clone();
            assert_eq!(first.flow.transport, Transport::Udp, "{} bytes", first.bytes.len());
            let padded = format!("nonce=\"{nonce}\", opaque=\"{}\"", "o".repeat(400));
            let sent = b.send(CARRIER, first.answer(407).add(&challenge(407, &padded)));
            let by_tcp = to(&sent, CARRIER).into_iter().find(|sent| sent.method() == method).expect("it goes again").clone();
            assert_eq!(by_tcp.flow.transport, Transport::Tcp);
            let by_udp = only(b.lose(by_tcp.flow));
            assert_eq!((by_udp.to.as_str(), by_udp.flow.transport), (CARRIER, Transport::Udp));
            check_credentials(&by_udp, "Proxy-Authorization", "MD5", &"x".repeat(600));
            // Refused by UDP is refused.
            let refused = b.send(CARRIER, by_udp.answer(407).add(&challenge(407, "nonce=\"m\"")));
            let answer = the(&refused, ALICE);
            assert_eq!((answer.status(), answer.reason()), (502, "Trunk Password Refused"), "{}", show(&refused));
            b.send(ALICE, request.ack(answer));
            b.assert_quiet();
        }
    }
}

#[test]
fn a_carrier_and_a_gateway_behind_it_may_both_ask() {
    let mut b = calling(|_| ());
    let sent = b.send(ALICE, invite());
    let first = the(&sent, CARRIER).clone();
    let sent = b.send(CARRIER, first.answer(407).add(&challenge(407, "nonce=\"n\"")));
    let second = to(&sent, CARRIER)[1].clone();
    let gateways = challenge(401, "nonce=\"g\"").replace("carrier.example", "gateway.example");
    let sent = b.send(CARRIER, second.answer(401).add(&gateways));
    let third = to(&sent, CARRIER)[1].clone();
    check_credentials(&third, "Proxy-Authorization", "MD5", "v=0\r\n");
    check_credentials(&third, "Authorization", "MD5", "v=0\r\n");
    let sent = b.send(CARRIER, third.answer(401).add(&gateways));
    assert_eq!(the(&sent, ALICE).reason(), "Trunk Password Refused", "and no more than that");
}

/// A call that the carrier has answered, with the route sets of its ends.
struct Answered {
    call_id: String,
    to: String,
    callers: Vec<String>,
    carriers: Vec<String>,
}

fn answered(b: &mut Bench) -> Answered {
    answered_with(b, &format!("<sip:gate@{CARRIER}>"), None)
}

/// The same if the carrier passes on such a Contact, and a Record-Route, from the far end.
fn answered_with(b: &mut Bench, contact: &str, recorded: Option<&str>) -> Answered {
    let sent = b.send(ALICE, invite());
    let first = the(&sent, CARRIER).clone();
    let sent = b.send(CARRIER, first.answer(407).add(&challenge(407, "nonce=\"n\"")));
    let second = to(&sent, CARRIER)[1].clone();
    let answer = second.answer(200).add(&format!("Contact: {contact}"));
    let ok = b.send_for_one(CARRIER, recorded.iter().fold(answer, |answer, uri| answer.top(&format!("Record-Route: {uri}"))));
    let routes = |text: &Text| text.all("Record-Route").iter().map(|route| route.to_string()).collect();
    let own = |name| ok.header(name).unwrap().to_owned();
    Answered { call_id: own("Call-ID"), to: own("To"), callers: routes(&ok), carriers: routes(&second) }
}

impl Answered {
    fn sent_by_caller(&self, method: &str, cseq: u32) -> Request {
        let request = Request::new(method, &format!("sip:gate@{CARRIER}")).to(&self.to).call_id(&self.call_id).cseq(cseq);
        self.callers.iter().fold(request, |request, route| request.top(&format!("Route: {route}")))
    }

    fn sent_by_carrier(&self, method: &str) -> Request {
        let request = Request::new(method, "sip:alice@10.0.1.1:5060")
            .via(CARRIER, &format!("z9hG4bKgate{}", crate::message::unique()))
            .from(&self.to)
            .to("\"Alice\" <sip:alice@example.com>;tag=alice")
            .call_id(&self.call_id)
            .cseq(7);
        self.carriers.iter().fold(request, |request, route| request.top(&format!("Route: {route}")))
    }
}

#[test]
fn a_challenge_within_the_dialog_is_answered_too() {
    for (status, name) in [(401, "Authorization"), (407, "Proxy-Authorization")] {
        let mut b = calling(|_| ());
        let call = answered(&mut b);
        let more = "nonce=\"d\", qop=\"auth\"";
        for (cseq, (method, count)) in (2..).zip([("INVITE", "00000001"), ("MESSAGE", "00000002"), ("BYE", "00000003")]) {
            let request = call.sent_by_caller(method, cseq);
            let sent = b.send(ALICE, &request);
            let first = the(&sent, CARRIER).clone();
            assert!(first.all(name).is_empty());
            let sent = b.send(CARRIER, first.answer(status).add(&challenge(status, more)));
            assert!(to(&sent, ALICE).is_empty(), "{method}: {}", show(&sent));
            let second = to(&sent, CARRIER).into_iter().find(|sent| sent.method() == method).expect("it goes again").clone();
            assert_eq!(check_credentials(&second, name, "MD5", "").1, count, "{method}");
            assert_eq!(second.header("CSeq"), first.header("CSeq"));
            assert_eq!(b.send_for_one(CARRIER, second.answer(200)).status(), 200);
        }
        b.assert_quiet();
    }
}

#[test]
fn within_the_dialog_a_password_goes_to_the_carrier_alone() {
    // The caller's challenge to the carrier is the carrier's to answer.
    let mut b = calling(|_| ());
    let call = answered(&mut b);
    let sent = b.send(CARRIER, call.sent_by_carrier("BYE"));
    let at_alice = the(&sent, ALICE).clone();
    let sent = b.send(ALICE, at_alice.answer(401).add(&challenge(401, "nonce=\"d\"")));
    assert_eq!(the(&sent, CARRIER).status(), 401, "{}", show(&sent));
    // A refusal is no business of the caller, within a dialog as well.
    let sent = b.send(ALICE, call.sent_by_caller("BYE", 2));
    let first = the(&sent, CARRIER).clone();
    let second = only(b.send(CARRIER, first.answer(407).add(&challenge(407, "nonce=\"d\""))));
    let sent = b.send(CARRIER, second.answer(407).add(&challenge(407, "nonce=\"e\"")));
    assert_eq!((the(&sent, ALICE).status(), the(&sent, ALICE).reason()), (502, "Trunk Password Refused"));
    // Whoever sends the caller elsewhere, with the cookie of this dialog or without one, gets no password.
    for uri in ["sip:gate@10.0.9.9:5060", "sip:030@carrier.example"] {
        let mut elsewhere = call.sent_by_caller("MESSAGE", 3);
        elsewhere.uri = uri.into();
        for at in b.send(ALICE, elsewhere) {
            assert!(at.to == ALICE || at.to == CARRIER, "{uri}: {at}");
        }
    }
    // The account is gone with a reload.
    let mut b = calling(|_| ());
    let call = answered(&mut b);
    let settings = Settings { domains: vec![b"example.com".to_vec()], listeners: vec![listener(PROXY)], ..Settings::default() };
    let routes = vec![route(Action::Relay(vec![hop(CARRIER)]))].into();
    b.cores[0].handle_config(Arc::new(Settings { routes, ..settings }));
    let sent = b.send(ALICE, call.sent_by_caller("BYE", 2));
    let first = the(&sent, CARRIER).clone();
    let sent = b.send(CARRIER, first.answer(407).add(&challenge(407, "nonce=\"d\"")));
    assert_eq!(the(&sent, ALICE).status(), 407, "{}", show(&sent));
}

const FAR_END: &str = "10.0.9.9:5060";

/// Sends a request of the caller within the dialog, challenges it wherever it goes, and returns where that was and whether it came
/// again with an answer.
fn challenged(b: &mut Bench, request: &Request) -> (String, bool) {
    let sent = b.send(ALICE, request);
    let there = sent.iter().find(|sent| sent.method() == request.method).expect("it is relayed").clone();
    let sent = b.send(&there.to, there.answer(407).add(&challenge(407, "nonce=\"d\"")));
    let again = sent.iter().any(|sent| sent.method() == request.method);
    assert_eq!(!again, to(&sent, ALICE).iter().any(|sent| sent.status() == 407), "{}", show(&sent));
    assert!(again || !show(&sent).contains("Authorization"), "{}", show(&sent));
    (there.to.clone(), again)
}

#[test]
fn the_far_end_gets_no_answer_to_a_challenge_of_its_own() {
    let at_carrier = format!("sip:gate@{CARRIER}");
    for (contact, recorded) in [
        (format!("sip:gate@{FAR_END}"), None),
        (format!("sip:gate@{CARRIER};maddr=10.0.9.9"), None),
        (at_carrier.clone(), Some(format!("<sip:{FAR_END};lr>"))),
        (at_carrier, Some("<sip:x@carrier.example:5060;maddr=10.0.9.9;lr>".to_owned())),
    ] {
        for method in ["INVITE", "UPDATE", "MESSAGE", "BYE"] {
            let mut b = calling(|_| ());
            let call = answered_with(&mut b, &format!("<{contact}>"), recorded.as_deref());
            let mut request = call.sent_by_caller(method, 2);
            request.uri = contact.clone();
            let (to, again) = challenged(&mut b, &request);
            assert!(to.starts_with("10.0.9.9") && !again, "{method} {contact} {recorded:?}: {to}");
        }
    }
    // It may be said later that it is there, and a later Record-Route of ours makes it no carrier either.
    let mut b = calling(|_| ());
    let call = answered(&mut b);
    let sent = b.send(CARRIER, call.sent_by_carrier("INVITE").add(&format!("Contact: <sip:gate@{FAR_END}>")));
    let ok = the(&sent, ALICE).answer(200).add("Contact: <sip:alice@10.0.1.1:5060>");
    b.send(ALICE, ok);
    let mut invite = call.sent_by_caller("INVITE", 2).add("Contact: <sip:alice@10.0.1.1:5060>");
    invite.uri = format!("sip:gate@{FAR_END}");
    let at_far_end = b.send(ALICE, &invite);
    let at_far_end = the(&at_far_end, FAR_END).clone();
    let sent = b.send(FAR_END, at_far_end.answer(200).add(&format!("Contact: <sip:gate@{FAR_END}>")));
    let ok = the(&sent, ALICE).clone();
    let call = Answered { callers: ok.all("Record-Route").iter().map(|route| route.to_string()).collect(), ..call };
    let mut bye = call.sent_by_caller("BYE", 3);
    bye.uri = format!("sip:gate@{FAR_END}");
    assert_eq!(challenged(&mut b, &bye), (FAR_END.to_owned(), false));
}

#[test]
fn the_carrier_is_known_again_by_its_targets_and_by_where_it_was() {
    // Another target of the route, and another port of the machine that was called.
    for (contact, there) in [(SPARE, SPARE), ("10.0.7.1:5999", "10.0.7.1:5999")] {
        let mut b = calling(|_| ());
        let uri = format!("sip:gate@{contact}");
        let call = answered_with(&mut b, &format!("<{uri}>"), None);
        let mut bye = call.sent_by_caller("BYE", 2);
        bye.uri = uri;
        assert_eq!(challenged(&mut b, &bye), (there.to_owned(), true));
    }
    // A name that leads elsewhere now, or that nothing is known of any more: the call goes on where it began.
    let mut account = trunk(hop(CARRIER));
    account.register = false;
    let named = Route { trunk: Some(Arc::new(account)), ..route(Action::Relay(vec![by_name("sip:gates.example:5080")])) };
    let mut b = Bench::with(|settings| settings.routes = vec![named].into());
    b.send(ALICE, invite());
    let mut zone = Zone::new("gates.example A 10.0.7.1");
    let first = zone.serve(&mut b).into_iter().find(|sent| sent.to == CARRIER).expect("it has an address now");
    let sent = b.send(CARRIER, first.answer(407).add(&challenge(407, "nonce=\"n\"")));
    let second = to(&sent, CARRIER).into_iter().find(|sent| sent.method() == "INVITE").expect("it goes again").clone();
    let ok = b.send_for_one(CARRIER, second.answer(200).add(&format!("Contact: <sip:gate@{CARRIER}>")));
    let callers = ok.all("Record-Route").iter().map(|route| route.to_string()).collect();
    let own = |name| ok.header(name).unwrap().to_owned();
    let call = Answered { call_id: own("Call-ID"), to: own("To"), callers, carriers: Vec::new() };
    b.now += 3_600_000;
    assert_eq!(challenged(&mut b, &call.sent_by_caller("BYE", 2)), (CARRIER.to_owned(), true));
}

/// The name of the account is no account: who had the old one gets nothing of the new one.
#[test]
fn an_account_under_an_old_name_is_for_its_own_carrier() {
    let mut b = calling(|_| ());
    let call = answered(&mut b);
    let mut account = trunk(hop(SPARE));
    (account.register, account.password) = (false, b"another".to_vec().into());
    let route = Route { trunk: Some(Arc::new(account)), ..route(Action::Relay(vec![hop(SPARE)])) };
    let settings = Settings { domains: vec![b"example.com".to_vec()], listeners: vec![listener(PROXY)], ..Settings::default() };
    b.cores[0].handle_config(Arc::new(Settings { routes: vec![route].into(), ..settings }));
    assert_eq!(challenged(&mut b, &call.sent_by_caller("INVITE", 2)), (CARRIER.to_owned(), false));
    // A new password alone is for the same carrier.
    let mut b = calling(|_| ());
    let call = answered(&mut b);
    let mut account = trunk(hop(CARRIER));
    (account.register, account.password) = (false, b"another".to_vec().into());
    let route = Route { trunk: Some(Arc::new(account)), ..crate::proxy::route(Action::Relay(vec![hop(CARRIER)])) };
    let settings = Settings { domains: vec![b"example.com".to_vec()], listeners: vec![listener(PROXY)], ..Settings::default() };
    b.cores[0].handle_config(Arc::new(Settings { routes: vec![route].into(), ..settings }));
    assert_eq!(challenged(&mut b, &call.sent_by_caller("INVITE", 2)), (CARRIER.to_owned(), true));
}

#[test]
fn a_line_says_that_the_trunk_of_a_call_is_gone() {
    let mut b = calling(|_| ());
    let call = answered(&mut b);
    let settings = Settings { domains: vec![b"example.com".to_vec()], listeners: vec![listener(PROXY)], ..Settings::default() };
    let routes = vec![route(Action::Relay(vec![hop(CARRIER)]))].into();
    b.cores[0].handle_config(Arc::new(Settings { routes, ..settings }));
    texts();
    assert_eq!(challenged(&mut b, &call.sent_by_caller("INVITE", 2)), (CARRIER.to_owned(), false));
    let said = texts();
    assert!(said.iter().any(|text| text.contains("the trunk by which the call began is no longer in the conf")), "{said:?}");
}

/// Whoever is behind the carrier sees our branch.
#[test]
fn a_challenge_from_elsewhere_is_not_answered() {
    for status in [401, 407] {
        let mut b = calling(|_| ());
        let sent = b.send(ALICE, invite());
        let first = the(&sent, CARRIER).clone();
        let sent = b.send(FAR_END, first.answer(status).add(&challenge(status, "nonce=\"n\"")));
        assert!(sent.iter().all(|sent| sent.method() != "INVITE"), "{}", show(&sent));
        assert_eq!(the(&sent, ALICE).status(), status, "{}", show(&sent));
    }
}

/// Both servers of the carrier's name are the carrier, whichever the dialog began with, and whatever DNS says later.
#[test]
fn all_servers_of_the_carriers_name_are_the_carrier() {
    for (uri, zone) in [
        ("sip:gates.example:5080", "gates.example A 10.0.7.1\ngates.example A 10.0.7.2"),
        (
            "sip:gates.example",
            "_sip._udp.gates.example SRV 1 0 5080 one.example\n_sip._udp.gates.example SRV 2 0 5080 two.example\n\
             one.example A 10.0.7.1\ntwo.example A 10.0.7.2",
        ),
    ] {
        for wait_ms in [0, 3_600_000] {
            let mut account = trunk(hop(CARRIER));
            account.register = false;
            let named = Route { trunk: Some(Arc::new(account)), ..route(Action::Relay(vec![by_name(uri)])) };
            let mut b = Bench::with(|settings| settings.routes = vec![named].into());
            let mut zone = Zone::new(zone);
            let mut sent = b.send(ALICE, invite());
            sent.extend(zone.serve(&mut b));
            let first = sent.into_iter().find(|sent| sent.to == CARRIER || sent.to == SPARE).expect("it has an address now");
            let there = first.to.clone();
            let sent = b.send(&there, first.answer(407).add(&challenge(407, "nonce=\"n\"")));
            zone.serve(&mut b);
            let second = to(&sent, &there).into_iter().find(|sent| sent.method() == "INVITE").expect("it goes again").clone();
            let other = if there == CARRIER { SPARE } else { CARRIER };
            let ok = b.send_for_one(&there, second.answer(200).add(&format!("Contact: <sip:gate@{other}>")));
            let callers = ok.all("Record-Route").iter().map(|route| route.to_string()).collect();
            let own = |name| ok.header(name).unwrap().to_owned();
            let call = Answered { call_id: own("Call-ID"), to: own("To"), callers, carriers: Vec::new() };
            b.now += wait_ms;
            let mut bye = call.sent_by_caller("BYE", 2);
            bye.uri = format!("sip:gate@{other}");
            assert_eq!(challenged(&mut b, &bye), (other.to_owned(), true), "{uri} after {wait_ms} ms");
        }
    }
}

/// To the carrier all cores are one client, and no count of a nonce may come twice.
#[test]
fn cores_count_a_nonce_together() {
    let mut account = trunk(hop(CARRIER));
    account.register = false;
    let route = Route { trunk: Some(Arc::new(account)), ..route(Action::Relay(vec![hop(CARRIER)])) };
    let mut b = Bench::with(|settings| {
        settings.cores = 2;
        settings.routes = vec![route].into();
    });
    let table = Arc::new(TrunkTable::default());
    b.cores.iter_mut().for_each(|core| core.share_trunks(table.clone()));
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..6 {
        let core = number % 2;
        let request = Request::new("MESSAGE", "sip:030@carrier.example");
        let flow = strowger::base::Flow { core: core as u8, ..strowger::base::Flow::datagram(0, address(ALICE)) };
        let sent = b.send_on(core, flow, request);
        let first = the(&sent, CARRIER).clone();
        let more = "nonce=\"n\", qop=\"auth\"";
        let second = only(b.send_on(core, first.flow, first.answer(401).add(&challenge(401, more))));
        seen.insert(check_credentials(&second, "Authorization", "MD5", "").1);
        let cnonce = said(second.header("Authorization").unwrap(), "cnonce").unwrap().to_owned();
        assert!(seen.insert(cnonce), "a cnonce came twice");
        b.send_on(core, second.flow, second.answer(200));
    }
    assert_eq!(seen.iter().filter(|count| count.starts_with("0000000")).count(), 6, "{seen:?}");
}

// ---- probes --------------------------------------------------------------------------------------------------------------

fn probing(hops: Vec<NextHop>) -> (Bench, Arc<Health>) {
    let route = Route { probe: Some(10_000), ..route(Action::Relay(hops)) };
    let mut b = Bench::with(|settings| {
        settings.proxy.mode = Mode::Stateful;
        settings.cores = 2;
        settings.routes = vec![route.clone(), route].into();
    });
    let health = Arc::new(Health::new(Key::new(1, 2)));
    for core in &mut b.cores {
        core.share_health(health.clone());
    }
    (b, health)
}

#[test]
fn each_target_is_asked_so_often_and_any_answer_makes_it_well() {
    let (mut b, health) = probing(vec![hop(CARRIER), hop(SPARE)]);
    let sent = fresh(b.tick(1000));
    assert_eq!(sent.len(), 2, "one for each target, by one core: {}", show(&sent));
    let probe = the(&sent, CARRIER).clone();
    assert_eq!((probe.method(), probe.uri()), ("OPTIONS", "sip:10.0.7.1:5080"));
    assert!(b.send(CARRIER, probe.answer(405)).is_empty());
    // Nothing comes from the other within [next_hop] patience.
    b.tick(4000);
    let failed: Vec<_> = health.list().iter().map(|(who, _)| who.address.to_string()).collect();
    assert_eq!(failed, [SPARE]);
    let answered_at = probe.at;
    let later = fresh(b.tick(9000));
    let next = to(&later, CARRIER)[0].clone();
    // From its answer, which came a moment after it.
    assert!((9000..=12_000).contains(&(next.at - answered_at)), "{}", next.at);
    // The failed one goes on being asked, and is well as soon as it answers.
    let asked = to(&later, SPARE).into_iter().find(|sent| sent.at > 6000).expect("it is asked again").clone();
    b.send(SPARE, asked.answer(200));
    let failed: Vec<_> = health.list().iter().map(|(who, _)| who.address.to_string()).collect();
    assert!(!failed.contains(&SPARE.to_owned()), "{failed:?}");
    assert_eq!(health.standing(Instant::from_ms(b.now), &health_of(SPARE)), Standing::Good);
}

fn health_of(at: &str) -> Neighbour {
    Neighbour { named_by: NamedBy::Conf, transport: Transport::Udp, address: address(at) }
}

#[test]
fn a_closed_port_shows_at_once_and_all_servers_of_a_name_are_asked() {
    let (mut b, health) = probing(vec![by_name("sip:gate.example:5080")]);
    assert!(b.tick(1000).is_empty());
    let mut zone = Zone::new("gate.example A 10.0.7.1\ngate.example A 10.0.7.2");
    let first = only(zone.serve(&mut b));
    let second = only(b.undelivered(&first.bytes));
    assert_ne!(first.to, second.to);
    assert!(b.send(&second.to, second.answer(200)).is_empty());
    let failed: Vec<_> = health.list().iter().map(|(who, _)| who.address.to_string()).collect();
    assert_eq!(failed, std::slice::from_ref(&first.to));
    let again = b.tick(12_000);
    assert!(!again.is_empty(), "and all over again");
}

#[test]
fn answers_that_are_not_to_our_request_are_dropped() {
    let (mut b, health) = probing(vec![hop(CARRIER)]);
    let probe = next(&mut b);
    let other = String::from_utf8(probe.answer(200).bytes()).unwrap().replace("OPTIONS", "REGISTER");
    assert!(b.send(CARRIER, other.as_bytes()).is_empty());
    b.tick(4500);
    assert_eq!(health.list().len(), 1, "it has not answered");
    // A late answer finds nothing, and harms nothing.
    assert!(b.send(CARRIER, probe.answer(200)).is_empty());
}
