//! The UDP socket of one listener on one core: a bounded batch in, batches out, and a short queue for what the kernel does not take
//! at once.

use super::backlog::Backlog;
use super::counters::{ListenerCounters, Undeliverable};
use super::pressure;
use super::shed;
use super::steer::{self, Mark};
use super::sys::{self, Datagram, IcmpError, Inbound, Outbound, filter};
use crate::base::{Shed, Span, Transport};
use crate::settings::{self, Words};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// Sizes of what one socket holds, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Buffers {
    /// Requested from the kernel (SO_RCVBUF); the size granted is in [`ListenerCounters::receive_buffer`].
    pub receive: usize,
    /// Requested from the kernel (SO_SNDBUF).
    pub send: usize,
    /// Limit of our own queue, used while the kernel accepts nothing.
    pub send_queue: usize,
}

impl Buffers {
    pub fn new(udp: &settings::Udp) -> Self {
        Buffers { receive: udp.receive_buffer, send: udp.send_buffer, send_queue: 1 << 20 }
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Buffers::new(&settings::Udp::default())
    }
}

/// A listener that could not be opened.
#[derive(Debug)]
pub struct BindError {
    pub transport: Transport,
    pub address: SocketAddr,
    pub error: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = self.transport.word();
        write!(f, "cannot listen on {transport} {}: ", self.address)?;
        match self.error.kind() {
            io::ErrorKind::AddrInUse => f.write_str("address in use by another socket"),
            io::ErrorKind::AddrNotAvailable => f.write_str("no interface has this address"),
            io::ErrorKind::PermissionDenied => f.write_str("permission denied"),
            _ => write!(f, "{}", self.error),
        }
    }
}

impl std::error::Error for BindError {}

/// A socket for sending, and the socket that keeps the address it is connected to unused.
struct Sender {
    socket: UdpSocket,
    _nobody: UdpSocket,
}

/// One non-blocking socket.
pub struct Udp {
    socket: UdpSocket,
    /// The socket that datagrams are sent from ([`Udp::open_sender`]); if `None`, the receiving socket itself.
    sender: Option<Sender>,
    address: SocketAddr,
    /// Bound to a wildcard: the kernel reports for each datagram which of our addresses it was sent to.
    has_local: bool,
    counters: ListenerCounters,
    backlog: Backlog,
    /// The last value of the kernel's drop counter, which wraps.
    drops_seen: u32,
    /// The receive buffer was nearly full at the last reading.
    was_full: bool,
    /// What the kernel currently drops unread.
    shed: Option<Shed>,
    /// Routers may currently fragment what is sent.
    is_fragmenting: bool,
    /// It was taken over, and has no sender yet: whether the address has several sockets, and their sizes.
    joins_later: Option<(bool, Buffers)>,
    /// How often the sender is still to be read.
    looks_for_strays: u8,
}

/// How often a new sender is read: what arrives while it is connected is queued a moment later.
const LOOKS: u8 = 8;

fn outgoing<'a>(sender: &'a Option<Sender>, receiver: &'a UdpSocket) -> &'a UdpSocket {
    match sender {
        Some(sender) => &sender.socket,
        None => receiver,
    }
}

/// The longest datagram that every path carries unfragmented: IPv6's minimum MTU minus headers.
const CARRIED_WHOLE: usize = 1280 - 40 - 8;

impl Udp {
    /// Opens `cores` sockets on one address, one for each worker; with port 0 the kernel chooses one port for all of them.
    ///
    /// Several sockets share the address by SO_REUSEPORT. The first is bound without it, so that a socket of another process
    /// (another instance of this server, for example) causes an error here instead of silently sharing the traffic; the others then
    /// join it.
    pub fn bind(address: SocketAddr, cores: usize, buffers: &Buffers) -> Result<Vec<Udp>, BindError> {
        let mut sockets: Vec<Udp> = Vec::with_capacity(cores);
        let mut bound = address;
        for number in 0..cores.max(1) {
            let udp = Udp::open(bound, number > 0, cores > 1, buffers).map_err(|error| BindError {
                transport: Transport::Udp,
                address,
                error,
            })?;
            bound = udp.address;
            sockets.push(udp);
        }
        // All receivers are bound before the first sender joins them: the filter that steers responses counts them in this order.
        for udp in &mut sockets {
            udp.take_sender(cores > 1, buffers);
        }
        Ok(sockets)
    }

