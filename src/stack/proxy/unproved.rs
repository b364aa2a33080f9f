//! What may be sent to a place that has proved nothing. The source of a datagram can be forged, and a contact can name any machine: without a
//! bound, a few bytes from a stranger become many at somebody else's door (RFC 3261 §26.1.5). So all that one request makes us send to places
//! that have never shown that they hear us is at most `[limits] answer_factor` times as long as the request.
//!
//! A place has shown it by answering a challenge that was sent there, or a request of ours ([`crate::base::Proved`]), or by having a connection.

use super::context::Context;
use super::next_hop::Hop;
use super::target::Target;
use super::{Incoming, Refusal};
use crate::base::Flow;
use crate::sip::Message;
use crate::stack::counters::Limit;
use crate::stack::route::Network;
use crate::stack::{Endpoint, Settings};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const NOT_ALLOWED: Refusal = Refusal::new(403, "Contact Outside The Allowed Networks ([registrar] contact_networks)");
const NOT_PROVED: Refusal = Refusal::new(480, "Contact Has Never Answered").because_of(Limit::AnswerSize);

/// What a sender has shown of where it is, beside the address that its packet bears.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Whence {
    /// It was asked for nothing.
    #[default]
    Unknown,
    /// It has the right password, for a challenge that was sent to another address.
    Elsewhere,
    /// It has answered a challenge that was sent there.
    Here,
}

impl Endpoint {
    /// Bytes that all answers to this request may have together; `None`: as many as they like. Whether the sender has proved to be there is
    /// asked when they are used up.
    pub(in crate::stack) fn room_for_answers(&self, message: &Message, flow: &Flow) -> Option<u32> {
        let most = self.bound_towards(message)?;
        let is_there = flow.transport.is_reliable() || self.whence == Whence::Here || self.settings.is_trusted(flow.peer.ip());
        (!is_there).then(|| u32::try_from(most).unwrap_or(u32::MAX - 1))
    }

    /// How long one answer of ours may be.
    pub(in crate::stack) fn longest_answer(&self, message: &Message, flow: Flow) -> usize {
        match self.room_for_answers(message, &flow) {
            Some(_) if self.sources.proved.knows_address(self.now, flow.peer.ip()) => usize::MAX,
            Some(room) => room as usize,
            None => usize::MAX,
        }
    }

    /// Bytes that one request may cause towards places that have proved nothing.
    pub(in crate::stack) fn bound_towards(&self, message: &Message) -> Option<usize> {
        match self.settings.limits.answer_factor {
            0 => None,
            factor => Some(factor * message.bytes().len()),
        }
    }

    /// What copies of this request may have towards such places. Of one that has come back to us, as when one user forwards to another, each
    /// branch has its part, as it has of Max-Breadth (RFC 5393): no tree of users makes more of it.
    pub(super) fn room_for_strangers(&self, message: &Message, incoming: &Incoming, breadth: u32) -> Option<usize> {
        let bound = self.bound_towards(message)?;
        let whole = self.settings.proxy.max_breadth.max(1) as usize;
        Some(match incoming.spiral {
            true => bound * whole.min(breadth as usize) / whole,
            false => bound,
        })
    }

    /// Of how many copies of `len` bytes a branch may consist; `None`: of as many as its timers send.
    pub(super) fn copies(
        &self,
        context: &Context,
        incoming: &Incoming,
        target: &Target,
        hop: &Hop,
        len: usize,
    ) -> Result<Option<usize>, Refusal> {
        let Some(room) = context.unproved_room else {
            return Ok(None);
        };
        if hop.flow.transport.is_reliable() || !self.is_third_place(incoming, target, hop) {
            return Ok(None);
        }
        let others = context.targets.targets.len().saturating_sub(context.next_target);
        match room / len.max(1) {
            0 => Err(NOT_PROVED),
            copies => Ok(Some((copies / (1 + others)).max(1))),
        }
    }

    /// Whether nothing but what somebody has written speaks for this place.
    fn is_third_place(&self, incoming: &Incoming, target: &Target, hop: &Hop) -> bool {
        let ip = hop.flow.peer.ip();
        let is_source = |source: SocketAddr| source.ip().to_canonical() == ip.to_canonical();
        let named_by = target.source.unwrap_or(incoming.flow.peer).ip();
        let is_own = || {
            let peer = hop.flow.peer;
            self.settings.is_own(b"", Some(peer.ip()), Some(peer.port()))
        };
        !(hop.fixed
            || hop.by_conf
            || target.by_operator
            || !target.is_unsure && target.source.is_some_and(is_source)
            || self.settings.is_trusted(ip)
            || self.settings.is_trusted(named_by)
            || is_own()
            || self.sources.proved.knows_address(self.now, ip))
    }

