//! What our tokens prove: a Via of ours that a request has passed, the cookie of our Record-Route who may send what where in a dialog, the To
//! tag of our answers whose ACK comes; and what is done with those that show none.

use std::sync::Arc;
use strowger::base::Key;
use strowger::stack::Element;
use strowger::stack::Settings;
use strowger::stack::auth::nonce::Nonces;
use strowger::stack::counters::Drop;
use strowger::stack::route::{Action, Route};
use strowger::stack::settings::{InDialog, Mode};

use crate::auth::{self, ALICES};
use crate::bench::*;
use crate::failover;
use crate::message::{Request, unique};
use crate::proxy::route;

const GATE: &str = "10.0.5.1:5080";

// ---- a Via of ours -----------------------------------------------------------------------------------------------------

/// alice and bob have passwords, and bob and carol phones.
pub fn guarded(change: impl FnOnce(&mut Settings)) -> Bench {
    let mut b = auth::bench(|settings| {
        settings.auth.challenge_proxy = true;
        change(settings);
    });
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    b.register("carol", "<sip:carol@10.0.1.3:5060>");
    b
}

/// alice's call as it comes to bob.
pub fn at_bob(b: &mut Bench) -> Sent {
    let asked = auth::call(b);
    let request = auth::invite_with(&ALICES, &asked).set("Contact", "<sip:alice@10.0.1.1:5060>").body("v=0");
    the(&b.send(ALICE, request), BOB).clone()
}

/// Sent on by bob as a proxy does it, to `uri`, after some changes.
pub fn sent_on(at_bob: &Sent, uri: &str, change: impl FnOnce(String) -> String) -> String {
    let text = at_bob.to_string();
    let (_, rest) = text.split_once(' ').unwrap();
    let (_, rest) = rest.split_once(' ').unwrap();
    let own = format!("Via: SIP/2.0/UDP {BOB};branch=z9hG4bKbobs{}\r\n", unique());
    change(format!("INVITE {uri} {}", rest.replacen("Via:", &format!("{own}Via:"), 1)))
}

const CAROLS: &str = "sip:carol@example.com";

#[test]
fn a_request_that_comes_by_again_is_not_asked_again() {
    let mut b = guarded(|_| ());
    let call = at_bob(&mut b);
    let sent = b.send(BOB, sent_on(&call, CAROLS, |text| text).as_str());
    assert_eq!(the(&sent, CAROL).method(), "INVITE");
    // The display name and the spelling of names are no part of it.
    let spelled = sent_on(&call, CAROLS, |text| text.replace("sip:alice@example.com", "sip:%61lice@EXAMPLE.com.:5070"));
    let sent = b.send(BOB, spelled.as_str());
    assert_eq!(the(&sent, CAROL).method(), "INVITE");
    // After it has rung for minutes, too.
    b.tick(200_000);
    let sent = b.send(BOB, sent_on(&call, CAROLS, |text| text).as_str());
    assert_eq!(the(&sent, CAROL).method(), "INVITE");
}

#[test]
fn a_via_of_another_request_exempts_from_nothing() {
    let open = |settings: &mut Settings| settings.auth.challenge_proxy = true;
    let by_route = |settings: &mut Settings| {
        settings.routes = vec![Route { challenge: Some(true), ..route(Action::Location) }].into();
    };
    for mut b in [guarded(open), guarded(by_route)] {
        let call = at_bob(&mut b);
        let call_id = call.header("Call-ID").unwrap().to_string();
        let cseq = call.header("CSeq").unwrap().to_string();
        let changes: [(&str, &str, &str); 8] = [
            ("Call-ID", &call_id, "another"),
            ("From", "sip:alice@example.com", "sip:bob@example.com"),
            ("From tag", ";tag=a", ";tag=another"),
            ("To", "To: <sip:bob@example.com>", "To: <sip:carol@example.com>"),
            ("CSeq", &cseq, "99 INVITE"),
            ("Contact", "Contact: <sip:alice@10.0.1.1:5060>", "Contact: <sip:alice@10.0.9.9>"),
            ("body", "\r\n\r\nv=0", "\r\n\r\nv=1"),
            ("branch", "", ""),
        ];
        for (what, from, to) in changes {
            let changed = sent_on(&call, CAROLS, |text| match what {
                // Of our own branch, one digit.
                "branch" => {
                    let ours = call.branch();
                    let other = if ours.ends_with('0') { "1" } else { "0" };
                    text.replace(ours, &format!("{}{other}", &ours[..ours.len() - 1]))
                }
                "To" => text.replace(from, to),
                _ => {
                    assert!(text.contains(from), "{what}: {text}");
                    text.replace(from, to)
                }
            });
            for peer in [BOB, "10.0.9.9:1024"] {
                let answer = b.send_for_one(peer, changed.as_str());
                assert_eq!(answer.status(), 407, "{what} from {peer}: {answer}");
            }
        }
        // And in the end the Via is too old.
        b.tick(600_000);
        let late = sent_on(&call, CAROLS, |text| text);
        assert_eq!(b.send_for_one(BOB, late.as_str()).status(), 407);
    }
}

