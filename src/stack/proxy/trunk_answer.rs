//! A request that is sent again to the same next hop, with the answer to its challenge.

use crate::base::Id;
use crate::stack::auth::answering::{Asked, Chosen};
use crate::stack::proxy::Proxy;
use crate::stack::proxy::context::{Context, SentAnswer};
use crate::stack::proxy::forward::without_headers;
use crate::stack::proxy::hop::Attempt;
use crate::stack::proxy::target::Target;
use crate::stack::refusal::Obstacle;
use crate::stack::request::Request;
use crate::stack::trunk::Trunk;
use crate::stack::turn::Turn;

/// What is answered, and where it goes.
pub struct Answer<'c> {
    pub trunk: &'c Trunk,
    pub chosen: &'c Chosen<'c>,
    /// The target's index.
    pub target: u16,
    /// The branch's share of Max-Breadth.
    pub breadth: u32,
    /// Challenges answered so far, with this one.
    pub answered: u8,
}

impl Proxy {
    /// Sends the same request to the same place, with our credentials.
    pub(super) fn try_with_password(
        &mut self,
        turn: &mut Turn,
        server: Id,
        context: &mut Context,
        request: &Request,
        answer: &Answer,
    ) {
        let number = usize::from(answer.target);
        let Some(target) = context.targets.targets.get(number) else {
            debug_assert!(false, "a branch has a target");
            return;
        };
        let target = Target { server_address: context.last_tried(answer.target), ..*target };
        let attempt = Attempt { target: number, breadth: answer.breadth, since: turn.now, is_late: false };
        // An element behind the carrier has a realm of its own, and both have to be answered.
        let realm = answer.chosen.challenge.realm;
        let before = context.sent_answer.take().filter(|sent| sent.target == answer.target && sent.realm != realm);
        let mut lines = before.map_or_else(Vec::new, |sent| sent.lines);
        let asked = Asked {
            method: request.message.method_name(),
            uri: without_headers(context.targets.get(target.uri)),
            body: request.message.body(),
        };
        turn.core.answering.write(answer.trunk, answer.chosen, asked, &mut lines);
        context.targets.credentials = lines;
        match self.forward(turn, server, context, request, attempt, &target) {
            Ok((id, _)) => {
                context.branches.push(id);
                context.breadth = context.breadth.saturating_sub(attempt.breadth);
                if let Some(client) = turn.transactions.client_mut(id) {
                    client.answered = answer.answered;
                    context.spend(client.unproved);
                }
            }
            Err(Obstacle::Refused(refusal)) => turn.fail_branch(context, request, number, &refusal),
            Err(Obstacle::Unknown(_)) => context.note_failure(503, &mut turn.transactions.pool),
        }
        let lines = std::mem::take(&mut context.targets.credentials);
        context.sent_answer = Some(SentAnswer { target: answer.target, realm: realm.to_vec(), lines });
    }
}
