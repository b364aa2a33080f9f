//! The arithmetic of Digest authentication: RFC 7616 §3.4 with the algorithms that RFC 8760 allows in SIP. It never handles a
//! stored password: what is stored of a user is a hash, HA1.

pub use crate::settings::Algorithm;
use crate::settings::Words;
use crate::sip::Credentials;
use md5::Md5;
use sha2::{Digest, Sha256, Sha512_256};

impl Algorithm {
    pub const ALL: [Algorithm; 3] = [Algorithm::Md5, Algorithm::Sha256, Algorithm::Sha512_256];

    /// Returns the name used in a challenge.
    pub fn name(self) -> &'static str {
        self.word()
    }

    /// Returns the length of a hash in bytes.
    pub const fn hash_len(self) -> usize {
        match self {
            Algorithm::Md5 => 16,
            Algorithm::Sha256 | Algorithm::Sha512_256 => 32,
        }
    }

    /// Parses the algorithm of a challenge or of credentials, and whether it is the session variant.
    pub fn parse(text: &[u8]) -> Option<(Algorithm, bool)> {
        const SESSION: &[u8] = b"-sess";
        let start = text.len().saturating_sub(SESSION.len());
        let (name, session) = match text[start..].eq_ignore_ascii_case(SESSION) {
            true => (&text[..start], true),
            false => (text, false),
        };
        let found = Algorithm::ALL.into_iter().find(|algorithm| name.eq_ignore_ascii_case(algorithm.name().as_bytes()))?;
        Some((found, session))
    }
}

/// A hash of any of the algorithms.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash {
    bytes: [u8; 32],
    len: u8,
}

impl Hash {
    /// Creates a hash; `None` if no algorithm has this length.
    pub fn new(bytes: &[u8]) -> Option<Hash> {
        if !matches!(bytes.len(), 16 | 32) {
            return None;
        }
        let mut hash = Hash { bytes: [0; 32], len: bytes.len() as u8 };
        hash.bytes[..bytes.len()].copy_from_slice(bytes);
        Some(hash)
    }

    /// Parses hexadecimal digits of either case, as databases hold them.
    pub fn from_hex(text: &[u8]) -> Option<Hash> {
        let (pairs, rest) = text.as_chunks::<2>();
        if !rest.is_empty() || pairs.len() > 32 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            let digit = |c: u8| char::from(c).to_digit(16);
            *byte = (digit(*high)? << 4 | digit(*low)?) as u8;
        }
        Hash::new(&bytes[..pairs.len()])
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Returns lower-case hexadecimal digits (RFC 7616 §3.4: LHEX).
    pub fn hex(&self) -> Hex {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 64];
        for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(self.bytes()) {
            *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
        }
        Hex { text, len: self.len * 2 }
    }

    /// Compares in a time that depends only on the lengths.
    pub fn equals(&self, other: &Hash) -> bool {
        let differences = self.bytes.iter().zip(&other.bytes);
        let differs = differences.fold(self.len ^ other.len, |sum, (a, b)| sum | (a ^ b));
        std::hint::black_box(differs) == 0
    }
}

/// A hash must not get into a log by accident.
impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hash({} bytes)", self.len)
    }
}

pub struct Hex {
    text: [u8; 64],
    len: u8,
}

impl Hex {
    pub fn bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }
}

/// Hashes the parts, separated by colons.
pub fn hash(algorithm: Algorithm, parts: &[&[u8]]) -> Hash {
    fn run<D: Digest>(parts: &[&[u8]]) -> Hash {
        let mut hasher = D::new();
        for (number, part) in parts.iter().enumerate() {
            if number > 0 {
                hasher.update(b":");
            }
            hasher.update(part);
        }
        let output = hasher.finalize();
        let mut hash = Hash { bytes: [0; 32], len: output.len() as u8 };
        hash.bytes[..output.len()].copy_from_slice(&output);
        hash
    }
    match algorithm {
        Algorithm::Md5 => run::<Md5>(parts),
        Algorithm::Sha256 => run::<Sha256>(parts),
        Algorithm::Sha512_256 => run::<Sha512_256>(parts),
    }
}

