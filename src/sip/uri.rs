//! SIP, SIPS and tel URIs: syntax (RFC 3261 §19.1.1, RFC 3966), comparison (§19.1.4) and the address-of-record (§10.3 step 5).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::cursor::{self, HOST, URI, URI_PARAM};
use super::error::Fault;
use super::params::Params;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    Sip,
    Sips,
    Tel,
    /// Any other; only the text of the URI is known.
    Other,
}

/// A host as a Via or a URI names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Host<'a> {
    Name(&'a [u8]),
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

impl<'a> Host<'a> {
    /// The address, when the host is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Host::Name(_) => None,
            Host::V4(ip) => Some(IpAddr::V4(*ip)),
            Host::V6(ip) => Some(IpAddr::V6(*ip)),
        }
    }

    /// Reads the host at the start of `text`: the host and the offset behind it.
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
        // A top label begins with a letter: what has no letter at all is no name, and was no IPv4 address.
        match name.first() {
            Some(b'0'..=b'9') if !name.iter().any(u8::is_ascii_alphabetic) => Err(Fault::Host),
            Some(b'.' | b'-') | None => Err(Fault::Host),
            Some(_) => Ok((Host::Name(name), end)),
        }
    }
}

/// `host [ COLON port ]`: the hostport of a URI, the sent-by of a Via.
pub(super) struct HostPort<'a> {
    pub(super) host: Host<'a>,
    /// The host as written.
    pub(super) text: &'a [u8],
    pub(super) port: Option<u16>,
}

impl<'a> HostPort<'a> {
    /// Reads it at the start of `text`, and the offset behind it. `slack` is the class of bytes that may stand around the colon.
    #[inline]
    pub(super) fn parse_prefix(text: &'a [u8], slack: u8) -> Result<(HostPort<'a>, usize), Fault> {
        let (host, end) = Host::parse_prefix(text)?;
        let name = &text[..end];
        let mut at = end;
        if slack != 0 {
            at = cursor::skip(text, at, slack);
        }
        if text.get(at) != Some(&b':') {
            let port = None;
            return Ok((
                HostPort {
                    host,
                    text: name,
                    port,
                },
                end,
            ));
        }
        at += 1;
        if slack != 0 {
            at = cursor::skip(text, at, slack);
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
        // Port 0 is no port that one could send to; it is also what no digits at all come to.
        match u16::try_from(port) {
            Ok(port) if port > 0 => {
                let port = Some(port);
                Ok((
                    HostPort {
                        host,
                        text: name,
                        port,
                    },
                    at,
                ))
            }
            _ => Err(Fault::Port),
        }
    }
}

/// Four decimal numbers up to 255 with dots between, where no further byte of a host name follows, and the offset behind them. Leading
/// zeros are taken as decimal: `1*3DIGIT` allows them.
#[inline]
fn v4_prefix(text: &[u8]) -> Option<(Ipv4Addr, usize)> {
    let mut address: u32 = 0;
    let mut dots = 0;
    let mut value: u32 = 0;
    let mut digits = 0;
    let mut end = text.len();
    for (at, &b) in text.iter().enumerate() {
        let digit = b.wrapping_sub(b'0');
        if digit <= 9 {
            value = value * 10 + u32::from(digit);
            digits += 1;
            if digits > 3 || value > 255 {
                return None;
            }
        } else if b == b'.' {
            if digits == 0 || dots == 3 {
                return None;
            }
            address = address << 8 | value;
            dots += 1;
            value = 0;
            digits = 0;
        } else if cursor::is(b, HOST) {
            return None;
        } else {
            end = at;
            break;
        }
    }
    (dots == 3 && digits > 0).then(|| (Ipv4Addr::from_bits(address << 8 | value), end))
}

fn parse_v4(text: &[u8]) -> Option<Ipv4Addr> {
    let (ip, end) = v4_prefix(text)?;
    (end == text.len()).then_some(ip)
}

/// An IPv6 address without brackets. `:::` before a dotted quad, which RFC 3261's grammar lets through by mistake, is read as `::`
/// (RFC 5118 §4.10).
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

/// A URI, read where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Uri<'a> {
    pub scheme: Scheme,
    /// The user part as written, without the password; of a tel URI the number.
    pub user: Option<&'a [u8]>,
    pub password: Option<&'a [u8]>,
    /// An empty name for a tel URI or an unknown scheme.
    pub host: Host<'a>,
    pub host_text: &'a [u8],
    pub port: Option<u16>,
    pub params: Params<'a>,
    /// What follows the `?`.
    pub headers: Option<&'a [u8]>,
    pub text: &'a [u8],
}

