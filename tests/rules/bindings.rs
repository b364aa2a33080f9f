//! What counts as a binding and what it costs: phones that come back by another way, dead connections, a CSeq that is used again, contacts
//! that are many, long, or lead back to where they are bound.

use strowger::base::{Flow, Instant, Transport::*};
use strowger::stack::counters::Limit;
use strowger::stack::location::SHARDS;

use crate::bench::*;
use crate::message::{Request, unique};

const ONE: &str = "+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-000A95A0E128>\"";
const TWO: &str = "+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-FFFFFFFFFFFF>\"";

/// A REGISTER of Bob's, with a Call-ID of its own.
fn register() -> Request {
    let n = unique();
    Request::new("REGISTER", "sip:example.com")
        .via(BOB, &format!("z9hG4bKreg{n}"))
        .from("<sip:bob@example.com>;tag=b")
        .to("<sip:bob@example.com>")
        .call_id(&format!("bob{n}"))
}

fn with_contact(contact: &str) -> Request {
    register().add(&format!("Contact: {contact}"))
}

fn send(b: &mut Bench, request: Request) -> (u16, Vec<String>) {
    let answer = b.send_for_one(BOB, request);
    let contacts = answer.all("Contact");
    let contacts = contacts.iter().map(|contact| contact.to_string());
    (answer.status(), contacts.collect())
}

fn contact(b: &mut Bench, contact: &str) -> (u16, Vec<String>) {
    send(b, with_contact(contact))
}

/// Asks over a connection: by a datagram, whose source may be forged, not all that is bound is told.
fn ask(b: &mut Bench, request: Request) -> Sent {
    let way = b.open(Tcp, 0, 60, BOB);
    only(b.send_on(0, way, request.by(Tcp)))
}

fn query(b: &mut Bench) -> Vec<String> {
    let answer = ask(b, register());
    assert_eq!(answer.status(), 200);
    let contacts = answer.all("Contact");
    contacts.iter().map(|contact| contact.to_string()).collect()
}

fn streams() -> Bench {
    Bench::with(|settings| {
        settings.listeners = listeners();
        settings.cores = 2;
    })
}

/// Bob registers over a connection; the status.
fn by(b: &mut Bench, flow: Flow, sent_by: &str, contact: &str) -> u16 {
    let request = with_contact(contact).via(sent_by, &format!("z9hG4bKway{}", unique())).by(flow.transport);
    let answer = only(b.send_on(flow.core.into(), flow, request));
    assert_eq!(answer.flow, flow);
    answer.status()
}

/// The flows by which a call to Bob leaves.
fn rung(b: &mut Bench) -> Vec<Flow> {
    let sent = b.send(ALICE, Request::invite());
    let rung = sent.iter().filter(|sent| sent.status() == 0);
    rung.map(|sent| sent.flow).collect()
}

// ---- phones that come back ---------------------------------------------------------------------------------------------------

#[test]
fn a_phone_that_comes_back_by_another_connection_has_one_binding() {
    for transport in [Tcp, Tls] {
        let mut b = streams();
        let mut last = None;
        for n in 0..15u32 {
            let peer = format!("198.51.100.7:{}", 40_000 + n);
            let flow = b.open(transport, (n % 2) as u8, 3 + n / 2, &peer);
            // Another port in the contact each time, and another case and quoting of the instance.
            let instance = match n % 3 {
                0 => ONE.to_string(),
                1 => ONE.to_lowercase(),
                _ => ONE.replace(['"', '<', '>'], ""),
            };
            let contact = format!("<sip:bob@198.51.100.7:{}>;{instance}", 40_000 + n);
            assert_eq!(by(&mut b, flow, &peer, &contact), 200, "{n}");
            assert_eq!(b.location.bindings(), 1);
            last = Some(flow);
            if n % 2 == 0 {
                b.lose(flow);
                last = None;
            }
        }
        let flow = b.open(transport, 0, 30, "198.51.100.7:50000");
        let contact = format!("<sip:bob@198.51.100.7:50000>;{ONE}");
        assert_eq!(by(&mut b, flow, "198.51.100.7:50000", &contact), 200);
        assert_eq!(rung(&mut b), [flow], "{last:?}");
    }
}

