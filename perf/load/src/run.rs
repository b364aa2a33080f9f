//! The loop: start what is due, receive, fire timers, send, and account for the time. One thread does all of it.

use std::hint;
use std::ops::Range;
use std::time::Instant;

use serde_json::{Value, json};

use crate::flow::Flow;
use crate::pace::{Load, Pace};
use crate::stats::{Count, Counts, Span, Stats};
use crate::sys;
use crate::watch::{self, CpuTime, Watched};
use crate::wire::{Outbox, Wire};

/// A part of a run under one load.
#[derive(Clone, Debug)]
pub struct Phase {
    pub name: String,
    pub load: Load,
    /// How long; a phase with a count ends when that many are answered, if that is sooner.
    pub duration_ns: u64,
    pub count: Option<u64>,
    /// Ends as soon as nothing is outstanding.
    pub until_quiet: bool,
    /// Whether latencies of what begins in it are kept.
    pub measured: bool,
}

impl Phase {
    pub fn new(name: &str, load: Load, seconds: f64) -> Phase {
        Phase {
            name: name.to_string(),
            load,
            duration_ns: (seconds * 1e9) as u64,
            count: None,
            until_quiet: false,
            measured: false,
        }
    }

    pub fn measured(mut self) -> Phase {
        self.measured = true;
        self
    }

    pub fn until_quiet(mut self) -> Phase {
        self.until_quiet = true;
        self
    }

    pub fn counted(mut self, count: u64) -> Phase {
        self.count = Some(count);
        self
    }
}

/// What one phase came to.
pub struct Outcome {
    pub phase: Phase,
    pub seconds: f64,
    pub counts: Counts,
    pub sent: u64,
    pub sent_bytes: u64,
    pub send_errors: u64,
    /// CPU time of the server, if it was named.
    pub server: Option<CpuTime>,
    pub server_resident: (u64, u64),
    pub server_drops: u64,
    pub own_drops: u64,
    /// Share of the time in which the loop had something to do.
    pub own_busy: f64,
    pub own_cpu_ns: (u64, u64),
    /// Time that the generator ran, and time that it was kept off its core by something else.
    pub own: CpuTime,
    pub outstanding: u32,
}

impl Outcome {
    pub fn completed(&self) -> u64 {
        self.counts.get(Count::Completed)
    }

    pub fn rate(&self) -> f64 {
        self.completed() as f64 / self.seconds
    }

    pub fn server_busy(&self) -> Option<f64> {
        Some(self.server?.run_ns as f64 / 1e9 / self.seconds)
    }

    /// Share of the time in which the server could have run, and something else had its core.
    pub fn server_waited(&self) -> Option<f64> {
        Some(self.server?.wait_ns as f64 / 1e9 / self.seconds)
    }

    pub fn own_waited(&self) -> f64 {
        self.own.wait_ns as f64 / 1e9 / self.seconds
    }

    /// CPU time of the generator's work, without its looking for work. Time in which something else had the core is taken out in proportion.
    pub fn own_work_us_each(&self) -> f64 {
        let ran = self.own.run_ns as f64 / (self.own.run_ns + self.own.wait_ns).max(1) as f64;
        // Asleep it is neither running nor waiting, but then it is not busy either.
        self.own_busy * self.seconds * 1e6 * ran / self.completed().max(1) as f64
    }

    /// Other work on the machine took so much of either core that the rate says little (CPU for each call still says something).
    pub fn is_disturbed(&self) -> bool {
        self.own_waited() > 0.05 || self.server_waited().is_some_and(|share| share > 0.05)
    }

    /// Nothing was lost, repeated, refused, wrong or left unsent.
    pub fn is_clean(&self) -> bool {
        self.counts.retransmissions() == 0
            && self.server_drops == 0
            && self.own_drops == 0
            && [
                Count::Refused,
                Count::CredentialsRefused,
                Count::TimedOut,
                Count::Skipped,
                Count::Repeated,
                Count::Wrong,
                Count::Stray,
                Count::Broken,
                Count::Cut,
                Count::ClientFailed,
                Count::ServerFailed,
            ]
            .iter()
            .all(|count| self.counts.get(*count) == 0)
    }

    /// The generator and not the server set the pace: it had no time left while the server had.
    pub fn is_generator_bound(&self) -> bool {
        self.own_busy > 0.95
            && self
                .server
                .is_some_and(|time| ((time.run_ns + time.wait_ns) as f64) < 0.95e9 * self.seconds)
    }

