//! Which connections are alive: a number for each slot of each core, written by the wires and read by the rules of any core; and
//! which names their peers have proved by certificate.

use super::flow::{Channel, Flow};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The names that a peer's certificate proves, as written there: SIP URIs or DNS names.
pub type ProvedNames = Arc<[Box<str>]>;

/// The connections that are alive. The size is fixed at startup; a lookup costs one load.
///
/// The answer may be out of date by the time it is used: then the wires find the connection gone and report it.
#[derive(Debug, Default)]
pub struct LiveConnections {
    /// By core, by slot: the generation of the connection that is open there, above two bits (`ENDED` and `PROVED`); 0 if there is
    /// none. Written only by the core itself.
    cores: Vec<Box<[AtomicU64]>>,
    /// By core: the names of the connections that have the bit `PROVED`, by slot, with the generation.
    names: Vec<Mutex<HashMap<u32, (u32, ProvedNames)>>>,
    /// Those of the other process of a restart, by core and slot, as far as they are known here.
    others: Mutex<HashMap<(u8, u32), OtherConnection>>,
}

/// A connection of the other process.
#[derive(Debug)]
struct OtherConnection {
    flow: Flow,
    /// Its peer sends nothing more.
    is_ended: bool,
    proved: Option<ProvedNames>,
}

/// The peer sends nothing more on the connection.
const ENDED: u64 = 1;

/// The peer has proved an identity by certificate.
const PROVED: u64 = 2;

impl LiveConnections {
    /// For `cores` cores with up to `places` connections each.
    pub fn new(cores: usize, places: usize) -> LiveConnections {
        let core = |_| (0..places).map(|_| AtomicU64::new(0)).collect();
        let names = (0..cores).map(|_| Mutex::default()).collect();
        LiveConnections { cores: (0..cores).map(core).collect(), names, others: Mutex::default() }
    }

    /// Returns how many connections one core can have.
    pub fn places(&self) -> usize {
        self.cores.first().map_or(0, |core| core.len())
    }

    /// Counts the live connections of a core. Scans every slot.
    #[cfg(debug_assertions)]
    pub fn connections(&self, core: u8) -> usize {
        let places = self.cores.get(usize::from(core)).into_iter().flatten();
        let is_taken = |place: &&AtomicU64| place.load(Ordering::Acquire) != 0;
        places.filter(is_taken).count()
    }

    /// Enters the connection that is open in this slot; generation 0 clears the slot.
    pub fn enter(&self, core: u8, slot: u32, generation: u32) {
        let Some(place) = self.place(core, slot) else {
            return;
        };
        let before = place.swap(u64::from(generation) << 2, Ordering::AcqRel);
        if before & PROVED != 0
            && let Some(names) = self.names.get(usize::from(core))
        {
            let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
            names.remove(&slot);
        }
    }

    /// Notes that the peer sends nothing more on this connection. What is owed to the peer may still be sent.
    pub fn half_close(&self, core: u8, slot: u32, generation: u32) {
        self.mark(core, slot, generation, ENDED);
    }

    /// Notes what the peer of this connection has proved: it owns the key of a certificate with these names from an authority that
    /// we trust. What the names permit is up to the rules.
    pub fn prove(&self, core: u8, slot: u32, generation: u32, proved: ProvedNames) {
        if let Some(names) = self.names.get(usize::from(core)) {
            let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
            names.insert(slot, (generation, proved));
        }
        self.mark(core, slot, generation, PROVED);
    }

    fn mark(&self, core: u8, slot: u32, generation: u32, bit: u64) {
        if let Some(place) = self.place(core, slot)
            && place.load(Ordering::Acquire) >> 2 == u64::from(generation)
        {
            place.fetch_or(bit, Ordering::AcqRel);
        }
    }

    /// Notes that the other process of a restart has this connection. One that is known stays as it is.
    pub fn enter_other(&self, flow: &Flow) {
        if let Some((place, generation)) = self.place_of_other(flow) {
            let entry = || OtherConnection { flow: *flow, is_ended: false, proved: None };
            let mut others = self.others();
            let known = others.entry(place).or_insert_with(entry);
            if !known.is(generation) {
                *known = entry();
            }
        }
    }

    /// Notes that a connection of the other process has ended, or that its peer sends nothing more but may still receive.
    pub fn end_other(&self, flow: &Flow, takes_answers: bool) {
        let Some((place, generation)) = self.place_of_other(flow) else {
            return;
        };
        let mut others = self.others();
        if let Some(known) = others.get_mut(&place).filter(|known| known.is(generation)) {
            known.is_ended = true;
            if !takes_answers {
                others.remove(&place);
            }
        }
    }

