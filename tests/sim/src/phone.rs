//! The phones: user agents of RFC 3261 §8, §10, §12 and §13, honest within the temper that the scenario gave them.

use super::address::Address;
use super::air::{Air, Todo, What};
use super::digest::{Account, Challenge};
use super::intent::Intent;
use super::plan::{PhonePlan, Temper};
use super::reading::{Field, Reading};
use super::scenario::Scenario;
use super::text::param;
use super::writing::{line, put, request, without};
use std::net::SocketAddr;
use std::rc::Rc;

/// What a phone behind a NAT thinks that it is.
const PRIVATE: &str = "10.0.0.7:5062";

/// A client transaction's purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    Invite { call: usize },
    Cancel,
    Register,
    Bye,
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    Calling,
    Proceeding,
    Done,
}

pub struct Client {
    pub phone: usize,
    pub purpose: Purpose,
    pub progress: Progress,
    pub message: Rc<Reading>,
    pub to: SocketAddr,
    pub interval_ms: u64,
    /// How often it was sent with other credentials before.
    pub attempts: u8,
}

/// An INVITE that a phone sent.
pub struct Call {
    pub phone: usize,
    pub client: usize,
    pub cancel_wanted: bool,
    pub cancelled: bool,
    /// To tags that answered, each with the ACK that it got.
    pub winners: Vec<(Vec<u8>, Rc<Reading>, SocketAddr)>,
    /// Set if this is a re-INVITE.
    pub dialog: Option<usize>,
    pub over: bool,
}

pub struct Dialog {
    pub phone: usize,
    pub call_id: Vec<u8>,
    /// The From value of what this side sends.
    pub local: Vec<u8>,
    pub remote: Vec<u8>,
    pub cseq: u64,
    pub target: Vec<u8>,
    pub routes: Vec<Vec<u8>>,
    pub alive: bool,
    /// An INVITE of this side is under way.
    pub inviting: bool,
}

/// Where an incoming INVITE stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UasState {
    Ringing,
    Answered,
    Refused,
    Over,
}

/// An INVITE that a phone got.
pub struct Incoming {
    pub phone: usize,
    pub request: Rc<Reading>,
    pub from: SocketAddr,
    pub tag: Vec<u8>,
    /// What it will say, next last: milliseconds after the one before, status.
    pub script: Vec<(u64, u16)>,
    pub last: Option<Rc<Reading>>,
    pub state: UasState,
    pub interval_ms: u64,
    pub dialog: Option<usize>,
}

/// One contact of a phone's registration.
#[derive(Clone)]
pub struct OwnContact {
    pub uri: Vec<u8>,
    pub q: Option<&'static str>,
}

pub struct Phone {
    pub plan: PhonePlan,
    pub registration_id: Vec<u8>,
    pub registration_cseq: u64,
    pub contacts: Vec<OwnContact>,
    pub incomings: Vec<usize>,
    pub dialogs: Vec<usize>,
    /// Finals of non-INVITE requests, to be repeated: (branch, method's digest) and the bytes.
    pub answered: Vec<(u64, u64, Rc<Reading>)>,
    /// With what it proves who it is, where somebody asks.
    pub account: Option<Account>,
    /// The last challenge of each kind that it was given.
    pub challenges: Vec<Challenge>,
}

pub struct Phones {
    pub list: Vec<Phone>,
    pub clients: Vec<Client>,
    pub calls: Vec<Call>,
    pub dialogs: Vec<Dialog>,
    pub incomings: Vec<Incoming>,
    pub t1_ms: u64,
    pub t2_ms: u64,
    serial: u64,
    /// Dialogs that were hung up and wait for their BYE.
    pub farewells: Vec<usize>,
    /// A route that a phone was told to use and cannot: said once.
    pub lost_route: Option<String>,
}

impl Phones {
    pub fn new(plans: Vec<PhonePlan>, t1_ms: u64, t2_ms: u64) -> Phones {
        let list = plans
            .into_iter()
            .enumerate()
            .map(|(n, plan)| {
                let mut contacts = Vec::new();
                for (k, q) in [None, Some("0.9"), Some("0.2")].into_iter().enumerate() {
                    let user = if k == 0 { plan.user.clone() } else { format!("{}-{k}", plan.user) };
                    let line = if k == 2 { ";x-line=3" } else { "" };
                    let params = format!("{}{line}", plan.uri_param());
                    let at = match &plan.host {
                        Some(host) => host.clone(),
                        None if plan.private_contact => PRIVATE.to_string(),
                        None => plan.at.to_string(),
                    };
                    contacts.push(OwnContact { uri: format!("sip:{user}@{at}{params}").into_bytes(), q });
                }
                Phone {
                    plan,
                    registration_id: format!("reg-{n}@phone").into_bytes(),
                    registration_cseq: 1,
                    contacts,
                    incomings: Vec::new(),
                    dialogs: Vec::new(),
                    answered: Vec::new(),
                    account: None,
                    challenges: Vec::new(),
                }
            })
            .collect();
        Phones {
            list,
            clients: Vec::new(),
            calls: Vec::new(),
            dialogs: Vec::new(),
            incomings: Vec::new(),
            t1_ms,
            t2_ms,
            serial: 0,
            farewells: Vec::new(),
            lost_route: None,
        }
    }

