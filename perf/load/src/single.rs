//! Requests of one transaction each, or of two where they are challenged: REGISTER refreshes of users in turn (RFC 3261 §10), and OPTIONS to
//! the server (§11).

use std::rc::Rc;

use crate::accounts::{Carried, Credentials, Request};
use crate::digest::Asker;
use crate::end::uri_host;
use crate::flow::{Dialect, Flow};
use crate::identity::{Identity, Run};
use crate::message::{self, Scan};
use crate::stats::{Count, Mark, Span, Stats};
use crate::template::{Fill, TAG, Template, Users};
use crate::timers::{Awaited, GIVE_UP_NS, Timers};
use crate::wire::{Link, Local, Outbox, Side, spread_host};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    Register,
    Options,
}

/// Where a user's CSeq begins, so that its width never changes.
const FIRST_SEQUENCE: u32 = 100_000_000;

#[derive(Clone, Copy)]
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
    /// As in `Local`, of the end that the contact names.
    spread: u32,
    template: Template,
}

/// One request at a time for each user; the branch names the user and the CSeq.
pub struct Singles {
    run: Run,
    method: Method,
    dialect: Dialect,
    users: Rc<Users>,
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

impl Singles {
    pub fn new(
        run: Run,
        method: Method,
        dialect: Dialect,
        users: Rc<Users>,
        credentials: Option<Credentials>,
        locals: &[Local],
        registrar: Side,
    ) -> Singles {
        let ends = |side| locals.iter().enumerate().filter(move |(_, local)| local.side == side).collect::<Vec<_>>();
        let (registrars, answerers) = (ends(registrar), ends(Side::Answerer));
        let pairs = match method {
            Method::Register => registrars.len().max(answerers.len()),
            Method::Options => registrars.len(),
        };
        let origins = (0..pairs)
            .map(|number| {
                let (end, local) = registrars[number % registrars.len()];
                // An OPTIONS says nothing of contacts, and callers may be alone.
                let contact = match answerers.get(number % answerers.len().max(1)) {
                    Some((_, contact)) => *contact,
                    None => local,
                };
                Origin {
                    end: end as u32,
                    spread: contact.spread,
                    template: request(run, method, local, contact, &dialect, users.width()),
                }
            })
            .collect();
        let idle = User {
            sequence: FIRST_SEQUENCE,
            first_sequence: FIRST_SEQUENCE,
            waiting: false,
            mark: Mark::default(),
            carried: Carried::Nothing,
            scheduled_ns: 0,
            started_ns: 0,
            link: Link::default(),
        };
        Singles {
            run,
            method,
            uri: format!("sip:{}", dialect.domain),
            dialect,
            credentials,
            lines: Vec::new(),
            state: vec![idle; users.count() as usize],
            users,
            origins,
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
        let mut host = None;
        let fill = Fill {
            token: &self.run.token(identity),
            tag: &self.tag(number),
            attempt: 0,
            lines: &self.lines,
            caller: self.users.name(number),
            callee: self.users.name(number),
            sequence: user.sequence,
            host: match origin.spread {
                0 => &[],
                spread => host.insert(spread_host(number, spread)).as_bytes(),
            },
        };
        let length = origin.template.render(&fill, out.buffer());
        out.commit(user.link, length);
    }

    /// The From tag of the user's request.
    fn tag(&self, number: u32) -> [u8; TAG] {
        let token = self.run.token(Identity { slot: number, generation: self.state[number as usize].first_sequence });
        std::array::from_fn(|at| token[at + 8])
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
    fn answer(&mut self, number: u32, raw: &[u8], scan: &Scan, now_ns: u64, out: &mut Outbox, stats: &mut Stats) {
        let user = &mut self.state[number as usize];
        let (asker, carried) = (Asker::Registrar, user.carried);
        let answers =
            self.credentials.as_mut().is_some_and(|credentials| credentials.challenged(number, asker, carried, raw, scan, stats));
        if !answers {
            stats.refused(message::status(raw));
            return self.finish(number, out);
        }
        user.carried = Carried::Fresh;
        user.sequence += 1;
        user.started_ns = now_ns;
        let identity = Identity { slot: number, generation: user.sequence };
        self.send(number, out);
        self.timers.arm(now_ns, identity, Awaited::Request);
    }

    fn check(&self, raw: &[u8], link: Link) -> Result<(Identity, u16, Scan), &'static str> {
        let scan = message::scan(raw).ok_or("not a whole message")?;
        let [via] = scan.via.as_slice() else {
            return Err("not exactly one Via");
        };
        let identity = message::parameter(via.value(raw), b"branch")
            .and_then(|branch| branch.strip_prefix(b"z9hG4bK"))
            .and_then(|token| self.run.identity(token))
            .ok_or("top Via is not ours")?;
        if identity.slot >= self.users.count() || link != self.state[identity.slot as usize].link {
            return Err("response by another way than the request's");
        }
        let cseq = scan.cseq.value(raw);
        let method: &[u8] = match self.method {
            Method::Register => b" REGISTER",
            Method::Options => b" OPTIONS",
        };
        let number = cseq.strip_suffix(method).and_then(|number| std::str::from_utf8(number).ok()?.parse::<u32>().ok());
        if number != Some(identity.generation) {
            return Err("CSeq is not the request's");
        }
        let user = &self.state[identity.slot as usize];
        let is_late = identity.generation < user.first_sequence;
        let tag = message::parameter(scan.from.value(raw), b"tag");
        if !is_late && tag != Some(&self.tag(identity.slot)) {
            return Err("From tag changed");
        }
        let name = self.users.name(identity.slot);
        if !scan.call_id.value(raw).starts_with(name) {
            return Err("Call-ID is not the request's");
        }
        if self.dialect.floor {
            return Ok((identity, 200, scan));
        }
        let status = message::status(raw);
        if message::parameter(scan.to.value(raw), b"tag").is_none() && status != 100 {
            return Err("no To tag");
        }
        if self.method == Method::Register && status == 200 {
            let uri = message::contact_uri(scan.contact.value(raw));
            if uri.strip_prefix(b"sip:").is_none_or(|rest| !rest.starts_with(name)) {
                return Err("the binding is not in the answer");
            }
        }
        Ok((identity, status, scan))
    }
}

fn request(run: Run, method: Method, local: &Local, contact: &Local, dialect: &Dialect, user_width: usize) -> Template {
    let Dialect { domain, pad, .. } = dialect;
    let host = match contact.spread {
        0 => uri_host(contact.address.ip()),
        _ => "{host}".to_string(),
    };
    let (in_via, address) = (local.transport.in_via(), local.address);
    let (name, to, last) = match method {
        Method::Register => (
            "REGISTER",
            format!("<sip:{{caller}}@{domain}>"),
            format!(
                "Contact: <sip:{{caller}}@{host}:{}{}>\r\nExpires: 3600\r\n",
                contact.address.port(),
                contact.transport.in_uri()
            ),
        ),
        Method::Options => ("OPTIONS", format!("<sip:{domain}>"), "Accept: application/sdp\r\n".to_string()),
    };
    // A user's REGISTERs keep their Call-ID (RFC 3261 §10.2.4); another run has another.
    let run = run.text();
    Template::new(
        &format!(
            "{name} sip:{domain} SIP/2.0\r\n\
             Via: SIP/2.0/{in_via} {address};branch=z9hG4bK{{token}};rport\r\n\
             Max-Forwards: 70\r\n\
             From: <sip:{{caller}}@{domain}>;tag={{tag}}\r\n\
             To: {to}\r\n\
             Call-ID: {{caller}}-{run}@load\r\n\
             CSeq: {{sequence}} {name}\r\n\
             {last}{pad}\
             User-Agent: strowger-load\r\n\
             {{lines}}\
             Content-Length: 0\r\n\r\n"
        ),
        user_width,
    )
}

impl Flow for Singles {
    fn start(&mut self, scheduled_ns: u64, now_ns: u64, out: &mut Outbox, stats: &mut Stats) -> bool {
        let number = self.next;
        if self.state[number as usize].waiting {
            return false;
        }
        let Some(link) = out.begin(self.origin(number).end) else {
            return false;
        };
        let user = &mut self.state[number as usize];
        user.link = link;
        self.next = (number + 1) % self.users.count();
        user.sequence += 1;
        user.first_sequence = user.sequence;
        user.carried = self
            .credentials
            .as_mut()
            .filter(|_| self.method == Method::Register)
            .map_or(Carried::Nothing, |credentials| credentials.begin(number));
        user.waiting = true;
        user.mark = stats.mark();
        user.scheduled_ns = scheduled_ns;
        user.started_ns = now_ns;
        let identity = Identity { slot: number, generation: user.sequence };
        self.outstanding += 1;
        self.send(number, out);
        self.timers.arm(now_ns, identity, Awaited::Request);
        stats.counts.add(Count::Started);
        true
    }

