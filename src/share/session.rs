//! The connections through which one thread speaks to Redis, each part of the table by the server that has it.
//!
//! They are connections of the `redis` crate. Its clients of sentinels and of clusters, which would make them, are not used: the first
//! waits without an end for a sentinel that is silent (`sentinel.rs` connects by `get_connection`, which has no time), the second connects
//! anew and goes where it is redirected without a word. But if a connection is not the one of before, Redis may have lost what it was told
//! through that, and `WAIT` does not cover it: then everything must be looked at again.

use super::access::Access;
use super::cluster;
use super::reply::{Contents, Reply};
use super::script::SCRIPT;
use super::shards::{PARTS, slot_of};
use super::trouble::{Trouble, refusal, unexpected};
use super::wire::Wire;
use crate::settings::{SharedStore, StoreKind};
use std::ops::RangeInclusive;

pub struct Session {
    wires: Vec<Wire>,
    /// Which of them leads to which slots of a cluster; without a cluster, the first to all.
    slots: Vec<(RangeInclusive<u16>, usize)>,
    /// The script's name, as Redis gave it.
    pub script: Vec<u8>,
    /// The primary that the sentinels named.
    primary: Option<(String, u16)>,
}

impl Session {
    /// `named` is the primary that the sentinels name, if that is known.
    pub fn open(access: &Access, named: Option<&(String, u16)>) -> Result<Session, Trouble> {
        let SharedStore { kind, hosts, db, .. } = &access.store;
        if *kind == StoreKind::Cluster {
            let (slots, wires) = cluster::connect(hosts, access)?;
            let mut session = Session { wires, slots, script: Vec::new(), primary: None };
            session.load_script()?;
            return Ok(session);
        }
        let (mut wire, primary) = match (kind, hosts.first()) {
            (StoreKind::Sentinels(service), _) => {
                let (wire, server) = primary(hosts, service, named, access)?;
                (wire, Some(server))
            }
            (_, Some((host, port))) => (Wire::open(host, *port, access)?, None),
            (_, None) => return Err(Trouble::Lost("it has no address".to_owned())),
        };
        if *db != 0 {
            wire.call(&[b"SELECT", db.to_string().as_bytes()])?;
        }
        let mut session = Session { wires: vec![wire], slots: vec![(0..=u16::MAX, 0)], script: Vec::new(), primary };
        session.load_script()?;
        Ok(session)
    }

    /// Refuses to go on if the sentinels name another primary than this one.
    pub fn check_named(&self, named: Option<&(String, u16)>) -> Result<(), Trouble> {
        match (&self.primary, named) {
            (Some(own), Some(named)) if own != named => {
                let (ip, port) = named;
                Err(Trouble::Lost(format!("{}:{} is the primary no more: the sentinels name {ip}:{port}", own.0, own.1)))
            }
            _ => Ok(()),
        }
    }

    /// Returns the time since 1970 in milliseconds, by Redis's clock; in a cluster, by that of one of its servers.
    pub fn time_ms(&mut self) -> Result<u64, Trouble> {
        let wire = self.wires.first_mut().ok_or_else(|| Trouble::Lost("it is not connected".to_owned()))?;
        let reply = wire.call(&[b"TIME"])?;
        let time = match reply.list() {
            Some([seconds, micros]) => seconds.number().zip(micros.number()),
            _ => None,
        };
        let (seconds, micros) = time.ok_or_else(|| unexpected("TIME", &reply))?;
        Ok(seconds.saturating_mul(1000).saturating_add(micros / 1000))
    }

    /// Returns how many replicas follow the primary; in a cluster, the one with the fewest. `None` if we may not ask.
    pub fn replicas(&mut self) -> Result<Option<usize>, Trouble> {
        let mut fewest = None;
        for wire in &mut self.wires {
            wire.put(&[b"ROLE"]);
            wire.flush()?;
            let reply = wire.read()?;
            if reply.error().is_some() {
                return Ok(None);
            }
            let replicas = reply.list().and_then(|list| list.get(2)?.list()).map_or(0, <[Reply]>::len);
            fewest = Some(fewest.map_or(replicas, |fewest: usize| fewest.min(replicas)));
        }
        Ok(fewest)
    }

