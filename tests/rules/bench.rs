//! The bench that a test works on: one endpoint for each core, their mail, one location service, and a clock that stands still
//! unless it is moved.

use std::net::SocketAddr;
use std::sync::Arc;
use strowger::base::NoteKind;
use strowger::base::dns::{Answer, Question};
use strowger::base::{Channel, Errand, Flow, Instant, Key, LiveConnections, Outbox, Transport};
use strowger::sip::Fault;
use strowger::stack::counters::{Drop, Limit};
use strowger::stack::health::Health;
use strowger::stack::location::Durability;
use strowger::stack::settings::Listener;
use strowger::stack::{Element, Endpoint, Location, Settings};

use crate::message::{Request, Text, Wire};

pub const ALICE: &str = "10.0.1.1:5060";
pub const BOB: &str = "10.0.1.2:5060";
pub const CAROL: &str = "10.0.1.3:5060";
pub const DAVE: &str = "10.0.1.4:5060";
pub const PROXY: &str = "10.0.0.1:5060";

/// What all benches sign with if the test says nothing else.
pub const SECRET: Key = Key::new(0x5eed, 0xcafe);

/// One message that left.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Milliseconds since the bench was made.
    pub at: u64,
    pub to: String,
    pub listener: u16,
    pub flow: Flow,
    /// What the peer's certificate must prove, where that was told.
    pub host: Option<String>,
    /// Which certificate it is shown; 0: the one that all are.
    pub identity: u64,
    pub text: Text,
}

impl std::ops::Deref for Sent {
    type Target = Text;
    fn deref(&self) -> &Text {
        &self.text
    }
}

impl std::fmt::Display for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        self.text.fmt(f)
    }
}

/// What is for a core of another process; without an errand it is to be sent there on `flow`.
#[derive(Clone, Debug)]
pub struct Beyond {
    pub core: u8,
    pub errand: Option<Errand>,
    pub flow: Flow,
    pub bytes: Vec<u8>,
}

pub struct Bench {
    pub cores: Vec<Endpoint>,
    pub location: Arc<Location>,
    pub now: u64,
    pub live: Arc<LiveConnections>,
    /// What all cores know of next hops.
    pub health: Arc<Health>,
    /// Flows whose call is over, in order.
    pub released: Vec<Flow>,
    /// Questions for the resolver that nobody has answered, in order.
    pub asked: Vec<Question>,
    /// What waits for the disk, each with the round it waits for, in order.
    pub held: Vec<(u64, Sent)>,
    /// Records of calls that are over, a line each, in order.
    pub records: Vec<u8>,
    /// What was said of calls to whoever follows them, in order, each with its kind and Call-ID.
    pub notes: Vec<(NoteKind, String, String)>,
    /// What is for cores of the other process of a restart, in order.
    pub beyond: Vec<Beyond>,
    outbox: Outbox,
}

impl Bench {
    /// The proxy of example.com on one core.
    pub fn new() -> Bench {
        Bench::with(|_| ())
    }

    pub fn with(change: impl FnOnce(&mut Settings)) -> Bench {
        Bench::with_journal(None, change)
    }

    /// The same with a journal that the test keeps.
    pub fn with_journal(durability: impl Into<Option<Durability>>, change: impl FnOnce(&mut Settings)) -> Bench {
        Bench::made(&[SECRET], |location| location.with_journal(durability), change)
    }

    /// The same with a location table that `adapt` makes of an empty one.
    pub fn with_location(adapt: impl FnOnce(Location) -> Location, change: impl FnOnce(&mut Settings)) -> Bench {
        Bench::made(&[SECRET], adapt, change)
    }

    /// The same with these secrets, of which the first signs.
    pub fn signed(secrets: &[Key], durability: impl Into<Option<Durability>>, change: impl FnOnce(&mut Settings)) -> Bench {
        Bench::made(secrets, |location| location.with_journal(durability), change)
    }

    fn made(secrets: &[Key], adapt: impl FnOnce(Location) -> Location, change: impl FnOnce(&mut Settings)) -> Bench {
        Bench::over(Arc::new(adapt(Location::new(secrets[0], 1000))), secrets, change)
    }

