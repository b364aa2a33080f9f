//! The location service: address-of-record → bindings (RFC 3261 §10). The one thing that the cores share.

use crate::base::{Flow, Instant};

/// Sharded; a lock is held for the time of one lookup or one change.
pub struct Location {}

/// One contact of an address-of-record, as somebody outside sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingView {
    pub uri: Vec<u8>,
    /// Thousandths, 0 to 1000.
    pub q: u16,
    pub expires: Instant,
    pub call_id: Vec<u8>,
    pub cseq: u32,
    /// The Path header values in order, as one comma list; empty without.
    pub path: Vec<u8>,
    /// `+sip.instance`, quotes kept; empty without.
    pub instance: Vec<u8>,
    pub reg_id: u32,
    /// Where the REGISTER came from.
    pub flow: Option<Flow>,
}
