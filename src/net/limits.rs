//! What the conf says about connections: how many, for how long, and how much may wait on each.

/// What the conf says about connections, for one core.
#[derive(Clone, Debug)]
pub struct Limits {
    /// For a connection that is quiet, and for each message from its first byte on.
    pub idle_ms: u64,
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
    /// The longest message.
    pub message_size: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            idle_ms: 120_000,
            connect_ms: 5000,
            handshake_ms: 5000,
            connections: 4096,
            handshakes: 512,
            patience_ms: 100,
            send_queue: 256 << 10,
            message_size: 64 << 10,
        }
    }
}
