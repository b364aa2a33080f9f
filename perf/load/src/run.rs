//! The loop: start what is due, receive, fire timers, send, and account for the time. One thread does all of it.

use std::hint;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::flow::{Flow, Turn};
use crate::outcome::Outcome;
use crate::pace::{Load, Pace};
use crate::slices::Looking;
use crate::stats::{Count, Counts, Span, Stats};
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
    /// Ends when this becomes true.
    pub stop: Option<Arc<AtomicBool>>,
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
            stop: None,
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

    pub fn until(mut self, stop: Arc<AtomicBool>) -> Phase {
        self.stop = Some(stop);
        self
    }

    pub fn counted(mut self, count: u64) -> Phase {
        self.count = Some(count);
        self
    }
}

/// What stays the same through all phases of a run.
pub struct Bench {
    wire: Wire,
    pub out: Outbox,
    pub stats: Stats,
    pub server: Watched,
    server_address: SocketAddr,
    /// Our UDP sockets.
    own_sockets: Vec<SocketAddr>,
    /// Sleep when there is nothing to do. Otherwise the loop looks again at once: the server then never pays for waking us.
    sleep: bool,
    /// What is sent unasked is sent at multiples of this; 0: when its time has come.
    pub turn_ns: u64,
    /// The one core of the server, if what it costs there at full speed is to be told.
    pub server_core: Option<usize>,
    /// What is completed, for whoever looks at that core.
    completed: Arc<AtomicU64>,
    /// Says nothing while it runs.
    quiet: bool,
    epoch: Instant,
    seed: u64,
}

struct Snapshot {
    at_ns: u64,
    counts: Counts,
    server: CpuTime,
    own: CpuTime,
    server_resident: u64,
    server_drops: u64,
    own_drops: u64,
}

/// Calls started in one turn at most, so that answers are not kept waiting when the schedule is behind.
const STARTS_PER_TURN: usize = 16;
const LATE_NS: u64 = 1_000_000;
const LINE_NS: u64 = 1_000_000_000;
/// How long the generator may take after the end of an open-loop phase for what was due in it.
const GRACE_NS: u64 = 100_000_000;

impl Bench {
    pub fn new(out: Outbox, server: Watched, server_address: SocketAddr, sleep: bool, quiet: bool, seed: u64) -> Bench {
        Bench {
            wire: Wire::new(&out),
            own_sockets: out.udp_addresses(),
            out,
            stats: Stats::new(),
            server,
            server_address,
            sleep,
            turn_ns: 0,
            server_core: None,
            completed: Arc::default(),
            quiet,
            epoch: Instant::now(),
            seed,
        }
    }

    fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// The last moment at which something may have been sent unasked.
    fn turned_ns(&self, now_ns: u64) -> u64 {
        now_ns - now_ns.checked_rem(self.turn_ns).unwrap_or(0)
    }

    /// A line on standard error, for whoever waits.
    pub fn say(&self, line: &str) {
        if !self.quiet {
            eprintln!("{line}");
        }
    }

    fn snapshot(&self) -> Snapshot {
        let server_drops = watch::udp_drops_of(self.server_address);
        let own_drops = watch::udp_drops_at(&self.own_sockets);
        let server_resident = self.server.resident_bytes();
        Snapshot {
            counts: self.stats.counts.plus(&self.out.counts()),
            server_resident,
            server_drops,
            own_drops,
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
            self.stats.begin_measuring();
        }
        let core = self.server_core.filter(|_| phase.measured && !self.server.is_empty());
        let looking = core.map(|core| Looking::begin(core, self.server.accounts(), Arc::clone(&self.completed)));
        let idle_ns = self.turns(flow, phase, before.at_ns);
        self.stats.end_measuring();
        let after = self.snapshot();
        let calm = looking.map(Looking::end).transpose().unwrap_or_else(|error| {
            self.say(&error);
            None
        });
        let elapsed = after.at_ns - before.at_ns;
        let outcome = Outcome {
            phase: phase.clone(),
            seconds: elapsed as f64 / 1e9,
            counts: after.counts.since(&before.counts),
            server: (!self.server.is_empty()).then(|| after.server.since(&before.server)),
            server_cores: self.server.cores(),
            server_resident: (before.server_resident, after.server_resident),
            server_drops: after.server_drops.saturating_sub(before.server_drops),
            own_drops: after.own_drops.saturating_sub(before.own_drops),
            own_busy: 1.0 - idle_ns as f64 / elapsed.max(1) as f64,
            own: after.own.since(&before.own),
            calm,
            outstanding: flow.outstanding(),
        };
        if outcome.seconds > 0.2 {
            self.print_line(&outcome);
        }
        outcome
    }

