//! What a worker hands to traces. Nothing here is reached while there are none.

use super::gate::Passage;
use crate::base::{Channel, Flow, Outbox};
use crate::net::Wires;
use crate::trace::reading::Reading;
use crate::trace::{Kind, Taps, Way};
use std::net::{IpAddr, SocketAddr};

/// Hands out a received message; the gate's decision follows it.
pub fn received(taps: &Taps, core: usize, flow: &Flow, own: Option<SocketAddr>, bytes: &[u8], passage: Passage) {
    if is_ping(bytes) {
        return;
    }
    let (core, is_heard) = (core as u8, passage == Passage::Open);
    taps.message(core, Kind::Received, way(flow, own), bytes, is_heard);
    if let Some(why) = passage.why() {
        taps.word(core, Kind::Decision, Reading::of(bytes).call_id, why);
    }
}

/// Hands out a message that was passed to the wires.
pub fn sent(taps: &Taps, core: usize, flow: &Flow, own: Option<SocketAddr>, bytes: &[u8]) {
    if !is_ping(bytes) {
        taps.message(core as u8, Kind::Sent, way(flow, own), bytes, true);
    }
}

/// True for the pings and pongs between messages: they are not messages, and belong to no call.
fn is_ping(bytes: &[u8]) -> bool {
    bytes.trim_ascii().is_empty()
}

/// Hands out all messages of a turn. What is sent on a connection of another core is handed out there.
pub fn outbox(taps: &Taps, core: usize, outbox: &Outbox, wires: &Wires) {
    for transmit in &outbox.transmits {
        let flow = &transmit.flow;
        let is_foreign = matches!(flow.channel, Channel::Connection { .. }) && usize::from(flow.core) != core;
        if !is_foreign {
            sent(taps, core, flow, wires.own_address(flow), outbox.get(transmit.span));
        }
    }
}

/// Hands out a message that came back or never left.
pub fn undelivered(taps: &Taps, core: usize, bytes: &[u8]) {
    let first = bytes.split(|byte| *byte == b'\r' || *byte == b'\n').next().unwrap_or(&[]);
    let text = format!("not delivered: {}", String::from_utf8_lossy(first));
    taps.word(core as u8, Kind::Decision, Reading::of(bytes).call_id, &text);
}

/// Hands out what the rules have noted since the last call.
#[inline]
pub fn words(taps: &Taps, core: usize, outbox: &mut Outbox) {
    if !outbox.notes.is_empty() {
        taps.words(core as u8, &outbox.notes);
        outbox.notes.clear();
    }
}

fn way(flow: &Flow, own: Option<SocketAddr>) -> Way {
    let any = match flow.peer.ip() {
        IpAddr::V4(_) => IpAddr::from([0; 4]),
        IpAddr::V6(_) => IpAddr::from([0; 16]),
    };
    Way { transport: flow.transport, peer: flow.peer, own: own.unwrap_or(SocketAddr::new(any, 0)) }
}
