//! The only unsafe code of the project: system calls that neither the standard library nor socket2 offers, and in `ssl` what the
//! `openssl` crate does not wrap.

pub mod dumps;
pub(crate) mod filter;
pub mod identity;
mod name;
mod outcome;
mod process;
pub mod rights;
pub(crate) mod ssl;

pub use process::{
    local_addresses, lower_priority, online_cores, open_files_limit, page_size, pin, return_free_memory, thread_cpu_ns,
};

use name::Name;
use outcome::check;

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// The longest datagram that the IP versions carry, and a little more.
pub const DATAGRAM: usize = 65_535;

/// The distance between two datagrams in the buffer. Not a power of two: otherwise the beginnings of all datagrams of a batch would
/// fall into the same few sets of the processor's caches.
const STRIDE: usize = 65_536 + 1_024;

/// The most datagrams that the kernel moves in one call (UIO_MAXIOV).
pub const MAX_BATCH: usize = 1_024;

/// A datagram, on its way in or out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram<'a> {
    /// The sender, or the recipient.
    pub peer: SocketAddr,
    /// Our address that it was sent to or is to be sent from, if the socket is bound to a wildcard. `None` when sending: the kernel
    /// chooses.
    pub local: Option<IpAddr>,
    pub bytes: &'a [u8],
}

impl Datagram<'_> {
    /// Returns the source that the kernel is to use. A link-local address needs an interface; if the peer's address does not name
    /// one, the kernel would refuse it.
    fn source(&self) -> Option<IpAddr> {
        match (self.local, self.peer) {
            (Some(IpAddr::V6(v6)), SocketAddr::V6(peer)) if v6.is_unicast_link_local() && peer.scope_id() == 0 => None,
            (local, _) => local,
        }
    }
}

/// Room for one control message that names a local address (IP_PKTINFO or IPV6_PKTINFO); of 64-bit words, so that it is
/// aligned as control messages must be.
#[derive(Clone, Copy)]
struct Control([u64; Control::LEN / 8]);

impl Control {
    const LEN: usize = space_for::<libc::in6_pktinfo>();
    const EMPTY: Control = Control([0; Control::LEN / 8]);

    /// Writes the message that makes `source` the source of a datagram, and returns its length.
    fn write(&mut self, source: IpAddr) -> usize {
        match source {
            IpAddr::V4(v4) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from(v4).to_be() },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                self.fill(libc::IPPROTO_IP, libc::IP_PKTINFO, info)
            }
            IpAddr::V6(v6) => {
                let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: v6.octets() }, ipi6_ifindex: 0 };
                self.fill(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
            }
        }
    }

    fn fill<T: Copy>(&mut self, level: libc::c_int, kind: libc::c_int, info: T) -> usize {
        const { assert!(space_for::<T>() <= Control::LEN) };
        let message = self.0.as_mut_ptr().cast::<libc::cmsghdr>();
        // SAFETY: the words hold a control message with a `T` behind its header, as was just asserted, and are aligned for
        // the header; `T` is written unaligned.
        unsafe {
            (*message).cmsg_len = libc::CMSG_LEN(mem::size_of::<T>() as u32) as _;
            (*message).cmsg_level = level;
            (*message).cmsg_type = kind;
            ptr::write_unaligned(libc::CMSG_DATA(message).cast::<T>(), info);
        }
        space_for::<T>()
    }
}

/// Returns the size of a control message that carries a `T`.
const fn space_for<T>() -> usize {
    // SAFETY: arithmetic only.
    unsafe { libc::CMSG_SPACE(mem::size_of::<T>() as u32) as usize }
}

/// What the control messages of a received datagram say about the address it came to.
///
/// # Safety
/// `header` must point to control messages as the kernel wrote them, of the length that it left there.
unsafe fn local_address(header: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: the macros walk the control messages inside the length that the caller vouches for; what they carry is read
    // unaligned, and only where the message is long enough for it.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            let holds = |size: usize| (*message).cmsg_len as usize >= libc::CMSG_LEN(size as u32) as usize;
            let data = libc::CMSG_DATA(message);
            let ip = match ((*message).cmsg_level, (*message).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) if holds(mem::size_of::<libc::in_pktinfo>()) => {
                    // Not the header's destination, which may be a broadcast address, but ours on that network.
                    let info = ptr::read_unaligned(data.cast::<libc::in_pktinfo>());
                    IpAddr::from(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)))
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if holds(mem::size_of::<libc::in6_pktinfo>()) => {
                    let info = ptr::read_unaligned(data.cast::<libc::in6_pktinfo>());
                    IpAddr::from(info.ipi6_addr.s6_addr)
                }
                _ => {
                    message = libc::CMSG_NXTHDR(header, message);
                    continue;
                }
            };
            return Some(ip).filter(|ip| !ip.is_multicast() && !ip.is_unspecified());
        }
        None
    }
}

