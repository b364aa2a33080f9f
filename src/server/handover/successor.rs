//! The successor's side of a handover, until it serves.

use super::wire::{Broken, Kind, Message, Receiver, Sender, split};
use super::words::{Final, Hello, Offer, PROTOCOL, VARIABLE};
use std::collections::HashMap;
use std::env;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use strowger::base::{Channel, Flow, Transport};
use strowger::config::Conf;
use strowger::config::key::{self, Secret};
use strowger::control::server::Draft;
use strowger::net::sys::{self, identity, rights};
use strowger::net::tls::TicketLegacy;
use strowger::stack::location::handover::{Reading, TakenOver};
use strowger::stack::location::{Location, NodeNumber};
use strowger::worker::{Clock, Inherited, Legacy, Reading as Shown};

/// How long the predecessor may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// A process that is to serve in the place of another.
pub struct Successor {
    pub offer: Offer,
    sender: Arc<Sender>,
    receiver: Receiver,
    inherited: Vec<Inherited>,
    /// Its numbers of the nodes, while the table is taken.
    nodes: Vec<NodeNumber>,
    taken: TakenOver,
    links: Vec<OwnedFd>,
}

/// What was needed before it can serve, and is there.
pub struct Succeeded {
    pub legacy: Legacy,
    pub links: Vec<OwnedFd>,
    pub listeners: Vec<(Transport, SocketAddr)>,
    pub is_stored: bool,
    /// When the last message was read.
    pub at: Instant,
}

/// By which a successor says why it does not come to serve.
pub struct Complaint(Arc<Sender>);

impl Complaint {
    pub fn make(&self, why: &str) {
        let _ = self.0.send(Kind::Failed, why.as_bytes(), &[]);
    }
}

impl Successor {
    /// Meets the process that this one was started by to take over from it. `None`: it was started as any other.
    pub fn meet() -> Result<Option<Successor>, String> {
        if env::var_os(VARIABLE).is_none_or(|value| value != "0") {
            return Ok(None);
        }
        let wire = rights::take_standard_input().map_err(|error| format!("{VARIABLE}: the standard input: {error}"))?;
        let (sender, mut receiver) = split(UnixStream::from(wire));
        let hello = Hello { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned(), process: std::process::id() };
        sender.tell(Kind::Hello, &hello).map_err(broken)?;
        let offer: serde_json::Value = expect(&mut receiver, Kind::Offer)?.content().map_err(broken)?;
        let theirs = offer.get("protocol").and_then(serde_json::Value::as_u64);
        if theirs != Some(u64::from(PROTOCOL)) {
            return Err(format!(
                "the running server is of another version ({}), from which this one ({}) cannot take over: stop it and start again",
                offer.get("version").and_then(serde_json::Value::as_str).unwrap_or("unknown"),
                env!("CARGO_PKG_VERSION")
            ));
        }
        let offer: Offer = serde_json::from_value(offer).map_err(|error| format!("the handover: {error}"))?;
        let mut successor = Successor {
            offer,
            sender: Arc::new(sender),
            receiver,
            inherited: Vec::new(),
            nodes: Vec::new(),
            taken: TakenOver::default(),
            links: Vec::new(),
        };
        successor.take_sockets()?;
        Ok(Some(successor))
    }

    fn take_sockets(&mut self) -> Result<(), String> {
        for listener in &self.offer.listeners {
            let transport = listener.transport().ok_or_else(|| format!("the handover: a listener for {}", listener.transport))?;
            let mut sockets = Vec::new();
            while sockets.len() < listener.sockets {
                sockets.extend(expect(&mut self.receiver, Kind::Sockets)?.files);
            }
            self.inherited.push(Inherited { transport, address: listener.address, sockets });
        }
        Ok(())
    }

    pub fn complaint(&self) -> Complaint {
        Complaint(self.sender.clone())
    }

