//! A limit on what strangers can make us log.

use super::Instant;

/// Lines about single peers that one core may log in a second: a peer that makes mistakes all the time must not fill the disk.
/// Omitted lines are counted and reported.
const LINES: u32 = 50;

/// The same for a limit that is hit: each line would repeat the last.
const LINES_ABOUT_A_LIMIT: u32 = 1;

/// What may still be logged in this second.
#[derive(Debug)]
pub struct LogBudget {
    /// What the lines are about, for the line that counts omitted ones.
    about: &'static str,
    lines: u32,
    /// When the second began: not by the clock, at whose boundary two lines might follow each other, but at the first renewal after
    /// the first line.
    since: Option<Instant>,
    said: u32,
    left_out: u32,
}

impl LogBudget {
    pub const fn new(about: &'static str) -> LogBudget {
        LogBudget::with(about, LINES)
    }

    /// For lines that report that a limit was hit.
    pub const fn of_limit(about: &'static str) -> LogBudget {
        LogBudget::with(about, LINES_ABOUT_A_LIMIT)
    }

    const fn with(about: &'static str, lines: u32) -> LogBudget {
        LogBudget { about, lines, since: None, said: 0, left_out: 0 }
    }

    /// Called for each line before it is written.
    pub fn may_say(&mut self) -> bool {
        let may = self.said < self.lines;
        match may {
            true => self.said += 1,
            false => self.left_out += 1,
        }
        may
    }

    /// To be called periodically.
    pub fn renew(&mut self, now: Instant) {
        if self.said == 0 {
            return;
        }
        let since = *self.since.get_or_insert(now);
        if now.ms_since(since) < 1000 {
            return;
        }
        if self.left_out > 0 {
            log::warn!("{} more lines about {} were left out", self.left_out, self.about);
        }
        *self = LogBudget::with(self.about, self.lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_a_second_and_the_rest_counted() {
        let mut log = LogBudget::new("tests");
        let now = Instant::from_ms(5000);
        assert_eq!((0..200).filter(|_| log.may_say()).count(), LINES as usize);
        log.renew(now);
        log.renew(now.after_ms(999));
        assert!(!log.may_say());
        assert_eq!(log.left_out, 200 - LINES + 1);
        log.renew(now.after_ms(1000));
        assert!(log.may_say());
        assert_eq!(log.left_out, 0);
        let mut limit = LogBudget::of_limit("a limit");
        limit.renew(now);
        assert_eq!((0..200).filter(|_| limit.may_say()).count(), 1);
        // A first line late in a second does not allow another right at the start of the next.
        let mut limit = LogBudget::of_limit("a limit");
        limit.renew(now);
        limit.renew(now.after_ms(990));
        assert!(limit.may_say());
        limit.renew(now.after_ms(990));
        limit.renew(now.after_ms(1000));
        assert!(!limit.may_say());
        limit.renew(now.after_ms(1990));
        assert!(limit.may_say());
    }
}
