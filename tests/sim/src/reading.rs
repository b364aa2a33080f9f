//! The laboratory's own reading of a message (RFC 3261 §7): naive, allocating, and sharing nothing with the server's parser,
//! so that a mistake in one is seen by the other.

use super::hashing::{Digest, digest, without_cookies};
use super::text::{Part, find, is_name, number, param, sent_by, split, trim, trim_end, trim_part};

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
        matches!(self, Field::ContentLength | Field::Authorization | Field::ProxyAuthorization | Field::AssertedIdentity)
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
            let (next, end) = next_line(bytes, at, is_response)?;
            at = end;
            let line = match next {
                Next::Line(line) => line,
                Next::Unreadable => continue,
                Next::End => break,
            };
            match line.field {
                Field::Via => {
                    split(bytes, line.value.clone(), b',', &mut self.vias);
                    // A comma too many separates nothing.
                    self.vias.retain(|via| !via.is_empty());
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
        self.read_key(is_response)?;
        (is_response || self.value(Field::To).is_some()).then_some(())
    }

    fn read_key(&mut self, is_response: bool) -> Option<()> {
        let bytes = &self.bytes[..];
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
        Some(())
    }

    pub fn is_broken(&self) -> bool {
        self.start == Start::Broken
    }

    pub fn is_request(&self) -> bool {
        matches!(self.start, Start::Request { .. })
    }

    /// 0 if it is no response.
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

    /// What a CANCEL has from its INVITE (§9.1): Request-URI, Call-ID, To, From with its tag, the number of CSeq, and the branch.
    pub fn names_of_invite(&self) -> u64 {
        let mut names = Digest::new();
        names.add(self.uri());
        for field in [Field::CallId, Field::To, Field::From] {
            names.add(self.value(field).unwrap_or(b""));
        }
        names.number(self.cseq().map_or(0, |(n, _)| n));
        names.number(self.branch);
        names.finish()
    }

    /// The same for all copies of a request, wherever they are on their way.
    pub fn same_request(&self) -> u64 {
        let mut name = Digest::new();
        name.add(self.call_id());
        name.add(self.method());
        name.number(self.cseq().map_or(0, |(n, _)| n));
        name.finish()
    }

    /// True if the SIP-Version is written as it must be sent (§7.1).
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

/// What stands between a place and the end of its line.
enum Next {
    Line(Line),
    /// In a response: it makes it no worse, and is left out of what is passed on.
    Unreadable,
    /// The empty line, behind which the body begins.
    End,
}

/// The header line at `at`, with its folds, and where the next one begins.
fn next_line(bytes: &[u8], at: usize, is_response: bool) -> Option<(Next, usize)> {
    let mut end = find(bytes, at, b"\r\n")?;
    if end == at {
        return Some((Next::End, end + 2));
    }
    let first_end = end;
    while matches!(bytes.get(end + 2), Some(b' ' | b'\t')) {
        end = find(bytes, end + 2, b"\r\n")?;
    }
    let colon = bytes[at..first_end].iter().position(|b| *b == b':');
    let colon = match colon.map(|colon| at + colon) {
        Some(colon) if !is_response || is_name(trim_end(&bytes[at..colon])) => colon,
        _ if is_response => return Some((Next::Unreadable, end + 2)),
        _ => at + bytes[at..end].iter().position(|b| *b == b':')?,
    };
    let line = Line { field: field(trim(&bytes[at..colon])), whole: at..end + 2, value: trim_part(bytes, colon + 1..end) };
    Some((Next::Line(line), end + 2))
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
    Some(Start::Request { method: at..at + first, uri: at + first + 1..at + second })
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
}
