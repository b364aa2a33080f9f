//! The wire under a flow: where messages leave from and arrive at, over UDP, TCP and TLS. A flow sees ends and links: an end is what Via and
//! Contact say, a link is the socket or the connection of the moment.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use socket2::Socket;

use crate::flow::{Flow, Turn};
use crate::frame::{self, Frame};
use crate::mark::{self, Mark};
use crate::sockets;
use crate::stats::{Count, Counts, Stats};
use crate::stream::{READ_BUFFER, Streams};
use crate::sys::{self, DATAGRAM, Datagrams, Inbox};
use crate::tls::Endpoint;

/// Datagrams in one system call at most.
pub const BATCH: usize = 32;

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
}

impl Transport {
    pub fn in_via(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
        }
    }

    /// The URI parameter that leads a request here.
    pub fn in_uri(self) -> &'static str {
        match self {
            Transport::Udp => "",
            Transport::Tcp => ";transport=tcp",
            Transport::Tls => ";transport=tls",
        }
    }

    /// Nothing is sent again but the 2xx (RFC 3261 §17.1, §13.3.1.4).
    pub fn is_reliable(self) -> bool {
        self != Transport::Udp
    }
}

/// Which of the two ends a socket belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Caller,
    Answerer,
    /// Registers users whose contacts are elsewhere.
    Registrar,
}

/// How an end comes by its link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// A UDP socket.
    Socket,
    /// One connection for all.
    Persistent,
    /// A connection for each call, closed when the call is done.
    PerCall,
    /// Connections that the server opens, and closes.
    Listening,
    /// The same, but closed here when the call is done.
    ListeningPerCall,
}

/// One end's address on the wire.
#[derive(Clone, Copy, Debug)]
pub struct Local {
    pub side: Side,
    pub transport: Transport,
    pub manner: Manner,
    /// What Via and Contact say.
    pub address: SocketAddr,
    /// The contacts of the users name this many addresses of 127.0.0.0/8 in turn, so that a server which keeps one connection for each address
    /// opens one for each user. 0: they all name `address`.
    pub spread: u32,
}

/// Names a socket, or a connection while it lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Link {
    /// Index of its end.
    pub end: u32,
    pub slot: u32,
    pub generation: u32,
}

/// Ends of one kind, to be opened.
pub struct Opening {
    /// The port is the first of the sockets, the listener's, or what a per-call end says of itself.
    pub local: Local,
    /// Sockets, or persistent connections.
    pub count: u32,
    pub server: SocketAddr,
    pub tls: Option<Endpoint>,
    /// Connections leave from this many addresses in turn, from ours upwards.
    pub sources: u32,
}

/// An end that is open.
struct Place {
    local: Local,
    opening: Rc<Opening>,
    /// Of the sources, the next in turn.
    source: u32,
    /// Its socket, or the last connection that it has opened.
    link: Link,
}

/// All that sends. `Wire` receives.
pub struct Outbox {
    datagrams: Datagrams,
    pub streams: Streams,
    places: Vec<Place>,
    sockets: Vec<(Link, Socket)>,
    /// Bytes before each message: of its mark, in a floor with connections; otherwise none.
    room: usize,
}

impl Outbox {
    /// `floor`: between the ends stands a relay, which needs marks where there are connections.
    pub fn open(openings: Vec<Opening>, floor: bool) -> io::Result<Outbox> {
        let has_connections = openings.iter().any(|opening| opening.local.transport.is_reliable());
        let mut outbox = Outbox {
            datagrams: Datagrams::new(Vec::new(), 4 * BATCH),
            streams: Streams::new()?,
            places: Vec::new(),
            sockets: Vec::new(),
            room: match floor && has_connections {
                true => mark::LENGTH,
                false => 0,
            },
        };
        for opening in openings.into_iter().map(Rc::new) {
            for number in 0..opening.count {
                outbox.open_one(&opening, number)?;
            }
        }
        // Now that whoever listens here does: without a server between, it is ourselves that we connect to.
        for end in 0..outbox.places.len() {
            if outbox.places[end].local.manner == Manner::Persistent {
                outbox.places[end].local.address = outbox.dial(end as u32)?;
            }
        }
        let fds = outbox.sockets.iter().map(|(_, socket)| socket.as_raw_fd());
        outbox.datagrams = Datagrams::new(fds.collect(), 4 * BATCH);
        Ok(outbox)
    }

