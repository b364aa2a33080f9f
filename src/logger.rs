//! The log, to standard error: how much is said can be changed while the server runs, and no line can pass for several.

use log::{LevelFilter, Log, Metadata, Record};
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the environment's variable of this name says goes before the conf.
const VARIABLE: &str = "RUST_LOG";

struct Logger {
    /// By the directives in the environment, which may differ from one part of the server to another.
    directed: Option<(String, env_logger::Logger)>,
    is_directed: AtomicBool,
    /// Writes whatever the level lets through.
    plain: env_logger::Logger,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Begins to log, at this level where the environment does not want another.
pub fn start(level: LevelFilter) {
    let directives = std::env::var(VARIABLE).unwrap_or_default();
    let directed = (!directives.trim().is_empty()).then(|| {
        let logger = builder(level).parse_filters(&directives).build();
        (directives, logger)
    });
    let most = directed
        .as_ref()
        .map_or(level, |(_, logger)| logger.filter());
    let logger = LOGGER.get_or_init(|| Logger {
        is_directed: AtomicBool::new(directed.is_some()),
        directed,
        plain: builder(LevelFilter::Trace).build(),
    });
    // It fails where somebody else logs already: then the level is his.
    if log::set_logger(logger).is_ok() {
        log::set_max_level(most);
    }
}

fn builder(level: LevelFilter) -> env_logger::Builder {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(level).format(|out, record| {
        let time = out.timestamp();
        write!(out, "[{time} {:<5} {}] ", record.level(), record.target())?;
        write_line(out, *record.args())
    });
    builder
}

/// What peers sent may stand in a line: a control character in it must not begin another one, nor speak to a terminal.
fn write_line(out: &mut dyn Write, text: fmt::Arguments<'_>) -> io::Result<()> {
    struct Visible<'o>(&'o mut dyn Write, io::Result<()>);

    impl fmt::Write for Visible<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let mut rest = text;
            while let Some(at) = rest.find(char::is_control) {
                let (visible, after) = rest.split_at(at);
                let mut chars = after.chars();
                let escaped = chars.next().map(char::escape_default);
                self.1 = self.0.write_all(visible.as_bytes());
                for c in escaped.into_iter().flatten() {
                    self.1 = self.1.as_ref().map_or(Ok(()), |()| write!(self.0, "{c}"));
                }
                rest = chars.as_str();
            }
            self.1 = self.0.write_all(rest.as_bytes());
            self.1.as_ref().map(|_| ()).map_err(|_| fmt::Error)
        }
    }

    let mut visible = Visible(out, Ok(()));
    match visible.write_fmt(text) {
        Ok(()) => writeln!(visible.0),
        Err(fmt::Error) => visible.1.and(Err(io::ErrorKind::Other.into())),
    }
}

/// Another level from now on, for all parts of the server; the environment's word counts no more.
pub fn set_level(level: LevelFilter) {
    if let Some(logger) = LOGGER.get() {
        logger.is_directed.store(false, Ordering::Relaxed);
    }
    log::set_max_level(level);
}

/// The same because the conf says so: not against the environment.
pub fn set_level_by_conf(level: LevelFilter) {
    let directed = LOGGER
        .get()
        .is_some_and(|logger| logger.is_directed.load(Ordering::Relaxed));
    if !directed {
        log::set_max_level(level);
    }
}

/// What is in force, as an operator reads it.
pub fn level() -> String {
    match LOGGER.get() {
        Some(Logger {
            directed: Some((directives, _)),
            is_directed,
            ..
        }) if is_directed.load(Ordering::Relaxed) => format!("{directives} (by {VARIABLE})"),
        _ => log::max_level().as_str().to_ascii_lowercase(),
    }
}

/// The level of this name, as the conf knows it.
pub fn level_named(name: &str) -> Result<LevelFilter, String> {
    LevelFilter::iter()
        .find(|level| level.as_str().eq_ignore_ascii_case(name))
        .ok_or_else(|| {
            format!("no level {name:?}; there are off, error, warn, info, debug and trace")
        })
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        match &self.directed {
            Some((_, logger)) if self.is_directed.load(Ordering::Relaxed) => {
                logger.enabled(metadata)
            }
            _ => metadata.level() <= log::max_level(),
        }
    }

    fn log(&self, record: &Record<'_>) {
        match &self.directed {
            Some((_, logger)) if self.is_directed.load(Ordering::Relaxed) => logger.log(record),
            _ if record.level() <= log::max_level() => self.plain.log(record),
            _ => {}
        }
    }

    fn flush(&self) {
        self.plain.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line() {
        let said = |text: fmt::Arguments<'_>| {
            let mut out = Vec::new();
            write_line(&mut out, text).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(said(format_args!("quiet")), "quiet\n");
        let user = "a\r\n[forged]\u{1b}[31mé\u{85}";
        assert_eq!(
            said(format_args!("user {user}: {}", 7)),
            "user a\\r\\n[forged]\\u{1b}[31mé\\u{85}: 7\n"
        );
    }

    #[test]
    fn levels_have_the_names_of_the_conf() {
        assert_eq!(level_named("debug"), Ok(LevelFilter::Debug));
        assert_eq!(level_named("off"), Ok(LevelFilter::Off));
        assert!(level_named("loud").unwrap_err().contains("there are off"));
    }
}