#[test]
fn who_was_called_by_one_user_calls_in_no_name_of_another() {
    // A stranger was called by bob: our Via is in that request. It stands below its own in one of its own.
    let mut b = guarded(|_| ());
    let call = at_bob(&mut b);
    for method in ["INVITE", "MESSAGE", "SUBSCRIBE", "OPTIONS", "BYE", "INFO"] {
        for to in ["<sip:bob@example.com>", "<sip:bob@example.com>;tag=x"] {
            let request = Request::new(method, CAROLS)
                .from("<sip:alice@example.com>;tag=a")
                .to(to)
                .add(&format!("Via: {}", call.header("Via").unwrap()));
            let answer = b.send_for_one("10.0.9.9:1024", request);
            assert_eq!(answer.status(), 407, "{method} {to}: {answer}");
        }
    }
}

#[test]
fn what_passed_unasked_is_asked_where_somebody_asks() {
    let mut b = guarded(|settings| {
        settings.auth.challenge_proxy = false;
        settings.routes = vec![Route {
            to_user_prefix: Some(b"carol".to_vec()),
            user_agent: Vec::new(),
            challenge: Some(true),
            ..route(Action::Location)
        }]
        .into();
    });
    let sent = b.send(ALICE, Request::invite());
    let call = the(&sent, BOB).clone();
    let again = sent_on(&call, CAROLS, |text| text);
    assert_eq!(b.send_for_one(BOB, again.as_str()).status(), 407);
}

#[test]
fn while_draining_a_via_of_another_request_lets_nothing_begin() {
    let mut b = Bench::new();
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    b.register("carol", "<sip:carol@10.0.1.3:5060>");
    let sent = b.send(ALICE, Request::invite());
    let call = the(&sent, BOB).clone();
    b.cores[0].handle_drain();
    let other =
        Request::new("INVITE", CAROLS).from("<sip:x@example.org>;tag=x").add(&format!("Via: {}", call.header("Via").unwrap()));
    assert_eq!(b.send_for_one(BOB, other).status(), 503);
    let sent = b.send(BOB, sent_on(&call, CAROLS, |text| text).as_str());
    assert_eq!(the(&sent, CAROL).method(), "INVITE");
}

#[test]
fn without_memory_a_via_exempts_from_nothing() {
    let mut b = guarded(|settings| settings.proxy.mode = Mode::Stateless);
    let asked = auth::call(&mut b);
    let request = auth::invite_with(&ALICES, &asked).body("v=0");
    let call = only(b.send(ALICE, request));
    for (from, to) in [("", ""), ("v=0", "v=1"), ("Call-ID: ", "Call-ID: other")] {
        let other = sent_on(&call, CAROLS, |text| text.replace(from, to));
        assert_eq!(b.send_for_one(BOB, other.as_str()).status(), 407);
    }
}

/// Whoever is called by alice gets what she sends within that call, and a Via of ours with it.
#[test]
fn what_passed_within_a_dialog_is_asked_outside_of_it() {
    for mode in [Mode::Stateful, Mode::Stateless] {
        let mut b = guarded(|settings| settings.proxy.mode = mode);
        let asked = auth::call(&mut b);
        let at_bob = the(&b.send(ALICE, auth::invite_with(&ALICES, &asked)), BOB).clone();
        let answer = at_bob.answer(200).add(&format!("Contact: <{BOBS_CONTACT}>"));
        let ok = b.send_for_one(BOB, answer);
        let call = Call { call_id: at_bob.header("Call-ID").unwrap().into(), callers: recorded(&ok), callees: recorded(&at_bob) };
        for method in ["INVITE", "MESSAGE", "INFO", "REFER", "BYE"] {
            let inside = call
                .by_caller(method, BOBS_CONTACT)
                .from("<sip:alice@example.com>;tag=a")
                .add("Contact: <sip:alice@10.0.1.1:5060>");
            let sent = b.send(ALICE, inside);
            let got = the(&sent, "10.0.1.2:5071").clone();
            assert_eq!(got.method(), method);
            let line = format!("{method} sip:");
            for (uri, keeps_tag) in [(CAROLS, true), (CAROLS, false), ("sip:bob@example.com", true), ("sip:bob@example.com", false)]
            {
                let copy = sent_on(&got, uri, |text| {
                    let text = text.replacen("INVITE sip:", &line, 1);
                    match keeps_tag {
                        true => text,
                        false => text.replace(";tag=callee", ""),
                    }
                });
                let answer = b.send_for_one("10.0.9.9:1024", copy.as_str());
                assert_eq!(answer.status(), 407, "{method} {uri} {keeps_tag}");
            }
        }
    }
}

