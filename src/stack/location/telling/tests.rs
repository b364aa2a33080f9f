//! What is told, taken in, read in full and forgotten, with the store as a list of rows.

use super::*;
use crate::base::{Flow, Instant, Key};
use crate::stack::location::{BindingText, Durability, Print, REMOVED_MS, Reached, Record, Row, TakenIn, Version};

/// The wall clock's time at instant 0.
const WALL: u64 = 1_800_000_000_000;

fn at(ms: u64) -> Instant {
    Instant::from_ms(ms)
}

fn node(name: &str) -> Location {
    let terms = SharingTerms { node: name.into(), wall_ms: WALL, run: WALL, is_acknowledged: true };
    Location::new(Key::new(1, 2), 1000).with_sharing(terms)
}

/// A REGISTER for `a@x` whose contact is reached by a flow.
struct Register {
    uri: &'static [u8],
    call_id: &'static [u8],
    cseq: u32,
    expires_s: u64,
}

const FIRST: Register = Register { uri: b"sip:a@192.0.2.1", call_id: b"c1", cseq: 1, expires_s: 60 };

fn flow() -> Flow {
    Flow::datagram(2, "192.0.2.1:5060".parse().unwrap())
}

impl Register {
    fn at(&self, location: &Location, now: u64) -> u64 {
        let change = |record: &mut Record, _: usize| {
            record.note_change(at(now), Print::default());
            let text = BindingText { uri: self.uri, call_id: self.call_id, ..BindingText::default() };
            let place = record.bindings.iter().position(|b| b.uri() == self.uri);
            let place = place.unwrap_or_else(|| {
                record.add(Binding::new(text, None));
                record.bindings.len() - 1
            });
            let binding = &mut record.bindings[place];
            binding.set_text(text, Some(&flow()));
            binding.cseq = self.cseq;
            binding.removed = self.expires_s == 0;
            binding.reached = Reached::ByFlow;
            binding.expires = at(now).after_ms((self.expires_s * 1000).max(u64::from(self.expires_s == 0) * REMOVED_MS));
        };
        let round = location.change(at(now), b"a@x", change).1;
        #[cfg(debug_assertions)]
        location.check();
        round
    }
}

/// Takes a round; `each` gets every version. Returns the versions in words: `c1/1@node expires+lease`.
fn tell(location: &Location, mut each: impl FnMut(&SharedRow)) -> Vec<String> {
    let shared = location.shared().unwrap();
    let mut round = shared.begin_telling();
    let mut untold = Untold::default();
    while let Some(shard) = round.next_shard() {
        shared.take_untold(shard, &mut untold, &mut |reached, flow, out| {
            assert_eq!((reached, flow.listener), (Reached::ByFlow, 2));
            out.extend_from_slice(b"token");
        });
    }
    let words = untold.iter().map(|row| {
        each(&row);
        in_words(&row)
    });
    let words = words.collect();
    shared.finish_telling(round.number);
    words
}

fn in_words(row: &SharedRow) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (expires, lease) = (row.expires_ms - WALL, row.lease_ms - WALL);
    let mut field = Vec::new();
    row.write_field(&mut field);
    let removed = if row.removed { " removed" } else { "" };
    let token = if row.relay.is_empty() { "" } else { " token" };
    let (version, call_id) = (row.version, text(row.text.call_id));
    let time = (version.time_ms).saturating_sub(WALL);
    let series = version.series;
    format!("{} {call_id}/{series}/{}@{} {time} {expires}..{lease}{token}{removed}", text(&field), version.cseq, text(row.node))
}

/// Tells all; the store accepts it, from this place on.
fn tell_well(location: &Location, mut position: u64) -> Vec<String> {
    tell(location, |row| {
        position += 1;
        assert!(location.shared().unwrap().told(row, position));
    })
}

/// Tells `to` all that there is to tell of `from`, as the stream does, from this place on.
fn pass_on(from: &Location, to: &Location, now: u64, mut position: u64) -> Vec<TakenIn> {
    let mut taken = Vec::new();
    tell(from, |row| {
        position += 1;
        assert!(from.shared().unwrap().told(row, position));
        taken.push(to.shared().unwrap().take_in(at(now), &SharedRow { position, ..*row }, true));
    });
    #[cfg(debug_assertions)]
    to.check();
    taken
}

