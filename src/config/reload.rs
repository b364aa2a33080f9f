//! What a new conf would change in a running server: what takes effect at once, and what needs a restart.

use super::model::Conf;
use crate::settings::table::table;

/// The keys in which a conf differs from the one in force, as the file writes them: `[server] domains`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// These take effect between two turns of the loop.
    pub live: Vec<&'static str>,
    /// These cannot: sockets, threads and tables are made from them once.
    pub fixed: Vec<&'static str>,
}

/// Each row of the table says which of the two its key belongs to.
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

    /// The parts that are not plain keys, in the order of the file: those that follow this section.
    fn compare_behind(&mut self, section: &str, old: &Conf, new: &Conf) {
        match section {
            "server" if old.listen != new.listen => self.fixed.push("[[listen]]"),
            // The files are always read again.
            "tls" if old.certificates != new.certificates => self.live.push("[tls] certificate"),
            // The file is read again, and its content is used when Redis is connected to first.
            "location"
                if old.location_password != new.location_password && old.location.password_file == new.location.password_file =>
            {
                self.fixed.push("[location] password_file");
            }
            "auth" => {
                if old.routes != new.routes {
                    self.live.push("[[route]]");
                }
                if old.trunks != new.trunks {
                    self.live.push("[[trunk]]");
                }
            }
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
    use crate::config::load;
    use crate::config::machine::Machine;
    use crate::net::tls::Pair;

    fn conf(text: &str) -> Conf {
        let machine = Machine { cores: vec![0, 1], memory: 1 << 30, files: 1 << 20 };
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

    /// Sockets are opened once, with all that their sections say.
    #[test]
    fn load_balancers_need_a_restart() {
        let listen = "[[listen]]\ntransport = \"tcp\"\n";
        let plan = plan(listen, &format!("{listen}proxy_protocol = [\"192.0.2.8\"]\n"));
        assert_eq!((plan.live, plan.fixed), (vec![], vec!["[[listen]]"]));
    }

    /// Certificates are not a plain key, and the files are always read again.
    #[test]
    fn keys_of_tls_and_certificates_are_told_apart() {
        let rules = plan("", "[tls]\nverify_server = false\n");
        assert_eq!(rules.live, ["[tls] verify_server"]);
        let mut other = conf("");
        let files = ["a.pem", "a.key"].map(Into::into);
        let [certificate, private_key] = files;
        other.certificates.client_identity = vec![Pair { certificate, private_key }];
        let plan = Plan::new(&conf(""), &other);
        assert_eq!(plan.live, ["[tls] certificate"]);
        assert!(plan.fixed.is_empty());
    }
}