    fn receive(&mut self, link: Link, raw: &[u8], now_ns: u64, out: &mut Outbox, stats: &mut Stats) {
        let (identity, status, scan) = match self.check(raw, link) {
            Ok(found) => found,
            Err(why) => return stats.wrong(why, raw),
        };
        let user = &self.state[identity.slot as usize];
        if user.sequence != identity.generation || !user.waiting {
            return stats.counts.add(Count::Stray);
        }
        match status {
            100..=199 => stats.counts.add(Count::Trying),
            200 => {
                if stats.measures(user.mark) {
                    stats.counts.add(Count::Good);
                    stats.record(Span::ToOk, now_ns - user.scheduled_ns);
                }
                stats.counts.add(Count::Completed);
                self.finish(identity.slot, out);
            }
            401 if self.method == Method::Register && self.credentials.is_some() => {
                self.answer(identity.slot, raw, &scan, now_ns, out, stats);
            }
            _ => {
                if status != 503 {
                    stats.wrong("refused", raw);
                }
                stats.refused(status);
                if stats.measures(user.mark) {
                    stats.record(Span::Refusal, now_ns - user.scheduled_ns);
                }
                self.finish(identity.slot, out);
            }
        }
    }

    fn lost(&mut self, link: Link, out: &mut Outbox, stats: &mut Stats) {
        for number in 0..self.users.count() {
            let user = &self.state[number as usize];
            if user.waiting && user.link == link {
                stats.counts.add(Count::Cut);
                self.finish(number, out);
            }
        }
    }

    fn handle_timers(&mut self, now_ns: u64, out: &mut Outbox, stats: &mut Stats) {
        while let Some(due) = self.timers.pop(now_ns) {
            let identity = due.identity;
            let user = &self.state[identity.slot as usize];
            if user.sequence != identity.generation || !user.waiting {
                continue;
            }
            if now_ns - user.started_ns >= GIVE_UP_NS {
                stats.counts.add(Count::TimedOut);
                self.finish(identity.slot, out);
                continue;
            }
            if !out.is_reliable(user.link) {
                stats.counts.add(Count::RetransmittedRequest);
                self.send(identity.slot, out);
            }
            self.timers.rearm(now_ns, due);
        }
    }

    fn next_timer_ns(&self) -> Option<u64> {
        self.timers.next_ns()
    }

    fn outstanding(&self) -> u32 {
        self.outstanding
    }
}
