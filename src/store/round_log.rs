//! The log of a database whose registrations are answered once they are on disk: each round is appended to it in one piece and goes
//! into the table of bindings later.
//!
//! Changing a row of the table costs a page of disk; a change in the log costs about two hundred bytes, written sequentially. So a
//! round is short, and the table is written at the pace of the batched mode, which merges refreshes. A change stays in the log
//! until it is in the table; at startup the log is read over the table.

use super::binding_rows::Writing;
use super::error::{StoreError, torn};
use super::stored::{Stored, Terms};
use crate::base::{Key, Transport};
use crate::settings::Words;
use crate::stack::location::journal::{Taken, TakenView};
use crate::stack::location::{BindingText, Reached};
use rusqlite::Connection;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// Marks the beginning of each piece. Not a secret: it detects a torn piece.
pub const CHECK: Key = Key::new(0x7374_726f_7767_6572, 1);

/// Appends what was taken, as a piece of the log.
pub fn write(taken: &Taken, terms: Terms, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&[0; 8]);
    for view in taken.iter() {
        put(out, view.address);
        let rows = view.rows();
        out.extend_from_slice(&(rows.len() as u32).to_le_bytes());
        for row in rows {
            let row = Stored::of(&row, terms);
            let text = row.text;
            for part in [text.uri, text.call_id, text.path, text.instance] {
                put(out, part);
            }
            out.extend_from_slice(&row.expires_ms.to_le_bytes());
            out.extend_from_slice(&row.cseq.to_le_bytes());
            out.extend_from_slice(&row.reg_id.to_le_bytes());
            out.extend_from_slice(&row.q.to_le_bytes());
            let transport = row.source.map_or(NONE, |(transport, _)| transport as u8);
            out.extend_from_slice(&[u8::from(row.removed), row.reached as u8, transport]);
            if let Some((_, peer)) = row.source {
                put_address(out, Some(peer));
                put_address(out, row.local.map(|ip| SocketAddr::new(ip, 0)));
                put_address(out, row.listener);
            }
        }
    }
    let check = CHECK.hash(&[&out[8..]]);
    out[..8].copy_from_slice(&check.to_le_bytes());
}

/// Means no transport.
const NONE: u8 = 0xff;

fn put(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(&(part.len() as u32).to_le_bytes());
    out.extend_from_slice(part);
}

fn put_address(out: &mut Vec<u8>, address: Option<SocketAddr>) {
    match address {
        None => out.push(0),
        Some(SocketAddr::V4(v4)) => {
            out.push(4);
            out.extend_from_slice(&v4.ip().octets());
            out.extend_from_slice(&v4.port().to_le_bytes());
        }
        Some(SocketAddr::V6(v6)) => {
            out.push(6);
            out.extend_from_slice(&v6.ip().octets());
            out.extend_from_slice(&v6.port().to_le_bytes());
            out.extend_from_slice(&v6.scope_id().to_le_bytes());
        }
    }
}

// ---- reading -----------------------------------------------------------------------------------------------------------

/// The latest state that the log has of each address-of-record, as pieces of the log.
#[derive(Default)]
pub struct Replay {
    pieces: Vec<Vec<u8>>,
    /// By address: the piece, and the offset of the address's rows in it.
    latest: HashMap<Vec<u8>, (usize, usize)>,
}

