//! The format of a log line: time, level, subject, message and call. It stays one line whatever peers have sent.

use log::{Level, Record};
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use strowger::base::Timestamp;
use strowger::settings::{LogFormat, Words as _};
use strowger::trace::visible;

/// The key under which a line has the Call-ID of the message that it is about.
const CALL_ID: &str = "call_id";

/// The log's names for parts of the server, by the beginning of the module path; the first match counts.
const SUBJECTS: [(&str, &str); 19] = [
    ("strowger::net::tls", "tls"),
    ("strowger::net::sys::ssl", "tls"),
    ("strowger::net", "network"),
    ("strowger::stack::auth", "auth"),
    ("strowger::stack::registrar", "registrar"),
    ("strowger::stack::location", "location"),
    ("strowger::stack::overload", "overload"),
    ("strowger::stack", "routing"),
    ("strowger::store::user", "auth"),
    ("strowger::store", "database"),
    ("strowger::resolver", "dns"),
    ("strowger::control::prometheus", "metrics"),
    ("strowger::control", "control"),
    ("strowger::config", "conf"),
    ("strowger::base", "routing"),
    ("strowger::worker", "worker"),
    ("strowger::server::log", "log"),
    ("strowger", "server"),
    ("hickory", "dns"),
];

/// The format of lines, as its index.
static FORMAT: AtomicUsize = AtomicUsize::new(0);

/// Sets the format of lines from now on.
pub fn set_format(format: LogFormat) {
    let place = LogFormat::WORDS.iter().position(|(_, one)| *one == format);
    FORMAT.store(place.unwrap_or(0), Ordering::Relaxed);
}

/// Returns the format of lines.
pub fn format() -> LogFormat {
    let word = LogFormat::WORDS.get(FORMAT.load(Ordering::Relaxed));
    word.map_or(LogFormat::Text, |(_, format)| *format)
}

/// Returns the subject of a line: its target, or the log's name of the module that logs it.
pub fn subject(target: &str) -> &str {
    let named = SUBJECTS.iter().find(|(path, _)| target.starts_with(path));
    named.map_or(target, |(_, subject)| subject)
}

/// Appends the line of a record with its line break.
pub fn line(format: LogFormat, record: &Record<'_>, out: &mut Vec<u8>) {
    let call_id = record.key_values().get(log::kv::Key::from_str(CALL_ID));
    let call_id = call_id.as_ref().map(|value| value as &dyn fmt::Display);
    write(format, record.level(), subject(record.target()), *record.args(), call_id, out);
}

/// The same for a line that is not from a record.
pub fn own_line(format: LogFormat, level: Level, subject: &str, text: fmt::Arguments<'_>, out: &mut Vec<u8>) {
    write(format, level, subject, text, None, out);
}

fn write(
    format: LogFormat,
    level: Level,
    subject: &str,
    text: fmt::Arguments<'_>,
    call_id: Option<&dyn fmt::Display>,
    out: &mut Vec<u8>,
) {
    // Writing to memory cannot fail.
    let _ = match format {
        LogFormat::Text => write!(out, "[{} {level:<5} {subject}] ", Now),
        LogFormat::Journald => write!(out, "<{}>{subject}: ", priority(level)),
        LogFormat::Json => return write_json(level, subject, text, call_id, out),
    };
    let _ = Visible(out).write_fmt(text);
    if let Some(call_id) = call_id {
        let _ = write!(Visible(out), "; Call-ID {call_id}");
    }
    out.push(b'\n');
}

fn write_json(level: Level, subject: &str, text: fmt::Arguments<'_>, call_id: Option<&dyn fmt::Display>, out: &mut Vec<u8>) {
    let level = level.as_str().to_ascii_lowercase();
    let _ = write!(out, "{{\"time\":\"{Now}\",\"level\":\"{level}\",\"subject\":\"{subject}\",\"message\":");
    let _ = visible::write_json(&mut *out, &text.to_string());
    if let Some(call_id) = call_id {
        out.extend_from_slice(b",\"call_id\":");
        let _ = visible::write_json(&mut *out, &call_id.to_string());
    }
    out.extend_from_slice(b"}\n");
}

