//! The calling side of a phone (RFC 3261 §8.1, §9.1, §10.2, §13.2): REGISTER, INVITE, ACK, CANCEL, BYE and the rest.

use super::air::{Air, Todo};
use super::intent::Intent;
use super::phone::{Call, Phones, Progress, Purpose};
use super::reading::{Field, Line, Reading};
use super::scenario::Scenario;
use super::text::address_spec;
use super::writing::{finish, line, put, request};
use std::rc::Rc;

/// What becomes of a call that is placed.
#[derive(Clone, Copy, Debug)]
pub struct CallPlan {
    /// Cancel after so many milliseconds if nothing final has come.
    pub cancel_after_ms: Option<u64>,
}

/// What a REGISTER asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Registering {
    Add,
    AddTwo,
    AddAll,
    Query,
    RemoveOne,
    RemoveAll,
    TooShort,
    /// A new Call-ID, as after a restart.
    Restart,
    /// A contact that points back to the server's own domain.
    Loop,
    /// A contact where no port is open.
    Dead,
    /// The CSeq of the one before, again: not a retransmission, it has a new branch.
    Stale,
}

impl Phones {
    /// A request outside of a dialog to the phone's own server: start line to CSeq.
    fn start_request(&mut self, air: &mut Air, phone: usize, method: &[u8], uri: &[u8]) -> Vec<u8> {
        let branch = self.next_branch(air);
        let mut out = request(method, uri);
        self.write_via(&mut out, phone, &branch);
        match air.rng.below(12) {
            0 => {}
            1 => line(&mut out, "Max-Forwards", &[b"3"]),
            2 => line(&mut out, "Max-Forwards", &[b"255"]),
            _ => line(&mut out, "Max-Forwards", &[b"70"]),
        }
        if air.rng.one_in(8) {
            let breadth = [b"1", b"2", b"8"][air.rng.below(3) as usize];
            line(&mut out, "Max-Breadth", &[breadth]);
        }
        let cseq = (1 + air.rng.below(100_000)).to_string();
        let (tag, call_id) = (self.fresh(air), self.fresh(air));
        let plan = &self.list[phone].plan;
        let domain = &plan.domain;
        let from = format!("<sip:{}@{domain}>;tag={tag}", plan.user);
        let names = match plan.compact {
            true => ["f", "t", "i"],
            false => ["From", "To", "Call-ID"],
        };
        line(&mut out, names[0], &[from.as_bytes()]);
        line(&mut out, names[1], &[b"\"The, other\" <", uri, b">"]);
        line(&mut out, names[2], &[call_id.as_bytes(), b"@sim"]);
        line(&mut out, "CSeq", &[cseq.as_bytes(), b" ", method]);
        out
    }

    pub fn place_call(&mut self, air: &mut Air, phone: usize, uri: &[u8], plan: CallPlan) {
        let mut out = self.start_request(air, phone, b"INVITE", uri);
        self.write_contact(&mut out, phone);
        let body = self.write_baggage(air, &mut out);
        finish(&mut out, &body);
        let call = self.calls.len();
        let to = self.list[phone].plan.server_at;
        let client = self.start(air, phone, Purpose::Invite { call }, out, to);
        self.add_call(phone, client, None);
        air.statistics.calls_placed += 1;
        air.statistics.asked_calls += u64::from(self.list[phone].account.is_some());
        if let Some(ms) = plan.cancel_after_ms {
            self.remind(air, phone, ms, Todo::Cancel { call });
        }
    }

    fn add_call(&mut self, phone: usize, client: usize, dialog: Option<usize>) {
        self.calls.push(Call { phone, client, cancel_wanted: false, cancelled: false, winners: Vec::new(), dialog, over: false });
    }

    pub fn reinvite(&mut self, air: &mut Air, scenario: &Scenario, dialog: usize) {
        if self.dialogs[dialog].inviting {
            return;
        }
        let cseq = self.dialogs[dialog].cseq + 1;
        let Some((mut out, to)) = self.in_dialog(air, scenario, dialog, b"INVITE", cseq) else {
            return;
        };
        self.dialogs[dialog].cseq = cseq;
        self.dialogs[dialog].inviting = true;
        let phone = self.dialogs[dialog].phone;
        self.write_contact(&mut out, phone);
        let body = self.write_baggage(air, &mut out);
        finish(&mut out, &body);
        let call = self.calls.len();
        let client = self.start(air, phone, Purpose::Invite { call }, out, to);
        self.add_call(phone, client, Some(dialog));
        air.statistics.reinvites += 1;
    }

