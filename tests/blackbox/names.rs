//! Next hops by name (RFC 3263), with a name server on loopback: over UDP, TCP and TLS, past servers that are dead, and while the
//! name server itself is slow, dead, or knows nothing.

use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::name_server::NameServer;
use crate::openssl_tool::SServer;
use crate::pki::{Authority, Kind};
use crate::place::{CALLEE, CALLER, Place, SECOND_CALLEE, wait_for};
use crate::server::{Conf, Server};
use crate::stream_tap::listen;

/// The host of the name server.
const NAMES: u8 = 53;

fn name_server(place: &Place, zone: &str) -> NameServer {
    NameServer::start(place.at_port(NAMES, 5353), zone)
}

/// A server that relays `carrier.test` to the next hop by that name.
fn conf(place: &Place, names: &NameServer) -> Conf {
    Conf::new(place)
        .set("dns", "servers", &names.list())
        .route("to_host = \"carrier.test\"\naction = \"relay\"\ntarget = [\"sip:carrier.test\"]")
}

fn caller(place: &Place, server: &Server) -> Agent {
    Agent::new(place.at_port(CALLER, 0), server.address)
}

/// An INVITE from the caller to the carrier, its 200, ACK and BYE.
fn call(caller: &Agent, carrier: &Agent) {
    let invite = caller.request("INVITE", "sip:+49301@carrier.test");
    caller.send(&invite);
    finish_call(caller, carrier, &invite);
}

fn finish_call(caller: &Agent, carrier: &Agent, invite: &crate::agent::Request) {
    let arrived = carrier.expect("INVITE", |message| message.is("INVITE"));
    assert_eq!(arrived.call_id(), invite.call_id);
    assert_eq!(arrived.request_uri(), "sip:+49301@carrier.test");
    carrier.accept(&arrived);
    let ok = caller.final_for(invite);
    assert_eq!(ok.status(), Some(200));
    caller.send(&caller.in_dialog("ACK", invite, &ok));
    carrier.expect("ACK", |message| message.is("ACK"));
    let bye = caller.in_dialog("BYE", invite, &ok);
    caller.send(&bye);
    let arrived = carrier.expect("BYE", |message| message.is("BYE"));
    carrier.respond(&arrived, 200, &[]);
    assert_eq!(caller.final_for(&bye).status(), Some(200));
}

fn queries(server: &Server, place: &Place, outcome: &str) -> f64 {
    server.stats(place)[&format!("strowger_dns_queries_total{{outcome=\"{outcome}\"}}")]
}

#[test]
fn a_call_follows_naptr_srv_and_address_records_over_udp() {
    let place = Place::new("by-name-udp");
    let at = place.at_port(CALLEE, 5082);
    let names = name_server(
        &place,
        &format!(
            "carrier.test NAPTR 10 1 \"s\" \"SIP+D2U\" \"\" _sip._udp.core.test.
             carrier.test NAPTR 20 1 \"s\" \"SIP+D2T\" \"\" _sip._tcp.core.test.
             _sip._udp.core.test SRV 1 1 5082 gate.core.test.
             gate.core.test CNAME gate-7.core.test.
             gate-7.core.test A {}",
            at.ip()
        ),
    );
    let server = conf(&place, &names).start(&place);
    let (caller, carrier) = (caller(&place, &server), Agent::new(at, server.address));
    call(&caller, &carrier);
    let asked = ["NAPTR carrier.test", "SRV _sip._udp.core.test", "A gate.core.test"];
    assert_eq!(names.asked(), asked);
    // Everything is known now.
    for _ in 0..5 {
        call(&caller, &carrier);
    }
    assert_eq!(names.asked().len(), 3);
    assert_eq!(queries(&server, &place, "found"), 3.0);
    assert_eq!(server.stat(&place, "strowger_dns_names"), 3.0);
    assert_eq!(server.stat(&place, "strowger_requests_parked"), 0.0);
}

#[test]
fn each_core_asks_for_itself_and_gets_its_own_answers() {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if cores < 2 {
        println!("skipped: this machine has one core");
        return;
    }
    let place = Place::new("by-name-cores");
    let at = place.at(CALLEE);
    let names = name_server(&place, &format!("carrier.test A {}", at.ip()));
    names.set_delay(Duration::from_millis(50));
    let server = conf(&place, &names).set("server", "cores", "[0, 1]").start(&place);
    let carrier = Agent::new(at, server.address);
    // The kernel chooses the core by the caller's port.
    for _ in 0..16 {
        call(&caller(&place, &server), &carrier);
    }
    // NAPTR, SRV and A, of each core.
    assert_eq!(names.asked().len(), 6, "{:?}", names.asked());
    assert_eq!(server.stat(&place, "strowger_dns_names"), 6.0);
}

