//! The settings of TLS: plain data, with files given by path.

use crate::settings::Tls;
use std::path::PathBuf;

/// Everything that decides how connections are made secure.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Settings {
    pub certificates: Certificates,
    /// The other settings of `[tls]`.
    pub rules: Tls,
    /// What the keys of session tickets are derived from, if other servers have it too.
    pub ticket_secrets: TicketSecrets,
    /// The keys of the process that this one takes over from.
    pub ticket_legacy: TicketLegacy,
}

/// The keys of session tickets on their way to the next process of the same server, with what they are good for.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct TicketLegacy {
    /// A fingerprint of identities and verification: with others no session is resumed.
    pub trust: Vec<u8>,
    /// Empty: there are none.
    pub keys: Vec<u8>,
}

impl std::fmt::Debug for TicketLegacy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TicketLegacy({})", self.keys.len())
    }
}

/// Secrets shared with other servers: tickets are sealed by the first and opened by all. Empty: nothing is shared, and the keys of
/// tickets are random.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct TicketSecrets(pub Vec<[u8; 32]>);

impl std::fmt::Debug for TicketSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TicketSecrets({})", self.0.len())
    }
}

/// The certificates we show, and to whom.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Certificates {
    /// What we show as server if the client names no other identity: one pair, or one of RSA and one of ECDSA. Empty: we do not act
    /// as server.
    pub default_identity: Vec<Pair>,
    /// Further identities, chosen by the name that the client requests (SNI, RFC 6066 §3).
    pub identities: Vec<Identity>,
    /// What we show as client if the server requests a certificate. Empty: the default identity.
    pub client_identity: Vec<Pair>,
    /// What certain servers are shown instead, by the numbers used with [`super::Contexts::connect_as`]; never 0. Independent of
    /// [`Tls::show_client_certificate`].
    pub client_identities: Vec<(u64, Vec<Pair>)>,
}

/// A certificate and its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pair {
    /// PEM: the certificate itself, then the intermediate ones, excluding the authority's.
    pub certificate: PathBuf,
    /// PEM, not encrypted.
    pub private_key: PathBuf,
}

/// What we show to clients that ask for `name`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// A DNS name in lower case.
    pub name: String,
    /// One pair, or one of RSA and one of ECDSA.
    pub pairs: Vec<Pair>,
}

/// Which end of the handshake we are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Server,
    Client,
}
