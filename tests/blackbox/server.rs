//! The built server as a child, its conf, and its control commands.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::agent::Agent;
use crate::pki::{Authority, Certificate};
use crate::place::{Place, SERVER, wait_for};
use crate::process::{self, Outcome, Process};

pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_strowger"))
}

/// A conf in the making: one listener on the place's server address, short timers, and what the test changes.
#[derive(Clone)]
pub struct Conf {
    /// Of its files.
    name: &'static str,
    listeners: Vec<Listener>,
    /// Stands for everything else.
    file: Option<String>,
    tables: BTreeMap<&'static str, BTreeMap<&'static str, String>>,
    /// The text of further sections.
    sections: Vec<String>,
    control: PathBuf,
}

#[derive(Clone)]
struct Listener {
    transport: &'static str,
    address: SocketAddr,
    advertise: Option<String>,
    proxy_protocol: Option<String>,
}

impl Listener {
    fn new(transport: &'static str, address: SocketAddr) -> Listener {
        Listener { transport, address, advertise: None, proxy_protocol: None }
    }
}

impl Conf {
    pub fn new(place: &Place) -> Conf {
        let mut conf = Conf {
            name: "strowger",
            listeners: vec![Listener::new("udp", place.at(SERVER))],
            file: None,
            tables: BTreeMap::new(),
            sections: Vec::new(),
            control: place.path("control.sock"),
        };
        conf = conf.set("server", "domains", r#"["example.test"]"#);
        let control = format!("{:?}", conf.control.display().to_string());
        conf.set("control", "socket", &control)
    }

    /// A conf file that is shipped, with the place's addresses instead of 127.0.0.1: 5060 is the server's port and 5061 its
    /// port for TLS, 5070 becomes `next_hop`.
    pub fn shipped(place: &Place, text: &str, tls: bool, next_hop: SocketAddr) -> Conf {
        let (server, secure) = (place.at(SERVER), place.at_port(SERVER, 5061));
        let text = text
            .replace("127.0.0.1:5060", &server.to_string())
            .replace("127.0.0.1:5061", &secure.to_string())
            .replace("127.0.0.1:5070", &next_hop.to_string())
            .replace("[\"127.0.0.1\"]", &format!("[\"{}/24\"]", place.ip(0)));
        let mut conf = Conf {
            name: "strowger",
            listeners: vec![Listener::new("udp", server), Listener::new("tcp", server)],
            tables: BTreeMap::new(),
            sections: Vec::new(),
            control: place.path("strowger.sock"),
            file: Some(text),
        };
        if tls {
            conf.listeners.push(Listener::new("tls", secure));
        }
        conf
    }

    /// The conf of another server, which is the same at another host of the place.
    pub fn beside(&self, place: &Place, name: &'static str, host: u8) -> Conf {
        let mut other = Conf { name, control: place.path(&format!("{name}.sock")), ..self.clone() };
        for listener in &mut other.listeners {
            listener.address.set_ip(place.ip(host));
        }
        let control = format!("{:?}", other.control.display().to_string());
        other.set("control", "socket", &control).set("registrar", "database", &format!("\"{name}.db\""))
    }

    /// `value` is TOML: strings in quotes.
    pub fn set(mut self, table: &'static str, key: &'static str, value: &str) -> Conf {
        self.tables.entry(table).or_default().insert(key, value.to_owned());
        self
    }

    /// A further listener.
    pub fn listen(mut self, address: SocketAddr) -> Conf {
        self.listeners.push(Listener::new("udp", address));
        self
    }

    /// A further listener, for "tcp" or "tls".
    pub fn stream(mut self, transport: &'static str, address: SocketAddr) -> Conf {
        self.listeners.push(Listener::new(transport, address));
        self
    }

    /// This listener and no other.
    pub fn only(mut self, address: SocketAddr) -> Conf {
        self.listeners = vec![Listener::new("udp", address)];
        self
    }

    /// What the first listener says of itself.
    pub fn advertise(mut self, host_and_port: &str) -> Conf {
        self.listeners[0].advertise = Some(host_and_port.to_owned());
        self
    }

    /// From where the listeners for TCP and TLS that there are so far get PROXY headers, as a list in TOML.
    pub fn proxy_protocol(mut self, networks: &str) -> Conf {
        for listener in self.listeners.iter_mut().filter(|listener| listener.transport != "udp") {
            listener.proxy_protocol = Some(networks.to_owned());
        }
        self
    }

    /// The lines of one `[[route]]`.
    pub fn route(self, lines: &str) -> Conf {
        self.section("[[route]]", lines)
    }

    /// A section of a kind that there may be several of, e.g. `[[tls.identity]]`.
    pub fn section(mut self, heading: &str, lines: &str) -> Conf {
        self.sections.push(format!("{heading}\n{lines}"));
        self
    }

    /// A listener for TLS at port 5061 of the server's address, which shows these certificates.
    pub fn tls(self, place: &Place, certificates: &[&Certificate]) -> Conf {
        let list = |pick: fn(&Certificate) -> &Path| {
            let files = certificates.iter().map(|certificate| pick(certificate));
            format!("{:?}", files.collect::<Vec<_>>())
        };
        self.stream("tls", place.at_port(SERVER, 5061)).set("tls", "certificate", &list(|certificate| &certificate.file)).set(
            "tls",
            "private_key",
            &list(|certificate| &certificate.key),
        )
    }

    /// Whom to trust, and as server whom to ask for a certificate.
    pub fn trust(self, authority: &Authority, verify_client: &str) -> Conf {
        self.set("tls", "trusted_ca", &format!("{:?}", authority.file)).set("tls", "verify_client", &format!("{verify_client:?}"))
    }

    pub fn text(&self) -> String {
        if let Some(file) = &self.file {
            return file.clone();
        }
        let mut text = String::new();
        for (table, keys) in &self.tables {
            let _ = writeln!(text, "[{table}]");
            for (key, value) in keys {
                let _ = writeln!(text, "{key} = {value}");
            }
        }
        for listener in &self.listeners {
            let _ = writeln!(text, "[[listen]]\ntransport = \"{}\"\naddress = \"{}\"", listener.transport, listener.address);
            if let Some(advertise) = &listener.advertise {
                let _ = writeln!(text, "advertise = \"{advertise}\"");
            }
            if let Some(networks) = &listener.proxy_protocol {
                let _ = writeln!(text, "proxy_protocol = {networks}");
            }
        }
        for section in &self.sections {
            let _ = writeln!(text, "{section}");
        }
        text
    }

    pub fn write(&self, place: &Place) -> PathBuf {
        place.write(&format!("{}.toml", self.name), &self.text())
    }

    pub fn start(&self, place: &Place) -> Server {
        self.start_with(place, &[])
    }

    /// The same with variables in the server's environment.
    pub fn start_with(&self, place: &Place, environment: &[(&str, &str)]) -> Server {
        Server::start(place, self, environment, None).await_listeners(self)
    }

    /// The same where no file of the server's may grow beyond so many KiB.
    pub fn start_limited(&self, place: &Place, file_kib: u32) -> Server {
        // The limit is a soft one, in blocks of 512 bytes.
        let blocks = file_kib * 2;
        self.start_by(place, &format!("ulimit -S -f {blocks}; exec \"$@\""))
    }

    /// The same by a line of shell, which gets the command as its arguments.
    pub fn start_by(&self, place: &Place, script: &str) -> Server {
        Server::start(place, self, &[], Some(script)).await_listeners(self)
    }

    /// The same where it may have no standard output on which it could say that it serves.
    pub fn start_unheard(&self, place: &Place, script: &str) -> Server {
        let server = Server::start(place, self, &[], Some(script));
        let ready = wait_for(Duration::from_secs(15), || {
            let outcome = server.command(place, &["stats"]);
            (outcome.code == Some(0)).then_some(())
        });
        assert_eq!(ready, Some(()), "it does not serve:\n{}", server.log());
        server
    }
}

pub struct Server {
    pub address: SocketAddr,
    process: Process,
    control: PathBuf,
    successors: Successors,
}

/// Processes that a restart has started: they are not children of ours, and end with the test all the same.
#[derive(Default)]
struct Successors(Vec<u32>);

impl Drop for Successors {
    fn drop(&mut self) {
        let is_ours = |process: &&u32| {
            let program = fs::read_link(format!("/proc/{process}/exe"));
            program.is_ok_and(|program| program == binary())
        };
        self.0.iter().filter(is_ours).for_each(|process| send(*process, "KILL"));
    }
}

fn send(process: u32, signal: &str) {
    let line = ["-c", "kill -s \"$1\" \"$2\"", "kill", signal];
    let _ = std::process::Command::new("sh").args(line).arg(process.to_string()).status();
}

impl Server {
    fn start(place: &Place, conf: &Conf, environment: &[(&str, &str)], script: Option<&str>) -> Server {
        let file = conf.write(place).display().to_string();
        let own = ["run", "-c", &file];
        let process = match script {
            None => {
                let arguments = own.map(str::to_owned);
                Process::start(place, conf.name, binary(), &arguments, environment)
            }
            Some(script) => {
                let program = binary().display().to_string();
                let before = ["-c", script, "sh", &program];
                let arguments: Vec<String> = before.into_iter().chain(own).map(str::to_owned).collect();
                let shell = Path::new("sh");
                Process::start(place, conf.name, shell, &arguments, environment)
            }
        };
        Server { address: conf.listeners[0].address, process, control: conf.control.clone(), successors: Successors::default() }
    }

