//! Where the next hop is and which way leads there (RFC 3261 §16.6 step 7): transport, address, the listener that speaks for us, and
//! the connection. Names are [`super::locate`]'s.

use super::locate::{Search, ServerAddress};
use super::target::{ConfHop, Target};
use crate::base::{Channel, Flow, Outbox, Transport};
use crate::sip::{Message, NameAddr, Scheme, Uri, same_name};
use crate::stack::Endpoint;
use crate::stack::hop_uri::{hop_query_of, is_sips, numeric, transport_of};
use crate::stack::peer_flows::set_host;
use crate::stack::refusal::{Extra, Obstacle, Refusal};
use crate::stack::request::Request;
use crate::stack::route::NextHop;
use crate::stack::transaction::table::introduce;
use std::net::{IpAddr, SocketAddr};

/// The way of one copy.
#[derive(Clone, Copy, Debug)]
pub struct Hop {
    pub flow: Flow,
    /// The phone itself has opened this way, and no other may lead to it: the requests of the dialog must take it too.
    pub fixed: bool,
    /// The conf says that the request goes there.
    pub by_conf: bool,
    /// Where the next hop's name has led, if it is one.
    pub place: Option<ServerAddress>,
}

/// The largest request that may go by UDP where the path's MTU is not known (§18.1.1).
pub const LARGEST_BY_UDP: usize = 1300;

/// A request for a SIPS URI must not leave by anything but TLS (RFC 5630 §5.3).
const DOWNGRADE: Refusal = Refusal::new(480, "SIPS Not Allowed").with(Extra::SipsNotAllowed);

impl Endpoint {
    /// The binding's or the dialog's flow, the conf's hop, the topmost Route, or the Request-URI. Where that is a connection
    /// under a name, the name's text is left for [`Endpoint::introduce`]. `hop_uri` is the text of the target's own.
    #[allow(clippy::too_many_arguments)]
    pub(in crate::stack) fn next_hop(
        &mut self,
        message: &Message,
        incoming: &Request,
        target: &Target,
        uri: &[u8],
        path: &[u8],
        hop_uri: Option<&[u8]>,
        search: Search,
        outbox: &mut Outbox,
    ) -> Result<Hop, Obstacle> {
        self.peer_host.clear();
        self.peer_identity = target.identity;
        // A SIPS Request-URI makes a SIPS URI of whatever names the next hop (§16.6 step 7).
        let secure = target.secure || is_sips(uri);
        // A target that had to wait may have lost its connection since it was found.
        let opened = target.flow.filter(|flow| self.ways.is_alive(flow));
        if target.flow_only && opened.is_none() {
            return Err(Refusal::new(480, "").into());
        }
        if let (Some(flow), true) = (opened, path.is_empty()) {
            let flow = self.fixed_flow(flow)?;
            return match secure && flow.transport != Transport::Tls {
                true => Err(DOWNGRADE.into()),
                false => Ok(Hop {
                    flow,
                    fixed: true,
                    by_conf: false,
                    place: None,
                }),
            };
        }
        // The listener where a phone registered, or which the dialog's route names, is the one that reaches it.
        let came_by = target.listener.or(incoming.listener).unwrap_or(incoming.flow.listener);
        let search = Search {
            asked_by: self.asked_by(incoming, target),
            ..search
        };
        let (flow, place) = match target.hop {
            Some(hop) => {
                let flow = self.way_to_conf_hop(message, target, &hop, hop_uri, secure, came_by)?;
                (flow, None)
            }
            None => {
                let hop = uri_of(incoming, uri, path, hop_uri);
                let name = incoming.dialog.name;
                self.way_to_uri(message, target, hop, name, secure, came_by, search, outbox)?
            }
        };
        self.check_reach(incoming, target, flow.peer)?;
        self.check_guard(incoming, target, flow.peer, search, outbox)?;
        if let (Some(uri), true) = (hop_uri, place.is_some()) {
            self.note_place(uri, flow.peer);
        }
        Ok(Hop {
            flow,
            fixed: false,
            by_conf: target.is_by_conf(),
            place,
        })
    }

    /// Because of whom the target's name is asked for: of where a binding was registered from, or of whoever sent the request.
    fn asked_by(&self, incoming: &Request, target: &Target) -> Option<IpAddr> {
        let by = target.source.unwrap_or(incoming.flow.peer).ip();
        let is_free = target.is_by_conf() || target.by_operator || self.settings.is_trusted(by);
        (!is_free).then_some(by)
    }

    /// Tells the wires who the peer is that [`Endpoint::next_hop`] has found, before something is sent there.
    pub(in crate::stack) fn introduce(&self, hop: &Hop, outbox: &mut Outbox) {
        introduce(&hop.flow, &self.peer_host, self.peer_identity, outbox);
    }

