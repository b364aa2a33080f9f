//! What the gang does with what it has learnt: it acts as somebody else, and breaks what binds others.

use super::addresses::stranger;
use super::air::Air;
use super::caller::cancel_for;
use super::gang::{Aim, Gang, any, callee, domain, keep, mallory, next_hop, place, victim, with_branch};
use super::intent::Intent;
use super::phone::Phones;
use super::plan::{BOSS, GATEWAY_PREFIX, MALLORY};
use super::reading::{Field, Reading};
use super::rule::Rule;
use super::scenario::Scenario;
use super::text::param;
use super::writing::{finish, line, put, replaced, response, with_line, without};
use std::net::SocketAddr;

impl Gang {
    /// A Via of ours, copied from what came, under a Via of its own.
    pub(super) fn forge_spiral(&mut self, air: &mut Air, scenario: &Scenario, _: &mut Phones, aim: Aim) {
        let kept = self.seen.iter().filter(|(from, _, m)| m.is_request() && scenario.servers[aim.server].addresses.contains(from));
        let kept: Vec<_> = kept.cloned().collect();
        if kept.is_empty() {
            return;
        }
        let (_, _, message) = &kept[air.rng.below(kept.len() as u64) as usize];
        let domain = domain(air, scenario, aim.server);
        let victim = victim(air);
        let method = [&b"INVITE"[..], b"MESSAGE", b"SUBSCRIBE", b"BYE"][air.rng.below(4) as usize];
        let callee = callee(air, scenario, aim.server);
        let from = match air.rng.below(3) {
            // Whose request it was, with another Call-ID.
            0 => message.value(Field::From).unwrap_or(b"").to_vec(),
            _ => format!("<sip:{victim}@{domain}>;tag=s").into_bytes(),
        };
        let to = format!("<{callee}>");
        let count = 1 + air.rng.below(message.vias.len() as u64) as usize;
        let vias: Vec<&[u8]> = (0..count).map(|n| message.via(n)).collect();
        let mut out = self.begin_below(air, aim, method, callee.as_bytes(), &from, to.as_bytes(), &vias);
        line(&mut out, "Contact", &[&self.contact(aim)]);
        finish(&mut out, b"forged");
        air.statistics.forged_spirals += 1;
        air.send(aim.from, aim.at, out, Intent::Hostile);
    }

    /// A request that came to it goes on to somebody else, as it is or with changes.
    pub(super) fn pass_on(&mut self, air: &mut Air, scenario: &Scenario, aim: Aim) {
        let kept = self.seen.iter().filter(|(from, _, m)| {
            m.is_request() && !matches!(m.method(), b"ACK" | b"CANCEL") && scenario.servers[aim.server].addresses.contains(from)
        });
        let kept: Vec<_> = kept.cloned().collect();
        if kept.is_empty() {
            return;
        }
        let (_, _, message) = &kept[air.rng.below(kept.len() as u64) as usize];
        let uri = callee(air, scenario, aim.server);
        let mut bytes = replaced(message, place(message, message.uri()), uri.as_bytes());
        let of_dialog = Reading::new(bytes.clone());
        if let Some(to) = of_dialog.value(Field::To).filter(|_| air.rng.one_in(2)) {
            bytes = replaced(&of_dialog, place(&of_dialog, to), address_of(to));
        }
        let with_contact = Reading::new(bytes.clone());
        if let Some(contact) = with_contact.value(Field::Contact).filter(|_| air.rng.one_in(3)) {
            let own = self.contact(aim);
            bytes = replaced(&with_contact, place(&with_contact, contact), &own);
        }
        let branch = air.rng.next_u64();
        let via = format!("Via: SIP/2.0/UDP {};branch=z9hG4bKm{branch:x}\r\n", aim.from);
        let start = bytes.windows(2).position(|end| end == b"\r\n");
        let start = start.map_or(bytes.len(), |end| end + 2);
        bytes.splice(start..start, via.into_bytes());
        air.statistics.forged_spirals += 1;
        air.send(aim.from, aim.at, bytes, Intent::Hostile);
    }

