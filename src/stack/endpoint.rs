//! The facade of the rules: it reads what came, finds whose it is, and routes it there. The work is done by the transaction
//! layer, the proxy core and the registrar.

use crate::base::{Arena, Errand, Flow, Id, Instant, Key, LiveConnections, LogBudget, Outbox, Sources};
use crate::sip::{Fault, Index, Message, Method, Name, Rewrite, reply, sniff, status};
use crate::stack::auth::nonce::Nonces;
use crate::stack::auth::users::Users;
use crate::stack::branch::{Branch, Signer};
use crate::stack::cookie::Cookies;
use crate::stack::counters::{Drop, Limit, MethodLabel, Registration, Side};
use crate::stack::identity::{Dialog, Identity, TAG_LEN, TagKind};
use crate::stack::location::Progress;
use crate::stack::names::Names;
use crate::stack::overload::Overload;
use crate::stack::passage::Passages;
use crate::stack::peer_flows::PeerFlows;
use crate::stack::peer_flows::reply_flow;
use crate::stack::proxy::context::Context;
use crate::stack::proxy::guard::Gate;
use crate::stack::proxy::parked::Parking;
use crate::stack::proxy::target::TargetSet;
use crate::stack::refusal::{Extra, Refusal};
use crate::stack::registrar::Seating;
use crate::stack::request::unsupported;
use crate::stack::settings::Mode;
use crate::stack::source_proof::SourceProof;
use crate::stack::transaction::{Notice, Server, ServerEvent, Transactions};
use crate::stack::{Counters, Location, Occupancy, Settings};
use std::sync::Arc;

/// Contexts that are kept for the next requests in any case, and that go at a time after a peak.
const CONTEXTS_KEPT: usize = 256;
const CONTEXTS_AT_ONCE: usize = 256;

/// Bytes that must have been freed before the allocator is asked to return them: while more are going, and when no more are.
const FREED_MEANWHILE: usize = 64 << 20;
const FREED_AT_LAST: usize = 1 << 20;

/// Nonces in use whose counts are remembered, at least: some 64 bytes each.
const NONCE_WINDOWS: usize = 1 << 19;

/// One core's SIP element: transactions, proxy core, registrar. Owned by one worker, or by the laboratory.
pub struct Endpoint {
    pub(in crate::stack) settings: Arc<Settings>,
    pub(in crate::stack) location: Arc<Location>,
    pub(in crate::stack) ways: PeerFlows,
    pub(in crate::stack) core: u8,
    pub(in crate::stack) signer: Signer,
    pub(in crate::stack) identity: Identity,
    pub(in crate::stack) passages: Passages,
    pub(in crate::stack) cookies: Cookies,
    pub(in crate::stack) transactions: Transactions,
    pub(in crate::stack) contexts: Arena<Box<Context>>,
    pub(in crate::stack) counters: Counters,
    // TagKind that is used again for each message.
    // A context is large, and moves between here and the arena with every request: a box moves as one word.
    #[allow(clippy::vec_box)]
    pub(in crate::stack) spare_contexts: Vec<Box<Context>>,
    pub(in crate::stack) targets: TargetSet,
    pub(in crate::stack) rewrite: Rewrite,
    pub(in crate::stack) aor: Vec<u8>,
    pub(in crate::stack) scratch: Vec<u8>,
    pub(in crate::stack) lines: Vec<u8>,
    pub(in crate::stack) seating: Seating,
    pub(in crate::stack) request_copy: Vec<u8>,
    /// What the certificate of the next hop must prove; empty where nothing is asked.
    pub(in crate::stack) peer_host: Vec<u8>,
    /// The certificate that it is shown ([`crate::stack::route::NextHop::identity`]).
    pub(in crate::stack) peer_identity: u64,
    /// The flow token of the Record-Route at hand.
    pub(in crate::stack) token: Vec<u8>,
    /// What the request is known by that the response at hand answers.
    pub(in crate::stack) answered: Option<Dialog>,
    /// The facts that the keyed value at hand covers.
    pub(in crate::stack) facts: Vec<u8>,
    /// Client transactions in hand.
    ids: Vec<Id>,
    pub(in crate::stack) names: Names,
    pub(in crate::stack) gates: Vec<Gate>,
    pub(in crate::stack) parking: Parking,
    /// Who has waited for the answer at hand.
    pub(in crate::stack) waiters: Vec<Id>,
    pub(in crate::stack) users: Arc<Users>,
    pub(in crate::stack) nonces: Arc<Nonces>,
    /// What all cores know of those who send to us.
    pub(in crate::stack) sources: Arc<Sources>,
    /// Makes the core's nonces of one millisecond differ.
    pub(in crate::stack) nonce_count: u32,
    /// See [`Endpoint::set_clock`].
    pub(in crate::stack) wall_ms: u64,
    /// When the message at hand came.
    pub(in crate::stack) now: Instant,
    pub(in crate::stack) log: LogBudget,
    /// Lines of its own, so that nothing else that a stranger has logged can be in their way.
    pub(in crate::stack) guess_log: LogBudget,
    /// No dialog begins here any more.
    pub(in crate::stack) is_draining: bool,
    /// The message at hand gets no answer.
    pub(in crate::stack) is_passed_over: bool,
    pub(in crate::stack) overload: Overload,
    /// What the sender of the message at hand has shown of where it is.
    pub(in crate::stack) whence: SourceProof,
    /// Bytes of memory that were given back since somebody asked.
    freed: usize,
    /// Lent to the message at hand. A box moves as one word.
    pub(in crate::stack) index: Option<Box<Index>>,
    pub(in crate::stack) second_index: Index,
}