    /// Waits until it says of every listener that it serves.
    fn await_listeners(mut self, conf: &Conf) -> Server {
        let wanted: Vec<String> =
            conf.listeners.iter().map(|listener| format!("listening {} {}", listener.transport, listener.address)).collect();
        let process = &mut self.process;
        let ready = wait_for(Duration::from_secs(15), || {
            let said = process.stdout();
            let all = wanted.iter().all(|line| said.lines().any(|said| said.trim() == line));
            (all || process.exited().is_some()).then_some(all)
        });
        assert_eq!(
            ready,
            Some(true),
            "the server does not become ready.\nconf:\n{}\nstdout:\n{}\nstderr:\n{}",
            conf.text(),
            process.stdout(),
            process.stderr()
        );
        self
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The process that serves now.
    pub fn serving(&self) -> u32 {
        self.successors.0.last().copied().unwrap_or_else(|| self.id())
    }

    /// Restarts it, which must succeed.
    pub fn restart(&mut self, place: &Place, arguments: &[&str]) {
        let before = self.serving();
        let outcome = self.try_restart(place, arguments);
        assert_eq!(outcome.code, Some(0), "restart: {outcome:?}\n{}", self.log());
        let named = outcome.stdout.strip_prefix("restarted: process ").and_then(|rest| rest.split(' ').next());
        let process = named.and_then(|number| number.parse().ok());
        self.successors.0.push(process.unwrap_or_else(|| panic!("no process in {outcome:?}")));
        assert!(outcome.stdout.contains(&format!("process {before} still has")), "{outcome:?}");
    }

    pub fn try_restart(&self, place: &Place, arguments: &[&str]) -> Outcome {
        let control = self.control.display().to_string();
        let all = [&["--control", control.as_str(), "restart"], arguments].concat();
        process::run(place, "restart", binary(), &all, Duration::from_secs(90))
    }

    /// Tries to, and sends a signal to the new process as soon as there is one.
    pub fn restart_disturbed(&self, place: &Place, serving: u32, signal: &str) -> Outcome {
        let running = self.begin(place, "restart", &["restart"]);
        let children = || {
            let tasks = fs::read_dir(format!("/proc/{serving}/task")).ok()?;
            let of_task = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).ok();
            let all: String = tasks.filter_map(|task| of_task(task.ok()?)).collect();
            all.split_whitespace().next()?.parse::<u32>().ok()
        };
        let end = std::time::Instant::now() + Duration::from_secs(10);
        let child = loop {
            if let Some(child) = children() {
                break child;
            }
            assert!(std::time::Instant::now() < end, "no new process appears");
        };
        send(child, signal);
        running.finish(Duration::from_secs(60))
    }

