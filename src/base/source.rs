//! Whom a limit for each source counts as one.

use std::net::IpAddr;

/// What counts as one source: a number of its own for each IPv4 address and each IPv6 network of 64 bits.
pub fn source(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => u64::from(u32::from(ip)),
        // Networks of IPv6 that begin with zeros are not in use for hosts, but for the loopback.
        IpAddr::V6(ip) => (u128::from(ip) >> 64) as u64 | 1 << 63,
    }
}
