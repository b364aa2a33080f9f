//! The commands: each does one thing and ends. Of a running server they know the control socket, and nothing else.

mod screen;
pub mod top;
pub mod users;
