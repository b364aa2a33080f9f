//! The Date of an answer (RFC 3261 §20.17): a phone without a clock of its own takes the time from it. It is written once a second.

use crate::base::Instant;
use crate::base::calendar::civil;
use std::io::Write;

/// As in `Date: Sat, 13 Nov 2010 23:29:00 GMT` and its line end.
const LENGTH: usize = 37;

const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The last year that has four digits ends so, in seconds since 1970.
const LAST: u64 = 253_402_300_799;

/// The date line of the current second.
pub struct Date {
    /// The time since 1970 at [`Instant`] zero, in milliseconds, as far as the machine's clock says; 0: unknown.
    wall_ms: u64,
    /// The second that the line is of; 0: of none.
    second: u64,
    line: [u8; LENGTH],
}

impl Default for Date {
    fn default() -> Date {
        Date { wall_ms: 0, second: 0, line: [0; LENGTH] }
    }
}

impl Date {
    pub fn set_clock(&mut self, wall_ms: u64) {
        self.wall_ms = wall_ms;
    }

    /// Returns the whole line; nothing if nobody has told the time.
    pub fn line(&mut self, now: Instant) -> &[u8] {
        if self.wall_ms == 0 {
            return b"";
        }
        let second = self.wall_ms.saturating_add(now.as_ms()) / 1000;
        let second = second.clamp(1, LAST);
        if self.second != second {
            self.second = second;
            self.write();
        }
        &self.line
    }

    fn write(&mut self) {
        let [year, month, day, hour, minute, second] = civil(self.second);
        let weekday = WEEKDAYS[(self.second / 86_400 % 7) as usize];
        let month = MONTHS[(month as usize).saturating_sub(1) % 12];
        let mut room = &mut self.line[..];
        // It fits: the year has four digits.
        let _ = write!(room, "Date: {weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(date: &mut Date, ms: u64) -> String {
        String::from_utf8(date.line(Instant::from_ms(ms)).to_vec()).unwrap()
    }

    #[test]
    fn a_second_has_its_line() {
        let mut date = Date::default();
        assert_eq!(line(&mut date, 5000), "", "nobody has told the time");
        // The examples of RFC 3261 §20.17, and of RFC 9110 §5.6.7.
        for (seconds, text) in [
            (1_289_690_940, "Sat, 13 Nov 2010 23:29:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (1_798_761_599, "Thu, 31 Dec 2026 23:59:59 GMT"),
            (1_798_761_600, "Fri, 01 Jan 2027 00:00:00 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (LAST, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            date.set_clock(seconds * 1000 - 4000);
            assert_eq!(line(&mut date, 4000), format!("Date: {text}\r\n"));
            assert_eq!(line(&mut date, 4999), format!("Date: {text}\r\n"));
        }
        date.set_clock(u64::MAX);
        assert_eq!(line(&mut date, 4000), "Date: Fri, 31 Dec 9999 23:59:59 GMT\r\n");
    }

    #[test]
    fn it_follows_a_clock_that_is_set() {
        let mut date = Date::default();
        date.set_clock(1_289_690_940_000);
        assert_eq!(line(&mut date, 0), "Date: Sat, 13 Nov 2010 23:29:00 GMT\r\n");
        assert_eq!(line(&mut date, 1000), "Date: Sat, 13 Nov 2010 23:29:01 GMT\r\n");
        date.set_clock(1_289_687_340_000);
        assert_eq!(line(&mut date, 1000), "Date: Sat, 13 Nov 2010 22:29:01 GMT\r\n");
    }
}
