//! The control socket's server: lines of JSON-RPC, on a Unix socket that only its owner may open, or a group as well.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::acceptor::{Acceptor, Service};
use super::guests::Place;
use super::{ControlApi, follow, rpc};

/// Limits and timeouts of the control socket.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Clients at a time. For a further one the oldest idle client is closed; if none is idle, it is answered [`rpc::BUSY`] and
    /// closed.
    pub clients: usize,
    /// The most bytes of a request's line; a longer one is answered and the client closed.
    pub line: usize,
    /// How long a client may take to send a whole line before it is closed.
    pub idle: Duration,
    /// How long a client may leave an answer unread before it is closed.
    pub unread: Duration,
    /// The mode of the socket's file.
    pub mode: u32,
    /// The number of its group; `None`: the process's own.
    pub group: Option<u32>,
}

impl Default for Bounds {
    fn default() -> Bounds {
        let (idle, unread) = (Duration::from_secs(60), Duration::from_secs(10));
        Bounds { clients: 16, line: 64 * 1024, idle, unread, mode: 0o600, group: None }
    }
}

/// A running control socket. Dropping it closes its clients and removes the socket's file.
pub struct Server {
    acceptor: Acceptor<Desk>,
    path: PathBuf,
    /// Device and inode of our file: at the end, another process's file may be at the path.
    file: (u64, u64),
}

struct Desk {
    api: Arc<dyn ControlApi>,
    bounds: Bounds,
}

impl Server {
    /// Creates the socket at `path` and answers there. A socket left by a dead server is replaced; a live one is not,
    /// and nothing other than a socket is touched.
    pub fn start(path: &Path, api: Arc<dyn ControlApi>, bounds: Bounds) -> Result<Server, String> {
        clear(path)?;
        Draft::open(path)?.serve(api, bounds)
    }
}

/// A socket that is to appear at a path, and does not yet.
pub struct Draft {
    listener: UnixListener,
    /// Where it is until then.
    draft: PathBuf,
    path: PathBuf,
}

impl Draft {
    /// Opens the socket, mode 0600: at no moment can others open it than those that `serve` names. What is at the path stays there.
    pub fn open(path: &Path) -> Result<Draft, String> {
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".{}", std::process::id()));
        let draft = PathBuf::from(draft);
        let _ = fs::remove_file(&draft);
        let explain = |error: io::Error| format!("control socket {}: {error}", path.display());
        let listener = UnixListener::bind(&draft).map_err(explain)?;
        let opened = Draft { listener, draft, path: path.to_owned() };
        fs::set_permissions(&opened.draft, Permissions::from_mode(0o600)).map_err(explain)?;
        Ok(opened)
    }

    /// The same if nothing is at the path that must stay.
    pub fn open_clear(path: &Path) -> Result<Draft, String> {
        clear(path)?;
        Draft::open(path)
    }

    /// Puts the socket in its place, whatever is there, and answers.
    pub fn serve(self, api: Arc<dyn ControlApi>, bounds: Bounds) -> Result<Server, String> {
        let explain = |error: io::Error| format!("control socket {}: {error}", self.path.display());
        let given = bounds.group.map_or(Ok(()), |group| give(&self.draft, group));
        given.and_then(|()| fs::set_permissions(&self.draft, Permissions::from_mode(bounds.mode))).map_err(explain)?;
        let file = identity(&self.draft).map_err(explain)?;
        let most = bounds.clients;
        let listener = self.listener.try_clone().map_err(explain)?;
        fs::rename(&self.draft, &self.path).map_err(explain)?;
        let acceptor = Acceptor::start(listener, Desk { api, bounds }, most).map_err(explain)?;
        Ok(Server { acceptor, path: self.path.clone(), file })
    }
}

impl Drop for Draft {
    /// Does nothing once it is in its place.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.draft);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.acceptor.stop();
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            let _ = fs::remove_file(&self.path);
        }
        self.acceptor.clients().hang_up();
    }
}

