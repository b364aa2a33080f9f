//! The laboratory's own reading of a message (RFC 3261 §7): naive, allocating, and sharing nothing with the server's parser,
//! so that a mistake in one is seen by the other.

use std::net::{IpAddr, SocketAddr};

/// A part of a message's bytes.
pub type Part = std::ops::Range<usize>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Field {
    Via,
    From,
    To,
    CallId,
    CSeq,
    Contact,
    MaxForwards,
    MaxBreadth,
    Route,
    RecordRoute,
    ContentLength,
    Expires,
    MinExpires,
    Require,
    ProxyRequire,
    Path,
    Authorization,
    ProxyAuthorization,
    WwwAuthenticate,
    ProxyAuthenticate,
    AssertedIdentity,
    Other,
}

impl Field {
    /// What a hop adds or takes away for reasons of its own: a length for a stream, credentials that were meant for it, an
    /// identity that the next hop must not believe. Each has a rule of its own.
    pub fn is_for_a_hop(self) -> bool {
        matches!(
            self,
            Field::ContentLength | Field::Authorization | Field::ProxyAuthorization | Field::AssertedIdentity
        )
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Start {
    Request {
        method: Part,
        uri: Part,
    },
    Response(u16),
    /// Not a message that anybody could be held to.
    Broken,
}

#[derive(Clone, Debug)]
pub struct Line {
    pub field: Field,
    /// The whole header line with its folds and its CRLF.
    pub whole: Part,
    /// The value, trimmed.
    pub value: Part,
}

/// One datagram, read once when it enters the network.
#[derive(Debug)]
pub struct Reading {
    pub bytes: Vec<u8>,
    pub start: Start,
    pub lines: Vec<Line>,
    pub body: Part,
    /// Via header values, top first.
    pub vias: Vec<Part>,
    /// Of all bytes.
    pub digest: u64,
    /// Of all lines but the start line, Via and what is for a hop, and of the body: what a response keeps. The cookie in a Record-Route is no part of it: the
    /// caller's differs from the callee's (RFC 3261 §16.7 step 8).
    pub trunk: u64,
    /// As `trunk`, without what a proxy edits in a request: Route, Record-Route, Max-Forwards, Max-Breadth.
    pub core: u64,
    /// RFC 3261 §17.2.3: top branch, top sent-by, Call-ID, CSeq number, From tag; the method not included.
    pub key: u64,
    /// The top Via's branch alone.
    pub branch: u64,
}

impl Reading {
    pub fn new(bytes: Vec<u8>) -> Reading {
        let mut reading = Reading {
            start: Start::Broken,
            lines: Vec::new(),
            body: 0..0,
            vias: Vec::new(),
            digest: digest(&bytes),
            trunk: 0,
            core: 0,
            key: 0,
            branch: 0,
            bytes,
        };
        if reading.read().is_none() {
            reading.start = Start::Broken;
        }
        reading
    }

    fn read(&mut self) -> Option<()> {
        let bytes = &self.bytes[..];
        let mut at = 0;
        while bytes[at..].starts_with(b"\r\n") {
            at += 2;
        }
        let end = find(bytes, at, b"\r\n")?;
        self.start = read_start(bytes, at, end)?;
        at = end + 2;
        let is_response = matches!(self.start, Start::Response(_));
        let mut length = None;
        let (mut trunk, mut core) = (Digest::new(), Digest::new());
        loop {
            let mut end = find(bytes, at, b"\r\n")?;
            if end == at {
                at = end + 2;
                break;
            }
            let first_end = end;
            while matches!(bytes.get(end + 2), Some(b' ' | b'\t')) {
                end = find(bytes, end + 2, b"\r\n")?;
            }
            let colon = bytes[at..first_end].iter().position(|b| *b == b':');
            let colon = match colon.map(|colon| at + colon) {
                Some(colon) if !is_response || is_name(trim_end(&bytes[at..colon])) => colon,
                // A line that nobody can read makes no response worse: it is left out of what is passed on.
                _ if is_response => {
                    at = end + 2;
                    continue;
                }
                _ => at + bytes[at..end].iter().position(|b| *b == b':')?,
            };
            let line = Line {
                field: field(trim(&bytes[at..colon])),
                whole: at..end + 2,
                value: trim_part(bytes, colon + 1..end),
            };
            match line.field {
                Field::Via => {
                    split(bytes, line.value.clone(), b',', &mut self.vias);
                }
                Field::RecordRoute => {
                    for part in without_cookies(&bytes[line.whole.clone()]) {
                        trunk.add(part);
                    }
                }
                Field::Route | Field::MaxForwards | Field::MaxBreadth => {
                    trunk.add(&bytes[line.whole.clone()]);
                }
                Field::ContentLength => {
                    length = Some(number(&bytes[line.value.clone()])? as usize);
                }
                field if field.is_for_a_hop() => {}
                _ => {
                    trunk.add(&bytes[line.whole.clone()]);
                    core.add(&bytes[line.whole.clone()]);
                }
            }
            self.lines.push(line);
            at = end + 2;
        }
        let rest = bytes.len() - at;
        let length = length.unwrap_or(rest);
        if length > rest {
            return None;
        }
        self.body = at..at + length;
        trunk.add(&bytes[self.body.clone()]);
        core.add(&bytes[self.body.clone()]);
        self.trunk = trunk.finish();
        self.core = core.finish();
        let via = self.vias.first()?.clone();
        let branch = param(&bytes[via.clone()], b"branch")?;
        self.branch = digest(branch);
        let mut key = Digest::new();
        key.add(branch);
        key.add(&sent_by(&bytes[via])?);
        // What a response says besides its Via and CSeq is for who asked to judge.
        match self.value(Field::CallId) {
            None if !is_response => return None,
            id => key.add(id.unwrap_or_default()),
        }
        key.add(self.cseq()?.0.to_string().as_bytes());
        key.add(self.tag(Field::From).unwrap_or(b""));
        self.key = key.finish();
        (is_response || self.value(Field::To).is_some()).then_some(())
    }

    pub fn is_broken(&self) -> bool {
        self.start == Start::Broken
    }

    pub fn is_request(&self) -> bool {
        matches!(self.start, Start::Request { .. })
    }

    /// 0 when it is no response.
    pub fn status(&self) -> u16 {
        match self.start {
            Start::Response(status) => status,
            _ => 0,
        }
    }

    pub fn get(&self, part: &Part) -> &[u8] {
        &self.bytes[part.clone()]
    }

    /// The request's method; for a response the CSeq's.
    pub fn method(&self) -> &[u8] {
        match &self.start {
            Start::Request { method, .. } => self.get(method),
            _ => self.cseq().map_or(b"", |(_, method)| method),
        }
    }

    pub fn uri(&self) -> &[u8] {
        match &self.start {
            Start::Request { uri, .. } => self.get(uri),
            _ => b"",
        }
    }

    pub fn body(&self) -> &[u8] {
        self.get(&self.body)
    }

    /// The first value of a field, as it stands.
    pub fn value(&self, field: Field) -> Option<&[u8]> {
        let line = self.lines.iter().find(|line| line.field == field)?;
        Some(self.get(&line.value))
    }

    pub fn count(&self, field: Field) -> usize {
        self.lines.iter().filter(|l| l.field == field).count()
    }

    /// All values of a field whose values a comma separates.
    pub fn values(&self, field: Field) -> Vec<&[u8]> {
        let mut parts = Vec::new();
        for line in self.lines.iter().filter(|line| line.field == field) {
            split(&self.bytes, line.value.clone(), b',', &mut parts);
        }
        parts.iter().map(|part| self.get(part)).collect()
    }

    pub fn number(&self, field: Field) -> Option<u64> {
        number(self.value(field)?)
    }

    pub fn cseq(&self) -> Option<(u64, &[u8])> {
        let value = self.value(Field::CSeq)?;
        let space = value.iter().position(|b| b.is_ascii_whitespace())?;
        Some((number(&value[..space])?, trim(&value[space..])))
    }

    pub fn tag(&self, field: Field) -> Option<&[u8]> {
        param(self.value(field)?, b"tag")
    }

    pub fn call_id(&self) -> &[u8] {
        self.value(Field::CallId).unwrap_or(b"")
    }

    pub fn via(&self, index: usize) -> &[u8] {
        self.vias.get(index).map_or(b"", |part| self.get(part))
    }

    /// The key that this message would have without its top Via: the next hop's transaction.
    pub fn key_below(&self) -> Option<u64> {
        let via = self.via(1);
        let mut key = Digest::new();
        key.add(param(via, b"branch")?);
        key.add(&sent_by(via)?);
        key.add(self.value(Field::CallId)?);
        key.add(self.cseq()?.0.to_string().as_bytes());
        key.add(self.tag(Field::From).unwrap_or(b""));
        Some(key.finish())
    }

    /// True when the SIP-Version is written as it must be sent (§7.1).
    pub fn is_version_as_sent(&self) -> bool {
        let end = find(&self.bytes, 0, b"\r\n").unwrap_or(self.bytes.len());
        let line = &self.bytes[..end];
        line.starts_with(b"SIP/2.0 ") || line.ends_with(b" SIP/2.0")
    }

    /// The start line, for people.
    pub fn title(&self) -> String {
        let end = find(&self.bytes, 0, b"\r\n").unwrap_or(self.bytes.len());
        String::from_utf8_lossy(&self.bytes[..end.min(120)]).into_owned()
    }
}

fn read_start(bytes: &[u8], at: usize, end: usize) -> Option<Start> {
    let line = &bytes[at..end];
    let first = line.iter().position(|b| *b == b' ')?;
    if line.get(..8).is_some_and(|version| version.eq_ignore_ascii_case(b"SIP/2.0 ")) {
        let code = line.get(8..11)?;
        let status = number(code)? as u16;
        return (100..700).contains(&status).then_some(Start::Response(status));
    }
    let second = first + 1 + line[first + 1..].iter().position(|b| *b == b' ')?;
    if !line[second + 1..].eq_ignore_ascii_case(b"SIP/2.0") || first == 0 || second == first + 1 {
        return None;
    }
    Some(Start::Request {
        method: at..at + first,
        uri: at + first + 1..at + second,
    })
}

fn field(name: &[u8]) -> Field {
    let lower = name.to_ascii_lowercase();
    match &lower[..] {
        b"via" | b"v" => Field::Via,
        b"from" | b"f" => Field::From,
        b"to" | b"t" => Field::To,
        b"call-id" | b"i" => Field::CallId,
        b"cseq" => Field::CSeq,
        b"contact" | b"m" => Field::Contact,
        b"max-forwards" => Field::MaxForwards,
        b"max-breadth" => Field::MaxBreadth,
        b"route" => Field::Route,
        b"record-route" => Field::RecordRoute,
        b"content-length" | b"l" => Field::ContentLength,
        b"expires" => Field::Expires,
        b"min-expires" => Field::MinExpires,
        b"require" => Field::Require,
        b"proxy-require" => Field::ProxyRequire,
        b"path" => Field::Path,
        b"authorization" => Field::Authorization,
        b"proxy-authorization" => Field::ProxyAuthorization,
        b"www-authenticate" => Field::WwwAuthenticate,
        b"proxy-authenticate" => Field::ProxyAuthenticate,
        b"p-asserted-identity" | b"p-preferred-identity" => Field::AssertedIdentity,
        _ => Field::Other,
    }
}

pub fn find(bytes: &[u8], from: usize, what: &[u8]) -> Option<usize> {
    let rest = bytes.get(from..)?;
    rest.windows(what.len()).position(|window| window == what).map(|n| from + n)
}

pub fn trim(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

fn trim_end(name: &[u8]) -> &[u8] {
    let end = name.iter().rposition(|b| !matches!(b, b' ' | b'\t'));
    &name[..end.map_or(0, |end| end + 1)]
}

/// A token, as the name of a header field is one (§25.1).
fn is_name(name: &[u8]) -> bool {
    let in_token = |b: &u8| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(b);
    !name.is_empty() && name.iter().all(in_token)
}

fn trim_part(bytes: &[u8], part: Part) -> Part {
    let text = &bytes[part.clone()];
    let start = part.start + (text.len() - text.trim_ascii_start().len());
    start..start + text.trim_ascii().len()
}

/// Splits at a separator that stands outside quotes and angle brackets.
fn split(bytes: &[u8], part: Part, separator: u8, out: &mut Vec<Part>) {
    let (mut quoted, mut angle, mut escaped) = (false, false, false);
    let mut from = part.start;
    for at in part.clone() {
        let byte = bytes[at];
        if escaped {
            escaped = false;
        } else if quoted {
            match byte {
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
        } else if byte == b'"' {
            quoted = true;
        } else if byte == b'<' {
            angle = true;
        } else if byte == b'>' {
            angle = false;
        } else if byte == separator && !angle {
            out.push(trim_part(bytes, from..at));
            from = at + 1;
        }
    }
    out.push(trim_part(bytes, from..part.end));
}

/// A header parameter's value (empty when it has none): behind the closing bracket when there is one.
pub fn param<'a>(value: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut parts = Vec::new();
    split(value, 0..value.len(), b';', &mut parts);
    parts.iter().skip(1).find_map(|part| {
        let text = &value[part.clone()];
        let equals = text.iter().position(|b| *b == b'=').unwrap_or(text.len());
        let (found, rest) = text.split_at(equals);
        trim(found)
            .eq_ignore_ascii_case(name)
            .then(|| trim(rest.strip_prefix(b"=").unwrap_or(rest)))
    })
}

/// The address of a name-addr or addr-spec, without brackets and display name.
pub fn address_spec(value: &[u8]) -> &[u8] {
    match value.iter().position(|b| *b == b'<') {
        Some(open) => {
            let rest = &value[open + 1..];
            let close = rest.iter().position(|b| *b == b'>').unwrap_or(rest.len());
            &rest[..close]
        }
        None => {
            let end = value.iter().position(|b| *b == b';').unwrap_or(value.len());
            trim(&value[..end])
        }
    }
}

/// A Via's sent-by, without the white space that may stand around its colon (§25.1).
pub fn sent_by(via: &[u8]) -> Option<Vec<u8>> {
    let end = via.iter().position(|b| *b == b';').unwrap_or(via.len());
    let head = trim(&via[..end]);
    // Behind the transport, before which the last slash stands, with or without white space.
    let slash = head.iter().rposition(|b| *b == b'/').map_or(0, |n| n + 1);
    let rest = head[slash..].trim_ascii_start();
    let space = rest.iter().position(|b| b.is_ascii_whitespace())?;
    let place = rest[space..].iter().copied();
    Some(place.filter(|b| !b.is_ascii_whitespace()).collect())
}

/// A sip: URI taken apart, naively.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address<'a> {
    pub user: &'a [u8],
    pub host: &'a [u8],
    pub port: Option<u16>,
    /// Behind the host and port, with its first `;`.
    pub params: &'a [u8],
}

impl<'a> Address<'a> {
    pub fn of(uri: &'a [u8]) -> Option<Address<'a>> {
        if uri.len() < 5 || !uri[..4].eq_ignore_ascii_case(b"sip:") {
            return None;
        }
        let rest = &uri[4..];
        let (user, rest) = match rest.iter().position(|b| *b == b'@') {
            Some(at) => (&rest[..at], &rest[at + 1..]),
            None => (&b""[..], rest),
        };
        let end = rest.iter().position(|b| matches!(b, b';' | b'?')).unwrap_or(rest.len());
        let (place, params) = rest.split_at(end);
        let colon = match place.iter().position(|b| *b == b']') {
            Some(bracket) => bracket + 1,
            None => place.iter().position(|b| *b == b':').unwrap_or(place.len()),
        };
        let (host, port) = place.split_at(colon);
        let port = match port.strip_prefix(b":") {
            Some(digits) => Some(u16::try_from(number(digits)?).ok()?),
            None if port.is_empty() => None,
            None => return None,
        };
        Some(Address {
            user,
            host,
            port,
            params,
        })
    }

    pub fn ip(&self) -> Option<IpAddr> {
        let text = std::str::from_utf8(self.host).ok()?;
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        match bare {
            Some(v6) => v6.parse().map(IpAddr::V6).ok(),
            // §25.1: one to three digits each, so that 01 is 1.
            None => {
                let mut octets = [0; 4];
                let mut parts = text.split('.');
                for octet in &mut octets {
                    let part = parts.next().filter(|p| p.len() <= 3)?;
                    *octet = u8::try_from(number(part.as_bytes())?).ok()?;
                }
                let over = parts.next().is_none();
                over.then(|| IpAddr::from(octets))
            }
        }
    }

    /// Where a datagram for it would go, when it names a number and no name.
    pub fn socket(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.ip()?, self.port.unwrap_or(5060)))
    }

    pub fn param(&self, name: &[u8]) -> Option<&'a [u8]> {
        param(self.params, name)
    }

