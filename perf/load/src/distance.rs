//! How far two cores are apart: how long a cache line takes from one to the other and back.
//!
//! A host may move a virtual machine's cores while it runs, and then all that two cores hand to each other (a datagram that one writes and
//! the other reads, above all) costs several times as much or as little as a moment before. Runs can be compared only where this is alike.

use std::hint;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use clap::Args;
use serde_json::json;

use crate::sys;

#[derive(Args)]
pub struct DistanceArguments {
    /// The two cores
    #[arg(long, num_args = 2, default_values_t = [0, 1])]
    cores: Vec<usize>,
}

/// A cache line of its own, as a neighbour's would be carried along.
#[repr(align(128))]
struct Line(AtomicU32);

const ROUND_TRIPS: u32 = 2_000;
/// The shortest of these counts: whatever interrupts a measurement can only lengthen it.
const MEASUREMENTS: usize = 10;
const OURS: u32 = 0;
const THEIRS: u32 = 1;
const END: u32 = 2;

pub fn run(arguments: &DistanceArguments) -> Result<(), String> {
    let (near, far) = (arguments.cores[0], arguments.cores[1]);
    if near == far {
        return Err("--cores: a core is no distance from itself".into());
    }
    let line = Line(AtomicU32::new(OURS));
    let ns = thread::scope(|scope| {
        let other = scope.spawn(|| sys::pin(far).map(|()| answer(&line.0)));
        let measured = sys::pin(near).map(|()| (0..MEASUREMENTS).filter_map(|_| ask(&line.0, || other.is_finished())).min());
        line.0.store(END, Ordering::Release);
        other.join().expect("it does not panic")?;
        measured
    })?;
    println!("{}", json!({ "round_trip_ns": ns.ok_or("the other core did not answer")? }));
    Ok(())
}

/// Gives the line back each time that it comes, until the end.
fn answer(line: &AtomicU32) {
    loop {
        match line.load(Ordering::Acquire) {
            // The end may be announced meanwhile, and must not be overwritten.
            THEIRS => _ = line.compare_exchange(THEIRS, OURS, Ordering::AcqRel, Ordering::Acquire),
            END => return,
            _ => hint::spin_loop(),
        }
    }
}

/// Returns the nanoseconds of a round trip; `None` if the other side has ended.
fn ask(line: &AtomicU32, has_ended: impl Fn() -> bool) -> Option<u64> {
    let start = Instant::now();
    for _ in 0..ROUND_TRIPS {
        line.store(THEIRS, Ordering::Release);
        while line.load(Ordering::Acquire) == THEIRS {
            if has_ended() {
                return None;
            }
            hint::spin_loop();
        }
    }
    Some(start.elapsed().as_nanos() as u64 / u64::from(ROUND_TRIPS))
}
