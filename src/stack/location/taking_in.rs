//! What the store that several servers share tells this one: changes of the others, what it has, and which nodes live.

use super::binding::weight_of_address;
use super::record::Counted;
use super::shared_note::{NodeNumber, SharedNote};
use super::sharing::{Node, Server, Sharing, cookie_run, tell_again};
use super::telling::SharedLocation;
use super::version::{Claim, Version};
use super::{Binding, Record, SHARDS, Shard, SharedRow};
use crate::base::{Channel, Flow, Instant};
use std::net::{IpAddr, SocketAddr};

/// What has become of a version that came from the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TakenIn {
    /// It is new here.
    Added,
    /// It has replaced another.
    Replaced,
    /// It has removed what was bound.
    Removed,
    /// It was here already, perhaps because this node made it.
    Same,
    /// What is here is newer, and stays; if the store does not have it, it is told.
    Kept,
    /// There is nothing of it here, and nobody keeps it any longer.
    Expired,
    /// `[limits] bindings` leaves no room for it, or there are too many nodes.
    Full,
}

impl SharedLocation<'_> {
    /// Takes in a version that the store has. `is_accepted`: it comes from the stream of changes, in the store's order; otherwise
    /// from a full reading, or as the answer to a version that the store did not accept. The row is trusted: whoever read it has
    /// checked it ([`super::RowRules`]).
    ///
    /// An accepted change replaces what the store was told earlier without being compared: the store has compared it. What it was
    /// not told yet, be it a refresh, is compared here by the store's own rule, and told if it wins.
    pub fn take_in(&self, now: Instant, row: &SharedRow, is_accepted: bool) -> TakenIn {
        let Some((node, gone)) = self.sharing.number_of(row.node) else {
            return TakenIn::Full;
        };
        let place = self.location.place_of(row.text.uri);
        let arrival = Arrival { now, row, place, node, gone, sharing: self.sharing };
        let (number, name) = self.location.name(row.aor);
        let mut guard = self.location.lock(number);
        let shard = &mut *guard;
        let room = self.location.room();
        let Some(record) = shard.records.get_mut(&name) else {
            let mut record = Box::<Record>::default();
            let taken = arrival.add(&mut record, room.saturating_sub(weight_of_address(row.aor.len())));
            if taken == TakenIn::Added {
                record.address = row.aor.into();
                self.location.account(Counted::default(), record.counted());
                record.is_changed = true;
                self.location.note(number, name, &mut record, &mut shard.lists, false);
                shard.records.insert(name, record);
            }
            return taken;
        };
        let before = record.counted();
        let (taken, has_news) = arrival.meet(record, room, is_accepted);
        record.is_changed |= !matches!(taken, TakenIn::Same | TakenIn::Kept | TakenIn::Expired | TakenIn::Full);
        self.location.account(before, record.counted());
        self.location.note(number, name, record, &mut shard.lists, has_news);
        taken
    }

    /// Begins a full reading of the store. One that did not end is forgotten.
    pub fn begin_reading(&self) {
        self.sharing.begin_reading();
    }

    /// Ends it: what the store did not show is to be told again. Returns how many versions that are. Visits every shard.
    pub fn end_reading(&self, now: Instant) -> usize {
        let reading = self.sharing.reading();
        let mut missing = 0;
        self.visit(|binding| {
            let Some(note) = binding.shared.as_deref() else {
                return false;
            };
            if note.lease <= now {
                return false;
            }
            if note.seen != reading && !note.is_untold {
                tell_again(binding);
            }
            let is_untold = binding.is_untold();
            missing += usize::from(is_untold);
            is_untold
        });
        missing
    }

    /// Has all told that the store does not have. Visits every shard.
    pub fn list_untold(&self) {
        self.visit(|binding| binding.is_untold());
    }

    /// Notes that a node lives, where it takes requests for phones that only it can reach, and when it was started (milliseconds since
    /// 1970). Visits every shard if it was gone.
    pub fn node_seen(&self, name: &[u8], relay: Option<SocketAddr>, since_ms: Option<u64>) {
        let Some((number, gone)) = self.sharing.number_of(name) else {
            return;
        };
        let cookie_run = since_ms.map(|since_ms| cookie_run(name, since_ms));
        self.sharing.set_node(number, |node| (node.gone, node.relay, node.cookie_run) = (None, relay, cookie_run));
        if gone.is_some() {
            self.bound(number, None);
        }
    }

    /// Notes that a node is gone since `at`, when it was last known to live: its bindings are held no longer than they could have
    /// lasted there. Visits every shard, unless that is known. After a full reading, that is for each of [`SharedLocation::nodes`] that
    /// does not live.
    pub fn node_gone(&self, name: &[u8], at: Instant) {
        let Some((number, gone)) = self.sharing.number_of(name) else {
            return;
        };
        if number == NodeNumber::OWN || gone.is_some() {
            return;
        }
        self.sharing.set_node(number, |node| node.gone = Some(at));
        self.bound(number, Some(at));
    }

    /// Returns the nodes that were heard of; this server is the first.
    pub fn nodes(&self) -> Vec<Node> {
        self.sharing.with_nodes(<[Node]>::to_vec)
    }

    /// Returns this server as the others know it.
    pub fn own(&self) -> Server {
        let name = self.sharing.with_nodes(|nodes| nodes.first().map_or_else(Box::default, |own| own.name.clone()));
        Server { name, run: self.sharing.run() }
    }

    /// Returns where the living node takes requests of whose cookies this is the run, by the digits of it that they bear.
    pub fn node_of_run(&self, is_it: impl Fn(u32) -> bool) -> Option<SocketAddr> {
        let is_node = |node: &&Node| node.gone.is_none() && node.cookie_run.is_some_and(&is_it);
        self.sharing.with_nodes(|nodes| nodes.iter().skip(1).find(is_node)?.relay)
    }

    /// Sees to it that our cookies look like those of no other node. Only before the first is written. Returns whether that changes what
    /// [`SharedLocation::own`] returns.
    pub fn distinguish(&self) -> bool {
        self.sharing.distinguish(None)
    }

    /// Returns the number of this run, from now on the same, by which cookies are known: they look like those of no other node that is
    /// known, and not like those of the run `before`.
    pub fn settle_run(&self, before: Option<u32>) -> u32 {
        self.sharing.settle_run(before);
        self.own().cookie_run()
    }

    /// Returns whether one of the other nodes takes requests at this address, or was known to.
    pub fn is_node_at(&self, ip: IpAddr) -> bool {
        let is_there = |node: &Node| node.relay.is_some_and(|relay| relay.ip().to_canonical() == ip.to_canonical());
        self.sharing.with_nodes(|nodes| nodes.iter().skip(1).any(is_there))
    }

    fn bound(&self, node: NodeNumber, gone: Option<Instant>) {
        self.visit(|binding| {
            let note = binding.shared.as_deref().filter(|note| note.node == node && node != NodeNumber::OWN);
            if let (Some(note), false) = (note, binding.removed) {
                binding.expires = note.bound(gone);
            }
            false
        });
    }

    /// Shows all bindings, shard by shard. `visit` returns true for one that there is to tell of.
    fn visit(&self, mut visit: impl FnMut(&mut Binding) -> bool) {
        for number in 0..SHARDS {
            let mut guard = self.location.lock(number);
            let Shard { records, lists } = &mut *guard;
            for (name, record) in records.iter_mut() {
                let mut has_news = false;
                for binding in &mut record.bindings {
                    has_news |= visit(binding);
                }
                if has_news {
                    self.location.note(number, *name, record, lists, true);
                }
            }
        }
    }
}

