//! The table `subscriber` of a SQLite database, with the columns of Kamailio and OpenSIPS and two for SHA-2: read by the server,
//! changed by `strowger user`. A `password` column, which theirs may have, is never read.

use crate::base::Key;
use crate::stack::auth::digest::{self, Algorithm, Hash};
use crate::stack::auth::users::{Entry, Kinds, Known, Users};
use crate::store::loaded::{BITE, Breathe, INTERRUPTED, Loaded, Unusable, UsersError};
use crate::store::text::Line;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior};
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// Kamailio's table, with columns for the algorithms of RFC 8760 named as in OpenSIPS, and without `password`.
const CREATE: &str = "CREATE TABLE subscriber (
    id INTEGER PRIMARY KEY NOT NULL,
    username VARCHAR(64) DEFAULT '' NOT NULL,
    domain VARCHAR(64) DEFAULT '' NOT NULL,
    ha1 VARCHAR(128) DEFAULT '' NOT NULL,
    ha1b VARCHAR(128) DEFAULT '' NOT NULL,
    ha1_sha256 VARCHAR(64) DEFAULT '' NOT NULL,
    ha1_sha512t256 VARCHAR(64) DEFAULT '' NOT NULL,
    CONSTRAINT subscriber_account_idx UNIQUE (username, domain)
)";

/// How long a command waits while somebody else changes the database, or the server reads it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The hashes that a row may hold, in the order of [`Hashes::list`].
const COLUMNS: [&str; 4] = ["ha1", "ha1b", "ha1_sha256", "ha1_sha512t256"];

// ---- the server's side -------------------------------------------------------------------------------------------------

/// Opens a database for reading; `patience`: how long to wait while it is locked.
pub fn open_to_read(path: &Path, patience: Duration) -> Result<Connection, UsersError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(patience)?;
    Ok(connection)
}

/// Returns whether there is a table of users in this database, as far as that can be told.
pub fn is_in(path: &Path) -> bool {
    let found = open_to_read(path, PATIENCE).and_then(|connection| Columns::find(&connection));
    found.is_ok_and(|columns| columns.is_some())
}

/// Returns a number that differs after each change made by another connection.
pub fn version(connection: &Connection) -> Result<i64, UsersError> {
    Ok(connection.query_row("PRAGMA data_version", [], |row| row.get(0))?)
}

/// Reads all users. `breathe` is called between two batches of rows.
pub fn read(connection: &Connection, key: Key, breathe: Breathe) -> Result<Loaded, UsersError> {
    let columns = Columns::find(connection)?.ok_or_else(no_table)?;
    let hash = |number: usize| match columns.has[number] {
        true => COLUMNS[number],
        false => "NULL",
    };
    let select = format!(
        "SELECT CAST(username AS TEXT), CAST(domain AS TEXT), {}, {}, {}, {} FROM subscriber",
        hash(0),
        hash(1),
        hash(2),
        hash(3)
    );
    // The count and the rows are of one state of the database.
    let snapshot = connection.unchecked_transaction()?;
    let count: i64 = snapshot.query_row("SELECT count(*) FROM subscriber", [], |row| row.get(0))?;
    let mut users = Users::new(key, usize::try_from(count).unwrap_or(0));
    let mut unusable = Unusable::default();
    let mut statement = snapshot.prepare(&select)?;
    let mut rows = statement.query([])?;
    let mut number = 0;
    while let Some(row) = rows.next()? {
        let (name, domain) = (bytes(row.get_ref(0)?), bytes(row.get_ref(1)?));
        let mut hashes = [None; COLUMNS.len()];
        let mut bad = None;
        for (place, hash) in hashes.iter_mut().enumerate() {
            match bytes(row.get_ref(place + 2)?) {
                b"" => {}
                text => match Hash::from_hex(text) {
                    Some(found) => *hash = Some(found),
                    None => bad = Some(COLUMNS[place]),
                },
            }
        }
        let entry = entry(name, domain, hashes);
        match (name.is_empty() || domain.is_empty(), bad) {
            (true, _) => unusable.note(name, domain, "has no name or no domain"),
            (_, Some("ha1")) => unusable.note(name, domain, "has an ha1 that is not a hash"),
            (_, Some(_)) => unusable.note(name, domain, "has a hash column that is not a hash"),
            _ if is_bare(&entry) => unusable.note(name, domain, "has no hash"),
            _ => {}
        }
        if !name.is_empty() && !domain.is_empty() {
            users.insert(&entry);
        }
        number += 1;
        if number % BITE == 0 && !breathe() {
            return Err(UsersError::Busy(INTERRUPTED.to_owned()));
        }
    }
    Ok(Loaded { users, unusable })
}

