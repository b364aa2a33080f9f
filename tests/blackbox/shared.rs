//! Two servers before the same phones, with one key file: TLS sessions, challenges and calls of the one at the other; and a secret
//! that takes the place of another while a call is up.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::agent::{Agent, Request};
use crate::auth::guarded;
use crate::identity::{Challenge, Login};
use crate::message::Message;
use crate::openssl_tool::{SClient, handshake};
use crate::pki::{Authority, Kind};
use crate::place::{CALLEE, CALLER, Place, STRANGER};
use crate::server::{Conf, Server};

/// The host of the second server.
const OTHER: u8 = 5;

const PATIENCE: Duration = Duration::from_secs(20);

/// The names and the file of secrets that both have.
fn alike(place: &Place, conf: Conf) -> Conf {
    let key = place.path("key").display().to_string();
    conf.set("server", "key_file", &format!("{key:?}")).advertise("sip.example.test:5060")
}

fn shared(conf: Conf) -> Conf {
    conf.set("server", "shared_key", "true")
}

fn both(place: &Place, conf: &Conf) -> (Server, Server) {
    (conf.start(place), conf.beside(place, "other", OTHER).start(place))
}

fn stop(server: Server) {
    server.signal("TERM");
    server.finish(PATIENCE);
}

// ---- TLS sessions ------------------------------------------------------------------------------------------------------

/// Connects and asks an OPTIONS; whether the session was resumed.
fn resumes(place: &Place, server: &Server, way: &[&str], session: &[&str]) -> bool {
    let mut client = SClient::connect(place, server.secure(), &[way, session].concat());
    client.ask();
    let said = client.leave();
    let is_new = handshake(&said).contains("New, TLS");
    assert_ne!(is_new, handshake(&said).contains("Reused, TLS"), "{said}");
    !is_new
}

#[test]
fn a_session_is_resumed_at_the_other_server_and_after_a_restart() {
    let place = Place::new("shared-tickets");
    let authority = Authority::new(&place, "ca");
    let certificate = authority.issue(&place, "server", Kind::Ecdsa, &["sip.example.test"]);
    let conf = shared(alike(&place, Conf::new(&place).tls(&place, &[&certificate])));
    let (one, other) = both(&place, &conf);
    let file = place.path("session").display().to_string();
    for way in [&["-tls1_2"][..], &["-tls1_3"]] {
        assert!(!resumes(&place, &one, way, &["-sess_out", &file]));
        assert!(resumes(&place, &other, way, &["-sess_in", &file]), "{way:?}");
        assert!(resumes(&place, &one, way, &["-sess_in", &file]), "{way:?}");
        fs::rename(&file, place.path(&way[0][1..])).unwrap();
    }
    // By its number a session is known to one server alone.
    let way = ["-tls1_2", "-no_ticket"];
    assert!(!resumes(&place, &one, &way, &["-sess_out", &file]));
    assert!(!resumes(&place, &other, &way, &["-sess_in", &file]));
    assert!(resumes(&place, &one, &way, &["-sess_in", &file]));

    stop(one);
    let one = conf.start(&place);
    for way in [&["-tls1_2"][..], &["-tls1_3"]] {
        let kept = place.path(&way[0][1..]).display().to_string();
        assert!(resumes(&place, &one, way, &["-sess_in", &kept]), "{way:?}");
    }
}

#[test]
fn servers_that_do_not_share_their_key_resume_nothing_of_each_other() {
    let place = Place::new("unshared-tickets");
    let authority = Authority::new(&place, "ca");
    let certificate = authority.issue(&place, "server", Kind::Ecdsa, &["sip.example.test"]);
    let (one, other) = both(&place, &alike(&place, Conf::new(&place).tls(&place, &[&certificate])));
    let file = place.path("session").display().to_string();
    for way in [&["-tls1_2"][..], &["-tls1_3"]] {
        assert!(!resumes(&place, &one, way, &["-sess_out", &file]));
        assert!(!resumes(&place, &other, way, &["-sess_in", &file]), "{way:?}");
    }
}

// ---- challenges --------------------------------------------------------------------------------------------------------

fn register(agent: &Agent) -> Request {
    agent.register("example.test", "phone", &format!("<{}>", agent.uri()), 600)
}

/// The answer to the request's first challenge, at `server`.
fn challenged(agent: &Agent, request: &Request) -> Challenge {
    let answer = agent.ask(request);
    assert_eq!(answer.status(), Some(401), "{answer:?}");
    Challenge::of(&answer)
}

#[test]
fn a_challenge_of_one_server_is_answered_at_the_other() {
    for is_shared in [true, false] {
        let place = Place::new("shared-nonce");
        let conf = alike(&place, guarded(&place, &["phone"]));
        let conf = if is_shared { shared(conf) } else { conf };
        let (one, other) = both(&place, &conf);
        let phone = Agent::new(place.at(CALLER), one.address);
        let request = register(&phone);
        let asked = challenged(&phone, &request);
        let login = |count| Login::new("phone", "open-phone").counting(count);
        let answer = |count| login(count).answer(&request, &asked, &request.uri);
        drop(phone);
        // Whoever has overheard it is somewhere else.
        let thief = Agent::new(place.at(STRANGER), other.address);
        let refused = thief.ask(&answer(1));
        assert_eq!(refused.status(), Some(401));
        assert!(Challenge::of(&refused).stale);

        let phone = Agent::new(place.at(CALLER), other.address);
        if !is_shared {
            let refused = phone.ask(&answer(1));
            assert!(refused.status() == Some(401) && Challenge::of(&refused).stale, "{refused:?}");
            continue;
        }
        for count in 1..=2 {
            assert_eq!(phone.ask(&answer(count)).status(), Some(200), "{count}");
            assert_eq!(phone.ask(&answer(count)).status(), Some(401), "{count}");
        }
        drop(phone);
        // The first counts for itself.
        let phone = Agent::new(place.at(CALLER), one.address);
        assert_eq!(phone.ask(&answer(1)).status(), Some(200));
        assert_eq!(phone.ask(&answer(1)).status(), Some(401));
        drop(phone);
        // What was used before a restart is not used again.
        stop(other);
        let other = conf.beside(&place, "other", OTHER).start(&place);
        let phone = Agent::new(place.at(CALLER), other.address);
        let refused = phone.ask(&answer(3));
        assert!(refused.status() == Some(401) && Challenge::of(&refused).stale, "{refused:?}");
        let again = login(1).answer(&request, &Challenge::of(&refused), &request.uri);
        assert_eq!(phone.ask(&again).status(), Some(200));
    }
}

