//! The called side of a phone (RFC 3261 §8.2, §9.2, §13.3, §15.1.2): what it says to a request, and when.

use super::air::{Air, Todo};
use super::hashing::digest;
use super::intent::Intent;
use super::phone::{Incoming, Phones, UasState};
use super::plan::Temper;
use super::reading::{Field, Reading};
use super::scenario::Scenario;
use super::writing::{finish, line, put, response};
use std::net::SocketAddr;
use std::rc::Rc;

impl Phones {
    pub fn receive_request(&mut self, air: &mut Air, scenario: &Scenario, phone: usize, from: SocketAddr, message: &Rc<Reading>) {
        match message.method() {
            b"INVITE" => self.invited(air, scenario, phone, from, message),
            b"ACK" => self.acknowledged(air, phone, message),
            b"CANCEL" => self.cancelled(air, phone, from, message),
            _ => self.asked(air, phone, from, message),
        }
    }

    fn respond(&self, air: &mut Air, phone: usize, to: SocketAddr, request: &Reading, status: u16, tag: &[u8]) -> Rc<Reading> {
        let mut out = response(request, status, "As Said", tag);
        let forms_dialog = request.method() == b"INVITE" && (101..300).contains(&status);
        if forms_dialog {
            for route in request.values(Field::RecordRoute) {
                line(&mut out, "Record-Route", &[route]);
            }
            self.write_contact(&mut out, phone);
        }
        if status / 100 == 3 {
            let user = air.rng.below(6);
            let domain = request
                .value(Field::To)
                .map(super::text::address_spec)
                .and_then(super::address::Address::of)
                .map_or(b"a.example".to_vec(), |a| a.host.to_vec());
            let mut value = format!("<sip:u{user}@").into_bytes();
            put(&mut value, &[&domain, b">"]);
            line(&mut out, "Contact", &[&value]);
        }
        let body = if status > 100 { self.write_baggage(air, &mut out) } else { Vec::new() };
        finish(&mut out, &body);
        let message = self.reading(phone, out);
        let at = self.list[phone].plan.at;
        air.send_again(at, to, Rc::clone(&message), Intent::Honest);
        message
    }

    fn invited(&mut self, air: &mut Air, scenario: &Scenario, phone: usize, from: SocketAddr, message: &Rc<Reading>) {
        let known = self.incoming_of(phone, message);
        if let Some(incoming) = known {
            let i = &self.incomings[incoming];
            if let (Some(last), true) = (&i.last, i.state != UasState::Over) {
                let last = Rc::clone(last);
                air.send_again(self.list[phone].plan.at, from, last, Intent::Honest);
            }
            return;
        }
        let temper = self.list[phone].plan.temper;
        let tag = self.fresh(air).into_bytes();
        let inside = message.tag(Field::To).is_some();
        let dialog = self.dialog_of(phone, message);
        let mut script = if inside { vec![(0, if dialog.is_some() { 200 } else { 481 })] } else { script(air, temper) };
        script.reverse();
        self.incomings.push(Incoming {
            phone,
            request: Rc::clone(message),
            from,
            tag,
            script,
            last: None,
            state: UasState::Ringing,
            interval_ms: self.t1_ms,
            dialog,
        });
        let incoming = self.incomings.len() - 1;
        self.list[phone].incomings.push(incoming);
        self.play_next(air, incoming);
        let _ = scenario;
    }

    fn incoming_of(&self, phone: usize, message: &Reading) -> Option<usize> {
        let list = &self.list[phone].incomings;
        list.iter().rev().take(64).copied().find(|n| self.incomings[*n].request.key == message.key)
    }

    /// Schedules the script's next line.
    fn play_next(&mut self, air: &mut Air, incoming: usize) {
        let i = &self.incomings[incoming];
        if let Some((ms, _)) = i.script.last() {
            self.remind(air, i.phone, *ms, Todo::Play { incoming });
        }
    }

    pub fn play(&mut self, air: &mut Air, incoming: usize) {
        let double = self.list[self.incomings[incoming].phone].plan.temper == Temper::DoubleFinal;
        if self.incomings[incoming].state != UasState::Ringing && !double {
            return;
        }
        if let Some((_, status)) = self.incomings[incoming].script.pop() {
            self.say(air, incoming, status);
            self.play_next(air, incoming);
        }
    }

    fn say(&mut self, air: &mut Air, incoming: usize, status: u16) {
        let i = &self.incomings[incoming];
        let (phone, from, request) = (i.phone, i.from, Rc::clone(&i.request));
        let mut tag = i.tag.clone();
        let again = i.state != UasState::Ringing;
        if status >= 200 && again {
            // A second final: from nowhere, with a tag of its own, and nothing is remembered of it.
            air.statistics.double_finals += 1;
            tag.extend_from_slice(b"-again");
            self.respond(air, phone, from, &request, status, &tag);
            return;
        }
        let tag = if status == 100 { Vec::new() } else { tag };
        let message = self.respond(air, phone, from, &request, status, &tag);
        if status >= 200 {
            let dialog = self.incomings[incoming].dialog;
            let accepted = status < 300;
            let made = match dialog {
                None if accepted => Some(self.add_dialog(phone, &request, &message, false)),
                other => other,
            };
            let i = &mut self.incomings[incoming];
            i.dialog = made;
            i.state = if accepted { UasState::Answered } else { UasState::Refused };
            let interval = i.interval_ms;
            self.remind(air, phone, interval, Todo::Repeat { incoming });
            self.remind(air, phone, 64 * self.t1_ms, Todo::Abandon { incoming });
        }
        self.incomings[incoming].last = Some(message);
    }

