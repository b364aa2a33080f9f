//! The clock that the times on disk are based on, and how they are corrected if it was wrong.
//!
//! Memory counts time from the server's start, the disk from 1970. So setting the clock, rightly or wrongly, changes the meaning of
//! the times on disk, and of nothing in memory. Therefore the bindings are stored with what the clock showed when they were last
//! written, and how long the machine had been up then, which setting the clock does not change.

use super::error::StoreError;
use rusqlite::{Connection, OptionalExtension, params};

/// A clock that moves by more than this, in milliseconds, was set. Daily corrections are smaller.
pub const STEP_MS: u64 = 2_000;

/// No correct clock has shown this program an earlier time: the beginning of 2026, in milliseconds since 1970.
const FIRST_MS: u64 = 1_767_225_600_000;

/// A server that was down for longer has no binding that is still valid. It is more likely that the clock is wrong.
const LONGEST_MS: u64 = 5 * 365 * 86_400_000;

/// What the clocks showed at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Milliseconds since 1970.
    pub wall_ms: u64,
    /// The name that the kernel gave to this boot of the machine; empty if unknown.
    pub boot: String,
    /// How long the machine has been up, including sleep, in milliseconds.
    pub up_ms: u64,
}

/// How far the clock was set between two moments, in milliseconds, and how that is known. `None`: it was not, as far as is known.
pub fn step(before: &Seen, now: &Seen) -> Option<(i64, &'static str)> {
    let gone_ms = difference(now.wall_ms, before.wall_ms);
    if !before.boot.is_empty() && before.boot == now.boot && now.up_ms >= before.up_ms {
        let step_ms = gone_ms.saturating_sub(difference(now.up_ms, before.up_ms));
        let was_set = step_ms.unsigned_abs() > STEP_MS;
        return was_set.then_some((step_ms, "the machine's time since its start tells"));
    }
    let is_behind = gone_ms < 0 && gone_ms.unsigned_abs() > STEP_MS;
    let was_wrong = before.wall_ms < FIRST_MS && now.wall_ms >= FIRST_MS;
    let is_far_ahead = gone_ms > 0 && gone_ms.unsigned_abs() > LONGEST_MS;
    match (is_behind, was_wrong, is_far_ahead) {
        (true, ..) => Some((gone_ms, "time does not go back")),
        (_, true, _) => Some((gone_ms, "it showed a time before this program was made")),
        (.., true) => Some((gone_ms, "no server is down for that long")),
        _ => None,
    }
}

fn difference(later: u64, earlier: u64) -> i64 {
    let ms = i128::from(later) - i128::from(earlier);
    i64::try_from(ms).unwrap_or(if ms < 0 { i64::MIN } else { i64::MAX })
}

/// Formats how far a clock was set, for people: `+56 years`, `-3 hours`.
pub fn spoken(step_ms: i64) -> String {
    let seconds = step_ms.unsigned_abs() / 1000;
    let units = [(365 * 86_400, "years"), (86_400, "days"), (3_600, "hours"), (60, "minutes")];
    let fits = |unit: &&(u64, &str)| seconds >= 2 * unit.0;
    let (count, unit) = match units.iter().find(fits) {
        Some((length, unit)) => (seconds / length, *unit),
        None => (seconds, "seconds"),
    };
    let sign = if step_ms < 0 { '-' } else { '+' };
    format!("{sign}{count} {unit}")
}

// ---- on disk -----------------------------------------------------------------------------------------------------------

/// The table's name; it has one row.
pub const TABLE: &str = "strowger_binding_clock";

pub const CREATE: &str = "
CREATE TABLE strowger_binding_clock (
    id INTEGER PRIMARY KEY NOT NULL CHECK (id = 0),
    wall INTEGER NOT NULL,
    boot TEXT NOT NULL,
    up INTEGER NOT NULL
);
";

/// Reads what is stored; `None` if nothing was written yet.
pub fn read(connection: &Connection) -> Result<Option<Seen>, StoreError> {
    let row = connection
        .query_row("SELECT wall, boot, up FROM strowger_binding_clock WHERE id = 0", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get::<_, i64>(2)?))
        })
        .optional()?;
    Ok(row.map(|(wall, boot, up)| Seen { wall_ms: u64::try_from(wall).unwrap_or(0), boot, up_ms: u64::try_from(up).unwrap_or(0) }))
}

