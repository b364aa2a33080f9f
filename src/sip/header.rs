//! Header field names (RFC 3261 §20, the compact forms of §7.3.3 and the extensions met at a proxy) and header lines.

use super::cursor;
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
            2..=SHORT => of_words(words(token)),
            _ => LONG.iter().find(|name| name.canonical().as_bytes().eq_ignore_ascii_case(token)).copied().unwrap_or_default(),
        }
    }

    /// Reads the name of a header line that begins with these bytes: what [`Name::parse`] returns for the bytes before the first
    /// colon, and their number. `None` if there is no colon, or nothing before it.
    #[inline(always)]
    pub(super) fn at_start(line: &[u8; SHORT]) -> Option<(Name, usize)> {
        let (low, high) = (eight(line, 0), eight(line, 8));
        let (len, words) = match cursor::find_in_word(low, b':') {
            Some(len) => (len, [kept(low, len), 0]),
            None => {
                let len = cursor::find_in_word(high, b':')?;
                (8 + len, [low | FOLD, kept(high, len)])
            }
        };
        match len {
            0 => None,
            1 => Some((COMPACT[usize::from(line[0])], len)),
            _ => Some((of_words(words), len)),
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

/// Names up to this length are found by their bytes in two words.
const SHORT: usize = 16;
const SLOTS: usize = 256;

/// One place of the perfect hash table: the words of a name, and the name.
struct Slot {
    words: [u64; 2],
    name: Name,
}

static TABLE: [Slot; SLOTS] = table();

/// The known names of more than [`SHORT`] bytes. They are rare.
const LONG: [Name; 8] = [
    Name::ContentDisposition,
    Name::ProxyAuthorization,
    Name::ProxyAuthenticate,
    Name::AuthenticationInfo,
    Name::RequestDisposition,
    Name::SubscriptionState,
    Name::PAssertedIdentity,
    Name::PPreferredIdentity,
];

#[inline(always)]
fn of_words(words: [u64; 2]) -> Name {
    let slot = &TABLE[slot(words)];
    let differs = (words[0] ^ slot.words[0]) | (words[1] ^ slot.words[1]);
    if differs == 0 { slot.name } else { Name::Other }
}

/// The slot of a name. The factor gives each known name its own; `table` does not compile if a new name breaks that, and another
/// one must then be found.
#[inline(always)]
const fn slot([low, high]: [u64; 2]) -> usize {
    const FACTOR: u64 = 0xb772_3d4c_3564_6533;
    ((low ^ high.rotate_left(5)).wrapping_mul(FACTOR) >> 56) as usize
}

const fn table() -> [Slot; SLOTS] {
    let mut table = [const { Slot { words: [0; 2], name: Name::Other } }; SLOTS];
    let (mut i, mut long) = (0, 0);
    while i < ALL.len() {
        let (name, canonical) = ALL[i];
        let token = canonical.as_bytes();
        assert!(token.len() >= 2);
        if token.len() > SHORT {
            assert!(LONG[long] as u8 == name as u8, "a long name that is not among the long ones");
            long += 1;
        } else {
            let words = words(token);
            let place = &mut table[slot(words)];
            assert!(place.words[0] == 0, "two header names in one slot");
            *place = Slot { words, name };
        }
        i += 1;
    }
    assert!(long == LONG.len());
    table
}

/// Setting bit 5 folds the case of letters. It would also turn a CR into a hyphen, but a line that is read has none in its name.
const FOLD: u64 = 0x2020_2020_2020_2020;

/// The first `len` bytes of a word, fewer than eight, folded.
#[inline(always)]
const fn kept(word: u64, len: usize) -> u64 {
    (word | FOLD) & !(u64::MAX << (8 * len))
}

/// The bytes of a token of 2 to [`SHORT`] bytes, folded, with zeros behind them.
const fn words(token: &[u8]) -> [u64; 2] {
    let len = token.len();
    if len >= 8 {
        let behind = match eight(token, len - 8).checked_shr(8 * (SHORT - len) as u32) {
            Some(behind) => behind,
            None => 0,
        };
        let high = if len == SHORT { behind | FOLD } else { kept(behind, len - 8) };
        return [eight(token, 0) | FOLD, high];
    }
    let low = if len >= 4 {
        four(token, 0) | four(token, len - 4) << (8 * (len - 4))
    } else {
        token[0] as u64 | (token[len / 2] as u64) << (8 * (len / 2)) | (token[len - 1] as u64) << (8 * (len - 1))
    };
    [kept(low, len), 0]
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
                assert_eq!(Name::parse(format!("{spelling}\0").as_bytes()), Name::Other);
            }
        }
        assert_eq!(Name::Other.canonical(), "");
        assert_eq!(Name::parse(b""), Name::Other);
        assert_eq!(Name::parse(b"C%6Fntact"), Name::Other);
        assert_eq!(Name::parse(&[b'x'; 300]), Name::Other);
    }

    #[test]
    fn the_name_before_a_colon_is_the_one_that_its_bytes_spell() {
        let tokens = ALL.iter().map(|(_, canonical)| canonical.to_string());
        let compact = (0..=255).map(|byte| char::from(byte).to_string());
        let odd = ["", "\0", "To ", "X", "X-Y", "Via\0", "Fro", "1234567", "12345678", "123456789012345", "1234567890123456"];
        for token in tokens.chain(compact).chain(odd.map(String::from)) {
            let mut line = token.clone().into_bytes();
            line.extend_from_slice(b": a:b: c:d: e:f: ");
            let start = line.first_chunk().unwrap();
            let colon = start.iter().position(|byte| *byte == b':').filter(|colon| *colon > 0);
            let expected = colon.map(|colon| (Name::parse(&start[..colon]), colon));
            assert_eq!(Name::at_start(start), expected, "{token:?}");
        }
        assert_eq!(Name::at_start(b"Content-Encoding"), None);
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