    /// Signals the process that serves, whichever that is.
    pub fn signal_serving(&self, signal: &str) {
        send(self.serving(), signal);
    }

    /// Kills all processes of it at once, and waits for their end.
    pub fn kill(self) {
        let all: Vec<u32> = self.successors.0.iter().copied().chain([self.id()]).collect();
        all.iter().for_each(|process| send(*process, "KILL"));
        let is_gone = |process: &u32| fs::read_link(format!("/proc/{process}/exe")).is_err();
        let gone = wait_for(Duration::from_secs(10), || all.iter().all(is_gone).then_some(()));
        assert!(gone.is_some(), "it is killed and does not end");
    }

    /// `sip:USER@` the server's own address, which is always one of its domains.
    pub fn uri(&self, user: &str) -> String {
        format!("sip:{user}@{}", self.address)
    }

    /// Runs a control command, e.g. `ul show`.
    pub fn command(&self, place: &Place, arguments: &[&str]) -> Outcome {
        let control = self.control.display().to_string();
        let mut all = vec!["--control", control.as_str()];
        all.extend(arguments);
        process::run(place, "command", binary(), &all, Duration::from_secs(5))
    }

    /// Starts a control command that runs for a while.
    pub fn begin(&self, place: &Place, name: &str, arguments: &[&str]) -> Process {
        let control = self.control.display().to_string();
        let all = ["--control", control.as_str()].into_iter().chain(arguments.iter().copied());
        let all: Vec<String> = all.map(str::to_owned).collect();
        Process::start(place, name, binary(), &all, &[])
    }

