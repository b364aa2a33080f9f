//! The way that a phone has opened itself: bindings that remember their connection (RFC 5626 §6), and the flow token of our
//! Record-Route (§5.3), by which the requests of a dialog find back.

use strowger::base::{Flow, Transport, Transport::*};
use strowger::stack::Element;
use strowger::stack::Settings;
use strowger::stack::settings::Mode;

use crate::bench::*;
use crate::message::{Request, param};

const NAT: &str = "198.51.100.7:40123";
const OTHER_NAT: &str = "198.51.100.8:40999";

pub fn bench() -> Bench {
    with(|_| ())
}

fn with(change: impl FnOnce(&mut Settings)) -> Bench {
    Bench::with(|settings| {
        settings.listeners = listeners();
        change(settings);
    })
}

/// Bob registers over `flow`.
fn register(b: &mut Bench, flow: Flow, sent_by: &str, contact: &str, n: u32) {
    register_as(b, "bob", flow, sent_by, contact, n);
}

fn register_as(b: &mut Bench, user: &str, flow: Flow, sent_by: &str, contact: &str, n: u32) {
    let request = Request::new("REGISTER", "sip:example.com")
        .via(sent_by, &format!("z9hG4bKreg{}", crate::message::unique()))
        .by(flow.transport)
        .to(&format!("<sip:{user}@example.com>"))
        .call_id(&format!("reg{n}-{user}"))
        .add(&format!("Contact: {contact}"));
    let answer = only(b.send_on(flow.core.into(), flow, request));
    assert_eq!((answer.status(), answer.flow), (200, flow));
}

fn dead_flows(b: &Bench) -> u64 {
    b.cores.iter().map(|core| core.counters().dead_flows).sum()
}

// ---- bindings --------------------------------------------------------------------------------------------------------------

#[test]
fn a_phone_is_called_by_the_connection_on_which_it_registered() {
    for (contact, sent_by) in [
        ("<sip:bob@10.0.1.2:5060;transport=tcp>", "10.0.1.2:5060"),
        ("<sip:bob@192.168.0.5:5060;transport=tcp>", "192.168.0.5:5060"),
        ("<sip:bob@h5gq.invalid;transport=ws>", "h5gq.invalid"),
        // The contact says UDP; the connection is there.
        ("<sip:bob@10.0.1.2:5060>", "10.0.1.2:5060"),
    ] {
        let mut b = bench();
        let bob = b.open(Tcp, 0, 3, "10.0.1.2:40000");
        register(&mut b, bob, sent_by, contact, 1);
        let sent = b.send(ALICE, Request::invite());
        let at_bob = sent.iter().find(|s| s.status() == 0).unwrap();
        assert_eq!(at_bob.flow, bob, "{contact}");
        assert_eq!(format!("<{}>", at_bob.uri()), contact);
        assert!(at_bob.header("Via").unwrap().starts_with("SIP/2.0/TCP 10.0.0.1:5060;"));
        let ok = only(b.send_on(0, bob, at_bob.answer(200)));
        assert_eq!((ok.status(), ok.to.as_str()), (200, ALICE));
        b.assert_quiet();
    }
}

#[test]
fn a_phone_that_registered_with_another_core_is_called_by_its_connection() {
    let mut b = with(|settings| settings.cores = 2);
    let bob = b.open(Tcp, 1, 3, "10.0.1.2:40000");
    register(&mut b, bob, "10.0.1.2:5060", "<sip:bob@10.0.1.2:5060;transport=tcp>", 1);
    let sent = b.send_by(0, 0, ALICE, Request::invite());
    let at_bob = sent.iter().find(|s| s.status() == 0).unwrap();
    assert_eq!(at_bob.flow, bob);
    // The answer comes where the connection lives, and goes home by mail.
    let ok = only(b.send_on(1, bob, at_bob.answer(200)));
    assert_eq!((ok.status(), ok.to.as_str()), (200, ALICE));
    b.assert_quiet();
}

