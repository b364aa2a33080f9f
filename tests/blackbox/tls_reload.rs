//! Certificates and keys read again at SIGHUP: whole or not at all, for new handshakes only.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::agent::Agent;
use crate::openssl_tool::SClient;
use crate::pki::{Authority, Kind};
use crate::place::{CALLER, Place, wait_for};
use crate::process;
use crate::server::{Conf, Server, binary};

const DONE: &str = "certificates and keys read again";
const KEPT: &str = "reload refused, everything stays as it was";

/// Sends SIGHUP and waits for the line that tells what came of it.
fn hang_up(server: &Server, wanted: &str) -> String {
    let before = server.log().len();
    server.signal("HUP");
    server.expect_log_after(before, &[wanted])
}

/// The subject of the certificate that a new connection is shown.
fn shown(place: &Place, server: &Server, arguments: &[&str]) -> String {
    let mut client = SClient::connect(place, server.secure(), arguments);
    client.ask();
    let said = client.leave();
    let subject = said.lines().find_map(|line| line.strip_prefix("subject=CN = "));
    subject.unwrap_or_else(|| panic!("{said}")).to_owned()
}

#[test]
fn new_certificates_without_a_restart() {
    let place = Place::new("reload");
    let authority = Authority::new(&place, "ca");
    let issue = |name: &str| authority.issue(&place, "server", Kind::Ecdsa, &[name]);
    let certificate = issue("first.example.test");
    let mut server = Conf::new(&place).tls(&place, &[&certificate]).trust(&authority, "optional").start(&place);
    let connect = |name| Agent::tls(place.ip(CALLER), server.secure(), &authority, name, None);
    let first = connect("first.example.test");
    let asks = |agent: &Agent| {
        let options = agent.request("OPTIONS", &format!("sip:{}", server.address));
        assert_eq!(agent.ask(&options).status(), Some(200));
    };
    asks(&first);
    let session = place.path("session").display().to_string();
    shown(&place, &server, &["-sess_out", &session]);

    // It would be seen without a signal, too, in a second.
    issue("second.example.test");
    hang_up(&server, DONE);
    asks(&first);
    asks(&connect("second.example.test"));
    let subject = shown(&place, &server, &["-sess_in", &session]);
    assert_eq!(subject, "second.example.test", "a session of before does not bring the old certificate back");

    // The certificate is another, and its key is not there yet: nothing changes.
    let key = fs::read(&certificate.key).expect("the key");
    issue("third.example.test");
    let right = fs::read(&certificate.key).expect("the key");
    fs::write(&certificate.key, &key).expect("the wrong key");
    let line = hang_up(&server, KEPT);
    assert!(line.contains("ERROR") && line.contains("server."), "{line}");
    assert_eq!(shown(&place, &server, &[]), "second.example.test");
    fs::write(&certificate.key, &right).expect("the right key");

    // One bad file, and the good ones are not taken either.
    let trusted = fs::read(&authority.file).expect("the authority");
    for bad in [&b"no certificate at all"[..], &trusted[..trusted.len() / 2]] {
        fs::write(&authority.file, bad).expect("a bad file");
        let line = hang_up(&server, KEPT);
        assert!(line.contains("ca.pem"), "{line}");
        assert_eq!(shown(&place, &server, &[]), "second.example.test");
    }
    fs::remove_file(&authority.file).expect("the authority goes");
    let line = hang_up(&server, KEPT);
    assert!(line.contains("ca.pem"), "{line}");
    asks(&first);
    fs::write(&authority.file, &trusted).expect("the authority");
    hang_up(&server, DONE);
    // The worker takes it in with its next turn.
    asks(&first);
    asks(&connect("third.example.test"));
    server.assert_alive(&place, CALLER);
}

