//! Which transaction a message belongs to, over real sockets (RFC 3261 §17.2.3, §9.1, §16.7): spelled and forged in every way, over UDP, TCP and TLS.

use std::time::{Duration, Instant};

use crate::agent::{Agent, Request, response};
use crate::message::Message;
use crate::pki::{Authority, Kind};
use crate::place::{CALLEE, CALLER, Place, SERVER, STRANGER};
use crate::server::{Conf, Server};

const NAME: &str = "sip.example.test";

/// A server on UDP and TCP at the same port, and TLS; bob's phone is bound to it by UDP.
fn start(place: &Place, change: impl FnOnce(Conf) -> Conf) -> (Server, Authority, Agent) {
    let authority = Authority::new(place, "ca");
    let certificate = authority.issue(place, "server", Kind::Ecdsa, &[NAME]);
    let conf = Conf::new(place).stream("tcp", place.at(SERVER)).tls(place, &[&certificate]);
    let server = change(conf).start(place);
    let phone = Agent::new(place.at(CALLEE), server.address);
    server.bind(place, "bob", phone.address);
    (server, authority, phone)
}

/// A caller by each transport.
fn callers(place: &Place, server: &Server, authority: &Authority) -> [Agent; 3] {
    [
        Agent::new(place.at_port(CALLER, 0), server.address),
        Agent::tcp(place.ip(CALLER), server.address),
        Agent::tls(place.ip(CALLER), server.secure(), authority, NAME, None),
    ]
}

/// An INVITE to bob with this Via, as far as it rings; and as it arrived.
fn ring(caller: &Agent, phone: &Agent, server: &Server, sent_by: Option<&str>) -> (Request, Message) {
    let mut invite = caller.request("INVITE", &server.uri("bob"));
    if let Some(sent_by) = sent_by {
        invite.via = invite.via.replace(&caller.address.to_string(), sent_by);
    }
    caller.send(&invite);
    let arrived = phone.expect("INVITE", |message| message.call_id() == invite.call_id && message.is("INVITE"));
    phone.respond(&arrived, 180, &[]);
    caller.expect("180", |message| message.answers("INVITE", 180));
    (invite, arrived)
}

/// The CANCEL has reached the phone, and the call ends as cancelled.
fn assert_cancelled(caller: &Agent, phone: &Agent, invite: &Request, arrived: &Message) {
    let cancel = phone.expect("CANCEL", |message| message.is("CANCEL") && message.call_id() == invite.call_id);
    phone.respond(&cancel, 200, &[]);
    phone.respond(arrived, 487, &[]);
    let answer = caller.final_for(invite);
    assert_eq!(answer.status(), Some(487));
    caller.acknowledge(invite, &answer);
    phone.expect("ACK", |message| message.is("ACK"));
}

#[test]
fn a_cancel_whose_sent_by_is_written_otherwise() {
    let place = Place::new("sentby");
    let (server, authority, phone) = start(&place, |conf| conf);
    for caller in callers(&place, &server, &authority) {
        let port = if caller.transport() == "TLS" { 5061 } else { 5060 };
        for (of_invite, of_cancel) in [
            ("phone.example.test".into(), "PHONE.Example.TEST".into()),
            ("Phone.example.test.".into(), "phone.example.test".into()),
            ("phone.example.test".into(), format!("phone.example.test:{port}")),
            (format!("{}:{port}", place.ip(CALLER)), place.ip(CALLER).to_string()),
            ("[2001:db8::1]".into(), format!("[2001:DB8:0::1]:{port}")),
        ] {
            let (invite, arrived) = ring(&caller, &phone, &server, Some(&of_invite));
            let mut cancel = invite.cancel();
            cancel.via = cancel.via.replace(&of_invite, &of_cancel);
            let answer = caller.ask(&cancel);
            assert_eq!(answer.status(), Some(200), "{of_invite} and {of_cancel}");
            assert_cancelled(&caller, &phone, &invite, &arrived);
        }
    }
}

