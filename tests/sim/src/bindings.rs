//! The auditor's own registrar: a naive model of RFC 3261 §10.3, fed with the REGISTERs that the server answered 200.

use super::address::same_uri;
use super::bearer::Name;
use super::reading::{Field, Reading};
use super::text::{address_spec, param};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use strowger::base::Instant;
use strowger::settings::Registrar;
use strowger::stack::Location;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    pub uri: Vec<u8>,
    pub q: u16,
    pub call_id: Vec<u8>,
    pub cseq: u64,
    pub begun: Instant,
    /// The Path that it came by (RFC 3327).
    pub path: Vec<Vec<u8>>,
    /// It came over a connection, which may be gone by now.
    pub by_stream: bool,
    /// Where the REGISTER came from, if it asked for answers there (RFC 3581).
    pub source: Option<SocketAddr>,
    pub expires: Instant,
    /// When it was removed or replaced; a request that came before may still use it.
    pub ended: Option<Instant>,
    /// Until when a REGISTER that removed it may still be remembered.
    pub removed_until: Instant,
}

impl Bound {
    /// True if it was a binding at some moment since `since`.
    pub fn since(&self, since: Instant) -> bool {
        self.expires > since && self.ended.is_none_or(|ended| ended >= since)
    }

    pub fn in_words(&self) -> String {
        let uri = String::from_utf8_lossy(&self.uri);
        format!("{uri} q={} until {}", self.q, self.expires.as_ms())
    }

    /// True if it was there before `at` and not yet gone.
    pub fn was_live(&self, at: Instant) -> bool {
        self.begun < at && self.expires > at && self.ended.is_none_or(|ended| ended > at)
    }

    pub fn is_live(&self, now: Instant) -> bool {
        self.ended.is_none() && self.expires > now
    }
}

#[derive(Default)]
pub struct Bindings {
    by_aor: BTreeMap<Vec<u8>, Vec<Bound>>,
    removals: Vec<Removal>,
}

/// `user@host` of the To header field, the host in lower case (§10.3 step 5).
pub fn address_of_record(register: &Reading) -> Option<Vec<u8>> {
    canonical(register.value(Field::To)?)
}

pub fn canonical(uri: &[u8]) -> Option<Vec<u8>> {
    let name = Name::of(uri)?;
    Some([&name.user, &b"@"[..], &name.host].concat())
}

impl Bindings {
    pub fn of(&self, aor: &[u8]) -> &[Bound] {
        self.by_aor.get(aor).map_or(&[], Vec::as_slice)
    }

    /// True if a binding of this contact, of whatever address-of-record, has or had that Path.
    pub fn has_path(&self, contact: &[u8], path: &[&[u8]]) -> bool {
        let same = |b: &Bound| b.path.join(&b", "[..]) == path.join(&b", "[..]);
        let mut all = self.by_aor.values().flatten();
        all.any(|b| !b.path.is_empty() && same(b) && same_uri(&b.uri, contact))
    }

    /// What the 200 to `register` did; an error if it should not have been a 200, or lists other bindings. `Unknown`: the
    /// model cannot know, because a server may have forgotten what it knew of an old binding.
    pub fn apply(
        &mut self,
        now: Instant,
        conf: &Registrar,
        register: &Reading,
        source: Option<SocketAddr>,
        answer: &Reading,
    ) -> Result<Applied, String> {
        let aor = address_of_record(register).ok_or("a 200 without an address-of-record")?;
        let this = Register::new(now, register, source);
        self.removals.retain(|removal| removal.until > now);
        let remembered =
            self.removals.iter().any(|removal| removal.aor == aor && removal.call_id == this.call_id && removal.cseq >= this.cseq);
        self.note_removal(now, conf, register);
        let list = self.by_aor.entry(aor).or_default();
        let applied = if this.contacts.contains(&&b"*"[..]) {
            this.remove_all(list)?
        } else {
            match this.check(conf, list)? {
                // It may have removed what the model does not know of.
                Order::Newer if remembered => return Ok(Applied::Unknown),
                Order::Unknown => return Ok(Applied::Unknown),
                Order::Newer if !this.contacts.is_empty() => this.carry_out(conf, list, answer)?,
                _ => Applied::Unchanged,
            }
        };
        // What ended long ago can be expected by nobody.
        if list.len() > 128 {
            list.retain(|b| b.since(Instant::from_ms(now.as_ms().saturating_sub(3_600_000))));
        }
        {
            let asked = match applied {
                Applied::Changed => register.values(Field::Contact),
                _ => Vec::new(),
            };
            Self::compare_answer(now, list, register, &asked, answer).map(|()| applied)
        }
    }

