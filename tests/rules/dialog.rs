//! Requests within a dialog: Record-Route and Route, loose and strict (RFC 3261 §16.4, §16.6 step 6, §16.12), two listeners
//! (RFC 5658), and who may not use a route.

use strowger::base::{Flow, Instant, Question};
use strowger::stack::Element;
use strowger::stack::counters::Drop;

use crate::bench::*;
use crate::message::{Request, param};

const INNER: &str = "192.168.7.1:5070";

fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.register("bob", "<sip:bob@10.0.1.2:5060>");
    bench
}

/// A dialog as its two ends see it.
struct Dialog {
    call_id: String,
    /// Record-Route as the caller got it: its route set in reverse order.
    routes: Vec<String>,
    /// Record-Route as the callee got it: its route set in order.
    callees: Vec<String>,
}

fn recorded(text: &Sent) -> Vec<String> {
    let all = text.all("Record-Route");
    all.iter().map(|route| route.to_string()).collect()
}

fn dialog(b: &mut Bench) -> Dialog {
    let sent = b.send(ALICE, Request::invite());
    let at_bob = the(&sent, BOB).clone();
    let answer = at_bob.answer(200).add("Contact: <sip:bob@10.0.1.2:5060>");
    let ok = b.send_for_one(BOB, answer);
    // Each side has a cookie of its own.
    let bare = |route: &str| route.split(";sc=").next().unwrap().to_string();
    let (caller, callee) = (recorded(&ok), recorded(&at_bob));
    assert_ne!(caller, callee);
    assert!(caller.iter().map(|r| bare(r)).eq(callee.iter().map(|r| bare(r))));
    Dialog { call_id: at_bob.header("Call-ID").unwrap().into(), routes: caller, callees: callee }
}

impl Dialog {
    #[allow(clippy::wrong_self_convention)]
    fn from_alice(&self, method: &str) -> Request {
        let mut request =
            Request::new(method, "sip:bob@10.0.1.2:5060").to("<sip:bob@example.com>;tag=callee").call_id(&self.call_id).cseq(2);
        for route in self.routes.iter() {
            request = request.top(&format!("Route: {route}"));
        }
        request
    }

    #[allow(clippy::wrong_self_convention)]
    fn from_bob(&self, method: &str) -> Request {
        let mut request = Request::new(method, "sip:alice@10.0.1.1:5060")
            .via("10.0.1.2:5060", &format!("z9hG4bKbob{}", crate::message::unique()))
            .from("<sip:bob@example.com>;tag=callee")
            .to("\"Alice\" <sip:alice@example.com>;tag=alice")
            .call_id(&self.call_id)
            .cseq(2);
        for route in self.callees.iter().rev() {
            request = request.top(&format!("Route: {route}"));
        }
        request
    }
}

#[test]
fn the_ack_to_a_2xx_follows_its_route_and_loses_it() {
    let mut b = bench();
    let d = dialog(&mut b);
    let ack = b.send_for_one(ALICE, d.from_alice("ACK"));
    assert_eq!((ack.to.as_str(), ack.method()), (BOB, "ACK"));
    assert_eq!(ack.uri(), "sip:bob@10.0.1.2:5060");
    assert_eq!(ack.all("Route").len(), 0);
    assert_eq!(ack.header("Max-Forwards"), Some("69"));
    assert_eq!(ack.all("Via").len(), 2);
    b.assert_quiet();
}

#[test]
fn requests_of_both_sides_follow_their_route() {
    let mut b = bench();
    let d = dialog(&mut b);
    for method in ["BYE", "INFO", "UPDATE", "PRACK", "REFER", "NOTIFY", "MESSAGE"] {
        let at_bob = only(b.send(ALICE, d.from_alice(method)));
        assert_eq!((at_bob.to.as_str(), at_bob.all("Route").len()), (BOB, 0), "{method}");
        assert_eq!(b.send_for_one(BOB, at_bob.answer(200)).to, ALICE);
        let at_alice = only(b.send(BOB, d.from_bob(method)));
        assert_eq!((at_alice.to.as_str(), at_alice.all("Route").len()), (ALICE, 0), "{method}");
        assert_eq!(b.send_for_one(ALICE, at_alice.answer(200)).to, BOB);
    }
    b.assert_quiet();
}

