//! Ordered edits over the received bytes, rendered in one pass: bytes that are not edited leave unchanged.

use std::ops::Range;

use super::cursor;
use super::values::Value;
use crate::base::Span;

/// A list of edits to one message. Offsets are those of the original; the order of calls matters only for texts at the same offset,
/// which keep it.
///
/// An inserted text is never lost: one whose offset is inside a removed range comes out in its place.
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

/// A value removed from a comma-separated line, with the comma after it, up to the next value.
#[derive(Clone, Copy, Debug)]
struct RemovedValue {
    line: Span,
    /// The field value of the whole line.
    list: Span,
    start: u32,
    end: u32,
}

impl Rewrite {
    /// Forgets all edits and keeps the allocation.
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
        let text = Span::written(&mut self.texts, text);
        self.push(span, text);
    }

    pub fn remove(&mut self, span: Range<usize>) {
        self.push(span, Span::default());
    }

    /// Removes one value of a comma-separated header field with one comma; the whole line if no value of it is left.
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
            self.ordered.sort_unstable_by_key(|edit| (edit.at, edit.sequence));
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
        self.removed_values.sort_unstable_by_key(|value| (value.start, value.end));
        let mut i = 0;
        while i < self.removed_values.len() {
            let RemovedValue { line, list, start, mut end } = self.removed_values[i];
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
                // The last values are removed: so is the comma before them.
                let kept = original.get(..start as usize).unwrap_or_default();
                let kept = cursor::trim_end(kept);
                let kept = kept.strip_suffix(b",").unwrap_or(kept);
                let kept = cursor::trim_end(kept).len().max(list.start as usize);
                Span { start: kept as u32, end }
            };
            self.ordered.push(Edit { at: span.start, until: span.end, text: Span::default(), sequence: self.edits.len() as u32 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::{Index, Message, Name};
    use proptest::prelude::*;

    fn without(lists: &str, removed: &[usize]) -> String {
        let bytes = format!("OPTIONS sip:a SIP/2.0\r\nTo: x\r\n{lists}Max-Forwards: 7\r\n\r\n").into_bytes();
        let mut index = Index::default();
        let message = Message::parse(&bytes, &mut index).unwrap();
        let values: Vec<_> = message.values(Name::Route).collect();
        let mut rewrite = Rewrite::default();
        for &i in removed {
            rewrite.remove_value(&values[i]);
        }
        let mut out = Vec::new();
        rewrite.render(&bytes, &mut out);
        let text = String::from_utf8(out).unwrap();
        let text = text.strip_prefix("OPTIONS sip:a SIP/2.0\r\nTo: x\r\n").unwrap();
        text.strip_suffix("Max-Forwards: 7\r\n\r\n").unwrap().to_string()
    }

    #[test]
    fn a_value_leaves_with_one_comma_and_the_last_with_its_line() {
        assert_eq!(without("Route: <sip:a>\r\n", &[0]), "");
        assert_eq!(without("Route: <sip:a>, <sip:b>\r\n", &[0]), "Route: <sip:b>\r\n");
        assert_eq!(without("Route: <sip:a> ,  <sip:b>\r\n", &[1]), "Route: <sip:a>\r\n");
        assert_eq!(without("Route: <sip:a>,<sip:b>,<sip:c>\r\n", &[1]), "Route: <sip:a>,<sip:c>\r\n");
        assert_eq!(without("Route: <sip:a>,<sip:b>,<sip:c>\r\n", &[2, 1]), "Route: <sip:a>\r\n");
        assert_eq!(without("Route: <sip:a>, <sip:b>, <sip:c>\r\n", &[0, 2]), "Route: <sip:b>\r\n");
        assert_eq!(without("Route: <sip:a>,\r\n <sip:b>\r\n", &[1, 0]), "");
        assert_eq!(without("Route: <sip:a>,\r\n <sip:b>\r\n", &[0]), "Route: <sip:b>\r\n");
        assert_eq!(without("Route: <sip:a>\r\n ,<sip:b>\r\n", &[1]), "Route: <sip:a>\r\n");
        assert_eq!(without("Route: <sip:a>\r\nRoute: <sip:b>, <sip:c>\r\n", &[0, 1]), "Route: <sip:c>\r\n");
        assert_eq!(without("Route: <sip:a>, <sip:b>\r\nRoute: <sip:c>\r\n", &[0, 1, 2]), "");
        assert_eq!(without("Route: <sip:a>, <sip:b>\r\n", &[0, 0, 1, 1]), "");
        assert_eq!(without("Route: ,<sip:b>\r\n", &[1]), "Route: \r\n");
    }

    #[test]
    fn the_same_edits_can_be_rendered_again_and_cleared() {
        let mut rewrite = Rewrite::default();
        rewrite.insert(3, |out| out.push(b'x'));
        let mut out = b"> ".to_vec();
        rewrite.render(b"abcdef", &mut out);
        rewrite.render(b"abcdef", &mut out);
        assert_eq!(out, b"> abcxdefabcxdef");
        assert!(!rewrite.is_empty());
        rewrite.clear();
        assert!(rewrite.is_empty());
        out.clear();
        rewrite.render(b"abcdef", &mut out);
        assert_eq!(out, b"abcdef");
    }

    #[derive(Clone, Debug)]
    struct Step {
        start: usize,
        end: usize,
        text: Vec<u8>,
    }

    fn step() -> impl Strategy<Value = Step> {
        // Some offsets are beyond the original: they mean its end.
        (0usize..50, 0usize..8, proptest::collection::vec(any::<u8>(), 0..4)).prop_map(|(start, len, text)| Step {
            start,
            end: start + len,
            text,
        })
    }

    /// Byte by byte: all texts of an offset in order of call, then the byte unless some edit covers it.
    fn model(original: &[u8], steps: &[Step]) -> Vec<u8> {
        let mut out = Vec::new();
        for at in 0..=original.len() {
            for step in steps {
                if step.start.min(original.len()) == at {
                    out.extend_from_slice(&step.text);
                }
            }
            if at < original.len() && !steps.iter().any(|step| (step.start..step.end).contains(&at)) {
                out.push(original[at]);
            }
        }
        out
    }

    proptest! {
        #[test]
        fn rendering_equals_the_naive_model(
            original in proptest::collection::vec(any::<u8>(), 0..44),
            steps in proptest::collection::vec(step(), 0..40),
        ) {
            let mut rewrite = Rewrite::default();
            for step in &steps {
                rewrite.replace(step.start..step.end, |out| out.extend_from_slice(&step.text));
            }
            let mut out = Vec::new();
            rewrite.render(&original, &mut out);
            // Past the end, texts keep the order of their offsets, not of the calls.
            let mut ordered = steps.clone();
            ordered.sort_by_key(|step| step.start);
            prop_assert_eq!(out, model(&original, &ordered));
        }

        #[test]
        fn removing_values_leaves_the_others(
            lines in proptest::collection::vec((1usize..5, "( |\r\n )?,( |\r\n )?"), 1..4),
            removed in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut bytes = b"OPTIONS sip:a SIP/2.0\r\n".to_vec();
            let mut all = Vec::new();
            for (count, comma) in &lines {
                let values: Vec<String> = (0..*count).map(|i| format!("<sip:r{}>;x=\",\"", all.len() + i)).collect();
                bytes.extend_from_slice(format!("Route: {}\r\n", values.join(comma)).as_bytes());
                all.extend(values);
            }
            bytes.extend_from_slice(b"\r\n");
            let removed: Vec<usize> = removed.iter().map(|i| i.index(all.len())).collect();
            let mut index = Index::default();
            let message = Message::parse(&bytes, &mut index).unwrap();
            let values: Vec<_> = message.values(Name::Route).collect();
            let mut rewrite = Rewrite::default();
            for &i in &removed {
                rewrite.remove_value(&values[i]);
            }
            let mut out = Vec::new();
            rewrite.render(&bytes, &mut out);
            let mut index = Index::default();
            let message = Message::parse(&out, &mut index).unwrap();
            prop_assert_eq!(message.fault(), None);
            let left: Vec<_> = message.values(Name::Route).map(|value| value.text.to_vec()).collect();
            let expected: Vec<_> = (0..all.len()).filter(|i| !removed.contains(i)).map(|i| all[i].clone().into_bytes()).collect();
            prop_assert_eq!(left, expected);
            prop_assert!(message.all(Name::Route).all(|header| !header.value.is_empty()));
        }
    }
}
