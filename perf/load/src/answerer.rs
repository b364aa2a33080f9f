//! The answerer's half of calls: what it checks in a request, what it says to it, and the 2xx that it repeats until its ACK comes (RFC 3261
//! §13.3.1.4). Who knows the calls, it does not mind: their caller in the same process, or nobody but the messages themselves.

use std::rc::Rc;

use crate::flow::Turn;
use crate::identity::{Identity, TOKEN, tag};
use crate::message::{Message, Writer};
use crate::parties::Parties;
use crate::stats::Count;
use crate::timers::{Awaited, Delay, GIVE_UP_NS, Timers};
use crate::wire::Link;

const RINGING: &[u8] = b"SIP/2.0 180 Ringing\r\n";
const OK: &[u8] = b"SIP/2.0 200 OK\r\n";

/// As every request leaves the caller.
const MAX_FORWARDS: usize = 70;

/// The call that a request belongs to.
pub struct Asked<'a> {
    pub identity: Identity,
    pub token: &'a [u8; TOKEN],
    pub callee: u32,
    /// How often its INVITE has been challenged, where that is known.
    pub attempt: Option<u8>,
}

/// What a request was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    NewCall,
    Bye,
    Other,
}

/// What has been said in a call.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Said {
    #[default]
    Nothing,
    Ringing,
    /// The 2xx, whose ACK has not come.
    Ok,
    /// The ACK has come, or is no longer waited for.
    Done,
}

/// The last call in a slot.
struct Place {
    token: [u8; TOKEN],
    generation: u32,
    said: Said,
    /// The 2xx, and where it goes.
    ok: Vec<u8>,
    link: Link,
    answered_ns: u64,
}

pub struct Answerers {
    parties: Rc<Parties>,
    places: Vec<Place>,
    timers: Timers,
    /// Between 180 and 200.
    ringing: Delay,
    /// Calls without their ACK.
    pub open: u32,
}

impl Answerers {
    pub fn new(parties: Rc<Parties>, ring_ns: u64) -> Answerers {
        Answerers { parties, places: Vec::new(), timers: Timers::default(), ringing: Delay::new(ring_ns), open: 0 }
    }

