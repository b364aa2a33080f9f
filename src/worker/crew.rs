//! All workers together: opens all sockets, starts one pinned thread per core, adds up their counters, stops them.

use super::clock::Clock;
use super::legacy::Inherited;
use super::link::Following;
use super::mailbox::{Change, Command, Mailbox, PostOffice};
use super::{LINK, Numbers, Pulse, RecordSink, Report, WAKER, WakeHandle, Worker};
use crate::base::dns::Answer;
use crate::base::{Counted, Key, LiveConnections, Network, Sources, Transport};
use crate::net::steer::Mark;
use crate::net::streams::Description;
use crate::net::tls::Contexts;
use crate::net::{BindError, Buffers, Limits, Listener, ListenerCounters, Socket, Streams, Udp, Wires, sys};
use crate::resolver::Asker;
use crate::settings;
use crate::stack::auth::nonce::Nonces;
use crate::stack::auth::users::Users;
use crate::stack::calls::Calls;
use crate::stack::cookie;
use crate::stack::counterpart::Counterpart;
use crate::stack::health::Health;
use crate::stack::trunk_table::TrunkTable;
use crate::stack::{Element, Endpoint, Location, Settings};
use crate::trace::Taps;
use mio::{Poll, Waker};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What the conf says about the loop and the sockets.
#[derive(Clone)]
pub struct Options {
    /// One worker for each CPU core named; at least one.
    pub cores: Vec<usize>,
    pub udp: settings::Udp,
    /// Limits of one core's connections.
    pub connections: Limits,
    /// Limits on the requests that a source may send to the whole server.
    pub sources: Arc<Sources>,
    /// What is known of next hops that have failed.
    pub health: Arc<Health>,
    /// For TLS listeners, and for connections to TLS servers.
    pub tls: Option<Arc<Contexts>>,
    /// Bytes of mail that may wait from one core to another.
    pub mail: usize,
    /// Grid, in milliseconds, on which timers are checked if nothing else wakes a worker.
    pub timer_grid_ms: u64,
    /// With several cores, have the kernel deliver responses to the core that their branch names. Without it, or if the kernel does
    /// not, the cores mail each other what is not theirs.
    pub steer: bool,
    /// Bytes of answers that may wait for the disk on one core.
    pub held: usize,
    pub ring: Option<WakeHandle>,
    /// Where call records are made, if they are wanted.
    pub recording: Option<Recording>,
    /// Takes questions about names. If `None`, no name can be resolved.
    pub asker: Option<Asker>,
    /// The traces in progress.
    pub taps: Arc<Taps>,
    /// The state of the trunks.
    pub trunks: Arc<TrunkTable>,
    /// By listener: from where connections begin with a PROXY header. None for those beyond the end.
    pub proxy_protocol: Vec<Vec<Network>>,
    /// Whether other servers have the same secret, and what they make is good here.
    pub shared_key: bool,
    /// Secrets besides the one that everything is signed with: what they have signed is accepted.
    pub other_secrets: Vec<Key>,
    /// The sockets of a predecessor: [`bind`] takes those of the listeners that stay, and closes the others.
    pub inherited: Arc<Mutex<Vec<Inherited>>>,
}

/// The calls in progress, and what takes their records.
#[derive(Clone)]
pub struct Recording {
    pub calls: Arc<Calls>,
    pub sink: RecordSink,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            cores: vec![0],
            udp: settings::Udp::default(),
            connections: Limits::default(),
            sources: Arc::new(Sources::new(Key::new(0, 0), 0)),
            health: Arc::new(Health::new(Key::new(0, 0))),
            tls: None,
            mail: 1 << 20,
            timer_grid_ms: 10,
            steer: true,
            // A second of registrations at full speed.
            held: 64 << 20,
            ring: None,
            recording: None,
            asker: None,
            taps: Arc::default(),
            trunks: Arc::default(),
            proxy_protocol: Vec::new(),
            shared_key: false,
            other_secrets: Vec::new(),
            inherited: Arc::default(),
        }
    }
}

