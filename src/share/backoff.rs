//! When to try again after trouble: soon at first, then less often, and not all servers at the same moment.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

const LEAST: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_secs(2);

#[derive(Default)]
pub struct Backoff {
    /// Failures in a row.
    troubles: u32,
    retry_at: Option<Instant>,
}

impl Backoff {
    /// Notes another failure. The delay is between half and all of what it would be without chance.
    pub fn fail(&mut self) {
        let most = (LEAST * 2u32.saturating_pow(self.troubles.min(8))).min(MOST);
        self.troubles += 1;
        let chance = RandomState::new().hash_one(self.troubles) % 1000;
        self.retry_at = Some(Instant::now() + most.mul_f64(0.5 + chance as f64 / 2000.0));
    }

    pub fn succeed(&mut self) {
        *self = Backoff::default();
    }

    /// Returns how long to wait before the next attempt; zero if it is due.
    pub fn delay(&self) -> Duration {
        self.retry_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_bound() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.delay(), Duration::ZERO);
        for most in [100, 200, 400, 800, 1600, 2000, 2000, 2000] {
            backoff.fail();
            let delay = backoff.delay().as_millis() as u64;
            assert!((most / 2 - 10..=most).contains(&delay), "{delay} of {most}");
        }
        backoff.succeed();
        assert_eq!(backoff.delay(), Duration::ZERO);
    }
}
