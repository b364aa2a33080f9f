//! `strowger run`: the conf becomes settings, sockets and workers; the control API answers operators; signals end it.

use super::bindings::{Disk, Opened};
use super::drain::Drain;
use super::logger;
use super::notify::Manager;
use super::secure::{contexts, forbid_dumps, warn_of_exposed};
use super::watch::Files;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use strowger::base::metric::Families;
use strowger::base::{Key, Sources};
use strowger::config::Conf;
use strowger::config::Machine;
use strowger::config::key::{self, Secret};
use strowger::control::server::Bounds;
use strowger::control::{
    AorEntry, ConnectionEntry, ContactEntry, ControlApi, Draining, PrometheusEndpoint, Refusal,
    Server, prometheus,
};
use strowger::net::streams::Description;
use strowger::net::sys::identity::Identity;
use strowger::net::tls::Contexts;
use strowger::net::{interfaces, sys};
use strowger::resolver::{self, Resolver};
use strowger::settings::Words;
use strowger::sip::{Scheme, Uri, write_escaped};
use strowger::stack::Settings;
use strowger::stack::auth::users::Users;
use strowger::stack::location::{BindingView, Location};
use strowger::store::clock::STEP_MS;
use strowger::store::users::Loaded;
use strowger::store::{SharedDatabaseFile, Source, UserWatcher, user_watcher};
use strowger::worker::metrics::{self, ProcessStats};
use strowger::worker::{self, Clock, Crew, Options};

/// How long the server's start waits for standard output.
const ANNOUNCEMENT: Duration = Duration::from_millis(500);

/// Serves until it is told to stop. `reread` is asked for the conf at each reload.
pub fn serve(conf: &Conf, reread: Reread) -> Result<ExitCode, String> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(|error| error.to_string())?;
    let manager = Manager::from_environment();
    let identity = identity(conf)?;
    forbid_dumps(conf);
    let files = Files::look(conf);
    let secret = key_of(&key::read_or_make(&conf.server.key_file)?);
    let local = interfaces::local_addresses()
        .map_err(|error| format!("the addresses of this machine's interfaces: {error}"))?;
    let memory = Machine::this().memory;

    let listeners: Vec<_> = conf
        .listen
        .iter()
        .map(|listen| (listen.transport, listen.address))
        .collect();
    let contexts = contexts(conf, None)?;
    // What is opened from here on must belong to that user: the databases, the control socket.
    let of_user = |error| format!("[server] user: {error}");
    if let Some(identity) = &identity {
        identity.assume().map_err(of_user)?;
        forbid_dumps(conf);
    }
    let clock = Clock::start();
    let location = Location::new(secret, conf.max_bindings(memory));
    let location = location.with_journal(conf.durability());
    let location = Arc::new(location);
    // What takes a while is read before anybody can knock, by the conf's addresses: those that the kernel chooses are not known.
    let addresses: Vec<_> = listeners.iter().map(|(_, address)| *address).collect();
    let rules = Arc::new(conf.rules(&addresses, local.clone(), memory));
    let disk = Opened::open(conf, &location, listeners.clone(), rules, clock);
    let users = users(conf, secret, disk.door())?;
    let open_files =
        sys::open_files_limit().map_err(|error| format!("the limit of open files: {error}"))?;
    let (asker, inbox) = resolver::open(conf.dns.questions);
    let sources = Arc::new(Sources::new(secret, 0));
    limit_sources(&sources, conf);
    let options = Options {
        asker: Some(asker.clone()),
        ..options(conf, open_files, sources.clone(), contexts.clone())
    };
    let connections = options.connections.connections;
    let mut bound = worker::bind(options, &listeners).map_err(|error| error.to_string())?;
    bound.ring(disk.ring());
    if let Some(identity) = &identity {
        identity.seal().map_err(of_user)?;
        forbid_dumps(conf);
    }
    warn_of_exposed(conf);
    let settings = Arc::new(conf.rules(bound.addresses(), local, memory));
    let start = Start {
        secret,
        files: open_files,
        sources,
        connections,
        transactions: settings.per_core.transactions,
        since_1970: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
        wall_ms: clock.wall_ms(),
    };
    let (source, users) = match users {
        Some((source, loaded)) => {
            log::info!("{}", user_watcher::told(&source, &loaded));
            if loaded.users.is_empty() {
                log::warn!("nobody can answer a challenge: \"strowger user add\" adds users");
            }
            (Some(source), Arc::new(loaded.users))
        }
        None => (None, Arc::default()),
    };
    let crew = bound
        .spawn(clock, settings.clone(), location.clone(), &users, secret)
        .map_err(|error| format!("the workers did not start: {error}"))?;
    let answers = Arc::new(crew.answers());
    let resolver = Resolver::start(conf.dns.clone(), asker, inbox, answers)
        .map_err(|error| format!("the resolver's thread: {error}"))?;
    let disk = disk.start(crew.post_office())?;
    let current = Current {
        conf: conf.clone(),
        settings,
        contexts,
    };
    let server = Arc::new_cyclic(|itself| RunningServer {
        itself: itself.clone(),
        disk,
        start,
        current: Mutex::new(Arc::new(current)),
        location,
        resolver,
        crew: Mutex::new(crew),
        keeper: Mutex::new(None),
        scrape: Mutex::new(None),
        reread,
        reloading: Mutex::new(()),
        reload_wanted: AtomicBool::new(false),
        drain: Mutex::new(None),
        manager,
    });
    if let Some(source) = source {
        server.keep_users(source, users)?;
    }
    let scrape = server.scrape_at(conf.metrics.address)?;
    server.set_scrape(scrape);
    let control = Server::start(&conf.control.socket, server.clone(), Bounds::default())?;
    server.announce(conf);
    server.manager.ready("serving");

    let end = server.wait(&mut signals, files);
    server.manager.stopping("stopping", Duration::ZERO);
    drop(control);
    server.set_scrape(None);
    server.disk.settle();
    server.crew().stop();
    // The journal closes the database last: what stands beside it then goes into it.
    server.set_keeper(None);
    server.disk.close();
    match end {
        End::Drained => Ok(ExitCode::SUCCESS),
        End::Signal(signal) => {
            log::info!("stopped by signal {signal}");
            Ok(ExitCode::SUCCESS)
        }
        End::Broken => Err("a worker has ended; see the log".to_owned()),
    }
}