/// All sockets of the server, open but not yet served.
pub struct Bound {
    options: Options,
    addresses: Vec<SocketAddr>,
    transports: Vec<Transport>,
    /// By worker, then by listener.
    sockets: Vec<Vec<Socket>>,
    /// The live connections of all workers.
    live: Arc<LiveConnections>,
    /// The predecessor, if this process takes its place.
    following: Option<Following>,
}

/// Takes what a predecessor has for a listener of this kind on this address. Port 0 is any port of the address.
fn inherit(options: &Options, transport: Transport, address: SocketAddr) -> Result<Option<Inherited>, BindError> {
    let mut inherited = options.inherited.lock().unwrap_or_else(PoisonError::into_inner);
    let is_fit =
        |one: &Inherited, address: SocketAddr| one.transport.is_reliable() == transport.is_reliable() && one.address == address;
    let place = inherited.iter().position(|one| match address.port() {
        0 => is_fit(one, SocketAddr::new(address.ip(), one.address.port())),
        _ => is_fit(one, address),
    });
    let Some(found) = place.map(|place| inherited.remove(place)) else {
        return Ok(None);
    };
    let (had, cores) = (found.sockets.len(), options.cores.len().max(1));
    match had == cores {
        true => Ok(Some(found)),
        false => {
            let error = io::Error::other(format!("the predecessor has {had} sockets for it, and there are {cores} cores"));
            Err(BindError { transport, address, error })
        }
    }
}

/// Opens the sockets of one listener, or takes over those of a predecessor.
fn open(options: &Options, number: usize, transport: Transport, address: SocketAddr) -> Result<Vec<Socket>, BindError> {
    let (cores, inherited) = (options.cores.len().max(1), inherit(options, transport, address)?);
    let balancers = options.proxy_protocol.get(number).map_or(&[][..], Vec::as_slice);
    Ok(match (transport, inherited) {
        (Transport::Udp, inherited) => {
            let buffers = Buffers::new(&options.udp);
            let opened = match inherited {
                Some(Inherited { address, sockets, .. }) => Udp::inherit(address, sockets, &buffers)?,
                None => {
                    let opened = Udp::bind(address, cores, &buffers)?;
                    steer(options, &opened);
                    opened
                }
            };
            opened.into_iter().map(Box::new).map(Socket::Udp).collect()
        }
        (Transport::Tcp | Transport::Tls, Some(Inherited { address, sockets, .. })) => {
            let opened = Listener::inherit(transport, address, sockets, balancers);
            opened.into_iter().map(Socket::Stream).collect()
        }
        (Transport::Tcp | Transport::Tls, None) => {
            let opened = Listener::bind(transport, address, cores, balancers)?;
            opened.into_iter().map(Socket::Stream).collect()
        }
    })
}

/// Opens the sockets of all listeners for all workers, before anything is served: an error leaves nothing behind.
pub fn bind(options: Options, listeners: &[(Transport, SocketAddr)]) -> Result<Bound, BindError> {
    let cores = options.cores.len().max(1);
    let mut sockets: Vec<Vec<Socket>> = (0..cores).map(|_| Vec::new()).collect();
    let mut addresses: Vec<SocketAddr> = Vec::with_capacity(listeners.len());
    for (number, &(transport, address)) in listeners.iter().enumerate() {
        let opened = open(&options, number, transport, address)?;
        addresses.extend(opened.first().map(Socket::address));
        for (own, socket) in sockets.iter_mut().zip(opened) {
            own.push(socket);
        }
    }
    // What no listener wants is closed: nobody would accept from it.
    options.inherited.lock().unwrap_or_else(PoisonError::into_inner).clear();
    let live = Arc::new(LiveConnections::new(cores, options.connections.connections));
    Ok(Bound {
        options,
        addresses,
        transports: listeners.iter().map(|(transport, _)| *transport).collect(),
        sockets,
        live,
        following: None,
    })
}

/// The least number of nonces in use whose counts are remembered, for the whole server: some 64 bytes each.
const NONCE_WINDOWS: usize = 1 << 19;

/// The mark before the core's number in our stateful branches ([`crate::stack::branch`]).
const CORE_MARK: &Mark = b"z9hG4bKs";

