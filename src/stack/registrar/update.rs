//! What a REGISTER does to the bindings of its address-of-record (RFC 3261 §10.3 step 7), all or nothing.

use super::contact::{Contact, Contacts, too_long};
use super::seating::{Seat, Seating};
use super::terms::{Registering, Terms};
use crate::base::{Channel, Instant};
use crate::settings;
use crate::stack::counters::{Limit, Registration};
use crate::stack::location::{Binding, BindingText, REMOVED_MS, Reached, Record, held_ms, weight};
use crate::stack::peer_flows::PeerFlows;
use crate::stack::refusal::{Extra, Refusal};
use crate::stack::request::Request;

pub(super) const OUT_OF_ORDER: Refusal = Refusal::new(500, "CSeq Out Of Order");

/// `*`: removes every binding, unless this REGISTER is not newer than one of them.
pub(super) fn remove_all(record: &mut Record, this: &Registering) -> Result<Registration, Refusal> {
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
pub(super) fn update(
    record: &mut Record,
    contacts: &Contacts,
    request: &Request,
    this: &Registering,
    terms: Terms,
) -> Result<Registration, Refusal> {
    let Terms { limits, peer_flows, seating, room, holder, is_share_full, is_shared } = terms;
    seating.seat(this.now, &record.bindings, contacts);
    if is_repeated(record, contacts, seating, this)? {
        return Ok(Registration::Queried);
    }
    let change = reckon(record, contacts, seating, this);
    if change.added > 0 && change.live > limits.max_contacts {
        let excess = change.live - limits.max_contacts;
        if !give_way(&record.bindings, seating, peer_flows, this.now, excess) {
            return Err(Refusal::new(403, "Too Many Contacts").because_of(Limit::Contacts));
        }
    }
    if change.needed > room {
        let full = Refusal::new(503, "Too Many Bindings").with(Extra::RetryAfter(60));
        return Err(full.because_of(Limit::Bindings));
    }
    if change.needed > 0 && is_share_full {
        let full = Refusal::new(503, "Too Many Bindings From One Source");
        let full = full.with(Extra::RetryAfter(60));
        return Err(full.because_of(Limit::BindingsOfSource));
    }
    let kept = kept_length(record, seating, this);
    if change.answered + kept > this.room {
        return Err(too_long("Contacts Too Long For One Answer"));
    }
    record.holder = holder;
    let spare = match is_shared && !is_share_full {
        true => room - change.needed,
        false => 0,
    };
    Ok(set_bindings(record, contacts, request, this, (limits, spare), seating))
}

/// What the contacts of a REGISTER would change.
struct Change {
    /// Bindings that would be added, and how many would then be live.
    added: usize,
    live: usize,
    /// Additional bytes that the table would have to hold.
    needed: usize,
    /// Bytes of the answer that the contacts would take.
    answered: usize,
}

/// Computes how many bindings there would be, and what more they would take.
fn reckon(record: &Record, contacts: &Contacts, seating: &mut Seating, this: &Registering) -> Change {
    let will_live = &mut seating.will_live;
    will_live.clear();
    let lives = |(binding, is_replaced): (&Binding, &bool)| binding.is_live(this.now) && !is_replaced;
    will_live.extend(record.bindings.iter().zip(&seating.is_replaced).map(lives));
    let others = record.bindings.len();
    will_live.resize(others + contacts.len(), false);
    let (mut added, mut needed, mut answered) = (0, 0, 0);
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
        answered += line_length(contact.uri, contact.instance);
    }
    let live = will_live.iter().filter(|lives| **lives).count();
    Change { added, live, needed, answered }
}

/// Returns the bytes of the answer taken by live bindings that the REGISTER does not mention.
fn kept_length(record: &Record, seating: &Seating, this: &Registering) -> usize {
    let is = |list: &[bool], position: usize| list.get(position) == Some(&true);
    let bindings = record.bindings.iter().enumerate();
    let kept = bindings.filter(|(position, binding)| {
        binding.is_live(this.now) && !is(&seating.is_replaced, *position) && !is(&seating.is_taken, *position)
    });
    kept.map(|(_, binding)| line_length(binding.uri(), binding.text().instance)).sum()
}

