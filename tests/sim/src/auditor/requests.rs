//! Requests that leave a server: those that it forwards (RFC 3261 §16.6).

use super::Auditor;
use super::compare::{self, Verdict};
use super::hop::{Branch, Class, Hop, Tx};
use crate::address::{Address, same_uri};
use crate::air::Air;
use crate::bearer::without_dot;
use crate::hashing::digest;
use crate::intent::Intent;
use crate::link::is_stream;
use crate::plan::{CIRCLE, GATEWAY_PREFIX};
use crate::reading::{Field, Reading};
use crate::rule::Rule;
use crate::text::address_spec;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use strowger::base::Instant;
use strowger::stack::route::{Action, NextHop};
use strowger::stack::settings::Fork;

/// Branches that leave for one datagram that came, at most: Max-Breadth (RFC 5393 §5.3.3), and some that are tried after others.
const COPIES: u32 = 120;

/// An ACK is tried nowhere after anywhere.
const ACK_COPIES: u32 = 60;

impl Auditor {
    pub(super) fn request_out(&mut self, air: &mut Air, server: usize, to: SocketAddr, message: &Rc<Reading>) -> Intent {
        let hop = &mut self.hops[server];
        let class = Class::of(message.method());
        let own = message.vias.len() == 1;
        if own && hop.mangled.contains(&message.branch) {
            return Intent::Mangled;
        }
        let verdict = match class {
            Class::Cancel if own && !hop.is_stateless() => hop.own_cancel(air, to, message),
            Class::Ack if own && !hop.is_stateless() => hop.own_ack(to, message),
            _ => {
                let verdict = hop.forward(air, class, to, message);
                match verdict {
                    Ok(intent) => return intent,
                    Err(broken) => Err(broken),
                }
            }
        };
        if let Err((rule, detail)) = verdict {
            self.complain(rule, server, detail, Some(message));
        }
        Intent::Honest
    }
}

impl Hop {
    fn forward(&mut self, air: &mut Air, class: Class, to: SocketAddr, message: &Rc<Reading>) -> Result<Intent, (Rule, String)> {
        let now = air.now;
        if let Some(known) = self.by_branch.get(&class.with(message.branch)).copied() {
            // A branch that is made of the one that came may be made again: for a copy with other bytes, and to another place
            // once the contact was bound anew in between.
            let remembered = !self.is_stateless() && class != Class::Ack;
            let branch = &self.branches[known];
            if remembered || (branch.request.digest == message.digest && branch.to == to) {
                return self.sent_again(known, to, message);
            }
        }
        let below = message.key_below();
        let newest = below.and_then(|key| self.find(key, class));
        let Some(newest) = newest else {
            // Its later branches are known by the Via below, which is as it came.
            let below = digest(message.via(1));
            // One that nobody can read for certain may have waited for its name.
            let patience = self.settings.dns.timeout + self.slack_ms();
            let late = self.zone.has_name(message.uri()) && self.suspects.values().any(|at| now.ms_since(*at) <= patience);
            if self.suspect.is_some() || late || self.mangled.contains(&message.branch) || self.mangled.contains(&below) {
                self.mangled.insert(message.branch);
                self.mangled.insert(below);
                return Ok(Intent::Mangled);
            }
            if message.vias.len() == 1 {
                return Err((Rule::ViaStack, format!("{} left with one Via", message.title())));
            }
            return Err((Rule::ViaStack, format!("nobody sent what left as {}", message.title())));
        };
        match self.acts_rightly(newest, class, to, message) {
            Err((rule, _)) if rule.is_awaited() => {}
            verdict => verdict?,
        }
        if !self.is_stateless() {
            if class == Class::Cancel {
                return Err((Rule::CancelStaysOnHop, format!("it went to {to}")));
            }
            self.no_stray_ack(newest, to, message)?;
            self.ack_may_leave(class, below, message, now)?;
        }
        let number = self.generation_for(newest, message, to, now)?;
        self.begin_branch(air, number, class, to, message)
    }

    /// A request on a branch that is known: a retransmission.
    fn sent_again(&mut self, known: usize, to: SocketAddr, message: &Reading) -> Result<Intent, (Rule, String)> {
        let branch = &self.branches[known];
        if branch.request.digest != message.digest {
            return Err((Rule::OneBranch, format!("other bytes on one branch: {}", compare::difference(&branch.request, message))));
        }
        if branch.to != to {
            return Err((Rule::OneBranch, format!("first to {}, then to {to}", branch.to)));
        }
        Ok(branch.intent)
    }

