//! A server in the laboratory: its cores, the kernel's choice among them, the mail between them, and its timers.

use super::addresses::{dead, nobody};
use super::air::{Air, What};
use super::auditor::Auditor;
use super::digest::Algorithm;
use super::hashing::digest;
use super::intent::Intent;
use super::link::{PLACES, State, number};
use super::names::{Reply, Zone};
use super::plan::ServerPlan;
use super::reading::{Field, Reading};
use super::rule::Rule;
use super::sabotage::Saboteur;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use strowger::base::dns::Answer;
use strowger::base::{Channel, Errand, Flow, Instant, LiveConnections, Outbox, Sources};
use strowger::sip::sniff;
use strowger::stack::auth::digest::Hash;
use strowger::stack::auth::nonce::Nonces;
use strowger::stack::auth::users::{Entry, Users};
use strowger::stack::counters::Drop;
use strowger::stack::health::Health;
use strowger::stack::{Element, Endpoint, Location, Occupancy};

pub struct Server {
    pub number: usize,
    pub addresses: Vec<SocketAddr>,
    pub location: Arc<Location>,
    pub saboteur: Saboteur,
    endpoints: Vec<Endpoint>,
    live: Arc<LiveConnections>,
    /// What was written on which connection.
    written: BTreeSet<(u64, Flow)>,
    /// For each core, the moment of its timer event in the queue.
    armed: Vec<Option<Instant>>,
    /// For each pair of cores, when the last parcel arrives: mail keeps its order.
    post: Vec<Instant>,
    /// Cores whose timers are swallowed.
    stopped: Vec<bool>,
    mail_ms: u64,
    tick_ms: u64,
    icmp: bool,
    zone: Arc<Zone>,
    outbox: Outbox,
}

/// What the server's user database holds.
fn users_of(plan: &ServerPlan) -> Arc<Users> {
    let mut users = Users::new(plan.key.derive("users"), plan.accounts.len());
    for account in &plan.accounts {
        users.insert(&Entry {
            name: account.user.as_bytes(),
            domain: account.realm.as_bytes(),
            md5: Hash::new(&account.ha1(Algorithm::Md5)),
            sha256: Hash::new(&account.ha1(Algorithm::Sha256)),
            ..Entry::default()
        });
    }
    Arc::new(users)
}

/// The cores of one run of the server.
fn endpoints_of(plan: &ServerPlan, location: &Arc<Location>, live: &Arc<LiveConnections>, run: u32) -> Vec<Endpoint> {
    let users = users_of(plan);
    let nonces = Arc::new(Nonces::new(plan.key, run, 4096));
    let sources = Arc::new(Sources::new(plan.key, 0));
    let health = Arc::new(Health::new(plan.key));
    let each = |core| {
        let settings = Arc::clone(&plan.settings);
        let (location, live) = (Arc::clone(location), Arc::clone(live));
        let mut endpoint = Endpoint::new(settings, location, live, core, plan.key);
        endpoint.share_nonces(Arc::clone(&nonces));
        endpoint.share_sources(Arc::clone(&sources));
        endpoint.share_health(Arc::clone(&health));
        endpoint.handle_users(Arc::clone(&users));
        endpoint
    };
    (0..plan.settings.cores).map(each).collect()
}

impl Server {
    pub fn new(number: usize, plan: &ServerPlan, icmp: bool, zone: &Arc<Zone>, saboteur: Saboteur) -> Server {
        let cores = plan.settings.cores;
        let location = Arc::new(Location::new(plan.key.derive("location"), 100_000));
        let live = Arc::new(LiveConnections::new(usize::from(cores), PLACES));
        let endpoints = endpoints_of(plan, &location, &live, 1);
        let count = cores as usize;
        Server {
            number,
            addresses: plan.addresses.clone(),
            location,
            saboteur,
            endpoints,
            live,
            written: BTreeSet::new(),
            armed: vec![None; count],
            post: vec![Instant::default(); count * count],
            stopped: vec![false; count],
            mail_ms: plan.mail_ms,
            tick_ms: plan.tick_ms,
            icmp,
            zone: Arc::clone(zone),
            outbox: Outbox::default(),
        }
    }

    /// Begins anew, with the same secret and the bindings that there are.
    pub fn restart(&mut self, plan: &ServerPlan) {
        self.endpoints = endpoints_of(plan, &self.location, &self.live, self.saboteur.run(2));
        self.armed.fill(None);
    }

    /// As SO_REUSEPORT chooses: by the two addresses.
    fn core_for(&self, from: SocketAddr, to: SocketAddr) -> usize {
        let text = format!("{from} {to}");
        (digest(text.as_bytes()) % self.endpoints.len() as u64) as usize
    }