/// Has the kernel report for each datagram which of our addresses it was sent to; for a socket bound to a wildcard.
pub fn ask_local_address(socket: BorrowedFd<'_>, is_ipv4: bool) -> io::Result<()> {
    if is_ipv4 {
        set_option(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
    } else {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
    }
}

/// Room for the datagrams of one `recvmmsg`. The memory is reserved once; pages are touched only as far as datagrams reach.
pub struct Inbound {
    // Vectors, never grown after `new`: the headers point into their heap blocks, which stay where they are when `self` moves.
    bytes: Vec<u8>,
    names: Vec<Name>,
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    controls: Vec<Control>,
    /// The headers point to `controls`.
    has_local: bool,
    /// Headers that the last call filled and that must be reset before the next one.
    used: usize,
}

// SAFETY: the raw pointers inside point only into blocks that the same value owns; nothing is tied to a thread.
unsafe impl Send for Inbound {}

impl Inbound {
    /// Room for `batch` datagrams (1 to [`MAX_BATCH`]).
    pub fn new(batch: usize) -> Inbound {
        let batch = batch.clamp(1, MAX_BATCH);
        let mut bytes = vec![0u8; batch * STRIDE];
        let mut names = vec![Name::EMPTY; batch];
        let base = bytes.as_mut_ptr();
        let mut iovecs: Vec<libc::iovec> =
            (0..batch).map(|n| libc::iovec { iov_base: base.wrapping_add(n * STRIDE).cast(), iov_len: DATAGRAM }).collect();
        let first_name = names.as_mut_ptr();
        let first_iovec = iovecs.as_mut_ptr();
        let headers = (0..batch)
            .map(|n| {
                let mut header = empty_header();
                header.msg_hdr.msg_name = first_name.wrapping_add(n).cast();
                header.msg_hdr.msg_namelen = Name::LEN;
                header.msg_hdr.msg_iov = first_iovec.wrapping_add(n);
                header.msg_hdr.msg_iovlen = 1;
                header
            })
            .collect();
        Inbound { bytes, names, iovecs, headers, controls: vec![Control::EMPTY; batch], has_local: false, used: 0 }
    }

    pub fn capacity(&self) -> usize {
        self.headers.len()
    }

    /// Receives what the socket holds, at most [`Inbound::capacity`] datagrams, and returns their number. Never blocks.
    /// `has_local`: [`ask_local_address`] was called for the socket.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, has_local: bool) -> io::Result<usize> {
        for header in self.headers.iter_mut().take(self.used) {
            header.msg_hdr.msg_namelen = Name::LEN;
        }
        if has_local {
            // Unused headers are still intact, unless a socket of the other kind was served before.
            let used = match self.has_local {
                true => self.used,
                false => self.headers.len(),
            };
            let headers = self.headers.iter_mut().take(used);
            for (header, control) in headers.zip(&mut self.controls) {
                header.msg_hdr.msg_control = ptr::from_mut(control).cast();
                header.msg_hdr.msg_controllen = Control::LEN as _;
            }
        } else if self.has_local {
            for header in &mut self.headers {
                header.msg_hdr.msg_control = ptr::null_mut();
                header.msg_hdr.msg_controllen = 0;
            }
        }
        self.has_local = has_local;
        self.used = 0;
        debug_assert_eq!(self.iovecs.len(), self.headers.len());
        debug_assert_eq!(self.controls.len(), self.headers.len());
        // SAFETY: `headers` are as many as we say; each points to one name, one iovec and one control of ours or none, and
        // each iovec to DATAGRAM writable bytes of `bytes` that no other one covers. We hold `&mut self`, so nobody looks meanwhile.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        self.used = (count as usize).min(self.headers.len());
        Ok(self.used)
    }

    /// Returns one datagram of the last [`Inbound::receive`].
    pub fn get(&self, number: usize) -> Option<Datagram<'_>> {
        if number >= self.used {
            return None;
        }
        let header = self.headers.get(number)?;
        let len = (header.msg_len as usize).min(DATAGRAM);
        let start = number * STRIDE;
        Some(Datagram {
            peer: self.names.get(number)?.read()?,
            local: match self.has_local {
                // SAFETY: the header is one that the last `receive` led to a control of ours and the kernel filled.
                true => unsafe { local_address(&header.msg_hdr) },
                false => None,
            },
            bytes: self.bytes.get(start..start + len)?,
        })
    }
}

