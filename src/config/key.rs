//! The server's secret, kept in a file so that branches and Record-Route cookies from before a restart stay valid.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::model::Conf;

/// The secret from which the server derives its keys.
pub type Secret = [u8; 32];

/// Maximum number of secrets in the file: each costs a check more of what none before it knows.
const MOST: usize = 4;

/// Reads the secrets, one a line, or creates the file (mode 0600) with a new one if there is none. There is at least one: the first
/// signs, and what any of them has signed is accepted.
///
/// The error names the file, what is wrong with it, and what to do about it.
pub fn read_or_make(path: &Path) -> Result<Vec<Secret>, String> {
    match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match make(path) {
            // Another server with the same conf was faster: its secret is ours.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read(path),
            made => made.map(|secret| vec![secret]),
        },
        result => result,
    }
    .map_err(|error| format!("key file {}: {error}", path.display()))
}

/// Returns what the file holds if it can be read and is good; nothing is made.
pub fn look(path: &Path) -> Option<Vec<Secret>> {
    read(path).ok()
}

/// Returns what the file holds; `None` if it is not there, or not for this user.
pub fn try_read(path: &Path) -> Result<Option<Vec<Secret>>, String> {
    match read(path) {
        Ok(secrets) => Ok(Some(secrets)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => Ok(None),
        Err(error) => Err(format!("key file {}: {error}", path.display())),
    }
}

fn read(path: &Path) -> io::Result<Vec<Secret>> {
    let mut file = File::open(path)?;
    if let Some(exposed) = exposed(file.metadata()?.mode()) {
        let message = format!("{exposed}, or remove it to have a new one made");
        return Err(io::Error::other(message));
    }
    let mut text = String::new();
    Read::by_ref(&mut file).take(4096).read_to_string(&mut text)?;
    parse_all(&text).map_err(io::Error::other)
}

fn parse_all(text: &str) -> Result<Vec<Secret>, String> {
    let mut secrets = Vec::new();
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line.trim()));
    for (number, line) in lines.filter(|(_, line)| !line.is_empty()) {
        let Some(secret) = parse(line) else {
            return Err(format!("line {number}: it must hold 64 hexadecimal digits; remove the file to have a new one made"));
        };
        if secrets.contains(&secret) {
            return Err(format!("line {number} is the same as one before: remove it"));
        }
        secrets.push(secret);
    }
    match secrets.len() {
        0 => Err("it must hold 64 hexadecimal digits; remove it to have a new one made".to_owned()),
        1..=MOST => Ok(secrets),
        many => Err(format!("it holds {many} secrets, and at most {MOST} are used: remove those that are no longer in use")),
    }
}

/// What is wrong with the mode of a file that holds a secret, and which mode would be right; `None`: it is private.
fn exposed(mode: u32) -> Option<String> {
    (mode & 0o077 != 0).then(|| format!("others may read it (mode {:04o}); make it private with chmod 600", mode & 0o7777))
}

/// Returns one line for each file of a conf with secrets that others may read: private keys, passwords of trunks, and the users
/// with the files that SQLite keeps beside them. They are used all the same, because they are not ours: some are made by other
/// programs, which this server must not stop.
pub fn exposed_files(conf: &Conf) -> Vec<String> {
    let mut files: Vec<(&str, PathBuf)> = Vec::new();
    for pair in conf.pairs() {
        files.push(("private key", pair.private_key.clone()));
    }
    if conf.challenges() {
        for beside in ["", "-wal", "-shm"] {
            let mut path = conf.users_file().into_os_string();
            path.push(beside);
            files.push(("users", path.into()));
        }
    }
    for path in &conf.password_files {
        files.push(("password of a [[trunk]]", path.clone()));
    }
    if let Some(path) = &conf.location.password_file {
        files.push(("password for Redis", path.clone()));
    }
    files.sort();
    files.dedup();
    let line = |(what, path): (&str, PathBuf)| {
        let mode = fs::metadata(&path).ok()?.mode();
        Some(format!("{what} {}: {}", path.display(), exposed(mode)?))
    };
    files.into_iter().filter_map(line).collect()
}

fn parse(text: &str) -> Option<Secret> {
    let digits: Vec<u32> = text.chars().map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let mut secret = Secret::default();
    if digits.len() != 2 * secret.len() {
        return None;
    }
    for (byte, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::try_from(pair[0] << 4 | pair[1]).ok()?;
    }
    Some(secret)
}