    /// A REGISTER was answered 200 that may have removed something: the server may remember that.
    pub fn note_removal(&mut self, now: Instant, conf: &Registrar, register: &Reading) {
        let this = Register::new(now, register, None);
        if let (true, Some(aor)) = (this.removes(conf), address_of_record(register)) {
            self.removals.push(Removal {
                aor,
                call_id: this.call_id.to_vec(),
                cseq: this.cseq,
                until: now.after_ms(REMEMBERED_MS),
            });
        }
    }

    /// A 200 to a REGISTER that was carried out before: it changes nothing.
    pub fn repeat(&self, now: Instant, register: &Reading, answer: &Reading) -> Result<(), String> {
        let aor = address_of_record(register).ok_or("a 200 without an address-of-record")?;
        Self::compare_answer(now, self.of(&aor), register, &[], answer)
    }

    /// §10.3 step 8: the 200 lists all current bindings with their remaining seconds.
    /// Over UDP the list may be cut to `asked`, what the request itself has bound, where all of it would be much more than what came.
    fn compare_answer(now: Instant, list: &[Bound], register: &Reading, asked: &[&[u8]], answer: &Reading) -> Result<(), String> {
        let said = answer.values(Field::Contact);
        let mut live: Vec<&Bound> = list.iter().filter(|b| b.is_live(now)).collect();
        let stream = super::link::is_stream(register);
        let missing = live.len().saturating_sub(said.len());
        let whole = answer.bytes.len() + missing * LONGEST_CONTACT_LINE;
        if missing > 0 && !stream && whole > 3 * register.bytes.len() {
            let same = |contacts: &[&[u8]], bound: &Bound| {
                let mut all = contacts.iter().map(|contact| address_spec(contact));
                all.any(|contact| same_uri(contact, &bound.uri))
            };
            live.retain(|bound| same(asked, bound) || same(&said, bound));
        }
        if said.len() != live.len() {
            return Err(format!(
                "the 200 lists {} contacts, bound are {:?}",
                said.len(),
                live.iter().map(|b| b.in_words()).collect::<Vec<_>>()
            ));
        }
        for bound in live {
            let found = said.iter().any(|contact| {
                let left = param(contact, b"expires").and_then(super::text::number);
                let due = bound.expires.ms_since(now);
                same_uri(address_spec(contact), &bound.uri)
                    && left.is_some_and(|s| s * 1000 >= due.saturating_sub(999) && s * 1000 <= due + 999)
            });
            if !found {
                return Err(format!(
                    "the 200 does not list {} as bound for {} ms",
                    String::from_utf8_lossy(&bound.uri),
                    bound.expires.ms_since(now)
                ));
            }
        }
        Ok(())
    }

    /// Compares one address-of-record with what the location service holds.
    pub fn compare(&self, now: Instant, location: &Location, aor: &[u8]) -> Result<(), String> {
        let mut held: Vec<(Vec<u8>, u16, u64)> = Vec::new();
        location.show(now, Some(aor), &mut |_, view| {
            if view.expires > now {
                held.push((view.uri, view.q, view.expires.as_ms()));
            }
        });
        let mut bound: Vec<(Vec<u8>, u16, u64)> =
            self.of(aor).iter().filter(|b| b.is_live(now)).map(|b| (b.uri.clone(), b.q, b.expires.as_ms())).collect();
        held.sort();
        bound.sort();
        if held == bound {
            return Ok(());
        }
        let words = |list: &[(Vec<u8>, u16, u64)]| {
            let each = |(uri, q, at): &(Vec<u8>, u16, u64)| format!("{} q={q} until {at}", String::from_utf8_lossy(uri));
            list.iter().map(each).collect::<Vec<_>>().join(", ")
        };
        Err(format!("{}: held [{}], should be [{}]", String::from_utf8_lossy(aor), words(&held), words(&bound)))
    }

