//! `handshake --certs FOLDER [--json] [--rounds N] [--memory N]`: microseconds that a TLS handshake takes on each side, in
//! memory, with one small message each way after it; or the memory of idle connections. The certificates are those of
//! scripts/certs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use strowger::net::tls::{Contexts, Pair, Settings, Tls, VerifyClient, Version, library_version};
use strowger::settings::Words;

/// Handshakes of one kind in one round.
const BATCH: u32 = 200;

const NAME: &str = "localhost";

const KEYS: [(&str, &str); 2] = [("RSA-2048", "rsa"), ("P-256", "ecdsa")];

/// Connections before those whose memory is counted.
const WARM_UP: usize = 200;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Full,
    Mutual,
    Resumed,
    /// Resumed, of a session with mutual authentication.
    ResumedMutual,
}

struct Case {
    key: &'static str,
    version: Version,
    kind: Kind,
    server: Contexts,
    client: Contexts,
    /// Microseconds of each round, of the server and of the client.
    times: [Vec<f64>; 2],
    calls: (u32, u32),
}

fn main() {
    let mut folder = None;
    let mut rounds = 9;
    let mut as_json = false;
    let mut connections = 0;
    let mut cell = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let number = |text: Option<String>| text.and_then(|text| text.parse::<u32>().ok());
        match argument.as_str() {
            "--certs" => folder = arguments.next().map(PathBuf::from),
            "--json" => as_json = true,
            "--rounds" => rounds = number(arguments.next()).unwrap_or_else(|| usage()),
            "--memory" => connections = number(arguments.next()).unwrap_or_else(|| usage()),
            "--cell" => cell = arguments.next(),
            _ => usage(),
        }
    }
    let folder = folder.unwrap_or_else(|| usage());
    if let Some(cell) = cell {
        memory_of(&folder, connections.max(1), &cell);
        return;
    }
    if connections > 0 {
        memory(&folder, connections);
        return;
    }
    let mut cases = Vec::new();
    for (key, file) in KEYS {
        for kind in [Kind::Full, Kind::Mutual, Kind::Resumed, Kind::ResumedMutual] {
            for version in [Version::Tls12, Version::Tls13] {
                cases.push(Case::new(&folder, key, file, kind, version));
            }
        }
    }
    // The first round warms up.
    for round in 0..=rounds {
        for case in &mut cases {
            case.round(round > 0);
        }
    }
    if as_json {
        print_json(&cases);
    } else {
        print(&cases, rounds);
    }
}

fn usage() -> ! {
    eprintln!("usage: handshake --certs FOLDER [--json] [--rounds N] [--memory N]");
    std::process::exit(2);
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
    fn new(folder: &Path, key: &'static str, file: &str, kind: Kind, version: Version) -> Case {
        let is_mutual = matches!(kind, Kind::Mutual | Kind::ResumedMutual);
        let is_resumed = matches!(kind, Kind::Resumed | Kind::ResumedMutual);
        let mut of_server = settings(folder, Some(file));
        of_server.rules.min_version = version;
        of_server.rules.max_version = version;
        if is_mutual {
            of_server.rules.verify_client = VerifyClient::Required;
        }
        let client_file = if file == "rsa" { "client-rsa" } else { "client" };
        let mut of_client = settings(folder, is_mutual.then_some(client_file));
        of_client.rules.client_session_reuse = is_resumed;
        Case {
            key,
            version,
            kind,
            server: load(&of_server),
            client: load(&of_client),
            times: [Vec::new(), Vec::new()],
            calls: (0, 0),
        }
    }

    fn round(&mut self, counts: bool) {
        let mut times = [Duration::ZERO; 2];
        let is_resumed = matches!(self.kind, Kind::Resumed | Kind::ResumedMutual);
        if is_resumed {
            let mut line = Line::new(&self.server, &self.client);
            line.run();
        }
        for _ in 0..BATCH {
            let mut line = Line::new(&self.server, &self.client);
            line.run();
            assert!(line.server.is_established() && line.client.is_established());
            assert!(line.client.is_resumed() == is_resumed && line.heard == [1, 1]);
            let calls = (line.server.handshake_calls(), line.client.handshake_calls());
            self.calls = calls;
            let Line { server, client, times: mut of_line, .. } = line;
            let start = now();
            drop(server);
            let middle = now();
            drop(client);
            of_line[0] += middle - start;
            of_line[1] += now() - middle;
            times[0] += of_line[0];
            times[1] += of_line[1];
        }
        if counts {
            for (all, time) in self.times.iter_mut().zip(times) {
                all.push(time.as_secs_f64() * 1e6 / f64::from(BATCH));
            }
        }
    }

    fn median(&self, side: usize) -> f64 {
        let mut times = self.times[side].clone();
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn kind(&self) -> &'static str {
        match self.kind {
            Kind::Full => "full",
            Kind::Mutual => "mutual",
            Kind::Resumed => "resumed",
            Kind::ResumedMutual => "resumed mutual",
        }
    }
}

