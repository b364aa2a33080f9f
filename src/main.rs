//! Arguments and sub-commands.

#![forbid(unsafe_code)]

mod cli;
mod server;

use crate::cli::{top, users};
use crate::server::{logger, secure, start as serve};
use std::fmt::Display;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use strowger::base::{Key, Transport};
use strowger::config::{self, Conf, Machine, key, load};
use strowger::control::{AorEntry, Client, Number};
use strowger::net::sys::dumps;
use strowger::net::tls::library_version;
use strowger::settings::Words;
use strowger::sip::Host;
use strowger::store::Source;
use strowger::store::users::Loaded;
use users::User;

/// A SIP proxy, registrar and redirect server.
///
/// Exit codes: 0 done; 1 refused or not found, with one line on standard error that says why; 2 wrong usage.
#[derive(Parser)]
#[command(version = version(), propagate_version = false, max_term_width = 120)]
struct Arguments {
    #[command(flatten)]
    places: Places,
    #[command(subcommand)]
    command: Command,
}

/// Where things are. Every command takes these, before or after its name.
#[derive(Args)]
struct Places {
    /// The conf. If not given: conf/strowger.toml, then /etc/strowger/strowger.toml, then built-in defaults.
    #[arg(short = 'c', long = "conf", value_name = "FILE", global = true)]
    conf: Option<PathBuf>,
    /// The control socket, instead of [control] socket of the conf.
    #[arg(long, value_name = "PATH", global = true)]
    control: Option<PathBuf>,
}

/// With the TLS library that is linked in.
fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| format!("{} ({})", env!("CARGO_PKG_VERSION"), library_version()))
}

#[derive(Subcommand)]
enum Command {
    /// Start the server in the foreground. It prints one line for each listener when it is ready to serve.
    ///
    /// SIGHUP reloads as "strowger reload" does. SIGTERM drains as "strowger drain" does, and a second one stops at once; so does
    /// SIGINT. The environment's RUST_LOG goes before [log] level of the conf.
    Run,
    /// Check a conf: a summary where it is good, else FILE:LINE:COLUMN and what is wrong for each fault, and exit 1.
    Check,
    /// Show or change the location table of the running server.
    Ul {
        #[command(subcommand)]
        command: Ul,
    },
    /// Change who may register and call, in the database that [auth] users of the conf names. No server needs to run; one that
    /// does sees it within a second.
    User {
        #[command(subcommand)]
        command: User,
    },
    /// Show the TCP and TLS connections of the running server.
    Connections,
    /// Have the running server read its conf again, and the certificates, keys and users that it names: whole, or, where
    /// anything is wrong, not at all. Calls and connections go on. SIGHUP does the same.
    ///
    /// Where a key has changed that cannot take effect while the server runs (listeners, cores, [udp] and some more), the
    /// reload is refused and names it. A server that runs without a conf reads its users again.
    Reload,
    /// Have the running server begin no new dialogs (503 with Retry-After), and stop when no request waits for its answer any
    /// more. Registrations, requests in a dialog and new connections go on until then. SIGTERM does the same.
    Drain {
        /// Stop after so many seconds in any case; [server] drain_deadline of the conf if not given. Asked again, it sets
        /// another time.
        #[arg(long, value_name = "S")]
        deadline: Option<u32>,
        /// Return when the server has stopped, not when it has begun to drain.
        #[arg(long)]
        wait: bool,
    },
    /// Show how much the running server logs, or change it until it stops or the conf says otherwise.
    Log {
        /// off, error, warn, info, debug or trace.
        level: Option<String>,
    },
    /// Watch the running server: a live screen of rates, latency, connections, CPU and the limits being hit. q leaves it.
    ///
    /// Where the output is no terminal, it prints one screen and ends.
    Top {
        /// Seconds from one look at the server to the next, 0.1 to 3600.
        #[arg(long, value_name = "S", default_value = "1", value_parser = interval)]
        interval: Duration,
        /// Print one screen after one interval.
        #[arg(long)]
        once: bool,
    },
    /// Print the running server's counters and gauges, by their Prometheus names.
    Stats {
        /// Only names that begin with this.
        prefix: Option<String>,
        /// Print one JSON object: names and values.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum Ul {
    /// Show what is bound to an address-of-record, or to all of them.
    Show {
        /// 1003, 1003@example.com or sip:1003@example.com; a bare name takes the first domain of the conf.
        aor: Option<String>,
    },
    /// Bind a contact to an address-of-record.
    ///
    /// As in: strowger ul add 1003 sip:1003@192.0.2.100:5061
    Add {
        /// 1003, 1003@example.com or sip:1003@example.com; a bare name takes the first domain of the conf.
        aor: String,
        /// The SIP URI at which it is reached.
        contact: String,
        /// For how many seconds; [registrar] default_expires of the conf if not given.
        #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..))]
        expires: Option<u32>,
    },
    /// Remove one contact of an address-of-record, or all of them.
    Rm {
        /// 1003, 1003@example.com or sip:1003@example.com; a bare name takes the first domain of the conf.
        aor: String,
        /// The contact's SIP URI as "ul show" prints it.
        contact: Option<String>,
    },
}

impl Places {
    fn load(&self) -> Result<Conf, String> {
        let mut conf = config::load(self.conf.as_deref(), &Machine::this())
            .map_err(|faults| faults.to_string())?;
        if let Some(path) = &self.control {
            conf.control.socket = path.clone();
        }
        Ok(conf)
    }