fn steer(options: &Options, sockets: &[Udp]) {
    if let [socket, _, ..] = sockets
        && options.steer
        && let Err(error) = socket.steer(CORE_MARK)
    {
        let address = socket.address();
        log::warn!("udp {address}: responses are not steered, but mailed ({error})");
    }
}

impl Bound {
    /// Returns the bound addresses, with the ports that the kernel chose for port 0.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns the listeners, with the ports that the kernel chose for port 0.
    pub(super) fn listeners(&self) -> impl Iterator<Item = (Transport, SocketAddr)> {
        self.transports.iter().copied().zip(self.addresses.iter().copied())
    }

    pub(super) fn cores(&self) -> usize {
        self.sockets.len()
    }

    pub(super) fn live(&self) -> &LiveConnections {
        &self.live
    }

    pub(super) fn set_following(&mut self, following: Following) {
        self.following = Some(following);
    }

    /// Returns a name for this run of the server, different from all earlier ones but for a chance of one in four billion. Cookies,
    /// which carry a part of it, tell it from the predecessor's for certain.
    fn run(&self) -> u32 {
        let predecessor = self.following.as_ref().map(|following| following.predecessor.run);
        // Seeded by the system, each time anew.
        let mut runs = (0..).map(|number: u64| RandomState::new().hash_one((std::process::id(), number)) as u32);
        runs.find(|run| predecessor.is_none_or(|before| !cookie::look_alike(*run, before))).unwrap_or_default()
    }

    /// Sets what the workers call when an answer waits for the disk.
    pub fn ring(&mut self, ring: Option<WakeHandle>) {
        self.options.ring = ring;
    }

    /// Starts the workers. `settings.cores` must be the number of cores in the options, and `settings.listeners` those that were
    /// bound, in the same order; `clock` is the server's. The caller keeps a reference to `users` ([`Command::Users`]).
    pub fn spawn(
        mut self,
        clock: Clock,
        settings: Arc<Settings>,
        location: Arc<Location>,
        users: &Arc<Users>,
        key: Key,
    ) -> io::Result<Crew> {
        if usize::from(settings.cores) != self.sockets.len() || settings.listeners.len() != self.addresses.len() {
            return Err(io::Error::other("settings name other cores or listeners than were bound"));
        }
        let live = self.live.clone();
        let wall_ms = clock.wall_ms();
        let others = self.options.other_secrets.clone();
        let run = self.run();
        // The servers that share the table know each other's cookies by the run.
        let before = self.following.as_ref().map(|following| following.predecessor.run);
        let run = location.shared().map_or(run, |shared| shared.settle_run(before));
        let mut nonces = Nonces::new(key, run, NONCE_WINDOWS).accepting(&others);
        if self.options.shared_key {
            nonces = nonces.shared(wall_ms, clock.now().as_ms());
        }
        let nonces = Arc::new(nonces);
        let sources = self.options.sources.clone();
        let calls = self.options.recording.as_ref().map(|recording| recording.calls.clone());
        let (health, trunks) = (self.options.health.clone(), self.options.trunks.clone());
        let predecessor = self.following.as_ref().map(|following| following.predecessor.clone());
        let rules = self.following.as_mut().map(|following| std::mem::take(&mut following.legacy.rules));
        self.start(clock, |core| {
            let (settings, location, live) = (settings.clone(), location.clone(), live.clone());
            let mut endpoint = Endpoint::new(settings, location, live, core, key);
            endpoint.set_clock(wall_ms);
            endpoint.accept_secrets(&others);
            endpoint.share_nonces(nonces.clone());
            endpoint.share_sources(sources.clone());
            endpoint.share_calls(calls.clone());
            endpoint.share_health(health.clone());
            endpoint.share_trunks(trunks.clone());
            endpoint.handle_users(users.clone());
            endpoint.handle_counterpart(predecessor.clone().map(Counterpart::Predecessor));
            if let Some(rules) = &rules {
                endpoint.inherit(clock.now(), rules);
            }
            endpoint
        })
    }

    /// Starts workers that run elements other than an [`Endpoint`]: `make` gets the worker's number.
    #[cfg(test)]
    pub(super) fn spawn_elements<E: Element>(self, make: impl FnMut(u8) -> E) -> io::Result<Crew> {
        self.start(Clock::start(), make)
    }

