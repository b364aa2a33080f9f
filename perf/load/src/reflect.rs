//! Answerers in a process of their own. They know of no call but what its messages say: tags and Call-ID come from one token.

use std::rc::Rc;

use crate::answerer::{Answerers, Asked, Heard};
use crate::flow::{Flow, Turn};
use crate::identity::{self, TOKEN};
use crate::message::{self, Message};
use crate::parties::Parties;
use crate::stats::Count;
use crate::wire::Link;

/// No caller has as many calls at once: what names a higher slot is no call of ours.
const SLOTS: u32 = 1 << 22;

pub struct Reflector {
    parties: Rc<Parties>,
    answerers: Answerers,
}

impl Reflector {
    pub fn new(parties: Rc<Parties>, ring_ns: u64) -> Reflector {
        Reflector { answerers: Answerers::new(Rc::clone(&parties), ring_ns), parties }
    }

    fn take(&mut self, link: Link, message: &Message, turn: &mut Turn) -> Result<(), &'static str> {
        let token = read_token(message.value(message.call_id)).ok_or("Call-ID of no caller of ours")?;
        let identity = identity::of_any_run(token).filter(|it| it.slot < SLOTS).ok_or("Call-ID of no caller of ours")?;
        let user = uri_user(message::contact_uri(message.value(message.to))).ok_or("no user in To")?;
        let callee = self.parties.users.number(user).ok_or("no user of ours in To")?;
        let asked = Asked { identity, token, callee, attempt: None };
        match self.answerers.receive(&asked, link, message, turn)? {
            Heard::NewCall => turn.stats.counts.add(Count::Started),
            Heard::Bye => turn.stats.counts.add(Count::Completed),
            Heard::Other => {}
        }
        Ok(())
    }
}

/// The token in a Call-ID of ours, of whatever run.
fn read_token(call_id: &[u8]) -> Option<&[u8; TOKEN]> {
    let token = call_id.strip_suffix(b"@load")?;
    token.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).then_some(token)?.try_into().ok()
}

/// `u00001` of `sip:u00001@127.0.0.1`
fn uri_user(uri: &[u8]) -> Option<&[u8]> {
    let rest = uri.strip_prefix(b"sip:")?;
    Some(&rest[..memchr::memchr(b'@', rest)?])
}

impl Flow for Reflector {
    /// It begins nothing.
    fn start(&mut self, _: u64, _: &mut Turn) -> bool {
        false
    }

    fn receive(&mut self, link: Link, raw: &[u8], turn: &mut Turn) {
        let Some(message) = message::read(raw) else {
            return turn.stats.wrong("not a whole message", raw);
        };
        if let Err(why) = self.take(link, &message, turn) {
            turn.stats.wrong(why, raw);
        }
    }

    fn lost(&mut self, _: Link, _: &mut Turn) {}

    fn handle_timers(&mut self, turn: &mut Turn) {
        let given_up = self.answerers.handle_timers(turn);
        turn.stats.counts.add_many(Count::TimedOut, given_up);
    }

    fn next_timer_ns(&self) -> Option<u64> {
        self.answerers.next_timer_ns()
    }

    fn outstanding(&self) -> u32 {
        self.answerers.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_id_of_ours_is_a_token() {
        let token = b"0123456789abcdef01234567";
        assert_eq!(read_token(b"0123456789abcdef01234567@load"), Some(token));
        for other in [
            &b"0123456789abcdef0123456@load"[..],
            b"0123456789abcdef012345678@load",
            b"0123456789abcdeX01234567@load",
            b"0123456789abcdef01234567@else",
            b"",
        ] {
            assert_eq!(read_token(other), None);
        }
    }

    #[test]
    fn the_user_of_a_uri() {
        assert_eq!(uri_user(b"sip:u1@h:5"), Some(&b"u1"[..]));
        assert_eq!(uri_user(b"sip:h"), None);
    }
}