/// Creates the file whole or not at all, so that a server that starts beside us never reads half of it.
fn make(path: &Path) -> io::Result<Secret> {
    let mut secret = Secret::default();
    File::open("/dev/urandom")?.read_exact(&mut secret)?;
    let mut line = String::with_capacity(65);
    for byte in secret {
        line.push_str(&format!("{byte:02x}"));
    }
    line.push('\n');

    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", std::process::id()));
    let written = write_private(Path::new(&draft), line.as_bytes()).and_then(|()| fs::hard_link(&draft, path));
    let _ = fs::remove_file(&draft);
    written.map(|()| secret)
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tls::Pair;

    #[test]
    fn a_secret_made_once_is_the_same_after_a_restart() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("strowger.key");
        let first = read_or_make(&path).unwrap();
        assert_ne!(first, [Secret::default()]);
        assert_eq!(read_or_make(&path).unwrap(), first);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        let files = fs::read_dir(place.path()).unwrap().count();
        assert_eq!(files, 1, "the draft is still there");

        let other = place.path().join("other.key");
        assert_ne!(read_or_make(&other).unwrap(), first);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("strowger.key");
        read_or_make(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let error = read_or_make(&path).unwrap_err();
        assert!(error.contains("0640") && error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn secrets_that_others_may_read_are_named_each_once() {
        let place = tempfile::tempdir().unwrap();
        let file = |name: &str, mode: u32| {
            let path = place.path().join(name);
            write_private(&path, b"x").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            path
        };
        let pair = |private_key: PathBuf| Pair { certificate: file("open.pem", 0o644), private_key };
        let mut conf = Conf::default();
        conf.auth.users = file("users.db", 0o640);
        file("users.db-wal", 0o666);
        file("users.db-shm", 0o600);
        let open = file("open.key", 0o644);
        conf.certificates.default_identity = vec![pair(open.clone()), pair(file("own.key", 0o400))];
        conf.certificates.client_identity = vec![pair(open)];
        let said = |conf: &Conf| {
            let folder = format!("{}/", place.path().display());
            let lines = exposed_files(conf).into_iter();
            lines.map(|line| line.replace(&folder, "")).collect::<Vec<_>>()
        };
        let right = "make it private with chmod 600";
        let key = format!("private key open.key: others may read it (mode 0644); {right}");
        // Users are only read if somebody is asked for a password.
        assert_eq!(said(&conf), std::slice::from_ref(&key));
        conf.auth.challenge_register = true;
        let users = format!("users users.db: others may read it (mode 0640); {right}");
        let wal = format!("users users.db-wal: others may read it (mode 0666); {right}");
        assert_eq!(said(&conf), [&key[..], &users, &wal]);
        conf.password_files = vec![file("carrier.password", 0o644), file("other.password", 0o600)];
        let password = format!("password of a [[trunk]] carrier.password: others may read it (mode 0644); {right}");
        assert_eq!(said(&conf), [password, key, users, wal]);
    }

    #[test]
    fn a_file_of_something_else_is_refused_and_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("strowger.key");
        for text in ["", "0123", &"g".repeat(64), &"0".repeat(65)] {
            write_private(&path, text.as_bytes()).unwrap();
            assert!(read_or_make(&path).unwrap_err().contains("64 hexadecimal"), "{text:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn several_secrets_are_read_in_their_order() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("strowger.key");
        let read = |text: &str| {
            write_private(&path, text.as_bytes()).unwrap();
            read_or_make(&path)
        };
        let digits = |digit: &str| digit.repeat(64);
        let (one, two) = (digits("1"), digits("2"));
        assert_eq!(read(&one).unwrap(), [[0x11; 32]]);
        assert_eq!(read(&format!("{two}\n\n  {one}\r\n")).unwrap(), [[0x22; 32], [0x11; 32]]);
        let four = [&one, &two, &digits("3"), &digits("4")].map(|line| line.clone() + "\n").concat();
        assert_eq!(read(&four).unwrap().len(), 4);
        let refused = |text: &str, why: &str| {
            let error = read(text).unwrap_err();
            assert!(error.contains(why), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        };
        refused(&format!("{four}{}", digits("5")), "5 secrets, and at most 4");
        refused(&format!("{one}\n{two}\n{one}\n"), "line 3 is the same");
        refused(&format!("{one}\n{two}0\n"), "line 2: it must hold 64 hexadecimal");
        refused("\n \n", "64 hexadecimal");
    }

    #[test]
    fn a_folder_that_is_missing_is_named() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("none").join("strowger.key");
        assert!(read_or_make(&path).unwrap_err().contains("none/strowger.key"));
    }
}
