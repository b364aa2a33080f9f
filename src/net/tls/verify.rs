//! The checks of a peer's certificate: its chain (RFC 5280 §6), and for a server its name (RFC 5922 §7.3).
//!
//! A valid chain is accepted again without recomputing its signatures if the same bytes return within a session's lifetime: a
//! session that is resumed is not verified anew either. That the peer has the key is proved each time.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::sha::Sha256;
use openssl::ssl::SslRef;
use openssl::x509::{X509PurposeId, X509Ref, X509StoreContext, X509StoreContextRef, X509VerifyResult};

use super::names;
use super::notes::notes_index;
use super::recent::Recent;
use crate::net::sys::ssl::{self, Verify};
use crate::settings::Purpose;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Checks {
    Nothing,
    /// For a client: the chain, and that all of it is made for one of these purposes.
    Chain(Vec<Purpose>),
    /// For a server; the library checks the purpose.
    ChainAndName,
}

/// How many chains are remembered; temporarily twice as many, see `Recent`.
const CHAINS: usize = 4096;

/// The verifier of one context: a context with another authority or purpose has its own, which remembers nothing yet.
pub struct Verifier {
    checks: Checks,
    lifetime: Duration,
    /// The digests of valid chains, and until when they are valid.
    good: Mutex<Recent<[u8; 32], Instant, CHAINS>>,
}

impl Verifier {
    pub fn new(checks: Checks, lifetime: Duration) -> Verifier {
        Verifier { checks, lifetime, good: Mutex::default() }
    }

    fn check_chain(&self, store: &mut X509StoreContextRef) -> bool {
        let digest = digest(store);
        if let Some(digest) = &digest {
            let mut good = self.good.lock().unwrap_or_else(|fault| fault.into_inner());
            if good.get(digest).is_some_and(|until| Instant::now() < *until) {
                store.set_error(X509VerifyResult::OK);
                return true;
            }
        }
        let purposes = match &self.checks {
            // This is the library's own default for clients, and is reported in its words.
            Checks::Chain(purposes) if purposes[..] != [Purpose::ClientAuth] => Some(purposes),
            _ => None,
        };
        if purposes.is_some() {
            ssl::take_any_purpose(store);
        }
        if !store.verify_cert().unwrap_or(false) {
            if store.error() == X509VerifyResult::OK {
                store.set_error(X509VerifyResult::APPLICATION_VERIFICATION);
            }
            return false;
        }
        if let Some(purposes) = purposes
            && !purposes.iter().any(|purpose| is_made_for(store, *purpose))
        {
            store.set_error(ssl::wrong_purpose());
            return false;
        }
        if let Some(digest) = digest
            && let Some(rest) = validity(store)
            && let Some(until) = Instant::now().checked_add(rest.min(self.lifetime))
        {
            let mut good = self.good.lock().unwrap_or_else(|fault| fault.into_inner());
            good.insert(digest, until);
        }
        true
    }
}

impl Verify for Verifier {
    fn verify(&self, store: &mut X509StoreContextRef) -> bool {
        let is_good = match &self.checks {
            Checks::Nothing => {
                store.set_error(X509VerifyResult::OK);
                true
            }
            Checks::Chain(_) => self.check_chain(store),
            Checks::ChainAndName => self.check_chain(store) && check_name(store),
        };
        if is_good {
            // Failed lookups leave errors behind, which the next call on this thread would take for its own.
            drop(ErrorStack::get());
        }
        is_good
    }
}

/// True if all of a verified chain is made for the purpose: the certificate and its issuers up to the trusted authority, whose own
/// extensions are not checked.
fn is_made_for(store: &X509StoreContextRef, purpose: Purpose) -> bool {
    let purpose = match purpose {
        Purpose::ClientAuth => X509PurposeId::SSL_CLIENT,
        Purpose::ServerAuth => X509PurposeId::SSL_SERVER,
        Purpose::Any => return true,
    };
    let Some(chain) = store.chain() else {
        return false;
    };
    let trusted = chain.len().saturating_sub(1).max(1);
    let mut asked = chain.iter().take(trusted).enumerate();
    asked.all(|(depth, certificate)| ssl::is_made_for(certificate, purpose, depth > 0))
}

/// Returns the digest of the certificate and of everything that came with it.
fn digest(store: &X509StoreContextRef) -> Option<[u8; 32]> {
    let (certificate, chain) = ssl::presented(store);
    let mut hash = Sha256::new();
    let mut add = |certificate: &X509Ref| {
        let digest = certificate.digest(MessageDigest::sha256()).ok()?;
        hash.update(&digest);
        Some(())
    };
    add(certificate?)?;
    for certificate in chain? {
        add(certificate)?;
    }
    Some(hash.finish())
}

/// Returns how long all certificates of the verified chain remain valid.
fn validity(store: &X509StoreContextRef) -> Option<Duration> {
    let now = Asn1Time::days_from_now(0).ok()?;
    let mut shortest = Duration::MAX;
    for certificate in store.chain()? {
        let rest = now.diff(certificate.not_after()).ok()?;
        let seconds = i64::from(rest.days) * 86_400 + i64::from(rest.secs);
        shortest = shortest.min(Duration::from_secs(u64::try_from(seconds).ok()?));
    }
    Some(shortest)
}

/// Checks whether the certificate proves the name that the connection was made for.
fn check_name(store: &mut X509StoreContextRef) -> bool {
    let connection: Option<&SslRef> = X509StoreContext::ssl_idx().ok().and_then(|index| store.ex_data(index));
    let notes = connection.and_then(|ssl| ssl.ex_data(notes_index().ok()?));
    if let (Some(notes), (Some(certificate), _)) = (notes, ssl::presented(store)) {
        let name = &notes.peer.name;
        if names::proves(certificate, name) {
            return true;
        }
        let proved = names::identities(certificate);
        // There is one check for each handshake.
        let _ = notes.refusal.set(if proved.is_empty() {
            format!("the certificate names no host, not {name}")
        } else {
            format!("the certificate is for {}, not {name}", proved.join(", "))
        });
    }
    store.set_error(ssl::name_mismatch());
    false
}
