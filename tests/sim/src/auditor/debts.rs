//! What a server owes after something reached it, each debt with the moment at which it must be paid.

use super::{Auditor, Class};
use crate::air::{Air, Intent};
use crate::bindings::Bound;
use crate::reading::{Address, Field, address_spec, digest};
use crate::rule::Rule;
use crate::scenario::GATEWAY_PREFIX;
use std::collections::BinaryHeap;
use strowger::base::Instant;
use strowger::stack::settings::Fork;

#[derive(Clone, Copy, Debug)]
pub enum Debt {
    /// An honest request is answered or forwarded.
    Reply {
        tx: usize,
    },
    /// Something goes back for an INVITE.
    Trying {
        tx: usize,
    },
    /// The right targets were tried.
    Targets {
        tx: usize,
    },
    /// A final response goes back.
    Final {
        tx: usize,
    },
    /// All branches are done: a final goes back, or the next branch begins.
    Settled {
        tx: usize,
    },
    /// A response is passed on.
    Copy {
        tx: usize,
        /// Status and trunk.
        response: (u16, u64),
        since: Instant,
        final_one: bool,
    },
    /// An ACK inside of a dialog is passed on.
    AckOn {
        tx: usize,
    },
    /// The server's own ACK for a refusal.
    OwnAck {
        branch: usize,
        count: u32,
    },
    Cancel {
        branch: usize,
    },
}

struct Entry {
    at: u64,
    order: u64,
    server: usize,
    debt: Debt,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.order == other.order
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

#[derive(Default)]
pub struct Debts {
    heap: BinaryHeap<Entry>,
    order: u64,
}

impl Debts {
    pub fn push(&mut self, at: Instant, server: usize, debt: Debt) {
        self.order += 1;
        self.heap.push(Entry {
            at: at.as_ms(),
            order: self.order,
            server,
            debt,
        });
    }
}

impl Auditor {
    /// Looks at the debts that were due before now; with `all`, also at those that are due now.
    pub fn settle(&mut self, air: &mut Air, all: bool) {
        let now = air.now.as_ms() + u64::from(all);
        while self.debts.heap.peek().is_some_and(|entry| entry.at < now) {
            let Some(entry) = self.debts.heap.pop() else {
                return;
            };
            air.statistics.checks += 1;
            if let Some((rule, detail, at)) = self.collect(&entry) {
                let hop = &self.hops[entry.server];
                let about = std::rc::Rc::clone(&hop.transactions[at].request);
                self.complain(rule, entry.server, detail, Some(&about));
            }
        }
    }

    /// `None` when the debt was paid; else the rule, what is missing, and the transaction.
    fn collect(&mut self, entry: &Entry) -> Option<(Rule, String, usize)> {
        let at = Instant::from_ms(entry.at);
        let hop = &self.hops[entry.server];
        match entry.debt {
            Debt::Reply { tx } => {
                let t = &hop.transactions[tx];
                if t.answered || !t.branches.is_empty() || t.reopen || hop.may_wait_for_name(tx) {
                    return None;
                }
                Some((
                    Rule::NoSilence,
                    format!("{} was neither answered nor forwarded", t.request.title()),
                    tx,
                ))
            }
            Debt::Trying { tx } => {
                let t = &hop.transactions[tx];
                if t.answered || t.reopen {
                    return None;
                }
                let what = format!("nothing went back for {}", t.request.title());
                Some((Rule::TryingAtOnce, what, tx))
            }
            Debt::Final { tx } => {
                let t = &hop.transactions[tx];
                let answered = t.answered || !t.branches.is_empty();
                // A branch that somebody meddled with may have ended in a way that nobody can read.
                let meddled = t.branches.iter().any(|b| hop.branches[*b].tainted);
                if t.final_at.is_some() || t.reopen || !answered || meddled {
                    return None;
                }
                let due = hop.deadline(tx);
                if due > at {
                    self.debts.push(due, entry.server, entry.debt);
                    return None;
                }
                let what = format!("no final response for {}", t.request.title());
                Some((Rule::FinalInTime, what, tx))
            }
            Debt::Settled { tx } => {
                let t = &hop.transactions[tx];
                // A branch that ended since has a debt of its own.
                let ended = |b: &usize| hop.branches[*b].outcome.map(|(_, at)| at);
                let done = |b: &usize| ended(b).is_some_and(|ended| ended.after_ms(hop.soon_ms) <= at);
                let meddled = t.branches.iter().any(|b| hop.branches[*b].tainted);
                let nothing = t.final_at.is_none() && t.branches.iter().all(done) && !meddled;
                // RFC 4320 §4.2: a late response to a non-INVITE is not passed on, a 408 never.
                let may = match t.class {
                    Class::Invite => true,
                    Class::Other(_) => {
                        at.ms_since(t.arrived) + hop.slack_ms() < hop.patience_ms()
                            && t.branches
                                .iter()
                                .all(|b| hop.branches[*b].outcome.is_some_and(|(s, _)| s != 408))
                    }
                    _ => false,
                };
                // What waits for a name is looked for when its time is over.
                let waits = hop.may_wait_for_name(tx);
                if !nothing || !may || waits || t.reopen || t.intent != Intent::Honest {
                    return None;
                }
                let what = format!("all branches are done, nothing goes back for {}", t.request.title());
                Some((Rule::FinalInTime, what, tx))
            }
            Debt::Copy {
                tx,
                response: (status, trunk),
                since,
                final_one,
            } => {
                let t = &hop.transactions[tx];
                if !t.owed.contains(&(status, trunk, since)) || t.reopen {
                    return None;
                }
                // Of what a stranger is told, the first final answer alone is owed.
                let is_bounded = hop.settings.limits.answer_factor != 0;
                if is_bounded && (!final_one || t.final_at.is_some()) {
                    return None;
                }
                // A ringing that crossed with the final or the CANCEL need not be passed on.
                let over = t.final_at.is_some() || t.cancel_asked.is_some();
                // Another branch's answer to a non-INVITE was first.
                if over && (!final_one || t.class != Class::Invite) {
                    return None;
                }
                let what = format!(
                    "a response that came at {} was not passed on for {}",
                    since.as_ms(),
                    t.request.title()
                );
                Some((Rule::EveryAnswer, what, tx))
            }
            Debt::AckOn { tx } => {
                let t = &hop.transactions[tx];
                let spoiled = hop.spoiled.contains(&digest(t.request.call_id()));
                // A tag that somebody has put into the answer on its way is not the dialog's.
                let told = hop.guard.has_told_tag(&t.request);
                if !t.branches.is_empty() || t.reopen || spoiled || !told {
                    return None;
                }
                let what = format!("{} was not passed on", t.request.title());
                Some((Rule::AckForwarded, what, tx))
            }
            Debt::OwnAck { branch, count } => {
                let b = &hop.branches[branch];
                // Timer D is zero over a reliable transport: a second refusal meets nobody.
                if count > 1 && crate::streams::is_stream(&b.request) {
                    return None;
                }
                if b.acks >= count || b.tainted || b.lost || hop.transactions[b.tx].reopen {
                    return None;
                }
                let what = format!("{} refusals, {} ACKs to {}", b.refusals, b.acks, b.to);
                Some((Rule::OwnAck, what, b.tx))
            }
            Debt::Cancel { branch } => {
                let b = &hop.branches[branch];
                if b.cancel.is_some() || b.outcome.is_some() || b.tainted || b.lost {
                    return None;
                }
                let t = &hop.transactions[b.tx];
                if t.reopen {
                    return None;
                }
                let what = format!("the branch to {} was not cancelled", b.to);
                Some((Rule::CancelReach, what, b.tx))
            }
            Debt::Targets { tx } => self.targets(entry.server, tx),
        }
    }

