//! Black-box tests: the built server on loopback, driven by SIPp, sipsak, baresip and hand-made datagrams, and judged by what is seen on the wire.

mod agent;
mod line;
mod message;
mod name_server;
mod openssl_tool;
mod pki;
mod place;
mod process;
mod server;
mod sipp;
mod stream_tap;
mod tap;

mod auth;
mod baresip;
mod boundaries;
mod bounds;
mod calls;
mod commands;
mod desk;
mod dialogs;
mod durability;
mod failures;
mod forking;
mod hop;
mod hostile;
mod identity;
mod kamailio;
mod limits;
mod losses;
mod modes;
mod names;
mod registrations;
mod secrets;
mod service;
mod sipsak;
mod streams;
mod study;
mod tls_client;
mod tls_reload;
mod tls_server;
mod trust;
mod users;
mod wires;

pub const UAC: &str = include_str!("scenarios/uac.xml");
pub const UAS: &str = include_str!("scenarios/uas.xml");
