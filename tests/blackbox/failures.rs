//! Calls that do not come about: given up, refused, not answered, not known. What each side sees, and that nobody sees more.

use std::time::{Duration, Instant};

use crate::agent::{Agent, Request};
use crate::message::Message;
use crate::place::{CALLEE, CALLEE_TAP, CALLER, CALLER_TAP, Place};
use crate::server::{Conf, Server};
use crate::sipp::{Scenario, Sipp};
use crate::tap::{Tap, Way};

pub const UAC_CANCELS: &str = include_str!("scenarios/uac-cancels.xml");
pub const UAC_REFUSED: &str = include_str!("scenarios/uac-refused.xml");
pub const UAS_REFUSES: &str = include_str!("scenarios/uas-refuses.xml");
pub const UAS_RINGS: &str = include_str!("scenarios/uas-rings.xml");

/// The caller gives up while it rings: each side gets its own CANCEL, 200, 487 and ACK, hop by hop.
#[test]
fn cancel_before_an_answer() {
    let place = Place::new("cancel");
    let server = Conf::new(&place).start(&place);
    let before = Tap::new(place.at(CALLER_TAP), server.address);
    let behind = Tap::new(place.at(CALLEE_TAP), place.at(CALLEE));
    server.bind(&place, "bob", behind.address);
    let uas = Sipp::new(&place, "uas", place.at(CALLEE), Scenario::Text(UAS_RINGS))
        .with(&["-key", "contact_user", "bob", "-key", "contact", &behind.address.to_string()])
        .calls(10)
        .answer();
    Sipp::new(&place, "uac", place.at(CALLER), Scenario::Text(UAC_CANCELS))
        .calls(10)
        .call("bob", server.address, before.address)
        .succeed(10);
    uas.succeed(10);

    for call in crate::calls::by_call(before.seen(Way::Back)).values() {
        assert_eq!(call.iter().filter(|message| message.is_final_for("INVITE")).count(), 1, "{call:#?}");
        assert_eq!(call.iter().filter(|message| message.is_final_for("CANCEL")).count(), 1, "{call:#?}");
        let terminated = call.iter().find(|message| message.answers("INVITE", 487)).expect("487");
        assert_eq!(terminated.vias().len(), 1);
    }
    let calls = crate::calls::by_call(behind.seen(Way::Forth));
    assert_eq!(calls.len(), 10);
    for call in calls.values() {
        assert_eq!(call.iter().map(Message::method).collect::<Vec<_>>(), ["INVITE", "CANCEL", "ACK"]);
        assert_cancels(&call[0], &call[1]);
        assert_hop_ack(&call[0], &call[2]);
        let terminated = behind
            .responses(Way::Back, "INVITE", 487)
            .into_iter()
            .find(|message| message.call_id() == call[0].call_id())
            .expect("487");
        assert_eq!(call[2].to_tag(), terminated.to_tag(), "the ACK has the To tag of the response (17.1.1.3)");
    }
}

/// 486: the server acknowledges towards the callee by itself; the caller's ACK ends at the server.
#[test]
fn busy() {
    let place = Place::new("busy");
    let server = Conf::new(&place).start(&place);
    let before = Tap::new(place.at(CALLER_TAP), server.address);
    let behind = Tap::new(place.at(CALLEE_TAP), place.at(CALLEE));
    server.bind(&place, "bob", behind.address);
    let uas = Sipp::new(&place, "uas", place.at(CALLEE), Scenario::Text(UAS_REFUSES)).calls(20).answer();
    Sipp::new(&place, "uac", place.at(CALLER), Scenario::Text(UAC_REFUSED))
        .calls(20)
        .with(&["-r", "50"])
        .call("bob", server.address, before.address)
        .succeed(20);
    uas.succeed(20);

    let calls = crate::calls::by_call(behind.seen(Way::Forth));
    assert_eq!(calls.len(), 20);
    for call in calls.values() {
        assert_eq!(call.iter().map(Message::method).collect::<Vec<_>>(), ["INVITE", "ACK"]);
        assert_hop_ack(&call[0], &call[1]);
    }
    assert_eq!(before.requests(Way::Forth, "ACK").len(), 20);
    assert_eq!(before.responses(Way::Back, "INVITE", 486).len(), 20);
}

