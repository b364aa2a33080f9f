//! A network of addresses, as the conf names those of peers.

use std::net::IpAddr;

/// A network in CIDR form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    pub address: IpAddr,
    pub prefix: u8,
}

impl Network {
    pub fn new(address: IpAddr, prefix: u8) -> Network {
        Network { address, prefix }
    }

    /// True when `ip` lies in the network; an IPv4-mapped IPv6 address counts as its IPv4 address.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let bits = |ip: IpAddr| match ip.to_canonical() {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32u8),
            IpAddr::V6(v6) => (u128::from(v6), 128),
        };
        let ((network, width), (address, other)) = (bits(self.address), bits(ip));
        if width != other {
            return false;
        }
        let prefix = u32::from(self.prefix.min(width));
        prefix == 0 || (network ^ address) >> (128 - prefix) == 0
    }
}
