//! The keys of session tickets that several servers share: derived from their common secrets and the number of the period by the
//! wall clock, so that each server opens what another has sealed, and what it has sealed itself before a restart.
//!
//! Whoever has a secret can derive every key that ever was or will be: tickets give no forward secrecy then.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openssl::error::ErrorStack;
use openssl::md::Md;
use openssl::pkey::Id;
use openssl::pkey_ctx::PkeyCtx;

use super::material::Fingerprint;
use super::settings::TicketSecrets;
use crate::net::sys::ssl::{TICKET_NAME, TicketKey, TicketKeys};

/// The salt of the derivation: keys of tickets, and of nothing else.
const SALT: &[u8] = b"strowger session tickets 1";

/// A key seals tickets for one period, and opens them for that period, the next, and the one before: another server's clock may be
/// ahead. The period is the lifetime of a session, so that no ticket expires early.
pub struct SharedKeys {
    secrets: TicketSecrets,
    period_s: u64,
    /// What the servers must have in common besides: identities and verification.
    trust: Fingerprint,
    keys: RwLock<Arc<Keys>>,
}

/// The keys in one period.
#[derive(Default)]
struct Keys {
    /// `None`: none were derived yet.
    period: Option<u64>,
    sealing: Option<TicketKey>,
    /// Those that open tickets, each with whether its tickets should be renewed.
    opening: Vec<(TicketKey, bool)>,
}

impl SharedKeys {
    pub fn new(secrets: &TicketSecrets, period: Duration, trust: &Fingerprint) -> SharedKeys {
        SharedKeys { secrets: secrets.clone(), period_s: period.as_secs().max(1), trust: *trust, keys: RwLock::default() }
    }

    /// Returns the keys at a time since 1970.
    fn at(&self, now: Duration) -> Arc<Keys> {
        let period = now.as_secs() / self.period_s;
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        if keys.period == Some(period) {
            return keys;
        }
        // Workers that do this at the same time derive the same keys.
        let keys = Arc::new(self.derive(period));
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys.clone();
        keys
    }

    fn derive(&self, period: u64) -> Keys {
        let mut keys = Keys { period: Some(period), ..Keys::default() };
        for (number, secret) in self.secrets.0.iter().enumerate() {
            let of = |period| derive(secret, &self.trust, self.period_s, period).ok();
            let now = of(period);
            if number == 0 {
                keys.sealing = now.clone();
            }
            keys.opening.extend(now.map(|key| (key, number > 0)));
            keys.opening.extend(period.checked_sub(1).and_then(of).map(|key| (key, true)));
            keys.opening.extend(of(period + 1).map(|key| (key, number > 0)));
        }
        keys
    }

    fn sealing(&self, now: Duration) -> Option<TicketKey> {
        self.at(now).sealing.clone()
    }

    fn opening(&self, name: &[u8], now: Duration) -> Option<(TicketKey, bool)> {
        self.at(now).opening.iter().find(|(key, _)| key.name == name).cloned()
    }
}

impl TicketKeys for SharedKeys {
    fn to_seal(&self) -> Option<TicketKey> {
        self.sealing(since_1970())
    }

