//! How the registrations with carriers stand: written by the core that registers, read by whoever asks.

use crate::base::Instant;
use crate::stack::trunk::Trunk;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How one trunk stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub registrar: String,
    pub user: String,
    pub state: State,
    /// Until when the carrier has granted its registration; in the past where it has not.
    pub until: Instant,
    /// When it is registered anew, or tried again.
    pub next: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The conf has it register nowhere.
    Unused,
    /// The first answer has not come yet.
    Trying,
    Registered,
    /// Why it has failed last; what was granted before may still hold.
    Failed(String),
}

/// All trunks by name; one table for all cores.
#[derive(Debug, Default)]
pub struct TrunkTable {
    list: Mutex<BTreeMap<String, Standing>>,
}

impl TrunkTable {
    /// Those of the conf, and no others.
    pub fn keep<'t>(&self, trunks: impl Iterator<Item = &'t Trunk>) {
        let mut list = self.list();
        let before = std::mem::take(&mut *list);
        for trunk in trunks {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (registrar, user) = (text(trunk.registrar.uri.text()), text(&trunk.user));
            let known = before.get(&trunk.name);
            let known = known.filter(|known| (&known.registrar, &known.user) == (&registrar, &user)).cloned();
            let state = if trunk.register { State::Trying } else { State::Unused };
            let standing = known.filter(|known| (known.state == State::Unused) != trunk.register).unwrap_or(Standing {
                registrar,
                user,
                state,
                until: Instant::default(),
                next: Instant::default(),
            });
            list.insert(trunk.name.clone(), standing);
        }
    }

    pub fn note(&self, name: &str, state: State, until: Instant, next: Instant) {
        if let Some(standing) = self.list().get_mut(name) {
            (standing.state, standing.until, standing.next) = (state, until, next);
        }
    }

    pub fn state(&self, name: &str) -> Option<State> {
        self.list().get(name).map(|standing| standing.state.clone())
    }

    /// All trunks in order.
    pub fn all(&self) -> Vec<(String, Standing)> {
        let list = self.list();
        list.iter().map(|(name, standing)| (name.clone(), standing.clone())).collect()
    }

    fn list(&self) -> MutexGuard<'_, BTreeMap<String, Standing>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
