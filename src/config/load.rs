//! From TOML to a [`Conf`]: every fault of the file is found and told with its place, and what would be right.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::machine::Machine;
use super::model::*;
use super::units;

/// Where a conf is looked for when none is named.
pub const SEARCH: [&str; 2] = ["conf/strowger.toml", "/etc/strowger/strowger.toml"];

/// The longest path of the control socket: an address takes 107 bytes, and the socket is made beside its path first,
/// with the process's number at the end.
const SOCKET_PATH_LONGEST: usize = 99;

/// The file named, or the first of [`SEARCH`] that exists; `None` stands for the built-in defaults.
pub fn find(named: Option<&Path>) -> Option<PathBuf> {
    match named {
        Some(path) => Some(path.to_owned()),
        None => SEARCH
            .map(PathBuf::from)
            .into_iter()
            .find(|path| path.exists()),
    }
}

/// Loads the conf of [`find`].
pub fn load(named: Option<&Path>, machine: &Machine) -> Result<Conf, Faults> {
    let Some(path) = find(named) else {
        return parse("built-in defaults", "", machine);
    };
    let file = path.display().to_string();
    match fs::read(&path) {
        Ok(bytes) => match std::str::from_utf8(&bytes) {
            Ok(text) => parse(&file, text, machine),
            Err(error) => {
                let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
                let wrong = Wrong::new(before.len(), "this is not UTF-8 text");
                Err(Faults::locate(&file, &before, vec![wrong]))
            }
        },
        Err(error) => Err(Faults::unreadable(&file, &error)),
    }
}

/// Reads `text` as a conf; `file` is the name that the faults begin with.
pub fn parse(file: &str, text: &str, machine: &Machine) -> Result<Conf, Faults> {
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut document = Document {
        root: root.get_ref(),
        machine,
        known: BTreeMap::new(),
        wrongs: Vec::new(),
    };
    let conf = document.conf();
    document.refuse_unknown();

    let wrongs = if errors.is_empty() {
        document.wrongs
    } else {
        // What was made of a text that is not TOML would be told wrongly: its own faults come first, alone.
        let whole = |error: &toml::de::Error| {
            let at = error.span().map_or(0, |span| span.start);
            Wrong::new(at, format!("this is not TOML: {}", error.message()))
        };
        errors.iter().map(whole).collect()
    };
    if wrongs.is_empty() {
        Ok(conf)
    } else {
        Err(Faults::locate(file, text, wrongs))
    }
}

/// Every key there is, by section in the order of the alphabet and then in the order of reading.
pub fn known_keys() -> BTreeMap<&'static str, Vec<&'static str>> {
    let machine = Machine {
        cores: vec![0],
        memory: 0,
    };
    // One of each, because the keys of a table that may be repeated are only asked for where one stands.
    let root = DeTable::parse_recoverable("[[listen]]\n[[route]]\n").0;
    let mut document = Document {
        root: root.get_ref(),
        machine: &machine,
        known: BTreeMap::new(),
        wrongs: Vec::new(),
    };
    document.conf();
    document.known
}

/// What is wrong with a conf, in the order of the file. Shown as one line for each fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    pub file: String,
    pub faults: Vec<Fault>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Line and column from 1, the column in characters; `None` where the file could not be read at all.
    pub place: Option<(usize, usize)>,
    pub message: String,
}

impl Faults {
    fn unreadable(file: &str, error: &io::Error) -> Faults {
        Faults {
            file: file.to_owned(),
            faults: vec![Fault {
                place: None,
                message: format!("cannot be read: {error}"),
            }],
        }
    }

    fn locate(file: &str, text: &str, mut wrongs: Vec<Wrong>) -> Faults {
        wrongs.sort_by_key(|wrong| wrong.at);
        let fault = |wrong: Wrong| {
            let before = text.get(..wrong.at).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            Fault {
                place: Some((line, column)),
                message: wrong.message,
            }
        };
        Faults {
            file: file.to_owned(),
            faults: wrongs.into_iter().map(fault).collect(),
        }
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

/// A fault at a byte of the text.
#[derive(Debug)]
struct Wrong {
    at: usize,
    message: String,
}

impl Wrong {
    fn new(at: usize, message: impl Into<String>) -> Wrong {
        Wrong {
            at,
            message: message.into(),
        }
    }
}

/// The text as TOML read it, what was asked of it, and what was wrong with it.
struct Document<'d> {
    root: &'d DeTable<'d>,
    machine: &'d Machine,
    /// Section → keys, filled by asking: a key is known because something reads it.
    known: BTreeMap<&'static str, Vec<&'static str>>,
    wrongs: Vec<Wrong>,
}

type Value<'d> = Spanned<DeValue<'d>>;

/// One table of the document.
struct Section<'s, 'd> {
    document: &'s mut Document<'d>,
    name: &'static str,
    /// `None`: the file has no such table.
    table: Option<&'d DeTable<'d>>,
    /// Where the table begins.
    at: usize,
}

impl<'d> Document<'d> {
    fn conf(&mut self) -> Conf {
        Conf {
            server: self.server(),
            listen: self.listeners(),
            proxy: self.proxy(),
            registrar: self.registrar(),
            routes: self.routes(),
            timers: self.timers(),
            limits: self.limits(),
            udp: self.udp(),
            control: self.control(),
            log: self.log(),
        }
    }

