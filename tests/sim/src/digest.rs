//! Digest authentication as the laboratory's agents and its auditor compute it (RFC 7616 §3.4, RFC 3261 §22): by hand, sharing
//! nothing with the server's own.

use super::reading::{Field, Reading};
use super::text::trim;
use md5::Md5;
use sha2::{Digest as _, Sha256};

/// Whose secret it is. Everybody in the laboratory has one, and says it to nobody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    pub user: String,
    /// The domain of the address-of-record, which is the realm.
    pub realm: String,
    pub password: String,
}

impl Account {
    pub fn new(user: &str, realm: &str) -> Account {
        Account { user: user.to_string(), realm: realm.to_string(), password: format!("{user}'s secret at {realm}") }
    }

    /// What a user database holds (RFC 7616 §3.4.2).
    pub fn ha1(&self, algorithm: Algorithm) -> Vec<u8> {
        algorithm.hash(&[self.user.as_bytes(), self.realm.as_bytes(), self.password.as_bytes()])
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    Md5,
    Sha256,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Algorithm::Md5 => "MD5",
            Algorithm::Sha256 => "SHA-256",
        }
    }

    fn of(name: &[u8]) -> Option<Algorithm> {
        [Algorithm::Md5, Algorithm::Sha256].into_iter().find(|algorithm| name.eq_ignore_ascii_case(algorithm.name().as_bytes()))
    }

    /// Of the parts with a colon between each two.
    fn hash(self, parts: &[&[u8]]) -> Vec<u8> {
        let text = parts.join(&b':');
        match self {
            Algorithm::Md5 => Md5::digest(text).to_vec(),
            Algorithm::Sha256 => Sha256::digest(text).to_vec(),
        }
    }

    fn hex(self, parts: &[&[u8]]) -> String {
        hex(&self.hash(parts))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A challenge that somebody was given, and how often it has been answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Challenge {
    pub realm: Vec<u8>,
    pub nonce: Vec<u8>,
    pub algorithm: Algorithm,
    pub qop: bool,
    pub stale: bool,
    pub count: u32,
    /// Where the answer goes: Proxy-Authorization, else Authorization.
    pub proxy: bool,
}

impl Challenge {
    /// The first challenge of a 401 or 407 that can be answered.
    pub fn of(response: &Reading) -> Option<Challenge> {
        Challenge::all(response).next()
    }

    pub fn all(response: &Reading) -> impl Iterator<Item = Challenge> {
        let proxy = response.status() == 407;
        let field = match response.status() {
            407 => Some(Field::ProxyAuthenticate),
            401 => Some(Field::WwwAuthenticate),
            _ => None,
        };
        let lines = response.lines.iter();
        lines
            .filter(move |line| Some(line.field) == field)
            .filter_map(move |line| Challenge::read(response.get(&line.value), proxy))
    }

    fn read(value: &[u8], proxy: bool) -> Option<Challenge> {
        let qop = field_of(value, b"qop");
        Some(Challenge {
            realm: field_of(value, b"realm")?.to_vec(),
            nonce: field_of(value, b"nonce")?.to_vec(),
            algorithm: Algorithm::of(field_of(value, b"algorithm").unwrap_or(b"MD5"))?,
            qop: qop.is_some(),
            stale: field_of(value, b"stale").is_some_and(|s| s.eq_ignore_ascii_case(b"true")),
            count: 0,
            proxy,
        })
    }

    pub fn header(&self) -> &'static str {
        match self.proxy {
            true => "Proxy-Authorization",
            false => "Authorization",
        }
    }

    /// The credentials for a request, as [`Challenge::header`]'s value. The count goes up where there is one.
    pub fn answer(&mut self, account: &Account, method: &[u8], uri: &[u8], body: &[u8], whole: bool) -> Vec<u8> {
        self.count += 1;
        let credentials = Credentials {
            user: account.user.as_bytes(),
            realm: &self.realm,
            nonce: &self.nonce,
            uri,
            response: b"",
            algorithm: self.algorithm,
            qop: self.qop.then_some(if whole { &b"auth-int"[..] } else { b"auth" }),
            cnonce: b"c0ffee",
            nc: self.count,
        };
        let ha1 = account.ha1(self.algorithm);
        let response = credentials.expected(&ha1, method, body);
        let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
        let mut out = format!(
            "Digest username=\"{}\", realm=\"{}\", nonce=\"{}\", uri=\"{}\", response=\"{response}\", algorithm={}",
            account.user,
            text(&self.realm),
            text(&self.nonce),
            text(uri),
            self.algorithm.name(),
        );
        if let Some(qop) = credentials.qop {
            out += &format!(", qop={}, nc={:08x}, cnonce=\"c0ffee\"", text(qop), self.count);
        }
        out.into_bytes()
    }
}

/// What a request says to prove who sent it.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    pub user: &'a [u8],
    pub realm: &'a [u8],
    pub nonce: &'a [u8],
    pub uri: &'a [u8],
    response: &'a [u8],
    algorithm: Algorithm,
    qop: Option<&'a [u8]>,
    cnonce: &'a [u8],
    /// 0 where there is no qop.
    pub nc: u32,
}

