//! TLS for the generator's own ends: contexts made from the options, the sessions a client keeps, and what was agreed on.
//! What carries it is the server's library: TLS over memory.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use clap::{Args, ValueEnum};
use openssl::error::ErrorStack;
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslFiletype, SslMethod, SslOptions, SslRef, SslSession, SslSessionCacheMode, SslVerifyMode,
    SslVersion,
};
use strowger::net::tls::{Side, Tls, accept_ed25519, offer_session};

use crate::sys;

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Version {
    #[value(name = "1.2")]
    Tls12,
    #[value(name = "1.3")]
    Tls13,
}

#[derive(Args)]
pub struct TlsArguments {
    /// Only this version of TLS
    #[arg(long, value_enum)]
    tls_version: Option<Version>,
    /// OpenSSL list of ciphers for TLS 1.2
    #[arg(long, default_value = "")]
    ciphers: String,
    /// Key exchange groups, the preferred one first: X25519, P-256, X25519MLKEM768, … TLS 1.2 wants the curve of an ECDSA certificate among
    /// them, and has no hybrid ones [default: the library's]
    #[arg(long, value_delimiter = ',')]
    groups: Vec<String>,
    /// Whom we trust. With it the chain of the server is checked, and that its certificate names its address
    #[arg(long)]
    ca: Option<PathBuf>,
    /// The callers' certificate, shown when the server asks
    #[arg(long)]
    cert: Option<PathBuf>,
    #[arg(long)]
    key: Option<PathBuf>,
    /// The callers resume their sessions
    #[arg(long)]
    resume: bool,
    /// The answerers' certificate: the listener's identity, or shown when asked [default: the callers']
    #[arg(long)]
    callee_cert: Option<PathBuf>,
    #[arg(long)]
    callee_key: Option<PathBuf>,
    /// Whom the answerers trust [default: --ca]
    #[arg(long)]
    callee_ca: Option<PathBuf>,
    /// The listener requires a certificate of the server
    #[arg(long)]
    callee_verify: bool,
    /// The listener gives tickets; with --callee flow, the answerers resume
    #[arg(long)]
    callee_resume: bool,
}

/// How one side of the generator does TLS, as client or as server.
pub struct Settings<'a> {
    shared: &'a TlsArguments,
    certificate: &'a Option<PathBuf>,
    private_key: &'a Option<PathBuf>,
    /// The peer's chain must lead here. A client that has one also checks the peer's address in its certificate.
    ca: &'a Option<PathBuf>,
    require_certificate: bool,
    resume: bool,
}

impl TlsArguments {
    pub fn caller(&self) -> Settings<'_> {
        let TlsArguments { cert: certificate, key: private_key, ca, resume, .. } = self;
        Settings { shared: self, certificate, private_key, ca, require_certificate: false, resume: *resume }
    }

    pub fn callee(&self) -> Settings<'_> {
        let (certificate, private_key) = match self.callee_cert {
            Some(_) => (&self.callee_cert, &self.callee_key),
            None => (&self.cert, &self.key),
        };
        let ca = if self.callee_ca.is_some() { &self.callee_ca } else { &self.ca };
        let (require_certificate, resume) = (self.callee_verify, self.callee_resume);
        Settings { shared: self, certificate, private_key, ca, require_certificate, resume }
    }
}

/// Sessions that a client may resume. TLS 1.3 tickets are used once (RFC 8446 §C.4), the newest first; of TLS 1.2 the newest is used
/// again and again.
pub struct Sessions<S> {
    single: Vec<S>,
    repeated: Option<S>,
}

/// More than any window of calls needs.
const KEPT: usize = 8_192;

impl<S> Default for Sessions<S> {
    fn default() -> Sessions<S> {
        Sessions { single: Vec::new(), repeated: None }
    }
}

impl<S: Clone> Sessions<S> {
    pub fn put(&mut self, session: S, single_use: bool) {
        if !single_use {
            self.repeated = Some(session);
        } else if self.single.len() < KEPT {
            self.single.push(session);
        }
    }

    pub fn take(&mut self) -> Option<S> {
        self.single.pop().or_else(|| self.repeated.clone())
    }
}

type Cache = Arc<Mutex<Sessions<SslSession>>>;

/// Makes connections for one kind of end.
pub struct Endpoint {
    context: SslContext,
    /// A client's sessions; nothing where it is a server or resumes none.
    sessions: Option<Cache>,
    is_client: bool,
    checks_name: bool,
}

impl Endpoint {
    pub fn client(settings: &Settings) -> Result<Endpoint, String> {
        let mut builder = common(SslMethod::tls_client(), settings)?;
        let mut sessions = None;
        if settings.resume {
            let cache = Cache::default();
            sessions = Some(cache.clone());
            builder.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
            builder.set_new_session_callback(move |ssl, session| {
                if let Ok(mut cache) = cache.lock() {
                    cache.put(session, ssl.version_str() == "TLSv1.3");
                }
            });
        } else {
            builder.set_session_cache_mode(SslSessionCacheMode::OFF);
            builder.set_options(SslOptions::NO_TICKET);
        }
        builder.set_verify(match settings.ca {
            Some(_) => SslVerifyMode::PEER,
            None => SslVerifyMode::NONE,
        });
        Ok(Endpoint { context: builder.build(), sessions, is_client: true, checks_name: settings.ca.is_some() })
    }

