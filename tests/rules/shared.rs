//! Several servers with one secret, and one secret that takes the place of another: what one server has given, each honours, and nobody
//! finds by it what another server has.

use std::sync::Arc;
use strowger::base::{Channel, Flow, Key, Transport};
use strowger::stack::Settings;
use strowger::stack::auth::nonce::Nonces;
use strowger::stack::counters::AuthOutcome;

use crate::auth::{self, BOBS, Client, challenge};
use crate::bench::*;
use crate::flows;
use crate::message::Request;
use crate::tokens::{self, ALICES_CONTACT, BOBS_CONTACT};

/// Since 1970, in milliseconds.
const WALL: u64 = 1_800_000_000_000;
const OLD: Key = SECRET;
const NEW: Key = Key::new(0x0bad, 0x5eed);

/// Another server than those with other runs.
fn begin(b: &mut Bench, run: u32) {
    share(b, Nonces::new(SECRET, run, 1000));
}

fn share(b: &mut Bench, nonces: Nonces) {
    let nonces = Arc::new(nonces);
    for core in &mut b.cores {
        core.share_nonces(nonces.clone());
    }
}

// ---- nonces ----------------------------------------------------------------------------------------------------------------

fn registrar(run: u32, is_shared: bool) -> Bench {
    let mut b = auth::registrar();
    let nonces = Nonces::new(SECRET, run, 1000);
    share(&mut b, if is_shared { nonces.shared(WALL, 0) } else { nonces });
    b
}

#[test]
fn a_challenge_of_one_server_is_answered_at_another_once_for_each_count() {
    let (mut one, mut other) = (registrar(1, true), registrar(2, true));
    let asked = challenge(&auth::ask(&mut one), "SHA-256");
    for nc in 1..=3 {
        let client = Client { nc, ..BOBS };
        for b in [&mut other, &mut one] {
            assert_eq!(auth::register_with(b, &client, &asked).status(), 200, "{nc}");
        }
        for b in [&mut other, &mut one] {
            assert_eq!(auth::register_with(b, &client, &asked).status(), 401, "{nc}");
        }
    }
    for b in [&one, &other] {
        assert_eq!((b.outcomes(AuthOutcome::Accepted), b.outcomes(AuthOutcome::Replayed)), (3, 3));
    }
    // Time goes on at both alike.
    other.now += 10 * 60_000;
    let late = auth::register_with(&mut other, &Client { nc: 4, ..BOBS }, &asked);
    assert_eq!(late.status(), 401);
    assert_eq!(other.outcomes(AuthOutcome::Stale), 1);
}

#[test]
fn whoever_has_overheard_an_answer_uses_it_nowhere_else_from_another_address() {
    let (mut one, mut other) = (registrar(1, true), registrar(2, true));
    let asked = challenge(&auth::ask(&mut one), "SHA-256");
    let overheard = || auth::register().add(&format!("Authorization: {}", BOBS.answer(&asked, "REGISTER", "")));
    let taken = overheard().set("Contact", "<sip:thief@10.0.1.3:5060>");
    let refused = other.send_for_one(CAROL, taken);
    assert_eq!(refused.status(), 401);
    assert_eq!(auth::said(&challenge(&refused, "SHA-256"), "stale"), Some("true"));
    assert_eq!(other.send_for_one(BOB, overheard()).status(), 200, "its owner may still");
}

#[test]
fn servers_that_share_nothing_take_each_others_nonces_for_old_ones() {
    for (shared, alone) in [(true, false), (false, true), (false, false)] {
        let (mut one, mut other) = (registrar(1, shared), registrar(2, alone));
        let asked = challenge(&auth::ask(&mut one), "SHA-256");
        let refused = auth::register_with(&mut other, &BOBS, &asked);
        assert_eq!(refused.status(), 401, "{shared} {alone}");
        assert_eq!(auth::said(&challenge(&refused, "SHA-256"), "stale"), Some("true"));
        assert_eq!(auth::register_with(&mut one, &BOBS, &asked).status(), 200);
    }
}

// ---- dialogs and transactions ----------------------------------------------------------------------------------------------

fn plain(secrets: &[Key], run: u32) -> Bench {
    let mut b = Bench::signed(secrets, None, |_| ());
    begin(&mut b, run);
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    b
}

#[test]
fn a_dialog_goes_on_at_another_server() {
    let (mut one, mut other) = (plain(&[SECRET], 1), plain(&[SECRET], 2));
    let call = tokens::call(&mut one);
    for method in ["ACK", "INFO", "INVITE", "BYE"] {
        let sent = other.send(ALICE, call.by_caller(method, BOBS_CONTACT));
        assert_eq!(the(&sent, "10.0.1.2:5071").method(), method);
        let sent = other.send(BOB, call.by_callee(method, ALICES_CONTACT));
        assert_eq!(the(&sent, ALICE).method(), method);
    }
    // It leads nowhere else than at the first.
    for b in [&mut one, &mut other] {
        let elsewhere = b.send_for_one(ALICE, call.by_caller("INFO", "sip:victim@10.9.9.9"));
        assert_eq!(elsewhere.status(), 403);
        let by_stranger = call.by_caller("INFO", BOBS_CONTACT).from("<sip:carol@example.com>;tag=alice");
        assert_eq!(b.send_for_one(CAROL, by_stranger).status(), 403);
    }
}

