//! Responses that leave a server: copies of what came, and its own (RFC 3261 §16.7, §17.2, RFC 4320).

use super::debts::Debt;
use super::hop::{Class, Hop, Registered};
use super::{Auditor, compare};
use crate::air::Air;
use crate::bindings::{Applied, REMEMBERED_MS, address_of_record};
use crate::hashing::digest;
use crate::intent::Intent;
use crate::reading::{Field, Reading};
use crate::rule::Rule;
use crate::text::{address_spec, sent_by};
use std::net::SocketAddr;
use std::rc::Rc;
use strowger::base::Instant;
use strowger::stack::Location;

type Broken = (Rule, String);

impl Auditor {
    pub(super) fn response_out(
        &mut self,
        air: &mut Air,
        server: usize,
        to: SocketAddr,
        message: &Rc<Reading>,
        location: &Location,
    ) -> Intent {
        let now = air.now;
        let hop = &mut self.hops[server];
        match hop.answer(now, to, message) {
            Ok(Some((tx, first_final, intent))) => {
                let class = self.hops[server].transactions[tx].class;
                if message.method() == b"REGISTER" && message.status() >= 200 {
                    self.registered(air, server, tx, to, message, location);
                }
                if first_final && class == Class::Cancel && message.status() == 200 {
                    self.cancel_taken(now, server, message.key);
                }
                intent
            }
            Ok(None) => Intent::Mangled,
            Err((rule, detail)) => {
                self.complain(rule, server, detail, Some(message));
                Intent::Hostile
            }
        }
    }

    /// A CANCEL was answered 200: its INVITE's pending branches are to be cancelled (§16.10).
    fn cancel_taken(&mut self, now: Instant, server: usize, key: u64) {
        let hop = &mut self.hops[server];
        let Some(number) = hop.find(key, Class::Invite) else {
            return;
        };
        let tx = &mut hop.transactions[number];
        // With several of them, as on two cores, nobody can tell which one was cancelled.
        if tx.reopen || tx.final_at.is_some() || tx.previous.is_some() {
            return;
        }
        tx.cancel_taken.get_or_insert(now);
        let soon = now.after_ms(hop.soon_ms);
        let branches = hop.transactions[number].branches.clone();
        for branch in branches {
            if hop.branches[branch].provisional.is_some() && hop.is_pending(branch, now) {
                self.debts.push(soon, server, Debt::Cancel { branch });
            }
        }
    }

    fn registered(&mut self, air: &mut Air, server: usize, number: usize, to: SocketAddr, message: &Reading, location: &Location) {
        let now = air.now;
        let hop = &mut self.hops[server];
        let tx = &hop.transactions[number];
        let request = Rc::clone(&tx.request);
        let bound = match (message.status(), tx.mangled) {
            (200, true) => {
                hop.guard.adopt(now, location);
                Ok(())
            }
            (200, false) if tx.branches.is_empty() => {
                let copies = std::iter::once(&tx.request).chain(&tx.variants);
                let copies: Vec<&Reading> = copies.map(Rc::as_ref).collect();
                hop.guard.bound(now, &copies, location)
            }
            _ => Ok(()),
        };
        if let Err(detail) = bound {
            return self.complain(Rule::Identity, server, detail, Some(&request));
        }
        let hop = &mut self.hops[server];
        let tx = &hop.transactions[number];
        // Relayed to another registrar, or readable in two ways: no word about these bindings.
        if !tx.branches.is_empty() {
            return;
        }
        let meddled = hop.is_meddled(Class::of(b"REGISTER"), &request);
        if tx.intent == Intent::Mangled || meddled || !tx.variants.is_empty() {
            if message.status() == 200 {
                for copy in std::iter::once(&tx.request).chain(&tx.variants) {
                    let conf = &hop.settings.registrar;
                    hop.bindings.note_removal(now, conf, copy);
                }
            }
            hop.bindings.adopt(now, location);
            let key = Class::of(b"REGISTER").with(request.key);
            hop.registered.insert(key, Registered::Unknown);
            return;
        }
        let mut result = match message.status() {
            200 => hop.carried_out(now, &request, to, message, location),
            // Nothing has changed.
            _ => Ok(()),
        };
        if let (Ok(()), Some(aor)) = (&result, address_of_record(&request)) {
            air.statistics.bindings_checked += 1;
            result = hop.bindings.compare(now, location, &aor);
        }
        if let Err(detail) = result {
            self.complain(Rule::Bindings, server, detail, Some(&request));
        }
    }
}

