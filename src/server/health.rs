//! How the server stands, as `/health`, `/ready` and `strowger health` say it.
//!
//! It is alive if every worker turns. Disk, Redis and next hops are no part of that: a new start would not mend them. It is ready if
//! it does for new work what its conf promises.

use super::running::RunningServer;
use std::time::Duration;
use strowger::control::HealthReport;

/// How long a worker may take to answer. A turn takes milliseconds at most, and a probe's own patience is often a few seconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of the server at one moment.
#[derive(Default)]
struct Signs {
    /// The workers that have not answered.
    silent: Vec<usize>,
    /// A worker has ended without being told to.
    is_broken: bool,
    is_draining: bool,
    /// Registrations are answered 503, because they could not be stored as `durability = "acknowledged"` promises.
    refuses_registrations: bool,
    is_disk_failing: bool,
    /// How the table stands that is shared with other servers, if it is.
    shared: Option<Sharing>,
    users_unreadable: bool,
}

struct Sharing {
    is_up: bool,
    /// It has been read since the start.
    was_read: bool,
}

impl RunningServer {
    pub fn health_report(&self) -> HealthReport {
        // The crew's lock is not held while we wait.
        let (pulse, is_whole) = {
            let crew = self.crew();
            (crew.pulse(), crew.is_whole())
        };
        let sharing = |numbers: strowger::share::Numbers| Sharing { is_up: numbers.is_up, was_read: numbers.readings > 0 };
        report(&Signs {
            silent: pulse.wait(PATIENCE),
            is_broken: !is_whole,
            is_draining: self.drain.is_draining(),
            refuses_registrations: self.location.refuses_changes(),
            is_disk_failing: self.location.disk_progress().is_failing,
            shared: self.sharing.numbers().map(sharing),
            users_unreadable: self.user_watcher().is_some_and(|watcher| watcher.is_unreadable()),
        })
    }
}

fn report(signs: &Signs) -> HealthReport {
    let mut report = HealthReport::default();
    let (dead, unready, notes) = (&mut report.dead, &mut report.unready, &mut report.notes);
    if signs.is_broken {
        dead.push("a worker has ended".to_owned());
    }
    let silent = |worker: &usize| format!("worker {worker} has not answered for {} s", PATIENCE.as_secs());
    dead.extend(signs.silent.iter().map(silent));
    if signs.is_draining {
        unready.push("draining".to_owned());
    }
    if signs.refuses_registrations {
        unready.push("registrations are refused: they cannot be stored, and [registrar] durability is \"acknowledged\"".to_owned());
    }
    match &signs.shared {
        Some(Sharing { is_up: false, was_read: false }) => {
            unready.push("the shared location table has not been read since the start".to_owned());
        }
        Some(Sharing { is_up: false, was_read: true }) => notes.push("the shared location table is away".to_owned()),
        _ => {}
    }
    if signs.is_disk_failing {
        notes.push("bindings are not stored on disk".to_owned());
    }
    if signs.users_unreadable {
        notes.push("the users cannot be read; those read before are in force".to_owned());
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is dead, unready and noted.
    fn lines(signs: &Signs) -> [usize; 3] {
        let report = report(signs);
        [report.dead, report.unready, report.notes].map(|lines| lines.len())
    }

    #[test]
    fn only_workers_decide_on_life_and_only_broken_promises_on_readiness() {
        let shared = |is_up, was_read| Some(Sharing { is_up, was_read });
        for (signs, expected) in [
            (Signs::default(), [0, 0, 0]),
            (Signs { silent: vec![1, 3], ..Signs::default() }, [2, 0, 0]),
            (Signs { is_broken: true, ..Signs::default() }, [1, 0, 0]),
            (Signs { is_draining: true, ..Signs::default() }, [0, 1, 0]),
            (Signs { is_disk_failing: true, ..Signs::default() }, [0, 0, 1]),
            (Signs { is_disk_failing: true, refuses_registrations: true, ..Signs::default() }, [0, 1, 1]),
            (Signs { shared: shared(true, true), ..Signs::default() }, [0, 0, 0]),
            (Signs { shared: shared(false, true), ..Signs::default() }, [0, 0, 1]),
            (Signs { shared: shared(false, false), ..Signs::default() }, [0, 1, 0]),
            (Signs { users_unreadable: true, ..Signs::default() }, [0, 0, 1]),
        ] {
            assert_eq!(lines(&signs), expected, "{:?}", report(&signs));
        }
    }
}
