//! What a certificate proves: the next hop's name for one connection, a client's identity for what it may register and call as; what it is
//! made for, whether it is shown, and the groups that keys are exchanged in.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openssl::ssl::{NameType, SniError, SslAcceptor, SslContextBuilder, SslFiletype, SslMethod};

use crate::agent::{Agent, response};
use crate::message::Framer;
use crate::openssl_tool::{SClient, SServer, showing, trusting};
use crate::pki::{Authority, Certificate, Kind};
use crate::place::{CALLEE, CALLER, Place, wait_for};
use crate::server::{Conf, Server};
use crate::stream_tap::listen;

const NAME: &str = "sip.example.test";

/// What came to the gateway: by which connection, the name that was asked for there, and the Request-URI.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    connection: usize,
    name: String,
    uri: String,
}

/// A gateway at one address that has several names, and shows the certificate of the one that it is asked for; of another the first.
struct Gateway {
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Gateway {
    fn start(address: SocketAddr, certificates: &[(&str, &Certificate)]) -> Gateway {
        let listener = listen(address);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let show = |builder: &mut SslContextBuilder, certificate: &Certificate| {
            builder.set_certificate_chain_file(&certificate.file).expect("a certificate");
            builder.set_private_key_file(&certificate.key, SslFiletype::PEM).expect("a key");
        };
        let mut contexts = Vec::new();
        for (name, certificate) in certificates {
            let mut builder = SslContextBuilder::new(SslMethod::tls_server()).expect("a context");
            show(&mut builder, certificate);
            contexts.push((name.to_string(), builder.build()));
        }
        let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).expect("a context");
        show(&mut acceptor, certificates[0].1);
        acceptor.set_servername_callback(move |ssl, _| {
            let asked = ssl.servername(NameType::HOST_NAME).map(str::to_owned);
            let context = contexts.iter().find(|(name, _)| Some(name) == asked.as_ref());
            match context {
                Some((_, context)) => ssl.set_ssl_context(context).map_err(|_| SniError::ALERT_FATAL),
                None => Ok(()),
            }
        });
        let acceptor = acceptor.build();
        let told = seen.clone();
        std::thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let (acceptor, seen) = (acceptor.clone(), told.clone());
                let Ok(stream) = stream else { return };
                std::thread::spawn(move || Gateway::talk(connection, stream, &acceptor, &seen));
            }
        });
        Gateway { seen }
    }

    /// Answers everything with 200.
    fn talk(number: usize, stream: TcpStream, acceptor: &SslAcceptor, seen: &Mutex<Vec<Seen>>) {
        let Ok(mut stream) = acceptor.accept(stream) else {
            return;
        };
        let name = stream.ssl().servername(NameType::HOST_NAME);
        let name = name.unwrap_or_default().to_owned();
        let mut framer = Framer::default();
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(count) => framer.push(&buffer[..count]),
            }
            while let Some(request) = framer.take() {
                let uri = request.start.split(' ').nth(1).unwrap_or_default();
                seen.lock().expect("the list").push(Seen { connection: number, name: name.clone(), uri: uri.to_owned() });
                let _ = stream.write_all(&response(&request, 200, "gateway", &[], b""));
            }
        }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("the list").clone()
    }
}

/// gw.example.test and other.example.test are next hops at one address: numbers with 1 go to the one, with 2 to the other.
struct TwoNames {
    place: Place,
    authority: Authority,
    address: SocketAddr,
}

impl TwoNames {
    fn new(name: &str) -> TwoNames {
        let place = Place::new(name);
        let authority = Authority::new(&place, "ca");
        let address = place.at_port(CALLEE, 5061);
        TwoNames { place, authority, address }
    }

    fn issue(&self, name: &str) -> Certificate {
        self.authority.issue(&self.place, name, Kind::Ecdsa, &[name])
    }

    fn target(&self, host: &str) -> String {
        format!("\"sips:{host}:5061;maddr={}\"", self.address.ip())
    }

    fn conf(&self) -> Conf {
        let own = self.issue(NAME);
        let route = |prefix: &str, host: &str| {
            let target = self.target(host);
            format!("to_user_prefix = \"{prefix}\"\naction = \"relay\"\ntarget = [{target}]")
        };
        Conf::new(&self.place)
            .tls(&self.place, &[&own])
            .trust(&self.authority, "no")
            .route(&route("1", "gw.example.test"))
            .route(&route("2", "other.example.test"))
    }

