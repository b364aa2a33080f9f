//! Digest on the client's side (RFC 3261 §22, RFC 7616): reads a challenge, and writes the credentials that answer it.

use md5::Md5;
use sha2::{Digest, Sha256};

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Algorithm {
    #[value(name = "md5")]
    Md5,
    #[value(name = "sha-256")]
    Sha256,
}

impl Algorithm {
    /// As messages write it.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Md5 => "MD5",
            Algorithm::Sha256 => "SHA-256",
        }
    }

    fn hash_len(self) -> usize {
        match self {
            Algorithm::Md5 => 16,
            Algorithm::Sha256 => 32,
        }
    }

    /// The hash of the parts with a colon between each two.
    pub fn hash(self, parts: &[&[u8]]) -> Hash {
        fn run<D: Digest>(parts: &[&[u8]]) -> Hash {
            let mut hasher = D::new();
            for (number, part) in parts.iter().enumerate() {
                if number > 0 {
                    hasher.update(b":");
                }
                hasher.update(part);
            }
            let output = hasher.finalize();
            let mut hash = Hash([0; 32]);
            hash.0[..output.len()].copy_from_slice(&output);
            hash
        }
        match self {
            Algorithm::Md5 => run::<Md5>(parts),
            Algorithm::Sha256 => run::<Sha256>(parts),
        }
    }

    /// In hexadecimal digits.
    pub fn hex(self, hash: &Hash) -> Hex {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let length = self.hash_len();
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(&hash.0[..length]) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        Hex { text, length: 2 * length }
    }
}

/// A hash of either algorithm; MD5 fills the first half.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; 32]);

impl Hash {
    pub const NONE: Hash = Hash([0; 32]);
}

pub struct Hex {
    text: [u8; 64],
    length: usize,
}

impl Hex {
    pub fn bytes(&self) -> &[u8] {
        &self.text[..self.length]
    }
}

/// Who asks, and so which headers the question and the answer stand in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asker {
    /// 401, WWW-Authenticate, Authorization.
    Registrar,
    /// 407, Proxy-Authenticate, Proxy-Authorization.
    Proxy,
}

impl Asker {
    /// The first letter of the header that brings the challenge, in lower case.
    pub fn initial(self) -> u8 {
        match self {
            Asker::Registrar => b'w',
            Asker::Proxy => b'p',
        }
    }

    fn answer_in(self) -> &'static [u8] {
        match self {
            Asker::Registrar => b"Authorization",
            Asker::Proxy => b"Proxy-Authorization",
        }
    }
}

/// A challenge. Quoted strings are without their quotes, and otherwise as they came: so they are hashed and sent back.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Challenge<'a> {
    pub realm: &'a [u8],
    pub nonce: &'a [u8],
    pub opaque: Option<&'a [u8]>,
    pub algorithm: Option<&'a [u8]>,
    /// Some `qop` is offered, and `auth` is among it.
    pub qop: bool,
    pub qop_auth: bool,
    pub stale: bool,
}

impl<'a> Challenge<'a> {
    /// Reads the value of a WWW-Authenticate or Proxy-Authenticate; nothing where it is no Digest challenge that could be answered.
    pub fn parse(value: &'a [u8]) -> Option<Challenge<'a>> {
        let (scheme, rest) = value.split_at_checked(b"Digest ".len())?;
        if !scheme.eq_ignore_ascii_case(b"Digest ") {
            return None;
        }
        let (mut challenge, mut realm, mut nonce) = (Challenge::default(), None, None);
        for (name, value) in Parameters(rest) {
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            if is("realm") {
                realm = Some(value);
            } else if is("nonce") {
                nonce = Some(value);
            } else if is("opaque") {
                challenge.opaque = Some(value);
            } else if is("algorithm") {
                challenge.algorithm = Some(value);
            } else if is("stale") {
                challenge.stale = value.eq_ignore_ascii_case(b"true");
            } else if is("qop") {
                challenge.qop = true;
                challenge.qop_auth =
                    value.split(|byte| *byte == b',').any(|option| option.trim_ascii().eq_ignore_ascii_case(b"auth"));
            }
        }
        (challenge.realm, challenge.nonce) = (realm?, nonce?);
        Some(challenge)
    }

    /// Whether it asks for this algorithm; it is MD5 where none is named.
    pub fn is_of(&self, algorithm: Algorithm) -> bool {
        match self.algorithm {
            None => algorithm == Algorithm::Md5,
            Some(name) => name.eq_ignore_ascii_case(algorithm.name().as_bytes()),
        }
    }
}

/// `name=value` and `name="value"` with commas between them. What is neither ends it.
struct Parameters<'a>(&'a [u8]);