    /// An ACK that belongs to an INVITE of the same branch is for a refusal: it ends here.
    fn ack_may_leave(&self, class: Class, below: Option<u64>, message: &Reading, now: Instant) -> Verdict {
        if class != Class::Ack {
            return Ok(());
        }
        let Some(invite) = below.and_then(|key| self.find(key, Class::Invite)) else {
            return Ok(());
        };
        let tx = &self.transactions[invite];
        // From elsewhere it may reach another core, which does not know the INVITE.
        let ack = below.and_then(|key| self.find(key, Class::Ack));
        let elsewhere = |source: &SocketAddr| !tx.sources.contains(source);
        if ack.is_some_and(|ack| self.transactions[ack].sources.iter().any(elsewhere)) {
            return Ok(());
        }
        // So it may by a new connection.
        let by_stream = is_stream(&tx.request);
        if by_stream && self.settings.cores > 1 && tx.request.tag(Field::To).is_some() {
            return Ok(());
        }
        // A refusal of the server's own is known by its To tag alone: it leaves no memory.
        let own = tx.branches.is_empty();
        // Refused by a full server inside of a dialog: nothing in the ACK tells that.
        let full = tx.finals.iter().all(|(status, ..)| *status == 503);
        if own && full && tx.request.tag(Field::To).is_some() {
            return Ok(());
        }
        let tag = digest(message.tag(Field::To).unwrap_or(b""));
        let refused = tx.finals.iter().any(|(status, _, to_tag)| *status >= 300 && (!own || *to_tag == tag));
        if refused && !tx.reopen && !self.may_be_gone(tx, now) {
            return Err((Rule::AckStaysOnHop, format!("the ACK for {:?} left the hop", tx.finals)));
        }
        Ok(())
    }

    /// True if one of the copies that came left as `message`.
    fn left_as(&self, tx: &Tx, message: &Reading) -> Verdict {
        let compare = |came: &Reading| compare::forwarded(self, came, &tx.sources, message);
        let verdict = compare(&tx.request);
        if verdict.is_err() && tx.variants.iter().any(|came| compare(came).is_ok()) {
            return Ok(());
        }
        verdict
    }

    /// Which generation left as `message`.
    fn generation_for(&mut self, newest: usize, message: &Reading, to: SocketAddr, now: Instant) -> Result<usize, (Rule, String)> {
        // Two cores may each have one of the copies.
        let fits = self.generations(Some(newest)).find(|number| {
            let tx = &self.transactions[*number];
            let twice = tx.branches.iter().any(|b| {
                let branch = &self.branches[*b];
                branch.to == to && branch.request.uri() == message.uri()
            });
            let over = tx.final_at.is_some() || tx.cancel_taken.is_some();
            !(twice || over) && self.left_as(tx, message).is_ok()
        });
        let stateful = !self.is_stateless();
        if let (true, Some(number)) = (stateful, fits) {
            return Ok(number);
        }
        let tx = &self.transactions[newest];
        self.left_as(tx, message)?;
        let stateful = !self.is_stateless() && tx.class != Class::Ack;
        let twice = tx.branches.iter().any(|b| {
            let branch = &self.branches[*b];
            branch.to == to && branch.request.uri() == message.uri()
        });
        // One that no connection took, or that has no answer over one, may go by another transport (§18.1.1).
        let lost = |b: &usize| self.branches[*b].lost || (is_stream(&self.branches[*b].request) && self.is_silent(*b, now));
        let over = tx.final_at.is_some() || tx.cancel_taken.is_some();
        if !over && tx.branches.iter().any(lost) {
            return Ok(newest);
        }
        if stateful && (twice || over) {
            if tx.reopen || self.may_be_gone(&self.transactions[newest], now) {
                return Ok(self.renew(newest, now));
            }
            return Err(if twice {
                (Rule::OneBranch, format!("a second branch to {}", message.title()))
            } else {
                (Rule::NoForkAfterEnd, format!("{} began after the end", message.title()))
            });
        }
        Ok(newest)
    }

