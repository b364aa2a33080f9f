//! The table `strowger_binding` of a SQLite database: what the location service holds, one row for a binding, as `sqlite3` can read it.
//!
//! An address-of-record has its rows under the numbers 0, 1, … in the order of memory. They are replaced one by one where they
//! stand, so that a refresh, which nearly every change is, finds its place once and touches nothing else.

use crate::base::{Channel, Flow, Instant, Transport};
use crate::stack::location::journal::{Taken, TakenView};
use crate::stack::location::{BindingText, Location, Reached, Row, RowRules};
use crate::store::clock::{self, Seen};
use crate::store::round_log::Replay;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{
    CachedStatement, Connection, ErrorCode, OpenFlags, OptionalExtension, ToSql, Transaction, TransactionBehavior, params,
};
use std::fs::OpenOptions;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// Times are milliseconds since 1970. `peer` is where the REGISTER came from, `local` which address of ours it was sent to where the
/// listener is on all of them, `listener` the listener's own address. `removed`: gone, and remembered until it expires, so that an older
/// REGISTER that arrives late cannot bring it back.
const CREATE: &str = "
CREATE TABLE strowger_binding (
    aor TEXT NOT NULL,
    place INTEGER NOT NULL,
    contact TEXT NOT NULL,
    q REAL NOT NULL,
    expires INTEGER NOT NULL,
    call_id TEXT NOT NULL,
    cseq INTEGER NOT NULL,
    path TEXT NOT NULL,
    instance TEXT NOT NULL,
    reg_id INTEGER NOT NULL,
    reached TEXT NOT NULL,
    transport TEXT,
    peer TEXT,
    local TEXT,
    listener TEXT,
    removed INTEGER NOT NULL,
    PRIMARY KEY (aor, place)
) WITHOUT ROWID;
CREATE TABLE strowger_binding_log (id INTEGER PRIMARY KEY NOT NULL, changes BLOB NOT NULL);
CREATE TABLE strowger_version (table_name TEXT PRIMARY KEY NOT NULL, version INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO strowger_version VALUES ('strowger_binding', 1);
";

/// The version of the table that this program reads and writes.
const VERSION: i64 = 1;

const SELECT: &str = "SELECT aor, place, contact, q, expires, call_id, cseq, path, instance, reg_id, reached, \
                      transport, peer, local, listener, removed FROM strowger_binding ORDER BY aor, place";

const REPLACE: &str = "INSERT OR REPLACE INTO strowger_binding VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

const LOG: &str = "INSERT INTO strowger_binding_log (changes) VALUES (?)";

const DELETE: &str = "DELETE FROM strowger_binding WHERE aor = ? AND place >= ?";

/// How long the journal waits while another program has the database locked. Nobody but the journal waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);

/// Pages of the write-ahead log, of mostly 4 KiB, after which they go into the database: what changes again and again is moved once.
const CHECKPOINT_PAGES: u32 = 8192;

/// Bytes that the log keeps for use again.
const LOG_BYTES: i64 = 64 << 20;

/// What a failure means to the journal. The text is what is wrong, without the name of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// Another program has the database locked.
    Busy(String),
    /// It may be well again by itself: a full disk, a missing folder, a file that may not be written.
    Transient(String),
    /// Nothing is written into this file any more: it is torn, or it is somebody else's.
    NotOurs(String),
}

impl StoreError {
    pub fn message(&self) -> &str {
        match self {
            StoreError::Busy(what) | StoreError::Transient(what) | StoreError::NotOurs(what) => what,
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        let advice = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                return StoreError::Busy(format!("another program has it locked ({error})"));
            }
            Some(ErrorCode::NotADatabase) => {
                return StoreError::NotOurs(format!(
                    "{error}: name another file in [registrar] database, or move this one away"
                ));
            }
            Some(ErrorCode::DatabaseCorrupt) => return torn(&error.to_string()),
            Some(ErrorCode::DiskFull) => ": make room on the disk",
            Some(ErrorCode::ReadOnly) => ": let the server's user write the file and its folder",
            _ => "",
        };
        StoreError::Transient(format!("{error}{advice}"))
    }
}

pub(in crate::store) fn torn(what: &str) -> StoreError {
    StoreError::NotOurs(format!(
        "it is torn ({what}): move it away; \"sqlite3 FILE .recover\" shows what is left in it"
    ))
}

/// A database that holds the table. Its lock on the file is lost when any other descriptor of the file is closed by this process.
pub struct Table {
    connection: Connection,
    /// What the clocks show, to be written with the next change.
    seen: Option<Seen>,
}

/// What was read, and what could not be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    pub bindings: usize,
    /// Rows that had expired, or whose binding was removed long ago.
    pub expired: usize,
    /// Rows that are not what this program writes, or hold what no REGISTER could have brought, and what is wrong with the first.
    pub unusable: usize,
    pub first: String,
    /// Bindings for which `[limits] bindings` leaves no room.
    pub no_room: usize,
    /// The log was not empty.
    pub has_log: bool,
}