/// More parameters or headers than this and two URIs are equal only as text: comparing all with all must not cost a peer's choice.
const MAX_COMPARED: usize = 32;

impl<'a> Uri<'a> {
    /// Reads a URI that is the whole of `text`.
    pub fn parse(text: &'a [u8]) -> Result<Uri<'a>, Fault> {
        let (scheme, rest) = match text {
            [s, i, p, b':', rest @ ..] if is_sip(*s, *i, *p) => (Scheme::Sip, rest),
            [s, i, p, b's' | b'S', b':', rest @ ..] if is_sip(*s, *i, *p) => (Scheme::Sips, rest),
            [b't' | b'T', b'e' | b'E', b'l' | b'L', b':', rest @ ..] => {
                return Uri::parse_tel(text, rest);
            }
            _ => return Uri::parse_other(text),
        };
        // Unescaped, an `@` stands nowhere but behind the user part: what follows is not checked for a second one here, since it is not
        // a URI byte.
        let (user, password, tail) = match memchr::memchr(b'@', rest) {
            Some(at) => {
                let userinfo = &rest[..at];
                if cursor::skip_uri(userinfo, 0, URI) != Some(at) {
                    return Err(Fault::Uri);
                }
                let (user, password) = match memchr::memchr(b':', userinfo) {
                    Some(colon) => (&userinfo[..colon], Some(&userinfo[colon + 1..])),
                    None => (userinfo, None),
                };
                if user.is_empty() {
                    return Err(Fault::Uri);
                }
                (Some(user), password, &rest[at + 1..])
            }
            None => (None, None, rest),
        };
        let (sent_by, end) = HostPort::parse_prefix(tail, 0)?;
        let mut params = Params::default();
        let mut headers = None;
        let mut rest = &tail[end..];
        if let Some(b';') = rest.first() {
            let length = uri_params(rest)?;
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
        })
    }

