//! The records of all transactions of one core, and the code that carries out the machines' actions.

#[cfg(debug_assertions)]
mod check;
mod client;
mod room;
mod server;
mod time;
mod unanswered;

use super::clock::Clock;
use super::directory::{Directory, Link};
use super::refused::Refused;
use super::{invite_client, invite_server, non_invite_client, non_invite_server};
use crate::base::{
    Arena, Blob, BuildPrehashed, Channel, Flow, Id, Instant, Key, OptionalId, Outbox, Pool, ShareHolder, Shares, Sources, Wheel,
};
use crate::settings::Timers;
use crate::sip::Index;
use crate::stack::counters::Limit;
use crate::stack::health::{NamedBy, Neighbour};
use crate::stack::identity::Dialog;
use crate::stack::peer_flows::PeerFlows;
use crate::stack::route_counters::RowId;
use crate::stack::settings::PerCore;
use std::collections::HashMap;
use std::sync::Arc;

const UNBOUNDED: u32 = u32::MAX;

const UNBOUNDED_REPEATS: u8 = u8::MAX;

/// Who is charged for a transaction and the bytes of its request.
#[derive(Clone, Copy, Default)]
pub struct Holders {
    /// Where the request came from.
    pub source: ShareHolder,
    /// The address-of-record that it is for.
    pub aor: ShareHolder,
}

/// 128 keyed bits, aligned as the other fields are: alignment of its own would cost each record 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, packed(8))]
struct ServerKey(u128);

/// A server transaction: one request that came, its answers, and where they go.
pub struct Server {
    /// Identifies the transaction (§17.2.3).
    key: ServerKey,
    /// Where responses go (§18.2.2).
    pub flow: Flow,
    /// The response context (§16.7) while the request waits for its final response.
    pub context: OptionalId,
    /// The previous hop is to be told of our load (RFC 7339).
    pub offers_control: bool,
    /// What is sent again if the request comes again.
    response: Blob,
    clock: Clock,
    state: ServerState,
    /// Bytes that answers may still use ([`Transactions::bound_answers`]).
    room: u32,
    /// Whose shares it uses.
    holders: Holders,
    /// The next in the same chain of the directory.
    next: Link,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerState {
    Invite(invite_server::State),
    NonInvite(non_invite_server::State),
}

/// A client transaction: one branch of a forwarded request, or a CANCEL.
pub struct Client {
    pub kind: ClientKind,
    /// Where the request went.
    pub flow: Flow,
    /// The server transaction that this branch serves; it may be gone.
    pub server: Id,
    /// Max-Breadth given to this branch (RFC 5393).
    pub breadth: u32,
    /// A CANCEL follows as soon as a provisional response allows it (§9.1).
    pub cancel_wanted: bool,
    /// The index of its target.
    pub target: u16,
    /// Where its end is counted.
    pub row: RowId,
    /// To be tried again by UDP if no connection is established (§18.1.1).
    pub by_size: bool,
    /// What identifies the request as one that opens a dialog, if that was worked out: its responses share it.
    pub opening: Option<Dialog>,
    /// Number of challenges of the next hop answered with a trunk's password on the way to this branch.
    pub answered: u8,
    /// What ends with this branch.
    pub ends: Ends,
    /// The name of its next hop, and when the request was sent to it.
    pub named_by: NamedBy,
    pub sent_at: Instant,
    /// Whether its request's context waits for it.
    pub hope: Hope,
    /// True while it is in the list of those that wait on a connection and have heard nothing.
    listed: bool,
    /// Its neighbours in that list, by slot.
    before: u32,
    after: u32,
    /// How often it may be retransmitted ([`Client::bound_repeats`]).
    repeats: u8,
    /// Bytes granted to it for a place that had proved nothing.
    pub unproved: u32,
    /// The CANCEL's own transaction, once one was sent.
    pub cancel: OptionalId,
    /// The request while it may have to be retransmitted or cancelled, then the ACK to a non-2xx.
    sent: Blob,
    clock: Clock,
    /// When timer C fires (INVITE only).
    c_at: Instant,
    state: ClientState,
}

// Many are kept for a while after their end: whoever makes them larger is to know it.
const _: () = assert!(size_of::<Server>() <= 152 && size_of::<Client>() <= 192);

/// What a final response to a branch ends, for next hops with one connection per call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ends {
    /// Nothing: the dialog in which the request was sent goes on.
    Nothing,
    /// The call, unless the response is a 2xx: the request may open a dialog.
    Attempt,
    /// The request itself, which stands alone.
    Request,
    /// The call: the request is a BYE.
    Call,
}

