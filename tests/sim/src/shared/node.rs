//! One of the servers: its table, its registrar, and what speaks to the store for it.

use super::sabotage::SharedSabotage;
use super::store::{Kept, STREAMS, Store, Verdict};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use strowger::base::{Flow, Instant, Key, Outbox, Transport};
use strowger::stack::location::{Location, Reached, SHARDS, SharingTerms, Untold};
use strowger::stack::settings::{Listener, Settings};
use strowger::stack::{Element, Endpoint};

/// The wall clock's time when a run begins.
pub const WALL: u64 = 1_800_000_000_000;

/// How long an answer waits for the store before it becomes a refusal.
const PATIENCE_MS: u64 = 10_000;

/// How often it says that it lives.
const BEAT_MS: u64 = 1_000;

/// What goes to the store over one connection.
#[derive(Clone, Debug)]
pub enum Question {
    Tell(u64, Vec<Kept>),
    /// Where the streams end.
    End,
    Scan(Option<Vec<u8>>),
    Read(usize, u64),
    Beat,
}

/// What comes back.
pub enum Reply {
    Told(u64, Vec<(Kept, Verdict)>),
    End(u64),
    Scan(Vec<Kept>, Option<Vec<u8>>),
    Read(usize, Option<Vec<Kept>>),
    Beat(Vec<Vec<u8>>),
}

impl Store {
    pub fn answer(&mut self, wall_ms: u64, node: &[u8], question: Question) -> Reply {
        match question {
            Question::Tell(round, rows) => {
                let rows = rows.into_iter().map(|row| (row.clone(), self.tell(wall_ms, row)));
                Reply::Told(round, rows.collect())
            }
            Question::End => Reply::End(self.end()),
            Question::Scan(behind) => {
                let (rows, last) = self.scan(wall_ms, behind.as_deref());
                Reply::Scan(rows, last)
            }
            Question::Read(stream, behind) => Reply::Read(stream, self.read(stream, behind)),
            Question::Beat => Reply::Beat(self.beat(wall_ms, node)),
        }
    }
}

/// A connection to the store.
#[derive(Default)]
pub struct Connection {
    /// The life of the store in which it was made.
    pub life: u32,
    /// The place behind which each stream is followed next; none until the full reading has ended.
    followed: Option<[u64; STREAMS]>,
    begun_at: u64,
    is_read: bool,
    is_reading: [bool; STREAMS],
    is_telling: bool,
}

/// An answer that waits for the store.
pub struct Waiting {
    pub phone: usize,
    round: u64,
    until: u64,
}

pub struct Node {
    pub name: Vec<u8>,
    /// How far its wall clock is ahead, and the moment at which the server was started.
    skew_ms: i64,
    started_ms: u64,
    pub location: Arc<Location>,
    endpoint: Endpoint,
    outbox: Outbox,
    pub is_up: bool,
    /// It cannot reach the store until then.
    pub cut_until: u64,
    /// What was sent over an earlier connection is lost.
    pub generation: u32,
    pub connection: Option<Connection>,
    pub waiting: Vec<Waiting>,
    beats_at: u64,
    is_acknowledged: bool,
    sabotage: Option<SharedSabotage>,
}

/// What became of a REGISTER for now.
pub enum Outcome {
    Answered(u16),
    /// The 200 waits for the store.
    Waits,
}

/// A binding as a node has it, removed ones too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    pub field: Vec<u8>,
    pub what: What,
    pub cseq: u32,
    pub removed: bool,
    pub is_live: bool,
}

/// What all nodes must agree on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct What {
    pub uri: Vec<u8>,
    pub call_id: Vec<u8>,
    pub path: Vec<u8>,
    pub q: u16,
}

fn key() -> Key {
    Key::new(17, 18)
}

impl Node {
    pub fn new(number: usize, skew_ms: i64, is_acknowledged: bool, sabotage: Option<SharedSabotage>) -> Node {
        let name = format!("node{number}").into_bytes();
        let (location, endpoint) = begin(&name, 0, skew_ms, is_acknowledged);
        Node {
            name,
            skew_ms,
            started_ms: 0,
            location,
            endpoint,
            outbox: Outbox::default(),
            is_up: true,
            cut_until: 0,
            generation: 0,
            connection: None,
            waiting: Vec::new(),
            beats_at: 0,
            is_acknowledged,
            sabotage,
        }
    }

