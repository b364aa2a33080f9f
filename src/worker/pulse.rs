//! A sign of life of every worker: one that is stuck in a turn gives none.

use super::mailbox::{Command, PostOffice};
use super::report::Report;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// A request to the workers, until all have answered.
pub struct Pulse {
    reports: Receiver<Report>,
    /// The workers that have not answered.
    silent: Vec<usize>,
}

impl Pulse {
    /// Wakes each worker; it answers between two turns.
    pub fn ask(office: &PostOffice) -> Pulse {
        let (reply, reports) = mpsc::channel();
        let silent: Vec<usize> = (0..office.cores()).collect();
        for &worker in &silent {
            office.command(worker, Command::Report(reply.clone()));
        }
        Pulse { reports, silent }
    }

    /// True if all have answered by now. It does not wait.
    pub fn is_whole(&mut self) -> bool {
        while let Ok(report) = self.reports.try_recv() {
            self.hear(&report);
        }
        self.silent.is_empty()
    }

    /// Waits until all have answered, for `patience` at most; returns those that have not.
    pub fn wait(mut self, patience: Duration) -> Vec<usize> {
        let deadline = Instant::now() + patience;
        while !self.silent.is_empty() {
            match self.reports.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(report) => self.hear(&report),
                Err(_) => break,
            }
        }
        self.silent
    }

    fn hear(&mut self, report: &Report) {
        self.silent.retain(|worker| *worker != report.core);
    }
}
