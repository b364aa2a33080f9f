//! What a new conf would change in a running server: what takes effect at once, and what only a restart can bring.

use super::model::Conf;
use crate::settings::table::table;

/// The keys in which a conf differs from the one in force, as the file has them: `[server] domains`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// These take effect between two turns of the loop.
    pub live: Vec<&'static str>,
    /// These cannot: sockets, threads and tables are made from them once.
    pub fixed: Vec<&'static str>,
}

/// Each row of the table says in which of the two its key stands.
macro_rules! compare {
    ($($(#[doc = $about:literal])* [$section:ident] $name:ident {
        $($(#[doc = $doc:literal])*
        $change:ident $key:ident: $type:ty = $default:expr, $toml:literal, $reader:expr;)*
    })*) => {
        impl Plan {
            fn compare(&mut self, old: &Conf, new: &Conf) {
                $(
                    $(if old.$section.$key != new.$section.$key {
                        self.$change.push(concat!("[", stringify!($section), "] ", stringify!($key)));
                    })*
                    self.compare_behind(stringify!($section), old, new);
                )*
            }
        }
    };
}
table!(compare);

impl Plan {
    pub fn new(old: &Conf, new: &Conf) -> Plan {
        let mut plan = Plan::default();
        plan.compare(old, new);
        plan
    }

    /// What is no plain key, in the order of the file: what follows on this section.
    fn compare_behind(&mut self, section: &str, old: &Conf, new: &Conf) {
        match section {
            "server" if old.listen != new.listen => self.fixed.push("[[listen]]"),
            // The files are read again in any case.
            "tls" if old.certificates != new.certificates => self.live.push("[tls] certificate"),
            "auth" if old.routes != new.routes => self.live.push("[[route]]"),
            _ => {}
        }
    }

    /// True for a key that differs and takes effect at once.
    pub fn changes(&self, key: &str) -> bool {
        self.live.contains(&key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::{self, known_keys};
    use crate::config::machine::Machine;

    fn conf(text: &str) -> Conf {
        let machine = Machine {
            cores: vec![0, 1],
            memory: 1 << 30,
            files: 1 << 20,
        };
        load::parse("t", text, &machine).unwrap_or_else(|faults| panic!("{faults}"))
    }

    fn plan(old: &str, new: &str) -> Plan {
        Plan::new(&conf(old), &conf(new))
    }

    #[test]
    fn the_same_conf_changes_nothing() {
        let text = include_str!("../../conf/strowger.toml");
        assert_eq!(plan(text, text), Plan::default());
        assert_eq!(plan("", text), Plan::default(), "it says the defaults");
    }

    #[test]
    fn what_is_live_and_what_is_fixed() {
        let plan = plan(
            "[server]\ndomains = [\"a.example\"]\n[timers]\nt1 = \"500ms\"\n[[route]]\naction = \"reject\"\n",
            "[server]\ncores = [1]\ndomains = [\"b.example\"]\n[timers]\nt1 = \"100ms\"\n\
             [udp]\nbatch = 8\n[[listen]]\naddress = \"127.0.0.1:5080\"\n",
        );
        assert_eq!(plan.live, ["[server] domains", "[[route]]", "[timers] t1"]);
        assert_eq!(plan.fixed, ["[server] cores", "[[listen]]", "[udp] batch"]);
        assert!(plan.changes("[timers] t1") && !plan.changes("[timers] t2"));
    }

    /// An operator looks for what the server names in the conf: there must be such a key.
    #[test]
    fn every_key_is_named_as_the_conf_names_it() {
        // One conf in which every key differs from the defaults that a file can give without other files beside it.
        let new = "
[server]
cores = [1]
domains = [\"a.example\"]
key_file = \"other.key\"
drain_deadline = \"1s\"
user = \"x\"
group = \"x\"
core_dumps = true
[[listen]]
address = \"127.0.0.1:5080\"
[tls]
verify_server = false
[connections]
outgoing = \"per-call\"
idle_timeout = \"1s\"
message_timeout = \"1s\"
connect_timeout = \"1s\"
handshake_timeout = \"1s\"
max = 7
handshakes = 7
send_queue = \"8KiB\"
unsent_bytes = \"8MiB\"
unfinished_bytes = \"8MiB\"
keep_alive_bytes = \"8KiB\"
[proxy]
mode = \"stateless\"
record_route = false
fork = \"sequential\"
redirect = true
max_breadth = 7
in_dialog_without_route = \"refuse\"
[registrar]
enabled = false
min_expires = \"7s\"
default_expires = \"8s\"
max_expires = \"9s\"
max_contacts = 7
contact_networks = [\"192.0.2.1\"]
database = \"x.db\"
durability = \"acknowledged\"
[auth]
realm = \"x\"
challenge_register = true
challenge_proxy = true
challenge_bye = true
check_uri = \"off\"
algorithms = [\"MD5\"]
qop = false
nonce_lifetime = \"10s\"
guesses = 7
users = \"x\"
[[route]]
action = \"reject\"
[timers]
t1 = \"10ms\"
t2 = \"20ms\"
t4 = \"30ms\"
c = \"1s\"
linger = \"1s\"
[limits]
message_size = \"1KiB\"
transactions = 7
bindings = 7
contact_size = \"7KiB\"
requests_per_source = 7
answer_factor = 7
requests_per_user = 7
requests_per_aor = 7
ban = \"7s\"
trusted_sources = [\"192.0.2.1\"]
overload = \"7ms\"
shed = \"kernel\"
[udp]
receive_buffer = \"8KiB\"
send_buffer = \"8KiB\"
batch = 7
gather = \"1ms\"
[dns]
servers = [\"127.0.0.1\"]
timeout = \"1s\"
cache = 777
questions = 7
held = \"1MiB\"
[control]
socket = \"x\"
[metrics]
address = \"127.0.0.1:9\"
[log]
level = \"off\"
";
        let plan = plan("", new);
        let told: Vec<&str> = plan.live.iter().chain(&plan.fixed).copied().collect();
        for (section, keys) in known_keys() {
            if ["listen", "route", "tls", "tls.identity"].contains(&section) {
                continue;
            }
            for key in keys {
                let name = format!("[{section}] {key}");
                // It needs the file of an authority.
                if name == "[auth] certificate" {
                    continue;
                }
                assert!(told.contains(&name.as_str()), "{name} among {told:?}");
            }
        }
        for whole in ["[[listen]]", "[[route]]", "[tls] verify_server"] {
            assert!(told.contains(&whole), "{whole}");
        }
    }
}
