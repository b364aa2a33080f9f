//! `strowger user`: changes the database of users that the conf names. No server needs to run; one that does sees it within a second.

use super::output::{Outcome, complain, print, table};
use super::places::Places;
use super::prompt;
use clap::{Args, Subcommand};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use strowger::config::Conf;
use strowger::store::subscriber::{Hashes, Imports, Refused, Table};
use strowger::store::text;
use strowger::store::users::Kind;

/// The longest password read from standard input, bytes.
const PASSWORD_LONGEST: u64 = 1024;

#[derive(Subcommand)]
pub enum User {
    /// Add a user. The password is asked for, twice; the database holds hashes, never a password.
    ///
    /// As in: strowger user add alice@example.com
    Add {
        /// NAME or NAME@DOMAIN; a bare name takes the realm of [auth], or else the first domain of [server].
        user: String,
        #[command(flatten)]
        password: Password,
        /// Make the database if there is none.
        #[arg(long)]
        create: bool,
    },
    /// Give a user another password, which is asked for, twice.
    Passwd {
        /// NAME or NAME@DOMAIN; a bare name takes the realm of [auth], or else the first domain of [server].
        user: String,
        #[command(flatten)]
        password: Password,
    },
    /// Remove a user.
    Rm {
        /// NAME or NAME@DOMAIN; a bare name takes the realm of [auth], or else the first domain of [server].
        user: String,
    },
    /// Show all users, and for which algorithms they have hashes.
    List,
    /// Add users by their hashes, all of them or none. The hashes of a user that exists already are replaced.
    Import {
        /// A text file with lines user:realm:HA1, as htdigest makes them; "-" is standard input.
        ///
        /// HA1 has 32 hexadecimal digits (MD5) or 64 (SHA-256); ":SHA-512-256" after it says otherwise. A user may have
        /// several lines, one for each algorithm.
        file: PathBuf,
        /// Make the database if there is none.
        #[arg(long)]
        create: bool,
    },
}

/// Where a password comes from; if nothing is said, it is asked for at the terminal.
#[derive(Args)]
#[group(required = false, multiple = false)]
pub struct Password {
    /// Take the password from the first line of standard input.
    #[arg(long)]
    password_stdin: bool,
    /// Take this password. Others on the machine can see it while the command runs, and the shell keeps it.
    #[arg(long, value_name = "PW")]
    password: Option<String>,
}

pub fn user(command: &User, places: &Places) -> Outcome {
    let conf = places.load()?;
    let database = Database::of(&conf)?;
    match command {
        User::Add { user, password, create } => {
            let user = Named::read(user, &conf)?;
            database.refuse_missing(*create)?;
            let password = password.take(&user)?;
            let hashes = Hashes::of_password(&user.name, &user.domain, &password);
            let added = database.open(true)?.add(&user.name, &user.domain, &hashes);
            database.outcome(added, Some(&user))?;
            user.warn(&conf);
            database.tell(&format!("{user} added"))
        }
        User::Passwd { user, password } => {
            let user = Named::read(user, &conf)?;
            let mut table = database.open(false)?;
            let password = password.take(&user)?;
            let hashes = |domain: &str| Hashes::of_password(&user.name, domain, &password);
            let changed = table.change(&user.name, &user.domain, hashes);
            database.outcome(changed, Some(&user))?;
            database.tell(&format!("the password of {user} changed"))
        }
        User::Rm { user } => {
            let user = Named::read(user, &conf)?;
            let removed = database.open(false)?.remove(&user.name, &user.domain);
            database.outcome(removed, Some(&user))?;
            database.tell(&format!("{user} removed"))
        }
        User::List => {
            let listed = database.outcome(database.open(false)?.list(), None)?;
            let mut rows = vec![["NAME", "DOMAIN", "HASHES"].map(str::to_owned)];
            for user in listed {
                let names: Vec<&str> = user.algorithms.iter().map(|a| a.name()).collect();
                let hashes = match names.is_empty() {
                    true => "-".to_owned(),
                    false => names.join(","),
                };
                rows.push([user.name, user.domain, hashes]);
            }
            print(|out| table(out, &rows))
        }
        User::Import { file, create } => {
            let imports = read_imports(file)?;
            database.refuse_missing(*create)?;
            let imported = database.open(true)?.import(&imports);
            let imported = database.outcome(imported, None)?;
            let (added, changed) = (imported.added, imported.changed);
            let kinds = imports.kinds();
            let consequences = kinds.consequences(&conf.auth.algorithms);
            if !consequences.is_empty() {
                complain(&format_args!("imported are {kinds}: of these {consequences}"));
            }
            database.tell(&format!("{added} added, {changed} changed"))
        }
    }
}

