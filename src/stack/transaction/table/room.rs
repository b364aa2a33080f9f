//! How much a transaction may send to a place that has not proved that it receives from us ([`crate::stack::proxy::unproved`]), and
//! how many transactions one source, or one called address-of-record, may hold.

use super::super::{invite_server, non_invite_server};
use super::{Client, Holders, Server, ServerState, Transactions, UNBOUNDED, UNBOUNDED_REPEATS};
use crate::base::{Id, Instant, ShareHolder, Sources};
use crate::stack::counters::Limit;

/// Shares of memory are counted in units of this many bytes.
const PIECE: usize = 64;

impl Transactions {
    /// Whether these holders have no room for another transaction: returns the limit that is reached.
    pub fn is_full_for(&self, holders: Holders) -> Option<Limit> {
        if let Some(limit) = self.is_full() {
            return Some(limit);
        }
        let free = self.limit - self.servers.len();
        let free_bytes = self.limit_bytes.saturating_sub(self.pool.held_bytes());
        if !self.shares.admits(holders.source, free, self.limit)
            || !self.bytes.admits(holders.source, free_bytes / PIECE, self.limit_bytes / PIECE)
        {
            return Some(Limit::TransactionsOfSource);
        }
        (!self.shares.admits(holders.aor, free, self.limit)).then_some(Limit::TransactionsOfAor)
    }

    /// Counts a transaction that was opened for them.
    pub fn hold(&mut self, id: Id, holders: Holders) {
        if let Some(server) = self.servers.get_mut(id) {
            server.holders = holders;
            self.shares.take(holders.source, 1);
            self.shares.take(holders.aor, 1);
        }
    }

    pub(super) fn give_back(&self, holders: Holders) {
        self.shares.give_back(holders.source, 1);
        self.shares.give_back(holders.aor, 1);
    }

    /// Counts the bytes of a request that waits for its answer.
    pub fn hold_bytes(&self, source: ShareHolder, len: usize) {
        self.bytes.take(source, pieces(len));
    }

    pub fn give_back_bytes(&self, source: ShareHolder, len: usize) {
        self.bytes.give_back(source, pieces(len));
    }

    /// Limits its answers to this many bytes in total, each retransmission counted: their destination may be a third party that has
    /// asked for nothing. The first final one is always sent.
    pub fn bound_answers(&mut self, id: Id, room: u32) {
        if let Some(server) = self.servers.get_mut(id) {
            server.room = room;
        }
    }

    /// Another callee has answered with a 2xx of this many bytes: the first is always sent, and so is this one.
    pub fn allow_another_success(&mut self, id: Id, len: usize) {
        if self.servers.get(id).is_some_and(|server| !server.is_unanswered()) {
            // With our Record-Route it may be longer when it is sent.
            self.extend_answers(id, 2 * len);
        }
    }

    /// The request came again: its answers may have this many more bytes.
    pub fn extend_answers(&mut self, id: Id, room: usize) {
        if let Some(server) = self.servers.get_mut(id)
            && server.room != UNBOUNDED
        {
            let room = u32::try_from(room).unwrap_or(u32::MAX);
            server.room = server.room.saturating_add(room).min(UNBOUNDED - 1);
        }
    }

    /// Whether an answer of `len` bytes is sent. The first final one always is.
    pub(super) fn may_answer(&mut self, now: Instant, id: Id, status: u16, len: usize) -> bool {
        let Some(server) = self.servers.get_mut(id) else {
            return false;
        };
        if server.room == UNBOUNDED {
            return true;
        }
        let is_awaited = status >= 200 && server.is_unanswered();
        if len > server.room as usize && !is_awaited {
            let is_there = self.sources.proved.knows_address(now, server.flow.peer.ip());
            self.answers_kept_back += u64::from(!is_there);
            return is_there;
        }
        server.room = server.room.saturating_sub(len as u32);
        true
    }
}

fn pieces(len: usize) -> u32 {
    u32::try_from(len.div_ceil(PIECE)).unwrap_or(u32::MAX)
}

impl Server {
    /// Whether its answer of `len` bytes is retransmitted.
    pub(super) fn may_repeat(&mut self, now: Instant, len: usize, sources: &Sources) -> bool {
        if self.room == UNBOUNDED {
            return true;
        }
        if len > self.room as usize {
            return sources.proved.knows_address(now, self.flow.peer.ip());
        }
        self.room -= len as u32;
        true
    }

    /// True if no final answer was sent.
    fn is_unanswered(&self) -> bool {
        matches!(
            self.state,
            ServerState::Invite(invite_server::State::Proceeding)
                | ServerState::NonInvite(non_invite_server::State::Trying | non_invite_server::State::Proceeding)
        )
    }
}

impl Client {
    /// Limits how often it is retransmitted: its destination may be an uninvolved third party.
    pub fn bound_repeats(&mut self, repeats: usize) {
        self.repeats = u8::try_from(repeats).map_or(UNBOUNDED_REPEATS - 1, |repeats| repeats.min(UNBOUNDED_REPEATS - 1));
    }

    /// Whether it may be retransmitted once more.
    pub(super) fn may_repeat(&mut self, now: Instant, sources: &Sources) -> bool {
        match self.repeats {
            UNBOUNDED_REPEATS => true,
            0 => sources.proved.knows_address(now, self.flow.peer.ip()),
            _ => {
                self.repeats -= 1;
                true
            }
        }
    }
}