    /// Takes over the sockets that another process has bound to one address, with what is queued in them. They keep their order, and
    /// the filter that steers responses.
    pub fn inherit(address: SocketAddr, inherited: Vec<OwnedFd>, buffers: &Buffers) -> Result<Vec<Udp>, BindError> {
        let adopt = |fd: OwnedFd| {
            let socket = Socket::from(fd);
            Udp::set_up(&socket, address, buffers)?;
            Udp::wrap(socket, buffers)
        };
        let is_shared = inherited.len() > 1;
        let sockets: io::Result<Vec<Udp>> = inherited.into_iter().map(adopt).collect();
        let mut sockets = sockets.map_err(|error| BindError { transport: Transport::Udp, address, error })?;
        sockets.iter_mut().for_each(|udp| udp.joins_later = Some((is_shared, *buffers)));
        Ok(sockets)
    }

    /// Opens the sender of a socket that was taken over. Not before it is read: until the sender is connected, which is a moment
    /// after it is bound, it is one of the sockets among which the kernel divides what arrives. Returns whether that may have
    /// happened: then [`Udp::receive`] reads it too.
    pub fn join(&mut self) -> bool {
        let Some((is_shared, buffers)) = self.joins_later.take() else {
            return false;
        };
        self.take_sender(is_shared, &buffers);
        self.looks_for_strays = if self.sender.is_some() { LOOKS } else { 0 };
        self.sender.is_some()
    }

    fn take_sender(&mut self, is_shared: bool, buffers: &Buffers) {
        match self.open_sender(is_shared, buffers) {
            Ok(sender) => self.sender = sender,
            Err(error) => log::debug!("udp {}: no socket of its own to send by: {error}", self.address),
        }
    }

    /// Opens a second socket on the same address for sending. For each datagram that has left a socket, the kernel wakes whatever
    /// polls it, to report that there is room again. The receiving socket is polled all the time, the sender only while there is no
    /// room, which saves a tenth of the cost of sending. The sender is connected to an unused address, so that no datagram is ever
    /// delivered to it. `None` for a wildcard: connecting would fix one of its addresses as the source of everything.
    fn open_sender(&self, is_shared: bool, buffers: &Buffers) -> io::Result<Option<Sender>> {
        let address = self.address;
        if address.ip().is_unspecified() {
            return Ok(None);
        }
        let kind = Type::DGRAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // Nothing else can send from a port while we hold it.
        let nobody = UdpSocket::bind(SocketAddr::new(address.ip(), 0))?;
        socket.set_reuse_port(true)?;
        socket.set_send_buffer_size(buffers.send)?;
        sys::allow_fragments(socket.as_fd(), address.is_ipv4(), false)?;
        let receiver = SockRef::from(&self.socket);
        receiver.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.connect(&nobody.local_addr()?.into())?;
        // A lone receiver leaves the group again: a socket that joins now is refused, and the kernel need not choose.
        receiver.set_reuse_port(is_shared)?;
        Ok(Some(Sender { socket: UdpSocket::from(socket), _nobody: nobody }))
    }

    fn open(address: SocketAddr, joins: bool, is_shared: bool, buffers: &Buffers) -> io::Result<Udp> {
        let kind = Type::DGRAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if joins {
            socket.set_reuse_port(true)?;
        }
        Udp::set_up(&socket, address, buffers)?;
        socket.bind(&address.into())?;
        if is_shared && !joins {
            socket.set_reuse_port(true)?;
        }
        Udp::wrap(socket, buffers)
    }

