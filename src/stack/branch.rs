//! Our Via branch (RFC 3261 §8.1.1.7, §16.6 step 8; RFC 5393 §4.2): it names core, slot and generation of the client transaction,
//! and carries the loop hash and the passage of the request that it was written for.
//!
//! Its keyed check covers only these: it proves that this server wrote this branch, so the index can be trusted. It does not prove
//! that a request that shows the branch has been here: everyone that one of our requests has reached, and everyone whose request
//! one of ours has answered, holds such a branch. Only the [`Mark`] in it, compared with the one that the current request would
//! get, proves that.
//!
//! Slot and generation are written masked by a number of this run: read by another server with the same secret, or after a
//! restart, they name no transaction there, except by a chance of one in 2^64 for each that is open.

use crate::base::hash::{read_hex, write_hex, write_hex_digits};
use crate::base::{Id, Key};

/// The prefix of every branch of an RFC 3261 element.
pub const MAGIC_COOKIE: &[u8] = b"z9hG4bK";

const STATEFUL: u8 = b's';
const STATELESS: u8 = b't';
/// Digits of the loop hash: it is compared only with Vias of ours, so a stranger can't try many.
const LOOP: usize = 8;
/// Digits of the passage and of the check: every guess needs a request to us.
const PASSAGE: usize = 12;
const CHECK: usize = 12;
/// Cookie and kind, core, slot, generation, loop hash, passage, check.
const STATEFUL_LEN: usize = 8 + 2 + 8 + 8 + LOOP + PASSAGE + CHECK;
/// Cookie and kind, seed, loop hash, passage, check.
const STATELESS_LEN: usize = 8 + 16 + LOOP + PASSAGE + CHECK;

/// No branch of ours is shorter.
pub const SHORTEST: usize = STATELESS_LEN;

/// What a branch says about the request that it was written for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mark {
    /// Covers everything that decided where the request went (RFC 5393 §4.2.1): the same hash again is a loop.
    pub loop_hash: u32,
    /// Covers who requested what from whom: see [`crate::stack::passage`]. 48 bits.
    pub passage: u64,
}

/// A branch that this server (any of its cores) made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Branch {
    Stateful { core: u8, id: Id, mark: Mark },
    Stateless { mark: Mark },
}

impl Branch {
    pub fn mark(self) -> Mark {
        match self {
            Branch::Stateful { mark, .. } | Branch::Stateless { mark } => mark,
        }
    }
}

/// Writes branches and recognises them.
#[derive(Clone, Copy, Debug)]
pub struct Signer {
    key: Key,
    /// Hides the places of transactions from every other run.
    mask: u64,
}

impl Signer {
    pub fn new(secret: Key) -> Signer {
        Signer { key: secret.derive("via branch"), mask: 0 }
    }

    /// Sets the run, which differs from that of every other server and every earlier run except by chance.
    pub fn begin(&mut self, run: u32) {
        self.mask = self.key.derive("place of a transaction").hash_numbers(run.into(), 0, 0);
    }

    pub fn write_stateful(&self, core: u8, id: Id, mark: Mark, out: &mut Vec<u8>) {
        out.extend_from_slice(MAGIC_COOKIE);
        out.push(STATEFUL);
        write_hex_digits(u64::from(core), 2, out);
        let place = place(id) ^ self.mask;
        write_hex(place, out);
        self.finish(u64::from(core), place, mark, out);
    }

    /// Writes a stateless branch. `seed` must be the same for a retransmission (§16.11): a hash of the received branch.
    pub fn write_stateless(&self, seed: u64, mark: Mark, out: &mut Vec<u8>) {
        out.extend_from_slice(MAGIC_COOKIE);
        out.push(STATELESS);
        write_hex(seed, out);
        self.finish(NO_CORE, seed, mark, out);
    }

    fn finish(&self, core: u64, place: u64, mark: Mark, out: &mut Vec<u8>) {
        write_hex_digits(u64::from(mark.loop_hash), LOOP, out);
        write_hex_digits(mark.passage, PASSAGE, out);
        write_hex_digits(self.check(core, place, mark), CHECK, out);
    }

