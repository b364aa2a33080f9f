//! What the settings name: certificates, keys and authorities, read from their files and checked.

use std::fmt;
use std::path::{Path, PathBuf};

use openssl::error::ErrorStack;
use openssl::pkey::{Id, PKey, Private};
use openssl::sha::Sha256;
use openssl::x509::X509;

use super::certificate::{Certificate, Role};
use super::failure::words_of;
use super::names;
use super::settings::{Pair, Settings};
use crate::settings::VerifyClient;

/// Why settings were rejected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadError {
    pub file: Option<PathBuf>,
    pub reason: String,
}

impl LoadError {
    pub fn file(file: &Path, reason: impl Into<String>) -> LoadError {
        LoadError { file: Some(file.to_path_buf()), reason: reason.into() }
    }

    pub fn new(reason: impl Into<String>) -> LoadError {
        LoadError { file: None, reason: reason.into() }
    }
}

impl From<ErrorStack> for LoadError {
    fn from(errors: ErrorStack) -> LoadError {
        LoadError::new(words_of(&errors))
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(formatter, "{}: {}", file.display(), self.reason),
            None => formatter.write_str(&self.reason),
        }
    }
}

impl std::error::Error for LoadError {}

/// Equal for equal settings, or parts of them.
pub type Fingerprint = [u8; 32];

/// The contents of the files.
pub struct Material {
    pub default_identity: Vec<LoadedPair>,
    pub identities: Vec<(String, Vec<LoadedPair>)>,
    pub client_identity: Vec<LoadedPair>,
    pub client_identities: Vec<(u64, Vec<LoadedPair>)>,
    pub authorities: Vec<X509>,
}

pub struct LoadedPair {
    /// Of the certificate.
    pub file: PathBuf,
    /// The certificate itself, then its chain.
    pub chain: Vec<X509>,
    pub key: PKey<Private>,
    pub digest: Fingerprint,
}

/// Where Debian, Alpine and others keep all authorities in one file, and where Red Hat does.
const SYSTEM_AUTHORITIES: &[&str] =
    &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

impl Material {
    pub fn read(settings: &Settings) -> Result<Material, LoadError> {
        let client_pairs = match settings.rules.show_client_certificate {
            false => &Vec::new(),
            true if settings.certificates.client_identity.is_empty() => &settings.certificates.default_identity,
            true => &settings.certificates.client_identity,
        };
        let identities = settings
            .certificates
            .identities
            .iter()
            .map(|identity| {
                let name = names::normal(&identity.name);
                if !names::is_dns_name(&name) {
                    return Err(LoadError::new(format!("not a DNS name: {name:?}")));
                }
                Ok((name, LoadedPair::read_all(&identity.pairs)?))
            })
            .collect::<Result<Vec<_>, LoadError>>()?;
        let authorities = match &settings.rules.trusted_ca {
            Some(file) => read_certificates(file)?,
            None if settings.rules.verify_client != VerifyClient::No => {
                return Err(LoadError::new("clients cannot be verified without trusted_ca"));
            }
            None => SYSTEM_AUTHORITIES
                .iter()
                .map(Path::new)
                .find(|file| settings.rules.verify_server && file.exists())
                .map_or(Ok(Vec::new()), read_certificates)?,
        };
        Ok(Material {
            default_identity: LoadedPair::read_all(&settings.certificates.default_identity)?,
            identities,
            client_identity: LoadedPair::read_all(client_pairs)?,
            client_identities: settings
                .certificates
                .client_identities
                .iter()
                .map(|(number, pairs)| Ok((*number, LoadedPair::read_all(pairs)?)))
                .collect::<Result<_, LoadError>>()?,
            authorities,
        })
    }

    /// Returns for how long each certificate is valid that we show, and each authority that the conf names.
    pub fn certificates(&self, settings: &Settings) -> Result<Vec<Certificate>, LoadError> {
        let own =
            self.default_identity.iter().chain(self.identities.iter().flat_map(|(_, pairs)| pairs)).chain(&self.client_identity);
        let own = own.chain(self.client_identities.iter().flat_map(|(_, pairs)| pairs));
        let mut certificates = Vec::new();
        let mut add = |file: &Path, first: &X509, rest: &[X509], role| {
            let certificate = Certificate::of(file, first, rest, role);
            certificates.push(certificate.map_err(|errors| LoadError::file(file, words_of(&errors)))?);
            Ok::<(), LoadError>(())
        };
        for pair in own {
            if let Some((first, rest)) = pair.chain.split_first() {
                add(&pair.file, first, rest, Role::Shown)?;
            }
        }
        if let Some(file) = &settings.rules.trusted_ca {
            self.authorities.iter().try_for_each(|authority| add(file, authority, &[], Role::Trusted))?;
        }
        certificates.sort();
        certificates.dedup();
        Ok(certificates)
    }

