//! What the measuring programs share: the server in memory, the agents that call and register through it, and how time and memory are
//! taken.

pub mod measure;
pub mod traffic;
