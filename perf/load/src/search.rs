//! The highest open-loop rate at which nothing is lost.

use crate::flow::Flow;
use crate::pace::Load;
use crate::run::{Bench, Phase};

/// Enough outstanding to keep a server busy, few enough for the smallest receive buffer that a server may have.
const WINDOW: u32 = 48;
const STEP_SECONDS: f64 = 3.0;

/// A closed window shows the capacity; open-loop rates just below it are tried from the top until one goes through clean.
pub fn highest_clean_rate<F: Flow>(bench: &mut Bench, flow: &mut F, poisson: bool) -> f64 {
    let window = bench.run(
        flow,
        &Phase::new("capacity", Load::Window(WINDOW), STEP_SECONDS),
    );
    let capacity = window.rate().max(1.0);
    let quiet = Phase::new("drain", Load::Rest, 40.0).until_quiet();
    bench.run(flow, &quiet);
    let mut share = 1.0;
    while share > 0.3 {
        let rate = capacity * share;
        let load = Load::Open { rate, poisson };
        let tried = bench.run(flow, &Phase::new("try", load, STEP_SECONDS));
        let drained = bench.run(flow, &quiet);
        if tried.is_clean() && drained.is_clean() {
            return rate;
        }
        share -= 0.025;
    }
    capacity * share
}
