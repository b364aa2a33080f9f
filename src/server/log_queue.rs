//! Log lines on their way to standard error: logging threads append them to a bounded queue, and the queue's own thread writes
//! them.
//!
//! So a reader that has stopped, a full disk or a slow terminal blocks only that thread. Lines that find no room are counted, and a
//! line reports the count as soon as writing works again. Lines are never reordered: a line that finds no room is always the
//! newest.

use super::lock::lock;
use super::log_line;
use log::Level;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that may wait. The thread may hold as many again.
const BYTES: usize = 1 << 20;

/// Of these, the share of lines below warning level: the rest is reserved for warnings and errors.
const BYTES_OF_OTHERS: usize = BYTES / 4 * 3;

/// How long after a failure the next attempt is made.
const RETRY: Duration = Duration::from_secs(1);

/// The same if a non-blocking descriptor accepts nothing for a moment.
const PATIENCE: Duration = Duration::from_millis(20);

/// A queue of bounded size.
pub struct Queue {
    state: Mutex<State>,
    /// There is something to write.
    work: Condvar,
    /// Everything is written.
    rest: Condvar,
    lost: AtomicU64,
    most: usize,
    most_of_others: usize,
    retry: Duration,
}

#[derive(Default)]
struct State {
    text: Vec<u8>,
    /// Lost lines that have not been reported, and why they were lost, if known.
    unreported: u64,
    cause: Option<String>,
    /// Why the last attempt to write failed.
    failure: Option<String>,
    /// The thread waits for work.
    is_asleep: bool,
    /// The thread holds lines that are not written yet.
    is_writing: bool,
}

/// The lines that the thread holds.
struct Chunk {
    text: Vec<u8>,
    /// The number of lost lines that its last line reports.
    reported: u64,
}

impl Queue {
    pub fn new() -> Queue {
        Queue::with(BYTES, BYTES_OF_OTHERS, RETRY)
    }

    fn with(most: usize, most_of_others: usize, retry: Duration) -> Queue {
        let state = State {
            // Reserved now, so that no worker ever allocates; pages that are never touched use no memory.
            text: Vec::with_capacity(most),
            ..State::default()
        };
        Queue {
            state: Mutex::new(state),
            work: Condvar::new(),
            rest: Condvar::new(),
            lost: AtomicU64::new(0),
            most,
            most_of_others,
            retry,
        }
    }

