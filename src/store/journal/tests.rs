//! The journal at work, with intact and damaged files.

use super::file::beside;
use super::writer::{BITE, INTERVAL};
use super::*;
use crate::base::{Instant, Key};
use crate::stack::location::journal::Taken;
use crate::stack::location::{Durability, Print, RowRules};
use crate::store::bindings::Table;
use crate::store::clock;
use crate::store::round_log as binding_log;
use crate::store::stored::Terms;
use rusqlite::Connection;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

const PATIENCE: Duration = Duration::from_secs(20);

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("strowger.db")
    }

    /// Addresses and contacts that another program finds in the table.
    fn rows(&self) -> Vec<String> {
        let connection = Connection::open(self.path()).unwrap();
        let mut statement = connection.prepare("SELECT aor || ' ' || contact FROM strowger_binding").unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }

    /// Addresses and contacts that a server started now would find.
    fn found(&self) -> Vec<String> {
        let found = location(None);
        let table = Table::open(&self.path()).unwrap();
        let terms = Terms { wall_ms: 1_000_000, listeners: &[] };
        let now = Instant::default();
        table.restore(&found, now, &RowRules::default(), terms).unwrap();
        let mut all = Vec::new();
        found.show(now, None, &mut |aor, view| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            all.push(format!("{} {}", text(aor), text(&view.uri)));
        });
        all.sort();
        all
    }

    fn book(&self, location: &Arc<Location>) -> UnstartedJournal {
        self.book_by(location, Arc::new(AtomicU64::new(1_000_000)), "")
    }

    /// The same, if the time since 1970 at time 0 is what `wall_ms` says at the moment, on a machine that has been up for 5 s.
    fn book_by(&self, location: &Arc<Location>, wall_ms: Arc<AtomicU64>, boot: &str) -> UnstartedJournal {
        let settings = Settings {
            path: self.path(),
            durability: location.durability().unwrap_or(Durability::Batched),
            listeners: Vec::new(),
            rules: RowRules::default(),
        };
        let clocks = Clocks {
            now: Box::new(Instant::default),
            wall_ms: Box::new(move || wall_ms.load(Ordering::SeqCst)),
            up_ms: Box::new(|| 5_000),
            boot: boot.to_owned(),
        };
        UnstartedJournal::open(location.clone(), settings, clocks, Arc::default()).unwrap()
    }

    /// Why another server does not get it.
    fn refusal(&self) -> Option<String> {
        let settings =
            Settings { path: self.path(), durability: Durability::Batched, listeners: Vec::new(), rules: RowRules::default() };
        let clocks = Clocks {
            now: Box::new(Instant::default),
            wall_ms: Box::new(|| 1_000_000),
            up_ms: Box::new(|| 5_000),
            boot: String::new(),
        };
        UnstartedJournal::open(location(None), settings, clocks, Arc::default()).err()
    }

    fn journal(&self, location: &Arc<Location>) -> Journal {
        start(self.book(location))
    }
}

fn start(book: UnstartedJournal) -> Journal {
    let hooks = Hooks { prepare: Box::new(|| ()), progress: Box::new(|| ()) };
    book.start(hooks).unwrap()
}

fn location(durability: impl Into<Option<Durability>>) -> Arc<Location> {
    Arc::new(Location::new(Key::new(1, 2), 1_000_000).with_journal(durability))
}

fn add(location: &Location, aor: &str, uri: &str) {
    let (now, aor, uri) = (Instant::default(), aor.as_bytes(), uri.as_bytes());
    location.add(now, aor, uri, 60).unwrap();
}

