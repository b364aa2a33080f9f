//! What one binding costs in memory, all told (row M3): phones register with a usual contact, and the allocator is asked what that took.
//!
//! `cargo test --profile checked --test footprint -- --nocapture` prints it for a growing number of bindings; the tables grow by doubling,
//! so the cost of one goes up and down between two bounds.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use strowger::base::{Flow, Instant, Key, Outbox, Transport};
use strowger::stack::location::journal::Taken;
use strowger::stack::location::{Durability, Location};
use strowger::stack::settings::{Listener, Settings};
use strowger::stack::{Element, Endpoint, location};

struct Weighing;

thread_local! {
    static HELD: Cell<i64> = const { Cell::new(0) };
}

/// What a block costs in the C library's heap: eight bytes of its own, in steps of sixteen, 32 at least.
fn chunk(size: usize) -> i64 {
    ((size + 8).next_multiple_of(16)).max(32) as i64
}

fn weigh(change: i64) {
    HELD.with(|held| held.set(held.get() + change));
}

// SAFETY: every call goes on to the system's allocator unchanged; the weight is a plain number of the calling thread.
unsafe impl GlobalAlloc for Weighing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        weigh(chunk(layout.size()));
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        weigh(chunk(new_size) - chunk(layout.size()));
        unsafe { System.realloc(block, layout, new_size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        weigh(-chunk(layout.size()));
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Weighing = Weighing;

/// A contact of some 60 bytes, a Call-ID of some 40.
fn register(number: u32) -> String {
    let phone = format!("10.{}.{}.{}:5060", number >> 16 & 255, number >> 8 & 255, number & 255);
    let contact = format!("sip:user{number:07}@{phone};transport=udp;ob=a1b2c3d4");
    let call_id = format!("{number:08x}-7c9e-4b1d-9f3a-2d5e8a90@10.0.0.1");
    assert!((55..=65).contains(&contact.len()), "{}", contact.len());
    assert!((36..=44).contains(&call_id.len()), "{}", call_id.len());
    format!(
        "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP {phone};branch=z9hG4bK{number};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:user{number:07}@example.com>;tag=1\r\n\
         To: <sip:user{number:07}@example.com>\r\nCall-ID: {call_id}\r\nCSeq: 1 REGISTER\r\n\
         Contact: <{contact}>;expires=3600\r\nContent-Length: 0\r\n\r\n"
    )
}

#[test]
fn a_binding_costs_400_bytes_at_most() {
    let address: SocketAddr = "10.0.0.1:5060".parse().unwrap();
    let settings = Settings {
        domains: vec![b"example.com".to_vec()],
        listeners: vec![Listener { transport: Transport::Udp, address, advertise: address.to_string().into_bytes() }],
        ..Settings::default()
    };
    let key = Key::new(17, 18);
    // Before the table itself: an empty one counts too.
    let before = HELD.get();
    let table = Location::new(key, usize::MAX).with_journal(Durability::Batched);
    let table = Arc::new(table);
    let empty = HELD.get() - before;
    let mut endpoint = Endpoint::new(Arc::new(settings), table.clone(), Arc::default(), 0, key);
    let mut outbox = Outbox::default();
    let now = Instant::from_ms(1000);
    let mut most = 0;
    let (mut number, mut others) = (0, 0);
    for step in 1..=24 {
        let before = HELD.get();
        let end = step * 10_000;
        while number < end {
            // Messages come and go; only what stays is weighed.
            let message = register(number);
            let from = Flow::datagram(0, ([10, 1, 2, 3], 5060).into());
            outbox.clear();
            endpoint.handle(now, from, message.as_bytes(), &mut outbox);
            assert!(outbox.get(outbox.transmits[0].span).starts_with(b"SIP/2.0 200 "));
            number += 1;
        }
        let mut taken = Taken::default();
        let mut round = table.begin_round(false);
        while let Some(shard) = round.next_shard() {
            table.take_changed(shard, false, &mut taken);
        }
        assert_eq!(taken.len(), 10_000);
        drop(taken);
        table.finish_round(round.number);
        others += HELD.get() - before;
        let each = (empty + others) / i64::from(end);
        println!("{end:>7} bindings: {each} bytes each");
        assert_eq!(table.bindings(), end as usize);
        // The table alone weighs on the first ones.
        if end >= 100_000 {
            most = most.max(each);
        }
    }
    println!("one binding: {most} bytes at most, of which {} are its record and binding", {
        size_of::<location::Record>() + size_of::<location::Binding>()
    });
    assert!(most <= 400, "{most}");
}
