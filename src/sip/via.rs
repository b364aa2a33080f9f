//! Via values (RFC 3261 §20.42), and the `received` and `rport` that a server stamps on the topmost (§18.2.1, RFC 3581 §4).

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use super::cursor::{self, TOKEN};
use super::error::Fault;
use super::params::Params;
use super::plain;
use super::rewrite::Rewrite;
use super::uri::{Host, HostPort, parse_ip};
use super::values::Value;
use crate::base::Span;

/// One Via value.
#[derive(Clone, Copy, Debug)]
pub struct Via<'a> {
    /// `UDP`, `TCP`, `TLS` … as written.
    pub transport: &'a [u8],
    /// The host of `sent-by`.
    pub host: Host<'a>,
    pub host_text: &'a [u8],
    pub port: Option<u16>,
    pub params: Params<'a>,
    /// The value, without white space around it.
    pub text: &'a [u8],
    /// Position of the value in its message.
    pub value: Value<'a>,
    known: Known,
}

/// Positions of the parameters that matter to a proxy, as offsets into the text. `end == 0` means absent: no parameter ends there.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    branch: Found,
    received: Found,
    rport: Found,
    maddr: Found,
    ttl: Found,
    /// From RFC 7339 §4.1 and §4.2.
    oc: Found,
    oc_algo: Found,
    /// One of them appears twice; the first one counts.
    is_repeated: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Found {
    semicolon: u32,
    name: u32,
    /// 0 if the parameter has no value.
    value: u32,
    end: u32,
}

impl Found {
    fn is_present(self) -> bool {
        self.end != 0
    }

    fn value(self, text: &[u8]) -> Option<&[u8]> {
        if self.value == 0 {
            return None;
        }
        text.get(self.value as usize..self.end as usize)
    }
}

/// The first value of a header field, as offsets into the field value, for the index of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct ViaParts {
    transport: Span,
    /// The address, if `host_text` is one.
    ip: Option<IpAddr>,
    host_text: Span,
    port: Option<u16>,
    params: Span,
    text_len: u32,
    /// Where the value ends: a comma, or the end of the field value.
    pub(super) end: u32,
    known: Known,
}

impl ViaParts {
    pub(super) fn parse(list: &[u8]) -> Result<ViaParts, Fault> {
        match plain::via(list) {
            Some(via) => Ok(ViaParts::plain(&via, list)),
            None => ViaParts::parse_fully(list),
        }
    }

    #[inline]
    pub(super) fn plain(via: &plain::Via, list: &[u8]) -> ViaParts {
        let found = |param: Option<plain::Param>| {
            param.map_or(Found::default(), |param| Found {
                semicolon: param.name as u32 - 1,
                name: param.name as u32,
                value: param.value as u32,
                end: param.end as u32,
            })
        };
        ViaParts {
            transport: Span::new(via.transport.0, via.transport.1),
            ip: via.host.ip.map(IpAddr::V4),
            host_text: Span::new(via.transport.1 + 1, via.host.host_end),
            port: via.host.port,
            params: Span::new(via.host.end, list.len()),
            text_len: list.len() as u32,
            end: list.len() as u32,
            known: Known { branch: found(via.branch), received: found(via.received), rport: found(via.rport), ..Known::default() },
        }
    }

    pub(super) fn parse_fully(list: &[u8]) -> Result<ViaParts, Fault> {
        let (via, end) = Via::parse_prefix(list)?;
        Ok(ViaParts {
            transport: Span::of(via.transport, list),
            ip: via.host.ip(),
            host_text: Span::of(via.host_text, list),
            port: via.port,
            params: Span::of(via.params.text(), list),
            text_len: via.text.len() as u32,
            end: end as u32,
            known: via.known,
        })
    }

    /// Returns the Via; `list` is the field value that it was parsed from.
    #[inline]
    pub(super) fn in_list<'a>(&self, list: &'a [u8], value: Value<'a>) -> Via<'a> {
        let host_text = self.host_text.in_text(list);
        Via {
            transport: self.transport.in_text(list),
            host: match self.ip {
                Some(IpAddr::V4(ip)) => Host::V4(ip),
                Some(IpAddr::V6(ip)) => Host::V6(ip),
                None => Host::Name(host_text),
            },
            host_text,
            port: self.port,
            params: Params::new(self.params.in_text(list)),
            text: self.text(list),
            value,
            known: self.known,
        }
    }

