//! The architecture as a test: who may import whom, where `unsafe` may stand, what the pure rooms never mention, how files begin.
//!
//! The sources are read as tokens, not as text: comments and strings say nothing, and an alias, a brace list, a glob or a chain
//! of `super` is resolved to the path that it means. The checker itself is tested below on sources made up for it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Which rooms of ours a room may import, besides itself. `sip::x` allows that one module or item of it.
const IMPORTS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("sip", &["base"]),
    // What the conf says, for all that do it.
    ("settings", &["base"]),
    ("stack", &["base", "settings", "sip"]),
    ("sim", &["base", "settings", "sip", "stack"]),
    // The two readers of raw bytes, and nothing else of the words.
    (
        "net",
        &[
            "base",
            "settings",
            "sip::frame",
            "sip::Frame",
            "sip::Framer",
            "sip::Fault",
            "sip::sniff",
        ],
    ),
    ("resolver", &["base", "settings"]),
    // Of the resolver only how to ask it.
    ("worker", &["base", "settings", "sip", "stack", "net", "resolver::Asker"]),
    // Whose data it keeps: users, and bindings.
    ("store", &["base", "settings", "stack::auth", "stack::location"]),
    // Above those that it sets up.
    ("config", &["base", "settings", "sip", "stack", "net", "store", "resolver"]),
    // What is counted, and the bound on what strangers make us log.
    ("control", &["base"]),
    // The two rooms of the binary. The commands: of a running server they know the control socket's client and what it returns.
    (
        "cli",
        &[
            "base",
            "settings",
            "sip::Host",
            "store::Source",
            "store::subscriber",
            "store::text",
            "store::users",
            "config",
            "control::AorEntry",
            "control::Client",
            "control::ContactEntry",
            "control::Number",
        ],
    ),
    // The running server: the whole library but the laboratory.
    (
        "server",
        &[
            "base", "settings", "sip", "stack", "net", "resolver", "worker", "store", "config", "control",
        ],
    ),
];

/// Rooms without a clock, a socket, a thread or a random source.
const PURE: &[&str] = &["base", "settings", "sip", "stack", "sim"];

/// What a pure room may take from outside. All compute but `log`, a facade that does nothing by itself.
const PURE_CRATES: &[&str] = &["std", "memchr", "siphasher", "md5", "sha2", "log"];

/// Of these modules of the standard library a pure room may name only the items given: plain data.
const PURE_STD: &[(&str, &[&str])] = &[
    ("time", &["Duration"]),
    (
        "net",
        &[
            "AddrParseError",
            "IpAddr",
            "Ipv4Addr",
            "Ipv6Addr",
            "SocketAddr",
            "SocketAddrV4",
            "SocketAddrV6",
        ],
    ),
    ("thread", &[]),
    ("process", &[]),
    ("os", &[]),
    // Tests may read data files and the directory of the package.
    ("fs", &["in tests"]),
    ("env", &["in tests"]),
];

/// The files in which `unsafe` may stand, and the one that lets them.
const UNSAFE: &[&str] = &[
    "net/sys.rs",
    "net/sys/dumps.rs",
    "net/sys/filter.rs",
    "net/sys/identity.rs",
    "net/sys/name.rs",
    "net/sys/process.rs",
    "net/sys/ssl.rs",
];
const UNSAFE_ALLOWED_BY: &str = "net/mod.rs";

/// Lines of a file without its tests.
const LONGEST_FILE: usize = 900;

/// Files that are longer, and how long they may be: to be split, not to be added to.
const LONGER: &[(&str, usize)] = &[];

