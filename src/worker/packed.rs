//! Numbers, flows and texts as bytes between the two processes of a restart, which may be of different versions: the format has no
//! padding and one byte order.

use crate::base::{Channel, Flow, ProvedNames, Transport};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

/// Appends to bytes.
pub trait Pack {
    fn number(&mut self, number: u128, bytes: usize);
    /// Text with its length before it.
    fn text(&mut self, text: &[u8]);
    fn flow(&mut self, flow: &Flow);
    fn names(&mut self, names: &[Box<str>]);
}

const DATAGRAM: u128 = 0;
const LOCAL: u128 = 1;
const CONNECTION: u128 = 2;
const PEER: u128 = 3;
const BACK: u128 = 4;

impl Pack for Vec<u8> {
    fn names(&mut self, names: &[Box<str>]) {
        self.number(names.len() as u128, 4);
        names.iter().for_each(|name| self.text(name.as_bytes()));
    }

    fn number(&mut self, number: u128, bytes: usize) {
        self.extend_from_slice(&number.to_le_bytes()[..bytes]);
    }

    fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u128, 4);
        self.extend_from_slice(text);
    }

    fn flow(&mut self, flow: &Flow) {
        self.number(flow.transport as u128, 1);
        self.number(flow.core.into(), 1);
        self.number(flow.listener.into(), 2);
        pack_ip(self, flow.peer.ip());
        self.number(flow.peer.port().into(), 2);
        if let SocketAddr::V6(peer) = flow.peer {
            self.number(peer.scope_id().into(), 4);
        }
        match flow.channel {
            Channel::Datagram { local: None } => self.number(DATAGRAM, 1),
            Channel::Datagram { local: Some(ip) } => {
                self.number(LOCAL, 1);
                pack_ip(self, ip);
            }
            Channel::Connection { slot, generation } => {
                self.number(CONNECTION, 1);
                self.number(slot.into(), 4);
                self.number(generation.into(), 4);
            }
            Channel::Peer { name, call } => {
                self.number(PEER, 1);
                self.number(name.into(), 8);
                self.number(call.into(), 8);
            }
            Channel::Back => self.number(BACK, 1),
        }
    }
}

fn pack_ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
}

/// Reads what [`Pack`] has written; `None` wherever it is anything else.
pub struct Unpack<'a>(pub &'a [u8]);

impl<'a> Unpack<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn number(&mut self, bytes: usize) -> Option<u128> {
        let mut number = [0; 16];
        number.get_mut(..bytes)?.copy_from_slice(self.take(bytes)?);
        Some(u128::from_le_bytes(number))
    }

    pub fn byte(&mut self) -> Option<u8> {
        Some(self.number(1)? as u8)
    }

    pub fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.number(4)? as usize;
        self.take(length)
    }

    fn ip(&mut self) -> Option<IpAddr> {
        Some(match self.byte()? {
            4 => IpAddr::from(<[u8; 4]>::try_from(self.take(4)?).ok()?),
            6 => IpAddr::from(<[u8; 16]>::try_from(self.take(16)?).ok()?),
            _ => return None,
        })
    }

    /// Reads the names that a peer has proved, each a text, after their number.
    pub fn names(&mut self) -> Option<ProvedNames> {
        let mut names: Vec<Box<str>> = Vec::new();
        for _ in 0..self.number(4)? {
            names.push(std::str::from_utf8(self.text()?).ok()?.into());
        }
        Some(names.into())
    }

    pub fn flow(&mut self) -> Option<Flow> {
        let transports = [Transport::Udp, Transport::Tcp, Transport::Tls];
        let number = self.byte()?;
        let transport = transports.into_iter().find(|transport| *transport as u8 == number)?;
        let (core, listener) = (self.byte()?, self.number(2)? as u16);
        let (ip, port) = (self.ip()?, self.number(2)? as u16);
        let peer = match ip {
            IpAddr::V4(_) => SocketAddr::new(ip, port),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, self.number(4)? as u32).into(),
        };
        let channel = match self.number(1)? {
            DATAGRAM => Channel::Datagram { local: None },
            LOCAL => Channel::Datagram { local: Some(self.ip()?) },
            CONNECTION => Channel::Connection { slot: self.number(4)? as u32, generation: self.number(4)? as u32 },
            PEER => Channel::Peer { name: self.number(8)? as u64, call: self.number(8)? as u64 },
            BACK => Channel::Back,
            _ => return None,
        };
        Some(Flow { peer, listener, transport, core, channel })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_the_same_after_it_and_cut_short_it_is_none() {
        let v4 = Flow::datagram(65_535, "198.51.100.7:40123".parse().unwrap());
        let v6 = Flow { transport: Transport::Tls, core: 200, ..Flow::datagram(3, "[fe80::1%7]:5061".parse().unwrap()) };
        for flow in [
            v4,
            v4.from_local(Some("10.0.0.1".parse().unwrap())),
            v6.from_local(Some("2001:db8::2".parse().unwrap())),
            Flow { channel: Channel::Connection { slot: u32::MAX, generation: 0xdead_beef }, ..v6 },
            Flow { channel: Channel::Peer { name: u64::MAX, call: 1 << 63 }, transport: Transport::Tcp, ..v4 },
            Flow { channel: Channel::Back, ..v6 },
        ] {
            let mut bytes = Vec::new();
            bytes.flow(&flow);
            let mut unpack = Unpack(&bytes);
            assert_eq!(unpack.flow(), Some(flow));
            assert!(unpack.is_empty());
            for cut in 0..bytes.len() {
                assert_eq!(Unpack(&bytes[..cut]).flow(), None, "{cut}");
            }
        }
        assert_eq!(Unpack(&[9, 0, 0, 0]).flow(), None);
    }

    #[test]
    fn a_text_that_claims_more_than_there_is_is_none() {
        let mut bytes = Vec::new();
        bytes.text(b"sip");
        assert_eq!(Unpack(&bytes).text(), Some(&b"sip"[..]));
        assert_eq!(Unpack(&[255, 255, 255, 255, 1]).text(), None);
        assert_eq!(Unpack(b"").number(1), None);
    }
}
