//! A gateway for our users only, by every way that a stranger or a user can name it; and whose name a phone may bear in a call. Over UDP and TCP.

use std::time::Duration;

use crate::agent::{Agent, Request, unique};
use crate::auth::guarded;
use crate::identity::{Login, signed};
use crate::message::Message;
use crate::place::{CALLEE, CALLER, Place, SECOND_CALLEE, SERVER, STRANGER};
use crate::server::Server;

const SILENCE: Duration = Duration::from_millis(300);

fn login(name: &'static str) -> Login<'static> {
    match name {
        "alice" => Login::new("alice", "open-alice"),
        _ => Login::new("bob", "open-bob"),
    }
}

/// A server that challenges, over UDP and TCP, a gateway behind 49 for its users, and bob's phone.
struct Bench {
    place: Place,
    server: Server,
    gateway: Agent,
    bob: Agent,
}

fn bench(name: &str) -> Bench {
    let place = Place::new(name);
    let gateway = Agent::new(place.at(SECOND_CALLEE), place.at(SERVER));
    let server = guarded(&place, &["alice", "bob"])
        .route(&format!("to_user_prefix = \"49\"\naction = \"relay\"\nfrom = \"users\"\ntarget = [\"sip:{}\"]", gateway.address))
        .stream("tcp", place.at(SERVER))
        .start(&place);
    let bob = Agent::new(place.at(CALLEE), server.address);
    Bench { place, server, gateway, bob }
}

impl Bench {
    fn agents(&self, host: u8) -> [Agent; 2] {
        [Agent::new(self.place.at_port(host, 0), self.server.address), Agent::tcp(self.place.ip(host), self.server.address)]
    }

    fn binds(&self, contact: &str, path: Option<&str>) {
        let mut request = self.bob.register("example.test", "bob", "<sip:x@x>", 600);
        request.contact = Some(contact.into());
        request = match path {
            Some(path) => request.with(&format!("Path: {path}")).with("Supported: path"),
            None => request,
        };
        let answer = self.bob.ask(&signed(&self.bob, &login("bob"), &request));
        assert_eq!(answer.status(), Some(200), "{answer:?}");
    }

    fn forgets(&self) {
        let clears = self.bob.register("example.test", "bob", "*", 0);
        let answer = self.bob.ask(&signed(&self.bob, &login("bob"), &clears));
        assert_eq!(answer.status(), Some(200), "{answer:?}");
    }
}

fn call(agent: &Agent, method: &str, uri: &str, from: &str) -> Request {
    let mut request = agent.request(method, uri);
    request.from = format!("<{from}>;tag=f{}", unique());
    request
}

fn refused(agent: &Agent, request: &Request) -> u16 {
    let answer = agent.ask(request);
    if request.method == "INVITE" {
        agent.acknowledge(request, &answer);
    }
    answer.status().unwrap_or_default()
}

fn is(method: &str) -> impl Fn(&Message) -> bool {
    move |message| message.is(method)
}

#[test]
fn a_gateway_for_users_is_reached_by_nobodys_binding() {
    let b = bench("guard-binding");
    let (gateway, server) = (b.gateway.address, b.server.address);
    for (contact, path) in [
        (format!("<sip:49900@{gateway}>"), None),
        (format!("<sip:49900@{gateway};x=y>;q=0.5"), None),
        (format!("<sip:49900@{}>", b.bob.address), Some(format!("<sip:{gateway};lr>"))),
        // By the server itself, where the number's route is looked at again.
        (format!("<sip:49900@{server}>"), None),
        (format!("<sip:%349900@{server}>"), None),
        ("<sip:49900@example.test>".to_string(), Some(format!("<sip:{server};lr>"))),
    ] {
        b.binds(&contact, path.as_deref());
        for agent in b.agents(STRANGER) {
            for method in ["INVITE", "MESSAGE"] {
                let request = call(&agent, method, "sip:bob@example.test", "sip:x@example.org");
                let status = refused(&agent, &request);
                assert!(status >= 400, "{contact} {path:?} {method}: {status}");
            }
        }
        // Nor does alice pay for whom she calls.
        for agent in b.agents(CALLER) {
            let request = call(&agent, "INVITE", "sip:bob@example.test", "sip:alice@example.test");
            let status = refused(&agent, &signed(&agent, &login("alice"), &request));
            assert!(status >= 400, "{contact} {path:?}: {status}");
        }
        let seen = b.gateway.collect(SILENCE);
        assert!(seen.is_empty(), "{contact} {path:?}: {seen:?}");
        b.forgets();
    }
    b.server.expect_log(&["branch to", "not started: Next Hop Is For Our Users Only"]);
    b.server.expect_log(&["403 Forwarded To A Route For Our Users Only"]);
    let agent = &b.agents(STRANGER)[0];
    agent.send(&call(agent, "ACK", "sip:4930@example.test", "sip:x@example.org"));
    assert!(b.gateway.collect(SILENCE).is_empty());
    // The way that is meant.
    let agent = &b.agents(CALLER)[1];
    let request = call(agent, "MESSAGE", "sip:4930@example.test", "sip:alice@example.test");
    agent.send(&signed(agent, &login("alice"), &request));
    b.gateway.expect("the MESSAGE", is("MESSAGE"));
}

#[test]
fn what_alice_says_within_her_call_is_nothing_outside_of_it() {
    let b = bench("guard-passage");
    b.binds(&format!("<sip:bob@{}>", b.bob.address), None);
    for alice in b.agents(CALLER) {
        let invite = call(&alice, "INVITE", "sip:bob@example.test", "sip:alice@example.test");
        let invite = signed(&alice, &login("alice"), &invite);
        alice.send(&invite);
        let at_bob = b.bob.expect("the INVITE", is("INVITE"));
        b.bob.accept(&at_bob);
        let ok = alice.final_for(&invite);
        alice.send(&alice.in_dialog("ACK", &invite, &ok));
        b.bob.expect("the ACK", is("ACK"));
        for method in ["INFO", "INVITE"] {
            alice.send(&alice.in_dialog(method, &invite, &ok));
            let held = b.bob.expect(method, is(method));
            b.bob.respond(&held, 488, &[]);
            let stranger = &b.agents(STRANGER)[0];
            for uri in ["sip:bob@example.test", "sip:4930@example.test"] {
                for keeps_tag in [true, false] {
                    let mut forged = stranger.request(method, uri);
                    forged.from = held.header("from").unwrap().into();
                    forged.to = held.header("to").unwrap().into();
                    if !keeps_tag {
                        forged.to = forged.to.split(';').next().unwrap().into();
                    }
                    forged.call_id = held.call_id().into();
                    forged.cseq = held.cseq();
                    for via in held.all("via") {
                        forged = forged.with(&format!("Via: {via}"));
                    }
                    assert_eq!(refused(stranger, &forged), 407, "{method} {uri} {keeps_tag}");
                }
            }
        }
        let seen = b.bob.collect(SILENCE);
        let new = |message: &&Message| message.is_request() && !message.is("ACK");
        assert!(!seen.iter().any(|message| new(&message)), "{seen:?}");
        assert!(b.gateway.collect(Duration::from_millis(10)).is_empty());
    }
}

#[test]
fn who_is_called_by_another_name_proves_itself_before_it_bears_it() {
    let b = bench("guard-name");
    b.binds(&format!("<sip:bob@{}>", b.bob.address), None);
    // alice has a password; nobody has one for the desk.
    let cases = b.agents(STRANGER).into_iter().map(std::rc::Rc::new);
    let cases = cases.flat_map(|stranger| [("alice", false), ("desk", true)].map(|case| (stranger.clone(), case)));
    for (stranger, (named, borne)) in cases {
        let mut invite = call(&stranger, "INVITE", "sip:bob@example.test", "sip:x@example.org");
        invite.to = format!("<sip:{named}@example.test>");
        stranger.send(&invite);
        let at_bob = b.bob.expect("the INVITE", is("INVITE"));
        b.bob.accept(&at_bob);
        let ok = stranger.final_for(&invite);
        stranger.send(&stranger.in_dialog("ACK", &invite, &ok));
        b.bob.expect("the ACK", is("ACK"));
        let inside = |method: &str| {
            let uri = at_bob.contacts()[0].clone();
            let mut request = b.bob.request(method, &uri);
            request.from = ok.header("to").unwrap().into();
            request.to = at_bob.header("from").unwrap().into();
            request.call_id = at_bob.call_id().into();
            for route in at_bob.all("record-route") {
                request = request.with(&format!("Route: {route}"));
            }
            request
        };
        for method in ["INFO", "MESSAGE"] {
            assert_eq!(refused(&b.bob, &inside(method)), 407, "{method}");
        }
        assert!(stranger.collect(SILENCE).is_empty());
        let info = signed(&b.bob, &login("bob"), &inside("INFO"));
        match borne {
            true => {
                b.bob.send(&info);
                let info = stranger.expect("the INFO", is("INFO"));
                stranger.respond(&info, 200, &[]);
            }
            false => assert_eq!(refused(&b.bob, &info), 403),
        }
        b.bob.send(&inside("BYE"));
        let bye = stranger.expect("the BYE", is("BYE"));
        stranger.respond(&bye, 200, &[]);
    }
}
