//! The only `unsafe` of this crate, for what the server's library does not have, or not as cheap: batches at connected sockets, the
//! bare relay's, sleeping, and the group of a handshake.

use std::ffi::CStr;
use std::io;
use std::mem;
use std::os::fd::RawFd;
use std::ptr;

use foreign_types::ForeignTypeRef;
use openssl::ssl::SslRef;
use strowger::net::sys::open_files_limit;

use crate::stats::{Count, Counts};

/// Bytes kept for one datagram. SIP in this generator stays far below; a longer datagram is cut and then fails its check.
pub const DATAGRAM: usize = 2048;

/// A header for each of these parts and, where there are names, with a name. All must be in boxes that are never reallocated.
fn headers(parts: &mut [libc::iovec], names: &mut [libc::sockaddr_in6]) -> Box<[libc::mmsghdr]> {
    let mut names = names.iter_mut();
    let header = |part: &mut libc::iovec| {
        // SAFETY: all-zero is a valid value of this C structure.
        let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
        header.msg_hdr.msg_iov = part;
        header.msg_hdr.msg_iovlen = 1;
        if let Some(name) = names.next() {
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            header.msg_hdr.msg_namelen = NAME;
        }
        header
    };
    parts.iter_mut().map(header).collect()
}

fn names(count: usize) -> Box<[libc::sockaddr_in6]> {
    // SAFETY: all-zero is a valid value of this C structure.
    vec![unsafe { mem::zeroed() }; count].into_boxed_slice()
}

const NAME: libc::socklen_t = mem::size_of::<libc::sockaddr_in6>() as libc::socklen_t;

/// Parts of so many bytes of these buffers, which each begin a `DATAGRAM` after the last.
fn parts(buffers: &mut [u8], iov_len: usize) -> Box<[libc::iovec]> {
    buffers.chunks_exact_mut(DATAGRAM).map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len }).collect()
}

/// A batch of receive buffers for `recvmmsg`.
pub struct Inbox {
    buffers: Box<[u8]>,
    headers: Box<[libc::mmsghdr]>,
    _iovs: Box<[libc::iovec]>,
    names: Box<[libc::sockaddr_in6]>,
}

impl Inbox {
    pub fn new(capacity: usize) -> Inbox {
        let mut buffers = vec![0u8; capacity * DATAGRAM].into_boxed_slice();
        let mut names = names(capacity);
        let mut iovs = parts(&mut buffers, DATAGRAM);
        Inbox { headers: headers(&mut iovs, &mut names), buffers, _iovs: iovs, names }
    }

    /// Fills the batch from a connected socket without waiting. Returns the number of datagrams; 0 when there is none.
    pub fn receive(&mut self, fd: RawFd) -> io::Result<usize> {
        for header in &mut self.headers {
            // The peer of a connected socket is known: do not let the kernel write it down.
            header.msg_hdr.msg_namelen = 0;
        }
        match self.receive_with(fd, libc::MSG_DONTWAIT) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            // An ICMP answer to an earlier send. The send's own count says what was lost.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(0),
            other => other,
        }
    }

    /// Waits for the first datagram, then takes what is there.
    pub fn receive_blocking(&mut self, fd: RawFd) -> io::Result<usize> {
        for header in &mut self.headers {
            header.msg_hdr.msg_namelen = NAME;
        }
        self.receive_with(fd, libc::MSG_WAITFORONE)
    }

    fn receive_with(&mut self, fd: RawFd, flags: i32) -> io::Result<usize> {
        // SAFETY: every header points into boxes that live as long as `self` and are never reallocated.
        let count = unsafe { libc::recvmmsg(fd, self.headers.as_mut_ptr(), self.headers.len() as u32, flags, ptr::null_mut()) };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(count as usize)
    }

    pub fn datagram(&self, index: usize) -> &[u8] {
        let length = (self.headers[index].msg_len as usize).min(DATAGRAM);
        &self.buffers[index * DATAGRAM..index * DATAGRAM + length]
    }

    /// Port of the sender; only after `receive_blocking`. It stands at the same place in an IPv4 name, which is shorter.
    pub fn source_port(&self, index: usize) -> u16 {
        u16::from_be(self.names[index].sin6_port)
    }
}

