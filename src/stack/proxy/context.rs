//! The response context (RFC 3261 §16.7): what a stateful proxy remembers of a request until its final response has left.

use crate::base::{Arena, Blob, Flow, Id, Instant, OptionalId, Pool, ShareHolder};
use crate::stack::branch::Mark;
use crate::stack::calls::Ending;
use crate::stack::identity::Dialog;
use crate::stack::proxy::locate::{ServerAddress, Tried};
use crate::stack::proxy::target::{Target, TargetSet};
use crate::stack::transaction::Transactions;

/// One request that waits for its final response. Its allocations are reused.
#[derive(Default)]
pub struct Context {
    /// The request as it came, for sequential branches and for answers of our own.
    pub request: Blob,
    pub source: Option<Flow>,
    /// Whose share of memory the request uses, and how many bytes.
    pub holder: ShareHolder,
    pub held_bytes: usize,
    /// Client transactions that have not ended and whose answers are waited for.
    pub branches: Vec<Id>,
    /// Those whose patience has ended: they may still answer, but are not waited for if there is anything else.
    pub silent: Vec<Id>,
    /// Branches that wait for a name, by their names in the endpoint.
    pub parked: Vec<Id>,
    /// Where names have led the branches so far: the positions for RFC 3263 §4.3.
    pub tried: Vec<Tried>,
    /// Targets not yet tried, in order.
    pub targets: TargetSet,
    /// Index of the next target to try.
    pub next_target: usize,
    /// What our Via says of the request, and what identifies the request: the same for every copy.
    pub mark: Mark,
    pub opening: Option<Dialog>,
    /// The call that the request opens, if records of calls are kept.
    pub call: Option<u64>,
    /// What it ends if it is a BYE, likewise.
    pub ending: Option<Ending>,
    /// When the request came.
    pub begun: Instant,
    /// The remainder of the request's Max-Breadth (RFC 5393 §5.3.3).
    pub breadth: u32,
    /// Bytes that may still be sent to places that have proved nothing; `None`: unlimited.
    pub unproved_room: Option<usize>,
    /// The request has been here before: the breadth given to a branch does not come back.
    pub spiral: bool,
    /// The best final response so far, ready to be sent upstream.
    pub best: Blob,
    pub best_status: u16,
    /// Challenges of all 401 and 407 so far, as header lines (§16.7 step 7), and how many responses brought them.
    pub challenges: Vec<u8>,
    pub challenged: u32,
    /// Bytes of challenges that may still be kept.
    challenge_room: usize,
    /// The caller has cancelled, or a 6xx has come: no new branches.
    pub closed: bool,
    /// The caller has cancelled.
    pub cancelled: bool,
    /// A carrier has refused the password of the trunk.
    pub is_trunk_refused: bool,
    /// What the last copy carried that answered a challenge.
    pub sent_answer: Option<SentAnswer>,
}

/// Answers to a carrier's challenges, as one copy carried them.
#[derive(Debug)]
pub struct SentAnswer {
    /// The target's index.
    pub target: u16,
    /// The realm of the last of them.
    pub realm: Vec<u8>,
    /// Whole header lines.
    pub lines: Vec<u8>,
}

/// The status assumed for a final response that is no answer to the request (§21.5.3).
pub const INVALID_RESPONSE: u16 = 502;

/// Contexts that are always kept for the next requests, and how many are freed at a time after a peak.
const KEPT: usize = 256;
const GIVEN_BACK_AT_ONCE: usize = 256;

/// The contexts of one core's requests, and those kept for reuse. A context is large, and is moved out and back for every request:
/// a box moves as one word.
#[derive(Default)]
pub struct Contexts {
    list: Arena<Box<Context>>,
    #[allow(clippy::vec_box)]
    spare: Vec<Box<Context>>,
}

impl Contexts {
    /// Requests that wait for their final response.
    pub fn count(&self) -> usize {
        self.list.len()
    }

    pub fn get(&self, id: Id) -> Option<&Context> {
        self.list.get(id).map(|context| &**context)
    }

    pub fn get_mut(&mut self, id: Id) -> Option<&mut Context> {
        self.list.get_mut(id).map(|context| &mut **context)
    }

