//! Several servers that share one location table, and the store between them: phones register, move, replace and leave at whatever
//! server they like; connections break, servers die, and the store loses what it was told. Once all is well again, all must have the
//! same, and nothing that was promised may be lost or come back. Pure: what happens is a function of the seed.

mod node;
mod phone;
mod sabotage;
mod store;

pub use sabotage::SharedSabotage;

use node::{Node, Outcome, Question, Reply, Seen, WALL, What};
use phone::{Asked, Expectation, Kind, Phone};
use std::collections::BTreeMap;
use std::fmt;
use store::Store;
use strowger::base::Rng;

const PHONES: usize = 10;

/// How often a server looks whether there is something to tell or to read, and how often it sweeps.
const TURN_MS: u64 = 200;
const SWEEP_MS: u64 = 20_000;

/// What a run came to if no rule was broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedReport {
    pub registers: u64,
    pub refused: u64,
    pub accepted: u64,
    pub rejected: u64,
    pub connections: u64,
    pub kills: u64,
    pub failovers: u64,
    pub restarts: u64,
    /// What had to be so at the end, and was.
    pub bound: u64,
    pub removed: u64,
    pub compared: u64,
    pub duration_ms: u64,
}

impl SharedReport {
    pub fn add(&mut self, other: &SharedReport) {
        let SharedReport { registers, refused, accepted, rejected, connections, kills, failovers, restarts, .. } = *other;
        self.registers += registers;
        self.refused += refused;
        self.accepted += accepted;
        self.rejected += rejected;
        self.connections += connections;
        self.kills += kills;
        self.failovers += failovers;
        self.restarts += restarts;
        self.bound += other.bound;
        self.removed += other.removed;
        self.compared += other.compared;
        self.duration_ms += other.duration_ms;
    }
}

/// A rule that was broken, and what happened before.
#[derive(Clone, Debug)]
pub struct SharedFailure {
    pub seed: u64,
    pub detail: String,
    pub history: Vec<String>,
}

impl fmt::Display for SharedFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, self.detail)?;
        self.history.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

enum Event {
    Act,
    Turn(usize),
    Sweep(usize),
    /// With the generation of the node's connection and the life of the store.
    Ask(usize, u32, u32, Question),
    Hear(usize, u32, Reply),
}

struct Run {
    rng: Rng,
    at: u64,
    events: BTreeMap<(u64, u64), Event>,
    serial: u64,
    store: Store,
    nodes: Vec<Node>,
    phones: Vec<Phone>,
    steps: u64,
    store_down_until: u64,
    report: SharedReport,
    history: Vec<String>,
    /// The clocks of the nodes differ.
    is_skewed: bool,
}

/// Runs one seed for so many steps, and then until all is quiet.
pub fn run_shared(seed: u64, steps: u64, sabotage: Option<SharedSabotage>) -> Result<SharedReport, Box<SharedFailure>> {
    let mut run = Run::new(seed, steps, sabotage);
    let outcome = run.carry_out();
    match outcome {
        Ok(()) => Ok(run.report),
        Err(detail) => Err(Box::new(SharedFailure { seed, detail, history: run.history })),
    }
}

impl Run {
    fn new(seed: u64, steps: u64, sabotage: Option<SharedSabotage>) -> Run {
        let mut rng = Rng::new(seed);
        let is_acknowledged = rng.one_in(2);
        let count = 2 + rng.below(3) as usize;
        let skewed = rng.below(2) * 4_000;
        let mut skew = || rng.below(skewed + 1) as i64 - skewed as i64 / 2;
        let nodes = (0..count).map(|number| Node::new(number, skew(), is_acknowledged, sabotage)).collect();
        let kinds = [Kind::Plain, Kind::Instance, Kind::Outbound];
        let phones = (0..PHONES).map(|number| Phone::new(number, kinds[number % kinds.len()])).collect();
        let mut run = Run {
            rng,
            at: 0,
            events: BTreeMap::new(),
            serial: 0,
            store: Store::new(sabotage),
            nodes,
            phones,
            steps,
            store_down_until: 0,
            report: SharedReport::default(),
            history: Vec::new(),
            is_skewed: skewed > 0,
        };
        run.note(format!("{count} nodes, acknowledged: {is_acknowledged}, clocks {skewed} ms apart"));
        for node in 0..count {
            run.plan(node as u64, Event::Turn(node));
            run.plan(SWEEP_MS, Event::Sweep(node));
        }
        run.plan(1000, Event::Act);
        run
    }

