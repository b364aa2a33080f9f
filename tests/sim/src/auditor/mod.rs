//! The auditor: it sees the datagrams that reach a server and those that leave it, and knows what RFC 3261 makes of them.
//! It shares no code with the rules that it checks, and never looks inside.

mod answers;
mod arrivals;
mod collecting;
mod compare;
mod debts;
mod guard;
mod hop;
mod identity;
mod own_requests;
mod requests;

use crate::addresses::is_stranger;
use crate::air::Air;
use crate::hashing::digest;
use crate::intent::Intent;
use crate::reading::Reading;
use crate::rule::{Rule, Violation};
use crate::scenario::Scenario;
use crate::text::find;
use debts::Debts;
use hop::{Class, Hop};
use std::net::SocketAddr;
use std::rc::Rc;
use strowger::base::Instant;
use strowger::stack::Location;

/// All servers' books, and the first rule that was broken.
pub struct Auditor {
    hops: Vec<Hop>,
    debts: Debts,
    pub violation: Option<Violation>,
}

impl Auditor {
    pub fn new(scenario: &Scenario) -> Auditor {
        let hops = scenario.servers.iter().map(|plan| Hop::new(plan, &scenario.zone)).collect();
        Auditor { hops, debts: Debts::default(), violation: None }
    }

    pub fn complain(&mut self, rule: Rule, server: usize, detail: String, about: Option<&Reading>) {
        if self.violation.is_none() && !rule.is_awaited() {
            self.violation = Some(Violation { rule, server, detail, call_id: about.map_or(Vec::new(), |m| m.call_id().to_vec()) });
        }
    }

    /// A server has begun anew, after a long silence.
    pub fn restarted(&mut self, server: usize) {
        self.hops[server].guard.begin_anew();
    }

    /// A server's turn begins that no datagram has caused, but perhaps a message from another core.
    pub fn turn(&mut self, server: usize, mail: Option<(SocketAddr, &Reading)>) {
        let suspect = mail.filter(|(_, message)| message.is_broken());
        self.hops[server].suspect = suspect.map(|(from, _)| from.ip());
    }

    /// A datagram is about to be handed to a server.
    pub fn ingress(&mut self, air: &mut Air, server: usize, from: SocketAddr, message: &Rc<Reading>, intent: Intent) {
        self.settle(air, false);
        let hop = &mut self.hops[server];
        hop.suspect = None;
        if message.is_broken() || intent == Intent::Mangled {
            hop.suspect = Some(from.ip());
            hop.suspects.insert(from.ip(), air.now);
        }
        if intent != Intent::Honest {
            let class = Class::of(message.bytes.split(|b| *b == b' ').next().unwrap_or(b""));
            let place = hop.meddled.entry(class.with(message.branch));
            place.or_insert(message.key);
        }
        let readable = !message.is_broken() && intent != Intent::Mangled;
        if intent != Intent::Honest && message.bytes.starts_with(b"INVITE") {
            hop.spoiled.insert(digest(message.call_id()));
        }
        if message.bytes.starts_with(b"CANCEL") {
            match readable {
                true => hop.cancels.insert(message.names_of_invite()),
                false => hop.cancelled.insert(message.branch),
            };
        }
        if message.is_broken() {
            return;
        }
        if message.is_request() && !hop.addresses.contains(&from) {
            hop.copies.entry(message.same_request()).or_default().0 += 1;
        }
        if message.is_request() {
            self.request_in(air, server, from, message, intent);
        } else {
            self.response_in(air, server, message, intent);
        }
    }

    /// A server was told that `message` of its own found nobody.
    pub fn undelivered(&mut self, server: usize, message: &Reading) {
        let hop = &mut self.hops[server];
        let class = Class::of(message.method());
        if let Some(branch) = hop.by_branch.get(&class.with(message.branch)) {
            hop.branches[*branch].lost = true;
        }
    }

    pub fn is_stateless(&self, server: usize) -> bool {
        self.hops[server].is_stateless()
    }

    /// A connection to this peer is gone: what was on it, either way, may never arrive.
    pub fn flow_lost(&mut self, server: usize, peer: SocketAddr, now: Instant) {
        let hop = &mut self.hops[server];
        let soon = match hop.settings.cores {
            1 => 0,
            _ => hop.soon_ms, // what one core has received may still be in the mail when another hears of the loss
        };
        for branch in hop.branches.iter_mut().filter(|b| b.to == peer) {
            let in_the_mail = |at: Instant| now.ms_since(at) < soon;
            if branch.outcome.is_none_or(|(_, at)| in_the_mail(at)) {
                branch.lost = true;
                let owed = &mut hop.transactions[branch.tx].owed;
                owed.retain(|(_, _, since)| !in_the_mail(*since));
            }
        }
    }

    /// A datagram is about to leave a server. Returns what the next hop may expect of it.
    pub fn egress(&mut self, air: &mut Air, server: usize, to: SocketAddr, message: &Rc<Reading>, location: &Location) -> Intent {
        air.statistics.checks += 1;
        let status = message.status();
        air.statistics.looped_answers += u64::from(matches!(status, 482 | 483));
        let full = find(&message.bytes, 0, b"503 Too Many Transactions");
        air.statistics.full += u64::from(full == Some(8));
        // A stateless proxy sends a response to where the Via below its own says (§16.11): who has been told a branch of it can
        // write there what he likes.
        let hop = &self.hops[server];
        let told = hop.is_stateless() && status > 0 && hop.is_foreign(to, message);
        if is_stranger(to) && !told {
            self.complain(Rule::NoStranger, server, format!("{} went to {to}", message.title()), Some(message));
            return Intent::Hostile;
        }
        if message.is_broken() {
            // What a server writes from what nobody can read is not readable either, as long as it goes back.
            let hop = &self.hops[server];
            let passed = |came: &Rc<Reading>| came.trunk == message.trunk;
            let known = hop.suspects.contains_key(&to.ip()) || hop.suspect.is_some() || hop.foreign_responses.iter().any(passed);
            if !known {
                self.complain(Rule::BitForBit, server, format!("nobody can read {}", message.title()), None);
            }
            let hop = &mut self.hops[server];
            if find(&message.bytes, 0, b"REGISTER").is_some() {
                hop.bindings.adopt(air.now, location);
                hop.guard.adopt(air.now, location);
            }
            return Intent::Mangled;
        }
        if !message.is_version_as_sent() {
            let what = format!("{} was sent", message.title());
            self.complain(Rule::Version, server, what, Some(message));
        }
        if !message.is_request() {
            self.hops[server].guard.say(air.now, message);
            return self.response_out(air, server, to, message, location);
        }
        let intent = self.request_out(air, server, to, message);
        if let Err((rule, detail)) = self.hops[server].nothing_leaks(to, message, intent) {
            self.complain(rule, server, detail, Some(message));
        }
        intent
    }

    /// The bindings of all servers against their location services.
    pub fn compare_bindings(&mut self, air: &mut Air, server: usize, location: &Location) {
        match self.hops[server].bindings.compare_all(air.now, location) {
            Ok(count) => air.statistics.bindings_checked += count as u64,
            Err(detail) => self.complain(Rule::Bindings, server, detail, None),
        }
    }
}
