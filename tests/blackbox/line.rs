//! One end of a connection over TCP or TLS, read message by message.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use openssl::ssl::{SslConnector, SslFiletype, SslMethod, SslStream, SslVerifyMode};

use crate::agent::PATIENCE;
use crate::message::{Framer, Message};
use crate::pki::{Authority, Certificate};
use crate::place::wait_for;
use crate::stream_tap;

pub struct Line {
    stream: Stream,
    framer: Framer,
    end: Option<End>,
}

enum Stream {
    Tcp(TcpStream),
    Tls(SslStream<Gathering>),
}

/// Holds back the end of a handshake until the first request goes with it, as with clients that do not wait between them.
#[derive(Debug)]
struct Gathering {
    stream: TcpStream,
    written: Vec<u8>,
}

impl Gathering {
    fn new(stream: TcpStream) -> Gathering {
        Gathering { stream, written: Vec::new() }
    }

    fn leave(&mut self) -> io::Result<()> {
        self.stream.write_all(&std::mem::take(&mut self.written))
    }
}

impl Read for Gathering {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.leave()?;
        self.stream.read(buffer)
    }
}

impl Write for Gathering {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        let _ = self.leave();
    }
}

/// How the peer ended a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// In order: over TLS with close_notify.
    Goodbye,
    /// By a reset, or over TLS without a word.
    Cut,
}

impl Line {
    pub fn connect(from: IpAddr, to: SocketAddr) -> Line {
        let stream = stream_tap::connect(from, to).unwrap_or_else(|error| panic!("no connection to {to}: {error}"));
        Line::over(Stream::Tcp(stream))
    }

    pub fn accept(listener: &TcpListener) -> Line {
        listener.set_nonblocking(true).expect("a listener");
        let accepted = wait_for(PATIENCE, || listener.accept().ok());
        let Some((stream, _)) = accepted else {
            panic!("nobody connects to {:?}", listener.local_addr());
        };
        stream.set_nonblocking(false).expect("a connection");
        Line::over(Stream::Tcp(stream))
    }

    fn over(stream: Stream) -> Line {
        let line = Line { stream, framer: Framer::default(), end: None };
        let _ = line.socket().set_nodelay(true);
        line.socket().set_write_timeout(Some(PATIENCE)).expect("a time-out");
        line.wait(PATIENCE);
        line
    }

    /// A handshake as client, with who proves to be `name`.
    pub fn secure(self, authority: &Authority, name: &str, own: Option<&Certificate>) -> Line {
        let mut builder = SslConnector::builder(SslMethod::tls_client()).expect("a context");
        builder.set_ca_file(&authority.file).expect("an authority");
        builder.set_verify(SslVerifyMode::PEER);
        if let Some(own) = own {
            builder.set_certificate_chain_file(&own.file).expect("a certificate");
            builder.set_private_key_file(&own.key, SslFiletype::PEM).expect("a key");
        }
        let connector = builder.build();
        let stream =
            connector.connect(name, Gathering::new(self.bare())).unwrap_or_else(|error| panic!("no TLS with {name}: {error}"));
        Line::over(Stream::Tls(stream))
    }

    fn bare(self) -> TcpStream {
        match self.stream {
            Stream::Tcp(stream) => stream,
            Stream::Tls(_) => panic!("TLS within TLS"),
        }
    }

    fn socket(&self) -> &TcpStream {
        match &self.stream {
            Stream::Tcp(stream) => stream,
            Stream::Tls(stream) => &stream.get_ref().stream,
        }
    }

    pub fn stream(&self) -> TcpStream {
        self.socket().try_clone().expect("the connection")
    }

    pub fn transport(&self) -> &'static str {
        match self.stream {
            Stream::Tcp(_) => "TCP",
            Stream::Tls(_) => "TLS",
        }
    }

    /// Ours and the peer's.
    pub fn ends(&self) -> (SocketAddr, SocketAddr) {
        let socket = self.socket();
        let own = socket.local_addr().expect("our address");
        (own, socket.peer_addr().expect("the peer's address"))
    }

    pub fn end(&self) -> Option<End> {
        self.end
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => {
                stream.write_all(bytes)?;
                stream.get_mut().leave()
            }
        }
    }

    /// Says that nothing more will be said, as the transport has it; what comes is read still.
    pub fn say_goodbye(&mut self) {
        let said = match &mut self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tls(stream) => {
                let said = stream.shutdown().map_err(io::Error::other);
                said.and_then(|_| stream.get_mut().leave())
            }
        };
        said.expect("half a goodbye");
    }

    /// The next message; None when none comes in time, or the peer has ended the connection.
    pub fn receive(&mut self, within: Duration) -> Option<Message> {
        let end = Instant::now() + within;
        let mut buffer = [0; 16384];
        loop {
            if let Some(message) = self.framer.take() {
                return Some(message);
            }
            if self.end.is_some() {
                return None;
            }
            self.wait(end.saturating_duration_since(Instant::now()));
            let read = match &mut self.stream {
                Stream::Tcp(stream) => stream.read(&mut buffer),
                Stream::Tls(stream) => stream.read(&mut buffer),
            };
            match read {
                Ok(0) => self.end = Some(self.how_it_ended()),
                Ok(length) => self.framer.push(&buffer[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if Instant::now() >= end {
                        return None;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.end = Some(End::Cut),
            }
        }
    }

    fn wait(&self, within: Duration) {
        let within = within.max(Duration::from_micros(100));
        self.socket().set_read_timeout(Some(within)).expect("a time-out");
    }

    fn how_it_ended(&mut self) -> End {
        match &mut self.stream {
            Stream::Tcp(_) => End::Goodbye,
            Stream::Tls(stream) => {
                let said = stream.get_shutdown();
                match said.contains(openssl::ssl::ShutdownState::RECEIVED) {
                    true => End::Goodbye,
                    false => End::Cut,
                }
            }
        }
    }
}
