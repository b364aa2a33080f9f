//! The control API: answers the requests of the control socket and the metrics endpoint.

use super::bindings::Disk;
use super::logger;
use super::records::Recorder;
use super::running::RunningServer;
use super::{targets, typed};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use strowger::base::Instant;
use strowger::base::metric::Families;
use strowger::config::Conf;
use strowger::control::{
    AorEntry, ConnectionEntry, ContactEntry, ControlApi, Draining, HealthReport, NewBinding, Refusal, Restarted, Targets,
    TrunkEntry, guests,
};
use strowger::net::streams::Description;
use strowger::settings::{Mode, Words, level_named};
use strowger::share::Numbers;
use strowger::sip::{Scheme, Uri};
use strowger::stack::location::BindingView;
use strowger::stack::registrar::sound;
use strowger::stack::trunk_table::{Standing, State};
use strowger::store::clock::STEP_MS;
use strowger::trace::Taps;
use strowger::worker::Clock;
use strowger::worker::metrics::{self, ProcessStats};

impl ControlApi for RunningServer {
    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    fn health(&self) -> HealthReport {
        self.health_report()
    }

    fn connections(&self) -> Vec<ConnectionEntry> {
        let (connections, addresses) = {
            let crew = self.crew();
            (crew.connections(), crew.addresses().to_vec())
        };
        let entry = |connection: Description| ConnectionEntry {
            transport: connection.transport.word().to_owned(),
            peer: connection.peer.to_string(),
            listener: addresses.get(usize::from(connection.listener)).map(ToString::to_string).unwrap_or_default(),
            outgoing: connection.is_ours,
            state: connection.state.label().to_owned(),
            quiet_ms: connection.quiet_ms,
            waiting_bytes: connection.waiting,
            process: std::process::id(),
        };
        let own = connections.into_iter().map(entry);
        let before = self.succession.predecessor().map(|predecessor| predecessor.connections());
        own.chain(before.into_iter().flatten()).collect()
    }

    fn targets(&self) -> Targets {
        let now = self.crew().clock().now();
        targets::targets(&self.current().settings, &self.start.health, now)
    }

    fn reload(&self) -> Result<String, Refusal> {
        self.refuse_as_predecessor().map_err(Refusal::Refused)?;
        match self.itself.upgrade() {
            Some(server) => server.reload_now().map_err(Refusal::Refused),
            None => Err(Refusal::Refused("the server is ending".to_owned())),
        }
    }

    fn restart(&self, deadline: Option<Duration>) -> Result<Restarted, Refusal> {
        match self.itself.upgrade() {
            Some(server) => server.restart_now(deadline),
            None => Err(Refusal::Refused("the server is ending".to_owned())),
        }
    }

    fn drain(&self, deadline: Option<Duration>, calls: bool) -> Result<Draining, Refusal> {
        let current = self.current();
        if calls {
            self.knows_calls(&current.conf).map_err(|why| Refusal::Refused(format!("no drain: {why}")))?;
        }
        let patience = deadline.unwrap_or_else(|| match calls {
            // One that is silent for longer counts as over.
            true => Duration::from_millis(current.conf.records.lost_after),
            false => current.conf.server.drain_deadline,
        });
        self.drain_predecessor(patience);
        Ok(self.drain.by_command(patience, calls, &self.drained()))
    }

