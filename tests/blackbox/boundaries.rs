//! Where messages begin and end on a stream, and with them connections: junk before a request, messages that are never whole, peers that have gone.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::agent::{Agent, Request};
use crate::pki::{Authority, Kind};
use crate::place::{CALLEE, CALLER, Place, SERVER, wait_for};
use crate::server::{Conf, Server};

const NAME: &str = "sip.example.test";

/// A server on UDP and TCP at the same port, and TLS.
fn conf(place: &Place) -> (Conf, Authority) {
    let authority = Authority::new(place, "ca");
    let certificate = authority.issue(place, "server", Kind::Ecdsa, &[NAME]);
    let conf = Conf::new(place).stream("tcp", place.at(SERVER)).tls(place, &[&certificate]);
    (conf, authority)
}

/// An agent over TCP, and one over TLS.
fn agents(place: &Place, server: &Server, authority: &Authority) -> [Agent; 2] {
    [Agent::tcp(place.ip(CALLER), server.address), Agent::tls(place.ip(CALLER), server.secure(), authority, NAME, None)]
}

fn options(agent: &Agent, server: &Server) -> Request {
    agent.request("OPTIONS", &format!("sip:{}", server.address))
}

fn assert_ok(agent: &Agent, server: &Server) {
    assert_eq!(agent.ask(&options(agent, server)).status(), Some(200));
}

/// Sends in pieces of so many bytes.
fn send_cut(agent: &Agent, bytes: &[u8], piece: usize) {
    for piece in bytes.chunks(piece) {
        agent.send_bytes(piece);
    }
}

// ---- junk before a request ---------------------------------------------------------------------------------------------------

/// What ends no line of text is passed over, and the request behind it read.
#[test]
fn noise_before_a_request() {
    let place = Place::new("noise");
    let (conf, authority) = conf(&place);
    let server = conf.start(&place);
    let noises: &[&[u8]] =
        &[b"\r\r\n", b"\r", b"\n", b"\n\n", b"\n\r", b"\r\n", b"\0", b"\0\0\0\0", b"\r\n\0\r\n", b"\r\r\r\n\n\n"];
    for agent in agents(&place, &server, &authority) {
        for noise in noises {
            for piece in [1, 2, 3, 1 << 16] {
                let request = options(&agent, &server);
                send_cut(&agent, &[noise, &request.bytes()[..]].concat(), piece);
                let answer = agent.final_for(&request);
                assert_eq!(answer.status(), Some(200), "{}", noise.escape_ascii());
            }
        }
    }
    assert_eq!(server.stat(&place, "strowger_connections_unframed_total"), 0.0);
}

/// What is text and no SIP makes what follows doubtful: the request behind it is answered 400 and not processed, and the connection ends.
#[test]
fn text_before_a_request() {
    let place = Place::new("text");
    let (conf, authority) = conf(&place);
    let server = conf.start(&place);
    let phone = Agent::new(place.at(CALLEE), server.address);
    server.bind(&place, "bob", phone.address);
    let mut count = 0.0;
    let texts: &[&[u8]] = &[
        b"HELLO WORLD\r\n",
        b"HELLO WORLD\n",
        b"x\r\n",
        b" \r\n",
        b"\t\r\n",
        b"\r\n\r\r\nhello\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 5060\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\n",
        b"\xe2\x98\x8e\r\n",
        b"SIP\r\n",
        b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\n",
    ];
    for text in texts {
        for piece in [1, 5, 1 << 16] {
            for agent in agents(&place, &server, &authority) {
                let request = agent.request("MESSAGE", &server.uri("bob"));
                // The last bytes in one: who is cut off before it has sent all gets an error, and perhaps no answer.
                let all = [text, &request.bytes()[..]].concat();
                send_cut(&agent, &all, piece);
                let answer = agent.final_for(&request);
                assert_eq!(answer.status(), Some(400), "{}", text.escape_ascii());
                assert!(agent.end(Duration::from_secs(5)).is_some(), "it is closed");
                count += 1.0;
            }
        }
    }
    let unframed = server.stat(&place, "strowger_connections_unframed_total");
    assert_eq!(unframed, count);
    server.expect_log(&["not SIP"]);
    assert!(phone.receive(Duration::from_millis(100)).is_none(), "nothing of it was relayed");
}

