//! Which connections are alive: a number for each place of each core, written by the wires, read by the rules of any core.

use super::flow::{Channel, Flow};
use std::sync::atomic::{AtomicU32, Ordering};

/// A roll-call of the connections. Its size is fixed when the server starts; a look costs one load.
///
/// The answer may be out of date by the time it is used: then the wires find the connection gone, and report it.
#[derive(Debug, Default)]
pub struct Roll {
    /// By core, by place: the generation of the connection that is open there, 0 where none is.
    cores: Vec<Box<[AtomicU32]>>,
}

impl Roll {
    /// For `cores` cores with up to `places` connections each.
    pub fn new(cores: usize, places: usize) -> Roll {
        let core = |_| (0..places).map(|_| AtomicU32::new(0)).collect();
        Roll {
            cores: (0..cores).map(core).collect(),
        }
    }

    /// How many connections one core can have.
    pub fn places(&self) -> usize {
        self.cores.first().map_or(0, |core| core.len())
    }

    /// The connection in this place is open; with generation 0, none is any more.
    pub fn enter(&self, core: u8, slot: u32, generation: u32) {
        let place = self.cores.get(usize::from(core));
        if let Some(place) = place.and_then(|core| core.get(slot as usize)) {
            place.store(generation, Ordering::Release);
        }
    }

    /// False when the flow names a connection that is gone. What is no connection cannot die.
    pub fn is_alive(&self, flow: &Flow) -> bool {
        let Channel::Connection { slot, generation } = flow.channel else {
            return true;
        };
        let place = self.cores.get(usize::from(flow.core));
        place
            .and_then(|core| core.get(slot as usize))
            .is_some_and(|place| place.load(Ordering::Acquire) == generation)
            && generation != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Transport;

    #[test]
    fn a_connection_is_alive_while_its_generation_stands_in_its_place() {
        let roll = Roll::new(2, 4);
        let flow = |core, slot, generation| Flow {
            transport: Transport::Tcp,
            core,
            channel: Channel::Connection { slot, generation },
            ..Flow::datagram(0, ([127, 0, 0, 1], 5060).into())
        };
        assert!(!roll.is_alive(&flow(0, 3, 7)));
        roll.enter(0, 3, 7);
        assert!(roll.is_alive(&flow(0, 3, 7)));
        for other in [
            flow(0, 3, 8),
            flow(1, 3, 7),
            flow(0, 2, 7),
            flow(0, 4, 7),
            flow(2, 3, 7),
        ] {
            assert!(!roll.is_alive(&other));
        }
        roll.enter(0, 3, 0);
        assert!(!roll.is_alive(&flow(0, 3, 7)) && !roll.is_alive(&flow(0, 3, 0)));
        roll.enter(9, 9, 9);
        assert!(roll.is_alive(&Flow::datagram(0, ([127, 0, 0, 1], 5060).into())));
    }
}
