//! The registrar (RFC 3261 §10.3, with Path of RFC 3327): it turns a REGISTER into changes of the location service, all or nothing.
//!
//! It keeps no transaction with its response: an address-of-record remembers which REGISTERs last changed it, by Call-ID, CSeq and
//! contents, and a repeated one is answered with the current bindings. A REGISTER with the same Call-ID and CSeq that asks for
//! something else is refused, and so is one that arrives late: it finds a higher CSeq, even if its contact was removed meanwhile.
//!
//! If answers wait for the disk, the 200 to a REGISTER that changed a record, or to a repetition of it, goes into the outbox with
//! the round of the journal that it waits for ([`crate::stack::location::journal`]); while the disk accepts no writes, nothing is
//! changed.

mod contact;
mod seating;
pub mod sound;
mod terms;
pub mod unstored;
mod update;

use crate::base::ShareHolder;
use crate::base::hash::write_decimal;
use crate::sip::{Index, Message, Name, NameAddr, Scheme, Value};
use crate::stack::counters::Registration;
use crate::stack::hop_uri::is_sips;
use crate::stack::location::{Binding, Location, Print, Reached, Recalled, Record};
use crate::stack::log_event::Subject;
use crate::stack::proxy::redirect;
use crate::stack::refusal::{Extra, Refusal};
use crate::stack::request::{Request, unsupported};
use crate::stack::turn::{SourceProof, Turn};
use contact::{Contacts, Plan, too_long};
use seating::Seating;
use terms::{Registering, Terms};
use update::{OUT_OF_ORDER, remove_all, update};

/// Maximum size of a datagram's payload.
const DATAGRAM: usize = 65_507;

/// Bytes of an answer that are not copied from the request: status line, tag, `received` and other additions.
const ADDED: usize = 512;

/// One core's registrar.
#[derive(Default)]
pub(in crate::stack) struct Registrar {
    seating: Seating,
}

impl Registrar {
    /// Returns the number of URIs compared as text.
    pub fn uris_compared(&self) -> u64 {
        self.seating.compared
    }

    /// Answers a REGISTER for one of our domains.
    pub fn register(&mut self, turn: &mut Turn, request: &Request) -> Result<(), Refusal> {
        // Steps 3 and 4: authentication and authorisation.
        turn.authenticate_registering(request)?;
        turn.check_registered(&request.message, request.flow)?;
        // Step 2: extensions.
        if unsupported(&request.message, Name::Require).next().is_some() {
            return Err(Refusal::new(420, "").with(Extra::Unsupported));
        }
        // Step 5: the address-of-record.
        find_address_of_record(turn, &request.message)?;
        let mut path = std::mem::take(&mut turn.core.scratch);
        let outcome = self.carry_out(turn, request, &mut path);
        turn.core.scratch = path;
        let (outcome, round) = outcome?;
        turn.core.counters.registrations[outcome as usize] += 1;
        let mut lines = std::mem::take(&mut turn.core.lines);
        for header in request.message.all(Name::Path) {
            lines.extend_from_slice(b"Path: ");
            lines.extend_from_slice(header.value);
            lines.extend_from_slice(b"\r\n");
        }
        // Step 8 (§20.17). It is the first to go where room is short.
        let room = turn.room_for_list(&request.message, request.flow);
        let date = turn.core.date.line(turn.now);
        if lines.len() + date.len() <= room {
            lines.extend_from_slice(date);
        }
        turn.answer_listing(&request.message, request.flow, 200, &lines);
        turn.core.lines = lines;
        if round > turn.core.location.progress().durable {
            turn.outbox.hold(round);
        }
        Ok(())
    }

