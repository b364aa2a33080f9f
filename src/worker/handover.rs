//! The handover of a restart: the predecessor's workers stop reading their sockets and pass on what they know; the successor's take
//! the sockets over and follow. Each worker of one process is then joined with the same worker of the other by a link.

use super::crew::{Bound, Crew};
use crate::base::{Flow, Transport};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// The sockets of one listener of the predecessor.
#[derive(Debug)]
pub struct Inherited {
    pub transport: Transport,
    /// The address that they are bound to, with the port that the kernel chose.
    pub address: SocketAddr,
    /// By core.
    pub sockets: Vec<OwnedFd>,
}

/// What the predecessor's workers leave to the successor's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Legacy {
    /// The number of the predecessor's run.
    pub run: u32,
    /// The same of the location table that it shares with other servers; 0 if it shares none.
    pub sharing_run: u64,
    /// How many connections one of its cores can have.
    pub places: u32,
    /// Its server transactions, each with its core.
    pub transactions: Vec<(u128, u8)>,
    /// Its connections.
    pub connections: Vec<Flow>,
}

impl Legacy {
    /// Appends it as bytes.
    pub fn write(&self, _out: &mut Vec<u8>) {}

    /// Reads what [`Legacy::write`] wrote; `None` if it is anything else.
    pub fn read(_bytes: &[u8]) -> Option<Legacy> {
        None
    }
}

/// What still keeps a predecessor alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remaining {
    /// Transactions of either side, and answers that wait for the disk.
    pub transactions: usize,
    pub connections: usize,
    /// Every worker is still joined with the successor's; without them, requests on its connections are refused.
    pub is_joined: bool,
}

/// Opens the links between two processes with this many workers each: one end of each for either process, by core.
pub fn links(_cores: usize) -> io::Result<(Vec<OwnedFd>, Vec<OwnedFd>)> {
    Err(io::Error::other("not built yet"))
}

impl Crew {
    /// Returns duplicates of all listening sockets, by listener, then by core.
    pub fn listening_sockets(&self) -> io::Result<Vec<Vec<OwnedFd>>> {
        Err(io::Error::other("not built yet"))
    }

    /// Stops reading datagrams and accepting connections, and returns what the workers know. From then on, what concerns none of
    /// their transactions goes to the successor by `links`, this process's ends by core. An error leaves the workers serving.
    pub fn hand_over(&self, _links: Vec<OwnedFd>) -> Result<Legacy, String> {
        Err("not built yet".to_owned())
    }

    /// Serves again, because the successor did not start. What was sent to it, and is still in `successors_ends`, is handled here.
    pub fn resume(&self, _successors_ends: Vec<OwnedFd>) -> Result<(), String> {
        Err("not built yet".to_owned())
    }

    /// Returns what the workers still have after a handover.
    pub fn remaining(&self) -> Remaining {
        Remaining::default()
    }
}

impl Bound {
    /// Joins the workers, which are not started yet, with those of the predecessor. `links`: this process's ends, by core;
    /// `listeners`: the predecessor's, in its order.
    pub fn follow(&mut self, _legacy: Legacy, _links: Vec<OwnedFd>, _listeners: &[(Transport, SocketAddr)]) {}
}
