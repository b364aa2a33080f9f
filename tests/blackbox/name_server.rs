//! A name server of a test's own, on loopback: it knows a few records, can be slow, fall silent, and send its clients to TCP. The wire
//! format is written here by hand (RFC 1035 §4), so that the server's library does not judge itself.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::agent::bind;
use crate::stream_tap::listen;

/// The life of records whose line names none, seconds.
const TTL: u32 = 300;

pub struct NameServer {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    records: Vec<Record>,
    delay: Duration,
    is_silent: bool,
    /// By UDP it only says that the answer is too long.
    is_truncating: bool,
    /// `TYPE name`, with each repetition.
    asked: Vec<String>,
    is_over: bool,
}

#[derive(Clone)]
struct Record {
    name: String,
    ttl: u32,
    kind: u16,
    data: Vec<u8>,
}

const KINDS: [(&str, u16); 6] = [("A", 1), ("CNAME", 5), ("SOA", 6), ("AAAA", 28), ("SRV", 33), ("NAPTR", 35)];
const CNAME: u16 = 5;
const SOA: u16 = 6;

impl NameServer {
    /// `zone`: a line for each record, `NAME [TTL] TYPE DATA` as in zone files, with whole names.
    pub fn start(address: SocketAddr, zone: &str) -> NameServer {
        let socket = bind(address);
        let short = Some(Duration::from_millis(20));
        socket.set_read_timeout(short).expect("a time-out");
        let state = Arc::new(Mutex::new(State { records: zone.lines().filter_map(read).collect(), ..State::default() }));
        let (own, by_tcp) = (state.clone(), state.clone());
        let listener = listen(address);
        listener.set_nonblocking(true).expect("a listener");
        std::thread::spawn(move || serve(&socket, &own));
        std::thread::spawn(move || accept(&listener, &by_tcp));
        NameServer { address, state }
    }

    /// As the conf's list of servers.
    pub fn list(&self) -> String {
        format!("[\"{}\"]", self.address)
    }

    pub fn set_zone(&self, zone: &str) {
        lock(&self.state).records = zone.lines().filter_map(read).collect();
    }

    /// Every answer comes so late.
    pub fn set_delay(&self, delay: Duration) {
        lock(&self.state).delay = delay;
    }

    pub fn set_silent(&self, is_silent: bool) {
        lock(&self.state).is_silent = is_silent;
    }

    pub fn set_truncating(&self, is_truncating: bool) {
        lock(&self.state).is_truncating = is_truncating;
    }

    /// What it has been asked so far, as `TYPE name`, with each repetition.
    pub fn asked(&self) -> Vec<String> {
        lock(&self.state).asked.clone()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        lock(&self.state).is_over = true;
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A line of the zone.
fn read(line: &str) -> Option<Record> {
    let mut fields = line.split_whitespace().peekable();
    let name = fields.next()?.trim_end_matches('.').to_lowercase();
    let ttl = fields.peek()?.parse().ok();
    if ttl.is_some() {
        fields.next();
    }
    let kind = fields.next()?;
    let kind = KINDS.iter().find(|(text, _)| *text == kind)?.1;
    let rest: Vec<&str> = fields.map(|field| field.trim_matches('"')).collect();
    let number = |at: usize| rest[at].parse::<u16>().expect("a number").to_be_bytes();
    let mut data = Vec::new();
    match kind {
        1 | 28 => match rest[0].parse().expect("an address") {
            IpAddr::V4(ip) => data.extend(ip.octets()),
            IpAddr::V6(ip) => data.extend(ip.octets()),
        },
        CNAME => write_name(rest[0], &mut data),
        SOA => {
            write_name(rest[0], &mut data);
            write_name(rest[0], &mut data);
            for _ in 0..4 {
                data.extend(3600u32.to_be_bytes());
            }
            data.extend(rest[1].parse::<u32>().expect("a time").to_be_bytes());
        }
        33 => {
            (0..3).for_each(|at| data.extend(number(at)));
            write_name(rest[3], &mut data);
        }
        _ => {
            (0..2).for_each(|at| data.extend(number(at)));
            for text in &rest[2..5] {
                data.push(text.len() as u8);
                data.extend(text.as_bytes());
            }
            write_name(rest[5], &mut data);
        }
    }
    let ttl = ttl.unwrap_or(TTL);
    Some(Record { name, ttl, kind, data })
}

fn write_name(name: &str, out: &mut Vec<u8>) {
    let labels = name.split('.').filter(|label| !label.is_empty());
    for label in labels {
        out.push(label.len() as u8);
        out.extend(label.as_bytes());
    }
    out.push(0);
}

fn serve(socket: &UdpSocket, state: &Mutex<State>) {
    let mut late: Vec<(Instant, SocketAddr, Vec<u8>)> = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let mut state = lock(state);
            if let Some(answer) = state.hear(&buffer[..length], "")
                && !state.is_silent
            {
                late.push((Instant::now() + state.delay, peer, answer));
            }
        }
        if lock(state).is_over {
            return;
        }
        let now = Instant::now();
        late.retain(|(at, peer, answer)| {
            if *at <= now {
                let _ = socket.send_to(answer, peer);
            }
            *at > now
        });
    }
}

