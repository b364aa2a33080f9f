//! Which targets a request has (RFC 3261 §16.5).

use crate::base::{Flow, Transport};
use crate::sip::{Host, Method, NameAddr, Scheme, Uri};
use crate::stack::condition::matches;
use crate::stack::hop_uri::{is_sips, transport_of};
use crate::stack::location::Reached;
use crate::stack::peer_flows::is_end_of;
use crate::stack::proxy::target::{ConfHop, Target, TargetSet};
use crate::stack::refusal::{Extra, Refusal};
use crate::stack::request::Request;
use crate::stack::route::{Action, Route};
use crate::stack::settings::{Outgoing, Settings};
use crate::stack::turn::Turn;
use crate::stack::whose::is_same_host;

/// The result of §16.5.
pub(in crate::stack) enum Decision {
    /// Relay to the targets collected.
    Forward,
    /// The same, for a request within a dialog that shows no route of ours.
    Astray,
    /// Answer with 302 and the targets collected.
    Redirect,
    /// The request is for this server itself.
    Options,
    Register,
    /// A route drops it without an answer.
    Drop,
}

/// A route removes more from the Request-URI than there is.
const TOO_SHORT: Refusal = Refusal::new(484, "Too Short For The Route's Edits");

/// What the location service says, besides the targets.
#[derive(Default)]
struct Located {
    /// There is such an address-of-record.
    is_known: bool,
    /// Bindings that a SIPS request does not go to.
    insecure: usize,
    /// Bindings that name the address-of-record itself.
    lead_back: usize,
}

