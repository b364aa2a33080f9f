//! Requests of our own (RFC 3261 §8.1): OPTIONS to route targets that are to be probed, REGISTER to carriers. One core does it for
//! all.

mod duty;
mod registration;
mod standing;

use crate::base::{Channel, Flow, Id, Instant, Key, Transport};
use crate::sip::{Index, Message};
use crate::stack::branch::Mark;
use crate::stack::counters::Drop;
use crate::stack::health::{Cause, NamedBy, Neighbour, Standing};
use crate::stack::proxy::Proxy;
use crate::stack::proxy::hop::{Hop, RequestCopy};
use crate::stack::proxy::locate::{Search, ServerAddress, Tried};
use crate::stack::proxy::target::TargetSet;
use crate::stack::refusal::Obstacle;
use crate::stack::request::Request;
use crate::stack::settings::Settings;
use crate::stack::transaction::{Client, ClientKind};
use crate::stack::trunk::Trunk;
use crate::stack::trunk_table::State;
use crate::stack::turn::Turn;
use duty::{Duty, UnderWay, What, write_domain};
use registration::{Next, Registration, Reply};
use std::sync::Arc;

/// The first requests leave within this time after the start, in milliseconds.
const FIRST_MS: u64 = 1000;

/// The server transaction of a request that has none.
const NO_SERVER: Id = Id { slot: u32::MAX, generation: u32::MAX };

/// The requests that one core originates.
pub(in crate::stack) struct Uac {
    duties: Vec<Duty>,
    key: Key,
    /// A counter for values that must differ.
    number: u64,
    /// The conf has changed since the duties were derived from it.
    is_outdated: bool,
    /// The server is about to stop: registrations are being removed.
    is_leaving: bool,
    /// A successor has taken over what is requested here.
    is_resting: bool,
    /// Scratch buffer reused for each request.
    text: Vec<u8>,
    index: Index,
    targets: TargetSet,
}

impl Uac {
    pub fn new(secret: Key, is_first: bool, settings: &Settings) -> Uac {
        Uac {
            duties: Vec::new(),
            key: secret.derive("requests of our own"),
            number: 0,
            is_outdated: is_first && has_duties(settings),
            is_leaving: false,
            is_resting: false,
            text: Vec::new(),
            index: Index::default(),
            targets: TargetSet::default(),
        }
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        match self.is_outdated {
            true => Some(Instant::default()),
            false => self.duties.iter().map(|duty| duty.due).min().filter(|due| *due != Instant::NEVER),
        }
    }

    /// Does what is due.
    pub fn run(&mut self, turn: &mut Turn, proxy: &mut Proxy) {
        if std::mem::take(&mut self.is_outdated) {
            self.set_up(turn);
        }
        for place in 0..self.duties.len() {
            if self.duties[place].due <= turn.now {
                self.act(turn, proxy, place);
            }
        }
        self.duties
            .retain(|duty| !(duty.is_leaving() && duty.due == Instant::NEVER && duty.under_way.is_none() && !duty.is_parked));
    }

    /// Retries what waits for a DNS answer, because one has arrived.
    pub fn look_again(&mut self, turn: &mut Turn, proxy: &mut Proxy) {
        for place in 0..self.duties.len() {
            match &self.duties[place] {
                duty if duty.is_parked => self.send(turn, proxy, place),
                Duty { seeks_another: true, under_way: Some(silent), .. } => self.replace(turn, proxy, place, *silent),
                _ => {}
            }
        }
    }

