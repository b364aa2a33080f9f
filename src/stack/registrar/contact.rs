//! Contact values of a REGISTER (RFC 3261 §10.3 steps 6 and 7; RFC 5626 for instance and reg-id).

use crate::base::Transport;
use crate::sip::{Message, Name, NameAddr, Scheme, Uri};
use crate::stack::location::{Binding, BindingText, Reached};
use crate::stack::proxy::{Extra, Incoming, Refusal};
use crate::stack::settings::Registrar;
use std::net::SocketAddr;

/// What a REGISTER asks for. It lives for one request; a box would be an allocation.
#[allow(clippy::large_enum_variant)]
pub enum Plan<'a> {
    /// No Contact: what is there?
    Query,
    /// `Contact: *` with `Expires: 0`.
    RemoveAll,
    Contacts(Contacts<'a>),
}

/// The Contact values of a request that [`plan`] has passed.
pub struct Contacts<'a> {
    message: Message<'a>,
    limits: &'a Registrar,
    default_expires: Option<u32>,
    /// Nearly always there is one, and it has been read.
    only: Option<Contact<'a>>,
}

impl<'a> Contacts<'a> {
    pub fn iter(&self) -> impl Iterator<Item = Contact<'a>> {
        let read_again = match self.only {
            Some(_) => None,
            None => Some(self.message.values(Name::Contact)),
        };
        let (default_expires, limits) = (self.default_expires, self.limits);
        let others = read_again.into_iter().flatten().filter_map(move |value| {
            let address = NameAddr::parse(value.text).ok()?;
            let uri = Uri::parse(address.uri).ok()?;
            Some(Contact::new(address, uri, default_expires, limits))
        });
        self.only.into_iter().chain(others)
    }
}

/// One Contact value, checked.
#[derive(Clone, Copy)]
pub struct Contact<'a> {
    uri: &'a [u8],
    parsed: Uri<'a>,
    instance: &'a [u8],
    pub reg_id: u32,
    pub q: u16,
    /// 0 removes.
    pub expires_s: u32,
}

/// Checks every Contact value of the request.
pub fn plan<'a>(message: &Message<'a>, limits: &'a Registrar) -> Result<Plan<'a>, Refusal> {
    let bad = |fault: crate::sip::Fault| Refusal::new(400, fault.reason());
    let default_expires = expires_header(message);
    let (mut count, mut star, mut only) = (0usize, false, None);
    for value in message.values(Name::Contact) {
        count += 1;
        if value.text == b"*" {
            star = true;
            continue;
        }
        let address = NameAddr::parse(value.text).map_err(bad)?;
        let uri = Uri::parse(address.uri).map_err(bad)?;
        if uri.headers.is_some() && !address.bracketed {
            return Err(Refusal::new(400, "Malformed Contact"));
        }
        address.q().map_err(bad)?;
        let asked = asked_expires(&address, default_expires);
        let asked = asked.unwrap_or(limits.default_expires_s);
        // Only an interval that is shorter than the minimum, and shorter than an hour, is too brief (§10.3 step 7).
        if asked > 0 && asked < limits.min_expires_s && asked < 3600 {
            return Err(Refusal::new(423, "").with(Extra::MinExpires(limits.min_expires_s)));
        }
        let contact = Contact::new(address, uri, default_expires, limits);
        if !contact.text(b"", b"").fits() {
            return Err(Refusal::new(513, "Contact Too Long"));
        }
        only = Some(contact);
    }
    match (count, star) {
        (0, _) => Ok(Plan::Query),
        (1, true) if default_expires == Some(0) => Ok(Plan::RemoveAll),
        (_, true) => Err(Refusal::new(400, "Contact * Needs Expires 0 And No Other")),
        _ => Ok(Plan::Contacts(Contacts {
            message: *message,
            limits,
            default_expires,
            only: only.filter(|_| count == 1),
        })),
    }
}

/// §19.1.4, but that the SIP and the SIPS version of a contact are one: the second replaces the first (RFC 5630 §5.1.1.1).
fn is_same_place(a: &Uri, b: &Uri) -> bool {
    match (a.scheme, b.scheme) {
        (Scheme::Sip, Scheme::Sips) | (Scheme::Sips, Scheme::Sip) => {
            let b = Uri {
                scheme: a.scheme,
                ..*b
            };
            a.equals(&b)
        }
        _ => a.equals(b),
    }
}

