//! What a system call returned, as a result.

use std::io;

/// 0 is success; for anything else the error is the thread's last one.
pub fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
