//! Hostile agents: what a stranger with open ears can send to a server to make it misroute, amplify, leak or fall.

use super::addresses::stranger;
use super::air::Air;
use super::caller::cancel_for;
use super::intent::Intent;
use super::phone::Phones;
use super::plan::CIRCLE;
use super::reading::{Field, Reading};
use super::scenario::Scenario;
use super::text::param;
use super::writing::{finish, line, put, replaced, request};
use std::net::SocketAddr;
use std::rc::Rc;

/// One attack, chosen by the dice.
pub fn attack(air: &mut Air, scenario: &Scenario, phones: &mut Phones) {
    let Some(target) = target(air, scenario) else {
        return;
    };
    air.statistics.hostile += 1;
    match air.rng.below(22) {
        0 => forged_branch(air, target),
        1 | 2 => flipped_branch(air, scenario, target),
        3 => replay(air, scenario, false),
        4 => replay(air, scenario, true),
        5 | 6 => mangle(air, scenario),
        7 => truncate(air, scenario),
        8 | 9 => stranger_route(air, scenario, phones, target),
        10 => stranger_uri(air, scenario, target),
        11 => breadth(air, scenario, phones, target),
        12 => foreign_cancel(air, scenario, target),
        13 => stray_cancel(air, phones, scenario, target),
        14 => circle(air, phones, scenario, target),
        15 => wrong_cseq(air, scenario),
        16 => spoofed(air, scenario, phones),
        17 => stray_ack(air, phones, scenario, target),
        18 => garbage(air, target),
        19 => refused(air, phones, scenario, target),
        20 => altered_response(air, scenario),
        _ => early_ack(air, scenario, target),
    }
}

struct Target {
    from: SocketAddr,
    server: usize,
    at: SocketAddr,
}

fn target(air: &mut Air, scenario: &Scenario) -> Option<Target> {
    let server = air.rng.below(scenario.servers.len() as u64) as usize;
    let from = scenario.attackers[air.rng.below(scenario.attackers.len() as u64) as usize];
    let addresses = &scenario.servers[server].addresses;
    let at = *addresses.iter().find(|a| a.is_ipv6() == from.is_ipv6())?;
    Some(Target { from, server, at })
}

/// Something overheard on its way to a server: sender, server, message.
fn overheard(
    air: &mut Air,
    scenario: &Scenario,
    wanted: impl Fn(&Reading) -> bool,
) -> Option<(SocketAddr, SocketAddr, Rc<Reading>)> {
    let count = air.overheard.len();
    let start = air.rng.below(count as u64) as usize;
    (0..count).find_map(|n| {
        let (from, to, message) = &air.overheard[(start + n) % count];
        let server = scenario.servers.iter().any(|s| s.addresses.contains(to));
        (server && !message.is_broken() && wanted(message)).then(|| (*from, *to, Rc::clone(message)))
    })
}

fn start(air: &mut Air, phones: &mut Phones, target: &Target, method: &[u8], uri: &[u8]) -> Vec<u8> {
    let mut out = request(method, uri);
    let branch = phones.fresh(air);
    let at = target.from.to_string();
    let via = [b"SIP/2.0/UDP ", at.as_bytes(), b";branch=z9hG4bKh", branch.as_bytes()];
    line(&mut out, "Via", &via);
    out
}

fn identify(air: &mut Air, phones: &mut Phones, out: &mut Vec<u8>, to: &[u8], method: &[u8]) {
    let (tag, call_id) = (phones.fresh(air), phones.fresh(air));
    line(out, "From", &[b"<sip:mallory@m.example>;tag=", tag.as_bytes()]);
    line(out, "To", &[to]);
    line(out, "Call-ID", &[call_id.as_bytes(), b"@hostile"]);
    line(out, "CSeq", &[b"1 ", method]);
}

fn callee(air: &mut Air, scenario: &Scenario, target: &Target) -> Vec<u8> {
    let user = air.rng.below(6);
    format!("sip:u{user}@{}", scenario.servers[target.server].domain).into_bytes()
}