fn no_table() -> UsersError {
    let message = "has no table subscriber with the columns username, domain and ha1: \
                   \"strowger user add\" makes it";
    UsersError::Bad(message.to_owned())
}

fn bytes(value: ValueRef<'_>) -> &[u8] {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
        _ => b"",
    }
}

/// Kamailio writes SHA-256 into the same columns if configured to: the length tells which.
fn entry<'e>(name: &'e [u8], domain: &'e [u8], hashes: [Option<Hash>; 4]) -> Entry<'e> {
    let of = |hash: Option<Hash>, len: usize| hash.filter(|hash| hash.bytes().len() == len);
    let (short, long) = (Algorithm::Md5.hash_len(), Algorithm::Sha256.hash_len());
    let [ha1, ha1b, sha256, sha512_256] = hashes;
    Entry {
        name,
        domain,
        md5: of(ha1, short),
        md5_whole: of(ha1b, short),
        sha256: of(sha256, long).or(of(ha1, long)),
        sha512_256: of(sha512_256, long),
    }
}

fn is_bare(entry: &Entry) -> bool {
    let hashes = [entry.md5, entry.md5_whole, entry.sha256, entry.sha512_256];
    hashes.iter().all(Option::is_none)
}

/// Returns which of the [`COLUMNS`] the table has.
#[derive(Clone, Copy)]
struct Columns {
    has: [bool; COLUMNS.len()],
}

impl Columns {
    /// `None` if there is no such table, or it lacks a required column.
    fn find(connection: &Connection) -> Result<Option<Columns>, UsersError> {
        let mut statement = connection.prepare("SELECT lower(name) FROM pragma_table_info('subscriber')")?;
        let names = statement.query_map([], |row| row.get::<_, String>(0))?;
        let names = names.collect::<Result<Vec<String>, _>>()?;
        let has = |column: &str| names.iter().any(|name| name == column);
        if !has("username") || !has("domain") || !has("ha1") {
            return Ok(None);
        }
        Ok(Some(Columns { has: COLUMNS.map(has) }))
    }
}

// ---- the operator's side -----------------------------------------------------------------------------------------------

/// All hashes of one user; `None`: unknown.
#[derive(Clone, Copy, Default)]
pub struct Hashes {
    pub md5: Option<Hash>,
    pub md5_whole: Option<Hash>,
    pub sha256: Option<Hash>,
    pub sha512_256: Option<Hash>,
}

impl Hashes {
    pub fn of_password(name: &str, domain: &str, password: &[u8]) -> Hashes {
        let (name, domain) = (name.as_bytes(), domain.as_bytes());
        let whole = [name, b"@", domain].concat();
        let ha1 = |algorithm| Some(digest::ha1(algorithm, name, domain, password));
        Hashes {
            md5: ha1(Algorithm::Md5),
            md5_whole: Some(digest::ha1(Algorithm::Md5, &whole, domain, password)),
            sha256: ha1(Algorithm::Sha256),
            sha512_256: ha1(Algorithm::Sha512_256),
        }
    }

    /// Adds the hash of a line; false if there is one of this kind already.
    pub fn take(&mut self, line: &Line) -> bool {
        let place = match (line.algorithm, line.whole) {
            (Algorithm::Md5, false) => &mut self.md5,
            (Algorithm::Md5, true) => &mut self.md5_whole,
            (Algorithm::Sha256, _) => &mut self.sha256,
            (Algorithm::Sha512_256, _) => &mut self.sha512_256,
        };
        place.replace(line.ha1).is_none()
    }

