//! One run: the grammar of actions, the clock, and the silence at the end.

use super::air::{Air, What};
use super::auditor::Auditor;
use super::caller::{CallPlan, Registering};
use super::digest::Account;
use super::gang::Gang;
use super::hostile;
use super::intent::Intent;
use super::link::Port;
use super::phone::Phones;
use super::plan::{GATEWAY_PREFIX, MALLORY};
use super::rule::{Rule, Violation};
use super::sabotage::{Sabotage, Saboteur};
use super::scenario::{Families, Scenario};
use super::server::Server;
use super::statistics::Statistics;
use std::fmt;
use strowger::base::{Instant, Rng};
use strowger::stack::location::SHARDS;

/// What a run came to if no rule was broken.
#[derive(Clone, Debug)]
pub struct Report {
    pub statistics: Statistics,
    /// One number for all that happened: equal for equal runs.
    pub trace_hash: u64,
    /// Virtual time that passed, in milliseconds.
    pub duration_ms: u64,
}

/// A rule that was broken, and how to see it again.
#[derive(Clone, Debug)]
pub struct Failure {
    pub seed: u64,
    pub step: u64,
    pub rule: Rule,
    pub detail: String,
    pub scenario: String,
    /// The last messages on the network, and those of the call in question.
    pub history: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} step {}: {}: {}", self.seed, self.step, self.rule, self.detail)?;
        writeln!(f, "{}", self.scenario)?;
        write!(f, "{}", self.history)
    }
}

struct Laboratory {
    scenario: Scenario,
    description: String,
    air: Air,
    servers: Vec<Server>,
    phones: Phones,
    gang: Gang,
    auditor: Auditor,
}

/// Runs one seed for `steps` actions and then until all is quiet.
pub fn run(seed: u64, steps: u64, sabotage: Option<Sabotage>) -> Result<Report, Box<Failure>> {
    run_with(Laboratory::new(Rng::new(seed), seed, sabotage), steps)
}

/// As [`run`], but that the first dice fall as the tape says: whoever changes a byte of it changes a decision, of a phone, the network or a
/// stranger, in the midst of the dialogs that the others make.
pub fn run_taped(seed: u64, tape: &[u8], steps: u64) -> Result<Report, Box<Failure>> {
    let rng = Rng::with_tape(seed, tape);
    run_with(Laboratory::new(rng, seed, None), steps)
}

/// As [`run`]; `listener` is told each message that is handed over or lost, in one line.
pub fn run_traced(seed: u64, steps: u64, listener: impl FnMut(&str) + 'static) -> Result<Report, Box<Failure>> {
    let mut laboratory = Laboratory::new(Rng::new(seed), seed, None);
    laboratory.air.listener = Some(Box::new(listener));
    run_with(laboratory, steps)
}

fn run_with(mut laboratory: Laboratory, steps: u64) -> Result<Report, Box<Failure>> {
    let start = laboratory.air.now;
    for step in 0..steps {
        laboratory.act();
        let pause = laboratory.pause();
        let until = laboratory.air.now.after_ms(pause);
        laboratory.pass(until);
        if let Some(violation) = laboratory.auditor.violation.take() {
            return Err(laboratory.failure(step, violation));
        }
    }
    let acted_ms = laboratory.air.now.ms_since(start);
    laboratory.air.open = false;
    laboratory.fall_silent();
    if laboratory.scenario.guarded && laboratory.scenario.hostile {
        laboratory.start_again();
    }
    if let Some(violation) = laboratory.auditor.violation.take() {
        return Err(laboratory.failure(steps, violation));
    }
    let mut statistics = laboratory.air.statistics;
    statistics.steps = steps;
    statistics.sabotages = laboratory.servers.iter().map(|s| s.saboteur.deeds).sum();
    Ok(Report { statistics, trace_hash: laboratory.air.trace_hash(), duration_ms: acted_ms })
}