#[test]
fn a_dead_flow_is_skipped_in_a_fork_and_counted() {
    let mut b = bench();
    let bob = b.open(Tcp, 0, 3, NAT);
    register(&mut b, bob, "192.168.0.5:5060", "<sip:bob@192.168.0.5:5060;transport=tcp>", 1);
    let desk = b.open(Tcp, 0, 4, OTHER_NAT);
    register(&mut b, desk, "192.168.0.9:5060", "<sip:bob@192.168.0.9:5060;transport=tcp>", 2);
    b.lose(bob);
    let sent = b.send(ALICE, Request::invite());
    let branches: Vec<_> = sent.iter().filter(|s| s.status() == 0).collect();
    assert_eq!(branches.len(), 1, "{}", show(&sent));
    assert_eq!(branches[0].flow, desk);
    assert_eq!(dead_flows(&b), 1);
    let ok = only(b.send_on(0, desk, branches[0].answer(200)));
    assert_eq!(ok.status(), 200);
    b.assert_quiet();
}

#[test]
fn when_every_flow_is_dead_the_user_is_480() {
    let mut b = bench();
    let bob = b.open(Tcp, 0, 3, NAT);
    register(&mut b, bob, "192.168.0.5:5060", "<sip:bob@192.168.0.5:5060;transport=tcp>", 1);
    b.lose(bob);
    let answer = b.send_for_one(ALICE, Request::invite());
    assert_eq!(answer.status(), 480);
    // It registers again, and is there again.
    let bob = b.open(Tcp, 0, 3, OTHER_NAT);
    register(&mut b, bob, "192.168.0.5:5060", "<sip:bob@192.168.0.5:5060;transport=tcp>", 2);
    let sent = b.send(ALICE, Request::invite());
    assert_eq!(the(&sent, OTHER_NAT).flow, bob);
}

#[test]
fn a_phone_that_can_be_called_is_called_when_its_connection_is_gone() {
    let mut b = bench();
    let bob = b.open(Tcp, 0, 3, "10.0.1.2:40000");
    register(&mut b, bob, "10.0.1.2:5060", "<sip:bob@10.0.1.2:5060;transport=tcp>", 1);
    b.lose(bob);
    let sent = b.send(ALICE, Request::invite());
    let at_bob = the(&sent, BOB);
    assert_eq!((at_bob.flow.transport, dead_flows(&b)), (Tcp, 0));
    assert_ne!(at_bob.flow, bob);
}

#[test]
fn a_connection_of_the_same_place_is_not_the_one_that_registered() {
    let mut b = bench();
    let bob = b.open(Tcp, 0, 3, NAT);
    register(&mut b, bob, "192.168.0.5:5060", "<sip:bob@192.168.0.5:5060;transport=tcp>", 1);
    b.lose(bob);
    // Somebody else gets the place.
    b.live.enter(0, 3, 8);
    assert_eq!(b.send_for_one(ALICE, Request::invite()).status(), 480);
}

#[test]
fn who_registers_another_machine_does_not_get_its_calls() {
    let mut b = bench();
    let carol = b.open(Tcp, 0, 3, "10.0.1.3:40000");
    register(&mut b, carol, "10.0.1.3:5060", "<sip:bob@10.0.1.2:5060>", 1);
    let sent = b.send(ALICE, Request::invite());
    assert_eq!(the(&sent, BOB).flow.transport, Udp);
    // Nor does a proxy that hands the REGISTER on without a Path.
    let mut b = bench();
    let proxy = b.open(Tcp, 0, 3, "10.0.1.3:40000");
    let request = Request::new("REGISTER", "sip:example.com")
        .via("10.0.1.3:5060", "z9hG4bKhandedon")
        .by(Tcp)
        .to("<sip:bob@example.com>")
        .add("Via: SIP/2.0/UDP 10.0.1.2:5060;branch=z9hG4bKphone")
        .add("Contact: <sip:bob@10.0.1.2:5060>");
    assert_eq!(only(b.send_on(0, proxy, request)).status(), 200);
    let sent = b.send(ALICE, Request::invite());
    assert_eq!(the(&sent, BOB).flow.transport, Udp);
}