    /// Its own time.
    pub fn now(&self, at: u64) -> Instant {
        Instant::from_ms(at - self.started_ms)
    }

    pub fn kill(&mut self) {
        self.is_up = false;
        self.lose_connection();
        self.waiting.clear();
    }

    /// Begins anew, with nothing.
    pub fn start(&mut self, at: u64) {
        (self.started_ms, self.is_up) = (at, true);
        (self.location, self.endpoint) = begin(&self.name, at, self.skew_ms, self.is_acknowledged);
    }

    pub fn lose_connection(&mut self) {
        self.generation += 1;
        self.connection = None;
        if let Some(shared) = self.location.shared() {
            shared.set_failing(true);
        }
    }

    /// A connection was made.
    pub fn connect(&mut self, life: u32) -> Vec<Question> {
        self.connection = Some(Connection { life, ..Connection::default() });
        if let Some(shared) = self.location.shared() {
            shared.set_failing(false);
            shared.begin_reading();
        }
        vec![Question::Beat, Question::End]
    }

    pub fn register(&mut self, at: u64, phone: usize, peer: SocketAddr, message: &[u8]) -> Outcome {
        self.outbox.clear();
        let now = self.now(at);
        self.endpoint.handle(now, Flow::datagram(0, peer), message, &mut self.outbox);
        if let Some(held) = self.outbox.held.first() {
            self.waiting.push(Waiting { phone, round: held.round, until: at + PATIENCE_MS });
            return Outcome::Waits;
        }
        let answer = self.outbox.transmits.first().map(|transmit| self.outbox.get(transmit.span));
        let status = answer.and_then(|answer| std::str::from_utf8(answer.get(8..11)?).ok()?.parse().ok());
        Outcome::Answered(status.unwrap_or(0))
    }

    /// Returns the phones whose answers wait no longer, and whether they got their 200.
    pub fn release(&mut self, at: u64) -> Vec<(usize, bool)> {
        let progress = self.location.progress();
        let mut done = Vec::new();
        self.waiting.retain(|waiting| {
            let is_durable = progress.durable >= waiting.round;
            let is_over = is_durable || progress.is_failing || at >= waiting.until;
            if is_over {
                done.push((waiting.phone, is_durable));
            }
            !is_over
        });
        done
    }

    /// What it asks of the store in its next turn.
    pub fn turn(&mut self, at: u64, store: &Store) -> Vec<Question> {
        let mut questions = Vec::new();
        if at >= self.beats_at {
            self.beats_at = at + BEAT_MS;
            questions.push(Question::Beat);
        }
        let Some(shared) = self.location.shared() else {
            return questions;
        };
        let Some(connection) = &mut self.connection else {
            return Vec::new();
        };
        if !connection.is_telling && shared.has_untold() {
            let mut round = shared.begin_telling();
            let mut untold = Untold::default();
            while let Some(shard) = round.next_shard() {
                shared.take_untold(shard, &mut untold, &mut |reached, flow, out| {
                    if reached != Reached::ByContact {
                        out.extend_from_slice(format!("token of {}", flow.peer).as_bytes());
                    }
                });
            }
            connection.is_telling = true;
            questions.push(Question::Tell(round.number, untold.iter().map(|row| Kept::of(&row)).collect()));
        }
        if let Some(followed) = connection.followed {
            for (stream, behind) in followed.into_iter().enumerate() {
                // A reading that finds nothing waits there for the next change.
                if store.has_more(stream, behind) && !std::mem::replace(&mut connection.is_reading[stream], true) {
                    questions.push(Question::Read(stream, behind));
                }
            }
        }
        questions
    }

