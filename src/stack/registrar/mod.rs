//! The registrar (RFC 3261 §10.3, with Path of RFC 3327): REGISTER to changes of the location service, whole or not at all.
//!
//! It keeps no transaction with its response: an address-of-record remembers which REGISTERs changed it last, and one that comes
//! again is answered with the bindings as they are. One that comes late finds a higher CSeq, even where its contact was removed
//! meanwhile.
//!
//! Where answers wait for the disk, the 200 to what has changed a record, or to a repetition of it, goes into the outbox with the round
//! of the journal that it waits for ([`crate::stack::location::journal`]); while the disk takes nothing, nothing is changed.

mod contact;
pub mod unstored;

use crate::base::hash::write_decimal;
use crate::base::{Flow, Instant, Outbox};
use crate::sip::{Message, Name, NameAddr, Scheme, Value};
use crate::stack::Endpoint;
use crate::stack::counters::{Limit, Registration};
use crate::stack::location::{Binding, BindingText, REMOVED_MS, Reached, Record};
use crate::stack::proxy::next_hop::is_sips;
use crate::stack::proxy::request::unsupported;
use crate::stack::proxy::{Extra, Incoming, Refusal, redirect};
use crate::stack::settings;
use contact::{Contact, Contacts};

/// What a REGISTER says about all of its contacts.
struct Registering<'a> {
    now: Instant,
    call_id: &'a [u8],
    cseq: u32,
    path: &'a [u8],
    source: Flow,
    /// It has come from the phone itself, through no proxy.
    direct: bool,
    /// The key of its transaction (§17.2.3).
    transaction: u64,
}

impl Endpoint {
    pub(in crate::stack) fn register(
        &mut self,
        now: Instant,
        message: &Message,
        incoming: &Incoming,
        key: u128,
        outbox: &mut Outbox,
    ) -> Result<(), Refusal> {
        // Step 2: extensions.
        if unsupported(message, Name::Require).next().is_some() {
            return Err(Refusal::new(420, "").with(Extra::Unsupported));
        }
        // Step 5: the address-of-record.
        self.address_of_record(message)?;
        // Step 6 and 7: the contacts, all checked before any is stored.
        let plan = contact::plan(message, &self.settings.registrar)?;
        let asks_for_change = !matches!(plan, contact::Plan::Query);
        if asks_for_change && self.location.refuses_changes() {
            let refusal = Refusal::new(503, "Bindings Cannot Be Stored");
            return Err(refusal.with(Extra::RetryAfter(unstored::RETRY_AFTER_S)));
        }
        if let contact::Plan::Contacts(contacts) = &plan {
            check_sips(message, incoming, contacts)?;
        }
        let mut path = std::mem::take(&mut self.scratch);
        path.clear();
        collect_path(message, &mut path);
        if path.len() > usize::from(u16::MAX) {
            self.scratch = path;
            return Err(Refusal::new(513, "Path Too Long"));
        }
        let registering = Registering {
            now,
            call_id: message.call_id().unwrap_or_default(),
            cseq: message.cseq().map_or(0, |cseq| cseq.number),
            path: &path,
            source: incoming.flow,
            direct: message.values(Name::Via).nth(1).is_none(),
            transaction: key as u64,
        };
        let limits = &self.settings.registrar;
        let lines = &mut self.lines;
        lines.clear();
        let (outcome, round) = self.location.change(&self.aor, |record, room| {
            let repeated = record.is_repeated(now, registering.transaction);
            let outcome = match plan {
                contact::Plan::Query => Ok(Registration::Queried),
                _ if repeated => Ok(Registration::Queried),
                contact::Plan::RemoveAll => remove_all(record, &registering),
                contact::Plan::Contacts(ref contacts) => {
                    update(record, room, contacts, incoming, &registering, limits)
                }
            };
            if !matches!(outcome, Ok(Registration::Queried) | Err(_)) {
                record.note_change(now, registering.transaction);
            }
            // Step 8: all bindings that are now.
            write_bindings(record, &registering, lines);
            outcome
        });
        self.scratch = path;
        let outcome = outcome?;
        self.counters.registrations[outcome as usize] += 1;
        let lines = std::mem::take(&mut self.lines);
        let mut lines = lines;
        for header in message.all(Name::Path) {
            lines.extend_from_slice(b"Path: ");
            lines.extend_from_slice(header.value);
            lines.extend_from_slice(b"\r\n");
        }
        self.answer_listing(message, incoming.flow, 200, outbox, &lines);
        self.lines = lines;
        if asks_for_change && round > self.location.progress().durable {
            outbox.hold(round);
        }
        Ok(())
    }

