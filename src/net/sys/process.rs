//! The process and its machine: files, cores, time, memory, addresses.

use super::name::Name;
use super::outcome::check;
use std::io;
use std::mem::{self, MaybeUninit};
use std::net::IpAddr;
use std::ptr;

/// Returns how many files this process may open, after raising the limit as far as allowed.
pub fn open_files_limit() -> io::Result<usize> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills the structure, which is ours.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    if limit.rlim_cur < limit.rlim_max {
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        // SAFETY: the kernel only reads the structure.
        if check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) }).is_ok() {
            limit = raised;
        }
    }
    Ok(usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX))
}

/// Pins the calling thread to one CPU core.
pub fn pin(core: usize) -> io::Result<()> {
    if core >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: an all-zero `cpu_set_t` is the empty set, `core` lies inside it, and the kernel only reads it.
    let result = unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, mem::size_of::<libc::cpu_set_t>(), &set)
    };
    check(result)
}

/// Lets the calling thread yield to others on its core, but not so far that it starves.
pub fn lower_priority() -> io::Result<()> {
    // SAFETY: both take numbers and return one. Linux takes process 0 for the calling thread alone. (Whether -1 is an error or the
    // value does not matter: the priority is raised from there.)
    let result = unsafe {
        let now = libc::getpriority(libc::PRIO_PROCESS, 0);
        libc::setpriority(libc::PRIO_PROCESS, 0, now + 5)
    };
    check(result)
}

/// Returns the number of online CPU cores of this machine.
pub fn online_cores() -> usize {
    // SAFETY: `sysconf` takes a number and returns one.
    let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(count).unwrap_or(1).max(1)
}

/// Returns the CPU time of the calling thread in nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the kernel fills `time` when it returns 0, and only then it is read.
    unsafe {
        if libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, time.as_mut_ptr()) != 0 {
            return 0;
        }
        let time = time.assume_init();
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }
}

/// Returns whole pages that the allocator holds unused to the system. It takes some milliseconds per hundred megabytes.
pub fn return_free_memory() {
    // SAFETY: glibc's `malloc_trim` takes a number and no pointer, and moves nothing that is in use.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Returns the size of a memory page in bytes.
pub fn page_size() -> usize {
    // SAFETY: `sysconf` takes a number and returns one.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// Returns the IP addresses of this machine's interfaces that are up, in the kernel's order, each once.
pub fn local_addresses() -> io::Result<Vec<IpAddr>> {
    let mut list: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: on success `list` is a list that we own until `freeifaddrs`.
    check(unsafe { libc::getifaddrs(&mut list) })?;
    let mut addresses = Vec::new();
    let mut entry = list;
    // SAFETY: each entry is valid until the list is freed; an address that is not null is as large as its family says, and
    // for the two families that are copied that is at most `Name`. Nothing borrowed from the list is kept.
    unsafe {
        while !entry.is_null() {
            let address = (*entry).ifa_addr;
            let is_up = (*entry).ifa_flags & libc::IFF_UP as libc::c_uint != 0;
            if is_up && !address.is_null() {
                let mut name = Name::EMPTY;
                let len = match i32::from((*address).sa_family) {
                    libc::AF_INET => mem::size_of::<libc::sockaddr_in>(),
                    libc::AF_INET6 => mem::size_of::<libc::sockaddr_in6>(),
                    _ => 0,
                };
                ptr::copy_nonoverlapping(address.cast::<u8>(), ptr::from_mut(&mut name).cast::<u8>(), len);
                match name.read().map(|found| found.ip()) {
                    Some(ip) if !addresses.contains(&ip) => addresses.push(ip),
                    _ => {}
                }
            }
            entry = (*entry).ifa_next;
        }
        libc::freeifaddrs(list);
    }
    Ok(addresses)
}
