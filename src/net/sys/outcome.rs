//! What a system call returned, as a result.

use std::io;

/// Returns an error, the thread's last one, unless the result is 0.
pub fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
