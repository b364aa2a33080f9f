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

    /// Writes the nodes that share the table, which bindings name by number.
    pub fn hand_over_nodes(&self, out: &mut Vec<u8>) {
        let nodes = self.shared().map(|shared| shared.nodes()).unwrap_or_default();
        out.put_u16(nodes.len() as u16);
        for node in nodes {
            out.put_bytes(&node.name);
            out.put_bytes(node.relay.map(|relay| relay.to_string()).unwrap_or_default().as_bytes());
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
            let gone = Some(from.u64()?).filter(|ms| *ms != u64::MAX).map(Instant::from_ms);
            let Some(sharing) = &self.sharing else {
                continue;
            };
            let node = Node { name, relay, gone };
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
        let text =
            BindingText { uri: from.bytes()?, call_id: from.bytes()?, path: from.bytes()?, instance: from.bytes()? };
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
            (_, Some(Some(note))) => note.node != NodeNumber::OWN,
            (_, Some(None)) => true,
            (_, None) => false,
        };
        if is_elsewhere && self.sharing.is_none() {
            return Some(None);
        }
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
    let node = reading.nodes.get(usize::from(from.u16()?)).copied();
    let is_untold = from.u8()? != 0;
    // The successor has read nothing yet.
    let note = |node| SharedNote {
        version,
        lease,
        told_expires,
        refreshed_ms,
        position,
        relay,
        lifetime_s,
        seen: 0,
        node,
        is_untold,
    };
    Some(node.map(note))
}
