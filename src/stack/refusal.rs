//! Why a request is not forwarded, and how its answer says so.

use crate::sip::status;
use crate::stack::auth::demand::Challenger;
use crate::stack::counters::Limit;

/// Why a request is answered with an error instead of being forwarded.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    pub status: u16,
    /// Empty for the default phrase of the status.
    pub reason: &'static str,
    pub extra: Extra,
    /// The limit that was hit, if any.
    pub limit: Option<Limit>,
    /// It is already logged, or need not be.
    pub is_logged: bool,
}

/// A header added to a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extra {
    None,
    /// Unsupported: the options of Require or Proxy-Require that we do not support (§8.2.2.3).
    Unsupported,
    /// Warning 380 (RFC 5630 §5.3).
    SipsNotAllowed,
    MinExpires(u32),
    /// WWW-Authenticate or Proxy-Authenticate (§22).
    Challenge {
        who: Challenger,
        stale: bool,
    },
    RetryAfter(u32),
}

impl Refusal {
    pub const fn new(status: u16, reason: &'static str) -> Refusal {
        Refusal { status, reason, extra: Extra::None, limit: None, is_logged: false }
    }

    /// Returns the reason phrase of its answer.
    pub fn phrase(&self) -> &'static str {
        match self.reason {
            "" => status::reason(self.status),
            reason => reason,
        }
    }

    pub const fn with(self, extra: Extra) -> Refusal {
        Refusal { extra, ..self }
    }

    /// Marks it as needing no further log line.
    pub const fn logged(self) -> Refusal {
        Refusal { is_logged: true, ..self }
    }

    pub const fn because_of(self, limit: Limit) -> Refusal {
        Refusal { limit: Some(limit), ..self }
    }
}

/// Why a request does not leave for a target now.
#[derive(Clone, Copy, Debug)]
pub enum Obstacle {
    /// It never will.
    Refused(Refusal),
    /// The next hop's name is not resolved yet; the number is that of the query to wait for.
    Unknown(u128),
}

impl From<Refusal> for Obstacle {
    fn from(refusal: Refusal) -> Obstacle {
        Obstacle::Refused(refusal)
    }
}
