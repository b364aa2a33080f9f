//! REGISTER refreshes of users in turn (RFC 3261 §10), of one transaction each, or of two where they are challenged.

use std::rc::Rc;

use crate::digest::{Asker, Carried, Credentials, Request};
use crate::flow::{Flow, Turn};
use crate::identity::{Identity, Run, TAG, tag};
use crate::message::{self, Message};
use crate::parties::{Dialect, End, Parties};
use crate::stats::{Count, Mark, Span};
use crate::template::{Fill, Template};
use crate::timers::{Awaited, GIVE_UP_NS, Timers};
use crate::wire::{Link, Outbox, Side};

/// Where a user's CSeq begins, so that its width never changes.
const FIRST_SEQUENCE: u32 = 100_000_000;

#[derive(Clone, Copy, Default)]
struct User {
    sequence: u32,
    /// The CSeq of the first attempt: its request keeps the From tag when it answers a challenge (RFC 3261 §8.1.3.5).
    first_sequence: u32,
    waiting: bool,
    mark: Mark,
    carried: Carried,
    scheduled_ns: u64,
    started_ns: u64,
    link: Link,
}

/// The end that a request leaves from, and the text of it.
struct Origin {
    end: u32,
    /// The end that the contact names.
    contact: u32,
    template: Template,
}

/// One request at a time for each user; the branch names the user and the CSeq.
pub struct Registrations {
    run: Run,
    parties: Rc<Parties>,
    /// The users as challenged ones; without it a challenge is a refusal.
    credentials: Option<Credentials>,
    /// `sip:` and the domain: the Request-URI of them all.
    uri: String,
    /// The credentials of the request in hand.
    lines: Vec<u8>,
    state: Vec<User>,
    /// One for each pair of an end that registers and an end that is called; the users take them in turn.
    origins: Vec<Origin>,
    timers: Timers,
    next: u32,
    outstanding: u32,
}

impl Registrations {
    pub fn new(run: Run, parties: Rc<Parties>, credentials: Option<Credentials>, registrar: Side) -> Registrations {
        let (registrars, answerers) = (parties.of(registrar), parties.of(Side::Answerer));
        let origin = |number: usize| {
            let end = registrars[number % registrars.len()];
            // Callers may be alone.
            let contact = *answerers.get(number % answerers.len().max(1)).unwrap_or(&end);
            let [own, called] = [end, contact].map(|end| &parties.ends[end as usize]);
            Origin { end, contact, template: request(run, own, called, &parties) }
        };
        let idle = User { sequence: FIRST_SEQUENCE, first_sequence: FIRST_SEQUENCE, ..User::default() };
        Registrations {
            run,
            uri: format!("sip:{}", parties.dialect.domain),
            credentials,
            lines: Vec::new(),
            state: vec![idle; parties.users.count() as usize],
            origins: (0..registrars.len().max(answerers.len())).map(origin).collect(),
            parties,
            timers: Timers::default(),
            next: 0,
            outstanding: 0,
        }
    }

    /// Sends the user's request, or sends it again: the same to the byte.
    fn send(&mut self, number: u32, out: &mut Outbox) {
        let user = self.state[number as usize];
        self.lines.clear();
        if user.carried != Carried::Nothing
            && let Some(credentials) = &mut self.credentials
        {
            let request = Request { asker: Asker::Registrar, method: "REGISTER", uri: self.uri.as_bytes() };
            credentials.write(number, &request, &mut self.lines);
        }
        let identity = Identity { slot: number, generation: user.sequence };
        let origin = self.origin(number);
        let fill = Fill {
            token: &self.run.token(identity),
            tag: &self.tag(number),
            attempt: 0,
            lines: &self.lines,
            caller: self.parties.users.name(number),
            callee: self.parties.users.name(number),
            sequence: user.sequence,
            contact: self.parties.ends[origin.contact as usize].contact_of(number),
        };
        let length = origin.template.render(&fill, out.buffer());
        out.commit(user.link, length);
    }

