//! A restart that nobody notices: a new process, the *successor*, takes over from this one, which goes on as its *predecessor* with the
//! requests and connections that it has, until they end.
//!
//! ```text
//!   predecessor (serves)                          successor
//!   spawn ─────────────────────────────────────▶  reads its conf
//!   Offer, Sockets ────────────────────────────▶  keys, certificates
//!                  ◀──────────────────────── Take
//!   Nodes, Table…, TableEnd ───────────────────▶  users, listeners of its own
//!                  ◀──────────────────── Prepared
//!   workers stop reading; what waits is stored
//!   Table (what has changed), Links, Legacy, Final ────────▶  workers start: it serves
//!                  ◀───────────────────── Serving
//!   closes the database, leaves the shared table, Left ───▶  opens and joins them
//!   Numbers, each second ──────────────────────▶
//! ```
//!
//! Whatever fails before "Serving" leaves this process serving: [`attempt`]. What comes after it is in [`ending`] for the predecessor
//! and in [`following`] for the successor.

pub mod attempt;
pub mod child;
pub mod ending;
pub mod following;
pub mod succession;
pub mod successor;
pub mod wire;
pub mod words;