    /// Refuses what a restart cannot change.
    pub fn check(&self, conf: &Conf) -> Result<(), String> {
        let cores = conf.server.cores.len();
        if cores != self.offer.cores {
            return Err(format!(
                "[server] cores: {cores} of them, where the running server has {}: their number changes only if it is stopped and started again",
                self.offer.cores
            ));
        }
        if let Some(address) = conf.metrics.address
            && self.offer.metrics != Some(address)
        {
            // Only tried: it is opened when the predecessor's is closed.
            TcpListener::bind(address).map_err(|error| format!("[metrics] address {address}: {error}"))?;
        }
        Ok(())
    }

    /// Returns the secrets of the key file. If this process may not read it any more, they are those that the predecessor has read.
    pub fn secrets(&self, conf: &Conf) -> Result<Vec<Secret>, String> {
        let path = conf.server.key_file.display();
        match key::try_read(&conf.server.key_file)? {
            Some(secrets) if secrets != self.offer.secrets => {
                return Err(format!(
                    "key file {path}: it has changed since the running server was started, and what was signed would not be known: stop it and start again"
                ));
            }
            Some(_) => {}
            None => {
                log::warn!("key file {path} cannot be read by this user any more: what it held at the first start stays in use")
            }
        }
        Ok(self.offer.secrets.clone())
    }

    pub fn tickets(&self) -> TicketLegacy {
        TicketLegacy { trust: self.offer.tickets.trust.clone(), keys: self.offer.tickets.keys.clone() }
    }

    /// Returns the predecessor's clock.
    pub fn clock(&self) -> Clock {
        let shows = self.offer.clock;
        let passed_us = identity::monotonic_us().saturating_sub(shows.monotonic_us);
        Clock::showing(Shown { ns: shows.ns.saturating_add(passed_us * 1000) })
    }

    pub fn take_inherited(&mut self) -> Vec<Inherited> {
        std::mem::take(&mut self.inherited)
    }

    /// Opens the control socket beside its place.
    pub fn control(&self, conf: &Conf) -> Result<Draft, String> {
        let path = &conf.control.socket;
        match *path == self.offer.control {
            true => Draft::open(path),
            false => Draft::open_clear(path),
        }
    }

    /// Takes the location table while the predecessor serves. `listeners`: those of our conf.
    pub fn take_table(&mut self, location: &Location, listeners: &[(Transport, SocketAddr)]) -> Result<(), String> {
        let began = Instant::now();
        self.sender.send(Kind::Take, &[], &[]).map_err(broken)?;
        thread::scope(|scope| {
            let taking = thread::Builder::new().name("handover".to_owned()).spawn_scoped(scope, || {
                // The cores are the predecessor's.
                let _ = sys::lower_priority();
                while self.take_some(location, listeners)?.kind != Kind::TableEnd {}
                Ok(())
            });
            let taken = taking.map_err(|error| format!("the handover's thread: {error}"))?.join();
            taken.unwrap_or_else(|_| Err("the handover's thread panicked".to_owned()))
        })?;
        let TakenOver { records, .. } = self.taken;
        let seconds = began.elapsed().as_secs_f64();
        log::info!("process {} has handed over {records} addresses-of-record in {seconds:.1} s", self.offer.process);
        Ok(())
    }

    /// Takes one message.
    fn take_some(&mut self, location: &Location, listeners: &[(Transport, SocketAddr)]) -> Result<Message, String> {
        let message = self.receiver.receive(Instant::now() + PATIENCE).map_err(broken)?;
        let wrong = || format!("the handover: what came of {:?} cannot be read", message.kind);
        match message.kind {
            Kind::Nodes => self.nodes = location.take_over_nodes(&message.bytes).ok_or_else(wrong)?,
            Kind::Table => {
                let translation = Translation::new(&self.offer, listeners);
                let translate = |flow| translation.of(flow);
                let reading = Reading { translate: &translate, nodes: self.nodes.clone() };
                location.take_over(&message.bytes, &reading, &mut self.taken).ok_or_else(wrong)?;
            }
            _ => {}
        }
        Ok(message)
    }