    /// RFC 3261 §16.5, §16.6: the location service's contacts, all of them or the best.
    fn targets(&self, server: usize, tx: usize) -> Option<(Rule, String, usize)> {
        let hop = &self.hops[server];
        let t = &hop.transactions[tx];
        let uri = Address::of(t.request.uri())?;
        let conf = &hop.settings;
        if t.reopen
            || conf.proxy.redirect
            || uri.user.is_empty()
            || uri.user.starts_with(GATEWAY_PREFIX)
            || uri.ip().is_some()
            || !hop.is_own(uri.host, uri.port)
            || t.request.count(Field::Route) > 0
            || t.request.count(Field::Require) + t.request.count(Field::ProxyRequire) > 0
            || t.request.number(Field::MaxForwards) == Some(0)
            || t.request.method() == b"REGISTER"
        {
            return None;
        }
        let bound = hop.bound_since(t.request.uri(), t.arrived);
        let live: Vec<_> = bound.iter().filter(|b| b.was_live(t.arrived)).collect();
        // What changed in the very millisecond may have been before or after.
        if bound.iter().any(|b| b.begun == t.arrived || b.ended == Some(t.arrived)) {
            return None;
        }
        let reachable = |b: &Bound| {
            // By its Path, when it has one.
            let path = b.path.first().map(|first| address_spec(first));
            let socket = Address::of(path.unwrap_or(&b.uri)).and_then(|a| a.socket());
            socket.is_some_and(|s| !hop.addresses.contains(&s) && hop.addresses.iter().any(|a| a.is_ipv6() == s.is_ipv6()))
        };
        let expected: Vec<_> = live.iter().filter(|b| reachable(b)).collect();
        // Loops, and more targets than the breadth allows, have other answers.
        if expected.len() < live.len() || expected.len() as u64 > hop.breadth(&t.request) {
            return None;
        }
        // Or the server is full, or asks who that is.
        let refused_as_loop = t
            .finals
            .iter()
            .any(|(status, ..)| matches!(status, 401 | 403 | 407 | 482 | 483 | 440 | 503));
        if refused_as_loop {
            return None;
        }
        if expected.is_empty() {
            let found = t.finals.iter().any(|(status, ..)| matches!(status, 404 | 480 | 405 | 200));
            return (!found && bound.is_empty()).then(|| {
                (
                    Rule::TargetSet,
                    format!("nobody is bound, and no 404 or 480 for {}", t.request.title()),
                    tx,
                )
            });
        }
        let best = expected.iter().map(|b| b.q).max();
        for contact in &expected {
            if conf.proxy.fork == Fork::Sequential && Some(contact.q) != best {
                continue;
            }
            let tried = t
                .branches
                .iter()
                .any(|b| crate::reading::same_uri(hop.branches[*b].request.uri(), &contact.uri));
            // A place that has never shown that it hears the server may be left out.
            let may_be_left_out = conf.limits.answer_factor != 0
                && strowger::sip::Uri::parse(&contact.uri).is_ok_and(|uri| uri.host.ip().is_none_or(|ip| !hop.heard.contains(&ip)));
            if !tried && !may_be_left_out {
                let what = format!(
                    "of {:?} {:?} was not tried",
                    expected.iter().map(|b| b.in_words()).collect::<Vec<_>>(),
                    contact.in_words()
                );
                return Some((Rule::TargetSet, what, tx));
            }
        }
        None
    }
}
