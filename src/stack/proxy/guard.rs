//! Next hops reserved for our users: the targets of a `[[route]]` with `from = "users"` cannot be reached any other way. A binding
//! may name such a place as its contact or Path, the other side of a dialog may claim to be there, and a route without targets
//! follows the Request-URI: none of these has proved to be a user who wants to go there.

use crate::base::{Instant, Transport};
use crate::sip::Uri;
use crate::stack::gates::Gate;
use crate::stack::hop_uri::{HopQuery, hop_query_of, is_sips};
use crate::stack::proxy::target::Target;
use crate::stack::refusal::{Obstacle, Refusal};
use crate::stack::request::Request;
use crate::stack::route::NextHop;
use crate::stack::trunk::Trunk;
use crate::stack::turn::Turn;
use std::net::SocketAddr;

const FOR_USERS: Refusal = Refusal::new(403, "Next Hop Is For Our Users Only");
/// A request for a place that may be one of these waits until that is known.
const NOT_KNOWN: Refusal = Refusal::new(503, "Next Hop For Our Users Only Has No Known Address");

impl Turn<'_> {
    /// Whether this target of the request may lead to `peer`. Asks for the names of guarded next hops if they are not known.
    pub fn check_guard(&mut self, request: &Request, target: &Target, peer: SocketAddr, since: Instant) -> Result<(), Obstacle> {
        let is_free = target.is_by_conf() || target.for_users;
        let is_within = request.trusted && request.dialog.guarded;
        if is_free || is_within || !self.core.settings.guards() {
            return Ok(());
        }
        // Our own listeners are never among them, whatever the names turn out to be.
        if self.core.settings.is_own_address(peer.ip(), Some(peer.port())) {
            return Ok(());
        }
        // The address that a phone registered from is not protected, and neither is the destination of a dialog.
        let is_plain = request.trusted || target.source == Some(peer);
        let settings = self.core.settings.clone();
        for hop in settings.guarded_hops() {
            match hop.address {
                Some(address) if is_same_door(address, peer) => return Err(FOR_USERS.into()),
                Some(_) => {}
                None => self.check_gate(hop, peer, is_plain, since)?,
            }
        }
        Ok(())
    }

    fn check_gate(&mut self, hop: &NextHop, peer: SocketAddr, is_plain: bool, since: Instant) -> Result<(), Obstacle> {
        let mut gate = self.core.gates.take(hop.uri.text());
        let mut unknown = None;
        if !gate.is_known || gate.is_due(self.now) {
            unknown = self.look_at(&mut gate, since);
        }
        let is_there = gate.places.iter().any(|place| is_same_door(*place, peer));
        let is_known = gate.is_known;
        self.core.gates.put(gate);
        match (is_there, is_known, unknown) {
            (true, _, _) => Err(FOR_USERS.into()),
            (false, true, _) => Ok(()),
            (false, false, Some(question)) => Err(Obstacle::Unknown(question)),
            (false, false, None) if is_plain => Ok(()),
            (false, false, None) => Err(NOT_KNOWN.into()),
        }
    }

    /// Learns where the names of a trunk's targets lead. Within its dialogs the carrier is known by that, whatever DNS says then.
    pub fn look_at_carrier(&mut self, trunk: &Trunk, since: Instant) {
        let settings = self.core.settings.clone();
        for hop in settings.hops_of(trunk).filter(|hop| hop.address.is_none()) {
            let mut gate = self.core.gates.take(hop.uri.text());
            if gate.is_due(self.now) {
                self.look_at(&mut gate, since);
            }
            self.core.gates.put(gate);
        }
    }

    /// A copy is sent to a next hop of the conf given by this URI, and its name has led there.
    pub fn note_address_of_name(&mut self, uri: &[u8], peer: SocketAddr) {
        if !self.core.settings.remembered_hops().any(|hop| hop.uri.text() == uri) {
            return;
        }
        let mut gate = self.core.gates.take(uri);
        gate.note(peer);
        self.core.gates.put(gate);
    }

    /// Adds where the name leads now, by any transport. Returns the question whose answer says more.
    fn look_at(&mut self, gate: &mut Gate, since: Instant) -> Option<u128> {
        gate.looked_at = self.now;
        gate.is_awaited = false;
        let uri = gate.uri.clone();
        let uri = Uri::parse(&uri).ok()?;
        let query = hop_query_of(&uri, is_sips(&gate.uri));
        let by = |transport| HopQuery { transport: Some(transport), ..query };
        let queries = [query, by(Transport::Udp), by(Transport::Tcp), by(Transport::Tls)];
        // With a port there is one set of addresses.
        let count = if query.port.is_some() { 1 } else { queries.len() };
        let (mut is_complete, mut unknown) = (true, None);
        for query in &queries[..count] {
            let mut found = |address| gate.note(address);
            match self.all_addresses(query, since, &mut found) {
                Ok(()) => {}
                Err(question) => {
                    is_complete = false;
                    unknown = unknown.or(question);
                }
            }
        }
        gate.is_known |= is_complete && !gate.places.is_empty();
        gate.is_awaited = unknown.is_some();
        unknown
    }

    /// Whether a dialog that begins now has one of these next hops at one of its ends: the other side may then send its requests
    /// there. A gateway need not send from the port at which it listens.
    pub fn is_guarded_dialog(&self, request: &Request, towards: SocketAddr) -> bool {
        let source = request.flow.peer.ip().to_canonical();
        let is_end = |one: SocketAddr| is_same_door(one, towards) || one.ip().to_canonical() == source;
        (request.trusted && request.dialog.guarded) || self.is_guarded(is_end)
    }

    /// Whether this is one of these next hops, as far as is known.
    pub fn is_guarded_address(&self, peer: SocketAddr) -> bool {
        self.is_guarded(|one| is_same_door(one, peer))
    }

    fn is_guarded(&self, is: impl Fn(SocketAddr) -> bool) -> bool {
        let is_known = |hop: &NextHop| match hop.address {
            Some(address) => is(address),
            None => {
                let (text, uri) = (hop.uri.text(), hop.uri.uri());
                let query = hop_query_of(&uri, is_sips(text));
                self.core.gates.has_led(text, &is) || self.leads_to(&query, |place| is(place.address))
            }
        };
        self.core.settings.guarded_hops().any(is_known)
    }
}

/// Whether both are addresses of one machine.
pub(in crate::stack::proxy) fn is_same_machine(a: SocketAddr, b: SocketAddr) -> bool {
    a.ip().to_canonical() == b.ip().to_canonical()
}

/// Whether it is the same server: by its port or, if that is a default one, by the default of another transport.
fn is_same_door(a: SocketAddr, b: SocketAddr) -> bool {
    let is_default = |port: u16| matches!(port, 5060 | 5061);
    is_same_machine(a, b) && (a.port() == b.port() || is_default(a.port()) && is_default(b.port()))
}
