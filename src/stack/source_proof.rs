//! What a sender has proved about its location, and what follows: how much may be answered to it, and where its contacts may be.
//! The source of a datagram can be forged: without a limit, a few bytes from a stranger become many for a third party (RFC 3261
//! §26.1.5).

use crate::base::Flow;
use crate::sip::Message;
use crate::stack::Settings;
use crate::stack::core::Core;
use crate::stack::route::Network;
use crate::stack::turn::{SourceProof, Turn};
use std::net::IpAddr;

impl Turn<'_> {
    /// Returns the bytes that all answers to this request may have in total; `None`: unlimited. Whether the sender has proved its
    /// location is checked when they are used up.
    pub fn room_for_answers(&self, message: &Message, flow: &Flow) -> Option<u32> {
        let most = self.core.bound_towards(message)?;
        let is_there =
            flow.transport.is_reliable() || self.source_proof == SourceProof::Here || self.core.settings.is_trusted(flow.peer.ip());
        (!is_there).then(|| u32::try_from(most).unwrap_or(u32::MAX - 1))
    }

    /// Returns the maximum length of one answer of ours.
    pub fn longest_answer(&self, message: &Message, flow: Flow) -> usize {
        match self.room_for_answers(message, &flow) {
            Some(_) if self.core.sources.proved.knows_address(self.now, flow.peer.ip()) => usize::MAX,
            Some(room) => room as usize,
            None => usize::MAX,
        }
    }
}

impl Core {
    /// Returns the bytes that one request may cause towards places that have proved nothing.
    pub fn bound_towards(&self, message: &Message) -> Option<usize> {
        match self.settings.limits.answer_factor {
            0 => None,
            factor => Some(factor * message.bytes().len()),
        }
    }
}

impl Settings {
    /// Returns whether a phone that has registered from `source` may claim to be at `ip`.
    pub fn may_lie_at(&self, ip: IpAddr, source: IpAddr) -> bool {
        if ip.to_canonical() == source.to_canonical() || self.is_trusted(source) {
            return true;
        }
        let networks = &self.registrar.contact_networks;
        match networks.is_empty() {
            true => self.may_be_seen_from(ip, source),
            false => networks.iter().any(|network| network.contains(ip)),
        }
    }

    /// Returns whether a machine at `source` could reach `ip` without us.
    pub fn may_be_seen_from(&self, ip: IpAddr, source: IpAddr) -> bool {
        if ip.to_canonical() == source.to_canonical() || self.is_this_host(source) {
            return true;
        }
        !self.is_this_host(ip) && (!is_private(ip) || is_private(source))
    }

    pub fn is_this_host(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let is_listener = |own: IpAddr| !own.is_unspecified() && own.to_canonical() == ip;
        ip.is_loopback()
            || self.local_addresses.contains(&ip)
            || self.listeners.iter().any(|listener| is_listener(listener.address.ip()))
    }

    /// Returns whether this is one of `[limits] trusted_sources`.
    pub fn is_trusted(&self, ip: IpAddr) -> bool {
        let networks = &self.limits.trusted_sources;
        networks.iter().any(|network: &Network| network.contains(ip))
    }
}

/// Returns whether an address is meaningless on the other side of a NAT (RFC 1918, RFC 6598, RFC 3927, RFC 4193, RFC 4291).
pub(in crate::stack) fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let shared = u32::from(ip) >> 22 == u32::from_be_bytes([100, 64, 0, 0]) >> 22;
            ip.is_private() || ip.is_link_local() || shared
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Transport;
    use crate::stack::settings::Listener;

    fn settings() -> Settings {
        let mut settings = Settings::default();
        settings.listeners.push(Listener {
            transport: Transport::Udp,
            address: "203.0.113.5:5060".parse().unwrap(),
            advertise: b"203.0.113.5:5060".to_vec(),
        });
        settings.local_addresses.push("10.0.0.5".parse().unwrap());
        settings
    }

    #[test]
    fn a_contact_may_be_where_its_phone_could_be() {
        let mut settings = settings();
        let may = |settings: &Settings, contact: &str, source: &str| {
            settings.may_lie_at(contact.parse().unwrap(), source.parse().unwrap())
        };
        let outside = "198.51.100.7";
        for contact in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "::ffff:127.0.0.1",
            "203.0.113.5",
            "10.0.0.5",
            "10.1.1.1",
            "192.168.1.9",
            "172.16.0.1",
            "169.254.1.1",
            "100.64.0.1",
            "fd00::1",
            "fe80::1",
        ] {
            assert!(!may(&settings, contact, outside), "{contact}");
            assert!(!may(&settings, contact, "2001:db8::9"), "{contact}");
            assert!(may(&settings, contact, "127.0.0.1"), "{contact}");
        }
        for contact in ["198.51.100.7", "::ffff:198.51.100.7", "198.51.100.8", "2001:db8::1", "172.32.0.1", "100.128.0.1"] {
            assert!(may(&settings, contact, outside), "{contact}");
        }
        // Within one's own network any address is allowed except on this machine.
        assert!(may(&settings, "10.1.1.1", "192.168.1.9"));
        assert!(!may(&settings, "10.0.0.5", "192.168.1.9"));
        assert!(!may(&settings, "127.0.0.1", "192.168.1.9"));

        let network = |address: &str, prefix| Network { address: address.parse().unwrap(), prefix };
        settings.registrar.contact_networks = vec![network("192.0.2.0", 24), network("127.0.0.0", 8)];
        assert!(may(&settings, "192.0.2.9", outside) && may(&settings, "127.0.0.1", outside));
        assert!(!may(&settings, "198.51.100.8", outside) && may(&settings, outside, outside));
        settings.limits.trusted_sources = vec![network("198.51.100.0", 24)];
        assert!(may(&settings, "198.51.100.8", outside) && may(&settings, "10.0.0.5", outside));
    }
}
