//! Places that have proved to hear us: something arrived from there that only a recipient of what we send there can know. A
//! datagram's source can be forged, so what is sent to a place that has proved nothing is kept small.
//!
//! One fixed-size table for all cores; a place is forgotten after an hour, or when others need its entry.

use super::{Instant, Key, Marks};
use std::net::{IpAddr, SocketAddr};

/// Four times as many places are remembered.
const SETS: usize = 1 << 15;

/// How long a proof holds, seconds.
const HOLDS_S: u64 = 3600;

/// See the module documentation.
#[derive(Debug)]
pub struct Proved {
    key: Key,
    marks: Marks,
}

impl Proved {
    pub fn new(key: Key) -> Proved {
        Proved { key: key.derive("proved places"), marks: Marks::new(SETS, HOLDS_S) }
    }

    /// Notes that `peer` has answered something that was sent to it.
    pub fn note(&self, now: Instant, peer: SocketAddr) {
        if self.marks.mark(now, self.name(peer.ip(), peer.port())) {
            self.marks.mark(now, self.name(peer.ip(), 0));
        }
    }

    /// True if exactly this place has proved to hear us in the last hour.
    pub fn knows(&self, now: Instant, peer: SocketAddr) -> bool {
        self.marks.holds(now, self.name(peer.ip(), peer.port()))
    }

    /// True if any place at this address has.
    pub fn knows_address(&self, now: Instant, ip: IpAddr) -> bool {
        self.marks.holds(now, self.name(ip, 0))
    }

    /// Port 0 stands for the address: nothing is sent from port 0.
    fn name(&self, ip: IpAddr, port: u16) -> u64 {
        let (high, low) = words(ip);
        self.key.hash_numbers(high, low, u64::from(port))
    }
}

/// Returns an address as two numbers; IPv4-mapped IPv6 is the same as IPv4.
pub fn words(ip: IpAddr) -> (u64, u64) {
    match ip.to_canonical() {
        IpAddr::V4(ip) => (0, u64::from(u32::from(ip))),
        IpAddr::V6(ip) => ((u128::from(ip) >> 64) as u64, u128::from(ip) as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn at(s: u64) -> Instant {
        Instant::from_ms(s * 1000)
    }

    #[test]
    fn a_place_is_known_for_an_hour_after_its_last_proof() {
        let proved = Proved::new(Key::new(1, 2));
        let (here, other) = (peer("192.0.2.1:5060"), peer("192.0.2.1:5061"));
        assert!(!proved.knows(at(0), here) && !proved.knows_address(at(0), here.ip()));
        proved.note(at(0), here);
        assert!(proved.knows(at(0), here) && proved.knows_address(at(0), here.ip()));
        assert!(!proved.knows(at(0), other), "another port is another place");
        assert!(!proved.knows_address(at(0), peer("192.0.2.2:5060").ip()));
        assert!(proved.knows(at(3599), here));
        assert!(!proved.knows(at(3600), here) && !proved.knows_address(at(3600), here.ip()));
        for s in (0..20_000).step_by(30) {
            proved.note(at(s), here);
        }
        assert!(proved.knows(at(20_000 + 3500), here));
        assert!(proved.knows_address(at(20_000 + 3500), here.ip()));
    }

    #[test]
    fn one_family_in_another_is_the_same_place() {
        let proved = Proved::new(Key::new(1, 2));
        proved.note(at(9), peer("[::ffff:192.0.2.1]:7"));
        assert!(proved.knows(at(9), peer("192.0.2.1:7")));
        assert!(!proved.knows(at(9), peer("[2001:db8::1]:7")));
        proved.note(at(9), peer("[2001:db8::1]:7"));
        assert!(proved.knows(at(9), peer("[2001:db8::1]:7")));
        assert!(!proved.knows(at(9), peer("[2001:db8::2]:7")), "every bit counts");
    }

    #[test]
    fn many_places_are_known_at_a_time_and_nobody_who_has_not_proved() {
        let proved = Proved::new(Key::new(3, 4));
        let from = |number: u32| SocketAddr::new(IpAddr::V4(number.into()), 5060);
        for number in 1..=20_000 {
            proved.note(at(5), from(number));
        }
        let known = (1..=20_000).filter(|n| proved.knows(at(5), from(*n))).count();
        assert!(known > 19_000, "{known} of 20,000");
        let strangers = (1 << 20..(1 << 20) + 200_000).filter(|n| proved.knows(at(5), from(*n))).count();
        assert!(strangers < 5, "{strangers}");
    }
}
