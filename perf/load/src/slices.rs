//! What the server costs while its core has its full speed.
//!
//! A virtual machine's core shares what it computes with with somebody else's, and while that works it is slower by a third or by half: for 5
//! to 200 ms at a time, now and then, and not at all alike for one program and another. So a thread on the server's core looks every few
//! milliseconds how fast the core is, and what the server has used and done by then. While it looks nothing of the server can run there, so the
//! kernel's account is exact. Slices of time between two looks that find the full speed count; all others are left out.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::sys;

/// From one look to the next. What disturbs a core lasts as long or longer.
const PERIOD: Duration = Duration::from_millis(5);
/// A slice that is longer than so many periods is one in which the core was somebody else's.
const LONGEST: u32 = 2;
/// The core has its full speed if a look takes at most so much longer than nearly the fastest.
const SLOWER: f64 = 1.08;
/// Nearly the fastest: of so many looks one is faster.
const FASTEST: usize = 20;

/// What a look finds.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Duration,
    /// How long the same work took.
    work_ns: u64,
    /// CPU time that the server has used.
    server_ns: u64,
    completed: u64,
}

/// The slices at full speed, all together.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Calm {
    pub seconds: f64,
    /// Of all the time.
    pub share: f64,
    pub server_ns: u64,
    pub completed: u64,
    /// How long the work of a look takes at full speed: to see whether another run had the same.
    pub work_ns: u64,
}

impl Calm {
    /// `is_limit`: what is completed in a second is the server's limit, and not what was offered.
    pub fn json(&self, is_limit: bool) -> Value {
        let mut found = json!({ "share": self.share, "completed": self.completed, "work_ns": self.work_ns });
        if self.completed > 0 {
            found["server_cpu_us_each"] = json!(self.server_ns as f64 / 1e3 / self.completed as f64);
            if is_limit {
                found["completed_per_second"] = json!(self.completed as f64 / self.seconds);
            }
        }
        found
    }

    fn of(looks: &[Look]) -> Calm {
        let Some(work_ns) = full_speed_ns(looks.iter().map(|look| look.work_ns)) else {
            return Calm::default();
        };
        let is_fast = |look: &Look| is_full_speed(look.work_ns, work_ns);
        let mut calm = Calm { work_ns, ..Calm::default() };
        let mut all = Duration::ZERO;
        for pair in looks.windows(2) {
            let (before, after) = (&pair[0], &pair[1]);
            let took = after.at.saturating_sub(before.at);
            all += took;
            if is_fast(before) && is_fast(after) && took < LONGEST * PERIOD {
                calm.seconds += took.as_secs_f64();
                calm.server_ns += after.server_ns.saturating_sub(before.server_ns);
                calm.completed += after.completed.saturating_sub(before.completed);
            }
        }
        calm.share = calm.seconds / all.as_secs_f64().max(f64::MIN_POSITIVE);
        calm
    }
}

/// Returns how long the work of a look takes at full speed.
pub fn full_speed_ns(works_ns: impl Iterator<Item = u64>) -> Option<u64> {
    let mut sorted: Vec<u64> = works_ns.collect();
    sorted.sort_unstable();
    sorted.get(sorted.len() / FASTEST).copied()
}

pub fn is_full_speed(work_ns: u64, full_speed_ns: u64) -> bool {
    work_ns as f64 <= SLOWER * full_speed_ns as f64
}

/// The thread that looks.
pub struct Looking {
    thread: JoinHandle<Result<Vec<Look>, String>>,
    is_over: Arc<AtomicBool>,
}

impl Looking {
    /// Begins on this core. `accounts` are the scheduler's of the server's threads; `completed` is told by whoever counts it.
    pub fn begin(core: usize, accounts: Vec<File>, completed: Arc<AtomicU64>) -> Looking {
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        Looking { thread: thread::spawn(move || look_on(core, &accounts, &completed, &ends)), is_over }
    }

    pub fn end(self) -> Result<Calm, String> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("it does not panic").map(|looks| Calm::of(&looks))
    }
}

fn look_on(core: usize, accounts: &[File], completed: &AtomicU64, is_over: &AtomicBool) -> Result<Vec<Look>, String> {
    sys::pin(core)?;
    let start = Instant::now();
    let mut looks = Vec::with_capacity(4096);
    while !is_over.load(Ordering::Relaxed) {
        // The account first: what follows belongs to no slice.
        let server_ns = accounts.iter().filter_map(run_ns).sum();
        let (at, completed) = (start.elapsed(), completed.load(Ordering::Relaxed));
        looks.push(Look { at, work_ns: work_ns(), server_ns, completed });
        thread::sleep(PERIOD);
    }
    Ok(looks)
}

