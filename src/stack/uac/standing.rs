//! Whether requests of our own are made at all: by the conf, and by what becomes of the server.

use super::{Uac, has_duties};
use crate::stack::settings::Settings;

impl Uac {
    /// Notes that other settings are in force.
    pub fn configure(&mut self, is_first: bool, settings: &Settings) {
        self.is_outdated |= is_first && !self.is_resting && (has_duties(settings) || !self.duties.is_empty());
    }

    /// Leaves everything to a successor, which requests it under its own name, or begins anew without one.
    pub fn rest(&mut self, is_resting: bool, is_first: bool, settings: &Settings) {
        if std::mem::replace(&mut self.is_resting, is_resting) == is_resting {
            return;
        }
        match is_resting {
            true => {
                self.duties.clear();
                self.is_outdated = false;
            }
            false => self.configure(is_first, settings),
        }
    }

    pub fn drain(&mut self) {
        self.is_outdated |= !self.duties.is_empty();
        self.is_leaving = true;
    }

    /// Returns the registrations that are being removed: the server waits for them.
    pub fn pending(&self) -> usize {
        self.duties.iter().filter(|duty| duty.is_leaving()).count()
    }
}
