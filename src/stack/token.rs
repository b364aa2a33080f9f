//! The flow token of our Record-Route (RFC 5626 §5.2, §5.3): the flow to the side of a dialog that cannot be reached by an address
//! of its own. It is read only if the cookie's check covers it ([`crate::stack::identity`]).
//!
//! The slot and generation of a connection are written masked by a number of this run: read by another server with the same
//! secret, or after a restart, they name no connection there, except by a chance of one in 2^64 for each that is open. That server
//! then sees a dialog whose connection is gone.

use crate::base::hash::{read_hex, write_hex_digits};
use crate::base::{Channel, Flow, Transport};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The side that a part of a token leads to; a letter that is not a hexadecimal digit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Side {
    /// The sender of the request that we recorded.
    Caller = b'o',
    /// Its receiver.
    Callee = b't',
}

impl Side {
    pub fn other(self) -> Side {
        match self {
            Side::Caller => Side::Callee,
            Side::Callee => Side::Caller,
        }
    }
}

/// Marks a call that has its connections to itself.
const PER_CALL: u8 = b'p';

/// Marks that a next hop for our users only is at one of the dialog's ends.
const GUARDED: u8 = b'g';

/// Marks that one of the dialog's ends was on this machine when it began.
const HERE: u8 = b'h';

/// Precedes the mark of the trunk by which the callee is reached.
const TRUNK: u8 = b'k';

/// Precedes the hash of the name that the callee proves over TLS.
const NAME: u8 = b'n';

const V6: u64 = 1;
const LOCAL: u64 = 2;
const TCP: u64 = 4;
const TLS: u64 = 8;

/// Appends the flow to one side. Appends nothing for a flow without a name of its own: it is found again by address. `mask` is the
/// run's ([`crate::stack::cookie::Cookies::mask`]).
pub fn write(side: Side, flow: &Flow, mask: u64, out: &mut Vec<u8>) {
    let transport = match flow.transport {
        Transport::Udp => 0,
        Transport::Tcp => TCP,
        Transport::Tls => TLS,
    };
    let family = if flow.peer.is_ipv6() { V6 } else { 0 };
    let (place, local) = match flow.channel {
        Channel::Connection { slot, generation } => (Some((slot, generation)), None),
        Channel::Datagram { local } => (None, local.filter(|ip| ip.is_ipv6() == flow.peer.is_ipv6())),
        Channel::Peer { .. } | Channel::Back => return,
    };
    if place.is_some() != flow.transport.is_reliable() {
        return;
    }
    let kind = transport | family | if local.is_some() { LOCAL } else { 0 };
    out.push(side as u8);
    write_hex_digits(kind, 1, out);
    write_hex_digits(u64::from(flow.listener), 4, out);
    write_ip(flow.peer.ip(), out);
    write_hex_digits(u64::from(flow.peer.port()), 4, out);
    if let Some(local) = local {
        write_ip(local, out);
    }
    if let Some((slot, generation)) = place {
        write_hex_digits(u64::from(flow.core), 2, out);
        let place = u64::from(slot) << 32 | u64::from(generation);
        write_hex_digits(place ^ mask, 16, out);
    }
}

pub fn write_per_call(out: &mut Vec<u8>) {
    out.push(PER_CALL);
}

pub fn is_per_call(token: &[u8]) -> bool {
    token.contains(&PER_CALL)
}

pub fn write_guarded(out: &mut Vec<u8>) {
    out.push(GUARDED);
}

pub fn is_guarded(token: &[u8]) -> bool {
    token.contains(&GUARDED)
}

pub fn write_here(out: &mut Vec<u8>) {
    out.push(HERE);
}

pub fn is_here(token: &[u8]) -> bool {
    token.contains(&HERE)
}

/// Appends the name of the callee's next hop ([`crate::stack::peer_flows::PeerFlows::name`]) if its address alone does not identify
/// it.
pub fn write_name(name: u64, out: &mut Vec<u8>) {
    out.push(NAME);
    write_hex_digits(name, 16, out);
}

pub fn read_name(token: &[u8]) -> Option<u64> {
    let start = token.iter().position(|byte| *byte == NAME)? + 1;
    Digits(token.get(start..)?).number(16)
}

/// The trunk by which the callee was called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TrunkUsed {
    /// [`crate::stack::trunk::Trunk::mark`] of the one whose password answers the challenges of its carrier.
    pub mark: u32,
    /// What shows the address where the carrier was ([`crate::stack::cookie::Cookies::door`]).
    pub door: u32,
}

/// Appends the trunk whose password answers the callee's challenges.
pub fn write_trunk(used: TrunkUsed, out: &mut Vec<u8>) {
    out.push(TRUNK);
    write_hex_digits(u64::from(used.mark), 8, out);
    write_hex_digits(u64::from(used.door), 8, out);
}

pub fn read_trunk(token: &[u8]) -> Option<TrunkUsed> {
    let start = token.iter().position(|byte| *byte == TRUNK)? + 1;
    let mut digits = Digits(token.get(start..)?);
    Some(TrunkUsed { mark: digits.number(8)? as u32, door: digits.number(8)? as u32 })
}