fn until(what: &str, mut test: impl FnMut() -> bool) {
    let start = time::Instant::now();
    while !test() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_second_server_is_refused_until_the_first_has_closed() {
    let place = Place::new();
    let location = location(Some(Durability::Batched));
    let unstarted = place.book(&location);
    let process = format!("process {}", std::process::id());
    assert!(place.refusal().unwrap().contains(&process));
    let journal = start(unstarted);
    assert!(place.refusal().unwrap().contains(&process));
    // Also while the file is elsewhere: the first will make a new one.
    fs::rename(place.path(), place.path().with_file_name("away.db")).unwrap();
    assert!(place.refusal().unwrap().contains(&process));
    drop(journal);
    assert_eq!(place.refusal(), None);
}

#[test]
fn what_changes_is_on_disk_within_a_second_and_comes_back() {
    let place = Place::new();
    let before = location(Durability::Batched);
    let journal = place.journal(&before);
    add(&before, "a@x", "sip:h1");
    assert_eq!(journal.numbers().unstored, 1);
    until("stored by itself", || journal.numbers().unstored == 0);
    assert_eq!(place.rows(), ["a@x sip:h1"]);
    add(&before, "b@x", "sip:h2");
    before.remove(Instant::default(), b"a@x", None);
    assert!(journal.flush(PATIENCE));
    assert_eq!(place.rows(), ["b@x sip:h2"]);
    let numbers = journal.numbers();
    assert!(numbers.batches >= 2 && numbers.batch_seconds > 0.0, "{numbers:?}");
    assert_eq!(numbers.failures, 0);
    // The last changes are written when it ends.
    add(&before, "c@x", "sip:h3");
    drop(journal);
    assert_eq!(place.rows(), ["b@x sip:h2", "c@x sip:h3"]);
    let after = location(Durability::Batched);
    drop(place.book(&after));
    assert_eq!(after.bindings(), 2);
}

#[test]
fn rounds_are_finished_when_they_are_on_disk_and_their_number_never_lies() {
    let place = Place::new();
    let location = location(Durability::Acknowledged);
    let book = place.book(&location);
    let bell = book.bell();
    let seen: Arc<Mutex<Vec<u64>>> = Arc::default();
    let (own, at) = (seen.clone(), location.clone());
    let hooks = Hooks { prepare: Box::new(|| ()), progress: Box::new(move || own.lock().unwrap().push(at.progress().durable)) };
    let journal = book.start(hooks).unwrap();
    // Two workers make random changes; each looks at the disk when its round is reported as written.
    let work = |worker: usize| {
        for n in 0..200 {
            let aor = format!("{worker}-{n}@x");
            let (_, round) = location.change(Instant::from_ms(1), aor.as_bytes(), |record, _| {
                record.note_change(Instant::from_ms(1), Print::default());
                let text = crate::stack::location::BindingText { uri: b"sip:h1", call_id: b"c", ..Default::default() };
                let mut binding = crate::stack::location::Binding::new(text, None);
                binding.expires = Instant::from_ms(60_000);
                record.add(binding);
            });
            assert!(round > 0);
            bell.ring();
            if n % 10 == 0 {
                until("durable", || location.progress().durable >= round);
                assert!(place.found().contains(&format!("{aor} sip:h1")), "{aor}");
            }
        }
    };
    thread::scope(|scope| {
        for worker in 0..2 {
            scope.spawn(move || work(worker));
        }
    });
    assert!(journal.flush(PATIENCE));
    assert_eq!(place.found().len(), 400);
    drop(journal);
    assert_eq!(place.rows().len(), 400, "at the end it stands in the table");
    let seen = seen.lock().unwrap();
    assert!(seen.is_sorted(), "{seen:?}");
}

#[test]
fn a_database_that_is_locked_is_waited_for_and_loses_nothing() {
    let place = Place::new();
    let location = location(Durability::Acknowledged);
    let journal = place.journal(&location);
    let locking = Connection::open(place.path()).unwrap();
    locking.execute_batch("BEGIN EXCLUSIVE").unwrap();
    add(&location, "a@x", "sip:h1");
    until("failing", || location.refuses_changes());
    assert!(!journal.flush(Duration::from_millis(10)));
    add(&location, "b@x", "sip:h2");
    assert_eq!(journal.numbers().unstored, 2);
    locking.execute_batch("ROLLBACK").unwrap();
    until("well", || journal.numbers().unstored == 0);
    assert!(!location.refuses_changes());
    assert!(journal.numbers().failures > 0);
    drop(locking);
    assert_eq!(place.found(), ["a@x sip:h1", "b@x sip:h2"]);
    drop(journal);
    assert_eq!(place.rows(), ["a@x sip:h1", "b@x sip:h2"]);
}

#[test]
fn a_file_that_goes_or_is_replaced_is_written_again_whole() {
    let place = Place::new();
    let location = location(Durability::Batched);
    let journal = place.journal(&location);
    add(&location, "a@x", "sip:h1");
    assert!(journal.flush(PATIENCE));
    fs::remove_file(place.path()).unwrap();
    add(&location, "b@x", "sip:h2");
    assert!(journal.flush(PATIENCE));
    assert_eq!(place.rows(), ["a@x sip:h1", "b@x sip:h2"]);

    // Another file is in its place, and its old rows mean nothing.
    let other = Place::new();
    let others = super::tests::location(Durability::Batched);
    add(&others, "z@x", "sip:h9");
    drop(other.journal(&others));
    drop(others);
    assert!(!beside(&other.path(), "-wal").exists());
    fs::rename(other.path(), place.path()).unwrap();
    until("all again", || place.rows() == ["a@x sip:h1", "b@x sip:h2"]);
    add(&location, "c@x", "sip:h3");
    assert!(journal.flush(PATIENCE));
    drop(journal);
    assert_eq!(place.rows().len(), 3);
    let verdict: String =
        Connection::open(place.path()).unwrap().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
}

#[test]
fn a_torn_or_foreign_file_is_left_alone_until_another_stands_there() {
    for content in ["SQLite format 3\0 and then nothing of the kind", "alice:realm:hash\n"] {
        let place = Place::new();
        let text = content.repeat(100);
        fs::write(place.path(), &text).unwrap();
        let location = location(Durability::Batched);
        let journal = place.journal(&location);
        add(&location, "a@x", "sip:h1");
        assert!(location.progress().is_failing);
        assert!(!journal.flush(PATIENCE));
        assert!(!location.refuses_changes(), "nobody is refused in this mode");
        thread::sleep(Duration::from_millis(1500));
        assert_eq!(fs::read_to_string(place.path()).unwrap(), text);
        assert_eq!(journal.numbers().unstored, 1);
        fs::remove_file(place.path()).unwrap();
        until("stored", || journal.numbers().unstored == 0);
        assert_eq!(place.rows(), ["a@x sip:h1"]);
        assert!(!location.progress().is_failing);
    }
}

#[test]
fn what_could_not_be_read_at_the_start_comes_when_it_can() {
    let place = Place::new();
    let before = location(Durability::Batched);
    for aor in ["a@x", "b@x"] {
        add(&before, aor, "sip:old");
    }
    drop(place.journal(&before));
    let hidden = place.0.path().join("hidden");
    fs::rename(place.path(), &hidden).unwrap();
    fs::create_dir(place.path()).unwrap();

    let after = location(Durability::Acknowledged);
    let journal = place.journal(&after);
    assert_eq!(after.bindings(), 0);
    assert!(after.refuses_changes());
    add(&after, "b@x", "sip:new");
    fs::remove_dir(place.path()).unwrap();
    fs::rename(&hidden, place.path()).unwrap();
    until("read", || after.bindings() == 2);
    until("stored", || journal.numbers().unstored == 0);
    drop(journal);
    assert_eq!(place.rows(), ["a@x sip:old", "b@x sip:new"]);
}

/// The log is read over the table, in whatever mode the next server runs, and does not stay.
#[test]
fn what_is_in_the_log_alone_is_found_and_goes_into_the_table() {
    for next in [Durability::Batched, Durability::Acknowledged] {
        let place = Place::new();
        let before = location(Durability::Acknowledged);
        add(&before, "a@x", "sip:old");
        add(&before, "gone@x", "sip:h1");
        drop(place.journal(&before));
        assert_eq!(place.rows(), ["a@x sip:old", "gone@x sip:h1"]);
        let mut table = Table::open(&place.path()).unwrap();
        let mut log = |location: &Location| {
            let (mut round, mut taken) = (location.begin_round(false), Taken::default());
            while let Some(shard) = round.next_shard() {
                location.take_changed(shard, false, &mut taken);
            }
            let terms = Terms { wall_ms: 1_000_000, listeners: &[] };
            let mut piece = Vec::new();
            binding_log::write(&taken, terms, &mut piece);
            table.append(&piece, |_| Ok(())).unwrap();
        };
        add(&before, "a@x", "sip:new");
        log(&before);
        before.remove(Instant::default(), b"a@x", Some(b"sip:old"));
        before.remove(Instant::default(), b"gone@x", None);
        add(&before, "b@x", "sip:h2");
        log(&before);
        drop(table);
        assert_eq!(place.rows(), ["a@x sip:old", "gone@x sip:h1"]);
        assert_eq!(place.found(), ["a@x sip:new", "b@x sip:h2"]);
        let after = location(next);
        let journal = place.journal(&after);
        assert_eq!(after.bindings(), 2);
        until("in the table", || place.rows() == ["a@x sip:new", "b@x sip:h2"]);
        let connection = Connection::open(place.path()).unwrap();
        until("cut", || {
            let count = "SELECT count(*) FROM strowger_binding_log";
            connection.query_row(count, [], |row| row.get::<_, i64>(0)) == Ok(0)
        });
        drop(journal);
        assert_eq!(place.found(), ["a@x sip:new", "b@x sip:h2"]);
    }
}

#[test]
fn a_piece_of_the_log_that_is_not_whole_is_never_served() {
    let place = Place::new();
    let before = location(Durability::Acknowledged);
    let journal = place.journal(&before);
    add(&before, "a@x", "sip:h1");
    assert!(journal.flush(PATIENCE));
    let connection = Connection::open(place.path()).unwrap();
    let spoil = "INSERT INTO strowger_binding_log (changes) VALUES (x'0102030405060708090a')";
    connection.execute_batch(spoil).unwrap();
    // As another server would find it: the first one still has this database.
    let copy = Place::new();
    for end in ["", "-wal"] {
        fs::copy(beside(&place.path(), end), beside(&copy.path(), end)).unwrap();
    }
    let after = location(Durability::Batched);
    let book = copy.book(&after);
    assert!(after.progress().is_failing);
    assert_eq!(after.records(), 0);
    drop((book, journal));
}

/// The file stops being a database while it is written to.
#[test]
fn a_file_that_breaks_under_way_is_left_and_all_is_written_elsewhere() {
    let place = Place::new();
    let location = location(Durability::Batched);
    let journal = place.journal(&location);
    // More than the connection caches: damage to the file is only noticed when a page is read again.
    for n in 0..40_000 {
        add(&location, &format!("u{n}@x"), "sip:h1");
    }
    assert!(journal.flush(PATIENCE));
    drop(journal);
    let journal = place.journal(&location);
    let size = fs::metadata(place.path()).unwrap().len() as usize;
    let file = fs::OpenOptions::new().write(true).open(place.path()).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0x5a; size], 0).unwrap();
    // Closing it drops the locks of this process, but nothing else uses the file.
    drop(file);
    for n in 0..300 {
        add(&location, &format!("u{}-new@x", 100 * n), "sip:h2");
    }
    until("failing", || location.progress().is_failing);
    fs::remove_file(place.path()).unwrap();
    until("well", || !location.progress().is_failing);
    assert!(journal.flush(PATIENCE));
    drop(journal);
    assert_eq!(place.rows().len(), 40_300);
}