impl Laboratory {
    fn new(mut rng: Rng, seed: u64, sabotage: Option<Sabotage>) -> Laboratory {
        let mut scenario = Scenario::new(seed, &mut rng);
        let mut air = Air::new(rng, scenario.weather);
        air.weather = std::mem::take(&mut scenario.places);
        let auditor = Auditor::new(&scenario);
        let servers: Vec<Server> = scenario
            .servers
            .iter()
            .enumerate()
            .map(|(number, plan)| {
                let saboteur = Saboteur::new(sabotage);
                Server::new(number, plan, scenario.icmp, &scenario.zone, saboteur)
            })
            .collect();
        if scenario.streams {
            air.homes = scenario.phones.iter().map(|phone| phone.at).collect();
            for (server, plan) in scenario.servers.iter().enumerate() {
                for (n, at) in plan.addresses.iter().enumerate() {
                    air.ports.push(Port {
                        at: *at,
                        server,
                        listener: (plan.addresses.len() + n) as u16,
                        cores: plan.settings.cores,
                    });
                }
            }
        }
        for server in 0..servers.len() {
            air.later(60_000, What::Sweep { server });
        }
        let description = scenario.describe();
        let plans = std::mem::take(&mut scenario.phones);
        let mut phones = Phones::new(plans, scenario.t1_ms, scenario.t2_ms);
        for phone in phones.list.iter_mut().filter(|_| scenario.guarded) {
            let realm = scenario.realm(phone.plan.server, &phone.plan.domain);
            phone.account = Some(Account::new(&phone.plan.user, &realm));
        }
        Laboratory { scenario, description, air, servers, phones, gang: Gang::default(), auditor }
    }

    fn failure(&self, step: u64, violation: Violation) -> Box<Failure> {
        let mut history = self.air.history(40, None);
        if !violation.call_id.is_empty() {
            history += "the call itself:\n";
            history += &self.air.history(200, Some(&violation.call_id));
            history += &self.air.full(12, &violation.call_id);
        }
        Box::new(Failure {
            seed: self.scenario.seed,
            step,
            rule: violation.rule,
            detail: format!(
                "server {}: {} (call {})",
                violation.server,
                violation.detail,
                String::from_utf8_lossy(&violation.call_id)
            ),
            scenario: format!(
                "{}\nat {}, dropped: {}",
                self.description,
                self.air.now.as_ms(),
                self.servers.iter().map(Server::dropped).collect::<String>()
            ),
            history,
        })
    }

    /// How long until the next action: bursts, pauses, and sometimes minutes.
    fn pause(&mut self) -> u64 {
        match self.air.rng.below(1000) {
            0..600 => self.air.rng.below(40),
            600..900 => self.air.rng.below(400),
            900..980 => self.air.between(400, 3000),
            980..995 => self.air.between(3000, 20_000),
            _ => self.air.between(20_000, 200_000),
        }
    }

    /// One action of the grammar.
    fn act(&mut self) {
        let phone = self.air.rng.below(self.phones.list.len() as u64) as usize;
        if self.scenario.streams && self.air.rng.one_in(40) {
            self.reset();
        }
        match self.air.rng.below(100) {
            0..18 => {}
            18..38 => self.call(phone),
            38..52 => self.register(phone),
            52..62 => self.ask(phone),
            62..70 => self.in_dialog(),
            70..76 => self.cancel(),
            n if self.scenario.hostile && n % 2 == u64::from(self.scenario.guarded) => {
                self.gang.attack(&mut self.air, &self.scenario, &mut self.phones);
            }
            _ if self.scenario.hostile => {
                hostile::attack(&mut self.air, &self.scenario, &mut self.phones);
            }
            _ => self.call(phone),
        }
        self.phones.say_farewell(&mut self.air, &self.scenario);
    }

    /// Somebody to call: mostly a user of one of the servers, sometimes nobody.
    fn callee(&mut self, phone: usize) -> Vec<u8> {
        let home = self.phones.list[phone].plan.server;
        let server = if self.air.rng.one_in(3) { self.air.rng.below(self.servers.len() as u64) as usize } else { home };
        let domains = &self.scenario.servers[server].settings.domains;
        let domain = match domains.len() {
            1 => &domains[0],
            several => &domains[self.air.rng.below(several as u64) as usize],
        };
        let domain = String::from_utf8_lossy(domain);
        let gateway = std::str::from_utf8(GATEWAY_PREFIX).unwrap_or("");
        let text = match self.air.rng.below(20) {
            0 => format!("sip:nobody@{domain}"),
            1 => format!("sip:{gateway}{}@{domain}", self.air.rng.below(1000)),
            2 => format!("sip:u{}@{};user=ip", self.air.rng.below(7), domain.to_uppercase()),
            _ => format!("sip:u{}@{domain}", self.air.rng.below(7)),
        };
        if self.scenario.guarded && self.scenario.hostile && self.air.rng.one_in(10) {
            return format!("sip:{MALLORY}@{domain}").into_bytes();
        }
        text.into_bytes()
    }

