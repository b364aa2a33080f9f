//! The text of a conf as TOML has read it: its sections, which keys were read, and what was wrong with them.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::wrong::{Parsed, Value, Wrong, found, integer};
use crate::config::machine::Machine;
use crate::config::units;

/// The text as TOML has read it, which keys were read, and the faults found.
pub(super) struct Document<'d> {
    pub(super) root: &'d DeTable<'d>,
    pub(super) machine: &'d Machine,
    /// Section → keys, filled as keys are read: a key is known because something reads it.
    pub(super) known: BTreeMap<&'static str, Vec<&'static str>>,
    pub(super) wrongs: Vec<Wrong>,
    /// Sections that may appear several times and are written as if they could not: their keys were not read.
    misbracketed: Vec<&'static str>,
    /// What is legal and most likely a slip.
    pub(super) warnings: Vec<Wrong>,
    /// The position of the transport of each `[[listen]]`, or of its section.
    pub(super) listen_places: Vec<usize>,
    /// Something is wrong with a `[[listen]]`: faults of what depends on it are not reported as well.
    pub(super) listeners_are_wrong: bool,
    /// The position of each target of each relaying `[[route]]`.
    pub(super) target_places: Vec<usize>,
    /// The position of `challenge_bye` of `[auth]`, or of its section.
    pub(super) challenge_bye_at: usize,
    pub(super) auth_certificate_at: usize,
}

/// One table of the document.
pub(super) struct Section<'s, 'd> {
    pub(super) document: &'s mut Document<'d>,
    pub(super) name: &'static str,
    /// `None`: the file has no such table.
    pub(super) table: Option<&'d DeTable<'d>>,
    /// The position where the table begins.
    pub(super) at: usize,
}

/// A section that is read key by key.
pub(super) trait Plain: Default {
    const NAME: &'static str;

    fn read(section: &mut Section<'_, '_>) -> Self;
}

