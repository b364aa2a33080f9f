//! A sign of life of every worker: one that is stuck in a turn gives none.

use super::mailbox::{Command, PostOffice};
use super::report::Report;
use std::sync::mpsc::{self, Receiver};

/// A request to the workers, until all have answered.
pub struct Pulse {
    reports: Receiver<Report>,
    missing: usize,
}

impl Pulse {
    /// Wakes each worker; it answers between two turns.
    pub fn ask(office: &PostOffice) -> Pulse {
        let (reply, reports) = mpsc::channel();
        let missing = office.cores();
        for worker in 0..missing {
            office.command(worker, Command::Report(reply.clone()));
        }
        Pulse { reports, missing }
    }

    /// True if all have answered by now. It does not wait.
    pub fn is_whole(&mut self) -> bool {
        while self.missing > 0 && self.reports.try_recv().is_ok() {
            self.missing -= 1;
        }
        self.missing == 0
    }
}
