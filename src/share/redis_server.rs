//! A Redis of the test's own: Debian's `redis-server` on a port of loopback, in a folder that is removed at the end.

use super::access::{Access, Credentials};
use super::trouble::Trouble;
use super::wire::Wire;
use crate::settings::{SharedStore, StoreKind};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub struct RedisServer {
    pub port: u16,
    child: Child,
    _folder: TempDir,
}

impl RedisServer {
    pub fn start() -> RedisServer {
        let folder = TempDir::new().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--daemonize", "no", "--port", &port.to_string(), "--dir"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server: scripts/setup test installs it");
        let server = RedisServer { port, child, _folder: folder };
        let end = Instant::now() + Duration::from_secs(10);
        while server.open().is_err() {
            assert!(Instant::now() < end, "redis-server does not serve");
            thread::sleep(Duration::from_millis(10));
        }
        server
    }

    pub fn wire(&self) -> Wire {
        self.open().unwrap()
    }

    fn open(&self) -> Result<Wire, Trouble> {
        let store =
            SharedStore { kind: StoreKind::Single, is_secure: false, hosts: vec![("127.0.0.1".to_owned(), self.port)], db: 0 };
        Wire::open("127.0.0.1", self.port, &Access::new(store, Credentials::default(), None).unwrap())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
