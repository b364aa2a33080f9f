//! Route sets beyond the plain case: Path, strict routers before and behind us, reliable provisional responses, and dialogs that outlive the server.

use std::time::Duration;

use crate::agent::{Agent, Request};
use crate::message::{Message, host_of, uri_of};
use crate::place::{CALLEE, CALLER, Place, SECOND_CALLEE, SERVER, wait_for};
use crate::server::{Conf, Server};

/// RFC 3327: what stands in Path is the way to the phone.
#[test]
fn path_is_kept_and_followed() {
    let place = Place::new("path");
    let server = Conf::new(&place).start(&place);
    let edge = Agent::new(place.at(SECOND_CALLEE), server.address);
    let caller = Agent::new(place.at(CALLER), server.address);
    let path = format!("<sip:{};lr>", edge.address);
    let far = "<sip:far.example.net;lr>";
    let contact = "sip:bob@192.0.2.77:5070";
    let register = edge
        .register(&server.address.to_string(), "bob", &format!("<{contact}>"), 600)
        .with("Supported: path")
        .with(&format!("Path: {path}, {far}"));
    let registered = edge.ask(&register);
    assert_eq!(registered.status(), Some(200), "{registered:?}");
    assert_eq!(registered.all("path"), [path.clone(), far.to_owned()], "the 200 says what was kept: {registered:?}");
    let invite = caller.request("INVITE", &server.uri("bob"));
    caller.send(&invite);
    let arrived = edge.expect("INVITE", |message| message.is("INVITE"));
    assert_eq!(arrived.request_uri(), contact);
    assert_eq!(arrived.all("route"), [path, far.to_owned()]);
    edge.respond(&arrived, 486, &[]);
    let refused = caller.final_for(&invite);
    assert_eq!(refused.status(), Some(486));
    caller.acknowledge(&invite, &refused);
    // The server's own CANCEL and ACK go the same way as the INVITE, with its Route (17.1.1.3, 9.1).
    let ack = edge.expect("ACK", |message| message.is("ACK"));
    assert_eq!(ack.all("route"), arrived.all("route"));
}

/// A strict router before us puts our Record-Route URI into the Request-URI and the target behind the routes (16.4).
#[test]
fn a_strict_router_before_us() {
    let place = Place::new("strictbefore");
    let server = Conf::new(&place).start(&place);
    let call = Call::establish(&place, &server, &[]);
    let mut bye = call.caller.in_dialog("BYE", &call.invite, &call.accepted);
    let target = bye.uri.clone();
    bye.uri = uri_of(&call.accepted.all("record-route")[0]);
    bye.extra = vec![format!("Route: <{target}>")];
    call.caller.send(&bye);
    let arrived = call.callee.expect("BYE", |message| message.is("BYE"));
    assert_eq!(arrived.request_uri(), target);
    assert!(arrived.all("route").is_empty(), "{arrived:?}");
    call.callee.respond(&arrived, 200, &[]);
    assert_eq!(call.caller.final_for(&bye).status(), Some(200));
}

/// A strict router behind us (no `lr`): it gets its own URI as Request-URI, and the target as the last Route (16.6, step 6).
#[test]
fn a_strict_router_behind_us() {
    let place = Place::new("strictbehind");
    let server = Conf::new(&place).start(&place);
    let router = Agent::new(place.at(SECOND_CALLEE), server.address);
    let strict = format!("sip:{}", router.address);
    let call = Call::establish(&place, &server, &[&format!("Record-Route: <{strict}>")]);
    let routes = call.accepted.all("record-route");
    assert_eq!(routes.len(), 2, "{:?}", call.accepted);
    let bye = call.caller.in_dialog("BYE", &call.invite, &call.accepted);
    call.caller.send(&bye);
    let arrived = router.expect("BYE", |message| message.is("BYE"));
    assert_eq!(arrived.request_uri(), strict);
    let routes: Vec<String> = arrived.all("route").iter().map(|route| uri_of(route)).collect();
    assert_eq!(routes, [bye.uri.as_str()]);
}

