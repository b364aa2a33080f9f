//! The conf: plain checked data (`model`), the reader that makes it from TOML (`load`), what a new one changes in a running server
//! (`reload`), what the rooms below are set up from (`compile`), what it names outside itself (`external`), and what it asks of the machine.
//!
//! Nobody checks again after [`load`]: a [`Conf`] that exists is one that can be served.

mod compile;
mod external;
pub mod key;
pub mod load;
mod machine;
mod model;
mod reload;
mod units;

pub use load::{Faults, load};
pub use machine::Machine;
pub use model::Conf;
pub use reload::Plan;
