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
use super::trouble::{Trouble, unexpected};
use super::wire::{Wire, sound};
use crate::settings::{SharedStore, StoreKind};
use std::ops::RangeInclusive;

pub struct Session {
    wires: Vec<Wire>,
    /// Which of them leads to which slots of a cluster; without a cluster, the first to all.
    slots: Vec<(RangeInclusive<u16>, usize)>,
    /// The script's name, as Redis gave it.
    pub script: Vec<u8>,
}

impl Session {
    pub fn open(access: &Access) -> Result<Session, Trouble> {
        let SharedStore { kind, hosts, db, .. } = &access.store;
        if *kind == StoreKind::Cluster {
            let (slots, wires) = cluster::connect(hosts, access)?;
            let mut session = Session { wires, slots, script: Vec::new() };
            session.load_script()?;
            return Ok(session);
        }
        let mut wire = match (kind, hosts.first()) {
            (StoreKind::Sentinels(service), _) => primary(hosts, service, access)?,
            (_, Some((host, port))) => Wire::open(host, *port, access)?,
            (_, None) => return Err(Trouble::Lost("it has no address".to_owned())),
        };
        if *db != 0 {
            wire.call(&[b"SELECT", db.to_string().as_bytes()])?;
        }
        let mut session = Session { wires: vec![wire], slots: vec![(0..=u16::MAX, 0)], script: Vec::new() };
        session.load_script()?;
        Ok(session)
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

    /// Asks something of each part; `words` are the command's for one.
    pub fn of_each_part(&mut self, words: impl Fn(usize) -> Vec<Vec<u8>>) -> Result<Vec<Reply>, Trouble> {
        for part in 0..PARTS {
            let words = words(part);
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            self.wire(part).put(&words);
        }
        self.flush()?;
        (0..PARTS).map(|part| sound(self.wire(part).read()?)).collect()
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

/// Asks the sentinels, one after the other, for the primary of the service, and connects there.
fn primary(sentinels: &[(String, u16)], service: &str, access: &Access) -> Result<Wire, Trouble> {
    let mut outcome = Err(Trouble::Lost("it has no sentinels".to_owned()));
    for (host, port) in sentinels {
        outcome = named_by(host, *port, service, access).and_then(|(ip, port)| {
            let mut wire = Wire::open(&ip, port, access)?;
            let role = wire.call(&[b"ROLE"])?;
            match role.list().and_then(|list| list.first()?.text()) {
                Some(b"master") => Ok(wire),
                _ => Err(Trouble::Lost(format!("the sentinel {host} names {ip}:{port}, which is not the primary"))),
            }
        });
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Returns the primary that one sentinel names.
fn named_by(host: &str, port: u16, service: &str, access: &Access) -> Result<(String, u16), Trouble> {
    let mut wire = Wire::open_unproved(host, port, access)?;
    let reply = wire.call(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", service.as_bytes()])?;
    let words = reply.list().unwrap_or_default();
    let [Reply::BulkString(ip), port] = words else {
        return Err(Trouble::Lost(format!("the sentinel {host} knows no service {service}")));
    };
    let port = port.number().and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or_else(|| unexpected("SENTINEL", &reply))?;
    Ok((String::from_utf8_lossy(ip).into_owned(), port))
}
