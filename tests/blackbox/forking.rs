//! One address-of-record, several phones: who rings, who is cancelled, what the caller hears.

use std::time::Duration;

use crate::UAC;
use crate::agent::{Agent, Request};
use crate::calls::callee;
use crate::failures::{UAS_RINGS, assert_cancels, assert_hop_ack};
use crate::message::Message;
use crate::place::{CALLEE, CALLEE_TAP, CALLER, CALLER_TAP, Place, SECOND_CALLEE, SECOND_CALLEE_TAP};
use crate::server::{Conf, Server};
use crate::sipp::{Scenario, Sipp};
use crate::tap::{Tap, Way};

/// Two SIPp phones ring at once; one answers, the other is cancelled, and the caller never hears of it.
#[test]
fn one_answers_and_the_other_is_cancelled() {
    let place = Place::new("fork");
    let server = Conf::new(&place).start(&place);
    let before = Tap::new(place.at(CALLER_TAP), server.address);
    let winner = Tap::new(place.at(CALLEE_TAP), place.at(CALLEE));
    let loser = Tap::new(place.at(SECOND_CALLEE_TAP), place.at(SECOND_CALLEE));
    server.bind(&place, "bob", winner.address);
    server.bind(&place, "bob", loser.address);
    let answering = callee(&place, "uas", CALLEE, winner.address).with(&["-d", "300"]).calls(10).answer();
    let ringing = Sipp::new(&place, "ringing", place.at(SECOND_CALLEE), Scenario::Text(UAS_RINGS))
        .with(&["-key", "contact_user", "bob", "-key", "contact", &loser.address.to_string()])
        .calls(10)
        .answer();
    Sipp::new(&place, "uac", place.at(CALLER), Scenario::Text(UAC))
        .calls(10)
        .with(&["-d", "100"])
        .call("bob", server.address, before.address)
        .succeed(10);
    answering.succeed(10);
    ringing.succeed(10);

    assert_eq!(winner.requests(Way::Forth, "CANCEL").len(), 0, "who has answered is not cancelled");
    let lost = crate::calls::by_call(loser.seen(Way::Forth));
    let won = crate::calls::by_call(winner.seen(Way::Forth));
    assert_eq!((lost.len(), won.len()), (10, 10));
    for (call, lost) in &lost {
        assert_eq!(lost.iter().map(Message::method).collect::<Vec<_>>(), ["INVITE", "CANCEL", "ACK"]);
        assert_cancels(&lost[0], &lost[1]);
        assert_hop_ack(&lost[0], &lost[2]);
        assert_eq!(won[call].iter().map(Message::method).collect::<Vec<_>>(), ["INVITE", "ACK", "BYE"]);
        assert_ne!(
            lost[0].top_via().branch,
            won[call][0].top_via().branch,
            "each branch has a Via branch of its own (16.6, step 8)"
        );
    }
    assert_eq!(loser.responses(Way::Back, "INVITE", 487).len(), 10);
    for call in crate::calls::by_call(before.seen(Way::Back)).values() {
        let finals: Vec<_> = call.iter().filter(|message| message.is_final_for("INVITE")).map(Message::status).collect();
        assert_eq!(finals, [Some(200)]);
    }
}

