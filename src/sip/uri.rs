//! SIP, SIPS and tel URIs: syntax (RFC 3261 §19.1.1, RFC 3966), comparison (§19.1.4) and the address-of-record (§10.3 step 5).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::cursor::{self, HOST, URI, URI_PARAM};
use super::error::Fault;
use super::params::Params;
use super::plain;
use super::user::{without_dot, write_canonical};
use crate::base::Span;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    Sip,
    Sips,
    Tel,
    /// Any other; only the text of the URI is known.
    Other,
}

/// A host in a Via or a URI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Host<'a> {
    Name(&'a [u8]),
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

/// Displays a name as written; an address in its shortest form, an IPv6 address in brackets, an IPv4-mapped one as the IPv4
/// address.
impl std::fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self, self.ip().map(|ip| ip.to_canonical())) {
            (_, Some(IpAddr::V4(ip))) => write!(f, "{ip}"),
            (_, Some(IpAddr::V6(ip))) => write!(f, "[{ip}]"),
            (Host::Name(name), None) => f.write_str(&String::from_utf8_lossy(name)),
            (_, None) => Ok(()),
        }
    }
}

impl<'a> Host<'a> {
    /// The address, if the host is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Host::Name(_) => None,
            Host::V4(ip) => Some(IpAddr::V4(*ip)),
            Host::V6(ip) => Some(IpAddr::V6(*ip)),
        }
    }

    /// Reads a host that stands alone, as in the conf and in certificates: an address with or without brackets, otherwise a name.
    pub fn of(text: &'a [u8]) -> Host<'a> {
        match parse_ip(text) {
            Some(IpAddr::V4(ip)) => Host::V4(ip),
            Some(IpAddr::V6(ip)) => Host::V6(ip),
            None => Host::Name(text),
        }
    }

    /// Appends the host in canonical form: a name in lower case without a final dot (`192.0.2.1.` keeps it), an address as it is
    /// displayed.
    pub fn write_canonical(&self, out: &mut Vec<u8>) {
        match *self {
            Host::Name(name) => {
                let start = out.len();
                let bare = without_dot(name);
                // A name that would be an address without its dot is not one, and must not be taken for one.
                let is_address = bare.len() < name.len() && parse_ip(bare).is_some();
                out.extend_from_slice(if is_address { name } else { bare });
                out[start..].make_ascii_lowercase();
            }
            Host::V4(ip) => cursor::write_ip(IpAddr::V4(ip), out),
            Host::V6(ip) => match ip.to_ipv4_mapped() {
                Some(ip) => cursor::write_ip(IpAddr::V4(ip), out),
                None => {
                    out.push(b'[');
                    cursor::write_ip(IpAddr::V6(ip), out);
                    out.push(b']');
                }
            },
        }
    }

    /// Reads the host at the start of `text`, and returns it with the offset after it.
    #[inline]
    fn parse_prefix(text: &'a [u8]) -> Result<(Host<'a>, usize), Fault> {
        match text.first() {
            Some(b'[') => {
                let close = memchr::memchr(b']', text).ok_or(Fault::Host)?;
                let ip = parse_v6(&text[1..close]).ok_or(Fault::Host)?;
                return Ok((Host::V6(ip), close + 1));
            }
            Some(b'0'..=b'9') => {
                if let Some((ip, end)) = v4_prefix(text) {
                    return Ok((Host::V4(ip), end));
                }
            }
            _ => {}
        }
        let end = cursor::skip(text, 0, HOST);
        let name = &text[..end];
        // A top label begins with a letter. One of numbers only is not a name, and was not an IPv4 address as SIP writes one.
        match name.first() {
            Some(b'0'..=b'9') if is_all_numbers(name) => Err(Fault::Host),
            Some(b'.' | b'-') | None => Err(Fault::Host),
            Some(_) => Ok((Host::Name(name), end)),
        }
    }
}

/// Whether all labels are numbers, `0x7f` among them: some libraries would read that as an IPv4 address.
fn is_all_numbers(name: &[u8]) -> bool {
    let mut labels = without_dot(name).split(|byte| *byte == b'.');
    labels.all(|label| match label {
        [b'0', b'x' | b'X', digits @ ..] => digits.iter().all(u8::is_ascii_hexdigit),
        _ => !label.iter().any(u8::is_ascii_alphabetic),
    })
}