#[test]
fn a_phone_that_comes_back_from_another_port_has_one_binding() {
    let mut b = Bench::new();
    for port in 40_000..40_020 {
        let one = format!("<sip:bob@10.0.1.2:{port}>;{ONE}");
        let (status, all) = contact(&mut b, &one);
        assert_eq!((status, all.len()), (200, 1));
        b.tick(60_000);
    }
    let sent = b.send(ALICE, Request::invite());
    let rung: Vec<_> = sent.iter().filter(|s| s.status() == 0).collect();
    assert_eq!(rung.len(), 1);
    assert_eq!(rung[0].to, "10.0.1.2:40019");
    // Another phone stands beside it, and so does one that names none.
    assert_eq!(contact(&mut b, &format!("<sip:b@10.0.1.3>;{TWO}")).1.len(), 2);
    assert_eq!(contact(&mut b, "<sip:b@10.0.1.4>").1.len(), 3);
    assert_eq!(contact(&mut b, &format!("<sip:b@10.0.1.5>;{ONE}")).1.len(), 3);
}

#[test]
fn flows_with_reg_ids_stand_side_by_side() {
    let mut b = Bench::new();
    for reg_id in [1, 2] {
        contact(&mut b, &format!("<sip:b@10.0.1.{reg_id}>;{ONE};reg-id={reg_id}"));
    }
    assert_eq!(query(&mut b).len(), 2);
    // What one names no reg-id with is beside them, and is one.
    contact(&mut b, &format!("<sip:b@10.0.1.3>;{ONE}"));
    contact(&mut b, &format!("<sip:b@10.0.1.4>;{ONE}"));
    let all = query(&mut b);
    assert_eq!(all.len(), 3, "{all:?}");
    // In another case it is the same flow.
    let lower = ONE.to_lowercase();
    contact(&mut b, &format!("<sip:b@10.0.1.9>;{lower};reg-id=2"));
    let all = query(&mut b);
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(all[1].starts_with("<sip:b@10.0.1.9>"));
}

#[test]
fn several_contacts_of_one_register_stand_side_by_side_though_they_are_of_one_instance() {
    let mut b = Bench::new();
    let two = format!("<sip:b@10.0.1.2:1>;{ONE}, <sip:b@10.0.1.2:2>;{ONE}");
    for _ in 0..2 {
        assert_eq!(contact(&mut b, &two).1.len(), 2);
    }
    // The phone has moved: both go.
    let moved = format!("<sip:b@10.0.1.9:1>;{ONE}");
    assert_eq!(contact(&mut b, &moved).1, [format!("<sip:b@10.0.1.9:1>;expires=3600;{ONE}")]);
    // It says by itself where it was; and says so again when it has come back already.
    let back = format!("<sip:b@10.0.1.2:1>;{ONE}, {moved};expires=0");
    assert_eq!(contact(&mut b, &back).1, [format!("<sip:b@10.0.1.2:1>;expires=3600;{ONE}")]);
    assert_eq!(contact(&mut b, &format!("{moved};expires=0")).1.len(), 1);
}

#[test]
fn dead_connections_give_way_oldest_first_and_living_ones_do_not() {
    // Behind a NAT; and where the contact is the end of the connection.
    for (host, transport) in [("192.168.0.5", Tcp), ("198.51.100.7", Tcp), ("h.invalid", Tls)] {
        let mut b = streams();
        let mut flows = Vec::new();
        for n in 0..10u32 {
            let peer = format!("198.51.100.7:{}", 40_000 + n);
            let flow = b.open(transport, (n % 2) as u8, 3 + n, &peer);
            let contact = format!("<sip:bob@{host}:{}>", 40_000 + n);
            let sent_by = format!("{host}:{}", 40_000 + n);
            assert_eq!(by(&mut b, flow, &sent_by, &contact), 200);
            flows.push(flow);
            b.tick(1000);
        }
        // Ten that live: another is one too many.
        let new = b.open(transport, 0, 40, "198.51.100.7:50000");
        let contact = format!("<sip:bob@{host}:50000>");
        let sent_by = format!("{host}:50000");
        assert_eq!(by(&mut b, new, &sent_by, &contact), 403);
        assert_eq!(query(&mut b).len(), 10);
        b.lose(flows[6]);
        b.lose(flows[2]);
        assert_eq!(by(&mut b, new, &sent_by, &contact), 200);
        let all = query(&mut b).join(" ");
        assert!(!all.contains(":40002>") && all.contains(":40006>"), "{all}");
        // A call goes to the nine that live and not to the dead one.
        let ways = rung(&mut b);
        assert_eq!(ways.len(), 9, "{ways:?}");
        assert!(!ways.contains(&flows[6]) && ways.contains(&new));
        let another = b.open(transport, 1, 41, "198.51.100.7:50001");
        let contact = format!("<sip:bob@{host}:50001>");
        assert_eq!(by(&mut b, another, &format!("{host}:50001"), &contact), 200);
        let more = b.open(transport, 1, 42, "198.51.100.7:50002");
        let contact = format!("<sip:bob@{host}:50002>");
        assert_eq!(by(&mut b, more, &format!("{host}:50002"), &contact), 403);
        assert_eq!(rung(&mut b).len(), 10);
    }
}

