//! RFC 3261 §16.3 to §16.7: what happens to one request and its responses.

use strowger::stack::counters::{Drop, Limit};
use strowger::stack::route::{Action, Route};
use strowger::stack::settings::Mode;

use crate::bench::*;
use crate::message::{Request, Text, param};

fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.register("bob", "<sip:bob@10.0.1.2:5060>");
    bench
}

/// A route that matches everything.
pub fn route(action: Action) -> Route {
    Route {
        methods: Vec::new(),
        from_source: Vec::new(),
        to_host: None,
        to_user_prefix: None,
        user_agent: Vec::new(),
        action,
        outgoing: None,
        challenge: None,
        users_only: false,
        ..Route::default()
    }
}

/// The lines of `sent` without those of `names`, to be compared with another message's.
fn lines_without(text: &Text, names: &[&str]) -> Vec<(String, String)> {
    let mut lines = text.headers.clone();
    lines.retain(|(name, _)| !names.contains(&name.as_str()));
    lines
}

// ---- §7.1 ----------------------------------------------------------------------------------------------------------------

#[test]
fn the_version_leaves_in_upper_case_however_it_came() {
    for mode in [Mode::Stateful, Mode::Stateless] {
        for spelling in ["SIP/2.0", "sip/2.0", "sIP/2.0", "SIP/02.00"] {
            let mut b = Bench::with(|settings| settings.proxy.mode = mode);
            b.register("bob", "<sip:bob@10.0.1.2:5060>");
            let invite = String::from_utf8(Request::invite().bytes()).unwrap();
            let invite = invite.replacen(" SIP/2.0", &format!(" {spelling}"), 1);
            let sent = b.send(ALICE, format!("\r\n{invite}").as_bytes());
            let at_bob = the(&sent, BOB);
            assert_eq!(at_bob.start_line, "INVITE sip:bob@10.0.1.2:5060 SIP/2.0", "{spelling}");
            // A Status-Line is read with no other spelling of the number.
            if spelling.len() > 7 {
                continue;
            }
            let busy = String::from_utf8(at_bob.answer(486).bytes()).unwrap();
            let busy = busy.replacen("SIP/2.0 ", &format!("{spelling} "), 1);
            let sent = b.send(BOB, busy.as_bytes());
            let at_alice = the(&sent, ALICE);
            assert_eq!(at_alice.status(), 486, "{spelling}");
        }
    }
}

// ---- §16.2, §17.2.1 ------------------------------------------------------------------------------------------------------

#[test]
fn a_call_goes_through_and_everything_ends() {
    let mut b = bench();
    let invite = Request::invite();
    let sent = b.send(ALICE, &invite);
    let trying = the(&sent, ALICE);
    assert_eq!(trying.status(), 100);
    let at_bob = the(&sent, BOB).clone();
    assert_eq!(at_bob.method(), "INVITE");
    let ringing = b.send_for_one(BOB, at_bob.answer(180));
    assert_eq!((ringing.status(), ringing.to.as_str()), (180, ALICE));
    let ok = b.send_for_one(BOB, at_bob.answer(200).body("v=0\r\n"));
    assert_eq!((ok.status(), ok.to.as_str()), (200, ALICE));
    assert_eq!(ok.body, b"v=0\r\n");
    b.assert_quiet();
}

#[test]
fn trying_leaves_at_once_before_the_request_is_forwarded_and_has_no_to_tag() {
    let mut b = bench();
    let sent = b.send(ALICE, Request::invite().add("Timestamp: 17"));
    assert_eq!(sent[0].status(), 100);
    assert_eq!(sent[0].header("To"), Some("<sip:bob@example.com>"));
    assert_eq!(sent[0].header("Timestamp"), Some("17"));
    assert_eq!(sent[1].method(), "INVITE");
}

#[test]
fn a_100_from_the_callee_stays_here() {
    let mut b = bench();
    let sent = b.send(ALICE, Request::invite());
    assert!(b.send(BOB, the(&sent, BOB).answer(100)).is_empty());
}

// ---- §16.3 ---------------------------------------------------------------------------------------------------------------

#[test]
fn a_request_uri_of_a_scheme_not_understood_is_answered_416() {
    let mut b = bench();
    let answer = b.send_for_one(ALICE, Request::new("MESSAGE", "nobodyKnows:x"));
    assert_eq!(answer.status(), 416);
}

