//! `strowger trace`: follows calls through the running server, as a ladder, as text, as JSON or into a capture file.

mod ladder;
mod pcap;
mod show;
mod summary;
mod text;

use super::output::{Outcome, complain};
use super::places::Places;
use clap::Args;
use show::Show;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use strowger::control::{TraceEvent, TraceQuery, Traced};
use strowger::trace::Wanted;
use strowger::trace::visible::write_json;

/// What is followed, and how it is shown.
#[derive(Args)]
pub struct Trace {
    /// Only the call of this Call-ID, which must be the whole one.
    #[arg(long, value_name = "ID", value_parser = call)]
    call: Option<String>,
    /// Only calls whose From, To or Request-URI names this user: 1003, 1003@example.com or sip:1003@example.com.
    #[arg(long, value_name = "AOR", value_parser = user)]
    user: Option<String>,
    /// Only calls of which a message came from this address or went there: 192.0.2.1, 192.0.2.1:5060 or [2001:db8::1]:5060.
    #[arg(long, value_name = "ADDRESS", value_parser = peer)]
    peer: Option<String>,
    /// End after so many seconds, 1 to 3600; 60 if not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: Option<u32>,
    /// End after so many messages, 1 to 1000000; 10000 if not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: Option<u32>,
    /// Write the messages to this file, which Wireshark opens as SIP; "-" is standard output. A file that is there is replaced.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "brief"])]
    pcap: Option<PathBuf>,
    /// Print a line of JSON for each message and each decision.
    #[arg(long, conflicts_with = "brief")]
    json: bool,
    /// Print one line of text for each message, also on a terminal.
    #[arg(long)]
    brief: bool,
}

fn call(text: &str) -> Result<String, String> {
    Wanted::new(Some(text), None, None).map(|_| text.to_owned())
}

fn user(text: &str) -> Result<String, String> {
    Wanted::new(None, Some(text), None).map(|_| text.to_owned())
}

fn peer(text: &str) -> Result<String, String> {
    Wanted::new(None, None, Some(text)).map(|_| text.to_owned())
}

pub fn trace(wanted: &Trace, places: &Places) -> Outcome {
    let mut client = places.connect()?;
    let mut show = wanted.open()?;
    let query = TraceQuery {
        call: wanted.call.clone(),
        user: wanted.user.clone(),
        peer: wanted.peer.clone(),
        seconds: wanted.seconds,
        count: wanted.count,
    };
    let mut failed = None;
    let ended = client.trace(&query, |event| match show.show(&event) {
        Ok(()) => true,
        Err(error) => {
            failed = Some(error);
            false
        }
    })?;
    match (failed, ended) {
        // A reader that goes early, as `head` does, is no failure.
        (Some(error), _) if error.kind() != ErrorKind::BrokenPipe => Err(format!("cannot write to {}: {error}", wanted.target())),
        (None, Some(traced)) => {
            wanted.say_end(&traced);
            Ok(ExitCode::SUCCESS)
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

impl Trace {
    fn open(&self) -> Result<Box<dyn Show>, String> {
        let out = io::stdout();
        let is_terminal = out.is_terminal();
        if let Some(path) = &self.pcap {
            if self.is_to_stdout() && is_terminal {
                return Err("--pcap - writes bytes that are not for a terminal: name a file, or pipe them on".to_owned());
            }
            let opened = match self.is_to_stdout() {
                true => pcap::Pcap::new(Box::new(out)),
                false => pcap::create(path),
            };
            let pcap = opened.map_err(|error| format!("cannot write to {}: {error}", self.target()))?;
            return Ok(Box::new(pcap));
        }
        let out = BufWriter::new(out);
        Ok(match (self.json, self.brief, is_terminal) {
            (true, _, _) => Box::new(Json(out)),
            (false, false, true) => {
                let width = || crossterm::terminal::size().map_or(100, |(columns, _)| usize::from(columns));
                let has_colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
                Box::new(ladder::Ladder::new(out, width, has_colour))
            }
            (false, is_brief, _) => Box::new(text::Text::new(out, is_brief)),
        })
    }

    fn is_to_stdout(&self) -> bool {
        self.pcap.as_ref().is_some_and(|path| path.as_os_str() == "-")
    }

    fn target(&self) -> String {
        match &self.pcap {
            Some(path) if !self.is_to_stdout() => path.display().to_string(),
            _ => "standard output".to_owned(),
        }
    }

    /// What a person should know of the end; scripts only if something is missing.
    fn say_end(&self, traced: &Traced) {
        let Traced { events, lost, forgotten, reason } = traced;
        if *lost > 0 {
            complain(&format!("{lost} more events were lost: they came faster than they were read"));
        }
        if *forgotten > 0 {
            complain(&format!("{forgotten} calls were not followed to their ends: 10000 are followed at a time"));
        }
        if self.pcap.is_some() || io::stderr().is_terminal() {
            let why = match reason.as_str() {
                "time" => "the time is over",
                "count" => "as many messages as asked for",
                "shutdown" => "the server stops",
                other => other,
            };
            complain(&format!("{events} messages and decisions were shown; {why}"));
        }
    }
}

struct Json<W: Write>(W);

impl<W: Write> Show for Json<W> {
    fn show(&mut self, event: &TraceEvent) -> io::Result<()> {
        write_json(&mut self.0, event)?;
        self.0.write_all(b"\n")?;
        self.0.flush()
    }
}
