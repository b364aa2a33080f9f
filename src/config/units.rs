//! Times (`300us`, `500ms`, `5s`, `2m`, `1h`) and sizes (`64KiB`) as the conf writes them.

use std::time::Duration;

const TIMES: [(&str, u64); 5] = [("us", 1), ("ms", 1000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000)];
const SIZES: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// A time of whole microseconds.
pub fn parse_time(text: &str) -> Option<Duration> {
    parse(text, &TIMES).map(Duration::from_micros)
}

/// A size in bytes.
pub fn parse_size(text: &str) -> Option<usize> {
    parse(text, &SIZES).and_then(|bytes| usize::try_from(bytes).ok())
}

/// The time as the conf writes it, in the largest unit that is exact.
pub fn time(duration: Duration) -> String {
    let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    write(us, &TIMES, "0s")
}

/// The size as the conf writes it, in the largest unit that is exact.
pub fn size(bytes: usize) -> String {
    write(bytes as u64, &SIZES, "0B")
}

/// Digits and then a unit, with nothing between or around.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at(end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    digits.parse::<u64>().ok()?.checked_mul(*factor)
}

fn write(count: u64, units: &[(&str, u64)], zero: &str) -> String {
    if count == 0 {
        return zero.to_owned();
    }
    let whole = units.iter().rev().find(|(_, factor)| count.is_multiple_of(*factor));
    whole.map_or_else(|| count.to_string(), |(name, factor)| format!("{}{name}", count / factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written_alike() {
        for (text, ms) in [("500ms", 500), ("5s", 5000), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(parse_time(text), Some(Duration::from_millis(ms)));
            assert_eq!(time(Duration::from_millis(ms)), text);
        }
        assert_eq!(parse_time("0s"), Some(Duration::ZERO));
        assert_eq!(time(Duration::ZERO), "0s");
        assert_eq!(time(Duration::from_millis(61_001)), "61001ms");
    }

    #[test]
    fn sizes_are_read_and_written_alike() {
        for (text, bytes) in [("64KiB", 65_536), ("4MiB", 4 << 20), ("1GiB", 1 << 30), ("77B", 77)] {
            assert_eq!(parse_size(text), Some(bytes));
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn what_is_neither_is_refused() {
        for text in ["", "5", "s", "5 s", " 5s", "-5s", "5.5s", "5S", "5sec", "99999999999999999999s", "9999999999999999h"] {
            assert_eq!(parse_time(text), None, "{text:?}");
        }
        for text in ["", "64", "64K", "64kb", "64 KiB", "KiB", "18446744073709551615GiB"] {
            assert_eq!(parse_size(text), None, "{text:?}");
        }
    }
}