/// A batch of datagrams on their way out through connected sockets, in the order they were written.
pub struct Datagrams {
    fds: Vec<RawFd>,
    sockets: Box<[u16]>,
    buffers: Box<[u8]>,
    headers: Box<[libc::mmsghdr]>,
    iovs: Box<[libc::iovec]>,
    length: usize,
    pub counts: Counts,
}

impl Datagrams {
    pub fn new(fds: Vec<RawFd>, capacity: usize) -> Datagrams {
        let mut buffers = vec![0u8; capacity * DATAGRAM].into_boxed_slice();
        let mut iovs = parts(&mut buffers, 0);
        Datagrams {
            fds,
            sockets: vec![0; capacity].into_boxed_slice(),
            headers: headers(&mut iovs, &mut []),
            buffers,
            iovs,
            length: 0,
            counts: Counts::default(),
        }
    }

    /// The buffer of the next datagram; `commit` makes it one.
    pub fn buffer(&mut self) -> &mut [u8] {
        let at = self.length * DATAGRAM;
        &mut self.buffers[at..at + DATAGRAM]
    }

    pub fn commit(&mut self, socket: usize, length: usize) {
        debug_assert!(length <= DATAGRAM);
        self.sockets[self.length] = socket as u16;
        self.iovs[self.length].iov_len = length;
        self.counts.add_many(Count::SentBytes, length as u64);
        self.length += 1;
        if self.length == self.headers.len() {
            self.flush();
        }
    }

    /// Sends what waits: one system call for each run of datagrams on the same socket.
    pub fn flush(&mut self) {
        let mut start = 0;
        while start < self.length {
            let socket = self.sockets[start];
            let mut end = start + 1;
            while end < self.length && self.sockets[end] == socket {
                end += 1;
            }
            self.send_run(usize::from(socket), start, end);
            start = end;
        }
        self.length = 0;
    }

    fn send_run(&mut self, socket: usize, mut start: usize, end: usize) {
        let mut tried = false;
        while start < end {
            // SAFETY: headers and iovecs point into boxes of `self` that are never reallocated; `iov_len` is within each buffer.
            let count = unsafe { libc::sendmmsg(self.fds[socket], self.headers[start..].as_mut_ptr(), (end - start) as u32, 0) };
            if count > 0 {
                self.counts.add_many(Count::Sent, count as u64);
                start += count as usize;
                continue;
            }
            // A pending ICMP error is reported once and is not about this datagram: try again, then give the datagram up.
            self.counts.add(Count::SendErrors);
            start += usize::from(tried);
            tried = !tried;
        }
    }
}

/// The relay's batch: it sends from the buffers it received into.
pub struct RelayBatch {
    inbox: Inbox,
    headers: Box<[libc::mmsghdr]>,
    iovs: Box<[libc::iovec]>,
    names: Box<[libc::sockaddr_in6]>,
    length: usize,
}

impl RelayBatch {
    pub fn new(capacity: usize) -> RelayBatch {
        // At most two datagrams leave for one that came.
        let out = capacity * 2;
        let mut iovs = vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; out].into_boxed_slice();
        let mut names = names(out);
        RelayBatch { inbox: Inbox::new(capacity), headers: headers(&mut iovs, &mut names), iovs, names, length: 0 }
    }

    pub fn receive(&mut self, fd: RawFd) -> io::Result<usize> {
        self.inbox.receive_blocking(fd)
    }

    pub fn datagram(&self, index: usize) -> &[u8] {
        self.inbox.datagram(index)
    }

    pub fn source_port(&self, index: usize) -> u16 {
        self.inbox.source_port(index)
    }

    /// Queues the first `length` bytes of a received datagram for a port of the same host it came from.
    pub fn send_to(&mut self, index: usize, length: usize, port: u16) {
        let at = self.length;
        let received = self.inbox.datagram(index);
        self.iovs[at].iov_base = received.as_ptr().cast_mut().cast();
        self.iovs[at].iov_len = length.min(received.len());
        self.names[at] = self.inbox.names[index];
        self.names[at].sin6_port = port.to_be();
        self.headers[at].msg_hdr.msg_namelen = self.inbox.headers[index].msg_hdr.msg_namelen;
        self.length += 1;
    }

    pub fn flush(&mut self, fd: RawFd) {
        let mut start = 0;
        while start < self.length {
            // SAFETY: headers, names and iovecs live in boxes of `self`; each iovec points into the inbox's buffers, whose content is
            // not written until the next `receive`.
            let count = unsafe { libc::sendmmsg(fd, self.headers[start..].as_mut_ptr(), (self.length - start) as u32, 0) };
            // A datagram that cannot leave is lost, as a datagram may be; the generator counts it.
            start += count.max(1) as usize;
        }
        self.length = 0;
    }
}

