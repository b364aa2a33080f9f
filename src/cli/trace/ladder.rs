//! A trace as a ladder diagram on a terminal: a column for each peer and one for the server, an arrow for each message, text for
//! each decision.

use super::show::{Show, delta, visible};
use super::summary::Summary;
use std::collections::HashMap;
use std::io::{self, Write};
use strowger::base::calendar::civil;
use strowger::control::TraceEvent;

/// Time and elapsed time, at the left.
const LEFT: usize = 22;

/// The narrowest column in which a label can be read.
const NARROWEST: usize = 19;

/// A terminal is drawn for as if it were at least this wide.
const NARROWEST_TERMINAL: usize = LEFT + 2 * 12;

/// The widest column: arrows need not be longer.
const WIDEST: usize = 44;

const RESET: &str = "\u{1b}[0m";

pub struct Ladder<W: Write> {
    out: W,
    /// Asked before each event: a terminal may be resized.
    ask_width: Box<dyn Fn() -> usize>,
    width: usize,
    has_colour: bool,
    /// By column, with the number of the event that used it last. The server's own column follows the first.
    peers: Vec<(String, u64)>,
    events: u64,
    before_us: Option<u64>,
    /// Calls by Call-ID, numbered from 1.
    calls: HashMap<String, usize>,
}

impl<W: Write> Ladder<W> {
    pub fn new(out: W, ask_width: impl Fn() -> usize + 'static, has_colour: bool) -> Ladder<W> {
        Ladder {
            out,
            width: ask_width().max(NARROWEST_TERMINAL),
            ask_width: Box::new(ask_width),
            has_colour,
            peers: Vec::new(),
            events: 0,
            before_us: None,
            calls: HashMap::new(),
        }
    }

    /// Follows the terminal's size. If not all columns fit any more, they begin anew.
    fn fit(&mut self) -> io::Result<()> {
        let width = (self.ask_width)().max(NARROWEST_TERMINAL);
        if width == self.width {
            return Ok(());
        }
        self.width = width;
        if self.peers.len() + 1 > self.most_columns() {
            self.peers.clear();
        }
        match self.peers.is_empty() {
            true => Ok(()),
            false => self.write_heads(),
        }
    }

    /// Returns how many columns fit on the terminal, including the server's.
    fn most_columns(&self) -> usize {
        ((self.width - LEFT) / NARROWEST).max(2)
    }

    fn column_width(&self) -> usize {
        let columns = (self.peers.len() + 1).max(2);
        ((self.width - LEFT) / columns).min(WIDEST)
    }

    /// Returns the position of a column's line.
    fn place(&self, column: usize) -> usize {
        let width = self.column_width();
        LEFT + column * width + width / 2
    }

    /// Returns the server's column.
    fn own(&self) -> usize {
        1.min(self.peers.len())
    }

    /// Returns the column of a peer. True if it is new, and the columns have moved. If there is no room, the peer that was quiet
    /// longest makes way.
    fn column_of(&mut self, peer: &str) -> (usize, bool) {
        self.events += 1;
        let found = self.peers.iter().position(|(name, _)| name == peer);
        let is_new = found.is_none();
        let at = found.unwrap_or_else(|| {
            if self.peers.len() + 1 < self.most_columns() {
                self.peers.push((peer.to_owned(), 0));
                return self.peers.len() - 1;
            }
            let quiet = self.peers.iter().enumerate().min_by_key(|(_, (_, used))| *used);
            let at = quiet.map_or(0, |(at, _)| at);
            self.peers[at].0 = peer.to_owned();
            at
        });
        self.peers[at].1 = self.events;
        (if at == 0 { 0 } else { at + 1 }, is_new)
    }

    /// Returns a row with the vertical lines of the columns.
    fn rails(&self) -> Vec<char> {
        let mut row = vec![' '; self.width];
        for column in 0..=self.peers.len() {
            row[self.place(column)] = '│';
        }
        row
    }

