//! No core dumps: keys and passwords in memory must not end up in a file, or in a program that collects crashes.

use super::outcome::check;
use std::io;

/// From now on this process leaves no core, neither as a file nor to a program of `kernel.core_pattern`, and no other process of
/// its user can read its memory (ptrace); root still can. Meanwhile its files in `/proc` belong to root. To be repeated after
/// switching to another user, because that resets the second half to what `fs.suid_dumpable` says.
pub fn forbid() -> io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a whole structure that outlives the call, which only reads it.
    check(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) })?;
    let no: libc::c_ulong = 0;
    // SAFETY: a call with numbers only.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, no, no, no, no) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_afterwards() {
        forbid().unwrap();
        let mut limit = libc::rlimit { rlim_cur: 7, rlim_max: 7 };
        // SAFETY: the pointer is to a whole structure that outlives the call, which writes it.
        check(unsafe { libc::getrlimit(libc::RLIMIT_CORE, &mut limit) }).unwrap();
        assert_eq!((limit.rlim_cur, limit.rlim_max), (0, 0));
        // SAFETY: a call with numbers only.
        let is_dumpable = unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) };
        assert_eq!(is_dumpable, 0);
        // Our own files in /proc are still ours to read.
        assert!(std::fs::read_to_string("/proc/self/maps").is_ok());
        assert!(std::fs::read_dir("/proc/self/fd").unwrap().count() > 0);
    }
}