    /// The cookie of a call of its own, for what the call is not.
    pub(super) fn reuse_cookie(&mut self, air: &mut Air, scenario: &Scenario, aim: Aim) {
        let count = self.held.len() as u64;
        if count == 0 {
            return;
        }
        let held = self.held.remove(air.rng.below(count) as usize);
        let Some(mut held) = held else {
            return;
        };
        let domain = domain(air, scenario, held.server);
        held.cseq += 1;
        let tag = param(&held.local, b"tag").unwrap_or(b"").to_vec();
        let from = match air.rng.below(4) {
            0 => held.local.clone(),
            n => {
                let name = spelled(air, scenario, held.server, &domain);
                let mut from = format!("<{name}>;tag=").into_bytes();
                // Its own tag, or another.
                put(&mut from, &[if n == 1 { b"zz" } else { &tag[..] }]);
                from
            }
        };
        let to = match air.rng.below(3) {
            0 => held.remote.clone(),
            1 => format!("<sip:u1@{domain}>;tag=any").into_bytes(),
            _ => [address_of(&held.remote), &b";tag=other"[..]].concat(),
        };
        let uri = match air.rng.below(5) {
            0 | 1 => held.target.clone(),
            2 => callee(air, scenario, held.server).into_bytes(),
            3 => {
                let gateway = String::from_utf8_lossy(GATEWAY_PREFIX).into_owned();
                format!("sip:{gateway}1@{domain}").into_bytes()
            }
            _ => {
                // Some phone that is registered elsewhere.
                let place = scenario.homes[air.rng.below(scenario.homes.len() as u64) as usize];
                format!("sip:x@{place}").into_bytes()
            }
        };
        let method = [&b"INVITE"[..], b"MESSAGE", b"INFO", b"BYE"][air.rng.below(4) as usize];
        let out = self.inside(air, &held, method, held.cseq, &uri, &from, &to);
        air.statistics.reused_cookies += 1;
        if let Some(to) = next_hop(&held) {
            air.send(held.at, to, out, Intent::Hostile);
        }
        let _ = aim;
        keep(&mut self.held, held);
    }

    /// Somebody's name, spelled otherwise, without credentials or with its own.
    pub(super) fn misspell(&mut self, air: &mut Air, scenario: &Scenario, aim: Aim) {
        let domain = domain(air, scenario, aim.server);
        let name = spelled(air, scenario, aim.server, &domain);
        let callee = callee(air, scenario, aim.server);
        let display = match air.rng.below(4) {
            0 => "\"Mallory <sip:mallory@m.example>\" ",
            1 => "Boss ",
            _ => "",
        };
        let from = format!("{display}<{name}>;tag={:x}", air.rng.below(1 << 32));
        let to = format!("<{callee}>");
        let method = [&b"INVITE"[..], b"MESSAGE", b"OPTIONS"][air.rng.below(3) as usize];
        let mut out = self.begin(air, aim, method, callee.as_bytes(), from.as_bytes(), to.as_bytes());
        line(&mut out, "Contact", &[&self.contact(aim)]);
        finish(&mut out, b"");
        air.statistics.misspelled += 1;
        match air.rng.one_in(2) {
            true => air.send(aim.from, aim.at, out, Intent::Hostile),
            false => {
                let account = mallory(scenario, aim.server, &domain);
                self.prove(air, aim, account, out);
            }
        }
    }