/// By its branch and sent-by alone nobody's call is cancelled, from wherever; by all that it shares with its INVITE it is, from another port too.
#[test]
fn a_cancel_that_is_not_its_invites() {
    let place = Place::new("forged");
    let (server, authority, phone) = start(&place, |conf| conf);
    let stranger = Agent::new(place.at(STRANGER), server.address);
    for caller in callers(&place, &server, &authority) {
        let (invite, arrived) = ring(&caller, &phone, &server, None);
        let honest = invite.cancel();
        let change = |change: fn(&mut Request)| {
            let mut forged = honest.clone();
            change(&mut forged);
            forged
        };
        for (number, forged) in [
            change(|forged| {
                forged.call_id = "guessed".into();
                forged.from = "<sip:fred@example.test>;tag=f".into();
            }),
            change(|forged| forged.call_id.push('x')),
            change(|forged| forged.from.push('x')),
            change(|forged| forged.from = forged.from.replace("agent", "fred")),
            change(|forged| forged.to = forged.to.replace("bob", "carol")),
            change(|forged| forged.uri = forged.uri.replace("bob", "carol")),
            change(|forged| forged.cseq += 1),
        ]
        .iter()
        .enumerate()
        {
            for by in [&stranger, &caller] {
                let mut forged = forged.clone();
                // So that the stranger hears what becomes of it; sent-by is the caller's.
                if by.address == stranger.address && !forged.via.contains("rport") {
                    forged.via += ";rport";
                }
                let answer = by.ask(&forged);
                assert_eq!(answer.status(), Some(481), "{number} by {}", by.address);
            }
        }
        assert!(phone.receive(Duration::from_millis(150)).is_none(), "it goes on ringing");
        let rebound = Agent::new(place.at_port(CALLER, 0), server.address);
        assert_eq!(rebound.ask(&honest).status(), Some(200));
        assert_cancelled(&caller, &phone, &invite, &arrived);
    }
}

/// A branch that is used again names another request: it gets its own answer, and not that of the first one.
#[test]
fn a_branch_that_is_used_again() {
    let place = Place::new("reused");
    let (server, authority, phone) = start(&place, |conf| conf);
    for caller in callers(&place, &server, &authority) {
        for method in ["INVITE", "MESSAGE"] {
            let nobody = caller.request(method, &server.uri("nobody"));
            let answer = caller.ask(&nobody);
            assert_eq!(answer.status(), Some(404));
            caller.acknowledge(&nobody, &answer);
            let first = caller.request(method, &server.uri("bob"));
            caller.send(&first);
            let arrived = phone.expect(method, |message| message.call_id() == first.call_id);
            phone.respond(&arrived, 603, &[]);
            let answer = caller.final_for(&first);
            assert_eq!(answer.status(), Some(603));
            caller.acknowledge(&first, &answer);
            // The same branch, Call-ID, From and CSeq to another; and another Call-ID and CSeq to the same.
            let mut elsewhere = first.clone();
            elsewhere.uri = server.uri("nobody");
            assert_eq!(caller.ask(&elsewhere).status(), Some(404), "{method}");
            let mut second = first.clone();
            second.call_id += "-second";
            let mut third = first.clone();
            third.cseq += 1000;
            for other in [second, third] {
                caller.send(&other);
                let arrived = phone.expect(method, |message| {
                    message.is(method) && message.call_id() == other.call_id && message.cseq() == other.cseq
                });
                phone.respond(&arrived, 486, &[]);
                let answer = caller.final_for(&other);
                assert_eq!(answer.status(), Some(486), "{method}");
                caller.acknowledge(&other, &answer);
            }
        }
    }
}

// ---- responses ---------------------------------------------------------------------------------------------------------------

/// The response without the Vias below the first.
fn without_the_callers_via(request: &Message, status: u16) -> Vec<u8> {
    let mut cut = request.clone();
    let mut seen = 0;
    cut.headers.retain(|(name, _)| {
        seen += usize::from(name == "via");
        name != "via" || seen == 1
    });
    response(&cut, status, "t", &[], b"")
}

