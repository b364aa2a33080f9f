//! A bound on what strangers make us log.

use super::Instant;

/// Lines about single peers that one core may log in a second: who makes mistakes all the time must not fill the disk. What is
/// left out is counted, and said.
const LINES: u32 = 50;

/// What may be said in this second.
#[derive(Debug)]
pub struct LogBudget {
    /// What the lines are about, for the line that counts those left out.
    about: &'static str,
    since: Instant,
    said: u32,
    left_out: u32,
}

impl LogBudget {
    pub const fn new(about: &'static str) -> LogBudget {
        LogBudget {
            about,
            since: Instant::from_ms(0),
            said: 0,
            left_out: 0,
        }
    }

    /// Asked for each line, before it is written.
    pub fn may_say(&mut self) -> bool {
        let may = self.said < LINES;
        match may {
            true => self.said += 1,
            false => self.left_out += 1,
        }
        may
    }

    /// Told the time now and then.
    pub fn renew(&mut self, now: Instant) {
        if now.ms_since(self.since) < 1000 {
            return;
        }
        if self.left_out > 0 {
            log::warn!(
                "{} more lines about {} were left out",
                self.left_out,
                self.about
            );
        }
        *self = LogBudget {
            since: now,
            ..LogBudget::new(self.about)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_a_second_and_the_rest_counted() {
        let mut log = LogBudget::new("tests");
        let now = Instant::from_ms(5000);
        log.renew(now);
        assert_eq!((0..200).filter(|_| log.may_say()).count(), LINES as usize);
        log.renew(now.after_ms(999));
        assert!(!log.may_say());
        assert_eq!(log.left_out, 200 - LINES + 1);
        log.renew(now.after_ms(1000));
        assert!(log.may_say());
        assert_eq!(log.left_out, 0);
    }
}
