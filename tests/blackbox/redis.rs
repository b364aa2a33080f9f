//! A Redis of a test's own: Debian's `redis-server` at an address of the place, without anything that it would keep on disk unless asked.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::place::{Place, wait_for};
use crate::process::{self, Process};

const PATIENCE: Duration = Duration::from_secs(20);

pub struct Redis {
    pub address: SocketAddr,
    process: Process,
    name: String,
    password: Option<String>,
}

impl Redis {
    pub fn start(place: &Place, address: SocketAddr) -> Redis {
        Redis::start_with(place, address, &[])
    }

    /// The same with more arguments, e.g. `--requirepass`.
    pub fn start_with(place: &Place, address: SocketAddr, extra: &[&str]) -> Redis {
        let name = format!("redis-{}", address.port());
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let own = ["--bind", &ip, "--port", &port, "--save", "", "--dbfilename", &format!("{name}.rdb"), "--daemonize", "no"];
        let arguments: Vec<String> = own.iter().chain(extra).map(|word| (*word).to_owned()).collect();
        let process = Process::start(place, &name, Path::new("redis-server"), &arguments, &[]);
        let password = extra.iter().position(|word| *word == "--requirepass").map(|at| extra[at + 1].to_owned());
        let redis = Redis { address, process, name, password };
        let serves = wait_for(PATIENCE, || {
            let mut wire = TcpStream::connect(address).ok()?;
            wire.write_all(b"PING\r\n").ok()?;
            let mut answer = [0; 1];
            wire.read_exact(&mut answer).ok()
        });
        assert!(serves.is_some(), "redis-server does not serve: {}", redis.process.stdout());
        redis
    }

    /// A sentinel that watches a primary alone, as the service "main".
    pub fn sentinel(place: &Place, address: SocketAddr, primary: SocketAddr) -> Process {
        let (ip, port) = (address.ip(), address.port());
        let lines = format!(
            "bind {ip}\nport {port}\nsentinel monitor main {} {} 1\nsentinel down-after-milliseconds main 500\n\
             sentinel failover-timeout main 2000\n",
            primary.ip(),
            primary.port()
        );
        let file = place.write("sentinel.conf", &lines).display().to_string();
        let process = Process::start(place, "sentinel", Path::new("redis-sentinel"), &[file], &[]);
        // It must know the replicas before the primary is gone.
        let knows = wait_for(PATIENCE, || {
            let words = ["-h", &ip.to_string(), "-p", &port.to_string(), "sentinel", "replicas", "main"];
            let outcome = process::run(place, "sentinel-cli", Path::new("redis-cli"), &words, PATIENCE);
            (outcome.code == Some(0) && outcome.stdout.contains("master-link-status\nok")).then_some(())
        });
        assert!(knows.is_some(), "the sentinel finds no replica: {}", process.stdout());
        process
    }

    pub fn url(&self) -> String {
        format!("\"redis://{}/0\"", self.address)
    }

    /// What `redis-cli` says to a command.
    pub fn ask(&self, place: &Place, words: &[&str]) -> String {
        let (ip, port) = (self.address.ip().to_string(), self.address.port().to_string());
        let mut arguments = vec!["-h", &ip, "-p", &port, "--raw", "--no-auth-warning"];
        if let Some(password) = &self.password {
            arguments.extend(["-a", password]);
        }
        arguments.extend(words);
        let outcome = process::run(place, &format!("{}-cli", self.name), Path::new("redis-cli"), &arguments, PATIENCE);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        outcome.stdout.trim_end().to_owned()
    }

    /// How often the script that accepts changes has run.
    pub fn scripts(&self, place: &Place) -> u64 {
        let stats = self.ask(place, &["INFO", "commandstats"]);
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0)
    }

    pub fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// Kills it, and waits until it is gone.
    pub fn kill(self) {
        self.process.signal("KILL");
        self.process.finish(PATIENCE);
    }
}