impl Turn<'_> {
    pub fn determine_targets(&mut self, request: &Request, targets: &mut TargetSet) -> Result<Decision, Refusal> {
        targets.clear();
        if let Some(flow) = request.relayed {
            return self.push_relayed(request, flow, targets);
        }
        // Inside a dialog that we let pass: the remote target, by the remaining route.
        if request.is_past_routes() {
            let per_call = request.dialog.per_call;
            // A phone that has opened a flow is reached by it, unless another proxy stands between (RFC 5626 §5.3).
            let flow = match request.next_route {
                None => self.flow_of_dialog(request),
                Some(_) => None,
            };
            let target = self.push_request_uri(request, targets);
            target.per_call = per_call.unwrap_or(self.core.settings.outgoing == Outgoing::PerCall);
            target.flow = flow;
            target.hop = request.node.map(|address| ConfHop { address, transport: Transport::Udp });
            if let Some(used) = request.dialog.trunk {
                let mut trunks = self.core.settings.routes.iter().filter_map(|route| route.trunk.as_ref());
                targets.trunk = trunks.find(|trunk| trunk.mark() == used.mark).cloned();
                targets.trunk_used = Some(used);
            }
            return Ok(Decision::Forward);
        }
        let settings = self.core.settings.clone();
        let mut routes = settings.routes.iter().zip(0..);
        if let Some((route, number)) = routes.find(|(route, _)| matches(route, request)) {
            targets.route = Some(number);
            targets.failover = route.failover.clone();
            targets.patience = route.patience;
            let decision = self.follow_route(route, request, targets);
            let outgoing = route.outgoing.unwrap_or(settings.outgoing);
            targets.set_per_call(outgoing == Outgoing::PerCall);
            return decision;
        }
        if request.stranded && (request.next_route.is_some() || !request.is_own) {
            return Err(Refusal::new(403, "Not The Target Of The Dialog"));
        }
        // A Route set that is not ours would make us relay for a stranger.
        if request.next_route.is_some() {
            return Err(Refusal::new(403, "Route Not Permitted"));
        }
        if !request.is_own {
            return Err(Refusal::new(404, "Not Our Domain"));
        }
        let redirect = settings.proxy.redirect;
        let decision = self.locate(request, redirect, targets);
        targets.set_per_call(settings.outgoing == Outgoing::PerCall);
        decision
    }

    /// By the flow on which the phone has come here, or not at all: the other server tries the rest (RFC 5626 §5.3).
    fn push_relayed(&mut self, request: &Request, flow: Flow, targets: &mut TargetSet) -> Result<Decision, Refusal> {
        if !self.core.peer_flows.is_alive(&flow) {
            return Err(Refusal::new(430, ""));
        }
        // The table gives the address of its server. Whoever forges that knows a token, which the servers alone do.
        self.core.sources.proved.note(self.now, request.flow.peer);
        let target = self.push_request_uri(request, targets);
        (target.flow, target.flow_only) = (Some(flow), true);
        (target.listener, target.source) = (Some(flow.listener), Some(flow.peer));
        Ok(Decision::Forward)
    }

    fn follow_route(&mut self, route: &Route, request: &Request, targets: &mut TargetSet) -> Result<Decision, Refusal> {
        match &route.action {
            Action::Relay(hops) => {
                if hops.is_empty() {
                    self.push_request_uri_by(route, request, targets)?;
                }
                for (number, hop) in (0..).zip(hops) {
                    let target = self.push_request_uri(request, targets);
                    (target.spare, target.number) = (number > 0, number);
                    target.weight = route.weights.get(usize::from(number)).copied().unwrap_or_default();
                    targets.lead_to(hop);
                }
                if !route.weights.is_empty() {
                    // All requests of a call use the same order, on any core.
                    let call_id = request.message.call_id().unwrap_or_default();
                    targets.order_by_weight(self.core.names.seed(call_id));
                }
                self.order_by_health(hops, targets);
                targets.trunk = route.trunk.clone();
                targets.edit(&route.edits).map_err(|_| TOO_SHORT)?;
                if route.edits.set_host.is_some() {
                    targets.lead_where_the_uri_says();
                }
                Ok(Decision::Forward)
            }
            Action::Location => {
                let redirect = self.core.settings.proxy.redirect;
                self.locate(request, redirect, targets)
            }
            Action::Redirect(uris) => {
                for uri in uris {
                    targets.push(uri, b"", 1000);
                }
                if targets.targets.is_empty() {
                    self.locate(request, true, targets)?;
                }
                Ok(Decision::Redirect)
            }
            Action::Reject(status) => Err(Refusal::new(*status, "")),
            Action::Drop => Ok(Decision::Drop),
        }
    }

    /// The request is for our domain: for the server itself, for the registrar, or for one of its users.
    fn locate(&mut self, request: &Request, redirect: bool, targets: &mut TargetSet) -> Result<Decision, Refusal> {
        let named = request.parsed.user.is_some_and(|user| !user.is_empty());
        match request.message.method() {
            Method::Register if self.core.settings.registrar.enabled => return Ok(Decision::Register),
            Method::Register => return Err(Refusal::new(403, "No Registrar Here")),
            Method::Options if !named => return Ok(Decision::Options),
            // For the server itself, which is only a proxy and registrar.
            Method::Other if !named => return Err(Refusal::new(501, "")),
            _ if !named => return Err(Refusal::new(404, "No User In Request-URI")),
            _ => {}
        }
        let located = self.look_up(request, redirect, targets);
        match (located.is_known, targets.targets.is_empty()) {
            // A user of ours whose phone is away exists all the same (§16.5).
            (false, _) if self.core.has_password(&request.parsed) => Err(Refusal::new(480, "")),
            (false, _) => Err(Refusal::new(404, "")),
            (true, true) if located.insecure > 0 => Err(Refusal::new(480, "").with(Extra::SipsNotAllowed)),
            (true, true) if located.lead_back > 0 => Err(Refusal::new(480, "Contact Leads Back To Itself")),
            (true, true) => Err(Refusal::new(480, "")),
            (true, false) => {
                targets.sort_by_q();
                if !redirect {
                    self.order_contacts_by_health(targets);
                }
                let is_within = request.message.to_tag().is_some() || request.message.method() == Method::Ack;
                let shows_dialog = request.trusted || request.stranded;
                Ok(match redirect {
                    _ if is_within && !shows_dialog => Decision::Astray,
                    true => Decision::Redirect,
                    false => Decision::Forward,
                })
            }
        }
    }

    /// Collects the bindings of the Request-URI's address-of-record as targets.
    fn look_up(&mut self, request: &Request, redirect: bool, targets: &mut TargetSet) -> Located {
        let core = &mut *self.core;
        core.aor.clear();
        request.parsed.write_address_of_record(&mut core.aor);
        // A SIPS request must not leave for a SIP contact (RFC 5630 §5.3).
        let secure = request.parsed.scheme == Scheme::Sips;
        let mut located = Located::default();
        let mut dead = 0;
        // Targets, by position, whose connection is gone and whose contact is the phone's end of it.
        let mut doubtful = 0u64;
        located.is_known = core.location.lookup(self.now, &core.aor, |binding| {
            if binding.leads_back {
                located.lead_back += 1;
                return;
            }
            let text = binding.text();
            let sips = is_sips(text.uri);
            if secure && !sips {
                located.insecure += 1;
                return;
            }
            // Only another server reaches the phone, which takes requests over UDP. If it is gone, so is the phone's connection.
            if let (Some((number, token)), false) = (binding.relay(), redirect) {
                let address = core.location.node(number).filter(|node| node.gone.is_none() && !sips).and_then(|node| node.relay);
                let path = address.map(|address| [b"<sip:", token, format!("@{address};lr>").as_bytes()].concat());
                match path.filter(|path| !core.lost_ways.contains(path, binding.cseq)) {
                    Some(path) => {
                        let target = targets.push(text.uri, &path, binding.q);
                        (target.by_operator, target.relayed) = (true, Some(binding.cseq));
                    }
                    None => dead += 1,
                }
                return;
            }
            let source = binding.source();
            let alive = source.filter(|flow| core.peer_flows.is_alive(flow));
            let flow = match binding.reached {
                Reached::ByContact => None,
                Reached::ByFlowFirst => {
                    if alive.is_none() && source.is_some_and(|flow| is_end_of(text.uri, &flow)) {
                        doubtful |= 1u64.checked_shl(targets.targets.len() as u32).unwrap_or(0);
                    }
                    alive
                }
                // The phone can be called again when it has registered by another connection.
                Reached::ByFlow if alive.is_none() && !redirect => {
                    dead += 1;
                    return;
                }
                Reached::ByFlow => alive,
            };
            // A SIP request stays one, but a contact registered as secure is called by TLS (RFC 5630 §5.3).
            let target = match sips && !secure && !redirect {
                true => targets.push_sip(text.uri, text.path, binding.q),
                false => targets.push(text.uri, text.path, binding.q),
            };
            target.secure = sips;
            target.flow = flow;
            target.flow_only = binding.reached == Reached::ByFlow && !redirect;
            target.source = source.map(|flow| flow.peer);
            target.listener = source.filter(|_| !binding.is_elsewhere()).map(|flow| flow.listener);
            target.by_operator = source.is_none();
            target.is_unsure = binding.is_unsure;
        });
        if doubtful != 0 && !redirect {
            dead += drop_doubtful(doubtful, targets);
        }
        core.counters.dead_flows += dead;
        located
    }
    /// The target of a route without any. Where the route names the host, neither a Route nor `maddr` leads elsewhere: whoever may take
    /// it may reach that host.
    fn push_request_uri_by(&mut self, route: &Route, request: &Request, targets: &mut TargetSet) -> Result<(), Refusal> {
        let uri = &request.parsed;
        let maddr = uri.maddr().filter(|maddr| !self.is_own_maddr(maddr, request)).map(Host::of);
        let names_host = route.to_host.is_some() || route.edits.set_host.is_some();
        if names_host {
            let next = request.next_route.map(|value| NameAddr::parse(value.text).and_then(|address| Uri::parse(address.uri)));
            let host_of_next = next.map(|uri| uri.map_or(Host::Name(b""), |uri| uri.maddr().map_or(uri.host, Host::of)));
            let is_elsewhere = |host: Host| match &route.edits.set_host {
                Some(_) => true,
                None => !is_same_host(uri.host, host),
            };
            if host_of_next.is_some_and(is_elsewhere) {
                return Err(Refusal::new(403, "Route Not Permitted"));
            }
            if maddr.is_some_and(is_elsewhere) {
                return Err(Refusal::new(403, "Maddr Not Permitted"));
            }
        }
        let target = self.push_request_uri(request, targets);
        (target.for_users, target.is_named) = (route.users_only, names_host);
        Ok(())
    }

    /// The Request-URI as a target. If `maddr` names us, and the request came by the port and transport that the URI names, those
    /// three are only our own address, and are removed (§16.4).
    pub fn push_request_uri<'t>(&self, request: &Request, targets: &'t mut TargetSet) -> &'t mut Target {
        let uri = &request.parsed;
        let strip = uri.maddr().is_some_and(|maddr| self.is_own_maddr(maddr, request));
        match strip {
            true => targets.push_without_maddr(uri),
            false => targets.push(request.uri, b"", 1000),
        }
    }

    fn is_own_maddr(&self, maddr: &[u8], request: &Request) -> bool {
        let uri = &request.parsed;
        let by = request.flow.transport;
        let listener = self.core.settings.listeners.get(usize::from(request.flow.listener));
        let port = uri.port.unwrap_or(by.default_port());
        transport_of(uri).is_ok_and(|named| named.unwrap_or(Transport::Udp) == by)
            && listener.is_some_and(|listener| listener.address.port() == port)
            && self.core.settings.is_own(maddr, Settings::ip(maddr), None)
    }
}

/// Removes the targets whose bits are set, if others are left, and returns how many: nothing listens there, unless the phone has
/// bound its port for both.
fn drop_doubtful(doubtful: u64, targets: &mut TargetSet) -> u64 {
    if doubtful.count_ones() as usize >= targets.targets.len() {
        return 0;
    }
    let mut position = 0u32;
    targets.targets.retain(|_| {
        position += 1;
        1u64.checked_shl(position - 1).is_none_or(|bit| doubtful & bit == 0)
    });
    u64::from(doubtful.count_ones())
}
