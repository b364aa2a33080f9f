//! Fuzz target: any message with any edits. The rendered bytes are those of a naive model, and values that were not removed are still there.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use strowger::sip::{Index, Message, Name, Rewrite, Value, fill_received};

fuzz_target!(|bytes: &[u8]| {
    // The tail of the input is the program of edits.
    let (original, program) = bytes.split_at(bytes.len() - (bytes.len() / 4).min(48));
    let mut index = Index::default();
    let Ok(message) = Message::parse(original, &mut index) else {
        return;
    };
    let mut rewrite = Rewrite::default();
    let mut rendered = Vec::new();
    rewrite.render(original, &mut rendered);
    assert!(rendered == original, "no edit, no change");

    remove_values(&message, program, &mut rewrite);
    mix(&message, program, &mut rewrite);
    stamp(&message, program, &mut rewrite);
});

/// A byte-wise model: what is inserted where, and what is left out.
struct Model {
    inserted: Vec<(usize, Vec<u8>)>,
    removed: Vec<bool>,
}

impl Model {
    fn new(original: &[u8]) -> Model {
        Model { inserted: Vec::new(), removed: vec![false; original.len()] }
    }

    fn remove(&mut self, start: usize, end: usize) {
        let len = self.removed.len();
        self.removed[start.min(len)..end.min(len).max(start.min(len))].fill(true);
    }

    fn render(&self, original: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for at in 0..=original.len() {
            for (_, text) in self.inserted.iter().filter(|(offset, _)| *offset == at) {
                out.extend_from_slice(text);
            }
            if at < original.len() && !self.removed[at] {
                out.push(original[at]);
            }
        }
        out
    }

    fn remove_values(&mut self, original: &[u8], values: &[Value], removed: &BTreeSet<usize>) {
        for (i, value) in values.iter().enumerate().filter(|(i, _)| removed.contains(i)) {
            let line: Vec<usize> = (0..values.len()).filter(|&j| values[j].header.line == value.header.line).collect();
            let kept_behind = line.iter().any(|&j| j > i && !removed.contains(&j));
            let kept_before = line.iter().rev().find(|&&j| j < i && !removed.contains(&j));
            let list = value.header.value_span.range();
            let next = line.iter().find(|&&j| j > i).map_or(list.end, |&j| values[j].span.range().start);
            match (kept_behind, kept_before) {
                (true, _) => self.remove(value.span.range().start, next),
                (false, Some(&kept)) => {
                    let kept = &original[list.start..values[kept].span.range().end];
                    self.remove(list.start + kept.trim_ascii_end().len(), next);
                }
                (false, None) => {
                    let line = value.header.line.range();
                    self.remove(line.start, line.end);
                }
            }
        }
    }
}

fn remove_values(message: &Message, program: &[u8], rewrite: &mut Rewrite) {
    for name in [Name::Route, Name::Via, Name::Contact] {
        let values: Vec<Value> = message.values(name).take(64).collect();
        if values.is_empty() || message.values(name).count() > 64 {
            continue;
        }
        let removed: BTreeSet<usize> = program.iter().map(|&b| usize::from(b) % values.len()).collect();
        rewrite.clear();
        // In the program's order, repeats included.
        for &b in program {
            rewrite.remove_value(&values[usize::from(b) % values.len()]);
        }
        let mut rendered = Vec::new();
        rewrite.render(message.bytes(), &mut rendered);
        let mut model = Model::new(message.bytes());
        model.remove_values(message.bytes(), &values, &removed);
        if values.iter().any(|value| value.text.is_empty()) {
            // `a,,b` is no list; what an empty value leaves behind when its neighbour goes is not worth a model.
            continue;
        }
        assert!(rendered == model.render(message.bytes()));
        if message.fault().is_none() {
            let mut index = Index::default();
            let left = Message::parse(&rendered, &mut index).unwrap();
            assert_eq!(left.fault(), None);
            let expected = (0..values.len()).filter(|i| !removed.contains(i)).map(|i| values[i].text);
            assert!(left.values(name).map(|value| value.text).eq(expected));
            assert_eq!(left.body(), message.body());
        }
    }
}

fn mix(message: &Message, program: &[u8], rewrite: &mut Rewrite) {
    let original = message.bytes();
    let mut model = Model::new(original);
    rewrite.clear();
    let values: Vec<Value> = message.values(Name::Route).take(64).collect();
    let mut removed = BTreeSet::new();
    for (n, step) in program.chunks(4).enumerate() {
        let [kind, high, low, extra] = *step else {
            break;
        };
        let at = (usize::from(high) << 8 | usize::from(low)) % (original.len() + 3);
        let until = at + usize::from(extra % 32);
        let text = vec![b'A' + (n % 26) as u8; usize::from(extra % 5)];
        match kind % 4 {
            0 => {
                rewrite.insert(at, |out| out.extend_from_slice(&text));
                model.inserted.push((at.min(original.len()), text));
            }
            1 => {
                rewrite.replace(at..until, |out| out.extend_from_slice(&text));
                model.inserted.push((at.min(original.len()), text));
                model.remove(at, until);
            }
            2 => {
                rewrite.remove(at..until);
                model.remove(at, until);
            }
            _ if !values.is_empty() => {
                let i = usize::from(extra) % values.len();
                rewrite.remove_value(&values[i]);
                removed.insert(i);
            }
            _ => {}
        }
    }
    // The model knows only offsets up to the end; there, edits beyond it come in order of their offsets.
    if program
        .chunks(4)
        .filter(|step| step.len() == 4)
        .any(|step| (usize::from(step[1]) << 8 | usize::from(step[2])) % (original.len() + 3) > original.len())
    {
        let mut rendered = Vec::new();
        rewrite.render(original, &mut rendered);
        return;
    }
    // Values beyond the first 64 of a line would count as kept: leave those messages to the other half.
    if message.values(Name::Route).count() <= 64 && values.iter().all(|value| !value.text.is_empty()) {
        model.remove_values(original, &values, &removed);
        let mut rendered = b"front".to_vec();
        rewrite.render(original, &mut rendered);
        assert!(rendered == [b"front".as_slice(), &model.render(original)].concat());
    }
}

fn stamp(message: &Message, program: &[u8], rewrite: &mut Rewrite) {
    let Ok(via) = message.top_via() else {
        return;
    };
    let source = if program.len() & 1 == 0 { "192.0.2.7:5099" } else { "[2001:db8::7]:5099" };
    let source: std::net::SocketAddr = source.parse().unwrap();
    rewrite.clear();
    fill_received(&via, source, rewrite);
    let mut rendered = Vec::new();
    rewrite.render(message.bytes(), &mut rendered);
    let mut index = Index::default();
    let stamped = Message::parse(&rendered, &mut index).unwrap();
    let stamped = stamped.top_via().unwrap();
    assert_eq!(stamped.branch(), via.branch());
    assert_eq!(stamped.rport(), via.rport().map(|_| Some(source.port())));
    if via.host.ip().map(|ip| ip.to_canonical()) == Some(source.ip()) && via.rport().is_none() {
        assert!(stamped.received_span().is_none());
    } else {
        assert_eq!(stamped.received(), Some(source.ip()));
    }
    rewrite.clear();
    fill_received(&stamped, source, rewrite);
    let mut twice = Vec::new();
    rewrite.render(&rendered, &mut twice);
    assert!(twice == rendered, "stamping twice is stamping once");
}