    /// The To URI in canonical form, into `self.aor`. It must be one of ours.
    fn address_of_record(&mut self, message: &Message) -> Result<(), Refusal> {
        let bad = |fault: crate::sip::Fault| Refusal::new(400, fault.reason());
        let to = message.to().map_err(bad)?;
        let uri = crate::sip::Uri::parse(to.uri).map_err(bad)?;
        if !matches!(uri.scheme, Scheme::Sip | Scheme::Sips) {
            return Err(Refusal::new(400, "To Is No SIP URI"));
        }
        // Whatever port or parameters: the name of the address counts, not where a request for it would go.
        if self.settings.whose(&uri).is_none() || uri.user.is_none_or(<[u8]>::is_empty) {
            return Err(Refusal::new(404, "No Such Address-Of-Record"));
        }
        self.aor.clear();
        uri.write_address_of_record(&mut self.aor);
        Ok(())
    }
}

/// RFC 5630 §5.2: a SIPS contact is bound only where everything on the way to it is SIPS.
fn check_sips(message: &Message, incoming: &Incoming, contacts: &Contacts) -> Result<(), Refusal> {
    let bound = || contacts.iter().filter(|contact| contact.expires_s > 0);
    if !bound().any(|contact| contact.is_sips()) {
        return Ok(());
    }
    let sips_path = |value: Value| NameAddr::parse(value.text).is_ok_and(|path| is_sips(path.uri));
    let sound = incoming.parsed.scheme == Scheme::Sips
        && bound().all(|contact| contact.is_sips())
        && message.values(Name::Path).all(sips_path);
    match sound {
        true => Ok(()),
        false => Err(Refusal::new(400, "SIPS Contact Without SIPS On The Way")),
    }
}

/// `*`: every binding goes, unless this REGISTER is older than one of them.
fn remove_all(record: &mut Record, this: &Registering) -> Result<Registration, Refusal> {
    for binding in &record.bindings {
        check_order(binding, this)?;
    }
    for binding in &mut record.bindings {
        remove(binding, this);
    }
    Ok(Registration::Removed)
}

/// Step 7 for a list of contacts.
fn update(
    record: &mut Record,
    room: usize,
    contacts: &Contacts,
    incoming: &Incoming,
    this: &Registering,
    limits: &settings::Registrar,
) -> Result<Registration, Refusal> {
    // First nothing is changed: order, and how many there would be.
    let (mut added, mut repeated) = (0, false);
    let mut freed = 0;
    for (place, contact) in contacts.iter().enumerate() {
        match record.bindings.iter().find(|b| contact.is_for(b)) {
            Some(binding) => {
                repeated |= check_order(binding, this)? == Order::Repeated;
                match (binding.is_live(this.now), contact.expires_s) {
                    (false, 1..) => added += 1,
                    (true, 0) => freed += 1,
                    _ => {}
                }
            }
            // The same contact twice in one request is one binding. Beyond the limit it does not matter.
            None if place <= limits.max_contacts
                && contacts
                    .iter()
                    .take(place)
                    .any(|before| before.expires_s > 0 && contact.is_same(&before)) => {}
            None => added += usize::from(contact.expires_s > 0),
        }
    }
    if repeated {
        return Ok(Registration::Queried);
    }
    let live = record
        .bindings
        .iter()
        .filter(|b| b.is_live(this.now))
        .count();
    if added > 0 && live + added - freed > limits.max_contacts {
        return Err(Refusal::new(403, "Too Many Contacts").because_of(Limit::Contacts));
    }
    if added > room {
        let full = Refusal::new(503, "Too Many Bindings").with(Extra::RetryAfter(60));
        return Err(full.because_of(Limit::Bindings));
    }
    let mut outcome = Registration::Removed;
    for contact in contacts.iter() {
        let found = record.bindings.iter_mut().find(|b| contact.is_for(b));
        if contact.expires_s == 0 {
            if let Some(binding) = found {
                remove(binding, this);
            }
            continue;
        }
        match found {
            Some(binding) => {
                store(binding, &contact, incoming, this);
                if outcome == Registration::Removed {
                    outcome = Registration::Refreshed;
                }
            }
            None => {
                make_room(record, limits.max_contacts);
                let text = contact.text(this.call_id, this.path);
                let mut binding = Binding::new(text, Some(&this.source));
                store(&mut binding, &contact, incoming, this);
                record.add(binding);
                outcome = Registration::Added;
            }
        }
    }
    Ok(outcome)
}