#[test]
fn a_re_invite_of_the_callee_goes_through_and_is_recorded_so_that_its_route_works() {
    let mut b = bench();
    let d = dialog(&mut b);
    let sent = b.send(BOB, d.from_bob("INVITE"));
    assert_eq!(the(&sent, BOB).status(), 100);
    let at_alice = the(&sent, ALICE).clone();
    let ok = b.send_for_one(ALICE, at_alice.answer(200));
    assert_eq!(ok.to, BOB);
    // Bob has called this time.
    let again = Dialog { call_id: d.call_id.clone(), routes: recorded(&at_alice), callees: recorded(&ok) };
    assert_eq!(b.send_for_one(BOB, again.from_bob("ACK")).to, ALICE);
    assert_eq!(only(b.send(ALICE, again.from_alice("BYE"))).to, BOB);
    b.assert_quiet();
}

#[test]
fn a_route_of_several_hops_goes_on_to_the_next() {
    let mut b = bench();
    let d = dialog(&mut b);
    let request = d.from_alice("BYE").set("Route", &format!("{}, <sip:10.0.6.6:5066;lr>, <sip:10.0.6.7;lr>", d.routes[0]));
    let sent = only(b.send(ALICE, request));
    assert_eq!(sent.to, "10.0.6.6:5066");
    assert_eq!(sent.all("Route"), ["<sip:10.0.6.6:5066;lr>, <sip:10.0.6.7;lr>"]);
    assert_eq!(sent.uri(), "sip:bob@10.0.1.2:5060");
}

#[test]
fn a_strict_router_before_us_is_understood() {
    // §16.4: it put our URI into the Request-URI, and the real one last.
    let mut b = bench();
    let d = dialog(&mut b);
    let ours = d.routes[0].trim_matches(['<', '>']);
    let mut request = d.from_alice("BYE").set("Route", "<sip:bob@10.0.1.2:5060>");
    request.uri = ours.to_string();
    let sent = only(b.send(ALICE, request));
    assert_eq!((sent.to.as_str(), sent.uri()), (BOB, "sip:bob@10.0.1.2:5060"));
    assert_eq!(sent.all("Route").len(), 0);
    // With a further hop between.
    let mut request =
        d.from_alice("BYE").via("10.0.1.1:5060", "z9hG4bKstrict2").set("Route", "<sip:10.0.6.6;lr>,<sip:bob@10.0.1.2:5060>");
    request.uri = ours.to_string();
    let sent = only(b.send(ALICE, request));
    assert_eq!((sent.to.as_str(), sent.uri()), ("10.0.6.6:5060", "sip:bob@10.0.1.2:5060"));
    assert_eq!(sent.all("Route"), ["<sip:10.0.6.6;lr>"]);
}

#[test]
fn a_strict_router_behind_us_gets_what_it_expects() {
    // §16.6 step 6: its URI into the Request-URI, the real one as the last Route.
    let mut b = bench();
    let d = dialog(&mut b);
    let request = d.from_alice("BYE").set("Route", &format!("{},<sip:10.0.6.6:5066;x=y>,<sip:10.0.6.7;lr>", d.routes[0]));
    let sent = only(b.send(ALICE, request));
    assert_eq!(sent.to, "10.0.6.6:5066");
    assert_eq!(sent.uri(), "sip:10.0.6.6:5066;x=y");
    assert_eq!(sent.all("Route"), ["<sip:10.0.6.7;lr>", "<sip:bob@10.0.1.2:5060>"]);
    // Where it is the only one.
    let request =
        d.from_alice("BYE").via("10.0.1.1:5060", "z9hG4bKstrict4").set("Route", &format!("{}, <sip:10.0.6.6>", d.routes[0]));
    let sent = only(b.send(ALICE, request));
    assert_eq!(sent.uri(), "sip:10.0.6.6");
    assert_eq!(sent.all("Route"), ["<sip:bob@10.0.1.2:5060>"]);
}