    /// A parameter that determines where the answer goes appears twice, so that two readers may see two different Vias. A peer that
    /// adds a second `rport` to a Via of ours has answered all the same.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.known.is_repeated
    }

    #[inline]
    pub(super) fn text<'a>(&self, list: &'a [u8]) -> &'a [u8] {
        list.get(..self.text_len as usize).unwrap_or_default()
    }

    #[inline]
    pub(super) fn branch<'a>(&self, list: &'a [u8]) -> Option<&'a [u8]> {
        self.known.branch.value(self.text(list))
    }
}

impl<'a> Via<'a> {
    /// Reads a value that was already cut out at its commas, as [`super::Message::values`] gives it.
    pub fn parse(value: Value<'a>) -> Result<Via<'a>, Fault> {
        let (mut via, end) = Via::parse_prefix(value.text).map_err(|_| Fault::Via)?;
        if end != value.text.len() || via.known.is_repeated {
            return Err(Fault::Via);
        }
        via.value = value;
        Ok(via)
    }

    /// Reads the first value of `text`, up to a comma or the end: the value and that offset. `value` is left empty.
    #[inline]
    pub(super) fn parse_prefix(text: &'a [u8]) -> Result<(Via<'a>, usize), Fault> {
        let transport_start = if text.starts_with(b"SIP/2.0/") {
            8
        } else {
            let at = part(text, 0).ok_or(Fault::Via)?;
            part(text, at).ok_or(Fault::Via)?
        };
        let transport_end = cursor::skip_few(text, transport_start, TOKEN);
        let host_start = cursor::skip_space(text, transport_end);
        if transport_end == transport_start || host_start == transport_end {
            return Err(Fault::Via);
        }
        let (sent_by, length) = HostPort::parse_prefix(&text[host_start..], true)?;
        let params_start = host_start + length;
        let mut known = Known::default();
        let end = if params_start == text.len() {
            params_start
        } else {
            Params::scan(text, params_start, |param| {
                let (start, end) = param.name;
                let name = &text[start..end];
                let found = match name.len() {
                    6 if cursor::is_word(name, b"branch") => &mut known.branch,
                    5 if cursor::is_word(name, b"rport") => &mut known.rport,
                    8 if cursor::is_word(name, b"received") => &mut known.received,
                    5 if cursor::is_word(name, b"maddr") => &mut known.maddr,
                    3 if cursor::is_word(name, b"ttl") => &mut known.ttl,
                    2 if cursor::is_word(name, b"oc") => &mut known.oc,
                    7 if cursor::is_word(name, b"oc-algo") => &mut known.oc_algo,
                    _ => return Ok(()),
                };
                if found.is_present() {
                    // With two branches, two readers could see two transactions.
                    if name.len() == 6 {
                        return Err(Fault::Via);
                    }
                    known.is_repeated = true;
                    return Ok(());
                }
                *found = Found {
                    semicolon: param.semicolon as u32,
                    name: start as u32,
                    value: param.value.map_or(0, |(start, _)| start as u32),
                    end: param.end() as u32,
                };
                Ok(())
            })?
        };
        let trimmed = cursor::trim_end(&text[..end]);
        let via = Via {
            transport: &text[transport_start..transport_end],
            host: sent_by.host,
            host_text: sent_by.text,
            port: sent_by.port,
            params: Params::new(cursor::trim_start(&trimmed[params_start.min(trimmed.len())..])),
            text: trimmed,
            value: Value::default(),
            known,
        };
        Ok((via, end))
    }

    pub fn branch(&self) -> Option<&'a [u8]> {
        self.known.branch.value(self.text)
    }

    /// The address in `received`, with or without brackets (RFC 5118 §4.5).
    pub fn received(&self) -> Option<IpAddr> {
        parse_ip(self.known.received.value(self.text)?)
    }

    /// Some(None) if the sender asks for the port (RFC 3581), Some(Some(port)) if a server has filled it in. A value that is not a
    /// port is ignored.
    pub fn rport(&self) -> Option<Option<u16>> {
        if !self.known.rport.is_present() {
            return None;
        }
        let port = self.known.rport.value(self.text).and_then(cursor::number);
        Some(port.and_then(|port| u16::try_from(port).ok()).filter(|&port| port != 0))
    }