#[test]
fn a_connection_of_one_server_is_none_of_another() {
    for stream in [Transport::Tcp, Transport::Tls] {
        let (mut one, mut other) = (flows::bench(), flows::bench());
        begin(&mut one, 1);
        begin(&mut other, 2);
        let call = flows::call(&mut one, stream, stream);
        // Strangers have connections there, under the very names that the two phones have at the first.
        let (Channel::Connection { .. }, Channel::Connection { .. }) = (call.callee.channel, call.caller.channel) else {
            panic!("no connections");
        };
        let strangers = [3, 4].map(|slot| other.open(stream, 0, slot, "203.0.113.9:7777"));
        assert_eq!((strangers[0].channel, strangers[1].channel), (call.callee.channel, call.caller.channel));
        let is_theirs = |flow: &Flow| strangers.iter().any(|stranger| stranger.channel == flow.channel);
        for (from, request, contact) in
            [(OTHER_END, call.by_caller("BYE"), "192.168.0.5:5060"), (OTHER_END, call.by_callee("BYE"), "192.168.0.7:5060")]
        {
            let sent = other.send(from, request.by(Transport::Udp));
            let left = sent.iter().find(|s| s.method() == "BYE").unwrap();
            assert!(!is_theirs(&left.flow) && left.to == contact, "{left}");
        }
        // The first has them still.
        let sent = one.send_on(0, call.caller, call.by_caller("BYE"));
        assert_eq!(sent.iter().find(|s| s.method() == "BYE").unwrap().flow, call.callee);
    }
}

/// Where the phones send from when they come to the other server.
const OTHER_END: &str = "198.51.100.9:40000";

#[test]
fn the_way_of_datagrams_leads_out_by_a_listener_and_an_address_of_the_server_it_has_come_to() {
    let mut one = Bench::with(|settings| settings.listeners = vec![listener(PROXY)]);
    begin(&mut one, 1);
    let local = "10.0.0.1".parse().ok();
    let alice = Flow::datagram(0, address("198.51.100.8:40999")).from_local(local);
    let invite = Request::invite().via("192.168.0.7:5060;rport", "z9hG4bKcall").set("Contact", "<sip:alice@192.168.0.7:5060>");
    one.register("bob", "<sip:bob@10.0.1.2:5060>");
    let sent = one.send_on(0, alice, &invite);
    let at_bob = the(&sent, BOB).clone();
    let by_callee = |call_id: &str| {
        Request::new("BYE", "sip:alice@192.168.0.7:5060")
            .via(BOB, &format!("z9hG4bKt{}", crate::message::unique()))
            .call_id(call_id)
            .from("<sip:bob@example.com>;tag=callee")
            .to("<sip:alice@example.com>;tag=alice")
            .add(&format!("Route: {}", at_bob.header("Record-Route").unwrap()))
    };
    let bye = by_callee(at_bob.header("Call-ID").unwrap());
    let here = only(one.send(BOB, &bye));
    assert_eq!((here.flow.peer, here.flow.listener, here.flow.channel), (alice.peer, 0, alice.channel));

    // There UDP is not the first listener, and the first one's address is another machine's.
    let mut other = Bench::with(|settings| {
        let (udp, tcp) = (listener("10.0.0.9:5060"), listener("10.0.0.9:5060"));
        settings.listeners = vec![strowger::stack::settings::Listener { transport: Transport::Tcp, ..tcp }, udp];
        settings.domains.push(b"10.0.0.1".to_vec());
        settings.local_addresses = vec!["10.0.0.9".parse().unwrap()];
    });
    begin(&mut other, 2);
    let there = only(other.send_by(0, 1, BOB, &bye));
    assert_eq!((there.method(), there.flow.peer, there.flow.listener), ("BYE", alice.peer, 1));
    assert_eq!(there.flow.channel, Channel::Datagram { local: None });
}

#[test]
fn a_response_that_comes_to_another_server_ends_no_transaction_there() {
    let (mut one, mut other) = (plain(&[SECRET], 1), plain(&[SECRET], 2));
    let at_bob = the(&one.send(ALICE, Request::invite()), BOB).clone();
    let others = the(&other.send(ALICE, Request::invite()), BOB).clone();
    let waiting = other.client_transactions();
    assert!(waiting > 0);
    let sent = other.send(BOB, at_bob.answer(200));
    assert!(sent.is_empty(), "{}", show(&sent));
    let sent = other.send(BOB, at_bob.answer(486));
    assert!(sent.is_empty(), "{}", show(&sent));
    assert_eq!(other.client_transactions(), waiting);
    let ok = other.send(BOB, others.answer(200));
    assert_eq!(the(&ok, ALICE).status(), 200);
    let ok = one.send(BOB, at_bob.answer(200));
    assert_eq!(the(&ok, ALICE).status(), 200);
}

