//! Next hops by name (RFC 3263): which records lead where, what waits for them meanwhile, and who is next when a server fails.

use std::collections::BTreeMap;
use strowger::base::dns::{Answer, DomainName, Failure, Naptr, Outcome, Question, RecordType, Records, Srv};
use strowger::base::{Channel, Transport};
use strowger::stack::Element;
use strowger::stack::counters::{Drop, Limit};
use strowger::stack::route::{Action, NextHop, Route};
use strowger::stack::settings::{Fork, Mode, Settings};

use crate::bench::*;
use crate::message::Request;
use crate::proxy::route;

/// What the domain name system knows, a line for each record: `name TYPE data`.
#[derive(Default)]
pub struct Zone {
    records: BTreeMap<(String, &'static str), Vec<String>>,
    ttl_ms: u64,
    /// Questions that were answered, as `TYPE name`.
    answered: Vec<String>,
}

impl Zone {
    pub fn new(lines: &str) -> Zone {
        let mut zone = Zone { ttl_ms: 60_000, ..Zone::default() };
        for line in lines.lines().map(str::trim).filter(|l| !l.is_empty()) {
            let (name, rest) = line.split_once(' ').unwrap();
            let (kind, data) = rest.split_once(' ').unwrap();
            let kinds = ["NAPTR", "SRV", "A", "AAAA"];
            let kind = kinds.into_iter().find(|k| *k == kind).expect("a type");
            let key = (name.to_owned(), kind);
            zone.records.entry(key).or_default().push(data.to_owned());
        }
        zone
    }

    fn answer(&mut self, question: Question) -> Answer {
        let (name, kind) = (question.name.to_string(), question.kind.name());
        self.answered.push(format!("{kind} {name}"));
        let ttl_ms = self.ttl_ms;
        let outcome = match self.records.get(&(name.clone(), kind)) {
            Some(lines) => Outcome::Found { records: records(question.kind, lines), ttl_ms },
            None => Outcome::Nothing { exists: self.records.keys().any(|(own, _)| *own == name), ttl_ms },
        };
        Answer { question, outcome }
    }

    /// Answers the question that was asked first.
    pub fn serve_one(&mut self, b: &mut Bench) -> Vec<Sent> {
        let question = b.asked[0];
        let answer = self.answer(question);
        b.answer(answer)
    }

