//! The thread that follows what Redis has: all of it when it joins, then the changes in the order in which they were accepted.
//!
//! Each change in a stream says which was before it. So whatever was missed is noticed with the next change: a stream that was cut
//! off, a Redis that has lost some of it, another Redis. Then everything is read anew.

use super::backoff::Backoff;
use super::form::ReadRow;
use super::nodes::{Beat, Nodes};
use super::reply::{Contents, Reply};
use super::room::{Duty, Room};
use super::session::Session;
use super::shards::{ADDRESSES, PARTS, address_of, changes_key, part_of, position_key};
use super::trouble::{Trouble, is_wrong_type, refusal, unexpected};
use super::wire::sound;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

/// How long Redis is asked to wait for a change.
const WAIT: Duration = Duration::from_millis(200);

/// Changes of a part that are read at a time.
const CHANGES: &[u8] = b"500";

/// Keys that a full reading asks for at a time.
const KEYS: &[u8] = b"1000";

/// How long one step of stopping or waiting takes.
const NAP: Duration = Duration::from_millis(20);

/// How long a primary without the replicas that `[location] replicas` wants is not read: it may have lost everything, and be about to be
/// replaced by one of them.
const REPLICAS_WAIT: Duration = Duration::from_secs(5);

/// How far a stream was followed.
#[derive(Clone, Default)]
struct Place {
    /// The last entry's name in the stream.
    id: Vec<u8>,
    /// The position of its change; `None` if there was none.
    position: Option<u64>,
    /// Another program has the stream's key.
    is_foreign: bool,
}

pub struct Follower {
    room: Arc<Room>,
    session: Option<Session>,
    places: Vec<Place>,
    /// Of the server at which the places were taken.
    history: Option<String>,
    nodes: Nodes,
    reader: ReadRow,
    backoff: Backoff,
    must_read: bool,
}

impl Follower {
    pub fn new(room: Arc<Room>) -> Follower {
        Follower {
            room,
            session: None,
            places: vec![Place::default(); PARTS],
            history: None,
            nodes: Nodes::new(),
            reader: ReadRow::default(),
            backoff: Backoff::default(),
            must_read: true,
        }
    }