    fn known(&self) -> Known {
        Known::of(|algorithm| match algorithm {
            Algorithm::Md5 => self.md5.or(self.md5_whole).is_some(),
            Algorithm::Sha256 => self.sha256.is_some(),
            Algorithm::Sha512_256 => self.sha512_256.is_some(),
        })
    }

    fn list(&self) -> [Option<Hash>; COLUMNS.len()] {
        [self.md5, self.md5_whole, self.sha256, self.sha512_256]
    }
}

/// A user as `strowger user list` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    pub domain: String,
    /// Algorithms for which there are hashes.
    pub algorithms: Vec<Algorithm>,
}

/// The result of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    pub added: usize,
    pub changed: usize,
}

/// A database in which users are changed. Every change is made whole or not at all.
pub struct Table {
    connection: Connection,
}

/// Why a change was not made.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// The user exists already.
    Exists,
    NotFound,
    /// A line about the database.
    Database(String),
}

impl From<UsersError> for Refused {
    fn from(trouble: UsersError) -> Refused {
        Refused::Database(trouble.message())
    }
}

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Refused {
        UsersError::from(error).into()
    }
}

impl Table {
    /// Opens the database. If there is none and `make` is set, it is created, with the table, readable by its owner alone.
    pub fn open(path: &Path, make: bool) -> Result<Table, String> {
        if make {
            let mut file = OpenOptions::new();
            match file.write(true).create_new(true).mode(0o600).open(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error.to_string());
                }
                _ => {}
            }
        }
        let table = Table::open_there(path, make).map_err(UsersError::message)?;
        Ok(table)
    }

    fn open_there(path: &Path, make: bool) -> Result<Table, UsersError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(PATIENCE)?;
        if make {
            let change = begin(&mut connection)?;
            let there: bool =
                change.query_row("SELECT count(*) > 0 FROM sqlite_master WHERE name = 'subscriber' COLLATE NOCASE", [], |row| {
                    row.get(0)
                })?;
            if !there {
                change.execute_batch(CREATE)?;
            }
            change.commit()?;
        }
        match Columns::find(&connection)? {
            Some(_) => Ok(Table { connection }),
            None => Err(no_table()),
        }
    }

    /// Adds a user who does not exist yet.
    pub fn add(&mut self, name: &str, domain: &str, hashes: &Hashes) -> Result<(), Refused> {
        let change = begin(&mut self.connection)?;
        if place(&change, name, domain)?.is_some() {
            return Err(Refused::Exists);
        }
        let columns = Columns::find(&change)?.ok_or_else(no_table)?;
        insert(&change, columns, name, domain, hashes)?;
        Ok(change.commit()?)
    }

    /// Changes the password of an existing user. `hashes` makes them for the domain as the table has it.
    pub fn change(&mut self, name: &str, domain: &str, hashes: impl FnOnce(&str) -> Hashes) -> Result<(), Refused> {
        let change = begin(&mut self.connection)?;
        let Some((row, domain)) = place(&change, name, domain)? else {
            return Err(Refused::NotFound);
        };
        let columns = Columns::find(&change)?.ok_or_else(no_table)?;
        update(&change, columns, row, &hashes(&domain))?;
        Ok(change.commit()?)
    }

    pub fn remove(&mut self, name: &str, domain: &str) -> Result<(), Refused> {
        let change = begin(&mut self.connection)?;
        let Some((row, _)) = place(&change, name, domain)? else {
            return Err(Refused::NotFound);
        };
        change.execute("DELETE FROM subscriber WHERE rowid = ?1", [row])?;
        Ok(change.commit()?)
    }

    /// Adds users by their hashes. All hashes of an existing user are replaced.
    pub fn import(&mut self, users: &Imports) -> Result<Imported, Refused> {
        let change = begin(&mut self.connection)?;
        let columns = Columns::find(&change)?.ok_or_else(no_table)?;
        let mut imported = Imported::default();
        for (name, domain, hashes) in &users.list {
            let lacks = |number: &usize| hashes.list()[*number].is_some() && !columns.has[*number];
            if let Some(number) = (0..COLUMNS.len()).find(lacks) {
                let column = COLUMNS[number];
                return Err(Refused::Database(format!(
                    "the table subscriber has no column {column}, which a hash of {name}@{domain} needs: \
                     ALTER TABLE subscriber ADD COLUMN {column} VARCHAR(64) DEFAULT '' NOT NULL"
                )));
            }
            match place(&change, name, domain)? {
                Some((row, _)) => {
                    update(&change, columns, row, hashes)?;
                    imported.changed += 1;
                }
                None => {
                    insert(&change, columns, name, domain, hashes)?;
                    imported.added += 1;
                }
            }
        }
        change.commit()?;
        Ok(imported)
    }

    /// Lists all users, by domain and name.
    pub fn list(&self) -> Result<Vec<Listed>, Refused> {
        let columns = Columns::find(&self.connection)?.ok_or_else(no_table)?;
        let hash = |number: usize| match columns.has[number] {
            true => format!("CAST({} AS BLOB)", COLUMNS[number]),
            false => "NULL".to_owned(),
        };
        let select = format!(
            "SELECT CAST(username AS BLOB), CAST(domain AS BLOB), {}, {}, {}, {} FROM subscriber ORDER BY 2, 1",
            hash(0),
            hash(1),
            hash(2),
            hash(3)
        );
        let mut statement = self.connection.prepare(&select)?;
        let mut rows = statement.query([])?;
        let mut listed = Vec::new();
        while let Some(row) = rows.next()? {
            let text =
                |place| -> Result<String, rusqlite::Error> { Ok(String::from_utf8_lossy(bytes(row.get_ref(place)?)).into_owned()) };
            let mut hashes = [None; COLUMNS.len()];
            for (place, hash) in hashes.iter_mut().enumerate() {
                *hash = Hash::from_hex(bytes(row.get_ref(place + 2)?));
            }
            let entry = entry(b"", b"", hashes);
            let kinds = [
                (entry.sha256.is_some(), Algorithm::Sha256),
                (entry.sha512_256.is_some(), Algorithm::Sha512_256),
                (entry.md5.or(entry.md5_whole).is_some(), Algorithm::Md5),
            ];
            let known = kinds.into_iter().filter(|(known, _)| *known);
            listed.push(Listed { name: text(0)?, domain: text(1)?, algorithms: known.map(|(_, algorithm)| algorithm).collect() });
        }
        Ok(listed)
    }
}