// ---- the cookie --------------------------------------------------------------------------------------------------------

/// A call from alice to bob as its two ends see it.
pub struct Call {
    call_id: String,
    callers: Vec<String>,
    callees: Vec<String>,
}

pub const BOBS_CONTACT: &str = "sip:bob@10.0.1.2:5071;x=1;ob";

fn recorded(text: &Sent) -> Vec<String> {
    let all = text.all("Record-Route");
    all.iter().map(|route| route.to_string()).collect()
}

fn call_with(b: &mut Bench, extra: &str) -> Call {
    let mut invite = Request::invite();
    if !extra.is_empty() {
        invite = invite.add(extra);
    }
    let at_bob = the(&b.send(ALICE, invite), BOB).clone();
    let answer = at_bob.answer(200).add(&format!("Contact: <{BOBS_CONTACT}>"));
    let ok = b.send_for_one(BOB, answer);
    Call { call_id: at_bob.header("Call-ID").unwrap().into(), callers: recorded(&ok), callees: recorded(&at_bob) }
}

pub fn call(b: &mut Bench) -> Call {
    call_with(b, "")
}

fn by(routes: &[String], request: Request) -> Request {
    let add = |request: Request, route: &String| request.add(&format!("Route: {route}"));
    routes.iter().fold(request, add)
}

impl Call {
    pub fn by_caller(&self, method: &str, uri: &str) -> Request {
        let request = Request::new(method, uri).to("<sip:bob@example.com>;tag=callee").call_id(&self.call_id).cseq(unique() as u32);
        let routes: Vec<String> = self.callers.iter().rev().cloned().collect();
        by(&routes, request)
    }

    pub fn by_callee(&self, method: &str, uri: &str) -> Request {
        let request = Request::new(method, uri)
            .via(BOB, &format!("z9hG4bKbob{}", unique()))
            .from("<sip:bob@example.com>;tag=callee")
            .to("<sip:alice@example.com>;tag=alice")
            .call_id(&self.call_id)
            .cseq(unique() as u32);
        by(&self.callees, request)
    }
}

fn plain(change: impl FnOnce(&mut Settings)) -> Bench {
    let mut b = Bench::with(|settings| {
        settings.routes =
            vec![Route { to_user_prefix: Some(b"0".to_vec()), ..route(Action::Relay(vec![failover::hop(GATE)])) }].into();
        change(settings);
    });
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    b.register("carol", "<sip:carol@10.0.1.3:5060>");
    b
}

pub const ALICES_CONTACT: &str = "sip:alice@10.0.1.1:5060";
const ANYWHERE: [&str; 5] =
    [BOBS_CONTACT, "sip:carol@example.com", "sip:0900@example.com", "sip:victim@10.9.9.9", "sip:victim@10.9.9.9;maddr=10.0.1.2"];

#[test]
fn a_cookie_is_its_holders_alone() {
    for mode in [Mode::Stateful, Mode::Stateless] {
        let mut b = plain(|settings| settings.proxy.mode = mode);
        let call = call(&mut b);
        for method in ["INVITE", "BYE", "INFO", "MESSAGE", "REFER", "ODD"] {
            for uri in ANYWHERE {
                let own = call.by_caller(method, uri);
                // By the callee's copy of our Route it is the same.
                let copy = by(&call.callees, own.clone().without("Route"));
                for request in [own, copy] {
                    for from in [
                        "<sip:ceo@example.com>;tag=alice",
                        "\"Alice\" <sip:alice@example.org>;tag=alice",
                        "<sip:Alice@example.com>;tag=alice",
                        "<tel:+49301234>;tag=alice",
                    ] {
                        let answer = b.send_for_one(ALICE, request.clone().from(from));
                        assert_eq!(answer.status(), 403, "{method} {uri} {from}: {answer}");
                    }
                }
            }
            let callees = call.by_callee(method, ALICES_CONTACT);
            let answer = b.send_for_one(BOB, callees.from("<sip:ceo@example.com>;tag=callee"));
            assert_eq!(answer.status(), 403, "{method}: {answer}");
        }
        for uri in ANYWHERE {
            let ack = call.by_caller("ACK", uri).from("<sip:ceo@example.com>;tag=alice");
            assert!(b.send(ALICE, ack).is_empty());
        }
        // Another tag of bob is no tag of his.
        for tag in ["any", "Callee", "alice"] {
            let to = format!("<sip:bob@example.com>;tag={tag}");
            let answer = b.send_for_one(ALICE, call.by_caller("INFO", BOBS_CONTACT).to(&to));
            assert_eq!(answer.status(), 403, "{tag}: {answer}");
        }
    }
}

