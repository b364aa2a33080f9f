//! Which binding each contact of a REGISTER refers to (RFC 3261 §10.3 step 7, §19.1.4; RFC 5626 §6).
//!
//! Found by number: what is stored has the number of its URI ([`crate::stack::location::Location::place`]), and text is compared
//! only if numbers agree, a few times for each contact sent. So the cost of a REGISTER depends on its own length.

use super::contact::{Contact, Contacts};
use crate::base::Instant;
use crate::sip::{Scheme, Uri};
use crate::stack::location::Binding;

/// What a contact refers to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seat {
    /// No existing binding.
    New,
    /// The same as an earlier new contact, by position.
    Like(usize),
    /// A binding, by position.
    Binding(usize),
}

/// The seats of one REGISTER's contacts. Its allocations are reused.
#[derive(Default)]
pub struct Seating {
    pub seats: Vec<Seat>,
    /// By binding: which are mentioned.
    pub is_taken: Vec<bool>,
    /// By binding: those replaced by another contact of their instance.
    pub is_replaced: Vec<bool>,
    /// By binding, then by new contact: which will be live.
    pub will_live: Vec<bool>,
    /// The bindings' positions by number, used if several contacts look for theirs.
    places: Vec<(u32, u32)>,
    /// URIs compared as text since the start.
    pub compared: u64,
}

/// Bindings whose URI is compared with that of one contact as in §19.1.4. Further ones, which differ from each other only in
/// optional URI parameters, are matched by their text alone.
const COMPARED: usize = 2;

/// The same for a longer URI: its cost is measured by `worst` in perf/micro-bench.
const COMPARED_LENGTH: usize = 128;

impl Seating {
    pub fn seat(&mut self, now: Instant, bindings: &[Binding], contacts: &Contacts) {
        self.seats.clear();
        self.places.clear();
        for list in [&mut self.is_taken, &mut self.is_replaced] {
            list.clear();
            list.resize(bindings.len(), false);
        }
        let is_alone = contacts.len() == 1;
        if !is_alone {
            let places = bindings.iter().zip(0..);
            self.places.extend(places.map(|(binding, position)| (binding.place, position)));
            self.places.sort_unstable();
        }
        for (number, contact) in contacts.iter().enumerate() {
            let found = match contact.reg_id {
                0 => None,
                _ => {
                    let is_it = |binding: &Binding| {
                        binding.reg_id == contact.reg_id && is_same_instance(binding.text().instance, contact.instance)
                    };
                    let current = bindings.iter().position(|binding| !binding.is_replaced() && is_it(binding));
                    current.or_else(|| bindings.iter().position(is_it))
                }
            };
            let found = found.or_else(|| match is_alone {
                true => self.find_by_uri(contact, bindings, 0..bindings.len()),
                false => {
                    let start = self.places.partition_point(|(p, _)| *p < contact.place);
                    let end = self.places.partition_point(|(p, _)| *p <= contact.place);
                    let places = std::mem::take(&mut self.places);
                    let these = places.get(start..end).unwrap_or(&[]).iter();
                    let found = self.find_by_uri(contact, bindings, these.map(|(_, p)| *p as usize));
                    self.places = places;
                    found
                }
            });
            let seat = match found {
                Some(position) => Seat::Binding(position),
                None => self.find_among(contact, contacts, number),
            };
            if let Some(is_taken) = found.and_then(|position| self.is_taken.get_mut(position)) {
                *is_taken = true;
            }
            self.seats.push(seat);
        }
        self.seat_instances(now, bindings, contacts);
    }

    /// Seats a phone that has come back by another path, with another URI: its binding is the one of its instance, though it names
    /// no reg-id. Several contacts of one REGISTER for one instance are kept side by side.
    fn seat_instances(&mut self, now: Instant, bindings: &[Binding], contacts: &Contacts) {
        for (number, contact) in contacts.iter().enumerate() {
            if contact.expires_s == 0 || contact.reg_id != 0 || contact.instance.is_empty() {
                continue;
            }
            let mut is_new = self.seats.get(number) == Some(&Seat::New);
            for (position, binding) in bindings.iter().enumerate() {
                if self.is_taken.get(position) != Some(&false)
                    || binding.reg_id != 0
                    || !binding.is_live(now)
                    || !is_same_instance(binding.text().instance, contact.instance)
                {
                    continue;
                }
                if std::mem::take(&mut is_new) {
                    if let Some(seat) = self.seats.get_mut(number) {
                        *seat = Seat::Binding(position);
                    }
                    if let Some(is_taken) = self.is_taken.get_mut(position) {
                        *is_taken = true;
                    }
                } else if let Some(is_replaced) = self.is_replaced.get_mut(position) {
                    *is_replaced = true;
                }
            }
        }
        // What a later contact has taken is not replaced by an earlier one.
        for (is_replaced, is_taken) in self.is_replaced.iter_mut().zip(&self.is_taken) {
            *is_replaced &= !is_taken;
        }
    }