    /// Any method but INVITE, ACK, CANCEL, REGISTER, outside of a dialog.
    pub fn ask(&mut self, air: &mut Air, phone: usize, method: &[u8], uri: &[u8]) {
        let mut out = self.start_request(air, phone, method, uri);
        let body = self.write_baggage(air, &mut out);
        finish(&mut out, &body);
        let to = self.list[phone].plan.server_at;
        self.start(air, phone, Purpose::Other, out, to);
        air.statistics.other_requests += 1;
    }

    pub fn ask_in_dialog(&mut self, air: &mut Air, scenario: &Scenario, dialog: usize, method: &[u8]) {
        let cseq = self.dialogs[dialog].cseq + 1;
        let Some((mut out, to)) = self.in_dialog(air, scenario, dialog, method, cseq) else {
            return;
        };
        self.dialogs[dialog].cseq = cseq;
        let body = self.write_baggage(air, &mut out);
        finish(&mut out, &body);
        let phone = self.dialogs[dialog].phone;
        self.start(air, phone, Purpose::Other, out, to);
        air.statistics.other_requests += 1;
    }

    pub fn hang_up(&mut self, air: &mut Air, dialog: usize) {
        if self.dialogs[dialog].alive {
            self.dialogs[dialog].alive = false;
            self.farewells.push(dialog);
        }
        let _ = air;
    }

    /// Sends the BYEs that [`Phones::hang_up`] decided.
    pub fn say_farewell(&mut self, air: &mut Air, scenario: &Scenario) {
        while let Some(dialog) = self.farewells.pop() {
            let cseq = self.dialogs[dialog].cseq + 1;
            let Some((mut out, to)) = self.in_dialog(air, scenario, dialog, b"BYE", cseq) else {
                continue;
            };
            self.dialogs[dialog].cseq = cseq;
            finish(&mut out, b"");
            let phone = self.dialogs[dialog].phone;
            self.start(air, phone, Purpose::Bye, out, to);
        }
    }

    /// RFC 3261 §9.1: not before a provisional response, not after a final one.
    pub fn cancel(&mut self, air: &mut Air, call: usize) {
        let c = &mut self.calls[call];
        let client = &self.clients[c.client];
        if c.over || c.cancelled || client.progress == Progress::Done {
            return;
        }
        if client.progress == Progress::Calling {
            c.cancel_wanted = true;
            return;
        }
        c.cancelled = true;
        air.statistics.calls_cancelled += 1;
        let invite = Rc::clone(&client.message);
        let (phone, to) = (c.phone, client.to);
        let out = cancel_for(&invite);
        self.start(air, phone, Purpose::Cancel, out, to);
    }

    pub fn invite_answered(&mut self, air: &mut Air, scenario: &Scenario, client: usize, call: usize, message: &Rc<Reading>) {
        let status = message.status();
        if status < 200 {
            if self.calls[call].cancel_wanted {
                self.cancel(air, call);
            }
            return;
        }
        let first = self.clients[client].progress != Progress::Done;
        self.clients[client].progress = Progress::Done;
        if status >= 300 {
            self.refused(air, scenario, client, call, message, first);
            return;
        }
        let tag = message.tag(Field::To).unwrap_or(b"").to_vec();
        let from = self.list[self.clients[client].phone].plan.at;
        let known = self.calls[call].winners.iter().find(|(winner, _, _)| *winner == tag);
        if let Some((_, ack, to)) = known {
            air.send_again(from, *to, Rc::clone(ack), Intent::Honest);
            return;
        }
        self.accepted(air, scenario, client, call, message, tag);
    }

