//! Steering among the sockets that share one address: a filter in the kernel that hands a response to the worker whose branch
//! it carries, so that it need not cross by mail. What it does not recognise the kernel spreads by peer, as ever.

/// One instruction of the classic packet filter (`struct sock_filter` of <linux/filter.h>).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instruction {
    pub code: u16,
    pub jump_true: u8,
    pub jump_false: u8,
    pub k: u32,
}

const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_WORD_AT_X: u16 = 0x40;
const LOAD_BYTE_AT_X: u16 = 0x50;
const LOAD_LENGTH: u16 = 0x80;
const LOAD_X: u16 = 0x01;
const LOAD_X_MEMORY: u16 = 0x61;
const STORE: u16 = 0x02;
const SUBTRACT: u16 = 0x14;
const SHIFT_LEFT: u16 = 0x64;
const OR_X: u16 = 0x4c;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;
const RETURN_A: u16 = 0x16;

/// More sockets than there can be: the kernel then chooses by its own hash.
const NO_CHOICE: u32 = u32::MAX;

/// `SIP/2.0 200 ` is the shortest beginning of a status line; reason phrases up to 32 characters are looked through.
const FIRST_CRLF: u32 = 12;
const LAST_CRLF: u32 = 44;

/// A filter for responses whose first header line begins with `mark` and two hexadecimal digits, the number of the socket.
///
/// `mark` is what this server's own Via line says before the digits; its length must be 4 to 200 bytes.
pub fn by_mark(mark: &[u8]) -> Option<Vec<Instruction>> {
    if !(4..=200).contains(&mark.len()) {
        return None;
    }
    let mut program = Program::default();
    let needed = LAST_CRLF + 2 + mark.len() as u32 + 2;
    program.load(LOAD_LENGTH, 0);
    program.unless(JUMP_AT_LEAST, needed);
    program.load(LOAD_WORD, 0);
    program.unless(JUMP_EQUAL, u32::from_be_bytes(*b"SIP/"));

    // The end of the status line; there are no loops here. X becomes the offset of the line behind it.
    let blocks = LAST_CRLF - FIRST_CRLF + 1;
    for number in 0..blocks {
        let at = FIRST_CRLF + number;
        let left = blocks - number - 1;
        program.load(LOAD_HALF, at);
        program.branch(JUMP_EQUAL, u32::from(u16::from_be_bytes(*b"\r\n")), 0, 2);
        program.load(LOAD_X, at + 2);
        program.load(JUMP, left * 4 + 1);
    }
    program.load(RETURN, NO_CHOICE);

    let mut at = 0;
    let mut words = mark.chunks_exact(4);
    for word in &mut words {
        program.load(LOAD_WORD_AT_X, at);
        program.unless(
            JUMP_EQUAL,
            word.iter().fold(0, |sum, b| sum << 8 | u32::from(*b)),
        );
        at += 4;
    }
    for byte in words.remainder() {
        program.load(LOAD_BYTE_AT_X, at);
        program.unless(JUMP_EQUAL, u32::from(*byte));
        at += 1;
    }
    program.load(LOAD_BYTE_AT_X, at);
    program.digit();
    program.load(SHIFT_LEFT, 4);
    program.load(STORE, 0);
    program.load(LOAD_BYTE_AT_X, at + 1);
    program.digit();
    program.load(LOAD_X_MEMORY, 0);
    program.load(OR_X, 0);
    program.load(RETURN_A, 0);
    Some(program.0)
}

#[derive(Default)]
struct Program(Vec<Instruction>);

impl Program {
    fn load(&mut self, code: u16, k: u32) {
        self.branch(code, k, 0, 0);
    }

    fn branch(&mut self, code: u16, k: u32, jump_true: u8, jump_false: u8) {
        self.0.push(Instruction {
            code,
            jump_true,
            jump_false,
            k,
        });
    }

    /// Goes on when the test holds, else leaves the choice to the kernel.
    fn unless(&mut self, test: u16, k: u32) {
        self.branch(test, k, 1, 0);
        self.load(RETURN, NO_CHOICE);
    }