    /// The From tag of the user's request.
    fn tag(&self, number: u32) -> [u8; TAG] {
        *tag(&self.run.token(Identity { slot: number, generation: self.state[number as usize].first_sequence }))
    }

    fn origin(&self, number: u32) -> &Origin {
        &self.origins[number as usize % self.origins.len()]
    }

    fn finish(&mut self, number: u32, out: &mut Outbox) {
        self.state[number as usize].waiting = false;
        out.done(self.state[number as usize].link);
        self.outstanding -= 1;
    }

    /// The request goes again, with credentials, in a transaction of its own (RFC 3261 §22.2).
    fn answer(&mut self, number: u32, message: &Message, turn: &mut Turn) {
        let user = &mut self.state[number as usize];
        let carried = user.carried;
        let credentials = self.credentials.as_mut();
        if !credentials.is_some_and(|it| it.challenged(number, Asker::Registrar, carried, message, turn.stats)) {
            turn.stats.refused(message.status());
            return self.finish(number, turn.out);
        }
        user.carried = Carried::Fresh;
        user.sequence += 1;
        user.started_ns = turn.now_ns;
        let identity = Identity { slot: number, generation: user.sequence };
        self.send(number, turn.out);
        self.timers.arm(turn.now_ns, identity, Awaited::Request);
    }

    fn check(&self, message: &Message, link: Link) -> Result<(Identity, u16), &'static str> {
        let users = &self.parties.users;
        let [via] = message.via.as_slice() else {
            return Err("not exactly one Via");
        };
        let identity = message::parameter(message.value(*via), b"branch")
            .and_then(|branch| branch.strip_prefix(b"z9hG4bK"))
            .and_then(|token| self.run.identity(token))
            .ok_or("top Via is not ours")?;
        if identity.slot >= users.count() || link != self.state[identity.slot as usize].link {
            return Err("response by another way than the request's");
        }
        let number = message.value(message.cseq).strip_suffix(b" REGISTER");
        let number = number.and_then(|number| std::str::from_utf8(number).ok()?.parse::<u32>().ok());
        if number != Some(identity.generation) {
            return Err("CSeq is not the request's");
        }
        let is_late = identity.generation < self.state[identity.slot as usize].first_sequence;
        if !is_late && message.tag(message.from) != Some(&self.tag(identity.slot)) {
            return Err("From tag changed");
        }
        let name = users.name(identity.slot);
        if !message.value(message.call_id).starts_with(name) {
            return Err("Call-ID is not the request's");
        }
        if self.parties.dialect.floor {
            return Ok((identity, 200));
        }
        let status = message.status();
        if message.tag(message.to).is_none() && status != 100 {
            return Err("no To tag");
        }
        if status == 200 {
            let uri = message::contact_uri(message.value(message.contact));
            if uri.strip_prefix(b"sip:").is_none_or(|rest| !rest.starts_with(name)) {
                return Err("the binding is not in the answer");
            }
        }
        Ok((identity, status))
    }
}

fn request(run: Run, own: &End, called: &End, parties: &Parties) -> Template {
    let Parties { dialect: Dialect { domain, pad, .. }, users, .. } = parties;
    let (via, in_uri) = (&own.via, called.local.transport.in_uri());
    // A user's REGISTERs keep their Call-ID (RFC 3261 §10.2.4); another run has another.
    let run = run.text();
    Template::new(
        &format!(
            "REGISTER sip:{domain} SIP/2.0\r\n\
             {via}{{token}};rport\r\n\
             Max-Forwards: 70\r\n\
             From: <sip:{{caller}}@{domain}>;tag={{tag}}\r\n\
             To: <sip:{{caller}}@{domain}>\r\n\
             Call-ID: {{caller}}-{run}@load\r\n\
             CSeq: {{sequence}} REGISTER\r\n\
             Contact: <sip:{{caller}}@{{contact}}{in_uri}>\r\n\
             Expires: 3600\r\n\
             {pad}\
             User-Agent: strowger-load\r\n\
             {{lines}}\
             Content-Length: 0\r\n\r\n"
        ),
        users.width(),
        called.contact_of(0).len(),
    )
}

