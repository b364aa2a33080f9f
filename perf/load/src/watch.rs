//! What the system says about a process and about sockets: CPU time, memory, kernel drops (proc(5)).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;

/// Processes and their descendants, as they were at the last refresh.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    roots: Vec<u32>,
    pids: Vec<u32>,
}

impl Watched {
    pub fn new(roots: &[u32]) -> Watched {
        let mut watched = Watched { roots: roots.to_vec(), pids: Vec::new() };
        watched.refresh();
        watched
    }

    /// Finds the descendants that there are now: a server may listen before it has forked all that will serve.
    pub fn refresh(&mut self) {
        let mut pids = self.roots.clone();
        let mut at = 0;
        while at < pids.len() {
            for task in tasks(pids[at]) {
                let path = format!("/proc/{}/task/{task}/children", pids[at]);
                let children = fs::read_to_string(path).unwrap_or_default();
                pids.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            }
            at += 1;
        }
        self.pids = pids;
    }

    pub fn is_empty(&self) -> bool {
        self.pids.is_empty()
    }

    /// Time of all threads that live. The kernel brings a running thread's figure up to date at least at each tick (4 ms).
    pub fn time(&self) -> CpuTime {
        self.pids
            .iter()
            .flat_map(|pid| tasks(*pid).into_iter().map(move |task| (*pid, task)))
            .filter_map(|(pid, task)| CpuTime::read(&format!("/proc/{pid}/task/{task}/schedstat")))
            .fold(CpuTime::default(), |sum, time| CpuTime { run_ns: sum.run_ns + time.run_ns, wait_ns: sum.wait_ns + time.wait_ns })
    }

    /// The scheduler's accounts of all threads that live, to be read again and again.
    pub fn accounts(&self) -> Vec<File> {
        let threads = self.pids.iter().flat_map(|pid| tasks(*pid).into_iter().map(move |task| (*pid, task)));
        threads.filter_map(|(pid, task)| File::open(format!("/proc/{pid}/task/{task}/schedstat")).ok()).collect()
    }

    /// The number of cores that any of their threads may run on.
    pub fn cores(&self) -> usize {
        let mut all = BTreeSet::new();
        for (pid, task) in self.pids.iter().flat_map(|pid| tasks(*pid).into_iter().map(move |task| (*pid, task))) {
            let text = fs::read_to_string(format!("/proc/{pid}/task/{task}/status")).unwrap_or_default();
            let listed = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            all.extend(listed.unwrap_or_default().trim().split(',').flat_map(cores_in));
        }
        all.len()
    }

    /// Resident memory, bytes. Shared memory of several processes is counted for each.
    pub fn resident_bytes(&self) -> u64 {
        self.sum_kilobytes("status", "VmRSS:")
    }

    /// Memory in bytes that is theirs: pages of one process whole, those that several of them share once.
    pub fn own_bytes(&self) -> u64 {
        self.sum_kilobytes("smaps_rollup", "Pss:")
    }

    fn sum_kilobytes(&self, file: &str, name: &str) -> u64 {
        let read = |pid: &u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        1024 * self.pids.iter().filter_map(read).sum::<u64>()
    }

    /// Whether any of them has gone.
    pub fn lost(&self) -> bool {
        self.pids.iter().any(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    }
}

/// The scheduler's account of a thread.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct CpuTime {
    /// On a CPU.
    pub run_ns: u64,
    /// Ready to run, and waiting while something else did: another process on its core.
    pub wait_ns: u64,
}

impl CpuTime {
    fn read(path: &str) -> Option<CpuTime> {
        let text = fs::read_to_string(path).ok()?;
        let mut numbers = text.split_whitespace().map(str::parse);
        Some(CpuTime { run_ns: numbers.next()?.ok()?, wait_ns: numbers.next()?.ok()? })
    }

    pub fn of_this_thread() -> CpuTime {
        CpuTime::read("/proc/thread-self/schedstat").unwrap_or_default()
    }

    pub fn since(&self, earlier: &CpuTime) -> CpuTime {
        CpuTime { run_ns: self.run_ns.saturating_sub(earlier.run_ns), wait_ns: self.wait_ns.saturating_sub(earlier.wait_ns) }
    }
}

/// One core, or the first and the last of several: `3`, `0-3`.
fn cores_in(text: &str) -> RangeInclusive<u32> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) => first..=last,
        _ => RangeInclusive::new(1, 0),
    }
}

fn tasks(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Datagrams that the kernel dropped at the UDP sockets where this server may listen: at its address, or at any.
pub fn udp_drops_of(server: SocketAddr) -> u64 {
    udp_drops(|address| address.port() == server.port() && (address.ip() == server.ip() || address.ip().is_unspecified()))
}

/// The same at the sockets of these addresses.
pub fn udp_drops_at(addresses: &[SocketAddr]) -> u64 {
    match addresses.is_empty() {
        true => 0,
        false => udp_drops(|address| addresses.contains(&address)),
    }
}

fn udp_drops(wanted: impl Fn(SocketAddr) -> bool) -> u64 {
    ["/proc/net/udp", "/proc/net/udp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .map(|table| udp_drops_in(&table, &wanted))
        .sum()
}

fn udp_drops_in(table: &str, wanted: impl Fn(SocketAddr) -> bool) -> u64 {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let address = read_address(line.split_whitespace().nth(1)?)?;
            if !wanted(address) {
                return None;
            }
            line.split_whitespace().last()?.parse::<u64>().ok()
        })
        .sum()
}

/// `0100007F:13C4`: the address in words of four bytes as they stand in memory, and the port.
fn read_address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for at in (0..host.len()).step_by(8) {
        let word = u32::from_str_radix(host.get(at..at + 8)?, 16).ok()?;
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    let host: IpAddr = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(four) => four.into(),
        Err(_) => <[u8; 16]>::try_from(bytes.as_slice()).ok()?.into(),
    };
    Some(SocketAddr::new(host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_read_by_address_and_port() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
             1: 0100007F:13C4 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 17 2 0000000000000000 12\n\
             2: 0100007F:13C5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 18 2 0000000000000000 3\n";
        let at_port = |port| udp_drops_in(table, |address| address.port() == port);
        assert_eq!([at_port(5060), at_port(5061), at_port(80)], [12, 3, 0]);
        let at = |text: &str| -> u64 {
            let wanted: SocketAddr = text.parse().expect("an address");
            udp_drops_in(table, |address| address == wanted)
        };
        assert_eq!(at("127.0.0.1:5060"), 12);
        assert_eq!(at("127.0.0.2:5060"), 0);
        assert_eq!(read_address("00000000000000000000000001000000:13C4"), Some("[::1]:5060".parse().expect("an address")));
        assert_eq!(read_address("0100007F"), None);
    }

    #[test]
    fn cores_as_the_system_lists_them() {
        for (text, cores) in [("3", vec![3]), ("0-2", vec![0, 1, 2]), ("", vec![]), ("x-1", vec![])] {
            assert_eq!(cores_in(text).collect::<Vec<_>>(), cores, "{text}");
        }
    }

    #[test]
    fn our_own_cpu_time_moves() {
        let own = Watched::new(&[std::process::id()]);
        assert_eq!(own.cores(), std::thread::available_parallelism().expect("a number").get());
        let before = own.time().run_ns;
        let start = std::time::Instant::now();
        while own.time().run_ns < before + 10_000_000 {
            assert!(start.elapsed().as_secs() < 30);
        }
        assert!(own.resident_bytes() > 100_000);
        assert!((100_000..=own.resident_bytes()).contains(&own.own_bytes()));
        assert!(!own.lost());
    }
}