/// What a malformed interval counts as (§10.2, §20.19).
const MALFORMED_EXPIRES_S: u32 = 3600;

fn expires_header(message: &Message) -> Option<u32> {
    message
        .number(Name::Expires)
        .unwrap_or(Some(MALFORMED_EXPIRES_S))
}

fn asked_expires(address: &NameAddr, default: Option<u32>) -> Option<u32> {
    address
        .expires()
        .unwrap_or(Some(MALFORMED_EXPIRES_S))
        .or(default)
}

impl<'a> Contact<'a> {
    fn new(
        address: NameAddr<'a>,
        parsed: Uri<'a>,
        default_expires: Option<u32>,
        limits: &Registrar,
    ) -> Contact<'a> {
        let param = |name: &[u8]| address.params.get(name).flatten();
        let reg_id = param(b"reg-id")
            .and_then(|text| std::str::from_utf8(text).ok()?.parse().ok())
            .unwrap_or(0);
        let asked = asked_expires(&address, default_expires);
        Contact {
            uri: address.uri,
            parsed,
            instance: param(b"+sip.instance").unwrap_or_default(),
            reg_id,
            q: address.q().ok().flatten().unwrap_or(1000),
            expires_s: asked
                .unwrap_or(limits.default_expires_s)
                .min(limits.max_expires_s),
        }
    }

    pub fn text<'b>(&self, call_id: &'b [u8], path: &'b [u8]) -> BindingText<'b>
    where
        'a: 'b,
    {
        BindingText {
            uri: self.uri,
            call_id,
            path,
            instance: self.instance,
        }
    }

    /// True when this value speaks of that binding: the same instance and reg-id (RFC 5626 §6), or an equal URI (§19.1.4).
    pub fn is_for(&self, binding: &Binding) -> bool {
        let text = binding.text();
        if self.reg_id != 0 && binding.reg_id != 0 && !self.instance.is_empty() {
            return self.reg_id == binding.reg_id && self.instance == text.instance;
        }
        self.uri == text.uri
            || Uri::parse(text.uri).is_ok_and(|uri| is_same_place(&self.parsed, &uri))
    }

    /// True when two values speak of the same binding.
    pub fn is_same(&self, other: &Contact) -> bool {
        if self.reg_id != 0 && other.reg_id != 0 && !self.instance.is_empty() {
            return self.reg_id == other.reg_id && self.instance == other.instance;
        }
        is_same_place(&self.parsed, &other.parsed)
    }

    pub fn is_sips(&self) -> bool {
        self.parsed.scheme == Scheme::Sips
    }

    /// Which way leads to this contact. `direct`: the REGISTER has come from the phone itself, through no proxy.
    pub fn reached(&self, incoming: &Incoming, direct: bool) -> Reached {
        match incoming.flow.transport {
            Transport::Udp if self.is_behind_nat(incoming) => Reached::ByFlow,
            Transport::Udp => Reached::ByContact,
            // Who registers another machine's contact does not speak for it.
            Transport::Tcp | Transport::Tls if !direct || self.is_elsewhere(incoming) => {
                Reached::ByContact
            }
            Transport::Tcp | Transport::Tls => {
                match self.parsed.host.ip() == Some(incoming.flow.peer.ip()) {
                    true => Reached::ByFlowFirst,
                    false => Reached::ByFlow,
                }
            }
        }
    }

    /// True when the contact is an address that is neither the sender's nor what the sender takes for its own.
    fn is_elsewhere(&self, incoming: &Incoming) -> bool {
        self.parsed
            .host
            .ip()
            .is_some_and(|ip| ip != incoming.flow.peer.ip() && Some(ip) != incoming.via.host.ip())
    }

    /// True when the contact can only be reached by the way the REGISTER came: the client asks for symmetric answers
    /// (`rport`), names in its contact the host of its Via, and the request came from elsewhere.
    fn is_behind_nat(&self, incoming: &Incoming) -> bool {
        let via = &incoming.via;
        if via.rport().is_none() {
            return false;
        }
        let port = self.parsed.port.unwrap_or(5060);
        let Some(ip) = self.parsed.host.ip() else {
            return true;
        };
        SocketAddr::new(ip, port) != incoming.flow.peer
            && self.parsed.host_text == via.host_text
            && port == via.port.unwrap_or(5060)
    }
}
