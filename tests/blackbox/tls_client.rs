//! The server as TLS client of `openssl s_server`: whom it believes, what it shows, what it resumes, and what a caller hears when it comes to nothing.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::agent::Agent;
use crate::openssl_tool::{SServer, trusting};
use crate::pki::{Authority, Certificate, Kind};
use crate::place::{CALLEE, CALLER, Place, wait_for};
use crate::server::{Conf, Server};
use crate::stream_tap::listen;

const NAME: &str = "next.example.net";

/// A place with an authority and what it vouches for.
struct Scene {
    place: Place,
    authority: Authority,
    /// The next hop's.
    certificate: Certificate,
    next_hop: SocketAddr,
}

impl Scene {
    fn new(name: &str) -> Scene {
        let place = Place::new(name);
        let authority = Authority::new(&place, "ca");
        let certificate = authority.issue(&place, "next", Kind::Ecdsa, &[NAME]);
        let next_hop = place.at_port(CALLEE, 5061);
        Scene { place, authority, certificate, next_hop }
    }

    /// A server that relays to the next hop by its name, with a connection for each call.
    fn conf(&self) -> Conf {
        let own = self.authority.issue(&self.place, "own", Kind::Ecdsa, &["own.example.test"]);
        Conf::new(&self.place)
            .tls(&self.place, &[&own])
            .trust(&self.authority, "no")
            .set("connections", "outgoing", "\"per-call\"")
            .route(&format!(
                "to_host = \"example.net\"\naction = \"relay\"\ntarget = [\"sips:{NAME}:{};maddr={}\"]",
                self.next_hop.port(),
                self.next_hop.ip()
            ))
    }

    fn s_server(&self, arguments: &[&str]) -> SServer {
        SServer::start(&self.place, self.next_hop, &self.certificate, arguments)
    }

    fn caller(&self, server: &Server) -> Agent {
        Agent::new(self.place.at_port(CALLER, 0), server.address)
    }

    fn shaken(&self, server: &Server, kind: &str) -> u32 {
        let stats = server.stats(&self.place);
        stats[&format!("strowger_tls_handshakes_total{{side=\"client\",kind=\"{kind}\"}}")] as u32
    }

    fn calls(&self, server: &Server) -> u32 {
        let stats = server.stats(&self.place);
        stats["strowger_tls_handshake_calls_total{side=\"client\"}"] as u32
    }

    /// Waits until no connection is left: s_server serves one at a time.
    fn wait_for_end(&self, server: &Server) {
        let over = wait_for(Duration::from_secs(5), || (server.stat(&self.place, "strowger_connections") == 0.0).then_some(()));
        assert!(over.is_some(), "{:?}", server.stats(&self.place));
    }
}

/// Sends a request that the next hop answers with 200.
fn relay(caller: &Agent, next_hop: &mut SServer) {
    let request = caller.request("MESSAGE", "sip:bob@example.net");
    caller.send(&request);
    let arrived = next_hop.answer(200);
    assert_eq!(arrived.call_id(), request.call_id);
    assert_eq!(arrived.top_via().transport, "TLS", "{arrived:?}");
    assert_eq!(caller.final_for(&request).status(), Some(200));
}

/// Sends a request that cannot be delivered; gives the time that it took to be told so.
fn fail(caller: &Agent) {
    let request = caller.request("INVITE", "sip:bob@example.net");
    caller.send(&request);
    let refused = caller.final_for(&request);
    assert!(refused.status().is_some_and(|status| (500..600).contains(&status)), "{refused:?}");
    caller.acknowledge(&request, &refused);
}

#[test]
fn the_name_and_the_chain_are_verified() {
    let scene = Scene::new("verified");
    let place = &scene.place;
    let server = scene.conf().start(place);
    let caller = scene.caller(&server);
    for version in ["-tls1_2", "-tls1_3"] {
        let mut next_hop = scene.s_server(&[version]);
        relay(&caller, &mut next_hop);
        scene.wait_for_end(&server);
    }
    let verified = scene.shaken(&server, "full") + scene.shaken(&server, "resumed");
    assert_eq!(verified, 2);

    let stranger = Authority::new(place, "stranger");
    let wrong = [
        (scene.authority.issue(place, "wrong", Kind::Ecdsa, &["other.example.net"]), "the certificate is for"),
        // RFC 5922 7.2: no wildcards.
        (scene.authority.issue(place, "wild", Kind::Ecdsa, &["*.example.net"]), "the certificate is for"),
        (stranger.issue(place, "strange", Kind::Ecdsa, &[NAME]), "unable to get local issuer certificate"),
        (scene.authority.issue_for(place, "expired", Kind::Rsa, &[NAME], -1), "certificate has expired"),
    ];
    for (n, (certificate, reason)) in wrong.iter().enumerate() {
        let next_hop = SServer::start(place, scene.next_hop, certificate, &[]);
        let before = server.log().len();
        fail(&caller);
        let line = server.expect_log_after(before, &[&scene.next_hop.to_string(), "we refused"]);
        assert!(line.contains("certificate verify failed"), "{reason}: {line}");
        assert!(line.contains(reason), "{reason}: {line}");
        next_hop.expect("SSL alert number");
        assert!(!next_hop.output().contains("INVITE"), "nothing was sent");
        assert_eq!(scene.shaken(&server, "failed"), n as u32 + 1);
    }
    assert_eq!(scene.shaken(&server, "full") + scene.shaken(&server, "resumed"), verified);
}

