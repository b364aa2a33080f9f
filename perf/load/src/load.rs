//! A load on a server: its options, its phases one after the other, and the results.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum, value_parser};
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::call::Calls;
use crate::digest::AuthArguments;
use crate::flow::Flow;
use crate::identity::Run;
use crate::outcome::{Goodput, Outcome};
use crate::pace::Load;
use crate::parties::{self, Dialect, Parties};
use crate::reflect::Reflector;
use crate::register::Registrations;
use crate::run::{Bench, Phase};
use crate::search::SearchArguments;
use crate::sides::{self, Ports, Role, SideArguments, loopback};
use crate::sys;
use crate::tls::TlsArguments;
use crate::watch::Watched;
use crate::wire::Outbox;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Wait {
    /// Look again at once: exact times, and the server never pays for waking the generator
    Spin,
    /// Sleep until something is due or comes
    Sleep,
}

#[derive(Args)]
pub struct LoadArguments {
    /// The server, for the callers [default: port 5060, or 5061 with TLS, of 127.0.0.1]
    #[arg(long)]
    server: Option<SocketAddr>,
    /// Our address; its port is not used [default: 127.0.0.1:0, or [::1]:0 where the server has an IPv6 address]
    #[arg(long)]
    local: Option<SocketAddr>,
    #[command(flatten)]
    ports: Ports,
    #[command(flatten)]
    sides: SideArguments,
    #[command(flatten)]
    tls: TlsArguments,
    /// Host part of the users' addresses [default: 127.0.0.1, or [::1] where the server has an IPv6 address]
    #[arg(long)]
    domain: Option<String>,
    #[command(flatten)]
    auth: AuthArguments,
    /// Register all users once before anything else
    #[arg(long)]
    register_first: bool,
    /// Open loop: this many a second; several rates are measured one after the other
    #[arg(long, value_delimiter = ',')]
    rate: Vec<f64>,
    /// Closed window: this many outstanding
    #[arg(long)]
    window: Option<u32>,
    #[command(flatten)]
    search: SearchArguments,
    /// Seconds that the answerers let each call ring, between 180 and 200
    #[arg(long, default_value_t = 0.0)]
    ring: f64,
    /// Seconds that each call stands open, between its ACK and its BYE
    #[arg(long, default_value_t = 0.0)]
    hold: f64,
    /// Poisson arrivals instead of a constant interval
    #[arg(long)]
    poisson: bool,
    /// Seconds of load before measuring; 0 for none
    #[arg(long, default_value_t = 0.0)]
    warm: f64,
    /// That load is a closed window: this many outstanding [default: the first of --rate; 48 where there is none]
    #[arg(long)]
    warm_window: Option<u32>,
    /// Seconds of rest after it
    #[arg(long, default_value_t = 6.0)]
    rest: f64,
    /// Seconds at the measured load before the measuring begins [default: 1, and the hold time]
    #[arg(long)]
    settle: Option<f64>,
    /// Measured seconds [default: 10; --role answerers: until a signal comes]
    #[arg(long)]
    duration: Option<f64>,
    /// Measured number, and no longer than --duration if that is given
    #[arg(long)]
    count: Option<u64>,
    /// Seconds to wait for the last answers, and the hold time; Timers B and F end every call within 32
    #[arg(long, default_value_t = 35.0)]
    drain: f64,
    /// More than this many outstanding are not begun, but counted as skipped
    #[arg(long, default_value_t = 200_000)]
    max_outstanding: usize,
    /// Process whose CPU time and memory are read, with its children; can be given several times
    #[arg(long)]
    server_pid: Vec<u32>,
    /// The server's core, the only one that it runs on: what it costs while that core has its full speed is told apart, in `calm`
    #[arg(long)]
    server_core: Option<usize>,
    /// No proxy is between: --server is the relay, or over TCP and TLS the generator's own listener
    #[arg(long)]
    floor: bool,
    /// A header of this many bytes in every message
    #[arg(long, default_value_t = 0, value_parser = value_parser!(u16).range(..=1_000))]
    pad: u16,
    #[arg(long, value_enum, default_value_t = Wait::Spin)]
    wait: Wait,
    /// Seconds between two turns of its clock: a call begins, and what follows a delay is sent, in the next one. Answers leave at once.
    /// 0: no turns
    #[arg(long, default_value_t = 0.0)]
    turn: f64,
    /// Write the results here; - is standard output
    #[arg(long)]
    json: Option<PathBuf>,
    #[arg(long)]
    quiet: bool,
}

