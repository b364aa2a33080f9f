//! DNS questions and their results: types that the rules, the outbox and the resolver share.

use std::net::IpAddr;

/// The kinds of records by which SIP servers are found (RFC 3263).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RecordType {
    Naptr,
    Srv,
    A,
    Aaaa,
}

impl RecordType {
    /// As zone files write it.
    pub const fn name(self) -> &'static str {
        match self {
            RecordType::Naptr => "NAPTR",
            RecordType::Srv => "SRV",
            RecordType::A => "A",
            RecordType::Aaaa => "AAAA",
        }
    }
}

/// The longest name: 255 bytes on the wire are 253 of text (RFC 1035 §2.3.4).
const LONGEST: usize = 253;

/// A domain name: lower-case, without a trailing dot. It needs no allocation.
#[derive(Clone, Copy)]
pub struct DomainName {
    bytes: [u8; LONGEST],
    len: u8,
}

impl DomainName {
    /// Appends `text` to `prefix`, which ends with a dot or is empty. `None` if the result is not a name that could be asked for:
    /// an empty or too long label, a byte that no host name has.
    pub fn new(prefix: &[u8], text: &[u8]) -> Option<DomainName> {
        let text = text.strip_suffix(b".").unwrap_or(text);
        let len = prefix.len() + text.len();
        let mut name = DomainName { bytes: [0; LONGEST], len: u8::try_from(len).ok()? };
        let (first, rest) = name.bytes.get_mut(..len)?.split_at_mut_checked(prefix.len())?;
        first.copy_from_slice(prefix);
        rest.copy_from_slice(text);
        name.bytes.make_ascii_lowercase();
        let label = |label: &[u8]| {
            let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            (1..=63).contains(&label.len()) && label.iter().all(fits)
        };
        let good = name.as_bytes().split(|byte| *byte == b'.').all(label);
        good.then_some(name)
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl PartialEq for DomainName {
    fn eq(&self, other: &DomainName) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for DomainName {}

impl std::fmt::Display for DomainName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

impl std::fmt::Debug for DomainName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// A question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question {
    pub name: DomainName,
    pub kind: RecordType,
}

/// The result of a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub question: Question,
    pub outcome: Outcome,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// At least one record, valid for this long.
    Found {
        records: Records,
        ttl_ms: u64,
    },
    /// There is no such record, and will be none for this long (RFC 2308).
    Nothing {
        /// The name exists, with records of other kinds.
        exists: bool,
        ttl_ms: u64,
    },
    Failed(Failure),
}

/// Why a question has no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// No server answered in time.
    Silence,
    /// A server answered that it cannot, or will not, answer the question.
    Server,
    /// Too many questions are in progress.
    Busy,
}

/// Records of one kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Records {
    Naptr(Vec<Naptr>),
    Srv(Vec<Srv>),
    /// Of A or AAAA records.
    Addresses(Vec<IpAddr>),
}

impl Records {
    pub fn len(&self) -> usize {
        match self {
            Records::Naptr(list) => list.len(),
            Records::Srv(list) => list.len(),
            Records::Addresses(list) => list.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// RFC 3403 §4.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Naptr {
    pub order: u16,
    pub preference: u16,
    pub flags: Vec<u8>,
    /// For example `SIP+D2U`.
    pub service: Vec<u8>,
    pub regexp: Vec<u8>,
    /// A name.
    pub replacement: Vec<u8>,
}

/// RFC 2782.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Srv {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    /// A name; empty (the root) means that the service is not available.
    pub target: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(prefix: &str, text: &str) -> Option<String> {
        DomainName::new(prefix.as_bytes(), text.as_bytes()).map(|name| name.to_string())
    }

    #[test]
    fn names_are_compared_as_the_system_does() {
        assert_eq!(name("", "Example.COM."), Some("example.com".into()));
        assert_eq!(name("_sip._udp.", "a-1.example"), Some("_sip._udp.a-1.example".into()));
    }

    #[test]
    fn what_nobody_could_be_asked_for_is_no_name() {
        for text in ["", ".", "a..b", ".a", "a b", "a\0", "exa%6dple", "[::1]", "ä.example"] {
            assert_eq!(name("", text), None, "{text:?}");
        }
        let label = "l".repeat(63);
        assert!(name("", &format!("{label}.example")).is_some());
        assert!(name("", &format!("{label}l.example")).is_none());
        // 63 + 1 + 63 + 1 + 63 + 1 + 61 = 253.
        let long = format!("{label}.{label}.{label}.{}", "l".repeat(61));
        assert_eq!(name("", &long).map(|name| name.len()), Some(253));
        assert!(name("", &format!("{long}l")).is_none());
        assert!(name("_sips._tcp.", &long).is_none());
        assert!(name("", &"l.".repeat(200)).is_none());
    }
}
