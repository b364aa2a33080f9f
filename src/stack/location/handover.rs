//! The table on its way into the process that takes over from this one: all of it while this one serves, then what has changed since.
//!
//! Both processes have the same secret and the same clock, so what was made with them is handed over as it is: the names of records,
//! the places of URIs, the shares, the moments. Flows are not: the other process has other listeners, and takes our connections for
//! those of further cores. `translate` does that.
//!
//! The journals need no word of it. Before the last part is taken, everything is on disk, and each record says how many rows it has
//! there.

use super::binding::{Binding, BindingText, Reached};
use super::record::{Counted, Record};
use super::shared_note::{NodeNumber, SharedNote};
use super::version::Version;
use super::{Location, Node};
use crate::base::pack::{Pack, Unpack};
use crate::base::{Flow, Instant};
use std::sync::atomic::Ordering;

/// What follows the name of a record.
const GONE: u8 = 0;
const RECORD: u8 = 1;

/// The most bindings and REGISTERs that one record can have: what says more is not from us.
const MOST: usize = 1 << 16;

/// How the process that takes over reads what it gets.
pub struct Reading<'a> {
    /// Returns a flow of the predecessor's as the successor names it; `None` if it leads nowhere any more.
    pub translate: &'a dyn Fn(Flow) -> Option<Flow>,
    /// The successor's numbers of the nodes that the predecessor knows, by its own numbers.
    pub nodes: Vec<NodeNumber>,
}

/// What was taken over so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TakenOver {
    pub records: usize,
    /// Records for which `[limits] bindings` leaves no room.
    pub no_room: usize,
}

impl Location {
    /// Notes what changes from now on. To be called before the first shard is handed over.
    pub fn begin_handover(&self) {
        self.is_handed_over.store(true, Ordering::SeqCst);
    }

    /// Notes nothing any more, and forgets what was noted.
    pub fn end_handover(&self) {
        self.is_handed_over.store(false, Ordering::SeqCst);
        for number in 0..super::SHARDS {
            self.lock(number).lists.touched = Vec::new();
        }
    }

    /// Writes what a shard holds, or what has changed in it since it was last written, if `all` is false.
    pub fn hand_over(&self, number: usize, all: bool, out: &mut Vec<u8>) {
        let mut guard = self.lock(number);
        let mut touched = std::mem::take(&mut guard.lists.touched);
        if all {
            for (name, record) in &guard.records {
                write_entry(number, *name, Some(record), out);
            }
            return;
        }
        touched.sort_unstable();
        touched.dedup();
        for name in touched {
            write_entry(number, name, guard.records.get(&name).map(|record| &**record), out);
        }
    }

    /// Empties the table: another process has it, and this one needs it no more.
    pub fn clear(&self) {
        self.end_handover();
        for number in 0..super::SHARDS {
            let mut guard = self.lock(number);
            let shard = std::mem::take(&mut *guard);
            for record in shard.records.values() {
                self.account(record.counted(), Counted::default());
            }
            drop(guard);
        }
    }

    /// Writes the nodes that share the table, which bindings name by number.
    pub fn hand_over_nodes(&self, out: &mut Vec<u8>) {
        let nodes = self.shared().map(|shared| shared.nodes()).unwrap_or_default();
        out.put_u16(nodes.len() as u16);
        for node in nodes {
            out.put_bytes(&node.name);
            out.put_bytes(node.relay.map(|relay| relay.to_string()).unwrap_or_default().as_bytes());
            out.put_u64(node.cookie_run.map_or(u64::MAX, u64::from));
            out.put_u64(node.gone.map_or(u64::MAX, Instant::as_ms));
        }
    }

    /// Returns this server's numbers of those nodes; none if it does not share its table. `None`: that is not what was written.
    pub fn take_over_nodes(&self, bytes: &[u8]) -> Option<Vec<NodeNumber>> {
        let mut from = Unpack::new(bytes);
        let count = usize::from(from.u16()?);
        let mut numbers = Vec::with_capacity(count);
        for number in 0..count {
            let name = from.bytes()?.into();
            let relay = std::str::from_utf8(from.bytes()?).ok()?.parse().ok();
            let cookie_run = u32::try_from(from.u64()?).ok();
            let gone = Some(from.u64()?).filter(|ms| *ms != u64::MAX).map(Instant::from_ms);
            let Some(sharing) = &self.sharing else {
                continue;
            };
            let node = Node { name, relay, cookie_run, gone };
            let known = match number {
                0 => NodeNumber::OWN,
                _ => sharing.number_of(&node.name)?.0,
            };
            if known != NodeNumber::OWN {
                sharing.set_node(known, |before| *before = node);
            }
            numbers.push(known);
        }
        from.is_empty().then_some(numbers)
    }

