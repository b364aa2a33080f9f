//! A packet filter that drops INVITEs of new calls before they are queued (RFC 3261 §21.5.4 permits not to answer), while a core is
//! overloaded: a refusal costs the core a receive and a send, this costs it nothing.
//!
//! It is classic BPF, which needs no privilege and has no loops, so it looks only as far as [`crate::base::lot`] says, and anything
//! that it does not recognise as a new INVITE with a low lot passes: the rules refuse those. Requests of other methods always pass.
//! A REGISTER that is dropped is retransmitted ten times before its client gives up, when one answer would do.

use super::steer::{branch, instruction};
use crate::base::Shed;
use crate::base::lot::{
    BLOCK, BLOCKS, FIRST, LINE_T, LOWER, NAME, ODD_LINE_T, ODD_OURS, ODD_OURS_LAST, OURS, OURS_LAST, REST, SPAN, STEPS, STRIDE,
};
use libc::{
    BPF_ABS, BPF_ADD, BPF_ALU, BPF_AND, BPF_B, BPF_IMM, BPF_IND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_K, BPF_LD,
    BPF_LDX, BPF_LEN, BPF_MEM, BPF_MISC, BPF_MUL, BPF_OR, BPF_RET, BPF_RSH, BPF_ST, BPF_STX, BPF_SUB, BPF_TAX, BPF_TXA, BPF_W,
    BPF_X, BPF_XOR, sock_filter,
};

/// The kernel presents the datagram with its UDP header.
const HEADER: usize = 8;
/// The kernel's scratch memory: the sum of the words, and the last one.
const SUM: usize = 0;
const WORD: usize = 1;
/// Return value of the filter that keeps the whole datagram.
const PASS: u32 = u32::MAX;
const DROP: u32 = 0;

/// Instructions, with jumps to later positions.
#[derive(Default)]
struct Program {
    code: Vec<sock_filter>,
    /// Jumps to the next [`Program::pass`].
    passing: Vec<(usize, Jump)>,
    /// Jumps to where the To line was found.
    finding: Vec<usize>,
}

enum Jump {
    IfTrue,
    IfFalse,
}

impl Program {
    fn push(&mut self, code: u32, k: usize) {
        self.code.push(instruction(code, k as u32));
    }

    fn skip(&mut self, comparison: u32, k: u32, if_true: u8, if_false: u8) {
        self.code.push(branch(comparison, k, if_true, if_false));
    }

    /// Lets a datagram pass if the comparison holds.
    fn pass_if(&mut self, comparison: u32, k: u32) {
        self.passing.push((self.code.len(), Jump::IfTrue));
        self.skip(comparison, k, 0, 0);
    }

    fn pass_unless(&mut self, comparison: u32, k: u32) {
        self.passing.push((self.code.len(), Jump::IfFalse));
        self.skip(comparison, k, 0, 0);
    }

    /// The target of the jumps that pass; other control flow skips it.
    fn pass(&mut self) {
        self.push(BPF_JMP | BPF_JA, 1);
        self.pass_all();
    }

    /// Lets everything pass from here.
    fn pass_all(&mut self) {
        let here = self.code.len();
        self.push(BPF_RET | BPF_K, PASS as usize);
        for (from, jump) in self.passing.drain(..) {
            let over = (here - from - 1) as u8;
            debug_assert_eq!(usize::from(over), here - from - 1, "a jump too far");
            match jump {
                Jump::IfTrue => self.code[from].jt = over,
                Jump::IfFalse => self.code[from].jf = over,
            }
        }
    }