    fn write_heads(&mut self) -> io::Result<()> {
        let mut row = vec![' '; self.width];
        let names = self.peers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        for column in 0..=self.peers.len() {
            let name = match column {
                column if column == self.own() => "strowger",
                0 => &names[0],
                column => &names[column - 1],
            };
            let name = head(name, self.column_width() - 1);
            let start = self.place(column).saturating_sub(name.chars().count() / 2);
            put(&mut row, start, &name);
        }
        let line: String = row.into_iter().collect();
        writeln!(self.out, "{}", line.trim_end())
    }

    /// Announces a new call; returns the call's number if there are several.
    fn call(&mut self, call_id: &str) -> io::Result<Option<usize>> {
        if call_id.is_empty() {
            return Ok(None);
        }
        let next = self.calls.len() + 1;
        let number = match self.calls.get(call_id) {
            Some(number) => *number,
            None => {
                self.calls.insert(call_id.to_owned(), next);
                let line = format!("call {next}: {}", visible(call_id));
                writeln!(self.out, "{}", cut(&line, self.width))?;
                next
            }
        };
        Ok((self.calls.len() > 1).then_some(number))
    }

    fn arrow(&mut self, left: &str, event: &TraceEvent, message: &[u8], call: Option<usize>) -> io::Result<()> {
        let address = if event.is_received() { &event.from } else { &event.to };
        let unknown = "?".to_owned();
        let peer = format!("{} {}", event.transport.as_ref().unwrap_or(&unknown), address.as_ref().unwrap_or(&unknown));
        let (column, is_new) = self.column_of(&peer);
        if is_new {
            self.write_heads()?;
        }
        let (there, here) = (self.place(column), self.place(self.own()));
        let (from, to) = if event.is_received() { (there, here) } else { (here, there) };
        let mut row = self.rails();
        put(&mut row, 0, left);
        let (low, high) = (from.min(to), from.max(to));
        row[low + 1..high].fill('─');
        match from < to {
            true => row[high - 1] = '▶',
            false => row[low + 1] = '◀',
        }
        let summary = Summary::of(message);
        let mark = call.map(|number| format!(" #{number}")).unwrap_or_default();
        let room = (high - low).saturating_sub(5 + mark.len());
        // For a response, the method is left out first.
        let short = match summary.label.chars().count() > room {
            true => summary.label.split(" (").next().unwrap_or_default(),
            false => &summary.label,
        };
        let label = format!(" {}{mark} ", cut(short, room));
        let length = label.chars().count();
        let start = low + 1 + (high - low - 1).saturating_sub(length) / 2;
        put(&mut row, start, &label);
        let text = |part: &[char]| part.iter().collect::<String>();
        let (colour, reset) = match self.has_colour {
            true => (colour_of(summary.class), RESET),
            false => ("", ""),
        };
        let (before, after) = (text(&row[..start]), text(&row[start + length..]));
        writeln!(self.out, "{before}{colour}{label}{reset}{}", after.trim_end())
    }

    fn words(&mut self, left: &str, text: &str, call: Option<usize>) -> io::Result<()> {
        let mark = call.map(|number| format!("#{number} ")).unwrap_or_default();
        let (dim, reset) = if self.has_colour { ("\u{1b}[2m", RESET) } else { ("", "") };
        let room = self.width - LEFT - 4;
        for (number, line) in wrapped(&format!("{mark}{}", visible(text)), room).iter().enumerate() {
            let (left, bullet) = if number == 0 { (left, "·") } else { ("", " ") };
            writeln!(self.out, "{left:<LEFT$}  {bullet} {dim}{line}{reset}")?;
        }
        Ok(())
    }
}

impl<W: Write> Show for Ladder<W> {
    fn show(&mut self, event: &TraceEvent) -> io::Result<()> {
        self.fit()?;
        let call = self.call(&event.call_id)?;
        let [.., hour, minute, second] = civil(event.time_us / 1_000_000);
        let ms = event.time_us / 1000 % 1000;
        let between = delta(self.before_us.replace(event.time_us), event.time_us);
        let left = format!("{hour:02}:{minute:02}:{second:02}.{ms:03} {between:>8}");
        match (event.bytes(), &event.text) {
            (Some(message), _) => self.arrow(&left, event, &message, call)?,
            (None, text) => self.words(&left, text.as_deref().unwrap_or_default(), call)?,
        }
        self.out.flush()
    }
}