    fn note(&mut self, what: String) {
        self.history.push(format!("{:>9} {what}", self.at));
    }

    fn plan(&mut self, in_ms: u64, event: Event) {
        self.serial += 1;
        self.events.insert((self.at + in_ms, self.serial), event);
    }

    fn carry_out(&mut self) -> Result<(), String> {
        while self.steps > 0 {
            self.next();
        }
        self.heal();
        self.settle()?;
        self.audit()
    }

    fn next(&mut self) {
        let Some(((at, _), event)) = self.events.pop_first() else {
            return;
        };
        self.at = at;
        match event {
            Event::Act => {
                self.act();
                if self.steps > 0 {
                    let pause = match self.rng.below(60) {
                        0 => 60_000 + self.rng.below(1_000_000),
                        1..=20 => self.rng.below(20),
                        _ => self.rng.below(3_000),
                    };
                    self.plan(pause, Event::Act);
                }
            }
            Event::Turn(node) => self.turn(node),
            Event::Sweep(node) => {
                if self.nodes[node].is_up {
                    self.nodes[node].sweep(at);
                    #[cfg(debug_assertions)]
                    self.nodes[node].location.check();
                }
                self.plan(SWEEP_MS, Event::Sweep(node));
            }
            Event::Ask(node, generation, life, question) => self.hand_over(node, generation, life, question),
            Event::Hear(node, generation, reply) => self.hear(node, generation, reply),
        }
    }

    // ---- the network between a node and the store -----------------------------------------------------------------------------

    fn turn(&mut self, node: usize) {
        let turn = TURN_MS / 2 + self.rng.below(TURN_MS);
        self.plan(turn, Event::Turn(node));
        let at = self.at;
        let one = &mut self.nodes[node];
        if !one.is_up {
            return;
        }
        for (phone, is_kept) in one.release(at) {
            self.phones[phone].answered(is_kept.then_some(true));
            self.note(format!("node{node} answers phone {phone} at last: {is_kept}"));
        }
        let one = &mut self.nodes[node];
        let can_reach = at >= one.cut_until && at >= self.store_down_until;
        let life = self.store.life;
        match &one.connection {
            Some(connection) if !can_reach || connection.life != life => {
                one.lose_connection();
                self.note(format!("node{node} has lost the store"));
            }
            Some(_) => {
                let questions = one.turn(at, &self.store);
                self.ask(node, questions);
            }
            None if can_reach => {
                self.report.connections += 1;
                let questions = one.connect(life);
                self.note(format!("node{node} has the store"));
                self.ask(node, questions);
            }
            None => {}
        }
    }

    fn ask(&mut self, node: usize, questions: Vec<Question>) {
        let generation = self.nodes[node].generation;
        let life = self.store.life;
        for question in questions {
            let delay = 1 + self.rng.below(80);
            self.plan(delay, Event::Ask(node, generation, life, question));
        }
    }

    fn hand_over(&mut self, node: usize, generation: u32, life: u32, question: Question) {
        // A request that was sent before its connection was lost may still arrive.
        if life != self.store.life || self.at < self.store_down_until || self.at < self.nodes[node].cut_until {
            return;
        }
        let name = self.nodes[node].name.clone();
        let reply = self.store.answer(WALL + self.at, &name, question);
        if let Reply::Told(_, rows) = &reply {
            let words = rows.iter().map(|(row, verdict)| {
                let is_kept = matches!(verdict, store::Verdict::Has(_));
                format!("{} {:?} removed {}: {is_kept}", row.field.escape_ascii(), row.version, row.removed)
            });
            let words: Vec<_> = words.collect();
            self.note(format!("node{node} tells {}", words.join("; ")));
        }
        let delay = 1 + self.rng.below(80);
        self.plan(delay, Event::Hear(node, generation, reply));
    }