/// The time that a thread has run, from its `schedstat`; `None` if it has ended.
fn run_ns(account: &File) -> Option<u64> {
    let mut text = [0; 64];
    let length = account.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(&text[..length]).ok()?.split_whitespace().next()?.parse().ok()
}

/// How long it takes to go through a message byte by byte, some 10 µs of what a server does, once it is in the caches.
pub fn work_ns() -> u64 {
    read_through(2);
    let start = Instant::now();
    read_through(32);
    start.elapsed().as_nanos() as u64
}

const TEXT: &[u8] =
    b"INVITE sip:bob@biloxi.example.com SIP/2.0\r\nVia: SIP/2.0/UDP pc33.atlanta.example.com:5060;branch=z9hG4bKnashds8;rport\r\n\
    Max-Forwards: 70\r\nTo: Bob <sip:bob@biloxi.example.com>\r\nFrom: Alice <sip:alice@atlanta.example.com>;tag=1928301774\r\n\
    Call-ID: a84b4c76e66710@pc33\r\nCSeq: 314159 INVITE\r\n\r\n";

fn read_through(times: u32) {
    let (mut words, mut number, mut hash) = (0u32, 0u32, 0u32);
    for _ in 0..times {
        let mut is_in_word = false;
        for byte in black_box(TEXT) {
            match byte {
                b'0'..=b'9' => number = number.wrapping_mul(10) + u32::from(byte - b'0'),
                b'a'..=b'z' | b'A'..=b'Z' => {
                    words += u32::from(!is_in_word);
                    is_in_word = true;
                    hash = (hash ^ u32::from(*byte)).wrapping_mul(16_777_619);
                }
                b':' | b';' => (is_in_word, number) = (false, 0),
                _ => is_in_word = false,
            }
        }
    }
    black_box((words, number, hash));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks, each of (ms, work, the server's µs, completed).
    fn looks(all: &[(u64, u64, u64, u64)]) -> Vec<Look> {
        let look = |(ms, work_ns, us, completed): &(u64, u64, u64, u64)| Look {
            at: Duration::from_millis(*ms),
            work_ns: *work_ns,
            server_ns: us * 1000,
            completed: *completed,
        };
        all.iter().map(look).collect()
    }

    #[test]
    fn what_lies_between_two_fast_looks_counts() {
        let calm = Calm::of(&looks(&[
            (0, 1000, 0, 0),
            (5, 1079, 5_000, 200),
            // Slower, so neither what comes before it nor what follows.
            (10, 1500, 10_000, 300),
            (15, 1000, 15_000, 400),
            (20, 1010, 20_000, 605),
            // Something else had the core.
            (35, 1000, 24_000, 760),
            (40, 1000, 29_000, 960),
        ]));
        assert_eq!((calm.server_ns, calm.completed, calm.work_ns), (15_000_000, 605, 1000));
        assert!((calm.seconds - 0.015).abs() < 1e-9 && (calm.share - 15.0 / 40.0).abs() < 1e-9, "{calm:?}");
        let number = |is_limit, name| calm.json(is_limit)[name].as_f64();
        assert_eq!(number(false, "server_cpu_us_each"), Some(15_000.0 / 605.0));
        assert_eq!(
            (number(true, "completed_per_second"), number(false, "completed_per_second")),
            (Some(605.0 / calm.seconds), None)
        );
    }

    #[test]
    fn without_a_slice_there_is_nothing() {
        assert_eq!(Calm::of(&[]), Calm::default());
        let calm = Calm::of(&looks(&[(0, 1000, 0, 0), (5, 2000, 5_000, 200)]));
        assert_eq!((calm.completed, calm.share), (0, 0.0));
        assert!(calm.json(true)["server_cpu_us_each"].is_null());
    }

    #[test]
    fn one_fast_look_by_chance_makes_no_others_slow() {
        let mut all: Vec<_> = (0..100).map(|number| (5 * number, 1000, 5_000 * number, 200 * number)).collect();
        all[50].1 = 700;
        let calm = Calm::of(&looks(&all));
        assert_eq!((calm.work_ns, calm.completed), (1000, 99 * 200));
    }

    #[test]
    fn a_thread_is_seen_at_work() {
        let account = File::open("/proc/thread-self/schedstat").expect("our own account");
        let completed = Arc::new(AtomicU64::new(0));
        let looking = Looking::begin(0, vec![account], Arc::clone(&completed));
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(300) {
            read_through(1);
            completed.fetch_add(1, Ordering::Relaxed);
        }
        let calm = looking.end().expect("core 0 is there");
        assert!(calm.work_ns > 0 && (0.0..=1.0).contains(&calm.share), "{calm:?}");
        assert!(Looking::begin(100_000, Vec::new(), completed).end().is_err(), "there is no such core");
    }
}
