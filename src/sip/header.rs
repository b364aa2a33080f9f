//! Header field names (RFC 3261 §20, the compact forms of §7.3.3 and the extensions met at a proxy) and header lines.

use crate::base::Span;

/// One header line, folded lines joined to it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Header<'a> {
    pub name: Name,
    /// The name as written.
    pub raw_name: &'a [u8],
    /// The field value without white space around it; folds inside it are kept.
    pub value: &'a [u8],
    /// The whole line with its CRLF.
    pub line: Span,
    pub value_span: Span,
}

macro_rules! names {
    ($($variant:ident $canonical:literal,)*) => {
        /// A header field name. Compact forms stand for the long ones; case does not matter.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
        #[repr(u8)]
        pub enum Name {
            $($variant,)*
            /// Any other token.
            #[default]
            Other,
        }

        const ALL: &[(Name, &str)] = &[$((Name::$variant, $canonical),)*];
    };
}

names! {
    Via "Via",
    From "From",
    To "To",
    CallId "Call-ID",
    CSeq "CSeq",
    Contact "Contact",
    MaxForwards "Max-Forwards",
    Route "Route",
    RecordRoute "Record-Route",
    Require "Require",
    ProxyRequire "Proxy-Require",
    Supported "Supported",
    Unsupported "Unsupported",
    Expires "Expires",
    MinExpires "Min-Expires",
    ContentLength "Content-Length",
    ContentType "Content-Type",
    ContentEncoding "Content-Encoding",
    ContentDisposition "Content-Disposition",
    ContentLanguage "Content-Language",
    Authorization "Authorization",
    ProxyAuthorization "Proxy-Authorization",
    WwwAuthenticate "WWW-Authenticate",
    ProxyAuthenticate "Proxy-Authenticate",
    AuthenticationInfo "Authentication-Info",
    Path "Path",
    ServiceRoute "Service-Route",
    MaxBreadth "Max-Breadth",
    Timestamp "Timestamp",
    RetryAfter "Retry-After",
    Allow "Allow",
    AllowEvents "Allow-Events",
    Accept "Accept",
    AcceptEncoding "Accept-Encoding",
    AcceptLanguage "Accept-Language",
    AcceptContact "Accept-Contact",
    RejectContact "Reject-Contact",
    RequestDisposition "Request-Disposition",
    Event "Event",
    SubscriptionState "Subscription-State",
    Reason "Reason",
    Warning "Warning",
    Date "Date",
    UserAgent "User-Agent",
    Server "Server",
    Subject "Subject",
    Organization "Organization",
    Priority "Priority",
    Privacy "Privacy",
    ReferTo "Refer-To",
    ReferredBy "Referred-By",
    Replaces "Replaces",
    ReplyTo "Reply-To",
    InReplyTo "In-Reply-To",
    SessionExpires "Session-Expires",
    MinSe "Min-SE",
    RSeq "RSeq",
    RAck "RAck",
    SipETag "SIP-ETag",
    SipIfMatch "SIP-If-Match",
    AlertInfo "Alert-Info",
    CallInfo "Call-Info",
    ErrorInfo "Error-Info",
    Identity "Identity",
    IdentityInfo "Identity-Info",
    MimeVersion "MIME-Version",
    PAssertedIdentity "P-Asserted-Identity",
    PPreferredIdentity "P-Preferred-Identity",
    HistoryInfo "History-Info",
    Diversion "Diversion",
    FlowTimer "Flow-Timer",
}

impl Name {
    pub(super) const COUNT: usize = Name::Other as usize + 1;

    /// Returns the name that `token` spells, in long or compact form.
    pub fn parse(token: &[u8]) -> Name {
        match token.len() {
            1 => COMPACT[usize::from(token[0])],
            2..=MAX_LEN => {
                let slot = &TABLE[hash(token)];
                // Word by word: comparing the whole would stall until the words are stored.
                let [a, b, c] = words(token);
                let differs = (a ^ slot.words[0]) | (b ^ slot.words[1]) | (c ^ slot.words[2]);
                if slot.len as usize == token.len() && differs == 0 { slot.name } else { Name::Other }
            }
            _ => Name::Other,
        }
    }

    /// The long form as RFCs write it; "" for `Other`.
    pub fn canonical(self) -> &'static str {
        ALL.get(self as usize).map_or("", |(_, canonical)| canonical)
    }
}

/// RFC 3261 §7.3.3 and the registry of compact forms.
const COMPACT_FORMS: &[(u8, Name)] = &[
    (b'a', Name::AcceptContact),
    (b'b', Name::ReferredBy),
    (b'c', Name::ContentType),
    (b'd', Name::RequestDisposition),
    (b'e', Name::ContentEncoding),
    (b'f', Name::From),
    (b'i', Name::CallId),
    (b'j', Name::RejectContact),
    (b'k', Name::Supported),
    (b'l', Name::ContentLength),
    (b'm', Name::Contact),
    (b'n', Name::IdentityInfo),
    (b'o', Name::Event),
    (b'r', Name::ReferTo),
    (b's', Name::Subject),
    (b't', Name::To),
    (b'u', Name::AllowEvents),
    (b'v', Name::Via),
    (b'x', Name::SessionExpires),
    (b'y', Name::Identity),
];