/// Names of SIP domains in the certificate: a URI is as good as a DNS name (RFC 5922 7.1).
#[test]
fn a_certificate_for_a_sip_uri() {
    let scene = Scene::new("uri");
    let server = scene.conf().start(&scene.place);
    let certificate = scene.authority.issue(&scene.place, "uri", Kind::Ecdsa, &[&format!("sip:{NAME}")]);
    let mut next_hop = SServer::start(&scene.place, scene.next_hop, &certificate, &[]);
    relay(&scene.caller(&server), &mut next_hop);
}

#[test]
fn nobody_is_verified_where_the_conf_says_so() {
    let scene = Scene::new("unverified");
    let server = scene.conf().set("tls", "verify_server", "false").start(&scene.place);
    let stranger = Authority::new(&scene.place, "stranger");
    let certificate = stranger.issue(&scene.place, "strange", Kind::Rsa, &["other.example.net"]);
    let mut next_hop = SServer::start(&scene.place, scene.next_hop, &certificate, &[]);
    relay(&scene.caller(&server), &mut next_hop);
}

/// A next hop that asks gets the certificate that the conf names for it, else the server's own; one that refuses it is told about.
#[test]
fn mutual_authentication() {
    let scene = Scene::new("mutual");
    let place = &scene.place;
    let trusting = trusting(&scene.authority);
    let mut asking: Vec<&str> = trusting.iter().map(String::as_str).collect();
    asking.extend(["-Verify", "3"]);
    {
        let server = scene.conf().start(place);
        let mut next_hop = scene.s_server(&asking);
        relay(&scene.caller(&server), &mut next_hop);
        next_hop.expect("subject=CN = own.example.test");
        assert_eq!(scene.shaken(&server, "mutual"), 1);
    }
    let client = scene.authority.issue(place, "client", Kind::Rsa, &["client.example.test"]);
    {
        let server = scene
            .conf()
            .set("tls", "client_certificate", &format!("{:?}", client.file))
            .set("tls", "client_private_key", &format!("{:?}", client.key))
            .start(place);
        let mut next_hop = scene.s_server(&asking);
        relay(&scene.caller(&server), &mut next_hop);
        next_hop.expect("subject=CN = client.example.test");
        assert_eq!(scene.shaken(&server, "mutual"), 1);
    }
    let stranger = Authority::new(place, "stranger");
    let strange = stranger.issue(place, "strange", Kind::Ecdsa, &["client.example.test"]);
    let server = scene
        .conf()
        .set("tls", "client_certificate", &format!("{:?}", strange.file))
        .set("tls", "client_private_key", &format!("{:?}", strange.key))
        .start(place);
    for version in ["-tls1_2", "-tls1_3"] {
        let mut asking = asking.clone();
        asking.push(version);
        let _next_hop = scene.s_server(&asking);
        let before = server.log().len();
        fail(&scene.caller(&server));
        let line = server.expect_log_after(before, &["peer sent alert"]);
        assert!(line.contains("unknown ca") && line.contains(&scene.next_hop.to_string()), "{line}");
    }
}

/// A connection for each call and a whole handshake for the first one only, with and without a certificate of ours.
#[test]
fn sessions_are_resumed() {
    let scene = Scene::new("resuming");
    let trusting = trusting(&scene.authority);
    let mutual: Vec<&str> = trusting.iter().map(String::as_str).chain(["-Verify", "3"]).collect();
    // How often the handshake is called is how many flights it has: ours is the first, and each of the peer's is one more.
    let ways: [(&[&str], u32, u32); 3] = [(&["-tls1_2"], 3, 2), (&["-tls1_2", "-no_ticket"], 3, 2), (&["-tls1_3"], 2, 2)];
    for (way, whole, short) in ways {
        for asking in [&[][..], &mutual] {
            let server = scene.conf().start(&scene.place);
            let caller = scene.caller(&server);
            let mut next_hop = scene.s_server(&[way, asking].concat());
            for call in 0..4 {
                relay(&caller, &mut next_hop);
                scene.wait_for_end(&server);
                assert_eq!((scene.shaken(&server, "full"), scene.shaken(&server, "resumed")), (1, call), "{way:?} {asking:?}");
            }
            let said = next_hop.output();
            assert_eq!(said.matches("Reused session-id").count(), 3, "{said}");
            // Who resumes shows nothing again.
            let shown = if asking.is_empty() { 0 } else { 1 };
            assert_eq!(scene.shaken(&server, "mutual"), shown);
            assert_eq!(scene.calls(&server), whole + 3 * short, "{way:?} {asking:?}");
        }
    }
}

