//! Whether a server has paid what it owed, when the time of each debt has come.

use super::Auditor;
use super::debts::{Debt, Entry};
use super::hop::{Class, Hop};
use crate::address::{Address, same_uri};
use crate::addresses::dead;
use crate::air::Air;
use crate::bindings::Bound;
use crate::hashing::digest;
use crate::intent::Intent;
use crate::link::is_stream;
use crate::plan::GATEWAY_PREFIX;
use crate::reading::Field;
use crate::rule::Rule;
use crate::text::address_spec;
use std::rc::Rc;
use strowger::base::Instant;
use strowger::stack::route::Route;
use strowger::stack::settings::Fork;

/// What was not paid: the rule, what is missing, and the transaction.
type Missing = (Rule, String, usize);

impl Auditor {
    /// Looks at the debts that were due before now; with `all`, also at those that are due now.
    pub fn settle(&mut self, air: &mut Air, all: bool) {
        let now = air.now.as_ms() + u64::from(all);
        while let Some(entry) = self.debts.due_before(now) {
            air.statistics.checks += 1;
            if let Some((rule, detail, at)) = self.collect(&entry) {
                let hop = &self.hops[entry.server];
                let about = Rc::clone(&hop.transactions[at].request);
                self.complain(rule, entry.server, detail, Some(&about));
            }
        }
    }

    /// `None` if the debt was paid, or is put off.
    fn collect(&mut self, entry: &Entry) -> Option<Missing> {
        let at = Instant::from_ms(entry.at);
        let hop = &self.hops[entry.server];
        match entry.debt {
            Debt::Reply { tx } => hop.reply_missing(tx),
            Debt::Trying { tx } => hop.trying_missing(tx),
            Debt::Final { tx } => {
                let missing = hop.final_missing(tx)?;
                let due = hop.deadline(tx);
                if due > at {
                    self.debts.push(due, entry.server, entry.debt);
                    return None;
                }
                Some(missing)
            }
            Debt::Settled { tx } => hop.outcome_missing(tx, at),
            Debt::NextTarget { tx } => hop.next_target_missing(tx),
            Debt::Copy { tx, response, since, final_one } => hop.copy_missing(tx, response, since, final_one),
            Debt::AckOn { tx } => hop.ack_not_passed_on(tx),
            Debt::OwnAck { branch, count } => hop.own_ack_missing(branch, count),
            Debt::Cancel { branch } => hop.cancel_missing(branch),
            Debt::Targets { tx } => hop.target_missing(tx),
        }
    }
}

impl Hop {
    fn reply_missing(&self, tx: usize) -> Option<Missing> {
        let t = &self.transactions[tx];
        if t.answered || !t.branches.is_empty() || t.reopen || self.may_wait_for_name(tx) {
            return None;
        }
        let what = format!("{} was neither answered nor forwarded", t.request.title());
        Some((Rule::NoSilence, what, tx))
    }

    fn trying_missing(&self, tx: usize) -> Option<Missing> {
        let t = &self.transactions[tx];
        if t.answered || t.reopen {
            return None;
        }
        let what = format!("nothing went back for {}", t.request.title());
        Some((Rule::TryingAtOnce, what, tx))
    }

    fn final_missing(&self, tx: usize) -> Option<Missing> {
        let t = &self.transactions[tx];
        let answered = t.answered || !t.branches.is_empty();
        // A branch that somebody meddled with may have ended in a way that nobody can read.
        let meddled = t.branches.iter().any(|b| self.branches[*b].tainted);
        if t.final_at.is_some() || t.reopen || !answered || meddled {
            return None;
        }
        let what = format!("no final response for {}", t.request.title());
        Some((Rule::FinalInTime, what, tx))
    }

    /// Nobody is at the first target: when patience is over, or before, the next one is asked.
    fn next_target_missing(&self, tx: usize) -> Option<Missing> {
        let t = &self.transactions[tx];
        let is_dead = |branch: &usize| {
            let branch = &self.branches[*branch];
            branch.to == dead(branch.to.is_ipv6()) && branch.outcome.is_none() && !branch.tainted
        };
        let is_stuck = !t.branches.is_empty() && t.branches.iter().all(is_dead);
        let is_over = t.final_at.is_some() || t.cancel_asked.is_some() || t.reopen || t.intent != Intent::Honest;
        if !is_stuck || is_over || !self.has_second_gateway(t.request.uri()) {
            return None;
        }
        let what = format!("no other target was tried in place of a silent one for {}", t.request.title());
        Some((Rule::FinalInTime, what, tx))
    }

