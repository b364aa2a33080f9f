//! The rules against the RFCs: an [`Endpoint`](strowger::stack::Endpoint) driven by messages as bytes and a clock of numbers.
//! Each test is named by what must be true.

mod bench;
mod failover;
mod message;
mod proxy;
