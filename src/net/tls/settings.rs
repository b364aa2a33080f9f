//! What TLS is set up from: plain data, files by their paths.

use std::path::PathBuf;
use std::time::Duration;

/// Everything that decides how connections are made secure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// What we show as server when the client names no other identity: one pair, or one of RSA and one of ECDSA. Empty: we
    /// are no server.
    pub default_identity: Vec<Pair>,
    /// Further identities, chosen by the name that the client asks for (SNI, RFC 6066 §3).
    pub identities: Vec<Identity>,
    /// What we show as client when the server asks. Empty: the default identity.
    pub client_identity: Vec<Pair>,
    /// What certain servers are shown instead, by numbers that [`super::Contexts::connect_as`] knows them by; never 0.
    pub client_identities: Vec<(u64, Vec<Pair>)>,
    /// False: nothing is shown to servers, but for those.
    pub show_client_certificate: bool,
    /// PEM file of the authorities that peers' certificates must come from. `None`: those of the system.
    pub trusted_ca: Option<PathBuf>,
    pub verify_client: VerifyClient,
    /// What clients' certificates must be made for, one of these at least. Servers' must be made for servers.
    pub client_purposes: Vec<Purpose>,
    /// Whether the chain and the name (RFC 5922) of each server are checked.
    pub verify_server: bool,
    pub min_version: Version,
    pub max_version: Version,
    /// Suites of TLS 1.2 as OpenSSL names them (or by their standard names), divided by colons, the best first. Empty: forward
    /// secrecy and authenticated encryption only.
    pub ciphers: String,
    /// Suites of TLS 1.3. Empty: the library's.
    pub ciphersuites: String,
    /// Key exchange groups, the best first. Of the default, those that the library does not have are left out.
    pub groups: Vec<String>,
    /// Whether clients may resume sessions.
    pub server_session_reuse: bool,
    /// Whether we resume sessions with servers.
    pub client_session_reuse: bool,
    /// For how long a session can be resumed.
    pub session_lifetime: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            default_identity: Vec::new(),
            identities: Vec::new(),
            client_identity: Vec::new(),
            client_identities: Vec::new(),
            show_client_certificate: true,
            trusted_ca: None,
            verify_client: VerifyClient::No,
            client_purposes: vec![Purpose::ClientAuth],
            verify_server: true,
            min_version: Version::Tls12,
            max_version: Version::Tls13,
            ciphers: String::new(),
            ciphersuites: String::new(),
            groups: ["X25519MLKEM768", "X25519", "P-256", "P-384"]
                .map(str::to_owned)
                .into(),
            server_session_reuse: true,
            client_session_reuse: true,
            session_lifetime: Duration::from_secs(3600),
        }
    }
}

/// A certificate and its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pair {
    /// PEM: the certificate itself, then the intermediate ones up to (and without) the authority's.
    pub certificate: PathBuf,
    /// PEM, not encrypted.
    pub private_key: PathBuf,
}

/// What we show to clients that ask for `name`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// A DNS name.
    pub name: String,
    /// One pair, or one of RSA and one of ECDSA.
    pub pairs: Vec<Pair>,
}

/// Whether clients must prove who they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VerifyClient {
    /// They are not asked.
    No,
    /// They are asked; a certificate that is shown must be good.
    Optional,
    Required,
}

/// A key purpose (RFC 5280 §4.2.1.12). The whole chain must be made for the same one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    ClientAuth,
    ServerAuth,
    /// Whatever it was made for.
    Any,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Version {
    Tls12,
    Tls13,
}

impl Version {
    /// As conf files write it.
    pub fn parse(text: &str) -> Option<Version> {
        match text {
            "1.2" => Some(Version::Tls12),
            "1.3" => Some(Version::Tls13),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Version::Tls12 => "1.2",
            Version::Tls13 => "1.3",
        }
    }
}

/// Which end of the handshake we are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Server,
    Client,
}