/// As a transaction remembers a final response.
fn entry(message: &Reading) -> (u16, u64, u64) {
    let tag = digest(message.tag(Field::To).unwrap_or(b""));
    (message.status(), message.digest, tag)
}

impl Hop {
    /// A REGISTER was answered 200: what has become of its bindings.
    fn carried_out(
        &mut self,
        now: Instant,
        request: &Reading,
        to: SocketAddr,
        message: &Reading,
        location: &Location,
    ) -> Result<(), String> {
        let key = Class::of(b"REGISTER").with(request.key);
        match self.registered.get(&key).copied() {
            Some(Registered::At(at)) if now.ms_since(at) < REMEMBERED_MS => {
                return self.bindings.repeat(now, request, message);
            }
            // A server may count in whole seconds.
            Some(Registered::At(at)) if now.ms_since(at) < REMEMBERED_MS + 1000 => {
                self.bindings.adopt(now, location);
                return Ok(());
            }
            Some(Registered::Unknown) => {
                self.bindings.adopt(now, location);
                return Ok(());
            }
            _ => {}
        }
        // Of several copies from several places it is the one answered now; where the source matters, it is asked to answer there.
        let conf = &self.settings.registrar;
        match self.bindings.apply(now, conf, request, Some(to), message)? {
            Applied::Unchanged => {}
            Applied::Changed => {
                self.registered.insert(key, Registered::At(now));
            }
            Applied::Unknown => {
                self.registered.insert(key, Registered::Unknown);
                self.bindings.adopt(now, location);
            }
        }
        Ok(())
    }

    /// True if somebody hostile wrote it: a response is told by its branch, the rest is passed on as it is, and a
    /// stateless proxy goes by the Via below its own, whatever was made of that.
    pub(super) fn is_foreign(&self, to: SocketAddr, message: &Reading) -> bool {
        self.foreign_responses.iter().any(|came| compare::is_copy(came, message) && self.may_answer(came.branch, to))
    }

    /// A final that somebody hostile wrote, so that it cannot be told by its key, has ended its branch's transaction.
    fn end_by_foreign(&mut self, now: Instant, message: &Reading) {
        let came = self.foreign_responses.iter().find(|came| compare::is_copy(came, message)).map_or(0, |came| came.branch);
        if let Some(branch) = self.by_branch_alone.get(&came) {
            let tx = &mut self.transactions[self.branches[*branch].tx];
            tx.reopen = true;
            tx.answered = true;
            if message.status() >= 200 {
                tx.final_at.get_or_insert(now);
            }
        }
    }

    /// True if the branch is one that this server made, for a request that came from `to`.
    fn may_answer(&self, branch: u64, to: SocketAddr) -> bool {
        let stateless = self.is_stateless();
        let any = self.mangled.contains(&branch);
        any || self
            .branches
            .iter()
            .rev()
            .any(|b| b.request.branch == branch && (stateless || self.transactions[b.tx].sources.contains(&to)))
    }

    /// The transaction that a response answers, and whether it is its first final; `None` if it answers what nobody can
    /// read.
    fn answer(&mut self, now: Instant, to: SocketAddr, message: &Rc<Reading>) -> Result<Option<(usize, bool, Intent)>, Broken> {
        let class = Class::of(message.method());
        let newest = self.find(message.key, class);
        // What nobody can read for certain may be refused in any words, and no rule counts that.
        if self.is_suspect(to, message, now) && message.status() >= 300 {
            let all: Vec<usize> = self.generations(newest).collect();
            let own = |tx: &usize| self.copied_from(*tx, message).is_none();
            let newest = newest.map(|tx| &self.transactions[tx]);
            let due = newest.is_some_and(|tx| self.suspect.is_none() && tx.intent == Intent::Honest && !tx.answered);
            if !due && all.iter().all(own) {
                self.refusals.insert(message.digest);
                return Ok(None);
            }
        }
        if self.refusals.contains(&message.digest) {
            return Ok(None);
        }
        let Some(newest) = newest else {
            if self.is_foreign(to, message) {
                self.end_by_foreign(now, message);
                self.refusals.insert(message.digest);
                return Ok(None);
            }
            return Err((Rule::NothingInvented, format!("{} to {to} answers nothing", message.title())));
        };
        match self.goes_back(newest, to, message) {
            Err(_) if self.is_stateless() && self.is_foreign(to, message) => return Ok(None),
            other => other?,
        }
        if class == Class::Ack {
            return Err((Rule::NoAnswerToAck, message.title()));
        }
        let source = self.generations(Some(newest)).find_map(|tx| self.copied_from(tx, message).map(|intent| (tx, intent)));
        if let Some((tx, intent)) = source {
            let first = self.copied(now, tx, message)?;
            return Ok(Some((tx, first, intent)));
        }
        if self.is_stateless() && self.is_foreign(to, message) {
            return Ok(None);
        }
        let (number, first) = self.invented(now, newest, message)?;
        let tx = &self.transactions[number];
        let intent = match tx.mangled {
            true => Intent::Mangled,
            false => tx.intent,
        };
        Ok(Some((number, first, intent)))
    }