#[test]
fn max_forwards_of_zero_is_answered_483_and_nothing_leaves() {
    let mut b = bench();
    let answer = b.send_for_one(ALICE, Request::invite().set("Max-Forwards", "0"));
    assert_eq!((answer.status(), answer.to.as_str()), (483, ALICE));
    assert_eq!(b.limit_hits(Limit::MaxForwards), 1);
    b.assert_quiet();
}

#[test]
fn max_forwards_of_zero_does_not_matter_to_a_request_that_is_for_this_server() {
    // §16.3 step 3 forbids to forward, and §11 to withhold an answer of its own.
    let mut b = bench();
    let options = Request::new("OPTIONS", "sip:example.com").set("Max-Forwards", "0");
    assert_eq!(b.send_for_one(ALICE, options).status(), 200);
    let register = Request::new("REGISTER", "sip:example.com")
        .set("Max-Forwards", "0")
        .to("<sip:alice@example.com>")
        .add("Contact: <sip:alice@10.0.1.1>");
    assert_eq!(b.send_for_one(ALICE, register).status(), 200);
}

#[test]
fn a_request_that_comes_back_unchanged_is_a_loop_and_one_with_another_uri_is_a_spiral() {
    let mut b = bench();
    b.register("carol", "<sip:carol@10.0.1.3:5060>");
    let sent = b.send(ALICE, Request::invite());
    let at_bob = the(&sent, BOB).to_string();
    // Bob's side sends it back with the Request-URI that it came in with.
    let looped = at_bob.replacen("sip:bob@10.0.1.2:5060 ", "sip:bob@example.com ", 1);
    let looped = looped.replacen("Via:", "Via: SIP/2.0/UDP 10.0.1.2:5060;branch=z9hG4bKloop\r\nVia:", 1);
    let answer = b.send_for_one(BOB, looped.as_str());
    assert_eq!((answer.status(), answer.to.as_str()), (482, BOB));
    // And forwards it to another user of ours: that is allowed.
    let spiral = looped.replacen("sip:bob@example.com ", "sip:carol@example.com ", 1).replace("z9hG4bKloop", "z9hG4bKspiral");
    let sent = b.send(BOB, spiral.as_str());
    assert_eq!(the(&sent, CAROL).method(), "INVITE");
}

#[test]
fn a_spiral_that_only_the_source_tells_from_a_loop_passes_once() {
    // RFC 5393 §4.2.1: all that decides the way belongs to the loop check, here the source of the request.
    let filter = "10.0.3.1:5060";
    let mut b = Bench::with(|settings| {
        let from_filter = Route {
            from_source: vec![strowger::stack::route::Network { address: "10.0.3.1".parse().unwrap(), prefix: 32 }],
            ..route(Action::Location)
        };
        let rest = Route { methods: vec![b"INVITE".to_vec()], ..route(Action::Relay(vec![crate::failover::hop(filter)])) };
        settings.routes = vec![from_filter, rest].into();
    });
    b.location.add(Default::default(), b"bob@example.com", b"sip:bob@10.0.1.2:5060", 3600).unwrap();
    let sent = b.send(ALICE, Request::invite());
    let at_filter = the(&sent, filter).to_string();
    let back = at_filter.replacen("Via:", "Via: SIP/2.0/UDP 10.0.3.1:5060;branch=z9hG4bKfilter\r\nVia:", 1);
    let sent = b.send(filter, back.as_str());
    let at_bob = the(&sent, BOB).to_string();
    // The same from the same source once more is a loop.
    let back = at_bob.replacen("sip:bob@10.0.1.2:5060 ", "sip:bob@example.com ", 1).replacen(
        "Via:",
        "Via: SIP/2.0/UDP 10.0.3.1:5060;branch=z9hG4bKagain\r\nVia:",
        1,
    );
    assert_eq!(b.send_for_one(filter, back.as_str()).status(), 482);
}

#[test]
fn proxy_require_is_answered_420_with_every_unknown_option() {
    let mut b = bench();
    let invite = Request::invite().add("Proxy-Require: foo, bar").add("Proxy-Require: baz");
    let answer = b.send_for_one(ALICE, invite);
    assert_eq!(answer.status(), 420);
    assert_eq!(answer.all("Unsupported"), ["foo, bar, baz"]);
}

