//! Kamailio as the next hop and as the previous one, over TLS with certificates on both sides.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::calls::by_call;
use crate::message::{Message, uri_of};
use crate::pki::{Authority, Certificate, Kind};
use crate::place::{CALLEE, CALLER, Place, SERVER, wait_for};
use crate::process::Process;
use crate::server::{Conf, Server};
use crate::sipp::{Report, Scenario, Sipp, listening};
use crate::{UAC, UAS};

const CALLS: u32 = 20;
/// Kamailio's host within the place.
pub const NEIGHBOUR: u8 = 5;
const NEIGHBOUR_NAME: &str = "kamailio.example.net";
const OWN_NAME: &str = "sip.example.test";

pub struct Kamailio {
    process: Option<Process>,
}

impl Kamailio {
    /// A proxy on UDP port 5060 and TLS port 5061 that records its route and sends new requests to `next`, and believes only who has a
    /// certificate from `authority`.
    fn start(place: &Place, next: &str, certificate: &Certificate, authority: &Authority) -> Kamailio {
        let (clear, secure) = (place.at(NEIGHBOUR), place.at_port(NEIGHBOUR, 5061));
        let tls = |section| {
            format!(
                "[{section}:default]\nmethod = TLSv1.2+\nverify_certificate = yes\nrequire_certificate = yes\n\
                 private_key = {}\ncertificate = {}\nca_list = {}\n",
                certificate.key.display(),
                certificate.file.display(),
                authority.file.display()
            )
        };
        let tls = place.write("kamailio-tls.cfg", &(tls("server") + &tls("client")));
        let script = format!(
            "#!KAMAILIO\ndebug=1\nlog_stderror=yes\nchildren=1\ntcp_children=1\nsocket_workers=1\nauto_aliases=no\ndns=no\nrev_dns=no\n\
             dns_try_naptr=no\nuse_dns_cache=no\nenable_tls=yes\nlisten=udp:{clear}\nlisten=tls:{secure}\n\
             loadmodule \"tm.so\"\nloadmodule \"sl.so\"\nloadmodule \"rr.so\"\nloadmodule \"pv.so\"\nloadmodule \"textops.so\"\n\
             loadmodule \"siputils.so\"\nloadmodule \"tls.so\"\nmodparam(\"tls\", \"config\", \"{}\")\n\
             request_route {{\n\
             if (has_totag()) {{\n if (loose_route()) {{ t_relay(); exit; }}\n sl_send_reply(\"404\", \"Not here\"); exit;\n}}\n\
             record_route();\n$du = \"{next}\";\nif (!t_relay()) sl_reply_error();\n}}\n",
            tls.display()
        );
        Kamailio::run(place, &script, secure)
    }

    /// With a script of the test's own; it is ready when it listens on TCP there.
    pub fn run(place: &Place, script: &str, listens_at: SocketAddr) -> Kamailio {
        let script = place.write("kamailio.cfg", script);
        let folder = place.path("kamailio");
        fs::create_dir_all(&folder).expect("Kamailio's folder");
        let folder = folder.display().to_string();
        let arguments = ["-f", &script.display().to_string(), "-DD", "-E", "-m", "32", "-M", "4", "-Y", &folder, "-w", &folder]
            .map(str::to_owned);
        let program = ["/usr/sbin/kamailio", "/usr/local/sbin/kamailio"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .unwrap_or("kamailio");
        let mut process = Process::start(place, "kamailio", Path::new(program), &arguments, &[]);
        let ready = wait_for(Duration::from_secs(15), || {
            (listening(listens_at) || process.exited().is_some()).then(|| listening(listens_at))
        });
        assert_eq!(ready, Some(true), "Kamailio: {}", process.stderr());
        Kamailio { process: Some(process) }
    }
}

impl Drop for Kamailio {
    /// It has children of its own, which end with it when it is asked to, and not when it is killed.
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take()
            && process.exited().is_none()
        {
            process.signal("TERM");
            wait_for(Duration::from_secs(5), || process.exited());
        }
    }
}

struct Scene {
    place: Place,
    authority: Authority,
    own: Certificate,
    neighbour: Certificate,
}

impl Scene {
    fn new(name: &str) -> Scene {
        let place = Place::new(name);
        let authority = Authority::new(&place, "ca");
        let ip = place.ip(NEIGHBOUR).to_string();
        Scene {
            own: authority.issue(&place, "own", Kind::Ecdsa, &[OWN_NAME]),
            neighbour: authority.issue(&place, "kamailio", Kind::Rsa, &[NEIGHBOUR_NAME, &ip]),
            authority,
            place,
        }
    }

    fn conf(&self) -> Conf {
        Conf::new(&self.place).tls(&self.place, &[&self.own]).trust(&self.authority, "required")
    }

    /// Calls by SIPp from end to end; what its callee saw. The first call is alone: Kamailio opens its connections in it. Of Kamailio's
    /// processes one may open a connection while another reads from one, and with OpenSSL 3 that handshake fails now and then
    /// ("digital envelope routines::unsupported algorithm"), and what was on its way with it.
    fn calls(&self, server: &Server, next_hop: SocketAddr) -> Report {
        let place = &self.place;
        let contact = place.at(CALLEE);
        let callee = Sipp::new(place, "uas", contact, Scenario::Text(UAS))
            .with(&["-key", "contact_user", "bob"])
            .with(&["-key", "contact", &contact.to_string()])
            .calls(CALLS)
            .answer();
        for (name, calls) in [("uac-first", 1), ("uac", CALLS - 1)] {
            Sipp::new(place, name, place.at(CALLER), Scenario::Text(UAC))
                .with(&["-r", "50"])
                .calls(calls)
                .call("bob", server.address, next_hop)
                .succeed(calls);
        }
        callee.succeed(CALLS)
    }