#[test]
fn a_cookie_leads_where_the_other_side_wants_to_be_reached() {
    for mode in [Mode::Stateful, Mode::Stateless] {
        let mut b = plain(|settings| settings.proxy.mode = mode);
        let call = call(&mut b);
        for method in ["INVITE", "INFO", "BYE", "MESSAGE"] {
            for uri in ["sip:victim@10.9.9.9", "sip:bob@10.9.9.9:5071", "sip:gw@10.0.5.1:5080"] {
                let answer = b.send_for_one(ALICE, call.by_caller(method, uri));
                assert_eq!(answer.status(), 403, "{method} {uri}: {answer}");
                let answer = b.send_for_one(BOB, call.by_callee(method, uri));
                assert_eq!(answer.status(), 403, "{method} {uri}: {answer}");
            }
            // As its phone writes it, and as others may.
            for uri in [BOBS_CONTACT, "sip:bob@10.0.1.2:5071;ob", "sip:%62ob@10.0.1.2:5071;transport=udp;x=1"] {
                let sent = b.send(ALICE, call.by_caller(method, uri));
                assert_eq!(the(&sent, "10.0.1.2:5071").method(), method, "{uri}");
            }
            // Where he has registered, he may be reached anyway.
            let sent = b.send(ALICE, call.by_caller(method, "sip:bob@10.0.1.2:5060"));
            assert_eq!(the(&sent, BOB).method(), method);
            let spelled = call
                .by_callee(method, "sip:alice@10.0.1.1")
                .from("\"B\" <sips:b%6Fb@EXAMPLE.com.:5066;a=b>;tag=callee")
                .to("sip:alice@example.COM;tag=alice");
            let sent = b.send(BOB, spelled);
            assert_eq!(the(&sent, ALICE).method(), method);
        }
        // By a proxy that was not there it goes no further, but for what ends the call.
        let beyond = |method: &str| {
            let request = call.by_caller(method, BOBS_CONTACT);
            request.add("Route: <sip:10.9.9.9;lr>")
        };
        assert_eq!(b.send_for_one(ALICE, beyond("INFO")).status(), 403);
        // To others as to anybody.
        let sent = b.send(ALICE, call.by_caller("MESSAGE", "sip:carol@example.com"));
        assert_eq!(the(&sent, CAROL).method(), "MESSAGE");
        let sent = b.send(ALICE, call.by_caller("MESSAGE", "sip:0900@example.com"));
        assert_eq!(the(&sent, GATE).method(), "MESSAGE");
    }
}

#[test]
fn who_leaves_its_dialog_is_asked_as_outside_of_it() {
    let mut b = guarded(|_| ());
    let asked = auth::call(&mut b);
    let invite = auth::invite_with(&ALICES, &asked);
    let at_bob = the(&b.send(ALICE, invite), BOB).clone();
    let answer = at_bob.answer(200).add(&format!("Contact: <{BOBS_CONTACT}>"));
    let ok = b.send_for_one(BOB, answer);
    let call = Call { call_id: at_bob.header("Call-ID").unwrap().into(), callers: recorded(&ok), callees: recorded(&at_bob) };
    let by_caller = |method: &str, uri: &str| {
        let request = call.by_caller(method, uri);
        request.from("<sip:alice@example.com>;tag=a")
    };
    let sent = b.send(ALICE, by_caller("MESSAGE", BOBS_CONTACT));
    assert_eq!(the(&sent, "10.0.1.2:5071").method(), "MESSAGE");
    for uri in ["sip:carol@example.com", "sip:victim@10.9.9.9"] {
        let answer = b.send_for_one(ALICE, by_caller("MESSAGE", uri));
        assert_eq!(answer.status(), 407, "{uri}: {answer}");
    }
    // Another From with the password of that user is another matter than one without.
    let from = "<sip:bob@example.com>;tag=a";
    let answer = b.send_for_one(ALICE, by_caller("MESSAGE", BOBS_CONTACT).from(from));
    assert_eq!(answer.status(), 403);
}

