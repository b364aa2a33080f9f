//! The running server: what it began with, what a reload replaces, and the threads and sockets it has. What it does stands in the files beside.

use super::bindings::Disk;
use super::drain::Drain;
use super::lock::lock;
use super::notify::Manager;
use super::records::Recorder;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;
use strowger::base::{Key, Sources};
use strowger::config::Conf;
use strowger::control::{ControlApi, PrometheusEndpoint, prometheus};
use strowger::net::tls::Contexts;
use strowger::resolver::Resolver;
use strowger::stack::Settings;
use strowger::stack::auth::users::Users;
use strowger::stack::health::Health;
use strowger::stack::location::Location;
use strowger::stack::trunk_table::TrunkTable;
use strowger::store::{Source, UserWatcher};
use strowger::trace::Taps;
use strowger::worker::Crew;

/// Gives the conf as its file stands now; `None` where the server runs without a file. The errors are lines.
pub type Reread = Box<dyn Fn() -> Result<Option<Conf>, String> + Send + Sync>;

/// All that runs, once for each process. The files beside say what it does.
pub struct RunningServer {
    pub itself: Weak<RunningServer>,
    pub disk: Disk,
    pub start: Start,
    pub current: Mutex<Arc<Current>>,
    pub location: Arc<Location>,
    pub taps: Arc<Taps>,
    /// If calls are to leave records.
    pub recorder: Option<Recorder>,
    pub trunks: Arc<TrunkTable>,
    pub resolver: Resolver,
    pub crew: Mutex<Crew>,
    /// If anybody is challenged.
    pub user_watcher: Mutex<Option<Arc<UserWatcher>>>,
    /// The metrics endpoint.
    pub scrape: Mutex<Option<PrometheusEndpoint>>,
    pub reread: Reread,
    /// Held by whoever reloads.
    pub reloading: Mutex<()>,
    /// A reload is to come that has not looked at anything yet.
    pub reload_wanted: AtomicBool,
    pub drain: Drain,
    pub manager: Manager,
}

/// What the server began with, for as long as it runs.
pub struct Start {
    pub secret: Key,
    /// How many files it may open.
    pub files: usize,
    /// What all workers count requests with.
    pub sources: Arc<Sources>,
    /// What they know of next hops that have failed.
    pub health: Arc<Health>,
    /// Connections of one core that there are places for.
    pub connections: usize,
    /// The same of transactions.
    pub transactions: usize,
    /// When that was.
    pub since_1970: Duration,
    /// The time since 1970 at time 0 of the rules, as the clock showed it then.
    pub wall_ms: u64,
}

/// What a reload replaces, all at once.
pub struct Current {
    pub conf: Conf,
    pub settings: Arc<Settings>,
    /// Certificates and keys in use.
    pub contexts: Option<Arc<Contexts>>,
}

impl RunningServer {
    pub fn crew(&self) -> MutexGuard<'_, Crew> {
        lock(&self.crew)
    }

    pub fn current(&self) -> Arc<Current> {
        lock(&self.current).clone()
    }

    pub fn set_current(&self, current: Current) {
        *lock(&self.current) = Arc::new(current);
    }

    /// The endpoint is dropped outside of the lock: it waits for its thread.
    pub fn set_scrape(&self, scrape: Option<PrometheusEndpoint>) {
        let before = std::mem::replace(&mut *lock(&self.scrape), scrape);
        drop(before);
    }

    /// A metrics endpoint that answers, where the conf wants one.
    pub fn scrape_at(self: &Arc<RunningServer>, address: Option<SocketAddr>) -> Result<Option<PrometheusEndpoint>, String> {
        let Some(address) = address else {
            return Ok(None);
        };
        let api: Arc<dyn ControlApi> = self.clone();
        let scrape = PrometheusEndpoint::start(address, api, prometheus::Bounds::default())?;
        log::info!("metrics at http://{}/metrics", scrape.address());
        Ok(Some(scrape))
    }

    pub fn user_watcher(&self) -> Option<Arc<UserWatcher>> {
        lock(&self.user_watcher).clone()
    }

    pub fn set_user_watcher(&self, watcher: Option<Arc<UserWatcher>>) {
        *lock(&self.user_watcher) = watcher;
    }

    /// Has the users watched from now on. `users` are those that the workers began with.
    pub fn watch_users(self: &Arc<RunningServer>, source: Source, users: Arc<Users>) -> Result<(), String> {
        let server = Arc::downgrade(self);
        let publish = move |users: &Arc<Users>| {
            if let Some(server) = server.upgrade() {
                server.crew().users(users);
            }
        };
        let watcher =
            UserWatcher::start(source, users, Box::new(publish)).map_err(|error| format!("the store's thread: {error}"))?;
        self.set_user_watcher(Some(Arc::new(watcher)));
        Ok(())
    }
}

/// What the conf says of sources, valid at once.
pub fn limit_sources(sources: &Sources, conf: &Conf) {
    let limits = &conf.limits;
    sources.set_trusted(limits.trusted_sources.clone());
    sources.set_ban_ms(limits.ban);
    sources.set_limit(limits.requests_per_source);
}
