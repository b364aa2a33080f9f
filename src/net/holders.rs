//! What each source holds of one core's connections: which one gives way if there is no room for all, and whose handshake begins
//! next.
//!
//! Nothing here waits or closes: connections are named by their slots, and every step has a constant cost.

#[cfg(debug_assertions)]
mod check;

use super::overlong::{Overlong, Pace};
use crate::base::list::{Linked, LinkedMut, Links, List};
use crate::base::source::source;
use crate::base::{Arena, Id, Instant};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

/// A connection that has made no progress for this many milliseconds is considered stalled: if others need its slot, it gives way
/// even if its source holds no more than theirs.
pub const STALL_MS: u64 = 1000;

/// At most this many sources are checked in one step for a handshake that may begin.
const TRIES: usize = 8;

const NONE: u32 = u32::MAX;

/// How far a connection opened by a peer has got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Its client has begun a TLS handshake, and we have not.
    Waiting,
    /// It has waited for so long, in an overload, that the others go first.
    Late,
    /// We have begun the handshake too.
    Shaking,
    /// Nothing has arrived on it that was worth an answer.
    Unproved,
    /// It has been of use.
    Proved,
}

const CLASSES: usize = 5;

/// The queues of sources whose clients wait, in the order in which they are served, by the class of those clients.
const QUEUES: [Class; 2] = [Class::Waiting, Class::Late];

fn queue_of(class: Class) -> Option<usize> {
    QUEUES.iter().position(|queued| *queued == class)
}

/// What sources are ranked by.
#[derive(Clone, Copy)]
enum By {
    Places,
    /// Slots of connections that have not proved useful.
    Unproved,
    Handshakes,
}

const RANKINGS: usize = 3;

/// A connection in the list of the same source and class, ordered by when each last made progress.
#[derive(Clone, Copy)]
struct Kin {
    holder: u32,
    class: Class,
    since: Instant,
    links: Links,
}

impl Kin {
    const NOBODY: Kin = Kin { holder: NONE, class: Class::Unproved, since: Instant::from_ms(0), links: Links::APART };
}

impl Linked for Vec<Kin> {
    fn links(&self, slot: u32) -> Option<Links> {
        Some(self.get(slot as usize)?.links)
    }
}

impl LinkedMut for Vec<Kin> {
    fn links_mut(&mut self, slot: u32) -> Option<&mut Links> {
        Some(&mut self.get_mut(slot as usize)?.links)
    }
}

/// A source's position in a ranking: in the list of all that hold the same number. If it holds nothing, it is in no list.
#[derive(Clone, Copy)]
struct Rank {
    count: usize,
    links: Links,
}

/// The sources as entries of one ranking.
struct Ranked<H>(H, By);

impl Linked for Ranked<&Arena<Holder>> {
    fn links(&self, number: u32) -> Option<Links> {
        Some(self.0.tenant(number)?.1.ranks[self.1 as usize].links)
    }
}

impl Linked for Ranked<&mut Arena<Holder>> {
    fn links(&self, number: u32) -> Option<Links> {
        Ranked(&*self.0, self.1).links(number)
    }
}

impl LinkedMut for Ranked<&mut Arena<Holder>> {
    fn links_mut(&mut self, number: u32) -> Option<&mut Links> {
        Some(&mut self.0.tenant_mut(number)?.1.ranks[self.1 as usize].links)
    }
}

/// One source.
struct Holder {
    source: u64,
    /// It stands for many clients: it is not limited to a share and never gives way.
    is_exempt: bool,
    connections: usize,
    lists: [List; CLASSES],
    ranks: [Rank; RANKINGS],
    /// How many entries it has in these queues of sources that wait for their turn.
    turns: [usize; QUEUES.len()],
    /// How many of its clients are of the class of these queues.
    clients: [usize; QUEUES.len()],
    overlong: Overlong,
    pace: Pace,
}

/// Sources by how much they hold.
#[derive(Default)]
struct Ranking {
    /// By count: the sources that hold that many, longest first.
    lists: Vec<List>,
    /// The highest count.
    most: usize,
}

/// A handshake that may begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Turn {
    pub slot: u32,
    /// The stalled handshake that gives way to it.
    pub instead_of: Option<u32>,
}

/// Whether a source may have one more handshake in progress.
enum Room {
    Free,
    Instead(u32),
    Nothing,
}

/// The sources of one core's connections. Connections that we opened belong to no source.
#[derive(Default)]
pub struct Holders {
    by_source: HashMap<u64, u32>,
    holders: Arena<Holder>,
    /// By slot.
    kin: Vec<Kin>,
    rankings: [Ranking; RANKINGS],
    /// Sources with waiting handshakes, and since when each has been in its queue.
    queues: [VecDeque<(Id, Instant)>; QUEUES.len()],
    /// How many of them, one queue after the other, have been checked since the last change; none of theirs may begin now.
    tried: usize,
    /// How many are [`Class::Waiting`]: those that have left may still have a place in the queue.
    waiting: usize,
    overlong: Overlong,
    pace: Pace,
}

