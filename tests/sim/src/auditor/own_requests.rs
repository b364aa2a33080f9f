//! Requests that a server makes itself: the CANCEL for a branch, and the ACK for a refusal (RFC 3261 §9.1, §16.10, §17.1.1.3).

use super::compare::Verdict;
use super::hop::{Class, Hop};
use crate::air::Air;
use crate::reading::{Field, Reading};
use crate::rule::Rule;
use std::net::SocketAddr;
use std::rc::Rc;

impl Hop {
    pub(super) fn own_cancel(&mut self, air: &mut Air, to: SocketAddr, message: &Rc<Reading>) -> Verdict {
        let now = air.now;
        let wrong = |what: &str| Err((Rule::CancelReach, what.to_string()));
        let key = Class::Invite.with(message.branch);
        let Some(number) = self.by_branch.get(&key).copied() else {
            return wrong("a CANCEL for a branch that does not exist");
        };
        let (soon, slack) = (self.soon_ms, self.slack_ms());
        let branch = &self.branches[number];
        let tx = &self.transactions[branch.tx];
        if let Some((first, _)) = &branch.cancel {
            return if first.digest == message.digest { Ok(()) } else { wrong("a second CANCEL that is not the first") };
        }
        if branch.to != to || branch.request.uri() != message.uri() {
            return wrong("a CANCEL that does not follow its INVITE");
        }
        same_hop(&branch.request, message).map_err(|what| (Rule::CancelReach, what))?;
        if branch.request.value(Field::To) != message.value(Field::To) {
            return wrong("a CANCEL with another To than its INVITE");
        }
        if branch.provisional.is_none() {
            return wrong("a CANCEL before any provisional response");
        }
        if !branch.tainted && branch.outcome.is_some_and(|(_, at)| now.ms_since(at) > soon) {
            return wrong("a CANCEL for a branch that has its final response");
        }
        // A provisional response of this moment may still be in the mail when timer C fires.
        let since = branch.heard_sign(now, soon);
        let timer_c = now.ms_since(since) + slack >= self.settings.timers.c;
        // Two cores may each have one of the copies: which of them began which branch cannot be told.
        let newest = self.find(tx.request.key, tx.class);
        let aside: Vec<usize> = match tx.reopen {
            true => self.generations(newest).collect(),
            false => vec![branch.tx],
        };
        let others = || {
            let mut branches = aside.iter().flat_map(|tx| &self.transactions[*tx].branches);
            branches.any(|b| {
                *b != number && self.branches[*b].responses.iter().any(|(r, _)| r.status() / 100 == 2 || r.status() >= 600)
            })
        };
        let named = |copy: &Rc<Reading>| self.cancels.contains(&copy.names_of_invite());
        let mut copies = std::iter::once(&tx.request).chain(&tx.variants);
        let asked = self.cancelled.contains(&tx.request.branch) || copies.any(named);
        if !asked && !timer_c && !others() && !self.came_late(branch) && !self.is_silent(number, now) {
            return wrong("a CANCEL for no reason");
        }
        let lost_fork = tx.accepted_in.is_some();
        air.statistics.timer_c_cancels += u64::from(timer_c && !asked);
        air.statistics.forks_with_losers += u64::from(lost_fork);
        self.branches[number].cancel = Some((Rc::clone(message), now));
        Ok(())
    }

    pub(super) fn own_ack(&mut self, to: SocketAddr, message: &Reading) -> Verdict {
        let wrong = |what: &str| Err((Rule::OwnAck, what.to_string()));
        let key = Class::Invite.with(message.branch);
        let Some(number) = self.by_branch.get(&key).copied() else {
            return wrong("an ACK of its own for a branch that does not exist");
        };
        let branch = &mut self.branches[number];
        branch.acks += 1;
        if branch.to != to || branch.request.uri() != message.uri() {
            return wrong("an ACK that does not follow its INVITE");
        }
        let to_value = message.value(Field::To);
        let answered = branch.responses.iter().any(|(r, _)| r.status() >= 300 && r.value(Field::To) == to_value);
        if !answered {
            return wrong("an ACK for a refusal that did not come");
        }
        same_hop(&branch.request, message).map_err(|what| (Rule::OwnAck, what))
    }
}

/// §9.1 and §17.1.1.3: the top Via, From, Call-ID, CSeq number and Route are the INVITE's.
fn same_hop(invite: &Reading, message: &Reading) -> Result<(), String> {
    let same = invite.via(0) == message.via(0)
        && invite.call_id() == message.call_id()
        && invite.value(Field::From) == message.value(Field::From)
        && invite.cseq().map(|c| c.0) == message.cseq().map(|c| c.0)
        && invite.values(Field::Route) == message.values(Field::Route);
    if same { Ok(()) } else { Err(format!("Via, Call-ID, From, CSeq or Route differ from the INVITE's in {}", message.title())) }
}