#[test]
fn a_path_leads_to_the_phone_whatever_became_of_the_connection() {
    let mut b = bench();
    let bob = b.open(Tcp, 0, 3, NAT);
    let request = Request::new("REGISTER", "sip:example.com")
        .via("192.168.0.5:5060", "z9hG4bKpath")
        .by(Tcp)
        .to("<sip:bob@example.com>")
        .add("Path: <sip:198.51.100.6:5066;lr>")
        .add("Contact: <sip:bob@192.168.0.5:5060;transport=tcp>");
    assert_eq!(only(b.send_on(0, bob, request)).status(), 200);
    b.lose(bob);
    let sent = b.send(ALICE, Request::invite());
    assert_eq!(the(&sent, "198.51.100.6:5066").all("Route"), ["<sip:198.51.100.6:5066;lr>"]);
}

#[test]
fn the_loss_of_a_phones_connection_fails_its_branch_alone() {
    let mut b = bench();
    let bob = b.open(Tcp, 0, 3, NAT);
    register(&mut b, bob, "192.168.0.5:5060", "<sip:bob@192.168.0.5:5060;transport=tcp>", 1);
    let desk = b.open(Tcp, 0, 4, OTHER_NAT);
    register(&mut b, desk, "192.168.0.9:5060", "<sip:bob@192.168.0.9:5060;transport=tcp>", 2);
    let request = Request::invite();
    let sent = b.send(ALICE, &request);
    let at_desk = the(&sent, OTHER_NAT).clone();
    assert!(b.lose(bob).is_empty());
    let sent = b.send_on(0, desk, at_desk.answer(486));
    assert_eq!(the(&sent, ALICE).status(), 486);
    b.send(ALICE, request.ack(the(&sent, ALICE)));
    b.assert_quiet();
}

// ---- dialogs ---------------------------------------------------------------------------------------------------------------

/// A call between two phones that nothing but the ways they have opened leads to.
pub struct Call {
    pub caller: Flow,
    pub callee: Flow,
    call_id: String,
    /// As the callee and as the caller got them.
    routes: Vec<String>,
    callers: Vec<String>,
}

fn recorded(text: &Sent) -> Vec<String> {
    let all = text.all("Record-Route");
    all.iter().map(|route| route.to_string()).collect()
}

fn way(b: &mut Bench, transport: Transport, slot: u32, peer: &str) -> Flow {
    match transport {
        Udp => Flow::datagram(0, address(peer)),
        stream => b.open(stream, 0, slot, peer),
    }
}

pub fn call(b: &mut Bench, by: Transport, to: Transport) -> Call {
    let callee = way(b, to, 3, NAT);
    register(b, callee, "192.168.0.5:5060;rport", "<sip:bob@192.168.0.5:5060>", 1);
    let caller = way(b, by, 4, OTHER_NAT);
    let invite =
        Request::invite().via("192.168.0.7:5060;rport", "z9hG4bKcall").by(by).set("Contact", "<sip:alice@192.168.0.7:5060>");
    let sent = b.send_on(0, caller, &invite);
    let at_bob = the(&sent, NAT).clone();
    assert_eq!(at_bob.flow, callee);
    let answer = at_bob.answer(200).add("Contact: <sip:bob@192.168.0.5:5060>");
    let ok = only(b.send_on(0, callee, answer));
    assert_eq!((ok.status(), ok.flow), (200, caller));
    Call { caller, callee, call_id: at_bob.header("Call-ID").unwrap().into(), routes: recorded(&at_bob), callers: recorded(&ok) }
}

impl Call {
    pub fn by_caller(&self, method: &str) -> Request {
        let mut request = Request::new(method, "sip:bob@192.168.0.5:5060")
            .via("192.168.0.7:5060;rport", &format!("z9hG4bKo{}", crate::message::unique()))
            .by(self.caller.transport)
            .call_id(&self.call_id)
            .to("<sip:bob@example.com>;tag=callee");
        for route in self.callers.iter().rev() {
            request = request.add(&format!("Route: {route}"));
        }
        request
    }

