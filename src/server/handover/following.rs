//! The successor once it serves: it opens what the predecessor has closed, and follows what the predecessor says until it ends.

use super::succession::Predecessor;
use super::wire::{Broken, Kind, Receiver};
use super::words::Left;
use crate::server::bindings::UnstartedDisk;
use crate::server::running::RunningServer;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use strowger::share::UnstartedShare;

/// How long the predecessor may take to close its files.
const TO_LEAVE: Duration = Duration::from_secs(30);

/// How long the wire is waited for at a time.
const WAIT: Duration = Duration::from_secs(3600);

/// How long the address of the metrics may take to be free.
const TO_BE_FREE: Duration = Duration::from_secs(3);

/// What cannot be opened before the predecessor has closed it.
pub struct Waiting {
    pub disk: UnstartedDisk,
    pub share: Option<UnstartedShare>,
    /// The database is the predecessor's, and had everything that was handed over.
    pub is_stored: bool,
}

impl RunningServer {
    pub(crate) fn follow(
        self: &Arc<RunningServer>,
        predecessor: Arc<Predecessor>,
        receiver: Receiver,
        waiting: Waiting,
    ) -> Result<(), String> {
        self.succession.set_predecessor(Some(predecessor.clone()));
        let server = self.clone();
        let follow = move || server.follow_until_its_end(&predecessor, receiver, waiting);
        let spawned = thread::Builder::new().name("predecessor".to_owned()).spawn(follow);
        spawned.map(drop).map_err(|error| format!("the handover's thread: {error}"))
    }

    fn follow_until_its_end(self: &Arc<RunningServer>, predecessor: &Predecessor, mut receiver: Receiver, waiting: Waiting) {
        let mut waiting = Some(waiting);
        let until = Instant::now() + TO_LEAVE;
        loop {
            let deadline = match waiting {
                Some(_) => until,
                None => Instant::now() + WAIT,
            };
            match receiver.receive(deadline) {
                Ok(message) => match message.kind {
                    Kind::Left => {
                        let left = message.content().unwrap_or_default();
                        if let Some(waiting) = waiting.take() {
                            self.open_files(left, waiting);
                        }
                    }
                    Kind::Numbers => message.content().into_iter().for_each(|numbers| predecessor.note(numbers)),
                    Kind::Connections => predecessor.answer(message.content().unwrap_or_default()),
                    _ => log::warn!("process {}: {:?} is nothing that a successor is told", predecessor.process, message.kind),
                },
                Err(Broken::Late) => {
                    if let Some(waiting) = waiting.take() {
                        log::error!("process {} has not closed its files: they are opened all the same", predecessor.process);
                        self.open_files(Left { is_stored: false, is_restored: true }, waiting);
                    }
                }
                Err(_) => break,
            }
        }
        if let Some(waiting) = waiting {
            self.open_files(Left { is_stored: false, is_restored: true }, waiting);
        }
        self.succession.set_predecessor(None);
        log::info!("process {}, which served before, has ended", predecessor.process);
    }

    fn open_files(self: &Arc<RunningServer>, left: Left, waiting: Waiting) {
        let Waiting { mut disk, share, is_stored } = waiting;
        let office = self.crew().post_office();
        disk.was_left(left.is_restored, left.is_stored && is_stored);
        let started = self.disk.start(disk, office.clone()).and_then(|()| self.sharing.start(share, office));
        if let Err(error) = started {
            log::error!("{error}: restart");
        }
        self.manager.ready("serving");
        let address = self.current().conf.metrics.address;
        let until = Instant::now() + TO_BE_FREE;
        loop {
            match self.scrape_at(address) {
                Ok(scrape) => return self.set_scrape(scrape),
                Err(_) if Instant::now() < until => thread::sleep(Duration::from_millis(20)),
                Err(error) => return log::error!("{error}: metrics are not served there"),
            }
        }
    }
}
