//! The loop: one worker per core; everything that happens on that core happens in its [`Worker::tick`].

mod clock;
mod crew;
mod delay;
mod gate;
mod handover;
mod held;
mod leaving;
mod legacy;
mod link;
pub mod mailbox;
pub mod metrics;
mod pace;
mod pulse;
mod report;
mod tapping;
#[cfg(test)]
mod tests;
mod turns;

pub use clock::{Clock, Reading};
pub use crew::{Bound, Crew, Options, Recording, Stats, bind};
pub use handover::Remaining;
pub use legacy::{Inherited, Legacy};
pub use link::links;
pub use mailbox::Change;
pub use pulse::Pulse;
pub use report::{Numbers, Report};

use crate::base::dns::{Answer, Failure, Outcome};
use crate::base::{Channel, Flow, Id, Instant, LiveConnections, Outbox};
use crate::net::{Arrival, Undelivered, Wires, sys};
use crate::resolver::Asker;
use crate::stack::registrar::unstored;
use crate::stack::{Element, Endpoint};
use crate::trace::Taps;
use delay::Histogram;
use gate::{Gate, Passage};
use held::{Fate, Held};
use mailbox::{Command, Letters, Mailbox, Matter};
use mio::{Events, Poll, Token};
use pace::Pace;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use turns::Turns;

/// The waker's token; the listeners have those from 0.
const WAKER: Token = Token(usize::MAX);

/// The link with the other process of a restart.
const LINK: Token = Token(usize::MAX - 1);

/// How long nothing is taken from the sockets before the link is tried again, in milliseconds.
const CONGESTED_MS: u64 = 1;

/// Events taken from one poll; any more come with the next.
const EVENTS: usize = 256;

/// The wires are flushed within a turn if this much waits in the outbox.
const FLUSH_BYTES: usize = 1 << 20;

/// Held answers sent in one turn. A batch of the journal frees hundreds at once: this lets the next turn check for input first, and
/// floods no socket.
const FREED_PER_TURN: usize = 64;

/// Waiting messages handled in one turn, if everything that had arrived was taken; and if not, as a fraction of the datagrams taken in
/// it. A call is five messages or so, so the latter keep calls waiting only in a flood of what goes first.
const ADMITTED: usize = 16;
const ADMITTED_PART: usize = 32;

/// One core's loop. Owns its sockets, its element and its timers; shares the location service and the post office.
pub struct Worker<E: Element = Endpoint> {
    /// The worker's number, from 0.
    core: usize,
    poll: Poll,
    events: Events,
    clock: Clock,
    /// When the last turn ended.
    last: Reading,
    /// Grid, in milliseconds, on which timers are checked if nothing else wakes us.
    timer_grid_ms: u64,
    pace: Pace,
    wires: Wires,
    gate: Gate,
    taps: Arc<Taps>,
    mailbox: Mailbox,
    /// Knows the connections of the other process of a restart too.
    live: Arc<LiveConnections>,
    /// What the successor serves, once that is known, and whether it is left to it for good.
    taken: Option<Vec<u16>>,
    has_let_go: bool,
    /// Takes questions about names.
    asker: Option<Asker>,
    /// Mail being processed; empty between two turns, kept to reuse its allocation.
    letters: Letters,
    element: E,
    outbox: Outbox,
    /// Undelivered messages being processed; empty between two turns, kept to reuse their allocation.
    undelivered: Undelivered,
    /// Connections being served, and flows that have ended; empty between two turns, kept to reuse their allocations.
    streams: Vec<Id>,
    lost: Vec<Flow>,
    held: Held,
    /// The held answer being sent; kept to reuse its allocation.
    answer: Vec<u8>,
    /// Notifies the journal that an answer waits for it.
    ring: Option<WakeHandle>,
    /// Takes call records.
    records: Option<RecordSink>,
    delay: Histogram,
    turns: u64,
    tell_time_at: Instant,
    long: Turns,
    is_stopped: bool,
    /// Datagrams taken in this turn.
    taken_in: usize,
}

/// Called by a worker when an answer waits for the disk. It must return at once.
pub type WakeHandle = Arc<dyn Fn() + Send + Sync>;