    fn server(&mut self) -> Server {
        let default = Server::default();
        let machine = self.machine;
        let mut section = self.section("server");
        let what = "a list of CPU cores such as [0] or [0, 1]";
        let cores = section.read("cores", |value| {
            let cores = filled(list(what, |entry| core(entry, machine)))(value)?;
            if cores.len() > CORES_MOST {
                let phrase = format!(
                    "names {} cores, but a server has {CORES_MOST} at most",
                    cores.len()
                );
                return Err(wrong(value, phrase));
            }
            Ok(cores)
        });
        let domains = section.read(
            "domains",
            list("a list of hosts such as [\"example.com\"]", host),
        );
        let key_file = section.read("key_file", path);
        Server {
            // Where this process may not run on core 0, the first that it may run on stands in for it.
            cores: cores.unwrap_or_else(|| match machine.cores.first() {
                Some(first) if !machine.cores.contains(&0) => vec![*first],
                _ => default.cores,
            }),
            domains: domains.unwrap_or(default.domains),
            key_file: key_file.unwrap_or(default.key_file),
        }
    }

    fn listeners(&mut self) -> Listeners {
        let default = Listeners::default();
        let Some(tables) = self.tables("listen") else {
            return default;
        };
        let mut listeners: Vec<Listen> = Vec::new();
        for (table, at) in tables {
            let mut section = self.open("listen", Some(table), at);
            let transport = section.read("transport", transport);
            let address = section.read("address", listen_address);
            let advertise = section.read("advertise", host_port);
            let place = section.place("address");
            let listen = Listen {
                transport: transport.unwrap_or(default[0].transport),
                address: address.unwrap_or(default[0].address),
                advertise,
            };
            if section.sound(["transport", "address", "advertise"]) {
                if listen.address.ip().is_unspecified() && listen.advertise.is_none() {
                    let message = format!(
                        "address {} is none that a peer can answer to: add advertise = \"HOST:{}\", by which peers reach this server",
                        listen.address.ip(),
                        listen.address.port()
                    );
                    section.wrong(place, message);
                }
                let same =
                    |l: &&Listen| (l.transport, l.address) == (listen.transport, listen.address);
                if listeners.iter().find(same).is_some() {
                    let message = format!(
                        "another [[listen]] has {} {} already; remove one or change its address",
                        listen.transport, listen.address
                    );
                    section.wrong(place, message);
                }
            }
            listeners.push(listen);
        }
        Listeners(listeners)
    }

    fn proxy(&mut self) -> Proxy {
        let default = Proxy::default();
        let mut section = self.section("proxy");
        let modes = [("stateful", Mode::Stateful), ("stateless", Mode::Stateless)];
        let forks = [
            ("parallel", Fork::Parallel),
            ("sequential", Fork::Sequential),
        ];
        Proxy {
            mode: section.read("mode", one_of(&modes)).unwrap_or(default.mode),
            record_route: section
                .read("record_route", boolean)
                .unwrap_or(default.record_route),
            fork: section.read("fork", one_of(&forks)).unwrap_or(default.fork),
            redirect: section
                .read("redirect", boolean)
                .unwrap_or(default.redirect),
            max_breadth: section
                .read("max_breadth", number(1, 1000))
                .and_then(|breadth| u32::try_from(breadth).ok())
                .unwrap_or(default.max_breadth),
        }
    }

    fn registrar(&mut self) -> Registrar {
        let default = Registrar::default();
        let mut section = self.section("registrar");
        // RFC 3261 §10.3 lets no registrar call an interval too brief that is an hour or more.
        let (min, max) = (SECOND, 24 * 365 * HOUR);
        let registrar = Registrar {
            enabled: section.read("enabled", boolean).unwrap_or(default.enabled),
            min_expires: section
                .read("min_expires", whole_seconds(min, HOUR))
                .unwrap_or(default.min_expires),
            default_expires: section
                .read("default_expires", whole_seconds(min, max))
                .unwrap_or(default.default_expires),
            max_expires: section
                .read("max_expires", whole_seconds(min, max))
                .unwrap_or(default.max_expires),
            max_contacts: section
                .read("max_contacts", number(1, 1000))
                .unwrap_or(default.max_contacts),
        };
        let times = [
            ("min_expires", registrar.min_expires),
            ("default_expires", registrar.default_expires),
            ("max_expires", registrar.max_expires),
        ];
        section.ascending(&times);
        registrar
    }

