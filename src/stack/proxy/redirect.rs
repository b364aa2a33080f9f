//! The redirect server (RFC 3261 §8.3): the targets as Contact values of a 302, best first.

use crate::sip::{Method, reply};
use crate::stack::identity::{TAG_LEN, TagKind};
use crate::stack::proxy::target::TargetSet;
use crate::stack::request::Request;
use crate::stack::settings::Mode;
use crate::stack::turn::Turn;

impl Turn<'_> {
    /// Answers 302 with the targets. A redirect server keeps its transaction (§8.3): the answer to an INVITE is repeated by timer G
    /// until its ACK comes (§17.2.1), and the INVITE is not looked up again. If the limit of transactions is reached, the answer
    /// leaves without one, as all our refusals do (§8.2.7): a retransmitted INVITE gets it again, and a stranger takes no memory.
    pub fn redirect(&mut self, request: &Request, targets: &TargetSet) {
        let flow = request.flow;
        let mut lines = std::mem::take(&mut self.core.lines);
        lines.clear();
        write_contacts(targets, &mut lines);
        let holders = self.holders(request, targets);
        let kept = request.message.method() == Method::Invite
            && self.core.settings.proxy.mode == Mode::Stateful
            && self.transactions.is_full_for(holders).is_none()
            // An answer that must be cut to fit is not repeated.
            && lines.len() <= self.room_for_list(&request.message, flow);
        if !kept {
            self.answer_listing(&request.message, flow, 302, &lines);
            self.core.lines = lines;
            return;
        }
        let server = self.open_server(request, true, holders);
        self.core.scratch.clear();
        self.core.scratch.reserve(TAG_LEN);
        self.core.identity.write_tag(&request.message, TagKind::Transaction, &mut self.core.scratch);
        let answer = reply::Reply {
            status: 302,
            to_tag: &self.core.scratch,
            received: Some(flow.peer),
            feedback: Some(self.feedback()),
            ..reply::Reply::default()
        };
        let write = |out: &mut Vec<u8>| {
            reply::write(&request.message, &answer, |out| out.extend_from_slice(&lines), out);
        };
        self.transactions.respond(self.now, server, 302, self.outbox, write);
        self.core.lines = lines;
    }
}

/// Appends one Contact line for each target, with its q.
pub fn write_contacts(targets: &TargetSet, out: &mut Vec<u8>) {
    for target in &targets.targets {
        out.extend_from_slice(b"Contact: <");
        out.extend_from_slice(targets.get(target.uri));
        out.push(b'>');
        write_q(target.q, out);
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends `;q=0.5`; nothing for 1, which is the default.
pub fn write_q(thousandths: u16, out: &mut Vec<u8>) {
    if thousandths >= 1000 {
        return;
    }
    out.extend_from_slice(b";q=0");
    if thousandths > 0 {
        out.push(b'.');
        let mut rest = thousandths;
        while rest > 0 {
            out.push(b'0' + (rest / 100) as u8);
            rest = rest % 100 * 10;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_is_written_short() {
        for (q, text) in [(1000, ""), (0, ";q=0"), (5, ";q=0.005"), (500, ";q=0.5"), (250, ";q=0.25")] {
            let mut out = Vec::new();
            write_q(q, &mut out);
            assert_eq!(out, text.as_bytes(), "{q}");
        }
    }
}
