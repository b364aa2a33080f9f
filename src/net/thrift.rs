//! A bound on what single connections make us log.

use crate::base::Instant;

/// Lines about single connections that one core may log in a second: who opens and breaks connections all the time must not
/// fill the disk. What is left out is counted, and said.
const LINES: u32 = 50;

/// What may be said in this second.
#[derive(Default)]
pub struct LogBudget {
    since: Instant,
    said: u32,
    left_out: u32,
}

impl LogBudget {
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
                "{} more lines about single connections were left out",
                self.left_out
            );
        }
        *self = LogBudget {
            since: now,
            ..LogBudget::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_a_second_and_the_rest_counted() {
        let mut log = LogBudget::default();
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