    /// A text that no other request of the run has.
    pub fn fresh(&mut self, air: &mut Air) -> String {
        self.serial += 1;
        format!("{}x{:x}", self.serial, air.rng.below(1 << 32))
    }

    pub fn at(&self, address: SocketAddr) -> Option<usize> {
        self.list.iter().position(|p| p.plan.at == address)
    }

    /// The top Via line of what a phone sends. The branch names the client transaction.
    pub fn write_via(&self, out: &mut Vec<u8>, phone: usize, branch: &[u8]) {
        let plan = &self.list[phone].plan;
        let sent_by = if plan.behind_nat { PRIVATE.to_string() } else { plan.at.to_string() };
        let name: &[u8] = if plan.compact { b"v" } else { b"Via" };
        put(out, &[name, b": SIP/2.0/", plan.transport.name().as_bytes(), b" ", sent_by.as_bytes(), b";branch=", branch]);
        if plan.rport {
            put(out, &[b";rport"]);
        }
        put(out, &[b"\r\n"]);
    }

    pub fn write_contact(&self, out: &mut Vec<u8>, phone: usize) {
        let phone = &self.list[phone];
        let name = if phone.plan.compact { "m" } else { "Contact" };
        // In a dialog it says where it is seen, as it has learnt from the answers to its REGISTERs.
        let plan = &phone.plan;
        let uri = format!("sip:{}@{}{}", plan.user, plan.at, plan.uri_param());
        line(out, name, &[b"<", uri.as_bytes(), b">"]);
    }

    /// The branch of the client transaction that will be added next.
    pub fn next_branch(&self, air: &mut Air) -> Vec<u8> {
        format!("z9hG4bK-c{}-{:x}", self.clients.len(), air.rng.below(1 << 40)).into_bytes()
    }

    /// Header lines that a proxy must not touch, and a body.
    pub fn write_baggage(&self, air: &mut Air, out: &mut Vec<u8>) -> Vec<u8> {
        if air.rng.one_in(3) {
            line(out, "X-Odd", &[b"a ,b;c\r\n\t folded \"q\\\"\" end"]);
        }
        if air.rng.one_in(4) {
            line(out, "s", &[b"about  nothing"]);
        }
        if air.rng.one_in(6) {
            line(out, "Accept-Encoding", &[b""]);
        }
        if air.rng.one_in(5) {
            line(out, "x-oDd", &["grüße ✓".as_bytes()]);
        }
        if air.rng.one_in(8) {
            line(out, "P-Asserted-Identity", &[b"<sip:somebody@a.example>"]);
        }
        let length = match air.rng.below(4) {
            0 => 0,
            1 => air.rng.below(20),
            2 => air.rng.below(300),
            _ => air.rng.below(900),
        };
        if length == 0 {
            return Vec::new();
        }
        line(out, "Content-Type", &[b"application/octet-stream"]);
        (0..length)
            .map(|_| match air.rng.below(12) {
                0 => b'\r',
                1 => b'\n',
                n => (air.rng.next_u64() >> n) as u8,
            })
            .collect()
    }

    /// Begins a client transaction (RFC 3261 §17.1).
    pub fn start(&mut self, air: &mut Air, phone: usize, purpose: Purpose, bytes: Vec<u8>, to: SocketAddr) -> usize {
        let bytes = self.prove_unasked(air, phone, bytes);
        let client = self.clients.len();
        let impatient = self.list[phone].plan.temper == Temper::Impatient;
        let message = self.reading(phone, bytes);
        self.clients.push(Client {
            phone,
            purpose,
            progress: Progress::Calling,
            message: Rc::clone(&message),
            to,
            interval_ms: if impatient { self.t1_ms / 20 } else { self.t1_ms },
            attempts: 0,
        });
        let from = self.list[phone].plan.at;
        air.send_again(from, to, message, Intent::Honest);
        let interval = self.clients[client].interval_ms;
        self.remind(air, phone, interval, Todo::Retransmit { client });
        self.remind(air, phone, 64 * self.t1_ms, Todo::GiveUp { client });
        client
    }

