//! The lot of a new call: a number derived from its INVITE, the same for retransmissions. A server that must shed calls has the kernel
//! drop those with the lowest lots before they are queued, so that one that was dropped is not served when it is repeated.
//!
//! All bytes from [`FIRST`] up to the To line count, so calls that differ there have different lots. Whoever reads this can make many
//! calls with one lot nevertheless, be it by a To line above everything that varies; so the rules must expect lots that are not
//! evenly spread.
//!
//! It is drawn only for what can be recognised as new at a fixed cost, by a program without loops (`net::shed` generates it): an
//! INVITE whose `To:` (or `t:`) line begins near the start and ends with `>`, so that no tag follows. Everything else has no lot.

/// The earliest offset at which the To line can begin: after `INVITE a:b`.
pub const FIRST: usize = 16;
/// Offsets are checked two at a time, this many times in a block; the length is checked once before each block.
pub const STRIDE: usize = 2;
pub const STEPS: usize = 16;
pub const BLOCKS: usize = 14;
/// Bytes from one block to the next.
pub const BLOCK: usize = STRIDE * STEPS;
/// Offset in the To line from which its `>` is searched.
pub const NAME: usize = 8;
pub const SPAN: usize = 96;
/// The fewest bytes that follow the start of that line: the other lines that every INVITE has.
pub const REST: usize = SPAN + 8;

/// Lower-cases both letters in the lower half of a word.
pub const LOWER: u32 = 0x2020;
/// A line that begins with `t`: at the word's beginning, followed by any byte; and after the word's first byte, in lower case.
pub const LINE_T: u32 = u32::from_be_bytes(*b"\r\nt\0");
pub const ODD_LINE_T: u32 = u32::from_be_bytes(*b"\0\r\nt") | LOWER;
/// The end of a branch's cookie and the letter that makes it ours, which means that the call has been here before: at the word's
/// beginning, and from its second letter on, followed by any byte. There are two such letters, one the successor of the other.
pub const OURS: u32 = u32::from_be_bytes(*b"4bKs");
pub const OURS_LAST: u32 = OURS + 1;
pub const ODD_OURS: u32 = u32::from_be_bytes(*b"bKs\0");
pub const ODD_OURS_LAST: u32 = u32::from_be_bytes(*b"bKt\xff");

/// How lots are drawn; secret, so that no caller can choose its lot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Draw {
    pub start: u32,
    pub factor: u32,
    /// Added to each lot.
    pub turn: u32,
}

/// Which calls to shed: those whose lot is below this.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shed {
    pub draw: Draw,
    pub below: u32,
}

impl Draw {
    /// `secret`: 64 bits that nobody can guess.
    pub fn new(secret: u64) -> Draw {
        Draw { start: secret as u32, factor: (secret >> 32) as u32 | 1, turn: 0 }
    }

    /// Moves all lots round by the same amount, so that `lot` becomes the lowest.
    pub fn turned(self, lot: u32) -> Draw {
        Draw { turn: self.turn.wrapping_sub(lot), ..self }
    }

    /// Returns the lot of a message; `None` unless it is known to be a new INVITE.
    pub fn of(&self, bytes: &[u8]) -> Option<u32> {
        if !bytes.starts_with(b"INVITE ") {
            return None;
        }
        let mut sum = self.start;
        for block in 0..BLOCKS {
            let begins = FIRST + block * BLOCK;
            // The last word of the block, and what follows its line.
            let words = bytes.get(begins..begins + BLOCK + STRIDE)?;
            for step in 0..STEPS {
                let word = word(words.get(step * STRIDE..)?)?;
                if matches!(word, OURS..=OURS_LAST | ODD_OURS..=ODD_OURS_LAST) {
                    return None;
                }
                let lower = word | LOWER;
                let low = lower & 0x00ff_ffff;
                if lower & !0xff == LINE_T || low == ODD_LINE_T {
                    let at = begins + step * STRIDE + 2;
                    return is_without_tag(bytes, at).then(|| self.finish(sum));
                }
                if step % 2 == 1 {
                    sum = sum.wrapping_add(word).wrapping_mul(self.factor);
                }
            }
        }
        None
    }

    fn finish(&self, sum: u32) -> u32 {
        (sum ^ (sum >> 15)).wrapping_mul(self.factor).wrapping_add(self.turn)
    }
}

fn word(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.first_chunk()?))
}

/// True if the line at `at`, or one byte later, is a To that ends with `>` and is not continued by a folded line.
fn is_without_tag(bytes: &[u8], at: usize) -> bool {
    let Some(line) = bytes.get(at..at + REST) else {
        return false;
    };
    let line = line.strip_prefix(b"\n").unwrap_or(line);
    let is_to = matches!(line, [b't' | b'T', b':', ..] | [b't' | b'T', b'o' | b'O', b':', ..]);
    let mut name = line.iter().take(SPAN).skip(NAME);
    let ends = name.position(|byte| matches!(byte, b'>' | ..=b'\r'));
    let Some(end) = ends.and_then(|place| line.get(NAME + place..)) else {
        return false;
    };
    is_to && matches!(end, [b'>', b'\r', b'\n', next, ..] if !matches!(next, b' ' | b'\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite(number: u32, to: &str) -> Vec<u8> {
        format!(
            "INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa{number}\r\nFrom: <sip:a@b>;tag=1\r\n\
             {to}\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\nContact: <sip:a@192.0.2.1>\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\
             User-Agent: a phone\r\n\r\n"
        )
        .into_bytes()
    }

    /// Whichever byte before the To line differs (after `INVITE sip:bob@e`): letters and case.
    #[test]
    fn each_byte_counts() {
        let draw = Draw::new(0x0123_4567_89ab_cdef);
        let message = invite(1, "To: <sip:bob@example.com>");
        let lot = draw.of(&message).expect("new");
        let to = message.windows(4).position(|four| four == b"\nTo:").expect("there is one");
        let counted = FIRST + STRIDE..to - 4;
        for place in counted.filter(|place| message[*place].is_ascii_alphanumeric()) {
            for change in [0x01, 0x20] {
                let mut other = message.clone();
                other[place] ^= change;
                assert!(draw.of(&other).is_none_or(|other| other != lot), "{place}: {}", String::from_utf8_lossy(&other));
            }
        }
    }

    #[test]
    fn lots_are_spread_evenly_and_those_of_a_repetition_are_the_same() {
        for secret in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
            let draw = Draw::new(secret.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17) ^ 0xdead_beef_1234_5678);
            let mut parts = [0u32; 16];
            for number in 0..16_000 {
                let message = invite(number, "To: <sip:bob@example.com>");
                let lot = draw.of(&message).expect("new");
                assert_eq!(draw.of(&message), Some(lot));
                parts[(lot >> 28) as usize] += 1;
            }
            assert!(parts.iter().all(|part| (700..1300).contains(part)), "{parts:?}");
        }
    }
}