/// The time that this thread has had the processor for.
fn now() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// A server and a client, and the time that each has taken.
struct Line {
    server: Tls,
    client: Tls,
    times: [Duration; 2],
    /// Messages heard.
    heard: [u32; 2],
}

impl Line {
    fn new(server: &Contexts, client: &Contexts) -> Line {
        let start = now();
        let server = server.accept(peer()).expect("a certificate");
        let middle = now();
        let mut client = client.connect(peer(), NAME).expect("a name");
        client.start().expect("a first flight");
        let times = [middle - start, now() - middle];
        Line { server, client, times, heard: [0; 2] }
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
                let start = now();
                self.server.receive(&there, &mut plaintext).expect("server");
                if !plaintext.is_empty() {
                    self.heard[0] += 1;
                    self.server.send(&[b'a'; 300]).expect("an answer");
                }
                self.times[0] += now() - start;
                plaintext.clear();
            }
            if !back.is_empty() {
                let start = now();
                let progress = self.client.receive(&back, &mut plaintext).expect("client");
                if progress.established_now {
                    self.client.send(&[b'q'; 500]).expect("a request");
                }
                self.times[1] += now() - start;
                self.heard[1] += u32::from(!plaintext.is_empty());
                plaintext.clear();
            }
        }
    }
}

/// What idle connections cost: one side is kept, the other let go.
fn memory(folder: &Path, connections: u32) {
    println!("{}: {connections} idle connections each, bytes for one", library_version());
    println!("| key, version | server | server, mutual | client | client, mutual |");
    println!("| --- | --- | --- | --- | --- |");
    for (key, file) in KEYS {
        for version in [Version::Tls12, Version::Tls13] {
            // Each in a process of its own: memory that was freed would be taken again, unseen.
            let cost = |cell: &str| {
                let output = Command::new(std::env::current_exe().expect("a path"))
                    .arg("--certs")
                    .arg(folder)
                    .args(["--memory", &connections.to_string()])
                    .args(["--cell", &format!("{file},{},{cell}", version.word())])
                    .output()
                    .expect("a process");
                assert!(output.status.success());
                String::from_utf8_lossy(&output.stdout).trim().to_string()
            };
            println!(
                "| {key}, {} | {} | {} | {} | {} |",
                version.word(),
                cost("server,full"),
                cost("server,mutual"),
                cost("client,full"),
                cost("client,mutual"),
            );
        }
    }
}

/// Prints the bytes for one connection of the kind `cell`: "rsa,1.2,server,full".
fn memory_of(folder: &Path, connections: u32, cell: &str) {
    let parts: Vec<&str> = cell.split(',').collect();
    let [file, version, side, kind] = parts[..] else { usage() };
    let version = Version::named(version).unwrap_or_else(|| usage());
    let kind = if kind == "mutual" { Kind::Mutual } else { Kind::Full };
    let case = Case::new(folder, "", file, kind, version);
    let one = || {
        let mut line = Line::new(&case.server, &case.client);
        line.run();
        if side == "server" { line.server } else { line.client }
    };
    let mut kept: Vec<Tls> = Vec::with_capacity(connections as usize + WARM_UP);
    kept.extend((0..WARM_UP).map(|_| one()));
    let before = resident();
    kept.extend((0..connections).map(|_| one()));
    println!("{}", (resident() - before) / u64::from(connections));
}

/// Of this process, bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let figure = line.and_then(|line| line.split_whitespace().nth(1));
    figure.and_then(|figure| figure.parse::<u64>().ok()).expect("a figure") * 1024
}

fn print(cases: &[Case], rounds: u32) {
    println!("{}, microseconds (median of {rounds} rounds of {BATCH}) on the server's / on the client's side", library_version());
    println!("| key | kind | TLS 1.2 | TLS 1.3 | calls of do_handshake, 1.2 · 1.3 |");
    println!("| --- | --- | --- | --- | --- |");
    for pair in cases.chunks(2) {
        let [old, new] = pair else { continue };
        let cell = |case: &Case| format!("{:.0} / {:.0}", case.median(0), case.median(1));
        println!(
            "| {} | {} | {} | {} | {}/{} · {}/{} |",
            old.key,
            old.kind(),
            cell(old),
            cell(new),
            old.calls.0,
            old.calls.1,
            new.calls.0,
            new.calls.1
        );
    }
}

fn print_json(cases: &[Case]) {
    let rows: Vec<String> = cases
        .iter()
        .map(|case| {
            format!(
                "{{\"key\":\"{}\",\"kind\":\"{}\",\"version\":\"{}\",\"server_us\":{:.2},\"client_us\":{:.2}}}",
                case.key,
                case.kind(),
                case.version.word(),
                case.median(0),
                case.median(1)
            )
        })
        .collect();
    println!("{{\"library\":\"{}\",\"rows\":[{}]}}", library_version(), rows.join(","));
}
