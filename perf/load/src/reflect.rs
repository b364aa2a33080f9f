//! Answerers in a process of their own. They know of no call but what its messages say: tags and Call-ID come from one token, so that nearly
//! everything can be checked and answered without remembering. Only a 2xx whose ACK has not come is kept (RFC 3261 §13.3.1.4).

use std::collections::HashMap;
use std::rc::Rc;

use crate::answer::{self, Dialog, OK, RINGING, read_cseq};
use crate::end::End;
use crate::flow::{Dialect, Flow};
use crate::identity::{Identity, TOKEN};
use crate::message::{self, Scan};
use crate::stats::{Count, Stats};
use crate::template::Users;
use crate::timers::{Awaited, Delay, GIVE_UP_NS, Timers};
use crate::wire::{Link, Local, Outbox};

/// A 2xx that waits for its ACK.
struct Waiting {
    generation: u32,
    token: [u8; TOKEN],
    ok: Vec<u8>,
    link: Link,
    /// Before that it has not left: the call rings.
    answered_ns: Option<u64>,
}

pub struct Reflector {
    dialect: Dialect,
    ends: Vec<End>,
    waiting: Vec<Waiting>,
    free: Vec<u32>,
    by_token: HashMap<[u8; TOKEN], u32>,
    timers: Timers,
    /// Between 180 and 200.
    ringing: Delay,
}

/// What a request says of its call.
struct Asked<'a> {
    token: &'a [u8; TOKEN],
    user: &'a [u8],
    /// Host and port of the Request-URI.
    address: &'a [u8],
}

impl Reflector {
    pub fn new(dialect: Dialect, users: &Rc<Users>, locals: &[Local], ring_ns: u64) -> Reflector {
        Reflector {
            ends: locals.iter().map(|local| End::new(local, &dialect, users.width())).collect(),
            dialect,
            waiting: Vec::new(),
            free: Vec::new(),
            by_token: HashMap::new(),
            timers: Timers::default(),
            ringing: Delay::new(ring_ns),
        }
    }

    fn check<'a>(&self, link: Link, raw: &'a [u8], scan: &Scan) -> Result<Asked<'a>, &'static str> {
        let token = read_token(scan.call_id.value(raw)).ok_or("Call-ID of no caller of ours")?;
        answer::check(&self.dialect, raw, scan, &token[8..])?;
        let user = uri_user(message::contact_uri(scan.to.value(raw))).ok_or("no user in To")?;
        let address = request_address(raw, user).ok_or("not for the user in To")?;
        let end = &self.ends[link.end as usize];
        let is_invite = raw[0] == b'I';
        let right = match end.spread {
            // The relay does not know where users are.
            _ if self.dialect.floor && is_invite => true,
            _ if self.dialect.routed && is_invite => address == self.dialect.domain.as_bytes(),
            0 => address == end.address.as_bytes(),
            // Which of them is the user's only the one who registered it knows.
            _ => address.strip_prefix(b"127.").is_some_and(|rest| rest.ends_with(format!(":{}", end.port).as_bytes())),
        };
        match right {
            true => Ok(Asked { token, user, address }),
            false => Err("not for the registered contact"),
        }
    }

    fn receive_invite(
        &mut self,
        link: Link,
        (raw, scan): (&[u8], &Scan),
        asked: &Asked,
        now_ns: u64,
        out: &mut Outbox,
        stats: &mut Stats,
    ) {
        if let Some(slot) = self.by_token.get(asked.token) {
            stats.counts.add(Count::Repeated);
            let kept = &self.waiting[*slot as usize];
            if kept.answered_ns.is_some() {
                stats.counts.add(Count::RetransmittedOk);
                out.send(link, &kept.ok);
            }
            return;
        }
        let end = &self.ends[link.end as usize];
        let dialog = Dialog {
            tag: &asked.token[8..],
            user: asked.user,
            address: match end.spread {
                0 => end.address.as_bytes(),
                _ => asked.address,
            },
        };
        let dialog = Some(&dialog);
        let length = answer::write(end, &self.dialect, RINGING, (raw, scan), dialog, out.buffer());
        out.commit(link, length);
        let length = answer::write(end, &self.dialect, OK, (raw, scan), dialog, out.buffer());
        let slot = self.free.pop().unwrap_or_else(|| {
            self.waiting.push(Waiting {
                generation: 0,
                token: *asked.token,
                ok: Vec::with_capacity(1024),
                link,
                answered_ns: None,
            });
            self.waiting.len() as u32 - 1
        });
        let kept = &mut self.waiting[slot as usize];
        kept.token = *asked.token;
        kept.link = link;
        kept.answered_ns = None;
        kept.ok.clear();
        kept.ok.extend_from_slice(&out.buffer()[..length]);
        let identity = Identity { slot, generation: kept.generation };
        self.by_token.insert(*asked.token, slot);
        match self.ringing.ns {
            0 => self.accept(identity, now_ns, out),
            _ => self.ringing.push(now_ns, identity),
        }
        stats.counts.add(Count::Started);
    }

    /// The 2xx leaves.
    fn accept(&mut self, identity: Identity, now_ns: u64, out: &mut Outbox) {
        let kept = &mut self.waiting[identity.slot as usize];
        if kept.generation == identity.generation {
            kept.answered_ns = Some(now_ns);
            out.send(kept.link, &kept.ok);
            self.timers.arm(now_ns, identity, Awaited::Ok);
        }
    }

    /// The ACK has come, or will not. Returns whether it was waited for.
    fn forget(&mut self, token: &[u8; TOKEN]) -> bool {
        let Some(slot) = self.by_token.remove(token) else {
            return false;
        };
        let kept = &mut self.waiting[slot as usize];
        kept.generation = kept.generation.wrapping_add(1);
        self.free.push(slot);
        true
    }

    fn answer(&self, link: Link, raw: &[u8], scan: &Scan, out: &mut Outbox) {
        let end = &self.ends[link.end as usize];
        let length = answer::write(end, &self.dialect, OK, (raw, scan), None, out.buffer());
        out.commit(link, length);
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

/// Host and port of a request's URI, where that is this user's.
fn request_address<'a>(raw: &'a [u8], user: &[u8]) -> Option<&'a [u8]> {
    let uri = &raw[memchr::memchr(b' ', raw)? + 1..];
    let rest = uri.strip_prefix(b"sip:")?.strip_prefix(user)?.strip_prefix(b"@")?;
    let end = rest.iter().position(|byte| matches!(byte, b' ' | b';'))?;
    Some(&rest[..end])
}

