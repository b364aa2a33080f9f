//! Numbers and byte strings one behind the other, as one process writes them for the next one of the same server; what is read is
//! checked for its length, and for nothing else.

use super::ProvedNames;
use super::flow::{Channel, Flow, Transport};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Appends.
pub trait Pack {
    fn put(&mut self, bytes: &[u8]);

    fn put_u8(&mut self, number: u8) {
        self.put(&[number]);
    }

    fn put_u16(&mut self, number: u16) {
        self.put(&number.to_le_bytes());
    }

    fn put_u32(&mut self, number: u32) {
        self.put(&number.to_le_bytes());
    }

    fn put_u64(&mut self, number: u64) {
        self.put(&number.to_le_bytes());
    }

    fn put_u128(&mut self, number: u128) {
        self.put(&number.to_le_bytes());
    }

    /// With their number before them.
    fn put_names(&mut self, names: &[Box<str>]) {
        self.put_u32(names.len() as u32);
        names.iter().for_each(|name| self.put_bytes(name.as_bytes()));
    }

    /// With their length before them.
    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_u32(bytes.len() as u32);
        self.put(bytes);
    }
}

impl Pack for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// What is left to read. `None` of each: there is not so much.
#[derive(Clone, Copy, Debug)]
pub struct Unpack<'a>(&'a [u8]);

impl<'a> Unpack<'a> {
    pub fn new(bytes: &'a [u8]) -> Unpack<'a> {
        Unpack(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    pub fn names(&mut self) -> Option<ProvedNames> {
        let mut names: Vec<Box<str>> = Vec::new();
        for _ in 0..self.u32()? {
            names.push(std::str::from_utf8(self.bytes()?).ok()?.into());
        }
        Some(names.into())
    }

    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        let (first, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(first)
    }
}

const TRANSPORTS: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];

impl Flow {
    /// Appends the flow, as this process names it.
    pub fn pack(&self, out: &mut Vec<u8>) {
        pack_address(&self.peer, out);
        out.put_u16(self.listener);
        out.put_u8(self.transport as u8);
        out.put_u8(self.core);
        match self.channel {
            Channel::Datagram { local: None } => out.put_u8(0),
            Channel::Datagram { local: Some(ip) } => {
                out.put_u8(1);
                pack_address(&SocketAddr::new(ip, 0), out);
            }
            Channel::Connection { slot, generation } => {
                out.put_u8(2);
                out.put_u32(slot);
                out.put_u32(generation);
            }
            Channel::Peer { name, call } => {
                out.put_u8(3);
                out.put_u64(name);
                out.put_u64(call);
            }
            Channel::Back => out.put_u8(4),
        }
    }

    pub fn unpack(from: &mut Unpack) -> Option<Flow> {
        let peer = unpack_address(from)?;
        let listener = from.u16()?;
        let transport = TRANSPORTS.get(usize::from(from.u8()?)).copied()?;
        let core = from.u8()?;
        let channel = match from.u8()? {
            0 => Channel::Datagram { local: None },
            1 => Channel::Datagram { local: Some(unpack_address(from)?.ip()) },
            2 => Channel::Connection { slot: from.u32()?, generation: from.u32()? },
            3 => Channel::Peer { name: from.u64()?, call: from.u64()? },
            4 => Channel::Back,
            _ => return None,
        };
        Some(Flow { peer, listener, transport, core, channel })
    }
}

fn pack_address(address: &SocketAddr, out: &mut Vec<u8>) {
    match address {
        SocketAddr::V4(v4) => {
            out.put_u8(4);
            out.put(&v4.ip().octets());
            out.put_u16(v4.port());
        }
        SocketAddr::V6(v6) => {
            out.put_u8(6);
            out.put(&v6.ip().octets());
            out.put_u16(v6.port());
            out.put_u32(v6.scope_id());
        }
    }
}

fn unpack_address(from: &mut Unpack) -> Option<SocketAddr> {
    match from.u8()? {
        4 => {
            let ip = IpAddr::V4(Ipv4Addr::from(from.array::<4>()?));
            Some(SocketAddr::new(ip, from.u16()?))
        }
        6 => {
            let ip = Ipv6Addr::from(from.array::<16>()?);
            let (port, scope) = (from.u16()?, from.u32()?);
            Some(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_that_was_cut_off() {
        let v4: SocketAddr = "192.0.2.7:40123".parse().unwrap();
        let scoped = SocketAddr::V6(SocketAddrV6::new("fe80::1".parse().unwrap(), 5061, 0, 9));
        for peer in [v4, scoped] {
            let datagram = Flow::datagram(513, peer);
            let with = |channel| Flow { transport: Transport::Tls, core: 7, channel, ..datagram };
            let flows = [
                datagram,
                datagram.from_local(Some("2001:db8::1".parse().unwrap())),
                with(Channel::Connection { slot: 70_000, generation: u32::MAX }),
                with(Channel::Peer { name: 5, call: u64::MAX }),
                with(Channel::Back),
            ];
            for flow in flows {
                let mut bytes = Vec::new();
                flow.pack(&mut bytes);
                let mut from = Unpack::new(&bytes);
                assert_eq!(Flow::unpack(&mut from), Some(flow));
                assert!(from.is_empty());
                for short in 0..bytes.len() {
                    assert_eq!(Flow::unpack(&mut Unpack::new(&bytes[..short])), None);
                }
            }
        }
        let mut bytes = Vec::new();
        bytes.put_bytes(b"four");
        assert_eq!(Unpack::new(&bytes).bytes(), Some(&b"four"[..]));
        assert_eq!(Unpack::new(&bytes[..7]).bytes(), None);
        assert_eq!(Unpack::new(&[0xff; 4]).bytes(), None);
        bytes.clear();
        bytes.put_names(&["sip:alice@example.com".into(), "example.com".into()]);
        bytes.put_u128(u128::MAX - 5);
        let mut from = Unpack::new(&bytes);
        assert_eq!(from.names().map(|names| names.len()), Some(2));
        assert_eq!(from.u128(), Some(u128::MAX - 5));
        assert!((0..bytes.len() - 16).all(|cut| Unpack::new(&bytes[..cut]).names().is_none()));
    }
}