impl<'d> Document<'d> {
    pub(super) fn new(root: &'d DeTable<'d>, machine: &'d Machine) -> Document<'d> {
        Document {
            root,
            machine,
            known: BTreeMap::new(),
            wrongs: Vec::new(),
            misbracketed: Vec::new(),
            warnings: Vec::new(),
            listen_places: Vec::new(),
            listeners_are_wrong: false,
            target_places: Vec::new(),
            challenge_bye_at: 0,
            auth_certificate_at: 0,
        }
    }

    /// Returns what the file has under `name`; the name of a table within a table has a dot.
    pub(super) fn find(&self, name: &str) -> Option<&'d Value<'d>> {
        match name.split_once('.') {
            Some((outer, inner)) => as_table(self.root.get(outer)?)?.get(inner),
            None => self.root.get(name),
        }
    }

    /// Returns the table `[name]`, which may be absent.
    pub(super) fn section(&mut self, name: &'static str) -> Section<'_, 'd> {
        let mut at = 0;
        let mut table = None;
        if let Some(value) = self.root.get(name) {
            at = value.span().start;
            match value.get_ref() {
                DeValue::Table(found) => table = Some(found),
                DeValue::Array(_) => {
                    let message = format!("[{name}] may appear only once: write it with single brackets, [{name}]");
                    self.wrongs.push(Wrong::new(at, message));
                }
                other => {
                    let message = format!("{name} is a section: write [{name}] on a line of its own, not {}", found(other));
                    self.wrongs.push(Wrong::new(at, message));
                }
            }
        }
        self.open(name, table, at)
    }

    /// Returns the tables `[[name]]` and where they begin; `None` if the file has none. `name` may be `outer.inner`.
    pub(super) fn tables(&mut self, name: &'static str) -> Option<Vec<(&'d DeTable<'d>, usize)>> {
        self.known.entry(name).or_default();
        if let Some((outer, inner)) = name.split_once('.') {
            self.known.entry(outer).or_default().push(inner);
        }
        let value = self.find(name)?;
        let at = value.span().start;
        let DeValue::Array(array) = value.get_ref() else {
            let message = format!("{name} may appear several times: write it with double brackets, [[{name}]]");
            self.wrongs.push(Wrong::new(at, message));
            // What follows from it, or is in it, is told when the brackets are right.
            self.misbracketed.push(name);
            return None;
        };
        let mut tables = Vec::new();
        for entry in array {
            match entry.get_ref() {
                DeValue::Table(table) => tables.push((table, entry.span().start)),
                other => {
                    let message = format!("{name} is a section: write [[{name}]] on a line of its own, not {}", found(other));
                    self.wrongs.push(Wrong::new(entry.span().start, message));
                }
            }
        }
        if array.is_empty() {
            let message = format!("{name} is empty: remove it, or write a section [[{name}]]");
            self.wrongs.push(Wrong::new(at, message));
        }
        (!tables.is_empty()).then_some(tables)
    }

    pub(super) fn open(&mut self, name: &'static str, table: Option<&'d DeTable<'d>>, at: usize) -> Section<'_, 'd> {
        self.known.entry(name).or_default();
        Section { document: self, name, table, at }
    }

    /// Refuses keys that nothing has read. To be called last: only then are all known keys known.
    pub(super) fn refuse_unknown(&mut self) {
        for (name, value) in self.root {
            let word: &str = name.get_ref();
            if word.contains('.') || !self.known.contains_key(word) {
                let message = self.unknown_section(word, value.get_ref());
                self.wrongs.push(Wrong::new(name.span().start, message));
            }
        }
        for (section, keys) in self.known.iter().filter(|(section, _)| !self.misbracketed.contains(*section)) {
            let tables: Vec<&DeTable<'_>> = match self.find(section).map(Spanned::get_ref) {
                Some(DeValue::Table(table)) => vec![table],
                Some(DeValue::Array(array)) => array.iter().filter_map(as_table).collect(),
                _ => Vec::new(),
            };
            for key in tables.into_iter().flat_map(|table| table.keys()) {
                if !keys.contains(&key.get_ref().as_ref()) {
                    let message = self.unknown_key(section, key.get_ref(), keys);
                    self.wrongs.push(Wrong::new(key.span().start, message));
                }
            }
        }
    }

    pub(super) fn unknown_section(&self, word: &str, value: &DeValue<'_>) -> String {
        let home = match value {
            DeValue::Table(_) | DeValue::Array(_) => None,
            _ => self.home(word),
        };
        if let Some(home) = home {
            return format!("{word:?} is outside of its section: move it below {}", brackets(home));
        }
        let names: Vec<&str> = self.known.keys().copied().collect();
        match nearest(word, &names) {
            Some(near) => format!("unknown section {word:?}; the nearest known one is {}", brackets(near)),
            None => format!("unknown section {word:?}; the sections are {}", names.join(", ")),
        }
    }

    pub(super) fn unknown_key(&self, section: &str, word: &str, keys: &[&str]) -> String {
        let place = brackets(section);
        if let Some(near) = nearest(word, keys) {
            return format!("unknown key {word:?} in {place}; the nearest known one is {near:?}");
        }
        match self.home(word) {
            Some(home) => format!("unknown key {word:?} in {place}; it belongs in {}", brackets(home)),
            None => format!("unknown key {word:?} in {place}; the keys there are {}", keys.join(", ")),
        }
    }

    /// Returns the section that has the key `word`.
    pub(super) fn home(&self, word: &str) -> Option<&'static str> {
        let has = |(_, keys): &(&&'static str, &Vec<&'static str>)| keys.contains(&word);
        self.known.iter().find(has).map(|(name, _)| *name)
    }
}

/// Returns the section's name as the file has it.
pub(super) fn brackets(section: &str) -> String {
    match section {
        "listen" | "route" | "trunk" | "tls.identity" => format!("[[{section}]]"),
        _ => format!("[{section}]"),
    }
}

