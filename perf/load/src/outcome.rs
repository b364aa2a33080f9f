//! What one phase of a run came to, and whether it can be believed: was anything lost, was the machine disturbed, was it the generator that set
//! the limit.

use serde_json::{Value, json};

use crate::pace::Load;
use crate::run::Phase;
use crate::slices::Calm;
use crate::stats::{Count, Counts};
use crate::watch::CpuTime;

/// A core that is busy for more than this share of the time is full.
const FULL: f64 = 0.95;
/// More late ones than this share, and the load was not the one asked for.
const LATE_SHARE: f64 = 0.01;
/// If something else had more of a core than this share, the rate says little.
const MOST_FOREIGN: f64 = 0.05;

/// What one phase came to.
pub struct Outcome {
    pub phase: Phase,
    pub seconds: f64,
    pub counts: Counts,
    /// CPU time of the server, if it was named, and the cores that it may run on.
    pub server: Option<CpuTime>,
    pub server_cores: usize,
    pub server_resident: (u64, u64),
    pub server_drops: u64,
    pub own_drops: u64,
    /// Share of the time in which the loop had something to do.
    pub own_busy: f64,
    /// Time that the generator ran, and time that it was kept off its core by something else.
    pub own: CpuTime,
    /// The time in which the server's core had its full speed, if that was looked for.
    pub calm: Option<Calm>,
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

    /// Share of the time in which a thread of the server could have run, and something else had its core: also another of its threads.
    pub fn server_waited(&self) -> Option<f64> {
        Some(self.server?.wait_ns as f64 / 1e9 / self.seconds)
    }

    /// How much of the server's cores something else had, at most: what the server waited for and did not use itself.
    fn server_lost(&self) -> Option<f64> {
        let unused = (self.server_cores as f64 - self.server_busy()?).max(0.0);
        Some(self.server_waited()?.min(unused))
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
        self.own_waited() > MOST_FOREIGN || self.server_lost().is_some_and(|share| share > MOST_FOREIGN)
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

    /// Share of what was due in this phase that did not end well in it. What had begun before makes up for what is still going on at its end, as long
    /// as no more waits then than at its beginning.
    pub fn left_over(&self) -> f64 {
        let scheduled = self.counts.get(Count::Scheduled).max(1);
        (1.0 - self.completed() as f64 / scheduled as f64).max(0.0)
    }

    /// Why the generator and not the server was the limit; nothing where it was not.
    pub fn generator_bound(&self) -> Option<String> {
        let scheduled = self.counts.get(Count::Scheduled);
        let mut reasons = Vec::new();
        if self.own_drops > 0 {
            reasons.push(format!("{} datagrams were dropped at the generator's own sockets", self.own_drops));
        }
        // In a window the schedule is the answers', and a busy generator slows the server down. At a given rate it does not, unless calls
        // leave late or not at all.
        if let Load::Open { .. } = self.phase.load {
            let late = self.counts.get(Count::Late);
            if late as f64 > LATE_SHARE * scheduled as f64 {
                reasons.push(format!("{late} of {scheduled} left more than 1 ms after their time"));
            }
            let skipped = self.counts.get(Count::Skipped);
            if skipped > 0 {
                reasons.push(format!("{skipped} of {scheduled} were never begun"));
            }
        } else if self.own_busy > FULL {
            let busy = self.own_busy * 100.0;
            match self.server {
                None => reasons.push(format!("the generator was busy {busy:.0} % of the time, and nobody watched the server")),
                Some(time) if ((time.run_ns + time.wait_ns) as f64) < FULL * 1e9 * self.seconds => {
                    reasons.push(format!("the generator was busy {busy:.0} % of the time, and the server's core was not full"));
                }
                Some(_) => {}
            }
        }
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    pub fn json(&self) -> Value {
        let completed = self.completed().max(1) as f64;
        let (load, rate) = match self.phase.load {
            Load::Open { rate, poisson: false } => ("constant", json!(rate)),
            Load::Open { rate, poisson: true } => ("poisson", json!(rate)),
            Load::Window(window) => ("window", json!(window)),
            Load::Rest => ("rest", json!(null)),
        };
        let bound = self.generator_bound();
        json!({
            "phase": self.phase.name,
            "load": load,
            "rate_or_window": rate,
            "seconds": self.seconds,
            "scheduled_per_second": self.counts.get(Count::Scheduled) as f64 / self.seconds,
            "completed_per_second": self.rate(),
            "server_cpu_us_each": self.server.map(|time| time.run_ns as f64 / 1e3 / completed),
            "server_busy": self.server_busy(),
            "server_waited": self.server_waited(),
            "server_resident_bytes": [self.server_resident.0, self.server_resident.1],
            "server_drops": self.server_drops,
            "generator_drops": self.own_drops,
            "generator_busy": self.own_busy,
            "generator_us_each": self.own_work_us_each(),
            "generator_waited": self.own_waited(),
            "disturbed": self.is_disturbed(),
            "generator_bound": bound.is_some(),
            "generator_bound_because": bound,
            "clean": self.is_clean(),
            "outstanding_at_end": self.outstanding,
            "calm": self.calm.map(|calm| calm.json(matches!(self.phase.load, Load::Window(_)))),
            "bytes_in_each": self.counts.get(Count::ReceivedBytes) as f64 / completed,
            "bytes_out_each": self.counts.get(Count::SentBytes) as f64 / completed,
            "counts": self.counts.json(),
        })
    }
}

/// What became, by the end of the drain, of the calls scheduled in a measured phase.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Goodput {
    pub scheduled: u64,
    /// INVITE and BYE ended in 2xx, and nothing in the call was wrong.
    pub good: u64,
}

impl Goodput {
    pub fn of(measured: &Outcome, drained: &Outcome) -> Goodput {
        Goodput {
            scheduled: measured.counts.get(Count::Scheduled),
            good: measured.counts.get(Count::Good) + drained.counts.get(Count::Good),
        }
    }

