//! Credentials of Digest authentication (RFC 3261 §22.4, §25.1; RFC 7616 §3.4): the content of an Authorization or
//! Proxy-Authorization header field.

use super::cursor::{self, TOKEN, VALUE};
use super::error::Fault;

/// `Digest` credentials. Quoted values are without their quotes and otherwise as written, as both sides hash them. Absent values
/// are `None`; unknown parameters are skipped.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Credentials<'a> {
    pub username: &'a [u8],
    pub realm: &'a [u8],
    pub nonce: &'a [u8],
    pub uri: &'a [u8],
    pub response: &'a [u8],
    pub algorithm: Option<&'a [u8]>,
    pub cnonce: Option<&'a [u8]>,
    pub qop: Option<&'a [u8]>,
    /// The eight digits as written.
    pub nc: Option<&'a [u8]>,
}

impl<'a> Credentials<'a> {
    /// Reads a header field value. `Ok(None)` for a scheme other than Digest.
    pub fn parse(value: &'a [u8]) -> Result<Option<Credentials<'a>>, Fault> {
        let mut found = Found::default();
        match read_params(value, |name, value| found.keep(name, value))? {
            true => found.complete().map(Some),
            false => Ok(None),
        }
    }
}

/// The challenge of a WWW-Authenticate or Proxy-Authenticate header field (RFC 7616 §3.3). Quoted values are without their quotes
/// and otherwise as written.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Challenge<'a> {
    pub realm: &'a [u8],
    pub nonce: &'a [u8],
    pub algorithm: Option<&'a [u8]>,
    /// A list.
    pub qop: Option<&'a [u8]>,
    pub opaque: Option<&'a [u8]>,
    /// Only the nonce was wrong with the credentials.
    pub stale: bool,
}

impl<'a> Challenge<'a> {
    /// Reads a header field value. `Ok(None)` for a scheme other than Digest.
    pub fn parse(value: &'a [u8]) -> Result<Option<Challenge<'a>>, Fault> {
        let (mut challenge, mut realm, mut nonce) = (Challenge::default(), None, None);
        let is_digest = read_params(value, |name, value| {
            let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
            let place = match () {
                () if is(b"realm") => &mut realm,
                () if is(b"nonce") => &mut nonce,
                () if is(b"algorithm") => &mut challenge.algorithm,
                () if is(b"qop") => &mut challenge.qop,
                () if is(b"opaque") => &mut challenge.opaque,
                () => {
                    challenge.stale |= is(b"stale") && value.eq_ignore_ascii_case(b"true");
                    return Ok(());
                }
            };
            match place.replace(value) {
                None => Ok(()),
                Some(_) => Err(Fault::Credentials),
            }
        })?;
        let (Some(realm), Some(nonce), true) = (realm, nonce, is_digest) else {
            return if is_digest { Err(Fault::Credentials) } else { Ok(None) };
        };
        Ok(Some(Challenge { realm, nonce, ..challenge }))
    }
}

/// Passes on each parameter of a value whose scheme is Digest. False for another scheme.
fn read_params<'a>(value: &'a [u8], mut keep: impl FnMut(&'a [u8], &'a [u8]) -> Result<(), Fault>) -> Result<bool, Fault> {
    let value = cursor::trim(value);
    let scheme_end = cursor::skip_few(value, 0, TOKEN);
    if !value[..scheme_end].eq_ignore_ascii_case(b"Digest") {
        return match scheme_end {
            0 => Err(Fault::Credentials),
            _ => Ok(false),
        };
    }
    let mut at = scheme_end;
    if at == value.len() || !cursor::is(value[at], cursor::SPACE) {
        return Err(Fault::Credentials);
    }
    loop {
        // Empty elements of the list are skipped (RFC 9110 §5.6.1).
        at = cursor::skip_space(value, at);
        while value.get(at) == Some(&b',') {
            at = cursor::skip_space(value, at + 1);
        }
        if at == value.len() {
            return Ok(true);
        }
        let (name, content, end) = read_param(value, at)?;
        keep(name, content)?;
        at = cursor::skip_space(value, end);
        if !matches!(value.get(at), None | Some(b',')) {
            return Err(Fault::Credentials);
        }
    }
}