/// What is expected of a branch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hope {
    /// Its answer is waited for.
    Awaited,
    /// Its patience has ended: it may still answer, but others are not kept waiting for it.
    Silent,
    /// Another next hop is tried in its place.
    GivenUp,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientKind {
    Invite,
    NonInvite,
    /// Our own CANCEL of another branch; its outcome does not matter.
    Cancel,
    /// A request of our own other than INVITE: it has no server transaction.
    Own,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientState {
    Invite(invite_client::State),
    NonInvite(non_invite_client::State),
}

/// What a timer or the transport did that the transaction user must know of.
pub enum Notice {
    /// No final response came (§16.8, timers B, F); the record is gone.
    ClientTimeout(Client),
    /// The request could not be delivered (§16.9); the record is gone.
    ClientFailure(Client),
    /// Timer C fired with a provisional response seen (§16.8): cancel the branch.
    TimerC(Id),
    /// Nothing was heard of this branch until its patience ended.
    Silent(Id),
    /// A non-INVITE has waited as long as RFC 4320 allows without a 100.
    Late(Id),
    /// A non-INVITE was never answered, and its client has given up; this is its response context.
    Expired(Id),
}

const CLIENT_TOKEN: u32 = 1 << 31;

/// Number of calls whose ACK is awaited: an ACK follows its 2xx within a moment.
const ACCEPTED: usize = 1 << 14;

/// All transactions of one core.
pub struct Transactions {
    timers: Timers,
    servers: Arena<Server>,
    clients: Arena<Client>,
    directory: Directory,
    /// INVITEs that ended here with a non-2xx, and whose ACK may still come.
    pub refused: Refused,
    /// Calls recently answered with a 2xx, by Call-ID and the caller's tag: they identify an ACK that shows no route.
    pub accepted: Refused,
    /// The client transactions that wait on a connection and have heard nothing, one list per connection: its first, by slot.
    unanswered: HashMap<u128, u32, BuildPrehashed>,
    peer_flows: PeerFlows,
    /// How many transactions, and how many bytes of requests, each holder has.
    pub shares: Shares,
    bytes: Shares,
    /// Which places have proved that they receive from us.
    pub sources: Arc<Sources>,
    /// Reused for each name of a peer.
    host: Vec<u8>,
    wheel: Wheel,
    pub pool: Pool,
    index: Index,
    limit: usize,
    /// Bytes of messages above which nothing new begins.
    limit_bytes: usize,
    /// Requests and ACKs retransmitted.
    pub client_retransmissions: u64,
    /// Responses retransmitted by timer G.
    pub server_retransmissions: u64,
    /// Answers, and retransmissions of requests, that were not sent to a place that has proved nothing.
    pub answers_kept_back: u64,
}

impl Transactions {
    /// The limit of server transactions is fixed: the directory is sized for it once.
    pub fn new(timers: Timers, limits: &PerCore, peer_flows: PeerFlows, sources: Arc<Sources>, secret: Key) -> Transactions {
        let mut transactions = Transactions {
            limit: 0,
            limit_bytes: 0,
            directory: Directory::new(limits.transactions),
            refused: Refused::default(),
            accepted: Refused::with_places(ACCEPTED),
            unanswered: HashMap::default(),
            peer_flows,
            shares: Shares::new(secret),
            bytes: Shares::new(secret),
            sources,
            host: Vec::new(),
            timers: timers.clone(),
            servers: Arena::default(),
            clients: Arena::default(),
            wheel: Wheel::default(),
            pool: Pool::default(),
            index: Index::default(),
            client_retransmissions: 0,
            server_retransmissions: 0,
            answers_kept_back: 0,
        };
        transactions.configure(timers, limits);
        transactions
    }

    /// Sets new timer values and limits, for transactions that begin from now on.
    pub fn configure(&mut self, timers: Timers, limits: &PerCore) {
        self.timers = timers;
        self.limit = limits.transactions.min(self.directory.capacity());
        self.limit_bytes = limits.transaction_bytes;
        // Transactions in progress may bring answers, which are kept too; twice as much is the hard limit.
        self.pool.set_limit(self.limit_bytes.saturating_mul(2));
    }

    /// Whether there is no room for another transaction: returns the limit that is reached.
    pub fn is_full(&self) -> Option<Limit> {
        if self.servers.len() >= self.limit {
            return Some(Limit::Transactions);
        }
        (self.pool.held_bytes() >= self.limit_bytes).then_some(Limit::TransactionBytes)
    }

    pub fn server_count(&self) -> usize {
        self.servers.len()
    }

    pub fn client_count(&self) -> usize {
        self.clients.len()
    }

    pub fn timer_count(&self) -> usize {
        self.wheel.added()
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        self.wheel.next_timeout()
    }
}

impl Client {
    /// Returns where the request was sent, as a key for health.
    pub fn neighbour(&self) -> Neighbour {
        Neighbour { named_by: self.named_by, transport: self.flow.transport, address: self.flow.peer }
    }
}

impl Server {
    pub fn is_invite(&self) -> bool {
        matches!(self.state, ServerState::Invite(_))
    }
}

/// Gives the wires the name of a peer to which a connection may have to be opened.
pub fn introduce(flow: &Flow, host: &[u8], identity: u64, outbox: &mut Outbox) {
    if let Channel::Peer { name, .. } = flow.channel
        && name != 0
        && outbox.introductions.last().is_none_or(|last| last.name != name)
    {
        outbox.introduce(name, host, identity);
    }
}

impl ClientState {
    /// True until the first response.
    fn is_unanswered(self) -> bool {
        matches!(
            self,
            ClientState::Invite(invite_client::State::Calling) | ClientState::NonInvite(non_invite_client::State::Trying)
        )
    }

    fn is_pending(self) -> bool {
        use invite_client::State as I;
        use non_invite_client::State as N;
        matches!(self, ClientState::Invite(I::Calling | I::Proceeding) | ClientState::NonInvite(N::Trying | N::Proceeding))
    }
}