    fn shaken(&self, server: &Server, side: &str, kind: &str) -> f64 {
        server.stats(&self.place)[&format!("strowger_tls_handshakes_total{{side=\"{side}\",kind=\"{kind}\"}}")]
    }
}

/// Every request of every call has passed both, and one of the steps between them was over TLS.
fn assert_passed_both(report: &Report, order: [u8; 2], place: &Place) {
    let calls = by_call(report.received());
    assert_eq!(calls.len(), CALLS as usize);
    for messages in calls.values() {
        assert_eq!(messages.iter().map(Message::method).collect::<Vec<_>>(), ["INVITE", "ACK", "BYE"]);
        for message in messages {
            let vias = message.vias();
            assert_eq!(vias.len(), 3, "{message:?}");
            for (via, host) in vias.iter().zip(order) {
                assert!(via.sent_by.starts_with(&format!("{}:", place.ip(host))), "{message:?}");
            }
            assert_eq!(vias[1].transport, "TLS", "{message:?}");
        }
        let routes = messages[0].all("record-route");
        let ours = format!("{}:", place.ip(SERVER));
        assert!(routes.iter().any(|route| uri_of(route).contains(&ours)), "{routes:?}");
        assert!(routes.len() >= 3, "{routes:?}");
    }
}

#[test]
fn the_next_hop_over_tls() {
    let scene = Scene::new("kamailio-next");
    let place = &scene.place;
    let next = format!("sip:{}", place.at(CALLEE));
    let _kamailio = Kamailio::start(place, &next, &scene.neighbour, &scene.authority);
    let route = format!(
        "to_user_prefix = \"bob\"\naction = \"relay\"\ntarget = [\"sips:{NEIGHBOUR_NAME}:5061;maddr={}\"]",
        place.ip(NEIGHBOUR)
    );
    let server = scene.conf().route(&route).start(place);
    let callee = scene.calls(&server, server.address);
    assert_passed_both(&callee, [NEIGHBOUR, SERVER], place);
    assert_eq!(scene.shaken(&server, "client", "full"), 1.0);
    assert_eq!(scene.shaken(&server, "client", "mutual"), 1.0);
    assert_eq!(scene.shaken(&server, "client", "failed"), 0.0);
    let opened = server.stat(place, "strowger_connections_opened_total");
    assert_eq!(opened, 1.0, "one connection for all calls");
}

#[test]
fn the_previous_hop_over_tls() {
    let scene = Scene::new("kamailio-previous");
    let place = &scene.place;
    let server = scene.conf().start(place);
    server.bind(place, "bob", place.at(CALLEE));
    let next = format!("sip:{};transport=tls", server.secure());
    let _kamailio = Kamailio::start(place, &next, &scene.neighbour, &scene.authority);
    let callee = scene.calls(&server, place.at(NEIGHBOUR));
    let calls = by_call(callee.received());
    assert_eq!(calls.len(), CALLS as usize);
    for message in calls.values().flatten() {
        let vias = message.vias();
        assert_eq!(vias.len(), 3, "{message:?}");
        assert_eq!(vias[0].sent_by, server.address.to_string());
        assert_eq!(vias[1].transport, "TLS", "{message:?}");
    }
    // Kamailio opens one for what it routes by itself and one for what has a Route.
    let mutual = scene.shaken(&server, "server", "mutual");
    assert!((1.0..=2.0).contains(&mutual), "{mutual} handshakes");
    assert_eq!(scene.shaken(&server, "server", "full"), mutual);
    assert_eq!(scene.shaken(&server, "server", "failed"), 0.0);
    let opened = server.stat(place, "strowger_connections_opened_total");
    assert_eq!(opened, 0.0, "responses go by the connection of the request");
}

/// A neighbour whose certificate comes from elsewhere gets nothing through, and its caller hears so.
#[test]
fn a_previous_hop_that_proves_nothing() {
    let scene = Scene::new("kamailio-stranger");
    let place = &scene.place;
    let server = scene.conf().start(place);
    server.bind(place, "bob", place.at(CALLEE));
    let stranger = Authority::new(place, "stranger");
    let strange = stranger.issue(place, "strange", Kind::Ecdsa, &[NEIGHBOUR_NAME]);
    let next = format!("sip:{};transport=tls", server.secure());
    let _kamailio = Kamailio::start(place, &next, &strange, &scene.authority);
    let phone = crate::agent::Agent::new(place.at(CALLEE), server.address);
    let caller = crate::agent::Agent::new(place.at(CALLER), place.at(NEIGHBOUR));
    caller.send(&caller.request("MESSAGE", &server.uri("bob")));
    server.expect_log(&["TLS from", ": handshake failed: we refused: certificate verify failed"]);
    assert!(phone.receive(Duration::from_millis(300)).is_none());
    assert_eq!(scene.shaken(&server, "server", "full"), 0.0);
}
