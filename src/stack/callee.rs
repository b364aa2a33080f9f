//! Where the receiver of a request within a dialog is now. The dialog's flow token tells how it was reached when the dialog began;
//! a phone that has since registered over another connection or through another NAT mapping is reached by that (RFC 5626 §5.3).

use crate::base::{Channel, Flow, Instant, Transport};
use crate::sip::Uri;
use crate::stack::facts::{write_name, write_place};
use crate::stack::hop_uri::is_sips;
use crate::stack::location::{Binding, Reached};
use crate::stack::peer_flows::is_end_of;
use crate::stack::request::Request;
use crate::stack::source_proof::is_private;
use crate::stack::turn::Turn;

/// What the live bindings of the name in To say about a request within a dialog.
#[derive(Clone, Copy)]
pub(super) struct Callee {
    /// The Request-URI is one of its contacts.
    pub is_contact: bool,
    /// The flow to use; `None`: the Request-URI decides.
    pub flow: Option<Flow>,
}

/// How closely a binding's contact matches the Request-URI.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Likeness {
    /// Only the address-of-record.
    Owner,
    /// User and host: the port is that of another connection.
    Host,
    /// The same place.
    Place,
}

/// A live flow by which a binding is reached.
#[derive(Clone, Copy)]
struct Candidate {
    likeness: Likeness,
    /// Of two similar ones, the one that expires later was most likely registered later.
    expires: Instant,
    flow: Flow,
}

/// What the callee's bindings say.
#[derive(Default)]
struct Found {
    is_contact: bool,
    /// One of the flows is the dialog's own.
    is_own_registered: bool,
    /// The Request-URI is a contact that is reached at its own address.
    is_reachable: bool,
    /// Bindings with an open flow.
    living: usize,
    best: Option<Candidate>,
}

impl Found {
    fn consider(&mut self, candidate: Candidate) {
        let rank = |candidate: &Candidate| (candidate.likeness, candidate.expires);
        if self.best.is_none_or(|best| rank(&best) < rank(&candidate)) {
            self.best = Some(candidate);
        }
    }
}

impl Turn<'_> {
    /// Returns the flow that the dialog's receiver has opened, as it is now. Nothing is looked up for a dialog without a flow
    /// token.
    pub fn flow_of_dialog(&mut self, request: &Request) -> Option<Flow> {
        let flow = request.dialog.flow?;
        match request.dialog.is_current || !request.dialog.is_named {
            true => Some(flow).filter(|flow| self.core.peer_flows.is_alive(flow)),
            false => self.find_callee(request).flow,
        }
    }

    /// Queries the bindings of the name in To. Bindings of another address-of-record never count, whatever their contact.
    pub fn find_callee(&mut self, request: &Request) -> Callee {
        let token = request.dialog.flow;
        let own = token.filter(|flow| self.core.peer_flows.is_alive(flow));
        let mut callee = Callee { is_contact: false, flow: own };
        let Ok(to) = request.message.to().and_then(|to| Uri::parse(to.uri)) else {
            return callee;
        };
        if self.core.settings.whose(&to).is_none() {
            return callee;
        }
        self.core.aor.clear();
        to.write_address_of_record(&mut self.core.aor);
        let found = self.ask_bindings(request, own);
        callee.is_contact = found.is_contact;
        let (Some(token), Some(best)) = (token, found.best) else {
            return callee;
        };
        let is_taken = match best.likeness {
            // The phone says that this very place is now reached by another flow.
            Likeness::Place => !found.is_own_registered,
            _ if own.is_some() || found.is_reachable || can_be_called(request, &token) => false,
            Likeness::Host => true,
            Likeness::Owner => found.living == 1,
        };
        if is_taken {
            callee.flow = Some(best.flow);
        }
        callee
    }

    /// Returns what the bindings of the core's `aor` say about the Request-URI; `own` is the dialog's own flow, if it is open.
    fn ask_bindings(&mut self, request: &Request, own: Option<Flow>) -> Found {
        let core = &mut *self.core;
        let (peer_flows, facts) = (&core.peer_flows, &mut core.facts);
        facts.clear();
        write_place(request.uri, facts);
        let place_end = facts.len();
        // While the dialog's own flow is open, only registrations for this very place count.
        if own.is_none() {
            write_name(request.uri, facts);
        }
        let end = facts.len();
        let secure = is_sips(request.uri);
        let may_move = request.dialog.flow.is_some() && request.dialog.is_named;
        let mut found = Found::default();
        core.location.lookup(self.now, &core.aor, |binding| {
            facts.truncate(end);
            write_place(binding.uri(), facts);
            let is_place = facts[..place_end] == facts[end..];
            found.is_contact |= is_place;
            if !may_move || (own.is_some() && !is_place) {
                return;
            }
            found.is_reachable |= is_place && binding.reached == Reached::ByContact;
            let is_usable = |flow: &Flow| peer_flows.is_alive(flow) && (!secure || flow.transport == Transport::Tls);
            let Some(flow) = opened(binding).filter(is_usable) else {
                return;
            };
            found.living += 1;
            found.is_own_registered |= own.is_some_and(|own| is_same_way(&own, &flow));
            let likeness = if is_place {
                Likeness::Place
            } else {
                facts.truncate(end);
                write_name(binding.uri(), facts);
                match facts[place_end..end] == facts[end..] {
                    true => Likeness::Host,
                    false => Likeness::Owner,
                }
            };
            found.consider(Candidate { likeness, expires: binding.expires, flow });
        });
        found
    }
}

/// Returns the flow that the phone has opened, if a request for this binding uses it.
fn opened(binding: &Binding) -> Option<Flow> {
    match binding.reached {
        Reached::ByFlow | Reached::ByFlowFirst if !binding.leads_back => binding.source(),
        _ => None,
    }
}

/// Returns whether two names mean the same flow. The local address that a datagram leaves from may differ.
fn is_same_way(a: &Flow, b: &Flow) -> bool {
    let is_datagram = matches!(a.channel, Channel::Datagram { .. });
    (a.transport, a.peer) == (b.transport, b.peer) && (is_datagram || (a.core, a.channel) == (b.core, b.channel))
}

/// Returns whether something may listen at the Request-URI now that the dialog's own flow is gone: at the host that had opened it,
/// but not at the end of that connection; or at a globally valid address.
fn can_be_called(request: &Request, gone: &Flow) -> bool {
    match request.parsed.host.ip() {
        Some(ip) if ip == gone.peer.ip() => !is_end_of(request.uri, gone),
        Some(ip) => !is_private(ip),
        None => false,
    }
}