    pub fn by_callee(&self, method: &str) -> Request {
        let mut request = Request::new(method, "sip:alice@192.168.0.7:5060")
            .via("192.168.0.5:5060;rport", &format!("z9hG4bKt{}", crate::message::unique()))
            .by(self.callee.transport)
            .call_id(&self.call_id)
            .from("<sip:bob@example.com>;tag=callee")
            .to("<sip:alice@example.com>;tag=alice");
        for route in &self.routes {
            request = request.add(&format!("Route: {route}"));
        }
        request
    }
}

#[test]
fn both_ends_of_a_call_are_found_by_the_ways_they_opened() {
    for by in [Udp, Tcp, Tls] {
        for to in [Udp, Tcp, Tls] {
            let mut b = bench();
            let call = call(&mut b, by, to);
            for method in ["ACK", "INFO", "INVITE", "BYE"] {
                let sent = b.send_on(0, call.caller, call.by_caller(method));
                let at_bob = the(&sent, NAT).clone();
                assert_eq!(at_bob.flow, call.callee, "{method} {by:?} to {to:?}");
                assert_eq!(at_bob.all("Route").len(), 0);
                if method != "ACK" {
                    let sent = b.send_on(0, call.callee, at_bob.answer(200));
                    assert_eq!(the(&sent, OTHER_NAT).flow, call.caller);
                }
            }
            for method in ["INFO", "INVITE", "BYE"] {
                let sent = b.send_on(0, call.callee, call.by_callee(method));
                let at_alice = the(&sent, OTHER_NAT).clone();
                assert_eq!(at_alice.flow, call.caller, "{method} {to:?} to {by:?}");
                let sent = b.send_on(0, call.caller, at_alice.answer(200));
                assert_eq!(the(&sent, NAT).flow, call.callee);
            }
            b.assert_quiet();
        }
    }
}

#[test]
fn without_memory_too() {
    let mut b = with(|settings| settings.proxy.mode = Mode::Stateless);
    let bob = b.open(Tcp, 0, 3, NAT);
    register(&mut b, bob, "192.168.0.5:5060", "<sip:bob@192.168.0.5:5060>", 1);
    let alice = b.open(Tcp, 0, 4, OTHER_NAT);
    let invite = Request::invite().set("Contact", "<sip:alice@192.168.0.7:5060>");
    let at_bob = only(b.send_on(0, alice, invite.by(Tcp)));
    assert_eq!(at_bob.flow, bob);
    let answer = at_bob.answer(200).add("Contact: <sip:bob@192.168.0.5:5060>");
    let ok = only(b.send_on(0, bob, answer));
    let call = Call {
        caller: alice,
        callee: bob,
        call_id: at_bob.header("Call-ID").unwrap().into(),
        routes: recorded(&at_bob),
        callers: recorded(&ok),
    };
    assert_eq!(only(b.send_on(0, alice, call.by_caller("ACK"))).flow, bob);
    assert_eq!(only(b.send_on(0, bob, call.by_callee("BYE"))).flow, alice);
}

#[test]
fn a_dead_flow_of_a_dialog_gives_way_to_the_request_uri() {
    let mut b = bench();
    let call = call(&mut b, Tcp, Tcp);
    b.lose(call.callee);
    b.lose(call.caller);
    // What came after a restart, or a new connection in the old one's place, is as dead.
    b.live.enter(0, 3, 1);
    b.live.enter(0, 4, 1);
    let sent = b.send_on(0, call.caller, call.by_caller("ACK"));
    assert_eq!(only(sent).to, "192.168.0.5:5060");
    let sent = b.send_on(0, call.callee, call.by_callee("BYE"));
    assert_eq!(only(sent).to, "192.168.0.7:5060");
}

#[test]
fn the_flow_is_found_by_a_server_that_has_started_again() {
    // Datagrams outlive the server, and so does its secret.
    let mut b = bench();
    let call = call(&mut b, Udp, Udp);
    let mut b = bench();
    assert_eq!(only(b.send_on(0, call.caller, call.by_caller("ACK"))).flow, call.callee);
    assert_eq!(only(b.send_on(0, call.callee, call.by_callee("BYE"))).flow, call.caller);
}

