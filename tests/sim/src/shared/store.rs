//! The store that the nodes share, as a model: one place for each address, a stream of what it has accepted in each of a few shards,
//! and the troubles of a store.

use super::sabotage::SharedSabotage;
use crate::hashing::digest;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use strowger::base::{Flow, Transport};
use strowger::stack::location::{BindingText, Reached, SharedRow, Version};

/// The shards whose changes are in order among themselves, and not with those of others.
pub const STREAMS: usize = 4;

/// Changes that a stream keeps: so few that a node that was away for long has missed some.
const STREAM: usize = 40;

/// How long a node counts as alive after its last sign of life.
const HEARTBEAT_MS: u64 = 5_000;

/// A version as the store keeps it.
#[derive(Clone, Debug)]
pub struct Kept {
    pub aor: Vec<u8>,
    pub field: Vec<u8>,
    pub uri: Vec<u8>,
    pub call_id: Vec<u8>,
    pub path: Vec<u8>,
    pub instance: Vec<u8>,
    pub node: Vec<u8>,
    pub relay: Vec<u8>,
    pub version: Version,
    pub peer: Option<(Transport, SocketAddr)>,
    pub expires_ms: u64,
    pub lease_ms: u64,
    pub lifetime_s: u32,
    pub reg_id: u32,
    pub q: u16,
    pub reached: Reached,
    pub removed: bool,
    pub position: u64,
}

impl Kept {
    pub fn of(row: &SharedRow) -> Kept {
        let mut field = Vec::new();
        row.write_field(&mut field);
        Kept {
            aor: row.aor.to_vec(),
            field,
            uri: row.text.uri.to_vec(),
            call_id: row.text.call_id.to_vec(),
            path: row.text.path.to_vec(),
            instance: row.text.instance.to_vec(),
            node: row.node.to_vec(),
            relay: row.relay.to_vec(),
            version: row.version,
            peer: row.peer,
            expires_ms: row.expires_ms,
            lease_ms: row.lease_ms,
            lifetime_s: row.lifetime_s,
            reg_id: row.reg_id,
            q: row.q,
            reached: row.reached,
            removed: row.removed,
            position: 0,
        }
    }

    /// As a node takes it in that is called so.
    pub fn row<'a>(&'a self, own: &[u8]) -> SharedRow<'a> {
        let flow = self.peer.filter(|_| self.node == own && !self.relay.is_empty());
        SharedRow {
            aor: &self.aor,
            text: BindingText { uri: &self.uri, call_id: &self.call_id, path: &self.path, instance: &self.instance },
            version: self.version,
            node: &self.node,
            relay: &self.relay,
            peer: self.peer,
            flow: flow.map(|(_, peer)| Flow::datagram(0, peer)),
            expires_ms: self.expires_ms,
            lease_ms: self.lease_ms,
            lifetime_s: self.lifetime_s,
            reg_id: self.reg_id,
            q: self.q,
            reached: self.reached,
            removed: self.removed,
            is_unsure: false,
            leads_back: false,
            position: self.position,
        }
    }
}

/// What the store answers to a version.
pub enum Verdict {
    /// It has accepted it, or had it already, at this place.
    Has(u64),
    /// It has a better one.
    Better(Box<Kept>),
}

/// What a change at this time, of this address and field, has replaced.
struct Undo {
    wall_ms: u64,
    aor: Vec<u8>,
    field: Vec<u8>,
    before: Option<Kept>,
}

#[derive(Default)]
pub struct Store {
    addresses: BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Kept>>,
    streams: [VecDeque<Kept>; STREAMS],
    /// The place of the last change that each stream has lost.
    lost: [u64; STREAMS],
    last: u64,
    /// What each change has replaced, and when.
    undo: VecDeque<Undo>,
    heartbeats: BTreeMap<Vec<u8>, u64>,
    /// A connection of an earlier life is dead.
    pub life: u32,
    sabotage: Option<SharedSabotage>,
    pub accepted: u64,
    pub rejected: u64,
}

pub fn stream_of(aor: &[u8]) -> usize {
    (digest(aor) % STREAMS as u64) as usize
}

impl Store {
    pub fn new(sabotage: Option<SharedSabotage>) -> Store {
        Store { sabotage, ..Store::default() }
    }

