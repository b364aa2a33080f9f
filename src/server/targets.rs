//! The health of next hops for operators: the targets of the conf, and all others that have failed.

use std::net::SocketAddr;
use strowger::base::metric::Families;
use strowger::base::{Instant, Transport};
use strowger::control::{FailureEntry, NextHopEntry, TargetEntry, Targets};
use strowger::settings::Words;
use strowger::stack::health::{Failure, Health, NamedBy, Neighbour};
use strowger::stack::route::NextHop;
use strowger::stack::settings::Settings;

/// Returns each target of the routes, then what else has failed.
pub fn targets(settings: &Settings, health: &Health, now: Instant) -> Targets {
    let failures = health.list();
    let mut shown = Targets::default();
    for (number, route) in settings.routes.iter().enumerate() {
        let entries = route.hops().iter().map(|hop| {
            let servers = servers_of(hop, health);
            let failure = failure_of(&servers, &failures);
            TargetEntry {
                route: number + 1,
                uri: hop.uri.to_string(),
                addresses: servers.iter().map(|(_, address)| address.to_string()).collect(),
                is_up: failure.is_none(),
                failure: failure.map(|failure| entry(failure, now)),
            }
        });
        shown.targets.extend(entries);
    }
    let is_target = |neighbour: &Neighbour| {
        let leads_there = |hop: &NextHop| hop.address == Some(neighbour.address) && hop.transport == neighbour.transport;
        neighbour.named_by == NamedBy::Conf && settings.routes.hops().any(leads_there)
    };
    for (neighbour, failure) in failures.iter().filter(|(neighbour, _)| !is_target(neighbour)) {
        shown.others.push(NextHopEntry {
            named_by: named_by(neighbour.named_by).to_owned(),
            transport: neighbour.transport.word().to_owned(),
            address: neighbour.address.to_string(),
            failure: entry(failure, now),
        });
    }
    shown
}

/// Counts whether each target is up, and how many next hops have failed.
pub fn count(list: &mut Families, settings: &Settings, health: &Health) {
    let failures = health.list();
    let up = list.gauge(
        "strowger_target_up",
        "0 while a target of a [[route]] is passed over because it has failed, and until it answers again.",
    );
    let mut counted: Vec<&[u8]> = Vec::new();
    for hop in settings.routes.hops().filter(|hop| !hop.uri.text().is_empty()) {
        let uri = hop.uri.text();
        if counted.contains(&uri) {
            continue;
        }
        counted.push(uri);
        let is_up = failure_of(&servers_of(hop, health), &failures).is_none();
        up.of(&[("target", &hop.uri.to_string())], is_up);
    }
    list.gauge(
        "strowger_next_hops_failed",
        "Next hops that have failed and not answered since: targets and their servers, contacts, and hosts that requests name.",
    )
    .is(failures.len());
}

type Server = (Transport, SocketAddr);

/// Returns the servers of a target, as far as known.
fn servers_of(hop: &NextHop, health: &Health) -> Vec<Server> {
    match hop.address {
        Some(address) => vec![(hop.transport, address)],
        None => health.name_servers.of(hop.uri.text()),
    }
}

/// A target has failed if all of its servers have; returns the failure that ends first.
fn failure_of<'f>(servers: &[Server], failures: &'f [(Neighbour, Failure)]) -> Option<&'f Failure> {
    let failure = |(transport, address): &Server| {
        let named_by = NamedBy::Conf;
        let (transport, address) = (*transport, *address);
        let neighbour = Neighbour { named_by, transport, address };
        failures.iter().find(|(failed, _)| *failed == neighbour).map(|(_, failure)| failure)
    };
    let all: Option<Vec<&Failure>> = servers.iter().map(failure).collect();
    all?.into_iter().min_by_key(|failure| failure.until)
}

fn entry(failure: &Failure, now: Instant) -> FailureEntry {
    FailureEntry {
        cause: failure.cause.words().to_owned(),
        failures: failure.failures,
        since_ms: now.ms_since(failure.since),
        passed_over_ms: failure.until.ms_since(now),
    }
}

const fn named_by(by: NamedBy) -> &'static str {
    match by {
        NamedBy::Conf => "target",
        NamedBy::Contact => "contact",
        NamedBy::Message => "request",
    }
}
