//! When the next call leaves: on an open-loop schedule, constant or Poisson, that nothing received can move; or in a closed window.

/// The load of one phase of a run.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Load {
    /// Calls a second, whatever comes back.
    Open {
        rate: f64,
        poisson: bool,
    },
    /// This many outstanding at any time: as fast as the server answers.
    Window(u32),
    Rest,
}

pub struct Pace {
    load: Load,
    next_ns: f64,
    random: u64,
}

impl Pace {
    pub fn new(load: Load, start_ns: u64, seed: u64) -> Pace {
        Pace { load, next_ns: start_ns as f64, random: seed | 1 }
    }

    /// The time for which the next call was scheduled, if that has come.
    pub fn due(&mut self, now_ns: u64, outstanding: u32) -> Option<u64> {
        match self.load {
            Load::Rest => None,
            Load::Window(limit) => (outstanding < limit).then_some(now_ns),
            Load::Open { rate, poisson } => {
                if self.next_ns > now_ns as f64 {
                    return None;
                }
                let scheduled = self.next_ns;
                let mean = 1e9 / rate;
                self.next_ns += if poisson { self.exponential() * mean } else { mean };
                Some(scheduled as u64)
            }
        }
    }

    /// When the next call is [`due`](Pace::due); nothing where that depends on answers.
    pub fn next_ns(&self) -> Option<u64> {
        matches!(self.load, Load::Open { .. }).then_some(self.next_ns.ceil() as u64)
    }

    fn exponential(&mut self) -> f64 {
        // xorshift64*: a schedule needs no better.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let bits = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        let uniform = (bits as f64 + 0.5) / (1u64 << 53) as f64;
        -uniform.ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_keeps_its_times_when_the_clock_is_late() {
        let load = Load::Open { rate: 1_000.0, poisson: false };
        let mut pace = Pace::new(load, 5_000_000, 1);
        assert_eq!(pace.due(4_999_999, 0), None);
        // Three are due at once, each with its own scheduled time.
        assert_eq!(pace.due(7_500_000, 0), Some(5_000_000));
        assert_eq!(pace.due(7_500_000, 99), Some(6_000_000));
        assert_eq!(pace.due(7_500_000, 99), Some(7_000_000));
        assert_eq!(pace.due(7_500_000, 0), None);
    }

    #[test]
    fn what_is_not_due_before_a_time_is_not_announced_before_it() {
        let load = Load::Open { rate: 17_815.0, poisson: false };
        let mut pace = Pace::new(load, 1, 1);
        for _ in 0..100_000 {
            let next_ns = pace.next_ns().expect("a schedule");
            assert_eq!(pace.due(next_ns - 1, 0), None, "{next_ns}");
            assert!(pace.due(next_ns, 0).is_some(), "{next_ns}");
        }
    }

    #[test]
    fn poisson_has_the_mean_and_the_spread_of_an_exponential() {
        let load = Load::Open { rate: 1_000.0, poisson: true };
        let mut pace = Pace::new(load, 0, 42);
        let times: Vec<f64> = (0..100_000).map(|_| pace.due(u64::MAX, 0).expect("due") as f64).collect();
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean / 1e6 - 1.0).abs() < 0.02, "mean {mean}");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.03);
    }

    #[test]
    fn a_window_fills_and_no_more() {
        let mut pace = Pace::new(Load::Window(2), 0, 1);
        assert_eq!(pace.due(9, 1), Some(9));
        assert_eq!(pace.due(9, 2), None);
        assert_eq!(pace.next_ns(), None);
    }
}
