//! What has passed, as a row of bars.

use super::view::{Moment, View};
use std::collections::VecDeque;

/// What is kept of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    Attempts,
    Answers,
    Registers,
}

impl Kept {
    const ALL: [Kept; 3] = [Kept::Attempts, Kept::Answers, Kept::Registers];

    /// How many there have been a second.
    pub(super) fn rate(self, view: &View<'_>) -> Option<f64> {
        match self {
            Kept::Attempts => view.rate("strowger_requests_total", &[("method", "INVITE")]),
            Kept::Answers => view.rate("strowger_call_setup_seconds_count", &[]),
            Kept::Registers => view.rate("strowger_requests_total", &[("method", "REGISTER")]),
        }
    }
}

/// The rates of the last intervals.
#[derive(Clone, Debug, Default)]
pub struct History([VecDeque<f64>; Kept::ALL.len()]);

/// As many intervals as fit behind the numbers of a wide screen.
const INTERVALS: usize = 200;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

impl History {
    /// Takes in the interval between two moments.
    pub fn take(&mut self, before: &Moment, now: &Moment) {
        let view = View::new(Some(before), now);
        for (kept, rates) in Kept::ALL.iter().zip(&mut self.0) {
            // Another run of the server has no rates yet, and what was before is not its own.
            let Some(rate) = kept.rate(&view) else {
                rates.clear();
                continue;
            };
            rates.push_back(rate);
            if rates.len() > INTERVALS {
                rates.pop_front();
            }
        }
    }

    /// Returns the last intervals as bars, the newest at the end; the highest bar is the highest of them.
    pub(super) fn bars(&self, kept: Kept, width: usize) -> String {
        let rates = &self.0[kept as usize];
        let shown = rates.iter().skip(rates.len().saturating_sub(width));
        let most = shown.clone().fold(0.0, |most: f64, rate| most.max(*rate));
        let bar = |rate: &f64| {
            if *rate <= 0.0 || most <= 0.0 {
                return ' ';
            }
            let step = (rate / most * BARS.len() as f64).ceil() as usize;
            BARS[step.clamp(1, BARS.len()) - 1]
        };
        shown.map(bar).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_relative_to_the_highest_that_is_shown() {
        let mut history = History::default();
        history.0[0].extend([80.0, 0.0, 1.0, 2.0, 4.0, 8.0]);
        assert_eq!(history.bars(Kept::Attempts, 5), " ▁▂▄█");
        assert_eq!(history.bars(Kept::Attempts, 6), "█ ▁▁▁▁");
        assert_eq!(history.bars(Kept::Attempts, 0), "");
        assert_eq!(history.bars(Kept::Answers, 5), "");
    }

    #[test]
    fn only_so_much_is_kept() {
        let mut history = History::default();
        let mut before = Moment::default();
        for second in 1..=300 {
            let mut now = Moment { at: std::time::Duration::from_secs(second), ..Moment::default() };
            now.values.insert("strowger_requests_total{method=\"INVITE\"}".to_owned(), second as f64);
            history.take(&before, &now);
            before = now;
        }
        assert_eq!(history.0[0].len(), INTERVALS);
        assert_eq!(history.bars(Kept::Attempts, 500).chars().count(), INTERVALS);
    }
}