/// `registers`: REGISTERs are measured, and not calls.
pub fn run(arguments: &LoadArguments, registers: bool) -> Result<ExitCode, String> {
    arguments.check(registers)?;
    sys::exact_sleeps();
    sys::raise_descriptor_limit()?;
    let accounts = arguments.auth.accounts();
    let users = accounts.names.count();
    if users < 2 {
        return Err("at least two users are needed".into());
    }
    let server = arguments.server.unwrap_or_else(|| {
        let host = arguments.local.map(|local| loopback(local.is_ipv6()));
        sides::default_server(arguments.sides.transport, host)
    });
    let local = arguments.local.unwrap_or_else(|| SocketAddr::new(loopback(server.is_ipv6()), 0));
    let openings = arguments.sides.openings(server, local, &arguments.ports, &arguments.tls)?;
    let out = Outbox::open(openings, arguments.floor).map_err(|error| error.to_string())?;
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?;
    // Branches of two runs must differ, or the server answers from the transactions of the first.
    let number = since_1970.as_millis() as u32 ^ std::process::id().rotate_left(16);
    let (watched, sleeps) = (Watched::new(&arguments.server_pid), arguments.wait == Wait::Sleep);
    let mut bench = Bench::new(out, watched, server, sleeps, arguments.quiet, number.into());
    let dialect = Dialect {
        domain: arguments.domain.clone().unwrap_or_else(|| parties::uri_host(loopback(server.is_ipv6()))),
        floor: arguments.floor,
        routed: arguments.sides.routed,
        hops: arguments.sides.hops,
        body: parties::body(local.ip()),
        pad: parties::pad(arguments.pad.into()),
    };
    let parties = Rc::new(Parties::new(dialect, accounts.names.clone(), &bench.out.locals()));
    let credentials = |run: Run| arguments.auth.credentials(&accounts, &run.text());
    let registrar = arguments.sides.registrar(registers);
    let registrations = |number| {
        let run = Run::new(number);
        Registrations::new(run, parties.clone(), credentials(run), registrar)
    };
    bench.connect(&mut registrations(number), CONNECT_SECONDS)?;
    if arguments.register_first {
        register_all(&mut bench, registrations(number.wrapping_add(1)), users)?;
    }
    let ns = |seconds: f64| (seconds * 1e9) as u64;
    bench.turn_ns = ns(arguments.turn);
    bench.server_core = arguments.server_core;
    let results = if registers {
        measure(arguments, &mut bench, &mut registrations(number))
    } else if arguments.sides.role == Role::Answerers {
        let mut flow = Reflector::new(parties, ns(arguments.ring));
        let stop = signals()?;
        eprintln!("strowger-load: answerers ready");
        let seconds = arguments.duration.unwrap_or(FOREVER_SECONDS);
        let phase = Phase::new("answer", Load::Rest, seconds).measured().until(stop);
        vec![bench.run(&mut flow, &phase).json()]
    } else {
        let run = Run::new(number);
        let times_ns = (ns(arguments.ring), ns(arguments.hold));
        let mut flow = Calls::new(run, parties.clone(), credentials(run), arguments.max_outstanding, times_ns);
        measure(arguments, &mut bench, &mut flow)
    };
    bench.out.close_all();
    if bench.server.lost() {
        return Err("the server has gone".into());
    }
    let clean = results.iter().all(|result| result["clean"] == json!(true));
    if let Some(path) = &arguments.json {
        write_json(path, &Value::Array(results))?;
    }
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Becomes true when somebody wants an end.
fn signals() -> Result<Arc<AtomicBool>, String> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(|error| format!("signal {signal}: {error}"))?;
    }
    Ok(stop)
}

