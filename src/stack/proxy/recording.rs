//! What the proxy reports about a call to the table of calls ([`crate::stack::calls`]), from which its record is made. If no
//! records are wanted, each report costs one comparison. The counters of calls by route and next hop are always kept.

use crate::base::{Flow, Id, Instant};
use crate::sip::{Credentials, Message, Method, Name};
use crate::stack::auth::nonce::Verdict;
use crate::stack::auth::prove::unquoted;
use crate::stack::calls::{Beginning, Calls, End, Ending, Outcome};
use crate::stack::core::Core;
use crate::stack::health::Cause;
use crate::stack::log_event::{Shown, call_id};
use crate::stack::passage::Proof;
use crate::stack::proxy::context::Context;
use crate::stack::proxy::target::Target;
use crate::stack::request::Request;
use crate::stack::route_counters::{RowId, TIMED_OUT, UNREACHABLE};
use crate::stack::token::Side;
use crate::stack::transaction::{Client, ClientKind, Hope};
use crate::stack::turn::Turn;
use std::borrow::Cow;

impl Turn<'_> {
    /// Works out what identifies the call that the request opens, for all its branches.
    #[inline]
    pub fn foresee_record(&mut self, request: &mut Request) {
        if self.core.calls.is_some() && opens_call(request) {
            self.core.opening(request);
        }
    }

    /// Records a request that is forwarded with a transaction; the context keeps the call that it opens or ends.
    #[inline]
    pub fn record_request(&mut self, context: &mut Context, request: &Request, route: Option<u16>) {
        let Some(calls) = self.core.calls.clone() else {
            return;
        };
        match opens_call(request) {
            true => context.call = self.record_beginning(&calls, request, route),
            false => context.ending = self.record_within(&calls, request),
        }
    }

    fn record_beginning(&mut self, calls: &Calls, request: &Request, route: Option<u16>) -> Option<u64> {
        let call = request.opening?.call.get();
        let message = &request.message;
        let (from, to) = (message.from().ok()?, message.to().ok()?);
        let beginning = Beginning {
            call_id: message.call_id().unwrap_or_default(),
            from: &without_password(from.uri),
            to: &without_password(to.uri),
            user: &self.proved_user(request),
            source: request.flow,
            route,
        };
        calls.begin(self.now, call, &beginning);
        Some(call)
    }

    /// A request within a dialog that we let pass: the dialog goes on, or is about to end. A request without its cookie ends nothing.
    fn record_within(&mut self, calls: &Calls, request: &Request) -> Option<Ending> {
        let shown = request.shown.filter(|_| request.trusted)?;
        let call = shown.dialog.call.get();
        if request.message.method() != Method::Bye {
            calls.heard(self.now, call);
            return None;
        }
        let (tag, end) = match shown.towards {
            Side::Callee => (request.message.to_tag(), End::Caller),
            Side::Caller => (request.message.from_tag(), End::Callee),
        };
        let ending = Ending { call, dialog: self.core.identity.tag_hash(tag), end };
        calls.leaving(self.now, ending);
        Some(ending)
    }

    /// The name that the sender has proved on this pass: that of its password, or the first of its certificate.
    fn proved_user(&self, request: &Request) -> Vec<u8> {
        if request.proof != Proof::Credentials {
            return Vec::new();
        }
        let (now_ms, lifetime_ms) = (self.now.as_ms(), self.core.settings.auth.nonce_lifetime);
        let mut lines = request.message.all(Name::ProxyAuthorization);
        let name = lines.find_map(|line| {
            let credentials = Credentials::parse(line.value).ok()??;
            let read = self.core.nonces.read(now_ms, lifetime_ms, credentials.realm, credentials.nonce, request.flow.peer.ip());
            matches!(read, Verdict::Good(_)).then(|| unquoted(credentials.username, &mut [0; 256]).to_vec())
        });
        let certificate = || {
            let names = self.core.peer_flows.proved(&request.flow)?;
            names.first().map(|name| name.as_bytes().to_vec())
        };
        name.or_else(certificate).unwrap_or_default()
    }

    /// A response came for this branch, and is forwarded, or may be.
    #[inline]
    pub fn record_response(&mut self, id: Id, message: &Message) {
        if self.core.calls.is_some() {
            self.record_response_of_call(id, message);
        }
    }

    fn record_response_of_call(&mut self, id: Id, message: &Message) {
        let status = message.status();
        if status >= 200 {
            self.record_outcome(id, status);
        }
        let client = self.transactions.client(id).filter(|client| client.kind == ClientKind::Invite);
        let opening = client.and_then(|client| client.opening);
        let (Some(calls), Some(call)) = (&self.core.calls, opening.map(|opening| opening.call.get())) else {
            return;
        };
        match status {
            180 | 183 => calls.ringing(self.now, call),
            200..300 => {
                let dialog = self.core.identity.tag_hash(message.to_tag());
                calls.answered_now(self.now, call, status, dialog);
                if !self.core.settings.proxy.record_route {
                    calls.unseen(self.now, call, self.core.wall_ms, &mut self.outbox.records);
                }
            }
            _ => {}
        }
    }

    /// A branch has its final response.
    #[inline]
    pub fn record_outcome(&mut self, id: Id, status: u16) {
        let Some(calls) = &self.core.calls else {
            return;
        };
        let client = self.transactions.client(id).filter(|client| client.kind == ClientKind::Invite);
        if let Some(client) = client
            && let Some(opening) = client.opening
        {
            calls.outcome(opening.call.get(), &client.flow, Outcome::Status(status));
        }
    }

    /// A silent branch is no longer waited for. It is counted when it ends: it may accept the call after all.
    pub fn record_giving_up(&mut self, id: Id) {
        if let Some(client) = self.transactions.client(id) {
            let (call, flow) = (client.opening, client.flow);
            if let (ClientKind::Invite, Some(opening), Some(calls)) = (client.kind, call, &self.core.calls) {
                calls.outcome(opening.call.get(), &flow, Outcome::Failed(Cause::NoResponse));
            }
        }
    }

    /// A branch that was given up for its silence has ended without having accepted the call.
    #[inline]
    pub fn count_silence(&mut self, row: RowId) {
        self.core.counters.calls.end(row, TIMED_OUT);
    }

    /// A branch has ended without a final response: `status` says how.
    #[inline]
    pub fn record_silence(&mut self, client: &Client, status: u16) {
        let how = if status == 408 { TIMED_OUT } else { UNREACHABLE };
        self.core.counters.calls.end(client.row, how);
        let Some(calls) = &self.core.calls else {
            return;
        };
        if let (ClientKind::Invite, Some(opening)) = (client.kind, client.opening) {
            let cause = match (status, client.flow.transport.is_reliable()) {
                (408, _) => Cause::NoResponse,
                (_, true) => Cause::NoConnection,
                (_, false) => Cause::Unreachable,
            };
            calls.outcome(opening.call.get(), &client.flow, Outcome::Failed(cause));
        }
    }

    /// The request of this context got this final response; 0: it gets none.
    #[inline]
    pub fn record_final(&mut self, context: &Context, status: u16) {
        if let (Some(calls), Some(call)) = (&self.core.calls, context.call) {
            let end = match context.cancelled {
                true => End::Cancelled,
                false => End::Refused,
            };
            calls.refused(self.now, call, status, end, self.core.wall_ms, &mut self.outbox.records);
        }
        if let (Some(calls), Some(ending)) = (&self.core.calls, context.ending) {
            match has_ended(context, status) {
                true => calls.ended(context.begun, ending, self.core.wall_ms, &mut self.outbox.records),
                false => calls.stayed(ending),
            }
        }
    }

    /// A copy of a request was sent to a target: recorded, counted, and traced. Returns where its end is to be counted.
    #[inline]
    pub fn branch_sent(&mut self, context: &Context, request: &Request, target: &Target, to: &Flow) -> RowId {
        if let (Some(calls), Some(call)) = (&self.core.calls, context.call) {
            calls.attempt(call, to);
        }
        if self.outbox.is_traced {
            let uri = Shown(context.targets.get(target.uri));
            let what = format_args!("branch to {uri}: sent to {} over {}", to.peer, to.transport.name());
            self.outbox.note(call_id(&request.message), what);
        }
        if !opens_call(request) {
            return RowId::NONE;
        }
        let counters = &mut self.core.counters.calls;
        let row = counters.of(context.targets.route, target.number);
        counters.attempt(row);
        row
    }

    /// A branch has its first final response.
    #[inline]
    pub fn count_answer(&mut self, row: RowId, status: u16, hope: Hope) {
        let status = match (hope, status) {
            (Hope::GivenUp, 300..) => TIMED_OUT,
            _ => status,
        };
        self.core.counters.calls.end(row, status);
    }

    #[inline]
    pub fn count_end(&mut self, id: Id, status: u16) {
        if let Some(client) = self.transactions.client(id) {
            self.core.counters.calls.end(client.row, status);
        }
    }

    /// The first 2xx to a request that came at `begun`.
    #[inline]
    pub fn count_answered(&mut self, id: Id, begun: Instant) {
        if let Some(client) = self.transactions.client(id) {
            let setup_ms = self.now.ms_since(begun);
            self.core.counters.calls.answered(client.row, setup_ms);
        }
    }

    /// Looks for lost calls in a part of the table, if it is time to.
    pub fn sweep_calls(&mut self) {
        if self.core.next_sweep_of_calls().is_none_or(|at| self.now < at) {
            return;
        }
        let lost_after = self.core.settings.records.lost_after;
        if let Some(calls) = &self.core.calls {
            calls.sweep(self.now, lost_after, self.core.wall_ms, &mut self.outbox.records);
        }
        self.core.sweep_calls_at = self.now.after_ms(Calls::sweep_every_ms(lost_after));
    }
}