    /// The same over this location table.
    pub fn over(location: Arc<Location>, secrets: &[Key], change: impl FnOnce(&mut Settings)) -> Bench {
        let mut settings =
            Settings { domains: vec![b"example.com".to_vec()], listeners: vec![listener(PROXY)], ..Settings::default() };
        settings.per_core.transactions = 1000;
        change(&mut settings);
        let secret = secrets[0];
        let settings = Arc::new(settings);
        let live = Arc::new(LiveConnections::new(settings.cores.into(), 64));
        let health = Arc::new(Health::new(secret));
        let core = |core| {
            let mut endpoint = Endpoint::new(settings.clone(), location.clone(), live.clone(), core, secret);
            endpoint.share_health(health.clone());
            endpoint.accept_secrets(&secrets[1..]);
            endpoint
        };
        Bench {
            cores: (0..settings.cores).map(core).collect(),
            location,
            now: 0,
            live,
            health: health.clone(),
            released: Vec::new(),
            asked: Vec::new(),
            held: Vec::new(),
            records: Vec::new(),
            notes: Vec::new(),
            beyond: Vec::new(),
            outbox: Outbox::default(),
        }
    }

    /// A datagram from `from`; what leaves because of it.
    pub fn send(&mut self, from: &str, message: impl Wire) -> Vec<Sent> {
        self.send_by(0, 0, from, message)
    }

    /// The same, received by a certain core and listener.
    pub fn send_by(&mut self, core: usize, listener: u16, from: &str, message: impl Wire) -> Vec<Sent> {
        let flow = Flow::datagram(listener, address(from));
        self.send_on(core, flow, message)
    }

    /// The same, received by a certain core on any flow.
    pub fn send_on(&mut self, core: usize, flow: Flow, message: impl Wire) -> Vec<Sent> {
        let now = Instant::from_ms(self.now);
        let (endpoint, outbox) = (&mut self.cores[core], &mut self.outbox);
        endpoint.handle(now, flow, &message.wire(), outbox);
        while endpoint.handle_waiting(now, outbox) {}
        self.collect()
    }

    /// A datagram from `from`, while the first core has no time for what may wait; what leaves because of it.
    pub fn send_while_busy(&mut self, from: &str, message: impl Wire) -> Vec<Sent> {
        let (now, flow) = (Instant::from_ms(self.now), Flow::datagram(0, address(from)));
        self.cores[0].handle(now, flow, &message.wire(), &mut self.outbox);
        self.collect()
    }

    /// The first core has time for what waits.
    pub fn work_off(&mut self) -> Vec<Sent> {
        let now = Instant::from_ms(self.now);
        while self.cores[0].handle_waiting(now, &mut self.outbox) {}
        self.collect()
    }

    /// Mail from another process for one core.
    pub fn mail(&mut self, core: u8, errand: Errand, flow: Flow, bytes: &[u8]) -> Vec<Sent> {
        let now = Instant::from_ms(self.now);
        self.cores[usize::from(core)].handle_mail(now, errand, flow, bytes, &mut self.outbox);
        self.collect()
    }

    /// A connection of another process has ended.
    pub fn lose_other(&mut self, flow: Flow) -> Vec<Sent> {
        let now = Instant::from_ms(self.now);
        for endpoint in &mut self.cores {
            endpoint.handle_flow_lost(now, flow, &mut self.outbox);
        }
        self.collect()
    }

    /// The same, where exactly one message must leave.
    #[track_caller]
    pub fn send_for_one(&mut self, from: &str, message: impl Wire) -> Sent {
        only(self.send(from, message))
    }

    /// The network says that `sent` did not arrive.
    pub fn undelivered(&mut self, sent: &[u8]) -> Vec<Sent> {
        let now = Instant::from_ms(self.now);
        for endpoint in &mut self.cores {
            endpoint.handle_undelivered(now, sent, &mut self.outbox);
        }
        self.collect()
    }

    /// The resolver's answer to all cores; who has not asked does not listen.
    pub fn answer(&mut self, answer: Answer) -> Vec<Sent> {
        self.asked.retain(|asked| *asked != answer.question);
        let now = Instant::from_ms(self.now);
        for endpoint in &mut self.cores {
            endpoint.handle_answer(now, answer.clone(), &mut self.outbox);
        }
        self.collect()
    }

    /// A connection that is open from now on: `slot` names it.
    pub fn open(&mut self, transport: Transport, core: u8, slot: u32, peer: &str) -> Flow {
        let generation = 7;
        self.live.enter(core, slot, generation);
        Flow {
            transport,
            core,
            channel: Channel::Connection { slot, generation },
            ..Flow::datagram(transport as u16, address(peer))
        }
    }

