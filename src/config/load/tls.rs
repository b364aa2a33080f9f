//! `[tls]` and `[[tls.identity]]`: certificates with their keys, trust anchors, versions, suites and sessions.

use std::path::PathBuf;

use super::document::{Document, Plain, Section};
use super::pem::{self, Kind};
use super::uri::dns_name;
use super::values::*;
use super::wrong::*;
use crate::base::Transport;
use crate::config::model::Listeners;
use crate::net::tls::{Certificates, Identity, Pair};
use crate::settings::{Purpose, Tls, VerifyClient, Version};

/// An endpoint shows at most one certificate for each kind of key: RSA and ECDSA.
const PAIRS_MOST: usize = 2;

/// The suites of TLS 1.3 (RFC 8446 §B.4).
const CIPHERSUITES: [&str; 5] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_CCM_SHA256",
    "TLS_AES_128_CCM_8_SHA256",
];

impl Document<'_> {
    /// Reads `[tls]`, and the certificates there and in each `[[tls.identity]]`.
    pub(super) fn tls(&mut self, listen: &Listeners) -> (Tls, Certificates) {
        let listen_places = self.listen_places.clone();
        let mut section = self.section("tls");
        let own = section.pairs("certificate", "private_key", Alone::Refused);
        if own.is_empty() && section.sound(["certificate", "private_key"]) {
            for (listen, at) in listen.iter().zip(listen_places) {
                if listen.transport == Transport::Tls {
                    let message =
                        "transport = \"tls\" needs a certificate: add certificate = \"FILE\" and private_key = \"FILE\" in [tls]";
                    section.wrong(at, message);
                }
            }
        }
        let (certificate, private_key) = ("client_certificate", "client_private_key");
        let client = section.pairs(certificate, private_key, Alone::HoldsItsKey);
        let tls = Tls::read(&mut section);
        section.refuse_unauthorized(&tls);
        section.refuse_versions(&tls);
        section.refuse_unshown(&tls, &client);
        let certificates = Certificates {
            identities: self.identities(&own),
            default_identity: own,
            client_identity: client,
            client_identities: Vec::new(),
        };
        (tls, certificates)
    }

    fn identities(&mut self, first: &[Pair]) -> Vec<Identity> {
        let mut identities: Vec<Identity> = Vec::new();
        for (table, at) in self.tables("tls.identity").unwrap_or_default() {
            if identities.is_empty() && first.is_empty() {
                let main = self.section("tls");
                if main.sound(["certificate", "private_key"]) {
                    let message = "a further identity needs a first: add certificate and private_key in [tls], for clients that ask for no name or for another";
                    self.wrongs.push(Wrong::new(at, message));
                }
            }
            let mut section = self.open("tls.identity", Some(table), at);
            let name = section.read("name", dns_name);
            let pairs = section.pairs("certificate", "private_key", Alone::Refused);
            for (key, what) in [("name", "\"HOST\""), ("certificate", "\"FILE\"")] {
                if !section.given(key) {
                    let message = format!("this [[tls.identity]] has no {key}: add {key} = {what}");
                    section.wrong(at, message);
                }
            }
            let name = name.unwrap_or_default();
            if !name.is_empty() && identities.iter().any(|identity| identity.name == name) {
                let message = format!("another [[tls.identity]] has the name {name:?} already; remove one");
                let place = section.place("name");
                section.wrong(place, message);
            }
            identities.push(Identity { name, pairs });
        }
        identities
    }
}

/// Key exchange groups by their registered names, P-256 for secp256r1. The library decides which of them it has.
const GROUPS: [&str; 8] =
    ["X25519MLKEM768", "SecP256r1MLKEM768", "SecP384r1MLKEM1024", "X25519", "X448", "P-256", "P-384", "P-521"];

pub(super) const GROUPS_MEANT: &str =
    "a list of key exchange groups such as [\"X25519MLKEM768\", \"X25519\"], the one offered first at the beginning";

/// The meaning of a certificate whose private key is not named.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Alone {
    Refused,
    HoldsItsKey,
}

