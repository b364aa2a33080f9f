//! A relay of connections between a client and what it talks to. It writes down who opened, what was said on which connection, and who closed first.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use openssl::ssl::{SslAcceptor, SslConnector, SslFiletype, SslMethod, SslStream};
use socket2::{Domain, Socket, Type};

use crate::message::{Framer, Message};
use crate::pki::{Authority, Certificate};
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
        self.messages.iter().filter(|(_, went, _)| *went == way).map(|(_, _, message)| message).collect()
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

/// On which side of a tap there is TLS: it ends here, so that what passes can be read.
pub enum Secure {
    Neither,
    /// Who connects finds a server with this certificate.
    Clients(SslAcceptor),
    /// The target is shaken hands with, by this name.
    Target(SslConnector, String),
}

impl Secure {
    pub fn clients(certificate: &Certificate) -> Secure {
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).expect("a context");
        builder.set_certificate_chain_file(&certificate.file).expect("a certificate");
        builder.set_private_key_file(&certificate.key, SslFiletype::PEM).expect("a key");
        builder.set_session_id_context(b"tap").expect("a name for the sessions");
        Secure::Clients(builder.build())
    }

    pub fn target(authority: &Authority, name: &str) -> Secure {
        let mut builder = SslConnector::builder(SslMethod::tls_client()).expect("a context");
        builder.set_ca_file(&authority.file).expect("an authority");
        Secure::Target(builder.build(), name.to_owned())
    }

    /// The two ends as they are to be read from and written to; None where a handshake fails.
    fn shake(&self, client: TcpStream, server: TcpStream) -> Option<[End; 2]> {
        Some(match self {
            Secure::Neither => [End::Plain(client), End::Plain(server)],
            Secure::Clients(acceptor) => [End::Secure(acceptor.accept(client).ok()?), End::Plain(server)],
            Secure::Target(connector, name) => [End::Plain(client), End::Secure(connector.connect(name, server).ok()?)],
        })
    }
}

enum End {
    Plain(TcpStream),
    Secure(SslStream<TcpStream>),
}

impl End {
    fn socket(&self) -> &TcpStream {
        match self {
            End::Plain(stream) => stream,
            End::Secure(stream) => stream.get_ref(),
        }
    }

    /// None when nothing is there now, 0 at the end.
    fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let read = match self {
            End::Plain(stream) => stream.read(buffer),
            End::Secure(stream) => stream.read(buffer),
        };
        match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            other => Some(other.unwrap_or(0)),
        }
    }

    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let written = match self {
                End::Plain(stream) => stream.write(bytes),
                End::Secure(stream) => stream.write(bytes),
            };
            match written {
                Ok(length) => bytes = &bytes[length..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(PAUSE);
                }
                Err(_) => return,
            }
        }
    }

    fn say_goodbye(&mut self) {
        if let End::Secure(stream) = self {
            let _ = stream.shutdown();
        }
        let _ = self.socket().shutdown(Shutdown::Write);
    }
}

const PAUSE: Duration = Duration::from_micros(300);

impl StreamTap {
    /// Whoever connects to `address` is connected to `target`, from an ephemeral port of the tap's own address.
    pub fn new(address: SocketAddr, target: SocketAddr, secure: Secure) -> StreamTap {
        let listener = listen(address);
        let address = listener.local_addr().expect("the tap's address");
        let shared =
            Arc::new(Shared { conversations: Mutex::new(Vec::new()), stop: AtomicBool::new(false), began: Instant::now() });
        let own = Arc::clone(&shared);
        let secure = Arc::new(secure);
        let thread = std::thread::spawn(move || {
            for client in listener.incoming() {
                if own.stop.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(client) = client else { continue };
                if let Ok(server) = connect(address.ip(), target) {
                    let (own, secure) = (Arc::clone(&own), Arc::clone(&secure));
                    std::thread::spawn(move || relay(&own, &secure, client, server));
                }
            }
        });
        StreamTap { address, shared, thread: Some(thread) }
    }

    /// Every connection there was, in the order in which they were opened.
    pub fn conversations(&self) -> Vec<Conversation> {
        self.shared.conversations.lock().expect("the taps").clone()
    }

    /// One line for each message, under its connection.
    pub fn ladder(&self) -> String {
        let mut text = String::new();
        for (number, conversation) in self.conversations().iter().enumerate() {
            let _ = writeln!(text, "connection {number}: {:?} bytes, closed {:?}", conversation.bytes, conversation.closed_by);
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

/// One connection, until both directions have ended.
fn relay(shared: &Shared, secure: &Secure, client: TcpStream, server: TcpStream) {
    let number = {
        let mut all = shared.conversations.lock().expect("the taps");
        all.push(Conversation::default());
        all.len() - 1
    };
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
        let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    }
    let Some(mut ends) = secure.shake(client, server) else {
        return;
    };
    for end in &ends {
        let _ = end.socket().set_nonblocking(true);
    }
    let mut framers = [Framer::default(), Framer::default()];
    let mut over = [false; 2];
    let mut buffer = [0; 16384];
    while over != [true; 2] && !shared.stop.load(Ordering::Relaxed) {
        let mut passed = false;
        for (from, way) in [Way::Forth, Way::Back].into_iter().enumerate() {
            let (false, Some(length)) = (over[from], ends[from].read(&mut buffer)) else {
                continue;
            };
            passed = true;
            over[from] = length == 0;
            shared.note(number, way, &mut framers[from], &buffer[..length]);
            match length {
                0 => ends[1 - from].say_goodbye(),
                _ => ends[1 - from].write(&buffer[..length]),
            }
        }
        if !passed {
            std::thread::sleep(PAUSE);
        }
    }
}

impl Shared {
    /// Writes down what has come one way; nothing is the end of it.
    fn note(&self, number: usize, way: Way, framer: &mut Framer, bytes: &[u8]) {
        let at = self.began.elapsed();
        let mut all = self.conversations.lock().expect("the taps");
        let conversation = &mut all[number];
        if bytes.is_empty() {
            conversation.closed_by.get_or_insert((at, way));
        }
        conversation.bytes[way as usize] += bytes.len();
        framer.push(bytes);
        while let Some(message) = framer.take() {
            conversation.messages.push((at, way, message));
        }
    }
}

/// A listener on `address`, also where connections of before still linger.
pub fn listen(address: SocketAddr) -> TcpListener {
    let socket = stream_socket(address.ip()).expect("a socket");
    socket.bind(&address.into()).and_then(|()| socket.listen(1024)).unwrap_or_else(|error| panic!("{address}: {error}"));
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
