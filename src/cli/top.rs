//! `strowger top`: a live screen of the running server, refreshed each interval over its control socket.

use super::output::{Outcome, print};
use super::places::Places;
use super::screen::{self, Line, Look, Moment};
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::style::{Attribute, Color, Print, ResetColor, SetAttribute, SetForegroundColor};
use crossterm::terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{cursor, execute, queue};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use strowger::control::{Client, Number};

/// How often keys are polled.
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
    let (width, height) = PRINTED;
    let mut lines = screen::render(Some(&before), &now, None, width, height);
    // No key can be pressed.
    lines.pop();
    Ok(lines.into_iter().map(|line| line.text).collect())
}

/// Runs the live screen until the operator leaves it. A server that is absent at the beginning is an error; one that disappears
/// later is reconnected to.
fn live(path: &Path, interval: Duration) -> Result<(), String> {
    let explain = |error: io::Error| format!("the terminal: {error}");
    let mut asker = Asker::new(path);
    let first = asker.ask()?;
    let told_to_end = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, told_to_end.clone()).map_err(explain)?;
    }
    // The server may take long to answer; the keys must not wait for it.
    let (sender, answers) = mpsc::sync_channel(1);
    thread::Builder::new().name("asker".to_owned()).spawn(move || go_on_asking(asker, interval, &sender)).map_err(explain)?;
    let terminal = Terminal::enter().map_err(explain)?;
    let outcome = watch(first, &answers, &told_to_end);
    drop(terminal);
    outcome.map_err(explain)
}

/// Ends when the receiver is gone.
fn go_on_asking(mut asker: Asker, interval: Duration, sender: &SyncSender<Result<Moment, String>>) {
    loop {
        thread::sleep(interval);
        if sender.send(asker.ask()).is_err() {
            return;
        }
    }
}

fn watch(first: Moment, answers: &Receiver<Result<Moment, String>>, told_to_end: &AtomicBool) -> io::Result<()> {
    let (mut before, mut now, mut note): (Option<Moment>, Moment, Option<String>) = (None, first, None);
    draw(before.as_ref(), &now, None)?;
    while !told_to_end.load(Ordering::Relaxed) {
        let mut is_stale = false;
        match answers.recv_timeout(LOOK) {
            Ok(Ok(moment)) => {
                before = Some(std::mem::replace(&mut now, moment));
                note = None;
                is_stale = true;
            }
            Ok(Err(why)) => {
                note = Some(why);
                is_stale = true;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        while event::poll(Duration::ZERO)? {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                    KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                        return Ok(());
                    }
                    _ => {}
                },
                Event::Resize(..) => is_stale = true,
                _ => {}
            }
        }
        if is_stale {
            draw(before.as_ref(), &now, note.as_deref())?;
        }
    }
    Ok(())
}

fn draw(before: Option<&Moment>, now: &Moment, note: Option<&str>) -> io::Result<()> {
    let (width, height) = terminal::size()?;
    let lines = screen::render(before, now, note, usize::from(width), usize::from(height));
    let mut out = io::stdout().lock();
    // Lines overwrite the previous ones and are cleared to their ends: nothing flickers.
    queue!(out, cursor::MoveTo(0, 0))?;
    for (number, Line { text, look }) in lines.iter().enumerate() {
        let row = u16::try_from(number).unwrap_or(u16::MAX);
        queue!(out, cursor::MoveTo(0, row))?;
        match look {
            Look::Plain => {}
            Look::Heading => queue!(out, SetAttribute(Attribute::Bold))?,
            Look::Alarm => queue!(out, SetAttribute(Attribute::Bold), SetForegroundColor(Color::Red))?,
        }
        queue!(out, Print(text), SetAttribute(Attribute::Reset), ResetColor, Clear(ClearType::UntilNewLine))?;
    }
    queue!(out, Clear(ClearType::FromCursorDown))?;
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
