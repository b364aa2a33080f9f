//! Rounds of kill -9 under load: of a node, of Redis' primary, of both at once; and a primary that hangs. What was answered 200 is
//! known to all nodes afterwards, and what was removed with a 200 does not come back.
//!
//! `STROWGER_ROUNDS=100` runs a hundred of them, `STROWGER_SEED` repeats the choices of another run; `--nocapture` shows what each round saw.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::agent::{Agent, unique};
use crate::place::{Place, wait_for};
use crate::whole_cluster::{Cluster, NODES};

/// Clients, each with an address and phones of its own.
const CLIENTS: usize = 8;
const PHONES: usize = 40;

/// Where the first client is, and who asks between the rounds whether registrations are accepted.
const FIRST_CLIENT: u8 = 100;
const PROBE: u8 = 90;

const DOMAIN: &str = "example.com";

/// How long the bindings last: longer than all rounds.
const EXPIRES: u32 = 3600;

/// How long a client waits for an answer, and when it repeats its request.
const ANSWER: Duration = Duration::from_millis(1500);
const REPETITION: Duration = Duration::from_millis(500);

/// The pause of a client between two requests, and of a phone: none removes its binding a moment after it was made.
const PAUSE: Duration = Duration::from_millis(4);
const PHONES_PAUSE: Duration = Duration::from_millis(250);

/// How long the whole may take until all is well again, and all nodes until they agree.
const HEALING: Duration = Duration::from_secs(60);
const AGREEMENT: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
enum Kind {
    Node,
    Primary,
    Both,
    /// SIGSTOP, until another is the primary.
    PausedPrimary,
}

/// What a client may rely on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Belief {
    Bound,
    Removed,
    /// The last request was not answered, or not with 200.
    Unsure,
}

#[derive(Clone, Copy, Debug)]
struct Event {
    at: Instant,
    node: usize,
    is_removal: bool,
    cseq: u32,
    /// `None` if no answer came.
    status: Option<u16>,
}

struct Phone {
    user: String,
    contact: String,
    call_id: String,
    cseq: u32,
    belief: Belief,
    history: Vec<Event>,
}

/// A small generator, so that a run can be repeated.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }
}

// ---- load --------------------------------------------------------------------------------------------------------------

#[derive(Default)]
struct Load {
    is_running: AtomicBool,
    is_over: AtomicBool,
    /// Clients that have a request on its way.
    busy: AtomicU32,
    answered: AtomicU32,
    /// Answers other than 200 and 503.
    odd: Mutex<Vec<String>>,
}

impl Load {
    fn pause(&self) {
        self.is_running.store(false, Ordering::SeqCst);
        let idle = wait_for(ANSWER * 4, || (self.busy.load(Ordering::SeqCst) == 0).then_some(()));
        assert!(idle.is_some(), "a client does not come to an end");
    }

    fn go_on(&self) {
        self.is_running.store(true, Ordering::SeqCst);
    }
}

/// A client that sends REGISTERs for its phones to whichever node.
fn client(load: &Load, mut agent: Agent, phones: &[Mutex<Phone>], nodes: &[std::net::SocketAddr], mut dice: Dice) {
    while !load.is_over.load(Ordering::SeqCst) {
        load.busy.fetch_add(1, Ordering::SeqCst);
        if load.is_running.load(Ordering::SeqCst) {
            let mut phone = phones[dice.below(phones.len())].lock().expect("no client has panicked");
            let is_fresh = phone.history.last().is_some_and(|event| event.at.elapsed() < PHONES_PAUSE);
            if !is_fresh {
                let node = dice.below(nodes.len());
                agent.peer = nodes[node];
                let is_removal = match phone.belief {
                    Belief::Removed => false,
                    Belief::Bound => dice.below(5) < 2,
                    Belief::Unsure => dice.below(2) == 0,
                };
                change(load, &agent, &mut phone, node, is_removal);
            }
        }
        load.busy.fetch_sub(1, Ordering::SeqCst);
        std::thread::sleep(PAUSE);
    }
}