#[test]
fn nobody_can_change_the_flow_in_a_route() {
    let mut b = bench();
    let call = call(&mut b, Udp, Udp);
    let route = call.callers[0].clone();
    let cookie = param(route.trim_end_matches('>'), "sc").unwrap().to_string();
    assert!(cookie.len() > COOKIE_LEN, "{cookie}");
    for at in 0..cookie.len() {
        let mut forged = cookie.clone().into_bytes();
        forged[at] = if forged[at] == b'1' { b'2' } else { b'1' };
        let forged = String::from_utf8(forged).unwrap();
        let request = call.by_caller("INFO").set("Route", &route.replace(&cookie, &forged));
        let answer = only(b.send_on(0, call.caller, request));
        // A stranger's request to a foreign place, or a cookie that is not for this.
        match answer.status() {
            // What says where he wants to be reached: he has registered there, so his flow leads there too.
            0 => assert_eq!(answer.flow, call.callee, "{forged}: {answer}"),
            status => assert!(matches!(status, 403 | 404), "{forged}: {answer}"),
        }
    }
    for cut in 0..cookie.len() {
        let request = call.by_caller("INFO").set("Route", &route.replace(&cookie, &cookie[..cut]));
        let answer = only(b.send_on(0, call.caller, request));
        assert!(matches!(answer.status(), 403 | 404), "{cut}: {answer}");
    }
    b.assert_quiet();
}

/// Digits of a cookie without a token.
const COOKIE_LEN: usize = 32;

#[test]
fn who_is_where_it_says_has_no_flow_in_its_route() {
    let mut b = bench();
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let cookie_len = |b: &mut Bench, request: Request, from: &str| {
        let sent = b.send(from, request);
        let at_bob = the(&sent, BOB);
        let route = at_bob.header("Record-Route").unwrap();
        param(route.trim_end_matches('>'), "sc").unwrap().len()
    };
    assert_eq!(cookie_len(&mut b, Request::invite(), ALICE), COOKIE_LEN);
    // A host with several public addresses; a phone that knows what its NAT makes of it; one that does not ask for `rport`.
    for (via, contact) in [
        ("198.51.100.99:5060;rport", "<sip:alice@198.51.100.99:5060>"),
        ("192.168.0.7:5060;rport", "<sip:alice@198.51.100.7:40123>"),
        ("192.168.0.7:5060", "<sip:alice@192.168.0.7:5060>"),
    ] {
        let request = Request::invite().via(via, &format!("z9hG4bKpub{}", crate::message::unique())).set("Contact", contact);
        assert_eq!(cookie_len(&mut b, request, NAT), COOKIE_LEN, "{via} {contact}");
    }
    let nat = Request::invite().via("192.168.0.7:5060;rport", "z9hG4bKnat").set("Contact", "<sip:alice@192.168.0.7:5060>");
    assert!(cookie_len(&mut b, nat.clone(), NAT) > COOKIE_LEN);
    // Behind a proxy the proxy's address is not the phone's.
    let proxied = nat.via("192.168.0.7:5060;rport", "z9hG4bKnat2").add("Via: SIP/2.0/UDP 192.168.0.9:5060;branch=z9hG4bKbelow");
    assert_eq!(cookie_len(&mut b, proxied, NAT), COOKIE_LEN);
}

#[test]
fn a_proxy_that_has_recorded_itself_is_asked_before_the_phone_behind_it() {
    let mut b = bench();
    let call = call(&mut b, Udp, Udp);
    // Not in this dialog, but a BYE goes by whatever way is left.
    let more = |method: &str| call.by_caller(method).add("Route: <sip:10.0.6.6:5066;lr>");
    let refused = only(b.send_on(0, call.caller, more("INFO")));
    assert_eq!(refused.status(), 403);
    let sent = only(b.send_on(0, call.caller, more("BYE")));
    assert_eq!((sent.to.as_str(), sent.all("Route").len()), ("10.0.6.6:5066", 1));
}

// ---- dialogs whose phones have registered since ----------------------------------------------------------------------------

const NEW_NAT: &str = "198.51.100.7:41777";
const OTHERS_NAT: &str = "198.51.100.9:42000";
const BOBS: &str = "<sip:bob@192.168.0.5:5060>";
const ALICES: &str = "<sip:alice@192.168.0.7:5060>";

