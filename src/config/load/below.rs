//! Relative paths of a conf are below the conf's own folder, wherever the command that reads it is started.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::wrong::Value;
use crate::config::model::Conf;
use crate::settings::table::table;

/// Section, key and type of every plain key.
macro_rules! rows {
    ($($(#[doc = $about:literal])* [$section:ident] $name:ident {
        $($(#[doc = $doc:literal])*
        $change:ident $key:ident: $type:ty = $default:expr, $toml:literal, $reader:expr;)*
    })*) => {
        const ROWS: &[(&str, &str, &str, &str)] = &[$($((stringify!($section), stringify!($key), stringify!($type), $toml),)*)*];
    };
}
table!(rows);

/// The paths that are not plain keys.
const FURTHER: [(&str, &[&str]); 4] = [
    ("tls", &["certificate", "private_key", "client_certificate", "client_private_key"]),
    ("tls.identity", &["certificate", "private_key"]),
    ("route", &["certificate", "private_key"]),
    ("trunk", &["password_file"]),
];

fn is_path(section: &str, key: &str) -> bool {
    let plain = |row: &&(&str, &str, &str, &str)| row.0 == section && row.1 == key;
    let names_a_file = |kind: &str| kind.contains("PathBuf") || kind.contains("RecordsTo");
    ROWS.iter().find(plain).is_some_and(|row| names_a_file(row.2))
        || FURTHER.iter().any(|(name, keys)| *name == section && keys.contains(&key))
}

/// Puts `folder`, which is absolute, before each relative path that the file names. What is wrong otherwise stays as it is.
pub(super) fn settle(root: &mut DeTable<'_>, folder: &str) {
    for (name, value) in root.iter_mut() {
        let section = name.get_ref().to_string();
        settle_tables(&section, value, folder);
    }
}

fn settle_tables(section: &str, value: &mut Value<'_>, folder: &str) {
    match value.get_mut() {
        DeValue::Array(tables) => tables.iter_mut().for_each(|table| settle_tables(section, table, folder)),
        DeValue::Table(table) => {
            for (key, value) in table.iter_mut() {
                let key = key.get_ref().to_string();
                match is_path(section, &key) {
                    true => settle_paths(value, folder),
                    false if !section.contains('.') => settle_tables(&format!("{section}.{key}"), value, folder),
                    false => {}
                }
            }
        }
        _ => {}
    }
}

/// One path, or a list of them.
fn settle_paths(value: &mut Value<'_>, folder: &str) {
    match value.get_mut() {
        DeValue::String(text) if !text.is_empty() => {
            let (before, path) = match text.strip_prefix(SOCKET) {
                Some(path) if !path.is_empty() => (SOCKET, path),
                _ => ("", &**text),
            };
            if Path::new(path).is_relative() {
                let path = format!("{before}{}", Path::new(folder).join(path).display());
                *text = path.into();
            }
        }
        DeValue::Array(paths) => paths.iter_mut().for_each(|path| settle_paths(path, folder)),
        _ => {}
    }
}

/// What stands before the path of a socket in `[records] file`.
const SOCKET: &str = "unixgram:";

/// Puts `folder` before the paths that the file leaves to their defaults. It is absolute, so the others stay as they are.
pub(super) fn settle_defaults(conf: &mut Conf, folder: &str) {
    let database = conf.registrar.database.iter_mut();
    for path in [&mut conf.server.key_file, &mut conf.auth.users, &mut conf.control.socket].into_iter().chain(database) {
        *path = Path::new(folder).join(&*path);
    }
}

/// Returns a line for each file that the server keeps and that is below `before`, the working directory, where relative paths were
/// in earlier versions, and not below `folder`, where they are now.
pub(super) fn left_behind(conf: &Conf, folder: &Path, before: &Path) -> Vec<String> {
    let mut kept = vec![("[server] key_file", &conf.server.key_file)];
    kept.extend(conf.registrar.database.as_ref().map(|path| ("[registrar] database", path)));
    if conf.challenges() {
        kept.push(("[auth] users", &conf.auth.users));
    }
    let line = |(key, path): (&str, &PathBuf)| {
        let old = std::path::absolute(before.join(path.strip_prefix(folder).ok()?)).ok()?;
        let is_left = !path.exists() && old.exists();
        is_left.then(|| {
            format!(
                "{key}: there is no {}, but {}, where earlier versions looked: relative paths are below the conf's folder; write that path, \
                 or move the file",
                path.display(),
                old.display()
            )
        })
    };
    kept.into_iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::parse_below;
    use crate::config::machine::Machine;

    fn read(text: &str) -> Conf {
        let machine = Machine { cores: vec![0], memory: 0, files: 1 << 10 };
        parse_below("t", text, Some("/conf/here"), &machine).unwrap_or_else(|faults| panic!("{faults}"))
    }

    #[test]
    fn every_path_that_has_a_default_is_settled() {
        let paths = ROWS.iter().filter(|row| is_path(row.0, row.1));
        let by_default: Vec<_> = paths.filter(|row| row.3 != "\"\"").map(|row| (row.0, row.1)).collect();
        let four = [("server", "key_file"), ("registrar", "database"), ("auth", "users"), ("control", "socket")];
        assert_eq!(by_default, four);
        let conf = read("");
        let below = |path: PathBuf| Path::new("/conf/here").join(path);
        let default = Conf::default();
        assert_eq!(conf.server.key_file, below(default.server.key_file));
        assert_eq!(conf.registrar.database, default.registrar.database.map(below));
        assert_eq!(conf.auth.users, below(default.auth.users));
        assert_eq!(conf.control.socket, below(default.control.socket));
    }

    #[test]
    fn relative_paths_are_below_the_folder_and_others_are_what_they_are() {
        let text = "[server]\nkey_file = \"keys/../own.key\"\n[registrar]\ndatabase = \"\"\n[auth]\nusers = \"/var/users.db\"\n\
                    [control]\nsocket = \"s\"\n[records]\nfile = \"calls.json\"\n";
        let conf = read(text);
        assert_eq!(conf.server.key_file, Path::new("/conf/here/keys/../own.key"));
        assert_eq!((conf.registrar.database, conf.auth.users), (None, "/var/users.db".into()));
        assert_eq!(conf.control.socket, Path::new("/conf/here/s"));
        assert_eq!(conf.records.file, Some(crate::settings::RecordsTo::File("/conf/here/calls.json".into())));
        for (file, path) in [("unixgram:c.sock", "/conf/here/c.sock"), ("unixgram:/run/c.sock", "/run/c.sock")] {
            let conf = read(&format!("[records]\nfile = {file:?}\n"));
            assert_eq!(conf.records.file, Some(crate::settings::RecordsTo::Socket(path.into())));
        }
    }

    /// Each path of the tables that are not plain, alone and in lists, and wherever the table stands.
    #[test]
    fn further_paths_are_settled_in_every_table() {
        let text = "[tls]\ncertificate = [\"a\", \"/b\"]\nidentity = [{ name = \"n\", certificate = \"c\" }]\ntrusted_ca = \"d\"\n\
                    [[route]]\ncertificate = \"e\"\ntarget = [\"f\"]\n[[trunk]]\npassword_file = \"g\"\n\
                    [location]\npassword_file = \"h\"\nnode = \"i\"\n";
        let mut root = DeTable::parse(text).unwrap().into_inner();
        settle(&mut root, "/x");
        let all = format!("{root:?}");
        let below: Vec<char> =
            all.match_indices("\"/x/").filter_map(|(at, start)| all[at + start.len()..].chars().next()).collect();
        let mut sorted = below.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, ['a', 'c', 'd', 'e', 'g', 'h'], "{all}");
    }

    #[test]
    fn files_of_earlier_versions_are_found_below_the_working_directory() {
        let (new, old) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let machine = Machine { cores: vec![0], memory: 0, files: 1 << 10 };
        let conf = |text: &str| parse_below("t", text, new.path().to_str(), &machine).unwrap();
        let left = |text: &str| left_behind(&conf(text), new.path(), old.path());
        assert!(left("").is_empty());
        for name in ["strowger.key", "strowger.db", "u.db"] {
            std::fs::write(old.path().join(name), "").unwrap();
        }
        let lines = left("[auth]\nusers = \"u.db\"\nchallenge_register = true\n");
        let keys = ["[server] key_file: ", "[registrar] database: ", "[auth] users: "];
        assert!(lines.len() == 3 && lines.iter().zip(keys).all(|(line, key)| line.starts_with(key)), "{lines:?}");
        assert!(lines[0].contains(&old.path().join("strowger.key").display().to_string()), "{lines:?}");
        // Users are read only if somebody is asked for a password; an absolute path is where it always was.
        let absolute = format!("[server]\nkey_file = {:?}\n[registrar]\ndatabase = \"\"\n", old.path().join("strowger.key"));
        assert!(left(&absolute).is_empty());
        for name in ["strowger.key", "strowger.db"] {
            std::fs::write(new.path().join(name), "").unwrap();
        }
        assert!(left("").is_empty());
    }

    #[test]
    fn without_a_file_paths_are_below_the_working_directory() {
        let machine = Machine { cores: vec![0], memory: 0, files: 1 << 10 };
        let conf = crate::config::load::parse("built-in defaults", "", &machine).unwrap();
        assert_eq!(conf.control.socket, Path::new("strowger.sock"));
        assert_eq!(conf, Conf { listen: conf.listen.clone(), ..Conf::default() });
    }
}