    /// RFC 3261 §19.1.4, in the parts that can differ here.
    pub fn equals(&self, other: &Address) -> bool {
        let must = [&b"transport"[..], b"user", b"ttl", b"method", b"maddr"];
        let same = |name: &[u8]| match (self.param(name), other.param(name)) {
            (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
            (None, None) => true,
            _ => !must.contains(&name),
        };
        let mut names = Vec::new();
        for params in [self.params, other.params] {
            for part in params.split(|b| *b == b';').skip(1) {
                let end = part.iter().position(|b| *b == b'=').unwrap_or(part.len());
                names.push(part[..end].to_ascii_lowercase());
            }
        }
        self.user == other.user
            && self.host.eq_ignore_ascii_case(other.host)
            && self.port == other.port
            && names.iter().all(|name| same(name))
    }
}

pub fn same_uri(a: &[u8], b: &[u8]) -> bool {
    match (Address::of(a), Address::of(b)) {
        (Some(a), Some(b)) => a.equals(&b),
        _ => a == b,
    }
}

pub fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    text.iter().try_fold(0u64, |sum, byte| {
        byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0'))
    })
}

/// A running hash; not for secrets, only to compare.
pub struct Digest(u64);

impl Digest {
    pub fn new() -> Digest {
        Digest(0x5157_4f57_4745_5231)
    }

