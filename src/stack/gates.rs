//! Next hops for our users only, and targets of trunks, that the conf gives by name, and where each has led. That is remembered, so that
//! no later DNS answer, or lack of one, opens the former to others, or makes a stranger of the carrier in the middle of a call.

use crate::base::Instant;
use crate::stack::Settings;
use crate::stack::route::{NextHop, Route};
use crate::stack::trunk::Trunk;
use std::net::SocketAddr;

/// Places remembered for one name.
const PLACES: usize = 64;

/// The gates of one core.
#[derive(Default)]
pub(in crate::stack) struct Gates {
    list: Vec<Gate>,
}

/// One such next hop.
pub(in crate::stack) struct Gate {
    /// As written in the conf.
    pub uri: Vec<u8>,
    pub places: Vec<SocketAddr>,
    /// Whether, at one time, all the places that the name leads to were known.
    pub is_known: bool,
    pub looked_at: Instant,
    /// Something is still to be known: an answer is awaited, or nobody has looked.
    pub is_awaited: bool,
}

impl Gates {
    /// Takes the gate out, or creates it; it has to be put back.
    pub fn take(&mut self, uri: &[u8]) -> Gate {
        let known = self.list.iter().position(|gate| gate.uri == uri);
        match known {
            Some(place) => self.list.swap_remove(place),
            None => {
                Gate { uri: uri.to_vec(), places: Vec::new(), is_known: false, looked_at: Instant::default(), is_awaited: true }
            }
        }
    }

    pub fn put(&mut self, gate: Gate) {
        self.list.push(gate);
    }

    /// Returns whether the next hop of this URI has led to a place for which `is` holds.
    pub fn has_led(&self, uri: &[u8], is: impl Fn(SocketAddr) -> bool) -> bool {
        let mut gates = self.list.iter().filter(|gate| gate.uri == uri);
        gates.any(|gate| gate.places.iter().any(|place| is(*place)))
    }

    /// Forgets next hops that are no longer in the conf.
    pub fn keep_those_of(&mut self, settings: &Settings) {
        self.list.retain(|gate| settings.remembered_hops().any(|hop| hop.uri.text() == gate.uri));
    }
}

/// How often a name is looked at of which no answer is awaited, in milliseconds.
const LOOK_MS: u64 = 1000;

impl Gate {
    /// Returns whether to look again.
    pub fn is_due(&self, now: Instant) -> bool {
        self.is_awaited || now.ms_since(self.looked_at) >= LOOK_MS
    }

    /// Notes that the name has led there. If there are too many places, the first ones are forgotten.
    pub fn note(&mut self, place: SocketAddr) {
        if self.places.contains(&place) {
            return;
        }
        if self.places.len() == PLACES {
            self.places.remove(0);
        }
        self.places.push(place);
    }
}

impl Settings {
    /// Returns whether there are next hops that are for our users only.
    pub fn guards(&self) -> bool {
        self.routes.guard_some()
    }

    /// Returns the next hops of which is remembered where their names have led.
    pub fn remembered_hops(&self) -> impl Iterator<Item = &NextHop> {
        let routes = self.routes.iter().filter(|route| route.users_only || route.trunk.is_some());
        routes.flat_map(Route::hops)
    }

    /// Returns the targets of the routes that lead to this trunk.
    pub fn hops_of(&self, trunk: &Trunk) -> impl Iterator<Item = &NextHop> {
        let is_its = |route: &&Route| route.trunk.as_deref().is_some_and(|own| own.account() == trunk.account());
        self.routes.iter().filter(is_its).flat_map(Route::hops)
    }

    pub fn guarded_hops(&self) -> impl Iterator<Item = &NextHop> {
        let routes = self.routes.iter().filter(|route| route.users_only);
        routes.flat_map(Route::hops)
    }
}