#[test]
fn a_stranger_with_a_preloaded_route_is_refused() {
    let mut b = bench();
    for route in [
        "<sip:10.9.9.9;lr>",
        "<sip:10.0.0.1:5060;lr>, <sip:10.9.9.9;lr>",
        "<sip:example.com;lr>,<sip:10.9.9.9>",
        "<sip:10.0.0.1;lr;sc=0123456789abcdef>, <sip:10.9.9.9;lr>",
    ] {
        let request = Request::invite().top(&format!("Route: {route}"));
        let answer = b.send_for_one(ALICE, request);
        assert_eq!(answer.status(), 403, "{route}");
    }
    // By our own route to where we do not relay: the same as without it.
    let mut request = Request::invite().top("Route: <sip:10.0.0.1:5060;lr>");
    request.uri = "sip:victim@10.9.9.9".into();
    assert_eq!(b.send_for_one(ALICE, request).status(), 404);
}

#[test]
fn a_route_that_names_only_us_is_no_obstacle() {
    // An outbound proxy that is also the domain's: what most phones send.
    let mut b = bench();
    let request = Request::invite().top("Route: <sip:10.0.0.1:5060;lr>");
    let sent = b.send(ALICE, request);
    assert_eq!(the(&sent, BOB).all("Route").len(), 0);
    let request = Request::invite().top("Route: <sip:example.com;lr>,<sip:10.0.0.1;lr>");
    let sent = b.send(ALICE, request);
    assert_eq!(the(&sent, BOB).all("Route").len(), 0);
}

#[test]
fn a_cookie_is_good_for_its_own_dialog_only() {
    let mut b = bench();
    let d = dialog(&mut b);
    let mut stolen = d.from_alice("MESSAGE").call_id("another-call");
    stolen.uri = "sip:victim@10.9.9.9".into();
    assert_eq!(b.send_for_one(ALICE, stolen).status(), 404);
    // Neither tag of the dialog.
    let mut stolen = d.from_alice("MESSAGE").from("<sip:x@y>;tag=mallory");
    stolen.uri = "sip:victim@10.9.9.9".into();
    assert_eq!(b.send_for_one(ALICE, stolen).status(), 404);
    // Without a To tag it is no request of a dialog (§12.2.1.1): who has made one call could call whom he likes.
    let mut fraud = d.from_alice("INVITE").to("<sip:victim@10.9.9.9>");
    fraud.uri = "sip:victim@10.9.9.9".into();
    assert_eq!(b.send_for_one(ALICE, fraud).status(), 404);
    // One digit changed.
    let cookie = param(d.routes[0].trim_matches(['<', '>']), "sc").unwrap().to_string();
    let (head, rest) = cookie.split_at(15);
    let digit = if rest.starts_with('0') { "1" } else { "0" };
    let forged = d.routes[0].replace(&cookie, &format!("{head}{digit}{}", &rest[1..]));
    let mut request = d.from_alice("MESSAGE").set("Route", &forged);
    request.uri = "sip:victim@10.9.9.9".into();
    assert_eq!(b.send_for_one(ALICE, request).status(), 403);
    // An ACK by a forged route is dropped without an answer.
    let mut ack = d.from_alice("ACK").set("Route", &forged);
    ack.uri = "sip:victim@10.9.9.9".into();
    assert!(b.send(ALICE, ack).is_empty());
    assert_eq!(b.dropped(Drop::StrayAck), 1);
}

#[test]
fn the_ack_to_a_2xx_needs_a_cookie_where_routes_are_recorded() {
    // Else one datagram would be as many as its user has contacts, and those of the contacts.
    let mut b = bench();
    let ack = || Request::new("ACK", "sip:bob@example.com").to("<sip:bob@example.com>;tag=callee");
    assert!(b.send(ALICE, ack()).is_empty());
    assert_eq!(b.dropped(Drop::StrayAck), 1);
    let mut b = Bench::with(|settings| settings.proxy.record_route = false);
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let sent = b.send_for_one(ALICE, ack());
    assert_eq!((sent.to.as_str(), sent.uri()), (BOB, "sip:bob@10.0.1.2:5060"));
}

#[test]
fn an_ack_with_max_forwards_of_zero_goes_no_further() {
    let mut b = bench();
    let d = dialog(&mut b);
    assert!(b.send(ALICE, d.from_alice("ACK").set("Max-Forwards", "0")).is_empty());
    assert_eq!(b.dropped(Drop::StrayAck), 1);
}