    /// Parses a branch; `None` for every branch that this server did not write.
    pub fn read(&self, branch: &[u8]) -> Option<Branch> {
        let rest = branch.strip_prefix(MAGIC_COOKIE)?;
        let (kind, digits) = rest.split_first()?;
        let number = |from: usize, len: usize| read_hex(digits.get(from..from + len)?);
        let (core, at) = match (*kind, branch.len()) {
            (STATEFUL, STATEFUL_LEN) => (number(0, 2)?, 2),
            (STATELESS, STATELESS_LEN) => (NO_CORE, 0),
            _ => return None,
        };
        let place = number(at, 16)?;
        let mark = Mark { loop_hash: number(at + 16, LOOP)? as u32, passage: number(at + 16 + LOOP, PASSAGE)? };
        let shown = number(at + 16 + LOOP + PASSAGE, CHECK)?;
        if shown != self.check(core, place, mark) {
            return None;
        }
        Some(match core {
            NO_CORE => Branch::Stateless { mark },
            core => {
                let place = place ^ self.mask;
                let id = Id { slot: (place >> 32) as u32, generation: place as u32 };
                Branch::Stateful { core: core as u8, id, mark }
            }
        })
    }

    fn check(&self, core: u64, place: u64, mark: Mark) -> u64 {
        // 16 bits of the core, 48 of the passage.
        let head = core << 48 | mark.passage;
        let check = self.key.hash_numbers(head, place, u64::from(mark.loop_hash));
        check & ((1 << (4 * CHECK)) - 1)
    }
}

/// The core in a branch without one.
const NO_CORE: u64 = 0xffff;

fn place(id: Id) -> u64 {
    u64::from(id.slot) << 32 | u64::from(id.generation)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = Mark { loop_hash: 42, passage: 0xfeed_beef_cafe };

    #[test]
    fn what_we_made_we_know_and_nothing_else() {
        let signer = Signer::new(Key::new(1, 2));
        let id = Id { slot: 77, generation: 3 };
        let mut branch = Vec::new();
        signer.write_stateful(1, id, MARK, &mut branch);
        assert_eq!(branch.len(), STATEFUL_LEN);
        let made = Branch::Stateful { core: 1, id, mark: MARK };
        assert_eq!(signer.read(&branch), Some(made));
        assert_eq!(Signer::new(Key::new(1, 3)).read(&branch), None);
        // Every single forged byte is detected.
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
    fn the_mark_of_one_branch_is_not_valid_in_another() {
        let signer = Signer::new(Key::new(1, 2));
        let made = |slot: u32, mark: Mark| {
            let id = Id { slot, generation: 1 };
            let mut branch = Vec::new();
            signer.write_stateful(0, id, mark, &mut branch);
            branch
        };
        let (one, other) = (made(1, MARK), made(2, Mark::default()));
        let spliced = [&one[..26], &other[26..]].concat();
        assert_eq!(signer.read(&spliced), None);
        let at = 26 + LOOP + PASSAGE;
        let spliced = [&one[..26], &other[26..at], &one[at..]].concat();
        assert_eq!(signer.read(&spliced), None);
    }

    #[test]
    fn another_run_knows_a_branch_but_finds_no_transaction_by_it() {
        let run = |run: u32| {
            let mut signer = Signer::new(Key::new(1, 2));
            signer.begin(run);
            signer
        };
        let (one, other) = (run(7), run(8));
        let mut found = 0;
        for slot in 0..1000 {
            let id = Id { slot, generation: 1 };
            let mut branch = Vec::new();
            one.write_stateful(1, id, MARK, &mut branch);
            assert_eq!(one.read(&branch), Some(Branch::Stateful { core: 1, id, mark: MARK }));
            assert_eq!(run(7).read(&branch), one.read(&branch));
            let Some(Branch::Stateful { id, mark, .. }) = other.read(&branch) else { panic!("{slot}") };
            assert_eq!(mark, MARK);
            found += u32::from(id.slot < 1000 || id.generation == 1);
        }
        assert_eq!(found, 0);
    }

    #[test]
    fn stateless_branches_repeat() {
        let signer = Signer::new(Key::new(1, 2));
        let (mut a, mut b) = (Vec::new(), Vec::new());
        signer.write_stateless(5, MARK, &mut a);
        signer.write_stateless(5, MARK, &mut b);
        assert_eq!(a, b);
        assert_eq!(a.len(), STATELESS_LEN);
        assert_eq!(signer.read(&a), Some(Branch::Stateless { mark: MARK }));
        // A stateless branch must not pass for a stateful one or the other way round.
        a[7] = STATEFUL;
        assert_eq!(signer.read(&a), None);
    }
}
