//! No core dumps: what a process holds of keys and passwords must not end in a file, or with a program that collects crashes.

use super::outcome::check;
use std::io;

/// From now on this process leaves no core, neither as a file nor to a program of `kernel.core_pattern`, and no other process of its user
/// can look into its memory (ptrace); root still can. Its files in `/proc` belong to root meanwhile. To be repeated when the process has
/// become another user, for that sets the second half back to what `fs.suid_dumpable` says.
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