#[test]
fn the_sources_keep_the_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let crates = dependencies(&std::fs::read_to_string(root.join("Cargo.toml")).unwrap());
    assert!(crates.contains("mio") && crates.contains("libc"));
    let mut files = Vec::new();
    collect(&root.join("src"), &mut files);
    assert!(files.len() > 40, "{} files", files.len());
    let mut faults = Vec::new();
    let mut rooms = BTreeSet::new();
    for file in &files {
        let name = file.strip_prefix(root.join("src")).unwrap();
        let name = name.to_str().unwrap().replace('\\', "/");
        let text = std::fs::read_to_string(file).unwrap();
        if let Some((room, _)) = name.split_once('/') {
            rooms.insert(room.to_string());
        }
        faults.extend(check(&name, &text, &crates));
    }
    for room in rooms {
        if !IMPORTS.iter().any(|(known, _)| *known == room) {
            faults.push(format!("src/{room}: a room that the import table lacks"));
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            collect(&entry, files);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            files.push(entry);
        }
    }
}

/// The names of the packages that the server is built with, as paths spell them.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.trim() == "[dependencies]";
        } else if let (true, Some((name, _))) = (inside, line.split_once('=')) {
            names.insert(name.trim().replace('-', "_"));
        }
    }
    names
}

// ---- the rules ---------------------------------------------------------------------------------------------------------

/// Everything that is wrong with one file; `name` is its path under `src/`.
fn check(name: &str, text: &str, crates: &BTreeSet<String>) -> Vec<String> {
    let file = File::read(name, text);
    let mut faults = Vec::new();
    check_opening(&file, text, &mut faults);
    check_imports(&file, &mut faults);
    check_unsafe(&file, &mut faults);
    check_purity(&file, crates, &mut faults);
    check_leftovers(&file, &mut faults);
    check_length(&file, text, &mut faults);
    for fault in &mut faults {
        fault.insert_str(0, &format!("src/{name}:"));
    }
    faults
}

fn check_opening(file: &File, text: &str, faults: &mut Vec<String>) {
    let says = text.lines().next().and_then(|line| line.strip_prefix("//! "));
    if says.is_none_or(|sentence| sentence.trim().len() < 10) {
        faults.push("1: does not open with a `//!` line that says what the file is".into());
    }
    let stem = file.name.rsplit('/').next().unwrap_or("").trim_end_matches(".rs");
    if ["util", "utils", "helper", "helpers", "misc", "common"].contains(&stem) {
        faults.push("1: a name that says nothing".into());
    }
}

fn check_imports(file: &File, faults: &mut Vec<String>) {
    let Some(room) = file.room() else {
        // main.rs ties the two rooms of the binary together; lib.rs only names the rooms.
        if file.name == "lib.rs" {
            for path in &file.paths {
                if path.is_ours {
                    faults.push(format!("{}: lib.rs imports {}", path.line, path.spelled()));
                }
            }
        }
        return;
    };
    let allowed = IMPORTS
        .iter()
        .find(|(name, _)| *name == room)
        .map_or(&[][..], |(_, allowed)| allowed);
    for path in file.paths.iter().filter(|path| path.is_ours) {
        let fits = match path.segments.first().map(String::as_str) {
            Some(first) if first == room => true,
            // The root as a whole, by an alias or a glob, is every room at once.
            None | Some("*") => false,
            Some(first) => allowed.iter().any(|entry| match entry.split_once("::") {
                None => *entry == first,
                Some((parent, child)) => parent == first && path.segments.get(1).is_some_and(|second| second == child),
            }),
        };
        if !fits {
            let line = path.line;
            faults.push(format!("{line}: `{room}` imports `{}`", path.spelled()));
        }
    }
    // What would let a file in by another door.
    for (at, token) in file.tokens.iter().enumerate() {
        let next = |ahead: usize| file.tokens.get(at + ahead).map_or("", |t| t.text.as_str());
        let door = match token.text.as_str() {
            "extern" => next(1) == "crate",
            "include" => next(1) == "!",
            "path" => next(1) == "=" && at > 0 && file.tokens[at - 1].text == "[",
            _ => false,
        };
        if door {
            faults.push(format!("{}: `{}` hides what a file takes in", token.line, token.text));
        }
    }
}