/// Headers for the datagrams of one `sendmmsg`. The bytes stay where the caller has them.
pub struct Outbound {
    names: Vec<Name>,
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    controls: Vec<Control>,
}

// SAFETY: the raw pointers inside are written anew by each `send` and mean nothing after it.
unsafe impl Send for Outbound {}

impl Outbound {
    /// Headers for `batch` datagrams (1 to [`MAX_BATCH`]).
    pub fn new(batch: usize) -> Outbound {
        let batch = batch.clamp(1, MAX_BATCH);
        let nowhere = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        Outbound {
            names: vec![Name::EMPTY; batch],
            iovecs: vec![nowhere; batch],
            headers: (0..batch).map(|_| empty_header()).collect(),
            controls: vec![Control::EMPTY; batch],
        }
    }

    /// Sends the first of `datagrams`, at most as many as there is room for, in one call that never blocks. Returns how many the
    /// kernel took, at least 1 if there was one; an error is about the first of them, or was pending on the socket from an earlier
    /// datagram.
    pub fn send<'a>(&mut self, socket: BorrowedFd<'_>, datagrams: impl Iterator<Item = Datagram<'a>>) -> io::Result<usize> {
        let mut count = 0;
        let places = self.headers.iter_mut().zip(&mut self.iovecs).zip(&mut self.names).zip(&mut self.controls);
        for ((((header, iovec), name), control), datagram) in places.zip(datagrams) {
            iovec.iov_base = datagram.bytes.as_ptr().cast_mut().cast();
            iovec.iov_len = datagram.bytes.len();
            header.msg_hdr.msg_namelen = name.write(datagram.peer);
            match datagram.source() {
                Some(source) => {
                    header.msg_hdr.msg_controllen = control.write(source) as _;
                    header.msg_hdr.msg_control = ptr::from_mut(control).cast();
                }
                None => {
                    header.msg_hdr.msg_controllen = 0;
                    header.msg_hdr.msg_control = ptr::null_mut();
                }
            }
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            header.msg_hdr.msg_iov = iovec;
            header.msg_hdr.msg_iovlen = 1;
            count += 1;
        }
        if count == 0 {
            return Ok(0);
        }
        // SAFETY: the first `count` headers were filled above: each points to a name, an iovec and a control of ours or none,
        // and each iovec to bytes that the caller lends for the time of this call. The kernel only reads them; it writes `msg_len`.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as libc::c_uint,
                (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((sent as usize).min(count))
    }
}

/// An ICMP error for a datagram that we sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IcmpError {
    /// Where that datagram went.
    pub peer: SocketAddr,
    /// True if the transport user has to be notified (RFC 3261 §18.4): host, network, port or protocol unreachable, and
    /// parameter problem. False for what is to be ignored: time exceeded, source quench, a smaller path MTU.
    pub is_failure: bool,
    /// How much of the datagram the error quotes, from its beginning.
    pub quoted: usize,
}

/// Has a bind to port 0 choose only the address, and leaves the port to the connect: a port then serves one connection to each peer
/// instead of one in total.
pub fn choose_port_when_connecting(socket: BorrowedFd<'_>) -> io::Result<()> {
    const IP_BIND_ADDRESS_NO_PORT: libc::c_int = 24;
    set_option(socket, libc::IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
}

/// Has the kernel keep ICMP errors for this socket's datagrams in the socket's error queue.
pub fn queue_icmp_errors(socket: BorrowedFd<'_>, is_ipv4: bool) -> io::Result<()> {
    if is_ipv4 {
        set_option(socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)
    } else {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)
    }
}

/// Sets whether routers may fragment this socket's datagrams. If not, the kernel need not number each datagram, which saves a few
/// percent of the cost of sending; what a path cannot carry is then lost, so this is for short ones. It is not path MTU discovery,
/// which loses the first long datagram to a peer.
pub fn allow_fragments(socket: BorrowedFd<'_>, is_ipv4: bool, allow: bool) -> io::Result<()> {
    let (level, option, value) = match (is_ipv4, allow) {
        (true, true) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT),
        (true, false) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE),
        (false, true) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT),
        (false, false) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE),
    };
    set_option(socket, level, option, value)
}

