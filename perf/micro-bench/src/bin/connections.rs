//! `connections [--json] [--rounds N] [--most N]`: nanoseconds of what a worker does with its table of connections, among a thousand to a
//! million of them and without a socket: a process has too few descriptors for more than some ten thousand. The table is made of the parts
//! that [`strowger::net::Streams`] is made of, with entries as large as a [`Connection`]. ProcessStats it what one cache miss costs in memory of
//! that size.

use rustix::time::{ClockId, clock_gettime};
use std::collections::HashMap;
use std::hint::black_box;
use std::mem::{align_of, size_of};
use std::net::SocketAddr;
use strowger::base::{Channel, Flow, Id, Instant, LiveConnections, Transport};
use strowger::net::State;
use strowger::net::age_list::{Age, AgeList, Aging};
use strowger::net::connection::Connection;
use strowger::net::table::Table;

const SIZES: [u32; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// Steps in a row, of connections drawn at random.
const DRAWS: u32 = 1 << 17;
/// What the processor fetches from memory at a time, bytes.
const LINE: usize = 64;
/// How long a connection may be idle. None of ours is, until it is closed for the next.
const IDLE_MS: u64 = 120_000;

fn main() {
    let (mut rounds, mut most, mut as_json) = (5, SIZES[3], false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|text| text.parse::<u32>().ok());
        match argument.as_str() {
            "--json" => as_json = true,
            "--rounds" => rounds = number().filter(|n| *n > 0).unwrap_or_else(|| usage()),
            "--most" => most = number().filter(|n| *n >= SIZES[0]).unwrap_or_else(|| usage()),
            _ => usage(),
        }
    }
    let sizes = SIZES.into_iter().filter(|size| *size <= most);
    let mut tables: Vec<Bench> = sizes.map(Bench::new).collect();
    for _ in 0..rounds {
        for table in &mut tables {
            table.round();
        }
    }
    match as_json {
        true => print_json(&tables),
        false => print(&tables, rounds),
    }
}

fn usage() -> ! {
    eprintln!("usage: connections [--json] [--rounds N] [--most N]");
    std::process::exit(2);
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
    random: Random,
    /// Connections drawn at random, one behind the other: an event brings its token with it, and a message its address.
    draws: Vec<Draw>,
    peers: u32,
    now_ms: u64,
    bytes: u64,
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
            random: Random(u64::from(size)),
            draws: Vec::new(),
            peers: 0,
            now_ms: 1_000,
            bytes: 0,
            chain: Chain::new(2 * LINE, &mut Random(1)),
            miss_ns: Vec::new(),
            steps_ns: Default::default(),
        };
        for _ in 0..size {
            let id = table.admit();
            table.ids.push(id);
        }
        let own = (table.ids.capacity() * size_of::<Id>()) as u64;
        table.bytes = resident_bytes().saturating_sub(before + own);
        table.chain = Chain::new(table.bytes as usize, &mut table.random);
        table
    }

    fn draw(&mut self) {
        self.draws.clear();
        for _ in 0..DRAWS {
            let place = self.random.below(self.size);
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
            let start = CpuTime::now();
            step(self);
            self.steps_ns[number].push(start.elapsed_ns() / f64::from(DRAWS));
        }
        let start = CpuTime::now();
        self.chain.walk(DRAWS);
        self.miss_ns.push(start.elapsed_ns() / f64::from(DRAWS));
    }

    /// What each event does. Each waits for the one before it: a worker does other things between two, and no processor looks so far ahead.
    fn find(&mut self) {
        let (zero, mut last) = (black_box(0), 0);
        for number in 0..DRAWS as usize {
            let id = self.draws[number + (last & zero)].id;
            let entry = self.connections.get_mut(id).expect("an open one");
            last = entry.state as usize;
        }
        black_box(last);
    }

    /// The way of a response, and of a request to a phone that has connected.
    fn address(&mut self) {
        let (zero, mut last) = (black_box(0), 0);
        for number in 0..DRAWS as usize {
            let peer = self.draws[number + (last & zero)].peer;
            let found = self.accepted.get(&(Transport::Tcp, peer)).copied();
            let entry = self.connections.get(found.expect("its address"));
            last = entry.expect("an open one").state as usize;
        }
        black_box(last);
    }

    /// What is used goes to the young end; and the rules ask whether it lives.
    fn renew(&mut self) {
        self.now_ms += 1;
        let now = self.now();
        let (zero, mut last) = (black_box(0), 0);
        for number in 0..DRAWS as usize {
            let Draw { id, peer, .. } = self.draws[number + (last & zero)];
            let open = &mut self.age_lists[State::Open as usize];
            open.remove(&mut self.connections, id);
            open.push(&mut self.connections, id, now);
            let flow = Flow {
                peer,
                listener: 0,
                transport: Transport::Tcp,
                core: 0,
                channel: Channel::Connection { slot: id.slot, generation: id.generation },
            };
            last = usize::from(self.live.is_alive(&flow));
            assert_eq!(last, 1);
        }
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
        for number in 0..DRAWS as usize {
            let place = self.draws[number].place as usize;
            self.close(self.ids[place]);
            self.ids[place] = self.admit();
        }
    }
}

