//! A packet filter that delivers a response to the core whose transaction waits for it, when several sockets share an address.
//!
//! The kernel spreads datagrams over the sockets by their addresses, so a response reaches the core that sent the request only by
//! chance, and otherwise has to be passed from core to core. But the response carries our Via branch, and the branch begins with a
//! fixed mark and the core's number. This filter (classic BPF, which needs no privilege) looks for the mark near the beginning of a
//! response and selects the socket; everything else is left to the kernel. It is only a hint: a sender that forges it merely gets
//! its datagram handled by another core.

use super::sys::filter;
use libc::{
    BPF_A, BPF_ABS, BPF_ADD, BPF_ALU, BPF_B, BPF_IMM, BPF_IND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_LDX, BPF_LEN,
    BPF_LSH, BPF_MEM, BPF_RET, BPF_ST, BPF_SUB, BPF_W, BPF_X, sock_filter,
};
use std::io;
use std::os::fd::BorrowedFd;

/// The mark before the two hexadecimal digits of the core's number. Eight bytes: two word comparisons.
pub type Mark = [u8; 8];

/// The earliest offset of a mark: after the shortest status line and the shortest Via.
const FIRST: u32 = 36;
/// Offsets checked after each check of the datagram's length.
const STEP: u32 = 16;
const STEPS: u32 = 14;

/// Has the kernel deliver responses that contain `mark` to the socket whose number follows it, in binding order. All sockets of the
/// group must be bound; one of them suffices here.
pub fn attach(socket: BorrowedFd<'_>, mark: &Mark) -> io::Result<()> {
    filter::attach_reuse_port(socket, &program(mark))
}

/// A result that is not a socket number: the kernel chooses by the addresses.
const BY_ADDRESS: u32 = u32::MAX;

fn program(mark: &Mark) -> Vec<sock_filter> {
    let word = |at: usize| u32::from_be_bytes([mark[at], mark[at + 1], mark[at + 2], mark[at + 3]]);
    let (first, second) = (word(0), word(4));
    let mut code = vec![
        instruction(BPF_LD | BPF_W | BPF_LEN, 0),
        branch(BPF_JGE, FIRST, 1, 0),
        instruction(BPF_RET | BPF_K, BY_ADDRESS),
        instruction(BPF_LD | BPF_W | BPF_ABS, 0),
        branch(BPF_JEQ, u32::from_be_bytes(*b"SIP/"), 1, 0),
        instruction(BPF_RET | BPF_K, BY_ADDRESS),
    ];
    let mut found = Vec::new();
    for step in 0..STEPS {
        let start = FIRST + step * STEP;
        // The mark and digits at the last offset of this step must be inside the datagram: a load past the end would end the
        // program.
        code.push(instruction(BPF_LD | BPF_W | BPF_LEN, 0));
        code.push(branch(BPF_JGE, start + STEP + 10, 1, 0));
        code.push(instruction(BPF_RET | BPF_K, BY_ADDRESS));
        for place in start..start + STEP {
            code.push(instruction(BPF_LD | BPF_W | BPF_ABS, place));
            code.push(branch(BPF_JEQ, first, 0, 4));
            code.push(instruction(BPF_LD | BPF_W | BPF_ABS, place + 4));
            code.push(branch(BPF_JEQ, second, 0, 2));
            code.push(instruction(BPF_LDX | BPF_W | BPF_IMM, place + 8));
            found.push(code.len());
            code.push(instruction(BPF_JMP | BPF_JA, 0));
        }
    }
    code.push(instruction(BPF_RET | BPF_K, BY_ADDRESS));
    // Found: X is the offset of the digits.
    let end = code.len();
    for jump in found {
        code[jump].k = (end - jump - 1) as u32;
    }
    code.push(instruction(BPF_LD | BPF_B | BPF_IND, 0));
    push_digit(&mut code);
    code.push(instruction(BPF_ALU | BPF_LSH | BPF_K, 4));
    code.push(instruction(BPF_ST, 0));
    code.push(instruction(BPF_LD | BPF_B | BPF_IND, 1));
    push_digit(&mut code);
    code.push(instruction(BPF_LDX | BPF_W | BPF_MEM, 0));
    code.push(instruction(BPF_ALU | BPF_ADD | BPF_X, 0));
    code.push(instruction(BPF_RET | BPF_A, 0));
    code
}