    fn routes(&mut self) -> Vec<Route> {
        let mut routes = Vec::new();
        let mut all_taken_at = None;
        for (table, at) in self.tables("route").unwrap_or_default() {
            let mut section = self.open("route", Some(table), at);
            if let Some(before) = all_taken_at {
                let message = format!(
                    "this [[route]] is never reached, because number {before} names no condition and takes every request; \
                     move that one to the end"
                );
                section.wrong(at, message);
            }
            let route = section.route();
            let conditions = ["methods", "from_source", "to_host", "to_user_prefix"];
            if !conditions.iter().any(|key| section.given(key)) {
                all_taken_at = all_taken_at.or(Some(routes.len() + 1));
            }
            routes.push(route);
        }
        routes
    }

    fn timers(&mut self) -> Timers {
        let default = Timers::default();
        let mut section = self.section("timers");
        let mut read =
            |key, min, max, default| section.read(key, time(min, max)).unwrap_or(default);
        let timers = Timers {
            t1: read("t1", 10 * MS, MINUTE, default.t1),
            t2: read("t2", 10 * MS, 10 * MINUTE, default.t2),
            t4: read("t4", 10 * MS, 10 * MINUTE, default.t4),
            c: read("c", SECOND, 24 * HOUR, default.c),
            linger: read("linger", Duration::ZERO, 10 * MINUTE, default.linger),
        };
        section.ascending(&[("t1", timers.t1), ("t2", timers.t2)]);
        timers
    }

    fn limits(&mut self) -> Limits {
        let default = Limits::default();
        let mut section = self.section("limits");
        Limits {
            message_size: section
                .read("message_size", size(1 << 10, 64 << 10))
                .unwrap_or(default.message_size),
            transactions: section
                .read("transactions", capacity)
                .unwrap_or(default.transactions),
            bindings: section
                .read("bindings", capacity)
                .unwrap_or(default.bindings),
        }
    }

    fn udp(&mut self) -> Udp {
        let default = Udp::default();
        let mut section = self.section("udp");
        let (min, max) = (4 << 10, 1 << 30);
        Udp {
            receive_buffer: section
                .read("receive_buffer", size(min, max))
                .unwrap_or(default.receive_buffer),
            send_buffer: section
                .read("send_buffer", size(min, max))
                .unwrap_or(default.send_buffer),
            batch: section
                .read("batch", number(1, 1024))
                .unwrap_or(default.batch),
            gather: section
                .read("gather", time(Duration::ZERO, Duration::from_millis(10)))
                .unwrap_or(default.gather),
        }
    }

    fn control(&mut self) -> Control {
        let default = Control::default();
        let mut section = self.section("control");
        let socket = section.read("socket", |value| {
            let path = path(value)?;
            if path.as_os_str().len() > SOCKET_PATH_LONGEST {
                let phrase = format!("must be a path of at most {SOCKET_PATH_LONGEST} bytes");
                return Err(wrong(value, phrase));
            }
            Ok(path)
        });
        Control {
            socket: socket.unwrap_or(default.socket),
        }
    }

    fn log(&mut self) -> Log {
        use log::LevelFilter::*;
        let default = Log::default();
        let levels = [
            ("off", Off),
            ("error", Error),
            ("warn", Warn),
            ("info", Info),
            ("debug", Debug),
            ("trace", Trace),
        ];
        let mut section = self.section("log");
        Log {
            level: section
                .read("level", one_of(&levels))
                .unwrap_or(default.level),
        }
    }

    /// The table `[name]`, which may be absent.
    fn section(&mut self, name: &'static str) -> Section<'_, 'd> {
        let mut at = 0;
        let mut table = None;
        if let Some(value) = self.root.get(name) {
            at = value.span().start;
            match value.get_ref() {
                DeValue::Table(found) => table = Some(found),
                DeValue::Array(_) => {
                    let message = format!(
                        "[{name}] stands once only: write it with single brackets, [{name}]"
                    );
                    self.wrongs.push(Wrong::new(at, message));
                }
                other => {
                    let message = format!(
                        "{name} is a section: write [{name}] on a line of its own, not {}",
                        found(other)
                    );
                    self.wrongs.push(Wrong::new(at, message));
                }
            }
        }
        self.open(name, table, at)
    }

    /// The tables `[[name]]` and where they begin; `None` where the file has none.
    fn tables(&mut self, name: &'static str) -> Option<Vec<(&'d DeTable<'d>, usize)>> {
        self.known.entry(name).or_default();
        let value = self.root.get(name)?;
        let at = value.span().start;
        let DeValue::Array(array) = value.get_ref() else {
            let message = format!(
                "{name} may stand several times: write it with double brackets, [[{name}]]"
            );
            self.wrongs.push(Wrong::new(at, message));
            return None;
        };
        let mut tables = Vec::new();
        for entry in array {
            match entry.get_ref() {
                DeValue::Table(table) => tables.push((table, entry.span().start)),
                other => {
                    let message = format!(
                        "{name} is a section: write [[{name}]] on a line of its own, not {}",
                        found(other)
                    );
                    self.wrongs.push(Wrong::new(entry.span().start, message));
                }
            }
        }
        if array.is_empty() {
            let message = format!("{name} is empty: remove it, or write a section [[{name}]]");
            self.wrongs.push(Wrong::new(at, message));
        }
        (!tables.is_empty()).then_some(tables)
    }