    /// Checks the word at `place`, and keeps it if it is to be counted.
    fn look(&mut self, place: usize, counts: bool) {
        self.push(BPF_LD | BPF_W | BPF_ABS, HEADER + place);
        if counts {
            self.push(BPF_ST, WORD);
        }
        for (first, last) in [(OURS, OURS_LAST), (ODD_OURS, ODD_OURS_LAST)] {
            self.skip(BPF_JGE, first, 0, 1);
            self.pass_unless(BPF_JGT, last);
        }
        self.push(BPF_ALU | BPF_OR | BPF_K, LOWER as usize);
        self.skip(BPF_JGE, LINE_T, 0, 1);
        self.skip(BPF_JGT, LINE_T | 0xff, 0, 2);
        self.push(BPF_ALU | BPF_AND | BPF_K, 0x00ff_ffff);
        self.skip(BPF_JEQ, ODD_LINE_T, 0, 2);
        self.push(BPF_LD | BPF_IMM, place + 2);
        self.finding.push(self.code.len());
        self.push(BPF_JMP | BPF_JA, 0);
    }

    /// Loads the byte at X and `k`.
    fn byte_at(&mut self, k: usize) {
        self.push(BPF_LD | BPF_B | BPF_IND, HEADER + k);
    }

    /// From here on X is the beginning of the To line.
    fn found(&mut self) {
        let here = self.code.len();
        for from in self.finding.drain(..) {
            self.code[from].k = (here - from - 1) as u32;
        }
        // X is needed for something else.
        self.push(BPF_STX, SUM);
        self.push(BPF_MISC | BPF_TAX, 0);
        self.push(BPF_LD | BPF_W | BPF_LEN, 0);
        self.push(BPF_ALU | BPF_SUB | BPF_X, 0);
        self.pass_unless(BPF_JGE, (HEADER + REST) as u32);
        self.byte_at(0);
        self.skip(BPF_JEQ, u32::from(b'\n'), 0, 3);
        self.push(BPF_MISC | BPF_TXA, 0);
        self.push(BPF_ALU | BPF_ADD | BPF_K, 1);
        self.push(BPF_MISC | BPF_TAX, 0);
        // "t:" or "to:".
        self.push(BPF_LD | BPF_W | BPF_IND, HEADER);
        self.push(BPF_ALU | BPF_OR | BPF_K, 0x2020_0000);
        self.push(BPF_ALU | BPF_RSH | BPF_K, 8);
        self.skip(BPF_JEQ, u32::from_be_bytes(*b"\0to:"), 2, 0);
        self.push(BPF_ALU | BPF_RSH | BPF_K, 8);
        self.pass_unless(BPF_JEQ, u32::from_be_bytes(*b"\0\0t:"));
        self.pass();
    }

    /// Continues if the line ends with `>`.
    fn end_of_name(&mut self) {
        let mut closing = Vec::new();
        for k in NAME..SPAN {
            self.byte_at(k);
            self.skip(BPF_JEQ, u32::from(b'>'), 0, 2);
            self.push(BPF_LD | BPF_IMM, k);
            closing.push(self.code.len());
            self.push(BPF_JMP | BPF_JA, 0);
            self.pass_unless(BPF_JGT, u32::from(b'\r'));
            if k % STEPS == STEPS - 1 {
                self.pass();
            }
        }
        self.push(BPF_RET | BPF_K, PASS as usize);
        let here = self.code.len();
        for from in closing {
            self.code[from].k = (here - from - 1) as u32;
        }
        self.push(BPF_ALU | BPF_ADD | BPF_X, 0);
        self.push(BPF_MISC | BPF_TAX, 0);
        self.push(BPF_LD | BPF_W | BPF_IND, HEADER);
        self.push(BPF_ALU | BPF_RSH | BPF_K, 8);
        self.pass_unless(BPF_JEQ, u32::from_be_bytes(*b"\0>\r\n"));
        self.byte_at(3);
        self.pass_if(BPF_JEQ, u32::from(b' '));
        self.pass_if(BPF_JEQ, u32::from(b'\t'));
        self.pass();
    }
}