    fn ask(&self, server: &Server, caller: &Agent, uri: &str) -> u16 {
        let request = caller.request("MESSAGE", uri);
        let answer = caller.ask(&request);
        assert!(!server.log().contains("panicked"), "{}", server.log());
        answer.status().expect("a status")
    }
}

#[test]
fn two_names_at_one_address_are_two_connections_each_with_its_own_name() {
    let scene = TwoNames::new("two-names");
    let (gw, other) = (scene.issue("gw.example.test"), scene.issue("other.example.test"));
    let certificates = [("gw.example.test", &gw), ("other.example.test", &other)];
    let gateway = Gateway::start(scene.address, &certificates);
    let server = scene.conf().start(&scene.place);
    let caller = Agent::new(scene.place.at_port(CALLER, 0), server.address);
    for uri in ["sip:1@x.test", "sip:2@x.test", "sip:11@x.test", "sip:22@x.test"] {
        assert_eq!(scene.ask(&server, &caller, uri), 200, "{uri}");
    }
    let seen = gateway.seen();
    let by = |uri: &str| seen.iter().find(|seen| seen.uri == uri).expect(uri);
    assert_eq!(seen.len(), 4, "{seen:?}");
    for (first, second, name) in
        [("sip:1@x.test", "sip:11@x.test", "gw.example.test"), ("sip:2@x.test", "sip:22@x.test", "other.example.test")]
    {
        assert_eq!(by(first).name, name, "{seen:?}");
        assert_eq!(by(first).connection, by(second).connection, "{seen:?}");
    }
    assert_ne!(by("sip:1@x.test").connection, by("sip:2@x.test").connection);
}

/// Where the gateway is gw.example.test alone, nothing for the other name reaches it, whichever is asked for first, and not by a session
/// of the first either.
#[test]
fn who_proves_one_name_gets_nothing_for_the_other() {
    for outgoing in ["reuse", "per-call"] {
        let scene = TwoNames::new("one-name");
        let gw = scene.issue("gw.example.test");
        let gateway = Gateway::start(scene.address, &[("gw.example.test", &gw)]);
        let server = scene.conf().set("connections", "outgoing", &format!("{outgoing:?}")).start(&scene.place);
        let caller = Agent::new(scene.place.at_port(CALLER, 0), server.address);
        for turn in 0..2 {
            assert_eq!(scene.ask(&server, &caller, "sip:1@x.test"), 200, "{turn}");
            let status = scene.ask(&server, &caller, "sip:2@x.test");
            assert!(status >= 500, "{status}");
        }
        server.expect_log(&["the certificate is for gw.example.test, not other.example.test"]);
        let seen = gateway.seen();
        assert!(seen.iter().all(|seen| seen.uri == "sip:1@x.test"), "{seen:?}");
        assert_eq!(seen.len(), 2);
    }
}

/// The one is tried after the other, though both are the same address.
#[test]
fn a_target_that_proves_another_name_is_followed_by_the_next_at_its_address() {
    let scene = TwoNames::new("next-name");
    let other = scene.issue("other.example.test");
    let gateway = Gateway::start(scene.address, &[("other.example.test", &other)]);
    let own = scene.issue(NAME);
    let targets = [scene.target("gw.example.test"), scene.target("other.example.test")];
    let server = Conf::new(&scene.place)
        .tls(&scene.place, &[&own])
        .trust(&scene.authority, "no")
        .route(&format!("action = \"relay\"\ntarget = [{}]", targets.join(", ")))
        .start(&scene.place);
    let caller = Agent::new(scene.place.at_port(CALLER, 0), server.address);
    assert_eq!(scene.ask(&server, &caller, "sip:1@x.test"), 200);
    let seen = gateway.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].name, "other.example.test");
}

/// Without verification there is nothing to prove, and still each name is asked for on a connection of its own.
#[test]
fn without_verification_names_are_still_kept_apart() {
    let scene = TwoNames::new("unverified");
    let gw = scene.issue("gw.example.test");
    let gateway = Gateway::start(scene.address, &[("gw.example.test", &gw)]);
    let server = scene.conf().set("tls", "verify_server", "false").start(&scene.place);
    let caller = Agent::new(scene.place.at_port(CALLER, 0), server.address);
    for uri in ["sip:1@x.test", "sip:2@x.test"] {
        assert_eq!(scene.ask(&server, &caller, uri), 200);
    }
    let names: Vec<String> = gateway.seen().into_iter().map(|seen| seen.name).collect();
    assert_eq!(names, ["gw.example.test", "other.example.test"]);
}

// ---- who a client is ---------------------------------------------------------------------------------------------------

