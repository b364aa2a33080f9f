//! One core's SIP element: it reads what arrives, finds out which layer it belongs to, and hands it there. The transaction layer,
//! the proxy and the registrar do the work.

use crate::base::dns::Answer;
use crate::base::{Errand, Flow, Id, Instant, Key, LiveConnections, Load, Outbox, Question, Shed, Sources};
use crate::sip::{Fault, Index, Message, Method, Name, Via, sniff};
use crate::stack::auth::nonce::Nonces;
use crate::stack::auth::users::Users;
use crate::stack::branch::Branch;
use crate::stack::calls::Calls;
use crate::stack::core::Core;
use crate::stack::counterpart::{Bequest, Counterpart};
use crate::stack::counters::{Drop, Limit, MethodLabel, Side};
use crate::stack::crossing::NO_SUCH_CORE;
use crate::stack::element::Element;
use crate::stack::health::{Cause, Health};
use crate::stack::location::Progress;
use crate::stack::other_secret::OtherSecret;
use crate::stack::overload::Verdict;
use crate::stack::preprocess::bad;
use crate::stack::proxy::Proxy;
use crate::stack::proxy::targets::Decision;
use crate::stack::proxy::validate::check_secure;
use crate::stack::refusal::Refusal;
use crate::stack::registrar::Registrar;
use crate::stack::request::Request;
use crate::stack::settings::Mode;
use crate::stack::transaction::{ClientKind, Notice, Server, ServerEvent, Transactions};
use crate::stack::trunk_table::TrunkTable;
use crate::stack::turn::Turn;
use crate::stack::uac::Uac;
use crate::stack::{Counters, Location, Occupancy, Settings};
use std::sync::Arc;

/// Bytes that must have been freed before the allocator is asked to return them, both while more are being freed and once that is
/// over.
const FREED_MEANWHILE: usize = 64 << 20;
const FREED_AT_LAST: usize = 1 << 20;

/// Owned by one worker, or by the laboratory.
pub struct Endpoint {
    pub(in crate::stack) core: Core,
    pub(in crate::stack) transactions: Transactions,
    pub(in crate::stack) proxy: Proxy,
    registrar: Registrar,
    uac: Uac,
    /// Lent to the current message. A box moves as one word.
    index: Option<Box<Index>>,
    /// Scratch buffer for a message that has waited.
    waiting: Vec<u8>,
    /// Scratch list of client transactions, kept to reuse its allocation.
    ids: Vec<Id>,
    /// Bytes freed since [`Endpoint::take_freed`] last reported them.
    freed: usize,
}

impl Endpoint {
    /// Creates the endpoint. `secret` is the server's, the same on every core; `core` is this core's number, from 0.
    pub fn new(settings: Arc<Settings>, location: Arc<Location>, live: Arc<LiveConnections>, core: u8, secret: Key) -> Endpoint {
        let core = Core::new(settings, location, live, core, secret);
        let transactions = Transactions::new(
            core.settings.timers.clone(),
            &core.settings.per_core,
            core.peer_flows.clone(),
            core.sources.clone(),
            secret,
        );
        Endpoint {
            uac: Uac::new(secret, core.number == 0, &core.settings),
            core,
            transactions,
            proxy: Proxy::default(),
            registrar: Registrar::default(),
            index: None,
            waiting: Vec::new(),
            ids: Vec::new(),
            freed: 0,
        }
    }

    /// Sets the time since 1970 at [`Instant`] zero, in milliseconds: servers that share a secret recognise each other's passages.
    pub fn set_clock(&mut self, wall_ms: u64) {
        self.core.wall_ms = wall_ms;
        self.core.date.set_clock(wall_ms);
    }

    /// Shares nonces with the other cores. Otherwise a nonce's counts are known to this core only, and nonces of an earlier run can
    /// be used once more.
    pub fn share_nonces(&mut self, nonces: Arc<Nonces>) {
        self.core.cookies.begin(nonces.run());
        self.core.signer.begin(nonces.run());
        self.core.nonces = nonces;
    }

    /// Accepts what these secrets have signed, besides the one that everything is signed with.
    pub fn accept_secrets(&mut self, others: &[Key]) {
        self.core.others = others.iter().map(|secret| OtherSecret::new(*secret)).collect();
    }

