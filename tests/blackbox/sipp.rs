//! SIPp as a child: its scenarios, its counts and the messages that it writes down.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::message::Message;
use crate::place::{Place, wait_for};
use crate::process::{Outcome, Process};

/// A scenario: SIPp's own by name, or a text of ours.
#[derive(Clone, Copy)]
pub enum Scenario {
    BuiltIn(&'static str),
    Text(&'static str),
}

pub struct Sipp<'a> {
    place: &'a Place,
    name: String,
    address: SocketAddr,
    calls: u32,
    arguments: Vec<String>,
    transport: &'static str,
}

pub struct Running {
    process: Process,
    name: String,
    directory: PathBuf,
}

/// What SIPp counted and saw.
pub struct Report {
    pub outcome: Outcome,
    pub successful: u32,
    pub failed: u32,
    /// Messages that were sent again.
    pub retransmissions: u32,
    pub messages: Vec<Traced>,
    pub errors: String,
}

#[derive(Clone)]
pub struct Traced {
    pub sent: bool,
    pub message: Message,
}

impl<'a> Sipp<'a> {
    /// SIPp on `address`, with every socket it opens (media and control too) on that IP address.
    pub fn new(place: &'a Place, name: &str, address: SocketAddr, scenario: Scenario) -> Sipp<'a> {
        let ip = address.ip().to_string();
        let mut arguments: Vec<String> =
            ["-i", &ip, "-ci", &ip, "-mi", &ip, "-p", &address.port().to_string()].map(str::to_owned).to_vec();
        match scenario {
            Scenario::BuiltIn(name) => arguments.extend(["-sn".to_owned(), name.to_owned()]),
            Scenario::Text(text) => {
                let file = place.write(&format!("{name}.xml"), text);
                arguments.extend(["-sf".to_owned(), file.display().to_string()]);
            }
        }
        for (option, file) in [("-message_file", "msg"), ("-error_file", "errors"), ("-stf", "csv")] {
            arguments.extend([option.to_owned(), place.path(&format!("{name}.{file}")).display().to_string()]);
        }
        arguments.extend(
            ["-trace_msg", "-trace_err", "-trace_stat", "-fd", "1", "-nostdin", "-bind_local", "-timeout", "40s", "-timeout_error"]
                .map(str::to_owned),
        );
        Sipp { place, name: name.to_owned(), address, calls: 1, arguments, transport: "u1" }
    }

    /// SIPp's name of a transport: "t1" is TCP with one connection for all calls, "tn" with one for each.
    pub fn over(mut self, transport: &'static str) -> Sipp<'a> {
        self.transport = transport;
        // A connection that its peer closes when the call is over is no failure of the call.
        self.with(&["-t", transport, "-max_socket", "2000", "-reconnect_close", "false"])
    }

    pub fn calls(mut self, calls: u32) -> Sipp<'a> {
        self.calls = calls;
        self
    }

    pub fn with(mut self, arguments: &[&str]) -> Sipp<'a> {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Waits for calls. Returns when the socket is open.
    pub fn answer(self) -> Running {
        let (address, transport) = (self.address, self.transport);
        let bound = |address| match transport.starts_with('t') {
            true => listening(address),
            false => bound(address),
        };
        let mut running = self.start();
        let open =
            wait_for(Duration::from_secs(10), || (bound(address) || running.process.exited().is_some()).then(|| bound(address)));
        assert_eq!(open, Some(true), "SIPp does not open {address}: {}", running.process.stderr());
        running
    }

    /// Makes calls to `user` at `server`, sending to `next_hop` (the server, or a tap before it).
    pub fn call(self, user: &str, server: SocketAddr, next_hop: SocketAddr) -> Running {
        let server = server.to_string();
        let mut sipp = self.with(&[&server, "-s", user]);
        if next_hop.to_string() != server {
            sipp = sipp.with(&["-rsa", &next_hop.to_string()]);
        }
        sipp.start()
    }

    fn start(mut self) -> Running {
        self.arguments.extend(["-m".to_owned(), self.calls.to_string()]);
        let process = Process::start(self.place, &self.name, Path::new("sipp"), &self.arguments, &[("TERM", "dumb")]);
        Running { process, name: self.name, directory: self.place.directory().to_owned() }
    }
}

impl Running {
    /// Waits for SIPp's end.
    fn finish_within(self, within: Duration) -> Report {
        let name = self.name.clone();
        let directory = self.directory.clone();
        let outcome = self.process.finish(within);
        report(&directory, &name, outcome)
    }