impl Core {
    /// When [`Turn::sweep_calls`] has something to do; while there are no calls, never.
    pub fn next_sweep_of_calls(&self) -> Option<Instant> {
        let calls = self.calls.as_ref()?;
        (!calls.is_empty()).then_some(self.sweep_calls_at)
    }
}

/// Whether a BYE with this final response has ended its call (RFC 3261 §15.1.1): it was accepted, the callee knows no such call, or
/// nobody has answered, whatever was made of that for the one who sent it.
fn has_ended(context: &Context, status: u16) -> bool {
    let is_unheard = context.best_status == 503 && context.best.is_empty();
    is_unheard || matches!(status, 0 | 200..300 | 408 | 481)
}

/// The URI with its password as asterisks: `sip:user:PASSWORD@host`.
fn without_password(uri: &[u8]) -> Cow<'_, [u8]> {
    let secret = || {
        let at = uri.iter().position(|byte| *byte == b'@')?;
        let mut colons = (0..at).filter(|place| uri[*place] == b':');
        colons.next()?;
        Some(colons.next()? + 1..at)
    };
    match secret() {
        Some(secret) => {
            let mut masked = uri.to_vec();
            masked[secret].fill(b'*');
            Cow::Owned(masked)
        }
        None => Cow::Borrowed(uri),
    }
}

fn opens_call(request: &Request) -> bool {
    request.message.method() == Method::Invite && request.message.to_tag().is_none()
}