/// Called by a worker with the records of finished calls, whole lines. It must return at once.
pub type RecordSink = Arc<dyn Fn(&[u8]) + Send + Sync>;

impl<E: Element> Worker<E> {
    /// Creates a worker that has not run yet. `wires` must be registered with `poll`, and so must this core's waker.
    pub fn new(
        poll: Poll,
        wires: Wires,
        mailbox: Mailbox,
        live: Arc<LiveConnections>,
        element: E,
        clock: Clock,
        options: &Options,
    ) -> Worker<E> {
        let core = mailbox.core();
        Worker {
            core,
            poll,
            events: Events::with_capacity(EVENTS),
            clock,
            last: clock.read(),
            timer_grid_ms: options.timer_grid_ms.max(1),
            pace: Pace::new(options.udp.gather),
            wires,
            gate: Gate::new(options.sources.clone()),
            taps: options.taps.clone(),
            mailbox,
            live,
            taken: None,
            has_let_go: false,
            asker: options.asker.clone(),
            letters: Letters::default(),
            element,
            outbox: Outbox::default(),
            undelivered: Undelivered::default(),
            streams: Vec::new(),
            lost: Vec::new(),
            held: Held::new(options.held),
            answer: Vec::new(),
            ring: options.ring.clone(),
            records: options.recording.as_ref().map(|recording| recording.sink.clone()),
            delay: Histogram::default(),
            turns: 0,
            tell_time_at: Instant::default(),
            long: Turns::new(core),
            is_stopped: false,
            taken_in: 0,
        }
    }

    /// Runs until it is told to stop; an error comes from the poll itself.
    pub fn run(&mut self) -> io::Result<()> {
        while !self.is_stopped {
            self.tick()?;
        }
        Ok(())
    }

    /// Runs one turn of the loop. Everything that happens on this core happens here, in this order.
    pub fn tick(&mut self) -> io::Result<()> {
        self.wait()?; // the only place where we sleep
        let start = self.clock.read(); // time is read once for the rules
        let now = start.instant();
        self.tell_time(now);
        self.outbox.is_traced = self.taps.is_open(); // does somebody follow calls?
        self.note_events(now);
        self.check();
        if !self.mailbox.is_congested() {
            self.receive(now); // a bounded bite from each ready socket
            self.receive_streams(now); // and from each ready connection
            self.admit(now); // what had to wait for that, during overload
        }
        self.element.handle_load(now, self.wires.load(now)); // is it too much?
        self.wires.shed(self.element.shed(), now); // what the kernel is to drop
        self.collect_mail(now); // from the other cores
        self.report_losses(now); // what did not arrive, and who is gone
        self.element.handle_timers(now, &mut self.outbox);
        if self.element.take_freed() | self.wires.take_freed() {
            crate::net::sys::return_free_memory(); // after a peak, in some milliseconds
        }
        self.wires.sweep(now); // connections that are overdue: O(expired)
        self.free_held(now); // answers that waited for the disk
        self.flush(now); // one batch for each listener, one write for each connection, one delivery for each core
        self.check();
        self.take_commands(now); // settings, statistics, the resolver's answers, the end
        self.last = self.clock.read();
        self.pace.turn(start, self.last);
        self.delay.record(self.last.ns - start.ns);
        self.long.end(start, self.last);
        self.turns += 1;
        Ok(())
    }

    /// Checks, in tests, what must hold before and after the work of a turn.
    fn check(&self) {
        #[cfg(all(test, debug_assertions))]
        self.wires.check();
    }

