//! A Request-URI in the form that a carrier expects: leading characters removed, others prepended, and another host.

use super::cursor::{self, USER};
use super::error::Fault;
use super::uri::{Scheme, Uri};
use super::user::is_separator;

/// What is changed in a URI.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dialling<'a> {
    /// Characters removed at the beginning of the user part, as a user counts them: an escape is one, and so are the escapes of one
    /// letter.
    pub strip: usize,
    /// What is then prepended.
    pub prefix: &'a [u8],
    /// What replaces host and port; a tel URI, which has neither, becomes a sip URI (RFC 3261 §19.1.6).
    pub host: Option<&'a [u8]>,
}

impl Dialling<'_> {
    /// Appends the URI with the changes; parameters and header fields stay. An error if no dialable user part, or no URI, would be
    /// left. A URI that is not sip, sips or tel stays as it is.
    pub fn write(&self, uri: &Uri, out: &mut Vec<u8>) -> Result<(), Fault> {
        let start = out.len();
        match uri.scheme {
            Scheme::Other => out.extend_from_slice(uri.text),
            Scheme::Tel => self.write_tel(uri, out)?,
            Scheme::Sip | Scheme::Sips => self.write_sip(uri, out)?,
        }
        Uri::parse(&out[start..]).map(|_| ())
    }

    fn write_sip(&self, uri: &Uri, out: &mut Vec<u8>) -> Result<(), Fault> {
        out.extend_from_slice(match uri.scheme {
            Scheme::Sips => b"sips:",
            _ => b"sip:",
        });
        match uri.user {
            Some(user) => self.write_user(user, out)?,
            None if self.strip > 0 => return Err(Fault::Uri),
            None => {}
        }
        if let Some(password) = uri.password {
            out.push(b':');
            out.extend_from_slice(password);
        }
        if uri.user.is_some() {
            out.push(b'@');
        }
        match self.host {
            Some(host) => out.extend_from_slice(host),
            None => out.extend_from_slice(&uri.text[host_of(uri)]),
        }
        out.extend_from_slice(&uri.text[host_of(uri).end..]);
        Ok(())
    }

    fn write_tel(&self, uri: &Uri, out: &mut Vec<u8>) -> Result<(), Fault> {
        let number = uri.user.unwrap_or_default();
        let rest = uri.text.get("tel:".len() + number.len()..).unwrap_or_default();
        let Some(host) = self.host else {
            out.extend_from_slice(b"tel:");
            self.write_user(number, out)?;
            out.extend_from_slice(rest);
            return Ok(());
        };
        out.extend_from_slice(b"sip:");
        let start = out.len();
        self.write_user(number, out)?;
        out.extend_from_slice(rest);
        // The number with its parameters becomes the user part, in which some of its characters must be escaped.
        let text = out.split_off(start);
        for byte in text {
            match byte == b'%' || cursor::is(byte, USER) {
                true => out.push(byte),
                false => super::user::write_escaped(std::iter::once(byte), out),
            }
        }
        out.push(b'@');
        out.extend_from_slice(host);
        out.extend_from_slice(b";user=phone");
        Ok(())
    }

    fn write_user(&self, user: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        let mut rest = user;
        // In a number visual separators are no digits.
        let is_number = user.first().is_some_and(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'('));
        let skips = |rest: &[u8]| rest.iter().take_while(|byte| is_number && is_separator(**byte)).count();
        for _ in 0..self.strip {
            rest = after_character(&rest[skips(rest)..]).ok_or(Fault::Uri)?;
        }
        if self.strip > 0 {
            rest = &rest[skips(rest)..];
        }
        if rest.is_empty() && self.prefix.is_empty() {
            return Err(Fault::Uri);
        }
        out.extend_from_slice(self.prefix);
        out.extend_from_slice(rest);
        Ok(())
    }
}