fn uris(location: &Location, now: u64) -> Vec<String> {
    let mut found = Vec::new();
    location.lookup(at(now), b"a@x", |b| found.push(String::from_utf8_lossy(b.uri()).into_owned()));
    found
}

fn sweep(location: &Location, now: u64) {
    (0..SHARDS).for_each(|_| _ = location.sweep(at(now)));
    #[cfg(debug_assertions)]
    location.check();
}

#[test]
fn a_version_is_told_once_and_its_refreshes_are_covered() {
    let a = node("a");
    assert_eq!(FIRST.at(&a, 1000), 1, "the 200 waits for the store");
    assert_eq!(tell_well(&a, 0), ["sip:a@192.0.2.1 c1/0/1@a 1000 61000..421000 token"]);
    assert_eq!(a.progress().durable, 1);
    // Up to five lifetimes later.
    for (cseq, now) in [(2, 50_000), (3, 100_000), (4, 150_000), (5, 200_000), (6, 250_000), (7, 301_000)] {
        assert!(Register { cseq, ..FIRST }.at(&a, now) <= a.progress().durable);
        assert!(!a.shared().unwrap().has_untold(), "{cseq}");
    }
    Register { cseq: 8, ..FIRST }.at(&a, 301_005);
    assert_eq!(tell_well(&a, 1), ["sip:a@192.0.2.1 c1/0/8@a 301005 361005..721005 token"]);
    // What others must know: a longer life, another place, another Call-ID, a removal.
    let changes = [
        Register { cseq: 9, expires_s: 61, ..FIRST },
        Register { cseq: 9, call_id: b"c2", expires_s: 30, ..FIRST },
        Register { cseq: 10, call_id: b"c2", expires_s: 0, ..FIRST },
    ];
    for change in changes {
        change.at(&a, 301_006);
        assert_eq!(tell_well(&a, 5).len(), 1, "{}", change.cseq);
    }
}

#[test]
fn a_refresh_is_told_if_what_it_refreshes_is_not_told_yet() {
    let a = node("a");
    FIRST.at(&a, 1000);
    let mut first = None;
    let told = |row: &SharedRow| a.shared().unwrap().told(row, 1);
    tell(&a, |row| first = Some(row.version));
    Register { cseq: 2, ..FIRST }.at(&a, 1000);
    let text = BindingText { uri: FIRST.uri, call_id: b"c1", ..BindingText::default() };
    let mut again = Vec::new();
    let words = tell(&a, |row| again.push(row.version));
    assert_eq!(words, ["sip:a@192.0.2.1 c1/0/2@a 1002 61000..421000 token"], "it is later than what it replaces");
    let row = SharedRow { text, version: first.unwrap(), ..row_of(b"c1", Version::default()) };
    assert!(!told(&row), "that is not what there is any more");
    assert!(told(&SharedRow { version: again[0], ..row }));
    assert_eq!(tell(&a, |_| ()), [""; 0]);
}

