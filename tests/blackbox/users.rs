//! `strowger user`, the database as `sqlite3` and Kamailio see it, and a running server that notices every change.

use std::fs;
use std::path::Path;
use std::time::Duration;

use md5::{Digest, Md5};

use crate::agent::Agent;
use crate::message::Message;
use crate::place::{CALLER, Place, wait_for};
use crate::process::{self, Outcome, Process};
use crate::server::{Conf, Server, binary};

const PATIENCE: Duration = Duration::from_secs(20);

/// The hashes of alice of example.test with the password "open sesame", by another program.
const MD5: &str = "b52e892d19c8a80d238880b09ecf4aaf";
const MD5_WHOLE: &str = "529c845c74bc6112b5b11d23520035d0";
const SHA256: &str = "e822bc113bb0fceb57334af78a72365b20baf1ffbeee19a502a3c43c3090aa2b";
const SHA512_256: &str = "0ab06c07ddee011e6431e218619268f69ea87000a653004bc15b618de5f438cd";

/// What `kamdbctl create` makes of this table.
const KAMAILIO: &str = "
CREATE TABLE version (id INTEGER PRIMARY KEY NOT NULL, table_name VARCHAR(32) NOT NULL,
    table_version INTEGER DEFAULT 0 NOT NULL,
    CONSTRAINT version_table_name_idx UNIQUE (table_name));
INSERT INTO version (table_name, table_version) values ('version','1');
CREATE TABLE subscriber (
    id INTEGER PRIMARY KEY NOT NULL,
    username VARCHAR(64) DEFAULT '' NOT NULL,
    domain VARCHAR(64) DEFAULT '' NOT NULL,
    password VARCHAR(64) DEFAULT '' NOT NULL,
    ha1 VARCHAR(128) DEFAULT '' NOT NULL,
    ha1b VARCHAR(128) DEFAULT '' NOT NULL,
    CONSTRAINT subscriber_account_idx UNIQUE (username, domain)
);
CREATE INDEX subscriber_username_idx ON subscriber (username);
INSERT INTO version (table_name, table_version) values ('subscriber','7');
";

/// A conf in the test's folder, and the commands that take it.
struct Desk<'p> {
    place: &'p Place,
}