/// Why the server ends.
enum End {
    /// It was told to stop, and nothing waits for an answer any more, or no longer.
    Drained,
    /// Told to stop at once.
    Signal(i32),
    /// A worker has ended by itself.
    Broken,
}

/// Gives the conf as its file stands now; `None` where the server runs without a file. The errors are lines.
pub type Reread = Box<dyn Fn() -> Result<Option<Conf>, String> + Send + Sync>;

/// What the control socket asks is answered from here.
pub(crate) struct RunningServer {
    itself: Weak<RunningServer>,
    pub(crate) disk: Disk,
    pub(crate) start: Start,
    current: Mutex<Arc<Current>>,
    location: Arc<Location>,
    pub(crate) resolver: Resolver,
    crew: Mutex<Crew>,
    /// Where somebody is challenged.
    keeper: Mutex<Option<Arc<UserWatcher>>>,
    /// The metrics endpoint.
    scrape: Mutex<Option<PrometheusEndpoint>>,
    pub(crate) reread: Reread,
    /// Held by whoever reloads.
    pub(crate) reloading: Mutex<()>,
    /// A reload is to come that has not looked at anything yet.
    pub(crate) reload_wanted: AtomicBool,
    pub(crate) drain: Mutex<Option<Drain>>,
    pub(crate) manager: Manager,
}

/// What the server began with, for as long as it runs.
pub(crate) struct Start {
    pub(crate) secret: Key,
    /// How many files it may open.
    pub(crate) files: usize,
    /// What all workers count requests with.
    pub(crate) sources: Arc<Sources>,
    /// Connections of one core that there are places for.
    pub(crate) connections: usize,
    /// The same of transactions.
    pub(crate) transactions: usize,
    /// When that was.
    pub(crate) since_1970: Duration,
    /// The time since 1970 at time 0 of the rules, as the clock showed it then.
    pub(crate) wall_ms: u64,
}

/// What a reload replaces, all at once.
pub(crate) struct Current {
    pub(crate) conf: Conf,
    pub(crate) settings: Arc<Settings>,
    /// Certificates and keys in use.
    pub(crate) contexts: Option<Arc<Contexts>>,
}