/// What is no SIP and has no request in it is closed at once, and what is not even text before its end.
#[test]
fn other_protocols() {
    let place = Place::new("other");
    let (conf, authority) = conf(&place);
    let mut server = conf.start(&place);
    let others: &[&[u8]] = &[
        b"HELLO WORLD\r\nContent-Length: 0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"SSH-2.0-x\r\n\r\n",
        // A ClientHello where none is expected, STUN, DNS, a length before SIP.
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00\x01\x00\x00\x21\x12\xa4\x42",
        b"\x00\x1c\x12\x34\x01\x00\x00\x01",
        b"\x01\x2cOPTIONS sip:a SIP/2.0\r\n",
        b"x\n\n",
        b"\x1b[A",
    ];
    for other in others {
        for piece in [1, 1 << 16] {
            for agent in agents(&place, &server, &authority) {
                // What is closed in the middle takes no more.
                let _ = other.chunks(piece).all(|piece| agent.try_send(piece));
                assert!(agent.end(Duration::from_secs(2)).is_some(), "{} is closed", other.escape_ascii());
                assert!(agent.log().is_empty());
            }
        }
    }
    let gone = wait_for(Duration::from_secs(2), || (server.stat(&place, "strowger_connections") == 0.0).then_some(()));
    assert!(gone.is_some());
    server.assert_alive(&place, CALLER);
}

/// What was said before the junk is answered still, by the same connection.
#[test]
fn what_came_before_the_junk_is_answered() {
    let place = Place::new("before");
    let (conf, authority) = conf(&place);
    let server = conf.start(&place);
    let phone = Agent::new(place.at(CALLEE), server.address);
    server.bind(&place, "bob", phone.address);
    for agent in agents(&place, &server, &authority) {
        let message = agent.request("MESSAGE", &server.uri("bob"));
        let behind = options(&agent, &server);
        let all = [&message.bytes()[..], b"junk\r\n", &behind.bytes()].concat();
        agent.send_bytes(&all);
        let arrived = phone.expect("MESSAGE", |message| message.is("MESSAGE"));
        assert_eq!(agent.final_for(&behind).status(), Some(400));
        std::thread::sleep(Duration::from_millis(200));
        phone.respond(&arrived, 200, &[]);
        assert_eq!(agent.final_for(&message).status(), Some(200));
        assert!(agent.end(Duration::from_secs(2)).is_some());
    }
}

// ---- messages that are never whole -------------------------------------------------------------------------------------------

