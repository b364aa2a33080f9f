//! Handshakes in memory, without sockets: what the library itself costs on each side, and nothing can be below.

use std::net::Ipv4Addr;
use std::time::Instant;

use clap::Args;
use openssl::error::ErrorStack;
use openssl::ssl::{ErrorCode, ShutdownState, SslRef, SslStream};
use openssl::x509::X509VerifyResult;
use serde_json::{Value, json};
use strowger::net::tls::Wire;

use crate::slices::{full_speed_ns, is_full_speed, work_ns};
use crate::tls::{Agreed, Endpoint, TlsArguments};

#[derive(Args)]
pub struct HandshakeArguments {
    /// Handshakes of each kind
    #[arg(long, default_value_t = 400)]
    count: usize,
    /// The server is what --callee-… say, the client what the callers' options say
    #[command(flatten)]
    tls: TlsArguments,
}

/// An end of a connection: the library alone, without what the server has around it; how often it was called, and how long that took.
struct End {
    stream: SslStream<Wire>,
    is_done: bool,
    calls: u32,
    ns: u64,
}

impl End {
    fn open(endpoint: &Endpoint, take_side: fn(&mut SslRef)) -> Result<End, ErrorStack> {
        let start = Instant::now();
        let mut ssl = endpoint.prepare(Ipv4Addr::LOCALHOST.into())?;
        take_side(&mut ssl);
        let stream = SslStream::new(ssl, Wire::default())?;
        Ok(End { stream, is_done: false, calls: 0, ns: start.elapsed().as_nanos() as u64 })
    }

    fn step(&mut self) -> Result<(), String> {
        let start = Instant::now();
        let outcome = self.stream.do_handshake();
        self.ns += start.elapsed().as_nanos() as u64;
        self.calls += 1;
        match outcome {
            Ok(()) => self.is_done = true,
            Err(error) if error.code() == ErrorCode::WANT_READ => {}
            Err(error) => {
                return Err(match self.stream.ssl().verify_result() {
                    X509VerifyResult::OK => error.to_string(),
                    why => format!("{error} ({why})"),
                });
            }
        }
        Ok(())
    }

    /// Takes what the other side has to say. Returns whether that was anything.
    fn hear(&mut self, other: &mut End) -> Result<bool, String> {
        let bytes = std::mem::take(&mut other.stream.get_mut().output);
        let wire = self.stream.get_mut();
        wire.push(&bytes);
        wire.release(bytes.len());
        if !bytes.is_empty() && !self.is_done {
            self.step()?;
        }
        Ok(!bytes.is_empty())
    }
}

/// One handshake, and a message from the server so that its tickets arrive. Returns the server, the client, and what it was.
fn shake(server: &Endpoint, client: &Endpoint) -> Result<(End, End, Shaken), String> {
    let say = |error: ErrorStack| error.to_string();
    let mut theirs = End::open(server, SslRef::set_accept_state).map_err(say)?;
    let mut ours = End::open(client, SslRef::set_connect_state).map_err(say)?;
    ours.step()?;
    while !(ours.is_done && theirs.is_done) {
        let there = theirs.hear(&mut ours)?;
        let back = ours.hear(&mut theirs)?;
        if !there && !back {
            return Err("neither side has anything to say".into());
        }
    }
    theirs.stream.ssl_write(b"\r\n").map_err(|error| error.to_string())?;
    ours.hear(&mut theirs)?;
    while ours.stream.ssl_read(&mut [0; 16]).is_ok() {}
    // Without it the library holds the session for broken off, and will not resume it.
    for end in [&mut theirs, &mut ours] {
        end.stream.set_shutdown(ShutdownState::SENT | ShutdownState::RECEIVED);
    }
    let (by, to) = (theirs.stream.ssl(), ours.stream.ssl());
    let shaken = Shaken {
        resumed: to.session_reused(),
        agreed: Agreed::of(to),
        chain: to.peer_cert_chain().map_or(0, |chain| chain.len()),
        mutual: by.peer_certificate().is_some(),
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
    let server = Endpoint::server(&arguments.tls.callee())?;
    let client = Endpoint::client(&arguments.tls.caller())?;
    let (mut at_server, mut at_client, mut works_ns) = (Vec::new(), Vec::new(), vec![work_ns()]);
    let (mut resumed, mut calls) = (0, (0, 0));
    // The first has no session to resume, and everything to load.
    let (_, _, first) = shake(&server, &client)?;
    let mut last = None;
    for _ in 0..arguments.count.max(1) {
        let (theirs, ours, shaken) = shake(&server, &client)?;
        at_server.push(theirs.ns);
        at_client.push(ours.ns);
        works_ns.push(work_ns());
        calls = (theirs.calls, ours.calls);
        resumed += usize::from(shaken.resumed);
        last = Some(shaken);
    }
    let Shaken { agreed, mutual, .. } = last.ok_or("no handshake")?;
    let calm = calm(&works_ns, &at_server, &at_client);
    let result = json!({
        "calm": calm,
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

/// Those before and after which the core had its full speed, as [`crate::slices`] has it.
fn calm(works_ns: &[u64], at_server: &[u64], at_client: &[u64]) -> Value {
    let full_ns = full_speed_ns(works_ns.iter().copied()).unwrap_or_default();
    let is_calm = |pair: &[u64]| pair.iter().all(|work_ns| is_full_speed(*work_ns, full_ns));
    let of_calm = |all: &[u64]| {
        let calm = all.iter().zip(works_ns.windows(2)).filter(|(_, around)| is_calm(around));
        let mut ns: Vec<u64> = calm.map(|(ns, _)| *ns).collect();
        ns.sort_unstable();
        ns
    };
    let (server, client) = (of_calm(at_server), of_calm(at_client));
    let mut found = json!({ "share": server.len() as f64 / at_server.len() as f64, "completed": server.len(), "work_ns": full_ns });
    if !server.is_empty() {
        found["server_us"] = json!(quantile_us(&server, 2));
        found["client_us"] = json!(quantile_us(&client, 2));
    }
    found
}

/// The quartiles: a handshake in which something else had the core says nothing.
fn quartiles_us(ns: &mut [u64]) -> Value {
    ns.sort_unstable();
    json!({"n": ns.len(), "p25": quantile_us(ns, 1), "median": quantile_us(ns, 2), "p75": quantile_us(ns, 3)})
}

fn quantile_us(sorted_ns: &[u64], quarter: usize) -> f64 {
    sorted_ns[sorted_ns.len() * quarter / 4] as f64 / 1e3
}
