//! Keyed hashing (SipHash-1-3): table keys for which outsiders cannot cause collisions, and short check values that they cannot
//! forge.

use super::keyed::Hashed;
use std::hash::{BuildHasherDefault, Hasher};

/// A secret of 128 bits. Everything that is sent out and must be recognised later is checked with it.
#[derive(Clone, Copy)]
pub struct Key(u64, u64);

impl Key {
    pub const fn new(a: u64, b: u64) -> Key {
        Key(a, b)
    }

    /// Derives a separate key for one purpose, so that what is valid for one purpose is not valid for another.
    pub fn derive(&self, purpose: &str) -> Key {
        let wide = self.wide(&[purpose.as_bytes()]);
        Key(wide as u64, (wide >> 64) as u64)
    }

    /// Returns a 64-bit keyed hash over the parts in order. Parts are separated: `["ab", "c"]` and `["a", "bc"]` differ.
    ///
    /// Servers that share a key must agree on these values, and on those of [`Key::wide`]; records on disk are checked by them too.
    pub fn hash(&self, parts: &[&[u8]]) -> u64 {
        let mut room = [0; GATHERED];
        match gather(parts, &mut room) {
            Some(text) => self.text(text),
            None => self.text(&joined(parts)),
        }
    }

    /// Returns a 128-bit keyed hash over the parts in order: wide enough to stand for the parts themselves.
    pub fn wide(&self, parts: &[&[u8]]) -> u128 {
        let mut room = [0; GATHERED];
        match gather(parts, &mut room) {
            Some(text) => self.hashed(text).whole(),
            None => self.hashed(&joined(parts)).whole(),
        }
    }

    /// Returns a 64-bit keyed hash over one text, cheaper than [`Key::hash`] and with different values: nothing separates the text
    /// from other inputs hashed under this key, so all of those must use this function.
    #[inline]
    pub fn text(&self, text: &[u8]) -> u64 {
        self.hashed(text).low()
    }

    /// Returns a 64-bit keyed hash over three numbers.
    pub fn hash_numbers(&self, a: u64, b: u64, c: u64) -> u64 {
        let mut text = [0; 24];
        let places = text.as_chunks_mut().0.iter_mut();
        for (place, number) in places.zip([a, b, c]) {
            *place = number.to_le_bytes();
        }
        self.text(&text)
    }

    #[inline(always)]
    fn hashed(&self, text: &[u8]) -> Hashed {
        Hashed::new((self.0, self.1), text)
    }
}

/// The text that [`gather`] has no room for.
#[cold]
fn joined(parts: &[&[u8]]) -> Vec<u8> {
    let mut text = Vec::with_capacity(parts.iter().map(|part| part.len() + 4).sum());
    for part in parts {
        text.extend_from_slice(part);
        text.extend_from_slice(&length(part));
    }
    text
}

const GATHERED: usize = 256;

/// Writes the parts into `room`, each followed by its length: hashing one text costs half as much as many short ones. Returns the
/// text, or `None` if there is no room for it.
#[inline(always)]
fn gather<'a>(parts: &[&[u8]], room: &'a mut [u8; GATHERED]) -> Option<&'a [u8]> {
    let mut len = 0;
    for part in parts {
        let end = len + part.len();
        let place = room.get_mut(len..end + 4)?;
        let (copy, behind) = place.split_at_mut(part.len());
        copy.copy_from_slice(part);
        behind.copy_from_slice(&length(part));
        len = end + 4;
    }
    Some(&room[..len])
}