/// Far more than one batch, all in one round. `BINDINGS=1000000 cargo test … a_large_round -- --nocapture` says how long a million
/// takes.
#[test]
fn a_large_round_is_written_in_bites() {
    let place = Place::new();
    let before = location(Durability::Acknowledged);
    let journal = place.journal(&before);
    let asked = std::env::var("BINDINGS").ok();
    let count = asked.map_or(3 * BITE / 250, |count| count.parse().unwrap());
    let contact = "sip:user0000000@10.0.0.1:5060;transport=udp;ob=a1b2c3d4e5";
    for n in 0..count {
        add(&before, &format!("user{n}@example.com"), contact);
    }
    let start = time::Instant::now();
    assert!(journal.flush(10 * PATIENCE));
    println!("{count} bindings in the log after {:?}", start.elapsed());
    assert!(journal.numbers().batches >= 3);
    drop(journal);
    println!("and in the table after {:?}", start.elapsed());
    let after = location(Durability::Batched);
    let start = time::Instant::now();
    drop(place.book(&after));
    println!("read in {:?}", start.elapsed());
    assert_eq!(after.bindings(), count);
}

/// Since 1970, in 2026 and in 2040.
const RIGHT_MS: u64 = 1_790_000_000_000;
const LATE_MS: u64 = 2_210_000_000_000;