    fn call(&mut self, phone: usize) {
        let uri = self.callee(phone);
        let cancel_after_ms = match self.air.rng.below(4) {
            0 => Some(self.air.between(0, 4000)),
            1 => Some(self.air.between(5000, 60_000)),
            _ => None,
        };
        let plan = CallPlan { cancel_after_ms };
        self.phones.place_call(&mut self.air, phone, &uri, plan);
    }

    fn register(&mut self, phone: usize) {
        use Registering::*;
        let what = match self.air.rng.below(32) {
            0..9 => Add,
            9..15 => AddTwo,
            15..19 => AddAll,
            19 | 20 => Query,
            21 | 22 => RemoveOne,
            23 => RemoveAll,
            24 => TooShort,
            25 | 26 => Restart,
            27 => Loop,
            28 => Dead,
            29 => Stale,
            _ => Add,
        };
        self.phones.register(&mut self.air, phone, what);
    }

    fn ask(&mut self, phone: usize) {
        let method =
            [&b"MESSAGE"[..], b"OPTIONS", b"INFO", b"SUBSCRIBE", b"PUBLISH", b"FOO", b"MESSAGE"][self.air.rng.below(7) as usize];
        let mut uri = self.callee(phone);
        if method == b"OPTIONS" && self.air.rng.one_in(2) {
            let home = self.phones.list[phone].plan.server;
            uri = format!("sip:{}", self.scenario.servers[home].domain).into_bytes();
        }
        self.phones.ask(&mut self.air, phone, method, &uri);
    }

    fn in_dialog(&mut self) {
        let Some(dialog) = self.phones.live_dialog(&mut self.air) else {
            return;
        };
        match self.air.rng.below(6) {
            0 | 1 => self.phones.reinvite(&mut self.air, &self.scenario, dialog),
            2 => self.phones.hang_up(&mut self.air, dialog),
            n => {
                let method = [&b"INFO"[..], b"UPDATE", b"NOTIFY"][n as usize - 3];
                self.phones.ask_in_dialog(&mut self.air, &self.scenario, dialog, method);
            }
        }
    }

    fn cancel(&mut self) {
        let recent = self.phones.calls.len().min(12) as u64;
        if recent > 0 {
            let call = self.phones.calls.len() - 1 - self.air.rng.below(recent) as usize;
            self.phones.cancel(&mut self.air, call);
        }
    }

    /// Lets everything happen that happens until `until`.
    fn pass(&mut self, until: Instant) {
        while self.auditor.violation.is_none() {
            let Some(what) = self.air.next(until) else {
                break;
            };
            self.happen(what);
        }
        self.air.now = self.air.now.max(until);
        self.auditor.settle(&mut self.air, false);
        let recorded = |s: &super::plan::ServerPlan| s.settings.proxy.record_route;
        let all = self.scenario.servers.iter().all(recorded);
        if let (true, Some(detail)) = (all, self.phones.lost_route.take()) {
            self.auditor.complain(Rule::RecordRoute, 0, detail, None);
        }
    }

