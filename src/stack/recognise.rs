//! Whether a token is ours: signed with the first secret, or with another that is still accepted. The others are only tried on what
//! the first has not signed.

use crate::base::Flow;
use crate::sip::{Message, Uri};
use crate::stack::branch::{Branch, SHORTEST};
use crate::stack::cookie::{self, Cookies, Recorded, Verdict};
use crate::stack::core::Core;
use crate::stack::identity::TagKind;
use crate::stack::other_secret::OtherSecret;
use crate::stack::passage::Passed;
use crate::stack::token::Side;

/// What a Via of an earlier pass says of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EarlierPass {
    /// It is the same request, to the same place.
    Loop,
    /// It has been here; what it had proved then, if that is known.
    Spiral(Option<Passed>),
}

/// Returns the keys that the cookie was written with: the core's own or another secret's.
pub fn cookies_of<'k>(own: &'k Cookies, others: &'k [OtherSecret], recorded: &Recorded) -> &'k Cookies {
    match recorded.secret.checked_sub(1) {
        None => own,
        Some(number) => others.get(usize::from(number)).map_or(own, |other| &other.cookies),
    }
}

impl Core {
    /// Returns what the cookie in one of our own URIs is worth.
    pub fn read_cookie<'a>(&mut self, message: &Message, uri: &Uri<'a>) -> Verdict<'a> {
        let Some(text) = uri.param(cookie::PARAM).flatten() else {
            return Verdict::Foreign;
        };
        match self.others.is_empty() {
            true => self.cookies.check(&self.identity, message, text, &mut self.facts),
            false => self.read_cookie_of_several(message, text),
        }
    }

    #[cold]
    fn read_cookie_of_several<'a>(&mut self, message: &Message, text: &'a [u8]) -> Verdict<'a> {
        let mut worth = Verdict::Foreign;
        let others = self.others.iter().map(|other| (&other.cookies, &other.identity));
        for (number, (cookies, identity)) in (0..).zip(std::iter::once((&self.cookies, &self.identity)).chain(others)) {
            match cookies.check(identity, message, text, &mut self.facts) {
                Verdict::Ours(mut recorded) => {
                    recorded.secret = number;
                    // What is written and looked up from now on is of the first secret.
                    recorded.dialog = self.identity.dialog(message, recorded.towards.other(), &mut self.facts);
                    return Verdict::Ours(recorded);
                }
                Verdict::Misused => worth = Verdict::Misused,
                Verdict::Foreign => {}
            }
        }
        worth
    }

    /// Returns whether another secret has signed this branch of a request that was forwarded without state. One with state has
    /// ended with its run.
    #[cold]
    pub fn is_stateless_of_others(&self, branch: &[u8]) -> bool {
        let branch = self.others.iter().find_map(|other| other.signer.read(branch));
        matches!(branch, Some(Branch::Stateless { .. }))
    }

    /// Returns whether one of the secrets has signed this branch.
    pub fn is_own_branch(&self, branch: &[u8]) -> bool {
        self.signer.read(branch).is_some() || self.others.iter().any(|other| other.signer.read(branch).is_some())
    }

    /// Returns whether nobody has handled the request since we sent it, if a route depends on a request's source: its topmost Via is ours.
    pub fn is_returned(&self, message: &Message) -> bool {
        self.settings.routes.look_at_source() && self.is_topped_by_us(message)
    }

    /// Returns whether its topmost Via is ours.
    pub fn is_topped_by_us(&self, message: &Message) -> bool {
        message.top_branch().is_some_and(|branch| branch.len() >= SHORTEST && self.is_own_branch(branch))
    }

    /// Returns whether an answer of ours bears this To tag, and what remembers it.
    pub fn own_tag(&self, message: &Message) -> Option<TagKind> {
        let own = self.identity.own_tag(message);
        own.or_else(|| self.others.iter().find_map(|other| other.identity.own_tag(message)))
    }

    /// Returns what a Via says that was not written with the first secret; `None` if it is not ours.
    #[cold]
    pub fn pass_of_others(&mut self, flow: Flow, message: &Message, branch: &[u8], wall_ms: u64) -> Option<EarlierPass> {
        let (other, branch) = self.others.iter().find_map(|other| Some((*other, other.signer.read(branch)?)))?;
        let mark = branch.mark();
        let source = self.settings.routes.look_at_source();
        if mark.loop_hash == other.identity.loop_hash(message, source.then(|| flow.peer.ip())) {
            return Some(EarlierPass::Loop);
        }
        let sides = if message.to_tag().is_some() { &[Side::Caller, Side::Callee][..] } else { &[Side::Caller] };
        let dialogs: Vec<u64> = sides.iter().map(|opener| other.identity.dialog(message, *opener, &mut self.facts).whole).collect();
        let possible = other.passages.possible(message, &dialogs, wall_ms);
        Some(EarlierPass::Spiral(possible.passed(mark.passage)))
    }
}
