//! Hostile agents with a name of their own: they register, call and are called like anybody, keep what they are told in that
//! way (Vias, Record-Route cookies, nonces), and use it as somebody else. One of them listens to the air besides.

use super::address::Address;
use super::air::Air;
use super::caller::ack_for_refusal;
use super::digest::{Account, Challenge};
use super::intent::Intent;
use super::phone::Phones;
use super::plan::{BOSS, GATEWAY_PREFIX, MALLORY};
use super::reading::{Field, Reading};
use super::scenario::Scenario;
use super::text::{address_spec, param};
use super::writing::{finish, line, replaced, request, response, with_line, without};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

const KEPT: usize = 48;

/// A dialog that one of the gang is in.
pub(super) struct Held {
    pub(super) at: SocketAddr,
    pub(super) server: usize,
    pub(super) call_id: Vec<u8>,
    pub(super) local: Vec<u8>,
    pub(super) remote: Vec<u8>,
    pub(super) target: Vec<u8>,
    pub(super) routes: Vec<Vec<u8>>,
    pub(super) cseq: u64,
}

/// A request of its own that may be challenged.
pub(super) struct Asked {
    pub(super) server: usize,
    pub(super) at: SocketAddr,
    pub(super) account: Account,
    pub(super) message: Rc<Reading>,
    /// It has been challenged before.
    pub(super) again: bool,
}

#[derive(Default)]
pub struct Gang {
    /// What came to their own addresses: by whom, to whom.
    pub(super) seen: VecDeque<(SocketAddr, SocketAddr, Rc<Reading>)>,
    /// Requests with somebody's credentials that were overheard, and where they went.
    pub(super) captured: VecDeque<(SocketAddr, Rc<Reading>)>,
    pub(super) held: VecDeque<Held>,
    pub(super) asked: VecDeque<Asked>,
    /// Challenges that it was given, by server.
    pub(super) challenges: VecDeque<(usize, Challenge)>,
    pub(super) cseq: u64,
}

/// Where an attack goes.
#[derive(Clone, Copy)]
pub(super) struct Aim {
    pub(super) from: SocketAddr,
    pub(super) server: usize,
    pub(super) at: SocketAddr,
}

pub(super) fn keep<T>(list: &mut VecDeque<T>, what: T) {
    if list.len() == KEPT {
        list.pop_front();
    }
    list.push_back(what);
}

pub(super) fn any<'a, T>(air: &mut Air, list: &'a VecDeque<T>) -> Option<&'a T> {
    let count = list.len() as u64;
    (count > 0).then(|| &list[air.rng.below(count) as usize])
}

/// The part of the message's bytes that `text`, a slice of it, takes.
pub(super) fn place(message: &Reading, text: &[u8]) -> std::ops::Range<usize> {
    let start = text.as_ptr() as usize - message.bytes.as_ptr() as usize;
    start..start + text.len()
}

pub(super) fn with_branch(message: &Reading, branch: &str) -> Vec<u8> {
    match param(message.via(0), b"branch") {
        Some(old) => replaced(message, place(message, old), branch.as_bytes()),
        None => message.bytes.clone(),
    }
}

impl Gang {
    /// Something came to an address of theirs.
    pub fn receive(&mut self, air: &mut Air, scenario: &Scenario, at: SocketAddr, from: SocketAddr, message: &Rc<Reading>) {
        if message.is_broken() {
            return;
        }
        keep(&mut self.seen, (from, at, Rc::clone(message)));
        let server = scenario.servers.iter();
        let Some(server) = server.enumerate().find(|(_, s)| s.addresses.contains(&from)).map(|(n, _)| n) else {
            return;
        };
        match (message.is_request(), message.method()) {
            (true, b"INVITE") => self.called(air, server, at, from, message),
            (true, b"ACK") => {}
            (true, _) => {
                let mut out = response(message, 200, "Why Not", b"m");
                finish(&mut out, b"");
                air.send(at, from, out, Intent::Hostile);
            }
            (false, _) => self.answered(air, server, at, from, message),
        }
    }

