//! A version of a binding as Redis holds it: `v=1&node=a&time=…`, pairs with percent-escapes as in a form, which people and other
//! programs can read, and which loses no byte.

use crate::base::{Span, Transport};
use crate::settings::Words;
use crate::stack::location::{BindingText, Reached, SharedRow, Version};
use std::io::Write;
use std::net::SocketAddr;

/// The version of the form; the first pair says it.
const VERSION: &[u8] = b"1";

/// Texts of a row, as places in [`ReadRow::bytes`].
#[derive(Default)]
struct Parts {
    uri: Span,
    call_id: Span,
    path: Span,
    instance: Span,
    node: Span,
    relay: Span,
}

/// A row that was read. Its allocation is reused.
#[derive(Default)]
pub struct ReadRow {
    bytes: Vec<u8>,
    parts: Parts,
    version: Version,
    peer: Option<(Transport, SocketAddr)>,
    expires_ms: u64,
    lease_ms: u64,
    lifetime_s: u32,
    reg_id: u32,
    q: u16,
    reached: Option<Reached>,
    removed: bool,
    is_unsure: bool,
    position: u64,
}

/// Appends a row. What Redis adds, the position, is not written.
pub fn write(row: &SharedRow, out: &mut Vec<u8>) {
    out.extend_from_slice(b"v=");
    out.extend_from_slice(VERSION);
    let mut pair = |name: &str, value: &[u8]| {
        if !value.is_empty() {
            out.push(b'&');
            out.extend_from_slice(name.as_bytes());
            out.push(b'=');
            escape(value, out);
        }
    };
    let number = |number: u64| number.to_string().into_bytes();
    pair("uri", row.text.uri);
    pair("node", row.node);
    pair("time", &number(row.version.time_ms));
    pair("series", &number(row.version.series.into()));
    pair("cseq", &number(row.version.cseq.into()));
    pair("call", row.text.call_id);
    pair("expires", &number(row.expires_ms));
    pair("lease", &number(row.lease_ms));
    pair("life", &number(row.lifetime_s.into()));
    pair("q", &number(row.q.into()));
    pair("reached", row.reached.word().as_bytes());
    pair("path", row.text.path);
    pair("instance", row.text.instance);
    if row.reg_id != 0 {
        pair("reg", &number(row.reg_id.into()));
    }
    if let Some((transport, peer)) = row.peer {
        pair("from", format!("{}:{peer}", transport.word()).as_bytes());
    }
    pair("relay", row.relay);
    for (name, is_so) in [("removed", row.removed), ("unsure", row.is_unsure)] {
        if is_so {
            pair(name, b"1");
        }
    }
}

