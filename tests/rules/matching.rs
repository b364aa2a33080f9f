//! Which transaction a message belongs to (RFC 3261 §17.2.3, §9.1), spelled and forged in every way.

use strowger::base::Transport;
use strowger::stack::settings::Mode;

use crate::bench::*;
use crate::message::{Request, Text};

const FRED: &str = "10.0.1.66:5060";

fn bench() -> Bench {
    let mut bench = Bench::with(|settings| settings.listeners = listeners());
    bench.register("bob", "<sip:bob@10.0.1.2:5060>");
    bench
}

/// An INVITE whose Via begins so, as far as it rings at Bob's.
fn ringing(b: &mut Bench, via: &str) -> (Request, Sent) {
    let request = Request::invite().set("Via", &format!("{via};rport;branch=z9hG4bKfixed"));
    let sent = b.send(ALICE, &request);
    let at_bob = the(&sent, BOB).clone();
    b.send(BOB, at_bob.answer(180));
    (request, at_bob)
}

/// The call is cancelled, and nothing of it is left.
#[track_caller]
fn assert_cancelled(b: &mut Bench, sent: &[Sent], request: &Request, at_bob: &Sent) {
    assert_eq!(the(sent, ALICE).gist(), "200 CANCEL");
    assert_eq!(the(sent, BOB).method(), "CANCEL");
    let sent = b.send(BOB, at_bob.answer(487));
    let answer = the(&sent, ALICE);
    assert_eq!(answer.gist(), "487 INVITE");
    assert!(b.send(ALICE, request.ack(answer)).is_empty());
    b.assert_quiet();
}

// ---- sent-by -----------------------------------------------------------------------------------------------------------------

#[test]
fn a_cancel_and_an_ack_match_however_their_sent_by_is_written() {
    for (of_invite, of_cancel) in [
        ("UDP phone.example.com", "UDP PHONE.Example.COM"),
        ("UDP phone.example.com", "UDP phone.example.com:5060"),
        ("UDP Phone.example.com:5060", "UDP phone.example.com"),
        ("UDP phone.example.com.", "UDP phone.example.com"),
        ("UDP phone.example.com", "UDP PHONE.example.com.:5060"),
        ("UDP 10.0.1.1", "UDP 10.0.1.1:5060"),
        ("UDP [2001:db8::1]", "UDP [2001:DB8:0:0:0:0:0:1]:5060"),
        ("UDP [2001:db8::1]:5070", "UDP [2001:0db8::0001]:5070"),
        ("TLS phone.example.com", "TLS phone.example.com:5061"),
        ("tls 10.0.1.1:5061", "TLS 10.0.1.1"),
        ("TCP 10.0.1.1:5060", "TCP 10.0.1.1"),
        ("UDP [::ffff:10.0.1.1]", "UDP [::ffff:a00:101]"),
    ] {
        let with = |request: &Request, sent_by: &str| {
            request.clone().set(
                "Via",
                &format!("SIP/2.0/{sent_by};rport;branch=z9hG4bKfixed"),
            )
        };
        let mut b = bench();
        let (request, at_bob) = ringing(&mut b, &format!("SIP/2.0/{of_invite}"));
        // Its repetition is one.
        let sent = b.send(ALICE, with(&request, of_cancel));
        assert_eq!(only(sent).status(), 180, "{of_cancel}");
        let sent = b.send(ALICE, with(&request.cancel(), of_cancel));
        assert_eq!(the(&sent, ALICE).gist(), "200 CANCEL", "{of_cancel}");
        assert_eq!(the(&sent, BOB).method(), "CANCEL");
        let sent = b.send(BOB, at_bob.answer(487));
        let answer = the(&sent, ALICE);
        let ack = with(&request.ack(answer), of_cancel);
        assert!(b.send(ALICE, ack).is_empty(), "{of_cancel}");
        let later = b.tick(4000);
        assert!(
            to(&later, ALICE).is_empty(),
            "the ACK is known: {of_cancel}"
        );
        b.assert_quiet();
    }
}