    /// §18.2.2: to the source of the request, or to its address and the port that its Via names.
    fn goes_back(&self, tx: usize, to: SocketAddr, message: &Reading) -> Result<(), Broken> {
        let tx = &self.transactions[tx];
        let askers = self.askers.get(&message.branch);
        let via = tx.request.via(0);
        let place = [b"sip:", &sent_by(via).unwrap_or_default()[..]].concat();
        let port = crate::address::Address::of(&place).map_or(5060, |a| a.port.unwrap_or(5060));
        let fits = |source: &SocketAddr| *source == to || (source.ip() == to.ip() && to.port() == port);
        if tx.sources.iter().chain(askers.into_iter().flatten()).any(fits) {
            return Ok(());
        }
        Err((Rule::Misdirected, format!("{} went to {to}, the request came from {:?}", message.title(), tx.sources)))
    }

    /// The intent of the response that left as `message`, less the top Via.
    fn copied_from(&self, tx: usize, message: &Reading) -> Option<Intent> {
        let branches = &self.transactions[tx].branches;
        branches.iter().find_map(|branch| {
            let branch = &self.branches[*branch];
            let copied = |(r, _): &&(Rc<Reading>, Intent)| compare::is_copy(r, message);
            let (_, intent) = branch.responses.iter().find(copied)?;
            let meddled = match branch.tainted {
                true => Intent::Hostile,
                false => Intent::Honest,
            };
            Some(branch.intent.max(*intent).max(meddled))
        })
    }

    /// What the server has written anew into a response's Record-Route is the caller's to use.
    fn handed_over(&mut self, number: usize, message: &Reading) {
        let values = message.values(Field::RecordRoute);
        let branches = &self.transactions[number].branches;
        let came =
            branches.iter().flat_map(|branch| &self.branches[*branch].responses).find(|(came, _)| compare::is_copy(came, message));
        let Some((came, _)) = came else {
            return;
        };
        for (old, new) in came.values(Field::RecordRoute).iter().zip(&values) {
            if old != new {
                self.issued.insert(digest(address_spec(new)));
            }
        }
    }

    /// A response was passed on.
    fn copied(&mut self, now: Instant, number: usize, message: &Reading) -> Result<bool, Broken> {
        let status = message.status();
        let stateless = self.is_stateless();
        let class = self.transactions[number].class;
        self.handed_over(number, message);
        let tx = &mut self.transactions[number];
        tx.answered = true;
        if let Some(at) = tx.owed.iter().position(|(came, trunk, _)| (*came, *trunk) == (status, message.trunk)) {
            tx.owed.remove(at);
        }
        if stateless {
            if status >= 200 {
                tx.final_at.get_or_insert(now);
            }
            return Ok(false);
        }
        if class != Class::Invite {
            if (101..200).contains(&status) {
                return Err((Rule::NonInvite, format!("{status} was passed on")));
            }
            if status == 408 {
                return Err((Rule::NonInvite, "408 was passed on".into()));
            }
        }
        if status < 200 {
            return self.before_the_end(number, message).map(|()| false);
        }
        if status >= 300 {
            self.best(now, number, status)?;
        }
        self.final_out(now, number, message, true)
    }

