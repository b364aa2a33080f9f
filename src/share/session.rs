//! The connections through which one thread speaks to Redis, each part of the table by the server that has it.

use super::resp::Reply;
use super::script::SCRIPT;
use super::shards::PARTS;
use super::trouble::Trouble;
use super::wire::{Credentials, Wire, sound};
use crate::settings::{SharedStore, StoreKind};
use openssl::error::ErrorStack;
use openssl::ssl::{SslConnector, SslMethod, SslVersion};
use openssl::x509::store::X509StoreBuilder;
use std::path::Path;

/// Where the shared table is, and who we are there.
#[derive(Clone)]
pub struct Access {
    pub store: SharedStore,
    pub credentials: Credentials,
    /// How servers prove who they are, if they are spoken to over TLS.
    pub connector: Option<SslConnector>,
}

impl Access {
    /// `trusted_ca` is a file with the authorities that a server's certificate must come from; `None` stands for those of the system. The
    /// error is one line.
    pub fn new(store: SharedStore, credentials: Credentials, trusted_ca: Option<&Path>) -> Result<Access, String> {
        let connector = match store.kind {
            StoreKind::Secure => Some(connector(trusted_ca).map_err(|error| format!("{store}: TLS: {error}"))?),
            StoreKind::Plain | StoreKind::Sentinels(_) => None,
        };
        Ok(Access { store, credentials, connector })
    }
}

fn connector(trusted_ca: Option<&Path>) -> Result<SslConnector, ErrorStack> {
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    if let Some(file) = trusted_ca {
        // Those, and not the system's as well.
        builder.set_cert_store(X509StoreBuilder::new()?.build());
        builder.set_ca_file(file)?;
    }
    Ok(builder.build())
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
        let SharedStore { kind, hosts, db } = &access.store;
        let mut wire = match (kind, hosts.first()) {
            (StoreKind::Sentinels(service), _) => primary(hosts, service, access)?,
            (_, Some((host, port))) => Wire::open(host, *port, access.connector.as_ref(), &access.credentials)?,
            (_, None) => return Err(Trouble::Lost("it has no address".to_owned())),
        };
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

/// Asks the sentinels, one after the other, for the primary of the service, and connects there.
fn primary(sentinels: &[(String, u16)], service: &str, access: &Access) -> Result<Wire, Trouble> {
    let mut outcome = Err(Trouble::Lost("it has no sentinels".to_owned()));
    for (host, port) in sentinels {
        outcome = named_by(host, *port, service).and_then(|(ip, port)| {
            let mut wire = Wire::open(&ip, port, None, &access.credentials)?;
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
fn named_by(host: &str, port: u16, service: &str) -> Result<(String, u16), Trouble> {
    let mut wire = Wire::open(host, port, None, &Credentials::default())?;
    let reply = wire.call(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", service.as_bytes()])?;
    let words = reply.list().unwrap_or_default();
    let [Reply::Text(ip), port @ Reply::Text(_)] = words else {
        return Err(Trouble::Lost(format!("the sentinel {host} knows no service {service}")));
    };
    let port = port.number().and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or_else(|| unexpected("SENTINEL", &reply))?;
    Ok((String::from_utf8_lossy(ip).into_owned(), port))
}

/// Redis has replied something that it should not.
pub fn unexpected(to: &str, reply: &Reply) -> Trouble {
    let mut said = format!("{reply:?}");
    if let Some((end, _)) = said.char_indices().nth(100) {
        said.truncate(end);
    }
    Trouble::Lost(format!("to {to} it replies {said}"))
}
