//! The registrar (RFC 3261 §10.3, with Path of RFC 3327): REGISTER to changes of the location service, whole or not at all.
//!
//! It keeps no transaction with its response: an address-of-record remembers which REGISTERs changed it last, by their Call-ID, CSeq and
//! contents, and one that comes again is answered with the bindings as they are. One with the same Call-ID and CSeq that asks for something
//! else is refused, and so is one that comes late: it finds a higher CSeq, even where its contact was removed meanwhile.
//!
//! Where answers wait for the disk, the 200 to what has changed a record, or to a repetition of it, goes into the outbox with the round
//! of the journal that it waits for ([`crate::stack::location::journal`]); while the disk takes nothing, nothing is changed.

mod contact;
mod seating;
pub mod sound;
pub mod unstored;

use crate::base::hash::write_decimal;
use crate::base::{Channel, Flow, Instant, Outbox, ShareHolder};
use crate::settings;
use crate::sip::{Message, Name, NameAddr, Scheme, Value};
use crate::stack::Endpoint;
use crate::stack::counters::{Limit, Registration};
use crate::stack::hop_uri::is_sips;
use crate::stack::location::{Binding, BindingText, Print, REMOVED_MS, Reached, Recalled, Record, weight};
use crate::stack::peer_flows::PeerFlows;
use crate::stack::proxy::redirect;
use crate::stack::refusal::{Extra, Refusal};
use crate::stack::request::{Request, unsupported};
use crate::stack::source_proof::SourceProof;
use contact::{Contact, Contacts, too_long};
use seating::Seat;
pub use seating::Seating;

/// What a REGISTER says about all of its contacts.
struct Registering<'a> {
    now: Instant,
    call_id: &'a [u8],
    cseq: u32,
    path: &'a [u8],
    source: Flow,
    /// It has come from the phone itself, through no proxy.
    direct: bool,
    /// Whether the phone hears what is sent to `source` is not known, though it was asked.
    is_unsure: bool,
    print: Print,
    /// Bytes of Contact lines that its answer has room for.
    room: usize,
}

/// What must be known beside the REGISTER.
struct Terms<'a> {
    limits: &'a settings::Registrar,
    ways: &'a PeerFlows,
    seating: &'a mut Seating,
    /// How much more may be bound.
    room: usize,
    /// Whose share it takes, and whether that is used up.
    holder: ShareHolder,
    is_share_full: bool,
}

/// Bytes that a datagram carries.
const DATAGRAM: usize = 65_507;

/// Bytes of an answer that the request does not bring: status line, tag, `received` and what else is added.
const ADDED: usize = 512;

impl Endpoint {
    pub(in crate::stack) fn register(
        &mut self,
        now: Instant,
        message: &Message,
        incoming: &Request,
        key: u128,
        outbox: &mut Outbox,
    ) -> Result<(), Refusal> {
        // Step 2: extensions.
        if unsupported(message, Name::Require).next().is_some() {
            return Err(Refusal::new(420, "").with(Extra::Unsupported));
        }
        // Step 5: the address-of-record.
        self.address_of_record(message)?;
        let mut path = std::mem::take(&mut self.scratch);
        let outcome = self.carry_out(now, message, incoming, key, &mut path);
        self.scratch = path;
        let (outcome, round) = outcome?;
        self.counters.registrations[outcome as usize] += 1;
        let mut lines = std::mem::take(&mut self.lines);
        for header in message.all(Name::Path) {
            lines.extend_from_slice(b"Path: ");
            lines.extend_from_slice(header.value);
            lines.extend_from_slice(b"\r\n");
        }
        self.answer_listing(message, incoming.flow, 200, outbox, &lines);
        self.lines = lines;
        if round > self.location.progress().durable {
            outbox.hold(round);
        }
        Ok(())
    }