impl Endpoint {
    /// `secret` is the server's, the same on every core; `core` is this one's number, from 0.
    pub fn new(settings: Arc<Settings>, location: Arc<Location>, live: Arc<LiveConnections>, core: u8, secret: Key) -> Endpoint {
        let ways = PeerFlows::new(live, core, secret);
        let sources = Arc::new(Sources::new(secret, 0));
        Endpoint {
            transactions: Transactions::new(
                settings.timers.clone(),
                &settings.per_core,
                ways.clone(),
                sources.clone(),
                secret,
            ),
            names: Names::new(secret, settings.dns.cache, settings.per_core.questions),
            gates: Vec::new(),
            parking: Parking::default(),
            waiters: Vec::new(),
            settings,
            location,
            ways,
            core,
            signer: Signer::new(secret),
            identity: Identity::new(secret),
            passages: Passages::new(secret),
            cookies: Cookies::new(secret),
            contexts: Arena::default(),
            counters: Counters::default(),
            spare_contexts: Vec::new(),
            targets: TargetSet::default(),
            rewrite: Rewrite::default(),
            aor: Vec::new(),
            scratch: Vec::new(),
            lines: Vec::new(),
            seating: Seating::default(),
            request_copy: Vec::new(),
            peer_host: Vec::new(),
            peer_identity: 0,
            token: Vec::new(),
            answered: None,
            facts: Vec::new(),
            users: Arc::default(),
            nonces: Arc::new(Nonces::new(secret, 0, NONCE_WINDOWS)),
            sources,
            nonce_count: 0,
            wall_ms: 0,
            now: Instant::default(),
            log: LogBudget::new("refused messages and failed branches"),
            guess_log: LogBudget::new("guessed passwords"),
            ids: Vec::new(),
            is_draining: false,
            is_passed_over: false,
            overload: Overload::new(secret.derive("overload")),
            whence: SourceProof::Unknown,
            freed: 0,
            index: None,
            second_index: Index::default(),
        }
    }

    /// The time since 1970 at [`Instant`] zero, milliseconds: servers with one secret recognise each other's passages.
    pub fn set_clock(&mut self, wall_ms: u64) {
        self.wall_ms = wall_ms;
    }

    /// Takes part in the nonces of the other cores. Without it a nonce's counts are known to this core alone, and those of a run that came
    /// before are good for another use.
    pub fn share_nonces(&mut self, nonces: Arc<Nonces>) {
        self.cookies.begin(nonces.run());
        self.nonces = nonces;
    }

