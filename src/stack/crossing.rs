//! What goes to the other process of a restart ([`crate::stack::counterpart`]) because it matches nothing here, and to the other cores of
//! this one.

use crate::base::{Errand, Flow};
use crate::sip::{Message, sniff};
use crate::stack::branch::Branch;
use crate::stack::counterpart::Counterpart;
use crate::stack::counters::Drop;
use crate::stack::refusal::Refusal;
use crate::stack::turn::Turn;

/// Why a response that names an unknown core is dropped.
pub const NO_SUCH_CORE: &str = "its branch names a core that there is not";

impl Turn<'_> {
    /// Passes on a response for another core unread; only its branch is checked. Returns false if it is for this one.
    #[inline]
    pub fn passes_to_another_core(&mut self, flow: Flow, bytes: &[u8]) -> bool {
        let cores = self.core.settings.cores;
        if cores <= 1 || sniff::kind(bytes) != sniff::Kind::Response {
            return false;
        }
        let branch = sniff::top_via_branch(bytes).and_then(|text| self.core.signer.read(text));
        match branch {
            Some(Branch::Stateful { core, .. }) if core != self.core.number => {
                match core < cores {
                    true => self.outbox.mail(core, Errand::Response { crossed: false }, flow, bytes),
                    false => self.discard(flow, Drop::NoSuchCore, NO_SUCH_CORE),
                }
                true
            }
            _ => false,
        }
    }

    /// Returns whether a request other than ACK and CANCEL, which matches no transaction here, was left to the other process.
    #[cold]
    pub fn is_left_to_counterpart(&mut self, errand: Option<Errand>, key: u128, flow: Flow, message: &Message) -> bool {
        let cores = self.core.settings.cores;
        let (core, errand) = match (&self.core.counterpart, errand) {
            (Some(Counterpart::Predecessor(predecessor)), None) => match predecessor.core_of(key) {
                Some(core) => (core + cores, Errand::Repetition),
                None => return false,
            },
            // A repetition whose transaction has ended meanwhile is as new to the successor as to anybody.
            (Some(Counterpart::Successor), None | Some(Errand::Repetition)) => (self.core.number + cores, Errand::Request),
            (Some(Counterpart::Lost), _) => {
                self.refuse(message, flow, Refusal::new(503, "Server Has Stopped"));
                return true;
            }
            _ => return false,
        };
        self.outbox.mail(core, errand, flow, message.bytes());
        true
    }

    /// Returns whether an ACK or a CANCEL was sent to the transaction of the predecessor that it belongs to.
    #[cold]
    pub fn is_of_predecessor(&mut self, errand: Option<Errand>, key: u128, flow: Flow, message: &Message) -> bool {
        let Some(Counterpart::Predecessor(predecessor)) = &self.core.counterpart else {
            return false;
        };
        let Some(core) = predecessor.core_of(key) else {
            return false;
        };
        if errand.is_some() || self.transactions.find_server(key).is_some() {
            return false;
        }
        let cores = self.core.settings.cores;
        let errand = Errand::Orphan { tried: cores - 1, crossed: true };
        self.outbox.mail(core + cores, errand, flow, message.bytes());
        true
    }

    /// Returns whether an ACK that belongs to no transaction here, and to no call that was answered here, was left to the successor:
    /// it is one of a dialog.
    pub fn is_ack_for_successor(&mut self, errand: Errand, flow: Flow, message: &Message) -> bool {
        if !matches!(self.core.counterpart, Some(Counterpart::Successor)) || self.was_accepted(message) {
            return false;
        }
        let (core, cores) = (self.core.number, self.core.settings.cores);
        let errand = match errand {
            Errand::Orphan { crossed: false, .. } => Errand::Orphan { tried: cores - 1, crossed: true },
            _ => Errand::Request,
        };
        self.outbox.mail(core + cores, errand, flow, message.bytes());
        true
    }

    /// Hands a message that matched nothing to the next core that has not looked yet, in this process and then in the other. What the
    /// predecessor has found nothing for goes back to the successor. Returns false if all have looked.
    pub fn pass_on(&mut self, errand: Errand, flow: Flow, message: &Message) -> bool {
        let Errand::Orphan { tried, crossed } = errand else {
            return false;
        };
        let (core, cores) = (self.core.number, self.core.settings.cores);
        let tried = tried.saturating_add(1);
        let (next, errand) = match (&self.core.counterpart, crossed) {
            _ if tried < cores => ((core + 1) % cores, Errand::Orphan { tried, crossed }),
            (Some(Counterpart::Predecessor(_) | Counterpart::Successor), false) => {
                (core + cores, Errand::Orphan { tried: 0, crossed: true })
            }
            (Some(Counterpart::Successor), true) => (core + cores, Errand::Request),
            _ => return false,
        };
        self.outbox.mail(next, errand, flow, message.bytes());
        true
    }

    /// Returns whether a response to a branch of ours without a transaction here was sent to the same core of the other process.
    #[cold]
    pub fn is_answer_for_counterpart(&mut self, errand: Option<Errand>, flow: Flow, message: &Message) -> bool {
        let is_joined = matches!(self.core.counterpart, Some(Counterpart::Predecessor(_) | Counterpart::Successor));
        if !is_joined || errand == Some(Errand::Response { crossed: true }) {
            return false;
        }
        let core = self.core.number + self.core.settings.cores;
        self.outbox.mail(core, Errand::Response { crossed: true }, flow, message.bytes());
        true
    }
}