    /// Checks a request of this call and answers it.
    pub fn receive(&mut self, asked: &Asked, link: Link, message: &Message, turn: &mut Turn) -> Result<Heard, &'static str> {
        self.check(asked, link, message)?;
        let is_number = |number: u8, after| asked.attempt.is_none_or(|attempt| number == attempt + after);
        match (message.raw[0], message.cseq()) {
            (b'I', Some((number, b"INVITE"))) if is_number(number, 0) => Ok(self.receive_invite(asked, link, message, turn)),
            (b'A', Some((number, b"ACK"))) if is_number(number, 0) => {
                if !self.settle(asked) {
                    turn.stats.counts.add(Count::Repeated);
                }
                Ok(Heard::Other)
            }
            (b'B', Some((number, b"BYE"))) if is_number(number, 1) => {
                // The ACK may have been lost or overtaken. RFC 3261 §15.1.2 answers the BYE all the same.
                self.settle(asked);
                self.answer(link, message, turn);
                turn.out.done(link);
                Ok(Heard::Bye)
            }
            _ => Err("request of no kind that was sent"),
        }
    }

    /// What must be so in any INVITE, ACK or BYE of this call.
    fn check(&self, asked: &Asked, link: Link, message: &Message) -> Result<(), &'static str> {
        let Parties { dialect, users, ends } = &*self.parties;
        let tag = Some(&tag(asked.token)[..]);
        let is_invite = message.raw[0] == b'I';
        if message.tag(message.from) != tag {
            return Err("From tag changed");
        }
        let hops = message.via.len().wrapping_sub(1);
        match dialect.floor {
            true if hops != 0 => return Err("not the caller's Via alone"),
            false if !(1..=dialect.hops).contains(&hops) => return Err("not the Via of each proxy and of the caller"),
            _ => {}
        }
        let forwards = std::str::from_utf8(message.value(message.max_forwards)).ok().and_then(|text| text.parse().ok());
        if forwards != MAX_FORWARDS.checked_sub(hops) {
            return Err("Max-Forwards did not fall by one for each proxy");
        }
        let to_tag = message.tag(message.to);
        if is_invite {
            if to_tag.is_some() {
                return Err("To tag in the first INVITE");
            }
            if message.body.len() != dialect.body.length {
                return Err("body changed");
            }
            if message.record_route.len() == 0 && !dialect.floor {
                return Err("INVITE without Record-Route");
            }
        } else {
            if to_tag != tag {
                return Err("To tag changed");
            }
            if message.routes != 0 && !dialect.floor {
                return Err("Route left in the request");
            }
        }
        let address = match is_invite {
            // The relay does not know where users are.
            true if dialect.floor => return Ok(()),
            true if dialect.routed => dialect.domain.as_bytes(),
            _ => ends[link.end as usize].contact_of(asked.callee),
        };
        is_for(message.raw, users.name(asked.callee), address).then_some(()).ok_or("not for the registered contact")
    }

    fn receive_invite(&mut self, asked: &Asked, link: Link, message: &Message, turn: &mut Turn) -> Heard {
        let place = self.claim(asked);
        let said = self.places[place].said;
        let heard = match said {
            Said::Nothing => Heard::NewCall,
            _ => {
                turn.stats.counts.add(Count::Repeated);
                Heard::Other
            }
        };
        if matches!(said, Said::Ok | Said::Done) {
            if said == Said::Ok {
                turn.stats.counts.add(Count::RetransmittedOk);
                turn.out.send(link, &self.places[place].ok);
            }
            return heard;
        }
        let length = self.write(RINGING, link, message, Some(asked), turn.out.buffer());
        turn.out.commit(link, length);
        if said == Said::Ringing {
            return heard;
        }
        let length = self.write(OK, link, message, Some(asked), turn.out.buffer());
        let kept = &mut self.places[place];
        kept.ok.clear();
        kept.ok.extend_from_slice(&turn.out.buffer()[..length]);
        kept.link = link;
        if self.ringing.ns > 0 {
            kept.said = Said::Ringing;
            self.ringing.push(turn.now_ns, asked.identity);
        } else {
            kept.said = Said::Ok;
            kept.answered_ns = turn.now_ns;
            turn.out.commit(link, length);
            self.timers.arm(turn.now_ns, asked.identity, Awaited::Ok);
        }
        heard
    }

    /// The place of this call: a new one, if it was another's.
    fn claim(&mut self, asked: &Asked) -> usize {
        let slot = asked.identity.slot as usize;
        while self.places.len() <= slot {
            let (ok, link) = (Vec::new(), Link::default());
            self.places.push(Place { token: [0; TOKEN], generation: 0, said: Said::Done, ok, link, answered_ns: 0 });
        }
        if self.places[slot].token != *asked.token {
            self.forget(asked.identity.slot);
            let place = &mut self.places[slot];
            place.token = *asked.token;
            place.generation = asked.identity.generation;
            place.said = Said::Nothing;
            self.open += 1;
        }
        slot
    }

    /// Its ACK has come. Returns whether it was waited for.
    fn settle(&mut self, asked: &Asked) -> bool {
        let place = self.places.get(asked.identity.slot as usize);
        let is_open = place.is_some_and(|place| place.token == *asked.token && place.said != Said::Done);
        if is_open {
            self.forget(asked.identity.slot);
        }
        is_open
    }

    /// Nothing more is said in the call of this slot.
    pub fn forget(&mut self, slot: u32) {
        if let Some(place) = self.places.get_mut(slot as usize)
            && place.said != Said::Done
        {
            place.said = Said::Done;
            self.open -= 1;
        }
    }

    /// Answers what has rung long enough, and repeats what has no ACK. Returns how many are given up.
    pub fn handle_timers(&mut self, turn: &mut Turn) -> u64 {
        while let Some(identity) = self.ringing.pop(turn.now_ns) {
            let place = &mut self.places[identity.slot as usize];
            if place.generation == identity.generation && place.said == Said::Ringing {
                place.said = Said::Ok;
                place.answered_ns = turn.now_ns;
                turn.out.send(place.link, &place.ok);
                self.timers.arm(turn.now_ns, identity, Awaited::Ok);
            }
        }
        let mut given_up = 0;
        while let Some(due) = self.timers.pop(turn.now_ns) {
            let place = &self.places[due.identity.slot as usize];
            if place.generation != due.identity.generation || place.said != Said::Ok {
                continue;
            }
            if turn.now_ns - place.answered_ns >= GIVE_UP_NS {
                given_up += 1;
                self.forget(due.identity.slot);
                continue;
            }
            turn.stats.counts.add(Count::RetransmittedOk);
            turn.out.send(place.link, &place.ok);
            self.timers.rearm(turn.now_ns, due);
        }
        given_up
    }

    pub fn next_timer_ns(&self) -> Option<u64> {
        self.timers.next_ns().into_iter().chain(self.ringing.next_ns()).min()
    }

    /// A plain 200.
    pub fn answer(&self, link: Link, message: &Message, turn: &mut Turn) {
        let length = self.write(OK, link, message, None, turn.out.buffer());
        turn.out.commit(link, length);
    }

    /// Writes a response (RFC 3261 §8.2.6). One that makes a dialog has a To tag, Record-Route and a Contact; and then a 200 has a body.
    fn write(&self, status_line: &[u8], link: Link, message: &Message, dialog: Option<&Asked>, buffer: &mut [u8]) -> usize {
        let Parties { dialect, users, ends } = &*self.parties;
        let end = &ends[link.end as usize];
        let mut writer = Writer::new(buffer);
        writer.push(status_line);
        let vias = message.via.as_slice().iter();
        vias.for_each(|line| writer.push(message.whole(*line)));
        if let Some(asked) = dialog {
            let routes = message.record_route.as_slice().iter();
            routes.for_each(|line| writer.push(message.whole(*line)));
            let to = [b"To: ", message.value(message.to), b";tag=", tag(asked.token), b"\r\n"];
            to.iter().for_each(|part| writer.push(part));
        } else {
            writer.push(message.whole(message.to));
        }
        for line in [message.from, message.call_id, message.cseq] {
            writer.push(message.whole(line));
        }
        writer.push(dialect.pad.as_bytes());
        if let Some(asked) = dialog {
            let address = end.contact_of(asked.callee);
            let contact = [b"Contact: <sip:", users.name(asked.callee), b"@", address, end.contact_end.as_bytes()];
            contact.iter().for_each(|part| writer.push(part));
        }
        if dialog.is_some() && status_line == OK {
            writer.push(dialect.body.text.as_bytes());
        } else {
            writer.push(b"Content-Length: 0\r\n\r\n");
        }
        writer.length()
    }
}

/// Whether the Request-URI is this user's at this host (and port).
fn is_for(raw: &[u8], user: &[u8], address: &[u8]) -> bool {
    let line = raw.strip_prefix(b"INVITE ").or_else(|| raw.get(4..));
    let rest = line
        .and_then(|line| line.strip_prefix(b"sip:"))
        .and_then(|line| line.strip_prefix(user))
        .and_then(|line| line.strip_prefix(b"@"))
        .and_then(|line| line.strip_prefix(address));
    matches!(rest.and_then(<[u8]>::first), Some(b' ' | b';'))
}
