//! SIGHUP and `strowger reload`: the conf and the files that it names are read again, and take effect completely or not at all.

use super::lock::lock;
use super::logger;
use super::running::{Current, RunningServer, limit_sources};
use super::secure;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use strowger::base::Key;
use strowger::config::{Conf, Machine, Plan, key};
use strowger::net::interfaces;
use strowger::stack::auth::users::Users;
use strowger::store::users::Loaded;
use strowger::store::{Source, user_watcher};
use strowger::worker::Change;

/// How long an operator waits for the users to be read: less than the control socket's client waits.
const PATIENCE: Duration = Duration::from_secs(50);

/// How the users change.
enum UserChange {
    /// Requests are not challenged, before or after.
    None,
    /// The same file or database; its new content is in force already.
    Same,
    /// Another file or database, or the first.
    New(Box<(Source, Loaded)>),
    /// Requests are no longer challenged.
    Gone,
}

impl RunningServer {
    /// Reloads on a separate thread, so that signals are still handled; the result is logged. If a requested reload has not begun
    /// yet, it serves this request too.
    pub(crate) fn reload_soon(self: &Arc<RunningServer>) {
        if self.reload_wanted.swap(true, Ordering::AcqRel) {
            return;
        }
        let server = self.clone();
        let spawned = thread::Builder::new().name("reload".to_owned()).spawn(move || server.reload_now());
        if let Err(error) = spawned {
            self.reload_wanted.store(false, Ordering::Release);
            log::error!("reload refused, everything stays as it was: {error}");
        }
    }

    /// Reloads, waits for the result, and returns what has changed. The error has a line for each fault; it is logged too.
    pub(crate) fn reload_now(self: &Arc<RunningServer>) -> Result<String, String> {
        let _turn = lock(&self.reloading);
        self.reload_wanted.store(false, Ordering::Release);
        // Whatever is wrong with the conf: the records file may have been moved away.
        if let Some(recorder) = &self.recorder {
            recorder.reopen();
        }
        // A draining server has told the manager that it stops: it will not be ready again.
        let is_draining = self.drain.is_draining();
        if !is_draining {
            self.manager.reloading();
        }
        let outcome = self.reload();
        if !is_draining {
            self.manager.ready("serving");
        }
        if let Err(faults) = &outcome {
            for fault in faults.lines() {
                log::error!("reload refused, everything stays as it was: {fault}");
            }
        }
        outcome
    }

    fn reload(self: &Arc<RunningServer>) -> Result<String, String> {
        let current = self.current();
        let conf = (self.reread)()?.unwrap_or_else(|| current.conf.clone());
        let plan = Plan::new(&current.conf, &conf);
        self.refuse_fixed(&plan, &conf)?;

        // Everything from here to the users can fail, and nothing has changed yet.
        let contexts = conf.contexts(current.contexts.as_deref(), &self.start.tickets)?;
        let settings = Arc::new(self.settings_of(&conf)?);
        let new_scrape = match plan.changes("[metrics] address") {
            true => Some(self.scrape_at(conf.metrics.address)?),
            false => None,
        };
        // Users must be known before they are asked for a password.
        let people = self.read_people(&current.conf, &conf)?;
        self.switch_people(people)?;

        // From here on nothing can fail.
        let change =
            Change { settings: settings.clone(), connections: conf.connection_limits(self.start.files), tls: contexts.clone() };
        self.crew().reload(&change);
        limit_sources(&self.start.sources, &conf);
        // The DNS servers may differ even if the conf is the same: /etc/resolv.conf is read again.
        if !self.resolver.configure(conf.dns.clone()) {
            log::warn!("dns: too busy to take other servers: reload again");
        }
        if let Some(scrape) = new_scrape {
            self.set_scrape(scrape);
        }
        let changes_trace = ["hep", "hep_id", "share"].iter().any(|key| plan.changes(&format!("[trace] {key}")));
        if changes_trace && let Err(error) = self.taps.configure(&conf.trace) {
            log::error!("[trace]: {error}: copies go where they went: reload again");
        }
        if plan.changes("[log] level") {
            logger::set_level_by_conf(conf.log.level);
        }
        logger::set_format(conf.log.format);
        let certificates = match contexts {
            Some(_) => "; certificates and keys read again",
            None => "",
        };
        let changed = match plan.live.is_empty() {
            true => "the conf says what it said before".to_owned(),
            false => format!("changed: {}", plan.live.join(", ")),
        };
        let is_target = |uri: &[u8]| settings.routes.hops().any(|hop| hop.uri.text() == uri);
        self.start.health.name_servers.keep(is_target);
        self.set_current(Current { conf, settings, contexts });
        let changed = format!("reloaded, {changed}{certificates}");
        log::info!("{changed}");
        let current = self.current();
        secure::warn_of_files(&current.conf, current.contexts.as_deref());
        self.warn_of_new_secrets();
        Ok(changed)
    }

