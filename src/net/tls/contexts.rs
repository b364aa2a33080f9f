//! The library contexts of both sides, made from settings completely or not at all, and shared by all workers.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use openssl::error::ErrorStack;
use openssl::sha::Sha256;
use openssl::ssl::{
    NameType, SniError, Ssl, SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions, SslSessionCacheMode, SslVerifyMode,
    SslVersion,
};
use openssl::stack::Stack;
use openssl::x509::X509;
use openssl::x509::store::{X509Store, X509StoreBuilder};

use super::certificate::Certificate;
use super::failure::words_of;
use super::machine::Tls;
use super::material::{Fingerprint, LoadError, LoadedPair, Material};
use super::names;
use super::notes::{ClientNotes, notes_index};
use super::sessions::{ClientSessions, PeerName};
use super::settings::{Settings, Side, TicketLegacy};
use super::shared_tickets::SharedKeys;
use super::tickets::RotatingKeys;
use super::verify::{Checks, Verifier};
use crate::net::sys::ssl::{self, TicketKeys};
use crate::settings::{self, VerifyClient, Version};

/// Forward secrecy and authenticated encryption only; AES-128 first, the cheapest on processors that support it.
const CIPHERS: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
    ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:\
    ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
const CIPHERSUITES: &str = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";

/// Standard names of cipher suites, as used in the SIP RFCs, and the library's names.
const STANDARD_NAMES: &[(&str, &str)] = &[
    ("TLS_RSA_WITH_AES_128_CBC_SHA", "AES128-SHA"),
    ("TLS_RSA_WITH_AES_256_CBC_SHA", "AES256-SHA"),
    ("TLS_RSA_WITH_AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
    ("TLS_RSA_WITH_AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
    ("TLS_RSA_WITH_3DES_EDE_CBC_SHA", "DES-CBC3-SHA"),
    ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", "ECDHE-RSA-AES128-SHA"),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "ECDHE-RSA-AES256-GCM-SHA384"),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384"),
];

/// Parts of the names of obsolete suites. A list that contains one is refused, except 3DES in a build for measuring it.
const OLD: &[&str] = &["3DES", "DES-CBC3", "NULL", "RC4", "EXP", "ADH", "AECDH", "MD5", "ALL"];

/// Sessions, in server memory, of clients without ticket support.
const SERVER_SESSIONS: i32 = 20_480;

/// Tickets that a server sends after a full TLS 1.3 handshake.
const TICKETS: usize = 2;

/// Everything that new connections need. Existing connections keep what they were made from: a reload affects only new ones.
pub struct Contexts {
    server: Option<SslContext>,
    verifies_client: bool,
    client: ClientContext,
    /// With other certificates to show, by number.
    clients: HashMap<u64, ClientContext>,
    keys: Arc<dyn TicketKeys>,
    /// For how long what they were made from is valid.
    certificates: Vec<Certificate>,
    /// Of everything that the contexts were made from.
    fingerprint: Fingerprint,
    /// Of identities and verification alone: while it is unchanged, tickets remain valid.
    trust: Fingerprint,
}

#[derive(Clone)]
struct ClientContext {
    context: SslContext,
    verifies: bool,
    /// `None`: sessions are not reused.
    sessions: Option<Arc<ClientSessions>>,
    shows_certificate: bool,
}

impl Contexts {
    /// Reads every file and makes the contexts; nothing takes effect unless all succeed.
    ///
    /// `previous` are the contexts that these replace. If identities and verification are the same by file content, earlier
    /// sessions can be resumed; otherwise none can.
    pub fn load(settings: &Settings, previous: Option<&Contexts>) -> Result<Contexts, LoadError> {
        let material = Material::read(settings)?;
        let trust = material.trust(settings);
        let fingerprint = material.fingerprint(settings, &trust);
        let certificates = material.certificates(settings)?;
        if let Some(previous) = previous
            && previous.fingerprint == fingerprint
        {
            return Ok(Contexts {
                server: previous.server.clone(),
                verifies_client: previous.verifies_client,
                client: previous.client.clone(),
                clients: previous.clients.clone(),
                keys: previous.keys.clone(),
                certificates,
                fingerprint,
                trust,
            });
        }
        let keys = match previous {
            Some(previous) if previous.trust == trust => previous.keys.clone(),
            _ => ticket_keys(settings, &trust),
        };
        let key_log = KeyLog::from_environment()?;
        let maker = Maker { settings, material: &material, trust: &trust, keys: &keys, key_log: key_log.as_ref() };
        Ok(Contexts {
            server: maker.server()?,
            verifies_client: settings.rules.verify_client != VerifyClient::No,
            client: maker.client(&material.client_identity)?,
            clients: material
                .client_identities
                .iter()
                .map(|(number, pairs)| Ok((*number, maker.client(pairs)?)))
                .collect::<Result<_, LoadError>>()?,
            keys,
            certificates,
            fingerprint,
            trust,
        })
    }

    /// Returns the machine for a connection from `peer`. Fails if there is no identity to show, or no memory.
    pub fn accept(&self, peer: SocketAddr) -> Result<Tls, LoadError> {
        let Some(context) = &self.server else {
            return Err(LoadError::new("no certificate to show to clients"));
        };
        let mut ssl = Ssl::new(context)?;
        ssl.set_accept_state();
        ssl::shed_handshake(&mut ssl);
        Ok(Tls::new(ssl, peer, Side::Server, self.verifies_client, None)?)
    }

    /// Returns the machine for a connection to `peer`, which must prove to be `name`: the domain that was originally requested (RFC
    /// 5922 §7.3), or an IP address literal. After `start` its first flight is ready.
    pub fn connect(&self, peer: SocketAddr, name: &str) -> Result<Tls, LoadError> {
        self.connect_as(peer, name, 0)
    }

    /// The same, showing the certificate of this number if requested; 0: the default.
    pub fn connect_as(&self, peer: SocketAddr, name: &str, identity: u64) -> Result<Tls, LoadError> {
        let client = match identity {
            0 => &self.client,
            _ => self
                .clients
                .get(&identity)
                .ok_or_else(|| LoadError::new("the certificate of its [[route]] is in the conf no more"))?,
        };
        let mut ssl = Ssl::new(&client.context)?;
        ssl.set_connect_state();
        ssl::shed_handshake(&mut ssl);
        let name = names::normal(name);
        if names::is_dns_name(&name) {
            ssl.set_hostname(&name)?;
        } else if names::address(&name).is_none() {
            return Err(LoadError::new(format!("not a name: {name:?}")));
        }
        let peer_name = Arc::new(PeerName { name, address: peer });
        let mut offered = None;
        if let Some(sessions) = &client.sessions
            && let Some(session) = sessions.take(&peer_name)
            && ssl::offer_session(&mut ssl, &session, &client.context)
        {
            offered = Some(sessions.clone());
        }
        ssl.set_ex_data(
            notes_index()?,
            ClientNotes { peer: peer_name, has_certificate: client.shows_certificate, was_asked: false, refusal: OnceLock::new() },
        );
        Ok(Tls::new(ssl, peer, Side::Client, client.verifies, offered)?)
    }

    /// Returns the keys of session tickets for the process that takes over from this one.
    pub fn ticket_legacy(&self) -> TicketLegacy {
        TicketLegacy { trust: self.trust.to_vec(), keys: self.keys.legacy() }
    }

    /// Returns the certificates that we show, and the authorities that the conf names.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// True if both were made from the same files and settings.
    pub fn is_same(&self, other: &Contexts) -> bool {
        self.fingerprint == other.fingerprint
    }

    /// True if we have a certificate to show to servers that request one.
    #[cfg(test)]
    pub(super) fn shows_client_certificate(&self) -> bool {
        self.client.shows_certificate
    }

    #[cfg(test)]
    pub(super) fn rename_sessions(&self, from: &str, to: &str) {
        if let Some(sessions) = &self.client.sessions {
            sessions.rename(from, to);
        }
    }

    /// Returns how many sessions with servers are kept.
    #[cfg(test)]
    pub(super) fn client_sessions(&self) -> usize {
        self.client.sessions.as_ref().map_or(0, |sessions| sessions.len())
    }
}

// ---- the contexts ------------------------------------------------------------------------------------------------------

/// Returns new keys of tickets: of this server alone, or the same on each server that has the same secrets and the same trust.
fn ticket_keys(settings: &Settings, trust: &Fingerprint) -> Arc<dyn TicketKeys> {
    let lifetime = settings.rules.lifetime();
    let legacy = &settings.ticket_legacy;
    let inherit = || RotatingKeys::inherit(lifetime, Instant::now(), &legacy.keys);
    match settings.ticket_secrets.0.is_empty() {
        true => {
            let inherited = (legacy.trust == trust[..]).then(inherit).flatten();
            Arc::new(inherited.unwrap_or_else(|| RotatingKeys::new(lifetime, Instant::now())))
        }
        false => Arc::new(SharedKeys::new(&settings.ticket_secrets, lifetime, trust)),
    }
}

struct Maker<'a> {
    settings: &'a Settings,
    material: &'a Material,
    trust: &'a Fingerprint,
    keys: &'a Arc<dyn TicketKeys>,
    key_log: Option<&'a KeyLog>,
}