    fn refused(&mut self, air: &mut Air, scenario: &Scenario, client: usize, call: usize, message: &Rc<Reading>, first: bool) {
        let c = &self.clients[client];
        let (phone, to) = (c.phone, c.to);
        let ack = self.reading(phone, ack_for_refusal(&c.message, message));
        air.send_again(self.list[phone].plan.at, to, ack, Intent::Honest);
        if !first || self.answer_challenge(air, client, message).is_some() {
            return;
        }
        self.end_call(call);
        air.statistics.calls_refused += 1;
        let status = message.status();
        if status / 100 == 3 && air.open && self.calls[call].dialog.is_none() {
            air.statistics.redirected += 1;
            let contacts = message.values(Field::Contact);
            if let Some(contact) = contacts.first() {
                let uri = address_spec(contact).to_vec();
                // Through the server: only for its own domain, anything else it would rightly refuse.
                let own = super::address::Address::of(&uri)
                    .is_some_and(|a| scenario.servers.iter().flat_map(|s| &s.settings.domains).any(|domain| domain == a.host));
                if own && air.rng.one_in(2) {
                    let plan = CallPlan { cancel_after_ms: None };
                    self.place_call(air, phone, &uri, plan);
                }
            }
        }
    }

    fn accepted(&mut self, air: &mut Air, scenario: &Scenario, client: usize, call: usize, message: &Rc<Reading>, tag: Vec<u8>) {
        let phone = self.clients[client].phone;
        let invite = Rc::clone(&self.clients[client].message);
        let again = !self.calls[call].winners.is_empty();
        let dialog = match self.calls[call].dialog {
            Some(dialog) => {
                self.dialogs[dialog].inviting = false;
                dialog
            }
            None => self.add_dialog(phone, &invite, message, true),
        };
        let cseq = invite.cseq().map_or(1, |(n, _)| n);
        let ack = self.in_dialog(air, scenario, dialog, b"ACK", cseq);
        self.calls[call].over = true;
        if let Some((mut out, to)) = ack {
            // §13.2.2.4: with the INVITE's credentials.
            let own = |line: &&Line| line.field == Field::ProxyAuthorization;
            for proof in invite.lines.iter().filter(own) {
                line(&mut out, "Proxy-Authorization", &[invite.get(&proof.value)]);
            }
            finish(&mut out, b"");
            let ack = self.reading(phone, out);
            // The ACK has no transaction of its own: its branch must still be nobody else's.
            self.clients.push(super::phone::Client {
                phone,
                purpose: Purpose::Other,
                progress: Progress::Done,
                message: Rc::clone(&ack),
                to,
                interval_ms: 0,
                attempts: 0,
            });
            air.send_again(self.list[phone].plan.at, to, Rc::clone(&ack), Intent::Honest);
            self.calls[call].winners.push((tag, ack, to));
        }
        if self.calls[call].dialog.is_some() {
            return;
        }
        if again {
            air.statistics.second_answers += 1;
        } else {
            air.statistics.calls_answered += 1;
            air.statistics.asked_calls_answered += u64::from(self.list[phone].account.is_some());
        }
        let cancelled = self.calls[call].cancelled;
        air.statistics.late_answers += u64::from(cancelled);
        if again || cancelled {
            self.remind(air, phone, 5, Todo::HangUp { dialog });
        } else if air.rng.one_in(2) {
            let ms = air.between(20, 20_000);
            self.remind(air, phone, ms, Todo::HangUp { dialog });
        }
    }

    pub fn register(&mut self, air: &mut Air, phone: usize, what: Registering) {
        let domain = self.list[phone].plan.domain.clone();
        if what == Registering::Restart {
            self.list[phone].registration_id = format!("{}@new", self.fresh(air)).into_bytes();
        }
        if what != Registering::Stale {
            self.list[phone].registration_cseq += 1 + air.rng.below(3);
        }
        let branch = self.next_branch(air);
        let tag = self.fresh(air);
        let p = &self.list[phone];
        let user = p.plan.user.clone();
        let mut out = request(b"REGISTER", format!("sip:{domain}").as_bytes());
        self.write_via(&mut out, phone, &branch);
        line(&mut out, "Max-Forwards", &[b"70"]);
        let own = format!("<sip:{user}@{domain}>");
        line(&mut out, "From", &[own.as_bytes(), b";tag=", tag.as_bytes()]);
        // The address-of-record ignores parameters and the host's case.
        if air.rng.one_in(6) {
            let odd = format!("\"{user}\" <sip:{user}@{};x=y>", domain.to_uppercase());
            line(&mut out, "To", &[odd.as_bytes()]);
        } else {
            line(&mut out, "To", &[own.as_bytes()]);
        }
        line(&mut out, "Call-ID", &[&p.registration_id]);
        line(&mut out, "CSeq", &[p.registration_cseq.to_string().as_bytes(), b" REGISTER"]);
        if p.plan.path {
            let path = format!("<sip:edge@{};lr>", p.plan.at);
            line(&mut out, "Path", &[path.as_bytes()]);
            line(&mut out, "Supported", &[b"path"]);
        }
        let expires = [10, 60, 90, 300, 3600, 100_000][air.rng.below(6) as usize];
        self.write_bindings(air, &mut out, phone, what, expires, &domain);
        if !matches!(what, Registering::RemoveAll | Registering::RemoveOne) && air.rng.one_in(2) {
            line(&mut out, "Expires", &[expires.to_string().as_bytes()]);
        }
        finish(&mut out, b"");
        let to = self.list[phone].plan.server_at;
        self.start(air, phone, Purpose::Register, out, to);
        air.statistics.registers += 1;
    }

