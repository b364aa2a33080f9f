//! The values of `[location]`: where the shared table is, and who this server is there.

use super::document::{Document, Plain};
use super::trace::is_host;
use super::trunks::read_password;
use super::values::string;
use super::wrong::{Parsed, Value, must_be, wrong};
use crate::settings::{SharedStore, SharedTable, StoreKind};
use crate::stack::trunk::Password;

/// The ports of Redis and of its sentinels.
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// Sentinels, or servers of a cluster, that can be named.
const HOSTS_MOST: usize = 16;

/// The greatest number of a database that a server can have.
const DB_MOST: u32 = 1_000_000;

const STORE: &str = "a Redis such as \"redis://192.0.2.8:6379/0\": host, port and database";

impl Document<'_> {
    /// The section, and the password from the file that it names.
    pub(super) fn location(&mut self) -> (SharedTable, Option<Password>) {
        let mut section = self.section(SharedTable::NAME);
        let table = SharedTable::read(&mut section);
        // A value that is wrong was reported: what depends on it is not reported as well.
        if table.shared.is_none() && !section.given("shared") {
            for key in ["node", "user", "password_file", "replicas", "stream"] {
                if section.given(key) {
                    let message = format!("{key} has no effect here, because the table is not shared: add shared = \"redis://…\"");
                    section.wrong(section.place(key), message);
                }
            }
        }
        if table.user.is_some() && table.password_file.is_none() && !section.given("password_file") {
            section
                .wrong(section.place("user"), "user has no effect here, because there is no password: add password_file = \"…\"");
        }
        let password = table.password_file.as_ref().and_then(|file| match read_password(file) {
            Ok(password) => Some(password),
            Err(why) => {
                let message = format!("password_file is {}, which {why}", file.display());
                section.wrong(section.place("password_file"), message);
                None
            }
        });
        (table, password)
    }
}

/// `redis://HOST[:PORT][/DB]`, `redis-sentinel://HOST[:PORT],…/SERVICE[/DB]`, `redis-cluster://HOST[:PORT],…`, and the same with `rediss`; an
/// IPv6 address stands in brackets.
pub(super) fn shared_store(value: &Value<'_>) -> Parsed<SharedStore> {
    let text = string(value, STORE)?;
    let (scheme, rest) = text.split_once("://").ok_or_else(|| must_be(value, STORE))?;
    if rest.contains('@') {
        // It is not shown: it may hold a password.
        return Err(wrong(
            value,
            "has a user or a password in it, which this file is not for: write the password into a file of its own, and name that in \
             password_file, and the user in user",
        ));
    }
    parse_store(scheme, rest).ok_or_else(|| must_be(value, STORE))
}

fn parse_store(scheme: &str, rest: &str) -> Option<SharedStore> {
    let (places, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (is_secure, scheme) = match scheme.strip_prefix("rediss") {
        Some(rest) => (true, rest),
        None => (false, scheme.strip_prefix("redis")?),
    };
    let (kind, port, most, db) = match scheme {
        "" => (StoreKind::Single, PORT, 1, path),
        "-sentinel" => {
            let (service, db) = path.split_once('/').unwrap_or((path, ""));
            let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if service.is_empty() || !service.chars().all(fits) {
                return None;
            }
            (StoreKind::Sentinels(service.to_owned()), SENTINEL_PORT, HOSTS_MOST, db)
        }
        "-cluster" if path.is_empty() => (StoreKind::Cluster, PORT, HOSTS_MOST, path),
        _ => return None,
    };
    let db = match db {
        "" => 0,
        digits => digits.parse().ok().filter(|db| *db <= DB_MOST && digits.bytes().all(|byte| byte.is_ascii_digit()))?,
    };
    let hosts: Vec<_> = places.split(',').map(|place| host_and_port(place, port)).collect::<Option<_>>()?;
    (hosts.len() <= most).then_some(SharedStore { kind, is_secure, hosts, db })
}

fn host_and_port(place: &str, default: u16) -> Option<(String, u16)> {
    let (name, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (address, port.strip_prefix(':').or(port.is_empty().then_some("")))
        }
        None => match place.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (place, Some("")),
        },
    };
    let port = match port? {
        "" if !place.ends_with(':') => default,
        digits => digits.parse().ok().filter(|port| *port != 0)?,
    };
    let fits = place.starts_with('[') || is_host(name);
    fits.then(|| (name.to_owned(), port))
}

/// A name that stands in a key of Redis, and in lines of the log.
pub(super) fn node_name(value: &Value<'_>) -> Parsed<String> {
    let what = "a name such as \"berlin-1\": letters, digits and \"-_.:[]\", 64 at most";
    let text = string(value, what)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:[]".contains(c);
    match text.len() <= 64 && text.chars().all(fits) && !text.is_empty() {
        true => Ok(text.to_owned()),
        false => Err(must_be(value, what)),
    }
}