pub fn write(connection: &Connection, seen: &Seen) -> Result<(), StoreError> {
    let number = |ms| i64::try_from(ms).unwrap_or(i64::MAX);
    let mut replace = connection.prepare_cached("INSERT OR REPLACE INTO strowger_binding_clock VALUES (0, ?, ?, ?)")?;
    replace.execute(params![number(seen.wall_ms), seen.boot, number(seen.up_ms)])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = FIRST_MS + 300 * 86_400_000;
    const HOUR_MS: u64 = 3_600_000;

    fn seen(wall_ms: u64, boot: &str, up_ms: u64) -> Seen {
        Seen { wall_ms, boot: boot.to_owned(), up_ms }
    }

    fn stepped(before: Seen, now: Seen) -> Option<i64> {
        step(&before, &now).map(|(ms, _)| ms)
    }

    #[test]
    fn on_the_same_boot_the_step_is_known_to_the_second() {
        let before = |wall_ms| seen(wall_ms, "b", 5_000);
        let now = |wall_ms, up_ms| seen(wall_ms, "b", up_ms);
        // A pause of an hour.
        let later = now(NOW_MS + HOUR_MS, 5_000 + HOUR_MS);
        assert_eq!(stepped(before(NOW_MS), later), None);
        // The clock was an hour slow, and was corrected during a pause of a minute.
        let right = now(NOW_MS + HOUR_MS + 60_000, 65_000);
        assert_eq!(stepped(before(NOW_MS), right), Some(HOUR_MS as i64));
        let back = now(NOW_MS - HOUR_MS, 5_000);
        assert_eq!(stepped(before(NOW_MS), back), Some(-(HOUR_MS as i64)));
        let from_1970 = stepped(before(9_000), now(NOW_MS, 6_000));
        assert_eq!(from_1970, Some((NOW_MS - 10_000) as i64));
        // A daily correction is no step.
        assert_eq!(stepped(before(NOW_MS), now(NOW_MS + 3_000, 6_000)), None);
        assert_eq!(stepped(before(NOW_MS), now(NOW_MS + 3_001, 6_000)), Some(2_001));
    }

    #[test]
    fn on_another_boot_only_the_impossible_is_a_step() {
        for (before_ms, now_ms, is_step) in [
            (NOW_MS, NOW_MS + 90 * 24 * HOUR_MS, false),
            (NOW_MS, NOW_MS - 1_000, false),
            (NOW_MS, NOW_MS - 3_000, true),
            (NOW_MS, 20_000, true),
            (9_000, NOW_MS, true),
            (9_000, 20_000, false),
            (NOW_MS, NOW_MS + LONGEST_MS, false),
            (NOW_MS, NOW_MS + LONGEST_MS + 1, true),
            (u64::MAX, NOW_MS, true),
        ] {
            for (before, now) in [("a", "b"), ("", ""), ("a", "")] {
                let found = stepped(seen(before_ms, before, 1), seen(now_ms, now, 2));
                assert_eq!(found.is_some(), is_step, "{before_ms} {now_ms}");
                if let Some(ms) = found {
                    assert_eq!(ms > 0, now_ms > before_ms);
                }
            }
        }
        // The same name with a shorter uptime is not the same boot.
        assert_eq!(stepped(seen(NOW_MS, "b", 9), seen(NOW_MS + HOUR_MS, "b", 8)), None);
    }

    #[test]
    fn a_step_is_spoken_of_in_its_own_unit() {
        for (ms, words) in [
            (2_001, "+2 seconds"),
            (-90_000, "-90 seconds"),
            (120_000, "+2 minutes"),
            (-3 * HOUR_MS as i64, "-3 hours"),
            (49 * HOUR_MS as i64, "+2 days"),
            (NOW_MS as i64, "+56 years"),
            (i64::MIN, "-292471208 years"),
        ] {
            assert_eq!(spoken(ms), words);
        }
    }

    #[test]
    fn what_was_seen_stands_there_once() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(CREATE).unwrap();
        assert_eq!(read(&connection), Ok(None));
        for last in [seen(NOW_MS, "b", 7), seen(NOW_MS + 1, "", 0)] {
            write(&connection, &last).unwrap();
            assert_eq!(read(&connection), Ok(Some(last)));
        }
    }
}