    /// Takes a clean context, outside the list.
    pub fn begin(&mut self) -> Box<Context> {
        self.spare.pop().unwrap_or_default()
    }

    pub fn insert(&mut self, context: Box<Context>) -> Id {
        self.list.insert(context)
    }

    pub fn remove(&mut self, id: Id) -> Option<Box<Context>> {
        self.list.remove(id)
    }

    /// Takes the context out of its server transaction, which then waits for nothing.
    pub fn take(&mut self, server: Id, transactions: &mut Transactions) -> Option<Box<Context>> {
        let context = &mut transactions.server_mut(server)?.context;
        let id = std::mem::replace(context, OptionalId::NONE).get()?;
        self.list.remove(id)
    }

    /// Takes the context out temporarily; a spare one keeps its place until [`Contexts::put_back`].
    pub fn lend(&mut self, id: Id) -> Option<Box<Context>> {
        let slot = self.list.get_mut(id)?;
        let spare = self.spare.pop().unwrap_or_default();
        Some(std::mem::replace(slot, spare))
    }

    pub fn put_back(&mut self, id: Id, context: Box<Context>) {
        debug_assert!(self.list.get(id).is_some(), "a context that was lent has its place");
        if let Some(slot) = self.list.get_mut(id) {
            let spare = std::mem::replace(slot, context);
            self.spare.push(spare);
        }
    }

    /// Releases the bytes of a context that has ended and keeps its allocations for the next. Nothing of it may wait for a name.
    pub fn recycle(&mut self, mut context: Box<Context>, transactions: &mut Transactions) {
        transactions.give_back_bytes(context.holder, context.held_bytes);
        transactions.pool.release(&mut context.request);
        transactions.pool.release(&mut context.best);
        context.clear();
        self.spare.push(context);
    }

    /// After a peak: frees some of the spare contexts.
    pub fn trim(&mut self) {
        let kept = self.spare.len().saturating_sub(GIVEN_BACK_AT_ONCE);
        self.spare.truncate(kept.max(KEPT));
    }

    #[cfg(debug_assertions)]
    pub fn check(&self) {
        self.list.check();
    }
}

/// Capacity in bytes that a context keeps for the next request.
const KEPT_TEXT: usize = 4096;

/// Bytes of challenges kept from branches after the first, if the first leaves room for them in a message.
const MORE_CHALLENGES: usize = 8192;
const LONGEST: usize = 64_000;

