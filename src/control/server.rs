//! The control socket's server: one thread that accepts, one for each of a bounded number of clients.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::guests::{Entered, Guests};
use super::{ControlApi, follow, rpc};
use crate::base::{Instant as Moment, LogBudget};

/// What the control socket takes and how long it waits.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Clients at a time. For a further one the oldest that idles is closed; where none does, it is answered [`rpc::BUSY`] and closed.
    pub clients: usize,
    /// Bytes of a request's line; a longer one is answered and the client closed.
    pub line: usize,
    /// How long a client may take to bring a whole line before it is closed.
    pub idle: Duration,
    /// How long a client may leave an answer unread before it is closed.
    pub unread: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            clients: 16,
            line: 64 * 1024,
            idle: Duration::from_secs(60),
            unread: Duration::from_secs(10),
        }
    }
}

/// A control socket that answers. Dropping it closes its clients and removes the socket's file.
pub struct Server {
    shared: Arc<Shared>,
    path: PathBuf,
    /// Device and inode of our file: what stands at the path at the end may be another's.
    file: (u64, u64),
    accepting: Option<JoinHandle<()>>,
}

/// What the threads share.
struct Shared {
    api: Arc<dyn ControlApi>,
    bounds: Bounds,
    closing: AtomicBool,
    clients: Guests<UnixStream>,
}

impl Server {
    /// Makes the socket at `path`, mode 0600, and answers there. A socket that a dead server left is replaced; one that
    /// somebody answers at is not, and nothing that is not a socket is touched.
    pub fn start(path: &Path, api: Arc<dyn ControlApi>, bounds: Bounds) -> Result<Server, String> {
        let explain = |error: io::Error| format!("control socket {}: {error}", path.display());
        clear(path)?;
        let (listener, file) = bind_private(path).map_err(explain)?;
        let shared = Arc::new(Shared {
            api,
            clients: Guests::new(bounds.clients),
            bounds,
            closing: AtomicBool::new(false),
        });
        let served = Arc::clone(&shared);
        let accepting = thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || served.accept(&listener))
            .map_err(explain)?;
        Ok(Server {
            shared,
            path: path.to_owned(),
            file,
            accepting: Some(accepting),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        let ours = identity(&self.path).is_ok_and(|file| file == self.file);
        // A connection of our own wakes the thread that accepts. Where the file is gone nobody can wake it: it is left
        // to end with the process.
        let woken = ours && UnixStream::connect(&self.path).is_ok();
        if ours {
            let _ = fs::remove_file(&self.path);
        }
        self.shared.clients.hang_up();
        if let (true, Some(accepting)) = (woken, self.accepting.take()) {
            let _ = accepting.join();
        }
    }
}

/// Removes the socket that a dead server left.
fn clear(path: &Path) -> Result<(), String> {
    let name = path.display();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(format!("control socket {name}: {error}")),
        Ok(file) if !file.file_type().is_socket() => Err(format!(
            "control socket {name}: something that is not a socket stands there; remove it or name another path"
        )),
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(|error| format!("control socket {name}: {error}"))
            }
            Err(error) => Err(format!("control socket {name}: {error}")),
            Ok(_) => Err(format!(
                "control socket {name}: a server answers there already; stop it or name another path"
            )),
        },
    }
}

/// A socket that appears at `path` with mode 0600: at no moment may others open it.
fn bind_private(path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", std::process::id()));
    let draft = PathBuf::from(draft);
    let _ = fs::remove_file(&draft);
    let listener = UnixListener::bind(&draft)?;
    let placed = fs::set_permissions(&draft, Permissions::from_mode(0o600))
        .and_then(|()| identity(&draft))
        .and_then(|file| fs::rename(&draft, path).map(|()| file));
    if placed.is_err() {
        let _ = fs::remove_file(&draft);
    }
    placed.map(|file| (listener, file))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

impl Shared {
    fn accept(self: &Arc<Shared>, listener: &UnixListener) {
        let began = Instant::now();
        let mut log = LogBudget::of_limit("clients of the control socket");
        let mut accept_log = LogBudget::of_limit("clients of the control socket that cannot be accepted");
        loop {
            let accepted = listener.accept();
            let now = Moment::from_ms(began.elapsed().as_millis() as u64);
            log.renew(now);
            accept_log.renew(now);
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    if self.closing() {
                        return;
                    }
                    // Out of descriptors, most likely: to try again at once would only burn the core.
                    if accept_log.may_say() {
                        log::warn!("control socket: cannot accept: {error}");
                    }
                    thread::sleep(Duration::from_millis(100));
                    continue;
                }
            };
            if self.closing() {
                return;
            }
            match self.admit(stream) {
                Ok(false) => {}
                Ok(true) if log.may_say() => log::warn!(
                    "control socket: {} clients are being served, which is the limit: one that asked nothing was closed for another",
                    self.bounds.clients
                ),
                Err(error) if log.may_say() => {
                    log::warn!("control socket: cannot serve a client: {error}");
                }
                _ => {}
            }
        }
    }

    fn closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Starts a thread for the client, or turns it away. True: another was closed for it.
    fn admit(self: &Arc<Shared>, stream: UnixStream) -> io::Result<bool> {
        stream.set_write_timeout(Some(self.bounds.unread))?;
        let stream = Arc::new(stream);
        // Whoever may open the socket is one and the same.
        let entered = self.clients.enter(0, &stream);
        let (Entered::Freely(number) | Entered::Instead(number)) = entered else {
            let message = format!("{} clients are being served already; try again", self.bounds.clients);
            let error = rpc::Error::new(rpc::BUSY, message.clone());
            rpc::write_error(&mut &*stream, &Value::Null, error)?;
            return Err(io::Error::other(message));
        };
        // Drop runs even where the API panics, so that a client's place is never lost.
        let place = ClientSlot {
            shared: Arc::clone(self),
            number,
        };
        thread::Builder::new()
            .name("control-client".to_owned())
            .spawn(move || {
                if let Err(error) = place.shared.serve(&stream, number) {
                    log::debug!("control socket: client {number}: {error}");
                }
            })
            .map(|_| matches!(entered, Entered::Instead(_)))
    }

    /// Answers lines until the client goes, is idle for too long, or breaks the bounds.
    fn serve(&self, stream: &UnixStream, number: u64) -> io::Result<()> {
        let mut reader = BufReader::new(stream);
        let mut out = BufWriter::with_capacity(64 * 1024, stream);
        let mut line = Vec::new();
        while !self.closing() {
            line.clear();
            match self.read_line(&mut reader, &mut line)? {
                Line::Whole if line.trim_ascii().is_empty() => {}
                Line::Whole => {
                    // A command that has been taken is performed, and its client gives way to nobody meanwhile.
                    if !self.clients.set_busy(number, true) {
                        return Ok(());
                    }
                    let answered = match rpc::answer(&line, &*self.api, &mut out) {
                        Ok(Some(trace)) => follow::serve(trace, stream, &mut out),
                        other => other.map(drop),
                    };
                    self.clients.set_busy(number, false);
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
        Ok(())
    }

    /// Reads up to and without the end of the line. The whole line has one deadline, so that no client keeps its place
    /// by a byte now and then.
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
                // What has no end of line was cut off on its way: to perform half a command would be wrong.
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

/// A client's place among those served.
struct ClientSlot {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for ClientSlot {
    fn drop(&mut self) {
        self.shared.clients.leave(self.number);
    }
}