impl Place {
    /// What a server started at this time of the clock finds: addresses, and for how many more seconds.
    fn found_by(&self, wall_ms: u64, boot: &str, durability: Durability) -> Vec<String> {
        let found = location(durability);
        drop(start(self.book_by(&found, Arc::new(AtomicU64::new(wall_ms)), boot)));
        let mut all = Vec::new();
        found.show(Instant::default(), None, &mut |aor, view| {
            let aor = String::from_utf8_lossy(aor);
            all.push(format!("{aor} {}", view.expires.as_ms() / 1000));
        });
        all.sort();
        all
    }

    /// The times that another program reads, in seconds since 1970.
    fn times(&self) -> Vec<i64> {
        let connection = Connection::open(self.path()).unwrap();
        let mut statement = connection.prepare("SELECT expires / 1000 FROM strowger_binding ORDER BY aor").unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }
}

#[test]
fn a_clock_that_is_set_while_the_server_runs_changes_the_times_on_disk() {
    for durability in [Durability::Batched, Durability::Acknowledged] {
        let place = Place::new();
        let before = location(durability);
        let wall_ms = Arc::new(AtomicU64::new(9_000));
        let journal = start(place.book_by(&before, wall_ms.clone(), "b"));
        add(&before, "a@x", "sip:h1");
        assert!(journal.flush(PATIENCE));
        wall_ms.store(RIGHT_MS, Ordering::SeqCst);
        add(&before, "b@x", "sip:h2");
        assert!(journal.flush(PATIENCE));
        drop(journal);
        assert_eq!(place.times(), [RIGHT_MS as i64 / 1000 + 60; 2]);
        let both = ["a@x 60", "b@x 60"];
        assert_eq!(place.found_by(RIGHT_MS, "b", durability), both);
        let later = place.found_by(RIGHT_MS + 61_000, "c", durability);
        assert!(later.is_empty(), "{later:?}");
    }
}