/// Drops messages for which [`crate::base::Draw::of`] draws a lot that is too low.
pub(super) fn program(shed: &Shed) -> Vec<sock_filter> {
    let mut program = Program::default();
    program.push(BPF_LD | BPF_W | BPF_LEN, 0);
    program.pass_unless(BPF_JGE, (HEADER + FIRST) as u32);
    program.push(BPF_LD | BPF_W | BPF_ABS, HEADER);
    program.pass_unless(BPF_JEQ, u32::from_be_bytes(*b"INVI"));
    program.push(BPF_LD | BPF_W | BPF_ABS, HEADER + 4);
    program.push(BPF_ALU | BPF_RSH | BPF_K, 8);
    program.pass_unless(BPF_JEQ, u32::from_be_bytes(*b"\0TE "));
    program.push(BPF_LDX | BPF_W | BPF_IMM, shed.draw.start as usize);
    for block in 0..BLOCKS {
        let begins = FIRST + block * BLOCK;
        program.push(BPF_LD | BPF_W | BPF_LEN, 0);
        program.pass_unless(BPF_JGE, (HEADER + begins + BLOCK + STRIDE) as u32);
        program.pass();
        for step in 0..STEPS {
            let counts = step % 2 == 1;
            program.look(begins + step * STRIDE, counts);
            if counts {
                program.push(BPF_LD | BPF_MEM, WORD);
                program.push(BPF_ALU | BPF_ADD | BPF_X, 0);
                program.push(BPF_ALU | BPF_MUL | BPF_K, shed.draw.factor as usize);
                program.push(BPF_MISC | BPF_TAX, 0);
            }
        }
        program.pass();
    }
    program.push(BPF_RET | BPF_K, PASS as usize);
    program.found();
    program.end_of_name();
    // The lot.
    program.push(BPF_LD | BPF_MEM, SUM);
    program.push(BPF_ALU | BPF_RSH | BPF_K, 15);
    program.push(BPF_LDX | BPF_W | BPF_MEM, SUM);
    program.push(BPF_ALU | BPF_XOR | BPF_X, 0);
    program.push(BPF_ALU | BPF_MUL | BPF_K, shed.draw.factor as usize);
    program.push(BPF_ALU | BPF_ADD | BPF_K, shed.draw.turn as usize);
    program.pass_if(BPF_JGE, shed.below);
    program.push(BPF_RET | BPF_K, DROP as usize);
    program.pass_all();
    program.code
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Draw;
    use crate::net::sys::Inbound;
    use crate::net::{Buffers, Udp};
    use std::net::{SocketAddr, UdpSocket};

    /// Builds an INVITE from the words of `text`, with `{to}` and a tail that every INVITE has.
    fn invite(number: u32, head: &str, to: &str) -> Vec<u8> {
        format!(
            "INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa{number}\r\n{head}{to}\
             Call-ID: {number}@192.0.2.1\r\nCSeq: 1 INVITE\r\nContact: <sip:alice@192.0.2.1:5060>\r\nMax-Forwards: 70\r\n\
             Content-Type: application/sdp\r\nContent-Length: 0\r\n\r\n"
        )
        .into_bytes()
    }

    const FROM: &str = "From: <sip:alice@example.com>;tag=abc\r\n";

    /// New INVITEs, which may be shed depending on their lots.
    fn sheddable() -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for to in [
            "To: <sip:bob@example.com>\r\n",
            "to:<sip:bob@example.com>\r\n",
            "TO:   \"Bob; tag=1\" <sip:bob@example.com;user=phone;tag=2>\r\n",
            "t: <sip:bob@example.com>\r\n",
            "T:<tel:1>\r\n",
            "t:\t<sip:bob@example.com>\r\n",
        ] {
            for head in ["", FROM, "f:<sip:a@b>;tag=x\r\n", "X: 1\r\nFrom: \"x\" <sip:a@b>;tag=x\r\n"] {
                all.push(invite(1, head, to));
                all.push(invite(10, head, to));
            }
            let long = format!("Route: <sip:{}@example.com>\r\n{FROM}", "x".repeat(300));
            all.push(invite(1, &long, to));
        }
        all
    }

    /// What must pass however little is admitted.
    fn begun() -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for to in [
            "To: <sip:bob@example.com>;tag=1\r\n",
            "TO: <sip:bob@example.com>;TAG=1\r\n",
            "To: \"Bob\" <sip:bob@example.com> ; Tag = 1\r\n",
            "To: <sip:bob@example.com>\r\n ;tag=1\r\n",
            "To: <sip:bob@example.com>\r\n\t;tag=1\r\n",
            "To:\r\n <sip:bob@example.com>;tag=1\r\n",
            "To : <sip:bob@example.com>;tag=1\r\n",
            "To\t: <sip:bob@example.com>;tag=1\r\n",
            "To\r\n : <sip:bob@example.com>;tag=1\r\n",
            "t: <sip:bob@example.com>;tag=1\r\n",
            "t : <sip:bob@example.com>;tag=1\r\n",
            "T:<tel:1>;tag=1\r\n",
            "To: sip:bob@example.com;tag=1\r\n",
            "t:a:b;tag=1\r\n",
            "To: \"a > b\" <sip:bob@example.com>;tag=1\r\n",
            "To: \"a >\r\n b\" <sip:bob@example.com>;tag=1\r\n",
            "To: <sip:bob@example.com>;x=y;tag=1\r\n",
        ] {
            for head in ["", FROM, "f:<sip:a@b>;tag=x\r\n", "Timestamp: 1\r\n", "Tox: <sip:a@b>\r\n"] {
                all.push(invite(1, head, to));
                all.push(invite(10, head, to));
            }
            let far = format!("Route: <sip:{}@example.com>\r\n{FROM}", "x".repeat(600));
            all.push(invite(1, &far, to));
        }
        // A name so long that its tag is not seen, and one that ends where a following folded line cannot be seen.
        for long in [70, 76, 77, 78, 79, 80, 81, 82, 83, 84, 85, 90, 300] {
            all.push(invite(1, FROM, &format!("To: <sip:{}@b>;tag=1\r\n", "x".repeat(long))));
        }
        // They pass, because nothing identifies them.
        let plain = "To: <sip:bob@example.com>\r\n";
        for head in [
            "Via: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKs0000000001\r\n",
            "Via: SIP/2.0/UDP 192.0.2.10;branch=z9hG4bKs0000000001\r\n",
            "Via: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKt0000000001\r\n",
            "Via: SIP/2.0/UDP 192.0.2.10;branch=z9hG4bKt0000000001\r\n",
        ] {
            all.push(invite(1, head, plain));
        }
        let far = format!("Route: <sip:{}@example.com>\r\n{FROM}", "x".repeat(600));
        all.push(invite(1, &far, plain));
        let whole = String::from_utf8(invite(1, FROM, plain)).unwrap();
        for method in ["ACK", "BYE", "CANCEL", "REGISTER", "OPTIONS", "INVITEX", "invite", "INVIT"] {
            all.push(whole.replacen("INVITE", method, 1).into_bytes());
        }
        all.push(whole.replacen("INVITE sip:bob@example.com SIP/2.0", "SIP/2.0 200 OK", 1).into_bytes());
        all.push(format!("\r\n{whole}").into_bytes());
        // Wherever it is truncated: no incomplete message is dropped because of that.
        let tagged = String::from_utf8(invite(1, FROM, "To: <sip:bob@example.com>;tag=1\r\n")).unwrap();
        for len in 0..tagged.len() {
            all.push(tagged.as_bytes()[..len].to_vec());
        }
        all
    }

    /// Sends each message separately, and returns for each whether it got through.
    fn pass(udp: &mut Udp, client: &UdpSocket, messages: &[Vec<u8>]) -> Vec<bool> {
        let mut inbound = Inbound::new(4);
        messages
            .iter()
            .map(|message| {
                client.send_to(message, udp.address()).unwrap();
                matches!(udp.receive(&mut inbound), Ok(1))
            })
            .collect()
    }

    fn shed(below: u32) -> Shed {
        Shed { draw: Draw::new(0x1234_5678_9abc_def0), below }
    }

    #[test]
    fn what_is_new_is_dropped_and_what_has_begun_passes() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let any: SocketAddr = any.parse().unwrap();
            let mut udp = Udp::bind(any, 1, &Buffers::default()).unwrap().remove(0);
            let client = UdpSocket::bind(any).unwrap();
            udp.shed(Some(shed(u32::MAX))).unwrap();
            for (messages, passes) in [(sheddable(), false), (begun(), true)] {
                for (came, message) in pass(&mut udp, &client, &messages).iter().zip(&messages) {
                    let text = String::from_utf8_lossy(message);
                    let lot = shed(0).draw.of(message);
                    assert_eq!((*came, lot.is_none()), (passes, passes), "{text}");
                }
            }
            udp.shed(None).unwrap();
            assert!(pass(&mut udp, &client, &sheddable()).iter().all(|came| *came));
        }
    }

    /// The kernel draws the same lots as the rules.
    #[test]
    fn as_many_are_dropped_as_have_lots_below() {
        let mut udp = Udp::bind("127.0.0.1:0".parse().unwrap(), 1, &Buffers::default()).unwrap().remove(0);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let messages: Vec<Vec<u8>> = (0..2000).map(|number| invite(number, FROM, "To: <sip:b@example.com>\r\n")).collect();
        for sixteenth in [0, 1, 4, 8, 12, 15] {
            let even = shed(sixteenth << 28);
            let shed = Shed { draw: even.draw.turned(sixteenth << 20), ..even };
            udp.shed(Some(shed)).unwrap();
            let came = pass(&mut udp, &client, &messages);
            for (came, message) in came.iter().zip(&messages) {
                assert_eq!(*came, shed.draw.of(message).unwrap() >= shed.below);
            }
            let dropped = came.iter().filter(|came| !**came).count() as u32;
            let wanted = 2000 * sixteenth / 16;
            assert!(dropped.abs_diff(wanted) <= 120, "{dropped}, not {wanted}");
        }
    }

    #[test]
    fn it_is_not_longer_than_the_kernel_takes() {
        let len = program(&shed(1)).len();
        assert!(len <= 4096, "{len}");
        let any = "127.0.0.1:0".parse().unwrap();
        let mut udp = Udp::bind(any, 1, &Buffers::default()).unwrap().remove(0);
        for round in 0..50 {
            udp.shed(Some(shed(round))).unwrap();
        }
        // Two at the same time fit, so that one can follow the other without a gap.
        let socket = UdpSocket::bind(any).unwrap();
        for round in 0..2 {
            crate::net::sys::filter::attach(std::os::fd::AsFd::as_fd(&socket), &program(&shed(round))).unwrap();
        }
        udp.shed(None).unwrap();
        udp.shed(None).unwrap();
    }

    /// What the filter drops is counted separately from what finds no room.
    #[test]
    fn what_is_shed_is_no_loss() {
        let any = "127.0.0.1:0".parse().unwrap();
        let mut udp = Udp::bind(any, 1, &Buffers::default()).unwrap().remove(0);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let message = invite(1, FROM, "To: <sip:bob@example.com>\r\n");
        udp.shed(Some(shed(u32::MAX))).unwrap();
        for _ in 0..30 {
            client.send_to(&message, udp.address()).unwrap();
        }
        assert_eq!((udp.counters().shed, udp.counters().kernel_drops), (30, 0));
        for _ in 0..12 {
            client.send_to(&message, udp.address()).unwrap();
        }
        udp.shed(None).unwrap();
        assert_eq!((udp.shed_so_far(), udp.counters().kernel_drops), (42, 0));
        client.send_to(&message, udp.address()).unwrap();
        assert_eq!(udp.receive(&mut Inbound::new(4)).unwrap(), 1);
    }
}