    /// Waits for SIPp's end and fails unless every one of `calls` calls succeeded.
    pub fn succeed(self, calls: u32) -> Report {
        self.succeed_within(calls, Duration::from_secs(50))
    }

    pub fn succeed_within(self, calls: u32, within: Duration) -> Report {
        let name = self.name.clone();
        let report = self.finish_within(within);
        assert!(
            report.outcome.code == Some(0) && report.successful == calls && report.failed == 0,
            "SIPp {name}: exit code {:?}, {} successful and {} failed of {calls} calls\n{}\n{}",
            report.outcome.code,
            report.successful,
            report.failed,
            report.outcome.stderr,
            report.errors.lines().take(60).collect::<Vec<_>>().join("\n"),
        );
        report
    }

    /// What SIPp has written down until now.
    pub fn messages(&self) -> Vec<Traced> {
        traced(&self.directory.join(format!("{}.msg", self.name)))
    }
}

impl Report {
    pub fn received(&self) -> Vec<Message> {
        self.messages.iter().filter(|traced| !traced.sent).map(|traced| traced.message.clone()).collect()
    }
}

fn report(directory: &Path, name: &str, outcome: Outcome) -> Report {
    let statistics = fs::read_to_string(directory.join(format!("{name}.csv"))).unwrap_or_default();
    let count = |column: &str| -> u32 {
        let mut lines = statistics.lines();
        let Some(position) = lines.next().and_then(|names| names.split(';').position(|name| name == column)) else {
            return 0;
        };
        lines.last().and_then(|values| values.split(';').nth(position)).and_then(|value| value.parse().ok()).unwrap_or_default()
    };
    Report {
        successful: count("SuccessfulCall(C)"),
        failed: count("FailedCall(C)"),
        retransmissions: count("Retransmissions(C)"),
        messages: traced(&directory.join(format!("{name}.msg"))),
        errors: fs::read_to_string(directory.join(format!("{name}.errors"))).unwrap_or_default(),
        outcome,
    }
}

/// Reads SIPp's message trace: a rule, a line that tells direction and length, an empty line, the message.
fn traced(file: &Path) -> Vec<Traced> {
    const RULE: &[u8] = b"----------------------------------------------- ";
    let text = fs::read(file).unwrap_or_default();
    let mut messages = Vec::new();
    let mut rest = text.as_slice();
    while let Some(start) = crate::message::find(rest, RULE) {
        rest = &rest[start + RULE.len()..];
        let Some(first_line) = crate::message::find(rest, b"\n") else {
            break;
        };
        rest = &rest[first_line + 1..];
        let Some(second_line) = crate::message::find(rest, b"\n\n") else {
            break;
        };
        let title = String::from_utf8_lossy(&rest[..second_line]).into_owned();
        rest = &rest[second_line + 2..];
        let length = title
            .split(['(', '['])
            .nth(1)
            .and_then(|part| part.split([' ', ']']).next())
            .and_then(|digits| digits.parse::<usize>().ok());
        let is_message = ["UDP", "TCP"].iter().any(|transport| title.starts_with(&format!("{transport} message")));
        let (Some(length), true) = (length, is_message) else {
            continue;
        };
        if let Some(message) = rest.get(..length).and_then(Message::read) {
            messages.push(Traced { sent: title.contains("sent"), message });
        }
    }
    messages
}

/// Is this UDP address open on this machine? Read from the kernel's table, so that looking does not disturb.
fn bound(address: SocketAddr) -> bool {
    in_table("udp", address, None)
}

/// Does anybody accept connections at this address?
pub fn listening(address: SocketAddr) -> bool {
    const LISTEN: &str = "0A";
    in_table("tcp", address, Some(LISTEN))
}

fn in_table(table: &str, address: SocketAddr, state: Option<&str>) -> bool {
    let (table, ip) = match address.ip() {
        IpAddr::V4(ip) => (format!("/proc/net/{table}"), format!("{:08X}", u32::from_ne_bytes(ip.octets()))),
        IpAddr::V6(ip) => {
            let words = ip
                .octets()
                .chunks_exact(4)
                .map(|word| format!("{:08X}", u32::from_ne_bytes([word[0], word[1], word[2], word[3]])))
                .collect();
            (format!("/proc/net/{table}6"), words)
        }
    };
    let wanted = format!("{ip}:{:04X}", address.port());
    fs::read_to_string(table).unwrap_or_default().lines().any(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        columns.get(1) == Some(&wanted.as_str()) && state.is_none_or(|state| columns.get(3) == Some(&state))
    })
}
