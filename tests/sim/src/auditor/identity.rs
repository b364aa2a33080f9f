//! What may leave a server that asks who somebody is: nothing in the name of who has not proved to bear it, and no word that is for the
//! server alone or that a stranger made up.

use super::compare::Verdict;
use super::hop::{Class, Hop, Tx};
use crate::bearer::Name;
use crate::hashing::digest;
use crate::intent::Intent;
use crate::reading::{Field, Line, Reading};
use crate::rule::Rule;
use crate::text::param;
use std::net::SocketAddr;

impl Hop {
    /// A request that leaves acts for the user in its From, who is one of ours: whoever sent it has proved that.
    pub(super) fn acts_rightly(&self, newest: usize, class: Class, to: SocketAddr, message: &Reading) -> Verdict {
        if !self.guard.asks_callers || matches!(class, Class::Ack | Class::Cancel) {
            return Ok(());
        }
        let name = message.value(Field::From).and_then(Name::of);
        let Some(name) = name.filter(|name| self.guard.is_ours(name)) else {
            return Ok(());
        };
        let all: Vec<&Tx> = self.generations(Some(newest)).map(|tx| &self.transactions[tx]).collect();
        if all.iter().any(|tx| tx.mangled) {
            return Ok(());
        }
        let arrived = all.iter().map(|tx| tx.arrived).min().unwrap_or_default();
        let copies =
            all.iter().flat_map(|tx| std::iter::once(&tx.request).chain(&tx.variants)).filter(|came| came.core == message.core);
        let (there, elsewhere): (Vec<_>, Vec<_>) = copies.partition(|came| self.is_expected(came, arrived, to, message));
        let copies = match there.is_empty() {
            true => elsewhere,
            false => there,
        };
        let mut wrong = Ok(());
        for came in copies {
            match self.may_act(came, &name) {
                Ok(()) => return Ok(()),
                other => wrong = other,
            }
        }
        wrong
    }

    fn may_act(&self, came: &Reading, name: &Name) -> Verdict {
        let genuine = self.is_inside(came) || self.issued.contains(&digest(came.uri()));
        if self.guard.has_proved(came, name) || (genuine && self.guard.is_party(came, name)) {
            return Ok(());
        }
        let below = (1..came.vias.len()).filter_map(|n| param(came.via(n), b"branch"));
        let ours: Vec<usize> = below.filter_map(|branch| self.by_branch_alone.get(&digest(branch)).copied()).collect();
        // What has passed here has proved itself then.
        let same = |branch: &usize| {
            let branch = &self.branches[*branch];
            let before = &branch.request;
            // That it belonged to a dialog it has to show anew.
            let tx = &self.transactions[branch.tx];
            let mut asked = std::iter::once(&tx.request).chain(&tx.variants);
            let holds = came.tag(Field::To).is_none() || asked.any(|asked| self.guard.knows(asked));
            let equal = |field| before.value(field) == came.value(field);
            let is_same = [Field::From, Field::To, Field::CallId, Field::CSeq, Field::Contact];
            holds && is_same.into_iter().all(equal) && before.body() == came.body()
        };
        if ours.iter().any(same) {
            return Ok(());
        }
        let before = self.guard.used_before(came);
        let what = format!("{} left for {}{before}", came.title(), name.in_words());
        match ours.is_empty() {
            true if genuine => Err((Rule::Dialog, format!("{what}, with the cookie of a dialog of others"))),
            true => Err((Rule::Identity, format!("{what}, who has not proved that"))),
            false => Err((Rule::Spiral, format!("{what}, with a Via of another request of ours"))),
        }
    }

    /// What must not leave with any message, whoever sent it.
    pub(super) fn nothing_leaks(&self, to: SocketAddr, message: &Reading, intent: Intent) -> Verdict {
        let ours = |line: &&Line| {
            matches!(line.field, Field::Authorization | Field::ProxyAuthorization) && self.guard.is_for_us(message.get(&line.value))
        };
        let looks = self.guard.asks() && intent != Intent::Mangled && message.is_request();
        if let Some(line) = message.lines.iter().filter(|_| looks).find(ours) {
            let line = String::from_utf8_lossy(message.get(&line.whole)).into_owned();
            return Err((Rule::Credentials, format!("{line:?} left")));
        }
        if message.count(Field::AssertedIdentity) == 0 || intent == Intent::Mangled {
            return Ok(());
        }
        // Who has said it in a response cannot be told for certain.
        let key = message.key_below();
        let newest = key.and_then(|key| self.find(key, Class::of(message.method())));
        let mut all = self.generations(newest).map(|tx| &self.transactions[tx]);
        let trusts = |source: &SocketAddr| self.trusts(*source);
        let believed = match message.is_request() {
            true => all.any(|tx| tx.sources.iter().any(trusts) || self.trusts(to) && self.asserts_only_proved(tx, message)),
            false => !self.settings.limits.trusted_sources.is_empty(),
        };
        if believed {
            return Ok(());
        }
        let what = format!("{} left with what a stranger asserts", message.title());
        Err((Rule::AssertedIdentity, what))
    }

    /// Whether this line names the user that the request has proved to come from, as the server writes it (RFC 3325 §5).
    pub(super) fn asserts_rightly(&self, came: &Reading, left: &Reading, line: &Line) -> bool {
        let is_ours = left.get(&line.whole).starts_with(b"P-Asserted-Identity: <sip:");
        let name = Name::of(left.get(&line.value));
        line.field == Field::AssertedIdentity && is_ours && name.is_some_and(|name| self.guard.has_proved(came, &name))
    }

    fn asserts_only_proved(&self, tx: &Tx, message: &Reading) -> bool {
        let mut lines = message.lines.iter().filter(|line| line.field == Field::AssertedIdentity);
        lines.all(|line| {
            let mut came = std::iter::once(&tx.request).chain(&tx.variants);
            came.any(|came| self.asserts_rightly(came, message, line))
        })
    }

    pub(super) fn trusts(&self, source: SocketAddr) -> bool {
        let mut networks = self.settings.limits.trusted_sources.iter();
        networks.any(|network| network.address == source.ip())
    }
}
