//! The rules against the RFCs: an [`Endpoint`](strowger::stack::Endpoint) driven by messages as bytes and a clock of numbers.
//! Each test is named by what must be true.

mod addresses;
mod bench;
mod cancel;
mod cores;
mod dialog;
mod failover;
mod forking;
mod hostile;
mod message;
mod proxy;
mod redirect;
mod registrar;
mod stateless;
mod timers;
mod torture;