    /// Takes part in what the other cores know of those who send to us.
    pub fn share_sources(&mut self, sources: Arc<Sources>) {
        self.transactions.sources = sources.clone();
        self.sources = sources;
    }

    /// Other users, valid for what comes next. Returns those of before: to drop millions of them takes a while.
    pub fn handle_users(&mut self, users: Arc<Users>) -> Arc<Users> {
        std::mem::replace(&mut self.users, users)
    }

    /// URIs that REGISTERs have had compared as texts: what they cost beyond their own length.
    pub fn uris_compared(&self) -> u64 {
        self.seating.compared
    }

    /// How far the disk is that answers may wait for ([`Outbox::hold`]).
    pub fn progress(&self) -> Progress {
        self.location.progress()
    }

    /// A message came from a peer: one datagram, or one framed message of a stream. False: it was thrown away, or is the repetition of
    /// what will be answered; nobody need wait for an answer to it.
    pub fn handle(&mut self, now: Instant, flow: Flow, bytes: &[u8], outbox: &mut Outbox) -> bool {
        self.is_passed_over = false;
        self.receive(now, flow, bytes, None, outbox);
        !self.is_passed_over
    }

    /// A message came from another core, with the flow on which that core got it.
    pub fn handle_mail(&mut self, now: Instant, errand: Errand, flow: Flow, bytes: &[u8], outbox: &mut Outbox) {
        self.receive(now, flow, bytes, Some(errand), outbox);
    }

    /// The transport says that `sent`, a datagram of ours (or as much of it as came back), was not delivered: a port
    /// unreachable. Only a branch whose check is right names a transaction, so nobody can end one by a forged report (§16.9,
    /// §18.4).
    pub fn handle_undelivered(&mut self, now: Instant, sent: &[u8], outbox: &mut Outbox) {
        self.now = now;
        // A response of ours carries a branch of ours too, where a request has been here twice.
        if sniff::kind(sent) != sniff::Kind::Request {
            return;
        }
        let branch = sniff::top_via_branch(sent).and_then(|text| self.signer.read(text));
        let Some(Branch::Stateful { core, id, .. }) = branch else {
            return;
        };
        // Our own CANCEL and ACK carry the INVITE's branch; their loss says nothing that its timers would not.
        if core != self.core || matches!(sniff::method(sent), Method::Ack | Method::Cancel) {
            return;
        }
        if let Some(client) = self.transactions.undelivered(now, id, outbox) {
            let reason = match client.flow.transport.is_reliable() {
                true => "no connection takes it",
                false => "port unreachable",
            };
            self.log_branch(client.server, client.flow, reason);
            self.handle_notice(now, Notice::ClientFailure(client), outbox);
        }
    }

