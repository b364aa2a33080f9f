//! The four modes of the published study over TCP and TLS: chain, outbound, inbound and local, by the conf files that are shipped, with SIPp on both ends and every connection seen.

use std::net::SocketAddr;
use std::time::Duration;

use crate::message::{Message, uri_of};
use crate::pki::{Authority, Kind};
use crate::place::{CALLEE, CALLEE_TAP, CALLER, CALLER_TAP, Place, SERVER, wait_for};
use crate::server::{Conf, Server};
use crate::sipp::{Scenario, Sipp};
use crate::stream_tap::{Conversation, Secure, StreamTap};
use crate::tap::Way;
use crate::{UAC, UAS};

const CALLS: u32 = 40;

/// One connection for all calls, or one for each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Lasting,
    PerCall,
}

impl Side {
    fn connections(self) -> usize {
        match self {
            Side::Lasting => 1,
            Side::PerCall => CALLS as usize,
        }
    }
}

#[test]
fn chain_over_tcp() {
    run("chain", CHAIN, "tcp", Side::Lasting, Side::Lasting);
}

#[test]
fn chain_over_tls() {
    run("chain-tls", CHAIN, "tls", Side::Lasting, Side::Lasting);
}

#[test]
fn outbound_over_tcp() {
    run("outbound", OUTBOUND, "tcp", Side::PerCall, Side::Lasting);
}

#[test]
fn outbound_over_tls() {
    run("outbound-tls", OUTBOUND, "tls", Side::PerCall, Side::Lasting);
}

#[test]
fn inbound_over_tcp() {
    run("inbound", INBOUND, "tcp", Side::Lasting, Side::PerCall);
}

#[test]
fn inbound_over_tls() {
    run("inbound-tls", INBOUND, "tls", Side::Lasting, Side::PerCall);
}

#[test]
fn local_over_tcp() {
    run("local", LOCAL, "tcp", Side::PerCall, Side::PerCall);
}

#[test]
fn local_over_tls() {
    run("local-tls", LOCAL, "tls", Side::PerCall, Side::PerCall);
}

pub const CHAIN: &str = include_str!("../../conf/chain.toml");
pub const OUTBOUND: &str = include_str!("../../conf/outbound.toml");
pub const INBOUND: &str = include_str!("../../conf/inbound.toml");
pub const LOCAL: &str = include_str!("../../conf/local.toml");

/// The conf for TLS, as its comments say to make it.
fn secured(conf: &str) -> String {
    let taken = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => rest.to_owned(),
        _ => line.replace("transport=tcp", "transport=tls"),
    };
    conf.lines().map(|line| taken(line) + "\n").collect()
}

/// SIPp speaks no TLS: the relays on both sides do that for it.
fn run(mode: &str, conf: &str, transport: &str, left: Side, right: Side) {
    let place = Place::new(mode);
    let is_tls = transport == "tls";
    let (conf, [to_server, to_callee]) = match is_tls {
        false => (conf.to_owned(), [Secure::Neither, Secure::Neither]),
        true => {
            std::fs::create_dir(place.path("certs")).expect("a folder for the certificates");
            let authority = Authority::new(&place, "certs/ca");
            let own = place.ip(SERVER).to_string();
            authority.issue(&place, "certs/ecdsa", Kind::Ecdsa, &[&own]);
            authority.issue(&place, "certs/rsa", Kind::Rsa, &[&own]);
            let phone = place.ip(CALLEE_TAP).to_string();
            let phone = authority.issue(&place, "phone", Kind::Ecdsa, &[&phone]);
            let ends = [Secure::target(&authority, &own), Secure::clients(&phone)];
            (secured(conf), ends)
        }
    };
    let behind = StreamTap::new(place.at(CALLEE_TAP), place.at(CALLEE), to_callee);
    let server = Conf::shipped(&place, &conf, is_tls, behind.address).start(&place);
    let by = match is_tls {
        true => server.secure(),
        false => server.address,
    };
    let before = StreamTap::new(place.at(CALLER_TAP), by, to_server);
    let contact = format!("{};transport={transport}", behind.address);
    if conf.contains("enabled = true") {
        server.bind_to(&place, "bob", &format!("sip:bob@{contact}"));
    }
    let callee = Sipp::new(&place, "uas", place.at(CALLEE), Scenario::Text(UAS))
        .over("t1")
        .with(&["-key", "contact_user", "bob", "-key", "contact", &contact])
        .calls(CALLS)
        .answer();
    let connections = match left {
        Side::Lasting => "t1",
        Side::PerCall => "tn",
    };
    let caller = Sipp::new(&place, "uac", place.at(CALLER), Scenario::Text(UAC))
        .over(connections)
        .with(&["-r", "100", "-d", "100"])
        .calls(CALLS)
        .call("bob", server.address, before.address)
        .succeed(CALLS);
    callee.succeed(CALLS);

    let (came, left_by) = (before.conversations(), behind.conversations());
    assert_eq!(came.len(), left.connections(), "connections of the caller");
    assert_eq!(left_by.len(), right.connections(), "connections to the callee");
    assert_calls(&came, &left_by, transport, by);
    for conversation in &came {
        assert_answers_come_back(conversation);
    }
    for conversation in &left_by {
        assert_answers_come_back(conversation);
        assert_eq!(conversation.calls().len(), CALLS as usize / right.connections());
        if right == Side::PerCall {
            assert_closed_after_bye(conversation);
        }
    }
    let finals = caller.received().iter().filter(|message| message.is_final_for("INVITE") || message.is_final_for("BYE")).count();
    assert_eq!(finals, 2 * CALLS as usize, "nothing twice");
    assert_counted(&place, &server, left.connections(), right);
    if is_tls {
        assert_shaken(&place, &server, left, right);
    }
}

