//! The rules, checked: each finds what breaks it in sources made up for it, and says nothing of those that only look so.

use crate::{Exceptions, LONGEST_FILE, PURE, rules};

fn faults_of(sources: &[(&str, &str)], exceptions: &Exceptions) -> Vec<String> {
    let crates = ["mio", "libc", "log", "memchr", "rand"].map(String::from).into();
    let sources: Vec<_> = sources.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
    rules::faults(&sources, &crates, exceptions)
}

/// What is said of a source under `name`, with an opening line put before it.
fn faults(name: &str, source: &str) -> Vec<String> {
    faults_of(&[(name, &format!("//! A file made up.\n{source}"))], &Exceptions::default())
}

#[track_caller]
fn caught(name: &str, source: &str, what: &str) {
    let faults = faults(name, source);
    assert!(faults.iter().any(|fault| fault.contains(what)), "{name}: {source}\nexpected {what:?} in {faults:?}");
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
        "m! { use crate::{base, net}; }",
        "m! { use crate::{base::{self, Flow}, net::*}; }",
        "fn f() { assert!(a && [crate::net::up()].len() == 1); }",
        "fn f() { a!(b!(c => { super::super::net::up() })) }",
        "#[derive(Thing)] #[thing(with(crate::net::Udp))] struct A;",
        "fn f() { HashMap::<u8, crate::net::Udp>::default(); }",
        "impl crate::net::Wire for A {}",
        "fn f() { match a { crate::net::State::Open => {} } }",
        "fn f() where u8: crate::net::Wire { const A: u8 = crate::net::A; }",
        "use strowger::net::Udp;",
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
        // The laboratory calls the library by its name.
        let root = if from == "sim" { "strowger" } else { "crate" };
        let source = format!("use {root}::{what};");
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
        "trace",
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
        ("trace", "base settings sip::Uri sip::sniff trace"),
        ("worker", "base settings sip::Uri sip::sniff stack stack::auth net resolver::Asker trace worker"),
        ("store", "base settings stack::auth store"),
        ("config", "base settings sip::Uri sip::sniff stack stack::auth net resolver resolver::Asker store config"),
        ("control", "base trace control control::Client"),
        ("cli", "base settings config control::Client cli"),
        (
            "server",
            "base settings sip::Uri sip::sniff stack stack::auth net resolver resolver::Asker trace worker store config control control::Client server",
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
    caught("lib.rs", "use stack::Endpoint; pub mod stack;", "lib.rs imports");
    caught("sim/x.rs", "use strowger::net::Udp;", "`sim` imports `crate::net");
    passed("sim/x.rs", "use crate::net::Udp; use super::laboratory::Air; use strowger::stack::Endpoint;");
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
fn openings_and_leftovers() {
    for text in ["", "use std::io;\n", "// no\n", "//!\n", "\n//! late\n"] {
        let faults = faults_of(&[("worker/x.rs", text)], &Exceptions::default());
        assert!(faults.iter().any(|fault| fault.contains("does not open")), "{text}");
    }
    for source in ["fn f() { todo!() }", "fn f() { unimplemented!(\"x\") }", "fn f() { a!(dbg!(1)); }"] {
        caught("worker/x.rs", source, "!`");
    }
    passed("worker/x.rs", "// todo!()\nfn todo() {} fn f() { todo(); }");
    caught("worker/util.rs", "", "says nothing");
    caught("worker/x.rs", "fn f( {}", "2: cannot be read");
    caught("worker/x.rs", "fn f() { let = 1; }", "2: cannot be read");
    caught("cellar/x.rs", "", "a room that the import table lacks");
}

#[test]
fn files_have_a_length() {
    let long = "fn f() {}\n".repeat(LONGEST_FILE);
    caught("worker/x.rs", &long, "601 lines without the tests");
    passed("worker/x.rs", &long["fn f() {}\n".len()..]);
    let mine = |named: &str, long: &str| {
        let sources = [("worker/mod.rs", named), ("worker/suite.rs", long), ("worker/suite/x.rs", long)];
        faults_of(&sources, &Exceptions::default()).len()
    };
    let long = format!("//! A file made up.\n{long}");
    assert_eq!(mine("//! A file made up.\n#[cfg(test)]\nmod suite;\n", &long), 0);
    assert_eq!(mine("//! A file made up.\nmod suite;\n", &long), 2);
    for (tests, is_good) in [
        ("#[cfg(test)]\nmod tests {\n@}", true),
        ("#[cfg(all(test, debug_assertions))]\n#[rustfmt::skip]\nmod tests {\n@}", true),
        ("#[cfg(test)]\nimpl<A, B: Fn() -> C<D>> E<A, B> {\n@}", true),
        ("#[cfg(not(test))]\nmod tests {\n@}", false),
        ("#[cfg(test)]\nuse std::io;\nmod tests {\n@}", false),
        ("struct A {\n#[cfg(test)]\nx: B<C, D>,\n}\nmod tests {\n@}", false),
    ] {
        let source = format!("fn g() {{}}\n{}\n", tests.replace('@', &"fn f() {}\n".repeat(LONGEST_FILE)));
        assert_eq!(faults("worker/x.rs", &source).is_empty(), is_good, "{tests}");
    }
}

#[test]
fn functions_have_a_length() {
    let long = |lines: usize| format!("fn f(\n) {{\n{}}}", "g();\n".repeat(lines - 3));
    passed("worker/x.rs", &long(70));
    for source in ["@", "impl A { @ }", "trait A { @ }", "mod a { @ }", "fn g() { @ }", "impl A { pub(crate) async @ }"] {
        caught("worker/x.rs", &source.replace('@', &long(71)), "2: `f` has 71 lines");
    }
    passed("worker/x.rs", &format!("#[cfg(test)] mod tests {{ {} }}", long(71)));
    passed("worker/x.rs", &format!("#[cfg(test)]\n{}", long(71)));
}

#[test]
fn an_exception_must_be_needed() {
    let sources = |lines: usize| format!("//! A file made up.\nfn f() {{\n{}}}", "g();\n".repeat(lines - 3));
    let exceptions = Exceptions {
        files: &[("worker/x.rs", 650, "it is being split")],
        functions: &[("worker/x.rs", "f", 640, "it is being split")],
        circles: &[],
    };
    let count = |lines: usize| faults_of(&[("worker/x.rs", &sources(lines))], &exceptions).len();
    assert_eq!([count(651), count(642), count(641), count(601), count(600), count(71)], [2, 1, 0, 0, 1, 2]);
    let without_reason = Exceptions { files: &[("worker/x.rs", 650, "")], ..exceptions };
    assert_eq!(faults_of(&[("worker/x.rs", &sources(641))], &without_reason).len(), 1);
}

/// What is said of files that import each other; each is a name and its text.
fn circles(sources: &[(&str, &str)], known: &'static [&'static [&'static str]]) -> Vec<String> {
    let exceptions = Exceptions { circles: known, ..Exceptions::default() };
    let opened: Vec<_> = sources.iter().map(|(name, text)| (*name, format!("//! A file made up.\n{text}"))).collect();
    let sources: Vec<_> = opened.iter().map(|(name, text)| (*name, text.as_str())).collect();
    faults_of(&sources, &exceptions)
}

#[test]
fn circles_are_found() {
    let front = ("stack/mod.rs", "mod a; mod b; mod c; pub use a::A; pub(crate) use self::b::{B as Bee, Other};");
    for (a, b) in [
        ("use super::b::B;", "use crate::stack::a::A;"),
        ("use super::b;", "fn f() { super::a::g() }"),
        ("use super::{c::C, b::{self, B}};", "m! { crate::stack::a::g() }"),
        // By what the front passes on.
        ("use super::Bee;", "fn f(a: super::A) {}"),
        ("fn f() { super::Bee::new() }", "use strowger::stack::A;"),
        ("use super::b::*;", "use super::a::*;"),
        ("use super::b::*; use super::c::*;", "use super::a::*; use super::c::*;"),
    ] {
        let files = [front, ("stack/a.rs", a), ("stack/b.rs", b), ("stack/c.rs", "")];
        assert_eq!(circles(&files, &[]), [r#"a circle of imports: ["stack/a.rs", "stack/b.rs"]"#], "{a} {b}");
        assert!(circles(&files, &[&["stack/a.rs", "stack/b.rs"]]).is_empty());
        // A known one that has become smaller, or is gone.
        assert_eq!(circles(&files, &[&["stack/a.rs", "stack/b.rs", "stack/c.rs"]]).len(), 2);
        assert_eq!(circles(&files[..2], &[&["stack/a.rs", "stack/b.rs"]]).len(), 1);
    }
    // A round of three, and two circles that do not touch.
    let three = [
        ("stack/a.rs", "use super::b::B;"),
        ("stack/b.rs", "use super::c::C;"),
        ("stack/c.rs", "use super::a::A;"),
        ("sip/a.rs", "use super::b::B;"),
        ("sip/b.rs", "use super::a::A; use crate::base::Flow;"),
    ];
    let (small, large) = (&["sip/a.rs", "sip/b.rs"][..], &["stack/a.rs", "stack/b.rs", "stack/c.rs"][..]);
    assert_eq!(circles(&three, &[]).len(), 2);
    assert!(circles(&three, Box::leak(Box::new([small, large]))).is_empty());
    // A room's front that needs what needs it.
    let own = [("stack/mod.rs", "mod a; fn f() { a::g() }"), ("stack/a.rs", "use super::f;")];
    assert_eq!(circles(&own, &[]), [r#"a circle of imports: ["stack/a.rs", "stack/mod.rs"]"#]);
    // In the laboratory too.
    let own = [("sim/a.rs", "use crate::b::B;"), ("sim/b.rs", "use super::a::A;")];
    assert_eq!(circles(&own, &[]).len(), 1);
}

#[test]
fn what_is_no_circle() {
    let front = ("stack/mod.rs", "mod a; mod b; pub use a::A; pub use b::B;");
    for (a, b) in [
        ("use super::b::B;", "use super::c::C;"),
        ("use super::B; use super::a::A as Own;", "fn f() {}"),
        ("use super::B;", "#[cfg(test)] mod tests { use super::super::A; }"),
        ("use super::B;", "#[cfg(test)]\nfn f() -> super::A {}"),
        ("use super::B;", "// use super::a::A;\npub(in crate::stack) fn f() {}"),
    ] {
        let files = [front, ("stack/a.rs", a), ("stack/b.rs", b)];
        assert_eq!(circles(&files, &[]), [""; 0], "{a} {b}");
    }
    // A file of tests takes from its parent, and names others.
    let tests = [("stack/mod.rs", "#[cfg(test)] mod tests; fn f() {}"), ("stack/tests.rs", "use super::f;")];
    assert_eq!(circles(&tests, &[]), [""; 0]);
}