    /// Refused, timed out, cut off, wrong, never begun, or not ended.
    pub fn failed_share(&self) -> f64 {
        1.0 - self.good as f64 / self.scheduled.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten seconds at 1,000/s, of which nothing is to be said.
    fn outcome() -> Outcome {
        let load = Load::Open { rate: 1_000.0, poisson: false };
        let mut counts = Counts::default();
        for count in [Count::Scheduled, Count::Started, Count::Completed] {
            counts.add_many(count, 10_000);
        }
        Outcome {
            phase: Phase::new("measure", load, 10.0),
            seconds: 10.0,
            counts,
            server: Some(CpuTime { run_ns: 1_000_000_000, wait_ns: 0 }),
            server_cores: 1,
            server_resident: (0, 0),
            server_drops: 0,
            own_drops: 0,
            own_busy: 0.3,
            own: CpuTime { run_ns: 10_000_000_000, wait_ns: 0 },
            calm: None,
            outstanding: 0,
        }
    }

    #[test]
    fn why_the_generator_was_the_limit() {
        let busy = |server: Option<CpuTime>| {
            move |it: &mut Outcome| {
                it.phase.load = Load::Window(48);
                it.own_busy = 0.96;
                it.server = server;
            }
        };
        let at = |run_ns, wait_ns| Some(CpuTime { run_ns, wait_ns });
        type Change<'a> = &'a dyn Fn(&mut Outcome);
        let changes: [(Change, &[&str]); 13] = [
            (&|_| {}, &[]),
            // At a given rate it may be busy as long as nothing is late.
            (&|it| it.own_busy = 0.96, &[]),
            (&|it| it.counts.add_many(Count::Late, 100), &[]),
            (&|it| it.counts.add_many(Count::Late, 101), &["101 of 10000 left more than 1 ms after their time"]),
            // In a window nothing can be late.
            (
                &|it| {
                    it.phase.load = Load::Window(48);
                    it.counts.add_many(Count::Late, 5_000);
                },
                &[],
            ),
            // What the server drops is the server's limit.
            (&|it| it.server_drops = 5, &[]),
            (&|it| it.own_drops = 1, &["1 datagrams were dropped"]),
            (&|it| it.counts.add(Count::Skipped), &["1 of 10000 were never begun"]),
            (&busy(at(5_000_000_000, 0)), &["the server's core was not full"]),
            (&busy(at(9_600_000_000, 0)), &[]),
            // It would have used its core, had something else not had it.
            (&busy(at(9_000_000_000, 600_000_000)), &[]),
            (&busy(None), &["nobody watched the server"]),
            (
                &|it| {
                    it.own_drops = 3;
                    it.counts.add_many(Count::Late, 2_000);
                },
                &["3 datagrams", "; 2000 of 10000 left"],
            ),
        ];
        for (number, (change, reasons)) in changes.iter().enumerate() {
            let mut outcome = outcome();
            change(&mut outcome);
            let because = outcome.generator_bound();
            assert_eq!(because.is_some(), !reasons.is_empty(), "{number}: {because:?}");
            let said = because.clone().unwrap_or_default();
            assert!(reasons.iter().all(|reason| said.contains(reason)), "{number}: {said}");
            assert_eq!(outcome.json()["generator_bound_because"], json!(because));
        }
    }

    /// Threads of a server that share a core wait for each other: that is no disturbance.
    #[test]
    fn nobody_else_had_more_than_the_server_left() {
        for (busy, waited, own_waited, cores, is_disturbed) in [
            (0.98, 0.4, 0.0, 1, false),
            (0.80, 0.4, 0.0, 1, true),
            (0.80, 0.02, 0.0, 1, false),
            (1.70, 0.2, 0.0, 2, true),
            (0.98, 0.4, 0.06, 1, true),
        ] {
            let ns = |share: f64| (share * 1e10) as u64;
            let mut outcome = outcome();
            outcome.server = Some(CpuTime { run_ns: ns(busy), wait_ns: ns(waited) });
            outcome.own.wait_ns = ns(own_waited);
            outcome.server_cores = cores;
            assert_eq!(outcome.is_disturbed(), is_disturbed, "{busy} {waited} {own_waited} {cores}");
        }
    }

    #[test]
    fn what_ends_only_afterwards_is_left_over() {
        let mut outcome = outcome();
        assert_eq!(outcome.left_over(), 0.0);
        outcome.counts.add_many(Count::Scheduled, 10_000);
        assert_eq!(outcome.left_over(), 0.5);
        outcome.counts.add_many(Count::Completed, 10_001);
        assert_eq!(outcome.left_over(), 0.0);
    }
}