#[test]
fn a_phone_that_comes_back_for_ever_without_an_instance_is_never_refused() {
    let mut b = streams();
    for n in 0..40u32 {
        let peer = format!("198.51.100.7:{}", 40_000 + n);
        let flow = b.open(Tcp, 0, 3 + n, &peer);
        let contact = format!("<sip:bob@198.51.100.7:{};transport=tcp>", 40_000 + n);
        assert_eq!(by(&mut b, flow, &peer, &contact), 200, "{n}");
        assert_eq!(rung(&mut b), [flow], "{n}");
        b.lose(flow);
    }
    assert!(b.location.bindings() <= 10);
}

// ---- the order of REGISTERs -------------------------------------------------------------------------------------------------

#[test]
fn equal_numbers_with_other_contents_are_refused_whole() {
    let a = "<sip:bob@10.0.1.2:5060>";
    let others = |n: u32| {
        let base = with_contact(a).call_id("phone").cseq(n);
        [
            ("removal", register().add("Expires: 0").add(&format!("Contact: {a}"))),
            ("star", register().add("Expires: 0").add("Contact: *")),
            ("new", with_contact("<sip:evil@10.6.6.6>")),
            ("both", with_contact(&format!("{a}, <sip:evil@10.6.6.6>"))),
            ("interval", with_contact(&format!("{a};expires=60"))),
            ("q", with_contact(&format!("{a};q=0.1"))),
            ("path", base.clone().add("Path: <sip:10.6.6.6;lr>")),
        ]
        .map(|(what, request)| (what, request.call_id("phone").cseq(n)))
    };
    for wait in [0, 31_000, 600_000] {
        for same_branch in [false, true] {
            for (what, other) in others(5) {
                let mut b = Bench::new();
                let first = with_contact(a).call_id("phone").cseq(5);
                let first = first.via(BOB, "z9hG4bKone");
                assert_eq!(send(&mut b, first).0, 200);
                b.tick(wait);
                let before = query(&mut b);
                let other = match same_branch {
                    true => other.via(BOB, "z9hG4bKone"),
                    false => other,
                };
                assert_eq!(send(&mut b, other).0, 500, "{what} after {wait}");
                assert_eq!(query(&mut b), before, "{what} after {wait}");
            }
        }
    }
    // With a lower one, what is bound stays; with a higher one, all of it is done.
    for (what, other) in others(4).into_iter().filter(|(what, _)| *what != "new") {
        let mut b = Bench::new();
        send(&mut b, with_contact(a).call_id("phone").cseq(5));
        let before = query(&mut b);
        assert_eq!(send(&mut b, other).0, 500, "{what}");
        assert_eq!(query(&mut b), before, "{what}");
    }
    for (what, other) in others(6) {
        let mut b = Bench::new();
        send(&mut b, with_contact(a).call_id("phone").cseq(5));
        assert_eq!(send(&mut b, other).0, 200, "{what}");
    }
}

#[test]
fn the_same_register_is_answered_as_often_as_it_comes_and_carried_out_once() {
    let a = "<sip:bob@10.0.1.2:5060>";
    let requests = [
        with_contact(a).call_id("phone").cseq(6),
        with_contact(&format!("{a};expires=0")).call_id("phone").cseq(6),
        register().add("Contact: *").add("Expires: 0").call_id("phone").cseq(6),
        with_contact(&format!("{a}, <sip:b@10.0.1.3>;q=0.5")).call_id("phone").cseq(6),
    ];
    for request in requests {
        let mut b = Bench::new();
        send(&mut b, with_contact(a).call_id("phone").cseq(5));
        send(&mut b, with_contact("<sip:desk@10.0.1.9>"));
        let first = send(&mut b, request.clone());
        assert_eq!(first.0, 200);
        // The 200 was lost: the phone asks again, and then by another way, as §4.3 of RFC 3263 has it.
        for wait in [500, 1000, 2000, 4000] {
            b.tick(wait);
            let again = send(&mut b, request.clone());
            assert_eq!((again.0, again.1.len()), (200, first.1.len()));
        }
        let elsewhere = request.clone().via(BOB, "z9hG4bKotherway");
        assert_eq!(send(&mut b, elsewhere).0, 200);
        // Another phone has come meanwhile, and stays.
        send(&mut b, with_contact("<sip:new@10.0.1.8>"));
        let before = query(&mut b);
        assert_eq!(send(&mut b, request).0, 200);
        assert_eq!(query(&mut b), before);
    }
}