/// Returns a user's HA1: what a user database holds.
pub fn ha1(algorithm: Algorithm, user: &[u8], realm: &[u8], password: &[u8]) -> Hash {
    hash(algorithm, &[user, realm, password])
}

/// Returns the expected response, given HA1 and the request. `None` if the credentials have an unknown qop, or lack what it needs.
pub fn response(
    algorithm: Algorithm,
    session: bool,
    ha1: &Hash,
    credentials: &Credentials,
    method: &[u8],
    body: &[u8],
) -> Option<Hash> {
    let ha1 = match session {
        false => ha1.hex(),
        true => {
            let secret = ha1.hex();
            let parts = [secret.bytes(), credentials.nonce, credentials.cnonce?];
            hash(algorithm, &parts).hex()
        }
    };
    let Some(qop) = credentials.qop else {
        let ha2 = hash(algorithm, &[method, credentials.uri]).hex();
        return Some(hash(algorithm, &[ha1.bytes(), credentials.nonce, ha2.bytes()]));
    };
    let ha2 = if qop.eq_ignore_ascii_case(b"auth") {
        hash(algorithm, &[method, credentials.uri])
    } else if qop.eq_ignore_ascii_case(b"auth-int") {
        let body = hash(algorithm, &[body]).hex();
        hash(algorithm, &[method, credentials.uri, body.bytes()])
    } else {
        return None;
    };
    let ha2 = ha2.hex();
    let parts = [ha1.bytes(), credentials.nonce, credentials.nc?, credentials.cnonce?, qop, ha2.bytes()];
    Some(hash(algorithm, &parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(hash: &Hash) -> String {
        String::from_utf8(hash.hex().bytes().to_vec()).unwrap()
    }

    fn answer(algorithm: &str, credentials: &Credentials, password: &[u8], method: &[u8], body: &[u8]) -> String {
        let (algorithm, session) = Algorithm::parse(algorithm.as_bytes()).unwrap();
        let ha1 = ha1(algorithm, credentials.username, credentials.realm, password);
        hex(&response(algorithm, session, &ha1, credentials, method, body).unwrap())
    }

    /// RFC 2617 §3.5 (and RFC 7616 §3.9.1 with its own cnonce).
    #[test]
    fn vectors_of_the_rfcs() {
        let old = Credentials {
            username: b"Mufasa",
            realm: b"testrealm@host.com",
            nonce: b"dcd98b7102dd2f0e8b11d0f600bfb0c093",
            uri: b"/dir/index.html",
            cnonce: Some(b"0a4f113b"),
            qop: Some(b"auth"),
            nc: Some(b"00000001"),
            ..Credentials::default()
        };
        let md5 = answer("MD5", &old, b"Circle Of Life", b"GET", b"");
        assert_eq!(md5, "6629fae49393a05397450978507c4ef1");

        let new = Credentials {
            realm: b"http-auth@example.org",
            nonce: b"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
            cnonce: Some(b"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"),
            ..old
        };
        let md5 = answer("MD5", &new, b"Circle of Life", b"GET", b"");
        assert_eq!(md5, "8ca523f5e9506fed4657c9700eebdbec");
        let sha256 = answer("SHA-256", &new, b"Circle of Life", b"GET", b"");
        assert_eq!(sha256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1");
    }

    /// RFC 7616 §3.9.2, with the corrected values of its erratum 4897: a user whose name is only sent as a hash.
    #[test]
    fn sha_512_256_is_the_truncated_one_with_its_own_start() {
        // FIPS 180-4's example for SHA-512/256: "abc".
        let abc = hash(Algorithm::Sha512_256, &[b"abc"]);
        assert_eq!(hex(&abc), "53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23");
    }

    /// RFC 2069 §2.4 as corrected: no qop, as the studies' clients send.
    #[test]
    fn without_qop() {
        let credentials = Credentials {
            username: b"Mufasa",
            realm: b"testrealm@host.com",
            nonce: b"dcd98b7102dd2f0e8b11d0f600bfb0c093",
            uri: b"/dir/index.html",
            ..Credentials::default()
        };
        let md5 = answer("MD5", &credentials, b"CircleOfLife", b"GET", b"");
        assert_eq!(md5, "1949323746fe6a43ef61f9606e7febea");
    }

    #[test]
    fn sessions_and_bodies_are_hashed_as_the_text_says() {
        let credentials = Credentials {
            username: b"bob",
            realm: b"biloxi.com",
            nonce: b"n",
            uri: b"sip:bob@biloxi.com",
            cnonce: Some(b"c"),
            qop: Some(b"auth-int"),
            nc: Some(b"00000002"),
            ..Credentials::default()
        };
        for (name, algorithm) in
            [("MD5-sess", Algorithm::Md5), ("SHA-256-sess", Algorithm::Sha256), ("SHA-512-256-sess", Algorithm::Sha512_256)]
        {
            let lower = |text: String| hex(&hash(algorithm, &[text.as_bytes()]));
            let a1 = format!("{}:n:c", lower("bob:biloxi.com:zanzibar".into()));
            let a2 = format!("INVITE:sip:bob@biloxi.com:{}", lower("v=0".into()));
            let expected = lower(format!("{}:n:00000002:c:auth-int:{}", lower(a1), lower(a2)));
            let said = answer(name, &credentials, b"zanzibar", b"INVITE", b"v=0");
            assert_eq!(said, expected, "{name}");
        }
    }

    #[test]
    fn what_a_qop_needs_must_be_there() {
        let ha1 = ha1(Algorithm::Md5, b"a", b"r", b"p");
        let full = Credentials { qop: Some(b"auth"), nc: Some(b"00000001"), cnonce: Some(b"c"), ..Credentials::default() };
        let is_some =
            |credentials: &Credentials, session| response(Algorithm::Md5, session, &ha1, credentials, b"INVITE", b"").is_some();
        assert!(is_some(&full, false));
        assert!(!is_some(&Credentials { nc: None, ..full }, false));
        assert!(!is_some(&Credentials { cnonce: None, ..full }, false));
        let other = Credentials { qop: Some(b"auth-conf"), ..full };
        assert!(!is_some(&other, false));
        let bare = Credentials::default();
        assert!(is_some(&bare, false) && !is_some(&bare, true));
    }

    #[test]
    fn names() {
        for algorithm in Algorithm::ALL {
            let name = algorithm.name().to_ascii_lowercase();
            assert_eq!(Algorithm::parse(name.as_bytes()), Some((algorithm, false)));
            let session = format!("{name}-SESS");
            assert_eq!(Algorithm::parse(session.as_bytes()), Some((algorithm, true)));
        }
        for other in [&b""[..], b"-sess", b"MD4", b"SHA-512"] {
            assert_eq!(Algorithm::parse(other), None);
        }
    }

    #[test]
    fn hashes_are_read_in_either_case_and_compared_whole() {
        let hash = hash(Algorithm::Md5, &[b"x"]);
        let read = Hash::from_hex(hex(&hash).to_uppercase().as_bytes()).unwrap();
        assert!(read.equals(&hash) && read == hash);
        let mut other = hash;
        other.bytes[15] ^= 1;
        assert!(!other.equals(&hash));
        for bad in [&b"abc"[..], b"", b"zz", &[b'0'; 30], &[b'0'; 66]] {
            assert!(Hash::from_hex(bad).is_none());
        }
        assert_eq!(format!("{hash:?}"), "Hash(16 bytes)");
    }
}