    pub fn add(&mut self, text: &[u8]) {
        let mut chunks = text.chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.number(u64::from_le_bytes(word));
        }
        let mut word = [0; 8];
        for (place, byte) in word.iter_mut().zip(chunks.remainder()) {
            *place = *byte;
        }
        self.number(u64::from_le_bytes(word));
        self.number(text.len() as u64);
    }

    pub fn number(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }

    pub fn finish(&self) -> u64 {
        let x = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        x ^ (x >> 32)
    }
}

impl Default for Digest {
    fn default() -> Self {
        Digest::new()
    }
}

pub fn digest(text: &[u8]) -> u64 {
    let mut digest = Digest::new();
    digest.add(text);
    digest.finish()
}

/// A line in pieces, the values of `sc` parameters left out.
fn without_cookies(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    const NAME: &[u8] = b";sc=";
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let found = text.windows(NAME.len()).position(|window| window == NAME);
        let Some(end) = found.map(|at| at + NAME.len()) else {
            return Some(text);
        };
        let (piece, value) = text.split_at(end);
        let len = value.iter().take_while(|b| b.is_ascii_alphanumeric());
        rest = value.get(len.count()..);
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &[u8] = b"INVITE sip:bob@b.example;x=1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport, SIP/2.0/UDP a;branch=z9hG4bK0\r\n\
        f: \"a, <b>\" <sip:a@b>;tag=t1\r\nTo: <sip:bob@b.example>\r\nCall-ID: c1\r\nCSeq: 7  INVITE\r\nX: a\r\n b\r\nContent-Length: 3\r\n\r\nxyzrest";

    #[test]
    fn a_message_is_taken_apart() {
        let m = Reading::new(INVITE.to_vec());
        assert_eq!(m.method(), b"INVITE");
        assert_eq!(m.uri(), b"sip:bob@b.example;x=1");
        assert_eq!(m.vias.len(), 2);
        assert_eq!(m.via(1), b"SIP/2.0/UDP a;branch=z9hG4bK0");
        assert_eq!(sent_by(m.via(0)), Some(b"192.0.2.1:5060".to_vec()));
        let spaced = sent_by(b"SIP / 2.0 / UDP  192.0.2.1 : 5060 ;branch=z9hG4bKa");
        assert_eq!(spaced, Some(b"192.0.2.1:5060".to_vec()));
        assert_eq!(m.tag(Field::From), Some(&b"t1"[..]));
        assert_eq!(m.tag(Field::To), None);
        assert_eq!(m.cseq(), Some((7, &b"INVITE"[..])));
        assert_eq!(m.body(), b"xyz");
        assert!(!m.is_broken());
    }

    #[test]
    fn digests_see_what_they_should() {
        let text = String::from_utf8(INVITE.to_vec()).unwrap();
        let m = Reading::new(INVITE.to_vec());
        let change = |from: &str, to: &str| Reading::new(text.replace(from, to).into_bytes());
        assert_eq!(change("branch=z9hG4bK0", "branch=z").trunk, m.trunk);
        assert_ne!(change("branch=z9hG4bK1", "branch=z").key, m.key);
        assert_ne!(change("X: a", "X: A").core, m.core);
        assert_ne!(change("xyzrest", "xyyrest").core, m.core);
        assert_eq!(change("xyzrest", "xyz").core, m.core);
        let moved = change("X: a", "Max-Forwards: 3\r\nX: a");
        assert_eq!(moved.core, m.core);
        assert_ne!(moved.trunk, m.trunk);
        let bare = change("Content-Length: 3\r\n\r\nxyzrest", "\r\nxyz");
        assert_eq!(bare.core, m.core);
        let recorded = |value: &str| change("X: a", &format!("Record-Route: {value}\r\nX: a"));
        let m = recorded("<sip:h;lr;sc=0a>, <sip:g;sc=1;lr>");
        assert_eq!(recorded("<sip:h;lr;sc=77b>, <sip:g;sc=;lr>").trunk, m.trunk);
        assert_ne!(recorded("<sip:h;lr;sc=0a>, <sip:f;sc=1;lr>").trunk, m.trunk);
        assert_ne!(recorded("<sip:h;lr;sc=0a>, <sip:g;sc=1>").trunk, m.trunk);
    }

    #[test]
    fn what_is_not_a_message_is_broken() {
        for cut in [0, 3, 30, 100, INVITE.len() - 12] {
            assert!(Reading::new(INVITE[..cut].to_vec()).is_broken(), "{cut}");
        }
    }

    #[test]
    fn of_a_response_what_a_proxy_needs_is_enough() {
        let text = String::from_utf8(INVITE.to_vec()).unwrap();
        let text = text.replace("INVITE sip:bob@b.example;x=1 SIP/2.0", "SIP/2.0 200 OK");
        let whole = Reading::new(text.clone().into_bytes());
        for line in ["no colon", "a b: c", ": d", "\u{e4}: e", "f\r\n g: h"] {
            let more = text.replace("X: a", &format!("{line}\r\nX: a"));
            let more = Reading::new(more.into_bytes());
            assert!(!more.is_broken());
            assert_eq!((more.trunk, more.key), (whole.trunk, whole.key), "{line}");
        }
        let without = |name: &str| Reading::new(text.replace(name, "Y:").into_bytes());
        for name in ["f:", "To:", "Call-ID:"] {
            assert!(!without(name).is_broken(), "{name}");
        }
        assert!(without("CSeq:").is_broken() && without("Via:").is_broken());
    }

    #[test]
    fn uris_compare() {
        let a = b"sip:u@H.example:5060;transport=udp;x=1";
        assert!(same_uri(a, b"sip:u@h.example:5060;transport=udp"));
        assert!(!same_uri(a, b"sip:u@h.example:5060"));
        assert!(!same_uri(a, b"sip:u@h.example;transport=udp"));
        assert!(!same_uri(a, b"sip:u@h.example:5060;transport=udp;x=2"));
        assert_eq!(
            Address::of(b"sip:u@[2001:db8::1]:70;lr").unwrap().socket(),
            Some("[2001:db8::1]:70".parse().unwrap())
        );
    }
}
