//! The client transactions that wait on a connection and have heard nothing, as one list per connection.

use super::{Client, Transactions};
use crate::base::{Flow, Id};

/// The end of a list.
pub(super) const NONE: u32 = u32::MAX;

impl Transactions {
    /// Puts a client transaction in front of those that wait on the same connection.
    pub(super) fn list(&mut self, id: Id, flow: &Flow) {
        let Some(key) = self.peer_flows.key(flow) else {
            return;
        };
        let after = self.unanswered.insert(key, id.slot).unwrap_or(NONE);
        if let Some(client) = self.clients.get_mut(id) {
            (client.listed, client.before, client.after) = (true, NONE, after);
        }
        self.relink(after, |next| next.before = id.slot);
    }

    pub(super) fn unlist(&mut self, id: Id) {
        let Some(client) = self.clients.get_mut(id) else {
            debug_assert!(false, "a transaction that stands in a list is there");
            return;
        };
        if !std::mem::take(&mut client.listed) {
            return;
        }
        let (before, after, flow) = (client.before, client.after, client.flow);
        self.relink(after, |next| next.before = before);
        if before != NONE {
            return self.relink(before, |previous| previous.after = after);
        }
        if let Some(key) = self.peer_flows.key(&flow) {
            match after {
                NONE => self.unanswered.remove(&key),
                first => self.unanswered.insert(key, first),
            };
        }
    }

    pub(super) fn relink(&mut self, slot: u32, change: impl FnOnce(&mut Client)) {
        let id = self.clients.tenant(slot).map(|(id, _)| id);
        if let Some(client) = id.and_then(|id| self.clients.get_mut(id)) {
            change(client);
        }
    }

    /// Moves those that wait on a connection and have heard nothing into `ids`, the youngest first; they are then in no list.
    pub fn take_unanswered(&mut self, flow: &Flow, ids: &mut Vec<Id>) {
        let first = self.peer_flows.key(flow);
        let mut slot = first.and_then(|key| self.unanswered.remove(&key));
        while let Some(id) = slot.and_then(|slot| Some(self.clients.tenant(slot)?.0)) {
            ids.push(id);
            slot = self.clients.get_mut(id).map(|client| {
                client.listed = false;
                client.after
            });
        }
    }
}
