//! Routes that lead where the request says: whom and what can be reached by them, and from where.

use std::sync::Arc;

use strowger::stack::route::{Action, Edits, Network, Route};
use strowger::stack::settings::Mode;

use crate::bench::*;
use crate::failover::hop;
use crate::message::{Request, unique};
use crate::proxy::route;

#[test]
fn a_route_that_names_the_host_leads_to_no_other() {
    let with_host = || Route { to_host: Some(b"partner.example".to_vec().into()), ..route(Action::Relay(vec![])) };
    let by_set_host = || {
        let edits = Edits { set_host: Some(b"10.0.7.7".to_vec()), ..Edits::default() };
        Route { edits: Arc::new(edits), ..route(Action::Relay(vec![])) }
    };
    let address = || Route { to_host: Some(b"10.0.7.7".to_vec().into()), ..route(Action::Relay(vec![])) };
    for (route, host) in [(with_host(), "partner.example"), (by_set_host(), "example.com"), (address(), "10.0.7.7")] {
        for mode in [Mode::Stateful, Mode::Stateless] {
            let mut b = Bench::with(|settings| {
                settings.routes = vec![route.clone()].into();
                settings.proxy.mode = mode;
            });
            for (uri, header) in [
                (format!("sip:x@{host};maddr=10.0.9.9"), None),
                (format!("sip:x@{host};MADDR=other.example"), None),
                (format!("sips:x@{host};maddr=[2001:db8::1]"), None),
                (format!("sip:x@{host}"), Some("Route: <sip:10.0.9.9;lr>".to_owned())),
                (format!("sip:x@{host}"), Some("Route: <sip:10.0.0.1;lr>, <sip:other.example>".to_owned())),
                (format!("sip:x@{host}"), Some(format!("Route: <sip:{host};maddr=10.0.9.9;lr>"))),
                (format!("sip:x@{host}"), Some("Route: <tel:112>".to_owned())),
                (format!("sip:x@{host}"), Some("Route: <sip:127.0.0.1:6379;transport=tcp;lr>".to_owned())),
            ] {
                for method in ["MESSAGE", "INVITE", "OPTIONS", "REGISTER"] {
                    let request = Request::new(method, &uri);
                    let request = header.iter().fold(request, |request, line| request.add(line));
                    let sent = b.send(ALICE, request);
                    let away: Vec<_> = sent.iter().filter(|sent| sent.to != ALICE).collect();
                    assert!(away.is_empty(), "{method} {uri} {header:?}: {}", show(&sent));
                    assert!(b.asked.is_empty(), "{method} {uri} {header:?}");
                }
            }
        }
    }
    // The host itself may stand there, too.
    let mut b = Bench::with(|settings| settings.routes = vec![address()].into());
    for header in ["Route: <sip:10.0.7.7;lr>", "Route: <sip:10.0.0.1;lr>", "X-None: 1"] {
        let sent = b.send(ALICE, Request::new("MESSAGE", "sip:x@10.0.7.7;maddr=10.0.7.7").add(header));
        assert_eq!(to(&sent, "10.0.7.7:5060").len(), 1, "{header}: {}", show(&sent));
    }
}