/// Converts the lower-case hexadecimal digit in the accumulator to a number; anything else becomes an arbitrary number.
fn push_digit(code: &mut Vec<sock_filter>) {
    code.push(branch(BPF_JGE, u32::from(b'a'), 0, 1));
    code.push(instruction(BPF_ALU | BPF_SUB | BPF_K, u32::from(b'a' - b'0') - 10));
    code.push(instruction(BPF_ALU | BPF_SUB | BPF_K, u32::from(b'0')));
}

pub(super) fn instruction(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// Compares the accumulator with `k`; `jt` and `jf` are how many instructions to skip if true and if false.
pub(super) fn branch(comparison: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: (BPF_JMP | comparison | BPF_K) as u16, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::sys::Inbound;
    use crate::net::{Buffers, Udp};
    use std::net::{SocketAddr, UdpSocket};

    const MARK: &Mark = b"z9hG4bKs";

    /// Returns which of `sockets` received the datagram that `client` sends.
    fn goes_to(sockets: &mut [Udp], client: &UdpSocket, message: &[u8]) -> usize {
        client.send_to(message, sockets[0].address()).unwrap();
        let mut inbound = Inbound::new(4);
        let got: Vec<usize> = (0..sockets.len()).filter(|number| matches!(sockets[*number].receive(&mut inbound), Ok(1))).collect();
        assert_eq!(got.len(), 1, "exactly one socket gets it");
        got[0]
    }

    #[test]
    fn responses_reach_the_core_that_their_branch_names() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let any: SocketAddr = any.parse().unwrap();
            let mut sockets = Udp::bind(any, 19, &Buffers::default()).unwrap();
            sockets[3].steer(MARK).unwrap();
            let client = UdpSocket::bind(any).unwrap();
            let by_address = goes_to(&mut sockets, &client, b"OPTIONS sip:a SIP/2.0\r\n\r\n");
            for core in 0..19 {
                for via in [
                    "v:SIP/2.0/UDP a;branch=",
                    "Via: SIP/2.0/UDP 127.0.0.1:5060;branch=",
                    "Via: SIP/2.0/UDP [2001:db8:1234:5678:9abc:def0:1234:5678]:5060;rport;received=2001:db8::1;branch=",
                    "Server: z9hG4bK z9hG4bKx of a kind that puts its name first, before any Via\r\nVia: SIP/2.0/UDP a;branch=",
                ] {
                    for status in ["200 ", "487 Request Terminated"] {
                        let message = format!(
                            "SIP/2.0 {status}\r\n{via}z9hG4bKs{core:02x}00000001deadbeef\r\n\
                             Via: SIP/2.0/UDP b;branch=z9hG4bKs00\r\n\r\n"
                        );
                        let got = goes_to(&mut sockets, &client, message.as_bytes());
                        assert_eq!(got, core, "{message}");
                    }
                }
            }
            // For everything else the kernel chooses, and always the same socket for one peer.
            let long = format!("SIP/2.0 200 {}\r\nVia: SIP/2.0/UDP a;branch=z9hG4bKs00", "x".repeat(400));
            for other in [
                "",
                "\r\n\r\n",
                "SIP/",
                "SIP/2.0 200 \r\nv:SIP/2.0/UDP a;branch=z9hG4bKs",
                "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK0123456789abcdefghijklmnopqrstuvw\r\n\r\n",
                "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a;branch=z9hG4bKs13 and no such core is there at all\r\n\r\n",
                "INVITE sip:a SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bKs0000000001deadbeef\r\n\r\n",
                &long,
            ] {
                let got = goes_to(&mut sockets, &client, other.as_bytes());
                assert_eq!(got, by_address, "{other}");
            }
        }
    }

    #[test]
    fn a_socket_that_shares_nothing_cannot_steer() {
        let alone = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(attach(std::os::fd::AsFd::as_fd(&alone), MARK).is_err());
    }
}