    /// The connection is gone; what leaves because of it.
    pub fn lose(&mut self, flow: Flow) -> Vec<Sent> {
        if let Channel::Connection { slot, .. } = flow.channel {
            self.live.enter(flow.core, slot, 0);
        }
        let now = Instant::from_ms(self.now);
        let endpoint = &mut self.cores[usize::from(flow.core)];
        endpoint.handle_flow_lost(now, flow, &mut self.outbox);
        self.collect()
    }

    /// What came on a stream has no boundaries any more.
    pub fn unframed(&mut self, flow: Flow, bytes: &[u8], fault: Fault) -> Vec<Sent> {
        let now = Instant::from_ms(self.now);
        self.cores[0].handle_unframed(now, flow, bytes, fault, &mut self.outbox);
        self.collect()
    }

    /// Lets `ms` milliseconds pass, stopping wherever a timer is due; what leaves meanwhile.
    pub fn tick(&mut self, ms: u64) -> Vec<Sent> {
        let end = self.now + ms;
        let mut sent = Vec::new();
        loop {
            let next = self.cores.iter().filter_map(Endpoint::next_timeout).min();
            let next = next.map_or(end, |next| next.as_ms().clamp(self.now, end));
            self.now = next;
            let now = Instant::from_ms(next);
            for endpoint in &mut self.cores {
                endpoint.handle_timers(now, &mut self.outbox);
            }
            sent.extend(self.collect());
            let due = self.cores.iter().filter_map(Endpoint::next_timeout).min();
            if self.now == end && due.is_none_or(|due| due.as_ms() > end) {
                return sent;
            }
        }
    }

    /// Where everybody at 10.x.x.x is trusted, and has all that there is.
    pub fn trusting() -> Bench {
        Bench::with(|settings| {
            settings.limits.trusted_sources =
                vec![strowger::stack::route::Network { address: "10.0.0.0".parse().unwrap(), prefix: 8 }];
        })
    }

    /// Registers a contact of `sip:USER@example.com` by a REGISTER of its own.
    #[track_caller]
    pub fn register(&mut self, user: &str, contact: &str) {
        let uri = contact.split_once('<').map_or(contact, |(_, rest)| rest);
        let peer = uri.split_once('@').map_or(uri, |(_, rest)| rest);
        let peer: String = peer.chars().take_while(|c| !matches!(c, '>' | ';')).collect();
        let peer = peer.parse::<SocketAddr>().map_or(BOB.into(), |p| p.to_string());
        let request = Request::new("REGISTER", "sip:example.com")
            .via(&peer, &format!("z9hG4bKreg{}", crate::message::unique()))
            .from(&format!("<sip:{user}@example.com>;tag=r"))
            .to(&format!("<sip:{user}@example.com>"))
            .call_id(&format!("reg-{user}-{contact}").replace([' ', '"'], "_"))
            .add(&format!("Contact: {contact}"));
        let answer = self.send_for_one(&peer, request);
        assert_eq!(answer.status(), 200, "{answer}");
    }

    /// Somebody follows calls from now on.
    pub fn follow_calls(&mut self) {
        self.outbox.is_traced = true;
    }

    pub fn dropped(&self, reason: Drop) -> u64 {
        let count = |endpoint: &Endpoint| endpoint.counters().dropped[reason as usize];
        self.cores.iter().map(count).sum()
    }

    pub fn limit_hits(&self, limit: Limit) -> u64 {
        let count = |endpoint: &Endpoint| endpoint.counters().limit_hits[limit as usize];
        self.cores.iter().map(count).sum()
    }

    pub fn server_transactions(&self) -> usize {
        let count = |endpoint: &Endpoint| endpoint.occupancy().server_transactions;
        self.cores.iter().map(count).sum()
    }

    pub fn client_transactions(&self) -> usize {
        let count = |endpoint: &Endpoint| endpoint.occupancy().client_transactions;
        self.cores.iter().map(count).sum()
    }

    /// Lets everything run out, and demands that nothing is left: no transaction, context, timer or stored byte.
    #[track_caller]
    pub fn assert_quiet(&mut self) {
        self.tick(600_000);
        for endpoint in &self.cores {
            let left = endpoint.occupancy();
            assert!(left.is_quiet(), "{left:?}");
            assert_eq!(endpoint.next_timeout(), None);
        }
    }

