//! `strowger check`: reads the conf and everything that it names, and summarises the resulting server.

mod limits;
mod routes;

use super::output::{Outcome, print};
use super::places::Places;
use std::fmt::Display;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::SystemTime;
use strowger::base::{Key, Transport};
use strowger::config::{Conf, Machine, key};
use strowger::settings::Words;
use strowger::sip::Host;
use strowger::store::Source;
use strowger::store::users::Loaded;

pub fn check(places: &Places) -> Outcome {
    let conf = places.load()?;
    // Only the library can tell whether certificates and keys match.
    let explain = |error: String| format!("{}: {error}", places.conf_name());
    conf.identity().map_err(explain)?;
    conf.control_group().map_err(explain)?;
    let certificates = conf.check_certificates(SystemTime::now()).map_err(explain)?;
    let users = conf.read_users(Key::new(0, 0), Arc::default()).map_err(explain)?;
    conf.check_records().map_err(explain)?;
    print(|out| {
        writeln!(out, "{}: good", places.conf_name())?;
        summary(out, &conf, users.as_ref())?;
        let slips = conf.left_behind.iter().chain(&conf.warnings).cloned();
        let files = key::exposed_files(&conf).into_iter().chain(conf.other_users_file()).chain(certificates);
        for line in slips.chain(files) {
            writeln!(out, "warning    {line}")?;
        }
        Ok(())
    })
}

/// Writes a summary of the conf, a line for each thing an operator would look for.
fn summary(out: &mut dyn Write, conf: &Conf, users: Option<&(Source, Loaded)>) -> io::Result<()> {
    for listen in conf.listen.iter() {
        let transport = listen.transport.word();
        write!(out, "listen     {transport} {}", listen.address)?;
        if let Some(advertise) = &listen.advertise {
            write!(out, ", known as {advertise}")?;
        }
        if !listen.proxy_protocol.is_empty() {
            write!(out, ", PROXY header from {}", words(&listen.proxy_protocol))?;
        }
        writeln!(out)?;
    }
    streams(out, conf)?;
    writeln!(out, "cores      {}", words(&conf.server.cores))?;
    if !conf.server.domains.is_empty() {
        writeln!(out, "domains    {}", words(&conf.server.domains))?;
    }
    let (mode, fork) = (conf.proxy.mode, conf.proxy.fork);
    let on = |on| if on { "on" } else { "off" };
    writeln!(
        out,
        "proxy      {mode}, fork {fork}, Record-Route {}, redirect {}",
        on(conf.proxy.record_route),
        on(conf.proxy.redirect)
    )?;
    let registrar = &conf.registrar;
    if registrar.enabled {
        writeln!(
            out,
            "registrar  {} s to {} s, {} contacts each",
            registrar.min_expires, registrar.max_expires, registrar.max_contacts
        )?;
    } else {
        writeln!(out, "registrar  off")?;
    }
    if let Some((source, loaded)) = users {
        challenges(out, conf, source, loaded)?;
    }
    writeln!(out, "routes     {}", conf.routes.len())?;
    for (number, route) in conf.routes.iter().enumerate() {
        writeln!(out, "route {:<4} {}", number + 1, routes::in_words(route))?;
        for target in route.hops() {
            match target.address {
                Some(address) => write!(out, "next hop   {} {address}", target.transport.word())?,
                None => write!(out, "next hop   by name, {}", target.uri)?,
            }
            if target.transport == Transport::Tls && conf.tls.verify_server {
                write!(out, ", must prove to be {}", Host::of(&target.host))?;
            }
            match route.outgoing.filter(|_| target.transport.is_reliable()) {
                Some(outgoing) => writeln!(out, ", outgoing {outgoing}")?,
                None => writeln!(out)?,
            }
        }
    }
    for line in limits::lines(conf, &Machine::this()) {
        writeln!(out, "limit      {line}")?;
    }
    write!(out, "control    {}", conf.control.socket.display())?;
    match (conf.control.mode, &conf.control.group) {
        (0o660, Some(group)) => writeln!(out, ", for its owner and the group {group}"),
        (0o660, None) => writeln!(out, ", for its owner and the server's group"),
        _ => writeln!(out, ", for its owner alone"),
    }
}

/// Writes who is challenged, and which users exist.
fn challenges(out: &mut dyn Write, conf: &Conf, source: &Source, loaded: &Loaded) -> io::Result<()> {
    let auth = &conf.auth;
    let of_routes = conf.routes.iter().any(|route| route.challenge == Some(true));
    let challenged: Vec<&str> = [
        (auth.challenge_register, "REGISTER"),
        (auth.challenge_proxy, "calls"),
        (!auth.challenge_proxy && of_routes, "calls of some routes"),
        (auth.challenge_bye, "BYE"),
    ]
    .into_iter()
    .filter_map(|(is_so, what)| is_so.then_some(what))
    .collect();
    let realm = match auth.realm.as_str() {
        "" => "the domain of the request".to_owned(),
        realm => format!("{realm:?}"),
    };
    writeln!(out, "challenged {} by {}, realm {realm}", challenged.join(", "), words(&auth.algorithms))?;
    let (path, count) = (source.path().display(), loaded.users.len());
    write!(out, "users      {count} in {path}")?;
    if count > 0 {
        write!(out, " ({})", loaded.users.kinds())?;
    }
    match loaded.unusable.count {
        0 => writeln!(out)?,
        bad => writeln!(out, ", {bad} of its rows cannot be used as they are, the first: {}", loaded.unusable.first)?,
    }
    match loaded.users.kinds().consequences(&auth.algorithms).as_str() {
        "" => Ok(()),
        said => writeln!(out, "warning    of the users {said}"),
    }
}

/// Writes the settings of TCP and TLS: nothing if no listener uses them, because then no next hop does either.
fn streams(out: &mut dyn Write, conf: &Conf) -> io::Result<()> {
    if !conf.listen.iter().any(|listen| listen.transport.is_reliable()) {
        return Ok(());
    }
    let connections = &conf.connections;
    let most = match connections.max {
        Some(max) => format!("{max} at most"),
        None => "as many as open files allow".to_owned(),
    };
    writeln!(out, "streams    outgoing {}, {most}, closed after {} s idle", connections.outgoing, connections.idle_timeout / 1000)?;
    let tls = &conf.tls;
    for pair in &conf.certificates.default_identity {
        writeln!(out, "identity   {}", pair.certificate.display())?;
    }
    for identity in &conf.certificates.identities {
        for pair in &identity.pairs {
            let certificate = pair.certificate.display();
            writeln!(out, "identity   {certificate} for {}", identity.name)?;
        }
    }
    if conf.listens_by(Transport::Tls) {
        let servers = if tls.verify_server { "verified" } else { "not verified" };
        writeln!(
            out,
            "tls        {} to {}, client certificates {}, servers {servers}",
            tls.min_version, tls.max_version, tls.verify_client
        )?;
    }
    Ok(())
}

fn words(things: &[impl Display]) -> String {
    let words: Vec<String> = things.iter().map(ToString::to_string).collect();
    words.join(", ")
}