    /// Has each server learn the script.
    pub fn load_script(&mut self) -> Result<(), Trouble> {
        for wire in &mut self.wires {
            let reply = wire.call(&[b"SCRIPT", b"LOAD", SCRIPT])?;
            self.script = reply.text().map(<[u8]>::to_vec).ok_or_else(|| unexpected("SCRIPT LOAD", &reply))?;
        }
        Ok(())
    }

    /// Returns the connection to the server that has this part.
    pub fn wire(&mut self, part: usize) -> &mut Wire {
        let number = self.number_of(slot_of(part.to_string().as_bytes()));
        &mut self.wires[number]
    }

    /// Returns the connection to the server that has a key without a hash tag.
    pub fn wire_of_key(&mut self, key: &[u8]) -> &mut Wire {
        let number = self.number_of(slot_of(key));
        &mut self.wires[number]
    }

    fn number_of(&self, slot: u16) -> usize {
        let found = self.slots.iter().find(|(slots, _)| slots.contains(&slot));
        found.map_or(0, |(_, number)| *number)
    }

    pub fn wires(&mut self) -> &mut [Wire] {
        &mut self.wires
    }

    pub fn flush(&mut self) -> Result<(), Trouble> {
        self.wires.iter_mut().try_for_each(Wire::flush)
    }

    /// Asks something of each part; `words` are the command's for one. A part where another program has the key answers so.
    pub fn of_each_part(&mut self, words: impl Fn(usize) -> Vec<Vec<u8>>) -> Result<Vec<Reply>, Trouble> {
        for part in 0..PARTS {
            let words = words(part);
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            self.wire(part).put(&words);
        }
        self.flush()?;
        let read = |part| {
            let reply = self.wire(part).read()?;
            refusal(&reply).map_or(Ok(reply), Err)
        };
        (0..PARTS).map(read).collect()
    }

    /// Returns what identifies the server's present life and history: after a restart, or if another has taken its place, it differs.
    /// `None` if it does not tell.
    pub fn history(&mut self) -> Result<Option<String>, Trouble> {
        let mut history = String::new();
        for wire in &mut self.wires {
            for (section, field) in [("server", "run_id:"), ("replication", "master_replid:")] {
                wire.put(&[b"INFO", section.as_bytes()]);
                wire.flush()?;
                let reply = wire.read()?;
                let text = reply.text().map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default();
                let Some(line) = text.lines().find(|line| line.starts_with(field)) else {
                    return Ok(None);
                };
                history.push_str(line);
            }
        }
        Ok(Some(history))
    }
}

/// Connects to the primary of a service: the one that is known, else the one that the first sentinel names which answers.
fn primary(
    sentinels: &[(String, u16)],
    service: &str,
    known: Option<&(String, u16)>,
    access: &Access,
) -> Result<(Wire, (String, u16)), Trouble> {
    if let Some(server) = known {
        return open_primary(server.clone(), access);
    }
    let mut outcome = Err(Trouble::Lost("it has no sentinels".to_owned()));
    for (host, port) in sentinels {
        let named = Wire::open_unproved(host, *port, access).and_then(|mut wire| named_by(&mut wire, host, service));
        outcome = named.and_then(|server| open_primary(server, access));
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

fn open_primary(server: (String, u16), access: &Access) -> Result<(Wire, (String, u16)), Trouble> {
    let (ip, port) = &server;
    let mut wire = Wire::open(ip, *port, access)?;
    let role = wire.call(&[b"ROLE"])?;
    match role.list().and_then(|list| list.first()?.text()) {
        Some(b"master") => Ok((wire, server)),
        _ => Err(Trouble::Lost(format!("the sentinels name {ip}:{port}, which is not the primary"))),
    }
}

/// Returns the primary that one sentinel names.
pub fn named_by(wire: &mut Wire, host: &str, service: &str) -> Result<(String, u16), Trouble> {
    let reply = wire.call(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", service.as_bytes()])?;
    let words = reply.list().unwrap_or_default();
    let [Reply::BulkString(ip), port] = words else {
        return Err(Trouble::Lost(format!("the sentinel {host} knows no service {service}")));
    };
    let port = port.number().and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or_else(|| unexpected("SENTINEL", &reply))?;
    Ok((String::from_utf8_lossy(ip).into_owned(), port))
}
