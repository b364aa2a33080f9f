//! Byte classes of RFC 3261 §25.1 and the cursor that walks a header field value through them.

/// `token`: names of methods, headers and parameters.
pub(super) const TOKEN: u8 = 1;
/// Bytes of a host name.
pub(super) const HOST: u8 = 2;
/// Bytes of a URI after its scheme, except the delimiters; `%` is not included, since two hex digits must follow.
pub(super) const URI: u8 = 4;
/// Bytes of an unquoted parameter value: `gen-value`, and the UTF-8 that phones put there.
pub(super) const VALUE: u8 = 8;
/// Bytes of an unquoted display name.
pub(super) const DISPLAY: u8 = 16;
/// Linear white space, including the CR and LF of a fold: folds are recognised before any value is read.
pub(super) const SPACE: u8 = 32;
/// Bytes of a parameter of a URI: [`URI`] without `;`, `?` and `=`.
pub(super) const URI_PARAM: u8 = 64;
/// `unreserved` and `user-unreserved`: bytes of a user part that need no escape.
pub(super) const USER: u8 = 128;

static CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0u8; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        let mut class = 0;
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~') {
            class |= TOKEN;
        }
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_') {
            class |= HOST;
        }
        if b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b'"' | b'@' | b'%') {
            class |= URI;
            if !matches!(b, b';' | b'?' | b'=') {
                class |= URI_PARAM;
            }
        }
        if (b.is_ascii_graphic() && !matches!(b, b';' | b',' | b'"' | b'<' | b'>')) || b >= 0x80 {
            class |= VALUE;
        }
        if b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'-' | b'_'
                    | b'.'
                    | b'!'
                    | b'~'
                    | b'*'
                    | b'\''
                    | b'('
                    | b')'
                    | b'&'
                    | b'='
                    | b'+'
                    | b'$'
                    | b','
                    | b';'
                    | b'?'
                    | b'/'
            )
        {
            class |= USER;
        }
        if matches!(b, b' ' | b'\t' | b'\r' | b'\n') {
            class |= SPACE | DISPLAY;
        }
        if (b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b',' | b';' | b':')) || b >= 0x80 {
            class |= DISPLAY;
        }
        table[i] = class;
        i += 1;
    }
    table
}

/// Whether `byte` is in one of the classes in `mask`.
#[inline(always)]
pub(super) fn is(byte: u8, mask: u8) -> bool {
    CLASS[byte as usize] & mask != 0
}

/// Whether `text` is a non-empty run of one class.
#[inline]
pub(super) fn all(text: &[u8], mask: u8) -> bool {
    !text.is_empty() && text.iter().all(|&b| is(b, mask))
}

/// `text` without linear white space around it.
#[inline]
pub(super) fn trim(text: &[u8]) -> &[u8] {
    trim_end(trim_start(text))
}

#[inline]
pub(super) fn trim_start(text: &[u8]) -> &[u8] {
    &text[skip_space(text, 0)..]
}

#[inline]
pub(super) fn trim_end(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., last] = text {
        if !is(*last, SPACE) {
            break;
        }
        text = rest;
    }
    text
}

/// The first offset from `at` on whose byte is not in `class`, or the length of `text`. Eight bytes at a time: names, hosts and
/// branches are usually longer than that.
#[inline(always)]
pub(super) fn skip(text: &[u8], mut at: usize, class: u8) -> usize {
    let mut rest = text.get(at..).unwrap_or_default();
    while let Some((eight, behind)) = rest.split_first_chunk::<8>() {
        let common = eight.iter().fold(class, |common, &b| common & CLASS[b as usize]);
        if common == 0 {
            break;
        }
        rest = behind;
        at += 8;
    }
    for &b in rest {
        if !is(b, class) {
            break;
        }
        at += 1;
    }
    at
}

