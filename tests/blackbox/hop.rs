//! What leaves for a next hop, as the next hop sees it: no credentials for our realm, no identity that a stranger asserts, a length on every stream,
//! and a port for who has asked for it; and what is answered instead of a hop: the 302, and the SIPS request that came without TLS.

use std::time::{Duration, Instant};

use crate::agent::{Agent, Request, response};
use crate::auth::guarded;
use crate::identity::{Login, signed};
use crate::message::{Message, find};
use crate::openssl_tool::SServer;
use crate::pki::{Authority, Kind};
use crate::place::{CALLEE, CALLER, Place, SECOND_CALLEE, SERVER};
use crate::server::{Conf, Server};

/// What must not come does not come within this time.
const SILENCE: Duration = Duration::from_millis(300);

const MODES: [&str; 2] = ["\"stateful\"", "\"stateless\""];

/// Credentials that another server on the way has asked for.
const THEIRS: &str =
    "Proxy-Authorization: Digest username=\"alice\", realm=\"partner.test\", nonce=\"n\", uri=\"sip:a@b\", response=\"0\"";

/// The next request of `method` at a phone, which has brought no credentials but those for the other realm.
#[track_caller]
fn disarmed(phone: &Agent, method: &str) -> Message {
    let arrived = phone.expect(method, |message| message.is(method));
    assert_disarmed(&arrived);
    arrived
}

#[track_caller]
fn assert_disarmed(arrived: &Message) {
    let text = format!("{arrived:?}");
    assert!(!text.contains("strowger.test"), "{text}");
    assert_eq!(text.matches("partner.test").count(), 1, "{text}");
}

/// The credentials of a request, for others to bring too.
fn credentials(request: &Request) -> String {
    let mut lines = request.extra.iter();
    let line = lines.find(|line| line.contains("strowger.test"));
    line.expect("credentials").clone()
}

#[test]
fn credentials_for_our_realm_reach_no_phone() {
    let place = Place::new("hop-credentials");
    let server =
        guarded(&place, &["alice"]).set("auth", "challenge_register", "false").set("proxy", "fork", "\"sequential\"").start(&place);
    let first = Agent::new(place.at(CALLEE), server.address);
    let second = Agent::new(place.at(SECOND_CALLEE), server.address);
    for (phone, q) in [(&first, "0.9"), (&second, "0.5")] {
        let contact = format!("<sip:bob@{}>;q={q}", phone.address);
        let bound = phone.ask(&phone.register("example.test", "bob", &contact, 600));
        assert_eq!(bound.status(), Some(200), "{bound:?}");
    }
    let caller = Agent::new(place.at(CALLER), server.address);
    let mut invite = caller.request("INVITE", "sip:bob@example.test").with(THEIRS);
    invite.from = invite.from.replace(&format!("agent@{}", caller.address), "alice@example.test");
    let invite = signed(&caller, &Login::new("alice", "open-alice"), &invite);
    let ours = credentials(&invite);
    caller.send(&invite);
    let arrived = disarmed(&first, "INVITE");
    first.respond(&arrived, 486, &[]);
    let arrived = disarmed(&second, "INVITE");
    second.accept(&arrived);
    let accepted = caller.final_for(&invite);
    assert_eq!(accepted.status(), Some(200), "{accepted:?}");
    for method in ["ACK", "INFO", "INVITE", "BYE"] {
        let request = caller.in_dialog(method, &invite, &accepted).with(&ours).with(THEIRS);
        caller.send(&request);
        let arrived = disarmed(&second, method);
        if method != "ACK" {
            second.respond(&arrived, 200, &[]);
            assert_eq!(caller.final_for(&request).status(), Some(200));
        }
    }
}