    /// Shares what the other cores know about senders.
    pub fn share_sources(&mut self, sources: Arc<Sources>) {
        self.transactions.sources = sources.clone();
        self.core.sources = sources;
    }

    /// Shares the table of calls that leave records. Otherwise no call leaves one.
    pub fn share_calls(&mut self, calls: Option<Arc<Calls>>) {
        self.core.calls = calls;
    }

    /// Shares what the other cores know about next hops.
    pub fn share_health(&mut self, health: Arc<Health>) {
        self.core.health = health;
    }

    /// Sets the table in which the state of the trunks is published.
    pub fn share_trunks(&mut self, trunks: Arc<TrunkTable>) {
        self.core.answering.share(trunks.counts.clone());
        self.core.trunks = trunks;
    }

    /// Takes in what a predecessor has left for all cores.
    pub fn inherit(&mut self, now: Instant, rules: &Bequest) {
        if self.core.number == 0 {
            self.core.location.moved.take_over(now, &rules.moved, rules.has_forgotten);
        }
    }

    /// Returns the number of URIs in REGISTERs that were compared as text: their cost beyond their own length.
    pub fn uris_compared(&self) -> u64 {
        self.registrar.uris_compared()
    }

    /// Returns the bytes of memory held for messages that outlive a turn, including free buffers.
    pub fn pool_bytes(&self) -> usize {
        self.transactions.pool.bytes()
    }

    #[inline]
    fn turn<'a>(&'a mut self, now: Instant, outbox: &'a mut Outbox) -> (Turn<'a>, &'a mut Proxy, &'a mut Registrar, &'a mut Uac) {
        let turn = Turn::new(now, &mut self.core, &mut self.transactions, outbox);
        (turn, &mut self.proxy, &mut self.registrar, &mut self.uac)
    }

    /// Returns false if nobody will be answered because of this message.
    fn receive(&mut self, now: Instant, flow: Flow, bytes: &[u8], errand: Option<Errand>, outbox: &mut Outbox) -> bool {
        let mut index = self.index.take().unwrap_or_default();
        let (mut turn, proxy, registrar, uac) = self.turn(now, outbox);
        if errand.is_none() && turn.passes_to_another_core(flow, bytes) {
            let is_heard = !turn.is_passed_over;
            self.index = Some(index);
            return is_heard;
        }
        match Message::parse(bytes, &mut index) {
            Ok(message) if message.is_request() => {
                receive_request(&mut turn, proxy, registrar, flow, &message, errand);
            }
            Ok(message) => receive_response(&mut turn, proxy, uac, flow, &message, errand),
            Err(_) if bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0)) => {
                turn.core.counters.drop(Drop::KeepAlive);
            }
            Err(fault) => turn.discard(flow, Drop::Unreadable, fault.reason()),
        }
        turn.core.overload.verdict = Verdict::Open;
        let is_heard = !turn.is_passed_over;
        self.index = Some(index);
        is_heard
    }
}

impl Element for Endpoint {
    /// Handles a message from a peer: one datagram, or one framed message of a stream. Returns false if it was dropped, or if it
    /// repeats a request that is still to be answered: then there is no answer to wait for.
    fn handle(&mut self, now: Instant, flow: Flow, bytes: &[u8], outbox: &mut Outbox) -> bool {
        if self.core.overload.makes_wait(now, flow, bytes, &mut self.transactions.pool) {
            return true;
        }
        self.receive(now, flow, bytes, None, outbox)
    }

    /// Handles the next of the calls that wait during overload.
    fn handle_waiting(&mut self, now: Instant, outbox: &mut Outbox) -> bool {
        let mut bytes = std::mem::take(&mut self.waiting);
        let flow = self.core.overload.next_waiting(now, &mut self.transactions.pool, &mut bytes);
        if let Some(flow) = flow {
            self.receive(now, flow, &bytes, None, outbox);
        }
        self.waiting = bytes;
        flow.is_some()
    }

    fn has_waiting(&self) -> bool {
        self.core.overload.has_waiting()
    }

    /// Handles a message from another core, with the flow on which that core received it.
    fn handle_mail(&mut self, now: Instant, errand: Errand, flow: Flow, bytes: &[u8], outbox: &mut Outbox) {
        self.receive(now, flow, bytes, Some(errand), outbox);
    }