    fn open_one(&mut self, opening: &Rc<Opening>, number: u32) -> io::Result<()> {
        let mut local = opening.local;
        let mut link = Link { end: self.places.len() as u32, ..Link::default() };
        match local.manner {
            Manner::Socket => {
                if local.address.port() != 0 {
                    local.address.set_port(local.address.port() + number as u16);
                }
                let socket = sockets::udp(local.address)?;
                socket.connect(&opening.server.into())?;
                socket.set_nonblocking(true)?;
                local.address = socket.local_addr()?.as_socket().unwrap_or(local.address);
                link.slot = self.sockets.len() as u32;
                self.sockets.push((link, socket));
            }
            Manner::Listening | Manner::ListeningPerCall => {
                let any = match local.spread {
                    0 => local.address,
                    _ => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), local.address.port()),
                };
                self.streams.listen(link.end, any, Rc::clone(opening))?;
            }
            Manner::Persistent | Manner::PerCall => {}
        }
        self.places.push(Place { local, opening: Rc::clone(opening), source: number, link });
        Ok(())
    }

    /// Opens a connection for a stream end and makes it the end's link. Returns its own address.
    fn dial(&mut self, end: u32) -> io::Result<SocketAddr> {
        let place = &mut self.places[end as usize];
        let opening = &place.opening;
        let from = upwards(opening.local.address.ip(), place.source % opening.sources.max(1));
        place.source = place.source.wrapping_add(1);
        let (link, own) = self.streams.connect(end, from, opening.server, opening.tls.as_ref())?;
        place.link = link;
        Ok(own)
    }

    /// The link for a new call or request from this end; `None` where no connection can be opened.
    pub fn begin(&mut self, end: u32) -> Option<Link> {
        let place = &self.places[end as usize];
        let is_new = match place.local.manner {
            Manner::Socket => false,
            Manner::Persistent => !self.streams.is_live(place.link),
            Manner::PerCall => true,
            Manner::Listening | Manner::ListeningPerCall => return None,
        };
        if is_new && let Err(error) = self.dial(end) {
            self.streams.counts.add(Count::SendErrors);
            if self.streams.counts.get(Count::SendErrors) <= 3 {
                eprintln!("strowger-load: cannot connect: {error}");
            }
            return None;
        }
        Some(self.places[end as usize].link)
    }

    pub fn locals(&self) -> Vec<Local> {
        self.places.iter().map(|place| place.local).collect()
    }

    /// The call on this link is over.
    pub fn done(&mut self, link: Link) {
        if matches!(self.places[link.end as usize].local.manner, Manner::PerCall | Manner::ListeningPerCall) {
            self.streams.close(link);
        }
    }

    pub fn is_reliable(&self, link: Link) -> bool {
        self.places[link.end as usize].local.transport.is_reliable()
    }

    /// The buffer of the next message; `commit` makes it one.
    pub fn buffer(&mut self) -> &mut [u8] {
        &mut self.datagrams.buffer()[self.room..]
    }

    /// The message in the buffer is whole; none, if it has no length.
    pub fn commit(&mut self, link: Link, length: usize) {
        if length == 0 {
            return self.streams.counts.add(Count::SendErrors);
        }
        if self.room > 0 {
            let buffer = self.datagrams.buffer();
            let mark = Mark::of(&buffer[self.room..][..length]);
            buffer[..self.room].copy_from_slice(&mark.bytes());
        }
        let length = self.room + length;
        if !self.is_reliable(link) {
            return self.datagrams.commit(link.slot as usize, length);
        }
        debug_assert!(length <= DATAGRAM);
        self.streams.send(link, &self.datagrams.buffer()[..length]);
    }

    /// A message that is there already.
    pub fn send(&mut self, link: Link, message: &[u8]) {
        self.buffer()[..message.len()].copy_from_slice(message);
        self.commit(link, message.len());
    }

    /// Sends what waits: datagrams in batches, and one write for each connection.
    pub fn flush(&mut self) {
        self.datagrams.flush();
        self.streams.flush();
    }

    /// What has been sent, and what became of connections.
    pub fn counts(&self) -> Counts {
        self.datagrams.counts.plus(&self.streams.counts)
    }

    /// Takes leave of the server on all persistent connections.
    pub fn close_all(&mut self) {
        for place in &self.places {
            self.streams.close(place.link);
        }
        self.streams.flush();
    }

    /// The sockets at which the kernel may drop datagrams of ours.
    pub fn udp_addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|(link, _)| self.places[link.end as usize].local.address).collect()
    }

    /// Persistent connections that are not open yet.
    pub fn unopened(&self) -> usize {
        let persistent = self.places.iter().filter(|place| place.local.manner == Manner::Persistent);
        persistent.filter(|place| !self.streams.is_open(place.link)).count()
    }
}

