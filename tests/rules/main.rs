//! The rules against the RFCs: an [`Endpoint`](strowger::stack::Endpoint) driven by messages as bytes and a clock of numbers.
//! Each test is named by what must be true.

mod addresses;
mod auth;
mod bench;
mod bindings;
mod bounds;
mod cancel;
mod certificates;
mod cores;
mod dialog;
mod drain;
mod durability;
mod failover;
mod flows;
mod forking;
mod guard;
mod hop;
mod hostile;
mod identity;
mod matching;
mod message;
mod names;
mod overload;
mod per_call;
mod proxy;
mod redirect;
mod reflection;
mod registrar;
mod sips;
mod size;
mod stateless;
mod streams;
mod timers;
mod tokens;
mod torture;
mod unproved;
