//! The laboratory's runs: many seeds under the auditor's eyes, the same seed twice, and each rule broken on purpose.
//!
//! `STROWGER_SEEDS` (how many, default 256), `STROWGER_FIRST` (from which, default 0), `STROWGER_STEPS` (default 3000) widen
//! the run; `STROWGER_SEED` replays one, and with `STROWGER_TRACE` set prints every message of it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use strowger_sim::{Failure, Report, Sabotage, SharedReport, SharedSabotage, Statistics, run, run_shared, run_traced};

/// Seeds beyond the default ones that have found a fault once, in the server or in the auditor. They run beside those.
const ONCE_FAILED: &[u64] =
    &[656, 1109, 1354, 1923, 2323, 2865, 3011, 3292, 3552, 3715, 3876, 4042, 4176, 4412, 9271, 12043, 12188];

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// A check that fails says which seed it was.
fn checked(seed: u64, steps: u64) -> Result<Report, Box<Failure>> {
    std::panic::catch_unwind(|| run(seed, steps, None)).unwrap_or_else(|why| {
        eprintln!("a check failed in seed {seed}");
        std::panic::resume_unwind(why)
    })
}

/// Runs seeds on two threads; the order of the results is that of the seeds' numbers.
fn run_all(seeds: &[u64], steps: u64) -> Vec<(u64, Result<Report, Box<Failure>>)> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)).copied() else {
                        return;
                    };
                    let result = checked(seed, steps);
                    results.lock().unwrap().push((seed, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|(seed, _)| *seed);
    results
}

#[test]
fn no_rule_is_broken() {
    let steps = setting("STROWGER_STEPS").unwrap_or(3000);
    if let Some(seed) = setting("STROWGER_SEED") {
        let result = match std::env::var_os("STROWGER_TRACE") {
            Some(_) => run_traced(seed, steps, |line| println!("{line}")),
            None => run(seed, steps, None),
        };
        match result {
            Ok(report) => println!("seed {seed}: {report:#?}"),
            Err(failure) => panic!("{failure}"),
        }
        return;
    }
    let first = setting("STROWGER_FIRST").unwrap_or(0);
    let count = setting("STROWGER_SEEDS").unwrap_or(256);
    let mut seeds: Vec<u64> = (first..first + count).collect();
    if first == 0 {
        seeds.extend(ONCE_FAILED.iter().filter(|seed| **seed >= count));
    }
    let count = seeds.len() as u64;
    let started = std::time::Instant::now();
    let results = run_all(&seeds, steps);
    let mut sum = Statistics::default();
    let mut failures = Vec::new();
    let mut virtual_ms = 0;
    for (_, result) in &results {
        match result {
            Ok(report) => {
                sum.add(&report.statistics);
                virtual_ms += report.duration_ms;
            }
            Err(failure) => failures.push(failure),
        }
    }
    println!(
        "{count} seeds of {steps} steps, {} h of virtual time in {:.1} s",
        virtual_ms / 3_600_000,
        started.elapsed().as_secs_f64()
    );
    for (name, number) in sum.list() {
        println!("{name:>24} {number}");
    }
    for failure in &failures {
        println!("FAILED seed {} step {}: {}: {}", failure.seed, failure.step, failure.rule, failure.detail);
    }
    if let Some(first) = failures.first() {
        panic!("{} of {count} seeds failed; the first:\n{first}", failures.len());
    }
    assert_it_was_a_test(&sum, count * steps);
}

