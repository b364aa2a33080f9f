//! The control API: what an operator asks of a running server, over a Unix socket that speaks JSON-RPC 2.0, one object a line.
//!
//! | method | params | result |
//! | --- | --- | --- |
//! | `version` | | a string |
//! | `stats` | `prefix` (optional) | a list of [`Sample`] |
//! | `health` | | a [`HealthReport`] |
//! | `connections` | | a list of [`ConnectionEntry`] |
//! | `trunks` | | a list of [`TrunkEntry`] |
//! | `targets` | | a [`Targets`] |
//! | `reload` | | what has changed, a string |
//! | `restart` | `deadline` (seconds, optional) | a [`Restarted`] |
//! | `drain` | `deadline` (seconds, optional), `calls` (true or false, optional) | a [`Draining`] |
//! | `log` | `level` (optional) | the level in force |
//! | `trace` | `call`, `user`, `peer`, `seconds`, `count` (all optional) | a [`Traced`], behind a notification for each [`TraceEvent`] |
//! | `ul.show` | `aor` (optional) | a list of [`AorEntry`] |
//! | `ul.add` | `aor`, `contact`, `expires` (seconds), `q` (0 to 1), `path` (a list of addresses; all three optional) | for how many seconds |
//! | `ul.rm` | `aor`, `contact` (optional) | how many bindings were removed |
//!
//! Params go by name (an object) or by place (a list). Beside the errors of JSON-RPC there are [`rpc::NOT_FOUND`],
//! [`rpc::REFUSED`] and [`rpc::BUSY`].

mod acceptor;
mod client;
mod follow;
pub mod guests;
pub mod prometheus;
pub mod rpc;
pub mod server;
#[cfg(test)]
mod tests;
pub mod trace;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::metric::{self, Families};
use crate::trace::Taps;

pub use client::Client;
pub use prometheus::PrometheusEndpoint;
pub use server::Server;
pub use trace::{TraceEvent, TraceQuery, Traced};

/// What the server does for its operators. Called from threads of the control socket, never from a worker, and possibly from
/// several at a time.
pub trait ControlApi: Send + Sync {
    /// Returns the running version.
    fn version(&self) -> String;

    /// Everything that is counted.
    fn metrics(&self) -> Families;

    /// Whether the server is alive, and ready for new work. Takes a second if a worker is stuck.
    fn health(&self) -> HealthReport;

    /// Returns the TCP and TLS connections that are open now.
    fn connections(&self) -> Vec<ConnectionEntry>;

    /// Returns the accounts with carriers, and the state of their registrations.
    fn trunks(&self) -> Vec<TrunkEntry> {
        Vec::new()
    }

    /// Returns the targets of the conf and their health, and what else has failed.
    fn targets(&self) -> Targets {
        Targets::default()
    }

    /// Reads the conf and the files that it names again, completely or not at all; calls and connections stay. Returns what has
    /// changed, in words.
    fn reload(&self) -> Result<String, Refusal>;

    /// Has a new process serve in the place of this one, which goes on with what it has until the deadline (`None`: that of the
    /// conf). Returns when the new one serves.
    fn restart(&self, _deadline: Option<Duration>) -> Result<Restarted, Refusal> {
        Err(Refusal::Refused("this server cannot be restarted".to_owned()))
    }

    /// Stops beginning dialogs, and ends the server once no request waits for its answer, or when the deadline has passed (`None`:
    /// that of the conf). A further call sets a new deadline.
    /// `calls`: also wait until no call is in progress, as far as records of them tell.
    fn drain(&self, deadline: Option<Duration>, calls: bool) -> Result<Draining, Refusal>;

    /// Sets the log level, if one is given; returns what is in force.
    fn log(&self, level: Option<&str>) -> Result<String, Refusal>;

    /// Returns the given address-of-record and its bindings, or all of them. An AOR is what the operator typed: `1003`,
    /// `1003@example.com` or `sip:1003@example.com`; a bare name takes the first domain of the conf.
    fn ul_show(&self, aor: Option<&str>) -> Result<Vec<AorEntry>, Refusal>;

    /// Binds a contact to an AOR; returns for how many seconds.
    fn ul_add(&self, binding: &NewBinding) -> Result<u32, Refusal>;

    /// Removes one binding of the AOR, or all of them; returns how many were removed.
    fn ul_rm(&self, aor: &str, contact: Option<&str>) -> Result<usize, Refusal>;

    /// Returns the taps for following calls; `None` if there are no workers.
    fn taps(&self) -> Option<Arc<Taps>> {
        None
    }
}

/// How the server stands: a line for each thing that is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReport {
    /// Why it should be started anew.
    pub dead: Vec<String>,
    /// Why it should get no new work for now.
    pub unready: Vec<String>,
    /// What fails, and does not keep it from its work.
    pub notes: Vec<String>,
}

impl HealthReport {
    pub fn is_alive(&self) -> bool {
        self.dead.is_empty()
    }

    pub fn is_ready(&self) -> bool {
        self.is_alive() && self.unready.is_empty()
    }

    /// Returns the report for people: the verdict, then why, then what is noted.
    pub fn text(&self) -> String {
        let verdict = match (self.is_alive(), self.is_ready()) {
            (false, _) => "not alive",
            (true, false) => "alive, not ready",
            (true, true) => "alive and ready",
        };
        let reasons = self.dead.iter().chain(&self.unready).map(|line| format!("{line}\n"));
        let notes = self.notes.iter().map(|line| format!("note: {line}\n"));
        std::iter::once(format!("{verdict}\n")).chain(reasons).chain(notes).collect()
    }
}