fn check_unsafe(file: &File, faults: &mut Vec<String>) {
    let has = |words: &[&str]| {
        file.tokens
            .windows(words.len())
            .any(|window| window.iter().zip(words).all(|(t, w)| t.text == *w))
    };
    for token in &file.tokens {
        let fits = match token.text.as_str() {
            "unsafe" => UNSAFE.contains(&file.name.as_str()),
            "unsafe_code" => ["lib.rs", "main.rs", UNSAFE_ALLOWED_BY].contains(&file.name.as_str()),
            _ => true,
        };
        if !fits {
            faults.push(format!("{}: `{}`", token.line, token.text));
        }
    }
    match file.name.as_str() {
        "lib.rs" if !has(&["#", "!", "[", "deny", "(", "unsafe_code", ")", "]"]) => {
            faults.push("1: lib.rs does not deny unsafe_code".into());
        }
        "main.rs" if !has(&["#", "!", "[", "forbid", "(", "unsafe_code", ")", "]"]) => {
            faults.push("1: main.rs does not forbid unsafe_code".into());
        }
        UNSAFE_ALLOWED_BY => {
            let of_sys = ["#", "[", "allow", "(", "unsafe_code", ")", "]", "pub", "mod", "sys", ";"];
            let count = file.tokens.iter().filter(|t| t.text == "unsafe_code").count();
            if count > 1 || (count == 1 && !has(&of_sys)) {
                faults.push("1: unsafe_code is allowed to more than `sys`".into());
            }
        }
        _ => {}
    }
}

fn check_purity(file: &File, crates: &BTreeSet<String>, faults: &mut Vec<String>) {
    if !file.room().is_some_and(|room| PURE.contains(&room)) {
        return;
    }
    for path in file.paths.iter().filter(|path| !path.is_ours) {
        let first = path.segments.first().map_or("", String::as_str);
        let second = path.segments.get(1).map_or("", String::as_str);
        let third = path.segments.get(2).map_or("", String::as_str);
        let foreign = (crates.contains(first) || ["rand", "getrandom"].contains(&first)) && !PURE_CRATES.contains(&first);
        let impure = first == "std"
            && match PURE_STD.iter().find(|(module, _)| *module == second) {
                Some((_, ["in tests"])) => !path.in_tests,
                Some((_, items)) => !items.contains(&third),
                // The whole library under another name.
                None => second.is_empty() || second == "*",
            };
        if foreign || impure {
            faults.push(format!("{}: a pure room mentions `{}`", path.line, path.spelled()));
        }
    }
    for (at, token) in file.tokens.iter().enumerate() {
        let text = token.text.as_str();
        let next = |ahead: usize| file.tokens.get(at + ahead).map_or("", |t| t.text.as_str());
        let random = text == "RandomState"
            || (["HashMap", "HashSet"].contains(&text) && next(1) == "::" && ["new", "with_capacity", "from"].contains(&next(2)));
        if random && !file.in_tests(at) {
            faults.push(format!("{}: a pure room takes a random seed by `{text}`", token.line));
        }
        if ["SystemTime", "UdpSocket", "TcpStream", "TcpListener"].contains(&text) {
            faults.push(format!("{}: a pure room mentions `{text}`", token.line));
        }
    }
}

fn check_leftovers(file: &File, faults: &mut Vec<String>) {
    for pair in file.tokens.windows(2) {
        let word = pair[0].text.as_str();
        if pair[1].text == "!" && ["todo", "unimplemented", "dbg"].contains(&word) {
            faults.push(format!("{}: `{word}!`", pair[0].line));
        }
    }
}

fn check_length(file: &File, text: &str, faults: &mut Vec<String>) {
    let lines = text.lines().count();
    let of_tests: usize = file.tests.iter().map(|tests| tests.lines).sum();
    let longest = LONGER
        .iter()
        .find(|(name, _)| *name == file.name)
        .map_or(LONGEST_FILE, |(_, longest)| *longest);
    if !file.is_test_file() && lines - of_tests > longest {
        let lines = lines - of_tests;
        faults.push(format!("{longest}: {lines} lines without the tests"));
    }
}

