//! Which IP addresses this machine has, and which of them a wildcard listener is reached at.

use super::sys;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// The addresses of the interfaces that are up, each once.
pub fn local_addresses() -> io::Result<Vec<IpAddr>> {
    sys::local_addresses()
}

/// Returns what Via and Record-Route say if the conf does not: the listener's own address, or for a wildcard the first local one of
/// its family that a remote peer could use, otherwise loopback. The port stays.
pub fn advertised(listener: SocketAddr, local: &[IpAddr]) -> SocketAddr {
    if !listener.ip().is_unspecified() {
        return listener;
    }
    let reaches_us = |ip: &&IpAddr| match ip {
        IpAddr::V4(v4) => listener.is_ipv4() && !v4.is_loopback() && !v4.is_link_local(),
        // A link-local address means nothing without the interface, which a Via cannot name.
        IpAddr::V6(v6) => listener.is_ipv6() && !v6.is_loopback() && !v6.is_unicast_link_local(),
    };
    let loopback = match listener {
        SocketAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
        SocketAddr::V6(_) => IpAddr::from(1u128.to_be_bytes()),
    };
    let ip = local.iter().find(reaches_us).copied().unwrap_or(loopback);
    SocketAddr::new(ip, listener.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_advertised_by_an_address_that_others_reach() {
        let local: Vec<IpAddr> = ["127.0.0.1", "::1", "169.254.3.4", "fe80::1", "192.0.2.7", "2001:db8::7"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let says = |listener: &str, local: &[IpAddr]| advertised(listener.parse().unwrap(), local).to_string();
        assert_eq!(says("0.0.0.0:5060", &local), "192.0.2.7:5060");
        assert_eq!(says("[::]:5070", &local), "[2001:db8::7]:5070");
        assert_eq!(says("0.0.0.0:5060", &local[..4]), "127.0.0.1:5060");
        assert_eq!(says("[::]:5060", &local[..4]), "[::1]:5060");
        assert_eq!(says("127.0.0.1:5060", &local), "127.0.0.1:5060");
    }

    #[test]
    fn loopback_is_among_the_local_addresses() {
        let local = local_addresses().unwrap();
        assert!(local.contains(&IpAddr::from([127, 0, 0, 1])), "{local:?}");
        let mut sorted = local.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), local.len(), "each once: {local:?}");
    }
}
