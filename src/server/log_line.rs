//! A line of the log as it is written: when, how grave, from where, what. It stays one line whatever peers have sent.

use log::Level;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// Appends a line with its line break.
pub fn line(level: Level, target: &str, text: fmt::Arguments<'_>, out: &mut Vec<u8>) {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let [year, month, day, hour, minute, second] = civil(since_1970.map_or(0, |time| time.as_secs()));
    // Writing into memory does not fail.
    let _ = write!(
        out,
        "[{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z {level:<5} {target}] "
    );
    let _ = Visible(out).write_fmt(text);
    out.push(b'\n');
}

/// What peers sent may stand in a line: a control character in it must not begin another one, nor speak to a terminal.
struct Visible<'o>(&'o mut Vec<u8>);

impl fmt::Write for Visible<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(char::is_control) {
            let (visible, after) = rest.split_at(at);
            let mut chars = after.chars();
            self.0.extend_from_slice(visible.as_bytes());
            if let Some(control) = chars.next() {
                let _ = write!(self.0, "{}", control.escape_default());
            }
            rest = chars.as_str();
        }
        self.0.extend_from_slice(rest.as_bytes());
        Ok(())
    }
}

/// Year, month, day, hour, minute and second, UTC, of a time in seconds since 1970.
fn civil(seconds: u64) -> [u64; 6] {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // In eras of 400 years that begin with a March, so that a leap day is the last of its year.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    [year, month, day, second / 3600, second / 60 % 60, second % 60]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line() {
        let said = |text: fmt::Arguments<'_>| {
            let mut out = Vec::new();
            line(Level::Warn, "here", text, &mut out);
            let line = String::from_utf8(out).unwrap();
            let (time, rest) = line.split_once(' ').unwrap();
            assert!(time.starts_with("[20") && time.ends_with('Z'), "{time}");
            rest.to_owned()
        };
        assert_eq!(said(format_args!("quiet")), "WARN  here] quiet\n");
        let user = "a\r\n[forged]\u{1b}[31mé\u{85}";
        assert_eq!(
            said(format_args!("user {user}: {}", 7)),
            "WARN  here] user a\\r\\n[forged]\\u{1b}[31mé\\u{85}: 7\n"
        );
    }

    #[test]
    fn a_time_has_its_date() {
        for (seconds, date) in [
            (0, [1970, 1, 1, 0, 0, 0]),
            (951_782_399, [2000, 2, 28, 23, 59, 59]),
            (951_782_400, [2000, 2, 29, 0, 0, 0]),
            (951_868_800, [2000, 3, 1, 0, 0, 0]),
            (1_735_689_599, [2024, 12, 31, 23, 59, 59]),
            (1_782_864_000, [2026, 7, 1, 0, 0, 0]),
            (4_107_542_400, [2100, 3, 1, 0, 0, 0]),
        ] {
            assert_eq!(civil(seconds), date, "{seconds}");
            let asked = std::process::Command::new("date")
                .args(["-u", "-d", &format!("@{seconds}"), "+%Y %-m %-d %-H %-M %-S"])
                .output()
                .expect("date");
            let answer = String::from_utf8_lossy(&asked.stdout).into_owned();
            let answer: Vec<u64> = answer.split_whitespace().map(|n| n.parse().unwrap()).collect();
            assert_eq!(civil(seconds)[..], answer[..], "{seconds}");
        }
    }
}