/// Appends a text in which only letters, digits and `-._~` stand for themselves.
pub fn escape(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(*byte),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

/// Appends what an escaped text means. `None` if an escape is none.
pub fn unescape(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut rest = text;
    while let [first, behind @ ..] = rest {
        rest = behind;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let [high, low, behind @ ..] = rest else {
            return None;
        };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        out.push((digit(*high)? * 16 + digit(*low)?) as u8);
        rest = behind;
    }
    Some(())
}

/// Returns the pairs of a form, the values still escaped; `None` for one without a value.
pub fn pairs(form: &[u8]) -> impl Iterator<Item = Option<(&[u8], &[u8])>> {
    form.split(|byte| *byte == b'&').map(|pair| {
        let at = memchr::memchr(b'=', pair)?;
        Some((&pair[..at], &pair[at + 1..]))
    })
}

impl ReadRow {
    /// Reads a value. The error says what is wrong with it.
    pub fn read(&mut self, form: &[u8]) -> Result<(), &'static str> {
        let bytes = std::mem::take(&mut self.bytes);
        *self = ReadRow { bytes, q: 1000, ..ReadRow::default() };
        self.bytes.clear();
        if !form.starts_with(b"v=1&") {
            return Err("it does not begin with v=1");
        }
        let mut seen = 0u32;
        for pair in pairs(form).skip(1) {
            let (name, value) = pair.ok_or("a pair has no value")?;
            let start = self.bytes.len();
            unescape(value, &mut self.bytes).ok_or("an escape is not two hexadecimal digits")?;
            let Some(at) = NAMES.iter().position(|known| known.as_bytes() == name) else {
                continue;
            };
            if seen & (1 << at) != 0 {
                return Err("it says something twice");
            }
            seen |= 1 << at;
            self.set(NAMES[at], Span::new(start, self.bytes.len()))?;
        }
        match NEEDED.iter().all(|name| NAMES.iter().position(|known| known == name).is_some_and(|at| seen & (1 << at) != 0)) {
            true => Ok(()),
            false => Err("something is missing"),
        }
    }

    fn set(&mut self, name: &str, span: Span) -> Result<(), &'static str> {
        let value = span.in_text(&self.bytes);
        let long = || number(value).ok_or("a number is none");
        let short = || number(value).and_then(|number| u32::try_from(number).ok()).ok_or("a number is none, or too great");
        match name {
            "uri" => self.parts.uri = span,
            "call" => self.parts.call_id = span,
            "path" => self.parts.path = span,
            "instance" => self.parts.instance = span,
            "node" => self.parts.node = span,
            "relay" => self.parts.relay = span,
            "time" => self.version.time_ms = long()?,
            "series" => self.version.series = short()?,
            "cseq" => self.version.cseq = short()?,
            "expires" => self.expires_ms = long()?,
            "lease" => self.lease_ms = long()?,
            "position" => {
                self.position = long().ok().filter(|position| *position < POSITIONS).ok_or("a position is none, or too great")?;
            }
            "life" => self.lifetime_s = short()?,
            "reg" => self.reg_id = short()?,
            "q" => self.q = short()?.min(1000) as u16,
            "reached" => {
                let word = std::str::from_utf8(value).ok();
                self.reached = Some(word.and_then(Reached::named).ok_or("reached is a word that is not known")?);
            }
            "from" => self.peer = Some(peer(value).ok_or("from is not an address")?),
            "removed" => self.removed = value == b"1",
            _ => self.is_unsure = value == b"1",
        }
        Ok(())
    }

    /// Returns what was read.
    pub fn row<'a>(&'a self, aor: &'a [u8]) -> SharedRow<'a> {
        let get = |span: Span| span.in_text(&self.bytes);
        let parts = &self.parts;
        SharedRow {
            aor,
            text: BindingText {
                uri: get(parts.uri),
                call_id: get(parts.call_id),
                path: get(parts.path),
                instance: get(parts.instance),
            },
            version: self.version,
            node: get(parts.node),
            relay: get(parts.relay),
            peer: self.peer,
            flow: None,
            expires_ms: self.expires_ms,
            lease_ms: self.lease_ms,
            lifetime_s: self.lifetime_s,
            reg_id: self.reg_id,
            q: self.q,
            reached: self.reached.unwrap_or(Reached::ByContact),
            removed: self.removed,
            is_unsure: self.is_unsure,
            leads_back: false,
            position: self.position,
        }
    }
}

/// Redis counts no further.
const POSITIONS: u64 = 1 << 53;

const NAMES: [&str; 19] = [
    "uri", "node", "time", "series", "cseq", "call", "expires", "lease", "life", "q", "reached", "path", "instance", "reg", "from",
    "relay", "removed", "unsure", "position",
];

const NEEDED: [&str; 10] = ["uri", "node", "time", "series", "cseq", "call", "expires", "lease", "life", "reached"];

fn number(digits: &[u8]) -> Option<u64> {
    match digits.iter().all(u8::is_ascii_digit) {
        true => std::str::from_utf8(digits).ok()?.parse().ok(),
        false => None,
    }
}