/// One client after another, one question each.
fn accept(listener: &TcpListener, state: &Mutex<State>) {
    while !lock(state).is_over {
        match listener.accept() {
            Ok((stream, _)) => drop(serve_stream(stream, state)),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// RFC 1035 §4.2.2: two bytes of length before each message.
fn serve_stream(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut query)?;
    if let Some(answer) = lock(state).hear(&query, "TCP ") {
        stream.write_all(&(answer.len() as u16).to_be_bytes())?;
        stream.write_all(&answer)?;
    }
    Ok(())
}

impl State {
    /// The answer to a question, which is noted behind `by`.
    fn hear(&mut self, query: &[u8], by: &str) -> Option<Vec<u8>> {
        let (name, kind, end) = question(query)?;
        let word = KINDS.iter().find(|(_, number)| *number == kind);
        let word = word.map_or("?", |(word, _)| word);
        self.asked.push(format!("{by}{word} {name}"));
        let whole = answer(&query[..end], &name, kind, &self.records);
        if !self.is_truncating || by == "TCP " {
            return Some(whole);
        }
        // The header with TC, and the question.
        let mut short = whole[..end].to_vec();
        short[2] |= 2;
        short[6..12].fill(0);
        Some(short)
    }
}

/// The name and the type asked for, and where the question ends.
fn question(query: &[u8]) -> Option<(String, u16, usize)> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = query.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    Some((labels.join("."), kind, at + 4))
}

fn answer(query: &[u8], name: &str, kind: u16, zone: &[Record]) -> Vec<u8> {
    let of = |name: &str, kind: u16| -> Vec<Record> {
        let fits = |record: &&Record| record.name == name && record.kind == kind;
        zone.iter().filter(fits).cloned().collect()
    };
    let mut answers = of(name, kind);
    if let (true, [alias, ..]) = (answers.is_empty(), of(name, CNAME).as_slice()) {
        let (target, _, _) = question(&[&[0; 12], alias.data.as_slice(), &[0; 4]].concat()).expect("the name of an alias");
        answers.push(alias.clone());
        answers.extend(of(&target, kind));
    }
    let exists = zone.iter().any(|record| record.name == name);
    let soa = zone.iter().find(|record| record.kind == SOA && (name == record.name || name.ends_with(&record.name)));
    let authority: Vec<Record> = match answers.is_empty() {
        true => soa.into_iter().cloned().collect(),
        false => Vec::new(),
    };
    let code: u8 = if exists || !answers.is_empty() { 0 } else { 3 };
    let mut out = query[..2].to_vec();
    out.extend([0x85, 0x80 | code, 0, 1]);
    out.extend((answers.len() as u16).to_be_bytes());
    out.extend((authority.len() as u16).to_be_bytes());
    out.extend([0, 0]);
    out.extend(&query[12..]);
    for record in answers.iter().chain(&authority) {
        write_name(&record.name, &mut out);
        out.extend(record.kind.to_be_bytes());
        out.extend([0, 1]);
        out.extend(record.ttl.to_be_bytes());
        out.extend((record.data.len() as u16).to_be_bytes());
        out.extend(&record.data);
    }
    out
}
