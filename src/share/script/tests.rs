//! The script on a real Redis, against the rule that it must follow.

use super::*;
use crate::base::Key;
use crate::share::form::ReadRow;
use crate::share::redis_server::RedisServer;
use crate::share::wire::Wire;
use crate::stack::location::{BindingText, Reached, Version};
use std::collections::BTreeSet;

/// The wall clock of the tests, later than any clock: nothing is over.
const FAR_MS: u64 = 4_000_000_000_000;

fn row() -> SharedRow<'static> {
    SharedRow {
        aor: b"a@x",
        text: BindingText { uri: b"sip:a@192.0.2.1", call_id: b"c", ..BindingText::default() },
        version: Version { time_ms: 1000, series: 0, cseq: 1 },
        node: b"n",
        relay: b"",
        peer: None,
        flow: None,
        expires_ms: FAR_MS,
        lease_ms: FAR_MS,
        lifetime_s: 60,
        reg_id: 0,
        q: 1000,
        reached: Reached::ByContact,
        removed: false,
        is_unsure: false,
        leads_back: false,
        position: 0,
    }
}

/// Tells the rows in batches and returns Redis's answers in the order of the batches.
fn tell(wire: &mut Wire, name: &[u8], rows: &[SharedRow<'static>]) -> Vec<Reply> {
    let mut answers = Vec::new();
    for batch in batches(rows.iter().copied()) {
        let words = batch.command(name, 1000);
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let reply = wire.call(&words).unwrap();
        let list = reply.list().unwrap();
        assert_eq!(list.len(), batch.rows.len());
        answers.extend_from_slice(list);
    }
    answers
}

fn load(wire: &mut Wire) -> Vec<u8> {
    wire.call(&[b"SCRIPT", b"LOAD", SCRIPT]).unwrap().text().unwrap().to_vec()
}

/// Numbers and texts that meet each other often, and are hard to compare.
struct Generator {
    key: Key,
    turn: u64,
}

impl Generator {
    fn below(&mut self, most: usize) -> usize {
        self.turn += 1;
        self.key.hash(&[&self.turn.to_le_bytes()]) as usize % most
    }

    fn row(&mut self) -> SharedRow<'static> {
        const TEXTS: [&[u8]; 8] = [b"a", b"A", b"a\0", b"ab", b"\xff", b"%41", b"&call=z", b"\xc3\xa4"];
        const TIMES: [u64; 4] = [999, 1000, 1_767_225_600_000, 1_767_225_600_001];
        const NUMBERS: [u32; 5] = [0, 1, 9, 10, u32::MAX];
        let text = BindingText { call_id: TEXTS[self.below(8)], ..row().text };
        let version = Version { time_ms: TIMES[self.below(4)], series: NUMBERS[self.below(3)], cseq: NUMBERS[self.below(5)] };
        SharedRow { text, version, node: TEXTS[self.below(8)], ..row() }
    }
}

#[test]
fn the_script_follows_the_rule_of_versions() {
    let redis = RedisServer::start();
    let mut wire = redis.wire();
    let name = load(&mut wire);
    let mut generator = Generator { key: Key::new(3, 4), turn: 0 };
    let (mut held, mut position, mut counts) = (None::<SharedRow>, 0, [0; 3]);
    for turn in 0..4000 {
        let new = match held {
            Some(held) if turn % 7 == 0 => held,
            _ => generator.row(),
        };
        let replies = tell(&mut wire, &name, &[new]);
        let said = answer(&replies[0]).unwrap();
        let expected = match &held {
            None => 0,
            Some(old) if old.claim() == new.claim() => 1,
            Some(old) if new.claim().wins_over(&old.claim()) => 0,
            Some(_) => 2,
        };
        counts[expected] += 1;
        match (expected, said) {
            (0, Answer::Has(at)) => {
                assert!(at > position, "{turn}");
                position = at;
                held = Some(new);
            }
            (1, Answer::Has(at)) => assert_eq!(at, position, "{turn}"),
            (2, Answer::Better(value)) => {
                let mut read = ReadRow::default();
                read.read(value).unwrap();
                assert_eq!(read.row(b"a@x").claim(), held.unwrap().claim(), "{turn}");
                assert_eq!(read.row(b"a@x").position, position);
            }
            other => panic!("{turn}: {other:?}, new {:?}, held {:?}", new.claim(), held.map(|row| row.claim())),
        }
        // What wins over everything stays for good.
        if turn % 5 == 4 {
            wire.call(&[b"DEL", &address_key(part_of(b"a@x"), b"a@x")]).unwrap();
            held = None;
        }
    }
    assert!(counts.iter().all(|count| *count > 40), "{counts:?}");
}