/// As in syslog (RFC 5424 §6.2.1) and systemd.
const fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// The current time.
struct Now;

impl fmt::Display for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(since_1970.as_millis() as u64).fmt(f)
    }
}

/// A line may contain what peers sent: that must not begin another line, control a terminal or imitate other fields.
struct Visible<'o>(&'o mut Vec<u8>);

impl fmt::Write for Visible<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(visible::is_deceptive) {
            let (before, after) = rest.split_at(at);
            let mut chars = after.chars();
            self.0.extend_from_slice(before.as_bytes());
            if let Some(control) = chars.next() {
                let _ = write!(self.0, "{}", control.escape_default());
            }
            rest = chars.as_str();
        }
        self.0.extend_from_slice(rest.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(format: LogFormat, target: &str, text: fmt::Arguments<'_>, call_id: Option<&str>) -> String {
        let mut out = Vec::new();
        let pairs = call_id.map(|id| ("call_id", id));
        let mut record = Record::builder();
        record.level(Level::Warn).target(target).key_values(&pairs);
        line(format, &record.args(text).build(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_stays_one_line() {
        let said = |text: fmt::Arguments<'_>, call_id| {
            let line = logged(LogFormat::Text, "here", text, call_id);
            let (time, rest) = line.split_once(' ').unwrap();
            assert!(time.starts_with("[20") && time.ends_with('Z') && time.len() == "[2026-11-29T10:00:00.123Z".len(), "{time}");
            rest.to_owned()
        };
        assert_eq!(said(format_args!("quiet"), None), "WARN  here] quiet\n");
        let user = "a\r\n[forged]\u{1b}[31mé\u{85}\u{202e}";
        assert_eq!(
            said(format_args!("user {user}: {}", 7), Some("x\r\n@y")),
            "WARN  here] user a\\r\\n[forged]\\u{1b}[31mé\\u{85}\\u{202e}: 7; Call-ID x\\r\\n@y\n"
        );
    }

    #[test]
    fn a_line_for_a_program_says_the_same() {
        let user = "a\r\n\"é\u{85}\u{202e}";
        let line = logged(LogFormat::Json, "strowger::stack::auth::guess", format_args!("user {user}"), Some("1@h"));
        let read: serde_json::Value = serde_json::from_str(line.strip_suffix('\n').unwrap()).unwrap();
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert_eq!(read["message"], format!("user {user}"));
        assert!(line.contains("é\\u0085\\u202e"), "{line}");
        assert_eq!((&read["level"], &read["subject"], &read["call_id"]), (&"warn".into(), &"auth".into(), &"1@h".into()));
        assert!(read["time"].as_str().unwrap().ends_with('Z'));
        let without = logged(LogFormat::Json, "strowger", format_args!("up"), None);
        assert!(!without.contains("call_id"), "{without}");
        let journal = logged(LogFormat::Journald, "strowger::net::udp", format_args!("gone\n<0>x"), Some("1"));
        assert_eq!(journal, "<4>network: gone\\n<0>x; Call-ID 1\n");
    }

    #[test]
    fn a_subject_is_a_word() {
        for (target, expected) in [
            ("strowger::net::tls::contexts", "tls"),
            ("strowger::net::streams", "network"),
            ("strowger::stack::auth", "auth"),
            ("strowger::store::user_watcher", "auth"),
            ("strowger::store::journal", "database"),
            ("strowger::server::reload", "server"),
            ("strowger", "server"),
            ("hickory_net::udp", "dns"),
            ("routing", "routing"),
            ("mio::poll", "mio::poll"),
        ] {
            assert_eq!(subject(target), expected, "{target}");
        }
    }
}