    /// Notes what the peer of a connection of the other process has proved ([`LiveConnections::prove`]).
    pub fn prove_other(&self, flow: &Flow, proved: ProvedNames) {
        self.enter_other(flow);
        if let Some((place, _)) = self.place_of_other(flow)
            && let Some(known) = self.others().get_mut(&place)
        {
            known.proved = Some(proved);
        }
    }

    /// Forgets the connections that one core of the other process had, and returns them.
    pub fn forget_others(&self, core: u8) -> Vec<Flow> {
        let mut gone = Vec::new();
        self.others().retain(|(owner, _), known| {
            if *owner == core {
                gone.push(known.flow);
            }
            *owner != core
        });
        gone
    }

    /// The slot and the generation of a connection of the other process; `None` if the flow is none.
    fn place_of_other(&self, flow: &Flow) -> Option<((u8, u32), u32)> {
        match flow.channel {
            Channel::Connection { slot, generation } if self.is_of_others(flow) => Some(((flow.core, slot), generation)),
            _ => None,
        }
    }

    /// True for a connection of the other process of a restart.
    pub fn is_of_others(&self, flow: &Flow) -> bool {
        usize::from(flow.core) >= self.cores.len()
    }

    #[cold]
    fn ask_others<T>(&self, flow: &Flow, ask: impl FnOnce(&OtherConnection) -> T) -> Option<T> {
        let (place, generation) = self.place_of_other(flow)?;
        self.others().get(&place).filter(|known| known.is(generation)).map(ask)
    }

    fn others(&self) -> MutexGuard<'_, HashMap<(u8, u32), OtherConnection>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, core: u8, slot: u32) -> Option<&AtomicU64> {
        self.cores.get(usize::from(core))?.get(slot as usize)
    }

    /// False if the flow names a connection on which a request would not be answered. Datagram flows are always alive.
    pub fn is_alive(&self, flow: &Flow) -> bool {
        self.is(flow, |value, generation| value & !PROVED == generation << 2, |other| !other.is_ended)
    }

    /// False if the flow names a connection on which not even a response would arrive.
    pub fn takes_answers(&self, flow: &Flow) -> bool {
        self.is(flow, |value, generation| value >> 2 == generation, |_| true)
    }

    /// Returns the names that this connection's peer has proved, empty if its certificate contains none; `None` if it has shown no
    /// certificate.
    pub fn proved(&self, flow: &Flow) -> Option<ProvedNames> {
        let Channel::Connection { slot, generation } = flow.channel else {
            return None;
        };
        if self.is_of_others(flow) {
            return self.ask_others(flow, |other| other.proved.clone()).flatten();
        }
        let place = self.place(flow.core, slot)?.load(Ordering::Acquire);
        if place & PROVED == 0 || place >> 2 != u64::from(generation) {
            return None;
        }
        let names = self.names.get(usize::from(flow.core))?;
        let names = names.lock().unwrap_or_else(PoisonError::into_inner);
        let (owner, proved) = names.get(&slot)?;
        (*owner == generation).then(|| proved.clone())
    }

    fn is(&self, flow: &Flow, test: impl Fn(u64, u64) -> bool, of_other: impl FnOnce(&OtherConnection) -> bool) -> bool {
        let Channel::Connection { slot, generation } = flow.channel else {
            return true;
        };
        let Some(core) = self.cores.get(usize::from(flow.core)) else {
            return self.ask_others(flow, of_other).unwrap_or(false);
        };
        let value = core.get(slot as usize).map_or(0, |place| place.load(Ordering::Acquire));
        generation != 0 && test(value, u64::from(generation))
    }
}

