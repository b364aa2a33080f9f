//! Certificates: a connection over TLS is its transport, its address and the name that its peer proves (RFC 5922, RFC 5923), and who a
//! client is by its certificate (RFC 5922 §7).

use strowger::base::{Channel, Transport::*};
use strowger::stack::route::Action;
use strowger::stack::settings::{Mode, Outgoing};

use crate::bench::*;
use crate::message::Request;
use crate::proxy::route;
use crate::streams::hop;

const GATE: &str = "10.0.5.1:5070";

/// `gw.example` and `other.example` are two next hops at one address: which of them a user's prefix says.
fn two_names(change: impl FnOnce(&mut strowger::stack::Settings)) -> Bench {
    let by = |prefix: &str, host: &str| {
        let mut route = route(Action::Relay(vec![hop(Tls, GATE, host)]));
        route.to_user_prefix = Some(prefix.into());
        route
    };
    Bench::with(|settings| {
        settings.listeners = listeners();
        settings.routes = vec![by("1", "gw.example"), by("2", "other.example")];
        change(settings);
    })
}

fn name_of(sent: &Sent) -> u64 {
    match sent.flow.channel {
        Channel::Peer { name, .. } => name,
        other => panic!("{other:?}"),
    }
}

#[test]
fn next_hops_of_two_names_at_one_address_are_two_connections() {
    let stateless = |settings: &mut strowger::stack::Settings| {
        settings.proxy.mode = Mode::Stateless;
    };
    let per_call = |settings: &mut strowger::stack::Settings| {
        settings.outgoing = Outgoing::PerCall;
    };
    for mut b in [two_names(|_| ()), two_names(stateless), two_names(per_call)] {
        let mut send = |user: &str| {
            let uri = format!("sip:{user}@example.net");
            only(b.send(ALICE, Request::new("MESSAGE", &uri)))
        };
        let (one, two, again) = (send("1"), send("2"), send("11"));
        assert_eq!(one.host.as_deref(), Some("gw.example"));
        assert_eq!(two.host.as_deref(), Some("other.example"));
        assert_eq!((one.to.as_str(), two.to.as_str()), (GATE, GATE));
        assert_ne!(name_of(&one), name_of(&two));
        assert_eq!(name_of(&one), name_of(&again));
    }
}

#[test]
fn a_target_of_the_other_name_at_the_same_address_is_another_target() {
    let both = vec![
        hop(Tls, GATE, "gw.example"),
        hop(Tls, GATE, "other.example"),
    ];
    let mut b = Bench::with(|settings| {
        settings.listeners = listeners();
        settings.routes = vec![route(Action::Relay(both))];
    });
    let sent = b.send(ALICE, Request::new("MESSAGE", "sip:x@example.net"));
    let first = the(&sent, GATE);
    assert_eq!(first.host.as_deref(), Some("gw.example"));
    // It proved another name, so the connection was given up.
    let (flow, first) = (first.flow, name_of(first));
    let sent = b.lose(flow);
    let second = the(&sent, GATE);
    assert_eq!(second.host.as_deref(), Some("other.example"), "{second}");
    assert_ne!(name_of(second), first);
}

#[test]
fn the_name_is_the_targets_even_where_a_reload_has_changed_the_conf() {
    let both = vec![
        hop(Tls, GATE, "gw.example"),
        hop(Tls, GATE, "other.example"),
    ];
    let mut b = Bench::with(|settings| {
        settings.listeners = listeners();
        settings.routes = vec![route(Action::Relay(both))];
    });
    let sent = b.send(ALICE, Request::new("MESSAGE", "sip:x@example.net"));
    let flow = the(&sent, GATE).flow;
    let settings = strowger::stack::Settings {
        domains: vec![b"example.com".to_vec()],
        listeners: listeners(),
        routes: vec![route(Action::Relay(vec![hop(Tls, GATE, "new.example")]))],
        ..strowger::stack::Settings::default()
    };
    b.cores[0].handle_config(std::sync::Arc::new(settings));
    let sent = b.lose(flow);
    let second = the(&sent, GATE);
    assert_eq!(second.host.as_deref(), Some("other.example"), "{second}");
    let sent = b.send(ALICE, Request::new("MESSAGE", "sip:y@example.net"));
    assert_eq!(the(&sent, GATE).host.as_deref(), Some("new.example"));
}

#[test]
fn requests_in_the_dialog_go_to_the_name_that_it_began_with() {
    for (user, host) in [("1", "gw.example"), ("2", "other.example")] {
        let mut b = two_names(|_| ());
        let uri = format!("sip:{user}@example.net");
        let invite = Request::new("INVITE", &uri)
            .from("<sip:alice@example.org>;tag=a")
            .call_id(&format!("two-names-{user}"));
        let sent = b.send(ALICE, invite);
        let copy = the(&sent, GATE);
        assert_eq!(copy.host.as_deref(), Some(host));
        let record = copy
            .header("Record-Route")
            .expect("Record-Route")
            .to_owned();
        // Of two the one for the caller's side stands below; it takes both as its routes, the nearest first.
        let mut routes: Vec<&str> = copy.all("Record-Route");
        routes.reverse();
        let bye = Request::new("BYE", &format!("sip:gate@{GATE};transport=tls"))
            .from("<sip:alice@example.org>;tag=a")
            .to(&format!("<{uri}>;tag=b"))
            .call_id(&format!("two-names-{user}"))
            .cseq(2);
        let bye = routes
            .iter()
            .fold(bye, |bye, route| bye.add(&format!("Route: {route}")));
        let sent = b.send(ALICE, bye);
        let bye = the(&sent, GATE);
        assert_eq!(bye.host.as_deref(), Some(host), "{record}");
        assert_eq!(name_of(bye), name_of(copy));
    }
}
