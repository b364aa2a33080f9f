//! What a phone does about challenges (RFC 3261 §22.2, §22.3): it answers them, and then proves itself unasked now and then.

use super::air::Air;
use super::digest::Challenge;
use super::phone::{Phones, Purpose};
use super::reading::{Field, Reading};
use super::text::param;
use super::writing::with_line;
use std::rc::Rc;

/// How often one request is tried with other credentials.
const ATTEMPTS: u8 = 4;

impl Phones {
    /// Adds credentials for a challenge of before, which the next request may need or not.
    pub fn prove_unasked(&mut self, air: &mut Air, phone: usize, bytes: Vec<u8>) -> Vec<u8> {
        let p = &mut self.list[phone];
        let Some(account) = &p.account else {
            return bytes;
        };
        let request = Reading::new(bytes);
        let method = request.method();
        let proved = request.count(Field::Authorization) + request.count(Field::ProxyAuthorization);
        if matches!(method, b"ACK" | b"CANCEL") || proved > 0 {
            return request.bytes;
        }
        let proxy = method != b"REGISTER";
        let mut known = p.challenges.iter_mut();
        // Without a count a nonce serves once.
        let usable = known.find(|c| c.proxy == proxy && (c.qop || c.count == 0));
        let Some(challenge) = usable.filter(|_| air.rng.chance(700)) else {
            return request.bytes;
        };
        let whole = air.rng.one_in(4);
        let value = challenge.answer(account, method, request.uri(), request.body(), whole);
        air.statistics.proofs += 1;
        with_line(&request, challenge.header(), &value)
    }

    /// Sends the request again with what a 401 or 407 asks for. `None`: it cannot, or has tried enough.
    pub fn answer_challenge(&mut self, air: &mut Air, client: usize, response: &Reading) -> Option<usize> {
        air.statistics.challenges += u64::from(matches!(response.status(), 401 | 407));
        let mut challenge = Challenge::of(response)?;
        let c = &self.clients[client];
        let (phone, to, attempts) = (c.phone, c.to, c.attempts + 1);
        let request = Rc::clone(&c.message);
        let account = self.list[phone].account.clone()?;
        let mine = challenge.realm.eq_ignore_ascii_case(account.realm.as_bytes());
        if !mine || attempts > ATTEMPTS || !air.open {
            return None;
        }
        let purpose = c.purpose;
        if let Purpose::Invite { call } = purpose
            && (self.calls[call].cancelled || self.calls[call].cancel_wanted)
        {
            return None;
        }
        let cseq = self.next_cseq(phone, &request)?;
        let branch = self.next_branch(air);
        let fresh = Reading::new(again(&request, &branch, cseq));
        let whole = air.rng.one_in(4);
        let value = challenge.answer(&account, fresh.method(), fresh.uri(), fresh.body(), whole);
        let bytes = with_line(&fresh, challenge.header(), &value);
        let p = &mut self.list[phone];
        p.challenges.retain(|c| c.proxy != challenge.proxy);
        p.challenges.push(challenge);
        air.statistics.proofs += 1;
        let new = self.start(air, phone, purpose, bytes, to);
        self.clients[new].attempts = attempts;
        if let Purpose::Invite { call } = purpose {
            self.calls[call].client = new;
        }
        Some(new)
    }

    /// The number of the next request like this one (§12.2.1.1, §10.2, §22.2); `None` if it is not worth another.
    fn next_cseq(&mut self, phone: usize, request: &Reading) -> Option<u64> {
        let next = request.cseq()?.0 + 1;
        if request.method() == b"REGISTER" {
            let p = &mut self.list[phone];
            if p.registration_id != request.call_id() {
                return None;
            }
            p.registration_cseq = next.max(p.registration_cseq + 1);
            return Some(p.registration_cseq);
        }
        let own = |dialog: &&usize| {
            let dialog = &self.dialogs[**dialog];
            dialog.call_id == request.call_id() && Some(&dialog.local[..]) == request.value(Field::From)
        };
        let dialog = self.list[phone].dialogs.iter().rev().find(own).copied();
        let Some(dialog) = dialog else {
            return Some(next);
        };
        let dialog = &mut self.dialogs[dialog];
        dialog.cseq = next.max(dialog.cseq + 1);
        Some(dialog.cseq)
    }
}

/// The request with another branch and CSeq, and without credentials.
fn again(request: &Reading, branch: &[u8], cseq: u64) -> Vec<u8> {
    let mut edits: Vec<(std::ops::Range<usize>, Vec<u8>)> = Vec::new();
    if let Some(old) = param(request.via(0), b"branch") {
        let at = old.as_ptr() as usize - request.bytes.as_ptr() as usize;
        edits.push((at..at + old.len(), branch.to_vec()));
    }
    for line in &request.lines {
        match line.field {
            Field::CSeq => {
                let text = [cseq.to_string().as_bytes(), b" ", request.method()].concat();
                edits.push((line.value.clone(), text));
            }
            Field::Authorization | Field::ProxyAuthorization => {
                edits.push((line.whole.clone(), Vec::new()));
            }
            _ => {}
        }
    }
    edits.sort_by_key(|(part, _)| part.start);
    let mut out = request.bytes.clone();
    for (part, text) in edits.into_iter().rev() {
        out.splice(part, text);
    }
    out
}
