//! A text file of users: lines of `user:realm:HA1`, as htdigest writes them, each followed by the name of its algorithm if the
//! length of HA1 does not determine it.

use crate::stack::auth::digest::{Algorithm, Hash};
use std::io::BufRead;

/// The longest realm of a challenge, in bytes.
const REALM_LONGEST: usize = 255;

/// One line that names a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'l> {
    /// Without the realm if it was written as `name@realm`.
    pub name: &'l [u8],
    pub realm: &'l [u8],
    /// HA1 was made of `name@realm`.
    pub whole: bool,
    pub algorithm: Algorithm,
    pub ha1: Hash,
}

/// Reads all lines; blank ones and those that begin with `#` are skipped. The error gives the line number.
pub fn read(mut file: impl BufRead, mut take: impl FnMut(&Line) -> Result<(), String>) -> Result<(), String> {
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        let said = match file.read_until(b'\n', &mut bytes) {
            Ok(0) => break,
            Err(error) => Err(format!("cannot be read: {error}")),
            Ok(_) => match parse(&bytes) {
                Ok(None) => Ok(()),
                Ok(Some(line)) => take(&line),
                Err(what) => Err(what.to_owned()),
            },
        };
        said.map_err(|what| format!("{number}: {what}"))?;
    }
    Ok(())
}

/// Reads one line; `None` if it is blank or a comment.
pub fn parse(line: &[u8]) -> Result<Option<Line<'_>>, &'static str> {
    let line = line.trim_ascii();
    if line.is_empty() || line.starts_with(b"#") {
        return Ok(None);
    }
    let shape = "a line must be user:realm:HA1";
    let (user, rest) = split_first(line).ok_or(shape)?;
    let (front, last) = split_last(rest).ok_or(shape)?;
    // A realm may contain colons: that of an IPv6 address does.
    let (realm, ha1, named) = match Algorithm::parse(last) {
        Some((_, true)) => return Err("HA1 must not be that of a session: remove -sess"),
        Some((algorithm, false)) => {
            let (realm, ha1) = split_last(front).ok_or(shape)?;
            (realm, ha1, Some(algorithm))
        }
        None => (front, last, None),
    };
    let ha1 = Hash::from_hex(ha1).ok_or("HA1 must be 32 hexadecimal digits for MD5, or 64 for SHA-256")?;
    let algorithm = named.unwrap_or(match ha1.bytes().len() {
        16 => Algorithm::Md5,
        _ => Algorithm::Sha256,
    });
    if ha1.bytes().len() != algorithm.hash_len() {
        return Err("HA1 has not as many digits as its algorithm makes: 32 for MD5, 64 for the others");
    }
    if user.is_empty() || realm.is_empty() {
        return Err("neither the user nor the realm may be empty");
    }
    if realm.len() > REALM_LONGEST {
        return Err("the realm is longer than 255 bytes");
    }
    let name = without_realm(user, realm);
    if name.is_some() && algorithm != Algorithm::Md5 {
        return Err("for this algorithm the user must be written without @ and the realm");
    }
    Ok(Some(Line { name: name.unwrap_or(user), realm, whole: name.is_some(), algorithm, ha1 }))
}

fn split_first(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b':', text)?;
    Some((&text[..at], &text[at + 1..]))
}

fn split_last(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memrchr(b':', text)?;
    Some((&text[..at], &text[at + 1..]))
}