    /// Compares all of it.
    pub fn compare_all(&self, now: Instant, location: &Location) -> Result<usize, String> {
        let mut extra = None;
        location.show(now, None, &mut |aor, view| {
            if view.expires > now && !self.by_aor.contains_key(aor) {
                extra = Some(aor.to_vec());
            }
        });
        if let Some(aor) = extra {
            return Err(format!("{} is held", String::from_utf8_lossy(&aor)));
        }
        for aor in self.by_aor.keys() {
            self.compare(now, location, aor)?;
        }
        Ok(self.by_aor.len())
    }

    /// Takes the server's word for everything: after a REGISTER that two readers may read differently.
    pub fn adopt(&mut self, now: Instant, location: &Location) {
        for list in self.by_aor.values_mut() {
            for bound in list.iter_mut().filter(|b| b.is_live(now)) {
                bound.ended = Some(now);
            }
        }
        location.show(now, None, &mut |aor, view| {
            self.by_aor.entry(aor.to_vec()).or_default().push(Bound {
                uri: view.uri,
                q: view.q,
                call_id: view.call_id,
                cseq: u64::from(view.cseq),
                begun: now,
                path: match view.path.is_empty() {
                    true => Vec::new(),
                    false => vec![view.path],
                },
                by_stream: view.source.is_some_and(|flow| flow.transport.is_reliable()),
                source: view.source.map(|flow| flow.peer),
                expires: view.expires,
                ended: None,
                removed_until: now,
            });
        });
    }
}

/// What a REGISTER did to the model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    Changed,
    Unchanged,
    Unknown,
}

#[derive(PartialEq, Eq)]
enum Order {
    Newer,
    Again,
    Unknown,
}

/// No contact of the laboratory's takes more in a 200.
const LONGEST_CONTACT_LINE: usize = 110;

/// A removed binding keeps its order, and a REGISTER its transaction, for so long: 64·T1 with the RFC's T1.
pub const REMEMBERED_MS: u64 = 32_000;

/// A REGISTER that removed something, and until when a server may remember that.
struct Removal {
    aor: Vec<u8>,
    call_id: Vec<u8>,
    cseq: u64,
    until: Instant,
}

/// A REGISTER, as the model reads it.
struct Register<'a> {
    now: Instant,
    call_id: &'a [u8],
    cseq: u64,
    contacts: Vec<&'a [u8]>,
    /// The Expires header field.
    expires: Option<u64>,
    path: Vec<&'a [u8]>,
    by_stream: bool,
    source: Option<SocketAddr>,
}