/// A server that takes connections with a certificate only.
fn office(place: &Place, authority: &Authority, rule: &str) -> Conf {
    let own = authority.issue(place, "own", Kind::Ecdsa, &[NAME]);
    Conf::new(place).tls(place, &[&own]).trust(authority, "required").set("auth", "certificate", &format!("{rule:?}")).set(
        "registrar",
        "database",
        "\"\"",
    )
}

#[test]
fn a_certificate_proves_an_identity_and_only_that() {
    let place = Place::new("identity");
    let authority = Authority::new(&place, "ca");
    let cases: &[(&str, &[&str], &str, u16)] = &[
        ("identity", &["sip:alice@example.test"], "alice", 200),
        ("identity", &["sip:alice@example.test"], "%61lice", 200),
        ("identity", &["sip:alice@example.test"], "boss", 403),
        ("identity", &["sip:alice@example.test"], "Alice", 403),
        ("identity", &["example.test"], "boss", 200),
        ("identity", &["sip:example.test"], "boss", 200),
        ("identity", &["phone7.example.test"], "boss", 403),
        ("identity", &["sip:alice@example.test", "example.test"], "boss", 403),
        // It has no name that counts, and a common name that does not.
        ("identity", &["127.0.0.1"], "boss", 403),
        ("off", &["sip:alice@example.test"], "boss", 200),
    ];
    for rule in ["identity", "off"] {
        let server = office(&place, &authority, rule).start(&place);
        for (number, (of, names, user, status)) in cases.iter().enumerate() {
            if *of != rule {
                continue;
            }
            let file = format!("client-{number}");
            let own = authority.issue(&place, &file, Kind::Ecdsa, names);
            let connect = || {
                let from = place.ip(CALLER);
                Agent::tls(from, server.secure(), &authority, NAME, Some(&own))
            };
            let agent = connect();
            let register = agent.register("example.test", user, &format!("<{}>", agent.uri()), 60);
            let answer = agent.ask(&register);
            assert_eq!(answer.status(), Some(*status), "{rule} {names:?} {user}");
            // A call, as the first thing that a connection brings.
            let agent = connect();
            let mut call = agent.request("MESSAGE", "sip:nobody@example.test");
            call.from = format!("<sip:{user}@example.test>;tag=c");
            let answer = agent.ask(&call).status();
            let wanted = if *status == 403 { 403 } else { 404 };
            assert_eq!(answer, Some(wanted), "{rule} {names:?} {user}");
        }
        if rule == "identity" {
            let line = server.expect_log(&["acts for another user", "sip:alice@example.test"]);
            assert!(line.contains("certificate of") && line.contains("127."), "{line}");
        }
        assert!(!server.log().contains("panicked"));
        server.signal("KILL");
    }
}

/// Both versions of TLS, the whole handshake and the resumed one.
#[test]
fn a_resumed_session_is_still_who_it_was() {
    let place = Place::new("resumed");
    let authority = Authority::new(&place, "ca");
    let server = office(&place, &authority, "identity").start(&place);
    let own = authority.issue(&place, "alice", Kind::Ecdsa, &["sip:alice@example.test"]);
    let own = showing(&own);
    // By tickets, by the server's memory, and by tickets of TLS 1.3.
    for how in [&["-tls1_2"][..], &["-tls1_2", "-no_ticket"], &["-tls1_3"]] {
        let session = place.path("session").display().to_string();
        let arguments: Vec<&str> = own.iter().map(String::as_str).collect();
        let ask = |more: &[&str]| {
            let all = [&arguments[..], how, more].concat();
            let mut client = SClient::connect(&place, server.secure(), &all);
            for (user, status) in [("alice", "200 OK"), ("boss", "403 ")] {
                let unique = crate::agent::unique();
                // Not an R at its beginning, which would be a command to s_client.
                let register = format!(
                    "\r\nREGISTER sip:example.test SIP/2.0\r\nVia: SIP/2.0/TLS 127.0.0.1;branch=z9hG4bK{unique}\r\n\
                         Max-Forwards: 70\r\nFrom: <sip:{user}@example.test>;tag=1\r\nTo: <sip:{user}@example.test>\r\n\
                         Call-ID: {unique}\r\nCSeq: 1 REGISTER\r\nContact: <sip:{user}@127.0.0.1:5061;transport=tls>\r\n\
                         Content-Length: 0\r\n\r\n"
                );
                client.say(register.as_bytes());
                client.expect(&format!("SIP/2.0 {status}"));
            }
            client.leave()
        };
        ask(&["-sess_out", &session]);
        let said = ask(&["-sess_in", &session]);
        assert!(said.contains("Reused, "), "{how:?}: {said}");
    }
}

