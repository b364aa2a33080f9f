//! A plain reading of SIP messages for assertions. It shares nothing with the server's own parser, so that a fault there cannot hide itself here.

use std::fmt;

/// One SIP message as it stood on the wire.
#[derive(Clone)]
pub struct Message {
    pub start: String,
    /// Names in lower case and long form, values unfolded and trimmed, in the order of the wire.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub raw: Vec<u8>,
}

impl Message {
    /// None for what is not shaped like SIP at all.
    pub fn read(bytes: &[u8]) -> Option<Message> {
        let end = find(bytes, b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let start = lines.next()?.to_owned();
        if !start.starts_with("SIP/2.0 ") && !start.ends_with(" SIP/2.0") {
            return None;
        }
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in lines {
            if line.starts_with([' ', '\t']) {
                let (_, value) = headers.last_mut()?;
                value.push(' ');
                value.push_str(line.trim());
            } else {
                let (name, value) = line.split_once(':')?;
                headers.push((long_form(name.trim()), value.trim().to_owned()));
            }
        }
        Some(Message { start, headers, body: bytes[end + 4..].to_vec(), raw: bytes.to_vec() })
    }

    pub fn status(&self) -> Option<u16> {
        self.start.strip_prefix("SIP/2.0 ")?.split(' ').next()?.parse().ok()
    }

    pub fn is_request(&self) -> bool {
        self.status().is_none()
    }

    /// The method of the request, or of the request that this response answers.
    pub fn method(&self) -> &str {
        if self.is_request() {
            self.start.split(' ').next().unwrap_or_default()
        } else {
            self.header("cseq").and_then(|value| value.split_whitespace().nth(1)).unwrap_or_default()
        }
    }

    pub fn is(&self, method: &str) -> bool {
        self.is_request() && self.method() == method
    }

    /// Is this a response with `status` to a request of `method`?
    pub fn answers(&self, method: &str, status: u16) -> bool {
        self.status() == Some(status) && self.method() == method
    }

    pub fn is_final_for(&self, method: &str) -> bool {
        self.status().is_some_and(|status| status >= 200) && self.method() == method
    }

    pub fn request_uri(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The first value of a header field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Every value of a header field, comma lists taken apart.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.headers.iter().filter(|(n, _)| n == name).flat_map(|(_, value)| split_list(value)).collect()
    }

    pub fn vias(&self) -> Vec<Via> {
        self.all("via").iter().map(|value| Via::read(value)).collect()
    }

    /// The topmost Via; an empty one where there is none.
    pub fn top_via(&self) -> Via {
        self.vias().into_iter().next().unwrap_or_default()
    }

    pub fn call_id(&self) -> &str {
        self.header("call-id").unwrap_or_default()
    }

    pub fn cseq(&self) -> u32 {
        self.header("cseq").and_then(|value| value.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or_default()
    }

    pub fn max_forwards(&self) -> Option<u32> {
        self.header("max-forwards")?.parse().ok()
    }

    pub fn to_tag(&self) -> Option<String> {
        parameter(self.header("to")?, "tag")
    }

    /// The URIs of Contact, without angle brackets and header parameters.
    pub fn contacts(&self) -> Vec<String> {
        self.all("contact").iter().map(|value| uri_of(value)).collect()
    }

    /// Every option tag or token of a list header, e.g. `Allow`.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.all(name).iter().any(|value| value.eq_ignore_ascii_case(token))
    }
}

/// Cuts the bytes of a stream into messages (RFC 3261 §18.3). What is not SIP stays where it is and is never a message.
#[derive(Default)]
pub struct Framer {
    bytes: Vec<u8>,
}

impl Framer {
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    pub fn take(&mut self) -> Option<Message> {
        let blank = self.bytes.iter().take_while(|byte| b"\r\n".contains(byte));
        let blank = blank.count();
        self.bytes.drain(..blank);
        let head = find(&self.bytes, b"\r\n\r\n")? + 4;
        let message = Message::read(&self.bytes[..head])?;
        let body: usize = message.header("content-length")?.parse().ok()?;
        let whole = self.bytes.get(..head + body).and_then(Message::read)?;
        self.bytes.drain(..head + body);
        Some(whole)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(&self.raw))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Via {
    /// As written: `UDP`, `TCP`, `TLS`.
    pub transport: String,
    pub sent_by: String,
    pub branch: String,
    pub received: Option<String>,
    pub rport: Option<String>,
}

impl Via {
    fn read(value: &str) -> Via {
        let (protocol_and_host, _) = value.split_once(';').unwrap_or((value, ""));
        let host = protocol_and_host.split_whitespace().last().unwrap_or_default();
        let transport = protocol_and_host.split('/').nth(2).and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
        Via {
            transport: transport.to_owned(),
            sent_by: with_port(host),
            branch: parameter(value, "branch").unwrap_or_default(),
            received: parameter(value, "received"),
            rport: parameter(value, "rport"),
        }
    }
}

/// `host:port`, with the port that SIP means where none is written.
pub fn with_port(host: &str) -> String {
    let port = match host.rfind(']') {
        Some(end) => host[end..].contains(':'),
        None => host.contains(':'),
    };
    if port { host.to_owned() } else { format!("{host}:5060") }
}

/// Host and port of a SIP URI, without user and parameters.
pub fn host_of(uri: &str) -> String {
    let after_scheme = uri.split_once(':').map_or(uri, |(_, rest)| rest);
    let host = after_scheme.rsplit('@').next().unwrap_or_default();
    with_port(host.split([';', '?']).next().unwrap_or_default())
}

/// The value of a header parameter: what stands after the angle brackets, or after the first semicolon where there are none.
pub fn parameter(value: &str, name: &str) -> Option<String> {
    let after = match value.rfind('>') {
        Some(end) => &value[end + 1..],
        None => value,
    };
    after.split(';').skip(1).find_map(|piece| {
        let (key, value) = piece.split_once('=').unwrap_or((piece, ""));
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"').to_owned())
    })
}

/// The URI of a name-addr or addr-spec.
pub fn uri_of(value: &str) -> String {
    match (value.find('<'), value.rfind('>')) {
        (Some(start), Some(end)) if start < end => value[start + 1..end].to_owned(),
        _ => value.split(';').next().unwrap_or_default().trim().to_owned(),
    }
}

fn split_list(value: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    let (mut piece, mut quoted, mut angle) = (String::new(), false, false);
    for letter in value.chars() {
        match letter {
            '"' => quoted = !quoted,
            '<' if !quoted => angle = true,
            '>' if !quoted => angle = false,
            ',' if !quoted && !angle => {
                pieces.push(std::mem::take(&mut piece).trim().to_owned());
                continue;
            }
            _ => {}
        }
        piece.push(letter);
    }
    if !piece.trim().is_empty() {
        pieces.push(piece.trim().to_owned());
    }
    pieces
}

fn long_form(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "v" => "via",
        "f" => "from",
        "t" => "to",
        "i" => "call-id",
        "m" => "contact",
        "l" => "content-length",
        "c" => "content-type",
        "k" => "supported",
        "s" => "subject",
        _ => return name,
    }
    .to_owned()
}

pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[test]
fn reads_what_sip_allows() {
    let message = Message::read(
        b"SIP/2.0 200 OK\r\nv: SIP/2.0/UDP 192.0.2.1:5061;branch=z9hG4bKa;received=192.0.2.7;rport=4, SIP/2.0/UDP h;branch=b\r\n\
          t: <sip:a@b;x=1>;tag=77\r\nm: \"A, B\" <sip:c@d,e>;q=0.5,\r\n <sip:f@g>\r\nCSeq: 7 INVITE\r\n\r\nbody",
    )
    .expect("a message");
    assert_eq!(message.status(), Some(200));
    assert_eq!((message.method(), message.cseq()), ("INVITE", 7));
    assert_eq!(message.to_tag().as_deref(), Some("77"));
    assert_eq!(message.contacts(), ["sip:c@d,e", "sip:f@g"]);
    let vias = message.vias();
    assert_eq!(vias.len(), 2);
    assert_eq!(vias[0].sent_by, "192.0.2.1:5061");
    assert_eq!(vias[0].transport, "UDP");
    assert_eq!(vias[0].received.as_deref(), Some("192.0.2.7"));
    assert_eq!(vias[1].branch, "b");
    assert_eq!(vias[1].sent_by, "h:5060");
    assert_eq!(host_of("sip:a@[::1]:7;lr"), "[::1]:7");
    assert_eq!(host_of("sip:[::1];lr"), "[::1]:5060");
    assert_eq!(message.body, b"body");
    assert!(Message::read(b"hello\r\n\r\n").is_none());
}
