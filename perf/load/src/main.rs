//! strowger-load: open-loop SIP load over UDP, TCP and TLS with callers and answerers in one thread, and the bare relay that is the floor.

mod accounts;
mod answerer;
mod call;
mod digest;
mod distance;
mod flow;
mod frame;
mod handshake;
mod identity;
mod idle;
mod load;
mod mark;
mod message;
mod outcome;
mod pace;
mod parties;
mod reflect;
mod register;
mod relay;
mod relay_stream;
mod run;
mod search;
mod sides;
mod slices;
mod sockets;
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

use clap::{Args, Parser, Subcommand, ValueEnum};

use accounts::ListArguments;
use load::LoadArguments;
use relay_stream::Answerers;
use sides::Ports;
use wire::Transport;

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
    /// The floor: relays between the generator's two sides, and reads nothing but the first byte of a datagram, or the mark of a message
    Relay(RelayArguments),
    /// Opens connections and leaves them idle: what each costs the server in memory
    Idle(idle::IdleArguments),
    /// Writes what a server must know of the users: lines of name:realm:HA1
    Users(ListArguments),
    /// TLS handshakes in memory: what the library costs on each side
    Handshake(handshake::HandshakeArguments),
    /// How long a cache line takes between two cores and back: a host may move the cores of a virtual machine
    Distance(distance::DistanceArguments),
}

#[derive(Args)]
struct RelayArguments {
    /// Where the callers send to, and connect to
    #[arg(long, default_value = "127.0.0.1:5060")]
    listen: SocketAddr,
    /// The callers' transport. Over TCP it accepts a connection for all calls, or one for each, as they come
    #[arg(long, value_parser = without_tls, default_value = "udp")]
    transport: Transport,
    /// The answerers' transport [default: the callers']
    #[arg(long, value_parser = without_tls)]
    callee_transport: Option<Transport>,
    /// Connections towards the answerers over TCP
    #[arg(long, value_enum, default_value_t = Answerers::One)]
    answerers: Answerers,
    /// Connect to so many addresses of 127.0.0.0/8 in turn, as the generator's --spread names them
    #[arg(long, default_value_t = 0)]
    spread: u32,
    #[command(flatten)]
    ports: Ports,
    /// Send nothing back for an INVITE: the floor of a stateless proxy
    #[arg(long)]
    no_trying: bool,
    /// Lose every datagram of this number: the generator must then retransmit, and end every call all the same
    #[arg(long, default_value_t = 0)]
    lose: u64,
}

fn without_tls(text: &str) -> Result<Transport, String> {
    match Transport::from_str(text, true)? {
        Transport::Tls => Err("a bare relay has no TLS: what a handshake costs at least, `handshake` says".into()),
        transport => Ok(transport),
    }
}

fn main() -> ExitCode {
    let done = match Command::parse().what {
        What::Call(arguments) => load::run(&arguments, false),
        What::Register(arguments) => load::run(&arguments, true),
        What::Idle(arguments) => idle::run(&arguments),
        What::Users(arguments) => accounts::list(&arguments).map(|()| ExitCode::SUCCESS),
        What::Handshake(arguments) => handshake::run(&arguments).map(|()| ExitCode::SUCCESS),
        What::Distance(arguments) => distance::run(&arguments).map(|()| ExitCode::SUCCESS),
        What::Relay(arguments) => relay(&arguments).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|why| {
        eprintln!("strowger-load: {why}");
        ExitCode::from(2)
    })
}

fn relay(arguments: &RelayArguments) -> Result<(), String> {
    let say = |error| format!("relay: {error}");
    let trying = !arguments.no_trying;
    let callee = arguments.callee_transport.unwrap_or(arguments.transport);
    if !callee.is_reliable() && (arguments.answerers == Answerers::PerCall || arguments.spread > 0) {
        return Err("over UDP the relay connects to nobody: --answerers and --spread are for --callee-transport tcp".into());
    }
    if arguments.transport.is_reliable() || callee.is_reliable() {
        if arguments.lose > 0 || arguments.ports.sockets > 1 {
            return Err("--lose and --sockets are for UDP on both sides".into());
        }
        let answerers = callee.is_reliable().then_some(arguments.answerers);
        let answerer = SocketAddr::new(arguments.listen.ip(), arguments.ports.answerer_port);
        let manner = relay_stream::Manner { trying, answerers, answerer, spread: arguments.spread };
        sys::raise_descriptor_limit()?;
        return relay_stream::run(arguments.listen, manner).map_err(say);
    }
    let sides = relay::Sides {
        caller_port: arguments.ports.caller_port,
        answerer_port: arguments.ports.answerer_port,
        count: arguments.ports.sockets,
    };
    let manner = relay::Manner { trying, lose: arguments.lose };
    relay::run(arguments.listen, &sides, &manner).map_err(say)
}
