//! The generator against its relays, its own answerers, servers of the tests' own, and OpenSSL's client and server. Each test has an address of
//! its own, so that none meets another.

mod digest;
mod goodput;
mod handshake;
mod ipv6;
mod loopback;
mod programs;
mod relay_streams;
mod roles;
mod server;
mod streams;