#[test]
fn a_call_follows_the_records_over_tcp() {
    let place = Place::new("by-name-tcp");
    let at = place.at_port(CALLEE, 5083);
    let names = name_server(
        &place,
        &format!(
            "carrier.test NAPTR 10 1 \"S\" \"SIP+D2T\" \"\" _sip._tcp.carrier.test.
             carrier.test NAPTR 20 1 \"S\" \"SIP+D2U\" \"\" _sip._udp.carrier.test.
             _sip._tcp.carrier.test SRV 1 1 5083 gate.carrier.test.
             gate.carrier.test A {}",
            at.ip()
        ),
    );
    let listener = listen(at);
    let server = conf(&place, &names).stream("tcp", place.at_port(crate::place::SERVER, 5060)).start(&place);
    let caller = caller(&place, &server);
    let invite = caller.request("INVITE", "sip:+49301@carrier.test");
    caller.send(&invite);
    let carrier = Agent::accept_from(&listener);
    finish_call(&caller, &carrier, &invite);
}

#[test]
fn a_tls_server_must_prove_the_name_of_the_uri_and_not_that_of_its_srv_record() {
    let place = Place::new("by-name-tls");
    let at = place.at_port(CALLEE, 5084);
    let names = name_server(
        &place,
        &format!(
            "carrier.test NAPTR 10 1 \"s\" \"SIPS+D2T\" \"\" _sips._tcp.carrier.test.
             _sips._tcp.carrier.test SRV 1 1 5084 gate.hoster.test.
             gate.hoster.test A {}",
            at.ip()
        ),
    );
    let authority = Authority::new(&place, "ca");
    let own = authority.issue(&place, "own", Kind::Ecdsa, &["own.example.test"]);
    let server = conf(&place, &names)
        .tls(&place, &[&own])
        .trust(&authority, "no")
        .set("connections", "outgoing", "\"per-call\"")
        .start(&place);
    let caller = caller(&place, &server);
    {
        let right = authority.issue(&place, "right", Kind::Ecdsa, &["carrier.test"]);
        let mut carrier = SServer::start(&place, at, &right, &[]);
        let request = caller.request("MESSAGE", "sip:+49301@carrier.test");
        caller.send(&request);
        let arrived = carrier.answer(200);
        assert_eq!(arrived.top_via().transport, "TLS");
        assert_eq!(caller.final_for(&request).status(), Some(200));
        let over = || (server.stat(&place, "strowger_connections") == 0.0).then_some(());
        wait_for(Duration::from_secs(5), over).expect("the connection's end");
    }
    let wrong = authority.issue(&place, "wrong", Kind::Ecdsa, &["gate.hoster.test"]);
    let _carrier = SServer::start(&place, at, &wrong, &[]);
    let request = caller.request("INVITE", "sip:+49301@carrier.test");
    caller.send(&request);
    let refused = caller.final_for(&request);
    assert_eq!(refused.status(), Some(500));
    caller.acknowledge(&request, &refused);
    server.expect_log(&["the certificate is for", "gate.hoster.test"]);
}

/// A name with two servers, the first of which is at the callee's address, and the second, the carrier, at the second callee's.
fn two_servers(place: &Place) -> (NameServer, Server, Agent, Agent) {
    let (first, second) = (place.ip(CALLEE), place.at(SECOND_CALLEE));
    let names = name_server(
        place,
        &format!(
            "_sip._udp.carrier.test SRV 1 0 5060 first.carrier.test.
             _sip._udp.carrier.test SRV 2 0 5060 second.carrier.test.
             first.carrier.test A {first}
             second.carrier.test A {}",
            second.ip()
        ),
    );
    let server = conf(place, &names).start(place);
    let (caller, carrier) = (caller(place, &server), Agent::new(second, server.address));
    (names, server, caller, carrier)
}