impl Call {
    /// What the other side asks of the phone, by whichever way it takes. ACK is one to the 2xx to a re-INVITE.
    #[track_caller]
    fn is_found_by(&self, b: &mut Bench, side: &str, way: Flow) {
        for method in ["ACK", "INFO", "INVITE", "ACK", "BYE"] {
            let (from, request) = match side {
                "callee" => (self.caller, self.by_caller(method)),
                _ => (self.callee, self.by_callee(method)),
            };
            let uri = request.uri.clone();
            let sent = b.send_on(0, from, request);
            let arrived = sent.iter().find(|s| s.status() == 0);
            let arrived = arrived.unwrap_or_else(|| panic!("{method}: {}", show(&sent)));
            assert_eq!(arrived.flow, way, "{method} to the {side}");
            assert_eq!(arrived.uri(), uri);
            if method != "ACK" {
                let ok = b.send_on(way.core.into(), way, arrived.clone().answer(200));
                assert_eq!((only(ok.clone()).status(), only(ok).flow), (200, from));
            }
        }
    }
}

#[test]
fn a_phone_that_has_lost_its_connection_is_found_by_the_one_on_which_it_registered_since() {
    for stream in [Tcp, Tls] {
        for (sent_by, contact) in [
            ("192.168.0.5:5060", BOBS),
            ("192.168.0.5:41777", "<sip:bob@192.168.0.5:41777>"),
            // It has moved: this is the only way that is left.
            ("172.16.3.4:39999", "<sip:bob@172.16.3.4:39999;transport=tcp>"),
        ] {
            let mut b = bench();
            let call = call(&mut b, Udp, stream);
            b.lose(call.callee);
            let way = b.open(stream, 0, 9, NEW_NAT);
            register(&mut b, way, sent_by, contact, 2);
            call.is_found_by(&mut b, "callee", way);
            b.assert_quiet();
        }
    }
}

#[test]
fn so_is_the_phone_that_has_called() {
    for stream in [Tcp, Tls] {
        for contact in [ALICES, "<sip:alice@192.168.0.7:41777>"] {
            let mut b = bench();
            let call = call(&mut b, stream, Udp);
            register_as(&mut b, "alice", call.caller, "192.168.0.7:5060", ALICES, 5);
            b.lose(call.caller);
            let way = b.open(stream, 0, 9, NEW_NAT);
            register_as(&mut b, "alice", way, "192.168.0.7:41777", contact, 6);
            call.is_found_by(&mut b, "caller", way);
            b.assert_quiet();
        }
    }
}

#[test]
fn a_phone_is_found_by_the_hole_in_its_nat_by_which_it_registered_last() {
    for mode in [Mode::Stateful, Mode::Stateless] {
        let mut b = with(|settings| settings.proxy.mode = mode);
        let call = call(&mut b, Udp, Udp);
        let (bob, alice) = (Flow::datagram(0, address(NEW_NAT)), Flow::datagram(0, address(OTHERS_NAT)));
        register(&mut b, bob, "192.168.0.5:5060;rport", BOBS, 2);
        call.is_found_by(&mut b, "callee", bob);
        let sent_by = "192.168.0.7:5060;rport";
        register_as(&mut b, "alice", alice, sent_by, ALICES, 5);
        call.is_found_by(&mut b, "caller", alice);
        b.assert_quiet();
    }
}

#[test]
fn a_phone_that_took_another_transport_is_found_by_that() {
    let mut b = bench();
    let call = call(&mut b, Udp, Tcp);
    b.lose(call.callee);
    let way = Flow::datagram(0, address(NEW_NAT));
    register(&mut b, way, "192.168.0.5:5060;rport", BOBS, 2);
    call.is_found_by(&mut b, "callee", way);
}

