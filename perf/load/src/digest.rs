//! Digest on the client's side (RFC 3261 §22, RFC 7616): which challenge is answered, and the credentials that answer it.
//! How challenges are read and what is hashed is the server's library's.

use strowger::sip::{Challenge, Credentials};
use strowger::stack::auth::digest::{self, Algorithm, Hash};

/// Reads the name of an algorithm, as options give it.
pub fn algorithm(name: &str) -> Result<Algorithm, &'static str> {
    match Algorithm::parse(name.as_bytes()) {
        Some((algorithm, false)) => Ok(algorithm),
        _ => Err("not md5, sha-256 or sha-512-256"),
    }
}

/// Whether a challenge asks for this algorithm; it is MD5 where none is named.
pub fn asks_for(challenge: &Challenge, algorithm: Algorithm) -> bool {
    challenge.algorithm.map_or(Some((Algorithm::Md5, false)), Algorithm::parse) == Some((algorithm, false))
}

/// Whether `auth` is among the kinds of protection that a challenge offers.
pub fn offers_auth(challenge: &Challenge) -> bool {
    let mut offered = challenge.qop.unwrap_or_default().split(|byte| *byte == b',');
    offered.any(|qop| qop.trim_ascii().eq_ignore_ascii_case(b"auth"))
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
    pub method: &'a str,
    pub uri: &'a [u8],
    pub ha1: Hash,
    /// With `qop=auth`: the nonce count, and our own nonce.
    pub counted: Option<(u32, &'a [u8])>,
}

impl Answer<'_> {
    /// Appends the header line.
    pub fn write(&self, out: &mut Vec<u8>) {
        let Answer { algorithm, username, realm, nonce, uri, .. } = *self;
        let count = self.counted.map(|(count, _)| format!("{count:08x}"));
        let credentials = Credentials {
            username,
            realm,
            nonce,
            uri,
            cnonce: self.counted.map(|(_, cnonce)| cnonce),
            qop: count.as_ref().map(|_| &b"auth"[..]),
            nc: count.as_deref().map(str::as_bytes),
            ..Credentials::default()
        };
        let response = digest::response(algorithm, false, &self.ha1, &credentials, self.method.as_bytes(), b"");
        let response = response.expect("its qop has all that it needs").hex();
        let mut put = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
        put(&[self.asker.answer_in(), b": Digest username=\"", username, b"\",realm=\"", realm, b"\",nonce=\"", nonce]);
        put(&[b"\",uri=\"", uri, b"\",response=\"", response.bytes(), b"\""]);
        if self.names_algorithm {
            put(&[b",algorithm=", algorithm.name().as_bytes()]);
        }
        if let Some(opaque) = self.opaque {
            put(&[b",opaque=\"", opaque, b"\""]);
        }
        if let (Some(cnonce), Some(nc)) = (credentials.cnonce, credentials.nc) {
            put(&[b",cnonce=\"", cnonce, b"\",qop=auth,nc=", nc]);
        }
        put(&[b"\r\n"]);
    }
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
            method: "GET",
            uri: b"/dir/index.html",
            ha1: digest::ha1(algorithm, b"Mufasa", realm, password),
            counted: None,
        }
    }

    fn written(answer: &Answer) -> String {
        let mut line = Vec::new();
        answer.write(&mut line);
        String::from_utf8(line).expect("text")
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
            let line = written(&answer);
            assert!(line.contains(&format!(",response=\"{expected}\",")), "{line}");
        }
        // Without qop: RFC 2069 §2.4 as its erratum corrects it.
        let line = written(&mufasa(Algorithm::Md5, b"testrealm@host.com", b"dcd98b7102dd2f0e8b11d0f600bfb0c093", b"CircleOfLife"));
        assert!(line.contains(",response=\"1949323746fe6a43ef61f9606e7febea\","), "{line}");
    }

    #[test]
    fn what_a_challenge_asks_for() {
        let read = |text: &'static [u8]| Challenge::parse(text).ok().flatten().expect("a challenge");
        let challenge = read(b"Digest realm=\"r\",nonce=\"n\",qop = \"auth-int, Auth\",algorithm=sha-256");
        assert!(asks_for(&challenge, Algorithm::Sha256) && !asks_for(&challenge, Algorithm::Md5));
        assert!(offers_auth(&challenge));
        let bare = read(b"Digest realm=\"r\", nonce=\"n\"");
        assert!(asks_for(&bare, Algorithm::Md5) && !offers_auth(&bare));
        let other = read(b"Digest realm=\"r\",nonce=\"n\",qop=\"auth-int\",algorithm=MD5-sess");
        assert!(!asks_for(&other, Algorithm::Md5) && !offers_auth(&other));
        assert_eq!((algorithm("sha-256"), algorithm("md5")), (Ok(Algorithm::Sha256), Ok(Algorithm::Md5)));
        assert!(algorithm("md5-sess").is_err() && algorithm("sha").is_err());
    }

    #[test]
    fn credentials_are_written_as_the_grammar_wants() {
        let plain = mufasa(Algorithm::Md5, b"r", b"n", b"p");
        let response = |line: &str| line.split("response=\"").nth(1).expect("a response")[..32].to_owned();
        let full = Answer { opaque: Some(b"o"), counted: Some((0x1a, b"c0ffee00")), asker: Asker::Proxy, ..plain };
        let line = written(&full);
        let expected = format!(
            "Proxy-Authorization: Digest username=\"Mufasa\",realm=\"r\",nonce=\"n\",uri=\"/dir/index.html\",\
             response=\"{}\",algorithm=MD5,opaque=\"o\",cnonce=\"c0ffee00\",qop=auth,nc=0000001a\r\n",
            response(&line)
        );
        assert_eq!(line, expected);

        let line = written(&Answer { names_algorithm: false, ..mufasa(Algorithm::Md5, b"r", b"n", b"p") });
        let expected = format!(
            "Authorization: Digest username=\"Mufasa\",realm=\"r\",nonce=\"n\",uri=\"/dir/index.html\",response=\"{}\"\r\n",
            response(&line)
        );
        assert_eq!(line, expected);
    }
}
