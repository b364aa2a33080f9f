//! `strowger restart`: a new process is started, gets what this one has, and serves in its place. Whatever fails before it serves
//! leaves this process serving.

use super::child;
use super::succession::{Ending, Successor};
use super::wire::{Broken, Kind, Message, Receiver, Sender, split};
use super::words::{ClockShows, Final, Hello, Listener, Offer, PROTOCOL, Tickets};
use crate::server::lock::lock;
use crate::server::running::RunningServer;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use strowger::control::{Refusal, Restarted};
use strowger::net::sys::{self, identity};
use strowger::settings::Words;
use strowger::stack::location::SHARDS;
use strowger::worker::{self, Legacy};

/// How long a new process may take until it could serve.
const TO_PREPARE: Duration = Duration::from_secs(30);

/// How long it may take from when this process reads nothing any more until it serves.
const TO_SERVE: Duration = Duration::from_secs(10);

/// How long this process waits for its disk, and for what it shares its table by, while it still serves, and when it does not.
const TO_STORE: Duration = Duration::from_secs(2);
const TO_STORE_LAST: Duration = Duration::from_millis(500);

/// Bytes of the table that are sent at a time.
const BITE: usize = 256 << 10;

/// A new process, and the wire to it. It is ended if it does not come to serve.
struct Attempt<'a> {
    server: &'a RunningServer,
    child: Option<Child>,
    sender: Option<Sender>,
    receiver: Option<Receiver>,
    process: u32,
    /// Its ends of the links between workers, while what is in them may have to be taken back.
    links: Vec<OwnedFd>,
    records: usize,
}

impl RunningServer {
    /// Has a new process serve in the place of this one, or says why not. `patience`: how long this one goes on at most.
    pub(crate) fn restart_now(self: &Arc<RunningServer>, patience: Option<Duration>) -> Result<Restarted, Refusal> {
        let outcome = self.restart_by(patience);
        if let Err(why) = &outcome {
            self.succession.failures.fetch_add(1, Ordering::Relaxed);
            for line in why.lines() {
                log::error!("restart refused, process {} goes on serving: {line}", std::process::id());
            }
        }
        outcome.map_err(Refusal::Refused)
    }