    /// Whether a request may leave for this place: who registers or calls from elsewhere does not reach, by what it writes into its Contact,
    /// the services of this machine and of the networks behind it.
    pub(super) fn check_reach(&self, incoming: &Incoming, target: &Target, peer: SocketAddr) -> Result<(), Refusal> {
        if target.source.is_some_and(|source| source.ip() == peer.ip()) {
            return Ok(());
        }
        let settings = &self.settings;
        let is_own = || settings.is_own(b"", Some(peer.ip()), Some(peer.port()));
        if target.is_by_conf() || target.by_operator || target.for_users || is_own() {
            return Ok(());
        }
        let is_allowed = match target.source {
            Some(source) => settings.may_lie_at(peer.ip(), source.ip()),
            // Within a dialog the other side has said where it is.
            None => {
                !settings.is_this_host(peer.ip())
                    || settings.is_this_host(incoming.flow.peer.ip())
                    || (incoming.trusted && incoming.dialog.is_here)
            }
        };
        match is_allowed {
            true => Ok(()),
            false => Err(NOT_ALLOWED),
        }
    }

    /// Whether one end of the dialog that this request opens or belongs to is on this machine and the other is not. Where both are, each
    /// may reach the other anyway.
    pub(super) fn has_an_end_here(&self, incoming: &Incoming, towards: SocketAddr) -> bool {
        let is_here = |peer: SocketAddr| self.settings.is_this_host(peer.ip());
        (incoming.trusted && incoming.dialog.is_here) || is_here(incoming.flow.peer) != is_here(towards)
    }
}

impl Settings {
    /// Whether a phone that has registered from `source` may say that it is at `ip`.
    pub fn may_lie_at(&self, ip: IpAddr, source: IpAddr) -> bool {
        if ip.to_canonical() == source.to_canonical() || self.is_trusted(source) {
            return true;
        }
        let networks = &self.registrar.contact_networks;
        if !networks.is_empty() {
            return networks.iter().any(|network| network.contains(ip));
        }
        if self.is_this_host(ip) {
            return self.is_this_host(source);
        }
        !is_private(ip) || is_private(source) || self.is_this_host(source)
    }

    fn is_this_host(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let is_listener = |own: IpAddr| !own.is_unspecified() && own.to_canonical() == ip;
        ip.is_loopback()
            || self.local_addresses.contains(&ip)
            || self.listeners.iter().any(|listener| is_listener(listener.address.ip()))
    }

    /// Whether this is one of `[limits] trusted_sources`.
    pub fn is_trusted(&self, ip: IpAddr) -> bool {
        let networks = &self.limits.trusted_sources;
        networks.iter().any(|network: &Network| network.contains(ip))
    }
}

/// Whether an address means something in the sender's network only: RFC 1918, RFC 6598, RFC 4193, and those of one link.
fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local() || is_shared(ip),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

fn is_shared(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    first == 100 && second & 0xc0 == 64
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
        for contact in [
            "198.51.100.7",
            "::ffff:198.51.100.7",
            "198.51.100.8",
            "2001:db8::1",
            "172.32.0.1",
            "100.128.0.1",
        ] {
            assert!(may(&settings, contact, outside), "{contact}");
        }
        // In one's own network one may be anywhere but on this machine.
        assert!(may(&settings, "10.1.1.1", "192.168.1.9"));
        assert!(!may(&settings, "10.0.0.5", "192.168.1.9"));
        assert!(!may(&settings, "127.0.0.1", "192.168.1.9"));

        let network = |address: &str, prefix| Network {
            address: address.parse().unwrap(),
            prefix,
        };
        settings.registrar.contact_networks = vec![network("192.0.2.0", 24), network("127.0.0.0", 8)];
        assert!(may(&settings, "192.0.2.9", outside) && may(&settings, "127.0.0.1", outside));
        assert!(!may(&settings, "198.51.100.8", outside) && may(&settings, outside, outside));
        settings.limits.trusted_sources = vec![network("198.51.100.0", 24)];
        assert!(may(&settings, "198.51.100.8", outside) && may(&settings, "10.0.0.5", outside));
    }
}
