//! Fuzz target: any rows in the table of bindings, and any piece of the log beside them. What cannot be used is counted and left out; what is
//! taken obeys the rules of a REGISTER, and not more of it than there was.
//!
//! A line is a row: its columns stand between tabs, each after the letter of its type. Behind a line `!!` are the bytes of a piece of the log.
#![no_main]

use std::net::SocketAddr;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use rusqlite::Connection;
use rusqlite::types::Value;
use strowger::base::{Instant, Key, Transport};
use strowger::stack::location::{Location, RowRules};
use strowger::stack::{Settings, settings};
use strowger::store::bindings::Table;
use strowger::store::round_log::CHECK;
use strowger::store::stored::Terms;

const COLUMNS: usize = 16;
const NOW: u64 = 1_000_000;

thread_local! {
    static DATABASE: (Table, Connection) = database();
}

fuzz_target!(|bytes: &[u8]| {
    let marker = bytes.windows(4).position(|four| four == b"\n!!\n");
    let (rows, piece) = match marker {
        Some(at) => (&bytes[..at], Some(&bytes[at + 4..])),
        None => (bytes, None),
    };
    DATABASE.with(|(table, writer)| {
        let written = write(writer, rows, piece);
        let listener: SocketAddr = "10.0.0.1:5060".parse().unwrap();
        let own = settings::Listener { transport: Transport::Udp, address: listener, advertise: b"10.0.0.1:5060".to_vec() };
        let rules = Arc::new(Settings { domains: vec![b"x".to_vec()], listeners: vec![own], ..Settings::default() });
        let terms = Terms { wall_ms: NOW, listeners: &[(Transport::Udp, listener)] };
        let location = Location::new(Key::new(1, 2), 100);
        let now = Instant::from_ms(5000);
        let rules = RowRules::new(rules);
        let restored = match table.restore(&location, now, &rules, terms) {
            Ok(restored) => restored,
            Err(trouble) => {
                assert!(piece.is_some(), "rows alone tear nothing: {}", trouble.message());
                return;
            }
        };
        assert_eq!(restored.has_log, piece.is_some());
        assert_eq!(restored.unusable > 0, !restored.first.is_empty());
        if piece.is_none() {
            let all = restored.bindings + restored.expired + restored.unusable + restored.no_room;
            assert_eq!(all, written);
        }
        let latest = now.after_ms(u64::from(rules.max_expires_s()) * 1000);
        let mut shown = 0;
        location.show(now, None, &mut |aor, binding| {
            shown += 1;
            assert!(!aor.is_empty() && binding.q <= 1000);
            assert!(binding.expires > now && binding.expires <= latest);
            assert!(strowger::sip::Uri::parse(&binding.uri).is_ok());
        });
        assert!(shown <= restored.bindings && location.bindings() <= 100);
    });
});

/// A table and another program's way to it.
fn database() -> (Table, Connection) {
    let file = format!("strowger-fuzz-{}.db", std::process::id());
    let path = std::env::temp_dir().join(file);
    let table = Table::open(&path).unwrap();
    let writer = Connection::open(&path).unwrap();
    writer.pragma_update(None, "synchronous", "OFF").unwrap();
    (table, writer)
}

/// Returns how many rows the table took.
fn write(writer: &Connection, rows: &[u8], piece: Option<&[u8]>) -> usize {
    let change = writer.unchecked_transaction().unwrap();
    let clear = "DELETE FROM strowger_binding; DELETE FROM strowger_binding_log";
    change.execute_batch(clear).unwrap();
    let places = vec!["?"; COLUMNS].join(", ");
    let insert = format!("INSERT INTO strowger_binding VALUES ({places})");
    let mut insert = change.prepare_cached(&insert).unwrap();
    let lines = rows.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    let row = |line: &[u8]| {
        let mut values: Vec<Value> = line.split(|b| *b == b'\t').map(value).collect();
        values.resize(COLUMNS, Value::Null);
        rusqlite::params_from_iter(values)
    };
    // What the table does not take (no address, two of one place) is not there to be read.
    let taken = lines.filter(|line| insert.execute(row(line)).is_ok());
    let count = taken.count();
    drop(insert);
    if let Some(piece) = piece {
        let piece = [&CHECK.hash(&[piece]).to_le_bytes(), piece].concat();
        let append = "INSERT INTO strowger_binding_log (changes) VALUES (?)";
        change.execute(append, [piece]).unwrap();
    }
    change.commit().unwrap();
    count
}

fn value(column: &[u8]) -> Value {
    let text = column.get(1..).unwrap_or_default();
    let words = String::from_utf8_lossy(text);
    match column.first() {
        Some(b'i') => words.parse().map_or(Value::Null, Value::Integer),
        Some(b'r') => words.parse().map_or(Value::Null, Value::Real),
        Some(b'b') => Value::Blob(text.to_vec()),
        Some(b't') => Value::Text(words.into_owned()),
        _ => Value::Null,
    }
}