fn peer(text: &[u8]) -> Option<(Transport, SocketAddr)> {
    let (transport, address) = std::str::from_utf8(text).ok()?.split_once(':')?;
    Some((Transport::named(transport)?, address.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(row: &SharedRow) -> String {
        let mut out = Vec::new();
        write(row, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn read(form: &str) -> Result<ReadRow, &'static str> {
        let mut row = ReadRow::default();
        row.read(form.as_bytes())?;
        Ok(row)
    }

    const PLAIN: &str =
        "v=1&uri=sip%3Aa%40192.0.2.1&node=a&time=7&series=0&cseq=3&call=c1&expires=10&lease=20&life=60&q=700&reached=contact";

    #[test]
    fn a_value_is_what_the_documentation_shows() {
        let row = read(PLAIN).unwrap();
        let row = row.row(b"a@x");
        assert_eq!(written(&row), PLAIN);
        let text = BindingText { path: b"<sip:p;lr>", instance: b"\"<urn:1>\"", ..row.text };
        let rich = SharedRow {
            text,
            relay: b"t0",
            peer: Some((Transport::Tls, "[2001:db8::1]:5061".parse().unwrap())),
            reg_id: 2,
            reached: Reached::ByFlowFirst,
            removed: true,
            is_unsure: true,
            ..row
        };
        let form = written(&rich);
        let tail = "&reached=flow%20first&path=%3Csip%3Ap%3Blr%3E&instance=%22%3Curn%3A1%3E%22&reg=2\
                    &from=tls%3A%5B2001%3Adb8%3A%3A1%5D%3A5061&relay=t0&removed=1&unsure=1";
        assert!(form.ends_with(tail), "{form}");
        assert_eq!(written(&read(&form).unwrap().row(b"a@x")), form);
    }

    #[test]
    fn what_is_not_known_is_ignored_and_what_is_wrong_is_named() {
        let more = format!("{PLAIN}&position=9&colour=red&z=");
        assert_eq!(read(&more).unwrap().row(b"a@x").position, 9);
        for (from, to, why) in [
            ("v=1", "v=2", "it does not begin with v=1"),
            ("&cseq=3", "", "something is missing"),
            ("cseq=3", "cseq=x", "a number is none, or too great"),
            ("cseq=3", "cseq=4294967296", "a number is none, or too great"),
            ("time=7", "time=+7", "a number is none"),
            ("time=7", "time=7&time=8", "it says something twice"),
            ("%3A", "%Z3", "an escape is not two hexadecimal digits"),
            ("contact", "luck", "reached is a word that is not known"),
            ("&call", "&call&", "a pair has no value"),
        ] {
            let form = PLAIN.replacen(from, to, 1);
            assert_eq!(read(&form).err(), Some(why), "{form}");
        }
        assert!(read(&format!("{PLAIN}&from=udp")).is_err());
        for position in ["9007199254740992", "18446744073709551615", "99999999999999999999999", "-1"] {
            assert_eq!(read(&format!("{PLAIN}&position={position}")).err(), Some("a position is none, or too great"));
        }
        assert!(read("").is_err());
    }

    proptest! {
        #[test]
        fn no_byte_is_lost(uri in any::<Vec<u8>>(), call_id in any::<Vec<u8>>(), node in any::<Vec<u8>>(), time_ms in any::<u64>()) {
            let row = read(PLAIN).unwrap();
            let row = row.row(b"a@x");
            let text = BindingText { uri: &uri, call_id: &call_id, ..row.text };
            let row = SharedRow { text, node: &node, version: Version { time_ms, ..row.version }, ..row };
            let form = written(&row);
            let again = read(&form);
            if uri.is_empty() || call_id.is_empty() || node.is_empty() {
                prop_assert_eq!(again.err(), Some("something is missing"));
            } else {
                let again = again.unwrap();
                let again = again.row(b"a@x");
                prop_assert_eq!((again.text.uri, again.text.call_id, again.node), (&uri[..], &call_id[..], &node[..]));
                prop_assert_eq!(again.version, row.version);
            }
        }

        #[test]
        fn reading_never_panics(form in any::<Vec<u8>>()) {
            let _ = ReadRow::default().read(&[b"v=1&", &form[..]].concat());
        }
    }
}