impl Replay {
    /// Reads the whole log.
    pub fn read(connection: &Connection) -> Result<Replay, StoreError> {
        let mut replay = Replay::default();
        let mut statement = connection.prepare("SELECT changes FROM strowger_binding_log ORDER BY id")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let piece: Vec<u8> = row.get(0).map_err(|_| torn("the log has no changes"))?;
            replay.take(piece).ok_or_else(|| torn("a piece of the log is not whole"))?;
        }
        Ok(replay)
    }

    fn take(&mut self, piece: Vec<u8>) -> Option<()> {
        let number = self.pieces.len();
        let mut reader = Reader::new(&piece)?;
        while !reader.rest.is_empty() {
            let address = reader.part()?;
            let at = piece.len() - reader.rest.len();
            for _ in 0..reader.number()? {
                reader.row()?;
            }
            self.latest.insert(address.to_vec(), (number, at));
        }
        self.pieces.push(piece);
        Some(())
    }

    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Removes an address and returns its rows as they should be on disk; `None` if the log does not mention it.
    pub fn remove(&mut self, address: &[u8]) -> Option<Vec<Stored<'_>>> {
        let (piece, at) = self.latest.remove(address)?;
        self.rows(piece, at)
    }

    /// Removes any one address.
    pub fn next_address(&self) -> Option<Vec<u8>> {
        self.latest.keys().next().cloned()
    }

    fn rows(&self, piece: usize, at: usize) -> Option<Vec<Stored<'_>>> {
        let mut reader = Reader { rest: self.pieces.get(piece)?.get(at..)? };
        let count = reader.number()?;
        (0..count).map(|_| reader.row()).collect()
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn new(piece: &'a [u8]) -> Option<Reader<'a>> {
        let (check, rest) = piece.split_first_chunk()?;
        (u64::from_le_bytes(*check) == CHECK.hash(&[rest])).then_some(Reader { rest })
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*bytes)
    }

    fn number(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn part(&mut self) -> Option<&'a [u8]> {
        let len = self.number()? as usize;
        let (part, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(part)
    }

    fn address(&mut self) -> Option<Option<SocketAddr>> {
        let [family] = self.bytes()?;
        Some(match family {
            0 => None,
            4 => {
                let ip: [u8; 4] = self.bytes()?;
                Some((IpAddr::from(ip), u16::from_le_bytes(self.bytes()?)).into())
            }
            6 => {
                let ip: [u8; 16] = self.bytes()?;
                let port = u16::from_le_bytes(self.bytes()?);
                let mut v6 = std::net::SocketAddrV6::new(ip.into(), port, 0, 0);
                v6.set_scope_id(self.number()?);
                Some(v6.into())
            }
            _ => return None,
        })
    }

    fn row(&mut self) -> Option<Stored<'a>> {
        let text = BindingText { uri: self.part()?, call_id: self.part()?, path: self.part()?, instance: self.part()? };
        let expires_ms = u64::from_le_bytes(self.bytes()?);
        let (cseq, reg_id) = (self.number()?, self.number()?);
        let q = u16::from_le_bytes(self.bytes()?);
        let [removed, reached, transport] = self.bytes()?;
        let (_, reached) = *Reached::WORDS.iter().find(|(_, known)| *known as u8 == reached)?;
        let mut stored =
            Stored { text, expires_ms, cseq, reg_id, q, removed: removed != 0, reached, source: None, local: None, listener: None };
        if transport != NONE {
            let (_, transport) = *Transport::WORDS.iter().find(|(_, known)| *known as u8 == transport)?;
            stored.source = Some((transport, self.address()??));
            stored.local = self.address()?.map(|address| address.ip());
            stored.listener = self.address()?;
        }
        Some(stored)
    }
}

// ---- from the log into the table ---------------------------------------------------------------------------------------

/// Rounds that are in the log but not yet in the table.
#[derive(Default)]
pub struct Pending {
    rounds: Vec<Taken>,
    /// The last of these rounds in the log.
    last: i64,
    size: usize,
}

impl Pending {
    pub fn push(&mut self, id: i64, taken: Taken) {
        self.size += taken.size();
        self.last = id;
        self.rounds.push(taken);
    }

    pub fn is_empty(&self) -> bool {
        self.rounds.is_empty()
    }

    /// Bytes of memory in use.
    pub fn size(&self) -> usize {
        self.size
    }
}

/// Rounds on their way from the log into the table: the latest state of each address, in the order of the table.
pub struct Folding {
    rounds: Vec<Taken>,
    last: i64,
    list: Vec<Latest>,
    next: usize,
}

/// Position of the latest state of an address.
#[derive(Clone, Copy, Default)]
struct Latest {
    round: usize,
    number: usize,
    /// Rows that may be in the table.
    rows_before: u32,
}

impl Folding {
    pub fn begin(pending: Pending) -> Folding {
        let mut latest: HashMap<&[u8], Latest> = HashMap::new();
        for (round, taken) in pending.rounds.iter().enumerate() {
            for (number, view) in taken.iter().enumerate() {
                let entry = latest.entry(view.address).or_default();
                let rows_before = entry.rows_before.max(view.rows_before);
                *entry = Latest { round, number, rows_before };
            }
        }
        let mut sorted: Vec<(&[u8], Latest)> = latest.into_iter().collect();
        sorted.sort_unstable_by_key(|(address, _)| *address);
        let list = sorted.into_iter().map(|(_, entry)| entry).collect();
        Folding { list, rounds: pending.rounds, last: pending.last, next: 0 }
    }

    /// Writes at most `most` addresses into the table, and returns where to go on once that is on disk ([`Folding::advance`]). The
    /// log is cut together with the last of them.
    pub fn write(&self, writing: &Writing, terms: Terms, most: usize) -> Result<usize, StoreError> {
        let end = self.next.saturating_add(most).min(self.list.len());
        let entries = self.list.get(self.next..end).unwrap_or(&[]);
        let view = |latest: &Latest| {
            let mut view: TakenView = self.rounds.get(latest.round)?.view(latest.number)?;
            view.rows_before = latest.rows_before;
            Some(view)
        };
        writing.write(entries.iter().filter_map(view), terms)?;
        if end == self.list.len() {
            writing.cut_log(self.last)?;
        }
        Ok(end)
    }

    pub fn advance(&mut self, next: usize) {
        self.next = next;
    }

    pub fn is_done(&self) -> bool {
        self.next == self.list.len()
    }
}
