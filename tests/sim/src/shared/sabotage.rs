//! Rules of a shared table broken on purpose, in the store and in what speaks to it, to see that the auditor notices.

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SharedSabotage {
    /// The store forgets at once what was removed.
    ForgetRemoved,
    /// The store compares versions by their time alone.
    TimeAlone,
    /// After trouble, the store is not read in full.
    SkipReading,
    /// After a full reading, nothing is told again.
    TellNothingAgain,
    /// The stream is followed from where it ends after a full reading, not before.
    FollowLate,
}

impl SharedSabotage {
    pub const ALL: &[SharedSabotage] = &[
        SharedSabotage::ForgetRemoved,
        SharedSabotage::TimeAlone,
        SharedSabotage::SkipReading,
        SharedSabotage::TellNothingAgain,
        SharedSabotage::FollowLate,
    ];
}
