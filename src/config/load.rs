//! From TOML to a [`Conf`]: every fault of the file is reported with its position, and what would be right.

mod below;
mod document;
mod edits;
mod faults;
mod file;
mod listen;
mod location;
mod not_toml;
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
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::machine::Machine;
use super::model::Conf;
use crate::settings::{Control, Registrar};
use crate::stack::route::Routes;
use document::{Document, Plain};
pub use faults::{Fault, Faults};
pub use file::{SEARCH, find};
use file::{folder, read};
pub use routes::DEFAULT_REJECTION;
use wrong::Wrong;

/// Loads the conf of [`find`]. Relative paths in it are below its folder, and those of the built-in defaults below the working
/// directory.
pub fn load(named: Option<&Path>, machine: &Machine) -> Result<Conf, Faults> {
    let Some(path) = find(named)? else {
        return parse("built-in defaults", "", machine);
    };
    let file = path.display().to_string();
    let bytes = read(&path)?;
    let folder = folder(&path)?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => {
            let mut conf = parse_below(&file, text, Some(&folder), machine)?;
            conf.left_behind = below::left_behind(&conf, Path::new(&folder), Path::new(""));
            Ok(conf)
        }
        Err(error) => {
            let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let wrong = Wrong::new(before.len(), "this is not UTF-8 text");
            Err(Faults::locate(&file, &before, vec![wrong]))
        }
    }
}

/// The control socket that a conf names, as far as the conf can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlSocket {
    pub path: PathBuf,
    /// Why it is only the default one: a line for the operator.
    pub doubt: Option<String>,
}

/// Returns the control socket that the conf of [`find`] names, whatever else is wrong with it: commands speak to a server that runs,
/// and its conf may have changed since. The error says that the file cannot be found or read.
pub fn control_socket(named: Option<&Path>) -> Result<ControlSocket, Faults> {
    let Some(path) = find(named)? else {
        return Ok(ControlSocket { path: Control::default().socket, doubt: None });
    };
    let bytes = read(&path)?;
    let folder = folder(&path)?;
    Ok(control_socket_in(&path.display().to_string(), &String::from_utf8_lossy(&bytes), &folder))
}

fn control_socket_in(file: &str, text: &str, folder: &str) -> ControlSocket {
    let machine = Machine { cores: vec![0], memory: 0, files: 0 };
    let (mut root, errors) = DeTable::parse_recoverable(text);
    below::settle(root.get_mut(), folder);
    let mut document = Document::new(root.get_ref(), &machine);
    let socket = document.plain::<Control>().socket;
    let section = document.section(Control::NAME);
    let is_read = section.given("socket") && section.sound(["socket"]);
    let is_left_out = errors.is_empty() && !section.given("socket");
    let doubt = (!is_read && !is_left_out)
        .then(|| format!("{file}: [control] socket cannot be made out, so the default one is tried; --control names another"));
    ControlSocket { path: Path::new(folder).join(socket), doubt }
}

/// Reads `text` as a conf; `file` is the name at the beginning of each fault. Relative paths stay relative.
pub fn parse(file: &str, text: &str, machine: &Machine) -> Result<Conf, Faults> {
    parse_below(file, text, None, machine)
}

/// The same, with relative paths below `folder`, which is absolute.
pub(super) fn parse_below(file: &str, text: &str, folder: Option<&str>, machine: &Machine) -> Result<Conf, Faults> {
    let (mut root, errors) = DeTable::parse_recoverable(text);
    if let Some(folder) = folder {
        below::settle(root.get_mut(), folder);
    }
    let mut document = Document::new(root.get_ref(), machine);
    let mut conf = document.conf();
    if let Some(folder) = folder {
        below::settle_defaults(&mut conf, folder);
        document.refuse_long_socket(&conf.control);
    }
    document.refuse_unknown();

    let wrongs = match (&errors[..], file::of_kamailio(text)) {
        ([], _) => std::mem::take(&mut document.wrongs),
        (_, Some(at)) => vec![Wrong::new(at, file::KAMAILIO)],
        // If the text is not TOML, faults derived from it would be misleading: its own faults are reported alone.
        (errors, None) => errors.iter().map(|error| not_toml::fault(text, error)).collect(),
    };
    if !wrongs.is_empty() {
        return Err(Faults::locate(file, text, wrongs));
    }
    let warnings = Faults::locate(file, text, document.warnings);
    conf.warnings = warnings.to_string().lines().map(str::to_owned).collect();
    Ok(conf)
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
            left_behind: Vec::new(),
            warnings: Vec::new(),
        };
        conf.registrar = self.registrar(conf.location.shared.is_some());
        (conf.trunks, conf.password_files) = self.trunks();
        (conf.routes, conf.certificates.client_identities) = self.routes(&conf.trunks, conf.proxy.mode);
        self.refuse_unreachable(&conf);
        self.warn_of_own_targets(&conf);
        self.refuse_taken_metrics(&conf);
        self.refuse_idle_challenge(&conf);
        self.refuse_idle_certificate(&conf);
        conf
    }
}

#[cfg(test)]
mod tests;
