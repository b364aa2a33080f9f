//! How many passwords may be guessed ([`crate::base::guesses`]): beyond the limit none is checked, and the answer does not depend
//! on whether the user exists.

use crate::base::guesses::{Bound, Guess, MANY};
use crate::base::{Flow, Lasting};
use crate::stack::auth::claim::NAME_SHOWN;
use crate::stack::auth::failure::Failure;
use crate::stack::auth::nonce::{Nonce, Verdict};
use crate::stack::counters::Limit;
use crate::stack::refusal::{Extra, Refusal};
use crate::stack::turn::Turn;

impl Turn<'_> {
    /// Returns who is trying a password, and whose; `None` if guesses are not counted.
    pub fn guess(&self, login: &[u8], realm: &[u8], flow: Flow, read: &Verdict) -> Option<Guess> {
        if self.core.settings.auth.guesses == 0 {
            return None;
        }
        let sent_there = |nonce: Nonce| self.core.nonces.is_from(nonce, flow.peer.ip());
        let is_there = flow.transport.is_reliable() || matches!(read, Verdict::Good(nonce) if sent_there(*nonce));
        Some(Guess { user: self.core.sources.guesses.user(login, realm), from: is_there.then_some(flow.peer) })
    }

    /// Refuses to check a password if too many have been wrong.
    pub(super) fn check_guess(&self, guess: Option<&Guess>) -> Result<(), Failure> {
        let limit = self.core.settings.auth.guesses;
        let bound = guess.and_then(|guess| self.core.sources.guesses.bound(self.now, limit, guess));
        match bound {
            Some(bound) if !self.is_exempt(guess) => Err(Failure::TooMany(bound)),
            _ => Ok(()),
        }
    }

    /// Returns whether guesses from this source are not counted. Checked last: it takes a lock.
    fn is_exempt(&self, guess: Option<&Guess>) -> bool {
        let from = guess.and_then(|guess| guess.from);
        from.is_some_and(|peer| self.core.sources.is_trusted(peer.ip()))
    }

    /// Counts a wrong password or an unknown user.
    pub fn count_guess(&mut self, guess: &Guess, flow: Flow, login: &[u8], realm: &[u8]) {
        if self.is_exempt(Some(guess)) {
            return;
        }
        let limit = self.core.settings.auth.guesses;
        self.core.guess_log.renew(self.now);
        let Some(bound) = self.core.sources.guesses.wrong(self.now, limit, guess) else {
            return;
        };
        let (ip, transport) = (flow.peer.ip().to_canonical(), flow.transport.name());
        if self.core.guess_log.may_say() {
            let shown = |text: &[u8]| String::from_utf8_lossy(text.get(..NAME_SHOWN).unwrap_or(text)).into_owned();
            let (user, realm) = (shown(login), shown(realm));
            let many = limit.saturating_mul(MANY);
            // The filter of conf/fail2ban reads the first two: the address comes before anything a stranger has written.
            match bound {
                Bound::Pair => log::warn!(
                    "guesses from {ip} over {transport}: {limit} wrong passwords within a minute for one user; none is looked at from \
                     there for the rest of it ([auth] guesses): user {user:?} of {realm:?}"
                ),
                Bound::Source => log::warn!(
                    "guesses from {ip} over {transport}: {many} wrong passwords within a minute for several users; none is looked at \
                     from there for the rest of it ([auth] guesses): the last user was {user:?} of {realm:?}"
                ),
                Bound::User => log::warn!(
                    "guesses from many sources: {many} wrong passwords within a minute for one user; for the rest of it they are looked \
                     at only from where they were right of late ([auth] guesses): user {user:?} of {realm:?}"
                ),
                Bound::Unproved => log::warn!(
                    "guesses from sources that may be forged: {limit} wrong passwords within a minute for one user; for the rest of it \
                     such are only challenged ([auth] guesses): user {user:?} of {realm:?}"
                ),
            }
        }
        let is_of_one = matches!(bound, Bound::Pair | Bound::Source);
        if is_of_one && self.core.sources.ban(self.now, flow.peer) && self.core.guess_log.may_say() {
            let lasts = Lasting(self.core.sources.ban_ms());
            log::warn!("{ip} is banned for {lasts}: too many wrong passwords ([auth] guesses, [limits] ban)");
        }
    }

    /// Notes a correct password: from now on this user's passwords from this peer are checked, whatever others do. Refuses requests
    /// beyond the user's share.
    pub fn note_user(&mut self, guess: Option<&Guess>, flow: Flow, login: &[u8], realm: &[u8]) -> Result<(), Refusal> {
        if let Some(Guess { user, from: Some(peer) }) = guess {
            self.core.sources.guesses.right(self.now, *user, *peer);
        }
        let limit = self.core.settings.limits.requests_per_user;
        if limit == 0 {
            return Ok(());
        }
        let user = match guess {
            Some(guess) => guess.user,
            None => self.core.sources.guesses.user(login, realm),
        };
        let is_in = self.core.sources.users.admit(self.now, user, limit);
        match is_in || self.core.sources.is_trusted(flow.peer.ip()) {
            true => Ok(()),
            false => {
                let refusal = Refusal::new(503, "Too Many Requests By This User");
                Err(refusal.with(Extra::RetryAfter(1)).because_of(Limit::PerUser))
            }
        }
    }
}