/// Begins a transaction that takes the write lock at once, so that nobody can get in its way later.
fn begin(connection: &mut Connection) -> Result<Transaction<'_>, UsersError> {
    Ok(connection.transaction_with_behavior(TransactionBehavior::Immediate)?)
}

/// Finds the row of a user, and the domain as stored there. Names are compared exactly, domains case-insensitively.
fn place(change: &Transaction, name: &str, domain: &str) -> Result<Option<(i64, String)>, rusqlite::Error> {
    let mut statement = change
        .prepare_cached("SELECT rowid, CAST(domain AS TEXT) FROM subscriber WHERE username = ?1 AND domain = ?2 COLLATE NOCASE")?;
    statement.query_row([name, domain], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

fn insert(change: &Transaction, columns: Columns, name: &str, domain: &str, hashes: &Hashes) -> Result<(), rusqlite::Error> {
    let mut names = String::from("username, domain");
    let mut values = String::from("?1, ?2");
    for number in (0..COLUMNS.len()).filter(|number| columns.has[*number]) {
        names.push_str(&format!(", {}", COLUMNS[number]));
        values.push_str(&format!(", ?{}", number + 3));
    }
    let insert = format!("INSERT INTO subscriber ({names}) VALUES ({values})");
    let mut statement = change.prepare_cached(&insert)?;
    for (place, text) in [name, domain].into_iter().enumerate() {
        statement.raw_bind_parameter(place + 1, text)?;
    }
    bind(&mut statement, columns, 3, hashes)?;
    statement.raw_execute().map(|_| ())
}

fn update(change: &Transaction, columns: Columns, row: i64, hashes: &Hashes) -> Result<(), rusqlite::Error> {
    let settings: Vec<String> = (0..COLUMNS.len())
        .filter(|number| columns.has[*number])
        .map(|number| format!("{} = ?{}", COLUMNS[number], number + 2))
        .collect();
    let update = format!("UPDATE subscriber SET {} WHERE rowid = ?1", settings.join(", "));
    let mut statement = change.prepare_cached(&update)?;
    statement.raw_bind_parameter(1, row)?;
    bind(&mut statement, columns, 2, hashes)?;
    statement.raw_execute().map(|_| ())
}

/// Binds the hashes to the parameters from `first` on; an unknown one is the empty string, as in Kamailio.
fn bind(statement: &mut rusqlite::Statement, columns: Columns, first: usize, hashes: &Hashes) -> Result<(), rusqlite::Error> {
    for (number, hash) in hashes.list().into_iter().enumerate() {
        if columns.has[number] {
            let digits = hash.map_or(String::new(), |hash| String::from_utf8_lossy(hash.hex().bytes()).into_owned());
            statement.raw_bind_parameter(first + number, digits)?;
        }
    }
    Ok(())
}

/// Users to be imported, each once.
#[derive(Default)]
pub struct Imports {
    list: Vec<(String, String, Hashes)>,
    places: HashMap<(String, String), usize>,
}

impl Imports {
    /// Adds a line; the lines of one user are merged.
    pub fn take(&mut self, line: &Line) -> Result<(), String> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec());
        let (Ok(name), Ok(realm)) = (text(line.name), text(line.realm)) else {
            return Err("this is not UTF-8 text".to_owned());
        };
        let key = (name.clone(), realm.to_lowercase());
        let place = *self.places.entry(key).or_insert(self.list.len());
        if place == self.list.len() {
            self.list.push((name, realm, Hashes::default()));
        }
        let hashes = self.list.get_mut(place).map(|(_, _, hashes)| hashes);
        match hashes.is_some_and(|hashes| hashes.take(line)) {
            true => Ok(()),
            false => Err(twice(line)),
        }
    }

    /// Returns how many of them have exactly which hashes.
    pub fn kinds(&self) -> Kinds {
        let mut kinds = Kinds::default();
        for (_, _, hashes) in &self.list {
            kinds.add(hashes.known());
        }
        kinds
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// The message for a line that appears twice.
pub fn twice(line: &Line) -> String {
    format!(
        "the user {:?} of {:?} has a hash of {} already: remove one of the lines",
        String::from_utf8_lossy(line.name),
        String::from_utf8_lossy(line.realm),
        line.algorithm.name()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::text;
    use std::os::unix::fs::MetadataExt;
    use std::path::PathBuf;

    /// A database in a folder of its own.
    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Place {
            Place(tempfile::tempdir().unwrap())
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("users.db")
        }

        /// A database created by another program.
        fn made_by(&self, statements: &str) -> Table {
            let connection = Connection::open(self.path()).unwrap();
            connection.execute_batch(statements).unwrap();
            Table::open(&self.path(), false).unwrap()
        }

        fn load(&self) -> Loaded {
            let connection = open_to_read(&self.path(), Duration::ZERO).unwrap();
            read(&connection, Key::new(1, 2), &mut || true).unwrap()
        }
    }

    /// This table as `kamdbctl create` makes it with DBENGINE=SQLITE.
    const KAMAILIO: &str = "
        CREATE TABLE version (id INTEGER PRIMARY KEY NOT NULL, table_name VARCHAR(32) NOT NULL, table_version INTEGER DEFAULT 0 NOT NULL,
            CONSTRAINT version_table_name_idx UNIQUE (table_name));
        CREATE TABLE subscriber (
            id INTEGER PRIMARY KEY NOT NULL,
            username VARCHAR(64) DEFAULT '' NOT NULL,
            domain VARCHAR(64) DEFAULT '' NOT NULL,
            password VARCHAR(64) DEFAULT '' NOT NULL,
            ha1 VARCHAR(128) DEFAULT '' NOT NULL,
            ha1b VARCHAR(128) DEFAULT '' NOT NULL,
            CONSTRAINT subscriber_account_idx UNIQUE (username, domain));
        CREATE INDEX subscriber_username_idx ON subscriber (username);
        INSERT INTO version (table_name, table_version) values ('subscriber','7');";

    fn hashes(name: &str, password: &str) -> Hashes {
        Hashes::of_password(name, "example.com", password.as_bytes())
    }

    fn proves(users: &Users, name: &str, algorithm: Algorithm, password: &str) -> bool {
        let expected = digest::ha1(algorithm, name.as_bytes(), b"example.com", password.as_bytes());
        let user = users.find(name.as_bytes(), b"example.com");
        user.and_then(|user| user.ha1(algorithm)).is_some_and(|ha1| ha1.equals(&expected))
    }

    fn trouble(path: &Path) -> String {
        match Table::open(path, false) {
            Ok(_) => panic!("{} was taken", path.display()),
            Err(what) => what,
        }
    }

    #[test]
    fn who_is_added_is_known_by_every_hash() {
        let place = Place::new();
        let mut table = Table::open(&place.path(), true).unwrap();
        table.add("alice", "example.com", &hashes("alice", "a")).unwrap();
        table.add("bob", "example.com", &hashes("bob", "b")).unwrap();
        let mode = std::fs::metadata(place.path()).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "hashes are as good as passwords");

        let loaded = place.load();
        assert_eq!((loaded.users.len(), loaded.unusable.count), (2, 0));
        assert_eq!(loaded.users.kinds().to_string(), "2 with MD5, SHA-256 and SHA-512-256");
        for algorithm in Algorithm::ALL {
            assert!(proves(&loaded.users, "alice", algorithm, "a"));
            assert!(proves(&loaded.users, "bob", algorithm, "b"));
            assert!(!proves(&loaded.users, "bob", algorithm, "a"));
        }
        assert!(proves(&loaded.users, "alice@example.com", Algorithm::Md5, "a"));
        let disk = std::fs::read(place.path()).unwrap();
        let secret = hashes("bob", "b").md5.unwrap();
        let found = |text: &[u8]| disk.windows(text.len()).any(|window| window == text);
        assert!(found(secret.hex().bytes()) && found(b"ha1_sha512t256"));
    }

    #[test]
    fn changes_are_refused_where_the_user_is_or_is_not() {
        let place = Place::new();
        let mut table = Table::open(&place.path(), true).unwrap();
        let hashes = |password| move |domain: &str| Hashes::of_password("alice", domain, password);
        let absent = Err(Refused::NotFound);
        assert_eq!(table.change("alice", "example.com", hashes(b"x")), absent);
        assert_eq!(table.remove("alice", "example.com"), absent);
        let first = hashes(b"first")("example.com");
        table.add("alice", "example.com", &first).unwrap();
        for domain in ["example.com", "Example.COM"] {
            let again = table.add("alice", domain, &first);
            assert_eq!(again, Err(Refused::Exists));
        }
        assert_eq!(table.change("Alice", "example.com", hashes(b"x")), absent);
        // By the domain as the table has it, whatever was typed.
        table.change("alice", "EXAMPLE.com", hashes(b"second")).unwrap();
        let users = place.load().users;
        for algorithm in Algorithm::ALL {
            assert!(proves(&users, "alice", algorithm, "second"));
        }
        table.add("alice", "example.net", &first).unwrap();
        table.remove("alice", "Example.com").unwrap();
        assert_eq!(table.remove("alice", "example.com"), absent);
        assert_eq!(place.load().users.len(), 1);
    }

    #[test]
    fn a_database_of_kamailio_is_taken_as_it_is() {
        let place = Place::new();
        let ha1 = |password| {
            let hash = digest::ha1(Algorithm::Md5, b"carol", b"example.com", password);
            String::from_utf8(hash.hex().bytes().to_vec()).unwrap()
        };
        let mut table = place.made_by(&format!(
            "{KAMAILIO} INSERT INTO subscriber (username, domain, password, ha1) VALUES
                ('carol', 'example.com', 'plain', '{}'), ('dave', 'example.com', 'plain', ''),
                ('erin', 'example.com', '', 'no hash'), ('', 'example.com', '', '{0}')",
            ha1(b"c")
        ));
        let loaded = place.load();
        assert!(proves(&loaded.users, "carol", Algorithm::Md5, "c"));
        assert_eq!(loaded.users.kinds().to_string(), "1 with MD5 alone");
        assert_eq!((loaded.users.len(), loaded.unusable.count), (1, 3));
        assert_eq!(loaded.unusable.first, "\"dave\" of \"example.com\" has no hash");

        // A hash without a column is left out; columns that are not ours stay.
        table.add("alice", "example.com", &hashes("alice", "a")).unwrap();
        table.change("carol", "example.com", |_| hashes("carol", "new")).unwrap();
        let users = place.load().users;
        assert!(proves(&users, "alice", Algorithm::Md5, "a"));
        assert!(proves(&users, "alice@example.com", Algorithm::Md5, "a"));
        assert!(proves(&users, "carol", Algorithm::Md5, "new"));
        let connection = Connection::open(place.path()).unwrap();
        let password = |name: &str| -> String {
            let select = "SELECT password FROM subscriber WHERE username = ?1";
            let read = connection.query_row(select, [name], |row| row.get(0));
            read.unwrap()
        };
        assert_eq!((password("alice"), password("carol")), (String::new(), "plain".into()));
    }

    #[test]
    fn other_servers_columns() {
        let place = Place::new();
        let sha = digest::ha1(Algorithm::Sha256, b"a", b"example.com", b"p");
        let truncated = digest::ha1(Algorithm::Sha512_256, b"b", b"example.com", b"p");
        let hex = |hash: &Hash| String::from_utf8(hash.hex().bytes().to_vec()).unwrap();
        // Current OpenSIPS has no ha1b; Kamailio with SHA-256 puts it into ha1.
        place.made_by(&format!(
            "CREATE TABLE subscriber (id INTEGER PRIMARY KEY, USERNAME, domain, email_address, ha1, ha1_SHA256, ha1_sha512t256, rpid);
             INSERT INTO subscriber (username, domain, ha1, ha1_sha256, ha1_sha512t256)
                VALUES ('a', 'example.com', '{}', NULL, NULL), ('b', 'example.com', NULL, NULL, '{}'), (1003, 'example.com', '{0}', '', '')",
            hex(&sha).to_uppercase(),
            hex(&truncated)
        ));
        let loaded = place.load();
        assert_eq!(loaded.unusable, Unusable::default());
        assert!(proves(&loaded.users, "a", Algorithm::Sha256, "p"));
        assert!(!proves(&loaded.users, "a", Algorithm::Md5, "p"));
        assert!(proves(&loaded.users, "b", Algorithm::Sha512_256, "p"));
        assert!(loaded.users.find(b"1003", b"example.com").is_some());
    }

    #[test]
    fn what_is_no_database_of_users_says_what_to_do() {
        let place = Place::new();
        assert!(trouble(&place.path()).contains("unable to open"), "{}", trouble(&place.path()));
        assert!(!place.path().exists(), "and was not made");
        std::fs::write(place.path(), "SQLite format 3\0 and then something else").unwrap();
        assert!(trouble(&place.path()).contains("not a database"));
        std::fs::remove_file(place.path()).unwrap();
        Connection::open(place.path()).unwrap().execute_batch("CREATE TABLE location (username, domain)").unwrap();
        assert!(trouble(&place.path()).contains("strowger user add"));
        let connection = open_to_read(&place.path(), Duration::ZERO).unwrap();
        let read = read(&connection, Key::new(1, 2), &mut || true);
        assert!(matches!(read, Err(UsersError::Bad(what)) if what.contains("no table subscriber")));
        // A table of another layout is not touched.
        Connection::open(place.path()).unwrap().execute_batch("CREATE TABLE subscriber (who, what)").unwrap();
        let made = Table::open(&place.path(), true);
        assert!(made.is_err_and(|what| what.contains("username, domain and ha1")));
    }

    #[test]
    fn an_import_is_whole_or_not_at_all() {
        let place = Place::new();
        let mut table = Table::open(&place.path(), true).unwrap();
        table.add("alice", "example.com", &hashes("alice", "old")).unwrap();
        let digits = |name: &str, algorithm| {
            let hash = digest::ha1(algorithm, name.as_bytes(), b"example.com", b"new");
            String::from_utf8(hash.hex().bytes().to_vec()).unwrap()
        };
        let lines = format!(
            "alice:example.com:{}\nbob:example.com:{}\nbob:example.com:{}:SHA-512-256\n",
            digits("alice", Algorithm::Md5),
            digits("bob", Algorithm::Sha256),
            digits("bob", Algorithm::Sha512_256),
        );
        let mut imports = Imports::default();
        text::read(lines.as_bytes(), |line| imports.take(line)).unwrap();
        assert_eq!(imports.len(), 2);
        let twice = text::read(lines.as_bytes(), |line| imports.take(line));
        assert!(twice.is_err_and(|what| what.starts_with("1: the user \"alice\"")));
        let imported = table.import(&imports).unwrap();
        assert_eq!(imported, Imported { added: 1, changed: 1 });
        let users = place.load().users;
        assert!(proves(&users, "alice", Algorithm::Md5, "new"));
        assert!(proves(&users, "bob", Algorithm::Sha256, "new"));
        assert!(proves(&users, "bob", Algorithm::Sha512_256, "new"));
        // Nothing is left that would accept the old password.
        let alice = users.find(b"alice", b"example.com").unwrap();
        assert!(alice.ha1(Algorithm::Sha256).is_none());
        let listed = table.list().unwrap();
        let show = |user: &Listed| (user.name.clone(), user.domain.clone(), user.algorithms.clone());
        assert_eq!(
            listed.iter().map(show).collect::<Vec<_>>(),
            [
                ("alice".to_owned(), "example.com".to_owned(), vec![Algorithm::Md5]),
                ("bob".to_owned(), "example.com".to_owned(), vec![Algorithm::Sha256, Algorithm::Sha512_256]),
            ]
        );

        // Nothing is imported into a table that lacks a column, not even the users before it.
        let other = Place::new();
        let mut table = other.made_by(KAMAILIO);
        let refused = table.import(&imports);
        assert!(
            matches!(&refused, Err(Refused::Database(what)) if what.contains("ALTER TABLE subscriber ADD COLUMN ha1_sha256")),
            "{refused:?}"
        );
        assert_eq!(other.load().users.len(), 0);
    }

    #[test]
    fn a_locked_database_is_told_from_a_bad_one() {
        let place = Place::new();
        let mut table = Table::open(&place.path(), true).unwrap();
        table.add("alice", "example.com", &hashes("alice", "a")).unwrap();
        let reader = open_to_read(&place.path(), Duration::from_millis(10)).unwrap();
        let before = version(&reader).unwrap();
        let locking = Connection::open(place.path()).unwrap();
        locking.execute_batch("BEGIN EXCLUSIVE").unwrap();
        assert!(matches!(version(&reader), Err(UsersError::Busy(_))));
        locking.execute_batch("ROLLBACK").unwrap();
        assert_eq!(version(&reader), Ok(before));
        table.remove("alice", "example.com").unwrap();
        assert_ne!(version(&reader), Ok(before));
    }

    #[test]
    fn reading_can_be_interrupted() {
        let place = Place::new();
        let table = Table::open(&place.path(), true).unwrap();
        table
            .connection
            .execute_batch(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
                 INSERT INTO subscriber (username, domain, ha1)
                 SELECT i, 'example.com', '0123456789abcdef0123456789abcdef' FROM n",
            )
            .unwrap();
        let connection = open_to_read(&place.path(), Duration::ZERO).unwrap();
        let mut breaths = 0;
        let read = read(&connection, Key::new(1, 2), &mut || {
            breaths += 1;
            breaths < 3
        });
        assert!(matches!(read, Err(UsersError::Busy(_))));
        assert_eq!(breaths, 3);
        assert_eq!(place.load().users.len(), 5000);
    }
}
