//! What strangers make of our tokens on the wire: a Via of ours below their own, the Route of their own call for other calls, an ACK from
//! nowhere, and requests within dialogs that they are no part of; over UDP and TCP.

use std::time::Duration;

use crate::agent::{Agent, Request, unique};
use crate::auth::guarded;
use crate::identity::{Login, signed};
use crate::message::Message;
use crate::place::{CALLEE, CALLER, Place, SECOND_CALLEE, SERVER, STRANGER};
use crate::server::{Conf, Server};

const SILENCE: Duration = Duration::from_millis(300);

/// A server over UDP and TCP, alice's phone by either, and bob's and carol's by UDP.
struct Bench {
    place: Place,
    server: Server,
    alice: Agent,
    bob: Agent,
    carol: Agent,
}

fn bench(name: &str, tcp: bool, conf: impl FnOnce(&Place) -> Conf) -> Bench {
    let place = Place::new(name);
    let server = conf(&place).stream("tcp", place.at(SERVER)).start(&place);
    let alice = agent(&place, &server, CALLER, tcp);
    let bob = Agent::new(place.at(CALLEE), server.address);
    let carol = Agent::new(place.at(SECOND_CALLEE), server.address);
    server.bind(&place, "bob", bob.address);
    server.bind(&place, "carol", carol.address);
    Bench { place, server, alice, bob, carol }
}

fn agent(place: &Place, server: &Server, host: u8, tcp: bool) -> Agent {
    match tcp {
        true => Agent::tcp(place.at(host).ip(), server.address),
        false => Agent::new(place.at(host), server.address),
    }
}

fn open(place: &Place) -> Conf {
    Conf::new(place).route("to_user_prefix = \"0\"\naction = \"reject\"\nstatus = 418\n")
}

fn is(method: &str) -> impl Fn(&Message) -> bool {
    move |message| message.is(method)
}

impl Bench {
    fn from(&self, agent: &Agent, method: &str, uri: &str, user: &str) -> Request {
        let mut request = agent.request(method, uri);
        request.from = format!("<{}>;tag=f{}", self.server.uri(user), unique());
        request
    }

    /// alice calls bob, who answers; the request as she sent it, and his answer as she got it, acknowledged.
    fn call(&self, invite: Request) -> (Request, Message) {
        self.alice.send(&invite);
        let at_bob = self.bob.expect("the INVITE", is("INVITE"));
        self.bob.accept(&at_bob);
        let ok = self.alice.final_for(&invite);
        assert_eq!(ok.status(), Some(200), "{ok:?}");
        self.alice.send(&self.alice.in_dialog("ACK", &invite, &ok));
        self.bob.expect("the ACK", is("ACK"));
        (invite, ok)
    }

    /// Nothing of this kind reaches any phone.
    fn nobody_gets(&self, method: &str) {
        for phone in [&self.bob, &self.carol] {
            let seen = phone.collect(SILENCE);
            assert!(!seen.iter().any(|message| message.is(method)), "{seen:?}");
        }
    }
}

#[test]
fn a_via_of_ours_below_his_own_lets_no_stranger_call_unasked() {
    for tcp in [false, true] {
        let b =
            bench("tokens-via", tcp, |place| guarded(place, &["alice", "bob", "ceo"]).set("auth", "challenge_register", "false"));
        // alice calls somebody, who tells the stranger what came.
        let stranger = agent(&b.place, &b.server, STRANGER, tcp);
        let invite = b.from(&b.alice, "INVITE", &b.server.uri("carol"), "alice");
        let invite = signed(&b.alice, &Login::new("alice", "open-alice"), &invite);
        b.alice.send(&invite);
        let held = b.carol.expect("the call", is("INVITE"));
        b.carol.respond(&held, 486, &[]);
        b.carol.expect("the ACK", is("ACK"));
        let ours = &held.all("via")[0];
        for (method, from) in [("INVITE", "ceo"), ("INVITE", "alice"), ("MESSAGE", "ceo")] {
            let forged = b.from(&stranger, method, &b.server.uri("bob"), from);
            let forged = forged.with(&format!("Via: {ours}"));
            let answer = stranger.ask(&forged);
            assert_eq!(answer.status(), Some(407), "{method} {from}: {answer:?}");
            if method == "INVITE" {
                // Its ACK stays here, by another branch too.
                stranger.acknowledge(&forged, &answer);
                let mut again = forged.clone();
                again.via = again.via.replace(&again.branch(), &format!("z9hG4bK{}", unique()));
                stranger.acknowledge(&again, &answer);
            }
        }
        b.nobody_gets("INVITE");
        b.nobody_gets("ACK");
        assert!(b.bob.log().is_empty(), "{:?}", b.bob.log());
    }
}