/// `host [ COLON port ]`: the hostport of a URI, the sent-by of a Via.
pub(super) struct HostPort<'a> {
    pub(super) host: Host<'a>,
    /// The host as written.
    pub(super) text: &'a [u8],
    pub(super) port: Option<u16>,
}

impl<'a> HostPort<'a> {
    /// Reads it at the start of `text`, with the offset after it. `spaces`: white space is allowed around the colon.
    #[inline]
    pub(super) fn parse_prefix(text: &'a [u8], spaces: bool) -> Result<(HostPort<'a>, usize), Fault> {
        let (host, end) = Host::parse_prefix(text)?;
        let name = &text[..end];
        let mut at = end;
        if spaces {
            at = cursor::skip_space(text, at);
        }
        if text.get(at) != Some(&b':') {
            let port = None;
            return Ok((HostPort { host, text: name, port }, end));
        }
        at += 1;
        if spaces {
            at = cursor::skip_space(text, at);
        }
        let mut port: u32 = 0;
        for &b in &text[at..] {
            let digit = b.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            port = port.saturating_mul(10).saturating_add(u32::from(digit));
            at += 1;
        }
        // Nothing can be sent to port 0, which is also the value of an empty port.
        match u16::try_from(port) {
            Ok(port) if port > 0 => {
                let port = Some(port);
                Ok((HostPort { host, text: name, port }, at))
            }
            _ => Err(Fault::Port),
        }
    }
}

/// Four decimal numbers up to 255 separated by dots and not followed by another byte of a host name, and the offset after them.
/// Leading zeros are taken as decimal: `1*3DIGIT` allows them.
#[inline]
fn v4_prefix(text: &[u8]) -> Option<(Ipv4Addr, usize)> {
    let mut address: u32 = 0;
    let mut at = 0;
    for octet in 0..4 {
        if octet > 0 {
            if text.get(at) != Some(&b'.') {
                return None;
            }
            at += 1;
        }
        let start = at;
        let mut value: u32 = 0;
        while let Some(&b) = text.get(at) {
            let digit = b.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            value = value * 10 + u32::from(digit);
            at += 1;
            if at > start + 3 {
                return None;
            }
        }
        if at == start || value > 255 {
            return None;
        }
        address = address << 8 | value;
    }
    match text.get(at) {
        Some(&b) if cursor::is(b, HOST) => None,
        _ => Some((Ipv4Addr::from_bits(address), at)),
    }
}

fn parse_v4(text: &[u8]) -> Option<Ipv4Addr> {
    let (ip, end) = v4_prefix(text)?;
    (end == text.len()).then_some(ip)
}

/// An IPv6 address without brackets. `:::` before a dotted quad, which RFC 3261's grammar allows by mistake, is read as `::` (RFC
/// 5118 §4.10).
pub(super) fn parse_v6(text: &[u8]) -> Option<Ipv6Addr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(ip) = text.parse() {
        return Some(ip);
    }
    let (head, quad) = text.split_once(":::")?;
    if !quad.contains('.') || text.len() > 64 {
        return None;
    }
    let mut mended = [0u8; 64];
    let len = head.len() + 2 + quad.len();
    mended[..head.len()].copy_from_slice(head.as_bytes());
    mended[head.len()..head.len() + 2].copy_from_slice(b"::");
    mended[head.len() + 2..len].copy_from_slice(quad.as_bytes());
    std::str::from_utf8(&mended[..len]).ok()?.parse().ok()
}

/// An IP address with or without brackets, as `received` and `maddr` carry it (RFC 5118 §4.5).
pub(super) fn parse_ip(text: &[u8]) -> Option<IpAddr> {
    match text {
        [b'[', inner @ .., b']'] => parse_v6(inner).map(IpAddr::V6),
        _ => match parse_v4(text) {
            Some(ip) => Some(IpAddr::V4(ip)),
            None => parse_v6(text).map(IpAddr::V6),
        },
    }
}

