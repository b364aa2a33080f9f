//! The commands: each does one thing and ends. Of a running server they know the control socket, and nothing else.

mod check;
mod location;
mod operate;
mod output;
mod places;
mod prompt;
mod screen;
mod targets;
mod top;
mod trace;
mod users;

pub use check::check;
pub use location::{Ul, ul};
pub use operate::{connections, drain, health, log_level, reload, restart, stats, trunks};
pub use output::Outcome;
pub use places::Places;
pub use targets::targets;
pub use top::top;
pub use trace::{Trace, trace};
pub use users::{User, user};