impl<'p> Desk<'p> {
    fn new(place: &'p Place, conf: &Conf) -> Desk<'p> {
        conf.write(place);
        Desk { place }
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        let all = [&["-c", "strowger.toml"], arguments].concat();
        process::run(self.place, "desk", binary(), &all, PATIENCE)
    }

    /// A command that is given `input`.
    fn tell(&self, arguments: &[&str], input: &str) -> Outcome {
        use std::io::Write;
        let all = [&["-c", "strowger.toml"], arguments].concat();
        let all: Vec<String> = all.iter().map(|word| (*word).to_owned()).collect();
        let (process, mut stdin) = Process::converse(self.place, "desk", binary(), &all);
        // A command that refuses before it reads may be gone.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        process.finish(PATIENCE)
    }

    fn add(&self, user: &str, password: &str) {
        let outcome = self.tell(&["user", "add", user, "--create", "--password-stdin"], password);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
    }

    /// The command is refused with one line, which has all these words in it.
    fn refused(&self, arguments: &[&str], words: &[&str]) {
        let outcome = self.run(arguments);
        let said = outcome.stderr.trim();
        assert!(
            outcome.code == Some(1) && said.lines().count() == 1 && words.iter().all(|word| said.contains(word)),
            "{arguments:?}: {outcome:?}"
        );
    }

    fn list(&self) -> String {
        let outcome = self.run(&["user", "list"]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        outcome.stdout
    }
}

/// What Debian's own `sqlite3` says to this.
fn sqlite3(place: &Place, database: &str, statements: &str) -> String {
    let file = place.path(database).display().to_string();
    // The server may be reading or writing just then.
    let patient = ["-batch", "-cmd", ".timeout 5000", file.as_str(), statements];
    let outcome = process::run(place, "sqlite3", Path::new("sqlite3"), &patient, PATIENCE);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    outcome.stdout
}

fn md5(text: &str) -> String {
    let bytes = Md5::digest(text.as_bytes());
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A conf that challenges REGISTER, with this file of users.
fn conf(place: &Place, users: &str) -> Conf {
    Conf::new(place).set("auth", "challenge_register", "true").set("auth", "users", &format!("{users:?}"))
}

/// A REGISTER of `user` with the answer to the challenge for MD5, as any phone would make it; the final response.
fn register(place: &Place, server: &Server, user: &str, password: &str) -> Message {
    let agent = Agent::new(place.at_port(CALLER, 0), server.address);
    let contact = format!("<sip:{user}@{}>", place.at(CALLER));
    let first = agent.register("example.test", user, &contact, 60);
    let challenged = agent.ask(&first);
    assert_eq!(challenged.status(), Some(401), "{:?}", challenged.start);
    let lines: Vec<&String> =
        challenged.headers.iter().filter(|(name, _)| name == "www-authenticate").map(|(_, value)| value).collect();
    let md5_line = lines.iter().find(|line| line.contains("algorithm=MD5"));
    let line = md5_line.unwrap_or_else(|| panic!("no challenge for MD5 among {lines:?}"));
    let nonce = line.split("nonce=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a nonce");
    assert!(line.contains("realm=\"example.test\""), "{line}");
    let mut second = agent.register("example.test", user, &contact, 60);
    (second.call_id, second.cseq) = (first.call_id, first.cseq + 1);
    let ha1 = md5(&format!("{user}:example.test:{password}"));
    let ha2 = md5(&format!("REGISTER:{}", second.uri));
    let response = md5(&format!("{ha1}:{nonce}:00000001:abc:auth:{ha2}"));
    second.extra.push(format!(
        "Authorization: Digest username=\"{user}\", realm=\"example.test\", nonce=\"{nonce}\", uri=\"{}\", \
         response=\"{response}\", algorithm=MD5, cnonce=\"abc\", qop=auth, nc=00000001",
        second.uri
    ));
    agent.ask(&second)
}

fn may_register(place: &Place, server: &Server, user: &str, password: &str) -> bool {
    let answer = register(place, server, user, password);
    match answer.status() {
        Some(200) => true,
        Some(401) => false,
        _ => panic!("{:?}", answer.start),
    }
}

/// A running server notices a change within a second or two.
fn until(what: &str, mut test: impl FnMut() -> bool) {
    let seen = wait_for(Duration::from_secs(10), || {
        std::thread::sleep(Duration::from_millis(100));
        test().then_some(())
    });
    assert!(seen.is_some(), "never: {what}");
}

#[test]
fn the_life_of_a_user() {
    let place = Place::new("user");
    let desk = Desk::new(&place, &Conf::new(&place));
    for command in [vec!["list"], vec!["rm", "alice"]] {
        let arguments = [vec!["user"], command].concat();
        desk.refused(&arguments, &["users.db: there is no such database", "user add"]);
    }
    assert!(!place.path("users.db").exists());

    desk.add("alice", "open sesame\n");
    let all = "SELECT username, domain, ha1, ha1b, ha1_sha256, ha1_sha512t256 FROM subscriber";
    let row = format!("alice|example.test|{MD5}|{MD5_WHOLE}|{SHA256}|{SHA512_256}\n");
    assert_eq!(sqlite3(&place, "users.db", all), row);
    let disk = fs::read(place.path("users.db")).expect("the database");
    let says = |text: &str| disk.windows(text.len()).any(|bytes| bytes == text.as_bytes());
    assert!(says(MD5) && !says("sesame"), "hashes, and never a password");

    desk.refused(&["user", "add", "alice@EXAMPLE.test", "--password", "x"], &["alice@example.test exists already", "passwd"]);
    desk.refused(&["user", "passwd", "bob", "--password", "x"], &["no bob@example.test"]);
    desk.refused(&["user", "rm", "bob@example.test"], &["no bob@example.test"]);
    desk.refused(&["user", "add", "b:b", "--password", "x"], &["colon"]);
    desk.refused(&["user", "add", "bob", "--password", ""], &["empty"]);
    assert_eq!(sqlite3(&place, "users.db", all), row, "nothing has changed");

    let changed = desk.run(&["user", "passwd", "alice", "--password", "other"]);
    assert_eq!(changed.code, Some(0), "{changed:?}");
    let ha1 = sqlite3(&place, "users.db", "SELECT ha1 FROM subscriber");
    assert_eq!(ha1.trim(), md5("alice:example.test:other"));
    desk.add("bob@other.test", "b");
    assert_eq!(
        desk.list().lines().collect::<Vec<_>>(),
        [
            "NAME   DOMAIN        HASHES",
            "alice  example.test  SHA-256,SHA-512-256,MD5",
            "bob    other.test    SHA-256,SHA-512-256,MD5",
        ]
    );
    assert_eq!(desk.run(&["user", "rm", "alice"]).code, Some(0));
    assert_eq!(desk.list().lines().count(), 2);
    // Without a password, and without a terminal at which it could be asked for, there is nothing to do.
    for arguments in [["user", "add", "carol"], ["user", "passwd", "bob"]] {
        let outcome = desk.run(&arguments);
        assert!(outcome.code == Some(1) && outcome.stderr.contains("--password-stdin"), "{outcome:?}");
    }
}

/// Users and bindings had one database by default. Where only that is there, it goes on being used.
#[test]
fn users_that_are_where_they_were_by_default_are_found_there() {
    let place = Place::new("former");
    let before = conf(&place, "strowger.db");
    let desk = Desk::new(&place, &before);
    desk.add("alice", "a");
    // The conf of before named no file.
    let now = Conf::new(&place).set("auth", "challenge_register", "true").set("registrar", "database", r#""strowger.db""#);
    now.write(&place);
    let (users, former) = (place.path("users.db").display().to_string(), place.path("strowger.db").display().to_string());
    let told = [&*format!("there is no {users}, and {former} has users: these are used"), "docs/users.md"];
    desk.add("bob", "b");
    let listed = desk.run(&["user", "list"]);
    assert!(listed.stdout.contains("alice") && listed.stdout.contains("bob"), "{listed:?}");
    assert!(told.iter().all(|words| listed.stderr.contains(words)), "{listed:?}");
    assert!(!place.path("users.db").exists());
    let checked = desk.run(&["check"]);
    assert!(checked.stdout.contains(&format!("users      2 in {former}")), "{checked:?}");
    assert!(checked.stdout.contains(&format!("warning    [auth] users: there is no {users}")), "{checked:?}");
    let mut server = now.start(&place);
    server.expect_log(&["WARN", told[0]]);
    assert!(may_register(&place, &server, "alice", "a") && may_register(&place, &server, "bob", "b"));
    // Moved as the documentation says, while the server runs.
    let dump = sqlite3(&place, "strowger.db", ".dump subscriber");
    sqlite3(&place, "users.db", &dump);
    sqlite3(&place, "users.db", "DELETE FROM subscriber WHERE username = 'bob'");
    let said = server.log().len();
    assert_eq!(server.command(&place, &["reload"]).code, Some(0));
    server.expect_log_after(said, &[&format!("users read from {users}: 1")]);
    assert!(may_register(&place, &server, "alice", "a") && !may_register(&place, &server, "bob", "b"));
    assert!(!desk.run(&["user", "list"]).stderr.contains("there is no"));
    server.assert_alive(&place, CALLER);
}

#[test]
fn a_bare_name_needs_a_domain_to_complete_it() {
    let place = Place::new("userdomain");
    let desk = Desk { place: &place };
    place.write("strowger.toml", "[auth]\nusers = \"u.db\"\n");
    desk.refused(&["user", "add", "alice", "--password", "x"], &["alice", "NAME@DOMAIN"]);
    assert!(!place.path("u.db").exists());
    place.write("strowger.toml", "[auth]\nusers = \"u.db\"\nrealm = \"My Phones\"\n");
    desk.add("alice", "x");
    let said = desk.tell(&["user", "add", "bob@example.net", "--password-stdin"], "x");
    assert!(said.code == Some(0) && said.stderr.contains("no challenge asks for it"), "{said:?}");
    let names = "SELECT username, domain, ha1 FROM subscriber WHERE username = 'alice'";
    let expected = format!("alice|My Phones|{}\n", md5("alice:My Phones:x"));
    assert_eq!(sqlite3(&place, "u.db", names), expected);
}

#[test]
fn an_import_is_whole_or_nothing() {
    let place = Place::new("import");
    let desk = Desk::new(&place, &Conf::new(&place));
    place.write(
        "users.txt",
        &format!(
            "# made by htdigest\nalice:example.test:{MD5}\nalice:example.test:{SHA512_256}:SHA-512-256\n\n\
             bob:example.test:{SHA256}\n"
        ),
    );
    desk.refused(&["user", "import", "users.txt"], &["users.db: there is no such database", "--create"]);
    let imported = desk.run(&["user", "import", "users.txt", "--create"]);
    let database = place.path("users.db").display().to_string();
    assert_eq!(imported.stdout, format!("2 added, 0 changed in {database}\n"), "{imported:?}");
    assert!(desk.list().contains("alice  example.test  SHA-512-256,MD5\n"));
    place.write("more.txt", &format!("carol:example.test:{MD5}\nalice:example.test:{SHA256}\ndan:example.test:secret\n"));
    desk.refused(&["user", "import", "more.txt"], &["more.txt:3: HA1 must be"]);
    assert!(!desk.list().contains("carol"));
    let more = fs::read_to_string(place.path("more.txt")).expect("what was written");
    let more = more.replace("dan:example.test:secret\n", "");
    let imported = desk.tell(&["user", "import", "-"], &more);
    assert_eq!(imported.stdout, format!("1 added, 1 changed in {database}\n"), "{imported:?}");
    assert!(desk.list().contains("alice  example.test  SHA-256\n"));
    desk.refused(&["user", "import", "none.txt"], &["none.txt"]);
}

/// One user that is imported with MD5 alone, and a row without `ha1`, change nothing for others; what they mean is told by `user
/// import`, by `check` and in the log.
#[test]
fn what_the_hashes_of_the_users_imply_is_told() {
    let place = Place::new("kinds");
    let conf = conf(&place, "users.db");
    let desk = Desk::new(&place, &conf);
    desk.add("alice", "a");
    let check = |desk: &Desk| desk.run(&["check"]).stdout;
    let users = place.path("users.db").display().to_string();
    assert!(check(&desk).contains(&format!("users      1 in {users} (1 with MD5, SHA-256 and SHA-512-256)\n")), "{}", check(&desk));
    assert!(!check(&desk).contains("warning"), "{}", check(&desk));
    place.write("old.txt", &format!("bob:example.test:{}\n", md5("bob:example.test:b")));
    let imported = desk.run(&["user", "import", "old.txt"]);
    assert_eq!((imported.code, imported.stdout.as_str()), (Some(0), &*format!("1 added, 0 changed in {users}\n")));
    let said = "1 have not all of SHA-256, MD5: in their own names they are offered what they have, and nothing else";
    assert!(imported.stderr.contains(&format!("imported are 1 with MD5 alone: of these {said}")), "{imported:?}");
    sqlite3(
        &place,
        "users.db",
        &format!("INSERT INTO subscriber (username, domain, ha1_sha256) VALUES ('carol', 'example.test', '{SHA256}')"),
    );
    sqlite3(&place, "users.db", "INSERT INTO subscriber (username, domain) VALUES ('dave', 'example.test')");
    let kinds = "1 with MD5, SHA-256 and SHA-512-256, 1 with SHA-256 alone, 1 with MD5 alone";
    let checked = check(&desk);
    let bad = "1 of its rows cannot be used as they are, the first: \"dave\" of \"example.test\" has no hash";
    assert!(checked.contains(&format!("users      3 in {users} ({kinds}), {bad}\n")), "{checked}");
    assert!(checked.contains("warning    of the users 2 have not all of SHA-256, MD5: "), "{checked}");
    let mut server = conf.start(&place);
    server.expect_log(&[&format!("users read from {users}: 3 ({kinds}); {bad}")]);
    let offered = |user: &str| {
        let agent = Agent::new(place.at_port(CALLER, 0), server.address);
        let contact = format!("<sip:{user}@{}>", place.at(CALLER));
        let challenged = agent.ask(&agent.register("example.test", user, &contact, 60));
        let lines = challenged.headers.iter().filter(|(name, _)| name == "www-authenticate");
        let algorithm = |line: &str| line.split("algorithm=").nth(1).and_then(|rest| rest.split(',').next()).map(str::to_owned);
        lines.filter_map(|(_, line)| algorithm(line)).collect::<Vec<_>>()
    };
    assert_eq!(offered("alice"), ["SHA-256", "MD5"]);
    assert_eq!(offered("bob"), ["MD5"]);
    assert_eq!(offered("carol"), ["SHA-256"]);
    assert_eq!(offered("dave"), ["SHA-256", "MD5"]);
    assert!(may_register(&place, &server, "bob", "b"));
    server.assert_alive(&place, CALLER);
}

#[test]
fn without_users_nobody_is_challenged() {
    let place = Place::new("nousers");
    let desk = Desk::new(&place, &conf(&place, "users.db"));
    for command in ["check", "run"] {
        let outcome = desk.run(&[command]);
        assert!(
            outcome.code == Some(1)
                && outcome.stderr.contains("[auth] users: ")
                && outcome.stderr.contains("/users.db: there is no such database")
                && outcome.stderr.contains("strowger user add"),
            "{command}: {outcome:?}"
        );
    }
    let text = Desk::new(&place, &conf(&place, "users.txt"));
    text.refused(&["check"], &["users.txt: cannot be read: No such file"]);
    place.write("users.txt", "alice:example.test:secret\n");
    text.refused(&["check"], &["users.txt:1: HA1 must be"]);
    text.refused(&["user", "list"], &["users.txt", "a text file"]);
    place.write("users.txt", &format!("alice:example.test:{MD5}\n"));
    let good = text.run(&["check"]);
    assert!(
        good.code == Some(0)
            && good.stdout.contains("challenged REGISTER by SHA-256, MD5, realm the domain of the request")
            && good.stdout.contains("users      1 in ")
            && good.stdout.contains("/users.txt"),
        "{good:?}"
    );
    sqlite3(&place, "other.db", "CREATE TABLE location (id)");
    let other = Desk::new(&place, &conf(&place, "other.db"));
    other.refused(&["check"], &["other.db: has no table subscriber"]);
    // Nothing is challenged, and no users are asked for.
    let none = Desk::new(&place, &Conf::new(&place));
    assert_eq!(none.run(&["check"]).code, Some(0));
}

#[test]
fn a_running_server_sees_every_change_of_its_database() {
    let place = Place::new("userchange");
    // Until a change is seen the same user tries again and again.
    let conf = conf(&place, "strowger.db").set("auth", "guesses", "0");
    let desk = Desk::new(&place, &conf);
    desk.add("alice", "open sesame");
    let mut server = conf.start(&place);
    assert_eq!(server.stat(&place, "strowger_users"), 1.0);
    assert!(may_register(&place, &server, "alice", "open sesame"));
    assert!(!may_register(&place, &server, "alice", "wrong"));
    assert!(!may_register(&place, &server, "bob", "b"));
    let stats = server.stats(&place);
    let outcome = |label: &str| stats[&format!("strowger_auth_total{{outcome=\"{label}\"}}")];
    assert_eq!(outcome("challenged"), 3.0, "{stats:#?}");
    assert_eq!(outcome("accepted"), 1.0);
    assert_eq!(outcome("wrong_response"), 1.0);
    assert_eq!(outcome("unknown_user"), 1.0);

    desk.add("bob", "b");
    until("bob is known", || may_register(&place, &server, "bob", "b"));
    assert_eq!(server.stat(&place, "strowger_users"), 2.0);
    assert_eq!(desk.run(&["user", "passwd", "bob", "--password", "c"]).code, Some(0));
    until("bob's new password", || may_register(&place, &server, "bob", "c"));
    assert!(!may_register(&place, &server, "bob", "b"));
    // By another program.
    sqlite3(&place, "strowger.db", "DELETE FROM subscriber WHERE username = 'bob'");
    until("bob is gone", || !may_register(&place, &server, "bob", "c"));
    assert!(may_register(&place, &server, "alice", "open sesame"));

    // The table goes: those of before stay.
    sqlite3(&place, "strowger.db", "ALTER TABLE subscriber RENAME TO gone");
    server.expect_log(&["ERROR", "users are unchanged", "strowger.db", "subscriber"]);
    assert!(may_register(&place, &server, "alice", "open sesame"));
    assert_eq!(server.stat(&place, "strowger_users_unreadable"), 1.0);
    let said = server.log().len();
    std::thread::sleep(Duration::from_secs(3));
    let more = server.log().split_off(said);
    assert!(!more.contains("users stay"), "once is enough: {more}");
    let refused = server.command(&place, &["reload"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("users are unchanged"), "{refused:?}");
    sqlite3(&place, "strowger.db", "ALTER TABLE gone RENAME TO subscriber");
    server.expect_log_after(said, &["users read from ", "strowger.db: 1"]);
    assert_eq!(server.stat(&place, "strowger_users_unreadable"), 0.0);
    // At once.
    let said = server.log().len();
    assert_eq!(server.command(&place, &["reload"]).code, Some(0));
    server.expect_log_after(said, &["users read from ", "strowger.db: 1"]);
    let said = server.log().len();
    server.signal("HUP");
    server.expect_log_after(said, &["users read from ", "strowger.db: 1"]);
    server.assert_alive(&place, CALLER);
}

#[test]
fn a_text_file_of_users() {
    let place = Place::new("usertext");
    let conf = conf(&place, "users.txt");
    let write = |name: &str, lines: &[(&str, &str)]| {
        let line = |(user, password): &(&str, &str)| {
            let ha1 = md5(&format!("{user}:example.test:{password}"));
            format!("{user}:example.test:{ha1}\n")
        };
        let text: String = lines.iter().map(line).collect();
        place.write(name, &text);
    };
    write("users.txt", &[("alice", "a")]);
    let mut server = conf.start(&place);
    assert!(may_register(&place, &server, "alice", "a"));
    write("draft", &[("alice", "a"), ("bob", "b")]);
    fs::rename(place.path("draft"), place.path("users.txt")).expect("another file");
    until("bob is known", || may_register(&place, &server, "bob", "b"));
    place.write("users.txt", "alice:example.test\n");
    server.expect_log(&["users are unchanged", "users.txt:1: a line must be"]);
    assert!(may_register(&place, &server, "bob", "b"));
    fs::remove_file(place.path("users.txt")).expect("the file goes");
    assert!(may_register(&place, &server, "bob", "b"));
    write("users.txt", &[("alice", "a")]);
    until("bob is gone", || !may_register(&place, &server, "bob", "b"));
    server.assert_alive(&place, CALLER);
}

#[test]
fn a_database_that_kamailio_has_made() {
    let place = Place::new("kamdb");
    let conf = conf(&place, "kamailio.sqlite");
    let (ha1, ha1b) = (md5("carol:example.test:c"), md5("carol@example.test:example.test:c"));
    sqlite3(&place, "kamailio.sqlite", KAMAILIO);
    sqlite3(
        &place,
        "kamailio.sqlite",
        &format!(
            "INSERT INTO subscriber (username, domain, password, ha1, ha1b) \
             VALUES ('carol', 'example.test', 'never looked at', '{ha1}', '{ha1b}')"
        ),
    );
    let schema = sqlite3(&place, "kamailio.sqlite", ".schema");
    let desk = Desk::new(&place, &conf);
    desk.add("alice", "open sesame");
    assert_eq!(
        desk.list().lines().collect::<Vec<_>>(),
        ["NAME   DOMAIN        HASHES", "alice  example.test  MD5", "carol  example.test  MD5",]
    );
    let mut server = conf.start(&place);
    assert!(may_register(&place, &server, "carol", "c"));
    assert!(!may_register(&place, &server, "carol", "never looked at"));
    assert!(may_register(&place, &server, "alice", "open sesame"));
    assert_eq!(sqlite3(&place, "kamailio.sqlite", ".schema"), schema, "as it was");
    server.assert_alive(&place, CALLER);
}