    pub fn server(settings: &Settings) -> Result<Endpoint, String> {
        if settings.certificate.is_none() {
            return Err("a TLS listener needs a certificate and its key".into());
        }
        let mut builder = common(SslMethod::tls_server(), settings)?;
        if settings.resume {
            builder.set_session_cache_mode(SslSessionCacheMode::SERVER);
            builder.set_session_id_context(b"strowger-load").map_err(|error| format!("session context: {error}"))?;
        } else {
            builder.set_session_cache_mode(SslSessionCacheMode::OFF);
            builder.set_options(SslOptions::NO_TICKET);
        }
        if settings.require_certificate {
            if settings.ca.is_none() {
                return Err("to require client certificates, a CA is needed".into());
            }
            builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        }
        Ok(Endpoint { context: builder.build(), sessions: None, is_client: false, checks_name: false })
    }

    /// A new connection to or from `peer`. A client's first flight is in its output.
    pub fn open(&self, peer: SocketAddr) -> Result<Tls, String> {
        let side = match self.is_client {
            true => Side::Client,
            false => Side::Server,
        };
        let made = self.prepare(peer.ip()).and_then(|ssl| Tls::from_ssl(ssl, peer, side));
        let mut tls = made.map_err(|error| error.to_string())?;
        tls.start().map_err(|failure| failure.to_string())?;
        Ok(tls)
    }

    /// What the library has of such a connection, with a session to resume where there is one.
    pub fn prepare(&self, peer: IpAddr) -> Result<Ssl, ErrorStack> {
        let mut ssl = Ssl::new(&self.context)?;
        if self.checks_name {
            ssl.param_mut().set_ip(peer)?;
        }
        let session = self.sessions.as_ref().and_then(|cache| cache.lock().ok()?.take());
        if let Some(session) = session {
            // Where it cannot be offered, the handshake is counted as a full one.
            offer_session(&mut ssl, &session, &self.context);
        }
        Ok(ssl)
    }
}

fn common(method: SslMethod, settings: &Settings) -> Result<SslContextBuilder, String> {
    let mut builder = SslContextBuilder::new(method).map_err(|error| error.to_string())?;
    let say = |what: &str, path: &Path, error: ErrorStack| format!("{what} {}: {error}", path.display());
    let (low, high) = match settings.shared.tls_version {
        Some(Version::Tls12) => (SslVersion::TLS1_2, SslVersion::TLS1_2),
        Some(Version::Tls13) => (SslVersion::TLS1_3, SslVersion::TLS1_3),
        None => (SslVersion::TLS1_2, SslVersion::TLS1_3),
    };
    builder
        .set_min_proto_version(Some(low))
        .and_then(|()| builder.set_max_proto_version(Some(high)))
        .map_err(|error| format!("TLS version: {error}"))?;
    let list = &settings.shared.ciphers;
    if !list.is_empty() {
        builder.set_cipher_list(list).map_err(|error| format!("ciphers {list}: {error}"))?;
    }
    set_groups(&mut builder, &settings.shared.groups)?;
    accept_ed25519(&mut builder).map_err(|error| format!("signatures: {error}"))?;
    if let Some(path) = settings.certificate {
        let key = settings.private_key.as_ref().unwrap_or(path);
        builder.set_certificate_chain_file(path).map_err(|error| say("certificate", path, error))?;
        builder.set_private_key_file(key, SslFiletype::PEM).map_err(|error| say("private key", key, error))?;
    }
    if let Some(path) = settings.ca {
        builder.set_ca_file(path).map_err(|error| say("CA", path, error))?;
    }
    Ok(builder)
}

/// Each is tried alone, so that the one is named which the library does not have.
fn set_groups(builder: &mut SslContextBuilder, groups: &[String]) -> Result<(), String> {
    for group in groups {
        if builder.set_groups_list(group).is_err() {
            return Err(format!("groups: {} does not have {group}", openssl::version::version()));
        }
    }
    match groups {
        [] => Ok(()),
        _ => builder.set_groups_list(&groups.join(":")).map_err(|error| format!("groups: {error}")),
    }
}

/// What both sides have agreed on.
#[derive(PartialEq, Eq, Debug)]
pub struct Agreed {
    pub version: &'static str,
    pub cipher: &'static str,
    /// "none" where no keys were exchanged: a session of TLS 1.2 resumed, or RSA.
    pub group: String,
}

impl fmt::Display for Agreed {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.group.as_str() {
            "none" => write!(f, "{} {}", self.version, self.cipher),
            group => write!(f, "{} {} {group}", self.version, self.cipher),
        }
    }
}

impl Agreed {
    pub fn of(ssl: &SslRef) -> Agreed {
        let cipher = ssl.current_cipher().map_or("none", |cipher| cipher.name());
        Agreed { version: ssl.version_str(), cipher, group: sys::group(ssl) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_of_tls_1_3_is_used_once_and_a_session_of_1_2_again() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.take(), None);
        sessions.put(1, true);
        sessions.put(2, true);
        assert_eq!(sessions.take(), Some(2));
        assert_eq!(sessions.take(), Some(1));
        assert_eq!(sessions.take(), None);
        sessions.put(7, false);
        sessions.put(8, false);
        assert_eq!(sessions.take(), Some(8));
        assert_eq!(sessions.take(), Some(8));
    }

    #[test]
    fn sessions_are_bounded() {
        let mut sessions = Sessions::default();
        for number in 0..KEPT + 5 {
            sessions.put(number, true);
        }
        assert_eq!(sessions.take(), Some(KEPT - 1));
    }
}
