//! Notifications to the service manager by the protocol of sd_notify(3): that we serve, reload, stop, and are alive. No effect
//! without a manager.

use super::lock::lock;
use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use strowger::net::sys;
use strowger::worker::Pulse;

/// The service manager, if there is one.
pub struct Manager {
    line: Option<Line>,
    /// Another process is the service now, and speaks for it.
    is_succeeded: AtomicBool,
    heart: Option<Mutex<Heart>>,
}

/// The socket of `NOTIFY_SOCKET`.
struct Line {
    socket: UnixDatagram,
    address: SocketAddr,
}

/// When the watchdog is next notified that all workers are running.
struct Heart {
    interval: Duration,
    next: Instant,
    /// A pulse requested from the workers and not yet answered by all. A worker that never answers stops the heartbeat: then the
    /// watchdog acts.
    asked: Option<Pulse>,
}

impl Manager {
    /// Follows `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` (sd_notify(3), sd_watchdog_enabled(3)).
    pub fn from_environment() -> Manager {
        let path = env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty());
        let line = path.and_then(|path| {
            let opened = Line::open(path.as_bytes());
            opened
                .map_err(|error| {
                    log::warn!("the service manager is not notified: NOTIFY_SOCKET: {error}");
                })
                .ok()
        });
        let word = |name| env::var(name).ok();
        let own = std::process::id();
        let interval = watchdog(word("WATCHDOG_USEC"), word("WATCHDOG_PID"), own);
        Manager {
            heart: interval
                .filter(|_| line.is_some())
                .map(|interval| Mutex::new(Heart { interval, next: Instant::now(), asked: None })),
            line,
            is_succeeded: AtomicBool::new(false),
        }
    }

    /// Notifies that all listeners serve; `status` is for people.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// Notifies that another process is the service from now on, and says nothing any more.
    pub fn succeeded_by(&self, process: u32) {
        self.tell(&format!("MAINPID={process}\nREADY=1\nSTATUS=serving"));
        self.is_succeeded.store(true, Ordering::SeqCst);
    }

    /// Notifies that a reload begins. To be followed by [`Manager::ready`], whatever the result.
    pub fn reloading(&self) {
        // The time lets the manager tell this reload from an earlier one (`Type=notify-reload`).
        let now_us = sys::identity::monotonic_us();
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={now_us}\nSTATUS=reloading"));
    }

    /// Notifies that stopping takes `patience` and some more: a manager that would kill us sooner is asked to wait.
    pub fn stopping(&self, status: &str, patience: Duration) {
        let us = (patience + TO_END).as_micros();
        self.tell(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={us}\nSTATUS={status}"));
    }

    /// To be called at least ten times a second. `ask` requests a sign of life from all workers.
    pub fn alive(&self, ask: impl FnOnce() -> Pulse) {
        let Some(heart) = &self.heart else {
            return;
        };
        let mut heart = lock(heart);
        match &mut heart.asked {
            Some(pulse) => {
                if pulse.is_whole() {
                    heart.asked = None;
                    self.tell("WATCHDOG=1");
                }
            }
            None => {
                let now = Instant::now();
                if now >= heart.next {
                    heart.next = now + heart.interval;
                    heart.asked = Some(ask());
                }
            }
        }
    }

    fn tell(&self, words: &str) {
        if let Some(line) = &self.line
            && !self.is_succeeded.load(Ordering::SeqCst)
            && let Err(error) = line.socket.send_to_addr(words.as_bytes(), &line.address)
        {
            log::warn!("the service manager does not listen: {error}");
        }
    }
}

impl Line {
    fn open(path: &[u8]) -> io::Result<Line> {
        let address = match path {
            // An abstract address, not a file.
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
            _ => return Err(io::Error::other("neither a path nor an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that hangs must not make us hang.
        socket.set_nonblocking(true)?;
        Ok(Line { socket, address })
    }
}

/// For what follows the last answer: the last write to disk.
const TO_END: Duration = Duration::from_secs(15);

/// Returns how often the watchdog is to be notified: three times within its timeout, if it watches this process.
fn watchdog(patience_us: Option<String>, of: Option<String>, own: u32) -> Option<Duration> {
    let patience_us: u64 = patience_us?.parse().ok().filter(|us| *us > 0)?;
    if of.is_some_and(|pid| pid.parse() != Ok(own)) {
        return None;
    }
    Some(Duration::from_micros(patience_us) / 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_fed_three_times_in_its_patience() {
        let of = |us: &str, pid: Option<&str>| watchdog(Some(us.to_owned()), pid.map(str::to_owned), 7);
        let ten = Some(Duration::from_secs(10));
        assert_eq!(of("30000000", None), ten);
        assert_eq!(of("30000000", Some("7")), ten);
        for (us, pid) in [("30000000", Some("8")), ("0", None), ("", None), ("x", None)] {
            assert_eq!(of(us, pid), None, "{us} {pid:?}");
        }
        assert_eq!(watchdog(None, None, 7), None);
    }

    #[test]
    fn words_reach_a_path_and_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("strowger-notify-{}", std::process::id());
        let places = [
            (SocketAddr::from_pathname(&path).unwrap(), path.as_os_str().as_bytes().to_vec()),
            (SocketAddr::from_abstract_name(&name).unwrap(), format!("@{name}").into_bytes()),
        ];
        for (address, spelled) in places {
            let manager = UnixDatagram::bind_addr(&address).unwrap();
            let line = Some(Line::open(&spelled).unwrap());
            let told = Manager { line, is_succeeded: AtomicBool::new(false), heart: None };
            told.ready("serving");
            let mut bytes = [0; 100];
            let length = manager.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..length], b"READY=1\nSTATUS=serving");
            told.succeeded_by(7);
            told.ready("said by the wrong one");
            let length = manager.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..length], b"MAINPID=7\nREADY=1\nSTATUS=serving");
            manager.set_nonblocking(true).unwrap();
            assert!(manager.recv(&mut bytes).is_err());
        }
        for wrong in [&b"vsock:2:1234"[..], b"relative"] {
            assert!(Line::open(wrong).is_err());
        }
    }
}