    /// A datagram arrived at one of the listeners.
    pub fn receive(
        &mut self,
        air: &mut Air,
        auditor: &mut Auditor,
        from: SocketAddr,
        to: SocketAddr,
        message: &Rc<Reading>,
        intent: Intent,
    ) {
        let Some(listener) = self.addresses.iter().position(|a| *a == to) else {
            return;
        };
        air.statistics.received_by_servers += 1;
        let core = self.core_for(from, to);
        let flow = Flow::datagram(listener as u16, from);
        auditor.ingress(air, self.number, from, message, intent);
        self.endpoints[core].handle(air.now, flow, &message.bytes, &mut self.outbox);
        let extra = self.saboteur.incoming(flow, message);
        self.flush(air, auditor, core);
        if let Some((flow, bytes)) = extra {
            self.transmit(air, auditor, flow, bytes);
        }
    }

    pub fn receive_mail(&mut self, air: &mut Air, auditor: &mut Auditor, core: u8, errand: Errand, flow: Flow, bytes: &[u8]) {
        air.statistics.mails += 1;
        let message = Rc::new(Reading::new(bytes.to_vec()));
        air.note("mail", flow.peer, self.addresses[0], &message);
        auditor.turn(self.number, Some((flow.peer, &message)));
        let core = core as usize;
        self.endpoints[core].handle_mail(air.now, errand, flow, bytes, &mut self.outbox);
        self.flush(air, auditor, core);
    }

    pub fn serve_timers(&mut self, air: &mut Air, auditor: &mut Auditor, core: u8) {
        let core = core as usize;
        if self.armed[core] != Some(air.now) {
            return;
        }
        self.armed[core] = None;
        if self.stopped[core] || self.saboteur.swallows_timers(core as u8) {
            self.stopped[core] = true;
            return;
        }
        auditor.turn(self.number, None);
        self.endpoints[core].handle_timers(air.now, &mut self.outbox);
        self.flush(air, auditor, core);
    }

    pub fn hear_answer(&mut self, air: &mut Air, auditor: &mut Auditor, core: u8, answer: Box<Answer>) {
        auditor.turn(self.number, None);
        let core = core as usize;
        self.endpoints[core].handle_answer(air.now, *answer, &mut self.outbox);
        self.flush(air, auditor, core);
    }

    /// Asks the name servers. What they say at once is heard in the same turn.
    fn ask(&mut self, air: &mut Air, core: usize) {
        let mut next = 0;
        while let Some(question) = self.outbox.questions.get(next).copied() {
            next += 1;
            air.statistics.questions += 1;
            match self.zone.reply(air.now, &question) {
                Reply::Late { ms: 0, answer } => {
                    self.endpoints[core].handle_answer(air.now, *answer, &mut self.outbox);
                }
                Reply::Late { ms, answer } => {
                    let (server, core) = (self.number, core as u8);
                    let what = What::Answer { server, core, answer };
                    air.later(ms, what);
                }
                Reply::Never => air.statistics.questions_unanswered += 1,
            }
        }
    }

    pub fn hear_undelivered(&mut self, air: &mut Air, auditor: &mut Auditor, core: u8, message: &Reading) {
        air.statistics.unreachable += 1;
        auditor.turn(self.number, None);
        auditor.undelivered(self.number, message);
        let core = core as usize;
        self.endpoints[core].handle_undelivered(air.now, &message.bytes, &mut self.outbox);
        self.flush(air, auditor, core);
    }

    /// What each core has dropped, for people.
    pub fn dropped(&self) -> String {
        let mut out = String::new();
        for (core, endpoint) in self.endpoints.iter().enumerate() {
            let counters = endpoint.counters();
            for reason in Drop::ALL {
                let count = counters.dropped[*reason as usize];
                if count > 0 {
                    out += &format!("{}.{core} {}={count} ", self.number, reason.label());
                }
            }
        }
        out
    }

    /// A part of the sweep, or all of it.
    pub fn sweep(&mut self, now: Instant, shards: usize) {
        for _ in 0..shards {
            self.location.sweep(now);
        }
        #[cfg(debug_assertions)]
        self.location.check();
    }

