//! What the proxy learns about the health of next hops, and how it uses that to order the targets of a route.

use crate::base::{Flow, Instant, Transport};
use crate::settings::Fork;
use crate::sip::{Message, Name, Scheme, Uri};
use crate::stack::health::{Cause, Failure, NamedBy, Neighbour, Standing};
use crate::stack::hop_uri::{hop_query_of, numeric, transport_of};
use crate::stack::proxy::context::Context;
use crate::stack::proxy::guard::is_same_machine;
use crate::stack::proxy::locate::ServerAddress;
use crate::stack::proxy::target::{Target, TargetSet};
use crate::stack::route::NextHop;
use crate::stack::transaction::{Client, ClientKind, Hope};
use crate::stack::trunk::Trunk;
use crate::stack::turn::Turn;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

impl Turn<'_> {
    /// A response has come with a branch of ours, which only a host that receives what is sent to `neighbour` can know.
    #[inline]
    pub fn note_source(&mut self, neighbour: Neighbour, flow: &Flow, message: &Message) {
        // Some gateways answer from another port. Whoever is further down the path sees the branch too, but not by that address.
        if neighbour.address.ip() != flow.peer.ip() {
            return;
        }
        if message.status() >= 200 && neighbour.address == flow.peer {
            self.core.sources.proved.note(self.now, flow.peer);
        }
        if neighbour.transport == flow.transport {
            self.note_response(neighbour, message);
        }
    }

    #[inline]
    fn note_response(&mut self, neighbour: Neighbour, message: &Message) {
        if message.status() == 503 {
            let asked_s = message.number(Name::RetryAfter).ok().flatten();
            return self.note_failure(neighbour, Cause::Unavailable, asked_s.map(|s| u64::from(s) * 1000));
        }
        self.note_alive(neighbour);
    }

    /// A next hop has answered.
    #[inline]
    pub fn note_alive(&mut self, neighbour: Neighbour) {
        if let Some(failure) = self.core.health.note_answer(self.now, &neighbour) {
            self.log_recovery(&neighbour, &failure);
        }
    }

    /// The network reports that the request has not arrived, or that there is no connection for it.
    pub fn note_undelivered(&mut self, client: &Client) {
        if client.kind == ClientKind::Cancel {
            return;
        }
        let cause = match client.flow.transport {
            Transport::Udp => Cause::Unreachable,
            Transport::Tcp | Transport::Tls => Cause::NoConnection,
        };
        self.note_failure(client.neighbour(), cause, None);
    }

    /// A next hop has failed; `asked_ms` is how long it asks to be left alone, if it says so.
    pub fn note_failure(&mut self, neighbour: Neighbour, cause: Cause, asked_ms: Option<u64>) {
        let retry_ms = self.core.settings.next_hop.retry;
        let health = &self.core.health;
        if let Some(for_ms) = health.note_failure(self.now, neighbour, cause, retry_ms, asked_ms) {
            self.log_failure(&neighbour, format_args!("{}", cause.words()), for_ms);
        }
    }

    /// A branch has timed out (§16.8). If patience has not ended before, possibly nothing was heard of its next hop at all.
    pub fn note_time_out(&mut self, client: &Client) {
        let neighbour = client.neighbour();
        let is_cancelled = client.cancel.is_some();
        if client.hope == Hope::Awaited && !is_cancelled && !self.core.health.has_answered_since(client.sent_at, &neighbour) {
            self.note_silence(neighbour, client.sent_at);
        }
    }

    /// Nothing has come from a next hop since `sent_at`, when a request left for it.
    pub fn note_silence(&mut self, neighbour: Neighbour, sent_at: Instant) {
        let retry_ms = self.core.settings.next_hop.retry;
        let (health, cause) = (&self.core.health, Cause::NoResponse);
        if let Some(for_ms) = health.note_failure(self.now, neighbour, cause, retry_ms, None) {
            let waited = Seconds(self.now.ms_since(sent_at));
            self.log_failure(&neighbour, format_args!("{} in {waited}", cause.words()), for_ms);
        }
    }

    fn log_failure(&mut self, neighbour: &Neighbour, why: fmt::Arguments<'_>, for_ms: u64) {
        if self.core.health_log.may_say() {
            let hop = self.describe(neighbour);
            // A phone that is switched off is not worth a warning.
            let level = match neighbour.named_by {
                NamedBy::Conf => log::Level::Warn,
                NamedBy::Contact | NamedBy::Message => log::Level::Info,
            };
            log::log!(level, "{hop} has failed: {why}; passed over for {}", Seconds(for_ms));
        }
    }

    fn log_recovery(&mut self, neighbour: &Neighbour, failure: &Failure) {
        if self.core.health_log.may_say() {
            let after_ms = self.now.ms_since(failure.since);
            log::info!("{} answers again after {}", self.describe(neighbour), Seconds(after_ms));
        }
    }

    /// `next hop 192.0.2.1:5060 over UDP (target of [[route]] 2)`.
    fn describe(&self, neighbour: &Neighbour) -> String {
        let (address, transport) = (neighbour.address, neighbour.transport.name());
        let whose = match neighbour.named_by {
            NamedBy::Conf => {
                // A large request goes over a connection, whatever its target says.
                let exactly = self.route_to(|server| (server.address, server.transport) == (address, neighbour.transport));
                match exactly.or_else(|| self.route_to(|server| server.address == address)) {
                    Some(number) => format!("target of [[route]] {}", number + 1),
                    None => match self.trunk_of(address) {
                        Some(name) => format!("registrar of trunk {name:?}"),
                        None => "target of a [[route]]".to_owned(),
                    },
                }
            }
            NamedBy::Contact => "contact of a registration".to_owned(),
            NamedBy::Message => "named by a request".to_owned(),
        };
        format!("next hop {address} over {transport} ({whose})")
    }

    /// The first route with a next hop for one of whose servers `is` holds.
    fn route_to(&self, is: impl Fn(ServerAddress) -> bool) -> Option<usize> {
        let mut routes = self.core.settings.routes.iter();
        routes.position(|route| route.hops().iter().any(|hop| self.leads_there(hop, &is)))
    }

    fn trunk_of(&self, address: SocketAddr) -> Option<&str> {
        let is_its = |trunk: &&Arc<Trunk>| self.leads_there(&trunk.registrar, |server| server.address == address);
        self.core.settings.trunks.iter().find(is_its).map(|trunk| &*trunk.name)
    }

    /// Whether a target of one of the trunk's routes, or its registrar, is on that machine, or its name has led there since the server began, as far as this
    /// core has seen it.
    pub fn is_at_carrier(&self, trunk: &Trunk, peer: SocketAddr) -> bool {
        let is_there = |place: SocketAddr| is_same_machine(place, peer);
        let mut places = self.core.settings.hops_of(trunk).chain([&trunk.registrar]);
        places.any(|hop| match hop.address {
            Some(address) => is_there(address),
            None => self.core.gates.has_led(hop.uri.text(), is_there) || self.any_server(hop, |server| is_there(server.address)),
        })
    }

    fn leads_there(&self, hop: &NextHop, is: impl Fn(ServerAddress) -> bool) -> bool {
        match hop.address {
            Some(address) => is(ServerAddress { address, transport: hop.transport }),
            None => self.any_server(hop, is),
        }
    }

    /// Whether `is` holds of one of the servers that the name of a next hop leads to, as far as they are known.
    fn any_server(&self, hop: &NextHop, is: impl FnMut(ServerAddress) -> bool) -> bool {
        let uri = hop.uri.uri();
        self.leads_to(&hop_query_of(&uri, uri.scheme == Scheme::Sips), is)
    }

    /// Whether a next hop of the conf should be tried before others. One given by a domain name has failed if all of its servers
    /// have.
    fn standing_of(&self, hop: &NextHop) -> Standing {
        let address = hop.address.map(|address| ServerAddress { address, transport: hop.transport });
        self.standing_of_hop(address, || Some(hop.uri.uri()))
    }

    /// The same of a next hop with an address, or with a name in its URI.
    fn standing_of_hop<'u>(&self, address: Option<ServerAddress>, uri: impl FnOnce() -> Option<Uri<'u>>) -> Standing {
        let (health, now) = (&self.core.health, self.now);
        let standing = |server: ServerAddress| health.standing(now, &server.named_by(NamedBy::Conf));
        if let Some(address) = address {
            return standing(address);
        }
        let Some(uri) = uri() else {
            return Standing::Good;
        };
        let mut longest_ago = None;
        let is_well = |server| match standing(server) {
            Standing::Good => true,
            Standing::Failed(last) => {
                longest_ago = longest_ago.into_iter().chain([last]).min();
                false
            }
        };
        let query = hop_query_of(&uri, uri.scheme == Scheme::Sips);
        match (self.leads_to(&query, is_well), longest_ago) {
            (false, Some(last)) => Standing::Failed(last),
            _ => Standing::Good,
        }
    }

    /// Orders the targets of a route, which are its next hops: healthy ones first, in their given order, then those that have
    /// failed, the least recently failed first. None is dropped, whatever its health.
    pub fn order_by_health(&self, hops: &[NextHop], targets: &mut TargetSet) {
        if self.core.health.is_all_well() {
            return;
        }
        // Another core may change what is known meanwhile, so it is read only once.
        targets.targets.sort_by_cached_key(|target| match hops.get(usize::from(target.number)) {
            Some(hop) => self.standing_of(hop),
            None => Standing::Good,
        });
        targets.mark_spares();
    }

    /// Orders the spares that are left when one has failed: by what is known now, so that what has just failed is not asked again
    /// before others under another name.
    pub fn order_spares_by_health(&self, context: &mut Context) {
        let next = context.next_target;
        let TargetSet { text, targets, .. } = &mut context.targets;
        let Some(rest) = targets.get_mut(next..).filter(|rest| rest.len() > 1 && rest.iter().all(|target| target.spare)) else {
            return;
        };
        rest.sort_by_cached_key(|target| {
            let address = target.hop.map(|hop| ServerAddress { address: hop.address, transport: hop.transport });
            self.standing_of_hop(address, || Uri::parse(text.get(target.hop_uri?.range())?).ok())
        });
    }

    /// Orders contacts that are tried one after the other: those that have failed after all others, whatever their q, the least
    /// recently failed first. In parallel a failed one holds nobody up.
    pub fn order_contacts_by_health(&self, targets: &mut TargetSet) {
        if self.core.health.is_all_well() || self.core.settings.proxy.fork != Fork::Sequential {
            return;
        }
        let TargetSet { text, targets, .. } = targets;
        targets.sort_by_cached_key(|target| match address_of(target, text) {
            Some(server) => self.core.health.standing(self.now, &server.named_by(target.named_by())),
            None => Standing::Good,
        });
    }
}

/// Where a contact is reached, if that is known without a question about a name: its flow, or the address in its URI.
fn address_of(target: &Target, text: &[u8]) -> Option<ServerAddress> {
    if let Some(flow) = target.flow {
        return Some(ServerAddress { address: flow.peer, transport: flow.transport });
    }
    // A Path leads elsewhere first.
    if !target.path.is_empty() {
        return None;
    }
    let uri = Uri::parse(text.get(target.uri.range())?).ok()?;
    let ip = numeric(&uri).ok()??;
    let plain = if target.secure { Transport::Tls } else { Transport::Udp };
    let transport = transport_of(&uri).ok()?.unwrap_or(plain);
    let address = (ip, uri.port.unwrap_or(transport.default_port())).into();
    Some(ServerAddress { address, transport })
}

/// `4 s`, `0.5 s`.
pub struct Seconds(pub u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seconds(ms) = self;
        match ms {
            0..10_000 => write!(f, "{} s", (ms / 100) as f64 / 10.0),
            _ => write!(f, "{} s", ms / 1000),
        }
    }
}
