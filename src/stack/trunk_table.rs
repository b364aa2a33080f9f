//! State of the registrations with carriers: written by the core that registers, and read on request.

use crate::base::Instant;
use crate::stack::auth::answering::NonceCounts;
use crate::stack::trunk::Trunk;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The state of one trunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub registrar: String,
    pub user: String,
    pub state: State,
    /// When the carrier's grant ends; in the past if there is none.
    pub until: Instant,
    /// When it is refreshed or retried.
    pub next: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The conf does not have it register.
    Unused,
    /// The first answer has not arrived yet.
    Trying,
    Registered,
    /// Why it failed last; an earlier grant may still hold.
    Failed(String),
}

/// All trunks by name; shared by all cores.
#[derive(Debug, Default)]
pub struct TrunkTable {
    list: Mutex<BTreeMap<String, Standing>>,
    /// How often the carriers' nonces were used.
    pub counts: Arc<NonceCounts>,
}

impl TrunkTable {
    /// Keeps those of the conf and no others.
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

    /// Returns all trunks in order.
    pub fn all(&self) -> Vec<(String, Standing)> {
        let list = self.list();
        list.iter().map(|(name, standing)| (name.clone(), standing.clone())).collect()
    }

    /// Returns whether each registration holds, in order: of those that the conf wants, for the others would seem to have failed.
    pub fn registered(&self, now: Instant) -> Vec<(String, bool)> {
        let list = self.list();
        let wanted = list.iter().filter(|(_, standing)| standing.state != State::Unused);
        wanted.map(|(name, standing)| (name.clone(), standing.until > now)).collect()
    }

    fn list(&self) -> MutexGuard<'_, BTreeMap<String, Standing>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trunk_that_is_not_to_register_does_not_count_as_one_that_failed() {
        let table = TrunkTable::default();
        for (name, state) in [("by-address", State::Unused), ("failed", State::Failed("no".to_owned())), ("new", State::Trying)] {
            let (registrar, user) = (String::new(), String::new());
            let (until, next) = (Instant::default(), Instant::default());
            table.list().insert(name.to_owned(), Standing { registrar, user, state, until, next });
        }
        let registered = table.registered(Instant::default());
        assert_eq!(registered, [("failed".to_owned(), false), ("new".to_owned(), false)]);
    }
}
