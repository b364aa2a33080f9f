//! What counts as a binding: phones that come back by another way, dead connections, numbers that are used again, contacts that are too many,
//! too long or lead back, and rows of the database that no message could have brought.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::agent::{Agent, Request};
use crate::message::Message;
use crate::pki::{Authority, Kind};
use crate::place::{CALLEE, CALLER, Place, SECOND_CALLEE, SERVER, wait_for};
use crate::process;
use crate::server::{Conf, Server};

const INSTANCE: &str = "+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-000A95A0E128>\"";

/// What `phone` answers to a call of `user`, whom only one contact must lead to; the caller's final response.
fn call(place: &Place, server: &Server, user: &str, phone: &Agent) -> Message {
    let caller = Agent::new(place.at_port(CALLER, 0), server.address);
    let invite = caller.request("MESSAGE", &server.uri(user));
    caller.send(&invite);
    let at_phone = phone.expect("the MESSAGE", |m| m.is("MESSAGE"));
    phone.respond(&at_phone, 200, &[]);
    caller.final_for(&invite)
}

#[test]
fn a_phone_that_registers_anew_by_connection_after_connection_is_called_by_the_last() {
    let place = Place::new("anew");
    let authority = Authority::new(&place, "ca");
    let certificate = authority.issue(&place, "server", Kind::Ecdsa, &["sip.example.test"]);
    let server = Conf::new(&place)
        .stream("tcp", place.at(SERVER))
        .tls(&place, &[&certificate])
        .set("server", "cores", "[0, 1]")
        .start(&place);
    let domain = server.address.to_string();
    for (user, secure, instance, keeps_open) in
        [("one", false, "", false), ("two", false, INSTANCE, true), ("three", true, "", false), ("four", true, INSTANCE, true)]
    {
        let mut open = Vec::new();
        for n in 0..14 {
            let phone = match secure {
                true => {
                    let name = "sip.example.test";
                    Agent::tls(place.ip(CALLEE), server.secure(), &authority, name, None)
                }
                false => Agent::tcp(place.ip(CALLEE), server.address),
            };
            let mut contact = format!("<{}>", phone.uri());
            if !instance.is_empty() {
                contact += &format!(";{instance}");
            }
            let answer = phone.ask(&phone.register(&domain, user, &contact, 600));
            assert_eq!(answer.status(), Some(200), "{user} {n}: {answer:?}");
            if !instance.is_empty() {
                assert_eq!(answer.contacts().len(), 1, "{answer:?}");
            }
            // The server sees that the one before has gone.
            if !keeps_open {
                open.clear();
                std::thread::sleep(Duration::from_millis(20));
            }
            open.push(phone);
        }
        let last = open.pop().expect("the last phone");
        let answer = call(&place, &server, user, &last);
        assert_eq!(answer.status(), Some(200), "{user}: {answer:?}");
        // Whoever else is there was not called.
        for other in &open {
            assert!(other.receive(Duration::from_millis(10)).is_none(), "{user}");
        }
        let shown = server.show(&place, user);
        assert!(shown.stdout.contains(&last.uri()), "{shown:?}");
    }
}

#[test]
fn a_phone_that_registers_anew_from_port_after_port_has_one_binding() {
    let place = Place::new("ports");
    let server = Conf::new(&place).start(&place);
    let domain = server.address.to_string();
    let mut phones = Vec::new();
    for n in 0..14u16 {
        let phone = Agent::new(place.at_port(CALLEE, 20_000 + n), server.address);
        let instance = match n % 2 {
            0 => INSTANCE.to_owned(),
            _ => INSTANCE.to_ascii_lowercase(),
        };
        let contact = format!("<{}>;{instance}", phone.uri());
        let answer = phone.ask(&phone.register(&domain, "moving", &contact, 600));
        assert_eq!(answer.status(), Some(200), "{n}: {answer:?}");
        assert_eq!(answer.contacts().len(), 1, "{n}: {answer:?}");
        phones.push(phone);
    }
    let last = phones.pop().expect("the last phone");
    assert_eq!(call(&place, &server, "moving", &last).status(), Some(200));
    for other in &phones {
        assert!(other.receive(Duration::from_millis(5)).is_none());
    }
    // Ten living contacts of no instance are ten, and the eleventh is too many.
    for n in 0..11 {
        let contact = format!("<sip:agent@{}>", place.at_port(SECOND_CALLEE, 21_000 + n));
        let answer = last.ask(&last.register(&domain, "many", &contact, 600));
        let expected = if n < 10 { 200 } else { 403 };
        assert_eq!(answer.status(), Some(expected), "{n}: {answer:?}");
    }
}