// ---- what it is made for, and whether it is shown ----------------------------------------------------------------------

#[test]
fn purposes_of_clients_are_what_the_conf_accepts() {
    let place = Place::new("purposes");
    let authority = Authority::new(&place, "ca");
    let own = authority.issue(&place, "own", Kind::Ecdsa, &[NAME]);
    let issue = |purpose: &str| {
        let names = ["proxy.example.net"];
        let one = [purpose];
        showing(&authority.issue_with(&place, purpose, Kind::Ecdsa, &names, 1, &one))
    };
    let (of_server, of_client, of_mail) = (issue("serverAuth"), issue("clientAuth"), issue("emailProtection"));
    for (accepted, good) in [
        (None, [false, true, false]),
        (Some("[\"clientAuth\"]"), [false, true, false]),
        (Some("[\"clientAuth\", \"serverAuth\"]"), [true, true, false]),
        (Some("[\"serverAuth\"]"), [true, false, false]),
        (Some("\"any\""), [true, true, true]),
    ] {
        let mut conf = Conf::new(&place).tls(&place, &[&own]).trust(&authority, "required");
        if let Some(accepted) = accepted {
            conf = conf.set("tls", "client_purposes", accepted);
        }
        let server = conf.start(&place);
        for (own, is_good) in [&of_server, &of_client, &of_mail].into_iter().zip(good) {
            for version in ["-tls1_2", "-tls1_3"] {
                let mut arguments: Vec<&str> = own.iter().map(String::as_str).collect();
                arguments.push(version);
                let mut client = SClient::connect(&place, server.secure(), &arguments);
                match is_good {
                    true => {
                        client.ask();
                        client.leave();
                    }
                    false => {
                        let said = client.refused();
                        assert!(said.contains("alert"), "{accepted:?} {arguments:?}: {said}");
                    }
                }
            }
        }
        let is_told = server.log().contains("certificate verify failed");
        assert_eq!(is_told, good != [true; 3], "{}", server.log());
    }
}

