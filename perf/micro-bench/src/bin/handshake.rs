//! `handshake --certs FOLDER [--rounds N]`: microseconds that a TLS handshake takes on each side, in memory, with one small message each
//! way after it. The certificates are those of scripts/certs.

use clap::Parser;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use strowger::net::tls::{Contexts, Pair, Settings, Tls, VerifyClient, Version, library_version};
use strowger_micro::measure::{CpuTime, median};

/// Handshakes of one kind in one round.
const BATCH: u32 = 200;

const NAME: &str = "localhost";

const KEYS: [(&str, &str); 2] = [("RSA-2048", "rsa"), ("P-256", "ecdsa")];

/// In words, whether both sides show a certificate, and whether a session is resumed.
const KINDS: [(&str, bool, bool); 4] =
    [("full", false, false), ("mutual", true, false), ("resumed", false, true), ("resumed mutual", true, true)];

struct Case {
    key: &'static str,
    kind: &'static str,
    is_resumed: bool,
    server: Contexts,
    client: Contexts,
    /// Microseconds of each round, of the server and of the client.
    times: [Vec<f64>; 2],
    calls: (u32, u32),
}

/// Times TLS handshakes in memory, without a socket, with the library that this is built with.
#[derive(Parser)]
#[command(name = "perf/handshake")]
struct Options {
    /// The folder of the certificates
    #[arg(long)]
    certs: PathBuf,
    /// Of all kinds in turn; the figures are their medians
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

fn main() {
    let Options { certs, rounds } = Options::parse();
    let mut cases = Vec::new();
    for key in KEYS {
        for kind in KINDS {
            for version in [Version::Tls12, Version::Tls13] {
                cases.push(Case::new(&certs, key, kind, version));
            }
        }
    }
    // The first round warms up.
    for round in 0..=rounds {
        for case in &mut cases {
            case.round(round > 0);
        }
    }
    print(&cases, rounds);
}

fn settings(folder: &Path, file: Option<&str>) -> Settings {
    let mut settings = Settings::default();
    settings.rules.trusted_ca = Some(folder.join("ca.pem"));
    let pair =
        file.map(|file| Pair { certificate: folder.join(format!("{file}.pem")), private_key: folder.join(format!("{file}.key")) });
    settings.certificates.default_identity.extend(pair);
    settings
}

fn load(settings: &Settings) -> Contexts {
    Contexts::load(settings, None).unwrap_or_else(|error| {
        eprintln!("handshake: {error}");
        std::process::exit(1);
    })
}

fn peer() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 5061))
}

impl Case {
    fn new(
        folder: &Path,
        (key, file): (&'static str, &str),
        (kind, is_mutual, is_resumed): (&'static str, bool, bool),
        version: Version,
    ) -> Case {
        let mut of_server = settings(folder, Some(file));
        of_server.rules.min_version = version;
        of_server.rules.max_version = version;
        if is_mutual {
            of_server.rules.verify_client = VerifyClient::Required;
        }
        let client_file = if file == "rsa" { "client-rsa" } else { "client" };
        let mut of_client = settings(folder, is_mutual.then_some(client_file));
        of_client.rules.client_session_reuse = is_resumed;
        let (server, client) = (load(&of_server), load(&of_client));
        Case { key, kind, is_resumed, server, client, times: Default::default(), calls: (0, 0) }
    }

    fn round(&mut self, counts: bool) {
        let mut times = [0.0; 2];
        if self.is_resumed {
            Line::new(&self.server, &self.client).run();
        }
        for _ in 0..BATCH {
            let mut line = Line::new(&self.server, &self.client);
            line.run();
            assert!(line.server.is_established() && line.client.is_established());
            assert!(line.client.is_resumed() == self.is_resumed && line.heard == [1, 1]);
            self.calls = (line.server.handshake_calls(), line.client.handshake_calls());
            let Line { server, client, ns, .. } = line;
            // What letting go of a connection costs is a part of it.
            let ended = [took(|| drop(server)), took(|| drop(client))];
            for side in 0..2 {
                times[side] += ns[side] + ended[side];
            }
        }
        if counts {
            for (all, ns) in self.times.iter_mut().zip(times) {
                all.push(ns / 1e3 / f64::from(BATCH));
            }
        }
    }
}

/// Nanoseconds.
fn took(work: impl FnOnce()) -> f64 {
    let start = CpuTime::now();
    work();
    start.elapsed_ns()
}

/// A server and a client, and the time that each has taken.
struct Line {
    server: Tls,
    client: Tls,
    ns: [f64; 2],
    /// Messages heard.
    heard: [u32; 2],
}

impl Line {
    fn new(server: &Contexts, client: &Contexts) -> Line {
        let start = CpuTime::now();
        let server = server.accept(peer()).expect("a certificate");
        let at_server = start.elapsed_ns();
        let start = CpuTime::now();
        let mut client = client.connect(peer(), NAME).expect("a name");
        client.start().expect("a first flight");
        Line { server, client, ns: [at_server, start.elapsed_ns()], heard: [0; 2] }
    }

    /// The handshake, a request by the client with its last flight, and an answer.
    fn run(&mut self) {
        let mut plaintext = Vec::new();
        loop {
            let there = std::mem::take(self.client.output());
            let back = std::mem::take(self.server.output());
            if there.is_empty() && back.is_empty() {
                return;
            }
            if !there.is_empty() {
                self.ns[0] += took(|| {
                    self.server.receive(&there, &mut plaintext).expect("server");
                    if !plaintext.is_empty() {
                        self.heard[0] += 1;
                        self.server.send(&[b'a'; 300]).expect("an answer");
                    }
                });
                plaintext.clear();
            }
            if !back.is_empty() {
                self.ns[1] += took(|| {
                    let progress = self.client.receive(&back, &mut plaintext).expect("client");
                    if progress.established_now {
                        self.client.send(&[b'q'; 500]).expect("a request");
                    }
                });
                self.heard[1] += u32::from(!plaintext.is_empty());
                plaintext.clear();
            }
        }
    }
}

fn print(cases: &[Case], rounds: u32) {
    println!("{}, microseconds (median of {rounds} rounds of {BATCH}) on the server's / on the client's side", library_version());
    println!("| key | kind | TLS 1.2 | TLS 1.3 | calls of do_handshake, 1.2 · 1.3 |");
    println!("| --- | --- | --- | --- | --- |");
    for pair in cases.chunks(2) {
        let [old, new] = pair else { continue };
        let cell = |case: &Case| format!("{:.0} / {:.0}", median(&case.times[0]), median(&case.times[1]));
        let calls = |case: &Case| format!("{}/{}", case.calls.0, case.calls.1);
        println!("| {} | {} | {} | {} | {} · {} |", old.key, old.kind, cell(old), cell(new), calls(old), calls(new));
    }
}
