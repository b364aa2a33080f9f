//! What the conf refers to outside itself, looked up and read: the user that the server becomes, certificates and keys, the users
//! who may call. `strowger check` reads all of it and throws it away; the server uses it.

use super::model::Conf;
use crate::base::{Key, Transport};
use crate::net::sys::identity::{Identity, group_number};
use crate::net::tls::{self, Contexts, TicketLegacy, TicketSecrets};
use crate::settings;
use crate::store::users::Loaded;
use crate::store::{SharedDatabaseFile, Source, subscriber};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

/// Where the users were by default when they had one database with the bindings.
const FORMER_USERS: &str = "strowger.db";

impl Conf {
    /// Looks up the user that the server becomes after it has read its keys. The error is one line.
    pub fn identity(&self) -> Result<Option<Identity>, String> {
        let Some(user) = &self.server.user else {
            return Ok(None);
        };
        Identity::find(user, self.server.group.as_deref()).map(Some).map_err(|error| format!("[server] user: {error}"))
    }

    /// Looks up the group of the control socket. The error is one line.
    pub fn control_group(&self) -> Result<Option<u32>, String> {
        let group = self.control.group.as_deref().map(group_number);
        group.transpose().map_err(|error| format!("[control] group: {error}"))
    }

    /// Reads what handshakes need: certificates, keys, sessions. `None` if nothing in the conf needs TLS.
    pub fn contexts(&self, previous: Option<&Contexts>, tickets: &TicketSecrets) -> Result<Option<Arc<Contexts>>, String> {
        if !self.listens_by(Transport::Tls) {
            return Ok(None);
        }
        let contexts = Contexts::load(&self.tls_settings(tickets), previous);
        contexts.map(|contexts| Some(Arc::new(contexts))).map_err(|error| error.to_string())
    }

    /// Makes them as the first ones of a process that takes over from another, with the keys of whose tickets they go on.
    pub fn contexts_after(&self, legacy: TicketLegacy, tickets: &TicketSecrets) -> Result<Option<Arc<Contexts>>, String> {
        if !self.listens_by(Transport::Tls) {
            return Ok(None);
        }
        let settings = tls::Settings { ticket_legacy: legacy, ..self.tls_settings(tickets) };
        Contexts::load(&settings, None).map(|contexts| Some(Arc::new(contexts))).map_err(|error| error.to_string())
    }

    /// Checks whether everything that handshakes need can be read and fits. Returns a line for each certificate that is not valid, or
    /// soon will not be.
    pub fn check_certificates(&self, now: SystemTime) -> Result<Vec<String>, String> {
        let contexts = self.contexts(None, &TicketSecrets::default())?;
        let certificates = contexts.as_ref().map_or(&[][..], |contexts| contexts.certificates());
        Ok(certificates.iter().filter_map(|certificate| certificate.warning(now)).collect())
    }

    /// Returns the file of the users. Before there were two files by default, one database had users and bindings: where only that
    /// one is there, and has users, it is theirs still.
    pub fn users_file(&self) -> PathBuf {
        let named = &self.auth.users;
        let default = settings::Auth::default().users;
        if named.file_name() == default.file_name() && !named.exists() {
            let former = named.with_file_name(FORMER_USERS);
            if former.exists() && subscriber::is_in(&former) {
                return former;
            }
        }
        named.clone()
    }

    /// Returns a line that tells where the users are, if that is not the file that the conf names.
    pub fn other_users_file(&self) -> Option<String> {
        let file = self.users_file();
        (self.challenges() && file != self.auth.users).then(|| {
            let (file, named) = (file.display(), self.auth.users.display());
            format!(
                "[auth] users: there is no {named}, and {file} has users: these are used. \
                 Name it in the conf, or move them to {named}, as docs/users.md says"
            )
        })
    }

    /// Reads the current users, if the conf challenges anybody. `file` is shared with the journal, which may write to the same
    /// database. The error is one line.
    pub fn read_users(&self, secret: Key, file: Arc<SharedDatabaseFile>) -> Result<Option<(Source, Loaded)>, String> {
        if !self.challenges() {
            return Ok(None);
        }
        let mut source = Source::new(&self.users_file(), secret.derive("users")).beside(file);
        let loaded = source.read(&mut || true).map_err(|trouble| format!("[auth] users: {}", trouble.message()))?;
        Ok(Some((source, loaded)))
    }
}
