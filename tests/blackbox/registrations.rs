//! REGISTER: made, refreshed, asked for, removed, refused; and what the location table then shows.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::agent::{Agent, Request};
use crate::calls::by_call;
use crate::message::{Message, parameter, uri_of};
use crate::place::{CALLEE, CALLER, Place, SECOND_CALLEE, wait_for};
use crate::process;
use crate::server::Conf;
use crate::sipp::{Scenario, Sipp};

const PATIENCE: Duration = Duration::from_secs(10);

const REGISTER: &str = include_str!("scenarios/register.xml");

#[test]
fn the_life_of_a_registration() {
    let place = Place::new("register");
    let server = Conf::new(&place).start(&place);
    let phones = Sipp::new(&place, "register", place.at(CALLEE), Scenario::Text(REGISTER)).calls(20).with(&["-r", "100"]).call(
        "phone",
        server.address,
        server.address,
    );
    let half_way = wait_for(Duration::from_secs(10), || {
        let asked = phones.messages().iter().filter(|traced| !traced.sent && traced.message.cseq() == 4).count();
        (asked == 20).then_some(())
    });
    assert!(half_way.is_some(), "20 answers to the fourth REGISTER");
    let first = format!("sip:phone7@{}", place.at(CALLEE));
    let second = format!("sip:phone7@{}", place.at_port(CALLEE, 5999));
    let shown = server.show(&place, "phone7");
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stdout.contains(&first) && shown.stdout.contains(&second), "{shown:?}");
    assert_eq!(server.stat(&place, "strowger_bindings"), 40.0);
    let report = phones.succeed(20);

    let calls = by_call(report.received());
    assert_eq!(calls.len(), 20);
    for answers in calls.values() {
        assert_eq!(answers.iter().map(Message::cseq).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7, 8], "one answer each");
        let contacts: Vec<usize> = answers.iter().map(|answer| answer.contacts().len()).collect();
        assert_eq!(contacts, [1, 1, 2, 2, 1, 1, 0, 0], "every 200 lists all bindings");
        assert_left(&answers[0], ":5060", 110, 120);
        assert_left(&answers[1], ":5060", 290, 300);
        assert_left(&answers[2], ":5999", 80, 90);
        let second = answers[3].all("contact").into_iter().find(|value| value.contains(":5999")).expect("the second contact");
        assert_eq!(parameter(&second, "q").and_then(|q| q.parse().ok()), Some(0.3), "{second}");
        for answer in answers {
            assert!(answer.to_tag().is_some(), "{answer:?}");
            assert_eq!(answer.vias().len(), 1);
            assert_eq!(answer.top_via().rport.as_deref(), Some("5060"));
        }
    }
    let shown = server.show(&place, "phone7");
    assert!(!shown.stdout.contains(&first) && !shown.stdout.contains(&second), "{shown:?}");
}

/// A phone without a clock takes the time from the 200 (10.3, step 8; 20.17), as another program reads it.
#[test]
fn a_registration_tells_the_time() {
    let place = Place::new("date");
    let server = Conf::new(&place).start(&place);
    let phone = Agent::new(place.at(CALLEE), server.address);
    for seconds in [60, 0] {
        let contact = format!("<{}>", phone.uri());
        let answer = phone.ask(&phone.register(&server.address.to_string(), "bob", &contact, seconds));
        assert_eq!(answer.status(), Some(200));
        let said = answer.header("date").expect("a Date").to_owned();
        let read = process::run(&place, "date", Path::new("date"), &["-u", "-d", &said, "+%s %a, %d %b %Y %H:%M:%S GMT"], PATIENCE);
        let (told, form) = read.stdout.trim().split_once(' ').expect("a time");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
        let told: f64 = told.parse().expect("seconds");
        assert!((now - told).abs() < 30.0 && form == said, "{said}: {read:?}");
    }
}

