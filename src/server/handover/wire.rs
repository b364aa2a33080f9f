//! The wire of the handover: messages over a Unix stream socket between two processes of this server, some with open files.
//!
//! A message is a kind, how many files come with it, a length, and so many bytes. Neither side reads more than a message may have, and
//! neither waits without an end.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::server::lock::lock;
use serde::Serialize;
use serde::de::DeserializeOwned;
use strowger::net::sys::rights::{self, FILES};

/// The most bytes of a message: what a million connections and transactions take, and some more.
const MOST: usize = 256 << 20;

/// Bytes that are read at a time: room is made for what has come, not for what was promised.
const BITE: usize = 256 << 10;

const HEADER: usize = 8;

/// What a message is about. The numbers are part of the protocol ([`super::words::PROTOCOL`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// From the successor: who it is.
    Hello = 1,
    /// From the predecessor: who it is, and what it has.
    Offer = 2,
    /// Some of its listening sockets, as files.
    Sockets = 3,
    /// From the successor: it has read its conf, and takes the table now.
    Take = 4,
    Nodes = 5,
    /// Records of the location table.
    Table = 6,
    /// The table was sent as a whole.
    TableEnd = 7,
    /// From the successor: it could serve now.
    Prepared = 8,
    /// Ends of the links between workers, as files.
    Links = 9,
    /// What the workers leave.
    Legacy = 10,
    /// From the predecessor: that was all, and it reads nothing any more.
    Final = 11,
    /// From the successor: it serves.
    Serving = 12,
    /// From the successor: it cannot, and why.
    Failed = 13,
    /// From the predecessor: it has closed its files.
    Left = 14,
    /// From the predecessor: what it still has.
    Numbers = 15,
    /// From the successor: which connections has the predecessor? And the answer.
    AskConnections = 16,
    Connections = 17,
    /// From the successor: end by then.
    Deadline = 18,
    /// From the successor: it drains, and so should the predecessor.
    Drain = 19,
}

const KINDS: [Kind; 19] = [
    Kind::Hello,
    Kind::Offer,
    Kind::Sockets,
    Kind::Take,
    Kind::Nodes,
    Kind::Table,
    Kind::TableEnd,
    Kind::Prepared,
    Kind::Links,
    Kind::Legacy,
    Kind::Final,
    Kind::Serving,
    Kind::Failed,
    Kind::Left,
    Kind::Numbers,
    Kind::AskConnections,
    Kind::Connections,
    Kind::Deadline,
    Kind::Drain,
];

pub struct Message {
    pub kind: Kind,
    pub bytes: Vec<u8>,
    pub files: Vec<OwnedFd>,
}

impl Message {
    /// Reads what [`Sender::tell`] has written.
    pub fn content<T: DeserializeOwned>(&self) -> Result<T, Broken> {
        serde_json::from_slice(&self.bytes).map_err(|error| Broken::Nonsense(format!("{:?}: {error}", self.kind)))
    }
}

/// Why nothing more comes.
#[derive(Debug)]
pub enum Broken {
    /// The other process has closed its end, most likely because it has ended.
    Closed,
    /// Nothing came in time.
    Late,
    /// What came is not of this protocol.
    Nonsense(String),
    Error(io::Error),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Closed => f.write_str("the other process has closed the wire"),
            Broken::Late => f.write_str("nothing came in time"),
            Broken::Nonsense(what) => write!(f, "what came is no message of the handover: {what}"),
            Broken::Error(error) => write!(f, "{error}"),
        }
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Broken {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Broken::Late,
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Broken::Closed,
            _ => Broken::Error(error),
        }
    }
}

/// Makes of one end what sends and what receives.
pub fn split(socket: UnixStream) -> (Sender, Receiver) {
    let socket = Arc::new(socket);
    (Sender { socket: socket.clone(), turn: Mutex::new(()) }, Receiver { socket, files: VecDeque::new() })
}

/// How long the other process may take nothing.
const UNREAD: Duration = Duration::from_secs(30);

/// The sending half. Several threads may have it.
pub struct Sender {
    socket: Arc<UnixStream>,
    turn: Mutex<()>,
}

impl Sender {
    /// Sends a message, with at most [`FILES`] files.
    pub fn send(&self, kind: Kind, bytes: &[u8], files: &[OwnedFd]) -> Result<(), Broken> {
        if bytes.len() > MOST {
            return Err(Broken::Nonsense(format!("{kind:?} of {} bytes", bytes.len())));
        }
        let mut header = [kind as u8, files.len() as u8, 0, 0, 0, 0, 0, 0];
        header[4..].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        let _turn = lock(&self.turn);
        self.socket.set_write_timeout(Some(UNREAD))?;
        let sent = rights::send_with_files(self.socket.as_fd(), &header, files)?;
        self.put(&header[sent..])?;
        self.put(bytes)
    }