    /// Takes in what [`Location::hand_over`] has written; a record replaces what was taken of it before. `None`: that is not what was
    /// written, and what came before it is taken.
    pub fn take_over(&self, bytes: &[u8], reading: &Reading, taken: &mut TakenOver) -> Option<()> {
        let mut from = Unpack::new(bytes);
        while !from.is_empty() {
            let number = usize::from(from.u16()?);
            let name = from.u64()?;
            let record = match from.u8()? {
                GONE => None,
                RECORD => Some(self.read_record(&mut from, reading)?),
                _ => return None,
            };
            if number >= super::SHARDS || record.as_ref().is_some_and(|record| self.name(&record.address) != (number, name)) {
                return None;
            }
            self.put_record(number, name, record, taken);
        }
        Some(())
    }

    fn put_record(&self, number: usize, name: u64, record: Option<Box<Record>>, taken: &mut TakenOver) {
        let mut guard = self.lock(number);
        let shard = &mut *guard;
        if let Some(before) = shard.records.remove(&name) {
            self.account(before.counted(), Counted::default());
            for listed in [&mut shard.lists.changed, &mut shard.lists.news] {
                listed.retain(|listed| *listed != name);
            }
        }
        let Some(mut record) = record else {
            return;
        };
        taken.records += 1;
        if record.weight() > self.room() {
            taken.no_room += 1;
            return;
        }
        let has_news = record.bindings.iter().any(Binding::is_untold);
        record.is_changed = false;
        self.note(number, name, &mut record, &mut shard.lists, has_news);
        self.account(Counted::default(), record.counted());
        shard.records.insert(name, record);
    }

    fn read_record(&self, from: &mut Unpack, reading: &Reading) -> Option<Box<Record>> {
        let mut record = Box::<Record>::default();
        record.address = from.bytes()?.into();
        record.rows = from.u32()?;
        record.take_over_changes(from)?;
        let count = usize::from(from.u16()?);
        record.bindings.reserve_exact(count.min(MOST));
        for _ in 0..count {
            if let Some(binding) = self.read_binding(from, reading)? {
                record.bindings.push(binding);
            }
        }
        let holder = from.u16()?;
        record.holder = crate::base::ShareHolder::of_number(holder);
        if let Some(sharing) = &self.sharing
            && record.bindings.iter().any(|binding| binding.shared.is_none())
        {
            sharing.adopt(&mut record);
        }
        Some(record)
    }

    /// The inner `None`: it was of use only where it comes from.
    fn read_binding(&self, from: &mut Unpack, reading: &Reading) -> Option<Option<Binding>> {
        let text = BindingText { uri: from.bytes()?, call_id: from.bytes()?, path: from.bytes()?, instance: from.bytes()? };
        if !text.fits() {
            return None;
        }
        let source = match from.u8()? {
            0 => None,
            _ => Some(Flow::unpack(from)?),
        };
        let expires = Instant::from_ms(from.u64()?);
        let (reg_id, cseq, place, q) = (from.u32()?, from.u32()?, from.u32()?, from.u16()?);
        let flags = from.u8()?;
        let reached = [Reached::ByContact, Reached::ByFlowFirst, Reached::ByFlow].get(usize::from(from.u8()?)).copied()?;
        let note = match from.u8()? {
            0 => None,
            _ => Some(read_note(from, reading)?),
        };
        let is_elsewhere = match (&self.sharing, &note) {
            // The node is not known: its binding comes again with the next full reading.
            (Some(_), Some(None)) => return Some(None),
            (None, Some(None)) => return Some(None),
            (_, Some(Some(note))) => note.node != NodeNumber::OWN,
            (_, None) => false,
        };
        let source = match is_elsewhere {
            // Where it was for its own node.
            true => source,
            false => source.and_then(reading.translate),
        };
        let mut binding = Binding::new(text, source.as_ref());
        binding.shared = note.flatten().filter(|_| self.sharing.is_some()).map(Box::new);
        (binding.expires, binding.reg_id, binding.cseq, binding.place, binding.q) = (expires, reg_id, cseq, place, q.min(1000));
        (binding.removed, binding.leads_back, binding.is_unsure) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
        binding.reached = reached;
        Some(Some(binding))
    }
}

