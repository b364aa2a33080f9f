//! The output of a turn: one run of bytes, and which part of it goes to which flow. The rules append, the wires send.

use super::dns::Question;
use super::flow::Flow;
use super::notes::{NoteKind, Notes};
use super::span::Span;
use std::fmt;

/// One message to one peer.
#[derive(Clone, Copy, Debug)]
pub struct Transmit {
    pub flow: Flow,
    pub span: Span,
}

/// One message that is sent once the disk has caught up.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// A round of the journal.
    pub round: u64,
    pub flow: Flow,
    pub span: Span,
}

/// Why a message goes to another core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Errand {
    /// A response whose Via branch names the other core. `crossed`: the other process of a restart knows no such transaction.
    Response { crossed: bool },
    /// A CANCEL or an ACK that matched nothing here; `tried` cores of the same process have looked already. `crossed`: all cores of
    /// the other process have.
    Orphan { tried: u8, crossed: bool },
    /// A request for one of the predecessor's transactions, as far as the successor knows.
    Repetition,
    /// A request that matches nothing in the other process, and is to be handled here whatever it is.
    Request,
}

/// One message to another core, with the flow on which it came.
#[derive(Clone, Copy, Debug)]
pub struct Parcel {
    /// Beyond the cores of this process: one of the other process of a restart.
    pub core: u8,
    pub errand: Errand,
    pub flow: Flow,
    pub span: Span,
}

/// What a number in [`super::flow::Channel::Peer`] stands for.
#[derive(Clone, Copy, Debug)]
pub struct Introduction {
    pub name: u64,
    /// The host that the peer's certificate must prove, as the URI wrote it.
    pub host: Span,
    /// The certificate of ours that the peer is shown if it requests one; 0: the default.
    pub identity: u64,
}

/// Collects a turn's output. Keeps its allocations when cleared.
#[derive(Default)]
pub struct Outbox {
    pub bytes: Vec<u8>,
    pub transmits: Vec<Transmit>,
    pub held: Vec<Held>,
    pub parcels: Vec<Parcel>,
    pub introductions: Vec<Introduction>,
    /// A call has ended on these flows: a connection that served nothing else closes when everything is sent.
    pub releases: Vec<Flow>,
    /// Records of calls that have ended, a line each.
    pub records: Vec<u8>,
    /// For the resolver; its answers come back as events.
    pub questions: Vec<Question>,
    /// Calls are being traced: set by the owner of the outbox, and kept when it is cleared.
    pub is_traced: bool,
    /// What the rules note about those calls.
    pub notes: Notes,
}

impl Outbox {
    /// Appends one message for `flow`; `write` appends its bytes to those already there. Returns its span.
    pub fn send(&mut self, flow: Flow, write: impl FnOnce(&mut Vec<u8>)) -> Span {
        let span = Span::written(&mut self.bytes, write);
        self.transmits.push(Transmit { flow, span });
        span
    }

    /// Takes back the message sent last.
    pub fn unsend(&mut self) {
        if let Some(last) = self.transmits.pop() {
            self.bytes.truncate(last.span.start as usize);
        }
    }

    /// Holds the message sent last until this round of the journal is on disk; if that fails it becomes a refusal.
    pub fn hold(&mut self, round: u64) {
        if let Some(Transmit { flow, span }) = self.transmits.pop() {
            self.held.push(Held { round, flow, span });
        }
    }

    /// Checks that the spans to be sent are in order, do not overlap, and are not empty.
    #[cfg(debug_assertions)]
    pub fn check(&self) {
        let transmits = self.transmits.iter().map(|transmit| transmit.span);
        let held = self.held.iter().map(|held| held.span);
        let parcels = self.parcels.iter().map(|parcel| parcel.span);
        let mut spans: Vec<Span> = transmits.chain(held).chain(parcels).collect();
        spans.sort_by_key(|span| span.start);
        let mut end = 0;
        for span in spans {
            assert!(!span.is_empty(), "an empty message at {}", span.start);
            assert!(span.start >= end, "a message at {} overlaps the one before it", span.start);
            end = span.end;
        }
        assert!(end as usize <= self.bytes.len(), "a message ends behind the bytes");
        for introduction in &self.introductions {
            let is_inside = introduction.host.range().end <= self.bytes.len();
            assert!(is_inside, "the host of {:#x} ends behind the bytes", introduction.name);
        }
    }

