//! Which connections are alive: a number for each place of each core, written by the wires, read by the rules of any core.

use super::flow::{Channel, Flow};
use std::sync::atomic::{AtomicU64, Ordering};

/// A roll-call of the connections. Its size is fixed when the server starts; a look costs one load.
///
/// The answer may be out of date by the time it is used: then the wires find the connection gone, and report it.
#[derive(Debug, Default)]
pub struct Roll {
    /// By core, by place: twice the generation of the connection that is open there, 0 where none is; plus one for one that
    /// nothing comes from any more.
    cores: Vec<Box<[AtomicU64]>>,
}

impl Roll {
    /// For `cores` cores with up to `places` connections each.
    pub fn new(cores: usize, places: usize) -> Roll {
        let core = |_| (0..places).map(|_| AtomicU64::new(0)).collect();
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
        self.set(core, slot, u64::from(generation) << 1);
    }

    /// Nothing comes from this connection any more. What is owed to the peer may still be sent.
    pub fn half_close(&self, core: u8, slot: u32, generation: u32) {
        self.set(core, slot, u64::from(generation) << 1 | 1);
    }

    fn set(&self, core: u8, slot: u32, value: u64) {
        let place = self.cores.get(usize::from(core));
        if let Some(place) = place.and_then(|core| core.get(slot as usize)) {
            place.store(value, Ordering::Release);
        }
    }

    /// False when the flow names a connection on which nobody would answer a request. What is no connection cannot die.
    pub fn is_alive(&self, flow: &Flow) -> bool {
        self.is(flow, |value, generation| value == generation << 1)
    }

    /// False when the flow names a connection by which not even a response would arrive.
    pub fn takes_answers(&self, flow: &Flow) -> bool {
        self.is(flow, |value, generation| value >> 1 == generation)
    }

    fn is(&self, flow: &Flow, test: impl Fn(u64, u64) -> bool) -> bool {
        let Channel::Connection { slot, generation } = flow.channel else {
            return true;
        };
        let place = self.cores.get(usize::from(flow.core));
        let value = place
            .and_then(|core| core.get(slot as usize))
            .map_or(0, |place| place.load(Ordering::Acquire));
        generation != 0 && test(value, u64::from(generation))
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
        roll.half_close(0, 3, 7);
        assert!(!roll.is_alive(&flow(0, 3, 7)) && roll.takes_answers(&flow(0, 3, 7)));
        assert!(!roll.takes_answers(&flow(0, 3, 8)) && !roll.takes_answers(&flow(0, 2, 7)));
        roll.enter(0, 3, 0);
        assert!(!roll.takes_answers(&flow(0, 3, 7)) && !roll.takes_answers(&flow(0, 3, 0)));
        assert!(!roll.is_alive(&flow(0, 3, 7)) && !roll.is_alive(&flow(0, 3, 0)));
        roll.enter(9, 9, 9);
        assert!(roll.is_alive(&Flow::datagram(0, ([127, 0, 0, 1], 5060).into())));
    }
}
