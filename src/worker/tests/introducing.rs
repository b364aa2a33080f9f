//! Connections that a load balancer passes on: the PROXY header in front of them, however it is cut, and when it is not there.

use super::*;
use crate::base::Network;
use crate::net::streams::Description;
use crate::net::{Limits, State, StreamCounters};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::time::Duration;

const CLIENT: &str = "192.0.2.7:50000";

/// A listener on every loopback address, with balancers at 127.0.0.1 only.
fn balanced(mut limits: Limits) -> (Crew, Arc<Notes>) {
    limits.rules.handshake_timeout = 1000;
    limits.has_balancers = true;
    let balancers = vec![Network::new(IpAddr::from([127, 0, 0, 1]), 32)];
    let options = Options { connections: limits, proxy_protocol: vec![balancers], ..Options::default() };
    crew_of(options, &[(Transport::Tcp, "0.0.0.0:0".parse().unwrap())])
}

/// Connects from 127.0.0.`host`.
fn connect_from(crew: &Crew, host: u8) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, host], 0)).into()).unwrap();
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], crew.addresses()[0].port())).into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

fn line(client: SocketAddr) -> Vec<u8> {
    format!("PROXY TCP4 {} 127.0.0.1 {} 5060\r\n", client.ip(), client.port()).into_bytes()
}

/// Version 2, with `behind` the addresses.
fn binary(client: SocketAddr, behind: &[u8]) -> Vec<u8> {
    let SocketAddr::V4(client) = client else { panic!("an IPv4 address") };
    let ports = [client.port().to_be_bytes(), 5060u16.to_be_bytes()].concat();
    let length = (12 + behind.len() as u16).to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11", &length[..], &client.ip().octets(), &[127, 0, 0, 1], &ports, behind].concat()
}

const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

fn info(name: &str) -> Vec<u8> {
    format!("INFO {name} SIP/2.0\r\nl: 0\r\n\r\n").into_bytes()
}

/// Nothing is owed for it: a connection closes as soon as its peer has.
fn ack(name: &str) -> Vec<u8> {
    format!("ACK {name} SIP/2.0\r\nl: 0\r\n\r\n").into_bytes()
}

#[track_caller]
fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(bytes));
}