    /// Sets the options of a receiving socket that do not depend on the others of its address.
    fn set_up(socket: &Socket, address: SocketAddr, buffers: &Buffers) -> io::Result<()> {
        socket.set_recv_buffer_size(buffers.receive)?;
        socket.set_send_buffer_size(buffers.send)?;
        sys::queue_icmp_errors(socket.as_fd(), address.is_ipv4())?;
        sys::allow_fragments(socket.as_fd(), address.is_ipv4(), false)?;
        match address.ip().is_unspecified() {
            true => sys::ask_local_address(socket.as_fd(), address.is_ipv4()),
            false => Ok(()),
        }
    }

    fn wrap(socket: Socket, buffers: &Buffers) -> io::Result<Udp> {
        let counters = ListenerCounters {
            receive_buffer: socket.recv_buffer_size()? as u64,
            send_buffer: socket.send_buffer_size()? as u64,
            ..ListenerCounters::default()
        };
        let socket = UdpSocket::from(socket);
        let address = socket.local_addr()?;
        // One that was bound by another process has counted before.
        let drops_seen = sys::waiting(socket.as_fd()).map_or(0, |waiting| waiting.drops);
        Ok(Udp {
            address,
            socket,
            sender: None,
            has_local: address.ip().is_unspecified(),
            counters,
            backlog: Backlog::new(buffers.send_queue),
            drops_seen,
            was_full: false,
            shed: None,
            is_fragmenting: false,
            joins_later: None,
            looks_for_strays: 0,
        })
    }

    /// Has the kernel deliver responses to the socket whose number follows `mark` in them ([`steer`]). One call covers all sockets
    /// that share the address.
    pub fn steer(&self, mark: &Mark) -> io::Result<()> {
        steer::attach(self.socket.as_fd(), mark)
    }

    /// Permits fragmentation on the path for long datagrams; others need not pay for it.
    fn fragment(&mut self, is_long: bool) {
        if is_long != self.is_fragmenting {
            let allowed = sys::allow_fragments(outgoing(&self.sender, &self.socket).as_fd(), self.address.is_ipv4(), is_long);
            match allowed {
                Ok(()) => self.is_fragmenting = is_long,
                Err(error) => log::debug!("udp {}: fragmentation: {error}", self.address),
            }
        }
    }

    /// Returns the bound address, with the port that the kernel chose for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Returns another descriptor of the receiving socket, for another process.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }

    /// Returns the socket that datagrams are sent from, if it is a separate one.
    pub fn sender_fd(&self) -> Option<RawFd> {
        self.sender.as_ref().map(|sender| sender.socket.as_raw_fd())
    }

    /// Fills `inbound` with what has arrived and returns the number of datagrams. If that is less than its capacity, the socket is
    /// drained.
    pub fn receive(&mut self, inbound: &mut Inbound) -> io::Result<usize> {
        let strays = match self.looks_for_strays {
            0 => 0,
            _ => self.receive_strays(inbound),
        };
        let count = match strays {
            0 => inbound.receive(self.socket.as_fd(), self.has_local)?,
            strays => strays,
        };
        if count > 0 {
            self.counters.received.batches += 1;
            for number in 0..count {
                if let Some(datagram) = inbound.get(number) {
                    self.counters.received.count(datagram.bytes);
                }
            }
        }
        Ok(count)
    }

    /// True while the next [`Udp::receive`] reads a new sender too, and may leave what the socket itself holds.
    pub fn looks_for_strays(&self) -> bool {
        self.looks_for_strays > 0
    }

    /// Receives what has come to the sender before it was connected.
    #[cold]
    fn receive_strays(&mut self, inbound: &mut Inbound) -> usize {
        self.looks_for_strays -= 1;
        let sender = self.sender.as_ref().map(|sender| sender.socket.as_fd());
        sender.and_then(|sender| inbound.receive(sender, self.has_local).ok()).unwrap_or(0)
    }

