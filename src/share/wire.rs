//! A connection to one Redis server. Commands are queued and sent together; each reply is awaited for a bounded time.

use super::access::Access;
use super::reply::{Contents, Reply};
use super::trouble::Trouble;
use redis::{Client, Cmd, Connection, ErrorKind, RedisError};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(2);

/// How long a server may be silent while a reply is awaited, or take nothing while a command is sent.
const PATIENCE: Duration = Duration::from_secs(2);

/// Threads of ours that may wait for a connection at a time, with those that nobody waits for any more.
const OPENING: usize = 16;

pub struct Wire {
    connection: Connection,
    output: Vec<u8>,
}

impl Wire {
    /// Connects and proves who we are.
    pub fn open(host: &str, port: u16, access: &Access) -> Result<Wire, Trouble> {
        let mut wire = Wire::open_unproved(host, port, access)?;
        if let Some(password) = &access.credentials.password {
            let user = access.credentials.user.as_bytes();
            match user.is_empty() {
                true => wire.call(&[b"AUTH", password])?,
                false => wire.call(&[b"AUTH", user, password])?,
            };
        }
        Ok(wire)
    }

    /// Connects to a server that asks nobody who they are.
    pub fn open_unproved(host: &str, port: u16, access: &Access) -> Result<Wire, Trouble> {
        let client = access.client(host, port)?;
        let connection = connect(client, access)?;
        connection.set_read_timeout(Some(PATIENCE)).map_err(lost)?;
        connection.set_write_timeout(Some(PATIENCE)).map_err(lost)?;
        Ok(Wire { connection, output: Vec::new() })
    }

    /// Grants the server so much more time for each reply: it is asked to wait.
    pub fn grant(&self, more: Duration) -> Result<(), Trouble> {
        self.connection.set_read_timeout(Some(PATIENCE + more)).map_err(lost)
    }

    /// Queues a command.
    pub fn put(&mut self, words: &[&[u8]]) {
        let mut command = Cmd::new();
        for word in words {
            command.arg(*word);
        }
        command.write_packed_command(&mut self.output);
    }

    /// Sends what is queued.
    pub fn flush(&mut self) -> Result<(), Trouble> {
        if !self.output.is_empty() {
            self.connection.send_packed_command(&self.output).map_err(lost)?;
            self.output.clear();
        }
        Ok(())
    }

    /// Returns the reply to the earliest command that was sent and whose reply was not read. After an error the connection is of no
    /// use: later replies would be taken for those of other commands.
    pub fn read(&mut self) -> Result<Reply, Trouble> {
        self.connection.recv_response().map_err(lost)
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
    match reply.error() {
        Some(why) => Err(Trouble::Refused(why)),
        None => Ok(reply),
    }
}

/// Connects on a thread of its own: the crate looks up a name and shakes hands over TLS for as long as that takes, and neither may hold
/// us up. A server that is silent keeps such a thread until it speaks or its machine is gone; there are never many.
fn connect(client: Client, access: &Access) -> Result<Connection, Trouble> {
    let late = || Trouble::Lost("it does not answer in time".to_owned());
    let opening = access.opening.clone();
    if Arc::strong_count(&opening) > OPENING {
        return Err(late());
    }
    let (sender, receiver) = sync_channel(1);
    let open = move || {
        // Nobody may be there to take it.
        let _ = sender.send(client.get_connection_with_timeout(CONNECT));
        drop(opening);
    };
    let spawned = thread::Builder::new().name("redis".to_owned()).spawn(open);
    spawned.map_err(|error| Trouble::Lost(error.to_string()))?;
    receiver.recv_timeout(2 * CONNECT).map_err(|_| late())?.map_err(lost)
}

fn lost(error: RedisError) -> Trouble {
    let why = match (error.kind(), error.detail()) {
        _ if error.is_timeout() => "it does not answer in time".to_owned(),
        (ErrorKind::Parse, _) => format!("what it says is not the protocol of Redis: {}", one_line(&error.to_string())),
        // Of the handshake over TLS: the library's words, and behind them, in brackets, what is wrong with the certificate.
        (ErrorKind::Io, Some(words)) => match words.strip_suffix(')').and_then(|words| words.rsplit_once(" (")) {
            Some((_, why)) => format!("its certificate is not accepted: {why}"),
            None => format!("the TLS handshake fails: {}", one_line(words)),
        },
        _ => match one_line(&error.to_string()).as_str() {
            "unexpected end of file" => "it has closed the connection".to_owned(),
            words => words.to_owned(),
        },
    };
    Trouble::Lost(why)
}

fn one_line(words: &str) -> String {
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{SharedStore, StoreKind};
    use crate::share::access::Credentials;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Instant;

    fn access(port: u16, is_secure: bool) -> Access {
        let store = SharedStore { kind: StoreKind::Single, is_secure, hosts: vec![("127.0.0.1".to_owned(), port)], db: 0 };
        Access::new(store, Credentials::default(), None).unwrap()
    }

    /// What is said of a server that answers a command so.
    fn trouble_with(answer: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let _ = stream.read(&mut [0; 100]);
            stream.write_all(answer).unwrap();
        });
        let mut wire = Wire::open("127.0.0.1", port, &access(port, false)).unwrap();
        let trouble = wire.call(&[b"PING"]).unwrap_err();
        server.join().unwrap();
        trouble.to_string()
    }

    #[test]
    fn what_is_wrong_with_a_server_is_said_in_words() {
        let said = trouble_with(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        assert!(said.starts_with("what it says is not the protocol of Redis") && !said.contains('\n'), "{said}");
        assert_eq!(trouble_with(b""), "it has closed the connection");
        // Nothing is made ready for what has not come.
        assert_eq!(trouble_with(b"*9000000000000000000\r\n"), "it has closed the connection");
        assert_eq!(trouble_with(b"-WRONGTYPE it is\r\n"), "it answers \"WRONGTYPE it is\"");
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let refused = Wire::open("127.0.0.1", free, &access(free, false)).err().unwrap();
        assert!(refused.to_string().contains("Connection refused"), "{refused}");
    }

    /// Neither in the middle of a handshake nor afterwards; and its threads are not more and more.
    #[test]
    fn a_server_that_is_silent_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        for is_secure in [true, false] {
            let (access, start) = (access(port, is_secure), Instant::now());
            let outcome = Wire::open("127.0.0.1", port, &access).and_then(|mut wire| wire.call(&[b"PING"]));
            assert_eq!(outcome.err().map(|trouble| trouble.to_string()), Some("it does not answer in time".to_owned()));
            assert!(start.elapsed() < Duration::from_secs(6));
        }
        let access = access(port, true);
        let held: Vec<Arc<()>> = (0..OPENING).map(|_| access.opening.clone()).collect();
        let start = Instant::now();
        assert!(Wire::open("127.0.0.1", port, &access).is_err() && start.elapsed() < Duration::from_secs(1));
        drop(held);
    }
}