fn forged_branch(air: &mut Air, target: Target) {
    let branch = format!("z9hG4bK{:016x}{:08x}", air.rng.next_u64(), air.rng.below(1 << 32));
    let status = [100, 180, 200, 404, 487][air.rng.below(5) as usize];
    let out = format!(
        "SIP/2.0 {status} Forged\r\nVia: SIP/2.0/UDP {};branch={branch}\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKx\r\n\
         From: <sip:a@a.example>;tag=1\r\nTo: <sip:b@a.example>;tag=2\r\nCall-ID: forged\r\nCSeq: 1 INVITE\r\n\
         Content-Length: 0\r\n\r\n",
        target.at,
        stranger(target.at.is_ipv6(), 7),
    );
    air.statistics.forged_branches += 1;
    air.send(target.from, target.at, out.into_bytes(), Intent::Hostile);
}

/// A branch that a server really made, with one character changed, and a stranger below it.
fn flipped_branch(air: &mut Air, scenario: &Scenario, target: Target) {
    let Some((_, to, message)) = overheard(air, scenario, |m| !m.is_request() && m.vias.len() > 1) else {
        return;
    };
    let Some(branch) = param(message.via(0), b"branch") else {
        return;
    };
    let start = branch.as_ptr() as usize - message.bytes.as_ptr() as usize;
    if branch.len() < 9 {
        return;
    }
    let at = start + 7 + air.rng.below(branch.len() as u64 - 7) as usize;
    let old = message.bytes[at];
    let new = loop {
        let new = b"0123456789abcdefXYZ.-"[air.rng.below(21) as usize];
        if new != old {
            break new;
        }
    };
    let mut bytes = replaced(&message, at..at + 1, &[new]);
    if let Some(below) = message.vias.get(1).filter(|_| air.rng.one_in(2)) {
        let via = format!("SIP/2.0/UDP {};branch=z9hG4bKstranger", stranger(target.at.is_ipv6(), 9));
        bytes.splice(below.clone(), via.into_bytes());
    }
    air.statistics.forged_branches += 1;
    air.send(target.from, to, bytes, Intent::Hostile);
}

/// Something real once more, perhaps long after, perhaps from elsewhere.
fn replay(air: &mut Air, scenario: &Scenario, register: bool) {
    let wanted = |m: &Reading| !register || m.method() == b"REGISTER";
    let Some((from, to, message)) = overheard(air, scenario, wanted) else {
        return;
    };
    let attacker = scenario.attackers[0];
    let from = if air.rng.one_in(2) && attacker.is_ipv6() == to.is_ipv6() { attacker } else { from };
    air.statistics.replayed_registers += u64::from(register);
    if register && air.rng.one_in(2) {
        // With a fresh branch it is no retransmission: the registrar must see that the CSeq is old.
        if let Some(branch) = param(message.via(0), b"branch") {
            let start = branch.as_ptr() as usize - message.bytes.as_ptr() as usize;
            let fresh = format!("z9hG4bKr{:x}", air.rng.next_u64());
            let bytes = replaced(&message, start..start + branch.len(), fresh.as_bytes());
            air.send(from, to, bytes, Intent::Hostile);
            return;
        }
    }
    air.send_again(from, to, message, Intent::Hostile);
}

fn mangle(air: &mut Air, scenario: &Scenario) {
    let Some((from, to, message)) = overheard(air, scenario, |_| true) else {
        return;
    };
    let mut bytes = message.bytes.clone();
    for _ in 0..air.between(1, 6) {
        let at = air.rng.below(bytes.len() as u64) as usize;
        match air.rng.below(5) {
            0 => bytes[at] ^= 1 << air.rng.below(8),
            1 => bytes[at] = air.rng.next_u64() as u8,
            2 => {
                bytes.remove(at);
            }
            3 => {
                let what = b"\r\n\0 ;,<>\":@=\xff%"[air.rng.below(14) as usize];
                bytes.insert(at, what);
            }
            _ => {
                let end = (at + air.between(1, 60) as usize).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                let to = air.rng.below(bytes.len() as u64) as usize;
                bytes.splice(to..to, piece);
            }
        }
        if bytes.is_empty() {
            break;
        }
    }
    air.statistics.mangled += 1;
    air.send(from, to, bytes, Intent::Mangled);
}