#[test]
fn require_is_the_callees_business_when_a_request_is_forwarded() {
    let mut b = bench();
    let sent = b.send(ALICE, Request::invite().add("Require: 100rel, nobody"));
    assert_eq!(the(&sent, BOB).header("Require"), Some("100rel, nobody"));
}

#[test]
fn require_is_ours_when_the_request_is_for_this_server() {
    let mut b = bench();
    let options = Request::new("OPTIONS", "sip:example.com").add("Require: nobody");
    let answer = b.send_for_one(ALICE, options);
    assert_eq!(answer.status(), 420);
    assert_eq!(answer.all("Unsupported"), ["nobody"]);
    let register = Request::new("REGISTER", "sip:example.com")
        .to("<sip:alice@example.com>")
        .add("Require: nobody")
        .add("Contact: <sip:alice@10.0.1.1>");
    let answer = b.send_for_one(ALICE, register);
    assert_eq!(answer.status(), 420);
    assert_eq!(answer.all("Unsupported"), ["nobody"]);
    assert_eq!(b.location.bindings(), 1, "Bob's alone");
}

#[test]
fn a_fault_is_answered_400_with_its_name_and_the_sender_finds_its_transaction() {
    let mut b = bench();
    let invite = Request::invite().without("Call-ID");
    let answer = b.send_for_one(ALICE, &invite);
    assert_eq!((answer.status(), answer.reason()), (400, "Missing Call-ID"));
    assert!(param(answer.header("To").unwrap(), "tag").is_some());
    // Its ACK ends here.
    let acks = b.send(ALICE, invite.ack(&answer));
    assert!(acks.is_empty(), "{}", show(&acks));
    b.assert_quiet();
}

// ---- §16.6 ---------------------------------------------------------------------------------------------------------------

#[test]
fn what_is_not_ours_to_edit_leaves_bit_for_bit() {
    let mut b = bench();
    let invite = Request::invite()
        .add("Subject:   odd   spacing ,,;; \u{fffd}")
        .add("X-Folded: one\r\n two\r\n\tthree")
        .add("x-UnKnOwN:;;,,")
        .add("k: timer");
    let bytes = invite.bytes();
    let sent = b.send(ALICE, &bytes);
    let at_bob = the(&sent, BOB);
    let edited = ["Via", "Max-Forwards", "Record-Route", "Max-Breadth"];
    let before = Text::new(&bytes);
    assert_eq!(lines_without(at_bob, &edited), lines_without(&before, &edited));
    assert_eq!(at_bob.body, before.body);
    let raw = at_bob.to_string();
    assert!(raw.contains("X-Folded: one\r\n two\r\n\tthree\r\n"));
    assert!(raw.contains("Subject:   odd   spacing ,,;; \u{fffd}\r\n"));
}

#[test]
fn the_edits_of_section_16_6() {
    let mut b = bench();
    let sent = b.send(ALICE, Request::invite());
    let at_bob = the(&sent, BOB);
    assert_eq!(at_bob.uri(), "sip:bob@10.0.1.2:5060");
    assert_eq!(at_bob.header("Max-Forwards"), Some("69"));
    let vias = at_bob.all("Via");
    assert_eq!(vias.len(), 2);
    assert!(vias[0].starts_with("SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK"));
    assert!(vias[1].starts_with("SIP/2.0/UDP 10.0.1.1:5060;branch=z9hG4bKalice"));
    let record = at_bob.header("Record-Route").unwrap();
    assert!(record.starts_with("<sip:10.0.0.1:5060;lr"), "{record}");
    assert_eq!(at_bob.all("Contact"), ["<sip:alice@10.0.1.1:5060>"]);
}

#[test]
fn max_forwards_is_added_as_70_where_there_is_none() {
    let mut b = bench();
    let sent = b.send(ALICE, Request::invite().without("Max-Forwards"));
    assert_eq!(the(&sent, BOB).header("Max-Forwards"), Some("70"));
}

#[test]
fn our_record_route_is_the_topmost_wherever_the_sender_put_its_via() {
    let mut b = bench();
    let invite = Request::invite().top("Record-Route: <sip:10.0.9.9;lr>").top("Subject: upside down");
    let sent = b.send(ALICE, invite);
    let records = the(&sent, BOB).all("Record-Route");
    assert_eq!(records.len(), 2);
    assert!(records[0].starts_with("<sip:10.0.0.1:5060;lr"));
    assert_eq!(records[1], "<sip:10.0.9.9;lr>");
    assert!(the(&sent, BOB).all("Via")[0].contains("10.0.0.1"));
}

