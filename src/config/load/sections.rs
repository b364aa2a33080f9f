//! The plain sections: each key as its row of the table says, then dependencies between keys, and on the machine.

use std::time::Duration;

use super::document::{Document, Plain, Section};
use super::location::*;
use super::pem::Kind;
use super::tls::*;
use super::trace::*;
use super::uri::host;
use super::values::*;
use super::wrong::Wrong;
use crate::config::model::Conf;
use crate::settings::table::table;
use crate::settings::*;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
// RFC 3261 §10.3 forbids a registrar to call an interval of an hour or more too brief. RFC 8446 §4.6.1 forbids a ticket lifetime of
// more than seven days.
const HOUR: Duration = Duration::from_secs(3600);

macro_rules! readers {
    ($($(#[doc = $about:literal])* [$section:ident] $name:ident {
        $($(#[doc = $doc:literal])*
        $change:ident $key:ident: $type:ty = $default:expr, $toml:literal, $reader:expr;)*
    })*) => {$(
        impl Plain for $name {
            const NAME: &'static str = stringify!($section);

            fn read(section: &mut Section<'_, '_>) -> $name {
                let default = $name::default();
                $name {
                    $($key: section.read(stringify!($key), $reader).unwrap_or(default.$key),)*
                }
            }
        }
    )*};
}
table!(readers);

impl Document<'_> {
    /// A section whose keys do not depend on each other.
    pub(super) fn plain<T: Plain>(&mut self) -> T {
        T::read(&mut self.section(T::NAME))
    }

    pub(super) fn server(&mut self) -> Server {
        let machine = self.machine;
        let mut section = self.section("server");
        let mut server = Server::read(&mut section);
        // If this process may not run on core 0, the first that it may run on replaces it.
        if let (false, [first, ..]) = (section.given("cores"), &machine.cores[..])
            && !machine.cores.contains(&0)
        {
            server.cores = vec![*first];
        }
        for (core, at) in section.integers("cores") {
            if !machine.cores.iter().any(|own| *own as u64 == core) {
                let cores: Vec<String> = machine.cores.iter().map(usize::to_string).collect();
                let message = format!("cores names core {core}, but this process may run on {} only", cores.join(", "));
                section.wrong(at, message);
            }
        }
        if server.group.is_some() && server.user.is_none() {
            let message = "group has no effect here, because there is no user: add user = \"…\"";
            section.wrong(section.place("group"), message);
        }
        server
    }

    pub(super) fn connections(&mut self) -> Connections {
        let files = self.machine.files;
        let mut section = self.section("connections");
        let connections = Connections::read(&mut section);
        if let Some(max) = connections.max.filter(|max| *max >= files) {
            let message = format!(
                "max is {max}, but this process may open {files} files in all: raise that limit (ulimit -n) or lower this one"
            );
            section.wrong(section.place("max"), message);
        }
        connections
    }

    /// A path that the file leaves to its default can be too long as well, with the conf's folder before it.
    pub(super) fn refuse_long_socket(&mut self, control: &Control) {
        let path = &control.socket;
        let named = self.find("control.socket").or(self.find("control"));
        let at = named.map_or(0, |value| value.span().start);
        let is_told = self.wrongs.iter().any(|wrong| wrong.at == at);
        if !is_told && path.as_os_str().len() > SOCKET_PATH_LONGEST {
            let message = format!(
                "the path of [control] socket is {}, below the conf's folder, and longer than {SOCKET_PATH_LONGEST} bytes: \
                 name a shorter one, as in socket = \"/run/strowger.sock\"",
                path.display()
            );
            self.wrongs.push(Wrong::new(at, message));
        }
    }

    /// `is_shared`: Redis keeps the bindings as well.
    pub(super) fn registrar(&mut self, is_shared: bool) -> Registrar {
        let mut section = self.section("registrar");
        let registrar = Registrar::read(&mut section);
        if registrar.database.is_none() && !is_shared && registrar.durability == Durability::Acknowledged {
            let message = "durability is \"acknowledged\", but bindings are kept in memory only: \
                           name a file in database, or remove this";
            section.wrong(section.place("durability"), message);
        }
        let seconds = |time: Seconds| Duration::from_secs(time.into());
        section.ascending(&[
            ("min_expires", seconds(registrar.min_expires)),
            ("default_expires", seconds(registrar.default_expires)),
            ("max_expires", seconds(registrar.max_expires)),
        ]);
        registrar
    }

    pub(super) fn timers(&mut self) -> Timers {
        let mut section = self.section("timers");
        let timers = Timers::read(&mut section);
        let (t1, t2) = (timers.t1, timers.t2);
        section.ascending(&[("t1", Duration::from_millis(t1)), ("t2", Duration::from_millis(t2))]);
        timers
    }

    pub(super) fn auth(&mut self) -> Auth {
        let mut section = self.section("auth");
        let auth = Auth::read(&mut section);
        let places = ["challenge_bye", "certificate"].map(|key| section.place(key));
        [self.challenge_bye_at, self.auth_certificate_at] = places;
        auth
    }

    /// A certificate proves something only if clients are asked for one.
    pub(super) fn refuse_idle_certificate(&mut self, conf: &Conf) {
        let is_idle = conf.tls.verify_client == VerifyClient::No;
        if conf.auth.certificate != Certificate::Off && is_idle {
            let message = "certificate has no effect here, because no client is asked for one: \
                           add verify_client = \"optional\" or \"required\" in [tls]";
            let wrong = Wrong::new(self.auth_certificate_at, message);
            self.wrongs.push(wrong);
        }
    }

    /// A BYE is only challenged if other requests are.
    pub(super) fn refuse_idle_challenge(&mut self, conf: &Conf) {
        if conf.auth.challenge_bye && !conf.challenges_calls() {
            let message = "challenge_bye has no effect here, because no calls are challenged: \
                           add challenge_proxy = true, or challenge = true or from = \"users\" to a [[route]]";
            self.wrongs.push(Wrong::new(self.challenge_bye_at, message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::document::Document;
    use crate::config::machine::Machine;
    use toml::de::DeTable;

    /// For each row: the default in the file equals that in the struct.
    macro_rules! defaults {
        ($($(#[doc = $about:literal])* [$section:ident] $name:ident {
            $($(#[doc = $doc:literal])*
            $change:ident $key:ident: $type:ty = $default:expr, $toml:literal, $reader:expr;)*
        })*) => {
            fn check_defaults() -> usize {
                let machine = Machine { cores: vec![0], memory: 0, files: 1 << 20 };
                let mut checked = 0;
                $($({
                    let text = concat!("[", stringify!($section), "]\n", stringify!($key), " = ", $toml, "\n");
                    let root = DeTable::parse(text).expect("TOML");
                    let mut document = Document::new(root.get_ref(), &machine);
                    let read = document.plain::<$name>();
                    assert!(document.wrongs.is_empty(), "{text}: {:?}", document.wrongs);
                    assert_eq!(read.$key, $name::default().$key, "{text}");
                    checked += 1;
                })*)*
                checked
            }
        };
    }
    table!(defaults);

    #[test]
    fn each_default_is_the_same_in_both_languages() {
        assert!(check_defaults() > 70);
    }
}