/// Before it is too late: `check` says it, the log at the start and at a reload, and a metric at any time.
#[test]
fn certificates_that_expire_are_told() {
    let place = Place::new("expiry");
    let authority = Authority::new(&place, "ca");
    let issue = |days| authority.issue_for(&place, "server", Kind::Ecdsa, &["sip.example.test"], days);
    let certificate = issue(100);
    let conf = Conf::new(&place).tls(&place, &[&certificate]).trust(&authority, "optional");
    let file = conf.write(&place).display().to_string();
    let check = || {
        let outcome = process::run(&place, "check", binary(), &["check", "-c", &file], Duration::from_secs(20));
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let lines = outcome.stdout.lines().filter(|line| line.starts_with("warning") && line.contains("server.pem"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(check(), [""; 0]);
    issue(5);
    let said = check();
    // The fifth may have begun.
    let is_soon = |line: &str| line.ends_with(", in 4 days") || line.ends_with(", in 5 days");
    let [soon] = &said[..] else { panic!("{said:?}") };
    assert!(soon.contains("certificate ") && soon.contains("server.pem: expires on ") && is_soon(soon), "{soon}");
    let server = conf.start(&place);
    let line = server.expect_log(&["WARN", "server.pem: expires on "]);
    assert!(is_soon(&line), "{line}");
    let expires = |role: &str, name: &str| {
        let stats = server.stats(&place);
        let wanted = format!("name={name:?},role={role:?}}}");
        let found =
            stats.iter().find(|(key, _)| key.starts_with("strowger_tls_certificate_expires_seconds{") && key.ends_with(&wanted));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
        found.map(|(_, value)| ((value - now) / 86_400.0).round()).unwrap_or_else(|| panic!("{stats:?}"))
    };
    assert_eq!((expires("shown", "sip.example.test"), expires("trusted", "ca")), (5.0, 30.0));
    issue(-1);
    let said = check();
    assert!(said.len() == 1 && said[0].contains("server.pem: expired on "), "{said:?}");
    let before = server.log().len();
    hang_up(&server, DONE);
    server.expect_log_after(before, &["WARN", "server.pem: expired on "]);
    assert_eq!(expires("shown", "sip.example.test"), -1.0);
    // Renewed in time, it is told of no more.
    issue(100);
    hang_up(&server, DONE);
    assert_eq!((expires("shown", "sip.example.test"), check().len()), (100.0, 0));
}

/// Whom to trust is read again too: a client of a new authority is let in, one of the old is not.
#[test]
fn another_authority_without_a_restart() {
    let place = Place::new("authority");
    let old = Authority::new(&place, "old");
    let new = Authority::new(&place, "new");
    let certificate = old.issue(&place, "server", Kind::Ecdsa, &["sip.example.test"]);
    let old_client = old.issue(&place, "old-client", Kind::Ecdsa, &["a.example.test"]);
    let new_client = new.issue(&place, "new-client", Kind::Ecdsa, &["a.example.test"]);
    let trusted = Authority::new(&place, "trusted");
    fs::copy(&old.file, &trusted.file).expect("whom to trust");
    let server = Conf::new(&place).tls(&place, &[&certificate]).trust(&trusted, "required").start(&place);
    let session = place.path("session").display().to_string();
    let arguments = |client: &crate::pki::Certificate| {
        [
            "-cert".to_owned(),
            client.file.display().to_string(),
            "-key".to_owned(),
            client.key.display().to_string(),
            "-tls1_2".to_owned(),
        ]
    };
    let (old_client, new_client) = (arguments(&old_client), arguments(&new_client));
    let old_client = old_client.each_ref().map(String::as_str);
    let new_client = new_client.each_ref().map(String::as_str);
    shown(&place, &server, &[&old_client[..], &["-sess_out", &session]].concat());
    let said = SClient::connect(&place, server.secure(), &new_client).refused();
    assert!(said.contains("SSL alert number 48"), "unknown ca: {said}");

    fs::copy(&new.file, &trusted.file).expect("whom to trust now");
    hang_up(&server, DONE);
    shown(&place, &server, &new_client);
    let said = SClient::connect(&place, server.secure(), &old_client).refused();
    assert!(said.contains("SSL alert number 48"), "unknown ca: {said}");
    // Nor by the session that it has from before.
    let again = [&old_client[..], &["-sess_in", &session]].concat();
    let said = SClient::connect(&place, server.secure(), &again).refused();
    assert!(said.contains("SSL alert number 48"), "unknown ca: {said}");
}

/// Sets the flag when it is dropped.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A thousand times under load: reading again costs no memory that stays, and nobody who comes meanwhile is turned away.
#[test]
fn many_reloads() {
    const WARM: usize = 50;
    const MEASURED: usize = 1_000;
    let place = Place::new("reloads");
    let authority = Authority::new(&place, "ca");
    let ecdsa = authority.issue(&place, "ecdsa", Kind::Ecdsa, &["sip.example.test"]);
    let rsa = authority.issue(&place, "rsa", Kind::Rsa, &["sip.example.test"]);
    let server = Conf::new(&place).tls(&place, &[&ecdsa, &rsa]).trust(&authority, "optional").start(&place);
    let connect = || Agent::tls(place.ip(CALLER), server.secure(), &authority, "sip.example.test", None);
    let asks = |agent: &Agent| {
        let options = agent.request("OPTIONS", &format!("sip:{}", server.address));
        assert_eq!(agent.ask(&options).status(), Some(200));
    };
    let agent = connect();
    asks(&agent);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let visitors = scope.spawn(|| {
            let mut handshakes = 0;
            while !over.load(Ordering::Relaxed) {
                asks(&connect());
                handshakes += 1;
            }
            handshakes
        });
        // Ends the visits when a check below fails, too.
        let _over = AtEnd(&over);
        let reload = |times| {
            for _ in 0..times {
                hang_up(&server, DONE);
                asks(&agent);
            }
            server.resident_kib()
        };
        let before = reload(WARM);
        let after = reload(MEASURED);
        over.store(true, Ordering::Relaxed);
        let handshakes = visitors.join().expect("all were served");
        assert!(handshakes > 100, "{handshakes} handshakes in all that time");
        assert!(after < before + 512, "{MEASURED} reloads cost {} KiB", after - before);
    });
    drop(agent);
    let gone = wait_for(std::time::Duration::from_secs(2), || (server.stat(&place, "strowger_connections") == 0.0).then_some(()));
    assert!(gone.is_some());
}