    /// Appends one message for another core.
    pub fn mail(&mut self, core: u8, errand: Errand, flow: Flow, bytes: &[u8]) {
        let span = Span::append(bytes, &mut self.bytes);
        self.parcels.push(Parcel { core, errand, flow, span });
    }

    /// Introduces the host that `name` stands for, before something is sent to a peer of that name.
    pub fn introduce(&mut self, name: u64, host: &[u8], identity: u64) {
        let host = Span::append(host, &mut self.bytes);
        self.introductions.push(Introduction { name, host, identity });
    }

    /// Returns the host that `name` stands for and the certificate it is shown, if it was introduced in this turn.
    pub fn introduced(&self, name: u64) -> Option<(&[u8], u64)> {
        let by_name = |introduction: &&Introduction| introduction.name == name;
        let found = self.introductions.iter().find(by_name)?;
        Some((self.get(found.host), found.identity))
    }

    /// Notes for the tracers of the call what was decided, and why. Without tracers it costs a comparison: `what` is not formatted.
    #[inline]
    pub fn note(&mut self, call_id: &[u8], what: fmt::Arguments<'_>) {
        if self.is_traced {
            self.notes.push(NoteKind::Decision, call_id, what);
        }
    }

    /// The same for a timer that fired.
    #[inline]
    pub fn note_timer(&mut self, call_id: &[u8], what: fmt::Arguments<'_>) {
        if self.is_traced {
            self.notes.push(NoteKind::Timer, call_id, what);
        }
    }

    /// Notes that the call that used this flow is over.
    pub fn release(&mut self, flow: Flow) {
        self.releases.push(flow);
    }

    pub fn get(&self, span: Span) -> &[u8] {
        span.in_text(&self.bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.transmits.is_empty()
            && self.held.is_empty()
            && self.parcels.is_empty()
            && self.releases.is_empty()
            && self.questions.is_empty()
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.transmits.clear();
        self.held.clear();
        self.parcels.clear();
        self.introductions.clear();
        self.releases.clear();
        self.records.clear();
        self.questions.clear();
        if !self.notes.is_empty() {
            self.notes.clear();
        }
    }
}

#[cfg(test)]
mod note_tests {
    use super::*;

    /// Must never be formatted.
    struct Never;

    impl fmt::Display for Never {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("nobody looks on");
        }
    }

    #[test]
    fn nothing_is_formatted_while_nobody_looks_on() {
        let mut outbox = Outbox::default();
        outbox.note(b"1", format_args!("{Never}"));
        outbox.note_timer(b"1", format_args!("{Never}"));
        assert!(outbox.notes.is_empty());
        outbox.is_traced = true;
        outbox.note_timer(b"1", format_args!("timer {}", "C"));
        assert_eq!(outbox.notes.iter().next(), Some((NoteKind::Timer, &b"1"[..], "timer C")));
        outbox.clear();
        assert!(outbox.notes.is_empty() && outbox.is_traced);
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    #[test]
    fn what_is_spoilt_is_found() {
        let caught = |what: &str, spoil: &dyn Fn(&mut Outbox)| {
            let mut outbox = Outbox::default();
            for text in ["one", "two", "three"] {
                let flow = Flow::datagram(0, "192.0.2.1:5060".parse().unwrap());
                outbox.send(flow, |out| out.extend_from_slice(text.as_bytes()));
            }
            outbox.hold(1);
            outbox.introduce(7, b"example.com", 0);
            outbox.check();
            spoil(&mut outbox);
            crate::base::tests::assert_panics(what, || outbox.check());
        };
        caught("overlaps", &|outbox| outbox.transmits[1].span.start -= 1);
        caught("an empty message", &|outbox| outbox.transmits[1].span = Span::new(3, 3));
        caught("a message ends behind", &|outbox| outbox.bytes.truncate(8));
        caught("the host of", &|outbox| outbox.bytes.truncate(15));
    }
}
