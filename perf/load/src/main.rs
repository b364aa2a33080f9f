//! strowger-load: open-loop SIP load over UDP, TCP and TLS with callers and answerers in one thread, and the bare relay that is the floor.

mod accounts;
mod call;
mod digest;
mod flow;
mod frame;
mod handshake;
mod identity;
mod idle;
mod message;
mod pace;
mod relay;
mod run;
mod search;
mod sides;
mod single;
mod stats;
mod stream;
mod sys;
mod template;
mod timers;
mod tls;
mod watch;
mod wire;

use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};

use accounts::{AuthArguments, ListArguments};
use call::Calls;
use flow::{Dialect, Flow};
use identity::Run;
use pace::Load;
use run::{Bench, Outcome, Phase};
use sides::{SideArguments, TlsArguments};
use single::{Method, Singles};
use stats::Stats;
use watch::Watched;
use wire::{Outbox, Side, Wire};

#[derive(Parser)]
#[command(version, about)]
struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Calls: INVITE, 100, 180, 200, ACK, BYE, 200
    Call(LoadArguments),
    /// REGISTER refreshes of the users in turn
    Register(LoadArguments),
    /// OPTIONS to the server itself
    Options(LoadArguments),
    /// The floor: relays datagrams between the generator's two sides and reads nothing but their first byte
    Relay(RelayArguments),
    /// Opens connections and leaves them idle: what each costs the server in memory
    Idle(idle::IdleArguments),
    /// Writes what a server must know of the users: lines of name:realm:HA1
    Users(ListArguments),
    /// TLS handshakes in memory: what the library costs on each side
    Handshake(handshake::HandshakeArguments),
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Wait {
    /// Look again at once: exact times, and the server never pays for waking the generator
    Spin,
    /// Sleep until something is due or comes
    Sleep,
}

#[derive(Args)]
struct Ports {
    /// First port of the callers
    #[arg(long, default_value_t = 15070)]
    caller_port: u16,
    /// First port of the answerers; the users' contacts name it
    #[arg(long, default_value_t = 15570)]
    answerer_port: u16,
    /// Sockets on each side; more than one where the server has several sockets under one port
    #[arg(long, default_value_t = 1)]
    sockets: u16,
}

#[derive(Args)]
struct RelayArguments {
    #[arg(long, default_value = "127.0.0.1:5060")]
    listen: SocketAddrV4,
    #[command(flatten)]
    ports: Ports,
    /// Send nothing back for an INVITE: the floor of a stateless proxy
    #[arg(long)]
    no_trying: bool,
    /// Datagrams taken and sent in one system call at most
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Lose every datagram of this number: the generator must then retransmit, and end every call all the same
    #[arg(long, default_value_t = 0)]
    lose: u64,
    /// CPU core to run on
    #[arg(long)]
    core: Option<usize>,
}

#[derive(Args)]
struct LoadArguments {
    /// The server, for the callers [default: port 5060, or 5061 with TLS, of 127.0.0.1]
    #[arg(long)]
    server: Option<SocketAddrV4>,
    /// Our address; its port is not used
    #[arg(long, default_value = "127.0.0.1:0")]
    local: SocketAddrV4,
    #[command(flatten)]
    ports: Ports,
    #[command(flatten)]
    sides: SideArguments,
    #[command(flatten)]
    tls: TlsArguments,
    /// Host part of the users' addresses
    #[arg(long, default_value = "127.0.0.1")]
    domain: String,
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
    /// Find the highest open-loop rate at which nothing is lost, then measure at it
    #[arg(long)]
    search: bool,
    /// Poisson arrivals instead of a constant interval
    #[arg(long)]
    poisson: bool,
    /// Seconds of load before measuring; 0 for none
    #[arg(long, default_value_t = 0.0)]
    warm: f64,
    /// Rate of that load; without it, a closed window
    #[arg(long)]
    warm_rate: Option<f64>,
    /// Seconds of rest after it
    #[arg(long, default_value_t = 6.0)]
    rest: f64,
    /// Seconds at the measured load before the measuring begins
    #[arg(long, default_value_t = 1.0)]
    settle: f64,
    /// Measured seconds
    #[arg(long, default_value_t = 10.0)]
    duration: f64,
    /// Measured number, instead of a time
    #[arg(long)]
    count: Option<u64>,
    /// Seconds to wait for the last answers; Timers B and F end every call within 32
    #[arg(long, default_value_t = 35.0)]
    drain: f64,
    /// More than this many outstanding are not begun, but counted as skipped
    #[arg(long, default_value_t = 200_000)]
    max_outstanding: usize,
    /// Process whose CPU time and memory are read, with its children; can be given several times
    #[arg(long)]
    server_pid: Vec<u32>,
    /// The other end is the relay; over TCP and TLS, the generator's own answerer, which --server then names
    #[arg(long)]
    floor: bool,
    /// A header of this many bytes in every message
    #[arg(long, default_value_t = 0)]
    pad: usize,
    #[arg(long, value_enum, default_value_t = Wait::Spin)]
    wait: Wait,
    /// CPU core to run on
    #[arg(long)]
    core: Option<usize>,
    /// Write the results here; - is standard output
    #[arg(long)]
    json: Option<PathBuf>,
    #[arg(long)]
    quiet: bool,
}

