//! Addresses and sockets: IPv6, several listeners, several cores, big datagrams.

use std::time::Duration;

use crate::UAC;
use crate::agent::{Agent, Request};
use crate::calls::{by_call, callee};
use crate::failures::{assert_cancels, assert_hop_ack};
use crate::message::Message;
use crate::place::{CALLEE, CALLER, Place, SERVER, free_port_v6};
use crate::server::Conf;
use crate::sipp::{Scenario, Sipp};

#[test]
fn a_call_over_ipv6() {
    let (Some(listen), Some(uac), Some(uas)) = (free_port_v6(), free_port_v6(), free_port_v6()) else {
        println!("skipped: this machine has no ::1");
        return;
    };
    let place = Place::new("ipv6");
    let server = Conf::new(&place).only(listen).start(&place);
    let phone = Agent::new(free_port_v6().expect("::1"), server.address);
    let register = phone.register(&server.address.to_string(), "bob", &format!("<sip:bob@{uas}>"), 600);
    let registered = phone.ask(&register);
    assert_eq!(registered.status(), Some(200), "{registered:?}");
    let answering = Sipp::new(&place, "uas", uas, Scenario::Text(crate::UAS))
        .with(&["-key", "contact_user", "bob", "-key", "contact", &uas.to_string()])
        .calls(20)
        .answer();
    let caller = Sipp::new(&place, "uac", uac, Scenario::Text(UAC))
        .calls(20)
        .with(&["-r", "50"])
        .call("bob", server.address, server.address)
        .succeed(20);
    let answering = answering.succeed(20);
    for call in by_call(answering.received()).values() {
        assert_eq!(call.iter().map(Message::method).collect::<Vec<_>>(), ["INVITE", "ACK", "BYE"]);
        let vias = call[0].vias();
        assert_eq!(vias[0].sent_by, listen.to_string());
        let received = vias[1].received.clone().unwrap_or_default();
        assert_eq!(received.trim_matches(['[', ']']), "::1", "RFC 5118 4.5 allows both forms");
    }
    assert_eq!(caller.received().iter().filter(|message| message.answers("INVITE", 200)).count(), 20);
}

/// Each user comes in by a listener of their own; a request leaves by the one that its destination can be reached from, and the dialog holds.
#[test]
fn several_listeners() {
    let place = Place::new("listeners");
    let second = place.at_port(SERVER, 5070);
    let mut conf = Conf::new(&place).listen(second);
    let v6 = free_port_v6();
    if let Some(v6) = v6 {
        conf = conf.listen(v6);
    } else {
        println!("without IPv6: this machine has no ::1");
    }
    let server = conf.start(&place);
    let first = server.address;
    let mut phones = vec![("one", Agent::new(place.at(CALLEE), first)), ("two", Agent::new(place.at_port(CALLEE, 5070), second))];
    if let Some(v6) = v6 {
        phones.push(("six", Agent::new(free_port_v6().expect("::1"), v6)));
    }
    let domain = "example.test";
    for (user, phone) in &phones {
        let register = phone.register(domain, user, &format!("<sip:{user}@{}>", phone.address), 600);
        assert_eq!(phone.ask(&register).status(), Some(200));
    }
    for (n, (from, caller)) in phones.iter().enumerate() {
        for (m, (to, callee)) in phones.iter().enumerate() {
            if n == m {
                continue;
            }
            let invite = caller.request("INVITE", &format!("sip:{to}@{domain}"));
            caller.send(&invite);
            let rung = callee
                .expect(&format!("INVITE from {from}"), |message| message.is("INVITE") && message.call_id() == invite.call_id);
            callee.accept(&rung);
            let accepted = caller.final_for(&invite);
            assert_eq!(accepted.status(), Some(200));
            caller.send(&caller.in_dialog("ACK", &invite, &accepted));
            callee.expect(&format!("ACK from {from} to {to}"), |message| message.is("ACK") && message.call_id() == invite.call_id);
            let bye = caller.in_dialog("BYE", &invite, &accepted);
            caller.send(&bye);
            let arrived = callee.expect("BYE", |message| message.is("BYE") && message.call_id() == invite.call_id);
            assert!(arrived.all("route").is_empty(), "every Route of ours is gone: {arrived:?}");
            callee.respond(&arrived, 200, &[]);
            assert_eq!(caller.final_for(&bye).status(), Some(200));
        }
    }
}