#[test]
fn a_message_has_a_deadline_from_its_first_byte() {
    let place = Place::new("drip");
    let (conf, authority) = conf(&place);
    let server = conf.set("connections", "message_timeout", "\"2s\"").start(&place);
    let text = b"OPTIONS sip:example.test SIP/2.0\r\nSubject: so slow that it is never whole, and longer than the time allows\r\n";
    let expected = Duration::from_millis(1700)..Duration::from_millis(3200);
    // Over TCP, and over TLS in whole records; and half a record, which is half of anything.
    let tcp = Agent::tcp(place.ip(CALLER), server.address);
    let tls = Agent::tls(place.ip(CALLER), server.secure(), &authority, NAME, None);
    assert_ok(&tls, &server);
    let raw = Agent::tls(place.ip(CALLER), server.secure(), &authority, NAME, None);
    assert_ok(&raw, &server);
    let record = [&b"\x17\x03\x03\x40\x00"[..], &[7; 200]].concat();
    let in_record = raw.stream();
    type Write<'w> = &'w dyn Fn(u8) -> bool;
    let drips: [(&str, &[u8], Write<'_>); 3] = [
        ("TCP", text, &|byte| tcp.try_send(&[byte])),
        ("TLS", text, &|byte| tls.try_send(&[byte])),
        ("half a record", &record, &|byte| (&in_record).write_all(&[byte]).is_ok()),
    ];
    let began = Instant::now();
    let mut lived = [None; 3];
    for turn in 0..60 {
        for ((_, text, write), lived) in drips.iter().zip(&mut lived) {
            // The error comes with the byte behind the one that finds nobody.
            if lived.is_none() && !write(text[turn % text.len()]) {
                *lived = Some(began.elapsed());
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    for ((what, ..), lived) in drips.iter().zip(lived) {
        let lived = lived.unwrap_or_else(|| panic!("{what}: still open"));
        assert!(expected.contains(&lived), "{what}: closed after {lived:?}");
    }
    let unfinished = server.stat(&place, "strowger_connections_unfinished_total");
    assert_eq!(unfinished, 3.0);
    server.expect_log(&["a message was not complete within message_timeout"]);
}

/// Neither whole messages before it nor what the server sends meanwhile gives half a message more time.
#[test]
fn what_is_sent_to_who_has_begun_prolongs_nothing() {
    let place = Place::new("amid");
    let (conf, _) = conf(&place);
    let server = conf.set("connections", "message_timeout", "\"2s\"").start(&place);
    let phone = Agent::tcp(place.ip(CALLEE), server.address);
    let contact = format!("<{}>", phone.uri());
    let register = phone.register(&server.address.to_string(), "bob", &contact, 600);
    assert_eq!(phone.ask(&register).status(), Some(200));
    let caller = Agent::new(place.at(CALLER), server.address);
    phone.send_bytes(b"SIP/2.0 200 OK\r\nVia: ");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(6) {
        caller.send(&caller.request("MESSAGE", &server.uri("bob")));
        while phone.receive(Duration::from_millis(150)).is_some() {}
        if phone.end(Duration::ZERO).is_some() {
            break;
        }
    }
    let lived = began.elapsed();
    assert!(lived < Duration::from_millis(3500), "closed after {lived:?}");
    assert!(lived > Duration::from_millis(1500), "closed after {lived:?}");
}

/// Who is slow and gets there is heard, and pings keep a quiet connection open.
#[test]
fn a_slow_message_that_becomes_whole_and_pings() {
    let place = Place::new("slow-message");
    let (conf, authority) = conf(&place);
    let server = conf.set("connections", "idle_timeout", "\"3s\"").set("connections", "message_timeout", "\"3s\"").start(&place);
    let pinging = Agent::tcp(place.ip(CALLER), server.address);
    assert_ok(&pinging, &server);
    for secure in [false, true] {
        let agent = match secure {
            false => Agent::tcp(place.ip(CALLER), server.address),
            true => Agent::tls(place.ip(CALLER), server.secure(), &authority, NAME, None),
        };
        let mut request = options(&agent, &server);
        request.body = vec![b'x'; 60_000];
        let bytes = request.bytes();
        // Thrice 2.4 seconds: each message has its own time.
        for _ in 0..3 {
            for piece in bytes.chunks(bytes.len() / 12 + 1) {
                agent.send_bytes(piece);
                pinging.send_bytes(b"\r\n\r\n");
                std::thread::sleep(Duration::from_millis(200));
            }
            assert_eq!(agent.final_for(&request).status(), Some(200));
        }
    }
    assert_ok(&pinging, &server);
}

// ---- peers that have gone ----------------------------------------------------------------------------------------------------

/// Connections of peers that have gone, and to whom nothing is owed, take no place from others, whatever they said.
#[test]
fn who_has_gone_takes_no_place() {
    let place = Place::new("gone");
    let (conf, authority) = conf(&place);
    let server = conf.set("connections", "max", "20").start(&place);
    let lasts: &[&[u8]] = &[
        b"HELLO WORLD\r\nContent-Length: 0\r\n\r\n",
        b"",
        b"\r\n\r\n",
        b"HELLO",
        // Nobody can be answered, or nobody wants to be.
        b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 0\r\n\r\n",
        b"OPTIONS sip:a SIP/2.0\r\nVia: nonsense\r\nCall-ID: 1\r\nl: 0\r\n\r\n",
        b"ACK sip:a SIP/2.0\r\nVia: SIP/2.0/TCP a;branch=z9hG4bK1\r\nl: 0\r\n\r\n",
        b"SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP a\r\nl: 0\r\n\r\n",
        b"sip/2.0 200 OK\r\nVia: SIP/2.0/TCP a\r\nl: 0\r\n\r\n",
        b"SIP/2.0 abc\r\nl: 0\r\n\r\n",
        b"OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/TCP",
        b"\x16\x03\x01",
    ];
    for last in lasts {
        for secure in [false, true] {
            for number in 0..25 {
                // TLS costs a handshake each.
                if secure && number % 5 != 0 {
                    continue;
                }
                let agent = match secure {
                    false => Agent::tcp(place.ip(CALLER), server.address),
                    true => Agent::tls(place.ip(CALLER), server.secure(), &authority, NAME, None),
                };
                agent.try_send(last);
                drop(agent);
            }
            let gone = wait_for(Duration::from_secs(2), || (server.stat(&place, "strowger_connections") == 0.0).then_some(()));
            assert!(gone.is_some(), "{}", last.escape_ascii());
        }
    }
    assert_ok(&Agent::tcp(place.ip(CALLER), server.address), &server);
    let displaced = server.stat(&place, "strowger_connections_displaced_total");
    assert_eq!(displaced, 0.0, "there was always room");
}

/// The input of the issue: 110 connections one after the other, with places for 100, and nobody is shut out.
#[test]
fn a_hundred_and_ten_that_say_hello() {
    let place = Place::new("hello");
    let (conf, _) = conf(&place);
    let server = conf.set("connections", "max", "100").start(&place);
    for _ in 0..110 {
        let mut stream = TcpStream::connect(server.address).expect("a connection");
        stream.write_all(b"HELLO WORLD\r\nContent-Length: 0\r\n\r\n").expect("a greeting");
    }
    assert_ok(&Agent::tcp(place.ip(CALLER), server.address), &server);
    let hits = server.stats(&place)["strowger_limit_hits_total{limit=\"connections\"}"];
    assert_eq!(hits, 0.0);
}

/// Who has said all and waits for an answer keeps its place until it has come; where all places are taken, it is the first to go.
#[test]
fn who_waits_for_an_answer_keeps_its_place_while_there_is_room() {
    let place = Place::new("waits");
    let (conf, authority) = conf(&place);
    let server = conf.set("connections", "max", "6").start(&place);
    let phone = Agent::new(place.at(CALLEE), server.address);
    server.bind(&place, "bob", phone.address);
    let mut waiting = Vec::new();
    for number in 0..5 {
        let agent = match number % 2 {
            0 => Agent::tcp(place.ip(CALLER), server.address),
            _ => Agent::tls(place.ip(CALLER), server.secure(), &authority, NAME, None),
        };
        let request = agent.request("MESSAGE", &server.uri("bob"));
        agent.send(&request);
        let arrived = phone.expect("MESSAGE", |message| message.call_id() == request.call_id);
        agent.say_goodbye();
        waiting.push((agent, request, arrived));
    }
    let draining = wait_for(Duration::from_secs(2), || {
        let stats = server.stats(&place);
        let draining = stats
            .iter()
            .filter(|(name, _)| name.starts_with("strowger_connections{") && name.contains("draining"))
            .map(|(_, value)| value)
            .sum::<f64>();
        (draining == 5.0).then_some(())
    });
    assert!(draining.is_some(), "{:?}", server.stats(&place));
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(server.stat(&place, "strowger_connections"), 5.0);
    // One more fits, the next one takes the place of who has waited longest.
    let others = [(); 2].map(|()| Agent::tcp(place.ip(CALLER), server.address));
    for other in &others {
        assert_ok(other, &server);
    }
    assert_eq!(server.stat(&place, "strowger_connections_displaced_total"), 1.0);
    for (agent, request, arrived) in &waiting[1..] {
        phone.respond(arrived, 200, &[]);
        assert_eq!(agent.final_for(request).status(), Some(200));
    }
    let left = wait_for(Duration::from_secs(2), || (server.stat(&place, "strowger_connections") == 2.0).then_some(()));
    assert!(left.is_some(), "they have what was owed to them");
}

/// TCP can be ended in one direction; over TLS that is close_notify, and what is owed comes still.
#[test]
fn half_a_goodbye_over_tls() {
    let place = Place::new("notify");
    let (conf, authority) = conf(&place);
    let server = conf.start(&place);
    let phone = Agent::new(place.at(CALLEE), server.address);
    server.bind(&place, "bob", phone.address);
    let agent = Agent::tls(place.ip(CALLER), server.secure(), &authority, NAME, None);
    let request = agent.request("MESSAGE", &server.uri("bob"));
    agent.send(&request);
    let arrived = phone.expect("MESSAGE", |message| message.is("MESSAGE"));
    agent.say_goodbye();
    agent.stream().shutdown(Shutdown::Write).expect("half a connection");
    std::thread::sleep(Duration::from_millis(200));
    phone.respond(&arrived, 200, &[]);
    assert_eq!(agent.final_for(&request).status(), Some(200));
    assert!(agent.end(Duration::from_secs(2)).is_some());
}