static COMPACT: [Name; 256] = compact();

const fn compact() -> [Name; 256] {
    let mut table = [Name::Other; 256];
    let mut i = 0;
    while i < COMPACT_FORMS.len() {
        let (letter, name) = COMPACT_FORMS[i];
        table[letter as usize] = name;
        table[letter.to_ascii_uppercase() as usize] = name;
        i += 1;
    }
    table
}

/// The longest known name, rounded up to whole words of eight bytes.
const MAX_LEN: usize = 24;
const SLOTS: usize = 256;

/// One place of the perfect hash table: the words of the lower-case name, its length, and the name.
struct Slot {
    words: [u64; 3],
    len: u8,
    name: Name,
}

static TABLE: [Slot; SLOTS] = table();

/// The slot of a token of two bytes or more. Length, first, last and middle byte distinguish all known names; `table` does not
/// compile if a new name breaks that, and other factors must then be found.
#[inline(always)]
const fn hash(token: &[u8]) -> usize {
    let len = token.len();
    let first = (token[0] | 0x20) as usize;
    let last = (token[len - 1] | 0x20) as usize;
    let middle = (token[len / 2] | 0x20) as usize;
    (first * FACTORS[0] + last * FACTORS[1] + middle * FACTORS[2] + len * FACTORS[3]) % SLOTS
}

const FACTORS: [usize; 4] = [245, 143, 233, 131];

const fn table() -> [Slot; SLOTS] {
    let mut table = [const { Slot { words: [0; 3], len: 0, name: Name::Other } }; SLOTS];
    let mut i = 0;
    while i < ALL.len() {
        let (name, canonical) = ALL[i];
        let token = canonical.as_bytes();
        assert!(token.len() >= 2 && token.len() <= MAX_LEN);
        let place = hash(token);
        assert!(table[place].len == 0, "two header names in one slot");
        table[place] = Slot { words: words(token), len: token.len() as u8, name };
        i += 1;
    }
    table
}

/// All bytes of a token of 2 to 24 bytes in three words, overlapping rather than padded, so that they are plain loads. Setting bit
/// 5 folds the case of letters; it would also turn a CR into a hyphen, but a token contains no CR.
#[inline(always)]
const fn words(token: &[u8]) -> [u64; 3] {
    const FOLD: u64 = 0x2020_2020_2020_2020;
    let len = token.len();
    if len >= 8 {
        let (first, last) = (eight(token, 0), eight(token, len - 8));
        let middle = if len > 16 { eight(token, 8) } else { 0 };
        [first | FOLD, middle | FOLD, last | FOLD]
    } else if len >= 4 {
        let (first, last) = (four(token, 0), four(token, len - 4));
        [first | FOLD, FOLD, last | FOLD]
    } else {
        let bytes = token[0] as u64 | (token[len / 2] as u64) << 8 | (token[len - 1] as u64) << 16;
        [bytes | FOLD, FOLD, FOLD]
    }
}

#[inline(always)]
const fn eight(token: &[u8], at: usize) -> u64 {
    match token.split_at(at).1.first_chunk::<8>() {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => 0,
    }
}

#[inline(always)]
const fn four(token: &[u8], at: usize) -> u64 {
    match token.split_at(at).1.first_chunk::<4>() {
        Some(bytes) => u32::from_le_bytes(*bytes) as u64,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case_and_no_near_miss_is() {
        for &(name, canonical) in ALL {
            assert_eq!(name.canonical(), canonical);
            for spelling in [canonical.to_string(), canonical.to_ascii_lowercase(), canonical.to_ascii_uppercase()] {
                assert_eq!(Name::parse(spelling.as_bytes()), name, "{spelling}");
                for i in 0..spelling.len() {
                    let mut changed = spelling.clone().into_bytes();
                    changed[i] = b'~';
                    assert_eq!(Name::parse(&changed), Name::Other);
                }
                assert_eq!(Name::parse(format!("{spelling}x").as_bytes()), Name::Other);
            }
        }
        assert_eq!(Name::Other.canonical(), "");
        assert_eq!(Name::parse(b""), Name::Other);
        assert_eq!(Name::parse(b"C%6Fntact"), Name::Other);
        assert_eq!(Name::parse(&[b'x'; 300]), Name::Other);
    }

    #[test]
    fn compact_forms_stand_for_the_long_ones() {
        for &(letter, name) in COMPACT_FORMS {
            assert_eq!(Name::parse(&[letter]), name);
            assert_eq!(Name::parse(&[letter.to_ascii_uppercase()]), name);
        }
        for letter in *b"ghpqwz" {
            assert_eq!(Name::parse(&[letter]), Name::Other);
        }
    }
}
