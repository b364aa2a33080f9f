//! What a location service knows if several servers share it: the nodes, the clock of its versions, and the rules by which a local
//! change becomes a version that the others are told.

use super::binding::Binding;
use super::record::{REMOVED_MS, Record};
use super::rounds::Rounds;
use super::shared_note::{NodeNumber, SharedNote};
use super::version::Version;
use crate::base::{Instant, Key};
use crate::settings::Durability;
use crate::stack::cookie::look_alike;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

/// What a node is told of a binding beyond the time when it expires, in lifetimes: the refreshes in between are not told.
const LEASED: u64 = 6;

/// Returns for how long a binding with this lifetime may be held by nodes that hear no more of it.
pub fn held_ms(lifetime_ms: u64) -> u64 {
    (LEASED + 1) * lifetime_ms
}

/// By how much a version is later than the one that it replaces. The removal of what has expired is later by less, so it never wins
/// over a REGISTER that another node has answered meanwhile.
const STEP_MS: u64 = 2;
const EXPIRY_STEP_MS: u64 = 1;

/// Nodes that are distinguished; nobody runs so many.
const NODES: usize = 1024;

/// How a table is shared.
#[derive(Clone, Debug)]
pub struct SharingTerms {
    /// This server's name among the nodes. No two have the same.
    pub node: Vec<u8>,
    /// The time since 1970 at [`Instant`] zero, in milliseconds.
    pub wall_ms: u64,
    /// Distinguishes this run of the server from all others: when it was started, milliseconds since 1970.
    pub run: u64,
    /// A 200 to a REGISTER waits until the store has the change.
    pub is_acknowledged: bool,
}

pub(super) struct Sharing {
    pub rounds: Rounds,
    wall_ms: AtomicU64,
    /// By number. This server is the first.
    nodes: RwLock<Vec<Node>>,
    /// Addresses-of-record that the store cannot take while another program has their keys there; and whether there are any.
    blocked: RwLock<HashSet<Box<[u8]>>>,
    has_blocked: AtomicBool,
    /// The number of the last full reading.
    reading: AtomicU32,
    /// When this server was started, milliseconds since 1970; some later if another's cookies would look like ours.
    run: AtomicU64,
    /// Cookies bear it.
    is_run_settled: AtomicBool,
}

/// A server among those that share a table.
#[derive(Clone, Debug)]
pub struct Server {
    pub name: Box<[u8]>,
    /// Distinguishes its runs: when it was started, milliseconds since 1970.
    pub run: u64,
}

impl Server {
    /// Returns the number by which cookies, and the places of connections in them, are told from those of every other server and run,
    /// except by chance: the others know it as well.
    pub fn cookie_run(&self) -> u32 {
        cookie_run(&self.name, self.run)
    }
}

pub(super) fn cookie_run(name: &[u8], run: u64) -> u32 {
    // It hides nothing, and must come out the same everywhere.
    Key::new(0, 0).hash(&[name, &run.to_be_bytes()]) as u32
}

/// A node that was heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: Box<[u8]>,
    /// Where it takes requests for phones that only it can reach, if it has said so.
    pub relay: Option<SocketAddr>,
    /// What its cookies bear ([`Server::cookie_run`]), if it has said so.
    pub cookie_run: Option<u32>,
    /// Since when it has not been heard of; `None` while it lives.
    pub gone: Option<Instant>,
}

impl Sharing {
    pub fn new(terms: SharingTerms) -> Sharing {
        let own = Node { name: terms.node.into(), relay: None, cookie_run: None, gone: None };
        let durability = match terms.is_acknowledged {
            true => Durability::Acknowledged,
            false => Durability::Batched,
        };
        Sharing {
            rounds: Rounds { durability: Some(durability), ..Rounds::default() },
            wall_ms: AtomicU64::new(terms.wall_ms),
            nodes: RwLock::new(vec![own]),
            blocked: RwLock::default(),
            has_blocked: AtomicBool::new(false),
            reading: AtomicU32::new(0),
            run: AtomicU64::new(terms.run),
            is_run_settled: AtomicBool::new(false),
        }
    }

