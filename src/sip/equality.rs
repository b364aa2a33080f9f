//! Which URIs are equal (RFC 3261 §19.1.4), in time linear in their length; and a key that all equal URIs share, so that a table
//! can find them by it.

use super::cursor;
use super::params::Params;
use super::uri::{Host, Scheme, Uri};

/// With more parameters or headers than this, or a longer text, two URIs are equal only if their texts are: a peer must not choose
/// the cost of comparing all with all.
const MAX_COMPARED: usize = 32;
const MAX_COMPARED_LEN: usize = 2048;

/// Parameters that must be in both of two equal URIs or in neither.
const TELLING: [&[u8]; 5] = [b"user", b"ttl", b"method", b"maddr", b"transport"];

/// Texts of parameters up to this length are compared as they are.
const SHORT: usize = 48;

impl Uri<'_> {
    /// The comparison of §19.1.4: reflexive and symmetric but, as the RFC notes, not transitive.
    pub fn equals(&self, other: &Uri) -> bool {
        if self.text == other.text {
            return true;
        }
        if self.scheme != other.scheme || self.text.len().max(other.text.len()) > MAX_COMPARED_LEN {
            return false;
        }
        match self.scheme {
            Scheme::Sip | Scheme::Sips => self.equals_sip(other),
            Scheme::Tel => self.equals_tel(other),
            Scheme::Other => {
                // For an unknown scheme only the scheme itself is known to be case-insensitive.
                let colon = |text: &[u8]| memchr::memchr(b':', text).unwrap_or(text.len());
                let (a, b) = (self.text.split_at(colon(self.text)), other.text.split_at(colon(other.text)));
                a.0.eq_ignore_ascii_case(b.0) && a.1 == b.1
            }
        }
    }

    fn equals_sip(&self, other: &Uri) -> bool {
        let same_host = match (self.host, other.host) {
            (Host::Name(a), Host::Name(b)) => a.eq_ignore_ascii_case(b),
            (a, b) => a == b,
        };
        same_host
            && self.port == other.port
            && same_optional(self.user, other.user, same_exactly)
            && same_optional(self.password, other.password, same_exactly)
            && same_params(self.params, other.params, Rule::Sip)
            && same_headers(self.headers, other.headers)
    }

    /// RFC 3966 §4 and §5: visual separators are ignored, parameters may be in any order.
    fn equals_tel(&self, other: &Uri) -> bool {
        self.digits().eq(other.digits()) && same_params(self.params, other.params, Rule::Tel)
    }

    /// Appends a key that every URI equal to this one shares; so do the SIP and SIPS versions of one resource. URIs with the same
    /// key need not be equal.
    pub fn write_common(&self, out: &mut Vec<u8>) {
        if self.text.len() > MAX_COMPARED_LEN {
            return out.extend_from_slice(self.text);
        }
        match self.scheme {
            Scheme::Sip | Scheme::Sips => {}
            Scheme::Tel => return self.write_address_of_record(out),
            Scheme::Other => {
                let scheme = memchr::memchr(b':', self.text).unwrap_or(self.text.len());
                let (scheme, rest) = self.text.split_at(scheme);
                out.extend(scheme.iter().map(u8::to_ascii_lowercase));
                return out.extend_from_slice(rest);
            }
        }
        for part in [self.user, self.password] {
            write_characters(part, false, out);
        }
        match self.host.ip() {
            Some(ip) => cursor::write_ip(ip, out),
            None => out.extend(self.host_text.iter().map(u8::to_ascii_lowercase)),
        }
        if let Some(port) = self.port {
            out.extend_from_slice(&port.to_be_bytes());
        }
        if !self.params.text().is_empty() {
            self.write_telling(out);
        }
        if let Some(headers) = self.headers {
            let sum = fields(headers).take(MAX_COMPARED + 1);
            let sum = sum.fold(0u64, |sum, field| sum.wrapping_add(number_of_field(field)));
            out.extend_from_slice(&sum.to_be_bytes());
        }
    }

    fn write_telling(&self, out: &mut Vec<u8>) {
        let mut found = [None; TELLING.len()];
        for (name, value) in self.params.into_iter().take(MAX_COMPARED + 1) {
            // None is longer, unless it is escaped.
            if name.len() > 9 && !name.contains(&b'%') {
                continue;
            }
            let place = TELLING.iter().position(|telling| same_folded(telling, name));
            if let Some(place) = place.and_then(|place| found.get_mut(place)) {
                place.get_or_insert(value);
            }
        }
        for (mark, value) in (0u8..).zip(found) {
            if let Some(value) = value {
                out.extend_from_slice(&[0xff, mark]);
                write_characters(value, true, out);
            }
        }
    }
}

