//! What the server gives for what it gets, over real sockets: answers that multiply no forged request, and memory that is counted and comes back.

use std::time::Duration;

use crate::agent::Agent;
use crate::place::{CALLEE, CALLER, Place, SERVER, wait_for};
use crate::server::Conf;

/// A request as short as they come.
fn short(agent: &Agent, method: &str, uri: &str, user: &str, more: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0\r\nv:SIP/2.0/UDP {};branch=z9hG4bK{};rport\r\nf:<{user}>;tag=1\r\nt:<{user}>\r\ni:{}\r\nCSeq:1 {method}\r\n\
         {more}\r\n",
        agent.address,
        crate::agent::unique(),
        crate::agent::unique(),
    )
}

#[test]
fn no_answer_is_more_than_three_times_as_long_as_a_question_that_may_be_forged() {
    let place = Place::new("factor");
    let server = Conf::new(&place).stream("tcp", place.at(SERVER)).start(&place);
    let domain = format!("sip:{}", server.address);
    let bob = server.uri("bob");
    // Ten phones of one user, with contacts as long as they may be.
    for n in 0..10 {
        let contact = format!("sip:bob@127.0.0.1:{};x={}", 7000 + n, "y".repeat(800));
        server.bind_to(&place, "bob", &contact);
    }
    let stranger = Agent::new(place.at(CALLER), server.address);
    let many = format!("Require:{}\r\n", vec!["a"; 20_000].join(","));
    for (what, request) in [
        ("query", short(&stranger, "REGISTER", &domain, &bob, "")),
        ("options", short(&stranger, "OPTIONS", &domain, &bob, "")),
        ("require", short(&stranger, "REGISTER", &domain, &bob, &many)),
        ("nobody", short(&stranger, "INVITE", &server.uri("nobody"), &bob, "")),
        ("hops", short(&stranger, "MESSAGE", &bob, &bob, "Max-Forwards:0\r\n")),
    ] {
        stranger.send_bytes(request.as_bytes());
        let answer = stranger.expect(what, |message| message.status().is_some_and(|s| s >= 200));
        let factor = answer.raw.len() as f64 / request.len() as f64;
        println!("{what:>8} {:>6} -> {:>6} {factor:.2}", request.len(), answer.raw.len());
        assert!(factor <= 3.0, "{what}: {factor}: {answer:?}");
    }
    // A phone that registers sees itself, and by a connection everybody sees all.
    let phone = Agent::new(place.at(CALLEE), server.address);
    let query = Agent::tcp(place.at(CALLER).ip(), server.address);
    let mut all = query.register(&server.address.to_string(), "bob", "", 0);
    all.contact = None;
    let answer = query.ask(&all);
    assert_eq!(answer.contacts().len(), 10, "{answer:?}");
    let register = phone.register(&server.address.to_string(), "carol", &format!("<sip:carol@{}>", phone.address), 60);
    assert_eq!(phone.ask(&register).contacts().len(), 1);
}

/// 60 kB each, to a phone that says nothing: the memory is bounded by bytes, calls go on beside it, and it comes back.
#[test]
fn large_requests_that_wait_take_memory_that_comes_back() {
    let place = Place::new("weight");
    let mut server = Conf::new(&place).set("timers", "t1", "\"100ms\"").set("timers", "linger", "\"2s\"").start(&place);
    let silent = Agent::new(place.at(CALLEE), server.address);
    server.bind(&place, "bob", silent.address);
    let caller = Agent::new(place.at(CALLER), server.address);
    caller.ask(&caller.request("OPTIONS", &format!("sip:{}", server.address)));
    let before = server.resident_kib();
    for n in 0..1500 {
        let mut invite = caller.request("INVITE", &server.uri("bob"));
        invite.body = vec![b'b'; 59_000];
        caller.send(&invite);
        if n % 10 == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    wait_for(Duration::from_secs(20), || {
        let taken = server.stat(&place, "strowger_transactions{kind=\"server\"}");
        (taken > 200.0).then_some(())
    })
    .expect("the requests");
    let peak = server.resident_kib();
    // Timer B of 6.4 s, some seconds in which they are remembered, and 8 in which nobody has needed the memory.
    wait_for(Duration::from_secs(60), || {
        let now = server.resident_kib();
        (now < before + (peak - before) / 3).then_some(())
    })
    .expect("the memory comes back");
    println!("{before} kB, at the peak {peak} kB, then {} kB", server.resident_kib());
    assert!(peak > before + 20_000, "{before} kB, {peak} kB");
    server.assert_alive(&place, SERVER + 7);
}
