//! A server of a test's own at UDP port 25060 of a host.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

pub struct Server {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What leaves for a message that has come.
pub type Datagrams = Vec<(SocketAddr, String)>;

impl Server {
    /// `work` goes on until it is over.
    pub fn start(work: impl FnOnce(&AtomicBool) + Send + 'static) -> Server {
        let over = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&over);
        Server { over, thread: Some(std::thread::spawn(move || work(&shared))) }
    }

    pub fn udp(host: &str, mut answer: impl FnMut(&str, SocketAddr) -> Datagrams + Send + 'static) -> Server {
        let socket = UdpSocket::bind(format!("{host}:25060")).expect("a free port");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a time-out");
        Server::start(move |over| {
            let mut buffer = [0; 4096];
            loop {
                let was_over = over.load(Ordering::Relaxed);
                match socket.recv_from(&mut buffer) {
                    Ok((length, from)) => {
                        let message = std::str::from_utf8(&buffer[..length]).expect("text");
                        for (to, message) in answer(message, from) {
                            socket.send_to(message.as_bytes(), to).expect("sent");
                        }
                    }
                    // Nothing is left of what came before.
                    Err(_) if was_over => return,
                    Err(_) => {}
                }
            }
        })
    }

    /// Ends it, and says whether it panicked.
    pub fn end(mut self) {
        self.stop().expect("it did not panic");
    }

    fn stop(&mut self) -> std::thread::Result<()> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().map_or(Ok(()), JoinHandle::join)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// The other side of the calls at this host: the answerer's address for the caller's, and the other way round.
pub fn across(host: &str, from: SocketAddr) -> SocketAddr {
    let port = match from.port() {
        15070 => 15570,
        _ => 15070,
    };
    format!("{host}:{port}").parse().expect("an address")
}

pub fn header<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = message.split("\r\n").skip(1);
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// A response, with further header lines.
pub fn reply(request: &str, status: &str, lines: &str) -> String {
    let get = |name| header(request, name).unwrap_or_else(|| panic!("no {name} in {request}"));
    let copied: String = ["Via", "From", "Call-ID", "CSeq"].iter().map(|name| format!("{name}: {}\r\n", get(name))).collect();
    format!("SIP/2.0 {status}\r\n{copied}To: {};tag=t\r\n{lines}Content-Length: 0\r\n\r\n", get("To"))
}