    /// `telephone-subscriber` of RFC 3966 behind `tel:`.
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
        if !digits
            .iter()
            .any(|b| !matches!(b, b'-' | b'.' | b'(' | b')'))
        {
            return Err(Fault::Uri);
        }
        let params = &rest[end..];
        if uri_params(params)? != params.len() {
            return Err(Fault::Uri);
        }
        Ok(Uri {
            scheme: Scheme::Tel,
            user: Some(number),
            params: Params::new(params),
            ..Uri::opaque(text)
        })
    }

    /// Any other `absoluteURI`: a scheme, a colon, and no white space.
    fn parse_other(text: &'a [u8]) -> Result<Uri<'a>, Fault> {
        let colon = memchr::memchr(b':', text).ok_or(Fault::Uri)?;
        let (scheme, rest) = (&text[..colon], &text[colon + 1..]);
        let named = scheme.first().is_some_and(u8::is_ascii_alphabetic)
            && scheme
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
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
        }
    }

    /// The parameter `name`, in any case; Some(None) when it has no value.
    pub fn param(&self, name: &[u8]) -> Option<Option<&'a [u8]>> {
        self.params.get(name)
    }

    pub fn transport(&self) -> Option<&'a [u8]> {
        self.param(b"transport").flatten()
    }

    pub fn maddr(&self) -> Option<&'a [u8]> {
        self.param(b"maddr").flatten()
    }

    /// Whether the URI has `lr`: the element that it names is a loose router.
    pub fn is_loose(&self) -> bool {
        self.param(b"lr").is_some()
    }

    /// Comparison of §19.1.4: reflexive and symmetric, and, as the RFC notes, not transitive.
    pub fn equals(&self, other: &Uri) -> bool {
        if self.text == other.text {
            return true;
        }
        if self.scheme != other.scheme {
            return false;
        }
        match self.scheme {
            Scheme::Sip | Scheme::Sips => self.equals_sip(other),
            Scheme::Tel => self.equals_tel(other),
            Scheme::Other => {
                // Of an unknown scheme only the scheme's own case is known not to matter.
                let colon = |text: &[u8]| memchr::memchr(b':', text).unwrap_or(text.len());
                let (a, b) = (
                    self.text.split_at(colon(self.text)),
                    other.text.split_at(colon(other.text)),
                );
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
            && self.params.into_iter().nth(MAX_COMPARED).is_none()
            && other.params.into_iter().nth(MAX_COMPARED).is_none()
            && params_fit(self, other)
            && params_fit(other, self)
            && same_headers(self.headers, other.headers)
    }

    /// RFC 3966 §4 and §5: visual separators do not count, parameters do in any order.
    fn equals_tel(&self, other: &Uri) -> bool {
        fn digits(user: Option<&[u8]>) -> impl Iterator<Item = u8> {
            let bytes = user.unwrap_or_default().iter();
            bytes
                .filter(|b| !matches!(b, b'-' | b'.' | b'(' | b')'))
                .map(u8::to_ascii_lowercase)
        }
        fn covers(a: &Uri, b: &Uri) -> bool {
            a.params.into_iter().all(|(name, value)| {
                lookup(b.params, name).is_some_and(|found| same_optional(value, found, same_folded))
            })
        }
        digits(self.user).eq(digits(other.user))
            && self.params.into_iter().nth(MAX_COMPARED).is_none()
            && other.params.into_iter().nth(MAX_COMPARED).is_none()
            && covers(self, other)
            && covers(other, self)
    }

    /// Appends the canonical key of §10.3 step 5: `user@host` with no scheme, port, password or parameters, escapes of the user undone
    /// where the character may stand unescaped, the host in lower case. Of a tel URI: the number without visual separators.
    pub fn write_address_of_record(&self, out: &mut Vec<u8>) {
        match self.scheme {
            Scheme::Other => return out.extend_from_slice(self.text),
            Scheme::Tel => {
                let number = self.user.unwrap_or_default();
                let kept = number
                    .iter()
                    .filter(|b| !matches!(b, b'-' | b'.' | b'(' | b')'));
                return out.extend(kept.map(u8::to_ascii_lowercase));
            }
            Scheme::Sip | Scheme::Sips => {}
        }
        if let Some(user) = self.user {
            let mut rest = user;
            while let Some(percent) = memchr::memchr(b'%', rest) {
                out.extend_from_slice(&rest[..percent]);
                match cursor::unescape(rest, percent) {
                    Some(byte) if stands_in_user(byte) => out.push(byte),
                    Some(byte) => {
                        const HEX: &[u8; 16] = b"0123456789ABCDEF";
                        let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
                        out.extend_from_slice(&[b'%', HEX[high], HEX[low]]);
                    }
                    None => out.extend_from_slice(&rest[percent..percent + 1]),
                }
                let skip = if cursor::unescape(rest, percent).is_some() {
                    3
                } else {
                    1
                };
                rest = &rest[percent + skip..];
            }
            out.extend_from_slice(rest);
            out.push(b'@');
        }
        match self.host {
            Host::Name(name) => out.extend(name.iter().map(u8::to_ascii_lowercase)),
            Host::V4(ip) => cursor::write_ip(IpAddr::V4(ip), out),
            Host::V6(ip) => {
                out.push(b'[');
                // As an IPv6 address even where it maps an IPv4 one: the brackets say so.
                use std::io::Write;
                drop(write!(out, "{ip}"));
                out.push(b']');
            }
        }
    }
}

#[inline(always)]
fn is_sip(s: u8, i: u8, p: u8) -> bool {
    s | 0x20 == b's' && i | 0x20 == b'i' && p | 0x20 == b'p'
}

/// `unreserved` and `user-unreserved` of RFC 3261 §25.1.
fn stands_in_user(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&byte)
}

