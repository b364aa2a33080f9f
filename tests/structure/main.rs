//! The architecture as a test: who may import whom, where `unsafe` may stand, what the pure rooms never mention, how files begin, how long
//! files and functions are, and that no file is part of a circle.
//!
//! Here stand the tables, and in `exceptions` what breaks a rule for now. `reading` reads the sources with `syn`, `rules` and `circles`
//! compare them with the tables, and `samples` proves on sources made up for it that each rule finds what breaks it.

mod circles;
mod exceptions;
mod reading;
mod rules;
mod samples;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Which rooms of ours a room may import, besides itself. `sip::x` allows that one module or item of it.
pub const IMPORTS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("sip", &["base"]),
    // What the conf says, for all that do it.
    ("settings", &["base"]),
    ("stack", &["base", "settings", "sip"]),
    ("sim", &["base", "settings", "sip", "stack"]),
    // The two readers of raw bytes, and nothing else of the words.
    ("net", &["base", "settings", "sip::frame", "sip::Frame", "sip::Framer", "sip::Fault", "sip::sniff"]),
    ("resolver", &["base", "settings"]),
    // Copies of what passes, for those who look on.
    ("trace", &["base", "settings", "sip"]),
    // Of the resolver only how to ask it.
    ("worker", &["base", "settings", "sip", "stack", "net", "resolver::Asker", "trace"]),
    // Whose data it keeps: users, and bindings.
    ("store", &["base", "settings", "stack::auth", "stack::location"]),
    // The table that servers share: what it keeps, and how a flow is named.
    ("share", &["base", "settings", "stack::location", "stack::relay"]),
    // Above those that it sets up.
    ("config", &["base", "settings", "sip", "stack", "net", "store", "resolver"]),
    // What is counted, and the bound on what strangers make us log.
    ("control", &["base", "settings::Words", "trace"]),
    // The two rooms of the binary. The commands: of a running server they know the control socket's client and what it returns.
    (
        "cli",
        &[
            "base",
            "settings",
            "sip::Host",
            "stack::route",
            "store::Source",
            "store::subscriber",
            "store::text",
            "store::users",
            "config",
            "control::AorEntry",
            "control::Client",
            "control::ContactEntry",
            "control::FailureEntry",
            "control::NewBinding",
            "control::NextHopEntry",
            "control::Number",
            "control::TargetEntry",
            "control::Targets",
            "control::TraceEvent",
            "trace::Wanted",
            "trace::visible",
            "control::TraceQuery",
            "control::Traced",
        ],
    ),
    // The running server: the whole library but the laboratory.
    ("server", &["base", "settings", "sip", "stack", "net", "resolver", "trace", "worker", "store", "share", "config", "control"]),
];

/// Rooms without a clock, a socket, a thread or a random source.
pub const PURE: &[&str] = &["base", "settings", "sip", "stack", "sim"];

/// What a pure room may take from outside. All compute but `log`, a facade that does nothing by itself.
pub const PURE_CRATES: &[&str] = &["std", "memchr", "siphasher", "md5", "sha2", "log", "serde", "serde_json"];

/// Of these modules of the standard library a pure room may name only the items given: plain data.
pub const PURE_STD: &[(&str, &[&str])] = &[
    ("time", &["Duration"]),
    ("net", &["AddrParseError", "IpAddr", "Ipv4Addr", "Ipv6Addr", "SocketAddr", "SocketAddrV4", "SocketAddrV6"]),
    ("thread", &[]),
    ("process", &[]),
    ("os", &[]),
    // Tests may read data files and the directory of the package.
    ("fs", &["in tests"]),
    ("env", &["in tests"]),
];

/// The files in which `unsafe` may stand, and the one that lets them.
pub const UNSAFE: &[&str] = &[
    "net/sys.rs",
    "net/sys/dumps.rs",
    "net/sys/filter.rs",
    "net/sys/identity.rs",
    "net/sys/name.rs",
    "net/sys/process.rs",
    "net/sys/rights.rs",
    "net/sys/ssl.rs",
];
pub const UNSAFE_ALLOWED_BY: &str = "net/mod.rs";

/// Lines of a file without its tests, and of a function.
pub const LONGEST_FILE: usize = 600;
pub const LONGEST_FUNCTION: usize = 70;

/// What breaks a rule for now: to become less, never more. What is listed here and keeps the rule is a fault too.
#[derive(Default)]
pub struct Exceptions {
    /// Longer files, how long they may be, and why.
    pub files: &'static [(&'static str, usize, &'static str)],
    /// The same of functions: file, name, lines, why.
    pub functions: &'static [(&'static str, &'static str, usize, &'static str)],
    /// Files that import each other, directly or by others.
    pub circles: &'static [&'static [&'static str]],
}

#[test]
fn the_sources_keep_the_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut crates = BTreeSet::new();
    let mut sources = Vec::new();
    // The laboratory is a package of its own, and keeps the rules as a room does.
    for (package, prefix) in [(root.to_owned(), ""), (root.join("tests/sim"), "sim/")] {
        let manifest: toml::Table = std::fs::read_to_string(package.join("Cargo.toml")).unwrap().parse().unwrap();
        let dependencies = manifest["dependencies"].as_table().unwrap();
        crates.extend(dependencies.keys().map(|name| name.replace('-', "_")));
        let mut files = Vec::new();
        collect(&package.join("src"), &mut files);
        for file in files {
            let name = file.strip_prefix(package.join("src")).unwrap().to_str().unwrap();
            sources.push((format!("{prefix}{name}"), std::fs::read_to_string(&file).unwrap()));
        }
    }
    assert!(crates.contains("mio") && crates.contains("libc"));
    assert!(sources.len() > 200, "{} files", sources.len());
    let faults = rules::faults(&sources, &crates, &exceptions::EXCEPTIONS);
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    for entry in entries.collect::<BTreeSet<_>>() {
        if entry.is_dir() {
            collect(&entry, files);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            files.push(entry);
        }
    }
}
