//! What an answer may cost and what a message may hold: no answer over UDP that multiplies a forged request, none that fits nowhere, and
//! no memory that is counted as less than it is.

use std::fmt::Write;
use strowger::base::Transport;
use strowger::stack::Element;
use strowger::stack::counters::{Drop, Limit};

use crate::bench::*;
use crate::message::{Request, Text};

/// The shortest of its kind that says all that a request must say.
fn short(method: &str, uri: &str, to: &str, more: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0\r\nv:SIP/2.0/UDP 10.0.1.9;branch=z9hG4bKa;rport\r\nf:<{to}>;tag=1\r\nt:<{to}>\r\ni:1\r\nCSeq:1 {method}\r\n\
         {more}\r\n"
    )
}

/// The answers of the server itself to one datagram of somebody who has proved nothing, and how many times as long they are.
#[track_caller]
fn factor(b: &mut Bench, request: &str) -> (Text, f64) {
    let sent = b.send("10.0.1.9:5060", request.as_bytes());
    let answer = only(sent);
    (answer.text.clone(), answer.text.bytes.len() as f64 / request.len() as f64)
}

#[test]
fn no_answer_is_more_than_three_times_its_request() {
    let algorithms = |settings: &mut strowger::stack::Settings| {
        use strowger::stack::auth::digest::Algorithm;
        settings.auth.challenge_register = true;
        settings.auth.challenge_proxy = true;
        settings.auth.algorithms = vec![Algorithm::Sha512_256, Algorithm::Sha256, Algorithm::Md5];
    };
    let mut asking = Bench::with(algorithms);
    let mut open = Bench::with(|settings| settings.listeners = listeners());
    let mut redirecting = Bench::with(|settings| settings.proxy.redirect = true);
    for b in [&mut open, &mut redirecting] {
        for n in 0..10 {
            b.register("bob", &format!("<sip:bob@10.0.1.2:{};line={n}{}>", 5060 + n, "x".repeat(900)));
        }
    }
    let bob = "sip:bob@example.com";
    let many = format!("Require:{}\r\n", vec!["a"; 3000].join(","));
    let different: Vec<String> = (0..3000).map(|n| n.to_string()).collect();
    let different = format!("Require:{}\r\n", different.join(","));
    let folded = format!("Proxy-Require:{}\r\n", vec!["a"; 3000].join(",\r\n "));
    let mut table = String::new();
    for (what, b, request) in [
        ("challenge, REGISTER", 0, short("REGISTER", "sip:example.com", bob, "")),
        ("challenge, INVITE", 0, short("INVITE", bob, bob, "")),
        ("query of ten long contacts", 1, short("REGISTER", "sip:example.com", bob, "")),
        ("OPTIONS", 1, short("OPTIONS", "sip:example.com", bob, "")),
        ("Require, one option 3,000 times", 1, short("REGISTER", "sip:example.com", bob, &many)),
        ("Require, 3,000 options", 1, short("REGISTER", "sip:example.com", bob, &different)),
        ("Proxy-Require, folded", 1, short("INVITE", bob, bob, &folded)),
        ("302 with ten long contacts", 2, short("INVITE", bob, bob, "")),
        ("404", 1, short("MESSAGE", "sip:nobody@example.com", bob, "")),
        ("400", 1, short("MESSAGE", bob, bob, "i:2\r\n")),
        ("483", 1, short("MESSAGE", bob, bob, "Max-Forwards:0\r\n")),
        ("416", 1, short("MESSAGE", "x:y", bob, "")),
    ] {
        let b = match b {
            0 => &mut asking,
            1 => &mut open,
            _ => &mut redirecting,
        };
        let (answer, factor) = factor(b, &request);
        let first = &answer.start_line;
        writeln!(table, "{what:>32} {:>6} {factor:>5.2}  {first}", request.len()).unwrap();
        assert!(factor <= 3.0, "{what}: {factor}\n{answer}");
        if what.starts_with("challenge") {
            assert!(!answer.all("WWW-Authenticate").is_empty() || !answer.all("Proxy-Authenticate").is_empty());
        }
        if what.contains("ten long") {
            // An answer without any would say that there are none.
            assert_eq!((answer.status(), answer.reason()), (513, "Answer Too Long For UDP"));
        }
    }
    println!("{table}");
    assert!(open.limit_hits(Limit::AnswerSize) > 0);
    // Over a connection the sender is there.
    let query = short("REGISTER", "sip:example.com", bob, "l:0\r\n").replace("UDP", "TCP");
    let flow = open.open(Transport::Tcp, 0, 1, "10.0.1.9:50000");
    let answer = only(open.send_on(0, flow, query.as_bytes()));
    assert_eq!((answer.status(), answer.all("Contact").len()), (200, 10));
}