// ---- another secret ----------------------------------------------------------------------------------------------------------

#[test]
fn a_dialog_outlives_the_secret_that_signed_it_while_it_is_accepted() {
    let call = tokens::call(&mut plain(&[OLD], 1));
    for secrets in [&[OLD, NEW][..], &[NEW, OLD], &[Key::new(7, 7), NEW, OLD]] {
        let mut b = plain(secrets, 2);
        for method in ["INFO", "INVITE", "BYE", "ACK"] {
            let sent = b.send(ALICE, call.by_caller(method, BOBS_CONTACT));
            assert_eq!(the(&sent, "10.0.1.2:5071").method(), method);
            let sent = b.send(BOB, call.by_callee(method, ALICES_CONTACT));
            assert_eq!(the(&sent, ALICE).method(), method);
        }
        let elsewhere = b.send_for_one(ALICE, call.by_caller("INFO", "sip:victim@10.9.9.9"));
        assert_eq!(elsewhere.status(), 403, "{secrets:?}");
        let by_stranger = call.by_caller("INFO", BOBS_CONTACT).from("<sip:carol@example.com>;tag=alice");
        assert_eq!(b.send_for_one(CAROL, by_stranger).status(), 403);
    }
    let mut without = plain(&[NEW], 2);
    let sent = without.send(ALICE, call.by_caller("INFO", BOBS_CONTACT));
    assert!(sent.iter().all(|s| s.to != "10.0.1.2:5071"), "{}", show(&sent));
}

#[test]
fn a_server_that_signs_with_the_new_secret_is_understood_by_those_that_sign_with_the_old_one() {
    let call = tokens::call(&mut plain(&[NEW, OLD], 1));
    let mut b = plain(&[OLD, NEW], 2);
    let sent = b.send(ALICE, call.by_caller("BYE", BOBS_CONTACT));
    assert_eq!(the(&sent, "10.0.1.2:5071").method(), "BYE");
}

#[test]
fn a_request_that_passed_under_the_old_secret_is_a_loop_or_a_spiral_under_the_new_one() {
    let mut before = plain(&[OLD], 1);
    let at_bob = the(&before.send(ALICE, Request::invite()), BOB).clone();
    let again = |uri: &str| {
        let text = at_bob.to_string();
        let (_, rest) = text.split_once(' ').unwrap().1.split_once(' ').unwrap();
        format!("INVITE {uri} {}", rest.replacen("Via:", "Via: SIP/2.0/UDP 10.0.1.2:5060;branch=z9hG4bKbobs\r\nVia:", 1))
    };
    for (secrets, is_known) in [(&[NEW, OLD][..], true), (&[NEW], false)] {
        let mut b = plain(secrets, 2);
        b.register("carol", "<sip:carol@10.0.1.3:5060>");
        // To where it was sent from here: the Request-URI that it came with.
        let sent = b.send(BOB, again("sip:bob@example.com").as_str());
        assert_eq!(sent.iter().any(|s| s.status() == 482), is_known, "{}", show(&sent));
        let sent = b.send(BOB, again("sip:carol@example.com").replace("z9hG4bKbobs", "z9hG4bKbobs2").as_str());
        assert_eq!(the(&sent, CAROL).method(), "INVITE");
    }
}

#[test]
fn who_proved_its_name_under_the_old_secret_is_not_asked_again_on_the_next_pass() {
    let at_bob = {
        let mut b = tokens::guarded(|_| ());
        tokens::at_bob(&mut b)
    };
    for (secrets, asked) in [(&[NEW, OLD][..], false), (&[NEW], true)] {
        let mut b = Bench::signed(secrets, None, |settings: &mut Settings| settings.auth.challenge_proxy = true);
        b.know(&[("alice", "a"), ("bob", "b")]);
        b.register("carol", "<sip:carol@10.0.1.3:5060>");
        let sent = b.send(BOB, tokens::sent_on(&at_bob, "sip:carol@example.com", |text| text).as_str());
        let passes = sent.iter().any(|s| s.to == CAROL && s.method() == "INVITE");
        assert_eq!(passes, !asked, "{secrets:?}: {}", show(&sent));
    }
}

#[test]
fn the_ack_to_an_answer_signed_with_the_old_secret_stays_here() {
    let refused = Request::invite().set("Max-Forwards", "0");
    let answer = plain(&[OLD], 1).send_for_one(ALICE, &refused);
    assert!(answer.status() >= 300, "{answer}");
    let ack = refused.ack(&answer).via("10.0.1.1:5060", "z9hG4bKanother");
    let mut b = plain(&[NEW, OLD], 2);
    let sent = b.send(ALICE, &ack);
    assert!(sent.is_empty(), "{}", show(&sent));
}
