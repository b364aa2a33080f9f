//! A message read in place (RFC 3261 §7): its content, and the checks that each one must pass (§16.3 step 1).

use std::ops::Range;

use super::cursor::{self, TOKEN};
use super::error::Fault;
use super::header::{Header, Name};
use super::index::Index;
use super::lines::Line;
use super::method::Method;
use super::name_addr::{AddressParts, NameAddr};
use super::uri::{Scheme, Uri, UriParts};
use super::values::{Value, Values};
use super::via::{Via, ViaParts};
use crate::base::Span;

/// A received message and its index.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    index: &'a Index,
}

/// `CSeq: number method`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CSeq<'a> {
    pub number: u32,
    pub method: &'a [u8],
}

impl<'a> Message<'a> {
    /// Indexes one datagram or one framed message in one pass. CRLFs before the start line are passed over (RFC 3261 §7.5).
    ///
    /// An error means that the bytes are not SIP: nothing in them can be used or answered. Any lesser fault is kept in
    /// [`Message::fault`]; the header lines that could be read stay readable, so that a response can be written.
    pub fn parse(bytes: &'a [u8], index: &'a mut Index) -> Result<Message<'a>, Fault> {
        index.fill(bytes)?;
        Ok(Message { bytes, index })
    }

    /// All the bytes that were parsed: all offsets are into them. The message is `start()..end()`.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Offset of the start line, after any leading CRLFs.
    pub fn start(&self) -> usize {
        self.index.start as usize
    }

    /// The first structural fault: in the start line, the header lines or the Content-Length.
    pub fn fault(&self) -> Option<Fault> {
        self.index.fault
    }

    /// The structural fault, or the first reason for which a proxy or registrar must refuse the message before it looks at its
    /// purpose (RFC 3261 §8.1.1, §16.3 step 1; RFC 4475). For a response: whether a proxy can forward it (§16.7), which takes the
    /// topmost Via and the method in CSeq. Whether the rest of it is valid is for the client to decide, which must not be left
    /// without an answer.
    pub fn check(&self) -> Result<(), Fault> {
        if let Some(fault) = self.index.fault {
            return Err(fault);
        }
        let (_, via) = self.parts_of_top_via()?;
        if !self.is_request() {
            return self.cseq().map(drop);
        }
        if via.is_ambiguous() {
            return Err(Fault::Via);
        }
        let (text, from) = self.parts_of_from()?;
        check_address(text, from).map_err(|_| Fault::From)?;
        let (text, to) = self.parts_of_to()?;
        check_address(text, to).map_err(|_| Fault::To)?;
        self.call_id()?;
        let cseq = self.cseq()?;
        self.max_forwards()?;
        if cseq.method != self.method_name() {
            return Err(match self.index.start_line.method {
                Method::Other => Fault::CSeqMethodUnknown,
                _ => Fault::CSeqMethod,
            });
        }
        match self.parts_of_uri().map_err(|_| Fault::RequestUri)?.has_headers() {
            true => Err(Fault::RequestUriHeaders),
            false => Ok(()),
        }
    }

    pub fn is_request(&self) -> bool {
        self.index.start_line.status == 0
    }

    /// The method of a request, or the method in a response's CSeq.
    pub fn method(&self) -> Method {
        if self.is_request() {
            return self.index.start_line.method;
        }
        self.cseq().map_or(Method::Other, |cseq| Method::parse(cseq.method))
    }

    /// The token that [`Message::method`] stands for; empty in a response without a readable CSeq.
    pub fn method_name(&self) -> &'a [u8] {
        if self.is_request() {
            return self.slice(self.index.start_line.method_span);
        }
        self.cseq().map_or(b"", |cseq| cseq.method)
    }

    /// The Request-URI's text; empty in a response.
    pub fn request_uri(&self) -> &'a [u8] {
        self.slice(self.index.start_line.request_uri)
    }

    /// The parsed Request-URI.
    pub fn uri(&self) -> Result<Uri<'a>, Fault> {
        Ok(self.parts_of_uri()?.in_text(self.request_uri()))
    }

    /// The scheme of the Request-URI.
    pub fn uri_scheme(&self) -> Result<Scheme, Fault> {
        Ok(self.parts_of_uri()?.scheme())
    }

    pub fn request_uri_range(&self) -> Range<usize> {
        self.index.start_line.request_uri.range()
    }

    /// Position of the SIP-Version if it is not written `SIP/2.0`, the form in which it must be sent (RFC 3261 §7.1).
    pub fn unusual_version(&self) -> Option<Range<usize>> {
        let range = match self.is_request() {
            true => self.request_uri_range().end + 1..self.headers_start().saturating_sub(2),
            false => self.start()..self.start() + b"SIP/2.0".len(),
        };
        (self.bytes.get(range.clone())? != b"SIP/2.0").then_some(range)
    }

    /// The status code; 0 in a request. A response whose code is not three digits from 100 to 699 has a fault and the status 999.
    pub fn status(&self) -> u16 {
        self.index.start_line.status
    }

    pub fn reason_phrase(&self) -> &'a [u8] {
        self.slice(self.index.start_line.reason)
    }

    /// All header lines that could be read, in order.
    pub fn headers(&self) -> impl Iterator<Item = Header<'a>> + use<'a> {
        let bytes = self.bytes;
        self.index.lines.iter().map(move |line| line.header(bytes))
    }

    /// True if there is a header line of this name.
    #[inline]
    pub fn has(&self, name: Name) -> bool {
        self.index.lines.has(name)
    }

    /// The first header line of a name.
    pub fn header(&self, name: Name) -> Option<Header<'a>> {
        Some(self.first(name)?.header(self.bytes))
    }

    /// All header lines of a name, in order, without visiting the others.
    pub fn all(&self, name: Name) -> impl Iterator<Item = Header<'a>> + use<'a> {
        let Message { bytes, index } = *self;
        std::iter::successors(self.first(name), move |line| index.lines.next(line)).map(move |line| line.header(bytes))
    }

    /// The comma-separated values of all lines of a name, in order. A comma in quotes or in angle brackets does not separate. Not
    /// for names in whose values a comma has another meaning (Date, the authorization headers, Subject …).
    pub fn values(&self, name: Name) -> Values<'a> {
        Values::new(self.bytes, &self.index.lines, name)
    }

    /// The unreadable header lines of a response, as ranges of the bytes. How the next reader would take them is unknown, so they
    /// are left out of what is forwarded.
    pub fn unread_lines(&self) -> impl Iterator<Item = Range<usize>> + use<'a> {
        let (mut done, end) = (self.headers_start(), self.headers_end());
        let known = self.index.has_unread_lines;
        let lines = known.then(|| self.headers().map(|header| header.line.range()));
        let lines = lines.into_iter().flatten();
        lines.chain(known.then_some(end..end)).filter_map(move |line| {
            let gap = done..line.start;
            done = line.end;
            (!gap.is_empty()).then_some(gap)
        })
    }

    /// Offset of the first header line.
    pub fn headers_start(&self) -> usize {
        self.index.headers_start as usize
    }

    /// Offset of the empty line, before which a header line would be appended.
    pub fn headers_end(&self) -> usize {
        self.index.headers_end as usize
    }

    /// The body: as long as Content-Length says; without one, all that came.
    pub fn body(&self) -> &'a [u8] {
        self.slice(self.index.body)
    }

    /// Offset after the body. Anything further in a datagram is noise (RFC 3261 §18.3).
    pub fn end(&self) -> usize {
        self.index.body.end as usize
    }

    /// The topmost Via value.
    pub fn top_via(&self) -> Result<Via<'a>, Fault> {
        let (line, parts) = self.parts_of_top_via()?;
        let value = self.top_value(line, parts);
        Ok(parts.in_list(value.header.value, value))
    }

    /// Position of the topmost Via value, without parsing it.
    pub fn top_via_value(&self) -> Result<Value<'a>, Fault> {
        let (line, parts) = self.parts_of_top_via()?;
        Ok(self.top_value(line, parts))
    }

    /// True if another Via value follows the topmost.
    pub fn has_second_via(&self) -> bool {
        let Ok((line, parts)) = self.parts_of_top_via() else {
            return false;
        };
        let mut others = self.all(Name::Via).skip(1);
        let shared = line.value_start + parts.end < line.value_end;
        others.any(|via| !via.value.is_empty()) || (shared && self.values(Name::Via).skip(1).any(|via| !via.text.is_empty()))
    }

    #[inline]
    fn top_value(&self, line: &Line, parts: &ViaParts) -> Value<'a> {
        let header = line.header(self.bytes);
        let (start, end) = (line.value_start as usize, parts.end as usize);
        let text = parts.text(header.value);
        let last = end == header.value.len();
        let next = match last {
            true => header.value.len(),
            false => cursor::skip_space(header.value, end + 1),
        };
        Value { text, span: Span::new(start, start + text.len()), header, first: true, last, next: (start + next) as u32 }
    }

    /// The branch of the topmost Via; `None` also if that Via is unreadable.
    pub fn top_branch(&self) -> Option<&'a [u8]> {
        let (line, parts) = self.parts_of_top_via().ok()?;
        parts.branch(line.value(self.bytes))
    }

    fn parts_of_top_via(&self) -> Result<(&'a Line, &'a ViaParts), Fault> {
        let line = self.first(Name::Via).ok_or(Fault::ViaMissing)?;
        let read = || ViaParts::parse(line.value(self.bytes)).map_err(|_| Fault::Via);
        Ok((line, self.index.top_via.get(read)?))
    }

    pub fn from(&self) -> Result<NameAddr<'a>, Fault> {
        let (text, parts) = self.parts_of_from()?;
        Ok(parts.in_text(text))
    }

    pub fn to(&self) -> Result<NameAddr<'a>, Fault> {
        let (text, parts) = self.parts_of_to()?;
        Ok(parts.in_text(text))
    }

    /// The tag of From; `None` also if From is unreadable.
    pub fn from_tag(&self) -> Option<&'a [u8]> {
        let (text, parts) = self.parts_of_from().ok()?;
        parts.tag(text)
    }

    /// The tag of To; `None` also if To is unreadable.
    pub fn to_tag(&self) -> Option<&'a [u8]> {
        let (text, parts) = self.parts_of_to().ok()?;
        parts.tag(text)
    }

    fn parts_of_uri(&self) -> Result<&'a UriParts, Fault> {
        self.index.uri.get(|| UriParts::parse(self.request_uri()))
    }

    fn parts_of_from(&self) -> Result<(&'a [u8], &'a AddressParts), Fault> {
        let line = self.only(Name::From, Fault::FromMissing, Fault::FromRepeated)?;
        let text = line.value(self.bytes);
        let read = || AddressParts::parse(text).map_err(|_| Fault::From);
        Ok((text, self.index.from.get(read)?))
    }

    fn parts_of_to(&self) -> Result<(&'a [u8], &'a AddressParts), Fault> {
        let line = self.only(Name::To, Fault::ToMissing, Fault::ToRepeated)?;
        let text = line.value(self.bytes);
        let read = || AddressParts::parse(text).map_err(|_| Fault::To);
        Ok((text, self.index.to.get(read)?))
    }

    pub fn call_id(&self) -> Result<&'a [u8], Fault> {
        let line = self.only(Name::CallId, Fault::CallIdMissing, Fault::CallIdRepeated)?;
        let id = line.value(self.bytes);
        // `word [ "@" word ]`: visible ASCII. Branchless so that the loop is vectorized.
        let other = id.iter().fold(0, |other, &b| other | u8::from(b.wrapping_sub(0x21) > 0x7e - 0x21));
        if id.is_empty() || other != 0 {
            return Err(Fault::CallId);
        }
        Ok(id)
    }

    pub fn cseq(&self) -> Result<CSeq<'a>, Fault> {
        let line = self.only(Name::CSeq, Fault::CSeqMissing, Fault::CSeqRepeated)?;
        let value = line.value(self.bytes);
        let (number, method_start) = *self.index.cseq.get(|| read_cseq(value))?;
        let method = value.get(method_start as usize..).unwrap_or_default();
        Ok(CSeq { number, method })
    }

    pub fn max_forwards(&self) -> Result<Option<u8>, Fault> {
        let Some(line) = self.first(Name::MaxForwards) else {
            return Ok(None);
        };
        if !line.is_last() {
            return Err(Fault::MaxForwardsRepeated);
        }
        cursor::number(line.value(self.bytes)).and_then(|hops| u8::try_from(hops).ok()).map(Some).ok_or(Fault::MaxForwards)
    }

    /// The first header field of a name that holds a count or delta-seconds; more than 32 bits saturates (RFC 3261 §20.19). The
    /// number of a Retry-After may be followed by a comment and parameters.
    pub fn number(&self, name: Name) -> Result<Option<u32>, Fault> {
        let Some(line) = self.first(name) else {
            return Ok(None);
        };
        let mut text = line.value(self.bytes);
        if name == Name::RetryAfter {
            let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
            if let Some(b' ' | b'\t' | b'\r' | b'\n' | b'(' | b';') = text.get(digits) {
                text = &text[..digits];
            }
        }
        cursor::number_saturating(text).map(Some).ok_or(Fault::Number)
    }

    fn slice(&self, span: Span) -> &'a [u8] {
        span.in_text(self.bytes)
    }

    fn first(&self, name: Name) -> Option<&'a Line> {
        self.index.lines.first(name)
    }

    fn only(&self, name: Name, missing: Fault, repeated: Fault) -> Result<&'a Line, Fault> {
        let line = self.first(name).ok_or(missing)?;
        if !line.is_last() {
            return Err(repeated);
        }
        Ok(line)
    }
}