#[test]
fn record_route_is_a_choice_of_the_conf() {
    let mut b = Bench::with(|settings| settings.proxy.record_route = false);
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let sent = b.send(ALICE, Request::invite());
    assert_eq!(the(&sent, BOB).all("Record-Route").len(), 0);
}

#[test]
fn requests_that_open_no_dialog_get_no_record_route() {
    let mut b = bench();
    for method in ["MESSAGE", "OPTIONS", "PUBLISH", "BYE", "INFO", "PRACK"] {
        let sent = b.send(ALICE, Request::new(method, "sip:bob@example.com"));
        assert_eq!(the(&sent, BOB).all("Record-Route").len(), 0, "{method}");
    }
    for method in ["INVITE", "SUBSCRIBE", "REFER", "UPDATE", "NOTIFY", "NEWDIALOG"] {
        let sent = b.send(ALICE, Request::new(method, "sip:bob@example.com"));
        assert_eq!(the(&sent, BOB).all("Record-Route").len(), 1, "{method}");
    }
}

#[test]
fn methods_that_nobody_knows_are_forwarded_as_any_other() {
    let mut b = bench();
    let sent = b.send(ALICE, Request::new("FROBNICATE", "sip:bob@example.com").body("x"));
    let at_bob = only(sent);
    assert_eq!(at_bob.method(), "FROBNICATE");
    let answer = b.send_for_one(BOB, at_bob.answer(200));
    assert_eq!((answer.status(), answer.to.as_str()), (200, ALICE));
    b.assert_quiet();
}

#[test]
fn leading_crlf_and_trailing_noise_are_not_forwarded() {
    let mut b = bench();
    let bytes = [b"\r\n\r\n", &Request::invite().bytes()[..], b"INVITE noise"].concat();
    let sent = b.send(ALICE, &bytes);
    let at_bob = the(&sent, BOB);
    assert!(at_bob.bytes.starts_with(b"INVITE sip:bob@10.0.1.2:5060 SIP/2.0\r\n"));
    assert!(at_bob.bytes.ends_with(b"IN IP4 10.0.1.1\r\n"));
    // Nor those of a response.
    let answer = [b"\r\n", &at_bob.answer(180).bytes()[..], b"x"].concat();
    let ringing = b.send_for_one(BOB, &answer);
    assert!(ringing.bytes.starts_with(b"SIP/2.0 180"));
    assert!(ringing.bytes.ends_with(b"\r\n\r\n"));
}

#[test]
fn a_crlf_keep_alive_is_not_an_error() {
    let mut b = bench();
    assert!(b.send(ALICE, b"\r\n\r\n".as_slice()).is_empty());
    assert_eq!(b.dropped(Drop::KeepAlive), 1);
    assert_eq!(b.dropped(Drop::Unreadable), 0);
}

#[test]
fn a_request_over_the_limit_is_answered_513_and_a_response_dropped() {
    let mut b = Bench::with(|settings| settings.limits.message_size = 2000);
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let answer = b.send_for_one(ALICE, Request::invite().body(&"x".repeat(2000)));
    assert_eq!((answer.status(), answer.to.as_str()), (513, ALICE));
    let sent = b.send(ALICE, Request::invite());
    let answer = the(&sent, BOB).answer(200).body(&"x".repeat(2000));
    assert!(b.send(BOB, answer).is_empty());
    assert_eq!(b.dropped(Drop::TooLong), 1);
    b.assert_quiet();
}

#[test]
fn what_our_own_lines_make_too_long_for_a_datagram_is_answered_513() {
    let mut b = bench();
    let invite = Request::invite().body("");
    let room = 65_507 - invite.bytes().len() - 10;
    let invite = invite.body(&"x".repeat(room));
    let sent = b.send(ALICE, &invite);
    let answers: Vec<_> = sent.iter().map(|s| s.status()).collect();
    assert_eq!(answers, [100, 513], "and nothing to Bob");
    b.send(ALICE, invite.ack(&sent[1]));
    b.assert_quiet();
}

