//! The keys of session tickets (RFC 5077, RFC 8446 §4.6.1): shared by all workers, rotated automatically.

use std::sync::RwLock;
use std::time::{Duration, Instant};

use openssl::rand::rand_bytes;

use crate::net::sys::ssl::{TICKET_NAME, TicketKey, TicketKeys};

/// A key seals tickets for one period and opens them for one more. The period is the lifetime of a session, so that no ticket
/// expires early, and none can be opened after two periods.
pub struct RotatingKeys {
    period: Duration,
    keys: RwLock<Keys>,
}

struct Keys {
    current: Option<TicketKey>,
    previous: Option<TicketKey>,
    /// When `current` began.
    since: Instant,
}

impl RotatingKeys {
    pub fn new(period: Duration, now: Instant) -> RotatingKeys {
        RotatingKeys {
            period: period.max(Duration::from_secs(1)),
            keys: RwLock::new(Keys { current: fresh(), previous: None, since: now }),
        }
    }

    fn rotate(&self, now: Instant) {
        let is_due = |keys: &Keys| now.saturating_duration_since(keys.since) >= self.period;
        let read = self.keys.read().unwrap_or_else(|fault| fault.into_inner());
        if !is_due(&read) {
            return;
        }
        drop(read);
        let mut keys = self.keys.write().unwrap_or_else(|fault| fault.into_inner());
        // Another worker may have rotated them meanwhile.
        if is_due(&keys) {
            let is_recent = now.saturating_duration_since(keys.since) < self.period * 2;
            keys.previous = keys.current.take().filter(|_| is_recent);
            keys.current = fresh();
            keys.since = now;
        }
    }

    pub fn sealing(&self, now: Instant) -> Option<TicketKey> {
        self.rotate(now);
        let keys = self.keys.read().unwrap_or_else(|fault| fault.into_inner());
        keys.current.clone()
    }

    pub fn opening(&self, name: &[u8], now: Instant) -> Option<(TicketKey, bool)> {
        self.rotate(now);
        let keys = self.keys.read().unwrap_or_else(|fault| fault.into_inner());
        let named = |key: &&TicketKey| key.name == name;
        if let Some(key) = keys.current.as_ref().filter(named) {
            return Some((key.clone(), false));
        }
        let key = keys.previous.as_ref().filter(named)?;
        Some((key.clone(), true))
    }
}

impl TicketKeys for RotatingKeys {
    fn to_seal(&self) -> Option<TicketKey> {
        self.sealing(Instant::now())
    }

    fn to_open(&self, name: &[u8]) -> Option<(TicketKey, bool)> {
        self.opening(name, Instant::now())
    }
}

/// Creates a new key; `None` if the library has no randomness, and then there are no tickets.
fn fresh() -> Option<TicketKey> {
    let mut key = TicketKey { name: [0; TICKET_NAME], cipher: [0; 32], mac: [0; 32] };
    rand_bytes(&mut key.name).ok()?;
    rand_bytes(&mut key.cipher).ok()?;
    rand_bytes(&mut key.mac).ok()?;
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_opens_for_one_period_after_the_one_it_seals_in() {
        let hour = Duration::from_secs(3600);
        let start = Instant::now();
        let keys = RotatingKeys::new(hour, start);
        let first = keys.sealing(start).unwrap();
        let almost = start + hour - Duration::from_secs(1);
        assert_eq!(keys.sealing(almost).unwrap().name, first.name);
        assert!(!keys.opening(&first.name, almost).unwrap().1);

        let second = keys.sealing(start + hour).unwrap();
        assert_ne!(second.name, first.name);
        assert_ne!(second.cipher, first.cipher);
        assert_ne!(second.mac, first.mac);
        let (old, renew) = keys.opening(&first.name, start + hour).unwrap();
        assert!(renew && old.cipher == first.cipher && old.mac == first.mac);

        assert!(keys.opening(&first.name, start + hour * 2).is_none());
        assert!(keys.opening(&second.name, start + hour * 2).is_some());
        // After a long silence no old key is valid.
        assert!(keys.opening(&second.name, start + hour * 9).is_none());
        assert!(keys.opening(b"another name 16 b", start).is_none());
    }
}