    /// Its own credentials, made for another Request-URI or method.
    pub(super) fn lend(&mut self, air: &mut Air, scenario: &Scenario, aim: Aim) {
        let domain = domain(air, scenario, aim.server);
        let account = mallory(scenario, aim.server, &domain);
        let known = self.challenges.iter_mut().rev();
        let Some((_, challenge)) =
            known.filter(|(server, c)| *server == aim.server && c.qop).find(|(_, c)| c.realm == account.realm.as_bytes())
        else {
            return;
        };
        let mut challenge = challenge.clone();
        challenge.count += 1000 + air.rng.below(50) as u32;
        let proxy = challenge.proxy;
        let method: &[u8] = if proxy { b"INVITE" } else { b"REGISTER" };
        let made_for = format!("sip:friend@{domain}");
        let value = challenge.answer(&account, method, made_for.as_bytes(), b"", false);
        let own = format!("<sip:{MALLORY}@{domain}>");
        let from = format!("{own};tag=l{:x}", air.rng.below(1 << 32));
        let uri = match proxy {
            true => callee(air, scenario, aim.server),
            false => format!("sip:{domain}"),
        };
        let mut out = self.begin(air, aim, method, uri.as_bytes(), from.as_bytes(), own.as_bytes());
        line(&mut out, "Contact", &[&self.contact(aim)]);
        line(&mut out, challenge.header(), &[&value]);
        finish(&mut out, b"");
        air.statistics.lent += 1;
        air.send(aim.from, aim.at, out, Intent::Hostile);
    }

    /// A count of a nonce that it has used before, for another request.
    pub(super) fn count_again(&mut self, air: &mut Air, scenario: &Scenario, aim: Aim) {
        let domain = domain(air, scenario, aim.server);
        let account = mallory(scenario, aim.server, &domain);
        let known = self.challenges.iter().rev();
        let used = known
            .filter(|(server, c)| *server == aim.server && c.count > 0 && c.proxy)
            .find(|(_, c)| c.realm == account.realm.as_bytes());
        let Some((_, challenge)) = used else {
            return;
        };
        let mut challenge = challenge.clone();
        challenge.count -= 1;
        let own = format!("<sip:{MALLORY}@{domain}>;tag={:x}", air.rng.below(1 << 32));
        let uri = callee(air, scenario, aim.server);
        let to = format!("<{uri}>");
        let mut out = self.begin(air, aim, b"MESSAGE", uri.as_bytes(), own.as_bytes(), to.as_bytes());
        let value = challenge.answer(&account, b"MESSAGE", uri.as_bytes(), b"again", false);
        line(&mut out, challenge.header(), &[&value]);
        finish(&mut out, b"again");
        air.statistics.counted_again += 1;
        air.send(aim.from, aim.at, out, Intent::Hostile);
    }

    /// Its own credentials for somebody else's bindings.
    pub(super) fn register_another(&mut self, air: &mut Air, scenario: &Scenario, aim: Aim) {
        let domain = domain(air, scenario, aim.server);
        let name = spelled(air, scenario, aim.server, &domain);
        let from = match air.rng.one_in(2) {
            true => format!("<sip:{MALLORY}@{domain}>;tag=o"),
            false => format!("<{name}>;tag=o"),
        };
        let uri = format!("sip:{domain}");
        let to = format!("<{name}>");
        let mut out = self.begin(air, aim, b"REGISTER", uri.as_bytes(), from.as_bytes(), to.as_bytes());
        match air.rng.below(3) {
            0 => {
                line(&mut out, "Contact", &[b"*"]);
                line(&mut out, "Expires", &[b"0"]);
            }
            _ => line(&mut out, "Contact", &[&self.contact(aim), b";q=1.0"]),
        }
        finish(&mut out, b"");
        air.statistics.registered_for_others += 1;
        let account = mallory(scenario, aim.server, &domain);
        self.prove(air, aim, account, out);
    }

    /// Somebody's request with its credentials once more, changed in what they do not cover.
    pub fn replay(&mut self, air: &mut Air, scenario: &Scenario, all: bool) {
        let Some((to, message)) = any(air, &self.captured).cloned() else {
            return;
        };
        self.replay_one(air, scenario, to, &message);
        if all {
            for (to, message) in self.captured.clone() {
                self.replay_one(air, scenario, to, &message);
            }
        }
    }