fn main() -> ExitCode {
    let done = match Command::parse().what {
        What::Call(arguments) => load(&arguments, None),
        What::Register(arguments) => load(&arguments, Some(Method::Register)),
        What::Options(arguments) => load(&arguments, Some(Method::Options)),
        What::Idle(arguments) => idle::run(&arguments),
        What::Users(arguments) => accounts::list(&arguments).map(|()| ExitCode::SUCCESS),
        What::Handshake(arguments) => handshake::run(&arguments).map(|()| ExitCode::SUCCESS),
        What::Relay(arguments) => relay(&arguments).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|why| {
        eprintln!("strowger-load: {why}");
        ExitCode::from(2)
    })
}

fn relay(arguments: &RelayArguments) -> Result<(), String> {
    if let Some(core) = arguments.core {
        sys::pin(core).map_err(|error| format!("core {core}: {error}"))?;
    }
    let sides = relay::Sides {
        caller_port: arguments.ports.caller_port,
        answerer_port: arguments.ports.answerer_port,
        count: arguments.ports.sockets,
    };
    let manner = relay::Manner {
        trying: !arguments.no_trying,
        batch: arguments.batch.max(1),
        lose: arguments.lose,
    };
    relay::run(arguments.listen, &sides, &manner).map_err(|error| format!("relay: {error}"))
}