    /// What came on a stream cannot be framed any more (§18.3); `bytes` begin at the last boundary, and the connection will be
    /// closed. The request is answered when its head can be read, behind lines that are no SIP too: true then. It is not processed.
    pub fn handle_unframed(&mut self, now: Instant, flow: Flow, bytes: &[u8], fault: Fault, outbox: &mut Outbox) -> bool {
        self.now = now;
        let mut index = self.index.take().unwrap_or_default();
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
                self.refuse(&message, flow, Refusal::new(fault.status(), reason), outbox);
                is_answered = true;
            }
            _ => self.counters.drop(Drop::Unreadable),
        }
        self.index = Some(index);
        is_answered
    }

    /// A connection is gone, or could not be opened: `flow` as it was named when it was wanted
    /// ([`crate::base::Channel::Peer`]), or as it is named since it is open.
    pub fn handle_flow_lost(&mut self, now: Instant, flow: Flow, outbox: &mut Outbox) {
        self.now = now;
        // What has been answered by a 1xx may be answered over another connection (§18.2.2): its timers decide. A binding's flow
        // is not among the live ones.
        let mut ids = std::mem::take(&mut self.ids);
        ids.clear();
        self.transactions.take_unanswered(&flow, &mut ids);
        for id in &ids {
            if let Some(client) = self.transactions.undelivered(now, *id, outbox) {
                self.log_branch(client.server, flow, "connection lost");
                self.handle_notice(now, Notice::ClientFailure(client), outbox);
            }
        }
        self.ids = ids;
    }

    /// Fires what is due.
    pub fn handle_timers(&mut self, now: Instant, outbox: &mut Outbox) {
        self.now = now;
        self.whence = SourceProof::Unknown;
        self.log.renew(now);
        self.guess_log.renew(now);
        self.end_overdue_waits(now, outbox);
        self.give_memory_back(now);
        while let Some(notice) = self.transactions.poll(now, outbox) {
            self.handle_notice(now, notice, outbox);
        }
    }

    /// When [`Endpoint::handle_timers`] wants to be called next.
    pub fn next_timeout(&self) -> Option<Instant> {
        let due = [
            self.transactions.next_timeout(),
            self.parking.next_timeout(),
            self.transactions.pool.next_trim(),
        ];
        due.into_iter().flatten().min()
    }

    /// After a peak: what nobody has needed for a while goes, a bounded part in each turn.
    fn give_memory_back(&mut self, now: Instant) {
        let gone = self.transactions.pool.trim(now);
        if gone > 0 {
            self.freed += gone;
            let kept = self.spare_contexts.len().saturating_sub(CONTEXTS_AT_ONCE);
            self.spare_contexts.truncate(kept.max(CONTEXTS_KEPT));
        }
    }

    /// Whether so much memory was freed that it pays to return it to the system; said once.
    pub fn take_freed(&mut self) -> bool {
        let enough = match self.transactions.pool.is_trimming() {
            true => FREED_MEANWHILE,
            false => FREED_AT_LAST,
        };
        if self.freed < enough {
            return self.location.take_freed();
        }
        self.freed = 0;
        true
    }

    /// New settings, valid for what comes next; transactions under way keep their targets.
    pub fn handle_config(&mut self, settings: Arc<Settings>) {
        self.transactions.configure(settings.timers.clone(), &settings.per_core);
        self.names.configure(settings.dns.cache);
        self.settings = settings;
        self.forget_gates();
    }

    pub fn counters(&self) -> Counters {
        let mut counters = self.counters.clone();
        counters.retransmissions[Side::Client as usize] += self.transactions.client_retransmissions;
        counters.retransmissions[Side::Server as usize] += self.transactions.server_retransmissions;
        counters.limit_hits[Limit::AnswerSize as usize] += self.transactions.answers_kept_back;
        counters
    }

    /// Bytes of memory for messages that outlive a turn, those that are free among them.
    pub fn pool_bytes(&self) -> usize {
        self.transactions.pool.bytes()
    }

    pub fn occupancy(&self) -> Occupancy {
        Occupancy {
            server_transactions: self.transactions.server_count(),
            client_transactions: self.transactions.client_count(),
            pending: self.contexts.len(),
            timers: self.transactions.timer_count(),
            blobs: self.transactions.pool.held(),
            blob_bytes: self.transactions.pool.held_bytes(),
            parked: self.parking.len(),
            names: self.names.len(),
        }
    }

    // ---- routing -------------------------------------------------------------------------------------------------------

    fn receive(&mut self, now: Instant, flow: Flow, bytes: &[u8], errand: Option<Errand>, outbox: &mut Outbox) {
        self.now = now;
        self.whence = SourceProof::Unknown;
        let has_neighbours = self.settings.cores > 1;
        if has_neighbours && errand.is_none() && sniff::kind(bytes) == sniff::Kind::Response {
            // A response for another core goes there unread; only its branch is checked.
            let branch = sniff::top_via_branch(bytes).and_then(|text| self.signer.read(text));
            match branch {
                Some(Branch::Stateful { core, .. }) if core != self.core => {
                    if core >= self.settings.cores {
                        return self.discard(flow, Drop::NoSuchCore, NO_SUCH_CORE);
                    }
                    return outbox.mail(core, Errand::Response, flow, bytes);
                }
                _ => {}
            }
        }
        let mut index = self.index.take().unwrap_or_default();
        match Message::parse(bytes, &mut index) {
            Ok(message) if message.is_request() => {
                self.receive_request(now, flow, &message, errand, outbox);
            }
            Ok(message) => self.receive_response(now, flow, &message, outbox),
            Err(_) if bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0)) => {
                self.counters.drop(Drop::KeepAlive);
            }
            Err(fault) => self.discard(flow, Drop::Unreadable, fault.reason()),
        }
        self.index = Some(index);
    }

    fn receive_request(&mut self, now: Instant, flow: Flow, message: &Message, errand: Option<Errand>, outbox: &mut Outbox) {
        let method = message.method();
        if errand.is_none() {
            self.counters.requests[label_of(method) as usize] += 1;
        }
        // An ACK and a CANCEL look for their INVITE. What finds a transaction lies in cold memory: it is asked for at once.
        let via = message.top_via();
        let key = via.as_ref().ok().map(|via| {
            let name: &[u8] = match method {
                Method::Ack | Method::Cancel => b"INVITE",
                _ => message.method_name(),
            };
            let key = self.identity.transaction(message, via, name);
            self.transactions.foresee_server(key);
            key
        });
        let fits = message.bytes().len() <= self.settings.limits.message_size;
        let checked = match fits {
            true => message.check(),
            false => Err(Fault::TooLarge),
        };
        if let Err(fault) = checked {
            if method == Method::Ack || message.header(Name::Via).is_none() {
                return self.discard(flow, Drop::Unreadable, fault.reason());
            }
            // A broken copy of a request under way is a repetition of it (§17.2.3 comes first), not a request of its own.
            if let Some(key) = key
                && method != Method::Cancel
                && self.absorb_repetition(now, key, message, outbox)
            {
                return;
            }
            let refusal = Refusal::new(fault.status(), fault.reason());
            return self.refuse(message, flow, refusal, outbox);
        }
        let Some(key) = key else {
            return self.discard(flow, Drop::Unreadable, "no Via that can be read");
        };
        let tried = match errand {
            Some(Errand::Orphan { tried }) => tried,
            _ => 0,
        };
        match method {
            Method::Ack => return self.process_ack(now, flow, message, key, tried, outbox),
            Method::Cancel => {
                return self.process_cancel(now, flow, message, key, tried, outbox);
            }
            _ => {}
        }
        if self.absorb_repetition(now, key, message, outbox) {
            return;
        }
        if let Err(refusal) = self.process_request(now, flow, message, key, outbox) {
            self.refuse(message, flow, refusal, outbox);
        }
    }

    /// Hands a repeated request to its server transaction. False: there is none, the request is new.
    fn absorb_repetition(&mut self, now: Instant, key: u128, message: &Message, outbox: &mut Outbox) -> bool {
        if self.settings.proxy.mode == Mode::Stateful
            && let Some(server) = self.transactions.find_server(key)
        {
            self.counters.retransmissions[Side::Server as usize] += 1;
            if let Some(more) = self.bound_towards(message) {
                self.transactions.extend_answers(server, more);
            }
            // While the first one waits there is one answer to come, however often it is repeated.
            let waits = |server: &Server| server.context.is_some();
            let waits = self.transactions.server(server).is_some_and(waits);
            let before = outbox.transmits.len();
            let event = ServerEvent::Request;
            self.transactions.server_request(now, server, event, outbox);
            self.is_passed_over = waits || outbox.transmits.len() == before;
            return true;
        }
        false
    }

    fn receive_response(&mut self, now: Instant, flow: Flow, message: &Message, outbox: &mut Outbox) {
        let class = (message.status() / 100) as usize;
        if let Some(count) = self.counters.responses.get_mut(class.wrapping_sub(1)) {
            *count += 1;
        }
        if message.bytes().len() > self.settings.limits.message_size {
            return self.discard(flow, Drop::TooLong, "[limits] message_size");
        }
        if let Err(fault) = message.check() {
            return self.discard(flow, Drop::BadResponse, fault.reason());
        }
        self.answered = None;
        let branch = message.top_branch();
        match branch.and_then(|text| self.signer.read(text)) {
            Some(Branch::Stateful { core, id, .. }) if core == self.core => {
                self.process_response(now, id, flow, message, outbox);
            }
            Some(Branch::Stateful { .. }) => {
                self.discard(flow, Drop::NoSuchCore, NO_SUCH_CORE);
            }
            // With state, an ACK is all that leaves without: it has no answer, and who was sent one must not write by our Via below it.
            Some(Branch::Stateless { .. }) if self.settings.proxy.mode == Mode::Stateful || message.method() == Method::Ack => {
                self.discard(flow, Drop::StrayResponse, "an answer to an ACK");
            }
            Some(Branch::Stateless { .. }) => {
                self.forward_by_via(&flow, message, outbox);
                self.release_by_response(flow, message, outbox);
            }
            None => self.discard(flow, Drop::ForeignResponse, "the Via is not ours"),
        }
    }

    /// Hands a message that matched nothing to the next core that has not looked yet. False: all have.
    pub(in crate::stack) fn pass_on(&mut self, errand: Errand, flow: Flow, message: &Message, outbox: &mut Outbox) -> bool {
        let tried = match errand {
            Errand::Orphan { tried } => tried + 1,
            Errand::Response => return false,
        };
        if tried >= self.settings.cores {
            return false;
        }
        let next = (self.core + 1) % self.settings.cores;
        outbox.mail(next, Errand::Orphan { tried }, flow, message.bytes());
        true
    }

    // ---- answers of our own, without memory (§8.2.7) -------------------------------------------------------------------

    /// Answers a request that was not forwarded. `extra` writes further header lines.
    pub(in crate::stack) fn answer(
        &mut self,
        message: &Message,
        flow: Flow,
        status: u16,
        reason: &str,
        outbox: &mut Outbox,
        extra: impl FnOnce(&mut Vec<u8>),
    ) {
        // A Via that cannot be read names no port: the answer goes to where the request came from.
        let upstream = match message.top_via() {
            Ok(via) => reply_flow(flow, &via),
            Err(_) => flow,
        };
        self.scratch.clear();
        self.scratch.reserve(TAG_LEN);
        self.identity.write_tag(message, TagKind::Stateless, &mut self.scratch);
        let answer = reply::Reply {
            status,
            reason: reason.as_bytes(),
            to_tag: &self.scratch,
            received: Some(flow.peer),
            feedback: Some(self.feedback()),
        };
        let most = self.longest_answer(message, upstream);
        // Somebody who is challenged and not told how to answer would be shut out.
        let least = usize::from(matches!(status, 401 | 407));
        let mut left_out = 0;
        outbox.send(upstream, |out| {
            let start = out.len();
            let extra = |out: &mut Vec<u8>, begin: usize| {
                extra(out);
                let first = reply::end_of_lines(out, begin, least);
                left_out = reply::fit_lines(out, first, start.saturating_add(most));
            };
            reply::write_fitting(message, &answer, extra, out);
        });
        if left_out > 0 {
            self.counters.hit(Limit::AnswerSize);
        }
    }

    /// Answers with a list of contacts, or as many of them as the answer may hold, the first ones. Where there is room for none, that is
    /// said: an answer without any would say that there are none.
    pub(in crate::stack) fn answer_listing(
        &mut self,
        message: &Message,
        flow: Flow,
        status: u16,
        outbox: &mut Outbox,
        lines: &[u8],
    ) {
        let first = reply::end_of_lines(lines, 0, 1);
        if first > self.room_for_list(message, flow) {
            let refusal = Refusal::new(513, "Answer Too Long For UDP");
            return self.refuse(message, flow, refusal.because_of(Limit::AnswerSize), outbox);
        }
        self.answer(message, flow, status, "", outbox, |out| out.extend_from_slice(lines));
    }

    /// Bytes of further lines that an answer may have: those that every answer repeats are no longer than the request.
    pub(in crate::stack) fn room_for_list(&self, message: &Message, flow: Flow) -> usize {
        let most = self.longest_answer(message, flow);
        most.saturating_sub(message.bytes().len())
    }

    pub(in crate::stack) fn refuse(&mut self, message: &Message, flow: Flow, refusal: Refusal, outbox: &mut Outbox) {
        // Who gets no answer gets none either where what it sent is wrong.
        if self.is_dropped(flow, message) {
            return self.drop_by_route(message, flow);
        }
        self.counters.refused += 1;
        if let Some(limit) = refusal.limit {
            self.counters.hit(limit);
        }
        if message.method() == Method::Register {
            self.counters.registrations[Registration::Refused as usize] += 1;
        }
        // The ACK to this answer must not pass for one to a 2xx.
        if message.method() == Method::Invite && (message.to_tag().is_some() || message.to().is_err()) {
            if let Ok(via) = message.top_via() {
                let key = self.identity.transaction(message, &via, b"INVITE");
                self.transactions.refused.note(key);
            }
            // By a new branch it must not leave either. But who names a dialog without its cookie does not speak for it: the ACK to the answer
            // of the real INVITE must pass, whatever copy of it somebody has had refused.
            let speaks = message.to_tag().is_none() || self.preprocess_route(flow, message).is_ok_and(|incoming| incoming.trusted);
            if speaks {
                let key = self.identity.invite(message);
                self.transactions.refused.note(key);
            }
        }
        if !refusal.is_logged {
            let reason = match refusal.reason {
                "" => status::reason(refusal.status),
                reason => reason,
            };
            let status = refusal.status;
            self.log_event(message, flow, format_args!("answered {status} {reason}"));
        }
        let mut challenges = std::mem::take(&mut self.lines);
        challenges.clear();
        if let Extra::Challenge { who, stale } = refusal.extra {
            self.write_challenges(message, who, stale, flow.peer.ip(), &mut challenges);
        }
        let settings = self.settings.clone();
        let name = match unsupported(message, Name::ProxyRequire).next() {
            Some(_) => Name::ProxyRequire,
            None => Name::Require,
        };
        self.answer(message, flow, refusal.status, refusal.reason, outbox, |out| {
            match refusal.extra {
                Extra::None => {}
                Extra::Unsupported => write_unsupported(message, name, out),
                Extra::SipsNotAllowed => settings.write_sips_not_allowed(flow.listener, out),
                Extra::MinExpires(seconds) => number_header(b"Min-Expires: ", seconds, out),
                Extra::RetryAfter(seconds) => number_header(b"Retry-After: ", seconds, out),
                Extra::Challenge { .. } => out.extend_from_slice(&challenges),
            }
        });
        self.lines = challenges;
    }
}

