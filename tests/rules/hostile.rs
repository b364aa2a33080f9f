//! Bytes of an enemy: messages with a valid core that were torn, spliced and repeated, by peers that know live branches. Nothing
//! panics, honest calls go on, and in the end nothing is left.

use strowger::base::Rng;
use strowger::stack::Element;
use strowger::stack::settings::{Fork, Mode};

use crate::bench::*;
use crate::message::Request;

const PEERS: [&str; 5] = [ALICE, BOB, CAROL, DAVE, "10.0.9.9:1024"];

/// Changes a few bytes, or cuts, doubles or swaps runs of them.
fn tear(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=rng.below(3) {
        let len = bytes.len().max(1) as u64;
        let (at, run) = (rng.below(len) as usize, rng.below(40) as usize);
        let end = (at + run).min(bytes.len());
        let at = at.min(end);
        match rng.below(7) {
            0 => drop(bytes.drain(at..end)),
            1 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            2 => {
                let from = rng.below(other.len().max(1) as u64) as usize;
                let to = (from + run).min(other.len());
                bytes.splice(at..end, other[from.min(to)..to].iter().copied());
            }
            3 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << rng.below(8);
                }
            }
            4 => {
                let odd = b"\r\n\0 ;,<>\"@:%?[]=\xff";
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = odd[rng.below(odd.len() as u64) as usize];
                }
            }
            5 => bytes.truncate(end),
            // A whole header line twice.
            _ => {
                let line = bytes[at..].iter().position(|b| *b == b'\n').map(|n| at + n + 1);
                let next = line.and_then(|line| {
                    let more = bytes[line..].iter().position(|b| *b == b'\n')?;
                    Some(line..line + more + 1)
                });
                if let Some(range) = next {
                    let copy = bytes[range.clone()].to_vec();
                    bytes.splice(range.start..range.start, copy);
                }
            }
        }
    }
}

fn request(rng: &mut Rng) -> Request {
    let methods = ["INVITE", "INVITE", "MESSAGE", "REGISTER", "OPTIONS", "SUBSCRIBE", "ODD"];
    let users = ["bob", "carol", "nobody"];
    let method = methods[rng.below(methods.len() as u64) as usize];
    let uri = match method {
        "REGISTER" => "sip:example.com".to_string(),
        _ => format!("sip:{}@example.com", users[rng.below(3) as usize]),
    };
    let mut request = Request::new(method, &uri);
    if method == "REGISTER" {
        request = request
            .to("<sip:carol@example.com>")
            .add("Path: <sip:10.0.2.1;lr>, <sip:10.0.2.2>")
            .add("Contact: <sip:carol@10.0.1.3:5060>;q=0.5;+sip.instance=\"<urn:x>\";reg-id=1, <sip:c@10.0.1.4>");
    }
    if rng.chance(200) {
        request = request.top("Route: <sip:10.0.0.1:5060;lr>, <sip:10.0.6.6>");
    }
    if rng.chance(200) {
        request = request.add("Max-Breadth: 2").body("v=0\r\n");
    }
    request
}

fn run(seed: u64, mode: Mode, fork: Fork, cores: u8) {
    let mut rng = Rng::new(seed);
    let mut b = Bench::with(|settings| {
        settings.proxy.mode = mode;
        settings.proxy.fork = fork;
        settings.cores = cores;
        settings.per_core.transactions = 200;
    });
    b.register("bob", "<sip:bob@10.0.1.2:5060>;q=0.9");
    b.register("bob", "<sip:bob@10.0.1.3:5060>;q=0.9");
    b.register("bob", "<sip:bob@10.0.1.4:5060>;q=0.1");
    let mut live: Vec<Vec<u8>> = Vec::new();
    for _ in 0..4000 {
        let other = match live.len() {
            0 => Vec::new(),
            len => live[rng.below(len as u64) as usize].clone(),
        };
        let mut bytes = match rng.below(10) {
            0..3 => {
                let request = request(&mut rng);
                match rng.below(4) {
                    0 => request.cancel().bytes(),
                    _ => request.bytes(),
                }
            }
            // An answer to something that we sent, and so with a branch that lives.
            3..7 if other.starts_with(b"SIP/2.0") || other.is_empty() => other.clone(),
            3..7 => {
                let statuses = [100, 180, 183, 200, 202, 302, 401, 407, 408, 486, 487, 503, 600];
                let status = statuses[rng.below(statuses.len() as u64) as usize];
                let text = crate::message::Text::new(&other);
                match text.all("Via").is_empty() {
                    true => other.clone(),
                    false => text.answer(status).bytes(),
                }
            }
            _ => other.clone(),
        };
        if rng.chance(400) {
            tear(&mut rng, &mut bytes, &other);
        }
        let peer = PEERS[rng.below(PEERS.len() as u64) as usize];
        let core = rng.below(u64::from(cores)) as usize;
        let sent = match rng.below(20) {
            0 => b.undelivered(&bytes),
            1 => {
                let ms = 1 << rng.below(16);
                b.tick(ms)
            }
            _ => b.send_by(core, 0, peer, &bytes),
        };
        for sent in sent {
            if live.len() == 64 {
                live.swap_remove(rng.below(64) as usize);
            }
            live.push(sent.bytes.clone());
        }
    }
    // The enemy got through to every kind of transaction.
    let counters: Vec<_> = b.cores.iter().map(|core| core.counters()).collect();
    for class in 0..6 {
        let seen: u64 = counters.iter().map(|c| c.responses[class]).sum();
        assert!(seen > 5, "{}xx: {seen}", class + 1);
    }
    let repeated: u64 = counters.iter().map(|c| c.retransmissions[0]).sum();
    assert!(mode == Mode::Stateless || repeated > 20, "{repeated}");
    b.assert_quiet();
    // And honest people are served.
    b.location.remove(Default::default(), b"dave@example.com", None);
    b.register("dave", "<sip:dave@10.0.1.4:5060>");
    let request = Request::new("MESSAGE", "sip:dave@example.com");
    let at_dave = only(b.send(ALICE, request));
    assert_eq!(b.send_for_one(DAVE, at_dave.answer(200)).to, ALICE);
    b.assert_quiet();
}

#[test]
fn torn_messages_leave_a_stateful_proxy_whole() {
    for seed in 1..=6 {
        run(seed, Mode::Stateful, Fork::Parallel, 1);
        run(seed, Mode::Stateful, Fork::Sequential, 3);
    }
}

#[test]
fn torn_messages_leave_a_stateless_proxy_whole() {
    for seed in 1..=4 {
        run(seed, Mode::Stateless, Fork::Parallel, 2);
    }
}