    /// A node tells it a version, at this time of the wall clock.
    pub fn tell(&mut self, wall_ms: u64, mut row: Kept) -> Verdict {
        let fields = self.addresses.entry(row.aor.clone()).or_default();
        fields.retain(|_, old| old.lease_ms > wall_ms);
        if let Some(old) = fields.get(&row.field) {
            let (new, old_claim) = (row.row(b"").claim(), old.row(b"").claim());
            if new == old_claim {
                return Verdict::Has(old.position);
            }
            let wins = match self.sabotage {
                Some(SharedSabotage::TimeAlone) => (row.version.time_ms, &row.node) > (old.version.time_ms, &old.node),
                _ => new.wins_over(&old_claim),
            };
            if !wins {
                self.rejected += 1;
                return Verdict::Better(Box::new(old.clone()));
            }
        }
        self.accepted += 1;
        self.last = (self.last + 1).max(wall_ms << 20);
        row.position = self.last;
        let is_forgotten = row.removed && self.sabotage == Some(SharedSabotage::ForgetRemoved);
        let before = match is_forgotten {
            true => fields.remove(&row.field),
            false => fields.insert(row.field.clone(), row.clone()),
        };
        self.undo.push_back(Undo { wall_ms, aor: row.aor.clone(), field: row.field.clone(), before });
        let number = stream_of(&row.aor);
        let stream = &mut self.streams[number];
        stream.push_back(row);
        if stream.len() > STREAM
            && let Some(first) = stream.pop_front()
        {
            self.lost[number] = first.position;
        }
        Verdict::Has(self.last)
    }

    /// The place behind the last change.
    pub fn end(&self) -> u64 {
        self.last
    }

    /// Some addresses behind this one, with all that there is of them.
    pub fn scan(&self, wall_ms: u64, behind: Option<&[u8]>) -> (Vec<Kept>, Option<Vec<u8>>) {
        let behind = behind.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let some: Vec<_> = self.addresses.range::<[u8], _>((behind, std::ops::Bound::Unbounded)).take(3).collect();
        let rows = some.iter().flat_map(|(_, fields)| fields.values()).filter(|row| row.lease_ms > wall_ms);
        (rows.cloned().collect(), some.last().map(|(aor, _)| (*aor).clone()))
    }

    /// Some changes of a stream behind this place; `None`: it has lost some of them.
    pub fn read(&self, stream: usize, behind: u64) -> Option<Vec<Kept>> {
        if self.lost[stream] > behind {
            return None;
        }
        let rows = self.streams[stream].iter().filter(|row| row.position > behind);
        Some(rows.take(10).cloned().collect())
    }

    /// Returns whether a stream has changes behind this place, or had some.
    pub fn has_more(&self, stream: usize, behind: u64) -> bool {
        self.lost[stream] > behind || self.streams[stream].back().is_some_and(|row| row.position > behind)
    }

    pub fn beat(&mut self, wall_ms: u64, node: &[u8]) -> Vec<Vec<u8>> {
        self.heartbeats.insert(node.to_vec(), wall_ms + HEARTBEAT_MS);
        self.heartbeats.retain(|_, until| *until > wall_ms);
        self.heartbeats.keys().cloned().collect()
    }

    /// It begins anew with nothing.
    pub fn restart_empty(&mut self) {
        *self = Store {
            life: self.life + 1,
            sabotage: self.sabotage,
            accepted: self.accepted,
            rejected: self.rejected,
            ..Store::default()
        };
    }

    /// Its replica takes over, which has not seen what came in the last `lost_ms`.
    pub fn fail_over(&mut self, wall_ms: u64, lost_ms: u64) {
        while self.undo.back().is_some_and(|undo| undo.wall_ms + lost_ms > wall_ms)
            && let Some(Undo { aor, field, before, .. }) = self.undo.pop_back()
        {
            let fields = self.addresses.entry(aor).or_default();
            match before {
                Some(before) => fields.insert(field, before),
                None => fields.remove(&field),
            };
        }
        self.undo.clear();
        let limit = (wall_ms.saturating_sub(lost_ms) + 1) << 20;
        for stream in &mut self.streams {
            stream.retain(|row| row.position < limit);
        }
        self.last = self.streams.iter().filter_map(|stream| stream.back()).map(|row| row.position).max().unwrap_or(0);
        self.life += 1;
    }

    pub fn rows(&self, aor: &[u8]) -> impl Iterator<Item = &Kept> {
        self.addresses.get(aor).into_iter().flat_map(|fields| fields.values())
    }
}