impl<'a> Register<'a> {
    fn new(now: Instant, register: &'a Reading, source: Option<SocketAddr>) -> Register<'a> {
        Register {
            now,
            call_id: register.call_id(),
            cseq: register.cseq().map_or(0, |(n, _)| n),
            contacts: register.values(Field::Contact),
            expires: register.number(Field::Expires),
            path: register.values(Field::Path),
            by_stream: super::link::is_stream(register),
            // A connection leads back whether rport was asked for or not.
            source: source.filter(|_| super::link::is_stream(register) || param(register.via(0), b"rport").is_some()),
        }
    }

    /// The seconds that a contact asks for; `None` if only the server knows how it reads them.
    fn wanted(&self, contact: &[u8], conf: &Registrar) -> Option<u64> {
        match param(contact, b"expires") {
            Some(text) => super::text::number(text),
            None => Some(self.expires.unwrap_or(u64::from(conf.default_expires))),
        }
    }

    fn removes(&self, conf: &Registrar) -> bool {
        let mut contacts = self.contacts.iter();
        contacts.any(|c| *c == b"*" || self.wanted(c, conf) == Some(0))
    }

    /// §10.3 step 6.
    fn remove_all(&self, list: &mut [Bound]) -> Result<Applied, String> {
        if self.contacts.len() > 1 || self.expires != Some(0) {
            return Err("200 for a `*` that is not alone or without Expires: 0".into());
        }
        for bound in list.iter().filter(|b| b.is_live(self.now)) {
            self.order(bound)?;
        }
        // Where nothing was to be removed, nothing need be remembered: a copy that comes later may remove what was bound meanwhile.
        let any = list.iter().any(|b| b.is_live(self.now));
        for bound in list.iter_mut() {
            self.remove(bound);
        }
        Ok(match any {
            true => Applied::Changed,
            false => Applied::Unknown,
        })
    }

    /// §10.3 step 7, before anything is changed.
    fn check(&self, conf: &Registrar, list: &[Bound]) -> Result<Order, String> {
        let mut order = Order::Newer;
        for contact in &self.contacts {
            let Some(wanted) = self.wanted(contact, conf) else {
                return Ok(Order::Unknown);
            };
            if wanted > 0 && wanted < u64::from(conf.min_expires) {
                return Err("200 for an interval that is too brief".into());
            }
            let uri = address_spec(contact);
            if let Some(bound) = list.iter().rev().find(|b| same_uri(&b.uri, uri)) {
                match self.order(bound)? {
                    Order::Newer => {}
                    other => order = other,
                }
            }
        }
        Ok(order)
    }

    fn carry_out(&self, conf: &Registrar, list: &mut Vec<Bound>, answer: &Reading) -> Result<Applied, String> {
        for contact in &self.contacts {
            let uri = address_spec(contact);
            let wanted = self.wanted(contact, conf).unwrap_or(0);
            let granted = wanted.min(u64::from(conf.max_expires));
            let known = list.iter_mut().rev().find(|b| same_uri(&b.uri, uri));
            match known {
                Some(bound) if granted == 0 => self.remove(bound),
                Some(bound) if bound.is_live(self.now) => bound.ended = Some(self.now),
                _ => {}
            }
            if granted == 0 {
                continue;
            }
            list.push(Bound {
                uri: uri.to_vec(),
                q: param(contact, b"q").map_or(1000, thousandths),
                call_id: self.call_id.to_vec(),
                cseq: self.cseq,
                begun: self.now,
                path: self.path.iter().map(|p| p.to_vec()).collect(),
                by_stream: self.by_stream,
                source: self.source,
                expires: self.now.after_ms(granted * 1000),
                ended: None,
                removed_until: self.now,
            });
        }
        let count = |list: &[Bound]| list.iter().filter(|b| b.is_live(self.now)).count();
        // Those that came by a connection which is gone may have given way, as many as stood in the way and no more.
        let said = answer.values(Field::Contact);
        while count(list) > conf.max_contacts {
            let is_gone = |bound: &&mut Bound| {
                bound.is_live(self.now)
                    && bound.by_stream
                    && bound.begun < self.now
                    && !said.iter().any(|c| same_uri(address_spec(c), &bound.uri))
            };
            match list.iter_mut().find(is_gone) {
                Some(bound) => bound.ended = Some(self.now),
                None => break,
            }
        }
        let live = count(list);
        if live > conf.max_contacts {
            return Err(format!("{live} contacts, more than the conf allows"));
        }
        Ok(Applied::Changed)
    }

    /// §10.3 step 7: with the same Call-ID, CSeq must rise.
    fn order(&self, bound: &Bound) -> Result<Order, String> {
        if bound.call_id != self.call_id || self.cseq > bound.cseq {
            return Ok(Order::Newer);
        }
        if !bound.is_live(self.now) {
            // §10.3 says nothing of what is gone; a registrar may remember it for a while.
            return Ok(match bound.removed_until > self.now {
                true => Order::Unknown,
                false => Order::Newer,
            });
        }
        match self.cseq == bound.cseq {
            true => Ok(Order::Again),
            false => Err(format!("200 for CSeq {} after {}", self.cseq, bound.cseq)),
        }
    }

    fn remove(&self, bound: &mut Bound) {
        bound.ended.get_or_insert(self.now);
        bound.removed_until = self.now.after_ms(REMEMBERED_MS);
        bound.call_id = self.call_id.to_vec();
        bound.cseq = self.cseq;
    }
}

/// `0.9` as 900.
fn thousandths(text: &[u8]) -> u16 {
    let mut digits = text.iter().filter(|b| b.is_ascii_digit());
    let mut value = 0;
    for _ in 0..4 {
        value = value * 10 + digits.next().map_or(0, |d| u16::from(d - b'0'));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_in_thousandths() {
        assert_eq!(thousandths(b"0.9"), 900);
        assert_eq!(thousandths(b"1"), 1000);
        assert_eq!(thousandths(b"0.205"), 205);
        assert_eq!(thousandths(b"1.000"), 1000);
    }
}