    fn called(&mut self, air: &mut Air, server: usize, at: SocketAddr, from: SocketAddr, message: &Reading) {
        let tag = format!("m{:x}", air.rng.below(1 << 32));
        let status = [200, 200, 180, 486][air.rng.below(4) as usize];
        let mut out = response(message, status, "Gladly", tag.as_bytes());
        for route in message.values(Field::RecordRoute) {
            line(&mut out, "Record-Route", &[route]);
        }
        let contact = format!("<sip:{MALLORY}@{at}>");
        line(&mut out, "Contact", &[contact.as_bytes()]);
        finish(&mut out, b"");
        let answer = Reading::new(out);
        if status == 200 {
            let contacts = message.values(Field::Contact);
            let held = Held {
                at,
                server,
                call_id: message.call_id().to_vec(),
                local: answer.value(Field::To).unwrap_or(b"").to_vec(),
                remote: answer.value(Field::From).unwrap_or(b"").to_vec(),
                target: contacts.first().map_or(Vec::new(), |c| address_spec(c).to_vec()),
                routes: message.values(Field::RecordRoute).iter().map(|r| r.to_vec()).collect(),
                cseq: 7000,
            };
            air.statistics.gang_answers += 1;
            keep(&mut self.held, held);
        }
        air.send(at, from, answer.bytes, Intent::Hostile);
    }

    fn answered(&mut self, air: &mut Air, server: usize, at: SocketAddr, from: SocketAddr, message: &Rc<Reading>) {
        let own = |asked: &Asked| asked.at == at && asked.message.branch == message.branch;
        let Some(place) = self.asked.iter().rposition(own) else {
            return;
        };
        let status = message.status();
        if status < 200 {
            return;
        }
        let Some(asked) = self.asked.remove(place) else {
            return;
        };
        let invite = asked.message.method() == b"INVITE";
        if invite && status >= 300 {
            let ack = ack_for_refusal(&asked.message, message);
            air.send(at, from, ack, Intent::Hostile);
        }
        if let Some(challenge) = Challenge::of(message) {
            keep(&mut self.challenges, (server, challenge));
            if !asked.again {
                let branch = format!("z9hG4bKm{:x}", air.rng.next_u64());
                let bytes = with_branch(&asked.message, &branch);
                let aim = Aim { from: at, server: asked.server, at: from };
                self.prove_again(air, aim, asked.account, bytes);
            }
            return;
        }
        if invite && status < 300 {
            self.won(air, server, at, &asked.message, message);
        }
    }

    /// A call of its own was answered: that gives a dialog, with the cookie of its Record-Route.
    fn won(&mut self, air: &mut Air, server: usize, at: SocketAddr, invite: &Reading, answer: &Reading) {
        let contacts = answer.values(Field::Contact);
        let mut routes: Vec<Vec<u8>> = answer.values(Field::RecordRoute).iter().map(|route| route.to_vec()).collect();
        routes.reverse();
        let held = Held {
            at,
            server,
            call_id: invite.call_id().to_vec(),
            local: answer.value(Field::From).unwrap_or(b"").to_vec(),
            remote: answer.value(Field::To).unwrap_or(b"").to_vec(),
            target: contacts.first().map_or(Vec::new(), |c| address_spec(c).to_vec()),
            routes,
            cseq: invite.cseq().map_or(1, |(n, _)| n),
        };
        air.statistics.gang_calls += 1;
        let ack = self.inside(air, &held, b"ACK", held.cseq, &held.target, &held.local, &held.remote);
        if let Some(to) = next_hop(&held) {
            air.send(at, to, ack, Intent::Hostile);
        }
        keep(&mut self.held, held);
    }

    /// Sends a request with its own credentials if it has been asked before; else it waits to be asked.
    pub(super) fn prove(&mut self, air: &mut Air, aim: Aim, account: Account, bytes: Vec<u8>) {
        self.send_proved(air, aim, account, bytes, false);
    }

    fn prove_again(&mut self, air: &mut Air, aim: Aim, account: Account, bytes: Vec<u8>) {
        let bytes = [Field::Authorization, Field::ProxyAuthorization]
            .into_iter()
            .fold(bytes, |bytes, field| without(&Reading::new(bytes), field));
        self.send_proved(air, aim, account, bytes, true);
    }

    fn send_proved(&mut self, air: &mut Air, aim: Aim, account: Account, bytes: Vec<u8>, again: bool) {
        let message = Reading::new(bytes);
        let proxy = message.method() != b"REGISTER";
        let known = self.challenges.iter_mut().rev().find(|(server, c)| {
            *server == aim.server && c.proxy == proxy && c.realm == account.realm.as_bytes() && (c.qop || c.count == 0)
        });
        let bytes = match known {
            Some((_, challenge)) => {
                let (method, uri) = (message.method(), message.uri());
                let value = challenge.answer(&account, method, uri, message.body(), false);
                with_line(&message, challenge.header(), &value)
            }
            None => message.bytes,
        };
        let message = Rc::new(Reading::new(bytes));
        let asked = Asked { server: aim.server, at: aim.from, account, message: Rc::clone(&message), again };
        keep(&mut self.asked, asked);
        air.send_again(aim.from, aim.at, message, Intent::Hostile);
    }

