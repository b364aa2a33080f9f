//! Mail between the cores: a bounded run of letters for each pair, handed over with one lock and at most one wake-up a turn.

use super::link::{Dispatch, Link};
use super::report::{MailCounters, Report};
use crate::base::dns::Answer;
use crate::base::{Errand, Flow, Instant, LogBudget, Outbox, ProvedNames, Span};
use crate::net::Limits;
use crate::net::streams::Description;
use crate::net::tls::Contexts;
use crate::stack::Settings;
use crate::stack::auth::users::Users;
use crate::stack::counterpart::Bequest;
use mio::{Registry, Waker};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What one core sends to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Matter {
    /// A message for the other core to handle, and the flow on which it arrived.
    Message(Errand, Flow),
    /// A message that was not delivered; the core whose transaction sent it should know.
    Undelivered,
    /// A message for a connection of the other core.
    Transmit(Flow),
    /// A connection has ended on which the other core may have sent something.
    Lost(Flow),
    /// Which listeners the successor serves, as pairs of bytes.
    Taken,
}

#[derive(Clone, Copy, Debug)]
pub struct Letter {
    pub matter: Matter,
    /// In [`Letters::bytes`].
    pub span: Span,
}

/// Letters in one contiguous buffer, which is kept when they are cleared.
#[derive(Default)]
pub struct Letters {
    pub bytes: Vec<u8>,
    pub list: Vec<Letter>,
}

impl Letters {
    pub fn get(&self, span: Span) -> &[u8] {
        span.in_text(&self.bytes)
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.list.clear();
    }

    /// Appends a letter; returns false if that would exceed `limit` (in bytes; each letter also counts for its bookkeeping).
    fn push(&mut self, matter: Matter, bytes: &[u8], limit: usize) -> bool {
        if self.weight() + bytes.len() + size_of::<Letter>() > limit {
            return false;
        }
        let span = Span::append(bytes, &mut self.bytes);
        self.list.push(Letter { matter, span });
        true
    }

    fn weight(&self) -> usize {
        self.bytes.len() + self.list.len() * size_of::<Letter>()
    }
}

/// What the rest of the process requests from a core.
pub enum Command {
    /// A new conf, valid for what comes next.
    Configure(Change),
    /// The users. Freeing the previous ones takes a while if there are millions: the sender keeps a reference until every core has
    /// released them.
    Users(Arc<Users>),
    /// Begin no new dialogs.
    Drain,
    /// Send back all connections.
    Connections(Sender<Vec<Description>>),
    /// Send back the counters.
    Report(Sender<Report>),
    /// The result of a question about a name.
    Answer(Box<Answer>),
    /// Send back descriptors of the listeners' sockets.
    Sockets(Sender<(usize, io::Result<Vec<OwnedFd>>)>),
    /// Leave the listeners, and whatever is new, to a successor at the other end of this link; send back what it has to know.
    HandOver(OwnedFd, Sender<io::Result<Estate>>),
    /// Serve again: the successor has not started. What was sent to it is in its end of the link.
    Resume(Option<OwnedFd>, Sender<io::Result<()>>),
    /// The successor serves: leave it for good what it has taken.
    LetGo,
    Stop,
}

/// What one core leaves to a successor.
#[derive(Default)]
pub struct Estate {
    pub rules: Bequest,
    pub connections: Vec<Flow>,
    pub proved: Vec<(Flow, ProvedNames)>,
}

/// What a new conf changes at a core, between two of its turns and all at once.
#[derive(Clone)]
pub struct Change {
    pub settings: Arc<Settings>,
    /// Limits of one core's connections.
    pub connections: Limits,
    /// Certificates and keys, for handshakes that begin from now on.
    pub tls: Option<Arc<Contexts>>,
}

/// All mailboxes of the server: one seat for each core.
pub struct PostOffice {
    seats: Vec<Seat>,
    limit: usize,
}

