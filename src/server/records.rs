//! Call records on their way out: workers append lines to a bounded buffer, and a thread writes them to a file or to a Unix
//! datagram socket.
//!
//! No worker waits: lines that find no room are counted. The file is reopened on SIGHUP, so that it can be rotated. While nothing
//! can be written the lines wait, as many as fit, and the log says why, once for each outage.
//!
//! A line is whole in one file: if the disk is full within one, its beginning is cut off again, and it waits as a whole.

use super::lock::lock;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Seek, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use strowger::config::refuse_fifo;
use strowger::settings::{self, RecordsTo};
use strowger::stack::calls::Calls;
use strowger::worker::metrics::RecordNumbers;
use strowger::worker::{Clock, Recording};

/// Bytes of lines that may wait.
const ROOM: usize = 4 << 20;

/// How long after a failure the next attempt is made.
const RETRY: Duration = Duration::from_secs(1);

/// How long the process waits at its end for the last lines.
const LAST_LINES: Duration = Duration::from_secs(2);

/// How long a socket may accept no line before that is a failure.
const SEND: Duration = Duration::from_millis(500);

/// See the module documentation.
pub struct Records {
    to: RecordsTo,
    state: Mutex<State>,
    /// There is something to write.
    work: Condvar,
    /// Everything is written.
    rest: Condvar,
    reopen: AtomicBool,
    /// Records that were taken; those of them that were written; and those that found no room.
    taken: AtomicU64,
    written: AtomicU64,
    lost: AtomicU64,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    is_writing: bool,
}

/// Where the lines go.
enum Sink {
    File(File),
    Socket(UnixDatagram),
}

impl Records {
    /// Opens the destination of the records and starts the thread.
    pub fn start(to: RecordsTo) -> Result<Arc<Records>, String> {
        let records = Arc::new(Records {
            state: Mutex::default(),
            work: Condvar::new(),
            rest: Condvar::new(),
            reopen: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            written: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            to,
        });
        let sink = match (Sink::open(&records.to), &records.to) {
            (Ok(sink), _) => Some(sink),
            (Err(error), RecordsTo::File(path)) => return Err(format!("[records] file: {}: {error}", path.display())),
            // The listener there may start later.
            (Err(error), RecordsTo::Socket(path)) => {
                log::warn!("[records] file: nobody listens at {} as yet ({error}): records wait", path.display());
                None
            }
        };
        let running = records.clone();
        thread::Builder::new()
            .name("records".to_owned())
            .spawn(move || running.run(sink))
            .map_err(|error| format!("the thread of the records: {error}"))?;
        Ok(records)
    }

    /// Takes whole lines. It returns at once.
    pub fn push(&self, lines: &[u8]) {
        let mut state = lock(&self.state);
        if state.lines.len() + lines.len() > ROOM {
            self.lost.fetch_add(count(lines), Ordering::Relaxed);
            return;
        }
        state.lines.extend_from_slice(lines);
        self.taken.fetch_add(count(lines), Ordering::Relaxed);
        drop(state);
        self.work.notify_one();
    }

