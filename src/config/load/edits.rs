//! What a `[[route]]` says about its targets, other than which they are, and what it changes in a request.

use std::time::Duration;

use toml::de::DeValue;

use super::document::Section;
use super::values::*;
use super::wrong::*;
use crate::settings::Millis;
use crate::stack::route::{Edits, Statuses};

const WEIGHTS: &str = "a list of whole numbers from 0 to 65535, one for each target, such as [70, 30]";

const STATUSES: &str = "a list of final responses such as [408, 503] or [\"5xx\"]";

const LINES: &str = "a list of header lines such as [\"X-Account: 42\"]";

const NAMES: &str = "a list of names of header fields such as [\"X-Account\"]";

/// Header fields that routing, transactions, dialogs and bodies depend on, with their short forms: a route must not touch them.
const KEPT: [&str; 27] = [
    "via",
    "v",
    "route",
    "record-route",
    "path",
    "service-route",
    "call-id",
    "i",
    "cseq",
    "from",
    "f",
    "to",
    "t",
    "contact",
    "m",
    "max-forwards",
    "max-breadth",
    "content-length",
    "l",
    "content-type",
    "c",
    "content-encoding",
    "e",
    "require",
    "proxy-require",
    "rack",
    "rseq",
];

impl Section<'_, '_> {
    pub(super) fn weights(&mut self, targets: usize) -> Vec<u16> {
        let Some(weights) = self.read("weight", weights) else {
            return Vec::new();
        };
        if weights.len() != targets && self.sound(["target", "action"]) {
            let message = format!("weight has {} numbers for {targets} targets: name one for each", weights.len());
            self.wrong(self.place("weight"), message);
        } else if weights.iter().all(|weight| *weight == 0) {
            self.wrong(self.place("weight"), "weight gives no target any request: one must be above 0");
        }
        weights
    }

    pub(super) fn failover(&mut self, targets: usize) -> Statuses {
        let statuses = self.read("failover", filled(list(STATUSES, statuses)));
        if statuses.is_some() && targets < 2 && self.sound(["target", "action"]) {
            let message = "failover has no effect here: there is no second target to try; remove it, or add one";
            self.wrong(self.place("failover"), message);
        }
        statuses.map(Statuses::new).unwrap_or_default()
    }

    pub(super) fn probe(&mut self, targets: usize) -> Option<Millis> {
        let probe = self.read("probe", millis(Duration::from_secs(1), Duration::from_secs(3600)));
        if probe.is_some() && targets == 0 && self.sound(["target", "action"]) {
            let message = "probe has no effect here: there is no target to ask; remove it, or add one";
            self.wrong(self.place("probe"), message);
        }
        probe
    }

    pub(super) fn edits(&mut self) -> Edits {
        let lines = self.read("add_header", filled(list(LINES, line))).unwrap_or_default();
        let names = self.read("remove_header", filled(list(NAMES, name)));
        Edits {
            strip: self.read("strip", number(0, 32)).unwrap_or_default(),
            prefix: self.read("prefix", prefix).unwrap_or_default(),
            set_host: self.read("set_host", set_host),
            add_header: lines.concat(),
            remove_header: names.unwrap_or_default(),
        }
    }
}

/// Numbers, duplicates allowed.
fn weights(value: &Value<'_>) -> Parsed<Vec<u16>> {
    let DeValue::Array(array) = value.get_ref() else {
        return Err(must_be(value, WEIGHTS));
    };
    let weights = array.iter().map(|entry| number(0, u64::from(u16::MAX))(entry));
    weights.collect::<Parsed<Vec<u16>>>()
}

/// A status, or a class of them: the range that it covers.
fn statuses(value: &Value<'_>) -> Parsed<(u16, u16)> {
    if let Some(status) = integer(value) {
        let status = u16::try_from(status).ok().filter(|status| (300..=699).contains(status));
        return status.map(|status| (status, status)).ok_or_else(|| must_be(value, STATUSES));
    }
    let text = string(value, STATUSES)?;
    let class = match text.to_ascii_lowercase().as_bytes() {
        [digit @ b'3'..=b'6', b'x', b'x'] => u16::from(digit - b'0') * 100,
        _ => return Err(must_be(value, STATUSES)),
    };
    Ok((class, class + 99))
}

fn is_kept(name: &str) -> bool {
    KEPT.iter().any(|kept| kept.eq_ignore_ascii_case(name))
}

/// A header line with its end.
fn line(value: &Value<'_>) -> Parsed<Vec<u8>> {
    let text = string(value, LINES)?;
    let (name, content) = text.split_once(':').ok_or_else(|| must_be(value, LINES))?;
    let (name, content) = (name.trim_end(), content.trim());
    if name.is_empty() || !name.bytes().all(is_token) || content.is_empty() || content.chars().any(char::is_control) {
        return Err(must_be(value, LINES));
    }
    if is_kept(name) {
        return Err(wrong(value, format!("adds {name}, which requests find their way by: only this server writes it")));
    }
    Ok(format!("{name}: {content}\r\n").into_bytes())
}

/// The name of a header field, lower-case.
fn name(value: &Value<'_>) -> Parsed<Vec<u8>> {
    let text = string(value, NAMES)?;
    if text.is_empty() || !text.bytes().all(is_token) {
        return Err(must_be(value, NAMES));
    }
    if is_kept(text) {
        return Err(wrong(value, format!("removes {text}, which requests find their way by: it must stay")));
    }
    Ok(text.to_ascii_lowercase().into_bytes())
}

/// What may be put in front of a user part unescaped (RFC 3261 §25.1, `user`).
fn prefix(value: &Value<'_>) -> Parsed<Vec<u8>> {
    let what = "what a user part may begin with, such as \"0049\" or \"+\"";
    let text = string(value, what)?;
    let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&byte);
    match !text.is_empty() && text.len() <= 64 && text.bytes().all(may_stand) {
        true => Ok(text.into()),
        false => Err(must_be(value, what)),
    }
}

/// A host, optionally with a port.
fn set_host(value: &Value<'_>) -> Parsed<Vec<u8>> {
    let what = "a host, with a port if need be, such as \"example.net\" or \"[2001:db8::1]:5080\"";
    let text = string(value, what)?;
    let uri = format!("sip:{text}");
    match super::uri::read_uri(&uri) {
        Some(uri) if uri.user.is_none() && uri.params.clone().next().is_none() => Ok(text.to_ascii_lowercase().into_bytes()),
        _ => Err(must_be(value, what)),
    }
}