    /// Timer G, and the 2xx of RFC 3261 §13.3.1.4.
    pub fn repeat(&mut self, air: &mut Air, incoming: usize) {
        let i = &mut self.incomings[incoming];
        if !matches!(i.state, UasState::Answered | UasState::Refused) {
            return;
        }
        // Timer G does not run over a reliable transport; a 2xx is repeated end to end (§13.3.1.4).
        if i.state == UasState::Refused && super::link::is_stream(&i.request) {
            return;
        }
        i.interval_ms = (i.interval_ms * 2).min(self.t2_ms);
        let (phone, from, interval) = (i.phone, i.from, i.interval_ms);
        if let Some(last) = i.last.clone() {
            air.statistics.answer_retransmissions += 1;
            air.send_again(self.list[phone].plan.at, from, last, Intent::Honest);
        }
        self.remind(air, phone, interval, Todo::Repeat { incoming });
    }

    pub fn abandon(&mut self, air: &mut Air, _phone: usize, incoming: usize) {
        let i = &mut self.incomings[incoming];
        let answered = i.state == UasState::Answered;
        i.state = UasState::Over;
        if let (true, Some(dialog)) = (answered, i.dialog) {
            self.hang_up(air, dialog);
        }
    }

    fn acknowledged(&mut self, air: &mut Air, phone: usize, message: &Reading) {
        let cseq = message.cseq().map(|(n, _)| n);
        let list = &self.list[phone].incomings;
        let found = list.iter().rev().take(64).copied().find(|n| {
            let i = &self.incomings[*n];
            i.request.call_id() == message.call_id()
                && i.request.cseq().map(|(n, _)| n) == cseq
                && i.last.as_ref().is_some_and(|last| last.tag(Field::To) == message.tag(Field::To))
        });
        let Some(incoming) = found else {
            return;
        };
        let i = &mut self.incomings[incoming];
        let answered = i.state == UasState::Answered;
        if i.state == UasState::Ringing {
            return;
        }
        i.state = UasState::Over;
        let first = i.request.tag(Field::To).is_none();
        let Some(dialog) = i.dialog.filter(|_| answered && first) else {
            return;
        };
        if air.rng.one_in(2) {
            let ms = air.between(20, 20_000);
            self.remind(air, phone, ms, Todo::HangUp { dialog });
        }
    }

    fn cancelled(&mut self, air: &mut Air, phone: usize, from: SocketAddr, message: &Rc<Reading>) {
        let Some(incoming) = self.incoming_of(phone, message) else {
            self.respond(air, phone, from, message, 481, b"none");
            return;
        };
        let tag = self.incomings[incoming].tag.clone();
        self.respond(air, phone, from, message, 200, &tag);
        if self.incomings[incoming].state != UasState::Ringing {
            return;
        }
        let status = match self.list[phone].plan.temper {
            Temper::LateAnswer => 200,
            Temper::Silent => return,
            _ => 487,
        };
        self.incomings[incoming].script.clear();
        self.say(air, incoming, status);
    }

    fn asked(&mut self, air: &mut Air, phone: usize, from: SocketAddr, message: &Rc<Reading>) {
        let method = digest(message.method());
        let p = &self.list[phone];
        let known = p.answered.iter().find(|(key, m, _)| *key == message.key && *m == method);
        if let Some((_, _, last)) = known {
            let last = Rc::clone(last);
            air.send_again(p.plan.at, from, last, Intent::Honest);
            return;
        }
        let dialog = self.dialog_of(phone, message);
        let status = match message.method() {
            b"BYE" => match dialog {
                Some(dialog) => {
                    self.dialogs[dialog].alive = false;
                    200
                }
                None => 481,
            },
            _ => match (p.plan.temper, air.rng.below(10)) {
                (Temper::Silent, _) => return,
                (Temper::Busy, _) => 486,
                (Temper::Decline, _) => 603,
                (_, 0) => return,
                (_, 1) => 404,
                (_, 2) => 503,
                (_, 3) => 202,
                _ => 200,
            },
        };
        let tag = self.fresh(air).into_bytes();
        let last = self.respond(air, phone, from, message, status, &tag);
        let answered = &mut self.list[phone].answered;
        if answered.len() == 48 {
            answered.remove(0);
        }
        answered.push((message.key, method, last));
    }
}

/// What a phone says to a call: milliseconds and status, in order.
fn script(air: &mut Air, temper: Temper) -> Vec<(u64, u16)> {
    let think = air.between(0, 300);
    let mut ring = vec![];
    if air.rng.one_in(3) {
        ring.push((think, 100));
    }
    if !air.rng.one_in(6) {
        ring.push((think, [180, 183][air.rng.below(2) as usize]));
    }
    let patience = air.between(0, 6000);
    match temper {
        Temper::Silent => return Vec::new(),
        Temper::Busy => return vec![(think, 486)],
        Temper::Decline => ring.push((patience, 603)),
        Temper::Redirect => return vec![(think, [301, 302][air.rng.below(2) as usize])],
        Temper::RingForever => {
            return (0..air.between(1, 4)).map(|n| (n * 20_000, 180)).collect();
        }
        Temper::Slow => {
            ring.push((air.between(2000, 9000), 180));
            ring.push((air.between(2000, 30_000), 200));
        }
        Temper::DoubleFinal => {
            let finals = [200, 200, 486, 603, 404];
            for _ in 0..2 {
                let pick = finals[air.rng.below(5) as usize];
                ring.push((air.between(0, 900), pick));
            }
        }
        Temper::Honest | Temper::LateAnswer | Temper::Impatient => {
            if air.rng.one_in(4) {
                ring.push((air.between(0, 2000), 180));
            }
            let last = match air.rng.below(12) {
                0 => 480,
                1 => 404,
                2 => 503,
                3 => 500,
                _ => 200,
            };
            ring.push((patience, last));
        }
    }
    ring
}
