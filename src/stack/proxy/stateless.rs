//! The stateless proxy (RFC 3261 §16.11): a retransmission, a CANCEL and an ACK take the same way with the same branch, and nothing
//! is remembered. The ACK to a 2xx takes this way in stateful mode too (§16.7 step 5).

use crate::base::Flow;
use crate::sip::{Message, Method};
use crate::stack::counters::{Drop, Limit};
use crate::stack::log_event::Subject;
use crate::stack::proxy::Proxy;
use crate::stack::proxy::hop::RequestCopy;
use crate::stack::proxy::locate::Search;
use crate::stack::proxy::parked::Held;
use crate::stack::proxy::target::TargetSet;
use crate::stack::refusal::{Obstacle, Refusal};
use crate::stack::request::Request;
use crate::stack::settings::Mode;
use crate::stack::turn::Turn;

impl Proxy {
    /// Sends the request to the best target, which for a route with several is the first that has not failed; a retransmission has
    /// the same branch wherever it goes. A CANCEL, an ACK or a retransmission that comes after this has changed goes elsewhere than
    /// its INVITE: that is rare, since nothing is waited for in this mode, and only probes detect failures. An ACK goes to all
    /// targets: only the phone that answered takes notice. Like the copies of any request they share Max-Breadth, and one that has
    /// been here before gets no more of them than that (RFC 5393 §5.3.3): an ACK is not answered, so no breadth comes back.
    pub fn forward_stateless(&mut self, turn: &mut Turn, request: &Request) {
        let message = &request.message;
        let stateful = turn.core.settings.proxy.mode == Mode::Stateful;
        let all = message.method() == Method::Ack && stateful;
        let count = if all { self.targets.targets.len() } else { 1 };
        let breadth = turn.core.incoming_breadth(message);
        if breadth == 0 || (request.spiral && count > breadth as usize) {
            let narrow = Refusal::new(440, "").because_of(Limit::MaxBreadth);
            return turn.refuse_copy(message, request.flow, narrow);
        }
        let count = count.min(breadth as usize);
        let targets = std::mem::take(&mut self.targets);
        for (number, target) in targets.targets.iter().take(count).enumerate() {
            let share = (breadth as usize + number) / count;
            let copy = RequestCopy::new(&targets, target, share as u32, Search::without_memory(turn.now));
            match self.forward_or_hold(turn, request, &targets, &copy, number) {
                Ok(()) => {}
                Err(refusal) if message.method() == Method::Ack => {
                    turn.refuse_copy(message, request.flow, refusal);
                }
                Err(refusal) => {
                    turn.refuse(message, request.flow, refusal);
                    break;
                }
            }
        }
        self.targets = targets;
    }

    /// Sends a copy to one target, the `number`-th of `targets`, or keeps the message until the next hop's name is known.
    pub fn forward_or_hold(
        &mut self,
        turn: &mut Turn,
        request: &Request,
        targets: &TargetSet,
        copy: &RequestCopy,
        number: usize,
    ) -> Result<(), Refusal> {
        let question = match self.forward_copy(turn, request, copy, number) {
            Ok(()) => return Ok(()),
            Err(Obstacle::Refused(refusal)) => return Err(refusal),
            Err(Obstacle::Unknown(question)) => question,
        };
        let since = copy.search.since;
        let mut held = Box::new(Held {
            flow: request.flow,
            bytes: request.message.bytes().to_vec(),
            key: request.key,
            number,
            breadth: copy.breadth,
            mark: request.mark,
            target: TargetSet::default(),
            since,
        });
        held.target.copy_one(targets, copy.target);
        let dns = &turn.core.settings.dns;
        let Some(id) = self.parking.hold(held, dns.held, since.after_ms(dns.timeout)) else {
            return Err(Refusal::new(503, "Too Many Requests Wait For DNS").because_of(Limit::Held));
        };
        turn.core.names.wait(question, id);
        Ok(())
    }

    fn forward_copy(&mut self, turn: &mut Turn, request: &Request, copy: &RequestCopy, number: usize) -> Result<(), Obstacle> {
        let hop = self.next_hop(turn, request, copy)?;
        let (signer, mark) = (turn.core.signer, request.mark);
        let seed = turn.core.identity.stateless_seed(request.key, number);
        self.send_copy(turn, request, copy, &hop, |out| {
            signer.write_stateless(seed, mark, out);
        });
        turn.core.counters.stateless += 1;
        Ok(())
    }
}

impl Turn<'_> {
    /// A message without a transaction is not sent. An ACK is never answered.
    pub fn refuse_copy(&mut self, message: &Message, flow: Flow, refusal: Refusal) {
        if message.method() != Method::Ack {
            return self.refuse(message, flow, refusal);
        }
        self.core.counters.drop(Drop::StrayAck);
        if let Some(limit) = refusal.limit {
            self.core.counters.hit(limit);
        }
        let what = format_args!("not forwarded: {}", refusal.reason);
        self.log_event(Subject::Routing, message, flow, what);
    }
}
