//! The rows of the table `strowger_binding`, written and read.

use super::error::StoreError;
use super::stored::{Stored, Terms};
use crate::base::Transport;
use crate::settings::Words;
use crate::stack::location::journal::TakenView;
use crate::stack::location::{BindingText, Reached};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, ToSql, Transaction, params};

pub const SELECT: &str = "SELECT aor, place, contact, q, expires, call_id, cseq, path, instance, reg_id, reached, \
                      transport, peer, local, listener, removed FROM strowger_binding ORDER BY aor, place";

pub const REPLACE: &str = "INSERT OR REPLACE INTO strowger_binding VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

const DELETE: &str = "DELETE FROM strowger_binding WHERE aor = ? AND place >= ?";

/// A database transaction in progress.
pub struct Writing<'a> {
    pub change: &'a Transaction<'a>,
}

impl Writing<'_> {
    /// Empties the log up to this piece.
    pub fn cut_log(&self, last: i64) -> Result<(), StoreError> {
        let mut cut = self.change.prepare_cached("DELETE FROM strowger_binding_log WHERE id <= ?")?;
        cut.execute([last])?;
        Ok(())
    }

    pub fn write<'t>(&self, views: impl Iterator<Item = TakenView<'t>>, terms: Terms) -> Result<(), StoreError> {
        let mut replace = self.change.prepare_cached(REPLACE)?;
        let mut delete = self.change.prepare_cached(DELETE)?;
        for view in views {
            let rows = view.rows();
            let count = rows.len() as u32;
            for (place, row) in rows.enumerate() {
                write_row(&mut replace, view.address, place, &Stored::of(&row, terms))?;
            }
            if view.rows_before > count {
                delete.execute(params![Text(view.address), count])?;
            }
        }
        Ok(())
    }
}

fn write_row(replace: &mut CachedStatement, address: &[u8], place: usize, row: &Stored) -> Result<(), StoreError> {
    replace.execute(params![
        Text(address),
        place as i64,
        Text(row.text.uri),
        f64::from(row.q) / 1000.0,
        i64::try_from(row.expires_ms).unwrap_or(i64::MAX),
        Text(row.text.call_id),
        row.cseq,
        Text(row.text.path),
        Text(row.text.instance),
        row.reg_id,
        row.reached.word(),
        row.source.map(|(transport, _)| transport.word()),
        row.source.map(|(_, peer)| peer.to_string()),
        row.local.map(|ip| ip.to_string()),
        row.listener.map(|address| address.to_string()),
        row.removed,
    ])?;
    Ok(())
}

/// Bytes from the wire as SQLite text. They need not be UTF-8.
struct Text<'a>(&'a [u8]);

impl ToSql for Text<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0)))
    }
}

/// Returns the binding of a row, or what is wrong with it.
pub fn read_row<'r>(row: &'r rusqlite::Row) -> Result<Stored<'r>, &'static str> {
    let part = |column| bytes(row, column).map_err(|_| "one of its texts is not a text");
    let word = |column| -> Result<Option<String>, &'static str> { row.get(column).map_err(|_| "its source is not a text") };
    let text = BindingText { uri: part(2)?, call_id: part(5)?, path: part(7)?, instance: part(8)? };
    if !text.fits() {
        return Err("a text is too long");
    }
    let expires: i64 = row.get(4).map_err(|_| "expires is not a time")?;
    let q: f64 = row.get(3).map_err(|_| "q is not a number")?;
    if !(0.0..=1.0).contains(&q) {
        return Err("q is not between 0 and 1");
    }
    let reached = word(10)?.and_then(|word| Reached::named(&word));
    let source = match (word(11)?, word(12)?) {
        (Some(name), Some(peer)) => {
            let transport = Transport::named(&name);
            let peer = peer.parse().map_err(|_| "its peer is not an address")?;
            Some((transport.ok_or("its transport is neither udp, tcp nor tls")?, peer))
        }
        _ => None,
    };
    let local = word(13)?.map(|text| text.parse());
    Ok(Stored {
        text,
        expires_ms: u64::try_from(expires).unwrap_or(0),
        cseq: row.get(6).map_err(|_| "cseq is not a number")?,
        reg_id: row.get(9).map_err(|_| "reg_id is not a number")?,
        q: (q * 1000.0).round() as u16,
        removed: row.get(15).map_err(|_| "removed is neither 0 nor 1")?,
        reached: reached.ok_or("reached is neither contact, flow first nor flow")?,
        source,
        local: local.transpose().map_err(|_| "its local is not an address")?,
        listener: word(14)?.and_then(|text| text.parse().ok()),
    })
}

/// Empty if the column holds neither a text nor a blob.
pub fn bytes<'r>(row: &'r rusqlite::Row, column: usize) -> Result<&'r [u8], StoreError> {
    match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Ok(bytes),
        _ => Ok(b""),
    }
}
