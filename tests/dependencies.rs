//! What the server is built from: every package has a licence that deny.toml allows, and comes from the registry that it names. `cargo deny`
//! reads the same file and looks at more; this needs no tool.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

#[test]
fn licences_and_sources_are_those_that_deny_toml_allows() {
    let root = env!("CARGO_MANIFEST_DIR");
    let text = std::fs::read_to_string(format!("{root}/deny.toml")).expect("deny.toml");
    let rules: toml::Table = text.parse().expect("TOML");
    let list = |section: &str, key: &str| -> BTreeSet<String> {
        let list = rules[section][key].as_array().expect("a list");
        let words = list.iter().map(|word| word.as_str().expect("a string"));
        words.map(str::to_owned).collect()
    };
    let licences = list("licenses", "allow");
    let sources = list("sources", "allow-registry");
    let banned = list("bans", "deny");

    let packages = packages(root);
    assert!(packages.len() > 100, "{} packages", packages.len());
    let mut faults = Vec::new();
    for package in &packages {
        let word = |key: &str| package[key].as_str().unwrap_or_default();
        let name = format!("{} {}", word("name"), word("version"));
        if !allows(word("license"), &licences) {
            faults.push(format!("{name}: licence {:?}", word("license")));
        }
        // Without a source it is ours.
        let source = package["source"].as_str();
        let registry = source.and_then(|source| source.strip_prefix("registry+"));
        if source.is_some() && !registry.is_some_and(|registry| sources.contains(registry)) {
            faults.push(format!("{name}: from {source:?}"));
        }
        if banned.contains(word("name")) {
            faults.push(format!("{name}: banned"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    // The only way to TLS, whoever takes it.
    let libraries = packages.iter().filter(|package| package["name"] == "openssl-sys");
    assert_eq!(libraries.count(), 1, "openssl-sys");
    let others = ["rustls", "schannel", "security-framework", "openssl-src", "boring-sys"];
    let foreign = packages.iter().filter(|package| others.iter().any(|name| package["name"] == *name));
    assert_eq!(foreign.map(|package| package["name"].to_string()).collect::<Vec<_>>(), Vec::<String>::new());
}

/// Those of this platform, as Cargo.lock has them.
fn packages(root: &str) -> Vec<Value> {
    let version = Command::new("rustc").arg("-vV").output().expect("rustc");
    let version = String::from_utf8(version.stdout).expect("text");
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--all-features", "--filter-platform"])
        .arg(host.expect("a host"))
        .current_dir(root)
        .output()
        .expect("cargo metadata");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    metadata["packages"].as_array().expect("a list").clone()
}

/// Whether an SPDX expression lets us choose licences that are all allowed. A slash is OR, as packages of old write it.
fn allows(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    any(&mut rest, allowed) == Some(true) && rest.is_empty()
}

/// `None`: it is no expression.
fn any(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut is_good = all(rest, allowed)?;
    while let ["OR", more @ ..] = rest {
        *rest = more;
        is_good |= all(rest, allowed)?;
    }
    Some(is_good)
}

fn all(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut is_good = one(rest, allowed)?;
    while let ["AND", more @ ..] = rest {
        *rest = more;
        is_good &= one(rest, allowed)?;
    }
    Some(is_good)
}

fn one(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    match *rest {
        ["(", more @ ..] => {
            *rest = more;
            let is_good = any(rest, allowed)?;
            let [")", more @ ..] = *rest else {
                return None;
            };
            *rest = more;
            Some(is_good)
        }
        [licence, "WITH", exception, more @ ..] => {
            *rest = more;
            Some(allowed.contains(&format!("{licence} WITH {exception}")))
        }
        [licence, more @ ..] => {
            *rest = more;
            Some(allowed.contains(*licence))
        }
        [] => None,
    }
}

#[test]
fn an_expression_is_read_as_spdx_means_it() {
    let allowed: BTreeSet<String> = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
    for good in [
        "MIT",
        "MIT OR GPL-3.0",
        "GPL-3.0/MIT",
        "MIT AND ISC",
        "(MIT OR GPL-3.0) AND ISC",
        "GPL-3.0 OR MIT AND ISC",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert!(allows(good, &allowed), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND GPL-3.0", "MIT OR ISC AND", "(MIT", "Apache-2.0", "MIT ISC"] {
        assert!(!allows(bad, &allowed), "{bad}");
    }
}