    /// The way that a phone has opened. A NAT lets in only what comes from the address that the phone has sent to.
    fn fixed_flow(&self, flow: Flow) -> Result<Flow, Refusal> {
        let settings = &self.settings;
        let listener = settings
            .listener_towards(flow.transport, flow.peer, flow.listener)
            .ok_or(no_listener(flow.transport))?;
        if listener == flow.listener {
            return Ok(flow);
        }
        Ok(Flow { listener, ..flow }.from_local(None))
    }

    /// §18.1.1: what is too large for UDP goes by TCP, where nothing but our own choice speaks for UDP; to the same server.
    #[allow(clippy::too_many_arguments)]
    pub(in crate::stack) fn by_size(
        &mut self,
        message: &Message,
        incoming: &Request,
        target: &Target,
        uri: &[u8],
        path: &[u8],
        hop_uri: Option<&[u8]>,
        hop: &Hop,
        search: Search,
        outbox: &mut Outbox,
    ) -> Option<Hop> {
        if hop.fixed || target.transport.is_some() {
            return None;
        }
        let by_tcp = Target {
            transport: Some(Transport::Tcp),
            place: hop.place,
            ..*target
        };
        let hop = self
            .next_hop(message, incoming, &by_tcp, uri, path, hop_uri, search, outbox)
            .ok()?;
        (hop.flow.transport == Transport::Tcp).then_some(hop)
    }

    fn way_to_conf_hop(
        &mut self,
        message: &Message,
        target: &Target,
        hop: &ConfHop,
        hop_uri: Option<&[u8]>,
        secure: bool,
        came_by: u16,
    ) -> Result<Flow, Refusal> {
        if secure && hop.transport != Transport::Tls {
            return Err(DOWNGRADE);
        }
        let transport = match target.transport {
            Some(transport) if self.is_open(hop) => transport,
            _ => hop.transport,
        };
        if transport == Transport::Tls {
            // The name comes with the target, not from the conf of now, which may know others at this address.
            let uri = hop_uri.and_then(|uri| Uri::parse(uri).ok());
            match uri {
                Some(uri) => set_host(uri.host_text, &mut self.peer_host),
                None => write_ip(hop.address.ip(), &mut self.peer_host),
            }
        }
        let listener = self
            .settings
            .listener_towards(transport, hop.address, came_by)
            .ok_or(no_listener(transport))?;
        Ok(self.way(message, target, transport, listener, hop.address))
    }

    /// True when the conf's URI for this hop leaves the transport open (RFC 3263 §4.1): UDP is then a choice, and TCP another.
    fn is_open(&self, hop: &ConfHop) -> bool {
        let conf = self.settings.routes.hops().find(|conf| hop.is(conf));
        hop.transport == Transport::Udp && conf.is_some_and(NextHop::leaves_transport_open)
    }

    #[allow(clippy::too_many_arguments)]
    fn way_to_uri(
        &mut self,
        message: &Message,
        target: &Target,
        uri: &[u8],
        name: Option<u64>,
        secure: bool,
        came_by: u16,
        search: Search,
        outbox: &mut Outbox,
    ) -> Result<(Flow, Option<ServerAddress>), Obstacle> {
        let uri = Uri::parse(uri).map_err(|_| Refusal::new(503, "Next Hop Is Not A URI"))?;
        let secure = secure || uri.scheme == Scheme::Sips;
        let named = transport_of(&uri)?;
        let transport = match (secure, named) {
            (true, Some(Transport::Udp)) => return Err(DOWNGRADE.into()),
            (true, _) => Some(Transport::Tls),
            (false, None) => target.transport,
            (false, named) => named,
        };
        let Some(peer) = numeric(&uri)? else {
            return self.way_to_name(message, target, &uri, name, secure, came_by, search, outbox);
        };
        let settings = &self.settings;
        let way = |transport: Transport| {
            let peer = SocketAddr::new(peer, uri.port.unwrap_or(transport.default_port()));
            let listener = settings.listener_towards(transport, peer, came_by)?;
            Some((transport, listener, peer))
        };
        let (transport, listener, peer) = match transport {
            Some(transport) => way(transport).ok_or(no_listener(transport))?,
            // Who speaks no UDP has another choice.
            None => way(Transport::Udp)
                .or_else(|| way(Transport::Tcp))
                .or_else(|| way(Transport::Tls))
                .ok_or(no_listener(Transport::Udp))?,
        };
        if transport == Transport::Tls {
            let settings = self.settings.clone();
            // An address of a next hop whose name the conf knows: what that hop recorded as its Route, for one. Of several there, the
            // one that the dialog has begun with.
            let mut there = settings
                .routes
                .hops()
                .filter(|conf| uri.host.ip().is_some() && self.is_at(conf, peer));
            let first = there.next();
            let conf = match name {
                Some(name) => first
                    .into_iter()
                    .chain(there)
                    .find(|conf| self.ways.name(&mut conf.host.clone(), conf.identity) == name)
                    .or(first),
                None => first,
            };
            let host = conf.map_or(uri.host_text, |conf| &conf.host);
            set_host(host, &mut self.peer_host);
            if target.hop_uri.is_none() {
                self.peer_identity = match conf {
                    Some(conf) => conf.identity,
                    None => self.identity_for(host, name),
                };
            }
        }
        let flow = self.way(message, target, transport, listener, peer);
        Ok((flow, None))
    }

