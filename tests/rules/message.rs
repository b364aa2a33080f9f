//! Messages for tests: built as text, and read by an own small reader, so that the crate's parser does not judge itself.

use std::cell::Cell;
use std::fmt;
use strowger::base::Transport;

/// A number that no other call in this test gave; the same in each run, so that a test can be repeated to the byte.
pub fn unique() -> u64 {
    thread_local!(static LAST: Cell<u64> = const { Cell::new(0) });
    LAST.set(LAST.get() + 1);
    LAST.get()
}

/// A request under construction.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub uri: String,
    /// Header lines in order, without their CRLF.
    pub lines: Vec<String>,
    pub body: Vec<u8>,
}

impl Request {
    /// From Alice at 10.0.1.1, with a Call-ID and a branch of its own.
    pub fn new(method: &str, uri: &str) -> Request {
        let n = unique();
        let lines = [
            format!("Via: SIP/2.0/UDP 10.0.1.1:5060;branch=z9hG4bKalice{n}"),
            "Max-Forwards: 70".into(),
            "From: \"Alice\" <sip:alice@example.com>;tag=alice".into(),
            "To: <sip:bob@example.com>".into(),
            format!("Call-ID: call{n}"),
            format!("CSeq: 1 {method}"),
        ];
        Request { method: method.into(), uri: uri.into(), lines: lines.into(), body: Vec::new() }
    }

    /// An INVITE for Bob with a body.
    pub fn invite() -> Request {
        Request::new("INVITE", "sip:bob@example.com")
            .add("Contact: <sip:alice@10.0.1.1:5060>")
            .body("v=0\r\no=- 1 1 IN IP4 10.0.1.1\r\n")
    }

    /// Replaces all lines of a name by one, in the first one's place.
    pub fn set(mut self, name: &str, value: &str) -> Request {
        let line = format!("{name}: {value}");
        let of = |l: &String| l.split(':').next().is_some_and(|n| n == name);
        match self.lines.iter().position(of) {
            Some(place) => {
                self.lines[place] = line;
                let mut at = 0;
                self.lines.retain(|l| {
                    at += 1;
                    at - 1 <= place || !of(l)
                });
                self
            }
            None => self.add(&line),
        }
    }

    pub fn without(mut self, name: &str) -> Request {
        self.lines.retain(|l| l.split(':').next().is_none_or(|n| n != name));
        self
    }

    /// Appends a line.
    pub fn add(mut self, line: &str) -> Request {
        self.lines.push(line.into());
        self
    }

    /// Puts a line on top.
    pub fn top(mut self, line: &str) -> Request {
        self.lines.insert(0, line.into());
        self
    }

    pub fn via(self, sent_by: &str, branch: &str) -> Request {
        self.set("Via", &format!("SIP/2.0/UDP {sent_by};branch={branch}"))
    }

    /// The same, by another transport than UDP.
    pub fn by(mut self, transport: Transport) -> Request {
        let via = self.lines.iter_mut().find(|line| line.starts_with("Via:"));
        let via = via.expect("a Via");
        *via = via.replacen("SIP/2.0/UDP", &format!("SIP/2.0/{}", transport.name()), 1);
        self
    }

    pub fn from(self, value: &str) -> Request {
        self.set("From", value)
    }

    pub fn to(self, value: &str) -> Request {
        self.set("To", value)
    }

    pub fn call_id(self, value: &str) -> Request {
        self.set("Call-ID", value)
    }

    pub fn cseq(self, number: u32) -> Request {
        let method = self.method.clone();
        self.set("CSeq", &format!("{number} {method}"))
    }

    pub fn body(mut self, body: &str) -> Request {
        self.body = body.as_bytes().to_vec();
        self
    }

    /// The CANCEL of this request (§9.1).
    pub fn cancel(&self) -> Request {
        self.same_transaction("CANCEL")
    }

    /// The ACK to a non-2xx of this request (§17.1.1.3).
    pub fn ack(&self, answer: &Text) -> Request {
        let to = answer.header("To").expect("a To").to_string();
        self.same_transaction("ACK").to(&to)
    }

    fn same_transaction(&self, method: &str) -> Request {
        let keep = ["Via", "From", "To", "Call-ID", "CSeq", "Max-Forwards", "Route"];
        let mut request = self.clone();
        request.method = method.into();
        request.body.clear();
        let mut first_via = true;
        request.lines.retain(|l| {
            let name = l.split(':').next().unwrap_or_default();
            let via = name == "Via";
            let kept = keep.contains(&name) && (!via || first_via);
            first_via &= !via;
            kept
        });
        let number = self.cseq_number();
        request.set("CSeq", &format!("{number} {method}"))
    }

    fn cseq_number(&self) -> u32 {
        let line = self.lines.iter().find(|l| l.starts_with("CSeq:"));
        let number = line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok());
        number.expect("a CSeq")
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = format!("{} {} SIP/2.0\r\n", self.method, self.uri).into_bytes();
        for line in &self.lines {
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", self.body.len()).as_bytes());
        out.extend_from_slice(&self.body);
        out
    }
}