/// True if nothing has come, and the connection was ended.
fn is_closed(mut stream: TcpStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

fn counters(crew: &Crew) -> StreamCounters {
    crew.stats().numbers.streams
}

fn peers(crew: &Crew) -> Vec<SocketAddr> {
    crew.connections().iter().map(|one: &Description| one.peer).collect()
}

#[test]
fn a_header_is_read_however_it_is_cut_and_what_follows_is_left() {
    let (crew, _) = balanced(Limits::default());
    let client: SocketAddr = CLIENT.parse().unwrap();
    let message = ack("a");
    for header in [line(client), binary(client, b""), binary(client, &[&b"\x04\x0f\x00"[..], &[0; 0xf00]].concat())] {
        let all = [&header[..], &message, &message].concat();
        let cuts = (1..all.len()).filter(|cut| *cut < 140 || *cut > header.len() - 5).step_by(7);
        for cut in cuts.chain([header.len() - 1, header.len(), header.len() + 1, all.len()]) {
            let mut stream = connect_from(&crew, 1);
            let (head, tail) = all.split_at(cut);
            stream.write_all(head).unwrap();
            if cut % 2 == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
            stream.write_all(tail).unwrap();
            expect(&mut stream, &[&message[..], &message].concat());
            assert_eq!(peers(&crew), [client]);
            drop(stream);
            until("it is closed", || peers(&crew).is_empty());
        }
        if header.len() > 200 {
            continue;
        }
        let mut stream = connect_from(&crew, 1);
        for byte in &all {
            stream.write_all(&[*byte]).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        expect(&mut stream, &[&message[..], &message].concat());
        drop(stream);
        until("it is closed", || peers(&crew).is_empty());
    }
    assert_eq!(counters(&crew).proxy_header_failed, 0);
}

/// A header, and much later the first message.
#[test]
fn a_client_may_be_silent() {
    let (crew, _) = balanced(Limits::default());
    let client = CLIENT.parse().unwrap();
    let mut stream = connect_from(&crew, 1);
    stream.write_all(&line(client)).unwrap();
    until("it is known", || peers(&crew) == [client]);
    std::thread::sleep(Duration::from_millis(1300));
    stream.write_all(&info("a")).unwrap();
    expect(&mut stream, &info("a"));
    // By its address it is found as if it had connected itself.
    let mut other = connect_from(&crew, 1);
    other.write_all(&binary("192.0.2.7:50001".parse().unwrap(), b"")).unwrap();
    let dial = b"DIAL 50000 0 a SIP/2.0\r\nl: 0\r\n\r\n";
    other.write_all(dial).unwrap();
    expect(&mut stream, dial);
}

#[test]
fn the_balancers_own_connections_have_its_address() {
    let (crew, _) = balanced(Limits::default());
    for header in [LOCAL, b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN 192.0.2.7 192.0.2.8 1 2\r\n"] {
        let mut stream = connect_from(&crew, 1);
        stream.write_all(&[header, &ack("a")].concat()).unwrap();
        expect(&mut stream, &ack("a"));
        assert_eq!(peers(&crew), [stream.local_addr().unwrap()]);
        drop(stream);
        until("it is closed", || peers(&crew).is_empty());
    }
}

#[test]
fn what_is_no_header_ends_the_connection() {
    let (crew, notes) = balanced(Limits::default());
    let long = [&b"\r\n\r\n\0\r\nQUIT\n\x20\0\xff\xff"[..], &[0; 100]].concat();
    let wrong: [&[u8]; 7] = [
        &info("a"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"\r\n\r\n",
        b"PROXY TCP4 192.0.2.7 127.0.0.1 50000\r\n",
        &[&b"PROXY UNKNOWN "[..], &[b'x'; 93]].concat(),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c............",
        &long,
    ];
    let mut failed = 0;
    for bytes in wrong {
        let mut stream = connect_from(&crew, 1);
        stream.write_all(bytes).unwrap();
        // A pair of line ends may still become a signature.
        if bytes == b"\r\n\r\n" {
            stream.write_all(b"INFO").unwrap();
        }
        assert!(is_closed(stream));
        failed += 1;
        assert_eq!(counters(&crew).proxy_header_failed, failed, "{bytes:?}");
    }
    // In time, but never whole.
    let mut half = connect_from(&crew, 1);
    half.write_all(b"PROXY TCP4 192.0.2.7").unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    assert!(is_closed(half));
    let (slow, mut slower) = (connect_from(&crew, 1), connect_from(&crew, 1));
    slower.write_all(b"PROXY").unwrap();
    let begin = time::Instant::now();
    until("both are there", || counters(&crew).open(Transport::Tcp, State::ProxyHeader) == 2);
    assert!(is_closed(slow) && is_closed(slower));
    assert!(begin.elapsed() > Duration::from_millis(800), "{:?}", begin.elapsed());
    assert_eq!(counters(&crew).proxy_header_failed, failed + 3);
    assert!(notes.ended.lock().unwrap().is_empty(), "the rules have never heard of them");
    assert!(peers(&crew).is_empty());
}

/// A balancer that looks whether the port is open, or says that the connection is its own, and leaves one way or the other.
#[test]
fn a_health_check_is_no_failure() {
    let (crew, _) = balanced(Limits::default());
    for header in [&b""[..], LOCAL, b"PROXY UNKNOWN\r\n", b"itself"] {
        for by_reset in [false, true] {
            let mut stream = connect_from(&crew, 1);
            let itself = line(stream.local_addr().unwrap());
            let header = if header == b"itself" { &itself[..] } else { header };
            if by_reset {
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
            stream.write_all(header).unwrap();
            drop(stream);
        }
    }
    until("all are accepted", || counters(&crew).accepted == 8);
    until("all are closed", || peers(&crew).is_empty());
    assert_eq!(counters(&crew).proxy_header_failed, 0);
}

/// From elsewhere nothing changes, and a header is not SIP.
#[test]
fn others_are_not_believed() {
    let (crew, _) = balanced(Limits::default());
    let mut plain = connect_from(&crew, 2);
    plain.write_all(&info("a")).unwrap();
    expect(&mut plain, &info("a"));
    let own = plain.local_addr().unwrap();
    for header in [line(CLIENT.parse().unwrap()), binary(CLIENT.parse().unwrap(), b"")] {
        let mut liar = connect_from(&crew, 3);
        liar.write_all(&[&header[..], &info("b")].concat()).unwrap();
        let mut all = Vec::new();
        let _ = liar.read_to_end(&mut all);
        assert!(!all.starts_with(&info("b")), "{:?}", String::from_utf8_lossy(&all));
    }
    until("they are closed", || peers(&crew) == [own]);
    assert_eq!((counters(&crew).garbage, counters(&crew).proxy_header_failed), (2, 0));
}

/// Each client has a share of the places, and the balancer none.
#[test]
fn shares_are_those_of_the_clients() {
    // One of the eight is kept for connections whose headers are not there yet.
    let (crew, _) = balanced(Limits { connections: 8, ..Limits::default() });
    let connect_as = |client: &str| {
        let mut stream = connect_from(&crew, 1);
        stream.write_all(&[line(client.parse().unwrap()), info("a")].concat()).unwrap();
        stream
    };
    let taken = |client: &str| {
        let mut stream = connect_as(client);
        expect(&mut stream, &info("a"));
        stream
    };
    let _greedy: Vec<TcpStream> = (1..=7).map(|port| taken(&format!("192.0.2.1:{port}"))).collect();
    // All places are taken: others get those of the source that has most.
    let _others: Vec<TcpStream> = (2..=5).map(|host| taken(&format!("192.0.2.{host}:1"))).collect();
    let of = |host: u8| peers(&crew).iter().filter(|peer| peer.ip() == IpAddr::from([192, 0, 2, host])).count();
    assert_eq!([1, 2, 3, 4, 5].map(of), [3, 1, 1, 1, 1]);
    assert_eq!(counters(&crew).yielded, 4);
    // Nobody gives way to those of whom nothing is known, nor to a source that has as many.
    let unknown = connect_from(&crew, 1);
    until("it waits", || counters(&crew).open(Transport::Tcp, State::ProxyHeader) == 1);
    assert!(is_closed(connect_from(&crew, 1)), "the reserve is used up");
    drop(unknown);
    until("it is gone", || counters(&crew).open(Transport::Tcp, State::ProxyHeader) == 0);
    assert!(is_closed(connect_as("192.0.2.1:9")));
    let _second = taken("192.0.2.2:9");
    assert_eq!([1, 2, 3, 4, 5].map(of), [2, 2, 1, 1, 1]);
    assert!(is_closed(connect_as("192.0.2.1:9")) && is_closed(connect_as("192.0.2.3:9")));
    let counted = counters(&crew);
    assert_eq!((counted.yielded, counted.refused), (5, 4));
    // From elsewhere it is the same.
    let mut direct = connect_from(&crew, 2);
    direct.write_all(&info("a")).unwrap();
    expect(&mut direct, &info("a"));
    assert_eq!(counters(&crew).yielded, 6);
}