    /// The file may have been moved away: the next line goes to a file of the original name.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Release);
        self.work.notify_one();
    }

    /// Returns how many records were written, and how many were lost.
    pub fn counts(&self) -> (u64, u64) {
        (self.written.load(Ordering::Relaxed), self.lost.load(Ordering::Relaxed))
    }

    /// Waits until what was pushed is written, but not for long. Returns false on timeout.
    pub fn flush(&self) -> bool {
        let deadline = Instant::now() + LAST_LINES;
        let mut state = lock(&self.state);
        while !state.lines.is_empty() || state.is_writing {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let written = self.written.load(Ordering::Relaxed);
                let left = self.taken.load(Ordering::Relaxed).saturating_sub(written);
                log::warn!("records of calls: {left} are lost at the end: {} did not take them", self.to);
                return false;
            }
            state = self.rest.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn run(&self, mut sink: Option<Sink>) {
        let mut lines = Vec::new();
        let mut is_in_trouble = sink.is_none();
        loop {
            self.wait(&mut lines);
            if self.reopen.swap(false, Ordering::Acquire) {
                // If that fails, the next line says why.
                sink = Sink::open(&self.to).ok();
            }
            let mut rest = &lines[..];
            while !rest.is_empty() {
                let mut taken = 0;
                let written = match &mut sink {
                    Some(sink) => sink.write(rest, &mut taken),
                    None => Sink::open(&self.to).map(|opened| sink = Some(opened)),
                };
                self.written.fetch_add(count(&rest[..taken]), Ordering::Relaxed);
                rest = &rest[taken..];
                match written {
                    Ok(()) if taken == 0 => {}
                    Ok(()) => {
                        if std::mem::take(&mut is_in_trouble) {
                            log::info!("records: {} takes them again", self.to);
                        }
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut is_in_trouble, true) {
                            log::error!("records: {} does not take them: {error}; they wait, up to 4 MiB of them", self.to);
                        }
                        sink = None;
                        thread::sleep(RETRY);
                    }
                }
            }
        }
    }

    /// Takes what is there, or sleeps until there is something.
    fn wait(&self, lines: &mut Vec<u8>) {
        lines.clear();
        let mut state = lock(&self.state);
        state.is_writing = false;
        self.rest.notify_all();
        while state.lines.is_empty() && !self.reopen.load(Ordering::Acquire) {
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(lines, &mut state.lines);
        state.is_writing = !lines.is_empty();
    }
}

/// The calls in progress and the writer of their records.
pub struct Recorder {
    calls: Arc<Calls>,
    records: Arc<Records>,
}

impl Recorder {
    /// Returns `None` if the conf wants no records.
    pub fn open(conf: &settings::Records) -> Result<Option<Recorder>, String> {
        let Some(to) = conf.file.clone() else {
            return Ok(None);
        };
        Ok(Some(Recorder { calls: Arc::new(Calls::new(conf.most)), records: Records::start(to)? }))
    }

    /// What the workers need.
    pub fn recording(&self) -> Recording {
        let records = self.records.clone();
        Recording { calls: self.calls.clone(), sink: Arc::new(move |lines| records.push(lines)) }
    }

    pub fn reopen(&self) {
        self.records.reopen();
    }

    pub fn numbers(&self) -> RecordNumbers {
        let (written, lost) = self.records.counts();
        RecordNumbers { dialogs: self.calls.answered(), written, lost, unrecorded: self.calls.unrecorded() }
    }

    /// Writes what is left once no worker runs any more, including records of calls that are still in progress.
    pub fn close(&self, clock: Clock) {
        self.calls.close(clock.now(), clock.wall_ms(), |lines| {
            self.records.push(lines);
            self.records.flush()
        });
        self.records.flush();
    }
}

impl Sink {
    fn open(to: &RecordsTo) -> io::Result<Sink> {
        match to {
            RecordsTo::File(path) => open_file(path).map(Sink::File),
            RecordsTo::Socket(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_write_timeout(Some(SEND))?;
                Ok(Sink::Socket(socket))
            }
        }
    }