#[test]
fn the_route_of_ones_own_call_is_good_for_that_call_alone() {
    for tcp in [false, true] {
        let b = bench("tokens-cookie", tcp, open);
        let invite = b.from(&b.alice, "INVITE", &b.server.uri("bob"), "alice");
        let (invite, ok) = b.call(invite);
        let stranger = format!("sip:x@{}", b.place.at(STRANGER));
        let targets = [
            ok.contacts()[0].clone(),
            b.server.uri("carol"),
            b.server.uri("0900"),
            format!("sip:carol@{}", b.carol.address),
            stranger.clone(),
        ];
        for method in ["INVITE", "BYE", "INFO", "MESSAGE"] {
            for (what, from, tag) in
                [("another From", "ceo", ""), ("another From and any tag", "ceo", "any"), ("any tag", "alice", "any")]
            {
                for target in &targets {
                    let mut request = b.alice.in_dialog(method, &invite, &ok);
                    request.uri.clone_from(target);
                    request.from = request.from.replace(":alice@", &format!(":{from}@"));
                    if !tag.is_empty() {
                        request.to = format!("<{}>;tag={tag}", b.server.uri("bob"));
                    }
                    let answer = b.alice.ask(&request);
                    assert_eq!(answer.status(), Some(403), "{method} {what} {target}: {answer:?}");
                    if method == "INVITE" {
                        b.alice.acknowledge(&request, &answer);
                    }
                }
            }
            // As herself, to where no route leads.
            for target in [&stranger, &targets[3]] {
                let mut request = b.alice.in_dialog(method, &invite, &ok);
                request.uri.clone_from(target);
                let answer = b.alice.ask(&request);
                assert_eq!(answer.status(), Some(403), "{method} {target}: {answer:?}");
                if method == "INVITE" {
                    b.alice.acknowledge(&request, &answer);
                }
            }
            b.nobody_gets(method);
        }
        let mut ack = b.alice.in_dialog("ACK", &invite, &ok);
        ack.uri.clone_from(&targets[3]);
        b.alice.send(&ack);
        b.nobody_gets("ACK");
        // And she can still hang up.
        let bye = b.alice.in_dialog("BYE", &invite, &ok);
        b.alice.send(&bye);
        let at_bob = b.bob.expect("the BYE", is("BYE"));
        b.bob.respond(&at_bob, 200, &[]);
        assert_eq!(b.alice.final_for(&bye).status(), Some(200));
    }
}

#[test]
fn one_ack_to_a_user_who_names_herself_is_one_datagram_and_no_more() {
    for (record_route, most) in [("true", 0.0), ("false", 10.0)] {
        let b = bench("tokens-ack", false, |place| open(place).set("proxy", "record_route", record_route));
        for n in 0..10 {
            // By way of another name, which is hers too.
            for (user, other) in [("eve", "fay"), ("fay", "eve")] {
                let contact = format!("{};x={n}", b.server.uri(other));
                b.server.bind_to(&b.place, user, &contact);
            }
        }
        let before = b.server.stat(&b.place, "strowger_requests_total");
        let mut ack = b.alice.request("ACK", &b.server.uri("eve"));
        ack.to += ";tag=x";
        b.alice.send(&ack);
        assert!(b.alice.collect(Duration::from_secs(1)).is_empty());
        let came = b.server.stat(&b.place, "strowger_requests_total") - before - 1.0;
        assert!(came <= most, "{came} came back");
        let dropped = b.server.stats(&b.place);
        assert!(dropped["strowger_dropped_total{reason=\"stray_ack\"}"] >= 1.0);
    }
}