/// Two workers share the address. The kernel spreads callers over them by source port; the callee's answers, and CANCEL and ACK from other ports,
/// come to the wrong worker about half the time, and must find their transaction all the same.
#[test]
fn two_cores() {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if cores < 2 {
        println!("skipped: this machine has one core");
        return;
    }
    let place = Place::new("cores");
    let mut server = Conf::new(&place).set("server", "cores", "[0, 1]").start(&place);
    let bob = place.at(CALLEE);
    server.bind(&place, "bob", bob);
    let uas = callee(&place, "uas", CALLEE, bob).calls(200).answer();
    let report = Sipp::new(&place, "uac", place.at(CALLER), Scenario::Text(UAC))
        .calls(200)
        .with(&["-t", "un", "-max_socket", "500", "-r", "100", "-d", "50"])
        .call("bob", server.address, server.address)
        .succeed(200);
    let answered = uas.succeed(200);
    let sources: std::collections::BTreeSet<_> =
        by_call(answered.received()).values().filter_map(|call| call[0].vias()[1].rport.clone()).collect();
    assert!(sources.len() >= 150, "{} source ports", sources.len());
    for call in by_call(report.received()).values() {
        for method in ["INVITE", "BYE"] {
            assert_eq!(call.iter().filter(|message| message.is_final_for(method)).count(), 1, "{call:#?}");
        }
    }
    for call in by_call(answered.received()).values() {
        assert_eq!(call.iter().map(Message::method).collect::<Vec<_>>(), ["INVITE", "ACK", "BYE"]);
    }

    // A CANCEL and an ACK from another port than the INVITE's, as a phone behind a NAT that has forgotten it sends them.
    let phone = Agent::new(place.at_port(CALLEE, 5080), server.address);
    server.bind(&place, "carol", phone.address);
    for n in 0..24 {
        let caller = Agent::new(place.at_port(CALLER, 0), server.address);
        let elsewhere = Agent::new(place.at_port(CALLER, 0), server.address);
        let invite = caller.request("INVITE", &server.uri("carol"));
        caller.send(&invite);
        let rung = phone.expect("INVITE", |message| message.is("INVITE") && message.call_id() == invite.call_id);
        phone.respond(&rung, 180, &[]);
        caller.expect("180", |message| message.answers("INVITE", 180));
        elsewhere.send(&invite.cancel());
        let cancel =
            phone.expect(&format!("CANCEL number {n}"), |message| message.is("CANCEL") && message.call_id() == invite.call_id);
        assert_cancels(&rung, &cancel);
        elsewhere.expect("200 to CANCEL", |message| message.answers("CANCEL", 200));
        phone.respond(&cancel, 200, &[]);
        phone.respond(&rung, 487, &[]);
        assert_hop_ack(&rung, &phone.expect("ACK", |message| message.is("ACK") && message.call_id() == invite.call_id));
        let ended = caller.final_for(&invite);
        assert_eq!(ended.status(), Some(487));
        elsewhere.acknowledge(&invite, &ended);
        let repeated = caller.collect(Duration::from_millis(20));
        assert!(repeated.len() <= 1, "{repeated:#?}");
    }
    // Nobody repeats a 487 that was acknowledged: wait longer than Timer G's first rounds on a last pair.
    let caller = Agent::new(place.at_port(CALLER, 0), server.address);
    let mut stray = 0;
    for _ in 0..8 {
        let elsewhere = Agent::new(place.at_port(CALLER, 0), server.address);
        let invite = caller.request("INVITE", &server.uri("nobody"));
        let refused = caller.ask(&invite);
        assert_eq!(refused.status(), Some(404));
        elsewhere.acknowledge(&invite, &refused);
    }
    stray += caller.collect(Duration::from_millis(1200)).len();
    assert_eq!(stray, 0, "an ACK from another port was not matched");
    let mail = server.stat(&place, "strowger_mail_received_total");
    assert!(mail > 0.0, "{mail} messages have crossed between the cores");
    server.assert_alive(&place, 9);
}