#[test]
fn numbers_that_were_used_are_good_for_the_same_register_alone() {
    let place = Place::new("numbers");
    let server = Conf::new(&place).stream("tcp", place.at(SERVER)).start(&place);
    let domain = server.address.to_string();
    for stream in [false, true] {
        let phone = match stream {
            true => Agent::tcp(place.ip(CALLEE), server.address),
            false => Agent::new(place.at(CALLEE), server.address),
        };
        let user = if stream { "t" } else { "u" };
        let first = phone.register(&domain, user, "<sip:a@192.0.2.1>", 600);
        // The 200s are lost: the same bytes come again and again.
        for _ in 0..3 {
            let answer = phone.ask(&first);
            assert_eq!(answer.status(), Some(200), "{answer:?}");
            assert_eq!(answer.contacts().len(), 1);
        }
        let others = [
            ("<sip:a@192.0.2.1>", 0),
            ("<sip:evil@192.0.2.66>", 600),
            ("<sip:a@192.0.2.1>, <sip:evil@192.0.2.66>", 600),
            ("*", 0),
            ("<sip:a@192.0.2.1>", 60),
        ];
        for (contact, expires) in others {
            for same_branch in [true, false] {
                let mut other = phone.register(&domain, user, contact, expires);
                other.call_id = first.call_id.clone();
                other.cseq = first.cseq;
                if same_branch {
                    (other.via, other.from) = (first.via.clone(), first.from.clone());
                }
                let answer = phone.ask(&other);
                assert_eq!(answer.status(), Some(500), "{contact} {expires}: {answer:?}");
            }
        }
        let bound = phone.ask(&phone.register(&domain, user, "", 600));
        assert_eq!(bound.contacts().len(), 1, "{bound:?}");
        assert!(bound.contacts()[0].contains("192.0.2.1"), "{bound:?}");
        // The same by another branch, as after a failover.
        let mut elsewhere = first.clone();
        elsewhere.via = phone.request("REGISTER", "sip:x").via;
        assert_eq!(phone.ask(&elsewhere).status(), Some(200));
    }
}

fn register_over_tcp(agent: &Agent, server: &Server, contact: &str) -> Request {
    agent.register(&server.address.to_string(), "wide", contact, 600)
}

#[test]
fn contacts_that_are_too_many_or_too_long_are_refused_and_soon() {
    let place = Place::new("wide");
    let mut server = Conf::new(&place).stream("tcp", place.at(SERVER)).start(&place);
    let agent = Agent::tcp(place.ip(CALLEE), server.address);
    let many: String = (0..31).map(|n| format!(";p{n}=v")).collect();
    let wide = |n: usize| format!("<sip:a@192.0.2.1{many};last={n}>");
    for n in 0..40 {
        let ask = |contact: &str| agent.ask(&register_over_tcp(&agent, &server, contact)).status();
        assert_eq!(ask(&wide(n)), Some(200));
        if n < 30 {
            assert_eq!(ask(&format!("{};expires=0", wide(n))), Some(200));
        }
    }
    let start = Instant::now();
    for _ in 0..10 {
        let list = (100..380).map(wide).collect::<Vec<_>>().join(",");
        assert!(list.len() > 55_000);
        let mut request = register_over_tcp(&agent, &server, &list);
        request.extra = vec!["Expires: 0".to_owned()];
        assert_eq!(agent.ask(&request).status(), Some(403));
    }
    // Each took 0.4 to 1.2 s of the server's time once.
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    let long = format!("<sip:{}@192.0.2.1>", "x".repeat(50_000));
    let answer = agent.ask(&register_over_tcp(&agent, &server, &long));
    assert_eq!(answer.status(), Some(400), "{answer:?}");
    assert!(answer.start.ends_with("Contact Too Long"), "{answer:?}");
    server.expect_log(&["REGISTER", "Contact Too Long"]);
    assert!(server.stat(&place, "strowger_limit_hits_total{limit=\"contact_size\"}") >= 1.0);
    assert_eq!(server.stat(&place, "strowger_bindings"), 10.0);
    server.assert_alive(&place, SECOND_CALLEE);
}

#[test]
fn contact_size_is_what_the_conf_says() {
    let place = Place::new("contact-size");
    let server = Conf::new(&place).set("limits", "contact_size", "\"200B\"").start(&place);
    let agent = Agent::new(place.at(CALLEE), server.address);
    let contact = |length: usize| {
        let rest = "<sip:a@192.0.2.1;x=>".len();
        format!("<sip:a@192.0.2.1;x={}>", "y".repeat(length - rest))
    };
    let ask = |contact: &str| agent.ask(&register_over_tcp(&agent, &server, contact)).status();
    assert_eq!(ask(&contact(200)), Some(200));
    assert_eq!(ask(&contact(201)), Some(400));
}

