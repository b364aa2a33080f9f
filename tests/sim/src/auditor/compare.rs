//! What a proxy may change in a request and what it must (RFC 3261 §16.4, §16.6, §16.7), as comparisons of what came with
//! what left.

use super::hop::Hop;
use crate::address::Address;
use crate::reading::{Field, Line, Reading};
use crate::rule::Rule;
use crate::text::{address_spec, param, sent_by};
use std::net::SocketAddr;

pub type Verdict = Result<(), (Rule, String)>;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A request as it came, from `sources`, against the same as it left.
pub fn forwarded(hop: &Hop, came: &Reading, sources: &[SocketAddr], left: &Reading) -> Verdict {
    if came.method() != left.method() {
        return Err((Rule::BitForBit, "another method".into()));
    }
    vias(hop, came, sources, left)?;
    max_forwards(came, left)?;
    max_breadth(hop, came, left)?;
    record_route(hop, came, left)?;
    route(hop, came, left)?;
    if came.core != left.core {
        return Err((Rule::BitForBit, difference(came, left)));
    }
    content_length(came, left)?;
    let may_go = |line: &Line| match line.field {
        Field::AssertedIdentity => !sources.iter().all(|source| hop.trusts(*source)),
        _ => hop.guard.may_be_for_us(came.get(&line.value)),
    };
    taken_away(came, left, may_go, |line| hop.asserts_rightly(came, left, line))
}

/// A length that came leaves as it is; where none came there may be the right one (§20.14).
fn content_length(came: &Reading, left: &Reading) -> Verdict {
    let lines = |m: &Reading| -> Vec<Vec<u8>> {
        let lines = m.lines.iter().filter(|l| l.field == Field::ContentLength);
        lines.map(|line| m.get(&line.whole).to_vec()).collect()
    };
    let (a, b) = (lines(came), lines(left));
    let right = left.number(Field::ContentLength) == Some(left.body().len() as u64);
    if a == b || (a.is_empty() && b.len() == 1 && right) {
        return Ok(());
    }
    Err((Rule::BitForBit, format!("{} Content-Length came, {} left", a.len(), b.len())))
}

/// Credentials and asserted identities: what leaves has come, in its order, but for what `may_come`, and only what `may_go`
/// does not leave.
fn taken_away(came: &Reading, left: &Reading, may_go: impl Fn(&Line) -> bool, may_come: impl Fn(&Line) -> bool) -> Verdict {
    let own = |line: &&Line| line.field.is_for_a_hop() && line.field != Field::ContentLength;
    let mut leaves = left.lines.iter().filter(own);
    for line in came.lines.iter().filter(own) {
        // What may come stands anywhere between.
        let same = |leaving: &&Line| left.get(&leaving.whole) == came.get(&line.whole);
        let next = leaves.clone().position(|leaving| same(&leaving) || !may_come(leaving));
        if let Some(place) = next
            && leaves.clone().nth(place).is_some_and(|leaving| same(&leaving))
        {
            leaves.nth(place);
        } else if !may_go(line) {
            let what = format!("{:?} came and did not leave", text(came.get(&line.whole)));
            return Err((Rule::BitForBit, what));
        }
    }
    match leaves.find(|line| !may_come(line)) {
        None => Ok(()),
        Some(line) => Err((Rule::BitForBit, format!("{:?} left and had not come", text(left.get(&line.whole))))),
    }
}

fn vias(hop: &Hop, came: &Reading, sources: &[SocketAddr], left: &Reading) -> Verdict {
    let wrong = |what: String| Err((Rule::ViaStack, what));
    if left.vias.len() != came.vias.len() + 1 {
        return wrong(format!("{} Via came, {} left", came.vias.len(), left.vias.len()));
    }
    let own = sent_by(left.via(0)).unwrap_or_default();
    if !hop.is_own_place(&own) {
        return wrong(format!("the top Via names {}", text(&own)));
    }
    if !param(left.via(0), b"branch").is_some_and(|b| b.starts_with(b"z9hG4bK")) {
        return wrong("no magic cookie in our branch".into());
    }
    if !same_via(came.via(0), left.via(1)) {
        return wrong(format!("came {} left {}", text(came.via(0)), text(left.via(1))));
    }
    received(came.via(0), left.via(1), sources)?;
    for n in 1..came.vias.len() {
        if came.via(n) != left.via(n + 1) {
            return wrong(format!("came {} left {}", text(came.via(n)), text(left.via(n + 1))));
        }
    }
    Ok(())
}