/// The length of the `uri-parameters` that open `text`: each a name, and a value behind a `=`.
#[inline]
fn uri_params(text: &[u8]) -> Result<usize, Fault> {
    let mut at = 0;
    while text.get(at) == Some(&b';') {
        let name = at + 1;
        at = cursor::skip_uri(text, name, URI_PARAM).ok_or(Fault::Uri)?;
        if at == name {
            return Err(Fault::Parameter);
        }
        // More than one equals sign is not in the grammar, but Base64 ends in them.
        while text.get(at) == Some(&b'=') {
            at = cursor::skip_uri(text, at + 1, URI_PARAM).ok_or(Fault::Uri)?;
        }
    }
    Ok(at)
}

/// The bytes of a URI component as they compare: an escape of a character outside of the reserved set is that character, one inside
/// of it is something else than the character.
fn characters(text: &[u8]) -> impl Iterator<Item = u16> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let byte = *text.get(at)?;
        let escaped = if byte == b'%' {
            cursor::unescape(text, at)
        } else {
            None
        };
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

fn same_folded(a: &[u8], b: &[u8]) -> bool {
    let fold = |c: u16| {
        if c < 0x80 {
            u16::from((c as u8).to_ascii_lowercase())
        } else {
            c
        }
    };
    characters(a).map(fold).eq(characters(b).map(fold))
}

fn same_optional(a: Option<&[u8]>, b: Option<&[u8]>, same: fn(&[u8], &[u8]) -> bool) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => same(a, b),
        (None, None) => true,
        _ => false,
    }
}

/// The first parameter whose name compares equal.
fn lookup<'a>(params: Params<'a>, name: &[u8]) -> Option<Option<&'a [u8]>> {
    params
        .into_iter()
        .find(|(n, _)| same_folded(n, name))
        .map(|(_, value)| value)
}

/// Whether each parameter of `a` matches that of `b`, and those that may not stand in `a` alone do not.
fn params_fit(a: &Uri, b: &Uri) -> bool {
    a.params
        .into_iter()
        .all(|(name, value)| match lookup(b.params, name) {
            Some(found) => same_optional(value, found, same_folded),
            None => ![&b"user"[..], b"ttl", b"method", b"maddr", b"transport"]
                .iter()
                .any(|special| same_folded(special, name)),
        })
}

/// Header components are never ignored and come in any order.
fn same_headers(a: Option<&[u8]>, b: Option<&[u8]>) -> bool {
    fn fields(headers: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        headers.split(|&b| b == b'&').map(|field| {
            let equals = memchr::memchr(b'=', field).unwrap_or(field.len());
            (
                &field[..equals],
                field.get(equals + 1..).unwrap_or_default(),
            )
        })
    }
    fn count<'x>(
        within: impl Iterator<Item = (&'x [u8], &'x [u8])>,
        (name, value): (&[u8], &[u8]),
    ) -> usize {
        within
            .filter(|(n, v)| same_folded(n, name) && same_folded(v, value))
            .count()
    }
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => {
            let (a, b) = (fields(a), fields(b));
            a.clone().nth(MAX_COMPARED).is_none()
                && b.clone().nth(MAX_COMPARED).is_none()
                && a.clone().count() == b.clone().count()
                && a.clone()
                    .all(|field| count(a.clone(), field) == count(b.clone(), field))
        }
        _ => false,
    }
}
