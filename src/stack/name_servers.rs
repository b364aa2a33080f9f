//! Which servers the names among the conf's targets have led to, for reports of the targets' health.

use crate::base::{Key, Transport};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Names remembered, and servers of each, the latest.
const NAMES: usize = 1024;
const SERVERS: usize = 16;

/// Recent notes, so that what is known is not noted again: their number, a power of two.
const NOTED: usize = 256;

/// A server's transport and address.
pub type Server = (Transport, SocketAddr);

/// By the target's URI.
type ByUri = HashMap<Vec<u8>, Vec<Server>>;

/// The servers known to all cores.
#[derive(Debug)]
pub struct NameServers {
    key: Key,
    noted: Box<[AtomicU64]>,
    servers: Mutex<ByUri>,
}

impl NameServers {
    pub fn new(key: Key) -> NameServers {
        NameServers {
            key: key.derive("name servers"),
            noted: (0..NOTED).map(|_| AtomicU64::new(0)).collect(),
            servers: Mutex::default(),
        }
    }

    /// Notes that the name in the target's URI has led there.
    pub fn note(&self, uri: &[u8], transport: Transport, address: SocketAddr) {
        let hash = self.key.hash(&[uri, &[transport as u8], &octets(address)]).max(1);
        let noted = &self.noted[hash as usize % NOTED];
        if noted.swap(hash, Ordering::Relaxed) == hash {
            return;
        }
        let mut all = self.all();
        if all.len() >= NAMES && !all.contains_key(uri) {
            return;
        }
        let servers = all.entry(uri.to_vec()).or_default();
        servers.retain(|known| *known != (transport, address));
        if servers.len() == SERVERS {
            servers.remove(0);
        }
        servers.push((transport, address));
    }

    /// Returns where the name in this URI has led, in order.
    pub fn of(&self, uri: &[u8]) -> Vec<Server> {
        let mut servers = self.all().get(uri).cloned().unwrap_or_default();
        servers.sort_unstable();
        servers
    }

    /// Forgets the names of targets that no longer exist.
    pub fn keep(&self, is_target: impl Fn(&[u8]) -> bool) {
        self.all().retain(|uri, _| is_target(uri));
        for noted in &self.noted {
            noted.store(0, Ordering::Relaxed);
        }
    }

    fn all(&self) -> MutexGuard<'_, ByUri> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn octets(address: SocketAddr) -> [u8; 18] {
    let mut octets = [0; 18];
    let ip = match address.ip() {
        std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        std::net::IpAddr::V6(ip) => ip,
    };
    octets[..16].copy_from_slice(&ip.octets());
    octets[16..].copy_from_slice(&address.port().to_be_bytes());
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, number], 5060))
    }

    #[test]
    fn the_latest_servers_of_each_name_are_known() {
        let servers = NameServers::new(Key::new(1, 2));
        for number in (1..=SERVERS as u8 + 1).chain([5, 5]) {
            servers.note(b"sip:a.example", Transport::Udp, at(number));
        }
        servers.note(b"sip:b.example", Transport::Tcp, at(1));
        let known = servers.of(b"sip:a.example");
        assert_eq!(known.len(), SERVERS);
        assert_eq!(known.first(), Some(&(Transport::Udp, at(2))), "the oldest is forgotten");
        assert_eq!(servers.of(b"sip:b.example"), [(Transport::Tcp, at(1))]);
        servers.keep(|uri| uri == b"sip:b.example");
        assert!(servers.of(b"sip:a.example").is_empty());
        servers.note(b"sip:a.example", Transport::Udp, at(3));
        assert_eq!(servers.of(b"sip:a.example"), [(Transport::Udp, at(3))]);
    }

    #[test]
    fn there_is_a_bound() {
        let servers = NameServers::new(Key::new(1, 2));
        for number in 0..2 * NAMES {
            servers.note(format!("sip:{number}.example").as_bytes(), Transport::Udp, at(1));
        }
        assert_eq!(servers.all().len(), NAMES);
    }
}
