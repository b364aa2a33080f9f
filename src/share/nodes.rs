//! Signs of life: each server writes one to Redis every second, and looks for those of the others.

use super::form::{self, pairs};
use super::reply::{Contents, Reply};
use super::room::Room;
use super::session::Session;
use super::shards::node_key;
use super::trouble::{Trouble, refusal};
use super::wire::sound;
use crate::base::Instant;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::thread;
use std::time::{self, Duration, SystemTime, UNIX_EPOCH};

/// How often a sign is written, and how long it lasts, in milliseconds: four may be late or lost.
const BEAT: Duration = Duration::from_secs(1);
const LASTS_MS: u64 = 5000;

/// How long another server's sign under our name is watched: if it lives, it has written another by then.
const WATCH: Duration = Duration::from_millis(2500);

/// How often it is said that another has our name.
const REPEAT: Duration = Duration::from_secs(60);

/// The names of all servers, each with when it was last entered, milliseconds since 1970; and when one is forgotten.
const ROSTER: &[u8] = b"strowger:nodes";
const FORGOTTEN_MS: u64 = 24 * 3600 * 1000;

/// Servers that are looked for; nobody runs so many.
const NAMES: usize = 1000;

/// What became of a beat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beat {
    Well,
    /// Our last sign is not there, though it had not expired: Redis has lost what it had.
    Emptied,
}

pub struct Nodes {
    /// Distinguishes this run of this server from all others.
    id: String,
    beats: u64,
    last: Option<time::Instant>,
    /// When each of the others was last known to live.
    seen: HashMap<Box<[u8]>, Instant>,
    /// Redis has answered without a break since then.
    attached: Instant,
    complained: Option<time::Instant>,
    is_roster_foreign: bool,
}

impl Nodes {
    pub fn new() -> Nodes {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Nodes {
            id: format!("{:016x}", RandomState::new().hash_one(since)),
            beats: 0,
            last: None,
            seen: HashMap::new(),
            attached: Instant::default(),
            complained: None,
            is_roster_foreign: false,
        }
    }

    /// Takes our name. Refuses if another server that has it lives.
    pub fn claim(&mut self, room: &Room, session: &mut Session) -> Result<(), Trouble> {
        let name = &room.settings.node;
        let key = node_key(name.as_bytes());
        let mut look = || session.wire_of_key(&key).call(&[b"GET", &key]);
        let first = look()?;
        if first != Reply::Nil && !self.is_own(&first) {
            let end = time::Instant::now() + WATCH;
            while time::Instant::now() < end {
                thread::sleep(Duration::from_millis(100));
                let sign = look()?;
                if sign == Reply::Nil {
                    break;
                }
                if sign != first {
                    let why = format!("another server that lives is called {name:?}: give each a [location] node of its own");
                    return Err(Trouble::NameTaken(why));
                }
            }
        }
        self.attached = room.now();
        self.last = None;
        let is_first = self.beats == 0;
        self.beat(room, session)?;
        // Nothing bears the number of our run yet, and the others' are known now.
        if is_first && room.shared().is_some_and(|shared| shared.distinguish()) {
            self.beat(room, session)?;
        }
        Ok(())
    }

    /// Returns whether a beat is due.
    pub fn is_due(&self) -> bool {
        self.last.is_none_or(|last| last.elapsed() >= BEAT)
    }

    /// Writes our sign, and looks for those of the others.
    pub fn beat(&mut self, room: &Room, session: &mut Session) -> Result<Beat, Trouble> {
        let others = self.others(room, session)?;
        let key = node_key(room.settings.node.as_bytes());
        self.beats += 1;
        let sign = self.sign(room);
        let wire = session.wire_of_key(&key);
        wire.put(&[b"GET", &key]);
        wire.put(&[b"SET", &key, sign.as_bytes(), b"PX", LASTS_MS.to_string().as_bytes()]);
        for other in &others {
            let key = node_key(other);
            session.wire_of_key(&key).put(&[b"GET", &key]);
        }
        session.flush()?;
        let before = sound(session.wire_of_key(&key).read()?)?;
        sound(session.wire_of_key(&key).read()?)?;
        let is_recent = self.last.is_some_and(|last| last.elapsed() < Duration::from_millis(LASTS_MS - 1000));
        let is_emptied = before == Reply::Nil && is_recent;
        if is_emptied {
            self.attached = room.now();
        }
        for other in others {
            let reply = session.wire_of_key(&node_key(&other)).read()?;
            if let Some(refusal) = refusal(&reply) {
                return Err(refusal);
            }
            self.note(room, other, &reply);
        }
        self.last = Some(time::Instant::now());
        match before {
            _ if is_emptied => return Ok(Beat::Emptied),
            before if before != Reply::Nil && self.beats > 1 && !self.is_own(&before) => self.complain(room),
            _ => {}
        }
        Ok(Beat::Well)
    }

