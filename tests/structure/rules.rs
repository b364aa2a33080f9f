//! The rules, each a function that says what breaks it.

use crate::circles;
use crate::reading::{File, Found};
use crate::{Exceptions, IMPORTS, LONGEST_FILE, LONGEST_FUNCTION, PURE, PURE_CRATES, PURE_STD, UNSAFE, UNSAFE_ALLOWED_BY};
use std::collections::BTreeSet;

/// All that is wrong with these sources, which have names and texts; `crates` are the packages that they are built with.
pub fn faults(sources: &[(String, String)], crates: &BTreeSet<String>, exceptions: &Exceptions) -> Vec<String> {
    let mut faults = Vec::new();
    let mut files = Vec::new();
    for (name, text) in sources {
        match File::read(name, text) {
            Ok(file) => files.push(file),
            Err(fault) => faults.push(format!("{name}:{fault}")),
        }
        faults.extend(opening(name, text).map(|fault| format!("{name}:{fault}")));
    }
    mark_tests(&mut files);
    for file in &files {
        let mut found = Vec::new();
        imports(file, &mut found);
        doors(file, &mut found);
        unsafety(file, &mut found);
        purity(file, crates, &mut found);
        leftovers(file, &mut found);
        length_of_file(file, exceptions, &mut found);
        length_of_functions(file, exceptions, &mut found);
        faults.extend(found.into_iter().map(|fault| format!("{}:{fault}", file.name)));
    }
    let rooms: BTreeSet<&str> = files.iter().filter_map(|file| file.name.split_once('/')).map(|(room, _)| room).collect();
    let unknown = rooms.into_iter().filter(|room| !IMPORTS.iter().any(|(known, _)| known == room));
    faults.extend(unknown.map(|room| format!("{room}/: a room that the import table lacks")));
    faults.extend(circles::faults(&files, exceptions.circles));
    faults.extend(needless(&files, exceptions));
    faults
}

/// Files are tests if the module that names them is one, or says that they are.
fn mark_tests(files: &mut [File]) {
    let children = files.iter().flat_map(|file| &file.children);
    let tests: Vec<_> = children.filter(|(_, is_test)| *is_test).map(|(module, _)| module.clone()).collect();
    for file in files {
        file.is_test = tests.iter().any(|module| file.module.starts_with(module));
    }
}

fn opening(name: &str, text: &str) -> Option<String> {
    let says = text.lines().next().and_then(|line| line.strip_prefix("//! "));
    if says.is_none_or(|sentence| sentence.trim().len() < 10) {
        return Some("1: does not open with a `//!` line that says what the file is".into());
    }
    let stem = name.rsplit('/').next().unwrap_or("").trim_end_matches(".rs");
    let says_nothing = ["util", "utils", "helper", "helpers", "misc", "common"].contains(&stem);
    says_nothing.then(|| "1: a name that says nothing".into())
}

/// The room that a file is in; those at the top are in none: main.rs ties the two rooms of the binary together.
fn room(file: &File) -> Option<&str> {
    match file.name.split_once('/') {
        Some((room, _)) => Some(room),
        None => IMPORTS.iter().map(|(room, _)| *room).find(|room| file.name.strip_suffix(".rs") == Some(room)),
    }
}

fn spelled(path: &Found) -> String {
    let root = if path.is_ours { "crate::" } else { "" };
    format!("{root}{}", path.segments.join("::"))
}

fn imports(file: &File, faults: &mut Vec<String>) {
    let ours = file.paths.iter().filter(|path| path.is_ours);
    let Some(room) = room(file) else {
        // It only names the rooms.
        let is_library = file.name == "lib.rs";
        faults.extend(ours.filter(|_| is_library).map(|path| format!("{}: lib.rs imports {}", path.line, spelled(path))));
        return;
    };
    let allowed = IMPORTS.iter().find(|(name, _)| *name == room).map_or(&[][..], |(_, allowed)| allowed);
    for path in ours {
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
            faults.push(format!("{}: `{room}` imports `{}`", path.line, spelled(path)));
        }
    }
}

/// What would let something in by another door than a path.
fn doors(file: &File, faults: &mut Vec<String>) {
    for three in file.words.windows(3) {
        let words = [&three[0].text[..], &three[1].text, &three[2].text];
        if matches!(words, ["extern", "crate", _] | ["include", "!", _] | ["[", "path", "="]) {
            faults.push(format!("{}: `{} {}` hides what a file takes in", three[0].line, words[0], words[1]));
        }
    }
}

