//! Lost, doubled and late datagrams: for every kind of message and each leg, the call completes all the same and the far side sees no more than it
//! should.

use std::time::Duration;

use crate::UAC;
use crate::agent::Agent;
use crate::calls::callee;
use crate::failures::{UAC_REFUSED, UAS_REFUSES};
use crate::message::Message;
use crate::place::{CALLEE, CALLEE_TAP, CALLER, CALLER_TAP, Place};
use crate::server::Conf;
use crate::sipp::{Scenario, Sipp};
use crate::tap::{Fate, Tap, Way};

/// Where a datagram is lost: between caller and server, or between server and callee.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leg {
    Before,
    Behind,
}

/// One SIPp call with a tap on each leg. The server retransmits after 100 ms, SIPp after 300 ms: who repaired a loss can be told from the counts.
struct Lossy {
    before: Tap,
    behind: Tap,
}

impl Lossy {
    /// Loses the first datagram that `fits` on `leg` in direction `way`.
    fn once(leg: Leg, way: Way, fits: fn(&Message) -> bool) -> Lossy {
        Lossy::times(1, leg, way, fits)
    }

    fn times(losses: usize, leg: Leg, way: Way, fits: fn(&Message) -> bool) -> Lossy {
        let call = Lossy::answered(
            |here| {
                let mut left = if here == leg { losses } else { 0 };
                Box::new(move |seen, message| {
                    if left > 0 && seen == way && fits(message) {
                        left -= 1;
                        return Fate::Drop;
                    }
                    Fate::Pass
                })
            },
            "0",
        );
        assert_eq!(call.before.dropped() + call.behind.dropped(), losses, "the loss that this test is about");
        call
    }

