//! Why Redis cannot be spoken to.

use std::fmt;

/// What is wrong with Redis or the way to it. It may pass: whoever meets it tries again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// The connection is of no use any more, or was never made.
    Lost(String),
    /// Redis answers, and refuses.
    Refused(String),
    /// Another server that lives has our name.
    NameTaken(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Lost(why) | Trouble::NameTaken(why) => f.write_str(why),
            Trouble::Refused(why) => write!(f, "it answers {why:?}"),
        }
    }
}
