//! Which transaction a message belongs to (RFC 3261 §17.2.3, §9.1), spelled and forged in every way.

use strowger::base::Transport;
use strowger::sip::Fault;
use strowger::stack::Element;
use strowger::stack::counters::Drop;
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
        let with =
            |request: &Request, sent_by: &str| request.clone().set("Via", &format!("SIP/2.0/{sent_by};rport;branch=z9hG4bKfixed"));
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
        assert!(to(&later, ALICE).is_empty(), "the ACK is known: {of_cancel}");
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
        assert!(matches!(answer.gist().as_str(), "481 CANCEL" | "400 CANCEL"), "{answer}");
    }
}

#[test]
fn a_name_as_long_as_any_matches_in_any_case() {
    for len in [63, 250, 255, 256, 300] {
        let mut b = bench();
        let name: String = "abcdefghi.".repeat(30)[..len - 1].to_owned() + "x";
        let (request, at_bob) = ringing(&mut b, &format!("SIP/2.0/UDP {name}"));
        let via = format!("SIP/2.0/UDP {};rport;branch=z9hG4bKfixed", name.to_uppercase());
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
            ("From tag", honest.clone().from("<sip:alice@example.com>;tag=x")),
            ("no From tag", honest.clone().from("<sip:alice@example.com>")),
            ("From", honest.clone().from("<sip:fred@example.com>;tag=alice")),
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
                ("From tag", request.clone().from("<sip:alice@example.com>;tag=x"), BOB),
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
    for other in
        [request.clone().call_id("another"), request.clone().cseq(7), request.clone().from("<sip:alice@example.com>;tag=x")]
    {
        assert_ne!(branch(b.send(ALICE, &other)), first);
        assert_ne!(branch(b.send(ALICE, other.cancel())), first);
    }
}

// ---- responses ---------------------------------------------------------------------------------------------------------------

/// The answer without any Via but ours.
fn without_the_callers_via(at_bob: &Sent, status: u16) -> crate::message::Answer {
    let mut answer = at_bob.answer(status);
    let ours = answer.lines[0].clone();
    answer.lines.retain(|line| !line.starts_with("Via:") || *line == ours);
    answer
}

#[test]
fn a_final_response_whose_only_via_is_ours_is_acknowledged_and_ends_its_branch_at_once() {
    for status in [300, 401, 407, 408, 486, 487, 500, 503, 603] {
        let mut b = bench();
        let (request, at_bob) = ringing(&mut b, "SIP/2.0/UDP 10.0.1.1:5060");
        let sent = b.send(BOB, without_the_callers_via(&at_bob, status));
        let ack = the(&sent, BOB);
        assert_eq!(ack.method(), "ACK", "{status}");
        assert_eq!(ack.branch(), at_bob.branch());
        let answer = the(&sent, ALICE);
        assert_eq!((answer.status(), answer.reason()), (502, "Bad Gateway"));
        assert_eq!(b.dropped(Drop::BadResponse), 1);
        // Repeated, it is acknowledged again, and nothing else.
        let sent = b.send(BOB, without_the_callers_via(&at_bob, status));
        assert_eq!(only(sent).method(), "ACK");
        b.send(ALICE, request.ack(answer));
        b.assert_quiet();
    }
}

#[test]
fn a_2xx_whose_only_via_is_ours_ends_its_branch_at_once_and_is_nobodys() {
    let mut b = bench();
    let (request, at_bob) = ringing(&mut b, "SIP/2.0/UDP 10.0.1.1:5060");
    let sent = b.send(BOB, without_the_callers_via(&at_bob, 200));
    let answer = only(sent);
    assert_eq!((answer.to.as_str(), answer.status()), (ALICE, 502));
    assert!(b.send(BOB, without_the_callers_via(&at_bob, 200)).is_empty());
    b.send(ALICE, request.ack(&answer));
    b.assert_quiet();
}

#[test]
fn of_a_request_other_than_invite_too() {
    for status in [200, 404, 503] {
        let mut b = bench();
        let request = Request::new("MESSAGE", "sip:bob@example.com");
        let at_bob = only(b.send(ALICE, &request));
        let sent = b.send(BOB, without_the_callers_via(&at_bob, status));
        assert_eq!(only(sent).gist(), "502 MESSAGE");
        b.assert_quiet();
    }
}

#[test]
fn a_provisional_response_whose_only_via_is_ours_stops_the_repetitions_and_nothing_else() {
    for status in [100, 180, 183] {
        let mut b = bench();
        let request = Request::invite();
        let sent = b.send(ALICE, &request);
        let at_bob = the(&sent, BOB).clone();
        assert!(b.send(BOB, without_the_callers_via(&at_bob, status)).is_empty());
        b.tick(179_000);
        assert!(b.send(BOB, without_the_callers_via(&at_bob, status)).is_empty());
        // Timer C is not set anew.
        let sent = b.tick(1001);
        assert_eq!(the(&sent, BOB).method(), "CANCEL", "{status}");
        b.tick(40_000);
        // And a CANCEL that waited for it leaves.
        let request = Request::invite();
        let sent = b.send(ALICE, &request);
        let at_bob = the(&sent, BOB).clone();
        b.send(ALICE, request.cancel());
        let sent = b.send(BOB, without_the_callers_via(&at_bob, status));
        assert_eq!(only(sent).method(), "CANCEL");
    }
}

#[test]
fn of_several_branches_it_ends_one() {
    let mut b = bench();
    b.register("bob", "<sip:bob@10.0.1.4:5060>");
    let request = Request::invite();
    let sent = b.send(ALICE, &request);
    let (at_bob, at_dave) = (the(&sent, BOB).clone(), the(&sent, DAVE).clone());
    for status in [603, 200] {
        let sent = b.send(BOB, without_the_callers_via(&at_bob, status));
        assert!(to(&sent, ALICE).is_empty() && to(&sent, DAVE).is_empty());
    }
    // What the others say counts for more, and a cancelled call ends as one.
    let sent = b.send(DAVE, at_dave.answer(486));
    let answer = the(&sent, ALICE);
    assert_eq!(answer.status(), 486);
    b.send(ALICE, request.ack(answer));
    b.assert_quiet();
    for (from_bob, from_dave, expected) in [(487, 487, 487), (200, 503, 487)] {
        let request = Request::invite();
        let sent = b.send(ALICE, &request);
        let (at_bob, at_dave) = (the(&sent, BOB).clone(), the(&sent, DAVE).clone());
        b.send(BOB, at_bob.answer(180));
        b.send(DAVE, at_dave.answer(180));
        b.send(ALICE, request.cancel());
        let sent = b.send(BOB, without_the_callers_via(&at_bob, from_bob));
        assert!(to(&sent, ALICE).is_empty());
        let sent = b.send(DAVE, without_the_callers_via(&at_dave, from_dave));
        let answer = the(&sent, ALICE);
        assert_eq!(answer.gist(), format!("{expected} INVITE"));
        b.send(ALICE, request.ack(answer));
        b.assert_quiet();
    }
}

#[test]
fn a_via_with_nothing_behind_its_comma_is_the_only_one() {
    for ending in [",", " , ", ",,"] {
        let mut b = bench();
        let (request, at_bob) = ringing(&mut b, "SIP/2.0/UDP 10.0.1.1:5060");
        let mut answer = without_the_callers_via(&at_bob, 486);
        answer.lines[0].push_str(ending);
        let sent = b.send(BOB, answer);
        let answer = the(&sent, ALICE);
        assert_eq!(answer.status(), 502, "{ending:?}");
        b.send(ALICE, request.ack(answer));
        b.assert_quiet();
    }
}

#[test]
fn a_serial_search_goes_on_behind_a_next_hop_whose_answer_names_nobody() {
    let mut b = Bench::with(|settings| {
        settings.listeners = listeners();
        settings.proxy.fork = strowger::stack::settings::Fork::Sequential;
    });
    b.register("bob", "<sip:bob@10.0.1.2:5060>;q=0.9");
    b.register("bob", "<sip:bob@10.0.1.4:5060>;q=0.1");
    let request = Request::invite();
    let sent = b.send(ALICE, &request);
    let at_bob = the(&sent, BOB).clone();
    let sent = b.send(BOB, without_the_callers_via(&at_bob, 486));
    let at_dave = the(&sent, DAVE).clone();
    assert_eq!(at_dave.method(), "INVITE");
    let sent = b.send(DAVE, at_dave.answer(200));
    assert_eq!(the(&sent, ALICE).status(), 200);
    b.assert_quiet();
}

#[test]
fn what_a_proxy_does_not_need_of_a_response_kills_no_call() {
    // What is changed in the answer, and what of it must arrive.
    let edits: &[(&str, &str, &str)] = &[
        ("To: ", "To: <sip:bob@example.com>;tag=callee;tag=callee\r\nX: ", "To: <sip:bob@example.com>;tag=callee;tag=callee"),
        ("To: ", "To: <sip:bob@example.com>;tag=one;tag=other\r\nX: ", ";tag=one;tag=other"),
        (";tag=callee", ";tag=", ";tag="),
        (";tag=callee", ";tag", ";tag"),
        (";tag=callee", "", "To: "),
        ("To: ", "To: \"Bob <sip:bob@example.com>;tag=callee\r\nX: ", "\"Bob <sip:"),
        ("To: ", "X: ", "X: "),
        ("To: ", "To: <sip:a@b>;tag=c\r\nTo: ", "To: <sip:a@b>;tag=c"),
        ("From: ", "From: <>\r\nX: ", "From: <>"),
        ("From: ", "X: ", "X: "),
        ("From: ", "From: <sip:a@b>;tag=c\r\nFrom: ", "From: <sip:a@b>;tag=c"),
        ("Call-ID: ", "X: ", "X: "),
        ("Call-ID: ", "Call-ID: a b\r\nX: ", "Call-ID: a b"),
        ("Call-ID: ", "Call-ID: a\r\nCall-ID: ", "Call-ID: a"),
        (" INVITE\r\n", " invite\r\n", "CSeq: 1 invite"),
        (" INVITE\r\n", " Invite\r\n", "CSeq: 1 Invite"),
        ("CSeq: 1 ", "CSeq: 77 ", "CSeq: 77 INVITE"),
        ("CSeq: ", "Contact: <<sip:bob@>\r\nCSeq: ", "Contact: <<sip:bob@>"),
        ("CSeq: ", "Contact: *\r\nCSeq: ", "Contact: *"),
        ("CSeq: ", "Content-Type: ???\r\nCSeq: ", "Content-Type: ???"),
        ("CSeq: ", "Record-Route: <sip:\r\nCSeq: ", "Record-Route: <sip:"),
        ("CSeq: ", "Max-Forwards: 7\r\nMax-Forwards: x\r\nCSeq: ", "Max-Forwards: x"),
        ("CSeq: ", "Require: ,,,\r\nCSeq: ", "Require: ,,,"),
        ("CSeq: ", "Retry-After: soon\r\nCSeq: ", "Retry-After: soon"),
        (";rport", ";received=10.0.0.1;rport=5060;rport", "486"),
        (";rport", ";received=x;received=y;ttl=1;ttl=2;maddr=a;maddr=b", "486"),
        ("SIP/2.0 486", "sip/2.0 486", "SIP/2.0 486"),
    ];
    for (from, to_be, arrives) in edits {
        let mut b = bench();
        let request = Request::invite();
        let sent = b.send(ALICE, &request);
        let at_bob = the(&sent, BOB).clone();
        let answer = String::from_utf8(at_bob.answer(486).bytes()).unwrap();
        let broken = answer.replacen(from, to_be, 1);
        assert_ne!(broken, answer);
        let sent = b.send(BOB, broken.as_str());
        assert_eq!(the(&sent, BOB).method(), "ACK", "{to_be}");
        let forwarded = the(&sent, ALICE);
        assert_eq!(forwarded.status(), 486, "{to_be}");
        assert!(forwarded.to_string().contains(arrives), "{to_be}: {forwarded}");
        b.send(ALICE, request.ack(&Text::new(answer.as_bytes())));
        b.assert_quiet();
    }
}

#[test]
fn a_method_that_differs_in_case_alone_is_another_one_and_its_answer_its_own() {
    for method in ["invite", "Cancel", "ack", "Message"] {
        let mut b = bench();
        let at_bob = only(b.send(ALICE, Request::new(method, "sip:bob@example.com")));
        assert_eq!(at_bob.method(), method);
        let sent = b.send(BOB, at_bob.answer(200));
        assert_eq!(only(sent).gist(), format!("200 {method}"));
        b.assert_quiet();
    }
    // And our CANCEL is answered in any case.
    let mut b = bench();
    let (request, at_bob) = ringing(&mut b, "SIP/2.0/UDP 10.0.1.1:5060");
    let sent = b.send(ALICE, request.cancel());
    let cancel = the(&sent, BOB).clone();
    let ok = String::from_utf8(cancel.answer(200).bytes()).unwrap();
    assert!(b.send(BOB, ok.replace(" CANCEL", " cancel").as_str()).is_empty());
    assert!(b.tick(4000).is_empty(), "it is not repeated");
    b.send(BOB, at_bob.answer(487));
    b.assert_quiet();
}

#[test]
fn header_lines_that_nobody_can_read_are_left_out_of_a_response() {
    for line in ["no colon at all", "Content Length: 9", "Content-Length\u{1}: 9", ": empty", "Vi\u{e4}: x", "bad\r\n  folded: yes"]
    {
        for status in [180, 200, 486] {
            for place in ["Via: ", "From: ", "Content-Length: "] {
                let mut b = bench();
                let request = Request::invite();
                let sent = b.send(ALICE, &request);
                let at_bob = the(&sent, BOB).clone();
                let answer = String::from_utf8(at_bob.answer(status).bytes()).unwrap();
                let broken = answer.replacen(place, &format!("{line}\r\n{place}"), 1);
                let sent = b.send(BOB, broken.as_str());
                let forwarded = the(&sent, ALICE).clone();
                let sent = b.send(BOB, answer.as_str());
                if status < 300 {
                    assert_eq!(the(&sent, ALICE).to_string(), forwarded.to_string(), "{line}");
                } else {
                    assert!(!forwarded.to_string().contains(line), "{forwarded}");
                    assert_eq!(forwarded.all("Via").len(), 1);
                }
            }
        }
    }
}

#[test]
fn what_would_be_read_in_two_ways_is_still_refused() {
    for (from, to_be) in [
        ("Content-Length: 0", "Content-Length: 0\r\nContent-Length: 0"),
        ("Content-Length: 0", "l: 4\r\nContent-Length: 0"),
        ("Content-Length: 0", "Content-Length: x"),
        ("Content-Length: 0", "Content-Length: 1"),
        (";branch=", ";branch=z9hG4bKother;branch="),
        ("CSeq: ", "X: "),
        ("CSeq: ", "CSeq: 1 INVITE\r\nCSeq: "),
        ("CSeq: ", "X: a\rContent-Length: 7\r\nCSeq: "),
        ("CSeq: ", "X: a\nContent-Length: 7\r\nCSeq: "),
        ("SIP/2.0 486", "SIP/2.1 486"),
        ("SIP/2.0 486", "SIP/2.0 0486"),
        ("\r\n\r\n", "\r\n"),
    ] {
        let mut b = bench();
        let request = Request::invite();
        let sent = b.send(ALICE, &request);
        let at_bob = the(&sent, BOB).clone();
        let answer = String::from_utf8(at_bob.answer(486).bytes()).unwrap();
        let broken = answer.replacen(from, to_be, 1);
        assert_ne!(broken, answer);
        assert!(b.send(BOB, broken.as_str()).is_empty(), "{to_be}");
    }
}

#[test]
fn without_state_a_response_passes_under_the_same_conditions() {
    let mut b = Bench::with(|settings| settings.proxy.mode = Mode::Stateless);
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let at_bob = only(b.send(ALICE, Request::invite()));
    let twice = at_bob.answer(200).tag("").add("X: y");
    let text = String::from_utf8(twice.bytes()).unwrap();
    let text = text.replacen("bob@example.com>", "bob@example.com>;tag=a;tag=a", 1);
    let sent = b.send(BOB, text.replace(" INVITE", " invite").as_str());
    assert_eq!(only(sent).to, ALICE);
    // With no Via left there is nowhere to go.
    assert!(b.send(BOB, without_the_callers_via(&at_bob, 486)).is_empty());
    assert_eq!(b.dropped(Drop::BadResponse), 1);
}

// ---- streams -----------------------------------------------------------------------------------------------------------------

#[test]
fn a_request_behind_what_is_not_sip_is_answered_and_not_processed() {
    let mut b = bench();
    let alice = b.open(Transport::Tcp, 0, 1, ALICE);
    let request = Request::new("MESSAGE", "sip:bob@example.com").by(Transport::Tcp);
    let bytes = |junk: &str, request: &Request| [junk.as_bytes(), &request.bytes()].concat();
    for junk in ["HELLO\r\n", "\r\r\nHELLO\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "SIP/2.0 200 OK?\r\n"] {
        let sent = b.unframed(alice, &bytes(junk, &request), Fault::NotSip);
        let answer = only(sent);
        assert_eq!((answer.gist().as_str(), answer.flow), ("400 MESSAGE", alice));
        assert_eq!(answer.reason(), "Behind What Is Not SIP");
        assert_eq!(answer.header("Via"), Some(&request.lines[0]["Via: ".len()..]));
    }
    // The first one is meant by it; an ACK and what can't be answered get nothing.
    let two = [&bytes("x\r\n", &request)[..], &Request::invite().bytes()].concat();
    assert_eq!(only(b.unframed(alice, &two, Fault::NotSip)).gist(), "400 MESSAGE");
    let ack = Request::new("ACK", "sip:bob@example.com");
    let no_via = request.clone().without("Via");
    for nothing in [bytes("x\r\n", &ack), bytes("x\r\n", &no_via), b"x\r\n\r\n".to_vec()] {
        assert!(b.unframed(alice, &nothing, Fault::NotSip).is_empty());
    }
    b.assert_quiet();
}

/// Whoever keeps the connection must know whether there will be an answer.
#[test]
fn what_gets_no_answer_says_so() {
    use strowger::base::{Instant, Outbox};
    let mut b = bench();
    let alice = b.open(Transport::Tcp, 0, 1, ALICE);
    let message = Request::new("MESSAGE", "sip:bob@example.com").by(Transport::Tcp);
    let lost = Request::new("MESSAGE", "sip:nobody@example.com").by(Transport::Tcp);
    for (bytes, is_answered) in [
        (message.bytes(), true),
        // Repeated while it waits: there is one answer to come.
        (message.bytes(), false),
        (lost.bytes(), true),
        (message.clone().without("Call-ID").cseq(2).bytes(), true),
        (message.without("Via").bytes(), false),
        (Request::new("ACK", "sip:bob@example.com").without("CSeq").bytes(), false),
        (b"HELLO WORLD\r\nContent-Length: 0\r\n\r\n".to_vec(), false),
    ] {
        let mut outbox = Outbox::default();
        let now = Instant::from_ms(b.now);
        let said = b.cores[0].handle(now, alice, &bytes, &mut outbox);
        assert_eq!(said, is_answered, "{}", String::from_utf8_lossy(&bytes));
    }
}