/// A phone registers, refreshes its registration, or removes it.
fn change(load: &Load, agent: &Agent, phone: &mut Phone, node: usize, is_removal: bool) {
    phone.cseq += 1;
    let expires = if is_removal { 0 } else { EXPIRES };
    let mut request = agent.register(DOMAIN, &phone.user, &format!("<{}>", phone.contact), expires);
    request.call_id.clone_from(&phone.call_id);
    request.cseq = phone.cseq;
    let end = Instant::now() + ANSWER;
    let mut answer = None;
    while answer.is_none() && Instant::now() < end {
        agent.send(&request);
        let until = (Instant::now() + REPETITION).min(end);
        while let Some(message) = agent.receive(until.saturating_duration_since(Instant::now())) {
            if message.is_final_for("REGISTER") && message.call_id() == phone.call_id && message.cseq() == phone.cseq {
                answer = Some(message);
                break;
            }
        }
    }
    agent.forget();
    let status = answer.as_ref().and_then(|answer| answer.status());
    let has_it = answer.as_ref().is_some_and(|answer| answer.contacts().contains(&phone.contact));
    phone.belief = match (status, is_removal) {
        (Some(200), true) => Belief::Removed,
        (Some(200), false) => Belief::Bound,
        _ => Belief::Unsure,
    };
    if status == Some(200) {
        load.answered.fetch_add(1, Ordering::SeqCst);
    }
    let is_odd = !matches!(status, None | Some(200 | 503)) || status == Some(200) && has_it == is_removal;
    if is_odd {
        load.odd
            .lock()
            .expect("no client has panicked")
            .push(format!("{request:?} was answered {answer:?}", request = request.bytes()));
    }
    phone.history.push(Event { at: Instant::now(), node, is_removal, cseq: phone.cseq, status });
}

fn phones(agent: &Agent, client: usize) -> Vec<Mutex<Phone>> {
    let phone = |number: usize| {
        let user = format!("u{client}-{number}");
        let contact = format!("sip:{user}@{}", agent.address);
        let call_id = format!("rounds-{}", unique());
        Mutex::new(Phone { user, contact, call_id, cseq: 0, belief: Belief::Removed, history: Vec::new() })
    };
    (0..PHONES).map(phone).collect()
}

// ---- what is found -----------------------------------------------------------------------------------------------------

type Table = BTreeMap<String, Vec<String>>;

fn tables(cluster: &Cluster) -> Option<Vec<Table>> {
    cluster.nodes.iter().map(|node| node.bindings()).collect()
}

/// What contradicts the clients: acknowledged bindings that a node does not know, and removed ones that it does.
fn contradictions(tables: &[Table], all: &[Vec<Mutex<Phone>>], began: Instant) -> Vec<String> {
    let mut found = Vec::new();
    for phone in all.iter().flatten() {
        let phone = phone.lock().expect("no client has panicked");
        let aor = format!("sip:{}@{DOMAIN}", phone.user);
        let has = |table: &Table| table.get(&aor).is_some_and(|contacts| contacts.contains(&phone.contact));
        let known: Vec<bool> = tables.iter().map(has).collect();
        let (what, wrong) = match phone.belief {
            Belief::Bound => ("lost", known.contains(&false)),
            Belief::Removed => ("back", known.contains(&true)),
            Belief::Unsure => ("not the same everywhere", known.contains(&true) && known.contains(&false)),
        };
        if wrong {
            let events = phone.history.iter().rev().take(8).rev().map(|event| {
                let what = if event.is_removal { "removed" } else { "registered" };
                let at = event.at.saturating_duration_since(began).as_secs_f64();
                format!("\n    {at:.3} s: {what} at node-{}, CSeq {}: {:?}", event.node + 1, event.cseq, event.status)
            });
            found.push(format!("{aor} is {what}; known to the nodes: {known:?}{}", events.collect::<String>()));
        }
    }
    found
}

/// What one round has seen.
struct Seen {
    /// 200s until the clients stopped, and those of the last tenth of a second before the kill.
    answered: u32,
    last_moment: usize,
    /// Bound, removed, and what nobody is sure of.
    believed: [usize; 3],
    /// From the kill until all was up again and registrations were accepted everywhere, and from then until all nodes agreed.
    healed: Duration,
    agreed: Option<Duration>,
    contradictions: Vec<String>,
}

struct Scene<'a, 'b> {
    cluster: &'a mut Cluster<'b>,
    place: &'a Place,
    load: &'a Load,
    all: &'a [Vec<Mutex<Phone>>],
    probe: Agent,
    dice: Dice,
    began: Instant,
}