/// The group of the key exchange by its IANA name; "none" where there was none.
pub fn group(ssl: &SslRef) -> String {
    #[cfg(feature = "aws-lc")]
    // SAFETY: the pointer is live; the name is a string that lives for ever, or null.
    let name = unsafe { openssl_sys::SSL_get_group_name(openssl_sys::SSL_get_group_id(ssl.as_ptr())) };
    #[cfg(not(feature = "aws-lc"))]
    // SAFETY: as above; what the macro SSL_get_negotiated_group stands for.
    let name = unsafe {
        use std::ffi::{c_char, c_int};
        const SSL_CTRL_GET_NEGOTIATED_GROUP: c_int = 134;
        unsafe extern "C" {
            fn SSL_group_to_name(ssl: *mut openssl_sys::SSL, id: c_int) -> *const c_char;
        }
        let id = openssl_sys::SSL_ctrl(ssl.as_ptr(), SSL_CTRL_GET_NEGOTIATED_GROUP, 0, ptr::null_mut());
        SSL_group_to_name(ssl.as_ptr(), id as c_int)
    };
    if name.is_null() {
        return "none".to_string();
    }
    // SAFETY: not null, and the library ends it with a zero.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

/// Waits until a socket can be read or the time is over.
pub fn wait_readable(fds: impl Iterator<Item = RawFd>, nanoseconds: u64) {
    let mut polls = [libc::pollfd { fd: -1, events: libc::POLLIN, revents: 0 }; 256];
    let mut count = 0;
    for (poll, fd) in polls.iter_mut().zip(fds) {
        poll.fd = fd;
        count += 1;
    }
    let time = libc::timespec {
        tv_sec: (nanoseconds / 1_000_000_000) as libc::time_t,
        tv_nsec: (nanoseconds % 1_000_000_000) as libc::c_long,
    };
    // SAFETY: the array outlives the call and `count` is within it.
    unsafe {
        libc::ppoll(polls.as_mut_ptr(), count, &time, ptr::null());
    }
}

/// Binds the calling thread to a core.
pub fn pin(core: usize) -> Result<(), String> {
    strowger::net::sys::pin(core).map_err(|error| format!("core {core}: {error}"))
}

/// Lets this process have as many descriptors as the system allows it.
pub fn raise_descriptor_limit() -> Result<(), String> {
    open_files_limit().map(drop).map_err(|error| format!("limit of descriptors: {error}"))
}

/// Lets short sleeps end when asked and not up to 50 µs later.
pub fn exact_sleeps() {
    // SAFETY: plain numbers.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1);
    }
}

/// Enlarges a socket's receive buffer past the system's limit where we may, up to it where not.
pub fn enlarge_receive_buffer(fd: RawFd, bytes: usize) {
    let bytes = bytes as libc::c_int;
    for option in [libc::SO_RCVBUFFORCE, libc::SO_RCVBUF] {
        // SAFETY: the pointer is to a local of the size given.
        let done = unsafe {
            libc::setsockopt(fd, libc::SOL_SOCKET, option, ptr::from_ref(&bytes).cast(), mem::size_of_val(&bytes) as u32)
        };
        if done == 0 {
            return;
        }
    }
}
