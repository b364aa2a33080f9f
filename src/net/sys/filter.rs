//! Classic BPF programs of a socket: they need no privilege.

use super::outcome::check;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Has the kernel run `program` to choose one of the sockets that share an address; it returns the socket's number.
pub fn attach_reuse_port(socket: BorrowedFd<'_>, program: &[libc::sock_filter]) -> io::Result<()> {
    attach_as(socket, program, libc::SO_ATTACH_REUSEPORT_CBPF)
}

/// Has the kernel run `program` on each datagram, with its UDP header, before it is queued; it is dropped if the result is 0.
/// Replaces the previous program.
pub fn attach(socket: BorrowedFd<'_>, program: &[libc::sock_filter]) -> io::Result<()> {
    attach_as(socket, program, libc::SO_ATTACH_FILTER)
}

/// Queues all datagrams again. An error if there was no program.
pub fn detach(socket: BorrowedFd<'_>) -> io::Result<()> {
    let nothing: libc::c_int = 0;
    // SAFETY: the kernel reads `nothing`, which outlives the call.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_DETACH_FILTER,
            ptr::from_ref(&nothing).cast(),
            mem::size_of_val(&nothing) as libc::socklen_t,
        )
    })
}

fn attach_as(socket: BorrowedFd<'_>, program: &[libc::sock_filter], option: libc::c_int) -> io::Result<()> {
    let Ok(len) = u16::try_from(program.len()) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies `len` instructions from `filter`, checks them, and keeps neither pointer.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            ptr::from_ref(&program).cast(),
            mem::size_of_val(&program) as libc::socklen_t,
        )
    })
}