/// A phone like others, which shares its address-of-record with nine more, and no authentication: it gets its 200, learns of itself, and of
/// as many others as there is room for.
#[test]
fn a_phone_learns_of_itself_whatever_else_there_is_no_room_for() {
    let mut b = Bench::new();
    let mut lists = Vec::new();
    for n in 0..10 {
        let contact =
            format!("<sip:bob@10.0.1.{n}:5060;transport=udp;ob>;+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-{n:012}>\"");
        let register = Request::new("REGISTER", "sip:example.com")
            .to("<sip:bob@example.com>")
            .add(&format!("Contact: {contact}"))
            .add("Expires: 600");
        let answer = b.send_for_one("10.0.1.9:5060", &register);
        assert_eq!(answer.status(), 200, "{answer}");
        assert!(answer.bytes.len() <= 3 * register.bytes().len());
        let contacts = answer.all("Contact");
        assert!(contacts[0].contains(&format!("@10.0.1.{n}:")), "{answer}");
        lists.push(contacts.len());
    }
    assert_eq!(lists[..4], [1, 2, 3, 4]);
    assert!(lists[9] >= 6, "{lists:?}");
}

#[test]
fn an_unknown_option_is_listed_once_and_a_few_are_enough() {
    let mut b = Bench::new();
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let request = Request::invite().add("Proxy-Require: foo, Foo, bar,foo,  bar , baz");
    let answer = b.send_for_one(ALICE, &request);
    assert_eq!(answer.status(), 420);
    assert_eq!(answer.all("Unsupported"), ["foo, bar, baz"]);
}

// ---- answers that fit, and can be matched ------------------------------------------------------------------------------------

#[test]
fn many_long_challenges_make_an_answer_that_fits() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut b = Bench::with(|settings| settings.listeners = listeners());
        for n in 0..10 {
            b.register("bob", &format!("<sip:bob@10.0.2.{n}:5060>"));
        }
        let request = Request::invite().by(transport);
        let sent = match transport {
            Transport::Udp => b.send(ALICE, &request),
            _ => {
                let flow = b.open(transport, 0, 1, ALICE);
                b.send_on(0, flow, &request)
            }
        };
        let mut last = Vec::new();
        for n in 0..10 {
            let peer = format!("10.0.2.{n}:5060");
            let branch = the(&sent, &peer).clone();
            // One of them is short.
            let nonce = "n".repeat(if n == 7 { 10 } else { 60_000 });
            let challenge = format!("WWW-Authenticate: Digest realm=\"r{n}\", nonce=\"{nonce}\"");
            last = b.send(&peer, branch.answer(401).add(&challenge));
        }
        let answer = the(&last, ALICE);
        assert_eq!(answer.gist(), "401 INVITE");
        assert!(answer.bytes.len() < 65_000, "{}", answer.bytes.len());
        let challenges = answer.all("WWW-Authenticate");
        assert_eq!(challenges.len(), 2, "the first, and what fits beside it");
        assert!(challenges[0].contains("r0") && challenges[1].contains("r7"));
        assert_eq!(b.limit_hits(Limit::AnswerSize), 8);
        b.send(ALICE, request.ack(answer));
        b.assert_quiet();
    }
}

#[test]
fn short_challenges_all_arrive() {
    let mut b = Bench::new();
    for n in 0..10 {
        b.register("bob", &format!("<sip:bob@10.0.2.{n}:5060>"));
    }
    let request = Request::invite();
    let sent = b.send(ALICE, &request);
    let mut last = Vec::new();
    for n in 0..10 {
        let peer = format!("10.0.2.{n}:5060");
        let challenge = format!("Proxy-Authenticate: Digest realm=\"r{n}\", nonce=\"{}\"", "n".repeat(200));
        last = b.send(&peer, the(&sent, &peer).answer(407).add(&challenge));
    }
    let answer = the(&last, ALICE);
    assert_eq!(answer.all("Proxy-Authenticate").len(), 10);
    b.send(ALICE, request.ack(answer));
    b.assert_quiet();
}