    /// What the last call put out, after the mail between the cores has been carried.
    fn collect(&mut self) -> Vec<Sent> {
        #[cfg(debug_assertions)]
        {
            self.outbox.check();
            self.cores.iter().for_each(Endpoint::check);
        }
        let mut sent = Vec::new();
        let mut rounds = 0;
        loop {
            let outbox = std::mem::take(&mut self.outbox);
            self.outbox.is_traced = outbox.is_traced;
            for (kind, call_id, text) in outbox.notes.iter() {
                let call_id = String::from_utf8_lossy(call_id).into_owned();
                self.notes.push((kind, call_id, text.to_owned()));
            }
            self.released.extend(&outbox.releases);
            self.asked.extend(&outbox.questions);
            self.records.extend(&outbox.records);
            for held in &outbox.held {
                let sent = Sent {
                    at: self.now,
                    to: held.flow.peer.to_string(),
                    listener: held.flow.listener,
                    flow: held.flow,
                    host: None,
                    identity: 0,
                    text: Text::new(outbox.get(held.span)),
                };
                self.held.push((held.round, sent));
            }
            for transmit in &outbox.transmits {
                let flow = transmit.flow;
                assert!(flow.peer.port() != 0);
                let takes = match outbox.get(transmit.span).starts_with(b"SIP/2.0 ") {
                    true => self.live.takes_answers(&flow),
                    false => self.live.is_alive(&flow),
                };
                assert!(takes, "sent on a dead connection");
                if self.live.is_of_others(&flow) && matches!(flow.channel, Channel::Connection { .. }) {
                    let (core, bytes) = (flow.core, outbox.get(transmit.span).to_vec());
                    self.beyond.push(Beyond { core, errand: None, flow, bytes });
                    continue;
                }
                let host = match flow.channel {
                    Channel::Peer { name, .. } => outbox.introduced(name),
                    _ => None,
                };
                sent.push(Sent {
                    at: self.now,
                    to: flow.peer.to_string(),
                    listener: flow.listener,
                    flow,
                    host: host.map(|(host, _)| String::from_utf8_lossy(host).into_owned()),
                    identity: host.map_or(0, |(_, identity)| identity),
                    text: Text::new(outbox.get(transmit.span)),
                });
            }
            if outbox.parcels.is_empty() {
                return sent;
            }
            rounds += 1;
            assert!(rounds < 16, "mail that never ends");
            for parcel in &outbox.parcels {
                let Some(endpoint) = self.cores.get_mut(parcel.core as usize) else {
                    let (core, errand, bytes) = (parcel.core, Some(parcel.errand), outbox.get(parcel.span).to_vec());
                    self.beyond.push(Beyond { core, errand, flow: parcel.flow, bytes });
                    continue;
                };
                endpoint.handle_mail(
                    Instant::from_ms(self.now),
                    parcel.errand,
                    parcel.flow,
                    outbox.get(parcel.span),
                    &mut self.outbox,
                );
            }
        }
    }
}

pub fn listener(at: &str) -> Listener {
    Listener { transport: Transport::Udp, address: address(at), advertise: at.as_bytes().to_vec() }
}

/// The proxy on UDP, TCP and TLS: the listeners stand in the order of the transports.
pub fn listeners() -> Vec<Listener> {
    let at = |transport: Transport| Listener { transport, ..listener(&format!("10.0.0.1:{}", transport.default_port())) };
    [Transport::Udp, Transport::Tcp, Transport::Tls].map(at).into()
}

pub fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address with a port")
}

/// The one message of a list.
#[track_caller]
pub fn only(mut sent: Vec<Sent>) -> Sent {
    assert_eq!(sent.len(), 1, "{}", show(&sent));
    sent.remove(0)
}

/// Those that went to one peer.
pub fn to<'a>(sent: &'a [Sent], peer: &str) -> Vec<&'a Sent> {
    sent.iter().filter(|s| s.to == peer).collect()
}

/// The only one that went to a peer.
#[track_caller]
pub fn the<'a>(sent: &'a [Sent], peer: &str) -> &'a Sent {
    let found = to(sent, peer);
    assert_eq!(found.len(), 1, "to {peer}: {}", show(sent));
    found[0]
}

pub fn show(sent: &[Sent]) -> String {
    sent.iter().map(|s| format!("--- {} ms, to {}\n{s}", s.at, s.to)).collect()
}

/// `(ms, first line up to the status or the method)`, for tests of time.
pub fn when(sent: &[Sent]) -> Vec<(u64, String)> {
    sent.iter().map(|s| (s.at, s.gist())).collect()
}
