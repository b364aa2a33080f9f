//! The gate before the rules: which requests are not even read, because their source sends too many.

use crate::base::{Instant, Sources};
use crate::sip::sniff::{self, Kind};
use std::net::SocketAddr;
use std::sync::Arc;

/// One core's gate. The count of each source is shared by all cores.
pub struct Gate {
    sources: Arc<Sources>,
    /// Requests that were not read.
    refused: u64,
    /// Of these, those that no line has told of.
    untold: u64,
    /// When the last line was written.
    said: Option<Instant>,
}

/// A line so often at most, milliseconds.
const LINE_EVERY_MS: u64 = 1000;

impl Gate {
    pub fn new(sources: Arc<Sources>) -> Gate {
        Gate {
            sources,
            refused: 0,
            untold: 0,
            said: None,
        }
    }

    /// False when the message is not to be read. A response never is one too many: who asked for it is us.
    pub fn admits(&mut self, now: Instant, peer: SocketAddr, bytes: &[u8]) -> bool {
        if self.sources.limit() == 0
            || sniff::kind(bytes) == Kind::Response
            || self.sources.admits(now, peer)
        {
            return true;
        }
        self.refuse(now, peer);
        false
    }

    /// Requests that were not read.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    #[cold]
    fn refuse(&mut self, now: Instant, peer: SocketAddr) {
        self.refused += 1;
        self.untold += 1;
        if self
            .said
            .is_some_and(|said| now.ms_since(said) < LINE_EVERY_MS)
        {
            return;
        }
        log::warn!(
            "requests from {} are dropped: more than {} a second ([limits] requests_per_source); {} dropped on this core since the \
             last such line",
            peer.ip().to_canonical(),
            self.sources.limit(),
            self.untold
        );
        self.untold = 0;
        self.said = Some(now);
    }
}