fn register_all(bench: &mut Bench, mut flow: Registrations, users: u32) -> Result<(), String> {
    // Where nobody is, the others need not be tried.
    let one = Phase::new("register one", Load::Window(1), ANSWER_SECONDS).counted(1);
    if bench.run(&mut flow, &one).completed() == 0 {
        return Err(format!(
            "the first of {users} users could not be registered within {ANSWER_SECONDS} s: is this the server's address?"
        ));
    }
    let others = u64::from(users) - 1;
    let all = Phase::new("register", Load::Window(32), REGISTER_SECONDS).counted(others);
    match bench.run(&mut flow, &all).completed() {
        registered if registered < others => Err(format!("only {} of {users} users could be registered", registered + 1)),
        _ => Ok(()),
    }
}

/// Writes to a file, or where it is named `-`, to standard output.
pub fn write_json(path: &Path, value: &Value) -> Result<(), String> {
    let text = format!("{value:#}\n");
    if path.as_os_str() == "-" {
        print!("{text}");
        return Ok(());
    }
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Warm-up, rest, and each load in turn.
fn measure<F: Flow>(arguments: &LoadArguments, bench: &mut Bench, flow: &mut F) -> Vec<Value> {
    if arguments.warm > 0.0 {
        bench.run(flow, &Phase::new("warm", arguments.warming(), arguments.warm));
        bench.run(flow, &Phase::new("rest", Load::Rest, arguments.rest));
    }
    let mut loads: Vec<(Load, Value)> = arguments.rate.iter().map(|rate| (arguments.open(*rate), Value::Null)).collect();
    loads.extend(arguments.window.map(|window| (Load::Window(window), Value::Null)));
    let (settle, drain) = (arguments.settle(), arguments.drain + arguments.hold);
    if let Some(allowed) = arguments.search.search_failures {
        let (rate, found) = arguments.search.run(allowed, bench, flow, arguments.poisson, (settle, drain, arguments.hold));
        loads.push((arguments.open(rate), found));
    }
    let mut results = Vec::new();
    for (load, search) in loads {
        if settle > 0.0 {
            bench.run(flow, &Phase::new("settle", load, settle));
        }
        let usual = arguments.count.map_or(SECONDS, |_| FOREVER_SECONDS);
        let mut phase = Phase::new("measure", load, arguments.duration.unwrap_or(usual)).measured();
        phase.count = arguments.count;
        let (_, goodput, mut result) = measure_one(bench, flow, &phase, drain);
        if !search.is_null() {
            result["search"] = search;
        }
        bench.say(&format!(
            "           {:>8.0}/s scheduled, {:>8.0}/s ended well: {:.2} % failed",
            number(&result["scheduled_per_second"]),
            number(&result["goodput_per_second"]),
            goodput.failed_share() * 100.0,
        ));
        latency_lines(&result).iter().for_each(|line| bench.say(line));
        results.push(result);
    }
    results
}

/// How long answers took, a line for each span that was measured.
fn latency_lines(result: &Value) -> Vec<String> {
    let Some(spans) = result["latency_us"].as_object() else {
        return Vec::new();
    };
    let line = |(name, span): (&String, &Value)| {
        let ms = |key: &str| format!("{key} {:.2} ms", number(&span[key]) / 1e3);
        format!("{:>10} {:<13} {}", "", name, ["p50", "p90", "p99", "max"].map(ms).join("  "))
    };
    spans.iter().filter(|(name, _)| *name != "generator_lag").map(line).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

impl LoadArguments {
    fn check(&self, registers: bool) -> Result<(), String> {
        if self.ports.sockets == 0 {
            return Err("at least one socket is needed".into());
        }
        if self.rate.iter().any(|rate| *rate <= 0.0) {
            return Err("a rate is more than 0".into());
        }
        if !(0.0..1e6).contains(&self.hold) {
            return Err("a hold time is 0 or more seconds".into());
        }
        // The INVITE is given up after 32 s, ringing or not.
        if !(0.0..30.0).contains(&self.ring) {
            return Err("a ring time is less than 30 seconds".into());
        }
        self.search.check()?;
        let role = self.sides.role;
        if role != Role::Both && registers {
            return Err("only calls have callers and answerers".into());
        }
        if role == Role::Callers && self.register_first {
            return Err("users are registered by their answerers' process".into());
        }
        Ok(())
    }

    fn open(&self, rate: f64) -> Load {
        Load::Open { rate, poisson: self.poisson }
    }

    fn warming(&self) -> Load {
        match (self.warm_window, self.rate.first()) {
            (None, Some(rate)) => self.open(*rate),
            (window, _) => Load::Window(window.unwrap_or(WARM_WINDOW)),
        }
    }

    fn settle(&self) -> f64 {
        self.settle.unwrap_or(1.0 + self.ring + self.hold)
    }
}

/// For all users to be registered; a million of them, each challenged, take half a minute.
const REGISTER_SECONDS: f64 = 300.0;
/// For the first of them: four retransmissions are sent meanwhile.
const ANSWER_SECONDS: f64 = 10.0;
const FOREVER_SECONDS: f64 = 1e9;
const SECONDS: f64 = 10.0;
const WARM_WINDOW: u32 = 48;
/// For the persistent connections to open, all together.
const CONNECT_SECONDS: u64 = 30;

/// Measures one phase and lets its last answers come in.
pub fn measure_one<F: Flow>(bench: &mut Bench, flow: &mut F, phase: &Phase, drain: f64) -> (Outcome, Goodput, Value) {
    let outcome = bench.run(flow, phase);
    let drained = bench.run(flow, &Phase::new("drain", Load::Rest, drain).until_quiet());
    let goodput = Goodput::of(&outcome, &drained);
    let mut result = outcome.json();
    result["goodput_per_second"] = json!(goodput.good as f64 / outcome.seconds);
    result["failed_share"] = json!(goodput.failed_share());
    result["good"] = json!(goodput.good);
    result["drain_counts"] = Value::Object(drained.counts.json());
    result["drain_seconds"] = json!(drained.seconds);
    result["latency_us"] = bench.stats.spans_json();
    result["unanswered_after_drain"] = json!(flow.outstanding());
    result["connections_open"] = json!(bench.out.streams.open);
    result["tls"] = json!(bench.out.streams.agreed);
    result["clean"] = json!(outcome.is_clean() && drained.is_clean() && flow.outstanding() == 0);
    (outcome, goodput, result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        load: LoadArguments,
    }

    fn warming(line: &str) -> Load {
        let words = ["strowger-load"].into_iter().chain(line.split_whitespace());
        Line::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).load.warming()
    }

    #[test]
    fn it_warms_up_at_the_rate_that_is_measured() {
        assert_eq!(warming("--rate 200,4000 --warm 5"), Load::Open { rate: 200.0, poisson: false });
        assert_eq!(warming("--window 4 --warm 5"), Load::Window(48));
        assert_eq!(warming("--rate 200 --warm 5 --warm-window 8"), Load::Window(8));
    }

    #[test]
    fn latency_is_a_line_for_each_span_but_the_generators_own() {
        let span = json!({"p50": 1500.0, "p90": 2000.0, "p99": 30_000.0, "max": 400_000.0});
        let result = json!({"latency_us": {"to_180": span, "generator_lag": span}});
        assert_eq!(latency_lines(&result), ["           to_180        p50 1.50 ms  p90 2.00 ms  p99 30.00 ms  max 400.00 ms"]);
        assert!(latency_lines(&json!({})).is_empty());
    }
}