/// A thread that panicked while it held one of these locks left what it guards whole: each change is one assignment.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RunningServer {
    pub(crate) fn crew(&self) -> MutexGuard<'_, Crew> {
        lock(&self.crew)
    }

    pub(crate) fn current(&self) -> Arc<Current> {
        lock(&self.current).clone()
    }

    pub(crate) fn set_current(&self, current: Current) {
        *lock(&self.current) = Arc::new(current);
    }

    /// The endpoint is dropped outside of the lock: it waits for its thread.
    pub(crate) fn set_scrape(&self, scrape: Option<PrometheusEndpoint>) {
        let before = std::mem::replace(&mut *lock(&self.scrape), scrape);
        drop(before);
    }

    /// A metrics endpoint that answers, where the conf wants one.
    pub(crate) fn scrape_at(
        self: &Arc<RunningServer>,
        address: Option<SocketAddr>,
    ) -> Result<Option<PrometheusEndpoint>, String> {
        let Some(address) = address else {
            return Ok(None);
        };
        let api: Arc<dyn ControlApi> = self.clone();
        let scrape = PrometheusEndpoint::start(address, api, prometheus::Bounds::default())?;
        log::info!("metrics at http://{}/metrics", scrape.address());
        Ok(Some(scrape))
    }

    pub(crate) fn keeper(&self) -> Option<Arc<UserWatcher>> {
        lock(&self.keeper).clone()
    }

    fn set_keeper(&self, keeper: Option<Arc<UserWatcher>>) {
        *lock(&self.keeper) = keeper;
    }

    /// Has the users looked after from now on. `users` are those that the workers began with.
    pub(crate) fn keep_users(
        self: &Arc<RunningServer>,
        source: Source,
        users: Arc<Users>,
    ) -> Result<(), String> {
        let server = Arc::downgrade(self);
        let publish = move |users: &Arc<Users>| {
            if let Some(server) = server.upgrade() {
                server.crew().users(users);
            }
        };
        let keeper = UserWatcher::start(source, users, Box::new(publish))
            .map_err(|error| format!("the store's thread: {error}"))?;
        self.set_keeper(Some(Arc::new(keeper)));
        Ok(())
    }

    /// One line for each listener on standard output, now that it serves. It serves as well if nobody reads them.
    fn announce(&self, conf: &Conf) {
        let mut lines = String::new();
        for (listen, address) in conf.listen.iter().zip(self.crew().addresses()) {
            lines += &format!("listening {} {address}\n", listen.transport.word());
        }
        let (done, outcome) = mpsc::channel();
        // A pipe that nobody reads may be full already: then this thread waits, and nobody else.
        let write = move || {
            let stdout = io::stdout().as_fd().try_clone_to_owned();
            let _ = done.send(stdout.and_then(|out| File::from(out).write_all(lines.as_bytes())));
        };
        let spawned = thread::Builder::new()
            .name("announce".to_owned())
            .spawn(write);
        let outcome = match spawned {
            Ok(_) => outcome.recv_timeout(ANNOUNCEMENT),
            Err(error) => Ok(Err(error)),
        };
        let failure = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "its reader takes nothing".to_owned(),
        };
        log::warn!(
            "standard output did not take the lines that name the listeners ({failure}); they serve all the same"
        );
    }

    /// Waits for a signal and for what follows from it, sweeps expired bindings meanwhile, and notices a worker that has ended.
    fn wait(self: &Arc<RunningServer>, signals: &mut Signals, mut files: Files) -> End {
        let clock = self.crew().clock();
        let mut told_to_stop = false;
        loop {
            for signal in signals.pending() {
                match signal {
                    SIGHUP => self.reload_soon(),
                    SIGTERM if !told_to_stop => {
                        told_to_stop = true;
                        self.drain_by_signal();
                    }
                    signal => return End::Signal(signal),
                }
            }
            if self.is_drained() {
                return End::Drained;
            }
            if !self.crew().is_whole() {
                return End::Broken;
            }
            self.manager.alive(|| self.crew().pulse());
            self.look_at_files(&mut files);
            self.location.sweep_some(clock.now());
            thread::sleep(PAUSE);
        }
    }

    /// When the server started, by the clock as it is now: it may have been set since.
    fn started(&self, clock: Clock) -> Duration {
        let (then_ms, now_ms) = (self.start.wall_ms, clock.wall_ms());
        let step = Duration::from_millis(now_ms.abs_diff(then_ms));
        let since_1970 = self.start.since_1970;
        match now_ms > then_ms {
            _ if step <= Duration::from_millis(STEP_MS) => since_1970,
            true => since_1970 + step,
            false => since_1970.saturating_sub(step),
        }
    }

    /// What an operator typed, as the canonical address that bindings stand under.
    fn address_of_record(&self, typed: &str) -> Result<Vec<u8>, Refusal> {
        let refused = |why: &str| Refusal::Refused(format!("{typed}: {why}"));
        if typed.chars().any(char::is_control) {
            return Err(refused("a name has no control characters"));
        }
        let mut text = typed.to_owned();
        if !text.contains('@') && !text.starts_with("sip:") && !text.starts_with("sips:") {
            let settings = self.current().settings.clone();
            let domain = match settings.domains.first() {
                Some(domain) => String::from_utf8_lossy(domain).into_owned(),
                None => match settings.listeners.first() {
                    Some(listener) => host_text(listener.address.ip()),
                    None => return Err(refused("no domain to complete it with")),
                },
            };
            text = format!("{text}@{domain}");
        }
        if !text.starts_with("sip:") && !text.starts_with("sips:") {
            text = format!("sip:{text}");
        }
        let mut text = text.into_bytes();
        if Uri::parse(&text).is_err() {
            text = with_user_escaped(text);
        }
        let uri = Uri::parse(&text).map_err(|fault| refused(fault.reason()))?;
        if uri.user.is_none_or(<[u8]>::is_empty) {
            return Err(refused("an address-of-record needs a user part"));
        }
        let mut aor = Vec::new();
        uri.write_address_of_record(&mut aor);
        Ok(aor)
    }
}