/// A URI, read in place.
#[derive(Clone, Copy, Debug)]
pub struct Uri<'a> {
    pub scheme: Scheme,
    /// The user part as written, without the password; for a tel URI the number.
    pub user: Option<&'a [u8]>,
    pub password: Option<&'a [u8]>,
    /// An empty name for a tel URI or an unknown scheme.
    pub host: Host<'a>,
    pub host_text: &'a [u8],
    pub port: Option<u16>,
    pub params: Params<'a>,
    /// The part after the `?`.
    pub headers: Option<&'a [u8]>,
    pub text: &'a [u8],
    initials: Initials,
}

/// The letters with which the names of a URI's parameters begin. Most parameters that rules ask for are not there, and then nothing
/// needs to be searched.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Initials(u32);

impl Initials {
    /// The bit of a byte, the same for a letter in either case; other bytes share the bits of letters.
    #[inline(always)]
    fn of(name: Option<&u8>) -> u32 {
        name.map_or(0, |byte| 1 << (byte & 31))
    }
}

/// A URI as offsets into its text, for the index of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct UriParts {
    scheme: Scheme,
    user: Option<Span>,
    password: Option<Span>,
    /// `Name` stands for `host_text`.
    host: Host<'static>,
    host_text: Span,
    port: Option<u16>,
    params: Span,
    headers: Option<Span>,
    initials: Initials,
}

impl UriParts {
    pub(super) fn parse(text: &[u8]) -> Result<UriParts, Fault> {
        let uri = Uri::parse(text)?;
        let span = |part: &[u8]| Span::of(part, text);
        Ok(UriParts {
            scheme: uri.scheme,
            user: uri.user.map(span),
            password: uri.password.map(span),
            host: match uri.host {
                Host::Name(_) => Host::Name(b""),
                Host::V4(ip) => Host::V4(ip),
                Host::V6(ip) => Host::V6(ip),
            },
            host_text: span(uri.host_text),
            port: uri.port,
            params: span(uri.params.text()),
            headers: uri.headers.map(span),
            initials: uri.initials,
        })
    }

    pub(super) fn scheme(&self) -> Scheme {
        self.scheme
    }

    pub(super) fn has_headers(&self) -> bool {
        self.headers.is_some()
    }

    /// Returns the URI; `text` is what it was parsed from.
    pub(super) fn in_text<'a>(&self, text: &'a [u8]) -> Uri<'a> {
        let host_text = self.host_text.in_text(text);
        Uri {
            scheme: self.scheme,
            user: self.user.map(|span| span.in_text(text)),
            password: self.password.map(|span| span.in_text(text)),
            host: match self.host {
                Host::Name(_) => Host::Name(host_text),
                host => host,
            },
            host_text,
            port: self.port,
            params: Params::new(self.params.in_text(text)),
            headers: self.headers.map(|span| span.in_text(text)),
            text,
            initials: self.initials,
        }
    }
}