    /// Carries out steps 6 to 8 for the core's `aor`, writing the answer's Contact lines into its `lines`. Also returns the round
    /// of the journal that the answer waits for. `path` is a temporary buffer.
    fn carry_out(&mut self, turn: &mut Turn, request: &Request, path: &mut Vec<u8>) -> Result<(Registration, u64), Refusal> {
        let message = &request.message;
        let settings = turn.core.settings.clone();
        let (limits, longest) = (&settings.registrar, settings.limits.contact_size);
        // All contacts are checked before any is stored.
        let mut plan = contact::plan(message, &turn.core.location, (limits, longest), path)?;
        let asks_for_change = !matches!(plan, Plan::Query);
        if asks_for_change && turn.core.location.refuses_changes() {
            turn.core.counters.unstored += 1;
            let refusal = Refusal::new(503, "Bindings Cannot Be Stored");
            return Err(refusal.with(Extra::RetryAfter(unstored::RETRY_AFTER_S)));
        }
        path.clear();
        collect_path(message, path);
        check_size(request, &plan, path, &turn.core.aor, longest)?;
        let this = Registering::new(turn, request, &plan, path);
        if let (Plan::Contacts(contacts), true) = (&mut plan, path.is_empty()) {
            mark_the_misplaced(turn, contacts, request, this.direct);
            mark_those_that_lead_back(turn, contacts, request, this.direct);
        }
        let core = &mut *turn.core;
        core.lines.clear();
        let source = request.flow.peer.ip();
        let holder = match settings.is_trusted(source) {
            true => ShareHolder::NOBODY,
            false => core.location.holder(source),
        };
        let is_share_full = !core.location.admits(holder);
        let is_shared = core.location.shared().is_some();
        let (peer_flows, lines, seating) = (&core.peer_flows, &mut core.lines, &mut self.seating);
        let (outcome, round) = core.location.change(turn.now, &core.aor, |record, room| {
            let terms = Terms { limits, peer_flows, seating, room, holder, is_share_full, is_shared };
            let outcome = change(record, &plan, request, &this, terms);
            // Step 8: all current bindings.
            if outcome.is_ok() {
                write_bindings(record, &this, lines);
            }
            outcome
        });
        let outcome = outcome?;
        if lines.len() > this.room {
            // A request that is full of something else.
            return Err(Refusal::new(513, "No Room For The Bindings In The Answer"));
        }
        Ok((outcome, if asks_for_change { round } else { 0 }))
    }
}

impl<'a> Registering<'a> {
    fn new(turn: &Turn, request: &Request<'a>, plan: &Plan, path: &'a [u8]) -> Registering<'a> {
        let message = &request.message;
        let cseq = message.cseq().map_or(0, |cseq| cseq.number);
        let sent = match plan {
            Plan::Contacts(contacts) => contacts.length,
            _ => 0,
        };
        // The part of the answer that the request determines. It is the same over all transports: bindings can be queried over any.
        let echoed = (message.end() - message.start()).saturating_sub(sent) + ADDED;
        Registering {
            now: turn.now,
            call_id: message.call_id().unwrap_or_default(),
            cseq,
            path,
            source: request.flow,
            direct: message.values(Name::Via).nth(1).is_none(),
            is_unsure: turn.source_proof == SourceProof::Elsewhere && !request.flow.transport.is_reliable(),
            print: match plan {
                Plan::Query => Print::default(),
                _ => Print { transaction: request.key as u32, ..print(&turn.core.location, message, plan, cseq, path) },
            },
            room: DATAGRAM.saturating_sub(echoed),
        }
    }
}

/// Refuses what is too long to store, malformed, or less secure than it claims.
fn check_size(request: &Request, plan: &Plan, path: &[u8], aor: &[u8], longest: usize) -> Result<(), Refusal> {
    if let Plan::Contacts(contacts) = plan {
        check_sips(request, contacts)?;
        if path.len() > longest {
            return Err(too_long("Path Too Long"));
        }
        if !sound::is_sound_path(path) {
            return Err(Refusal::new(400, "Malformed Path"));
        }
    }
    if !matches!(plan, Plan::Query) {
        if request.message.call_id().is_ok_and(|call_id| call_id.len() > longest) {
            return Err(too_long("Call-ID Too Long"));
        }
        if aor.len() > longest {
            return Err(too_long("Address-Of-Record Too Long"));
        }
    }
    Ok(())
}

/// Steps 6 and 7: a REGISTER that was already carried out is not carried out again.
fn change(record: &mut Record, plan: &Plan, request: &Request, this: &Registering, terms: Terms) -> Result<Registration, Refusal> {
    let memory = match plan {
        Plan::Query => Recalled::Repeated,
        _ => record.recall(this.now, this.print),
    };
    let outcome = match (memory, plan) {
        (Recalled::Repeated, _) | (_, Plan::Query) => Ok(Registration::Queried),
        (Recalled::Other, _) => Err(OUT_OF_ORDER),
        (Recalled::New, Plan::RemoveAll) => remove_all(record, this),
        (Recalled::New, Plan::Contacts(contacts)) => update(record, contacts, request, this, terms),
    };
    // Also if there was nothing to change: when it is repeated, another phone may have registered.
    if !matches!(outcome, Ok(Registration::Queried) | Err(_)) {
        record.note_change(this.now, this.print);
    }
    outcome
}

/// Returns the fingerprint of this REGISTER.
fn print(location: &Location, message: &Message, plan: &Plan, cseq: u32, path: &[u8]) -> Print {
    let call_id = message.call_id().unwrap_or_default();
    let mut contacts = 0u32.to_le_bytes();
    let mut first: &[u8] = b"*";
    if let Plan::Contacts(all) = plan {
        for (number, contact) in all.iter().enumerate() {
            match number {
                0 => first = contact.value,
                _ => {
                    let print = location.print(&[&contacts, contact.value]);
                    contacts = print.to_le_bytes();
                }
            }
        }
    }
    let expires = contact::expires_header(message).map_or(u64::MAX, u64::from);
    let expires = expires.to_le_bytes();
    Print {
        order: location.print(&[&cseq.to_le_bytes(), call_id]),
        contents: location.print(&[first, &contacts, &expires, path]),
        transaction: 0,
    }
}

