//! Arguments and sub-commands.

#![forbid(unsafe_code)]

mod cli;
#[cfg(test)]
mod manual;
mod server;

use clap::{Parser, Subcommand};
use cli::{Outcome, Places, Trace, Ul, User};
use server::logger;
use signal_hook::consts::SIGXFSZ;
use std::io;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;
use strowger::net::sys::dumps;
use strowger::net::tls::library_version;

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
    /// SIGINT. The environment's RUST_LOG takes precedence over [log] level of the conf.
    Run,
    /// Check a conf: a summary if it is valid, else FILE:LINE:COLUMN and what is wrong for each fault, and exit 1.
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
    /// Ask the running server whether it is alive: exit 0 if every worker answers, 1 if not, or if there is no server. For a container's
    /// health check and the like; /health and /ready beside the metrics say the same by HTTP.
    ///
    /// It also prints whether the server is ready for new work, and why not: because it drains, because it must refuse registrations that
    /// it cannot store, or because it has not yet read the location table that it shares.
    Health {
        /// Exit 1 if the server is alive but not ready, too.
        #[arg(long)]
        ready: bool,
    },
    /// Show the TCP and TLS connections of the running server.
    Connections,
    /// Show the targets of the running server's routes: which are up, and of those that have failed why, since when, and for how long they
    /// are passed over; and which other next hops have failed.
    Targets {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Show the running server's accounts with carriers ([[trunk]]), and how their registrations stand.
    Trunks {
        /// Print a JSON list.
        #[arg(long)]
        json: bool,
    },
    /// Have the running server read its conf again, and the certificates, keys and users that it names: all of it or, if
    /// anything is wrong, nothing. Calls and connections go on. SIGHUP does the same.
    ///
    /// If a key has changed that cannot take effect while the server runs (listeners, cores, [udp] and some more), the
    /// reload is refused and names it. A server that runs without a conf reads its users again.
    Reload,
    /// Have a new process serve in the place of the running one, with the conf as it is now, and the program if that was replaced. No
    /// call fails, no connection is refused, and none is closed: what the old process has it keeps until it is over.
    ///
    /// Returns when the new one serves. If it cannot, the old one goes on serving, and this says why.
    Restart {
        /// End the old process after this many seconds in any case; [server] restart_deadline of the conf if not given. While one of a
        /// restart before still lives there is no other restart, and this is the time that it has left.
        #[arg(long, value_name = "S")]
        deadline: Option<u32>,
    },
    /// Have the running server begin no new dialogs (503 with Retry-After), and stop once no request waits for its answer
    /// any more. Registrations, requests in a dialog and new connections go on until then. SIGTERM does the same.
    Drain {
        /// Stop after this many seconds in any case; [server] drain_deadline of the conf if not given. A second command sets
        /// another time.
        #[arg(long, value_name = "S")]
        deadline: Option<u32>,
        /// Wait for established calls to end, too. The server knows of them where it writes records of calls ([records] file) and
        /// stays in their way ([proxy] record_route); without --deadline it waits for as long as a call may be silent
        /// ([records] lost_after).
        #[arg(long)]
        calls: bool,
        /// Return when the server has stopped, not when it has begun to drain.
        #[arg(long)]
        wait: bool,
    },
    /// Show how much the running server logs, or change it until it stops or the conf says otherwise.
    Log {
        /// off, error, warn, info, debug or trace.
        level: Option<String>,
    },
    /// Watch the running server: a live screen of rates, latency, connections, CPU and the limits being hit. q quits.
    ///
    /// If the output is not a terminal, it prints one screen and ends.
    Top {
        /// Seconds from one look at the server to the next, 0.1 to 3600.
        #[arg(long, value_name = "S", default_value = "1", value_parser = interval)]
        interval: Duration,
        /// Print one screen after one interval.
        #[arg(long)]
        once: bool,
    },
    /// Follow calls through the running server: each message that comes and leaves, and what was decided between, over every
    /// transport, what comes by TLS in the clear. Passwords' hashes and media keys are masked.
    ///
    /// A message that fits all that is named begins to follow its call: from then on everything with its Call-ID is shown, on both
    /// sides of the server. Where nothing is named, all calls are shown. On a terminal it is a ladder, into a pipe text.
    Trace(Trace),
    /// Print the running server's counters and gauges, by their Prometheus names.
    Stats {
        /// Only names that begin with this.
        prefix: Option<String>,
        /// Print one JSON object: names and values.
        #[arg(long)]
        json: bool,
    },
}