    /// A call that is answered after `ringing` milliseconds.
    fn answered(rule: impl Fn(Leg) -> Rule, ringing: &str) -> Lossy {
        let place = Place::new("lossy");
        let server = Conf::new(&place)
            // The caller is one who has proved nothing; here it is the RFC's repetitions that count.
            .set("limits", "answer_factor", "0")
            .set("timers", "t1", r#""100ms""#)
            .start(&place);
        let before = Tap::with_rule(place.at(CALLER_TAP), server.address, rule(Leg::Before));
        let behind = Tap::with_rule(place.at(CALLEE_TAP), place.at(CALLEE), rule(Leg::Behind));
        server.bind(&place, "bob", behind.address);
        let uas = callee(&place, "uas", CALLEE, behind.address).with(&["-d", ringing]).answer();
        Sipp::new(&place, "uac", place.at(CALLER), Scenario::Text(UAC))
            .with(&["-d", "800"])
            .call("bob", server.address, before.address)
            .succeed(1);
        uas.succeed(1);
        Lossy { before, behind }
    }

    /// A call that is refused with 486.
    fn refused(leg: Leg, way: Way, fits: fn(&Message) -> bool) -> Lossy {
        let place = Place::new("lossyrefused");
        let server = Conf::new(&place)
            // The caller is one who has proved nothing; here it is the RFC's repetitions that count.
            .set("limits", "answer_factor", "0")
            .set("timers", "t1", r#""100ms""#)
            .start(&place);
        let rule = |here: Leg| {
            let mut left = usize::from(here == leg);
            move |seen: Way, message: &Message| {
                if left > 0 && seen == way && fits(message) {
                    left -= 1;
                    return Fate::Drop;
                }
                Fate::Pass
            }
        };
        let before = Tap::with_rule(place.at(CALLER_TAP), server.address, rule(Leg::Before));
        let behind = Tap::with_rule(place.at(CALLEE_TAP), place.at(CALLEE), rule(Leg::Behind));
        server.bind(&place, "bob", behind.address);
        let uas = Sipp::new(&place, "uas", place.at(CALLEE), Scenario::Text(UAS_REFUSES)).answer();
        Sipp::new(&place, "uac", place.at(CALLER), Scenario::Text(UAC_REFUSED))
            .call("bob", server.address, before.address)
            .succeed(1);
        uas.succeed(1);
        assert_eq!(before.dropped() + behind.dropped(), 1, "the loss that this test is about");
        Lossy { before, behind }
    }

    /// How many requests of a kind the server was sent, and how many it sent on.
    fn requests(&self, method: &str) -> (usize, usize) {
        (self.before.requests(Way::Forth, method).len(), self.behind.requests(Way::Forth, method).len())
    }

    /// How many responses of a kind the callee gave, and how many came back to the caller.
    fn responses(&self, method: &str, status: u16) -> (usize, usize) {
        (self.behind.responses(Way::Back, method, status).len(), self.before.responses(Way::Back, method, status).len())
    }
}

type Rule = Box<dyn FnMut(Way, &Message) -> Fate + Send>;

fn same_bytes(messages: &[Message]) -> bool {
    messages.iter().all(|message| message.raw == messages[0].raw)
}

#[test]
fn invite_before_the_server() {
    let call = Lossy::once(Leg::Before, Way::Forth, |message| message.is("INVITE"));
    assert_eq!(call.requests("INVITE"), (2, 1));
}

#[test]
fn invite_behind_the_server() {
    let call = Lossy::once(Leg::Behind, Way::Forth, |message| message.is("INVITE"));
    assert_eq!(call.requests("INVITE"), (1, 2), "100 keeps the caller quiet; the server repeats");
    assert!(same_bytes(&call.behind.requests(Way::Forth, "INVITE")));
}

/// Both 100 and 180 are lost: the caller repeats the INVITE, the server answers it from memory.
#[test]
fn provisional_responses_before_the_server() {
    let call = Lossy::answered(
        |leg| {
            let mut left = if leg == Leg::Before { 2 } else { 0 };
            Box::new(move |way, message| {
                if left > 0 && way == Way::Back && message.status().is_some_and(|status| status < 200) {
                    left -= 1;
                    return Fate::Drop;
                }
                Fate::Pass
            })
        },
        "700",
    );
    assert_eq!(call.before.dropped(), 2);
    assert_eq!(call.requests("INVITE"), (2, 1), "a retransmission is absorbed");
    assert_eq!(call.responses("INVITE", 180), (1, 2), "and answered with the last provisional response (17.2.1)");
}

#[test]
fn ringing_behind_the_server() {
    let call = Lossy::once(Leg::Behind, Way::Back, |message| message.answers("INVITE", 180));
    assert_eq!(call.responses("INVITE", 180), (1, 0));
    assert_eq!(call.responses("INVITE", 200), (1, 1));
}

#[test]
fn answer_behind_the_server() {
    let call = Lossy::once(Leg::Behind, Way::Back, |message| message.answers("INVITE", 200));
    assert_eq!(call.requests("INVITE"), (1, 1), "after a provisional response nobody repeats the INVITE");
    assert_eq!(call.responses("INVITE", 200), (2, 1));
}

#[test]
fn answer_before_the_server() {
    let call = Lossy::once(Leg::Before, Way::Back, |message| message.answers("INVITE", 200));
    assert_eq!(
        call.responses("INVITE", 200),
        (2, 2),
        "the server forwards the repeated 2xx and does not repeat it itself (RFC 6026)"
    );
}

#[test]
fn ack_before_the_server() {
    let call = Lossy::once(Leg::Before, Way::Forth, |message| message.is("ACK"));
    assert_eq!(call.requests("ACK"), (2, 1));
    assert_eq!(call.responses("INVITE", 200), (2, 2));
}

#[test]
fn ack_behind_the_server() {
    let call = Lossy::once(Leg::Behind, Way::Forth, |message| message.is("ACK"));
    assert_eq!(call.requests("ACK"), (2, 2), "an ACK for 2xx is end to end: the server never repeats it");
}

#[test]
fn bye_before_the_server() {
    let call = Lossy::once(Leg::Before, Way::Forth, |message| message.is("BYE"));
    assert_eq!(call.requests("BYE"), (2, 1));
}

#[test]
fn bye_behind_the_server() {
    let call = Lossy::once(Leg::Behind, Way::Forth, |message| message.is("BYE"));
    assert_eq!(call.requests("BYE"), (1, 2));
    assert!(same_bytes(&call.behind.requests(Way::Forth, "BYE")));
}

#[test]
fn answer_to_bye_behind_the_server() {
    let call = Lossy::once(Leg::Behind, Way::Back, |message| message.answers("BYE", 200));
    assert_eq!(call.requests("BYE"), (1, 2));
    assert_eq!(call.responses("BYE", 200), (2, 1));
}

#[test]
fn answer_to_bye_before_the_server() {
    let call = Lossy::once(Leg::Before, Way::Back, |message| message.answers("BYE", 200));
    assert_eq!(call.requests("BYE"), (2, 1), "the repeated BYE is answered from memory");
    assert_eq!(call.responses("BYE", 200), (1, 2));
    assert!(same_bytes(&call.before.responses(Way::Back, "BYE", 200)));
}

#[test]
fn busy_behind_the_server() {
    let call = Lossy::refused(Leg::Behind, Way::Back, |message| message.answers("INVITE", 486));
    let (said, heard) = call.responses("INVITE", 486);
    assert!(said >= 2 && heard == 1, "said {said} times, heard {heard} times");
}

#[test]
fn busy_before_the_server() {
    let call = Lossy::refused(Leg::Before, Way::Back, |message| message.answers("INVITE", 486));
    assert_eq!(call.responses("INVITE", 486), (1, 2), "Timer G repeats it");
    assert!(same_bytes(&call.before.responses(Way::Back, "INVITE", 486)));
    assert_eq!(call.requests("ACK"), (1, 1));
}

#[test]
fn ack_of_busy_before_the_server() {
    let call = Lossy::refused(Leg::Before, Way::Forth, |message| message.is("ACK"));
    assert_eq!(call.responses("INVITE", 486), (1, 2), "Timer G repeats it");
    assert_eq!(call.requests("ACK"), (2, 1));
}

#[test]
fn ack_of_busy_behind_the_server() {
    let call = Lossy::refused(Leg::Behind, Way::Forth, |message| message.is("ACK"));
    assert_eq!(call.responses("INVITE", 486), (2, 1), "the repeated 486 ends at the server");
    assert_eq!(call.requests("ACK"), (1, 2), "and is acknowledged again");
    assert!(same_bytes(&call.behind.requests(Way::Forth, "ACK")));
}

/// Four INVITEs lost one after the other, then four of everything the callee says.
#[test]
fn a_bad_line_behind_the_server() {
    let call = Lossy::times(4, Leg::Behind, Way::Forth, |message| message.is("INVITE"));
    assert_eq!(call.requests("INVITE"), (1, 5));
}

/// Every datagram arrives twice: what is a repetition ends at the server.
#[test]
fn everything_twice() {
    let call = Lossy::answered(|_| Box::new(|_, _| Fate::Double), "0");
    assert_eq!(call.requests("INVITE"), (1, 1));
    assert_eq!(call.requests("BYE"), (1, 1));
    assert_eq!(call.behind.requests(Way::Forth, "CANCEL").len(), 0);
    let (said, heard) = call.responses("INVITE", 180);
    assert!(heard <= 2 * said + 1, "180 said {said} times and heard {heard} times");
}

/// 180 overtaken by 200: the caller hears no provisional response after the final one.
#[test]
fn a_late_ringing() {
    let call = Lossy::answered(
        |leg| {
            Box::new(move |_, message| {
                if leg == Leg::Behind && message.answers("INVITE", 180) {
                    return Fate::Delay(Duration::from_millis(300));
                }
                Fate::Pass
            })
        },
        "0",
    );
    let heard: Vec<u16> =
        call.before.seen(Way::Back).iter().filter(|message| message.method() == "INVITE").filter_map(Message::status).collect();
    let answered = heard.iter().position(|status| *status == 200).expect("200");
    assert!(heard[answered..].iter().all(|status| *status >= 200), "{heard:?}");
}

/// A REGISTER that is lost, and one whose 200 is lost: the repetition has the same CSeq and is not stale.
#[test]
fn register_and_its_answer() {
    for way in [Way::Forth, Way::Back] {
        let place = Place::new("lossyregister");
        let server = Conf::new(&place).start(&place);
        let mut left = 1;
        let tap = Tap::with_rule(place.at(CALLEE_TAP), server.address, move |seen, _| {
            if seen == way && left > 0 {
                left -= 1;
                return Fate::Drop;
            }
            Fate::Pass
        });
        let phone = Agent::new(place.at(CALLEE), tap.address);
        let register = phone.register(&server.address.to_string(), "phone", &format!("<sip:phone@{}>", phone.address), 600);
        phone.send(&register);
        assert!(phone.receive(Duration::from_millis(200)).is_none());
        phone.send(&register);
        let answer = phone.final_for(&register);
        assert_eq!((answer.status(), answer.contacts().len()), (Some(200), 1), "{answer:?}");
        phone.send(&register);
        assert_eq!(phone.final_for(&register).raw, answer.raw, "the same answer again");
        assert_eq!(tap.dropped(), 1);
    }
}