    /// Steps 6 to 8 for `self.aor`: the Contact lines of the answer into `self.lines`. Returned beside what it came to: the round of the journal
    /// that the answer waits for.
    fn carry_out(
        &mut self,
        now: Instant,
        message: &Message,
        incoming: &Request,
        key: u128,
        path: &mut Vec<u8>,
    ) -> Result<(Registration, u64), Refusal> {
        let settings = self.settings.clone();
        let (limits, longest) = (&settings.registrar, settings.limits.contact_size);
        // The contacts, all checked before any is stored.
        let mut plan = contact::plan(message, &self.location, (limits, longest), path)?;
        let asks_for_change = !matches!(plan, contact::Plan::Query);
        if asks_for_change && self.location.refuses_changes() {
            let refusal = Refusal::new(503, "Bindings Cannot Be Stored");
            return Err(refusal.with(Extra::RetryAfter(unstored::RETRY_AFTER_S)));
        }
        path.clear();
        collect_path(message, path);
        let call_id = message.call_id().unwrap_or_default();
        let mut sent = 0;
        if let contact::Plan::Contacts(contacts) = &plan {
            sent = contacts.length;
            check_sips(message, incoming, contacts)?;
            if path.len() > longest {
                return Err(too_long("Path Too Long"));
            }
            if !sound::is_sound_path(path) {
                return Err(Refusal::new(400, "Malformed Path"));
            }
        }
        if asks_for_change {
            if call_id.len() > longest {
                return Err(too_long("Call-ID Too Long"));
            }
            if self.aor.len() > longest {
                return Err(too_long("Address-Of-Record Too Long"));
            }
        }
        let cseq = message.cseq().map_or(0, |cseq| cseq.number);
        // What of the answer the request decides. It is the same over all transports: what is bound can be asked for by any.
        let echoed = (message.end() - message.start()).saturating_sub(sent) + ADDED;
        let registering = Registering {
            now,
            call_id,
            cseq,
            path,
            source: incoming.flow,
            direct: message.values(Name::Via).nth(1).is_none(),
            is_unsure: self.whence == SourceProof::Elsewhere && !incoming.flow.transport.is_reliable(),
            print: match asks_for_change {
                true => Print {
                    transaction: key as u32,
                    ..self.print(message, &plan, cseq, path)
                },
                false => Print::default(),
            },
            room: DATAGRAM.saturating_sub(echoed),
        };
        if let (contact::Plan::Contacts(contacts), true) = (&mut plan, path.is_empty()) {
            self.mark_the_misplaced(message, contacts, incoming, registering.direct);
            self.mark_those_that_lead_back(contacts, incoming, registering.direct);
        }
        let lines = &mut self.lines;
        lines.clear();
        let source = incoming.flow.peer.ip();
        let holder = match settings.is_trusted(source) {
            true => ShareHolder::NOBODY,
            false => self.location.holder(source),
        };
        let is_share_full = !self.location.admits(holder);
        let (ways, seating) = (&self.ways, &mut self.seating);
        let (outcome, round) = self.location.change(&self.aor, |record, room| {
            let memory = match plan {
                contact::Plan::Query => Recalled::Repeated,
                _ => record.recall(now, registering.print),
            };
            let terms = Terms {
                limits,
                ways,
                seating,
                room,
                holder,
                is_share_full,
            };
            let outcome = match (memory, &plan) {
                (Recalled::Repeated, _) | (_, contact::Plan::Query) => Ok(Registration::Queried),
                (Recalled::Other, _) => Err(OUT_OF_ORDER),
                (Recalled::New, contact::Plan::RemoveAll) => remove_all(record, &registering),
                (Recalled::New, contact::Plan::Contacts(contacts)) => update(record, contacts, incoming, &registering, terms),
            };
            // Where there was nothing too: when it comes again, another phone may have come.
            if !matches!(outcome, Ok(Registration::Queried) | Err(_)) {
                record.note_change(now, registering.print);
            }
            // Step 8: all bindings that are now.
            if outcome.is_ok() {
                write_bindings(record, &registering, lines);
            }
            outcome
        });
        let outcome = outcome?;
        if lines.len() > registering.room {
            // A request that is full of something else.
            return Err(Refusal::new(513, "No Room For The Bindings In The Answer"));
        }
        Ok((outcome, if asks_for_change { round } else { 0 }))
    }

    /// What makes this REGISTER the one that it is.
    fn print(&self, message: &Message, plan: &contact::Plan, cseq: u32, path: &[u8]) -> Print {
        let call_id = message.call_id().unwrap_or_default();
        let mut contacts = 0u32.to_le_bytes();
        let mut first: &[u8] = b"*";
        if let contact::Plan::Contacts(all) = plan {
            for (number, contact) in all.iter().enumerate() {
                match number {
                    0 => first = contact.value,
                    _ => {
                        let print = self.location.print(&[&contacts, contact.value]);
                        contacts = print.to_le_bytes();
                    }
                }
            }
        }
        let expires = contact::expires_header(message).map_or(u64::MAX, u64::from);
        let expires = expires.to_le_bytes();
        Print {
            order: self.location.print(&[&cseq.to_le_bytes(), call_id]),
            contents: self.location.print(&[first, &contacts, &expires, path]),
            transaction: 0,
        }
    }

