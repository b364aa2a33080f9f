//! Requests and responses that reach a server: what its books have of them, and what it owes from now on.

use super::Auditor;
use super::debts::Debt;
use super::hop::{Class, Hop};
use crate::air::Air;
use crate::intent::Intent;
use crate::reading::Reading;
use std::net::SocketAddr;
use std::rc::Rc;
use strowger::base::Instant;

/// Other bytes of one request that are kept: ACKs to the finals of several phones, and what hostile agents make of them.
const VARIANTS: usize = 16;

/// A response that came for a branch.
struct Came {
    server: usize,
    branch: usize,
    now: Instant,
    status: u16,
    trunk: u64,
    is_honest: bool,
    /// The server must still know the branch.
    alive: bool,
    /// An honest answer to an honest request, in time.
    is_owed: bool,
}

impl Auditor {
    pub(super) fn request_in(&mut self, air: &mut Air, server: usize, from: SocketAddr, message: &Rc<Reading>, intent: Intent) {
        let now = air.now;
        let hop = &mut self.hops[server];
        // What somebody has mangled on its way is mostly refused before anybody asks what it proves.
        let is_exempt = hop.is_inside(message);
        let proves = intent != Intent::Mangled && hop.guard.hear(now, message, is_exempt);
        air.statistics.proved += u64::from(proves);
        if proves {
            hop.heard.insert(from.ip());
        }
        if message.cseq().is_none_or(|(_, method)| method != message.method()) {
            hop.suspect = Some(from.ip());
            hop.suspects.insert(from.ip(), now);
        }
        let askers = hop.askers.entry(message.branch).or_default();
        if !askers.contains(&from) {
            askers.push(from);
        }
        let class = Class::of(message.method());
        if class == Class::Cancel {
            let invite = hop.find(message.key, Class::Invite);
            let all: Vec<usize> = hop.generations(invite).collect();
            for tx in all {
                hop.transactions[tx].cancel_asked.get_or_insert(now);
            }
        }
        if let Some(known) = hop.find(message.key, class) {
            let reopens = hop.take_copy(known, from, message, intent, now);
            air.statistics.absorbed += u64::from(!reopens);
            return;
        }
        let intent = match hop.is_meddled(class, message) {
            true => intent.max(Intent::Hostile),
            false => intent,
        };
        let number = hop.add(class, message, from, intent, now, None);
        if intent == Intent::Honest {
            self.owe_for_request(server, number, now);
        }
    }

    /// What an honest request may expect.
    fn owe_for_request(&mut self, server: usize, number: usize, now: Instant) {
        let hop = &self.hops[server];
        let tx = &hop.transactions[number];
        let soon = now.after_ms(hop.soon_ms);
        let stateful = !hop.is_stateless();
        if stateful && matches!(tx.class, Class::Invite | Class::Other(_)) {
            let patience_ms = hop.settings.next_hop.patience + hop.slack_ms();
            self.debts.push(now.after_ms(patience_ms), server, Debt::NextTarget { tx: number });
        }
        match tx.class {
            Class::Ack => {
                // With the INVITE's branch it is for a refusal.
                let refusal = hop.find(tx.request.key, Class::Invite).is_some();
                if hop.is_inside(&tx.request) && !refusal {
                    self.debts.push(soon, server, Debt::AckOn { tx: number });
                }
            }
            Class::Cancel => {
                if stateful {
                    self.debts.push(soon, server, Debt::Reply { tx: number });
                }
            }
            Class::Invite if stateful => {
                self.debts.push(soon, server, Debt::Trying { tx: number });
                let late = hop.deadline(number);
                self.debts.push(late, server, Debt::Final { tx: number });
                self.debts.push(soon, server, Debt::Targets { tx: number });
            }
            _ if stateful => {
                self.debts.push(soon, server, Debt::Reply { tx: number });
                self.debts.push(soon, server, Debt::Targets { tx: number });
            }
            _ => self.debts.push(soon, server, Debt::Reply { tx: number }),
        }
    }

