//! Where copies of messages are sent: `udp:HOST:PORT`.

use std::fmt;

/// A collector of messages, reached by datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// A name, or an address without brackets.
    pub host: String,
    pub port: u16,
}

/// As the conf writes it.
impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "udp:[{}]:{}", self.host, self.port),
            false => write!(f, "udp:{}:{}", self.host, self.port),
        }
    }
}