/// Reads `name=value` at `at`, and what follows it.
fn read_param(text: &[u8], at: usize) -> Result<(&[u8], &[u8], usize), Fault> {
    let name_end = cursor::skip_few(text, at, TOKEN);
    let equals = cursor::skip_space(text, name_end);
    if name_end == at || text.get(equals) != Some(&b'=') {
        return Err(Fault::Credentials);
    }
    let start = cursor::skip_space(text, equals + 1);
    let (value, end) = match text.get(start) {
        Some(b'"') => {
            let end = cursor::quoted_end(text, start).ok_or(Fault::Credentials)?;
            (&text[start + 1..end - 1], end)
        }
        _ => {
            let end = cursor::skip(text, start, VALUE);
            (&text[start..end], end)
        }
    };
    Ok((&text[at..name_end], value, end))
}

impl Credentials<'_> {
    /// Whether a header field value names a realm of which `is_it` holds. A readable Digest has one realm. In an unreadable value,
    /// or one of another scheme, anything that a careless parser could take for a realm counts.
    pub fn name_realm(value: &[u8], mut is_it: impl FnMut(&[u8]) -> bool) -> bool {
        let mut is_meant = |written: &[u8]| {
            let mut room = [0; LONGEST_REALM];
            match memchr::memchr(b'\\', written) {
                None => is_it(written),
                Some(_) => is_it(without_escapes(written, &mut room)),
            }
        };
        if let Ok(Some(credentials)) = Credentials::parse(value) {
            return is_meant(credentials.realm);
        }
        const WORD: &[u8] = b"realm";
        let mut at = 0;
        while let Some(found) = value.get(at..).and_then(find_realm) {
            at += found;
            let equals = cursor::skip_space(value, at + WORD.len());
            at += 1;
            if value.get(equals) != Some(&b'=') {
                continue;
            }
            let start = cursor::skip_space(value, equals + 1);
            let text = match value.get(start) {
                Some(b'"') => match cursor::quoted_end(value, start) {
                    Some(end) => &value[start + 1..end - 1],
                    None => &value[start + 1..],
                },
                _ => &value[start..cursor::skip(value, start, VALUE)],
            };
            if is_meant(cursor::trim(text)) {
                return true;
            }
        }
        return false;

        fn find_realm(text: &[u8]) -> Option<usize> {
            let mut words = text.windows(WORD.len());
            words.position(|word| word.eq_ignore_ascii_case(WORD))
        }
    }
}

/// No realm that is compared unescaped is longer.
const LONGEST_REALM: usize = 256;

/// Returns a quoted string's text unescaped; a longer one is left as written.
fn without_escapes<'a>(written: &'a [u8], room: &'a mut [u8; LONGEST_REALM]) -> &'a [u8] {
    let (mut len, mut bytes) = (0, written.iter());
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'\\' => bytes.next().unwrap_or(byte),
            _ => byte,
        };
        let Some(place) = room.get_mut(len) else {
            return written;
        };
        *place = *byte;
        len += 1;
    }
    &room[..len]
}

/// The parameters, in the order of [`NAMES`].
#[derive(Default)]
struct Found<'a>([Option<&'a [u8]>; NAMES.len()]);

const NAMES: [&[u8]; 9] = [b"username", b"realm", b"nonce", b"uri", b"response", b"algorithm", b"cnonce", b"qop", b"nc"];