impl Maker<'_> {
    fn server(&self) -> Result<Option<SslContext>, LoadError> {
        if self.material.default_identity.is_empty() {
            if self.material.identities.is_empty() {
                return Ok(None);
            }
            return Err(LoadError::new("identities by name need a default certificate beside them"));
        }
        let mut by_name = HashMap::new();
        for (name, pairs) in &self.material.identities {
            let context = self.server_for(pairs)?.build();
            if by_name.insert(name.clone(), context).is_some() {
                let reason = format!("two identities of the name {name}");
                return Err(LoadError::new(reason));
            }
        }
        let mut builder = self.server_for(&self.material.default_identity)?;
        if !by_name.is_empty() {
            choose_by_name(&mut builder, by_name);
        }
        Ok(Some(builder.build()))
    }

    /// Builds a server context that shows these certificates.
    fn server_for(&self, pairs: &[LoadedPair]) -> Result<SslContextBuilder, LoadError> {
        let mut builder = SslContextBuilder::new(SslMethod::tls_server())?;
        self.set_common(&mut builder)?;
        builder.set_options(SslOptions::CIPHER_SERVER_PREFERENCE);
        set_identity(&mut builder, pairs)?;
        match self.settings.rules.verify_client {
            VerifyClient::No => builder.set_verify(SslVerifyMode::NONE),
            VerifyClient::Optional => builder.set_verify(SslVerifyMode::PEER),
            VerifyClient::Required => builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT),
        }
        let purposes = self.settings.rules.client_purposes.clone();
        self.set_verifier(&mut builder, Checks::Chain(purposes))?;
        if self.settings.rules.verify_client != VerifyClient::No {
            let mut names = Stack::new()?;
            for authority in &self.material.authorities {
                names.push(authority.subject_name().to_owned()?)?;
            }
            builder.set_client_ca_list(names);
        }
        // A session of another identity or of other settings is not resumed even if its ticket can be read.
        let mut hash = Sha256::new();
        hash.update(self.trust);
        for pair in pairs {
            hash.update(&pair.digest);
        }
        builder.set_session_id_context(&hash.finish())?;
        if self.settings.rules.server_session_reuse {
            builder.set_session_cache_mode(SslSessionCacheMode::SERVER);
            builder.set_session_cache_size(SERVER_SESSIONS);
            ssl::set_ticket_keys(&mut builder, self.keys.clone())?;
            ssl::set_ticket_count(&mut builder, TICKETS)?;
        } else {
            builder.set_session_cache_mode(SslSessionCacheMode::OFF);
            builder.set_options(SslOptions::NO_TICKET);
            ssl::set_ticket_count(&mut builder, 0)?;
        }
        Ok(builder)
    }

    /// Builds a client context that shows these certificates.
    fn client(&self, pairs: &[LoadedPair]) -> Result<ClientContext, LoadError> {
        let mut builder = SslContextBuilder::new(SslMethod::tls_client())?;
        self.set_common(&mut builder)?;
        set_identity(&mut builder, pairs)?;
        ssl::set_certificate_callback(&mut builder, |ssl| {
            if let Ok(index) = notes_index()
                && let Some(notes) = ssl.ex_data_mut(index)
            {
                notes.was_asked = true;
            }
        });
        let checks = if self.settings.rules.verify_server {
            builder.set_verify(SslVerifyMode::PEER);
            Checks::ChainAndName
        } else {
            builder.set_verify(SslVerifyMode::NONE);
            Checks::Nothing
        };
        self.set_verifier(&mut builder, checks)?;
        let sessions = if self.settings.rules.client_session_reuse {
            let sessions = Arc::new(ClientSessions::default());
            let cache = sessions.clone();
            builder.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
            // The library provides a session only after the handshake, so it has passed the configured checks.
            builder.set_new_session_callback(move |ssl, session| {
                if let Ok(index) = notes_index()
                    && let Some(notes) = ssl.ex_data(index)
                {
                    cache.put(&notes.peer, session);
                }
            });
            Some(sessions)
        } else {
            builder.set_session_cache_mode(SslSessionCacheMode::OFF);
            builder.set_options(SslOptions::NO_TICKET);
            None
        };
        Ok(ClientContext {
            context: builder.build(),
            verifies: self.settings.rules.verify_server,
            sessions,
            shows_certificate: !pairs.is_empty(),
        })
    }

    fn set_verifier(&self, builder: &mut SslContextBuilder, checks: Checks) -> Result<(), ErrorStack> {
        let verifier = Verifier::new(checks, self.settings.rules.lifetime());
        ssl::set_verifier(builder, Box::new(verifier))
    }

    fn set_common(&self, builder: &mut SslContextBuilder) -> Result<(), LoadError> {
        let settings = self.settings;
        if settings.rules.min_version > settings.rules.max_version {
            return Err(LoadError::new("min_version is above max_version"));
        }
        builder.set_min_proto_version(Some(number(settings.rules.min_version)))?;
        builder.set_max_proto_version(Some(number(settings.rules.max_version)))?;
        builder.set_mode(SslMode::RELEASE_BUFFERS | SslMode::ACCEPT_MOVING_WRITE_BUFFER | SslMode::AUTO_RETRY);
        // The chain is exactly what its file holds: OpenSSL would add the authority's certificate if it is trusted.
        builder.set_mode(SslMode::NO_AUTO_CHAIN);
        builder.set_options(SslOptions::NO_RENEGOTIATION);
        #[cfg(not(feature = "aws-lc"))]
        builder.set_options(SslOptions::NO_COMPRESSION);
        set_groups(builder, &settings.rules.groups)?;
        ssl::accept_ed25519(builder)?;
        set_ciphers(builder, &settings.rules.ciphers)?;
        let suites = match settings.rules.ciphersuites.as_str() {
            "" => CIPHERSUITES,
            chosen => chosen,
        };
        ssl::set_ciphersuites(builder, suites).map_err(|_| LoadError::new(format!("ciphersuites: none known in {suites:?}")))?;
        ssl::set_session_timeout(builder, settings.rules.session_lifetime);
        builder.set_cert_store(store(&self.material.authorities)?);
        if let Some(log) = self.key_log {
            let log = log.clone();
            builder.set_keylog_callback(move |_, line| log.write(line));
        }
        Ok(())
    }
}