    /// Whether a request for this URI goes to a dead gateway, and to another one if that fails, both by address.
    fn has_second_gateway(&self, uri: &[u8]) -> bool {
        let is_gateway = Address::of(uri).is_some_and(|uri| uri.user.starts_with(GATEWAY_PREFIX));
        let is_spare = |route: &Route| {
            let targets: Vec<_> = route.hops().iter().map(|hop| hop.address).collect();
            matches!(targets[..], [Some(first), Some(_)] if first == dead(first.is_ipv6()))
        };
        is_gateway && self.settings.routes.iter().any(is_spare)
    }

    fn outcome_missing(&self, tx: usize, at: Instant) -> Option<Missing> {
        let t = &self.transactions[tx];
        // A branch that ended since has a debt of its own.
        let ended = |b: &usize| self.branches[*b].outcome.map(|(_, at)| at);
        let done = |b: &usize| ended(b).is_some_and(|ended| ended.after_ms(self.soon_ms) <= at);
        let meddled = t.branches.iter().any(|b| self.branches[*b].tainted);
        let nothing = t.final_at.is_none() && t.branches.iter().all(done) && !meddled;
        // RFC 4320 §4.2: a late response to a non-INVITE is not passed on, a 408 never.
        let passes = |b: &usize| self.branches[*b].outcome.is_some_and(|(s, _)| s != 408);
        let may = match t.class {
            Class::Invite => true,
            Class::Other(_) => at.ms_since(t.arrived) + self.slack_ms() < self.patience_ms() && t.branches.iter().all(passes),
            _ => false,
        };
        // What waits for a name is looked for when its time is over.
        let waits = self.may_wait_for_name(tx);
        if !nothing || !may || waits || t.reopen || t.intent != Intent::Honest {
            return None;
        }
        let what = format!("all branches are done, nothing goes back for {}", t.request.title());
        Some((Rule::FinalInTime, what, tx))
    }

    fn copy_missing(&self, tx: usize, (status, trunk): (u16, u64), since: Instant, final_one: bool) -> Option<Missing> {
        let t = &self.transactions[tx];
        if !t.owed.contains(&(status, trunk, since)) || t.reopen {
            return None;
        }
        // Of what a stranger is told, the first final answer alone is owed.
        let is_bounded = self.settings.limits.answer_factor != 0;
        if is_bounded && (!final_one || t.final_at.is_some()) {
            return None;
        }
        // A ringing that crossed with the final or the CANCEL need not be passed on.
        let over = t.final_at.is_some() || t.cancel_asked.is_some();
        // Another branch's answer to a non-INVITE was first.
        if over && (!final_one || t.class != Class::Invite) {
            return None;
        }
        let (came_at, title) = (since.as_ms(), t.request.title());
        let what = format!("a response that came at {came_at} was not passed on for {title}");
        Some((Rule::EveryAnswer, what, tx))
    }

    fn ack_not_passed_on(&self, tx: usize) -> Option<Missing> {
        let t = &self.transactions[tx];
        let spoiled = self.spoiled.contains(&digest(t.request.call_id()));
        // A tag that somebody has put into the answer on its way is not the dialog's.
        let told = self.guard.has_told_tag(&t.request);
        if !t.branches.is_empty() || t.reopen || spoiled || !told {
            return None;
        }
        let what = format!("{} was not passed on", t.request.title());
        Some((Rule::AckForwarded, what, tx))
    }

    fn own_ack_missing(&self, branch: usize, count: u32) -> Option<Missing> {
        let b = &self.branches[branch];
        // Timer D is zero over a reliable transport: a second refusal meets nobody.
        if count > 1 && is_stream(&b.request) {
            return None;
        }
        if b.acks >= count || b.tainted || b.lost || self.transactions[b.tx].reopen {
            return None;
        }
        let what = format!("{} refusals, {} ACKs to {}", b.refusals, b.acks, b.to);
        Some((Rule::OwnAck, what, b.tx))
    }