    pub fn json(&self) -> Value {
        let completed = self.completed().max(1) as f64;
        let mut counts = self.counts.json();
        counts.insert("messages_sent".into(), json!(self.sent));
        counts.insert("bytes_sent".into(), json!(self.sent_bytes));
        counts.insert("send_errors".into(), json!(self.send_errors));
        let (load, rate) = match self.phase.load {
            Load::Open {
                rate,
                poisson: false,
            } => ("constant", json!(rate)),
            Load::Open {
                rate,
                poisson: true,
            } => ("poisson", json!(rate)),
            Load::Window(window) => ("window", json!(window)),
            Load::Rest => ("rest", json!(null)),
        };
        json!({
            "phase": self.phase.name,
            "load": load,
            "rate_or_window": rate,
            "seconds": self.seconds,
            "completed_per_second": self.rate(),
            "server_cpu_us_each": self.server.map(|time| time.run_ns as f64 / 1e3 / completed),
            "server_busy": self.server_busy(),
            "server_waited": self.server_waited(),
            "server_resident_bytes": [self.server_resident.0, self.server_resident.1],
            "server_drops": self.server_drops,
            "generator_drops": self.own_drops,
            "generator_busy": self.own_busy,
            "generator_us_each": self.own_work_us_each(),
            "generator_cpu_user_s": self.own_cpu_ns.0 as f64 / 1e9,
            "generator_cpu_system_s": self.own_cpu_ns.1 as f64 / 1e9,
            "generator_waited": self.own_waited(),
            "disturbed": self.is_disturbed(),
            "generator_bound": self.is_generator_bound(),
            "clean": self.is_clean(),
            "outstanding_at_end": self.outstanding,
            "bytes_in_each": self.counts.get(Count::ReceivedBytes) as f64 / completed,
            "bytes_out_each": self.sent_bytes as f64 / completed,
            "counts": counts,
        })
    }
}

/// What stays the same through all phases of a run.
pub struct Bench {
    pub wire: Wire,
    pub out: Outbox,
    pub stats: Stats,
    pub server: Watched,
    pub server_ports: Range<u16>,
    pub own_ports: Vec<Range<u16>>,
    /// Sleep when there is nothing to do. Otherwise the loop looks again at once: the server then never pays for waking us.
    pub sleep: bool,
    pub quiet: bool,
    pub epoch: Instant,
    pub seed: u64,
}

struct Snapshot {
    at_ns: u64,
    counts: Counts,
    sent: u64,
    sent_bytes: u64,
    send_errors: u64,
    server: CpuTime,
    own: CpuTime,
    server_resident: u64,
    server_drops: u64,
    own_drops: u64,
    own_cpu_ns: (u64, u64),
}

/// Calls started in one turn at most, so that answers are not kept waiting when the schedule is behind.
const STARTS_PER_TURN: usize = 16;
const LATE_NS: u64 = 1_000_000;

impl Bench {
    pub fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    fn snapshot(&self) -> Snapshot {
        let server_drops = watch::udp_drops(self.server_ports.clone());
        let own_drops = self
            .own_ports
            .iter()
            .map(|ports| watch::udp_drops(ports.clone()))
            .sum();
        let server_resident = self.server.resident_bytes();
        Snapshot {
            counts: match &self.out.streams {
                Some(streams) => self.stats.counts.plus(&streams.counts),
                None => self.stats.counts,
            },
            sent: self.out.sent(),
            sent_bytes: self.out.sent_bytes(),
            send_errors: self.out.send_errors(),
            server_resident,
            server_drops,
            own_drops,
            own_cpu_ns: sys::thread_cpu(),
            // Last, next to the clock.
            own: CpuTime::of_this_thread(),
            server: self.server.time(),
            at_ns: self.now_ns(),
        }
    }

    /// Runs one phase to its end.
    pub fn run<F: Flow>(&mut self, flow: &mut F, phase: &Phase) -> Outcome {
        self.server.refresh();
        let before = self.snapshot();
        if phase.measured {
            self.stats.clear_spans();
        }
        self.stats.measuring = phase.measured;
        let idle_ns = self.turns(flow, phase, before.at_ns);
        self.stats.measuring = false;
        let after = self.snapshot();
        let elapsed = after.at_ns - before.at_ns;
        let outcome = Outcome {
            phase: phase.clone(),
            seconds: elapsed as f64 / 1e9,
            counts: after.counts.since(&before.counts),
            sent: after.sent - before.sent,
            sent_bytes: after.sent_bytes - before.sent_bytes,
            send_errors: after.send_errors - before.send_errors,
            server: (!self.server.is_empty()).then(|| after.server.since(&before.server)),
            server_resident: (before.server_resident, after.server_resident),
            server_drops: after.server_drops.saturating_sub(before.server_drops),
            own_drops: after.own_drops.saturating_sub(before.own_drops),
            own_busy: 1.0 - idle_ns as f64 / elapsed.max(1) as f64,
            own_cpu_ns: (
                after.own_cpu_ns.0 - before.own_cpu_ns.0,
                after.own_cpu_ns.1 - before.own_cpu_ns.1,
            ),
            own: after.own.since(&before.own),
            outstanding: flow.outstanding(),
        };
        if !self.quiet && outcome.seconds > 0.2 {
            self.print_line(&outcome);
        }
        outcome
    }

