//! A relay of connections between a client and what it talks to. It writes down who opened, what was said on which connection, and who closed first.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::message::{Framer, Message};
use crate::tap::Way;

/// What happened on one connection, in order.
#[derive(Clone, Default)]
pub struct Conversation {
    pub messages: Vec<(Duration, Way, Message)>,
    /// Bytes by direction, whether they are SIP or not.
    pub bytes: [usize; 2],
    /// Who ended their direction first: `Forth` is the side that opened the connection.
    pub closed_by: Option<(Duration, Way)>,
}

impl Conversation {
    pub fn going(&self, way: Way) -> Vec<&Message> {
        self.messages
            .iter()
            .filter(|(_, went, _)| *went == way)
            .map(|(_, _, message)| message)
            .collect()
    }

    /// The Call-IDs of what passed, each once, in the order of the first time.
    pub fn calls(&self) -> Vec<String> {
        let mut calls: Vec<String> = Vec::new();
        for (_, _, message) in &self.messages {
            if !calls.iter().any(|call| call == message.call_id()) {
                calls.push(message.call_id().to_owned());
            }
        }
        calls
    }
}

pub struct StreamTap {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    conversations: Mutex<Vec<Conversation>>,
    stop: AtomicBool,
    began: Instant,
}

impl StreamTap {
    /// Whoever connects to `address` is connected to `target`, from an ephemeral port of the tap's own address.
    pub fn new(address: SocketAddr, target: SocketAddr) -> StreamTap {
        let listener = listen(address);
        let address = listener.local_addr().expect("the tap's address");
        let shared = Arc::new(Shared {
            conversations: Mutex::new(Vec::new()),
            stop: AtomicBool::new(false),
            began: Instant::now(),
        });
        let own = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for client in listener.incoming() {
                if own.stop.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(client) = client else { continue };
                if let Ok(server) = connect(address.ip(), target) {
                    relay(&own, client, server);
                }
            }
        });
        StreamTap {
            address,
            shared,
            thread: Some(thread),
        }
    }

    /// Every connection there was, in the order in which they were opened.
    pub fn conversations(&self) -> Vec<Conversation> {
        self.shared.conversations.lock().expect("the taps").clone()
    }

    /// One line for each message, under its connection.
    pub fn ladder(&self) -> String {
        let mut text = String::new();
        for (number, conversation) in self.conversations().iter().enumerate() {
            let _ = writeln!(
                text,
                "connection {number}: {:?} bytes, closed {:?}",
                conversation.bytes, conversation.closed_by
            );
            for (at, way, message) in &conversation.messages {
                let arrow = if *way == Way::Forth { "-->" } else { "<--" };
                let _ = writeln!(
                    text,
                    "{:9.3} {arrow} {} [{}; {}]",
                    at.as_secs_f64() * 1e3,
                    message.start,
                    message.header("cseq").unwrap_or("no CSeq"),
                    message.call_id()
                );
            }
        }
        text
    }
}

impl Drop for StreamTap {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // It waits for a connection and nothing else.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if std::thread::panicking() {
            eprintln!("the tap on {} saw:\n{}", self.address, self.ladder());
        }
    }
}

fn relay(shared: &Arc<Shared>, client: TcpStream, server: TcpStream) {
    let number = {
        let mut all = shared.conversations.lock().expect("the taps");
        all.push(Conversation::default());
        all.len() - 1
    };
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
    }
    let ways = [
        (Way::Forth, client.try_clone(), server.try_clone()),
        (Way::Back, Ok(server), Ok(client)),
    ];
    for (way, from, to) in ways {
        let (Ok(from), Ok(to)) = (from, to) else {
            return;
        };
        let shared = Arc::clone(shared);
        std::thread::spawn(move || carry(&shared, number, way, from, to));
    }
}

/// One direction of one connection, until its end.
fn carry(shared: &Shared, number: usize, way: Way, mut from: TcpStream, mut to: TcpStream) {
    let mut framer = Framer::default();
    let mut buffer = [0; 16384];
    loop {
        let length = from.read(&mut buffer).unwrap_or(0);
        let at = shared.began.elapsed();
        {
            let mut all = shared.conversations.lock().expect("the taps");
            let conversation = &mut all[number];
            if length == 0 {
                conversation.closed_by.get_or_insert((at, way));
            }
            conversation.bytes[way as usize] += length;
            framer.push(&buffer[..length]);
            while let Some(message) = framer.take() {
                conversation.messages.push((at, way, message));
            }
        }
        if length == 0 || to.write_all(&buffer[..length]).is_err() {
            let _ = to.shutdown(Shutdown::Write);
            let _ = from.shutdown(Shutdown::Read);
            return;
        }
    }
}

/// A listener on `address`, also where connections of before still linger.
pub fn listen(address: SocketAddr) -> TcpListener {
    let socket = stream_socket(address.ip()).expect("a socket");
    socket
        .bind(&address.into())
        .and_then(|()| socket.listen(1024))
        .unwrap_or_else(|error| panic!("{address}: {error}"));
    socket.into()
}

/// A connection from an ephemeral port of `from`.
pub fn connect(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = stream_socket(from)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect_timeout(&to.into(), Duration::from_secs(5))?;
    Ok(socket.into())
}

fn stream_socket(ip: IpAddr) -> io::Result<Socket> {
    let domain = match ip {
        IpAddr::V4(_) => Domain::IPV4,
        IpAddr::V6(_) => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}