/// How the times and listeners of memory are told on disk.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    /// The time since 1970 at [`Instant`] zero, milliseconds.
    pub wall_ms: u64,
    pub listeners: &'a [(Transport, SocketAddr)],
}

impl Table {
    /// Opens the database, or makes it, readable by its owner alone.
    pub fn open(path: &Path) -> Result<Table, StoreError> {
        make(path).map_err(|error| StoreError::Transient(error.to_string()))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(PATIENCE)?;
        prepare(&mut connection)?;
        connection.set_prepared_statement_cache_capacity(8);
        // Readers and the journal do not wait for each other.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // A committed round is on disk even when the power goes: in both modes, for with one commit a second or one for hundreds of
        // registrations it costs next to nothing, and without it a crash would take more than the last round.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
        Ok(Table { connection, seen: None })
    }

    /// What the clocks showed when the table was last written.
    pub fn seen(&self) -> Result<Option<Seen>, StoreError> {
        clock::read(&self.connection)
    }

    /// What they show now: it is written with the next change.
    pub fn see(&mut self, seen: Seen) {
        self.seen = Some(seen);
    }

    /// A number that is another one after each change that *another* connection has made.
    pub fn version(&self) -> Result<i64, StoreError> {
        Ok(self.connection.query_row("PRAGMA data_version", [], |row| row.get(0))?)
    }

    /// Reads all bindings into the location service, after it is clear that the table is whole. By the `rules` no binding lasts longer from
    /// `now` on than a REGISTER can ask for, whatever the wall clock did meanwhile, and none holds what a REGISTER could not have brought.
    pub fn restore(&self, location: &Location, now: Instant, rules: &RowRules, terms: Terms) -> Result<Restored, StoreError> {
        let snapshot = self.connection.unchecked_transaction()?;
        for table in ["strowger_binding", "strowger_binding_log"] {
            let check = format!("PRAGMA quick_check('{table}')");
            let verdict: String = snapshot.query_row(&check, [], |row| row.get(0))?;
            if verdict != "ok" {
                return Err(torn(verdict.lines().next().unwrap_or_default()));
            }
        }
        let replay = Replay::read(&snapshot)?;
        let has_log = !replay.is_empty();
        let mut statement = snapshot.prepare(SELECT)?;
        let mut rows = statement.query([])?;
        let mut gathering = Restorer::new(location, now, rules, terms, replay);
        while let Some(row) = rows.next()? {
            gathering.take(row)?;
        }
        Ok(Restored {
            has_log,
            ..gathering.finish_all()
        })
    }

    /// Writes what was taken, all of it or nothing.
    pub fn write(&mut self, taken: &Taken, terms: Terms) -> Result<(), StoreError> {
        self.rewrite(false, |writing| writing.write(taken.iter(), terms))
    }

    /// Appends a piece to the log, and does `more` in the same change of the database. Returns the piece's number.
    pub fn append<T>(
        &mut self,
        piece: &[u8],
        more: impl FnOnce(&Writing) -> Result<T, StoreError>,
    ) -> Result<(i64, T), StoreError> {
        self.rewrite(false, |writing| {
            let mut append = writing.change.prepare_cached(LOG)?;
            append.execute([piece])?;
            let id = writing.change.last_insert_rowid();
            Ok((id, more(writing)?))
        })
    }

    /// One change of the database: `work` writes, as often as it likes, and all of it stands there, or nothing. `clear`: the table is
    /// emptied first.
    pub fn rewrite<T>(&mut self, clear: bool, work: impl FnOnce(&Writing) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let change = Transaction::new(&mut self.connection, TransactionBehavior::Immediate)?;
        if clear {
            change.execute_batch("DELETE FROM strowger_binding; DELETE FROM strowger_binding_log")?;
        }
        if let Some(seen) = &self.seen {
            clock::write(&change, seen)?;
        }
        let result = work(&Writing { change: &change })?;
        change.commit()?;
        self.seen = None;
        Ok(result)
    }
}

