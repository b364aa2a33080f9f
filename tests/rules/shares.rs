//! What one source, or one address-of-record, may take of the tables, and what is left for others.

use strowger::base::Instant;
use strowger::stack::counters::Limit;
use strowger::stack::location::SHARDS;
use strowger::stack::route::Network;

use crate::bench::*;
use crate::message::{Request, unique};

fn bench(trusted: &[&str]) -> Bench {
    let mut b = Bench::with(|settings| {
        settings.per_core.transactions = 200;
        let network = |address: &&str| Network { address: address.parse().unwrap(), prefix: 32 };
        settings.limits.trusted_sources = trusted.iter().map(network).collect();
    });
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    b.register("carol", "<sip:carol@10.0.1.3:5060>");
    b
}

fn call(user: &str, from: &str) -> Request {
    Request::new("INVITE", &format!("sip:{user}@example.com"))
        .via(from, &format!("z9hG4bK{}", unique()))
        .to(&format!("<sip:{user}@example.com>"))
        .call_id(&format!("c{}", unique()))
}

/// How many of so many calls leave for the phone.
fn calls(b: &mut Bench, user: &str, count: usize, from: impl Fn(usize) -> String) -> usize {
    let reaches = |b: &mut Bench, n: usize| {
        let from = from(n);
        let sent = b.send(&from, call(user, &from));
        sent.iter().any(|sent| sent.method() == "INVITE")
    };
    (0..count).filter(|n| reaches(b, *n)).count()
}

#[test]
fn one_source_leaves_transactions_for_others() {
    let mut b = bench(&[]);
    let taken = calls(&mut b, "bob", 400, |n| format!("10.9.9.9:{}", 1000 + n));
    assert!((150..170).contains(&taken), "{taken}");
    assert!(b.limit_hits(Limit::TransactionsOfSource) >= 230);
    let refused = b.send("10.9.9.9:1", call("bob", "10.9.9.9:1"));
    assert_eq!(only(refused).reason(), "Too Many Transactions Of One Source");
    assert_eq!(calls(&mut b, "carol", 10, |_| DAVE.to_owned()), 10);
    // All is given back.
    b.tick(300_000);
    b.assert_quiet();
    let taken = calls(&mut b, "bob", 400, |n| format!("10.9.9.9:{}", 1000 + n));
    assert!((150..170).contains(&taken), "{taken}");
}

#[test]
fn many_sources_that_call_one_user_leave_transactions_for_others() {
    let mut b = bench(&[]);
    let taken = calls(&mut b, "bob", 400, |n| format!("10.9.{}.{}:5060", n / 200, n % 200 + 1));
    assert!((150..170).contains(&taken), "{taken}");
    assert!(b.limit_hits(Limit::TransactionsOfAor) >= 230);
    let of_carol = calls(&mut b, "carol", 20, |n| format!("10.8.0.{n}:5060"));
    assert_eq!(of_carol, 20);
}

#[test]
fn a_trusted_source_has_no_share() {
    let mut b = bench(&["10.9.9.9"]);
    let from = |n: usize| format!("10.9.9.9:{}", 1000 + n);
    let bob = calls(&mut b, "bob", 100, from);
    let carol = calls(&mut b, "carol", 100, from);
    assert_eq!(bob + carol, 200 - b.limit_hits(Limit::TransactionsOfAor) as usize);
    assert_eq!(b.limit_hits(Limit::TransactionsOfSource), 0);
}

fn registers(b: &mut Bench, user: &str, from: &str) -> u16 {
    let request = Request::new("REGISTER", "sip:example.com")
        .via(from, &format!("z9hG4bK{}", unique()))
        .from(&format!("<sip:{user}@example.com>;tag=r"))
        .to(&format!("<sip:{user}@example.com>"))
        .call_id(&format!("r{}", unique()))
        .add(&format!("Contact: <sip:{user}@{from}>"));
    b.send_for_one(from, request).status()
}

/// The location service has room for 1,000.
#[test]
fn one_source_leaves_bindings_for_others() {
    let mut b = bench(&[]);
    let bound = (0..1500).filter(|n| registers(&mut b, &format!("m{n}"), "10.9.9.9:5060") == 200).count();
    assert!((700..=800).contains(&bound), "{bound}");
    assert!(b.limit_hits(Limit::BindingsOfSource) > 0);
    for n in 0..20 {
        assert_eq!(registers(&mut b, &format!("u{n}"), DAVE), 200, "{n}");
    }
    // What is bound already can be refreshed, and removed.
    assert_eq!(registers(&mut b, "m1", "10.9.9.9:5060"), 200);
    b.tick(4_000_000);
    (0..SHARDS).for_each(|_| _ = b.location.sweep(Instant::from_ms(b.now)));
    assert_eq!(b.location.bindings(), 0);
    assert_eq!(registers(&mut b, "again", "10.9.9.9:5060"), 200);
}

/// Bytes too: the largest requests that there are.
#[test]
fn one_source_leaves_memory_for_others() {
    let mut b = Bench::with(|settings| {
        settings.per_core.transactions = 100_000;
        settings.per_core.transaction_bytes = 4 << 20;
    });
    b.register("bob", "<sip:bob@10.0.1.2:5060>");
    b.register("carol", "<sip:carol@10.0.1.3:5060>");
    let long = "x".repeat(50_000);
    let mut taken = 0;
    for _ in 0..200 {
        let request = call("bob", "10.9.9.9:5060").add(&format!("X-Long: {long}"));
        let sent = b.send("10.9.9.9:5060", request);
        taken += usize::from(sent.iter().any(|sent| sent.method() == "INVITE"));
    }
    assert!((20..80).contains(&taken), "{taken}");
    assert!(b.limit_hits(Limit::TransactionsOfSource) > 0);
    assert_eq!(calls(&mut b, "carol", 20, |_| DAVE.to_owned()), 20);
    b.tick(300_000);
    b.assert_quiet();
}
