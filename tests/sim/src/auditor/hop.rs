//! One server as it is seen from outside: the requests that reached it, the branches that left it, and what else its peers know of it.

use super::guard::Guard;
use crate::address::Address;
use crate::bearer::without_dot;
use crate::bindings::{Bindings, Bound, canonical};
use crate::hashing::{Digest, digest};
use crate::intent::Intent;
use crate::names::Zone;
use crate::plan::{GATEWAY_PREFIX, ServerPlan};
use crate::reading::{Field, Reading};
use crate::text::address_spec;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use strowger::base::Instant;
use strowger::stack::settings::{Mode, Settings};

/// Which machine of §17 a request runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    Invite,
    Ack,
    Cancel,
    Other(u64),
}

impl Class {
    pub(super) fn of(method: &[u8]) -> Class {
        match method {
            b"INVITE" => Class::Invite,
            b"ACK" => Class::Ack,
            b"CANCEL" => Class::Cancel,
            other => Class::Other(digest(other)),
        }
    }

    pub(super) fn with(self, key: u64) -> u64 {
        let mut digest = Digest::new();
        digest.number(key);
        digest.number(match self {
            Class::Invite => 1,
            Class::Ack => 2,
            Class::Cancel => 3,
            Class::Other(method) => method,
        });
        digest.finish()
    }
}

/// A request that reached a server: its server transaction, as far as the wire shows it.
pub(super) struct Tx {
    pub(super) class: Class,
    pub(super) request: Rc<Reading>,
    /// Other bytes under the same key.
    pub(super) variants: Vec<Rc<Reading>>,
    pub(super) intent: Intent,
    pub(super) arrived: Instant,
    pub(super) sources: Vec<SocketAddr>,
    pub(super) branches: Vec<usize>,
    /// Distinct finals that left: status, digest, and the To tag's digest.
    pub(super) finals: Vec<(u16, u64, u64)>,
    pub(super) answered: bool,
    pub(super) final_at: Option<Instant>,
    /// The last moment at which somebody downstream gave a sign of life, or a branch began.
    pub(super) activity: Instant,
    pub(super) cancel_asked: Option<Instant>,
    pub(super) cancel_taken: Option<Instant>,
    pub(super) accepted_in: Option<Instant>,
    pub(super) declined_in: Option<Instant>,
    /// Responses that must be passed on: status, trunk and arrival. A 180 and a 200 may be alike in all but the status.
    pub(super) owed: Vec<(u16, u64, Instant)>,
    /// A copy came when the server may have forgotten the first, or from elsewhere: it may begin anew.
    pub(super) reopen: bool,
    /// One of the copies can be read in two ways.
    pub(super) mangled: bool,
    pub(super) previous: Option<usize>,
}

/// A request that left a server towards one target.
pub(super) struct Branch {
    pub(super) tx: usize,
    pub(super) intent: Intent,
    pub(super) request: Rc<Reading>,
    pub(super) to: SocketAddr,
    pub(super) sent: Instant,
    /// When the first response came that nobody has altered.
    pub(super) heard_at: Option<Instant>,
    pub(super) provisional: Option<Instant>,
    /// When the 101–199 of honest agents came, in order; before them, when it was sent. Only what the next rules ask for is kept:
    /// those of a moment ago, which may still be in the mail between the cores, and the last one before them.
    pub(super) signs: Vec<Instant>,
    /// The first final that reached the server.
    pub(super) outcome: Option<(u16, Instant)>,
    pub(super) responses: Vec<(Rc<Reading>, Intent)>,
    pub(super) cancel: Option<(Rc<Reading>, Instant)>,
    /// Refusals that came, and ACKs that left for them.
    pub(super) refusals: u32,
    pub(super) acks: u32,
    /// Somebody else meddled with it: what was first and what was last is not certain.
    pub(super) tainted: bool,
    pub(super) lost: bool,
    pub(super) q: Option<u16>,
    /// Another request that left with the same branch.
    pub(super) older: Option<usize>,
}

impl Branch {
    pub(super) fn begun(tx: usize, intent: Intent, message: &Rc<Reading>, to: SocketAddr, now: Instant) -> Branch {
        Branch {
            tx,
            intent,
            request: Rc::clone(message),
            to,
            sent: now,
            heard_at: None,
            provisional: None,
            signs: vec![now],
            outcome: None,
            responses: Vec::new(),
            cancel: None,
            refusals: 0,
            acks: 0,
            tainted: false,
            lost: false,
            q: None,
            older: None,
        }
    }

    /// A 101–199 of an honest agent came.
    pub(super) fn sign_of_life(&mut self, now: Instant, soon_ms: u64) {
        let first = self.settled_sign(now, soon_ms);
        self.signs.drain(..first);
        self.signs.push(now);
    }

