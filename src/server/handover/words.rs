//! What the two processes of a handover tell each other.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use strowger::base::Transport;
use strowger::config::key::Secret;
use strowger::settings::Words;

/// The version of the protocol, and of what is in the tables: raised with any change of either. Two processes with different ones do not
/// hand over to each other.
pub const PROTOCOL: u32 = 1;

/// Names the file descriptor of the wire in the environment of a successor.
pub const VARIABLE: &str = "STROWGER_HANDOVER";

/// A successor's first words. Of these neither the place nor the meaning changes in later versions.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    pub protocol: u32,
    /// Of the program.
    pub version: String,
    pub process: u32,
}

/// A predecessor's first words. Of the first three neither the place nor the meaning changes in later versions.
#[derive(Serialize, Deserialize)]
pub struct Offer {
    pub protocol: u32,
    pub version: String,
    pub process: u32,
    /// Restarts before this one since the first start.
    pub restarts: u64,
    pub cores: usize,
    /// In the order of its conf, as bound.
    pub listeners: Vec<Listener>,
    /// What the key file held at the first start.
    pub secrets: Vec<Secret>,
    pub tickets: Tickets,
    pub clock: ClockShows,
    pub control: PathBuf,
    pub metrics: Option<SocketAddr>,
    pub database: Option<PathBuf>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listener {
    pub transport: String,
    pub address: SocketAddr,
    /// How many sockets follow, one for each core.
    pub sockets: usize,
}

impl Listener {
    pub fn transport(&self) -> Option<Transport> {
        [Transport::Udp, Transport::Tcp, Transport::Tls].into_iter().find(|transport| transport.word() == self.transport)
    }
}

/// [`strowger::net::tls::TicketLegacy`].
#[derive(Default, Serialize, Deserialize)]
pub struct Tickets {
    pub trust: Vec<u8>,
    pub keys: Vec<u8>,
}

/// What the clock of the rules shows at a moment of the machine's clock.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct ClockShows {
    pub ns: u64,
    pub monotonic_us: u64,
}

/// The predecessor has read its last message.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Final {
    /// Everything that was handed over is on disk, as far as there is one.
    pub is_stored: bool,
}

/// The predecessor has closed its files.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Left {
    /// The database has what was handed over, and nothing else.
    pub is_stored: bool,
    /// It was read when the first process started, or later.
    pub is_restored: bool,
}

/// What a predecessor still has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    pub transactions: usize,
    pub connections: usize,
    pub ends_in_ms: u64,
}