#[test]
fn a_route_that_names_no_host_leads_to_no_machine_that_its_sender_could_not_reach() {
    let mut b = Bench::with(|settings| settings.routes = vec![route(Action::Relay(vec![]))].into());
    let (outside, inside) = ("198.51.100.7:5060", ALICE);
    for uri in ["sip:x@127.0.0.1:6379", "sip:x@10.0.0.1:6379", "sip:x@far.example:6379;maddr=127.0.0.1", "sip:x@[::1]:6379"] {
        for from in [outside, inside] {
            let sent = b.send(from, Request::new("MESSAGE", uri).via(from, &format!("z9hG4bK{}", unique())));
            assert!(sent.iter().all(|sent| sent.to == from), "{uri}: {}", show(&sent));
        }
    }
    // By ourselves neither: our own address is nobody's.
    let five = "Route: <sip:10.0.0.1;lr>, <sip:10.0.0.1;lr>, <sip:10.0.0.1;lr>, <sip:10.0.0.1;lr>, <sip:10.0.0.1;lr>";
    for uri in ["sip:x@127.0.0.1:6379", "sip:x@10.0.7.7:6379"] {
        let first = b.send(outside, Request::new("MESSAGE", uri).via(outside, &format!("z9hG4bK{}", unique())).add(five));
        let spiral = the(&first, "10.0.0.1:5060").text.to_string();
        for sent in b.send("10.0.0.1:5060", spiral.as_str()) {
            assert!(!sent.to.ends_with("6379"), "{uri}: {sent}");
        }
    }
    let to_private = |from: &str| Request::new("MESSAGE", "sip:x@10.0.7.7").via(from, &format!("z9hG4bK{}", unique()));
    assert_eq!(b.send_for_one(outside, to_private(outside)).status(), 403);
    assert_eq!(only(b.send(inside, to_private(inside))).to, "10.0.7.7:5060");
    let public = |from: &str| Request::new("MESSAGE", "sip:x@203.0.113.9").via(from, &format!("z9hG4bK{}", unique()));
    assert_eq!(only(b.send(outside, public(outside))).to, "203.0.113.9:5060");
}

/// A contact at this server, and one that a proxy could write into Path, makes us send to ourselves, from our own address.
#[test]
fn what_we_send_to_ourselves_comes_from_no_network() {
    let network = |address: &str, prefix| Network { address: address.parse().unwrap(), prefix };
    let way_out = Route {
        from_source: vec![network("10.0.0.0", 24)],
        to_user_prefix: Some(b"112".to_vec()),
        ..route(Action::Relay(vec![hop("10.0.7.7:5060")]))
    };
    for mode in [Mode::Stateful, Mode::Stateless] {
        for contact in ["<sip:112@10.0.0.1:5060>", "<sip:112@example.com>", "<sip:112@example.com;maddr=10.0.0.1>"] {
            let mut b = Bench::with(|settings| {
                settings.routes = vec![way_out.clone()].into();
                settings.proxy.mode = mode;
            });
            b.register("mallory", contact);
            let sent = b.send("10.0.3.3:5060", Request::new("MESSAGE", "sip:mallory@example.com").via("10.0.3.3:5060", "z9hG4bKa"));
            for sent in sent.into_iter().filter(|sent| sent.to.starts_with("10.0.0.1")) {
                for sent in b.send("10.0.0.1:5060", sent.text.to_string().as_str()) {
                    assert_ne!(sent.to, "10.0.7.7:5060", "{mode:?} {contact}: {sent}");
                }
            }
        }
        // Whoever is there, and has handled it, may; and it may turn away whom it turns away.
        let mut b = Bench::with(|settings| {
            settings.routes = vec![way_out.clone()].into();
            settings.proxy.mode = mode;
        });
        let sent = b.send("10.0.0.9:5060", Request::new("MESSAGE", "sip:112@example.com").via("10.0.0.9:5060", "z9hG4bKb"));
        assert_eq!(to(&sent, "10.0.7.7:5060").len(), 1, "{}", show(&sent));
        let copy = the(&sent, "10.0.7.7:5060").clone();
        for action in [Action::Reject(488), Action::Drop] {
            let turned_away = Route { from_source: vec![network("10.0.7.7", 32)], ..route(action) };
            let mut b = Bench::with(|settings| {
                settings.routes = vec![turned_away, route(Action::Relay(vec![hop("10.0.7.9:5060")]))].into();
                settings.proxy.mode = mode;
            });
            let sent = b.send("10.0.7.7:5060", copy.text.to_string().as_str());
            assert!(sent.iter().all(|sent| sent.status() == 488), "{}", show(&sent));
        }
    }
}