/// One core's seat. Each part written by another core has its own cache lines.
#[repr(align(128))]
struct Seat {
    /// By sender.
    holes: Vec<Pigeonhole>,
    commands: Mutex<Vec<Command>>,
    commanded: AtomicBool,
    /// True from before the owner's last check of its mailbox until it has woken up: a sender that leaves mail meanwhile must wake
    /// it.
    asleep: AtomicBool,
    waker: Waker,
}

#[repr(align(128))]
#[derive(Default)]
struct Pigeonhole {
    filled: AtomicBool,
    letters: Mutex<Letters>,
}

impl PostOffice {
    /// Creates one seat for each of the wakers; `limit`: bytes that may wait from one core to another.
    pub fn new(wakers: Vec<Waker>, limit: usize) -> PostOffice {
        let cores = wakers.len();
        let seats = wakers.into_iter().map(|waker| Seat {
            holes: (0..cores).map(|_| Pigeonhole::default()).collect(),
            commands: Mutex::default(),
            commanded: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            waker,
        });
        PostOffice { seats: seats.collect(), limit }
    }

    pub fn cores(&self) -> usize {
        self.seats.len()
    }

    /// Gives a core a command. Returns false if there is no such core.
    pub fn command(&self, core: usize, command: Command) -> bool {
        let Some(seat) = self.seats.get(core) else {
            return false;
        };
        lock(&seat.commands).push(command);
        seat.commanded.store(true, Ordering::SeqCst);
        seat.wake();
        true
    }

    /// Wakes the sleeping cores: there is something outside the mail that they check before they sleep again.
    pub fn wake_all(&self) {
        self.seats.iter().for_each(Seat::wake);
    }
}

impl Seat {
    fn wake(&self) {
        if self.asleep.swap(false, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            log::error!("cannot wake a worker: {error}");
        }
    }
}

/// One core's access to the post office: writes to the others, collects its own mail.
pub struct Mailbox {
    office: Arc<PostOffice>,
    core: usize,
    /// Letters of this turn, by recipient.
    outgoing: Vec<Letters>,
    counters: MailCounters,
    log: LogBudget,
    /// Dropped letters that have been logged.
    reported: u64,
    /// To the same core of the other process of a restart.
    link: Option<Box<Link>>,
}

impl Mailbox {
    pub fn new(office: Arc<PostOffice>, core: usize) -> Mailbox {
        Mailbox {
            outgoing: (0..office.cores()).map(|_| Letters::default()).collect(),
            office,
            core,
            counters: MailCounters::default(),
            log: LogBudget::of_limit("full mailboxes"),
            reported: 0,
            link: None,
        }
    }

    /// Joins this core with the same one of the other process, or with none.
    pub fn join(&mut self, link: Option<Link>) -> Option<Box<Link>> {
        std::mem::replace(&mut self.link, link.map(Box::new))
    }

    pub fn link(&mut self) -> Option<&mut Link> {
        self.link.as_deref_mut()
    }

    pub fn is_joined(&self) -> bool {
        self.link.is_some()
    }

