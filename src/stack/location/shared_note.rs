//! What a binding carries besides, if several servers share the location table.

use super::version::Version;
use crate::base::Instant;

/// A node by its number in this server's table of nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeNumber(pub(super) u16);

impl NodeNumber {
    /// This server.
    pub const OWN: NodeNumber = NodeNumber(0);
}

/// The version of a binding, and what the others know of it.
#[derive(Clone, Debug)]
pub(super) struct SharedNote {
    pub version: Version,
    /// The others keep the binding until then, if they are not told otherwise. What is removed is remembered until then. It never
    /// becomes earlier, so a removal outlives every copy of what it removes.
    pub lease: Instant,
    /// When the binding expires as far as the others were told.
    pub told_expires: Instant,
    /// When this node was last sent a refresh that the others need not be told, as a time of a version; 0 if it was not.
    pub refreshed_ms: u64,
    /// The store's place for the change that brought this version; 0 if it was not told as a change.
    pub position: u64,
    /// The token by which its node reaches the phone, if only that node can.
    pub relay: Box<[u8]>,
    /// What the phone was granted.
    pub lifetime_s: u32,
    /// The last full reading in which the store had something of this binding.
    pub seen: u32,
    /// The node that made the version: a phone's last REGISTER came there.
    pub node: NodeNumber,
    /// The store does not have it yet, as far as is known.
    pub is_untold: bool,
}

impl SharedNote {
    /// Returns the time of what this node knows of the binding.
    pub fn time_ms(&self) -> u64 {
        self.version.time_ms.max(self.refreshed_ms)
    }

    /// Returns when the binding of another node expires, as far as is known: as that node has told; if that is over and the binding is
    /// held nevertheless, it has been refreshed, and lasts for a lifetime at most.
    pub fn granted_until(&self, now: Instant) -> Instant {
        match self.told_expires > now {
            true => self.told_expires,
            false => now.after_ms(u64::from(self.lifetime_s) * 1000),
        }
    }

    /// Returns when the binding expires at the latest if its node is gone since `gone`: no REGISTER was answered there later.
    pub fn bound(&self, gone: Option<Instant>) -> Instant {
        match gone {
            None => self.lease,
            Some(gone) => self.lease.min(self.told_expires.max(gone.after_ms(u64::from(self.lifetime_s) * 1000))),
        }
    }
}