    fn start<E: Element>(self, clock: Clock, make: impl FnMut(u8) -> E) -> io::Result<Crew> {
        let (addresses, cores) = (self.addresses.clone(), self.options.cores.clone());
        let transports = self.transports.clone();
        let (office, workers) = self.workers(clock, make)?;
        let mut crew = Crew { clock, addresses, transports, cores, office, threads: Vec::new() };
        for (number, worker) in workers.into_iter().enumerate() {
            let cpu = crew.cores.get(number).copied().unwrap_or(0);
            let thread = thread::Builder::new().name(format!("worker-{number}")).spawn(move || serve(worker, number, cpu))?;
            crew.threads.push(thread);
        }
        Ok(crew)
    }

    /// Returns the workers without threads, and the post office that reaches them, for callers that run them directly.
    pub fn workers<E: Element>(self, clock: Clock, mut make: impl FnMut(u8) -> E) -> io::Result<(Arc<PostOffice>, Vec<Worker<E>>)> {
        let polls = (0..self.sockets.len()).map(|_| Poll::new()).collect::<io::Result<Vec<_>>>()?;
        let wakers = polls.iter().map(|poll| Waker::new(poll.registry(), WAKER)).collect::<io::Result<Vec<_>>>()?;
        let office = Arc::new(PostOffice::new(wakers, self.options.mail));
        let mut workers = Vec::with_capacity(polls.len());
        let mut following = self.following;
        for (number, (sockets, poll)) in self.sockets.into_iter().zip(polls).enumerate() {
            let mut streams = Streams::new(
                number as u8,
                self.options.connections.clone(),
                self.live.clone(),
                self.options.tls.clone(),
                poll.registry().try_clone()?,
            );
            streams.ask_of_bans(self.options.sources.clone());
            let registry = poll.registry().try_clone()?;
            let wires = Wires::new(sockets, self.options.udp.batch, streams, registry)?;
            let mut mailbox = Mailbox::new(office.clone(), number);
            if let Some(following) = &mut following {
                mailbox.join(following.link(number, &self.live, poll.registry(), LINK)?);
            }
            let element = make(number as u8);
            let options = &self.options;
            workers.push(Worker::new(poll, wires, mailbox, self.live.clone(), element, clock, options));
        }
        Ok((office, workers))
    }
}

/// A worker's thread.
fn serve<E: Element>(mut worker: Worker<E>, number: usize, cpu: usize) {
    if let Err(error) = sys::pin(cpu) {
        log::warn!("worker {number} is not pinned to core {cpu} ({error}); this machine has {} cores", sys::online_cores());
    }
    if let Err(error) = worker.run() {
        log::error!("worker {number} stopped: {error}");
    }
}

/// The running workers. Dropping it stops them.
pub struct Crew {
    clock: Clock,
    addresses: Vec<SocketAddr>,
    transports: Vec<Transport>,
    /// CPU cores, by worker.
    cores: Vec<usize>,
    office: Arc<PostOffice>,
    threads: Vec<JoinHandle<()>>,
}

/// All counters of the server at one moment.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// By worker; one that did not answer in time is missing.
    pub workers: Vec<Report>,
    /// CPU cores, by worker.
    pub cores: Vec<usize>,
    /// The sums over the workers.
    pub numbers: Numbers,
    /// By listener.
    pub listeners: Vec<(Transport, SocketAddr, ListenerCounters)>,
}

/// How long [`Crew::stats`] waits for its workers. A turn takes milliseconds at most.
const STATS_PATIENCE: Duration = Duration::from_secs(2);

impl Crew {
    /// Returns the clock of the rules, to which times in the location service refer.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Returns what reaches the workers, for callers that must not wait for this crew's own lock.
    pub fn post_office(&self) -> Arc<PostOffice> {
        self.office.clone()
    }

    /// Returns the transports of the listeners.
    pub fn transports(&self) -> &[Transport] {
        &self.transports
    }