impl Scene<'_, '_> {
    fn round(&mut self, kind: Kind) -> Seen {
        let before = self.load.answered.load(Ordering::SeqCst);
        self.load.go_on();
        // Nothing can be lost of phones that nobody is sure of.
        let sure = wait_for(HEALING, || (self.count(Belief::Unsure) <= CLIENTS * PHONES / 8).then_some(()));
        assert!(sure.is_some(), "registrations are not accepted");
        let node = format!("node-{}", 1 + self.dice.below(NODES));
        let primary = self.cluster.primaries().0.expect("a primary");
        self.sleep_below(700);
        let killed = Instant::now();
        match kind {
            Kind::Node => self.cluster.kill(&node),
            Kind::Primary => self.cluster.kill(&primary),
            Kind::Both => self.cluster.kill(&format!("{primary} {node}")),
            Kind::PausedPrimary => _ = self.cluster.command(&format!("pause {primary}"), "paused"),
        }
        // What was answered last must not be covered up by what comes later; but phones that come back meanwhile are load, too.
        let stops = self.dice.below(4) > 0;
        if stops {
            self.sleep_below(300);
            self.load.pause();
        }
        self.bring_back(kind, &node, &primary);
        self.await_health();
        self.load.pause();
        let healed = killed.elapsed();
        let began = Instant::now();
        let mut contradictions = Vec::new();
        let agreed = wait_for(AGREEMENT, || {
            let tables = tables(self.cluster)?;
            contradictions = self::contradictions(&tables, self.all, self.began);
            contradictions.is_empty().then(|| began.elapsed())
        });
        let phones = || self.all.iter().flatten().map(|phone| phone.lock().expect("no client has panicked"));
        let is_last = |event: &&Event| {
            event.status == Some(200)
                && event.at <= killed
                && killed.saturating_duration_since(event.at) < Duration::from_millis(100)
        };
        Seen {
            answered: self.load.answered.load(Ordering::SeqCst) - before,
            last_moment: phones().map(|phone| phone.history.iter().filter(is_last).count()).sum(),
            believed: [Belief::Bound, Belief::Removed, Belief::Unsure].map(|belief| self.count(belief)),
            healed,
            agreed,
            contradictions,
        }
    }

    /// Starts again what was killed. A primary has nothing on disk, so another must have taken its place before; but not all sentinels
    /// need to have said so, and then the nodes are sent to the empty one for a while.
    fn bring_back(&mut self, kind: Kind, node: &str, primary: &str) {
        let node_first = self.dice.below(2) == 0;
        if kind == Kind::Node || kind == Kind::Both && node_first {
            self.sleep_below(1000);
            self.cluster.restart(node);
        }
        if kind == Kind::Node {
            return;
        }
        let is_early = kind != Kind::PausedPrimary && self.dice.below(4) == 0;
        let cluster = &mut self.cluster;
        let follows = wait_for(HEALING, || {
            let (by_itself, by_sentinels) = cluster.primaries();
            let now = if is_early { by_itself } else { by_sentinels };
            now.filter(|now| now != primary)
        });
        assert!(follows.is_some(), "no other Redis has become the primary");
        if kind == Kind::PausedPrimary {
            self.sleep_below(1000);
            self.cluster.command(&format!("resume {primary}"), "resumed");
            return;
        }
        self.cluster.restart(primary);
        if kind == Kind::Both && !node_first {
            self.cluster.restart(node);
        }
    }

    /// Waits until each node shares the table, has nothing to tell, and accepts registrations.
    fn await_health(&mut self) {
        for node in &self.cluster.nodes {
            self.probe.peer = node.address;
            let well = wait_for(HEALING, || {
                let contact = format!("<{}>", self.probe.uri());
                self.probe.send(&self.probe.register(DOMAIN, &format!("probe-{}", node.name), &contact, EXPIRES));
                let answer = self.probe.receive(ANSWER);
                self.probe.forget();
                std::thread::sleep(Duration::from_millis(50));
                let is_well = answer?.status() == Some(200)
                    && node.stat("strowger_shared_up") == Some(1.0)
                    && node.stat("strowger_shared_untold") == Some(0.0);
                is_well.then_some(())
            });
            assert!(well.is_some(), "{} does not recover:\n{}", node.name, node.log());
        }
    }

    fn count(&self, belief: Belief) -> usize {
        let phones = self.all.iter().flatten().map(|phone| phone.lock().expect("no client has panicked"));
        phones.filter(|phone| phone.belief == belief).count()
    }

    fn sleep_below(&mut self, milliseconds: usize) {
        std::thread::sleep(Duration::from_millis(self.dice.below(milliseconds) as u64));
    }
}

