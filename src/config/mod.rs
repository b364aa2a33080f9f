//! The conf: plain checked data (`model`), the reader that makes it from TOML (`load`), what a new one changes in a running server
//! (`reload`), the parameters of the modules below (`compile`), what it refers to outside itself (`external`), and what it depends
//! on in the machine.
//!
//! Nothing is checked again after [`load`]: a [`Conf`] that exists can be served.

mod compile;
mod external;
pub mod key;
pub mod load;
mod machine;
mod model;
mod records;
mod reload;
mod units;

pub use load::{Faults, load};
pub use machine::Machine;
pub use model::Conf;
pub use records::refuse_fifo;
pub use reload::Plan;