#[test]
fn a_contact_that_cannot_be_reached_over_udp_is_a_failed_branch() {
    for contact in [
        "<sip:bob@10.0.1.2:5060;transport=tcp>",
        "<sip:bob@0.0.0.0>",
        "<sip:bob@224.0.1.75>",
        "<sip:bob@[2001:db8::1]>",
        "<mailto:bob@example.com>",
    ] {
        let mut b = Bench::new();
        b.register("bob", contact);
        let invite = Request::invite();
        let sent = b.send(ALICE, &invite);
        let answers: Vec<_> = sent.iter().map(|s| s.status()).collect();
        assert_eq!(answers, [100, 500], "{contact}");
        b.send(ALICE, invite.ack(&sent[1]));
        b.assert_quiet();
    }
}

// ---- who may be reached ------------------------------------------------------------------------------------------------

#[test]
fn a_user_nobody_knows_is_404_and_one_without_a_phone_480() {
    let mut b = bench();
    let carol = Request::new("INVITE", "sip:carol@example.com");
    assert_eq!(b.send_for_one(ALICE, carol.clone()).status(), 404);
    b.register("carol", "<sip:carol@10.0.1.3:5060>;expires=60");
    b.tick(60_000);
    let answer = b.send_for_one(ALICE, carol.via("10.0.1.1:5060", "z9hG4bKlater"));
    assert_eq!(answer.status(), 480);
}

#[test]
fn a_domain_that_is_not_ours_is_refused() {
    let mut b = bench();
    let answer = b.send_for_one(ALICE, Request::new("INVITE", "sip:bob@elsewhere.example"));
    assert_eq!(answer.status(), 404);
    // Nor does an address of the next machine count, nor a port that is not ours.
    for uri in ["sip:bob@10.0.1.2", "sip:bob@10.0.0.1:5070", "sip:bob@example.com:99"] {
        assert_eq!(b.send_for_one(ALICE, Request::new("INVITE", uri)).status(), 404, "{uri}");
    }
}

#[test]
fn the_domain_and_the_servers_own_address_are_one_and_the_host_is_read_without_case() {
    let mut b = bench();
    b.location.add(Default::default(), b"bob@10.0.0.1", b"sip:bob@10.0.1.9:5060", 60).unwrap();
    for uri in ["sip:bob@EXAMPLE.com", "sip:bob@example.com:5060", "sip:%62ob@example.com;x=y"] {
        let sent = b.send(ALICE, Request::new("MESSAGE", uri));
        assert_eq!(only(sent).to, BOB, "{uri}");
    }
    let sent = b.send(ALICE, Request::new("MESSAGE", "sip:bob@10.0.0.1"));
    assert_eq!(only(sent).to, "10.0.1.9:5060");
}

#[test]
fn an_maddr_does_not_make_us_relay_for_a_stranger() {
    let mut b = bench();
    // §16.5 would have the request go to the maddr: for whom we do not relay, to nobody.
    let uri = "sip:bob@example.com;maddr=10.9.9.9";
    let answer = b.send_for_one(ALICE, Request::new("MESSAGE", uri));
    assert_eq!(answer.status(), 404);
    // One that names us changes nothing (§16.4).
    let uri = "sip:bob@example.com;maddr=10.0.0.1";
    assert_eq!(only(b.send(ALICE, Request::new("MESSAGE", uri))).to, BOB);
}

#[test]
fn an_own_maddr_is_stripped_with_its_port_and_transport() {
    // §16.4: where the request came by the port and transport that the URI names.
    let mut b = Bench::with(|settings| {
        settings.listeners[0] = listener("10.0.0.1:5070");
        settings.routes = vec![Route { to_host: Some(b"10.0.7.7".to_vec().into()), ..route(Action::Relay(vec![])) }].into();
    });
    for (uri, left) in [
        ("sip:x@10.0.7.7:5070;maddr=10.0.0.1", "sip:x@10.0.7.7"),
        ("sip:x:y@10.0.7.7:5070;a=b;Maddr=10.0.0.1;transport=UDP;c", "sip:x:y@10.0.7.7;a=b;c"),
    ] {
        let sent = only(b.send(ALICE, Request::new("MESSAGE", uri)));
        assert_eq!((sent.uri(), sent.to.as_str()), (left, "10.0.7.7:5060"), "{uri}");
    }
    // Another port, transport or place: it stays, and says where to send, if the route leaves that to whoever takes it.
    let mut b = Bench::with(|settings| {
        settings.listeners[0] = listener("10.0.0.1:5070");
        settings.routes = vec![route(Action::Relay(vec![]))].into();
    });
    let uri = "sip:x@10.0.7.7:5070;maddr=10.0.7.8";
    let sent = only(b.send(ALICE, Request::new("MESSAGE", uri)));
    assert_eq!((sent.uri(), sent.to.as_str()), (uri, "10.0.7.8:5070"));
    // What else listens on this machine is nothing for strangers; for whoever is on it, it is.
    let request = || Request::new("MESSAGE", "sip:x@10.0.7.7;maddr=10.0.0.1");
    assert_eq!(b.send_for_one(ALICE, request()).status(), 403);
    let sent = only(b.send("10.0.0.1:5066", request()));
    assert_eq!(sent.to, "10.0.0.1:5060");
}