fn write_entry(number: usize, name: u64, record: Option<&Record>, out: &mut Vec<u8>) {
    out.put_u16(number as u16);
    out.put_u64(name);
    let Some(record) = record else {
        return out.put_u8(GONE);
    };
    out.put_u8(RECORD);
    out.put_bytes(&record.address);
    out.put_u32(record.rows);
    record.hand_over_changes(out);
    out.put_u16(record.bindings.len() as u16);
    record.bindings.iter().for_each(|binding| write_binding(binding, out));
    out.put_u16(record.holder.number());
}

fn write_binding(binding: &Binding, out: &mut Vec<u8>) {
    let text = binding.text();
    for part in [text.uri, text.call_id, text.path, text.instance] {
        out.put_bytes(part);
    }
    match binding.source() {
        None => out.put_u8(0),
        Some(flow) => {
            out.put_u8(1);
            flow.pack(out);
        }
    }
    out.put_u64(binding.expires.as_ms());
    out.put_u32(binding.reg_id);
    out.put_u32(binding.cseq);
    out.put_u32(binding.place);
    out.put_u16(binding.q);
    out.put_u8(u8::from(binding.removed) | u8::from(binding.leads_back) << 1 | u8::from(binding.is_unsure) << 2);
    out.put_u8(match binding.reached {
        Reached::ByContact => 0,
        Reached::ByFlowFirst => 1,
        Reached::ByFlow => 2,
    });
    match &binding.shared {
        None => out.put_u8(0),
        Some(note) => {
            out.put_u8(1);
            write_note(note, out);
        }
    }
}

fn write_note(note: &SharedNote, out: &mut Vec<u8>) {
    out.put_u64(note.version.time_ms);
    out.put_u32(note.version.series);
    out.put_u32(note.version.cseq);
    out.put_u64(note.lease.as_ms());
    out.put_u64(note.told_expires.as_ms());
    out.put_u64(note.refreshed_ms);
    out.put_u64(note.position);
    out.put_bytes(&note.relay);
    out.put_u32(note.lifetime_s);
    out.put_u16(note.node.0);
    out.put_u8(u8::from(note.is_untold));
}

/// The inner `None`: its node has no number here.
fn read_note(from: &mut Unpack, reading: &Reading) -> Option<Option<SharedNote>> {
    let version = Version { time_ms: from.u64()?, series: from.u32()?, cseq: from.u32()? };
    let (lease, told_expires) = (Instant::from_ms(from.u64()?), Instant::from_ms(from.u64()?));
    let (refreshed_ms, position) = (from.u64()?, from.u64()?);
    let relay = from.bytes()?.into();
    let lifetime_s = from.u32()?;
    let node = match from.u16()? {
        0 => Some(NodeNumber::OWN),
        other => reading.nodes.get(usize::from(other)).copied(),
    };
    let is_untold = from.u8()? != 0;
    // The successor has read nothing yet.
    let note =
        |node| SharedNote { version, lease, told_expires, refreshed_ms, position, relay, lifetime_s, seen: 0, node, is_untold };
    Some(node.map(note))
}

#[cfg(test)]
mod tests {
    use super::super::{Print, Recalled, SHARDS, SharingTerms};
    use super::*;
    use crate::base::{Channel, Key, Transport};
    use crate::settings::Durability;

    const CORES: u8 = 2;