    /// A contact whose address means something on this machine or in the networks behind it only, from a phone elsewhere: as a phone behind
    /// a NAT writes it that does not know its own address, or somebody who would like to reach what is there.
    fn mark_the_misplaced(&mut self, message: &Message, contacts: &mut Contacts, incoming: &Request, direct: bool) {
        let source = incoming.flow.peer.ip();
        for contact in contacts.iter_mut().filter(|contact| contact.expires_s > 0) {
            let Some(ip) = contact.parsed.host.ip() else {
                continue;
            };
            contact.is_misplaced = !self.settings.may_lie_at(ip, source) && !self.settings.leads_here(&contact.parsed);
            if contact.is_misplaced {
                let how = match direct {
                    true => "called by the way it came",
                    false => "not called",
                };
                let what = format_args!("contact at {ip} is outside the allowed networks ([registrar] contact_networks): {how}");
                self.log_event(message, incoming.flow, what);
            }
        }
    }

    /// A contact that leads back to the address-of-record that it is registered for, or to this server and to no user, leads nowhere, and
    /// ten of them make a tree of forks that nobody answers. It is bound, as any other (RFC 4475 §3.1.2.10 has one), and not called. One that
    /// names another user of ours forwards to that one.
    fn mark_those_that_lead_back(&self, contacts: &mut Contacts, incoming: &Request, direct: bool) {
        for contact in contacts.iter_mut() {
            // By the way that the phone has opened it is called whatever its contact says.
            contact.leads_back =
                self.settings.leads_back(&contact.parsed, &self.aor) && contact.reached(incoming, direct) != Reached::ByFlow;
        }
    }