    /// The same file again, wherever another one may have appeared meanwhile.
    fn reread(&self) -> serve::Reread {
        let places = load::find(self.conf.as_deref()).map(|path| Places {
            conf: Some(path),
            control: self.control.clone(),
        });
        Box::new(move || places.as_ref().map(Places::load).transpose())
    }

    fn conf_name(&self) -> String {
        match load::find(self.conf.as_deref()) {
            Some(path) => path.display().to_string(),
            None => "built-in defaults".to_owned(),
        }
    }

    /// Connects to the running server.
    fn desk(&self) -> Result<Client, String> {
        Client::connect(&self.control_socket()?)
    }

    fn control_socket(&self) -> Result<PathBuf, String> {
        match &self.control {
            Some(path) => Ok(path.clone()),
            None => Ok(self.load()?.control.socket),
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let places = &arguments.places;
    // Commands have passwords and keys in hand for a moment. What "run" does the conf says.
    if !matches!(arguments.command, Command::Run) {
        let _ = dumps::forbid();
    }
    let outcome = match &arguments.command {
        Command::Run => run(places),
        Command::Check => check(places),
        Command::Ul { command } => ul(command, places),
        Command::User { command } => users::user(command, places),
        Command::Connections => connections(places),
        Command::Reload => reload(places),
        Command::Drain { deadline, wait } => drain(*deadline, *wait, places),
        Command::Top { interval, once } => top(*interval, *once, places),
        Command::Log { level } => log_level(level.as_deref(), places),
        Command::Stats { prefix, json } => stats(prefix.as_deref(), *json, places),
    };
    let code = outcome.unwrap_or_else(|message| {
        logger::complain(&message);
        ExitCode::FAILURE
    });
    logger::flush();
    code
}

/// What a command came to: its exit code, or the line that says why it was not done.
type Outcome = Result<ExitCode, String>;

fn run(places: &Places) -> Outcome {
    let conf = places.load()?;
    logger::start(conf.log.level)?;
    log::info!(
        "strowger {}: {}",
        env!("CARGO_PKG_VERSION"),
        places.conf_name()
    );
    serve::serve(&conf, places.reread())
}

fn check(places: &Places) -> Outcome {
    let conf = places.load()?;
    // Certificates and keys fit each other only if the library says so.
    let explain = |error: String| format!("{}: {error}", places.conf_name());
    serve::identity(&conf).map_err(explain)?;
    secure::contexts(&conf, None).map_err(explain)?;
    let users = serve::users(&conf, Key::new(0, 0), Arc::default()).map_err(explain)?;
    print(|out| {
        writeln!(out, "{}: good", places.conf_name())?;
        summary(out, &conf, users.as_ref())?;
        for line in key::exposed_files(&conf) {
            writeln!(out, "warning    {line}")?;
        }
        Ok(())
    })
}

/// What the conf comes to, a line for each thing an operator would look for.
fn summary(out: &mut dyn Write, conf: &Conf, users: Option<&(Source, Loaded)>) -> io::Result<()> {
    for listen in conf.listen.iter() {
        let transport = listen.transport.word();
        write!(out, "listen     {transport} {}", listen.address)?;
        match &listen.advertise {
            Some(advertise) => writeln!(out, ", known as {advertise}")?,
            None => writeln!(out)?,
        }
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
    for route in &conf.routes {
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
    writeln!(out, "control    {}", conf.control.socket.display())
}

/// Who is challenged, and who there is.
fn challenges(
    out: &mut dyn Write,
    conf: &Conf,
    source: &Source,
    loaded: &Loaded,
) -> io::Result<()> {
    let auth = &conf.auth;
    let of_routes = conf
        .routes
        .iter()
        .any(|route| route.challenge == Some(true));
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
    writeln!(
        out,
        "challenged {} by {}, realm {realm}",
        challenged.join(", "),
        words(&auth.algorithms)
    )?;
    let (path, count) = (source.path().display(), loaded.users.len());
    write!(out, "users      {count} in {path}")?;
    match loaded.unusable.count {
        0 => writeln!(out),
        bad => writeln!(
            out,
            ", {bad} of them cannot be used as they are, the first: {}",
            loaded.unusable.first
        ),
    }
}

/// What the conf says of TCP and TLS: nothing where no listener speaks them, and no next hop then either.
fn streams(out: &mut dyn Write, conf: &Conf) -> io::Result<()> {
    if !conf
        .listen
        .iter()
        .any(|listen| listen.transport.is_reliable())
    {
        return Ok(());
    }
    let connections = &conf.connections;
    let most = match connections.max {
        Some(max) => format!("{max} at most"),
        None => "as many as open files allow".to_owned(),
    };
    writeln!(
        out,
        "streams    outgoing {}, {most}, closed after {} s idle",
        connections.outgoing,
        connections.idle_timeout / 1000
    )?;
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
        let servers = if tls.verify_server {
            "verified"
        } else {
            "not verified"
        };
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

fn ul(command: &Ul, places: &Places) -> Outcome {
    let mut desk = places.desk()?;
    match command {
        Ul::Show { aor } => {
            let entries = desk.ul_show(aor.as_deref())?;
            print(|out| table(out, &rows(&entries)))
        }
        Ul::Add {
            aor,
            contact,
            expires,
        } => {
            desk.ul_add(aor, contact, *expires)?;
            Ok(ExitCode::SUCCESS)
        }
        Ul::Rm { aor, contact } => {
            let removed = desk.ul_rm(aor, contact.as_deref())?;
            print(|out| writeln!(out, "{removed} removed"))
        }
    }
}

fn reload(places: &Places) -> Outcome {
    places.desk()?.reload()?;
    Ok(ExitCode::SUCCESS)
}

fn drain(deadline: Option<u32>, wait: bool, places: &Places) -> Outcome {
    let mut desk = places.desk()?;
    let draining = desk.drain(deadline)?;
    print(|out| {
        writeln!(
            out,
            "draining: {} requests wait for their answer; the server stops in {:.1} s at the latest",
            draining.pending,
            draining.deadline_ms as f64 / 1000.0
        )
    })?;
    // The socket closes when the server stops.
    while wait && desk.version().is_ok() {
        std::thread::sleep(DRAIN_LOOK);
    }
    Ok(ExitCode::SUCCESS)
}

/// How often "drain --wait" looks whether the server is still there.
const DRAIN_LOOK: Duration = Duration::from_millis(200);

fn top(interval: Duration, once: bool, places: &Places) -> Outcome {
    let socket = places.control_socket()?;
    if once || !top::has_terminal() {
        let lines = top::once(&socket, interval)?;
        return print(|out| lines.iter().try_for_each(|line| writeln!(out, "{line}")));
    }
    top::live(&socket, interval)?;
    Ok(ExitCode::SUCCESS)
}

/// Seconds, as `top --interval` takes them.
fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match (0.1..=3600.0).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err("not between 0.1 and 3600".to_owned()),
    }
}

fn log_level(level: Option<&str>, places: &Places) -> Outcome {
    // What is no level is wrong usage of this command, whether a server runs or not.
    if let Some(name) = level
        && let Err(why) = logger::level_named(name)
    {
        logger::complain(&why);
        return Ok(ExitCode::from(2));
    }
    let now = places.desk()?.log(level)?;
    print(|out| writeln!(out, "{now}"))
}

fn connections(places: &Places) -> Outcome {
    let entries = places.desk()?.connections()?;
    let head = [
        "transport",
        "peer",
        "listener",
        "opened by",
        "state",
        "quiet",
        "waiting",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for entry in entries {
        let opened_by = if entry.outgoing { "us" } else { "peer" };
        rows.push([
            entry.transport,
            entry.peer,
            entry.listener,
            opened_by.to_owned(),
            entry.state,
            format!("{:.1}s", entry.quiet_ms as f64 / 1000.0),
            entry.waiting_bytes.to_string(),
        ]);
    }
    print(|out| table(out, &rows))
}

fn stats(prefix: Option<&str>, json: bool, places: &Places) -> Outcome {
    let prefix = prefix.unwrap_or_default();
    let samples = places.desk()?.stats(prefix)?;
    if samples.is_empty() {
        return Err(format!("no statistics begin with {prefix:?}"));
    }
    print(|out| {
        if json {
            let values: serde_json::Map<String, serde_json::Value> = samples
                .into_iter()
                .map(|sample| match sample.value {
                    Number::Count(count) => (sample.name, count.into()),
                    Number::Real(real) => (sample.name, real.into()),
                })
                .collect();
            serde_json::to_writer_pretty(&mut *out, &values)?;
            return writeln!(out);
        }
        for sample in &samples {
            writeln!(out, "{} {}", sample.name, sample.value)?;
        }
        Ok(())
    })
}

const HEAD: [&str; 8] = [
    "AOR", "CONTACT", "Q", "EXPIRES", "CALL-ID", "CSEQ", "PATH", "RECEIVED",
];

type Row = [String; HEAD.len()];

/// One row for each contact.
fn rows(entries: &[AorEntry]) -> Vec<Row> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let mut rows = vec![HEAD.map(str::to_owned)];
    for entry in entries {
        for contact in &entry.contacts {
            rows.push([
                entry.aor.clone(),
                contact.uri.clone(),
                or_dash(contact.q.map(|q| q.to_string())),
                format!("{}s", contact.expires_in_s),
                contact.call_id.clone(),
                contact.cseq.to_string(),
                or_dash(Some(contact.path.join(",")).filter(|path| !path.is_empty())),
                or_dash(contact.received.clone()),
            ]);
        }
    }
    rows
}

/// Columns as wide as their widest cell, two blanks between. What phones sent is shown without its control characters.
fn table<const COLUMNS: usize>(out: &mut dyn Write, rows: &[[String; COLUMNS]]) -> io::Result<()> {
    let shown = |cell: &String| -> String {
        let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
        cell.chars().map(visible).collect()
    };
    let rows: Vec<_> = rows.iter().map(|row| row.each_ref().map(shown)).collect();
    let mut widths = [0; COLUMNS];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in &rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(&format!("{cell:<width$}  ", width = *width));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Prints to standard output. A reader that goes early, as `head` does, is no failure.
fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Outcome {
    let mut out = BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(format!("cannot write to standard output: {error}"))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use strowger::control::ContactEntry;

    #[test]
    fn the_commands_are_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_and_option_has_help() {
        fn walk(command: &clap::Command) -> usize {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name} has no help");
            for argument in command.get_arguments() {
                let id = argument.get_id();
                assert!(argument.get_help().is_some(), "{name}: {id} has no help");
            }
            command.get_subcommands().map(walk).sum::<usize>() + 1
        }
        assert_eq!(walk(&Arguments::command()), 19);
    }

    #[test]
    fn usage_is_what_operators_know() {
        for (line, good) in [
            ("strowger run", true),
            ("strowger run -c x.toml", true),
            ("strowger check -c x.toml", true),
            ("strowger ul show", true),
            ("strowger ul show 1003 --control x.sock", true),
            ("strowger --control x.sock ul show 1003", true),
            ("strowger -c x.toml stats", true),
            ("strowger ul add 1003 sip:1003@192.0.2.100:5061", true),
            (
                "strowger ul add 1003 sip:1003@192.0.2.100:5061 --expires 60",
                true,
            ),
            ("strowger ul rm 1003", true),
            ("strowger ul rm 1003 sip:1003@192.0.2.100:5061", true),
            ("strowger stats strowger_messages --json", true),
            ("strowger drain", true),
            ("strowger drain --deadline 0 --wait", true),
            ("strowger drain --deadline soon", false),
            ("strowger log", true),
            ("strowger log debug", true),
            ("strowger top", true),
            ("strowger top --once --interval 0.5", true),
            ("strowger top --interval 0", false),
            ("strowger user add alice --password-stdin", true),
            (
                "strowger user add alice@example.com --password secret",
                true,
            ),
            (
                "strowger -c x.toml user passwd alice --password-stdin",
                true,
            ),
            ("strowger user rm alice", true),
            ("strowger user list -c x.toml", true),
            ("strowger user import users.txt", true),
            ("strowger", false),
            ("strowger user", false),
            ("strowger user add alice", false),
            ("strowger user add alice secret", false),
            ("strowger user add --password-stdin", false),
            (
                "strowger user passwd alice --password-stdin --password x",
                false,
            ),
            ("strowger user import", false),
            ("strowger ul", false),
            ("strowger ul add 1003", false),
            ("strowger ul add 1003 sip:a@b --expires 0", false),
            ("strowger ul add 1003 sip:a@b --expires -5", false),
            ("strowger serve", false),
            ("strowger run --daemon", false),
        ] {
            let parsed = Arguments::try_parse_from(line.split(' '));
            match (parsed, good) {
                (Ok(_), true) => {}
                (Err(error), false) => assert_eq!(error.exit_code(), 2, "{line}"),
                (Err(error), true) => panic!("{line}: {error}"),
                (Ok(_), false) => panic!("{line} was taken"),
            }
        }
    }

    #[test]
    fn contacts_stand_in_columns() {
        let contact = |uri: &str, q, path: &[&str]| ContactEntry {
            uri: uri.to_owned(),
            q,
            expires_in_s: 3599,
            call_id: "a\u{1b}[31m".to_owned(),
            cseq: 7,
            path: path.iter().map(|hop| (*hop).to_owned()).collect(),
            received: None,
        };
        let entries = [AorEntry {
            aor: "sip:1003@example.com".to_owned(),
            contacts: vec![
                contact(
                    "sip:1003@192.0.2.100:5061",
                    Some(0.5),
                    &["<sip:e;lr>", "<sip:f;lr>"],
                ),
                contact("sip:1003@192.0.2.7", None, &[]),
            ],
        }];
        let mut out = Vec::new();
        table(&mut out, &rows(&entries)).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "\
AOR                   CONTACT                    Q    EXPIRES  CALL-ID  CSEQ  PATH                   RECEIVED
sip:1003@example.com  sip:1003@192.0.2.100:5061  0.5  3599s    a\u{fffd}[31m   7     <sip:e;lr>,<sip:f;lr>  -
sip:1003@example.com  sip:1003@192.0.2.7         -    3599s    a\u{fffd}[31m   7     -                      -
"
        );
    }
}