    pub(super) fn response_in(&mut self, air: &mut Air, server: usize, message: &Rc<Reading>, intent: Intent) {
        let now = air.now;
        let hop = &mut self.hops[server];
        if intent != Intent::Honest {
            hop.foreign_responses.truncate(7);
            hop.foreign_responses.push_front(Rc::clone(message));
            if let Some(branch) = hop.by_branch_alone.get(&message.branch) {
                hop.branches[*branch].tainted = true;
            }
        }
        let Some(number) = hop.branch_answered_by(message) else {
            return;
        };
        let branch = &mut hop.branches[number];
        hop.heard.insert(branch.to.ip());
        // What was altered on its way may not have been understood.
        if intent == Intent::Honest {
            branch.heard_at.get_or_insert(now);
        }
        branch.tainted |= branch.request.key != message.key || intent != Intent::Honest;
        let alive = hop.is_alive(&hop.branches[number], now);
        let came_late = hop.came_late(&hop.branches[number]);
        let branch = &mut hop.branches[number];
        if branch.responses.iter().all(|(r, _)| r.digest != message.digest) {
            branch.responses.push((Rc::clone(message), intent));
        }
        // Too late: the server has forgotten the branch, or may have.
        branch.lost |= branch.outcome.is_none() && !alive;
        let is_owed = alive && !came_late && hop.transactions[branch.tx].intent == Intent::Honest && intent == Intent::Honest;
        let came = Came {
            server,
            branch: number,
            now,
            status: message.status(),
            trunk: message.trunk,
            is_honest: intent == Intent::Honest,
            alive,
            is_owed,
        };
        match came.status {
            ..200 => self.provisional_in(&came),
            _ => self.final_in(&came),
        }
    }

    fn provisional_in(&mut self, came: &Came) {
        let (now, status) = (came.now, came.status);
        let hop = &mut self.hops[came.server];
        let branch = &mut hop.branches[came.branch];
        let tx = &mut hop.transactions[branch.tx];
        if tx.class != Class::Invite || (branch.outcome.is_some() && !branch.tainted) {
            return;
        }
        branch.provisional = Some(now);
        // §16.7 step 2: 100 does not reset timer C.
        if came.is_honest && status > 100 {
            branch.sign_of_life(now, hop.soon_ms);
        }
        tx.activity = now;
        let over = tx.cancel_asked.is_some() || tx.final_at.is_some();
        let end = tx.cancel_taken.is_some() || tx.accepted_in.is_some() || tx.declined_in.is_some();
        if came.is_owed && status > 100 && !over {
            self.owe_copy(came, false);
        }
        let hop = &self.hops[came.server];
        if came.alive && end && !hop.is_stateless() {
            let debt = Debt::Cancel { branch: came.branch };
            self.debts.push(now.after_ms(hop.soon_ms), came.server, debt);
        }
    }

    fn final_in(&mut self, came: &Came) {
        let (now, status) = (came.now, came.status);
        let hop = &mut self.hops[came.server];
        let branch = &mut hop.branches[came.branch];
        let tx = &mut hop.transactions[branch.tx];
        let first = branch.outcome.is_none();
        if first {
            branch.outcome = Some((status, now));
            tx.activity = now;
        }
        if tx.class != Class::Invite {
            if first && came.is_owed && tx.final_at.is_none() && status / 100 == 2 {
                self.owe_copy(came, true);
            }
            return;
        }
        if status / 100 == 2 {
            let accepting = branch.outcome.is_some_and(|(first, _)| first / 100 == 2);
            if accepting && came.alive {
                tx.accepted_in.get_or_insert(now);
                if came.is_owed {
                    self.owe_copy(came, true);
                }
            }
        } else {
            if status >= 600 && came.alive {
                tx.declined_in.get_or_insert(now);
            }
            self.refused(came, first);
        }
        if first {
            self.ended(came);
        }
    }