    /// Connects, and reads the table if it must. Fails for good only if another server has our name.
    pub fn begin(&mut self) -> Result<(), Trouble> {
        match self.attach() {
            Err(taken @ Trouble::NameTaken(_)) => Err(taken),
            Err(trouble) => {
                self.suffer(&trouble);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    pub fn run(mut self) {
        while !self.room.is_stopping() {
            let delay = self.backoff.delay();
            if !delay.is_zero() {
                thread::sleep(delay.min(NAP));
                continue;
            }
            if let Err(trouble) = self.step() {
                self.suffer(&trouble);
            }
        }
        if let Some(session) = &mut self.session
            && let Err(trouble) = self.nodes.leave(&self.room, session)
        {
            log::debug!("{}: {trouble}", self.room.settings.access.store);
        }
    }

    fn suffer(&mut self, trouble: &Trouble) {
        self.session = None;
        self.backoff.fail();
        self.room.suffer(Duty::Following, trouble);
    }

    fn step(&mut self) -> Result<(), Trouble> {
        if self.session.is_none() || self.must_read {
            self.attach()?;
        }
        self.beat()?;
        self.follow()?;
        self.backoff.succeed();
        self.room.recover(Duty::Following);
        if self.must_read {
            log::warn!("{}: changes were missed: all bindings are read anew", self.room.settings.access.store);
        }
        Ok(())
    }

    fn session(&mut self) -> Result<&mut Session, Trouble> {
        self.session.as_mut().ok_or_else(|| Trouble::Lost("it is not connected".to_owned()))
    }

    fn beat(&mut self) -> Result<(), Trouble> {
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        session.check_named(self.room.named().as_ref())?;
        if !self.nodes.is_due() {
            return Ok(());
        }
        self.room.renew();
        learn_time(&self.room, session)?;
        if self.nodes.beat(&self.room, session)? == Beat::Emptied {
            self.must_read = true;
        }
        for part in (0..PARTS).filter(|part| self.places[*part].is_foreign) {
            let kind = session.wire(part).call(&[b"TYPE", &changes_key(part)])?;
            self.must_read |= matches!(kind.text(), Some(b"none" | b"stream"));
        }
        Ok(())
    }

    // ---- joining -------------------------------------------------------------------------------------------------------

    fn attach(&mut self) -> Result<(), Trouble> {
        if self.session.is_none() {
            let mut session = Session::open(&self.room.settings.access, self.room.named().as_ref())?;
            session.wires().iter().try_for_each(|wire| wire.grant(WAIT))?;
            await_replicas(&self.room, &mut session)?;
            learn_time(&self.room, &mut session)?;
            self.nodes.claim(&self.room, &mut session)?;
            let history = session.history()?;
            let is_same = history.is_some() && history == self.history;
            self.must_read |= !is_same || !self.has_all(&mut session)?;
            self.history = history;
            self.session = Some(session);
        }
        if self.must_read {
            self.room.set_reading(true);
            self.must_read = false;
            let outcome = self.read_all();
            self.must_read |= outcome.is_err();
            outcome?;
            self.room.set_reading(self.must_read);
        }
        self.room.join();
        Ok(())
    }

    /// Returns whether Redis has everything that we have seen there, as far as the last change of each part shows.
    fn has_all(&self, session: &mut Session) -> Result<bool, Trouble> {
        let last = session.of_each_part(|part| vec![b"GET".to_vec(), position_key(part)])?;
        let has = |(place, last): (&Place, &Reply)| place.position.is_none_or(|seen| last.number() >= Some(seen));
        Ok(self.places.iter().zip(&last).all(has))
    }

    /// Reads everything, and notes from where the changes are to be followed.
    fn read_all(&mut self) -> Result<(), Trouble> {
        let room = self.room.clone();
        let Some(shared) = room.shared() else {
            return Ok(());
        };
        let start = Instant::now();
        let range = |part| [&b"XREVRANGE"[..], &changes_key(part), b"+", b"-", b"COUNT", b"1"].map(<[u8]>::to_vec).to_vec();
        let last = self.session()?.of_each_part(range)?;
        for (part, (place, reply)) in self.places.iter_mut().zip(&last).enumerate() {
            let (is_foreign, was_foreign) = (is_wrong_type(reply), place.is_foreign);
            *place = Place { id: b"0-0".to_vec(), position: None, is_foreign };
            if is_foreign && !was_foreign {
                let (store, key) = (&room.settings.access.store, String::from_utf8_lossy(&changes_key(part)).into_owned());
                log::error!(
                    "{store}: what it has under {key:?} is left alone and not used: it is no stream; until that key is removed, each server \
                     knows the addresses of that part alone"
                );
            }
            for entry in reply.list().unwrap_or_default() {
                let change = Change::read(entry).ok_or_else(|| unexpected("XREVRANGE", reply))?;
                *place = Place { id: change.id.to_vec(), position: position_of(change.value), is_foreign };
            }
        }
        shared.begin_reading();
        let mut found = 0;
        let wires = self.session()?.wires().len();
        for wire in 0..wires {
            found += self.scan(wire)?;
        }
        let missing = shared.end_reading(room.now());
        room.counts.readings.fetch_add(1, Ordering::Relaxed);
        log::info!(
            "{}: {found} bindings read in {:.1} s; {missing} that it does not have are to be told",
            room.settings.access.store,
            start.elapsed().as_secs_f64()
        );
        Ok(())
    }

    /// Takes in all that one server has. Returns how many bindings those are.
    fn scan(&mut self, wire: usize) -> Result<usize, Trouble> {
        let (mut cursor, mut found) = (b"0".to_vec(), 0);
        loop {
            let room = self.room.clone();
            let wires = self.session()?.wires();
            let reply = wires[wire].call(&[b"SCAN", &cursor, b"MATCH", ADDRESSES, b"COUNT", KEYS])?;
            let Some([next, keys]) = reply.list() else {
                return Err(unexpected("SCAN", &reply));
            };
            let keys: Vec<&[u8]> = keys.list().unwrap_or_default().iter().filter_map(Reply::text).collect();
            keys.iter().for_each(|key| wires[wire].put(&[b"HGETALL", key]));
            wires[wire].flush()?;
            let mut replies = Vec::with_capacity(keys.len());
            for _ in &keys {
                replies.push(wires[wire].read()?);
            }
            if let Some(refusal) = replies.iter().find_map(refusal) {
                return Err(refusal);
            }
            for (key, reply) in keys.iter().zip(&replies) {
                found += self.take_hash(&room, key, reply);
            }
            self.beat()?;
            cursor = next.text().ok_or_else(|| unexpected("SCAN", next))?.to_vec();
            if cursor == b"0" || room.is_stopping() {
                return Ok(found);
            }
        }
    }

    fn take_hash(&mut self, room: &Room, key: &[u8], reply: &Reply) -> usize {
        let (Some(aor), Some(fields)) = (address_of(key), reply.list()) else {
            room.unusable(key, &reply.error().unwrap_or_else(|| "it is not the key of an address".to_owned()));
            return 0;
        };
        let mut found = 0;
        for pair in fields.chunks(2) {
            let [Reply::BulkString(field), Reply::BulkString(value)] = pair else {
                continue;
            };
            found += usize::from(room.take_in(&mut self.reader, aor, field, value, false).is_some());
        }
        found
    }

    // ---- following -----------------------------------------------------------------------------------------------------

    /// Waits for changes for a moment, and takes them in.
    fn follow(&mut self) -> Result<(), Trouble> {
        let all: Vec<usize> = (0..PARTS).filter(|part| !self.places[*part].is_foreign).collect();
        if all.is_empty() {
            thread::sleep(NAP);
            return Ok(());
        }
        if self.session()?.wires().len() == 1 {
            self.ask_for_changes(&all, true)?;
            return self.take_changes(&all);
        }
        // A cluster takes no question about several parts, and none of its servers may be waited for.
        for part in &all {
            self.ask_for_changes(&[*part], false)?;
        }
        self.session()?.flush()?;
        for part in all {
            self.take_changes(&[part])?;
        }
        thread::sleep(NAP);
        Ok(())
    }

    /// Asks the server that has these parts for what comes after our places.
    fn ask_for_changes(&mut self, parts: &[usize], may_wait: bool) -> Result<(), Trouble> {
        let keys: Vec<Vec<u8>> = parts.iter().map(|part| changes_key(*part)).collect();
        let ids: Vec<Vec<u8>> = parts.iter().map(|part| self.places[*part].id.clone()).collect();
        let wait = WAIT.as_millis().to_string().into_bytes();
        let mut words: Vec<&[u8]> = vec![b"XREAD", b"COUNT", CHANGES];
        if may_wait {
            words.extend([&b"BLOCK"[..], &wait]);
        }
        words.push(b"STREAMS");
        words.extend(keys.iter().chain(&ids).map(Vec::as_slice));
        let wire = self.session()?.wire(parts[0]);
        wire.put(&words);
        match may_wait {
            true => wire.flush(),
            false => Ok(()),
        }
    }

    /// Takes in the answer to that.
    fn take_changes(&mut self, parts: &[usize]) -> Result<(), Trouble> {
        let reply = self.session()?.wire(parts[0]).read()?;
        if is_wrong_type(&reply) {
            // Which of the parts it is, the reading shows.
            self.must_read = true;
            return Ok(());
        }
        let reply = sound(reply)?;
        for stream in reply.list().unwrap_or_default() {
            let Some([key, entries]) = stream.list() else {
                return Err(unexpected("XREAD", stream));
            };
            let part = parts.iter().find(|part| Some(changes_key(**part).as_slice()) == key.text());
            let (Some(part), Some(entries)) = (part, entries.list()) else {
                return Err(unexpected("XREAD", stream));
            };
            for entry in entries {
                self.take_change(*part, entry)?;
            }
        }
        Ok(())
    }

    fn take_change(&mut self, part: usize, entry: &Reply) -> Result<(), Trouble> {
        let change = Change::read(entry).ok_or_else(|| unexpected("XREAD", entry))?;
        let place = &mut self.places[part];
        let follows = place.position.is_none_or(|position| change.after == Some(position));
        self.must_read |= !follows;
        *place = Place { id: change.id.to_vec(), position: position_of(change.value), is_foreign: false };
        match part_of(change.aor) == part {
            true => _ = self.room.take_in(&mut self.reader, change.aor, change.field, change.value, true),
            false => self.room.unusable(change.aor, "it is in a stream where it does not belong"),
        }
        Ok(())
    }
}

/// Learns what time it is by Redis's clock.
fn learn_time(room: &Room, session: &mut Session) -> Result<(), Trouble> {
    let before = room.now();
    let time_ms = session.time_ms()?;
    room.learn_time(time_ms, before, room.now());
    Ok(())
}

/// Waits for a moment until the primary has as many replicas as the conf wants.
fn await_replicas(room: &Room, session: &mut Session) -> Result<(), Trouble> {
    let (store, wanted) = (&room.settings.access.store, room.settings.replicas);
    let start = Instant::now();
    let mut has_said = false;
    while wanted > 0
        && let Some(have) = session.replicas()?
        && have < wanted
    {
        if start.elapsed() >= REPLICAS_WAIT {
            log::warn!("{store}: goes on with a primary that has {have} replicas");
            break;
        }
        if room.is_stopping() {
            return Err(Trouble::Lost("this server stops".to_owned()));
        }
        if !has_said {
            let seconds = REPLICAS_WAIT.as_secs();
            log::info!(
                "{store}: its primary has {have} replicas, [location] replicas wants {wanted}: waiting for them, {seconds} s at most"
            );
        }
        has_said = true;
        session.check_named(room.named().as_ref())?;
        thread::sleep(NAP);
    }
    Ok(())
}

/// An entry of a stream.
struct Change<'a> {
    id: &'a [u8],
    aor: &'a [u8],
    field: &'a [u8],
    value: &'a [u8],
    /// The position of the change before it.
    after: Option<u64>,
}

impl Change<'_> {
    /// Another program's entry has no address and no value: it counts as one that cannot be used.
    fn read(entry: &Reply) -> Option<Change<'_>> {
        let [id, words] = entry.list()? else {
            return None;
        };
        let mut change = Change { id: id.text()?, aor: b"", field: b"", value: b"", after: None };
        for pair in words.list()?.chunks(2) {
            let [name, value] = pair else {
                return None;
            };
            let text = value.text()?;
            match name.text()? {
                b"aor" => change.aor = text,
                b"field" => change.field = text,
                b"value" => change.value = text,
                b"after" => change.after = value.number(),
                _ => {}
            }
        }
        Some(change)
    }
}

/// Returns the position that Redis has added to a value: its last pair.
fn position_of(value: &[u8]) -> Option<u64> {
    let at = memchr::memmem::rfind(value, b"&position=")?;
    std::str::from_utf8(&value[at + b"&position=".len()..]).ok()?.parse().ok()
}
