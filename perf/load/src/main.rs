//! strowger-load: open-loop SIP load over UDP, TCP and TLS with callers and answerers in one thread, and the bare relay that is the floor.

mod accounts;
mod answer;
mod call;
mod digest;
mod end;
mod fleet;
mod flow;
mod frame;
mod handshake;
mod identity;
mod idle;
mod load;
mod message;
mod outcome;
mod pace;
mod progress;
mod reflect;
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

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use accounts::ListArguments;
use load::{LoadArguments, Ports};
use single::Method;

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

#[derive(Args)]
struct RelayArguments {
    #[arg(long, default_value = "127.0.0.1:5060")]
    listen: SocketAddr,
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

fn main() -> ExitCode {
    let done = match Command::parse().what {
        What::Call(arguments) => load::run(arguments, None),
        What::Register(arguments) => load::run(arguments, Some(Method::Register)),
        What::Options(arguments) => load::run(arguments, Some(Method::Options)),
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
    let manner = relay::Manner { trying: !arguments.no_trying, batch: arguments.batch.max(1), lose: arguments.lose };
    relay::run(arguments.listen, &sides, &manner).map_err(|error| format!("relay: {error}"))
}