    /// Returns the addresses of the listeners.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub(super) fn cores(&self) -> usize {
        self.office.cores()
    }

    pub(super) fn command(&self, core: usize, command: Command) {
        self.office.command(core, command);
    }

    /// False if a worker has ended without being told to: then the server is incomplete.
    pub fn is_whole(&self) -> bool {
        !self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Requests the counters of all workers and adds them up.
    pub fn stats(&self) -> Stats {
        let (reply, reports) = mpsc::channel();
        let deadline = Instant::now() + STATS_PATIENCE;
        for worker in 0..self.office.cores() {
            self.office.command(worker, Command::Report(reply.clone()));
        }
        drop(reply);
        let mut workers: Vec<Report> = Vec::new();
        while workers.len() < self.office.cores() {
            let patience = deadline.saturating_duration_since(Instant::now());
            match reports.recv_timeout(patience) {
                Ok(report) => workers.push(report),
                Err(_) => break,
            }
        }
        workers.sort_by_key(|report| report.core);
        let listeners = self.transports.iter().copied().zip(self.addresses.iter().copied());
        Stats::sum(workers, &self.cores, listeners)
    }

    /// Requests a sign of life from all workers, and does not wait for it.
    pub fn pulse(&self) -> Pulse {
        Pulse::ask(&self.office)
    }

    /// Passes a new conf to all workers, applied between two turns. Listeners and cores stay the same.
    pub fn reload(&self, change: &Change) {
        for worker in 0..self.office.cores() {
            self.office.command(worker, Command::Configure(change.clone()));
        }
    }

    /// Tells all workers to begin no new dialogs.
    pub fn drain(&self) {
        for worker in 0..self.office.cores() {
            self.office.command(worker, Command::Drain);
        }
    }

    /// Replaces the users for what comes next.
    pub fn users(&self, users: &Arc<Users>) {
        for worker in 0..self.office.cores() {
            self.office.command(worker, Command::Users(users.clone()));
        }
    }

    /// Returns the function that passes the resolver's answers to the worker that asked.
    pub fn answers(&self) -> impl Fn(u8, Answer) + Send + Sync + 'static {
        let office = self.office.clone();
        move |core, answer| {
            let answer = Command::Answer(Box::new(answer));
            office.command(usize::from(core), answer);
        }
    }

    /// Returns every connection, by worker; one that did not answer in time is missing.
    pub fn connections(&self) -> Vec<Description> {
        let (reply, lists) = mpsc::channel();
        for worker in 0..self.office.cores() {
            self.office.command(worker, Command::Connections(reply.clone()));
        }
        drop(reply);
        let deadline = Instant::now() + STATS_PATIENCE;
        let mut all = Vec::new();
        for _ in 0..self.office.cores() {
            let patience = deadline.saturating_duration_since(Instant::now());
            match lists.recv_timeout(patience) {
                Ok(list) => all.extend(list),
                Err(_) => break,
            }
        }
        all
    }

    /// Ends all workers after their current turn, and waits for them.
    pub fn stop(&mut self) {
        for worker in 0..self.office.cores() {
            self.office.command(worker, Command::Stop);
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a worker panicked");
            }
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Stats {
    fn sum(workers: Vec<Report>, cores: &[usize], listeners: impl Iterator<Item = (Transport, SocketAddr)>) -> Stats {
        let mut stats = Stats {
            cores: cores.to_vec(),
            listeners: listeners.map(|(transport, address)| (transport, address, ListenerCounters::default())).collect(),
            ..Stats::default()
        };
        for report in &workers {
            stats.numbers.add(&report.numbers);
            for ((_, _, sum), own) in stats.listeners.iter_mut().zip(&report.listeners) {
                sum.add(own);
            }
        }
        stats.workers = workers;
        stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Id;
    use crate::stack::branch::Signer;

    #[test]
    fn the_mark_stands_before_the_core_in_our_branches() {
        for core in [0, 1, 19, 255] {
            let mut branch = Vec::new();
            let id = Id { slot: 7, generation: 1 };
            Signer::new(Key::new(1, 2)).write_stateful(core, id, crate::stack::branch::Mark::default(), &mut branch);
            let digits = branch.strip_prefix(CORE_MARK).unwrap();
            assert_eq!(&digits[..2], format!("{core:02x}").as_bytes());
        }
    }
}
