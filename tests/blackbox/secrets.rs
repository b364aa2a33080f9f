//! Files that hold secrets: replaced ones take effect, those that others may read are named, and a crash leaves none of them behind.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::openssl_tool::SClient;
use crate::pki::{Authority, Certificate, Kind};
use crate::place::{CALLER, Place, wait_for};
use crate::process;
use crate::server::{Conf, Server, binary};

const READ: &str = "certificates and keys have changed, and were read again";
const KEPT: &str = "certificates and keys are unchanged";

/// The subject of the certificate that a new connection is shown.
fn shown(place: &Place, server: &Server) -> String {
    let mut client = SClient::connect(place, server.secure(), &[]);
    client.ask();
    let said = client.leave();
    let subject = said.lines().find_map(|line| line.strip_prefix("subject=CN = "));
    subject.unwrap_or_else(|| panic!("{said}")).to_owned()
}

/// Waits until it is this one; for two seconds, and what the machine's other work takes.
fn wait_until_shown(place: &Place, server: &Server, name: &str) {
    let begun = Instant::now();
    let found = wait_for(Duration::from_secs(6), || (shown(place, server) == name).then_some(()));
    assert!(found.is_some(), "not {name}:\n{}", server.log());
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn replaced_certificates_take_effect_without_a_signal() {
    let place = Place::new("replaced");
    let authority = Authority::new(&place, "ca");
    let issue = |name: &str| authority.issue(&place, "server", Kind::Ecdsa, &[name]);
    let certificate = issue("first.example.test");
    let server = Conf::new(&place).tls(&place, &[&certificate]).start(&place);
    let connect = |name| Agent::tls(place.ip(CALLER), server.secure(), &authority, name, None);
    let asks = |agent: &Agent| {
        let options = agent.request("OPTIONS", &format!("sip:{}", server.address));
        assert_eq!(agent.ask(&options).status(), Some(200));
    };
    let first = connect("first.example.test");
    asks(&first);
    // Written over.
    issue("second.example.test");
    wait_until_shown(&place, &server, "second.example.test");
    server.expect_log(&[READ]);
    asks(&first);
    // Moved into their places, one after the other: as long as they do not fit, the old ones stay, and one line says why.
    let next = authority.issue(&place, "next", Kind::Ecdsa, &["third.example.test"]);
    let before = server.log().len();
    fs::rename(&next.file, &certificate.file).expect("a file moved");
    let line = server.expect_log_after(before, &[KEPT]);
    assert!(line.contains("ERROR") && line.contains("server.key"), "{line}");
    std::thread::sleep(Duration::from_millis(1500));
    let count = server.log()[before..].matches(KEPT).count();
    assert_eq!(count, 1, "{}", server.log());
    assert_eq!(shown(&place, &server), "second.example.test");
    fs::rename(&next.key, &certificate.key).expect("a file moved");
    wait_until_shown(&place, &server, "third.example.test");
    asks(&first);
    // By a link that leads elsewhere, as certificates of some authorities are renewed.
    let fourth = authority.issue(&place, "fourth", Kind::Ecdsa, &["fourth.example.test"]);
    for (link, to) in [(&certificate.file, &fourth.file), (&certificate.key, &fourth.key)] {
        let draft = place.path("draft");
        std::os::unix::fs::symlink(to, &draft).expect("a link");
        fs::rename(&draft, link).expect("a link moved");
    }
    wait_until_shown(&place, &server, "fourth.example.test");
    // Gone, and there again.
    let kept = place.path("kept");
    let before = server.log().len();
    fs::rename(&fourth.key, &kept).expect("a file moved");
    server.expect_log_after(before, &[KEPT]);
    assert_eq!(shown(&place, &server), "fourth.example.test");
    let before = server.log().len();
    fs::rename(&kept, &fourth.key).expect("a file moved");
    server.expect_log_after(before, &["can be read again, and have not changed"]);
    // A reload by signal finds the same as the looks do.
    server.signal("HUP");
    server.expect_log_after(before, &["certificates and keys read again"]);
    assert_eq!(shown(&place, &server), "fourth.example.test");
    asks(&first);
}

/// Authorities too: whom it trusts changes for new connections.
#[test]
fn a_replaced_authority_takes_effect_without_a_signal() {
    let place = Place::new("trusted");
    let (old, new) = (Authority::new(&place, "old"), Authority::new(&place, "new"));
    let own = old.issue(&place, "own", Kind::Ecdsa, &["sip.example.test"]);
    let client = new.issue(&place, "client", Kind::Ecdsa, &["a.example.test"]);
    let trusted = Authority::new(&place, "trusted");
    fs::copy(&old.file, &trusted.file).expect("whom to trust");
    let server = Conf::new(&place).tls(&place, &[&own]).trust(&trusted, "required").start(&place);
    let showing = crate::openssl_tool::showing(&client);
    let arguments: Vec<&str> = showing.iter().map(String::as_str).collect();
    SClient::connect(&place, server.secure(), &arguments).refused();
    fs::copy(&new.file, &trusted.file).expect("whom to trust now");
    server.expect_log(&[READ]);
    let mut client = SClient::connect(&place, server.secure(), &arguments);
    client.ask();
}

fn expose(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("the test's own file");
}

/// A server with a key and users, in files of these modes.
fn with_secrets(place: &Place, users: &str, mode: u32) -> (Conf, Certificate) {
    let authority = Authority::new(place, "ca");
    let own = authority.issue(place, "own", Kind::Ecdsa, &["sip.example.test"]);
    expose(&own.key, mode);
    let path = format!("{:?}", place.path(users).display().to_string());
    let conf = Conf::new(place).tls(place, &[&own]).set("auth", "users", &path).set("auth", "challenge_register", "true");
    (conf, own)
}

#[test]
fn secrets_that_others_may_read_are_named_by_the_server_and_by_check() {
    let place = Place::new("exposed");
    let right = "make it private with chmod 600";
    for (users, mode) in [("users.txt", 0o644), ("users.db", 0o640), ("own.txt", 0o600)] {
        let (conf, own) = with_secrets(&place, users, mode);
        let file = conf.write(&place).display().to_string();
        let path = place.path(users);
        if users.ends_with(".db") {
            let add = ["user", "add", "alice@example.test", "--password", "a", "--create", "-c", &file];
            let outcome = process::run(&place, "add", binary(), &add, Duration::from_secs(10));
            assert_eq!(outcome.code, Some(0), "{outcome:?}");
            let made = fs::metadata(&path).expect("the database").mode();
            assert_eq!(made & 0o777, 0o600, "made for its owner alone");
        } else {
            fs::write(&path, format!("alice:example.test:{}\n", "0".repeat(32))).expect("users");
        }
        expose(&path, mode);
        let lines = [
            format!("private key {}: others may read it (mode {mode:04o}); {right}", own.key.display()),
            format!("users {}: others may read it (mode {mode:04o}); {right}", path.display()),
        ];
        let arguments = ["check", "-c", &file];
        let checked = process::run(&place, "check", binary(), &arguments, Duration::from_secs(10));
        assert_eq!(checked.code, Some(0), "{checked:?}");
        let server = conf.start(&place);
        for line in &lines {
            let is_said = checked.stdout.contains(&format!("warning    {line}\n"));
            assert_eq!(is_said, mode != 0o600, "{checked:?}");
            match mode {
                0o600 => assert!(!server.log().contains("others may read it")),
                _ => assert!(server.expect_log(&[line]).contains("WARN")),
            }
        }
        // It says so again when it has read them again.
        if mode != 0o600 {
            let before = server.log().len();
            server.signal("HUP");
            server.expect_log_after(before, &[&lines[0]]);
        }
    }
}

/// What the kernel may keep of the server when it crashes.
#[test]
fn no_core_is_left_unless_the_conf_wants_it() {
    for (core_dumps, is_left) in [(None, false), (Some("false"), false), (Some("true"), true)] {
        let place = Place::new("core");
        let mut conf = Conf::new(&place);
        if let Some(core_dumps) = core_dumps {
            conf = conf.set("server", "core_dumps", core_dumps);
        }
        let mut server = conf.start(&place);
        let proc = format!("/proc/{}", server.id());
        let limits = fs::read_to_string(format!("{proc}/limits")).expect("its limits");
        let cores = limits.lines().find(|line| line.starts_with("Max core file size"));
        let words: Vec<&str> = cores.expect("a limit").split_whitespace().collect();
        let own = fs::read_to_string("/proc/self/limits").expect("our limits");
        let own = own.lines().find(|line| line.starts_with("Max core file size"));
        let own: Vec<&str> = own.expect("a limit").split_whitespace().collect();
        match is_left {
            true => assert_eq!(words[4..6], own[4..6]),
            false => assert_eq!(words[4..6], ["0", "0"]),
        }
        // The other half, which counts where a program collects crashes: the files in /proc of a process that leaves no dump are root's,
        // whoever runs it. Where root does, that cannot be seen from outside.
        let ours = fs::metadata("/proc/self").expect("our folder").uid();
        let owner = fs::metadata(&proc).expect("its folder").uid();
        assert_eq!(owner, if is_left { ours } else { 0 });
        server.assert_alive(&place, CALLER);
    }
}
