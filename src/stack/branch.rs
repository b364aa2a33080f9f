//! Our Via branch (RFC 3261 §8.1.1.7, §16.6 step 8; RFC 5393 §4.2): it names core, slot and generation of the client
//! transaction, carries the loop hash, and a keyed check over all of it. The index is trusted only after the check.

use crate::base::hash::{read_hex, write_hex, write_hex_digits};
use crate::base::{Id, Key};

/// What every branch of an RFC 3261 element begins with.
pub const MAGIC_COOKIE: &[u8] = b"z9hG4bK";

const STATEFUL: u8 = b's';
const STATELESS: u8 = b't';
/// Cookie and kind, core, slot, generation, loop hash, check.
const STATEFUL_LEN: usize = 8 + 2 + 8 + 8 + 16 + 16;
/// Cookie and kind, seed, loop hash, check.
const STATELESS_LEN: usize = 8 + 16 + 16 + 16;

/// No branch of ours is shorter.
pub const SHORTEST: usize = STATELESS_LEN;

/// A branch that this server (any of its cores) made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Branch {
    Stateful { core: u8, id: Id, loop_hash: u64 },
    Stateless { loop_hash: u64 },
}

impl Branch {
    pub fn loop_hash(self) -> u64 {
        match self {
            Branch::Stateful { loop_hash, .. } | Branch::Stateless { loop_hash } => loop_hash,
        }
    }
}

/// Makes branches and recognises them.
#[derive(Clone, Copy, Debug)]
pub struct Signer {
    key: Key,
}

impl Signer {
    pub fn new(secret: Key) -> Signer {
        Signer {
            key: secret.derive("via branch"),
        }
    }

    pub fn write_stateful(&self, core: u8, id: Id, loop_hash: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(MAGIC_COOKIE);
        out.push(STATEFUL);
        write_hex_digits(u64::from(core), 2, out);
        write_hex_digits(u64::from(id.slot), 8, out);
        write_hex_digits(u64::from(id.generation), 8, out);
        write_hex(loop_hash, out);
        write_hex(self.check(place(core, id), loop_hash), out);
    }

    /// `seed` must be the same for a retransmission (§16.11): a hash of the branch that came.
    pub fn write_stateless(&self, seed: u64, loop_hash: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(MAGIC_COOKIE);
        out.push(STATELESS);
        write_hex(seed, out);
        write_hex(loop_hash, out);
        write_hex(self.check((u64::MAX, seed), loop_hash), out);
    }

    /// `None` for every branch that this server did not make.
    pub fn read(&self, branch: &[u8]) -> Option<Branch> {
        let rest = branch.strip_prefix(MAGIC_COOKIE)?;
        let (kind, digits) = rest.split_first()?;
        let number = |from: usize, len: usize| read_hex(digits.get(from..from + len)?);
        match (*kind, branch.len()) {
            (STATEFUL, STATEFUL_LEN) => {
                let core = number(0, 2)? as u8;
                let id = Id {
                    slot: number(2, 8)? as u32,
                    generation: number(10, 8)? as u32,
                };
                let loop_hash = number(18, 16)?;
                (number(34, 16)? == self.check(place(core, id), loop_hash)).then_some(
                    Branch::Stateful {
                        core,
                        id,
                        loop_hash,
                    },
                )
            }
            (STATELESS, STATELESS_LEN) => {
                let (seed, loop_hash) = (number(0, 16)?, number(16, 16)?);
                (number(32, 16)? == self.check((u64::MAX, seed), loop_hash))
                    .then_some(Branch::Stateless { loop_hash })
            }
            _ => None,
        }
    }

    fn check(&self, place: (u64, u64), loop_hash: u64) -> u64 {
        self.key.hash_numbers(place.0, place.1, loop_hash)
    }
}

fn place(core: u8, id: Id) -> (u64, u64) {
    (
        u64::from(core),
        u64::from(id.slot) << 32 | u64::from(id.generation),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_made_we_know_and_nothing_else() {
        let signer = Signer::new(Key::new(1, 2));
        let id = Id {
            slot: 77,
            generation: 3,
        };
        let mut branch = Vec::new();
        signer.write_stateful(1, id, 42, &mut branch);
        assert_eq!(branch.len(), STATEFUL_LEN);
        let made = Branch::Stateful {
            core: 1,
            id,
            loop_hash: 42,
        };
        assert_eq!(signer.read(&branch), Some(made));
        assert_eq!(Signer::new(Key::new(1, 3)).read(&branch), None);
        // Every single forged byte is noticed.
        for at in 0..branch.len() {
            for flip in [1u8, 2, 4, 0x20, 0x80] {
                let mut forged = branch.clone();
                forged[at] ^= flip;
                assert_eq!(signer.read(&forged), None, "byte {at}");
            }
        }
        branch.pop();
        assert_eq!(signer.read(&branch), None);
        assert_eq!(signer.read(b"z9hG4bK"), None);
        assert_eq!(signer.read(b""), None);
    }

    #[test]
    fn stateless_branches_repeat() {
        let signer = Signer::new(Key::new(1, 2));
        let (mut a, mut b) = (Vec::new(), Vec::new());
        signer.write_stateless(5, 6, &mut a);
        signer.write_stateless(5, 6, &mut b);
        assert_eq!(a, b);
        assert_eq!(signer.read(&a), Some(Branch::Stateless { loop_hash: 6 }));
        // A stateless branch must not pass for a stateful one or the other way round.
        a[7] = STATEFUL;
        assert_eq!(signer.read(&a), None);
    }
}
