//! The conf: plain checked data (`model`), the reader that makes it from TOML (`load`), and what it asks of the machine.
//!
//! Nobody checks again after [`load`]: a [`Conf`] that exists is one that can be served.

pub mod key;
pub mod load;
pub mod machine;
pub mod model;
mod units;

pub use load::{Faults, load};
pub use machine::Machine;
pub use model::Conf;