/// What fits into a datagram behind us goes through bit for bit; what does not is refused, not lost.
#[test]
fn big_datagrams() {
    let place = Place::new("big");
    let mut server = Conf::new(&place).start(&place);
    let phone = Agent::new(place.at(CALLEE), server.address);
    let caller = Agent::new(place.at(CALLER), server.address);
    server.bind(&place, "bob", phone.address);
    for size in [1, 1400, 1500, 4096, 20_000, 64_000] {
        let mut request = caller.request("MESSAGE", &server.uri("bob"));
        request.body = (0..size).map(|n: usize| (n * 31 % 251) as u8).collect();
        caller.send(&request);
        let arrived = phone
            .expect(&format!("MESSAGE of {size} bytes"), |message| message.is("MESSAGE") && message.call_id() == request.call_id);
        assert!(arrived.body == request.body, "{size} bytes have changed on the way");
        phone.send_bytes(&crate::agent::response(&arrived, 200, "big", &[], &request.body));
        assert!(caller.final_for(&request).body == request.body, "{size} bytes have changed on the way back");
    }
    // A datagram as big as they get: with one more Via it cannot leave.
    let mut request = caller.request("MESSAGE", &server.uri("bob"));
    fill(&mut request, 65_507);
    caller.send(&request);
    let refused = caller.final_for(&request);
    assert!(refused.status() >= Some(400), "{:?}", refused.start);
    // The same size to the server itself needs nothing added.
    let mut options = caller.request("OPTIONS", &format!("sip:{}", server.address));
    fill(&mut options, 65_507);
    assert_eq!(caller.ask(&options).status(), Some(200));
    server.assert_alive(&place, 9);
}

/// Makes the request exactly `size` bytes long by its body.
fn fill(request: &mut Request, size: usize) {
    request.body = vec![b'x'; 60_000];
    let head = request.bytes().len() - 60_000;
    request.body = vec![b'x'; size - head];
    assert_eq!(request.bytes().len(), size);
}

/// One socket for all addresses: an answer leaves from the address that was asked, or a phone behind a NAT would not let it in.
#[test]
fn a_wildcard_listener() {
    let place = Place::new("wildcard");
    let spare = std::net::UdpSocket::bind("0.0.0.0:0").expect("a free port");
    let port = spare.local_addr().expect("its address").port();
    drop(spare);
    let wildcard = std::net::SocketAddr::from(([0, 0, 0, 0], port));
    let advertised = place.at_port(SERVER, port);
    let server = Conf::new(&place).only(wildcard).advertise(&advertised.to_string()).start(&place);
    let client = std::net::UdpSocket::bind(place.at(CALLER)).expect("a socket");
    client.connect(advertised).expect("a socket that hears one peer only");
    client.set_read_timeout(Some(Duration::from_secs(2))).expect("a time-out");
    let agent = Agent::new(place.at_port(CALLER, 0), advertised);
    let mut options = agent.request("OPTIONS", &format!("sip:{advertised}"));
    options.via = format!("SIP/2.0/UDP {};branch=z9hG4bKwild;rport", place.at(CALLER));
    client.send(&options.bytes()).expect("a question");
    let mut buffer = [0; 4096];
    let length = client.recv(&mut buffer).expect("an answer from the address that was asked");
    let answer = Message::read(&buffer[..length]).expect("SIP");
    assert_eq!(answer.status(), Some(200));
    // The same socket as a NAT: the phone behind it is called from the address where it registered.
    let behind = "<sip:bob@192.0.2.7:5060>";
    let mut register = agent.register(&advertised.to_string(), "bob", behind, 600);
    register.via = "SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKnat;rport".to_owned();
    client.send(&register.bytes()).expect("a registration");
    let length = client.recv(&mut buffer).expect("its answer");
    let answer = Message::read(&buffer[..length]).expect("SIP");
    assert_eq!(answer.status(), Some(200), "{answer:?}");
    let uri = format!("sip:bob@{advertised}");
    agent.send(&agent.request("MESSAGE", &uri));
    let length = client.recv(&mut buffer).expect("a request from the address where the phone registered");
    let request = Message::read(&buffer[..length]).expect("SIP");
    assert!(request.is("MESSAGE"), "{request:?}");
    drop(server);
}