    fn hear(&mut self, node: usize, generation: u32, reply: Reply) {
        let one = &mut self.nodes[node];
        if !one.is_up || one.generation != generation || self.at < one.cut_until {
            return;
        }
        match one.take(self.at, reply) {
            Ok(Some(question)) => self.ask(node, vec![question]),
            Ok(None) => {}
            Err(()) => {
                one.lose_connection();
                self.note(format!("node{node} has missed changes"));
            }
        }
    }

    // ---- what happens ----------------------------------------------------------------------------------------------------

    fn act(&mut self) {
        self.steps -= 1;
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        match self.rng.below(100) {
            0..=1 => {
                let cut = self.rng.below(40_000);
                self.nodes[node].cut_until = self.at + cut;
                self.note(format!("node{node} is cut off for {cut} ms"));
            }
            2 if self.nodes[node].is_up => self.kill(node),
            2..=4 if !self.nodes[node].is_up => {
                self.nodes[node].start(self.at);
                self.note(format!("node{node} begins anew"));
            }
            5 => self.trouble_the_store(),
            _ => self.use_phone(node),
        }
    }

    fn kill(&mut self, node: usize) {
        self.report.kills += 1;
        self.note(format!("node{node} dies"));
        let waiting: Vec<usize> = self.nodes[node].waiting.iter().map(|waiting| waiting.phone).collect();
        self.nodes[node].kill();
        waiting.into_iter().for_each(|phone| self.phones[phone].answered(None));
        self.doubt();
    }

    fn trouble_the_store(&mut self) {
        match self.rng.below(3) {
            0 => {
                self.report.restarts += 1;
                self.store.restart_empty();
                self.note("the store begins anew with nothing".to_owned());
            }
            1 => {
                self.report.failovers += 1;
                let lost = self.rng.below(2_000);
                self.store.fail_over(WALL + self.at, lost);
                self.note(format!("the store has lost {lost} ms"));
            }
            _ => {
                let down = self.rng.below(30_000);
                self.store_down_until = self.at + down;
                self.note(format!("the store is down for {down} ms"));
            }
        }
        self.doubt();
    }

    /// After a loss: what only the lost had is expected no longer.
    fn doubt(&mut self) {
        let wall = WALL + self.at;
        for phone in &mut self.phones {
            let aor = phone.aor.as_bytes();
            let mut all: Vec<Seen> = self.nodes.iter().filter(|node| node.is_up).flat_map(|node| node.seen(self.at, aor)).collect();
            all.extend(self.store.rows(aor).filter(|row| row.lease_ms > wall).map(in_store));
            let is_there = |what: &What| all.iter().any(|seen| seen.is_live && seen.what == *what);
            let is_removed = |field: &[u8]| {
                let mut here = all.iter().filter(|seen| seen.field == field);
                here.clone().any(|seen| seen.removed) || !here.any(|seen| seen.is_live)
            };
            let is_safe = match &phone.expects {
                Expectation::Unknown => true,
                Expectation::Bound { what, .. } => is_there(what),
                Expectation::Removed => is_removed(&phone.field()),
            };
            if !is_safe {
                phone.expects = Expectation::Unknown;
            }
            // Who has the removal of the last version of each is not known; only that somebody has one.
            phone.gone.retain(|field, ()| is_removed(field));
            phone.is_certain &= is_safe;
        }
    }

