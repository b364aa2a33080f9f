//! What the wires count, for each listener of one core: plain numbers, added up over the cores on request.

use super::state::State;
use super::tls::Tls;
use crate::base::{Transport, counters};
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
    /// The kernel accepts nothing now, and the queue for it is full.
    SendQueueFull,
    /// Longer than the path or a datagram carries (EMSGSIZE).
    TooLarge,
    /// The kernel refuses this peer: no route, no permission, no such address.
    Unreachable,
    /// The kernel had no memory, or a queueing discipline dropped the packet (ENOBUFS).
    NoBuffers,
    /// The rules named a listener that does not exist.
    NoSocket,
    /// The connection is gone, or none could be opened.
    NoConnection,
}

impl Undeliverable {
    pub const ALL: [Undeliverable; 6] = [
        Undeliverable::SendQueueFull,
        Undeliverable::TooLarge,
        Undeliverable::Unreachable,
        Undeliverable::NoBuffers,
        Undeliverable::NoSocket,
        Undeliverable::NoConnection,
    ];

    pub const fn label(self) -> &'static str {
        match self {
            Undeliverable::SendQueueFull => "send_queue_full",
            Undeliverable::TooLarge => "too_large",
            Undeliverable::Unreachable => "unreachable",
            Undeliverable::NoBuffers => "no_buffers",
            Undeliverable::NoSocket => "no_socket",
            Undeliverable::NoConnection => "no_connection",
        }
    }
}

counters! {
    /// One direction of one listener.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Traffic {
        /// By [`KINDS`].
        pub messages: [u64; KINDS.len()],
        pub bytes: u64,
        /// System calls that moved at least one message.
        pub batches: u64,
    }
}

impl Traffic {
    pub fn count(&mut self, bytes: &[u8]) {
        self.messages[number_of(sniff::kind(bytes))] += 1;
        self.bytes += bytes.len() as u64;
    }
}

counters! {
    /// The counters of one listener, of one core or over all of them.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct ListenerCounters {
        pub received: Traffic,
        pub sent: Traffic,
        /// By [`Undeliverable`].
        pub undelivered: [u64; Undeliverable::ALL.len()],
        /// ICMP errors of RFC 3261 §18.4 that the kernel reported for our datagrams.
        pub icmp_errors: u64,
        /// Datagrams that the kernel dropped because our receive buffer was full (or their checksum was wrong).
        pub kernel_drops: u64,
        /// INVITEs that the kernel dropped unread because of overload.
        pub shed: u64,
        /// The receive and send buffers that the kernel granted, in bytes as it accounts for them, summed over the cores.
        pub receive_buffer: u64,
        pub send_buffer: u64,
        /// Bytes that wait for the kernel to take them.
        pub waiting_bytes: u64,
    }
}

impl ListenerCounters {
    pub fn drop(&mut self, reason: Undeliverable) {
        self.undelivered[reason as usize] += 1;
    }
}

/// The sides of a TLS handshake, as `strowger_tls_handshakes_total{side}` names them.
pub const SIDES: [&str; 2] = ["server", "client"];

counters! {
    /// The TLS handshakes of one side.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Handshakes {
        pub full: u64,
        pub resumed: u64,
        /// Of full and resumed handshakes, those in which both sides showed certificates: as server, now or in the resumed session;
        /// as client, now.
        pub mutual: u64,
        pub failed: u64,
        /// Calls of `SSL_do_handshake`.
        pub calls: u64,
    }
}

counters! {
    /// The connections of one core.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct StreamCounters {
        /// TCP and TLS, by [`State::shown`].
        open: [[u64; State::ALL.len()]; 2],
        pub accepted: u64,
        /// Connections that we began to open.
        pub connecting: u64,
        /// Those that were not answered.
        pub failed: u64,
        /// The limit of open connections was reached.
        pub refused: u64,
        /// Connections not accepted, or closed, because their source is banned.
        pub banned: u64,
        pub accept_errors: u64,
        /// Connections of load balancers closed because their PROXY headers were wrong, incomplete or missing.
        pub proxy_header_failed: u64,
        /// How often handshakes waited because the limit was reached.
        pub handshakes_held: u64,
        /// TLS connections closed because handshakes waited too long before they began: at once, or after the handshakes' deadline.
        pub handshakes_refused: u64,
        pub idle_closed: u64,
        /// Connections closed because a message was not completed in time.
        pub unfinished: u64,
        /// Connections that only waited for what was owed to them, closed because others needed their slots.
        pub displaced: u64,
        /// Connections closed because others needed their slots, and their sources held more.
        pub yielded: u64,
        /// Stalled handshakes that were closed because others waited.
        pub stalled: u64,
        /// Connections that sent too much between messages.
        pub blank: u64,
        /// Connections closed because incomplete messages held too many bytes.
        pub crowded: u64,
        /// Bytes of incomplete messages now.
        pub unfinished_bytes: u64,
        /// Messages not sent because too much waited for peers that do not read.
        pub unsent: u64,
        /// Bytes that wait for such peers now.
        pub unsent_bytes: u64,
        /// Streams in which no message could be found.
        pub garbage: u64,
        /// Entries of the idle list that were checked.
        pub sweep_visited: u64,
        /// By [`SIDES`].
        pub handshakes: [Handshakes; SIDES.len()],
    }
}

impl StreamCounters {
    fn kind(transport: Transport) -> usize {
        usize::from(transport == Transport::Tls)
    }

    /// Returns how many connections are in a state now.
    pub fn open(&self, transport: Transport, state: State) -> u64 {
        self.open[StreamCounters::kind(transport)][state.shown() as usize]
    }

    /// Returns how many connections there are now.
    pub fn all_open(&self) -> u64 {
        self.open.iter().flatten().sum()
    }

    pub fn enter(&mut self, transport: Transport, state: State) {
        self.open[StreamCounters::kind(transport)][state.shown() as usize] += 1;
    }

    pub fn leave(&mut self, transport: Transport, state: State) {
        self.open[StreamCounters::kind(transport)][state.shown() as usize] -= 1;
    }

    /// Counts a completed handshake; `side` is its index in [`SIDES`].
    pub fn shaken(&mut self, side: usize, tls: &Tls) {
        let counters = &mut self.handshakes[side];
        match tls.is_resumed() {
            true => counters.resumed += 1,
            false => counters.full += 1,
        }
        counters.mutual += u64::from(tls.is_mutual());
        counters.calls += u64::from(tls.handshake_calls());
    }

    pub fn failed_handshake(&mut self, side: usize, tls: Option<&Tls>) {
        let counters = &mut self.handshakes[side];
        counters.failed += 1;
        counters.calls += tls.map_or(0, |tls| u64::from(tls.handshake_calls()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_counted_by_kind() {
        let mut traffic = Traffic::default();
        let messages: [&[u8]; 5] = [b"OPTIONS sip:a SIP/2.0\r\n\r\n", b"SIP/2.0 200 OK\r\n\r\n", b"\r\n\r\n", b"\x16\x03\x01", b""];
        for bytes in messages {
            traffic.count(bytes);
        }
        assert_eq!(traffic.messages, [1, 1, 2, 1]);
        assert_eq!(traffic.bytes, messages.concat().len() as u64);
    }
}