#[test]
fn each_early_and_each_forked_dialog_has_a_cookie_of_its_own() {
    let mut b = plain(|settings| settings.limits.answer_factor = 0);
    b.register("bob", "<sip:bob@10.0.1.4:5060>");
    let sent = b.send(ALICE, Request::invite());
    let (one, other) = (the(&sent, BOB).clone(), the(&sent, DAVE).clone());
    let call_id = one.header("Call-ID").unwrap().to_string();
    let within = |routes: &[String], tag: &str, uri: &str| {
        let request =
            Request::new("PRACK", uri).to(&format!("<sip:bob@example.com>;tag={tag}")).call_id(&call_id).cseq(unique() as u32);
        by(routes, request)
    };
    let answer = one.answer(183).tag("one").add("Contact: <sip:bob@10.0.7.1:5071>");
    let early = recorded(&b.send_for_one(BOB, answer));
    let sent = b.send(ALICE, within(&early, "one", "sip:bob@10.0.7.1:5071"));
    assert_eq!(the(&sent, "10.0.7.1:5071").method(), "PRACK");
    // One that has not said where it is reached leads nowhere.
    let silent = recorded(&b.send_for_one(DAVE, other.answer(180).tag("two")));
    let answer = b.send_for_one(ALICE, within(&silent, "two", "sip:victim@10.9.9.9"));
    assert_eq!(answer.status(), 403);
    // The cookie of one is not the other's.
    let answer = other.answer(183).tag("two").add("Contact: <sip:bob@10.0.7.2:5071>");
    let second = recorded(&b.send_for_one(DAVE, answer));
    assert_ne!(early, second);
    let crossed = within(&early, "two", "sip:bob@10.0.7.2:5071");
    assert_eq!(b.send_for_one(ALICE, crossed).status(), 403);
    // Both answer, and both can be hung up.
    let answer = one.answer(200).tag("one").add("Contact: <sip:bob@10.0.7.3:5071>");
    let first = recorded(the(&b.send(BOB, answer), ALICE));
    let answer = other.answer(200).tag("two").add("Contact: <sip:bob@10.0.7.4:5071>");
    let second = recorded(the(&b.send(DAVE, answer), ALICE));
    for (routes, tag, at) in [(first, "one", "10.0.7.3:5071"), (second, "two", "10.0.7.4:5071")] {
        for method in ["ACK", "BYE"] {
            let mut request = within(&routes, tag, &format!("sip:bob@{at}"));
            request.method = method.into();
            let sent = b.send(ALICE, request.cseq(7));
            assert_eq!(the(&sent, at).method(), method);
        }
    }
}

#[test]
fn a_target_that_was_refreshed_is_known_on_every_core() {
    for mode in [Mode::Stateful, Mode::Stateless] {
        let mut b = plain(|settings| {
            settings.proxy.mode = mode;
            settings.cores = 2;
        });
        let call = call(&mut b);
        let moved = "sip:bob@10.0.8.8:5072";
        let to_moved = |b: &mut Bench, method: &str| {
            let sent = b.send_by(1, 0, ALICE, call.by_caller(method, moved));
            sent.iter().find(|sent| sent.to == "10.0.8.8:5072").cloned()
        };
        assert!(to_moved(&mut b, "INFO").is_none());
        // bob's phone has moved, and says so.
        let again = call.by_callee("INVITE", ALICES_CONTACT);
        let sent = b.send_by(0, 0, BOB, again.add(&format!("Contact: <{moved}>")));
        let at_alice = the(&sent, ALICE).clone();
        for method in ["INFO", "INVITE", "BYE"] {
            assert!(to_moved(&mut b, method).is_some(), "{method}");
        }
        // alice answers from elsewhere than she called from.
        let elsewhere = "sip:alice@10.0.8.9:5072";
        let answer = b.send_for_one(BOB, call.by_callee("INFO", elsewhere));
        assert_eq!(answer.status(), 403);
        let ok = at_alice.answer(200).add(&format!("Contact: <{elsewhere}>"));
        b.send(ALICE, ok);
        for method in ["ACK", "INFO", "BYE"] {
            let sent = b.send_by(1, 0, BOB, call.by_callee(method, elsewhere));
            assert_eq!(the(&sent, "10.0.8.9:5072").method(), method);
        }
        // Of another call it says nothing.
        let other = self::call(&mut b);
        let answer = b.send_for_one(ALICE, other.by_caller("INFO", moved));
        assert_eq!(answer.status(), 403);
    }
}

/// Another run of the server with the same key.
fn restarted(b: &mut Bench, run: u32) {
    let nonces = Arc::new(Nonces::new(Key::new(5, 6), run, 1000));
    for core in &mut b.cores {
        core.share_nonces(nonces.clone());
    }
}