    /// The server's own response.
    fn invented(&mut self, now: Instant, newest: usize, message: &Rc<Reading>) -> Result<(usize, bool), Broken> {
        let status = message.status();
        let wrong = |what: String| Err((Rule::NothingInvented, what));
        let tx = &self.transactions[newest];
        let (class, method) = (tx.class, message.method());
        if status / 100 == 2 && !matches!(method, b"CANCEL" | b"REGISTER" | b"OPTIONS") {
            return Err((Rule::BitForBit, format!("{} is no copy of what came", message.title())));
        }
        self.reflects(newest, message)?;
        self.small_answer(newest, message)?;
        let own_tag = message.tag(Field::To);
        if status > 100 && own_tag.is_none() {
            return wrong(format!("{} without a To tag", message.title()));
        }
        self.altered(newest, message)?;
        let body = message.body().is_empty() || method == b"OPTIONS";
        if !body {
            return wrong(format!("{} has a body", message.title()));
        }
        let stateless = self.is_stateless();
        if class != Class::Invite && !stateless {
            self.not_too_early(now, newest, status)?;
        }
        let tx = &mut self.transactions[newest];
        tx.answered = true;
        if stateless {
            // Each copy of a request is a new one: it is answered again.
            let first = !tx.finals.contains(&entry(message)) && status >= 200;
            if first {
                tx.finals.push(entry(message));
            }
            return Ok((newest, first));
        }
        if status < 200 {
            let open = |tx: &usize| self.before_the_end(*tx, message).is_ok();
            if let Some(tx) = self.generations(Some(newest)).find(open) {
                return Ok((tx, false));
            }
            let result = self.before_the_end(newest, message);
            return result.map(|()| (newest, false));
        }
        if status >= 300 {
            self.no_branch_left(now, newest, status)?;
        }
        let known = |tx: &usize| self.transactions[*tx].finals.contains(&entry(message));
        let again = self.generations(Some(newest)).find(known);
        if let Some(tx) = again {
            return Ok((tx, false));
        }
        let unanswered = |tx: &usize| self.transactions[*tx].finals.is_empty();
        let open = self.generations(Some(newest)).find(unanswered);
        if let Some(tx) = open {
            let first = self.final_out(now, tx, message, false)?;
            return Ok((tx, first));
        }
        let tx = &self.transactions[newest];
        if tx.final_at.is_some() && (tx.reopen || self.may_be_gone(tx, now)) {
            let new = self.renew(newest, now);
            return self.final_out(now, new, message, false).map(|f| (new, f));
        }
        self.final_out(now, newest, message, false).map(|first| (newest, first))
    }

    /// A response with the tag of one that came is that one, altered.
    fn altered(&self, newest: usize, message: &Reading) -> Result<(), Broken> {
        let own_tag = message.tag(Field::To);
        let came = self.generations(Some(newest)).find_map(|tx| {
            let branches = &self.transactions[tx].branches;
            let all = branches.iter().flat_map(|b| &self.branches[*b].responses);
            all.map(|(r, _)| r).find(|r| {
                own_tag.is_some()
                    && self.transactions[tx].request.tag(Field::To).is_none()
                    && r.tag(Field::To) == own_tag
                    && r.status() == message.status()
            })
        });
        let Some(came) = came else {
            return Ok(());
        };
        if came.vias.len() == message.vias.len() + 1 {
            return Err((Rule::BitForBit, compare::difference(came, message)));
        }
        let what = format!("{} Via came, {} left", came.vias.len(), message.vias.len());
        Err((Rule::ViaStack, what))
    }

    /// RFC 4320 §4.1: a non-INVITE gets no 408, and a 100 only once Timer E has reached T2.
    fn not_too_early(&self, now: Instant, newest: usize, status: u16) -> Result<(), Broken> {
        if status == 408 {
            return Err((Rule::NonInvite, "408 of its own".into()));
        }
        let timers = &self.settings.timers;
        let mut early = 0;
        let mut interval = timers.t1;
        while interval < timers.t2 {
            early += interval;
            interval *= 2;
        }
        let late = |tx: usize| now.ms_since(self.transactions[tx].arrived) + 10 >= early;
        if status == 100 && !self.generations(Some(newest)).any(late) {
            return Err((Rule::NonInvite, "100 before Timer E reached T2".into()));
        }
        Ok(())
    }

    /// Who forges a source must not make a server write much more than he does.
    fn small_answer(&self, newest: usize, message: &Reading) -> Result<(), Broken> {
        let factor = match self.settings.limits.answer_factor {
            0 => return Ok(()),
            factor => factor,
        };
        let all = self.generations(Some(newest));
        let tx = all.map(|tx| &self.transactions[tx]);
        let mut copies = tx.flat_map(|tx| std::iter::once(&tx.request).chain(&tx.variants));
        let enough = |came: &Rc<Reading>| {
            let proved = self.guard.knows(came);
            proved || message.bytes.len() <= factor * came.bytes.len()
        };
        let by_stream = crate::link::is_stream(message);
        let is_there = || {
            let sources = &self.transactions[newest].sources;
            sources.iter().any(|source| self.heard.contains(&source.ip()))
        };
        if by_stream || Rule::AnswerSize.is_awaited() || is_there() || copies.any(enough) {
            return Ok(());
        }
        let came = self.transactions[newest].request.bytes.len();
        let what = format!("{came} bytes came, {} went back", message.bytes.len());
        Err((Rule::AnswerSize, what))
    }