    pub(super) fn last_sign(&self) -> Instant {
        self.signs.last().copied().unwrap_or(self.sent)
    }

    /// The last one that the branch's core must have heard of, whatever is still in the mail: from here timer C runs at the least.
    pub(super) fn heard_sign(&self, now: Instant, soon_ms: u64) -> Instant {
        let place = self.settled_sign(now, soon_ms);
        self.signs.get(place).copied().unwrap_or(self.sent)
    }

    pub(super) fn settled_sign(&self, now: Instant, soon_ms: u64) -> usize {
        let settled = |sign: &Instant| now.ms_since(*sign) > soon_ms;
        self.signs.iter().rposition(settled).unwrap_or(0)
    }
}

/// What became of a REGISTER.
#[derive(Clone, Copy)]
pub(super) enum Registered {
    At(Instant),
    /// Only the server knows.
    Unknown,
}

/// One server, as it is seen from outside.
pub(super) struct Hop {
    pub(super) settings: Arc<Settings>,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) transactions: Vec<Tx>,
    pub(super) by_key: BTreeMap<u64, usize>,
    pub(super) branches: Vec<Branch>,
    pub(super) by_branch: BTreeMap<u64, usize>,
    /// The same without the method.
    pub(super) by_branch_alone: BTreeMap<u64, usize>,
    /// Who sent the datagram of this turn, if nobody can read it for certain: a refusal may go there.
    pub(super) suspect: Option<IpAddr>,
    /// The same for a CANCEL, which may have to ask other cores.
    pub(super) suspects: BTreeMap<IpAddr, Instant>,
    /// Where requests with a branch came from.
    pub(super) askers: BTreeMap<u64, Vec<SocketAddr>>,
    pub(super) bindings: Bindings,
    /// Calls in which somebody has sent an INVITE that was not the caller's: its refusal may be taken for the caller's.
    pub(super) spoiled: BTreeSet<u64>,
    /// By the digest of a Call-ID: between whom its requests went.
    pub(super) ends: BTreeMap<u64, BTreeSet<SocketAddr>>,
    /// REGISTERs that were carried out, and when.
    pub(super) registered: BTreeMap<u64, Registered>,
    /// Record-Route values that this server gave out.
    pub(super) issued: BTreeSet<u64>,
    /// Addresses that may have shown that they hear this server: answers to them have no bound.
    pub(super) heard: BTreeSet<IpAddr>,
    /// Refusals of what nobody can read for certain: they may be repeated.
    pub(super) refusals: BTreeSet<u64>,
    /// Branches of requests that nobody can read for certain.
    pub(super) mangled: BTreeSet<u64>,
    /// Branches of requests that no honest agent sent: the honest one that comes later may be taken for a copy.
    /// With the key of the first of them.
    pub(super) meddled: BTreeMap<u64, u64>,
    /// Branches that came in a CANCEL that nobody can read for certain.
    pub(super) cancelled: BTreeSet<u64>,
    /// What those that can be read name of their INVITE (§9.1).
    pub(super) cancels: BTreeSet<u64>,
    /// By request: datagrams that came from elsewhere, and branches that left for them.
    pub(super) copies: BTreeMap<u64, (u32, u32)>,
    /// Responses that came lately and that no honest agent sent.
    pub(super) foreign_responses: VecDeque<Rc<Reading>>,
    /// Mail between cores, and late timers, take so long.
    pub(super) soon_ms: u64,
    pub(super) zone: Arc<Zone>,
    pub(super) guard: Guard,
}

impl Hop {
    pub(super) fn new(plan: &ServerPlan, zone: &Arc<Zone>) -> Hop {
        Hop {
            settings: Arc::clone(&plan.settings),
            addresses: plan.addresses.clone(),
            transactions: Vec::new(),
            by_key: BTreeMap::new(),
            branches: Vec::new(),
            by_branch: BTreeMap::new(),
            by_branch_alone: BTreeMap::new(),
            suspect: None,
            suspects: BTreeMap::new(),
            askers: BTreeMap::new(),
            bindings: Bindings::default(),
            ends: BTreeMap::new(),
            spoiled: BTreeSet::new(),
            registered: BTreeMap::new(),
            issued: BTreeSet::new(),
            heard: BTreeSet::new(),
            refusals: BTreeSet::new(),
            mangled: BTreeSet::new(),
            meddled: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            cancels: BTreeSet::new(),
            copies: BTreeMap::new(),
            foreign_responses: VecDeque::new(),
            // A CANCEL may have to ask every core.
            soon_ms: plan.mail_ms * u64::from(plan.settings.cores) + plan.tick_ms + 2,
            zone: Arc::clone(zone),
            guard: Guard::new(plan),
        }
    }

    pub(super) fn is_stateless(&self) -> bool {
        self.settings.proxy.mode == Mode::Stateless
    }

