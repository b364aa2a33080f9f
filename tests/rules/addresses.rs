//! Addressing: IPv6 (RFC 5118), `received` and `rport` (RFC 3581), phones behind a NAT.

use crate::bench::*;
use crate::message::{Request, param};

const SIX: &str = "[2001:db8::1]:5060";

fn bench() -> Bench {
    Bench::with(|settings| {
        settings.listeners = vec![listener(SIX)];
        settings.domains.push(b"[2001:db8::1]".to_vec());
    })
}

#[test]
fn ipv6_addresses_are_references_in_uris_and_via_and_bare_in_received() {
    let mut b = bench();
    let (caller, callee) = ("[2001:db8::a]:5060", "[2001:db8::b]:5070");
    b.register("bob", &format!("<sip:bob@{callee}>"));
    let request = Request::invite().via("[2001:db8::99]:5061;rport", "z9hG4bKsix");
    let sent = b.send(caller, request);
    let at_bob = the(&sent, callee);
    assert!(at_bob.header("Via").unwrap().starts_with("SIP/2.0/UDP [2001:db8::1]:5060;"));
    let second = at_bob.all("Via")[1];
    assert_eq!(param(second, "received"), Some("2001:db8::a"));
    assert_eq!(param(second, "rport"), Some("5060"));
    let ringing = b.send_for_one(callee, at_bob.answer(180));
    assert_eq!(ringing.to, caller);
    b.assert_quiet();
}

#[test]
fn another_way_to_write_our_ipv6_address_is_still_ours() {
    let mut b = bench();
    let callee = "[2001:db8::b]:5070";
    b.location.add(Default::default(), b"bob@[2001:db8::1]", format!("sip:bob@{callee}").as_bytes(), 60).unwrap();
    for uri in ["sip:[2001:db8::1]", "sip:[2001:DB8:0:0::1]:5060", "sip:[2001:db8:0:0:0:0:0:1]"] {
        let answer = b.send_for_one(callee, Request::new("OPTIONS", uri).via(callee, "z9hG4bKo"));
        assert_eq!(answer.status(), 200, "{uri}");
    }
    for host in ["[2001:db8::1]", "[2001:DB8:0:0::1]"] {
        let request =
            Request::new("MESSAGE", &format!("sip:bob@{host}")).via(callee, &format!("z9hG4bK{host}").replace(['[', ']', ':'], ""));
        assert_eq!(only(b.send(callee, request)).to, callee, "{host}");
    }
}

#[test]
fn an_ipv4_peer_of_an_ipv6_only_server_is_a_failed_branch() {
    let mut b = bench();
    b.location.add(Default::default(), b"bob@example.com", b"sip:bob@10.0.1.2:5060", 60).unwrap();
    let sent = b.send("[2001:db8::a]:5060", Request::invite().via("[2001:db8::a]", "z9hG4bKv"));
    let statuses: Vec<_> = sent.iter().map(|s| s.status()).collect();
    assert_eq!(statuses, [100, 500]);
    b.assert_quiet();
}

#[test]
fn a_phone_behind_a_nat_is_reached_by_the_way_its_register_came() {
    let mut b = Bench::new();
    let nat = "198.51.100.7:40123";
    let register = Request::new("REGISTER", "sip:example.com")
        .set("Via", "SIP/2.0/UDP 192.168.0.5:5060;rport;branch=z9hG4bKnat")
        .to("<sip:bob@example.com>")
        .add("Contact: <sip:bob@192.168.0.5:5060;line=1>");
    let ok = b.send_for_one(nat, register);
    assert_eq!((ok.status(), ok.to.as_str()), (200, nat));
    assert_eq!(ok.via_param("rport"), Some("40123"));
    let sent = b.send(ALICE, Request::invite());
    let at_bob = the(&sent, nat).clone();
    assert_eq!(at_bob.uri(), "sip:bob@192.168.0.5:5060;line=1");
    assert_eq!(b.send_for_one(nat, at_bob.answer(200)).to, ALICE);
    // CANCEL, ACK to non-2xx and repetitions take the same way.
    let request = Request::invite();
    let sent = b.send(ALICE, &request);
    let at_bob = the(&sent, nat).clone();
    assert_eq!(b.tick(500)[0].to, nat);
    b.send(nat, at_bob.answer(180));
    assert_eq!(the(&b.send(ALICE, request.cancel()), nat).method(), "CANCEL");
    assert_eq!(the(&b.send(nat, at_bob.answer(487)), nat).method(), "ACK");
    b.assert_quiet();
}

#[test]
fn a_phone_that_names_its_public_address_is_called_there() {
    let mut b = Bench::new();
    let nat = "198.51.100.7:40123";
    let register = |contact: &str, via: &str| {
        Request::new("REGISTER", "sip:example.com").set("Via", via).to("<sip:bob@example.com>").add(&format!("Contact: {contact}"))
    };
    let via = "SIP/2.0/UDP 192.168.0.5:5060;rport;branch=z9hG4bKpub";
    b.send_for_one(nat, register("<sip:bob@198.51.100.7:40123>", via));
    let sent = b.send(ALICE, Request::invite());
    assert_eq!(the(&sent, nat).method(), "INVITE");
    // A registration for another machine goes to that one.
    let mut b = Bench::new();
    let via = "SIP/2.0/UDP 10.0.1.3:5060;rport;branch=z9hG4bKthird";
    b.send_for_one(CAROL, register("<sip:bob@10.0.1.2:5060>", via));
    let sent = b.send(ALICE, Request::invite());
    assert_eq!(the(&sent, BOB).method(), "INVITE");
}

#[test]
fn when_the_nat_gives_another_port_the_next_register_moves_the_binding() {
    let mut b = Bench::new();
    for (n, nat) in ["198.51.100.7:40123", "198.51.100.7:40999"].iter().enumerate() {
        let register = Request::new("REGISTER", "sip:example.com")
            .set("Via", &format!("SIP/2.0/UDP 192.168.0.5:5060;rport;branch=z9hG4bKm{n}"))
            .to("<sip:bob@example.com>")
            .call_id("moves")
            .cseq(n as u32 + 1)
            .add("Contact: <sip:bob@192.168.0.5:5060>");
        assert_eq!(b.send_for_one(nat, register).status(), 200);
    }
    let sent = b.send(ALICE, Request::invite());
    assert_eq!(the(&sent, "198.51.100.7:40999").method(), "INVITE");
    assert_eq!(b.location.bindings(), 1);
}