    /// The To URI in canonical form, into `self.aor`. It must be one of ours.
    fn address_of_record(&mut self, message: &Message) -> Result<(), Refusal> {
        let bad = |fault: crate::sip::Fault| Refusal::new(400, fault.reason());
        let to = message.to().map_err(bad)?;
        let uri = crate::sip::Uri::parse(to.uri).map_err(bad)?;
        if !matches!(uri.scheme, Scheme::Sip | Scheme::Sips) {
            return Err(Refusal::new(400, "To Is Not A SIP URI"));
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
fn check_sips(message: &Message, incoming: &Request, contacts: &Contacts) -> Result<(), Refusal> {
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

const OUT_OF_ORDER: Refusal = Refusal::new(500, "CSeq Out Of Order");

/// `*`: every binding goes, unless this REGISTER is not newer than one of them.
fn remove_all(record: &mut Record, this: &Registering) -> Result<Registration, Refusal> {
    let (mut live, mut repeated) = (0, 0);
    for binding in &record.bindings {
        match check_order(binding, this)? {
            Order::Newer => live += usize::from(binding.is_live(this.now)),
            Order::Equal if binding.removed => repeated += 1,
            Order::Equal => return Err(OUT_OF_ORDER),
        }
    }
    if repeated > 0 {
        return match live {
            0 => Ok(Registration::Queried),
            _ => Err(OUT_OF_ORDER),
        };
    }
    for binding in &mut record.bindings {
        remove(binding, this);
    }
    Ok(Registration::Removed)
}

/// Step 7 for a list of contacts.
fn update(
    record: &mut Record,
    contacts: &Contacts,
    incoming: &Request,
    this: &Registering,
    terms: Terms,
) -> Result<Registration, Refusal> {
    let Terms {
        limits,
        ways,
        seating,
        room,
        holder,
        is_share_full,
    } = terms;
    seating.seat(this.now, &record.bindings, contacts);
    if is_repeated(record, contacts, seating, this)? {
        return Ok(Registration::Queried);
    }
    // How many there would be, and what more they would take.
    let will_live = &mut seating.will_live;
    will_live.clear();
    let lives = |(binding, is_replaced): (&Binding, &bool)| binding.is_live(this.now) && !is_replaced;
    will_live.extend(record.bindings.iter().zip(&seating.is_replaced).map(lives));
    let others = record.bindings.len();
    will_live.resize(others + contacts.len(), false);
    let (mut added, mut needed, mut told) = (0, 0, 0);
    for (number, (contact, seat)) in contacts.iter().zip(&seating.seats).enumerate() {
        let (place, binding) = match seat {
            Seat::Binding(position) => (*position, record.bindings.get(*position)),
            Seat::New => (others + number, None),
            Seat::Like(before) => (others + before, None),
        };
        let Some(will_live) = will_live.get_mut(place) else {
            continue;
        };
        let was_live = std::mem::replace(will_live, contact.expires_s > 0);
        if contact.expires_s == 0 {
            continue;
        }
        added += usize::from(!was_live);
        let text = contact.uri.len() + contact.instance.len() + this.call_id.len() + this.path.len() + SOURCE;
        needed += weight(text).saturating_sub(binding.map_or(0, Binding::weight));
        told += line_length(contact.uri, contact.instance);
    }
    let live = will_live.iter().filter(|lives| **lives).count();
    if added > 0 && live > limits.max_contacts {
        let excess = live - limits.max_contacts;
        if !give_way(&record.bindings, seating, ways, this.now, excess) {
            return Err(Refusal::new(403, "Too Many Contacts").because_of(Limit::Contacts));
        }
    }
    if needed > room {
        let full = Refusal::new(503, "Too Many Bindings").with(Extra::RetryAfter(60));
        return Err(full.because_of(Limit::Bindings));
    }
    if needed > 0 && is_share_full {
        let full = Refusal::new(503, "Too Many Bindings From One Source");
        let full = full.with(Extra::RetryAfter(60));
        return Err(full.because_of(Limit::BindingsOfSource));
    }
    for (position, binding) in record.bindings.iter().enumerate() {
        let is = |list: &[bool]| list.get(position) == Some(&true);
        if binding.is_live(this.now) && !is(&seating.is_replaced) && !is(&seating.is_taken) {
            told += line_length(binding.uri(), binding.text().instance);
        }
    }
    if told > this.room {
        return Err(too_long("Contacts Too Long For One Answer"));
    }
    record.holder = holder;
    Ok(carry_out(record, contacts, incoming, this, limits, seating))
}

/// Nothing stands in the way any more.
fn carry_out(
    record: &mut Record,
    contacts: &Contacts,
    incoming: &Request,
    this: &Registering,
    limits: &settings::Registrar,
    seating: &mut Seating,
) -> Registration {
    let mut outcome = Registration::Removed;
    for (number, contact) in contacts.iter().enumerate() {
        let seat = seating.seats.get(number).copied().unwrap_or(Seat::New);
        let place = match seat {
            Seat::Binding(position) => Some(position),
            Seat::Like(before) => match seating.seats.get(before) {
                Some(Seat::Binding(position)) => Some(*position),
                _ => None,
            },
            Seat::New => None,
        };
        let found = place.and_then(|place| record.bindings.get_mut(place));
        match (contact.expires_s, found) {
            (0, Some(binding)) => remove(binding, this),
            (0, None) => {}
            (_, Some(binding)) => {
                store(binding, contact, incoming, this);
                if outcome == Registration::Removed {
                    outcome = Registration::Refreshed;
                }
            }
            (_, None) => {
                let text = contact.text(this.call_id, this.path);
                let mut binding = Binding::new(text, Some(&this.source));
                store(&mut binding, contact, incoming, this);
                record.add(binding);
                outcome = Registration::Added;
                // Whoever says the same finds it there.
                let position = record.bindings.len() - 1;
                let first = match seat {
                    Seat::Like(before) => before,
                    _ => number,
                };
                if let Some(seat) = seating.seats.get_mut(first) {
                    *seat = Seat::Binding(position);
                }
            }
        }
    }
    if seating.is_replaced.contains(&true) {
        let mut replaced = seating.is_replaced.iter();
        record.bindings.retain(|_| replaced.next() != Some(&true));
    }
    make_room(record, limits.max_contacts);
    outcome
}

/// §10.3 step 7: with the same Call-ID, CSeq must rise for every binding that is spoken of. True when this very REGISTER has made them what they
/// are, as far as they tell: it was carried out before the server was started.
fn is_repeated(record: &Record, contacts: &Contacts, seating: &Seating, this: &Registering) -> Result<bool, Refusal> {
    let (mut newer, mut repeated) = (false, false);
    for (contact, seat) in contacts.iter().zip(&seating.seats) {
        let Seat::Binding(position) = seat else {
            newer |= contact.expires_s > 0;
            continue;
        };
        let Some(binding) = record.bindings.get(*position) else {
            continue;
        };
        match check_order(binding, this)? {
            Order::Newer => newer = true,
            Order::Equal if was_asked(binding, contact, this) => repeated = true,
            Order::Equal => return Err(OUT_OF_ORDER),
        }
    }
    if repeated {
        return match newer {
            false => Ok(true),
            true => Err(OUT_OF_ORDER),
        };
    }
    // One that was carried out with these numbers asked for something else.
    for binding in record.bindings.iter().filter(|b| b.cseq == this.cseq) {
        if check_order(binding, this)? == Order::Equal {
            return Err(OUT_OF_ORDER);
        }
    }
    for (binding, is_replaced) in record.bindings.iter().zip(&seating.is_replaced) {
        if *is_replaced {
            check_order(binding, this)?;
        }
    }
    Ok(false)
}

/// Whether the binding is what this contact of a REGISTER with its Call-ID and CSeq makes of it. How long it was to last is known by how
/// long a REGISTER may be on its way.
fn was_asked(binding: &Binding, contact: &Contact, this: &Registering) -> bool {
    if contact.expires_s == 0 {
        return binding.removed;
    }
    let text = binding.text();
    let asked_ms = u64::from(contact.expires_s) * 1000;
    let left_ms = binding.expires.ms_since(this.now);
    !binding.removed
        && text.uri == contact.uri
        && text.instance == contact.instance
        && text.path == this.path
        && (binding.reg_id, binding.q) == (contact.reg_id, contact.q)
        && left_ms <= asked_ms
        && asked_ms - left_ms <= REMOVED_MS
}

/// Bindings whose connection is gone make room for those that live, and those that expire first do before others. False where they are not
/// enough: then none goes.
fn give_way(bindings: &[Binding], seating: &mut Seating, ways: &PeerFlows, now: Instant, excess: usize) -> bool {
    for _ in 0..excess {
        let is_dead = |(position, binding): &(usize, &Binding)| {
            binding.is_live(now)
                && seating.is_replaced.get(*position) == Some(&false)
                && seating.is_taken.get(*position) == Some(&false)
                && is_dead(binding, ways)
        };
        let dead = bindings.iter().enumerate().filter(is_dead);
        let Some((oldest, _)) = dead.min_by_key(|(_, binding)| binding.expires) else {
            return false;
        };
        if let Some(is_replaced) = seating.is_replaced.get_mut(oldest) {
            *is_replaced = true;
        }
    }
    true
}

/// The connection by which it was registered is gone; by a datagram's way a phone can always come back.
fn is_dead(binding: &Binding, ways: &PeerFlows) -> bool {
    match (binding.reached, binding.source()) {
        // A contact or a Path leads there, whatever became of the connection.
        (Reached::ByContact, _) => false,
        (_, Some(flow)) => matches!(flow.channel, Channel::Connection { .. }) && !ways.is_alive(&flow),
        // Its listener is gone.
        (reached, None) => reached == Reached::ByFlow,
    }
}

fn store(binding: &mut Binding, contact: &Contact, incoming: &Request, this: &Registering) {
    binding.set_text(contact.text(this.call_id, this.path), Some(&this.source));
    binding.reg_id = contact.reg_id;
    binding.place = contact.place;
    binding.q = contact.q;
    binding.cseq = this.cseq;
    binding.expires = this.now.after_ms(u64::from(contact.expires_s) * 1000);
    binding.removed = false;
    binding.leads_back = contact.leads_back;
    binding.is_unsure = this.is_unsure;
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
        let (uri, path, instance) = (text.uri.to_vec(), text.path.to_vec(), text.instance.to_vec());
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
    while record.bindings.len() > max_contacts.saturating_mul(4).max(16)
        && let Some(place) = record.bindings.iter().position(|b| b.removed)
    {
        record.bindings.remove(place);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Newer,
    /// The binding is what a REGISTER with this Call-ID and CSeq has made it.
    Equal,
}

/// §10.3 step 7: with the same Call-ID, CSeq must rise.
fn check_order(binding: &Binding, this: &Registering) -> Result<Order, Refusal> {
    // What has expired is gone, though the sweep may not have come by.
    if this.cseq > binding.cseq || binding.expires <= this.now || binding.text().call_id != this.call_id {
        return Ok(Order::Newer);
    }
    match this.cseq == binding.cseq {
        true => Ok(Order::Equal),
        false => Err(OUT_OF_ORDER),
    }
}

/// Bytes that a binding keeps of where its REGISTER came from, mostly.
const SOURCE: usize = 10;

/// Bytes of a Contact line of ours, at most.
fn line_length(uri: &[u8], instance: &[u8]) -> usize {
    const REST: &str = "Contact: <>;expires=4294967295;q=0.000;+sip.instance=;reg-id=4294967295\r\n";
    uri.len() + instance.len() + REST.len()
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
        // A folded line is one line from here on.
        let unfolded = |byte: &u8| match byte {
            b'\r' | b'\n' => b' ',
            byte => *byte,
        };
        out.extend(value.text.iter().map(unfolded));
    }
}