    /// Returns whether a request carries what the question asks for. Nothing is counted and nothing changes.
    fn bears(&mut self, now: Instant, flow: Flow, bytes: &[u8], question: Question) -> bool {
        let index = self.index.get_or_insert_default();
        self.core.bears(now, flow, bytes, question, index)
    }

    /// Handles stream data that can no longer be framed (§18.3); `bytes` begins at the last boundary, and the connection will be
    /// closed. If the head can be read, even after lines that are not SIP, the request is answered, and true is returned. It is not
    /// processed.
    fn handle_unframed(&mut self, now: Instant, flow: Flow, bytes: &[u8], fault: Fault, outbox: &mut Outbox) -> bool {
        let mut index = self.index.take().unwrap_or_default();
        let (mut turn, ..) = self.turn(now, outbox);
        let behind = match fault {
            Fault::NotSip => sniff::request_behind(bytes).unwrap_or(0),
            _ => 0,
        };
        let bytes = bytes.get(behind..).unwrap_or_default();
        let mut is_answered = false;
        match Message::parse(bytes, &mut index) {
            Ok(message) if message.is_request() && message.method() != Method::Ack && message.header(Name::Via).is_some() => {
                let reason = match fault {
                    Fault::NotSip => "Behind What Is Not SIP",
                    fault => fault.reason(),
                };
                turn.refuse(&message, flow, Refusal::new(fault.status(), reason));
                is_answered = true;
            }
            _ => turn.core.counters.drop(Drop::Unreadable),
        }
        self.index = Some(index);
        is_answered
    }

    /// The transport reports that `sent`, a datagram of ours (or as much of it as came back), was not delivered: port unreachable.
    /// Only a branch with a correct check identifies a transaction, so a forged report cannot end one (§16.9, §18.4).
    fn handle_undelivered(&mut self, now: Instant, sent: &[u8], outbox: &mut Outbox) {
        // A response of ours carries a branch of ours too if its request passed through here twice.
        if sniff::kind(sent) != sniff::Kind::Request {
            return;
        }
        let branch = sniff::top_via_branch(sent).and_then(|text| self.core.signer.read(text));
        let Some(Branch::Stateful { core, id, .. }) = branch else {
            return;
        };
        // Our own CANCEL and ACK carry the INVITE's branch; their loss tells nothing that its timers would not.
        if core != self.core.number || matches!(sniff::method(sent), Method::Ack | Method::Cancel) {
            return;
        }
        let (mut turn, proxy, _, uac) = self.turn(now, outbox);
        if let Some(client) = turn.transactions.undelivered(now, id, turn.outbox) {
            let reason = match client.flow.transport.is_reliable() {
                true => "no connection takes it",
                false => "port unreachable",
            };
            if client.kind != ClientKind::Own {
                proxy.log_branch(&mut turn, client.server, client.flow, reason);
            }
            handle_notice(&mut turn, proxy, uac, Notice::ClientFailure(client));
        }
    }

    /// A connection is gone, or could not be opened. `flow` names it as it was requested ([`crate::base::Channel::Peer`]), or as it
    /// has been named since it opened.
    fn handle_flow_lost(&mut self, now: Instant, flow: Flow, outbox: &mut Outbox) {
        // A request that got a 1xx may still be answered over another connection (§18.2.2), so its timers decide. A binding's flow
        // is not among the live ones.
        let mut ids = std::mem::take(&mut self.ids);
        ids.clear();
        self.transactions.take_unanswered(&flow, &mut ids);
        let (mut turn, proxy, _, uac) = self.turn(now, outbox);
        for id in &ids {
            if let Some(client) = turn.transactions.undelivered(now, *id, turn.outbox) {
                if client.kind != ClientKind::Own {
                    proxy.log_branch(&mut turn, client.server, flow, "connection lost");
                }
                handle_notice(&mut turn, proxy, uac, Notice::ClientFailure(client));
            }
        }
        self.ids = ids;
    }

    /// Handles the resolver's answer to a question of the outbox, and resumes whatever waited for it.
    fn handle_answer(&mut self, now: Instant, answer: Answer, outbox: &mut Outbox) {
        let (mut turn, proxy, _, uac) = self.turn(now, outbox);
        proxy.handle_answer(&mut turn, answer);
        uac.look_again(&mut turn, proxy);
    }