    fn cancel_missing(&self, branch: usize) -> Option<Missing> {
        let b = &self.branches[branch];
        if b.cancel.is_some() || b.outcome.is_some() || b.tainted || b.lost || self.transactions[b.tx].reopen {
            return None;
        }
        let what = format!("the branch to {} was not cancelled", b.to);
        Some((Rule::CancelReach, what, b.tx))
    }

    /// RFC 3261 §16.5, §16.6: the location service's contacts, all of them or the best.
    fn target_missing(&self, tx: usize) -> Option<Missing> {
        if !self.is_for_location_service(tx) {
            return None;
        }
        let t = &self.transactions[tx];
        let bound = self.bound_since(t.request.uri(), t.arrived);
        let live: Vec<_> = bound.iter().filter(|b| b.was_live(t.arrived)).collect();
        // What changed in the very millisecond may have been before or after.
        if bound.iter().any(|b| b.begun == t.arrived || b.ended == Some(t.arrived)) {
            return None;
        }
        let expected: Vec<&Bound> = live.iter().filter(|b| self.can_reach(b)).map(|b| **b).collect();
        // Loops, and more targets than the breadth allows, have other answers.
        if expected.len() < live.len() || expected.len() as u64 > self.breadth(&t.request) {
            return None;
        }
        // Or the server is full, or asks who that is.
        let says = |statuses: &[u16]| t.finals.iter().any(|(status, ..)| statuses.contains(status));
        if says(&[401, 403, 407, 482, 483, 440, 503]) {
            return None;
        }
        if expected.is_empty() {
            if says(&[404, 480, 405, 200]) || !bound.is_empty() {
                return None;
            }
            let what = format!("nobody is bound, and no 404 or 480 for {}", t.request.title());
            return Some((Rule::TargetSet, what, tx));
        }
        let conf = &self.settings;
        let is_sequential = conf.proxy.fork == Fork::Sequential;
        let is_last = |contact: &Bound| {
            let ip = strowger::sip::Uri::parse(&contact.uri).ok().and_then(|uri| uri.host.ip());
            is_sequential && ip.is_none_or(|ip| self.may_have_failed(ip, t.arrived))
        };
        let best = expected.iter().map(|b| b.q).max();
        for contact in &expected {
            if is_sequential && (Some(contact.q) != best || is_last(contact)) {
                continue;
            }
            let tried = t.branches.iter().any(|b| same_uri(self.branches[*b].request.uri(), &contact.uri));
            // A place that has never shown that it hears the server may be left out.
            let may_be_left_out = conf.limits.answer_factor != 0
                && strowger::sip::Uri::parse(&contact.uri)
                    .is_ok_and(|uri| uri.host.ip().is_none_or(|ip| !self.heard.contains(&ip)));
            if !tried && !may_be_left_out {
                let all: Vec<_> = expected.iter().map(|b| b.in_words()).collect();
                let what = format!("of {all:?} {:?} was not tried", contact.in_words());
                return Some((Rule::TargetSet, what, tx));
            }
        }
        None
    }

    /// An own address-of-record alone says where the request goes.
    fn is_for_location_service(&self, tx: usize) -> bool {
        let t = &self.transactions[tx];
        let Some(uri) = Address::of(t.request.uri()) else {
            return false;
        };
        let goes_elsewhere = t.reopen
            || self.settings.proxy.redirect
            || uri.user.is_empty()
            || uri.user.starts_with(GATEWAY_PREFIX)
            || uri.ip().is_some()
            || !self.is_own(uri.host, uri.port)
            || t.request.count(Field::Route) > 0
            || t.request.count(Field::Require) + t.request.count(Field::ProxyRequire) > 0
            || t.request.number(Field::MaxForwards) == Some(0)
            || t.request.method() == b"REGISTER";
        !goes_elsewhere
    }

    /// By its Path, if it has one; no loop, and in a family of addresses that the server has.
    fn can_reach(&self, bound: &Bound) -> bool {
        let path = bound.path.first().map(|first| address_spec(first));
        let socket = Address::of(path.unwrap_or(&bound.uri)).and_then(|a| a.socket());
        socket.is_some_and(|s| !self.addresses.contains(&s) && self.addresses.iter().any(|a| a.is_ipv6() == s.is_ipv6()))
    }
}