    /// Says that this process could serve, and waits for the rest.
    pub fn conclude(&mut self, location: &Location, listeners: &[(Transport, SocketAddr)]) -> Result<Succeeded, String> {
        self.sender.send(Kind::Prepared, &[], &[]).map_err(broken)?;
        let mut legacy = None;
        loop {
            let mut message = self.take_some(location, listeners)?;
            match message.kind {
                Kind::Links => self.links.append(&mut message.files),
                Kind::Legacy => legacy = Legacy::read(&message.bytes),
                Kind::Final => {
                    let Final { is_stored } = message.content().map_err(broken)?;
                    let at = Instant::now();
                    let no_room = self.taken.no_room;
                    if no_room > 0 {
                        log::error!(
                            "[limits] bindings leaves no room for {no_room} addresses-of-record of process {}",
                            self.offer.process
                        );
                    }
                    let listeners = self.inherited_listeners();
                    let legacy = legacy.ok_or("the handover: what the workers leave cannot be read")?;
                    return Ok(Succeeded { legacy, links: std::mem::take(&mut self.links), listeners, is_stored, at });
                }
                _ => {}
            }
        }
    }

    fn inherited_listeners(&self) -> Vec<(Transport, SocketAddr)> {
        let of = |listener: &super::words::Listener| Some((listener.transport()?, listener.address));
        self.offer.listeners.iter().filter_map(of).collect()
    }

    /// Says that this process serves. What remains is the wire.
    pub fn serve(self) -> Result<(Arc<Sender>, Receiver), String> {
        self.sender.send(Kind::Serving, &[], &[]).map_err(broken)?;
        Ok((self.sender, self.receiver))
    }
}

/// Turns the predecessor's flows into ours.
struct Translation<'a> {
    offer: &'a Offer,
    listeners: &'a [(Transport, SocketAddr)],
    /// Ours, by the predecessor's number.
    numbers: HashMap<u16, u16>,
}

impl<'a> Translation<'a> {
    fn new(offer: &'a Offer, listeners: &'a [(Transport, SocketAddr)]) -> Translation<'a> {
        let mut numbers = HashMap::new();
        for (theirs, listener) in offer.listeners.iter().enumerate() {
            let is_same = |own: &(Transport, SocketAddr)| Some(own.0) == listener.transport() && own.1 == listener.address;
            if let Some(own) = listeners.iter().position(is_same) {
                numbers.insert(theirs as u16, own as u16);
            }
        }
        Translation { offer, listeners, numbers }
    }

    /// `None`: it leads nowhere any more.
    fn of(&self, flow: Flow) -> Option<Flow> {
        let of_transport = || self.listeners.iter().position(|(own, _)| *own == flow.transport).map(|own| own as u16);
        let same = self.numbers.get(&flow.listener).copied();
        match flow.channel {
            Channel::Connection { .. } => {
                // A connection outlives its listener.
                let listener = same.or_else(of_transport)?;
                let (core, channel) = match usize::from(flow.core) < self.offer.cores {
                    true => (flow.core + self.offer.cores as u8, flow.channel),
                    // It was a process's before that one. Generation 0 is never alive.
                    false => (0, Channel::Connection { slot: 0, generation: 0 }),
                };
                Some(Flow { listener, core, channel, ..flow })
            }
            _ => Some(Flow { listener: same?, ..flow }),
        }
    }
}

fn expect(receiver: &mut Receiver, kind: Kind) -> Result<Message, String> {
    let message = receiver.receive(Instant::now() + PATIENCE).map_err(broken)?;
    match message.kind == kind {
        true => Ok(message),
        false => Err(format!("the handover: {:?} came where {kind:?} was to come", message.kind)),
    }
}

fn broken(broken: Broken) -> String {
    format!("the handover: {broken}")
}
