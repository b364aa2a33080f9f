//! The server as TLS server before `openssl s_client`: versions, certificates by SNI and kind, clients' certificates, resumption, and what is refused.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::openssl_tool::{SClient, handshake, showing, trusting};
use crate::pki::{Authority, Kind};
use crate::place::{CALLEE, CALLER, Place, wait_for};
use crate::server::{Conf, Server};

const NAME: &str = "sip.example.test";
const OTHER: &str = "other.example.net";

/// A server with an ECDSA certificate, and its authority.
fn start(place: &Place, change: impl FnOnce(Conf) -> Conf) -> (Server, Authority) {
    let authority = Authority::new(place, "ca");
    let certificate = authority.issue(place, "server", Kind::Ecdsa, &[NAME]);
    let conf = Conf::new(place).tls(place, &[&certificate]);
    (change(conf).start(place), authority)
}

/// Handshakes of the server's side, as its metrics tell.
fn shaken(server: &Server, place: &Place, kind: &str) -> u32 {
    let stats = server.stats(place);
    stats[&format!("strowger_tls_handshakes_total{{side=\"server\",kind=\"{kind}\"}}")] as u32
}

/// Connects, asks an OPTIONS, takes leave; what s_client printed.
fn visit(place: &Place, server: &Server, arguments: &[&str]) -> String {
    let mut client = SClient::connect(place, server.secure(), arguments);
    client.ask();
    client.leave()
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// Old versions go beyond what OpenSSL offers by itself.
const OLD: [&str; 2] = ["-cipher", "ALL:@SECLEVEL=0"];

#[test]
fn versions() {
    let place = Place::new("versions");
    let (mut server, authority) = start(&place, |conf| conf);
    let trusting = trusting(&authority);
    for (option, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let mut arguments = words(&trusting);
        arguments.extend([option, "-servername", NAME, "-verify_hostname", NAME]);
        let said = visit(&place, &server, &arguments);
        assert!(said.contains(&format!("New, {name}, Cipher is ")), "{said}");
        assert!(said.contains("Verification: OK"), "{said}");
        assert!(said.contains(&format!("Verified peername: {NAME}")), "{said}");
    }
    for option in ["-tls1", "-tls1_1"] {
        let client = SClient::connect(&place, server.secure(), &[option, OLD[0], OLD[1]]);
        let said = client.refused();
        assert!(said.contains("alert protocol version"), "{said}");
    }
    server.expect_log(&[&format!("TLS from {}:", place.ip(CALLER)), ": handshake failed: we refused: unsupported protocol"]);
    assert_eq!(shaken(&server, &place, "full"), 2);
    assert_eq!(shaken(&server, &place, "failed"), 2);
    assert_eq!(shaken(&server, &place, "mutual"), 0);
    server.assert_alive(&place, CALLER);
}

#[test]
fn versions_by_conf() {
    for (key, version, refused, taken) in
        [("min_version", "1.3", "-tls1_2", "-tls1_3"), ("max_version", "1.2", "-tls1_3", "-tls1_2")]
    {
        let place = Place::new("bounds");
        let (server, _) = start(&place, |conf| conf.set("tls", key, &format!("{version:?}")));
        let said = SClient::connect(&place, server.secure(), &[refused]).refused();
        assert!(said.contains("alert protocol version"), "{said}");
        visit(&place, &server, &[taken]);
    }
}

/// The suite that RFC 3261 section 26.2.1 makes mandatory is there for who asks for it, and only then.
#[test]
fn the_mandatory_suite_by_conf() {
    let place = Place::new("mandatory");
    let authority = Authority::new(&place, "ca");
    let rsa = authority.issue(&place, "rsa", Kind::Rsa, &[NAME]);
    let ecdsa = authority.issue(&place, "ecdsa", Kind::Ecdsa, &[NAME]);
    let both = Conf::new(&place).tls(&place, &[&ecdsa, &rsa]);
    let wish = ["-tls1_2", "-cipher", "AES128-SHA"];
    {
        let server = both.start(&place);
        let said = SClient::connect(&place, server.secure(), &wish).refused();
        assert!(said.contains("alert handshake failure"), "{said}");
        server.expect_log(&["we refused: no shared cipher"]);
    }
    let server = both.set("tls", "ciphers", "\"AES128-SHA\"").start(&place);
    let said = visit(&place, &server, &wish);
    assert!(said.contains("Cipher is AES128-SHA\n") && said.contains("Protocol  : TLSv1.2"), "{said}");
    let said = SClient::connect(&place, server.secure(), &["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"]).refused();
    assert!(said.contains("alert handshake failure"), "{said}");
}

/// The name that a client asks for chooses the identity, and what it can verify chooses the kind of the certificate.
#[test]
fn certificates_by_name_and_kind() {
    let place = Place::new("sni");
    let authority = Authority::new(&place, "ca");
    let issue = |file, kind, name| authority.issue(&place, file, kind, &[name]);
    let (own_ecdsa, own_rsa) = (issue("own-ecdsa", Kind::Ecdsa, NAME), issue("own-rsa", Kind::Rsa, NAME));
    let (other_ecdsa, other_rsa) = (issue("other-ecdsa", Kind::Ecdsa, OTHER), issue("other-rsa", Kind::Rsa, OTHER));
    let server = Conf::new(&place)
        .tls(&place, &[&own_ecdsa, &own_rsa])
        .section(
            "[[tls.identity]]",
            &format!(
                "name = {OTHER:?}\ncertificate = {:?}\nprivate_key = {:?}",
                [&other_ecdsa.file, &other_rsa.file],
                [&other_ecdsa.key, &other_rsa.key]
            ),
        )
        .start(&place);
    let trusting = trusting(&authority);
    let kinds: [(&str, &[&str], &str); 4] = [
        ("1.3", &["-tls1_3", "-sigalgs", "ECDSA+SHA256"], "ECDSA"),
        ("1.3", &["-tls1_3", "-sigalgs", "RSA-PSS+SHA256"], "RSA-PSS"),
        ("1.2", &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], "ECDSA"),
        ("1.2", &["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], "RSA"),
    ];
    for (asked, shown) in [
        (NAME, NAME),
        (OTHER, OTHER),
        ("OTHER.example.NET", OTHER),
        // Whoever we do not know gets what we are by default.
        ("nobody.example.org", NAME),
    ] {
        for (version, kind, signature) in kinds {
            let mut arguments = words(&trusting);
            arguments.extend(["-servername", asked, "-verify_hostname", shown]);
            arguments.extend(kind);
            let said = visit(&place, &server, &arguments);
            assert!(said.contains(&format!("Peer signature type: {signature}")), "{asked}, {version}: {said}");
            assert!(said.contains(&format!("Verified peername: {shown}")), "{said}");
        }
    }
    let mut arguments = words(&trusting);
    arguments.push("-noservername");
    let said = visit(&place, &server, &arguments);
    assert!(said.contains(&format!("subject=CN = {NAME}")), "{said}");
}

/// `verify_client`: "no" does not ask, "optional" takes none or a good one, "required" a good one only.
#[test]
fn certificates_of_clients() {
    for verify in ["no", "optional", "required"] {
        let place = Place::new(verify);
        let (mut server, authority) = {
            let authority = Authority::new(&place, "ca");
            let certificate = authority.issue(&place, "server", Kind::Ecdsa, &[NAME]);
            let conf = Conf::new(&place).tls(&place, &[&certificate]);
            (conf.trust(&authority, verify).start(&place), authority)
        };
        let good = authority.issue(&place, "client", Kind::Ecdsa, &["client.example.test"]);
        let rsa = authority.issue(&place, "client-rsa", Kind::Rsa, &["client.example.test"]);
        let expired = authority.issue_for(&place, "expired", Kind::Ecdsa, &["client.example.test"], -1);
        let stranger = Authority::new(&place, "stranger").issue(&place, "strange", Kind::Ecdsa, &["client.example.test"]);
        for version in ["-tls1_2", "-tls1_3"] {
            for certificate in [&good, &rsa] {
                let showing = showing(certificate);
                let mut arguments = words(&showing);
                arguments.push(version);
                let said = visit(&place, &server, &arguments);
                assert_eq!(said.contains("No client certificate CA names sent"), verify == "no", "{said}");
                if verify != "no" {
                    assert!(said.contains("CN = ca"), "asked by name of authority: {said}");
                }
            }
            let mutual = shaken(&server, &place, "mutual");
            for (certificate, reason) in [
                (Some(&expired), "certificate has expired"),
                (Some(&stranger), "unable to get local issuer certificate"),
                (None, "peer did not return a certificate"),
            ] {
                let showing = certificate.map(showing).unwrap_or_default();
                let mut arguments = words(&showing);
                arguments.push(version);
                let welcome = verify == "no" || (verify == "optional" && certificate.is_none());
                if welcome {
                    visit(&place, &server, &arguments);
                    continue;
                }
                let before = server.log().len();
                let said = SClient::connect(&place, server.secure(), &arguments).refused();
                assert!(said.contains("SSL alert number"), "{said}");
                assert!(!said.contains("SIP/2.0"), "{said}");
                let line = server.expect_log_after(before, &["we refused", reason]);
                assert!(line.contains(&place.ip(CALLER).to_string()), "who it was: {line}");
            }
            assert_eq!(
                shaken(&server, &place, "mutual"),
                mutual,
                "who shows no good certificate is not counted among those who do"
            );
        }
        let all = if verify == "no" { 0 } else { 4 };
        assert_eq!(shaken(&server, &place, "mutual"), all, "{verify}");
        let failed = match verify {
            "no" => 0,
            "optional" => 4,
            _ => 6,
        };
        assert_eq!(shaken(&server, &place, "failed"), failed, "{verify}");
        server.assert_alive(&place, CALLER);
    }
}

/// Every way to resume: by ticket and by session ID in 1.2, by PSK in 1.3, all with and without a client's certificate.
#[test]
fn sessions_are_resumed() {
    for verify in ["no", "required"] {
        let place = Place::new("resumption");
        let authority = Authority::new(&place, "ca");
        let certificate = authority.issue(&place, "server", Kind::Ecdsa, &[NAME]);
        let client = authority.issue(&place, "client", Kind::Ecdsa, &["client.example.test"]);
        let other = authority.issue(&place, "other", Kind::Ecdsa, &[OTHER]);
        let server = Conf::new(&place)
            .tls(&place, &[&certificate])
            .trust(&authority, verify)
            .section(
                "[[tls.identity]]",
                &format!("name = {OTHER:?}\ncertificate = {:?}\nprivate_key = {:?}", other.file, other.key),
            )
            .start(&place);
        let session = place.path("session").display().to_string();
        let ways: [&[&str]; 3] = [&["-tls1_2"], &["-tls1_2", "-no_ticket"], &["-tls1_3"]];
        let mut resumed = 0;
        for way in ways {
            let (showing, trusting) = (showing(&client), trusting(&authority));
            let mut arguments = [words(&showing), words(&trusting)].concat();
            arguments.extend(["-servername", NAME]);
            arguments.extend(way);
            let mut first = arguments.clone();
            first.extend(["-sess_out", &session]);
            let said = visit(&place, &server, &first);
            assert!(handshake(&said).contains("New, TLS"), "{way:?}: {said}");
            let has_ticket = said.contains("TLS session ticket:");
            assert_eq!(has_ticket, !way.contains(&"-no_ticket"), "{said}");
            let mut again = arguments.clone();
            again.extend(["-sess_in", &session]);
            let said = visit(&place, &server, &again);
            assert!(handshake(&said).contains("Reused, TLS"), "{way:?}: {said}");
            resumed += 1;
            assert_eq!(shaken(&server, &place, "resumed"), resumed);
            // To another identity of ours the session means nothing.
            let mut elsewhere = [words(&showing), words(&trusting)].concat();
            elsewhere.extend(["-servername", OTHER, "-verify_hostname", OTHER]);
            elsewhere.extend(["-sess_in", &session]);
            let said = visit(&place, &server, &elsewhere);
            assert!(handshake(&said).contains("New, TLS"), "{way:?}: {said}");
        }
        let mutual = shaken(&server, &place, "mutual");
        let all = shaken(&server, &place, "full") + shaken(&server, &place, "resumed");
        assert_eq!(mutual, if verify == "required" { all } else { 0 });
        // The client's flights, two in every handshake here, and a call for each of them.
        let calls = server.stats(&place)["strowger_tls_handshake_calls_total{side=\"server\"}"];
        assert_eq!(calls as u32, 2 * all, "calls of SSL_do_handshake");
    }
}

#[test]
fn sessions_are_not_resumed_where_the_conf_says_so() {
    let place = Place::new("noresumption");
    let (server, _) = start(&place, |conf| conf.set("tls", "server_session_reuse", "false"));
    let session = place.path("session").display().to_string();
    let ways: [&[&str]; 3] = [&["-tls1_2"], &["-tls1_2", "-no_ticket"], &["-tls1_3"]];
    for way in ways {
        let mut arguments = way.to_vec();
        arguments.extend(["-sess_out", &session]);
        visit(&place, &server, &arguments);
        let mut arguments = way.to_vec();
        if place.path("session").exists() {
            arguments.extend(["-sess_in", &session]);
        }
        let said = visit(&place, &server, &arguments);
        assert!(handshake(&said).contains("New, TLS"), "{way:?}: {said}");
        let _ = std::fs::remove_file(place.path("session"));
    }
    assert_eq!(shaken(&server, &place, "resumed"), 0);
    assert_eq!(shaken(&server, &place, "full"), 6);
}

/// A handshake within a connection is refused; other connections do not notice.
#[test]
fn renegotiation_is_refused() {
    let place = Place::new("renegotiation");
    let (mut server, _) = start(&place, |conf| conf);
    let mut other = SClient::connect(&place, server.secure(), &["-tls1_2"]);
    other.ask();
    let mut client = SClient::connect(&place, server.secure(), &["-tls1_2"]);
    client.ask();
    client.say(b"R\n");
    client.expect("RENEGOTIATING");
    let said = client.refused();
    assert!(said.to_ascii_lowercase().contains("no renegotiation"), "{said}");
    let line = server.expect_log(&["TLS from", ": closed: "]);
    // AWS-LC ends the connection itself; OpenSSL says no, and this client then does.
    let reasons = ["renegotiation", "peer sent alert: handshake failure"];
    assert!(reasons.iter().any(|reason| line.contains(reason)), "{line}");
    other.ask();
    other.leave();
    server.assert_alive(&place, CALLER);
}

/// Whoever ends a connection says so (close_notify), and hears it said.
#[test]
fn goodbyes() {
    for version in ["-tls1_2", "-tls1_3"] {
        let place = Place::new("goodbye");
        let (server, _) = start(&place, |conf| conf.set("connections", "idle_timeout", "\"1s\""));
        let mut client = SClient::connect(&place, server.secure(), &[version, "-msg"]);
        client.ask();
        let said = client.leave();
        let alerts: Vec<&str> = said.lines().filter(|line| line.contains("close_notify")).collect();
        assert!(alerts.iter().any(|line| line.starts_with(">>>")), "{said}");
        let open = || server.stat(&place, "strowger_connections");
        let gone = wait_for(Duration::from_millis(700), || (open() == 0.0).then_some(()));
        assert!(gone.is_some(), "the connection outlives its client");

        // The other way round: we end it when nothing passes.
        let mut client = SClient::connect(&place, server.secure(), &[version, "-msg"]);
        client.ask();
        let said = client.refused();
        assert!(said.lines().any(|line| line.starts_with("<<<") && line.contains("close_notify")), "{said}");
        assert_eq!(server.stat(&place, "strowger_connections_idle_closed_total"), 1.0);
    }
}

/// How a client begins, taken from s_client.
pub fn hello(place: &Place) -> Vec<u8> {
    let listener = TcpListener::bind((place.ip(CALLEE), 0)).expect("a listener");
    let address = listener.local_addr().expect("its address");
    let _client = SClient::connect(place, address, &["-tls1_2"]);
    let (mut stream, _) = listener.accept().expect("s_client");
    let mut record = vec![0; 5];
    stream.read_exact(&mut record).expect("the record's header");
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(5 + length, 0);
    stream.read_exact(&mut record[5..]).expect("the ClientHello");
    record
}

/// More handshakes than the core can do: when they have waited too long for long enough others are refused at once, and when it is over all
/// are served.
#[test]
fn a_flood_of_handshakes() {
    let place = Place::new("handshakes");
    let hello = hello(&place);
    let authority = Authority::new(&place, "ca");
    let certificate = authority.issue(&place, "server", Kind::Rsa, &[NAME]);
    for (overload, refuses) in [("\"1ms\"", true), ("\"0s\"", false)] {
        let mut server = Conf::new(&place)
            .tls(&place, &[&certificate])
            .set("limits", "overload", overload)
            // They never go on, and would wait for each other.
            .set("connections", "handshakes", "100000")
            .start(&place);
        let began = |stream: &mut TcpStream| stream.write_all(&hello).is_ok();
        let flood: Vec<TcpStream> = (0..2000)
            .filter_map(|_| {
                let mut stream = TcpStream::connect(server.secure()).ok()?;
                began(&mut stream).then_some(stream)
            })
            .collect();
        if refuses {
            let line = server.expect_log(&["WARN", "TLS connection refused", "[limits] overload"]);
            assert!(line.contains("127."), "from whom: {line}");
        }
        drop(flood);
        let open = || server.stat(&place, "strowger_connections");
        let gone = wait_for(Duration::from_secs(20), || (open() == 0.0).then_some(()));
        assert!(gone.is_some(), "{} are still there", open());
        let mut client = SClient::connect(&place, server.secure(), &[]);
        client.ask();
        client.leave();
        let refused = server.stat(&place, "strowger_limit_hits_total{limit=\"tls_overload\"}");
        assert_eq!(refused >= 1.0, refuses, "{refused}");
        server.assert_alive(&place, CALLER);
    }
}

/// In an overload that goes on whoever is late might wait for ever. It is closed when a handshake would have been, with a line that says why.
#[test]
fn who_is_late_does_not_wait_for_ever() {
    let place = Place::new("late");
    let hello = hello(&place);
    let authority = Authority::new(&place, "ca");
    let certificate = authority.issue(&place, "server", Kind::Rsa, &[NAME]);
    let mut server = Conf::new(&place)
        .tls(&place, &[&certificate])
        .set("limits", "overload", "\"1ms\"")
        .set("connections", "handshakes", "100000")
        .set("connections", "handshake_timeout", "\"200ms\"")
        .start(&place);
    let address = server.secure();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut flood: Vec<TcpStream> = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                for _ in 0..50 {
                    if let Ok(mut stream) = TcpStream::connect(address)
                        && stream.write_all(&hello).is_ok()
                        && stream.set_nonblocking(true).is_ok()
                    {
                        flood.push(stream);
                    }
                }
                // Those that the server has closed make room for others.
                flood.retain(|stream| stream.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
            }
        });
        let told = wait_for(Duration::from_secs(20), || {
            server.log().contains("its turn has not come within handshake_timeout").then_some(())
        });
        is_over.store(true, Ordering::Relaxed);
        assert!(told.is_some(), "{}", server.log());
    });
    let open = || server.stat(&place, "strowger_connections");
    assert!(wait_for(Duration::from_secs(20), || (open() == 0.0).then_some(())).is_some(), "{} are still there", open());
    let client = SClient::connect(&place, address, &[]);
    client.leave();
    server.assert_alive(&place, CALLER);
}