// ---- calls -------------------------------------------------------------------------------------------------------------

fn is(method: &str) -> impl Fn(&Message) -> bool {
    move |message| message.is(method)
}

/// A call that is up: the INVITE as it was sent, as it was got, and its answer.
struct Call {
    invite: Request,
    at_bob: Message,
    ok: Message,
}

fn phones(place: &Place, server: &Server) -> (Agent, Agent) {
    (Agent::new(place.at(CALLER), server.address), Agent::new(place.at(CALLEE), server.address))
}

fn call(place: &Place, server: &Server) -> Call {
    let (alice, bob) = phones(place, server);
    server.bind(place, "bob", bob.address);
    let invite = alice.request("INVITE", &server.uri("bob"));
    alice.send(&invite);
    let at_bob = bob.expect("the INVITE", is("INVITE"));
    bob.accept(&at_bob);
    let ok = alice.final_for(&invite);
    assert_eq!(ok.status(), Some(200), "{ok:?}");
    alice.send(&alice.in_dialog("ACK", &invite, &ok));
    bob.expect("the ACK", is("ACK"));
    Call { invite, at_bob, ok }
}

impl Call {
    /// Both say something within the call at this server, the second of them goodbye if `ends`.
    fn goes_on(&self, place: &Place, server: &Server, ends: bool) {
        let (alice, bob) = phones(place, server);
        let mut info = bob.request("INFO", &self.at_bob.contacts()[0]);
        info.from = self.ok.header("to").unwrap().to_owned();
        info.to.clone_from(&self.invite.from);
        info.call_id.clone_from(&self.invite.call_id);
        info.extra = self.at_bob.all("record-route").iter().map(|route| format!("Route: {route}")).collect();
        bob.send(&info);
        let at_alice = alice.expect("the INFO", is("INFO"));
        alice.respond(&at_alice, 200, &[]);
        assert_eq!(bob.final_for(&info).status(), Some(200));
        let method = if ends { "BYE" } else { "INFO" };
        let request = alice.in_dialog(method, &self.invite, &self.ok);
        alice.send(&request);
        let at_bob = bob.expect(method, is(method));
        bob.respond(&at_bob, 200, &[]);
        assert_eq!(alice.final_for(&request).status(), Some(200));
    }
}

#[test]
fn a_call_that_was_set_up_through_one_server_goes_on_and_ends_through_the_other() {
    let place = Place::new("shared-call");
    let (one, other) = both(&place, &shared(alike(&place, Conf::new(&place))));
    let call = call(&place, &one);
    call.goes_on(&place, &other, false);
    call.goes_on(&place, &one, false);
    call.goes_on(&place, &other, true);
}

#[test]
fn a_call_outlives_the_secret_that_it_began_with() {
    let place = Place::new("shared-rotation");
    let conf = alike(&place, Conf::new(&place)).set("proxy", "in_dialog_without_route", "\"refuse\"");
    let secret = |digit: &str| digit.repeat(64);
    let (old, new) = (secret("a"), secret("b"));
    let write = |lines: &[&String]| {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let path = place.write("key", &text);
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    write(&[&old]);
    let server = conf.start(&place);
    let first = call(&place, &server);
    write(&[&old, &new]);
    server.signal("HUP");
    server.expect_log(&["key file", "it has changed", "restart"]);
    stop(server);
    // The new one is accepted, then it signs, and then it is alone.
    let server = conf.start(&place);
    first.goes_on(&place, &server, false);
    stop(server);
    write(&[&new, &old]);
    let server = conf.start(&place);
    first.goes_on(&place, &server, false);
    let second = call(&place, &server);
    stop(server);
    write(&[&new]);
    let server = conf.start(&place);
    second.goes_on(&place, &server, true);
    // The old one is gone, and its calls are nobody's.
    let (alice, bob) = phones(&place, &server);
    let bye = alice.in_dialog("BYE", &first.invite, &first.ok);
    let refused = alice.ask(&bye);
    assert!(refused.status() >= Some(400), "{refused:?}");
    assert!(bob.collect(Duration::from_millis(300)).iter().all(|message| !message.is("BYE")));
}

#[test]
fn a_file_of_secrets_that_is_broken_stops_the_start_and_says_why() {
    let place = Place::new("shared-broken");
    let conf = alike(&place, Conf::new(&place));
    let path = place.write("key", &format!("{}\nnot a secret\n", "a".repeat(64)));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let file = conf.write(&place).display().to_string();
    let outcome = crate::process::run(&place, "broken", crate::server::binary(), &["run", "-c", &file], Duration::from_secs(10));
    assert_ne!(outcome.code, Some(0));
    assert!(outcome.stderr.contains("line 2: it must hold 64 hexadecimal digits"), "{}", outcome.stderr);
}
