//! What may be sent to a place that has proved nothing. The source of a datagram can be forged, and a contact can name any machine:
//! without a limit, a few bytes from a stranger become many at a third party (RFC 3261 §26.1.5). So all that one request makes us
//! send to places that have never shown that they receive from us is at most `[limits] answer_factor` times as long as the request.
//!
//! A place shows it by answering a challenge that was sent there, or a request of ours ([`crate::base::Proved`]), or by having a
//! connection.

use crate::stack::counters::Limit;
use crate::stack::proxy::context::Context;
use crate::stack::proxy::hop::Hop;
use crate::stack::proxy::target::Target;
use crate::stack::refusal::Refusal;
use crate::stack::request::Request;
use crate::stack::source_proof::is_private;
use crate::stack::turn::Turn;
use std::net::SocketAddr;

/// The sender could not reach it without us.
const NOT_FROM_THERE: Refusal = Refusal::new(403, "Next Hop Is On This Machine Or In A Private Network");
const NOT_ALLOWED: Refusal = Refusal::new(403, "Contact Outside The Allowed Networks ([registrar] contact_networks)");
const NOT_PROVED: Refusal = Refusal::new(480, "Contact Has Never Answered").because_of(Limit::AnswerSize);

impl Turn<'_> {
    /// Bytes that copies of this request may send to such places. If the request has come back to us, as when one user forwards to
    /// another, each branch has its part, as it has of Max-Breadth (RFC 5393): no tree of users multiplies it.
    pub fn room_for_strangers(&self, request: &Request, breadth: u32) -> Option<usize> {
        let bound = self.core.bound_towards(&request.message)?;
        let whole = self.core.settings.proxy.max_breadth.max(1) as usize;
        Some(match request.spiral {
            true => bound * whole.min(breadth as usize) / whole,
            false => bound,
        })
    }

    /// How many copies of `len` bytes a branch may send; `None`: as many as its timers allow.
    pub fn copies(
        &self,
        context: &Context,
        request: &Request,
        target: &Target,
        hop: &Hop,
        len: usize,
    ) -> Result<Option<usize>, Refusal> {
        let Some(room) = context.unproved_room else {
            return Ok(None);
        };
        if hop.flow.transport.is_reliable() || !self.is_third_place(request, target, hop) {
            return Ok(None);
        }
        let others = context.targets.targets.len().saturating_sub(context.next_target);
        match room / len.max(1) {
            0 => Err(NOT_PROVED),
            copies => Ok(Some((copies / (1 + others)).max(1))),
        }
    }

    /// Whether the only evidence for this place is what somebody has written in a message.
    fn is_third_place(&self, request: &Request, target: &Target, hop: &Hop) -> bool {
        let ip = hop.flow.peer.ip();
        let is_source = |source: SocketAddr| source.ip().to_canonical() == ip.to_canonical();
        let named_by = target.source.unwrap_or(request.flow.peer).ip();
        let is_own = || self.core.settings.is_own_address(ip, Some(hop.flow.peer.port()));
        !(hop.fixed
            || hop.by_conf
            || target.by_operator
            || !target.is_unsure && target.source.is_some_and(is_source)
            || self.core.settings.is_trusted(ip)
            || self.core.settings.is_trusted(named_by)
            || is_own()
            || self.core.sources.proved.knows_address(self.now, ip))
    }

    /// Whether a request may be sent to this place: a phone that registers or calls from elsewhere must not reach, by what it
    /// writes into its Contact, the services of this machine and of the networks behind it.
    pub fn check_reach(&self, request: &Request, target: &Target, peer: SocketAddr) -> Result<(), Refusal> {
        if target.source.is_some_and(|source| source.ip() == peer.ip()) {
            return Ok(());
        }
        let settings = &self.core.settings;
        let is_own = || settings.is_own_address(peer.ip(), Some(peer.port()));
        let is_by_conf = target.is_by_conf() || (target.for_users && target.is_named);
        if is_by_conf || target.by_operator || is_own() {
            return Ok(());
        }
        let source = request.flow.peer.ip();
        // What we have sent to ourselves is nobody's on this machine: whoever has sent it at first is not known any more.
        let is_from_here = || settings.is_this_host(source) && !self.core.is_topped_by_us(&request.message);
        let is_public = || !settings.is_this_host(peer.ip()) && !is_private(peer.ip());
        let is_allowed = match target.source {
            Some(source) => settings.may_lie_at(peer.ip(), source.ip()),
            // Within a dialog the other side has said where it is.
            None if request.trusted => !settings.is_this_host(peer.ip()) || settings.is_this_host(source) || request.dialog.is_here,
            None if target.is_named => !settings.is_this_host(peer.ip()) || is_from_here(),
            None if settings.is_this_host(source) && !is_from_here() => is_public(),
            // The sender alone says where it goes.
            None => settings.is_trusted(source) || settings.may_be_seen_from(peer.ip(), source),
        };
        match (is_allowed, target.source) {
            (true, _) => Ok(()),
            (false, Some(_)) => Err(NOT_ALLOWED),
            (false, None) => Err(NOT_FROM_THERE),
        }
    }

    /// Whether one end of the dialog that this request opens or belongs to is on this machine and the other is not. If both are,
    /// each may reach the other anyway.
    pub fn has_an_end_here(&self, request: &Request, towards: SocketAddr) -> bool {
        let is_here = |peer: SocketAddr| self.core.settings.is_this_host(peer.ip());
        (request.trusted && request.dialog.is_here) || is_here(request.flow.peer) != is_here(towards)
    }
}
