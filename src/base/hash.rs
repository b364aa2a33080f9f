//! Keyed hashing (SipHash-1-3): table keys that a stranger cannot make collide, and short checks that he cannot forge.

use siphasher::sip128::{Hasher128, SipHasher13 as SipHasher128};
use std::hash::Hasher;

/// A secret of 128 bits. Everything that leaves the server and must be recognised later is checked with it.
#[derive(Clone, Copy)]
pub struct Key(u64, u64);

impl Key {
    pub const fn new(a: u64, b: u64) -> Key {
        Key(a, b)
    }

    /// A key of its own for one purpose, so that what is valid in one place is not valid in another.
    pub fn derive(&self, purpose: &str) -> Key {
        let wide = self.wide(&[purpose.as_bytes()]);
        Key(wide as u64, (wide >> 64) as u64)
    }

    /// 64 keyed bits over the parts in order. Parts are separated: `["ab", "c"]` and `["a", "bc"]` differ.
    pub fn hash(&self, parts: &[&[u8]]) -> u64 {
        self.wide(parts) as u64
    }

    /// 128 keyed bits over the parts in order: wide enough to stand for the parts themselves.
    pub fn wide(&self, parts: &[&[u8]]) -> u128 {
        let mut hasher = SipHasher128::new_with_keys(self.0, self.1);
        // Gathered first: the hasher takes one long text at half the cost of many short ones.
        let mut text = [0; GATHERED];
        let mut len = 0;
        for part in parts {
            let end = len + part.len();
            match text.get_mut(len..end + 4) {
                Some(place) => {
                    let (copy, length) = place.split_at_mut(part.len());
                    copy.copy_from_slice(part);
                    length.copy_from_slice(&(part.len() as u32).to_le_bytes());
                    len = end + 4;
                }
                None => {
                    take_in(&mut hasher, &text[..len], part);
                    len = 0;
                }
            }
        }
        hasher.write(&text[..len]);
        hasher.finish128().as_u128()
    }

    /// 64 keyed bits over three numbers.
    pub fn hash_numbers(&self, a: u64, b: u64, c: u64) -> u64 {
        let mut hasher = SipHasher128::new_with_keys(self.0, self.1);
        hasher.write_u64(a);
        hasher.write_u64(b);
        hasher.write_u64(c);
        hasher.finish128().h1
    }
}

/// Bytes of the parts, each with its length behind, that are hashed at once.
const GATHERED: usize = 256;

/// What was gathered, and a part for which there was no room.
#[cold]
fn take_in(hasher: &mut SipHasher128, gathered: &[u8], part: &[u8]) {
    hasher.write(gathered);
    hasher.write(part);
    hasher.write(&(part.len() as u32).to_le_bytes());
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Writes `value` as 16 lower-case hexadecimal digits.
pub fn write_hex(value: u64, out: &mut Vec<u8>) {
    write_hex_digits(value, 16, out);
}

/// Writes the low `digits` hexadecimal digits of `value`, lower-case; at most 16.
pub fn write_hex_digits(value: u64, digits: usize, out: &mut Vec<u8>) {
    let text = hex(value);
    out.extend_from_slice(&text[text.len() - digits.min(text.len())..]);
}

/// All 16 digits, first to last.
fn hex(value: u64) -> [u8; 16] {
    let (high, low) = (eight_digits(value >> 32), eight_digits(value & 0xffff_ffff));
    let mut text = [0; 16];
    text[..8].copy_from_slice(&high.to_be_bytes());
    text[8..].copy_from_slice(&low.to_be_bytes());
    text
}

/// The eight digits of 32 bits, all at once: each half byte goes to a byte of its own, and those above 9 move on to the letters.
fn eight_digits(value: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let halves = (value | value << 16) & 0x0000_ffff_0000_ffff;
    let bytes = (halves | halves << 8) & 0x00ff_00ff_00ff_00ff;
    let nibbles = (bytes | bytes << 4) & (ONES * 15);
    let letters = (nibbles + ONES * 6) >> 4 & ONES;
    nibbles + ONES * u64::from(b'0') + letters * u64::from(b'a' - b'9' - 1)
}

/// Reads hexadecimal digits as [`write_hex_digits`] wrote them: lower-case only, 1 to 16 of them.
pub fn read_hex(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 16 {
        return None;
    }
    let (mut value, mut wrong) = (0u64, 0u8);
    for &byte in text {
        let digit = DIGIT[byte as usize];
        wrong |= digit;
        value = value << 4 | u64::from(digit & 15);
    }
    (wrong < 16).then_some(value)
}

/// What a byte stands for as a hexadecimal digit; 16 for nothing.
static DIGIT: [u8; 256] = {
    let mut table = [16; 256];
    let mut value = 0;
    while value < 16 {
        table[b"0123456789abcdef"[value] as usize] = value as u8;
        value += 1;
    }
    table
};

/// Writes a decimal number.
pub fn write_decimal(value: u64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_separated_and_keys_differ() {
        let key = Key::new(1, 2);
        assert_ne!(key.wide(&[b"ab", b"c"]), key.wide(&[b"a", b"bc"]));
        assert_ne!(key.wide(&[b"ab"]), key.wide(&[b"ab", b""]));
        assert_ne!(
            key.wide(&[b"a", b"b", b"c"]),
            key.wide(&[b"a", b"b", b"", b"c"])
        );
        assert_ne!(
            key.wide(&[b"a", b"bc", b"d"]),
            key.wide(&[b"a", b"b", b"cd"])
        );
        assert_ne!(key.wide(&[b"ab"]), Key::new(1, 3).wide(&[b"ab"]));
        assert_ne!(
            key.derive("branch").hash(&[b"x"]),
            key.derive("cookie").hash(&[b"x"])
        );
    }

    #[test]
    fn what_is_gathered_is_what_would_be_hashed_part_by_part() {
        let key = Key::new(1, 2);
        let text: Vec<u8> = (0..=255).cycle().take(1000).collect();
        for sizes in [
            &[0usize][..],
            &[1, 2, 3],
            &[252],
            &[253],
            &[248, 0],
            &[249, 0, 1],
            &[600, 5],
            &[5, 600, 7],
            &[100; 9],
        ] {
            let parts: Vec<&[u8]> = sizes.iter().map(|size| &text[..*size]).collect();
            let mut hasher = SipHasher128::new_with_keys(1, 2);
            for part in &parts {
                hasher.write(part);
                hasher.write_u32(part.len() as u32);
            }
            assert_eq!(key.wide(&parts), hasher.finish128().as_u128(), "{sizes:?}");
        }
    }

    #[test]
    fn hexadecimal_digits_are_those_of_the_standard_library() {
        let mut value = 0x0123_4567_89ab_cdef_u64;
        for _ in 0..1000 {
            value = value.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            assert_eq!(hex(value), *format!("{value:016x}").as_bytes());
        }
    }

    #[test]
    fn hexadecimal_round_trip() {
        let mut out = Vec::new();
        for value in [0, 1, 0xdead_beef, u64::MAX] {
            out.clear();
            write_hex(value, &mut out);
            assert_eq!(out.len(), 16);
            assert_eq!(read_hex(&out), Some(value));
        }
        for bad in [&b""[..], b"xyz", b"ABCD", b"00000000000000000"] {
            assert_eq!(read_hex(bad), None);
        }
    }

    #[test]
    fn decimal() {
        let mut out = Vec::new();
        for value in [0, 7, 10, 65535, u64::MAX] {
            out.clear();
            write_decimal(value, &mut out);
            assert_eq!(out, value.to_string().as_bytes());
        }
    }
}
