//! The parameters, events and result of `trace`, as in its lines of JSON.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::settings::Words;
use crate::trace::session::Query;
use crate::trace::{Event, Kind};

/// What to trace; absent fields do not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TraceQuery {
    /// A whole Call-ID.
    pub call: Option<String>,
    /// `1003`, `1003@example.com` or `sip:1003@example.com`.
    pub user: Option<String>,
    /// `192.0.2.1` or `192.0.2.1:5060`.
    pub peer: Option<String>,
    /// From 1 to 3600; 60 if not given.
    pub seconds: Option<u32>,
    /// Messages, from 1 to 1000000; 10000 if not given.
    pub count: Option<u32>,
}

impl TraceQuery {
    /// Returns how long it may take.
    pub fn time(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(Query::DEFAULT_SECONDS).into())
    }
}

/// The params of one notification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceEvent {
    /// Since 1970. Microseconds are exact in every JSON reader.
    pub time_us: u64,
    /// The worker's number, from 0.
    pub core: u8,
    /// `received`, `sent`, `decision` or `timer`.
    pub kind: String,
    /// Empty if the message has none.
    pub call_id: String,
    /// `udp`, `tcp` or `tls`; this and the next two only for messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The whole message, credentials masked, if it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Otherwise its bytes, two hexadecimal digits each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_hex: Option<String>,
    /// The text of a decision or a timer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl TraceEvent {
    pub fn of(event: &Event) -> TraceEvent {
        let (mut message, mut message_hex, mut text) = (None, None, None);
        match event.kind {
            Kind::Received | Kind::Sent => match std::str::from_utf8(&event.bytes) {
                Ok(utf8) => message = Some(utf8.to_owned()),
                Err(_) => message_hex = Some(hex(&event.bytes)),
            },
            Kind::Decision | Kind::Timer => text = Some(String::from_utf8_lossy(&event.bytes).into_owned()),
        }
        let (from, to) = event.ends().unzip();
        TraceEvent {
            time_us: event.time_ns / 1000,
            core: event.core,
            kind: event.kind.word().to_owned(),
            call_id: String::from_utf8_lossy(&event.call_id).into_owned(),
            transport: event.way.map(|way| way.transport.word().to_owned()),
            from: from.map(|address| address.to_string()),
            to: to.map(|address| address.to_string()),
            message,
            message_hex,
            text,
        }
    }

    /// Returns the message as it was on the wire; `None` for a decision, a timer, and anything that is not a message of this
    /// server.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        match (&self.message, &self.message_hex) {
            (Some(message), _) => Some(message.clone().into_bytes()),
            (None, Some(digits)) => unhex(digits),
            (None, None) => None,
        }
    }

    /// True if it came from the peer; otherwise it was sent there.
    pub fn is_received(&self) -> bool {
        self.kind == Kind::Received.word()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    match digits.len() % 2 {
        0 => digits.as_bytes().chunks(2).map(pair).collect(),
        _ => None,
    }
}

/// How a trace ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced {
    /// Events that were shown.
    pub events: u64,
    /// Events that arrived faster than they could be shown.
    pub lost: u64,
    /// Calls that were no longer followed because too many others were.
    #[serde(default)]
    pub forgotten: u64,
    /// `time`, `count` or `shutdown`.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Transport;
    use crate::trace::Way;

    fn event(kind: Kind, bytes: &[u8]) -> Event {
        Event {
            time_ns: 1_782_864_000_123_456_789,
            core: 1,
            kind,
            way: kind.is_message().then(|| Way {
                transport: Transport::Tls,
                peer: "[2001:db8::1]:5061".parse().unwrap(),
                own: "[2001:db8::9]:5061".parse().unwrap(),
            }),
            call_id: b"1@a"[..].into(),
            bytes: bytes.into(),
        }
    }

    #[test]
    fn lines_bring_every_byte() {
        let all: Vec<u8> = (0..=255).collect();
        for bytes in [b"BYE x SIP/2.0\r\n\r\n\xc3\xa9 \0", &all[..], b""] {
            let line = serde_json::to_string(&TraceEvent::of(&event(Kind::Sent, bytes))).unwrap();
            let read: TraceEvent = serde_json::from_str(&line).unwrap();
            assert_eq!(read.bytes().as_deref(), Some(bytes));
            assert_eq!(read.from.as_deref(), Some("[2001:db8::9]:5061"));
            assert_eq!((read.time_us, read.is_received()), (1_782_864_000_123_456, false));
        }
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("zz"), None);
    }

    #[test]
    fn a_decision_has_words_and_no_addresses() {
        let line = serde_json::to_string(&TraceEvent::of(&event(Kind::Decision, b"chosen"))).unwrap();
        let expected = r#"{"time_us":1782864000123456,"core":1,"kind":"decision","call_id":"1@a","text":"chosen"}"#;
        assert_eq!(line, expected);
    }
}