/// The callee rings and never answers: Timer C ends it (16.8). A callee that answers the CANCEL gives the caller 487, a silent one 408.
#[test]
fn ringing_without_end_is_ended_by_timer_c() {
    let place = Place::new("timerc");
    let server = Conf::new(&place).set("timers", "c", r#""2s""#).set("timers", "t1", r#""50ms""#).start(&place);
    let silent = Agent::new(place.at(CALLEE), server.address);
    let honest = Agent::new(place.at_port(CALLEE, 5070), server.address);
    server.bind(&place, "silent", silent.address);
    server.bind(&place, "honest", honest.address);
    let (caller_of_silent, to_silent) = call(&place, &server, 5060, "silent");
    let (caller_of_honest, to_honest) = call(&place, &server, 5061, "honest");
    let began = Instant::now();
    let rung_silent = silent.expect("INVITE", |message| message.is("INVITE"));
    silent.respond(&rung_silent, 180, &[]);
    let rung_honest = honest.expect("INVITE", |message| message.is("INVITE"));
    honest.respond(&rung_honest, 180, &[]);

    let cancel = honest.expect("CANCEL", |message| message.is("CANCEL"));
    let after = began.elapsed();
    assert!(after > Duration::from_millis(1700) && after < Duration::from_millis(4000), "CANCEL after {after:?}");
    assert_cancels(&rung_honest, &cancel);
    honest.respond(&cancel, 200, &[]);
    honest.respond(&rung_honest, 487, &[]);
    let ended = caller_of_honest.final_for(&to_honest);
    assert!([408, 487].contains(&ended.status().unwrap_or_default()), "{ended:?}");
    honest.expect("ACK", |message| message.is("ACK"));

    assert_cancels(&rung_silent, &silent.expect("CANCEL", |message| message.is("CANCEL")));
    let ended = caller_of_silent.expect_within(Duration::from_secs(8), "408", |message| message.is_final_for("INVITE"));
    assert_eq!(ended.status(), Some(408), "{ended:?}");
    caller_of_silent.acknowledge(&to_silent, &ended);
}

/// The callee's address is dead: the INVITE goes out seven times with doubling gaps (Timer A), always the same bytes, then the caller gets 408
/// (Timer B).
#[test]
fn nobody_there_at_all() {
    let place = Place::new("nobody");
    let server = Conf::new(&place).set("timers", "t1", r#""80ms""#).start(&place);
    let nobody = Tap::new(place.at(CALLEE_TAP), place.at(CALLEE));
    server.bind(&place, "bob", nobody.address);
    let (caller, invite) = call(&place, &server, 5060, "bob");
    let began = Instant::now();
    let ended = caller.final_for(&invite);
    let after = began.elapsed();
    assert_eq!(ended.status(), Some(408), "{ended:?}");
    assert!(
        after > Duration::from_millis(4900) && after < Duration::from_millis(7000),
        "408 after {after:?}, where 64·T1 is 5.12 s"
    );
    caller.acknowledge(&invite, &ended);
    assert_eq!(caller.log().iter().filter(|message| message.answers("INVITE", 100)).count(), 1);

    let tries: Vec<_> =
        nobody.records().into_iter().filter(|record| record.message.as_ref().is_some_and(|message| message.is("INVITE"))).collect();
    // The seventh leaves T1 before the end: a machine that is that late sends one less.
    assert_eq!(tries.len(), 7);
    assert!(tries.iter().all(|record| record.bytes == tries[0].bytes), "a retransmission is the same bytes");
    let gaps: Vec<u128> = tries.windows(2).map(|pair| (pair[1].at - pair[0].at).as_millis()).collect();
    for (n, gap) in gaps.iter().enumerate() {
        let right = 80 << n;
        assert!(*gap + 25 >= right && *gap <= right * 3 / 2 + 60, "gap {n} is {gap} ms, not about {right}: {gaps:?}");
    }
    assert!(nobody.requests(Way::Forth, "ACK").is_empty(), "nobody is acknowledged");
    assert!(
        caller.collect(Duration::from_millis(300)).iter().all(|message| !message.is_final_for("INVITE")),
        "an acknowledged response is not repeated"
    );
}

/// A request other than INVITE to a dead address: RFC 4320 forbids a late 408; the caller's own timer ends it.
#[test]
fn a_dead_address_answers_a_message_with_nothing() {
    let place = Place::new("nobodymessage");
    let server = Conf::new(&place).set("timers", "t1", r#""30ms""#).start(&place);
    let nobody = Tap::new(place.at(CALLEE_TAP), place.at(CALLEE));
    server.bind(&place, "bob", nobody.address);
    let caller = Agent::new(place.at(CALLER), server.address);
    caller.send(&caller.request("MESSAGE", &server.uri("bob")));
    let heard = caller.collect(Duration::from_millis(2600));
    assert!(heard.iter().all(|message| message.status() != Some(408)), "{heard:#?}");
    assert!(heard.iter().filter(|message| message.is_final_for("MESSAGE")).count() <= 1);
    let tries = nobody.requests(Way::Forth, "MESSAGE").len();
    assert!((5..=11).contains(&tries), "{tries} transmissions (Timer E doubles to T2, Timer F is 64·T1)");
}

#[test]
fn unknown_and_unregistered_users() {
    let place = Place::new("unknown");
    let server = Conf::new(&place).start(&place);
    let caller = Agent::new(place.at(CALLER), server.address);
    for method in ["INVITE", "MESSAGE", "OPTIONS", "SUBSCRIBE"] {
        let request = caller.request(method, &server.uri("nobody"));
        let refused = caller.ask(&request);
        assert_eq!(refused.status(), Some(404), "{refused:?}");
        assert!(refused.to_tag().is_some(), "a response of ours has a To tag: {refused:?}");
        if method == "INVITE" {
            caller.acknowledge(&request, &refused);
        }
    }
    // Once known and gone again: 480 says so, 404 is true as well.
    let phone = Agent::new(place.at(CALLEE), server.address);
    let domain = server.address.to_string();
    let contact = format!("<sip:bob@{}>", phone.address);
    let mut register = phone.register(&domain, "bob", &contact, 600);
    assert_eq!(phone.ask(&register).status(), Some(200));
    register =
        Request { via: format!("SIP/2.0/UDP {};branch=z9hG4bKgone;rport", phone.address), cseq: register.cseq + 1, ..register };
    register.extra = vec!["Expires: 0".to_owned()];
    assert_eq!(phone.ask(&register).status(), Some(200));
    let request = caller.request("INVITE", &server.uri("bob"));
    let refused = caller.ask(&request);
    assert!([404, 480].contains(&refused.status().unwrap_or_default()), "{refused:?}");
    caller.acknowledge(&request, &refused);
}

/// A CANCEL for nothing is answered 481 (9.2), an ACK for nothing by silence.
#[test]
fn cancel_and_ack_of_nothing() {
    let place = Place::new("nothing");
    let mut server = Conf::new(&place).start(&place);
    let caller = Agent::new(place.at(CALLER), server.address);
    let cancel = caller.request("CANCEL", &server.uri("bob"));
    assert_eq!(caller.ask(&cancel).status(), Some(481));
    caller.send(&caller.request("ACK", &server.uri("bob")));
    let mut stray = caller.request("ACK", &server.uri("bob"));
    stray.to += ";tag=nobodys";
    caller.send(&stray);
    assert!(caller.receive(Duration::from_millis(300)).is_none(), "an ACK is never answered");
    server.assert_alive(&place, CALLER);
}

/// Sends an INVITE for `user` from a new agent on the caller's address.
fn call(place: &Place, server: &Server, port: u16, user: &str) -> (Agent, Request) {
    let caller = Agent::new(place.at_port(CALLER, port), server.address);
    let invite = caller.request("INVITE", &server.uri(user));
    caller.send(&invite);
    (caller, invite)
}

/// A CANCEL of ours for an INVITE of ours (9.1): one Via, the same as the INVITE's; same Request-URI, Call-ID, From, To and CSeq number.
pub fn assert_cancels(invite: &Message, cancel: &Message) {
    assert_eq!(cancel.vias(), [invite.top_via()], "{cancel:?}");
    assert_eq!(cancel.request_uri(), invite.request_uri());
    assert_eq!(cancel.cseq(), invite.cseq());
    for name in ["call-id", "from", "to"] {
        assert_eq!(cancel.header(name), invite.header(name), "{name} of {cancel:?}");
    }
}

/// An ACK of ours for a final response other than 2xx (17.1.1.3): one Via, the INVITE's.
pub fn assert_hop_ack(invite: &Message, ack: &Message) {
    assert_eq!(ack.vias(), [invite.top_via()], "the ACK is the server's own, not the caller's: {ack:?}");
    assert_eq!(ack.request_uri(), invite.request_uri());
    assert_eq!(ack.cseq(), invite.cseq());
    assert_eq!(ack.header("from"), invite.header("from"));
    assert!(ack.to_tag().is_some());
}

/// A whole call between two agents: for tests that need no more than a server that still works.
pub fn assert_call_works(place: &Place, server: &Server, user: &str, ports: u16) {
    let phone = Agent::new(place.at_port(CALLEE, ports), server.address);
    server.bind(place, user, phone.address);
    let (caller, invite) = call(place, server, ports, user);
    let arrived = phone.expect("INVITE", |message| message.is("INVITE"));
    phone.accept(&arrived);
    let accepted = caller.final_for(&invite);
    assert_eq!(accepted.status(), Some(200), "{accepted:?}");
    caller.send(&caller.in_dialog("ACK", &invite, &accepted));
    phone.expect("ACK", |message| message.is("ACK"));
    let bye = caller.in_dialog("BYE", &invite, &accepted);
    caller.send(&bye);
    let arrived = phone.expect("BYE", |message| message.is("BYE"));
    phone.respond(&arrived, 200, &[]);
    assert_eq!(caller.final_for(&bye).status(), Some(200));
}
