//! strowger: a SIP proxy, registrar and redirect server.
//!
//! One `mio` poll loop for each pinned core. Each loop owns its sockets, its transactions and its timers; nothing in a
//! loop ever blocks.
//!
//! ```text
//!  ┌──────────────────────────────── worker (pinned) ────────────────────────────────┐
//!  │   net/  the wires            stack/  the rules                 sip/  the words  │
//!  │   sockets · batches          transactions · proxy · registrar  parse · edit     │
//!  │                                                                                 │
//!  │   recvmmsg ─┐            ┌─▶ transactions ─▶ proxy │ registrar ─┐               │
//!  │   mailbox ──┴─▶ bytes+flow       ▲  │                           │               │
//!  │   sendmmsg ◀── mail to peers ◀───┴──┴──────── Outbox ◀──────────┘               │
//!  └─────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Imports run one way: `base ← settings, sip ← stack ← worker ← server`; `net` takes only `base`, `settings` and the two readers of raw
//! bytes in `sip`. `stack` and `net` never see each other. `store` takes those two and what `stack` says of users and bindings, `resolver`
//! takes those two; `share` takes what `stack` says of bindings; no worker waits for them. `trace` takes those two and `sip`; `worker` and `control` take it. `config` stands above all that
//! it sets up, and none of them knows it. `base`, `settings`, `sip` and `stack` are pure: no clock, no socket, no thread.
//! Within `stack` an `Endpoint` routes; behind it `Proxy` and `Registrar` work with a `Turn`, which has all that one message may touch: the
//! `Transactions` and the `Core`. Calls go down only.
//! The binary (`src/main.rs`) has two rooms of its own: `cli`, the commands, and `server`, which makes a running server of all this.
//! The modules below stand in the order of dependency.

#![deny(unsafe_code)]

pub mod base;
pub mod config;
pub mod control;
pub mod net;
pub mod resolver;
pub mod settings;
pub mod share;
pub mod sip;
pub mod stack;
pub mod store;
pub mod trace;
pub mod worker;