/// A message that was sent, as bytes and as header lines.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    pub bytes: Vec<u8>,
    pub start_line: String,
    /// Name as it stands, and value.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Text {
    pub fn new(bytes: &[u8]) -> Text {
        let end =
            bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or_else(|| panic!("no end: {}", String::from_utf8_lossy(bytes)));
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        // Folded lines belong to the one before.
        let head = head.replace("\r\n ", "  ").replace("\r\n\t", "  ");
        let mut lines = head.split("\r\n");
        let start_line = lines.next().unwrap_or_default().to_string();
        let headers = lines
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap_or((line, ""));
                (name.trim().to_string(), value.trim().to_string())
            })
            .collect();
        Text { bytes: bytes.to_vec(), start_line, headers, body: bytes[end + 4..].to_vec() }
    }

    /// 0 for a request.
    pub fn status(&self) -> u16 {
        let mut words = self.start_line.split(' ');
        match words.next() {
            Some("SIP/2.0") => words.next().and_then(|w| w.parse().ok()).expect("a status"),
            _ => 0,
        }
    }

    pub fn reason(&self) -> &str {
        self.start_line.splitn(3, ' ').nth(2).unwrap_or_default()
    }

    pub fn method(&self) -> &str {
        self.start_line.split(' ').next().unwrap_or_default()
    }

    pub fn uri(&self) -> &str {
        self.start_line.split(' ').nth(1).unwrap_or_default()
    }

    /// `180 INVITE` or `INVITE`.
    pub fn gist(&self) -> String {
        match self.status() {
            0 => self.method().to_string(),
            status => {
                let cseq = self.header("CSeq").unwrap_or_default();
                format!("{status} {}", cseq.split(' ').nth(1).unwrap_or_default())
            }
        }
    }

    /// The values of all lines of a name, compact forms too, one for each line.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let short = match name {
            "Via" => "v",
            "From" => "f",
            "To" => "t",
            "Call-ID" => "i",
            "Contact" => "m",
            "Content-Length" => "l",
            "Supported" => "k",
            _ => "-",
        };
        self.headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name) || n.eq_ignore_ascii_case(short))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// A parameter of the topmost Via.
    pub fn via_param(&self, name: &str) -> Option<&str> {
        param(self.header("Via")?.split(',').next()?, name)
    }

    pub fn branch(&self) -> &str {
        self.via_param("branch").expect("a branch")
    }

    /// A response to this request, as a user agent makes it.
    pub fn answer(&self, status: u16) -> Answer {
        let mut lines = Vec::new();
        for via in self.all("Via") {
            lines.push(format!("Via: {via}"));
        }
        for record in self.all("Record-Route") {
            lines.push(format!("Record-Route: {record}"));
        }
        let value = |name: &str| self.header(name).unwrap_or_default().to_string();
        lines.push(format!("From: {}", value("From")));
        lines.push(format!("To: {}", value("To")));
        lines.push(format!("Call-ID: {}", value("Call-ID")));
        lines.push(format!("CSeq: {}", value("CSeq")));
        Answer { status, reason: "Whatever".into(), lines, tag: String::new(), body: String::new() }.tag(if status == 100 {
            ""
        } else {
            "callee"
        })
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(&self.bytes))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A parameter behind `;` in a header value.
pub fn param<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    value.split(';').skip(1).find_map(|p| {
        let (n, v) = p.split_once('=').unwrap_or((p, ""));
        n.trim().eq_ignore_ascii_case(name).then(|| v.trim())
    })
}

/// A response under construction.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    reason: String,
    pub lines: Vec<String>,
    /// The tag that was put on To.
    tag: String,
    body: String,
}

impl Answer {
    /// The To tag, where the request had none.
    pub fn tag(mut self, tag: &str) -> Answer {
        if !self.tag.is_empty() {
            let old = format!(";tag={}", self.tag);
            self.lines.iter_mut().filter(|line| line.starts_with("To:")).for_each(|line| *line = line.replace(&old, ""));
        }
        let to = self.lines.iter_mut().find(|line| line.starts_with("To:"));
        if let Some(to) = to {
            let bare: String = to.split_whitespace().collect();
            if !tag.is_empty() && !bare.contains(";tag=") {
                to.push_str(&format!(";tag={tag}"));
                self.tag = tag.into();
            }
        }
        self
    }

    pub fn add(mut self, line: &str) -> Answer {
        self.lines.push(line.into());
        self
    }

    /// Adds a line above all others.
    pub fn top(mut self, line: &str) -> Answer {
        self.lines.insert(0, line.into());
        self
    }

    pub fn body(mut self, body: &str) -> Answer {
        self.body = body.into();
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = format!("SIP/2.0 {} {}\r\n", self.status, self.reason);
        for line in &self.lines {
            out.push_str(line);
            out.push_str("\r\n");
        }
        out.push_str(&format!("Content-Length: {}\r\n\r\n", self.body.len()));
        out.push_str(&self.body);
        out.into_bytes()
    }
}

/// What can be put on the wire.
pub trait Wire {
    fn wire(&self) -> Vec<u8>;
}

impl Wire for Request {
    fn wire(&self) -> Vec<u8> {
        self.bytes()
    }
}

impl Wire for Answer {
    fn wire(&self) -> Vec<u8> {
        self.bytes()
    }
}

impl Wire for [u8] {
    fn wire(&self) -> Vec<u8> {
        self.to_vec()
    }
}

impl Wire for Vec<u8> {
    fn wire(&self) -> Vec<u8> {
        self.clone()
    }
}

impl Wire for str {
    fn wire(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
}

impl<T: Wire + ?Sized> Wire for &T {
    fn wire(&self) -> Vec<u8> {
        (*self).wire()
    }
}