fn store(binding: &mut Binding, contact: &Contact, incoming: &Incoming, this: &Registering) {
    binding.set_text(contact.text(this.call_id, this.path), Some(&this.source));
    binding.reg_id = contact.reg_id;
    binding.q = contact.q;
    binding.cseq = this.cseq;
    binding.expires = this.now.after_ms(u64::from(contact.expires_s) * 1000);
    binding.removed = false;
    // A Path leads there by itself (RFC 3327 §5.3).
    binding.reached = match this.path.is_empty() {
        true => contact.reached(incoming, this.direct),
        false => Reached::ByContact,
    };
}

/// The binding is gone, and remembered for as long as a REGISTER may be on its way.
fn remove(binding: &mut Binding, this: &Registering) {
    let text = binding.text();
    if text.call_id != this.call_id {
        let (uri, path, instance) = (
            text.uri.to_vec(),
            text.path.to_vec(),
            text.instance.to_vec(),
        );
        let text = BindingText {
            uri: &uri,
            call_id: this.call_id,
            path: &path,
            instance: &instance,
        };
        let source = binding.source();
        binding.set_text(text, source.as_ref());
    }
    binding.cseq = this.cseq;
    binding.removed = true;
    binding.expires = this.now.after_ms(REMOVED_MS);
}

/// What is only remembered makes room for what lives.
fn make_room(record: &mut Record, max_contacts: usize) {
    if record.bindings.len() >= max_contacts.saturating_mul(4).max(16)
        && let Some(place) = record.bindings.iter().position(|b| b.removed)
    {
        record.bindings.remove(place);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Newer,
    /// The very REGISTER that made this binding what it is.
    Repeated,
}

/// §10.3 step 7: with the same Call-ID, CSeq must rise.
fn check_order(binding: &Binding, this: &Registering) -> Result<Order, Refusal> {
    // What has expired is gone, though the sweep may not have come by.
    if binding.expires <= this.now
        || binding.text().call_id != this.call_id
        || this.cseq > binding.cseq
    {
        return Ok(Order::Newer);
    }
    if this.cseq == binding.cseq {
        return Ok(Order::Repeated);
    }
    Err(Refusal::new(500, "CSeq Out Of Order"))
}

/// The contacts of the 200. First those that this REGISTER has bound: a phone that has room for no more still learns what became of them.
fn write_bindings(record: &Record, this: &Registering, out: &mut Vec<u8>) {
    let now = this.now;
    let is_own = |b: &&Binding| b.cseq == this.cseq && b.text().call_id == this.call_id;
    let live = || record.bindings.iter().filter(|b| b.is_live(now));
    let others = live().filter(|b| !is_own(b));
    for binding in live().filter(is_own).chain(others) {
        let text = binding.text();
        out.extend_from_slice(b"Contact: <");
        out.extend_from_slice(text.uri);
        out.extend_from_slice(b">;expires=");
        write_decimal(binding.seconds_left(now), out);
        redirect::write_q(binding.q, out);
        if !text.instance.is_empty() {
            out.extend_from_slice(b";+sip.instance=");
            out.extend_from_slice(text.instance);
        }
        if binding.reg_id != 0 {
            out.extend_from_slice(b";reg-id=");
            write_decimal(u64::from(binding.reg_id), out);
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// The Path values of the request as one comma list (RFC 3327 §5.3).
fn collect_path(message: &Message, out: &mut Vec<u8>) {
    for value in message.values(Name::Path) {
        if !out.is_empty() {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(value.text);
    }
}
