//! What stands before each message of a floor with connections: its length and its call. A relay then knows where a message ends and whose
//! it is without reading SIP.

use memchr::memmem;

use crate::identity::{self, Identity};

/// Bytes of a mark.
pub const LENGTH: usize = 12;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Bytes of the message without its mark.
    pub length: usize,
    pub call: Identity,
}

impl Mark {
    /// The mark of this message; a message of no call has one that no call has.
    pub fn of(message: &[u8]) -> Mark {
        let call_id = memmem::find(message, b"\r\nCall-ID: ").and_then(|at| message.get(at + b"\r\nCall-ID: ".len()..));
        let call = call_id.and_then(identity::of_any_run).unwrap_or(Identity { slot: u32::MAX, generation: 0 });
        Mark { length: message.len(), call }
    }

    pub fn bytes(self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..4].copy_from_slice(&(self.length as u32).to_le_bytes());
        bytes[4..8].copy_from_slice(&self.call.slot.to_le_bytes());
        bytes[8..].copy_from_slice(&self.call.generation.to_le_bytes());
        bytes
    }

    /// The mark at the front, where it is whole.
    pub fn read(bytes: &[u8]) -> Option<Mark> {
        let word = |at| bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_le_bytes);
        Some(Mark { length: word(0)? as usize, call: Identity { slot: word(4)?, generation: word(8)? } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYE: &[u8] = b"BYE sip:a SIP/2.0\r\nCall-ID: 000000070012abcdffffffff@load\r\n\r\n";

    #[test]
    fn a_mark_names_the_call_of_its_message() {
        let mark = Mark::of(BYE);
        assert_eq!(mark, Mark { length: BYE.len(), call: Identity { slot: 0x0012_abcd, generation: u32::MAX } });
        assert_eq!(Mark::read(&mark.bytes()), Some(mark));
        for other in [&b"x"[..], b"\r\nCall-ID: u00001-00000007@load\r\n", b"\r\nCall-ID: "] {
            assert_eq!(Mark::of(other).call.slot, u32::MAX);
        }
    }
}
