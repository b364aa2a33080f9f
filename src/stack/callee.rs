//! Where the receiver of a request within a dialog is by now. The flow token of the dialog says by which way it was reached when the dialog
//! began; a phone that has registered since, by another connection or through another hole in its NAT, is reached by that (RFC 5626 §5.3).

use crate::base::{Channel, Flow, Instant, Transport};
use crate::sip::Uri;
use crate::stack::facts::{write_name, write_place};
use crate::stack::hop_uri::is_sips;
use crate::stack::location::{Binding, Reached};
use crate::stack::peer_flows::is_end_of;
use crate::stack::request::Request;
use crate::stack::source_proof::is_private;
use crate::stack::turn::Turn;

/// What the living bindings of the name in To say of a request within a dialog.
#[derive(Clone, Copy)]
pub(super) struct Callee {
    /// The Request-URI is one of its contacts.
    pub is_contact: bool,
    /// The way to take; `None`: the Request-URI says it.
    pub flow: Option<Flow>,
}

/// How much a binding's contact has in common with the Request-URI.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Likeness {
    /// Whose address-of-record it is.
    Owner,
    /// User and host: the port is that of another connection.
    Host,
    ServerAddress,
}

/// A living way by which a binding is reached.
#[derive(Clone, Copy)]
struct Candidate {
    likeness: Likeness,
    /// Of two alike, the one that expires later has most likely been registered later.
    expires: Instant,
    flow: Flow,
}

impl Turn<'_> {
    /// The way that the dialog's receiver has opened, as it is now. Nothing is looked up for a dialog without a flow token.
    pub fn flow_of_dialog(&mut self, request: &Request) -> Option<Flow> {
        let flow = request.dialog.flow?;
        match request.dialog.is_current || !request.dialog.is_named {
            true => Some(flow).filter(|flow| self.core.peer_flows.is_alive(flow)),
            false => self.find_callee(request).flow,
        }
    }

    /// Asks the bindings of the name in To. None of another address-of-record counts, whatever its contact is.
    pub fn find_callee(&mut self, request: &Request) -> Callee {
        let token = request.dialog.flow;
        let own = token.filter(|flow| self.core.peer_flows.is_alive(flow));
        let mut callee = Callee {
            is_contact: false,
            flow: own,
        };
        let Ok(to) = request.message.to().and_then(|to| Uri::parse(to.uri)) else {
            return callee;
        };
        if self.core.settings.whose(&to).is_none() {
            return callee;
        }
        self.core.aor.clear();
        to.write_address_of_record(&mut self.core.aor);
        self.core.facts.clear();
        write_place(request.uri, &mut self.core.facts);
        let place_end = self.core.facts.len();
        // While the dialog's own way is open, nothing counts but what is registered for this very place.
        if own.is_none() {
            write_name(request.uri, &mut self.core.facts);
        }
        let end = self.core.facts.len();
        let (ways, facts) = (&self.core.peer_flows, &mut self.core.facts);
        let secure = is_sips(request.uri);
        let may_move = token.is_some() && request.dialog.is_named;
        let (mut is_own_registered, mut is_reachable) = (false, false);
        let mut best: Option<Candidate> = None;
        let mut living = 0;
        self.core.location.lookup(self.now, &self.core.aor, |binding| {
            facts.truncate(end);
            write_place(binding.uri(), facts);
            let is_place = facts[..place_end] == facts[end..];
            callee.is_contact |= is_place;
            if !may_move || (own.is_some() && !is_place) {
                return;
            }
            is_reachable |= is_place && binding.reached == Reached::ByContact;
            let flow = opened(binding).filter(|flow| ways.is_alive(flow) && (!secure || flow.transport == Transport::Tls));
            let Some(flow) = flow else {
                return;
            };
            living += 1;
            is_own_registered |= own.is_some_and(|own| is_same_way(&own, &flow));
            let likeness = if is_place {
                Likeness::ServerAddress
            } else {
                facts.truncate(end);
                write_name(binding.uri(), facts);
                match facts[place_end..end] == facts[end..] {
                    true => Likeness::Host,
                    false => Likeness::Owner,
                }
            };
            let candidate = Candidate {
                likeness,
                expires: binding.expires,
                flow,
            };
            let rank = |candidate: &Candidate| (candidate.likeness, candidate.expires);
            if best.is_none_or(|best| rank(&best) < rank(&candidate)) {
                best = Some(candidate);
            }
        });
        let (Some(token), Some(best)) = (token, best) else {
            return callee;
        };
        let is_taken = match best.likeness {
            // The phone says of this very place that it is reached by another way now.
            Likeness::ServerAddress => !is_own_registered,
            _ if own.is_some() || is_reachable || can_be_called(request, &token) => false,
            Likeness::Host => true,
            Likeness::Owner => living == 1,
        };
        if is_taken {
            callee.flow = Some(best.flow);
        }
        callee
    }
}

/// The way that the phone has opened, where a request for this binding takes it.
fn opened(binding: &Binding) -> Option<Flow> {
    match binding.reached {
        Reached::ByFlow | Reached::ByFlowFirst if !binding.leads_back => binding.source(),
        _ => None,
    }
}

/// Two names of one way. Which of our addresses a datagram leaves from may differ.
fn is_same_way(a: &Flow, b: &Flow) -> bool {
    let is_datagram = matches!(a.channel, Channel::Datagram { .. });
    (a.transport, a.peer) == (b.transport, b.peer) && (is_datagram || (a.core, a.channel) == (b.core, b.channel))
}

/// Whether somebody may listen at the Request-URI, now that the dialog's own way is gone: at the host that had opened it, but not at the end of
/// that connection; or at an address that means something everywhere.
fn can_be_called(request: &Request, gone: &Flow) -> bool {
    match request.parsed.host.ip() {
        Some(ip) if ip == gone.peer.ip() => !is_end_of(request.uri, gone),
        Some(ip) => !is_private(ip),
        None => false,
    }
}