    fn at(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    fn location() -> Location {
        Location::new(Key::new(1, 2), 1000).with_journal(Durability::Batched)
    }

    fn shared(name: &str) -> Location {
        location().with_sharing(SharingTerms { node: name.into(), wall_ms: 1 << 40, run: 1 << 40, is_acknowledged: false })
    }

    fn translate(flow: Flow) -> Option<Flow> {
        (flow.listener != 9).then_some(Flow { core: flow.core + CORES, ..flow })
    }

    /// Hands over everything, or what has changed; returns what was taken.
    fn hand_over(from: &Location, to: &Location, all: bool) -> TakenOver {
        let (mut bytes, mut taken) = (Vec::new(), TakenOver::default());
        from.hand_over_nodes(&mut bytes);
        let nodes = to.take_over_nodes(&bytes).unwrap();
        for number in 0..SHARDS {
            bytes.clear();
            from.hand_over(number, all, &mut bytes);
            let reading = Reading { translate: &translate, nodes: nodes.clone() };
            to.take_over(&bytes, &reading, &mut taken).unwrap();
            // What is cut off is refused, or is less.
            for short in 1..bytes.len() {
                let reading = Reading { translate: &translate, nodes: nodes.clone() };
                let mut some = TakenOver::default();
                let cut = location().take_over(&bytes[..short], &reading, &mut some);
                assert!(cut.is_none() || some.records < taken.records || !all);
            }
        }
        #[cfg(debug_assertions)]
        to.check();
        taken
    }

    fn register(location: &Location, aor: &[u8], uri: &'static [u8], flow: Option<Flow>, cseq: u32) {
        location.change(at(5), aor, |record, _| {
            let text = BindingText { uri, call_id: b"call", path: b"<sip:p;lr>", instance: b"\"<urn:x>\"" };
            record.bindings.retain(|binding| binding.uri() != uri);
            let mut binding = Binding::new(text, flow.as_ref());
            (binding.expires, binding.cseq, binding.reg_id, binding.q) = (at(60_000), cseq, 7, 500);
            (binding.reached, binding.is_unsure, binding.place) = (Reached::ByFlow, true, 99);
            record.add(binding);
            record.note_change(at(5), Print { order: cseq, contents: 1, transaction: 1 });
        });
    }

    fn connection(listener: u16) -> Flow {
        let channel = Channel::Connection { slot: 3, generation: 4 };
        Flow { transport: Transport::Tls, core: 1, channel, ..Flow::datagram(listener, "192.0.2.9:40123".parse().unwrap()) }
    }

    #[test]
    fn a_record_arrives_whole_and_its_flow_is_that_of_the_other_process() {
        let (old, new) = (location(), location());
        register(&old, b"a@x", b"sip:a@10.0.0.1", Some(connection(1)), 42);
        register(&old, b"a@x", b"sip:a@10.0.0.2", Some(connection(9)), 43);
        old.begin_handover();
        assert_eq!(hand_over(&old, &new, true), TakenOver { records: 1, no_room: 0 });
        assert_eq!((new.bindings(), new.bytes()), (old.bindings(), old.bytes()));
        let mut seen = Vec::new();
        new.lookup(at(6), b"a@x", |binding| {
            let text = binding.text();
            assert_eq!((text.call_id, text.path, text.instance), (&b"call"[..], &b"<sip:p;lr>"[..], &b"\"<urn:x>\""[..]));
            assert_eq!((binding.expires, binding.reg_id, binding.q, binding.place), (at(60_000), 7, 500, 99));
            assert_eq!((binding.reached, binding.is_unsure, binding.leads_back), (Reached::ByFlow, true, false));
            seen.push((binding.cseq, binding.source()));
        });
        let expected = Flow { core: 1 + CORES, ..connection(1) };
        assert_eq!(seen, [(42, Some(expected)), (43, None)], "its listener is no more");
        // A REGISTER that was carried out there is a repetition here.
        for (order, recalled) in [(42, Recalled::Repeated), (43, Recalled::Repeated), (44, Recalled::New)] {
            let found = new.change(at(6), b"a@x", |record, _| record.recall(at(6), Print { order, contents: 1, transaction: 1 }));
            assert_eq!(found.0, recalled, "{order}");
        }
    }

    #[test]
    fn what_changes_meanwhile_is_handed_over_and_nothing_else() {
        let (old, new) = (location(), location());
        for aor in [&b"a@x"[..], b"b@x", b"c@x"] {
            register(&old, aor, b"sip:a@10.0.0.1", None, 1);
        }
        old.begin_handover();
        hand_over(&old, &new, true);
        assert_eq!(hand_over(&old, &new, false), TakenOver::default());
        register(&old, b"a@x", b"sip:a@10.0.0.1", None, 2);
        register(&old, b"a@x", b"sip:a@10.0.0.2", None, 3);
        assert_eq!(old.remove(at(6), b"b@x", None), 1);
        register(&old, b"d@x", b"sip:d@10.0.0.1", None, 1);
        assert_eq!(hand_over(&old, &new, false).records, 3, "one of them remembers its REGISTER only");
        let cseqs = |aor: &[u8]| {
            let mut seen = Vec::new();
            new.lookup(at(6), aor, |binding| seen.push(binding.cseq));
            seen
        };
        let all = [&b"a@x"[..], b"b@x", b"c@x", b"d@x"].map(cseqs);
        assert_eq!(all, [vec![2, 3], vec![], vec![1], vec![1]]);
        assert_eq!(new.bindings(), old.bindings());
        // One that is gone altogether.
        (0..SHARDS).for_each(|_| _ = old.sweep(at(100_000)));
        hand_over(&old, &new, false);
        assert_eq!((new.bindings(), new.records()), (0, old.records()));
        // Afterwards nothing is noted any more.
        old.end_handover();
        register(&old, b"a@x", b"sip:a@10.0.0.1", None, 9);
        assert_eq!(hand_over(&old, &new, false), TakenOver::default());
    }

    #[test]
    fn the_rows_on_disk_are_known_after_the_last_round() {
        let (old, new) = (location(), location());
        register(&old, b"a@x", b"sip:a@10.0.0.1", None, 1);
        old.begin_handover();
        hand_over(&old, &new, true);
        // The journal writes it, which is a change of the record.
        let mut round = old.begin_round(false);
        let mut taken = crate::stack::location::journal::Taken::default();
        while let Some(shard) = round.next_shard() {
            old.take_changed(shard, false, &mut taken);
        }
        assert_eq!(hand_over(&old, &new, false).records, 1);
        assert!(!new.has_changes(), "it is on disk");
        assert_eq!(new.remove(at(6), b"a@x", None), 1);
        let mut round = new.begin_round(false);
        while let Some(shard) = round.next_shard() {
            new.take_changed(shard, false, &mut taken);
        }
        let before: Vec<u32> = taken.iter().map(|view| view.rows_before).collect();
        assert_eq!(before, [0, 1]);
    }

    #[test]
    fn the_versions_of_a_shared_table_come_along_with_their_nodes() {
        let (old, new) = (shared("a"), shared("a"));
        // A node that the successor has heard of first has another number there.
        new.shared().unwrap().node_seen(b"z", None, None);
        old.shared().unwrap().node_seen(b"b", Some("192.0.2.2:5060".parse().unwrap()), Some(7));
        register(&old, b"a@x", b"sip:a@10.0.0.1", Some(connection(1)), 1);
        old.begin_handover();
        hand_over(&old, &new, true);
        assert_eq!(new.shared().unwrap().untold(), 1, "what the store was not told is told by the successor");
        let names: Vec<_> = new.shared().unwrap().nodes().into_iter().map(|node| node.name).collect();
        assert_eq!(names, [b"a"[..].into(), b"z"[..].into(), b"b"[..].into()]);
        // A removal is remembered as one.
        assert_eq!(old.remove(at(6), b"a@x", None), 1);
        hand_over(&old, &new, false);
        assert_eq!((new.live_bindings(at(7)), new.bindings()), (0, old.bindings()));
        // A successor that shares nothing has no versions.
        let alone = location();
        hand_over(&old, &alone, true);
        register(&old, b"b@x", b"sip:a@10.0.0.1", None, 1);
        hand_over(&old, &alone, false);
        assert_eq!(alone.live_bindings(at(7)), 1);
    }

    #[test]
    fn what_finds_no_room_is_counted_and_what_was_cleared_is_gone() {
        let old = location();
        for aor in [&b"a@x"[..], b"b@x", b"c@x"] {
            register(&old, aor, b"sip:a@10.0.0.1", None, 1);
        }
        old.begin_handover();
        let small = Location::new(Key::new(1, 2), 2);
        assert_eq!(hand_over(&old, &small, true), TakenOver { records: 3, no_room: 1 });
        assert_eq!(small.bindings(), 2);
        old.clear();
        assert_eq!((old.bindings(), old.bytes(), old.records()), (0, 0, 0));
        // Another key has other names.
        let other = Location::new(Key::new(3, 4), 1000);
        let mut bytes = Vec::new();
        (0..SHARDS).for_each(|number| small.hand_over(number, true, &mut bytes));
        let reading = Reading { translate: &translate, nodes: Vec::new() };
        assert_eq!(other.take_over(&bytes, &reading, &mut TakenOver::default()), None);
    }
}