fn make(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new();
    match file.write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Sees that the database is one that we may write, and has our tables.
fn prepare(connection: &mut Connection) -> Result<(), StoreError> {
    let change = Transaction::new(connection, TransactionBehavior::Immediate)?;
    let names: Vec<String> = {
        let mut statement =
            change.prepare("SELECT lower(name) FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")?;
        let names = statement.query_map([], |row| row.get(0))?;
        names.collect::<Result<_, _>>()?
    };
    let has = |name: &str| names.iter().any(|own| own == name);
    if has("strowger_binding") {
        let version: Option<i64> = change
            .query_row(
                "SELECT version FROM strowger_version WHERE table_name = 'strowger_binding'",
                [],
                |row| row.get(0),
            )
            .optional()
            .map_err(|error| not_ours(&error.to_string()))?;
        return match version {
            Some(VERSION) => {
                // A column that is missing is found now, and not when a phone registers.
                change
                    .prepare(SELECT)
                    .and_then(|_| change.prepare(REPLACE))
                    .and_then(|_| change.prepare(LOG))
                    .map_err(|error| not_ours(&error.to_string()))?;
                // Databases of before have none.
                if !has(clock::TABLE) {
                    change.execute_batch(clock::CREATE)?;
                    change.commit()?;
                }
                Ok(())
            }
            Some(other) => Err(not_ours(&format!(
                "it is of version {other}; this strowger writes version {VERSION}"
            ))),
            None => Err(not_ours("it has no version")),
        };
    }
    // Users and bindings may share a database, and the users may stand in Kamailio's.
    if !names.is_empty() && !has("subscriber") {
        return Err(StoreError::NotOurs(format!(
            "it is the database of another program (it has a table {:?}): name another file in [registrar] database",
            names[0]
        )));
    }
    change.execute_batch(CREATE)?;
    change.execute_batch(clock::CREATE)?;
    Ok(change.commit()?)
}

fn not_ours(what: &str) -> StoreError {
    StoreError::NotOurs(format!(
        "its table strowger_binding is not of this program's making ({what}): name another file in [registrar] database, \
         or move this one away"
    ))
}

// ---- writing -----------------------------------------------------------------------------------------------------------

/// A change of the database under way.
pub struct Writing<'a> {
    change: &'a Transaction<'a>,
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
        let mut words = FlowColumns::default();
        for view in views {
            let rows = view.rows();
            let count = rows.len() as u32;
            for (place, row) in rows.enumerate() {
                words.set(&row, terms);
                write_row(&mut replace, &view, place, &row, &words, terms)?;
            }
            if view.rows_before > count {
                delete.execute(params![Text(view.address), count])?;
            }
        }
        Ok(())
    }
}

fn write_row(
    replace: &mut CachedStatement,
    view: &TakenView,
    place: usize,
    row: &Row,
    words: &FlowColumns,
    terms: Terms,
) -> Result<(), StoreError> {
    let expires = terms.wall_ms.saturating_add(row.expires.as_ms());
    replace.execute(params![
        Text(view.address),
        place as i64,
        Text(row.text.uri),
        f64::from(row.q) / 1000.0,
        i64::try_from(expires).unwrap_or(i64::MAX),
        Text(row.text.call_id),
        row.cseq,
        Text(row.text.path),
        Text(row.text.instance),
        row.reg_id,
        reached(row.reached),
        words.transport,
        words.peer(),
        words.local(),
        words.listener(),
        row.removed,
    ])?;
    Ok(())
}

/// Bytes of the wire as SQLite's text. They need not be UTF-8.
struct Text<'a>(&'a [u8]);

impl ToSql for Text<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0)))
    }
}

/// A flow in words; their memory is used again.
#[derive(Default)]
struct FlowColumns {
    transport: Option<&'static str>,
    peer: String,
    local: String,
    listener: String,
}

impl FlowColumns {
    fn set(&mut self, row: &Row, terms: Terms) {
        use std::fmt::Write;
        let of = |text: &mut String, words: Option<&dyn std::fmt::Display>| {
            text.clear();
            if let Some(words) = words {
                // Writing into a string does not fail.
                let _ = write!(text, "{words}");
            }
        };
        let source = row.source;
        let listener = source.and_then(|flow| terms.listeners.get(usize::from(flow.listener)));
        self.transport = source.map(|flow| transport(flow.transport));
        of(&mut self.peer, source.as_ref().map(|flow| &flow.peer as _));
        let local = source.and_then(|flow| flow.local());
        of(&mut self.local, local.as_ref().map(|ip| ip as _));
        of(&mut self.listener, listener.map(|(_, address)| address as _));
    }

    fn peer(&self) -> Option<&str> {
        Some(self.peer.as_str()).filter(|text| !text.is_empty())
    }

    fn local(&self) -> Option<&str> {
        Some(self.local.as_str()).filter(|text| !text.is_empty())
    }

    fn listener(&self) -> Option<&str> {
        Some(self.listener.as_str()).filter(|text| !text.is_empty())
    }
}

const fn reached(reached: Reached) -> &'static str {
    match reached {
        Reached::ByContact => "contact",
        Reached::ByFlowFirst => "flow first",
        Reached::ByFlow => "flow",
    }
}

const fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
        Transport::Tls => "tls",
    }
}

// ---- reading -----------------------------------------------------------------------------------------------------------

/// Rows of one address-of-record after the other, on their way into the location service.
struct Restorer<'a> {
    location: &'a Location,
    restored: Restored,
    aor: Vec<u8>,
    pile: RestoreBatch<'a>,
    /// One more than the highest place that the address has on disk.
    on_disk: u32,
    replay: Replay,
}

/// A binding as the disk has it.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    pub text: BindingText<'a>,
    /// Since 1970.
    pub expires_ms: u64,
    pub cseq: u32,
    pub reg_id: u32,
    /// Thousandths, 0 to 1000.
    pub q: u16,
    pub removed: bool,
    pub reached: Reached,
    /// Where the REGISTER came from.
    pub source: Option<(Transport, SocketAddr)>,
    pub local: Option<IpAddr>,
    pub listener: Option<SocketAddr>,
}