/// A part in its comparable form, and whether it is present.
fn write_characters(part: Option<&[u8]>, folded: bool, out: &mut Vec<u8>) {
    let Some(part) = part else {
        return out.push(0xfe);
    };
    for character in characters(part) {
        let character = if folded { fold(character) } else { character };
        if character >= 0x100 {
            out.push(b'%');
        }
        out.push(character as u8);
    }
    out.push(0xfd);
}

/// Returns a number that is the same for texts that are equal ignoring case (FNV-1a).
fn number_of(text: &[u8]) -> u64 {
    characters(text).map(fold).fold(FNV_BASIS, step)
}

fn number_of_field((name, value): (&[u8], &[u8])) -> u64 {
    let named = characters(name).map(fold).fold(FNV_BASIS, step);
    characters(value).map(fold).fold(step(named, 0x200), step)
}

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

fn step(hash: u64, character: u16) -> u64 {
    (hash ^ u64::from(character)).wrapping_mul(0x0000_0100_0000_01b3)
}

type Param<'a> = (&'a [u8], Option<&'a [u8]>);

/// Parameters, each with the number of its name.
struct Numbered<'a> {
    list: [(u64, Param<'a>); MAX_COMPARED],
    count: usize,
}

impl<'a> Numbered<'a> {
    /// `None` if there are more than are compared.
    fn new(params: Params<'a>) -> Option<Numbered<'a>> {
        let mut numbered = Numbered { list: [(0, (b"", None)); MAX_COMPARED], count: 0 };
        for param in params {
            *numbered.list.get_mut(numbered.count)? = (number_of(param.0), param);
            numbered.count += 1;
        }
        Some(numbered)
    }

    fn all(&self) -> &[(u64, Param<'a>)] {
        self.list.get(..self.count).unwrap_or(&[])
    }

    /// The first parameter whose name compares equal.
    fn get(&self, number: u64, name: &[u8]) -> Option<Option<&'a [u8]>> {
        let mut all = self.all().iter();
        all.find(|(own, (n, _))| *own == number && same_folded(n, name)).map(|(_, (_, value))| *value)
    }

    fn fits(&self, other: &Numbered, rule: Rule) -> bool {
        self.all().iter().all(|(number, (name, value))| fits(*value, other.get(*number, name), name, rule))
    }
}

/// How a parameter counts that only one of two URIs has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// It is ignored, unless it is in [`TELLING`].
    Sip,
    /// It makes them unequal (RFC 3966 §5).
    Tel,
}

fn fits(value: Option<&[u8]>, found: Option<Option<&[u8]>>, name: &[u8], rule: Rule) -> bool {
    match found {
        Some(found) => match (value, found) {
            (Some(a), Some(b)) => same_folded(a, b),
            (None, None) => true,
            _ => false,
        },
        None => rule == Rule::Sip && !TELLING.iter().any(|telling| same_folded(telling, name)),
    }
}

/// Whether the parameters of both are compatible.
fn same_params(a: Params, b: Params, rule: Rule) -> bool {
    if a.text() == b.text() {
        return a.into_iter().nth(MAX_COMPARED).is_none();
    }
    if a.text().len().max(b.text().len()) <= SHORT {
        let covers = |a: Params, b: Params| {
            a.into_iter().all(|(name, value)| {
                let found = b.into_iter().find(|(n, _)| same_folded(n, name));
                fits(value, found.map(|(_, value)| value), name, rule)
            })
        };
        return covers(a, b) && covers(b, a);
    }
    match (Numbered::new(a), Numbered::new(b)) {
        (Some(a), Some(b)) => a.fits(&b, rule) && b.fits(&a, rule),
        _ => false,
    }
}

/// Header components are never ignored, and may be in any order.
fn same_headers(a: Option<&[u8]>, b: Option<&[u8]>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => match (sorted(a), sorted(b)) {
            (Some((a, count)), Some((b, other))) => {
                let mut pairs = a.iter().zip(&b).take(count);
                count == other && pairs.all(|((m, (n, v)), (o, (p, w)))| m == o && same_folded(n, p) && same_folded(v, w))
            }
            _ => false,
        },
        _ => false,
    }
}

