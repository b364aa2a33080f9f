//! One contact of an address-of-record (RFC 3261 §10.3), in as little memory as possible: there may be a million.

use super::shared_note::{NodeNumber, SharedNote};
use crate::base::{Channel, Flow, Instant, Transport};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// One contact of an address-of-record.
#[derive(Clone)]
pub struct Binding {
    /// URI, Call-ID, Path, instance and source, concatenated: one allocation per binding.
    text: Box<[u8]>,
    /// What the other nodes know of it, if the table is shared.
    pub(super) shared: Option<Box<SharedNote>>,
    pub expires: Instant,
    pub reg_id: u32,
    pub cseq: u32,
    /// A number shared by bindings of equal URIs ([`super::Location::place`]).
    pub place: u32,
    uri_len: u16,
    call_id_len: u16,
    path_len: u16,
    /// Thousandths, 0 to 1000.
    pub q: u16,
    /// Removed; remembered until `expires` so that an older REGISTER that arrives late cannot restore it.
    pub removed: bool,
    /// How the phone is reached.
    pub reached: Reached,
    /// It names the very address that it is bound to, so nothing that is sent to it ever arrives.
    pub leads_back: bool,
    /// It was registered with a challenge sent to another address: whether the phone receives what is sent to `source` is unknown.
    pub is_unsure: bool,
}

/// How a request reaches the phone of a binding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reached {
    /// At the contact's own address.
    ByContact,
    /// Over the connection on which it registered; once that is gone, a new one can be opened to the contact.
    ByFlowFirst,
    /// Only by the flow on which it registered: it is behind a NAT.
    ByFlow,
}

/// The texts that a binding stores and a REGISTER brings.
#[derive(Clone, Copy, Debug, Default)]
pub struct BindingText<'a> {
    pub uri: &'a [u8],
    pub call_id: &'a [u8],
    /// The Path header values in order, as one comma-separated list; empty without.
    pub path: &'a [u8],
    /// `+sip.instance`, quotes kept; empty without.
    pub instance: &'a [u8],
}

impl BindingText<'_> {
    /// Returns false if a part is longer than a binding can hold (65,535 bytes each).
    pub fn fits(&self) -> bool {
        [self.uri, self.call_id, self.path].iter().all(|part| part.len() <= usize::from(u16::MAX))
    }
}

impl Binding {
    /// Creates a binding. `source`: where the REGISTER came from, a datagram's flow or a connection.
    pub fn new(text: BindingText, source: Option<&Flow>) -> Binding {
        let mut binding = Binding {
            text: Box::default(),
            shared: None,
            expires: Instant::default(),
            reg_id: 0,
            cseq: 0,
            place: 0,
            uri_len: 0,
            call_id_len: 0,
            path_len: 0,
            q: 1000,
            removed: false,
            reached: Reached::ByContact,
            leads_back: false,
            is_unsure: false,
        };
        binding.set_text(text, source);
        binding
    }