impl<'a> Restorer<'a> {
    fn new(location: &'a Location, now: Instant, rules: &'a RowRules, terms: Terms<'a>, replay: Replay) -> Restorer<'a> {
        Restorer {
            location,
            restored: Restored::default(),
            aor: Vec::new(),
            pile: RestoreBatch {
                now,
                rules,
                terms,
                text: Vec::new(),
                rows: Vec::new(),
            },
            on_disk: 0,
            replay,
        }
    }

    fn take(&mut self, row: &rusqlite::Row) -> Result<(), StoreError> {
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
                self.unusable("its place is no number");
                return Ok(());
            }
        }
        if let Err(what) = self.keep(row) {
            self.unusable(what);
        }
        Ok(())
    }

    fn keep(&mut self, row: &rusqlite::Row) -> Result<(), &'static str> {
        let part = |column| bytes(row, column).map_err(|_| "a text is none");
        let address = |column| -> Result<Option<String>, &'static str> { row.get(column).map_err(|_| "its source is no text") };
        let text = BindingText {
            uri: part(2)?,
            call_id: part(5)?,
            path: part(7)?,
            instance: part(8)?,
        };
        if !text.fits() {
            return Err("a text is too long");
        }
        let expires: i64 = row.get(4).map_err(|_| "expires is no time")?;
        let q: f64 = row.get(3).map_err(|_| "q is no number")?;
        if !(0.0..=1.0).contains(&q) {
            return Err("q is not between 0 and 1");
        }
        let reached = match part(10)? {
            b"contact" => Reached::ByContact,
            b"flow first" => Reached::ByFlowFirst,
            b"flow" => Reached::ByFlow,
            _ => return Err("reached is neither contact, flow first nor flow"),
        };
        let source = match (address(11)?, address(12)?) {
            (Some(name), Some(peer)) => {
                let all = [Transport::Udp, Transport::Tcp, Transport::Tls];
                let transport = all.into_iter().find(|t| transport(*t) == name);
                let peer = peer.parse().map_err(|_| "its peer is no address")?;
                Some((transport.ok_or("its transport is none")?, peer))
            }
            _ => None,
        };
        let local = address(13)?.map(|text| text.parse());
        let stored = Stored {
            text,
            expires_ms: u64::try_from(expires).unwrap_or(0),
            cseq: row.get(6).map_err(|_| "cseq is no number")?,
            reg_id: row.get(9).map_err(|_| "reg_id is no number")?,
            q: (q * 1000.0).round() as u16,
            removed: row.get(15).map_err(|_| "removed is neither 0 nor 1")?,
            reached,
            source,
            local: local.transpose().map_err(|_| "its local is no address")?,
            listener: address(14)?.and_then(|text| text.parse().ok()),
        };
        self.restored.expired += usize::from(!self.pile.keep(&self.aor, &stored)?);
        Ok(())
    }

    fn unusable(&mut self, what: &str) {
        if self.restored.unusable == 0 {
            let aor = String::from_utf8_lossy(&self.aor);
            self.restored.first = format!("of {aor:?}: {what}");
        }
        self.restored.unusable += 1;
    }

    /// Hands the address in hand over, or what the log has of it instead.
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

    /// The last address of the table, and those that only the log has.
    fn finish_all(mut self) -> Restored {
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
            location.change(&self.aor, |record, _| {
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
    /// Where URI, Call-ID, Path and instance end in the text.
    ends: [usize; 4],
    row: Row<'static>,
}

impl RestoreBatch<'_> {
    /// What is wrong with those that cannot be used.
    fn keep_all(&mut self, aor: &[u8], all: &[Stored]) -> Vec<&'static str> {
        let wrong = all.iter().filter_map(|stored| self.keep(aor, stored).err());
        wrong.collect()
    }

    /// False for what has expired.
    fn keep(&mut self, aor: &[u8], stored: &Stored) -> Result<bool, &'static str> {
        let expires_ms = stored.expires_ms.saturating_sub(self.terms.wall_ms);
        let longest = self.now.after_ms(u64::from(self.rules.max_expires_s()) * 1000);
        let expires = Instant::from_ms(expires_ms).min(longest);
        if expires <= self.now {
            return Ok(false);
        }
        let row = Row {
            text: stored.text,
            source: self.source(stored),
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
        let row = Row {
            text: BindingText::default(),
            ..row
        };
        let text = stored.text;
        let mut ends = [0; 4];
        for (end, part) in ends.iter_mut().zip([text.uri, text.call_id, text.path, text.instance]) {
            self.text.extend_from_slice(part);
            *end = self.text.len();
        }
        self.rows.push(Kept { ends, row });
        Ok(true)
    }

    /// The way on which the REGISTER came. A connection of then is none of today's; a listener that the conf has no more
    /// leads nowhere.
    fn source(&self, stored: &Stored) -> Option<Flow> {
        let (transport, peer) = stored.source?;
        let same = |(own, bound): &(Transport, SocketAddr)| *own == transport && Some(*bound) == stored.listener;
        let listener = self.terms.listeners.iter().position(same)?;
        Some(Flow {
            transport,
            channel: match transport {
                Transport::Udp => Channel::Datagram { local: stored.local },
                // Generation 0 is never alive.
                Transport::Tcp | Transport::Tls => Channel::Connection { slot: 0, generation: 0 },
            },
            ..Flow::datagram(listener as u16, peer)
        })
    }

    fn rows(&self) -> Vec<Row<'_>> {
        let mut start = 0;
        let row = |kept: &Kept| {
            let [uri, call_id, path, instance] = kept.ends.map(|end| {
                let part = self.text.get(start..end).unwrap_or(&[]);
                start = end;
                part
            });
            Row {
                text: BindingText {
                    uri,
                    call_id,
                    path,
                    instance,
                },
                ..kept.row
            }
        };
        self.rows.iter().map(row).collect()
    }

    fn clear(&mut self) {
        self.text.clear();
        self.rows.clear();
    }
}

