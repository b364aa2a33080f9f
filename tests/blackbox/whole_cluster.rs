//! The cluster of scripts/cluster, in a network of the test's own: strowgers, a Redis with its replica and sentinels, and HAProxy.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ChildStdin;
use std::time::Duration;

use crate::place::{Place, wait_for};
use crate::process::{self, Outcome, Process};
use crate::server::binary;

/// Sentinels need some seconds to find each other, and all of it is started on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where HAProxy listens and connects from; the nodes have the numbers after it.
const BALANCER: u8 = 10;

pub const NODES: usize = 3;
const SENTINELS: usize = 3;

pub struct Cluster<'a> {
    place: &'a Place,
    process: Process,
    input: ChildStdin,
    /// HAProxy's two.
    pub clear: SocketAddr,
    pub secure: SocketAddr,
    pub nodes: Vec<Node>,
}

/// A strowger of the cluster.
pub struct Node {
    pub name: String,
    /// Where it takes UDP.
    pub address: SocketAddr,
    folder: PathBuf,
}

impl<'a> Cluster<'a> {
    pub fn start(place: &'a Place, options: &[&str]) -> Cluster<'a> {
        let folder = place.path("cluster");
        let network = place.ip(0).to_string();
        let network = network.trim_end_matches(".0");
        let own =
            ["run", "--dir", &folder.display().to_string(), "--network", network, "--strowger", &binary().display().to_string()];
        let arguments: Vec<String> = own.iter().chain(options).map(|word| (*word).to_owned()).collect();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/cluster");
        let (process, input) = Process::converse(place, "cluster", &script, &arguments);
        let node = |number: usize| {
            let host = BALANCER + number as u8;
            let name = format!("node-{number}");
            Node { address: place.at(host), folder: folder.join(&name), name }
        };
        let (clear, secure) = (place.at(BALANCER), place.at_port(BALANCER, 5061));
        let mut cluster = Cluster { place, process, input, clear, secure, nodes: (1..=NODES).map(node).collect() };
        cluster.await_words("It ends with Ctrl-C", 0);
        cluster
    }

    /// The authority that the certificates of all come from.
    pub fn authority(&self) -> PathBuf {
        self.place.path("cluster/certs/ca.pem")
    }

    /// Types a line, e.g. `kill node-1`, and returns what is said to it, up to the line with `done`.
    pub fn command(&mut self, line: &str, done: &str) -> String {
        let before = self.process.stdout().len();
        writeln!(self.input, "{line}").expect("the script takes commands");
        self.await_words(done, before)
    }

    pub fn kill(&mut self, names: &str) {
        self.command(&format!("kill {names}"), &format!("killed {names}"));
    }

    pub fn restart(&mut self, names: &str) {
        self.command(&format!("start {names}"), &format!("started {names}"));
    }

    /// The Redis that says of itself that it is the primary, and the one that all sentinels say is: their names.
    pub fn primaries(&mut self) -> (Option<String>, Option<String>) {
        let said = self.command("status", "\nhaproxy ");
        let redis: Vec<Vec<&str>> =
            said.lines().filter(|line| line.starts_with("redis-")).map(|line| line.split_whitespace().collect()).collect();
        let name_of = |found: Option<&Vec<&str>>| found.map(|words| words[0].to_owned());
        let by_itself = redis.iter().find(|words| words.last() == Some(&"primary"));
        let is_named = |words: &&Vec<&str>| said.matches(&format!("says that {} is the primary", words[1])).count() == SENTINELS;
        (name_of(by_itself), name_of(redis.iter().filter(|words| words.len() > 1).find(is_named)))
    }

    /// What the script says beyond the first `before` bytes, once these words are in it and their line is complete.
    fn await_words(&mut self, words: &str, before: usize) -> String {
        let mut said = String::new();
        let found = wait_for(PATIENCE, || {
            said = self.process.stdout().split_off(before);
            let is_there = said.find(words).is_some_and(|at| said[at + words.len()..].contains('\n'));
            let failed = said.contains("scripts/cluster: ") || self.process.exited().is_some();
            (is_there || failed).then_some(is_there)
        });
        assert_eq!(found, Some(true), "no {words:?} from scripts/cluster: {said}\n{}", self.process.stderr());
        said
    }

    /// Ends it as Ctrl-C does.
    pub fn end(self) {
        self.process.signal("INT");
        let outcome = self.process.finish(PATIENCE);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
    }
}

impl Node {
    /// A command of `strowger`.
    pub fn command(&self, place: &Place, arguments: &[&str]) -> Outcome {
        let control = self.control().display().to_string();
        let all = [&["--control", &control], arguments].concat();
        process::run(place, &format!("command-{}", self.name), binary(), &all, Duration::from_secs(5))
    }

    fn control(&self) -> PathBuf {
        self.folder.join("strowger.sock")
    }

    /// What it answers to a request of the control API; `None` if it does not.
    pub fn ask(&self, method: &str) -> Option<serde_json::Value> {
        let mut wire = UnixStream::connect(self.control()).ok()?;
        wire.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        writeln!(wire, r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#).ok()?;
        let mut line = String::new();
        BufReader::new(wire).read_line(&mut line).ok()?;
        serde_json::from_str::<serde_json::Value>(&line).ok()?.get_mut("result").map(serde_json::Value::take)
    }

    /// The contacts of each address-of-record, as `ul show` shows them.
    pub fn bindings(&self) -> Option<BTreeMap<String, Vec<String>>> {
        let shown = self.ask("ul.show")?;
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let entries = shown.as_array()?.iter().map(|entry| {
            let contacts = entry["contacts"].as_array()?.iter().map(|contact| text(&contact["uri"]));
            Some((text(&entry["aor"])?, contacts.collect::<Option<Vec<String>>>()?))
        });
        entries.collect()
    }

    pub fn stat(&self, metric: &str) -> Option<f64> {
        let stats = self.ask("stats")?;
        let found = stats.as_array()?.iter().find(|entry| entry["name"] == metric)?;
        found["value"].as_f64()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    pub fn shows(&self, place: &Place, aor: &str) -> Option<String> {
        let outcome = self.command(place, &["ul", "show", aor]);
        (outcome.code == Some(0)).then_some(outcome.stdout)
    }
}
