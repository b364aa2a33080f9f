//! Certificates: a connection over TLS is its transport, its address and the name that its peer proves (RFC 5922, RFC 5923), and who a
//! client is by its certificate (RFC 5922 §7).

use strowger::base::{Channel, Flow, Transport::*};
use strowger::settings::Certificate;
use strowger::stack::Element;
use strowger::stack::Settings;
use strowger::stack::route::{Action, NextHop};
use strowger::stack::settings::{Mode, Outgoing};

use crate::bench::*;
use crate::message::Request;
use crate::proxy::route;
use crate::streams::hop;

const GATE: &str = "10.0.5.1:5070";

/// `gw.example` and `other.example` are two next hops at one address: which of them a user's prefix says.
fn two_names(change: impl FnOnce(&mut Settings)) -> Bench {
    let by = |prefix: &str, host: &str| {
        let mut route = route(Action::Relay(vec![hop(Tls, GATE, host)]));
        route.to_user_prefix = Some(prefix.into());
        route
    };
    Bench::with(|settings| {
        settings.listeners = listeners();
        settings.routes = vec![by("1", "gw.example"), by("2", "other.example")].into();
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
    let stateless = |settings: &mut Settings| {
        settings.proxy.mode = Mode::Stateless;
    };
    let per_call = |settings: &mut Settings| {
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
    let both = vec![hop(Tls, GATE, "gw.example"), hop(Tls, GATE, "other.example")];
    let mut b = Bench::with(|settings| {
        settings.listeners = listeners();
        settings.routes = vec![route(Action::Relay(both))].into();
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
    let both = vec![hop(Tls, GATE, "gw.example"), hop(Tls, GATE, "other.example")];
    let mut b = Bench::with(|settings| {
        settings.listeners = listeners();
        settings.routes = vec![route(Action::Relay(both))].into();
    });
    let sent = b.send(ALICE, Request::new("MESSAGE", "sip:x@example.net"));
    let flow = the(&sent, GATE).flow;
    let settings = Settings {
        domains: vec![b"example.com".to_vec()],
        listeners: listeners(),
        routes: vec![route(Action::Relay(vec![hop(Tls, GATE, "new.example")]))].into(),
        ..Settings::default()
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
            .to(&format!("<{uri}>"))
            .call_id(&format!("two-names-{user}"));
        let sent = b.send(ALICE, invite);
        let copy = the(&sent, GATE);
        let contact = format!("Contact: <sip:gate@{GATE};transport=tls>");
        let ok = only(b.send_on(0, copy.flow, copy.answer(200).tag("b").add(&contact)));
        assert_eq!(copy.host.as_deref(), Some(host));
        let record = copy.header("Record-Route").expect("Record-Route").to_owned();
        // Of two the one for the caller's side stands below; it takes both as its routes, the nearest first.
        let mut routes: Vec<&str> = ok.all("Record-Route");
        routes.reverse();
        let bye = Request::new("BYE", &format!("sip:gate@{GATE};transport=tls"))
            .from("<sip:alice@example.org>;tag=a")
            .to(&format!("<{uri}>;tag=b"))
            .call_id(&format!("two-names-{user}"))
            .cseq(2);
        let bye = routes.iter().fold(bye, |bye, route| bye.add(&format!("Route: {route}")));
        let sent = b.send(ALICE, bye);
        let bye = the(&sent, GATE);
        assert_eq!(bye.host.as_deref(), Some(host), "{record}");
        assert_eq!(name_of(bye), name_of(copy));
    }
}

/// Two routes to one gateway, each with a certificate of its own to show: connections of the one are not those of the other.
#[test]
fn a_route_shows_its_own_certificate_on_connections_of_its_own() {
    let by = |prefix: &str, identity: u64| {
        let hop = NextHop { identity, ..hop(Tls, GATE, "gw.example") };
        let mut route = route(Action::Relay(vec![hop]));
        route.to_user_prefix = Some(prefix.into());
        route
    };
    for mode in [Mode::Stateful, Mode::Stateless] {
        let mut b = Bench::with(|settings| {
            settings.listeners = listeners();
            settings.routes = vec![by("1", 7), by("2", 9), by("3", 0)].into();
            settings.proxy.mode = mode;
        });
        let mut ways = Vec::new();
        for (user, identity) in [("1", 7), ("2", 9), ("3", 0), ("11", 7)] {
            let uri = format!("sip:{user}@example.net");
            let sent = only(b.send(ALICE, Request::new("MESSAGE", &uri)));
            assert_eq!((sent.identity, sent.to.as_str()), (identity, GATE));
            assert_eq!(sent.host.as_deref(), Some("gw.example"));
            ways.push(name_of(&sent));
        }
        assert_eq!(ways[0], ways[3]);
        assert!(ways[0] != ways[1] && ways[1] != ways[2] && ways[0] != ways[2]);
    }
    // In a dialog, by the gateway's address and by its name.
    for route_to in [format!("<sip:gate@{GATE};transport=tls>"), "<sip:gw.example:5070;maddr=10.0.5.1;transport=tls;lr>".to_owned()]
    {
        let mut b = Bench::with(|settings| {
            settings.listeners = listeners();
            settings.routes = vec![by("1", 7), by("2", 9)].into();
        });
        let uri = "sip:2@example.net";
        let invite =
            Request::new("INVITE", uri).to(&format!("<{uri}>")).from("<sip:alice@example.org>;tag=a").call_id("own-certificate");
        let sent = b.send(ALICE, invite);
        let copy = the(&sent, GATE);
        assert_eq!(copy.identity, 9);
        let target = route_to.trim_matches(['<', '>']).to_owned();
        let answer = copy.answer(200).add(&format!("Contact: {route_to}"));
        let answered = b.send_on(0, copy.flow, answer);
        let mut routes: Vec<&str> = the(&answered, ALICE).all("Record-Route");
        routes.reverse();
        let bye = Request::new("BYE", &target)
            .from("<sip:alice@example.org>;tag=a")
            .to(&format!("<{uri}>;tag=callee"))
            .call_id("own-certificate")
            .cseq(2);
        let bye = routes.iter().fold(bye, |bye, route| bye.add(&format!("Route: {route}")));
        let sent = b.send(ALICE, bye);
        let bye = the(&sent, GATE);
        assert_eq!((bye.identity, name_of(bye)), (9, name_of(copy)), "{target}");
    }
}

// ---- who a client is -------------------------------------------------------------------------------------------------------

/// The proxy of example.com, where certificates prove who is who and all others are asked for a password. bob is registered.
fn office(rule: Certificate) -> Bench {
    let mut b = Bench::with(|settings| {
        settings.listeners = listeners();
        settings.auth.certificate = rule;
    });
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let mut settings = Settings { domains: vec![b"example.com".to_vec()], listeners: listeners(), ..Settings::default() };
    settings.auth.certificate = rule;
    settings.auth.challenge_register = true;
    settings.auth.challenge_proxy = true;
    b.cores[0].handle_config(std::sync::Arc::new(settings));
    b
}

/// A connection over TLS whose client has shown a certificate with these names.
fn client(b: &mut Bench, slot: u32, names: &[&str]) -> Flow {
    let flow = b.open(Tls, 0, slot, &format!("10.0.1.1:{}", 40_000 + slot));
    let names: Vec<Box<str>> = names.iter().map(|name| (*name).into()).collect();
    b.live.prove(0, slot, 7, names.into());
    flow
}

fn register_as(uri: &str) -> Request {
    Request::new("REGISTER", "sip:example.com")
        .by(Tls)
        .from(&format!("<{uri}>;tag=r"))
        .to(&format!("<{uri}>"))
        .add("Contact: <sip:x@10.0.1.1:5061;transport=tls>")
}

fn call_as(method: &str, uri: &str) -> Request {
    Request::new(method, "sip:bob@example.com").by(Tls).from(&format!("<{uri}>;tag=c"))
}

#[test]
fn a_certificate_proves_an_identity_and_that_one_only() {
    let alice: &[&str] = &["sip:alice@example.com"];
    let cases: &[(&[&str], &str, bool)] = &[
        (alice, "sip:alice@example.com", true),
        (alice, "sips:alice@example.com", true),
        (alice, "sip:%61lice@EXAMPLE.com.", true),
        (alice, "sip:alice@example.com;x", true),
        (alice, "sip:boss@example.com", false),
        (alice, "sip:Alice@example.com", false),
        (alice, "sip:boss@example.com:9999", false),
        (alice, "sip:boss@example.com.", false),
        (alice, "sip:b%6Fss@example.com", false),
        (alice, "sip:boss@example.com;maddr=192.0.2.1", false),
        // Our own address is one of our domains, and no certificate's of example.com.
        (alice, "sip:alice@10.0.0.1", false),
        (&["sip:boss@example.com", "sip:alice@example.com"], "sip:boss@example.com", true),
        // A domain's certificate stands for all of its users.
        (&["example.com"], "sip:boss@example.com", true),
        (&["Example.COM."], "sip:boss@example.com", true),
        (&["sip:example.com"], "sip:boss@example.com", true),
        (&["phone.example.com"], "sip:boss@example.com", false),
        (&["*.com"], "sip:boss@example.com", false),
        (&["example.net"], "sip:boss@example.com", false),
        // One that names nobody stands for nobody.
        (&[], "sip:boss@example.com", false),
    ];
    for (number, (names, uri, is_good)) in cases.iter().enumerate() {
        let mut b = office(Certificate::Identity);
        let flow = client(&mut b, number as u32, names);
        let what = format!("{names:?} as {uri}");
        let answer = only(b.send_on(0, flow, register_as(uri)));
        let wanted = if *is_good { 200 } else { 403 };
        assert_eq!(answer.status(), wanted, "{what}: {answer}");
        for method in ["INVITE", "MESSAGE", "SUBSCRIBE", "OPTIONS"] {
            let sent = b.send_on(0, flow, call_as(method, uri));
            let is_relayed = sent.iter().any(|sent| sent.to == "10.0.1.2:5060");
            assert_eq!(is_relayed, *is_good, "{what}: {}", show(&sent));
            let refused = sent.iter().any(|sent| sent.gist().contains("403"));
            assert_eq!(refused, !is_good, "{what}: {}", show(&sent));
        }
    }
}

#[test]
fn who_has_shown_none_and_who_is_none_of_ours_is_asked_as_before() {
    let mut b = office(Certificate::Identity);
    let bare = b.open(Tls, 0, 1, "10.0.1.1:40001");
    let answer = only(b.send_on(0, bare, register_as("sip:alice@example.com")));
    assert_eq!(answer.status(), 401, "{answer}");
    let answer = only(b.send_on(0, bare, call_as("MESSAGE", "sip:alice@example.com")));
    assert_eq!(answer.status(), 407, "{answer}");
    // By UDP, and by TCP, where a connection of the same name among the live ones would prove nothing.
    let answer = b.send_for_one(ALICE, register_as("sip:alice@example.com").by(Udp));
    assert_eq!(answer.status(), 401, "{answer}");
    let plain = b.open(Tcp, 0, 2, "10.0.1.1:40002");
    b.live.prove(0, 2, 7, vec!["sip:alice@example.com".into()].into());
    let answer = only(b.send_on(0, plain, register_as("sip:alice@example.com").by(Tcp)));
    assert_eq!(answer.status(), 401, "{answer}");
    // A name of others is not ours to give or to refuse.
    let flow = client(&mut b, 3, &["sip:alice@example.com"]);
    let sent = b.send_on(0, flow, call_as("MESSAGE", "sip:friend@example.org"));
    the(&sent, "10.0.1.2:5060");
}

#[test]
fn a_certificate_ends_with_its_connection() {
    let mut b = office(Certificate::Identity);
    let flow = client(&mut b, 1, &["sip:alice@example.com"]);
    let answer = only(b.send_on(0, flow, register_as("sip:alice@example.com")));
    assert_eq!(answer.status(), 200, "{answer}");
    b.lose(flow);
    let next = b.open(Tls, 0, 1, "10.0.1.9:40009");
    let answer = only(b.send_on(0, next, register_as("sip:alice@example.com")));
    assert_eq!(answer.status(), 401, "{answer}");
}

#[test]
fn the_conf_says_whether_a_password_is_asked_for_besides_and_whether_certificates_count() {
    let mut b = office(Certificate::IdentityAndPassword);
    let flow = client(&mut b, 1, &["sip:alice@example.com"]);
    let answer = only(b.send_on(0, flow, register_as("sip:alice@example.com")));
    assert_eq!(answer.status(), 401, "{answer}");
    let answer = only(b.send_on(0, flow, call_as("MESSAGE", "sip:alice@example.com")));
    assert_eq!(answer.status(), 407, "{answer}");
    for uri in ["sip:boss@example.com", "sip:bob@example.com"] {
        let answer = only(b.send_on(0, flow, register_as(uri)));
        assert_eq!(answer.status(), 403, "{answer}");
        let answer = only(b.send_on(0, flow, call_as("MESSAGE", uri)));
        assert_eq!(answer.status(), 403, "{answer}");
    }
    let mut b = office(Certificate::Off);
    let flow = client(&mut b, 1, &["sip:alice@example.com"]);
    let answer = only(b.send_on(0, flow, register_as("sip:boss@example.com")));
    assert_eq!(answer.status(), 401, "{answer}");
}

/// Also where nobody is asked for a password.
#[test]
fn another_identity_is_refused_where_nothing_is_challenged() {
    let mut b = Bench::with(|settings| {
        settings.listeners = listeners();
        settings.auth.certificate = Certificate::Identity;
    });
    let flow = client(&mut b, 1, &["sip:alice@example.com"]);
    let answer = only(b.send_on(0, flow, register_as("sip:boss@example.com")));
    assert_eq!(answer.status(), 403, "{answer}");
    let answer = only(b.send_on(0, flow, register_as("sip:alice@example.com")));
    assert_eq!(answer.status(), 200, "{answer}");
}

/// A route for our users alone: who has proved to be one of them by certificate needs no password for it, and may withhold its name.
#[test]
fn a_route_for_our_users_takes_a_certificate_for_a_password() {
    let gate = "10.0.5.9:5060";
    let mut users_only = route(Action::Relay(vec![hop(Udp, gate, "")]));
    users_only.users_only = true;
    let mut b = Bench::with(|settings| {
        settings.listeners = listeners();
        settings.routes = vec![users_only].into();
        settings.auth.certificate = Certificate::Identity;
        settings.auth.realm = "example.com".to_owned();
    });
    let anonymous = "sip:anonymous@anonymous.invalid";
    let alice = client(&mut b, 1, &["sip:alice@example.com"]);
    let partner = client(&mut b, 2, &["example.org"]);
    let nobody = client(&mut b, 3, &[]);
    let wildcard = client(&mut b, 4, &["sip:*@example.com", "sip:%2A@example.com", "*.example.com", "im:alice@example.com"]);
    for (flow, uri, status) in [
        (wildcard, anonymous, Some(407)),
        (wildcard, "sip:*@example.com", Some(403)),
        (wildcard, "sip:alice@example.com", Some(403)),
        (alice, "sip:alice@example.com", None),
        (alice, anonymous, None),
        (alice, "sip:boss@example.com", Some(403)),
        (alice, "sip:alice@example.org", Some(403)),
        (partner, "sip:alice@example.com", Some(403)),
        (partner, "sip:alice@example.org", Some(403)),
        (partner, anonymous, Some(407)),
        (nobody, anonymous, Some(407)),
    ] {
        let sent = only(b.send_on(0, flow, call_as("MESSAGE", uri)));
        match status {
            None => assert_eq!(sent.to, gate, "{uri}: {sent}"),
            Some(status) => assert_eq!(sent.status(), status, "{uri}: {sent}"),
        }
    }
}