    fn begin_branch(
        &mut self,
        air: &mut Air,
        number: usize,
        class: Class,
        to: SocketAddr,
        message: &Rc<Reading>,
    ) -> Result<Intent, (Rule, String)> {
        let now = air.now;
        self.expected(number, to, message)?;
        self.few_copies(class, message)?;
        let tx = &self.transactions[number];
        let came = Rc::clone(&tx.request);
        let q = self.bound_since(came.uri(), tx.arrived).iter().rev().find(|b| same_uri(&b.uri, message.uri())).map(|b| b.q);
        if !self.is_stateless() {
            self.order_of_targets(number, to.ip(), q, now)?;
        }
        // What the next hop gets may be any of the copies.
        let intent = match (tx.mangled, tx.variants.is_empty()) {
            (true, _) => Intent::Mangled,
            (false, false) => tx.intent.max(Intent::Hostile),
            (false, true) => tx.intent,
        };
        self.branches.push(Branch {
            q,
            older: self.by_branch.get(&class.with(message.branch)).copied(),
            ..Branch::begun(number, intent, message, to, now)
        });
        let branch = self.branches.len() - 1;
        self.by_branch.insert(class.with(message.branch), branch);
        self.by_branch_alone.insert(message.branch, branch);
        let sequential = self.settings.proxy.fork == Fork::Sequential;
        let tx = &mut self.transactions[number];
        let tx_moves = sequential && !tx.branches.is_empty() && tx.activity < now;
        tx.branches.push(branch);
        tx.activity = now;
        air.statistics.sequential_moves += u64::from(tx_moves);
        self.count_branch(air, branch, &came);
        let added = message.values(Field::RecordRoute);
        let before = came.values(Field::RecordRoute).len();
        for value in added.iter().take(added.len().saturating_sub(before)) {
            self.issued.insert(digest(address_spec(value)));
        }
        let came = came.uri().to_vec();
        self.guard.opened(message, &came);
        let ends = self.ends.entry(digest(message.call_id())).or_default();
        ends.extend(&self.transactions[number].sources);
        ends.insert(to);
        self.breadth_holds(number)?;
        self.reachable_route(&added, before, to)?;
        self.same_branch_for_cancel(class, number, message)?;
        Ok(intent)
    }

    /// What kind of branch it is, for the statistics.
    fn count_branch(&self, air: &mut Air, branch: usize, came: &Reading) {
        let branch = &self.branches[branch];
        let (message, to) = (&branch.request, branch.to);
        let statistics = &mut air.statistics;
        statistics.by_name += u64::from(self.zone.has_name(message.uri()));
        let uri = Address::of(message.uri()).and_then(|a| a.socket());
        let added = message.count(Field::Route) > came.count(Field::Route);
        statistics.by_path += u64::from(added);
        statistics.to_nat += u64::from(!added && branch.q.is_some() && uri.is_some_and(|u| u != to));
        statistics.stateless_forwards += u64::from(self.is_stateless());
        let chained = self.settings.routes.iter().any(|route| match &route.action {
            Action::Relay(targets) => route.to_host.is_some() && targets.iter().any(|target| target.address == Some(to)),
            _ => false,
        });
        statistics.chained_forwards += u64::from(chained);
        let sources = &self.transactions[branch.tx].sources;
        statistics.cross_family_forwards += u64::from(sources.iter().any(|s| s.is_ipv6() != to.is_ipv6()));
    }

    /// An ACK of no call that passed here goes nowhere, where every ACK of a call shows the way that we recorded; but a `[[route]]`
    /// leads on what it is given.
    fn no_stray_ack(&self, newest: usize, to: SocketAddr, message: &Reading) -> Verdict {
        let passed = self.ends.contains_key(&digest(message.call_id()));
        let knows = !self.is_stateless() && self.settings.proxy.record_route;
        let tx = &self.transactions[newest];
        let mut copies = std::iter::once(&tx.request).chain(&tx.variants);
        let ack = tx.class == Class::Ack;
        if !ack || !knows || passed || copies.any(|came| self.by_conf(came, to)) {
            return Ok(());
        }
        let what = format!("{} left, its call never did", message.title());
        Err((Rule::StrayAck, what))
    }

