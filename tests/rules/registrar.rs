//! The registrar (RFC 3261 §10.3, with Path of RFC 3327 and instances of RFC 5626).

use strowger::stack::Element;
use strowger::stack::counters::Limit;

use crate::bench::*;
use crate::message::{Request, Text, unique};

/// A REGISTER of Bob's, from his phone.
fn register() -> Request {
    let n = unique();
    Request::new("REGISTER", "sip:example.com")
        .via(BOB, &format!("z9hG4bKreg{n}"))
        .from("<sip:bob@example.com>;tag=b")
        .to("<sip:bob@example.com>")
        .call_id("bobs-phone")
        .cseq(n as u32)
}

/// Sends it and gives the status with the Contact values answered.
fn send(b: &mut Bench, request: Request) -> (u16, Vec<String>) {
    let answer = b.send_for_one(BOB, request);
    assert_eq!(answer.to, BOB);
    (answer.status(), contacts(&answer))
}

fn contacts(answer: &Text) -> Vec<String> {
    answer.all("Contact").iter().map(|c| c.to_string()).collect()
}

fn contact(b: &mut Bench, values: &str) -> (u16, Vec<String>) {
    send(b, register().add(&format!("Contact: {values}")))
}

fn query(b: &mut Bench) -> Vec<String> {
    let (status, contacts) = send(b, register());
    assert_eq!(status, 200);
    contacts
}

const A: &str = "<sip:bob@10.0.1.2:5060>";