/// A final response in which our Via stands alone is acknowledged and ends the call at once; for whom it was, it does not say.
#[test]
fn a_response_whose_only_via_is_ours() {
    let place = Place::new("ours");
    let (server, authority, phone) = start(&place, |conf| conf);
    let by_tcp = Agent::tcp(place.ip(CALLEE), server.address);
    let contact = format!("<{}>", by_tcp.uri());
    let register = by_tcp.register(&server.address.to_string(), "tim", &contact, 600);
    assert_eq!(by_tcp.ask(&register).status(), Some(200));
    for caller in callers(&place, &server, &authority) {
        for (callee, user) in [(&phone, "bob"), (&by_tcp, "tim")] {
            for status in [486, 302, 407, 503, 603, 200] {
                let began = Instant::now();
                let invite = caller.request("INVITE", &server.uri(user));
                caller.send(&invite);
                let arrived = callee.expect("INVITE", |message| message.is("INVITE") && message.call_id() == invite.call_id);
                callee.respond(&arrived, 180, &[]);
                callee.send_bytes(&without_the_callers_via(&arrived, status));
                if status >= 300 {
                    let ack = callee.expect("ACK", |message| message.is("ACK"));
                    assert_eq!(ack.top_via().branch, arrived.top_via().branch);
                    assert_eq!(ack.call_id(), invite.call_id);
                }
                let answer = caller.final_for(&invite);
                assert_eq!(answer.status(), Some(502), "{status}");
                caller.acknowledge(&invite, &answer);
                assert!(began.elapsed() < Duration::from_secs(3), "at once");
            }
            let message = caller.request("MESSAGE", &server.uri(user));
            caller.send(&message);
            let arrived = callee.expect("MESSAGE", |arrived| arrived.call_id() == message.call_id);
            callee.send_bytes(&without_the_callers_via(&arrived, 200));
            assert_eq!(caller.final_for(&message).status(), Some(502));
        }
    }
    server.expect_log(&["the only Via of its final response is ours"]);
}

/// Another target is tried behind one whose answer names nobody.
#[test]
fn behind_a_response_whose_only_via_is_ours() {
    let place = Place::new("behind");
    let (server, _, phone) = start(&place, |conf| conf.set("proxy", "fork", "\"sequential\""));
    let second = Agent::new(place.at_port(CALLEE, 5070), server.address);
    server.bind_to(&place, "bob", &format!("sip:bob@{};q=0.1", second.address));
    let caller = Agent::new(place.at(CALLER), server.address);
    let invite = caller.request("INVITE", &server.uri("bob"));
    caller.send(&invite);
    let arrived = phone.expect("INVITE", |message| message.is("INVITE"));
    phone.send_bytes(&without_the_callers_via(&arrived, 486));
    let soon = Duration::from_secs(3);
    let arrived = second.expect_within(soon, "INVITE", |message| message.is("INVITE"));
    second.accept(&arrived);
    assert_eq!(caller.final_for(&invite).status(), Some(200));
}

/// What a proxy does not need of a response does not kill the call: the caller is to judge it.
#[test]
fn a_response_with_faults_that_are_not_the_proxys() {
    let place = Place::new("faults");
    let (server, authority, phone) = start(&place, |conf| conf);
    let edits: &[(&str, &str)] = &[
        // Twice the same tag, the row of the issue; and its neighbours.
        ("\r\ncall-id", ";tag=t;tag=t\r\ncall-id"),
        (";tag=t", ";tag=t;tag=t"),
        (";tag=t", ";tag="),
        ("\r\nto: ", "\r\nto: <<"),
        ("\r\nfrom: ", "\r\nfrom: \"open "),
        ("\r\ncall-id: ", "\r\ncall-id: x y "),
        ("\r\ncseq: ", "\r\ncontact: <<sip:>\r\ncseq: "),
        ("\r\ncseq: ", "\r\nContent-Type: ?\r\ncseq: "),
        (" INVITE\r\n", " invite\r\n"),
        ("\r\ncseq: ", "\r\nno header line\r\ncseq: "),
        (";rport", ";rport=5060;received=127.0.0.1;rport"),
        ("SIP/2.0 ", "sip/2.0 "),
    ];
    for caller in callers(&place, &server, &authority) {
        for (from, to) in edits {
            for status in [486, 200] {
                let (invite, arrived) = ring(&caller, &phone, &server, None);
                let answer = response(&arrived, status, "t", &[], b"");
                let text = String::from_utf8(answer).expect("text");
                let broken = text.replacen(from, to, 1);
                assert_ne!(broken, text, "{to}");
                phone.send_bytes(broken.as_bytes());
                // A CSeq in lower case is another method to the reader here.
                let answer = caller.expect_within(Duration::from_secs(3), to, |message| {
                    message.status() == Some(status) && message.top_via().branch == invite.branch()
                });
                assert!(!answer.raw.windows(14).any(|line| line == b"no header line"));
                if status > 299 {
                    caller.acknowledge(&invite, &answer);
                    phone.expect("ACK", |message| message.is("ACK"));
                }
            }
        }
    }
}