    /// True if a message has just come from there that two readers may read differently.
    pub(super) fn is_suspect(&self, address: SocketAddr, message: &Reading, now: Instant) -> bool {
        let cancel = message.is_broken() || message.method() == b"CANCEL";
        let last = self.suspects.get(&address.ip()).filter(|_| cancel);
        self.suspect == Some(address.ip()) || last.is_some_and(|at| now.ms_since(*at) <= self.soon_ms)
    }

    /// True if somebody hostile has used the branch before, for another request.
    pub(super) fn is_meddled(&self, class: Class, message: &Reading) -> bool {
        let first = self.meddled.get(&class.with(message.branch));
        first.is_some_and(|key| *key != message.key)
    }

    /// True if a URI's host and port name this server.
    pub(super) fn is_own(&self, host: &[u8], port: Option<u16>) -> bool {
        let host = without_dot(host);
        let address = Address { user: b"", host, port, params: b"" };
        match address.socket() {
            Some(socket) => self.addresses.contains(&socket),
            None => self.settings.domains.iter().any(|d| d.eq_ignore_ascii_case(host)),
        }
    }

    /// The same for `host:port` as a Via writes it.
    pub(super) fn is_own_place(&self, place: &[u8]) -> bool {
        let uri = [b"sip:", place].concat();
        Address::of(&uri).is_some_and(|a| self.is_own(a.host, a.port))
    }

    /// Incoming Max-Breadth (RFC 5393 §5.3.3).
    pub(super) fn breadth(&self, came: &Reading) -> u64 {
        let most = u64::from(self.settings.proxy.max_breadth);
        came.number(Field::MaxBreadth).unwrap_or(most).min(most)
    }

    /// 64·T1.
    pub(super) fn patience_ms(&self) -> u64 {
        64 * self.settings.timers.t1
    }

    pub(super) fn slack_ms(&self) -> u64 {
        self.soon_ms + 100
    }

    pub(super) fn find(&self, key: u64, class: Class) -> Option<usize> {
        self.by_key.get(&class.with(key)).copied()
    }