    fn put(&self, mut bytes: &[u8]) -> Result<(), Broken> {
        while !bytes.is_empty() {
            match rights::send_with_files(self.socket.as_fd(), bytes, &[]) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Sends a message that is JSON.
    pub fn tell(&self, kind: Kind, content: &impl Serialize) -> Result<(), Broken> {
        let bytes = serde_json::to_vec(content).map_err(|error| Broken::Error(error.into()))?;
        self.send(kind, &bytes, &[])
    }

    /// Sends any number of files, in several messages.
    pub fn send_files(&self, kind: Kind, files: &[OwnedFd]) -> Result<(), Broken> {
        files.chunks(FILES).try_for_each(|some| self.send(kind, &[], some))
    }
}

/// The receiving half.
pub struct Receiver {
    socket: Arc<UnixStream>,
    /// Those that came with bytes that are read, and belong to a message that is not.
    files: VecDeque<OwnedFd>,
}

impl Receiver {
    /// Waits for the next message until then.
    pub fn receive(&mut self, deadline: Instant) -> Result<Message, Broken> {
        let mut header = [0; HEADER];
        self.fill(&mut header, deadline)?;
        let [kind, files, _, _, length @ ..] = header;
        let kind = KINDS.into_iter().find(|known| *known as u8 == kind);
        let kind = kind.ok_or_else(|| Broken::Nonsense(format!("a message of kind {}", header[0])))?;
        let length = u32::from_le_bytes(length) as usize;
        if length > MOST {
            return Err(Broken::Nonsense(format!("{kind:?} of {length} bytes")));
        }
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let start = bytes.len();
            bytes.resize(length.min(start + BITE), 0);
            self.fill(&mut bytes[start..], deadline)?;
        }
        let files: Vec<OwnedFd> = self.files.drain(..self.files.len().min(usize::from(files))).collect();
        match files.len() == usize::from(header[1]) {
            true => Ok(Message { kind, bytes, files }),
            false => Err(Broken::Nonsense(format!("{kind:?} without its files"))),
        }
    }

    fn fill(&mut self, mut bytes: &mut [u8], deadline: Instant) -> Result<(), Broken> {
        let mut came = Vec::new();
        while !bytes.is_empty() {
            let patience = deadline.saturating_duration_since(Instant::now());
            if patience.is_zero() {
                return Err(Broken::Late);
            }
            self.socket.set_read_timeout(Some(patience))?;
            let received = rights::receive_with_files(self.socket.as_fd(), bytes, &mut came);
            self.files.extend(came.drain(..));
            match received {
                Ok(0) => return Err(Broken::Closed),
                Ok(count) => bytes = &mut bytes[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[test]
    fn messages_and_files_arrive_in_order() {
        let (here, there) = UnixStream::pair().unwrap();
        let (sender, receiving) = split(here);
        drop(receiving);
        let (_there, mut receiver) = split(there);
        let files = |count| -> Vec<OwnedFd> { (0..count).map(|_| File::open("/dev/null").unwrap().into()).collect() };
        let long = vec![7; 3 * BITE + 1];
        let sending = std::thread::spawn(move || {
            sender.tell(Kind::Hello, &("a", 1)).unwrap();
            sender.send_files(Kind::Sockets, &files(FILES + 3)).unwrap();
            sender.send(Kind::Table, &long, &[]).unwrap();
            sender
        });
        let hello = receiver.receive(soon()).unwrap();
        assert_eq!((hello.kind, hello.content::<(String, u8)>().unwrap()), (Kind::Hello, ("a".to_owned(), 1)));
        assert!(hello.content::<u8>().is_err());
        let counts = [(); 2].map(|()| receiver.receive(soon()).unwrap().files.len());
        assert_eq!(counts, [FILES, 3]);
        let table = receiver.receive(soon()).unwrap();
        assert_eq!((table.kind, table.bytes.len()), (Kind::Table, 3 * BITE + 1));
        let sender = sending.join().unwrap();
        assert!(matches!(receiver.receive(Instant::now() + Duration::from_millis(20)), Err(Broken::Late)));
        drop(sender);
        assert!(matches!(receiver.receive(soon()), Err(Broken::Closed)));
    }

    #[test]
    fn what_is_no_message_is_refused_and_no_room_is_made_for_it() {
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[1, 0, 0, 0, 255, 255, 255, 255], &[3, 1, 0, 0, 0, 0, 0, 0]] {
            let (mut here, there) = UnixStream::pair().unwrap();
            let (_sender, mut receiver) = split(there);
            here.write_all(bytes).unwrap();
            assert!(matches!(receiver.receive(soon()), Err(Broken::Nonsense(_))), "{bytes:?}");
        }
        // Cut off within a message.
        let (mut here, there) = UnixStream::pair().unwrap();
        let (_sender, mut receiver) = split(there);
        here.write_all(&[6, 0, 0, 0, 9, 0, 0, 0, 1, 2]).unwrap();
        drop(here);
        assert!(matches!(receiver.receive(soon()), Err(Broken::Closed)));
    }
}
