//! The log, to standard error: its level can be changed while the server runs, no message can pass for several lines, and a thread
//! that logs never waits for the reader.

use super::log_line;
use super::log_queue::Queue;
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::panic::{self, PanicHookInfo};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use strowger::net::sys::identity;
use strowger::settings::{LogFormat, Words};

/// The environment variable of this name takes precedence over the conf.
const VARIABLE: &str = "RUST_LOG";

/// How long the process waits at its end until what is logged is written.
const LAST_LINES: Duration = Duration::from_secs(2);

struct Logger {
    /// By the directives in the environment, which may differ between modules.
    directed: Option<(String, env_logger::Logger)>,
    is_directed: AtomicBool,
    queue: Queue,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

thread_local! {
    /// The line being formatted; kept to reuse its allocation.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Starts logging, at this level unless the environment sets another. From here on the process writes to standard error through a
/// thread that nothing waits for.
pub fn start(level: LevelFilter, format: LogFormat) -> Result<(), String> {
    let directives = std::env::var(VARIABLE).unwrap_or_default();
    let directed = (!directives.trim().is_empty()).then(|| {
        let mut builder = env_logger::Builder::new();
        let logger = builder.filter_level(level).parse_filters(&directives);
        let logger = logger.build();
        (directives, logger)
    });
    let most = directed.as_ref().map_or(level, |(_, logger)| logger.filter());
    let logger = LOGGER.get_or_init(|| Logger { is_directed: AtomicBool::new(directed.is_some()), directed, queue: Queue::new() });
    set_format(format);
    let failed = |error: io::Error| format!("the log's thread: {error}");
    // A separate descriptor: other writers to standard error do not wait for the thread's lock.
    let stderr = io::stderr().as_fd().try_clone_to_owned().map_err(failed)?;
    let write = move || {
        // The thread exists before the process may switch to another user, so it gives up gaining privileges as well.
        let _ = identity::gain_nothing();
        logger.queue.run(&mut File::from(stderr));
    };
    let named = thread::Builder::new().name("log".to_owned());
    named.spawn(write).map_err(failed)?;
    // Fails if another logger is already installed: then the level is that logger's.
    if log::set_logger(logger).is_ok() {
        log::set_max_level(most);
    }
    panic::set_hook(Box::new(report_panic));
    Ok(())
}

/// Logs a thread's panic. The standard library's handler writes to standard error directly, and would wait for its reader.
fn report_panic(info: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let place = info.location().map(ToString::to_string);
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let what = text.unwrap_or("for an unknown reason");
    log::error!(
        "thread {:?} panicked at {}: {what}",
        thread.name().unwrap_or("without a name"),
        place.as_deref().unwrap_or("an unknown place")
    );
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        for line in backtrace.to_string().lines() {
            log::error!("{line}");
        }
    }
    // The process may be about to abort.
    flush();
}

/// Waits until what was logged is written, but not for long.
pub fn flush() {
    if let Some(logger) = LOGGER.get() {
        logger.queue.flush(LAST_LINES);
    }
}

/// Writes one line to standard error unformatted, after what was logged. Failure to write it is ignored.
pub fn complain(line: &dyn fmt::Display) {
    match LOGGER.get() {
        Some(logger) => logger.queue.push(Level::Error, format!("{line}\n").as_bytes()),
        None => {
            let _ = writeln!(io::stderr(), "{line}");
        }
    }
}

/// Returns the number of lines that standard error did not take.
pub fn lost() -> u64 {
    LOGGER.get().map_or(0, |logger| logger.queue.lost())
}

/// Sets the level for all modules from now on; the environment no longer counts.
pub fn set_level(level: LevelFilter) {
    if let Some(logger) = LOGGER.get() {
        logger.is_directed.store(false, Ordering::Relaxed);
    }
    log::set_max_level(level);
}

/// Sets the level from the conf: the environment takes precedence.
pub fn set_level_by_conf(level: LevelFilter) {
    let directed = LOGGER.get().is_some_and(|logger| logger.is_directed.load(Ordering::Relaxed));
    if !directed {
        log::set_max_level(level);
    }
}

/// Sets the format of lines from now on.
pub fn set_format(format: LogFormat) {
    log_line::set_format(format);
}

/// Returns what is in force, as shown to an operator.
pub fn level() -> String {
    match LOGGER.get() {
        Some(Logger { directed: Some((directives, _)), is_directed, .. }) if is_directed.load(Ordering::Relaxed) => {
            format!("{directives} (by {VARIABLE})")
        }
        _ => log::max_level().word().to_owned(),
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        match &self.directed {
            Some((_, logger)) if self.is_directed.load(Ordering::Relaxed) => {
                let subject = log_line::subject(metadata.target());
                logger.enabled(&Metadata::builder().level(metadata.level()).target(subject).build())
            }
            _ => metadata.level() <= log::max_level(),
        }
    }

    fn log(&self, record: &Record<'_>) {
        let is_wanted = match &self.directed {
            Some((_, logger)) if self.is_directed.load(Ordering::Relaxed) => {
                let subject = log_line::subject(record.target());
                logger.matches(&record.to_builder().target(subject).build())
            }
            _ => record.level() <= log::max_level(),
        };
        if !is_wanted {
            return;
        }
        let write = |line: &mut Vec<u8>| {
            line.clear();
            log_line::line(log_line::format(), record, line);
            self.queue.push(record.level(), line);
        };
        // What is logged while a line is being formatted, or at the very end of a thread, gets its own buffer.
        let done = LINE.try_with(|line| line.try_borrow_mut().map(|mut line| write(&mut line)));
        if !matches!(done, Ok(Ok(()))) {
            write(&mut Vec::new());
        }
    }

    fn flush(&self) {
        self.queue.flush(LAST_LINES);
    }
}
