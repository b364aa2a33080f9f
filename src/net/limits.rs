//! What the conf says about connections: how many, for how long, and how much may wait on each.

use crate::base::Network;
use crate::settings::{self, Connections, Millis};

/// What the conf says about connections, for one core.
#[derive(Clone, Debug)]
pub struct Limits {
    /// `[connections]`; of limits on all connections together, this core's part.
    pub rules: Connections,
    /// Connections at a time.
    pub connections: usize,
    /// Load balancers pass on connections: some of these places are kept for those whose PROXY headers are not there yet.
    pub has_balancers: bool,
    /// How long a TLS client may wait until its handshake begins. If clients wait longer, for longer than a burst takes, those that would
    /// wait for more than three quarters of it are refused, and those that have waited longer go last; 0: neither.
    pub patience_ms: Millis,
    /// The longest message.
    pub message_size: usize,
    /// Networks that stand for many clients: they are not limited to a share.
    pub trusted: Vec<Network>,
}

impl Limits {
    /// Returns the limits of one core out of `cores`, if the process may open `files` files.
    pub fn new(connections: &Connections, limits: &settings::Limits, cores: usize, files: usize) -> Limits {
        let cores = cores.max(1);
        Limits {
            connections: (connections.most(files) / cores).max(1),
            has_balancers: false,
            rules: Connections {
                unsent_bytes: connections.unsent_bytes / cores,
                unfinished_bytes: connections.unfinished_bytes / cores,
                ..connections.clone()
            },
            patience_ms: limits.overload,
            message_size: limits.message_size,
            trusted: limits.trusted_sources.clone(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let (connections, limits) = (Connections::default(), settings::Limits::default());
        Limits { connections: 4096, ..Limits::new(&connections, &limits, 1, 1 << 20) }
    }
}
