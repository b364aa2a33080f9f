//! TCP connections over loopback: framing, ends, limits, and which parts are notified.

use super::*;
use crate::net::Limits;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

fn streams(cores: usize, limits: Limits) -> (Crew, Arc<Notes>) {
    let options = Options { cores: vec![0; cores], connections: limits, ..Options::default() };
    crew_of(options, &[(Transport::Tcp, "127.0.0.1:0".parse().unwrap())])
}

fn phone(crew: &Crew) -> TcpStream {
    let phone = TcpStream::connect(crew.addresses()[0]).unwrap();
    phone.set_nodelay(true).unwrap();
    phone.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    phone
}

fn message(start: &str, body: &str) -> Vec<u8> {
    format!("{start} SIP/2.0\r\nl: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[track_caller]
fn expect(phone: &mut TcpStream, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    phone.read_exact(&mut got).unwrap();
    assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(bytes));
}

/// Returns what arrives until the other side ends the connection, or `Err` if it is reset.
fn rest(phone: &mut TcpStream) -> Result<Vec<u8>, ErrorKind> {
    let mut all = Vec::new();
    match phone.read_to_end(&mut all) {
        Ok(_) => Ok(all),
        Err(error) => Err(error.kind()),
    }
}

fn open(crew: &Crew, state: State) -> u64 {
    crew.stats().numbers.streams.open(Transport::Tcp, state)
}

use crate::net::State;

#[test]
fn messages_come_whole_however_the_stream_is_cut() {
    let (crew, _) = streams(1, Limits::default());
    let (a, b) = (message("INFO a", "one"), message("INFO b", &"x".repeat(5000)));
    // A ping, a message, a stray CRLF, a message.
    let stream = [&b"\r\n\r\n"[..], &a, b"\r\n", &b].concat();
    let answer = [&b"\r\n"[..], &a, &b].concat();
    let mut phone = phone(&crew);
    for cut in (0..stream.len()).step_by(97).chain(0..120) {
        let (head, tail) = stream.split_at(cut);
        phone.write_all(head).unwrap();
        if cut % 2 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        phone.write_all(tail).unwrap();
        expect(&mut phone, &answer);
    }
    for byte in &stream {
        phone.write_all(&[*byte]).unwrap();
    }
    expect(&mut phone, &answer);
    assert_eq!(open(&crew, State::Open), 1);
}

#[test]
fn many_messages_of_one_turn_leave_in_one_write() {
    let (crew, _) = streams(1, Limits::default());
    let mut phone = phone(&crew);
    let one = message("INFO a", "body");
    let many = one.repeat(200);
    phone.write_all(&many).unwrap();
    expect(&mut phone, &many);
    let stats = crew.stats();
    let sent = &stats.listeners[0].2.sent;
    assert_eq!(sent.messages[0], 200);
    assert!(sent.batches < 20, "{} writes", sent.batches);
}

#[test]
fn what_cannot_be_framed_is_answered_and_closed() {
    let (crew, notes) = streams(1, Limits::default());
    let (mut bad, mut good) = (phone(&crew), phone(&crew));
    bad.write_all(b"INFO a SIP/2.0\r\nX: no length\r\n\r\n").unwrap();
    let answer = rest(&mut bad).unwrap();
    assert_eq!(answer, b"unframed INFO a SIP/2.0\r\nX: no length\r\n\r\n");
    until("the rules are told", || {
        notes.ended.lock().unwrap().len() == 2 // by its place and by its address
    });
    let one = message("INFO a", "");
    good.write_all(&one).unwrap();
    expect(&mut good, &one);
    assert_eq!(crew.stats().numbers.streams.garbage, 1);
}

#[test]
fn who_only_listens_any_more_gets_what_is_owed_to_him() {
    let (crew, notes) = streams(2, Limits::default());
    let mut phone = phone(&crew);
    // Through the other core, so that the end arrives before the answer.
    let asked = [b"mail", &message("", "")[..]].concat();
    phone.write_all(&asked).unwrap();
    phone.shutdown(Shutdown::Write).unwrap();
    let mut answer = rest(&mut phone).unwrap();
    let by = answer.pop().unwrap();
    let expected = [FINAL, &asked].concat();
    assert_eq!((answer, matches!(by, b'0' | b'1')), (expected, true));
    until("it is closed", || open(&crew, State::Open) + open(&crew, State::Draining) == 0);
    let ended = notes.ended.lock().unwrap().clone();
    let is_connection = |flow: &Flow| matches!(flow.channel, Channel::Connection { .. });
    let ended: Vec<_> = ended.iter().filter(|(_, flow)| is_connection(flow)).collect();
    let by_core = |core: u8| ended.iter().filter(|(told, _)| *told == core).count();
    assert_eq!((by_core(0), by_core(1)), (1, 1), "both cores are told");
    assert_eq!(ended[0].1, ended[1].1);
}

#[test]
fn a_reset_harms_nobody_else() {
    let (crew, notes) = streams(1, Limits::default());
    let (reset, mut good) = (phone(&crew), phone(&crew));
    until("both are open", || open(&crew, State::Open) == 2);
    socket2::SockRef::from(&reset).set_linger(Some(Duration::ZERO)).unwrap();
    let address = reset.local_addr().unwrap();
    drop(reset);
    until("it is noticed", || open(&crew, State::Open) == 1);
    until("the rules are told", || {
        notes.ended.lock().unwrap().len() == 2 // by its place and by its address
    });
    assert_eq!(notes.ended.lock().unwrap()[0].1.peer, address);
    let one = message("INFO a", "");
    good.write_all(&one).unwrap();
    expect(&mut good, &one);
}

#[test]
fn the_idle_are_closed_and_looked_for_at_the_old_end_only() {
    let mut limits = Limits::default();
    limits.rules.idle_timeout = 4000;
    let (crew, _) = streams(1, limits);
    const IDLE: u64 = 2000;
    let mut idle: Vec<TcpStream> = (0..IDLE).map(|_| phone(&crew)).collect();
    let mut busy = phone(&crew);
    until("all are open", || open(&crew, State::Open) == IDLE + 1);
    let before = crew.stats().numbers.streams.sweep_visited;
    let started = time::Instant::now();
    let one = message("ACK a", "");
    while started.elapsed() < Duration::from_millis(700) {
        busy.write_all(&one).unwrap();
        expect(&mut busy, &one);
        std::thread::sleep(Duration::from_millis(5));
    }
    let stats = crew.stats();
    let visited = stats.numbers.streams.sweep_visited - before;
    let ticks = started.elapsed().as_millis() as u64 / 100;
    assert!((1..=ticks + 2).contains(&visited), "{visited} visited in {ticks} ticks");
    assert_eq!(stats.numbers.streams.open(Transport::Tcp, State::Open), IDLE + 1);
    let used = time::Instant::now();
    while used.elapsed() < Duration::from_millis(5000) {
        busy.write_all(&one).unwrap();
        expect(&mut busy, &one);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(open(&crew, State::Open), 1, "the one that was used");
    assert_eq!(crew.stats().numbers.streams.idle_closed, IDLE);
    assert_eq!(rest(&mut idle[7]), Ok(Vec::new()));
}

#[test]
fn connections_are_reused_or_belong_to_one_call() {
    let (crew, notes) = streams(1, Limits::default());
    let callee = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = callee.local_addr().unwrap().port();
    let mut caller = phone(&crew);
    let dial = |call: u64, text: &str| message(&format!("DIAL {port} {call} {text}"), "");
    let shared = [dial(0, "a"), dial(0, "b")];
    caller.write_all(&shared.concat()).unwrap();
    let (mut first, _) = callee.accept().unwrap();
    expect(&mut first, &shared.concat());
    caller.write_all(&dial(7, "c")).unwrap();
    let (mut second, _) = callee.accept().unwrap();
    expect(&mut second, &dial(7, "c"));
    // Answers arrive on any of them, and the call's own connection ends with the call.
    second.write_all(&message("ACK echo", "")).unwrap();
    expect(&mut second, &message("ACK echo", ""));
    for call in [0, 7] {
        let hangup = message(&format!("HANGUP {port} {call} x"), "");
        caller.write_all(&hangup).unwrap();
    }
    assert_eq!(rest(&mut second), Ok(Vec::new()));
    caller.write_all(&dial(0, "d")).unwrap();
    expect(&mut first, &dial(0, "d"));
    assert_eq!(crew.stats().numbers.streams.connecting, 2);
    until("the rules are told of both names", || notes.ended.lock().unwrap().len() == 2);
    let asked = notes.ended.lock().unwrap()[0].1;
    assert_eq!(asked.channel, Channel::Peer { name: 0, call: 7 });
}

#[test]
fn who_does_not_answer_is_reported_once_for_each_name() {
    let (crew, notes) = streams(1, Limits::default());
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut caller = phone(&crew);
    caller.write_all(&message(&format!("DIAL {dead} 0 a"), "")).unwrap();
    until("the rules are told", || !notes.ended.lock().unwrap().is_empty());
    let asked = notes.ended.lock().unwrap()[0].1;
    assert_eq!(asked.channel, Channel::Peer { name: 0, call: 0 });
    assert_eq!(crew.stats().numbers.streams.failed, 1);
    assert_eq!(open(&crew, State::Open), 1, "the caller's");
}

#[test]
fn a_peer_that_does_not_read_harms_only_itself() {
    let mut limits = Limits::default();
    limits.rules.send_queue = 64 << 10;
    let (crew, notes) = streams(1, limits);
    let callee = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = callee.local_addr().unwrap().port();
    let (mut caller, mut other) = (phone(&crew), phone(&crew));
    let big = message(&format!("DIAL {port} 0 a"), &"x".repeat(30_000));
    let sends = 400;
    for _ in 0..sends {
        caller.write_all(&big).unwrap();
    }
    until("the queue is full", || !notes.lost.lock().unwrap().is_empty());
    let one = message("INFO a", "");
    other.write_all(&one).unwrap();
    expect(&mut other, &one);
    // It wakes up: what was queued arrives, complete and in order, and it can be sent to again.
    let (mut slow, _) = callee.accept().unwrap();
    slow.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let lost = || notes.lost.lock().unwrap().len();
    until("all are accounted for", || crew.stats().listeners[0].2.sent.messages[0] + lost() as u64 == sends + 1);
    for _ in 0..sends - lost() as u64 {
        expect(&mut slow, &big);
    }
    caller.write_all(&big).unwrap();
    expect(&mut slow, &big);
    let quoted = notes.lost.lock().unwrap()[0].1.clone();
    assert!(big.starts_with(&quoted) && !quoted.is_empty());
}

#[test]
fn a_connection_of_another_core_is_reached_by_mail() {
    let (crew, _) = streams(2, Limits::default());
    let mut phones: Vec<TcpStream> = (0..16).map(|_| phone(&crew)).collect();
    let mut by = [0; 2];
    for phone in &mut phones {
        let asked = [b"mail", &message("", "")[..]].concat();
        phone.write_all(&asked).unwrap();
        expect(phone, &[FINAL, &asked].concat());
        let mut last = [0];
        phone.read_exact(&mut last).unwrap();
        by[usize::from(last[0] - b'0')] += 1;
    }
    assert!(by[0] > 0 && by[1] > 0, "the kernel spreads them: {by:?}");
}

#[test]
fn no_more_connections_than_the_limit() {
    let limits = Limits { connections: 3, ..Limits::default() };
    let (crew, _) = streams(1, limits);
    let phones: Vec<TcpStream> = (0..3).map(|_| phone(&crew)).collect();
    until("three are open", || open(&crew, State::Open) == 3);
    let mut fourth = phone(&crew);
    assert!(matches!(rest(&mut fourth), Ok(bytes) if bytes.is_empty()) || crew.stats().numbers.streams.refused == 1);
    drop(phones);
    until("there is room again", || open(&crew, State::Open) == 0);
    let mut fifth = phone(&crew);
    let one = message("INFO a", "");
    fifth.write_all(&one).unwrap();
    expect(&mut fifth, &one);
    assert_eq!(crew.stats().numbers.streams.refused, 1);
}
