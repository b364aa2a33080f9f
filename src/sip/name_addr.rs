//! `name-addr` and `addr-spec` with the parameters after them (RFC 3261 §20.10, §25.1): From, To, Contact, Route, Path.

use super::cursor::{self, DISPLAY, SPACE};
use super::error::Fault;
use super::params::{Params, Scanned};
use super::plain;
use crate::base::Span;

/// One address of a header field.
#[derive(Clone, Copy, Debug)]
pub struct NameAddr<'a> {
    /// The display name as written, quotes included.
    pub display: Option<&'a [u8]>,
    pub uri: &'a [u8],
    /// Position of `uri` in the text that was parsed.
    pub uri_span: Span,
    /// The header field's parameters; those inside of the angle brackets belong to the URI.
    pub params: Params<'a>,
    /// Whether the URI stands in angle brackets.
    pub bracketed: bool,
    known: Known,
    /// All that was parsed.
    text: &'a [u8],
}

/// The parameters that rules ask for, in the text that was parsed. The first of several with one name counts.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    tag: Found,
    q: Found,
    expires: Found,
    /// More than one tag.
    is_tagged_twice: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum Found {
    #[default]
    Absent,
    /// Present without a value.
    Bare,
    Value(Span),
}

impl Found {
    #[inline]
    fn in_text(self, text: &[u8]) -> Option<Option<&[u8]>> {
        match self {
            Found::Absent => None,
            Found::Bare => Some(None),
            Found::Value(span) => Some(Some(span.in_text(text))),
        }
    }
}

impl Known {
    #[inline]
    fn note(&mut self, text: &[u8], param: &Scanned) {
        let (start, end) = param.name;
        let name = &text[start..end];
        let found = match name.len() {
            3 if cursor::is_word(name, b"tag") => {
                self.is_tagged_twice = !matches!(self.tag, Found::Absent);
                &mut self.tag
            }
            1 if cursor::is_word(name, b"q") => &mut self.q,
            7 if cursor::is_word(name, b"expires") => &mut self.expires,
            _ => return,
        };
        if let Found::Absent = found {
            *found = match param.value {
                Some((start, end)) => Found::Value(Span::new(start, end)),
                None => Found::Bare,
            };
        }
    }
}

/// An address as offsets into its text, for the index of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct AddressParts {
    display: Option<Span>,
    uri: Span,
    params: Span,
    bracketed: bool,
    known: Known,
    /// The URI is known to be valid, and need not be parsed to check that.
    has_plain_uri: bool,
}

impl AddressParts {
    pub(super) fn parse(text: &[u8]) -> Result<AddressParts, Fault> {
        match plain::address(text) {
            Some(address) => Ok(AddressParts::plain(&address, text)),
            None => AddressParts::parse_fully(text),
        }
    }

    #[inline]
    pub(super) fn plain(address: &plain::Address, text: &[u8]) -> AddressParts {
        let mut known = Known::default();
        let mut params = Span::default();
        if let Some((start, end)) = address.tag {
            known.tag = Found::Value(Span::new(start, end));
            params = Span::new(address.uri_end + 1, text.len());
        }
        AddressParts { display: None, uri: Span::new(1, address.uri_end), params, bracketed: true, known, has_plain_uri: true }
    }

    pub(super) fn parse_fully(text: &[u8]) -> Result<AddressParts, Fault> {
        let address = NameAddr::parse(text)?;
        Ok(AddressParts {
            display: address.display.map(|display| Span::of(display, text)),
            uri: address.uri_span,
            params: Span::of(address.params.text(), text),
            bracketed: address.bracketed,
            known: address.known,
            has_plain_uri: false,
        })
    }

    /// Returns the address; `text` is what it was parsed from.
    #[inline]
    pub(super) fn in_text<'a>(&self, text: &'a [u8]) -> NameAddr<'a> {
        NameAddr {
            display: self.display.map(|span| span.in_text(text)),
            uri: self.uri(text),
            uri_span: self.uri,
            params: Params::new(self.params.in_text(text)),
            bracketed: self.bracketed,
            known: self.known,
            text,
        }
    }

    #[inline]
    pub(super) fn uri<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        self.uri.in_text(text)
    }

    #[inline]
    pub(super) fn tag<'a>(&self, text: &'a [u8]) -> Option<&'a [u8]> {
        self.known.tag.in_text(text).flatten()
    }

    #[inline]
    pub(super) fn has_plain_uri(&self) -> bool {
        self.has_plain_uri
    }

    /// True if there is no tag, or a valid one: a token, which has no quotes.
    #[inline]
    pub(super) fn has_sound_tag(&self, text: &[u8]) -> bool {
        match self.known.tag {
            Found::Absent => true,
            Found::Bare => false,
            Found::Value(span) => {
                let first = span.in_text(text).first();
                first.is_some_and(|first| *first != b'"') && !self.known.is_tagged_twice
            }
        }
    }
}

