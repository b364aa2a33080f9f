//! What a server and a phone of a scenario are like, and the names that have a meaning in all of them.

use super::digest::Account;
use std::net::SocketAddr;
use std::sync::Arc;
use strowger::base::{Key, Transport};
use strowger::stack::Settings;

/// A user part that starts with this goes to the gateway phones by a `[[route]]`.
pub const GATEWAY_PREFIX: &[u8] = b"77";

/// A user whom only hostile agents claim to be, and one that they are.
pub const BOSS: &str = "boss";
pub const MALLORY: &str = "mallory";

/// A name that the chain's servers send to each other in a circle.
pub const CIRCLE: &str = "circle.example";

/// How a phone behaves when it is called, and when it calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Temper {
    /// Rings, answers, hangs up; whatever the dice say.
    Honest,
    /// Answers everything, after seconds.
    Slow,
    /// Answers nothing.
    Silent,
    Busy,
    Decline,
    /// 302 to another address-of-record.
    Redirect,
    /// 180 again and again, never a final.
    RingForever,
    /// Answers 200 to an INVITE that was cancelled a moment ago.
    LateAnswer,
    /// Sends two different finals to one request.
    DoubleFinal,
    /// Retransmits far faster than T1.
    Impatient,
}

pub struct ServerPlan {
    pub settings: Arc<Settings>,
    pub key: Key,
    pub domain: String,
    /// Its users, where it asks them who they are.
    pub accounts: Vec<Account>,
    /// By listener.
    pub addresses: Vec<SocketAddr>,
    /// Delay of mail between cores, at most, in milliseconds.
    pub mail_ms: u64,
    /// Timers are served up to this late, in milliseconds.
    pub tick_ms: u64,
}

pub struct PhonePlan {
    pub at: SocketAddr,
    pub server: usize,
    /// The server's address that it sends to.
    pub server_at: SocketAddr,
    pub user: String,
    pub temper: Temper,
    /// Asks for rport (RFC 3581) and names a host in Via that nobody can reach.
    pub behind_nat: bool,
    pub rport: bool,
    /// Registers an address that only its NAT knows.
    pub private_contact: bool,
    /// Registers with a Path that leads to itself.
    pub path: bool,
    /// Writes compact header names.
    pub compact: bool,
    /// What its own requests take, and its contacts ask for.
    pub transport: Transport,
    /// By this name it registers, instead of its address; with a port, or without.
    pub host: Option<String>,
    /// Its contacts say by which transport, even UDP.
    pub names_transport: bool,
    /// Over UDP it writes no Content-Length (§20.14 allows that).
    pub terse: bool,
    /// The domain of its user, one of its server's.
    pub domain: String,
}

impl PhonePlan {
    pub fn uri_param(&self) -> &'static str {
        match self.transport {
            Transport::Tcp => ";transport=tcp",
            _ if self.names_transport => ";transport=udp",
            _ => "",
        }
    }
}