    /// One attack, chosen by the dice.
    pub fn attack(&mut self, air: &mut Air, scenario: &Scenario, phones: &mut Phones) {
        self.listen(air, scenario);
        let Some(aim) = aim(air, scenario) else {
            return;
        };
        air.statistics.hostile += 1;
        match air.rng.below(28) {
            0 => self.register(air, scenario, aim),
            1..4 => self.call(air, scenario, aim),
            4..7 => self.forge_spiral(air, scenario, phones, aim),
            7..10 => self.reuse_cookie(air, scenario, aim),
            10 | 11 => self.misspell(air, scenario, aim),
            12 => self.lend(air, scenario, aim),
            13 => self.count_again(air, scenario, aim),
            14 => self.register_another(air, scenario, aim),
            15..18 => self.replay(air, scenario, false),
            18 => self.cancel_by_branch(air, scenario, aim),
            19 => self.stray_ack(air, scenario, aim),
            20 => self.bind_to_server(air, scenario, aim),
            21 => self.register_twice(air, scenario, aim),
            22 => self.odd_response(air),
            23 => self.no_length(air, scenario, aim),
            24 => self.assert(air, scenario, aim),
            25 | 26 => self.pass_on(air, scenario, aim),
            _ => self.long_list(air, scenario, aim),
        }
    }

    /// Keeps what is on the air and has somebody's credentials.
    fn listen(&mut self, air: &mut Air, scenario: &Scenario) {
        if !scenario.guarded || !air.rng.one_in(3) {
            return;
        }
        let count = air.overheard.len() as u64;
        let start = air.rng.below(count.max(1)) as usize;
        let found = air.overheard.iter().skip(start).find(|(_, to, message)| {
            let server = scenario.servers.iter().any(|s| s.addresses.contains(to));
            let proved = message.count(Field::Authorization) + message.count(Field::ProxyAuthorization) > 0;
            server && proved && message.is_request() && !message.is_broken()
        });
        if let Some((_, to, message)) = found {
            let captured = (*to, Rc::clone(message));
            keep(&mut self.captured, captured);
        }
    }

    /// A request outside of any dialog: start line to CSeq.
    pub(super) fn begin(&mut self, air: &mut Air, aim: Aim, method: &[u8], uri: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
        self.begin_below(air, aim, method, uri, from, to, &[])
    }

