//! Whole calls between SIPp's caller and SIPp's callee.

use std::collections::BTreeMap;

use crate::agent::Agent;
use crate::message::{Message, host_of, uri_of};
use crate::place::{CALLEE, CALLEE_TAP, CALLER, CALLER_TAP, Place};
use crate::server::Conf;
use crate::sipp::{Scenario, Sipp};
use crate::tap::{Tap, Way};
use crate::{UAC, UAS};

const CALLS: u32 = 50;

/// SIPp's own caller and callee, neither of which knows of Record-Route: every request finds the callee by the location service.
#[test]
fn built_in_uac_and_uas() {
    let place = Place::new("builtin");
    let server = Conf::new(&place).start(&place);
    server.bind(&place, "bob", place.at(CALLEE));
    let callee = Sipp::new(&place, "uas", place.at(CALLEE), Scenario::BuiltIn("uas")).calls(CALLS).answer();
    let caller = Sipp::new(&place, "uac", place.at(CALLER), Scenario::BuiltIn("uac"))
        .calls(CALLS)
        .with(&["-r", "50"])
        .call("bob", server.address, server.address)
        .succeed(CALLS);
    let callee = callee.succeed(CALLS);

    let to_caller = by_call(caller.received());
    assert_eq!(to_caller.len(), CALLS as usize);
    for messages in to_caller.values() {
        assert!(messages.iter().any(|message| message.answers("INVITE", 100)), "no 100 Trying");
        assert!(messages.iter().any(|message| message.answers("INVITE", 180)), "no 180 Ringing");
        for method in ["INVITE", "BYE"] {
            let finals: Vec<_> = messages.iter().filter(|message| message.is_final_for(method)).collect();
            assert_eq!(finals.len(), 1, "final responses to {method}: {finals:#?}");
        }
        for message in messages {
            let vias = message.vias();
            assert_eq!(vias.len(), 1, "our Via must be gone: {message:?}");
            assert_eq!(vias[0].sent_by, place.at(CALLER).to_string());
        }
    }

    let to_callee = by_call(callee.received());
    assert_eq!(to_callee.len(), CALLS as usize);
    for messages in to_callee.values() {
        assert_eq!(messages.iter().map(Message::method).collect::<Vec<_>>(), ["INVITE", "ACK", "BYE"]);
        for message in messages {
            assert_relayed(message, &server.address.to_string(), place.at(CALLER));
            assert_eq!(message.request_uri(), format!("sip:bob@{}", place.at(CALLEE)));
        }
        assert_record_routed(&messages[0], &server.address.to_string());
    }
}

/// The route set carries ACK and BYE; both legs are seen on the wire, so that what leaves can be laid beside what came.
#[test]
fn calls_by_record_route() {
    let place = Place::new("recordroute");
    let server = Conf::new(&place).start(&place);
    let before = Tap::new(place.at(CALLER_TAP), server.address);
    let behind = Tap::new(place.at(CALLEE_TAP), place.at(CALLEE));
    server.bind(&place, "bob", behind.address);
    let callee = callee(&place, "uas", CALLEE, behind.address).calls(CALLS).answer();
    Sipp::new(&place, "uac", place.at(CALLER), Scenario::Text(UAC))
        .calls(CALLS)
        .with(&["-r", "50"])
        .call("bob", server.address, before.address)
        .succeed(CALLS);
    callee.succeed(CALLS);

    let came = by_call(before.seen(Way::Forth));
    let left = by_call(behind.seen(Way::Forth));
    assert_eq!((came.len(), left.len()), (CALLS as usize, CALLS as usize));
    for (call, came) in &came {
        let left = &left[call];
        assert_eq!(left.iter().map(Message::method).collect::<Vec<_>>(), ["INVITE", "ACK", "BYE"]);
        for leaving in left {
            let coming = came.iter().find(|message| message.method() == leaving.method()).expect("what leaves has come");
            assert_eq!(leaving.vias().len(), coming.vias().len() + 1);
            assert_eq!(leaving.vias()[1].branch, coming.top_via().branch);
            assert_eq!(leaving.max_forwards(), coming.max_forwards().map(|hops| hops - 1));
            assert_eq!(leaving.body, coming.body, "a body must leave as it came");
            for name in ["from", "to", "call-id", "cseq", "contact", "content-type"] {
                assert_eq!(leaving.header(name), coming.header(name), "{name} must leave as it came");
            }
            assert!(leaving.all("route").is_empty(), "our own Route must be gone: {leaving:?}");
            assert_eq!(uri_of(leaving.request_uri()).split(';').next(), Some(format!("sip:bob@{}", behind.address).as_str()));
        }
        assert_record_routed(&left[0], &server.address.to_string());
        assert!(
            came.iter().filter(|message| message.is("ACK") || message.is("BYE")).all(|message| message.all("route").len() == 1)
        );
    }
    // The callee's responses: what it said, less our Via.
    let answered = by_call(behind.seen(Way::Back));
    let returned = by_call(before.seen(Way::Back));
    for (call, answered) in &answered {
        for answer in answered {
            let back: Vec<_> = returned[call]
                .iter()
                .filter(|message| message.start == answer.start && message.method() == answer.method())
                .collect();
            assert_eq!(back.len(), 1, "{} once for each time it was said", answer.start);
            assert_eq!(back[0].vias(), answer.vias()[1..]);
            assert_eq!(back[0].body, answer.body);
            // The caller's own cookie stands in our Record-Route (RFC 3261 §16.7 step 8).
            let places = |message: &Message| -> Vec<String> {
                let routes = message.all("record-route");
                let place = |route: &String| route.split(";sc=").next().unwrap().to_owned();
                routes.iter().map(place).collect()
            };
            assert_eq!(places(back[0]), places(answer));
        }
        assert_eq!(returned[call].iter().filter(|message| message.answers("INVITE", 100)).count(), 1);
    }
}