    pub fn maddr(&self) -> Option<&'a [u8]> {
        self.known.maddr.value(self.text)
    }

    pub fn ttl(&self) -> Option<u8> {
        let ttl = cursor::number(self.known.ttl.value(self.text)?)?;
        u8::try_from(ttl).ok()
    }

    /// Position of the `rport` parameter, name and value, as offsets into the message.
    pub fn rport_span(&self) -> Option<Span> {
        self.span(self.known.rport)
    }

    /// Position of the `received` parameter, name and value, as offsets into the message.
    pub fn received_span(&self) -> Option<Span> {
        self.span(self.known.received)
    }

    /// Whether the element that wrote this Via can drop a share of its requests at our request (RFC 7339 §4.1): `oc` without a
    /// value, and `loss` in `oc-algo`.
    pub fn offers_control(&self) -> bool {
        if !self.known.oc.is_present() || self.known.oc.value != 0 {
            return false;
        }
        let algorithms = self.known.oc_algo.value(self.text).unwrap_or_default();
        let list = algorithms.trim_ascii().strip_prefix(b"\"");
        let list = list.and_then(|list| list.strip_suffix(b"\""));
        let mut names = list.unwrap_or(algorithms).split(|byte| *byte == b',');
        names.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"loss"))
    }

    /// The edits by which this Via tells its writer what to drop, ordered by offset into the message; none if that was not offered.
    pub(super) fn feedback(&self, feedback: Feedback) -> impl Iterator<Item = (Range<usize>, Stamp)> + use<> {
        let end = self.params_end();
        let range = |found: Found| self.span(found).map(Span::range);
        let edits = self.offers_control().then(|| {
            let oc = range(self.known.oc).map(|range| (range, Stamp::Lose(feedback)));
            let algorithm = range(self.known.oc_algo).map(|range| (range, Stamp::ByLoss));
            let more = Some((end..end, Stamp::MoreFeedback(feedback)));
            match self.known.oc.name < self.known.oc_algo.name {
                true => [oc, algorithm, more],
                false => [algorithm, oc, more],
            }
        });
        edits.into_iter().flatten().flatten()
    }

    /// Where a parameter can be appended, as an offset into the message.
    pub fn params_end(&self) -> usize {
        self.value.span.start as usize + self.text.len()
    }

    fn span(&self, found: Found) -> Option<Span> {
        let base = self.value.span.start;
        found.is_present().then_some(Span { start: base + found.name, end: base + found.end })
    }

    /// The edits that stamp `source` on this Via, ordered by offset into the message.
    pub(super) fn stamps(&self, source: SocketAddr) -> [Option<(Range<usize>, Stamp)>; 3] {
        let source_ip = source.ip().to_canonical();
        let base = self.value.span.start as usize;
        let differs = self.host.ip().is_none_or(|ip| ip.to_canonical() != source_ip);
        let rport = self.known.rport;
        let received = self.known.received;
        let rport_edit = rport.is_present().then(|| {
            let range = base + rport.name as usize..base + rport.end as usize;
            (range, Stamp::Rport(source.port()))
        });
        let needed = differs || rport.is_present();
        let received_edit = if received.is_present() {
            let end = base + received.end as usize;
            Some(if needed {
                (base + received.name as usize..end, Stamp::Received(source_ip))
            } else {
                // The sender must not set it (§18.2.1 lets only the server add it).
                (base + received.semicolon as usize..end, Stamp::Nothing)
            })
        } else {
            None
        };
        let appended =
            (needed && !received.is_present()).then(|| (self.params_end()..self.params_end(), Stamp::MoreReceived(source_ip)));
        if received.is_present() && received.name < rport.name {
            [received_edit, rport_edit, appended]
        } else {
            [rport_edit, received_edit, appended]
        }
    }
}

/// What a server tells the previous element about its load (RFC 7339 §4).
#[derive(Clone, Copy, Debug)]
pub struct Feedback {
    /// Percentage of requests to drop; 0: it is not overloaded.
    pub percent: u8,
    /// How long that is valid.
    pub validity_ms: u32,
    /// The time, which orders the reports.
    pub wall_ms: u64,
}

