//! The table `strowger_binding` of a SQLite database: the content of the location service, one row per binding, readable with
//! `sqlite3`.
//!
//! An address-of-record has its rows numbered 0, 1, … in the order of memory. They are replaced one by one in place, so that a
//! refresh, which nearly every change is, is one lookup and touches nothing else.

use super::binding_rows::{REPLACE, SELECT, Writing};
use super::clock::{self, Seen};
use super::error::{StoreError, torn};
use super::restore::{Restored, Restorer};
use super::round_log::Replay;
use super::stored::Terms;
use crate::base::Instant;
use crate::stack::location::journal::Taken;
use crate::stack::location::{Location, RowRules};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// Times are milliseconds since 1970. `peer` is where the REGISTER came from; `local` is the address of ours it was sent to, if the
/// listener is bound to all of them; `listener` is the listener's own address. `removed`: the binding is gone but remembered until
/// it expires, so that an older REGISTER that arrives late cannot bring it back.
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

const LOG: &str = "INSERT INTO strowger_binding_log (changes) VALUES (?)";

/// How long the journal waits while another program has the database locked. Only the journal's thread waits.
const PATIENCE: Duration = Duration::from_secs(2);

/// Pages of the write-ahead log (usually 4 KiB each) after which they go into the database: a page that changes often is moved
/// once.
const CHECKPOINT_PAGES: u32 = 8192;

/// Bytes of the log that are kept for reuse.
const LOG_BYTES: i64 = 64 << 20;

/// A database that holds the table. Its lock on the file is lost if this process closes any other descriptor of the file.
pub struct Table {
    connection: Connection,
    /// What the clocks show, to be written with the next change.
    seen: Option<Seen>,
}

impl Table {
    /// Opens the database, or creates it, readable by its owner alone.
    pub fn open(path: &Path) -> Result<Table, StoreError> {
        make(path).map_err(|error| StoreError::Transient(error.to_string()))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(PATIENCE)?;
        prepare(&mut connection)?;
        connection.set_prepared_statement_cache_capacity(8);
        // Readers and the journal do not wait for each other.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // A committed round survives a power failure, in both modes: at one commit a second, or one for hundreds of registrations,
        // it costs next to nothing, and without it a crash could lose more than the last round.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
        Ok(Table { connection, seen: None })
    }

    /// What the clocks showed when the table was last written.
    pub fn seen(&self) -> Result<Option<Seen>, StoreError> {
        clock::read(&self.connection)
    }

    /// Sets what the clocks show now; it is written with the next change.
    pub fn see(&mut self, seen: Seen) {
        self.seen = Some(seen);
    }

    /// Returns a number that differs after each change made by *another* connection.
    pub fn version(&self) -> Result<i64, StoreError> {
        Ok(self.connection.query_row("PRAGMA data_version", [], |row| row.get(0))?)
    }

    /// Reads all bindings into the location service, after checking that the table is intact. By the `rules` no binding lasts
    /// longer from `now` than a REGISTER can ask for, whatever the wall clock did meanwhile, and none holds what a REGISTER could
    /// not have brought.
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
        Ok(Restored { has_log, ..gathering.finish_all() })
    }

    /// Writes what was taken, all of it or nothing.
    pub fn write(&mut self, taken: &Taken, terms: Terms) -> Result<(), StoreError> {
        self.rewrite(false, |writing| writing.write(taken.iter(), terms))
    }

    /// Appends a piece to the log, and does `more` in the same database transaction. Returns the piece's number.
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

    /// One database transaction: everything that `work` writes, in any number of steps, is stored, or nothing. `clear`: the table
    /// is emptied first.
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