    fn log(&self, level: Option<&str>) -> Result<String, Refusal> {
        if let Some(name) = level {
            let level = level_named(name).map_err(Refusal::Refused)?;
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
        let watcher = self.user_watcher();
        let beside = ProcessStats {
            bindings: self.location.live_bindings(now),
            binding_bytes: self.location.bytes(),
            users: watcher.as_ref().map_or(0, |watcher| watcher.users()),
            users_unreadable: watcher.is_some_and(|watcher| watcher.is_unreadable()),
            started: self.started(clock),
            displaced_clients: guests::displaced(),
            is_draining: self.drain.is_draining(),
            store: store(&self.disk),
            // After a restart it is joined a moment later.
            sharing: self.location.shared().map(|_| shared(self.sharing.numbers().unwrap_or_default())),
            log_lines_lost: logger::lost(),
            trace: self.taps.counters(),
            records: self.recorder.as_ref().map(Recorder::numbers),
            certificates: self.current().contexts.as_ref().map_or_else(Vec::new, |contexts| contexts.certificates().to_vec()),
            trunks: self.trunks.registered(now),
            restarts: self.restarts(),
        };
        let mut families = metrics::metrics(&stats, &beside);
        targets::count(&mut families, &self.current().settings, &self.start.health);
        families
    }

    fn trunks(&self) -> Vec<TrunkEntry> {
        let now = self.crew().clock().now();
        let all = self.trunks.all();
        all.into_iter().map(|(name, standing)| trunk_entry(name, standing, now)).collect()
    }

    fn taps(&self) -> Option<Arc<Taps>> {
        Some(self.taps.clone())
    }

    fn ul_show(&self, aor: Option<&str>) -> Result<Vec<AorEntry>, Refusal> {
        let wanted = aor.map(|aor| self.address_of_record(aor)).transpose()?;
        let now = self.crew().clock().now();
        let mut entries: Vec<AorEntry> = Vec::new();
        self.location.show(now, wanted.as_deref(), &mut |aor, binding| {
            let aor = format!("sip:{}", String::from_utf8_lossy(aor));
            let contact = contact_entry(&binding, now.as_ms());
            match entries.last_mut().filter(|entry| entry.aor == aor) {
                Some(entry) => entry.contacts.push(contact),
                None => entries.push(AorEntry { aor, contacts: vec![contact] }),
            }
        });
        entries.sort_by(|a, b| a.aor.cmp(&b.aor));
        match (aor, entries.is_empty()) {
            (Some(aor), true) => Err(Refusal::NotFound(format!("{aor}: no bindings"))),
            _ => Ok(entries),
        }
    }

    fn ul_add(&self, binding: &NewBinding) -> Result<u32, Refusal> {
        let NewBinding { aor, contact, expires, .. } = binding;
        self.refuse_as_predecessor().map_err(Refusal::Refused)?;
        let key = self.address_of_record(aor)?;
        let uri = Uri::parse(contact.as_bytes()).map_err(|fault| Refusal::Refused(format!("{contact}: {}", fault.reason())))?;
        if !matches!(uri.scheme, Scheme::Sip | Scheme::Sips) {
            return Err(Refusal::Refused(format!("{contact}: not a SIP URI")));
        }
        let settings = self.current().settings.clone();
        let refused = |why: &str| Err(Refusal::Refused(format!("{contact}: {why}")));
        if contact.len().max(key.len()) > settings.limits.contact_size {
            return refused("longer than [limits] contact_size");
        }
        let path = binding.path.as_deref().unwrap_or_default();
        if path.len() > settings.limits.contact_size || !sound::is_sound_path(path.as_bytes()) {
            let why =
                "not a list of addresses in angle brackets such as \"<sip:192.0.2.1;lr>\", or longer than [limits] contact_size";
            return Err(Refusal::Refused(format!("path {path}: {why}")));
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
        let q = binding.q.map_or(1000, |q| (q * 1000.0).round() as u16);
        let added = self.location.add_as(now, &key, (contact.as_bytes(), path.as_bytes()), q, expires_s);
        added.map_err(|_| Refusal::Refused("[limits] bindings is reached".to_owned()))?;
        Ok(expires_s)
    }

    fn ul_rm(&self, aor: &str, contact: Option<&str>) -> Result<usize, Refusal> {
        self.refuse_as_predecessor().map_err(Refusal::Refused)?;
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

fn shared(numbers: Numbers) -> metrics::Shared {
    metrics::Shared {
        is_up: numbers.is_up,
        untold: numbers.untold,
        lag_seconds: numbers.lag_seconds,
        told: numbers.told,
        rejected: numbers.rejected,
        taken_in: numbers.taken_in,
        unusable: numbers.unusable,
        no_room: numbers.no_room,
        failures: numbers.failures,
        readings: numbers.readings,
    }
}

impl RunningServer {
    /// Returns why it cannot be told when calls have ended, if it cannot.
    fn knows_calls(&self, conf: &Conf) -> Result<(), &'static str> {
        if self.recorder.is_none() {
            return Err(
                "only a server that writes records of calls knows when they have ended: set [records] file, or leave out --calls",
            );
        }
        if conf.proxy.mode == Mode::Stateless {
            return Err("[proxy] mode = \"stateless\" knows of no calls: leave out --calls");
        }
        if !conf.proxy.record_route {
            return Err("the ends of calls do not pass here while [proxy] record_route is false: leave out --calls");
        }
        Ok(())
    }

    /// Returns when the server started, by the current system clock: it may have been set since.
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

    fn restarts(&self) -> metrics::Restarts {
        let succession = &self.succession;
        metrics::Restarts {
            restarts: succession.restarts.load(Ordering::Relaxed),
            failures: succession.failures.load(Ordering::Relaxed),
            predecessor: succession.predecessor().map(|predecessor| {
                let numbers = predecessor.numbers();
                (numbers.transactions, numbers.connections, numbers.ends_in_ms as f64 / 1000.0)
            }),
        }
    }

    /// Converts what an operator typed to the canonical address that bindings are stored under.
    fn address_of_record(&self, typed: &str) -> Result<Vec<u8>, Refusal> {
        typed::address_of_record(typed, &self.current().settings)
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

fn trunk_entry(trunk: String, standing: Standing, now: Instant) -> TrunkEntry {
    let seconds = |until: Instant| until.ms_since(now).div_ceil(1000);
    let is_never = standing.next == Instant::NEVER || standing.state == State::Unused;
    let (state, why) = match standing.state {
        State::Unused => ("unused", None),
        State::Trying => ("trying", None),
        State::Registered => ("registered", None),
        State::Failed(why) => ("failed", Some(why)),
    };
    TrunkEntry {
        trunk,
        registrar: standing.registrar,
        user: standing.user,
        state: state.to_owned(),
        why,
        granted_for_s: seconds(standing.until),
        next_in_s: (!is_never).then_some(seconds(standing.next)),
    }
}

fn contact_entry(binding: &BindingView, now_ms: u64) -> ContactEntry {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ContactEntry {
        uri: text(&binding.uri),
        q: (binding.q < 1000).then(|| f32::from(binding.q) / 1000.0),
        expires_in_s: binding.expires.as_ms().saturating_sub(now_ms).div_ceil(1000),
        call_id: text(&binding.call_id),
        cseq: binding.cseq,
        path: match binding.path.is_empty() {
            true => Vec::new(),
            false => vec![text(&binding.path)],
        },
        received: binding.source.map(|flow| flow.peer.to_string()),
    }
}