/// The callee's side of a call by Record-Route, with a Contact behind `contact`.
pub fn callee<'a>(place: &'a Place, name: &str, host: u8, contact: std::net::SocketAddr) -> Sipp<'a> {
    Sipp::new(place, name, place.at(host), Scenario::Text(UAS)).with(&[
        "-key",
        "contact_user",
        "bob",
        "-key",
        "contact",
        &contact.to_string(),
    ])
}

/// A request as it must look behind the server: its Via on top, the caller's below, one hop less.
fn assert_relayed(message: &Message, server: &str, caller: std::net::SocketAddr) {
    let vias = message.vias();
    assert_eq!(vias.len(), 2, "{message:?}");
    assert_eq!(vias[0].sent_by, server);
    assert!(vias[0].branch.starts_with("z9hG4bK"), "{message:?}");
    // Where the Via tells the truth by itself, `received` may be left out (18.2.1).
    assert_eq!(vias[1].sent_by, caller.to_string());
    let received = vias[1].received.clone().unwrap_or(caller.ip().to_string());
    assert_eq!(received, caller.ip().to_string());
    assert_eq!(message.max_forwards(), Some(69));
}

fn assert_record_routed(invite: &Message, server: &str) {
    let routes = invite.all("record-route");
    assert_eq!(routes.len(), 1, "{invite:?}");
    let uri = uri_of(&routes[0]);
    assert_eq!(host_of(&uri), server);
    assert!(uri.split(';').any(|parameter| parameter == "lr" || parameter.starts_with("lr=")), "{uri}");
}

/// Messages by Call-ID, in the order of the wire.
pub fn by_call(messages: Vec<Message>) -> BTreeMap<String, Vec<Message>> {
    let mut calls: BTreeMap<String, Vec<Message>> = BTreeMap::new();
    for message in messages {
        calls.entry(message.call_id().to_owned()).or_default().push(message);
    }
    calls
}

/// A 2xx is not the end of what the callee may ask: it changes the session, sends INFO, and hangs up, all against the direction of the call.
#[test]
fn in_dialog_requests_from_the_callee() {
    let place = Place::new("indialog");
    let server = Conf::new(&place).start(&place);
    let caller = Agent::new(place.at(CALLER), server.address);
    let callee = Agent::new(place.at(CALLEE), server.address);
    server.bind(&place, "bob", callee.address);
    let invite = caller.request("INVITE", &server.uri("bob"));
    caller.send(&invite);
    let arrived = callee.expect("INVITE", |message| message.is("INVITE"));
    callee.accept(&arrived);
    let accepted = caller.final_for(&invite);
    assert_eq!(accepted.status(), Some(200));
    caller.send(&caller.in_dialog("ACK", &invite, &accepted));
    let ack = callee.expect("ACK", |message| message.is("ACK"));
    assert_eq!(ack.vias().len(), 2);

    let routes = arrived.all("record-route");
    for method in ["INFO", "INVITE", "UPDATE", "NOTIFY", "MESSAGE", "REFER", "STRANGE", "BYE"] {
        let mut request = callee.request(method, &arrived.contacts()[0]);
        request.from = format!("{};tag={}", arrived.header("to").unwrap_or_default(), callee.tag());
        request.to = arrived.header("from").unwrap_or_default().to_owned();
        request.call_id = arrived.call_id().to_owned();
        request.extra = routes.iter().map(|route| format!("Route: {route}")).collect();
        request.body = (0..=255).collect();
        callee.send(&request);
        let came = caller.expect(method, |message| message.is(method));
        assert_eq!(came.body, request.body, "a body must leave as it came");
        assert_eq!(came.request_uri(), format!("sip:agent@{}", caller.address));
        assert_eq!(came.vias().len(), 2);
        assert!(came.all("route").is_empty());
        caller.respond(&came, 200, &[&format!("Contact: <sip:agent@{}>", caller.address)]);
        let answer = callee.final_for(&request);
        assert_eq!(answer.status(), Some(200));
        assert_eq!(answer.vias().len(), 1);
        if method == "INVITE" {
            let mut ack = request.clone();
            ack.method = "ACK".to_owned();
            ack.via = format!("SIP/2.0/UDP {};branch=z9hG4bKack{}", callee.address, crate::agent::unique());
            ack.to = answer.header("to").unwrap_or_default().to_owned();
            callee.send(&ack);
            caller.expect("ACK", |message| message.is("ACK") && message.cseq() == request.cseq);
        }
    }
}