/// Checks that the database is one that we may write, and that it has our tables.
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
            .query_row("SELECT version FROM strowger_version WHERE table_name = 'strowger_binding'", [], |row| row.get(0))
            .optional()
            .map_err(|error| not_ours(&error.to_string()))?;
        return match version {
            Some(VERSION) => {
                // A missing column is found now, not when a phone registers.
                change
                    .prepare(SELECT)
                    .and_then(|_| change.prepare(REPLACE))
                    .and_then(|_| change.prepare(LOG))
                    .map_err(|error| not_ours(&error.to_string()))?;
                // Databases of earlier versions have none.
                if !has(clock::TABLE) {
                    change.execute_batch(clock::CREATE)?;
                    change.commit()?;
                }
                Ok(())
            }
            Some(other) => Err(not_ours(&format!("it is of version {other}; this strowger writes version {VERSION}"))),
            None => Err(not_ours("it has no version")),
        };
    }
    // Users and bindings may share a database, and the users' may be Kamailio's.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Channel, Flow, Key, Transport};
    use crate::stack::location::{BindingText, Durability, OPERATOR_CALL_ID, REMOVED_MS, Reached, Row};
    use std::net::SocketAddr;
    use std::path::PathBuf;

    /// An hour is the longest that a binding lasts.
    fn rules() -> RowRules {
        RowRules::default()
    }

    /// Memory's time is the wall's, and there is no listener.
    const TERMS: Terms = Terms { wall_ms: 0, listeners: &[] };

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
        let terms = Terms { wall_ms: 1_000_000, listeners: &both };
        write(&mut table, &before, terms);
        drop(table);

        // Ten seconds later by the wall, in another run whose clock began elsewhere, with the listeners the other way round.
        let turned = listeners(&[TLS, UDP]);
        let later = Terms { wall_ms: 1_009_000, listeners: &turned };
        let after = location();
        let table = Table::open(&path).unwrap();
        let restored = table.restore(&after, at(1000), &rules(), later).unwrap();
        assert_eq!((restored.bindings, restored.unusable), (4, 0), "{restored:?}");
        let expected: Vec<String> = all(&before, 0)
            .into_iter()
            .map(|line| {
                let moved = |ms: u64| format!("until {}", ms - 9_000);
                let line = (0..4).fold(line, |line, n| line.replace(&format!("until {}", 60_000 + n), &moved(60_000 + n)));
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
        let terms = Terms { wall_ms: 0, listeners: &both };
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
        let terms = Terms { wall_ms: 5_000, listeners: &[] };
        let count = |path: &Path| -> Vec<String> {
            let connection = Connection::open(path).unwrap();
            let mut statement = connection.prepare("SELECT aor || ' ' || place || ' ' || contact FROM strowger_binding").unwrap();
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
        let before = location();
        let row = Row {
            text: BindingText { uri: b"sip:h1", call_id: b"c", ..BindingText::default() },
            source: None,
            expires: at(REMOVED_MS),
            reg_id: 0,
            cseq: 7,
            q: 1000,
            removed: true,
            reached: Reached::ByContact,
        };
        before.restore(b"a@x", &[row], 0, false);
        write(&mut table, &before, TERMS);
        let after = location();
        table.restore(&after, at(1000), &rules(), TERMS).unwrap();
        let (cseq, _) = after.change(Instant::from_ms(1), b"a@x", |record, _| record.bindings.first().map(|b| (b.removed, b.cseq)));
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
        let before = location();
        for n in 0..2000 {
            let aor = format!("user{n}@x");
            before.add(at(0), aor.as_bytes(), b"sip:somewhere", 60).unwrap();
        }
        write(&mut table, &before, TERMS);
        drop(table);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 8192].fill(0xa5);
        std::fs::write(&path, &bytes).unwrap();
        let after = location();
        let outcome = Table::open(&path).and_then(|table| table.restore(&after, at(0), &rules(), TERMS));
        assert!(matches!(&outcome, Err(StoreError::NotOurs(what)) if what.contains("torn")), "{outcome:?}");
        assert_eq!(after.records(), 0);
    }

    #[test]
    fn a_full_disk_takes_nothing_and_loses_nothing() {
        let (_folder, path) = folder();
        let mut table = Table::open(&path).unwrap();
        table.connection.pragma_update(None, "max_page_count", 20).unwrap();
        let location = location();
        for n in 0..2000 {
            let aor = format!("user{n}@x");
            location.add(at(0), aor.as_bytes(), b"sip:somewhere", 60).unwrap();
        }
        let (mut taken, mut round) = (Taken::default(), location.begin_round(false));
        while let Some(shard) = round.next_shard() {
            location.take_changed(shard, false, &mut taken);
        }
        let outcome = table.write(&taken, TERMS);
        assert!(
            matches!(&outcome, Err(StoreError::Transient(what)) if what.contains("full") && what.contains("make room")),
            "{outcome:?}"
        );
        table.connection.pragma_update(None, "max_page_count", 100_000).unwrap();
        table.write(&taken, TERMS).unwrap();
        let after = super::tests::location();
        let restored = table.restore(&after, at(0), &rules(), TERMS).unwrap();
        assert_eq!(restored.bindings, 2000);
    }

    #[test]
    fn rows_that_somebody_changed_by_hand_are_left_out() {
        let (_folder, path) = folder();
        let mut table = Table::open(&path).unwrap();
        let before = location();
        for aor in ["a@x", "b@x", "c@x", "d@x"] {
            before.add(at(0), aor.as_bytes(), b"sip:somewhere", 60).unwrap();
        }
        write(&mut table, &before, TERMS);
        table
            .connection
            .execute_batch(
                "UPDATE strowger_binding SET expires = 'soon' WHERE aor = 'a@x';
                 UPDATE strowger_binding SET reached = 'never' WHERE aor = 'b@x';
                 UPDATE strowger_binding SET cseq = -1 WHERE aor = 'c@x';",
            )
            .unwrap();
        let after = location();
        let restored = table.restore(&after, at(0), &rules(), TERMS).unwrap();
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
        let terms = Terms { wall_ms: 0, listeners: &all };
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
        table.connection.execute_batch("UPDATE strowger_binding SET expires = 9223372036854775807").unwrap();
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
        let before = location();
        for n in 0..50 {
            let uri = format!("sip:h{n}");
            before.add(at(0), b"a@x", uri.as_bytes(), 60).unwrap();
        }
        write(&mut table, &before, TERMS);
        let after = location();
        let restored = table.restore(&after, at(0), &rules(), TERMS).unwrap();
        assert_eq!((restored.bindings, restored.unusable), (10, 40));
    }

    #[test]
    fn a_row_that_names_its_own_address_is_not_called() {
        let (_folder, path) = folder();
        let mut table = Table::open(&path).unwrap();
        let before = location();
        before.add(at(0), b"a@x", b"sip:%61@X;y=1", 60).unwrap();
        before.add(at(0), b"a@x", b"sip:b@x", 60).unwrap();
        write(&mut table, &before, TERMS);
        let rules = RowRules::of_domain(b"x");
        let after = location();
        table.restore(&after, at(0), &rules, TERMS).unwrap();
        let mut back = Vec::new();
        after.lookup(at(0), b"a@x", |binding| back.push(binding.leads_back));
        assert_eq!(back, [true, false]);
    }
}
