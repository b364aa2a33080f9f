//! Ways to phones through other servers that are gone, as those servers have said (430, RFC 5626): nothing is sent there again.

use std::collections::BTreeSet;

/// Ways that are remembered; beyond that, each costs its next caller a question again.
const MOST: usize = 4096;

/// A way is a binding's route to its server, which names the flow there, and the CSeq of the REGISTER that came by it: a newer version of
/// the binding is another way.
#[derive(Default)]
pub struct LostWays(BTreeSet<(Box<[u8]>, u32)>);

impl LostWays {
    pub fn add(&mut self, route: &[u8], cseq: u32) {
        if self.0.len() >= MOST {
            self.0.clear();
        }
        self.0.insert((route.into(), cseq));
    }

    pub fn contains(&self, route: &[u8], cseq: u32) -> bool {
        !self.0.is_empty() && self.0.contains(&(route.into(), cseq))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_register_is_another_way_and_there_are_never_too_many() {
        let mut ways = LostWays::default();
        ways.add(b"<sip:t@192.0.2.1;lr>", 7);
        assert!(ways.contains(b"<sip:t@192.0.2.1;lr>", 7));
        assert!(!ways.contains(b"<sip:t@192.0.2.1;lr>", 8) && !ways.contains(b"<sip:u@192.0.2.1;lr>", 7));
        (0..10_000).for_each(|cseq| ways.add(b"<sip:t@192.0.2.1;lr>", cseq));
        assert!(ways.0.len() <= MOST && ways.contains(b"<sip:t@192.0.2.1;lr>", 9_999));
    }
}