#[test]
fn the_200_has_the_date_and_follows_a_clock_that_is_set() {
    let mut b = Bench::new();
    let date = |b: &mut Bench, lines: &[&str]| {
        let request = lines.iter().fold(register(), |request, line| request.add(line));
        let answer = b.send_for_one(BOB, request);
        assert_eq!(answer.status(), 200, "{answer}");
        answer.header("Date").map(str::to_owned)
    };
    assert_eq!(date(&mut b, &[]), None, "nobody has told the time");
    let now_ms = b.now;
    b.cores[0].handle_clock(1_289_690_940_000 - now_ms);
    let bind = format!("Contact: {A}");
    for lines in [&[bind.as_str()][..], &[], &["Contact: *", "Expires: 0"]] {
        assert_eq!(date(&mut b, lines).as_deref(), Some("Sat, 13 Nov 2010 23:29:00 GMT"), "{lines:?}");
    }
    b.tick(1000);
    assert_eq!(date(&mut b, &[]).as_deref(), Some("Sat, 13 Nov 2010 23:29:01 GMT"));
    b.cores[0].handle_clock(784_111_777_000 - now_ms - 1000);
    assert_eq!(date(&mut b, &[]).as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
}

/// Where room is short it is the date that goes, and not a contact.
#[test]
fn where_there_is_no_room_for_the_date_the_contacts_are_told() {
    let mut b = Bench::with(|settings| settings.limits.answer_factor = 2);
    let now_ms = b.now;
    b.cores[0].handle_clock(1_289_690_940_000 - now_ms);
    let mut with = 0;
    for count in 1..10 {
        assert_eq!(contact(&mut b, &format!("<sip:bob@10.0.1.2:700{count}>")).0, 200);
        let answer = b.send_for_one(BOB, register());
        let has_date = answer.header("Date").is_some();
        assert!(!has_date || contacts(&answer).len() == count, "{count}: {answer}");
        with += u32::from(has_date);
    }
    assert!((1..9).contains(&with), "{with} of 9 had the date");
}

#[test]
fn a_binding_is_added_shown_refreshed_and_removed() {
    let mut b = Bench::new();
    assert_eq!(contact(&mut b, A), (200, vec![format!("{A};expires=3600")]));
    b.tick(1000);
    assert_eq!(query(&mut b), [format!("{A};expires=3599")]);
    b.tick(499);
    assert_eq!(query(&mut b), [format!("{A};expires=3599")], "never shorter than it is");
    assert_eq!(contact(&mut b, &format!("{A};expires=100")).1, [format!("{A};expires=100")]);
    b.tick(99_999);
    assert_eq!(query(&mut b), [format!("{A};expires=1")]);
    b.tick(1);
    assert_eq!(query(&mut b), [""; 0]);
    contact(&mut b, A);
    assert_eq!(contact(&mut b, &format!("{A};expires=0")), (200, vec![]));
    assert_eq!(query(&mut b), [""; 0]);
}

#[test]
fn several_contacts_stand_side_by_side_with_their_q() {
    let mut b = Bench::new();
    let (status, all) = contact(
        &mut b,
        "<sip:bob@10.0.1.2:5060>;q=0.5;expires=600, \"Bob, at \\\"home\\\"\" <sip:bob@10.0.1.3:5060;x=y>;q=1, sip:bob@10.0.1.4;q=0",
    );
    assert_eq!(status, 200);
    assert_eq!(all.len(), 3, "{all:?}");
    assert_eq!(all[0], "<sip:bob@10.0.1.2:5060>;expires=600;q=0.5");
    assert!(all[1].starts_with("<sip:bob@10.0.1.3:5060;x=y>"));
    assert_eq!(all[2], "<sip:bob@10.0.1.4>;expires=3600;q=0");
    // On several lines too.
    let request = register().add(&format!("Contact: {A}")).add("m: <sip:bob@10.0.1.9>");
    assert_eq!(send(&mut b, request).1.len(), 4);
}

#[test]
fn one_phone_may_serve_several_addresses() {
    let mut b = Bench::new();
    for user in ["bob", "robert"] {
        let request = register().to(&format!("<sip:{user}@example.com>")).add(&format!("Contact: {A}"));
        assert_eq!(send(&mut b, request).0, 200);
    }
    assert_eq!(b.location.bindings(), 2);
    for user in ["bob", "robert"] {
        let sent = b.send(ALICE, Request::new("MESSAGE", &format!("sip:{user}@example.com")));
        assert_eq!(only(sent).to, BOB);
    }
    // To remove one leaves the other.
    contact(&mut b, &format!("{A};expires=0"));
    let sent = b.send(ALICE, Request::new("MESSAGE", "sip:robert@example.com"));
    assert_eq!(only(sent).to, BOB);
}

#[test]
fn the_contacts_own_interval_goes_before_the_header_and_that_before_the_default() {
    let mut b = Bench::with(|settings| settings.registrar.default_expires = 1800);
    let request = register().add("Expires: 600").add("Contact: <sip:a@10.0.1.2>;expires=900, <sip:b@10.0.1.2>");
    let (_, all) = send(&mut b, request);
    assert_eq!(all, ["<sip:a@10.0.1.2>;expires=900", "<sip:b@10.0.1.2>;expires=600"]);
    let (_, all) = contact(&mut b, "<sip:c@10.0.1.2>");
    assert!(all.contains(&"<sip:c@10.0.1.2>;expires=1800".to_string()));
    // Expires: 0 removes what has no interval of its own.
    let request = register().add("Expires: 0").add("Contact: <sip:a@10.0.1.2>, <sip:b@10.0.1.2>;expires=700, <sip:c@10.0.1.2>");
    assert_eq!(send(&mut b, request).1, ["<sip:b@10.0.1.2>;expires=700"]);
}

#[test]
fn too_brief_an_interval_is_423_and_changes_nothing() {
    let mut b = Bench::new();
    contact(&mut b, A);
    let request = register().add("Contact: <sip:x@10.0.1.2>;expires=1000, <sip:bob@10.0.1.2:5060>;expires=59");
    let answer = b.send_for_one(BOB, request);
    assert_eq!(answer.status(), 423);
    assert_eq!(answer.header("Min-Expires"), Some("60"));
    assert_eq!(query(&mut b), [format!("{A};expires=3600")]);
    assert_eq!(contact(&mut b, &format!("{A};expires=60")).0, 200);
}

#[test]
fn too_long_an_interval_is_cut() {
    let mut b = Bench::with(|settings| settings.registrar.max_expires = 1200);
    for asked in ["1201", "99999", "4294967295", "4294967296", "99999999999999999999"] {
        let (_, all) = contact(&mut b, &format!("{A};expires={asked}"));
        assert_eq!(all, [format!("{A};expires=1200")], "{asked}");
    }
    let request = register().add("Expires: 99999999999999").add(&format!("Contact: {A}"));
    assert_eq!(send(&mut b, request).1, [format!("{A};expires=1200")]);
    // The default too.
    assert_eq!(contact(&mut b, A).1, [format!("{A};expires=1200")]);
}

#[test]
fn a_malformed_interval_counts_as_an_hour() {
    let mut b = Bench::new();
    for asked in ["\"Thu, 01 Dec 1994 16:00:00 GMT\"", "soon", "-5"] {
        let (status, all) = contact(&mut b, &format!("{A};expires={asked}"));
        assert_eq!((status, all), (200, vec![format!("{A};expires=3600")]), "{asked}");
    }
    let request = register().add("Expires: Thu, 01 Dec 1994 16:00:00 GMT").add(&format!("Contact: {A}"));
    assert_eq!(send(&mut b, request).1, [format!("{A};expires=3600")]);
}

#[test]
fn a_star_removes_all_and_only_with_expires_0_and_alone() {
    let mut b = Bench::new();
    contact(&mut b, "<sip:a@10.0.1.2>, <sip:b@10.0.1.2>");
    for request in [
        register().add("Contact: *"),
        register().add("Contact: *").add("Expires: 60"),
        register().add("Contact: *").add("Expires: nonsense"),
        register().add("Contact: *").add("Contact: <sip:a@10.0.1.2>").add("Expires: 0"),
        register().add("Contact: <sip:a@10.0.1.2>, *").add("Expires: 0"),
        register().add("Contact: *, *").add("Expires: 0"),
    ] {
        assert_eq!(send(&mut b, request).0, 400);
    }
    assert_eq!(query(&mut b).len(), 2);
    let request = register().add("Contact: *").add("Expires: 0");
    assert_eq!(send(&mut b, request), (200, vec![]));
    assert_eq!(query(&mut b), [""; 0]);
    // Where there is nothing, too.
    let request = register().add("Contact: *").add("Expires: 0");
    assert_eq!(send(&mut b, request), (200, vec![]));
}

#[test]
fn with_the_same_call_id_cseq_must_rise() {
    let mut b = Bench::new();
    let at = |cseq: u32| register().cseq(cseq);
    let add = format!("Contact: {A};expires=600");
    assert_eq!(send(&mut b, at(10).add(&add)).0, 200);
    // An older one, late.
    assert_eq!(send(&mut b, at(9).add(&format!("Contact: {A};expires=0"))).0, 500);
    assert_eq!(send(&mut b, at(9).add("Contact: *").add("Expires: 0")).0, 500);
    assert_eq!(query(&mut b), [format!("{A};expires=600")]);
    // With another Call-ID the number says nothing: the phone has restarted.
    assert_eq!(send(&mut b, at(1).call_id("after-restart").add(&add)).0, 200);
    assert_eq!(send(&mut b, at(2).call_id("after-restart").add(&add)).0, 200);
}

#[test]
fn a_register_that_comes_again_changes_nothing_and_is_answered_the_same() {
    let mut b = Bench::new();
    let request = register().add(&format!("Contact: {A};expires=600"));
    let first = b.send_for_one(BOB, &request);
    b.tick(500);
    let again = b.send_for_one(BOB, &request);
    assert_eq!((again.status(), contacts(&again)), (200, contacts(&first)));
    b.tick(10_500);
    let again = b.send_for_one(BOB, &request);
    assert_eq!(contacts(&again), [format!("{A};expires=589")], "the interval is not prolonged");
    assert_eq!(b.location.bindings(), 1);
}

#[test]
fn a_register_that_comes_after_its_contact_was_removed_does_not_bring_it_back() {
    let mut b = Bench::new();
    let early = register().cseq(1).add(&format!("Contact: {A}"));
    send(&mut b, early.clone());
    let remove = register().cseq(2).add(&format!("Contact: {A};expires=0"));
    assert_eq!(send(&mut b, remove.clone()), (200, vec![]));
    // The network delivers the first one again.
    b.tick(5000);
    assert_eq!(send(&mut b, early.clone()), (200, vec![]));
    // Or the phone sends as late in a new transaction.
    assert_eq!(send(&mut b, early.via(BOB, "z9hG4bKlate")).0, 500);
    assert_eq!(send(&mut b, remove), (200, vec![]), "the removal again is fine");
    assert_eq!(query(&mut b), [""; 0]);
    // A new one is welcome at once.
    assert_eq!(send(&mut b, register().cseq(3).add(&format!("Contact: {A}"))).0, 200);
    // The same after a `*`.
    let star = register().cseq(4).add("Contact: *").add("Expires: 0");
    assert_eq!(send(&mut b, star), (200, vec![]));
    assert_eq!(send(&mut b, register().cseq(3).add(&format!("Contact: {A}"))).0, 500);
}

#[test]
fn what_has_expired_orders_nothing_any_more() {
    // A phone that keeps its Call-ID and begins with CSeq 1 again comes back after its binding has run out.
    let mut b = Bench::new();
    let add = format!("Contact: {A};expires=60");
    send(&mut b, register().cseq(50).add(&add));
    b.tick(60_000);
    assert_eq!(send(&mut b, register().cseq(1).add(&add)), (200, vec![format!("{A};expires=60")]));
    assert_eq!(b.location.bindings(), 1);
    // The memory of a removal ends as well.
    send(&mut b, register().cseq(2).add(&format!("Contact: {A};expires=0")));
    b.tick(33_000);
    assert_eq!(send(&mut b, register().cseq(1).add(&add)).0, 200);
}

#[test]
fn contacts_are_compared_as_uris() {
    // §19.1.4: case of scheme and host, escapes and the order of parameters do not matter; user, port and some parameters do.
    let mut b = Bench::new();
    contact(&mut b, "<sip:bob@phone.example.com;transport=udp;x=1>");
    for same in [
        "<SIP:bob@PHONE.example.COM;transport=udp;x=1>",
        "<sip:%62ob@phone.example.com;X=1;Transport=UDP>",
        "<sip:bob@phone.example.com;transport=udp>",
    ] {
        assert_eq!(contact(&mut b, same).1.len(), 1, "{same}");
    }
    for (n, other) in [
        "<sip:BOB@phone.example.com;transport=udp;x=1>",
        "<sip:bob@phone.example.com:5060;transport=udp;x=1>",
        "<sip:bob@phone.example.com;x=1>",
        "<sip:bob@phone.example.com;transport=udp;x=1;user=phone>",
    ]
    .iter()
    .enumerate()
    {
        assert_eq!(contact(&mut b, other).1.len(), n + 2, "{other}");
    }
}

#[test]
fn more_contacts_than_allowed_are_403_and_change_nothing() {
    let mut b = Bench::with(|settings| settings.registrar.max_contacts = 3);
    contact(&mut b, "<sip:a@10.0.1.2>, <sip:b@10.0.1.2>");
    let (status, _) = contact(&mut b, "<sip:c@10.0.1.2>, <sip:d@10.0.1.2>");
    assert_eq!(status, 403);
    assert_eq!(b.limit_hits(Limit::Contacts), 1);
    assert_eq!(query(&mut b).len(), 2);
    assert_eq!(contact(&mut b, "<sip:c@10.0.1.2>").1.len(), 3);
    // One for another in the same request is allowed, and a refresh of all.
    assert_eq!(contact(&mut b, "<sip:a@10.0.1.2>;expires=0, <sip:d@10.0.1.2>").0, 200);
    assert_eq!(query(&mut b).len(), 3);
    let all = "<sip:b@10.0.1.2>, <sip:c@10.0.1.2>, <sip:d@10.0.1.2>";
    assert_eq!(contact(&mut b, all).0, 200);
    // What has expired makes room.
    contact(&mut b, "<sip:b@10.0.1.2>;expires=60");
    b.tick(60_000);
    assert_eq!(contact(&mut b, "<sip:e@10.0.1.2>").0, 200);
}

#[test]
fn the_same_contact_twice_in_one_request_is_one_binding() {
    let mut b = Bench::with(|settings| settings.registrar.max_contacts = 2);
    let (status, all) = contact(&mut b, &format!("{A}, {A};expires=100"));
    assert_eq!((status, all), (200, vec![format!("{A};expires=100")]));
    let other = "<sip:b@10.0.1.2>;expires=100";
    assert_eq!(contact(&mut b, &format!("{other}, {A};expires=100")).0, 200);
    assert_eq!(contact(&mut b, &format!("{A};expires=0, {A};expires=0")).1, [other]);
}

#[test]
fn changing_contacts_for_ever_does_not_fill_the_memory() {
    let mut b = Bench::with(|settings| settings.registrar.max_contacts = 2);
    for n in 0..200 {
        let one = format!("<sip:bob@10.0.1.2:{}>", 10_000 + n);
        assert_eq!(contact(&mut b, &one).0, 200);
        assert_eq!(contact(&mut b, &format!("{one};expires=0")).0, 200);
        b.tick(10);
    }
    assert!(b.location.bindings() <= 16, "{}", b.location.bindings());
}

#[test]
fn more_bindings_than_the_server_holds_are_503_with_retry_after() {
    let mut b = Bench::trusting();
    for n in 0..100 {
        let ten: Vec<_> = (0..10).map(|c| format!("<sip:u{n}@10.0.1.2:{}>", 1000 + c)).collect();
        let request = register().to(&format!("<sip:u{n}@example.com>")).add(&format!("Contact: {}", ten.join(", ")));
        assert_eq!(send(&mut b, request).0, 200);
    }
    assert_eq!(b.location.bindings(), 1000);
    let answer = b.send_for_one(BOB, register().add(&format!("Contact: {A}")));
    assert_eq!(answer.status(), 503);
    assert!(answer.header("Retry-After").is_some());
    assert_eq!(b.limit_hits(Limit::Bindings), 1);
    // A refresh needs no room.
    let request = register().to("<sip:u7@example.com>").add("Contact: <sip:u7@10.0.1.2:1003>");
    assert_eq!(send(&mut b, request).0, 200);
    assert_eq!(b.location.bindings(), 1000);
}

#[test]
fn one_bad_contact_and_nothing_changes() {
    let mut b = Bench::new();
    contact(&mut b, A);
    for bad in [
        "<sip:x@10.0.1.2>, <sip:y@10.0.1.2",
        "<sip:x@10.0.1.2>, sip:y@10.0.1.2?Subject=z",
        "<sip:x@10.0.1.2>, <sip:y@10.0.1.2>;q=2",
        "<sip:x@10.0.1.2>, <sip:y@10.0.1.2:99999>",
        "<sip:x@10.0.1.2>, <>",
        "<sip:x@10.0.1.2>, nonsense",
        "<sip:bob@10.0.1.2:5060>;expires=0, <sip:@10.0.1.2>",
    ] {
        assert_eq!(contact(&mut b, bad).0, 400, "{bad}");
        assert_eq!(query(&mut b), [format!("{A};expires=3600")], "{bad}");
    }
}

#[test]
fn an_address_that_is_not_ours_is_404() {
    let mut b = Bench::new();
    for to in ["<sip:bob@elsewhere.example>", "<sip:example.com>", "<sip:bob@10.9.9.9>"] {
        let request = register().to(to).add(&format!("Contact: {A}"));
        assert_eq!(send(&mut b, request).0, 404, "{to}");
    }
    let request = register().to("<tel:+123>").add(&format!("Contact: {A}"));
    assert_eq!(send(&mut b, request).0, 400, "no SIP URI at all");
    // Nor is a REGISTER for another domain relayed.
    let mut request = register().add(&format!("Contact: {A}"));
    request.uri = "sip:elsewhere.example".into();
    assert_eq!(send(&mut b, request).0, 404);
    assert_eq!(b.location.bindings(), 0);
}

#[test]
fn the_address_is_known_in_whatever_form_it_is_written() {
    let mut b = Bench::new();
    let forms = [
        "<sip:bob@example.com>",
        "<sip:%62%6fb@EXAMPLE.com>",
        "\"Bob\" <sip:bob@example.com:5060;transport=tcp?x=y>",
        "<sips:bob@example.com>",
        "<sip:bob:secret@example.com>",
        "sip:bob@Example.Com;tag=1",
    ];
    for (n, to) in forms.iter().enumerate() {
        let request = register().to(to).add(&format!("Contact: <sip:c{n}@10.0.1.2>"));
        assert_eq!(send(&mut b, request).1.len(), n + 1, "{to}");
    }
    // Another user is another address: the user part has case.
    let request = register().to("<sip:BOB@example.com>").add(&format!("Contact: {A}"));
    assert_eq!(send(&mut b, request).1.len(), 1);
}

#[test]
fn the_registrar_can_be_switched_off() {
    let mut b = Bench::with(|settings| settings.registrar.enabled = false);
    assert_eq!(contact(&mut b, A).0, 403);
    assert_eq!(b.location.bindings(), 0);
}

// ---- RFC 3327 ----------------------------------------------------------------------------------------------------------

#[test]
fn rfc_3327_the_path_is_answered_stored_and_becomes_the_route() {
    let mut b = Bench::new();
    let request = register()
        .add("Supported: path")
        .add("Path: <sip:edge.example.net@10.0.2.1;lr>,<sip:10.0.2.2:5080;lr>")
        .add("Path: \"x, y\" <sip:10.0.2.3;lr>")
        .add(&format!("Contact: {A}"));
    let answer = b.send_for_one(BOB, request);
    assert_eq!(answer.all("Path"), ["<sip:edge.example.net@10.0.2.1;lr>,<sip:10.0.2.2:5080;lr>", "\"x, y\" <sip:10.0.2.3;lr>"]);
    let sent = b.send(ALICE, Request::invite());
    let at_edge = the(&sent, "10.0.2.1:5060");
    assert_eq!(at_edge.uri(), "sip:bob@10.0.1.2:5060");
    assert_eq!(
        at_edge.all("Route").join(", "),
        "<sip:edge.example.net@10.0.2.1;lr>, <sip:10.0.2.2:5080;lr>, \"x, y\" <sip:10.0.2.3;lr>"
    );
    // A REGISTER without Path takes it away.
    contact(&mut b, A);
    let sent = b.send(ALICE, Request::invite());
    assert_eq!(the(&sent, BOB).all("Route").len(), 0);
    b.assert_quiet();
}

#[test]
fn rfc_3327_each_binding_has_the_path_of_its_own_register() {
    let mut b = Bench::with(|settings| settings.limits.answer_factor = 0);
    for n in 1..=2 {
        let request = register()
            .call_id(&format!("path{n}"))
            .add(&format!("Path: <sip:10.0.2.{n};lr>"))
            .add(&format!("Contact: <sip:bob@10.0.1.{n}:5060>"));
        send(&mut b, request);
    }
    let sent = b.send(DAVE, Request::invite().via("10.0.1.4", "z9hG4bKd"));
    for n in 1..=2 {
        let at = the(&sent, &format!("10.0.2.{n}:5060"));
        assert_eq!(at.uri(), format!("sip:bob@10.0.1.{n}:5060"));
        assert_eq!(at.all("Route"), [format!("<sip:10.0.2.{n};lr>")]);
    }
}

#[test]
fn rfc_3327_a_path_of_a_strict_router_is_followed_strictly() {
    let mut b = Bench::new();
    let request = register().add("Path: <sip:10.0.2.1:5066>, <sip:10.0.2.2;lr>").add(&format!("Contact: {A}"));
    send(&mut b, request);
    let sent = b.send(ALICE, Request::invite());
    let at = the(&sent, "10.0.2.1:5066");
    assert_eq!(at.uri(), "sip:10.0.2.1:5066");
    assert_eq!(at.all("Route"), ["<sip:10.0.2.2;lr>", "<sip:bob@10.0.1.2:5060>"]);
}

#[test]
fn a_path_longer_than_can_be_stored_is_refused() {
    let mut b = Bench::with(|settings| settings.limits.message_size = 100_000);
    let path = vec!["<sip:a>"; 8300].join(",");
    let request = register().add(&format!("Path: {path}")).add(&format!("Contact: {A}"));
    assert_eq!(send(&mut b, request).0, 400);
    assert_eq!(b.location.bindings(), 0);
}

// ---- RFC 5626 ----------------------------------------------------------------------------------------------------------

const ONE: &str = "+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-000A95A0E128>\"";
const TWO: &str = "+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-FFFFFFFFFFFF>\"";

#[test]
fn rfc_5626_the_same_instance_and_reg_id_replace_whatever_the_uri() {
    let mut b = Bench::new();
    contact(&mut b, &format!("<sip:bob@10.0.1.2:1111>;{ONE};reg-id=1"));
    let (_, all) = contact(&mut b, &format!("<sip:bob@10.0.1.2:2222>;{ONE};reg-id=1"));
    assert_eq!(all, [format!("<sip:bob@10.0.1.2:2222>;expires=3600;{ONE};reg-id=1")]);
    // Another flow of the same phone, and another phone, stand beside it.
    assert_eq!(contact(&mut b, &format!("<sip:bob@10.0.1.2:2222>;{ONE};reg-id=2")).1.len(), 2);
    assert_eq!(contact(&mut b, &format!("<sip:bob@10.0.1.2:2222>;{TWO};reg-id=1")).1.len(), 3);
    // The restarted phone with a new Call-ID still replaces its own.
    let request = register().call_id("restarted").cseq(1).add(&format!("Contact: <sip:bob@10.0.1.2:3333>;{ONE};reg-id=1"));
    let (_, all) = send(&mut b, request);
    assert_eq!(all.len(), 3);
    assert!(all.contains(&format!("<sip:bob@10.0.1.2:3333>;expires=3600;{ONE};reg-id=1")));
}

#[test]
fn an_instance_without_reg_id_is_kept_and_has_one_binding() {
    let mut b = Bench::new();
    contact(&mut b, &format!("<sip:bob@10.0.1.2:1111>;{ONE}"));
    let (_, all) = contact(&mut b, &format!("<sip:bob@10.0.1.2:2222>;{ONE}"));
    assert_eq!(all, [format!("<sip:bob@10.0.1.2:2222>;expires=3600;{ONE}")]);
    // reg-id without an instance means nothing (§6).
    let (_, all) = contact(&mut b, "<sip:bob@10.0.1.2:2222>;reg-id=7");
    assert_eq!(all, ["<sip:bob@10.0.1.2:2222>;expires=3600"]);
}

#[test]
fn rfc_5626_a_removal_names_the_instance() {
    let mut b = Bench::new();
    contact(&mut b, &format!("<sip:bob@10.0.1.2:1111>;{ONE};reg-id=1"));
    let (_, all) = contact(&mut b, &format!("<sip:bob@10.0.1.2:9999>;{ONE};reg-id=1;expires=0"));
    assert_eq!(all, [""; 0]);
}

// ---- the answer --------------------------------------------------------------------------------------------------------

#[test]
fn the_answer_lists_all_bindings_and_keeps_no_transaction() {
    let mut b = Bench::new();
    contact(&mut b, "<sip:a@10.0.1.2>;q=0.25");
    let answer = b.send_for_one(BOB, register().add("Contact: <sip:b@10.0.1.2>"));
    assert_eq!(
        contacts(&answer),
        [
            // What this REGISTER has bound comes first.
            "<sip:b@10.0.1.2>;expires=3600",
            "<sip:a@10.0.1.2>;expires=3600;q=0.25"
        ]
    );
    assert!(answer.header("To").unwrap().contains(";tag="));
    assert_eq!(b.server_transactions(), 0);
    b.assert_quiet();
}

#[test]
fn the_operators_binding_gives_way_to_the_phones_own() {
    let mut b = Bench::new();
    b.location.add(Default::default(), b"bob@example.com", b"sip:bob@10.0.1.2:5060", 100).unwrap();
    assert_eq!(query(&mut b), [format!("{A};expires=100")]);
    assert_eq!(contact(&mut b, A).1, [format!("{A};expires=3600")]);
    assert_eq!(b.location.bindings(), 1);
}