    pub fn occupancy(&self) -> impl Iterator<Item = Occupancy> + '_ {
        let extra = self.saboteur.extra_records();
        self.endpoints.iter().map(move |endpoint| {
            let mut occupancy = endpoint.occupancy();
            occupancy.server_transactions += extra;
            occupancy
        })
    }

    /// Sends what a turn left in the outbox, and sets the core's alarm anew.
    fn flush(&mut self, air: &mut Air, auditor: &mut Auditor, core: usize) {
        #[cfg(debug_assertions)]
        {
            self.outbox.check();
            self.endpoints[core].check();
        }
        self.ask(air, core);
        let mut outbox = std::mem::take(&mut self.outbox);
        for transmit in &outbox.transmits {
            let bytes = outbox.get(transmit.span).to_vec();
            self.transmit_from(air, auditor, transmit.flow, bytes);
        }
        for flow in &outbox.releases {
            let link = match flow.channel {
                Channel::Peer { name, call } if call != 0 => {
                    let wanted = Some((name, call));
                    let own =
                        |link: &super::link::Link| link.names == wanted && link.server == self.number && link.phone == flow.peer;
                    air.links.iter().rposition(own)
                }
                _ => number(flow),
            };
            if let Some(link) = link.filter(|link| air.links[*link].is_private()) {
                air.statistics.releases += 1;
                let drained = air.links[link].drained().after_ms(1);
                air.at(drained, What::LinkLost { link });
            }
        }
        for parcel in &outbox.parcels {
            let delay = air.rng.below(self.mail_ms + 1);
            let count = self.endpoints.len();
            let to = parcel.core as usize;
            if to >= count {
                auditor.complain(super::rule::Rule::Quiet, self.number, format!("mail for core {to}, which does not exist"), None);
                continue;
            }
            let post = &mut self.post[core * count + to];
            *post = (*post).max(air.now.after_ms(delay));
            let at = *post;
            air.at(
                at,
                What::Mail {
                    server: self.number,
                    core: parcel.core,
                    errand: parcel.errand,
                    flow: parcel.flow,
                    bytes: outbox.get(parcel.span).to_vec(),
                },
            );
        }
        outbox.clear();
        self.outbox = outbox;
        self.arm(air, core);
    }

    fn arm(&mut self, air: &mut Air, core: usize) {
        let Some(next) = self.endpoints[core].next_timeout() else {
            return;
        };
        let earliest = air.now.after_ms(1).max(next);
        if self.stopped[core] || self.armed[core].is_some_and(|at| at <= earliest) {
            return;
        }
        let at = earliest.after_ms(air.rng.below(self.tick_ms + 1));
        self.armed[core] = Some(at);
        air.at(at, What::Timers { server: self.number, core: core as u8 });
    }

    fn transmit_from(&mut self, air: &mut Air, auditor: &mut Auditor, flow: Flow, bytes: Vec<u8>) {
        let message = Rc::new(Reading::new(bytes));
        let mut instead = Vec::new();
        let swallowed = self.saboteur.outgoing(air.now, flow, &message, &self.location, &mut instead);
        if !swallowed {
            self.put_on_wire(air, auditor, flow, message);
        }
        for (flow, bytes) in instead {
            self.transmit(air, auditor, flow, bytes);
        }
    }

    fn transmit(&mut self, air: &mut Air, auditor: &mut Auditor, flow: Flow, bytes: Vec<u8>) {
        let message = Rc::new(Reading::new(bytes));
        self.put_on_wire(air, auditor, flow, message);
    }

    fn put_on_wire(&mut self, air: &mut Air, auditor: &mut Auditor, flow: Flow, message: Rc<Reading>) {
        air.statistics.sent_by_servers += 1;
        let place = flow.listener as usize % self.addresses.len();
        let from = self.addresses.get(place).copied();
        let Some(from) = from.filter(|from| from.is_ipv4() == flow.peer.is_ipv4()) else {
            auditor.complain(
                super::rule::Rule::Misdirected,
                self.number,
                format!("listener {} cannot reach {}", flow.listener, flow.peer),
                Some(&message),
            );
            return;
        };
        air.note("out", from, flow.peer, &message);
        if flow.transport.is_reliable() {
            let intent = auditor.egress(air, self.number, flow.peer, &message, &self.location);
            return self.write(air, auditor, flow, message, intent);
        }
        let v6 = flow.peer.is_ipv6();
        if self.icmp && [dead(v6), nobody(v6)].contains(&flow.peer) {
            // The kernel finds the socket by the two addresses, as it does for a datagram.
            let core = self.core_for(flow.peer, from) as u8;
            let what = What::Unreachable { server: self.number, core, message: Rc::clone(&message) };
            air.later(3, what);
        }
        let intent = auditor.egress(air, self.number, flow.peer, &message, &self.location);
        air.send_again(from, flow.peer, message, intent);
    }

    /// Writes on a connection what the auditor has seen.
    fn write(&mut self, air: &mut Air, auditor: &mut Auditor, flow: Flow, message: Rc<Reading>, intent: Intent) {
        let link = match flow.channel {
            Channel::Peer { name, call } => air.towards(self.number, &flow, (name, call)),
            Channel::Back => air.links.iter().rposition(|link| {
                link.names.is_none() && (link.server, link.phone) == (self.number, flow.peer) && link.state == State::Open
            }),
            _ => {
                // CANCEL and ACK follow their INVITE (§9.1, §17.1.1.3), whatever became of it.
                let follows = matches!(message.method(), b"CANCEL" | b"ACK");
                // Nor can a response be led anywhere by a Via that nobody can read.
                let readable = message.is_request() || sniff::top_via(&message.bytes).is_some();
                if !self.live.takes_answers(&flow) && !follows && readable {
                    let what = format!("{} to {}", message.title(), flow.peer);
                    auditor.complain(Rule::DeadFlow, self.number, what, Some(&message));
                }
                number(&flow)
            }
        };
        let request = message.is_request();
        if request && intent == Intent::Honest && !super::link::is_stream(&message) {
            let what = format!("{} left by TCP", message.title());
            auditor.complain(Rule::ViaTransport, self.number, what, Some(&message));
        }
        let readable = !message.is_broken() && intent != Intent::Mangled;
        if readable && message.count(Field::ContentLength) == 0 {
            let what = format!("{} left by TCP without one", message.title());
            auditor.complain(Rule::Length, self.number, what, Some(&message));
        }
        let method = message.method();
        let again = !self.written.insert((message.digest, flow));
        let stateful = !auditor.is_stateless(self.number);
        if request && again && method != b"ACK" && stateful && intent == Intent::Honest {
            let what = format!("{} again to {}", message.title(), flow.peer);
            auditor.complain(Rule::ReliableRepetition, self.number, what, Some(&message));
        }
        let there = |link: &usize| air.links.get(*link).is_some_and(|l| l.state != State::Lost);
        let open = link.filter(there);
        if let Some(link) = open {
            let l = &mut air.links[link];
            if l.is_private() && !message.is_broken() {
                let own = l.call_id.get_or_insert_with(|| message.call_id().to_vec());
                if own != message.call_id() {
                    let what = format!("{} on another call's", message.title());
                    auditor.complain(Rule::PrivateConnection, self.number, what, Some(&message));
                }
            }
        }
        if !open.is_some_and(|link| air.pour(link, false, &message, intent)) {
            let (server, core) = (self.number, flow.core);
            air.later(1, What::Unreachable { server, core, message });
        }
    }

    /// A connection is open.
    pub fn opened(&mut self, air: &mut Air, link: usize) {
        if air.links[link].state != State::Opening {
            return;
        }
        air.links[link].state = State::Open;
        let flow = air.links[link].flow(link);
        if let Channel::Connection { slot, generation } = flow.channel {
            self.live.enter(flow.core, slot, generation);
        }
    }

    /// A whole message came by a connection.
    pub fn receive_stream(&mut self, air: &mut Air, auditor: &mut Auditor, link: usize, message: &Rc<Reading>, intent: Intent) {
        let flow = air.links[link].flow(link);
        let invite = message.is_request() && message.method() == b"INVITE";
        air.statistics.calls_by_stream += u64::from(invite);
        air.statistics.received_by_servers += 1;
        air.note("in", flow.peer, air.links[link].server_at, message);
        auditor.ingress(air, self.number, flow.peer, message, intent);
        let core = usize::from(flow.core);
        self.endpoints[core].handle(air.now, flow, &message.bytes, &mut self.outbox);
        let extra = self.saboteur.incoming(flow, message);
        self.flush(air, auditor, core);
        if let Some((flow, bytes)) = extra {
            self.transmit(air, auditor, flow, bytes);
        }
    }

    /// A connection is gone, or never came to be: what waited is undelivered, what is in flight is lost.
    pub fn lose(&mut self, air: &mut Air, auditor: &mut Auditor, link: usize) {
        let l = &mut air.links[link];
        let was = std::mem::replace(&mut l.state, State::Lost);
        if was == State::Lost {
            return;
        }
        let unsent = l.unsent();
        let (flow, wanted) = (l.flow(link), l.wanted());
        if let (State::Open, Channel::Connection { slot, .. }) = (was, flow.channel) {
            air.statistics.resets += 1;
            self.live.enter(flow.core, slot, 0);
        }
        auditor.turn(self.number, None);
        let core = usize::from(flow.core);
        let named = Some(flow).filter(|_| was == State::Open);
        for flow in wanted.into_iter().chain(named) {
            auditor.flow_lost(self.number, flow.peer, air.now);
            self.endpoints[core].handle_flow_lost(air.now, flow, &mut self.outbox);
            self.flush(air, auditor, core);
        }
        if was == State::Opening {
            for message in unsent {
                self.hear_undelivered(air, auditor, flow.core, &message);
            }
        }
    }
}