    /// The turns of the loop. Returns the time in which there was nothing to do.
    fn turns<F: Flow>(&mut self, flow: &mut F, phase: &Phase, start_ns: u64) -> u64 {
        let end_ns = start_ns.saturating_add(phase.duration_ns);
        let mut pace = Pace::new(phase.load, start_ns, self.seed ^ start_ns);
        let mut to_start = phase.count.unwrap_or(u64::MAX);
        let mut idle_ns = 0;
        let mut next_line_ns = start_ns + LINE_NS;
        let mut line = Live::new(start_ns, &self.stats, 0);
        loop {
            let now_ns = self.now_ns();
            self.completed.store(self.stats.counts.get(Count::Completed), Ordering::Relaxed);
            if phase.until_quiet && flow.outstanding() == 0 {
                break;
            }
            if now_ns >= end_ns {
                // What was due before the end leaves still, unless the generator is far behind; then it counts as never begun.
                let behind = pace.next_ns().is_some_and(|next_ns| next_ns < end_ns);
                if !behind || now_ns >= end_ns.saturating_add(GRACE_NS) {
                    break;
                }
            }
            if let Some(stop) = &phase.stop
                && stop.load(Ordering::Relaxed)
            {
                break;
            }
            if phase.count.is_some_and(|_| to_start == 0 && flow.outstanding() == 0) {
                break;
            }
            let mut worked = false;
            for _ in 0..STARTS_PER_TURN {
                if to_start == 0 {
                    break;
                }
                let due_until_ns = self.turned_ns(now_ns).min(end_ns - 1);
                let Some(scheduled_ns) = pace.due(due_until_ns, flow.outstanding()) else {
                    break;
                };
                to_start -= 1;
                worked = true;
                self.start(flow, scheduled_ns);
            }
            self.out.flush();
            worked |= self.receive(flow);
            flow.handle_timers(&mut Turn { now_ns: self.turned_ns(now_ns), out: &mut self.out, stats: &mut self.stats });
            self.out.flush();
            if now_ns >= next_line_ns {
                next_line_ns += LINE_NS;
                self.print_live(flow, phase, now_ns, idle_ns, &line);
                line = Live::new(now_ns, &self.stats, idle_ns);
                continue;
            }
            if worked {
                continue;
            }
            let [call_ns, timer_ns] = [pace.next_ns(), flow.next_timer_ns()].map(|at| at.map(|at| self.next_turn_ns(at)));
            self.pause([call_ns, timer_ns, Some(next_line_ns), Some(end_ns)]);
            idle_ns += self.now_ns() - now_ns;
        }
        while to_start > 0 && matches!(phase.load, Load::Open { .. }) && phase.stop.is_none() {
            if pace.due(end_ns - 1, flow.outstanding()).is_none() {
                break;
            }
            to_start -= 1;
            for count in [Count::Scheduled, Count::Late, Count::Skipped] {
                self.stats.counts.add(count);
            }
        }
        idle_ns
    }

    /// The first moment from this one on at which something may be sent unasked.
    fn next_turn_ns(&self, at_ns: u64) -> u64 {
        match self.turn_ns {
            0 => at_ns,
            turn_ns => at_ns.div_ceil(turn_ns) * turn_ns,
        }
    }