    /// Processes a response to the request of this client transaction.
    pub fn process_response(&mut self, turn: &mut Turn, proxy: &mut Proxy, client: Id, flow: Flow, message: &Message) {
        let place = self.place_of(client);
        let is_fitting = place.is_some_and(|place| message.method_name().eq_ignore_ascii_case(self.duties[place].method()));
        if place.is_some() && !is_fitting {
            return turn.core.counters.drop(Drop::BadResponse);
        }
        if !turn.transactions.client_response(turn.now, client, message, turn.outbox) {
            return turn.core.counters.drop(Drop::Absorbed);
        }
        let (Some(place), 200..) = (place, message.status()) else {
            return;
        };
        let Some(under_way) = self.duties[place].under_way.take() else {
            debug_assert!(false, "who is found by its request has one");
            return;
        };
        if under_way.flow.peer == flow.peer {
            turn.core.sources.proved.note(turn.now, flow.peer);
        }
        let chance = self.chance();
        let duty = &mut self.duties[place];
        let mut uri = Vec::new();
        write_domain(&duty.hop().uri.uri(), &mut uri);
        let next = match &mut duty.what {
            What::Probe { .. } => {
                turn.note_alive(neighbour(under_way.flow));
                return self.probe_next(turn, proxy, place);
            }
            // RFC 3263 §4.3: a server that has no time is as good as one that is silent.
            What::Registration(registration) if message.status() == 503 && registration.may_go_elsewhere(&duty.tried) => {
                registration.note_busy(message);
                duty.since = turn.now;
                return self.send(turn, proxy, place);
            }
            What::Registration(registration) => {
                turn.note_alive(neighbour(under_way.flow));
                let settings = turn.core.settings.clone();
                let listener = settings.listeners.get(usize::from(under_way.flow.listener));
                let own = listener.map_or(&[][..], |listener| &listener.advertise);
                let reply = Reply { uri: &uri, own, server: under_way.server };
                if registration.is_leaving && !under_way.is_removal {
                    let is_held = registration.answered_at_last(turn.now, message, reply);
                    return self.leave_off(turn, proxy, place, is_held);
                }
                registration.answered(turn.now, message, reply, &mut turn.core.answering, chance)
            }
        };
        if next == Next::Again {
            // To the same server: the last one tried did not fail.
            duty.tried.pop();
            duty.again = under_way.server;
        }
        self.go_on(turn, proxy, place, next);
    }

    /// Handles a request that got no answer, or could not be delivered, and whose transaction is gone.
    pub fn handle_gone(&mut self, turn: &mut Turn, proxy: &mut Proxy, client: &Client, cause: Cause) {
        let transactions = &turn.transactions;
        let is_its =
            |duty: &Duty| duty.under_way.is_some_and(|one| one.flow == client.flow && transactions.client(one.client).is_none());
        if let Some(place) = self.duties.iter().position(is_its) {
            self.fail(turn, proxy, place, cause);
        }
    }

    fn place_of(&self, client: Id) -> Option<usize> {
        let is_its = |duty: &Duty| duty.under_way.is_some_and(|one| one.client == client);
        self.duties.iter().position(is_its)
    }

    fn chance(&mut self) -> u64 {
        self.number += 1;
        self.key.hash_numbers(self.number, 0, 1)
    }

    /// Sets up the duties of the present conf. A duty that remains keeps its state.
    fn set_up(&mut self, turn: &mut Turn) {
        let settings = turn.core.settings.clone();
        turn.core.trunks.keep(settings.trunks.iter().map(|trunk| &**trunk));
        let mut before = std::mem::take(&mut self.duties);
        let wanted = match self.is_leaving {
            true => Vec::new(),
            false => wanted(&settings),
        };
        for what in wanted {
            let known = before.iter().position(|duty| duty.what.is(&what) && !duty.is_leaving());
            let duty = match known {
                Some(place) => before.swap_remove(place),
                None => {
                    let due = turn.now.after_ms(self.chance() % FIRST_MS);
                    Duty::new(what, self.number, &self.key, due)
                }
            };
            self.duties.push(duty);
        }
        for duty in before {
            self.give_up(turn, duty);
        }
    }