impl<'a> Credentials<'a> {
    pub fn read(value: &'a [u8]) -> Option<Credentials<'a>> {
        let qop = field_of(value, b"qop");
        let nc = field_of(value, b"nc").and_then(|nc| std::str::from_utf8(nc).ok());
        let nc = nc.and_then(|nc| u32::from_str_radix(nc, 16).ok());
        Some(Credentials {
            user: field_of(value, b"username")?,
            realm: field_of(value, b"realm")?,
            nonce: field_of(value, b"nonce")?,
            uri: field_of(value, b"uri")?,
            response: field_of(value, b"response")?,
            algorithm: Algorithm::of(field_of(value, b"algorithm").unwrap_or(b"MD5"))?,
            qop,
            cnonce: field_of(value, b"cnonce").unwrap_or(b""),
            nc: match qop {
                Some(_) => nc?,
                None => 0,
            },
        })
    }

    /// All of one header field that can be read.
    pub fn all(request: &'a Reading, field: Field) -> impl Iterator<Item = Credentials<'a>> {
        let lines = request.lines.iter().filter(move |line| line.field == field);
        lines.filter_map(|line| Credentials::read(request.get(&line.value)))
    }

    fn expected(&self, ha1: &[u8], method: &[u8], body: &[u8]) -> String {
        let algorithm = self.algorithm;
        let ha1 = hex(ha1);
        let Some(qop) = self.qop else {
            let ha2 = algorithm.hex(&[method, self.uri]);
            return algorithm.hex(&[ha1.as_bytes(), self.nonce, ha2.as_bytes()]);
        };
        let ha2 = match qop.eq_ignore_ascii_case(b"auth-int") {
            true => algorithm.hex(&[method, self.uri, algorithm.hex(&[body]).as_bytes()]),
            false => algorithm.hex(&[method, self.uri]),
        };
        let nc = format!("{:08x}", self.nc);
        algorithm.hex(&[ha1.as_bytes(), self.nonce, nc.as_bytes(), self.cnonce, qop, ha2.as_bytes()])
    }

    /// Whether they were made with the account's password, for this method and body.
    pub fn are_of(&self, account: &Account, method: &[u8], body: &[u8]) -> bool {
        let ha1 = account.ha1(self.algorithm);
        let expected = self.expected(&ha1, method, body);
        self.user == account.user.as_bytes() && self.response.eq_ignore_ascii_case(expected.as_bytes())
    }
}

/// One field of `Digest a=b, c="d"`, without its quotes.
pub fn field_of<'a>(value: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let scheme = value.iter().position(u8::is_ascii_whitespace)?;
    if !value[..scheme].eq_ignore_ascii_case(b"digest") {
        return None;
    }
    let mut quoted = false;
    let parts = value[scheme..].split(|byte| {
        quoted ^= *byte == b'"';
        *byte == b',' && !quoted
    });
    for part in parts {
        let equals = part.iter().position(|byte| *byte == b'=')?;
        if trim(&part[..equals]).eq_ignore_ascii_case(name) {
            let text = trim(&part[equals + 1..]);
            let bare = text.strip_prefix(b"\"").and_then(|t| t.strip_suffix(b"\""));
            return Some(bare.unwrap_or(text));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7616 §3.9.1, both algorithms.
    #[test]
    fn the_rfc_s_example() {
        let account = Account { user: "Mufasa".into(), realm: "http-auth@example.org".into(), password: "Circle of Life".into() };
        let value = |algorithm: &str, response: &str| {
            format!(
                "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", uri=\"/dir/index.html\", algorithm={algorithm}, \
                 nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", nc=00000001, \
                 cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", qop=auth, response=\"{response}\", \
                 opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
            )
        };
        for (algorithm, response) in [
            ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
            ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let text = value(algorithm, response);
            let credentials = Credentials::read(text.as_bytes()).unwrap();
            assert!(credentials.are_of(&account, b"GET", b""), "{algorithm}");
            assert!(!credentials.are_of(&account, b"PUT", b""));
            let other = Account::new("Mufasa", "http-auth@example.org");
            assert!(!credentials.are_of(&other, b"GET", b""));
        }
    }

    #[test]
    fn what_is_answered_is_right() {
        let text = b"SIP/2.0 407 x\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK0\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: c\r\n\
            CSeq: 1 INVITE\r\nProxy-Authenticate: Digest realm=\"a.example\", nonce=\"n,\", algorithm=SHA-256, qop=\"auth,auth-int\"\r\n\r\n";
        let mut challenge = Challenge::of(&Reading::new(text.to_vec())).unwrap();
        assert_eq!(challenge.nonce, b"n,");
        let account = Account::new("u1", "a.example");
        for whole in [false, true] {
            let answer = challenge.answer(&account, b"INVITE", b"sip:x@a.example", b"body", whole);
            let credentials = Credentials::read(&answer).unwrap();
            assert!(credentials.are_of(&account, b"INVITE", b"body"));
            assert_eq!(credentials.are_of(&account, b"INVITE", b"else"), !whole);
        }
        assert_eq!(challenge.count, 2);
    }
}
