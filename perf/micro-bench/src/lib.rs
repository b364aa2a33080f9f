//! What the measuring programs share: the server in memory, and the agents that call and register through it.

pub mod traffic;
