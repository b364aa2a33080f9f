//! What timers and the transport report about branches (RFC 3261 §16.8, §16.9).

use crate::stack::proxy::Proxy;
use crate::stack::proxy::hop::ByUdp;
use crate::stack::proxy::proceed::More;
use crate::stack::transaction::{Client, ClientKind, Ends, Hope, Notice};
use crate::stack::turn::Turn;

impl Proxy {
    pub fn handle_notice(&mut self, turn: &mut Turn, notice: Notice) {
        match notice {
            Notice::ClientTimeout(client) => {
                if client.kind != ClientKind::Cancel && client.hope != Hope::GivenUp {
                    let timer = if client.kind == ClientKind::Invite { "B" } else { "F" };
                    let peer = client.flow.peer;
                    self.note_timer(turn, client.server, format_args!("timer {timer}: nothing final from {peer}"));
                    self.log_branch(turn, client.server, client.flow, "no final response");
                    turn.note_time_out(&client);
                }
                self.branch_ended(turn, &client, 408);
            }
            Notice::ClientFailure(client) => {
                turn.note_undelivered(&client);
                self.branch_ended(turn, &client, 503);
            }
            Notice::Silent(id) => self.branch_is_silent(turn, id),
            Notice::TimerC(id) => {
                if let Some(client) = turn.transactions.client(id) {
                    let (server, flow) = (client.server, client.flow);
                    self.note_timer(turn, server, format_args!("timer C: {} rings for too long", flow.peer));
                    self.log_branch(turn, server, flow, "rings for too long (timer C), cancelled");
                }
                turn.cancel_branch(id);
            }
            Notice::Expired(id) => {
                let Some(context) = self.contexts.remove(id) else {
                    debug_assert!(false, "a transaction that waited had a context");
                    return;
                };
                for branch in context.all_branches() {
                    if let Some(client) = turn.transactions.abandon_client(turn.now, branch, turn.outbox)
                        && client.flow.transport.is_reliable()
                        && client.ends != Ends::Nothing
                    {
                        turn.outbox.release(client.flow);
                    }
                }
                self.retire(turn, context, 0);
            }
            Notice::Late(server) => {
                let Some(id) = turn.transactions.server(server).and_then(|s| s.context.get()) else {
                    return;
                };
                if let Some(context) = self.contexts.lend(id) {
                    self.respond_own(turn, server, &context, 100, "");
                    self.contexts.put_back(id, context);
                }
            }
        }
    }

    /// A branch has ended without a final response.
    fn branch_ended(&mut self, turn: &mut Turn, client: &Client, status: u16) {
        if client.kind == ClientKind::Cancel {
            return;
        }
        if client.hope == Hope::GivenUp {
            turn.count_silence(client.row);
            if status != 503 {
                self.release(turn, client.server, client.flow, client.ends);
            }
            return;
        }
        turn.record_silence(client, status);
        let Some(id) = turn.transactions.server(client.server).and_then(|server| server.context.get()) else {
            return;
        };
        let Some(mut context) = self.contexts.lend(id) else {
            debug_assert!(false, "a transaction that waits has a context");
            return;
        };
        // The record is gone, and its name with it: a name without a record is not a branch.
        let transactions = &turn.transactions;
        context.branches.retain(|branch| transactions.client(*branch).is_some());
        context.silent.retain(|branch| transactions.client(*branch).is_some());
        context.reclaim(client.breadth);
        if status == 503 {
            context.refund(client.unproved);
        }
        let again = status == 503 && client.by_size && !context.closed;
        if !again {
            context.note_failure(status, &mut turn.transactions.pool);
        }
        self.contexts.put_back(id, context);
        if again {
            let by_udp = ByUdp { target: client.target, breadth: client.breadth, answered: client.answered, silent: None };
            self.start_more(turn, client.server, id, More::ByUdp(by_udp));
        } else if client.cancel.is_none() && !client.cancel_wanted {
            let (server, target, breadth) = (client.server, client.target, client.breadth);
            self.try_elsewhere(turn, server, id, target, breadth);
        }
        self.go_on(turn, client.server);
        if status != 503 {
            self.release(turn, client.server, client.flow, client.ends);
        }
    }
}