    fn restart_by(self: &Arc<RunningServer>, patience: Option<Duration>) -> Result<Restarted, String> {
        let _turn = self.succession.begin().ok_or("another restart is in progress")?;
        self.permit_restart(patience)?;
        // The conf stays as it is meanwhile.
        let _reloading = lock(&self.reloading);
        let patience = patience.unwrap_or(self.current().conf.server.restart_deadline);
        let began = Instant::now();
        let mut attempt = Attempt::start(self)?;
        let outcome = attempt.prepare(began + TO_PREPARE).and_then(|()| attempt.hand_over());
        let quiet = match outcome {
            Ok(quiet) => quiet,
            Err(why) => return Err(attempt.fail(why)),
        };
        let pause = quiet.elapsed();
        let (process, records) = (attempt.process, attempt.records);
        self.crew().let_go();
        let remaining = self.crew().remaining();
        let successor = attempt.succeed(patience)?;
        self.succession.set_successor(successor.0.clone());
        self.manager.succeeded_by(process);
        log::info!(
            "process {process} serves in the place of process {}, after a pause of {:.1} ms: it has {records} addresses-of-record; here remain {} transactions and {} connections, for {} s at most",
            std::process::id(),
            pause.as_secs_f64() * 1000.0,
            remaining.transactions,
            remaining.connections,
            patience.as_secs()
        );
        self.leave(successor.0, successor.1)?;
        Ok(Restarted {
            process,
            predecessor: std::process::id(),
            transactions: remaining.transactions,
            connections: remaining.connections,
            records,
            pause_ms: pause.as_secs_f64() * 1000.0,
            deadline_ms: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Refuses if it is not the time for a restart.
    fn permit_restart(&self, patience: Option<Duration>) -> Result<(), String> {
        self.refuse_as_predecessor()?;
        if std::process::id() == 1 {
            return Err(
                "this server is process 1 of its container, which ends with it: stop and start the container instead".to_owned()
            );
        }
        if self.drain.is_draining() {
            return Err("the server is about to stop".to_owned());
        }
        let Some(before) = self.succession.predecessor() else {
            return Ok(());
        };
        let (numbers, process) = (before.numbers(), before.process);
        let has = format!(
            "process {process} of the restart before still has {} transactions and {} connections",
            numbers.transactions, numbers.connections
        );
        match patience {
            None => Err(format!(
                "{has}, and ends in {} s at the latest: restart again then, or have it end sooner with --deadline",
                numbers.ends_in_ms.div_ceil(1000)
            )),
            Some(patience) => {
                before.end_within(Kind::Deadline, patience).map_err(|broken| format!("{has}: {broken}"))?;
                log::info!("{has}: it is to end within {} s, by command", patience.as_secs());
                Err(format!("{has}: it ends in {} s at the latest now; restart again then", patience.as_secs()))
            }
        }
    }

    /// Refuses what only the process that serves can do.
    pub(crate) fn refuse_as_predecessor(&self) -> Result<(), String> {
        match self.succession.successor() {
            Some(successor) => Err(format!("process {} serves now, and this one ends: ask that one", successor.process)),
            None if self.succession.is_quiet() => Err("the server is being restarted: ask again".to_owned()),
            None => Ok(()),
        }
    }
}

impl Attempt<'_> {
    fn start(server: &RunningServer) -> Result<Attempt<'_>, String> {
        let (child, wire) = child::start()?;
        let process = child.id();
        log::info!("restarting: process {process} is started to serve in the place of process {}", std::process::id());
        let (sender, receiver) = split(wire);
        Ok(Attempt {
            server,
            child: Some(child),
            sender: Some(sender),
            receiver: Some(receiver),
            process,
            links: Vec::new(),
            records: 0,
        })
    }

    /// Everything that is done while this process serves.
    fn prepare(&mut self, deadline: Instant) -> Result<(), String> {
        let hello: Hello = self.expect(Kind::Hello, deadline)?.content().map_err(broken)?;
        // Ours is said first: a later version knows whether it can take over from this one.
        self.offer(&hello)?;
        if hello.protocol != PROTOCOL {
            return Err(format!(
                "version {} cannot take over from this version, which is {}: stop the server and start it again",
                hello.version,
                env!("CARGO_PKG_VERSION")
            ));
        }
        self.expect(Kind::Take, deadline)?;
        self.server.location.begin_handover();
        let mut bytes = Vec::new();
        self.server.location.hand_over_nodes(&mut bytes);
        self.send(Kind::Nodes, &bytes)?;
        self.send_table(true)?;
        self.send(Kind::TableEnd, &[])?;
        self.expect(Kind::Prepared, deadline)?;
        // Then little is left for when nobody is served.
        self.server.disk.settle_within(TO_STORE);
        self.server.sharing.settle_within(TO_STORE);
        self.send_table(false)
    }

    fn offer(&self, hello: &Hello) -> Result<(), String> {
        let (sockets, addresses, transports, clock) = {
            let crew = self.server.crew();
            let sockets = crew.listening_sockets().map_err(|error| format!("the listening sockets: {error}"))?;
            (sockets, crew.addresses().to_vec(), crew.transports().to_vec(), crew.clock())
        };
        let listeners = transports.iter().zip(&addresses).zip(&sockets);
        let current = self.server.current();
        let tickets = current.contexts.as_ref().map(|contexts| contexts.ticket_legacy()).unwrap_or_default();
        let offer = Offer {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            process: std::process::id(),
            restarts: self.server.succession.restarts.load(Ordering::Relaxed),
            cores: current.conf.server.cores.len(),
            listeners: listeners
                .map(|((transport, address), sockets)| Listener {
                    transport: transport.word().to_owned(),
                    address: *address,
                    sockets: sockets.len(),
                })
                .collect(),
            secrets: self.server.start.secrets.clone(),
            tickets: Tickets { trust: tickets.trust, keys: tickets.keys },
            clock: ClockShows { ns: clock.read().ns, monotonic_us: identity::monotonic_us() },
            control: current.conf.control.socket.clone(),
            metrics: current.conf.metrics.address,
            database: current.conf.registrar.database.clone(),
        };
        let sender = self.sender()?;
        if hello.protocol != PROTOCOL {
            // Secrets are for those who can use them.
            let refused = serde_json::json!({ "protocol": offer.protocol, "version": offer.version, "process": offer.process });
            return sender.tell(Kind::Offer, &refused).map_err(broken);
        }
        sender.tell(Kind::Offer, &offer).map_err(broken)?;
        sockets.iter().try_for_each(|sockets| sender.send_files(Kind::Sockets, sockets)).map_err(broken)
    }

    /// Sends the table, or what of it has changed since it was sent.
    fn send_table(&mut self, all: bool) -> Result<(), String> {
        let mut bytes = Vec::with_capacity(2 * BITE);
        for shard in 0..SHARDS {
            self.server.location.hand_over(shard, all, &mut bytes);
            if bytes.len() >= BITE || (shard + 1 == SHARDS && !bytes.is_empty()) {
                self.send(Kind::Table, &bytes)?;
                bytes.clear();
            }
        }
        self.records = self.server.location.records();
        Ok(())
    }

    /// Stops serving, sends the rest, and waits until the successor serves. Returns since when nobody was served.
    fn hand_over(&mut self) -> Result<Instant, String> {
        let server = self.server;
        let cores = server.current().conf.server.cores.len();
        let (own, theirs) = worker::links(cores).map_err(|error| format!("the links between the processes: {error}"))?;
        if server.drain.is_draining() {
            return Err("the server was told to stop".to_owned());
        }
        let quiet = Instant::now();
        server.succession.set_quiet(true);
        let legacy = server.crew().hand_over(own)?;
        self.links = theirs;
        let settled = server.disk.settle_within(TO_STORE_LAST);
        server.sharing.settle_within(TO_STORE_LAST);
        self.send_table(false)?;
        self.send_legacy(&legacy)?;
        self.tell(Kind::Final, &Final { is_stored: settled })?;
        self.expect(Kind::Serving, quiet + TO_SERVE)?;
        Ok(quiet)
    }

    fn send_legacy(&self, legacy: &Legacy) -> Result<(), String> {
        self.sender()?.send_files(Kind::Links, &self.links).map_err(broken)?;
        let mut bytes = Vec::new();
        legacy.write(&mut bytes);
        self.send(Kind::Legacy, &bytes)
    }

    /// Goes on serving: what was begun is taken back. Returns why, as well as it is known.
    fn fail(&mut self, why: String) -> String {
        self.sender = None;
        let mut why = why;
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            if let Ok(status) = child.wait()
                && let Some(code) = status.code()
            {
                why += &format!(" (it has ended with exit code {code})");
            }
        }
        let server = self.server;
        server.location.end_handover();
        if server.succession.is_quiet() {
            let links = std::mem::take(&mut self.links);
            if let Err(error) = server.crew().resume(links) {
                log::error!("not all of what was sent to process {} could be taken back: {error}", self.process);
            }
            server.succession.set_quiet(false);
        }
        why
    }

