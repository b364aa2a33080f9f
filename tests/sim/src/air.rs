//! The laboratory's network and clock: datagrams in flight and things to do later, in one queue ordered by time. Loss,
//! duplication, reordering and delay come from the seed.

use super::hashing::Digest;
use super::intent::Intent;
use super::link::{Link, Port, is_stream};
use super::reading::Reading;
use super::statistics::Statistics;
use std::collections::BTreeMap;
use std::collections::BinaryHeap;
use std::collections::VecDeque;
use std::fmt::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use strowger::base::dns::Answer;
use strowger::base::{Errand, Flow, Instant, Rng};

/// Something that will happen.
pub enum What {
    Datagram {
        from: SocketAddr,
        to: SocketAddr,
        message: Rc<Reading>,
        intent: Intent,
        order: u64,
    },
    /// One core's parcel to another.
    Mail {
        server: usize,
        core: u8,
        errand: Errand,
        flow: Flow,
        bytes: Vec<u8>,
    },
    Timers {
        server: usize,
        core: u8,
    },
    Sweep {
        server: usize,
    },
    /// A name server's answer to one core's question.
    Answer {
        server: usize,
        core: u8,
        answer: Box<Answer>,
    },
    /// Nobody lives where a server's datagram went (ICMP port unreachable): what comes back with the report.
    Unreachable {
        server: usize,
        core: u8,
        message: Rc<Reading>,
    },
    Phone {
        phone: usize,
        todo: Todo,
    },
    /// A connection is open, for both sides.
    Opened {
        link: usize,
    },
    /// Bytes arrive on it; `up` is from the phone to the server.
    Chunk {
        link: usize,
        up: bool,
        bytes: Vec<u8>,
    },
    /// It is refused, was given up, or is reset.
    LinkLost {
        link: usize,
    },
}

/// What a phone wants to be reminded of; the numbers are names in its own tables.
#[derive(Clone, Copy, Debug)]
pub enum Todo {
    /// Timer A or E of a client transaction.
    Retransmit {
        client: usize,
    },
    /// Timer B or F.
    GiveUp {
        client: usize,
    },
    /// The next response of an incoming INVITE's script.
    Play {
        incoming: usize,
    },
    /// Send the 2xx, or the final (timer G), again.
    Repeat {
        incoming: usize,
    },
    /// Timer H, or the end of 2xx retransmission.
    Abandon {
        incoming: usize,
    },
    Cancel {
        call: usize,
    },
    HangUp {
        dialog: usize,
    },
}

struct Event {
    at: u64,
    order: u64,
    what: What,
}

impl PartialEq for Event {
    fn eq(&self, other: &Event) -> bool {
        self.order == other.order
    }
}
impl Eq for Event {}
impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Event) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Event {
    /// The earliest is the greatest: `BinaryHeap` gives the greatest first.
    fn cmp(&self, other: &Event) -> std::cmp::Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// How bad the network is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    pub loss_per_mille: u64,
    pub duplicate_per_mille: u64,
    pub delay_ms: u64,
    pub jitter_ms: u64,
    /// Thousandths of datagrams that are held back much longer.
    pub straggler_per_mille: u64,
    pub straggler_ms: u64,
}

impl Weather {
    pub const CLEAN: Weather =
        Weather { loss_per_mille: 0, duplicate_per_mille: 0, delay_ms: 1, jitter_ms: 0, straggler_per_mille: 0, straggler_ms: 0 };
    pub const USUAL: Weather = Weather {
        loss_per_mille: 10,
        duplicate_per_mille: 5,
        delay_ms: 8,
        jitter_ms: 20,
        straggler_per_mille: 5,
        straggler_ms: 600,
    };
    pub const BAD: Weather = Weather {
        loss_per_mille: 120,
        duplicate_per_mille: 60,
        delay_ms: 30,
        jitter_ms: 200,
        straggler_per_mille: 40,
        straggler_ms: 2500,
    };
    pub const BRUTAL: Weather = Weather {
        loss_per_mille: 350,
        duplicate_per_mille: 250,
        delay_ms: 20,
        jitter_ms: 900,
        straggler_per_mille: 100,
        straggler_ms: 4000,
    };
}

/// One line of what happened lately.
struct Note {
    at: u64,
    mark: &'static str,
    from: SocketAddr,
    to: SocketAddr,
    message: Rc<Reading>,
}

impl Note {
    fn in_words(&self) -> String {
        let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
        let message = &self.message;
        let cseq = message.cseq();
        let branch = super::text::param(message.via(0), b"branch");
        format!(
            "{:>9} {:4} {} > {}  {}  cseq {}  call {}  vias {}  top {}",
            self.at,
            self.mark,
            self.from,
            self.to,
            message.title(),
            cseq.map_or(String::new(), |(n, m)| format!("{n} {}", text(m))),
            text(message.call_id()),
            message.vias.len(),
            branch.map_or(String::new(), text),
        )
    }
}

const REMEMBERED: usize = 400;
const EARS: usize = 96;

/// The network, the clock and the dice.
pub struct Air {
    pub now: Instant,
    pub rng: Rng,
    pub statistics: Statistics,
    /// Messages that a hostile agent may have overheard: who sent them to whom.
    pub overheard: VecDeque<(SocketAddr, SocketAddr, Rc<Reading>)>,
    /// Weather for each address; `usual` for the others.
    pub weather: Vec<(SocketAddr, Weather)>,
    pub usual: Weather,
    /// When false, nobody begins anything new.
    pub open: bool,
    queue: BinaryHeap<Event>,
    order: u64,
    notes: VecDeque<Note>,
    trace: Digest,
    /// The latest sending that has arrived on each way.
    ways: BTreeMap<(SocketAddr, SocketAddr), u64>,
    /// Is told every line of the trace.
    pub listener: Option<Listener>,
    /// All connections that there were.
    pub links: Vec<Link>,
    /// Where servers listen for connections, and where phones do.
    pub ports: Vec<Port>,
    pub homes: Vec<SocketAddr>,
}

