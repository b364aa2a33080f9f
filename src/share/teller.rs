//! The thread that tells Redis what has changed here, round by round, and tries again if that fails.

use super::backoff::Backoff;
use super::form::ReadRow;
use super::reply::{Contents, Reply};
use super::room::{Duty, Room};
use super::script::{Answer, Batch, answer, batches};
use super::session::Session;
use super::shards::{address_key, changes_key, position_key};
use super::trouble::{Trouble, unexpected};
use super::wire::sound;
use crate::base::Flow;
use crate::stack::location::{Round, Untold};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

/// How often it is looked whether there is something to tell, if no answer waits.
const INTERVAL: Duration = Duration::from_millis(10);

/// The least time from the beginning of one round to that of the next: changes gather meanwhile.
const SPACING: Duration = Duration::from_millis(5);

/// Bytes of memory that are copied at a time.
const BITE: usize = 256 << 10;

/// Runs of the script that are on their way at a time.
const IN_FLIGHT: usize = 32;

/// What is told takes this long at least, each version: 20,000 in a second. Otherwise Redis and the other servers would be flooded
/// after it has lost everything.
const PACE: Duration = Duration::from_micros(50);

/// How long Redis is asked to wait for its replicas, in milliseconds.
const REPLICAS_MS: &[u8] = b"1000";

pub struct Teller {
    room: Arc<Room>,
    bell: Receiver<()>,
    session: Option<Session>,
    /// A round that was begun and is not told.
    round: Option<Round>,
    /// What was taken and not told.
    untold: Untold,
    reader: ReadRow,
    backoff: Backoff,
}

impl Teller {
    /// `bell` is rung if an answer waits.
    pub fn new(room: Arc<Room>, bell: Receiver<()>) -> Teller {
        Teller {
            room,
            bell,
            session: None,
            round: None,
            untold: Untold::default(),
            reader: ReadRow::default(),
            backoff: Backoff::default(),
        }
    }

    pub fn run(mut self) {
        let mut began = Instant::now();
        while !self.room.is_stopping() {
            let _ = self.bell.recv_timeout(INTERVAL.max(self.backoff.delay()));
            if !self.backoff.delay().is_zero() || !self.room.is_joined() {
                // The bell may ring all the time.
                thread::sleep(SPACING);
                continue;
            }
            thread::sleep(SPACING.saturating_sub(began.elapsed()));
            began = Instant::now();
            self.attempt();
        }
        if self.room.is_joined() && self.backoff.delay().is_zero() {
            self.attempt();
        }
        let left = self.room.untold();
        if left > 0 {
            let store = &self.room.settings.access.store;
            log::warn!("{store}: the changes of {left} addresses-of-record were not told to the other servers");
        }
    }

    fn attempt(&mut self) {
        match self.work() {
            Ok(()) => {
                self.backoff.succeed();
                self.room.recover(Duty::Telling);
            }
            Err(trouble) => {
                self.backoff.fail();
                self.room.suffer(Duty::Telling, &trouble);
            }
        }
    }

    fn work(&mut self) -> Result<(), Trouble> {
        let room = self.room.clone();
        let Some(shared) = room.shared() else {
            return Ok(());
        };
        let now_ms = || room.now().as_ms();
        if self.round.is_none() && !shared.has_untold() {
            room.counts.caught_up_ms.store(now_ms(), Ordering::Relaxed);
            return Ok(());
        }
        let before_ms = now_ms();
        let mut round = self.round.take().unwrap_or_else(|| shared.begin_telling());
        let outcome = self.tell_round(&mut round);
        if outcome.is_err() {
            self.round = Some(round);
            return outcome;
        }
        room.counts.caught_up_ms.store(before_ms, Ordering::Relaxed);
        shared.finish_telling(round.number);
        room.progress();
        Ok(())
    }

    fn tell_round(&mut self, round: &mut Round) -> Result<(), Trouble> {
        let room = self.room.clone();
        let Some(shared) = room.shared() else {
            return Ok(());
        };
        let (tokens, own) = (room.settings.tokens, shared.own());
        let mut write_token = |reached, flow: &Flow, out: &mut Vec<u8>| tokens.write(&own, reached, flow, out);
        loop {
            let start = Instant::now();
            while self.untold.size() < BITE
                && let Some(shard) = round.next_shard()
            {
                shared.take_untold(shard, &mut self.untold, &mut write_token);
            }
            let count = self.untold.len();
            room.counts.in_hand.store(count, Ordering::Relaxed);
            if count == 0 {
                return Ok(());
            }
            self.tell()?;
            self.untold.clear();
            room.counts.in_hand.store(0, Ordering::Relaxed);
            let pace = PACE * u32::try_from(count).unwrap_or(u32::MAX);
            thread::sleep(pace.saturating_sub(start.elapsed()));
        }
    }