/// What is in a Route of ours that we did not write is not believed.
#[test]
fn a_route_set_of_another_dialog_is_not_enough() {
    let place = Place::new("stolenroute");
    let server = Conf::new(&place).start(&place);
    let call = Call::establish(&place, &server, &[]);
    let victim = Agent::new(place.at(SECOND_CALLEE), server.address);
    // A lawful party of one dialog makes a new one with somebody whom the server does not serve.
    for method in ["INVITE", "MESSAGE"] {
        let mut request = call.caller.request(method, &format!("sip:victim@{}", victim.address));
        request.extra = call.accepted.all("record-route").iter().map(|route| format!("Route: {route}")).collect();
        let refused = call.caller.ask(&request);
        assert!(refused.status() >= Some(400), "{method} outside a dialog: {refused:?}");
        if method == "INVITE" {
            call.caller.acknowledge(&request, &refused);
        }
    }
    assert!(victim.receive(Duration::from_millis(200)).is_none());
}

/// RFC 3262 and the rest of early dialogs: every provisional response but 100 goes through, each time it is said, with all its fields; PRACK and
/// UPDATE find the callee.
#[test]
fn early_dialogs() {
    let place = Place::new("early");
    let server = Conf::new(&place).set("limits", "answer_factor", "0").start(&place);
    let caller = Agent::new(place.at(CALLER), server.address);
    let callee = Agent::new(place.at(CALLEE), server.address);
    server.bind(&place, "bob", callee.address);
    let invite = caller.request("INVITE", &server.uri("bob")).with("Require: 100rel");
    caller.send(&invite);
    let arrived = callee.expect("INVITE", |message| message.is("INVITE"));
    assert_eq!(arrived.header("require"), Some("100rel"));
    callee.respond(&arrived, 100, &[]);
    let contact = format!("Contact: <sip:agent@{}>", callee.address);
    for sequence in 1..=3 {
        callee.respond(&arrived, 183, &[&contact, "Require: 100rel", &format!("RSeq: {sequence}")]);
        let progress = caller.expect("183", |message| message.answers("INVITE", 183));
        assert_eq!(progress.header("rseq"), Some(sequence.to_string().as_str()));
        assert_eq!(progress.vias().len(), 1);
        for method in ["PRACK", "UPDATE"] {
            let request = caller.in_dialog(method, &invite, &progress).with(&format!("RAck: {sequence} {} INVITE", invite.cseq));
            caller.send(&request);
            let asked = callee.expect(method, |message| message.is(method));
            callee.respond(&asked, 200, &[]);
            assert_eq!(caller.final_for(&request).status(), Some(200));
        }
    }
    callee.accept(&arrived);
    assert_eq!(caller.final_for(&invite).status(), Some(200));
    assert_eq!(
        caller.log().iter().filter(|message| message.answers("INVITE", 100)).count(),
        1,
        "a 100 goes no further than its hop"
    );
}

/// The callee answers while the CANCEL is on its way: the 200 goes through, whatever the CANCEL was told.
#[test]
fn an_answer_that_crosses_a_cancel() {
    let place = Place::new("cross");
    let server = Conf::new(&place).start(&place);
    let caller = Agent::new(place.at(CALLER), server.address);
    let callee = Agent::new(place.at(CALLEE), server.address);
    server.bind(&place, "bob", callee.address);
    let invite = caller.request("INVITE", &server.uri("bob"));
    caller.send(&invite);
    let arrived = callee.expect("INVITE", |message| message.is("INVITE"));
    callee.respond(&arrived, 180, &[]);
    caller.expect("180", |message| message.answers("INVITE", 180));
    caller.send(&invite.cancel());
    let cancel = callee.expect("CANCEL", |message| message.is("CANCEL"));
    callee.accept(&arrived);
    callee.respond(&cancel, 200, &[]);
    assert_eq!(caller.final_for(&invite).status(), Some(200));
    assert_eq!(caller.log().iter().filter(|message| message.answers("CANCEL", 200)).count(), 1);
    let accepted = caller.log().into_iter().rfind(|message| message.answers("INVITE", 200)).expect("200");
    caller.send(&caller.in_dialog("ACK", &invite, &accepted));
    callee.expect("ACK", |message| message.is("ACK"));
}

/// A dialog made before a restart goes on after it: the route set carries what the server has to know.
#[test]
fn a_dialog_outlives_the_server() {
    let place = Place::new("restart");
    let conf = Conf::new(&place);
    let server = conf.start(&place);
    let call = Call::establish(&place, &server, &[]);
    server.signal("TERM");
    server.finish(Duration::from_secs(5));
    let _again = conf.start(&place);
    let bye = call.caller.in_dialog("BYE", &call.invite, &call.accepted);
    call.caller.send(&bye);
    let arrived = call.callee.expect("BYE", |message| message.is("BYE"));
    call.callee.respond(&arrived, 200, &[]);
    assert_eq!(call.caller.final_for(&bye).status(), Some(200));
}