impl Section<'_, '_> {
    /// Returns certificates and their keys, each key one path or a list of as many. Empty if something is wrong.
    pub(super) fn pairs(&mut self, certificate: &'static str, private_key: &'static str, alone: Alone) -> Vec<Pair> {
        let files = |kind| one_or_more(PAIRS_MOST, pem_file(kind));
        let certificates = self.read(certificate, files(Kind::Certificate));
        let keys = self.read(private_key, files(Kind::PrivateKey));
        if !self.sound([certificate, private_key]) {
            return Vec::new();
        }
        let certificates = certificates.unwrap_or_default();
        let keys = keys.unwrap_or_default();
        if keys.is_empty() && alone == Alone::HoldsItsKey {
            let both = |value: &Value<'_>| {
                let paths = one_or_more(PAIRS_MOST, pem_file(Kind::Certificate))(value)?;
                let holds = |path: &PathBuf| pem::check(path, Kind::PrivateKey).is_ok();
                match paths.iter().find(|path| !holds(path)) {
                    None => Ok(paths),
                    Some(path) => {
                        let phrase = format!("names {path:?}, which holds no private key: name the key's file in {private_key}");
                        Err(wrong(value, phrase))
                    }
                }
            };
            let both = self.read(certificate, both).unwrap_or_default();
            let pair = |path: PathBuf| Pair { certificate: path.clone(), private_key: path };
            return both.into_iter().map(pair).collect();
        }
        if certificates.len() != keys.len() {
            let (has, lacks) = match certificates.len() > keys.len() {
                true => (certificate, private_key),
                false => (private_key, certificate),
            };
            let message = format!(
                "{certificate} and {private_key} belong together: {certificate} names {}, {private_key} {}; add to {lacks}",
                certificates.len(),
                keys.len()
            );
            let place = self.place(has);
            self.wrong(place, message);
            return Vec::new();
        }
        let pair = |(certificate, private_key)| Pair { certificate, private_key };
        certificates.into_iter().zip(keys).map(pair).collect()
    }

    /// Refuses to ask clients for certificates if there is no authority to verify them.
    fn refuse_unauthorized(&mut self, tls: &Tls) {
        let verify = tls.verify_client;
        if verify != VerifyClient::No && tls.trusted_ca.is_none() && self.sound(["trusted_ca"]) {
            let message = format!(
                "verify_client = \"{verify}\" needs trusted_ca: add the file of the authorities that vouch for clients, \
                 because those of the system vouch for everybody"
            );
            self.wrong(self.place("verify_client"), message);
        }
    }

    /// Refuses a client certificate that is not to be shown, and purposes next to one that covers all.
    fn refuse_unshown(&mut self, tls: &Tls, client: &[Pair]) {
        if !tls.show_client_certificate && !client.is_empty() {
            let message =
                "client_certificate has no effect here, because show_client_certificate = false shows none; remove one of the two";
            let place = self.place("client_certificate");
            self.wrong(place, message);
        }
        if tls.client_purposes.contains(&Purpose::Any) && tls.client_purposes.len() > 1 {
            let message = "client_purposes has \"any\" beside others, which it includes: remove them, or it";
            let place = self.place("client_purposes");
            self.wrong(place, message);
        }
    }

    /// Refuses a minimum version above the maximum, and suites for a version that is not spoken.
    fn refuse_versions(&mut self, tls: &Tls) {
        if !self.sound(["min_version", "max_version"]) {
            return;
        }
        let (min, max) = (tls.min_version, tls.max_version);
        if min > max {
            let message = format!("min_version = \"{min}\" is above max_version = \"{max}\": lower the one or raise the other");
            let given = match self.given("min_version") {
                true => "min_version",
                false => "max_version",
            };
            let place = self.place(given);
            self.wrong(place, message);
            return;
        }
        for (key, suites, unspoken, hint) in [
            ("ciphers", &tls.ciphers, min > Version::Tls12, "only TLS 1.2 takes them, and min_version = \"1.3\" leaves it out"),
            (
                "ciphersuites",
                &tls.ciphersuites,
                max < Version::Tls13,
                "only TLS 1.3 takes them, and max_version = \"1.2\" leaves it out",
            ),
        ] {
            if unspoken && !suites.is_empty() {
                let message = format!("{key} has no effect here: {hint}; remove it");
                let place = self.place(key);
                self.wrong(place, message);
            }
        }
    }
}

/// The path of a PEM file of this kind, as far as can be checked before it is read.
pub(super) fn pem_file(kind: Kind) -> impl Fn(&Value<'_>) -> Parsed<PathBuf> {
    move |value| {
        let path = path(value)?;
        match pem::check(&path, kind) {
            Ok(()) => Ok(path),
            Err(what) => Err(wrong(value, format!("names {path:?}, which {what}"))),
        }
    }
}

/// A list of suites in OpenSSL's words; their meaning is left to the library.
pub(super) fn ciphers(value: &Value<'_>) -> Parsed<String> {
    let what = "an OpenSSL cipher list such as \"ECDHE-ECDSA-AES128-GCM-SHA256:AES128-SHA\"";
    let text = string(value, what)?;
    let good = |b: u8| b.is_ascii_alphanumeric() || b":_+-!@=., ".contains(&b);
    if !text.bytes().all(good) {
        return Err(must_be(value, what));
    }
    if let Some(suite) = text.split(':').find(|word| CIPHERSUITES.contains(word)) {
        let phrase = format!("has {suite}, which is a suite of TLS 1.3: name it in ciphersuites");
        return Err(wrong(value, phrase));
    }
    Ok(text.to_owned())
}

pub(super) fn group(value: &Value<'_>) -> Parsed<String> {
    one_of(&GROUPS.map(|group| (group, group)))(value).map(str::to_owned)
}

pub(super) fn ciphersuites(value: &Value<'_>) -> Parsed<String> {
    let what = "suites of TLS 1.3 such as \"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384\"";
    let text = string(value, what)?;
    if text.is_empty() {
        return Ok(String::new());
    }
    match text.split(':').find(|word| !CIPHERSUITES.contains(word)) {
        None => Ok(text.to_owned()),
        Some(word) => {
            let phrase = format!("has {word:?}; the suites of TLS 1.3 are {}", CIPHERSUITES.join(", "));
            Err(wrong(value, phrase))
        }
    }
}