    fn happen(&mut self, what: What) {
        let (air, auditor) = (&mut self.air, &mut self.auditor);
        match what {
            What::Datagram { from, to, message, intent, order } => {
                air.arrived(from, to, order);
                if let Some(server) = self.servers.iter_mut().find(|s| s.addresses.contains(&to)) {
                    air.note("in", from, to, &message);
                    server.receive(air, auditor, from, to, &message, intent);
                } else if let (Some(phone), true) = (self.phones.at(to), intent != Intent::Mangled) {
                    self.phones.receive(air, &self.scenario, phone, from, &message);
                } else if self.scenario.attackers.contains(&to) && intent != Intent::Mangled {
                    self.gang.receive(air, &self.scenario, to, from, &message);
                }
            }
            What::Mail { server, core, errand, flow, bytes } => {
                self.servers[server].receive_mail(air, auditor, core, errand, flow, &bytes)
            }
            What::Timers { server, core } => self.servers[server].serve_timers(air, auditor, core),
            What::Answer { server, core, answer } => self.servers[server].hear_answer(air, auditor, core, answer),
            What::Sweep { server } => {
                let now = air.now;
                self.servers[server].sweep(now, SHARDS / 8);
                let location = std::sync::Arc::clone(&self.servers[server].location);
                auditor.compare_bindings(air, server, &location);
                if air.open {
                    air.later(60_000, What::Sweep { server });
                }
            }
            What::Unreachable { server, core, message } => self.servers[server].hear_undelivered(air, auditor, core, &message),
            What::Opened { link } => {
                let server = air.links[link].server;
                self.servers[server].opened(air, link);
            }
            What::LinkLost { link } => {
                let server = air.links[link].server;
                self.servers[server].lose(air, auditor, link);
            }
            What::Chunk { link, up, bytes } => self.arrive(link, up, &bytes),
            What::Phone { phone, todo } => self.phones.handle_todo(air, phone, todo),
        }
        self.phones.say_farewell(&mut self.air, &self.scenario);
    }

    /// Bytes came by a connection.
    fn arrive(&mut self, link: usize, up: bool, bytes: &[u8]) {
        let (air, auditor) = (&mut self.air, &mut self.auditor);
        let (server, phone) = (air.links[link].server, air.links[link].phone);
        let from = air.links[link].server_at;
        let messages = match air.arrive(link, up, bytes) {
            Ok(messages) => messages,
            Err(Intent::Honest) => {
                let what = format!("the stream from {from} to {phone} (up: {up}) has other messages");
                return auditor.complain(Rule::Framing, server, what, None);
            }
            // What no honest agent wrote may break a stream.
            Err(_) => return air.later(0, What::LinkLost { link }),
        };
        for (message, intent) in messages {
            if up {
                self.servers[server].receive_stream(air, auditor, link, &message, intent);
            } else if let (Some(phone), true) = (self.phones.at(phone), intent != Intent::Mangled) {
                self.phones.receive(air, &self.scenario, phone, from, &message);
            }
        }
    }

    /// One of the connections that are open dies.
    fn reset(&mut self) {
        let open = |link: &super::link::Link| link.state == super::link::State::Open;
        let all: Vec<usize> = (0..self.air.links.len()).filter(|n| open(&self.air.links[*n])).collect();
        if !all.is_empty() {
            let link = all[self.air.rng.below(all.len() as u64) as usize];
            self.air.later(0, What::LinkLost { link });
        }
    }

    /// All servers begin anew, and what was captured before is sent once more.
    fn start_again(&mut self) {
        for (server, plan) in self.servers.iter_mut().zip(&self.scenario.servers) {
            server.restart(plan);
            self.auditor.restarted(server.number);
        }
        for _ in 0..3 {
            self.gang.replay(&mut self.air, &self.scenario, true);
            let until = self.air.now.after_ms(40_000);
            self.pass(until);
        }
        self.fall_silent();
    }

    /// Nobody begins anything; the clock runs on until nothing is left to happen. Then nothing may be left in any core.
    fn fall_silent(&mut self) {
        let limit = self.air.now.after_ms(6 * 3600 * 1000);
        self.pass(limit);
        self.auditor.settle(&mut self.air, true);
        for server in &mut self.servers {
            let all: Vec<_> = server.occupancy().collect();
            for (core, occupancy) in all.iter().enumerate() {
                if !occupancy.is_quiet() {
                    self.auditor.complain(Rule::Quiet, server.number, format!("core {core} still holds {occupancy:?}"), None);
                }
            }
            // Longer than any binding lasts: the sweep must find them all.
            server.sweep(self.air.now, SHARDS);
            let bindings = server.location.bindings();
            if bindings > 0 {
                self.auditor.complain(
                    Rule::Quiet,
                    server.number,
                    format!("{bindings} bindings that have expired are still held"),
                    None,
                );
            }
        }
        if self.air.next_at().is_some() {
            self.auditor.complain(Rule::Quiet, 0, "something still happens, hours after the last request".into(), None);
        }
        let _ = Families::Both;
    }
}