/// Returns the flow to one side; `None` if the token has none. `mask` is the run's.
pub fn read(side: Side, token: &[u8], mask: u64) -> Option<Flow> {
    let start = token.iter().position(|byte| *byte == side as u8)? + 1;
    let mut rest = Digits(token.get(start..)?);
    let kind = rest.number(1)?;
    let transport = match kind & (TCP | TLS) {
        0 => Transport::Udp,
        TCP => Transport::Tcp,
        TLS => Transport::Tls,
        _ => return None,
    };
    let six = kind & V6 != 0;
    let listener = rest.number(4)? as u16;
    let ip = rest.ip(six)?;
    let port = rest.number(4)? as u16;
    let local = match kind & LOCAL {
        0 => None,
        _ => Some(rest.ip(six)?),
    };
    let (core, channel) = match transport {
        Transport::Udp => (0, Channel::Datagram { local }),
        _ => {
            let core = rest.number(2)? as u8;
            let place = rest.number(16)? ^ mask;
            (core, Channel::Connection { slot: (place >> 32) as u32, generation: place as u32 })
        }
    };
    (port != 0).then_some(Flow { peer: SocketAddr::new(ip, port), listener, transport, core, channel })
}

fn write_ip(ip: IpAddr, out: &mut Vec<u8>) {
    match ip {
        IpAddr::V4(ip) => write_hex_digits(u64::from(u32::from(ip)), 8, out),
        IpAddr::V6(ip) => {
            let bits = u128::from(ip);
            write_hex_digits((bits >> 64) as u64, 16, out);
            write_hex_digits(bits as u64, 16, out);
        }
    }
}

struct Digits<'a>(&'a [u8]);

impl Digits<'_> {
    fn number(&mut self, digits: usize) -> Option<u64> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        read_hex(number)
    }

    fn ip(&mut self, six: bool) -> Option<IpAddr> {
        if !six {
            return Some(Ipv4Addr::from(self.number(8)? as u32).into());
        }
        let (high, low) = (self.number(16)?, self.number(16)?);
        Some(Ipv6Addr::from(u128::from(high) << 64 | u128::from(low)).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: u64 = 0x0123_4567_89ab_cdef;

    #[test]
    fn what_was_written_is_read_again_and_each_side_finds_its_own() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let datagram = Flow::datagram(3, address("198.51.100.7:40123"));
        let connection = Flow {
            transport: Transport::Tls,
            core: 7,
            channel: Channel::Connection { slot: 0xdead_beef, generation: u32::MAX },
            ..Flow::datagram(1, address("[2001:db8::a]:65535"))
        };
        let flows = [
            datagram,
            datagram.from_local(Some("10.0.0.1".parse().unwrap())),
            Flow::datagram(0, address("[2001:db8::1]:1")).from_local(Some("2001:db8::2".parse().unwrap())),
            connection,
            Flow { transport: Transport::Tcp, ..connection },
        ];
        for caller in &flows {
            for callee in &flows {
                let mut token = Vec::new();
                write(Side::Caller, caller, MASK, &mut token);
                assert_eq!(read(Side::Callee, &token, MASK), None);
                write(Side::Callee, callee, MASK, &mut token);
                assert!(!is_per_call(&token));
                assert_eq!(read_name(&token), None);
                write_name(0x0123_4567_89ab_cdef, &mut token);
                assert_eq!(read_name(&token), Some(0x0123_4567_89ab_cdef));
                assert_eq!(read_trunk(&token), None);
                let used = TrunkUsed { mark: 0x00fe_dcba, door: 7 };
                write_trunk(used, &mut token);
                assert_eq!(read_trunk(&token), Some(used));
                write_per_call(&mut token);
                assert_eq!(read(Side::Caller, &token, MASK), Some(*caller));
                assert_eq!(read(Side::Callee, &token, MASK), Some(*callee));
                assert!(is_per_call(&token));
                assert!(token.iter().all(u8::is_ascii_alphanumeric));
            }
        }
    }

    #[test]
    fn another_run_reads_another_connection_and_the_same_datagrams() {
        let connection = Flow {
            transport: Transport::Tcp,
            core: 1,
            channel: Channel::Connection { slot: 3, generation: 77 },
            ..Flow::datagram(0, "10.0.0.1:5060".parse().unwrap())
        };
        let mut token = Vec::new();
        write(Side::Caller, &connection, MASK, &mut token);
        let Some(Flow { channel: Channel::Connection { slot, generation }, peer, .. }) = read(Side::Caller, &token, !MASK) else {
            panic!("no connection");
        };
        assert_eq!((slot, generation, peer), (!3, !77, connection.peer));
        let datagram = Flow::datagram(2, "10.0.0.1:5060".parse().unwrap());
        token.clear();
        write(Side::Callee, &datagram, MASK, &mut token);
        assert_eq!(read(Side::Callee, &token, !MASK), Some(datagram));
    }

    #[test]
    fn what_is_cut_is_no_flow() {
        let mut token = Vec::new();
        let flow = Flow {
            transport: Transport::Tcp,
            channel: Channel::Connection { slot: 1, generation: 2 },
            ..Flow::datagram(0, "10.0.0.1:5060".parse().unwrap())
        };
        write(Side::Caller, &flow, MASK, &mut token);
        for cut in 0..token.len() {
            assert_eq!(read(Side::Caller, &token[..cut], MASK), None);
        }
        assert_eq!(read(Side::Caller, b"oz", MASK), None);
        assert_eq!(read(Side::Caller, b"oc0000", MASK), None);
    }

    #[test]
    fn a_way_that_is_only_an_address_writes_nothing() {
        let mut token = Vec::new();
        let peer = "10.0.0.1:5060".parse().unwrap();
        let flow = Flow::towards(Transport::Tcp, 0, 0, peer, 0, 0);
        write(Side::Callee, &flow, MASK, &mut token);
        assert!(token.is_empty());
    }
}
