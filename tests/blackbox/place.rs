//! A test's own corner of the machine: a /24 of the loopback network, which no other test uses, and a folder that goes when the test passes.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Hosts within the /24, so that a trace reads the same in every test.
pub const SERVER: u8 = 1;
pub const CALLER: u8 = 2;
pub const CALLEE: u8 = 3;
pub const SECOND_CALLEE: u8 = 4;
pub const CALLER_TAP: u8 = 12;
pub const CALLEE_TAP: u8 = 13;
pub const SECOND_CALLEE_TAP: u8 = 14;
pub const STRANGER: u8 = 66;

pub struct Place {
    directory: Option<TempDir>,
    network: [u8; 2],
    /// Held for as long as the place lives: whoever has this socket owns the /24, in this process or another one.
    _claim: UdpSocket,
}

/// The second and third byte of an address in a place's /24, whosever it is; None for all others.
pub fn network(ip: IpAddr) -> Option<[u8; 2]> {
    match ip {
        IpAddr::V4(ip) => match ip.octets() {
            [127, second @ 64..=126, third, _] => Some([second, third]),
            _ => None,
        },
        IpAddr::V6(_) => None,
    }
}

impl Place {
    pub fn new(name: &str) -> Place {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        for _ in 0..2000 {
            let n = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(std::process::id().wrapping_mul(37));
            let network = [64 + (n / 256 % 63) as u8, (n % 256) as u8];
            let claim = Ipv4Addr::new(127, network[0], network[1], 254);
            if let Ok(claim) = UdpSocket::bind((claim, 40009)) {
                let directory =
                    tempfile::Builder::new().prefix(&format!("strowger-{name}-")).tempdir().expect("a temporary folder");
                return Place { directory: Some(directory), network, _claim: claim };
            }
        }
        panic!("no free /24 on the loopback network");
    }

    pub fn ip(&self, host: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(127, self.network[0], self.network[1], host))
    }

    pub fn at(&self, host: u8) -> SocketAddr {
        self.at_port(host, 5060)
    }

    pub fn at_port(&self, host: u8, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(host), port)
    }

    pub fn directory(&self) -> &Path {
        self.directory.as_ref().expect("the folder lives as long as the place").path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("write into the test's folder");
        path
    }
}

impl Drop for Place {
    /// A failed test leaves its logs behind and says where.
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(directory) = self.directory.take()
        {
            eprintln!("the logs of this test stay in {}", directory.keep().display());
        }
    }
}

/// A port of `::1` that was free a moment ago. IPv6 has one loopback address only, so tests there differ by port.
pub fn free_port_v6() -> Option<SocketAddr> {
    let socket = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).ok()?;
    socket.local_addr().ok()
}

/// Asks `ready` again and again until it gives something or the time is over.
pub fn wait_for<T>(within: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + within;
    loop {
        if let Some(found) = ready() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
