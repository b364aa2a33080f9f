//! `strowger run`: from a conf to a running server, and its end.
//!
//! The order of the steps matters: secrets are read by the user that started the process; everything that belongs to the server,
//! files and sockets, is opened by the user that it becomes; nothing can connect before the slow reads are done.

use super::bindings::UnstartedDisk;
use super::drain::Drain;
use super::handover::following::Waiting;
use super::handover::succession::{Predecessor, Succession};
use super::handover::successor::Successor;
use super::handover::words::Offer;
use super::logger;
use super::notify::Manager;
use super::records::Recorder;
use super::running::{Current, Reread, RunningServer, Start, limit_sources};
use super::secure::{forbid_dumps, warn_of_files};
use super::sharing::{self, Sharing};
use super::wait::End;
use super::watch::Files;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXCPU};
use signal_hook::iterator::Signals;
use std::net::{IpAddr, SocketAddr};
use std::process::{self, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use strowger::base::{Key, Sources, Transport};
use strowger::config::key::{self, Secret};
use strowger::config::{Conf, Machine};
use strowger::control::Server;
use strowger::control::server::Bounds;
use strowger::net::sys::identity::Identity;
use strowger::net::tls::{Contexts, TicketSecrets};
use strowger::net::{interfaces, sys};
use strowger::resolver::{self, Asker, Inbox, Resolver};
use strowger::share::UnstartedShare;
use strowger::stack::Settings;
use strowger::stack::auth::users::Users;
use strowger::stack::health::Health;
use strowger::stack::location::Location;
use strowger::stack::trunk_table::TrunkTable;
use strowger::store::users::Loaded;
use strowger::store::{Source, user_watcher};
use strowger::trace::Taps;
use strowger::worker::{self, Bound, Clock, Options, WakeHandle};

/// Serves until it is told to stop. `name` is the conf's, for the log; `reread` returns the conf at each reload.
///
/// With a `successor` it takes over from the process that serves.
pub fn run(conf: &Conf, name: &str, reread: Reread, mut successor: Option<Successor>) -> Result<ExitCode, String> {
    logger::start(conf.log.level, conf.log.format)?;
    let after = successor.as_ref().map(|successor| format!(" (process {}, after {})", process::id(), successor.offer.process));
    log::info!("strowger {}: {name}{}", env!("CARGO_PKG_VERSION"), after.unwrap_or_default());
    // A new secret and empty tables in their places would lose calls, users and bindings.
    if !conf.left_behind.is_empty() {
        return Err(conf.left_behind.join("\n"));
    }
    // SIGXCPU: the kernel will kill a process that goes on. What is to be written is written before.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGXCPU]).map_err(|error| error.to_string())?;
    let manager = Manager::from_environment();
    let identity = conf.identity()?;
    forbid_dumps(conf);
    let files = Files::look(conf);
    let ground = Ground::look(conf, successor.as_ref())?;
    step_down(conf, identity.as_ref(), Identity::assume)?;
    let open = Open::all(conf, &ground, successor.as_mut())?;
    step_down(conf, identity.as_ref(), Identity::seal)?;
    warn_of_files(conf, ground.contexts.as_deref());
    let begin = Beginning { ground, open, manager, reread };
    let (server, control) = match successor {
        None => begin.first(conf)?,
        Some(successor) => begin.after(conf, successor)?,
    };
    server.announce(conf);

    let end = server.wait(&mut signals, files);
    stop(&server, control);
    match end {
        End::Drained | End::Succeeded => Ok(ExitCode::SUCCESS),
        End::Signal(signal) => {
            log::info!("stopped by signal {signal}");
            Ok(ExitCode::SUCCESS)
        }
        End::Broken => Err("a worker has ended; see the log".to_owned()),
    }
}

/// Who may open the control socket.
fn control_bounds(conf: &Conf) -> Result<Bounds, String> {
    Ok(Bounds { mode: conf.control.mode, group: conf.control_group()?, ..Bounds::default() })
}

/// What is established before the process switches to another user: its secrets, and the machine it runs on.
struct Ground {
    secret: Key,
    /// What the key file holds.
    secrets: Vec<Secret>,
    /// The further ones in the key file, which sign nothing.
    other_secrets: Vec<Key>,
    /// What the keys of session tickets are derived from, if other servers share it.
    tickets: TicketSecrets,
    contexts: Option<Arc<Contexts>>,
    /// The addresses of this machine's interfaces.
    local: Vec<IpAddr>,
    /// Memory available to the server, in bytes.
    memory: u64,
}

impl Ground {
    fn look(conf: &Conf, successor: Option<&Successor>) -> Result<Ground, String> {
        let secrets = match successor {
            None => key::read_or_make(&conf.server.key_file)?,
            Some(successor) => {
                successor.check(conf)?;
                successor.secrets(conf)?
            }
        };
        let local =
            interfaces::local_addresses().map_err(|error| format!("the addresses of this machine's interfaces: {error}"))?;
        let tickets = match conf.server.shared_key {
            true => TicketSecrets(secrets.clone()),
            false => TicketSecrets::default(),
        };
        let contexts = match successor {
            None => conf.contexts(None, &tickets)?,
            Some(successor) => conf.contexts_after(successor.tickets(), &tickets)?,
        };
        let (first, others) = secrets.split_first().ok_or("the key file is empty")?;
        let (secret, other_secrets) = (key_of(first), others.iter().map(key_of).collect());
        Ok(Ground { secret, secrets, other_secrets, tickets, local, memory: Machine::this().memory, contexts })
    }
}

/// One step of switching to the user that the conf names, if any. What is opened after the first step must belong to that user: the
/// databases, the control socket.
fn step_down<E: std::fmt::Display>(
    conf: &Conf,
    identity: Option<&Identity>,
    step: impl FnOnce(&Identity) -> Result<(), E>,
) -> Result<(), String> {
    if let Some(identity) = identity {
        step(identity).map_err(|error| format!("[server] user: {error}"))?;
        forbid_dumps(conf);
    }
    Ok(())
}

/// What is open before the first worker runs.
struct Open {
    clock: Clock,
    location: Arc<Location>,
    disk: UnstartedDisk,
    /// Present if the table is shared.
    share: Option<UnstartedShare>,
    users: Option<(Source, Loaded)>,
    bound: Bound,
    asker: Asker,
    inbox: Inbox,
    sources: Arc<Sources>,
    health: Arc<Health>,
    taps: Arc<Taps>,
    recorder: Option<Recorder>,
    trunks: Arc<TrunkTable>,
    /// How many files the process may open.
    files: usize,
    /// Connection slots of one core.
    connections: usize,
}

impl Open {
    fn all(conf: &Conf, ground: &Ground, mut successor: Option<&mut Successor>) -> Result<Open, String> {
        let listeners = listeners(conf);
        let clock = successor.as_ref().map_or_else(Clock::start, |successor| successor.clock());
        let location = Location::new(ground.secret, conf.max_bindings(ground.memory));
        let location = sharing::with_sharing(location, conf, &ground.local, clock);
        let location = Arc::new(location.with_journal(conf.durability()));
        let (disk, share) = open_stores(conf, ground, &location, &listeners, clock, successor.is_some())?;
        if let Some(successor) = &mut successor {
            successor.take_table(&location, &listeners)?;
        }
        let users = conf.read_users(ground.secret, disk.shared_file())?;
        let files = sys::open_files_limit().map_err(|error| format!("the limit of open files: {error}"))?;
        let (asker, inbox) = resolver::open(conf.dns.questions);
        let sources = Arc::new(Sources::new(ground.secret, 0));
        limit_sources(&sources, conf);
        let health = Arc::new(Health::new(ground.secret));
        let taps: Arc<Taps> = Arc::default();
        let recorder = Recorder::open(&conf.records)?;
        let trunks: Arc<TrunkTable> = Arc::default();
        trunks.keep(conf.trunks.iter().map(|trunk| &**trunk));
        let options = Options {
            taps: taps.clone(),
            trunks: trunks.clone(),
            connections: conf.connection_limits(files),
            sources: sources.clone(),
            health: health.clone(),
            tls: ground.contexts.clone(),
            cores: conf.server.cores.clone(),
            udp: conf.udp.clone(),
            asker: Some(asker.clone()),
            proxy_protocol: conf.listen.iter().map(|listen| listen.proxy_protocol.clone()).collect(),
            shared_key: conf.server.shared_key,
            other_secrets: ground.other_secrets.clone(),
            recording: recorder.as_ref().map(Recorder::recording),
            inherited: Arc::new(Mutex::new(successor.map(Successor::take_inherited).unwrap_or_default())),
            ..Options::default()
        };
        let connections = options.connections.connections;
        let mut bound = worker::bind(options, &listeners).map_err(|error| error.to_string())?;
        bound.ring(ring(&disk, share.as_ref()));
        Ok(Open {
            clock,
            location,
            disk,
            share,
            users,
            bound,
            asker,
            inbox,
            sources,
            health,
            taps,
            recorder,
            trunks,
            files,
            connections,
        })
    }
}

/// Reads what takes a while before anything can connect. It uses the conf's addresses: those that the kernel chooses are not known
/// yet.
fn open_stores(
    conf: &Conf,
    ground: &Ground,
    location: &Arc<Location>,
    listeners: &[(Transport, SocketAddr)],
    clock: Clock,
    is_successor: bool,
) -> Result<(UnstartedDisk, Option<UnstartedShare>), String> {
    let addresses: Vec<_> = listeners.iter().map(|(_, address)| *address).collect();
    let rules = Arc::new(conf.rules(&addresses, ground.local.clone(), ground.memory));
    let open = if is_successor { UnstartedDisk::follow } else { UnstartedDisk::open };
    let disk = open(conf, location, listeners.to_vec(), rules.clone(), clock)?;
    let share = sharing::terms(conf, listeners.to_vec(), rules, &ground.local, clock, ground.secret)?;
    let share = share.map(|terms| sharing::join(location, terms, is_successor)).transpose()?;
    Ok((disk, share))
}

/// Returns what the workers call when an answer waits: it may wait for the disk or for Redis.
fn ring(disk: &UnstartedDisk, share: Option<&UnstartedShare>) -> Option<WakeHandle> {
    let Some(bell) = sharing::ring(share) else {
        return disk.ring();
    };
    // Full: it was rung already.
    Some(Arc::new(move || _ = bell.try_send(())))
}

/// The addresses that the conf names.
fn listeners(conf: &Conf) -> Vec<(Transport, SocketAddr)> {
    conf.listen.iter().map(|listen| (listen.transport, listen.address)).collect()
}

/// All that is there before the first worker runs.
struct Beginning {
    ground: Ground,
    open: Open,
    manager: Manager,
    reread: Reread,
}

impl Beginning {
    /// Begins to serve as the only process of this server.
    fn first(self, conf: &Conf) -> Result<(Arc<RunningServer>, Server), String> {
        let (server, waiting) = self.launch(conf)?;
        let office = server.crew().post_office();
        server.disk.start(waiting.disk, office.clone())?;
        server.sharing.start(waiting.share, office)?;
        let scrape = server.scrape_at(conf.metrics.address)?;
        server.set_scrape(scrape);
        let control = Server::start(&conf.control.socket, server.clone(), control_bounds(conf)?)?;
        server.manager.ready("serving");
        Ok((server, control))
    }

    /// Begins to serve in the place of another process. Until the wire is told so, an error leaves that one serving.
    fn after(mut self, conf: &Conf, mut successor: Successor) -> Result<(Arc<RunningServer>, Server), String> {
        let (draft, bounds) = (successor.control(conf)?, control_bounds(conf)?);
        let succeeded = successor.conclude(&self.open.location, &listeners(conf))?;
        let Offer { process, restarts, .. } = successor.offer;
        let is_same_file = successor.offer.database == conf.registrar.database;
        self.open.bound.follow(succeeded.legacy, succeeded.links, &succeeded.listeners);
        let (server, mut waiting) = self.launch(conf)?;
        waiting.is_stored = succeeded.is_stored && is_same_file;
        server.succession.restarts.store(restarts + 1, Ordering::Relaxed);
        let control = draft.serve(server.clone(), bounds)?;
        let (sender, receiver) = successor.serve()?;
        log::info!(
            "process {} serves in the place of process {process}, {:.1} ms after it had the last of what that has handed over",
            process::id(),
            succeeded.at.elapsed().as_secs_f64() * 1000.0
        );
        server.follow(Arc::new(Predecessor::new(process, sender)), receiver, waiting)?;
        Ok((server, control))
    }

    /// Starts the threads: workers, resolver, and the one that watches the users. What is left waits.
    fn launch(self, conf: &Conf) -> Result<(Arc<RunningServer>, Waiting), String> {
        let Beginning { ground, open, manager, reread } = self;
        launch(conf, ground, open, manager, reread)
    }
}

/// Starts the threads: workers, resolver, and the one that watches the users.
fn launch(
    conf: &Conf,
    ground: Ground,
    open: Open,
    manager: Manager,
    reread: Reread,
) -> Result<(Arc<RunningServer>, Waiting), String> {
    let settings = Arc::new(conf.rules(open.bound.addresses(), ground.local, ground.memory));
    let start = Start {
        secret: ground.secret,
        secrets: ground.secrets,
        tickets: ground.tickets,
        files: open.files,
        sources: open.sources,
        health: open.health,
        connections: open.connections,
        transactions: settings.per_core.transactions,
        since_1970: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        wall_ms: open.clock.wall_ms(),
    };
    let (source, users) = first_users(open.users);
    let (clock, location, secret) = (open.clock, open.location, ground.secret);
    // The exporter's thread must not have the rights that have been given up by now.
    open.taps.configure(&conf.trace)?;
    let crew = open
        .bound
        .spawn(clock, settings.clone(), location.clone(), &users, secret)
        .map_err(|error| format!("the workers did not start: {error}"))?;
    let answers = Arc::new(crew.answers());
    let resolver = Resolver::start(conf.dns.clone(), open.asker, open.inbox, answers)
        .map_err(|error| format!("the resolver's thread: {error}"))?;
    let server = Arc::new_cyclic(|itself| RunningServer {
        itself: itself.clone(),
        disk: open.disk.waiting(),
        sharing: Sharing::default(),
        start,
        current: Mutex::new(Arc::new(current(conf, settings, ground.contexts))),
        location,
        taps: open.taps,
        recorder: open.recorder,
        trunks: open.trunks,
        resolver,
        crew: Mutex::new(crew),
        user_watcher: Mutex::new(None),
        scrape: Mutex::new(None),
        reread,
        reloading: Mutex::new(()),
        reload_wanted: AtomicBool::new(false),
        drain: Drain::default(),
        succession: Succession::default(),
        manager,
    });
    if let Some(source) = source {
        server.watch_users(source, users)?;
    }
    Ok((server, Waiting { disk: open.disk, share: open.share, is_stored: true }))
}

fn current(conf: &Conf, settings: Arc<Settings>, contexts: Option<Arc<Contexts>>) -> Current {
    Current { conf: conf.clone(), settings, contexts }
}

/// Returns the users that the workers begin with, and where they were read from, if requests are challenged.
fn first_users(read: Option<(Source, Loaded)>) -> (Option<Source>, Arc<Users>) {
    let Some((source, loaded)) = read else {
        return (None, Arc::default());
    };
    log::info!("{}", user_watcher::summary(&source, &loaded));
    if loaded.users.is_empty() {
        log::warn!("nobody can answer a challenge: \"strowger user add\" adds users");
    }
    (Some(source), Arc::new(loaded.users))
}

/// How long shutdown waits for traces to be notified.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Operator services stop first; what was promised to phones is written last.
fn stop(server: &RunningServer, control: Server) {
    server.manager.stopping("stopping", Duration::ZERO);
    server.taps.close(LAST_WORDS);
    drop(control);
    server.set_scrape(None);
    server.disk.settle();
    server.sharing.settle();
    let clock = server.crew().clock();
    server.crew().stop();
    server.taps.end_export();
    if let Some(recorder) = &server.recorder {
        recorder.close(clock);
    }
    // The journal closes the database last: what was queued meanwhile is then written.
    server.set_user_watcher(None);
    server.sharing.close();
    server.disk.close();
}

fn key_of(secret: &Secret) -> Key {
    let word = |from: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&secret[from..from + 8]);
        u64::from_le_bytes(bytes)
    };
    // All 256 bits count: the second half is hashed under the first.
    let wide = Key::new(word(0), word(8)).wide(&[&secret[16..]]);
    Key::new(wide as u64, (wide >> 64) as u64)
}