/// Selects the context by the name that a client requests.
#[cfg(feature = "aws-lc")]
fn choose_by_name(builder: &mut SslContextBuilder, by_name: HashMap<String, SslContext>) {
    builder.set_servername_callback(move |ssl, _| {
        let Some(name) = ssl.servername(NameType::HOST_NAME) else {
            return Err(SniError::NOACK);
        };
        match by_name.get(&names::normal(name)) {
            Some(context) => ssl.set_ssl_context(context).map_err(|_| SniError::ALERT_FATAL),
            None => Err(SniError::NOACK),
        }
    });
}

/// The same before anything else: OpenSSL resumes a session before it reports the name, and would resume one of another identity.
#[cfg(not(feature = "aws-lc"))]
fn choose_by_name(builder: &mut SslContextBuilder, by_name: HashMap<String, SslContext>) {
    builder.set_client_hello_callback(move |ssl, _| {
        let context = ssl::asked_name(ssl).and_then(|name| by_name.get(&names::normal(&name)));
        if let Some(context) = context {
            ssl.set_ssl_context(context)?;
        }
        Ok(openssl::ssl::ClientHelloResponse::SUCCESS)
    });
    // Without it the client does not learn that its name was recognised.
    builder.set_servername_callback(|ssl, _| match ssl.servername(NameType::HOST_NAME) {
        Some(_) => Ok(()),
        None => Err(SniError::NOACK),
    });
}