impl Flow for Reflector {
    /// It begins nothing.
    fn start(&mut self, _: u64, _: u64, _: &mut Outbox, _: &mut Stats) -> bool {
        false
    }

    fn receive(&mut self, link: Link, raw: &[u8], now_ns: u64, out: &mut Outbox, stats: &mut Stats) {
        let Some(scan) = message::scan(raw) else {
            return stats.wrong("not a whole message", raw);
        };
        let asked = match self.check(link, raw, &scan) {
            Ok(asked) => asked,
            Err(why) => return stats.wrong(why, raw),
        };
        match (raw[0], read_cseq(scan.cseq.value(raw))) {
            (b'I', Some((_, b"INVITE"))) => {
                self.receive_invite(link, (raw, &scan), &asked, now_ns, out, stats);
            }
            (b'A', Some((_, b"ACK"))) => {
                if !self.forget(asked.token) {
                    stats.counts.add(Count::Repeated);
                }
            }
            (b'B', Some((_, b"BYE"))) => {
                // The ACK may have been lost. RFC 3261 §15.1.2 answers the BYE all the same.
                self.forget(asked.token);
                self.answer(link, raw, &scan, out);
                stats.counts.add(Count::Completed);
                out.done(link);
            }
            _ => stats.wrong("request of no kind that was sent", raw),
        }
    }

    fn lost(&mut self, _: Link, _: &mut Outbox, _: &mut Stats) {}

    fn handle_timers(&mut self, now_ns: u64, out: &mut Outbox, stats: &mut Stats) {
        while let Some(identity) = self.ringing.pop(now_ns) {
            self.accept(identity, now_ns, out);
        }
        while let Some(due) = self.timers.pop(now_ns) {
            let kept = &self.waiting[due.identity.slot as usize];
            if kept.generation != due.identity.generation {
                continue;
            }
            if kept.answered_ns.is_none_or(|at_ns| now_ns - at_ns >= GIVE_UP_NS) {
                stats.counts.add(Count::TimedOut);
                let token = kept.token;
                self.forget(&token);
                continue;
            }
            stats.counts.add(Count::RetransmittedOk);
            out.send(kept.link, &kept.ok);
            self.timers.rearm(now_ns, due);
        }
    }

    fn next_timer_ns(&self) -> Option<u64> {
        let rung_ns = self.ringing.next_ns();
        self.timers.next_ns().into_iter().chain(rung_ns).min()
    }

    fn outstanding(&self) -> u32 {
        self.by_token.len() as u32
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
    fn the_request_is_for_the_user_in_to() {
        assert_eq!(uri_user(b"sip:u1@h:5"), Some(&b"u1"[..]));
        assert_eq!(uri_user(b"sip:h"), None);
        let raw = b"BYE sip:u1@[::1]:5070;transport=tcp SIP/2.0\r\n";
        assert_eq!(request_address(raw, b"u1"), Some(&b"[::1]:5070"[..]));
        assert_eq!(request_address(raw, b"u2"), None);
    }
}
