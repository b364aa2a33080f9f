//! Why a request is challenged or refused, and how it is answered.

use crate::base::guesses::Bound;
use crate::stack::auth::demand::Challenger;
use crate::stack::auth::digest::Algorithm;
use crate::stack::auth::users::Known;
use crate::stack::counters::{AuthOutcome, Limit};
use crate::stack::refusal::{Extra, Refusal};
use std::borrow::Cow;

/// Why a request is challenged or refused.
pub(super) enum Failure {
    /// It carries no credentials for us.
    None,
    Malformed,
    /// The nonce is not one of ours, or is for another realm.
    ForeignNonce,
    Stale,
    /// An algorithm or a qop that was not offered, or the hash that it needs is unknown.
    NotOffered,
    UnknownUser,
    /// The user has no hash for the algorithm, but for these.
    NoHash(Algorithm, Known),
    WrongResponse,
    /// It was not checked: too many had been wrong.
    TooMany(Bound),
    /// The user exceeds its share of requests.
    Limited(Refusal),
    Replayed,
    /// The right password, for another Request-URI.
    OtherUri,
    /// The right password of another user.
    OtherUser,
}

impl Failure {
    pub fn outcome(&self) -> AuthOutcome {
        match self {
            Failure::None | Failure::ForeignNonce => AuthOutcome::Challenged,
            Failure::Malformed | Failure::NotOffered | Failure::NoHash(..) => AuthOutcome::Malformed,
            Failure::Stale => AuthOutcome::Stale,
            Failure::UnknownUser => AuthOutcome::UnknownUser,
            Failure::TooMany(_) => AuthOutcome::TooMany,
            Failure::Limited(_) => AuthOutcome::Accepted,
            Failure::WrongResponse => AuthOutcome::WrongResponse,
            Failure::Replayed => AuthOutcome::Replayed,
            Failure::OtherUri => AuthOutcome::OtherUri,
            Failure::OtherUser => AuthOutcome::Forbidden,
        }
    }

    /// Returns the text for the log; `None` for what happens to every honest client.
    pub fn words(&self) -> Option<Cow<'static, str>> {
        let words = match self {
            Failure::None | Failure::ForeignNonce | Failure::Stale => return None,
            Failure::TooMany(_) => "too many wrong passwords ([auth] guesses)",
            Failure::Limited(_) => "too many requests ([limits] requests_per_user)",
            Failure::Malformed => "malformed credentials",
            Failure::NotOffered => "an algorithm or qop that was not offered",
            Failure::NoHash(algorithm, known) => {
                let name = algorithm.name();
                return Some(Cow::Owned(format!(
                    "answered with {name}, for which there is no hash of its password (there is {known}): \"strowger user passwd\" makes all"
                )));
            }
            Failure::UnknownUser => "unknown user",
            Failure::WrongResponse => "wrong password",
            Failure::Replayed => "credentials used before",
            Failure::OtherUri => "credentials for another Request-URI",
            Failure::OtherUser => "acts for another user",
        };
        Some(Cow::Borrowed(words))
    }

    pub fn refusal(&self, who: Challenger) -> Refusal {
        match self {
            Failure::OtherUri => Refusal::new(400, "Credentials For Another URI"),
            Failure::OtherUser => Refusal::new(403, "Not Your Address-Of-Record"),
            Failure::Limited(refusal) => *refusal,
            Failure::TooMany(bound) => too_many(*bound, || {
                // Nothing was checked: with a new nonce the same answer may be right.
                let stale = true;
                Refusal::new(who.status(), "").with(Extra::Challenge { who, stale })
            }),
            _ => {
                // A client that gets here with a used count knows the password: with another nonce it is let in without prompting
                // its user (RFC 7616 §3.3).
                let stale = matches!(self, Failure::Stale | Failure::Replayed);
                Refusal::new(who.status(), "").with(Extra::Challenge { who, stale })
            }
        }
    }
}

/// Returns the answer if the password is not checked. A sender that has not proved its address is challenged: the true user answers
/// at once from its own address.
fn too_many(bound: Bound, challenge: impl FnOnce() -> Refusal) -> Refusal {
    let refusal = match bound {
        Bound::Unproved => challenge(),
        _ => Refusal::new(403, "Too Many Wrong Passwords"),
    };
    refusal.because_of(Limit::Guesses)
}