fn truncate(air: &mut Air, scenario: &Scenario) {
    let Some((from, to, message)) = overheard(air, scenario, |_| true) else {
        return;
    };
    let keep = air.rng.below(message.bytes.len() as u64) as usize;
    air.statistics.mangled += 1;
    air.send(from, to, message.bytes[..keep].to_vec(), Intent::Mangled);
}

/// Routes and dialogs that lead through the server to somebody who never asked.
fn stranger_route(air: &mut Air, scenario: &Scenario, phones: &mut Phones, target: Target) {
    let method = [&b"INVITE"[..], b"MESSAGE", b"BYE", b"ACK", b"OPTIONS"][air.rng.below(5) as usize];
    let third = stranger(target.at.is_ipv6(), air.rng.below(50));
    let uri = if air.rng.one_in(2) { format!("sip:victim@{third}").into_bytes() } else { callee(air, scenario, &target) };
    let mut out = start(air, phones, &target, method, &uri);
    if air.rng.one_in(2) {
        line(&mut out, "Route", &[b"<sip:", target.at.to_string().as_bytes(), b";lr>"]);
    }
    if air.rng.one_in(2) || uri.starts_with(b"sip:u") {
        line(&mut out, "Route", &[b"<sip:", third.to_string().as_bytes(), b";lr>"]);
    }
    line(&mut out, "Max-Forwards", &[b"70"]);
    // A To tag pretends that there is a dialog.
    let to: &[u8] = if air.rng.one_in(2) { b"<sip:victim@v.example>;tag=pretended" } else { b"<sip:victim@v.example>" };
    identify(air, phones, &mut out, to, method);
    finish(&mut out, b"");
    air.statistics.stranger_routes += 1;
    air.send(target.from, target.at, out, Intent::Hostile);
}

fn stranger_uri(air: &mut Air, scenario: &Scenario, target: Target) {
    // A real request, turned towards somebody else.
    let Some((from, to, message)) = overheard(air, scenario, |m| m.is_request() && !matches!(m.method(), b"REGISTER")) else {
        return;
    };
    let super::reading::Start::Request { uri, .. } = &message.start else {
        return;
    };
    if message.count(Field::Route) > 0 {
        // Its Route was really issued: only the dialog's own peer could say that the target is wrong.
        return;
    }
    let third = format!("sip:victim@{}", stranger(target.at.is_ipv6(), 3));
    let bytes = replaced(&message, uri.clone(), third.as_bytes());
    let branch = format!("z9hG4bKs{:x}", air.rng.next_u64());
    let message = Reading::new(bytes);
    let Some(old) = param(message.via(0), b"branch") else {
        return;
    };
    let start = old.as_ptr() as usize - message.bytes.as_ptr() as usize;
    let bytes = replaced(&message, start..start + old.len(), branch.as_bytes());
    air.statistics.stranger_routes += 1;
    air.send(from, to, bytes, Intent::Hostile);
}

fn breadth(air: &mut Air, scenario: &Scenario, phones: &mut Phones, target: Target) {
    let uri = callee(air, scenario, &target);
    let mut out = start(air, phones, &target, b"INVITE", &uri);
    let breadth = [&b"0"[..], b"1", b"4000000000", b"99999999999999", b"-1", b"many"][air.rng.below(6) as usize];
    line(&mut out, "Max-Breadth", &[breadth]);
    let forwards = [&b"0"[..], b"1", b"255", b"256", b"x"][air.rng.below(5) as usize];
    line(&mut out, "Max-Forwards", &[forwards]);
    identify(air, phones, &mut out, &[b"<", &uri[..], b">"].concat(), b"INVITE");
    let at = target.from.to_string();
    line(&mut out, "Contact", &[b"<sip:m@", at.as_bytes(), b">"]);
    finish(&mut out, b"");
    air.send(target.from, target.at, out, Intent::Hostile);
}

