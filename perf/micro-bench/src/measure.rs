//! Time and memory of this process, medians, and what one cache miss costs.

use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use strowger::base::Rng;

/// What the processor fetches from memory at a time, bytes.
pub const LINE: usize = 64;

/// Time that this thread has computed, whatever else ran meanwhile.
pub struct CpuTime(i64);

impl CpuTime {
    pub fn now() -> CpuTime {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        CpuTime(now.tv_sec * 1_000_000_000 + now.tv_nsec)
    }

    pub fn elapsed_ns(&self) -> f64 {
        (CpuTime::now().0 - self.0) as f64
    }
}

/// Nanoseconds that each of `count` takes, when `work` does them all.
pub fn ns_each(count: u32, work: impl FnOnce()) -> f64 {
    let start = CpuTime::now();
    work();
    start.elapsed_ns() / f64::from(count)
}

/// What the process holds in memory now (`statm`, second field).
pub fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

/// The least, the median and the most.
pub fn spread(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    [0, sorted.len() / 2, sorted.len() - 1].map(|place| sorted[place])
}

pub fn median(values: &[f64]) -> f64 {
    spread(values)[1]
}

/// For JSON: a tenth of a nanosecond is enough.
pub fn tenths(value: f64) -> f64 {
    (10.0 * value).round() / 10.0
}

/// As many bytes as a table has, each cache line of which names the next: to walk it is to wait for memory and for nothing else.
pub struct Chain {
    lines: Vec<[u32; LINE / 4]>,
    at: u32,
}

impl Chain {
    pub fn new(bytes: u64, rng: &mut Rng) -> Chain {
        let count = (bytes as usize / LINE).max(2) as u32;
        let mut next: Vec<u32> = (0..count).collect();
        // Sattolo's shuffle makes one ring of them all.
        for last in (1..count).rev() {
            next.swap(last as usize, rng.below(u64::from(last)) as usize);
        }
        let lines = next.into_iter().map(|next| [next; LINE / 4]).collect();
        Chain { lines, at: 0 }
    }

    /// Nanoseconds of a step.
    pub fn walk(&mut self, steps: u32) -> f64 {
        ns_each(steps, || {
            for _ in 0..steps {
                self.at = self.lines[self.at as usize][0];
            }
            black_box(self.at);
        })
    }
}