#[test]
fn nor_a_gateway_whichever_route_leads_there() {
    for mode in MODES {
        let place = Place::new("hop-gateway");
        let (dead, gateway) = (place.at(SECOND_CALLEE), place.at(CALLEE));
        let server = guarded(&place, &["alice"])
            .set("proxy", "mode", mode)
            .route(&format!(
                "to_host = \"example.net\"\nchallenge = false\naction = \"relay\"\ntarget = [\"sip:{gateway}\", \"sip:{dead}\"]"
            ))
            .start(&place);
        let gateway = Agent::new(gateway, server.address);
        let spare = Agent::new(dead, server.address);
        let caller = Agent::new(place.at(CALLER), server.address);
        for method in ["INVITE", "MESSAGE", "OPTIONS", "REGISTER"] {
            for from in ["alice@example.test", "alice@elsewhere.example"] {
                for realm in ["strowger.test", "STROWGER.test", "strowger\\.test"] {
                    let ours = THEIRS.replace("partner.test", realm);
                    let mut request = caller
                        .request(method, "sip:1@example.net")
                        .with(&ours)
                        .with(&ours.replace("Proxy-", ""))
                        .with(THEIRS)
                        .with(&ours.replace("response", "respond"));
                    request.from = format!("<sip:{from}>;tag=f{}", crate::agent::unique());
                    caller.send(&request);
                    let arrived = disarmed(&gateway, method);
                    let text = format!("{arrived:?}").to_lowercase();
                    assert!(!text.contains("realm=\"strowger"), "{text}");
                    // The next target, if there is memory to try it. The next call begins with the gateway again.
                    gateway.respond(&arrived, 503, &["Retry-After: 0"]);
                    let answered = match mode.contains("stateful") {
                        true => {
                            let arrived = disarmed(&spare, method);
                            spare.respond(&arrived, 404, &[]);
                            404
                        }
                        false => 503,
                    };
                    let refused = caller.final_for(&request);
                    assert_eq!(refused.status(), Some(answered), "{refused:?}");
                    if method == "INVITE" {
                        caller.acknowledge(&request, &refused);
                    }
                }
            }
        }
    }
}

// ---- Content-Length -------------------------------------------------------------------------------------------------------------

/// The same message without its Content-Length, which stands last.
fn bare(bytes: &[u8]) -> Vec<u8> {
    let start = find(bytes, b"Content-Length:").expect("a length");
    let end = start + find(&bytes[start..], b"\r\n").expect("its end") + 2;
    [&bytes[..start], &bytes[end..]].concat()
}

/// On UDP, TCP and TLS.
fn everywhere(place: &Place, mode: &str) -> (Server, Authority) {
    let authority = Authority::new(place, "ca");
    let certificate = authority.issue(place, "server", Kind::Ecdsa, &["sip.example.test"]);
    let server =
        Conf::new(place).set("proxy", "mode", mode).stream("tcp", place.at(SERVER)).tls(place, &[&certificate]).start(place);
    (server, authority)
}

/// One agent over TCP and one over TLS.
fn streams(place: &Place, host: u8, server: &Server, authority: &Authority) -> [Agent; 2] {
    let ip = place.ip(host);
    [Agent::tcp(ip, server.address), Agent::tls(ip, server.secure(), authority, "sip.example.test", None)]
}

fn assert_length(message: &Message, body: &[u8]) {
    let lengths = message.all("content-length");
    assert_eq!(lengths, [body.len().to_string()], "{message:?}");
    assert_eq!(message.body, body, "{message:?}");
}