#[test]
fn a_server_that_asks_is_shown_nothing_where_the_conf_says_so() {
    for shows in [true, false] {
        let scene = TwoNames::new("shown");
        let gw = scene.issue("gw.example.test");
        let mut arguments = trusting(&scene.authority);
        arguments.extend(["-verify".to_owned(), "4".to_owned()]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut gateway = SServer::start(&scene.place, scene.address, &gw, &arguments);
        let server = scene.conf().set("tls", "show_client_certificate", &shows.to_string()).start(&scene.place);
        let caller = Agent::new(scene.place.at_port(CALLER, 0), server.address);
        let request = caller.request("MESSAGE", "sip:1@x.test");
        caller.send(&request);
        gateway.answer(200);
        assert_eq!(caller.final_for(&request).status(), Some(200));
        let was_shown = gateway.output().contains("BEGIN CERTIFICATE") && gateway.output().contains(NAME);
        assert_eq!(was_shown, shows, "{}", gateway.output());
    }
}

/// A route shows its own certificate, and the others what [tls] says: here nothing.
#[test]
fn a_route_shows_its_own_certificate() {
    let scene = TwoNames::new("own-certificate");
    let gw = scene.issue("gw.example.test");
    let carrier = scene.issue("customer.example.net");
    let mut arguments = trusting(&scene.authority);
    arguments.extend(["-verify".to_owned(), "4".to_owned()]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut gateway = SServer::start(&scene.place, scene.address, &gw, &arguments);
    let own = scene.issue(NAME);
    let route = |prefix: &str, more: &str| {
        let target = scene.target("gw.example.test");
        format!("to_user_prefix = \"{prefix}\"\naction = \"relay\"\ntarget = [{target}]\n{more}")
    };
    let shows = format!("certificate = {:?}\nprivate_key = {:?}", carrier.file, carrier.key);
    let server = Conf::new(&scene.place)
        .tls(&scene.place, &[&own])
        .trust(&scene.authority, "no")
        .set("tls", "show_client_certificate", "false")
        .set("connections", "outgoing", "\"per-call\"")
        .route(&route("1", &shows))
        .route(&route("2", ""))
        .start(&scene.place);
    let caller = Agent::new(scene.place.at_port(CALLER, 0), server.address);
    let mut before = 0;
    for (uri, is_shown) in [("sip:1@x.test", true), ("sip:2@x.test", false), ("sip:11@x.test", true)] {
        let request = caller.request("MESSAGE", uri);
        caller.send(&request);
        gateway.answer(200);
        assert_eq!(caller.final_for(&request).status(), Some(200));
        let said = gateway.output();
        let subjects = said.matches("subject=CN = customer.example.net").count();
        assert_eq!(subjects > before, is_shown, "{uri}: {said}");
        assert!(!said.contains("subject=CN = sip.example.test"), "{said}");
        before = subjects;
        let over = wait_for(Duration::from_secs(5), || (server.stat(&scene.place, "strowger_connections") == 0.0).then_some(()));
        assert!(over.is_some());
    }
}

// ---- groups ------------------------------------------------------------------------------------------------------------

/// The ClientHello of today takes more than one segment. Old peers get it in one, in two, and byte by byte.
#[test]
fn a_large_hello_does_not_break_an_old_server() {
    for cut in [1, 700, 1 << 16] {
        let scene = TwoNames::new("hello");
        let gw = scene.issue("gw.example.test");
        let behind = scene.place.at_port(CALLEE, 5071);
        let mut gateway = SServer::start(&scene.place, behind, &gw, &[]);
        let front = listen(scene.address);
        let relay = std::thread::spawn(move || relay(&front, behind, cut));
        let server = scene.conf().start(&scene.place);
        let caller = Agent::new(scene.place.at_port(CALLER, 0), server.address);
        let request = caller.request("MESSAGE", "sip:1@x.test");
        caller.send(&request);
        gateway.answer(200);
        assert_eq!(caller.final_for(&request).status(), Some(200));
        // One call that begins, and one for the server's flight.
        let stats = server.stats(&scene.place);
        let calls = stats["strowger_tls_handshake_calls_total{side=\"client\"}"];
        assert_eq!(calls, 2.0, "pieces of {cut}");
        let hybrid = cfg!(feature = "aws-lc");
        drop((server, gateway));
        let hello = relay.join().expect("the relay");
        assert_eq!(hello > 1300, hybrid, "a hello of {hello} bytes");
    }
}

/// Carries one connection; what comes from the front goes in pieces. Gives the length of the first that came.
fn relay(front: &TcpListener, behind: SocketAddr, cut: usize) -> usize {
    let (mut near, _) = front.accept().expect("the server connects");
    let mut far = TcpStream::connect(behind).expect("the gateway");
    far.set_nodelay(true).expect("an option");
    let (mut from, mut to) = (far.try_clone().expect("a copy"), near.try_clone().expect("a copy"));
    let back = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
    let (mut first, mut buffer) = (0, vec![0; 1 << 16]);
    std::thread::sleep(Duration::from_millis(50));
    while let Ok(count @ 1..) = near.read(&mut buffer) {
        first = if first == 0 { count } else { first };
        for piece in buffer[..count].chunks(cut) {
            if far.write_all(piece).is_err() {
                break;
            }
            if cut < 1000 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }
    let _ = far.shutdown(std::net::Shutdown::Both);
    let _ = back.join();
    first
}

/// An old client has none of the new groups, and a new one may send its hello in pieces.
#[test]
fn old_clients_are_served_in_their_groups_and_the_conf_can_name_others() {
    let place = Place::new("groups");
    let authority = Authority::new(&place, "ca");
    let own = authority.issue(&place, "own", Kind::Ecdsa, &[NAME]);
    let conf = || Conf::new(&place).tls(&place, &[&own]);
    let server = conf().start(&place);
    for (groups, key) in [
        ("X25519", "X25519, 253 bits"),
        ("P-256", "ECDH, prime256v1, 256 bits"),
        ("P-384", "ECDH, secp384r1, 384 bits"),
        ("P-384:X25519", "X25519, 253 bits"),
    ] {
        let mut client = SClient::connect(&place, server.secure(), &["-groups", groups]);
        client.ask();
        let said = client.leave();
        assert!(said.contains(&format!("Server Temp Key: {key}")), "{groups}: {said}");
    }
    let said = SClient::connect(&place, server.secure(), &["-groups", "P-521"]).refused();
    assert!(said.contains("alert"), "{said}");
    drop(server);
    let server = conf().set("tls", "groups", "[\"P-384\", \"P-521\"]").start(&place);
    let mut client = SClient::connect(&place, server.secure(), &["-groups", "X25519:P-521"]);
    client.ask();
    let said = client.leave();
    assert!(said.contains("secp521r1"), "{said}");
    let agent = wait_for(Duration::from_secs(1), || Some(server.stat(&place, "strowger_tls_handshakes_total")));
    assert!(agent.is_some_and(|count| count >= 1.0));
}