#[test]
fn registers_that_overtake_each_other_leave_the_newer_ones_work() {
    let mut b = Bench::new();
    let old = with_contact("<sip:bob@10.0.1.2:1>").call_id("phone").cseq(1);
    let new = with_contact("<sip:bob@10.0.1.2:1>;expires=0, <sip:bob@10.0.1.2:2>");
    let new = new.call_id("phone").cseq(2);
    // The removal of what is not there leaves nothing behind, so only what both speak of is in order.
    let refresh = with_contact("<sip:bob@10.0.1.2:2>;expires=60").call_id("phone").cseq(1);
    assert_eq!(send(&mut b, new).0, 200);
    assert_eq!(send(&mut b, refresh).0, 500);
    assert_eq!(send(&mut b, old).0, 200, "another contact, which no newer one speaks of");
    let all = query(&mut b);
    assert!(all.contains(&"<sip:bob@10.0.1.2:2>;expires=3600".to_string()), "{all:?}");
}

// ---- what it costs ---------------------------------------------------------------------------------------------------------

/// A contact of 32 parameters that equals another but in the last.
fn wide(last: usize) -> String {
    let many: String = (0..31).map(|n| format!(";p{n}=v")).collect();
    format!("<sip:bob@10.0.1.2{many};last={last}>")
}

#[test]
fn more_contacts_than_allowed_are_refused_before_any_is_compared() {
    let mut b = Bench::new();
    for n in 0..10 {
        assert_eq!(contact(&mut b, &wide(n)).0, 200);
    }
    let compared = b.cores[0].uris_compared();
    let list = |count: usize| (0..count).map(|n| wide(100 + n)).collect::<Vec<_>>().join(", ");
    for expires in ["Expires: 0", "Expires: 600"] {
        for count in [11, 280] {
            let request = with_contact(&list(count)).add(expires);
            assert_eq!(send(&mut b, request).0, 403, "{count}");
        }
    }
    assert_eq!(b.limit_hits(Limit::Contacts), 4);
    let short: Vec<_> = (0..5000).map(|n| format!("<sip:{n}@h>")).collect();
    let request = with_contact(&short.join(",")).add("Expires: 0");
    assert_eq!(send(&mut b, request).0, 403);
    assert_eq!(b.cores[0].uris_compared(), compared);
    assert_eq!(query(&mut b).len(), 10);
}

#[test]
fn uris_are_compared_a_few_times_for_each_contact_that_is_sent() {
    // Ten that nothing but a parameter tells apart, and thirty that were removed.
    let mut b = Bench::new();
    for n in 0..40 {
        assert_eq!(contact(&mut b, &wide(n)).0, 200);
        if n < 30 {
            assert_eq!(contact(&mut b, &format!("{};expires=0", wide(n))).0, 200);
        }
    }
    let before = b.cores[0].uris_compared();
    let ten: Vec<_> = (0..10).map(|n| wide(1000 + n)).collect();
    let request = with_contact(&ten.join(", ")).add("Expires: 0");
    assert_eq!(send(&mut b, request).0, 200);
    let compared = b.cores[0].uris_compared() - before;
    assert!(compared <= 80, "{compared} for ten contacts");
    let before = b.cores[0].uris_compared();
    assert_eq!(contact(&mut b, &format!("{};expires=0", wide(1000))).0, 200);
    let compared = b.cores[0].uris_compared() - before;
    assert!(compared <= 4, "{compared} for one contact");
    // Others are not compared at all.
    let before = b.cores[0].uris_compared();
    assert_eq!(contact(&mut b, "<sip:bob@10.0.1.3>;expires=0").0, 200);
    assert_eq!(b.cores[0].uris_compared(), before);
}