impl Flow for Registrations {
    fn start(&mut self, scheduled_ns: u64, turn: &mut Turn) -> bool {
        let number = self.next;
        if self.state[number as usize].waiting {
            return false;
        }
        let Some(link) = turn.out.begin(self.origin(number).end) else {
            return false;
        };
        self.next = (number + 1) % self.parties.users.count();
        let carried = self.credentials.as_mut().map_or(Carried::Nothing, |credentials| credentials.begin(number));
        let user = &mut self.state[number as usize];
        let (sequence, mark) = (user.sequence + 1, turn.stats.mark());
        let started_ns = turn.now_ns;
        *user = User { sequence, first_sequence: sequence, waiting: true, mark, carried, scheduled_ns, started_ns, link };
        self.outstanding += 1;
        self.send(number, turn.out);
        self.timers.arm(turn.now_ns, Identity { slot: number, generation: sequence }, Awaited::Request);
        turn.stats.counts.add(Count::Started);
        true
    }

    fn receive(&mut self, link: Link, raw: &[u8], turn: &mut Turn) {
        let Some(message) = message::read(raw) else {
            return turn.stats.wrong("not a whole message", raw);
        };
        let (identity, status) = match self.check(&message, link) {
            Ok(found) => found,
            Err(why) => return turn.stats.wrong(why, raw),
        };
        let user = &self.state[identity.slot as usize];
        if user.sequence != identity.generation || !user.waiting {
            return turn.stats.counts.add(Count::Stray);
        }
        let is_measured = turn.stats.measures(user.mark);
        match status {
            100..=199 => turn.stats.counts.add(Count::Trying),
            200 => {
                if is_measured {
                    turn.stats.counts.add(Count::Good);
                    turn.stats.record(Span::ToOk, turn.now_ns - user.scheduled_ns);
                }
                turn.stats.counts.add(Count::Completed);
                self.finish(identity.slot, turn.out);
            }
            401 if self.credentials.is_some() => self.answer(identity.slot, &message, turn),
            _ => {
                if status != 503 {
                    turn.stats.wrong("refused", raw);
                }
                turn.stats.refused(status);
                if is_measured {
                    turn.stats.record(Span::Refusal, turn.now_ns - user.scheduled_ns);
                }
                self.finish(identity.slot, turn.out);
            }
        }
    }

    fn lost(&mut self, link: Link, turn: &mut Turn) {
        for number in 0..self.parties.users.count() {
            let user = &self.state[number as usize];
            if user.waiting && user.link == link {
                turn.stats.counts.add(Count::Cut);
                self.finish(number, turn.out);
            }
        }
    }

    fn handle_timers(&mut self, turn: &mut Turn) {
        while let Some(due) = self.timers.pop(turn.now_ns) {
            let identity = due.identity;
            let user = &self.state[identity.slot as usize];
            if user.sequence != identity.generation || !user.waiting {
                continue;
            }
            if turn.now_ns - user.started_ns >= GIVE_UP_NS {
                turn.stats.counts.add(Count::TimedOut);
                self.finish(identity.slot, turn.out);
                continue;
            }
            if !turn.out.is_reliable(user.link) {
                turn.stats.counts.add(Count::RetransmittedRequest);
                self.send(identity.slot, turn.out);
            }
            self.timers.rearm(turn.now_ns, due);
        }
    }

    fn next_timer_ns(&self) -> Option<u64> {
        self.timers.next_ns()
    }

    fn outstanding(&self) -> u32 {
        self.outstanding
    }
}