impl<'a> Uri<'a> {
    /// Reads a URI that is the whole of `text`.
    pub fn parse(text: &'a [u8]) -> Result<Uri<'a>, Fault> {
        let plain = match plain::user_at(text, 0) {
            Some(plain) => Some((Some(plain.user), plain.user.1 + 1, plain.host)),
            None => plain::host_alone(text).map(|host| (None, b"sip:".len(), host)),
        };
        if let Some((user, host_start, host)) = plain {
            let rest = &text[host.end..];
            let mut initials = Initials::default();
            if rest.is_empty() || uri_params(rest, &mut initials) == Ok(rest.len()) {
                return Ok(Uri { initials, ..Uri::plain(user, host_start, &host, text) });
            }
        }
        Uri::parse_fully(text)
    }

    #[inline(always)]
    fn plain(user: Option<(usize, usize)>, host_start: usize, host: &plain::HostPort, text: &'a [u8]) -> Uri<'a> {
        let host_text = &text[host_start..host.host_end];
        Uri {
            scheme: Scheme::Sip,
            user: user.map(|(start, end)| &text[start..end]),
            password: None,
            host: host.ip.map_or(Host::Name(host_text), Host::V4),
            host_text,
            port: host.port,
            params: Params::new(&text[host.end..]),
            headers: None,
            text,
            initials: Initials::default(),
        }
    }

    pub(super) fn parse_fully(text: &'a [u8]) -> Result<Uri<'a>, Fault> {
        let (scheme, rest) = match text {
            [s, i, p, b':', rest @ ..] if is_sip(*s, *i, *p) => (Scheme::Sip, rest),
            [s, i, p, b's' | b'S', b':', rest @ ..] if is_sip(*s, *i, *p) => (Scheme::Sips, rest),
            [b't' | b'T', b'e' | b'E', b'l' | b'L', b':', rest @ ..] => {
                return Uri::parse_tel(text, rest);
            }
            _ => return Uri::parse_other(text),
        };
        // An unescaped `@` only ends the user part; it is not a URI byte, and so ends a run of those.
        let (user, password, tail) = match cursor::skip_uri(rest, 0, URI) {
            Some(at) if rest.get(at) == Some(&b'@') => {
                let userinfo = &rest[..at];
                let (user, password) = match userinfo.iter().position(|&b| b == b':') {
                    Some(colon) => (&userinfo[..colon], Some(&userinfo[colon + 1..])),
                    None => (userinfo, None),
                };
                if user.is_empty() {
                    return Err(Fault::Uri);
                }
                (Some(user), password, &rest[at + 1..])
            }
            Some(at) if at == rest.len() => (None, None, rest),
            _ => return Err(Fault::Uri),
        };
        let (sent_by, end) = HostPort::parse_prefix(tail, false)?;
        let mut params = Params::default();
        let mut initials = Initials::default();
        let mut headers = None;
        let mut rest = &tail[end..];
        if let Some(b';') = rest.first() {
            let length = uri_params(rest, &mut initials)?;
            params = Params::new(&rest[..length]);
            rest = &rest[length..];
        }
        if let Some((mark, fields)) = rest.split_first() {
            if *mark != b'?' || cursor::skip_uri(fields, 0, URI) != Some(fields.len()) {
                return Err(Fault::Uri);
            }
            headers = Some(fields);
        }
        Ok(Uri {
            scheme,
            user,
            password,
            host: sent_by.host,
            host_text: sent_by.text,
            port: sent_by.port,
            params,
            headers,
            text,
            initials,
        })
    }

    /// `telephone-subscriber` of RFC 3966 after `tel:`.
    fn parse_tel(text: &'a [u8], rest: &'a [u8]) -> Result<Uri<'a>, Fault> {
        let end = memchr::memchr(b';', rest).unwrap_or(rest.len());
        let number = &rest[..end];
        let (digits, global) = match number {
            [b'+', digits @ ..] => (digits, true),
            digits => (digits, false),
        };
        let fits = |&b: &u8| match b {
            b'0'..=b'9' | b'-' | b'.' | b'(' | b')' => true,
            b'*' | b'#' | b'a'..=b'f' | b'A'..=b'F' => !global,
            _ => false,
        };
        if digits.is_empty() || !digits.iter().all(fits) {
            return Err(Fault::Uri);
        }
        if !digits.iter().any(|b| !matches!(b, b'-' | b'.' | b'(' | b')')) {
            return Err(Fault::Uri);
        }
        let params = &rest[end..];
        let mut initials = Initials::default();
        if uri_params(params, &mut initials)? != params.len() {
            return Err(Fault::Uri);
        }
        Ok(Uri { scheme: Scheme::Tel, user: Some(number), params: Params::new(params), initials, ..Uri::opaque(text) })
    }

    /// Any other `absoluteURI`: a scheme, a colon, and no white space.
    fn parse_other(text: &'a [u8]) -> Result<Uri<'a>, Fault> {
        let colon = memchr::memchr(b':', text).ok_or(Fault::Uri)?;
        let (scheme, rest) = (&text[..colon], &text[colon + 1..]);
        let named = scheme.first().is_some_and(u8::is_ascii_alphabetic)
            && scheme.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
        let fits = |&b: &u8| b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b'"');
        if !named || rest.is_empty() || !rest.iter().all(fits) {
            return Err(Fault::Uri);
        }
        Ok(Uri::opaque(text))
    }

    fn opaque(text: &'a [u8]) -> Uri<'a> {
        Uri {
            scheme: Scheme::Other,
            user: None,
            password: None,
            host: Host::Name(b""),
            host_text: b"",
            port: None,
            params: Params::default(),
            headers: None,
            text,
            initials: Initials::default(),
        }
    }

    /// The same URI with another scheme.
    pub fn with_scheme(self, scheme: Scheme) -> Uri<'a> {
        Uri { scheme, ..self }
    }

    /// The parameter `name`, in any case; Some(None) if it has no value.
    #[inline]
    pub fn param(&self, name: &[u8]) -> Option<Option<&'a [u8]>> {
        if self.initials.0 & Initials::of(name.first()) == 0 {
            return None;
        }
        self.params.get(name)
    }

    pub fn transport(&self) -> Option<&'a [u8]> {
        self.param(b"transport").flatten()
    }

