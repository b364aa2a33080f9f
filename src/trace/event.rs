//! An event: a message received or sent, a decision, or a timer.

use crate::base::{NoteKind, Transport};
use std::net::SocketAddr;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Received,
    Sent,
    Decision,
    Timer,
}

impl Kind {
    pub const fn word(self) -> &'static str {
        match self {
            Kind::Received => "received",
            Kind::Sent => "sent",
            Kind::Decision => "decision",
            Kind::Timer => "timer",
        }
    }

    pub const fn is_message(self) -> bool {
        matches!(self, Kind::Received | Kind::Sent)
    }
}

impl From<NoteKind> for Kind {
    fn from(kind: NoteKind) -> Kind {
        match kind {
            NoteKind::Decision => Kind::Decision,
            NoteKind::Timer => Kind::Timer,
        }
    }
}

/// The addresses between which a message was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Way {
    pub transport: Transport,
    pub peer: SocketAddr,
    /// Ours, as far as known: a wildcard listener's may have no IP address.
    pub own: SocketAddr,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Since 1970.
    pub time_ns: u64,
    pub core: u8,
    pub kind: Kind,
    /// Of a message.
    pub way: Option<Way>,
    /// Empty if the message has none.
    pub call_id: Box<[u8]>,
    /// The message, masked; for decisions and timers, the text.
    pub bytes: Box<[u8]>,
}

impl Event {
    /// Returns where it came from and where it went.
    pub fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        let way = self.way?;
        Some(match self.kind {
            Kind::Received => (way.peer, way.own),
            _ => (way.own, way.peer),
        })
    }

    /// Returns the bytes that it takes in a queue.
    pub fn weight(&self) -> usize {
        size_of::<Event>() + self.call_id.len() + self.bytes.len()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Builds a message event.
    pub fn message(kind: Kind, transport: Transport, peer: &str, own: &str, text: &str) -> Event {
        let reading = crate::trace::reading::Reading::of(text.as_bytes());
        Event {
            time_ns: 1_782_864_000_123_456_789,
            core: 0,
            kind,
            way: Some(Way { transport, peer: peer.parse().unwrap(), own: own.parse().unwrap() }),
            call_id: reading.call_id.into(),
            bytes: text.as_bytes().into(),
        }
    }

    #[test]
    fn the_ends_follow_the_direction() {
        let came = message(Kind::Received, Transport::Udp, "192.0.2.1:5060", "192.0.2.9:5060", "");
        let (from, to) = came.ends().unwrap();
        assert_eq!((from.to_string(), to.to_string()), ("192.0.2.1:5060".into(), "192.0.2.9:5060".into()));
        let left = Event { kind: Kind::Sent, ..came };
        assert_eq!(left.ends(), Some((to, from)));
    }
}