    /// Ends a duty that the conf no longer has. A registration is given back, once what is on its way has its answer, unless another
    /// account for the same address goes on with it.
    fn give_up(&mut self, turn: &mut Turn, mut duty: Duty) {
        let under_way = duty.under_way;
        let What::Registration(registration) = &mut duty.what else {
            return abandon(turn, under_way);
        };
        let heir = self.duties.iter_mut().find_map(|other| match &mut other.what {
            What::Registration(other) if !other.is_leaving && other.address() == registration.address() => Some(other),
            _ => None,
        });
        if let Some(heir) = heir {
            heir.inherit(registration);
            return abandon(turn, under_way);
        }
        if registration.is_leaving {
            return self.duties.push(duty);
        }
        if under_way.is_none() && registration.until <= turn.now {
            return;
        }
        registration.is_leaving = true;
        duty.due = match under_way {
            Some(_) => turn.now.after_ms(turn.core.settings.next_hop.patience),
            None => turn.now,
        };
        (duty.is_parked, duty.again, duty.seeks_another) = (false, None, false);
        duty.tried.clear();
        self.duties.push(duty);
    }

    /// What was on its way when a registration was to be removed has its answer, or is not waited for any more.
    fn leave_off(&mut self, turn: &mut Turn, proxy: &mut Proxy, place: usize, is_held: bool) {
        let duty = &mut self.duties[place];
        duty.tried.clear();
        duty.since = turn.now;
        match is_held {
            true => self.send(turn, proxy, place),
            false => self.settle(turn, place, Next::Unneeded),
        }
    }

    /// Acts on a duty that is due.
    fn act(&mut self, turn: &mut Turn, proxy: &mut Proxy, place: usize) {
        let duty = &mut self.duties[place];
        if let Some(under_way) = duty.under_way {
            // It has waited long enough for its answer.
            if let What::Registration(registration) = &duty.what {
                let (is_leaving, is_held) = (registration.is_leaving, registration.until > turn.now);
                if !is_leaving {
                    return self.try_another(turn, proxy, place, under_way);
                }
                if !under_way.is_removal {
                    abandon(turn, duty.under_way.take());
                    return self.leave_off(turn, proxy, place, is_held);
                }
            }
            turn.transactions.abandon_client(turn.now, under_way.client, turn.outbox);
            return self.fail(turn, proxy, place, Cause::NoResponse);
        }
        if !duty.is_parked {
            duty.since = turn.now;
            return self.send(turn, proxy, place);
        }
        duty.is_parked = false;
        self.fail_to_start(turn, place, "its name is not answered by DNS in time");
    }

    /// The server that was asked for a registration has been silent for the patience of a next hop: another one of the name is
    /// asked, if there is one. Until one is known, this one keeps its time.
    fn try_another(&mut self, turn: &mut Turn, proxy: &mut Proxy, place: usize, silent: UnderWay) {
        turn.note_failure(neighbour(silent.flow), Cause::NoResponse, None);
        self.duties[place].since = turn.now;
        self.replace(turn, proxy, place, silent);
    }

    fn replace(&mut self, turn: &mut Turn, proxy: &mut Proxy, place: usize, silent: UnderWay) {
        let found = self.find(turn, proxy, place);
        self.duties[place].seeks_another = matches!(found, Err(Obstacle::Unknown(_)));
        match found {
            Ok(hop) => {
                abandon(turn, Some(silent));
                if let What::Registration(registration) = &mut self.duties[place].what {
                    registration.begin_anew();
                }
                self.leave(turn, proxy, place, &hop);
            }
            Err(_) => self.duties[place].due = Instant::NEVER,
        }
    }

