//! Who lives where: servers, phones, places where nobody is, and strangers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Addresses at which nobody ever asked for anything: no server may send there.
pub fn is_stranger(address: SocketAddr) -> bool {
    match address.ip() {
        IpAddr::V4(ip) => ip.octets()[..3] == [203, 0, 113],
        IpAddr::V6(ip) => ip.segments()[2] == 0xdead,
    }
}

pub fn stranger(v6: bool, n: u64) -> SocketAddr {
    if v6 {
        let ip = Ipv6Addr::new(0x2001, 0xdb8, 0xdead, 0, 0, 0, 0, n as u16 + 1);
        SocketAddr::new(ip.into(), 5060)
    } else {
        let ip = Ipv4Addr::new(203, 0, 113, n as u8 | 1);
        SocketAddr::new(ip.into(), 5060)
    }
}

/// An address that registers and calls like any other, but where no port is open.
pub fn dead(v6: bool) -> SocketAddr {
    phone_address(v6, 240)
}

/// Another such, to which names lead.
pub fn nobody(v6: bool) -> SocketAddr {
    phone_address(v6, 241)
}

pub fn server_address(v6: bool, n: usize) -> SocketAddr {
    let ip: IpAddr = if v6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n as u16 + 1).into()
    } else {
        Ipv4Addr::new(192, 0, 2, n as u8 + 1).into()
    };
    SocketAddr::new(ip, 5060)
}

pub fn phone_address(v6: bool, n: usize) -> SocketAddr {
    let ip: IpAddr = if v6 {
        Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, n as u16 + 10).into()
    } else {
        Ipv4Addr::new(198, 51, 100, n as u8 + 10).into()
    };
    SocketAddr::new(ip, 5060)
}