#[test]
fn ten_contacts_that_name_herself_are_called_by_nobody() {
    let place = Place::new("herself");
    let mut server = Conf::new(&place).start(&place);
    let domain = server.address.to_string();
    let agent = Agent::new(place.at(CALLEE), server.address);
    let ten: Vec<_> = (0..10).map(|n| format!("<sip:%73elf@{domain};x={n}>")).collect();
    let mut register = agent.register(&domain, "self", &ten.join(","), 600);
    // No symmetric answers: the contact says where it is.
    register.via = register.via.replace(";rport", "");
    assert_eq!(agent.ask(&register).status(), Some(200));
    let received = server.stat(&place, "strowger_messages_total");
    let caller = Agent::new(place.at(CALLER), server.address);
    let invite = caller.request("INVITE", &server.uri("self"));
    let answer = caller.ask(&invite);
    assert_eq!(answer.status(), Some(480), "{answer:?}");
    caller.acknowledge(&invite, &answer);
    let ack = caller.request("ACK", &server.uri("self"));
    caller.send(&ack);
    std::thread::sleep(Duration::from_millis(300));
    let more = server.stat(&place, "strowger_messages_total") - received;
    assert!(more < 20.0, "{more} messages");
    // They count, as any other.
    let phone = agent.register(&domain, "self", &format!("<{}>", agent.uri()), 600);
    assert_eq!(agent.ask(&phone).status(), Some(403), "ten there are already");
    server.assert_alive(&place, SECOND_CALLEE);
}

#[test]
fn rows_that_no_message_could_have_brought_are_not_served() {
    let place = Place::new("rows");
    let conf = Conf::new(&place);
    let server = conf.start(&place);
    let domain = server.address.to_string();
    let phone = Agent::new(place.at(CALLEE), server.address);
    for user in ["good", "bad", "worse"] {
        let contact = format!("<{}>", phone.uri());
        let answer = phone.ask(&phone.register(&domain, user, &contact, 600));
        assert_eq!(answer.status(), Some(200));
    }
    server.signal("TERM");
    let outcome = server.finish(Duration::from_secs(20));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let file = place.path("strowger.db").display().to_string();
    let change = "UPDATE strowger_binding SET contact = contact || char(13, 10) || 'X-Injected: yes' \
                  WHERE aor LIKE 'bad@%';\
                  UPDATE strowger_binding SET call_id = 'x' || char(13, 10) || 'X-Injected: yes', \
                  path = '<sip:p;lr>' || char(13, 10) || 'X-Injected: yes' WHERE aor LIKE 'worse@%';";
    let arguments = ["-batch", file.as_str(), change];
    let patience = Duration::from_secs(20);
    let outcome = process::run(&place, "sqlite3", Path::new("sqlite3"), &arguments, patience);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");

    let server = conf.start(&place);
    server.expect_log(&["strowger.db", "2 bindings cannot be used", "not a URI"]);
    let phone = Agent::new(place.at_port(CALLEE, 5070), server.address);
    for (user, count) in [("good", 1), ("bad", 0), ("worse", 0)] {
        let answer = phone.ask(&phone.register(&domain, user, "", 600));
        assert_eq!((answer.status(), answer.contacts().len()), (Some(200), count));
        assert_eq!(answer.header("x-injected"), None, "{answer:?}");
    }
    let unusable = wait_for(Duration::from_secs(5), || {
        let count = server.stat(&place, "strowger_bindings_unusable_total");
        (count == 2.0).then_some(())
    });
    assert!(unusable.is_some(), "they are counted");
    let caller = Agent::new(place.at(CALLER), server.address);
    let answer = caller.ask(&caller.request("MESSAGE", &server.uri("bad")));
    assert_eq!(answer.status(), Some(404), "{answer:?}");
}

#[test]
fn an_operators_contact_is_one_that_a_message_could_bring() {
    let place = Place::new("by-hand");
    let server = Conf::new(&place).start(&place);
    let aor = format!("desk@{}", server.address.ip());
    let itself = format!("sip:desk@{}", server.address);
    let long = format!("sip:{}@192.0.2.1", "x".repeat(2000));
    for contact in ["sip:a@192.0.2.1\r\nX-Injected: yes", "sip:a@192.0.2.1>", "sip:a@192.0.2.1 b", "*", &itself, &long] {
        let outcome = server.command(&place, &["ul", "add", &aor, contact]);
        assert_eq!(outcome.code, Some(1), "{contact:?}: {outcome:?}");
    }
    for aor in ["desk\r\n@x", "desk\r\nX: y", "@x", ""] {
        let outcome = server.command(&place, &["ul", "add", aor, "sip:a@192.0.2.1"]);
        assert_eq!(outcome.code, Some(1), "{aor:?}: {outcome:?}");
    }
    assert_eq!(server.stat(&place, "strowger_bindings"), 0.0);
    // A name as it is typed is written as a URI has it.
    let outcome = server.command(&place, &["ul", "add", "de sk>@x", "sip:a@192.0.2.1"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let shown = server.command(&place, &["ul", "show"]);
    assert!(shown.stdout.contains("sip:de%20sk%3E@x"), "{shown:?}");
    for n in 0..11 {
        let contact = format!("sip:a{n}@192.0.2.1");
        let outcome = server.command(&place, &["ul", "add", &aor, &contact]);
        assert_eq!(outcome.code, Some(i32::from(n == 10)), "{n}: {outcome:?}");
    }
}
