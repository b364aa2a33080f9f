//! The server's secret, kept in a file so that branches and Record-Route cookies of before a restart stay valid.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The secret from which the server derives its keys.
pub type Secret = [u8; 32];

/// Reads the secret, or makes the file (mode 0600) with a new one where there is none.
///
/// The error says what is wrong with which file and what to do about it.
pub fn read_or_make(path: &Path) -> Result<Secret, String> {
    match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match make(path) {
            // Another server of the same conf was faster: its secret is ours.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read(path),
            made => made,
        },
        result => result,
    }
    .map_err(|error| format!("key file {}: {error}", path.display()))
}

fn read(path: &Path) -> io::Result<Secret> {
    let mut file = File::open(path)?;
    let mode = file.metadata()?.mode();
    if mode & 0o077 != 0 {
        let message = format!(
            "others may read it (mode {:04o}); make it private with chmod 600, or remove it to have a new one made",
            mode & 0o7777
        );
        return Err(io::Error::other(message));
    }
    let mut text = String::new();
    Read::by_ref(&mut file)
        .take(1024)
        .read_to_string(&mut text)?;
    parse(text.trim()).ok_or_else(|| {
        io::Error::other("it must hold 64 hexadecimal digits; remove it to have a new one made")
    })
}

fn parse(text: &str) -> Option<Secret> {
    let digits: Vec<u32> = text
        .chars()
        .map(|c| c.to_digit(16))
        .collect::<Option<_>>()?;
    let mut secret = Secret::default();
    if digits.len() != 2 * secret.len() {
        return None;
    }
    for (byte, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::try_from(pair[0] << 4 | pair[1]).ok()?;
    }
    Some(secret)
}

/// The file appears whole or not at all, so that a server that starts beside us never reads half of it.
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
    let written = write_private(Path::new(&draft), line.as_bytes())
        .and_then(|()| fs::hard_link(&draft, path));
    let _ = fs::remove_file(&draft);
    written.map(|()| secret)
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_made_once_is_the_same_after_a_restart() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("strowger.key");
        let first = read_or_make(&path).unwrap();
        assert_ne!(first, Secret::default());
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
        assert!(
            error.contains("0640") && error.contains("chmod 600"),
            "{error}"
        );
    }

    #[test]
    fn a_file_of_something_else_is_refused_and_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("strowger.key");
        for text in ["", "0123", &"g".repeat(64), &"0".repeat(65)] {
            write_private(&path, text.as_bytes()).unwrap();
            assert!(
                read_or_make(&path).unwrap_err().contains("64 hexadecimal"),
                "{text:?}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn a_folder_that_is_missing_is_named() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("none").join("strowger.key");
        assert!(
            read_or_make(&path)
                .unwrap_err()
                .contains("none/strowger.key")
        );
    }
}