    /// The same with other Vias below its own.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn begin_below(
        &mut self,
        air: &mut Air,
        aim: Aim,
        method: &[u8],
        uri: &[u8],
        from: &[u8],
        to: &[u8],
        vias: &[&[u8]],
    ) -> Vec<u8> {
        let mut out = request(method, uri);
        let at = aim.from.to_string();
        let branch = format!(";branch=z9hG4bKm{:x}", air.rng.next_u64());
        let via = [b"SIP/2.0/UDP ", at.as_bytes(), branch.as_bytes()];
        line(&mut out, "Via", &via);
        for via in vias {
            line(&mut out, "Via", &[via]);
        }
        line(&mut out, "Max-Forwards", &[b"70"]);
        line(&mut out, "From", &[from]);
        line(&mut out, "To", &[to]);
        let call_id = format!("{:x}@gang", air.rng.next_u64());
        line(&mut out, "Call-ID", &[call_id.as_bytes()]);
        self.cseq += 1;
        let cseq = self.cseq.to_string();
        line(&mut out, "CSeq", &[cseq.as_bytes(), b" ", method]);
        out
    }

    pub(super) fn contact(&self, aim: Aim) -> Vec<u8> {
        format!("<sip:{MALLORY}@{}>", aim.from).into_bytes()
    }

    fn register(&mut self, air: &mut Air, scenario: &Scenario, aim: Aim) {
        let domain = domain(air, scenario, aim.server);
        let own = format!("<sip:{MALLORY}@{domain}>");
        let from = format!("{own};tag=r");
        let uri = format!("sip:{domain}");
        let mut out = self.begin(air, aim, b"REGISTER", uri.as_bytes(), from.as_bytes(), own.as_bytes());
        line(&mut out, "Contact", &[&self.contact(aim), b";expires=600"]);
        finish(&mut out, b"");
        let account = mallory(scenario, aim.server, &domain);
        self.prove(air, aim, account, out);
    }

    /// Calls somebody, as itself or as a stranger: whoever is called says its Via, and the server its cookie.
    fn call(&mut self, air: &mut Air, scenario: &Scenario, aim: Aim) {
        let domain = domain(air, scenario, aim.server);
        let own = match air.rng.one_in(2) {
            true => format!("<sip:{MALLORY}@{domain}>"),
            false => "<sip:mallory@m.example>".to_string(),
        };
        let from = format!("{own};tag={:x}", air.rng.below(1 << 32));
        let mut callee = callee(air, scenario, aim.server);
        let mut to = format!("<{callee}>");
        if air.rng.one_in(6) {
            // One of its own, who is told to be somebody else.
            callee = format!("sip:{MALLORY}@{domain}");
            to = format!("<sip:{}@{domain}>", victim(air));
        }
        let mut out = self.begin(air, aim, b"INVITE", callee.as_bytes(), from.as_bytes(), to.as_bytes());
        line(&mut out, "Contact", &[&self.contact(aim)]);
        finish(&mut out, b"");
        let account = mallory(scenario, aim.server, &domain);
        self.prove(air, aim, account, out);
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn inside(
        &self,
        air: &mut Air,
        held: &Held,
        method: &[u8],
        cseq: u64,
        uri: &[u8],
        from: &[u8],
        to: &[u8],
    ) -> Vec<u8> {
        let mut out = request(method, uri);
        let at = held.at.to_string();
        let branch = format!(";branch=z9hG4bKm{:x}", air.rng.next_u64());
        line(&mut out, "Via", &[b"SIP/2.0/UDP ", at.as_bytes(), branch.as_bytes()]);
        for route in &held.routes {
            line(&mut out, "Route", &[route]);
        }
        line(&mut out, "Max-Forwards", &[b"70"]);
        line(&mut out, "From", &[from]);
        line(&mut out, "To", &[to]);
        line(&mut out, "Call-ID", &[&held.call_id]);
        line(&mut out, "CSeq", &[cseq.to_string().as_bytes(), b" ", method]);
        finish(&mut out, b"");
        out
    }
}

fn aim(air: &mut Air, scenario: &Scenario) -> Option<Aim> {
    let server = air.rng.below(scenario.servers.len() as u64) as usize;
    let from = scenario.attackers[air.rng.below(scenario.attackers.len() as u64) as usize];
    let addresses = &scenario.servers[server].addresses;
    let at = *addresses.iter().find(|a| a.is_ipv6() == from.is_ipv6())?;
    Some(Aim { from, server, at })
}

pub(super) fn domain(air: &mut Air, scenario: &Scenario, server: usize) -> String {
    let domains = &scenario.servers[server].settings.domains;
    let domain = &domains[air.rng.below(domains.len() as u64) as usize];
    String::from_utf8_lossy(domain).into_owned()
}

pub(super) fn victim(air: &mut Air) -> String {
    match air.rng.below(4) {
        0 => BOSS.to_string(),
        _ => format!("u{}", air.rng.below(6)),
    }
}

pub(super) fn mallory(scenario: &Scenario, server: usize, domain: &str) -> Account {
    Account::new(MALLORY, &scenario.realm(server, domain))
}

pub(super) fn callee(air: &mut Air, scenario: &Scenario, server: usize) -> String {
    let domain = domain(air, scenario, server);
    let gateway = String::from_utf8_lossy(GATEWAY_PREFIX).into_owned();
    match air.rng.below(8) {
        0 => format!("sip:{gateway}9@{domain}"),
        1 => format!("sip:u{}@{domain}.", air.rng.below(6)),
        _ => format!("sip:u{}@{domain}", air.rng.below(6)),
    }
}

/// Where a request inside of a dialog goes: to the first route, if its family is right.
pub(super) fn next_hop(held: &Held) -> Option<SocketAddr> {
    let uri = match held.routes.first() {
        Some(route) => address_spec(route),
        None => &held.target[..],
    };
    let address = Address::of(uri)?.socket()?;
    (address.is_ipv6() == held.at.is_ipv6()).then_some(address)
}