    /// Takes an answer of the store; returns what it asks next. `Err`: the connection is of no use any more.
    pub fn take(&mut self, at: u64, reply: Reply) -> Result<Option<Question>, ()> {
        let now = self.now(at);
        let shared = self.location.shared().ok_or(())?;
        let connection = self.connection.as_mut().ok_or(())?;
        match reply {
            Reply::Told(round, rows) => {
                for (row, verdict) in rows {
                    match verdict {
                        Verdict::Has(position) => _ = shared.told(&row.row(b""), position),
                        Verdict::Better(better) => _ = shared.take_in(now, &better.row(&self.name), false),
                    }
                }
                shared.finish_telling(round);
                connection.is_telling = false;
                Ok(None)
            }
            Reply::End(end) => {
                connection.begun_at = end;
                if self.sabotage == Some(SharedSabotage::SkipReading) || connection.is_read {
                    connection.followed = Some([end; STREAMS]);
                    return Ok(None);
                }
                Ok(Some(Question::Scan(None)))
            }
            Reply::Scan(rows, last) => {
                for row in rows {
                    shared.take_in(now, &row.row(&self.name), false);
                }
                if last.is_some() {
                    return Ok(Some(Question::Scan(last)));
                }
                if self.sabotage != Some(SharedSabotage::TellNothingAgain) {
                    shared.end_reading(now);
                }
                if self.sabotage == Some(SharedSabotage::FollowLate) {
                    connection.is_read = true;
                    return Ok(Some(Question::End));
                }
                connection.followed = Some([connection.begun_at; STREAMS]);
                Ok(None)
            }
            Reply::Read(stream, rows) => {
                let rows = rows.ok_or(())?;
                connection.is_reading[stream] = false;
                for row in rows {
                    shared.take_in(now, &row.row(&self.name), true);
                    if let Some(followed) = &mut connection.followed {
                        followed[stream] = row.position;
                    }
                }
                Ok(None)
            }
            Reply::Beat(alive) => {
                for name in &alive {
                    shared.node_seen(name, None, None);
                }
                let alive: BTreeSet<_> = alive.into_iter().collect();
                for node in shared.nodes() {
                    if !alive.contains(&*node.name) {
                        shared.node_gone(&node.name, now);
                    }
                }
                Ok(None)
            }
        }
    }

    /// Returns whether it has told everything, as far as it knows, and follows the streams.
    pub fn is_quiet(&self) -> bool {
        let is_told = self.location.shared().is_some_and(|shared| !shared.has_untold());
        let is_following = self.connection.as_ref().is_some_and(|c| c.followed.is_some() && !c.is_telling);
        self.is_up && is_told && is_following && self.waiting.is_empty()
    }

    pub fn sweep(&mut self, at: u64) {
        let now = self.now(at);
        for _ in 0..SHARDS {
            self.location.sweep(now);
        }
    }

    pub fn seen(&self, at: u64, aor: &[u8]) -> Vec<Seen> {
        let now = self.now(at);
        let (mut seen, _) = self.location.change(now, aor, |record, _| {
            let each = record.bindings.iter().map(|binding| {
                let text = binding.text();
                Seen {
                    field: field(text.uri, text.instance, binding.reg_id),
                    what: What { uri: text.uri.to_vec(), call_id: text.call_id.to_vec(), path: text.path.to_vec(), q: binding.q },
                    cseq: binding.cseq,
                    removed: binding.removed,
                    is_live: binding.is_live(now),
                }
            });
            each.collect::<Vec<_>>()
        });
        seen.sort();
        seen
    }
}

/// The name of a binding within its address-of-record.
pub fn field(uri: &[u8], instance: &[u8], reg_id: u32) -> Vec<u8> {
    match reg_id != 0 && !instance.is_empty() {
        true => [reg_id.to_string().as_bytes(), b";", instance].concat(),
        false => uri.to_vec(),
    }
}

fn begin(name: &[u8], at: u64, skew_ms: i64, is_acknowledged: bool) -> (Arc<Location>, Endpoint) {
    let address: SocketAddr = ([192, 0, 2, 1], 5060).into();
    let settings = Settings {
        domains: vec![b"example.com".to_vec()],
        listeners: vec![Listener { transport: Transport::Udp, address, advertise: address.to_string().into_bytes() }],
        ..Settings::default()
    };
    let wall_ms = (WALL + at).saturating_add_signed(skew_ms);
    let terms = SharingTerms { node: name.to_vec(), wall_ms, run: wall_ms, is_acknowledged };
    let location = Arc::new(Location::new(key(), 10_000).with_sharing(terms));
    let endpoint = Endpoint::new(Arc::new(settings), Arc::clone(&location), Arc::default(), 0, key());
    (location, endpoint)
}