    /// §8.2.6.2: From, Call-ID, CSeq, Via and To are the request's.
    fn reflects(&self, newest: usize, message: &Reading) -> Result<(), Broken> {
        let mut last = Ok(());
        let tx = &self.transactions[newest];
        for request in std::iter::once(&tx.request).chain(&tx.variants) {
            last = Ok(());
            if request.vias.len() != message.vias.len() {
                last = Err((Rule::ViaStack, format!("{} Via came, {} went back", request.vias.len(), message.vias.len())));
                continue;
            }
            let sources: Vec<SocketAddr> =
                tx.sources.iter().chain(self.askers.get(&message.branch).into_iter().flatten()).copied().collect();
            last = last.and(compare::received(request.via(0), message.via(0), &sources));
            let vias = (1..request.vias.len()).all(|n| request.via(n) == message.via(n));
            if !compare::same_via(request.via(0), message.via(0)) || !vias {
                last = Err((Rule::ViaStack, "the Via values that went back are others".into()));
            }
            for field in [Field::From, Field::CallId, Field::CSeq] {
                if request.value(field) != message.value(field) {
                    last = Err((Rule::NothingInvented, format!("{field:?} is another")));
                }
            }
            let (came, left) = (request.value(Field::To), message.value(Field::To));
            let tagged = request.tag(Field::To).is_some();
            let to_ok = match (came, left) {
                (Some(came), Some(left)) => came == left || (!tagged && left.starts_with(came)),
                _ => false,
            };
            if !to_ok {
                last = Err((Rule::NothingInvented, "To is another".into()));
            }
            if last.is_ok() {
                return Ok(());
            }
        }
        last
    }

    /// No provisional response after the final one.
    fn before_the_end(&self, number: usize, message: &Reading) -> Result<(), Broken> {
        let tx = &self.transactions[number];
        if tx.finals.is_empty() || tx.reopen {
            return Ok(());
        }
        Err((Rule::OneFinal, format!("{} after {:?}", message.title(), tx.finals)))
    }

    fn final_out(&mut self, now: Instant, number: usize, message: &Reading, copy: bool) -> Result<bool, Broken> {
        let entry = entry(message);
        let tx = &mut self.transactions[number];
        if tx.finals.contains(&entry) {
            return Ok(false);
        }
        let accepted = tx.finals.iter().all(|(status, ..)| status / 100 == 2);
        let more = tx.class == Class::Invite && copy && entry.0 / 100 == 2 && accepted;
        if !tx.finals.is_empty() && !more && !tx.reopen {
            return Err((Rule::OneFinal, format!("{} after {:?}", message.title(), tx.finals)));
        }
        let first = tx.finals.is_empty();
        tx.finals.push(entry);
        tx.final_at.get_or_insert(now);
        Ok(first)
    }

    /// §16.7 step 6, as far as it can be told from outside: a 6xx wins, else the lowest class.
    fn best(&self, now: Instant, number: usize, status: u16) -> Result<(), Broken> {
        let tx = &self.transactions[number];
        if tx.reopen || tx.branches.iter().any(|b| self.branches[*b].tainted) {
            return Ok(());
        }
        if !tx.finals.is_empty() {
            return Ok(());
        }
        // What came a moment ago may still be on its way between the cores.
        let known: Vec<u16> = tx
            .branches
            .iter()
            .filter(|b| !self.branches[**b].lost)
            .filter_map(|b| self.branches[*b].outcome)
            .filter(|(_, at)| now.ms_since(*at) > self.soon_ms || tx.branches.len() == 1)
            .map(|(status, _)| status)
            .collect();
        let sixth = known.iter().any(|s| *s >= 600);
        let lowest = known.iter().min().map_or(6, |s| s / 100);
        if status < 600 && (sixth || status / 100 > lowest) {
            return Err((Rule::BestResponse, format!("{status} was chosen of {known:?}")));
        }
        self.no_branch_left(now, number, status)
    }

    /// A refusal goes back only if no branch can still answer (§16.7 step 5).
    fn no_branch_left(&self, now: Instant, number: usize, status: u16) -> Result<(), Broken> {
        let tx = &self.transactions[number];
        if tx.class != Class::Invite || tx.intent != Intent::Honest || tx.final_at.is_some() {
            return Ok(());
        }
        let is_waited_for = |branch: usize| self.is_pending(branch, now) && !self.is_silent(branch, now);
        let waiting = tx.branches.iter().find(|branch| is_waited_for(**branch));
        match waiting {
            Some(branch) => {
                Err((Rule::BestResponse, format!("{status} went back while {} may still answer", self.branches[*branch].to)))
            }
            None => Ok(()),
        }
    }
}
