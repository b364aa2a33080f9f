//! The input to a change of bindings: the REGISTER, and what else must be known.

use super::seating::Seating;
use crate::base::{Flow, Instant, ShareHolder};
use crate::settings;
use crate::stack::location::Print;
use crate::stack::peer_flows::PeerFlows;

/// What a REGISTER says about all of its contacts.
pub(super) struct Registering<'a> {
    pub now: Instant,
    pub call_id: &'a [u8],
    pub cseq: u32,
    pub path: &'a [u8],
    pub source: Flow,
    /// It came from the phone itself, through no proxy.
    pub direct: bool,
    /// Whether the phone receives what is sent to `source` is unknown, though it was challenged.
    pub is_unsure: bool,
    pub print: Print,
    /// Bytes of Contact lines that its answer has room for.
    pub room: usize,
}

/// What must be known besides the REGISTER.
pub(super) struct Terms<'a> {
    pub limits: &'a settings::Registrar,
    pub peer_flows: &'a PeerFlows,
    pub seating: &'a mut Seating,
    /// How much more may be bound.
    pub room: usize,
    /// Whose share is charged, and whether that is used up.
    pub holder: ShareHolder,
    pub is_share_full: bool,
    /// Other servers have the table as well, and may know of bindings that we do not know yet.
    pub is_shared: bool,
}