// ---- reading a source --------------------------------------------------------------------------------------------------

struct Token {
    text: String,
    line: usize,
}

/// A path that the file mentions, in a `use` or anywhere else.
struct Found {
    line: usize,
    /// From the crate's root when `is_ours`, else from the crate's name. `*` is a glob.
    segments: Vec<String>,
    is_ours: bool,
    in_tests: bool,
}

impl Found {
    fn spelled(&self) -> String {
        let root = if self.is_ours { "crate::" } else { "" };
        format!("{root}{}", self.segments.join("::"))
    }
}

/// A `#[cfg(test)] mod …` with a body.
struct Tests {
    first: usize,
    last: usize,
    lines: usize,
}

struct File {
    name: String,
    tokens: Vec<Token>,
    paths: Vec<Found>,
    tests: Vec<Tests>,
}

impl File {
    fn read(name: &str, text: &str) -> File {
        let mut file = File {
            name: name.to_string(),
            tokens: tokens(text),
            paths: Vec::new(),
            tests: Vec::new(),
        };
        file.find_tests();
        file.find_paths();
        file
    }

    /// The room that the file is in; `None` for those at the top.
    fn room(&self) -> Option<&str> {
        match self.name.split_once('/') {
            Some((room, _)) => Some(room),
            None => {
                let stem = self.name.trim_end_matches(".rs");
                IMPORTS.iter().map(|(room, _)| *room).find(|room| *room == stem)
            }
        }
    }

    fn is_test_file(&self) -> bool {
        let stem = self.name.rsplit('/').next().unwrap_or("");
        ["tests.rs", "torture.rs"].contains(&stem) || self.name.contains("/tests/")
    }

    fn in_tests(&self, at: usize) -> bool {
        self.is_test_file() || self.tests.iter().any(|t| (t.first..=t.last).contains(&at))
    }