/// The address that is so many above this one.
fn upwards(address: IpAddr, offset: u32) -> IpAddr {
    match address {
        IpAddr::V4(first) => Ipv4Addr::from(u32::from(first) + offset).into(),
        IpAddr::V6(first) => Ipv6Addr::from(u128::from(first) + u128::from(offset)).into(),
    }
}

/// The host that the contact of this user names, where contacts are spread.
pub fn spread_host(user: u32, spread: u32) -> String {
    let number = user % spread;
    format!("127.{}.{}.{}", 100 + number / 10_000 % 100, 100 + number / 100 % 100, 100 + number % 100)
}

/// The receiving half: a batch of datagrams, or the bytes of one connection.
pub struct Wire {
    sockets: Vec<(Link, RawFd)>,
    inbox: Inbox,
    bytes: Box<[u8]>,
}

impl Wire {
    pub fn new(out: &Outbox) -> Wire {
        Wire {
            sockets: out.sockets.iter().map(|(link, socket)| (*link, socket.as_raw_fd())).collect(),
            inbox: Inbox::new(BATCH),
            bytes: vec![0; READ_BUFFER].into_boxed_slice(),
        }
    }

    /// Gives the flow what has come: a batch from each socket, and all whole messages of each connection that has something. What the flow says
    /// leaves once for each. Returns whether there was anything.
    pub fn receive<F: Flow>(&mut self, flow: &mut F, now_ns: &dyn Fn() -> u64, out: &mut Outbox, stats: &mut Stats) -> bool {
        let mut worked = false;
        for (link, socket) in &self.sockets {
            let count = match self.inbox.receive(*socket) {
                Ok(count) => count,
                Err(error) => {
                    stats.wrong(&format!("receive: {error}"), b"");
                    0
                }
            };
            if count == 0 {
                continue;
            }
            worked = true;
            let mut turn = Turn { now_ns: now_ns(), out, stats };
            let mut bytes = 0;
            for index in 0..count {
                let raw = self.inbox.datagram(index);
                bytes += raw.len() as u64;
                flow.receive(*link, raw.get(turn.out.room..).unwrap_or_default(), &mut turn);
            }
            stats.counts.add_many(Count::Received, count as u64);
            stats.counts.add_many(Count::ReceivedBytes, bytes);
            out.flush();
        }
        worked |= out.streams.look();
        while let Some(link) = out.streams.next_ready() {
            self.receive_stream(link, flow, &mut Turn { now_ns: now_ns(), out, stats });
            out.flush();
        }
        while let Some(link) = out.streams.next_lost() {
            flow.lost(link, &mut Turn { now_ns: now_ns(), out, stats });
        }
        worked
    }

    fn receive_stream<F: Flow>(&mut self, link: Link, flow: &mut F, turn: &mut Turn) {
        loop {
            let reading = turn.out.streams.read(link, &mut self.bytes);
            let mut rest = &self.bytes[..reading.length];
            loop {
                let (frame, room) = match turn.out.room {
                    0 => (frame::next(rest), 0),
                    room => (frame::next_marked(rest), room),
                };
                match frame {
                    Frame::Message { skip, length } => {
                        let raw = &rest[skip..skip + length];
                        rest = &rest[skip + length..];
                        turn.stats.counts.add(Count::Received);
                        turn.stats.counts.add_many(Count::ReceivedBytes, (room + length) as u64);
                        flow.receive(link, raw, turn);
                    }
                    Frame::Partial { skip } => {
                        rest = &rest[skip..];
                        break;
                    }
                    Frame::Broken(why) => {
                        turn.stats.wrong(why, rest);
                        return turn.out.streams.fail(link, why);
                    }
                }
            }
            if reading.over {
                return turn.out.streams.ended(link);
            }
            if !rest.is_empty() {
                turn.out.streams.keep(link, rest);
            }
            if !reading.more {
                return;
            }
        }
    }

    /// Sleeps until something has come or the time is over.
    pub fn wait(&self, out: &Outbox, nanoseconds: u64) {
        let sockets = self.sockets.iter().map(|(_, fd)| *fd);
        sys::wait_readable([out.streams.fd()].into_iter().chain(sockets), nanoseconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_hosts_are_of_one_width_and_differ() {
        let hosts: std::collections::HashSet<String> = (0..10_000).map(|user| spread_host(user, 10_000)).collect();
        assert_eq!(hosts.len(), 10_000);
        assert!(hosts.iter().all(|host| host.len() == "127.100.100.100".len()));
        assert_eq!(spread_host(10_001, 10_000), "127.100.100.101");
    }
}