    /// Sends the datagrams that `get` returns for 0 to `count`. What the kernel does not accept now waits in the queue; what cannot
    /// be sent at all is counted, and goes to `lost` if the path is at fault.
    pub fn send<'a>(&mut self, outbound: &mut Outbound, count: usize, get: impl Fn(usize) -> Datagram<'a>, lost: &mut Undelivered) {
        let mut done = 0;
        if self.backlog.is_empty() {
            self.fragment((0..count).any(|number| get(number).bytes.len() > CARRIED_WHOLE));
            let socket = outgoing(&self.sender, &self.socket).as_fd();
            let send = |at: usize| outbound.send(socket, (at..count).map(&get));
            done = push_out(count, &get, send, &mut self.counters, lost);
        }
        for number in done..count {
            if !self.backlog.push(get(number)) {
                self.counters.drop(Undeliverable::SendQueueFull);
            }
        }
    }

    /// True while datagrams wait for the kernel: the only time when writability matters.
    pub fn is_waiting(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Sends what waits, oldest first, now that the kernel accepts datagrams again.
    pub fn send_waiting(&mut self, outbound: &mut Outbound, lost: &mut Undelivered) {
        let waits = |number| self.backlog.get(number).bytes.len();
        self.fragment((0..self.backlog.len()).any(|number| waits(number) > CARRIED_WHOLE));
        let backlog = &self.backlog;
        let socket = outgoing(&self.sender, &self.socket).as_fd();
        let send = |at: usize| {
            let waiting = (at..backlog.len()).map(|number| backlog.get(number));
            outbound.send(socket, waiting)
        };
        let get = |number: usize| backlog.get(number);
        let done = push_out(backlog.len(), get, send, &mut self.counters, lost);
        self.backlog.advance(done);
    }

    /// Takes a bounded number of ICMP errors from the socket's error queue; what they quote of our datagrams goes to `lost`.
    /// Returns true if the queue may hold more.
    pub fn take_icmp_errors(&mut self, lost: &mut Undelivered) -> bool {
        let mut quote = [0u8; Undelivered::QUOTE];
        for _ in 0..ICMP_BITE {
            match sys::take_icmp_error(self.socket.as_fd(), &mut quote) {
                Ok(Some(Some(IcmpError { peer, is_failure: true, quoted }))) => {
                    log::debug!("udp {}: {peer} is not reachable", self.address);
                    self.counters.icmp_errors += 1;
                    lost.push(quote.get(..quoted).unwrap_or(&quote));
                }
                Ok(Some(_)) => {}
                Ok(None) => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    log::warn!("udp {}: error queue: {error}", self.address);
                    return false;
                }
            }
        }
        true
    }

    /// Returns the number of datagrams not sent, by [`Undeliverable`].
    pub fn undelivered(&self) -> &[u64; Undeliverable::ALL.len()] {
        &self.counters.undelivered
    }

    /// Returns the number of bytes received.
    pub fn received_bytes(&self) -> u64 {
        self.counters.received.bytes
    }

    /// Returns what the kernel holds unread and what it has dropped.
    pub fn ask_waiting(&mut self) -> pressure::Backlog {
        let (mut bytes, room) = (0, self.counters.receive_buffer);
        if let Ok(waiting) = sys::waiting(self.socket.as_fd()) {
            let lost = waiting.drops.wrapping_sub(self.drops_seen);
            self.drops_seen = waiting.drops;
            bytes = u64::from(waiting.bytes);
            // The kernel has one counter for what the filter drops and for what finds no room. If the buffer was not nearly full,
            // there was room, because readings follow closely on each other while anything is shed.
            let is_full = bytes > room / 8 * 7;
            let was_full = std::mem::replace(&mut self.was_full, is_full);
            match self.shed.is_some() && !is_full && !was_full {
                true => self.counters.shed += u64::from(lost),
                false => self.counters.kernel_drops += u64::from(lost),
            }
        }
        pressure::Backlog { waiting_bytes: bytes, is_filling: bytes > room / 2, lost: self.counters.kernel_drops }
    }

    /// From now on the kernel drops what `shed` selects before it is queued (`None`: nothing). On an error, everything is queued.
    pub fn shed(&mut self, shed: Option<Shed>) -> io::Result<()> {
        if shed == self.shed {
            return Ok(());
        }
        // Drops until now are attributed to the previous program.
        self.ask_waiting();
        let socket = self.socket.as_fd();
        match (&shed, self.shed.take()) {
            (None, _) => filter::detach(socket)?,
            (Some(new), None) => filter::attach(socket, &shed::program(new))?,
            (Some(new), Some(_)) => {
                let program = shed::program(new);
                // One program follows the other, so nothing passes meanwhile; unless both exceed what the kernel allows one socket
                // (net.core.optmem_max).
                if let Err(error) = filter::attach(socket, &program) {
                    filter::detach(socket)?;
                    if error.raw_os_error() != Some(libc::ENOMEM) {
                        return Err(error);
                    }
                    filter::attach(socket, &program)?;
                }
            }
        }
        self.shed = shed;
        Ok(())
    }

    /// Returns how many datagrams the kernel has dropped because of [`Udp::shed`], as far as is known.
    pub fn shed_so_far(&self) -> u64 {
        self.counters.shed
    }

    /// Returns this socket's counters, after reading the drops from the kernel.
    pub fn counters(&mut self) -> ListenerCounters {
        self.ask_waiting();
        ListenerCounters { waiting_bytes: self.backlog.waiting() as u64, ..self.counters }
    }
}