    pub(super) fn replay_one(&mut self, air: &mut Air, scenario: &Scenario, to: SocketAddr, message: &Reading) {
        let from = scenario.attackers[air.rng.below(scenario.attackers.len() as u64) as usize];
        if from.is_ipv6() != to.is_ipv6() {
            return;
        }
        let mut bytes = message.bytes.clone();
        if air.rng.one_in(2) {
            let branch = format!("z9hG4bKm{:x}", air.rng.next_u64());
            bytes = with_branch(message, &branch);
        }
        let copy = Reading::new(bytes);
        let contact = copy.lines.iter().find(|l| l.field == Field::Contact);
        let expires = copy.lines.iter().find(|l| l.field == Field::Expires);
        let bytes = match (air.rng.below(6), contact, expires) {
            (0 | 1, Some(line), _) => {
                let evil = format!("<sip:{MALLORY}@{from}>");
                replaced(&copy, line.value.clone(), evil.as_bytes())
            }
            (2, _, Some(line)) => replaced(&copy, line.value.clone(), b"0"),
            (3, ..) => {
                let uri = callee(air, scenario, 0);
                replaced(&copy, place(&copy, copy.uri()), uri.as_bytes())
            }
            (4, ..) => {
                let shorter = Reading::new(without(&copy, Field::ContentLength));
                [&shorter.bytes[..shorter.body.start], b"other body"].concat()
            }
            (0 | 1, None, _) if copy.method() == b"REGISTER" => {
                let evil = format!("<sip:{MALLORY}@{from}>");
                with_line(&copy, "Contact", evil.as_bytes())
            }
            _ => copy.bytes,
        };
        air.statistics.replayed_proofs += 1;
        air.send(from, to, bytes, Intent::Hostile);
    }

    /// The right branch, and nothing else of the INVITE.
    pub(super) fn cancel_by_branch(&mut self, air: &mut Air, scenario: &Scenario, aim: Aim) {
        let servers = &scenario.servers;
        let found = air
            .overheard
            .iter()
            .rev()
            .find(|(_, to, m)| m.is_request() && m.method() == b"INVITE" && servers.iter().any(|s| s.addresses.contains(to)));
        let Some((from, to, invite)) = found.cloned() else {
            return;
        };
        let cancel = Reading::new(cancel_for(&invite));
        let line_of = |field| cancel.lines.iter().find(|l| l.field == field);
        let wrong = match air.rng.below(4) {
            0 => line_of(Field::CallId).map(|l| replaced(&cancel, l.value.clone(), b"other@gang")),
            1 => cancel.tag(Field::From).map(|tag| replaced(&cancel, place(&cancel, tag), b"othertag")),
            2 => line_of(Field::CSeq).map(|l| replaced(&cancel, l.value.clone(), b"99 CANCEL")),
            _ => Some(replaced(&cancel, place(&cancel, cancel.uri()), b"sip:else@a.example")),
        };
        // From its own address, or with the caller's.
        let from = match aim.from.is_ipv6() == to.is_ipv6() && air.rng.one_in(2) {
            true => aim.from,
            false => from,
        };
        if let Some(wrong) = wrong {
            air.statistics.cancels_by_branch += 1;
            air.send(from, to, wrong, Intent::Hostile);
        }
    }

    /// An ACK that belongs to nothing.
    pub(super) fn stray_ack(&mut self, air: &mut Air, scenario: &Scenario, aim: Aim) {
        let callee = match air.rng.one_in(2) {
            true => format!("sip:{MALLORY}@{}", domain(air, scenario, aim.server)),
            false => callee(air, scenario, aim.server),
        };
        let to = format!("<{callee}>;tag=none");
        let from = b"<sip:mallory@m.example>;tag=none";
        let mut out = self.begin(air, aim, b"ACK", callee.as_bytes(), from, to.as_bytes());
        finish(&mut out, b"");
        air.statistics.stray_acks += 1;
        air.send(aim.from, aim.at, out, Intent::Hostile);
    }