/// A handshake for each connection, and of those that we begin all but the first few resume a session.
fn assert_shaken(place: &Place, server: &Server, left: Side, right: Side) {
    let stats = server.stats(place);
    let shaken = |side, kind| stats[&format!("strowger_tls_handshakes_total{{side=\"{side}\",kind=\"{kind}\"}}")] as usize;
    for (side, connections) in [("server", left), ("client", right)] {
        let all = shaken(side, "full") + shaken(side, "resumed");
        assert_eq!(all, connections.connections(), "{side}");
        assert_eq!(shaken(side, "failed"), 0, "{side}");
    }
    if right == Side::PerCall {
        let resumed = shaken("client", "resumed");
        assert!(resumed > CALLS as usize / 2, "{resumed} of {CALLS} resumed");
    }
}

/// Every call passed whole, by the transport that it says it went by, with Record-Route on its way and none of our Routes left.
fn assert_calls(came: &[Conversation], left: &[Conversation], transport: &str, server: SocketAddr) {
    let all = |side: &[Conversation]| -> Vec<Message> {
        side.iter().flat_map(|conversation| conversation.going(Way::Forth).into_iter().cloned()).collect()
    };
    let came = crate::calls::by_call(all(came));
    let left = crate::calls::by_call(all(left));
    assert_eq!((came.len(), left.len()), (CALLS as usize, CALLS as usize));
    for (call, left) in &left {
        assert_eq!(left.iter().map(Message::method).collect::<Vec<_>>(), ["INVITE", "ACK", "BYE"]);
        for (leaving, coming) in left.iter().zip(&came[call]) {
            assert_eq!(leaving.method(), coming.method());
            let vias = leaving.vias();
            assert_eq!(vias.len(), 2, "{leaving:?}");
            assert!(vias[0].transport.eq_ignore_ascii_case(transport), "{leaving:?}");
            assert_eq!(vias[0].sent_by, server.to_string());
            assert_eq!(vias[1].branch, coming.top_via().branch);
            assert_eq!(leaving.body, coming.body);
            assert!(leaving.all("route").is_empty(), "{leaving:?}");
        }
        let routes = left[0].all("record-route");
        assert_eq!(routes.len(), 1, "{:?}", left[0]);
        assert!(
            uri_of(&routes[0]).contains(&format!("transport={transport}")),
            "who answers must come back by {transport}: {routes:?}"
        );
        // The caller's own cookie is in it, which is not the callee's.
        let place = |route: &str| route.split(";sc=").next().unwrap_or_default().to_owned();
        let route_set = came[call][1].all("route");
        let route_set: Vec<_> = route_set.iter().map(|route| place(route)).collect();
        assert_eq!(route_set, [place(&routes[0])], "the ACK came by the route set: {:?}", came[call][1]);
    }
}

/// A response takes the connection of its request (18.2.2).
fn assert_answers_come_back(conversation: &Conversation) {
    let requests = conversation.going(Way::Forth);
    for response in conversation.going(Way::Back) {
        assert!(response.status().is_some(), "{response:?}");
        assert!(
            requests.iter().any(|request| {
                request.top_via().branch == response.top_via().branch && request.call_id() == response.call_id()
            }),
            "answered on a connection that never asked: {response:?}"
        );
    }
    for method in ["INVITE", "BYE"] {
        let asked = requests.iter().filter(|r| r.is(method)).count();
        let answered = conversation.going(Way::Back).iter().filter(|r| r.is_final_for(method)).count();
        assert_eq!(asked, answered, "final responses to {method}");
    }
}

/// We opened it for one call, and we close it as soon as that is over.
fn assert_closed_after_bye(conversation: &Conversation) {
    let (over, _, _) = conversation
        .messages
        .iter()
        .find(|(_, way, message)| *way == Way::Back && message.answers("BYE", 200))
        .expect("200 to BYE");
    let Some((closed, Way::Forth)) = conversation.closed_by else {
        panic!("not closed by us: {:?}", conversation.closed_by);
    };
    let after = closed.saturating_sub(*over);
    assert!(after < Duration::from_millis(900), "closed {after:?} after the end of its call");
}

fn assert_counted(place: &Place, server: &Server, accepted: usize, right: Side) {
    assert_eq!(server.stat(place, "strowger_connections_accepted_total") as usize, accepted);
    assert_eq!(server.stat(place, "strowger_connections_opened_total") as usize, right.connections());
    // Those of the callers end with their calls, and a lasting one of ours when its peer leaves.
    let over = wait_for(Duration::from_secs(5), || (server.stat(place, "strowger_connections") == 0.0).then_some(()));
    assert!(over.is_some(), "connections are left: {:?}", server.stats(place));
    for dropped in ["strowger_dropped_total", "strowger_connections_failed_total"] {
        assert_eq!(server.stat(place, dropped), 0.0, "{dropped}");
    }
}