/// ICMP errors processed in one turn.
const ICMP_BITE: usize = 32;

/// Attempts for one datagram if the kernel answers with an error that may belong to an earlier datagram: an ICMP error that has
/// arrived meanwhile fails the next call on the socket, whatever that call sends.
const ATTEMPTS: usize = 3;

/// Offers datagrams 0 to `count` to the kernel through `send`, which starts at the number passed to it and returns how many were
/// accepted. Returns how many are done; if that is less than `count`, the kernel accepts nothing more for now.
fn push_out<'a>(
    count: usize,
    get: impl Fn(usize) -> Datagram<'a>,
    mut send: impl FnMut(usize) -> io::Result<usize>,
    counters: &mut ListenerCounters,
    lost: &mut Undelivered,
) -> usize {
    let mut done = 0;
    let mut attempts = 0;
    while done < count {
        let error = match send(done) {
            Ok(taken) if taken > 0 => {
                for number in done..done + taken {
                    counters.sent.count(get(number).bytes);
                }
                counters.sent.batches += 1;
                done += taken;
                attempts = 0;
                continue;
            }
            Ok(_) => io::Error::from(io::ErrorKind::WriteZero),
            Err(error) => error,
        };
        let reason = match error.raw_os_error() {
            Some(libc::EINTR) => continue,
            Some(libc::EAGAIN) => break,
            Some(libc::EMSGSIZE) => Undeliverable::TooLarge,
            Some(libc::ENOBUFS | libc::ENOMEM) => Undeliverable::NoBuffers,
            _ => {
                attempts += 1;
                if attempts < ATTEMPTS {
                    continue;
                }
                lost.push(get(done).bytes);
                Undeliverable::Unreachable
            }
        };
        let Datagram { peer, bytes, .. } = get(done);
        log::debug!("{} bytes to {peer} not sent: {error}", bytes.len());
        counters.drop(reason);
        done += 1;
        attempts = 0;
    }
    done
}

/// What was sent but not delivered, as far as it was returned to us: a bounded run of bytes, kept to reuse its allocation.
#[derive(Default)]
pub struct Undelivered {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

impl Undelivered {
    /// The most bytes held. What does not fit is dropped; the sender's timers will notice.
    const LIMIT: usize = 64 << 10;
    /// The most bytes kept of one message: its topmost Via is near its beginning.
    const QUOTE: usize = 2048;

