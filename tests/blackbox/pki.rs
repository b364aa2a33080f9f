//! Authorities and certificates, made for one test and written into its folder.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, SubjectAlternativeName, SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509Name, X509NameBuilder};

use crate::place::Place;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Ecdsa,
    Rsa,
}

pub struct Authority {
    pub file: PathBuf,
    certificate: X509,
    key: PKey<Private>,
}

/// A certificate and its key, both in PEM files.
pub struct Certificate {
    pub file: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    /// An authority in `NAME.pem`.
    pub fn new(place: &Place, name: &str) -> Authority {
        let key = new_key(Kind::Ecdsa);
        let mut builder = begin(name, &key, 30);
        builder.set_issuer_name(&called(name)).expect("an issuer");
        let basic = BasicConstraints::new().critical().ca().build();
        builder.append_extension(basic.expect("an extension")).expect("an extension");
        let identifier = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None));
        builder.append_extension(identifier.expect("an extension")).expect("an extension");
        builder.sign(&key, MessageDigest::sha256()).expect("a signature");
        let certificate = builder.build();
        let pem = certificate.to_pem().expect("a certificate");
        let file = place.write(&format!("{name}.pem"), &String::from_utf8_lossy(&pem));
        Authority { file, certificate, key }
    }

    /// A certificate for these DNS names, addresses and URIs, good for the next day, in `FILE.pem` and `FILE.key`; the first name is the subject's.
    pub fn issue(&self, place: &Place, file: &str, kind: Kind, names: &[&str]) -> Certificate {
        self.issue_for(place, file, kind, names, 1)
    }

    /// The same with the days it has left: below zero it has expired.
    pub fn issue_for(&self, place: &Place, file: &str, kind: Kind, names: &[&str], days: i64) -> Certificate {
        let purposes = ["serverAuth", "clientAuth"];
        self.issue_with(place, file, kind, names, days, &purposes)
    }

    /// The same with what it is made for.
    pub fn issue_with(&self, place: &Place, file: &str, kind: Kind, names: &[&str], days: i64, purposes: &[&str]) -> Certificate {
        let key = key(kind);
        let mut builder = begin(names.first().unwrap_or(&file), &key, days);
        builder.set_issuer_name(self.certificate.subject_name()).expect("an issuer");
        let mut alternative = SubjectAlternativeName::new();
        for name in names {
            match (name.parse::<IpAddr>(), name.contains(':')) {
                (Ok(_), _) => alternative.ip(name),
                (_, true) => alternative.uri(name),
                _ => alternative.dns(name),
            };
        }
        let context = builder.x509v3_context(Some(&self.certificate), None);
        let mut usage = ExtendedKeyUsage::new();
        for purpose in purposes {
            usage.other(purpose);
        }
        let extensions = [
            AuthorityKeyIdentifier::new().keyid(true).build(&context),
            alternative.build(&context),
            usage.build(),
            BasicConstraints::new().build(),
        ];
        for extension in extensions {
            builder.append_extension(extension.expect("an extension")).expect("an extension");
        }
        builder.sign(&self.key, MessageDigest::sha256()).expect("a signature");
        let certificate = builder.build().to_pem().expect("a certificate");
        let key = key.private_key_to_pem_pkcs8().expect("a key");
        let write = |name: String, pem: &[u8]| {
            let path = place.path(&name);
            fs::write(&path, pem).expect("write into the test's folder");
            let private = fs::Permissions::from_mode(0o600);
            fs::set_permissions(&path, private).expect("the test's own file");
            path
        };
        Certificate { file: write(format!("{file}.pem"), &certificate), key: write(format!("{file}.key"), &key) }
    }
}

fn begin(name: &str, key: &PKey<Private>, days: i64) -> X509Builder {
    let mut builder = X509Builder::new().expect("a certificate");
    builder.set_version(2).expect("a version");
    let mut serial = BigNum::new().expect("a number");
    serial.rand(64, MsbOption::MAYBE_ZERO, false).expect("a number");
    let serial = serial.to_asn1_integer().expect("a number");
    builder.set_serial_number(&serial).expect("a number");
    builder.set_subject_name(&called(name)).expect("a subject");
    builder.set_pubkey(key).expect("a key");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64);
    let end = now + days * 86_400;
    let at = |time| Asn1Time::from_unix(time).expect("a time");
    builder.set_not_before(&at(end.min(now) - 86_400)).expect("a time");
    builder.set_not_after(&at(end)).expect("a time");
    builder
}

fn called(name: &str) -> X509Name {
    let mut builder = X509NameBuilder::new().expect("a name");
    builder.append_entry_by_nid(Nid::COMMONNAME, name).expect("a name");
    builder.build()
}

/// RSA keys take long to make, and no test asks whose they are.
fn key(kind: Kind) -> PKey<Private> {
    static RSA: OnceLock<PKey<Private>> = OnceLock::new();
    match kind {
        Kind::Ecdsa => new_key(kind),
        Kind::Rsa => RSA.get_or_init(|| new_key(kind)).clone(),
    }
}

fn new_key(kind: Kind) -> PKey<Private> {
    match kind {
        Kind::Ecdsa => {
            let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("P-256");
            let key = EcKey::generate(&curve).and_then(PKey::from_ec_key);
            key.expect("a key")
        }
        Kind::Rsa => {
            let key = Rsa::generate(2048).and_then(PKey::from_rsa);
            key.expect("a key")
        }
    }
}