#[test]
fn another_sent_by_is_another_transaction() {
    for (of_invite, of_cancel) in [
        ("UDP phone.example.com", "UDP phone.example.com:5061"),
        ("TLS phone.example.com", "TLS phone.example.com:5060"),
        ("UDP phone.example.com", "UDP phone.example.co"),
        ("UDP phone.example.com", "UDP phone.example.com.."),
        ("UDP 10.0.1.1", "UDP 10.0.1.1:5070"),
        ("UDP [2001:db8::1]", "UDP [2001:db8::2]"),
    ] {
        let mut b = bench();
        let (request, _) = ringing(&mut b, &format!("SIP/2.0/{of_invite}"));
        let via = format!("SIP/2.0/{of_cancel};rport;branch=z9hG4bKfixed");
        let cancel = request.cancel().set("Via", &via);
        let sent = b.send(ALICE, cancel);
        let answer = only(sent);
        assert!(
            matches!(answer.gist().as_str(), "481 CANCEL" | "400 CANCEL"),
            "{answer}"
        );
    }
}

#[test]
fn a_name_as_long_as_any_matches_in_any_case() {
    for len in [63, 250, 255, 256, 300] {
        let mut b = bench();
        let name: String = "abcdefghi.".repeat(30)[..len - 1].to_owned() + "x";
        let (request, at_bob) = ringing(&mut b, &format!("SIP/2.0/UDP {name}"));
        let via = format!(
            "SIP/2.0/UDP {};rport;branch=z9hG4bKfixed",
            name.to_uppercase()
        );
        let sent = b.send(ALICE, request.cancel().set("Via", &via));
        if len > 255 {
            // No name of the domain name system: compared as it stands.
            assert_eq!(only(sent).gist(), "481 CANCEL");
            continue;
        }
        assert_cancelled(&mut b, &sent, &request, &at_bob);
    }
}

// ---- CANCEL ------------------------------------------------------------------------------------------------------------------

#[test]
fn a_cancel_matches_by_all_that_it_shares_with_its_invite() {
    let branches = [
        "z9hG4bKfixed",
        // RFC 2543: nothing of its own to match by.
        "1",
    ];
    for branch in branches {
        let mut b = bench();
        let request = Request::invite().via("10.0.1.1:5060", branch);
        let sent = b.send(ALICE, &request);
        let at_bob = the(&sent, BOB).clone();
        b.send(BOB, at_bob.answer(180));
        let honest = request.cancel();
        let mut to_carol = honest.clone();
        to_carol.uri = "sip:carol@example.com".into();
        for (what, forged) in [
            ("Call-ID", honest.clone().call_id("another")),
            (
                "From tag",
                honest.clone().from("<sip:alice@example.com>;tag=x"),
            ),
            (
                "no From tag",
                honest.clone().from("<sip:alice@example.com>"),
            ),
            (
                "From",
                honest.clone().from("<sip:fred@example.com>;tag=alice"),
            ),
            ("To", honest.clone().to("<sip:carol@example.com>")),
            ("CSeq", honest.clone().set("CSeq", "2 CANCEL")),
            ("Request-URI", to_carol),
        ] {
            for from in [FRED, ALICE] {
                let sent = b.send(from, &forged);
                assert_eq!(only(sent).gist(), "481 CANCEL", "{what} from {from}");
            }
        }
        // Nothing of that has done anything; and the honest one may come by another way, as through a NAT that has forgotten.
        let rebound = "10.0.1.1:61234";
        let sent = b.send(rebound, honest.set("To", "<sip:bob@EXAMPLE.com>"));
        assert_eq!(the(&sent, BOB).method(), "CANCEL");
        b.send(BOB, at_bob.answer(487));
        b.assert_quiet();
    }
}

#[test]
fn over_a_new_connection_a_cancel_still_matches() {
    let mut b = bench();
    let first = b.open(Transport::Tcp, 0, 1, "10.0.1.1:50001");
    let request = Request::invite().by(Transport::Tcp);
    let sent = b.send_on(0, first, &request);
    let at_bob = the(&sent, BOB).clone();
    b.send(BOB, at_bob.answer(180));
    b.lose(first);
    let second = b.open(Transport::Tcp, 0, 2, "10.0.1.1:50002");
    let sent = b.send_on(0, second, request.cancel());
    assert_eq!(the(&sent, BOB).method(), "CANCEL");
    assert_eq!(the(&sent, "10.0.1.1:50002").gist(), "200 CANCEL");
}

#[test]
fn a_cancel_of_a_repeated_invite_within_a_dialog_matches_with_its_tags() {
    let mut b = bench();
    let request = Request::invite().to("<sip:bob@example.com>;tag=b");
    let sent = b.send(ALICE, &request);
    let at_bob = the(&sent, BOB).clone();
    b.send(BOB, at_bob.answer(180));
    // Some write the To of a CANCEL without the tag.
    let sent = b.send(ALICE, request.cancel().to("<sip:bob@example.com>"));
    assert_cancelled(&mut b, &sent, &request, &at_bob);
}

