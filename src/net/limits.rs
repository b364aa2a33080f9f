//! What the conf says about connections: how many, for how long, and how much may wait on each.

use crate::base::Network;

/// What the conf says about connections, for one core.
#[derive(Clone, Debug)]
pub struct Limits {
    /// For a connection that is quiet.
    pub idle_ms: u64,
    /// For each message from its first byte on.
    pub message_ms: u64,
    pub connect_ms: u64,
    pub handshake_ms: u64,
    /// Connections at a time.
    pub connections: usize,
    /// TLS handshakes at a time.
    pub handshakes: usize,
    /// How long a TLS client may wait until its handshake begins, milliseconds. Where they wait longer for longer than a burst, others
    /// are refused; 0: nobody is.
    pub patience_ms: u64,
    /// Bytes that may wait on one connection.
    pub send_queue: usize,
    /// Bytes that may wait on all, before each may have no more than a part of that.
    pub unsent_bytes: usize,
    /// The longest message.
    pub message_size: usize,
    /// Bytes that messages which have begun and are not whole may hold, those of all connections.
    pub unfinished_bytes: usize,
    /// Bytes that one connection may bring between two messages, or in a minute.
    pub keep_alive_bytes: usize,
    /// Networks that stand for many: no share binds them.
    pub trusted: Vec<Network>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            idle_ms: 120_000,
            message_ms: 20_000,
            connect_ms: 5000,
            handshake_ms: 5000,
            connections: 4096,
            handshakes: 512,
            patience_ms: 100,
            send_queue: 256 << 10,
            unsent_bytes: 256 << 20,
            message_size: 64 << 10,
            unfinished_bytes: 64 << 20,
            keep_alive_bytes: 1 << 10,
            trusted: Vec::new(),
        }
    }
}