fn read_imports(file: &Path) -> Result<Imports, String> {
    let name = file.display();
    let mut imports = Imports::default();
    let reader: Box<dyn BufRead> = match file.to_str() {
        Some("-") => Box::new(io::stdin().lock()),
        _ => {
            let file = File::open(file).map_err(|error| format!("{name}: {error}"))?;
            Box::new(BufReader::new(file))
        }
    };
    text::read(reader, |line| imports.take(line)).map_err(|what| format!("{name}:{what}"))?;
    match imports.is_empty() {
        true => Err(format!("{name}: there are no users in it")),
        false => Ok(imports),
    }
}

impl Password {
    fn take(&self, user: &Named) -> Result<Vec<u8>, String> {
        match self.password_stdin || self.password.is_some() {
            true => self.read(&mut io::stdin().lock()),
            false => self.checked(prompt::password(&user.to_string())?),
        }
    }

    fn read(&self, stdin: &mut dyn BufRead) -> Result<Vec<u8>, String> {
        let mut password = match &self.password {
            Some(password) => password.clone().into_bytes(),
            None => {
                let mut line = Vec::new();
                stdin
                    .take(PASSWORD_LONGEST + 2)
                    .read_until(b'\n', &mut line)
                    .map_err(|error| format!("standard input: {error}"))?;
                line
            }
        };
        if self.password.is_none() && password.last() == Some(&b'\n') {
            password.pop();
            password.pop_if(|last| *last == b'\r');
        }
        self.checked(password)
    }

    fn checked(&self, password: Vec<u8>) -> Result<Vec<u8>, String> {
        match password.len() {
            0 => Err("the password is empty".to_owned()),
            len if len as u64 > PASSWORD_LONGEST => Err(format!("the password is longer than {PASSWORD_LONGEST} bytes")),
            _ => Ok(password),
        }
    }
}

/// The longest name of a user, bytes.
const NAME_LONGEST: usize = 255;

/// Whom a command is about.
struct Named {
    name: String,
    domain: String,
}

impl Named {
    fn read(typed: &str, conf: &Conf) -> Result<Named, String> {
        let refused = |what: &str| Err(format!("{typed:?}: {what}"));
        let realm = &conf.auth.realm;
        let (name, domain) = match (typed.rsplit_once('@'), conf.server.domains.first()) {
            (Some((name, domain)), _) if domain.eq_ignore_ascii_case(realm) => (name, realm.clone()),
            // A dot at the end of a domain says nothing, and no challenge has it.
            (Some((name, domain)), _) => (name, domain.trim_end_matches('.').to_lowercase()),
            (None, _) if !realm.is_empty() => (typed, realm.clone()),
            (None, Some(first)) => (typed, first.to_string()),
            (None, None) => {
                return refused("the conf names neither a realm in [auth] nor domains in [server]: write NAME@DOMAIN");
            }
        };
        if name.is_empty() || domain.is_empty() {
            return refused("neither the name nor the domain may be empty");
        }
        let bad = |c: char| c.is_control() || ['"', '\\'].contains(&c);
        // A colon ends the name in what is hashed; a domain is a realm, which stands in a challenge as it is.
        if name.contains(|c: char| c.is_control() || c == ':') || domain.contains(bad) {
            return refused("a name takes no colon, a domain no quotes and no backslashes, and neither takes control characters");
        }
        // Longer ones cannot be told apart from others once they are quoted.
        if name.len() > NAME_LONGEST {
            return refused("the name is longer than 255 bytes");
        }
        if domain.len() > 255 {
            return refused("the domain is longer than 255 bytes");
        }
        Ok(Named { name: name.to_owned(), domain })
    }

    /// A user whom no challenge will ever ask is most likely a slip.
    fn warn(&self, conf: &Conf) {
        let realm = &conf.auth.realm;
        if !realm.is_empty() && *realm != self.domain {
            complain(&format_args!(
                "{self} is added, but no challenge asks for it: all of them have the realm {realm:?} of [auth]"
            ));
        }
    }
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.name, self.domain)
    }
}

/// The database that the conf names.
struct Database {
    path: PathBuf,
}

