//! Contact values of a REGISTER (RFC 3261 §10.3 steps 6 and 7; RFC 5626 for instance and reg-id).

use super::sound::is_printable;
use crate::base::Transport;
use crate::settings::Registrar;
use crate::sip::{Message, Name, NameAddr, Scheme, Uri};
use crate::stack::counters::Limit;
use crate::stack::location::{BindingText, Location, Reached};
use crate::stack::refusal::{Extra, Refusal};
use crate::stack::request::Request;
use std::net::SocketAddr;

/// What a REGISTER asks for. It lives for one request; a box would be an allocation.
#[allow(clippy::large_enum_variant)]
pub enum Plan<'a> {
    /// No Contact: a query.
    Query,
    /// `Contact: *` with `Expires: 0`.
    RemoveAll,
    Contacts(Contacts<'a>),
}

/// The Contact values of a request that [`plan`] accepted, at most `max_contacts`.
pub struct Contacts<'a> {
    /// There is almost always just one.
    first: Contact<'a>,
    others: Vec<Contact<'a>>,
    /// Bytes of all values.
    pub length: usize,
}

impl<'a> Contacts<'a> {
    pub fn iter(&self) -> impl Iterator<Item = &Contact<'a>> {
        std::iter::once(&self.first).chain(&self.others)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Contact<'a>> {
        std::iter::once(&mut self.first).chain(&mut self.others)
    }

    pub fn len(&self) -> usize {
        1 + self.others.len()
    }
}

/// One Contact value, checked.
#[derive(Clone, Copy)]
pub struct Contact<'a> {
    pub uri: &'a [u8],
    pub parsed: Uri<'a>,
    /// A number shared by contacts of equal URIs.
    pub place: u32,
    pub instance: &'a [u8],
    /// 0 without, and if there is no instance (RFC 5626 §6).
    pub reg_id: u32,
    pub q: u16,
    /// 0 removes.
    pub expires_s: u32,
    /// The value as written in the message.
    pub value: &'a [u8],
    /// It names the address-of-record that it is registered for.
    pub leads_back: bool,
    /// Its address is one where a phone that registers from here may not be ([`crate::stack::Settings::may_lie_at`]).
    pub is_misplaced: bool,
}

/// Checks every Contact value of the request. Those beyond `max_contacts` are not parsed, nor is one that is too long. `scratch` is
/// a temporary buffer.
pub fn plan<'a>(
    message: &Message<'a>,
    location: &Location,
    (limits, longest): (&Registrar, usize),
    scratch: &mut Vec<u8>,
) -> Result<Plan<'a>, Refusal> {
    let bad = |fault: crate::sip::Fault| Refusal::new(400, fault.reason());
    let default_expires = expires_header(message);
    let (mut count, mut length) = (0usize, 0);
    let (mut star, mut first, mut others) = (false, None, Vec::new());
    for value in message.values(Name::Contact) {
        count += 1;
        length += value.text.len();
        if count > limits.max_contacts {
            return Err(Refusal::new(403, "Too Many Contacts").because_of(Limit::Contacts));
        }
        if value.text.len() > longest {
            return Err(too_long("Contact Too Long"));
        }
        if value.text == b"*" {
            star = true;
            continue;
        }
        let address = NameAddr::parse(value.text).map_err(bad)?;
        let uri = Uri::parse(address.uri).map_err(bad)?;
        if uri.headers.is_some() && !address.bracketed {
            return Err(Refusal::new(400, "Malformed Contact"));
        }
        let q = address.q().map_err(bad)?;
        let asked = asked_expires(&address, default_expires);
        let asked = asked.unwrap_or(limits.default_expires);
        // Only an interval shorter than the minimum and shorter than an hour is too brief (§10.3 step 7).
        if asked > 0 && asked < limits.min_expires && asked < 3600 {
            return Err(Refusal::new(423, "").with(Extra::MinExpires(limits.min_expires)));
        }
        let contact = Contact {
            place: location.place(&uri, scratch),
            value: value.text,
            q: q.unwrap_or(1000),
            ..Contact::new(address, uri, asked.min(limits.max_expires))
        };
        // It is copied into answers unchanged, so a folded quoted string is not accepted.
        if !contact.instance.iter().all(is_printable) {
            return Err(Refusal::new(400, "Malformed Contact"));
        }
        match first {
            None => first = Some(contact),
            Some(_) => others.push(contact),
        }
    }
    match (first, star) {
        (None, false) => Ok(Plan::Query),
        (None, true) if count == 1 && default_expires == Some(0) => Ok(Plan::RemoveAll),
        (_, true) => Err(Refusal::new(400, "Contact * Needs Expires 0 And No Other")),
        (Some(first), false) => Ok(Plan::Contacts(Contacts { first, others, length })),
    }
}