fn unsafety(file: &File, faults: &mut Vec<String>) {
    let name = file.name.as_str();
    for word in &file.words {
        let fits = match word.text.as_str() {
            "unsafe" => UNSAFE.contains(&name),
            "unsafe_code" => ["lib.rs", "main.rs", "sim/lib.rs", UNSAFE_ALLOWED_BY].contains(&name),
            _ => true,
        };
        if !fits {
            faults.push(format!("{}: `{}`", word.line, word.text));
        }
    }
    match name {
        "lib.rs" if !file.has("# ! [ deny ( unsafe_code ) ]") => faults.push("1: does not deny unsafe_code".into()),
        "main.rs" | "sim/lib.rs" if !file.has("# ! [ forbid ( unsafe_code ) ]") => {
            faults.push("1: does not forbid unsafe_code".into());
        }
        UNSAFE_ALLOWED_BY => {
            let count = file.words.iter().filter(|word| word.text == "unsafe_code").count();
            if count > 1 || (count == 1 && !file.has("# [ allow ( unsafe_code ) ] pub mod sys ;")) {
                faults.push("1: unsafe_code is allowed to more than `sys`".into());
            }
        }
        _ => {}
    }
}

fn purity(file: &File, crates: &BTreeSet<String>, faults: &mut Vec<String>) {
    if !room(file).is_some_and(|room| PURE.contains(&room)) {
        return;
    }
    for path in file.paths.iter().filter(|path| !path.is_ours) {
        let segment = |at: usize| path.segments.get(at).map_or("", String::as_str);
        let (first, second, third) = (segment(0), segment(1), segment(2));
        let in_tests = file.in_tests(path.line);
        let is_foreign = (crates.contains(first) || ["rand", "getrandom"].contains(&first)) && !PURE_CRATES.contains(&first);
        let is_impure = first == "std"
            && match PURE_STD.iter().find(|(module, _)| *module == second) {
                Some((_, ["in tests"])) => !in_tests,
                Some((_, items)) => !items.contains(&third),
                // The whole library under another name.
                None => second.is_empty() || second == "*",
            };
        let makes_map = |pair: &[String]| {
            ["HashMap", "HashSet"].contains(&pair[0].as_str()) && ["new", "with_capacity", "from"].contains(&pair[1].as_str())
        };
        if is_foreign || is_impure {
            faults.push(format!("{}: a pure room mentions `{}`", path.line, spelled(path)));
        } else if path.segments.windows(2).any(makes_map) && !in_tests {
            faults.push(format!("{}: a pure room takes a random seed by `{}`", path.line, spelled(path)));
        }
    }
    for word in &file.words {
        let fits = match word.text.as_str() {
            "RandomState" => file.in_tests(word.line),
            "SystemTime" | "UdpSocket" | "TcpStream" | "TcpListener" => false,
            _ => true,
        };
        if !fits {
            faults.push(format!("{}: a pure room mentions `{}`", word.line, word.text));
        }
    }
}

fn leftovers(file: &File, faults: &mut Vec<String>) {
    for pair in file.words.windows(2) {
        let word = pair[0].text.as_str();
        if pair[1].text == "!" && ["todo", "unimplemented", "dbg"].contains(&word) {
            faults.push(format!("{}: `{word}!`", pair[0].line));
        }
    }
}

fn lines_without_tests(file: &File) -> usize {
    (1..=file.lines).filter(|line| !file.in_tests(*line)).count()
}

fn length_of_file(file: &File, exceptions: &Exceptions, faults: &mut Vec<String>) {
    let lines = lines_without_tests(file);
    let exception = exceptions.files.iter().find(|(name, ..)| *name == file.name);
    let longest = exception.map_or(LONGEST_FILE, |(_, longest, _)| *longest);
    if lines > longest {
        faults.push(format!("{longest}: {lines} lines without the tests, of at most {longest}"));
    }
}

fn length_of_functions(file: &File, exceptions: &Exceptions, faults: &mut Vec<String>) {
    for function in file.functions.iter().filter(|function| !file.in_tests(function.line)) {
        let is_this = |name: &str, of: &str| name == file.name && of == function.name;
        let exception = exceptions.functions.iter().find(|(name, of, ..)| is_this(name, of));
        let longest = exception.map_or(LONGEST_FUNCTION, |(_, _, longest, _)| *longest);
        if function.lines > longest {
            let (line, name, lines) = (function.line, &function.name, function.lines);
            faults.push(format!("{line}: `{name}` has {lines} lines, of at most {longest}"));
        }
    }
}

/// Exceptions for what keeps the rule, and those without a reason.
fn needless(files: &[File], exceptions: &Exceptions) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, _, why) in exceptions.files {
        let is_long = |file: &File| file.name == *name && lines_without_tests(file) > LONGEST_FILE;
        if !files.iter().any(is_long) || why.is_empty() {
            faults.push(format!("{name}: needs no exception for its length, or has one without a reason"));
        }
    }
    for (name, of, _, why) in exceptions.functions {
        let functions = files.iter().filter(|file| file.name == *name).flat_map(|file| &file.functions);
        let mut long = functions.filter(|function| function.name == *of && function.lines > LONGEST_FUNCTION);
        if long.next().is_none() || why.is_empty() {
            faults.push(format!("{name}: `{of}` needs no exception for its length, or has one without a reason"));
        }
    }
    faults
}
