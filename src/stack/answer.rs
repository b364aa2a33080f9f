//! Our own answers to requests that are not forwarded, without state (RFC 3261 §8.2.7).

use crate::base::Flow;
use crate::sip::{Message, Method, Name, reply};
use crate::stack::counters::{Limit, Registration};
use crate::stack::identity::{TAG_LEN, TagKind};
use crate::stack::log_event::{Subject, call_id};
use crate::stack::peer_flows::reply_flow;
use crate::stack::refusal::{Extra, Refusal};
use crate::stack::request::unsupported;
use crate::stack::turn::Turn;

impl Turn<'_> {
    /// Answers a request that was not forwarded. `extra` appends further header lines.
    pub fn answer(&mut self, message: &Message, flow: Flow, status: u16, reason: &str, extra: impl FnOnce(&mut Vec<u8>)) {
        // An unreadable Via names no port: the answer goes back to the request's source.
        let upstream = match message.top_via() {
            Ok(via) => reply_flow(flow, &via),
            Err(_) => flow,
        };
        self.core.scratch.clear();
        self.core.scratch.reserve(TAG_LEN);
        self.core.identity.write_tag(message, TagKind::Stateless, &mut self.core.scratch);
        let answer = reply::Reply {
            status,
            reason: reason.as_bytes(),
            to_tag: &self.core.scratch,
            received: Some(flow.peer),
            feedback: Some(self.feedback()),
        };
        let most = self.longest_answer(message, upstream);
        // A challenge without a single WWW- or Proxy-Authenticate line would shut the client out.
        let least = usize::from(matches!(status, 401 | 407));
        let mut left_out = 0;
        self.outbox.send(upstream, |out| {
            let start = out.len();
            let extra = |out: &mut Vec<u8>, begin: usize| {
                extra(out);
                let first = reply::end_of_lines(out, begin, least);
                left_out = reply::fit_lines(out, first, start.saturating_add(most));
            };
            reply::write_fitting(message, &answer, extra, out);
        });
        if left_out > 0 {
            self.core.counters.hit(Limit::AnswerSize);
        }
    }

    /// Answers with a list of contacts, or with the first ones that fit. If none fits, it refuses instead: an answer without any
    /// would say that there are none.
    pub fn answer_listing(&mut self, message: &Message, flow: Flow, status: u16, lines: &[u8]) {
        let first = reply::end_of_lines(lines, 0, 1);
        if first > self.room_for_list(message, flow) {
            let refusal = Refusal::new(513, "Answer Too Long For UDP");
            return self.refuse(message, flow, refusal.because_of(Limit::AnswerSize));
        }
        self.answer(message, flow, status, "", |out| out.extend_from_slice(lines));
    }

    /// Returns the bytes of further lines that an answer may have: the lines common to every answer are no longer than the request.
    pub fn room_for_list(&self, message: &Message, flow: Flow) -> usize {
        let most = self.longest_answer(message, flow);
        most.saturating_sub(message.bytes().len())
    }

    pub fn refuse(&mut self, message: &Message, flow: Flow, refusal: Refusal) {
        // A sender that gets no answers gets none to a malformed request either.
        if self.is_dropped(flow, message) {
            return self.drop_by_route(message, flow);
        }
        self.core.counters.refused += 1;
        if let Some(limit) = refusal.limit {
            self.core.counters.hit(limit);
        }
        if message.method() == Method::Register {
            self.core.counters.registrations[Registration::Refused as usize] += 1;
        }
        // The ACK to this answer must not pass for one to a 2xx.
        if message.method() == Method::Invite && (message.to_tag().is_some() || message.to().is_err()) {
            if let Ok(via) = message.top_via() {
                let key = self.core.identity.transaction(message, &via, b"INVITE");
                self.transactions.refused.note(key);
            }
            // It must not leave with a new branch either. But a sender that names a dialog without its cookie does not speak for
            // it: the ACK to the answer of the real INVITE must pass even if a copy of that INVITE was refused.
            let speaks = message.to_tag().is_none() || self.preprocess_route(flow, message).is_ok_and(|request| request.trusted);
            if speaks {
                let key = self.core.identity.invite(message);
                self.transactions.refused.note(key);
            }
        }
        self.tell_refused(message, flow, &refusal);
        let mut challenges = std::mem::take(&mut self.core.lines);
        challenges.clear();
        if let Extra::Challenge { who, stale } = refusal.extra {
            self.write_challenges(message, who, stale, flow.peer.ip(), &mut challenges);
        }
        let settings = self.core.settings.clone();
        let name = match unsupported(message, Name::ProxyRequire).next() {
            Some(_) => Name::ProxyRequire,
            None => Name::Require,
        };
        self.answer(message, flow, refusal.status, refusal.reason, |out| match refusal.extra {
            Extra::None => {}
            Extra::Unsupported => write_unsupported(message, name, out),
            Extra::SipsNotAllowed => settings.write_sips_not_allowed(flow.listener, out),
            Extra::MinExpires(seconds) => number_header(b"Min-Expires: ", seconds, out),
            Extra::RetryAfter(seconds) => number_header(b"Retry-After: ", seconds, out),
            Extra::Challenge { .. } => out.extend_from_slice(&challenges),
        });
        self.core.lines = challenges;
    }
}

impl Turn<'_> {
    fn tell_refused(&mut self, message: &Message, flow: Flow, refusal: &Refusal) {
        let (status, reason) = (refusal.status, refusal.phrase());
        let what = format_args!("answered {status} {reason}");
        match refusal.is_logged {
            true => self.outbox.note(call_id(message), what),
            false => self.log_event(Subject::of_answer(message, status), message, flow, what),
        }
    }
}

/// Writes the options of `name` that we do not support as one list, each once and at most a few.
fn write_unsupported(message: &Message, name: Name, out: &mut Vec<u8>) {
    const MOST: usize = 16;
    const LOOKED_AT: usize = 64;
    let mut listed = [&b""[..]; MOST];
    let mut count = 0;
    for option in unsupported(message, name).take(LOOKED_AT) {
        let is_listed = listed[..count].iter().any(|known| known.eq_ignore_ascii_case(option.text));
        if count < MOST && !is_listed {
            out.extend_from_slice(if count == 0 { b"Unsupported: " } else { b", " });
            out.extend_from_slice(option.text);
            listed[count] = option.text;
            count += 1;
        }
    }
    out.extend_from_slice(b"\r\n");
}

fn number_header(name: &[u8], number: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    crate::base::hash::write_decimal(u64::from(number), out);
    out.extend_from_slice(b"\r\n");
}