#[test]
fn after_a_restart_calls_go_on_and_can_be_ended_wherever_they_have_moved() {
    let mut b = plain(|_| ());
    restarted(&mut b, 1);
    let call = call(&mut b);
    let mut b = plain(|_| ());
    restarted(&mut b, 2);
    for method in ["INFO", "INVITE", "BYE", "ACK"] {
        let sent = b.send(ALICE, call.by_caller(method, BOBS_CONTACT));
        assert_eq!(the(&sent, "10.0.1.2:5071").method(), method);
        let sent = b.send(BOB, call.by_callee(method, ALICES_CONTACT));
        assert_eq!(the(&sent, ALICE).method(), method);
    }
    // What was refreshed before is forgotten, so that nobody knows it; a call must not be one that nobody can end.
    let moved = "sip:bob@10.0.8.8:5072";
    for (method, passes) in [("INFO", false), ("INVITE", false), ("BYE", true), ("ACK", true)] {
        let sent = b.send(ALICE, call.by_caller(method, moved));
        assert_eq!(sent.iter().any(|s| s.to == "10.0.8.8:5072"), passes, "{method}");
    }
    let from = "<sip:ceo@example.com>;tag=alice";
    let answer = b.send_for_one(ALICE, call.by_caller("BYE", moved).from(from));
    assert_eq!(answer.status(), 403);
}

/// What leads to us is for the routes, and they are not for whoever is a party to some call.
#[test]
fn after_a_restart_a_call_opens_no_route_for_our_users() {
    let gate = "10.0.1.9:5060";
    let with_gate = |settings: &mut Settings| {
        let users_only = Route {
            to_user_prefix: Some(b"49".to_vec()),
            users_only: true,
            ..crate::proxy::route(Action::Relay(vec![crate::failover::hop(gate)]))
        };
        settings.routes = vec![users_only].into();
    };
    let mut b = plain(with_gate);
    restarted(&mut b, 1);
    let call = call(&mut b);
    for run in [1, 2] {
        let mut b = plain(with_gate);
        restarted(&mut b, run);
        for method in ["ACK", "BYE", "INFO", "INVITE"] {
            for uri in ["sip:4930@example.com", "sip:4930@10.0.0.1", "sip:4930@10.0.0.1:5060;x=y", "sip:4930@10.0.1.9"] {
                let sent = b.send(ALICE, call.by_caller(method, uri));
                assert!(to(&sent, gate).is_empty(), "{method} {uri} in run {run}: {}", show(&sent));
            }
        }
    }
}

#[test]
fn a_notify_before_the_answer_makes_the_dialog_of_a_subscription() {
    let mut b = plain(|_| ());
    let subscribe =
        Request::new("SUBSCRIBE", "sip:bob@example.com").add(&format!("Contact: <{ALICES_CONTACT}>")).add("Event: presence");
    let at_bob = the(&b.send(ALICE, &subscribe), BOB).clone();
    let call = Call { call_id: at_bob.header("Call-ID").unwrap().into(), callers: Vec::new(), callees: recorded(&at_bob) };
    let notify = call.by_callee("NOTIFY", ALICES_CONTACT);
    let notify = notify.add(&format!("Contact: <{BOBS_CONTACT}>"));
    let at_alice = the(&b.send(BOB, notify), ALICE).clone();
    // The subscriber's route set is that of the NOTIFY.
    let call = Call { callers: recorded(&at_alice).into_iter().rev().collect(), ..call };
    let sent = b.send(ALICE, call.by_caller("SUBSCRIBE", BOBS_CONTACT));
    assert_eq!(the(&sent, "10.0.1.2:5071").method(), "SUBSCRIBE");
    let answer = b.send_for_one(ALICE, call.by_caller("INFO", "sip:victim@10.9.9.9"));
    assert_eq!(answer.status(), 403);
    let sent = b.send(BOB, call.by_callee("NOTIFY", ALICES_CONTACT));
    assert_eq!(the(&sent, ALICE).method(), "NOTIFY");
}

#[test]
fn a_name_changes_where_the_other_side_understands_that() {
    let mut b = guarded(|settings| settings.auth.challenge_proxy = false);
    let call = call_with(&mut b, "Supported: timer, from-change");
    for core in &mut b.cores {
        let mut settings =
            Settings { domains: vec![b"example.com".to_vec()], listeners: vec![listener(PROXY)], ..Settings::default() };
        settings.auth.challenge_proxy = true;
        core.handle_config(Arc::new(settings));
    }
    // Names that nobody here can prove.
    let update = |from: &str| call.by_callee("UPDATE", ALICES_CONTACT).from(from);
    let sent = b.send(BOB, update("<sip:bob@example.com>;tag=callee"));
    assert_eq!(the(&sent, ALICE).method(), "UPDATE");
    let sent = b.send(BOB, update("<sip:desk@example.org>;tag=callee"));
    assert_eq!(the(&sent, ALICE).method(), "UPDATE");
    // One of ours has to be.
    let answer = b.send_for_one(BOB, update("<sip:carol@example.com>;tag=callee"));
    assert_eq!(answer.status(), 407);
    // The other side uses the new name, and tags must still be right.
    let bye = || call.by_caller("BYE", BOBS_CONTACT);
    let sent = b.send(ALICE, bye().to("<sip:desk@example.org>;tag=callee"));
    assert_eq!(the(&sent, "10.0.1.2:5071").method(), "BYE");
    let answer = b.send_for_one(ALICE, bye().to("<sip:desk@example.org>;tag=other"));
    assert_eq!(answer.status(), 403);
}