    /// A transaction and those before it with the same key, newest first.
    pub(super) fn generations(&self, newest: Option<usize>) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(newest, |tx| self.transactions[*tx].previous)
    }

    /// True if the server may have forgotten the transaction.
    pub(super) fn may_be_gone(&self, tx: &Tx, now: Instant) -> bool {
        let t = &self.settings.timers;
        let kept = t.linger.min(t.t4);
        if self.is_stateless() {
            return true;
        }
        match tx.final_at {
            Some(at) => now.ms_since(at) + self.slack_ms() >= kept,
            None => tx.class != Class::Invite && now.ms_since(tx.arrived) + self.slack_ms() >= self.patience_ms().min(kept),
        }
    }

    /// True if the server must still know the branch.
    pub(super) fn is_alive(&self, branch: &Branch, now: Instant) -> bool {
        let tx = &self.transactions[branch.tx];
        let slack = self.slack_ms();
        let within = |since: Instant, ms: u64| now.ms_since(since) + slack < ms;
        if branch.tainted || branch.lost || tx.reopen {
            return false;
        }
        let brief = matches!(tx.class, Class::Other(_));
        if brief && !within(tx.arrived, self.patience_ms()) {
            return false;
        }
        if tx.final_at.is_some_and(|at| !within(at, self.settings.timers.linger)) {
            return false;
        }
        if branch.cancel.as_ref().is_some_and(|(_, at)| !within(*at, self.patience_ms())) {
            return false;
        }
        match (branch.outcome, branch.provisional) {
            (Some((status, at)), _) => status / 100 == 2 && tx.class == Class::Invite && within(at, self.settings.timers.linger),
            (None, Some(_)) if tx.class == Class::Invite => within(branch.last_sign(), self.settings.timers.c),
            _ => within(branch.sent, self.patience_ms()),
        }
    }

    pub(super) fn is_pending(&self, branch: usize, now: Instant) -> bool {
        let branch = &self.branches[branch];
        branch.outcome.is_none() && self.is_alive(branch, now)
    }

    /// True if nothing was heard of the branch for as long as `[next_hop] patience`: nobody need have waited for it, whatever came then.
    pub(super) fn is_silent(&self, branch: usize, now: Instant) -> bool {
        let branch = &self.branches[branch];
        let waited_ms = now.ms_since(branch.sent) + self.slack_ms();
        let is_unheard = branch.heard_at.is_none() && waited_ms >= self.settings.next_hop.patience;
        branch.outcome.is_none() && (is_unheard || self.came_late(branch))
    }

    /// True if a request to this host got no answer in time, or a 503, or did not arrive: of contacts that are tried one after the other, it may have
    /// been put last.
    pub(super) fn may_have_failed(&self, host: IpAddr, now: Instant) -> bool {
        let has_failed = |number: usize| {
            let branch = &self.branches[number];
            let is_busy = branch.outcome.is_some_and(|(status, _)| status == 503);
            // A phone behind a NAT is named by one address and reached by another.
            let is_named = || Address::of(branch.request.uri()).and_then(|uri| uri.ip()) == Some(host);
            (branch.to.ip() == host || is_named())
                && (branch.lost || is_busy || self.came_late(branch) || self.is_silent(number, now))
        };
        (0..self.branches.len()).any(has_failed)
    }

    /// True if the first that was heard of the branch came when patience was over: another target may have been tried in its place, or the answer
    /// of another may have left.
    pub(super) fn came_late(&self, branch: &Branch) -> bool {
        let waited_ms = branch.heard_at.map_or(0, |at| at.ms_since(branch.sent)) + self.slack_ms();
        waited_ms >= self.settings.next_hop.patience
    }

    pub(super) fn add(
        &mut self,
        class: Class,
        message: &Rc<Reading>,
        from: SocketAddr,
        intent: Intent,
        now: Instant,
        previous: Option<usize>,
    ) -> usize {
        self.transactions.push(Tx {
            class,
            request: Rc::clone(message),
            variants: Vec::new(),
            intent,
            arrived: now,
            sources: vec![from],
            branches: Vec::new(),
            finals: Vec::new(),
            answered: false,
            final_at: None,
            activity: now,
            cancel_asked: None,
            cancel_taken: None,
            accepted_in: None,
            declined_in: None,
            owed: Vec::new(),
            reopen: false,
            mangled: intent == Intent::Mangled,
            previous,
        });
        let number = self.transactions.len() - 1;
        self.by_key.insert(class.with(message.key), number);
        number
    }

    /// Begins a new transaction under the key of one that the server may have forgotten.
    pub(super) fn renew(&mut self, old: usize, now: Instant) -> usize {
        let tx = &self.transactions[old];
        let request = tx.variants.last().unwrap_or(&tx.request);
        let (class, request, mangled) = (tx.class, Rc::clone(request), tx.mangled);
        let (sources, cancel, mut variants) = (tx.sources.clone(), tx.cancel_asked, tx.variants.clone());
        if tx.request.digest != request.digest {
            variants.retain(|variant| variant.digest != request.digest);
            variants.push(Rc::clone(&tx.request));
        }
        let new = self.add(class, &request, sources[0], Intent::Hostile, now, Some(old));
        let tx = &mut self.transactions[new];
        tx.sources = sources;
        tx.cancel_asked = cancel;
        tx.variants = variants;
        tx.mangled = mangled;
        // Two cores may each have one of them, side by side.
        tx.reopen = tx.sources.len() > 1;
        new
    }

    /// When the final response to an INVITE is due at the latest.
    pub(super) fn deadline(&self, tx: usize) -> Instant {
        let mut wait = self.settings.timers.c + self.patience_ms() + self.slack_ms();
        if self.may_wait_for_name(tx) {
            // Each contact may wait for its own.
            let most = self.settings.registrar.max_contacts as u64 + 2;
            wait += most * self.settings.dns.timeout;
        }
        self.transactions[tx].activity.after_ms(wait)
    }

    /// True if the next hop of the request may be a name: it need not leave at once.
    pub(super) fn may_wait_for_name(&self, tx: usize) -> bool {
        let tx = &self.transactions[tx];
        let mut copies = std::iter::once(&tx.request).chain(&tx.variants);
        copies.any(|came| {
            let uri = Address::of(came.uri());
            let gateway = uri.is_some_and(|uri| uri.user.starts_with(GATEWAY_PREFIX));
            let named = |b: &&Bound| self.zone.has_name(&b.uri);
            gateway || self.zone.has_name(came.uri()) || self.bound_since(came.uri(), tx.arrived).iter().any(named)
        })
    }

    /// True if a request belongs to a dialog that was recorded through this server: its first Route is one we gave out.
    pub(super) fn is_inside(&self, message: &Reading) -> bool {
        message.values(Field::Route).first().is_some_and(|route| self.issued.contains(&digest(address_spec(route))))
    }

    /// True if some binding of this contact has that Path.
    pub(super) fn has_path(&self, contact: &[u8], path: &[&[u8]]) -> bool {
        self.bindings.has_path(contact, path)
    }

    /// Contacts that a request for an own address-of-record may go to.
    pub(super) fn bound_since(&self, uri: &[u8], since: Instant) -> Vec<&Bound> {
        canonical(uri).map_or(Vec::new(), |aor| {
            let all = self.bindings.of(&aor).iter();
            all.filter(|b| b.since(since)).collect()
        })
    }
}