fn load(arguments: &LoadArguments, method: Option<Method>) -> Result<ExitCode, String> {
    if let Some(core) = arguments.core {
        sys::pin(core).map_err(|error| format!("core {core}: {error}"))?;
    }
    sys::exact_sleeps();
    sys::raise_descriptor_limit();
    let accounts = arguments.auth.accounts()?;
    let users = accounts.names.count();
    if users < 2 || arguments.ports.sockets == 0 {
        return Err("at least two users and one socket are needed".into());
    }
    if arguments.rate.iter().any(|rate| *rate <= 0.0) {
        return Err("a rate is more than 0".into());
    }
    let server = arguments
        .server
        .unwrap_or_else(|| sides::default_server(arguments.sides.transport, None));
    let openings = arguments.sides.openings(
        server,
        arguments.local,
        (arguments.ports.caller_port, arguments.ports.answerer_port),
        arguments.ports.sockets,
        &arguments.tls,
    )?;
    let out = Outbox::open(&openings).map_err(|error| error.to_string())?;
    let wire = Wire::new(&out);
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(|error| error.to_string())?;
    // Branches of two runs must differ, or the server answers from the transactions of the first.
    let number = since_1970.as_millis() as u32 ^ std::process::id().rotate_left(16);
    let server_port = server.port();
    let mut bench = Bench {
        wire,
        stats: Stats::new(),
        server: Watched::new(&arguments.server_pid),
        server_ports: server_port..server_port + 1,
        own_ports: out.udp_ports(),
        out,
        sleep: arguments.wait == Wait::Sleep,
        quiet: arguments.quiet,
        epoch: Instant::now(),
        seed: u64::from(number),
    };
    let dialect = Dialect::new(
        &arguments.domain,
        arguments.floor,
        arguments.sides.routed,
        arguments.pad,
    );
    let only_registers = method == Some(Method::Register);
    let singles = |method, number, bench: &Bench| {
        Singles::new(
            Run::new(number),
            method,
            dialect.clone(),
            accounts.names.clone(),
            arguments
                .auth
                .credentials(&accounts, &Run::new(number).text(), 1),
            &bench.out.locals,
            match method {
                Method::Options => Side::Caller,
                Method::Register => arguments.sides.registrar(only_registers),
            },
        )
    };
    bench.connect(
        &mut singles(Method::Options, number, &bench),
        CONNECT_SECONDS,
    )?;
    if arguments.register_first {
        let mut flow = singles(Method::Register, number.wrapping_add(1), &bench);
        let all =
            Phase::new("register", Load::Window(32), REGISTER_SECONDS).counted(u64::from(users));
        let outcome = bench.run(&mut flow, &all);
        if outcome.completed() < u64::from(users) {
            return Err(format!(
                "only {} of {} users could be registered",
                outcome.completed(),
                users
            ));
        }
    }
    let results = match method {
        None => {
            let mut flow = Calls::new(
                Run::new(number),
                dialect.clone(),
                accounts.names.clone(),
                arguments
                    .auth
                    .credentials(&accounts, &Run::new(number).text(), users),
                &bench.out.locals,
                arguments.max_outstanding,
            );
            measure(arguments, &mut bench, &mut flow)
        }
        Some(method) => {
            let mut flow = singles(method, number, &bench);
            measure(arguments, &mut bench, &mut flow)
        }
    };
    bench.out.close_all();
    if bench.server.lost() {
        return Err("the server has gone".into());
    }
    let clean = results.iter().all(|result| result["clean"] == json!(true));
    if let Some(path) = &arguments.json {
        let text = format!("{:#}\n", Value::Array(results));
        if path.as_os_str() == "-" {
            print!("{text}");
        } else {
            std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        }
    }
    Ok(if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

/// Warm-up, rest, and each load in turn.
fn measure<F: Flow>(arguments: &LoadArguments, bench: &mut Bench, flow: &mut F) -> Vec<Value> {
    let open = |rate| Load::Open {
        rate,
        poisson: arguments.poisson,
    };
    if arguments.warm > 0.0 {
        let load = arguments.warm_rate.map_or(Load::Window(WARM_WINDOW), open);
        bench.run(flow, &Phase::new("warm", load, arguments.warm));
        bench.run(flow, &Phase::new("rest", Load::Rest, arguments.rest));
    }
    let mut loads: Vec<Load> = arguments.rate.iter().map(|rate| open(*rate)).collect();
    loads.extend(arguments.window.map(Load::Window));
    if arguments.search {
        let rate = search::highest_clean_rate(bench, flow, arguments.poisson);
        loads.push(open(rate));
    }
    let mut results = Vec::new();
    for load in loads {
        if arguments.settle > 0.0 {
            bench.run(flow, &Phase::new("settle", load, arguments.settle));
        }
        let mut phase = Phase::new("measure", load, arguments.duration).measured();
        if let Some(count) = arguments.count {
            phase = phase.counted(count);
            phase.duration_ns = u64::MAX / 2;
        }
        let outcome = bench.run(flow, &phase);
        results.push(finish(bench, flow, &outcome, arguments.drain));
    }
    results
}

/// For all users to be registered; a million of them, each challenged, take half a minute.
const REGISTER_SECONDS: f64 = 300.0;
const WARM_WINDOW: u32 = 48;
/// For the persistent connections to open, all together.
const CONNECT_SECONDS: u64 = 30;

/// Lets the last answers come in before the latencies are read.
fn finish<F: Flow>(bench: &mut Bench, flow: &mut F, outcome: &Outcome, drain: f64) -> Value {
    let drained = bench.run(flow, &Phase::new("drain", Load::Rest, drain).until_quiet());
    let mut result = outcome.json();
    result["latency_us"] = bench.stats.spans_json();
    result["unanswered_after_drain"] = json!(flow.outstanding());
    if let Some(streams) = &bench.out.streams {
        result["connections_open"] = json!(streams.open);
        result["tls"] = json!(streams.agreed);
    }
    result["clean"] = json!(outcome.is_clean() && drained.is_clean() && flow.outstanding() == 0);
    result
}