    /// The path of the module that the file is, from the crate's root.
    fn module(&self) -> Vec<String> {
        let path = self.name.trim_end_matches(".rs");
        let mut module: Vec<String> = path.split('/').map(str::to_string).collect();
        if module
            .last()
            .is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str()))
        {
            module.pop();
        }
        module
    }

    fn find_tests(&mut self) {
        let words = ["#", "[", "cfg", "(", "test", ")", "]", "mod"];
        let mut at = 0;
        while at + words.len() < self.tokens.len() {
            let here = &self.tokens[at..at + words.len()];
            if !here.iter().zip(words).all(|(t, w)| t.text == w) {
                at += 1;
                continue;
            }
            let open = at + words.len() + 1;
            if self.tokens.get(open).is_none_or(|t| t.text != "{") {
                at = open;
                continue;
            }
            let close = closing(&self.tokens, open);
            self.tests.push(Tests {
                first: at,
                last: close,
                lines: self.tokens[close].line - self.tokens[at].line + 1,
            });
            at = close;
        }
    }

    /// Every path that could lead out of the file, resolved.
    fn find_paths(&mut self) {
        let mut module = self.module();
        // Inline modules: the token at which each one ends.
        let mut ends: Vec<usize> = Vec::new();
        let mut found = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            while ends.last().is_some_and(|end| *end == at) {
                ends.pop();
                module.pop();
            }
            let text = self.tokens[at].text.as_str();
            let before = at.checked_sub(1).map_or("", |at| &self.tokens[at].text);
            let next = self.tokens.get(at + 1).map_or("", |t| t.text.as_str());
            let opens = self.tokens.get(at + 2).is_some_and(|t| t.text == "{");
            if text == "mod" && opens && is_word(next) {
                module.push(next.to_string());
                ends.push(closing(&self.tokens, at + 2));
                at += 3;
            } else if text == "use" && before != "::" {
                at = self.read_tree(at + 1, Vec::new(), &module, &mut found);
            } else if is_word(text) && next == "::" && !KEYWORDS.contains(&text) && !self.goes_on(at) {
                at = self.read_tree(at, Vec::new(), &module, &mut found);
            } else {
                at += 1;
            }
        }
        self.paths = found;
    }

    /// True when the word at `at` stands in the middle of a path. A path may also begin with a `::` of its own.
    fn goes_on(&self, at: usize) -> bool {
        let back = |steps: usize| at.checked_sub(steps).map_or("", |at| &self.tokens[at].text);
        back(1) == "::" && (back(2) == ">" || is_word(back(2)) && !KEYWORDS.contains(&back(2)))
    }

    /// Reads a path or a tree of a `use` behind `prefix`; returns the position behind it.
    fn read_tree(&self, mut at: usize, mut prefix: Vec<String>, module: &[String], found: &mut Vec<Found>) -> usize {
        let text = |at: usize| self.tokens.get(at).map_or("", |t| t.text.as_str());
        let first = at;
        if text(at) == "::" {
            at += 1;
        }
        loop {
            match text(at) {
                "{" => {
                    let close = closing(&self.tokens, at);
                    at += 1;
                    while at < close {
                        at = self.read_tree(at, prefix.clone(), module, found);
                        if text(at) == "as" {
                            at += 2;
                        }
                        // A comma, or something that is no tree: passed over, so that this ends.
                        if text(at) == "," || (at < close && first_of_tree(text(at)).is_none()) {
                            at += 1;
                        }
                    }
                    return close + 1;
                }
                word if first_of_tree(word).is_some() => {
                    prefix.push(word.trim_start_matches("r#").to_string());
                    at += 1;
                }
                _ => {
                    // A turbofish or anything else that ends a path.
                    break;
                }
            }
            match text(at) {
                "::" => at += 1,
                _ => break,
            }
        }
        if let Some(path) = self.resolve(&prefix, module, first) {
            found.push(path);
        }
        at.max(first + 1)
    }

    fn resolve(&self, path: &[String], module: &[String], at: usize) -> Option<Found> {
        let mut path: Vec<&str> = path.iter().map(String::as_str).collect();
        // `a::{self}` is `a`.
        if path.len() > 1 && path.last() == Some(&"self") {
            path.pop();
        }
        let (first, rest) = path.split_first()?;
        let mut is_ours = true;
        let mut segments: Vec<String> = match *first {
            "crate" | "strowger" => Vec::new(),
            "self" => module.to_vec(),
            "super" => module[..module.len().saturating_sub(1)].to_vec(),
            // At the crate's root a bare name may be one of the rooms.
            name if module.is_empty() && IMPORTS.iter().any(|(room, _)| *room == name) => {
                vec![name.to_string()]
            }
            name => {
                is_ours = false;
                vec![name.to_string()]
            }
        };
        for segment in rest {
            match *segment {
                "super" => drop(segments.pop()),
                "self" => {}
                name => segments.push(name.to_string()),
            }
        }
        Some(Found {
            line: self.tokens[at].line,
            segments,
            is_ours,
            in_tests: self.in_tests(at),
        })
    }
}

/// Words behind which a path may begin with `::`.
const KEYWORDS: &[&str] = &[
    "as", "break", "dyn", "else", "for", "if", "impl", "in", "match", "mut", "return", "while",
];

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// What may stand between the `::` of a path.
fn first_of_tree(text: &str) -> Option<()> {
    (is_word(text) || text == "*").then_some(())
}

/// The position of the bracket that closes the one at `open`.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len() - 1
}