    fn wait(&mut self) -> io::Result<()> {
        if let Some(time) = self.pace.sleep()
            && !self.wires.has_more()
            && !self.element.has_waiting()
        {
            // Messages arrive so fast that waking up for each would not pay.
            std::thread::sleep(time);
        }
        let patience = self.patience();
        let polled = self.poll.poll(&mut self.events, patience);
        self.mailbox.woke_up();
        match polled {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn note_events(&mut self, now: Instant) {
        for event in &self.events {
            match event.token() {
                WAKER => {}
                LINK => _ = self.mailbox.link().map(|link| link.note(event)),
                _ => self.wires.note(event, now),
            }
        }
    }

    /// Returns how long the poll may sleep: not at all while work is left over, otherwise until the next timer, otherwise
    /// indefinitely.
    ///
    /// A wake-up costs more than most messages, and most timers only forget a finished transaction; so expiries are gathered on a
    /// grid, unless a message wakes us first.
    fn patience(&self) -> Option<Duration> {
        let is_congested = self.mailbox.is_congested();
        let has_more = (self.wires.has_more() || self.element.has_waiting()) && !is_congested || self.mailbox.link_has_more();
        if has_more || !self.mailbox.may_sleep() || self.has_due_held() {
            return Some(Duration::ZERO);
        }
        if is_congested {
            return Some(Duration::from_millis(CONGESTED_MS));
        }
        let due = [self.element.next_timeout(), self.element.next_load(), self.wires.next_timeout(), self.held.next_timeout()];
        let due = due.into_iter().flatten().min()?;
        let on_grid = due.as_ms().checked_next_multiple_of(self.timer_grid_ms)?;
        let due_ns = on_grid.checked_mul(1_000_000)?;
        Some(Duration::from_nanos(due_ns.saturating_sub(self.last.ns)))
    }

    fn receive(&mut self, now: Instant) {
        self.taken_in = 0;
        for position in 0..self.wires.ready() {
            let (listener, count) = self.wires.receive(position, now);
            self.pace.count(count);
            self.taken_in += count;
            for number in 0..count {
                if let Some(datagram) = self.wires.datagram(number) {
                    self.long.note(datagram.peer, datagram.bytes);
                    let flow = Flow::datagram(listener, datagram.peer).from_local(datagram.local);
                    let (bytes, element) = (datagram.bytes, &mut self.element);
                    let bears = |question| element.bears(now, flow, bytes, question);
                    let passage = self.gate.passage(now, &flow, bytes, bears);
                    let outbox = &mut self.outbox;
                    if outbox.is_traced {
                        let own = self.wires.own_address(&flow);
                        tapping::received(&self.taps, self.core, &flow, own, bytes, passage);
                    }
                    if passage != Passage::Open {
                        continue;
                    }
                    self.element.handle(now, flow, bytes, outbox);
                    tapping::words(&self.taps, self.core, outbox);
                }
                self.flush_if_heavy(now);
            }
        }
        self.wires.settle();
    }

    /// Handles some of the messages that the element has put aside: a few if everything that had arrived was taken, fewer if not, but
    /// never none, or a flood of what goes first would keep them waiting for ever.
    fn admit(&mut self, now: Instant) {
        if !self.element.has_waiting() {
            return;
        }
        let most = match self.wires.is_behind() {
            true => (self.taken_in / ADMITTED_PART).max(1),
            false => ADMITTED,
        };
        for _ in 0..most {
            if !self.element.handle_waiting(now, &mut self.outbox) {
                break;
            }
            tapping::words(&self.taps, self.core, &mut self.outbox);
            self.flush_if_heavy(now);
        }
    }

    fn receive_streams(&mut self, now: Instant) {
        let mut streams = std::mem::take(&mut self.streams);
        self.wires.take_ready_streams(&mut streams, now);
        let mut served = 0;
        for id in &streams {
            if self.wires.is_sated() {
                break;
            }
            served += 1;
            let (element, outbox, pace) = (&mut self.element, &mut self.outbox, &mut self.pace);
            let (gate, long, mut is_banned) = (&mut self.gate, &mut self.long, false);
            let (taps, core, is_traced) = (&self.taps, self.core, outbox.is_traced);
            let own = is_traced.then(|| self.wires.address_of_stream(*id)).flatten();
            let mut is_open = |flow: &Flow, bytes: &[u8]| {
                let passage = gate.passage(now, flow, bytes, |_| false);
                is_banned |= passage == Passage::Closed;
                if is_traced {
                    tapping::received(taps, core, flow, own, bytes, passage);
                }
                passage == Passage::Open
            };
            self.wires.receive_stream(*id, now, |flow, arrival| match arrival {
                Arrival::Message(bytes) => {
                    pace.count(1);
                    long.note(flow.peer, bytes);
                    is_open(&flow, bytes) && element.handle(now, flow, bytes, outbox)
                }
                // A ping counts against its sender like a request.
                Arrival::KeepAlive => is_open(&flow, b"\r\n\r\n"),
                Arrival::Unframed(bytes, fault) => {
                    is_open(&flow, bytes) && element.handle_unframed(now, flow, bytes, fault, outbox)
                }
            });
            if is_banned {
                self.wires.shut_out(*id, now);
            }
            tapping::words(&self.taps, self.core, &mut self.outbox);
            self.flush_if_heavy(now);
        }
        streams.drain(..served);
        self.wires.put_back_streams(&mut streams);
        streams.clear();
        self.streams = streams;
    }

    fn report_losses(&mut self, now: Instant) {
        if self.wires.has_undelivered() {
            self.wires.take_undelivered(&mut self.undelivered);
            for sent in self.undelivered.iter() {
                if self.outbox.is_traced {
                    tapping::undelivered(&self.taps, self.core, sent);
                }
                self.element.handle_undelivered(now, sent, &mut self.outbox);
                self.mailbox.write_undelivered(sent);
            }
        }
        if self.wires.has_lost() {
            let mut lost = std::mem::take(&mut self.lost);
            self.wires.take_lost(&mut lost);
            for flow in lost.drain(..) {
                self.element.handle_flow_lost(now, flow, &mut self.outbox);
                if let Channel::Connection { .. } = flow.channel {
                    self.mailbox.write_lost(flow, self.live.takes_answers(&flow));
                }
            }
            self.lost = lost;
        }
    }

    fn collect_mail(&mut self, now: Instant) {
        let mut letters = std::mem::take(&mut self.letters);
        for from in 0..self.mailbox.cores() {
            if !self.mailbox.collect(from, &mut letters) {
                continue;
            }
            self.process(now, &letters);
        }
        if self.mailbox.is_joined() {
            self.collect_from_link(now, &mut letters);
        }
        self.letters = letters;
    }

    fn process(&mut self, now: Instant, letters: &Letters) {
        self.pace.count(letters.list.len());
        for letter in &letters.list {
            let (bytes, outbox) = (letters.get(letter.span), &mut self.outbox);
            match letter.matter {
                Matter::Message(errand, flow) => {
                    self.long.note(flow.peer, bytes);
                    self.element.handle_mail(now, errand, flow, bytes, outbox);
                }
                Matter::Undelivered => self.element.handle_undelivered(now, bytes, outbox),
                Matter::Transmit(flow) => {
                    self.wires.send_one(now, &flow, bytes, None);
                    if outbox.is_traced {
                        let own = self.wires.own_address(&flow);
                        tapping::sent(&self.taps, self.core, &flow, own, bytes);
                    }
                }
                Matter::Lost(flow) => self.element.handle_flow_lost(now, flow, outbox),
                Matter::Taken => self.note_taken(bytes),
            }
            self.flush_if_heavy(now);
        }
    }

    /// The machine's clock may be set while the server runs: it is looked at once a second, in a turn that there is anyway.
    fn tell_time(&mut self, now: Instant) {
        if now >= self.tell_time_at {
            self.tell_time_at = now.after_ms(1000);
            self.element.handle_clock(self.clock.wall_ms());
        }
    }

    /// Called after [`Mailbox::may_sleep`] has announced that we sleep: the journal first raises its number and then checks the
    /// announcement.
    fn has_due_held(&self) -> bool {
        !self.held.is_empty() && self.held.has_due(self.last.instant(), self.element.progress())
    }

    fn free_held(&mut self, now: Instant) {
        if self.held.is_empty() {
            return;
        }
        let progress = self.element.progress();
        for _ in 0..FREED_PER_TURN {
            let Some((fate, flow, answer)) = self.held.take(now, progress, |answer| self.element.stands_by(answer)) else {
                return;
            };
            self.outbox.send(flow, |out| match fate {
                Fate::Kept => out.extend_from_slice(answer),
                Fate::Refused => unstored::refuse(answer, out),
            });
        }
    }

    /// Moves the answers that wait for the disk out of the outbox.
    fn hold(&mut self, now: Instant) {
        if self.outbox.held.is_empty() {
            return;
        }
        for number in 0..self.outbox.held.len() {
            let held = self.outbox.held[number];
            let answer = self.outbox.get(held.span);
            if !self.held.put(now, held.round, held.flow, answer) {
                self.answer.clear();
                self.answer.extend_from_slice(answer);
                let answer = &self.answer;
                self.outbox.send(held.flow, |out| unstored::refuse(answer, out));
            }
        }
        if let Some(ring) = &self.ring {
            ring();
        }
    }

    fn flush_if_heavy(&mut self, now: Instant) {
        if self.outbox.bytes.len() > FLUSH_BYTES {
            self.flush(now);
        }
    }

    /// Hands the turn's questions to the resolver. If it takes no more, the question fails at once.
    fn ask(&mut self, now: Instant) {
        let core = self.core as u8;
        let mut next = 0;
        // An answer may raise further questions.
        while let Some(question) = self.outbox.questions.get(next).copied() {
            next += 1;
            let asked = |asker: &Asker| asker.ask(core, question);
            if !self.asker.as_ref().is_some_and(asked) {
                let outcome = Outcome::Failed(Failure::Busy);
                let answer = Answer { question, outcome };
                self.element.handle_answer(now, answer, &mut self.outbox);
            }
        }
        self.outbox.questions.clear();
    }

    fn hand_over_records(&mut self) {
        if self.outbox.records.is_empty() {
            return;
        }
        if let Some(sink) = &self.records {
            sink(&self.outbox.records);
        }
        self.outbox.records.clear();
    }

    fn flush(&mut self, now: Instant) {
        self.ask(now);
        tapping::words(&self.taps, self.core, &mut self.outbox);
        self.hand_over_records();
        if !self.outbox.is_empty() {
            self.hold(now);
            self.wires.send(&self.outbox, now);
            if self.outbox.is_traced {
                tapping::outbox(&self.taps, self.core, &self.outbox, &self.wires);
            }
            self.mailbox.write(&self.outbox);
            for number in self.wires.foreign() {
                let transmit = &self.outbox.transmits[number as usize];
                let message = self.outbox.get(transmit.span);
                self.mailbox.write_transmit(transmit.flow, message);
            }
            self.outbox.clear();
        }
        self.wires.flush(now);
        self.mailbox.deliver();
        self.mailbox.deliver_to_link(self.poll.registry());
        self.mailbox.tell_losses(now);
    }

    fn take_commands(&mut self, now: Instant) {
        for command in self.mailbox.take_commands() {
            match command {
                Command::Configure(change) => {
                    self.element.handle_config(change.settings);
                    self.wires.set_limits(change.connections);
                    self.wires.set_tls(change.tls);
                }
                Command::Drain => self.element.handle_drain(),
                // The sender keeps the previous users until all workers have switched, so they are not freed here.
                Command::Users(users) => drop(self.element.handle_users(users)),
                Command::Connections(reply) => {
                    let _ = reply.send(self.wires.describe(self.clock.now()));
                }
                Command::Report(reply) => {
                    // The requester may have given up waiting; then the answer is not missed.
                    let _ = reply.send(self.report());
                }
                Command::Answer(answer) => {
                    self.element.handle_answer(now, *answer, &mut self.outbox);
                }
                Command::Sockets(reply) => _ = reply.send((self.core, self.wires.duplicates())),
                Command::HandOver(end, reply) => _ = reply.send(self.hand_over(now, end)),
                Command::Resume(end, reply) => _ = reply.send(self.resume(now, end)),
                Command::LetGo => self.let_go(),
                Command::Stop => self.is_stopped = true,
            }
        }
        if !self.outbox.is_empty() {
            self.flush(now);
        }
    }

    /// Returns this worker's current counters.
    pub fn report(&mut self) -> Report {
        Report {
            core: self.core,
            numbers: Numbers {
                counters: self.element.counters(),
                occupancy: self.element.occupancy(),
                streams: self.wires.stream_counters(),
                delay: self.delay,
                mail: self.mailbox.counters(),
                held: self.held.counters(),
                shut_out: self.gate.refused(),
                banned: self.gate.banned(),
                banned_sources: match self.core {
                    0 => self.gate.banned_sources(self.clock.now()),
                    _ => 0,
                },
            },
            listeners: self.wires.counters(),
            cpu_ns: sys::thread_cpu_ns(),
            turns: self.turns,
            is_joined: self.mailbox.is_joined(),
            long_turns: self.long.counters(),
        }
    }
}
