//! Handshakes in memory, without sockets: what the library itself costs on each side, and nothing can be below.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};
use strowger::net::tls::{Failure, Tls};

use crate::sides::TlsArguments;
use crate::sys;
use crate::tls::{Agreed, Endpoint};

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

/// A connection's end, and the nanoseconds that its handshake took.
struct Side {
    tls: Tls,
    ns: u64,
}

impl Side {
    fn open(endpoint: &Endpoint) -> Result<Side, String> {
        let start = Instant::now();
        let tls = endpoint.open(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        Ok(Side { tls, ns: start.elapsed().as_nanos() as u64 })
    }

    /// Takes what the other side has to say. Returns whether that was anything.
    fn hear(&mut self, other: &mut Side) -> Result<bool, Failure> {
        let bytes = std::mem::take(other.tls.output());
        if bytes.is_empty() {
            return Ok(false);
        }
        let is_done = self.tls.is_established();
        let start = Instant::now();
        self.tls.receive(&bytes, &mut Vec::new())?;
        if !is_done {
            self.ns += start.elapsed().as_nanos() as u64;
        }
        Ok(true)
    }
}

/// One handshake, and a message from the server so that its tickets arrive. Returns the server, the client, and what it was.
fn shake(server: &Endpoint, client: &Endpoint) -> Result<(Side, Side, Shaken), String> {
    let say = |failure: Failure| failure.to_string();
    let (mut theirs, mut ours) = (Side::open(server)?, Side::open(client)?);
    while !(ours.tls.is_established() && theirs.tls.is_established()) {
        let there = theirs.hear(&mut ours).map_err(say)?;
        let back = ours.hear(&mut theirs).map_err(say)?;
        if !there && !back {
            return Err("neither side has anything to say".into());
        }
    }
    theirs.tls.send(b"\r\n").map_err(say)?;
    ours.hear(&mut theirs).map_err(say)?;
    let shaken = Shaken {
        resumed: ours.tls.is_resumed(),
        agreed: Agreed::of(&ours.tls),
        chain: ours.tls.ssl().peer_cert_chain().map_or(0, |chain| chain.len()),
        mutual: theirs.tls.is_mutual(),
    };
    Ok((theirs, ours, shaken))
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
    sys::pin(arguments.core)?;
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
        calls = (theirs.tls.handshake_calls(), ours.tls.handshake_calls());
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