impl<'a> NameAddr<'a> {
    /// Reads one value, which must extend to the end of `text`. The URI is located, not parsed: see [`super::Uri::parse`].
    pub fn parse(text: &'a [u8]) -> Result<NameAddr<'a>, Fault> {
        let start = cursor::skip_space(text, 0);
        let (display, uri_start, uri_end, mut at) = match text.get(start) {
            Some(b'<') => {
                let (uri_start, uri_end) = bracketed(text, start)?;
                (None, uri_start, uri_end, uri_end + 1)
            }
            Some(b'"') => {
                let end = cursor::quoted_end(text, start).ok_or(Fault::Address)?;
                let open = cursor::skip_space(text, end);
                let (uri_start, uri_end) = bracketed(text, open)?;
                (Some(&text[start..end]), uri_start, uri_end, uri_end + 1)
            }
            Some(_) => {
                let run = cursor::skip(text, start, DISPLAY);
                if text.get(run) == Some(&b'<') {
                    let (uri_start, uri_end) = bracketed(text, run)?;
                    let display = cursor::trim_end(&text[start..run]);
                    (Some(display), uri_start, uri_end, uri_end + 1)
                } else {
                    // An addr-spec: a semicolon ends it, and it may not contain a question mark or a comma.
                    let mut end = run;
                    while let Some(&b) = text.get(end) {
                        match b {
                            b';' => break,
                            b',' | b'<' | b'>' | b'"' => return Err(Fault::Address),
                            _ => end += 1,
                        }
                    }
                    let uri = cursor::trim_end(&text[start..end]);
                    if uri.iter().any(|&b| b == b'?' || cursor::is(b, SPACE)) {
                        return Err(Fault::Address);
                    }
                    (None, start, start + uri.len(), start + uri.len())
                }
            }
            None => return Err(Fault::Address),
        };
        if uri_start == uri_end {
            return Err(Fault::Address);
        }
        at = cursor::skip_space(text, at);
        let params_start = at;
        let mut known = Known::default();
        if at < text.len() {
            at = Params::scan(text, at, |param| {
                known.note(text, &param);
                Ok(())
            })?;
            if at != text.len() {
                return Err(Fault::Address);
            }
        }
        Ok(NameAddr {
            display,
            uri: &text[uri_start..uri_end],
            uri_span: Span::new(uri_start, uri_end),
            params: Params::new(&text[params_start..]),
            bracketed: text.get(uri_end) == Some(&b'>'),
            known,
            text,
        })
    }

    pub fn tag(&self) -> Option<&'a [u8]> {
        self.known.tag.in_text(self.text).flatten()
    }

    /// The `q` of a Contact, in thousandths: 0..=1000.
    pub fn q(&self) -> Result<Option<u16>, Fault> {
        match self.known.q.in_text(self.text) {
            None => Ok(None),
            Some(value) => qvalue(value.unwrap_or_default()).map(Some).ok_or(Fault::Q),
        }
    }

    /// The `expires` of a Contact, in seconds; more than 32 bits saturates (RFC 3261 §20.19).
    pub fn expires(&self) -> Result<Option<u32>, Fault> {
        match self.known.expires.in_text(self.text) {
            None => Ok(None),
            Some(value) => cursor::number_saturating(value.unwrap_or_default()).map(Some).ok_or(Fault::Expires),
        }
    }
}

/// The URI between `<` at `open` and its `>`.
#[inline]
fn bracketed(text: &[u8], open: usize) -> Result<(usize, usize), Fault> {
    if text.get(open) != Some(&b'<') {
        return Err(Fault::Address);
    }
    let close = memchr::memchr(b'>', &text[open..]).ok_or(Fault::Address)?;
    Ok((open + 1, open + close))
}