/// By q: the better phone alone first; when it is busy, the next one.
#[test]
fn sequential_by_q() {
    let place = Place::new("sequential");
    let server = Conf::new(&place).set("proxy", "fork", r#""sequential""#).start(&place);
    let fork = Fork::new(&place, &server, &["0.4", "0.9", "0.4"]);
    let (third, first, second) = (&fork.phones[0], &fork.phones[1], &fork.phones[2]);
    let invite = fork.invite();
    let rung = first.expect("INVITE", |message| message.is("INVITE"));
    first.respond(&rung, 180, &[]);
    assert!(
        third.receive(Duration::from_millis(300)).is_none() && second.receive(Duration::from_millis(10)).is_none(),
        "the next in line do not ring yet"
    );
    first.respond(&rung, 486, &[]);
    assert_hop_ack(&rung, &first.expect("ACK", |message| message.is("ACK")));
    // Equal q: both at once.
    let rung_second = second.expect("INVITE", |message| message.is("INVITE"));
    let rung_third = third.expect("INVITE", |message| message.is("INVITE"));
    third.respond(&rung_third, 180, &[]);
    second.accept(&rung_second);
    assert_eq!(fork.caller.final_for(&invite).status(), Some(200));
    assert_cancels(&rung_third, &third.expect("CANCEL", |message| message.is("CANCEL")));
    assert!(first.collect(Duration::from_millis(200)).is_empty(), "a branch that has ended is not cancelled");
    let heard: Vec<_> = fork.caller.log().iter().filter_map(Message::status).collect();
    assert!(!heard.contains(&486), "{heard:?}");
}

/// Both phones answer at the same moment: the caller gets both (16.7, step 5: every 2xx at once) and must end one by itself.
#[test]
fn every_2xx_is_forwarded() {
    let place = Place::new("both");
    let server = Conf::new(&place).start(&place);
    let fork = Fork::new(&place, &server, &["1", "1"]);
    let invite = fork.invite();
    let rung: Vec<Message> = fork.phones.iter().map(|phone| phone.expect("INVITE", |message| message.is("INVITE"))).collect();
    fork.phones[0].accept(&rung[0]);
    fork.phones[1].accept(&rung[1]);
    let first = fork.caller.final_for(&invite);
    let second = fork.caller.final_for(&invite);
    assert_eq!((first.status(), second.status()), (Some(200), Some(200)));
    assert_ne!(first.to_tag(), second.to_tag());
    // A 2xx that comes late is still forwarded, and so is one that is said again.
    fork.phones[1].accept(&rung[1]);
    assert_eq!(fork.caller.final_for(&invite).to_tag(), Some(fork.phones[1].tag()));
}

/// What the caller hears when nobody takes the call (16.7, step 6).
#[test]
fn the_best_response_is_chosen() {
    for (said, heard) in [
        ([404, 486], vec![404, 486]),
        ([503, 486], vec![486]),
        ([500, 404], vec![404]),
        ([301, 486], vec![301]),
        ([480, 484], vec![484]),
        ([503, 503], vec![500, 503]),
    ] {
        let place = Place::new("best");
        let server = Conf::new(&place).start(&place);
        let fork = Fork::new(&place, &server, &["1", "1"]);
        let invite = fork.invite();
        for (phone, status) in fork.phones.iter().zip(said) {
            let rung = phone.expect("INVITE", |message| message.is("INVITE"));
            phone.respond(&rung, status, &["Contact: <sip:elsewhere@192.0.2.1>"]);
            assert_hop_ack(&rung, &phone.expect("ACK", |message| message.is("ACK")));
        }
        let answer = fork.caller.final_for(&invite);
        assert!(heard.contains(&answer.status().unwrap_or_default()), "{said:?} became {answer:?}");
        fork.caller.acknowledge(&invite, &answer);
        assert_eq!(
            fork.caller.collect(Duration::from_millis(100)).iter().filter(|message| message.is_final_for("INVITE")).count(),
            0
        );
    }
}

/// 6xx ends the search: the others are cancelled, and it is what the caller hears (16.7, step 5).
#[test]
fn a_6xx_ends_everything() {
    let place = Place::new("decline");
    let server = Conf::new(&place).start(&place);
    let fork = Fork::new(&place, &server, &["1", "1"]);
    let invite = fork.invite();
    let declining = fork.phones[0].expect("INVITE", |message| message.is("INVITE"));
    let ringing = fork.phones[1].expect("INVITE", |message| message.is("INVITE"));
    fork.phones[1].respond(&ringing, 180, &[]);
    fork.caller.expect("180", |message| message.answers("INVITE", 180));
    fork.phones[0].respond(&declining, 603, &[]);
    let cancel = fork.phones[1].expect("CANCEL", |message| message.is("CANCEL"));
    assert_cancels(&ringing, &cancel);
    fork.phones[1].respond(&cancel, 200, &[]);
    fork.phones[1].respond(&ringing, 487, &[]);
    assert_eq!(fork.caller.final_for(&invite).status(), Some(603));
}

/// A CANCEL goes to every branch that still rings, to no branch that has ended, and waits for the first provisional response of a branch that has
/// said nothing yet (9.1).
#[test]
fn cancel_reaches_the_pending_branches() {
    let place = Place::new("cancelfork");
    let server = Conf::new(&place).set("timers", "t1", r#""100ms""#).start(&place);
    let fork = Fork::new(&place, &server, &["1", "1", "1"]);
    let [ringing, busy, silent] = &fork.phones[..] else { panic!("three phones") };
    let invite = fork.invite();
    let rung = ringing.expect("INVITE", |message| message.is("INVITE"));
    ringing.respond(&rung, 180, &[]);
    fork.caller.expect("180", |message| message.answers("INVITE", 180));
    let refused = busy.expect("INVITE", |message| message.is("INVITE"));
    busy.respond(&refused, 486, &[]);
    busy.expect("ACK", |message| message.is("ACK"));
    let unheard = silent.expect("INVITE", |message| message.is("INVITE"));
    let cancel = invite.cancel();
    fork.caller.send(&cancel);
    assert_eq!(fork.caller.final_for(&cancel).status(), Some(200));
    let cancelled = ringing.expect("CANCEL", |message| message.is("CANCEL"));
    assert_cancels(&rung, &cancelled);
    ringing.respond(&cancelled, 200, &[]);
    ringing.respond(&rung, 487, &[]);
    assert!(
        silent.collect(Duration::from_millis(300)).iter().all(|message| message.is("INVITE")),
        "no CANCEL before a provisional response"
    );
    silent.respond(&unheard, 180, &[]);
    let cancelled = silent.expect("CANCEL", |message| message.is("CANCEL"));
    silent.respond(&cancelled, 200, &[]);
    silent.respond(&unheard, 487, &[]);
    let ended = fork.caller.final_for(&invite);
    assert!([486, 487].contains(&ended.status().unwrap_or_default()), "{ended:?}");
    assert!(busy.collect(Duration::from_millis(200)).iter().all(|message| !message.is("CANCEL")));
}

/// Max-Breadth (RFC 5393): none left is 440; what there is is shared among the branches.
#[test]
fn max_breadth() {
    let place = Place::new("breadth");
    let server = Conf::new(&place).start(&place);
    let fork = Fork::new(&place, &server, &["1", "1"]);
    let mut invite = fork.caller.request("INVITE", &server.uri("bob")).with("Max-Breadth: 0");
    let refused = fork.caller.ask(&invite);
    assert_eq!(refused.status(), Some(440), "{refused:?}");
    fork.caller.acknowledge(&invite, &refused);
    assert!(fork.phones.iter().all(|phone| phone.receive(Duration::from_millis(50)).is_none()));

    // One for two contacts: refused, or one after the other, but never both at once.
    invite = fork.caller.request("INVITE", &server.uri("bob")).with("Max-Breadth: 1");
    fork.caller.send(&invite);
    let rung: Vec<Message> = fork.phones.iter().filter_map(|phone| phone.receive(Duration::from_millis(300))).collect();
    if rung.is_empty() {
        let refused = fork.caller.final_for(&invite);
        assert_eq!(refused.status(), Some(440), "{refused:?}");
        fork.caller.acknowledge(&invite, &refused);
    } else {
        assert_eq!(rung.len(), 1, "two branches at once with Max-Breadth 1");
        assert_eq!(rung[0].header("max-breadth"), Some("1"));
        fork.caller.send(&invite.cancel());
    }

    for (line, most) in [("Max-Breadth: 9", 9), ("Subject: no breadth said", 60)] {
        let place = Place::new("breadthshare");
        let server = Conf::new(&place).start(&place);
        let fork = Fork::new(&place, &server, &["1", "1"]);
        let invite = fork.caller.request("INVITE", &server.uri("bob")).with(line);
        fork.caller.send(&invite);
        let shares: Vec<u32> = fork
            .phones
            .iter()
            .map(|phone| phone.expect("INVITE", |message| message.is("INVITE")))
            .map(|message| {
                message
                    .header("max-breadth")
                    .and_then(|value| value.parse().ok())
                    .unwrap_or_else(|| panic!("no Max-Breadth in {message:?}"))
            })
            .collect();
        assert!(shares.iter().sum::<u32>() <= most && shares.iter().all(|share| *share >= 1), "{line}: {shares:?}");
    }
}

/// A caller, and several phones that share one address-of-record.
struct Fork {
    caller: Agent,
    phones: Vec<Agent>,
    uri: String,
}

impl Fork {
    /// One phone for each q.
    fn new(place: &Place, server: &Server, qs: &[&str]) -> Fork {
        let domain = server.address.to_string();
        let phones = qs
            .iter()
            .zip(5060..)
            .map(|(q, port)| {
                let phone = Agent::new(place.at_port(CALLEE, port), server.address);
                let contact = format!("<sip:bob@{}>;q={q}", phone.address);
                assert_eq!(phone.ask(&phone.register(&domain, "bob", &contact, 600)).status(), Some(200));
                phone
            })
            .collect();
        Fork { caller: Agent::new(place.at(CALLER), server.address), phones, uri: server.uri("bob") }
    }

    fn invite(&self) -> Request {
        let invite = self.caller.request("INVITE", &self.uri);
        self.caller.send(&invite);
        invite
    }
}
