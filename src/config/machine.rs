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
    let files = ["/sys/fs/cgroup/memory.max".to_owned(), "/sys/fs/cgroup/memory/memory.limit_in_bytes".to_owned()];
    for file in files.into_iter().chain(group_files(&groups)) {
        // The word "max" means no limit.
        let limit = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
        bounds.extend(limit.map(|bytes| (bytes, format!("the control group ({file})"))));
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

/// The files with the limits of this process's control group and of its ancestors, as `/proc/self/cgroup` names it (version 2).
fn group_files(groups: &str) -> Vec<String> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    let mut path = own.unwrap_or_default().trim_end();
    let mut files = Vec::new();
    while !path.is_empty() {
        files.push(format!("/sys/fs/cgroup/{path}/memory.max"));
        path = path.rsplit_once('/').map_or("", |(around, _)| around);
    }
    files
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

    #[test]
    fn a_control_group_counts_with_those_around_it() {
        let files = group_files("1:name=systemd:/x\n0::/system.slice/strowger.service\n");
        assert_eq!(files, ["/sys/fs/cgroup/system.slice/strowger.service/memory.max", "/sys/fs/cgroup/system.slice/memory.max"]);
        assert!(group_files("0::/\n").is_empty() && group_files("").is_empty());
    }

    #[test]
    fn this_machine_has_a_core_memory_and_files() {
        let machine = Machine::this();
        assert!(!machine.cores.is_empty());
        assert!(machine.memory > 1 << 20, "{} bytes", machine.memory);
        assert!(machine.files > 16, "{} files", machine.files);
    }
}
