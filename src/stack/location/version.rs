//! Which of two versions of a shared binding is the newer one: the same rule on every node and in the store.
//!
//! The rule is not transitive if a binding's Call-ID changes. So the store, which has one place for each address, is the arbiter: what
//! it has accepted, in the order in which it did, is the truth.

/// What distinguishes one state of a shared binding from another, besides its Call-ID and its node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Version {
    /// When the node made it, by its own clock: milliseconds since 1970. Later than that of the version that it replaced there.
    pub time_ms: u64,
    /// How often the phone began again with a lower CSeq after its binding with this Call-ID had expired or was forgotten.
    pub series: u32,
    pub cseq: u32,
}

/// A version with all that decides whether it wins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim<'a> {
    pub version: Version,
    pub call_id: &'a [u8],
    /// The name of the node that made it.
    pub node: &'a [u8],
}

impl Claim<'_> {
    /// Returns whether this version replaces `old`. Of two different ones, exactly one replaces the other.
    pub fn wins_over(&self, old: &Claim) -> bool {
        let order = |claim: &Claim| (claim.version.series, claim.version.cseq);
        if self.call_id == old.call_id && order(self) != order(old) {
            return order(self) > order(old);
        }
        let rank = |of: &Claim| of.version.time_ms;
        (rank(self), self.node, self.call_id) > (rank(old), old.node, old.call_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(time_ms: u64, cseq: u32, call_id: &'static str, node: &'static str) -> Claim<'static> {
        Claim { version: Version { time_ms, series: 0, cseq }, call_id: call_id.as_bytes(), node: node.as_bytes() }
    }

    #[test]
    fn with_one_call_id_cseq_decides_and_otherwise_time() {
        assert!(claim(1, 8, "a", "n").wins_over(&claim(9, 7, "a", "n")), "whatever the clocks say");
        assert!(claim(2, 1, "b", "n").wins_over(&claim(1, 7, "a", "n")));
        assert!(claim(2, 7, "a", "n").wins_over(&claim(1, 7, "a", "n")));
        assert!(claim(1, 7, "a", "o").wins_over(&claim(1, 7, "a", "n")));
        let again = claim(9, 1, "a", "n");
        let again = Claim { version: Version { series: 1, ..again.version }, ..again };
        assert!(again.wins_over(&claim(1, 7, "a", "n")), "the phone began again");
    }

    #[test]
    fn of_two_exactly_one_wins() {
        let mut all = Vec::new();
        for time in [1, 2] {
            for cseq in [1, 2] {
                for call_id in ["a", "b"] {
                    all.extend(["m", "n"].map(|node| claim(time, cseq, call_id, node)));
                    let mut again = claim(time, cseq, call_id, "m");
                    again.version.series = 1;
                    all.push(again);
                }
            }
        }
        for one in &all {
            assert!(!one.wins_over(one));
            for other in all.iter().filter(|other| *other != one) {
                assert_ne!(one.wins_over(other), other.wins_over(one), "{one:?} {other:?}");
            }
        }
    }
}
