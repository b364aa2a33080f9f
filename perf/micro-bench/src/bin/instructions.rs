//! One fixed run of calls or of registrations through the endpoint, for `perf/instructions`: no clock, no socket, one seed.
//!
//! `instructions calls|recorded|registrations COUNT`. Everything before the part to be counted is done outside of
//! [`strowger_micro::traffic::Server::measured_turn`]'s counted name: see [`counted_turn`].

use strowger_micro::traffic::{Agents, Batch, Calls, Server, register_all};

const USERS: u32 = 1000;
const CALLS_PER_MS: u32 = 4;
const LINGER_MS: u64 = 100;
const SEED: u64 = 1;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let count = arguments.next().and_then(|count| count.parse().ok());
    match (what.as_str(), count) {
        ("calls", Some(count)) => calls(count, false),
        ("recorded", Some(count)) => calls(count, true),
        ("registrations", Some(count)) => registrations(count),
        _ => {
            eprintln!("usage: instructions calls|recorded|registrations COUNT");
            std::process::exit(2);
        }
    }
}

/// The one function in which instructions are counted: the turn, and nothing of what feeds it.
#[inline(never)]
fn counted_turn(server: &mut Server, batch: &Batch) {
    server.measured_turn(batch);
}

/// `count` calls in the steady state: as many transactions end as begin. `recorded`: each leaves a record.
fn calls(count: u64, recorded: bool) {
    let mut server = Server::new(LINGER_MS, 1 << 14);
    if recorded {
        server.record_calls();
    }
    let mut agents = Agents::new(USERS);
    register_all(&mut server, &mut agents, 0);
    let mut calls = Calls::new(agents, CALLS_PER_MS, SEED);
    // The longest linger is J's and L's; after twice that, all is steady.
    for _ in 0..2 * LINGER_MS {
        calls.turn(&mut server, |server, batch| server.measured_turn(batch));
    }
    let (before, begun) = (calls.agents.seen, calls.begun);
    while calls.begun - begun < count {
        calls.turn(&mut server, counted_turn);
    }
    let seen = calls.agents.seen;
    let ended = seen.ended - before.ended;
    assert_eq!(ended, count, "not the steady state");
    assert_eq!(seen.wrong, 0);
    println!("calls {ended} messages {}", ended * 6);
}

fn registrations(count: u64) {
    let mut server = Server::new(LINGER_MS, 1 << 14);
    let mut agents = Agents::new(USERS);
    register_all(&mut server, &mut agents, 0);
    register_all(&mut server, &mut agents, 1);
    let before = agents.seen.registered;
    let (mut batch, mut none) = (Batch::default(), Batch::default());
    let (mut done, mut round) = (0, 2);
    while done < count {
        for user in 0..agents.users {
            if done == count {
                break;
            }
            batch.clear();
            agents.register(user, round, &mut batch);
            server.sleep_ms(1);
            counted_turn(&mut server, &batch);
            agents.react(&server.outbox, &mut none);
            server.outbox.clear();
            done += 1;
        }
        round += 1;
    }
    assert_eq!(agents.seen.registered - before, count);
    assert_eq!(agents.seen.wrong, 0);
    println!("registrations {count} messages {count}");
}
