//! Where the next hop is and how it is reached (RFC 3261 §16.6 step 7): transport, address, listener and connection. Names are left
//! to [`super::locate`].

use crate::base::{Channel, Flow, Transport};
use crate::sip::{Scheme, Uri, same_name};
use crate::stack::health::Standing;
use crate::stack::hop_uri::{hop_query_of, is_sips, numeric, transport_of};
use crate::stack::peer_flows::set_host;
use crate::stack::proxy::Proxy;
use crate::stack::proxy::hop::{Hop, RequestCopy};
use crate::stack::proxy::locate::ServerAddress;
use crate::stack::proxy::target::{ConfHop, Target};
use crate::stack::refusal::{Extra, Obstacle, Refusal};
use crate::stack::request::Request;
use crate::stack::route::NextHop;
use crate::stack::transaction::table::introduce;
use crate::stack::turn::Turn;
use std::net::{IpAddr, SocketAddr};

/// The largest request that may go by UDP if the path's MTU is not known (§18.1.1).
pub const LARGEST_BY_UDP: usize = 1300;

/// A request for a SIPS URI must not leave by anything but TLS (RFC 5630 §5.3).
const DOWNGRADE: Refusal = Refusal::new(480, "SIPS Not Allowed").with(Extra::SipsNotAllowed);

/// What is decided about the way before its address is known.
#[derive(Clone, Copy)]
struct Course {
    /// Only TLS is allowed.
    secure: bool,
    /// The listener by which the request came, or is to leave.
    came_by: u16,
}

impl Proxy {
    /// Finds the next hop: the binding's or the dialog's flow, the conf's hop, the topmost Route, or the Request-URI. If that is a
    /// connection under a name, the name's text is left for [`Proxy::introduce`].
    pub fn next_hop(&mut self, turn: &mut Turn, request: &Request, copy: &RequestCopy) -> Result<Hop, Obstacle> {
        let target = copy.target;
        self.peer_host.clear();
        self.peer_identity = target.identity;
        // A SIPS Request-URI turns the URI of the next hop into a SIPS URI (§16.6 step 7).
        let secure = target.secure || is_sips(copy.uri);
        // A target that had to wait may have lost its connection meanwhile.
        let opened = target.flow.filter(|flow| turn.core.peer_flows.is_alive(flow));
        if target.flow_only && opened.is_none() {
            return Err(Refusal::new(480, "").into());
        }
        if let (Some(flow), true) = (opened, copy.path.is_empty()) {
            let flow = turn.fixed_flow(flow)?;
            return match secure && flow.transport != Transport::Tls {
                true => Err(DOWNGRADE.into()),
                false => Ok(Hop { flow, fixed: true, by_conf: false, server_address: None }),
            };
        }
        // The listener where a phone registered, or that the dialog's route names, is the one that reaches it.
        let came_by = target.listener.or(request.listener).unwrap_or(request.flow.listener);
        let course = Course { secure, came_by };
        let (flow, server_address) = match target.hop {
            Some(hop) => {
                let flow = self.flow_to_conf_hop(turn, request, copy, &hop, course)?;
                (flow, None)
            }
            None => {
                let uri = copy.next_uri(request);
                self.flow_to_uri(turn, request, copy, uri, course)?
            }
        };
        turn.check_reach(request, target, flow.peer)?;
        turn.check_guard(request, target, flow.peer, copy.search.since)?;
        if let (Some(uri), true) = (copy.hop_uri, server_address.is_some()) {
            turn.note_address_of_name(uri, flow.peer);
            turn.core.health.name_servers.note(uri, flow.transport, flow.peer);
        }
        if let Some(trunk) = copy.trunk {
            turn.look_at_carrier(trunk, copy.search.since);
        }
        Ok(Hop { flow, fixed: false, by_conf: target.is_by_conf(), server_address })
    }

    /// Gives the wires the name of the peer that [`Proxy::next_hop`] has found, before anything is sent to it.
    pub fn introduce(&self, turn: &mut Turn, hop: &Hop) {
        introduce(&hop.flow, &self.peer_host, self.peer_identity, turn.outbox);
    }

    /// §18.1.1: a message too large for UDP goes by TCP if UDP was only our own choice; to the same server. If no connection was
    /// had there of late, it goes by UDP at once, unless it `must` not.
    pub fn by_size(&mut self, turn: &mut Turn, request: &Request, copy: &RequestCopy, hop: &Hop, must: bool) -> Option<Hop> {
        if hop.fixed || copy.target.transport.is_some() {
            return None;
        }
        let by_tcp = Target { transport: Some(Transport::Tcp), server_address: hop.server_address, ..*copy.target };
        let copy = RequestCopy { target: &by_tcp, ..*copy };
        let hop = self.next_hop(turn, request, &copy).ok()?;
        let server = ServerAddress { address: hop.flow.peer, transport: Transport::Tcp };
        let standing = turn.core.health.standing(turn.now, &server.named_by(copy.target.named_by()));
        (hop.flow.transport == Transport::Tcp && (must || standing == Standing::Good)).then_some(hop)
    }

