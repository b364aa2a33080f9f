//! A response without a transaction goes where the Via below ours says (RFC 3261 §16.11, §18.2.2).

use crate::base::{Channel, Flow, Transport};
use crate::sip::{Message, Name, Value, Via};
use crate::stack::counters::Drop;
use crate::stack::proxy::Proxy;
use crate::stack::proxy::forward::source_port;
use crate::stack::turn::Turn;
use std::net::SocketAddr;

impl Proxy {
    /// Sends a response without a transaction where the Via below ours says (§16.11).
    pub fn forward_by_via(&mut self, turn: &mut Turn, source: &Flow, message: &Message) {
        let next = message.values(Name::Via).nth(1);
        let port = source_port(message);
        let Some(flow) = next.and_then(|value| turn.via_flow(&Via::parse(value).ok()?, port)) else {
            return turn.discard_message(message, *source, Drop::BadResponse, "below our Via is none that leads anywhere");
        };
        if turn.goes_round(message, &flow) {
            return turn.discard_message(message, *source, Drop::BadResponse, "more Vias of ours than passes");
        }
        self.edit_response(turn, message, source, &flow);
        self.notify_load(turn, message);
        let rewrite = &mut self.rewrite;
        turn.outbox.send(flow, |out| {
            rewrite.render(&message.bytes()[..message.end()], out);
        });
    }
}

impl Turn<'_> {
    /// Whether a response comes back to this very server more often than any request passes here. A peer that has one Via of ours
    /// can copy it a thousand times.
    fn goes_round(&self, message: &Message, to: &Flow) -> bool {
        const MOST_PASSES: usize = 10;
        let settings = &self.core.settings;
        let is_here = settings.listeners.iter().any(|listener| {
            listener.address.port() == to.peer.port() && listener.answers_on(to.peer.ip(), &settings.local_addresses)
        });
        let is_ours = |value: &Value| {
            let via = Via::parse(*value).ok();
            let branch = via.and_then(|via| via.branch());
            branch.is_some_and(|branch| self.core.is_own_branch(branch))
        };
        is_here && message.values(Name::Via).filter(is_ours).count() > MOST_PASSES
    }

    /// §18.2.2: `received` and `rport`, else sent-by; over a stream the connection that was opened from there, or from `port`.
    fn via_flow(&self, via: &Via, port: Option<u16>) -> Option<Flow> {
        let transport = [Transport::Udp, Transport::Tcp, Transport::Tls]
            .into_iter()
            .find(|transport| via.transport.eq_ignore_ascii_case(transport.name().as_bytes()))
            .unwrap_or(Transport::Udp);
        let ip = via.received().or_else(|| via.host.ip())?;
        let port = match via.rport() {
            Some(Some(port)) => port,
            _ => port.filter(|_| transport.is_reliable()).or(via.port).unwrap_or(transport.default_port()),
        };
        let peer = SocketAddr::new(ip, port);
        let listener = self.core.settings.listener_towards(transport, peer, 0)?;
        Some(match transport {
            Transport::Udp => Flow::datagram(listener, peer),
            Transport::Tcp | Transport::Tls => {
                Flow { channel: Channel::Back, ..Flow::towards(transport, listener, self.core.number, peer, 0, 0) }
            }
        })
    }
}
