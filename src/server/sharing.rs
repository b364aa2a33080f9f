//! The location table that several servers share, as configured: between the location service, the workers and Redis.

use super::lock::lock;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use strowger::base::{Key, Transport};
use strowger::config::Conf;
use strowger::net::{interfaces, sys};
use strowger::settings::Durability;
use strowger::share::{Access, Bell, Clocks, Credentials, Hooks, Numbers, Settings, Share, UnstartedShare};
use strowger::stack;
use strowger::stack::location::{Location, RowRules, SharingTerms};
use strowger::stack::relay::RelayTokens;
use strowger::worker::Clock;
use strowger::worker::mailbox::PostOffice;

/// How long shutdown waits until Redis has been told everything.
const LAST_ROUND: Duration = Duration::from_secs(2);

/// Lets others have a part in the table, if the conf says so.
pub fn with_sharing(location: Location, conf: &Conf, local: &[IpAddr], clock: Clock) -> Location {
    if conf.location.shared.is_none() {
        return location;
    }
    location.with_sharing(SharingTerms {
        node: node_of(conf, local).into_bytes(),
        wall_ms: clock.wall_ms(),
        run: clock.wall_ms() + clock.now().as_ms(),
        is_acknowledged: conf.registrar.durability == Durability::Acknowledged,
    })
}

/// Returns the name of this server among the nodes: the one given, or what the first listener advertises.
fn node_of(conf: &Conf, local: &[IpAddr]) -> String {
    let first = || {
        let listen = conf.listen.first()?;
        let advertised = || interfaces::advertised(listen.address, local).to_string();
        Some(listen.advertise.clone().unwrap_or_else(advertised))
    };
    conf.location.node.clone().or_else(first).unwrap_or_default()
}

/// What is so if [`relay_address`] finds none.
pub const NO_RELAY: &str = "no UDP [[listen]] advertises an address, but names only: the other servers cannot call phones that only this one \
    reaches, by their connection or through their NAT; add a [[listen]] of its own address";

/// Returns where the other servers send requests for such phones: the first UDP listener that advertises an address.
pub fn relay_address(conf: &Conf, local: &[IpAddr]) -> Option<SocketAddr> {
    let own = conf.listen.iter().filter(|listen| listen.transport == Transport::Udp);
    own.filter_map(|listen| match &listen.advertise {
        Some(name) => name.parse().ok(),
        None => Some(interfaces::advertised(listen.address, local)),
    })
    .next()
}

/// What is shared and how, and by which clocks.
pub type Terms = (Settings, Clocks);

/// Joins the others, or does so once its threads run, if another process of this server has yet to leave.
pub fn join(location: &Arc<Location>, terms: Terms, joins_later: bool) -> Result<UnstartedShare, String> {
    let (settings, clocks) = terms;
    match joins_later {
        true => Ok(UnstartedShare::follow(location.clone(), settings, clocks)),
        false => UnstartedShare::open(location.clone(), settings, clocks),
    }
}

/// Returns what the conf says of a shared table; `None` if it is not shared.
pub fn terms(
    conf: &Conf,
    listeners: Vec<(Transport, SocketAddr)>,
    rules: Arc<stack::Settings>,
    local: &[IpAddr],
    clock: Clock,
    secret: Key,
) -> Result<Option<Terms>, String> {
    let Some(store) = &conf.location.shared else {
        return Ok(None);
    };
    let relay = relay_address(conf, local);
    if relay.is_none() {
        log::warn!("{NO_RELAY}");
    }
    let credentials = Credentials {
        user: conf.location.user.clone().unwrap_or_default(),
        password: conf.location_password.as_ref().map(|password| password.reveal().to_vec()),
    };
    let settings = Settings {
        access: Access::new(store.clone(), credentials, conf.tls.trusted_ca.as_deref())?,
        node: node_of(conf, local),
        relay,
        replicas: conf.location.replicas,
        stream: conf.location.stream,
        tokens: RelayTokens::new(secret),
        listeners,
        rules: RowRules::new(rules),
    };
    let clocks = Clocks { now: Box::new(move || clock.now()), wall_ms: Box::new(move || clock.wall_ms()) };
    Ok(Some((settings, clocks)))
}

/// Returns what wakes the thread that an answer waits for, if the table is shared.
pub fn ring(share: Option<&UnstartedShare>) -> Option<Bell> {
    share.map(UnstartedShare::bell)
}

/// The shared table, as the rest of the running server sees it. Empty if it is not shared.
#[derive(Default)]
pub struct Sharing(Mutex<Option<Share>>);

impl Sharing {
    /// Starts telling and following; wakes the workers when Redis has been told something.
    pub fn start(&self, share: Option<UnstartedShare>, server: Arc<PostOffice>) -> Result<(), String> {
        let Some(share) = share else {
            return Ok(());
        };
        let prepare = || {
            // A worker on the same core takes precedence.
            if let Err(error) = sys::lower_priority() {
                log::warn!("a thread of the shared location table keeps its priority: {error}");
            }
        };
        let hooks = Hooks { prepare: Box::new(prepare), progress: Box::new(move || server.wake_all()) };
        let share = share.start(hooks).map_err(|error| format!("the threads of the shared location table: {error}"))?;
        *lock(&self.0) = Some(share);
        Ok(())
    }

    /// Has what waits told soon, but does not wait longer than this.
    pub fn settle_within(&self, patience: Duration) -> bool {
        lock(&self.0).as_ref().is_none_or(|share| share.flush(patience))
    }

    /// Tells what waits, so that its answers are sent while the workers still run.
    pub fn settle(&self) {
        if let Some(share) = &*lock(&self.0) {
            share.flush(LAST_ROUND);
        }
    }

    /// Tells what is left, and ends.
    pub fn close(&self) {
        let share = lock(&self.0).take();
        drop(share);
    }

    pub fn numbers(&self) -> Option<Numbers> {
        lock(&self.0).as_ref().map(Share::numbers)
    }
}