/// What is not TLS on a TLS port ends that connection, with a line that says who and what.
#[test]
fn what_is_not_tls() {
    let place = Place::new("garbage");
    let (mut server, _) = start(&place, |conf| conf.set("connections", "handshake_timeout", "\"500ms\""));
    let open = || server.stat(&place, "strowger_connections");
    let mut refused = 0;
    let offers: [(&[u8], &str); 4] = [
        (&[0xff; 200], "we refused"),
        (b"OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP h\r\n\r\n", "we refused"),
        // A record that says it is longer than any may be.
        (&[22, 3, 1, 0xff, 0xff, 1, 0, 0, 0, 0], "we refused"),
        // One that never comes to its end.
        (&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], "handshake_timeout"),
    ];
    for (bytes, reason) in offers {
        let mut stream = TcpStream::connect(server.secure()).expect("a connection");
        let us = stream.local_addr().expect("our address").to_string();
        stream.write_all(bytes).expect("what is not TLS");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.windows(4).any(|window| window == b"SIP/"), "{answer:?}");
        let line = server.expect_log(&[&us, reason]);
        assert!(line.contains(": handshake failed: "), "{line}");
        let lines = server.log().lines().filter(|l| l.contains(&us)).count();
        assert_eq!(lines, 1, "one line tells it: {}", server.log());
        refused += 1;
        assert_eq!(shaken(&server, &place, "failed"), refused);
        assert_eq!(open(), 0.0);
    }
    let client = SClient::connect(&place, server.secure(), &[]);
    client.leave();
    server.assert_alive(&place, CALLER);
}