type Field<'a> = (&'a [u8], &'a [u8]);

fn fields(headers: &[u8]) -> impl Iterator<Item = Field<'_>> {
    headers.split(|&b| b == b'&').map(|field| {
        let equals = memchr::memchr(b'=', field).unwrap_or(field.len());
        let value = field.get(equals + 1..).unwrap_or_default();
        (&field[..equals], value)
    })
}

/// In the order of their numbers; `None` if there are more than are compared.
fn sorted(headers: &[u8]) -> Option<([(u64, Field<'_>); MAX_COMPARED], usize)> {
    let mut list: [(u64, Field); MAX_COMPARED] = [(0, (b"", b"")); MAX_COMPARED];
    let mut count = 0;
    for field in fields(headers) {
        *list.get_mut(count)? = (number_of_field(field), field);
        count += 1;
    }
    if let Some(all) = list.get_mut(..count) {
        all.sort_unstable_by_key(|(number, _)| *number);
    }
    Some((list, count))
}

/// The bytes of a URI component as they compare: an escaped character outside the reserved set equals the character, an escaped one
/// inside it does not.
fn characters(text: &[u8]) -> impl Iterator<Item = u16> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let byte = *text.get(at)?;
        let escaped = if byte == b'%' { cursor::unescape(text, at) } else { None };
        at += if escaped.is_some() { 3 } else { 1 };
        Some(match escaped {
            Some(byte) if b";/?:@&=+$,".contains(&byte) => 0x100 | u16::from(byte),
            Some(byte) => u16::from(byte),
            None => u16::from(byte),
        })
    })
}

fn same_exactly(a: &[u8], b: &[u8]) -> bool {
    characters(a).eq(characters(b))
}

/// A character in its case-insensitive form.
fn fold(character: u16) -> u16 {
    match character {
        0..0x80 => u16::from((character as u8).to_ascii_lowercase()),
        _ => character,
    }
}

fn same_folded(a: &[u8], b: &[u8]) -> bool {
    characters(a).map(fold).eq(characters(b).map(fold))
}