#[test]
fn a_dead_server_is_followed_by_the_next_of_its_name() {
    let place = Place::new("by-name-failover");
    let (_names, server, caller, carrier) = two_servers(&place);
    // Nobody listens at the first address: ICMP says so at once, and the next calls pass over it.
    let start = Instant::now();
    for _ in 0..3 {
        call(&caller, &carrier);
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let targets = server.command(&place, &["targets"]).stdout;
    let others = targets.split_once("Other next hops").expect("one has failed").1;
    let dead = place.at(CALLEE).to_string();
    assert!(others.lines().any(|line| line.starts_with("target") && line.contains(&dead)), "{targets}");
}

#[test]
fn a_server_that_answers_503_is_followed_by_the_next_of_its_name() {
    let place = Place::new("by-name-503");
    let (_names, server, caller, carrier) = two_servers(&place);
    let busy = Agent::new(place.at(CALLEE), server.address);
    let invite = caller.request("INVITE", "sip:+49301@carrier.test");
    caller.send(&invite);
    let arrived = busy.expect("INVITE", |message| message.is("INVITE"));
    busy.respond(&arrived, 503, &[]);
    busy.expect("ACK", |message| message.is("ACK"));
    finish_call(&caller, &carrier, &invite);
    // The next calls pass over it.
    call(&caller, &carrier);
    assert!(busy.collect(Duration::from_millis(100)).is_empty());
}

#[test]
fn a_dead_name_server_slows_nobody_who_needs_no_name() {
    let place = Place::new("by-name-dead");
    let names = name_server(&place, "");
    names.set_silent(true);
    let server = conf(&place, &names)
        .set("dns", "timeout", "\"2s\"")
        .set("dns", "questions", "8")
        .route(&format!("to_host = \"other.test\"\naction = \"relay\"\ntarget = [\"sip:{}\"]", place.at(CALLEE)))
        .route("from_source = [\"127.0.0.0/8\"]\nmethods = [\"MESSAGE\"]\naction = \"relay\"")
        .start(&place);
    let (stranded, other) = (caller(&place, &server), caller(&place, &server));
    let carrier = Agent::new(place.at(CALLEE), server.address);
    // Many names, many more than questions may be under way, and one of them many times.
    let waiting = 60;
    for n in 0..waiting {
        let uri = match n % 2 {
            0 => "sip:x@carrier.test".to_owned(),
            _ => format!("sip:x@h{n}.test"),
        };
        let request = stranded.request("MESSAGE", &uri);
        stranded.send(&request);
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..40 {
        let start = Instant::now();
        let request = other.request("OPTIONS", "sip:x@other.test");
        other.send(&request);
        let arrived = carrier.expect("OPTIONS", |message| message.is("OPTIONS"));
        carrier.respond(&arrived, 200, &[]);
        assert_eq!(other.final_for(&request).status(), Some(200));
        slowest = slowest.max(start.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    // A request that had waited for the name server would have taken a second and more.
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    assert!(server.stat(&place, "strowger_requests_parked") > 0.0);
    for _ in 0..waiting {
        stranded.expect("500 to MESSAGE", |message| message.answers("MESSAGE", 500));
    }
    let busy = queries(&server, &place, "busy");
    let silence = queries(&server, &place, "silence");
    assert!(busy > 0.0 && silence > 0.0, "busy {busy}, silence {silence}");
    assert!(names.asked().len() < 100, "{}", names.asked().len());
    server.expect_log(&["dns: no answer for"]);
    assert_eq!(server.stat(&place, "strowger_requests_parked"), 0.0);
    // It comes back.
    names.set_zone(&format!("carrier.test A {}", place.ip(CALLEE)));
    names.set_silent(false);
    // That there was no answer is remembered for some seconds.
    let start = Instant::now();
    loop {
        let request = stranded.request("MESSAGE", "sip:x@carrier.test");
        stranded.send(&request);
        if let Some(arrived) = carrier.receive(Duration::from_millis(500)) {
            assert_eq!(arrived.call_id(), request.call_id);
            carrier.respond(&arrived, 200, &[]);
            assert_eq!(stranded.final_for(&request).status(), Some(200));
            break;
        }
        assert_eq!(stranded.final_for(&request).status(), Some(500));
        assert!(start.elapsed() < Duration::from_secs(15));
    }
    server.expect_log(&["dns: questions are answered again"]);
}

#[test]
fn an_answer_that_is_too_long_for_a_datagram_is_fetched_by_tcp() {
    let place = Place::new("by-name-long");
    let at = place.at(CALLEE);
    let names = name_server(&place, &format!("carrier.test A {}", at.ip()));
    names.set_truncating(true);
    let server = conf(&place, &names).start(&place);
    call(&caller(&place, &server), &Agent::new(at, server.address));
    let asked = names.asked();
    assert!(asked.contains(&"TCP A carrier.test".to_owned()), "{asked:?}");
}

#[test]
fn a_reload_takes_other_name_servers() {
    let place = Place::new("by-name-reload");
    let at = place.at(CALLEE);
    let first = name_server(&place, "other.test A 192.0.2.1");
    let second = NameServer::start(place.at_port(NAMES + 1, 5353), &format!("carrier.test A {}", at.ip()));
    let server = conf(&place, &first).start(&place);
    let (caller, carrier) = (caller(&place, &server), Agent::new(at, server.address));
    let lost = caller.request("MESSAGE", "sip:+49301@carrier.test");
    assert_eq!(caller.ask(&lost).status(), Some(500));
    conf(&place, &second).write(&place);
    let outcome = server.command(&place, &["reload"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    // What the first had said without an SOA was good for a moment only.
    std::thread::sleep(Duration::from_millis(1200));
    call(&caller, &carrier);
    assert!(!second.asked().is_empty());
}

#[test]
fn while_a_slow_name_server_thinks_the_caller_has_a_100_and_may_cancel() {
    let place = Place::new("by-name-slow");
    let names = name_server(&place, &format!("carrier.test A {}", place.ip(CALLEE)));
    names.set_delay(Duration::from_millis(250));
    let server = conf(&place, &names).start(&place);
    let (caller, carrier) = (caller(&place, &server), Agent::new(place.at(CALLEE), server.address));
    let invite = caller.request("INVITE", "sip:+49301@carrier.test");
    caller.send(&invite);
    caller.expect("100", |message| message.answers("INVITE", 100));
    caller.send(&invite.cancel());
    caller.expect("200 to CANCEL", |message| message.answers("CANCEL", 200));
    let ended = caller.final_for(&invite);
    assert_eq!(ended.status(), Some(487));
    caller.acknowledge(&invite, &ended);
    // The SRV records and the address are still to be asked for, one after the other.
    let start = Instant::now();
    call(&caller, &carrier);
    assert!(start.elapsed() > Duration::from_millis(250), "{:?}", start.elapsed());
    let again = Instant::now();
    call(&caller, &carrier);
    assert!(again.elapsed() < Duration::from_millis(250), "{:?}", again.elapsed());
    let after = carrier.log();
    let invites = after.iter().filter(|message| message.is("INVITE")).count();
    assert_eq!(invites, 2, "the cancelled one never left");
}

#[test]
fn what_is_known_expires_and_a_name_that_does_not_exist_is_told() {
    let place = Place::new("by-name-ttl");
    let zone = |host: u8| {
        format!(
            "test SOA ns.test. 1
             carrier.test 1 A {}",
            place.ip(host)
        )
    };
    let names = name_server(&place, &zone(CALLEE));
    let server = conf(&place, &names).start(&place);
    let caller = caller(&place, &server);
    let first = Agent::new(place.at(CALLEE), server.address);
    let second = Agent::new(place.at(SECOND_CALLEE), server.address);
    call(&caller, &first);
    names.set_zone(&zone(SECOND_CALLEE));
    std::thread::sleep(Duration::from_millis(1500));
    call(&caller, &second);

    names.set_zone("test SOA ns.test. 1");
    std::thread::sleep(Duration::from_millis(1500));
    let refuse = || {
        let invite = caller.request("INVITE", "sip:+49301@carrier.test");
        caller.send(&invite);
        let refused = caller.final_for(&invite);
        assert_eq!(refused.status(), Some(500));
        caller.acknowledge(&invite, &refused);
    };
    let asked = names.asked().len();
    refuse();
    let line = server.expect_log(&["branch to", "Next Hop Name Does Not Exist"]);
    for word in ["carrier.test", "INVITE", &caller.address.to_string(), "UDP"] {
        assert!(line.contains(word), "{word}: {line}");
    }
    // Remembered for as long as the zone's SOA says.
    refuse();
    assert_eq!(names.asked().len(), asked + 3, "{:?}", names.asked());
    std::thread::sleep(Duration::from_millis(1500));
    refuse();
    assert_eq!(names.asked().len(), asked + 6, "{:?}", names.asked());
}
