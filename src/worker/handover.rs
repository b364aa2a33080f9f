//! The handover of a restart: the predecessor's workers stop reading their sockets and pass on what they know; the successor's take
//! the sockets over and follow. Each worker of one process is then joined with the same worker of the other by a link.

use super::crew::{Bound, Crew};
use super::legacy::Legacy;
use super::link::{Following, Numbering};
use super::mailbox::Command;
use crate::base::{Channel, Flow, Transport};
use crate::stack::counterpart::Predecessor;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

/// How long a step of the handover waits for the workers. A turn takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most cores with which a restart is possible: those of both processes are numbered.
pub const MOST_CORES: usize = 127;

/// What still keeps a predecessor alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remaining {
    /// Transactions of either side, and answers that wait for the disk. More than there are if a worker does not say.
    pub transactions: usize,
    pub connections: usize,
    /// Every worker is still joined with the successor's; without them, requests on its connections are refused.
    pub is_joined: bool,
}

impl Crew {
    /// Returns duplicates of all listening sockets, by listener, then by core.
    pub fn listening_sockets(&self) -> io::Result<Vec<Vec<OwnedFd>>> {
        let (replies, mut of_cores) = (self.ask_all(Command::Sockets), Vec::new());
        for _ in 0..self.cores() {
            of_cores.push(replies.next()?);
        }
        of_cores.sort_by_key(|(core, _)| *core);
        let mut by_listener: Vec<Vec<OwnedFd>> = self.addresses().iter().map(|_| Vec::new()).collect();
        for (_, sockets) in of_cores {
            for (sockets_of, socket) in by_listener.iter_mut().zip(sockets?) {
                sockets_of.push(socket);
            }
        }
        Ok(by_listener)
    }

    /// Stops reading datagrams and accepting connections, and returns what the workers know. From then on, what concerns none of
    /// their transactions goes to the successor by `links`, this process's ends by core. An error leaves the workers serving.
    pub fn hand_over(&self, links: Vec<OwnedFd>) -> Result<Legacy, String> {
        if links.len() != self.cores() || links.len() > MOST_CORES {
            return Err(format!("there are {} links for {} cores, of at most {MOST_CORES}", links.len(), self.cores()));
        }
        if self.stats().workers.iter().any(|report| report.is_joined) {
            return Err("the workers are joined with another process already".to_owned());
        }
        let (sender, receiver) = mpsc::channel();
        for (core, link) in links.into_iter().enumerate() {
            self.command(core, Command::HandOver(link, sender.clone()));
        }
        let replies = Replies::new(receiver);
        let mut legacy = Legacy::default();
        for _ in 0..self.cores() {
            let estate = replies.next().and_then(|estate| estate);
            let estate = match estate {
                Ok(estate) => estate,
                Err(error) => {
                    let resumed = self.resume(Vec::new());
                    return Err(format!("the workers did not stop reading: {error}{}", resumed.err().unwrap_or_default()));
                }
            };
            legacy.rules.add(estate.rules);
            legacy.connections.extend(estate.connections);
            legacy.proved.extend(estate.proved);
        }
        Ok(legacy)
    }

    /// Serves again, because the successor did not start. What was sent to it, and is still in `successors_ends`, is handled here:
    /// the successor must have ended, or at least have stopped reading.
    pub fn resume(&self, successors_ends: Vec<OwnedFd>) -> Result<(), String> {
        let (sender, receiver) = mpsc::channel();
        let mut ends = successors_ends.into_iter();
        for core in 0..self.cores() {
            self.command(core, Command::Resume(ends.next(), sender.clone()));
        }
        let replies = Replies::new(receiver);
        let mut all: io::Result<()> = Ok(());
        for _ in 0..self.cores() {
            all = all.and(replies.next().and_then(|resumed| resumed));
        }
        all.map_err(|error| format!("the workers do not read again: {error}"))
    }

    /// The successor serves: its listeners are closed here, and those that it does not have are read until the end. After this there
    /// is no [`Crew::resume`].
    pub fn let_go(&self) {
        for core in 0..self.cores() {
            self.command(core, Command::LetGo);
        }
    }