/// Marks contacts whose address is only meaningful on this machine or in the networks behind it, but which come from a phone
/// elsewhere: from a phone behind a NAT that does not know its own address, or from somebody who wants to reach what is there.
fn mark_the_misplaced(turn: &mut Turn, contacts: &mut Contacts, request: &Request, direct: bool) {
    let source = request.flow.peer.ip();
    for contact in contacts.iter_mut().filter(|contact| contact.expires_s > 0) {
        let Some(ip) = contact.parsed.host.ip() else {
            continue;
        };
        contact.is_misplaced = !turn.core.settings.may_lie_at(ip, source) && !turn.core.settings.leads_here(&contact.parsed);
        if contact.is_misplaced {
            let how = match direct {
                true => "called by the way it came",
                false => "not called",
            };
            let what = format_args!("contact at {ip} is outside the allowed networks ([registrar] contact_networks): {how}");
            turn.log_event(Subject::Registrar, &request.message, request.flow, what);
        }
    }
}

/// Marks contacts that lead back to the address-of-record that they are registered for, or to this server and to no user. They lead
/// nowhere, and ten of them make a tree of forks that nobody answers. They are bound like any other (RFC 4475 §3.1.2.10 has one),
/// but not called. A contact that names another user of ours forwards to that user.
fn mark_those_that_lead_back(turn: &Turn, contacts: &mut Contacts, request: &Request, direct: bool) {
    for contact in contacts.iter_mut() {
        // Over the flow that the phone has opened it is called whatever its contact says.
        contact.leads_back =
            turn.core.settings.leads_back(&contact.parsed, &turn.core.aor) && contact.reached(request, direct) != Reached::ByFlow;
    }
}

/// Returns the address-of-record that an answer of ours is about.
pub fn address_of(answer: &[u8]) -> Option<Vec<u8>> {
    let mut index = Index::default();
    let message = Message::parse(answer, &mut index).ok()?;
    let mut aor = Vec::new();
    crate::sip::Uri::parse(message.to().ok()?.uri).ok()?.write_address_of_record(&mut aor);
    Some(aor)
}

/// Writes the To URI in canonical form into the core's `aor`. It must be one of ours.
fn find_address_of_record(turn: &mut Turn, message: &Message) -> Result<(), Refusal> {
    let bad = |fault: crate::sip::Fault| Refusal::new(400, fault.reason());
    let to = message.to().map_err(bad)?;
    let uri = crate::sip::Uri::parse(to.uri).map_err(bad)?;
    if !matches!(uri.scheme, Scheme::Sip | Scheme::Sips) {
        return Err(Refusal::new(400, "To Is Not A SIP URI"));
    }
    // Port and parameters do not matter: the address's name counts, not where a request for it would go.
    if turn.core.settings.whose(&uri).is_none() || uri.user.is_none_or(<[u8]>::is_empty) {
        return Err(Refusal::new(404, "No Such Address-Of-Record"));
    }
    turn.core.aor.clear();
    uri.write_address_of_record(&mut turn.core.aor);
    Ok(())
}

/// RFC 5630 §5.2: a SIPS contact is bound only if everything on the way to it is SIPS.
fn check_sips(request: &Request, contacts: &Contacts) -> Result<(), Refusal> {
    let bound = || contacts.iter().filter(|contact| contact.expires_s > 0);
    if !bound().any(|contact| contact.is_sips()) {
        return Ok(());
    }
    let sips_path = |value: Value| NameAddr::parse(value.text).is_ok_and(|path| is_sips(path.uri));
    let sound = request.parsed.scheme == Scheme::Sips
        && bound().all(|contact| contact.is_sips())
        && request.message.values(Name::Path).all(sips_path);
    match sound {
        true => Ok(()),
        false => Err(Refusal::new(400, "SIPS Contact Without SIPS On The Way")),
    }
}

/// Writes the contacts of the 200. Those that this REGISTER bound come first, so that a phone with little room still learns their
/// state.
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

/// Collects the request's Path values as one comma-separated list (RFC 3327 §5.3).
fn collect_path(message: &Message, out: &mut Vec<u8>) {
    for value in message.values(Name::Path) {
        if !out.is_empty() {
            out.extend_from_slice(b", ");
        }
        // A folded line is unfolded from here on.
        let unfolded = |byte: &u8| match byte {
            b'\r' | b'\n' => b' ',
            byte => *byte,
        };
        out.extend(value.text.iter().map(unfolded));
    }
}