    /// What a phone sends, as it sends it.
    pub fn reading(&self, phone: usize, bytes: Vec<u8>) -> Rc<Reading> {
        let message = Reading::new(bytes);
        let terse = self.list[phone].plan.terse && !super::link::is_stream(&message);
        Rc::new(match terse {
            true => Reading::new(without(&message, Field::ContentLength)),
            false => message,
        })
    }

    pub fn remind(&self, air: &mut Air, phone: usize, ms: u64, todo: Todo) {
        air.later(ms, What::Phone { phone, todo });
    }

    pub fn handle_todo(&mut self, air: &mut Air, phone: usize, todo: Todo) {
        match todo {
            Todo::Retransmit { client } => self.retransmit(air, client),
            Todo::GiveUp { client } => self.give_up(air, client),
            Todo::Cancel { call } => self.cancel(air, call),
            Todo::HangUp { dialog } => self.hang_up(air, dialog),
            Todo::Play { incoming } => self.play(air, incoming),
            Todo::Repeat { incoming } => self.repeat(air, incoming),
            Todo::Abandon { incoming } => self.abandon(air, phone, incoming),
        }
    }

    fn retransmit(&mut self, air: &mut Air, client: usize) {
        let t2 = self.t2_ms;
        let c = &mut self.clients[client];
        let invite = matches!(c.purpose, Purpose::Invite { .. });
        if c.progress == Progress::Done || (invite && c.progress == Progress::Proceeding) {
            return;
        }
        if super::link::is_stream(&c.message) {
            return;
        }
        c.interval_ms *= 2;
        if !invite {
            c.interval_ms = if c.progress == Progress::Proceeding { t2 } else { c.interval_ms.min(t2) };
        }
        let (phone, to, interval) = (c.phone, c.to, c.interval_ms);
        let message = Rc::clone(&c.message);
        air.statistics.client_retransmissions += 1;
        air.send_again(self.list[phone].plan.at, to, message, Intent::Honest);
        self.remind(air, phone, interval, Todo::Retransmit { client });
    }

    fn give_up(&mut self, air: &mut Air, client: usize) {
        let c = &mut self.clients[client];
        let invite = matches!(c.purpose, Purpose::Invite { .. });
        if c.progress == Progress::Done || (invite && c.progress == Progress::Proceeding) {
            return;
        }
        c.progress = Progress::Done;
        if let Purpose::Invite { call } = c.purpose {
            air.statistics.calls_timed_out += 1;
            self.end_call(call);
        }
    }

    pub fn end_call(&mut self, call: usize) {
        let call = &mut self.calls[call];
        call.over = true;
        if let Some(dialog) = call.dialog {
            self.dialogs[dialog].inviting = false;
        }
    }

    /// A datagram came.
    pub fn receive(&mut self, air: &mut Air, scenario: &Scenario, phone: usize, from: SocketAddr, message: &Rc<Reading>) {
        if message.is_broken() {
            return;
        }
        if message.is_request() {
            self.receive_request(air, scenario, phone, from, message);
        } else {
            self.receive_response(air, scenario, phone, message);
        }
    }