fn number(version: Version) -> SslVersion {
    match version {
        Version::Tls12 => SslVersion::TLS1_2,
        Version::Tls13 => SslVersion::TLS1_3,
    }
}

fn store(authorities: &[X509]) -> Result<X509Store, ErrorStack> {
    let mut builder = X509StoreBuilder::new()?;
    for authority in authorities {
        builder.add_cert(authority.clone())?;
    }
    Ok(builder.build())
}

fn set_identity(builder: &mut SslContextBuilder, pairs: &[LoadedPair]) -> Result<(), ErrorStack> {
    for pair in pairs {
        if let Some((leaf, chain)) = pair.chain.split_first() {
            builder.set_certificate(leaf)?;
            for certificate in chain {
                ssl::add_chain_certificate(builder, certificate)?;
            }
            builder.set_private_key(&pair.key)?;
        }
    }
    Ok(())
}

/// Tries every group separately, to name one that the library does not support.
fn set_groups(builder: &mut SslContextBuilder, groups: &[String]) -> Result<(), LoadError> {
    let is_default = groups == settings::Tls::default().groups;
    let mut known = Vec::new();
    for group in groups {
        let is_known = builder.set_groups_list(group).is_ok();
        drop(ErrorStack::get());
        if is_known {
            known.push(group.as_str());
        } else if !is_default {
            let library = openssl::version::version();
            let reason = format!("groups: {group}: {library} does not have it");
            return Err(LoadError::new(reason));
        }
    }
    Ok(builder.set_groups_list(&known.join(":"))?)
}

