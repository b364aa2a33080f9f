//! What the parts of the screen are made of: lines, numbers, and two moments that are compared.

use std::collections::BTreeMap;
use std::time::Duration;

/// The output of `strowger stats` at one moment.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    /// When it was requested, on the requester's clock.
    pub at: Duration,
    /// The same since 1970.
    pub wall: Duration,
    pub version: String,
    /// By full name, including labels.
    pub values: BTreeMap<String, f64>,
}

/// One line of the screen, in pieces that look different.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(pub Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub text: String,
    pub look: Look,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    Plain,
    Heading,
    /// Something is as it should be.
    Good,
    /// Something is refused, lost or wrong.
    Alarm,
}

impl Line {
    /// The whole line without its looks.
    pub fn text(&self) -> String {
        self.0.iter().map(|piece| piece.text.as_str()).collect()
    }

    pub fn and(mut self, text: impl Into<String>, look: Look) -> Line {
        self.0.push(Piece { text: text.into(), look });
        self
    }

    /// Cuts the line to `width`, without terminal control characters and without blanks at its end.
    pub fn cut(&mut self, width: usize) {
        let visible = |c: char| if c.is_control() { '?' } else { c };
        let mut room = width;
        for piece in &mut self.0 {
            piece.text = piece.text.chars().take(room).map(visible).collect();
            room -= piece.text.chars().count();
        }
        while let Some(last) = self.0.last_mut() {
            last.text.truncate(last.text.trim_end().len());
            if !last.text.is_empty() {
                break;
            }
            self.0.pop();
        }
    }
}

pub fn line(text: impl Into<String>, look: Look) -> Line {
    Line::default().and(text, look)
}

pub fn plain(text: impl Into<String>) -> Line {
    line(text, Look::Plain)
}

pub fn alarm(text: impl Into<String>) -> Line {
    line(text, Look::Alarm)
}

/// The width that the columns are designed for.
pub const WIDTH: usize = 80;

/// Two moments and the time between them.
pub struct View<'m> {
    before: Option<&'m Moment>,
    pub now: &'m Moment,
    seconds: f64,
}

impl<'m> View<'m> {
    pub fn new(before: Option<&'m Moment>, now: &'m Moment) -> View<'m> {
        // The counters of a previous server process do not apply to this one.
        let started = |moment: &Moment| moment.values.get("process_start_time_seconds").copied();
        let before = before.filter(|before| started(before) == started(now) && before.at < now.at);
        let seconds = before.map_or(0.0, |before| (now.at - before.at).as_secs_f64());
        View { before, now, seconds }
    }

    /// Returns the current value of a gauge or counter; with labels, the sum of those that have all of these.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        sum(self.now, name, labels)
    }

    /// Returns how much a counter has risen; `None` if there is no earlier moment.
    pub fn risen(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let before = self.before?;
        Some((sum(self.now, name, labels) - sum(before, name, labels)).max(0.0))
    }

    /// The same per second.
    pub fn rate(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        Some(self.risen(name, labels)? / self.seconds)
    }

    /// The value of exactly this name, if the server has it.
    pub fn find(&self, name: &str) -> Option<f64> {
        self.now.values.get(name).copied()
    }

    /// Samples of `name` by their only label's value, or by this one of several.
    pub fn by_label(&self, name: &str, label: &str) -> BTreeMap<&'m str, Vec<&'m str>> {
        let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for whole in self.now.values.keys() {
            let labels = whole.strip_prefix(name).and_then(|rest| rest.strip_prefix('{'));
            if let Some(value) = labels.and_then(|labels| labelled(labels, label)) {
                all.entry(value).or_default().push(whole);
            }
        }
        all
    }
}

/// The value of one label in `a="1",b="2"}`.
fn labelled<'l>(labels: &'l str, label: &str) -> Option<&'l str> {
    let mut parts = labels.strip_suffix('}')?.split("\",");
    parts.find_map(|part| part.strip_prefix(label)?.strip_prefix("=\"")).map(|value| value.trim_end_matches('"'))
}

/// The sum of the samples of `name` that have all these labels.
fn sum(moment: &Moment, name: &str, labels: &[(&str, &str)]) -> f64 {
    let from = moment.values.range(name.to_owned()..);
    let same = from.take_while(|(whole, _)| whole.starts_with(name));
    same.filter(|(whole, _)| {
        let rest = whole.get(name.len()..).unwrap_or_default();
        let has = |(key, value): &(&str, &str)| rest.contains(&format!("{key}=\"{value}\""));
        (rest.is_empty() || rest.starts_with('{')) && labels.iter().all(has)
    })
    .map(|(_, value)| value)
    .sum()
}

/// Formats a number in at most six places; "-" if unknown.
pub fn short(number: Option<f64>) -> String {
    match number {
        None => "-".to_owned(),
        Some(number) if number <= 0.0 => "0".to_owned(),
        // Nobody has half a binding.
        Some(number) if number < 9.95 && number.fract() == 0.0 => format!("{number:.0}"),
        Some(number) if number < 9.95 => format!("{number:.1}"),
        Some(number) if number < 99_999.5 => format!("{number:.0}"),
        Some(number) if number < 9_999_500.0 => format!("{:.0}k", number / 1e3),
        Some(number) if number < 9_999_500_000.0 => format!("{:.0}M", number / 1e6),
        Some(number) => format!("{:.0}G", (number / 1e9).min(99_999.0)),
    }
}
