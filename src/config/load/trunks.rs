//! `[[trunk]]`: accounts with carriers, and the routes that use them.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::document::{Document, Section, nearest};
use super::routes::target;
use super::values::*;
use super::wrong::*;
use crate::settings::Mode;
use crate::stack::trunk::{Password, Trunk};

const NAME: &str = "a name such as \"carrier\": letters, digits, \"-\", \"_\" and \".\", 64 at most";

const USER: &str = "a user as the carrier knows it, such as \"4930123\"";

/// No password is longer.
const LONGEST_PASSWORD: usize = 1024;

impl Document<'_> {
    /// The trunks, and the files that their passwords were read from.
    pub(super) fn trunks(&mut self) -> (Vec<Arc<Trunk>>, Vec<PathBuf>) {
        let (mut trunks, mut files) = (Vec::<Arc<Trunk>>::new(), Vec::new());
        for (table, at) in self.tables("trunk").unwrap_or_default() {
            let mut section = self.open("trunk", Some(table), at);
            let (trunk, file) = section.read_trunk();
            files.extend(file);
            let Some(trunk) = trunk else {
                continue;
            };
            if trunks.iter().any(|other| other.name == trunk.name) {
                let message = format!("name is {:?}, as another [[trunk]] has it: each needs a name of its own", trunk.name);
                section.wrong(section.place("name"), message);
            }
            trunks.push(Arc::new(trunk));
        }
        (trunks, files)
    }
}

impl Section<'_, '_> {
    /// `None` if something that a trunk must have is missing, or wrong and reported.
    fn read_trunk(&mut self) -> (Option<Trunk>, Option<PathBuf>) {
        let name = self.needed("name", "name = \"carrier\"", |value| text_of(value, NAME, is_name));
        let registrar = self.needed("registrar", "registrar = \"sip:carrier.example\"", target);
        let user = self.needed("user", "user = \"4930123\"", |value| text_of(value, USER, is_user));
        let auth_user = self.read("auth_user", |value| text_of(value, USER, is_user));
        let realm = self.read("realm", |value| text_of(value, "a realm such as \"carrier.example\"", is_user));
        let file = self.needed("password_file", "password_file = \"carrier.password\"", path);
        let register = self.read("register", boolean).unwrap_or(true);
        let expires = self.read("expires", seconds(Duration::from_secs(30), Duration::from_secs(7 * 86_400)));
        if expires.is_some() && !register {
            self.wrong(self.place("expires"), "expires has no effect here: register is false; remove one of the two");
        }
        let password = file.as_ref().and_then(|file| match read_password(file) {
            Ok(password) => Some(password),
            Err(why) => {
                let message = format!("password_file is {}, which {why}", file.display());
                self.wrong(self.place("password_file"), message);
                None
            }
        });
        let (Some(name), Some(registrar), Some(user), Some(password)) = (name, registrar, user, password) else {
            return (None, file);
        };
        let user = user.into_bytes();
        let trunk = Trunk {
            name,
            registrar,
            auth_user: auth_user.map_or_else(|| user.clone(), String::into_bytes),
            user,
            realm: realm.map(String::into_bytes),
            password,
            register,
            expires: expires.unwrap_or(600),
        };
        (Some(trunk), file)
    }

    /// Returns a mandatory value.
    fn needed<T>(&mut self, key: &'static str, example: &str, parse: impl FnOnce(&Value<'_>) -> Parsed<T>) -> Option<T> {
        let value = self.read(key, parse);
        if !self.given(key) && self.table.is_some_and(|table| !table.is_empty()) {
            self.wrong(self.at, format!("this [[trunk]] has no {key}: add {example}"));
        }
        value
    }

    /// Returns the trunk that a route uses.
    pub(super) fn trunk(&mut self, trunks: &[Arc<Trunk>], targets: usize, mode: Mode) -> Option<Arc<Trunk>> {
        let name = self.read("trunk", |value| Ok(string(value, NAME)?.to_owned()))?;
        let found = trunks.iter().find(|trunk| trunk.name == name).cloned();
        if found.is_none() {
            let names: Vec<&str> = trunks.iter().map(|trunk| trunk.name.as_str()).collect();
            let message = match (nearest(&name, &names), names.is_empty()) {
                (Some(near), _) => format!("trunk is {name:?}, and there is no such [[trunk]]; the nearest one is {near:?}"),
                (None, true) => format!("trunk is {name:?}, and there is no [[trunk]]: add one of that name"),
                (None, false) => format!("trunk is {name:?}, and there is no such [[trunk]]; there are {}", names.join(", ")),
            };
            self.wrong(self.place("trunk"), message);
        } else if mode == Mode::Stateless {
            let message = "trunk needs a proxy that remembers requests: write mode = \"stateful\" in [proxy], or remove trunk";
            self.wrong(self.place("trunk"), message);
        } else if targets == 0 && self.sound(["target", "action"]) {
            let message =
                "trunk needs targets: the password is for no host that a caller names; add target = [\"sip:carrier.example\"]";
            self.wrong(self.place("trunk"), message);
        }
        found
    }
}

fn text_of(value: &Value<'_>, what: &str, may_stand: fn(char) -> bool) -> Parsed<String> {
    let text = string(value, what)?;
    match !text.is_empty() && text.chars().count() <= 64 && text.chars().all(may_stand) {
        true => Ok(text.to_owned()),
        false => Err(must_be(value, what)),
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// Whether it can be put into a quoted string unescaped.
fn is_user(c: char) -> bool {
    !c.is_control() && !matches!(c, '"' | '\\')
}

/// Reads the first line of the file. The error is a phrase that follows "FILE, which".
pub(super) fn read_password(path: &Path) -> Result<Password, String> {
    let unreadable = |error| format!("cannot be read: {error}");
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    let most = LONGEST_PASSWORD as u64 + 3;
    file.take(most).read_to_end(&mut bytes).map_err(unreadable)?;
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match line {
        [] => Err("is empty: write the password into it, on one line".to_owned()),
        line if line.len() > LONGEST_PASSWORD => {
            Err(format!("is longer than {LONGEST_PASSWORD} bytes: it must hold the password and nothing else"))
        }
        line if line.iter().any(|byte| matches!(byte, b'\n' | b'\r' | 0)) => {
            Err("has more than one line: it must hold the password and nothing else".to_owned())
        }
        line => Ok(line.to_vec().into()),
    }
}