    fn flow_to_conf_hop(
        &mut self,
        turn: &mut Turn,
        request: &Request,
        copy: &RequestCopy,
        hop: &ConfHop,
        course: Course,
    ) -> Result<Flow, Refusal> {
        if course.secure && hop.transport != Transport::Tls {
            return Err(DOWNGRADE);
        }
        let transport = match copy.target.transport {
            Some(transport) if turn.is_open(hop) => transport,
            _ => hop.transport,
        };
        if transport == Transport::Tls {
            // The name comes with the target, not from the current conf, which may know others at this address.
            let uri = copy.hop_uri.and_then(|uri| Uri::parse(uri).ok());
            match uri {
                Some(uri) => set_host(uri.host_text, &mut self.peer_host),
                None => write_ip(hop.address.ip(), &mut self.peer_host),
            }
        }
        let listener = turn.core.settings.listener_towards(transport, hop.address, course.came_by).ok_or(no_listener(transport))?;
        Ok(self.flow_to(turn, request, copy.target, transport, listener, hop.address))
    }

    fn flow_to_uri(
        &mut self,
        turn: &mut Turn,
        request: &Request,
        copy: &RequestCopy,
        uri: &[u8],
        course: Course,
    ) -> Result<(Flow, Option<ServerAddress>), Obstacle> {
        let uri = Uri::parse(uri).map_err(|_| Refusal::new(503, "Next Hop Is Not A URI"))?;
        let secure = course.secure || uri.scheme == Scheme::Sips;
        let named = transport_of(&uri)?;
        let transport = match (secure, named) {
            (true, Some(Transport::Udp)) => return Err(DOWNGRADE.into()),
            (true, _) => Some(Transport::Tls),
            (false, None) => copy.target.transport,
            (false, named) => named,
        };
        let Some(peer) = numeric(&uri)? else {
            return self.flow_to_name(turn, request, copy, &uri, Course { secure, ..course });
        };
        let settings = &turn.core.settings;
        let found_by = |transport: Transport| {
            let peer = SocketAddr::new(peer, uri.port.unwrap_or(transport.default_port()));
            let listener = settings.listener_towards(transport, peer, course.came_by)?;
            Some((transport, listener, peer))
        };
        let (transport, listener, peer) = match transport {
            Some(transport) => found_by(transport).ok_or(no_listener(transport))?,
            // Without a UDP listener another transport is chosen.
            None => found_by(Transport::Udp)
                .or_else(|| found_by(Transport::Tcp))
                .or_else(|| found_by(Transport::Tls))
                .ok_or(no_listener(Transport::Udp))?,
        };
        if transport == Transport::Tls {
            self.expect_host_at(turn, request, copy, &uri, peer);
        }
        let flow = self.flow_to(turn, request, copy.target, transport, listener, peer);
        Ok((flow, None))
    }

    /// Which name the server at this address must prove over TLS, and which certificate it is shown.
    fn expect_host_at(&mut self, turn: &mut Turn, request: &Request, copy: &RequestCopy, uri: &Uri, peer: SocketAddr) {
        let name = request.dialog.name;
        let settings = turn.core.settings.clone();
        // The address of a next hop whose name the conf knows, for example from a Route that the hop recorded. If there are
        // several, the one that the dialog began with.
        let mut there = settings.routes.hops().filter(|conf| uri.host.ip().is_some() && turn.is_at(conf, peer));
        let first = there.next();
        let conf = match name {
            Some(name) => first
                .into_iter()
                .chain(there)
                .find(|conf| turn.core.peer_flows.name(&mut conf.host.clone(), conf.identity) == name)
                .or(first),
            None => first,
        };
        let host = conf.map_or(uri.host_text, |conf| &conf.host);
        set_host(host, &mut self.peer_host);
        if copy.target.hop_uri.is_none() {
            self.peer_identity = match conf {
                Some(conf) => conf.identity,
                None => turn.identity_for(host, name),
            };
        }
    }

    /// RFC 3263: the host is a name. Its certificate must prove this name, not those that the records lead to (RFC 5922 §4).
    fn flow_to_name(
        &mut self,
        turn: &mut Turn,
        request: &Request,
        copy: &RequestCopy,
        uri: &Uri,
        course: Course,
    ) -> Result<(Flow, Option<ServerAddress>), Obstacle> {
        let target = copy.target;
        let server_address = match target.server_address {
            Some(server_address) => server_address,
            None => {
                let call_id = request.message.call_id().unwrap_or_default();
                let asked_by = turn.asked_by(request, target);
                turn.find_server_address(&hop_query_of(uri, course.secure), call_id, copy.search, target.named_by(), asked_by)?
            }
        };
        // If nothing else chooses, the message's size does (§18.1.1).
        let transport = match target.transport {
            Some(transport) if !course.secure && uri.transport().is_none() => transport,
            _ => server_address.transport,
        };
        let peer = server_address.address;
        let listener = turn.core.settings.listener_towards(transport, peer, course.came_by).ok_or(no_listener(transport))?;
        if transport == Transport::Tls {
            let host = uri.host_text;
            set_host(host.strip_suffix(b".").unwrap_or(host), &mut self.peer_host);
            if target.hop_uri.is_none() {
                self.peer_identity = turn.identity_for(host, request.dialog.name);
            }
        }
        let flow = self.flow_to(turn, request, target, transport, listener, peer);
        Ok((flow, Some(server_address)))
    }