#[test]
fn what_is_too_long_is_refused_and_binds_nothing() {
    let mut b = Bench::new();
    let long = |length: usize| "x".repeat(length);
    let refused = [
        with_contact(&format!("<sip:bob@10.0.1.2;x={}>", long(1024))),
        with_contact(&format!("<sip:bob@10.0.1.2>;x={}", long(60_000))),
        with_contact(&format!("\"{}\" <sip:bob@10.0.1.2>", long(1024))),
        with_contact(&format!("<sip:{}@10.0.1.2>", long(60_000))),
        with_contact(&format!("<sip:bob@10.0.1.2>;+sip.instance=\"<{}>\"", long(1024))),
        with_contact("<sip:bob@10.0.1.2>").add(&format!("Path: <sip:{}@10.0.9.9;lr>", long(1024))),
        with_contact("<sip:bob@10.0.1.2>").call_id(&long(1025)),
        register().add("Contact: *").add("Expires: 0").call_id(&long(1025)),
        with_contact("<sip:bob@10.0.1.2>").to(&format!("<sip:{}@example.com>", long(1025))),
    ];
    let count = refused.len() as u64;
    for request in refused {
        let answer = b.send_for_one(BOB, request);
        assert_eq!(answer.status(), 400, "{answer}");
        assert!(answer.reason().ends_with("Too Long"), "{answer}");
        assert_eq!(b.location.records(), 0);
    }
    assert_eq!(b.limit_hits(Limit::ContactSize), count);
    // The longest that there may be.
    let rest = "<sip:bob@10.0.1.2;x=>".len();
    let longest = format!("<sip:bob@10.0.1.2;x={}>", long(1024 - rest));
    assert_eq!(contact(&mut b, &longest).0, 200);
}

#[test]
fn what_would_not_fit_into_an_answer_is_not_bound() {
    let mut b = Bench::with(|settings| settings.limits.contact_size = 60 << 10);
    let long = |n: usize| format!("<sip:bob{n}@10.0.1.2;x={}>", "y".repeat(20_000));
    let mut bound = 0;
    for n in 0..10 {
        match contact(&mut b, &long(n)).0 {
            200 => bound += 1,
            status => assert_eq!(status, 400),
        }
    }
    // A REGISTER of 20 kB and three contacts are more than a datagram carries together, and two are not.
    assert_eq!(bound, 3);
    let answer = ask(&mut b, register());
    assert_eq!((answer.status(), answer.all("Contact").len()), (200, 3));
    assert!(answer.bytes.len() < 65_507);
    // One that is full of something else is told so.
    let full = register().add(&format!("Subject: {}", "z".repeat(10_000)));
    assert_eq!(ask(&mut b, full).status(), 513);
}

#[test]
fn a_binding_counts_for_what_it_holds() {
    // A thousand are allowed; these count for four each.
    let mut b = Bench::trusting();
    let long = format!("<sip:bob@10.0.1.2;x={}>", "y".repeat(1000));
    let mut bound = 0;
    for n in 0..300 {
        let request = with_contact(&long).to(&format!("<sip:user{n}@example.com>"));
        match send(&mut b, request).0 {
            200 => bound += 1,
            status => assert_eq!(status, 503),
        }
    }
    assert_eq!((bound, b.location.bindings()), (250, 250));
    assert_eq!(b.limit_hits(Limit::Bindings), 50);
    // When they have gone there is room again.
    b.tick(3_600_000);
    (0..SHARDS).for_each(|_| _ = b.location.sweep(Instant::from_ms(b.now)));
    assert_eq!((b.location.bindings(), b.location.records()), (0, 0));
    let request = with_contact("<sip:bob@10.0.1.2>");
    assert_eq!(send(&mut b, request).0, 200);
}

#[test]
fn who_is_nobody_leaves_nothing_in_memory() {
    let mut b = Bench::new();
    let star = register().add("Contact: *").add("Expires: 0");
    assert_eq!(send(&mut b, star.clone()).0, 200);
    for n in 0..100 {
        let removal = with_contact("<sip:x@10.0.1.2>;expires=0");
        let removal = removal.to(&format!("<sip:nobody{n}@example.com>"));
        assert_eq!(send(&mut b, removal).0, 200);
        assert_eq!(send(&mut b, register().to("<sip:asked@example.com>")).0, 200);
    }
    // That something was removed is remembered for as long as it may come again: another phone may have come meanwhile.
    contact(&mut b, "<sip:bob@10.0.1.2>;expires=60");
    b.tick(4000);
    assert_eq!(send(&mut b, star).0, 200);
    assert_eq!(query(&mut b).len(), 1);
    b.tick(60_000);
    (0..SHARDS).for_each(|_| _ = b.location.sweep(Instant::from_ms(b.now)));
    assert_eq!((b.location.records(), b.location.bindings()), (0, 0));
}