#[test]
fn options_to_the_server_is_answered_200_and_to_a_user_forwarded() {
    let mut b = bench();
    for uri in ["sip:example.com", "sip:10.0.0.1:5060", "sip:EXAMPLE.COM;x"] {
        let answer = b.send_for_one(ALICE, Request::new("OPTIONS", uri));
        assert_eq!((answer.status(), answer.to.as_str()), (200, ALICE));
        assert!(answer.header("Allow").unwrap().contains("INVITE"));
        assert!(answer.header("Accept").is_some());
        assert!(answer.header("Supported").is_some());
        assert!(param(answer.header("To").unwrap(), "tag").is_some());
    }
    let sent = b.send(ALICE, Request::new("OPTIONS", "sip:bob@example.com"));
    assert_eq!(only(sent).to, BOB);
}

// ---- §16.7, §18 --------------------------------------------------------------------------------------------------------

#[test]
fn a_response_loses_our_via_and_nothing_else() {
    let mut b = bench();
    let sent = b.send(ALICE, Request::invite());
    let at_bob = the(&sent, BOB);
    let answer = at_bob.answer(183).add("X-Odd:  ;;,, \u{fffd}").add("Contact: <sip:bob@10.0.1.2>").body("sdp");
    let before = Text::new(&answer.bytes());
    let after = b.send_for_one(BOB, answer);
    assert_eq!(after.all("Via"), before.all("Via")[1..]);
    // The caller's own cookie stands in our Record-Route (§16.7 step 8).
    let ours = |text: &Text| {
        let route = text.header("Record-Route").unwrap();
        route.split(";sc=").next().unwrap().to_string()
    };
    assert_eq!(ours(&after), ours(&before));
    assert_eq!(lines_without(&after, &["Via", "Record-Route"]), lines_without(&before, &["Via", "Record-Route"]));
    assert_eq!(after.body, b"sdp");
    assert_eq!(after.start_line, before.start_line);
}

#[test]
fn a_response_with_all_vias_in_one_line_loses_only_the_first() {
    let mut b = bench();
    let sent = b.send(ALICE, Request::new("MESSAGE", "sip:bob@example.com"));
    let at_bob = only(sent);
    let vias = at_bob.all("Via").join(",   ");
    let mut answer = at_bob.answer(200);
    answer.lines.retain(|l| !l.starts_with("Via"));
    answer.lines.insert(0, format!("v:{vias}"));
    let after = b.send_for_one(BOB, answer);
    assert_eq!(after.all("Via").len(), 1);
    assert!(after.header("Via").unwrap().contains("z9hG4bKalice"));
}

#[test]
fn a_response_in_which_no_via_is_left_is_not_forwarded() {
    // §16.7 step 3: it would be for this element.
    let mut b = bench();
    let sent = b.send(ALICE, Request::invite());
    let at_bob = the(&sent, BOB);
    let mut answer = at_bob.answer(180);
    let mut seen = 0;
    answer.lines.retain(|l| {
        seen += usize::from(l.starts_with("Via"));
        !l.starts_with("Via") || seen == 1
    });
    assert!(b.send(BOB, answer).is_empty());
    assert_eq!(b.dropped(Drop::BadResponse), 1);
}