fn row_of(call_id: &'static [u8], version: Version) -> SharedRow<'static> {
    SharedRow {
        aor: b"a@x",
        text: BindingText { uri: FIRST.uri, call_id, ..BindingText::default() },
        version,
        node: b"a",
        relay: b"",
        peer: None,
        flow: None,
        expires_ms: WALL + 61_000,
        lease_ms: WALL + 421_000,
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

#[test]
fn what_is_removed_replaced_or_expired_is_told_and_remembered_for_as_long_as_a_copy_may_live() {
    let a = node("a");
    FIRST.at(&a, 0);
    tell_well(&a, 0);
    Register { cseq: 2, expires_s: 0, ..FIRST }.at(&a, 1000);
    assert_eq!(tell_well(&a, 1), ["sip:a@192.0.2.1 c1/0/2@a 1000 33000..420000 removed"]);
    sweep(&a, 419_999);
    assert_eq!(a.bindings(), 1);
    sweep(&a, 420_000);
    assert_eq!(a.bindings(), 0);
    // An operator takes it away, or puts another there.
    FIRST.at(&a, 500_000);
    tell_well(&a, 2);
    assert_eq!(a.remove(at(500_500), b"a@x", None), 1);
    assert_eq!(tell_well(&a, 3), ["sip:a@192.0.2.1 c1/0/1@a 500500 532500..920000 removed"]);
    a.add(at(500_600), b"a@x", FIRST.uri, 10).unwrap();
    assert_eq!(tell_well(&a, 4), ["sip:a@192.0.2.1 operator/0/0@a 500600 510600..920000"]);
    // It expires here; no refresh that another node has answered meanwhile is older than that.
    sweep(&a, 510_600);
    assert_eq!(uris(&a, 510_600), [""; 0]);
    assert_eq!(tell_well(&a, 5), ["sip:a@192.0.2.1 operator/0/0@a 500601 510600..920000 removed"]);
}

#[test]
fn a_phone_that_begins_again_with_a_lower_cseq_wins_in_a_new_series() {
    let a = node("a");
    Register { cseq: 70, ..FIRST }.at(&a, 0);
    tell_well(&a, 0);
    Register { cseq: 1, ..FIRST }.at(&a, 60_000);
    assert_eq!(tell_well(&a, 1), ["sip:a@192.0.2.1 c1/1/1@a 60000 120000..480000 token"]);
    Register { cseq: 2, expires_s: 0, ..FIRST }.at(&a, 60_001);
    tell_well(&a, 2);
    Register { cseq: 1, ..FIRST }.at(&a, 100_000);
    assert_eq!(tell_well(&a, 3), ["sip:a@192.0.2.1 c1/2/1@a 100000 160000..520000 token"]);
}

#[test]
fn the_others_hold_it_until_the_lease_and_know_who_reaches_it() {
    let (a, b) = (node("a"), node("b"));
    FIRST.at(&a, 0);
    assert_eq!(pass_on(&a, &b, 1, 0), [TakenIn::Added]);
    assert_eq!(uris(&b, 419_999), ["sip:a@192.0.2.1"]);
    assert_eq!(uris(&a, 60_000), [""; 0], "it expired at home");
    let mut relay = None;
    b.lookup(at(1), b"a@x", |binding| {
        assert!(binding.is_elsewhere());
        assert_eq!(binding.source().map(|flow| flow.peer), Some(flow().peer));
        relay = binding.relay().map(|(node, token)| (node, token.to_vec()));
    });
    let (number, token) = relay.unwrap();
    assert_eq!((&*b.node(number).unwrap().name, &*token), (&b"a"[..], &b"token"[..]));
    // Its own comes back.
    let mut row = row_of(b"c1", Version { time_ms: WALL, series: 0, cseq: 1 });
    row.position = 1;
    assert_eq!(a.shared().unwrap().take_in(at(2), &row, true), TakenIn::Same);
    sweep(&a, 60_000);
    assert_eq!(pass_on(&a, &b, 60_000, 1), [TakenIn::Removed]);
    assert_eq!(uris(&b, 60_000), [""; 0]);
    // It moves.
    Register { cseq: 9, ..FIRST }.at(&b, 61_000);
    assert_eq!(pass_on(&b, &a, 61_000, 2), [TakenIn::Replaced]);
    assert_eq!((uris(&a, 61_000), uris(&b, 61_000)), (vec!["sip:a@192.0.2.1".to_owned()], vec!["sip:a@192.0.2.1".to_owned()]));
    a.lookup(at(61_000), b"a@x", |binding| assert!(binding.is_elsewhere()));
    b.lookup(at(61_000), b"a@x", |binding| assert!(!binding.is_elsewhere() && binding.source() == Some(flow())));
}

#[test]
fn of_an_accepted_change_and_ours_the_store_decides_what_it_knows() {
    let a = node("a");
    let shared = a.shared().unwrap();
    let other = |time: u64, cseq, position| SharedRow {
        node: b"b",
        position,
        ..row_of(b"c1", Version { time_ms: WALL + time, series: 0, cseq })
    };
    Register { cseq: 5, ..FIRST }.at(&a, 1000);
    assert_eq!(shared.take_in(at(1001), &other(900, 4, 1), true), TakenIn::Kept, "ours is not told yet and wins");
    tell_well(&a, 7);
    assert_eq!(shared.take_in(at(1002), &other(900, 4, 8), true), TakenIn::Kept, "that was before ours");
    assert_eq!(shared.take_in(at(1002), &other(900, 4, 9), true), TakenIn::Replaced, "whatever we think");
    Register { cseq: 6, ..FIRST }.at(&a, 2000);
    assert_eq!(shared.take_in(at(2001), &other(2000, 7, 10), true), TakenIn::Replaced, "the store would not accept ours");
    assert_eq!(tell(&a, |_| ()), [""; 0]);
    // The store answers with what it has.
    Register { cseq: 8, ..FIRST }.at(&a, 3000);
    tell(&a, |_| ());
    assert_eq!(shared.take_in(at(3001), &other(3000, 9, 11), false), TakenIn::Replaced);
    // A full reading shows an older version than the store was told: it has lost that.
    assert_eq!(shared.take_in(at(3002), &other(2500, 8, 1), false), TakenIn::Kept);
    assert_eq!(tell(&a, |_| ()).len(), 1);
    let full = Location::new(Key::new(1, 2), 0).with_sharing(SharingTerms {
        node: b"f".to_vec(),
        wall_ms: WALL,
        run: WALL,
        is_acknowledged: false,
    });
    assert_eq!(full.shared().unwrap().take_in(at(0), &other(1, 1, 1), true), TakenIn::Full);
    assert_eq!(a.shared().unwrap().take_in(at(421_000), &SharedRow { aor: b"b@x", ..other(1, 1, 1) }, true), TakenIn::Expired);
}

#[test]
fn a_refresh_that_nobody_was_told_of_counts_when_a_change_is_weighed() {
    let a = node("a");
    let shared = a.shared().unwrap();
    FIRST.at(&a, 0);
    tell_well(&a, 0);
    Register { cseq: 5, ..FIRST }.at(&a, 30_000);
    assert!(!shared.has_untold());
    let other = |time: u64, cseq, position| SharedRow {
        node: b"b",
        position,
        removed: true,
        ..row_of(b"c1", Version { time_ms: WALL + time, series: 0, cseq })
    };
    // A REGISTER that the phone sent before.
    assert_eq!(shared.take_in(at(30_001), &other(40_000, 4, 2), true), TakenIn::Kept);
    assert_eq!(tell_well(&a, 2), ["sip:a@192.0.2.1 c1/0/5@a 30000 90000..450000 token"], "the store must know now");
    Register { cseq: 6, ..FIRST }.at(&a, 50_000);
    assert!(!shared.has_untold());
    // An operator's removal bears the number that was told: what came later counts.
    assert_eq!(shared.take_in(at(50_001), &other(49_000, 5, 4), true), TakenIn::Kept);
    tell_well(&a, 4);
    Register { cseq: 7, ..FIRST }.at(&a, 60_000);
    assert_eq!(shared.take_in(at(60_001), &other(61_000, 6, 6), true), TakenIn::Removed);
    assert_eq!(tell(&a, |_| ()), [""; 0]);
}

#[test]
fn two_spellings_of_one_contact_are_one_binding() {
    let a = node("a");
    FIRST.at(&a, 0);
    tell_well(&a, 0);
    let respell = |now: u64, from: &'static [u8], to: &'static [u8], cseq| {
        a.change(at(now), b"a@x", |record, _| {
            record.note_change(at(now), Print::default());
            let binding = record.bindings.iter_mut().find(|b| b.uri() == from && !b.removed).unwrap();
            binding.set_text(BindingText { uri: to, call_id: b"c1", ..BindingText::default() }, None);
            (binding.cseq, binding.expires) = (cseq, at(now).after_ms(60_000));
        });
        #[cfg(debug_assertions)]
        a.check();
    };
    let (first, second) = ("sip:a@192.0.2.1", "sip:a@192.0.2.1;x");
    respell(1000, b"sip:a@192.0.2.1", b"sip:a@192.0.2.1;x", 2);
    let told = tell_well(&a, 1);
    assert_eq!(told, [format!("{second} c1/0/2@a 1000 61000..421000"), format!("{first} c1/0/1@a 1000 33000..420000 removed"),]);
    respell(2000, b"sip:a@192.0.2.1;x", b"sip:a@192.0.2.1", 3);
    assert_eq!(uris(&a, 2000), [first]);
    assert_eq!(
        tell_well(&a, 3),
        [format!("{first} c1/0/3@a 2000 62000..422000"), format!("{second} c1/0/2@a 2000 34000..421000 removed"),]
    );
}

#[test]
fn what_a_full_reading_does_not_show_is_told_again() {
    let (a, b) = (node("a"), node("b"));
    FIRST.at(&a, 0);
    pass_on(&a, &b, 0, 0);
    Register { uri: b"sip:b@192.0.2.2", ..FIRST }.at(&b, 0);
    pass_on(&b, &a, 0, 1);
    Register { cseq: 2, uri: b"sip:b@192.0.2.2", expires_s: 0, ..FIRST }.at(&b, 1);
    pass_on(&b, &a, 1, 2);
    // A refresh that was not told.
    Register { cseq: 3, ..FIRST }.at(&a, 30_000);
    for location in [&a, &b] {
        let shared = location.shared().unwrap();
        shared.begin_reading();
        assert_eq!(shared.end_reading(at(31_000)), 2);
    }
    let removed = "sip:b@192.0.2.2 c1/0/2@b 2 32001..420000 removed";
    assert_eq!(tell(&a, |_| ()), ["sip:a@192.0.2.1 c1/0/3@a 30000 90000..450000 token", removed]);
    assert_eq!(tell_well(&b, 9), ["sip:a@192.0.2.1 c1/0/1@a 0 60000..420000 token", removed]);
    // What was taken and got no answer is told again too, and what is shown is not.
    let shared = a.shared().unwrap();
    shared.begin_reading();
    let shown = SharedRow { relay: b"token", ..row_of(b"c1", Version { time_ms: WALL, series: 0, cseq: 1 }) };
    assert_eq!(shared.take_in(at(31_001), &shown, false), TakenIn::Kept);
    assert_eq!(shared.end_reading(at(31_001)), 2);
    assert_eq!(tell_well(&a, 20).len(), 2);
    shared.begin_reading();
    let shown = SharedRow { version: Version { cseq: 3, time_ms: WALL + 30_000, ..shown.version }, ..shown };
    assert_eq!(shared.take_in(at(31_002), &shown, false), TakenIn::Same);
    assert_eq!(shared.end_reading(at(31_002)), 1);
}

#[test]
fn what_a_gone_node_answered_for_is_held_no_longer_than_it_may_have_lasted_there() {
    let (a, b) = (node("a"), node("b"));
    FIRST.at(&a, 0);
    pass_on(&a, &b, 0, 0);
    let shared = b.shared().unwrap();
    shared.node_gone(b"a", at(100_000));
    assert_eq!((uris(&b, 159_999).len(), uris(&b, 160_000).len()), (1, 0));
    shared.node_gone(b"a", at(200_000));
    assert_eq!(uris(&b, 160_000).len(), 0, "it was gone already");
    sweep(&b, 160_000);
    shared.node_seen(b"a", None, None);
    assert_eq!(uris(&b, 419_999).len(), 1, "it lives, and so does what it answers for");
    // What comes while it is gone.
    shared.node_gone(b"a", at(170_000));
    let row = SharedRow { aor: b"b@x", position: 9, ..row_of(b"c1", Version::default()) };
    assert_eq!(shared.take_in(at(170_000), &row, true), TakenIn::Added);
    let mut expires = 0;
    b.lookup(at(170_000), b"b@x", |binding| expires = binding.expires.as_ms());
    assert_eq!(expires, 230_000);
    // Its home was restarted and has forgotten it: it holds it for a lifetime, and then says that it is over.
    let home = node("a");
    let own = SharedRow { flow: Some(flow()), ..row };
    assert_eq!(home.shared().unwrap().take_in(at(200_000), &own, false), TakenIn::Added);
    home.lookup(at(200_000), b"b@x", |binding| {
        assert_eq!((binding.expires.as_ms(), binding.source(), binding.is_elsewhere()), (260_000, Some(flow()), false));
    });
    sweep(&home, 260_000);
    assert_eq!(tell(&home, |_| ()), ["sip:a@192.0.2.1 c1/0/0@a 0 260000..421000 removed"]);
}

#[test]
fn only_what_a_node_answered_for_is_on_its_disk() {
    let terms = SharingTerms { node: b"a".to_vec(), wall_ms: WALL, run: WALL, is_acknowledged: false };
    let a = Location::new(Key::new(1, 2), 1000).with_sharing(terms).with_journal(Durability::Acknowledged);
    assert_eq!(FIRST.at(&a, 0), 0, "the store counts, and that is not waited for");
    let disk = || {
        let mut round = a.begin_round(false);
        let mut taken = crate::stack::location::journal::Taken::default();
        while let Some(shard) = round.next_shard() {
            a.take_changed(shard, false, &mut taken);
        }
        let count = |view: crate::stack::location::journal::TakenView| (view.rows().len(), view.rows_before);
        taken.iter().map(count).collect::<Vec<_>>()
    };
    assert_eq!(disk(), [(1, 0)]);
    tell_well(&a, 0);
    let moved = SharedRow { node: b"b", position: 2, ..row_of(b"c1", Version { time_ms: WALL, series: 0, cseq: 2 }) };
    assert_eq!(a.shared().unwrap().take_in(at(1), &moved, true), TakenIn::Replaced);
    assert_eq!(disk(), [(0, 1)]);
    // What the disk brings back is older than any version with its CSeq, and told.
    let text = BindingText { uri: FIRST.uri, call_id: b"c1", ..BindingText::default() };
    let row =
        Row { text, source: None, expires: at(50_000), reg_id: 0, cseq: 1, q: 1000, removed: false, reached: Reached::ByContact };
    let again = node("a");
    assert!(again.restore(b"a@x", &[row], 1, true));
    #[cfg(debug_assertions)]
    again.check();
    let words = tell(&again, |row| assert_eq!(row.version, Version { time_ms: 0, series: 0, cseq: 1 }));
    assert_eq!(words, ["sip:a@192.0.2.1 c1/0/1@a 0 50000..350000"]);
    let stored = row_of(b"c1", Version { time_ms: 1, series: 0, cseq: 1 });
    assert_eq!(again.shared().unwrap().take_in(at(1), &stored, false), TakenIn::Replaced);
}

#[test]
fn shares_of_sources_are_charged_with_what_came_here_alone() {
    let (a, b) = (node("a"), node("b"));
    FIRST.at(&b, 0);
    let holder = a.holder("192.0.2.1".parse().unwrap());
    a.change(at(0), b"a@x", |record, _| {
        record.holder = holder;
        record.note_change(at(0), Print::default());
        let mut binding = Binding::new(BindingText { uri: b"sip:other", call_id: b"c", ..BindingText::default() }, None);
        binding.expires = at(60_000);
        record.add(binding);
    });
    pass_on(&b, &a, 0, 0);
    assert_eq!((a.bindings(), a.shares.held(holder)), (2, 1));
    assert_eq!(a.remove(at(1), b"a@x", None), 2);
    sweep(&a, 420_000);
    assert_eq!((a.bindings(), a.shares.held(holder)), (0, 0));
}

/// It is held for the lease, but nobody is told that its phone was granted so much.
#[test]
fn no_more_is_said_than_what_the_phone_was_granted() {
    let (home, other) = (node("home"), node("other"));
    FIRST.at(&home, 0);
    pass_on(&home, &other, 0, 1);
    let said = |location: &Location, now: u64| {
        let mut said = Vec::new();
        location.show(at(now), Some(b"a@x"), &mut |_, view| said.push(view.expires.ms_since(at(now))));
        said
    };
    assert_eq!(said(&home, 20_000), [40_000]);
    assert_eq!(said(&other, 20_000), [40_000]);
    // It may have been refreshed at home since.
    assert_eq!(said(&other, 70_000), [60_000]);
    // At the end of the lease it is gone in any case.
    assert_eq!(said(&other, 410_000), [10_000]);
    assert!(said(&other, 420_000).is_empty());
}

/// What was refused for its times is told again when the store's clock is known.
#[test]
fn what_the_store_has_not_taken_is_listed_again_with_the_times_of_its_clock() {
    let home = node("home");
    FIRST.at(&home, 0);
    assert_eq!(tell(&home, |row| assert_eq!(row.lease_ms, WALL + 420_000)).len(), 1);
    let shared = home.shared().unwrap();
    assert!(!shared.has_untold());
    shared.set_wall_ms(WALL + 600_000);
    shared.list_untold();
    assert_eq!(tell(&home, |row| assert_eq!(row.lease_ms, WALL + 1_020_000)).len(), 1);
}

/// That changes were told is one thing, that the store can be followed another.
#[test]
fn a_round_that_is_told_does_not_end_a_trouble() {
    let home = node("home");
    home.shared().unwrap().set_failing(true);
    FIRST.at(&home, 0);
    tell_well(&home, 1);
    assert!(home.refuses_changes());
    home.shared().unwrap().set_failing(false);
    assert!(!home.refuses_changes());
}
