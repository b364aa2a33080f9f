//! Next hops for our users only that the conf gives by name, and where each has led. That is remembered: what the domain name system says
//! later, or does not say, gives none of it away.

use crate::base::Instant;
use crate::stack::Settings;
use crate::stack::route::{NextHop, Route};
use std::net::SocketAddr;

/// Places of one name that are remembered.
const PLACES: usize = 64;

/// Those of one core.
#[derive(Default)]
pub(in crate::stack) struct Gates {
    list: Vec<Gate>,
}

/// One such next hop.
pub(in crate::stack) struct Gate {
    /// As the conf has it.
    pub uri: Vec<u8>,
    pub places: Vec<SocketAddr>,
    /// All that the name leads to has been known at one time.
    pub is_known: bool,
    pub looked_at: Instant,
}

impl Gates {
    /// Takes it out, or makes it; to be put back.
    pub fn take(&mut self, uri: &[u8]) -> Gate {
        let known = self.list.iter().position(|gate| gate.uri == uri);
        match known {
            Some(place) => self.list.swap_remove(place),
            None => Gate { uri: uri.to_vec(), places: Vec::new(), is_known: false, looked_at: Instant::default() },
        }
    }

    pub fn put(&mut self, gate: Gate) {
        self.list.push(gate);
    }

    /// Whether the next hop of this URI has led to a place of which `is` holds.
    pub fn has_led(&self, uri: &[u8], is: impl Fn(SocketAddr) -> bool) -> bool {
        let mut gates = self.list.iter().filter(|gate| gate.uri == uri);
        gates.any(|gate| gate.places.iter().any(|place| is(*place)))
    }

    /// What is no next hop of the conf any more is forgotten.
    pub fn keep_those_of(&mut self, settings: &Settings) {
        self.list.retain(|gate| settings.guarded_hops().any(|hop| hop.uri.text() == gate.uri));
    }
}

impl Gate {
    /// The name has led there. Of too many the first ones are forgotten.
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
    /// Whether there are next hops that are for our users only.
    pub fn guards(&self) -> bool {
        self.routes.guard_some()
    }

    pub fn guarded_hops(&self) -> impl Iterator<Item = &NextHop> {
        let routes = self.routes.iter().filter(|route| route.users_only);
        routes.flat_map(Route::hops)
    }
}
