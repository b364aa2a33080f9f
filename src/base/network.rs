//! A network of addresses, as the conf names those of peers.

use std::fmt;
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

    /// Returns it with the bits after the prefix cleared; `None` if the prefix is too long for the family.
    pub fn masked(self) -> Option<Network> {
        let prefix = u32::from(self.prefix);
        let address = match self.address {
            IpAddr::V4(v4) => {
                let host = u32::MAX.checked_shr(prefix).unwrap_or(0);
                IpAddr::V4((v4.to_bits() & !host).into())
            }
            IpAddr::V6(v6) => {
                let host = u128::MAX.checked_shr(prefix).unwrap_or(0);
                IpAddr::V6((v6.to_bits() & !host).into())
            }
        };
        let width = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= width).then_some(Network { address, ..self })
    }

    /// True if `ip` is in the network; an IPv4-mapped IPv6 address counts as its IPv4 address.
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

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str, prefix: u8) -> Network {
        Network::new(address.parse().unwrap(), prefix)
    }

    #[test]
    fn networks_hold_their_own_and_nothing_else() {
        let small = network("192.0.2.128", 25);
        assert!(small.contains("192.0.2.255".parse().unwrap()));
        assert!(!small.contains("192.0.2.127".parse().unwrap()));
        assert!(small.contains("::ffff:192.0.2.200".parse().unwrap()));
        assert!(!small.contains("2001:db8::1".parse().unwrap()));

        let all = network("0.0.0.0", 0);
        assert!(all.contains("255.255.255.255".parse().unwrap()));
        assert!(!all.contains("::1".parse().unwrap()));

        let one = network("2001:db8::5", 128);
        assert!(one.contains("2001:db8::5".parse().unwrap()));
        assert!(!one.contains("2001:db8::4".parse().unwrap()));
        assert!(network("::", 0).contains("2001:db8::4".parse().unwrap()));
        assert!(!network("::", 0).contains("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn bits_after_the_prefix_are_cleared() {
        for (address, prefix, masked) in [
            ("192.0.2.129", 24, "192.0.2.0/24"),
            ("192.0.2.129", 32, "192.0.2.129/32"),
            ("192.0.2.129", 0, "0.0.0.0/0"),
            ("2001:db8::1", 32, "2001:db8::/32"),
            ("2001:db8::1", 128, "2001:db8::1/128"),
            ("2001:db8::1", 0, "::/0"),
        ] {
            let network = network(address, prefix).masked().unwrap();
            assert_eq!(network.to_string(), masked);
        }
        assert_eq!(network("192.0.2.0", 33).masked(), None);
        assert_eq!(network("2001:db8::", 129).masked(), None);
    }
}