/// Equal but for `received` and `rport`.
pub fn same_via(a: &[u8], b: &[u8]) -> bool {
    let kept = |via: &[u8]| -> Vec<Vec<u8>> {
        via.split(|b| *b == b';')
            .map(|part| part.trim_ascii().to_vec())
            .filter(|part| {
                let name = part.split(|b| *b == b'=').next().unwrap_or(b"");
                let name = name.trim_ascii();
                !name.eq_ignore_ascii_case(b"received") && !name.eq_ignore_ascii_case(b"rport")
            })
            .collect()
    };
    kept(a) == kept(b)
}

/// RFC 3261 §18.2.1 and RFC 3581 §4: the source is written down where it is needed, and never a lie.
pub fn received(came: &[u8], left: &[u8], sources: &[SocketAddr]) -> Verdict {
    let wrong = |what: String| Err((Rule::ViaStack, what));
    let said = param(left, b"received").map(text);
    let ips: Vec<String> = sources.iter().map(|s| s.ip().to_string()).collect();
    let bare = |text: &str| text.trim_matches(|c| c == '[' || c == ']').to_string();
    if let Some(said) = &said {
        if !ips.contains(&bare(said)) {
            return wrong(format!("received={said}, it came from {ips:?}"));
        }
    } else {
        let host = text(&sent_by(came).unwrap_or_default());
        let named = sources.iter().any(|s| {
            let ip = s.ip().to_string();
            host == ip
                || host == format!("[{ip}]")
                || host == s.to_string()
                || Address::of(format!("sip:{host}").as_bytes()).and_then(|a| a.ip()) == Some(s.ip())
        });
        if !named {
            return wrong(format!("{host} is not the source and there is no received"));
        }
    }
    if param(came, b"rport").is_some() {
        let port = param(left, b"rport").map(text).unwrap_or_default();
        if !sources.iter().any(|s| s.port().to_string() == port) {
            return wrong(format!("rport={port}, it came from {sources:?}"));
        }
        if said.is_none() {
            return wrong("rport without received".into());
        }
    }
    Ok(())
}

fn max_forwards(came: &Reading, left: &Reading) -> Verdict {
    let wrong = |what: String| Err((Rule::MaxForwards, what));
    if left.count(Field::MaxForwards) != 1 {
        return wrong(format!("{} of them left", left.count(Field::MaxForwards)));
    }
    let Some(leaves) = left.number(Field::MaxForwards) else {
        return wrong("no number left".into());
    };
    match came.number(Field::MaxForwards) {
        Some(0) => wrong("0 was forwarded".into()),
        Some(comes) if leaves + 1 != comes => wrong(format!("{comes} came, {leaves} left")),
        None if leaves != 70 => wrong(format!("none came, {leaves} left")),
        _ => Ok(()),
    }
}

fn max_breadth(hop: &Hop, came: &Reading, left: &Reading) -> Verdict {
    let wrong = |what: String| Err((Rule::MaxBreadth, what));
    // Counted per branch; an ACK and a CANCEL fork nothing.
    if matches!(left.method(), b"ACK" | b"CANCEL") {
        return Ok(());
    }
    if left.count(Field::MaxBreadth) != 1 {
        return wrong(format!("{} of them left", left.count(Field::MaxBreadth)));
    }
    let Some(leaves) = left.number(Field::MaxBreadth) else {
        return wrong("no number left".into());
    };
    if leaves == 0 || leaves > hop.breadth(came) {
        return wrong(format!("{leaves} left, {} allowed", hop.breadth(came)));
    }
    Ok(())
}

fn record_route(hop: &Hop, came: &Reading, left: &Reading) -> Verdict {
    let wrong = |what: String| Err((Rule::RecordRoute, what));
    let (came_values, left_values) = (came.values(Field::RecordRoute), left.values(Field::RecordRoute));
    let added = left_values.len().checked_sub(came_values.len());
    let Some(added) = added.filter(|n| *n <= 2 && left_values[*n..] == came_values[..]) else {
        return wrong("the values that came did not leave as they were".into());
    };
    let forms_dialog = came.method() == b"INVITE" && came.tag(Field::To).is_none();
    if !hop.settings.proxy.record_route && added > 0 {
        return wrong("added against the conf".into());
    }
    if hop.settings.proxy.record_route && forms_dialog && added == 0 {
        return wrong("none was added".into());
    }
    for value in &left_values[..added] {
        let own = Address::of(address_spec(value)).filter(|a| hop.is_own(a.host, a.port));
        if own.is_none_or(|a| a.param(b"lr").is_none()) {
            return wrong(format!("{} is not ours, or not loose", text(value)));
        }
    }
    Ok(())
}