    pub fn push(&mut self, sent: &[u8]) {
        let quote = sent.get(..Undelivered::QUOTE).unwrap_or(sent);
        if self.bytes.len() + quote.len() <= Undelivered::LIMIT {
            self.spans.push(Span::append(quote, &mut self.bytes));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.spans.iter().map(|span| span.in_text(&self.bytes))
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.spans.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    fn one(buffers: &Buffers) -> Udp {
        Udp::bind(loopback(), 1, buffers).unwrap().remove(0)
    }

    #[test]
    fn what_the_kernel_throws_away_is_counted_for_the_socket_that_lost_it() {
        let small = Buffers { receive: 4096, ..Buffers::default() };
        let (mut full, mut other) = (one(&small), one(&Buffers::default()));
        assert!(full.counters().receive_buffer < other.counters().receive_buffer);
        let sender = UdpSocket::bind(loopback()).unwrap();
        for _ in 0..500 {
            sender.send_to(&[b'x'; 600], full.address()).unwrap();
            sender.send_to(b"x", other.address()).unwrap();
        }
        let mut inbound = Inbound::new(64);
        let mut received = 0;
        while let Ok(count) = full.receive(&mut inbound) {
            received += count as u64;
        }
        let counters = full.counters();
        assert!(counters.kernel_drops > 0);
        assert_eq!(received + counters.kernel_drops, 500);
        assert_eq!(full.counters(), counters, "asking twice counts once");
        assert_eq!(other.counters().kernel_drops, 0);
    }

    #[test]
    fn a_short_batch_means_an_empty_socket() {
        let mut udp = one(&Buffers::default());
        let sender = UdpSocket::bind(loopback()).unwrap();
        for _ in 0..20 {
            sender.send_to(b"x", udp.address()).unwrap();
        }
        let mut inbound = Inbound::new(8);
        let mut batches = || udp.receive(&mut inbound).map_err(|error| error.kind());
        assert_eq!(batches(), Ok(8));
        assert_eq!(batches(), Ok(8));
        assert_eq!(batches(), Ok(4));
        assert_eq!(batches(), Err(io::ErrorKind::WouldBlock));
        assert!(inbound.get(0).is_none(), "nothing is left of the batch before");
    }

    /// A kernel that answers each call from the test's script: a number of datagrams accepted, or an error.
    fn push(script: &[Result<usize, i32>], count: usize) -> (usize, ListenerCounters, usize) {
        let (mut counters, mut lost) = (ListenerCounters::default(), Undelivered::default());
        let mut answers = script.iter();
        let get = |number: usize| Datagram { peer: SocketAddr::from(([192, 0, 2, 1], number as u16)), local: None, bytes: b"x" };
        let send = |at: usize| match answers.next().expect("no more calls than expected") {
            Ok(taken) => Ok((*taken).min(count - at)),
            Err(code) => Err(io::Error::from_raw_os_error(*code)),
        };
        let done = push_out(count, get, send, &mut counters, &mut lost);
        assert!(answers.next().is_none(), "as many calls as expected");
        (done, counters, lost.iter().count())
    }

    #[test]
    fn no_error_of_one_datagram_stops_the_others() {
        use libc::{EAGAIN, ECONNREFUSED, EHOSTUNREACH, EINTR, EMSGSIZE, ENOBUFS};
        let dropped = |counters: &ListenerCounters, reason: Undeliverable| counters.undelivered[reason as usize];
        // A left-over error: offered again, nothing is lost.
        let (done, counters, lost) = push(&[Ok(2), Err(ECONNREFUSED), Err(EINTR), Ok(8)], 10);
        assert_eq!((done, counters.sent.bytes, lost), (10, 10, 0));
        assert_eq!(counters.undelivered, [0; 6]);
        assert_eq!(counters.sent.batches, 2);
        // An error of its own: this one is dropped, and reported.
        let refused = Err(EHOSTUNREACH);
        let (done, counters, lost) = push(&[Ok(3), refused, refused, refused, Ok(6)], 10);
        assert_eq!((done, counters.sent.bytes, lost), (10, 9, 1));
        assert_eq!(dropped(&counters, Undeliverable::Unreachable), 1);
        // Too large, or thrown away by the kernel: counted, and not reported.
        let (done, counters, lost) = push(&[Err(EMSGSIZE), Err(ENOBUFS), Ok(8)], 10);
        assert_eq!((done, counters.sent.bytes, lost), (10, 8, 0));
        assert_eq!(dropped(&counters, Undeliverable::TooLarge), 1);
        assert_eq!(dropped(&counters, Undeliverable::NoBuffers), 1);
        // The kernel accepts nothing more now: the caller has to keep the rest.
        let (done, counters, _) = push(&[Ok(4), Err(EAGAIN)], 10);
        assert_eq!((done, counters.sent.bytes), (4, 4));
        assert_eq!(counters.undelivered, [0; 6]);
    }

    /// Three clients, each of which accepts datagrams only from the address it asks (one of ours each), and a socket on all
    /// addresses.
    fn on_all(any: &str, ours: [&str; 3]) -> (Udp, Vec<UdpSocket>) {
        let udp = Udp::bind(any.parse().unwrap(), 1, &Buffers::default()).unwrap();
        let port = udp[0].address().port();
        let clients = ours.map(|ip| {
            let ip: std::net::IpAddr = ip.parse().unwrap();
            let client = UdpSocket::bind((ip, 0)).unwrap();
            client.connect((ip, port)).unwrap();
            let patience = std::time::Duration::from_secs(5);
            client.set_read_timeout(Some(patience)).unwrap();
            client
        });
        (udp.into_iter().next().unwrap(), clients.into())
    }

    #[test]
    fn a_wildcard_answers_from_the_address_that_was_asked() {
        let four = ["127.0.0.2", "127.0.0.3", "127.0.0.2"];
        for (any, ours) in [("0.0.0.0:0", four), ("[::]:0", ["::1"; 3])] {
            let (mut udp, clients) = on_all(any, ours);
            let (mut outbound, mut lost) = (Outbound::new(8), Undelivered::default());
            let mut inbound = Inbound::new(8);
            // A batch with control messages, one from a socket with a concrete address, and one with control messages again, in the
            // same allocation.
            let mut concrete = one(&Buffers::default());
            for round in 0..3u8 {
                for (number, client) in clients.iter().enumerate() {
                    client.send(&[round, number as u8]).unwrap();
                }
                assert_eq!(udp.receive(&mut inbound).unwrap(), 3);
                let batch: Vec<Datagram> = (0..3).filter_map(|n| inbound.get(n)).collect();
                for (number, datagram) in batch.iter().enumerate() {
                    assert_eq!(datagram.local, Some(ours[number].parse().unwrap()));
                    assert_eq!(datagram.peer, clients[number].local_addr().unwrap());
                    assert_eq!(datagram.bytes, [round, number as u8]);
                }
                // First directly, then through the queue.
                match round {
                    0 => udp.send(&mut outbound, 3, |number| batch[number], &mut lost),
                    _ => {
                        assert!(batch.iter().all(|datagram| udp.backlog.push(*datagram)));
                        udp.send_waiting(&mut outbound, &mut lost);
                    }
                }
                assert!(lost.is_empty() && !udp.is_waiting());
                for (number, client) in clients.iter().enumerate() {
                    let mut answer = [0; 8];
                    assert_eq!(client.recv(&mut answer).unwrap(), 2);
                    assert_eq!(answer[..2], [round, number as u8]);
                }
                let sender = UdpSocket::bind(loopback()).unwrap();
                sender.send_to(b"x", concrete.address()).unwrap();
                assert_eq!(concrete.receive(&mut inbound).unwrap(), 1);
                let datagram = inbound.get(0).unwrap();
                assert_eq!((datagram.local, datagram.bytes), (None, &b"x"[..]));
                concrete.send(&mut outbound, 1, |_| datagram, &mut lost);
                assert_eq!(sender.recv(&mut [0; 8]).unwrap(), 1);
            }
        }
    }

    #[test]
    fn without_a_local_address_the_kernel_chooses() {
        let (mut udp, clients) = on_all("0.0.0.0:0", ["127.0.0.2", "127.0.0.3", "127.0.0.4"]);
        let (mut outbound, mut lost) = (Outbound::new(8), Undelivered::default());
        let stranger = UdpSocket::bind(loopback()).unwrap();
        // The first datagram's source must not remain in the slot that the second one reuses.
        let to = |socket: &UdpSocket, local, bytes| Datagram { peer: socket.local_addr().unwrap(), local, bytes };
        let asked = Some([127, 0, 0, 3].into());
        let named = to(&clients[1], asked, b"named");
        let unnamed = to(&stranger, None, b"unnamed");
        udp.send(&mut outbound, 1, |_| named, &mut lost);
        udp.send(&mut outbound, 1, |_| unnamed, &mut lost);
        let mut buffer = [0; 16];
        assert_eq!(clients[1].recv(&mut buffer).unwrap(), 5);
        let (len, from) = stranger.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from.ip()), (&b"unnamed"[..], [127, 0, 0, 1].into()));
        // An address that is not ours (any more) fails this datagram and no other.
        let foreign = to(&stranger, Some([192, 0, 2, 1].into()), b"foreign");
        let batch = [foreign, unnamed];
        udp.send(&mut outbound, 2, |number| batch[number], &mut lost);
        assert!(lost.iter().eq([b"foreign"]));
        assert_eq!(stranger.recv(&mut buffer).unwrap(), 7);
        let counters = udp.counters();
        assert_eq!(counters.undelivered[Undeliverable::Unreachable as usize], 1);
    }