    /// One datagram must not make many.
    fn few_copies(&mut self, class: Class, message: &Reading) -> Verdict {
        let (came, left) = self.copies.entry(message.same_request()).or_default();
        *left += 1;
        let each = match class {
            Class::Ack => ACK_COPIES,
            _ => COPIES,
        };
        let (came, left) = ((*came).max(1), *left);
        if left > came * each && !Rule::Copies.is_awaited() {
            return Err((Rule::Copies, format!("{came} came, {left} left")));
        }
        Ok(())
    }

    /// The Record-Route value on top must be of the family that the next hop speaks.
    fn reachable_route(&self, values: &[&[u8]], before: usize, to: SocketAddr) -> Verdict {
        if values.len() == before {
            return Ok(());
        }
        let Some(ip) = Address::of(address_spec(values[0])).and_then(|a| a.ip()) else {
            return Ok(());
        };
        if ip.is_ipv6() != to.is_ipv6() {
            return Err((Rule::RecordRoute, format!("{to} cannot reach {ip}, which is on top")));
        }
        Ok(())
    }

    /// §16.11: what belongs together leaves on one branch.
    fn same_branch_for_cancel(&self, class: Class, number: usize, message: &Reading) -> Verdict {
        if !self.is_stateless() || class != Class::Cancel {
            return Ok(());
        }
        let came = &self.transactions[number].request;
        let Some(invite) = self.find(came.key, Class::Invite) else {
            return Ok(());
        };
        let tx = &self.transactions[invite];
        let cancel = &self.transactions[number];
        let other = |copy: &Rc<Reading>| copy.names_of_invite() != tx.request.names_of_invite();
        if std::iter::once(came).chain(&cancel.variants).any(other) {
            return Ok(());
        }
        let bound = self.bound_since(tx.request.uri(), tx.arrived).len();
        // When the contacts changed in between, another may be chosen now.
        if tx.reopen && (bound > 1 || tx.variants.len() + tx.sources.len() > 1) || tx.branches.is_empty() {
            return Ok(());
        }
        let same = |b: &usize| self.branches[*b].request.branch == message.branch;
        if tx.branches.iter().any(same) {
            return Ok(());
        }
        Err((Rule::StatelessBranch, "a CANCEL left on another branch than its INVITE".into()))
    }

    fn breadth_holds(&self, number: usize) -> Verdict {
        let tx = &self.transactions[number];
        if tx.class == Class::Ack || tx.class == Class::Cancel || tx.reopen || self.is_stateless() {
            return Ok(());
        }
        // What a branch had is given to another when it has said nothing for as long as patience, whatever it says later.
        let pending = tx.branches.iter().map(|b| &self.branches[*b]).filter(|b| !self.came_late(b));
        let sum: u64 = pending
            .filter(|b| b.outcome.is_none() && b.cancel.is_none() && !b.lost)
            .filter(|b| b.provisional.is_some() || b.sent == tx.activity)
            .map(|b| b.request.number(Field::MaxBreadth).unwrap_or(0))
            .sum();
        let allowed = self.breadth(&tx.request);
        if sum > allowed && tx.variants.is_empty() {
            return Err((Rule::MaxBreadth, format!("{sum} on pending branches, {allowed} came")));
        }
        Ok(())
    }

    /// Sequential mode: highest q first, but for hosts that have failed; parallel mode: no order.
    fn order_of_targets(&self, number: usize, to: IpAddr, q: Option<u16>, now: Instant) -> Verdict {
        let tx = &self.transactions[number];
        let (Some(q), Fork::Sequential) = (q, self.settings.proxy.fork) else {
            return Ok(());
        };
        if tx.reopen || tx.intent != Intent::Honest || tx.class == Class::Ack {
            return Ok(());
        }
        for other in &tx.branches {
            let branch = &self.branches[*other];
            let is_waited_for = self.is_pending(*other, now) && !self.is_silent(*other, now);
            let waiting = branch.q.is_some_and(|other| other > q) && is_waited_for && branch.cancel.is_none();
            if waiting {
                return Err((Rule::TargetSet, format!("q={q} began while {:?} is pending", branch.q)));
            }
            if branch.q.is_some_and(|other| other < q) && branch.sent < now && !self.may_have_failed(to, now) {
                return Err((Rule::TargetSet, format!("q={q} began after {:?}", branch.q)));
            }
        }
        Ok(())
    }