impl<'d> Section<'_, 'd> {
    /// Returns the value of `key` as `parse` understands it; `None` if it is absent, or wrong and reported.
    pub(super) fn read<T>(&mut self, key: &'static str, parse: impl FnOnce(&Value<'d>) -> Parsed<T>) -> Option<T> {
        let known = self.document.known.entry(self.name).or_default();
        if !known.contains(&key) {
            known.push(key);
        }
        match parse(self.table?.get(key)?) {
            Ok(value) => Some(value),
            Err(wrongs) => {
                for wrong in wrongs {
                    let message = format!("{key} {}", wrong.message);
                    self.document.wrongs.push(Wrong::new(wrong.at, message));
                }
                None
            }
        }
    }

    pub(super) fn given(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.get(key).is_some())
    }

    /// Returns the position of the value of `key`, or of the section if it is absent.
    pub(super) fn place(&self, key: &str) -> usize {
        let value = self.table.and_then(|table| table.get(key));
        value.map_or(self.at, |value| value.span().start)
    }

    /// Returns the position of each entry of the list under `key`.
    pub(super) fn entry_places(&self, key: &str) -> Vec<usize> {
        match self.table.and_then(|table| table.get(key)).map(Spanned::get_ref) {
            Some(DeValue::Array(array)) => array.iter().map(|entry| entry.span().start).collect(),
            _ => Vec::new(),
        }
    }

    /// Returns the integers in the list under `key`, and their positions.
    pub(super) fn integers(&self, key: &str) -> Vec<(u64, usize)> {
        let list = self.table.and_then(|table| table.get(key));
        match list.map(Spanned::get_ref) {
            Some(DeValue::Array(list)) => list.iter().filter_map(|entry| Some((integer(entry)?, entry.span().start))).collect(),
            _ => Vec::new(),
        }
    }

    pub(super) fn wrong(&mut self, at: usize, message: impl Into<String>) {
        self.document.wrongs.push(Wrong::new(at, message));
    }

    /// True if nothing was found wrong with these keys yet.
    pub(super) fn sound<const N: usize>(&self, keys: [&str; N]) -> bool {
        let spans = keys.map(|key| self.table.and_then(|table| table.get(key)).map(Spanned::span));
        let inside = |at: usize| spans.iter().flatten().any(|span| span.contains(&at));
        !self.document.wrongs.iter().any(|wrong| inside(wrong.at))
    }

    /// Refuses times that are not in ascending order, at the first key given of each pair that is not.
    pub(super) fn ascending(&mut self, times: &[(&'static str, Duration)]) {
        for pair in times.windows(2) {
            let [(low, low_time), (high, high_time)] = pair else {
                continue;
            };
            if low_time > high_time && self.sound([low, high]) {
                let at = if self.given(low) { low } else { high };
                let default = |key: &str| {
                    if self.given(key) { "" } else { " (the default)" }
                };
                let message = format!(
                    "{low} = \"{}\"{} is above {high} = \"{}\"{}: lower the one or raise the other",
                    units::time(*low_time),
                    default(low),
                    units::time(*high_time),
                    default(high)
                );
                self.wrong(self.place(at), message);
            }
        }
    }
}

pub(super) fn as_table<'t, 'd>(value: &'t Value<'d>) -> Option<&'t DeTable<'d>> {
    match value.get_ref() {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

// ---- the nearest known word --------------------------------------------------------------------------------------

/// Returns the known word that `word` is most likely a misspelling of.
pub(super) fn nearest<'w>(word: &str, known: &[&'w str]) -> Option<&'w str> {
    if word.len() > 64 {
        return None;
    }
    let word = word.to_lowercase().replace('-', "_");
    let distances = known.iter().map(|near| (strsim::osa_distance(&word, near), *near));
    let (distance, near) = distances.min()?;
    // If they differ by more than a third of the longer word, the two have little in common.
    (distance * 3 <= word.chars().count().max(near.len())).then_some(near)
}