#[test]
fn sessions_are_not_resumed_where_the_conf_says_so() {
    let scene = Scene::new("whole");
    for version in ["-tls1_2", "-tls1_3"] {
        let server = scene.conf().set("tls", "client_session_reuse", "false").start(&scene.place);
        let caller = scene.caller(&server);
        let mut next_hop = scene.s_server(&[version]);
        for _ in 0..3 {
            relay(&caller, &mut next_hop);
            scene.wait_for_end(&server);
        }
        assert!(!next_hop.output().contains("Reused session-id"));
        assert_eq!(scene.shaken(&server, "full"), 3);
        assert_eq!(scene.shaken(&server, "resumed"), 0);
    }
}

/// A next hop that accepts and then says nothing, or says something else: the caller hears of it in the time that the conf gives.
#[test]
fn a_next_hop_that_speaks_no_tls() {
    let scene = Scene::new("mute");
    let mut server = scene.conf().set("connections", "handshake_timeout", "\"400ms\"").start(&scene.place);
    let caller = scene.caller(&server);
    let next_hop = listen(scene.next_hop);
    fail(&caller);
    server.expect_log(&[&scene.next_hop.to_string(), "handshake_timeout"]);
    let (silent, _) = next_hop.accept().expect("a connection");
    drop(silent);

    let before = server.log().len();
    let talker = std::thread::spawn(move || {
        let (mut stream, _) = next_hop.accept().expect("a connection");
        std::io::Write::write_all(&mut stream, b"SIP/2.0 400 We speak no TLS here\r\n\r\n").expect("what is not TLS");
        stream
    });
    fail(&caller);
    server.expect_log_after(before, &[&scene.next_hop.to_string(), "we refused"]);
    drop(talker.join());
    assert_eq!(scene.shaken(&server, "failed"), 2);
    server.assert_alive(&scene.place, CALLER);
}

/// A call to a SIPS URI goes over TLS to the end or not at all (RFC 5630).
#[test]
fn sips_is_not_downgraded() {
    let scene = Scene::new("sips");
    let server = scene.conf().start(&scene.place);
    let secure = Agent::tls(scene.place.ip(CALLER), server.secure(), &scene.authority, "own.example.test", None);
    let phone = Agent::new(scene.place.at(CALLEE), server.address);
    server.bind(&scene.place, "bob", phone.address);
    let uri = server.uri("bob").replace("sip:", "sips:");
    let refused = secure.ask(&secure.request("MESSAGE", &uri));
    assert_eq!(refused.status(), Some(480), "{refused:?}");
    // Not even the first hop may be in the clear.
    let caller = scene.caller(&server);
    let refused = caller.ask(&caller.request("MESSAGE", &uri));
    assert_eq!(refused.status(), Some(400), "{refused:?}");
    assert!(phone.receive(Duration::from_millis(200)).is_none());
    // Over TLS to the next hop it is at home.
    let mut next_hop = scene.s_server(&[]);
    let request = secure.request("MESSAGE", "sips:bob@example.net");
    secure.send(&request);
    let arrived = next_hop.answer(200);
    assert_eq!(arrived.request_uri(), "sips:bob@example.net");
    assert_eq!(secure.final_for(&request).status(), Some(200));
}

/// A next hop that takes its time, while more is sent to it than half of what a connection may hold back: all of it arrives.
#[test]
fn what_waits_for_a_handshake_does_not_stop_it() {
    let scene = Scene::new("waiting");
    let place = &scene.place;
    let server = scene.conf().set("connections", "outgoing", "\"reuse\"").start(place);
    let slow = listen(scene.next_hop);
    let behind = place.at_port(CALLEE, 5071);
    let next_hop = SServer::start(place, behind, &scene.certificate, &["-quiet"]);
    let relay = std::thread::spawn(move || {
        let (near, _) = slow.accept().expect("the server connects");
        std::thread::sleep(Duration::from_secs(1));
        let far = TcpStream::connect(behind).expect("s_server");
        let (mut from, mut to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        let back = std::thread::spawn(move || std::io::copy(&mut { far }, &mut { near }));
        // Ends when either side closes.
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Both);
        let _ = back.join();
    });
    let caller = scene.caller(&server);
    let mut last = String::new();
    for _ in 0..170 {
        let mut request = caller.request("MESSAGE", "sip:bob@example.net");
        request.body = vec![b'x'; 700];
        caller.send(&request);
        last = request.call_id;
    }
    next_hop.expect(&last);
    assert_eq!(scene.shaken(&server, "failed"), 0);
    drop(server);
    drop(next_hop);
    relay.join().expect("the relay");
}