/// A binding that an operator makes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct NewBinding {
    pub aor: String,
    pub contact: String,
    /// Seconds; `None`: as long as the registrar grants by default.
    pub expires: Option<u32>,
    /// Preference, from 0 to 1; `None`: 1.
    pub q: Option<f64>,
    /// The proxies that requests go through first, as a Path header lists them.
    pub path: Option<String>,
}

/// What a draining server still has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draining {
    /// Requests that wait for their final response.
    pub pending: usize,
    /// Calls in progress, if the server waits for their end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<usize>,
    /// After this time the server stops in any case.
    pub deadline_ms: u64,
}

/// How a server was restarted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Restarted {
    /// The process that serves now.
    pub process: u32,
    /// The one that served, and goes on with what it has.
    pub predecessor: u32,
    /// What that has: transactions, also those that only answer retransmissions; connections.
    pub transactions: usize,
    pub connections: usize,
    /// After this time it ends in any case.
    pub deadline_ms: u64,
    /// Addresses-of-record that were handed over.
    pub records: usize,
    /// For how long nobody read what came, and nothing was lost.
    pub pause_ms: f64,
}

/// Why something was not done, in one line for the operator; a conf with several faults gives a line for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    NotFound(String),
    Refused(String),
}

/// One value of the statistics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// In Prometheus notation, including labels: `strowger_requests_total{method="INVITE"}`.
    pub name: String,
    pub value: Number,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Number {
    Count(u64),
    /// Finite: JSON cannot represent other values.
    Real(f64),
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Number::Count(count) => write!(f, "{count}"),
            Number::Real(real) => write!(f, "{real}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Only ever rises.
    Counter,
    Gauge,
}

/// The samples whose names begin with `prefix`, in the order of the metrics.
pub fn samples(families: &Families, prefix: &str) -> Vec<Sample> {
    let sample = |kind: metric::Kind, sample: &metric::Sample| Sample {
        name: sample.name.clone(),
        kind: match kind {
            metric::Kind::Gauge => Kind::Gauge,
            metric::Kind::Counter | metric::Kind::Histogram => Kind::Counter,
        },
        value: match sample.value.fract() == 0.0 && (0.0..9e15).contains(&sample.value) {
            true => Number::Count(sample.value as u64),
            false => Number::Real(sample.value),
        },
    };
    families
        .iter()
        .flat_map(|family| family.samples.iter().map(|one| (family.kind, one)))
        .filter(|(_, one)| one.name.starts_with(prefix))
        .map(|(kind, one)| sample(kind, one))
        .collect()
}

/// One TCP or TLS connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionEntry {
    /// `tcp` or `tls`.
    pub transport: String,
    pub peer: String,
    /// The listener that accepted it, or that our Via on it names.
    pub listener: String,
    /// True if we opened it.
    pub outgoing: bool,
    /// `connecting`, `proxy_header`, `accepted`, `handshaking`, `open` or `draining`.
    pub state: String,
    /// Time since it was last used (within a second), or since its state began.
    pub quiet_ms: u64,
    /// Bytes that wait to be sent.
    pub waiting_bytes: usize,
    /// The process that has it: another one if that was restarted and still has connections.
    pub process: u32,
}

/// One `[[trunk]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrunkEntry {
    pub trunk: String,
    pub registrar: String,
    pub user: String,
    /// `unused` (it registers nowhere), `trying`, `registered` or `failed`.
    pub state: String,
    /// Why it last failed.
    pub why: Option<String>,
    /// How long the carrier has granted the registration for; 0: not granted.
    pub granted_for_s: u64,
    /// Time until it is refreshed or retried.
    pub next_in_s: Option<u64>,
}

/// The health of next hops.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Targets {
    /// Each target of each `[[route]]`, in the order of the conf.
    pub targets: Vec<TargetEntry>,
    /// Other failed next hops: servers behind those names, contacts, and hosts named by requests.
    pub others: Vec<NextHopEntry>,
}

/// A `target` of a `[[route]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetEntry {
    /// The number of its route in the conf, from 1.
    pub route: usize,
    /// As the conf gives it.
    pub uri: String,
    /// Its addresses; for a name, those found so far.
    pub addresses: Vec<String>,
    /// False: none of its addresses has answered since it failed.
    pub is_up: bool,
    /// If there are several addresses, the failure of the one to be tried first.
    pub failure: Option<FailureEntry>,
}

/// A next hop that has failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NextHopEntry {
    /// `target`: a server of a target's name; `contact` of a registration; or `request`.
    pub named_by: String,
    /// `udp`, `tcp` or `tls`.
    pub transport: String,
    pub address: String,
    pub failure: FailureEntry,
}

/// How a next hop has failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailureEntry {
    pub cause: String,
    /// Consecutive failures.
    pub failures: u32,
    /// Time since the first of them.
    pub since_ms: u64,
    /// Time until one request may try it again.
    pub passed_over_ms: u64,
}

/// An address-of-record and its bindings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AorEntry {
    /// As a SIP URI.
    pub aor: String,
    pub contacts: Vec<ContactEntry>,
}

/// One binding (RFC 3261 §10).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContactEntry {
    pub uri: String,
    /// 0 to 1; `None` if the contact gives none.
    pub q: Option<f32>,
    pub expires_in_s: u64,
    pub call_id: String,
    pub cseq: u32,
    /// The Path of the registration (RFC 3327), the nearest hop last.
    pub path: Vec<String>,
    /// Where the registration came from, if that differs from the contact.
    pub received: Option<String>,
}