    fn open(
        &mut self,
        name: &'static str,
        table: Option<&'d DeTable<'d>>,
        at: usize,
    ) -> Section<'_, 'd> {
        self.known.entry(name).or_default();
        Section {
            document: self,
            name,
            table,
            at,
        }
    }

    /// Refuses what nobody asked for. To be called last: only then is everything known that is known.
    fn refuse_unknown(&mut self) {
        let root = self.root;
        for (name, value) in root {
            let word: &str = name.get_ref();
            let Some(keys) = self.known.get(word) else {
                let message = self.unknown_section(word, value.get_ref());
                self.wrongs.push(Wrong::new(name.span().start, message));
                continue;
            };
            let tables: Vec<&DeTable<'_>> = match value.get_ref() {
                DeValue::Table(table) => vec![table],
                DeValue::Array(array) => array.iter().filter_map(as_table).collect(),
                _ => Vec::new(),
            };
            for key in tables.into_iter().flat_map(|table| table.keys()) {
                if !keys.contains(&key.get_ref().as_ref()) {
                    let message = self.unknown_key(word, key.get_ref(), keys);
                    self.wrongs.push(Wrong::new(key.span().start, message));
                }
            }
        }
    }

    fn unknown_section(&self, word: &str, value: &DeValue<'_>) -> String {
        let home = match value {
            DeValue::Table(_) | DeValue::Array(_) => None,
            _ => self.home(word),
        };
        if let Some(home) = home {
            return format!(
                "{word:?} stands outside of its section: move it below {}",
                brackets(home)
            );
        }
        let names: Vec<&str> = self.known.keys().copied().collect();
        match nearest(word, &names) {
            Some(near) => format!(
                "unknown section {word:?}; the nearest known one is {}",
                brackets(near)
            ),
            None => format!(
                "unknown section {word:?}; the sections are {}",
                names.join(", ")
            ),
        }
    }

    fn unknown_key(&self, section: &str, word: &str, keys: &[&str]) -> String {
        let place = brackets(section);
        if let Some(near) = nearest(word, keys) {
            return format!("unknown key {word:?} in {place}; the nearest known one is {near:?}");
        }
        match self.home(word) {
            Some(home) => format!(
                "unknown key {word:?} in {place}; it belongs in {}",
                brackets(home)
            ),
            None => format!(
                "unknown key {word:?} in {place}; the keys there are {}",
                keys.join(", ")
            ),
        }
    }

    /// The section that has the key `word`.
    fn home(&self, word: &str) -> Option<&'static str> {
        let has = |(_, keys): &(&&'static str, &Vec<&'static str>)| keys.contains(&word);
        self.known.iter().find(has).map(|(name, _)| *name)
    }
}

/// The section's name as the file has it.
fn brackets(section: &str) -> String {
    match section {
        "listen" | "route" => format!("[[{section}]]"),
        _ => format!("[{section}]"),
    }
}