#[test]
fn what_the_clock_is_corrected_by_every_day_makes_no_work() {
    let place = Place::new();
    let before = location(Durability::Batched);
    let wall_ms = Arc::new(AtomicU64::new(RIGHT_MS));
    let journal = start(place.book_by(&before, wall_ms.clone(), "b"));
    add(&before, "a@x", "sip:h1");
    assert!(journal.flush(PATIENCE));
    let batches = journal.numbers().batches;
    wall_ms.store(RIGHT_MS + clock::STEP_MS, Ordering::SeqCst);
    thread::sleep(INTERVAL * 2);
    assert_eq!(journal.numbers().batches, batches);
}

#[test]
fn a_clock_that_is_set_while_the_server_is_down_loses_no_binding() {
    for durability in [Durability::Batched, Durability::Acknowledged] {
        for (written_ms, read_ms, boot) in [
            (9_000, RIGHT_MS, "another"),
            (LATE_MS, RIGHT_MS, "another"),
            (RIGHT_MS, LATE_MS, "another"),
            (RIGHT_MS, 9_000, "another"),
            (RIGHT_MS, RIGHT_MS + 7_200_000, "the same"),
            (RIGHT_MS, RIGHT_MS - 7_200_000, "the same"),
        ] {
            let place = Place::new();
            let before = location(durability);
            let wall_ms = Arc::new(AtomicU64::new(written_ms));
            let journal = start(place.book_by(&before, wall_ms, "the same"));
            add(&before, "a@x", "sip:h1");
            drop(journal);
            let found = place.found_by(read_ms, boot, durability);
            assert_eq!(found, ["a@x 60"], "{written_ms} {read_ms}");
            // It was rewritten by the new clock.
            assert_eq!(place.times(), [read_ms as i64 / 1000 + 60]);
            assert_eq!(place.found_by(read_ms, boot, durability), ["a@x 60"]);
        }
        // If the machine was down meanwhile, two hours are two hours.
        let place = Place::new();
        let before = location(durability);
        let wall_ms = Arc::new(AtomicU64::new(RIGHT_MS));
        let journal = start(place.book_by(&before, wall_ms, "the same"));
        add(&before, "a@x", "sip:h1");
        drop(journal);
        let found = place.found_by(RIGHT_MS + 7_200_000, "another", durability);
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn a_database_of_before_has_no_clock_and_gets_one() {
    let place = Place::new();
    let before = location(Durability::Batched);
    let journal = place.journal(&before);
    add(&before, "a@x", "sip:h1");
    drop(journal);
    let connection = Connection::open(place.path()).unwrap();
    let dropped = format!("DROP TABLE {}", clock::TABLE);
    connection.execute_batch(&dropped).unwrap();
    let found = place.found_by(1_000_000, "b", Durability::Batched);
    assert_eq!(found, ["a@x 60"]);
    assert_eq!(clock::read(&connection), Ok(None));
    let again = location(Durability::Batched);
    let journal = place.journal(&again);
    add(&again, "b@x", "sip:h1");
    drop(journal);
    let seen = clock::read(&connection).unwrap().unwrap();
    assert_eq!((seen.wall_ms, seen.up_ms), (1_000_000, 5_000));
}
