//! Connections that are opened and left alone, or closed again: what each costs the server in memory of its own and in time.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use crate::flow::{Flow, Turn};
use crate::load::write_json;
use crate::pace::Load;
use crate::parties::uri_host;
use crate::run::{Bench, Phase};
use crate::sides::{default_server, loopback};
use crate::stats::Count;
use crate::sys;
use crate::tls::{Endpoint, TlsArguments};
use crate::watch::Watched;
use crate::wire::{Link, Local, Manner, Opening, Outbox, Side, Transport};

#[derive(Args)]
pub struct IdleArguments {
    /// The server [default: port 5060, or 5061 with TLS, of 127.0.0.1]
    #[arg(long)]
    server: Option<SocketAddr>,
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    transport: Transport,
    /// Connections to open
    #[arg(long, default_value_t = 10_000)]
    connections: u32,
    /// Connections that are being opened at the same time
    #[arg(long, default_value_t = 32)]
    at_once: usize,
    /// Our first address [default: 127.0.0.2, or ::1 where the server has an IPv6 address]
    #[arg(long)]
    local: Option<IpAddr>,
    /// Addresses in turn, from the first upwards
    #[arg(long, default_value_t = 8)]
    sources: u32,
    /// Send one OPTIONS on each and wait for its answer, so that the server has used whatever buffers it uses
    #[arg(long)]
    exchange: bool,
    /// Close each so many seconds after it has opened, before the next takes its place: what opening costs, without calls. Tickets of TLS 1.3
    /// come a moment after the handshake
    #[arg(long)]
    close: Option<f64>,
    /// Seconds of quiet before the memory is read
    #[arg(long, default_value_t = 3.0)]
    settle: f64,
    /// Seconds to keep them open after that
    #[arg(long, default_value_t = 0.0)]
    hold: f64,
    #[command(flatten)]
    tls: TlsArguments,
    /// Process whose memory is read, with its children
    #[arg(long)]
    server_pid: Vec<u32>,
    /// Write the result here; - is standard output
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Counts the answers to the one OPTIONS.
#[derive(Default)]
struct Answers {
    count: u32,
    lost: u32,
}

impl Flow for Answers {
    fn start(&mut self, _: u64, _: &mut Turn) -> bool {
        false
    }

    fn receive(&mut self, _: Link, raw: &[u8], turn: &mut Turn) {
        match raw.starts_with(b"SIP/2.0 200 ") {
            true => self.count += 1,
            false => turn.stats.wrong("no answer to OPTIONS", raw),
        }
    }

    fn lost(&mut self, _: Link, _: &mut Turn) {
        self.lost += 1;
    }

    fn handle_timers(&mut self, _: &mut Turn) {}

    fn next_timer_ns(&self) -> Option<u64> {
        None
    }