    fn succeed(mut self, patience: Duration) -> Result<(Arc<Successor>, Receiver), String> {
        // Its own ends are with it; the duplicates would keep them open.
        self.links.clear();
        let (Some(child), Some(sender), Some(receiver)) = (self.child.take(), self.sender.take(), self.receiver.take()) else {
            return Err("the new process is gone".to_owned());
        };
        let now = Instant::now();
        let ending =
            Ending { since: now, deadline: now + patience, is_alone: false, next_look: now, next_word: now, quiet_looks: 0 };
        let successor = Successor { process: self.process, sender, child: Mutex::new(child), state: Mutex::new(ending) };
        Ok((Arc::new(successor), receiver))
    }

    fn sender(&self) -> Result<&Sender, String> {
        self.sender.as_ref().ok_or_else(|| "the wire is closed".to_owned())
    }

    fn send(&self, kind: Kind, bytes: &[u8]) -> Result<(), String> {
        self.sender()?.send(kind, bytes, &[]).map_err(broken)
    }

    fn tell(&self, kind: Kind, content: &impl serde::Serialize) -> Result<(), String> {
        self.sender()?.tell(kind, content).map_err(broken)
    }

    /// Waits for this message. The new process may say instead why it cannot serve.
    fn expect(&mut self, kind: Kind, deadline: Instant) -> Result<Message, String> {
        let receiver = self.receiver.as_mut().ok_or("the wire is closed")?;
        let message = match receiver.receive(deadline) {
            Ok(message) => message,
            Err(Broken::Late) => return Err(format!("process {} did not come to serve in time", self.process)),
            Err(Broken::Closed) => {
                return Err(format!("process {} has ended before it could serve; see its lines in the log", self.process));
            }
            Err(other) => return Err(broken(other)),
        };
        match message.kind {
            found if found == kind => Ok(message),
            Kind::Failed => Err(String::from_utf8_lossy(&message.bytes).into_owned()),
            other => Err(format!("the handover: {other:?} came from process {} where {kind:?} was to come", self.process)),
        }
    }
}

impl Drop for Attempt<'_> {
    /// A new process that does not serve must not stay.
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        // Pages of the table's copies.
        sys::return_free_memory();
    }
}

fn broken(broken: Broken) -> String {
    format!("the handover: {broken}")
}