fn bytes<'r>(row: &'r rusqlite::Row, column: usize) -> Result<&'r [u8], StoreError> {
    match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Ok(bytes),
        _ => Ok(b""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Key;
    use crate::stack::location::{Durability, OPERATOR_CALL_ID, REMOVED_MS};
    use std::path::PathBuf;

    /// An hour is the longest that a binding lasts.
    fn rules() -> RowRules {
        RowRules::default()
    }

    const UDP: (Transport, &str) = (Transport::Udp, "127.0.0.1:5060");
    const TLS: (Transport, &str) = (Transport::Tls, "0.0.0.0:5061");

    fn listeners(of: &[(Transport, &str)]) -> Vec<(Transport, SocketAddr)> {
        of.iter().map(|(t, at)| (*t, at.parse().unwrap())).collect()
    }

    fn location() -> Location {
        Location::new(Key::new(1, 2), 10_000).with_journal(Durability::Batched)
    }

    fn at(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("strowger.db");
        (folder, path)
    }

    fn write(table: &mut Table, location: &Location, terms: Terms) {
        let mut taken = Taken::default();
        let mut round = location.begin_round(false);
        while let Some(shard) = round.next_shard() {
            location.take_changed(shard, false, &mut taken);
        }
        table.write(&taken, terms).unwrap();
        location.finish_round(round.number);
    }

    fn all(location: &Location, now: u64) -> Vec<String> {
        let mut all = Vec::new();
        location.show(at(now), None, &mut |aor, view| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            all.push(format!(
                "{} {} q={} until {} {} {} [{}] [{}] {} {:?}",
                text(aor),
                text(&view.uri),
                view.q,
                view.expires.as_ms(),
                text(&view.call_id),
                view.cseq,
                text(&view.path),
                text(&view.instance),
                view.reg_id,
                view.source,
            ));
        });
        all.sort();
        all
    }

    /// A location service that has been given these by phones.
    fn filled(flows: &[Option<Flow>]) -> Location {
        let location = location();
        for (number, flow) in flows.iter().enumerate() {
            let (aor, uri) = (format!("u{number}@x"), format!("sip:u{number}'(x)@192.0.2.1;a=%22?b=c"));
            let row = Row {
                text: BindingText {
                    uri: uri.as_bytes(),
                    call_id: b"call<>\"'@x",
                    path: b"<sip:p;lr>, <sip:q;lr>",
                    instance: b"\"<urn:x>\"",
                },
                source: *flow,
                expires: at(60_000 + number as u64),
                reg_id: 3,
                cseq: u32::MAX,
                q: 205,
                removed: false,
                reached: Reached::ByFlow,
            };
            location.restore(aor.as_bytes(), &[row], 0, false);
        }
        location
    }

    #[test]
    fn every_part_of_a_binding_comes_back_as_it_was() {
        let (_folder, path) = folder();
        let peer: SocketAddr = "192.0.2.7:40123".parse().unwrap();
        let datagram = Flow::datagram(0, peer);
        let flows = [
            None,
            Some(datagram),
            Some(datagram.from_local(Some("198.51.100.1".parse().unwrap()))),
            Some(Flow::datagram(0, "[fe80::1]:5060".parse().unwrap())),
        ];
        let before = filled(&flows);
        let both = listeners(&[UDP, TLS]);
        let mut table = Table::open(&path).unwrap();
        let terms = Terms {
            wall_ms: 1_000_000,
            listeners: &both,
        };
        write(&mut table, &before, terms);
        drop(table);

        // Ten seconds later by the wall, in another run whose clock began elsewhere, with the listeners the other way round.
        let turned = listeners(&[TLS, UDP]);
        let later = Terms {
            wall_ms: 1_009_000,
            listeners: &turned,
        };
        let after = location();
        let table = Table::open(&path).unwrap();
        let restored = table.restore(&after, at(1000), &rules(), later).unwrap();
        assert_eq!((restored.bindings, restored.unusable), (4, 0), "{restored:?}");
        let expected: Vec<String> = all(&before, 0)
            .into_iter()
            .map(|line| {
                let moved = |ms: u64| format!("until {}", ms - 9_000);
                let line = (0..4).fold(line, |line, n| {
                    line.replace(&format!("until {}", 60_000 + n), &moved(60_000 + n))
                });
                line.replace("listener: 0", "listener: 1")
            })
            .collect();
        assert_eq!(all(&after, 1000), expected);
        assert!(!after.has_changes(), "nothing is written again");
        after.lookup(at(1000), b"u1@x", |binding| {
            assert_eq!(binding.reached, Reached::ByFlow);
        });
    }

    #[test]
    fn a_connection_of_then_is_dead_and_a_listener_that_is_gone_leads_nowhere() {
        let (_folder, path) = folder();
        let connection = Flow {
            transport: Transport::Tls,
            core: 1,
            channel: Channel::Connection { slot: 5, generation: 9 },
            ..Flow::datagram(1, "192.0.2.7:40123".parse().unwrap())
        };
        let mut table = Table::open(&path).unwrap();
        let both = listeners(&[UDP, TLS]);
        let terms = Terms {
            wall_ms: 0,
            listeners: &both,
        };
        write(&mut table, &filled(&[Some(connection)]), terms);
        let source = |listeners: &[(Transport, SocketAddr)]| {
            let (after, mut found) = (location(), None);
            let terms = Terms { wall_ms: 0, listeners };
            table.restore(&after, at(0), &rules(), terms).unwrap();
            after.lookup(at(0), b"u0@x", |binding| found = Some(binding.source()));
            found.expect("the binding")
        };
        let flow = source(&both).expect("a flow");
        assert_eq!((flow.peer, flow.listener), (connection.peer, 1));
        let live = crate::base::LiveConnections::new(2, 16);
        live.enter(0, 0, 1);
        assert!(!live.is_alive(&flow) && !live.takes_answers(&flow));
        assert_eq!(source(&both[..1]), None);
    }

    #[test]
    fn rows_follow_memory_and_what_has_expired_goes() {
        let (_folder, path) = folder();
        let mut table = Table::open(&path).unwrap();
        let terms = Terms {
            wall_ms: 5_000,
            listeners: &[],
        };
        let count = |path: &Path| -> Vec<String> {
            let connection = Connection::open(path).unwrap();
            let mut statement = connection
                .prepare("SELECT aor || ' ' || place || ' ' || contact FROM strowger_binding")
                .unwrap();
            let rows = statement.query_map([], |row| row.get(0)).unwrap();
            rows.collect::<Result<_, _>>().unwrap()
        };
        let before = location();
        for (uri, seconds) in [("sip:h1", 10), ("sip:h2", 100), ("sip:h3", 10)] {
            before.add(at(0), b"a@x", uri.as_bytes(), seconds).unwrap();
        }
        before.add(at(0), b"b@x", b"sip:h4", 10).unwrap();
        before.add(at(0), b"c@x", b"sip:h5", 100).unwrap();
        write(&mut table, &before, terms);
        let five = ["a@x 0 sip:h1", "a@x 1 sip:h2", "a@x 2 sip:h3", "b@x 0 sip:h4", "c@x 0 sip:h5"];
        assert_eq!(count(&path), five);
        before.remove(at(0), b"a@x", Some(b"sip:h1"));
        before.remove(at(0), b"c@x", None);
        write(&mut table, &before, terms);
        assert_eq!(count(&path), ["a@x 0 sip:h2", "a@x 1 sip:h3", "b@x 0 sip:h4"]);

        let after = location();
        let restored = table.restore(&after, at(10_000), &rules(), terms).unwrap();
        assert_eq!((restored.bindings, restored.expired), (1, 2));
        assert_eq!(after.bindings(), 1);
        write(&mut table, &after, terms);
        assert_eq!(count(&path), ["a@x 0 sip:h2"]);
        assert_eq!(after.records(), 1);
    }

    #[test]
    fn a_wall_clock_that_went_back_keeps_no_binding_for_years() {
        let (_folder, path) = folder();
        let mut table = Table::open(&path).unwrap();
        let before = location();
        before.add(at(0), b"a@x", b"sip:h1", 60).unwrap();
        let terms = |wall_ms| Terms { wall_ms, listeners: &[] };
        write(&mut table, &before, terms(1_800_000_000_000));
        let after = location();
        table.restore(&after, at(0), &rules(), terms(0)).unwrap();
        let mut seconds = 0;
        after.lookup(at(0), b"a@x", |binding| {
            seconds = binding.seconds_left(at(0));
            assert_eq!(binding.text().call_id, OPERATOR_CALL_ID);
        });
        assert_eq!(seconds, 3600);
    }

    #[test]
    fn a_removed_binding_is_remembered_over_a_restart() {
        let (_folder, path) = folder();
        let mut table = Table::open(&path).unwrap();
        let terms = Terms {
            wall_ms: 0,
            listeners: &[],
        };
        let before = location();
        let row = Row {
            text: BindingText {
                uri: b"sip:h1",
                call_id: b"c",
                ..BindingText::default()
            },
            source: None,
            expires: at(REMOVED_MS),
            reg_id: 0,
            cseq: 7,
            q: 1000,
            removed: true,
            reached: Reached::ByContact,
        };
        before.restore(b"a@x", &[row], 0, false);
        write(&mut table, &before, terms);
        let after = location();
        table.restore(&after, at(1000), &rules(), terms).unwrap();
        let (cseq, _) = after.change(b"a@x", |record, _| record.bindings.first().map(|b| (b.removed, b.cseq)));
        assert_eq!(cseq, Some((true, 7)));
        assert_eq!(all(&after, 1000), [""; 0]);
    }

    fn refused(path: &Path) -> StoreError {
        match Table::open(path) {
            Ok(_) => panic!("it was opened"),
            Err(trouble) => trouble,
        }
    }

    #[test]
    fn other_peoples_files_are_told_apart_and_not_touched() {
        let (_folder, path) = folder();
        let is_foreign = |words: &[&str]| {
            let before = std::fs::read(&path).unwrap();
            let trouble = refused(&path);
            let StoreError::NotOurs(what) = &trouble else {
                panic!("{trouble:?}");
            };
            assert!(words.iter().all(|word| what.contains(word)), "{what}");
            assert_eq!(std::fs::read(&path).unwrap(), before);
            std::fs::remove_file(&path).unwrap();
        };
        std::fs::write(&path, "users: none\n".repeat(1000)).unwrap();
        is_foreign(&["not a database", "name another file"]);
        let make = |sql: &str| Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        make("CREATE TABLE moz_places (id)");
        is_foreign(&["another program", "moz_places"]);
        make("CREATE TABLE strowger_binding (aor, contact)");
        is_foreign(&["not of this program's making"]);
        make(CREATE);
        make("UPDATE strowger_version SET version = 2");
        is_foreign(&["version 2", "writes version 1"]);
        make(CREATE);
        make("ALTER TABLE strowger_binding DROP COLUMN path");
        is_foreign(&["not of this program's making", "path"]);
        // The users' database may be shared.
        make("CREATE TABLE subscriber (username, domain, ha1)");
        drop(Table::open(&path).unwrap());
        drop(Table::open(&path).unwrap());
    }

    #[test]
    fn what_is_not_there_or_locked_may_be_well_again() {
        let (folder, path) = folder();
        let nowhere = folder.path().join("no/such/folder.db");
        assert!(matches!(refused(&nowhere), StoreError::Transient(what) if what.contains("No such file")));
        drop(Table::open(&path).unwrap());
        let locking = Connection::open(&path).unwrap();
        locking.execute_batch("BEGIN EXCLUSIVE").unwrap();
        assert!(matches!(refused(&path), StoreError::Busy(what) if what.contains("locked")));
    }

    #[test]
    fn a_torn_table_is_never_served() {
        let (_folder, path) = folder();
        let mut table = Table::open(&path).unwrap();
        let terms = Terms {
            wall_ms: 0,
            listeners: &[],
        };
        let before = location();
        for n in 0..2000 {
            let aor = format!("user{n}@x");
            before.add(at(0), aor.as_bytes(), b"sip:somewhere", 60).unwrap();
        }
        write(&mut table, &before, terms);
        drop(table);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 8192].fill(0xa5);
        std::fs::write(&path, &bytes).unwrap();
        let after = location();
        let outcome = Table::open(&path).and_then(|table| table.restore(&after, at(0), &rules(), terms));
        assert!(
            matches!(&outcome, Err(StoreError::NotOurs(what)) if what.contains("torn")),
            "{outcome:?}"
        );
        assert_eq!(after.records(), 0);
    }

    #[test]
    fn a_full_disk_takes_nothing_and_loses_nothing() {
        let (_folder, path) = folder();
        let mut table = Table::open(&path).unwrap();
        table.connection.pragma_update(None, "max_page_count", 20).unwrap();
        let terms = Terms {
            wall_ms: 0,
            listeners: &[],
        };
        let location = location();
        for n in 0..2000 {
            let aor = format!("user{n}@x");
            location.add(at(0), aor.as_bytes(), b"sip:somewhere", 60).unwrap();
        }
        let (mut taken, mut round) = (Taken::default(), location.begin_round(false));
        while let Some(shard) = round.next_shard() {
            location.take_changed(shard, false, &mut taken);
        }
        let outcome = table.write(&taken, terms);
        assert!(
            matches!(&outcome, Err(StoreError::Transient(what)) if what.contains("full") && what.contains("make room")),
            "{outcome:?}"
        );
        table.connection.pragma_update(None, "max_page_count", 100_000).unwrap();
        table.write(&taken, terms).unwrap();
        let after = super::tests::location();
        let restored = table.restore(&after, at(0), &rules(), terms).unwrap();
        assert_eq!(restored.bindings, 2000);
    }

    #[test]
    fn rows_that_somebody_changed_by_hand_are_left_out() {
        let (_folder, path) = folder();
        let mut table = Table::open(&path).unwrap();
        let terms = Terms {
            wall_ms: 0,
            listeners: &[],
        };
        let before = location();
        for aor in ["a@x", "b@x", "c@x", "d@x"] {
            before.add(at(0), aor.as_bytes(), b"sip:somewhere", 60).unwrap();
        }
        write(&mut table, &before, terms);
        table
            .connection
            .execute_batch(
                "UPDATE strowger_binding SET expires = 'soon' WHERE aor = 'a@x';
                 UPDATE strowger_binding SET reached = 'never' WHERE aor = 'b@x';
                 UPDATE strowger_binding SET cseq = -1 WHERE aor = 'c@x';",
            )
            .unwrap();
        let after = location();
        let restored = table.restore(&after, at(0), &rules(), terms).unwrap();
        assert_eq!((restored.bindings, restored.unusable), (1, 3));
        assert!(restored.first.contains("a@x") && restored.first.contains("expires"));
    }

    #[test]
    fn a_row_that_no_register_could_have_brought_is_left_out() {
        let changes = [
            "contact = 'sip:a@h' || char(13, 10) || 'X-Injected: yes'",
            "contact = 'sip:a@h>;x'",
            "contact = 'sip:a@h b'",
            "contact = ''",
            "contact = 'sip:a@' || replace(hex(zeroblob(600)), '0', 'h')",
            "path = '<sip:p;lr>' || char(13, 10) || 'X-Injected: yes'",
            "path = 'sip:p'",
            "call_id = 'a' || char(10)",
            "call_id = ''",
            "instance = '\"<urn:x>\"' || char(13, 10) || 'X: y'",
            "instance = '\"<urn:x>\", <sip:b@h>'",
            "q = 1.5",
            "q = 'NaN'",
            "q = -1",
            "aor = 'x@x' || char(13, 10)",
            "aor = 'u@X'",
            "aor = ''",
            "transport = 'udp', peer = '0.0.0.0:5060', listener = '127.0.0.1:5060'",
            "transport = 'udp', peer = '192.0.2.1:0'",
            "transport = 'sctp', peer = '192.0.2.1:1'",
            "cseq = 4294967296",
            "reg_id = -1",
        ];
        let (_folder, path) = folder();
        let mut table = Table::open(&path).unwrap();
        let all = listeners(&[UDP]);
        let terms = Terms {
            wall_ms: 0,
            listeners: &all,
        };
        let before = location();
        for n in 0..=changes.len() {
            let aor = format!("u{n}@x");
            before.add(at(0), aor.as_bytes(), b"sip:h1", 60).unwrap();
        }
        write(&mut table, &before, terms);
        for (n, change) in changes.iter().enumerate() {
            let change = format!("UPDATE strowger_binding SET {change} WHERE aor = 'u{n}@x'");
            assert_eq!(table.connection.execute(&change, []).unwrap(), 1);
        }
        let after = location();
        let restored = table.restore(&after, at(0), &rules(), terms).unwrap();
        let counts = (restored.bindings, restored.unusable);
        assert_eq!(counts, (1, changes.len()), "{:?}", all_of(&after));
        // An expiry in the far future lasts as long as a REGISTER may ask for.
        table
            .connection
            .execute_batch("UPDATE strowger_binding SET expires = 9223372036854775807")
            .unwrap();
        let after = location();
        table.restore(&after, at(0), &rules(), terms).unwrap();
        assert!(all_of(&after)[0].contains("until 3600000 "));
    }

    fn all_of(location: &Location) -> Vec<String> {
        all(location, 0)
    }

    #[test]
    fn of_one_address_no_more_rows_are_taken_than_contacts_may_be_bound() {
        let (_folder, path) = folder();
        let mut table = Table::open(&path).unwrap();
        let terms = Terms {
            wall_ms: 0,
            listeners: &[],
        };
        let before = location();
        for n in 0..50 {
            let uri = format!("sip:h{n}");
            before.add(at(0), b"a@x", uri.as_bytes(), 60).unwrap();
        }
        write(&mut table, &before, terms);
        let after = location();
        let restored = table.restore(&after, at(0), &rules(), terms).unwrap();
        assert_eq!((restored.bindings, restored.unusable), (10, 40));
    }

    #[test]
    fn a_row_that_names_its_own_address_is_not_called() {
        let (_folder, path) = folder();
        let mut table = Table::open(&path).unwrap();
        let terms = Terms {
            wall_ms: 0,
            listeners: &[],
        };
        let before = location();
        before.add(at(0), b"a@x", b"sip:%61@X;y=1", 60).unwrap();
        before.add(at(0), b"a@x", b"sip:b@x", 60).unwrap();
        write(&mut table, &before, terms);
        let rules = RowRules::of_domain(b"x");
        let after = location();
        table.restore(&after, at(0), &rules, terms).unwrap();
        let mut back = Vec::new();
        after.lookup(at(0), b"a@x", |binding| back.push(binding.leads_back));
        assert_eq!(back, [true, false]);
    }
}