impl<'a> Found<'a> {
    fn keep(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Fault> {
        if let Some(place) = NAMES.iter().position(|n| name.eq_ignore_ascii_case(n)) {
            // A duplicate could be read in two ways: by us in one, by another in the other.
            if self.0[place].replace(value).is_some() {
                return Err(Fault::Credentials);
            }
        }
        Ok(())
    }

    fn complete(self) -> Result<Credentials<'a>, Fault> {
        let [username, realm, nonce, uri, response, algorithm, cnonce, qop, nc] = self.0;
        let (Some(username), Some(realm), Some(nonce), Some(uri), Some(response)) = (username, realm, nonce, uri, response) else {
            return Err(Fault::Credentials);
        };
        Ok(Credentials { username, realm, nonce, uri, response, algorithm, cnonce, qop, nc })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_rfc_3261() {
        let text = b"Digest username=\"bob\",\r\n realm=\"biloxi.com\",\r\n \
            nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\",\r\n uri=\"sip:bob@biloxi.com\",\r\n qop=auth,\r\n nc=00000001,\r\n \
            cnonce=\"0a4f113b\",\r\n response=\"6629fae49393a05397450978507c4ef1\",\r\n \
            opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"";
        let credentials = Credentials::parse(text).unwrap().unwrap();
        assert_eq!(
            credentials,
            Credentials {
                username: b"bob",
                realm: b"biloxi.com",
                nonce: b"dcd98b7102dd2f0e8b11d0f600bfb0c093",
                uri: b"sip:bob@biloxi.com",
                response: b"6629fae49393a05397450978507c4ef1",
                algorithm: None,
                cnonce: Some(b"0a4f113b"),
                qop: Some(b"auth"),
                nc: Some(b"00000001"),
            }
        );
    }

    #[test]
    fn what_phones_write_is_read() {
        let text =
            b"digest  Username = \"a\\\"b,c\" ,, realm=\"\",nonce=x,URI=\"sip:b\" , response=0, algorithm=\"MD5\", x=\"y, z\",";
        let credentials = Credentials::parse(text).unwrap().unwrap();
        assert_eq!(credentials.username, b"a\\\"b,c");
        assert_eq!(credentials.realm, b"");
        assert_eq!(credentials.nonce, b"x");
        assert_eq!(credentials.algorithm, Some(&b"MD5"[..]));
        assert_eq!(credentials.qop, None);
    }

    #[test]
    fn other_schemes_are_nobodys_fault() {
        assert_eq!(Credentials::parse(b"Basic dXNlcjpwYXNz"), Ok(None));
        assert_eq!(Credentials::parse(b"NoOneKnows opaque-data=here"), Ok(None));
    }

    #[test]
    fn challenges_are_read() {
        let text =
            b"Digest realm=\"a \\\"b\\\"\", Nonce=\"n,1\", qop=\"auth,auth-int\", algorithm=SHA-256, stale=TRUE, opaque=\"\", x=y";
        let challenge = Challenge::parse(text).unwrap().unwrap();
        let expected = Challenge {
            realm: b"a \\\"b\\\"",
            nonce: b"n,1",
            algorithm: Some(b"SHA-256"),
            qop: Some(b"auth,auth-int"),
            opaque: Some(b""),
            stale: true,
        };
        assert_eq!(challenge, expected);
        assert_eq!(Challenge::parse(b"Basic realm=\"a\""), Ok(None));
        for bad in ["", "Digest", "Digest realm=\"a\"", "Digest nonce=\"n\"", "Digest realm=\"a\", nonce=1, nonce=2"] {
            assert_eq!(Challenge::parse(bad.as_bytes()), Err(Fault::Credentials), "{bad}");
        }
    }

    #[test]
    fn what_is_no_credentials_is_refused() {
        let good = "username=\"a\",realm=\"r\",nonce=\"n\",uri=\"u\",response=\"0\"";
        assert!(Credentials::parse(format!("Digest {good}").as_bytes()).is_ok());
        for bad in [
            "",
            "Digest",
            "Digest ",
            "Digest username",
            "Digest username=\"a",
            "Digest =\"a\"",
            "Digest username=\"a\"",
            &format!("Digest {good} x=y"),
            &format!("Digest {good},username=\"b\""),
            &format!("Digest {good};x=y"),
        ] {
            let read = Credentials::parse(bad.as_bytes());
            assert_eq!(read, Err(Fault::Credentials), "{bad}");
        }
    }
}