#[test]
fn a_connection_that_nobody_knows_to_be_dead_gives_way_to_a_new_one() {
    let mut b = with(|settings| settings.cores = 2);
    let call = call(&mut b, Udp, Tcp);
    let way = b.open(Tcp, 1, 9, NEW_NAT);
    register(&mut b, way, "192.168.0.5:5060", BOBS, 2);
    call.is_found_by(&mut b, "callee", way);
    // But not to that of another contact: the phone of the call may be another.
    let other = b.open(Tcp, 0, 10, OTHERS_NAT);
    register(&mut b, other, "192.168.0.6:5060", "<sip:bob@192.168.0.6:5060>", 3);
    call.is_found_by(&mut b, "callee", way);
}

#[test]
fn a_phone_with_two_ways_is_reached_by_the_one_of_the_dialog() {
    let mut b = bench();
    let call = call(&mut b, Udp, Tcp);
    let flow = |reg_id| format!("{BOBS};+sip.instance=\"<urn:x:1>\";reg-id={reg_id}");
    register(&mut b, call.callee, "192.168.0.5:5060", &flow(1), 2);
    let way = b.open(Tcp, 0, 9, NEW_NAT);
    register(&mut b, way, "192.168.0.5:5060", &flow(2), 3);
    call.is_found_by(&mut b, "callee", call.callee);
    b.lose(call.callee);
    call.is_found_by(&mut b, "callee", way);
}

#[test]
fn nobody_elses_binding_takes_a_dialog_over() {
    for (by, to) in [(Udp, Udp), (Tcp, Tcp), (Tls, Tls)] {
        let mut b = bench();
        let call = call(&mut b, by, to);
        let mallory = b.open(Tcp, 0, 9, OTHERS_NAT);
        for (n, user) in (10..).zip(["mallory", "bo", "alic"]) {
            register_as(&mut b, user, mallory, "192.168.0.5:5060", BOBS, n);
            register_as(&mut b, user, mallory, "192.168.0.7:5060", ALICES, n + 10);
        }
        // Nor one of the other side's.
        register_as(&mut b, "alice", mallory, "192.168.0.5:5060", BOBS, 30);
        register(&mut b, mallory, "192.168.0.7:5060", ALICES, 31);
        call.is_found_by(&mut b, "callee", call.callee);
        call.is_found_by(&mut b, "caller", call.caller);
        if to == Udp {
            continue;
        }
        b.location.remove(strowger::base::Instant::from_ms(0), b"bob@example.com", Some(b"sip:alice@192.168.0.7:5060"));
        b.lose(call.callee);
        let sent = b.send_on(0, call.caller, call.by_caller("ACK"));
        assert_eq!(only(sent).to, "192.168.0.5:5060", "{by:?} {to:?}");
    }
}

#[test]
fn of_several_other_phones_none_is_taken_for_the_one_of_the_call() {
    let mut b = bench();
    let call = call(&mut b, Udp, Tcp);
    b.lose(call.callee);
    for (slot, host) in [(8, "192.168.0.8"), (9, "192.168.0.9")] {
        let peer = format!("198.51.100.{slot}:41000");
        let desk = b.open(Tcp, 0, slot, &peer);
        let contact = format!("<sip:bob@{host}:5060>");
        register(&mut b, desk, &format!("{host}:5060"), &contact, slot);
    }
    let sent = b.send_on(0, call.caller, call.by_caller("ACK"));
    assert_eq!(only(sent).to, "192.168.0.5:5060");
    // Its own is known among them.
    let way = b.open(Tcp, 0, 10, NEW_NAT);
    let contact = "<sip:bob@192.168.0.5:41777>";
    register(&mut b, way, "192.168.0.5:41777", contact, 2);
    call.is_found_by(&mut b, "callee", way);
}

