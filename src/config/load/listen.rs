//! `[[listen]]`, and whether there is one for each next hop.

use super::document::Document;
use super::uri::host_port;
use super::values::{NETWORKS, filled, list, listen_address, network, word};
use super::wrong::Wrong;
use crate::base::Transport;
use crate::config::model::{Conf, Listen, Listeners, default_address};
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
                let collides = |l: &&Listen| l.transport.is_reliable() == transport.is_reliable() && l.address == listen.address;
                if let Some(other) = listeners.iter().find(collides) {
                    let why = match other.transport == transport {
                        true => String::new(),
                        false => format!(", and {} takes the same port of TCP", transport.word()),
                    };
                    let message = format!(
                        "another [[listen]] has {} {} already{why}; remove one or change its address",
                        other.transport.word(),
                        other.address
                    );
                    section.wrong(place, message);
                }
            }
            let place = section.place("transport");
            self.listen_places.push(place);
            listeners.push(listen);
        }
        self.listeners_are_wrong = self.wrongs.len() > wrong_before;
        Listeners(listeners)
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