/// CANCEL for a call that somebody else placed.
fn foreign_cancel(air: &mut Air, scenario: &Scenario, target: Target) {
    let Some((_, to, invite)) = overheard(air, scenario, |m| m.is_request() && m.method() == b"INVITE") else {
        return;
    };
    if to.is_ipv6() == target.from.is_ipv6() {
        air.statistics.foreign_cancels += 1;
        air.send(target.from, to, cancel_for(&invite), Intent::Hostile);
    }
}

fn stray_cancel(air: &mut Air, phones: &mut Phones, scenario: &Scenario, target: Target) {
    let uri = callee(air, scenario, &target);
    let mut out = start(air, phones, &target, b"CANCEL", &uri);
    line(&mut out, "Max-Forwards", &[b"70"]);
    identify(air, phones, &mut out, &[b"<", &uri[..], b">"].concat(), b"CANCEL");
    finish(&mut out, b"");
    air.send(target.from, target.at, out, Intent::Hostile);
}

/// A request that two servers send to each other for ever, were there no loop detection.
fn circle(air: &mut Air, phones: &mut Phones, scenario: &Scenario, target: Target) {
    if scenario.servers.len() < 2 {
        return;
    }
    let method = [&b"INVITE"[..], b"MESSAGE"][air.rng.below(2) as usize];
    let uri = format!("sip:round@{CIRCLE}").into_bytes();
    let mut out = start(air, phones, &target, method, &uri);
    line(&mut out, "Max-Forwards", &[b"70"]);
    identify(air, phones, &mut out, &[b"<", &uri[..], b">"].concat(), method);
    finish(&mut out, b"");
    air.statistics.loops += 1;
    air.send(target.from, target.at, out, Intent::Hostile);
}

fn wrong_cseq(air: &mut Air, scenario: &Scenario) {
    let Some((from, to, message)) = overheard(air, scenario, |m| m.count(Field::CSeq) == 1) else {
        return;
    };
    let found = message.lines.iter().find(|l| l.field == Field::CSeq);
    let Some(cseq) = found.map(|l| l.value.clone()) else {
        return;
    };
    let wrong =
        [&b"1 NOTHING"[..], b"4294967296 INVITE", b"-1 INVITE", b"INVITE", b"1", b"1 ACK", b"7 CANCEL"][air.rng.below(7) as usize];
    let bytes = replaced(&message, cseq, wrong);
    air.send(from, to, bytes, Intent::Mangled);
}

/// A request with somebody else's source address: whatever comes of it goes to him, so it must be little.
fn spoofed(air: &mut Air, scenario: &Scenario, phones: &mut Phones) {
    let victim = &phones.list[air.rng.below(phones.list.len() as u64) as usize].plan;
    let target = Target { from: victim.at, server: victim.server, at: victim.server_at };
    let uri = callee(air, scenario, &target);
    let method = [&b"OPTIONS"[..], b"INVITE", b"MESSAGE"][air.rng.below(3) as usize];
    let mut out = start(air, phones, &target, method, &uri);
    line(&mut out, "Max-Forwards", &[b"70"]);
    identify(air, phones, &mut out, &[b"<", &uri[..], b">"].concat(), method);
    finish(&mut out, b"");
    air.statistics.spoofed += 1;
    air.send(target.from, target.at, out, Intent::Hostile);
}

fn stray_ack(air: &mut Air, phones: &mut Phones, scenario: &Scenario, target: Target) {
    let uri = callee(air, scenario, &target);
    let mut out = start(air, phones, &target, b"ACK", &uri);
    line(&mut out, "Max-Forwards", &[b"70"]);
    identify(air, phones, &mut out, b"<sip:x@a.example>;tag=none", b"ACK");
    finish(&mut out, b"");
    air.send(target.from, target.at, out, Intent::Hostile);
}