/// The phones here read by Content-Length: without one they would see nothing, or the body as the next message.
#[test]
fn a_datagram_without_a_length_gets_one_on_a_stream() {
    for mode in MODES {
        let place = Place::new("hop-length");
        let (server, authority) = everywhere(&place, mode);
        let caller = Agent::new(place.at(CALLER), server.address);
        for (user, phone) in ["bob", "carol"].into_iter().zip(streams(&place, CALLEE, &server, &authority)) {
            let contact = format!("<{}>", phone.uri());
            let bound = phone.ask(&phone.register("example.test", user, &contact, 600));
            assert_eq!(bound.status(), Some(200), "{bound:?}");
            // Twice each: what follows on the stream is a message again.
            for body in [&b"v=0\r\n"[..], b"", b"BYE sip:bob@example.test SIP/2.0\r\n\r\n"] {
                for method in ["MESSAGE", "OPTIONS", "INVITE", "NOTIFY"] {
                    let mut request = caller.request(method, &format!("sip:{user}@example.test"));
                    request.body = body.to_vec();
                    caller.send_bytes(&bare(&request.bytes()));
                    let arrived = phone.expect(method, |message| message.is(method) && message.call_id() == request.call_id);
                    assert_length(&arrived, body);
                    phone.respond(&arrived, 200, &[&format!("Contact: <{}>", phone.uri())]);
                    let accepted = caller.final_for(&request);
                    assert_eq!(accepted.status(), Some(200), "{accepted:?}");
                    if method == "INVITE" {
                        let mut ack = caller.in_dialog("ACK", &request, &accepted);
                        ack.body = body.to_vec();
                        caller.send_bytes(&bare(&ack.bytes()));
                        assert_length(&phone.expect("ACK", |message| message.is("ACK")), body);
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_moved_to_tcp_for_its_size_says_its_length_too() {
    let place = Place::new("hop-size");
    let (server, _) = everywhere(&place, MODES[0]);
    let door = crate::stream_tap::listen(place.at(CALLEE));
    server.bind_to(&place, "bob", &format!("sip:bob@{}", place.at(CALLEE)));
    let caller = Agent::new(place.at(CALLER), server.address);
    let mut request = caller.request("MESSAGE", &server.uri("bob"));
    request.body = vec![b'x'; 1400];
    caller.send_bytes(&bare(&request.bytes()));
    let phone = Agent::accept_from(&door);
    let arrived = phone.expect("MESSAGE", |message| message.is("MESSAGE"));
    assert_length(&arrived, &request.body);
}

#[test]
fn a_phones_answers_without_a_length_get_one_on_the_callers_stream() {
    for mode in MODES {
        let place = Place::new("hop-answers");
        let (server, authority) = everywhere(&place, mode);
        let phone = Agent::new(place.at(CALLEE), server.address);
        server.bind(&place, "bob", phone.address);
        for caller in streams(&place, CALLER, &server, &authority) {
            for status in [200, 302, 404, 486] {
                for body in [&b"v=0\r\n"[..], b"", b"SIP/2.0 200 OK\r\n\r\n"] {
                    let invite = caller.request("INVITE", &server.uri("bob"));
                    caller.send(&invite);
                    let arrived = phone.expect("INVITE", |message| message.is("INVITE") && message.call_id() == invite.call_id);
                    let contact = format!("Contact: <{}>", phone.uri());
                    for status in [183, status] {
                        let answer = response(&arrived, status, &phone.tag(), &[&contact], body);
                        phone.send_bytes(&bare(&answer));
                        let answer = caller.expect("the answer", |message| {
                            message.status() == Some(status) && message.call_id() == invite.call_id
                        });
                        assert_length(&answer, body);
                        if status >= 300 {
                            caller.acknowledge(&invite, &answer);
                            phone.expect("ACK", |message| message.is("ACK"));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn of_several_phones_answers_the_best_says_its_length() {
    let place = Place::new("hop-best");
    let (server, authority) = everywhere(&place, MODES[0]);
    let phones = [CALLEE, SECOND_CALLEE].map(|host| Agent::new(place.at(host), server.address));
    for phone in &phones {
        server.bind(&place, "bob", phone.address);
    }
    for caller in streams(&place, CALLER, &server, &authority) {
        for statuses in [[404, 486], [401, 407]] {
            let invite = caller.request("INVITE", &server.uri("bob"));
            caller.send(&invite);
            for (phone, status) in phones.iter().zip(statuses) {
                let arrived = phone.expect("INVITE", |message| message.is("INVITE") && message.call_id() == invite.call_id);
                let challenge = match status {
                    401 => "WWW-Authenticate: Digest realm=\"a\", nonce=\"1\"",
                    407 => "Proxy-Authenticate: Digest realm=\"b\", nonce=\"2\"",
                    _ => "X-None: 0",
                };
                let answer = response(&arrived, status, &phone.tag(), &[challenge], b"why");
                phone.send_bytes(&bare(&answer));
            }
            let answer = caller.final_for(&invite);
            assert_eq!(answer.status(), Some(statuses[0]), "{answer:?}");
            assert_length(&answer, b"why");
            caller.acknowledge(&invite, &answer);
        }
    }
}

// ---- asserted identities ----------------------------------------------------------------------------------------------------------

const ASSERTED: &str = "P-Asserted-Identity: <sip:ceo@example.test>";
const PREFERRED: &str = "p-preferred-IDENTITY : <sip:ceo@example.test>";

fn asserts(message: &Message) -> (usize, usize) {
    let count = |name| message.all(name).len();
    (count("p-asserted-identity"), count("p-preferred-identity"))
}

#[test]
fn an_identity_passes_from_trusted_sources_alone() {
    for mode in MODES {
        let place = Place::new("hop-asserted");
        let (caller, callee) = (place.ip(CALLER), place.ip(CALLEE));
        let both = format!("[\"{caller}\", \"{callee}/32\"]");
        for (trusted, plain, private, in_answer) in [
            ("[]".to_owned(), (0, 0), (0, 0), 0),
            (format!("[\"{callee}\"]"), (0, 0), (0, 0), 1),
            (format!("[\"{caller}\"]"), (3, 0), (0, 0), 0),
            (both, (3, 1), (3, 1), 1),
        ] {
            let server = Conf::new(&place).set("proxy", "mode", mode).set("limits", "trusted_sources", &trusted).start(&place);
            let phone = Agent::new(place.at(CALLEE), server.address);
            server.bind(&place, "bob", phone.address);
            let caller = Agent::new(place.at(CALLER), server.address);
            for (privacy, left) in [("none", plain), ("header;ID", private)] {
                for method in ["INVITE", "MESSAGE"] {
                    let request = caller
                        .request(method, &server.uri("bob"))
                        .with(ASSERTED)
                        .with("P-ASSERTED-IDENTITY: <tel:+4930123>,\r\n <sip:ceo@example.test>")
                        .with(PREFERRED)
                        .with(&format!("Privacy: {privacy}"));
                    caller.send(&request);
                    let arrived = phone.expect(method, |message| message.is(method));
                    assert_eq!(asserts(&arrived), left, "{trusted} {arrived:?}");
                    phone.respond(&arrived, 486, &[ASSERTED]);
                    let answer = caller.final_for(&request);
                    assert_eq!(asserts(&answer), (in_answer, 0), "{trusted} {answer:?}");
                    if method == "INVITE" {
                        caller.acknowledge(&request, &answer);
                    }
                }
            }
        }
    }
}

// ---- Via ------------------------------------------------------------------------------------------------------------------------

#[test]
fn over_a_stream_a_port_is_given_back_only_where_it_is_asked_for() {
    for mode in MODES {
        let place = Place::new("hop-rport");
        let (server, authority) = everywhere(&place, mode);
        let phone = Agent::new(place.at(CALLEE), server.address);
        server.bind(&place, "bob", phone.address);
        // Of all that come from one address each gets what is its own.
        let tcp = Agent::tcp(place.ip(CALLER), server.address);
        let [other, tls] = streams(&place, CALLER, &server, &authority);
        for agent in [&tcp, &other, &tls] {
            for (asks, user) in [(false, "bob"), (true, "bob"), (false, "nobody")] {
                let mut request = agent.request("MESSAGE", &server.uri(user));
                if !asks {
                    request.via = request.via.replace(";rport", "");
                }
                // What stands in sent-by is nobody's.
                let port = agent.address.port();
                request.via = request.via.replace(&format!(":{port};"), ":5060;");
                agent.send(&request);
                if user == "bob" {
                    let arrived = phone.expect("MESSAGE", |message| message.is("MESSAGE"));
                    phone.respond(&arrived, 200, &[]);
                    let rport = arrived.vias()[1].rport.clone();
                    assert_eq!(rport, asks.then(|| port.to_string()), "{arrived:?}");
                }
                let answer = agent.final_for(&request);
                let via = answer.top_via();
                assert_eq!(via.rport, asks.then(|| port.to_string()), "{answer:?}");
            }
        }
    }
}

// ---- 302 ------------------------------------------------------------------------------------------------------------------------

#[test]
fn a_302_is_repeated_until_it_is_acknowledged() {
    let place = Place::new("hop-302");
    let server = Conf::new(&place)
        .set("proxy", "redirect", "true")
        .set("limits", "answer_factor", "0")
        .set("timers", "t1", "\"100ms\"")
        .set("timers", "t2", "\"400ms\"")
        .start(&place);
    server.bind(&place, "bob", place.at(CALLEE));
    let caller = Agent::new(place.at(CALLER), server.address);
    let invite = caller.request("INVITE", &server.uri("bob"));
    caller.send(&invite);
    // At 0, 100, 300 and 700 ms, and every 400 ms from then on.
    let began = Instant::now();
    let answers: Vec<Message> = (0..4).map(|_| caller.final_for(&invite)).collect();
    let took = began.elapsed();
    assert!(took > Duration::from_millis(600), "{took:?}");
    for answer in &answers {
        assert_eq!(answer.status(), Some(302));
        assert_eq!(answer.raw, answers[0].raw);
    }
    caller.acknowledge(&invite, &answers[0]);
    caller.collect(Duration::from_millis(200));
    let late = caller.collect(Duration::from_millis(1000));
    assert!(late.is_empty(), "{late:?}");
    let phone = Agent::new(place.at(CALLEE), server.address);
    assert!(phone.receive(SILENCE).is_none(), "the ACK stays here");
}

// ---- SIPS -----------------------------------------------------------------------------------------------------------------------

/// Bob, who is called by `sip:` over UDP, gives a SIPS contact.
#[test]
fn a_sips_target_can_be_acknowledged_and_hung_up_on_by_who_has_called_by_sip() {
    let place = Place::new("hop-sips");
    let authority = Authority::new(&place, "ca");
    let own = authority.issue(&place, "server", Kind::Ecdsa, &["sip.example.test"]);
    let bobs = authority.issue(&place, "bob", Kind::Ecdsa, &["bob.example.test"]);
    let server = Conf::new(&place).tls(&place, &[&own]).set("tls", "verify_server", "false").start(&place);
    let secure = place.at_port(CALLEE, 5061);
    let mut by_tls = SServer::start(&place, secure, &bobs, &["-quiet"]);
    let phone = Agent::new(place.at(CALLEE), server.address);
    server.bind(&place, "bob", phone.address);
    let caller = Agent::new(place.at(CALLER), server.address);
    let invite = caller.request("INVITE", &server.uri("bob"));
    caller.send(&invite);
    let arrived = phone.expect("INVITE", |message| message.is("INVITE"));
    let contact = format!("Contact: <sips:bob@{secure}>");
    phone.respond(&arrived, 200, &[&contact]);
    let accepted = caller.final_for(&invite);
    caller.send(&caller.in_dialog("ACK", &invite, &accepted));
    by_tls.expect(&format!("ACK sips:bob@{secure} SIP/2.0"));
    // s_server's answer to the ACK is nobody's; it brings it past it.
    by_tls.answer(200);
    let bye = caller.in_dialog("BYE", &invite, &accepted);
    caller.send(&bye);
    assert!(by_tls.answer(200).is("BYE"));
    assert_eq!(caller.final_for(&bye).status(), Some(200));

    // Who brings no Route of ours is of no dialog that we know: no method passes, the ACK no more than the others.
    let before = by_tls.output().len();
    for method in ["ACK", "INFO", "BYE", "INVITE"] {
        let mut request = caller.in_dialog(method, &invite, &accepted);
        request.extra.clear();
        caller.send(&request);
        if method != "ACK" {
            let refused = caller.final_for(&request);
            assert_eq!(refused.status(), Some(400), "{method}: {refused:?}");
            assert!(refused.start.contains("SIPS Request Not Over TLS"));
        }
    }
    assert!(phone.collect(SILENCE).is_empty());
    assert_eq!(by_tls.output().len(), before, "{}", by_tls.output());
    server.expect_log(&["ACK", "SIPS Request Not Over TLS"]);
}
