//! How much a transaction may send to a place that has not proved to hear us ([`crate::stack::proxy::unproved`]).

use super::super::{invite_server, non_invite_server};
use super::{Client, Server, ServerState, Transactions};
use crate::base::{Id, Instant, Sources};

pub const UNBOUNDED: u32 = u32::MAX;
pub const UNBOUNDED_REPEATS: u8 = u8::MAX;

impl Transactions {
    /// Its answers may have so many bytes together, each repetition counted: where they go somebody may be who has asked nothing. The first
    /// final one always leaves.
    pub fn bound_answers(&mut self, id: Id, room: u32) {
        if let Some(server) = self.servers.get_mut(id) {
            server.room = room;
        }
    }

    /// Another callee has answered with a 2xx of so many bytes: the first always leaves, and so does this one.
    pub fn allow_another_success(&mut self, id: Id, len: usize) {
        if self
            .servers
            .get(id)
            .is_some_and(|server| !server.is_unanswered())
        {
            // With our Record-Route it may be longer when it leaves.
            self.extend_answers(id, 2 * len);
        }
    }

    /// The request came again, and its answers may have so many bytes more.
    pub fn extend_answers(&mut self, id: Id, room: usize) {
        if let Some(server) = self.servers.get_mut(id)
            && server.room != UNBOUNDED
        {
            let room = u32::try_from(room).unwrap_or(u32::MAX);
            server.room = server.room.saturating_add(room).min(UNBOUNDED - 1);
        }
    }

    /// Whether an answer of `len` bytes leaves. The first final one does in any case.
    pub(super) fn may_answer(&mut self, now: Instant, id: Id, status: u16, len: usize) -> bool {
        let Some(server) = self.servers.get_mut(id) else {
            return false;
        };
        if server.room == UNBOUNDED {
            return true;
        }
        let is_awaited = status >= 200 && server.is_unanswered();
        if len > server.room as usize && !is_awaited {
            let is_there = self
                .sources
                .proved
                .knows_address(now, server.flow.peer.ip());
            self.answers_kept_back += u64::from(!is_there);
            return is_there;
        }
        server.room = server.room.saturating_sub(len as u32);
        true
    }
}

impl Server {
    /// Whether its answer of `len` bytes is repeated.
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

    /// No final answer has left.
    fn is_unanswered(&self) -> bool {
        matches!(
            self.state,
            ServerState::Invite(invite_server::State::Proceeding)
                | ServerState::NonInvite(
                    non_invite_server::State::Trying | non_invite_server::State::Proceeding
                )
        )
    }
}

impl Client {
    /// After the first copy it leaves so often at most: where it goes somebody may be who has nothing to do with it.
    pub fn bound_repeats(&mut self, repeats: usize) {
        self.repeats = u8::try_from(repeats).map_or(UNBOUNDED_REPEATS - 1, |repeats| {
            repeats.min(UNBOUNDED_REPEATS - 1)
        });
    }

    /// Whether it is repeated once more.
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
