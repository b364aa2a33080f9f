//! The lines on standard output that say where the server listens.

use super::running::RunningServer;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use strowger::config::Conf;
use strowger::settings::Words;

/// How long startup waits for standard output.
const ANNOUNCEMENT: Duration = Duration::from_millis(500);

impl RunningServer {
    /// Writes one line for each listener to standard output, now that it serves. It serves even if no one reads them.
    pub fn announce(&self, conf: &Conf) {
        let mut lines = String::new();
        for (listen, address) in conf.listen.iter().zip(self.crew().addresses()) {
            lines += &format!("listening {} {address}\n", listen.transport.word());
        }
        let (done, outcome) = mpsc::channel();
        // A pipe without a reader may be full already: then only this thread waits.
        let write = move || {
            let stdout = io::stdout().as_fd().try_clone_to_owned();
            let _ = done.send(stdout.and_then(|out| File::from(out).write_all(lines.as_bytes())));
        };
        let spawned = thread::Builder::new().name("announce".to_owned()).spawn(write);
        let outcome = match spawned {
            Ok(_) => outcome.recv_timeout(ANNOUNCEMENT),
            Err(error) => Ok(Err(error)),
        };
        let failure = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "its reader takes nothing".to_owned(),
        };
        log::warn!("standard output did not take the lines that name the listeners ({failure}); they serve all the same");
    }
}
