//! What the wires count, for each listener of one core: plain numbers, added up over the cores when somebody asks.

/// What a message is, by its first bytes (`strowger_messages_total{kind}`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Request,
    Response,
    /// Neither can begin like this: a keep-alive, or noise.
    Other,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Request, Kind::Response, Kind::Other];

    /// RFC 3261 §7.1, §7.2: a status line begins with the version, a request line with a method, which is a token.
    pub fn of(bytes: &[u8]) -> Kind {
        match bytes.first() {
            Some(b'S' | b's')
                if bytes
                    .get(..8)
                    .is_some_and(|start| start.eq_ignore_ascii_case(b"SIP/2.0 ")) =>
            {
                Kind::Response
            }
            Some(first) if first.is_ascii_graphic() => Kind::Request,
            _ => Kind::Other,
        }
    }

    pub const fn label(self) -> &'static str {
        match self {
            Kind::Request => "request",
            Kind::Response => "response",
            Kind::Other => "other",
        }
    }
}

/// Why the wires did not deliver a message (`strowger_dropped_total{reason}`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Undeliverable {
    /// The kernel takes nothing now and the queue of what waits for it is full.
    SendQueueFull,
    /// Longer than the path or a datagram carries (EMSGSIZE).
    TooLarge,
    /// The kernel refuses this peer: no route, no permission, no such address.
    Unreachable,
    /// The kernel had no memory, or a queueing discipline threw the packet away (ENOBUFS).
    NoBuffers,
    /// The rules named a listener that does not exist.
    NoSocket,
}

impl Undeliverable {
    pub const ALL: [Undeliverable; 5] = [
        Undeliverable::SendQueueFull,
        Undeliverable::TooLarge,
        Undeliverable::Unreachable,
        Undeliverable::NoBuffers,
        Undeliverable::NoSocket,
    ];

    pub const fn label(self) -> &'static str {
        match self {
            Undeliverable::SendQueueFull => "send_queue_full",
            Undeliverable::TooLarge => "too_large",
            Undeliverable::Unreachable => "unreachable",
            Undeliverable::NoBuffers => "no_buffers",
            Undeliverable::NoSocket => "no_socket",
        }
    }
}

/// One direction of one listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages by [`Kind`].
    pub messages: [u64; 3],
    pub bytes: u64,
    /// System calls that moved at least one message.
    pub batches: u64,
}

impl Traffic {
    pub fn count(&mut self, bytes: &[u8]) {
        self.messages[Kind::of(bytes) as usize] += 1;
        self.bytes += bytes.len() as u64;
    }

    fn add(&mut self, other: &Traffic) {
        for (mine, theirs) in self.messages.iter_mut().zip(other.messages) {
            *mine += theirs;
        }
        self.bytes += other.bytes;
        self.batches += other.batches;
    }
}

/// One listener, as one core or all of them saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerCounters {
    pub received: Traffic,
    pub sent: Traffic,
    /// By [`Undeliverable`].
    pub undelivered: [u64; Undeliverable::ALL.len()],
    /// ICMP errors of RFC 3261 §18.4 that the kernel reported for our datagrams.
    pub icmp_errors: u64,
    /// Datagrams that the kernel threw away because our receive buffer was full (or their checksum wrong).
    pub kernel_drops: u64,
    /// The receive and send buffers that the kernel granted, in bytes as it accounts them; the sum over the cores.
    pub receive_buffer: u64,
    pub send_buffer: u64,
    /// Bytes that wait for the kernel to take them.
    pub waiting_bytes: u64,
}

impl ListenerCounters {
    pub fn drop(&mut self, reason: Undeliverable) {
        self.undelivered[reason as usize] += 1;
    }

    /// Adds another core's numbers.
    pub fn add(&mut self, other: &ListenerCounters) {
        self.received.add(&other.received);
        self.sent.add(&other.sent);
        for (mine, theirs) in self.undelivered.iter_mut().zip(other.undelivered) {
            *mine += theirs;
        }
        self.icmp_errors += other.icmp_errors;
        self.kernel_drops += other.kernel_drops;
        self.receive_buffer += other.receive_buffer;
        self.send_buffer += other.send_buffer;
        self.waiting_bytes += other.waiting_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_by_first_bytes() {
        assert_eq!(Kind::of(b"SIP/2.0 200 OK\r\n"), Kind::Response);
        assert_eq!(Kind::of(b"sip/2.0 200 OK\r\n"), Kind::Response);
        assert_eq!(Kind::of(b"SUBSCRIBE sip:a SIP/2.0\r\n"), Kind::Request);
        assert_eq!(Kind::of(b"SIP/2.0"), Kind::Request);
        assert_eq!(Kind::of(b"INVITE sip:a SIP/2.0"), Kind::Request);
        assert_eq!(Kind::of(b"\r\n\r\n"), Kind::Other);
        assert_eq!(Kind::of(b"\0\0\0\0"), Kind::Other);
        assert_eq!(Kind::of(b""), Kind::Other);
    }
}