/// Words and marks, without comments, strings, characters and lifetimes.
fn tokens(text: &str) -> Vec<Token> {
    let bytes = text.as_bytes();
    let (mut tokens, mut line, mut at) = (Vec::new(), 1, 0);
    while at < bytes.len() {
        let rest = &text[at..];
        let length = match bytes[at] {
            b'/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => comment(rest),
            b'"' => string(rest),
            b'\'' => character(rest),
            b'r' | b'b' | b'c' if quoted(rest).is_some() => quoted(rest).unwrap_or(1),
            byte if byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80 => {
                let raw = if rest.starts_with("r#") { 2 } else { 0 };
                let is_end = |c: char| !(c.is_alphanumeric() || c == '_');
                let end = rest[raw..].find(is_end).map_or(rest.len(), |end| end + raw);
                tokens.push((rest[raw..end].to_string(), line));
                end
            }
            byte if byte.is_ascii_digit() => {
                let is_end = |c: char| !(c.is_alphanumeric() || c == '_');
                rest.find(is_end).unwrap_or(rest.len())
            }
            byte if byte.is_ascii_whitespace() => 1,
            b':' if rest.starts_with("::") => {
                tokens.push(("::".to_string(), line));
                2
            }
            byte => {
                tokens.push((char::from(byte).to_string(), line));
                1
            }
        };
        line += rest[..length].matches('\n').count();
        at += length;
    }
    tokens.into_iter().map(|(text, line)| Token { text, line }).collect()
}

/// The length of a block comment; they nest.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// The length of a string with its quotes.
fn string(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

/// The length of a string or character with a prefix (`b""`, `r#""#`, `br""`, `c""`, `b''`), if it is one.
fn quoted(text: &str) -> Option<usize> {
    let prefix = text.find(|c: char| !matches!(c, 'r' | 'b' | 'c'))?;
    let rest = &text[prefix..];
    let raw = text[..prefix].contains('r');
    if prefix > 2 {
        return None;
    }
    if raw {
        let hashes = rest.len() - rest.trim_start_matches('#').len();
        if !rest[hashes..].starts_with('"') {
            return None;
        }
        let end = format!("\"{}", "#".repeat(hashes));
        let close = rest[hashes + 1..].find(&end)?;
        return Some(prefix + hashes + 1 + close + end.len());
    }
    match rest.as_bytes().first()? {
        b'"' => Some(prefix + string(rest)),
        b'\'' if text.starts_with("b'") => Some(prefix + character(rest)),
        _ => None,
    }
}

/// The length of a character, or of a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            let after = chars.next().map_or(text.len(), |(at, c)| at + c.len_utf8());
            text[after..].find('\'').map_or(text.len(), |close| after + close + 1)
        }
        Some((at, c)) => {
            let after = at + c.len_utf8();
            if text[after..].starts_with('\'') {
                return after + 1;
            }
            let is_end = |c: char| !(c.is_alphanumeric() || c == '_');
            text[1..].find(is_end).map_or(text.len(), |end| end + 1)
        }
        None => 1,
    }
}

// ---- the checker, checked ----------------------------------------------------------------------------------------------

/// What the checker says of a source under `name`, with an opening line put before it.
fn faults(name: &str, source: &str) -> Vec<String> {
    let crates = ["mio", "libc", "log", "memchr", "rand"];
    let crates = crates.iter().map(|name| name.to_string()).collect();
    check(name, &format!("//! A file made up.\n{source}"), &crates)
}

#[track_caller]
fn caught(name: &str, source: &str, what: &str) {
    let faults = faults(name, source);
    assert!(
        faults.iter().any(|fault| fault.contains(what)),
        "{name}: {source}\nexpected {what:?} in {faults:?}"
    );
}

#[track_caller]
fn passed(name: &str, source: &str) {
    let faults = faults(name, source);
    assert!(faults.is_empty(), "{name}: {source}\n{faults:?}");
}