/// Refusal of what is longer than `[limits] contact_size`.
pub fn too_long(what: &'static str) -> Refusal {
    Refusal::new(400, what).because_of(Limit::ContactSize)
}

/// What a malformed interval counts as (§10.2, §20.19).
const MALFORMED_EXPIRES_S: u32 = 3600;

pub fn expires_header(message: &Message) -> Option<u32> {
    message.number(Name::Expires).unwrap_or(Some(MALFORMED_EXPIRES_S))
}

fn asked_expires(address: &NameAddr, default: Option<u32>) -> Option<u32> {
    address.expires().unwrap_or(Some(MALFORMED_EXPIRES_S)).or(default)
}

impl<'a> Contact<'a> {
    fn new(address: NameAddr<'a>, parsed: Uri<'a>, expires_s: u32) -> Contact<'a> {
        let param = |name: &[u8]| address.params.get(name).flatten();
        let instance = param(b"+sip.instance").unwrap_or_default();
        let reg_id = || std::str::from_utf8(param(b"reg-id")?).ok()?.parse().ok();
        Contact {
            uri: address.uri,
            parsed,
            place: 0,
            instance,
            reg_id: match instance.is_empty() {
                true => 0,
                false => reg_id().unwrap_or(0),
            },
            q: 1000,
            expires_s,
            value: b"",
            leads_back: false,
            is_misplaced: false,
        }
    }

    pub fn text<'b>(&self, call_id: &'b [u8], path: &'b [u8]) -> BindingText<'b>
    where
        'a: 'b,
    {
        BindingText { uri: self.uri, call_id, path, instance: self.instance }
    }

    pub fn is_sips(&self) -> bool {
        self.parsed.scheme == Scheme::Sips
    }

    /// Returns how this contact is reached. `direct`: the REGISTER came from the phone itself, through no proxy.
    pub fn reached(&self, request: &Request, direct: bool) -> Reached {
        match request.flow.transport {
            // The phone is called where it is, whatever it says.
            _ if direct && self.is_misplaced => Reached::ByFlow,
            Transport::Udp if self.is_behind_nat(request) => Reached::ByFlow,
            Transport::Udp => Reached::ByContact,
            // A client that registers another machine's contact does not speak for it.
            Transport::Tcp | Transport::Tls if !direct || self.is_elsewhere(request) => Reached::ByContact,
            Transport::Tcp | Transport::Tls => match self.parsed.host.ip() == Some(request.flow.peer.ip()) {
                true => Reached::ByFlowFirst,
                false => Reached::ByFlow,
            },
        }
    }

    /// Returns whether the contact is an address that is neither the sender's nor what the sender takes for its own.
    fn is_elsewhere(&self, request: &Request) -> bool {
        self.parsed.host.ip().is_some_and(|ip| ip != request.flow.peer.ip() && Some(ip) != request.via.host.ip())
    }

    /// Returns whether the contact can only be reached by the flow that the REGISTER arrived on: the client asks for symmetric
    /// answers (`rport`), its contact has the host of its Via, and the request came from elsewhere.
    fn is_behind_nat(&self, request: &Request) -> bool {
        let via = &request.via;
        if via.rport().is_none() {
            return false;
        }
        let port = self.parsed.port.unwrap_or(5060);
        let Some(ip) = self.parsed.host.ip() else {
            return true;
        };
        SocketAddr::new(ip, port) != request.flow.peer && self.parsed.host_text == via.host_text && port == via.port.unwrap_or(5060)
    }
}