/// Why a response is dropped that names a core.
const NO_SUCH_CORE: &str = "its branch names a core that there is not";

/// The options of `name` that we do not know, as one list, each once. Beyond a few nobody reads them.
fn write_unsupported(message: &Message, name: Name, out: &mut Vec<u8>) {
    const MOST: usize = 16;
    const LOOKED_AT: usize = 64;
    let mut listed = [&b""[..]; MOST];
    let mut count = 0;
    for option in unsupported(message, name).take(LOOKED_AT) {
        let is_listed = listed[..count].iter().any(|known| known.eq_ignore_ascii_case(option.text));
        if count < MOST && !is_listed {
            out.extend_from_slice(if count == 0 { b"Unsupported: " } else { b", " });
            out.extend_from_slice(option.text);
            listed[count] = option.text;
            count += 1;
        }
    }
    out.extend_from_slice(b"\r\n");
}

fn number_header(name: &[u8], number: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    crate::base::hash::write_decimal(u64::from(number), out);
    out.extend_from_slice(b"\r\n");
}

fn label_of(method: Method) -> MethodLabel {
    match method {
        Method::Invite => MethodLabel::Invite,
        Method::Ack => MethodLabel::Ack,
        Method::Bye => MethodLabel::Bye,
        Method::Cancel => MethodLabel::Cancel,
        Method::Register => MethodLabel::Register,
        Method::Options => MethodLabel::Options,
        Method::Prack => MethodLabel::Prack,
        Method::Update => MethodLabel::Update,
        Method::Info => MethodLabel::Info,
        Method::Refer => MethodLabel::Refer,
        Method::Subscribe => MethodLabel::Subscribe,
        Method::Notify => MethodLabel::Notify,
        Method::Message => MethodLabel::Message,
        Method::Publish => MethodLabel::Publish,
        Method::Other => MethodLabel::Other,
    }
}