/// A version that comes from the store, and what is known of its node.
struct Arrival<'a> {
    now: Instant,
    row: &'a SharedRow<'a>,
    /// The number of its URI ([`super::Location::place`]).
    place: u32,
    node: NodeNumber,
    gone: Option<Instant>,
    sharing: &'a Sharing,
}

impl Arrival<'_> {
    /// Lets it meet what a record has. Also returns whether there is something to tell now.
    fn meet(&self, record: &mut Record, room: usize, is_accepted: bool) -> (TakenIn, bool) {
        let row = self.row;
        let found = record.bindings.iter_mut().find(|binding| binding.is_field(&row.text, row.reg_id));
        let Some(binding) = found else {
            return (self.add(record, room), false);
        };
        let is_same = binding.is_version(row, self.node);
        let wins = self.wins_over(binding);
        if let Some(note) = binding.shared.as_deref_mut() {
            note.seen = self.sharing.reading();
            if is_same {
                note.is_untold = false;
                note.position = match is_accepted {
                    true => note.position.max(row.position),
                    false => row.position,
                };
                return (TakenIn::Same, false);
            }
            // The stream may tell of what a reading, or an answer, has shown already.
            let is_known = row.position != 0 && row.position <= note.position;
            match (note.is_untold, is_accepted) {
                (true, _) if !wins => return (TakenIn::Kept, false),
                (false, true) if is_known => return (TakenIn::Kept, false),
                (false, _) if !wins && (!is_accepted || note.refreshed_ms > 0) => {
                    tell_again(binding);
                    return (TakenIn::Kept, true);
                }
                _ => {}
            }
        }
        let was_live = binding.is_live(self.now);
        self.write(binding);
        match was_live && row.removed {
            true => (TakenIn::Removed, false),
            false => (TakenIn::Replaced, false),
        }
    }

    fn add(&self, record: &mut Record, room: usize) -> TakenIn {
        if self.sharing.instant(self.row.lease_ms) <= self.now {
            return TakenIn::Expired;
        }
        let mut binding = Binding::new(self.row.text, None);
        self.write(&mut binding);
        if binding.weight() > room {
            return TakenIn::Full;
        }
        record.add(binding);
        TakenIn::Added
    }

    fn wins_over(&self, binding: &Binding) -> bool {
        let Some(note) = binding.shared.as_deref() else {
            return true;
        };
        let mut version = Version { time_ms: note.time_ms(), ..note.version };
        // Whoever made the row has not seen our refreshes. With the CSeq that was told, it is no REGISTER of the phone: time decides.
        if self.row.version.cseq != version.cseq {
            version.cseq = binding.cseq;
        }
        self.sharing.with_nodes(|nodes| {
            let node = nodes.get(usize::from(note.node.0)).map_or(&b""[..], |node| &node.name);
            self.row.claim().wins_over(&Claim { version, call_id: binding.text().call_id, node })
        })
    }

    /// Makes of a binding what the row says.
    fn write(&self, binding: &mut Binding) {
        let Arrival { now, row, place, node, gone, sharing } = *self;
        let is_own = node == NodeNumber::OWN;
        let source = match (is_own, row.flow, row.peer) {
            (true, Some(flow), _) => Some(flow),
            // Where it was: a connection of generation 0 is never alive.
            (_, _, Some((transport, peer))) => {
                let channel = Channel::Connection { slot: 0, generation: 0 };
                Some(Flow { transport, channel, ..Flow::datagram(0, peer) })
            }
            _ => None,
        };
        let note = SharedNote {
            version: row.version,
            lease: sharing.instant(row.lease_ms),
            told_expires: sharing.instant(row.expires_ms),
            refreshed_ms: 0,
            position: row.position,
            relay: if is_own { Box::default() } else { row.relay.into() },
            lifetime_s: row.lifetime_s,
            seen: sharing.reading(),
            node,
            is_untold: false,
        };
        binding.set_text(row.text, source.as_ref());
        binding.expires = match (row.removed, is_own) {
            (true, _) => note.told_expires,
            // This server has forgotten what it answered for.
            (false, true) => note.bound(Some(now)),
            (false, false) => note.bound(gone),
        };
        (binding.reg_id, binding.place) = (row.reg_id, place);
        binding.cseq = row.version.cseq;
        binding.q = row.q;
        binding.removed = row.removed;
        binding.reached = row.reached;
        binding.leads_back = row.leads_back;
        binding.is_unsure = row.is_unsure;
        binding.shared = Some(Box::new(note));
    }
}