    pub fn text(&self) -> BindingText<'_> {
        let (uri, rest) = self.text.split_at(self.uri_len.into());
        let (call_id, rest) = rest.split_at(self.call_id_len.into());
        let (path, rest) = rest.split_at(self.path_len.into());
        let (instance, _) = rest.split_at(rest.len().saturating_sub(source_length(&self.text)));
        BindingText { uri, call_id, path, instance }
    }

    pub fn uri(&self) -> &[u8] {
        &self.text[..self.uri_len.into()]
    }

    /// Returns where the REGISTER came from.
    pub fn source(&self) -> Option<Flow> {
        let (_, source) = self.text.split_at(self.text.len().saturating_sub(source_length(&self.text)));
        read_source(source)
    }

    /// Replaces text and source; in place if the total length is unchanged.
    pub fn set_text(&mut self, text: BindingText, source: Option<&Flow>) {
        let mut room = [0; SOURCE_LONGEST];
        let source = match source {
            Some(flow) => {
                let len = write_source(flow, &mut room);
                &room[..len]
            }
            None => &[NOWHERE],
        };
        let parts = [text.uri, text.call_id, text.path, text.instance, source];
        let len = parts.iter().map(|part| part.len()).sum();
        if self.text.len() != len {
            self.text = vec![0; len].into();
        }
        let mut rest = &mut self.text[..];
        for part in parts {
            let (here, behind) = rest.split_at_mut(part.len());
            here.copy_from_slice(part);
            rest = behind;
        }
        self.uri_len = text.uri.len() as u16;
        self.call_id_len = text.call_id.len() as u16;
        self.path_len = text.path.len() as u16;
    }

    /// Returns its weight under `[limits] bindings`.
    pub fn weight(&self) -> usize {
        weight(self.text.len())
    }

    pub fn is_live(&self, now: Instant) -> bool {
        !self.removed && self.expires > now
    }

    /// Returns whether it must be remembered: until it has expired, or until the other nodes have forgotten it.
    pub(super) fn is_kept(&self, now: Instant) -> bool {
        self.expires > now || self.shared.as_ref().is_some_and(|note| note.lease > now)
    }

    /// Returns whether the phone's last REGISTER came to another node. The source is then where that node was sent it from, and no
    /// flow of ours.
    pub fn is_elsewhere(&self) -> bool {
        self.shared.as_ref().is_some_and(|note| note.node != NodeNumber::OWN)
    }

    /// Returns whether it was removed from a table that is shared. It is remembered for so long that its phone may have another
    /// binding for the same place by now, with another spelling.
    pub fn is_replaced(&self) -> bool {
        self.removed && self.shared.is_some()
    }

    /// Returns the node that alone can reach the phone, by a flow of its own, and the token of that flow.
    pub fn relay(&self) -> Option<(NodeNumber, &[u8])> {
        let note = self.shared.as_ref()?;
        (note.node != NodeNumber::OWN && !note.relay.is_empty()).then_some((note.node, &*note.relay))
    }

    /// Returns whether both say the same: text, source, and what stands beside it.
    pub(super) fn says_the_same(&self, other: &Binding) -> bool {
        (self.expires, self.cseq) == (other.expires, other.cseq) && self.is_refresh_of(other)
    }

    /// Returns whether both say the same but for their CSeq and when they expire.
    pub(super) fn is_refresh_of(&self, other: &Binding) -> bool {
        let lengths = |b: &Binding| (b.uri_len, b.call_id_len, b.path_len);
        let rest = |b: &Binding| (b.reg_id, b.q, b.removed, b.reached, b.leads_back, b.is_unsure);
        lengths(self) == lengths(other) && rest(self) == rest(other) && self.text == other.text
    }

    /// Returns when it expires as far as this server may say: of a binding that another node answered for, no later than its phone was
    /// granted there. It is held for longer, because its refreshes are not told.
    pub fn granted_until(&self, now: Instant) -> Instant {
        match self.shared.as_deref().filter(|_| self.is_elsewhere() && !self.removed) {
            Some(note) => self.expires.min(note.granted_until(now)),
            None => self.expires,
        }
    }

    /// Returns the whole seconds left, as they are said to phones, rounded up.
    pub fn seconds_left(&self, now: Instant) -> u64 {
        self.granted_until(now).ms_since(now).div_ceil(1000)
    }
}

/// Returns the weight of a binding with this many bytes of text: one, and one more for each [`WEIGHED`] bytes beyond the first.
pub fn weight(text: usize) -> usize {
    1 + text.saturating_sub(1) / WEIGHED
}

/// Returns the weight of an address-of-record with this many bytes, beside its bindings': nothing for one of usual length.
pub fn weight_of_address(address: usize) -> usize {
    address / WEIGHED
}

/// Bytes of text that fit, besides the rest of the binding, into the 512 bytes that `[limits] bindings` allows for it.
pub const WEIGHED: usize = 320;

// ---- a compact flow ----------------------------------------------------------------------------------------------------
//
// A flow takes 64 bytes unpacked, because it may be IPv6 and name two addresses. Nearly all take 10 here. The last byte is its kind, so
// that its length is known from the end.

/// Listener, core, an IPv6 peer with its scope, an IPv6 address of ours, kind.
const SOURCE_LONGEST: usize = 2 + 1 + (16 + 2 + 4) + 16 + 1;

const TRANSPORT: u8 = 0x03;
const IS_V6: u8 = 0x04;
const LOCAL_V4: u8 = 0x08;
const LOCAL_V6: u8 = 0x10;
const CONNECTION: u8 = 0x20;
/// The kind of no flow: of none of the transports.
const NOWHERE: u8 = 0x03;

/// The length of a source by its kind.
const SOURCE_LENGTHS: [u8; 64] = {
    let mut lengths = [1; 64];
    let mut kind = 0;
    while kind < lengths.len() {
        let bits = kind as u8;
        let peer = if bits & IS_V6 == 0 { 4 + 2 } else { 16 + 2 + 4 };
        let rest = match bits & (LOCAL_V4 | LOCAL_V6 | CONNECTION) {
            LOCAL_V4 => 4,
            LOCAL_V6 => 16,
            CONNECTION => 8,
            _ => 0,
        };
        if bits & TRANSPORT != NOWHERE {
            lengths[kind] = 2 + 1 + peer + rest + 1;
        }
        kind += 1;
    }
    lengths
};

/// Returns the number of bytes that the source takes at the end of a binding's text.
#[inline]
fn source_length(text: &[u8]) -> usize {
    let kind = text.last().map_or(NOWHERE, |kind| *kind);
    usize::from(SOURCE_LENGTHS[usize::from(kind & 63)])
}