    /// Finds the binding with an equal URI among those at these positions.
    fn find_by_uri(
        &mut self,
        contact: &Contact,
        bindings: &[Binding],
        positions: impl Iterator<Item = usize> + Clone,
    ) -> Option<usize> {
        let candidates = positions.filter_map(|position| {
            let binding = bindings.get(position)?;
            let has_keys = contact.reg_id != 0 && binding.reg_id != 0;
            (binding.place == contact.place && !has_keys).then_some((position, binding))
        });
        let as_text = candidates.clone().find(|(_, b)| b.uri() == contact.uri);
        if let Some((position, binding)) = as_text
            && !binding.is_replaced()
        {
            return Some(position);
        }
        let as_text = as_text.map(|(position, _)| position);
        if contact.uri.len() > COMPARED_LENGTH {
            return as_text;
        }
        candidates
            .filter(|(_, binding)| binding.uri().len() <= COMPARED_LENGTH && !binding.is_replaced())
            .take(COMPARED)
            .find(|(_, binding)| {
                self.compared += 1;
                Uri::parse(binding.uri()).is_ok_and(|uri| is_same_place(&contact.parsed, &uri))
            })
            .map(|(position, _)| position)
            .or(as_text)
    }

    /// Finds an earlier contact that says the same, if it is new.
    fn find_among(&mut self, contact: &Contact, contacts: &Contacts, number: usize) -> Seat {
        let mut compared = 0;
        let same = contacts.iter().take(number).position(|before| {
            if contact.reg_id != 0 && before.reg_id != 0 {
                return contact.reg_id == before.reg_id && is_same_instance(contact.instance, before.instance);
            }
            if contact.place != before.place {
                return false;
            }
            compared += 1;
            contact.uri == before.uri
                || (compared <= COMPARED
                    && contact.uri.len().max(before.uri.len()) <= COMPARED_LENGTH
                    && is_same_place(&contact.parsed, &before.parsed))
        });
        self.compared += compared.min(COMPARED) as u64;
        match same.and_then(|before| Some((before, *self.seats.get(before)?))) {
            None => Seat::New,
            Some((before, Seat::New)) => Seat::Like(before),
            Some((_, seat)) => seat,
        }
    }
}

/// Compares as in §19.1.4, except that the SIP and the SIPS version of a contact are one: the second replaces the first (RFC 5630
/// §5.1.1.1).
fn is_same_place(a: &Uri, b: &Uri) -> bool {
    match (a.scheme, b.scheme) {
        (Scheme::Sip, Scheme::Sips) | (Scheme::Sips, Scheme::Sip) => {
            let b = b.with_scheme(a.scheme);
            a.equals(&b)
        }
        _ => a.equals(b),
    }
}

/// Returns whether two values of `+sip.instance` name one instance: a URN in angle brackets and quotes (RFC 5626 §4.1),
/// case-insensitive.
pub fn is_same_instance(a: &[u8], b: &[u8]) -> bool {
    let (a, b) = (urn(a), urn(b));
    if a.len() != b.len() || a.is_empty() {
        return false;
    }
    // In chunks, each compared as a whole: this cuts the cost of two nearly equal values to an eighth.
    a.chunks(32).zip(b.chunks(32)).all(|(a, b)| {
        let differ = |differ: u8, (a, b): (&u8, &u8)| differ | (a.to_ascii_lowercase() ^ b.to_ascii_lowercase());
        a.iter().zip(b).fold(0, differ) == 0
    })
}

fn urn(text: &[u8]) -> &[u8] {
    let mut text = text;
    for (open, close) in [(b'"', b'"'), (b'<', b'>')] {
        text = text.trim_ascii();
        if let [first, inner @ .., last] = text
            && *first == open
            && *last == close
        {
            text = inner;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_one_however_it_is_written() {
        let one = b"\"<urn:uuid:00000000-0000-1000-8000-000A95A0E128>\"";
        for same in [
            &b"\"<urn:uuid:00000000-0000-1000-8000-000a95a0e128>\""[..],
            b"\"<URN:UUID:00000000-0000-1000-8000-000A95A0E128>\"",
            b"<urn:uuid:00000000-0000-1000-8000-000A95A0E128>",
            b"\" <urn:uuid:00000000-0000-1000-8000-000A95A0E128> \"",
            b"urn:uuid:00000000-0000-1000-8000-000A95A0E128",
        ] {
            assert!(is_same_instance(one, same));
        }
        for other in [
            &b"\"<urn:uuid:00000000-0000-1000-8000-000A95A0E129>\""[..],
            b"\"<urn:uuid:10000000-0000-1000-8000-000A95A0E128>\"",
            b"\"<urn:uuid:00000000-0000-1000-8000-000A95A0E12>\"",
            b"",
            b"\"\"",
            b"\"",
        ] {
            assert!(!is_same_instance(one, other));
            assert!(!is_same_instance(b"\"\"", other));
        }
    }
}
