//! The gate before the rules: decides which requests are not even read, because their source sends too many or is banned.

use crate::base::bans::Sure;
use crate::base::{Flow, Hearing, Instant, Lasting, LogBudget, Question, Sources};
use crate::sip::Method;
use crate::sip::sniff::{self, Kind};
use std::sync::Arc;

/// One core's gate. The counts of the sources are shared by all cores.
pub struct Gate {
    sources: Arc<Sources>,
    /// Requests that were not read because their source had sent too many.
    refused: u64,
    /// Requests that were not read because their source was banned.
    banned: u64,
    drops: LogBudget,
    bans: LogBudget,
}

/// The fate of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Passage {
    Open,
    Shut,
    /// It is not read, and the connection on which it arrived is closed.
    Closed,
}

impl Passage {
    /// Returns the reason for traces.
    pub fn why(self) -> Option<&'static str> {
        match self {
            Passage::Open => None,
            Passage::Shut => Some(
                "not read: its source has sent too many requests ([limits] requests_per_source), or is banned for that or for \
                 wrong passwords ([limits] ban)",
            ),
            Passage::Closed => Some("not read, and its connection closed: its source is banned ([limits] ban)"),
        }
    }
}

impl Gate {
    pub fn new(sources: Arc<Sources>) -> Gate {
        Gate {
            sources,
            refused: 0,
            banned: 0,
            drops: LogBudget::of_limit("requests that were dropped"),
            bans: LogBudget::new("banned sources"),
        }
    }

    /// Returns whether the message is to be read. A response always is, because we asked for it. `bears` answers, for a datagram,
    /// whether it contains what only the rules can read.
    pub fn passage(&mut self, now: Instant, flow: &Flow, bytes: &[u8], mut bears: impl FnMut(Question) -> bool) -> Passage {
        if self.sources.hears_all(now) || sniff::kind(bytes) == Kind::Response {
            return Passage::Open;
        }
        let by_stream = flow.transport.is_reliable();
        let look = |question| match question {
            Question::IsRegister => sniff::method(bytes) == Method::Register,
            question => bears(question),
        };
        let hearing = self.sources.hear(now, flow.peer, by_stream, look);
        if hearing == Hearing::Heard {
            return Passage::Open;
        }
        self.refuse(now, flow, hearing);
        match hearing {
            Hearing::Banned | Hearing::BanBegins(_) if by_stream => Passage::Closed,
            _ => Passage::Shut,
        }
    }

    /// Returns how many requests were not read because their source had sent too many.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Returns how many requests were not read because their source was banned.
    pub fn banned(&self) -> u64 {
        self.banned
    }

    /// Returns how many sources are banned now, on all cores.
    pub fn banned_sources(&self, now: Instant) -> usize {
        self.sources.banned(now)
    }

    #[cold]
    fn refuse(&mut self, now: Instant, flow: &Flow, hearing: Hearing) {
        let (ip, limit) = (flow.peer.ip().to_canonical(), self.sources.limit());
        if hearing == Hearing::Banned {
            self.banned += 1;
            return;
        }
        self.refused += 1;
        self.drops.renew(now);
        self.bans.renew(now);
        if let Hearing::BanBegins(sure) = hearing
            && self.bans.may_say()
        {
            let lasts = Lasting(self.sources.ban_ms());
            let but = match sure {
                Sure::Yes => "",
                Sure::No => " over UDP, but for places there that have proved to be its own",
            };
            log::warn!("{ip} is banned for {lasts}{but}: more than {limit} requests a second ([limits] requests_per_source, ban)");
        }
        if self.drops.may_say() {
            log::warn!("requests from {ip} are dropped: more than {limit} a second ([limits] requests_per_source)");
        }
    }
}