    /// Finds the next place of the request's next hop.
    fn find(&mut self, turn: &mut Turn, proxy: &mut Proxy, place: usize) -> Result<Hop, Obstacle> {
        let duty = &self.duties[place];
        let mut uri = Vec::new();
        write_domain(&duty.hop().uri.uri(), &mut uri);
        let targets = &mut self.targets;
        targets.clear();
        targets.push(&uri, b"", 1000);
        targets.lead_to(duty.hop());
        if let (Some(target), None) = (targets.targets.last_mut(), duty.hop().address) {
            let is_well =
                |server: ServerAddress| turn.core.health.standing(turn.now, &server.named_by(NamedBy::Conf)) == Standing::Good;
            target.server_address = duty.preferred(turn.now, is_well);
        }
        // What decides the way does not depend on the Via.
        self.text.clear();
        duty.write(b"SIP/2.0/UDP invalid;branch=z9hG4bK", b"invalid", b"", &mut self.text);
        find_way(turn, proxy, &self.text, &mut self.index, &self.targets, duty)
    }

    /// Sends the request to the next place of its next hop, or makes it wait for a DNS answer.
    fn send(&mut self, turn: &mut Turn, proxy: &mut Proxy, place: usize) {
        let found = self.find(turn, proxy, place);
        let duty = &mut self.duties[place];
        duty.is_parked = false;
        match found {
            Ok(hop) => self.leave(turn, proxy, place, &hop),
            Err(Obstacle::Unknown(_)) => {
                duty.is_parked = true;
                duty.due = duty.since.after_ms(turn.core.settings.dns.timeout);
            }
            Err(Obstacle::Refused(_)) if !duty.tried.is_empty() => self.end_round(turn, place),
            Err(Obstacle::Refused(refusal)) => self.fail_to_start(turn, place, refusal.reason),
        }
    }

    fn leave(&mut self, turn: &mut Turn, proxy: &Proxy, place: usize, hop: &Hop) {
        proxy.introduce(turn, hop);
        let duty = &mut self.duties[place];
        (duty.cseq, duty.again, duty.seeks_another) = (duty.cseq + 1, None, false);
        let mut uri = Vec::new();
        write_domain(&duty.hop().uri.uri(), &mut uri);
        if let What::Registration(registration) = &mut duty.what {
            registration.prepare(&mut turn.core.answering, &uri);
        }
        let flow = hop.flow;
        let settings = turn.core.settings.clone();
        let listener = settings.listeners.get(usize::from(flow.listener));
        let advertised = listener.map_or(&[][..], |listener| &listener.advertise);
        let client = turn.transactions.next_client_id();
        let mut via = format!("SIP/2.0/{} ", flow.transport.name()).into_bytes();
        via.extend_from_slice(advertised);
        via.extend_from_slice(b";branch=");
        turn.core.signer.write_stateful(turn.core.number, client, Mark::default(), &mut via);
        via.extend_from_slice(b";rport");
        let transport: &[u8] = match flow.transport {
            Transport::Udp => b"",
            Transport::Tcp => b";transport=tcp",
            Transport::Tls => b";transport=tls",
        };
        let span = turn.outbox.send(flow, |out| duty.write(&via, advertised, transport, out));
        let client = turn.transactions.open_client(turn.now, ClientKind::Own, NO_SERVER, flow, span, turn.outbox);
        let patience = turn.core.settings.next_hop.patience;
        duty.due = match &duty.what {
            What::Probe { .. } => {
                turn.core.health.note_attempt(turn.now, &neighbour(flow));
                turn.now.after_ms(patience)
            }
            // A stopping server does not wait long for an absent carrier.
            What::Registration(registration) if registration.is_leaving => turn.now.after_ms(patience),
            // A name may lead to another server.
            What::Registration(_) if hop.server_address.is_some() => turn.now.after_ms(patience),
            What::Registration(_) => Instant::NEVER,
        };
        let is_removal = duty.is_leaving();
        duty.under_way = Some(UnderWay { client, flow, server: hop.server_address, is_removal });
        if let Some(server_address) = hop.server_address {
            duty.tried.push(Tried { target: 0, server_address });
        }
    }