/// An ACK for an INVITE that has no final response yet, or that somebody else sent.
fn early_ack(air: &mut Air, scenario: &Scenario, target: Target) {
    let Some((from, to, invite)) = overheard(air, scenario, |m| m.is_request() && m.method() == b"INVITE") else {
        return;
    };
    let mut out = cancel_for(&invite);
    // The two methods differ in nothing else.
    out.splice(0..6, *b"ACK");
    let text = b" CANCEL\r\n";
    if let Some(at) = out.windows(text.len()).position(|w| w == text) {
        out.splice(at..at + text.len(), *b" ACK\r\n");
    }
    let from = if air.rng.one_in(2) && target.from.is_ipv6() == to.is_ipv6() { target.from } else { from };
    air.send(from, to, out, Intent::Hostile);
}

fn garbage(air: &mut Air, target: Target) {
    let length = [0, 1, 2, 4, 30, 300, 3000][air.rng.below(7) as usize];
    let mut bytes: Vec<u8> = match air.rng.below(4) {
        0 => b"\r\n\r\n".to_vec(),
        1 => b"SIP/2.0 200 OK\r\n".to_vec(),
        2 => b"INVITE sip:a@a.example SIP/2.0\r\n".to_vec(),
        _ => Vec::new(),
    };
    bytes.extend((0..length).map(|_| (air.rng.next_u64() >> 20) as u8));
    air.statistics.mangled += 1;
    air.send(target.from, target.at, bytes, Intent::Mangled);
}

/// Requests that a proxy must refuse: unknown extensions, foreign names, refused routes.
fn refused(air: &mut Air, phones: &mut Phones, scenario: &Scenario, target: Target) {
    let method = [&b"INVITE"[..], b"MESSAGE", b"REGISTER", b"SUBSCRIBE"][air.rng.below(4) as usize];
    let uri = match air.rng.below(4) {
        0 => b"sip:x@refused.example".to_vec(),
        1 => b"tel:+4930123456".to_vec(),
        2 => b"sips:x@elsewhere.example".to_vec(),
        _ => callee(air, scenario, &target),
    };
    let mut out = start(air, phones, &target, method, &uri);
    match air.rng.below(3) {
        0 => line(&mut out, "Proxy-Require", &[b"nonsense, more"]),
        1 => line(&mut out, "Require", &[b"nonsense"]),
        _ => {}
    }
    line(&mut out, "Max-Forwards", &[b"70"]);
    identify(air, phones, &mut out, &[b"<", &uri[..], b">"].concat(), method);
    if air.rng.one_in(2) {
        put(&mut out, &[b"X-Long: ", &vec![b'x'; 2000], b"\r\n"]);
    }
    finish(&mut out, b"");
    air.send(target.from, target.at, out, Intent::Hostile);
}

/// A real response with another status and another To tag: a double final, or an answer after a refusal.
fn altered_response(air: &mut Air, scenario: &Scenario) {
    let Some((from, to, message)) = overheard(air, scenario, |m| !m.is_request()) else {
        return;
    };
    let Some(at) = super::text::find(&message.bytes, 0, b"SIP/2.0 ") else {
        return;
    };
    let status = [b"100", b"183", b"200", b"302", b"408", b"487", b"503", b"603"][air.rng.below(8) as usize];
    let mut bytes = replaced(&message, at + 8..at + 11, status);
    if let Some(tag) = message.tag(Field::To).filter(|t| !t.is_empty()) {
        let tag = tag.as_ptr() as usize - message.bytes.as_ptr() as usize;
        bytes[tag] = b"QRSTUV"[air.rng.below(6) as usize];
    }
    air.statistics.double_finals += 1;
    air.send(from, to, bytes, Intent::Hostile);
}