    #[test]
    fn what_waits_leaves_first_and_the_queue_has_a_limit() {
        let buffers = Buffers { send_queue: 100, ..Buffers::default() };
        let mut udp = one(&buffers);
        let receiver = UdpSocket::bind(loopback()).unwrap();
        let patience = std::time::Duration::from_secs(5);
        receiver.set_read_timeout(Some(patience)).unwrap();
        let peer = receiver.local_addr().unwrap();
        let (mut outbound, mut lost) = (Outbound::new(4), Undelivered::default());
        // The kernel was full a moment ago: ten bytes wait.
        let to_peer = |bytes| Datagram { peer, local: None, bytes };
        assert!(udp.backlog.push(to_peer(b"0123456789")));
        assert!(udp.is_waiting());
        let messages: Vec<Vec<u8>> = (0..12u8).map(|n| vec![n; 10]).collect();
        let get = |number: usize| to_peer(messages[number].as_slice());
        udp.send(&mut outbound, messages.len(), get, &mut lost);
        let counters = udp.counters();
        assert_eq!(counters.waiting_bytes, 100);
        assert_eq!(counters.undelivered[Undeliverable::SendQueueFull as usize], 3, "nine of twelve fitted behind the first");
        assert_eq!(counters.sent.bytes, 0, "nobody overtakes");
        udp.send_waiting(&mut outbound, &mut lost);
        assert!(!udp.is_waiting());
        let mut buffer = [0; 64];
        let len = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"0123456789");
        for number in 0..9u8 {
            let len = receiver.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], [number; 10]);
        }
        let counters = udp.counters();
        assert_eq!((counters.sent.bytes, counters.waiting_bytes), (100, 0));
        assert_eq!(counters.sent.batches, 3);
    }
}