impl<'a> Iterator for Parameters<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.0.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
        let rest = &self.0[start..];
        let equals = memchr::memchr(b'=', rest)?;
        let name = rest[..equals].trim_ascii();
        let rest = rest[equals + 1..].trim_ascii_start();
        let (value, after) = match rest.first() {
            Some(b'"') => {
                let end = closing_quote(&rest[1..])?;
                (&rest[1..1 + end], &rest[end + 2..])
            }
            _ => {
                let end = memchr::memchr(b',', rest).unwrap_or(rest.len());
                (rest[..end].trim_ascii_end(), &rest[end..])
            }
        };
        self.0 = after;
        Some((name, value))
    }
}

/// Where a quoted string ends; a backslash quotes what follows it.
fn closing_quote(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match text.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// All that credentials are made of.
pub struct Answer<'a> {
    pub asker: Asker,
    pub algorithm: Algorithm,
    /// The challenge has named its algorithm, and so does the answer.
    pub names_algorithm: bool,
    pub username: &'a [u8],
    pub realm: &'a [u8],
    pub nonce: &'a [u8],
    pub opaque: Option<&'a [u8]>,
    pub uri: &'a [u8],
    pub ha1: Hash,
    /// Of the method and the URI.
    pub ha2: Hash,
    /// With `qop=auth`: the nonce count, and our own nonce.
    pub counted: Option<(u32, &'a [u8])>,
}

impl Answer<'_> {
    fn response(&self) -> Hash {
        let algorithm = self.algorithm;
        let (ha1, ha2) = (algorithm.hex(&self.ha1), algorithm.hex(&self.ha2));
        match self.counted {
            None => algorithm.hash(&[ha1.bytes(), self.nonce, ha2.bytes()]),
            Some((count, cnonce)) => algorithm.hash(&[ha1.bytes(), self.nonce, &count_digits(count), cnonce, b"auth", ha2.bytes()]),
        }
    }

    /// Appends the header line.
    pub fn write(&self, out: &mut Vec<u8>) {
        let response = self.algorithm.hex(&self.response());
        for part in [
            self.asker.answer_in(),
            b": Digest username=\"",
            self.username,
            b"\",realm=\"",
            self.realm,
            b"\",nonce=\"",
            self.nonce,
            b"\",uri=\"",
            self.uri,
            b"\",response=\"",
            response.bytes(),
            b"\"",
        ] {
            out.extend_from_slice(part);
        }
        if self.names_algorithm {
            out.extend_from_slice(b",algorithm=");
            out.extend_from_slice(self.algorithm.name().as_bytes());
        }
        if let Some(opaque) = self.opaque {
            for part in [b",opaque=\"", opaque, b"\""] {
                out.extend_from_slice(part);
            }
        }
        if let Some((count, cnonce)) = self.counted {
            for part in [b",cnonce=\"", cnonce, b"\",qop=auth,nc=", &count_digits(count)] {
                out.extend_from_slice(part);
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// `nc-value`: eight hexadecimal digits.
fn count_digits(count: u32) -> [u8; 8] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|at| DIGITS[(count >> (28 - 4 * at)) as usize & 15])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mufasa<'a>(algorithm: Algorithm, realm: &'a [u8], nonce: &'a [u8], password: &[u8]) -> Answer<'a> {
        Answer {
            asker: Asker::Registrar,
            algorithm,
            names_algorithm: true,
            username: b"Mufasa",
            realm,
            nonce,
            opaque: None,
            uri: b"/dir/index.html",
            ha1: algorithm.hash(&[b"Mufasa", realm, password]),
            ha2: algorithm.hash(&[b"GET", b"/dir/index.html"]),
            counted: None,
        }
    }

    fn response(answer: &Answer) -> String {
        let hex = answer.algorithm.hex(&answer.response());
        String::from_utf8(hex.bytes().to_vec()).expect("digits")
    }

    #[test]
    fn the_examples_of_rfc_7616_and_of_rfc_2069() {
        let realm = b"http-auth@example.org";
        let nonce = b"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
        let cnonce = &b"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"[..];
        for (algorithm, expected) in [
            (Algorithm::Md5, "8ca523f5e9506fed4657c9700eebdbec"),
            (Algorithm::Sha256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let mut answer = mufasa(algorithm, realm, nonce, b"Circle of Life");
            answer.counted = Some((1, cnonce));
            assert_eq!(response(&answer), expected);
        }
        // Without qop: RFC 2069 §2.4 as its erratum corrects it.
        let answer = mufasa(Algorithm::Md5, b"testrealm@host.com", b"dcd98b7102dd2f0e8b11d0f600bfb0c093", b"CircleOfLife");
        assert_eq!(response(&answer), "1949323746fe6a43ef61f9606e7febea");
    }

    #[test]
    fn a_challenge_is_read_whatever_its_order_and_spacing() {
        let value = b"dIgEsT  realm=\"a, \\\"b\\\"=c\" , NONCE=\"n==\",qop = \"auth-int, Auth\",algorithm=sha-256 ,stale=TRUE, opaque=\"\", x=y";
        let challenge = Challenge::parse(value).expect("a challenge");
        assert_eq!(
            challenge,
            Challenge {
                realm: b"a, \\\"b\\\"=c",
                nonce: b"n==",
                opaque: Some(b""),
                algorithm: Some(b"sha-256"),
                qop: true,
                qop_auth: true,
                stale: true,
            }
        );
        assert!(challenge.is_of(Algorithm::Sha256) && !challenge.is_of(Algorithm::Md5));
        let bare = Challenge::parse(b"Digest realm=\"r\", nonce=\"n\"").expect("a challenge");
        assert!(bare.is_of(Algorithm::Md5) && !bare.stale && !bare.qop);
        let other = Challenge::parse(b"Digest realm=\"r\",nonce=\"n\",qop=\"auth-int\"");
        assert!(other.is_some_and(|other| other.qop && !other.qop_auth));
    }

    #[test]
    fn what_is_no_challenge_is_none() {
        for value in [
            &b""[..],
            b"Basic realm=\"r\"",
            b"Digest",
            b"Digest realm=\"r\"",
            b"Digest nonce=\"n\"",
            b"Digest realm=\"r, nonce=\"n\"",
            b"Digest realm=\"r\", nonce=\"n\\\"",
        ] {
            assert_eq!(Challenge::parse(value), None);
        }
        let whole = b"Digest realm=\"r\",nonce=\"n\",qop=\"auth\",stale=true";
        for length in 0..whole.len() {
            // Whatever is cut, it is read or refused, and never read past its end.
            let _ = Challenge::parse(&whole[..length]);
        }
    }

    #[test]
    fn credentials_are_written_as_the_grammar_wants() {
        let mut line = Vec::new();
        let answer = Answer {
            opaque: Some(b"o"),
            counted: Some((0x1a, b"c0ffee00")),
            asker: Asker::Proxy,
            ..mufasa(Algorithm::Md5, b"r", b"n", b"p")
        };
        answer.write(&mut line);
        let expected = format!(
            "Proxy-Authorization: Digest username=\"Mufasa\",realm=\"r\",nonce=\"n\",uri=\"/dir/index.html\",\
             response=\"{}\",algorithm=MD5,opaque=\"o\",cnonce=\"c0ffee00\",qop=auth,nc=0000001a\r\n",
            response(&answer)
        );
        assert_eq!(String::from_utf8_lossy(&line), expected);

        line.clear();
        let plain = Answer { names_algorithm: false, ..mufasa(Algorithm::Md5, b"r", b"n", b"p") };
        plain.write(&mut line);
        let expected = format!(
            "Authorization: Digest username=\"Mufasa\",realm=\"r\",nonce=\"n\",uri=\"/dir/index.html\",response=\"{}\"\r\n",
            response(&plain)
        );
        assert_eq!(String::from_utf8_lossy(&line), expected);
    }
}