// ---- the rounds --------------------------------------------------------------------------------------------------------

/// So many kills, of each kind in turn, and a primary that hangs after each tenth and at the end.
fn plan(kills: usize) -> Vec<Kind> {
    let kinds = [Kind::Both, Kind::Node, Kind::Primary];
    let mut plan = Vec::new();
    for number in 0..kills {
        plan.push(kinds[number % kinds.len()]);
        if (number + 1) % 10 == 0 || number + 1 == kills {
            plan.push(Kind::PausedPrimary);
        }
    }
    plan
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// Redis keeps nothing on disk, so that its replica and the nodes are all there is.
#[test]
fn nothing_acknowledged_is_lost_and_nothing_removed_comes_back() {
    let kills = number_from("STROWGER_ROUNDS").unwrap_or(6) as usize;
    let seed = number_from("STROWGER_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let place = Place::new("kill-rounds");
    let mut cluster = Cluster::start(&place, &["--appendonly", "no"]);
    let nodes: Vec<std::net::SocketAddr> = cluster.nodes.iter().map(|node| node.address).collect();
    let agents: Vec<Agent> = (0..CLIENTS).map(|number| Agent::new(place.at(FIRST_CLIENT + number as u8), nodes[0])).collect();
    let all: Vec<Vec<Mutex<Phone>>> = agents.iter().enumerate().map(|(number, agent)| phones(agent, number)).collect();
    let load = Load::default();
    eprintln!("seed {seed}, {kills} kills, {} phones of {CLIENTS} clients", CLIENTS * PHONES);
    std::thread::scope(|scope| {
        for (number, (agent, phones)) in agents.into_iter().zip(&all).enumerate() {
            let (load, nodes) = (&load, &nodes);
            let dice = Dice(seed.wrapping_add(number as u64 + 1));
            scope.spawn(move || client(load, agent, phones, nodes, dice));
        }
        let probe = Agent::new(place.at(PROBE), nodes[0]);
        let mut scene =
            Scene { cluster: &mut cluster, place: &place, load: &load, all: &all, probe, dice: Dice(seed), began: Instant::now() };
        // The threads end even if a round panics.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rounds(&mut scene, &plan(kills))));
        load.is_over.store(true, Ordering::SeqCst);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    cluster.end();
}

/// Of all rounds of a kind.
#[derive(Default)]
struct Total {
    rounds: u32,
    answered: u32,
    bound: usize,
    removed: usize,
    healed: Duration,
    agreed: Duration,
}

fn rounds(scene: &mut Scene, plan: &[Kind]) {
    let mut totals: BTreeMap<Kind, Total> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (number, kind) in plan.iter().enumerate() {
        let seen = scene.round(*kind);
        let [bound, removed, unsure] = seen.believed;
        let agreed = seen.agreed.map_or("never".to_owned(), |time| format!("after {:.2} s", time.as_secs_f64()));
        eprintln!(
            "round {number}, {kind:?}: {} answered 200, {} of them in the 0.1 s before; then {bound} bound, {removed} removed, {unsure} unsure; \
             healed in {:.1} s, all agreed {agreed}",
            seen.answered,
            seen.last_moment,
            seen.healed.as_secs_f64()
        );
        for contradiction in &seen.contradictions {
            eprintln!("  {contradiction}");
        }
        let total = totals.entry(*kind).or_default();
        total.rounds += 1;
        total.answered += seen.answered;
        total.bound += bound;
        total.removed += removed;
        total.healed = total.healed.max(seen.healed);
        total.agreed = total.agreed.max(seen.agreed.unwrap_or_default());
        wrong.extend(seen.contradictions.into_iter().map(|what| format!("round {number}, {kind:?}: {what}")));
        let odd = std::mem::take(&mut *scene.load.odd.lock().expect("no client has panicked"));
        assert!(odd.is_empty(), "answers that no phone expects: {odd:#?}");
        assert!(wrong.is_empty(), "{}\n{}", scene.place.directory().display(), wrong.join("\n"));
    }
    for (kind, total) in totals {
        let [healed, agreed] = [total.healed, total.agreed].map(|time| time.as_secs_f64());
        eprintln!(
            "{kind:?}: {} rounds, {} answered 200; {} bindings and {} removals looked for at each node; healed within {healed:.1} s, \
             agreed within {agreed:.2} s more",
            total.rounds, total.answered, total.bound, total.removed
        );
    }
}