    fn to_open(&self, name: &[u8]) -> Option<(TicketKey, bool)> {
        self.opening(name, since_1970())
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Derives the key of a period (HKDF with SHA-256, RFC 5869).
fn derive(secret: &[u8; 32], trust: &Fingerprint, period_s: u64, period: u64) -> Result<TicketKey, ErrorStack> {
    let info = [&trust[..], &period_s.to_be_bytes(), &period.to_be_bytes()].concat();
    let mut bytes = [0; TICKET_NAME + 32 + 32];
    hkdf(secret, SALT, &info, &mut bytes)?;
    let mut key = TicketKey { name: [0; TICKET_NAME], cipher: [0; 32], mac: [0; 32] };
    let (name, rest) = bytes.split_at(TICKET_NAME);
    let (cipher, mac) = rest.split_at(32);
    key.name.copy_from_slice(name);
    key.cipher.copy_from_slice(cipher);
    key.mac.copy_from_slice(mac);
    Ok(key)
}

fn hkdf(secret: &[u8], salt: &[u8], info: &[u8], out: &mut [u8]) -> Result<(), ErrorStack> {
    let mut context = PkeyCtx::new_id(Id::HKDF)?;
    context.derive_init()?;
    context.set_hkdf_md(Md::sha256())?;
    context.set_hkdf_key(secret)?;
    context.set_hkdf_salt(salt)?;
    context.add_hkdf_info(info)?;
    context.derive(Some(out))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    /// In the middle of a period.
    const NOW: Duration = Duration::from_secs(1_800_000_000 + 1800);

    fn keys(secrets: &[u8], trust: u8) -> SharedKeys {
        let secrets = secrets.iter().map(|byte| [*byte; 32]).collect();
        SharedKeys::new(&TicketSecrets(secrets), HOUR, &[trust; 32])
    }

    /// RFC 5869, appendix A.1.
    #[test]
    fn the_derivation_is_that_of_rfc_5869() {
        let (secret, salt): ([u8; 22], Vec<u8>) = ([0x0b; 22], (0..13).collect());
        let info: Vec<u8> = (0xf0..0xfa).collect();
        let mut out = [0; 42];
        hkdf(&secret, &salt, &info, &mut out).unwrap();
        let text: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
    }

    #[test]
    fn a_server_opens_what_another_has_sealed_in_this_period_and_the_one_before() {
        let (one, other) = (keys(&[1], 7), keys(&[1], 7));
        let sealed = one.sealing(NOW).unwrap();
        let opened = |ms: i64| {
            let at = Duration::from_millis((NOW.as_millis() as i64 + ms) as u64);
            other.opening(&sealed.name, at).map(|(key, renew)| {
                assert_eq!((key.cipher, key.mac), (sealed.cipher, sealed.mac));
                renew
            })
        };
        const HOUR_MS: i64 = 3_600_000;
        assert_eq!(opened(0), Some(false));
        assert_eq!(opened(HOUR_MS), Some(true));
        assert_eq!(opened(2 * HOUR_MS), None);
        assert_eq!(opened(-HOUR_MS), Some(false), "this server's clock is behind");
        assert_eq!(opened(-2 * HOUR_MS), None);
        let next = one.sealing(NOW + HOUR).unwrap();
        assert!(next.name != sealed.name && next.cipher != sealed.cipher && next.mac != sealed.mac);
        // No part of a key is another one's, or its own other part.
        assert_ne!(sealed.cipher, sealed.mac);
    }

    #[test]
    fn another_secret_or_another_trust_or_another_lifetime_opens_nothing() {
        let sealed = keys(&[1], 7).sealing(NOW).unwrap();
        assert!(keys(&[2], 7).opening(&sealed.name, NOW).is_none());
        assert!(keys(&[1], 8).opening(&sealed.name, NOW).is_none());
        let secrets = TicketSecrets(vec![[1; 32]]);
        // The number of the period is the same.
        let longer = SharedKeys::new(&secrets, HOUR * 2, &[7; 32]);
        assert!(longer.opening(&sealed.name, NOW * 2).is_none());
        assert!(SharedKeys::new(&secrets, HOUR, &[7; 32]).opening(&sealed.name, NOW).is_some());
    }

    #[test]
    fn the_first_secret_seals_and_each_opens() {
        let (before, both, swapped, after) = (keys(&[1], 7), keys(&[1, 2], 7), keys(&[2, 1], 7), keys(&[2], 7));
        let (old, new) = (before.sealing(NOW).unwrap(), after.sealing(NOW).unwrap());
        assert_eq!(both.sealing(NOW).unwrap().name, old.name);
        assert_eq!(swapped.sealing(NOW).unwrap().name, new.name);
        let renews = |keys: &SharedKeys, key: &TicketKey| keys.opening(&key.name, NOW).map(|(_, renew)| renew);
        assert_eq!((renews(&both, &old), renews(&both, &new)), (Some(false), Some(true)));
        assert_eq!((renews(&swapped, &old), renews(&swapped, &new)), (Some(true), Some(false)));
        assert_eq!((renews(&before, &new), renews(&after, &old)), (None, None));
    }
}