fn length(part: &[u8]) -> [u8; 4] {
    (part.len() as u32).to_le_bytes()
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
#[inline]
pub fn write_hex_digits(value: u64, digits: usize, out: &mut Vec<u8>) {
    if digits <= 8 {
        let text = eight_digits(value & 0xffff_ffff).to_be_bytes();
        return out.extend_from_slice(&text[8 - digits..]);
    }
    let text = hex(value);
    out.extend_from_slice(&text[text.len() - digits.min(text.len())..]);
}

/// All 16 digits, first to last.
#[inline]
fn hex(value: u64) -> [u8; 16] {
    let (high, low) = (eight_digits(value >> 32), eight_digits(value & 0xffff_ffff));
    let mut text = [0; 16];
    text[..8].copy_from_slice(&high.to_be_bytes());
    text[8..].copy_from_slice(&low.to_be_bytes());
    text
}

/// All 32 digits, first to last.
#[inline]
pub fn hex_128(value: u128) -> [u8; 32] {
    let mut text = [0; 32];
    text[..16].copy_from_slice(&hex((value >> 64) as u64));
    text[16..].copy_from_slice(&hex(value as u64));
    text
}

const ONES: u64 = 0x0101_0101_0101_0101;

/// Returns the eight digits of 32 bits, all at once: each nibble goes to its own byte.
fn eight_digits(value: u64) -> u64 {
    let halves = (value | value << 16) & 0x0000_ffff_0000_ffff;
    let bytes = (halves | halves << 8) & 0x00ff_00ff_00ff_00ff;
    let nibbles = (bytes | bytes << 4) & (ONES * 15);
    text_of(nibbles)
}

/// Converts eight numbers up to 15 to digits: those above 9 move on to the letters.
#[inline(always)]
fn text_of(nibbles: u64) -> u64 {
    let letters = (nibbles + ONES * 6) >> 4 & ONES;
    nibbles + ONES * u64::from(b'0') + letters * u64::from(b'a' - b'9' - 1)
}

/// Reads hexadecimal digits as [`write_hex_digits`] writes them: lower-case only, 1 to 16 of them. Inlined, because most callers
/// have a constant length.
#[inline(always)]
pub fn read_hex(text: &[u8]) -> Option<u64> {
    // The first eight and the last eight: where the two overlap, they agree.
    if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
        let behind = text.len() - 8;
        return match behind {
            0 => read_eight(last),
            1..=8 => Some(read_eight(first)? << (4 * behind) | read_eight(last)?),
            _ => None,
        };
    }
    if text.is_empty() {
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

/// Reads 32 digits, as [`read_hex`] does.
#[inline]
pub fn read_hex_128(text: &[u8; 32]) -> Option<u128> {
    let mut value = 0;
    for eight in text.as_chunks().0 {
        value = value << 32 | u128::from(read_eight(eight)?);
    }
    Some(value)
}

/// Reads eight digits at once. The input is valid if writing the result gives the same text.
#[inline(always)]
fn read_eight(text: &[u8; 8]) -> Option<u64> {
    let text = u64::from_be_bytes(*text);
    // Of the digits, only letters have this bit set.
    let letters = text >> 6 & ONES;
    let nibbles = ((text & (ONES * 15)) + letters * 9) & (ONES * 15);
    let bytes = (nibbles | nibbles >> 4) & 0x00ff_00ff_00ff_00ff;
    let halves = (bytes | bytes >> 8) & 0x0000_ffff_0000_ffff;
    let value = (halves | halves >> 16) & 0xffff_ffff;
    (text_of(nibbles) == text).then_some(value)
}

/// The value of a byte as a hexadecimal digit; 16 if it is not one.
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

/// The hasher of a map whose keys outsiders cannot choose: already hashed, or our own numbers. It only spreads them.
#[derive(Default)]
pub struct Prehashed(u64);

/// Builds such a map's hasher.
pub type BuildPrehashed = BuildHasherDefault<Prehashed>;

impl Hasher for Prehashed {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// The lower half of a hash is as good as any.
    fn write_u128(&mut self, number: u128) {
        self.write_u64(number as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use siphasher::sip128::{Hasher128, SipHasher13 as SipHasher};

    #[test]
    fn parts_are_separated_and_keys_differ() {
        let key = Key::new(1, 2);
        assert_ne!(key.wide(&[b"ab", b"c"]), key.wide(&[b"a", b"bc"]));
        assert_ne!(key.wide(&[b"ab"]), key.wide(&[b"ab", b""]));
        assert_ne!(key.wide(&[b"a", b"b", b"c"]), key.wide(&[b"a", b"b", b"", b"c"]));
        assert_ne!(key.wide(&[b"a", b"bc", b"d"]), key.wide(&[b"a", b"b", b"cd"]));
        assert_ne!(key.wide(&[b"ab"]), Key::new(1, 3).wide(&[b"ab"]));
        assert_ne!(key.derive("branch").hash(&[b"x"]), key.derive("cookie").hash(&[b"x"]));
    }

    #[test]
    fn what_is_hashed_in_one_piece_is_what_would_be_hashed_part_by_part() {
        let text: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let mut random = 1u64;
        let mut below = |bound: u64| {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (random >> 33) % bound
        };
        for round in 0..20_000 {
            let key = Key::new(below(9), below(9));
            let longest = [5, 40, 300][round % 3];
            let parts: Vec<&[u8]> = (0..below(9)).map(|_| &text[below(256) as usize..][..below(longest) as usize]).collect();
            let mut hasher = SipHasher::new_with_keys(key.0, key.1);
            for part in &parts {
                hasher.write(part);
                hasher.write_u32(part.len() as u32);
            }
            assert_eq!(key.wide(&parts), hasher.finish128().as_u128(), "{parts:?}");
            assert_eq!(key.hash(&parts), key.wide(&parts) as u64);
            let whole = parts.concat();
            let mut hasher = SipHasher::new_with_keys(key.0, key.1);
            hasher.write(&whole);
            assert_eq!(key.text(&whole), hasher.finish128().h1);
            let numbers = [below(1 << 31), u64::MAX - below(9), below(3)];
            let mut hasher = SipHasher::new_with_keys(key.0, key.1);
            for number in numbers {
                hasher.write_u64(number);
            }
            let [a, b, c] = numbers;
            assert_eq!(key.hash_numbers(a, b, c), hasher.finish128().h1);
        }
    }

    /// At the limit of what is gathered.
    #[test]
    fn a_part_more_makes_no_step() {
        let key = Key::new(1, 2);
        let text = [7; 1000];
        for sizes in [&[0usize][..], &[252], &[253], &[248, 0], &[249, 0, 1], &[600, 5], &[5, 600, 7], &[100; 9]] {
            let parts: Vec<&[u8]> = sizes.iter().map(|size| &text[..*size]).collect();
            let mut hasher = SipHasher::new_with_keys(1, 2);
            for part in &parts {
                hasher.write(part);
                hasher.write_u32(part.len() as u32);
            }
            assert_eq!(key.wide(&parts), hasher.finish128().as_u128(), "{sizes:?}");
            assert_eq!(key.hash(&parts), key.wide(&parts) as u64, "{sizes:?}");
        }
    }

    /// Servers that share a key may run different versions, and one reads what an earlier one has stored.
    #[test]
    fn the_values_stay_what_they_were() {
        let key = Key::new(1, 2);
        assert_eq!(key.wide(&[b"a", b"bc"]), 0xae38_937e_80a1_0267_e2f0_2461_7dbc_613c);
        assert_eq!(key.hash(&[&[9; 300]]), 0x0e33_a40e_07ad_c4b2);
        assert_eq!(key.hash_numbers(1, 2, 3), 0xe29a_9027_64c5_f985);
    }

    #[test]
    fn hexadecimal_digits_are_those_of_the_standard_library() {
        let mut value = 0x0123_4567_89ab_cdef_u64;
        for _ in 0..1000 {
            value = value.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let text = format!("{value:016x}");
            assert_eq!(hex(value), *text.as_bytes());
            for digits in 0..=16 {
                let mut out = Vec::new();
                write_hex_digits(value, digits, &mut out);
                assert_eq!(out, text.as_bytes()[16 - digits..]);
            }
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

    /// Digit by digit, as a reference.
    fn read_slowly(text: &[u8]) -> Option<u64> {
        let sound = |b: &u8| b"0123456789abcdef".contains(b);
        if text.len() > 16 || !text.iter().all(sound) {
            return None;
        }
        u64::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()
    }

    #[test]
    fn many_digits_at_once_are_read_as_one_by_one() {
        let mut value = 0x0123_4567_89ab_cdef_u64;
        for round in 0..20_000 {
            value = value.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut text = format!("{value:016x}0").into_bytes();
            text.truncate(round % 18);
            assert_eq!(read_hex(&text), read_slowly(&text), "{text:?}");
        }
        // Each byte at each position of each length.
        for len in 1..=16 {
            for at in 0..len {
                for byte in 0..=255 {
                    let mut text = b"90af90af90af90af"[..len].to_vec();
                    text[at] = byte;
                    assert_eq!(read_hex(&text), read_slowly(&text), "{text:?}");
                }
            }
        }
    }

    #[test]
    fn thirty_two_digits_are_twice_sixteen() {
        for at in 0..32 {
            for byte in 0..=255 {
                let mut text = *b"0123456789abcdeffedcba9876543210";
                text[at] = byte;
                let (high, low) = (read_slowly(&text[..16]), read_slowly(&text[16..]));
                let both = high.zip(low);
                let expected = both.map(|(high, low)| u128::from(high) << 64 | u128::from(low));
                assert_eq!(read_hex_128(&text), expected, "{text:?}");
                if let Some(value) = expected {
                    assert_eq!(hex_128(value), text);
                }
            }
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