    fn use_phone(&mut self, node: usize) {
        let number = self.rng.below(PHONES as u64) as usize;
        // Phones stay where they are, mostly.
        let node = match self.rng.one_in(4) {
            true => node,
            false => self.phones[number].node,
        };
        if self.phones[number].asked.is_some() || !self.nodes[node].is_up {
            return;
        }
        let before = self.phones[number].bound_as();
        let knows = self.knows(node, number) && (!self.is_skewed || self.phones[number].node == node);
        let phone = &mut self.phones[number];
        let old = phone.field();
        let is_bound = matches!(phone.expects, Expectation::Bound { .. });
        let mut is_certain = phone.is_certain || knows;
        let mut expires_s = phone.expires_s;
        match self.rng.below(20) {
            0..=1 => expires_s = 0,
            2 => {
                // It was switched off and on.
                phone.call_id += 1;
                is_certain = knows;
                if self.rng.one_in(2) {
                    phone.cseq = 0;
                }
            }
            3..=4 => phone.contact += 1,
            5 => phone.q = 100 * (1 + self.rng.below(10) as u16),
            6 => phone.expires_s = [60, 120, 600, 3600][self.rng.below(4) as usize],
            7 if is_bound => return self.operate(node, number, knows),
            _ => {}
        }
        if expires_s != 0 {
            expires_s = phone.expires_s;
        }
        phone.cseq += 1;
        phone.node = node;
        let field = phone.field();
        let mut gone = Vec::new();
        if field != old && knows && phone.is_certain {
            gone.push(old);
        } else if field != old && phone.kind != Kind::Outbound {
            phone.gone.remove(&old);
        }
        let then = match expires_s {
            0 => Expectation::Removed,
            _ => Expectation::Bound { what: phone.what(), until: self.at + expires_s * 1000 },
        };
        phone.asked = Some(Asked { then, gone, is_certain, before });
        self.send(number, node, expires_s);
    }

    fn send(&mut self, number: usize, node: usize, expires_s: u64) {
        self.report.registers += 1;
        self.serial += 1;
        let phone = &mut self.phones[number];
        let message = phone.register(self.serial, expires_s);
        let outcome = self.nodes[node].register(self.at, number, phone.peer(), message.as_bytes());
        // A node that has not heard of a binding, or knows it by another spelling, cannot remove it.
        let field = phone.field();
        let is_it = |seen: &Seen| seen.removed && seen.field == field && seen.cseq == phone.cseq;
        let is_removed = || self.nodes[node].seen(self.at, phone.aor.as_bytes()).iter().any(is_it);
        if expires_s == 0
            && !is_removed()
            && let Some(asked) = &mut phone.asked
        {
            asked.then = Expectation::Unknown;
        }
        let words = format!("phone {number} {} {} {} for {expires_s} s", phone.uri(), phone.call(), phone.cseq);
        match outcome {
            Outcome::Answered(status) => {
                let is_carried_out = (200..300).contains(&status);
                self.report.refused += u64::from(!is_carried_out);
                phone.answered(Some(is_carried_out));
                self.note(format!("{words} at node{node}: {status}"));
            }
            Outcome::Waits => self.note(format!("{words} at node{node} waits")),
        }
    }

    /// An operator removes what the phone has bound.
    fn operate(&mut self, node: usize, number: usize, knows: bool) {
        let one = &self.nodes[node];
        let phone = &mut self.phones[number];
        let count = one.location.remove(one.now(self.at), phone.aor.as_bytes(), Some(phone.uri().as_bytes()));
        phone.expects = match (count, knows && phone.is_certain) {
            (1, true) => Expectation::Removed,
            _ => Expectation::Unknown,
        };
        self.note(format!("an operator removes the contact of phone {number} at node{node}: {count}"));
    }

    /// Returns whether a node has what the phone has sent last, and nobody has anything else: then whatever it makes of it wins.
    fn knows(&self, node: usize, number: usize) -> bool {
        let phone = &self.phones[number];
        let is_last = |seen: &Seen| seen.field == phone.field() && seen.what.call_id == phone.call().as_bytes();
        let aor = phone.aor.as_bytes();
        let stored: Vec<Seen> = self.store.rows(aor).map(in_store).collect();
        let Some(stored) = stored.iter().find(|seen| is_last(seen)) else {
            return false;
        };
        let all_told = self.nodes.iter().all(|node| !node.is_up || node.is_quiet());
        let here = self.nodes[node].seen(self.at, aor);
        all_told && here.iter().any(|seen| is_last(seen) && seen.cseq >= stored.cseq)
    }

    // ---- the end ---------------------------------------------------------------------------------------------------------