    /// Handles the failure of the request in progress.
    fn fail(&mut self, turn: &mut Turn, proxy: &mut Proxy, place: usize, cause: Cause) {
        let chance = self.chance();
        let duty = &mut self.duties[place];
        let Some(under_way) = duty.under_way.take() else {
            return;
        };
        match &mut duty.what {
            What::Probe { .. } => {
                turn.note_failure(neighbour(under_way.flow), cause, None);
                self.probe_next(turn, proxy, place);
            }
            // What was on its way when the registration was to be removed.
            What::Registration(registration) if registration.is_leaving && !under_way.is_removal => {
                let is_held = registration.until > turn.now;
                self.leave_off(turn, proxy, place, is_held);
            }
            What::Registration(registration) if registration.may_go_elsewhere(&duty.tried) => {
                turn.note_failure(neighbour(under_way.flow), cause, None);
                // RFC 3263 §4.3: the next server of the name, if there is one.
                registration.begin_anew();
                duty.since = turn.now;
                self.send(turn, proxy, place);
            }
            What::Registration(registration) => {
                let peer = under_way.flow.peer;
                let next = registration.fail(format!("{} from {peer}", cause.words()), None, chance);
                self.go_on(turn, proxy, place, next);
            }
        }
    }

    /// Handles the case that no request could be sent.
    fn fail_to_start(&mut self, turn: &mut Turn, place: usize, why: &str) {
        let chance = self.chance();
        let duty = &mut self.duties[place];
        match &mut duty.what {
            What::Probe { hop, .. } => {
                if turn.core.log.may_say() {
                    log::warn!("target {} is not probed: {why}", String::from_utf8_lossy(hop.uri.text()));
                }
                self.end_round(turn, place);
            }
            What::Registration(registration) => {
                let next = registration.fail(why.to_owned(), None, chance);
                self.settle(turn, place, next);
            }
        }
    }

    /// Continues after one place of a target was probed: with the next that its name leads to, or the end of this round.
    fn probe_next(&mut self, turn: &mut Turn, proxy: &mut Proxy, place: usize) {
        if self.duties[place].tried.is_empty() {
            return self.end_round(turn, place);
        }
        self.duties[place].since = turn.now;
        self.send(turn, proxy, place);
    }

    /// Ends a round in which all places of the next hop were probed.
    fn end_round(&mut self, turn: &mut Turn, place: usize) {
        let chance = self.chance();
        let duty = &mut self.duties[place];
        duty.tried.clear();
        match &mut duty.what {
            What::Probe { every, .. } => {
                // Give or take a tenth, so that not all targets are probed at once.
                duty.due = turn.now.after_ms(*every * (900 + chance % 201) / 1000);
            }
            What::Registration(registration) => {
                let next = registration.fail_everywhere(chance);
                self.settle(turn, place, next);
            }
        }
    }

    fn go_on(&mut self, turn: &mut Turn, proxy: &mut Proxy, place: usize, next: Next) {
        if next != Next::Again {
            return self.settle(turn, place, next);
        }
        let duty = &mut self.duties[place];
        duty.since = turn.now;
        self.send(turn, proxy, place);
    }

    /// Applies the outcome of a registration to the log, the table and the timer.
    fn settle(&mut self, turn: &mut Turn, place: usize, next: Next) {
        let duty = &mut self.duties[place];
        let What::Registration(registration) = &mut duty.what else {
            debug_assert!(false, "only registrations are settled");
            return;
        };
        duty.tried.clear();
        duty.again = None;
        let name = &registration.trunk.name;
        let address = registration.address();
        let address = String::from_utf8_lossy(&address);
        let was = turn.core.trunks.state(name);
        let (state, due) = match next {
            Next::Granted(wait) => {
                if was != Some(State::Registered) {
                    let seconds = registration.until.ms_since(turn.now) / 1000;
                    log::info!("trunk {name:?}: registered as {address} for {seconds} s");
                }
                (State::Registered, turn.now.after_ms(wait))
            }
            Next::Failed(wait, why) => {
                let state = State::Failed(why);
                if let (State::Failed(why), true) = (&state, was.as_ref() != Some(&state)) {
                    log::warn!("trunk {name:?}: {address} is not registered: {why}; next try in {} s", wait / 1000);
                }
                (state, turn.now.after_ms(wait))
            }
            Next::Gone { is_answered: true } => {
                log::info!("trunk {name:?}: the registration of {address} is given back");
                registration.until = Instant::default();
                (State::Unused, Instant::NEVER)
            }
            Next::Unneeded => (State::Unused, Instant::NEVER),
            Next::Gone { is_answered: false } | Next::Again => {
                log::warn!("trunk {name:?}: {address} stays registered until it expires: nobody has taken that back");
                registration.until = Instant::default();
                (State::Unused, Instant::NEVER)
            }
        };
        duty.due = due;
        turn.core.trunks.note(name, state, registration.until, due);
    }
}

