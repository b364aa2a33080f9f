//! The comparable form of user parts and host names (RFC 3261 §19.1.4): an escape equals the character that it stands for, a host
//! is case-insensitive, and a final dot is ignored.

use super::cursor::{self, USER};

/// Visual separators of a telephone number (RFC 3966 §5.1.1).
pub fn is_separator(byte: u8) -> bool {
    matches!(byte, b'-' | b'.' | b'(' | b')')
}

/// Returns the bytes of `text` unescaped.
pub fn unescaped<'a>(text: &'a [u8]) -> impl Iterator<Item = u8> + use<'a> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let byte = *text.get(at)?;
        let escaped = match byte {
            b'%' => cursor::unescape(text, at),
            _ => None,
        };
        at += if escaped.is_some() { 3 } else { 1 };
        Some(escaped.unwrap_or(byte))
    })
}

/// Appends a name as the user part of a URI, escaped if necessary.
pub fn write_escaped(name: impl Iterator<Item = u8>, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in name {
        match cursor::is(byte, USER) {
            true => out.push(byte),
            false => {
                let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
                out.extend_from_slice(&[b'%', HEX[high], HEX[low]]);
            }
        }
    }
}

/// Appends a user part in canonical form, which all that compare equal share.
pub(super) fn write_canonical(user: &[u8], out: &mut Vec<u8>) {
    match cursor::skip(user, 0, USER) == user.len() {
        true => out.extend_from_slice(user),
        false => write_escaped(unescaped(user), out),
    }
}

/// Returns a host name without the final dots that make it absolute (RFC 1034 §3.1).
pub fn without_dot(name: &[u8]) -> &[u8] {
    let mut name = name;
    while let [shorter @ .., b'.'] = name {
        name = shorter;
    }
    name
}

/// Whether two names of hosts are the same.
pub fn same_name(a: &[u8], b: &[u8]) -> bool {
    let has_dot = |name: &[u8]| name.last() == Some(&b'.');
    // They are nearly always written the same way, or differ even in length.
    a == b || a.eq_ignore_ascii_case(b) || ((has_dot(a) || has_dot(b)) && without_dot(a).eq_ignore_ascii_case(without_dot(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(user: &str) -> String {
        let mut out = Vec::new();
        write_canonical(user.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_user_has_one_way_to_be_written() {
        for (written, expected) in [
            ("alice", "alice"),
            ("%61l%69ce", "alice"),
            ("9901%231", "9901%231"),
            ("9901#1", "9901%231"),
            ("john%20doe", "john%20doe"),
            ("caf%c3%a9", "caf%C3%A9"),
            ("50%25", "50%25"),
            ("%2525", "%2525"),
            ("a;b=c&d+e$f,g?h/i", "a;b=c&d+e$f,g?h/i"),
            ("a%3bb%2f", "a;b/"),
            ("a%40b%3Ac", "a%40b%3Ac"),
            ("a\\b|c`{}[]^", "a%5Cb%7Cc%60%7B%7D%5B%5D%5E"),
            ("%5c%22", "%5C%22"),
            ("%00", "%00"),
            ("", ""),
        ] {
            assert_eq!(canonical(written), expected, "{written}");
            assert_eq!(canonical(&canonical(written)), expected, "{written}");
        }
    }

    #[test]
    fn escapes_are_undone_once() {
        let plain = |text: &str| String::from_utf8(unescaped(text.as_bytes()).collect()).unwrap();
        assert_eq!(plain("%63%45o"), "cEo");
        assert_eq!(plain("50%2525"), "50%25");
        assert_eq!(plain("50%"), "50%");
        assert_eq!(plain("%4"), "%4");
        assert_eq!(plain("%zz"), "%zz");
    }

    #[test]
    fn the_short_way_to_the_same_name_changes_nothing() {
        let names = [&b""[..], b".", b"..", b"a", b"A", b"a.", b"A..", b"b", b".a", b"a.b", b"A.b."];
        for a in names {
            for b in names {
                let canonical = |name| without_dot(name).to_ascii_lowercase();
                assert_eq!(same_name(a, b), canonical(a) == canonical(b), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn names_of_hosts() {
        assert!(same_name(b"Example.test.", b"example.TEST"));
        assert!(same_name(b"example.test..", b"example.test"));
        assert!(!same_name(b"example.test", b"xexample.test"));
        assert!(!same_name(b"example.test", b"example.tes"));
        assert_eq!(without_dot(b"."), b"");
    }
}