impl Holders {
    // ---- coming and going ----------------------------------------------------------------------------------------------

    /// Adds a connection from `peer`. `is_exempt`: its source may hold any number.
    pub fn arrive(&mut self, slot: u32, peer: IpAddr, is_exempt: bool, now: Instant) {
        let source = source(peer);
        let number = match self.by_source.entry(source) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let id = self.holders.insert(Holder::new(source, is_exempt));
                *entry.insert(id.slot)
            }
        };
        if self.kin.len() <= slot as usize {
            self.kin.resize(slot as usize + 1, Kin::NOBODY);
        }
        debug_assert!(self.kin[slot as usize].holder == NONE, "the slot was left");
        if let Some((_, holder)) = self.holders.tenant_mut(number) {
            holder.connections += 1;
        }
        self.kin[slot as usize].holder = number;
        self.enlist(slot, Class::Unproved, now);
        self.count(number, By::Places, true);
        self.count(number, By::Unproved, true);
    }

    /// Removes the connection. No effect for one that was never added.
    pub fn leave(&mut self, slot: u32) {
        let Some(Kin { holder, class, .. }) = self.delist(slot) else {
            return;
        };
        self.kin[slot as usize] = Kin::NOBODY;
        self.count(holder, By::Places, false);
        if class != Class::Proved {
            self.count(holder, By::Unproved, false);
        }
        if class == Class::Shaking {
            self.count(holder, By::Handshakes, false);
        }
        self.tried = 0;
        let Some((id, entry)) = self.holders.tenant_mut(holder) else {
            debug_assert!(false, "no holder {holder}");
            return;
        };
        entry.connections -= 1;
        if entry.connections == 0 {
            let source = entry.source;
            self.by_source.remove(&source);
            self.holders.remove(id);
        }
    }

    /// Notes that the connection has reached a class, or made progress in it. No effect for one that we opened.
    pub fn step(&mut self, slot: u32, class: Class, now: Instant) {
        let Some(Kin { holder, class: before, .. }) = self.delist(slot) else {
            return;
        };
        self.enlist(slot, class, now);
        if (before == Class::Proved) != (class == Class::Proved) {
            self.count(holder, By::Unproved, class != Class::Proved);
        }
        if (before == Class::Shaking) != (class == Class::Shaking) {
            self.count(holder, By::Handshakes, class == Class::Shaking);
            self.tried = 0;
        }
        if class == Class::Waiting {
            self.queue_up(holder, class, now);
        }
    }

    /// Notes that the connection was used: others of its source and class give way first. No effect for one that we opened.
    pub fn renew(&mut self, slot: u32, now: Instant) {
        if let Some(Kin { class, .. }) = self.delist(slot) {
            self.enlist(slot, class, now);
        }
    }

    fn queue_up(&mut self, number: u32, class: Class, now: Instant) {
        if let Some((id, holder)) = self.holders.tenant_mut(number)
            && let Some(queue) = queue_of(class)
            && (holder.turns[queue] == 0 || (holder.is_exempt && holder.turns[queue] < holder.clients[queue]))
        {
            // Each of a gateway's clients stands for itself, or takes the turn of one that has left.
            holder.turns[queue] += 1;
            self.queues[queue].push_back((id, now));
            self.tried = 0;
        }
    }

    // ---- giving way ----------------------------------------------------------------------------------------------------

    /// Returns the connection that gives its slot to a new one of `peer`, or to one of ours, if all slots are taken, and how many
    /// its source holds: the oldest of the source that holds most, if that is more than the new one's source holds. Those that have
    /// not proved useful go first.
    pub fn yields_place(&self, peer: Option<IpAddr>, now: Instant) -> Option<(u32, usize)> {
        let number = peer.and_then(|peer| self.by_source.get(&source(peer)));
        let own = number.and_then(|number| Some(self.holders.tenant(*number)?.1));
        let held = |by: By| own.map_or(0, |own| own.counted(by));
        let places = |holder: &Holder| holder.ranks[By::Places as usize].count;
        if let Some(most) = self.most(By::Unproved) {
            let oldest = [Class::Unproved, Class::Late, Class::Waiting, Class::Shaking]
                .into_iter()
                .find_map(|class| self.oldest(most, class));
            let ahead = most.counted(By::Unproved).saturating_sub(held(By::Unproved));
            if let Some((slot, since)) = oldest
                && (ahead >= 2 || (ahead == 1 && now.ms_since(since) >= STALL_MS))
            {
                return Some((slot, places(most)));
            }
        }
        let most = self.most(By::Places)?;
        if most.counted(By::Places) < held(By::Places) + 2 {
            return None;
        }
        let all = [Class::Unproved, Class::Late, Class::Waiting, Class::Shaking, Class::Proved];
        let (slot, _) = all.into_iter().find_map(|class| self.oldest(most, class))?;
        Some((slot, places(most)))
    }

    /// Returns the next handshake that may begin, taking sources in turn; `in_hand` of at most `limit` have begun. Once half of the
    /// limit is used, a source gets no more than a quarter of it, but may begin one in place of a stalled one of its own. In an
    /// overload, those that have waited for `patience_ms` are [late](Class::Late).
    pub fn begin(&mut self, in_hand: usize, limit: usize, patience_ms: u64, now: Instant) -> Option<Turn> {
        for _ in 0..TRIES {
            if !self.may_begin() {
                return None;
            }
            // None of the first queue may begin before all of it have been tried.
            let queue = usize::from(self.tried >= self.queues[0].len());
            let (class, (id, _)) = (QUEUES[queue], self.queues[queue].pop_front()?);
            if class == Class::Waiting {
                self.fall_behind(id, patience_ms, now);
            }
            let Some(holder) = self.holders.get(id) else {
                // It is already gone.
                continue;
            };
            let Some((slot, _)) = self.oldest(holder, class) else {
                self.dequeued(id, queue);
                continue;
            };
            let instead_of = match self.room(holder, in_hand, limit, now) {
                Room::Free => None,
                Room::Instead(other) => Some(other),
                Room::Nothing => {
                    self.queues[queue].push_back((id, now));
                    self.tried += 1;
                    continue;
                }
            };
            self.dequeued(id, queue);
            self.step(slot, Class::Shaking, now);
            self.pace.note(now);
            if let Some(holder) = self.holders.get_mut(id) {
                holder.pace.note(now);
                if !holder.is_exempt && holder.has(class) {
                    self.queue_up(id.slot, class, now);
                }
            }
            return Some(Turn { slot, instead_of });
        }
        None
    }

    /// In an overload, puts those of a source's clients that have waited for too long behind all that have not. They are what
    /// was there when it began; if they went first, everybody would wait as long as they have. They go on when there is nobody else.
    fn fall_behind(&mut self, id: Id, patience_ms: u64, now: Instant) {
        while let Some(holder) = self.holders.get(id)
            && (self.overlong.is_overload(self.sources_waiting(), &self.pace, patience_ms, now)
                || holder.overlong.is_overload(holder.clients[0], &holder.pace, patience_ms, now))
            && let Some((slot, since)) = self.oldest(holder, Class::Waiting)
            && now.ms_since(since) >= patience_ms
        {
            self.delist(slot);
            self.enlist(slot, Class::Late, since);
            self.queue_up(id.slot, Class::Late, now);
        }
    }

    fn dequeued(&mut self, id: Id, queue: usize) {
        if let Some(holder) = self.holders.get_mut(id) {
            holder.turns[queue] -= 1;
        }
    }

    fn room(&self, holder: &Holder, in_hand: usize, limit: usize, now: Instant) -> Room {
        let stalled = |holder: &Holder| {
            let (slot, since) = self.oldest(holder, Class::Shaking)?;
            (now.ms_since(since) >= STALL_MS).then_some(slot)
        };
        let own = holder.counted(By::Handshakes);
        let is_within_share = own < (limit / 4).max(1) || in_hand < limit / 2;
        let victim = match (in_hand < limit, is_within_share) {
            (true, true) => return Room::Free,
            (_, false) => stalled(holder),
            (false, true) => {
                let most = self.most(By::Handshakes);
                let most = most.filter(|most| most.counted(By::Handshakes) > own);
                most.and_then(stalled)
            }
        };
        victim.map_or(Room::Nothing, Room::Instead)
    }

    /// True when a handshake may begin now.
    pub fn may_begin(&self) -> bool {
        self.tried < self.queued()
    }

    fn queued(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    /// True if handshakes wait, and none may begin until others end or stall.
    pub fn is_stuck(&self) -> bool {
        self.queued() > 0 && !self.may_begin()
    }

    /// Notes that time has passed: other handshakes may have stalled meanwhile.
    pub fn look_again(&mut self) {
        self.tried = 0;
    }

    /// Returns how long a handshake of `peer` would wait before it begins, if no more may be accepted: handshakes, of this source or
    /// of all, have waited longer than `patience_ms` for longer than a burst takes. With a patience of 0 they always may.
    pub fn overlong_ms(&mut self, peer: IpAddr, patience_ms: u64, now: Instant) -> Option<u64> {
        let waited_ms = self.queues[0].front().map_or(0, |(_, since)| now.ms_since(*since));
        if let Some(will_wait_ms) = self.overlong.check(waited_ms, self.sources_waiting(), &self.pace, patience_ms, now) {
            return Some(will_wait_ms);
        }
        let number = *self.by_source.get(&source(peer))?;
        let (_, holder) = self.holders.tenant(number)?;
        let oldest = self.oldest(holder, Class::Waiting);
        let waited_ms = oldest.map_or(0, |(_, since)| now.ms_since(since));
        let (_, holder) = self.holders.tenant_mut(number)?;
        if holder.is_exempt {
            return None;
        }
        holder.overlong.check(waited_ms, holder.clients[0], &holder.pace, patience_ms, now)
    }

    /// Returns how many wait that are begun before a new one: one of each source, but all of a gateway's.
    fn sources_waiting(&self) -> usize {
        self.queues[0].len().min(self.waiting)
    }

    /// Returns the class of a peer's connection; `None` for one that we opened.
    pub fn class(&self, slot: u32) -> Option<Class> {
        let kin = self.kin.get(slot as usize)?;
        (kin.holder != NONE).then_some(kin.class)
    }

    // ---- lists and ranks -----------------------------------------------------------------------------------------------

    fn oldest(&self, holder: &Holder, class: Class) -> Option<(u32, Instant)> {
        let slot = holder.lists[class as usize].first()?;
        Some((slot, self.kin.get(slot as usize)?.since))
    }

    fn enlist(&mut self, slot: u32, class: Class, since: Instant) {
        let kin = &mut self.kin[slot as usize];
        (kin.class, kin.since) = (class, since);
        let Some((_, holder)) = self.holders.tenant_mut(kin.holder) else {
            debug_assert!(false, "slot {slot} has no holder");
            return;
        };
        if let Some(queue) = queue_of(class) {
            holder.clients[queue] += 1;
        }
        self.waiting += usize::from(class == Class::Waiting);
        holder.lists[class as usize].push(&mut self.kin, slot);
    }

    /// Removes it from its list. Returns its previous entry; `None` if it is one that we opened, which belongs to no source.
    fn delist(&mut self, slot: u32) -> Option<Kin> {
        let kin = *self.kin.get(slot as usize)?;
        let (_, holder) = self.holders.tenant_mut(kin.holder)?;
        if let Some(queue) = queue_of(kin.class) {
            holder.clients[queue] -= 1;
        }
        self.waiting -= usize::from(kin.class == Class::Waiting);
        holder.lists[kin.class as usize].remove(&mut self.kin, slot);
        Some(kin)
    }

    /// Returns, of the sources that hold most, the one that has done so longest.
    fn most(&self, by: By) -> Option<&Holder> {
        let ranking = &self.rankings[by as usize];
        let first = ranking.lists.get(ranking.most)?.first()?;
        self.holders.tenant(first).map(|(_, holder)| holder)
    }

    /// Counts one more or one less.
    fn count(&mut self, number: u32, by: By, is_more: bool) {
        let Some((_, holder)) = self.holders.tenant_mut(number) else {
            debug_assert!(false, "no holder {number}");
            return;
        };
        if holder.is_exempt {
            return;
        }
        let rank = &mut holder.ranks[by as usize];
        let before = rank.count;
        debug_assert!(is_more || before > 0, "holder {number} holds nothing");
        let count = match is_more {
            true => before + 1,
            false => before.saturating_sub(1),
        };
        rank.count = count;
        let Ranking { lists, most } = &mut self.rankings[by as usize];
        if lists.len() <= count {
            lists.resize(count + 1, List::default());
        }
        let holders = &mut Ranked(&mut self.holders, by);
        if before > 0 {
            lists[before].remove(holders, number);
        }
        if count > 0 {
            lists[count].push(holders, number);
        }
        let was_alone = before == *most && lists[before].is_empty();
        if count > *most || was_alone {
            *most = count;
        }
    }
}

impl Holder {
    fn new(source: u64, is_exempt: bool) -> Holder {
        let rank = Rank { count: 0, links: Links::APART };
        Holder {
            source,
            is_exempt,
            connections: 0,
            lists: [List::default(); CLASSES],
            ranks: [rank; RANKINGS],
            turns: [0; QUEUES.len()],
            clients: [0; QUEUES.len()],
            overlong: Overlong::default(),
            pace: Pace::default(),
        }
    }

    /// Returns how many it holds; nothing is counted for exempt sources.
    fn counted(&self, by: By) -> usize {
        self.ranks[by as usize].count
    }

    fn has(&self, class: Class) -> bool {
        !self.lists[class as usize].is_empty()
    }
}

#[cfg(test)]
mod tests;