/// Applies the changes, which can no longer fail. `spare`: how much may be remembered of removals of what is not bound here.
fn set_bindings(
    record: &mut Record,
    contacts: &Contacts,
    request: &Request,
    this: &Registering,
    (limits, mut spare): (&settings::Registrar, usize),
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
            (0, None) => {
                let binding = removed(contact, request, this, limits);
                if binding.weight() <= spare {
                    spare -= binding.weight();
                    record.add(binding);
                    note_place(seating, seat, number, record.bindings.len() - 1);
                }
            }
            (_, Some(binding)) => {
                store(binding, contact, request, this);
                if outcome == Registration::Removed {
                    outcome = Registration::Refreshed;
                }
            }
            (_, None) => {
                let text = contact.text(this.call_id, this.path);
                let mut binding = Binding::new(text, Some(&this.source));
                store(&mut binding, contact, request, this);
                record.add(binding);
                outcome = Registration::Added;
                note_place(seating, seat, number, record.bindings.len() - 1);
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

/// Notes where the binding of a contact has been put: a later contact that says the same finds it there.
fn note_place(seating: &mut Seating, seat: Seat, number: usize, position: usize) {
    let first = match seat {
        Seat::Like(before) => before,
        _ => number,
    };
    if let Some(seat) = seating.seats.get_mut(first) {
        *seat = Seat::Binding(position);
    }
}

/// §10.3 step 7: with the same Call-ID, CSeq must rise for every binding mentioned. Returns true if this very REGISTER gave them
/// their state, as far as can be told: it was carried out before the server was started.
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
    // A REGISTER carried out with these numbers asked for something else.
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

/// Returns whether the binding is what this contact of a REGISTER with its Call-ID and CSeq makes of it. Its lifetime is known to
/// within the time that a REGISTER may be in transit.
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

/// Drops bindings whose connection is gone to make room for live ones, those that expire first before others. Returns false if they
/// are not enough: then none is dropped.
fn give_way(bindings: &[Binding], seating: &mut Seating, peer_flows: &PeerFlows, now: Instant, excess: usize) -> bool {
    for _ in 0..excess {
        let is_dead = |(position, binding): &(usize, &Binding)| {
            binding.is_live(now)
                && seating.is_replaced.get(*position) == Some(&false)
                && seating.is_taken.get(*position) == Some(&false)
                && is_dead(binding, peer_flows)
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

/// Returns whether the connection on which it was registered is gone; by a datagram's flow a phone can always come back.
fn is_dead(binding: &Binding, peer_flows: &PeerFlows) -> bool {
    match (binding.reached, binding.source()) {
        // Another server has that connection.
        _ if binding.is_elsewhere() => false,
        // A contact or a Path leads there, whatever happened to the connection.
        (Reached::ByContact, _) => false,
        (_, Some(flow)) => matches!(flow.channel, Channel::Connection { .. }) && !peer_flows.is_alive(&flow),
        // Its listener is gone.
        (reached, None) => reached == Reached::ByFlow,
    }
}

fn store(binding: &mut Binding, contact: &Contact, request: &Request, this: &Registering) {
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
        true => contact.reached(request, this.direct),
        false => Reached::ByContact,
    };
}

/// Returns the removal of a binding that is not here: another server may have it, and tell us of it later. It is remembered for as long
/// as that could be held anywhere.
fn removed(contact: &Contact, request: &Request, this: &Registering, limits: &settings::Registrar) -> Binding {
    let mut binding = Binding::new(contact.text(this.call_id, this.path), Some(&this.source));
    store(&mut binding, contact, request, this);
    binding.removed = true;
    binding.expires = this.now.after_ms(held_ms(u64::from(limits.max_expires) * 1000));
    binding
}

/// Removes the binding, but remembers it for as long as a REGISTER may be in transit.
fn remove(binding: &mut Binding, this: &Registering) {
    let text = binding.text();
    if text.call_id != this.call_id {
        let (uri, path, instance) = (text.uri.to_vec(), text.path.to_vec(), text.instance.to_vec());
        let text = BindingText { uri: &uri, call_id: this.call_id, path: &path, instance: &instance };
        let source = binding.source();
        binding.set_text(text, source.as_ref());
    }
    binding.cseq = this.cseq;
    binding.removed = true;
    binding.expires = this.now.after_ms(REMOVED_MS);
}

/// Drops bindings that are only remembered to make room for live ones.
fn make_room(record: &mut Record, max_contacts: usize) {
    let most = max_contacts.saturating_mul(4).max(16);
    while record.bindings.len() > most {
        // Of a table that is shared, first those that the other servers know of.
        let told = record.bindings.iter().position(|b| b.removed && !b.is_untold());
        let any = || record.bindings.iter().position(|b| b.removed && record.bindings.len() > 2 * most);
        let Some(place) = told.or_else(any) else {
            return;
        };
        record.bindings.remove(place);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Newer,
    /// The binding is as a REGISTER with this Call-ID and CSeq made it.
    Equal,
}

/// §10.3 step 7: with the same Call-ID, CSeq must rise.
fn check_order(binding: &Binding, this: &Registering) -> Result<Order, Refusal> {
    // What has expired is gone, even if the sweep has not removed it yet.
    if this.cseq > binding.cseq || binding.expires <= this.now || binding.text().call_id != this.call_id {
        return Ok(Order::Newer);
    }
    match this.cseq == binding.cseq {
        true => Ok(Order::Equal),
        false => Err(OUT_OF_ORDER),
    }
}

/// Bytes in which a binding usually stores its REGISTER's source.
const SOURCE: usize = 10;

/// Returns the maximum length of a Contact line of ours.
pub(super) fn line_length(uri: &[u8], instance: &[u8]) -> usize {
    const REST: &str = "Contact: <>;expires=4294967295;q=0.000;+sip.instance=;reg-id=4294967295\r\n";
    uri.len() + instance.len() + REST.len()
}
