//! Settings that the conf writes as one word of a few.

use crate::base::Transport;
use log::LevelFilter;
use std::fmt;
use std::path::PathBuf;

/// What the conf writes as a word.
pub trait Words: Copy + PartialEq + 'static {
    /// All words with their meanings, in the order in which an error lists them.
    const WORDS: &'static [(&'static str, Self)];

    /// As the conf writes it.
    fn word(self) -> &'static str {
        let own = Self::WORDS.iter().find(|(_, meant)| *meant == self);
        own.map_or("", |(word, _)| word)
    }

    /// What the word means.
    fn named(word: &str) -> Option<Self> {
        let found = Self::WORDS.iter().find(|(known, _)| *known == word);
        found.map(|(_, meant)| *meant)
    }
}

/// Enums whose variants have a word each.
macro_rules! words {
    ($($(#[$meta:meta])* pub enum $name:ident {
        $($(#[$of_variant:meta])* $variant:ident = $word:literal,)+
    })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$of_variant])* $variant,)+
        }

        impl Words for $name {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, $name::$variant)),+];
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    )+};
}

words! {
    /// How requests are relayed.
    pub enum Mode {
        /// Transaction-stateful (RFC 3261 §16.2).
        Stateful = "stateful",
        /// Each message on its own (RFC 3261 §16.11).
        Stateless = "stateless",
    }

    /// The order in which the targets of one request are tried; equal q is always tried in parallel.
    pub enum Fork {
        /// All targets at once, whatever their q.
        Parallel = "parallel",
        /// Highest q first; equal q together.
        Sequential = "sequential",
    }

    /// What is done with a request within a dialog that is for one of our users and shows no route of ours, if we record routes.
    pub enum InDialog {
        Relay = "relay",
        /// 403, unless the sender has proved its name.
        Refuse = "refuse",
    }

    /// Which connection a request to a next hop over TCP or TLS takes.
    #[derive(Default)]
    pub enum Outgoing {
        /// One for each peer, shared by all calls.
        #[default]
        Reuse = "reuse",
        /// One for each call, even to the same address; closed when the call is over.
        PerCall = "per-call",
    }

    /// When a registration is answered, where bindings are kept on disk.
    pub enum Durability {
        /// At once; the disk follows.
        Batched = "batched",
        /// When it is on disk.
        Acknowledged = "acknowledged",
    }

    /// How closely the `uri` of credentials must match the Request-URI (RFC 7616 §3.4.6).
    #[derive(Default)]
    pub enum UriCheck {
        /// Equal by RFC 3261 §19.1.4.
        Strict = "strict",
        /// The same user at the same host. Also accepts what non-conforming clients write: this server itself without a user, and
        /// in a REGISTER the address-of-record. A proxy before us may have changed scheme, port and parameters, and our domain to
        /// our address.
        #[default]
        Address = "address",
        Off = "off",
    }

    /// What a client's certificate proves about its identity (RFC 5922 §7).
    #[derive(Default)]
    pub enum Certificate {
        /// It says who may connect, and nothing about who may act as whom.
        #[default]
        Off = "off",
        /// It replaces a password.
        Identity = "identity",
        /// It says who may act as whom, and a password is required as well if the user has one.
        IdentityAndPassword = "identity-and-password",
    }

    /// A hash function of Digest (RFC 8760), by the name that a challenge writes. Each has a variant for a session, whose HA1 is
    /// bound to one nonce (RFC 7616 §3.4.2).
    #[derive(PartialOrd, Ord, Hash)]
    pub enum Algorithm {
        Sha256 = "SHA-256",
        Sha512_256 = "SHA-512-256",
        Md5 = "MD5",
    }

    /// Who may take a `[[route]]`.
    #[derive(Default)]
    pub enum Callers {
        #[default]
        Anyone = "anyone",
        /// Our own users, authenticated, even if nothing else is challenged.
        Users = "users",
    }

    /// Whether clients must prove by a certificate who they are.
    pub enum VerifyClient {
        /// Certificates are not requested.
        No = "no",
        /// Certificates are requested; one that is shown must be valid.
        Optional = "optional",
        Required = "required",
    }

    /// A key purpose (RFC 5280 §4.2.1.12) of a client's certificate. The whole chain must be made for the same one.
    pub enum Purpose {
        ClientAuth = "clientAuth",
        ServerAuth = "serverAuth",
        /// Any purpose.
        Any = "any",
    }

    /// A version of TLS.
    #[derive(PartialOrd, Ord)]
    pub enum Version {
        Tls12 = "1.2",
        Tls13 = "1.3",
    }

    /// How a line of the log is written.
    pub enum LogFormat {
        /// For people: time, level, subject, message, Call-ID.
        Text = "text",
        /// A JSON object for each line: time, level, subject, message, call_id.
        Json = "json",
        /// For systemd's journal, which adds the time itself: a priority, subject, message, Call-ID.
        Journald = "journald",
    }

    /// What refuses new requests in an overload.
    pub enum Shed {
        /// The server, by an answer to each.
        Answer = "answer",
        /// If most must be refused, the kernel drops some of the INVITEs that come by UDP.
        Kernel = "kernel",
    }
}

/// Where records of calls go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordsTo {
    /// Appended to a file, one line each.
    File(PathBuf),
    /// Sent as one datagram each to the Unix socket of their reader.
    Socket(PathBuf),
}

impl fmt::Display for RecordsTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordsTo::File(path) => path.display().fmt(f),
            RecordsTo::Socket(path) => write!(f, "unixgram:{}", path.display()),
        }
    }
}

impl Words for Transport {
    const WORDS: &'static [(&'static str, Self)] = &[("udp", Transport::Udp), ("tcp", Transport::Tcp), ("tls", Transport::Tls)];
}

impl Words for LevelFilter {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("off", LevelFilter::Off),
        ("error", LevelFilter::Error),
        ("warn", LevelFilter::Warn),
        ("info", LevelFilter::Info),
        ("debug", LevelFilter::Debug),
        ("trace", LevelFilter::Trace),
    ];
}

/// Returns the log level of this name, in any case. The error lists all of them.
pub fn level_named(name: &str) -> Result<LevelFilter, String> {
    LevelFilter::named(&name.to_ascii_lowercase())
        .ok_or_else(|| format!("no level {name:?}; there are off, error, warn, info, debug and trace"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_the_names_of_the_conf() {
        assert_eq!(level_named("debug"), Ok(LevelFilter::Debug));
        assert_eq!(level_named("off"), Ok(LevelFilter::Off));
        assert!(level_named("loud").unwrap_err().contains("there are off"));
    }
}