    /// The turns of the loop. Returns the time in which there was nothing to do.
    fn turns<F: Flow>(&mut self, flow: &mut F, phase: &Phase, start_ns: u64) -> u64 {
        let end_ns = start_ns.saturating_add(phase.duration_ns);
        let already = self.stats.counts.get(Count::Completed);
        let mut pace = Pace::new(phase.load, start_ns, self.seed ^ start_ns);
        let mut to_start = phase.count.unwrap_or(u64::MAX);
        let mut idle_ns = 0;
        let mut next_line_ns = start_ns + 1_000_000_000;
        let mut line_from = (start_ns, already);
        loop {
            let now_ns = self.now_ns();
            if now_ns >= end_ns || (phase.until_quiet && flow.outstanding() == 0) {
                break;
            }
            if phase
                .count
                .is_some_and(|_| to_start == 0 && flow.outstanding() == 0)
            {
                break;
            }
            let mut worked = false;
            for _ in 0..STARTS_PER_TURN {
                if to_start == 0 {
                    break;
                }
                let Some(scheduled_ns) = pace.due(now_ns, flow.outstanding()) else {
                    break;
                };
                to_start -= 1;
                worked = true;
                self.start(flow, scheduled_ns);
            }
            self.out.flush();
            worked |= self.receive(flow);
            flow.handle_timers(now_ns, &mut self.out, &mut self.stats);
            self.out.flush();
            if now_ns >= next_line_ns {
                next_line_ns += 1_000_000_000;
                self.print_live(flow, phase, now_ns, &mut line_from);
                continue;
            }
            if worked {
                continue;
            }
            if self.sleep {
                let until_ns = [pace.next_ns(), flow.next_timer_ns(), Some(next_line_ns)]
                    .into_iter()
                    .flatten()
                    .fold(end_ns, u64::min);
                let now_ns = self.now_ns();
                if until_ns > now_ns {
                    self.wire.wait(&self.out, until_ns - now_ns);
                }
            } else {
                for _ in 0..20 {
                    hint::spin_loop();
                }
            }
            idle_ns += self.now_ns() - now_ns;
        }
        idle_ns
    }

    /// Lets the persistent connections open.
    pub fn connect<F: Flow>(&mut self, flow: &mut F, seconds: u64) -> Result<(), String> {
        let end_ns = self.now_ns() + seconds * 1_000_000_000;
        while self.out.unopened() > 0 {
            self.out.flush();
            if !self.receive(flow) {
                self.wire.wait(&self.out, 10_000_000);
            }
            if self.now_ns() > end_ns {
                return Err(format!(
                    "{} connections did not open within {seconds} s",
                    self.out.unopened()
                ));
            }
        }
        Ok(())
    }

    fn start<F: Flow>(&mut self, flow: &mut F, scheduled_ns: u64) {
        let now_ns = self.now_ns();
        let lag_ns = now_ns.saturating_sub(scheduled_ns);
        self.stats.counts.add(Count::Scheduled);
        if self.stats.measuring {
            self.stats.record(Span::Lag, lag_ns);
        }
        if lag_ns > LATE_NS {
            self.stats.counts.add(Count::Late);
        }
        if !flow.start(scheduled_ns, now_ns, &mut self.out, &mut self.stats) {
            self.stats.counts.add(Count::Skipped);
        }
    }

    fn receive<F: Flow>(&mut self, flow: &mut F) -> bool {
        let epoch = self.epoch;
        let now_ns = || epoch.elapsed().as_nanos() as u64;
        self.wire
            .receive(flow, &now_ns, &mut self.out, &mut self.stats)
    }

    fn print_live<F: Flow>(&self, flow: &F, phase: &Phase, now_ns: u64, from: &mut (u64, u64)) {
        if self.quiet {
            return;
        }
        let completed = self.stats.counts.get(Count::Completed);
        let rate = (completed - from.1) as f64 * 1e9 / (now_ns - from.0) as f64;
        *from = (now_ns, completed);
        eprintln!(
            "{:>10} {:>8.0}/s  outstanding {:>6}  retransmitted {}  timed out {}  wrong {}",
            phase.name,
            rate,
            flow.outstanding(),
            self.stats.counts.retransmissions(),
            self.stats.counts.get(Count::TimedOut),
            self.stats.counts.get(Count::Wrong),
        );
    }

    fn print_line(&self, outcome: &Outcome) {
        let server = match (outcome.server, outcome.server_busy()) {
            (Some(time), Some(busy)) => format!(
                "server {:.1} µs each, {:.0} % of a core",
                time.run_ns as f64 / 1e3 / outcome.completed().max(1) as f64,
                busy * 100.0
            ),
            _ => "server not watched".to_string(),
        };
        eprintln!(
            "{:>10} {:>8.0}/s over {:.1} s: {server}; generator busy {:.0} %, {:.1} µs each{}{}{}",
            outcome.phase.name,
            outcome.rate(),
            outcome.seconds,
            outcome.own_busy * 100.0,
            outcome.own_work_us_each(),
            if outcome.is_generator_bound() {
                "; GENERATOR BOUND"
            } else {
                ""
            },
            if outcome.is_disturbed() {
                "; disturbed"
            } else {
                ""
            },
            if outcome.is_clean() {
                ""
            } else {
                "; NOT CLEAN"
            },
        );
    }
}