    /// Queues a line, including its line break. It never waits for a device.
    pub fn push(&self, level: Level, line: &[u8]) {
        let most = match level {
            Level::Error | Level::Warn => self.most,
            _ => self.most_of_others,
        };
        let mut state = self.state();
        if state.text.len() + line.len() > most {
            state.unreported += 1;
            if state.cause.is_none() {
                state.cause = state.failure.clone();
            }
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.text.extend_from_slice(line);
        let wakes = std::mem::take(&mut state.is_asleep);
        drop(state);
        if wakes {
            self.work.notify_one();
        }
    }

    /// Returns the number of lines that were not written and never will be.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until everything is written; returns false if that takes longer than `patience`.
    pub fn flush(&self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let mut state = self.state();
        while !state.text.is_empty() || state.is_writing {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.rest.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// The thread's loop: writes what is queued, without end.
    pub fn run(&self, out: &mut dyn Write) -> ! {
        let mut chunk = Chunk { text: Vec::with_capacity(self.most), reported: 0 };
        loop {
            self.take(&mut chunk);
            self.write(&mut chunk, out);
        }
    }

    /// Waits for lines, and takes all that are queued.
    fn take(&self, chunk: &mut Chunk) {
        chunk.text.clear();
        chunk.reported = 0;
        let mut state = self.state();
        state.is_writing = false;
        self.rest.notify_all();
        // Reporting lost lines is worth a separate attempt only while writing works.
        while state.text.is_empty() && (state.unreported == 0 || state.failure.is_some()) {
            state.is_asleep = true;
            let waited = self.work.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        state.is_asleep = false;
        state.is_writing = true;
        std::mem::swap(&mut chunk.text, &mut state.text);
        if state.unreported > 0 {
            let cause = state.cause.take();
            let why = cause.as_deref().unwrap_or("its reader is too slow");
            let lost =
                format_args!("{} lines of the log are lost here: standard error did not take them ({why})", state.unreported);
            log_line::own_line(log_line::format(), Level::Warn, "log", lost, &mut chunk.text);
            chunk.reported = std::mem::take(&mut state.unreported);
        }
    }

    /// Writes the whole chunk, however long that takes, or discards it if no one will ever read it.
    fn write(&self, chunk: &mut Chunk, out: &mut dyn Write) {
        let mut written = 0;
        while let Some(rest) = chunk.text.get(written..)
            && !rest.is_empty()
        {
            let error = match out.write(rest) {
                Ok(0) => io::Error::from(ErrorKind::WriteZero),
                Ok(count) => {
                    written += count;
                    continue;
                }
                Err(error) => error,
            };
            match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock => thread::sleep(PATIENCE),
                // There may be room again: the chunk is kept, and new lines wait behind it.
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                    self.state().failure = Some(error.to_string());
                    thread::sleep(self.retry);
                }
                // The reader is gone.
                _ => {
                    self.lose(chunk, written, &error);
                    return thread::sleep(self.retry);
                }
            }
        }
        self.state().failure = None;
    }

    fn lose(&self, chunk: &Chunk, written: usize, error: &io::Error) {
        let rest = chunk.text.get(written..).unwrap_or_default();
        let lines = memchr::memchr_iter(b'\n', rest).count() as u64;
        // The line that reports lost lines is not itself counted.
        let own = lines - u64::from(chunk.reported > 0 && lines > 0);
        self.lost.fetch_add(own, Ordering::Relaxed);
        let mut state = self.state();
        state.unreported += own + chunk.reported;
        state.failure = Some(error.to_string());
        state.cause = state.failure.clone();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc::{self, Receiver, SyncSender};

    /// What a device answers to each write: everything is taken, or this error; without an answer the write blocks.
    struct Device {
        orders: Receiver<Option<ErrorKind>>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Device {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.orders.recv() {
                Ok(None) => {
                    self.taken.lock().unwrap().extend_from_slice(bytes);
                    Ok(bytes.len())
                }
                Ok(Some(kind)) => Err(kind.into()),
                // The test has ended.
                Err(_) => loop {
                    thread::park();
                },
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Bench {
        queue: Arc<Queue>,
        orders: SyncSender<Option<ErrorKind>>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    const SOON: Duration = Duration::from_secs(20);

    fn bench(most: usize, most_of_others: usize) -> Bench {
        let retry = Duration::from_millis(5);
        let queue = Arc::new(Queue::with(most, most_of_others, retry));
        let (orders, receiver) = mpsc::sync_channel(0);
        let taken = Arc::<Mutex<Vec<u8>>>::default();
        let mut device = Device { orders: receiver, taken: taken.clone() };
        let writer = queue.clone();
        thread::spawn(move || writer.run(&mut device));
        Bench { queue, orders, taken }
    }

    impl Bench {
        /// Pushes a line and waits until the thread holds it.
        fn occupy(&self) {
            self.queue.push(Level::Info, b"first\n");
            while !self.queue.state().text.is_empty() {
                thread::yield_now();
            }
        }

        fn order(&self, order: Option<ErrorKind>) {
            self.orders.send(order).unwrap();
        }

        fn lines(&self) -> Vec<String> {
            let taken = self.taken.lock().unwrap();
            let text = String::from_utf8_lossy(&taken);
            text.lines().map(str::to_owned).collect()
        }
    }

    #[test]
    fn whoever_logs_never_waits_for_the_device_and_the_order_is_kept() {
        let bench = bench(1000, 1000);
        bench.occupy();
        // The device does not return from its first write.
        for number in 0..3 {
            bench.queue.push(Level::Info, format!("{number}\n").as_bytes());
        }
        assert!(!bench.queue.flush(Duration::from_millis(20)));
        bench.order(None);
        bench.order(None);
        assert!(bench.queue.flush(SOON));
        assert_eq!(bench.lines(), ["first", "0", "1", "2"]);
        assert_eq!(bench.queue.lost(), 0);
    }

    #[test]
    fn what_finds_no_room_is_counted_and_reported_where_it_is_missing() {
        let bench = bench(50, 30);
        bench.occupy();
        let ten = b"123456789\n";
        for _ in 0..5 {
            bench.queue.push(Level::Info, ten);
        }
        assert_eq!(bench.queue.lost(), 2);
        // A warning finds the room that is reserved.
        for _ in 0..3 {
            bench.queue.push(Level::Warn, b"warning!!\n");
        }
        assert_eq!(bench.queue.lost(), 3);
        bench.order(None);
        bench.order(None);
        assert!(bench.queue.flush(SOON));
        let lines = bench.lines();
        assert_eq!(lines[1..4], ["123456789"; 3]);
        assert_eq!(lines[4..6], ["warning!!"; 2]);
        assert!(lines[6].contains("3 lines of the log are lost here"));
        // There is room again, and the loss is not reported twice.
        bench.queue.push(Level::Info, b"next\n");
        bench.order(None);
        assert!(bench.queue.flush(SOON));
        assert_eq!(bench.lines()[7..], ["next"]);
    }

    #[test]
    fn a_full_disk_loses_nothing_that_the_queue_holds() {
        let bench = bench(30, 30);
        bench.occupy();
        for _ in 0..3 {
            bench.order(Some(ErrorKind::StorageFull));
        }
        for number in 0..20 {
            bench.queue.push(Level::Error, format!("{number:2}......\n").as_bytes());
        }
        bench.order(None);
        bench.order(None);
        assert!(bench.queue.flush(SOON));
        assert_eq!(bench.queue.lost(), 17);
        let lines = bench.lines();
        let kept: Vec<String> = (0..3).map(|number| format!("{number:2}......")).collect();
        assert_eq!(lines[0], "first");
        assert_eq!(lines[1..4], kept[..]);
        assert!(lines[4].contains("17 lines of the log are lost here"));
        assert!(lines[4].contains("(no storage space)"), "{}", lines[4]);
        assert_eq!(lines.len(), 5);
    }

    #[test]
    fn what_a_reader_that_is_gone_would_have_got_is_lost_once() {
        let bench = bench(1000, 1000);
        bench.occupy();
        bench.order(Some(ErrorKind::BrokenPipe));
        assert!(bench.queue.flush(SOON));
        assert_eq!(bench.queue.lost(), 1);
        // Nothing is tried as long as there is nothing to log.
        thread::sleep(Duration::from_millis(30));
        assert!(bench.orders.try_send(None).is_err());
        for lost in [2, 3] {
            bench.queue.push(Level::Info, b"another\n");
            bench.order(Some(ErrorKind::BrokenPipe));
            assert!(bench.queue.flush(SOON));
            assert_eq!(bench.queue.lost(), lost);
        }
        bench.queue.push(Level::Info, b"heard\n");
        bench.order(None);
        assert!(bench.queue.flush(SOON));
        let lines = bench.lines();
        assert_eq!(lines[0], "heard");
        assert!(lines[1].contains("3 lines of the log are lost here"));
        assert!(lines[1].contains("broken pipe"), "{}", lines[1]);
    }
}