/// Returns the name of a user written as `name@realm`.
fn without_realm<'l>(user: &'l [u8], realm: &[u8]) -> Option<&'l [u8]> {
    let at = memchr::memrchr(b'@', user)?;
    let fits = at > 0 && user[at + 1..].eq_ignore_ascii_case(realm);
    fits.then(|| &user[..at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::auth::digest::ha1;

    const MD5: &str = "0123456789abcdef0123456789ABCDEF";
    const SHA: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn line(text: &str) -> Line<'_> {
        parse(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn the_length_tells_the_algorithm_unless_it_is_named() {
        for (tail, algorithm) in [
            (MD5.to_owned(), Algorithm::Md5),
            (SHA.to_owned(), Algorithm::Sha256),
            (format!("{MD5}:md5"), Algorithm::Md5),
            (format!("{SHA}:SHA-256"), Algorithm::Sha256),
            (format!("{SHA}:SHA-512-256\r\n"), Algorithm::Sha512_256),
        ] {
            let text = format!("  alice:Example Realm:{tail}");
            let line = line(&text);
            assert_eq!((line.name, line.whole), (&b"alice"[..], false));
            assert_eq!(line.realm, b"Example Realm");
            assert_eq!(line.algorithm, algorithm, "{tail}");
            let digits = tail.split(':').next().unwrap().trim();
            assert_eq!(Some(line.ha1), Hash::from_hex(digits.as_bytes()));
        }
    }

    #[test]
    fn realms_may_have_colons_and_names_their_realm() {
        let text = format!("alice:[2001:db8::1]:{MD5}");
        assert_eq!(line(&text).realm, b"[2001:db8::1]");
        let text = format!("alice@Example.com:example.com:{MD5}");
        let whole = line(&text);
        assert_eq!((whole.name, whole.whole), (&b"alice"[..], true));
        let text = format!("alice@example.net:example.com:{SHA}");
        let other = line(&text);
        assert_eq!((other.name, other.whole), (&b"alice@example.net"[..], false));
    }

    #[test]
    fn what_is_no_line_is_refused_and_says_why() {
        for (text, says) in [
            ("alice".to_owned(), "user:realm:HA1"),
            (format!("alice:{MD5}"), "user:realm:HA1"),
            (format!("alice:{SHA}:SHA-256"), "user:realm:HA1"),
            ("alice:example.com:secret".to_owned(), "32 hexadecimal"),
            (format!("alice:example.com:{MD5}0"), "32 hexadecimal"),
            (format!("alice:example.com:{MD5}:SHA1"), "32 hexadecimal"),
            (format!("alice:example.com:{MD5}:SHA-256"), "as many digits"),
            (format!("alice:example.com:{SHA}:MD5"), "as many digits"),
            (format!("alice:example.com:{MD5}:MD5-sess"), "-sess"),
            (format!(":example.com:{MD5}"), "may be empty"),
            (format!("alice::{MD5}"), "may be empty"),
            (format!("alice:{}:{MD5}", "r".repeat(256)), "255 bytes"),
            (format!("alice@a.example:a.example:{SHA}"), "without @"),
        ] {
            let said = parse(text.as_bytes()).unwrap_err();
            assert!(said.contains(says), "{text}: {said}");
        }
        for nothing in ["", "  \r\n", "# alice:example.com:x", "  # x"] {
            assert_eq!(parse(nothing.as_bytes()), Ok(None));
        }
    }

    #[test]
    fn an_error_tells_the_line() {
        let text = format!("# users\n\nalice:a:{MD5}\nbob:a:{MD5}");
        let mut names = Vec::new();
        let mut take = |line: &Line| match line.name {
            b"carol" => Err("not her".to_owned()),
            name => {
                names.push(name.to_vec());
                Ok(())
            }
        };
        read(text.as_bytes(), &mut take).unwrap();
        let said = read(format!("{text}\ncarol:a:{MD5}\nnonsense").as_bytes(), &mut take);
        assert_eq!(said, Err("5: not her".to_owned()));
        let said = read(format!("{text}\nnonsense\n").as_bytes(), &mut take);
        assert!(said.unwrap_err().starts_with("5: a line must be"));
        assert_eq!(names.len(), 6);
    }

    #[test]
    fn what_htdigest_writes_is_read() {
        // htdigest -c users "example.com" alice, with the password "secret".
        let text = "alice:example.com:b1726872c344b6dc8365b774f8fd6412";
        let made = ha1(Algorithm::Md5, b"alice", b"example.com", b"secret");
        assert!(line(text).ha1.equals(&made));
    }
}
