//! What traces show of a worker: everything received and sent, once each, and the notes between.

use super::*;
use crate::trace::{End, Event, Kind, Query, Tap};
use std::io::{Read, Write};
use std::net::TcpStream;

/// Workers, a datagram listener on all addresses and one for connections, and an open trace.
fn followed(cores: usize) -> (Crew, Arc<Taps>, Tap) {
    let taps: Arc<Taps> = Arc::default();
    let options = Options { cores: vec![0; cores], taps: taps.clone(), ..Options::default() };
    let listeners = [(Transport::Udp, "0.0.0.0:0"), (Transport::Tcp, "127.0.0.1:0")];
    let listeners = listeners.map(|(transport, address)| (transport, address.parse().unwrap()));
    let (crew, _) = crew_of(options, &listeners);
    let tap = taps.open(Query::default()).unwrap();
    (crew, taps, tap)
}

fn take(tap: &Tap, count: usize) -> Vec<Arc<Event>> {
    let mut events = Vec::new();
    until("all that happened is shown", || {
        events.extend(tap.take(time::Duration::from_millis(20)).events);
        events.len() >= count
    });
    // Nothing arrives twice.
    events.extend(tap.take(time::Duration::from_millis(50)).events);
    events
}

fn kinds(events: &[Arc<Event>]) -> Vec<Kind> {
    events.iter().map(|event| event.kind).collect()
}

#[test]
fn datagrams_and_words() {
    let (crew, taps, tap) = followed(1);
    let asked = SocketAddr::new("127.0.0.2".parse().unwrap(), crew.addresses()[0].port());
    let phone = client(asked);
    let message = b"A x\r\nCall-ID: 1@a\r\nAuthorization: secret\r\n\r\n";
    phone.send(message).unwrap();
    receive(&phone);
    let events = take(&tap, 3);
    assert_eq!(kinds(&events), [Kind::Received, Kind::Decision, Kind::Sent]);
    for event in [&events[0], &events[2]] {
        let way = event.way.unwrap();
        assert_eq!((way.peer, way.own), (phone.local_addr().unwrap(), asked));
        assert_eq!(&*event.call_id, b"1@a");
        assert_eq!(&*event.bytes, b"A x\r\nCall-ID: 1@a\r\nAuthorization: ******\r\n\r\n");
    }
    assert_eq!((&*events[1].bytes, events[1].way), (&b"it is echoed"[..], None));
    assert!(events[0].time_ns <= events[1].time_ns && events[1].time_ns <= events[2].time_ns);
    // A dead port is reported.
    let dead = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    phone.send(format!("to {dead}").as_bytes()).unwrap();
    let events = take(&tap, 4);
    assert_eq!(kinds(&events), [Kind::Received, Kind::Decision, Kind::Sent, Kind::Decision]);
    assert_eq!(&*events[3].bytes, b"not delivered: OPTIONS sip:x SIP/2.0");
    // Pings are not messages.
    phone.send(b"\r\n\r\n").unwrap();
    assert_eq!(kinds(&take(&tap, 1)), [Kind::Decision]);
    // After the end nothing is copied or noted.
    taps.close(time::Duration::ZERO);
    assert_eq!(tap.take(time::Duration::ZERO).end, Some(End::Shutdown));
    drop(tap);
    let before = taps.counters();
    phone.send(message).unwrap();
    receive(&phone);
    assert_eq!(taps.counters(), before);
}

#[test]
fn a_message_by_another_core_s_connection_is_shown_once_and_there() {
    let (crew, _taps, tap) = followed(2);
    let mut phone = TcpStream::connect(crew.addresses()[1]).unwrap();
    let message = b"mail x SIP/2.0\r\nCall-ID: 1@a\r\nl: 0\r\n\r\n";
    phone.write_all(message).unwrap();
    let mut answer = vec![0; FINAL.len() + message.len() + 1];
    phone.read_exact(&mut answer).unwrap();
    let events = take(&tap, 3);
    assert_eq!(kinds(&events), [Kind::Received, Kind::Decision, Kind::Sent]);
    let ends = |event: &Event| (event.core, event.way.map(|way| (way.transport, way.peer, way.own)));
    assert_eq!(ends(&events[0]), ends(&events[2]));
    assert_eq!(events[2].ends(), Some((phone.peer_addr().unwrap(), phone.local_addr().unwrap())));
}