/// What a stamp writes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stamp {
    Nothing,
    Lose(Feedback),
    ByLoss,
    MoreFeedback(Feedback),
    Rport(u16),
    Received(IpAddr),
    MoreReceived(IpAddr),
}

impl Stamp {
    pub(super) fn write(self, out: &mut Vec<u8>) {
        match self {
            Stamp::Nothing => {}
            Stamp::Lose(feedback) => {
                out.extend_from_slice(b"oc=");
                cursor::write_number(u32::from(feedback.percent), out);
            }
            Stamp::ByLoss => out.extend_from_slice(b"oc-algo=\"loss\""),
            Stamp::MoreFeedback(feedback) => {
                out.extend_from_slice(b";oc-validity=");
                cursor::write_number(feedback.validity_ms, out);
                out.extend_from_slice(b";oc-seq=");
                // Twelve digits at most.
                cursor::write_number((feedback.wall_ms / 1000) as u32, out);
                out.push(b'.');
                let thousandths = (feedback.wall_ms % 1000) as u32;
                // With an extra digit in front that is then dropped: the zeros stay.
                let begin = out.len();
                cursor::write_number(1000 + thousandths, out);
                out.remove(begin);
            }
            Stamp::Rport(port) => {
                out.extend_from_slice(b"rport=");
                cursor::write_number(u32::from(port), out);
            }
            Stamp::Received(ip) => {
                out.extend_from_slice(b"received=");
                cursor::write_ip(ip, out);
            }
            Stamp::MoreReceived(ip) => {
                out.push(b';');
                Stamp::Received(ip).write(out);
            }
        }
    }
}

/// Adds to `rewrite` what the server transport stamps on the topmost Via of a request (§18.2.1, RFC 3581 §4): `received` if the
/// host in sent-by is not the source's address or `rport` is requested, the port as the value of an `rport`; forged values are
/// replaced.
pub fn fill_received(via: &Via, source: SocketAddr, rewrite: &mut Rewrite) {
    for (range, stamp) in via.stamps(source).into_iter().flatten() {
        rewrite.replace(range, |out| stamp.write(out));
    }
}

/// Makes a response tell the writer of this Via, its receiver, what to drop, if that was offered.
pub fn fill_feedback(via: &Via, feedback: Feedback, rewrite: &mut Rewrite) {
    for (range, stamp) in via.feedback(feedback) {
        rewrite.replace(range, |out| stamp.write(out));
    }
}

