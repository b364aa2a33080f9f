//! What the rules note about a traced call: decisions and timers, as text alongside the outbox. Without a trace, nothing is
//! written.

use super::span::Span;
use std::fmt::{self, Write};

/// What a note is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoteKind {
    /// What was chosen or refused, and why.
    Decision,
    /// A timer of the call fired.
    Timer,
}

/// The longest note in bytes: it may quote a peer.
const LONGEST: usize = 1024;

/// The notes of a turn in order. Keeps its allocations when cleared.
#[derive(Default)]
pub struct Notes {
    text: String,
    list: Vec<Entry>,
    call_ids: Vec<u8>,
}

struct Entry {
    kind: NoteKind,
    call_id: Span,
    text: Span,
}

impl Notes {
    pub fn push(&mut self, kind: NoteKind, call_id: &[u8], what: fmt::Arguments<'_>) {
        let start = self.text.len();
        // A note that is too long is truncated, which is not an error.
        let _ = Bounded(&mut self.text, start + LONGEST).write_fmt(what);
        let text = Span::new(start, self.text.len());
        let start = self.call_ids.len();
        self.call_ids.extend_from_slice(call_id);
        let call_id = Span::new(start, self.call_ids.len());
        self.list.push(Entry { kind, call_id, text });
    }

    /// Iterates over kind, Call-ID and text.
    pub fn iter(&self) -> impl Iterator<Item = (NoteKind, &[u8], &str)> {
        self.list.iter().map(|entry| {
            let call_id = self.call_ids.get(entry.call_id.range()).unwrap_or(&[]);
            let text = self.text.get(entry.text.range()).unwrap_or("");
            (entry.kind, call_id, text)
        })
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn clear(&mut self) {
        self.text.clear();
        self.list.clear();
        self.call_ids.clear();
    }
}

/// A text that may grow to this many bytes.
struct Bounded<'t>(&'t mut String, usize);

impl Write for Bounded<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.1.saturating_sub(self.0.len());
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        let cut = (0..=room).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        self.0.push_str(&text[..cut]);
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_keep_their_order_and_are_cut() {
        let mut notes = Notes::default();
        assert!(notes.is_empty());
        notes.push(NoteKind::Decision, b"a@b", format_args!("route {} chosen", 3));
        notes.push(NoteKind::Timer, b"", format_args!("{}", "é".repeat(LONGEST)));
        let all: Vec<_> = notes.iter().collect();
        assert_eq!(all[0], (NoteKind::Decision, &b"a@b"[..], "route 3 chosen"));
        assert_eq!(all[1], (NoteKind::Timer, &b""[..], &*"é".repeat(LONGEST / 2)));
        assert_eq!(all.len(), 2);
        notes.clear();
        assert!(notes.is_empty() && notes.iter().next().is_none());
    }
}