    /// A client of the control socket, for a test that speaks JSON-RPC itself.
    pub fn control(&self) -> UnixStream {
        UnixStream::connect(&self.control).expect("the control socket")
    }

    /// A binding by hand, as an operator makes it.
    pub fn bind(&self, place: &Place, user: &str, contact: SocketAddr) {
        self.bind_to(place, user, &format!("sip:{user}@{contact}"));
    }

    /// The same with a whole URI.
    pub fn bind_to(&self, place: &Place, user: &str, contact: &str) {
        let aor = format!("{user}@{}", self.address.ip());
        let outcome = self.command(place, &["ul", "add", &aor, contact]);
        assert_eq!(outcome.code, Some(0), "ul add: {outcome:?}");
    }

    pub fn show(&self, place: &Place, user: &str) -> Outcome {
        self.command(place, &["ul", "show", &format!("{user}@{}", self.address.ip())])
    }

    /// Every counter, by its name with labels.
    pub fn stats(&self, place: &Place) -> BTreeMap<String, f64> {
        let outcome = self.command(place, &["stats", "--json"]);
        assert_eq!(outcome.code, Some(0), "stats: {outcome:?}");
        let values: BTreeMap<String, serde_json::Value> = serde_json::from_str(&outcome.stdout)
            .unwrap_or_else(|error| panic!("stats is no JSON object: {error}\n{}", outcome.stdout));
        values.into_iter().filter_map(|(name, value)| Some((name, value.as_f64()?))).collect()
    }

    /// The sum over all labels of one metric.
    pub fn stat(&self, place: &Place, metric: &str) -> f64 {
        let stats = self.stats(place);
        let values: Vec<f64> = stats
            .iter()
            .filter(|(name, _)| *name == metric || name.starts_with(&format!("{metric}{{")))
            .map(|(_, value)| *value)
            .collect();
        assert!(!values.is_empty(), "no metric {metric} among {:?}", stats.keys());
        values.iter().sum()
    }

    /// The resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("the server's status");
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|value| value.trim().trim_end_matches(" kB").parse().ok())
            .expect("VmRSS")
    }

    /// Fails unless the server runs and answers an OPTIONS to itself.
    pub fn assert_alive(&mut self, place: &Place, host: u8) {
        if self.successors.0.is_empty()
            && let Some(status) = self.process.exited()
        {
            panic!("the server has ended ({status}):\n{}", self.process.stderr());
        }
        let agent = Agent::new(place.at_port(host, 0), self.address);
        let options = agent.request("OPTIONS", &format!("sip:{}", self.address));
        agent.send(&options);
        agent.expect("200 to OPTIONS", |message| message.answers("OPTIONS", 200));
    }

    /// Its listener for TLS, as [`Conf::tls`] makes it.
    pub fn secure(&self) -> SocketAddr {
        SocketAddr::new(self.address.ip(), 5061)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// Waits for a line of its log that has all these words in it.
    pub fn expect_log(&self, words: &[&str]) -> String {
        self.expect_log_after(0, words)
    }

    /// The same for a line beyond the first `bytes` of its log.
    pub fn expect_log_after(&self, bytes: usize, words: &[&str]) -> String {
        self.find_log(Duration::from_secs(5), bytes, words)
    }

    /// The same, waiting so long.
    pub fn expect_log_within(&self, within: Duration, words: &[&str]) -> String {
        self.find_log(within, 0, words)
    }

    fn find_log(&self, within: Duration, bytes: usize, words: &[&str]) -> String {
        let fits = |line: &&str| words.iter().all(|word| line.contains(word));
        let found = wait_for(within, || {
            let log = self.log();
            let rest = log.get(bytes..).unwrap_or_default();
            rest.lines().find(fits).map(str::to_owned)
        });
        found.unwrap_or_else(|| panic!("no line with {words:?} in the log:\n{}", self.log()))
    }

    pub fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    pub fn finish(self, within: Duration) -> Outcome {
        self.process.finish(within)
    }

    pub fn into_process(self) -> Process {
        self.process
    }
}
