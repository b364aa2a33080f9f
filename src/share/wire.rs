//! A connection to one Redis server. Commands are queued and sent together; each reply is awaited for a bounded time.

use super::resp::{Reply, read_reply, write_command};
use super::trouble::Trouble;
use openssl::error::ErrorStack;
use openssl::ssl::{HandshakeError, SslConnector, SslStream};
use openssl::x509::X509VerifyResult;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(2);

/// How long a reply may take from the moment when it is awaited.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes read at a time.
const READ: usize = 64 << 10;

/// Who we are to a server.
#[derive(Clone, Default)]
pub struct Credentials {
    /// Empty: the server's default user.
    pub user: String,
    pub password: Option<Vec<u8>>,
}

enum Stream {
    Plain(TcpStream),
    Secure(Box<SslStream<TcpStream>>),
}

impl Stream {
    /// The socket below.
    fn tcp(&self) -> &TcpStream {
        match self {
            Stream::Plain(stream) => stream,
            Stream::Secure(stream) => stream.get_ref(),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Stream::Plain(stream) => stream.write_all(bytes),
            Stream::Secure(stream) => stream.write_all(bytes),
        }
    }

    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.read(room),
            Stream::Secure(stream) => stream.read(room),
        }
    }
}

pub struct Wire {
    stream: Stream,
    /// What came; what stands before `start` was read.
    input: Vec<u8>,
    start: usize,
    output: Vec<u8>,
    /// Commands that were queued or sent, and whose replies were not read.
    awaited: usize,
}

impl Wire {
    /// Connects, by TLS if there is a connector, and proves who we are.
    pub fn open(host: &str, port: u16, connector: Option<&SslConnector>, credentials: &Credentials) -> Result<Wire, Trouble> {
        let stream = connect(host, port)?;
        let stream = match connector {
            None => Stream::Plain(stream),
            Some(connector) => Stream::Secure(Box::new(secure(host, stream, connector)?)),
        };
        let mut wire = Wire { stream, input: Vec::new(), start: 0, output: Vec::new(), awaited: 0 };
        if let Some(password) = &credentials.password {
            let user = credentials.user.as_bytes();
            match user.is_empty() {
                true => wire.call(&[b"AUTH", password])?,
                false => wire.call(&[b"AUTH", user, password])?,
            };
        }
        Ok(wire)
    }

    /// Queues a command.
    pub fn put(&mut self, words: &[&[u8]]) {
        write_command(words, &mut self.output);
        self.awaited += 1;
    }

    /// Sends what is queued.
    pub fn flush(&mut self) -> Result<(), Trouble> {
        self.stream.tcp().set_write_timeout(Some(PATIENCE)).map_err(lost)?;
        self.stream.write_all(&self.output).map_err(lost)?;
        self.output.clear();
        Ok(())
    }

    /// Returns the reply to the earliest command that was sent and whose reply was not read.
    pub fn read(&mut self) -> Result<Reply, Trouble> {
        self.read_for(PATIENCE)
    }

    /// The same with another patience.
    pub fn read_for(&mut self, patience: Duration) -> Result<Reply, Trouble> {
        let end = Instant::now() + patience;
        loop {
            let read = read_reply(&self.input[self.start..]).map_err(|fault| Trouble::Lost(fault.to_string()))?;
            if let Some((reply, length)) = read {
                self.start += length;
                self.awaited -= 1;
                return Ok(reply);
            }
            self.fill(end)?;
        }
    }

    fn fill(&mut self, end: Instant) -> Result<(), Trouble> {
        self.input.drain(..self.start);
        self.start = 0;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Trouble::Lost("it does not answer in time".to_owned()));
        }
        self.stream.tcp().set_read_timeout(Some(left)).map_err(lost)?;
        let before = self.input.len();
        self.input.resize(before + READ, 0);
        let came = self.stream.read(&mut self.input[before..]);
        self.input.truncate(before + *came.as_ref().unwrap_or(&0));
        match came {
            Ok(0) => Err(Trouble::Lost("it has closed the connection".to_owned())),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(lost(error)),
        }
    }

    /// Sends a command and returns its reply; one that refuses is an error.
    pub fn call(&mut self, words: &[&[u8]]) -> Result<Reply, Trouble> {
        self.put(words);
        self.flush()?;
        sound(self.read()?)
    }
}

/// Returns the reply unless it refuses.
pub fn sound(reply: Reply) -> Result<Reply, Trouble> {
    match reply {
        Reply::Error(why) => Err(Trouble::Refused(why)),
        reply => Ok(reply),
    }
}

fn connect(host: &str, port: u16) -> Result<TcpStream, Trouble> {
    let addresses = (host, port).to_socket_addrs().map_err(|error| Trouble::Lost(format!("its name is not found: {error}")))?;
    let mut outcome = Err(Trouble::Lost("its name has no address".to_owned()));
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(lost)?;
                return Ok(stream);
            }
            Err(error) => outcome = Err(lost(error)),
        }
    }
    outcome
}

/// Shakes hands with a server that proves to be this host.
fn secure(host: &str, stream: TcpStream, connector: &SslConnector) -> Result<SslStream<TcpStream>, Trouble> {
    for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
        set(&stream, Some(PATIENCE)).map_err(lost)?;
    }
    connector.connect(host, stream).map_err(|error| match error {
        HandshakeError::WouldBlock(_) => Trouble::Lost("it does not answer the TLS handshake in time".to_owned()),
        HandshakeError::SetupFailure(errors) => Trouble::Lost(format!("TLS: {}", reason(&errors))),
        HandshakeError::Failure(failed) => match failed.ssl().verify_result() {
            X509VerifyResult::OK => {
                let why = failed.error().ssl_error().map_or_else(|| failed.error().to_string(), reason);
                Trouble::Lost(format!("the TLS handshake fails: {why}"))
            }
            why => Trouble::Lost(format!("its certificate is not accepted: {}", why.error_string())),
        },
    })
}

/// Returns the library's words for the first error, without the places in its own source.
fn reason(errors: &ErrorStack) -> String {
    let first = errors.errors().first().and_then(|error| error.reason());
    first.unwrap_or("the library does not say why").to_owned()
}

fn lost(error: io::Error) -> Trouble {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Trouble::Lost("it does not answer in time".to_owned()),
        _ => Trouble::Lost(error.to_string()),
    }
}