/// A URI whose user was typed as its name is, with characters that a URI does not take: `sip:john doe@example.com`.
fn with_user_escaped(uri: Vec<u8>) -> Vec<u8> {
    let scheme_end = memchr::memchr(b':', &uri).map_or(0, |colon| colon + 1);
    let Some(at) = memchr::memrchr(b'@', &uri) else {
        return uri;
    };
    let mut escaped = uri[..scheme_end].to_vec();
    let user = uri.get(scheme_end..at).unwrap_or_default();
    write_escaped(user.iter().copied(), &mut escaped);
    escaped.extend_from_slice(&uri[at..]);
    escaped
}

/// How often the signals are looked at and a part of the location table is swept.
const PAUSE: Duration = Duration::from_millis(50);

impl ControlApi for RunningServer {
    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    fn connections(&self) -> Vec<ConnectionEntry> {
        let (connections, addresses) = {
            let crew = self.crew();
            (crew.connections(), crew.addresses().to_vec())
        };
        let entry = |connection: Description| ConnectionEntry {
            transport: connection.transport.word().to_owned(),
            peer: connection.peer.to_string(),
            listener: addresses
                .get(usize::from(connection.listener))
                .map(ToString::to_string)
                .unwrap_or_default(),
            outgoing: connection.is_ours,
            state: connection.state.label().to_owned(),
            quiet_ms: connection.quiet_ms,
            waiting_bytes: connection.waiting,
        };
        connections.into_iter().map(entry).collect()
    }

    fn reload(&self) -> Result<(), Refusal> {
        match self.itself.upgrade() {
            Some(server) => server.reload_now().map_err(Refusal::Refused),
            None => Err(Refusal::Refused("the server is ending".to_owned())),
        }
    }

    fn drain(&self, deadline: Option<Duration>) -> Result<Draining, Refusal> {
        Ok(self.drain_by_command(deadline))
    }

    fn log(&self, level: Option<&str>) -> Result<String, Refusal> {
        if let Some(name) = level {
            let level = logger::level_named(name).map_err(Refusal::Refused)?;
            logger::set_level(level);
            log::info!("log level {name}, by command");
        }
        Ok(logger::level())
    }

    fn metrics(&self) -> Families {
        let (stats, clock) = {
            let crew = self.crew();
            (crew.stats(), crew.clock())
        };
        let now = clock.now();
        let keeper = self.keeper();
        let beside = ProcessStats {
            bindings: self.location.live_bindings(now),
            binding_bytes: self.location.bytes(),
            users: keeper.as_ref().map_or(0, |keeper| keeper.users()),
            users_unreadable: keeper.is_some_and(|keeper| keeper.is_unreadable()),
            started: self.started(clock),
            displaced_clients: strowger::control::guests::displaced(),
            is_draining: lock(&self.drain).is_some(),
            store: store(&self.disk),
            log_lines_lost: logger::lost(),
        };
        metrics::metrics(&stats, &beside)
    }

    fn ul_show(&self, aor: Option<&str>) -> Result<Vec<AorEntry>, Refusal> {
        let wanted = aor.map(|aor| self.address_of_record(aor)).transpose()?;
        let now = self.crew().clock().now();
        let mut entries: Vec<AorEntry> = Vec::new();
        self.location
            .show(now, wanted.as_deref(), &mut |aor, binding| {
                let aor = format!("sip:{}", String::from_utf8_lossy(aor));
                let contact = contact_entry(&binding, now.as_ms());
                match entries.last_mut().filter(|entry| entry.aor == aor) {
                    Some(entry) => entry.contacts.push(contact),
                    None => entries.push(AorEntry {
                        aor,
                        contacts: vec![contact],
                    }),
                }
            });
        entries.sort_by(|a, b| a.aor.cmp(&b.aor));
        match (aor, entries.is_empty()) {
            (Some(aor), true) => Err(Refusal::NotFound(format!("{aor}: no bindings"))),
            _ => Ok(entries),
        }
    }