    /// RFC 3263: the host is a name. Its certificate must prove this name, not those that the records lead to (RFC 5922 §4).
    #[allow(clippy::too_many_arguments)]
    fn way_to_name(
        &mut self,
        message: &Message,
        target: &Target,
        uri: &Uri,
        name: Option<u64>,
        secure: bool,
        came_by: u16,
        search: Search,
        outbox: &mut Outbox,
    ) -> Result<(Flow, Option<ServerAddress>), Obstacle> {
        let place = match target.place {
            Some(place) => place,
            None => {
                let call_id = message.call_id().unwrap_or_default();
                self.find_place(&hop_query_of(uri, secure), call_id, search, outbox)?
            }
        };
        // Where nothing else chooses, the message's size does (§18.1.1).
        let transport = match target.transport {
            Some(transport) if !secure && uri.transport().is_none() => transport,
            _ => place.transport,
        };
        let peer = place.address;
        let listener = self
            .settings
            .listener_towards(transport, peer, came_by)
            .ok_or(no_listener(transport))?;
        if transport == Transport::Tls {
            let host = uri.host_text;
            set_host(host.strip_suffix(b".").unwrap_or(host), &mut self.peer_host);
            if target.hop_uri.is_none() {
                self.peer_identity = self.identity_for(host, name);
            }
        }
        let flow = self.way(message, target, transport, listener, peer);
        Ok((flow, Some(place)))
    }

    /// The certificate that a host is shown which the conf knows as a next hop, by its name as in the Route of a dialog. Of several the one
    /// that the dialog has begun with.
    fn identity_for(&self, host: &[u8], name: Option<u64>) -> u64 {
        let mut named = self.settings.routes.hops().filter(|conf| same_name(&conf.host, host));
        let begun = |conf: &NextHop| Some(self.ways.name(&mut conf.host.clone(), conf.identity));
        let first = named.next();
        let chosen = match name {
            Some(_) => first.into_iter().chain(named).find(|conf| begun(conf) == name),
            None => None,
        };
        chosen.or(first).map_or(0, |conf| conf.identity)
    }

    /// True when the conf has next hops of more than one name at this address over TLS, or that are shown different certificates.
    pub(super) fn shares_address(&self, peer: SocketAddr) -> bool {
        let mut there = self
            .settings
            .routes
            .hops()
            .filter(|conf| self.is_at(conf, peer))
            .map(|conf| (&conf.host, conf.identity));
        let first = there.next();
        there.any(|other| Some(other) != first)
    }

    /// True when the conf's next hop is reached at this address over TLS, as far as is known.
    fn is_at(&self, conf: &NextHop, peer: SocketAddr) -> bool {
        let transport = Transport::Tls;
        match conf.address {
            Some(address) => conf.transport == transport && address == peer,
            None => {
                let (uri, address) = (conf.uri.uri(), peer);
                let place = ServerAddress { address, transport };
                self.leads_to(&hop_query_of(&uri, uri.scheme == Scheme::Sips), |one| one == place)
            }
        }
    }

    fn way(&mut self, message: &Message, target: &Target, transport: Transport, listener: u16, peer: SocketAddr) -> Flow {
        if transport == Transport::Udp {
            return Flow::datagram(listener, peer);
        }
        let call = match target.per_call {
            true => self.ways.call(message.call_id().unwrap_or_default()),
            false => 0,
        };
        let (host, identity) = (&mut self.peer_host, self.peer_identity);
        self.ways.towards(transport, listener, peer, host, identity, call)
    }
}

/// Whether the flow is a connection that the call has to itself.
pub fn is_per_call(flow: &Flow) -> bool {
    matches!(flow.channel, Channel::Peer { call, .. } if call != 0)
}

/// The URI that names the next hop: the conf's, the topmost Route's, or the new Request-URI.
pub fn uri_of<'a>(incoming: &Request<'a>, uri: &'a [u8], path: &'a [u8], hop_uri: Option<&'a [u8]>) -> &'a [u8] {
    if let Some(uri) = hop_uri {
        return uri;
    }
    match first_route(incoming, path) {
        Some(route) => NameAddr::parse(route).map_or(route, |address| address.uri),
        None => uri,
    }
}

/// The Route value that the forwarded request will have on top.
pub fn first_route<'a>(incoming: &Request<'a>, path: &'a [u8]) -> Option<&'a [u8]> {
    if path.is_empty() {
        return incoming.next_route.map(|value| value.text);
    }
    Some(&path[..first_value_len(path)])
}

/// Where the first value of a comma list ends.
pub fn first_value_len(list: &[u8]) -> usize {
    let (mut quoted, mut angle, mut escaped) = (false, false, false);
    for (at, byte) in list.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'<' if !quoted => angle = true,
            b'>' if !quoted => angle = false,
            b',' if !quoted && !angle => return at,
            _ => {}
        }
    }
    list.len()
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