/// Own values that one pass takes off: a call that has come by more often leaves the others for its next pass.
const OWN_ROUTES: usize = 4;

/// The Route values that remain when the server's own are taken off the top.
pub fn routes_beyond<'a>(hop: &Hop, came: &'a Reading) -> (usize, Vec<&'a [u8]>) {
    let values = came.values(Field::Route);
    let own = values
        .iter()
        .take(OWN_ROUTES)
        .take_while(|value| Address::of(address_spec(value)).is_some_and(|a| hop.is_own(a.host, a.port)))
        .count();
    (own, values[own..].to_vec())
}

fn route(hop: &Hop, came: &Reading, left: &Reading) -> Verdict {
    let (_, beyond) = routes_beyond(hop, came);
    let routes = left.values(Field::Route);
    let added = routes.len().saturating_sub(beyond.len());
    // The Path of the binding that was chosen goes on top (RFC 3327 §5.2).
    let path = routes.ends_with(&beyond) && hop.has_path(left.uri(), &routes[..added]);
    let strict = strictly(&beyond, came, left, &routes) || from_strict_router(hop, &beyond, came, left, &routes);
    if routes != beyond && !path && !strict {
        return Err((Rule::Route, format!("{} values should remain, {} left", beyond.len(), left.values(Field::Route).len())));
    }
    Ok(())
}

/// True if the first of the routes beyond is a strict router, and has become the Request-URI (§16.6 step 6).
fn strictly(beyond: &[&[u8]], came: &Reading, left: &Reading, routes: &[&[u8]]) -> bool {
    let (Some((first, rest)), Some((last, before))) = (beyond.split_first(), routes.split_last()) else {
        return false;
    };
    let loose = Address::of(address_spec(first)).is_some_and(|a| a.param(b"lr").is_some());
    !loose && left.uri() == address_spec(first) && *before == *rest && address_spec(last) == came.uri()
}

/// True if a strict router has made us the Request-URI, and the last Route value has become it again (§16.4).
fn from_strict_router(hop: &Hop, beyond: &[&[u8]], came: &Reading, left: &Reading, routes: &[&[u8]]) -> bool {
    let own = Address::of(came.uri()).is_some_and(|a| hop.is_own(a.host, a.port));
    beyond.split_last().is_some_and(|(last, before)| own && *routes == *before && left.uri() == address_spec(last))
}

/// The first header line, or the body, that is not as it was.
pub fn difference(came: &Reading, left: &Reading) -> String {
    let kept = |m: &Reading| -> Vec<Vec<u8>> {
        m.lines
            .iter()
            .filter(|line| {
                !line.field.is_for_a_hop()
                    && !matches!(
                        line.field,
                        Field::Via | Field::Route | Field::RecordRoute | Field::MaxForwards | Field::MaxBreadth
                    )
            })
            .map(|line| m.get(&line.whole).to_vec())
            .collect()
    };
    let (a, b) = (kept(came), kept(left));
    for (x, y) in a.iter().zip(&b) {
        if x != y {
            return format!("came {:?} left {:?}", text(x), text(y));
        }
    }
    if a.len() != b.len() {
        return format!("{} lines came, {} left", a.len(), b.len());
    }
    format!("a body of {} bytes came, of {} left, or they differ", came.body().len(), left.body().len())
}

/// True if `left` is `came` without its top Via.
pub fn is_copy(came: &Reading, left: &Reading) -> bool {
    let same_status = came.status() == left.status() || (came.status() == 503 && left.status() == 500);
    came.trunk == left.trunk
        && content_length(came, left).is_ok()
        && taken_away(came, left, |line| line.field == Field::AssertedIdentity, |_| false).is_ok()
        && same_status
        && came.vias.len() == left.vias.len() + 1
        && (0..left.vias.len()).all(|n| came.via(n + 1) == left.via(n))
}
