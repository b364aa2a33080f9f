//! What the server keeps on disk, on threads of its own: the users, read and watched; and the bindings, written and read back. No
//! worker ever waits for it.
//!
//! [`users::Source`] is where the users come from, a [`subscriber`] table or a [`text`] file; the [`user_watcher::UserWatcher`]
//! rereads it when it has changed and hands on the whole set. The [`journal::Journal`] writes changes of the location service into
//! the table of [`bindings`], round by round, and notices when the [`clock`] was set. Both may use the same file: [`shared_file`].
//! Two servers may not: [`database_lock`].

mod binding_rows;
pub mod bindings;
pub mod clock;
pub mod database_lock;
pub mod error;
pub mod journal;
pub mod loaded;
pub mod restore;
pub mod round_log;
mod shared_file;
pub mod stored;
pub mod subscriber;
pub mod text;
pub mod user_watcher;
pub mod users;

pub use journal::Journal;
pub use shared_file::SharedDatabaseFile;
pub use user_watcher::UserWatcher;
pub use users::Source;