impl<'d> Section<'_, 'd> {
    /// The value of `key` as `parse` understands it; `None` where it is absent, or wrong and told so.
    fn read<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&Value<'d>) -> Parsed<T>,
    ) -> Option<T> {
        let known = self.document.known.entry(self.name).or_default();
        if !known.contains(&key) {
            known.push(key);
        }
        match parse(self.table?.get(key)?) {
            Ok(value) => Some(value),
            Err(wrongs) => {
                for wrong in wrongs {
                    let message = format!("{key} {}", wrong.message);
                    self.document.wrongs.push(Wrong::new(wrong.at, message));
                }
                None
            }
        }
    }

    fn given(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.get(key).is_some())
    }

    /// Where the value of `key` stands, or the section where it is absent.
    fn place(&self, key: &str) -> usize {
        let value = self.table.and_then(|table| table.get(key));
        value.map_or(self.at, |value| value.span().start)
    }

    fn wrong(&mut self, at: usize, message: impl Into<String>) {
        self.document.wrongs.push(Wrong::new(at, message));
    }

    /// Nothing has been found wrong with these keys yet.
    fn sound<const N: usize>(&self, keys: [&str; N]) -> bool {
        let spans = keys.map(|key| {
            self.table
                .and_then(|table| table.get(key))
                .map(Spanned::span)
        });
        let inside = |at: usize| spans.iter().flatten().any(|span| span.contains(&at));
        !self.document.wrongs.iter().any(|wrong| inside(wrong.at))
    }

    /// Refuses times that are not in ascending order, at the first key given of each pair that is not.
    fn ascending(&mut self, times: &[(&'static str, Duration)]) {
        for pair in times.windows(2) {
            let [(low, low_time), (high, high_time)] = pair else {
                continue;
            };
            if low_time > high_time && self.sound([low, high]) {
                let at = if self.given(low) { low } else { high };
                let default = |key: &str| {
                    if self.given(key) {
                        ""
                    } else {
                        " (the default)"
                    }
                };
                let message = format!(
                    "{low} = \"{}\"{} is above {high} = \"{}\"{}: lower the one or raise the other",
                    units::time(*low_time),
                    default(low),
                    units::time(*high_time),
                    default(high)
                );
                self.wrong(self.place(at), message);
            }
        }
    }

    fn route(&mut self) -> Route {
        let methods = list("a list of methods such as [\"INVITE\"]", method);
        let networks = list("a list of networks such as [\"192.0.2.0/24\"]", network);
        let methods = self.read("methods", filled(methods));
        let from_source = self.read("from_source", filled(networks));
        Route {
            methods: methods.unwrap_or_default(),
            from_source: from_source.unwrap_or_default(),
            to_host: self.read("to_host", host),
            to_user_prefix: self.read("to_user_prefix", user_prefix),
            action: self.action(),
        }
    }

    /// `action` with what it takes, and nothing that it does not take.
    fn action(&mut self) -> Action {
        #[derive(Clone, Copy, PartialEq)]
        enum Kind {
            Relay,
            Location,
            Redirect,
            Reject,
        }
        let kinds = [
            ("relay", Kind::Relay),
            ("location", Kind::Location),
            ("redirect", Kind::Redirect),
            ("reject", Kind::Reject),
        ];
        let wrong_before = self.document.wrongs.len();
        let kind = self.read("action", one_of(&kinds));
        let kind_is_wrong = self.document.wrongs.len() > wrong_before;
        if kind.is_none() && !kind_is_wrong && self.table.is_some_and(|table| !table.is_empty()) {
            let message = "this [[route]] has no action: add action = \"relay\", \"location\", \"redirect\" or \"reject\"";
            self.wrong(self.at, message);
        }
        let (mut hops, mut uris) = (None, None);
        match kind {
            // A name in a redirection is the caller's to resolve; a next hop is ours.
            Some(Kind::Redirect) => uris = self.read("target", filled(list(TARGETS, uri))),
            _ => hops = self.read("target", filled(list(TARGETS, target))),
        }
        let status = self.read("status", number(400, 699));

        if let Some(kind) = kind {
            for (key, takers, meaning) in [
                (
                    "target",
                    [Kind::Relay, Kind::Redirect].as_slice(),
                    "\"relay\" and \"redirect\"",
                ),
                ("status", [Kind::Reject].as_slice(), "\"reject\""),
            ] {
                if self.given(key) && !takers.contains(&kind) {
                    let message = format!(
                        "{key} says nothing here: only the actions {meaning} take it; remove it or change the action"
                    );
                    self.wrong(self.place(key), message);
                }
            }
        }
        match kind {
            Some(Kind::Relay) => Action::Relay(hops.unwrap_or_default()),
            Some(Kind::Redirect) => Action::Redirect(uris.unwrap_or_default()),
            Some(Kind::Reject) => {
                let status = status.and_then(|status| u16::try_from(status).ok());
                Action::Reject(status.unwrap_or(DEFAULT_REJECTION))
            }
            Some(Kind::Location) | None => Action::Location,
        }
    }
}

/// What a `[[route]]` rejects with where it names no status: 403 Forbidden.
pub const DEFAULT_REJECTION: u16 = 403;

const TARGETS: &str = "a list of SIP URIs such as [\"sip:192.0.2.10:5060\"]";

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn as_table<'t, 'd>(value: &'t Value<'d>) -> Option<&'t DeTable<'d>> {
    match value.get_ref() {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

// ---- values: each of these understands one kind, and says what it would have understood --------------------------

/// A value, or the faults found in it: phrases that follow the key's name.
type Parsed<T> = Result<T, Vec<Wrong>>;

fn wrong(value: &Value<'_>, phrase: impl Into<String>) -> Vec<Wrong> {
    vec![Wrong::new(value.span().start, phrase)]
}

fn must_be(value: &Value<'_>, what: &str) -> Vec<Wrong> {
    wrong(
        value,
        format!("must be {what}, not {}", found(value.get_ref())),
    )
}

/// What stands there, as an error names it.
fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string {text:?}"),
        DeValue::Integer(integer) => format!("the integer {integer}"),
        DeValue::Float(float) => format!("the number {float}"),
        DeValue::Boolean(boolean) => format!("the boolean {boolean}"),
        DeValue::Datetime(datetime) => format!("the date {datetime}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

fn string<'v>(value: &'v Value<'_>, what: &str) -> Parsed<&'v str> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text),
        _ => Err(must_be(value, what)),
    }
}

fn boolean(value: &Value<'_>) -> Parsed<bool> {
    match value.get_ref() {
        DeValue::Boolean(boolean) => Ok(*boolean),
        _ => Err(must_be(value, "true or false")),
    }
}

fn integer(value: &Value<'_>) -> Option<u64> {
    match value.get_ref() {
        DeValue::Integer(integer) => u64::from_str_radix(integer.as_str(), integer.radix()).ok(),
        _ => None,
    }
}

fn number(min: usize, max: usize) -> impl Fn(&Value<'_>) -> Parsed<usize> {
    move |value| {
        let number = integer(value).and_then(|number| usize::try_from(number).ok());
        number
            .filter(|number| (min..=max).contains(number))
            .ok_or_else(|| must_be(value, &format!("an integer from {min} to {max}")))
    }
}

fn capacity(value: &Value<'_>) -> Parsed<Capacity> {
    // The arenas' indices have 32 bits, and the last of them is taken.
    let max = u32::MAX as usize - 1;
    match number(0, max)(value) {
        Ok(0) => Ok(Capacity::FromMemory),
        Ok(count) => Ok(Capacity::Exactly(count)),
        Err(_) => {
            let what = format!("an integer from 1 to {max}, or 0 for as many as the memory holds");
            Err(must_be(value, &what))
        }
    }
}

fn time(min: Duration, max: Duration) -> impl Fn(&Value<'_>) -> Parsed<Duration> {
    move |value| {
        let what = "a time such as \"500ms\", \"5s\", \"2m\" or \"1h\"";
        let text = string(value, what)?;
        let time = units::parse_time(text).ok_or_else(|| must_be(value, what))?;
        if (min..=max).contains(&time) {
            return Ok(time);
        }
        let what = format!(
            "a time from \"{}\" to \"{}\"",
            units::time(min),
            units::time(max)
        );
        Err(must_be(value, &what))
    }
}

/// A time that a SIP header can say: `Expires` and `expires` count in seconds.
fn whole_seconds(min: Duration, max: Duration) -> impl Fn(&Value<'_>) -> Parsed<Duration> {
    move |value| match time(min, max)(value)? {
        time if time.subsec_millis() == 0 => Ok(time),
        _ => Err(must_be(value, "a time of whole seconds such as \"60s\"")),
    }
}

fn size(min: usize, max: usize) -> impl Fn(&Value<'_>) -> Parsed<usize> {
    move |value| {
        let what = "a size such as \"512B\", \"64KiB\" or \"4MiB\"";
        let text = string(value, what)?;
        let size = units::parse_size(text).ok_or_else(|| must_be(value, what))?;
        if (min..=max).contains(&size) {
            return Ok(size);
        }
        let what = format!(
            "a size from \"{}\" to \"{}\"",
            units::size(min),
            units::size(max)
        );
        Err(must_be(value, &what))
    }
}

fn one_of<T: Copy>(choices: &[(&str, T)]) -> impl Fn(&Value<'_>) -> Parsed<T> {
    move |value| {
        let words: Vec<String> = choices
            .iter()
            .map(|(word, _)| format!("{word:?}"))
            .collect();
        let what = format!("one of {}", words.join(", "));
        let text = string(value, &what)?;
        let choice = choices.iter().find(|(word, _)| *word == text);
        choice
            .map(|(_, choice)| *choice)
            .ok_or_else(|| must_be(value, &what))
    }
}

fn path(value: &Value<'_>) -> Parsed<PathBuf> {
    let what = "the path of a file";
    match string(value, what)? {
        "" => Err(must_be(value, what)),
        text => Ok(PathBuf::from(text)),
    }
}

/// A list whose entries differ. The faults of all its entries are told together.
fn list<'d, T: PartialEq>(
    what: &str,
    parse: impl Fn(&Value<'d>) -> Parsed<T>,
) -> impl Fn(&Value<'d>) -> Parsed<Vec<T>> {
    move |value| {
        let DeValue::Array(array) = value.get_ref() else {
            return Err(must_be(value, what));
        };
        let mut entries = Vec::new();
        let mut wrongs = Vec::new();
        for entry in array {
            match parse(entry) {
                Ok(parsed) if entries.contains(&parsed) => {
                    let phrase = format!("names {} twice; remove one", found(entry.get_ref()));
                    wrongs.extend(wrong(entry, phrase));
                }
                Ok(parsed) => entries.push(parsed),
                Err(more) => wrongs.extend(more),
            }
        }
        if wrongs.is_empty() {
            Ok(entries)
        } else {
            Err(wrongs)
        }
    }
}

/// A list that says nothing where it is empty.
fn filled<'d, T>(
    parse: impl Fn(&Value<'d>) -> Parsed<Vec<T>>,
) -> impl Fn(&Value<'d>) -> Parsed<Vec<T>> {
    move |value| {
        let entries = parse(value)?;
        if entries.is_empty() {
            return Err(wrong(
                value,
                "is an empty list: name at least one, or leave the key out",
            ));
        }
        Ok(entries)
    }
}

/// A worker's number has eight bits in a Via branch.
const CORES_MOST: usize = 255;

fn core(value: &Value<'_>, machine: &Machine) -> Parsed<usize> {
    let core = number(0, usize::MAX)(value)
        .map_err(|_| must_be(value, "the numbers of CPU cores, from 0"))?;
    if machine.cores.contains(&core) {
        return Ok(core);
    }
    let cores: Vec<String> = machine.cores.iter().map(usize::to_string).collect();
    Err(wrong(
        value,
        format!(
            "names core {core}, but this process may run on {} only",
            cores.join(", ")
        ),
    ))
}

fn transport(value: &Value<'_>) -> Parsed<Transport> {
    match value.get_ref() {
        DeValue::String(text) if text == "udp" => Ok(Transport::Udp),
        DeValue::String(text) if text == "tcp" || text == "tls" => Err(wrong(
            value,
            format!("must be \"udp\": this version speaks UDP only, {text} is not in it yet"),
        )),
        _ => Err(must_be(value, "\"udp\"")),
    }
}

fn listen_address(value: &Value<'_>) -> Parsed<SocketAddr> {
    let what = "an address with a port such as \"127.0.0.1:5060\" or \"[::1]:5060\"";
    let text = string(value, what)?;
    let address: SocketAddr = text.parse().map_err(|_| must_be(value, what))?;
    if address.port() == 0 {
        return Err(must_be(value, "an address with a port from 1 to 65535"));
    }
    if address.ip().is_multicast() {
        return Err(must_be(value, "an address of this machine"));
    }
    Ok(address)
}

fn host(value: &Value<'_>) -> Parsed<Host> {
    let what = "a host such as \"example.com\" or \"192.0.2.1\", without a port";
    let text = string(value, what)?;
    parse_host(text).ok_or_else(|| must_be(value, what))
}

fn host_port(value: &Value<'_>) -> Parsed<HostPort> {
    let what = "a host with a port such as \"sip.example.com:5060\"";
    let text = string(value, what)?;
    let (host, port) = text.rsplit_once(':').ok_or_else(|| must_be(value, what))?;
    let bare_ipv6 = host.contains(':') && !host.starts_with('[');
    let host = parse_host(host).filter(|_| !bare_ipv6);
    match (host, parse_port(port)) {
        (Some(Host::Address(address)), _) if address.is_unspecified() => {
            Err(must_be(value, "a host by which peers reach this server"))
        }
        (Some(host), Some(port)) => Ok(HostPort { host, port }),
        _ => Err(must_be(value, what)),
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

/// `host` of RFC 3261 §25.1; a bare IPv6 address is taken too. A name is put in lower case, without the dot at its end.
fn parse_host(text: &str) -> Option<Host> {
    if let Some(inside) = text.strip_prefix('[') {
        let address = inside.strip_suffix(']')?.parse().ok()?;
        return Some(Host::Address(IpAddr::V6(address)));
    }
    if let Ok(address) = text.parse() {
        return Some(Host::Address(address));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let good_label = |label: &str| {
        let inner = label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-');
        inner
            && !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let top = name.rsplit('.').next()?;
    let good = name.len() <= 253
        && name.split('.').all(good_label)
        && top.starts_with(|c: char| c.is_ascii_alphabetic());
    good.then(|| Host::Name(name.to_ascii_lowercase()))
}

fn network(value: &Value<'_>) -> Parsed<Network> {
    let what = "networks such as \"192.0.2.0/24\", \"2001:db8::/32\" or \"192.0.2.1\"";
    let text = string(value, what)?;
    let parse = || {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Some(whole), |prefix| prefix.parse().ok())?;
        Some((address, Network::new(address, prefix)?))
    };
    let (address, network) = parse().ok_or_else(|| must_be(value, what))?;
    if network.address() != address {
        // Either the address or the prefix is not what was meant, and a rule of access is no place to guess.
        return Err(wrong(
            value,
            format!(
                "has {text}, which sets bits after the prefix; the network is {network}, the one host {address}"
            ),
        ));
    }
    Ok(network)
}

/// The methods of RFC 3261 and its extensions, to tell a slip of the case from a method of somebody's own.
const METHODS: [&str; 14] = [
    "INVITE",
    "ACK",
    "BYE",
    "CANCEL",
    "REGISTER",
    "OPTIONS",
    "PRACK",
    "SUBSCRIBE",
    "NOTIFY",
    "PUBLISH",
    "INFO",
    "REFER",
    "MESSAGE",
    "UPDATE",
];

fn method(value: &Value<'_>) -> Parsed<String> {
    let what = "methods such as \"INVITE\"";
    let text = string(value, what)?;
    let upper = text.to_ascii_uppercase();
    if text != upper && METHODS.contains(&upper.as_str()) {
        return Err(wrong(
            value,
            format!("has {text:?}, but methods are in upper case: write {upper:?}"),
        ));
    }
    if text.is_empty() || !text.bytes().all(is_token) {
        return Err(must_be(value, what));
    }
    Ok(text.to_owned())
}

/// `token` of RFC 3261 §25.1.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte)
}

/// `user` of RFC 3261 §25.1: letters, digits, marks and escapes.
fn is_user(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.!~*'()%&=+$,;?/".contains(&byte)
}

fn user_prefix(value: &Value<'_>) -> Parsed<String> {
    let what = "what the user part begins with, such as \"49\"";
    let text = string(value, what)?;
    if text.is_empty() || !text.bytes().all(is_user) {
        return Err(must_be(value, what));
    }
    Ok(text.to_owned())
}

/// A SIP or SIPS URI taken apart as far as a next hop needs it.
struct Uri<'u> {
    secure: bool,
    host: Host,
    port: Option<u16>,
    params: &'u str,
}

fn parse_uri(text: &str) -> Option<Uri<'_>> {
    // What would end the URI in a header field has no place in it.
    if text
        .bytes()
        .any(|b| !b.is_ascii_graphic() || b"<>\"`{}|\\^".contains(&b))
    {
        return None;
    }
    let (scheme, rest) = text.split_once(':')?;
    let secure = match scheme.to_ascii_lowercase().as_str() {
        "sip" => false,
        "sips" => true,
        _ => return None,
    };
    let rest = match rest.split_once('@') {
        Some((user, rest)) => {
            let name = user.split(':').next()?;
            if name.is_empty() || !user.bytes().all(|b| is_user(b) || b == b':') {
                return None;
            }
            rest
        }
        None => rest,
    };
    let (hop, params) = rest.split_once(';').unwrap_or((rest, ""));
    let (host, port) = match hop.rfind(':') {
        Some(colon) if !hop.ends_with(']') => {
            let (host, port) = hop.split_at(colon);
            (host, Some(parse_port(port.strip_prefix(':')?)?))
        }
        _ => (hop, None),
    };
    if host.contains(':') && !host.starts_with('[') {
        return None;
    }
    Some(Uri {
        secure,
        host: parse_host(host)?,
        port,
        params,
    })
}

/// Any SIP URI.
fn uri(value: &Value<'_>) -> Parsed<String> {
    let what = "SIP URIs such as \"sip:bob@192.0.2.10:5060\"";
    let text = string(value, what)?;
    match parse_uri(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err(must_be(value, what)),
    }
}

/// A SIP URI that this version can send to: an address, and UDP.
fn target(value: &Value<'_>) -> Parsed<Target> {
    let what = "SIP URIs such as \"sip:192.0.2.10:5060\"";
    let text = string(value, what)?;
    let uri = parse_uri(text).ok_or_else(|| must_be(value, what))?;
    if uri.secure {
        let phrase = format!("has {text:?}, but this version speaks UDP only: write a sip: URI");
        return Err(wrong(value, phrase));
    }
    for param in uri.params.split(';').filter(|param| !param.is_empty()) {
        let (name, of) = param.split_once('=').unwrap_or((param, ""));
        if name.eq_ignore_ascii_case("transport") && !of.eq_ignore_ascii_case("udp") {
            let phrase =
                format!("has {text:?}, but this version speaks UDP only: remove transport={of}");
            return Err(wrong(value, phrase));
        }
        if name.eq_ignore_ascii_case("maddr") {
            let phrase = format!(
                "has {text:?}, but a next hop takes no maddr: write its address as the host"
            );
            return Err(wrong(value, phrase));
        }
    }
    match uri.host {
        Host::Address(address) => Ok(Target {
            uri: text.to_owned(),
            address: SocketAddr::new(address, uri.port.unwrap_or(5060)),
        }),
        Host::Name(name) => {
            let phrase = format!(
                "has the host name {name:?}, but this version resolves no names: write its IP address"
            );
            Err(wrong(value, phrase))
        }
    }
}

// ---- the nearest known word --------------------------------------------------------------------------------------

/// The known word that `word` is most likely a slip of.
fn nearest<'w>(word: &str, known: &[&'w str]) -> Option<&'w str> {
    if word.len() > 64 {
        return None;
    }
    let word = word.to_lowercase().replace('-', "_");
    let distances = known.iter().map(|near| (distance(&word, near), *near));
    let (distance, near) = distances.min()?;
    // Beyond a third of the longer word the two have little in common.
    (distance * 3 <= word.chars().count().max(near.len())).then_some(near)
}

/// Insertions, deletions, substitutions and swaps of neighbours that make `from` into `to`.
fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().collect();
    let to: Vec<char> = to.chars().collect();
    let width = to.len() + 1;
    // The row before last, the last row and the current row of the table of prefixes.
    let (mut older, mut old): (Vec<usize>, Vec<usize>) = (vec![0; width], (0..width).collect());
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1; width];
        for (j, b) in to.iter().enumerate() {
            let replaced = old[j] + usize::from(a != b);
            row[j + 1] = replaced.min(old[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                row[j + 1] = row[j + 1].min(older[j - 1] + 1);
            }
        }
        older = std::mem::replace(&mut old, row);
    }
    old[to.len()]
}

#[cfg(test)]
mod tests;