/// Seconds, as `top --interval` takes them.
fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match (0.1..=3600.0).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err("not between 0.1 and 3600".to_owned()),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let places = &arguments.places;
    if let Err(error) = survive_full_files() {
        logger::complain(&format!("signals: {error}"));
    }
    // Commands have passwords and keys in hand for a moment. What "run" does the conf says.
    if !matches!(arguments.command, Command::Run) {
        let _ = dumps::forbid();
    }
    let outcome = match &arguments.command {
        Command::Run => run(places),
        Command::Check => cli::check(places),
        Command::Ul { command } => cli::ul(command, places),
        Command::User { command } => cli::user(command, places),
        Command::Health { ready } => cli::health(*ready, places),
        Command::Connections => cli::connections(places),
        Command::Trunks { json } => cli::trunks(*json, places),
        Command::Targets { json } => cli::targets(*json, places),
        Command::Reload => cli::reload(places),
        Command::Restart { deadline } => cli::restart(*deadline, places),
        Command::Drain { deadline, calls, wait } => cli::drain(*deadline, *calls, *wait, places),
        Command::Top { interval, once } => cli::top(*interval, *once, places),
        Command::Trace(wanted) => cli::trace(wanted, places),
        Command::Log { level } => cli::log_level(level.as_deref(), places),
        Command::Stats { prefix, json } => cli::stats(prefix.as_deref(), *json, places),
    };
    let code = outcome.unwrap_or_else(|message| {
        logger::complain(&message);
        ExitCode::FAILURE
    });
    logger::flush();
    code
}

/// A file that has reached the size which the system allows (RLIMIT_FSIZE) is a failed write, as a full disk is, and not the end of
/// the process. A signal that has a handler does not end it.
fn survive_full_files() -> io::Result<()> {
    signal_hook::flag::register(SIGXFSZ, Default::default()).map(drop)
}

fn run(places: &Places) -> Outcome {
    server::note_own_program();
    let successor = server::Successor::meet()?;
    let complaint = successor.as_ref().map(server::Successor::complaint);
    let outcome = serve(places, successor);
    if let (Some(complaint), Err(why)) = (complaint, &outcome) {
        complaint.make(why);
    }
    outcome
}

fn serve(places: &Places, successor: Option<server::Successor>) -> Outcome {
    let conf = places.load()?;
    let pinned = places.pinned();
    let reread = move || pinned.as_ref().map(Places::load).transpose();
    server::run(&conf, &places.conf_name(), Box::new(reread), successor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

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
        assert_eq!(walk(&Arguments::command()), 24);
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
            ("strowger ul add 1003 sip:1003@192.0.2.100:5061 --expires 60", true),
            ("strowger ul rm 1003", true),
            ("strowger ul rm 1003 sip:1003@192.0.2.100:5061", true),
            ("strowger stats strowger_messages --json", true),
            ("strowger health", true),
            ("strowger health --ready", true),
            ("strowger health now", false),
            ("strowger targets", true),
            ("strowger targets --json", true),
            ("strowger targets sip:192.0.2.1", false),
            ("strowger restart", true),
            ("strowger restart --deadline 0", true),
            ("strowger restart --deadline soon", false),
            ("strowger drain", true),
            ("strowger drain --deadline 0 --wait", true),
            ("strowger drain --deadline soon", false),
            ("strowger log", true),
            ("strowger log debug", true),
            ("strowger trace", true),
            ("strowger trace --call a@b --seconds 5 --count 10 --json", true),
            ("strowger trace --user sip:1003@example.com --peer 192.0.2.1:5060 --brief", true),
            ("strowger trace --pcap calls.pcap --seconds 3600", true),
            ("strowger trace --seconds 0", false),
            ("strowger trace --seconds 3601", false),
            ("strowger trace --count 0", false),
            ("strowger trace --peer example.com", false),
            ("strowger trace --user sip:", false),
            ("strowger trace --json --pcap calls.pcap", false),
            ("strowger trace --json --brief", false),
            ("strowger trace 1003", false),
            ("strowger trunks", true),
            ("strowger trunks --json", true),
            ("strowger trunks carrier", false),
            ("strowger top", true),
            ("strowger top --once --interval 0.5", true),
            ("strowger top --interval 0", false),
            ("strowger user add alice --password-stdin", true),
            ("strowger user add alice@example.com --password secret", true),
            ("strowger -c x.toml user passwd alice --password-stdin", true),
            ("strowger user rm alice", true),
            ("strowger user list -c x.toml", true),
            ("strowger user import users.txt", true),
            ("strowger user import users.txt --create", true),
            ("strowger user add alice", true),
            ("strowger user add alice --create --password-stdin", true),
            ("strowger user passwd alice", true),
            ("strowger ul show --json", true),
            ("strowger ul add 1003 sip:a@b --q 0.5 --path <sip:p;lr>", true),
            ("strowger ul add 1003 sip:a@b --q 1.5", false),
            ("strowger", false),
            ("strowger user", false),
            ("strowger user add alice secret", false),
            ("strowger user add --password-stdin", false),
            ("strowger user passwd alice --password-stdin --password x", false),
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
}