/// Returns the number of bytes written. A flow over which we cannot receive is none.
fn write_source(flow: &Flow, out: &mut [u8; SOURCE_LONGEST]) -> usize {
    let mut len = 0;
    let mut put = |bytes: &[u8]| {
        if let Some(room) = out.get_mut(len..len + bytes.len()) {
            room.copy_from_slice(bytes);
            len += bytes.len();
        }
    };
    let family = match flow.peer {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(_) => IS_V6,
    };
    let channel = match flow.channel {
        Channel::Datagram { local: None } => 0,
        Channel::Datagram { local: Some(IpAddr::V4(_)) } => LOCAL_V4,
        Channel::Datagram { local: Some(IpAddr::V6(_)) } => LOCAL_V6,
        Channel::Connection { .. } => CONNECTION,
        Channel::Peer { .. } | Channel::Back => {
            put(&[NOWHERE]);
            return len;
        }
    };
    put(&flow.listener.to_le_bytes());
    put(&[flow.core]);
    match flow.peer {
        SocketAddr::V4(peer) => {
            put(&peer.ip().octets());
            put(&peer.port().to_le_bytes());
        }
        SocketAddr::V6(peer) => {
            put(&peer.ip().octets());
            put(&peer.port().to_le_bytes());
            put(&peer.scope_id().to_le_bytes());
        }
    }
    match flow.channel {
        Channel::Datagram { local: Some(IpAddr::V4(ip)) } => put(&ip.octets()),
        Channel::Datagram { local: Some(IpAddr::V6(ip)) } => put(&ip.octets()),
        Channel::Connection { slot, generation } => {
            put(&slot.to_le_bytes());
            put(&generation.to_le_bytes());
        }
        _ => {}
    }
    put(&[flow.transport as u8 | family | channel]);
    len
}

fn read_source(bytes: &[u8]) -> Option<Flow> {
    let (kind, mut rest) = bytes.split_last()?;
    let listener = u16::from_le_bytes(take(&mut rest)?);
    let [core] = take(&mut rest)?;
    let peer = match kind & IS_V6 {
        0 => {
            let ip = Ipv4Addr::from(take::<4>(&mut rest)?);
            SocketAddr::from((ip, u16::from_le_bytes(take(&mut rest)?)))
        }
        _ => {
            let ip = Ipv6Addr::from(take::<16>(&mut rest)?);
            let port = u16::from_le_bytes(take(&mut rest)?);
            let scope = u32::from_le_bytes(take(&mut rest)?);
            SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope))
        }
    };
    let channel = match kind & (LOCAL_V4 | LOCAL_V6 | CONNECTION) {
        LOCAL_V4 => Channel::Datagram { local: Some(Ipv4Addr::from(take::<4>(&mut rest)?).into()) },
        LOCAL_V6 => Channel::Datagram { local: Some(Ipv6Addr::from(take::<16>(&mut rest)?).into()) },
        CONNECTION => {
            Channel::Connection { slot: u32::from_le_bytes(take(&mut rest)?), generation: u32::from_le_bytes(take(&mut rest)?) }
        }
        _ => Channel::Datagram { local: None },
    };
    let all = [Transport::Udp, Transport::Tcp, Transport::Tls];
    let transport = all.into_iter().find(|t| *t as u8 == kind & TRANSPORT)?;
    Some(Flow { peer, listener, transport, core, channel })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(call_id: &'static [u8]) -> BindingText<'static> {
        BindingText { uri: b"sip:a@h", call_id, path: b"<sip:p;lr>", instance: b"\"<urn:x>\"" }
    }

    #[test]
    fn text_is_replaced_in_place_when_it_fits() {
        let mut binding = Binding::new(text(b"abc"), None);
        let address = binding.text.as_ptr();
        binding.set_text(text(b"xyz"), None);
        assert_eq!(address, binding.text.as_ptr());
        let seen = binding.text();
        assert_eq!(seen.call_id, b"xyz");
        assert_eq!(seen.path, b"<sip:p;lr>");
        assert_eq!(seen.instance, b"\"<urn:x>\"");
        binding.set_text(text(b"longer"), None);
        assert_eq!(binding.text().call_id, b"longer");
        assert_eq!(binding.uri(), b"sip:a@h");
        assert_eq!(binding.source(), None);
    }

    #[test]
    fn every_way_a_register_can_come_is_kept_whole() {
        let v4: SocketAddr = "192.0.2.7:40123".parse().unwrap();
        let v6: SocketAddr = "[2001:db8::7]:5060".parse().unwrap();
        let scoped = SocketAddr::V6(SocketAddrV6::new("fe80::1".parse().unwrap(), 5061, 0, 9));
        for peer in [v4, v6, scoped] {
            let datagram = Flow::datagram(513, peer);
            let connection = Flow {
                transport: Transport::Tls,
                core: 7,
                channel: Channel::Connection { slot: 70_000, generation: u32::MAX },
                ..datagram
            };
            let flows = [
                datagram,
                datagram.from_local(Some("198.51.100.1".parse().unwrap())),
                datagram.from_local(Some("2001:db8::1".parse().unwrap())),
                connection,
                Flow { transport: Transport::Tcp, ..connection },
            ];
            for flow in flows {
                let binding = Binding::new(text(b"abc"), Some(&flow));
                assert_eq!(binding.source(), Some(flow));
                assert_eq!(binding.text().instance, b"\"<urn:x>\"");
            }
        }
        let back = Flow { channel: Channel::Back, ..Flow::datagram(0, v4) };
        assert_eq!(Binding::new(text(b"abc"), Some(&back)).source(), None);
    }
}