    /// Tells what was taken. If that fails, it is told again: Redis knows what it has.
    fn tell(&mut self) -> Result<(), Trouble> {
        let named = self.room.named();
        // One that was not used since the sentinels have named another is left without a word.
        let kept = self.session.take().filter(|session| session.check_named(named.as_ref()).is_ok());
        let mut session = match kept {
            Some(session) => session,
            None => Session::open(&self.room.settings.access, named.as_ref())?,
        };
        let all = batches(self.untold.iter());
        for batches in all.chunks(IN_FLIGHT) {
            let strangers = tell_some(&self.room, &mut self.reader, &mut session, batches)?;
            if !strangers.is_empty() {
                session.load_script()?;
                let again: Vec<Batch> =
                    batches.iter().enumerate().filter(|(at, _)| strangers.contains(at)).map(|(_, batch)| batch.clone()).collect();
                if !tell_some(&self.room, &mut self.reader, &mut session, &again)?.is_empty() {
                    return Err(Trouble::Refused("NOSCRIPT".to_owned()));
                }
            }
        }
        let outcome = await_replicas(&mut session, self.room.settings.replicas);
        // What was told to a server that is the primary no more is told to its successor.
        session.check_named(self.room.named().as_ref())?;
        // The connection is kept if replicas are missing: Redis knows by it what they must have.
        if !matches!(outcome, Err(Trouble::Lost(_))) {
            self.session = Some(session);
        }
        outcome
    }
}

/// Tells these, and heeds what Redis answers. Returns which of them it did not understand, because it does not know the script.
fn tell_some(room: &Room, reader: &mut ReadRow, session: &mut Session, batches: &[Batch]) -> Result<Vec<usize>, Trouble> {
    for batch in batches {
        let words = batch.command(&session.script, room.settings.stream);
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        session.wire(batch.part).put(&words);
    }
    session.flush()?;
    let mut strangers = Vec::new();
    for (at, batch) in batches.iter().enumerate() {
        match session.wire(batch.part).read()? {
            Reply::Array(answers) => heed(room, reader, batch, &answers)?,
            reply => match reply.error() {
                Some(why) if why.starts_with("NOSCRIPT") => strangers.push(at),
                Some(why) if why.contains("WRONGTYPE") => {
                    let keys = [position_key(batch.part), changes_key(batch.part)];
                    let [position, changes] = &keys;
                    let key = if memchr::memmem::find(why.as_bytes(), position).is_some() { position } else { changes };
                    batch.rows.iter().for_each(|row| room.blocked(row, key, &why));
                }
                Some(why) => return Err(Trouble::Refused(why)),
                None => return Err(unexpected("EVALSHA", &reply)),
            },
        }
    }
    Ok(strangers)
}

fn heed(room: &Room, reader: &mut ReadRow, batch: &Batch, answers: &[Reply]) -> Result<(), Trouble> {
    let Some(shared) = room.shared() else {
        return Ok(());
    };
    for (row, reply) in batch.rows.iter().zip(answers) {
        match answer(reply) {
            Some(Answer::Has(position)) => {
                shared.told(row, position);
                room.counts.told.fetch_add(1, Ordering::Relaxed);
            }
            Some(Answer::Better(value)) => {
                let mut field = Vec::new();
                row.write_field(&mut field);
                // What Redis has at the moment of its answer is what it accepted last: as in the stream.
                room.take_in(reader, row.aor, &field, value, true);
                room.counts.rejected.fetch_add(1, Ordering::Relaxed);
            }
            Some(Answer::Over) => room.over(row),
            Some(Answer::Unfit(why)) => room.blocked(row, &address_key(batch.part, row.aor), why),
            None => return Err(unexpected("EVALSHA", reply)),
        }
    }
    Ok(())
}

/// Waits until so many replicas have what was told.
fn await_replicas(session: &mut Session, replicas: usize) -> Result<(), Trouble> {
    if replicas == 0 {
        return Ok(());
    }
    for wire in session.wires() {
        let reply = wire.call(&[b"WAIT", replicas.to_string().as_bytes(), REPLICAS_MS])?;
        let have = sound(reply)?.number().unwrap_or(0);
        if have < replicas as u64 {
            return Err(Trouble::Refused(format!("{have} replicas have it, [location] replicas wants {replicas}")));
        }
    }
    Ok(())
}