impl Duty {
    fn is_leaving(&self) -> bool {
        matches!(&self.what, What::Registration(registration) if registration.is_leaving)
    }
}

impl What {
    /// Returns whether it is the same duty.
    fn is(&self, other: &What) -> bool {
        match (self, other) {
            (What::Probe { hop, every }, What::Probe { hop: other, every: others }) => hop == other && every == others,
            (What::Registration(one), What::Registration(other)) => one.trunk == other.trunk,
            _ => false,
        }
    }
}

/// The answer to a request is not waited for any more.
fn abandon(turn: &mut Turn, under_way: Option<UnderWay>) {
    if let Some(under_way) = under_way {
        turn.transactions.abandon_client(turn.now, under_way.client, turn.outbox);
    }
}

fn has_duties(settings: &Settings) -> bool {
    !settings.trunks.is_empty() || settings.routes.iter().any(|route| route.probe.is_some())
}

/// Returns what the conf wants: a target named by several routes is probed at the shortest of their intervals.
fn wanted(settings: &Settings) -> Vec<What> {
    let mut list: Vec<What> = Vec::new();
    for (route, wish) in settings.routes.iter().filter_map(|route| Some((route, route.probe?))) {
        for hop in route.hops() {
            let known = list.iter_mut().find_map(|what| match what {
                What::Probe { hop: known, every } if known == hop => Some(every),
                _ => None,
            });
            match known {
                Some(every) => *every = wish.min(*every),
                None => list.push(What::Probe { hop: hop.clone(), every: wish }),
            }
        }
    }
    let registering = settings.trunks.iter().filter(|trunk| trunk.register);
    let registration = |trunk: &Arc<Trunk>| What::Registration(Box::new(Registration::new(trunk.clone())));
    list.extend(registering.map(registration));
    list
}

/// Finds where the request goes, as for any request to a next hop of the conf.
fn find_way(
    turn: &mut Turn,
    proxy: &mut Proxy,
    text: &[u8],
    index: &mut Index,
    targets: &TargetSet,
    duty: &Duty,
) -> Result<Hop, Obstacle> {
    let settings = turn.core.settings.clone();
    let own = settings.listeners.first().map_or(([0, 0, 0, 0], 0).into(), |listener| listener.address);
    let message = Message::parse(text, index);
    let request = message.as_ref().ok().and_then(|message| {
        let via = message.top_via().ok()?;
        Request::new(Flow::datagram(0, own), message, &via).ok()
    });
    let (Some(request), Some(target)) = (request, targets.targets.first()) else {
        debug_assert!(false, "a request of our own can be read");
        return Err(crate::stack::refusal::Refusal::new(500, "a request that cannot be read").into());
    };
    let search = Search { since: duty.since, target: 0, tried: &duty.tried, is_late: false };
    let copy = RequestCopy::new(targets, target, 1, search);
    proxy.next_hop(turn, &request, &copy)
}

fn neighbour(flow: Flow) -> Neighbour {
    debug_assert!(!matches!(flow.channel, Channel::Back));
    Neighbour { named_by: NamedBy::Conf, transport: flow.transport, address: flow.peer }
}