#[test]
fn an_ack_with_the_invites_branch_to_a_2xx_goes_through() {
    // Some phones use the INVITE's branch for the ACK to a 2xx too; RFC 6026's Accepted state hands it on.
    let mut b = bench();
    let request = Request::invite();
    let sent = b.send(ALICE, &request);
    let at_bob = the(&sent, BOB).clone();
    let ok = b.send_for_one(BOB, at_bob.answer(200));
    let mut ack = request.ack(&ok).top(&format!("Route: {}", ok.header("Record-Route").unwrap()));
    ack.uri = "sip:bob@10.0.1.2:5060".into();
    assert_eq!(b.send_for_one(ALICE, ack).to, BOB);
    b.assert_quiet();
}

// ---- two listeners (RFC 5658) ------------------------------------------------------------------------------------------

fn two_sides() -> Bench {
    let mut b = Bench::with(|settings| {
        settings.listeners = vec![listener("127.0.0.1:5060"), listener(INNER)];
    });
    b.location.add(Default::default(), b"bob@example.com", b"sip:bob@192.168.7.9:5060", 3600).unwrap();
    let _ = &mut b;
    b
}

#[test]
fn between_two_listeners_both_are_recorded_and_both_sides_find_through() {
    let mut b = two_sides();
    let (caller, callee) = ("127.0.0.9:5060", "192.168.7.9:5060");
    let invite = Request::invite().via("127.0.0.9:5060", "z9hG4bKtwo").set("Contact", "<sip:alice@127.0.0.9:5060>");
    let sent = b.send_by(0, 0, caller, &invite);
    let at_bob = the(&sent, callee).clone();
    assert_eq!(at_bob.listener, 1);
    let records = at_bob.all("Record-Route");
    assert_eq!(records.len(), 2);
    assert!(records[0].starts_with(&format!("<sip:{INNER};lr")), "the callee's side on top");
    assert!(records[1].starts_with("<sip:127.0.0.1:5060;lr"));
    assert!(at_bob.header("Via").unwrap().starts_with(&format!("SIP/2.0/UDP {INNER};")));
    let sent = b.send_by(0, 1, callee, at_bob.answer(200));
    let ok = the(&sent, caller);
    assert_eq!(ok.listener, 0);
    let d = Dialog { call_id: at_bob.header("Call-ID").unwrap().into(), routes: recorded(ok), callees: recorded(&at_bob) };
    let mut bye = d.from_alice("BYE").via("127.0.0.9:5060", "z9hG4bKbye1");
    bye.uri = "sip:bob@192.168.7.9:5060".into();
    let at_callee = only(b.send_by(0, 0, caller, bye));
    assert_eq!((at_callee.to.as_str(), at_callee.listener), (callee, 1));
    assert_eq!(at_callee.all("Route").len(), 0, "both were ours");
    let mut bye = d.from_bob("BYE").via("192.168.7.9:5060", "z9hG4bKbye2");
    bye.uri = "sip:alice@127.0.0.9:5060".into();
    let at_caller = only(b.send_by(0, 1, callee, bye));
    assert_eq!((at_caller.to.as_str(), at_caller.listener), (caller, 0));
    assert_eq!(at_caller.all("Route").len(), 0);
    b.assert_quiet();
}

#[test]
fn between_ipv4_and_ipv6_each_side_sees_its_own_family() {
    let six = "[2001:db8::1]:5060";
    let phone = "[2001:db8::9]:5062";
    let mut b = Bench::with(|settings| settings.listeners.push(listener(six)));
    b.location.add(Default::default(), b"bob@example.com", format!("sip:bob@{phone}").as_bytes(), 3600).unwrap();
    let sent = b.send(ALICE, Request::invite());
    let at_bob = the(&sent, phone).clone();
    assert!(at_bob.header("Via").unwrap().starts_with(&format!("SIP/2.0/UDP {six};")));
    let records = at_bob.all("Record-Route");
    assert!(records[0].starts_with(&format!("<sip:{six};lr")));
    assert!(records[1].starts_with("<sip:10.0.0.1:5060;lr"));
    let sent = b.send_by(0, 1, phone, at_bob.answer(200));
    assert_eq!(the(&sent, ALICE).listener, 0);
    b.assert_quiet();
}

