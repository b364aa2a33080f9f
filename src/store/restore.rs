//! The stored bindings on their way into the location service: the rows of the table, overlaid with the log.

use super::binding_rows::{bytes, read_row};
use super::error::StoreError;
use super::round_log::Replay;
use super::stored::{Stored, Terms};
use crate::base::{Instant, Span};
use crate::stack::location::{BindingText, Location, Reached, Row, RowRules};

/// What was read, and what could not be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    pub bindings: usize,
    /// Rows that had expired, or whose binding was removed long ago.
    pub expired: usize,
    /// Rows that this program would not write, or that hold what no REGISTER could have brought, and what is wrong with the first.
    pub unusable: usize,
    pub first: String,
    /// Bindings for which `[limits] bindings` leaves no room.
    pub no_room: usize,
    /// The log was not empty.
    pub has_log: bool,
}

/// Rows of one address-of-record after another, on their way into the location service.
pub struct Restorer<'a> {
    location: &'a Location,
    restored: Restored,
    aor: Vec<u8>,
    pile: RestoreBatch<'a>,
    /// One more than the highest position of the address on disk.
    on_disk: u32,
    replay: Replay,
}

impl<'a> Restorer<'a> {
    pub fn new(location: &'a Location, now: Instant, rules: &'a RowRules, terms: Terms<'a>, replay: Replay) -> Restorer<'a> {
        Restorer {
            location,
            restored: Restored::default(),
            aor: Vec::new(),
            pile: RestoreBatch { now, rules, terms, text: Vec::new(), rows: Vec::new() },
            on_disk: 0,
            replay,
        }
    }

    pub fn take(&mut self, row: &rusqlite::Row) -> Result<(), StoreError> {
        let aor = bytes(row, 0)?;
        if aor != self.aor {
            self.finish();
            self.aor.clear();
            self.aor.extend_from_slice(aor);
        }
        let place: i64 = row.get(1).unwrap_or(-1);
        match u32::try_from(place) {
            Ok(place) => self.on_disk = self.on_disk.max(place.saturating_add(1)),
            Err(_) => {
                self.unusable("its place is not a number");
                return Ok(());
            }
        }
        match read_row(row).and_then(|stored| self.pile.keep(&self.aor, &stored)) {
            Ok(is_kept) => self.restored.expired += usize::from(!is_kept),
            Err(what) => self.unusable(what),
        }
        Ok(())
    }

    fn unusable(&mut self, what: &str) {
        if self.restored.unusable == 0 {
            let aor = String::from_utf8_lossy(&self.aor);
            self.restored.first = format!("of {aor:?}: {what}");
        }
        self.restored.unusable += 1;
    }

    /// Hands over the current address, or what the log has of it instead.
    fn finish(&mut self) {
        if self.on_disk > 0 {
            let newer = self.replay.remove(&self.aor);
            let is_same = newer.is_none();
            if let Some(newer) = newer {
                self.pile.clear();
                let wrong = self.pile.keep_all(&self.aor, &newer);
                wrong.into_iter().for_each(|what| self.unusable(what));
            }
            self.hand_over(is_same);
        }
        self.pile.clear();
        self.on_disk = 0;
    }

    /// Hands over the last address of the table, and those that only the log has.
    pub fn finish_all(mut self) -> Restored {
        self.finish();
        while let Some(address) = self.replay.next_address() {
            self.aor = address;
            let stored = self.replay.remove(&self.aor).unwrap_or_default();
            let wrong = self.pile.keep_all(&self.aor, &stored);
            wrong.into_iter().for_each(|what| self.unusable(what));
            self.hand_over(false);
            self.pile.clear();
        }
        self.restored
    }

    fn hand_over(&mut self, is_same: bool) {
        let rows = self.pile.rows();
        let (location, on_disk) = (self.location, self.on_disk);
        match location.restore(&self.aor, &rows, on_disk, is_same) {
            true => self.restored.bindings += rows.len(),
            false => self.restored.no_room += rows.len(),
        }
        let rules = self.pile.rules;
        let leads_back = |uri: &[u8]| rules.leads_back(uri, &self.aor);
        let is_by_contact = |row: &Row| row.reached == Reached::ByContact && row.text.path.is_empty();
        if rows.iter().any(|row| is_by_contact(row) && leads_back(row.text.uri)) {
            location.change(self.pile.now, &self.aor, |record, _| {
                for binding in &mut record.bindings {
                    binding.leads_back =
                        binding.reached == Reached::ByContact && binding.text().path.is_empty() && leads_back(binding.uri());
                }
            });
        }
    }
}

/// The rows of one address, on their way into memory.
struct RestoreBatch<'a> {
    now: Instant,
    rules: &'a RowRules,
    terms: Terms<'a>,
    text: Vec<u8>,
    rows: Vec<Kept>,
}

struct Kept {
    /// URI, Call-ID, Path and instance.
    parts: [Span; 4],
    row: Row<'static>,
}

impl RestoreBatch<'_> {
    /// What is wrong with those that cannot be used.
    fn keep_all(&mut self, aor: &[u8], all: &[Stored]) -> Vec<&'static str> {
        let wrong = all.iter().filter_map(|stored| self.keep(aor, stored).err());
        wrong.collect()
    }

    /// Returns false for an expired row.
    fn keep(&mut self, aor: &[u8], stored: &Stored) -> Result<bool, &'static str> {
        let expires_ms = stored.expires_ms.saturating_sub(self.terms.wall_ms);
        let longest = self.now.after_ms(u64::from(self.rules.max_expires_s()) * 1000);
        let expires = Instant::from_ms(expires_ms).min(longest);
        if expires <= self.now {
            return Ok(false);
        }
        let row = Row {
            text: stored.text,
            source: stored.flow(self.terms),
            expires,
            reg_id: stored.reg_id,
            cseq: stored.cseq,
            q: stored.q.min(1000),
            removed: stored.removed,
            reached: stored.reached,
        };
        self.rules.check(aor, &row)?;
        if let Some((_, peer)) = stored.source
            && (peer.port() == 0 || peer.ip().is_unspecified() || peer.ip().is_multicast())
        {
            return Err("its peer is not an address that a message comes from");
        }
        let alike = self.rows.iter().filter(|kept| kept.row.removed == row.removed);
        if alike.count() >= self.rules.max_contacts() * (1 + 3 * usize::from(row.removed)) {
            return Err("there are more of its address than [registrar] max_contacts allows");
        }
        let row = Row { text: BindingText::default(), ..row };
        let text = stored.text;
        let parts = [text.uri, text.call_id, text.path, text.instance];
        let parts = parts.map(|part| Span::append(part, &mut self.text));
        self.rows.push(Kept { parts, row });
        Ok(true)
    }

    fn rows(&self) -> Vec<Row<'_>> {
        let row = |kept: &Kept| {
            let [uri, call_id, path, instance] = kept.parts.map(|part| part.in_text(&self.text));
            Row { text: BindingText { uri, call_id, path, instance }, ..kept.row }
        };
        self.rows.iter().map(row).collect()
    }

    fn clear(&mut self) {
        self.text.clear();
        self.rows.clear();
    }
}
