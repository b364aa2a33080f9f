//! The file of a conf: where it is, what may be one, and what is plainly something else.

use std::fs::{self, FileType};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::faults::Faults;

/// Where a conf is looked for if none is named.
pub const SEARCH: [&str; 2] = ["conf/strowger.toml", "/etc/strowger/strowger.toml"];

/// More than a conf with tens of thousands of routes takes.
const LARGEST: u64 = 16 << 20;

/// Returns the file named, or the first of [`SEARCH`] that exists; `None` means the built-in defaults. Where it cannot be seen whether
/// there is one, that is an error: the built-in defaults, or the next conf, would be taken for the one that serves.
pub fn find(named: Option<&Path>) -> Result<Option<PathBuf>, Faults> {
    match named {
        Some(path) => Ok(Some(path.to_owned())),
        None => first_of(&SEARCH.map(PathBuf::from), |path| path.try_exists()),
    }
}

fn first_of(places: &[PathBuf], exists: impl Fn(&Path) -> io::Result<bool>) -> Result<Option<PathBuf>, Faults> {
    for path in places {
        match exists(path) {
            Ok(true) => return Ok(Some(path.clone())),
            Ok(false) => {}
            Err(error) => {
                let what = format!(
                    "whether this conf is there cannot be seen: {error}; run this as a user who may, or name a conf with -c"
                );
                return Err(Faults::whole(&path.display().to_string(), &what));
            }
        }
    }
    Ok(None)
}

/// Returns the bytes of a file that may be a conf. A FIFO would keep the reader waiting, perhaps for ever, and a device would never end.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Faults> {
    let refused = |what: &str| Faults::whole(&path.display().to_string(), what);
    let found = fs::metadata(path).map_err(|error| refused(&format!("cannot be read: {error}")))?;
    if let Some(kind) = other_kind(found.file_type()) {
        return Err(refused(&format!("this is {kind}: name a file")));
    }
    if found.len() > LARGEST {
        let (size, most) = (found.len() >> 20, LARGEST >> 20);
        return Err(refused(&format!("this has {size} MiB, and no conf has more than {most}: name the conf")));
    }
    fs::read(path).map_err(|error| refused(&format!("cannot be read: {error}")))
}

fn other_kind(kind: FileType) -> Option<&'static str> {
    match kind {
        _ if kind.is_file() => None,
        _ if kind.is_dir() => Some("a folder"),
        _ if kind.is_fifo() => Some("a FIFO"),
        _ if kind.is_socket() => Some("a socket"),
        _ => Some("a device"),
    }
}

/// Returns the absolute path of the folder that relative paths in the conf at `path` are below.
pub(super) fn folder(path: &Path) -> Result<String, Faults> {
    let refused = |what: String| Faults::whole(&path.display().to_string(), &what);
    let whole = std::path::absolute(path).map_err(|error| refused(format!("its folder cannot be made out: {error}")))?;
    let folder = whole.parent().unwrap_or(Path::new("/"));
    match folder.to_str() {
        Some(folder) => Ok(folder.to_owned()),
        None => Err(refused("the name of its folder is not UTF-8: move it to another".to_owned())),
    }
}

/// What a line of another proxy's conf begins with, and no line of a conf in TOML.
const OF_OTHERS: [&str; 14] = [
    "#!KAMAILIO",
    "#!OPENSER",
    "#!SER",
    "#!MAXCOMPAT",
    "#!define ",
    "#!ifdef ",
    "loadmodule ",
    "loadmodule\t",
    "modparam(",
    "mpath=",
    "request_route",
    "route{",
    "route {",
    "route[",
];

/// Returns the byte at which the text shows that it is the conf of Kamailio or OpenSIPS. Only asked if it is not TOML.
pub(super) fn of_kamailio(text: &str) -> Option<usize> {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim_start();
        if OF_OTHERS.iter().any(|start| trimmed.starts_with(start)) {
            return Some(at + line.len() - trimmed.len());
        }
        at += line.len();
    }
    None
}

pub(super) const KAMAILIO: &str = "this is a conf of Kamailio or OpenSIPS, which strowger does not read: \
                                   docs/coming-from-kamailio.md says what takes the place of what";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conf_that_may_be_there_is_not_taken_for_absent() {
        let places = ["here/strowger.toml", "etc/strowger.toml"].map(PathBuf::from);
        let hidden = || Err(io::Error::from(io::ErrorKind::PermissionDenied));
        assert_eq!(first_of(&places, |_| Ok(false)).unwrap(), None);
        assert_eq!(first_of(&places, |path| Ok(path == places[1])).unwrap(), Some(places[1].clone()));
        let at_first = |path: &Path| if path == places[0] { Ok(true) } else { hidden() };
        assert_eq!(first_of(&places, at_first).unwrap(), Some(places[0].clone()));
        let told = first_of(&places, |path| if path == places[0] { Ok(false) } else { hidden() }).unwrap_err().to_string();
        assert!(told.contains("etc/strowger.toml") && told.contains("ermission denied") && told.contains("-c"), "{told}");
    }
}