    /// Enters our name in the roster. Returns those of the others that are there, or that are known from their bindings.
    fn others(&mut self, room: &Room, session: &mut Session) -> Result<Vec<Box<[u8]>>, Trouble> {
        let own = room.settings.node.as_bytes();
        let now_ms = room.now_ms();
        let wire = session.wire_of_key(ROSTER);
        wire.put(&[b"HSET", ROSTER, own, now_ms.to_string().as_bytes()]);
        wire.put(&[b"HGETALL", ROSTER]);
        session.flush()?;
        let wire = session.wire_of_key(ROSTER);
        let replies = [wire.read()?, wire.read()?];
        if let Some(refusal) = replies.iter().find_map(refusal) {
            return Err(refusal);
        }
        let [_, roster] = replies;
        self.note_roster(room, roster.error());
        let known = room.shared().map(|shared| shared.nodes()).unwrap_or_default();
        let mut names: Vec<Box<[u8]>> = known.into_iter().skip(1).map(|node| node.name).collect();
        for entry in roster.list().unwrap_or_default().chunks_exact(2) {
            let [name, seen] = entry else {
                continue;
            };
            let (Some(name), seen_ms) = (name.text(), seen.number().unwrap_or_default()) else {
                continue;
            };
            // What is far ahead of now was entered by no server of ours.
            if seen_ms.abs_diff(now_ms) > FORGOTTEN_MS {
                sound(session.wire_of_key(ROSTER).call(&[b"HDEL", ROSTER, name])?)?;
            } else if name != own && !names.iter().any(|known| **known == *name) && names.len() < NAMES {
                names.push(name.into());
            }
        }
        Ok(names)
    }

    /// Says once that another program has the roster's key, if it has: bindings are shared without it.
    fn note_roster(&mut self, room: &Room, why: Option<String>) {
        if let (Some(why), false) = (&why, self.is_roster_foreign) {
            let (store, roster) = (&room.settings.access.store, String::from_utf8_lossy(ROSTER));
            log::error!(
                "{store}: what it has under {roster:?} is left alone and not used: {why}; until that key is removed, this server knows only \
                 those servers that have bindings"
            );
        }
        self.is_roster_foreign = why.is_some();
    }

    fn note(&mut self, room: &Room, name: Box<[u8]>, sign: &Reply) {
        let (Some(shared), now) = (room.shared(), room.now()) else {
            return;
        };
        if let Some(sign) = sign.text() {
            shared.node_seen(&name, relay_of(sign), since_of(sign));
            self.seen.insert(name, now);
            return;
        }
        // Redis may have been restarted without its data: the others have some time to come back as well. But a sign that Redis had has
        // expired, or was taken back.
        let last = self.seen.get(&name).copied();
        if is_gone(last, self.attached, now) {
            shared.node_gone(&name, last.unwrap_or(self.attached));
        }
    }

    fn complain(&mut self, room: &Room) {
        if self.complained.is_none_or(|at| at.elapsed() >= REPEAT) {
            self.complained = Some(time::Instant::now());
            let name = &room.settings.node;
            log::error!("another server is called {name:?} as well: stop one, and give each a [location] node of its own");
        }
    }

    /// Takes our sign back: the others need not wait until it expires.
    pub fn leave(&self, room: &Room, session: &mut Session) -> Result<(), Trouble> {
        let key = node_key(room.settings.node.as_bytes());
        let sign = session.wire_of_key(&key).call(&[b"GET", &key])?;
        if self.is_own(&sign) {
            session.wire_of_key(&key).call(&[b"DEL", &key])?;
        }
        Ok(())
    }

    fn sign(&self, room: &Room) -> String {
        let since_ms = room.shared().map_or(0, |shared| shared.own().run);
        let mut sign = format!("v=1&id={}&since={since_ms}&beat={}", self.id, self.beats).into_bytes();
        if let Some(relay) = room.settings.relay {
            sign.extend_from_slice(b"&relay=");
            form::escape(relay.to_string().as_bytes(), &mut sign);
        }
        String::from_utf8(sign).unwrap_or_default()
    }

    fn is_own(&self, sign: &Reply) -> bool {
        sign.text().and_then(|sign| value_of(sign, b"id")).is_some_and(|id| id == self.id.as_bytes())
    }
}

/// Returns whether a server without a sign is gone: `last` is when it had one, and Redis has answered without a break since `attached`.
fn is_gone(last: Option<Instant>, attached: Instant, now: Instant) -> bool {
    last.is_some_and(|last| last >= attached) || now.ms_since(attached) >= LASTS_MS
}

fn value_of(sign: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let (_, value) = pairs(sign).flatten().find(|(found, _)| *found == name)?;
    let mut text = Vec::new();
    form::unescape(value, &mut text)?;
    Some(text)
}

fn relay_of(sign: &[u8]) -> Option<SocketAddr> {
    String::from_utf8(value_of(sign, b"relay")?).ok()?.parse().ok()
}

fn since_of(sign: &[u8]) -> Option<u64> {
    String::from_utf8(value_of(sign, b"since")?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_that_redis_had_is_missed_at_once() {
        let at = Instant::from_ms;
        assert!(is_gone(Some(at(2000)), at(1000), at(3000)), "it was there, and Redis was as well ever since");
        // Redis is back without its data.
        assert!(!is_gone(Some(at(2000)), at(3000), at(3000)));
        assert!(!is_gone(Some(at(2000)), at(3000), at(7999)));
        assert!(is_gone(Some(at(2000)), at(3000), at(8000)));
        // It was never seen.
        assert!(!is_gone(None, at(3000), at(7999)));
        assert!(is_gone(None, at(3000), at(8000)));
    }
}