impl Context {
    /// Keeps the challenges of a 401 or 407 (§16.7 step 7) of `len` bytes, whole lines. Those of the first are always kept: they
    /// came in a message that fits, and leave in it. Of the others, as many as fit beside it; returns how many lines did not.
    pub fn add_challenges<'l>(&mut self, len: usize, lines: impl Iterator<Item = &'l [u8]>) -> usize {
        let is_first = self.challenged == 0;
        self.challenged += 1;
        if is_first {
            self.challenge_room = LONGEST.saturating_sub(len).min(MORE_CHALLENGES);
        }
        let mut left_out = 0;
        for line in lines {
            match self.challenge_room.checked_sub(line.len()) {
                _ if is_first => {}
                Some(room) => self.challenge_room = room,
                None => {
                    left_out += 1;
                    continue;
                }
            }
            self.challenges.extend_from_slice(line);
        }
        left_out
    }

    /// A copy of this many bytes was sent to a place that has proved nothing.
    pub fn spend(&mut self, unproved: u32) {
        if let Some(room) = &mut self.unproved_room {
            *room = room.saturating_sub(unproved as usize);
        }
    }

    /// The place has answered after all, or the network has reported that nobody is there.
    pub fn refund(&mut self, unproved: u32) {
        if let Some(room) = &mut self.unproved_room {
            *room = room.saturating_add(unproved as usize);
        }
    }

    /// A branch has ended; its breadth is free again.
    pub fn reclaim(&mut self, breadth: u32) {
        if !self.spiral {
            self.breadth += breadth;
        }
    }

    /// A branch that failed without a response counts as one with `status` (§16.8: 408, §16.9: 503).
    pub fn note_failure(&mut self, status: u16, pool: &mut Pool) {
        if is_better(status, self.best_status) {
            self.best_status = status;
            pool.release(&mut self.best);
        }
    }

    /// Nothing is under way and nothing waits, except silent branches.
    pub fn is_idle(&self) -> bool {
        self.branches.is_empty() && self.parked.is_empty()
    }

    /// All awaited answers have come: silent branches count if no other branch has answered about the request itself.
    pub fn is_over(&self) -> bool {
        self.is_idle() && (self.silent.is_empty() || !matches!(self.best_status, 0 | 408 | 503))
    }

    /// Removes a branch that has ended, or is given up. False: it was removed before.
    pub fn take_out(&mut self, id: Id) -> bool {
        let before = self.branches.len() + self.silent.len();
        self.branches.retain(|branch| *branch != id);
        self.silent.retain(|branch| *branch != id);
        self.branches.len() + self.silent.len() < before
    }

    /// All branches that may still answer.
    pub fn all_branches(&self) -> impl Iterator<Item = Id> {
        self.branches.iter().chain(&self.silent).copied()
    }

    pub fn note_tried(&mut self, target: u16, server_address: Option<ServerAddress>) {
        if let Some(server_address) = server_address {
            self.tried.push(Tried { target, server_address });
        }
    }

    /// Where the target's name has led last; `None` if it is not a name.
    pub fn last_tried(&self, target: u16) -> Option<ServerAddress> {
        let own = |tried: &&Tried| tried.target == target;
        self.tried.iter().rev().find(own).map(|tried| tried.server_address)
    }

    /// Forgets the spare next hops: one has answered.
    pub fn drop_spares(&mut self) {
        let targets = &mut self.targets.targets;
        while targets.len() > self.next_target && targets.last().is_some_and(|last| last.spare) {
            targets.pop();
        }
    }

    /// Whether this final response of a target means that the next one, if there is one, is to be tried.
    pub fn is_failure(&self, target: u16, status: u16) -> bool {
        let is_by_conf = || self.targets.targets.get(usize::from(target)).is_some_and(Target::is_by_conf);
        self.targets.failover.have(status) && (status == 503 || is_by_conf())
    }

    /// Resets the context, keeping its allocations except those that only one large message has needed. The blobs must have been
    /// released.
    pub fn clear(&mut self) {
        if self.targets.text.capacity() > KEPT_TEXT {
            self.targets.text = Vec::new();
        }
        if self.challenges.capacity() > KEPT_TEXT {
            self.challenges = Vec::new();
        }
        self.source = None;
        self.holder = ShareHolder::NOBODY;
        self.held_bytes = 0;
        self.branches.clear();
        self.silent.clear();
        self.parked.clear();
        self.tried.clear();
        self.targets.clear();
        self.next_target = 0;
        self.mark = Mark::default();
        self.opening = None;
        (self.call, self.ending) = (None, None);
        self.breadth = 0;
        self.unproved_room = None;
        self.spiral = false;
        self.best_status = 0;
        self.challenges.clear();
        self.challenged = 0;
        self.challenge_room = 0;
        self.closed = false;
        self.cancelled = false;
        self.is_trunk_refused = false;
        self.sent_answer = None;
    }
}

/// True if `new` is a better answer than `old` (§16.7 step 6); 0 is no answer at all.
pub fn is_better(new: u16, old: u16) -> bool {
    rank(new) < rank(old)
}

fn rank(status: u16) -> (u8, u8) {
    match status {
        // Any 6xx wins.
        600.. => (0, 0),
        0 => (u8::MAX, 0),
        // Then the lowest class; in 4xx first those that tell the caller how to try again; a timeout last.
        401 | 407 | 415 | 420 | 484 => (4, 0),
        408 => (4, 2),
        // A 503 says nothing about the request: the other 5xx say more.
        503 => (5, 1),
        _ => ((status / 100) as u8, if status / 100 == 4 { 1 } else { 0 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_response_in_order() {
        let order = [603, 302, 401, 486, 408, 500, 503, 0];
        for pair in order.windows(2) {
            assert!(is_better(pair[0], pair[1]), "{pair:?}");
            assert!(!is_better(pair[1], pair[0]), "{pair:?}");
        }
        // Among equals the first one stays.
        assert!(!is_better(486, 404));
        assert!(!is_better(404, 486));
    }
}
