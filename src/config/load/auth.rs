//! `[auth]`: who is challenged, how, and where the users are.

use super::document::{Document, Value, Wrong};
use super::values::*;
use super::{HOUR, SECOND};
use crate::config::model::*;

/// The longest realm, bytes.
const REALM_LONGEST: usize = 255;

const URI_CHECKS: [(&str, UriCheck); 3] = [
    ("strict", UriCheck::Strict),
    ("address", UriCheck::Address),
    ("off", UriCheck::Off),
];

impl Document<'_> {
    pub(super) fn auth(&mut self) -> Auth {
        let default = Auth::default();
        let mut section = self.section("auth");
        let what = "a list of \"SHA-256\", \"SHA-512-256\" and \"MD5\", the one offered first at the beginning";
        let auth = Auth {
            realm: section.read("realm", realm).unwrap_or(default.realm),
            challenge_register: section
                .read("challenge_register", boolean)
                .unwrap_or(default.challenge_register),
            challenge_proxy: section
                .read("challenge_proxy", boolean)
                .unwrap_or(default.challenge_proxy),
            challenge_bye: section
                .read("challenge_bye", boolean)
                .unwrap_or(default.challenge_bye),
            algorithms: section
                .read(
                    "algorithms",
                    filled(list(what, one_of(&Algorithm::ALL.map(|a| (a.name(), a))))),
                )
                .unwrap_or(default.algorithms),
            qop: section.read("qop", boolean).unwrap_or(default.qop),
            nonce_lifetime: section
                .read("nonce_lifetime", time(10 * SECOND, 24 * HOUR))
                .unwrap_or(default.nonce_lifetime),
            guesses: section
                .read("guesses", number(0, 1000))
                .and_then(|guesses| u32::try_from(guesses).ok())
                .unwrap_or(default.guesses),
            check_uri: section
                .read("check_uri", one_of(&URI_CHECKS))
                .unwrap_or(default.check_uri),
            certificate: section
                .read("certificate", one_of(&CERTIFICATES))
                .unwrap_or(default.certificate),
            users: section.read("users", path).unwrap_or(default.users),
        };
        let at = section.place("challenge_bye");
        let certificate_at = section.place("certificate");
        self.challenge_bye_at = at;
        self.auth_certificate_at = certificate_at;
        auth
    }

    /// A certificate proves something only where clients are asked for one.
    pub(super) fn refuse_idle_certificate(&mut self, conf: &Conf) {
        let is_idle = conf.tls.verify_client == VerifyClient::No;
        if conf.auth.certificate != Certificate::Off && is_idle {
            let message = "certificate says nothing here, because no client is asked for one: \
                           add verify_client = \"optional\" or \"required\" in [tls]";
            let wrong = Wrong::new(self.auth_certificate_at, message);
            self.wrongs.push(wrong);
        }
    }

    /// A BYE is only challenged where other requests are.
    pub(super) fn refuse_idle_challenge(&mut self, conf: &Conf) {
        if conf.auth.challenge_bye && !conf.challenges_calls() {
            let message = "challenge_bye says nothing here, because no calls are challenged: \
                           add challenge_proxy = true, or challenge = true or from = \"users\" to a [[route]]";
            self.wrongs.push(Wrong::new(self.challenge_bye_at, message));
        }
    }
}

const CERTIFICATES: [(&str, Certificate); 3] = [
    ("off", Certificate::Off),
    ("identity", Certificate::Identity),
    ("identity-and-password", Certificate::IdentityAndPassword),
];

/// `realm-value` (RFC 3261 §25.1) without its quotes, and without what would have to be escaped: not every phone can.
fn realm(value: &Value<'_>) -> Parsed<String> {
    let what = "the realm of a challenge such as \"example.com\"";
    let text = string(value, what)?;
    if text.len() > REALM_LONGEST {
        let phrase = format!("must be of at most {REALM_LONGEST} bytes");
        return Err(wrong(value, phrase));
    }
    if let Some(bad) = text
        .chars()
        .find(|c| c.is_control() || ['"', '\\'].contains(c))
    {
        let phrase = format!("has {text:?}, but {bad:?} has no place in a realm: remove it");
        return Err(wrong(value, phrase));
    }
    if text.trim() != text {
        let phrase = format!("has {text:?}, with a blank at its beginning or end: remove it");
        return Err(wrong(value, phrase));
    }
    Ok(text.to_owned())
}