#[test]
fn old_bindings_make_no_user() {
    let mut b = Bench::new();
    contact(&mut b, "<sip:bob@10.0.1.2>;expires=60");
    b.tick(60_000);
    assert_eq!(b.send_for_one(ALICE, Request::invite()).status(), 480);
    (0..SHARDS).for_each(|_| _ = b.location.sweep(Instant::from_ms(b.now)));
    assert_eq!(b.send_for_one(ALICE, Request::invite()).status(), 404);
    assert_eq!(b.location.records(), 0);
}

// ---- contacts that lead back -----------------------------------------------------------------------------------------------

#[test]
fn a_contact_that_names_its_own_address_is_not_called() {
    for own in [
        "sip:bob@example.com",
        "sip:bob@EXAMPLE.com.",
        "sip:%62ob@example.com:5060",
        "sip:bob@example.com;x=1",
        "sip:bob@example.com;transport=udp?x=y",
        "sip:bob:secret@example.com",
        "sip:bob@10.0.0.1",
        "sip:bob@10.0.0.1:5060;transport=udp",
        "sip:bob@example.com;maddr=10.0.0.1",
        "sip:10.0.0.1",
        "sip:10.0.0.1:5060;x=2",
    ] {
        let mut b = Bench::new();
        assert_eq!(contact(&mut b, &format!("<{own}>")).0, 200, "{own}");
        let answer = b.send_for_one(ALICE, Request::invite());
        assert_eq!(answer.status(), 480, "{own}");
        assert_eq!(answer.reason(), "Contact Leads Back To Itself");
        let acknowledged = b.send(ALICE, Request::new("ACK", "sip:bob@example.com"));
        assert_eq!(acknowledged.len(), 0, "{own}");
        // Where there is a phone beside it, that one rings.
        contact(&mut b, "<sip:bob@10.0.1.2>");
        let sent = b.send(ALICE, Request::invite());
        assert_eq!(the(&sent, BOB).method(), "INVITE");
        assert_eq!(sent.len(), 2, "a 100 and this");
    }
}

#[test]
fn a_contact_at_another_name_of_ours_forwards_to_it_and_so_does_one_nearby() {
    for other in [
        "sip:carol@example.com",
        "sip:carol@10.0.0.1",
        "sip:bob@10.0.0.1:5070",
        "sip:bob@10.0.1.9",
        "sip:bob@example.com;maddr=10.0.1.9",
        "sip:BOB@example.com",
    ] {
        let mut b = Bench::new();
        assert_eq!(contact(&mut b, &format!("<{other}>")).0, 200);
        let sent = b.send(ALICE, Request::invite());
        assert_ne!(sent[0].status(), 480, "{other}");
    }
    // By the way that a phone has opened it is called whatever its contact says.
    let mut b = streams();
    let flow = b.open(Tcp, 0, 3, "198.51.100.7:40000");
    assert_eq!(by(&mut b, flow, "198.51.100.7", "<sip:bob@example.com>"), 200);
    assert_eq!(rung(&mut b), [flow]);
}

// ---- malformed -------------------------------------------------------------------------------------------------------------

#[test]
fn what_would_break_a_line_is_not_bound() {
    let mut b = Bench::new();
    for request in [
        with_contact("<sip:bob@10.0.1.2>;+sip.instance=\"<urn:\r\n x>\""),
        with_contact("<sip:bob@10.0.1.2>").add("Path: <sip:10.0.9.9;lr"),
        with_contact("<sip:bob@10.0.1.2>").add("Path: <sip:10.0.9.9;lr>, nonsense"),
        with_contact("<sip:bob@10.0.1.2>").add("Path: \"\u{1}\" <sip:10.0.9.9;lr>"),
    ] {
        assert_eq!(send(&mut b, request).0, 400);
        assert_eq!(b.location.records(), 0);
    }
    // A fold is white space.
    let folded = with_contact("<sip:bob@10.0.1.2>").add("Path: <sip:10.0.2.1;lr>\r\n ,\r\n <sip:10.0.2.2;lr>;x\r\n =y");
    assert_eq!(send(&mut b, folded).0, 200);
    let sent = b.send(ALICE, Request::invite());
    let route = the(&sent, "10.0.2.1:5060").all("Route").join(", ");
    assert!(!route.contains(['\r', '\n']), "{route:?}");
}