    /// True if the other process has sent something that is not read yet.
    pub fn link_has_more(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.has_more())
    }

    /// True if so much waits for the other process that nothing new is to be taken.
    pub fn is_congested(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.is_congested())
    }

    /// Reads what the other process has sent. What is for this core goes into `letters`, whose previous contents are discarded; the
    /// rest is passed on to the other cores. Returns false if there is nothing.
    #[cold]
    pub fn collect_from_link(&mut self, letters: &mut Letters) -> bool {
        let Some(mut link) = self.link.take() else {
            return false;
        };
        letters.clear();
        link.read(|to, letter| self.sort(to, letter, letters));
        self.link = Some(link);
        self.counters.received += letters.list.len() as u64;
        !letters.list.is_empty()
    }

    /// The same for what was sent to a successor that has not started.
    pub fn collect_from_end(&mut self, link: Link, other_end: OwnedFd, letters: &mut Letters) {
        letters.clear();
        link.read_back(other_end, |to, letter| self.sort(to, letter, letters));
    }

    fn sort(&mut self, to: u8, letter: Dispatch, letters: &mut Letters) {
        let (matter, bytes) = match letter {
            Dispatch::Message(errand, flow, bytes) => (Matter::Message(errand, flow), bytes),
            Dispatch::Transmit(flow, bytes) => (Matter::Transmit(flow), bytes),
            Dispatch::Undelivered(bytes) => (Matter::Undelivered, bytes),
            Dispatch::Lost(flow, _) => (Matter::Lost(flow), &[][..]),
            Dispatch::Taken(listeners) => (Matter::Taken, listeners),
        };
        // The other process tells one core of what concerns all.
        if let Matter::Undelivered | Matter::Lost(_) = matter {
            self.put_all(matter, bytes);
        }
        match usize::from(to) == self.core {
            true => _ = letters.push(matter, bytes, usize::MAX),
            false => self.put(usize::from(to), matter, bytes),
        }
    }

    /// Logs now and then that letters were dropped because a recipient does not keep up.
    pub fn tell_losses(&mut self, now: Instant) {
        let dropped = self.counters.dropped_full;
        if dropped == self.reported {
            return;
        }
        self.log.renew(now);
        if self.log.may_say() {
            log::warn!(
                "{} letters from worker {} to others were dropped: too many are waiting already",
                dropped - self.reported,
                self.core
            );
            self.reported = dropped;
        }
    }

    pub fn counters(&self) -> MailCounters {
        self.counters
    }

    /// Announces that the owner is about to sleep. Returns false if there is mail, so that it must not.
    pub fn may_sleep(&self) -> bool {
        let Some(seat) = self.seat() else {
            return true;
        };
        // Announce first, then check; a sender first leaves its mail and then checks for the announcement. In one total order
        // (SeqCst) one of the two sees the other.
        seat.asleep.store(true, Ordering::SeqCst);
        let has_mail = seat.commanded.load(Ordering::SeqCst) || seat.holes.iter().any(|hole| hole.filled.load(Ordering::SeqCst));
        if has_mail {
            self.woke_up();
        }
        !has_mail
    }

    /// Notes that the owner is awake and needs no wake-up.
    pub fn woke_up(&self) {
        if let Some(seat) = self.seat() {
            seat.asleep.store(false, Ordering::Relaxed);
        }
    }

    /// Takes the waiting commands.
    pub fn take_commands(&self) -> Vec<Command> {
        match self.seat() {
            Some(seat) if seat.commanded.swap(false, Ordering::AcqRel) => std::mem::take(&mut *lock(&seat.commands)),
            _ => Vec::new(),
        }
    }

    /// Takes what core `from` has left since the last call into `letters`, whose previous contents are discarded. Returns false if
    /// there is nothing.
    pub fn collect(&mut self, from: usize, letters: &mut Letters) -> bool {
        let Some(hole) = self.seat().and_then(|seat| seat.holes.get(from)) else {
            debug_assert!(false, "there is no core {from}");
            return false;
        };
        if !hole.filled.load(Ordering::Relaxed) || !hole.filled.swap(false, Ordering::AcqRel) {
            return false;
        }
        letters.clear();
        std::mem::swap(letters, &mut *lock(&hole.letters));
        self.counters.received += letters.list.len() as u64;
        true
    }

    fn seat(&self) -> Option<&Seat> {
        let seat = self.office.seats.get(self.core);
        debug_assert!(seat.is_some(), "worker {} has no seat", self.core);
        seat
    }

    /// Returns the core that owns this mailbox.
    pub fn core(&self) -> usize {
        self.core
    }

    pub fn cores(&self) -> usize {
        self.office.cores()
    }

    /// Writes the outbox's parcels; they are sent by [`Mailbox::deliver`].
    pub fn write(&mut self, outbox: &Outbox) {
        for parcel in &outbox.parcels {
            let matter = Matter::Message(parcel.errand, parcel.flow);
            let bytes = outbox.get(parcel.span);
            self.put(parcel.core as usize, matter, bytes);
        }
    }

    /// Tells all other cores that a message was not delivered.
    pub fn write_undelivered(&mut self, sent: &[u8]) {
        self.put_all(Matter::Undelivered, sent);
        self.write_to_link(Dispatch::Undelivered(sent));
    }

    fn write_to_link(&mut self, letter: Dispatch) {
        if let Some(link) = &mut self.link {
            link.write(self.core as u8, letter);
        }
    }

    /// Tells all other cores that a connection has ended. If it takes answers, its peer only sends nothing more.
    pub fn write_lost(&mut self, flow: Flow, takes_answers: bool) {
        self.write_lost_of_others(flow);
        self.write_to_link(Dispatch::Lost(flow, takes_answers));
    }

    /// Tells all other cores of this process that a connection of the other process has ended.
    pub fn write_lost_of_others(&mut self, flow: Flow) {
        self.put_all(Matter::Lost(flow), b"");
    }

    /// Has the core that owns the flow's connection send a message on it.
    pub fn write_transmit(&mut self, flow: Flow, message: &[u8]) {
        self.put(usize::from(flow.core), Matter::Transmit(flow), message);
    }

    fn put_all(&mut self, matter: Matter, bytes: &[u8]) {
        for core in 0..self.outgoing.len() {
            if core != self.core {
                self.put(core, matter, bytes);
            }
        }
    }

    fn put(&mut self, core: usize, matter: Matter, bytes: &[u8]) {
        match self.outgoing.get_mut(core) {
            None => self.put_into_link(core, matter, bytes),
            Some(letters) => match letters.push(matter, bytes, self.office.limit) {
                true => self.counters.sent += 1,
                false => self.counters.dropped_full += 1,
            },
        }
    }

    #[cold]
    fn put_into_link(&mut self, core: usize, matter: Matter, bytes: &[u8]) {
        let to = core - self.outgoing.len();
        let (Some(link), true) = (&mut self.link, to < self.outgoing.len()) else {
            self.counters.dropped_unknown += 1;
            return;
        };
        let letter = match matter {
            Matter::Message(errand, flow) => Dispatch::Message(errand, flow, bytes),
            Matter::Transmit(flow) => Dispatch::Transmit(flow, bytes),
            Matter::Undelivered => Dispatch::Undelivered(bytes),
            Matter::Lost(flow) => Dispatch::Lost(flow, false),
            Matter::Taken => Dispatch::Taken(bytes),
        };
        let dropped = link.dropped();
        link.write(to as u8, letter);
        match link.dropped() - dropped {
            0 => self.counters.sent += 1,
            dropped => self.counters.dropped_full += dropped,
        }
    }

    /// Hands over what was written for the other process since the last call.
    pub fn deliver_to_link(&mut self, registry: &Registry) {
        if let Some(link) = &mut self.link {
            link.deliver(registry);
        }
    }

    /// Hands over what was written since the last call: one lock and at most one wake-up for each recipient.
    pub fn deliver(&mut self) {
        for (seat, letters) in self.office.seats.iter().zip(&mut self.outgoing) {
            if letters.list.is_empty() {
                continue;
            }
            let Some(hole) = seat.holes.get(self.core) else {
                debug_assert!(false, "worker {} has no pigeonhole", self.core);
                continue;
            };
            {
                let mut waiting = lock(&hole.letters);
                if waiting.list.is_empty() {
                    waiting.clear();
                    std::mem::swap(&mut *waiting, letters);
                } else {
                    for letter in &letters.list {
                        let bytes = letters.get(letter.span);
                        if !waiting.push(letter.matter, bytes, self.office.limit) {
                            self.counters.dropped_full += 1;
                            self.counters.sent -= 1;
                        }
                    }
                }
            }
            letters.clear();
            self.counters.deliveries += 1;
            hole.filled.store(true, Ordering::SeqCst);
            seat.wake();
        }
    }
}

/// A thread that panicked while it held the lock left the letters consistent: a push happens completely or not at all.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