    /// Contacts of its own that name the server, by a name or an address, and each other.
    pub(super) fn bind_to_server(&mut self, air: &mut Air, scenario: &Scenario, aim: Aim) {
        let domain = domain(air, scenario, aim.server);
        let own = format!("<sip:{MALLORY}@{domain}>");
        let from = format!("{own};tag=b");
        let uri = format!("sip:{domain}");
        let mut out = self.begin(air, aim, b"REGISTER", uri.as_bytes(), from.as_bytes(), own.as_bytes());
        let most = if Rule::Copies.is_awaited() { 1 } else { 4 };
        for n in 0..1 + air.rng.below(most) {
            let contact = match air.rng.below(3) {
                0 => format!("<sip:{MALLORY}@{domain};x={n}>;expires=60"),
                1 => format!("<sip:{MALLORY}@{};x={n}>;expires=60", aim.at),
                _ => format!("<sip:u{n}@{domain};x={n}>;expires=60"),
            };
            line(&mut out, "Contact", &[contact.as_bytes()]);
        }
        finish(&mut out, b"");
        air.statistics.bound_to_server += 1;
        let account = mallory(scenario, aim.server, &domain);
        self.prove(air, aim, account, out);
    }

    /// Two REGISTERs with one Call-ID and CSeq, and other contents.
    pub(super) fn register_twice(&mut self, air: &mut Air, scenario: &Scenario, aim: Aim) {
        let domain = domain(air, scenario, aim.server);
        let own = format!("<sip:{MALLORY}@{domain}>");
        let from = format!("{own};tag=t");
        let uri = format!("sip:{domain}");
        let out = self.begin(air, aim, b"REGISTER", uri.as_bytes(), from.as_bytes(), own.as_bytes());
        for n in 0..2 {
            let mut out = out.clone();
            match (n, air.rng.below(3)) {
                (0, _) => line(&mut out, "Contact", &[&self.contact(aim)]),
                (_, 0) => {
                    line(&mut out, "Contact", &[b"*"]);
                    line(&mut out, "Expires", &[b"0"]);
                }
                (_, 1) => line(&mut out, "Contact", &[&self.contact(aim), b";expires=0"]),
                _ => line(&mut out, "Contact", &[b"<sip:second@", aim.from.to_string().as_bytes(), b">"]),
            }
            finish(&mut out, b"");
            let branch = format!("z9hG4bKm{:x}", air.rng.next_u64());
            let bytes = with_branch(&Reading::new(out), &branch);
            let account = mallory(scenario, aim.server, &domain);
            self.prove(air, aim, account, bytes);
        }
        air.statistics.registered_twice += 1;
    }

    /// To a request that came: a response with our Via alone, or with two tags, or nobody's.
    pub(super) fn odd_response(&mut self, air: &mut Air) {
        let kept: Vec<_> = self.seen.iter().filter(|(_, _, m)| m.is_request()).cloned().collect();
        if kept.is_empty() {
            return;
        }
        let (from, at, message) = &kept[air.rng.below(kept.len() as u64) as usize];
        let status = [183, 200, 404, 603][air.rng.below(4) as usize];
        let mut out = response(message, status, "Odd", b"odd");
        finish(&mut out, b"");
        let odd = Reading::new(out);
        let bytes = match air.rng.below(3) {
            0 => {
                let vias = odd.lines.iter().filter(|l| l.field == Field::Via).skip(1);
                let mut bytes = odd.bytes.clone();
                let lines: Vec<_> = vias.map(|line| line.whole.clone()).collect();
                for line in lines.into_iter().rev() {
                    bytes.drain(line);
                }
                bytes
            }
            1 => {
                let to = odd.lines.iter().find(|l| l.field == Field::To);
                let end = to.map_or(0, |line| line.value.end);
                replaced(&odd, end..end, b";tag=twice")
            }
            _ => without(&odd, Field::ContentLength),
        };
        air.statistics.odd_responses += 1;
        air.send(*at, *from, bytes, Intent::Hostile);
    }

    /// A body without a length, as datagrams may have it, towards whoever speaks by streams.
    pub(super) fn no_length(&mut self, air: &mut Air, scenario: &Scenario, aim: Aim) {
        let callee = callee(air, scenario, aim.server);
        let method = [&b"MESSAGE"[..], b"OPTIONS", b"INVITE", b"ACK"][air.rng.below(4) as usize];
        let to = format!("<{callee}>");
        let from = b"<sip:mallory@m.example>;tag=n";
        let mut out = self.begin(air, aim, method, callee.as_bytes(), from, to.as_bytes());
        line(&mut out, "Contact", &[&self.contact(aim)]);
        put(&mut out, &[b"\r\nBYE sip:a@b SIP/2.0\r\n\r\n"]);
        air.statistics.without_length += 1;
        air.send(aim.from, aim.at, out, Intent::Hostile);
    }