    /// Fires the timers that are due.
    fn handle_timers(&mut self, now: Instant, outbox: &mut Outbox) {
        self.core.log.renew(now);
        self.core.guess_log.renew(now);
        self.core.health_log.renew(now);
        let gone = {
            let (mut turn, proxy, _, uac) = self.turn(now, outbox);
            proxy.end_overdue_waits(&mut turn);
            // After a peak, buffers unused for a while are freed, a bounded number in each turn.
            let gone = turn.transactions.pool.trim(now);
            if gone > 0 {
                proxy.contexts.trim();
            }
            while let Some(notice) = turn.transactions.poll(now, turn.outbox) {
                handle_notice(&mut turn, proxy, uac, notice);
            }
            turn.sweep_calls();
            uac.run(&mut turn, proxy);
            gone
        };
        self.freed += gone;
    }

    /// Returns whether enough memory was freed to make returning it to the system worthwhile; reports it once.
    fn take_freed(&mut self) -> bool {
        let enough = match self.transactions.pool.is_trimming() {
            true => FREED_MEANWHILE,
            false => FREED_AT_LAST,
        };
        if self.freed < enough {
            return self.core.location.take_freed();
        }
        self.freed = 0;
        true
    }

    /// Returns when [`Endpoint::handle_timers`] is next to be called.
    fn next_timeout(&self) -> Option<Instant> {
        let due = [
            self.transactions.next_timeout(),
            self.proxy.parking.next_timeout(),
            self.transactions.pool.next_trim(),
            self.core.next_sweep_of_calls(),
            self.uac.next_timeout(),
        ];
        due.into_iter().flatten().min()
    }

    /// Applies new settings to what comes next; transactions in progress keep their targets.
    fn handle_config(&mut self, settings: Arc<Settings>) {
        self.transactions.configure(settings.timers.clone(), &settings.per_core);
        self.uac.configure(self.core.number == 0, &settings);
        self.core.configure(settings);
    }

    /// From now on, no dialog begins here.
    fn handle_drain(&mut self) {
        self.core.is_draining = true;
        self.uac.drain();
    }

    /// From now on, the other process of a restart is there, or is there no more.
    fn handle_counterpart(&mut self, counterpart: Option<Counterpart>) {
        let is_left = matches!(counterpart, Some(Counterpart::Successor | Counterpart::Lost));
        self.uac.rest(is_left, self.core.number == 0, &self.core.settings);
        self.core.follow(counterpart);
    }

    /// Adds what a successor has to know of this core.
    fn bequeath(&self, now: Instant, bequest: &mut Bequest) {
        let core = self.core.number;
        bequest.run = self.core.nonces.run();
        bequest.transactions.extend(self.transactions.keys().map(|key| (key, core)));
        if core == 0 {
            bequest.sharing_run = self.core.location.shared().map_or(0, |shared| shared.own().run);
            bequest.has_forgotten = self.core.location.moved.write_all(now, &mut bequest.moved);
        }
    }

    fn handle_load(&mut self, now: Instant, load: Load) {
        self.core.note_load(now, load);
    }

    fn handle_clock(&mut self, wall_ms: u64) {
        self.core.date.set_clock(wall_ms);
    }

    /// Returns the latest time at which [`Element::handle_load`] is to be called.
    fn next_load(&self) -> Option<Instant> {
        self.core.overload.next_timeout()
    }

    /// Returns what the kernel is to drop before it is received; queried once per turn, after [`Element::handle_load`].
    fn shed(&self) -> Option<Shed> {
        self.core.overload.shed()
    }

    /// Installs new users for what comes next. Returns the previous ones: dropping millions of them takes a while.
    fn handle_users(&mut self, users: Arc<Users>) -> Arc<Users> {
        std::mem::replace(&mut self.core.users, users)
    }

    /// Returns how far writing to disk has progressed; answers may wait for it ([`Outbox::hold`]).
    fn progress(&self) -> Progress {
        self.core.location.progress()
    }

    fn stands_by(&self, answer: &[u8]) -> bool {
        let location = &self.core.location;
        !location.has_blocked() || !crate::stack::registrar::address_of(answer).is_some_and(|aor| location.is_blocked(&aor))
    }