/// As many bytes as a table has, each cache line of which names the next: to walk it is to wait for memory and for nothing else.
struct Chain {
    lines: Vec<[u32; LINE / 4]>,
    at: u32,
}

impl Chain {
    fn new(bytes: usize, random: &mut Random) -> Chain {
        let count = (bytes / LINE).max(2) as u32;
        let mut next: Vec<u32> = (0..count).collect();
        // Sattolo's shuffle makes one ring of them all.
        for last in (1..count).rev() {
            next.swap(last as usize, random.below(last) as usize);
        }
        let lines = next.into_iter().map(|next| [next; LINE / 4]).collect();
        Chain { lines, at: 0 }
    }

    fn walk(&mut self, steps: u32) {
        for _ in 0..steps {
            self.at = self.lines[self.at as usize][0];
        }
        black_box(self.at);
    }
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        ((u128::from(mixed) * u128::from(bound)) >> 64) as u32
    }
}

/// Time that this thread has computed, whatever else ran meanwhile.
struct CpuTime(i64);

impl CpuTime {
    fn now() -> CpuTime {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        CpuTime(now.tv_sec * 1_000_000_000 + now.tv_nsec)
    }

    fn elapsed_ns(&self) -> f64 {
        (CpuTime::now().0 - self.0) as f64
    }
}

/// What the process holds in memory now (`statm`, second field).
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn print(tables: &[Bench], rounds: u32) {
    for table in tables {
        println!(
            "{} connections, {:.0} bytes each; one cache miss {:.1} ns",
            table.size,
            table.bytes as f64 / f64::from(table.size),
            median(&table.miss_ns)
        );
        for ((_, words, _), ns) in NAMES.iter().zip(&table.steps_ns) {
            println!("  {words:<32} {:>8.1}", median(ns));
        }
    }
    println!("{rounds} rounds, alternating, medians");
}

fn print_json(tables: &[Bench]) {
    let rows: Vec<String> = tables
        .iter()
        .map(|table| {
            let steps: Vec<String> = NAMES
                .iter()
                .zip(&table.steps_ns)
                .map(|((name, _, lines), ns)| {
                    format!(
                        "\"{name}\": {{\"ns\": {:.2}, \"least_ns\": {:.2}, \"lines\": {lines}}}",
                        median(ns),
                        ns.iter().copied().fold(f64::INFINITY, f64::min)
                    )
                })
                .collect();
            format!(
                "{{\"connections\": {}, \"bytes_each\": {:.1}, \"miss_ns\": {:.1}, \"steps\": {{{}}}}}",
                table.size,
                table.bytes as f64 / f64::from(table.size),
                median(&table.miss_ns),
                steps.join(", ")
            )
        })
        .collect();
    println!("{{\"unit\": \"ns\", \"rows\": [\n  {}\n]}}", rows.join(",\n  "));
}
