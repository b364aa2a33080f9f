//! The four modes of the published study over TCP: chain, outbound, inbound and local, by the conf files that are shipped, with SIPp on both ends and every connection seen.

use std::time::Duration;

use crate::message::{Message, uri_of};
use crate::place::{CALLEE, CALLEE_TAP, CALLER, CALLER_TAP, Place, wait_for};
use crate::server::{Conf, Server};
use crate::sipp::{Scenario, Sipp};
use crate::stream_tap::{Conversation, StreamTap};
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
    run("chain", CHAIN, Side::Lasting, Side::Lasting);
}

#[test]
fn outbound_over_tcp() {
    run("outbound", OUTBOUND, Side::PerCall, Side::Lasting);
}

#[test]
fn inbound_over_tcp() {
    run("inbound", INBOUND, Side::Lasting, Side::PerCall);
}

#[test]
fn local_over_tcp() {
    run("local", LOCAL, Side::PerCall, Side::PerCall);
}

pub const CHAIN: &str = include_str!("../../conf/chain.toml");
pub const OUTBOUND: &str = include_str!("../../conf/outbound.toml");
pub const INBOUND: &str = include_str!("../../conf/inbound.toml");
pub const LOCAL: &str = include_str!("../../conf/local.toml");

fn run(mode: &str, conf: &str, left: Side, right: Side) {
    let place = Place::new(mode);
    let behind = StreamTap::new(place.at(CALLEE_TAP), place.at(CALLEE));
    let server = Conf::shipped(&place, conf, false, behind.address).start(&place);
    let before = StreamTap::new(place.at(CALLER_TAP), server.address);
    let contact = format!("{};transport=tcp", behind.address);
    if conf.contains("enabled = true") {
        server.bind_to(&place, "bob", &format!("sip:bob@{contact}"));
    }
    let callee = Sipp::new(&place, "uas", place.at(CALLEE), Scenario::Text(UAS))
        .over("t1")
        .with(&["-key", "contact_user", "bob", "-key", "contact", &contact])
        .calls(CALLS)
        .answer();
    let transport = match left {
        Side::Lasting => "t1",
        Side::PerCall => "tn",
    };
    let caller = Sipp::new(&place, "uac", place.at(CALLER), Scenario::Text(UAC))
        .over(transport)
        .with(&["-r", "100", "-d", "100"])
        .calls(CALLS)
        .call("bob", server.address, before.address)
        .succeed(CALLS);
    callee.succeed(CALLS);

    let (came, left_by) = (before.conversations(), behind.conversations());
    assert_eq!(came.len(), left.connections(), "connections of the caller");
    assert_eq!(
        left_by.len(),
        right.connections(),
        "connections to the callee"
    );
    assert_calls(&came, &left_by, &server);
    for conversation in &came {
        assert_answers_come_back(conversation);
    }
    for conversation in &left_by {
        assert_answers_come_back(conversation);
        assert_eq!(
            conversation.calls().len(),
            CALLS as usize / right.connections()
        );
        if right == Side::PerCall {
            assert_closed_after_bye(conversation);
        }
    }
    let finals = caller
        .received()
        .iter()
        .filter(|message| message.is_final_for("INVITE") || message.is_final_for("BYE"))
        .count();
    assert_eq!(finals, 2 * CALLS as usize, "nothing twice");
    assert_counted(&place, &server, left.connections(), right);
}

/// Every call passed whole, by the transport that it says it went by, with Record-Route on its way and none of our Routes left.
fn assert_calls(came: &[Conversation], left: &[Conversation], server: &Server) {
    let all = |side: &[Conversation]| -> Vec<Message> {
        side.iter()
            .flat_map(|conversation| conversation.going(Way::Forth).into_iter().cloned())
            .collect()
    };
    let came = crate::calls::by_call(all(came));
    let left = crate::calls::by_call(all(left));
    assert_eq!((came.len(), left.len()), (CALLS as usize, CALLS as usize));
    for (call, left) in &left {
        assert_eq!(
            left.iter().map(Message::method).collect::<Vec<_>>(),
            ["INVITE", "ACK", "BYE"]
        );
        for (leaving, coming) in left.iter().zip(&came[call]) {
            assert_eq!(leaving.method(), coming.method());
            let vias = leaving.vias();
            assert_eq!(vias.len(), 2, "{leaving:?}");
            assert_eq!(vias[0].transport, "TCP", "{leaving:?}");
            assert_eq!(vias[0].sent_by, server.address.to_string());
            assert_eq!(vias[1].branch, coming.top_via().branch);
            assert_eq!(leaving.body, coming.body);
            assert!(leaving.all("route").is_empty(), "{leaving:?}");
        }
        let routes = left[0].all("record-route");
        assert_eq!(routes.len(), 1, "{:?}", left[0]);
        assert!(
            uri_of(&routes[0]).contains("transport=tcp"),
            "who answers must come back by TCP: {routes:?}"
        );
        assert!(
            came[call][1].lists("route", &routes[0]),
            "the ACK came by the route set: {:?}",
            came[call][1]
        );
    }
}

/// A response takes the connection of its request (18.2.2).
fn assert_answers_come_back(conversation: &Conversation) {
    let requests = conversation.going(Way::Forth);
    for response in conversation.going(Way::Back) {
        assert!(response.status().is_some(), "{response:?}");
        assert!(
            requests.iter().any(|request| {
                request.top_via().branch == response.top_via().branch
                    && request.call_id() == response.call_id()
            }),
            "answered on a connection that never asked: {response:?}"
        );
    }
    for method in ["INVITE", "BYE"] {
        let asked = requests.iter().filter(|r| r.is(method)).count();
        let answered = conversation
            .going(Way::Back)
            .iter()
            .filter(|r| r.is_final_for(method))
            .count();
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
    assert!(
        after < Duration::from_millis(900),
        "closed {after:?} after the end of its call"
    );
}

fn assert_counted(place: &Place, server: &Server, accepted: usize, right: Side) {
    assert_eq!(
        server.stat(place, "strowger_connections_accepted_total") as usize,
        accepted
    );
    assert_eq!(
        server.stat(place, "strowger_connections_opened_total") as usize,
        right.connections()
    );
    // Those of the callers end with their calls, and a lasting one of ours when its peer leaves.
    let over = wait_for(Duration::from_secs(5), || {
        (server.stat(place, "strowger_connections") == 0.0).then_some(())
    });
    assert!(
        over.is_some(),
        "connections are left: {:?}",
        server.stats(place)
    );
    for dropped in [
        "strowger_dropped_total",
        "strowger_connections_failed_total",
    ] {
        assert_eq!(server.stat(place, dropped), 0.0, "{dropped}");
    }
}