    /// Returns what the workers still have after a handover.
    pub fn remaining(&self) -> Remaining {
        let stats = self.stats();
        let (numbers, silent) = (&stats.numbers, self.cores().saturating_sub(stats.workers.len()));
        let occupancy = &numbers.occupancy;
        let waiting = numbers.held.waiting as usize + occupancy.parked + occupancy.pending;
        Remaining {
            transactions: occupancy.server_transactions + occupancy.client_transactions + waiting + silent,
            connections: numbers.streams.all_open() as usize,
            is_joined: stats.workers.iter().all(|report| report.is_joined),
        }
    }

    fn ask_all<T>(&self, command: impl Fn(Sender<T>) -> Command) -> Replies<T> {
        let (sender, receiver) = mpsc::channel();
        for core in 0..self.cores() {
            self.command(core, command(sender.clone()));
        }
        Replies::new(receiver)
    }
}

/// What the workers reply.
struct Replies<T> {
    receiver: Receiver<T>,
    deadline: Instant,
}

impl<T> Replies<T> {
    fn new(receiver: Receiver<T>) -> Replies<T> {
        Replies { receiver, deadline: Instant::now() + PATIENCE }
    }

    fn next(&self) -> io::Result<T> {
        let patience = self.deadline.saturating_duration_since(Instant::now());
        self.receiver.recv_timeout(patience).map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "a worker does not answer"))
    }
}

impl Bound {
    /// Joins the workers, which are not started yet, with those of the predecessor. `links`: this process's ends, by core;
    /// `listeners`: the predecessor's, in its order, with the ports that they are bound to.
    pub fn follow(&mut self, legacy: Legacy, links: Vec<OwnedFd>, listeners: &[(Transport, SocketAddr)]) {
        let own: Vec<(Transport, SocketAddr)> = self.listeners().collect();
        let place = |list: &[(Transport, SocketAddr)], (transport, address): (Transport, SocketAddr)| {
            let same = list.iter().position(|other| *other == (transport, address));
            let is_like = |other: &&(Transport, SocketAddr)| other.0 == transport && other.1.is_ipv4() == address.is_ipv4();
            let like = || list.iter().position(|other| is_like(&other));
            let of_transport = || list.iter().position(|other| other.0 == transport);
            same.or_else(like).or_else(of_transport).map(|place| place as u16)
        };
        let is_taken = |theirs: &(Transport, SocketAddr)| {
            own.iter().any(|(transport, address)| transport.is_reliable() == theirs.0.is_reliable() && *address == theirs.1)
        };
        let taken = (0u16..).zip(listeners).filter(|(_, theirs)| is_taken(theirs));
        let taken = taken.flat_map(|(number, _)| number.to_le_bytes()).collect();
        let numbering = Numbering {
            cores: self.cores() as u8,
            ours: listeners.iter().map(|theirs| place(&own, *theirs)).collect(),
            theirs: own.iter().map(|ours| place(listeners, *ours).unwrap_or(0)).collect(),
        };
        for flow in &legacy.connections {
            self.live().enter_other(&self.renamed(&numbering, flow));
        }
        for (flow, names) in &legacy.proved {
            self.live().prove_other(&self.renamed(&numbering, flow), names.clone());
        }
        let predecessor = Arc::new(Predecessor::new(&legacy.rules, numbering.ours.clone()));
        self.set_following(Following { legacy, predecessor, numbering: Arc::new(numbering), links, taken });
    }

    /// Names a connection of the predecessor as it is named here. Without a listener of its kind it is still known to live.
    fn renamed(&self, numbering: &Numbering, flow: &Flow) -> Flow {
        debug_assert!(matches!(flow.channel, Channel::Connection { .. }));
        let listener = numbering.ours.get(usize::from(flow.listener)).copied().flatten();
        Flow { core: flow.core.saturating_add(numbering.cores), listener: listener.unwrap_or(flow.listener), ..*flow }
    }
}
