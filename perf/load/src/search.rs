//! The highest open-loop rate at which so many calls fail and no more, by bisection.

use clap::Args;
use serde_json::{Value, json};

use crate::flow::Flow;
use crate::load::measure_one;
use crate::pace::Load;
use crate::run::{Bench, Phase};

#[derive(Args)]
pub struct SearchArguments {
    /// Find the highest open-loop rate with this share of the calls failed at most, and no more than that (nor than 4 %) ended only after the step,
    /// then measure at it: 0.04 is the published studies' rule
    #[arg(long, value_name = "SHARE")]
    pub search_failures: Option<f64>,
    /// Measured seconds of each rate that --search-failures tries
    #[arg(long, default_value_t = 5.0)]
    search_step: f64,
    /// It ends when the rate is known to this share
    #[arg(long, default_value_t = 0.02)]
    search_resolution: f64,
    /// And begins here [default: what a closed window brings through]
    #[arg(long)]
    search_from: Option<f64>,
}

/// A rate of whose calls more than this share, or than what may fail, end only after the step is too high, though in the end all do: they wait for
/// one another, and in a longer step more of them would.
const LEFT_OVER: f64 = 0.04;
/// Enough outstanding to keep a server busy, few enough for the smallest receive buffer that a server may have.
const WINDOW: u32 = 48;
const STEP_SECONDS: f64 = 3.0;
/// A rate that was too high leaves calls that only time-outs end. Those that take longer than this have failed, without waiting for that.
const PATIENCE_SECONDS: f64 = 8.0;

impl SearchArguments {
    pub fn check(&self) -> Result<(), String> {
        match self.search_failures {
            Some(share) if !(0.0..1.0).contains(&share) => Err("--search-failures is a share: 0.04 for 4 %".into()),
            _ if self.search_resolution <= 0.0 || self.search_step <= 0.0 => {
                Err("a search needs a step and a resolution of more than 0".into())
            }
            _ => Ok(()),
        }
    }

    /// The rate at which no more than the share `allowed` fails, and what was tried on the way.
    pub fn run<F: Flow>(
        &self,
        allowed: f64,
        bench: &mut Bench,
        flow: &mut F,
        poisson: bool,
        (settle, drain, hold): (f64, f64, f64),
    ) -> (f64, Value) {
        let drain = drain.min(PATIENCE_SECONDS + hold);
        let start = self.search_from.unwrap_or_else(|| capacity(bench, flow, drain));
        let mut bisection = Bisection::new(start, self.search_resolution);
        let (mut tried, mut generator_bound, mut repeated) = (Vec::new(), false, None);
        while let Some(rate) = bisection.next() {
            let load = Load::Open { rate, poisson };
            if settle > 0.0 {
                bench.run(flow, &Phase::new("settle", load, settle));
            }
            let phase = Phase::new("try", load, self.search_step).measured();
            let (outcome, goodput, _) = measure_one(bench, flow, &phase, drain);
            let failed = goodput.failed_share();
            let left_over = outcome.left_over();
            let passed = failed <= allowed && left_over <= allowed.max(LEFT_OVER);
            let because = outcome.generator_bound();
            // What failed when something else had the core, or our own calls came in a rush, says nothing of the server: once more.
            let again = !passed && (because.is_some() || outcome.is_disturbed()) && repeated != Some(rate);
            if again {
                repeated = Some(rate);
            } else {
                bisection.tell(rate, passed);
            }
            // It is the last rate that failed that limits the one found.
            if !passed {
                generator_bound = because.is_some();
            }
            bench.say(&format!(
                "       try {rate:>8.0}/s: {:.2} % failed, {:.2} % ended late{}",
                failed * 100.0,
                (left_over - failed).max(0.0) * 100.0,
                match (passed, again) {
                    (true, _) => "",
                    (false, false) => ", too many",
                    (false, true) => ", too many, but the machine was disturbed: again",
                },
            ));
            tried.push(json!({
                "rate": rate,
                "failed_share": failed,
                "left_over_share": left_over,
                "passed": passed,
                "generator_bound_because": because,
            }));
        }
        let rate = bisection.found();
        let result = json!({
            "rule": format!("at most {:.1} % failed", allowed * 100.0),
            "failed_share_allowed": allowed,
            "rate": rate,
            // None of the rates passed, or none of them failed: what was found is only a bound.
            "is_bracketed": bisection.is_bracketed(),
            "generator_bound": generator_bound,
            "tried": tried,
        });
        (rate, result)
    }
}

/// What a closed window brings through in a second.
fn capacity<F: Flow>(bench: &mut Bench, flow: &mut F, drain: f64) -> f64 {
    let load = Load::Window(WINDOW);
    let window = bench.run(flow, &Phase::new("capacity", load, STEP_SECONDS));
    bench.run(flow, &Phase::new("drain", Load::Rest, drain).until_quiet());
    window.rate().max(1.0)
}

/// Between the highest rate that passed and the lowest that did not.
struct Bisection {
    start: f64,
    resolution: f64,
    passed: Option<f64>,
    failed: Option<f64>,
}

/// Nothing is tried further from the start than this factor.
const FURTHEST: f64 = 16.0;

impl Bisection {
    fn new(start: f64, resolution: f64) -> Bisection {
        Bisection { start, resolution, passed: None, failed: None }
    }

    /// The rate to try; nothing when it is known.
    fn next(&self) -> Option<f64> {
        match (self.passed, self.failed) {
            (None, None) => Some(self.start),
            (Some(passed), None) => Some(passed * 1.25).filter(|rate| *rate <= self.start * FURTHEST),
            (None, Some(failed)) => Some(failed * 0.75).filter(|rate| *rate >= self.start / FURTHEST),
            (Some(passed), Some(failed)) => (failed > passed * (1.0 + self.resolution)).then(|| (passed + failed) / 2.0),
        }
    }

    fn tell(&mut self, rate: f64, passed: bool) {
        match passed {
            true => self.passed = Some(rate),
            false => self.failed = Some(rate),
        }
    }

    fn found(&self) -> f64 {
        self.passed.or(self.failed).unwrap_or(self.start)
    }

    fn is_bracketed(&self) -> bool {
        self.passed.is_some() && self.failed.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches a server that bears rates up to `peak`; returns what was found, and how many rates were tried.
    fn search(start: f64, peak: f64) -> (Bisection, u32) {
        let mut bisection = Bisection::new(start, 0.02);
        let mut tried = 0;
        while let Some(rate) = bisection.next() {
            bisection.tell(rate, rate <= peak);
            tried += 1;
            assert!(tried < 40, "{start} {peak}");
        }
        (bisection, tried)
    }

    #[test]
    fn the_peak_is_found_from_above_and_from_below() {
        for start in [700.0, 990.0, 1_000.0, 1_010.0, 1_400.0, 9_000.0] {
            let (bisection, tried) = search(start, 1_000.0);
            let found = bisection.found();
            assert!(bisection.is_bracketed());
            assert!(found <= 1_000.0 && found * 1.02 >= 1_000.0, "{start}: {found}");
            assert!(tried <= 16, "{start}: {tried}");
        }
    }

    #[test]
    fn a_peak_out_of_reach_is_no_result() {
        let (nothing_passes, _) = search(1_000.0, 0.0);
        assert!(!nothing_passes.is_bracketed());
        let (nothing_fails, _) = search(1_000.0, f64::INFINITY);
        assert!(!nothing_fails.is_bracketed());
        assert!(nothing_fails.found() > 10_000.0);
    }
}