/// Takes the oldest entry of the socket's error queue; `None` when it is empty. What the error quotes of our datagram goes
/// into `quote`.
pub fn take_icmp_error(socket: BorrowedFd<'_>, quote: &mut [u8]) -> io::Result<Option<Option<IcmpError>>> {
    // Room for the extended error, the offender's address behind it, and other messages an operator may have switched on;
    // of 64-bit words, so that it is aligned as control messages must be.
    let mut control = [0u64; 64];
    let mut name = Name::EMPTY;
    let mut iovec = libc::iovec { iov_base: quote.as_mut_ptr().cast(), iov_len: quote.len() };
    let mut header = empty_header().msg_hdr;
    header.msg_name = ptr::from_mut(&mut name).cast();
    header.msg_namelen = Name::LEN;
    header.msg_iov = &mut iovec;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = mem::size_of_val(&control) as _;
    // SAFETY: all pointers in `header` lead to local variables or to `quote`, with their true sizes.
    let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
    if count < 0 {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::WouldBlock => Ok(None),
            _ => Err(error),
        };
    }
    // SAFETY: the macros walk the control messages that the kernel has just written into `control`, inside the length that
    // `header` now holds; the extended error is read unaligned, and only where the message is long enough for it.
    let extended = unsafe {
        let mut found = None;
        let mut message = libc::CMSG_FIRSTHDR(&header);
        while !message.is_null() {
            let is_error = matches!(
                ((*message).cmsg_level, (*message).cmsg_type),
                (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
            );
            let needed = libc::CMSG_LEN(mem::size_of::<libc::sock_extended_err>() as u32);
            if is_error && (*message).cmsg_len as usize >= needed as usize {
                let data = libc::CMSG_DATA(message).cast::<libc::sock_extended_err>();
                found = Some(ptr::read_unaligned(data));
            }
            message = libc::CMSG_NXTHDR(&header, message);
        }
        found
    };
    Ok(Some(extended.zip(name.read()).map(|(error, peer)| IcmpError {
        peer,
        is_failure: is_failure(&error),
        quoted: (count as usize).min(quote.len()),
    })))
}

/// RFC 3261 §18.4 in the terms of RFC 792 and RFC 4443.
fn is_failure(error: &libc::sock_extended_err) -> bool {
    const V4_UNREACHABLE: u8 = 3;
    const V4_FRAGMENTATION_NEEDED: u8 = 4;
    const V4_PARAMETER_PROBLEM: u8 = 12;
    const V6_UNREACHABLE: u8 = 1;
    const V6_PARAMETER_PROBLEM: u8 = 4;
    match (error.ee_origin, error.ee_type) {
        (libc::SO_EE_ORIGIN_ICMP, V4_UNREACHABLE) => error.ee_code != V4_FRAGMENTATION_NEEDED,
        (libc::SO_EE_ORIGIN_ICMP, V4_PARAMETER_PROBLEM) => true,
        (libc::SO_EE_ORIGIN_ICMP6, V6_UNREACHABLE | V6_PARAMETER_PROBLEM) => true,
        _ => false,
    }
}

/// The state of a socket's receive queue.
#[derive(Clone, Copy, Default, Debug)]
pub struct Waiting {
    /// The memory of unread data, as the kernel counts it.
    pub bytes: u32,
    /// Datagrams dropped by the kernel since the socket was opened: the receive buffer was full or the checksum wrong. Wraps at
    /// 2^32.
    pub drops: u32,
}

/// Asks the kernel for the state of a socket's receive queue.
pub fn waiting(socket: BorrowedFd<'_>) -> io::Result<Waiting> {
    // SK_MEMINFO_RMEM_ALLOC and SK_MEMINFO_DROPS of <linux/sock_diag.h>.
    const HELD: usize = 0;
    const DROPS: usize = 8;
    let mut values = [0u32; DROPS + 1];
    let mut len = mem::size_of_val(&values) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `values`.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, values.as_mut_ptr().cast(), &mut len) };
    check(result)?;
    Ok(Waiting { bytes: values[HELD], drops: values[DROPS] })
}

fn set_option(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the kernel reads one integer, whose size it is given.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            ptr::from_ref(&value).cast(),
            mem::size_of_val(&value) as libc::socklen_t,
        )
    })
}

fn empty_header() -> libc::mmsghdr {
    // SAFETY: a message header is pointers and numbers, for which all zero bits are valid: null and 0.
    unsafe { mem::zeroed() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_link_scope_is_named_only_where_the_interface_is() {
        let source = |local: &str, peer: &str| {
            let datagram = Datagram { peer: peer.parse().unwrap(), local: Some(local.parse().unwrap()), bytes: b"" };
            datagram.source() == datagram.local
        };
        assert!(source("fe80::1", "[fe80::2%3]:5060"));
        assert!(!source("fe80::1", "[2001:db8::2]:5060"));
        assert!(source("2001:db8::1", "[2001:db8::2]:5060"));
        assert!(source("169.254.0.1", "192.0.2.1:5060"));
    }
}