/// The same as [`skip`] for runs that are usually shorter than eight bytes: names of parameters, methods and transports.
#[inline(always)]
pub(super) fn skip_few(text: &[u8], mut at: usize, class: u8) -> usize {
    while at < text.len() && is(text[at], class) {
        at += 1;
    }
    at
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// The place of the first byte of a word, in the order of memory, that is `byte`.
#[inline(always)]
pub(super) fn find_in_word(word: u64, byte: u8) -> Option<usize> {
    // The lowest zero byte is now the first one sought; bits above it may be wrong, and are not used.
    first_below(word ^ (ONES * u64::from(byte)), 1)
}

/// The place of the first byte of a word, in the order of memory, that is below `bound`, which is at most 128.
#[inline(always)]
pub(super) fn first_below(word: u64, bound: u8) -> Option<usize> {
    // The lowest set bit is right; those above it may be wrong, and are not used.
    let found = word.wrapping_sub(ONES * u64::from(bound)) & !word & HIGH_BITS;
    (found != 0).then(|| found.trailing_zeros() as usize / 8)
}

/// Whether `text` is `word` in any case; `word` is in lower case, as nearly all senders write it.
#[inline(always)]
pub(super) fn is_word(text: &[u8], word: &[u8]) -> bool {
    text == word || text.eq_ignore_ascii_case(word)
}

/// The first offset from `at` on that is not linear white space, of which there is rarely more than one byte.
#[inline(always)]
pub(super) fn skip_space(text: &[u8], mut at: usize) -> usize {
    while at < text.len() && is(text[at], SPACE) {
        at += 1;
    }
    at
}

/// The offset after the quoted string that opens at `at`, or None if it is not closed.
pub(super) fn quoted_end(text: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        let rest = text.get(at..)?;
        let found = memchr::memchr2(b'"', b'\\', rest)?;
        at += found + 1;
        if rest[found] == b'"' {
            return Some(at);
        }
        at += 1; // what the backslash quotes
    }
}

/// Skips a run of URI bytes of class `mask` with its escapes; None at a `%` not followed by two hex digits.
#[inline(always)]
pub(super) fn skip_uri(text: &[u8], mut at: usize, mask: u8) -> Option<usize> {
    loop {
        at = skip(text, at, mask);
        if at >= text.len() || text[at] != b'%' {
            return Some(at);
        }
        unescape(text, at)?;
        at += 3;
    }
}

/// The byte that the `%HH` at `at` stands for.
pub(super) fn unescape(text: &[u8], at: usize) -> Option<u8> {
    let high = char::from(*text.get(at + 1)?).to_digit(16)?;
    let low = char::from(*text.get(at + 2)?).to_digit(16)?;
    Some((high * 16 + low) as u8)
}

/// A decimal number of any length; `u32::MAX` if it is larger, None if it is not a number.
#[inline]
pub(super) fn number_saturating(text: &[u8]) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    let mut value: u32 = 0;
    for &b in text {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.saturating_mul(10).saturating_add(u32::from(digit));
    }
    Some(value)
}

/// A decimal number that fits in 32 bits.
#[inline]
pub(super) fn number(text: &[u8]) -> Option<u32> {
    if text.len() > 9 {
        let mut value: u64 = 0;
        for &b in text {
            let digit = b.wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            value = value * 10 + u64::from(digit);
            if value > u64::from(u32::MAX) {
                return None;
            }
        }
        return Some(value as u32);
    }
    number_saturating(text)
}

/// Appends a decimal number.
pub(super) fn write_number(mut value: u32, out: &mut Vec<u8>) {
    let mut digits = [0u8; 10];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends an IP address in text; an IPv6 address without brackets, an IPv4-mapped one as the IPv4 address.
pub(super) fn write_ip(ip: std::net::IpAddr, out: &mut Vec<u8>) {
    use std::io::Write;
    match ip.to_canonical() {
        std::net::IpAddr::V4(ip) => {
            let mut text = [b'.'; 16];
            let mut at = 0;
            for octet in ip.octets() {
                let rest = octet % 100;
                if octet >= 100 {
                    text[at] = b'0' + octet / 100;
                    at += 1;
                }
                if octet >= 10 {
                    text[at] = b'0' + rest / 10;
                    at += 1;
                }
                text[at] = b'0' + rest % 10;
                // The dot is there already.
                at += 2;
            }
            out.extend_from_slice(&text[..at - 1]);
        }
        // Writing to a Vec cannot fail.
        std::net::IpAddr::V6(ip) => drop(write!(out, "{ip}")),
    }
}
