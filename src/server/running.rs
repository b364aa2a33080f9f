//! The running server: its initial values, what a reload replaces, and its threads and sockets. Its behaviour is in the
//! neighbouring files.

use super::bindings::Disk;
use super::drain::{Drain, Drained};
use super::handover::succession::Succession;
use super::lock::lock;
use super::notify::Manager;
use super::records::Recorder;
use super::sharing::Sharing;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;
use strowger::base::{Key, Sources};
use strowger::config::Conf;
use strowger::config::key::Secret;
use strowger::control::{ControlApi, PrometheusEndpoint, prometheus};
use strowger::net::tls::{Contexts, TicketSecrets};
use strowger::resolver::Resolver;
use strowger::stack::Settings;
use strowger::stack::auth::users::Users;
use strowger::stack::health::Health;
use strowger::stack::location::Location;
use strowger::stack::trunk_table::TrunkTable;
use strowger::store::{Source, UserWatcher};
use strowger::trace::Taps;
use strowger::worker::Crew;

/// Returns the conf as its file is now; `None` if the server runs without a file. The errors are lines.
pub type Reread = Box<dyn Fn() -> Result<Option<Conf>, String> + Send + Sync>;

/// Everything that runs, once per process. The neighbouring files implement its behaviour.
pub struct RunningServer {
    pub itself: Weak<RunningServer>,
    pub disk: Disk,
    pub sharing: Sharing,
    pub start: Start,
    pub current: Mutex<Arc<Current>>,
    pub location: Arc<Location>,
    pub taps: Arc<Taps>,
    /// Present if calls leave records.
    pub recorder: Option<Recorder>,
    pub trunks: Arc<TrunkTable>,
    pub resolver: Resolver,
    pub crew: Mutex<Crew>,
    /// Present if requests are challenged.
    pub user_watcher: Mutex<Option<Arc<UserWatcher>>>,
    /// The metrics endpoint.
    pub scrape: Mutex<Option<PrometheusEndpoint>>,
    pub reread: Reread,
    /// Held during a reload.
    pub reloading: Mutex<()>,
    /// A reload has been requested that has not read anything yet.
    pub reload_wanted: AtomicBool,
    pub drain: Drain,
    pub succession: Succession,
    pub manager: Manager,
}

/// What the server started with, unchanged for as long as it runs.
pub struct Start {
    pub secret: Key,
    /// What the key file held, where `secret` is made from.
    pub secrets: Vec<Secret>,
    /// What the keys of session tickets are derived from.
    pub tickets: TicketSecrets,
    /// How many files it may open.
    pub files: usize,
    /// Counts requests for all workers.
    pub sources: Arc<Sources>,
    /// What the workers know of next hops that have failed.
    pub health: Arc<Health>,
    /// Connection slots of one core.
    pub connections: usize,
    /// Transaction slots of one core.
    pub transactions: usize,
    /// The start time.
    pub since_1970: Duration,
    /// The time since 1970 at time 0 of the rules, by the system clock at that moment.
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
    /// What a drain is about.
    pub(crate) fn drained(&self) -> Drained<'_> {
        Drained { crew: &self.crew, recorder: self.recorder.as_ref(), manager: &self.manager }
    }

    pub fn crew(&self) -> MutexGuard<'_, Crew> {
        lock(&self.crew)
    }

    pub fn current(&self) -> Arc<Current> {
        lock(&self.current).clone()
    }

    pub fn set_current(&self, current: Current) {
        *lock(&self.current) = Arc::new(current);
    }

    /// The old endpoint is dropped outside the lock: dropping waits for its thread.
    pub fn set_scrape(&self, scrape: Option<PrometheusEndpoint>) {
        let before = std::mem::replace(&mut *lock(&self.scrape), scrape);
        drop(before);
    }

    /// Returns a metrics endpoint that answers, if the conf wants one.
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

/// Applies the conf's settings for sources at once.
pub fn limit_sources(sources: &Sources, conf: &Conf) {
    let limits = &conf.limits;
    sources.set_trusted(limits.trusted_sources.clone());
    sources.set_ban_ms(limits.ban);
    sources.set_limit(limits.requests_per_source);
}