    fn receive_response(&mut self, air: &mut Air, scenario: &Scenario, phone: usize, message: &Rc<Reading>) {
        let Some(client) = client_of(message) else {
            return;
        };
        let Some(c) = self.clients.get_mut(client) else {
            return;
        };
        if c.phone != phone || c.message.key != message.key {
            return;
        }
        if c.message.method() != message.method() {
            // A CANCEL shares its INVITE's branch: its client is the one behind.
            return self.cancel_answered(client, message);
        }
        let status = message.status();
        if status < 200 && c.progress == Progress::Calling {
            c.progress = Progress::Proceeding;
        }
        match c.purpose {
            Purpose::Invite { call } => {
                self.invite_answered(air, scenario, client, call, message);
            }
            purpose if status >= 200 && c.progress != Progress::Done => {
                c.progress = Progress::Done;
                if self.answer_challenge(air, client, message).is_some() {
                    return;
                }
                match purpose {
                    Purpose::Bye => air.statistics.byes_answered += 1,
                    Purpose::Other => {
                        air.statistics.other_answers += 1;
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn cancel_answered(&mut self, invite: usize, message: &Reading) {
        if message.status() < 200 || message.method() != b"CANCEL" {
            return;
        }
        let key = message.key;
        if let Some(cancel) = self.clients[invite..].iter_mut().find(|c| c.purpose == Purpose::Cancel && c.message.key == key) {
            cancel.progress = Progress::Done;
        }
    }

    /// An in-dialog request, unfinished, and where it goes (RFC 3261 §12.2.1.1). `None` if the route leads nowhere.
    pub fn in_dialog(
        &mut self,
        air: &mut Air,
        scenario: &Scenario,
        dialog: usize,
        method: &[u8],
        cseq: u64,
    ) -> Option<(Vec<u8>, SocketAddr)> {
        let phone = self.dialogs[dialog].phone;
        let to = self.next_hop(scenario, dialog)?;
        let branch = self.next_branch(air);
        let d = &self.dialogs[dialog];
        let mut out = request(method, &d.target);
        self.write_via(&mut out, phone, &branch);
        for route in &d.routes {
            line(&mut out, "Route", &[route]);
        }
        line(&mut out, "Max-Forwards", &[b"70"]);
        line(&mut out, "From", &[&d.local]);
        line(&mut out, "To", &[&d.remote]);
        line(&mut out, "Call-ID", &[&d.call_id]);
        line(&mut out, "CSeq", &[cseq.to_string().as_bytes(), b" ", method]);
        Some((out, to))
    }

    fn next_hop(&mut self, scenario: &Scenario, dialog: usize) -> Option<SocketAddr> {
        let d = &self.dialogs[dialog];
        let at = self.list[d.phone].plan.at;
        let uri = match d.routes.first() {
            Some(route) => super::text::address_spec(route),
            None => &d.target,
        };
        let address = Address::of(uri)?;
        let to = scenario.resolve(address.host, address.port, at.is_ipv6());
        let reachable = to.is_some_and(|to| to.is_ipv6() == at.is_ipv6());
        if !reachable && !d.routes.is_empty() {
            self.lost_route = Some(format!("{at} cannot reach its first route {}", String::from_utf8_lossy(uri)));
        }
        to.filter(|_| reachable)
    }

    /// Makes a dialog from a dialog-forming response (RFC 3261 §12.1).
    pub fn add_dialog(&mut self, phone: usize, request: &Reading, response: &Reading, calling: bool) -> usize {
        let source = if calling { response } else { request };
        let mut routes: Vec<Vec<u8>> = source.values(Field::RecordRoute).into_iter().map(<[u8]>::to_vec).collect();
        if calling {
            routes.reverse();
        }
        let contact = source.values(Field::Contact);
        let target = contact.first().map_or(&b""[..], |c| super::text::address_spec(c));
        let value = |field| response.value(field).unwrap_or(b"").to_vec();
        let (local, remote) = if calling { (value(Field::From), value(Field::To)) } else { (value(Field::To), value(Field::From)) };
        self.dialogs.push(Dialog {
            phone,
            call_id: response.call_id().to_vec(),
            local,
            remote,
            cseq: if calling { request.cseq().map_or(1, |(n, _)| n) } else { 1000 },
            target: target.to_vec(),
            routes,
            alive: true,
            inviting: false,
        });
        let dialog = self.dialogs.len() - 1;
        self.list[phone].dialogs.push(dialog);
        dialog
    }

    /// The phone's dialog that a request from the other side belongs to.
    pub fn dialog_of(&self, phone: usize, message: &Reading) -> Option<usize> {
        let (own, other) = (message.tag(Field::To)?, message.tag(Field::From)?);
        let call_id = message.call_id();
        self.list[phone].dialogs.iter().rev().copied().find(|d| {
            let d = &self.dialogs[*d];
            d.call_id == call_id && param(&d.local, b"tag") == Some(own) && param(&d.remote, b"tag") == Some(other)
        })
    }

    /// The dialogs that can still be used, of all phones.
    pub fn live_dialog(&self, air: &mut Air) -> Option<usize> {
        for _ in 0..4 {
            let recent = self.dialogs.len().min(24);
            if recent == 0 {
                return None;
            }
            let n = self.dialogs.len() - 1 - air.rng.below(recent as u64) as usize;
            if self.dialogs[n].alive {
                return Some(n);
            }
        }
        None
    }
}

/// The client transaction that a response's branch names.
fn client_of(message: &Reading) -> Option<usize> {
    let branch = param(message.via(0), b"branch")?;
    let text = std::str::from_utf8(branch.strip_prefix(b"z9hG4bK-c")?).ok()?;
    text.split('-').next()?.parse().ok()
}
