//! `connections [--json] [--rounds N] [--most N]`: nanoseconds of what a worker does with its table of connections, among a thousand to a
//! million of them and without a socket: a process has too few descriptors for more than some ten thousand. The table is made of the parts
//! that [`strowger::net::Streams`] is made of, with entries as large as a [`Connection`]. Beside it what one cache miss costs in memory of
//! that size.

use clap::Parser;
use serde_json::{Map, json};
use std::collections::HashMap;
use std::hint::black_box;
use std::mem::{align_of, size_of};
use std::net::SocketAddr;
use strowger::base::{Channel, Flow, Id, Instant, LiveConnections, Rng, Transport};
use strowger::net::State;
use strowger::net::age_list::{Age, AgeList, Aging};
use strowger::net::connection::Connection;
use strowger::net::table::Table;
use strowger_micro::measure::{Chain, LINE, median, ns_each, resident_bytes, spread, tenths};

const SIZES: [u32; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// Steps in a row, of connections drawn at random.
const DRAWS: u32 = 1 << 17;
/// How long a connection may be idle. None of ours is, until it is closed for the next.
const IDLE_MS: u64 = 120_000;

/// Times the table of connections among a thousand to a million of them, in memory and without a socket.
#[derive(Parser)]
#[command(name = "perf/connections")]
struct Options {
    /// For machines
    #[arg(long)]
    json: bool,
    /// Of all sizes in turn; the figures are their medians
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Connections
    #[arg(long, default_value_t = SIZES[3], value_parser = clap::value_parser!(u32).range(i64::from(SIZES[0])..))]
    most: u32,
}

fn main() {
    let options = Options::parse();
    let mut tables: Vec<Bench> = SIZES.into_iter().filter(|size| *size <= options.most).map(Bench::new).collect();
    for _ in 0..options.rounds {
        tables.iter_mut().for_each(Bench::round);
    }
    match options.json {
        true => print_json(&tables),
        false => print(&tables, options.rounds),
    }
}

/// As large as a connection, which cannot be made without a socket.
struct Entry {
    age: Age,
    /// What an event touches first.
    state: State,
    peer: SocketAddr,
    _rest: [u64; REST],
}

const REST: usize = (size_of::<Connection>() - size_of::<(Age, State, SocketAddr)>()) / size_of::<u64>();
const _: () =
    assert!(size_of::<Entry>().abs_diff(size_of::<Connection>()) <= LINE / 4 && align_of::<Entry>() == align_of::<Connection>());

impl Aging for Entry {
    fn age(&self) -> &Age {
        &self.age
    }
    fn age_mut(&mut self) -> &mut Age {
        &mut self.age
    }
}

const STEPS: usize = 5;
/// By the name in the JSON, in words, and how many cache lines each has to fetch that another has not just fetched.
const NAMES: [(&str, &str, u32); STEPS] = [
    // The slot: its entry's head.
    ("find", "found by its token, ns", 1),
    // The map's marks and its bucket; the slot.
    ("address", "found by address, ns", 3),
    // The slot, its two neighbours in the list, and its place among the live.
    ("renew", "renewed, ns", 4),
    ("sweep", "one sweep, ns", 0),
    // Two slots and their neighbours, two buckets of the map and their marks, two places among the live.
    ("turnover", "closed and another opened, ns", 8),
];

#[derive(Clone, Copy)]
struct Draw {
    /// Position in `ids`.
    place: u32,
    id: Id,
    peer: SocketAddr,
}

/// Connections of one number, and what was measured with them.
struct Bench {
    size: u32,
    connections: Table<Entry>,
    accepted: HashMap<(Transport, SocketAddr), Id>,
    age_lists: [AgeList; State::ALL.len()],
    live: LiveConnections,
    ids: Vec<Id>,
    rng: Rng,
    /// Connections drawn at random, one behind the other: an event brings its token with it, and a message its address.
    draws: Vec<Draw>,
    peers: u32,
    now_ms: u64,
    bytes_each: f64,
    chain: Chain,
    miss_ns: Vec<f64>,
    steps_ns: [Vec<f64>; STEPS],
}

impl Bench {
    fn new(size: u32) -> Bench {
        let before = resident_bytes();
        let mut table = Bench {
            size,
            connections: Table::new(size as usize, 1),
            accepted: HashMap::new(),
            age_lists: [AgeList::default(); State::ALL.len()],
            live: LiveConnections::new(1, size as usize),
            ids: Vec::new(),
            rng: Rng::new(u64::from(size)),
            draws: Vec::new(),
            peers: 0,
            now_ms: 1_000,
            bytes_each: 0.0,
            chain: Chain::new(0, &mut Rng::new(1)),
            miss_ns: Vec::new(),
            steps_ns: Default::default(),
        };
        for _ in 0..size {
            let id = table.admit();
            table.ids.push(id);
        }
        let own = (table.ids.capacity() * size_of::<Id>()) as u64;
        let bytes = resident_bytes().saturating_sub(before + own);
        table.bytes_each = bytes as f64 / f64::from(size);
        table.chain = Chain::new(bytes, &mut table.rng);
        table
    }

    fn draw(&mut self) {
        self.draws.clear();
        for _ in 0..DRAWS {
            let place = self.rng.below(u64::from(self.size)) as u32;
            let id = self.ids[place as usize];
            let peer = self.connections.get(id).expect("an open one").peer;
            self.draws.push(Draw { place, id, peer });
        }
    }

    fn now(&self) -> Instant {
        Instant::from_ms(self.now_ms)
    }

    /// As `Streams` takes in a connection, without the socket and the poll.
    fn admit(&mut self) -> Id {
        let [a, b, c] = [self.peers >> 16, self.peers >> 8, self.peers].map(|part| part as u8);
        let peer = SocketAddr::from(([10, a, b, c], 5060));
        // They come round again after 16 million.
        self.peers = (self.peers + 1) & 0xff_ffff;
        let now = self.now();
        let id = self.connections.insert(Entry { age: Age::new(now), state: State::Open, peer, _rest: [0; REST] });
        self.age_lists[State::Open as usize].push(&mut self.connections, id, now);
        self.live.enter(0, id.slot, id.generation);
        self.accepted.insert((Transport::Tcp, peer), id);
        id
    }

    /// As `Streams` closes one.
    fn close(&mut self, id: Id) {
        let Some(entry) = self.connections.get(id) else {
            return;
        };
        let (state, key) = (entry.state, (Transport::Tcp, entry.peer));
        if self.accepted.get(&key) == Some(&id) {
            self.accepted.remove(&key);
        }
        self.age_lists[state as usize].remove(&mut self.connections, id);
        self.live.enter(0, id.slot, 0);
        self.connections.remove(id);
    }

    fn round(&mut self) {
        self.draw();
        let steps: [fn(&mut Bench); STEPS] = [Bench::find, Bench::address, Bench::renew, Bench::sweep, Bench::turnover];
        for (number, step) in steps.into_iter().enumerate() {
            let ns = ns_each(DRAWS, || step(self));
            self.steps_ns[number].push(ns);
        }
        self.miss_ns.push(self.chain.walk(DRAWS));
    }

    /// A step for each draw. Each waits for the one before it: a worker does other things between two, and no processor looks so far
    /// ahead.
    #[inline(always)]
    fn each(&mut self, mut step: impl FnMut(&mut Bench, Draw) -> usize) {
        let (zero, mut last) = (black_box(0), 0);
        for number in 0..DRAWS as usize {
            let draw = self.draws[number + (last & zero)];
            last = step(self, draw);
        }
        black_box(last);
    }

    /// What each event does.
    fn find(&mut self) {
        self.each(|bench, draw| bench.connections.get_mut(draw.id).expect("an open one").state as usize);
    }

    /// The way of a response, and of a request to a phone that has connected.
    fn address(&mut self) {
        self.each(|bench, draw| {
            let found = bench.accepted.get(&(Transport::Tcp, draw.peer)).copied();
            bench.connections.get(found.expect("its address")).expect("an open one").state as usize
        });
    }

    /// What is used goes to the young end; and the rules ask whether it lives.
    fn renew(&mut self) {
        self.now_ms += 1;
        let now = self.now();
        self.each(|bench, Draw { id, peer, .. }| {
            let open = &mut bench.age_lists[State::Open as usize];
            open.remove(&mut bench.connections, id);
            open.push(&mut bench.connections, id, now);
            let channel = Channel::Connection { slot: id.slot, generation: id.generation };
            let lives = bench.live.is_alive(&Flow { peer, listener: 0, transport: Transport::Tcp, core: 0, channel });
            assert!(lives);
            usize::from(lives)
        });
    }

    /// The look for what is overdue, which is nothing: ten times a second in a worker.
    fn sweep(&mut self) {
        let now = self.now();
        for _ in 0..DRAWS {
            for state in State::ALL {
                let oldest = self.age_lists[state as usize].oldest(black_box(&self.connections));
                let overdue = oldest.is_some_and(|(_, since)| now.ms_since(since) >= IDLE_MS);
                assert!(!black_box(overdue));
            }
        }
    }

    fn turnover(&mut self) {
        self.each(|bench, draw| {
            let place = draw.place as usize;
            bench.close(bench.ids[place]);
            bench.ids[place] = bench.admit();
            0
        });
    }
}

fn print(tables: &[Bench], rounds: u32) {
    for table in tables {
        println!("{} connections, {:.0} bytes each; one cache miss {:.1} ns", table.size, table.bytes_each, median(&table.miss_ns));
        for ((_, words, _), ns) in NAMES.iter().zip(&table.steps_ns) {
            println!("  {words:<32} {:>8.1}", median(ns));
        }
    }
    println!("{rounds} rounds, alternating, medians");
}

fn print_json(tables: &[Bench]) {
    let row = |table: &Bench| {
        let steps = NAMES.iter().zip(&table.steps_ns).map(|((name, _, lines), ns)| {
            let [least, median, _] = spread(ns).map(|ns| (100.0 * ns).round() / 100.0);
            ((*name).to_owned(), json!({"ns": median, "least_ns": least, "lines": lines}))
        });
        let (bytes_each, miss) = (tenths(table.bytes_each), tenths(median(&table.miss_ns)));
        json!({"connections": table.size, "bytes_each": bytes_each, "miss_ns": miss, "steps": Map::from_iter(steps)})
    };
    println!("{:#}", json!({"unit": "ns", "rows": tables.iter().map(row).collect::<Vec<_>>()}));
}