pub(super) fn redis_user(value: &Value<'_>) -> Parsed<String> {
    let what = "the name of a user of Redis, without blanks";
    let text = string(value, what)?;
    match text.chars().all(|c| !c.is_whitespace() && !c.is_control()) && !text.is_empty() && text.len() <= 255 {
        true => Ok(text.to_owned()),
        false => Err(must_be(value, what)),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::load::parse;
    use crate::config::machine::Machine;
    use crate::config::{Conf, Plan};

    fn location(lines: &str) -> Result<Conf, String> {
        let machine = Machine { cores: vec![0], memory: 1 << 30, files: 1 << 20 };
        parse("t", &format!("[location]\n{lines}"), &machine).map_err(|faults| faults.to_string())
    }

    #[test]
    fn where_the_shared_table_is() {
        for (text, written) in [
            ("redis://192.0.2.8:6379/0", "redis://192.0.2.8:6379/0"),
            ("redis://redis.example.com", "redis://redis.example.com:6379/0"),
            ("redis://redis.example.com/3", "redis://redis.example.com:6379/3"),
            ("redis://[2001:db8::8]:7000/", "redis://[2001:db8::8]:7000/0"),
            ("redis://[2001:db8::8]", "redis://[2001:db8::8]:6379/0"),
            ("rediss://h/1", "rediss://h:6379/1"),
            ("redis-sentinel://h,[::1]:7000,i/main", "redis-sentinel://h:26379,[::1]:7000,i:26379/main/0"),
            ("redis-sentinel://h/main/4", "redis-sentinel://h:26379/main/4"),
            ("redis-cluster://h,i:7000", "redis-cluster://h:6379,i:7000"),
            ("rediss-sentinel://h/main", "rediss-sentinel://h:26379/main/0"),
            ("rediss-cluster://h", "rediss-cluster://h:6379"),
        ] {
            let store = location(&format!("shared = {text:?}\n")).unwrap().location.shared;
            assert_eq!(store.unwrap().to_string(), written);
        }
        for text in [
            "192.0.2.8:6379",
            "http://192.0.2.8",
            "redis://",
            "redis://:6379",
            "redis://h:",
            "redis://h:0",
            "redis://h:65536",
            "redis://h/x",
            "redis://h/+1",
            "redis://h/1000001",
            "redis://2001:db8::8:6379",
            "redis://[::1",
            "redis://[::1]x",
            "redis://a b",
            "redis://h,i",
            "redis-sentinel://h",
            "redis-sentinel://h/a b",
            "redis-sentinel://h,/main",
            "redis-cluster://h/0",
            "redis-cluster://",
            "redisss://h",
            "rediss-://h",
            "http://h",
        ] {
            let why = location(&format!("shared = {text:?}\n")).unwrap_err();
            assert!(why.starts_with("t:2:10: shared must be a Redis such as"), "{text}: {why}");
        }
    }

    #[test]
    fn a_password_in_the_address_is_refused_and_not_shown() {
        let why = location("shared = \"redis://u:sesame@192.0.2.8\"\n").unwrap_err();
        assert!(why.contains("password_file") && !why.contains("sesame"), "{why}");
    }

    #[test]
    fn what_has_no_effect_is_refused() {
        for line in ["node = \"a\"", "user = \"u\"", "replicas = 1", "stream = 1000"] {
            let key = line.split(' ').next().unwrap();
            let why = location(&format!("{line}\n")).unwrap_err();
            assert!(why.contains(&format!("{key} has no effect here, because the table is not shared")), "{why}");
        }
        let why = location("shared = \"redis://h\"\nuser = \"u\"\n").unwrap_err();
        assert!(why.contains("add password_file"), "{why}");
        let why = location("shared = \"redis://h\"\nnode = \"a b\"\n").unwrap_err();
        assert!(why.starts_with("t:3:8: node must be a name such as"), "{why}");
    }

    #[test]
    fn a_password_is_read_from_its_file_and_a_new_one_needs_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("redis.password");
        let lines = format!("shared = \"redis://h\"\npassword_file = {:?}\n", file.display().to_string());
        assert!(location(&lines).unwrap_err().contains("which cannot be read"));
        std::fs::write(&file, "sesame\n").unwrap();
        let old = location(&lines).unwrap();
        assert_eq!(old.location_password.as_ref().unwrap().reveal(), b"sesame");
        assert!(!format!("{old:?}").contains("sesame"));
        std::fs::write(&file, "open\n").unwrap();
        assert_eq!(Plan::new(&old, &location(&lines).unwrap()).fixed, ["[location] password_file"]);
        assert_eq!(
            Plan::new(&old, &location("shared = \"redis://i\"\n").unwrap()).fixed,
            ["[location] shared", "[location] password_file"]
        );
    }

    #[test]
    fn acknowledged_needs_a_place_to_wait_for() {
        let rest = "[registrar]\ndatabase = \"\"\ndurability = \"acknowledged\"\n";
        assert!(location(rest).is_err());
        assert!(location(&format!("shared = \"redis://h\"\n{rest}")).is_ok());
    }
}
