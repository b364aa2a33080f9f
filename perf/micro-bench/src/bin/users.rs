//! `users [--json] [--rounds N] [--most N]`: nanoseconds to find one user among 100, 10 thousand, 1 million and 10 million, as a worker does
//! when a request brings credentials. ProcessStats it what one cache miss costs in a table of that size, and the whole check of a digest.

use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use strowger::base::Key;
use strowger::sip::Credentials;
use strowger::stack::auth::digest::{Algorithm, Hash, ha1, response};
use strowger::stack::auth::users::{Entry, Users};

const SIZES: [u32; 4] = [100, 10_000, 1_000_000, 10_000_000];
const REALM: &[u8] = b"example.com";
/// Lookups in a row, of users drawn at random.
const DRAWS: u32 = 1 << 18;
const CHECKS: u32 = DRAWS / 8;
/// What the processor fetches from memory at a time, bytes.
const LINE: usize = 64;

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
    let mut tables: Vec<Table> = sizes.map(Table::new).collect();
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
    eprintln!("usage: users [--json] [--rounds N] [--most N]");
    std::process::exit(2);
}

/// Users of one number, and what was measured with them.
struct Table {
    size: u32,
    users: Users,
    bytes: u64,
    /// Names of users drawn at random, one behind the other.
    names: Vec<u8>,
    chain: Chain,
    lookup_ns: Vec<f64>,
    miss_ns: Vec<f64>,
    check_ns: Vec<f64>,
}

/// All names are as long as those of ten million users, so that hashing them costs the same.
const NAME: usize = 9;

fn name(number: u32) -> [u8; NAME] {
    let mut name = [b'u'; NAME];
    let mut rest = number;
    for digit in name[1..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    name
}

impl Table {
    fn new(size: u32) -> Table {
        let before = resident_bytes();
        let mut users = Users::new(Key::new(1, 2), size as usize);
        for number in 0..size {
            let name = name(number);
            users.insert(&Entry {
                name: &name,
                domain: REALM,
                md5: Some(ha1(Algorithm::Md5, &name, REALM, b"secret")),
                ..Entry::default()
            });
        }
        let bytes = resident_bytes().saturating_sub(before);
        let mut random = Random(u64::from(size));
        let names = (0..DRAWS).flat_map(|_| name(random.below(size))).collect();
        Table {
            size,
            users,
            bytes,
            names,
            chain: Chain::new(bytes as usize, &mut random),
            lookup_ns: Vec::new(),
            miss_ns: Vec::new(),
            check_ns: Vec::new(),
        }
    }

    fn round(&mut self) {
        self.lookups();
        let start = CpuTime::now();
        self.chain.walk(DRAWS);
        self.miss_ns.push(start.elapsed_ns() / f64::from(DRAWS));
        self.checks();
    }

    /// Each waits for the one before it: a worker does other things between two lookups, and no processor looks so far ahead.
    fn lookups(&mut self) {
        let zero = black_box(0);
        let mut last = 0;
        let start = CpuTime::now();
        for place in 0..DRAWS as usize {
            let at = place * NAME + (last & zero);
            let user = self.users.find(&self.names[at..at + NAME], REALM);
            let hash = user.and_then(|user| user.ha1(Algorithm::Md5));
            last = usize::from(hash.expect("a user").bytes()[0]);
        }
        self.lookup_ns.push(start.elapsed_ns() / f64::from(DRAWS));
    }

    /// What a request with `qop=auth` costs beside its parsing: the lookup, two hashes, and the comparison with a third.
    fn checks(&mut self) {
        let right = Hash::new(&[1; 16]).expect("a hash");
        let start = CpuTime::now();
        for place in 0..CHECKS as usize {
            let username = &self.names[place * NAME..(place + 1) * NAME];
            let credentials = Credentials {
                username,
                realm: REALM,
                nonce: b"0123456789abcdef0123456789abcdef",
                uri: b"sip:example.com",
                qop: Some(b"auth"),
                nc: Some(b"00000001"),
                cnonce: Some(b"01234567"),
                ..Credentials::default()
            };
            let user = self.users.find(username, REALM);
            let ha1 = user.and_then(|user| user.ha1(Algorithm::Md5));
            let ha1 = ha1.expect("a user");
            let expected = response(Algorithm::Md5, false, &ha1, &credentials, b"REGISTER", b"");
            black_box(expected.is_some_and(|expected| expected.equals(&right)));
        }
        self.check_ns.push(start.elapsed_ns() / f64::from(CHECKS));
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

fn print(tables: &[Table], rounds: u32) {
    println!("{:>12} {:>12} {:>14} {:>16} {:>14}", "users", "lookup, ns", "one miss, ns", "with digest, ns", "bytes each");
    for table in tables {
        println!(
            "{:>12} {:>12.1} {:>14.1} {:>16.1} {:>14.1}",
            table.size,
            median(&table.lookup_ns),
            median(&table.miss_ns),
            median(&table.check_ns),
            table.bytes as f64 / f64::from(table.size),
        );
    }
    let (first, last) = (&tables[0], &tables[tables.len() - 1]);
    println!(
        "{rounds} rounds, alternating, medians; {} users cost {:.2} times as much as {}",
        last.size,
        median(&last.lookup_ns) / median(&first.lookup_ns),
        first.size,
    );
}

fn print_json(tables: &[Table]) {
    let rows: Vec<String> = tables
        .iter()
        .map(|table| {
            format!(
                "{{\"users\": {}, \"lookup_ns\": {:.1}, \"miss_ns\": {:.1}, \"check_ns\": {:.1}, \"bytes_each\": {:.1}}}",
                table.size,
                median(&table.lookup_ns),
                median(&table.miss_ns),
                median(&table.check_ns),
                table.bytes as f64 / f64::from(table.size),
            )
        })
        .collect();
    println!("{{\"unit\": \"ns\", \"rows\": [\n  {}\n]}}", rows.join(",\n  "));
}