    /// A hexadecimal digit, lower-case, to its value. What is none becomes any number: the worker checks the branch anyway.
    fn digit(&mut self) {
        self.branch(JUMP_AT_LEAST, u32::from(b'a'), 0, 2);
        self.load(SUBTRACT, u32::from(b'a') - 10);
        self.load(JUMP, 1);
        self.load(SUBTRACT, u32::from(b'0'));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's interpreter, as far as these programs need it. A load beyond the packet returns 0.
    fn run(program: &[Instruction], packet: &[u8]) -> u32 {
        let (mut a, mut x, mut memory, mut at) = (0u32, 0u32, 0u32, 0usize);
        loop {
            let Instruction {
                code,
                jump_true,
                jump_false,
                k,
            } = program[at];
            at += 1;
            let load = |from: u32, len: usize| {
                let bytes = packet.get(from as usize..from as usize + len)?;
                Some(bytes.iter().fold(0, |sum, b| sum << 8 | u32::from(*b)))
            };
            let mut jump = |holds: bool| {
                at += usize::from(if holds { jump_true } else { jump_false });
            };
            let loaded = match code {
                LOAD_WORD => load(k, 4),
                LOAD_HALF => load(k, 2),
                LOAD_WORD_AT_X => load(x + k, 4),
                LOAD_BYTE_AT_X => load(x + k, 1),
                LOAD_LENGTH => Some(packet.len() as u32),
                SUBTRACT => Some(a.wrapping_sub(k)),
                SHIFT_LEFT => Some(a << k),
                OR_X => Some(a | x),
                _ => Some(a),
            };
            let Some(loaded) = loaded else { return 0 };
            a = loaded;
            match code {
                LOAD_X => x = k,
                LOAD_X_MEMORY => x = memory,
                STORE => memory = a,
                JUMP => at += k as usize,
                JUMP_EQUAL => jump(a == k),
                JUMP_AT_LEAST => jump(a >= k),
                RETURN => return k,
                RETURN_A => return a,
                _ => {}
            }
        }
    }

    #[test]
    fn responses_go_where_their_branch_says_and_nothing_else_does() {
        let mark = b"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKs";
        let program = by_mark(mark).unwrap();
        assert!(program.len() < 4096, "the kernel's limit");
        let response = |status: &str, via: &str| {
            format!("SIP/2.0 {status}\r\n{via}00000001\r\nFrom: <sip:a@b>\r\n\r\n").into_bytes()
        };
        let via = |digits: &str| format!("Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKs{digits}");
        for (digits, core) in [("00", 0), ("01", 1), ("0a", 10), ("1f", 31), ("ff", 255)] {
            for status in [
                "200 OK",
                "200 ",
                "180 Ringing",
                "486 Busy Here",
                "100 Trying",
            ] {
                assert_eq!(
                    run(&program, &response(status, &via(digits))),
                    core,
                    "{status}"
                );
            }
        }
        let no_choice = |packet: &[u8]| assert!(run(&program, packet) > 255, "{packet:?}");
        no_choice(&response("200 OK", &via("").replace("Ks", "Kt")));
        no_choice(&response(
            "200 OK",
            &via("00").replace("192.0.2.1", "192.0.2.9"),
        ));
        no_choice(&response(
            "200 A Reason Phrase That Is Longer Than Any",
            &via("01"),
        ));
        no_choice(b"INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKs0000000000\r\n\r\n");
        no_choice(b"SIP/2.0 200 OK\r\n");
        no_choice(b"\r\n\r\n");
        no_choice(b"");
    }

    #[test]
    fn a_mark_of_any_length_is_compared_whole() {
        for len in 4..=60 {
            let mark: Vec<u8> = (0..len).map(|n| b'a' + (n % 26) as u8).collect();
            let program = by_mark(&mark).unwrap();
            let mut packet = b"SIP/2.0 200 OK\r\n".to_vec();
            packet.extend_from_slice(&mark);
            packet.extend_from_slice(b"03");
            packet.resize(300, b'.');
            assert_eq!(run(&program, &packet), 3, "{len}");
            for at in 0..mark.len() {
                let mut other = packet.clone();
                other[16 + at] ^= 1;
                assert_eq!(run(&program, &other), NO_CHOICE, "{len} {at}");
            }
        }
        assert_eq!(by_mark(b"abc"), None);
        assert_eq!(by_mark(&[b'a'; 201]), None);
    }
}