fn set_ciphers(builder: &mut SslContextBuilder, list: &str) -> Result<(), LoadError> {
    if list.is_empty() {
        return Ok(builder.set_cipher_list(CIPHERS)?);
    }
    let mut chosen = Vec::new();
    for element in list.split([':', ',', ' ']).filter(|part| !part.is_empty()) {
        let element = STANDARD_NAMES.iter().find(|(standard, _)| *standard == element).map_or(element, |(_, name)| name);
        let is_removal = element.starts_with(['!', '-']);
        if !is_removal && let Some(old) = OLD.iter().find(|old| element.contains(**old)) {
            let is_3des = old.contains("DES");
            if !(is_3des && cfg!(feature = "old-suites")) {
                let reason = if is_3des { "unsafe, and only in a build with the feature old-suites" } else { "unsafe" };
                return Err(LoadError::new(format!("ciphers: {element}: {reason}")));
            }
            log::warn!("TLS suite {element} is unsafe: for measuring only");
        }
        // The library skips unknown elements as long as it knows another.
        let is_one = element.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_+.".contains(&byte));
        if is_one && builder.set_cipher_list(element).is_err() {
            return Err(LoadError::new(format!("ciphers: {element}: no such suite")));
        }
        chosen.push(element);
    }
    #[cfg(all(feature = "old-suites", not(feature = "aws-lc")))]
    builder.set_security_level(0);
    builder.set_cipher_list(&chosen.join(":")).map_err(|errors| LoadError::new(format!("ciphers: {list}: {}", words_of(&errors))))
}

/// Session secrets for decrypting captures, in NSS format, if the environment variable SSLKEYLOGFILE requests them.
#[derive(Clone)]
struct KeyLog {
    file: Arc<Mutex<std::fs::File>>,
}

impl KeyLog {
    fn from_environment() -> Result<Option<KeyLog>, LoadError> {
        let Some(path) = std::env::var_os("SSLKEYLOGFILE").filter(|path| !path.is_empty()) else {
            return Ok(None);
        };
        let path = PathBuf::from(path);
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .map_err(|error| LoadError::file(&path, format!("SSLKEYLOGFILE: {error}")))?;
        log::warn!("SSLKEYLOGFILE is set: the secrets of all TLS connections are written to {}", path.display());
        Ok(Some(KeyLog { file: Arc::new(Mutex::new(file)) }))
    }

    fn write(&self, line: &str) {
        let mut file = self.file.lock().unwrap_or_else(|fault| fault.into_inner());
        // A full disk must not stop calls.
        let _ = file.write_all(format!("{line}\n").as_bytes());
    }
}