// ---- requests that show none ---------------------------------------------------------------------------------------------

/// eve's contacts are herself, at this server.
fn names_herself(b: &mut Bench) {
    for aor in [&b"eve@example.com"[..], b"eve@10.0.0.1"] {
        for n in 0..10 {
            let contact = format!("sip:eve@{PROXY};x={n}");
            b.location.add(Default::default(), aor, contact.as_bytes(), 3600).unwrap();
        }
    }
}

/// Sends a message, and what comes of it to the server itself, until nothing does any more. Returns how many datagrams left.
fn all_of_it(b: &mut Bench, message: &Request) -> usize {
    let mut sent = b.send(ALICE, message);
    let mut count = 0;
    while let Some(one) = sent.pop() {
        count += 1;
        assert!(count < 2000, "{one}");
        if one.to == PROXY {
            sent.extend(b.send(PROXY, one.bytes.as_slice()));
        }
    }
    count
}

#[test]
fn an_ack_from_nowhere_is_dropped_and_none_is_multiplied() {
    let ack = |to: &str| Request::new("ACK", "sip:eve@example.com").to(to);
    for to in ["<sip:eve@example.com>;tag=x", "<sip:eve@example.com>"] {
        let mut b = Bench::new();
        names_herself(&mut b);
        assert_eq!(all_of_it(&mut b, &ack(to)), 0);
        assert_eq!(b.dropped(Drop::StrayAck), 1);
        // Where no dialog can be known by a route, copies are few, and theirs too.
        for (mode, most) in [(Mode::Stateful, 10), (Mode::Stateless, 2)] {
            let mut b = Bench::with(|settings| {
                settings.proxy.record_route = false;
                settings.proxy.mode = mode;
            });
            names_herself(&mut b);
            let count = all_of_it(&mut b, &ack(to));
            assert!((1..=most).contains(&count), "{mode:?}: {count}");
            let count = all_of_it(&mut b, &ack(to).add("Max-Breadth: 3"));
            assert!((1..=most).contains(&count), "{mode:?}: {count}");
        }
    }
}

#[test]
fn the_ack_of_a_call_that_was_answered_may_leave_out_its_route() {
    let mut b = plain(|_| ());
    for records in [true, false] {
        let invite = Request::invite();
        let at_bob = the(&b.send(ALICE, &invite), BOB).clone();
        let mut answer = at_bob.answer(200).add(&format!("Contact: <{BOBS_CONTACT}>"));
        if !records {
            answer.lines.retain(|line| !line.starts_with("Record-Route"));
        }
        let ok = b.send_for_one(BOB, answer);
        let call_id = ok.header("Call-ID").unwrap();
        let ack = Request::new("ACK", "sip:bob@example.com").to(ok.header("To").unwrap());
        assert!(b.send(ALICE, ack.clone()).is_empty(), "of another call");
        let from = "<sip:alice@example.com>;tag=other";
        assert!(b.send(ALICE, ack.clone().call_id(call_id).from(from)).is_empty());
        assert_eq!(only(b.send(ALICE, ack.call_id(call_id))).to, BOB);
    }
}

#[test]
fn a_cancel_without_a_transaction_goes_round_no_more_than_its_invite() {
    let mut b = Bench::with(|settings| settings.proxy.mode = Mode::Stateless);
    names_herself(&mut b);
    let invite = Request::new("INVITE", "sip:eve@example.com");
    let most = all_of_it(&mut b, &invite);
    let count = all_of_it(&mut b, &invite.cancel());
    assert!(most < 8 && count < 8, "{most} {count}");
}