    /// What only a trusted source may assert (RFC 3325).
    pub(super) fn assert(&mut self, air: &mut Air, scenario: &Scenario, aim: Aim) {
        let domain = domain(air, scenario, aim.server);
        let callee = callee(air, scenario, aim.server);
        let to = format!("<{callee}>");
        let from = b"<sip:mallory@m.example>;tag=p";
        let mut out = self.begin(air, aim, b"INVITE", callee.as_bytes(), from, to.as_bytes());
        let asserted = format!("\"The Boss\" <sip:{BOSS}@{domain}>");
        let name = ["P-Asserted-Identity", "p-asserted-identity"][air.rng.below(2) as usize];
        line(&mut out, name, &[asserted.as_bytes()]);
        if air.rng.one_in(2) {
            line(&mut out, name, &[b"<tel:+4930123>"]);
        }
        line(&mut out, "Contact", &[&self.contact(aim)]);
        finish(&mut out, b"");
        air.statistics.asserted += 1;
        air.send(aim.from, aim.at, out, Intent::Hostile);
    }

    /// What makes a server write more than it read.
    pub(super) fn long_list(&mut self, air: &mut Air, scenario: &Scenario, aim: Aim) {
        let domain = domain(air, scenario, aim.server);
        let uri = format!("sip:{domain}");
        let from = b"<sip:mallory@m.example>;tag=x";
        let method = [&b"OPTIONS"[..], b"REGISTER", b"MESSAGE"][air.rng.below(3) as usize];
        let to = format!("<sip:u1@{domain}>");
        let mut out = self.begin(air, aim, method, uri.as_bytes(), from, to.as_bytes());
        let name = ["Require", "Proxy-Require"][air.rng.below(2) as usize];
        let list = vec!["a"; 1 + air.rng.below(120) as usize].join(",");
        line(&mut out, name, &[list.as_bytes()]);
        finish(&mut out, b"");
        air.statistics.long_lists += 1;
        air.send(aim.from, aim.at, out, Intent::Hostile);
    }
}

/// One of the ways to write a user of a domain (RFC 3261 §19.1).
fn spelled(air: &mut Air, scenario: &Scenario, server: usize, domain: &str) -> String {
    let user = victim(air);
    let addresses = &scenario.servers[server].addresses;
    let at = addresses[air.rng.below(addresses.len() as u64) as usize];
    let ip = match at.is_ipv6() {
        true => format!("[{}]", at.ip()),
        false => at.ip().to_string(),
    };
    let escaped = format!("%{:02x}{}", user.as_bytes()[0], &user[1..]);
    let elsewhere = stranger(false, 1).ip();
    match air.rng.below(13) {
        0 => format!("sip:{user}@{domain}"),
        1 => format!("sip:{user}@{domain}:9999"),
        2 => format!("sip:{user}@{domain}."),
        3 => format!("sip:{user}@{domain};maddr={elsewhere}"),
        4 => format!("sip:{user}@{}", domain.to_uppercase()),
        5 => format!("sip:{escaped}@{domain}"),
        6 => format!("sip:{user}@{ip}"),
        7 => format!("sip:{user}@{ip}:9999"),
        8 => format!("sips:{user}@{domain}"),
        9 => format!("sip:{user}:secret@{domain}"),
        10 => format!("SIP:{user}@{domain}.:5060;transport=tls"),
        11 => format!("sip:{user}@{domain};user=phone"),
        _ => format!("sip:{escaped}@{domain}.:5070;maddr={elsewhere}"),
    }
}

/// The name-addr without its parameters.
fn address_of(value: &[u8]) -> &[u8] {
    let end = value.iter().rposition(|b| *b == b'>');
    end.map_or(value, |end| &value[..=end])
}