/// Colours for requests, provisional, successful and refusing responses.
fn colour_of(class: Option<u8>) -> &'static str {
    match class {
        None => "\u{1b}[36m",
        Some(1) => "\u{1b}[34m",
        Some(2) => "\u{1b}[32m",
        Some(3) => "\u{1b}[33m",
        Some(_) => "\u{1b}[31m",
    }
}

/// Writes text over a row, truncated at the row's end.
fn put(row: &mut [char], start: usize, text: &str) {
    for (place, c) in row.iter_mut().skip(start).zip(text.chars()) {
        *place = c;
    }
}

fn cut(text: &str, most: usize) -> String {
    match text.chars().count() > most {
        true => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

/// Returns the heading of a column. Peers differ most often in their ports, so if there is no room the transport is dropped first,
/// and then the middle of the address.
fn head(peer: &str, most: usize) -> String {
    let length = |text: &str| text.chars().count();
    if length(peer) <= most {
        return peer.to_owned();
    }
    let address = peer.rsplit(' ').next().unwrap_or(peer);
    if length(address) <= most {
        return address.to_owned();
    }
    let port = address.rfind(':').map_or(0, |colon| length(&address[colon..]));
    let kept = most.saturating_sub(1);
    let behind = port.max(kept / 2).min(kept);
    let before = address.chars().take(kept - behind).chain(['…']);
    before.chain(address.chars().skip(length(address) - behind)).collect()
}

/// Breaks text into lines of at most this many characters, at blanks if possible.
fn wrapped(text: &str, most: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        let length = |line: &String| line.chars().count();
        let last = lines.len() - 1;
        if lines[last].is_empty() || length(&lines[last]) + 1 + word.len() <= most {
            if !lines[last].is_empty() {
                lines[last].push(' ');
            }
        } else {
            lines.push(String::new());
        }
        while word.len() > most {
            let rest = word.split_off(most);
            let last = lines.len() - 1;
            lines[last].extend(word);
            lines.push(String::new());
            word = rest;
        }
        let last = lines.len() - 1;
        lines[last].extend(word);
    }
    lines
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Builds a message of call `call`, from or to host 192.0.2.`host`, this many milliseconds after a fixed time.
    pub fn message(ms: u64, is_received: bool, host: &str, text: &str) -> TraceEvent {
        let (peer, own) = (format!("192.0.2.{host}:5060"), "192.0.2.9:5060".to_owned());
        let (kind, from, to) = match is_received {
            true => ("received", peer, own),
            false => ("sent", own, peer),
        };
        TraceEvent {
            time_us: 1_782_864_000_000_000 + ms * 1000,
            core: 0,
            kind: kind.to_owned(),
            call_id: "call".to_owned(),
            transport: Some("udp".to_owned()),
            from: Some(from),
            to: Some(to),
            message: Some(text.to_owned()),
            message_hex: None,
            text: None,
        }
    }

    pub fn decision(ms: u64, text: &str) -> TraceEvent {
        TraceEvent {
            kind: "decision".to_owned(),
            transport: None,
            from: None,
            to: None,
            message: None,
            text: Some(text.to_owned()),
            ..message(ms, true, "1", "")
        }
    }

    fn shown(width: usize, has_colour: bool, events: &[TraceEvent]) -> String {
        let mut ladder = Ladder::new(Vec::new(), move || width, has_colour);
        for event in events {
            ladder.show(event).unwrap();
        }
        String::from_utf8(ladder.out).unwrap()
    }

    fn call() -> Vec<TraceEvent> {
        let invite = "INVITE sip:b@y SIP/2.0\r\nCSeq: 1 INVITE\r\n\r\n";
        let ok = "SIP/2.0 200 OK\r\nCSeq: 1 INVITE\r\n\r\n";
        vec![
            message(0, true, "1", invite),
            decision(1, "location: one binding of bob"),
            message(2, false, "2", invite),
            message(30, true, "2", ok),
            message(31, false, "1", ok),
        ]
    }

    #[test]
    fn a_call_over_two_legs() {
        let expected = "\
call 1: call
                               udp 192.0.2.1:5060                        strowger
00:00:00.000   +0.000                   │───────────── INVITE 1 ────────────▶│
00:00:00.001   +0.001   · location: one binding of bob
                         udp 192.0.2.1:5060            strowger            udp 192.0.2.2:5060
00:00:00.002   +0.001             │                        │─────── INVITE 1 ──────▶│
00:00:00.030   +0.028             │                        │◀─ 200 OK (1 INVITE) ───│
00:00:00.031   +0.001             │◀─ 200 OK (1 INVITE) ───│                        │
";
        let shown = shown(97, false, &call());
        assert_eq!(shown, expected, "\n{shown}");
    }

    #[test]
    fn it_fits_the_width_whatever_comes() {
        for width in [1, 40, 60, 80, 100, 132, 200] {
            let mut events = call();
            for host in 1..9 {
                let mut other =
                    message(40, true, &host.to_string(), &format!("{} sip:x SIP/2.0\r\nCSeq: 5 X\r\n\r\n", "M".repeat(99)));
                other.call_id = format!("call {host}");
                events.push(other);
                events.push(message(50, false, "200", "BYE x SIP/2.0\r\nCSeq: 5 BYE\r\n\r\n"));
            }
            events.push(decision(60, &format!("{} {}", "long ".repeat(40), "w".repeat(300))));
            let text = shown(width, false, &events);
            for line in text.lines() {
                let length = line.chars().count();
                assert!(length <= width.max(LEFT + 24), "{length} of {width}: {line}");
            }
            assert!(text.contains("call 2: call 1") && text.contains('#'), "{text}");
        }
    }

    #[test]
    fn it_follows_the_terminal() {
        let width = std::rc::Rc::new(std::cell::Cell::new(132));
        let asked = width.clone();
        let mut ladder = Ladder::new(Vec::new(), move || asked.get(), false);
        let events = call();
        for (event, now) in events.iter().zip([132, 132, 97, 60, 97]) {
            width.set(now);
            let before = ladder.out.len();
            ladder.show(event).unwrap();
            let text = String::from_utf8(ladder.out[before..].to_vec()).unwrap();
            assert!(text.lines().all(|line| line.chars().count() <= now), "{now}:\n{text}");
        }
        let text = String::from_utf8(ladder.out).unwrap();
        assert_eq!(text.matches("strowger").count(), 6, "heads after each change that leaves columns:\n{text}");
    }

    #[test]
    fn a_head_keeps_the_port() {
        for (most, expected) in [
            (25, "udp 192.168.100.200:50601"),
            (24, "192.168.100.200:50601"),
            (18, "192.168.1…00:50601"),
            (12, "192.1…:50601"),
            (5, "…0601"),
        ] {
            assert_eq!(head("udp 192.168.100.200:50601", most), expected);
        }
        assert_eq!(head("tls [2001:db8::1234:5678:9abc]:5061", 18), "[2001:db8…bc]:5061");
        let mut ladder = Ladder::new(Vec::new(), || 80, false);
        for port in [50601, 50602] {
            let mut event = message(0, true, "1", "BYE x SIP/2.0\r\n\r\n");
            event.from = Some(format!("192.168.100.200:{port}"));
            event.call_id = "long".repeat(30);
            ladder.show(&event).unwrap();
        }
        let text = String::from_utf8(ladder.out).unwrap();
        assert!(text.contains("00:50601 ") && text.contains("00:50602"), "{text}");
        let call = text.lines().next().unwrap();
        assert!(call.chars().count() == 80 && call.starts_with("call 1: long") && call.ends_with('…'), "{call}");
    }

    #[test]
    fn colour_only_if_asked_for() {
        let coloured = shown(97, true, &call());
        assert!(coloured.contains("\u{1b}[36m INVITE 1 \u{1b}[0m") && coloured.contains("\u{1b}[32m 200 OK"));
        assert!(!shown(97, false, &call()).contains('\u{1b}'));
    }
}