    /// Answers everything that is asked, and what is asked because of that.
    pub fn serve(&mut self, b: &mut Bench) -> Vec<Sent> {
        let mut sent = Vec::new();
        while let Some(question) = b.asked.first().copied() {
            let answer = self.answer(question);
            sent.extend(b.answer(answer));
        }
        sent
    }
}

fn records(kind: RecordType, lines: &[String]) -> Records {
    let fields = |line: &String| -> Vec<String> { line.split(' ').map(str::to_owned).collect() };
    let number = |text: &str| text.parse().expect("a number");
    let name = |text: &str| text.trim_end_matches('.').as_bytes().to_vec();
    let all = lines.iter().map(fields);
    match kind {
        RecordType::Naptr => Records::Naptr(
            all.map(|f| Naptr {
                order: number(&f[0]),
                preference: number(&f[1]),
                flags: f[2].clone().into(),
                service: f[3].clone().into(),
                regexp: Vec::new(),
                replacement: name(&f[4]),
            })
            .collect(),
        ),
        RecordType::Srv => Records::Srv(
            all.map(|f| Srv { priority: number(&f[0]), weight: number(&f[1]), port: number(&f[2]), target: name(&f[3]) }).collect(),
        ),
        RecordType::A | RecordType::Aaaa => Records::Addresses(all.map(|f| f[0].parse().expect("an address")).collect()),
    }
}

fn failed(question: Question) -> Answer {
    let outcome = Outcome::Failed(Failure::Silence);
    Answer { question, outcome }
}

fn question(kind: RecordType, name: &str) -> Question {
    let name = DomainName::new(b"", name.as_bytes()).unwrap();
    Question { name, kind }
}

/// The proxy on UDP, TCP and TLS, which relays everything to where the Request-URI says.
fn relaying() -> Bench {
    Bench::with(relay_all)
}

fn relay_all(settings: &mut Settings) {
    settings.limits.answer_factor = 0;
    settings.listeners = listeners();
    settings.routes = vec![route(Action::Relay(Vec::new()))].into();
}

/// The transport and the peer to which a MESSAGE for `uri` goes, and the host that TLS must prove.
fn goes_to(b: &mut Bench, zone: &mut Zone, uri: &str) -> String {
    let request = Request::new("MESSAGE", uri);
    let mut sent = match uri.starts_with("sips:") {
        true => {
            let flow = b.open(Transport::Tls, 0, 3, ALICE);
            b.send_on(0, flow, request.by(Transport::Tls))
        }
        false => b.send(ALICE, request),
    };
    sent.extend(zone.serve(b));
    let sent = only(sent);
    if sent.status() != 0 {
        return sent.status().to_string();
    }
    let host = sent.host.as_ref().map(|host| format!(" as {host}"));
    let transport = sent.flow.transport.name();
    format!("{transport} {}{}", sent.to, host.unwrap_or_default())
}

const EVERYTHING: &str = "
    example.net NAPTR 50 50 s SIPS+D2T _sips._tcp.example.net.
    example.net NAPTR 90 50 s SIP+D2T _sip._tcp.example.net.
    example.net NAPTR 100 50 s SIP+D2U _sip._udp.example.net.
    _sips._tcp.example.net SRV 1 0 5071 tls.example.net.
    _sip._tcp.example.net SRV 1 0 5072 tcp.example.net.
    _sip._udp.example.net SRV 1 0 5073 udp.example.net.
    tls.example.net A 10.0.9.1
    tcp.example.net A 10.0.9.2
    udp.example.net A 10.0.9.3
    example.net A 10.0.9.9
";

// ---- §4.1: the transport -----------------------------------------------------------------------------------------------

#[test]
fn naptr_records_choose_the_transport_in_their_order() {
    let mut zone = Zone::new(EVERYTHING);
    let mut b = relaying();
    let way = goes_to(&mut b, &mut zone, "sip:x@example.net");
    // The certificate must prove the domain of the URI, not the host of the SRV record (RFC 5922).
    assert_eq!(way, "TLS 10.0.9.1:5071 as example.net");
    let asked = ["NAPTR example.net", "SRV _sips._tcp.example.net", "A tls.example.net"];
    assert_eq!(zone.answered, asked);
    b.assert_quiet();

    // Of equal order the preference counts.
    let text = EVERYTHING.replace("90 50 s", "50 10 s");
    let mut b = relaying();
    let way = goes_to(&mut b, &mut Zone::new(&text), "sip:x@Example.NET.");
    assert_eq!(way, "TCP 10.0.9.2:5072");
}

#[test]
fn transports_that_we_do_not_speak_are_passed_over() {
    let mut b = Bench::with(|settings| {
        relay_all(settings);
        settings.listeners.truncate(1);
    });
    let way = goes_to(&mut b, &mut Zone::new(EVERYTHING), "sip:x@example.net");
    assert_eq!(way, "UDP 10.0.9.3:5073");
    // A domain that says how it is reached is not reached otherwise.
    let mut zone = Zone::new(
        "tls.example NAPTR 50 50 s SIPS+D2T _sips._tcp.tls.example.
         tls.example A 10.0.9.9",
    );
    assert_eq!(goes_to(&mut b, &mut zone, "sip:x@tls.example"), "500");
}

#[test]
fn a_sips_uri_is_resolved_for_tls_only() {
    let text = EVERYTHING.replace("50 50 s SIPS+D2T", "200 50 s SIPS+D2T");
    let mut b = relaying();
    let way = goes_to(&mut b, &mut Zone::new(&text), "sips:x@example.net");
    assert_eq!(way, "TLS 10.0.9.1:5071 as example.net");
    // Without such a NAPTR record its SRV records are asked for, and then its addresses.
    let mut zone = Zone::new(
        "a.example NAPTR 1 1 s SIP+D2U _sip._udp.a.example.
         _sips._tcp.a.example SRV 1 0 5081 tls.a.example.
         tls.a.example A 10.0.9.1
         b.example A 10.0.9.2",
    );
    let way = goes_to(&mut b, &mut zone, "sips:x@a.example");
    assert_eq!(way, "TLS 10.0.9.1:5081 as a.example");
    let way = goes_to(&mut b, &mut zone, "sips:x@b.example");
    assert_eq!(way, "TLS 10.0.9.2:5061 as b.example");
    assert!(!zone.answered.iter().any(|asked| asked.contains("_sip._")));
}

#[test]
fn a_named_transport_asks_for_its_srv_records_and_a_port_for_addresses() {
    let mut b = relaying();
    let mut zone = Zone::new(EVERYTHING);
    for (uri, way) in [
        ("sip:x@example.net;transport=udp", "UDP 10.0.9.3:5073"),
        ("sip:x@example.net;transport=TCP", "TCP 10.0.9.2:5072"),
        ("sip:x@example.net;transport=tls", "TLS 10.0.9.1:5071 as example.net"),
        ("sips:x@example.net;transport=tcp", "TLS 10.0.9.1:5071 as example.net"),
        ("sip:x@example.net:5060", "UDP 10.0.9.9:5060"),
        ("sip:x@example.net:5090;transport=tcp", "TCP 10.0.9.9:5090"),
        ("sips:x@example.net:5090", "TLS 10.0.9.9:5090 as example.net"),
        // Without SRV records the name is a host's.
        ("sip:x@udp.example.net;transport=tcp", "TCP 10.0.9.3:5060"),
        // TARGET is the maddr; what must be proved is still the host.
        ("sip:x@nowhere.example;maddr=udp.example.net;transport=tls", "TLS 10.0.9.3:5061 as nowhere.example"),
    ] {
        assert_eq!(goes_to(&mut b, &mut zone, uri), way, "{uri}");
    }
    assert!(!zone.answered.iter().any(|asked| asked.starts_with("NAPTR")));
    assert_eq!(goes_to(&mut b, &mut zone, "sip:x@example.net;transport=sctp"), "500");
}

#[test]
fn without_naptr_records_srv_and_without_those_addresses() {
    let mut b = relaying();
    let mut zone = Zone::new(
        "a.example NAPTR 1 1 u E2U+sip a.example.
         _sip._tcp.a.example SRV 1 0 5072 h.example.
         h.example A 10.0.9.1",
    );
    assert_eq!(goes_to(&mut b, &mut zone, "sip:x@a.example"), "TCP 10.0.9.1:5072");
    // SRV records are asked for all at once: the first of our transports that has some is used.
    let asked =
        ["NAPTR a.example", "SRV _sip._udp.a.example", "SRV _sip._tcp.a.example", "SRV _sips._tcp.a.example", "A h.example"];
    assert_eq!(zone.answered, asked);
    assert_eq!(goes_to(&mut b, &mut zone, "sip:x@h.example"), "UDP 10.0.9.1:5060");
}

#[test]
fn a_server_that_does_not_know_naptr_is_no_obstacle() {
    let mut b = relaying();
    let mut zone = Zone::new("h.example A 10.0.9.1");
    let request = Request::new("MESSAGE", "sip:x@h.example");
    assert!(b.send(ALICE, request).is_empty());
    let naptr = b.asked.remove(0);
    assert_eq!(naptr.kind, RecordType::Naptr);
    b.answer(failed(naptr));
    assert_eq!(only(zone.serve(&mut b)).to, "10.0.9.1:5060");
}

#[test]
fn a_domain_may_say_that_it_has_no_sip() {
    let mut b = relaying();
    let mut zone = Zone::new(
        "_sip._udp.a.example SRV 0 0 0 .
         a.example A 10.0.9.1",
    );
    assert_eq!(goes_to(&mut b, &mut zone, "sip:x@a.example;transport=udp"), "500");
    b.assert_quiet();
}

// ---- §4.2: port and address --------------------------------------------------------------------------------------------

#[test]
fn addresses_are_of_the_families_that_we_speak_ipv6_first() {
    let zone = || {
        Zone::new(
            "h.example A 10.0.9.1
             h.example AAAA 2001:db8::9
             four.example A 10.0.9.2",
        )
    };
    let mut b = relaying();
    assert_eq!(goes_to(&mut b, &mut zone(), "sip:x@h.example:5070"), "UDP 10.0.9.1:5070");
    assert!(b.asked.is_empty());
    let mut b = Bench::with(|settings| {
        relay_all(settings);
        settings.listeners.push(listener("[2001:db8::1]:5060"));
    });
    let mut both = zone();
    assert_eq!(goes_to(&mut b, &mut both, "sip:x@h.example:5070"), "UDP [2001:db8::9]:5070");
    assert_eq!(goes_to(&mut b, &mut both, "sip:x@four.example:5070"), "UDP 10.0.9.2:5070");
    // Over TCP we speak IPv4 only.
    let way = goes_to(&mut b, &mut both, "sip:x@h.example:5070;transport=tcp");
    assert_eq!(way, "TCP 10.0.9.1:5070");
}

#[test]
fn addresses_that_nobody_has_are_passed_over() {
    let mut b = relaying();
    let mut zone = Zone::new(
        "h.example A 0.0.0.0
         h.example A 224.0.0.1
         h.example A 10.0.9.1
         only.example A 0.0.0.0",
    );
    for _ in 0..10 {
        assert_eq!(goes_to(&mut b, &mut zone, "sip:x@h.example:5070"), "UDP 10.0.9.1:5070");
    }
    assert_eq!(goes_to(&mut b, &mut zone, "sip:x@only.example:5070"), "500");
}

#[test]
fn load_spreads_by_weight_and_one_call_stays_with_its_server() {
    let mut b = relaying();
    let mut zone = Zone::new(
        "_sip._udp.a.example SRV 10 75 5060 big.example.
         _sip._udp.a.example SRV 10 25 5060 small.example.
         _sip._udp.a.example SRV 20 0 5060 last.example.
         big.example A 10.0.9.1
         small.example A 10.0.9.2
         small.example A 10.0.9.3
         last.example A 10.0.9.4",
    );
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for call in 0..4000 {
        let uri = "sip:x@a.example;transport=udp";
        let mut places = Vec::new();
        for _ in 0..2 {
            let request = Request::new("MESSAGE", uri).call_id(&format!("c{call}"));
            let mut sent = b.send(ALICE, request);
            sent.extend(zone.serve(&mut b));
            let sent = only(sent);
            b.send(&sent.to.clone(), sent.answer(200));
            places.push(sent.to.clone());
        }
        assert_eq!(places[0], places[1], "the same Call-ID, the same server");
        *counts.entry(places.remove(0)).or_default() += 1;
        if call % 400 == 0 {
            b.tick(40_000);
        }
    }
    let of = |at: &str| f64::from(counts.get(at).copied().unwrap_or(0)) / 40.0;
    assert!((of("10.0.9.1:5060") - 75.0).abs() < 3.0, "{counts:?}");
    assert!((of("10.0.9.2:5060") - 12.5).abs() < 2.5, "{counts:?}");
    assert!((of("10.0.9.3:5060") - 12.5).abs() < 2.5, "{counts:?}");
    assert_eq!(of("10.0.9.4:5060"), 0.0, "{counts:?}");
}

// ---- §4.3: the next server ---------------------------------------------------------------------------------------------

const PAIR: &str = "
    _sip._udp.pair.example SRV 10 0 5060 a.example.
    _sip._udp.pair.example SRV 20 0 5060 b.example.
    a.example A 10.0.9.1
    b.example A 10.0.9.2
";

const FIRST: &str = "10.0.9.1:5060";
const SECOND: &str = "10.0.9.2:5060";

fn invite_pair() -> Request {
    Request::new("INVITE", "sip:x@pair.example;transport=udp")
}

/// An INVITE that has reached the first of two servers, and the zone that knows the other.
fn at_first(b: &mut Bench) -> (Request, Sent, Zone) {
    let mut zone = Zone::new(PAIR);
    let request = invite_pair();
    let trying = b.send_for_one(ALICE, &request);
    assert_eq!(trying.status(), 100, "told at once, whatever has to be asked");
    let sent = only(zone.serve(b));
    assert_eq!((sent.to.as_str(), sent.method()), (FIRST, "INVITE"));
    (request, sent, zone)
}

#[test]
fn a_server_that_answers_503_is_followed_by_the_next() {
    let mut b = relaying();
    let (_, first, mut zone) = at_first(&mut b);
    let mut sent = b.send(FIRST, first.answer(503));
    assert_eq!(the(&sent, FIRST).method(), "ACK");
    sent = zone.serve(&mut b);
    let second = the(&sent, SECOND).clone();
    assert_eq!(second.method(), "INVITE");
    assert_ne!(second.branch(), first.branch());
    assert_eq!(second.uri(), first.uri());
    let answer = b.send_for_one(SECOND, second.answer(200));
    assert_eq!((answer.status(), answer.to.as_str()), (200, ALICE));
    b.assert_quiet();
}

#[test]
fn a_server_that_is_silent_or_refuses_is_followed_by_the_next() {
    for silent in [true, false] {
        let mut b = relaying();
        let (request, first, mut zone) = at_first(&mut b);
        let sent = match silent {
            true => b.tick(4000),
            false => b.undelivered(&first.bytes),
        };
        assert_eq!(to(&sent, ALICE).len(), 0, "{}", show(&sent));
        let second = only(zone.serve(&mut b));
        assert_eq!((second.to.as_str(), second.method()), (SECOND, "INVITE"));
        // Nobody is left.
        let sent = b.undelivered(&second.bytes);
        let answer = the(&sent, ALICE);
        assert_eq!((answer.status(), answer.reason()), (500, "No Next Hop Reached"), "what became of the last one counts");
        b.send(ALICE, request.ack(answer));
        b.assert_quiet();
    }
}

#[test]
fn a_connection_that_fails_leads_to_the_next_server() {
    let mut b = relaying();
    let mut zone = Zone::new(&PAIR.replace("_udp", "_tcp"));
    let request = Request::new("INVITE", "sip:x@pair.example;transport=tcp");
    b.send(ALICE, request);
    let first = only(zone.serve(&mut b));
    assert_eq!(first.to, FIRST);
    b.lose(first.flow);
    let second = only(zone.serve(&mut b));
    assert_eq!((second.to.as_str(), second.method()), (SECOND, "INVITE"));
    assert!(matches!(second.flow.channel, Channel::Peer { .. }));
    b.assert_quiet();
}

#[test]
fn who_has_rung_or_answered_has_not_failed() {
    for status in [302, 404, 408, 486, 500, 603] {
        let mut b = relaying();
        let (request, first, _) = at_first(&mut b);
        let sent = b.send(FIRST, first.answer(status));
        assert_eq!(the(&sent, ALICE).status(), status);
        assert!(b.asked.is_empty());
        b.send(ALICE, request.ack(the(&sent, ALICE)));
        b.assert_quiet();
    }
    // A call that rang and was cancelled, and whose callee then says nothing more, is not put through to somebody else.
    let mut b = relaying();
    let (request, first, _) = at_first(&mut b);
    b.send(FIRST, first.answer(180));
    b.send(ALICE, request.cancel());
    b.tick(64_000);
    assert!(b.asked.is_empty());
    b.assert_quiet();
}

#[test]
fn the_cursor_belongs_to_the_request() {
    let mut b = relaying();
    let (_, first, mut zone) = at_first(&mut b);
    b.send(FIRST, first.answer(503).add("Retry-After: 0"));
    assert_eq!(only(zone.serve(&mut b)).to, SECOND);
    // Another request begins at the first server, which may be tried again.
    let sent = b.send(ALICE, invite_pair());
    assert_eq!(the(&sent, FIRST).method(), "INVITE");
    b.assert_quiet();
}

#[test]
fn all_addresses_of_a_host_are_tried() {
    let mut b = relaying();
    let mut zone = Zone::new(
        "h.example A 10.0.9.1
         h.example A 10.0.9.2
         h.example A 10.0.9.3",
    );
    b.send(ALICE, Request::new("INVITE", "sip:x@h.example:5060"));
    let mut sent = zone.serve(&mut b);
    let mut places = Vec::new();
    while sent.last().is_some_and(|sent| sent.method() == "INVITE") {
        let last = sent.last().unwrap().clone();
        places.push(last.to.clone());
        sent = b.undelivered(&last.bytes);
    }
    assert_eq!(only(sent).status(), 500);
    places.sort();
    assert_eq!(places, [FIRST, SECOND, "10.0.9.3:5060"]);
    b.assert_quiet();
}

#[test]
fn records_that_have_changed_meanwhile_are_followed() {
    let mut b = relaying();
    let mut zone = Zone::new(PAIR);
    zone.ttl_ms = 2000;
    b.send(ALICE, invite_pair());
    assert_eq!(only(zone.serve(&mut b)).to, FIRST);
    // Patience is over when the records have expired.
    assert!(to(&b.tick(4000), ALICE).is_empty());
    let key = ("b.example".to_owned(), "A");
    zone.records.insert(key, vec!["10.0.9.7".to_owned()]);
    assert_eq!(only(zone.serve(&mut b)).to, "10.0.9.7:5060");
    b.assert_quiet();
}

#[test]
fn a_name_in_one_branch_does_not_hold_up_the_others() {
    for fork in [Fork::Parallel, Fork::Sequential] {
        let mut b = Bench::with(|settings| settings.proxy.fork = fork);
        b.register("bob", "<sip:bob@pair.example:5060>;q=1.0");
        b.register("bob", "<sip:bob@10.0.1.3:5060>;q=1.0");
        let sent = b.send(ALICE, Request::invite());
        assert_eq!(the(&sent, CAROL).method(), "INVITE");
        assert_eq!(b.asked.len(), 1);
        let mut zone = Zone::new("pair.example A 10.0.9.1");
        let late = only(zone.serve(&mut b));
        assert_eq!((late.to.as_str(), late.method()), (FIRST, "INVITE"));
        let carol = the(&sent, CAROL).clone();
        let sent = b.send(CAROL, carol.answer(200));
        assert_eq!(the(&sent, ALICE).status(), 200);
        b.assert_quiet();
    }
}

#[test]
fn what_is_answered_elsewhere_waits_no_longer() {
    for (status, rest) in [(200, 200), (603, 603)] {
        let mut b = Bench::new();
        b.register("bob", "<sip:bob@pair.example:5060>");
        b.register("bob", "<sip:bob@10.0.1.3:5060>");
        let request = Request::invite();
        let sent = b.send(ALICE, &request);
        let carol = the(&sent, CAROL).clone();
        let sent = b.send(CAROL, carol.answer(status));
        let answer = the(&sent, ALICE);
        assert_eq!(answer.status(), rest);
        assert_eq!(b.cores[0].occupancy().parked, 0);
        if status != 200 {
            b.send(ALICE, request.ack(answer));
        }
        let sent = Zone::new("pair.example A 10.0.9.1").serve(&mut b);
        assert!(sent.is_empty(), "{}", show(&sent));
        b.assert_quiet();
    }
}

// ---- waiting -----------------------------------------------------------------------------------------------------------

#[test]
fn one_question_however_many_wait() {
    let mut b = relaying();
    for n in 0..50 {
        let uri = format!("sip:u{n}@h.example:5070");
        assert!(b.send(ALICE, Request::new("MESSAGE", &uri)).is_empty());
    }
    assert_eq!(b.asked, [question(RecordType::A, "h.example")]);
    assert_eq!(b.cores[0].occupancy().parked, 50);
    let sent = Zone::new("h.example A 10.0.9.1").serve(&mut b);
    assert_eq!(to(&sent, "10.0.9.1:5070").len(), 50);
    assert_eq!(b.cores[0].occupancy().parked, 0);
    // Known now: nothing waits, nothing is asked.
    let sent = b.send(ALICE, Request::new("MESSAGE", "sip:y@h.example:5070"));
    assert_eq!(only(sent).to, "10.0.9.1:5070");
    assert!(b.asked.is_empty());
    b.assert_quiet();
}

#[test]
fn answers_live_as_long_as_their_records_allow() {
    let mut b = relaying();
    let mut zone = Zone::new("h.example A 10.0.9.1");
    let uri = "sip:x@h.example:5070";
    goes_to(&mut b, &mut zone, uri);
    b.tick(59_000);
    goes_to(&mut b, &mut zone, uri);
    assert_eq!(zone.answered.len(), 1);
    b.tick(1001);
    zone.records.clear();
    assert_eq!(goes_to(&mut b, &mut zone, uri), "500");
    assert_eq!(zone.answered.len(), 2);
    // That there is nothing is remembered, too.
    b.tick(59_000);
    assert_eq!(goes_to(&mut b, &mut zone, uri), "500");
    assert_eq!(zone.answered.len(), 2);
    b.tick(1001);
    goes_to(&mut b, &mut zone, uri);
    assert_eq!(zone.answered.len(), 3);
    b.assert_quiet();
}

#[test]
fn a_chain_of_answers_without_a_life_comes_to_its_end() {
    let mut b = relaying();
    let mut zone = Zone::new(EVERYTHING);
    zone.ttl_ms = 0;
    let request = Request::new("INVITE", "sip:x@example.net");
    b.send(ALICE, request);
    let mut sent = Vec::new();
    for _ in 0..3 {
        assert_eq!(b.asked.len(), 1, "{:?}", b.asked);
        sent.extend(b.tick(1100));
        let answer = zone.answer(b.asked[0]);
        sent.extend(b.answer(answer));
    }
    assert_eq!(only(sent).to, "10.0.9.1:5071");
    b.assert_quiet();
}

#[test]
fn retransmissions_are_absorbed_and_a_cancel_ends_the_wait() {
    let mut b = relaying();
    let request = invite_pair();
    assert_eq!(b.send_for_one(ALICE, &request).status(), 100);
    assert_eq!(b.send_for_one(ALICE, &request).status(), 100);
    assert_eq!(b.cores[0].occupancy().parked, 1);
    let sent = b.send(ALICE, request.cancel());
    let statuses: Vec<_> = sent.iter().map(|sent| sent.status()).collect();
    assert_eq!(statuses, [200, 487]);
    assert_eq!(b.cores[0].occupancy().parked, 0);
    b.send(ALICE, request.ack(&sent[1]));
    let sent = Zone::new(PAIR).serve(&mut b);
    assert!(sent.is_empty(), "{}", show(&sent));
    b.assert_quiet();
}

#[test]
fn who_waits_too_long_fails_and_spares_are_tried() {
    let mut b = relaying();
    let request = invite_pair();
    b.send(ALICE, &request);
    assert!(b.tick(3999).is_empty());
    let sent = b.tick(1);
    assert_eq!(only(sent.clone()).status(), 500);
    b.send(ALICE, request.ack(&sent[0]));
    b.assert_quiet();

    let mut b = Bench::with(|settings| {
        settings.dns.timeout = 1000;
        settings.routes = vec![route(Action::Relay(vec![by_name("sip:gate.example"), crate::failover::hop(SECOND)]))].into();
    });
    b.send(ALICE, Request::new("INVITE", "sip:+49301@carrier.example"));
    let sent = b.tick(1000);
    assert_eq!(the(&sent, SECOND).method(), "INVITE");
    b.assert_quiet();
}

#[test]
fn the_deadline_is_that_of_the_request_not_of_each_question() {
    let mut b = relaying();
    let mut zone = Zone::new(EVERYTHING);
    let request = Request::new("INVITE", "sip:x@example.net");
    b.send(ALICE, &request);
    for _ in 0..2 {
        assert!(b.tick(1900).is_empty());
        let answer = zone.answer(b.asked[0]);
        assert!(b.answer(answer).is_empty());
    }
    let sent = b.tick(200);
    assert_eq!((only(sent.clone()).at, sent[0].status()), (4000, 500));
    b.send(ALICE, request.ack(&sent[0]));
    b.assert_quiet();
}

#[test]
fn names_that_lead_nowhere_fail_like_targets_that_cannot_be_reached() {
    let mut b = relaying();
    let mut zone = Zone::new("other.example A 10.0.9.1");
    for uri in ["sip:x@nowhere.example:5060", "sip:x@nowhere.example", "sip:x@nowhere.example;transport=tcp", "sip:x@a..b:5060"] {
        assert_eq!(goes_to(&mut b, &mut zone, uri), "500", "{uri}");
    }
    let label = "l".repeat(64);
    assert_eq!(goes_to(&mut b, &mut zone, &format!("sip:x@{label}.example")), "500");
    b.assert_quiet();
}

#[test]
fn a_stranger_makes_us_ask_nothing() {
    let mut b = Bench::new();
    for request in [
        Request::new("INVITE", "sip:x@evil.example"),
        Request::new("MESSAGE", "sip:bob@example.com").add("Route: <sip:evil.example;lr>"),
        Request::new("INVITE", "sip:x@evil.example").set("Max-Forwards", "0"),
        Request::new("REGISTER", "sip:evil.example"),
    ] {
        let answer = b.send_for_one(ALICE, request);
        assert!(answer.status() >= 400, "{answer}");
        assert!(b.asked.is_empty());
    }
    b.assert_quiet();
}

#[test]
fn too_many_names_at_a_time_fail_at_once() {
    let mut b = Bench::with(|settings| {
        relay_all(settings);
        settings.dns.cache = 3;
    });
    for n in 0..3 {
        let uri = format!("sip:x@h{n}.example:5060");
        assert!(b.send(ALICE, Request::new("MESSAGE", &uri)).is_empty());
    }
    let answer = b.send_for_one(ALICE, Request::new("MESSAGE", "sip:x@h3.example:5060"));
    assert_eq!(answer.status(), 500);
    assert_eq!(b.limit_hits(Limit::Questions), 1);
    let asked = b.asked.clone();
    for question in asked {
        let outcome = Outcome::Failed(Failure::Busy);
        let sent = b.answer(Answer { question, outcome });
        assert_eq!(only(sent).status(), 500);
    }
    assert_eq!(b.limit_hits(Limit::Questions), 4);
    b.assert_quiet();
}

// ---- next hops of the conf, Routes, contacts -----------------------------------------------------------------------------

pub fn by_name(uri: &str) -> NextHop {
    let secure = uri.starts_with("sips:");
    NextHop {
        identity: 0,
        uri: uri.parse().unwrap(),
        address: None,
        transport: match secure {
            true => Transport::Tls,
            false => Transport::Udp,
        },
        host: uri.split_once(':').unwrap().1.as_bytes().to_vec(),
    }
}

#[test]
fn a_route_leads_to_a_name_and_keeps_the_request_uri() {
    let mut b = Bench::with(|settings| {
        settings.listeners = listeners();
        settings.routes =
            vec![route(Action::Relay(vec![by_name("sip:gate.example;transport=udp"), by_name("sips:safe.example")]))].into();
    });
    let mut zone = Zone::new(
        "_sip._udp.gate.example SRV 1 0 5090 g.example.
         g.example A 10.0.9.1
         safe.example A 10.0.9.2",
    );
    b.send(ALICE, Request::new("INVITE", "sip:+49301@carrier.example"));
    let sent = only(zone.serve(&mut b));
    assert_eq!(sent.to, "10.0.9.1:5090");
    assert_eq!(sent.uri(), "sip:+49301@carrier.example");
    assert_eq!(sent.header("Route"), None);
    // The next hop of the conf, after the last server of this one.
    let rest = b.send("10.0.9.1:5090", sent.answer(503));
    assert_eq!(the(&rest, "10.0.9.1:5090").method(), "ACK");
    let spare = only(zone.serve(&mut b));
    assert_eq!(spare.to, "10.0.9.2:5061");
    assert_eq!(spare.host.as_deref(), Some("safe.example"));
    assert_eq!(spare.uri(), "sip:+49301@carrier.example");
    b.assert_quiet();
}

#[test]
fn the_address_that_a_next_hop_records_has_to_prove_the_name_of_the_conf() {
    let mut b = Bench::with(|settings| {
        settings.listeners = listeners();
        settings.routes = vec![
            Route { to_host: Some(b"carrier.example".to_vec().into()), ..route(Action::Relay(vec![by_name("sips:safe.example")])) },
            route(Action::Relay(Vec::new())),
        ]
        .into();
    });
    let mut zone = Zone::new("safe.example A 10.0.9.2");
    b.send(ALICE, Request::new("INVITE", "sip:+49301@carrier.example"));
    assert_eq!(only(zone.serve(&mut b)).host.as_deref(), Some("safe.example"));
    let way = goes_to(&mut b, &mut zone, "sip:x@10.0.9.2:5061;transport=tls");
    assert_eq!(way, "TLS 10.0.9.2:5061 as safe.example");
    let way = goes_to(&mut b, &mut zone, "sip:x@10.0.9.3:5061;transport=tls");
    assert_eq!(way, "TLS 10.0.9.3:5061 as 10.0.9.3");
}

#[test]
fn a_contact_and_a_path_may_be_names() {
    let mut b = Bench::new();
    b.register("bob", "<sip:bob@pc.example:5070>");
    let mut zone = Zone::new("pc.example A 10.0.9.1\nedge.example A 10.0.9.2");
    b.send(ALICE, Request::invite());
    let sent = only(zone.serve(&mut b));
    assert_eq!((sent.to.as_str(), sent.uri()), ("10.0.9.1:5070", "sip:bob@pc.example:5070"));

    let request = Request::new("REGISTER", "sip:example.com")
        .from("<sip:carol@example.com>;tag=r")
        .to("<sip:carol@example.com>")
        .add("Supported: path")
        .add("Path: <sip:edge.example:5080;lr>")
        .add("Contact: <sip:carol@10.0.1.3:5060>");
    assert_eq!(b.send_for_one(ALICE, request).status(), 200);
    b.send(ALICE, Request::new("INVITE", "sip:carol@example.com"));
    let sent = only(zone.serve(&mut b));
    assert_eq!(sent.to, "10.0.9.2:5080");
    assert_eq!(sent.header("Route"), Some("<sip:edge.example:5080;lr>"));
    b.assert_quiet();
}

#[test]
fn what_is_too_large_for_udp_goes_by_tcp_to_the_same_server_and_back() {
    let mut b = relaying();
    let mut zone = Zone::new(
        "h.example A 10.0.9.1
         h.example A 10.0.9.2",
    );
    let large = Request::new("MESSAGE", "sip:x@h.example:5070").body(&"x".repeat(1400));
    b.send(ALICE, &large);
    let first = only(zone.serve(&mut b));
    assert_eq!(first.flow.transport, Transport::Tcp);
    let again = only(b.lose(first.flow));
    assert_eq!((again.flow.transport, &again.to), (Transport::Udp, &first.to));
    // Then the other server, which is asked by TCP again.
    let other = only(b.undelivered(&again.bytes));
    assert_eq!(other.flow.transport, Transport::Tcp);
    assert_ne!(other.to, first.to);
    b.assert_quiet();
}

#[test]
fn an_ack_to_a_2xx_and_its_bye_wait_in_their_order() {
    let mut b = Bench::new();
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let request = Request::invite();
    let sent = b.send(ALICE, &request);
    let at_bob = the(&sent, BOB).clone();
    let ok = at_bob.answer(200).add("Contact: <sip:bob@pc.example:5070>");
    let ok = b.send_for_one(BOB, ok);
    let route = ok.header("Record-Route").unwrap().to_owned();
    let within = |method: &str, number| {
        Request::new(method, "sip:bob@pc.example:5070")
            .to(ok.header("To").unwrap())
            .call_id(ok.header("Call-ID").unwrap())
            .cseq(number)
            .add(&format!("Route: {route}"))
    };
    assert!(b.send(ALICE, within("ACK", 1)).is_empty());
    assert!(b.send(ALICE, within("BYE", 2)).is_empty());
    assert_eq!(b.cores[0].occupancy().parked, 2);
    assert_eq!(b.asked.len(), 1);
    let sent = Zone::new("pc.example A 10.0.9.1").serve(&mut b);
    let methods: Vec<_> = sent.iter().map(|sent| sent.method()).collect();
    assert_eq!(methods, ["ACK", "BYE"]);
    assert!(sent.iter().all(|sent| sent.to == "10.0.9.1:5070"));
    b.assert_quiet();
}

#[test]
fn an_ack_whose_name_leads_nowhere_is_dropped_and_counted() {
    let mut b = relaying();
    let ack = || Request::new("ACK", "sip:x@h.example:5070").to("<sip:x@h.example>;tag=t");
    b.send(ALICE, ack());
    let sent = Zone::default().serve(&mut b);
    assert!(sent.is_empty(), "{}", show(&sent));
    assert_eq!(b.dropped(Drop::StrayAck), 1);
    let mut b = relaying();
    b.send(ALICE, ack());
    assert!(b.tick(4000).is_empty());
    assert_eq!(b.dropped(Drop::StrayAck), 1);
    b.assert_quiet();
}

// ---- §4.4: without state -------------------------------------------------------------------------------------------------

fn stateless() -> Bench {
    Bench::with(|settings| {
        relay_all(settings);
        settings.proxy.mode = Mode::Stateless;
    })
}

#[test]
fn without_state_all_of_a_transaction_goes_to_the_same_server() {
    let mut b = stateless();
    let mut zone = Zone::new(
        "_sip._udp.a.example SRV 10 50 5060 one.example.
         _sip._udp.a.example SRV 10 50 5060 two.example.
         one.example A 10.0.9.1
         two.example A 10.0.9.2",
    );
    let mut used = BTreeMap::new();
    for _ in 0..40 {
        let request = Request::new("INVITE", "sip:x@a.example;transport=udp");
        let mut sent = b.send(ALICE, &request);
        sent.extend(zone.serve(&mut b));
        let first = only(sent);
        *used.entry(first.to.clone()).or_insert(0) += 1;
        // The records come in another order now, as name servers like to have it.
        b.tick(61_000);
        for list in zone.records.values_mut() {
            list.reverse();
        }
        for again in [request.clone(), request.cancel()] {
            let mut sent = b.send(ALICE, again);
            sent.extend(zone.serve(&mut b));
            let again = only(sent);
            assert_eq!((&again.to, again.branch()), (&first.to, first.branch()));
        }
        let busy = b.send_for_one(&first.to.clone(), first.answer(486));
        let ack = only(b.send(ALICE, request.ack(&busy)));
        assert_eq!((&ack.to, ack.branch()), (&first.to, first.branch()));
    }
    assert_eq!(used.len(), 2, "{used:?}");
    b.assert_quiet();
}

#[test]
fn without_state_a_request_waits_as_it_came_and_is_answered_when_it_cannot_go() {
    let mut b = stateless();
    let request = Request::new("INVITE", "sip:x@h.example:5070").body("v=0\r\n");
    assert!(b.send(ALICE, &request).is_empty());
    assert_eq!(b.cores[0].occupancy().parked, 1);
    let sent = only(Zone::new("h.example A 10.0.9.1").serve(&mut b));
    assert_eq!(sent.to, "10.0.9.1:5070");
    assert_eq!(sent.header("Max-Forwards"), Some("69"));
    assert!(sent.to_string().ends_with("v=0\r\n"));
    let again = only(b.send(ALICE, &request));
    assert_eq!(again.bytes, sent.bytes);

    assert!(b.send(ALICE, Request::new("INVITE", "sip:x@no.example:5070")).is_empty());
    assert_eq!(only(b.tick(4000)).status(), 503);
    assert!(b.send(ALICE, Request::new("INVITE", "sip:x@not.example:5070")).is_empty());
    assert_eq!(only(Zone::default().serve(&mut b)).status(), 503);
    b.assert_quiet();
}

#[test]
fn what_waits_without_state_is_bounded() {
    let mut b = Bench::with(|settings| {
        relay_all(settings);
        settings.proxy.mode = Mode::Stateless;
        settings.dns.held = 10_000;
    });
    let mut refused = 0;
    for _ in 0..20 {
        let request = Request::new("INVITE", "sip:x@h.example:5070").body(&"x".repeat(1000));
        for answer in b.send(ALICE, request) {
            assert_eq!(answer.status(), 503);
            refused += 1;
        }
    }
    let held = b.cores[0].occupancy().parked;
    assert!((4..=8).contains(&held), "{held}");
    assert_eq!(held + refused, 20);
    assert_eq!(b.limit_hits(Limit::Held), refused as u64);
    let sent = Zone::new("h.example A 10.0.9.1").serve(&mut b);
    assert_eq!(sent.len(), held);
    // The room is free again.
    assert!(b.send(ALICE, Request::new("INVITE", "sip:x@i.example:5070")).is_empty());
    b.tick(4000);
    b.assert_quiet();
}