    fn counters(&self) -> Counters {
        let mut counters = self.core.counters.clone();
        counters.retransmissions[Side::Client as usize] += self.transactions.client_retransmissions;
        counters.retransmissions[Side::Server as usize] += self.transactions.server_retransmissions;
        counters.limit_hits[Limit::Overload as usize] += self.core.overload.forgotten();
        counters.limit_hits[Limit::AnswerSize as usize] += self.transactions.answers_kept_back;
        counters
    }

    fn occupancy(&self) -> Occupancy {
        Occupancy {
            server_transactions: self.transactions.server_count(),
            client_transactions: self.transactions.client_count(),
            pending: self.proxy.contexts.count() + self.uac.pending(),
            timers: self.transactions.timer_count(),
            blobs: self.transactions.pool.held(),
            blob_bytes: self.transactions.pool.held_bytes(),
            parked: self.proxy.parking.count(),
            names: self.core.names.len(),
            calls: match (&self.core.calls, self.core.number) {
                (Some(calls), 0) => calls.len(),
                _ => 0,
            },
        }
    }
}

fn receive_request(
    turn: &mut Turn,
    proxy: &mut Proxy,
    registrar: &mut Registrar,
    flow: Flow,
    message: &Message,
    errand: Option<Errand>,
) {
    let method = message.method();
    if errand.is_none() {
        turn.core.counters.requests[MethodLabel::of(method) as usize] += 1;
    }
    // An ACK and a CANCEL look for their INVITE. The memory that finds a transaction is cold, so it is prefetched at once.
    let via = message.top_via();
    let known = via.as_ref().ok().map(|via| {
        let name: &[u8] = match method {
            Method::Ack | Method::Cancel => b"INVITE",
            _ => message.method_name(),
        };
        let key = turn.core.identity.transaction(message, via, name);
        turn.transactions.foresee_server(key);
        (via, key)
    });
    let fits = message.bytes().len() <= turn.core.settings.limits.message_size;
    let checked = match fits {
        true => message.check(),
        false => Err(Fault::TooLarge),
    };
    if let Err(fault) = checked {
        let key = known.map(|(_, key)| key);
        return refuse_broken(turn, flow, message, key, fault, errand);
    }
    let Some((via, key)) = known else {
        return turn.discard_message(message, flow, Drop::Unreadable, "no Via that can be read");
    };
    if let Method::Ack | Method::Cancel = method {
        if turn.core.counterpart.is_some() && turn.is_of_predecessor(errand, key, flow, message) {
            return;
        }
        let errand = errand.unwrap_or(Errand::Orphan { tried: 0, crossed: false });
        return match method {
            Method::Ack => proxy.process_ack(turn, flow, message, via, key, errand),
            _ => proxy.process_cancel(turn, flow, message, key, errand),
        };
    }
    if absorb_repetition(turn, key, message) {
        return;
    }
    if turn.core.counterpart.is_some() && turn.is_left_to_counterpart(errand, key, flow, message) {
        return;
    }
    if let Err(refusal) = process_request(turn, proxy, registrar, flow, message, via, key) {
        turn.refuse(message, flow, refusal);
    }
}

/// Processes a request other than ACK and CANCEL that belongs to no transaction yet.
fn process_request(
    turn: &mut Turn,
    proxy: &mut Proxy,
    registrar: &mut Registrar,
    flow: Flow,
    message: &Message,
    via: &Via,
    key: u128,
) -> Result<(), Refusal> {
    let (spiral, passed) = turn.validate(flow, message, key)?;
    let mut request = Request::new(flow, message, via).map_err(bad)?;
    turn.take_routes(&mut request)?;
    (request.key, request.spiral, request.passed) = (key, spiral, passed);
    check_secure(&request)?;
    match proxy.decide(turn, &mut request)? {
        Decision::Register => registrar.register(turn, &request),
        decision => proxy.carry_out(turn, &request, decision),
    }
}

/// Answers a broken request if anything can be answered.
fn refuse_broken(turn: &mut Turn, flow: Flow, message: &Message, key: Option<u128>, fault: Fault, errand: Option<Errand>) {
    let method = message.method();
    if method == Method::Ack || message.header(Name::Via).is_none() {
        return turn.discard_message(message, flow, Drop::Unreadable, fault.reason());
    }
    // A broken copy of a request in progress is a retransmission of it (§17.2.3 comes first), not a request of its own.
    if let Some(key) = key
        && method != Method::Cancel
        && (absorb_repetition(turn, key, message)
            || turn.core.counterpart.is_some() && turn.is_left_to_counterpart(errand, key, flow, message))
    {
        return;
    }
    turn.refuse(message, flow, Refusal::new(fault.status(), fault.reason()));
}