    /// Writes whole lines: to a file all of them, to a socket the first, as a datagram. `taken`: the bytes of those that were written,
    /// also if there is an error.
    fn write(&mut self, lines: &[u8], taken: &mut usize) -> io::Result<()> {
        match self {
            Sink::File(file) => write_lines(file, lines, taken),
            Sink::Socket(socket) => {
                let end = memchr::memchr(b'\n', lines).map_or(lines.len(), |end| end + 1);
                loop {
                    match socket.send(lines.get(..end).unwrap_or(lines)) {
                        Ok(_) => break,
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
                *taken = end;
                Ok(())
            }
        }
    }
}

/// Appends lines. If not all of them find room, the file ends with the last whole one.
fn write_lines(file: &mut File, lines: &[u8], taken: &mut usize) -> io::Result<()> {
    let mut done = 0;
    let outcome = loop {
        match file.write(&lines[done..]) {
            Ok(0) if done < lines.len() => break Err(ErrorKind::WriteZero.into()),
            Ok(more) => done += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
        if done == lines.len() {
            break Ok(());
        }
    };
    *taken = memchr::memrchr(b'\n', &lines[..done]).map_or(0, |end| end + 1);
    if *taken < done {
        // If that fails, the next line begins on a line of its own.
        let _ = cut_off(file, (done - *taken) as u64);
    }
    outcome
}

/// Takes back the last bytes that were written, unless somebody has written after them.
fn cut_off(file: &mut File, bytes: u64) -> io::Result<()> {
    let end = file.stream_position()?;
    match end == file.metadata()?.len() {
        true => file.set_len(end.saturating_sub(bytes)),
        false => Ok(()),
    }
}

/// The file shows who calls whom: only its owner and group may read it. What an earlier run has left of a line stays on its own line.
fn open_file(path: &Path) -> io::Result<File> {
    refuse_fifo(path)?;
    let mut file = OpenOptions::new().create(true).append(true).mode(0o640).open(path)?;
    if ends_within_a_line(path) {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

/// A file that cannot be read is taken to end with a line.
fn ends_within_a_line(path: &Path) -> bool {
    let read = || {
        let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        let last = metadata.len().checked_sub(1)?;
        let mut byte = [0];
        File::open(path).ok()?.read_exact_at(&mut byte, last).ok()?;
        Some(byte[0] != b'\n')
    };
    read().unwrap_or(false)
}

fn count(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn place(name: &str) -> PathBuf {
        let place = std::env::temp_dir().join(format!("strowger-records-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&place);
        place
    }

    #[test]
    fn lines_are_appended_and_a_file_that_was_moved_away_is_made_anew() {
        let (path, moved) = (place("file"), place("moved"));
        let records = Records::start(RecordsTo::File(path.clone())).unwrap();
        records.push(b"1\n2\n");
        assert!(records.flush());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n2\n");
        std::fs::rename(&path, &moved).unwrap();
        records.reopen();
        // What was pushed before the thread has seen the request may go to the old file.
        while records.reopen.load(Ordering::Acquire) {
            thread::sleep(Duration::from_millis(1));
        }
        records.push(b"3\n");
        assert!(records.flush());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "3\n");
        assert_eq!(records.counts(), (3, 0));
        for path in [path, moved] {
            std::fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn a_socket_gets_a_datagram_for_each_line_and_nobody_waits_for_its_reader() {
        let path = place("socket");
        let reader = UnixDatagram::bind(&path).unwrap();
        let records = Records::start(RecordsTo::Socket(path.clone())).unwrap();
        records.push(b"first\nsecond\n");
        let mut line = [0; 64];
        for expected in ["first\n", "second\n"] {
            let len = reader.recv(&mut line).unwrap();
            assert_eq!(&line[..len], expected.as_bytes());
        }
        // It stops reading: the buffer fills, and the excess is counted.
        let began = Instant::now();
        let many = b"x\n".repeat(1 << 18);
        for _ in 0..40 {
            records.push(&many);
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        let (_, lost) = records.counts();
        assert!(lost >= 20 << 18, "{lost}");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_line_that_found_no_room_is_taken_back_and_what_was_left_of_one_stays_alone() {
        let path = place("cut");
        let mut file = open_file(&path).unwrap();
        let mut taken = 0;
        write_lines(&mut file, b"whole\n", &mut taken).unwrap();
        assert_eq!(taken, 6);
        // As a full disk leaves it: the beginning of a line is there.
        file.write_all(b"two\nthr").unwrap();
        cut_off(&mut file, 3).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole\ntwo\n");
        // Somebody else has written: that is not ours to take.
        file.write_all(b"thr").unwrap();
        open_file(&path).unwrap().write_all(b"else\n").unwrap();
        cut_off(&mut file, 3).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole\ntwo\nthr\nelse\n");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error_at_the_start() {
        let error = Records::start(RecordsTo::File("/nonexistent/calls.json".into())).err().unwrap();
        assert!(error.contains("/nonexistent/calls.json"), "{error}");
    }
}
