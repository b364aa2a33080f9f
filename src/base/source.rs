//! What a per-source limit counts as one source.

use std::net::IpAddr;

/// Returns a distinct number for each IPv4 address and each IPv6 /64 network.
pub fn source(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => u64::from(u32::from(ip)),
        // IPv6 networks that begin with zeros are not used for hosts, except loopback.
        IpAddr::V6(ip) => (u128::from(ip) >> 64) as u64 | 1 << 63,
    }
}
