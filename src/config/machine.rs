//! What the machine offers that the conf depends on: the CPU cores we may be pinned to, the memory, the open files.

use std::fs;

/// The machine as the conf sees it. A test makes its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The cores this process may run on, in ascending order.
    pub cores: Vec<usize>,
    /// Bytes of memory this process may have.
    pub memory: u64,
    /// Files this process may have open at a time: the hard limit, up to which it may raise the soft one.
    pub files: usize,
}

impl Machine {
    /// Returns this machine, as far as this process's affinity and control group let it be used.
    pub fn this() -> Machine {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let memory = memory_bounds().into_iter().map(|(bytes, _)| bytes).min().unwrap_or(1 << 30);
        Machine { cores: allowed_cores(&status).unwrap_or_else(|| vec![0]), memory, files: open_files(&limits).unwrap_or(1024) }
    }

    /// Says where the memory of [`Machine::this`] is read.
    pub fn memory_from() -> String {
        memory_bounds().into_iter().min().map_or_else(|| "a guess".to_owned(), |(_, from)| from)
    }
}

/// What bounds this process's memory, each with where that is read.
fn memory_bounds() -> Vec<(u64, String)> {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let mut bounds: Vec<(u64, String)> = Vec::new();
    bounds.extend(total_memory(&meminfo).map(|bytes| (bytes, "the machine's (/proc/meminfo)".to_owned())));
    bounds.extend(address_space(&limits).map(|bytes| (bytes / 2, "half of the address space (ulimit -v)".to_owned())));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for file in group_files(&groups, &mounts) {
        if let Ok(text) = fs::read_to_string(&file) {
            bounds.push((group_limit(&text), format!("the control group ({file})")));
        }
    }
    bounds
}

/// The cores of `Cpus_allowed_list` in `/proc/self/status`, such as `0-3,8`.
fn allowed_cores(status: &str) -> Option<Vec<usize>> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let mut cores = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cores.extend(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?);
    }
    (!cores.is_empty()).then_some(cores)
}

/// Bytes of `MemTotal` in `/proc/meminfo`.
fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The hard limit of `Max open files` in `/proc/self/limits`.
fn open_files(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().nth(1)? {
        "unlimited" => Some(usize::MAX),
        number => number.parse().ok(),
    }
}

/// The soft limit of `Max address space` in `/proc/self/limits`. Stacks and reserved address space count there too, so about half
/// of it is usable memory.
fn address_space(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Bytes that a file of a control group allows. Version 2 says "max" if there is no limit, version 1 a number beyond any memory.
fn group_limit(text: &str) -> u64 {
    text.trim().parse().unwrap_or(u64::MAX)
}

/// What bounds memory in a control group of version 2: beyond the first the kernel slows a process down until it stands still, beyond
/// the second it ends it.
const LIMITS_2: [&str; 2] = ["memory.high", "memory.max"];

/// The same of version 1.
const LIMITS_1: [&str; 1] = ["memory.limit_in_bytes"];

/// The files with the memory limits of this process's control group and of those around it, of version 1 and 2. `groups` is
/// `/proc/self/cgroup`, which has the group's path in its hierarchy; `mounts` is `/proc/self/mountinfo`, which has the places where
/// a hierarchy, or a part of it, can be seen.
fn group_files(groups: &str, mounts: &str) -> Vec<String> {
    let mut files = Vec::new();
    for mount in mounts.lines() {
        let Some((before, after)) = mount.split_once(" - ") else {
            continue;
        };
        let (mut before, mut after) = (before.split(' ').skip(3), after.split(' '));
        let (Some(root), Some(place), Some(kind)) = (before.next(), before.next(), after.next()) else {
            continue;
        };
        let options = after.nth(1).unwrap_or_default();
        let (own, limits) = match kind {
            "cgroup2" => (own_group(groups, |controllers| controllers.is_empty()), &LIMITS_2[..]),
            "cgroup" if options.split(',').any(|option| option == "memory") => {
                (own_group(groups, |controllers| controllers.split(',').any(|one| one == "memory")), &LIMITS_1[..])
            }
            _ => continue,
        };
        let (root, place) = (unescaped(root), unescaped(place));
        let mut inner = within(own.unwrap_or("/"), &root);
        loop {
            let folder = match inner {
                "" => place.clone(),
                inner => format!("{place}/{inner}"),
            };
            files.extend(limits.iter().map(|limit| format!("{folder}/{limit}")));
            if inner.is_empty() {
                break;
            }
            inner = inner.rsplit_once('/').map_or("", |(around, _)| around);
        }
    }
    files
}

/// Returns the path of this process's group in the hierarchy whose controllers `is_it` accepts.
fn own_group(groups: &str, is_it: impl Fn(&str) -> bool) -> Option<&str> {
    groups.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        is_it(controllers).then_some(path)
    })
}

/// Returns where a group is below the part of its hierarchy that is mounted, or nothing if it is that itself, or is not below it: a
/// container sees a part whose path it does not know, and its own group there is the one at the top.
fn within<'g>(group: &'g str, root: &str) -> &'g str {
    let root = root.trim_end_matches('/');
    let inner = group.strip_prefix(root).filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or_default();
    match inner.split('/').any(|part| part == "..") {
        true => "",
        false => inner.trim_matches('/'),
    }
}

