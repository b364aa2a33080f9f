//! From TOML to a [`Conf`]: every fault of the file is reported with its position, and what would be right.

mod document;
mod edits;
mod listen;
mod location;
mod pem;
mod routes;
mod sections;
mod tls;
mod trace;
mod trunks;
mod uri;
mod values;
mod wrong;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::machine::Machine;
use super::model::Conf;
use crate::settings::{Control, Registrar};
use crate::stack::route::Routes;
use document::Document;
pub use routes::DEFAULT_REJECTION;
use wrong::Wrong;

/// Where a conf is looked for if none is named.
pub const SEARCH: [&str; 2] = ["conf/strowger.toml", "/etc/strowger/strowger.toml"];

/// Returns the file named, or the first of [`SEARCH`] that exists; `None` means the built-in defaults.
pub fn find(named: Option<&Path>) -> Option<PathBuf> {
    match named {
        Some(path) => Some(path.to_owned()),
        None => SEARCH.map(PathBuf::from).into_iter().find(|path| path.exists()),
    }
}

/// Loads the conf of [`find`].
pub fn load(named: Option<&Path>, machine: &Machine) -> Result<Conf, Faults> {
    let Some(path) = find(named) else {
        return parse("built-in defaults", "", machine);
    };
    let file = path.display().to_string();
    let bytes = read(&path)?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(&file, text, machine),
        Err(error) => {
            let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let wrong = Wrong::new(before.len(), "this is not UTF-8 text");
            Err(Faults::locate(&file, &before, vec![wrong]))
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Faults> {
    fs::read(path).map_err(|error| Faults::unreadable(&path.display().to_string(), &error))
}

/// Returns the control socket that the conf of [`find`] names, whatever else is wrong with it. If it cannot be made out, it is the
/// default one.
pub fn control_socket(named: Option<&Path>) -> Result<PathBuf, Faults> {
    let bytes = find(named).map(|path| read(&path)).transpose()?.unwrap_or_default();
    Ok(control_socket_in(&String::from_utf8_lossy(&bytes)))
}

fn control_socket_in(text: &str) -> PathBuf {
    let machine = Machine { cores: vec![0], memory: 0, files: 0 };
    let (root, _) = DeTable::parse_recoverable(text);
    Document::new(root.get_ref(), &machine).plain::<Control>().socket
}

/// Reads `text` as a conf; `file` is the name at the beginning of each fault.
pub fn parse(file: &str, text: &str, machine: &Machine) -> Result<Conf, Faults> {
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut document = Document::new(root.get_ref(), machine);
    let conf = document.conf();
    document.refuse_unknown();

    let wrongs = if errors.is_empty() {
        document.wrongs
    } else {
        // If the text is not TOML, faults derived from it would be misleading: its own faults are reported alone.
        let whole = |error: &toml::de::Error| {
            let at = error.span().map_or(0, |span| span.start);
            Wrong::new(at, format!("this is not TOML: {}", error.message()))
        };
        errors.iter().map(whole).collect()
    };
    if wrongs.is_empty() { Ok(conf) } else { Err(Faults::locate(file, text, wrongs)) }
}

/// Every known key, sections in alphabetical order, keys in the order of reading.
pub fn known_keys() -> BTreeMap<&'static str, Vec<&'static str>> {
    let machine = Machine { cores: vec![0], memory: 0, files: 0 };
    // One of each, because the keys of a repeatable table are only read if the table is present.
    let root = DeTable::parse_recoverable("[[listen]]\n[[route]]\n[[trunk]]\n[[tls.identity]]\n").0;
    let mut document = Document::new(root.get_ref(), &machine);
    document.conf();
    document.known
}

/// The faults of a conf, in the order of the file. Displayed as one line per fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    pub file: String,
    pub faults: Vec<Fault>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Line and column from 1, the column in characters; `None` if the file could not be read at all.
    pub place: Option<(usize, usize)>,
    pub message: String,
}

impl Faults {
    fn unreadable(file: &str, error: &io::Error) -> Faults {
        Faults { file: file.to_owned(), faults: vec![Fault { place: None, message: format!("cannot be read: {error}") }] }
    }

    fn locate(file: &str, text: &str, mut wrongs: Vec<Wrong>) -> Faults {
        wrongs.sort_by_key(|wrong| wrong.at);
        let fault = |wrong: Wrong| {
            let before = text.get(..wrong.at).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            Fault { place: Some((line, column)), message: wrong.message }
        };
        Faults { file: file.to_owned(), faults: wrongs.into_iter().map(fault).collect() }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&self.file)?;
            if let Some((line, column)) = fault.place {
                write!(f, ":{line}:{column}")?;
            }
            write!(f, ": {}", fault.message)?;
        }
        Ok(())
    }
}

impl Document<'_> {
    fn conf(&mut self) -> Conf {
        let listen = self.listeners();
        let (tls, certificates) = self.tls(&listen);
        let trace = self.trace(&listen);
        let (location, location_password) = self.location();
        let mut conf = Conf {
            server: self.server(),
            listen,
            tls,
            certificates,
            connections: self.connections(),
            proxy: self.plain(),
            registrar: Registrar::default(),
            location,
            location_password,
            auth: self.auth(),
            next_hop: self.plain(),
            timers: self.timers(),
            limits: self.plain(),
            udp: self.plain(),
            dns: self.plain(),
            control: self.plain(),
            metrics: self.plain(),
            records: self.plain(),
            trace,
            log: self.plain(),
            routes: Routes::default(),
            trunks: Vec::new(),
            password_files: Vec::new(),
        };
        conf.registrar = self.registrar(conf.location.shared.is_some());
        (conf.trunks, conf.password_files) = self.trunks();
        (conf.routes, conf.certificates.client_identities) = self.routes(&conf.trunks, conf.proxy.mode);
        self.refuse_unreachable(&conf);
        self.refuse_idle_challenge(&conf);
        self.refuse_idle_certificate(&conf);
        conf
    }
}

#[cfg(test)]
mod tests;
