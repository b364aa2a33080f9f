//! The user that this process runs as: root switches to another user, which may bind low ports until it is sealed, and then has no
//! privileges beyond its own.

use super::outcome::check;
use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// A user and a group of this system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// As spelled in the system's database.
    user: CString,
    uid: libc::uid_t,
    gid: libc::gid_t,
}

/// The longest entry accepted from a user database, in bytes.
const ENTRY_LONGEST: usize = 1 << 20;

impl Identity {
    /// Finds the user of this name, with the group of that name or otherwise its own. The error is one line.
    pub fn find(user: &str, group: Option<&str>) -> Result<Identity, String> {
        let nameless = |what: &str, name: &str| format!("{what} {name:?} cannot exist");
        let name = CString::new(user).map_err(|_| nameless("a user", user))?;
        let failed = |what, error| format!("{what} cannot be looked up: {error}");
        let found = user_of(&name).map_err(|error| failed(format!("user {user:?}"), error))?;
        let (uid, own_group) = found.ok_or_else(|| format!("there is no user {user:?}"))?;
        let gid = match group {
            None => own_group,
            Some(group) => {
                let name = CString::new(group).map_err(|_| nameless("a group", group))?;
                group_of(&name)
                    .map_err(|error| failed(format!("group {group:?}"), error))?
                    .ok_or_else(|| format!("there is no group {group:?}"))?
            }
        };
        if uid == 0 {
            return Err(format!("user {user:?} is root, who can do everything"));
        }
        Ok(Identity { user: name, uid, gid })
    }

    /// Makes this process run as that user, with its group and supplementary groups. Of root's rights it keeps that of binding
    /// ports below 1024 until [`Identity::seal`]. No effect if the process already runs as that user. Existing threads switch too,
    /// and keep no right at all. A failure may leave a partial switch: the process must end.
    pub fn assume(&self) -> Result<(), String> {
        if self.is_ours() {
            return Ok(());
        }
        // SAFETY: a call without arguments that returns a number.
        if unsafe { libc::geteuid() } != 0 {
            return Err("only root can become another user".to_owned());
        }
        let failed = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
        // What is kept is narrowed below, immediately.
        // SAFETY: only numbers are passed.
        check(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) }).map_err(failed("keepcaps"))?;
        // Groups first: without root's rights they cannot be changed any more.
        // SAFETY: the name is a C string that outlives the call.
        check(unsafe { libc::initgroups(self.user.as_ptr(), self.gid) }).map_err(failed("initgroups"))?;
        // SAFETY: three numbers.
        check(unsafe { libc::setresgid(self.gid, self.gid, self.gid) }).map_err(failed("setresgid"))?;
        // SAFETY: three numbers.
        check(unsafe { libc::setresuid(self.uid, self.uid, self.uid) }).map_err(failed("setresuid"))?;
        keep_capabilities(NET_BIND_SERVICE).map_err(failed("capset"))?;
        // SAFETY: only numbers are passed.
        check(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 0, 0, 0, 0) }).map_err(failed("keepcaps"))
    }

    /// Gives up the last of root's rights once the sockets are bound. Fails unless the process is entirely this user and cannot
    /// switch back.
    pub fn seal(&self) -> Result<(), String> {
        let failed = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
        keep_capabilities(0).map_err(failed("capset"))?;
        gain_nothing().map_err(failed("no_new_privs"))?;
        if !self.is_ours() {
            return Err("not all of root's identity was given up".to_owned());
        }
        // SAFETY: only numbers are passed. If one of them succeeds, this fails and the process ends.
        let returns = unsafe { libc::setuid(0) == 0 || libc::setgid(0) == 0 };
        match returns {
            true => Err("root's rights can be had back".to_owned()),
            false => Ok(()),
        }
    }

    /// True if real, effective and saved user and group are these.
    fn is_ours(&self) -> bool {
        let (mut users, mut groups) = ([0; 3], [0; 3]);
        let ([user, effective_user, saved_user], [group, effective_group, saved_group]) = (&mut users, &mut groups);
        // SAFETY: the kernel writes one number to each of six distinct places of ours.
        let read = unsafe {
            libc::getresuid(user, effective_user, saved_user) == 0 && libc::getresgid(group, effective_group, saved_group) == 0
        };
        read && users == [self.uid; 3] && groups == [self.gid; 3]
    }
}

/// Returns the number of the group of this name. The error is one line.
pub fn group_number(group: &str) -> Result<u32, String> {
    let name = CString::new(group).map_err(|_| format!("a group {group:?} cannot exist"))?;
    let found = group_of(&name).map_err(|error| format!("group {group:?} cannot be looked up: {error}"))?;
    found.ok_or_else(|| format!("there is no group {group:?}"))
}

/// Ensures that no program started by the calling thread or its children can gain privileges that the thread does not have.
pub fn gain_nothing() -> io::Result<()> {
    // SAFETY: only numbers are passed.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })
}

/// The bit of CAP_NET_BIND_SERVICE.
const NET_BIND_SERVICE: u32 = 1 << 10;

