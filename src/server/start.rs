//! `strowger run`: from a conf to a running server, and its end.
//!
//! The order of the steps matters: secrets are read by the user that started the process; everything that belongs to the server,
//! files and sockets, is opened by the user that it becomes; nothing can connect before the slow reads are done.

use super::bindings::UnstartedDisk;
use super::drain::Drain;
use super::logger;
use super::notify::Manager;
use super::records::Recorder;
use super::running::{Current, Reread, RunningServer, Start, limit_sources};
use super::secure::{forbid_dumps, warn_of_files};
use super::sharing;
use super::wait::End;
use super::watch::Files;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXCPU};
use signal_hook::iterator::Signals;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
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
pub fn run(conf: &Conf, name: &str, reread: Reread) -> Result<ExitCode, String> {
    logger::start(conf.log.level, conf.log.format)?;
    log::info!("strowger {}: {name}", env!("CARGO_PKG_VERSION"));
    // SIGXCPU: the kernel will kill a process that goes on. What is to be written is written before.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGXCPU]).map_err(|error| error.to_string())?;
    let manager = Manager::from_environment();
    let identity = conf.identity()?;
    forbid_dumps(conf);
    let files = Files::look(conf);
    let ground = Ground::look(conf)?;
    step_down(conf, identity.as_ref(), Identity::assume)?;
    let open = Open::all(conf, &ground)?;
    step_down(conf, identity.as_ref(), Identity::seal)?;
    warn_of_files(conf, ground.contexts.as_deref());
    let server = launch(conf, ground, open, manager, reread)?;
    let scrape = server.scrape_at(conf.metrics.address)?;
    server.set_scrape(scrape);
    let control = Server::start(&conf.control.socket, server.clone(), Bounds::default())?;
    server.announce(conf);
    server.manager.ready("serving");

    let end = server.wait(&mut signals, files);
    stop(&server, control);
    match end {
        End::Drained => Ok(ExitCode::SUCCESS),
        End::Signal(signal) => {
            log::info!("stopped by signal {signal}");
            Ok(ExitCode::SUCCESS)
        }
        End::Broken => Err("a worker has ended; see the log".to_owned()),
    }
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
    fn look(conf: &Conf) -> Result<Ground, String> {
        let secrets = key::read_or_make(&conf.server.key_file)?;
        let local =
            interfaces::local_addresses().map_err(|error| format!("the addresses of this machine's interfaces: {error}"))?;
        let tickets = match conf.server.shared_key {
            true => TicketSecrets(secrets.clone()),
            false => TicketSecrets::default(),
        };
        let contexts = conf.contexts(None, &tickets)?;
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
    fn all(conf: &Conf, ground: &Ground) -> Result<Open, String> {
        let listeners: Vec<_> = conf.listen.iter().map(|listen| (listen.transport, listen.address)).collect();
        let clock = Clock::start();
        let location = Location::new(ground.secret, conf.max_bindings(ground.memory));
        let location = sharing::with_sharing(location, conf, &ground.local, clock);
        let location = Arc::new(location.with_journal(conf.durability()));
        let (disk, share) = open_stores(conf, ground, &location, &listeners, clock)?;
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
) -> Result<(UnstartedDisk, Option<UnstartedShare>), String> {
    let addresses: Vec<_> = listeners.iter().map(|(_, address)| *address).collect();
    let rules = Arc::new(conf.rules(&addresses, ground.local.clone(), ground.memory));
    let disk = UnstartedDisk::open(conf, location, listeners.to_vec(), rules.clone(), clock)?;
    let share = sharing::join(conf, location, listeners.to_vec(), rules, &ground.local, clock, ground.secret)?;
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

/// Starts the threads: workers, resolver, journal, and the one that watches the users.
fn launch(conf: &Conf, ground: Ground, open: Open, manager: Manager, reread: Reread) -> Result<Arc<RunningServer>, String> {
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
    let disk = open.disk.start(crew.post_office())?;
    let sharing = sharing::start(open.share, crew.post_office())?;
    let server = Arc::new_cyclic(|itself| RunningServer {
        itself: itself.clone(),
        disk,
        sharing,
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
        manager,
    });
    if let Some(source) = source {
        server.watch_users(source, users)?;
    }
    Ok(server)
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