impl OtherConnection {
    fn is(&self, generation: u32) -> bool {
        matches!(self.flow.channel, Channel::Connection { generation: own, .. } if own == generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Transport;

    #[test]
    fn a_connection_is_alive_while_its_generation_stands_in_its_place() {
        let live = LiveConnections::new(2, 4);
        let flow = |core, slot, generation| Flow {
            transport: Transport::Tcp,
            core,
            channel: Channel::Connection { slot, generation },
            ..Flow::datagram(0, ([127, 0, 0, 1], 5060).into())
        };
        assert!(!live.is_alive(&flow(0, 3, 7)));
        live.enter(0, 3, 7);
        assert!(live.is_alive(&flow(0, 3, 7)));
        for other in [flow(0, 3, 8), flow(1, 3, 7), flow(0, 2, 7), flow(0, 4, 7), flow(2, 3, 7)] {
            assert!(!live.is_alive(&other));
        }
        live.half_close(0, 3, 7);
        assert!(!live.is_alive(&flow(0, 3, 7)) && live.takes_answers(&flow(0, 3, 7)));
        assert!(!live.takes_answers(&flow(0, 3, 8)) && !live.takes_answers(&flow(0, 2, 7)));
        live.enter(0, 3, 0);
        assert!(!live.takes_answers(&flow(0, 3, 7)) && !live.takes_answers(&flow(0, 3, 0)));
        assert!(!live.is_alive(&flow(0, 3, 7)) && !live.is_alive(&flow(0, 3, 0)));
        live.enter(9, 9, 9);
        live.half_close(0, 3, 7);
        assert!(!live.takes_answers(&flow(0, 3, 7)), "it was closed before");
        assert!(live.is_alive(&Flow::datagram(0, ([127, 0, 0, 1], 5060).into())));
    }

    #[test]
    fn who_a_peer_is_lasts_as_long_as_its_connection() {
        let live = LiveConnections::new(2, 4);
        let flow = |core, slot, generation| Flow {
            transport: Transport::Tls,
            core,
            channel: Channel::Connection { slot, generation },
            ..Flow::datagram(0, ([127, 0, 0, 1], 5061).into())
        };
        let names: ProvedNames = vec!["sip:alice@example.com".into()].into();
        live.enter(1, 2, 7);
        assert_eq!(live.proved(&flow(1, 2, 7)), None);
        live.prove(1, 2, 7, names.clone());
        assert_eq!(live.proved(&flow(1, 2, 7)), Some(names.clone()));
        assert!(live.is_alive(&flow(1, 2, 7)));
        for other in [flow(0, 2, 7), flow(1, 1, 7), flow(1, 2, 8), flow(1, 9, 7)] {
            assert_eq!(live.proved(&other), None);
        }
        live.half_close(1, 2, 7);
        assert_eq!(live.proved(&flow(1, 2, 7)), Some(names));
        assert!(!live.is_alive(&flow(1, 2, 7)) && live.takes_answers(&flow(1, 2, 7)));
        // The next connection in its slot has proved nothing yet.
        live.enter(1, 2, 0);
        assert_eq!(live.proved(&flow(1, 2, 7)), None);
        live.enter(1, 2, 8);
        assert_eq!(live.proved(&flow(1, 2, 8)), None);
        assert!(live.is_alive(&flow(1, 2, 8)));
        assert!(live.names[1].lock().unwrap().is_empty());
        // What comes too late for its connection is ignored.
        live.prove(1, 2, 7, vec!["example.com".into()].into());
        assert_eq!(live.proved(&flow(1, 2, 8)), None);
        assert_eq!(live.proved(&flow(1, 2, 7)), None);
    }

    #[test]
    fn connections_of_the_other_process_are_known_until_they_end() {
        let live = LiveConnections::new(2, 4);
        let flow = |core, slot, generation| Flow {
            transport: Transport::Tls,
            core,
            channel: Channel::Connection { slot, generation },
            ..Flow::datagram(1, ([127, 0, 0, 1], 5061).into())
        };
        let state = |flow: &Flow| (live.is_alive(flow), live.takes_answers(flow));
        let (one, other) = (flow(2, 900, 7), flow(3, 900, 7));
        assert_eq!(state(&one), (false, false));
        live.enter_other(&one);
        live.enter_other(&other);
        live.enter_other(&flow(1, 3, 7));
        assert_eq!(state(&flow(1, 3, 7)), (false, false), "it would be our own");
        assert_eq!(state(&one), (true, true));
        assert_eq!(state(&flow(2, 900, 8)), (false, false));
        let names: ProvedNames = vec!["sip:alice@example.com".into()].into();
        live.prove_other(&one, names.clone());
        live.enter_other(&one);
        assert_eq!((live.proved(&one), live.proved(&other), live.proved(&flow(2, 900, 8))), (Some(names), None, None));
        live.end_other(&flow(2, 900, 6), false);
        live.end_other(&one, true);
        assert_eq!(state(&one), (false, true));
        // The next in its place has proved nothing.
        live.enter_other(&flow(2, 900, 8));
        assert_eq!((state(&one), state(&flow(2, 900, 8)), live.proved(&flow(2, 900, 8))), ((false, false), (true, true), None));
        live.end_other(&flow(2, 900, 8), false);
        assert_eq!(state(&flow(2, 900, 8)), (false, false));
        assert_eq!(live.forget_others(3), [other]);
        assert_eq!((state(&other), live.others().len()), ((false, false), 0));
    }
}