    pub fn maddr(&self) -> Option<&'a [u8]> {
        self.param(b"maddr").flatten()
    }

    /// Whether the URI has `lr`: it names a loose router.
    pub fn is_loose(&self) -> bool {
        self.param(b"lr").is_some()
    }

    /// For a tel URI: the number without visual separators (RFC 3966 §4).
    pub(super) fn digits(&self) -> impl Iterator<Item = u8> + use<'a> {
        let number = self.user.unwrap_or_default().iter();
        let kept = number.filter(|b| !matches!(b, b'-' | b'.' | b'(' | b')'));
        kept.map(u8::to_ascii_lowercase)
    }

    /// Appends the canonical key of §10.3 step 5: `user@host` without scheme, port, password or parameters, with escapes in the
    /// user only for characters that must be escaped, the host as in [`Host::write_canonical`]. For a tel URI: the number without
    /// visual separators. Two URIs with one key name the same user.
    pub fn write_address_of_record(&self, out: &mut Vec<u8>) {
        match self.scheme {
            Scheme::Other => return out.extend_from_slice(self.text),
            Scheme::Tel => {
                return out.extend(self.digits());
            }
            Scheme::Sip | Scheme::Sips => {}
        }
        if let Some(user) = self.user {
            write_canonical(user, out);
            out.push(b'@');
        }
        self.host.write_canonical(out);
    }
}

#[inline(always)]
fn is_sip(s: u8, i: u8, p: u8) -> bool {
    s | 0x20 == b's' && i | 0x20 == b'i' && p | 0x20 == b'p'
}

