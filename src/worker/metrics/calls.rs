//! The metrics of calls: their outcomes by route and next hop, and their records.

use crate::base::metric::Families;
use crate::stack::route_counters::{OTHER, RouteCounters, SETUP_BOUNDS_MS, TIMED_OUT, UNREACHABLE};
use std::fmt::Display;

/// What is known of the calls in progress and of their records.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecordNumbers {
    /// Calls that were answered and are not over.
    pub dialogs: usize,
    pub written: u64,
    /// Records that found no room because nothing could be written.
    pub lost: u64,
    /// Calls without a record because there were too many at a time.
    pub unrecorded: u64,
}

/// Adds the outcomes of calls, by route and next hop.
pub fn outcomes(list: &mut Families, counters: &RouteCounters) {
    let route = |number: u16| match number {
        0 => "none".to_owned(),
        number => number.to_string(),
    };
    let attempts = list.counter(
        "strowger_route_attempts_total",
        "Copies of INVITEs that open a call, by the [[route]] that they took (from 1) and its target.",
    );
    for row in &counters.rows {
        attempts.of(&[("route", &route(row.route)), ("target", &row.target)], row.attempts);
    }
    let responses = list
        .counter("strowger_route_responses_total", "What became of these: the final response's code, or a word where none came.");
    for row in &counters.rows {
        // A family has a sample even before the first call.
        let answered = row.codes.iter().any(|(code, _)| *code == 200);
        let none = [(200, 0)];
        let codes = none.iter().filter(|_| !answered).chain(&row.codes);
        for (code, count) in codes {
            let code = match *code {
                TIMED_OUT => "timeout".to_owned(),
                UNREACHABLE => "unreachable".to_owned(),
                OTHER => "other".to_owned(),
                code => code.to_string(),
            };
            let labels: [(&str, &dyn Display); 3] = [("route", &route(row.route)), ("target", &row.target), ("code", &code)];
            responses.of(&labels, *count);
        }
    }
    let bounds = SETUP_BOUNDS_MS.map(|ms| ms as f64 / 1e3);
    for setup in &counters.setups {
        list.histogram_of(
            "strowger_call_setup_seconds",
            "How long calls took from their INVITE to the first 2xx, by the [[route]] that they took.",
            &[("route", &route(setup.route))],
            &bounds,
            &setup.buckets,
            setup.sum_ms as f64 / 1e3,
        );
    }
}

pub fn records(list: &mut Families, numbers: &RecordNumbers) {
    list.gauge("strowger_dialogs", "Calls that were answered and are not over.").is(numbers.dialogs);
    for (name, help, count) in [
        ("strowger_records_written_total", "Records of calls that were written ([records] file).", numbers.written),
        (
            "strowger_records_lost_total",
            "Records of calls that were lost: what they go to did not take them in time.",
            numbers.lost,
        ),
        (
            "strowger_calls_unrecorded_total",
            "Calls that leave no record, because [records] most was reached when they began.",
            numbers.unrecorded,
        ),
    ] {
        list.counter(name, help).is(count);
    }
}