#[test]
fn a_request_within_a_dialog_comes_by_our_route_or_as_the_conf_says() {
    for tcp in [false, true] {
        for (conf, refused) in [("", false), ("relay", false), ("refuse", true)] {
            let b = bench("tokens-astray", tcp, |place| match conf {
                "" => open(place),
                choice => open(place).set("proxy", "in_dialog_without_route", &format!("{choice:?}")),
            });
            for method in ["BYE", "INVITE", "INFO"] {
                let mut request = b.alice.request(method, &b.server.uri("bob"));
                request.to += ";tag=bobs";
                b.alice.send(&request);
                if refused {
                    let answer = b.alice.final_for(&request);
                    assert_eq!(answer.status(), Some(403), "{method}: {answer:?}");
                    b.nobody_gets(method);
                } else {
                    let at_bob = b.bob.expect(method, is(method));
                    b.bob.respond(&at_bob, 481, &[]);
                    assert_eq!(b.alice.final_for(&request).status(), Some(481));
                }
            }
        }
    }
}

#[test]
fn the_ack_to_the_refusal_of_an_invite_with_two_of_what_there_is_one_stays_here() {
    for tcp in [false, true] {
        for record_route in ["true", "false"] {
            let b = bench("tokens-twice", tcp, |place| open(place).set("proxy", "record_route", record_route));
            for line in ["Call-ID: second", "From: <sip:second@example.org>;tag=second"] {
                let invite = b.alice.request("INVITE", &b.server.uri("bob"));
                let broken = invite.clone().with(line);
                b.alice.send(&broken);
                let refused = b.alice.expect("400", |message| message.answers("INVITE", 400));
                for new_branch in [false, true] {
                    let mut ack = invite.clone();
                    if new_branch {
                        let branch = format!("z9hG4bK{}", unique());
                        ack.via = ack.via.replace(&ack.branch(), &branch);
                    }
                    b.alice.acknowledge(&ack, &refused);
                }
            }
            b.nobody_gets("ACK");
        }
    }
}

#[test]
fn a_call_whose_ends_move_is_ended_by_either_after_a_restart_too() {
    let place = Place::new("tokens-restart");
    let key = place.path("key");
    let conf = open(&place).set("server", "key_file", &format!("{:?}", key.display().to_string()));
    let server = conf.start(&place);
    let alice = Agent::new(place.at(CALLER), server.address);
    let bob = Agent::new(place.at(CALLEE), server.address);
    let moved = Agent::new(place.at(SECOND_CALLEE), server.address);
    server.bind(&place, "bob", bob.address);
    let invite = alice.request("INVITE", &server.uri("bob"));
    alice.send(&invite);
    let at_bob = bob.expect("the INVITE", is("INVITE"));
    bob.accept(&at_bob);
    let ok = alice.final_for(&invite);
    alice.send(&alice.in_dialog("ACK", &invite, &ok));
    bob.expect("the ACK", is("ACK"));
    // bob's phone has another address from now on, and says so.
    let target = format!("sip:bob@{}", moved.address);
    let inside = |agent: &Agent, method: &str, cseq: u32| {
        let mut request = agent.request(method, &at_bob.contacts()[0]);
        request.from = ok.header("to").unwrap().to_owned();
        request.to = invite.from.clone();
        request.call_id.clone_from(&invite.call_id);
        request.cseq = cseq;
        let routes = at_bob.all("record-route");
        request.extra = routes.iter().map(|route| format!("Route: {route}")).collect();
        request.contact = Some(format!("<{target}>"));
        request
    };
    let update = inside(&moved, "UPDATE", 1);
    moved.send(&update);
    let at_alice = alice.expect("the UPDATE", is("UPDATE"));
    alice.respond(&at_alice, 200, &[&format!("Contact: <{}>", alice.uri())]);
    assert_eq!(moved.final_for(&update).status(), Some(200));
    let to_moved = |method: &str| {
        let mut request = alice.in_dialog(method, &invite, &ok);
        request.uri.clone_from(&target);
        request
    };
    alice.send(&to_moved("INFO"));
    let info = moved.expect("the INFO", is("INFO"));
    moved.respond(&info, 200, &[]);
    server.signal("TERM");
    server.finish(Duration::from_secs(20));
    let _server = conf.start(&place);
    let elsewhere = alice.ask(&to_moved("INFO"));
    assert_eq!(elsewhere.status(), Some(403), "nobody knows it any more");
    let from_bob = inside(&moved, "INFO", 2);
    moved.send(&from_bob);
    let at_alice = alice.expect("bob's INFO", is("INFO"));
    alice.respond(&at_alice, 200, &[]);
    let bye = to_moved("BYE");
    alice.send(&bye);
    let at_bob = moved.expect("the BYE", is("BYE"));
    moved.respond(&at_bob, 200, &[]);
    assert_eq!(alice.final_for(&bye).status(), Some(200));
}
