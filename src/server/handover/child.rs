//! The new process: started as this one was, with the wire of the handover as its standard input.

use super::words::VARIABLE;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

static OWN: OnceLock<Option<PathBuf>> = OnceLock::new();

/// Notes where this process's program is, at its start: the file may be replaced later, by that of a new version.
pub fn note_own_program() {
    OWN.get_or_init(own_program);
}

/// Returns the path by which the program was called, without following links: an update may turn one to another file.
fn own_program() -> Option<PathBuf> {
    let real = env::current_exe().ok();
    let is_ours = |path: &Path| {
        let id = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
        real.as_deref().and_then(id).is_some_and(|own| id(path) == Some(own))
    };
    let called = PathBuf::from(env::args_os().next()?);
    let found = match called.components().count() {
        0 => None,
        1 if !called.has_root() && called.parent() == Some(Path::new("")) => {
            let path = env::var_os("PATH")?;
            env::split_paths(&path).map(|folder| folder.join(&called)).find(|path| is_ours(path))
        }
        _ => std::path::absolute(&called).ok().filter(|path| is_ours(path)),
    };
    found.or(real)
}

/// Starts the program again, with the arguments and the environment of this process. Returns it with our end of the wire, and its path.
pub fn start() -> Result<(Child, UnixStream), String> {
    let program = OWN.get_or_init(own_program).clone().ok_or("where the program is was not known at the start")?;
    let explain = |error: io::Error| format!("{}: {error}", program.display());
    let (here, there) = UnixStream::pair().map_err(explain)?;
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    // The standard input, because it needs no work between the fork and the program: what has gigabytes is not copied to be thrown away.
    let child = Command::new(&program)
        .args(arguments)
        .env(VARIABLE, "0")
        // It is the successor's from then on, and was given to this process.
        .env_remove("WATCHDOG_PID")
        .stdin(Stdio::from(OwnedFd::from(there)))
        .spawn()
        .map_err(explain)?;
    Ok((child, here))
}