    fn ul_add(&self, aor: &str, contact: &str, expires: Option<u32>) -> Result<(), Refusal> {
        let key = self.address_of_record(aor)?;
        let uri = Uri::parse(contact.as_bytes())
            .map_err(|fault| Refusal::Refused(format!("{contact}: {}", fault.reason())))?;
        if !matches!(uri.scheme, Scheme::Sip | Scheme::Sips) {
            return Err(Refusal::Refused(format!("{contact}: not a SIP URI")));
        }
        let settings = self.current().settings.clone();
        let refused = |why: &str| Err(Refusal::Refused(format!("{contact}: {why}")));
        if contact.len().max(key.len()) > settings.limits.contact_size {
            return refused("longer than [limits] contact_size");
        }
        if settings.leads_back(&uri, &key) {
            return refused("it names the address itself");
        }
        let now = self.crew().clock().now();
        let mut others = 0;
        self.location.show(now, Some(&key), &mut |_, binding| {
            others += usize::from(binding.uri != contact.as_bytes());
        });
        if others >= settings.registrar.max_contacts {
            return refused("[registrar] max_contacts is reached");
        }
        let expires_s = expires.unwrap_or(settings.registrar.default_expires);
        self.location
            .add(now, &key, contact.as_bytes(), expires_s)
            .map_err(|_| Refusal::Refused("[limits] bindings is reached".to_owned()))
    }

    fn ul_rm(&self, aor: &str, contact: Option<&str>) -> Result<usize, Refusal> {
        let key = self.address_of_record(aor)?;
        let now = self.crew().clock().now();
        match self.location.remove(now, &key, contact.map(str::as_bytes)) {
            0 => Err(Refusal::NotFound(match contact {
                Some(contact) => format!("{aor}: no contact {contact}"),
                None => format!("{aor}: no bindings"),
            })),
            gone => Ok(gone),
        }
    }
}

fn store(disk: &Disk) -> metrics::Store {
    let numbers = disk.numbers();
    metrics::Store {
        unstored: numbers.unstored,
        failures: numbers.failures,
        batches: numbers.batches,
        batch_seconds: numbers.batch_seconds,
        unusable: numbers.unusable,
    }
}

fn contact_entry(binding: &BindingView, now_ms: u64) -> ContactEntry {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ContactEntry {
        uri: text(&binding.uri),
        q: (binding.q < 1000).then(|| f32::from(binding.q) / 1000.0),
        expires_in_s: binding
            .expires
            .as_ms()
            .saturating_sub(now_ms)
            .div_ceil(1000),
        call_id: text(&binding.call_id),
        cseq: binding.cseq,
        path: match binding.path.is_empty() {
            true => Vec::new(),
            false => vec![text(&binding.path)],
        },
        received: binding.source.map(|flow| flow.peer.to_string()),
    }
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

/// `files`: how many the process may open.
fn options(
    conf: &Conf,
    files: usize,
    sources: Arc<Sources>,
    contexts: Option<Arc<Contexts>>,
) -> Options {
    Options {
        connections: conf.connection_limits(files),
        sources,
        tls: contexts,
        cores: conf.server.cores.clone(),
        udp: conf.udp.clone(),
        ..Options::default()
    }
}

/// What the conf says of sources, valid at once.
pub(crate) fn limit_sources(sources: &Sources, conf: &Conf) {
    let limits = &conf.limits;
    sources.set_trusted(limits.trusted_sources.clone());
    sources.set_ban_ms(limits.ban);
    sources.set_limit(limits.requests_per_source);
}

/// Who the server becomes once its keys are read. The error is one line.
pub fn identity(conf: &Conf) -> Result<Option<Identity>, String> {
    let Some(user) = &conf.server.user else {
        return Ok(None);
    };
    Identity::find(user, conf.server.group.as_deref())
        .map(Some)
        .map_err(|error| format!("[server] user: {error}"))
}

/// The users as they stand now, behind the journal's door, where the conf has anybody challenged. The error is one line.
pub fn users(
    conf: &Conf,
    secret: Key,
    door: Arc<SharedDatabaseFile>,
) -> Result<Option<(Source, Loaded)>, String> {
    if !conf.challenges() {
        return Ok(None);
    }
    let mut source = Source::new(&conf.auth.users, secret.derive("users")).beside(door);
    let loaded = source
        .read(&mut || true)
        .map_err(|trouble| format!("[auth] users: {}", trouble.message()))?;
    Ok(Some((source, loaded)))
}

fn host_text(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}