/// Leaves the calling thread these of the first 32 capabilities, and none of the others (capset(2)).
fn keep_capabilities(kept: u32) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    #[repr(C)]
    struct Set {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let header = Header {
        version: 0x2008_0522, // _LINUX_CAPABILITY_VERSION_3, of two sets
        pid: 0,
    };
    let set = |kept| Set { effective: kept, permitted: kept, inheritable: 0 };
    let sets = [set(kept), set(0)];
    // SAFETY: the two structures are as the kernel declares them, and it only reads them.
    let done = unsafe { libc::syscall(libc::SYS_capset, ptr::from_ref(&header), sets.as_ptr()) };
    check(if done == 0 { 0 } else { -1 })
}

/// Returns the numbers of a user and of its group; `None` if there is no such user.
fn user_of(name: &CStr) -> io::Result<Option<(libc::uid_t, libc::gid_t)>> {
    look_up(|buffer| {
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut found = ptr::null_mut();
        // SAFETY: the name is a C string; the library writes an entry to the first place, its strings into `buffer`, whose length
        // is passed, and to `found` either null or the address of the entry. Only numbers are read from it.
        unsafe {
            let failed = libc::getpwnam_r(name.as_ptr(), entry.as_mut_ptr(), buffer.as_mut_ptr().cast(), buffer.len(), &mut found);
            let entry = (!found.is_null()).then(|| ((*found).pw_uid, (*found).pw_gid));
            (failed, entry)
        }
    })
}

/// Returns the number of a group.
fn group_of(name: &CStr) -> io::Result<Option<libc::gid_t>> {
    look_up(|buffer| {
        let mut entry = MaybeUninit::<libc::group>::uninit();
        let mut found = ptr::null_mut();
        // SAFETY: as above.
        unsafe {
            let failed = libc::getgrnam_r(name.as_ptr(), entry.as_mut_ptr(), buffer.as_mut_ptr().cast(), buffer.len(), &mut found);
            (failed, (!found.is_null()).then(|| (*found).gr_gid))
        }
    })
}

/// Retries with a growing buffer for the entry's strings. `ask` returns the library's error number, and what it found.
fn look_up<T>(mut ask: impl FnMut(&mut [u8]) -> (libc::c_int, Option<T>)) -> io::Result<Option<T>> {
    let mut buffer = vec![0; 1024];
    loop {
        match ask(&mut buffer) {
            (_, Some(found)) => return Ok(Some(found)),
            // The ways in which systems report that the name does not exist.
            (0 | libc::ENOENT | libc::ESRCH, None) => return Ok(None),
            (libc::ERANGE, None) if buffer.len() < ENTRY_LONGEST => {
                let longer = buffer.len() * 4;
                buffer.resize(longer, 0);
            }
            (error, None) => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// Returns the microseconds of the monotonic clock, which the service manager uses.
pub fn monotonic_us() -> u64 {
    let (seconds, ns) = read_clock(libc::CLOCK_MONOTONIC);
    seconds * 1_000_000 + ns / 1_000
}

/// Returns the milliseconds since boot, including time suspended.
pub fn up_ms() -> u64 {
    let (seconds, ns) = read_clock(libc::CLOCK_BOOTTIME);
    seconds * 1_000 + ns / 1_000_000
}

/// Seconds and nanoseconds.
fn read_clock(clock: libc::clockid_t) -> (u64, u64) {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the kernel fills `time` when it returns 0, and only then it is read.
    unsafe {
        if libc::clock_gettime(clock, time.as_mut_ptr()) != 0 {
            return (0, 0);
        }
        let time = time.assume_init();
        (time.tv_sec as u64, time.tv_nsec as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_found_by_name() {
        let nobody = Identity::find("nobody", None).unwrap();
        assert!(nobody.uid > 0 && nobody.gid > 0);
        let other = Identity::find("nobody", Some("daemon")).unwrap();
        assert_eq!(other.uid, nobody.uid);
        assert_ne!(other.gid, nobody.gid);
        for (user, group, why) in [
            ("no-such-user", None, "there is no user \"no-such-user\""),
            ("nobody", Some("no-such-group"), "there is no group"),
            ("root", None, "is root"),
            ("a\0b", None, "cannot exist"),
            ("", None, "there is no user"),
        ] {
            let error = Identity::find(user, group).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_look_up_gets_the_room_that_it_needs() {
        let mut asked = Vec::new();
        let found = look_up(|buffer| {
            asked.push(buffer.len());
            match buffer.len() < 10_000 {
                true => (libc::ERANGE, None),
                false => (0, Some(7)),
            }
        });
        assert_eq!(found.unwrap(), Some(7));
        assert_eq!(asked, [1024, 4096, 16384]);
        let endless = look_up::<()>(|_| (libc::ERANGE, None));
        assert_eq!(endless.unwrap_err().raw_os_error(), Some(libc::ERANGE));
        assert_eq!(look_up::<()>(|_| (libc::ENOENT, None)).unwrap(), None);
        assert!(look_up::<()>(|_| (libc::EIO, None)).is_err());
    }

    #[test]
    fn the_monotonic_clock_runs() {
        let before = monotonic_us();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(monotonic_us() >= before + 2_000);
        assert!(up_ms() >= before / 1_000);
    }
}
