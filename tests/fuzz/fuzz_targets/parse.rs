//! Fuzz target: any bytes as a datagram. What is indexed lies where it says, readers of raw bytes agree with the index, a reply to it is a message.
#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::{Corpus, fuzz_target};
use strowger::sip::reply::{self, Reply};
use strowger::sip::{Frame, Framer, Index, Message, Name, NameAddr, Params, Uri, Value, Via, sniff};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let mut index = Index::default();
    let Ok(message) = Message::parse(bytes, &mut index) else {
        within(bytes, sniff::top_via_branch(bytes).unwrap_or_default());
        sniff::method(bytes);
        return Corpus::Keep;
    };
    lies_where_it_says(&message);
    values_are_in_order(&message);
    values_can_be_read(&message);
    raw_readers_agree(&message);
    framer_agrees(&message);
    if message.check().is_ok() {
        all_that_matters_is_readable(&message);
    }
    if message.is_request() {
        reply_is_a_message(&message);
    }
    // An index that served another message before serves this one no differently.
    let mut used = Index::default();
    let other = b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h\r\nVia: x\r\nTo: x\r\nl: 7\r\nl: 8\r\nbad\r\n\r\n";
    assert!(Message::parse(other, &mut used).is_ok());
    let again = Message::parse(bytes, &mut used).unwrap();
    assert_eq!(again.fault(), message.fault());
    assert_eq!(again.check(), message.check());
    assert_eq!(again.end(), message.end());
    assert!(again.headers().map(|h| (h.name, h.line)).eq(message.headers().map(|h| (h.name, h.line))));
    Corpus::Keep
});

/// `part` is a slice of `whole`, or empty.
fn within(whole: &[u8], part: &[u8]) {
    let (outer, inner) = (whole.as_ptr_range(), part.as_ptr_range());
    assert!(part.is_empty() || (outer.start <= inner.start && inner.end <= outer.end));
}

fn lies_where_it_says(message: &Message) {
    let bytes = message.bytes();
    assert!(message.start() <= message.headers_start());
    assert!(message.headers_start() <= message.headers_end());
    assert!(message.headers_end() <= message.end());
    assert!(message.end() <= bytes.len());
    within(bytes, message.body());
    within(bytes, message.method_name());
    within(bytes, message.reason_phrase());
    if message.is_request() {
        assert_eq!(&bytes[message.request_uri_range()], message.request_uri());
    }
    if message.fault().is_none() {
        assert!(bytes[message.headers_end()..].starts_with(b"\r\n"));
        assert_eq!(message.end() - message.body().len(), message.headers_end() + 2);
    }
    let mut at = message.headers_start();
    let mut gaps = Vec::new();
    for header in message.headers() {
        let line = header.line.range();
        assert!(line.start >= at && line.end <= message.headers_end());
        if line.start > at {
            gaps.push(at..line.start);
        }
        at = line.end;
        assert_eq!(&bytes[header.value_span.range()], header.value);
        assert!(line.start <= header.value_span.range().start && header.value_span.range().end <= line.end);
        assert!(bytes[line].starts_with(header.raw_name));
        assert_eq!(Name::parse(header.raw_name), header.name);
        assert_eq!(header.value.trim_ascii(), header.value.trim_ascii_start().trim_ascii_end());
        let by_name = message.all(header.name).map(|h| h.line);
        assert!(by_name.eq(message.headers().filter(|h| h.name == header.name).map(|h| h.line)));
        assert_eq!(message.header(header.name).map(|h| h.line), message.headers().find(|h| h.name == header.name).map(|h| h.line));
    }
    if at < message.headers_end() {
        gaps.push(at..message.headers_end());
    }
    // Of a request every line is read, or it is refused. Of a response those that cannot be read are known, and left out.
    if message.fault().is_none() {
        assert_eq!(message.unread_lines().collect::<Vec<_>>(), gaps);
        assert!(gaps.is_empty() || !message.is_request());
    }
}

fn values_are_in_order(message: &Message) {
    for name in [Name::Via, Name::Contact, Name::Route, Name::Supported, Name::Other] {
        let values: Vec<Value> = message.values(name).collect();
        for value in &values {
            assert_eq!(&message.bytes()[value.span.range()], value.text);
            let (outer, inner) = (value.header.value_span.range(), value.span.range());
            assert!(outer.start <= inner.start && inner.end <= outer.end);
        }
        for pair in values.windows(2) {
            assert!(pair[0].span.range().end <= pair[1].span.range().start);
            let same_line = pair[0].header.line == pair[1].header.line;
            assert_eq!(same_line, !pair[0].last);
            assert_eq!(same_line, !pair[1].first);
            if same_line {
                let between = &message.bytes()[pair[0].span.range().end..pair[1].span.range().start];
                assert_eq!(between.trim_ascii(), b",");
            }
        }
    }
}

