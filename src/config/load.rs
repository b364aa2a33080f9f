//! From TOML to a [`Conf`]: every fault of the file is found and told with its place, and what would be right.

mod auth;
mod document;
mod pem;
mod routes;
mod tls;
mod uri;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use super::machine::Machine;
use super::model::*;
use document::{Document, Wrong};
pub use routes::DEFAULT_REJECTION;
use values::*;

/// Where a conf is looked for when none is named.
pub const SEARCH: [&str; 2] = ["conf/strowger.toml", "/etc/strowger/strowger.toml"];

/// The words for [`Outgoing`].
const OUTGOING: [(&str, Outgoing); 2] =
    [("reuse", Outgoing::Reuse), ("per-call", Outgoing::PerCall)];

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
    let mut document = Document::new(root.get_ref(), machine);
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
        files: 0,
    };
    // One of each, because the keys of a table that may be repeated are only asked for where one stands.
    let root = DeTable::parse_recoverable("[[listen]]\n[[route]]\n[[tls.identity]]\n").0;
    let mut document = Document::new(root.get_ref(), &machine);
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

impl Document<'_> {
    fn conf(&mut self) -> Conf {
        let listen = self.listeners();
        let tls = self.tls(&listen);
        let conf = Conf {
            server: self.server(),
            listen,
            tls,
            connections: self.connections(),
            proxy: self.proxy(),
            registrar: self.registrar(),
            auth: self.auth(),
            routes: self.routes(),
            timers: self.timers(),
            limits: self.limits(),
            udp: self.udp(),
            dns: self.dns(),
            control: self.control(),
            metrics: self.metrics(),
            log: self.log(),
        };
        self.refuse_unreachable(&conf);
        self.refuse_idle_challenge(&conf);
        self.refuse_idle_certificate(&conf);
        conf
    }

    /// Refuses next hops that no listener speaks to.
    fn refuse_unreachable(&mut self, conf: &Conf) {
        let targets = conf.routes.iter().flat_map(|route| match &route.action {
            Action::Relay(targets) => targets.as_slice(),
            _ => &[],
        });
        for (target, at) in targets.zip(&self.target_places) {
            let transport = target.transport;
            let ipv4 = target.address.map(|address| address.is_ipv4());
            let reaches = |l: &Listen| {
                (l.transport == transport || target.transport_is_open && ipv4.is_none())
                    && ipv4.is_none_or(|ipv4| l.address.is_ipv4() == ipv4)
            };
            if !self.listeners_are_wrong && !conf.listen.iter().any(reaches) {
                let family = match ipv4 {
                    Some(true) => " over IPv4",
                    Some(false) => " over IPv6",
                    None => "",
                };
                let message = format!(
                    "target has {:?}, but no [[listen]] speaks {transport}{family}: add one, \
                     to which its responses can come back",
                    target.uri
                );
                self.wrongs.push(Wrong::new(*at, message));
            }
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
        let drain_deadline = section.read("drain_deadline", time(Duration::ZERO, 24 * HOUR));
        let core_dumps = section.read("core_dumps", boolean);
        let user = section.read("user", optional(account)).flatten();
        let group = section.read("group", optional(account)).flatten();
        let group_at = section.place("group");
        if group.is_some() && user.is_none() {
            let message = "group says nothing here, because there is no user: add user = \"…\"";
            self.wrongs.push(Wrong::new(group_at, message));
        }
        Server {
            // Where this process may not run on core 0, the first that it may run on stands in for it.
            cores: cores.unwrap_or_else(|| match machine.cores.first() {
                Some(first) if !machine.cores.contains(&0) => vec![*first],
                _ => default.cores,
            }),
            domains: domains.unwrap_or(default.domains),
            key_file: key_file.unwrap_or(default.key_file),
            drain_deadline: drain_deadline.unwrap_or(default.drain_deadline),
            user,
            group,
            core_dumps: core_dumps.unwrap_or(default.core_dumps),
        }
    }

    fn listeners(&mut self) -> Listeners {
        let wrong_before = self.wrongs.len();
        let Some(tables) = self.tables("listen") else {
            self.listeners_are_wrong = self.wrongs.len() > wrong_before;
            return Listeners::default();
        };
        let transports = [
            ("udp", Transport::Udp),
            ("tcp", Transport::Tcp),
            ("tls", Transport::Tls),
        ];
        let mut listeners: Vec<Listen> = Vec::new();
        for (table, at) in tables {
            let mut section = self.open("listen", Some(table), at);
            let transport = section.read("transport", one_of(&transports));
            let transport = transport.unwrap_or(Transport::Udp);
            let address = section.read("address", listen_address);
            let advertise = section.read("advertise", host_port);
            let place = section.place("address");
            let listen = Listen {
                transport,
                address: address.unwrap_or(transport.default_address()),
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
                let collides = |l: &&Listen| {
                    l.transport.is_stream() == transport.is_stream() && l.address == listen.address
                };
                if let Some(other) = listeners.iter().find(collides) {
                    let why = match other.transport == transport {
                        true => String::new(),
                        false => format!(", and {transport} takes the same port of TCP"),
                    };
                    let message = format!(
                        "another [[listen]] has {} {} already{why}; remove one or change its address",
                        other.transport, other.address
                    );
                    section.wrong(place, message);
                }
            }
            let place = section.place("transport");
            self.listen_places.push(place);
            listeners.push(listen);
        }
        self.listeners_are_wrong = self.wrongs.len() > wrong_before;
        Listeners(listeners)
    }

    fn connections(&mut self) -> Connections {
        let default = Connections::default();
        let files = self.machine.files;
        let mut section = self.section("connections");
        Connections {
            outgoing: section
                .read("outgoing", one_of(&OUTGOING))
                .unwrap_or(default.outgoing),
            idle_timeout: section
                .read("idle_timeout", time(SECOND, 24 * HOUR))
                .unwrap_or(default.idle_timeout),
            message_timeout: section
                .read("message_timeout", time(SECOND, HOUR))
                .unwrap_or(default.message_timeout),
            connect_timeout: section
                .read("connect_timeout", time(100 * MS, 2 * MINUTE))
                .unwrap_or(default.connect_timeout),
            handshake_timeout: section
                .read("handshake_timeout", time(100 * MS, 2 * MINUTE))
                .unwrap_or(default.handshake_timeout),
            max: section
                .read("max", |value| connections(value, files))
                .unwrap_or(default.max),
            handshakes: section
                .read("handshakes", number(1, 1_000_000))
                .unwrap_or(default.handshakes),
            send_queue: section
                .read("send_queue", size(4 << 10, 64 << 20))
                .unwrap_or(default.send_queue),
            unsent_bytes: section
                .read("unsent_bytes", size(1 << 20, 64 << 30))
                .unwrap_or(default.unsent_bytes),
            unfinished_bytes: section
                .read("unfinished_bytes", size(1 << 20, 64 << 30))
                .unwrap_or(default.unfinished_bytes),
            keep_alive_bytes: section
                .read("keep_alive_bytes", size(64, 64 << 20))
                .unwrap_or(default.keep_alive_bytes),
        }
    }

    fn proxy(&mut self) -> Proxy {
        let default = Proxy::default();
        let mut section = self.section("proxy");
        let modes = [("stateful", Mode::Stateful), ("stateless", Mode::Stateless)];
        let forks = [
            ("parallel", Fork::Parallel),
            ("sequential", Fork::Sequential),
        ];
        let in_dialogs = [("relay", InDialog::Relay), ("refuse", InDialog::Refuse)];
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
            in_dialog_without_route: section
                .read("in_dialog_without_route", one_of(&in_dialogs))
                .unwrap_or(default.in_dialog_without_route),
        }
    }

    fn registrar(&mut self) -> Registrar {
        let default = Registrar::default();
        let mut section = self.section("registrar");
        // RFC 3261 §10.3 lets no registrar call an interval too brief that is an hour or more.
        let (min, max) = (SECOND, 24 * 365 * HOUR);
        let durabilities = [
            ("batched", Durability::Batched),
            ("acknowledged", Durability::Acknowledged),
        ];
        let networks = list("a list of networks such as [\"192.0.2.0/24\"]", network);
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
            contact_networks: section
                .read("contact_networks", networks)
                .unwrap_or(default.contact_networks),
            database: section
                .read("database", optional(path))
                .unwrap_or(default.database),
            durability: section
                .read("durability", one_of(&durabilities))
                .unwrap_or(default.durability),
        };
        if registrar.database.is_none() && registrar.durability == Durability::Acknowledged {
            let at = section.place("durability");
            let message = "durability is \"acknowledged\", but bindings are kept in memory only: \
                           name a file in database, or remove this";
            section.wrong(at, message);
        }
        let times = [
            ("min_expires", registrar.min_expires),
            ("default_expires", registrar.default_expires),
            ("max_expires", registrar.max_expires),
        ];
        section.ascending(&times);
        registrar
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
        let networks = list("a list of networks such as [\"192.0.2.0/24\"]", network);
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
            contact_size: section
                .read("contact_size", size(1 << 7, 60 << 10))
                .unwrap_or(default.contact_size),
            requests_per_source: section
                .read("requests_per_source", number(0, 100_000))
                .and_then(|requests| u32::try_from(requests).ok())
                .unwrap_or(default.requests_per_source),
            answer_factor: section
                .read("answer_factor", number(0, 1000))
                .unwrap_or(default.answer_factor),
            requests_per_user: section
                .read("requests_per_user", number(0, 100_000))
                .and_then(|requests| u32::try_from(requests).ok())
                .unwrap_or(default.requests_per_user),
            requests_per_aor: section
                .read("requests_per_aor", number(0, 100_000))
                .and_then(|requests| u32::try_from(requests).ok())
                .unwrap_or(default.requests_per_aor),
            ban: section
                .read("ban", time(Duration::ZERO, 24 * HOUR))
                .unwrap_or(default.ban),
            trusted_sources: section
                .read("trusted_sources", networks)
                .unwrap_or(default.trusted_sources),
            overload: section
                .read("overload", time(Duration::ZERO, 10 * SECOND))
                .unwrap_or(default.overload),
            shed: section
                .read(
                    "shed",
                    one_of(&[("answer", Shed::Answer), ("kernel", Shed::Kernel)]),
                )
                .unwrap_or(default.shed),
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

    fn dns(&mut self) -> Dns {
        let default = Dns::default();
        let mut section = self.section("dns");
        let servers = list("a list of addresses such as [\"192.0.2.53\"]", name_server);
        Dns {
            servers: section.read("servers", servers).unwrap_or(default.servers),
            timeout: section
                .read("timeout", time(100 * MS, 30 * SECOND))
                .unwrap_or(default.timeout),
            cache: section
                .read("cache", number(100, 10_000_000))
                .unwrap_or(default.cache),
            questions: section
                .read("questions", number(1, 10_000))
                .unwrap_or(default.questions),
            held: section
                .read("held", size(64 << 10, 1 << 30))
                .unwrap_or(default.held),
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

    fn metrics(&mut self) -> Metrics {
        let mut section = self.section("metrics");
        Metrics {
            address: section
                .read("address", optional(listen_address))
                .unwrap_or_default(),
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
}

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests;
