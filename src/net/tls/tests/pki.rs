//! Authorities and certificates made for the tests.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName, SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509NameBuilder};

use crate::net::tls::Pair;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Ecdsa,
    Rsa,
    Ed25519,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Ecdsa, Kind::Rsa, Kind::Ed25519];

    fn key(self) -> PKey<Private> {
        // One key for each kind: making an RSA key takes long, and no test depends on its owner.
        static ECDSA: OnceLock<PKey<Private>> = OnceLock::new();
        static RSA: OnceLock<PKey<Private>> = OnceLock::new();
        static ED25519: OnceLock<PKey<Private>> = OnceLock::new();
        match self {
            Kind::Ecdsa => ECDSA.get_or_init(ecdsa_key).clone(),
            Kind::Rsa => RSA.get_or_init(|| PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap()).clone(),
            Kind::Ed25519 => ED25519.get_or_init(|| PKey::generate_ed25519().unwrap()).clone(),
        }
    }
}

fn ecdsa_key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

/// An authority.
pub struct Authority {
    pub certificate: X509,
    pub key: PKey<Private>,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let key = ecdsa_key();
        let mut builder = start(name, &key, 3650);
        builder.set_issuer_name(&subject(name)).unwrap();
        mark_authority(&mut builder);
        builder.sign(&key, MessageDigest::sha256()).unwrap();
        Authority { certificate: builder.build(), key }
    }

    /// An authority under this one.
    pub fn sub(&self, name: &str) -> Authority {
        let key = ecdsa_key();
        let mut builder = start(name, &key, 3650);
        mark_authority(&mut builder);
        Authority { certificate: self.sign(builder), key }
    }

    /// The same with these extensions and no others.
    pub fn sub_with(&self, extend: impl FnOnce(&mut X509Builder)) -> Authority {
        let key = ecdsa_key();
        let mut builder = start("under the authority", &key, 3650);
        extend(&mut builder);
        let identifier = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None)).unwrap();
        builder.append_extension(identifier).unwrap();
        Authority { certificate: self.sign(builder), key }
    }

    fn sign(&self, mut builder: X509Builder) -> X509 {
        builder.set_issuer_name(self.certificate.subject_name()).unwrap();
        let identifier =
            AuthorityKeyIdentifier::new().keyid(true).build(&builder.x509v3_context(Some(&self.certificate), None)).unwrap();
        builder.append_extension(identifier).unwrap();
        builder.sign(&self.key, MessageDigest::sha256()).unwrap();
        builder.build()
    }
}

fn subject(name: &str) -> openssl::x509::X509Name {
    let mut builder = X509NameBuilder::new().unwrap();
    builder.append_entry_by_nid(Nid::COMMONNAME, name).unwrap();
    builder.build()
}

fn start(name: &str, key: &PKey<Private>, days: i64) -> X509Builder {
    let mut builder = X509Builder::new().unwrap();
    builder.set_version(2).unwrap();
    let mut serial = BigNum::new().unwrap();
    serial.rand(64, MsbOption::MAYBE_ZERO, false).unwrap();
    builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
    builder.set_subject_name(&subject(name)).unwrap();
    builder.set_pubkey(key).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let end = now + days * 86_400;
    let begin = end.min(now) - 86_400;
    builder.set_not_before(&Asn1Time::from_unix(begin).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::from_unix(end).unwrap()).unwrap();
    builder
}

fn mark_authority(builder: &mut X509Builder) {
    let basic = BasicConstraints::new().critical().ca().build().unwrap();
    builder.append_extension(basic).unwrap();
    let usage = KeyUsage::new().critical().key_cert_sign().crl_sign().build().unwrap();
    builder.append_extension(usage).unwrap();
    let identifier = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None)).unwrap();
    builder.append_extension(identifier).unwrap();
}

/// A certificate to be made. Names with `sip:` become URIs, IP literals addresses, all others DNS names.
pub struct Wish<'a> {
    pub common_name: &'a str,
    pub names: &'a [&'a str],
    pub kind: Kind,
    pub days: i64,
    /// Extended key usages; empty: the certificate does not restrict them.
    pub purposes: &'a [&'a str],
    /// Bytes that only make it larger.
    pub padding: usize,
}

impl<'a> Wish<'a> {
    pub fn new(names: &'a [&'a str], kind: Kind) -> Wish<'a> {
        Wish { common_name: "strowger test", names, kind, days: 365, purposes: &["serverAuth", "clientAuth"], padding: 0 }
    }
}

pub fn issue(authority: &Authority, wish: &Wish) -> X509 {
    let key = wish.kind.key();
    let mut builder = start(wish.common_name, &key, wish.days);
    let basic = BasicConstraints::new().build().unwrap();
    builder.append_extension(basic).unwrap();
    let mut usage = ExtendedKeyUsage::new();
    for purpose in wish.purposes {
        usage.other(purpose);
    }
    if !wish.purposes.is_empty() {
        builder.append_extension(usage.build().unwrap()).unwrap();
    }
    if !wish.names.is_empty() || wish.padding > 0 {
        let mut alternative = SubjectAlternativeName::new();
        for name in wish.names {
            if name.contains(':') && name.parse::<IpAddr>().is_err() {
                alternative.uri(name);
            } else if name.parse::<IpAddr>().is_ok() {
                alternative.ip(name);
            } else {
                alternative.dns(name);
            }
        }
        for number in 0..wish.padding / 64 {
            alternative.dns(&format!("{number:0>59}.test"));
        }
        let extension = alternative.build(&builder.x509v3_context(Some(&authority.certificate), None)).unwrap();
        builder.append_extension(extension).unwrap();
    }
    authority.sign(builder)
}

/// Writes a certificate with its chain, and its key.
pub fn write(folder: &Path, name: &str, kind: Kind, chain: &[&X509]) -> Pair {
    let pair = Pair { certificate: folder.join(format!("{name}.pem")), private_key: folder.join(format!("{name}.key")) };
    let mut text = Vec::new();
    for certificate in chain {
        text.extend(certificate.to_pem().unwrap());
    }
    std::fs::write(&pair.certificate, text).unwrap();
    let key = kind.key().private_key_to_pem_pkcs8().unwrap();
    std::fs::write(&pair.private_key, key).unwrap();
    pair
}

pub fn write_authorities(folder: &Path, name: &str, authorities: &[&Authority]) -> PathBuf {
    let file = folder.join(format!("{name}.pem"));
    let mut text = Vec::new();
    for authority in authorities {
        text.extend(authority.certificate.to_pem().unwrap());
    }
    std::fs::write(&file, text).unwrap();
    file
}