/// What names the transaction may stand behind any number of other lines.
#[test]
fn an_answer_to_too_many_lines_can_be_matched() {
    let lines = "X: y\r\n".repeat(1100);
    for (first, last) in
        [("Via|", "From|To|Call-ID|CSeq|"), ("", "Via|From|To|Call-ID|CSeq|"), ("Via|CSeq|", "Via|To|From|Call-ID|")]
    {
        let line = |name: &str| match name {
            "Via" => "Via: SIP/2.0/UDP 10.0.1.1:5060;branch=z9hG4bKx\r\n",
            "From" => "f: <sip:alice@example.com>;tag=1\r\n",
            "To" => "To: <sip:bob@example.com>\r\n",
            "Call-ID" => "i: call\r\n",
            "CSeq" => "CSeq: 7\r\n MESSAGE\r\n",
            _ => "",
        };
        let text = |names: &str| names.split('|').map(line).collect::<String>();
        let request = format!("MESSAGE sip:bob@example.com SIP/2.0\r\n{}{lines}{}\r\n", text(first), text(last));
        let mut b = Bench::new();
        let answer = b.send_for_one(ALICE, request.as_bytes());
        assert_eq!(answer.status(), 513);
        assert!(answer.header("Via").unwrap().contains("branch=z9hG4bKx"));
        assert_eq!(answer.header("From"), Some("<sip:alice@example.com>;tag=1"));
        assert!(answer.header("To").unwrap().starts_with("<sip:bob@example.com>;tag="));
        assert_eq!(answer.header("Call-ID"), Some("call"));
        assert!(answer.header("CSeq").unwrap().starts_with('7'));
        assert_eq!(answer.all("Via").len(), request.matches("Via:").count());
        assert_eq!(answer.header("X"), None);
    }
}

// ---- memory ------------------------------------------------------------------------------------------------------------------

#[test]
fn transactions_are_counted_by_what_they_hold() {
    let mut b = Bench::with(|settings| {
        settings.per_core.transactions = 1000;
        settings.per_core.transaction_bytes = 1 << 20;
    });
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    let big = |n: u32| Request::invite().cseq(n).body(&"b".repeat(50_000));
    let mut answers = Vec::new();
    for n in 1..40 {
        let request = big(n);
        let sent = b.send(ALICE, &request);
        let status = to(&sent, ALICE)[0].status();
        if status == 503 {
            let answer = to(&sent, ALICE)[0];
            assert!(answer.header("Retry-After").is_some());
            assert!(b.send(ALICE, request.ack(answer)).is_empty());
        }
        answers.push(status);
    }
    let taken = answers.iter().filter(|status| **status == 100).count();
    // The request and the copy that left, 64 KiB each.
    assert_eq!(taken, 8);
    assert!(answers[8..].iter().all(|status| *status == 503), "{answers:?}");
    assert_eq!(b.limit_hits(Limit::TransactionBytes), 31);
    // What has ended makes room, and nothing is left.
    b.tick(40_000);
    let sent = b.send(ALICE, big(50));
    assert_eq!(the(&sent, ALICE).status(), 100);
    b.assert_quiet();
}

#[test]
fn the_memory_of_a_peak_is_given_back() {
    let mut b = Bench::new();
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    for n in 1..400 {
        b.send(ALICE, Request::invite().cseq(n).body(&"b".repeat(50_000)));
    }
    let peak = b.cores[0].pool_bytes();
    assert!(peak > 399 * 100_000, "{peak}");
    // It ends, and some time later nobody has come back.
    b.tick(200_000);
    let rest = b.cores[0].pool_bytes();
    assert!(rest <= 2 << 20, "{rest} of {peak}");
    assert!(b.cores[0].take_freed(), "the allocator is asked to give it back");
    assert!(!b.cores[0].take_freed(), "once");
    assert_eq!(b.dropped(Drop::Unreadable), 0);
    b.assert_quiet();
}