#[test]
fn a_response_goes_to_the_source_port_when_rport_asked_for_it_and_to_sent_by_without() {
    let mut b = bench();
    let nat = "198.51.100.7:40000";
    let with = Request::invite().set("Via", "SIP/2.0/UDP 192.168.0.5:5099;rport;branch=z9hG4bKnat1");
    let sent = b.send(nat, with);
    let trying = the(&sent, nat);
    assert_eq!(trying.via_param("rport"), Some("40000"));
    assert_eq!(trying.via_param("received"), Some("198.51.100.7"));
    let at_bob = the(&sent, BOB);
    let second = at_bob.all("Via")[1];
    assert_eq!(param(second, "rport"), Some("40000"));
    assert_eq!(param(second, "received"), Some("198.51.100.7"));
    assert_eq!(b.send_for_one(BOB, at_bob.answer(180)).to, nat);

    let without = Request::invite().via("192.168.0.5:5099", "z9hG4bKnat2");
    let sent = b.send(nat, without);
    let at_bob = the(&sent, BOB);
    assert_eq!(param(at_bob.all("Via")[1], "received"), Some("198.51.100.7"));
    assert_eq!(b.send_for_one(BOB, at_bob.answer(180)).to, "198.51.100.7:5099");

    let no_port = Request::invite().via("192.168.0.5", "z9hG4bKnat3");
    let sent = b.send(nat, no_port);
    assert_eq!(the(&sent, "198.51.100.7:5060").status(), 100);
}

#[test]
fn what_the_client_writes_into_received_and_rport_itself_is_not_believed() {
    let mut b = bench();
    let forged = "SIP/2.0/UDP 10.0.1.1:5060;rport=9;received=203.0.113.9;branch=z9hG4bKforged";
    let sent = b.send(ALICE, Request::invite().set("Via", forged));
    let at_bob = the(&sent, BOB);
    let second = at_bob.all("Via")[1];
    assert_eq!(param(second, "rport"), Some("5060"));
    assert_eq!(param(second, "received"), Some("10.0.1.1"));
    assert_eq!(b.send_for_one(BOB, at_bob.answer(180)).to, ALICE);
}

#[test]
fn responses_whose_branch_is_not_ours_are_dropped() {
    let mut b = bench();
    let sent = b.send(ALICE, Request::invite());
    let at_bob = the(&sent, BOB).clone();
    let real = at_bob.answer(200).bytes();
    let real = String::from_utf8(real).unwrap();
    let branch = at_bob.branch().to_string();
    let foreign = real.replace(&branch, "z9hG4bKsomeoneelse");
    assert!(b.send(BOB, foreign.as_str()).is_empty());
    assert_eq!(b.dropped(Drop::ForeignResponse), 1);
    // Every digit of the branch counts.
    for at in 7..branch.len() {
        let digit = if &branch[at..=at] == "0" { "1" } else { "0" };
        let forged = format!("{}{digit}{}", &branch[..at], &branch[at + 1..]);
        let forged = real.replace(&branch, &forged);
        assert!(b.send(BOB, forged.as_str()).is_empty(), "digit {at}");
    }
    assert!(b.dropped(Drop::ForeignResponse) > 50);
    // The real one still passes.
    assert_eq!(b.send_for_one(BOB, real.as_str()).status(), 200);
}

#[test]
fn a_branch_of_a_transaction_that_is_over_is_stale_even_when_its_slot_has_a_new_tenant() {
    let mut b = bench();
    let first = only(b.send(ALICE, Request::new("MESSAGE", "sip:bob@example.com")));
    b.send(BOB, first.answer(200));
    b.assert_quiet();
    let second = only(b.send(CAROL, Request::new("MESSAGE", "sip:bob@example.com")));
    assert!(b.send(BOB, first.answer(200)).is_empty());
    assert_eq!(b.dropped(Drop::StrayResponse), 1);
    assert_eq!(b.send_for_one(BOB, second.answer(200)).status(), 200);
}

#[test]
fn a_response_to_another_method_than_was_sent_is_dropped() {
    let mut b = bench();
    let sent = b.send(ALICE, Request::invite());
    let at_bob = the(&sent, BOB).clone();
    for method in ["BYE", "ACK", "CANCEL", "NONSENSE", "bye", "INVITES"] {
        let answer = String::from_utf8(at_bob.answer(200).bytes()).unwrap();
        let answer = answer.replace("CSeq: 1 INVITE", &format!("CSeq: 1 {method}"));
        assert!(b.send(BOB, answer.as_str()).is_empty(), "{method}");
    }
    assert_eq!(b.send_for_one(BOB, at_bob.answer(200)).status(), 200);
}