/// Who wants to read along.
pub type Listener = Box<dyn FnMut(&str)>;

impl Air {
    pub fn new(rng: Rng, usual: Weather) -> Air {
        Air {
            // Some time of its own: a moment of 0 would hide mistakes.
            now: Instant::from_ms(1_000_000),
            rng,
            statistics: Statistics::default(),
            overheard: VecDeque::new(),
            weather: Vec::new(),
            usual,
            open: true,
            queue: BinaryHeap::new(),
            order: 0,
            notes: VecDeque::new(),
            trace: Digest::new(),
            ways: BTreeMap::new(),
            listener: None,
            links: Vec::new(),
            ports: Vec::new(),
            homes: Vec::new(),
        }
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.rng.below(high.saturating_sub(low) + 1)
    }

    pub fn later(&mut self, ms: u64, what: What) {
        self.at(self.now.after_ms(ms), what);
    }

    pub fn at(&mut self, at: Instant, what: What) {
        self.order += 1;
        self.queue.push(Event { at: at.as_ms().max(self.now.as_ms()), order: self.order, what });
    }

    /// The next thing that happens at or before `until`; the clock moves there.
    pub fn next(&mut self, until: Instant) -> Option<What> {
        if self.queue.peek()?.at > until.as_ms() {
            return None;
        }
        let event = self.queue.pop()?;
        self.now = self.now.max(Instant::from_ms(event.at));
        Some(event.what)
    }

    pub fn next_at(&self) -> Option<Instant> {
        Some(Instant::from_ms(self.queue.peek()?.at))
    }

    /// Puts a datagram on the network.
    pub fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>, intent: Intent) {
        let message = Rc::new(Reading::new(bytes));
        self.send_again(from, to, message, intent);
    }

    /// As [`Air::send`], for a message that was read before.
    pub fn send_again(&mut self, from: SocketAddr, to: SocketAddr, message: Rc<Reading>, intent: Intent) {
        if intent == Intent::Honest && is_stream(&message) && self.by_stream(from, to, &message) {
            return;
        }
        self.statistics.datagrams += 1;
        let find = |address: SocketAddr| self.weather.iter().find(|(a, _)| *a == address).map(|(_, weather)| *weather);
        let weather = find(from).or_else(|| find(to)).unwrap_or(self.usual);
        // What is mangled already is of no use to anybody.
        if intent != Intent::Mangled {
            if self.overheard.len() == EARS {
                self.overheard.pop_front();
            }
            self.overheard.push_back((from, to, Rc::clone(&message)));
        }
        if from.is_ipv4() != to.is_ipv4() || self.rng.chance(weather.loss_per_mille) {
            self.statistics.lost += 1;
            self.note("lost", from, to, &message);
            return;
        }
        let copies = if self.rng.chance(weather.duplicate_per_mille) {
            self.statistics.duplicated += 1;
            2
        } else {
            1
        };
        for _ in 0..copies {
            let mut delay = weather.delay_ms + self.rng.below(weather.jitter_ms + 1);
            if self.rng.chance(weather.straggler_per_mille) {
                delay += self.rng.below(weather.straggler_ms + 1);
            }
            let order = self.order;
            self.later(delay, What::Datagram { from, to, message: Rc::clone(&message), intent, order });
        }
    }

    /// A datagram arrived that was sent as the `order`-th event: counts those that were overtaken.
    pub fn arrived(&mut self, from: SocketAddr, to: SocketAddr, order: u64) {
        let last = self.ways.entry((from, to)).or_default();
        self.statistics.reordered += u64::from(order < *last);
        *last = order.max(*last);
    }

    /// Remembers a message for the trace, and folds it into the run's hash.
    pub fn note(&mut self, mark: &'static str, from: SocketAddr, to: SocketAddr, message: &Rc<Reading>) {
        self.trace.number(self.now.as_ms());
        self.trace.number(u64::from(from.port()) << 16 | u64::from(to.port()));
        self.trace.number(message.digest);
        if self.notes.len() == REMEMBERED {
            self.notes.pop_front();
        }
        let note = Note { at: self.now.as_ms(), mark, from, to, message: Rc::clone(message) };
        if let Some(listener) = &mut self.listener {
            listener(&note.in_words());
        }
        self.notes.push_back(note);
    }

    /// One number for all that was sent, lost and received, and when.
    pub fn trace_hash(&self) -> u64 {
        self.trace.finish()
    }

    /// The last `count` messages of a call, whole.
    pub fn full(&self, count: usize, call_id: &[u8]) -> String {
        let mut out = String::new();
        let own = |note: &&Note| note.message.call_id() == call_id;
        let wanted: Vec<&Note> = self.notes.iter().rev().filter(own).take(count).collect();
        for note in wanted.iter().rev() {
            let body = note.message.body.clone();
            let text = String::from_utf8_lossy(&note.message.bytes[..body.start]);
            let _ =
                writeln!(out, "---- {} {} {} > {}, a body of {} bytes\n{text}", note.at, note.mark, note.from, note.to, body.len());
        }
        out
    }

    /// The last `count` messages in words; those of `call_id` only if it is given.
    pub fn history(&self, count: usize, call_id: Option<&[u8]>) -> String {
        let mut out = String::new();
        let wanted: Vec<&Note> =
            self.notes.iter().rev().filter(|note| call_id.is_none_or(|id| note.message.call_id() == id)).take(count).collect();
        for note in wanted.iter().rev() {
            let _ = writeln!(out, "{}", note.in_words());
        }
        out
    }
}
