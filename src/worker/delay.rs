//! The histogram of the duration of a turn of the loop (`strowger_loop_delay_seconds`): from the poll's return to the turn's end.

use crate::base::counters;

/// Upper bounds of the buckets, in nanoseconds. Longer turns fall into one more bucket.
pub const BOUNDS_NS: [u64; 14] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    1_000_000_000,
];

counters! {
    /// A fixed number of buckets; recording is an addition.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Histogram {
        /// Not cumulative; the last one has no bound.
        pub buckets: [u64; BOUNDS_NS.len() + 1],
        pub sum_ns: u64,
    }
}

impl Histogram {
    pub fn record(&mut self, ns: u64) {
        // Short turns are the most frequent ones: the search ends at the first buckets.
        let bucket = BOUNDS_NS.iter().position(|bound| ns <= *bound);
        self.buckets[bucket.unwrap_or(BOUNDS_NS.len())] += 1;
        self.sum_ns += ns;
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Counted;

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        let mut histogram = Histogram::default();
        for (bucket, bound) in BOUNDS_NS.iter().enumerate() {
            histogram.record(*bound);
            histogram.record(*bound + 1);
            assert_eq!(histogram.buckets[bucket], if bucket == 0 { 1 } else { 2 });
        }
        assert_eq!(histogram.buckets[BOUNDS_NS.len()], 1);
        assert_eq!(histogram.count(), 2 * BOUNDS_NS.len() as u64);
        let before = histogram;
        histogram.add(&before);
        assert_eq!(histogram.sum_ns, 2 * before.sum_ns);
        assert_eq!(histogram.count(), 2 * before.count());
    }
}