/// Too short a time is refused with the least that is granted; too long a time is cut (10.3, step 6 and 7).
#[test]
fn expires_is_bounded() {
    let place = Place::new("expires");
    let server = Conf::new(&place)
        .set("registrar", "min_expires", r#""60s""#)
        .set("registrar", "default_expires", r#""10m""#)
        .set("registrar", "max_expires", r#""20m""#)
        .start(&place);
    let phone = Phone::new(&place, &server.address.to_string(), CALLEE);
    let brief = phone.ask("<sip:a@192.0.2.1>", Some(59));
    assert_eq!(brief.status(), Some(423), "{brief:?}");
    assert_eq!(brief.header("min-expires"), Some("60"), "{brief:?}");
    let brief = phone.ask("<sip:a@192.0.2.1>;expires=5", None);
    assert_eq!(brief.status(), Some(423), "the Contact's own expires counts: {brief:?}");
    assert_eq!(phone.ask("", None).contacts().len(), 0, "a refused binding is not made");
    assert_left(&phone.ask("<sip:a@192.0.2.1>", Some(60)), "192.0.2.1", 55, 60);
    assert_left(&phone.ask("<sip:a@192.0.2.1>", Some(99_999)), "192.0.2.1", 1190, 1200);
    assert_left(&phone.ask("<sip:b@192.0.2.2>", None), "192.0.2.2", 590, 600);
    assert_left(&phone.ask("<sip:b@192.0.2.2>;expires=70", Some(900)), "192.0.2.2", 65, 70);
}

/// A binding is gone when its time is over, without anybody asking: for phones, for callers and for operators.
#[test]
fn a_binding_expires() {
    let place = Place::new("expiry");
    let server = Conf::new(&place).set("registrar", "min_expires", r#""1s""#).start(&place);
    let phone = Phone::new(&place, &server.address.to_string(), CALLEE);
    let contact = format!("sip:a@{}", place.at(SECOND_CALLEE));
    assert_eq!(phone.ask(&format!("<{contact}>"), Some(1)).contacts(), [contact.as_str()]);
    assert!(server.show(&place, "phone").stdout.contains(&contact));
    std::thread::sleep(Duration::from_millis(1300));
    assert_eq!(phone.ask("", None).contacts().len(), 0);
    assert!(!server.show(&place, "phone").stdout.contains(&contact));
    let caller = Agent::new(place.at(CALLER), server.address);
    let answer = caller.ask(&caller.request("MESSAGE", &server.uri("phone")));
    assert!([404, 480].contains(&answer.status().unwrap_or_default()), "{answer:?}");
}

#[test]
fn contacts_are_limited() {
    let place = Place::new("limit");
    let server = Conf::new(&place).set("registrar", "max_contacts", "2").start(&place);
    let phone = Phone::new(&place, &server.address.to_string(), CALLEE);
    assert_eq!(phone.ask("<sip:a@192.0.2.1>", Some(600)).status(), Some(200));
    assert_eq!(phone.ask("<sip:a@192.0.2.2>", Some(600)).status(), Some(200));
    let refused = phone.ask("<sip:a@192.0.2.3>", Some(600));
    assert!(refused.status() >= Some(400), "{refused:?}");
    // Three at once: all or nothing.
    let other = Phone { user: "other".to_owned(), ..Phone::new(&place, &server.address.to_string(), CALLER) };
    let refused = other.ask("<sip:a@192.0.2.1>, <sip:a@192.0.2.2>, <sip:a@192.0.2.3>", Some(600));
    assert!(refused.status() >= Some(400), "{refused:?}");
    assert_eq!(other.ask("", None).contacts().len(), 0);
    let mut held = phone.ask("", None).contacts();
    held.sort();
    assert_eq!(held, ["sip:a@192.0.2.1", "sip:a@192.0.2.2"]);
    assert_eq!(phone.ask("<sip:a@192.0.2.2>", Some(700)).status(), Some(200), "a refresh is no new contact");
}

/// Within one Call-ID a lower CSeq is refused and changes nothing (10.3, step 7). An equal one is a repetition: it is answered with what is bound, and
/// changes nothing either. A new Call-ID starts anew.
#[test]
fn stale_registrations_change_nothing() {
    let place = Place::new("stale");
    let server = Conf::new(&place).start(&place);
    let phone = Phone::new(&place, &server.address.to_string(), CALLEE);
    let contact = "<sip:a@192.0.2.1>";
    assert_eq!(phone.numbered(20, "one", contact, 600).status(), Some(200));
    for (cseq, expires) in [(19, 900), (1, 0)] {
        let refused = phone.numbered(cseq, "one", contact, expires);
        assert!(refused.status() >= Some(400), "CSeq {cseq}: {refused:?}");
    }
    for expires in [900, 0] {
        let repeated = phone.numbered(20, "one", contact, expires);
        if repeated.status() == Some(200) {
            assert_left(&repeated, "192.0.2.1", 590, 600);
        }
    }
    let wiped = phone.numbered(19, "one", "*", 0);
    assert!(wiped.status() >= Some(400), "{wiped:?}");
    assert_left(&phone.ask("", None), "192.0.2.1", 590, 600);
    assert_eq!(phone.numbered(21, "one", contact, 700).status(), Some(200));
    assert_eq!(phone.numbered(1, "two", contact, 800).status(), Some(200), "another Call-ID: the phone has restarted");
    assert_left(&phone.ask("", None), "192.0.2.1", 790, 800);
}

/// `*` stands alone and with Expires 0 only (10.2.2, 10.3 step 6).
#[test]
fn a_star_has_its_rules() {
    let place = Place::new("star");
    let server = Conf::new(&place).start(&place);
    let phone = Phone::new(&place, &server.address.to_string(), CALLEE);
    assert_eq!(phone.ask("<sip:a@192.0.2.1>", Some(600)).status(), Some(200));
    assert_eq!(phone.ask("*", Some(600)).status(), Some(400));
    assert_eq!(phone.ask("*", None).status(), Some(400));
    assert_eq!(phone.ask("*, <sip:b@192.0.2.2>", Some(0)).status(), Some(400));
    assert_eq!(phone.ask("", None).contacts(), ["sip:a@192.0.2.1"]);
    assert_eq!(phone.ask("*", Some(0)).status(), Some(200));
    assert_eq!(phone.ask("", None).contacts().len(), 0);
}

/// Contacts are the same when their URIs are (19.1.4), not when their letters are.
#[test]
fn contacts_are_compared_as_uris() {
    let place = Place::new("compare");
    let server = Conf::new(&place).start(&place);
    let phone = Phone::new(&place, &server.address.to_string(), CALLEE);
    assert_eq!(phone.ask("<sip:a@phone.example.org;transport=udp>", Some(600)).status(), Some(200));
    let again = phone.ask("\"A\" <SIP:%61@PHONE.example.ORG;Transport=UDP>;q=0.2", Some(600));
    assert_eq!(again.contacts().len(), 1, "{again:?}");
    assert_eq!(phone.ask("<sip:A@phone.example.org;transport=udp>", Some(600)).contacts().len(), 2, "the user part minds its case");
}

/// A REGISTER for somebody else's domain is not answered from our table, and is not carried there for a stranger.
#[test]
fn a_foreign_domain_is_not_registered_here() {
    let place = Place::new("foreignregister");
    let server = Conf::new(&place).start(&place);
    let victim = Agent::new(place.at(CALLEE), server.address);
    let phone = Agent::new(place.at(CALLER), server.address);
    let answer = phone.ask(&phone.register(&victim.address.to_string(), "a", "<sip:a@192.0.2.1>", 600));
    assert!(answer.status() >= Some(400), "{answer:?}");
    assert!(victim.receive(Duration::from_millis(300)).is_none());
    // The right domain in the Request-URI and a wrong one in To.
    let mut register = phone.register(&server.address.to_string(), "a", "<sip:a@192.0.2.1>", 600);
    register.to = "<sip:a@elsewhere.example>".to_owned();
    let answer = phone.ask(&register);
    assert_eq!(answer.status(), Some(404), "10.3 step 5: {answer:?}");
}

/// By hand, as an operator does it: what `ul add` makes is what REGISTER sees and what a call finds.
#[test]
fn the_location_table_by_hand() {
    let place = Place::new("ul");
    let server = Conf::new(&place).start(&place);
    let aor = format!("1003@{}", server.address.ip());
    let contact = format!("sip:1003@{}", place.at_port(CALLEE, 5061));
    let added = server.command(&place, &["ul", "add", &aor, &contact, "--expires", "77"]);
    assert_eq!(added.code, Some(0), "{added:?}");
    let phone = Phone { user: "1003".to_owned(), ..Phone::new(&place, &server.address.to_string(), CALLER) };
    let seen = phone.ask("", None);
    assert_eq!(seen.contacts(), [contact.as_str()]);
    assert_left(&seen, ":5061", 70, 77);
    let all = server.command(&place, &["ul", "show"]);
    assert!(all.code == Some(0) && all.stdout.contains("1003") && all.stdout.contains(&contact), "{all:?}");

    let callee = Agent::new(place.at_port(CALLEE, 5061), server.address);
    let caller = Agent::new(place.at_port(CALLER, 5070), server.address);
    caller.send(&caller.request("MESSAGE", &server.uri("1003")));
    callee.expect("MESSAGE", |message| message.is("MESSAGE"));

    assert_eq!(server.command(&place, &["ul", "rm", &aor, "sip:1003@192.0.2.9"]).code, Some(1), "not there");
    assert_eq!(server.command(&place, &["ul", "rm", &aor, &contact]).code, Some(0));
    assert_eq!(phone.ask("", None).contacts().len(), 0);
    let again = server.command(&place, &["ul", "rm", &aor]);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert_eq!(again.stderr.trim().lines().count(), 1, "one line says why: {again:?}");
}

/// A phone that registers by hand: one Call-ID, rising CSeq.
struct Phone {
    agent: Agent,
    domain: String,
    user: String,
}

impl Phone {
    fn new(place: &Place, domain: &str, host: u8) -> Phone {
        Phone {
            agent: Agent::new(place.at(host), domain.parse().expect("the server's address")),
            domain: domain.to_owned(),
            user: "phone".to_owned(),
        }
    }

    /// A REGISTER with this Contact (none for a query) and this Expires.
    fn ask(&self, contact: &str, expires: Option<u32>) -> Message {
        let mut register = self.agent.register(&self.domain, &self.user, contact, 0);
        register.extra = expires.map(|seconds| format!("Expires: {seconds}")).into_iter().collect();
        self.agent.ask(&register)
    }

    fn numbered(&self, cseq: u32, call_id: &str, contact: &str, expires: u32) -> Message {
        let register = self.agent.register(&self.domain, &self.user, contact, expires);
        self.agent.ask(&Request { cseq, call_id: call_id.to_owned(), ..register })
    }
}

/// Of the contact that has `part` in it, `least` to `most` seconds are left.
fn assert_left(answer: &Message, part: &str, least: u32, most: u32) {
    assert_eq!(answer.status(), Some(200), "{answer:?}");
    let contact = answer
        .all("contact")
        .into_iter()
        .find(|value| uri_of(value).contains(part))
        .unwrap_or_else(|| panic!("no {part} in {answer:?}"));
    let left = parameter(&contact, "expires")
        .and_then(|value| value.parse::<u32>().ok())
        .unwrap_or_else(|| panic!("no expires in {contact}"));
    assert!((least..=most).contains(&left), "{contact}: {least} to {most} seconds should be left");
}