/// The length of the `uri-parameters` at the start of `text`: each a name, optionally with a value after a `=`. Adds the initials of
/// the names.
#[inline]
fn uri_params(text: &[u8], initials: &mut Initials) -> Result<usize, Fault> {
    let mut at = 0;
    while text.get(at) == Some(&b';') {
        let name = at + 1;
        at = cursor::skip_uri(text, name, URI_PARAM).ok_or(Fault::Uri)?;
        if at == name {
            return Err(Fault::Parameter);
        }
        initials.0 |= Initials::of(text.get(name));
        // The grammar allows only one equals sign, but Base64 ends in them.
        while text.get(at) == Some(&b'=') {
            at = cursor::skip_uri(text, at + 1, URI_PARAM).ok_or(Fault::Uri)?;
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn uri(text: &str) -> Uri<'_> {
        Uri::parse(text.as_bytes()).unwrap_or_else(|fault| panic!("{text}: {fault:?}"))
    }

    #[test]
    fn parts_of_a_uri() {
        let u = uri("sips:alice:secret@[2001:db8::1]:5061;transport=tls;lr?Subject=a&To=b");
        assert_eq!(u.scheme, Scheme::Sips);
        assert_eq!(u.user, Some(&b"alice"[..]));
        assert_eq!(u.password, Some(&b"secret"[..]));
        assert_eq!(u.host, Host::V6("2001:db8::1".parse().unwrap()));
        assert_eq!(u.host_text, b"[2001:db8::1]");
        assert_eq!(u.port, Some(5061));
        assert_eq!(u.transport(), Some(&b"tls"[..]));
        assert!(u.is_loose());
        assert_eq!(u.headers, Some(&b"Subject=a&To=b"[..]));
        let u = uri("SIP:biloxi.com");
        assert_eq!((u.scheme, u.user, u.port), (Scheme::Sip, None, None));
        assert_eq!(u.host.ip(), None);
        let u = uri("sip:+1(2)3;phone-context=x@192.0.2.4;maddr=239.255.255.1;user=phone");
        assert_eq!(u.user, Some(&b"+1(2)3;phone-context=x"[..]));
        assert_eq!(u.host, Host::V4([192, 0, 2, 4].into()));
        assert_eq!(u.maddr(), Some(&b"239.255.255.1"[..]));
        assert_eq!(u.param(b"USER"), Some(Some(&b"phone"[..])));
        assert_eq!(uri("sip:a@b?c=d").headers, Some(&b"c=d"[..]));
        assert_eq!(uri("sip:*72#@b.example").user, Some(&b"*72#"[..]));
        assert_eq!(uri("sip:a@b;x=YQ==;y").param(b"y"), Some(None));
        assert_eq!(uri("sip:a:@b").password, Some(&b""[..]));
    }

    #[test]
    fn tel_and_unknown_schemes() {
        let u = uri("tel:+1-201-555-0123;ext=5");
        assert_eq!(u.scheme, Scheme::Tel);
        assert_eq!(u.user, Some(&b"+1-201-555-0123"[..]));
        assert_eq!(u.param(b"ext"), Some(Some(&b"5"[..])));
        assert_eq!(uri("TEL:7042;phone-context=example.com").scheme, Scheme::Tel);
        assert_eq!(uri("tel:*69#;phone-context=x").user, Some(&b"*69#"[..]));
        for other in ["urn:service:sos", "http://www.example.com", "soap.beep://192.0.2.103:3002", "mailto:a@b"] {
            assert_eq!(uri(other).scheme, Scheme::Other);
            assert_eq!(uri(other).text, other.as_bytes());
        }
    }

    #[test]
    fn what_is_not_a_uri() {
        for bad in [
            "",
            "sip",
            "sip:",
            "sips:",
            "sip:@b",
            "sip:a@",
            "sip: a@b",
            "sip:a@b c",
            "sip:a@b@c",
            "<sip:a@b>",
            "alan@jasomi.com",
            "sip:a@b:",
            "sip:a@b:0",
            "sip:a@b:65536",
            "sip:a@b:99999999999",
            "sip:a@b:50x",
            "sip:a%4@b",
            "sip:a%zz@b",
            "sip:a@b;",
            "sip:a@b;;lr",
            "sip:a@b;=x",
            "sip:a@b;x=%",
            "sip:a@[::1",
            "sip:a@[::g]",
            "sip:a@::1",
            "sip:2001:db8::10",
            "sip:a@1.2.3",
            "sip:a@0x7f.66.0.1",
            "sip:a@0X7F000001.",
            "sip:a@127.0x1:5060;x=y",
            "sip:a@1.2.3.4.5",
            "sip:a@1.2.3.256",
            "sip:a@12345",
            "sip:a@.b",
            "sip:a@-b",
            "sip:a@[2001:db8:::1]",
            "sip:a@b?x y",
            "sip:a\"@b",
            "sip:\u{fc}@b",
            "sip:a@b\r\n",
            "sip:a@b?%",
            "tel:",
            "tel:+",
            "tel:--",
            "tel:+1x",
            "tel:12 3",
            "1ab:x",
            "a b:c",
            "x:",
            ":x",
            "sip:a@b?x<y",
            "sip:a@exa%6Dple.com",
        ] {
            assert!(Uri::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_canonical_form_of_a_host_is_its_own() {
        let canonical = |text: &[u8]| {
            let mut out = Vec::new();
            Host::of(text).write_canonical(&mut out);
            out
        };
        for (text, wanted) in [
            (&b"Example.COM."[..], &b"example.com"[..]),
            (b"192.0.2.1", b"192.0.2.1"),
            // Not an address, and must not be taken for one.
            (b"192.0.2.1.", b"192.0.2.1."),
            (b"[::1].", b"[::1]."),
            (b"::ffff:192.0.2.1", b"192.0.2.1"),
        ] {
            let once = canonical(text);
            assert_eq!(once, wanted);
            assert_eq!(canonical(&once), once);
            assert_eq!(Host::of(&once).ip().is_some(), Host::of(text).ip().is_some());
        }
    }

    #[test]
    fn address_of_record_is_canonical() {
        for (text, expected) in [
            ("sip:alice@Atlanta.COM", "alice@atlanta.com"),
            ("sips:%61lice:pw@atlanta.com:5061;transport=tls;user=phone?a=b", "alice@atlanta.com"),
            ("sip:Alice@atlanta.com", "Alice@atlanta.com"),
            ("sip:a%40b@c", "a%40b@c"),
            ("sip:a%3bb%2f@c", "a;b/@c"),
            ("sip:null-%00-null@example.com", "null-%00-null@example.com"),
            ("sip:%c3%bc@c", "%C3%BC@c"),
            ("sip:example.com", "example.com"),
            ("sip:a@192.0.2.01", "a@192.0.2.1"),
            ("sip:a@[2001:DB8:0:0::1]:5060", "a@[2001:db8::1]"),
            ("sip:a@[::ffff:192.0.2.1]", "a@192.0.2.1"),
            ("sip:alice@Atlanta.com.", "alice@atlanta.com"),
            ("sip:9901#1@atlanta.com..:5070", "9901%231@atlanta.com"),
            ("tel:+1-(201).555", "+1201555"),
        ] {
            let mut key = Vec::new();
            uri(text).write_address_of_record(&mut key);
            assert_eq!(String::from_utf8(key).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn ip_addresses_in_parameters() {
        for (text, expected) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[192.0.2.1]", None),
            ("", None),
            ("[", None),
            ("[]", None),
            ("example.com", None),
            ("192.0.2", None),
        ] {
            assert_eq!(parse_ip(text.as_bytes()), expected.map(|ip| ip.parse().unwrap()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn v4_agrees_with_the_standard_library(text in "[0-9]{1,3}(\\.[0-9]{1,3}){2,4}") {
            // Leading zeros, which we accept and the standard library refuses, are removed.
            let plain: Vec<String> = text.split('.').map(|n| n.parse::<u32>().unwrap().to_string()).collect();
            prop_assert_eq!(parse_v4(text.as_bytes()), plain.join(".").parse().ok());
        }

        #[test]
        fn equality_is_reflexive_and_symmetric(
            a in "sip:([aA%]|%41|%3B|;x){0,3}@[bB](:1)?(;(lr|LR|x|y)(=(1|%31|2))?){0,3}(\\?[xy]=[12](&[xy]=[12])?)?",
            b in "sip:([aA%]|%41|%3B|;x){0,3}@[bB](:1)?(;(lr|LR|x|y)(=(1|%31|2))?){0,3}(\\?[xy]=[12](&[xy]=[12])?)?",
        ) {
            if let (Ok(a), Ok(b)) = (Uri::parse(a.as_bytes()), Uri::parse(b.as_bytes())) {
                prop_assert!(a.equals(&a));
                prop_assert_eq!(a.equals(&b), b.equals(&a));
                if a.equals(&b) {
                    let (mut one, mut two) = (Vec::new(), Vec::new());
                    a.write_address_of_record(&mut one);
                    b.write_address_of_record(&mut two);
                    prop_assert_eq!(one, two);
                }
            }
        }

        #[test]
        fn parsing_never_panics_and_parts_lie_inside(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            let text = [b"sip:", text.as_slice()].concat();
            if let Ok(uri) = Uri::parse(&text) {
                let whole = text.as_ptr_range();
                for part in [uri.user, uri.password, Some(uri.host_text), uri.headers].into_iter().flatten() {
                    prop_assert!(part.is_empty() || whole.contains(&part.as_ptr()));
                }
            }
        }
    }

    #[test]
    fn a_parameter_is_found_by_its_name_however_it_begins() {
        for text in [
            "sip:h;lr;maddr=192.0.2.1;Transport=tcp",
            "sip:a@h;MADDR=x;%6dethod=INVITE;-x;[y]=1;~=2",
            "sips:a@[::1];lr;x=y?Subject=maddr",
            "tel:+49-30-1;ext=5;Phone-Context=+49",
            "sip:h;transport=tls==;a=",
        ] {
            let uri = Uri::parse(text.as_bytes()).expect(text);
            let parts = UriParts::parse(text.as_bytes()).expect(text);
            let mut found = 0;
            for (name, value) in uri.params {
                for name in [name.to_ascii_lowercase(), name.to_ascii_uppercase()] {
                    assert_eq!(uri.param(&name), Some(value), "{text}");
                    assert_eq!(parts.in_text(text.as_bytes()).param(&name), Some(value), "{text}");
                }
                found += 1;
            }
            assert!(found > 1, "{text}");
            assert_eq!(uri.param(b"q"), None);
            assert_eq!(uri.param(b"l"), None);
            assert_eq!(uri.param(b"maddres"), None);
        }
    }
}
