//! The keys of session tickets (RFC 5077, RFC 8446 §4.6.1): shared by all workers, rotated automatically.

use std::sync::RwLock;
use std::time::{Duration, Instant};

use openssl::rand::rand_bytes;

use crate::base::pack::{Pack, Unpack};
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

    /// Goes on with the keys of the process before this one. `None`: they are not what [`RotatingKeys::write`] writes.
    pub fn inherit(period: Duration, now: Instant, legacy: &[u8]) -> Option<RotatingKeys> {
        let mut from = Unpack::new(legacy);
        let since = now.checked_sub(Duration::from_millis(from.u64()?))?;
        let keys = Keys { current: read(&mut from)?, previous: read(&mut from)?, since };
        let is_whole = from.is_empty() && keys.current.is_some();
        is_whole.then(|| RotatingKeys { period: period.max(Duration::from_secs(1)), keys: RwLock::new(keys) })
    }

    fn write(&self, now: Instant) -> Vec<u8> {
        self.rotate(now);
        let keys = self.keys.read().unwrap_or_else(|fault| fault.into_inner());
        let mut out = Vec::new();
        out.put_u64(now.saturating_duration_since(keys.since).as_millis() as u64);
        for key in [&keys.current, &keys.previous] {
            out.put_u8(u8::from(key.is_some()));
            if let Some(key) = key {
                [&key.name[..], &key.cipher, &key.mac].into_iter().for_each(|part| out.put_bytes(part));
            }
        }
        out
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

    fn legacy(&self) -> Vec<u8> {
        self.write(Instant::now())
    }
}

/// The inner `None`: there was no key.
fn read(from: &mut Unpack) -> Option<Option<TicketKey>> {
    if from.u8()? == 0 {
        return Some(None);
    }
    let (name, cipher, mac) = (from.bytes()?, from.bytes()?, from.bytes()?);
    Some(Some(TicketKey { name: name.try_into().ok()?, cipher: cipher.try_into().ok()?, mac: mac.try_into().ok()? }))
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
    #[test]
    fn the_next_process_opens_and_seals_as_this_one_would_have() {
        let hour = Duration::from_secs(3600);
        let start = Instant::now() + hour * 9;
        let keys = RotatingKeys::new(hour, start);
        let first = keys.sealing(start).unwrap();
        let later = start + hour + hour / 2;
        let second = keys.sealing(later).unwrap();
        let legacy = keys.write(later);
        let next = RotatingKeys::inherit(hour, later, &legacy).unwrap();
        assert_eq!(next.sealing(later).unwrap().name, second.name);
        let (opened, renew) = next.opening(&first.name, later).unwrap();
        assert!(renew && opened.cipher == first.cipher && opened.mac == first.mac);
        // Its hour is not longer than it would have been.
        let due = later + hour;
        assert_ne!(next.sealing(due).unwrap().name, second.name);
        assert!(next.opening(&first.name, due).is_none() && next.opening(&second.name, due).unwrap().1);
        for short in 0..legacy.len() {
            assert!(RotatingKeys::inherit(hour, later, &legacy[..short]).is_none());
        }
    }
}
