//! Next hops that are for our users only: where a `[[route]]` with `from = "users"` leads, nobody gets by another way. A binding may name
//! such a place as its contact or Path, the other side of a dialog may say that it is there, and a route without targets goes where the
//! Request-URI says: none of these has proved to be a user who wants to go there.

use super::locate::{Place, Search};
use super::next_hop::{aim_of, is_sips};
use super::target::Target;
use super::{Incoming, Obstacle, Refusal};
use crate::base::{Instant, Outbox};
use crate::sip::{Message, Uri};
use crate::stack::route::{Action, NextHop};
use crate::stack::{Endpoint, Settings};
use std::net::SocketAddr;

const FOR_USERS: Refusal = Refusal::new(403, "Next Hop Is For Our Users Only");

impl Endpoint {
    /// Whether this target of the request may lead to `peer`. Asks for the names of guarded next hops where they are not known.
    pub(super) fn check_guard(
        &mut self,
        message: &Message,
        incoming: &Incoming,
        target: &Target,
        peer: SocketAddr,
        search: Search,
        outbox: &mut Outbox,
    ) -> Result<(), Obstacle> {
        let is_by_conf = target.is_by_conf() || target.for_users;
        let is_within = incoming.trusted && incoming.dialog.guarded;
        // Who has registered from there is there itself.
        if is_by_conf || is_within || target.source == Some(peer) || !self.settings.guards() {
            return Ok(());
        }
        let settings = self.settings.clone();
        let call_id = message.call_id().unwrap_or_default();
        for hop in settings.guarded_hops() {
            if self.is_guard_of(hop, peer, call_id, search.since, outbox)? {
                return Err(FOR_USERS.into());
            }
        }
        Ok(())
    }

    fn is_guard_of(
        &mut self,
        hop: &NextHop,
        peer: SocketAddr,
        call_id: &[u8],
        since: Instant,
        outbox: &mut Outbox,
    ) -> Result<bool, Obstacle> {
        if let Some(address) = hop.address {
            return Ok(is_same_door(address, peer));
        }
        let Ok(uri) = Uri::parse(&hop.uri) else {
            return Ok(false);
        };
        let is_there = |place: Place| is_same_door(place.address, peer);
        let aim = aim_of(&uri, is_sips(&hop.uri));
        match self.find_place_that(&aim, call_id, since, is_there, outbox) {
            Ok(_) => Ok(true),
            Err(Obstacle::Refused(_)) => Ok(false),
            Err(unknown) => Err(unknown),
        }
    }

    /// Whether a dialog that begins now has one of these next hops at one of its ends: the other side may then send its requests there.
    /// A gateway need not send from the port at which it listens.
    pub(super) fn is_guarded_dialog(&self, incoming: &Incoming, towards: SocketAddr) -> bool {
        let source = incoming.flow.peer.ip();
        let is_end = |one: SocketAddr| is_same_door(one, towards) || one.ip() == source;
        let is_known = |hop: &NextHop| match (hop.address, Uri::parse(&hop.uri)) {
            (Some(address), _) => is_end(address),
            (None, Ok(uri)) => {
                let aim = aim_of(&uri, is_sips(&hop.uri));
                self.leads_to(&aim, |place| is_end(place.address))
            }
            (None, Err(_)) => false,
        };
        (incoming.trusted && incoming.dialog.guarded) || self.settings.guarded_hops().any(is_known)
    }
}

impl Settings {
    /// Whether there are next hops that are for our users only.
    pub(super) fn guards(&self) -> bool {
        self.guarded_hops().next().is_some()
    }

    fn guarded_hops(&self) -> impl Iterator<Item = &NextHop> {
        let routes = self.routes.iter().filter(|route| route.users_only);
        routes.flat_map(|route| match &route.action {
            Action::Relay(hops) => &hops[..],
            Action::Location | Action::Redirect(_) | Action::Reject(_) => &[],
        })
    }
}

/// Whether it is the same server: by its port, or, where that is a default one, by the default of another transport.
fn is_same_door(a: SocketAddr, b: SocketAddr) -> bool {
    let is_default = |port: u16| matches!(port, 5060 | 5061);
    a.ip().to_canonical() == b.ip().to_canonical()
        && (a.port() == b.port() || is_default(a.port()) && is_default(b.port()))
}
