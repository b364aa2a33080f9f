//! A trace on the control socket: a line for each event as it happens, and the answer after the last.

use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use serde::Serialize;

use super::rpc::{self, Began};
use super::trace::{TraceEvent, Traced};

/// How often the client's presence is checked.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Serialize)]
struct Notification {
    jsonrpc: &'static str,
    method: &'static str,
    params: TraceEvent,
}

/// Writes what arrives until the trace or its client ends. An error means that the client has gone, or does not read.
pub fn serve(began: Began, stream: &UnixStream, out: &mut impl Write) -> io::Result<()> {
    let Began { id, tap } = began;
    log::info!("control socket: a trace begins");
    let mut client = Client::watch(stream)?;
    let mut events = 0;
    loop {
        let batch = tap.take(LOOK);
        for event in &batch.events {
            let line = Notification { jsonrpc: "2.0", method: "trace", params: TraceEvent::of(event) };
            serde_json::to_writer(&mut *out, &line)?;
            out.write_all(b"\n")?;
            events += 1;
        }
        out.flush()?;
        if let Some(end) = batch.end {
            let reason = end.word().to_owned();
            let (lost, forgotten) = (tap.lost(), tap.forgotten());
            drop(tap);
            log::info!("control socket: a trace ends: {reason}, {events} events shown, {lost} lost");
            let Some(id) = id else {
                return Ok(());
            };
            rpc::write_traced(out, &id, Traced { events, lost, forgotten, reason })?;
            return out.flush();
        }
        if client.is_gone()? {
            log::info!("control socket: a trace ends: its client has gone, {events} events shown");
            return Err(io::ErrorKind::BrokenPipe.into());
        }
    }
}

/// Detects whether the client is still there even if nothing is written to it. A client that only has stopped writing, like `socat`
/// at the end of its input, still reads.
struct Client {
    poll: Poll,
    events: Events,
}

impl Client {
    fn watch(stream: &UnixStream) -> io::Result<Client> {
        let poll = Poll::new()?;
        let fd = stream.as_raw_fd();
        poll.registry().register(&mut SourceFd(&fd), Token(0), Interest::READABLE | Interest::WRITABLE)?;
        Ok(Client { poll, events: Events::with_capacity(4) })
    }

    fn is_gone(&mut self) -> io::Result<bool> {
        match self.poll.poll(&mut self.events, Some(Duration::ZERO)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(self.events.iter().any(|event| event.is_write_closed())),
        }
    }
}