#[test]
fn a_phone_is_called_by_the_listener_at_which_it_registered() {
    // Two sockets of the same family: the way in is the way out, and both are recorded (RFC 5658).
    let mut b = Bench::with(|settings| settings.listeners.push(listener(INNER)));
    let phone = "192.168.7.9:5060";
    let register = Request::new("REGISTER", "sip:example.com")
        .via(phone, "z9hG4bKreg")
        .to("<sip:bob@example.com>")
        .add(&format!("Contact: <sip:bob@{phone}>"));
    assert_eq!(only(b.send_by(0, 1, phone, register)).status(), 200);
    let sent = b.send(ALICE, Request::invite());
    let at_bob = the(&sent, phone).clone();
    assert_eq!(at_bob.listener, 1);
    assert_eq!(at_bob.all("Record-Route").len(), 2);
    // And a request within the dialog leaves by the listener that its Route names.
    let d = Dialog { call_id: at_bob.header("Call-ID").unwrap().into(), routes: recorded(&at_bob), callees: recorded(&at_bob) };
    let mut bye = d.from_alice("BYE");
    bye.uri = format!("sip:bob@{phone}");
    let at_bob = only(b.send(ALICE, bye));
    assert_eq!((at_bob.to.as_str(), at_bob.listener), (phone, 1));
    let mut bye = d.from_bob("BYE").via(phone, "z9hG4bKbobsbye");
    bye.uri = "sip:alice@10.0.1.1:5060".into();
    let at_alice = only(b.send_by(0, 1, phone, bye));
    assert_eq!((at_alice.to.as_str(), at_alice.listener), (ALICE, 0));
}

#[test]
fn the_ack_to_a_re_invite_that_a_full_server_refused_stays_here() {
    let mut b = Bench::with(|settings| settings.per_core.transactions = 1);
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let d = dialog(&mut b);
    // The first INVITE's transaction is remembered still: nothing else fits.
    let request = d.from_alice("INVITE").cseq(2);
    let answer = b.send_for_one(ALICE, &request);
    assert_eq!((answer.status(), answer.all("To").len()), (503, 1));
    assert!(answer.header("To").unwrap().ends_with(";tag=callee"));
    assert!(b.send(ALICE, request.ack(&answer)).is_empty());
    // Alice's ACK to the 2xx is another one.
    let ack = d.from_alice("ACK").cseq(1);
    assert_eq!(b.send_for_one(ALICE, ack).to, BOB);
}

#[test]
fn an_ack_that_comes_after_timer_h_does_not_leave_this_hop() {
    let mut b = bench();
    let request = Request::invite();
    let sent = b.send(ALICE, &request);
    let at_bob = the(&sent, BOB).clone();
    let sent = b.send(BOB, at_bob.answer(486));
    let busy = the(&sent, ALICE).clone();
    b.tick(40_000);
    assert_eq!(b.server_transactions(), 0);
    assert!(b.send(ALICE, request.ack(&busy)).is_empty());
    assert_eq!(b.dropped(Drop::Absorbed), 1);
}

/// By it a request is read whose source's share is used up.
#[test]
fn a_cookie_speaks_for_requests_of_its_dialog() {
    let mut b = bench();
    let d = dialog(&mut b);
    let bears = |b: &mut Bench, request: &Request| {
        let flow = Flow::datagram(0, ALICE.parse().unwrap());
        let now = Instant::from_ms(b.now);
        b.cores[0].bears(now, flow, &request.bytes(), Question::BearsCookie)
    };
    for method in ["BYE", "ACK", "INVITE"] {
        assert!(bears(&mut b, &d.from_alice(method)), "{method}");
        assert!(bears(&mut b, &d.from_bob(method)), "{method}");
        assert!(!bears(&mut b, &d.from_alice(method).call_id("other")));
        assert!(!bears(&mut b, &d.from_alice(method).to("<sip:bob@example.com>")));
    }
    assert!(!bears(&mut b, &Request::invite()));
    assert!(!bears(&mut b, &Request::invite().top("Route: <sip:10.0.0.9;lr;sc=0>")));
}