    /// Keys are derived from the secrets everywhere, once: only a start reads them.
    fn warn_of_new_secrets(&self) {
        let current = self.current();
        let path = &current.conf.server.key_file;
        if key::look(path).is_some_and(|secrets| secrets != self.start.secrets) {
            log::warn!("key file {}: it has changed, and what it held at the start stays in use: restart", path.display());
        }
    }

    /// Refuses a conf that changes what only a restart can change, together with all its other changes.
    fn refuse_fixed(&self, plan: &Plan, conf: &Conf) -> Result<(), String> {
        let mut fixed = plan.fixed.clone();
        // These tables keep their initial size.
        let connections = conf.connection_limits(self.start.files).connections;
        if plan.changes("[connections] max") && connections > self.start.connections {
            fixed.push("[connections] max (above that of the start)");
        }
        let transactions = conf.per_core(Machine::this().memory).transactions;
        if plan.changes("[limits] transactions") && transactions > self.start.transactions {
            fixed.push("[limits] transactions (above that of the start)");
        }
        match fixed.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "{} cannot change while the server runs: restart it, or change back what the conf says there",
                fixed.join(", ")
            )),
        }
    }

    fn settings_of(&self, conf: &Conf) -> Result<strowger::stack::Settings, String> {
        let local =
            interfaces::local_addresses().map_err(|error| format!("the addresses of this machine's interfaces: {error}"))?;
        let addresses = self.crew().addresses().to_vec();
        let memory = Machine::this().memory;
        Ok(conf.rules(&addresses, local, memory))
    }

    /// Reads the users, if requests are challenged.
    fn read_people(&self, old: &Conf, new: &Conf) -> Result<UserChange, String> {
        let file = new.users_file();
        match (new.challenges(), self.user_watcher()) {
            (true, Some(watcher)) if old.challenges() && watcher.watches(&file) => {
                watcher.read_now(PATIENCE)?;
                Ok(UserChange::Same)
            }
            (true, _) => {
                let secret: Key = self.start.secret;
                let both = new.read_users(secret, self.disk.shared_file())?;
                Ok(both.map_or(UserChange::None, |both| UserChange::New(Box::new(both))))
            }
            (false, Some(_)) if old.challenges() => Ok(UserChange::Gone),
            (false, _) => Ok(UserChange::None),
        }
    }

    fn switch_people(self: &Arc<RunningServer>, people: UserChange) -> Result<(), String> {
        match (people, self.user_watcher()) {
            (UserChange::None | UserChange::Same, _) | (UserChange::Gone, None) => {}
            (UserChange::Gone, Some(watcher)) => watcher.switch(None, PATIENCE),
            (UserChange::New(both), Some(watcher)) => watcher.switch(Some(*both), PATIENCE),
            (UserChange::New(both), None) => {
                let (source, loaded) = *both;
                log::info!("{}", user_watcher::summary(&source, &loaded));
                let users: Arc<Users> = Arc::new(loaded.users);
                self.watch_users(source, users.clone())?;
                self.crew().users(&users);
            }
        }
        Ok(())
    }
}
