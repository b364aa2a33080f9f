//! The other process of a restart. The predecessor keeps its transactions and connections until they end; the successor has all
//! sockets and takes everything that is new. To the rules, the cores of the other process are further cores, behind their own: what
//! one process cannot match may match in the other, and goes there by mail. What has matched nothing in either is the successor's.

use crate::base::{BuildPrehashed, Channel, Flow};
use crate::stack::settings::Settings;
use std::collections::HashMap;
use std::sync::Arc;

/// What the rules know of the other process.
#[derive(Clone)]
pub enum Counterpart {
    Predecessor(Arc<Predecessor>),
    Successor,
    /// The successor has ended before its predecessor: nothing new can be taken.
    Lost,
}

/// What a predecessor leaves behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bequest {
    /// The number of its run.
    pub run: u32,
    /// The number of the run as the servers that share its location table know it; 0 if there are none.
    pub sharing_run: u64,
    /// Its server transactions, each with its core.
    pub transactions: Vec<(u128, u8)>,
    /// What has changed within dialogs ([`crate::stack::moved`]), and whether some of it is forgotten.
    pub moved: Vec<u64>,
    pub has_forgotten: bool,
}

impl Bequest {
    /// Adds what another core of the same process leaves.
    pub fn add(&mut self, other: Bequest) {
        self.run = other.run;
        self.sharing_run |= other.sharing_run;
        self.transactions.extend(other.transactions);
        self.moved.extend(other.moved);
        self.has_forgotten |= other.has_forgotten;
    }
}

/// What the successor knows of its predecessor.
#[derive(Debug, Default)]
pub struct Predecessor {
    pub run: u32,
    pub sharing_run: u64,
    /// The core of each of its server transactions.
    transactions: HashMap<u128, u8, BuildPrehashed>,
    /// By its listener: the one that has taken its place here.
    listeners: Vec<Option<u16>>,
}

impl Predecessor {
    /// `listeners`: for each of the predecessor's, the one here that has taken its place.
    pub fn new(bequest: &Bequest, listeners: Vec<Option<u16>>) -> Predecessor {
        Predecessor {
            run: bequest.run,
            sharing_run: bequest.sharing_run,
            transactions: bequest.transactions.iter().copied().collect(),
            listeners,
        }
    }

    /// Returns which of its cores had this server transaction at the handover.
    pub fn core_of(&self, key: u128) -> Option<u8> {
        self.transactions.get(&key).copied()
    }

    /// Returns the listener here that has taken the place of one of the predecessor's.
    pub fn listener(&self, theirs: u16) -> Option<u16> {
        self.listeners.get(usize::from(theirs)).copied().flatten()
    }

    /// Returns a flow that the predecessor has written into a token, as it is named here. What it had named of a predecessor of its
    /// own is gone.
    pub fn flow(&self, theirs: Flow, settings: &Settings) -> Option<Flow> {
        let towards = || settings.listener_towards(theirs.transport, theirs.peer, theirs.listener);
        let listener = self.listener(theirs.listener).or_else(towards)?;
        let core = match theirs.channel {
            Channel::Connection { .. } if theirs.core >= settings.cores => u8::MAX,
            Channel::Connection { .. } => theirs.core + settings.cores,
            _ => theirs.core,
        };
        Some(Flow { listener, core, ..theirs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Transport;

    #[test]
    fn a_flow_of_the_predecessor_is_named_anew() {
        let settings = Settings { cores: 2, ..Settings::default() };
        let predecessor = Predecessor::new(&Bequest { transactions: vec![(7, 1)], ..Bequest::default() }, vec![Some(3), None]);
        let flow = |core, listener| Flow {
            transport: Transport::Tcp,
            core,
            channel: Channel::Connection { slot: 1, generation: 2 },
            ..Flow::datagram(listener, "198.51.100.7:40123".parse().unwrap())
        };
        assert_eq!(predecessor.flow(flow(1, 0), &settings), Some(flow(3, 3)));
        // A connection of its own predecessor, which has ended, is none of anybody.
        assert_eq!(predecessor.flow(flow(2, 0), &settings), Some(flow(u8::MAX, 3)));
        assert_eq!(predecessor.flow(flow(0, 1), &settings), None, "there is no listener for TCP any more");
        let datagram = Flow::datagram(0, "198.51.100.7:40123".parse().unwrap());
        assert_eq!(predecessor.flow(datagram, &settings), Some(Flow { listener: 3, ..datagram }));
        assert_eq!((predecessor.core_of(7), predecessor.core_of(8)), (Some(1), None));
    }
}