    /// A response that must be passed on.
    fn owe_copy(&mut self, came: &Came, final_one: bool) {
        let hop = &mut self.hops[came.server];
        let tx = hop.branches[came.branch].tx;
        hop.transactions[tx].owed.push((came.status, came.trunk, came.now));
        let debt = Debt::Copy { tx, response: (came.status, came.trunk), since: came.now, final_one };
        self.debts.push(came.now.after_ms(hop.soon_ms), came.server, debt);
    }

    /// A refusal of an INVITE: the server acknowledges it as long as it knows the branch.
    fn refused(&mut self, came: &Came, first: bool) {
        let hop = &mut self.hops[came.server];
        let linger = hop.settings.timers.linger;
        let branch = &mut hop.branches[came.branch];
        branch.refusals += 1;
        let recent = branch.outcome.is_some_and(|(_, at)| came.now.ms_since(at) + linger.min(100) < linger);
        let knows = match first {
            true => came.alive,
            false => recent && !branch.tainted && !branch.lost,
        };
        let is_refused = branch.outcome.is_some_and(|(status, _)| status >= 300);
        let debt = Debt::OwnAck { branch: came.branch, count: branch.acks + 1 };
        if knows && is_refused && !hop.is_stateless() {
            self.debts.push(came.now.after_ms(hop.soon_ms), came.server, debt);
        }
    }

    /// A branch has its first final response: it may end the others, or be the last.
    fn ended(&mut self, came: &Came) {
        let (server, now, number) = (came.server, came.now, came.branch);
        let hop = &self.hops[server];
        if hop.is_stateless() {
            return;
        }
        let soon = now.after_ms(hop.soon_ms);
        let tx = hop.branches[number].tx;
        let others = &hop.transactions[tx].branches;
        if came.alive && (came.status / 100 == 2 || came.status >= 600) {
            for other in others {
                if *other != number && hop.branches[*other].provisional.is_some() && hop.is_pending(*other, now) {
                    self.debts.push(soon, server, Debt::Cancel { branch: *other });
                }
            }
        }
        if others.iter().all(|b| hop.branches[*b].outcome.is_some()) {
            self.debts.push(soon, server, Debt::Settled { tx });
        }
    }
}

impl Hop {
    /// A request whose key is known: a copy, or other bytes that pass for one. True if it may begin anew.
    fn take_copy(&mut self, known: usize, from: SocketAddr, message: &Rc<Reading>, intent: Intent, now: Instant) -> bool {
        let gone = self.generations(Some(known)).any(|tx| self.may_be_gone(&self.transactions[tx], now));
        let tx = &mut self.transactions[known];
        tx.mangled |= intent == Intent::Mangled;
        if !tx.sources.contains(&from) {
            tx.sources.push(from);
            tx.reopen = true;
        }
        let other = tx.request.digest != message.digest && tx.variants.iter().all(|v| v.digest != message.digest);
        if other {
            // Those that came last are those that leave next.
            if tx.variants.len() == VARIANTS {
                tx.variants.remove(0);
            }
            tx.variants.push(Rc::clone(message));
            // A server may see by other fields that it is not a retransmission.
            tx.reopen = true;
        }
        // The server's own answers leave no memory (§8.2.7): a copy is answered anew.
        tx.reopen |= gone || (tx.final_at.is_some() && tx.branches.is_empty());
        tx.reopen
    }

    /// A stateless proxy may have made the same branch for several requests.
    fn branch_answered_by(&self, message: &Reading) -> Option<usize> {
        let class = Class::of(message.method());
        let newest = self.by_branch.get(&class.with(message.branch)).copied();
        std::iter::successors(newest, |b| self.branches[*b].older).find(|b| self.branches[*b].request.key == message.key).or(newest)
    }
}
