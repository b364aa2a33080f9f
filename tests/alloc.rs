//! Steady state allocates nothing: calls and registrations go through the endpoint while an allocator counts.

#[path = "../perf/micro-bench/src/traffic.rs"]
#[allow(dead_code)]
mod traffic;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use traffic::{Agents, Batch, Calls, Server, register_all};

thread_local! {
    /// Allocations of this thread while it is watched; `None` while it is not.
    static COUNT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The system's allocator with a count.
struct Counting;

/// Counts one; a thread that is ending has no count any more.
fn count() {
    let _ = COUNT.try_with(|count| count.set(count.get().map(|count| count + 1)));
}

// SAFETY: every call goes to the system's allocator as it came; counting neither allocates nor touches the memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `work` and returns how often it allocated.
fn allocations(work: impl FnOnce()) -> u64 {
    COUNT.set(Some(0));
    work();
    COUNT.take().unwrap_or(0)
}

const USERS: u32 = 100;
const LINGER_MS: u64 = 200;

fn server() -> (Server, Agents) {
    let mut server = Server::new(LINGER_MS, 1 << 14);
    let mut agents = Agents::new(USERS);
    register_all(&mut server, &mut agents, 0);
    (server, agents)
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| ()), 0);
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1u8]))), 1);
    let mut grown = vec![0u8; 1];
    assert_eq!(allocations(|| grown.reserve_exact(4096)), 1);
}

#[test]
fn calls_allocate_nothing() {
    let (mut server, agents) = server();
    // The server has been busier before: what memory it takes, it has.
    let mut calls = Calls::new(agents, 6, 11);
    for _ in 0..4 * LINGER_MS {
        calls.turn(&mut server, |server, batch| server.measured_turn(batch));
    }
    calls.per_ms = 5;
    for _ in 0..2 * LINGER_MS {
        calls.turn(&mut server, |server, batch| server.measured_turn(batch));
    }
    let before = calls.agents.seen;
    let mut allocated = 0;
    for _ in 0..4 * LINGER_MS {
        calls.turn(&mut server, |server, batch| {
            allocated += allocations(|| server.measured_turn(batch));
        });
    }
    let seen = calls.agents.seen;
    assert_eq!(seen.wrong, 0);
    assert_eq!(seen.ended - before.ended, 5 * 4 * LINGER_MS);
    assert_eq!(allocated, 0, "in {} calls", seen.ended - before.ended);
}

#[test]
fn refreshed_registrations_allocate_nothing() {
    let (mut server, mut agents) = server();
    let (mut batch, mut none) = (Batch::default(), Batch::default());
    let mut allocated = 0;
    for round in 1..6 {
        batch.clear();
        for user in 0..USERS {
            agents.register(user, round, &mut batch);
        }
        server.sleep_ms(1000);
        let of_this_round = allocations(|| server.measured_turn(&batch));
        // The first one finds the outbox as large as single messages have made it.
        if round > 1 {
            allocated += of_this_round;
        }
        agents.react(&server.outbox, &mut none);
        server.outbox.clear();
    }
    assert_eq!(agents.seen.wrong, 0);
    assert_eq!(agents.seen.registered, u64::from(USERS) * 6);
    assert_eq!(allocated, 0);
}