    /// Where a request may go: a contact of its address-of-record, a route of the conf, the next Route value, or the peer of
    /// a dialog that was recorded through this server.
    fn expected(&self, number: usize, to: SocketAddr, message: &Reading) -> Verdict {
        let tx = &self.transactions[number];
        if tx.mangled {
            return Ok(());
        }
        let mut copies = vec![&tx.request];
        copies.extend(&tx.variants);
        let newest = self.find(tx.request.key, tx.class);
        let arrived = self.generations(newest).map(|tx| self.transactions[tx].arrived).min().unwrap_or(tx.arrived);
        let ok = copies.iter().any(|came| self.is_expected(came, arrived, to, message));
        if ok {
            return Ok(());
        }
        Err((Rule::NoStranger, format!("{} came, {} went to {to}, where nobody expects it", tx.request.title(), message.title())))
    }

    pub(super) fn is_expected(&self, came: &Reading, arrived: Instant, to: SocketAddr, message: &Reading) -> bool {
        let (own, beyond) = compare::routes_beyond(self, came);
        let routes = came.values(Field::Route);
        let genuine = own > 0 && routes[..own].iter().all(|r| self.issued.contains(&digest(address_spec(r))));
        let Some(uri) = Address::of(came.uri()) else {
            return self.by_conf(came, to);
        };
        if let Some(next) = beyond.first() {
            let socket = Address::of(address_spec(next)).and_then(|a| a.socket());
            return (genuine && socket == Some(to)) || self.by_conf(came, to);
        }
        if !self.is_own(uri.host, uri.port) {
            // The flow token of a Record-Route leads to the dialog's other side, whatever the target says.
            let ends = self.ends.get(&digest(came.call_id()));
            let there =
                uri.socket() == Some(to) || ends.is_some_and(|ends| ends.contains(&to)) || self.has_registered(came, arrived, to);
            return (genuine && there && message.uri() == came.uri()) || self.by_conf(came, to);
        }
        let bound = self.bound_since(came.uri(), arrived);
        let contact = bound.iter().filter(|b| same_uri(&b.uri, message.uri())).filter_map(|b| Address::of(&b.uri)).any(|a| {
            a.socket() == Some(to)
                || self.zone.leads_to(a.host, to)
                || (self.is_own(a.host, a.port) && self.addresses.contains(&to))
        });
        // A phone behind a NAT is reached by the way its REGISTER came.
        let flow = bound.iter().any(|b| b.source == Some(to) && same_uri(&b.uri, message.uri()));
        let first = message.values(Field::Route).first().copied();
        let path = first
            .filter(|first| self.has_path(message.uri(), &[first]))
            .and_then(|first| Address::of(address_spec(first))?.socket());
        contact || flow || path == Some(to) || self.by_conf(came, to)
    }

    /// The other side of the dialog may have registered by this way since the dialog began.
    fn has_registered(&self, came: &Reading, arrived: Instant, to: SocketAddr) -> bool {
        let name = came.value(Field::To).map_or(&[][..], address_spec);
        let bound = self.bound_since(name, arrived);
        bound.iter().any(|b| b.source == Some(to))
    }

    /// A `[[route]]` leads there, and its conditions may hold.
    fn by_conf(&self, came: &Reading, to: SocketAddr) -> bool {
        let Some(uri) = Address::of(came.uri()) else {
            return false;
        };
        let own = self.is_own(uri.host, uri.port);
        self.settings.routes.iter().any(|route| {
            let host = route.to_host.as_ref().is_none_or(|h| {
                let h = h.text();
                h.eq_ignore_ascii_case(without_dot(uri.host)) || (own && self.is_own(h, None))
            });
            let prefix = route.to_user_prefix.as_ref();
            let user = prefix.is_none_or(|p| uri.user.starts_with(p));
            let circle = uri.host.eq_ignore_ascii_case(CIRCLE.as_bytes());
            debug_assert!(prefix.is_none_or(|p| p == GATEWAY_PREFIX) || circle);
            match &route.action {
                Action::Relay(targets) => {
                    let leads = |target: &NextHop| target.address == Some(to) || self.zone.leads_to(&target.host, to);
                    host && user && targets.iter().any(leads)
                }
                _ => false,
            }
        })
    }
}
