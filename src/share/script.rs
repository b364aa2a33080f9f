//! What Redis does with changes: the script that accepts or rejects them, and its answers.

use super::form;
use super::reply::{Contents, Reply};
use super::shards::{PARTS, address_key, changes_key, part_of, position_key};
use crate::stack::location::SharedRow;

/// The script. Redis runs it as a whole, so nobody sees half of a change.
pub const SCRIPT: &[u8] = include_bytes!("accept.lua");

/// Changes in one run of the script: Redis does nothing else meanwhile.
pub const BATCH: usize = 100;

/// Changes of one part that are told together.
#[derive(Clone)]
pub struct Batch<'a> {
    pub part: usize,
    pub rows: Vec<SharedRow<'a>>,
}

/// Sorts rows into batches, in their order.
pub fn batches<'a>(rows: impl Iterator<Item = SharedRow<'a>>) -> Vec<Batch<'a>> {
    let mut parts: [Vec<SharedRow>; PARTS] = Default::default();
    for row in rows {
        parts[part_of(row.aor)].push(row);
    }
    let mut batches = Vec::new();
    for (part, rows) in parts.into_iter().enumerate() {
        batches.extend(rows.chunks(BATCH).map(|rows| Batch { part, rows: rows.to_vec() }));
    }
    batches
}

impl Batch<'_> {
    /// Returns the command that tells it, if Redis knows the script as `name`; the stream keeps `kept` changes.
    pub fn command(&self, name: &[u8], kept: usize) -> Vec<Vec<u8>> {
        let keys = (self.rows.len() + 2).to_string().into_bytes();
        let mut words = vec![b"EVALSHA".to_vec(), name.to_vec(), keys, changes_key(self.part), position_key(self.part)];
        words.extend(self.rows.iter().map(|row| address_key(self.part, row.aor)));
        words.push(kept.to_string().into_bytes());
        for row in &self.rows {
            let (mut field, mut value) = (Vec::new(), Vec::new());
            row.write_field(&mut field);
            form::write(row, &mut value);
            words.extend([field, value]);
        }
        words
    }
}

/// What Redis says to a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer<'a> {
    /// It has it, accepted now or before, at this position.
    Has(u64),
    /// Its lease is over.
    Over,
    /// It has a better version.
    Better(&'a [u8]),
    /// This address cannot be shared, and why.
    Unfit(&'a str),
}

/// Reads the answer to one change.
pub fn answer(reply: &Reply) -> Option<Answer<'_>> {
    let (kind, rest) = reply.text()?.split_first()?;
    match kind {
        b'a' | b's' => Some(Answer::Has(std::str::from_utf8(rest).ok()?.parse().ok()?)),
        b'o' => Some(Answer::Over),
        b'b' => Some(Answer::Better(rest)),
        b'e' => Some(Answer::Unfit(std::str::from_utf8(rest).unwrap_or("what it has is not text"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
