//! What all representations of a trace have in common.

use std::io;
use strowger::control::TraceEvent;
use strowger::trace::visible::is_deceptive;

/// A way to show events.
pub trait Show {
    /// Shows an event, which is visible when this returns.
    fn show(&mut self, event: &TraceEvent) -> io::Result<()>;
}

/// Returns peers' text without terminal control characters.
pub fn visible(text: &str) -> String {
    let visible = |c: char| match c {
        '\t' => ' ',
        c if is_deceptive(c) => '\u{fffd}',
        c => c,
    };
    text.chars().map(visible).collect()
}

/// Returns the signed seconds since another event, to the millisecond.
pub fn delta(before_us: Option<u64>, now_us: u64) -> String {
    let ms = before_us.map_or(0, |before| (now_us as i64 - before as i64) / 1000);
    format!("{}{}.{:03}", if ms < 0 { '-' } else { '+' }, ms.abs() / 1000, ms.abs() % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_between() {
        assert_eq!(delta(None, 5), "+0.000");
        assert_eq!(delta(Some(1_000_000), 1_012_999), "+0.012");
        assert_eq!(delta(Some(1_000_000), 62_500_000), "+61.500");
        assert_eq!(delta(Some(1_012_000), 1_000_000), "-0.012", "another core's, or the clock was set");
    }

    #[test]
    fn nothing_speaks_to_the_terminal() {
        assert_eq!(
            visible("a\u{1b}[31m\tb\u{85}é\u{202e}\u{200b}\u{2028}\u{feff}\u{7f}."),
            "a\u{fffd}[31m b\u{fffd}é\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}."
        );
    }
}