#[test]
fn responses_out_of_range_or_broken_are_dropped() {
    let mut b = bench();
    let sent = b.send(ALICE, Request::invite());
    let at_bob = the(&sent, BOB).clone();
    let real = String::from_utf8(at_bob.answer(200).bytes()).unwrap();
    for (from, to) in [
        ("SIP/2.0 200", "SIP/2.0 700"),
        ("SIP/2.0 200", "SIP/2.0 99"),
        ("SIP/2.0 200", "SIP/2.0 4294967301"),
        ("SIP/2.0 200", "SIP/3.0 200"),
        ("CSeq:", "X:"),
        ("CSeq: 1", "CSeq: 4294967296"),
        ("Content-Length: 0", "Content-Length: 9"),
    ] {
        let broken = real.replace(from, to);
        assert_ne!(broken, real);
        assert!(b.send(BOB, broken.as_str()).is_empty(), "{to}");
    }
    assert_eq!(b.send_for_one(BOB, real.as_str()).status(), 200);
}

#[test]
fn a_single_503_becomes_500_and_other_failures_pass() {
    for (status, expected) in [
        (300, 300),
        (302, 302),
        (401, 401),
        (404, 404),
        (408, 408),
        (486, 486),
        (487, 487),
        (500, 500),
        (503, 500),
        (504, 504),
        (600, 600),
        (603, 603),
    ] {
        let mut b = bench();
        let invite = Request::invite();
        let sent = b.send(ALICE, &invite);
        let at_bob = the(&sent, BOB).clone();
        let sent = b.send(BOB, at_bob.answer(status).add("X-Extra: kept").body("why"));
        let ack = the(&sent, BOB);
        assert_eq!(ack.method(), "ACK", "{status}");
        let answer = the(&sent, ALICE);
        assert_eq!(answer.status(), expected);
        if expected == status {
            assert_eq!(answer.header("X-Extra"), Some("kept"));
            assert_eq!(answer.body, b"why");
        }
        let sent = b.send(ALICE, invite.ack(answer));
        assert!(sent.is_empty(), "the ACK to a non-2xx stays here");
        b.assert_quiet();
    }
}

#[test]
fn our_ack_to_a_non_2xx_is_made_as_17_1_1_3_says() {
    let mut b = Bench::new();
    let contact = "<sip:bob@10.0.1.2:5060>";
    let register = Request::new("REGISTER", "sip:example.com")
        .to("<sip:bob@example.com>")
        .add("Supported: path")
        .add("Path: <sip:10.0.2.1;lr>, <sip:10.0.2.2;lr>")
        .add(&format!("Contact: {contact}"));
    assert_eq!(b.send_for_one(BOB, register).status(), 200);
    let sent = b.send(ALICE, Request::invite().cseq(7).add("Require: 100rel"));
    let edge = "10.0.2.1:5060";
    let at_edge = the(&sent, edge).clone();
    let sent = b.send(edge, at_edge.answer(486).tag("busy"));
    let ack = the(&sent, edge);
    assert_eq!(ack.method(), "ACK");
    assert_eq!(ack.uri(), at_edge.uri());
    assert_eq!(ack.all("Via"), [at_edge.header("Via").unwrap()]);
    assert_eq!(ack.all("Route").join(", "), at_edge.all("Route").join(", "));
    assert_eq!(ack.header("From"), at_edge.header("From"));
    assert_eq!(ack.header("Call-ID"), at_edge.header("Call-ID"));
    assert_eq!(ack.header("CSeq"), Some("7 ACK"));
    assert_eq!(param(ack.header("To").unwrap(), "tag"), Some("busy"));
    assert_eq!(ack.header("Require"), None);
    assert!(ack.body.is_empty());
}

#[test]
fn transactions_beyond_the_limit_are_answered_503_with_retry_after() {
    let mut b = Bench::with(|settings| settings.per_core.transactions = 2);
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let first = Request::invite();
    b.send(ALICE, &first);
    b.send(ALICE, Request::invite());
    let third = Request::invite();
    let answer = b.send_for_one(ALICE, &third);
    assert_eq!(answer.status(), 503);
    assert!(answer.header("Retry-After").is_some());
    assert_eq!(b.limit_hits(Limit::Transactions), 1);
    assert!(b.send(ALICE, third.ack(&answer)).is_empty());
    // A repetition of what is known is no new transaction; nor is an ACK or a CANCEL.
    assert_eq!(b.send_for_one(ALICE, &first).status(), 100);
    assert_eq!(b.send_for_one(ALICE, first.cancel()).status(), 200);
    b.assert_quiet();
}