/// `qvalue = ( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] )`, and the `.5` that some phones send.
fn qvalue(text: &[u8]) -> Option<u16> {
    let (whole, fraction) = match text {
        [b'0'] => (0, &b""[..]),
        [b'1'] => (1000, &b""[..]),
        [b'0', b'.', rest @ ..] => (0, rest),
        [b'1', b'.', rest @ ..] => (1000, rest),
        [b'.', rest @ ..] if !rest.is_empty() => (0, rest),
        _ => return None,
    };
    if fraction.len() > 3 {
        return None;
    }
    let mut thousandths = 0;
    for place in 0..3 {
        let digit = fraction.get(place).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return None;
        }
        thousandths = thousandths * 10 + u16::from(digit - b'0');
    }
    (whole + thousandths <= 1000).then_some(whole + thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_an_address() {
        type Case = (&'static [u8], Option<&'static [u8]>, &'static [u8], &'static [u8], bool);
        let cases: &[Case] = &[
            (b"<sip:a@b>;tag=1", None, b"sip:a@b", b";tag=1", true),
            (b"sip:a@b;tag=1", None, b"sip:a@b", b";tag=1", false),
            (b"sip:a@b", None, b"sip:a@b", b"", false),
            (b"\"A \\\" <x>, B\" <sip:a@b;lr>", Some(b"\"A \\\" <x>, B\""), b"sip:a@b;lr", b"", true),
            (b"caller<sip:caller@example.com>;tag=323", Some(b"caller"), b"sip:caller@example.com", b";tag=323", true),
            (b"A. Bell  <sip:a@b>\r\n ;\r\n tag = x", Some(b"A. Bell"), b"sip:a@b", b";\r\n tag = x", true),
            ("J\u{fc}rgen <sip:a@b>".as_bytes(), Some("J\u{fc}rgen".as_bytes()), b"sip:a@b", b"", true),
            (b"tel:+1-2;tag=9", None, b"tel:+1-2", b";tag=9", false),
            (b"sip:a@b ;tag=9", None, b"sip:a@b", b";tag=9", false),
        ];
        for &(text, display, uri, params, bracketed) in cases {
            let found = NameAddr::parse(text).unwrap();
            assert_eq!(found.display, display);
            assert_eq!(found.uri, uri);
            assert_eq!(&text[found.uri_span.range()], uri);
            assert_eq!(found.params.text(), params);
            assert_eq!(found.bracketed, bracketed);
        }
        assert_eq!(NameAddr::parse(b"A <sip:a@b>\r\n ;\r\n tag = x").unwrap().tag(), Some(&b"x"[..]));
    }

    #[test]
    fn what_is_not_an_address() {
        for bad in [
            &b""[..],
            b"  ",
            b"<>",
            b"<sip:a@b",
            b"\"open <sip:a@b>",
            b"\"a\" sip:a@b",
            b"Bell, Alexander <sip:a@b>;tag=43",
            b"sip:a@b?Route=%3Csip:x%3E",
            b"sip:a b@c",
            b"<sip:a@b>;;;;",
            b"<sip:a@b>, <sip:c@d>",
            b"<sip:a@b> x",
            b"sip:a@b>",
        ] {
            assert!(NameAddr::parse(bad).is_err(), "{:?}", bad.escape_ascii().to_string());
        }
    }

    #[test]
    fn q_is_counted_in_thousandths() {
        let q = |value: &str| {
            let text = format!("<sip:a@b>;q={value}");
            NameAddr::parse(text.as_bytes()).unwrap().q()
        };
        for (value, expected) in [
            ("0", 0),
            ("1", 1000),
            ("0.5", 500),
            ("0.33", 330),
            ("0.999", 999),
            ("1.0", 1000),
            ("1.000", 1000),
            ("0.", 0),
            (".7", 700),
        ] {
            assert_eq!(q(value), Ok(Some(expected)), "{value}");
        }
        for value in ["2", "1.001", "0.1234", "-1", "", "a", "0.a", "."] {
            assert_eq!(q(value), Err(Fault::Q), "{value}");
        }
        assert_eq!(NameAddr::parse(b"<sip:a@b>").unwrap().q(), Ok(None));
    }

    #[test]
    fn expires_saturates() {
        let expires = |text: &[u8]| NameAddr::parse(text).unwrap().expires();
        assert_eq!(expires(b"<sip:a@b>;expires=60"), Ok(Some(60)));
        assert_eq!(expires(b"<sip:a@b>;expires=280297596632815"), Ok(Some(u32::MAX)));
        assert_eq!(expires(b"<sip:a@b>;expires=-1"), Err(Fault::Expires));
        assert_eq!(expires(b"<sip:a@b>;expires"), Err(Fault::Expires));
        assert_eq!(expires(b"<sip:a@b>"), Ok(None));
    }
}
