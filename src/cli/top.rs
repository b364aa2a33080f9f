//! `strowger top`: a live screen of the running server, refreshed each interval over its control socket.

use super::output::{Outcome, print};
use super::places::Places;
use super::screen::{self, History, Line, Look, Moment, Piece};
use crossterm::style::{Attribute, Color, Print, ResetColor, SetAttribute, SetForegroundColor};
use crossterm::terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{cursor, execute, queue};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use strowger::control::{Client, Number};

/// How often the terminal's size is looked at, and whether a signal came.
const LOOK: Duration = Duration::from_millis(50);

/// The size of the printed screen if there is no terminal.
const PRINTED: (usize, usize) = (80, 24);

/// Shows one screen after one interval, or a live one if there is a terminal.
pub fn top(interval: Duration, once: bool, places: &Places) -> Outcome {
    let socket = places.control_socket()?;
    if once || !io::stdout().is_terminal() {
        let lines = printed(&socket, interval)?;
        return print(|out| lines.iter().try_for_each(|line| writeln!(out, "{line}")));
    }
    live(&socket, interval)?;
    Ok(ExitCode::SUCCESS)
}

/// Queries one server repeatedly.
struct Asker {
    path: PathBuf,
    began: Instant,
    /// The connection and the version of the server behind it.
    server: Option<(Client, String)>,
}

impl Asker {
    fn new(path: &Path) -> Asker {
        Asker { path: path.to_owned(), began: Instant::now(), server: None }
    }

    /// If the server has gone, reconnects each time.
    fn ask(&mut self) -> Result<Moment, String> {
        let outcome = self.ask_once();
        if outcome.is_err() {
            self.server = None;
        }
        outcome
    }

    fn ask_once(&mut self) -> Result<Moment, String> {
        let server = match &mut self.server {
            Some(server) => server,
            None => {
                let mut client = Client::connect(&self.path)?;
                let version = client.version()?;
                self.server.insert((client, version))
            }
        };
        let (client, version) = server;
        let samples = client.stats("")?;
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        let values: BTreeMap<String, f64> = samples
            .into_iter()
            .map(|sample| match sample.value {
                Number::Count(count) => (sample.name, count as f64),
                Number::Real(real) => (sample.name, real),
            })
            .collect();
        Ok(Moment { at: self.began.elapsed(), wall: wall.unwrap_or_default(), version: version.clone(), values })
    }
}

/// Returns one screen after one interval, as text.
fn printed(path: &Path, interval: Duration) -> Result<Vec<String>, String> {
    let mut asker = Asker::new(path);
    let before = asker.ask()?;
    thread::sleep(interval);
    let now = asker.ask()?;
    let mut history = History::default();
    history.take(&before, &now);
    let mut lines = screen::render(Some(&before), &now, &history, None, PRINTED);
    // No key can be pressed.
    lines.pop();
    Ok(lines.iter().map(Line::text).collect())
}

/// What the live screen waits for.
enum News {
    Answer(Result<Moment, String>),
    /// Of the terminal: what was typed in one go.
    Typed(Vec<u8>),
    /// Nothing will ever be typed again: the terminal is gone.
    Gone,
}

/// Runs the live screen until the operator leaves it, or is gone. A server that is absent at the beginning is an error; one that
/// disappears later is reconnected to.
fn live(path: &Path, interval: Duration) -> Result<(), String> {
    let explain = |error: io::Error| format!("the terminal: {error}");
    let mut asker = Asker::new(path);
    let first = asker.ask()?;
    let told_to_end = end_by_signal().map_err(explain)?;
    let keys = keys().map_err(explain)?;
    let (sender, news) = mpsc::sync_channel(8);
    let terminal = Terminal::enter().map_err(explain)?;
    // The server may take long to answer, and a terminal for ever to be typed at: neither waits for the other.
    let answers = sender.clone();
    let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| thread::Builder::new().name(name.to_owned()).spawn(work).map(drop);
    let outcome = spawn("asker", Box::new(move || go_on_asking(asker, interval, &answers)))
        .and_then(|()| spawn("keys", Box::new(move || read_keys(keys, &sender))))
        .and_then(|()| watch(first, &news, &told_to_end));
    drop(terminal);
    outcome.map_err(explain)
}

/// What is typed: at standard input, or where that is something else, at the terminal of the session.
fn keys() -> io::Result<Box<dyn Read + Send>> {
    match io::stdin().is_terminal() {
        true => Ok(Box::new(io::stdin())),
        false => Ok(Box::new(File::open("/dev/tty")?)),
    }
}

/// A terminal that is gone says end of file, or an error, for ever: one is enough.
fn read_keys(mut keys: Box<dyn Read + Send>, sender: &SyncSender<News>) {
    let mut typed = [0; 64];
    loop {
        let news = match keys.read(&mut typed) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => News::Gone,
            Ok(count) => News::Typed(typed[..count].to_vec()),
        };
        let is_over = matches!(news, News::Gone);
        if sender.send(news).is_err() || is_over {
            return;
        }
    }
}