    fn flow_to(
        &mut self,
        turn: &mut Turn,
        request: &Request,
        target: &Target,
        transport: Transport,
        listener: u16,
        peer: SocketAddr,
    ) -> Flow {
        if transport == Transport::Udp {
            return Flow::datagram(listener, peer);
        }
        let call = match target.per_call {
            true => turn.core.peer_flows.call(request.message.call_id().unwrap_or_default()),
            false => 0,
        };
        let (host, identity) = (&mut self.peer_host, self.peer_identity);
        turn.core.peer_flows.towards(transport, listener, peer, host, identity, call)
    }
}

impl Turn<'_> {
    /// On whose account the target's name is looked up: the address that a binding was registered from, or the sender of the
    /// request.
    fn asked_by(&self, request: &Request, target: &Target) -> Option<IpAddr> {
        let by = target.source.unwrap_or(request.flow.peer).ip();
        let is_free = target.is_by_conf() || target.by_operator || self.core.settings.is_trusted(by);
        (!is_free).then_some(by)
    }

    /// The flow that a phone has opened. A NAT lets in only what comes from the address that the phone has sent to.
    fn fixed_flow(&self, flow: Flow) -> Result<Flow, Refusal> {
        let settings = &self.core.settings;
        let listener = settings.listener_towards(flow.transport, flow.peer, flow.listener).ok_or(no_listener(flow.transport))?;
        if listener == flow.listener {
            return Ok(flow);
        }
        Ok(Flow { listener, ..flow }.from_local(None))
    }

    /// True if the conf's URI for this hop leaves the transport open (RFC 3263 §4.1): UDP is then our choice, and TCP is possible.
    fn is_open(&self, hop: &ConfHop) -> bool {
        let conf = self.core.settings.routes.hops().find(|conf| hop.is(conf));
        hop.transport == Transport::Udp && conf.is_some_and(NextHop::leaves_transport_open)
    }

    /// The certificate shown to a host that the conf knows by name as a next hop, as in the Route of a dialog. If there are
    /// several, that of the one that the dialog began with.
    fn identity_for(&self, host: &[u8], name: Option<u64>) -> u64 {
        let mut named = self.core.settings.routes.hops().filter(|conf| same_name(&conf.host, host));
        let begun = |conf: &NextHop| Some(self.core.peer_flows.name(&mut conf.host.clone(), conf.identity));
        let first = named.next();
        let chosen = match name {
            Some(_) => first.into_iter().chain(named).find(|conf| begun(conf) == name),
            None => None,
        };
        chosen.or(first).map_or(0, |conf| conf.identity)
    }

    /// True if the conf has next hops of more than one name at this address over TLS, or some that are shown different
    /// certificates.
    pub fn shares_address(&self, peer: SocketAddr) -> bool {
        let mut there =
            self.core.settings.routes.hops().filter(|conf| self.is_at(conf, peer)).map(|conf| (&conf.host, conf.identity));
        let first = there.next();
        there.any(|other| Some(other) != first)
    }

    /// True if a next hop of the conf is reached at this address over TLS, as far as is known.
    fn is_at(&self, conf: &NextHop, peer: SocketAddr) -> bool {
        let transport = Transport::Tls;
        match conf.address {
            Some(address) => conf.transport == transport && address == peer,
            None => {
                let (uri, address) = (conf.uri.uri(), peer);
                let server_address = ServerAddress { address, transport };
                self.leads_to(&hop_query_of(&uri, uri.scheme == Scheme::Sips), |one| one == server_address)
            }
        }
    }
}

/// Whether the flow is a connection dedicated to the call.
pub fn is_per_call(flow: &Flow) -> bool {
    matches!(flow.channel, Channel::Peer { call, .. } if call != 0)
}

fn no_listener(transport: Transport) -> Refusal {
    Refusal::new(
        503,
        match transport {
            Transport::Udp => "No UDP Listener For The Next Hop's Family",
            Transport::Tcp => "No TCP Listener For The Next Hop's Family",
            Transport::Tls => "No TLS Listener For The Next Hop's Family",
        },
    )
}

fn write_ip(ip: IpAddr, out: &mut Vec<u8>) {
    use std::io::Write;
    drop(write!(out, "{ip}"));
}
