//! A trace as text, for a pipe or a file: a header line for each event, followed by the message.

use super::show::{Show, delta, visible};
use super::summary::Summary;
use std::io::{self, Write};
use strowger::base::calendar::civil;
use strowger::control::TraceEvent;

pub struct Text<W: Write> {
    out: W,
    /// Only the header line is written.
    is_brief: bool,
    before_us: Option<u64>,
}

impl<W: Write> Text<W> {
    pub fn new(out: W, is_brief: bool) -> Text<W> {
        Text { out, is_brief, before_us: None }
    }
}

impl<W: Write> Show for Text<W> {
    fn show(&mut self, event: &TraceEvent) -> io::Result<()> {
        let between = delta(self.before_us.replace(event.time_us), event.time_us);
        write!(self.out, "{} {between:>8} {:<8} ", moment(event.time_us), event.kind)?;
        let Some(bytes) = event.bytes() else {
            writeln!(self.out, "{}", visible(event.text.as_deref().unwrap_or_default()))?;
            return self.out.flush();
        };
        let word = |word: &Option<String>| word.clone().unwrap_or_else(|| "?".to_owned());
        let (transport, from, to) = (word(&event.transport), word(&event.from), word(&event.to));
        let summary = Summary::of(&bytes);
        match self.is_brief {
            // Without the message nothing else identifies the call.
            true => writeln!(self.out, "{transport} {from} -> {to} {} [{}]", summary.label, visible(&event.call_id))?,
            false => {
                writeln!(self.out, "{transport} {from} -> {to} {}", summary.start)?;
                for line in String::from_utf8_lossy(&bytes).split('\n') {
                    let line = format!("    {}", visible(line.trim_end_matches('\r')));
                    writeln!(self.out, "{}", line.trim_end())?;
                }
            }
        }
        self.out.flush()
    }
}

/// Returns date and time in UTC, to the millisecond.
fn moment(time_us: u64) -> String {
    let [year, month, day, hour, minute, second] = civil(time_us / 1_000_000);
    let ms = time_us / 1000 % 1000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::trace::ladder::tests::{decision, message};

    fn text(is_brief: bool) -> String {
        let mut text = Text::new(Vec::new(), is_brief);
        text.show(&message(0, true, "1", "INVITE sip:b@y SIP/2.0\r\nCSeq: 1 INVITE\r\n\r\nbo\u{1b}dy")).unwrap();
        text.show(&decision(5, "route 1")).unwrap();
        text.show(&message(17, false, "2", "SIP/2.0 100 Trying\r\nCSeq: 1 INVITE\r\n\r\n")).unwrap();
        String::from_utf8(text.out).unwrap()
    }

    #[test]
    fn heads_and_messages() {
        assert_eq!(
            text(false),
            "2026-07-01T00:00:00.000Z   +0.000 received udp 192.0.2.1:5060 -> 192.0.2.9:5060 INVITE sip:b@y SIP/2.0\n    \
             INVITE sip:b@y SIP/2.0\n    CSeq: 1 INVITE\n\n    bo\u{fffd}dy\n\
             2026-07-01T00:00:00.005Z   +0.005 decision route 1\n\
             2026-07-01T00:00:00.017Z   +0.012 sent     udp 192.0.2.9:5060 -> 192.0.2.2:5060 SIP/2.0 100 Trying\n    \
             SIP/2.0 100 Trying\n    CSeq: 1 INVITE\n\n\n"
        );
    }

    #[test]
    fn heads_alone() {
        assert_eq!(
            text(true),
            "2026-07-01T00:00:00.000Z   +0.000 received udp 192.0.2.1:5060 -> 192.0.2.9:5060 INVITE 1 [call]\n\
             2026-07-01T00:00:00.005Z   +0.005 decision route 1\n\
             2026-07-01T00:00:00.017Z   +0.012 sent     udp 192.0.2.9:5060 -> 192.0.2.2:5060 100 Trying (1 INVITE) [call]\n"
        );
    }
}