/// Skips `token SLASH`, white space anywhere.
fn part(text: &[u8], at: usize) -> Option<usize> {
    let start = cursor::skip_space(text, at);
    let end = cursor::skip(text, start, TOKEN);
    let slash = cursor::skip_space(text, end);
    if end == start || text.get(slash) != Some(&b'/') {
        return None;
    }
    Some(cursor::skip_space(text, slash + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::{Index, Message, Name};

    fn message(via: &str) -> Vec<u8> {
        format!("OPTIONS sip:a SIP/2.0\r\nTo: x\r\nVia: {via}\r\n\r\n").into_bytes()
    }

    fn stamped(via: &str, source: &str) -> String {
        let bytes = message(via);
        let mut index = Index::default();
        let message = Message::parse(&bytes, &mut index).unwrap();
        let mut rewrite = Rewrite::default();
        let via = message.top_via().unwrap();
        fill_received(&via, source.parse().unwrap(), &mut rewrite);
        let mut out = Vec::new();
        rewrite.render(&bytes, &mut out);
        // Filling in is idempotent.
        let mut index = Index::default();
        let again = Message::parse(&out, &mut index).unwrap();
        let stamped = again.header(Name::Via).unwrap().value.to_vec();
        let via = again.top_via().unwrap();
        rewrite.clear();
        fill_received(&via, source.parse().unwrap(), &mut rewrite);
        let mut twice = Vec::new();
        rewrite.render(again.bytes(), &mut twice);
        assert_eq!(twice, out);
        String::from_utf8(stamped).unwrap()
    }

    #[test]
    fn the_parts_of_a_via() {
        let text =
            "SIP / 2.0 / TLS  [2001:db8::1] : 5061 ; branch = z9hG4bKa ;ttl=16; MAddr=224.2.0.1 ;received=192.0.2.1;rport=77;x";
        let bytes = message(text);
        let mut index = Index::default();
        let message = Message::parse(&bytes, &mut index).unwrap();
        let via = message.top_via().unwrap();
        assert_eq!(via.transport, b"TLS");
        assert_eq!(via.host, Host::V6("2001:db8::1".parse().unwrap()));
        assert_eq!(via.host_text, b"[2001:db8::1]");
        assert_eq!(via.port, Some(5061));
        assert_eq!(via.branch(), Some(&b"z9hG4bKa"[..]));
        assert_eq!(via.ttl(), Some(16));
        assert_eq!(via.maddr(), Some(&b"224.2.0.1"[..]));
        assert_eq!(via.received(), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(via.rport(), Some(Some(77)));
        assert_eq!(via.params.get(b"x"), Some(None));
        assert_eq!(&bytes[via.rport_span().unwrap().range()], b"rport=77");
        assert_eq!(&bytes[via.received_span().unwrap().range()], b"received=192.0.2.1");
        assert_eq!(via.params_end(), via.value.span.end as usize);
        assert_eq!(&bytes[via.value.span.range()], text.as_bytes());
        assert_eq!(via.text, text.as_bytes());
    }

    #[test]
    fn what_is_not_a_via() {
        for bad in [
            "",
            "SIP/2.0/UDP",
            "SIP/2.0/UDP ",
            "SIP/2.0 h",
            "SIP/2.0/ h",
            "/2.0/UDP h",
            "SIP/2.0/UDP h;;branch=x",
            "SIP/2.0/UDP h;",
            "SIP/2.0/UDP ;branch=x",
            "SIP/2.0/UDP h:0",
            "SIP/2.0/UDP h:99999",
            "SIP/2.0/UDP h x",
            "SIP/2.0/UDP h;a=\"",
            "SIP/2.0/UDPh",
            "SIP/2.0/UDP h;branch=a;branch=b",
            "SIP/2.0/UDP [::1",
            "SIP/2.0/UDP 1.2.3",
            "SIP/2.0/UDP h/x",
            ", SIP/2.0/UDP h",
        ] {
            let bytes = message(bad);
            let mut index = Index::default();
            let message = Message::parse(&bytes, &mut index).unwrap();
            assert_eq!(message.top_via().unwrap_err(), Fault::Via, "{bad}");
        }
    }

    #[test]
    fn a_parameter_that_stands_twice_is_a_fault_of_a_request_and_the_first_one_counts_in_a_response() {
        for twice in [
            "SIP/2.0/UDP h;rport;rport=7",
            "SIP/2.0/UDP h;received=1.2.3.4;branch=x;Received=1.2.3.5",
            "SIP/2.0/UDP h;maddr=a;maddr=a",
            "SIP/2.0/UDP h;ttl=1;ttl=2",
        ] {
            let bytes = message(twice);
            let mut index = Index::default();
            let request = Message::parse(&bytes, &mut index).unwrap();
            assert_eq!(request.check().unwrap_err(), Fault::Via, "{twice}");
            let via = request.top_via().unwrap();
            assert!(!matches!(via.rport(), Some(Some(_))));
            assert!(via.received().is_none_or(|ip| ip == parse_ip(b"1.2.3.4").unwrap()));
            // None of the others may be duplicated: they determine where an answer is sent.
            let value = Value { text: twice.as_bytes(), ..Value::default() };
            assert_eq!(Via::parse(value).unwrap_err(), Fault::Via, "{twice}");
        }
    }

    #[test]
    fn received_and_rport_are_filled_in() {
        for (via, source, expected) in [
            // The host in sent-by is the source: nothing to say.
            ("SIP/2.0/UDP 192.0.2.1:5060;branch=x", "192.0.2.1:9", "SIP/2.0/UDP 192.0.2.1:5060;branch=x"),
            ("SIP/2.0/UDP 192.0.2.1", "192.0.2.2:9", "SIP/2.0/UDP 192.0.2.1;received=192.0.2.2"),
            ("SIP/2.0/UDP h.example;branch=x", "192.0.2.2:9", "SIP/2.0/UDP h.example;branch=x;received=192.0.2.2"),
            // RFC 3581 §4: with rport, received is always there.
            ("SIP/2.0/UDP 192.0.2.1;rport;branch=x", "192.0.2.1:9", "SIP/2.0/UDP 192.0.2.1;rport=9;branch=x;received=192.0.2.1"),
            // A value written by the sender is not trusted.
            (
                "SIP/2.0/UDP h;received=10.0.0.1;branch=x;rport=1",
                "192.0.2.2:65535",
                "SIP/2.0/UDP h;received=192.0.2.2;branch=x;rport=65535",
            ),
            (
                "SIP/2.0/UDP h;rport = 1 ;branch=x; received = 10.0.0.1",
                "192.0.2.2:80",
                "SIP/2.0/UDP h;rport=80 ;branch=x; received=192.0.2.2",
            ),
            ("SIP/2.0/UDP 192.0.2.1 ; received=10.0.0.1;branch=x", "192.0.2.1:9", "SIP/2.0/UDP 192.0.2.1 ;branch=x"),
            ("SIP/2.0/UDP h;rport=;branch=x", "192.0.2.2:80", "SIP/2.0/UDP h;rport=80;branch=x;received=192.0.2.2"),
            (
                "SIP/2.0/UDP h;rport =  , SIP/2.0/UDP g",
                "192.0.2.2:80",
                "SIP/2.0/UDP h;rport=80;received=192.0.2.2  , SIP/2.0/UDP g",
            ),
            ("SIP/2.0/UDP [2001:db8::1]", "[2001:db8::1]:9", "SIP/2.0/UDP [2001:db8::1]"),
            ("SIP/2.0/UDP [2001:db8::1]", "[2001:db8::2]:9", "SIP/2.0/UDP [2001:db8::1];received=2001:db8::2"),
            // A dual-stack socket reports IPv4 sources as mapped.
            ("SIP/2.0/UDP 192.0.2.1", "[::ffff:192.0.2.1]:9", "SIP/2.0/UDP 192.0.2.1"),
            ("SIP/2.0/UDP h", "[::ffff:192.0.2.1]:9", "SIP/2.0/UDP h;received=192.0.2.1"),
            // Only the first value of a line.
            (
                "SIP/2.0/UDP h ;branch=x , SIP/2.0/UDP g;rport",
                "192.0.2.2:80",
                "SIP/2.0/UDP h ;branch=x;received=192.0.2.2 , SIP/2.0/UDP g;rport",
            ),
        ] {
            assert_eq!(stamped(via, source), expected);
        }
    }

    #[test]
    fn who_offers_it_is_told_what_to_lose() {
        let feedback = Feedback { percent: 40, validity_ms: 500, wall_ms: 1_700_000_000_007 };
        let fed = |text: &str| {
            let bytes = message(text);
            let mut index = Index::default();
            let message = Message::parse(&bytes, &mut index).unwrap();
            let mut rewrite = Rewrite::default();
            fill_feedback(&message.top_via().unwrap(), feedback, &mut rewrite);
            let mut out = Vec::new();
            rewrite.render(&bytes, &mut out);
            let mut index = Index::default();
            let again = Message::parse(&out, &mut index).unwrap();
            String::from_utf8(again.header(Name::Via).unwrap().value.to_vec()).unwrap()
        };
        for (text, said) in [
            (
                "SIP/2.0/UDP h;branch=x;oc;oc-algo=\"loss\"",
                "SIP/2.0/UDP h;branch=x;oc=40;oc-algo=\"loss\";oc-validity=500;oc-seq=1700000000.007",
            ),
            (
                "SIP/2.0/TLS h;OC-Algo = \"rate , LOSS\" ;oc ;branch=x",
                "SIP/2.0/TLS h;oc-algo=\"loss\" ;oc=40 ;branch=x;oc-validity=500;oc-seq=1700000000.007",
            ),
        ] {
            assert_eq!(fed(text), said);
        }
        for other in [
            "SIP/2.0/UDP h;branch=x",
            "SIP/2.0/UDP h;branch=x;oc",
            "SIP/2.0/UDP h;branch=x;oc=0;oc-algo=\"loss\"",
            "SIP/2.0/UDP h;branch=x;oc;oc-algo=\"rate\"",
            "SIP/2.0/UDP h;branch=x;oc;oc-algo",
            "SIP/2.0/UDP h;branch=x;oc-algo=\"loss\"",
        ] {
            assert_eq!(fed(other), other);
        }
    }
}
