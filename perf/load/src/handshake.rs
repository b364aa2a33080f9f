//! Handshakes in memory, without sockets: what the library itself costs on each side, and nothing can be below.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};

use crate::sides::TlsArguments;
use crate::sys;
use crate::tls::{Agreed, Endpoint, Step, Tls};

#[derive(Args)]
pub struct HandshakeArguments {
    /// Handshakes of each kind
    #[arg(long, default_value_t = 400)]
    count: usize,
    /// CPU core to run on
    #[arg(long)]
    core: Option<usize>,
    /// The server is what --callee-… say, the client what the callers' options say
    #[command(flatten)]
    tls: TlsArguments,
}

/// Time that one side took, and how often the library was called.
#[derive(Clone, Copy, Default)]
struct Side {
    ns: u64,
    calls: u32,
}

impl Side {
    /// A step where one can do something. Returns whether it is done.
    fn step(&mut self, tls: &mut Tls) -> Result<bool, String> {
        let start = Instant::now();
        let step = tls.handshake()?;
        self.ns += start.elapsed().as_nanos() as u64;
        self.calls += 1;
        Ok(matches!(step, Step::Done { .. }))
    }
}

fn carry(from: &mut Tls, to: &mut Tls) -> bool {
    let bytes = std::mem::take(&mut from.pipe().outgoing);
    to.pipe().put(&bytes);
    !bytes.is_empty()
}

/// One handshake, and a message from the server so that its tickets arrive. Returns what server and client took, and the client.
fn shake(server: &Endpoint, client: &Endpoint) -> Result<(Side, Side, Shaken), String> {
    let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let (mut at_server, mut at_client) = (Side::default(), Side::default());
    let start = Instant::now();
    let mut theirs = server.open(peer).map_err(|error| error.to_string())?;
    at_server.ns = start.elapsed().as_nanos() as u64;
    let start = Instant::now();
    let mut ours = client.open(peer).map_err(|error| error.to_string())?;
    at_client.ns = start.elapsed().as_nanos() as u64;
    at_client.step(&mut ours)?;
    while ours.handshaking || theirs.handshaking {
        let mut moved = carry(&mut ours, &mut theirs);
        if moved && theirs.handshaking {
            at_server.step(&mut theirs)?;
        }
        let back = carry(&mut theirs, &mut ours);
        if back && ours.handshaking {
            at_client.step(&mut ours)?;
        }
        moved |= back;
        if !moved {
            return Err("neither side has anything to say".into());
        }
    }
    theirs.write(b"\r\n")?;
    carry(&mut theirs, &mut ours);
    let mut bytes = [0; 16];
    while ours.read(&mut bytes)?.is_some() {}
    let shaken =
        Shaken { resumed: ours.resumed(), agreed: ours.agreed(), chain: ours.peer_chain(), mutual: theirs.has_peer_certificate() };
    Ok((at_server, at_client, shaken))
}

/// What a handshake was.
struct Shaken {
    resumed: bool,
    agreed: Agreed,
    /// Certificates that the server has shown.
    chain: usize,
    /// The client has shown one.
    mutual: bool,
}

pub fn run(arguments: &HandshakeArguments) -> Result<(), String> {
    if let Some(core) = arguments.core {
        sys::pin(core).map_err(|error| format!("core {core}: {error}"))?;
    }
    let server = Endpoint::server(&arguments.tls.callee())?;
    let client = Endpoint::client(&arguments.tls.caller())?;
    let (mut at_server, mut at_client) = (Vec::new(), Vec::new());
    let (mut resumed, mut calls) = (0, (0, 0));
    // The first has no session to resume, and everything to load.
    let (_, _, first) = shake(&server, &client)?;
    let mut last = None;
    for _ in 0..arguments.count.max(1) {
        let (theirs, ours, shaken) = shake(&server, &client)?;
        at_server.push(theirs.ns);
        at_client.push(ours.ns);
        calls = (theirs.calls, ours.calls);
        resumed += usize::from(shaken.resumed);
        last = Some(shaken);
    }
    let Shaken { agreed, mutual, .. } = last.ok_or("no handshake")?;
    let result = json!({
        "library": openssl::version::version(),
        "version": agreed.version,
        "group": agreed.group,
        "cipher": agreed.cipher,
        "chain": first.chain,
        "mutual": mutual,
        "handshakes": at_server.len(),
        "resumed": resumed,
        "server": quartiles_us(&mut at_server),
        "client": quartiles_us(&mut at_client),
        "server_us": quantile_us(&at_server, 2),
        "client_us": quantile_us(&at_client, 2),
        "server_calls": calls.0,
        "client_calls": calls.1,
    });
    println!("{result:#}");
    Ok(())
}

/// The quartiles: a handshake in which something else had the core says nothing.
fn quartiles_us(ns: &mut [u64]) -> Value {
    ns.sort_unstable();
    json!({"n": ns.len(), "p25": quantile_us(ns, 1), "median": quantile_us(ns, 2), "p75": quantile_us(ns, 3)})
}

fn quantile_us(sorted_ns: &[u64], quarter: usize) -> f64 {
    sorted_ns[sorted_ns.len() * quarter / 4] as f64 / 1e3
}