    /// There is nothing to do before the first of these.
    fn pause(&self, until_ns: [Option<u64>; 4]) {
        if !self.sleep {
            return (0..20).for_each(|_| hint::spin_loop());
        }
        let now_ns = self.now_ns();
        if let Some(until_ns) = until_ns.into_iter().flatten().min().filter(|until_ns| *until_ns > now_ns) {
            self.wire.wait(&self.out, until_ns - now_ns);
        }
    }

    /// Takes what has come, or waits for it up to 10 ms.
    pub fn look<F: Flow>(&mut self, flow: &mut F) {
        self.out.flush();
        if !self.receive(flow) {
            self.wire.wait(&self.out, 10_000_000);
        }
    }

    /// Lets the persistent connections open.
    pub fn connect<F: Flow>(&mut self, flow: &mut F, seconds: u64) -> Result<(), String> {
        let end_ns = self.now_ns() + seconds * 1_000_000_000;
        while self.out.unopened() > 0 {
            self.look(flow);
            if self.now_ns() > end_ns {
                return Err(format!("{} connections did not open within {seconds} s", self.out.unopened()));
            }
        }
        Ok(())
    }

    fn start<F: Flow>(&mut self, flow: &mut F, scheduled_ns: u64) {
        let now_ns = self.now_ns();
        let lag_ns = now_ns.saturating_sub(scheduled_ns);
        self.stats.counts.add(Count::Scheduled);
        if self.stats.is_measuring() {
            self.stats.record(Span::Lag, lag_ns);
        }
        if lag_ns > LATE_NS + self.turn_ns {
            self.stats.counts.add(Count::Late);
        }
        if !flow.start(scheduled_ns, &mut Turn { now_ns, out: &mut self.out, stats: &mut self.stats }) {
            self.stats.counts.add(Count::Skipped);
        }
    }

    fn receive<F: Flow>(&mut self, flow: &mut F) -> bool {
        let epoch = self.epoch;
        let now_ns = || epoch.elapsed().as_nanos() as u64;
        self.wire.receive(flow, &now_ns, &mut self.out, &mut self.stats)
    }

    fn print_live<F: Flow>(&self, flow: &F, phase: &Phase, now_ns: u64, idle_ns: u64, from: &Live) {
        let seconds = (now_ns - from.at_ns) as f64 / 1e9;
        let counts = self.stats.counts.since(&from.counts);
        let late = counts.get(Count::Late) + counts.get(Count::Skipped);
        let busy = 1.0 - (idle_ns - from.idle_ns) as f64 / 1e9 / seconds;
        let all = &self.stats.counts;
        self.say(&format!(
            "{:>10} {:>8.0}/s  outstanding {:>6}  retransmitted {}  timed out {}  refused {}  wrong {}  generator busy {:.0} %, late {late}",
            phase.name,
            counts.get(Count::Completed) as f64 / seconds,
            flow.outstanding(),
            all.retransmissions(),
            all.get(Count::TimedOut),
            all.get(Count::Refused),
            all.get(Count::Wrong),
            busy * 100.0,
        ));
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
        let lag = match (outcome.phase.measured, outcome.phase.load) {
            (true, Load::Open { .. }) => format!(", lag p99 {:.0} µs", self.stats.quantile_ns(Span::Lag, 0.99) as f64 / 1e3),
            _ => String::new(),
        };
        self.say(&format!(
            "{:>10} {:>8.0}/s over {:.1} s: {server}; generator busy {:.0} %, {:.1} µs each{lag}{}{}{}",
            outcome.phase.name,
            outcome.rate(),
            outcome.seconds,
            outcome.own_busy * 100.0,
            outcome.own_work_us_each(),
            match outcome.generator_bound() {
                Some(because) => format!("; GENERATOR BOUND: {because}"),
                None => String::new(),
            },
            if outcome.is_disturbed() { "; disturbed" } else { "" },
            if outcome.is_clean() { "" } else { "; NOT CLEAN" },
        ));
    }
}

/// What a live line counts from.
struct Live {
    at_ns: u64,
    counts: Counts,
    idle_ns: u64,
}

impl Live {
    fn new(at_ns: u64, stats: &Stats, idle_ns: u64) -> Live {
        Live { at_ns, counts: stats.counts, idle_ns }
    }
}