/// Hands a repeated request to its server transaction. Returns false if there is none, i.e. the request is new.
fn absorb_repetition(turn: &mut Turn, key: u128, message: &Message) -> bool {
    if turn.core.settings.proxy.mode == Mode::Stateful
        && let Some(server) = turn.transactions.find_server(key)
    {
        turn.core.counters.retransmissions[Side::Server as usize] += 1;
        if let Some(more) = turn.core.bound_towards(message) {
            turn.transactions.extend_answers(server, more);
        }
        // While the first one waits there is one answer to come, however often the request is repeated.
        let waits = |server: &Server| server.context.is_some();
        let waits = turn.transactions.server(server).is_some_and(waits);
        let before = turn.outbox.transmits.len();
        let event = ServerEvent::Request;
        turn.transactions.server_request(turn.now, server, event, turn.outbox);
        turn.is_passed_over = waits || turn.outbox.transmits.len() == before;
        return true;
    }
    false
}

fn receive_response(turn: &mut Turn, proxy: &mut Proxy, uac: &mut Uac, flow: Flow, message: &Message, errand: Option<Errand>) {
    let class = (message.status() / 100) as usize;
    if let Some(count) = turn.core.counters.responses.get_mut(class.wrapping_sub(1)) {
        *count += 1;
    }
    if message.bytes().len() > turn.core.settings.limits.message_size {
        return turn.discard_message(message, flow, Drop::TooLong, "[limits] message_size");
    }
    if let Err(fault) = message.check() {
        return turn.discard_message(message, flow, Drop::BadResponse, fault.reason());
    }
    let branch = message.top_branch();
    match branch.and_then(|text| turn.core.signer.read(text)) {
        Some(Branch::Stateful { core, id, .. }) if core == turn.core.number => {
            match turn.transactions.client(id).map(|client| client.kind) {
                Some(ClientKind::Own) => uac.process_response(turn, proxy, id, flow, message),
                None if turn.core.counterpart.is_some() && turn.is_answer_for_counterpart(errand, flow, message) => {}
                _ => proxy.process_response(turn, id, flow, message),
            }
        }
        Some(Branch::Stateful { .. }) => {
            turn.discard_message(message, flow, Drop::NoSuchCore, NO_SUCH_CORE);
        }
        Some(Branch::Stateless { .. }) => receive_stateless_response(turn, proxy, flow, message),
        None if branch.is_some_and(|text| turn.core.is_stateless_of_others(text)) => {
            receive_stateless_response(turn, proxy, flow, message);
        }
        None => turn.discard_message(message, flow, Drop::ForeignResponse, "the Via is not ours"),
    }
}

/// Handles a response to a request that was forwarded without state.
fn receive_stateless_response(turn: &mut Turn, proxy: &mut Proxy, flow: Flow, message: &Message) {
    // In stateful mode only ACKs are forwarded without state: an ACK has no answer, and its receiver must not be able to send
    // through our Via below it.
    if turn.core.settings.proxy.mode == Mode::Stateful || message.method() == Method::Ack {
        return turn.discard_message(message, flow, Drop::StrayResponse, "an answer to an ACK");
    }
    proxy.forward_by_via(turn, &flow, message);
    turn.release_by_response(flow, message);
}

/// Handles what timers and the transport report about a branch, or about a request of our own.
fn handle_notice(turn: &mut Turn, proxy: &mut Proxy, uac: &mut Uac, notice: Notice) {
    match notice {
        Notice::ClientTimeout(client) if client.kind == ClientKind::Own => {
            uac.handle_gone(turn, proxy, &client, Cause::NoResponse);
        }
        Notice::ClientFailure(client) if client.kind == ClientKind::Own => {
            let cause = match client.flow.transport.is_reliable() {
                true => Cause::NoConnection,
                false => Cause::Unreachable,
            };
            uac.handle_gone(turn, proxy, &client, cause);
        }
        notice => proxy.handle_notice(turn, notice),
    }
}
