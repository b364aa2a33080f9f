//! `users [--json] [--rounds N] [--most N]`: nanoseconds to find one user among 100, 10 thousand, 1 million and 10 million, as a worker does
//! when a request brings credentials. Beside it what one cache miss costs in a table of that size, and the whole check of a digest.

use clap::Parser;
use serde_json::json;
use std::hint::black_box;
use strowger::base::{Key, Rng};
use strowger::sip::Credentials;
use strowger::stack::auth::digest::{Algorithm, Hash, ha1, response};
use strowger::stack::auth::users::{Entry, Users};
use strowger_micro::measure::{Chain, median, ns_each, resident_bytes, tenths};

const SIZES: [u32; 4] = [100, 10_000, 1_000_000, 10_000_000];
const REALM: &[u8] = b"example.com";
/// Lookups in a row, of users drawn at random.
const DRAWS: u32 = 1 << 18;
const CHECKS: u32 = DRAWS / 8;

/// Times the lookup of a user among 100 to 10 million, in memory.
#[derive(Parser)]
#[command(name = "perf/users")]
struct Options {
    /// For machines
    #[arg(long)]
    json: bool,
    /// Of all sizes in turn; the figures are their medians
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Users; where there are not 2 GB of memory to spare
    #[arg(long, default_value_t = SIZES[3], value_parser = clap::value_parser!(u32).range(i64::from(SIZES[0])..))]
    most: u32,
}

fn main() {
    let options = Options::parse();
    let mut tables: Vec<Table> = SIZES.into_iter().filter(|size| *size <= options.most).map(Table::new).collect();
    for _ in 0..options.rounds {
        tables.iter_mut().for_each(Table::round);
    }
    match options.json {
        true => print_json(&tables),
        false => print(&tables, options.rounds),
    }
}

/// Users of one number, and what was measured with them.
struct Table {
    size: u32,
    users: Users,
    bytes_each: f64,
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
        let mut rng = Rng::new(u64::from(size));
        let names = (0..DRAWS).flat_map(|_| name(rng.below(u64::from(size)) as u32)).collect();
        Table {
            size,
            users,
            bytes_each: bytes as f64 / f64::from(size),
            names,
            chain: Chain::new(bytes, &mut rng),
            lookup_ns: Vec::new(),
            miss_ns: Vec::new(),
            check_ns: Vec::new(),
        }
    }

    fn round(&mut self) {
        self.lookup_ns.push(ns_each(DRAWS, || self.lookups()));
        self.miss_ns.push(self.chain.walk(DRAWS));
        self.check_ns.push(ns_each(CHECKS, || self.checks()));
    }

    /// Each waits for the one before it: a worker does other things between two lookups, and no processor looks so far ahead.
    fn lookups(&self) {
        let (zero, mut last) = (black_box(0), 0);
        for place in 0..DRAWS as usize {
            let at = place * NAME + (last & zero);
            let user = self.users.find(&self.names[at..at + NAME], REALM);
            let hash = user.and_then(|user| user.ha1(Algorithm::Md5));
            last = usize::from(hash.expect("a user").bytes()[0]);
        }
    }

    /// What a request with `qop=auth` costs beside its parsing: the lookup, two hashes, and the comparison with a third.
    fn checks(&self) {
        let right = Hash::new(&[1; 16]).expect("a hash");
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
    }
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
            table.bytes_each,
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
    let row = |table: &Table| {
        let [lookup, miss, check] = [&table.lookup_ns, &table.miss_ns, &table.check_ns].map(|ns| tenths(median(ns)));
        let bytes_each = tenths(table.bytes_each);
        json!({"users": table.size, "lookup_ns": lookup, "miss_ns": miss, "check_ns": check, "bytes_each": bytes_each})
    };
    println!("{:#}", json!({"unit": "ns", "rows": tables.iter().map(row).collect::<Vec<_>>()}));
}