/// A retransmitted INVITE long after the call was refused and acknowledged is silence, a new one with another branch is a new call.
#[test]
fn a_finished_transaction_is_remembered_and_then_forgotten() {
    let place = Place::new("linger");
    let server = Conf::new(&place).set("timers", "linger", r#""1s""#).set("timers", "t4", r#""500ms""#).start(&place);
    let caller = Agent::new(place.at(CALLER), server.address);
    let callee = Agent::new(place.at(CALLEE), server.address);
    server.bind(&place, "bob", callee.address);
    let message = caller.request("MESSAGE", &server.uri("bob"));
    caller.send(&message);
    let arrived = callee.expect("MESSAGE", |message| message.is("MESSAGE"));
    callee.respond(&arrived, 202, &[]);
    let answer = caller.final_for(&message);
    for _ in 0..3 {
        caller.send(&message);
        assert_eq!(caller.final_for(&message).raw, answer.raw, "from memory, byte for byte");
    }
    assert!(callee.receive(Duration::from_millis(50)).is_none());
    let gone = wait_for(Duration::from_secs(8), || (server.stat(&place, "strowger_transactions") == 0.0).then_some(()));
    assert!(gone.is_some(), "the transaction is forgotten after its time");
    caller.send(&message);
    callee.expect("MESSAGE as a new one", |message| message.is("MESSAGE"));
}

/// What a phone does whose connection is lost, or whose NAT has forgotten it, in mid-call: it registers again, from another port.
fn register_as(phone: &Agent, server: &Server, user: &str, contact: &str) {
    let domain = server.address.to_string();
    let mut register = phone.register(&domain, user, &format!("<{contact}>"), 600);
    register.via = via_of(phone, contact);
    assert_eq!(phone.ask(&register).status(), Some(200));
}

/// The Via of a phone that takes the address in its contact for its own.
fn via_of(phone: &Agent, contact: &str) -> String {
    let branch = crate::agent::unique();
    let (transport, host) = (phone.transport(), host_of(contact));
    format!("SIP/2.0/{transport} {host};branch=z9hG4bKv{branch};rport")
}

/// Two sockets of one phone, and the contact that it gives by each.
fn phones(place: &Place, server: &Server, is_stream: bool) -> [(Agent, String); 2] {
    [5070, 5071].map(|port| {
        if is_stream {
            let phone = Agent::tcp(place.ip(CALLEE), server.address);
            let contact = phone.uri();
            return (phone, contact);
        }
        let mut address = place.at(CALLEE);
        address.set_port(port);
        let phone = Agent::new(address, server.address);
        (phone, "sip:agent@192.168.77.5:5060".to_owned())
    })
}

/// Waits until the server knows that the first of two connections is gone.
fn await_closed(place: &Place, server: &Server, is_stream: bool) {
    let open = || server.stat(place, "strowger_connections{transport=\"tcp\",state=\"open\"}");
    if is_stream {
        let closed = wait_for(Duration::from_secs(10), || (open() == 1.0).then_some(()));
        assert!(closed.is_some(), "{}", server.log());
    }
}

#[test]
fn a_callee_that_registers_anew_in_mid_call() {
    for is_stream in [true, false] {
        let place = Place::new("anewcallee");
        let server = Conf::new(&place).stream("tcp", place.at(SERVER)).start(&place);
        let caller = Agent::new(place.at(CALLER), server.address);
        let [(before, contact), (since, new_contact)] = phones(&place, &server, is_stream);
        register_as(&before, &server, "bob", &contact);
        let invite = caller.request("INVITE", &server.uri("bob"));
        caller.send(&invite);
        let arrived = before.expect("INVITE", |message| message.is("INVITE"));
        before.respond(&arrived, 200, &[&format!("Contact: <{contact}>")]);
        let accepted = caller.final_for(&invite);
        caller.send(&caller.in_dialog("ACK", &invite, &accepted));
        before.expect("ACK", |message| message.is("ACK"));
        drop(before);
        await_closed(&place, &server, is_stream);
        register_as(&since, &server, "bob", &new_contact);
        let again = caller.in_dialog("INVITE", &invite, &accepted);
        caller.send(&again);
        let arrived = since.expect("INVITE", |message| message.is("INVITE"));
        assert_eq!(arrived.request_uri(), contact);
        since.respond(&arrived, 200, &[&format!("Contact: <{contact}>")]);
        let accepted = caller.final_for(&again);
        assert_eq!(accepted.status(), Some(200));
        let mut ack = caller.in_dialog("ACK", &again, &accepted);
        ack.extra.clone_from(&again.extra);
        caller.send(&ack);
        since.expect("ACK", |message| message.is("ACK"));
        let mut bye = caller.in_dialog("BYE", &again, &accepted);
        bye.extra.clone_from(&again.extra);
        caller.send(&bye);
        let arrived = since.expect("BYE", |message| message.is("BYE"));
        assert_eq!(arrived.request_uri(), contact);
        since.respond(&arrived, 200, &[]);
        assert_eq!(caller.final_for(&bye).status(), Some(200));
    }
}

#[test]
fn a_caller_that_registers_anew_in_mid_call() {
    for is_stream in [true, false] {
        let place = Place::new("anewcaller");
        let server = Conf::new(&place).stream("tcp", place.at(SERVER)).start(&place);
        let callee = Agent::new(place.at(CALLER), server.address);
        server.bind(&place, "bob", callee.address);
        let [(before, contact), (since, new_contact)] = phones(&place, &server, is_stream);
        register_as(&before, &server, "alice", &contact);
        let mut invite = before.request("INVITE", &server.uri("bob"));
        invite.via = via_of(&before, &contact);
        invite.from = format!("<{}>;tag=caller", server.uri("alice"));
        invite.contact = Some(format!("<{contact}>"));
        before.send(&invite);
        let arrived = callee.expect("INVITE", |message| message.is("INVITE"));
        callee.accept(&arrived);
        let accepted = before.final_for(&invite);
        let mut ack = before.in_dialog("ACK", &invite, &accepted);
        ack.via = via_of(&before, &contact);
        before.send(&ack);
        callee.expect("ACK", |message| message.is("ACK"));
        drop(before);
        await_closed(&place, &server, is_stream);
        register_as(&since, &server, "alice", &new_contact);
        for method in ["INFO", "BYE"] {
            let mut request = callee.request(method, &contact);
            request.from = format!("<{}>;tag={}", server.uri("bob"), callee.tag());
            request.to.clone_from(&invite.from);
            request.call_id.clone_from(&invite.call_id);
            let routes = arrived.all("record-route");
            request.extra = routes.iter().map(|r| format!("Route: {r}")).collect();
            callee.send(&request);
            let arrived = since.expect(method, |message| message.is(method));
            assert_eq!(arrived.request_uri(), contact);
            since.respond(&arrived, 200, &[]);
            assert_eq!(callee.final_for(&request).status(), Some(200));
        }
    }
}

/// An established call between two agents.
struct Call {
    caller: Agent,
    callee: Agent,
    invite: Request,
    accepted: Message,
}

impl Call {
    /// `extra` are lines that the callee's 200 carries above the Record-Route of the server.
    fn establish(place: &Place, server: &Server, extra: &[&str]) -> Call {
        let caller = Agent::new(place.at(CALLER), server.address);
        let callee = Agent::new(place.at(CALLEE), server.address);
        server.bind(place, "bob", callee.address);
        let invite = caller.request("INVITE", &server.uri("bob"));
        caller.send(&invite);
        let mut arrived = callee.expect("INVITE", |message| message.is("INVITE"));
        assert_eq!(host_of(&uri_of(&arrived.all("record-route")[0])), server.address.to_string());
        for line in extra {
            let (name, value) = line.split_once(": ").expect("a header line");
            let first = arrived.headers.iter().position(|(name, _)| name == "record-route").expect("our Record-Route");
            arrived.headers.insert(first, (name.to_ascii_lowercase(), value.to_owned()));
        }
        callee.accept(&arrived);
        let accepted = caller.final_for(&invite);
        assert_eq!(accepted.status(), Some(200));
        if extra.is_empty() {
            caller.send(&caller.in_dialog("ACK", &invite, &accepted));
            callee.expect("ACK", |message| message.is("ACK"));
        }
        Call { caller, callee, invite, accepted }
    }
}