/// So that the laboratory cannot silently test nothing: what must have happened, for each million steps.
fn assert_it_was_a_test(sum: &Statistics, steps: u64) {
    if steps < 300_000 {
        return;
    }
    let least = [
        ("datagrams lost", sum.lost, 300_000),
        ("datagrams duplicated", sum.duplicated, 150_000),
        ("datagrams overtaken", sum.reordered, 300_000),
        ("reports of unreachable ports", sum.unreachable, 5_000),
        ("mails between cores", sum.mails, 80_000),
        ("registrations", sum.registers, 50_000),
        ("bindings compared", sum.bindings_checked, 80_000),
        ("calls answered", sum.calls_answered, 20_000),
        ("calls refused", sum.calls_refused, 60_000),
        ("calls cancelled", sum.calls_cancelled, 10_000),
        ("calls timed out", sum.calls_timed_out, 800),
        ("losers of a fork cancelled", sum.forks_with_losers, 12_000),
        ("second answers to one call", sum.second_answers, 4_000),
        ("answers that crossed the CANCEL", sum.late_answers, 2_500),
        ("re-INVITEs", sum.reinvites, 3_000),
        ("BYEs answered", sum.byes_answered, 15_000),
        ("other requests answered", sum.other_answers, 30_000),
        ("redirections", sum.redirected, 4_000),
        ("retransmissions of requests", sum.client_retransmissions, 150_000),
        ("retransmissions of answers", sum.answer_retransmissions, 80_000),
        ("retransmissions absorbed", sum.absorbed, 60_000),
        ("timer C fired", sum.timer_c_cancels, 1_500),
        ("branches after others", sum.sequential_moves, 1_500),
        ("requests to phones behind a NAT", sum.to_nat, 5_000),
        ("requests by a Path", sum.by_path, 15_000),
        ("requests by name", sum.by_name, 5_000),
        ("questions about names", sum.questions, 5_000),
        ("questions that nobody answered", sum.questions_unanswered, 50),
        ("requests refused by a full server", sum.full, 50),
        ("requests forwarded without state", sum.stateless_forwards, 15_000),
        ("requests between servers", sum.chained_forwards, 30_000),
        ("requests across address families", sum.cross_family_forwards, 30_000),
        ("connections", sum.connections, 4_000),
        ("calls by streams", sum.calls_by_stream, 12_000),
        ("pieces of streams", sum.chunks, 300_000),
        ("connections reset", sum.resets, 3_000),
        ("connections of ended calls", sum.releases, 800),
        ("hostile messages", sum.hostile, 50_000),
        ("mangled messages", sum.mangled, 8_000),
        ("forged branches", sum.forged_branches, 6_000),
        ("strangers in routes", sum.stranger_routes, 6_000),
        ("CANCELs for other people's calls", sum.foreign_cancels, 1_500),
        ("REGISTERs replayed", sum.replayed_registers, 2_000),
        ("spoofed sources", sum.spoofed, 2_000),
        ("altered responses", sum.double_finals, 6_000),
        ("loops begun", sum.loops, 500),
        ("loops refused", sum.looped_answers, 2_000),
        ("challenges", sum.challenges, 50_000),
        ("credentials sent", sum.proofs, 120_000),
        ("requests proved", sum.proved, 110_000),
        ("calls that hostile agents answered", sum.gang_answers, 5_000),
        ("calls of hostile agents answered", sum.gang_calls, 1_200),
        ("forged spirals", sum.forged_spirals, 3_500),
        ("cookies used for what they are not", sum.reused_cookies, 3_500),
        ("names spelled otherwise", sum.misspelled, 3_000),
        ("credentials for another URI", sum.lent, 500),
        ("counts used twice", sum.counted_again, 500),
        ("REGISTERs for other people", sum.registered_for_others, 1_500),
        ("replays with changes", sum.replayed_proofs, 7_000),
        ("CANCELs with a branch alone", sum.cancels_by_branch, 1_500),
        ("stray ACKs", sum.stray_acks, 1_500),
        ("contacts that name the server", sum.bound_to_server, 1_500),
        ("REGISTERs of one CSeq", sum.registered_twice, 1_500),
        ("odd responses", sum.odd_responses, 1_300),
        ("requests without length", sum.without_length, 1_500),
        ("identities asserted", sum.asserted, 1_500),
        ("long lists", sum.long_lists, 1_500),
    ];
    // Whom a server asks who it is must get through nearly as often as who is not asked.
    let share = |answered: u64, placed: u64| answered as f64 / placed.max(1) as f64;
    let others = sum.calls_placed - sum.asked_calls;
    let free = share(sum.calls_answered - sum.asked_calls_answered, others);
    let asked = share(sum.asked_calls_answered, sum.asked_calls);
    assert!(asked > 0.75 * free, "{asked:.3} of the calls are answered that are asked, {free:.3} of the others");
    for (name, happened, per_million) in least {
        let wanted = per_million * steps / 1_000_000;
        assert!(happened >= wanted, "{name}: {happened}, expected at least {wanted}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [1, 7, 12, 30] {
        let hash = || match run(seed, 600, None) {
            Ok(report) => (report.trace_hash, report.duration_ms, report.statistics.list()),
            Err(failure) => panic!("{failure}"),
        };
        assert_eq!(hash(), hash(), "seed {seed}");
    }
    let hash = |seed| run(seed, 100, None).map(|report| report.trace_hash).ok();
    assert_ne!(hash(1), hash(2));
}

/// Each sabotage must be reported within some seeds, by the name of the rule that it breaks.
#[test]
fn every_broken_rule_is_caught() {
    let mut missed = Vec::new();
    // Of those that break a rule that is awaited, nothing can be expected yet.
    let kept = |sabotage: &&Sabotage| !sabotage.broken_rules().iter().any(|rule| rule.is_awaited());
    for sabotage in Sabotage::ALL.iter().filter(kept) {
        let caught = (0..40).find_map(|seed| run(seed, 1000, Some(*sabotage)).err());
        match caught {
            Some(failure) if sabotage.broken_rules().contains(&failure.rule) => {
                println!("{sabotage:?}: seed {} step {}: {}: {}", failure.seed, failure.step, failure.rule, failure.detail);
            }
            Some(failure) => missed.push(format!("{sabotage:?} was reported as {failure}")),
            None => missed.push(format!("{sabotage:?} was not noticed")),
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n\n"));
}

/// Steps of a run of servers that share their table.
const SHARED_STEPS: u64 = 300;

/// Several servers with one location table, through all the troubles of a store and of its network.
#[test]
fn servers_that_share_their_table_agree_and_keep_what_they_promise() {
    if let Some(seed) = setting("STROWGER_SEED") {
        match run_shared(seed, SHARED_STEPS, None) {
            Ok(report) => println!("seed {seed}: {report:#?}"),
            Err(failure) => panic!("{failure}"),
        }
        return;
    }
    let first = setting("STROWGER_FIRST").unwrap_or(0);
    let count = setting("STROWGER_SEEDS").unwrap_or(256);
    let mut sum = SharedReport::default();
    let mut failures = Vec::new();
    for seed in first..first + count {
        match run_shared(seed, SHARED_STEPS, None) {
            Ok(report) => sum.add(&report),
            Err(failure) => failures.push(failure),
        }
    }
    println!("{count} seeds: {sum:#?}");
    for failure in &failures {
        println!("FAILED seed {}: {}", failure.seed, failure.detail);
    }
    if let Some(first) = failures.first() {
        panic!("{} of {count} seeds failed; the first:\n{first}", failures.len());
    }
    // So that nothing can be tested silently.
    let least = [
        ("REGISTERs", sum.registers, 150),
        ("changes accepted", sum.accepted, 60),
        ("changes rejected", sum.rejected, 1),
        ("connections to the store", sum.connections, 8),
        ("bindings promised", sum.bound, 2),
        ("bindings removed", sum.removed, 2),
        ("bindings compared", sum.compared, 8),
    ];
    for (name, happened, each) in least {
        assert!(happened >= each * count, "{name}: {happened}, expected at least {}", each * count);
    }
}

#[test]
fn the_same_seed_gives_the_same_run_of_servers_that_share() {
    for seed in [3, 4] {
        let report = || run_shared(seed, 200, None).map_err(|failure| failure.to_string());
        assert_eq!(report(), report(), "seed {seed}");
    }
}

#[test]
fn every_broken_rule_of_sharing_is_caught() {
    let mut missed = Vec::new();
    for sabotage in SharedSabotage::ALL {
        match (0..200).find_map(|seed| run_shared(seed, SHARED_STEPS, Some(*sabotage)).err()) {
            Some(failure) => println!("{sabotage:?}: seed {}: {}", failure.seed, failure.detail),
            None => missed.push(format!("{sabotage:?} was not noticed")),
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
