//! Ordered edits over the received bytes, rendered in one pass: what is not edited leaves bit for bit.

use std::ops::Range;

use super::cursor;
use super::header::Span;
use super::message::Value;

/// A list of edits to one message. Offsets are those of the original; the order of calls matters only for texts at the same offset,
/// which keep it.
///
/// An inserted text is never lost: one whose offset lies inside of a removed range comes out in its place.
#[derive(Default, Debug)]
pub struct Rewrite {
    edits: Vec<Edit>,
    removed_values: Vec<RemovedValue>,
    texts: Vec<u8>,
    /// Scratch of `render`: the edits in order.
    ordered: Vec<Edit>,
}

/// At `at`, write a text, then leave out the original up to `until`.
#[derive(Clone, Copy, Debug)]
struct Edit {
    at: u32,
    until: u32,
    text: Span,
    /// Position among the edits, so that an unstable sort keeps the order of calls.
    sequence: u32,
}

/// A value that leaves a comma-separated line, with what belongs to it: the comma behind it, up to the next value.
#[derive(Clone, Copy, Debug)]
struct RemovedValue {
    line: Span,
    /// The field value of the whole line.
    list: Span,
    start: u32,
    end: u32,
}

impl Rewrite {
    /// Forgets all edits and keeps the memory.
    pub fn clear(&mut self) {
        self.edits.clear();
        self.removed_values.clear();
        self.texts.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.edits.is_empty() && self.removed_values.is_empty()
    }

    /// Inserts before the byte at `at`.
    pub fn insert(&mut self, at: usize, text: impl FnOnce(&mut Vec<u8>)) {
        self.replace(at..at, text);
    }

    /// Removes `span` and inserts at its start.
    pub fn replace(&mut self, span: Range<usize>, text: impl FnOnce(&mut Vec<u8>)) {
        let start = self.texts.len();
        text(&mut self.texts);
        let text = Span::new(start, self.texts.len());
        self.push(span, text);
    }

    pub fn remove(&mut self, span: Range<usize>) {
        self.push(span, Span::default());
    }

    /// Removes one value of a comma-separated header field with one comma; the whole line when no value of it is left.
    pub fn remove_value(&mut self, value: &Value) {
        if value.first && value.last {
            return self.remove(value.header.line.range());
        }
        self.removed_values.push(RemovedValue {
            line: value.header.line,
            list: value.header.value_span,
            start: value.span.start,
            end: value.next,
        });
    }

    fn push(&mut self, span: Range<usize>, text: Span) {
        self.edits.push(Edit {
            at: span.start as u32,
            until: span.end.max(span.start) as u32,
            text,
            sequence: self.edits.len() as u32,
        });
    }

    /// Appends the edited message to `out`. Can be called again: for each branch of a fork, after more edits.
    pub fn render(&mut self, original: &[u8], out: &mut Vec<u8>) {
        self.ordered.clear();
        self.ordered.extend_from_slice(&self.edits);
        self.order_removed_values(original);
        if !self.ordered.is_sorted_by_key(|edit| edit.at) {
            self.ordered
                .sort_unstable_by_key(|edit| (edit.at, edit.sequence));
        }
        out.reserve(original.len() + self.texts.len());
        let mut done = 0;
        for edit in &self.ordered {
            let at = (edit.at as usize).min(original.len());
            if at > done {
                out.extend_from_slice(&original[done..at]);
                done = at;
            }
            out.extend_from_slice(&self.texts[edit.text.range()]);
            done = done.max((edit.until as usize).min(original.len()));
        }
        out.extend_from_slice(&original[done..]);
    }

    /// Turns runs of removed values into edits.
    fn order_removed_values(&mut self, original: &[u8]) {
        if self.removed_values.is_empty() {
            return;
        }
        self.removed_values
            .sort_unstable_by_key(|value| (value.start, value.end));
        let mut i = 0;
        while i < self.removed_values.len() {
            let RemovedValue {
                line,
                list,
                start,
                mut end,
            } = self.removed_values[i];
            i += 1;
            while let Some(next) = self.removed_values.get(i) {
                if next.start > end || next.line != line {
                    break;
                }
                end = end.max(next.end);
                i += 1;
            }
            let span = if end < list.end {
                Span { start, end }
            } else if start <= list.start {
                line
            } else {
                // The last values go: so does the comma before them.
                let kept = original.get(..start as usize).unwrap_or_default();
                let kept = cursor::trim_end(kept);
                let kept = kept.strip_suffix(b",").unwrap_or(kept);
                let kept = cursor::trim_end(kept).len();
                Span {
                    start: kept as u32,
                    end,
                }
            };
            self.ordered.push(Edit {
                at: span.start,
                until: span.end,
                text: Span::default(),
                sequence: self.edits.len() as u32,
            });
        }
    }
}
