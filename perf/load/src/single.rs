//! Requests that are one transaction each: REGISTER refreshes of users in turn (RFC 3261 §10), and OPTIONS to the server (§11).

use crate::flow::{Dialect, Flow};
use crate::identity::{Identity, Run};
use crate::message;
use crate::stats::{Count, Span, Stats};
use crate::sys::Outbox;
use crate::template::{Fill, Template, Users};
use crate::timers::{Awaited, GIVE_UP_NS, Timers};
use crate::wire::{Local, Side};

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
    waiting: bool,
    measured: bool,
    scheduled_ns: u64,
    started_ns: u64,
}

/// One request at a time for each user; the branch names the user and the CSeq.
pub struct Singles {
    run: Run,
    method: Method,
    dialect: Dialect,
    users: Users,
    state: Vec<User>,
    /// One for each pair of a caller's and an answerer's socket.
    templates: Vec<Template>,
    timers: Timers,
    next: u32,
    outstanding: u32,
}

impl Singles {
    pub fn new(
        run: Run,
        method: Method,
        dialect: Dialect,
        users: u32,
        locals: &[Local],
    ) -> Singles {
        let users = Users::new(users);
        let side = |side| locals.iter().filter(move |local| local.side == side);
        let templates = side(Side::Caller)
            .zip(side(Side::Answerer))
            .map(|(caller, answerer)| {
                request(
                    run,
                    method,
                    &caller.address.to_string(),
                    &answerer.address.to_string(),
                    &dialect,
                    users.width(),
                )
            })
            .collect();
        let idle = User {
            sequence: FIRST_SEQUENCE,
            waiting: false,
            measured: false,
            scheduled_ns: 0,
            started_ns: 0,
        };
        Singles {
            run,
            method,
            dialect,
            state: vec![idle; users.count() as usize],
            users,
            templates,
            timers: Timers::default(),
            next: 0,
            outstanding: 0,
        }
    }

    fn send(&self, number: u32, out: &mut Outbox) {
        let user = &self.state[number as usize];
        let identity = Identity {
            slot: number,
            generation: user.sequence,
        };
        let socket = number as usize % self.templates.len();
        let fill = Fill {
            token: &self.run.token(identity),
            caller: self.users.name(number),
            callee: self.users.name(number),
            sequence: user.sequence,
        };
        let length = self.templates[socket].render(&fill, out.buffer());
        out.commit(socket, length);
    }

    fn finish(&mut self, number: u32) {
        self.state[number as usize].waiting = false;
        self.outstanding -= 1;
    }

    fn check(&self, raw: &[u8], socket: usize) -> Result<(Identity, u16), &'static str> {
        let scan = message::scan(raw).ok_or("not a whole message")?;
        let [via] = scan.via.as_slice() else {
            return Err("not exactly one Via");
        };
        let identity = message::parameter(via.value(raw), b"branch")
            .and_then(|branch| branch.strip_prefix(b"z9hG4bK"))
            .and_then(|token| self.run.identity(token))
            .ok_or("top Via is not ours")?;
        if identity.slot >= self.users.count()
            || socket != identity.slot as usize % self.templates.len()
        {
            return Err("response to another socket than the request's");
        }
        let token = self.run.token(identity);
        let cseq = scan.cseq.value(raw);
        let method: &[u8] = match self.method {
            Method::Register => b" REGISTER",
            Method::Options => b" OPTIONS",
        };
        let number = cseq
            .strip_suffix(method)
            .and_then(|number| std::str::from_utf8(number).ok()?.parse::<u32>().ok());
        if number != Some(identity.generation) {
            return Err("CSeq is not the request's");
        }
        if message::parameter(scan.from.value(raw), b"tag") != Some(&token[8..]) {
            return Err("From tag changed");
        }
        let name = self.users.name(identity.slot);
        if !scan.call_id.value(raw).starts_with(name) {
            return Err("Call-ID is not the request's");
        }
        if self.dialect.floor {
            return Ok((identity, 200));
        }
        let status = message::status(raw);
        if message::parameter(scan.to.value(raw), b"tag").is_none() && status != 100 {
            return Err("no To tag");
        }
        if self.method == Method::Register && status == 200 {
            let uri = message::contact_uri(scan.contact.value(raw));
            if uri
                .strip_prefix(b"sip:")
                .is_none_or(|rest| !rest.starts_with(name))
            {
                return Err("the binding is not in the answer");
            }
        }
        Ok((identity, status))
    }
}

fn request(
    run: Run,
    method: Method,
    address: &str,
    contact: &str,
    dialect: &Dialect,
    user_width: usize,
) -> Template {
    let Dialect { domain, pad, .. } = dialect;
    let (name, to, last) = match method {
        Method::Register => (
            "REGISTER",
            format!("<sip:{{caller}}@{domain}>"),
            format!("Contact: <sip:{{caller}}@{contact}>\r\nExpires: 3600\r\n"),
        ),
        Method::Options => (
            "OPTIONS",
            format!("<sip:{domain}>"),
            "Accept: application/sdp\r\n".to_string(),
        ),
    };
    // A user's REGISTERs keep their Call-ID (RFC 3261 §10.2.4); another run has another.
    let run = run.text();
    Template::new(
        &format!(
            "{name} sip:{domain} SIP/2.0\r\n\
             Via: SIP/2.0/UDP {address};branch=z9hG4bK{{token}};rport\r\n\
             Max-Forwards: 70\r\n\
             From: <sip:{{caller}}@{domain}>;tag={{tag}}\r\n\
             To: {to}\r\n\
             Call-ID: {{caller}}-{run}@load\r\n\
             CSeq: {{sequence}} {name}\r\n\
             {last}{pad}\
             User-Agent: strowger-load\r\n\
             Content-Length: 0\r\n\r\n"
        ),
        user_width,
    )
}

impl Flow for Singles {
    fn start(
        &mut self,
        scheduled_ns: u64,
        now_ns: u64,
        out: &mut Outbox,
        stats: &mut Stats,
    ) -> bool {
        let number = self.next;
        let user = &mut self.state[number as usize];
        if user.waiting {
            return false;
        }
        self.next = (number + 1) % self.users.count();
        user.sequence += 1;
        user.waiting = true;
        user.measured = stats.measuring;
        user.scheduled_ns = scheduled_ns;
        user.started_ns = now_ns;
        let identity = Identity {
            slot: number,
            generation: user.sequence,
        };
        self.outstanding += 1;
        self.send(number, out);
        self.timers.arm(now_ns, identity, Awaited::Request);
        stats.counts.add(Count::Started);
        true
    }

    fn receive(
        &mut self,
        socket: usize,
        raw: &[u8],
        now_ns: u64,
        _out: &mut Outbox,
        stats: &mut Stats,
    ) {
        let (identity, status) = match self.check(raw, socket) {
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
                if user.measured {
                    stats.record(Span::ToOk, now_ns - user.scheduled_ns);
                }
                stats.counts.add(Count::Completed);
                self.finish(identity.slot);
            }
            _ => {
                stats.wrong("refused", raw);
                stats.counts.add(Count::Refused);
                self.finish(identity.slot);
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
                self.finish(identity.slot);
                continue;
            }
            stats.counts.add(Count::RetransmittedRequest);
            self.send(identity.slot, out);
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
