//! The thread that asks the sentinels, again and again, which server is the primary: the other two leave one that is so no more, even if
//! it still answers. No thread that speaks to Redis ever waits for a sentinel but at its first connection.

use super::room::Room;
use super::session::named_by;
use super::trouble::Trouble;
use super::wire::Wire;
use crate::settings::StoreKind;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How often they are asked.
const INTERVAL: Duration = Duration::from_secs(1);

/// One that could not be asked is left alone for so many times what the attempt has taken: the others wait meanwhile.
const RESTS: u32 = 4;

/// How long one step of waiting takes.
const NAP: Duration = Duration::from_millis(50);

#[derive(Default)]
struct Sentinel {
    wire: Option<Wire>,
    /// Not to be asked before.
    until: Option<Instant>,
}

/// Asks until the server stops; returns at once if there are no sentinels.
pub fn watch(room: &Arc<Room>) {
    let StoreKind::Sentinels(service) = &room.settings.access.store.kind else {
        return;
    };
    let hosts = &room.settings.access.store.hosts;
    let mut sentinels: Vec<Sentinel> = hosts.iter().map(|_| Sentinel::default()).collect();
    while !room.is_stopping() {
        let begun = Instant::now();
        let mut named = Vec::new();
        for (sentinel, (host, port)) in sentinels.iter_mut().zip(hosts) {
            if room.is_stopping() {
                return;
            }
            if sentinel.until.is_none_or(|until| until <= begun) {
                named.extend(sentinel.ask(room, host, *port, service));
            }
        }
        if let Some(server) = most_named(&named, room.named().as_ref()) {
            room.set_named(server.clone());
        }
        while begun.elapsed() < INTERVAL && !room.is_stopping() {
            thread::sleep(NAP);
        }
    }
}

impl Sentinel {
    fn ask(&mut self, room: &Room, host: &str, port: u16, service: &str) -> Option<(String, u16)> {
        let begun = Instant::now();
        let outcome = self.try_ask(room, host, port, service);
        self.until = None;
        if let Err(trouble) = &outcome {
            log::debug!("the sentinel {host}:{port}: {trouble}");
            (self.wire, self.until) = (None, Some(Instant::now() + begun.elapsed() * RESTS));
        }
        outcome.ok()
    }

    fn try_ask(&mut self, room: &Room, host: &str, port: u16, service: &str) -> Result<(String, u16), Trouble> {
        let wire = match &mut self.wire {
            Some(wire) => wire,
            none => none.insert(Wire::open_unproved(host, port, &room.settings.access)?),
        };
        named_by(wire, host, service)
    }
}

/// Returns whom most of them name; if several are named as often, the one that is known already is preferred. One sentinel that is cut
/// off from the others may name the old primary for a long time.
fn most_named<'a>(named: &'a [(String, u16)], known: Option<&(String, u16)>) -> Option<&'a (String, u16)> {
    let votes = |server: &(String, u16)| named.iter().filter(|other| *other == server).count();
    named.iter().max_by_key(|server| (votes(server), Some(*server) == known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_sentinels_say_who_the_primary_is() {
        let [old, new] = [6379, 6380].map(|port| ("192.0.2.8".to_owned(), port));
        let named = [old.clone(), new.clone(), new.clone()];
        assert_eq!(most_named(&named, Some(&old)), Some(&new));
        assert_eq!(most_named(&named[..2], Some(&old)), Some(&old));
        assert_eq!(most_named(&named[..2], Some(&new)), Some(&new));
        assert_eq!(most_named(&[], Some(&old)), None);
    }
}