/// How long the screen may take to end by itself: it may wait for a terminal that takes nothing any more.
const LAST_DRAWING: Duration = Duration::from_millis(500);

/// Has signals end the screen, and soon the process, whatever the screen is doing then.
fn end_by_signal() -> io::Result<Arc<AtomicBool>> {
    let told_to_end = Arc::new(AtomicBool::new(false));
    let told = told_to_end.clone();
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let wait = move || {
        if signals.forever().next().is_some() {
            told.store(true, Ordering::Relaxed);
            thread::sleep(LAST_DRAWING);
            let _ = terminal::disable_raw_mode();
            std::process::exit(1);
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(wait)?;
    Ok(told_to_end)
}

/// Ends when the receiver is gone.
fn go_on_asking(mut asker: Asker, interval: Duration, sender: &SyncSender<News>) {
    loop {
        thread::sleep(interval);
        if sender.send(News::Answer(asker.ask())).is_err() {
            return;
        }
    }
}

fn watch(first: Moment, news: &Receiver<News>, told_to_end: &AtomicBool) -> io::Result<()> {
    let (mut before, mut now, mut note): (Option<Moment>, Moment, Option<String>) = (None, first, None);
    let mut history = History::default();
    let mut size = terminal::size()?;
    draw(before.as_ref(), &now, &history, None, size)?;
    while !told_to_end.load(Ordering::Relaxed) {
        let mut is_stale = true;
        match news.recv_timeout(LOOK) {
            Ok(News::Answer(Ok(moment))) => {
                let last = std::mem::replace(&mut now, moment);
                history.take(&last, &now);
                before = Some(last);
                note = None;
            }
            Ok(News::Answer(Err(why))) => note = Some(why),
            Ok(News::Typed(keys)) if is_farewell(&keys) => return Ok(()),
            Ok(News::Gone) => return Err(io::Error::other("it is gone")),
            Ok(News::Typed(_)) | Err(RecvTimeoutError::Timeout) => is_stale = false,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        let size_now = terminal::size()?;
        if is_stale || size != size_now {
            size = size_now;
            draw(before.as_ref(), &now, &history, note.as_deref(), size)?;
        }
    }
    Ok(())
}

/// q, Ctrl-C, Ctrl-D, or Escape by itself: other keys begin with it.
fn is_farewell(keys: &[u8]) -> bool {
    match keys {
        [0x1b] => true,
        [0x1b, ..] => false,
        keys => keys.iter().any(|key| matches!(key, b'q' | b'Q' | 0x03 | 0x04)),
    }
}

fn draw(before: Option<&Moment>, now: &Moment, history: &History, note: Option<&str>, size: (u16, u16)) -> io::Result<()> {
    let size = (usize::from(size.0), usize::from(size.1));
    let lines = screen::render(before, now, history, note, size);
    let is_coloured = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut out = io::stdout().lock();
    // Lines overwrite the previous ones and are cleared to their ends: nothing flickers.
    for (number, line) in lines.iter().enumerate() {
        let row = u16::try_from(number).unwrap_or(u16::MAX);
        queue!(out, cursor::MoveTo(0, row))?;
        for Piece { text, look } in &line.0 {
            let (colour, is_bold) = match look {
                Look::Plain => (None, false),
                Look::Heading => (None, true),
                Look::Good => (Some(Color::Green), false),
                Look::Alarm => (Some(Color::Red), true),
            };
            if is_bold {
                queue!(out, SetAttribute(Attribute::Bold))?;
            }
            if let Some(colour) = colour.filter(|_| is_coloured) {
                queue!(out, SetForegroundColor(colour))?;
            }
            queue!(out, Print(text), SetAttribute(Attribute::Reset), ResetColor)?;
        }
        // A full line leaves the cursor on its last column, which clearing would take.
        if line.text().chars().count() < size.0 {
            queue!(out, Clear(ClearType::UntilNewLine))?;
        }
    }
    if lines.len() < size.1 {
        queue!(out, cursor::MoveTo(0, u16::try_from(lines.len()).unwrap_or(u16::MAX)), Clear(ClearType::FromCursorDown))?;
    }
    out.flush()
}

/// Holds the terminal's state, which is restored however we end.
struct Terminal;

impl Terminal {
    fn enter() -> io::Result<Terminal> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |what| {
            restore();
            before(what);
        }));
        terminal::enable_raw_mode()?;
        let terminal = Terminal;
        execute!(io::stdout(), EnterAlternateScreen, cursor::Hide, Clear(ClearType::All))?;
        Ok(terminal)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

/// A terminal that is gone cannot be restored.
fn restore() {
    let _ = execute!(io::stdout(), cursor::Show, LeaveAlternateScreen);
    let _ = terminal::disable_raw_mode();
}