/// Position of host and port in the text.
fn host_of(uri: &Uri) -> std::ops::Range<usize> {
    let tail = uri.params.text().len() + uri.headers.map_or(0, |headers| headers.len() + 1);
    // Parameters follow host and port, and are followed by the header fields.
    let end = uri.text.len() - tail;
    let userinfo = uri.user.map_or(0, |user| user.len() + 1) + uri.password.map_or(0, |password| password.len() + 1);
    let scheme = uri.text.iter().position(|byte| *byte == b':').map_or(0, |colon| colon + 1);
    scheme + userinfo..end
}

/// Returns what follows the first character; `None` if there is none. The continuation bytes of UTF-8 belong to the character
/// before them.
fn after_character(text: &[u8]) -> Option<&[u8]> {
    let one = |text: &[u8]| match text {
        [b'%', ..] => cursor::unescape(text, 0).map(|byte| (byte, 3)),
        [byte, ..] => Some((*byte, 1)),
        [] => None,
    };
    let (first, len) = one(text)?;
    let mut rest = text.get(len..)?;
    if first >= 0xC0 {
        while let Some((0x80..=0xBF, len)) = one(rest) {
            rest = rest.get(len..)?;
        }
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialled(uri: &str, strip: usize, prefix: &str, host: Option<&str>) -> Option<String> {
        let dialling = Dialling { strip, prefix: prefix.as_bytes(), host: host.map(str::as_bytes) };
        let mut out = b"before ".to_vec();
        let written = dialling.write(&Uri::parse(uri.as_bytes()).unwrap(), &mut out);
        written.ok()?;
        Some(String::from_utf8(out).unwrap()["before ".len()..].to_owned())
    }

    #[test]
    fn the_user_part_loses_and_gains() {
        for (uri, strip, prefix, host, expected) in [
            ("sip:030123@a.example", 1, "0049", None, "sip:004930123@a.example"),
            ("sips:9123;x=1:pw@a.example:5071;lr;a=b?h=v", 1, "", None, "sips:123;x=1:pw@a.example:5071;lr;a=b?h=v"),
            ("SIP:9123@[2001:db8::1]:5080;user=phone", 1, "+", None, "sip:+123@[2001:db8::1]:5080;user=phone"),
            ("sip:9123@[2001:db8::1]:5080;user=phone", 0, "", Some("b.example:5090"), "sip:9123@b.example:5090;user=phone"),
            ("sip:a.example:5070;x=y", 0, "7", Some("b.example"), "sip:b.example;x=y"),
            ("sip:%23%2A12@h", 2, "", None, "sip:12@h"),
            ("sip:%c3%a9%C3%A812@h", 1, "", None, "sip:%C3%A812@h"),
            ("sip:1@h", 1, "7", None, "sip:7@h"),
            ("tel:+49-30-123;isub=1", 3, "0", None, "tel:030-123;isub=1"),
            ("tel:+4930123", 1, "", Some("c.example"), "sip:4930123@c.example;user=phone"),
            ("TEL:9#12;phone-context=+49", 1, "", Some("c.example:5080"), "sip:%2312;phone-context=+49@c.example:5080;user=phone"),
            ("urn:service:sos", 3, "1", Some("c.example"), "urn:service:sos"),
        ] {
            assert_eq!(dialled(uri, strip, prefix, host).as_deref(), Some(expected), "{uri}");
        }
    }

    #[test]
    fn what_leaves_nothing_to_dial_is_refused() {
        for (uri, strip, prefix) in [
            ("sip:12@h", 2, ""),
            ("sip:12@h", 3, "0049"),
            ("sip:%31@h", 2, "0"),
            ("sip:h", 1, ""),
            ("tel:+49", 3, ""),
            // No number of a tel URI.
            ("tel:+4930", 0, "00"),
            ("tel:+4930", 1, "x"),
        ] {
            assert_eq!(dialled(uri, strip, prefix, None), None, "{uri}");
        }
    }
}
