//! Open files on their way between two processes, over a Unix stream socket (SCM_RIGHTS, unix(7)); and the socket that a process has
//! been started with.

use super::outcome::check;
use super::space_for;
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// The most files that go with one message; the kernel takes 253.
pub const FILES: usize = 64;

/// Room for a control message with that many files, aligned as it must be.
type Room = [u64; space_for::<[RawFd; FILES]>().div_ceil(8)];

/// Sends some of the bytes, at least one, and all of the files with the first. Returns how many bytes were sent. There are bytes, and at
/// most [`FILES`] files.
pub fn send_with_files(socket: BorrowedFd, bytes: &[u8], files: &[OwnedFd]) -> io::Result<usize> {
    if bytes.is_empty() || files.len() > FILES {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut room: Room = [0; _];
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: an all-zero header is an empty one. The control message lies in `room`, which has space for `FILES` numbers and is aligned
    // for its header; `CMSG_FIRSTHDR` returns its beginning because the length that was set is that of one message. The kernel only reads
    // what the header points to, which outlives the call.
    let sent = unsafe {
        let mut header: libc::msghdr = mem::zeroed();
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        if !files.is_empty() {
            let length = mem::size_of_val(files) as u32;
            header.msg_control = room.as_mut_ptr().cast();
            header.msg_controllen = libc::CMSG_SPACE(length) as _;
            let message = libc::CMSG_FIRSTHDR(&raw const header);
            (*message).cmsg_len = libc::CMSG_LEN(length) as _;
            (*message).cmsg_level = libc::SOL_SOCKET;
            (*message).cmsg_type = libc::SCM_RIGHTS;
            for (place, file) in files.iter().enumerate() {
                ptr::write_unaligned(libc::CMSG_DATA(message).cast::<RawFd>().add(place), file.as_raw_fd());
            }
        }
        libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL)
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives bytes, and appends the files that came with them. Returns how many bytes; 0 at the end.
pub fn receive_with_files(socket: BorrowedFd, bytes: &mut [u8], files: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut room: Room = [0; _];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: as above; the kernel writes into `bytes` and `room`, not beyond the lengths that are passed. The macros walk the control
    // messages inside the length that it leaves in the header. The numbers in a message of rights are files that were opened for this
    // process by the call, and each is owned once.
    unsafe {
        let mut header: libc::msghdr = mem::zeroed();
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = room.as_mut_ptr().cast();
        header.msg_controllen = mem::size_of::<Room>() as _;
        let received = libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC);
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        let mut message = libc::CMSG_FIRSTHDR(&raw const header);
        while !message.is_null() {
            if ((*message).cmsg_level, (*message).cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let length = ((*message).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
                for place in 0..length / mem::size_of::<RawFd>() {
                    let file = ptr::read_unaligned(libc::CMSG_DATA(message).cast::<RawFd>().add(place));
                    files.push(OwnedFd::from_raw_fd(file));
                }
            }
            message = libc::CMSG_NXTHDR(&raw const header, message);
        }
        match header.msg_flags & libc::MSG_CTRUNC {
            0 => Ok(received),
            _ => Err(io::Error::other("not all files that were passed could be taken: the limit of open files is reached")),
        }
    }
}

/// Takes the socket that this process was started with as its standard input, which is empty from then on.
pub fn take_standard_input() -> io::Result<OwnedFd> {
    let nothing = File::open("/dev/null")?;
    // SAFETY: a number is passed, and a new one comes back, which nobody else owns.
    let taken = unsafe {
        let taken = libc::fcntl(libc::STDIN_FILENO, libc::F_DUPFD_CLOEXEC, 3);
        if taken < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(taken)
    };
    // SAFETY: two numbers of open files; the standard input is nobody's but the process's, and is replaced at once.
    let replaced = unsafe { libc::dup2(nothing.as_raw_fd(), libc::STDIN_FILENO) };
    check(if replaced < 0 { -1 } else { 0 })?;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, SeekFrom, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn files_arrive_with_the_bytes_that_they_were_sent_with() {
        let (here, there) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        let files: Vec<OwnedFd> = (0..FILES).map(|_| file.try_clone().unwrap().into()).collect();
        assert_eq!(send_with_files(here.as_fd(), b"many", &files).unwrap(), 4);
        assert_eq!(send_with_files(here.as_fd(), b"none", &[]).unwrap(), 4);
        assert!(send_with_files(here.as_fd(), b"", &[]).is_err());
        let (mut bytes, mut came) = ([0; 16], Vec::new());
        // What was sent with files is received alone.
        assert_eq!(receive_with_files(there.as_fd(), &mut bytes, &mut came).unwrap(), 4);
        assert_eq!((&bytes[..4], came.len()), (&b"many"[..], FILES));
        let mut last = File::from(came.pop().unwrap());
        let mut text = String::new();
        last.seek(SeekFrom::Start(0)).unwrap();
        last.read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
        assert_eq!(receive_with_files(there.as_fd(), &mut bytes, &mut came).unwrap(), 4);
        assert_eq!((&bytes[..4], came.len()), (&b"none"[..], FILES - 1));
        drop(here);
        assert_eq!(receive_with_files(there.as_fd(), &mut bytes, &mut came).unwrap(), 0);
    }
}
