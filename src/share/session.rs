//! The connections through which one thread speaks to Redis, each part of the table by the server that has it.

use super::resp::Reply;
use super::script::SCRIPT;
use super::shards::PARTS;
use super::trouble::Trouble;
use super::wire::{Credentials, Wire, sound};
use crate::settings::SharedStore;

/// Where the shared table is, and who we are there.
#[derive(Clone)]
pub struct Access {
    pub store: SharedStore,
    pub credentials: Credentials,
}

pub struct Session {
    wires: Vec<Wire>,
    /// By part, which of them leads to it.
    of_part: [usize; PARTS],
    /// The script's name, as Redis gave it.
    pub script: Vec<u8>,
}

impl Session {
    pub fn open(access: &Access) -> Result<Session, Trouble> {
        let SharedStore { host, port, db } = &access.store;
        let mut wire = Wire::open(host, *port, &access.credentials)?;
        if *db != 0 {
            wire.call(&[b"SELECT", db.to_string().as_bytes()])?;
        }
        let mut session = Session { wires: vec![wire], of_part: [0; PARTS], script: Vec::new() };
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
        &mut self.wires[self.of_part[part]]
    }

    /// Returns the connection to the server that has the keys of nodes.
    pub fn node_wire(&mut self) -> &mut Wire {
        &mut self.wires[0]
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

/// Redis has replied something that it should not.
pub fn unexpected(to: &str, reply: &Reply) -> Trouble {
    let mut said = format!("{reply:?}");
    if let Some((end, _)) = said.char_indices().nth(100) {
        said.truncate(end);
    }
    Trouble::Lost(format!("to {to} it replies {said}"))
}