fn same_optional(a: Option<&[u8]>, b: Option<&[u8]>, same: fn(&[u8], &[u8]) -> bool) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => same(a, b),
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri<'_> {
        Uri::parse(text.as_bytes()).unwrap_or_else(|fault| panic!("{text}: {fault:?}"))
    }

    fn common(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        uri(text).write_common(&mut out);
        out
    }

    fn equal(a: &str, b: &str) -> bool {
        let (a, b) = (uri(a), uri(b));
        assert_eq!(a.equals(&b), b.equals(&a));
        a.equals(&b)
    }

    #[test]
    fn equal_uris_have_it_in_common_and_what_must_differ_does() {
        for (a, b) in [
            (
                "sip:%62ob@PHONE.example.com;transport=TCP;x=1;maddr=192.0.2.1",
                "SIP:bob@phone.example.com;MADDR=192.0.2.1;y=2;%74ransport=tcp",
            ),
            ("sip:a@h?Subject=x&To=y", "sip:a@h?to=Y&subject=X"),
            ("sip:a@h?a&b&a", "sip:a@h?b&a&a"),
            ("tel:+1-201", "tel:+1201"),
            ("HTTP://x/Y", "http://x/Y"),
            ("sip:a@h;user=phone", "sip:a@h;user=%70hone"),
        ] {
            assert!(equal(a, b), "{a} {b}");
            assert_eq!(common(a), common(b), "{a} {b}");
        }
        for (a, b) in [
            ("sip:a@h", "sip:b@h"),
            ("sip:a@h", "sip:h"),
            ("sip:a@h", "sip:a:@h"),
            ("sip:a@h", "sip:a@h:5060"),
            ("sip:a@h;transport=udp", "sip:a@h"),
            ("sip:a@h;transport=udp", "sip:a@h;transport=tcp"),
            ("sip:a@h;ttl=1", "sip:a@h;method=1"),
            ("sip:a@h?x=1", "sip:a@h"),
            ("sip:a@h?a&b&a", "sip:a@h?b&a&b"),
            ("sip:a%2f@h", "sip:a/@h"),
        ] {
            assert!(!equal(a, b), "{a} {b}");
            assert_ne!(common(a), common(b), "{a} {b}");
        }
        assert_eq!(common("sip:a@h"), common("sips:a@h"));
    }

    #[test]
    fn many_parameters_compare_as_few_do() {
        let long = |last: &str| {
            let many: String = (0..30).map(|n| format!(";parameter{n}=value{n}")).collect();
            format!("sip:a@h{many};last={last}")
        };
        assert!(equal(&long("x"), &long("X")));
        assert!(!equal(&long("x"), &long("y")));
        assert!(equal(&long("x"), "sip:a@h"));
        assert!(!equal(&format!("{};transport=tcp", long("x")), "sip:a@h"));
        let headers = |first: &str| {
            let many: String = (0..30).map(|n| format!("&header{n}=value{n}")).collect();
            format!("sip:a@h?first={first}{many}")
        };
        assert!(equal(&headers("x"), &headers("X")));
        assert!(!equal(&headers("x"), &headers("y")));
    }

    #[test]
    fn equal_by_19_1_4() {
        for (a, b) in [
            // The RFC's own.
            ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com;security=on"),
            ("sip:carol@chicago.com;newparam=5", "sip:carol@chicago.com;security=on"),
            (
                "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
                "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
            ),
            (
                "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
                "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
            ),
            ("sip:carol@chicago.com", "sip:carol@chicago.com;security=off"),
            // Others.
            ("sip:a@[2001:db8::1]", "SIP:a@[2001:DB8:0::1]"),
            ("sip:a@192.0.2.4", "sip:a@192.0.2.004"),
            ("sip:a@b;l%72", "sip:a@b;lr"),
            ("sip:a@b;x=%41", "sip:a@b;x=a"),
            ("sip:a@b?Subject=x", "sip:a@b?subject=%78"),
            ("sip:a@b;x=1;x=2", "sip:a@b;x=1;x=2"),
            ("tel:+1-201-555-0123", "tel:+1(201)5550123"),
            ("tel:7042;phone-context=Example.com;a=b", "tel:7042;A=b;phone-context=example.com"),
            ("HTTP://x.example/a", "http://x.example/a"),
        ] {
            assert!(uri(a).equals(&uri(b)), "{a} = {b}");
            assert!(uri(b).equals(&uri(a)), "{b} = {a}");
        }
    }

    #[test]
    fn not_equal_by_19_1_4() {
        for (a, b) in [
            // The RFC's own.
            ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
            ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
            ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"),
            // Others.
            ("sip:a@b", "sips:a@b"),
            ("sip:a@b", "sip:b"),
            ("sip:a@b", "sip:a:pw@b"),
            ("sip:a:pw@b", "sip:a:PW@b"),
            ("sip:a@b;user=phone", "sip:a@b"),
            ("sip:a@b;ttl=1", "sip:a@b"),
            ("sip:a@b;method=INVITE", "sip:a@b"),
            ("sip:a@b;maddr=192.0.2.1", "sip:a@b"),
            ("sip:a@b;m%61ddr=192.0.2.1", "sip:a@b"),
            ("sip:a%3Bb@c", "sip:a;b@c"),
            ("sip:a%2541@b", "sip:a%41@b"),
            ("sip:a@b?x=1&x=1&x=2", "sip:a@b?x=1&x=2&x=2"),
            ("sip:a@b;lr", "sip:a@b;lr=on"),
            ("sip:%00@b", "sip:%00%00@b"),
            ("tel:+12015550123", "tel:12015550123"),
            ("tel:7042;phone-context=a", "tel:7042"),
            ("http://x.example/a", "http://x.example/A"),
            ("tel:+1", "sip:+1@x"),
        ] {
            assert!(!uri(a).equals(&uri(b)), "{a} != {b}");
            assert!(!uri(b).equals(&uri(a)), "{b} != {a}");
        }
    }

    #[test]
    fn many_parameters_compare_as_text_only() {
        let many: String = (0..MAX_COMPARED + 1).map(|i| format!(";p{i}")).collect();
        let (a, b) = (format!("sip:a@b{many}"), format!("sip:a@B{many}"));
        assert!(uri(&a).equals(&uri(&a)));
        assert!(!uri(&a).equals(&uri(&b)));
        let long = "x".repeat(MAX_COMPARED_LEN);
        assert!(!uri(&format!("sip:a@b;{long}")).equals(&uri(&format!("sip:a@B;{long}"))));
    }
}