    fn outstanding(&self) -> u32 {
        0
    }
}

const OPEN_SECONDS: u64 = 120;

pub fn run(arguments: &IdleArguments) -> Result<ExitCode, String> {
    if arguments.transport == Transport::Udp {
        return Err("UDP has no connections".into());
    }
    sys::raise_descriptor_limit()?;
    let tls = match arguments.transport {
        Transport::Tls => Some(Endpoint::client(&arguments.tls.caller())?),
        _ => None,
    };
    let server = arguments.server.unwrap_or_else(|| default_server(arguments.transport, None));
    let local = arguments.local.unwrap_or(match server.is_ipv6() {
        true => loopback(true),
        false => Ipv4Addr::new(127, 0, 0, 2).into(),
    });
    let (transport, manner, address) = (arguments.transport, Manner::PerCall, SocketAddr::new(local, 0));
    let local = Local { side: Side::Caller, transport, manner, address, spread: 0 };
    let opening = Opening { local, count: 1, server, tls, sources: arguments.sources };
    let domain = uri_host(loopback(server.is_ipv6()));
    let out = Outbox::open(vec![opening], false).map_err(|error| error.to_string())?;
    let mut bench = Bench::new(out, Watched::new(&arguments.server_pid), server, true, true, 0);
    let mut answers = Answers::default();
    let before = bench.server.own_bytes();
    let before_ns = bench.server.time().run_ns;
    let start = Instant::now();
    open(arguments, &mut bench, &mut answers, &domain)?;
    let seconds = start.elapsed().as_secs_f64();
    let used_ns = bench.server.time().run_ns - before_ns;
    bench.run(&mut answers, &Phase::new("settle", Load::Rest, arguments.settle));
    let (server, after) = (&bench.server, bench.server.own_bytes());
    let number = f64::from(arguments.connections);
    let growth = after as f64 - before as f64;
    let streams = &bench.out.streams;
    let result = json!({
        "transport": format!("{:?}", arguments.transport).to_lowercase(),
        "connections": arguments.connections,
        "opened_in_seconds": seconds,
        "exchanged": answers.count,
        "tls": streams.agreed,
        "tls_client_full": streams.counts.get(Count::ClientFull),
        "tls_client_resumed": streams.counts.get(Count::ClientResumed),
        "server_bytes": [before, after],
        "server_cpu_us_each": (!server.is_empty()).then_some(used_ns as f64 / 1e3 / number),
        "bytes_each": (!server.is_empty()).then_some(growth / number),
        "clean": answers.lost == 0
            && (!arguments.exchange || answers.count == arguments.connections)
            && bench.stats.counts.get(Count::Wrong) == 0,
    });
    if !server.is_empty() {
        eprintln!(
            "{} {:?} connections, opened in {seconds:.1} s: {:.0} bytes of the server's memory and {:.0} µs of its time each",
            arguments.connections,
            arguments.transport,
            growth / number,
            used_ns as f64 / 1e3 / number
        );
    }
    if let Some(path) = &arguments.json {
        write_json(path, &result)?;
    }
    bench.run(&mut answers, &Phase::new("hold", Load::Rest, arguments.hold));
    Ok(match result["clean"] == json!(true) {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(1),
    })
}

/// Opens them all, and closes them again where that is wanted.
fn open(arguments: &IdleArguments, bench: &mut Bench, answers: &mut Answers, domain: &str) -> Result<(), String> {
    let wanted = arguments.connections as usize;
    let (mut opened, mut asked) = (0, 0);
    let mut opening: Vec<Link> = Vec::new();
    let mut closing: VecDeque<(Instant, Link)> = VecDeque::new();
    let end = Instant::now() + Duration::from_secs(OPEN_SECONDS);
    while opened < wanted {
        while opening.len() + closing.len() < arguments.at_once && opened + opening.len() < wanted {
            let link = bench.out.begin(0).ok_or("a connection could not be begun")?;
            if arguments.exchange {
                ask(&mut bench.out, link, asked, domain);
                asked += 1;
            }
            opening.push(link);
        }
        bench.look(answers);
        let streams = &mut bench.out.streams;
        for link in opening.extract_if(.., |link| streams.is_open(*link)) {
            opened += 1;
            if let Some(seconds) = arguments.close {
                closing.push_back((Instant::now() + Duration::from_secs_f64(seconds), link));
            }
        }
        while closing.front().is_some_and(|(at, _)| *at <= Instant::now()) {
            closing.pop_front().into_iter().for_each(|(_, link)| streams.close(link));
        }
        if answers.lost > 0 {
            return Err(format!("the server ended a connection after {opened} were open"));
        }
        if Instant::now() > end {
            return Err(format!("only {opened} connections were open after {OPEN_SECONDS} s"));
        }
    }
    Ok(())
}

fn ask(out: &mut Outbox, link: Link, number: u32, domain: &str) {
    let local = out.locals()[0];
    let (via, host) = (local.transport.in_via(), uri_host(local.address.ip()));
    let text = format!(
        "OPTIONS sip:{domain} SIP/2.0\r\n\
         Via: SIP/2.0/{via} {host}:5060;branch=z9hG4bKidle{number};rport\r\n\
         Max-Forwards: 70\r\n\
         From: <sip:idle@{host}>;tag=i{number}\r\n\
         To: <sip:{domain}>\r\n\
         Call-ID: idle{number}@{host}\r\n\
         CSeq: 1 OPTIONS\r\n\
         Content-Length: 0\r\n\r\n"
    );
    out.send(link, text.as_bytes());
}