    fn write_bindings(&self, air: &mut Air, out: &mut Vec<u8>, phone: usize, what: Registering, expires: u64, domain: &str) {
        let p = &self.list[phone];
        let contact = |out: &mut Vec<u8>, uri: &[u8], q: Option<&str>, expires: Option<u64>| {
            put(out, &[b"<", uri, b">"]);
            if let Some(q) = q {
                put(out, &[b";q=", q.as_bytes()]);
            }
            if let Some(expires) = expires {
                put(out, &[b";expires=", expires.to_string().as_bytes()]);
            }
        };
        let mut value = Vec::new();
        let own = |n: usize| (&p.contacts[n].uri[..], p.contacts[n].q);
        let count = match what {
            Registering::Query => return,
            Registering::RemoveAll => {
                line(out, "Contact", &[b"*"]);
                line(out, "Expires", &[b"0"]);
                return;
            }
            Registering::Loop => {
                let uri = format!("sip:{}@{domain}", p.plan.user);
                contact(&mut value, uri.as_bytes(), None, Some(300));
                0
            }
            Registering::Dead => {
                let address = super::addresses::dead(p.plan.at.is_ipv6());
                let uri = format!("sip:{}@{address}", p.plan.user);
                contact(&mut value, uri.as_bytes(), Some("0.7"), Some(300));
                0
            }
            Registering::RemoveOne => {
                let (uri, _) = own(air.rng.below(3) as usize);
                contact(&mut value, uri, None, Some(0));
                0
            }
            Registering::TooShort => {
                let (uri, q) = own(0);
                contact(&mut value, uri, q, Some(1));
                0
            }
            Registering::AddAll => 3,
            Registering::AddTwo => 2,
            _ => 1,
        };
        for n in 0..count {
            let (uri, q) = own(n);
            if n > 0 && air.rng.one_in(3) {
                line(out, "Contact", &[&value]);
                value.clear();
            } else if n > 0 {
                value.extend_from_slice(b", ");
            }
            let expires = air.rng.one_in(2).then_some(expires);
            contact(&mut value, uri, q, expires);
        }
        line(out, "Contact", &[&value]);
    }
}

/// RFC 3261 §17.1.1.3.
pub fn ack_for_refusal(invite: &Reading, refusal: &Reading) -> Vec<u8> {
    let mut out = request(b"ACK", invite.uri());
    write_hop(&mut out, invite, refusal.value(Field::To).unwrap_or(b""), b"ACK");
    finish(&mut out, b"");
    out
}

/// RFC 3261 §9.1.
pub fn cancel_for(invite: &Reading) -> Vec<u8> {
    let mut out = request(b"CANCEL", invite.uri());
    write_hop(&mut out, invite, invite.value(Field::To).unwrap_or(b""), b"CANCEL");
    finish(&mut out, b"");
    out
}

fn write_hop(out: &mut Vec<u8>, invite: &Reading, to: &[u8], method: &[u8]) {
    line(out, "Via", &[invite.via(0)]);
    line(out, "Max-Forwards", &[b"70"]);
    line(out, "From", &[invite.value(Field::From).unwrap_or(b"")]);
    line(out, "To", &[to]);
    line(out, "Call-ID", &[invite.call_id()]);
    let cseq = invite.cseq().map_or(0, |(n, _)| n);
    line(out, "CSeq", &[cseq.to_string().as_bytes(), b" ", method]);
    for route in invite.values(Field::Route) {
        line(out, "Route", &[route]);
    }
}