    /// Our identities, what we trust, and for how long.
    pub fn trust(&self, settings: &Settings) -> Fingerprint {
        let mut hash = Sha256::new();
        let mut pairs = |pairs: &[LoadedPair]| {
            hash.update(&(pairs.len() as u64).to_be_bytes());
            for pair in pairs {
                hash.update(&pair.digest);
            }
        };
        pairs(&self.default_identity);
        pairs(&self.client_identity);
        for (_, identity) in &self.identities {
            pairs(identity);
        }
        for (_, identity) in &self.client_identities {
            pairs(identity);
        }
        for (number, _) in &self.client_identities {
            hash.update(&number.to_be_bytes());
        }
        for (name, _) in &self.identities {
            hash.update(name.as_bytes());
            hash.update(b"\0");
        }
        for authority in &self.authorities {
            hash.update(&authority.to_der().unwrap_or_default());
        }
        hash.update(&[settings.rules.verify_client as u8, settings.rules.verify_server.into()]);
        for purpose in &settings.rules.client_purposes {
            hash.update(&[*purpose as u8]);
        }
        hash.update(b"\xff");
        hash.update(&settings.rules.session_lifetime.to_be_bytes());
        hash.finish()
    }

    pub fn fingerprint(&self, settings: &Settings, trust: &Fingerprint) -> Fingerprint {
        let mut hash = Sha256::new();
        hash.update(trust);
        hash.update(&[
            settings.rules.min_version as u8,
            settings.rules.max_version as u8,
            settings.rules.server_session_reuse.into(),
            settings.rules.client_session_reuse.into(),
        ]);
        hash.update(settings.rules.ciphers.as_bytes());
        hash.update(b"\0");
        hash.update(settings.rules.ciphersuites.as_bytes());
        for group in &settings.rules.groups {
            hash.update(b"\0");
            hash.update(group.as_bytes());
        }
        hash.finish()
    }
}

impl LoadedPair {
    fn read_all(pairs: &[Pair]) -> Result<Vec<LoadedPair>, LoadError> {
        let mut loaded: Vec<LoadedPair> = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let next = LoadedPair::read(pair)?;
            if loaded.iter().any(|other| other.key.id() == next.key.id()) {
                let kind = match next.key.id() {
                    Id::RSA => "an RSA key",
                    Id::EC => "an ECDSA key",
                    _ => "a key of this kind",
                };
                let reason = format!("{kind} is given twice for one identity");
                return Err(LoadError::file(&pair.private_key, reason));
            }
            loaded.push(next);
        }
        Ok(loaded)
    }

    fn read(pair: &Pair) -> Result<LoadedPair, LoadError> {
        let chain = read_certificates(&pair.certificate)?;
        let text = read(&pair.private_key)?;
        let mut is_encrypted = false;
        let key = PKey::private_key_from_pem_callback(&text, |_| {
            is_encrypted = true;
            Ok(0)
        });
        let key = match key {
            Ok(key) => key,
            Err(_) if is_encrypted => {
                let reason = "the private key is encrypted: store it without a passphrase";
                return Err(LoadError::file(&pair.private_key, reason));
            }
            Err(errors) => {
                let reason = format!("not a private key in PEM: {}", words_of(&errors));
                return Err(LoadError::file(&pair.private_key, reason));
            }
        };
        let Some(leaf) = chain.first() else {
            return Err(LoadError::file(&pair.certificate, "no certificate in it"));
        };
        let public = leaf.public_key().map_err(|errors| LoadError::file(&pair.certificate, words_of(&errors)))?;
        if !public.public_eq(&key) {
            let file = pair.certificate.display();
            let reason = format!("not the private key of the (first) certificate in {file}");
            return Err(LoadError::file(&pair.private_key, reason));
        }
        let mut hash = Sha256::new();
        for certificate in &chain {
            hash.update(&certificate.to_der()?);
        }
        hash.update(&text);
        Ok(LoadedPair { file: pair.certificate.clone(), chain, key, digest: hash.finish() })
    }
}

fn read(file: &Path) -> Result<Vec<u8>, LoadError> {
    std::fs::read(file).map_err(|error| LoadError::file(file, error.to_string()))
}

fn read_certificates(file: &Path) -> Result<Vec<X509>, LoadError> {
    let certificates = X509::stack_from_pem(&read(file)?).map_err(|errors| {
        let reason = format!("not certificates in PEM: {}", words_of(&errors));
        LoadError::file(file, reason)
    })?;
    if certificates.is_empty() {
        return Err(LoadError::file(file, "no certificate in it"));
    }
    Ok(certificates)
}
