//! `[[listen]]`, and whether there is one for each next hop.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::document::Document;
use super::uri::host_port;
use super::values::{NETWORKS, filled, list, listen_address, network, word};
use super::wrong::Wrong;
use crate::base::Transport;
use crate::config::model::{Conf, Listen, Listeners, default_address};
use crate::net::interfaces;
use crate::settings::Words;

impl Document<'_> {
    pub(super) fn listeners(&mut self) -> Listeners {
        let wrong_before = self.wrongs.len();
        let Some(tables) = self.tables("listen") else {
            self.listeners_are_wrong = self.wrongs.len() > wrong_before;
            return Listeners::default();
        };
        let mut listeners: Vec<Listen> = Vec::new();
        for (table, at) in tables {
            let mut section = self.open("listen", Some(table), at);
            let transport = section.read("transport", word);
            let transport = transport.unwrap_or(Transport::Udp);
            let address = section.read("address", listen_address);
            let advertise = section.read("advertise", host_port);
            let proxy_protocol = section.read("proxy_protocol", filled(list(NETWORKS, network))).unwrap_or_default();
            if !transport.is_reliable() && section.given("proxy_protocol") && section.sound(["transport"]) {
                let place = section.place("proxy_protocol");
                let message = "proxy_protocol has no effect here: this listener is for UDP, and the header stands in front of connections \
                               of TCP and TLS; remove it";
                section.wrong(place, message);
            }
            let place = section.place("address");
            let address = address.unwrap_or(default_address(transport));
            let listen = Listen { advertise, proxy_protocol, ..Listen::new(transport, address) };
            if section.sound(["transport", "address", "advertise"]) {
                if listen.address.ip().is_unspecified() && listen.advertise.is_none() {
                    let message = format!(
                        "address {} is not one that a peer can answer to: add advertise = \"HOST:{}\", by which peers reach this server",
                        listen.address.ip(),
                        listen.address.port()
                    );
                    section.wrong(place, message);
                }
                let collides = |l: &&Listen| l.transport.is_reliable() == transport.is_reliable() && overlap(l.address, address);
                if let Some(other) = listeners.iter().find(collides) {
                    section.wrong(place, collision(&listen, other));
                }
            }
            let place = section.place("transport");
            self.listen_places.push(place);
            listeners.push(listen);
        }
        self.listeners_are_wrong = self.wrongs.len() > wrong_before;
        Listeners(listeners)
    }

    /// Metrics take a port of TCP. Their socket for [::] takes IPv4 as well, which those of listeners do not.
    pub(super) fn refuse_taken_metrics(&mut self, conf: &Conf) {
        let Some(address) = conf.metrics.address.filter(|_| !self.listeners_are_wrong) else {
            return;
        };
        let takes_all = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let collides = |l: &&Listen| {
            let same_port = l.address.port() == address.port();
            l.transport.is_reliable() && (overlap(l.address, address) || takes_all && same_port)
        };
        if let Some(listen) = conf.listen.iter().find(collides) {
            let at = self.section("metrics").place("address");
            let message = format!(
                "address is {address}, and a [[listen]] takes that port of TCP: it has {} {}; choose another port",
                listen.transport.word(),
                listen.address
            );
            self.wrongs.push(Wrong::new(at, message));
        }
    }

    /// Warns of next hops that are this server.
    pub(super) fn warn_of_own_targets(&mut self, conf: &Conf) {
        if self.listeners_are_wrong {
            return;
        }
        let is_wild = conf.listen.iter().any(|listen| listen.address.ip().is_unspecified());
        let local = is_wild.then(interfaces::local_addresses).and_then(Result::ok).unwrap_or_default();
        let hops = conf.routes.iter().flat_map(|route| route.hops().iter().map(move |hop| (route, hop)));
        for ((route, target), at) in hops.zip(&self.target_places) {
            // With another Request-URI it comes back as another request, for another route: a spiral, not a loop.
            if !route.edits.keep_uri() {
                continue;
            }
            let Some(address) = target.address else {
                continue;
            };
            let is_here = |ip: IpAddr| ip.is_loopback() || local.contains(&ip);
            let is_it = |l: &&Listen| {
                let advertised = l.advertise.as_ref().is_some_and(|name| *name == address.to_string());
                let wild = l.address.ip().is_unspecified() && overlap(l.address, address) && is_here(address.ip());
                l.transport == target.transport && (l.address == address || wild || advertised)
            };
            if let Some(listen) = conf.listen.iter().find(is_it) {
                let message = format!(
                    "target has {:?}, which is this server itself, by its [[listen]] {} {}: what is sent there comes back, and is \
                     refused as a loop; name another server",
                    target.uri,
                    listen.transport.word(),
                    listen.address
                );
                self.warnings.push(Wrong::new(*at, message));
            }
        }
    }

    /// Refuses next hops whose transport no listener speaks.
    pub(super) fn refuse_unreachable(&mut self, conf: &Conf) {
        for (target, at) in conf.routes.hops().zip(&self.target_places) {
            let transport = target.transport;
            let is_open = target.leaves_transport_open();
            let ipv4 = target.address.map(|address| address.is_ipv4());
            let reaches = |l: &Listen| {
                (l.transport == transport || is_open && ipv4.is_none()) && ipv4.is_none_or(|ipv4| l.address.is_ipv4() == ipv4)
            };
            if !self.listeners_are_wrong && !conf.listen.iter().any(reaches) {
                let family = match ipv4 {
                    Some(true) => " over IPv4",
                    Some(false) => " over IPv6",
                    None => "",
                };
                let message = format!(
                    "target has {:?}, but no [[listen]] speaks {}{family}: add one, \
                     to which its responses can come back",
                    target.uri,
                    transport.word()
                );
                self.wrongs.push(Wrong::new(*at, message));
            }
        }
    }
}

/// Whether the kernel refuses one of two sockets at these addresses. A wildcard takes all addresses of its family: our sockets for IPv6
/// leave IPv4 alone.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip(), other.ip());
    one.port() == other.port() && a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
}

fn collision(listen: &Listen, other: &Listen) -> String {
    let (transport, taken) = (listen.transport.word(), other.transport.word());
    let ports = match other.transport == listen.transport {
        true => String::new(),
        false => format!(", and {transport} takes the same port of TCP"),
    };
    let (address, first) = (listen.address, other.address);
    match address == first {
        true => format!("another [[listen]] has {taken} {first} already{ports}; remove one or change its address"),
        false => {
            let wild = if first.ip().is_unspecified() { first } else { address };
            format!(
                "another [[listen]] has {taken} {first}, and {wild} takes that port at every address{ports}: remove one, or change \
                 the port of one"
            )
        }
    }
}