#[test]
fn a_phone_that_can_be_called_is_not_looked_for_elsewhere() {
    let mut b = bench();
    let bob = b.open(Tcp, 0, 3, "10.0.1.2:40000");
    register(&mut b, bob, "10.0.1.2:5060", "<sip:bob@10.0.1.2:5060>", 1);
    let at_bob = the(&b.send(ALICE, Request::invite()), "10.0.1.2:40000").clone();
    let answer = at_bob.answer(200).add("Contact: <sip:bob@10.0.1.2:5060>");
    let ok = only(b.send_on(0, bob, answer));
    let ack = |b: &mut Bench| {
        let ack = Request::new("ACK", "sip:bob@10.0.1.2:5060")
            .call_id(at_bob.header("Call-ID").unwrap())
            .to("<sip:bob@example.com>;tag=callee")
            .add(&format!("Route: {}", recorded(&ok)[0]));
        b.send_for_one(ALICE, ack)
    };
    assert_eq!(ack(&mut b).flow, bob);
    b.lose(bob);
    let desk = b.open(Tcp, 0, 9, OTHERS_NAT);
    register(&mut b, desk, "10.0.1.9:5060", "<sip:bob@10.0.1.9:5060>", 2);
    assert_eq!(ack(&mut b).to, "10.0.1.2:5060");
    let bob = b.open(Tcp, 0, 4, "10.0.1.2:40001");
    register(&mut b, bob, "10.0.1.2:5060", "<sip:bob@10.0.1.2:5060>", 3);
    assert_eq!(ack(&mut b).flow, bob);
}

#[test]
fn a_contact_that_was_registered_within_the_dialog_leads_to_its_own_way() {
    for to in [Udp, Tcp] {
        let mut b = bench();
        let call = call(&mut b, Udp, to);
        let way = b.open(Tcp, 0, 9, NEW_NAT);
        let contact = "<sip:bob@172.16.3.4:39999>";
        register(&mut b, way, "172.16.3.4:39999", contact, 2);
        let mut request = call.by_caller("INFO");
        request.uri = "sip:bob@172.16.3.4:39999".into();
        let sent = b.send_on(0, call.caller, request);
        assert_eq!(only(sent).flow, way);
    }
}

#[test]
fn where_names_may_change_no_name_leads_to_another_way() {
    let mut b = bench();
    let bob = b.open(Tcp, 0, 3, NAT);
    register(&mut b, bob, "192.168.0.5:5060", BOBS, 1);
    let alice = b.open(Tcp, 0, 4, OTHER_NAT);
    let invite =
        Request::invite().via("192.168.0.7:5060", "z9hG4bKchange").by(Tcp).set("Contact", ALICES).add("Supported: from-change");
    let sent = b.send_on(0, alice, &invite);
    let at_bob = the(&sent, NAT).clone();
    let answer = at_bob.answer(200).add(&format!("Contact: {BOBS}"));
    let ok = only(b.send_on(0, bob, answer));
    b.lose(bob);
    let carol = b.open(Tcp, 0, 9, OTHERS_NAT);
    let contact = "<sip:carol@192.168.0.9:5060>";
    register_as(&mut b, "carol", carol, "192.168.0.9:5060", contact, 2);
    let mut request = Request::new("INFO", "sip:bob@192.168.0.5:5060")
        .by(Tcp)
        .call_id(at_bob.header("Call-ID").unwrap())
        .to("<sip:carol@example.com>;tag=callee");
    for route in recorded(&ok).iter().rev() {
        request = request.add(&format!("Route: {route}"));
    }
    let sent = b.send_on(0, alice, request);
    assert!(sent.iter().all(|s| s.flow != carol), "{}", show(&sent));
}

#[test]
fn what_is_secure_takes_no_way_that_is_not() {
    let mut b = bench();
    let call = call(&mut b, Tls, Tls);
    b.lose(call.callee);
    let info = |b: &mut Bench| {
        let mut request = call.by_caller("INFO");
        request.uri = "sips:bob@192.168.0.5:5060".into();
        let sent = b.send_on(0, call.caller, request);
        sent.into_iter().find(|s| s.status() == 0).expect("a copy")
    };
    let plain = b.open(Tcp, 0, 8, NEW_NAT);
    register(&mut b, plain, "192.168.0.5:5060", BOBS, 2);
    call.is_found_by(&mut b, "callee", plain);
    let sent = info(&mut b);
    assert_eq!((sent.flow.transport, sent.to.as_str()), (Tls, "192.168.0.5:5060"));
    let secure = b.open(Tls, 0, 9, NEW_NAT);
    register(&mut b, secure, "192.168.0.5:5060", BOBS, 3);
    assert_eq!(info(&mut b).flow, secure);
}