#[test]
fn imports_are_seen_in_every_disguise() {
    for source in [
        "use crate::net;",
        "use crate::net::Udp;",
        "use crate::{base::Flow, net};",
        "use crate::{base, net::{Udp, sys}};",
        "use crate::{\n    base::{self, Flow},\n    net as wires,\n};",
        "pub use crate::net::*;",
        "fn f() { crate::net::send() }",
        "fn f(x: &crate::net::Udp) {}",
        "type A = Vec<crate::net::Udp>;",
        "use super::super::net::Udp;",
        "use super::super::{net};",
        "fn f() { super::super::net::send() }",
        "mod tests { use super::super::super::net; }",
        "mod a { mod b { use super::super::super::super::net; } }",
        "use r#crate::net;",
        "#[cfg(test)] mod tests { use crate::net::Udp; }",
        "macro_rules! m { () => { $crate::net::send() } }",
        "use crate /* a comment */ :: net;",
        "use self::super::super::net;",
        "pub(crate) fn f() -> crate::net::Udp {}",
    ] {
        caught("stack/branch.rs", source, "imports `crate::net");
    }
    // The root under another name, or all of it at once.
    for source in ["use crate as root;", "use crate::*;", "use crate::{self as r};"] {
        caught("stack/branch.rs", source, "imports `crate::");
    }
    caught("stack/mod.rs", "use super::net;", "`stack` imports `crate::net`");
    caught("stack/mod.rs", "use super::*;", "`stack` imports `crate::");
    caught("stack/mod.rs", "use super as up;", "imports `crate::");
    caught("stack/a.rs", "extern crate strowger as me;", "hides");
    caught("stack/a.rs", "include!(\"../net/udp.rs\");", "hides");
    caught("stack/a.rs", "#[path = \"../net/udp.rs\"] mod x;", "hides");
}

#[test]
fn the_table_of_imports() {
    let may = |from: &str, what: &str| {
        let source = format!("use crate::{what};");
        faults(&format!("{from}/x.rs"), &source).is_empty()
    };
    let rooms = [
        "base",
        "settings",
        "sip::Uri",
        "sip::sniff",
        "stack",
        "stack::auth",
        "net",
        "resolver",
        "resolver::Asker",
        "worker",
        "store",
        "config",
        "control",
        "control::Client",
        "sim",
        "cli",
        "server",
    ];
    for (from, expected) in [
        ("base", ""),
        ("sip", "base sip::Uri sip::sniff"),
        ("settings", "base settings"),
        ("stack", "base settings sip::Uri sip::sniff stack stack::auth"),
        ("sim", "base settings sip::Uri sip::sniff stack stack::auth sim"),
        ("net", "base settings sip::sniff net"),
        ("resolver", "base settings resolver resolver::Asker"),
        (
            "worker",
            "base settings sip::Uri sip::sniff stack stack::auth net resolver::Asker worker",
        ),
        ("store", "base settings stack::auth store"),
        (
            "config",
            "base settings sip::Uri sip::sniff stack stack::auth net resolver resolver::Asker store config",
        ),
        ("control", "base control control::Client"),
        ("cli", "base settings config control::Client cli"),
        (
            "server",
            "base settings sip::Uri sip::sniff stack stack::auth net resolver resolver::Asker worker store config control control::Client server",
        ),
    ] {
        let allowed: Vec<_> = rooms.into_iter().filter(|room| may(from, room)).collect();
        let expected: Vec<_> = match from {
            "base" => vec!["base"],
            _ => expected.split_whitespace().collect(),
        };
        assert_eq!(allowed, expected, "{from}");
    }
    caught("net/x.rs", "use crate::sip;", "`net` imports `crate::sip`");
    caught("net/x.rs", "use crate::sip::*;", "imports");
    caught("lib.rs", "use stack::Endpoint;", "lib.rs imports");
    // The binary's own rooms call the library by its name.
    for source in [
        "use strowger::control::ControlApi;",
        "use strowger::worker::Crew;",
        "use super::super::server::logger;",
        "fn f() { strowger::net::sys::up() }",
    ] {
        caught("cli/x.rs", source, "`cli` imports");
    }
    caught("server/x.rs", "use crate::cli::Places;", "`server` imports");
    // What is no import.
    passed(
        "stack/x.rs",
        "// use crate::net;\n/* crate::net /* nested */ crate::net */ /// crate::net\nconst A: &str = \"crate::net\";\n\
         const B: &[u8] = br#\"crate::net \" \"#; const C: char = '\"'; fn f<'a>(x: &'a str) { let net = 1; net::<u8>; }\n\
         use super::branch::Signer; use super::{proxy::Context, branch}; pub(in crate::stack) fn g() {} pub(crate) fn h() {}\n\
         mod tests { use super::*; use super::super::branch; }",
    );
}