#[test]
fn each_accepted_change_follows_the_one_before_it() {
    let redis = RedisServer::start();
    let mut wire = redis.wire();
    let name = load(&mut wire);
    let part = part_of(b"a@x");
    let later = |time_ms| SharedRow { version: Version { time_ms, ..row().version }, ..row() };
    let replies = tell(&mut wire, &name, &[later(1), later(2), later(2), later(1)]);
    let positions: Vec<u64> = replies[..3]
        .iter()
        .map(|reply| match answer(reply) {
            Some(Answer::Has(position)) => position,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(positions[0] < positions[1] && positions[1] == positions[2]);
    assert!(matches!(answer(&replies[3]), Some(Answer::Better(_))));
    let entries = wire.call(&[b"XRANGE", &changes_key(part), b"-", b"+"]).unwrap();
    let words: Vec<Vec<&[u8]>> = entries
        .list()
        .unwrap()
        .iter()
        .map(|entry| entry.list().unwrap()[1].list().unwrap().iter().map(|word| word.text().unwrap()).collect())
        .collect();
    assert_eq!(words.len(), 2);
    assert_eq!(words[0][..4], [&b"aor"[..], b"a@x", b"field", b"sip:a@192.0.2.1"]);
    assert_eq!(words[0][6..], [&b"after"[..], b"0"]);
    assert_eq!(words[1][6..], [&b"after"[..], positions[0].to_string().as_bytes()]);
    let mut read = ReadRow::default();
    read.read(words[1][5]).unwrap();
    assert_eq!(read.row(b"a@x").position, positions[1]);
    let counter = wire.call(&[b"GET", &position_key(part)]).unwrap();
    assert_eq!(counter.number(), Some(positions[1]));
    // A counter that was lost does not begin again.
    wire.call(&[b"DEL", &position_key(part)]).unwrap();
    let replies = tell(&mut wire, &name, &[later(3)]);
    assert!(matches!(answer(&replies[0]), Some(Answer::Has(position)) if position > positions[1]));
}

#[test]
fn a_hash_lasts_as_long_as_its_last_lease_and_loses_what_is_over() {
    let redis = RedisServer::start();
    let mut wire = redis.wire();
    let name = load(&mut wire);
    let key = address_key(part_of(b"a@x"), b"a@x");
    let time = wire.call(&[b"TIME"]).unwrap().list().unwrap()[0].number().unwrap() * 1000;
    let lasting = |uri: &'static [u8], for_ms: i64| SharedRow {
        text: BindingText { uri, ..row().text },
        lease_ms: time.saturating_add_signed(for_ms),
        ..row()
    };
    tell(&mut wire, &name, &[lasting(b"sip:long@x", 600_000), lasting(b"sip:short@x", 1000)]);
    let mut over = Vec::new();
    form::write(&lasting(b"sip:over@x", -70_000), &mut over);
    wire.call(&[b"HSET", &key, b"sip:over@x", &over]).unwrap();
    let left = wire.call(&[b"PTTL", &key]).unwrap().number().unwrap();
    assert!((650_000..=660_000).contains(&left), "{left}");
    tell(&mut wire, &name, &[lasting(b"sip:new@x", 1000)]);
    let left = wire.call(&[b"PTTL", &key]).unwrap().number().unwrap();
    assert!((650_000..=660_000).contains(&left), "it never becomes less: {left}");
    let fields = wire.call(&[b"HKEYS", &key]).unwrap();
    let fields: Vec<&[u8]> = fields.list().unwrap().iter().map(|field| field.text().unwrap()).collect();
    let fields = BTreeSet::from_iter(fields);
    assert_eq!(fields, BTreeSet::from([&b"sip:long@x"[..], b"sip:short@x", b"sip:new@x"]));
}

#[test]
fn what_belongs_to_others_is_left_alone() {
    let redis = RedisServer::start();
    let mut wire = redis.wire();
    let name = load(&mut wire);
    let part = part_of(b"a@x");
    let neighbour = (0..).map(|n| format!("b{n}@x")).find(|aor| part_of(aor.as_bytes()) == part).unwrap();
    let neighbour = SharedRow { aor: neighbour.leak().as_bytes(), ..row() };
    let key = address_key(part, b"a@x");
    wire.call(&[b"SET", &key, b"mine"]).unwrap();
    let replies = tell(&mut wire, &name, &[row(), neighbour]);
    assert!(matches!(answer(&replies[0]), Some(Answer::Unfit(why)) if why.contains("WRONGTYPE")), "{replies:?}");
    assert!(matches!(answer(&replies[1]), Some(Answer::Has(_))), "the others go on");
    assert_eq!(wire.call(&[b"GET", &key]).unwrap().text(), Some(&b"mine"[..]));
    wire.call(&[b"DEL", &key]).unwrap();
    wire.call(&[b"HSET", &key, row().text.uri, b"mine"]).unwrap();
    let replies = tell(&mut wire, &name, &[row()]);
    assert_eq!(answer(&replies[0]), Some(Answer::Unfit("what is there cannot be read")));
    assert_eq!(wire.call(&[b"HGET", &key, row().text.uri]).unwrap().text(), Some(&b"mine"[..]));
    // A stream that is none: nothing is half done.
    wire.call(&[b"SET", &changes_key(part), b"mine"]).unwrap();
    let words = batches([row()].into_iter())[0].command(&name, 10);
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    let refused = wire.call(&words).unwrap_err().to_string();
    assert!(refused.contains("WRONGTYPE") && refused.contains("is no stream"), "{refused}");
}

#[test]
fn what_is_over_by_the_clock_of_redis_is_refused() {
    let redis = RedisServer::start();
    let mut wire = redis.wire();
    let name = load(&mut wire);
    let time = wire.call(&[b"TIME"]).unwrap().list().unwrap()[0].number().unwrap() * 1000;
    let late = SharedRow { lease_ms: time - 1000, ..row() };
    assert_eq!(answer(&tell(&mut wire, &name, &[late])[0]), Some(Answer::Over));
    assert_eq!(wire.call(&[b"DBSIZE"]).unwrap().number(), Some(0));
    assert!(matches!(answer(&tell(&mut wire, &name, &[SharedRow { lease_ms: time + 60_000, ..row() }])[0]), Some(Answer::Has(_))));
}

#[test]
fn a_counter_that_nobody_has_counted_to_is_begun_anew() {
    let redis = RedisServer::start();
    let mut wire = redis.wire();
    let name = load(&mut wire);
    let key = position_key(part_of(b"a@x"));
    let words = ["abc", "99999999999999999999999", "-1", "", "inf", "nan", "1e400", "9007199254740992", "18446744073709551615"];
    for (step, word) in (1..).zip(words) {
        wire.call(&[b"SET", &key, word.as_bytes()]).unwrap();
        let later = SharedRow { version: Version { time_ms: 1000 + step, ..row().version }, ..row() };
        let replies = tell(&mut wire, &name, &[later, later]);
        let said = [answer(&replies[0]), answer(&replies[1])];
        let [Some(Answer::Has(position)), Some(Answer::Has(same))] = said else {
            panic!("{word:?}: {replies:?}");
        };
        assert!(position == same && position < 1 << 53, "{word:?}: {position}");
        assert_eq!(wire.call(&[b"GET", &key]).unwrap().number(), Some(position));
    }
    wire.call(&[b"DEL", &key]).unwrap();
    wire.call(&[b"LPUSH", &key, b"1"]).unwrap();
    let words = batches([row()].into_iter())[0].command(&name, 10);
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    let refused = wire.call(&words).unwrap_err().to_string();
    assert!(refused.contains("WRONGTYPE") && refused.contains(":position is no string"), "{refused}");
}