impl Database {
    fn of(conf: &Conf) -> Result<Database, String> {
        let path = conf.users_file();
        if let Some(line) = conf.other_users_file() {
            complain(&line);
        }
        match Kind::of(&path) {
            Ok(Kind::Database) => Ok(Database { path }),
            Ok(Kind::Text) => Err(format!(
                "{}: [auth] users names a text file: change it with an editor, or name a database such as users.db",
                path.display()
            )),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    fn open(&self, make: bool) -> Result<Table, String> {
        if !make && !self.path.exists() {
            return Err(self.named("there is no such database; \"strowger user add --create\" makes it"));
        }
        Table::open(&self.path, make).map_err(|what| self.named(&what))
    }

    /// A conf that is not the one meant names a database that is not there: nothing is made unless that is said.
    fn refuse_missing(&self, create: bool) -> Result<(), String> {
        match create || self.path.exists() {
            true => Ok(()),
            false => {
                Err(self.named("there is no such database; name the conf of the server with -c, or make a new one with --create"))
            }
        }
    }

    /// Prints what was done, and where.
    fn tell(&self, what: &str) -> Outcome {
        print(|out| writeln!(out, "{what} in {}", self.path.display()))
    }

    fn named(&self, what: &str) -> String {
        format!("{}: {what}", self.path.display())
    }

    /// A refusal in words.
    fn outcome<T>(&self, outcome: Result<T, Refused>, user: Option<&Named>) -> Result<T, String> {
        let who = user.map_or_else(String::new, ToString::to_string);
        outcome.map_err(|refused| {
            self.named(&match refused {
                Refused::Exists => {
                    format!("{who} exists already; \"strowger user passwd\" changes the password")
                }
                Refused::NotFound => {
                    format!("there is no {who}; \"strowger user list\" shows who is there")
                }
                Refused::Database(what) => what,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strowger::config::Machine;
    use strowger::config::load;

    fn conf(text: &str) -> Conf {
        let machine = Machine { cores: vec![0], memory: 0, files: 1 << 10 };
        load::parse("t", text, &machine).unwrap_or_else(|faults| panic!("{faults}"))
    }

    fn named(typed: &str, text: &str) -> String {
        match Named::read(typed, &conf(text)) {
            Ok(user) => user.to_string(),
            Err(what) => format!("refused: {what}"),
        }
    }

    #[test]
    fn a_bare_name_takes_the_realm_or_the_first_domain() {
        let domains = "[server]\ndomains = [\"example.com\", \"example.net\"]\n";
        let realm = "[auth]\nrealm = \"Example Phones\"\n";
        let both = format!("{domains}{realm}");
        assert_eq!(named("alice", domains), "alice@example.com");
        assert_eq!(named("alice", realm), "alice@Example Phones");
        assert_eq!(named("alice", &both), "alice@Example Phones");
        assert_eq!(named("alice@EXAMPLE.org", &both), "alice@example.org");
        assert_eq!(named("alice@example PHONES", &both), "alice@Example Phones");
        assert_eq!(named("a@b@c", ""), "a@b@c");
        assert_eq!(named("alice@Example.org.", &both), "alice@example.org");
        assert!(named("alice", "").contains("write NAME@DOMAIN"));
    }

    #[test]
    fn what_no_challenge_can_hold_is_no_name() {
        for typed in ["@example.com", "alice@", "", "a:b@c", "a\nb@c", "a@b\"c", "a@b\\c"] {
            let said = named(typed, "[server]\ndomains = [\"d.example\"]\n");
            assert!(said.starts_with("refused: "), "{typed:?}: {said}");
        }
        assert!(named("alice@[2001:db8::1]", "").starts_with("alice@["));
        for typed in ["9901#1", "john doe", "café", "50%", "\"q\" \\uote", "a@b"] {
            let user = format!("{typed}@d.example");
            assert_eq!(named(&user, ""), user);
        }
        let long = format!("{}@d.example", "n".repeat(256));
        assert!(named(&long, "").contains("255 bytes"));
        let long = format!("alice@{}", "d".repeat(256));
        assert!(named(&long, "").contains("255 bytes"));
    }

    #[test]
    fn a_password_is_a_line() {
        let stdin = Password { password_stdin: true, password: None };
        let read = |text: &[u8]| stdin.read(&mut &text[..]);
        for (text, password) in [
            (&b"secret"[..], &b"secret"[..]),
            (b"secret\n", b"secret"),
            (b"secret\r\nmore\n", b"secret"),
            (b" se cret \n", b" se cret "),
            ("pässwörd\n".as_bytes(), "pässwörd".as_bytes()),
        ] {
            assert_eq!(read(text).as_deref(), Ok(password));
        }
        assert!(read(b"").is_err() && read(b"\n").is_err());
        assert!(read(&[b'x'; 1024]).is_ok() && read(&[b'x'; 1025]).is_err());
        let given = Password { password_stdin: false, password: Some("in words\n".to_owned()) };
        assert_eq!(given.read(&mut &b""[..]), Ok(b"in words\n".to_vec()));
    }
}