    // ---- the clock --------------------------------------------------------------------------------------------------------

    pub fn wall_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::Relaxed)
    }

    pub fn set_wall_ms(&self, wall_ms: u64) {
        self.wall_ms.store(wall_ms, Ordering::Relaxed);
    }

    /// Returns the moment that the nodes call by this time; what was before the server's start is at its start.
    pub fn instant(&self, wall_ms: u64) -> Instant {
        Instant::from_ms(wall_ms.saturating_sub(self.wall_ms()))
    }

    // ---- the nodes --------------------------------------------------------------------------------------------------------

    pub fn with_nodes<R>(&self, look: impl FnOnce(&[Node]) -> R) -> R {
        look(&self.nodes.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the number of a node, and since when it is gone. `None` if there are too many.
    pub fn number_of(&self, name: &[u8]) -> Option<(NodeNumber, Option<Instant>)> {
        let find = |nodes: &[Node]| {
            let at = nodes.iter().position(|node| *node.name == *name)?;
            Some((NodeNumber(at as u16), nodes.get(at)?.gone))
        };
        self.with_nodes(find).or_else(|| {
            let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
            if find(&nodes).is_none() && nodes.len() < NODES {
                nodes.push(Node { name: name.into(), relay: None, cookie_run: None, gone: None });
            }
            find(&nodes)
        })
    }

    /// Changes what is known of a node.
    pub fn set_node(&self, number: NodeNumber, change: impl FnOnce(&mut Node)) {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = nodes.get_mut(usize::from(number.0)) {
            change(node);
        }
    }

    pub fn run(&self) -> u64 {
        self.run.load(Ordering::Relaxed)
    }

    /// Chooses a number for this run whose cookies look like those of no other node, and not like those of the run `before`. Once the
    /// first may have been written, it stays. Returns whether it is another now.
    pub fn distinguish(&self, before: Option<u32>) -> bool {
        if self.is_run_settled.load(Ordering::Relaxed) {
            return false;
        }
        let mut run = self.run();
        let is_taken = |run: u64| {
            let look = |nodes: &[Node]| {
                let own = nodes.first().map_or(0, |own| cookie_run(&own.name, run));
                nodes.iter().skip(1).filter_map(|node| node.cookie_run).chain(before).any(|other| look_alike(own, other))
            };
            self.with_nodes(look)
        };
        // There are more numbers than nodes.
        while is_taken(run) {
            run += 1;
        }
        self.run.swap(run, Ordering::Relaxed) != run
    }

    /// Has it stay from now on.
    pub fn settle_run(&self, before: Option<u32>) {
        self.distinguish(before);
        self.is_run_settled.store(true, Ordering::Relaxed);
    }

    // ---- what cannot be told -------------------------------------------------------------------------------------------

    /// Notes whether the store takes what it is told of an address.
    pub fn set_blocked(&self, aor: &[u8], is_blocked: bool) {
        // What was told in time, as ever, is no news.
        if !is_blocked && !self.has_blocked() || self.rounds.durability != Some(Durability::Acknowledged) {
            return;
        }
        let mut blocked = self.blocked.write().unwrap_or_else(PoisonError::into_inner);
        match is_blocked {
            true => _ = blocked.insert(aor.into()),
            false => _ = blocked.remove(aor),
        }
        self.has_blocked.store(!blocked.is_empty(), Ordering::SeqCst);
    }

    pub fn has_blocked(&self) -> bool {
        self.has_blocked.load(Ordering::SeqCst)
    }

    pub fn is_blocked(&self, aor: &[u8]) -> bool {
        self.blocked.read().unwrap_or_else(PoisonError::into_inner).contains(aor)
    }

    // ---- full readings ----------------------------------------------------------------------------------------------------

    pub fn reading(&self) -> u32 {
        self.reading.load(Ordering::Relaxed)
    }

    pub fn begin_reading(&self) {
        self.reading.fetch_add(1, Ordering::Relaxed);
    }

    // ---- versions ---------------------------------------------------------------------------------------------------------

    /// Gives what a change has made of a record its versions; `before` are the bindings as they were. What is gone from the record
    /// is there again as removed. Returns whether there is something to tell.
    pub fn settle(&self, before: Vec<Binding>, record: &mut Record, now: Instant) -> bool {
        let mut has_news = false;
        forget_reused(&mut record.bindings);
        for binding in &mut record.bindings {
            let old = before.iter().find(|old| old.is_field(&binding.text(), binding.reg_id));
            let known = old.and_then(|old| Some((old, old.shared.as_deref()?)));
            if let Some((old, note)) = known {
                let is_covered = is_covered(old, note, binding, now);
                if is_covered || old.says_the_same(binding) {
                    let mut note = note.clone();
                    if is_covered {
                        note.refreshed_ms = self.next_time(&note, now, STEP_MS);
                    }
                    binding.shared = Some(Box::new(note));
                    continue;
                }
            }
            let mut note = self.new_note(known, binding, now);
            if binding.removed && old.is_none() {
                // The lease says how long that is remembered; an older REGISTER is no longer on its way than any other.
                binding.expires = binding.expires.min(now.after_ms(REMOVED_MS));
                note.told_expires = binding.expires;
            }
            binding.shared = Some(Box::new(note));
            has_news = true;
        }
        for mut old in before {
            let is_there = record.bindings.iter().any(|binding| binding.is_field(&old.text(), old.reg_id));
            if is_there || old.removed || !old.is_kept(now) {
                continue;
            }
            let replaced = old.clone();
            old.removed = true;
            old.expires = now.after_ms(REMOVED_MS);
            let known = replaced.shared.as_deref().map(|note| (&replaced, note));
            old.shared = Some(Box::new(self.new_note(known, &old, now)));
            record.add(old);
            has_news = true;
        }
        has_news
    }

    /// Returns the note of a new version that this node has made of a binding; `old` is the one that it replaces.
    fn new_note(&self, old: Option<(&Binding, &SharedNote)>, binding: &Binding, now: Instant) -> SharedNote {
        let wall_ms = self.wall_ms().saturating_add(now.as_ms());
        let mut version = Version { time_ms: wall_ms, series: 0, cseq: binding.cseq };
        let lifetime_ms = match binding.removed {
            true => 0,
            false => binding.expires.ms_since(now),
        };
        let mut lease = binding.expires.after_ms(LEASED * lifetime_ms);
        if let Some((old, note)) = old {
            version.time_ms = self.next_time(note, now, STEP_MS);
            if old.text().call_id == binding.text().call_id {
                let began_again = binding.cseq < old.cseq.max(note.version.cseq);
                version.series = note.version.series.saturating_add(u32::from(began_again));
            }
            lease = lease.max(note.lease);
        }
        SharedNote {
            version,
            lease,
            told_expires: binding.expires,
            refreshed_ms: 0,
            position: 0,
            relay: Box::default(),
            lifetime_s: lifetime_ms.div_ceil(1000) as u32,
            seen: 0,
            node: NodeNumber::OWN,
            is_untold: true,
        }
    }

    /// Returns the time of a version that replaces this one now.
    fn next_time(&self, note: &SharedNote, now: Instant, step_ms: u64) -> u64 {
        let wall_ms = self.wall_ms().saturating_add(now.as_ms());
        wall_ms.max(note.time_ms().saturating_add(step_ms))
    }

    /// Gives bindings that the disk has brought back their versions. Each is older than any that the nodes know, unless its CSeq
    /// shows that it is not.
    pub fn adopt(&self, record: &mut Record) {
        for binding in &mut record.bindings {
            let mut note = self.new_note(None, binding, Instant::default());
            note.version.time_ms = 0;
            binding.shared = Some(Box::new(note));
        }
    }

    /// Asserts that each binding of a record has a version, that no two have one field, and that the others keep for longer what is live.
    #[cfg(debug_assertions)]
    pub fn check(&self, record: &Record) {
        let nodes = self.with_nodes(<[Node]>::len);
        for (at, binding) in record.bindings.iter().enumerate() {
            let address = record.address.escape_ascii();
            let Some(note) = binding.shared.as_deref() else {
                panic!("a binding of {address} has no version");
            };
            assert!(usize::from(note.node.0) < nodes, "a binding of {address} is of a node that nobody knows");
            assert!(note.lease >= binding.expires || binding.removed, "a binding of {address} outlives its lease");
            assert!(note.node != NodeNumber::OWN || note.relay.is_empty(), "a binding of {address} is relayed to ourselves");
            let like = record.bindings.iter().skip(at + 1).filter(|other| other.is_field(&binding.text(), binding.reg_id));
            assert_eq!(like.count(), 0, "two bindings of {address} have one field");
        }
    }

    /// Makes removals of what has expired on this node, its home, but what the others still keep. Returns whether there are any.
    pub fn expire(&self, record: &mut Record, now: Instant) -> bool {
        let mut has_news = false;
        for binding in &mut record.bindings {
            let Some(note) = binding.shared.as_deref_mut() else {
                continue;
            };
            if binding.removed || binding.expires > now || note.lease <= now || note.node != NodeNumber::OWN {
                continue;
            }
            binding.removed = true;
            note.version.time_ms = note.time_ms().saturating_add(EXPIRY_STEP_MS);
            note.version.cseq = binding.cseq;
            (note.told_expires, note.is_untold) = (binding.expires, true);
            has_news = true;
        }
        has_news
    }
}

/// A removal is over when its field is bound again: under another spelling of its contact, a phone has had another binding of its own
/// meanwhile, which is this one now.
fn forget_reused(bindings: &mut Vec<Binding>) {
    let mut at = 0;
    while let Some(binding) = bindings.get(at) {
        let is_like = |other: &Binding| !other.removed && other.is_field(&binding.text(), binding.reg_id);
        match binding.removed && bindings.iter().any(is_like) {
            true => _ = bindings.remove(at),
            false => at += 1,
        }
    }
}

/// Returns whether the others need not be told of a refresh on this node: what they were told holds for a lifetime longer.
fn is_covered(old: &Binding, note: &SharedNote, binding: &Binding, now: Instant) -> bool {
    let lifetime_ms = binding.expires.ms_since(now);
    let end = binding.expires.after_ms(lifetime_ms);
    note.node == NodeNumber::OWN
        && !note.is_untold
        && !binding.removed
        && old.is_live(now)
        && binding.cseq > old.cseq
        && lifetime_ms <= u64::from(note.lifetime_s) * 1000
        && end <= note.lease
        && binding.is_refresh_of(old)
}

impl Binding {
    /// Returns whether the store does not have it yet, as far as is known.
    pub fn is_untold(&self) -> bool {
        self.shared.as_ref().is_some_and(|note| note.is_untold)
    }
}

/// Has the store told again what it does not have: what this node knows of its own bindings by now.
pub(super) fn tell_again(binding: &mut Binding) {
    let (expires, cseq) = (binding.expires, binding.cseq);
    let Some(note) = binding.shared.as_deref_mut() else {
        return;
    };
    note.is_untold = true;
    if note.node == NodeNumber::OWN {
        (note.version.cseq, note.version.time_ms) = (cseq, note.time_ms());
        (note.told_expires, note.refreshed_ms) = (expires, 0);
        let lifetime_ms = u64::from(note.lifetime_s) * 1000;
        note.lease = note.lease.max(expires.after_ms(LEASED * lifetime_ms));
    }
}