#[test]
fn a_response_comes_by_no_more_often_than_its_request() {
    let mut b = Bench::with(|settings| settings.proxy.mode = Mode::Stateless);
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let request = Request::new("MESSAGE", "sip:bob@example.com");
    let at_bob = only(b.send(ALICE, request));
    let ours = at_bob.header("Via").unwrap().to_string();
    let mut count = |vias: usize| {
        let mut answer = at_bob.answer(200);
        for _ in 0..vias {
            answer.lines.insert(0, format!("Via: {ours}"));
        }
        let mut sent = b.send(BOB, answer);
        let mut count = 0;
        while let Some(one) = sent.pop() {
            count += 1;
            if one.to == PROXY {
                sent.extend(b.send(PROXY, one.bytes.as_slice()));
            }
        }
        count
    };
    assert_eq!((count(0), count(3), count(500)), (1, 4, 0));
    // With transactions nothing but an ACK has such a branch.
    let mut b = plain(|_| ());
    let call = call(&mut b);
    let ack = only(b.send(ALICE, call.by_caller("ACK", BOBS_CONTACT)));
    assert!(b.send(BOB, ack.answer(200)).is_empty());
    assert_eq!(b.dropped(Drop::StrayResponse), 1);
}

#[test]
fn a_request_within_a_dialog_without_a_route_of_ours_is_refused_by_conf() {
    for mode in [Mode::Stateful, Mode::Stateless] {
        for (choice, record_route, refused) in
            [(InDialog::Refuse, true, true), (InDialog::Refuse, false, false), (InDialog::Relay, true, false)]
        {
            let mut b = plain(|settings| {
                settings.proxy.mode = mode;
                settings.proxy.in_dialog_without_route = choice;
                settings.proxy.record_route = record_route;
            });
            for method in ["BYE", "INVITE", "INFO", "MESSAGE", "NOTIFY", "ODD"] {
                let request = Request::new(method, "sip:bob@example.com")
                    .from("<sip:mallory@example.org>;tag=m")
                    .to("<sip:bob@example.com>;tag=bobs");
                let sent = b.send(ALICE, request);
                match refused {
                    true => assert_eq!(only(sent).status(), 403, "{method}"),
                    false => assert_eq!(the(&sent, BOB).method(), method),
                }
            }
            // What begins a dialog, and what the conf relays, are no part of this.
            let sent = b.send(ALICE, Request::new("MESSAGE", "sip:bob@example.com"));
            assert_eq!(the(&sent, BOB).method(), "MESSAGE");
            let to_gate = Request::new("BYE", "sip:0900@example.com").to("<sip:0900@x>;tag=g");
            assert_eq!(the(&b.send(ALICE, to_gate), GATE).method(), "BYE");
        }
    }
    // Who has proved its name may call bob, and so may say this to his phone.
    let mut b = guarded(|settings| settings.proxy.in_dialog_without_route = InDialog::Refuse);
    let asked = auth::call(&mut b);
    let request = auth::invite_with(&ALICES, &asked).to("<sip:bob@example.com>;tag=bobs");
    assert_eq!(the(&b.send(ALICE, request), BOB).method(), "INVITE");
}

// ---- the To tag of our answers -----------------------------------------------------------------------------------------

#[test]
fn the_ack_to_an_answer_of_our_own_stays_here_by_any_branch() {
    for mode in [Mode::Stateful, Mode::Stateless] {
        let mut b = guarded(|settings| settings.proxy.mode = mode);
        let answer = b.send_for_one(ALICE, auth::invite());
        assert_eq!(answer.status(), 407);
        let to = answer.header("To").unwrap().to_string();
        let ack = Request::new("ACK", "sip:bob@example.com").to(&to);
        for ack in [
            ack.clone().call_id(answer.header("Call-ID").unwrap()),
            ack.clone().call_id("another"),
            ack.clone().from("<sip:x@y>;tag=z").cseq(77),
        ] {
            assert!(b.send(ALICE, ack).is_empty());
        }
    }
}

#[test]
fn the_ack_to_the_refusal_of_a_broken_invite_stays_here() {
    for record_route in [true, false] {
        let twice =
            ["Call-ID: second", "From: <sip:second@example.org>;tag=second", "To: <sip:second@example.org>", "CSeq: 7 INVITE"];
        for line in twice {
            let mut b = plain(|settings| settings.proxy.record_route = record_route);
            let invite = Request::invite();
            let answer = b.send_for_one(ALICE, invite.clone().add(line));
            assert_eq!(answer.status(), 400, "{line}: {answer}");
            // As it is answered, or as the client would have it; by its branch, or a new one.
            let ack = invite.ack(&answer);
            let other = match line.starts_with("Call-ID") {
                true => ack.clone().call_id("second"),
                false => ack.clone().from("<sip:second@example.org>;tag=second"),
            };
            for ack in [ack, other] {
                let again = ack.clone().via(ALICE, &format!("z9hG4bKnew{}", unique()));
                for ack in [ack.clone(), ack.add(line), again] {
                    assert!(b.send(ALICE, ack).is_empty(), "{line}");
                }
            }
        }
    }
}