/// Removes a socket left by a dead server.
fn clear(path: &Path) -> Result<(), String> {
    let name = path.display();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(format!("control socket {name}: {error}")),
        Ok(file) if !file.file_type().is_socket() => {
            Err(format!("control socket {name}: there is something that is not a socket; remove it or name another path"))
        }
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(|error| format!("control socket {name}: {error}"))
            }
            Err(error) => Err(format!("control socket {name}: {error}")),
            Ok(_) => Err(format!("control socket {name}: a server already answers there; stop it or name another path")),
        },
    }
}

/// Gives the file to a group.
fn give(path: &Path, group: u32) -> io::Result<()> {
    chown(path, None, Some(group)).map_err(|error| {
        let hint = "the server's user must be a member of [control] group";
        io::Error::new(error.kind(), format!("cannot be given to the group {group}: {error}; {hint}"))
    })
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

impl Service for Desk {
    type Listener = UnixListener;

    const NAME: &'static str = "control socket";
    const THREAD: &'static str = "control";

    /// Answers lines until the client disconnects, is idle for too long, or violates the limits.
    fn serve(&self, stream: &UnixStream, place: &Place<UnixStream>) -> io::Result<()> {
        stream.set_write_timeout(Some(self.bounds.unread))?;
        let mut reader = BufReader::new(stream);
        let mut out = BufWriter::with_capacity(64 * 1024, stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            match self.read_line(&mut reader, &mut line)? {
                Line::Whole if line.trim_ascii().is_empty() => {}
                Line::Whole => {
                    // A command that has been read is performed, and its client does not give way meanwhile.
                    if !place.set_busy(true) {
                        return Ok(());
                    }
                    let answered = match rpc::answer(&line, &*self.api, &mut out) {
                        Ok(Some(trace)) => follow::serve(trace, stream, &mut out),
                        other => other.map(drop),
                    };
                    place.set_busy(false);
                    answered?;
                    out.flush()?;
                }
                Line::TooLong => {
                    let message = format!("the line is longer than {} bytes", self.bounds.line);
                    log::info!("control socket: refused: {message}");
                    let error = rpc::Error::new(rpc::INVALID_REQUEST, message);
                    rpc::write_error(&mut out, &Value::Null, error)?;
                    return out.flush();
                }
                Line::End => return Ok(()),
            }
        }
    }

    fn turn_away(&self, mut stream: &UnixStream) -> io::Result<()> {
        let message = format!("{} clients are being served already; try again", self.bounds.clients);
        let error = rpc::Error::new(rpc::BUSY, message);
        rpc::write_error(&mut stream, &Value::Null, error)
    }
}

impl Desk {
    /// Reads up to the end of the line, which is not included. The whole line has one deadline, so that sending a byte now and then
    /// does not keep a place.
    fn read_line(&self, reader: &mut BufReader<&UnixStream>, line: &mut Vec<u8>) -> io::Result<Line> {
        let deadline = Instant::now() + self.bounds.idle;
        loop {
            let patience = deadline.saturating_duration_since(Instant::now());
            if patience.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            reader.get_ref().set_read_timeout(Some(patience))?;
            let bytes = match reader.fill_buf() {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if bytes.is_empty() {
                // A line without an end was truncated on its way: performing half a command would be wrong.
                return Ok(Line::End);
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let taken = end.unwrap_or(bytes.len());
            let too_long = line.len() + taken > self.bounds.line;
            if !too_long {
                line.extend_from_slice(bytes.get(..taken).unwrap_or_default());
            }
            let consumed = taken + usize::from(end.is_some());
            reader.consume(consumed);
            if too_long {
                return Ok(Line::TooLong);
            }
            if end.is_some() {
                return Ok(Line::Whole);
            }
        }
    }
}

/// How a line ended.
enum Line {
    Whole,
    TooLong,
    End,
}
