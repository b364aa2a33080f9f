//! What the store that several servers share is told: the second taker of changes, besides the journal ([`super::journal`]), with rounds
//! of its own.
//!
//! # Who calls what
//! Workers change bindings as ever; which of their changes is a new version is found out there, under the lock of the shard. All that
//! [`SharedLocation`] offers is called by the one thread that speaks to the store, and takes one shard's lock for a moment, never more
//! than one. Nothing here waits.
//!
//! # Telling
//! A round: [`SharedLocation::begin_telling`], then for each shard of the round [`SharedLocation::take_untold`], then the store is told.
//! For each version it says one of three things: it has accepted it, with a place ([`SharedLocation::told`]); it has that very version
//! ([`SharedLocation::told`] with the place that it has of it); or it has a better one, which it answers with
//! ([`SharedLocation::take_in`], not accepted). When all are answered, [`SharedLocation::finish_telling`] frees the 200s that wait.
//! What was taken and not answered must be told again, or a full reading must follow: taking it has emptied the list.
//!
//! # Full reading
//! When the store was joined or its connection was lost: [`SharedLocation::begin_reading`], [`SharedLocation::take_in`] for every
//! binding that the store has (not accepted), [`SharedLocation::end_reading`]. What the store did not show is told again by the next
//! rounds. So nothing that a node knows is lost with the store; and because what was removed is remembered for as long as a copy of it
//! may exist, nothing comes back that was removed. The stream of changes is followed from a place that was noted before the reading.

use super::shared_row::Outward;
use super::sharing::{Sharing, SharingTerms};
use super::{Binding, Lists, Location, Node, NodeNumber, Progress, Round, SHARDS, SharedRow, TokenOf, Untold};

/// A table that several servers share, as the thread sees it that speaks to the store.
#[derive(Clone, Copy)]
pub struct SharedLocation<'a> {
    pub(super) location: &'a Location,
    pub(super) sharing: &'a Sharing,
}

impl Location {
    /// Lets other servers have a part in the table: versions are made from now on. Before the journal reads anything back.
    #[must_use]
    pub fn with_sharing(mut self, terms: SharingTerms) -> Location {
        self.sharing = Some(Box::new(Sharing::new(terms)));
        self
    }

    /// Returns what the thread needs that speaks to the store; `None` if the table is not shared.
    pub fn shared(&self) -> Option<SharedLocation<'_>> {
        let sharing = self.sharing.as_deref()?;
        Some(SharedLocation { location: self, sharing })
    }

    /// Returns what is known of a node, for [`Binding::relay`].
    pub fn node(&self, number: NodeNumber) -> Option<Node> {
        let sharing = self.sharing.as_ref()?;
        sharing.with_nodes(|nodes| nodes.get(usize::from(number.0)).cloned())
    }
}

impl SharedLocation<'_> {
    /// Sets the time since 1970 at [`crate::base::Instant`] zero, in milliseconds, by the store's clock. The versions that were made
    /// remain as they are.
    pub fn set_wall_ms(&self, wall_ms: u64) {
        self.sharing.set_wall_ms(wall_ms);
    }

    /// Returns the time that was set last; that of this server's own clock at first.
    pub fn wall_ms(&self) -> u64 {
        self.sharing.wall_ms()
    }

    /// Returns true if a round would take something.
    pub fn has_untold(&self) -> bool {
        self.sharing.rounds.has_changes()
    }

    /// Returns the round after which everything changed until now has been told.
    pub fn last_telling(&self) -> u64 {
        self.sharing.rounds.last()
    }

    /// Returns how far the store is.
    pub fn progress(&self) -> Progress {
        self.sharing.rounds.progress()
    }

    /// Begins a round of the shards in which there is something to tell.
    pub fn begin_telling(&self) -> Round {
        self.sharing.rounds.begin(false)
    }

    /// Copies what the store must be told of a shard, and takes it off the list. `token` writes by what token this node reaches a
    /// phone over a flow of its own; it is called under the shard's lock.
    pub fn take_untold(&self, shard: usize, untold: &mut Untold, token: &mut TokenOf) {
        let mut guard = self.location.lock(shard);
        let shard = &mut *guard;
        let wall_ms = self.sharing.wall_ms();
        self.sharing.with_nodes(|nodes| {
            for name in shard.lists.news.drain(..) {
                let Some(record) = shard.records.get_mut(&name) else {
                    continue;
                };
                record.lists.take_off(Lists::NEWS);
                for binding in &record.bindings {
                    let Some(note) = binding.shared.as_deref().filter(|note| note.is_untold) else {
                        continue;
                    };
                    let node = nodes.get(usize::from(note.node.0)).map_or(&b""[..], |node| &node.name);
                    untold.push(&record.address, binding, note, &Outward { wall_ms, node }, token);
                }
            }
        });
    }

    /// Notes that the store has a version that it was told, at this place of its own order ([`SharedRow::position`]). Returns false
    /// if there is another by now: that is told in a later round.
    pub fn told(&self, row: &SharedRow, position: u64) -> bool {
        let Some((node, _)) = self.sharing.number_of(row.node) else {
            return false;
        };
        self.sharing.set_blocked(row.aor, false);
        let (number, name) = self.location.name(row.aor);
        let mut shard = self.location.lock(number);
        let Some(record) = shard.records.get_mut(&name) else {
            return false;
        };
        let found = record.bindings.iter_mut().find(|binding| binding.is_field(&row.text, row.reg_id));
        let is_that = |binding: &&mut Binding| binding.is_version(row, node);
        let Some(note) = found.filter(is_that).and_then(|binding| binding.shared.as_deref_mut()) else {
            return false;
        };
        note.is_untold = false;
        note.position = note.position.max(position);
        note.seen = self.sharing.reading();
        true
    }

    /// Notes that the store cannot take a version, for the sake of its address alone: 200s that wait for it are refused, until one is told.
    /// Before [`SharedLocation::finish_telling`].
    pub fn blocked(&self, row: &SharedRow) {
        self.sharing.set_blocked(row.aor, true);
    }

    /// Notes that what this and earlier rounds took is in the store. The workers have to be woken afterwards if answers wait.
    pub fn finish_telling(&self, number: u64) {
        self.sharing.rounds.reach(number);
    }

    /// Sets whether the store cannot be told anything at present, or cannot be followed. If answers wait for it, REGISTERs are refused
    /// then.
    pub fn set_failing(&self, is_failing: bool) {
        self.sharing.rounds.set_failing(is_failing);
    }

    /// Returns the addresses of which there is something to tell. Visits every shard: only for occasional use.
    pub fn untold(&self) -> usize {
        (0..SHARDS).map(|number| self.location.lock(number).lists.news.len()).sum()
    }
}

impl Binding {
    /// Returns whether the row is the version that it has.
    pub(super) fn is_version(&self, row: &SharedRow, node: NodeNumber) -> bool {
        let is_same = |note: &super::shared_note::SharedNote| note.version == row.version && note.node == node;
        self.shared.as_deref().is_some_and(is_same) && self.text().call_id == row.text.call_id
    }
}

#[cfg(test)]
mod tests;