fn read_cseq(value: &[u8]) -> Result<(u32, u32), Fault> {
    let digits = value.iter().take_while(|b| b.is_ascii_digit()).count();
    let method_start = cursor::skip_space(value, digits);
    if method_start == digits || !cursor::all(&value[method_start..], TOKEN) {
        return Err(Fault::CSeq);
    }
    let number = cursor::number(&value[..digits]).ok_or(Fault::CSeq)?;
    Ok((number, method_start as u32))
}

/// Checks the addresses of From and To: a URI of any scheme, and at most one tag, which is not empty.
fn check_address(text: &[u8], address: &AddressParts) -> Result<(), Fault> {
    if !address.has_plain_uri() {
        Uri::parse(address.uri(text))?;
    }
    match address.has_sound_tag(text) {
        true => Ok(()),
        false => Err(Fault::Parameter),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::index::MAX_HEADER_LINES;
    use crate::sip::{Host, Rewrite, fill_received, reply};

    const INVITE: &[u8] = b"INVITE sip:bob@biloxi.example.com SIP/2.0\r\n\
        Via: SIP/2.0/UDP 10.1.3.3:5060;branch=z9hG4bKnashds8;rport\r\n\
        v: SIP/2.0/TCP a.example.com;branch=z9hG4bK1 , SIP/2.0/TLS [2001:db8::1]:5061;branch=z9hG4bK2\r\n\
        Max-Forwards: 70\r\n\
        To: Bob <sip:bob@biloxi.example.com>\r\n\
        f: \"Alice, \\\"A\\\"\" <sip:alice@atlanta.example.com>;tag=1928301774\r\n\
        Call-ID: a84b4c76e66710@pc33.atlanta.example.com\r\n\
        CSeq: 314159 INVITE\r\n\
        Route: <sip:p1.example.com;lr>,\r\n <sip:p2.example.com;lr> , <sip:p3.example.com;x=\",\">\r\n\
        Subject:\r\n\
        Supported:\r\n\
        Content-Length: 4\r\n\
        \r\n\
        bodyjunk";

    #[test]
    fn a_request_is_indexed() {
        let mut index = Index::default();
        let message = Message::parse(INVITE, &mut index).unwrap();
        assert_eq!(message.fault(), None);
        assert_eq!(message.check(), Ok(()));
        assert!(message.is_request());
        assert_eq!(message.method(), Method::Invite);
        assert_eq!(message.method_name(), b"INVITE");
        assert_eq!(message.request_uri(), b"sip:bob@biloxi.example.com");
        assert_eq!(&INVITE[message.request_uri_range()], message.request_uri());
        assert_eq!(message.status(), 0);
        assert_eq!(message.body(), b"body");
        assert_eq!(message.end(), INVITE.len() - 4);
        assert_eq!(&INVITE[message.headers_end()..message.headers_end() + 2], b"\r\n");
        assert!(INVITE[message.headers_start()..].starts_with(b"Via:"));
        assert_eq!(message.headers().count(), 11);
        let via = message.top_via().unwrap();
        assert_eq!(via.transport, b"UDP");
        assert_eq!(via.host, Host::V4([10, 1, 3, 3].into()));
        assert_eq!(via.port, Some(5060));
        assert_eq!(via.branch(), Some(&b"z9hG4bKnashds8"[..]));
        assert_eq!(via.rport(), Some(None));
        assert_eq!(via.received(), None);
        assert_eq!(&INVITE[via.rport_span().unwrap().range()], b"rport");
        assert!(via.value.first && via.value.last);
        assert_eq!(message.from().unwrap().tag(), Some(&b"1928301774"[..]));
        assert_eq!(message.to().unwrap().tag(), None);
        assert_eq!(message.call_id(), Ok(&b"a84b4c76e66710@pc33.atlanta.example.com"[..]));
        assert_eq!(message.cseq(), Ok(CSeq { number: 314159, method: b"INVITE" }));
        assert_eq!(message.max_forwards(), Ok(Some(70)));
        assert_eq!(message.number(Name::Expires), Ok(None));
        assert_eq!(message.header(Name::Subject).unwrap().value, b"");
        assert_eq!(message.values(Name::Supported).count(), 0);
        assert!(message.header(Name::Contact).is_none());
    }

    #[test]
    fn values_run_over_lines_and_know_where_they_stand() {
        let mut index = Index::default();
        let message = Message::parse(INVITE, &mut index).unwrap();
        let routes: Vec<_> = message.values(Name::Route).collect();
        assert_eq!(routes.len(), 3);
        assert_eq!(routes[1].text, b"<sip:p2.example.com;lr>");
        assert_eq!(routes[2].text, b"<sip:p3.example.com;x=\",\">");
        assert_eq!((routes[0].first, routes[0].last), (true, false));
        assert_eq!((routes[2].first, routes[2].last), (false, true));
        let vias: Vec<_> = message.values(Name::Via).map(|v| Via::parse(v).unwrap()).collect();
        assert_eq!(vias.len(), 3);
        assert_eq!(vias[2].host, Host::V6("2001:db8::1".parse().unwrap()));
        assert_eq!(vias[2].port, Some(5061));
        for value in message.values(Name::Via).chain(message.values(Name::Route)) {
            assert_eq!(&INVITE[value.span.range()], value.text);
        }
        assert_eq!(message.all(Name::Via).count(), 2);
    }

    #[test]
    fn a_forwarded_request_differs_only_in_its_edits() {
        let mut index = Index::default();
        let message = Message::parse(INVITE, &mut index).unwrap();
        let mut rewrite = Rewrite::default();
        let via = message.top_via().unwrap();
        fill_received(&via, "192.0.2.9:4444".parse().unwrap(), &mut rewrite);
        let routes: Vec<_> = message.values(Name::Route).collect();
        rewrite.remove_value(&routes[0]);
        rewrite.insert(message.headers_start(), |out| out.extend_from_slice(b"Via: SIP/2.0/UDP us\r\n"));
        rewrite.replace(message.request_uri_range(), |out| out.extend_from_slice(b"sip:x@y"));
        let mut out = Vec::new();
        rewrite.render(&INVITE[..message.end()], &mut out);
        let text = String::from_utf8(INVITE[..message.end()].to_vec()).unwrap();
        let expected = text
            .replacen("sip:bob@biloxi.example.com", "sip:x@y", 1)
            .replacen("Via: ", "Via: SIP/2.0/UDP us\r\nVia: ", 1)
            .replacen(";rport\r\n", ";rport=4444;received=192.0.2.9\r\n", 1)
            .replacen("<sip:p1.example.com;lr>,\r\n ", "", 1);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_reply_carries_what_the_rfc_says() {
        let mut index = Index::default();
        let message = Message::parse(INVITE, &mut index).unwrap();
        let mut out = Vec::new();
        let reply =
            reply::Reply { status: 404, to_tag: b"xyz", received: Some("192.0.2.9:4444".parse().unwrap()), ..Default::default() };
        reply::write(&message, &reply, |out| out.extend_from_slice(b"Server: s\r\n"), &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "SIP/2.0 404 Not Found\r\n\
            Via: SIP/2.0/UDP 10.1.3.3:5060;branch=z9hG4bKnashds8;rport=4444;received=192.0.2.9\r\n\
            v: SIP/2.0/TCP a.example.com;branch=z9hG4bK1 , SIP/2.0/TLS [2001:db8::1]:5061;branch=z9hG4bK2\r\n\
            f: \"Alice, \\\"A\\\"\" <sip:alice@atlanta.example.com>;tag=1928301774\r\n\
            To: Bob <sip:bob@biloxi.example.com>;tag=xyz\r\n\
            Call-ID: a84b4c76e66710@pc33.atlanta.example.com\r\n\
            CSeq: 314159 INVITE\r\n\
            Server: s\r\n\
            Content-Length: 0\r\n\r\n"
        );
    }

    /// Makes a request with these header lines after a valid start line.
    fn with(headers: &str) -> Vec<u8> {
        format!("OPTIONS sip:a@b SIP/2.0\r\n{headers}\r\n").into_bytes()
    }

    const GOOD: &str =
        "Via: SIP/2.0/UDP h;branch=z9hG4bKa\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:b@c>\r\nCall-ID: x@y\r\nCSeq: 1 OPTIONS\r\n";

    fn verdict(bytes: &[u8]) -> Result<(), Fault> {
        Message::parse(bytes, &mut Index::default())?.check()
    }

    #[test]
    fn each_fault_is_told_from_the_others() {
        assert_eq!(verdict(&with(GOOD)), Ok(()));
        let changed = |from: &str, to: &str| {
            assert!(GOOD.contains(from));
            verdict(&with(&GOOD.replacen(from, to, 1)))
        };
        let added = |line: &str| verdict(&with(&format!("{GOOD}{line}\r\n")));
        for (found, fault) in [
            (changed("Via:", "Vja:"), Fault::ViaMissing),
            (changed("From:", "Frm:"), Fault::FromMissing),
            (changed("To:", "Too:"), Fault::ToMissing),
            (changed("Call-ID:", "CallID:"), Fault::CallIdMissing),
            (changed("CSeq:", "Sequence:"), Fault::CSeqMissing),
            (added("f: <sip:x@y>"), Fault::FromRepeated),
            (added("t: <sip:x@y>"), Fault::ToRepeated),
            (added("i: z"), Fault::CallIdRepeated),
            (added("CSEQ: 1 OPTIONS"), Fault::CSeqRepeated),
            (added("Max-Forwards: 1\r\nMax-Forwards: 1"), Fault::MaxForwardsRepeated),
            (added("l: 0\r\nContent-Length: 0"), Fault::ContentLengthRepeated),
            (added("l: 1"), Fault::ContentLengthTooLong),
            (added("l: 99999999999999999999"), Fault::ContentLengthTooLong),
            (added("l: "), Fault::ContentLength),
            (added("l: +0"), Fault::ContentLength),
            (added("l: 0 0"), Fault::ContentLength),
            (added("Max-Forwards: 256"), Fault::MaxForwards),
            (added("Max-Forwards: "), Fault::MaxForwards),
            (added("Max-Forwards: -1"), Fault::MaxForwards),
            (changed("UDP h", "UDP"), Fault::Via),
            (changed("<sip:a@b>", "<a@b>"), Fault::From),
            (changed(";tag=1", ";tag="), Fault::From),
            (changed(";tag=1", ";tag=\"\""), Fault::From),
            (changed(";tag=1", ";tag=\"1\""), Fault::From),
            (changed(";tag=1", ";tag"), Fault::From),
            (changed(";tag=1", ";tag=1;x;Tag=1"), Fault::From),
            (changed("<sip:b@c>", "<sip:b@c"), Fault::To),
            (changed("<sip:b@c>", ""), Fault::To),
            (changed("x@y", "x y"), Fault::CallId),
            (changed("x@y", ""), Fault::CallId),
            (changed("x@y", "\u{e4}"), Fault::CallId),
            (changed("1 OPTIONS", "4294967296 OPTIONS"), Fault::CSeq),
            (changed("1 OPTIONS", "OPTIONS"), Fault::CSeq),
            (changed("1 OPTIONS", "1OPTIONS"), Fault::CSeq),
            (changed("1 OPTIONS", "1 "), Fault::CSeq),
            (changed("1 OPTIONS", "-1 OPTIONS"), Fault::CSeq),
            (changed("1 OPTIONS", "1 OPTIONS x"), Fault::CSeq),
            (changed("1 OPTIONS", "1 options"), Fault::CSeqMethod),
            (added("no colon"), Fault::HeaderLine),
            (added(": no name"), Fault::HeaderLine),
            (added("two words: x"), Fault::HeaderLine),
            (added("Subject: a\rb"), Fault::BareCr),
            (added("Subject: a\nX: b"), Fault::BareLf),
        ] {
            assert_eq!(found, Err(fault));
        }
        for line in ["Max-Forwards: 255", "l: 0", "l:\r\n 0", "Max-Forwards: 000", "X:", "X:\r\n y", "Max-Forwards:\t7\t"] {
            assert_eq!(added(line), Ok(()), "{line}");
        }
        assert_eq!(changed("1 OPTIONS", "4294967295\r\n\tOPTIONS"), Ok(()));
    }

    #[test]
    fn start_lines() {
        let verdict = |line: &str| verdict(format!("{line}\r\n{GOOD}\r\n").as_bytes());
        for line in
            ["OPTIONS sip:a@b SIP/2.0", "OPTIONS sip:a@b sip/2.0", "OPTIONS sip:a@b SIP/02.00", "\r\n\r\nOPTIONS tel:+1 SIP/2.0"]
        {
            assert_eq!(verdict(line), Ok(()), "{line}");
        }
        for line in ["SIP/2.0 200 OK", "SIP/2.0 699 ", "SIP/2.0 100", "sip/2.0 200 a b c"] {
            assert_eq!(verdict(line), Ok(()), "{line}");
        }
        for (line, fault) in [
            ("", Fault::NotSip), // the empty line ends nothing here: it is skipped, and `Via:` becomes the start line
            ("OPTIONS", Fault::NotSip),
            ("OPTIONS sip:a@b", Fault::NotSip),
            ("GET / HTTP/1.1", Fault::NotSip),
            ("SIP/x 200 OK", Fault::NotSip),
            ("SIPS/2.0 200 OK", Fault::NotSip),
            ("OPTIONS sip:a@b SIP/2", Fault::NotSip),
            ("OPTIONS sip:a@b SIP/2.1", Fault::Version),
            ("OPTIONS sip:a@b SIP/3.0", Fault::Version),
            ("SIP/3.0 200 OK", Fault::Version),
            ("OPTIONS SIP/2.0", Fault::RequestUri),
            ("OPTIONS  SIP/2.0", Fault::RequestUri),
            (" OPTIONS sip:a@b SIP/2.0", Fault::Method),
            ("OPT{ONS sip:a@b SIP/2.0", Fault::Method),
            ("OPTIONS\tsip:a@b SIP/2.0", Fault::Method),
            ("OPTIONS sip:a@b  SIP/2.0", Fault::StartLine),
            ("OPTIONS sip:a@b\tSIP/2.0", Fault::StartLine),
            ("OPTIONS sip:a b SIP/2.0", Fault::RequestUri),
            ("SIP/2.0 0200 OK", Fault::StatusCode),
            ("SIP/2.0 099 OK", Fault::StatusCode),
            ("SIP/2.0 700 OK", Fault::StatusCode),
            ("SIP/2.0 20 OK", Fault::StatusCode),
            ("SIP/2.0  200 OK", Fault::StatusCode),
            ("SIP/2.0", Fault::StatusCode),
        ] {
            assert_eq!(verdict(line), Err(fault), "{line}");
        }
    }

    #[test]
    fn a_version_fault_leaves_the_rest_readable() {
        let bytes = format!("NEW sip:a@b SIP/9.1\r\n{GOOD}\r\n");
        let mut index = Index::default();
        let message = Message::parse(bytes.as_bytes(), &mut index).unwrap();
        assert_eq!(message.fault(), Some(Fault::Version));
        assert_eq!(message.method_name(), b"NEW");
        assert_eq!(message.request_uri(), b"sip:a@b");
        assert!(message.top_via().is_ok());
    }

    #[test]
    fn cut_anywhere_it_is_truncated_or_not_sip() {
        let bytes = with(GOOD);
        for end in 0..bytes.len() {
            let found = verdict(&bytes[..end]);
            assert!(matches!(found, Err(Fault::Truncated | Fault::NotSip | Fault::BareCr)), "{end}: {found:?}");
        }
    }

    #[test]
    fn a_broken_line_is_passed_over_and_the_others_stay_readable() {
        let bytes = with(&format!("bad line\r\n{GOOD}: y\r\nSubject: s\n"));
        let mut index = Index::default();
        let message = Message::parse(&bytes, &mut index).unwrap();
        assert_eq!(message.fault(), Some(Fault::HeaderLine));
        assert_eq!(message.headers().count(), 6);
        assert_eq!(message.header(Name::Subject).unwrap().value, b"s");
        assert!(message.top_via().is_ok() && message.from().is_ok() && message.cseq().is_ok());
    }

    #[test]
    fn header_lines_are_bounded() {
        let bytes = with(&"X: y\r\n".repeat(MAX_HEADER_LINES));
        assert_eq!(verdict(&bytes), Err(Fault::ViaMissing));
        let bytes = with(&"X: y\r\n".repeat(MAX_HEADER_LINES + 1));
        assert_eq!(verdict(&bytes), Err(Fault::TooManyHeaders));
        let name = "x".repeat(70_000);
        assert_eq!(verdict(&with(&format!("{name}: y\r\n"))), Err(Fault::HeaderLine));
    }

    #[test]
    fn folds_join_lines_wherever_white_space_may_stand() {
        let bytes = with(
            "v: SIP/2.0/UDP h\r\n ;branch=a\r\n\t,\r\n SIP/2.0/UDP g\r\nSubject:\r\n  one\r\n\ttwo \r\nX:\r\n \r\n \r\nRoute:\r\n <sip:a>\r\n",
        );
        let mut index = Index::default();
        let message = Message::parse(&bytes, &mut index).unwrap();
        assert_eq!(message.fault(), None);
        assert_eq!(message.header(Name::Subject).unwrap().value, b"one\r\n\ttwo");
        let vias: Vec<_> = message.values(Name::Via).map(|value| Via::parse(value).unwrap()).collect();
        assert_eq!(vias.len(), 2);
        assert_eq!(vias[0].branch(), Some(&b"a"[..]));
        assert_eq!(vias[1].host_text, b"g");
        assert_eq!(message.headers().find(|h| h.raw_name == b"X").unwrap().value, b"");
        assert_eq!(message.header(Name::Route).unwrap().value, b"<sip:a>");
    }

    #[test]
    fn commas_separate_values_only_outside_of_quotes_and_angles() {
        for (list, expected) in [
            ("<sip:a>,<sip:b>", &["<sip:a>", "<sip:b>"][..]),
            ("\"a, \\\", b\" <sip:a,b;x=\"> , c", &["\"a, \\\", b\" <sip:a,b;x=\">", "c"]),
            ("a;x=\"1,2\",b", &["a;x=\"1,2\"", "b"]),
            ("*", &["*"]),
            (",", &["", ""]),
            ("a,,b", &["a", "", "b"]),
            ("a,", &["a", ""]),
            ("a \r\n , \r\n b", &["a", "b"]),
            ("\"open, b", &["\"open, b"]),
            ("<open, b", &["<open, b"]),
            ("a, \"x\\", &["a", "\"x\\"]),
            ("", &[]),
        ] {
            let bytes = with(&format!("Contact: {list}\r\nm: last\r\n"));
            let mut index = Index::default();
            let message = Message::parse(&bytes, &mut index).unwrap();
            let mut values: Vec<_> = message.values(Name::Contact).collect();
            let last = values.pop().unwrap();
            assert!(last.text == b"last" && last.first && last.last);
            let texts: Vec<_> = values.iter().map(|v| std::str::from_utf8(v.text).unwrap()).collect();
            assert_eq!(texts, expected, "{list}");
            assert!(values.first().is_none_or(|v| v.first) && values.last().is_none_or(|v| v.last));
            assert!(values.iter().all(|v| &bytes[v.span.range()] == v.text));
        }
    }

    #[test]
    fn numbers() {
        for (value, expected) in [
            ("3600", Ok(Some(3600))),
            ("4294967295", Ok(Some(u32::MAX))),
            ("4294967296", Ok(Some(u32::MAX))),
            ("1e3", Err(Fault::Number)),
            ("-1", Err(Fault::Number)),
            ("", Err(Fault::Number)),
        ] {
            let bytes = with(&format!("Expires: {value}\r\n"));
            let mut index = Index::default();
            assert_eq!(Message::parse(&bytes, &mut index).unwrap().number(Name::Expires), expected);
        }
        let bytes = with("Retry-After: 120 (busy);duration=60\r\n");
        let mut index = Index::default();
        assert_eq!(Message::parse(&bytes, &mut index).unwrap().number(Name::RetryAfter), Ok(Some(120)));
        for bad in ["0x10", "5s", "1.5", ";duration=60", "(soon)", ""] {
            let bytes = with(&format!("Retry-After: {bad}\r\n"));
            let mut index = Index::default();
            let message = Message::parse(&bytes, &mut index).unwrap();
            assert_eq!(message.number(Name::RetryAfter), Err(Fault::Number), "{bad}");
        }
    }

    #[test]
    fn an_index_serves_one_message_after_the_other() {
        let mut index = Index::default();
        Message::parse(INVITE, &mut index).unwrap();
        let bad = with("Contact: x\r\nCSeq: 1 X\r\nbad\r\n");
        assert_eq!(Message::parse(&bad, &mut index).unwrap().fault(), Some(Fault::HeaderLine));
        let message = Message::parse(b"SIP/2.0 183 Session Progress\r\nTo: <sip:a>\r\n\r\n", &mut index).unwrap();
        assert_eq!(message.fault(), None);
        assert_eq!(message.status(), 183);
        assert_eq!(message.method(), Method::Other);
        assert_eq!((message.method_name(), message.request_uri()), (&b""[..], &b""[..]));
        assert_eq!(message.reason_phrase(), b"Session Progress");
        assert_eq!(message.headers().count(), 1);
        assert!(message.header(Name::Contact).is_none() && message.header(Name::CSeq).is_none());
        assert!(Message::parse(b"nonsense", &mut index).is_err());
    }

    #[test]
    fn the_method_of_a_response_is_that_of_its_cseq() {
        let bytes = format!("SIP/2.0 200 OK\r\n{GOOD}\r\n");
        let mut index = Index::default();
        let message = Message::parse(bytes.as_bytes(), &mut index).unwrap();
        assert_eq!(message.method(), Method::Options);
        assert_eq!(message.method_name(), b"OPTIONS");
        assert!(!message.is_request());
    }
}