    fn heal(&mut self) {
        self.note("all is well".to_owned());
        self.store_down_until = self.at;
        for number in 0..self.nodes.len() {
            self.nodes[number].cut_until = self.at;
            if !self.nodes[number].is_up {
                self.nodes[number].start(self.at);
            }
        }
    }

    /// Lets time pass until nobody has anything to tell.
    fn settle(&mut self) -> Result<(), String> {
        for _ in 0..40 {
            let end = self.at + 8_000;
            while self.events.first_key_value().is_some_and(|((at, _), _)| *at <= end) {
                self.next();
            }
            self.at = end;
            let at = self.at;
            for node in &mut self.nodes {
                node.sweep(at);
            }
            if self.nodes.iter().all(Node::is_quiet) {
                return Ok(());
            }
        }
        Err("it never becomes quiet".to_owned())
    }

    fn audit(&mut self) -> Result<(), String> {
        self.report.duration_ms = self.at;
        (self.report.accepted, self.report.rejected) = (self.store.accepted, self.store.rejected);
        let wall = WALL + self.at;
        for user in 0..PHONES.div_ceil(2) {
            let aor = format!("user{user}@example.com");
            // What is about to end by a lease may have ended by a clock that is fast.
            let near_end = |row: &&store::Kept| row.lease_ms.abs_diff(wall) < 10_000;
            let ending: Vec<Vec<u8>> = self.store.rows(aor.as_bytes()).filter(near_end).map(|row| row.field.clone()).collect();
            let agreed = |seen: Vec<Seen>| {
                let live = seen.into_iter().filter(|seen| seen.is_live && !ending.contains(&seen.field));
                let mut live: Vec<(Vec<u8>, What)> = live.map(|seen| (seen.field, seen.what)).collect();
                live.sort();
                live
            };
            let stored = self.store.rows(aor.as_bytes()).filter(|row| row.lease_ms > wall).map(in_store);
            let stored = agreed(stored.collect());
            for (number, node) in self.nodes.iter().enumerate() {
                let here = agreed(node.seen(self.at, aor.as_bytes()));
                self.report.compared += here.len() as u64;
                if here != stored {
                    return Err(format!("{aor}: node{number} has {}, the store {}", words(&here), words(&stored)));
                }
            }
            self.audit_promises(&aor, &stored)?;
        }
        Ok(())
    }

    fn audit_promises(&mut self, aor: &str, stored: &[(Vec<u8>, What)]) -> Result<(), String> {
        let at = self.at;
        for phone in self.phones.iter().filter(|phone| phone.aor == aor) {
            let (number, field) = (phone.number, phone.field());
            match &phone.expects {
                Expectation::Bound { what, until } if *until > at + 10_000 => {
                    if !stored.iter().any(|(_, there)| there == what) {
                        return Err(format!(
                            "phone {number} was promised {}, there is {}",
                            words(&[(field, what.clone())]),
                            words(stored)
                        ));
                    }
                    self.report.bound += 1;
                }
                Expectation::Removed => {
                    if stored.iter().any(|(there, _)| *there == field) {
                        return Err(format!("phone {number} has removed {}, it is there again", field.escape_ascii()));
                    }
                    self.report.removed += 1;
                }
                _ => {}
            }
            if let Some((back, _)) = stored.iter().find(|(there, _)| phone.gone.contains_key(there)) {
                return Err(format!("phone {number} has replaced {}, it is there again", back.escape_ascii()));
            }
            self.report.removed += phone.gone.len() as u64;
        }
        Ok(())
    }
}

fn in_store(row: &store::Kept) -> Seen {
    Seen {
        field: row.field.clone(),
        what: What { uri: row.uri.clone(), call_id: row.call_id.clone(), path: row.path.clone(), q: row.q },
        cseq: row.version.cseq,
        removed: row.removed,
        is_live: !row.removed,
    }
}

fn words(all: &[(Vec<u8>, What)]) -> String {
    let each = all.iter().map(|(field, what)| {
        format!("{} ({} {} q {})", field.escape_ascii(), what.uri.escape_ascii(), what.call_id.escape_ascii(), what.q)
    });
    let each: Vec<_> = each.collect();
    format!("[{}]", each.join(", "))
}
