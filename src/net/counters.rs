//! What the wires count, for each listener of one core: plain numbers, added up over the cores when somebody asks.

use crate::sip::sniff::{self, Kind};

/// The kinds of messages as `strowger_messages_total{kind}` names them, in the order of [`Traffic::messages`].
pub const KINDS: [&str; 4] = ["request", "response", "keep_alive", "garbage"];

fn number_of(kind: Kind) -> usize {
    match kind {
        Kind::Request => 0,
        Kind::Response => 1,
        Kind::KeepAlive => 2,
        Kind::Garbage => 3,
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
    /// By [`KINDS`].
    pub messages: [u64; KINDS.len()],
    pub bytes: u64,
    /// System calls that moved at least one message.
    pub batches: u64,
}

impl Traffic {
    pub fn count(&mut self, bytes: &[u8]) {
        self.messages[number_of(sniff::kind(bytes))] += 1;
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
    fn traffic_is_counted_by_kind() {
        let mut traffic = Traffic::default();
        let messages: [&[u8]; 5] = [
            b"OPTIONS sip:a SIP/2.0\r\n\r\n",
            b"SIP/2.0 200 OK\r\n\r\n",
            b"\r\n\r\n",
            b"\x16\x03\x01",
            b"",
        ];
        for bytes in messages {
            traffic.count(bytes);
        }
        assert_eq!(traffic.messages, [1, 1, 2, 1]);
        assert_eq!(traffic.bytes, messages.concat().len() as u64);
    }
}
