//! What the server keeps on disk, read and watched by a thread of its own: who the users are. No worker ever waits for it.
//!
//! [`users::Source`] is where the users stand, a [`subscriber`] table or a [`text`] file; the [`keeper::Keeper`] reads it anew when it
//! has changed and hands the whole to whoever serves.

pub mod keeper;
pub mod subscriber;
pub mod text;
pub mod users;

pub use keeper::Keeper;
pub use users::Source;
