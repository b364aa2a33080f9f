//! sipsak, the operator's probe. (Its INVITE and MESSAGE modes crash in the packaged build, 0.9.8.1; a call to what it registers is made with SIPp.)

use std::path::Path;
use std::time::Duration;

use crate::UAC;
use crate::calls::callee;
use crate::message::Message;
use crate::place::{CALLEE, CALLER, CALLER_TAP, Place, wait_for};
use crate::process::{self, Outcome};
use crate::server::Conf;
use crate::sipp::{Scenario, Sipp};
use crate::tap::{Tap, Way};

fn sipsak(place: &Place, arguments: &[&str]) -> Outcome {
    let ip = place.ip(CALLER).to_string();
    let mut all = vec!["-H", &ip, "-k", &ip];
    all.extend(arguments);
    process::run(place, "sipsak", Path::new("sipsak"), &all, Duration::from_secs(15))
}

#[test]
fn options() {
    let place = Place::new("sipsakoptions");
    let server = Conf::new(&place).start(&place);
    let tap = Tap::new(place.at(CALLER_TAP), server.address);
    let outcome = sipsak(&place, &["-vvv", "-p", &tap.address.to_string(), "-s", &format!("sip:{}", server.address)]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let asked = tap.requests(Way::Forth, "OPTIONS");
    let answered = tap.responses(Way::Back, "OPTIONS", 200);
    assert_eq!((asked.len(), answered.len()), (1, 1));
    assert!(outcome.stdout.contains("SIP/2.0 200 OK"), "{outcome:?}");
    assert_eq!(answered[0].call_id(), asked[0].call_id());
    assert_eq!(answered[0].top_via().branch, asked[0].top_via().branch);
    // A user that is not there.
    let outcome = sipsak(&place, &["-s", &server.uri("nobody")]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
}

/// `-U` with a contact, for a row of users; then a call to one of them; then the contact is removed again.
#[test]
fn usrloc() {
    let place = Place::new("sipsakusrloc");
    let server = Conf::new(&place).start(&place);
    let tap = Tap::new(place.at(CALLER_TAP), server.address);
    let contact = format!("sip:bob@{}", place.at(CALLEE));
    let proxy = tap.address.to_string();
    for user in ["user1", "user2", "user3", "user4", "user5"] {
        let registered = sipsak(&place, &["-U", "-i", "-p", &proxy, "-x", "120", "-C", &contact, "-s", &server.uri(user)]);
        assert_eq!(registered.code, Some(0), "{registered:?}");
    }
    assert_eq!(tap.requests(Way::Forth, "REGISTER").len(), 5);
    let answers = tap.responses(Way::Back, "REGISTER", 200);
    assert_eq!(answers.len(), 5);
    assert!(answers.iter().all(|answer| answer.contacts() == [contact.clone()]), "{answers:#?}");
    let shown = server.show(&place, "user3");
    assert!(shown.code == Some(0) && shown.stdout.contains(&contact), "{shown:?}");

    let uas = callee(&place, "uas", CALLEE, place.at(CALLEE)).answer();
    Sipp::new(&place, "uac", place.at_port(CALLER, 5070), Scenario::Text(UAC))
        .call("user3", server.address, server.address)
        .succeed(1);
    uas.succeed(1);

    let removed = sipsak(&place, &["-U", "-i", "-x", "0", "-C", "*", "-s", &server.uri("user3")]);
    assert_eq!(removed.code, Some(0), "{removed:?}");
    let shown = server.show(&place, "user3");
    assert!(!shown.stdout.contains(&contact), "{shown:?}");
    assert!(server.show(&place, "user4").stdout.contains(&contact), "the others stay");
}

/// `-T`: OPTIONS with 0, 1, … hops, until somebody else than a proxy answers.
#[test]
fn traceroute() {
    let place = Place::new("sipsaktrace");
    let server = Conf::new(&place).start(&place);
    let before = Tap::new(place.at(CALLER_TAP), server.address);
    let phone = crate::agent::Agent::new(place.at(CALLEE), server.address);
    server.bind(&place, "bob", phone.address);
    let uri = server.uri("bob");
    let proxy = before.address.to_string();
    let outcome = std::thread::scope(|scope| {
        let tracing = scope.spawn(|| sipsak(&place, &["-T", "-p", &proxy, "-s", &uri]));
        let arrived = phone.expect("OPTIONS", |message| message.is("OPTIONS"));
        assert_eq!(arrived.max_forwards(), Some(0), "the first one that gets through has one hop");
        phone.respond(&arrived, 200, &["Contact: <sip:end@192.0.2.1>"]);
        tracing.join().expect("sipsak")
    });
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let heard: Vec<_> = before.seen(Way::Back).iter().filter_map(Message::status).filter(|status| *status != 100).collect();
    assert_eq!(heard, [483, 200], "{}", before.ladder());
}

/// `-F`: OPTIONS without waiting for answers. Every one is answered all the same. (It asks for no `rport`, so its answers would miss a tap: the
/// server's own counters and the kernel's are looked at.)
#[test]
fn flood() {
    let place = Place::new("sipsakflood");
    let mut server = Conf::new(&place).start(&place);
    let outcome = sipsak(&place, &["-F", "-e", "300", "-s", &format!("sip:{}", server.address)]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let count = |name: &str| server.stats(&place).get(name).copied().unwrap_or_else(|| panic!("no {name}"));
    // sipsak does not wait for answers: when it has ended the last questions may still stand in the socket.
    let all = wait_for(Duration::from_secs(10), || {
        let asked = count("strowger_requests_total{method=\"OPTIONS\"}");
        let answered = count("strowger_messages_total{transport=\"udp\",direction=\"out\",kind=\"response\"}");
        (asked >= 300.0 && answered == asked).then_some(())
    });
    assert!(all.is_some(), "an answer for each question: {:#?}", server.stats(&place));
    server.assert_alive(&place, CALLEE);
}