#[test]
fn unsafe_has_one_place() {
    caught("net/udp.rs", "fn f() { unsafe { g() } }", "`unsafe`");
    caught("stack/x.rs", "unsafe impl Send for X {}", "`unsafe`");
    caught("net/udp.rs", "#![allow(unsafe_code)]", "`unsafe_code`");
    caught("lib.rs", "pub mod base;", "does not deny");
    caught("main.rs", "fn main() {}", "does not forbid");
    caught("net/mod.rs", "#![allow(unsafe_code)] pub mod sys;", "more than");
    passed("net/sys.rs", "/// unsafe\nfn f() { unsafe { libc::close(1) } }");
    passed("net/mod.rs", "#[allow(unsafe_code)]\npub mod sys;\npub mod udp;");
    passed("lib.rs", "#![deny(unsafe_code)]\npub mod base;");
    passed("net/udp.rs", "// unsafe\nconst A: &str = \"unsafe\"; fn is_unsafe() {}");
}

#[test]
fn pure_rooms_have_no_clock_socket_thread_or_chance() {
    for source in [
        "use std::time::Instant;",
        "use std::time::{Duration, Instant};",
        "use std::time;",
        "use std::{net, time as t};",
        "use std::time::*;",
        "fn f() { std::time::SystemTime::now(); }",
        "use std::net::UdpSocket;",
        "use std::net::{IpAddr, TcpStream};",
        "use std::net::*;",
        "use std::thread;",
        "fn f() { ::std::thread::sleep(d) }",
        "fn f() { return ::std::thread::sleep(d) }",
        "fn f() -> <X as ::std::net::ToSocketAddrs>::Iter {}",
        "use std as s;",
        "use std::*;",
        "use std::fs::File;",
        "fn f() { std::env::var(\"A\") }",
        "use rand::Rng;",
        "fn f() { getrandom::fill(&mut b) }",
        "use mio::Poll;",
        "fn f() { libc::time(x) }",
        "fn f() { let m = HashMap::new(); }",
        "use std::collections::hash_map::RandomState;",
        "#[cfg(test)] mod tests { use std::time::Instant; }",
    ] {
        for room in PURE {
            let name = format!("{room}/x.rs");
            caught(&name, source, "a pure room");
        }
    }
    for source in [
        "use std::net::{IpAddr, SocketAddr}; use std::time::Duration; use std::sync::Mutex;",
        "use crate::base::Instant; fn f(now: Instant) { let time = Instant::from_ms(1); }",
        "use log::info; fn f() { log::info!(\"std::time::Instant\"); memchr::memchr(b'x', b); }",
        "#[cfg(test)] mod tests { fn f() { std::fs::read(env!(\"X\")); let m = HashMap::new(); } }",
    ] {
        passed("stack/x.rs", source);
    }
    passed("worker/x.rs", "use std::time::Instant; use mio::Poll;");
}

#[test]
fn openings_leftovers_and_length() {
    let crates = BTreeSet::new();
    for text in ["", "use std::io;\n", "// no\n", "//!\n", "\n//! late\n"] {
        let faults = check("worker/x.rs", text, &crates);
        assert!(faults.iter().any(|fault| fault.contains("does not open")), "{text}");
    }
    for source in [
        "fn f() { todo!() }",
        "fn f() { unimplemented!(\"x\") }",
        "fn f() { dbg!(1); }",
    ] {
        caught("worker/x.rs", source, "!`");
    }
    passed("worker/x.rs", "// todo!()\nfn todo() {} fn f() { todo(); }");
    caught("worker/util.rs", "", "says nothing");
    let long = "fn f() {}\n".repeat(LONGEST_FILE);
    caught("worker/x.rs", &long, "lines without the tests");
    passed("worker/tests.rs", &long);
    let tested = format!("fn g() {{}}\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
    passed("worker/x.rs", &tested);
}
