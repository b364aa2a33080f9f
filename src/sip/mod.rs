//! The elements of SIP: RFC 3261 §7, §18.3, §19, §20 and §25, read in place and changed by edits.
//!
//! Nothing here owns a message. One pass builds an index of the header lines ([`Message::parse`]); everything else is read on
//! demand from the received bytes, and a message is sent as those bytes with a few edits ([`Rewrite`]). All types are slices and
//! offsets into the caller's buffers; in steady state nothing allocates.

mod auth;
mod cursor;
mod dialled;
mod equality;
mod error;
mod frame;
mod header;
mod index;
mod kept;
mod lines;
mod memo;
mod message;
mod method;
mod name_addr;
mod params;
mod plain;
pub mod reply;
mod rewrite;
pub mod sniff;
mod start_line;
pub(crate) mod status;
#[cfg(test)]
mod torture;
mod uri;
mod user;
mod values;
mod via;

pub use auth::{Challenge, Credentials};
pub use dialled::Dialling;
pub use error::Fault;
pub use frame::{Frame, Framer};
pub use header::{Header, Name};
pub use index::{Index, MAX_HEADER_LINES};
pub use kept::KeptUri;
pub use message::{CSeq, Message};
pub use method::Method;
pub use name_addr::NameAddr;
pub use params::Params;
pub use rewrite::Rewrite;
pub use uri::{Host, Scheme, Uri};
pub use user::{is_separator, same_name, unescaped, without_dot, write_escaped};
pub use values::{Value, listed};
pub use via::{Feedback, Via, fill_feedback, fill_received};