/// Returns a path as the kernel means it: it writes a blank as `\040`.
fn unescaped(path: &str) -> String {
    let mut parts = path.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                text.push(char::from(byte));
                text.push_str(&part[3..]);
            }
            None => {
                text.push('\\');
                text.push_str(part);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowed_cores_are_ranges_and_numbers() {
        let status = "Name:\tx\nCpus_allowed:\tf0f\nCpus_allowed_list:\t0-3,8,10-11\n";
        assert_eq!(allowed_cores(status), Some(vec![0, 1, 2, 3, 8, 10, 11]));
        assert_eq!(allowed_cores("Cpus_allowed_list:\t1\n"), Some(vec![1]));
        assert_eq!(allowed_cores("Name:\tx\n"), None);
        assert_eq!(allowed_cores("Cpus_allowed_list:\twhat\n"), None);
    }

    #[test]
    fn memory_is_told_in_bytes() {
        let meminfo = "MemTotal:        8052148 kB\nMemFree: 1 kB\n";
        assert_eq!(total_memory(meminfo), Some(8_052_148 * 1024));
        assert_eq!(total_memory("nothing"), None);
    }

    #[test]
    fn open_files_are_the_hard_limit() {
        let limits = "\
Limit                     Soft Limit           Hard Limit           Units     
Max processes             31338                31339                processes 
Max open files            1024                 524288               files     
";
        assert_eq!(open_files(limits), Some(524_288));
        let unlimited = "Max open files            1024                 unlimited            files\n";
        assert_eq!(open_files(unlimited), Some(usize::MAX));
        assert_eq!(open_files("Max open files            1024\n"), None);
    }

    #[test]
    fn the_address_space_is_the_soft_limit() {
        let limited = "Max address space         524288000            unlimited            bytes     \n";
        assert_eq!(address_space(limited), Some(524_288_000));
        let unlimited = "Max address space         unlimited            unlimited            bytes     \n";
        assert_eq!(address_space(unlimited), None);
        assert_eq!(address_space(""), None);
    }

    const UNIFIED: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    /// Each limit of a folder of version 2.
    fn v2(folders: &[&str]) -> Vec<String> {
        folders.iter().flat_map(|folder| LIMITS_2.map(|limit| format!("{folder}/{limit}"))).collect()
    }

    #[test]
    fn a_control_group_counts_with_those_around_it() {
        let files = group_files("1:name=systemd:/x\n0::/system.slice/strowger.service\n", UNIFIED);
        assert_eq!(files, v2(&["/sys/fs/cgroup/system.slice/strowger.service", "/sys/fs/cgroup/system.slice", "/sys/fs/cgroup"]));
        // The top of a namespace, as in a container: only the mount says where it is.
        assert_eq!(group_files("0::/\n", UNIFIED), v2(&["/sys/fs/cgroup"]));
        // A namespace that the process was moved out of.
        assert_eq!(group_files("0::/../other\n", UNIFIED), v2(&["/sys/fs/cgroup"]));
        assert!(group_files("0::/x\n", "").is_empty());
        assert_eq!(group_files("", UNIFIED), v2(&["/sys/fs/cgroup"]));
    }

    #[test]
    fn a_control_group_of_the_first_version_counts_too() {
        let groups = "9:name=systemd:/\n5:devices:/\n4:cpu,memory:/outer/strowger\n0::/\n";
        let mounts = "\
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime master:9 - cgroup cgroup rw,cpu,memory\n\
36 31 0:33 / /proc rw - proc proc rw\nnonsense\n";
        assert_eq!(
            group_files(groups, mounts),
            [
                "/sys/fs/cgroup/memory/outer/strowger/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/outer/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            ]
        );
        // A container of version 1 sees its own part only, and its whole path.
        let part = "35 31 0:32 /outer/strowger /a\\040b ro - cgroup cgroup rw,memory\n";
        assert_eq!(group_files(groups, part), ["/a b/memory.limit_in_bytes"]);
        let deeper = groups.replace("strowger", "strowger/calls");
        assert_eq!(group_files(&deeper, part), ["/a b/calls/memory.limit_in_bytes", "/a b/memory.limit_in_bytes"]);
        let similar = groups.replace("strowger", "strowger2");
        assert_eq!(group_files(&similar, part), ["/a b/memory.limit_in_bytes"]);
    }

    #[test]
    fn what_a_group_allows_is_a_number_or_nothing() {
        assert_eq!(group_limit("50331648\n"), 50_331_648);
        assert_eq!(group_limit("max\n"), u64::MAX);
    }

    #[test]
    fn this_machine_has_a_core_memory_and_files() {
        let machine = Machine::this();
        assert!(!machine.cores.is_empty());
        assert!(machine.memory > 1 << 20, "{} bytes", machine.memory);
        assert!(machine.files > 16, "{} files", machine.files);
    }
}