#[test]
fn orphans_of_other_cores_are_compared_as_strictly() {
    let mut b = Bench::with(|settings| settings.cores = 3);
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let request = Request::invite();
    let sent = b.send_by(1, 0, ALICE, &request);
    let at_bob = the(&sent, BOB).clone();
    b.send_by(1, 0, BOB, at_bob.answer(180));
    for forged in [
        request.cancel().call_id("another"),
        request.cancel().from("<sip:fred@example.com>;tag=alice"),
        request.cancel().to("<sip:carol@example.com>"),
    ] {
        let sent = b.send_by(2, 0, FRED, forged);
        assert_eq!(only(sent).gist(), "481 CANCEL");
    }
    let sent = b.send_by(2, 0, ALICE, request.cancel());
    assert_eq!(the(&sent, BOB).method(), "CANCEL");
    b.send_by(1, 0, BOB, at_bob.answer(487));
    b.assert_quiet();
}

// ---- repetitions -------------------------------------------------------------------------------------------------------------

/// The branch of something that is under way or over, with other contents, is another request: it gets no answer of the other one, and is not
/// swallowed either.
#[test]
fn a_branch_that_is_used_again_names_another_request() {
    for over in [false, true] {
        for method in ["INVITE", "MESSAGE"] {
            let mut b = bench();
            b.register("carol", "<sip:carol@10.0.1.3:5060>");
            let request = Request::new(method, "sip:bob@example.com");
            let sent = b.send(ALICE, &request);
            let at_bob = the(&sent, BOB).clone();
            if over {
                let status = if method == "INVITE" { 486 } else { 200 };
                let sent = b.send(BOB, at_bob.answer(status));
                let answer = the(&sent, ALICE);
                if method == "INVITE" {
                    b.send(ALICE, request.ack(answer));
                }
            }
            let mut to_carol = request.clone();
            to_carol.uri = "sip:carol@example.com".into();
            for (what, other, peer) in [
                ("Request-URI", to_carol, CAROL),
                ("Call-ID", request.clone().call_id("another"), BOB),
                (
                    "From tag",
                    request.clone().from("<sip:alice@example.com>;tag=x"),
                    BOB,
                ),
                ("CSeq", request.clone().cseq(2), BOB),
            ] {
                let sent = b.send(ALICE, &other);
                assert_eq!(the(&sent, peer).method(), method, "{what}, over: {over}");
                // And is repeated and answered for itself.
                let own = the(&sent, peer).clone();
                let sent = b.send(ALICE, &other);
                assert!(to(&sent, peer).is_empty(), "{what}");
                let sent = b.send(peer, own.answer(if method == "INVITE" { 603 } else { 202 }));
                let answer = the(&sent, ALICE);
                assert_eq!(answer.header("Call-ID"), own.header("Call-ID"));
                assert_eq!(answer.header("CSeq"), own.header("CSeq"));
                if method == "INVITE" {
                    assert!(b.send(ALICE, other.ack(answer)).is_empty());
                }
            }
            // The first one itself goes on.
            let sent = b.send(ALICE, &request);
            assert!(to(&sent, BOB).is_empty() && to(&sent, CAROL).is_empty());
            if !over {
                let sent = b.send(BOB, at_bob.answer(404));
                let answer = the(&sent, ALICE);
                assert_eq!(answer.status(), 404);
                if method == "INVITE" {
                    b.send(ALICE, request.ack(answer));
                }
            }
            b.assert_quiet();
        }
    }
}

#[test]
fn without_state_a_branch_that_is_used_again_leaves_with_another_of_ours() {
    let mut b = Bench::with(|settings| settings.proxy.mode = Mode::Stateless);
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let request = Request::invite();
    let branch = |sent: Vec<Sent>| only(sent).branch().to_owned();
    let first = branch(b.send(ALICE, &request));
    assert_eq!(branch(b.send(ALICE, &request)), first);
    let answer = Text::new(&Request::invite().bytes());
    assert_eq!(branch(b.send(ALICE, request.ack(&answer))), first);
    assert_eq!(branch(b.send(ALICE, request.cancel())), first);
    for other in [
        request.clone().call_id("another"),
        request.clone().cseq(7),
        request.clone().from("<sip:alice@example.com>;tag=x"),
    ] {
        assert_ne!(branch(b.send(ALICE, &other)), first);
        assert_ne!(branch(b.send(ALICE, other.cancel())), first);
    }
}