fn values_can_be_read(message: &Message) {
    let mut uris = vec![message.request_uri()];
    for name in [Name::Contact, Name::Route, Name::From, Name::To] {
        for value in message.values(name).take(16) {
            let Ok(address) = NameAddr::parse(value.text) else {
                continue;
            };
            assert_eq!(&value.text[address.uri_span.range()], address.uri);
            within(value.text, address.display.unwrap_or_default());
            params_lie_within(value.text, address.params);
            let _ = (address.q(), address.expires(), address.tag());
            uris.push(address.uri);
        }
    }
    for value in message.values(Name::Via) {
        let Ok(via) = Via::parse(value) else {
            continue;
        };
        assert_eq!(via.text, value.text);
        assert_eq!(via.branch(), via.params.get(b"branch").flatten());
        assert_eq!(via.rport().is_some(), via.params.get(b"rport").is_some());
        assert_eq!(via.received_span().is_some(), via.params.get(b"received").is_some());
        params_lie_within(value.text, via.params);
    }
    let uris: Vec<Uri> = uris.into_iter().take(24).filter_map(|text| Uri::parse(text).ok()).collect();
    for a in &uris {
        for part in [a.user, a.password, Some(a.host_text), a.headers].into_iter().flatten() {
            within(a.text, part);
        }
        params_lie_within(a.text, a.params);
        assert!(a.equals(a));
        let key = |uri: &Uri| {
            let mut key = Vec::new();
            uri.write_address_of_record(&mut key);
            key
        };
        for b in &uris {
            assert_eq!(a.equals(b), b.equals(a));
            if a.equals(b) && a.scheme != strowger::sip::Scheme::Other {
                assert_eq!(key(a), key(b));
            }
        }
    }
}

fn params_lie_within(text: &[u8], params: Params) {
    for (name, value) in params {
        within(text, name);
        within(text, value.unwrap_or_default());
        assert!(params.get(name).is_some());
    }
}

fn raw_readers_agree(message: &Message) {
    let bytes = message.bytes();
    let kind = if message.is_request() { sniff::Kind::Request } else { sniff::Kind::Response };
    assert_eq!(sniff::kind(bytes), kind);
    if message.fault().is_none() {
        if message.is_request() {
            assert_eq!(sniff::method(bytes), message.method());
        }
        let branch = message.top_via().ok().and_then(|via| via.branch());
        assert_eq!(sniff::top_via_branch(bytes), branch);
        let first = message.values(Name::Via).next().and_then(|value| Via::parse(value).ok());
        if let (Ok(top), Some(first)) = (message.top_via(), first) {
            assert_eq!(top.text, first.text);
            assert_eq!(top.value.span, first.value.span);
            assert_eq!((top.value.first, top.value.last), (first.value.first, first.value.last));
        }
    }
}

fn framer_agrees(message: &Message) {
    let bytes = &message.bytes()[message.start()..];
    if message.fault().is_none() && message.header(Name::ContentLength).is_some() {
        let length = message.end() - message.start();
        assert_eq!(Framer::new(usize::MAX).next(bytes), Frame::Message(length));
    }
}

fn all_that_matters_is_readable(message: &Message) {
    message.top_via().unwrap();
    if !message.is_request() {
        message.cseq().unwrap();
        assert!((100..700).contains(&message.status()));
        return;
    }
    message.from().unwrap();
    message.to().unwrap();
    message.call_id().unwrap();
    assert_eq!(message.cseq().unwrap().method, message.method_name());
    message.max_forwards().unwrap();
    Uri::parse(message.request_uri()).unwrap();
}

fn reply_is_a_message(request: &Message) {
    let source: SocketAddr = "[2001:db8::77]:5099".parse().unwrap();
    for (status, to_tag) in [(100, &b""[..]), (400, b"tag")] {
        let answer = Reply { status, to_tag, received: Some(source), ..Default::default() };
        let mut bytes = Vec::new();
        reply::write(request, &answer, |out| out.extend_from_slice(b"Server: s\r\n"), &mut bytes);
        let mut index = Index::default();
        let reply = Message::parse(&bytes, &mut index).unwrap();
        assert_eq!(reply.fault(), None);
        assert_eq!(reply.status(), status);
        assert_eq!(reply.end(), bytes.len());
        assert_eq!(reply.all(Name::Via).count(), request.all(Name::Via).count());
        if request.fault().is_none() {
            for name in [Name::From, Name::CallId, Name::CSeq] {
                assert_eq!(reply.header(name).map(|h| h.value), request.header(name).map(|h| h.value));
            }
            assert!(reply.all(Name::Via).skip(1).map(|h| h.value).eq(request.all(Name::Via).skip(1).map(|h| h.value)));
        }
        if request.check().is_ok() {
            assert_eq!(reply.check(), Ok(()));
            let (asked, via) = (request.top_via().unwrap(), reply.top_via().unwrap());
            assert_eq!(via.branch(), asked.branch());
            assert_eq!(via.host, asked.host);
            if asked.host.ip() == Some(source.ip()) && asked.rport().is_none() {
                assert!(via.received_span().is_none());
            } else {
                assert_eq!(via.received(), Some(source.ip()));
            }
            assert_eq!(via.rport(), asked.rport().map(|_| Some(source.port())));
            let (asked, to) = (request.to().unwrap(), reply.to().unwrap());
            assert_eq!(to.uri, asked.uri);
            if status != 100 {
                assert_eq!(to.tag(), Some(asked.tag().unwrap_or(to_tag)));
            }
        }
    }
}
