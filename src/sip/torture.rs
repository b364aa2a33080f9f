//! Every message of RFC 4475 and RFC 5118, by its name there, with the verdict of this module.
//!
//! Verdicts that need the rules (416, 420, 483, 404, the registrar's answers) are noted at the message, which is accepted here.

use std::net::IpAddr;

use super::*;

macro_rules! rfc4475 {
    ($file:literal, $bytes:ident, $message:ident, $body:block) => {{
        let $bytes: &[u8] = include_bytes!(concat!("../../tests/data/rfc4475/", $file));
        let mut index = Index::default();
        let $message = Message::parse($bytes, &mut index).unwrap();
        sound(&$message);
        $body
    }};
}

macro_rules! rfc5118 {
    ($file:literal, $message:ident, $body:block) => {{
        let bytes: &[u8] = include_bytes!(concat!("../../tests/data/rfc5118/", $file));
        let mut index = Index::default();
        let $message = Message::parse(bytes, &mut index).unwrap();
        sound(&$message);
        $body
    }};
}

/// Holds for any message: spans match the slices, an empty rewrite is the identity, a reply to a request is a message.
fn sound(message: &Message) {
    let bytes = message.bytes();
    for header in message.headers() {
        assert_eq!(&bytes[header.value_span.range()], header.value);
        assert!(bytes[header.line.range()].starts_with(header.raw_name));
    }
    let mut out = Vec::new();
    Rewrite::default().render(bytes, &mut out);
    assert_eq!(out, bytes);
    if message.is_request() {
        let (mut reply, mut index) = (Vec::new(), Index::default());
        let answer =
            reply::Reply { status: 400, received: Some("192.0.2.77:5099".parse().unwrap()), to_tag: b"t", ..Default::default() };
        reply::write(message, &answer, |_| {}, &mut reply);
        let reply = Message::parse(&reply, &mut index).unwrap();
        assert_eq!(reply.fault(), None);
        assert_eq!(reply.status(), 400);
        for name in [Name::Via, Name::From, Name::CallId, Name::CSeq] {
            assert_eq!(reply.all(name).count(), message.all(name).count().min(if name == Name::Via { 99 } else { 1 }));
        }
        if message.check().is_ok() {
            assert_eq!(reply.check(), Ok(()));
            assert_eq!(reply.call_id(), message.call_id());
            assert_eq!(reply.cseq(), message.cseq());
            let via = reply.top_via().unwrap();
            assert_eq!(via.branch(), message.top_via().unwrap().branch());
            assert_eq!(via.received(), Some(IpAddr::from([192, 0, 2, 77])));
        }
    }
}

fn vias<'a>(message: &Message<'a>) -> Vec<Via<'a>> {
    message.values(Name::Via).map(|value| Via::parse(value).unwrap()).collect()
}

fn contacts<'a>(message: &Message<'a>) -> Vec<NameAddr<'a>> {
    let values = message.values(Name::Contact);
    values.map(|value| NameAddr::parse(value.text).unwrap()).collect()
}

/// A request is refused with this fault, and a 400 can be written; a response with it is dropped.
#[track_caller]
fn refused(message: &Message, fault: Fault, status: u16) {
    assert_eq!(message.check(), Err(fault));
    assert_eq!(fault.status(), status);
}

// §3.1.1 Valid messages

#[test]
fn rfc4475_wsinv_a_short_tortuous_invite() {
    rfc4475!("wsinv.dat", bytes, message, {
        assert_eq!(message.check(), Ok(()));
        assert_eq!(message.method(), Method::Invite);
        let uri = Uri::parse(message.request_uri()).unwrap();
        assert_eq!(uri.param(b"unknownparam"), Some(None));
        let to = message.to().unwrap();
        assert_eq!(to.uri, b"sip:vivekg@chair-dnrc.example.com");
        assert_eq!(to.tag(), Some(&b"1918181833n"[..]));
        let from = message.from().unwrap();
        assert_eq!(from.display, Some(&b"\"J Rosenberg \\\\\\\"\""[..]));
        assert_eq!(from.uri, b"sip:jdrosen@example.com");
        assert_eq!(from.tag(), Some(&b"98asjd8"[..]));
        assert_eq!(message.max_forwards(), Ok(Some(68)));
        assert_eq!(message.cseq(), Ok(CSeq { number: 9, method: b"INVITE" }));
        assert_eq!(message.header(Name::Subject).unwrap().value, b"");
        let vias = vias(&message);
        assert_eq!(vias.len(), 3);
        let seen: Vec<_> = vias.iter().map(|v| (v.transport, v.host_text, v.branch().unwrap())).collect();
        assert_eq!(
            seen,
            [
                (&b"UDP"[..], &b"192.0.2.2"[..], &b"390skdjuw"[..]),
                (b"TCP", b"spindle.example.com", b"z9hG4bK9ikj8"),
                (b"UDP", b"192.168.255.111", b"z9hG4bK30239"),
            ]
        );
        assert_eq!(message.top_via().unwrap().branch(), vias[0].branch());
        let route = message.values(Name::Route).next().unwrap();
        let route = NameAddr::parse(route.text).unwrap();
        assert!(Uri::parse(route.uri).unwrap().is_loose());
        let contact = contacts(&message)[0];
        assert_eq!(contact.uri, b"sip:jdrosen@example.com");
        assert_eq!(contact.params.get(b"newparam"), Some(Some(&b"newvalue"[..])));
        assert_eq!(contact.params.get(b"secondparam"), Some(None));
        assert_eq!(contact.q(), Ok(Some(330)));
        let unknown = message.headers().find(|h| h.raw_name == b"UnknownHeaderWithUnusualValue");
        assert_eq!(unknown.unwrap().value, b";;,,;;,;");
        assert_eq!(message.body().len(), 150);
        assert_eq!(message.end(), bytes.len());
    });
}

#[test]
fn rfc4475_intmeth_wide_range_of_valid_characters() {
    rfc4475!("intmeth.dat", _bytes, message, {
        assert_eq!(message.check(), Ok(()));
        assert_eq!(message.method(), Method::Other);
        assert_eq!(message.method_name(), b"!interesting-Method0123456789_*+`.%indeed'~");
        let uri = Uri::parse(message.request_uri()).unwrap();
        assert_eq!(uri.user, Some(&b"1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"[..]));
        assert_eq!(uri.password, Some(&b"&it+has=1,weird!*pas$wo~d_too.(doesn't-it)"[..]));
        assert_eq!(uri.host, Host::Name(b"example.com"));
        let to = message.to().unwrap();
        assert_eq!(to.display, Some(&b"\"BEL:\\\x07 NUL:\\\0 DEL:\\\x7f\""[..]));
        let from = message.from().unwrap();
        assert_eq!(from.display, Some(&b"token1~` token2'+_ token3*%!.-"[..]));
        assert_eq!(from.tag(), Some(&b"_token~1'+`*%!-."[..]));
        assert!(from.params.get(b"fromParam''~+*_!.-%").is_some());
        assert_eq!(message.top_via().unwrap().branch(), Some(&b"z9hG4bK-.!%66*_+`'~"[..]));
        assert_eq!(message.call_id(), Ok(&b"intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{"[..]));
        assert_eq!(message.max_forwards(), Ok(Some(255)));
    });
}

#[test]
fn rfc4475_esc01_valid_use_of_the_escape_mechanism() {
    rfc4475!("esc01.dat", _bytes, message, {
        assert_eq!(message.check(), Ok(()));
        let uri = Uri::parse(message.request_uri()).unwrap();
        assert_eq!(uri.user, Some(&b"sips%3Auser%40example.com"[..]));
        assert_eq!(uri.host, Host::Name(b"example.net"));
        let to = Uri::parse(message.to().unwrap().uri).unwrap();
        assert!(to.equals(&Uri::parse(b"sip:user@example.com").unwrap()));
        let contact = Uri::parse(contacts(&message)[0].uri).unwrap();
        let plain = Uri::parse(b"sip:caller@host5.example.net;lr;name=value%2541").unwrap();
        assert!(contact.equals(&plain));
        // Unescaping is not recursive: `value%41` is not `valueA`.
        let twice = Uri::parse(b"sip:caller@host5.example.net;lr;name=valueA").unwrap();
        assert!(!contact.equals(&twice));
    });
}

#[test]
fn rfc4475_escnull_escaped_nulls_in_uris() {
    rfc4475!("escnull.dat", _bytes, message, {
        assert_eq!(message.check(), Ok(()));
        let mut key = Vec::new();
        let to = Uri::parse(message.to().unwrap().uri).unwrap();
        to.write_address_of_record(&mut key);
        assert_eq!(key, b"null-%00-null@example.com");
        let contacts = contacts(&message);
        assert_eq!(contacts.len(), 2);
        let (one, two) = (Uri::parse(contacts[0].uri).unwrap(), Uri::parse(contacts[1].uri).unwrap());
        assert!(!one.equals(&two), "two distinct bindings");
    });
}

#[test]
fn rfc4475_esc02_use_of_percent_when_it_is_not_an_escape() {
    rfc4475!("esc02.dat", _bytes, message, {
        assert_eq!(message.check(), Ok(()));
        assert_eq!(message.method(), Method::Other, "not REGISTER");
        assert_eq!(message.method_name(), b"RE%47IST%45R");
        assert_eq!(message.from().unwrap().display, Some(&b"\"%Z%45\""[..]));
        assert_eq!(contacts(&message).len(), 2, "C%6Fntact is another header");
    });
}

#[test]
fn rfc4475_lwsdisp_no_lws_between_display_name_and_angle() {
    rfc4475!("lwsdisp.dat", _bytes, message, {
        assert_eq!(message.check(), Ok(()));
        let from = message.from().unwrap();
        assert_eq!(from.display, Some(&b"caller"[..]));
        assert_eq!(from.uri, b"sip:caller@example.com");
    });
}

#[test]
fn rfc4475_longreq_long_values_in_header_fields() {
    rfc4475!("longreq.dat", _bytes, message, {
        assert_eq!(message.check(), Ok(()));
        assert_eq!(message.from().unwrap().tag().unwrap().len(), 2 + 50 * 3 + 3);
        assert_eq!(vias(&message).len(), 34);
        assert_eq!(message.top_via().unwrap().branch(), None);
        let branches = vias(&message).into_iter().filter_map(|via| via.branch());
        assert_eq!(branches.map(<[u8]>::len).collect::<Vec<_>>(), [4 + 50 * 4 + 11]);
        assert_eq!(message.body().len(), 150);
    });
}

#[test]
fn rfc4475_dblreq_extra_trailing_octets_in_a_datagram() {
    rfc4475!("dblreq.dat", bytes, message, {
        assert_eq!(message.check(), Ok(()));
        assert_eq!(message.method(), Method::Register);
        assert_eq!(message.body(), b"");
        assert!(message.end() < bytes.len());
        let mut out = Vec::new();
        Rewrite::default().render(&bytes[..message.end()], &mut out);
        assert_eq!(memchr::memmem::find(&out, b"INVITE"), None, "the spurious octets are not forwarded");
    });
}

#[test]
fn rfc4475_semiuri_semicolon_in_the_user_part() {
    rfc4475!("semiuri.dat", _bytes, message, {
        assert_eq!(message.check(), Ok(()));
        let uri = Uri::parse(message.request_uri()).unwrap();
        assert_eq!(uri.user, Some(&b"user;par=u%40example.net"[..]));
        assert_eq!(uri.host, Host::Name(b"example.com"));
        assert_eq!(message.values(Name::Accept).count(), 6);
    });
}

#[test]
fn rfc4475_transports_varied_and_unknown() {
    rfc4475!("transports.dat", _bytes, message, {
        assert_eq!(message.check(), Ok(()));
        let transports: Vec<_> = vias(&message).iter().map(|via| via.transport).collect();
        assert_eq!(transports, [&b"UDP"[..], b"SCTP", b"TLS", b"UNKNOWN", b"TCP"]);
    });
}

#[test]
fn rfc4475_mpart01_multipart_mime_message() {
    rfc4475!("mpart01.dat", bytes, message, {
        assert_eq!(message.check(), Ok(()));
        assert_eq!(message.method(), Method::Message);
        assert_eq!(message.body().len(), 553);
        assert_eq!(message.end(), bytes.len());
        assert_eq!(message.top_via().unwrap().rport(), Some(None));
    });
}

#[test]
fn rfc4475_unreason_unusual_reason_phrase() {
    rfc4475!("unreason.dat", _bytes, message, {
        assert_eq!(message.check(), Ok(()));
        assert_eq!(message.status(), 200);
        assert!(message.reason_phrase().starts_with(b"= 2**3 * 5**2 \xd0\xbd"));
    });
}

#[test]
fn rfc4475_noreason_empty_reason_phrase() {
    rfc4475!("noreason.dat", _bytes, message, {
        assert_eq!(message.check(), Ok(()));
        assert_eq!(message.status(), 100);
        assert_eq!(message.reason_phrase(), b"");
    });
}

// §3.1.2 Invalid messages

#[test]
fn rfc4475_badinv01_extraneous_separators() {
    rfc4475!("badinv01.dat", _bytes, message, {
        refused(&message, Fault::Via, 400);
        let contact = message.values(Name::Contact).next().unwrap();
        assert!(NameAddr::parse(contact.text).is_err());
    });
}

#[test]
fn rfc4475_clerr_content_length_larger_than_message() {
    rfc4475!("clerr.dat", bytes, message, {
        refused(&message, Fault::ContentLengthTooLong, 400);
        // On a stream there may be more to come.
        assert_eq!(Framer::new(65_536).next(bytes), Frame::More);
    });
}

#[test]
fn rfc4475_ncl_negative_content_length() {
    rfc4475!("ncl.dat", bytes, message, {
        refused(&message, Fault::ContentLength, 400);
        assert_eq!(Framer::new(65_536).next(bytes), Frame::Bad(Fault::ContentLength));
        let five = String::from_utf8_lossy(bytes).replace("-999", "five");
        let mut index = Index::default();
        let message = Message::parse(five.as_bytes(), &mut index).unwrap();
        refused(&message, Fault::ContentLength, 400);
    });
}

#[test]
fn rfc4475_scalar02_overlarge_values_in_a_request() {
    rfc4475!("scalar02.dat", _bytes, message, {
        refused(&message, Fault::CSeq, 400);
        assert_eq!(message.max_forwards(), Err(Fault::MaxForwards));
        assert_eq!(message.number(Name::Expires), Ok(Some(u32::MAX)));
        assert_eq!(contacts(&message)[0].expires(), Ok(Some(u32::MAX)));
    });
}

#[test]
fn rfc4475_scalarlg_overlarge_values_in_a_response() {
    rfc4475!("scalarlg.dat", _bytes, message, {
        refused(&message, Fault::CSeq, 400); // a response: dropped
        assert_eq!(message.status(), 503);
        assert_eq!(message.number(Name::RetryAfter), Ok(Some(u32::MAX)));
    });
}

#[test]
fn rfc4475_quotbal_unterminated_quoted_string() {
    rfc4475!("quotbal.dat", _bytes, message, { refused(&message, Fault::To, 400) });
}

#[test]
fn rfc4475_ltgtruri_angles_around_the_request_uri() {
    rfc4475!("ltgtruri.dat", _bytes, message, { refused(&message, Fault::RequestUri, 400) });
}

#[test]
fn rfc4475_lwsruri_lws_in_the_request_uri() {
    rfc4475!("lwsruri.dat", _bytes, message, { refused(&message, Fault::RequestUri, 400) });
}

#[test]
fn rfc4475_lwsstart_multiple_spaces_in_the_request_line() {
    rfc4475!("lwsstart.dat", _bytes, message, { refused(&message, Fault::StartLine, 400) });
}

#[test]
fn rfc4475_trws_spaces_at_the_end_of_the_request_line() {
    rfc4475!("trws.dat", _bytes, message, { refused(&message, Fault::StartLine, 400) });
}

#[test]
fn rfc4475_escruri_escaped_headers_in_the_request_uri() {
    rfc4475!("escruri.dat", _bytes, message, { refused(&message, Fault::RequestUriHeaders, 400) });
}

#[test]
fn rfc4475_baddate_invalid_time_zone() {
    // Date means nothing to a proxy: forwarded.
    rfc4475!("baddate.dat", _bytes, message, {
        assert_eq!(message.check(), Ok(()));
        assert_eq!(message.header(Name::Date).unwrap().value, b"Fri, 01 Jan 2010 16:00:00 EST");
    });
}

#[test]
fn rfc4475_regbadct_contact_uri_without_angles() {
    // The registrar answers 400 when it reads the Contact.
    rfc4475!("regbadct.dat", _bytes, message, {
        assert_eq!(message.check(), Ok(()));
        let contact = message.values(Name::Contact).next().unwrap();
        assert_eq!(NameAddr::parse(contact.text).unwrap_err(), Fault::Address);
    });
}

#[test]
fn rfc4475_badaspec_spaces_within_addr_spec() {
    rfc4475!("badaspec.dat", _bytes, message, { refused(&message, Fault::To, 400) });
}

#[test]
fn rfc4475_baddn_non_token_characters_in_display_name() {
    // The archive's file also lacks the empty line; with it, the display name is what is wrong.
    rfc4475!("baddn.dat", bytes, message, {
        refused(&message, Fault::Truncated, 400);
        let whole = [bytes, b"\r\n"].concat();
        let mut index = Index::default();
        let message = Message::parse(&whole, &mut index).unwrap();
        refused(&message, Fault::From, 400);
        assert_eq!(message.to().unwrap_err(), Fault::To);
    });
}

#[test]
fn rfc4475_badvers_unknown_protocol_version() {
    rfc4475!("badvers.dat", _bytes, message, {
        refused(&message, Fault::Version, 505);
        assert_eq!(message.top_via().unwrap().branch(), Some(&b"z9hG4bKkdjuw"[..]), "so that a 505 finds its way");
    });
}

#[test]
fn rfc4475_mismatch01_start_line_and_cseq() {
    rfc4475!("mismatch01.dat", _bytes, message, { refused(&message, Fault::CSeqMethod, 400) });
}

#[test]
fn rfc4475_mismatch02_unknown_method_and_cseq() {
    rfc4475!("mismatch02.dat", _bytes, message, { refused(&message, Fault::CSeqMethodUnknown, 501) });
}

#[test]
fn rfc4475_bigcode_overlarge_response_code() {
    rfc4475!("bigcode.dat", _bytes, message, {
        refused(&message, Fault::StatusCode, 400); // a response: dropped
        assert!(!message.is_request());
    });
}

// §3.2 Transaction layer semantics

#[test]
fn rfc4475_badbranch_missing_transaction_identifier() {
    // The transaction layer falls back to RFC 2543 matching.
    rfc4475!("badbranch.dat", _bytes, message, {
        assert_eq!(message.check(), Ok(()));
        assert_eq!(message.top_via().unwrap().branch(), Some(&b"z9hG4bK"[..]));
    });
}

// §3.3 Application-layer semantics

#[test]
fn rfc4475_insuf_missing_required_header_fields() {
    rfc4475!("insuf.dat", _bytes, message, {
        refused(&message, Fault::FromMissing, 400);
        assert_eq!(message.call_id(), Err(Fault::CallIdMissing));
        assert_eq!(message.to().unwrap_err(), Fault::ToMissing);
    });
}

#[test]
fn rfc4475_unkscm_request_uri_with_unknown_scheme() {
    // 416 is the rules' answer.
    rfc4475!("unkscm.dat", _bytes, message, {
        assert_eq!(message.check(), Ok(()));
        assert_eq!(Uri::parse(message.request_uri()).unwrap().scheme, Scheme::Other);
    });
}

#[test]
fn rfc4475_novelsc_request_uri_with_atypical_scheme() {
    // 416 is the rules' answer.
    rfc4475!("novelsc.dat", _bytes, message, {
        assert_eq!(message.check(), Ok(()));
        assert_eq!(Uri::parse(message.request_uri()).unwrap().scheme, Scheme::Other);
    });
}

#[test]
fn rfc4475_unksm2_unknown_schemes_in_header_fields() {
    // Forwarded by a proxy; a registrar answers 400, since To is not a SIP URI.
    rfc4475!("unksm2.dat", _bytes, message, {
        assert_eq!(message.check(), Ok(()));
        assert_eq!(Uri::parse(message.to().unwrap().uri).unwrap().scheme, Scheme::Other);
    });
}

#[test]
fn rfc4475_bext01_proxy_require_and_require() {
    // 420 is the rules' answer.
    rfc4475!("bext01.dat", _bytes, message, {
        assert_eq!(message.check(), Ok(()));
        let tags: Vec<_> = message.values(Name::ProxyRequire).map(|value| value.text).collect();
        assert_eq!(tags, [&b"noProxiesSupportThis"[..], b"norDoAnyProxiesSupportThis"]);
        assert_eq!(message.values(Name::Require).count(), 2);
    });
}

#[test]
fn rfc4475_invut_unknown_content_type() {
    rfc4475!("invut.dat", _bytes, message, {
        assert_eq!(message.check(), Ok(()));
        assert_eq!(message.body().len(), 40);
    });
}

#[test]
fn rfc4475_regaut01_unknown_authorization_scheme() {
    rfc4475!("regaut01.dat", _bytes, message, {
        assert_eq!(message.check(), Ok(()));
        let header = message.header(Name::Authorization).unwrap();
        assert_eq!(header.value, b"NoOneKnowsThisScheme opaque-data=here");
    });
}

#[test]
fn rfc4475_multi01_multiple_values_in_single_value_fields() {
    rfc4475!("multi01.dat", _bytes, message, {
        refused(&message, Fault::FromRepeated, 400);
        assert_eq!(message.to().unwrap_err(), Fault::ToRepeated);
        assert_eq!(message.call_id(), Err(Fault::CallIdRepeated));
        assert_eq!(message.cseq(), Err(Fault::CSeqRepeated));
        assert_eq!(message.max_forwards(), Err(Fault::MaxForwardsRepeated));
    });
}

#[test]
fn rfc4475_mcl01_multiple_content_length_values() {
    rfc4475!("mcl01.dat", bytes, message, {
        refused(&message, Fault::ContentLengthRepeated, 400);
        assert_eq!(Framer::new(65_536).next(bytes), Frame::Bad(Fault::ContentLengthRepeated));
    });
}

#[test]
fn rfc4475_bcast_response_with_broadcast_via() {
    // Not forwarded: the rules detect that by the second Via.
    rfc4475!("bcast.dat", _bytes, message, {
        assert_eq!(message.check(), Ok(()));
        let second = vias(&message)[1];
        assert_eq!(second.host.ip(), Some(IpAddr::from([255, 255, 255, 255])));
    });
}

#[test]
fn rfc4475_zeromf_max_forwards_of_zero() {
    // 483 is the rules' answer.
    rfc4475!("zeromf.dat", _bytes, message, {
        assert_eq!(message.check(), Ok(()));
        assert_eq!(message.max_forwards(), Ok(Some(0)));
    });
}

#[test]
fn rfc4475_cparam01_contact_parameter() {
    rfc4475!("cparam01.dat", _bytes, message, {
        assert_eq!(message.check(), Ok(()));
        let contact = contacts(&message)[0];
        assert_eq!(contact.uri, b"sip:+19725552222@gw1.example.net");
        assert_eq!(contact.params.get(b"unknownparam"), Some(None));
    });
}

#[test]
fn rfc4475_cparam02_url_parameter() {
    rfc4475!("cparam02.dat", _bytes, message, {
        assert_eq!(message.check(), Ok(()));
        let contact = contacts(&message)[0];
        assert_eq!(contact.params.text(), b"");
        assert_eq!(Uri::parse(contact.uri).unwrap().param(b"unknownparam"), Some(None));
    });
}

#[test]
fn rfc4475_regescrt_url_escaped_header_in_contact() {
    rfc4475!("regescrt.dat", _bytes, message, {
        assert_eq!(message.check(), Ok(()));
        let uri = Uri::parse(contacts(&message)[0].uri).unwrap();
        assert_eq!(uri.headers, Some(&b"Route=%3Csip:sip.example.com%3E"[..]));
    });
}

#[test]
fn rfc4475_sdp01_unacceptable_accept_offering() {
    rfc4475!("sdp01.dat", _bytes, message, {
        assert_eq!(message.check(), Ok(()));
        assert_eq!(message.values(Name::Accept).next().unwrap().text, b"text/nobodyKnowsThis");
    });
}

// §3.4 Backward compatibility

#[test]
fn rfc4475_inv2543_rfc_2543_syntax() {
    rfc4475!("inv2543.dat", bytes, message, {
        assert_eq!(message.check(), Ok(()));
        assert_eq!(message.top_via().unwrap().branch(), None);
        assert_eq!(message.from().unwrap().tag(), None);
        assert_eq!(message.max_forwards(), Ok(None));
        assert_eq!(message.end(), bytes.len(), "all octets behind the empty line");
        assert!(message.body().starts_with(b"v=0\r\n"));
    });
}

#[test]
fn rfc4475_test_in_the_archive_but_in_no_section() {
    // A request line without a SIP-Version, and no Via: nothing can be answered.
    let bytes = include_bytes!("../../tests/data/rfc4475/test.dat");
    assert_eq!(Message::parse(bytes, &mut Index::default()).unwrap_err(), Fault::NotSip);
}

#[test]
fn every_message_of_both_rfcs_has_its_test_here() {
    let source = include_str!("torture.rs");
    let mut count = 0;
    for rfc in ["rfc4475", "rfc5118"] {
        let directory = format!("{}/tests/data/{rfc}", env!("CARGO_MANIFEST_DIR"));
        for entry in std::fs::read_dir(directory).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(source.contains(&format!("{name}\"")), "{rfc}/{name} has no test");
            count += 1;
        }
    }
    assert_eq!(count, 50 + 12);
}

// RFC 5118 §4

#[test]
fn rfc5118_ipv6_good_valid_message_with_an_ipv6_reference() {
    rfc5118!("ipv6-good", message, {
        assert_eq!(message.check(), Ok(()));
        let uri = Uri::parse(message.request_uri()).unwrap();
        assert_eq!(uri.host, Host::V6("2001:db8::10".parse().unwrap()));
        assert_eq!(uri.port, None);
        let via = message.top_via().unwrap();
        assert_eq!(via.host, Host::V6("2001:db8::9:1".parse().unwrap()));
    });
}

#[test]
fn rfc5118_ipv6_bad_no_brackets_in_the_request_uri() {
    rfc5118!("ipv6-bad", message, { refused(&message, Fault::RequestUri, 400) });
}

#[test]
fn rfc5118_port_ambiguous() {
    rfc5118!("port-ambiguous", message, {
        assert_eq!(message.check(), Ok(()));
        let uri = Uri::parse(message.request_uri()).unwrap();
        assert_eq!(uri.host, Host::V6("2001:db8::10:5070".parse().unwrap()));
        assert_eq!(uri.port, None);
    });
}

#[test]
fn rfc5118_port_unambiguous() {
    rfc5118!("port-unambiguous", message, {
        assert_eq!(message.check(), Ok(()));
        let uri = Uri::parse(message.request_uri()).unwrap();
        assert_eq!(uri.host, Host::V6("2001:db8::10".parse().unwrap()));
        assert_eq!(uri.port, Some(5070));
    });
}

#[test]
fn rfc5118_via_received_param_with_delim() {
    rfc5118!("via-received-param-with-delim", message, {
        assert_eq!(message.check(), Ok(()));
        let via = message.top_via().unwrap();
        assert_eq!(via.received(), Some("2001:db8::9:255".parse().unwrap()));
        assert_eq!(via.branch(), Some(&b"z9hG4bKas3-111"[..]));
    });
}

#[test]
fn rfc5118_via_received_param_no_delim() {
    rfc5118!("via-received-param-no-delim", message, {
        assert_eq!(message.check(), Ok(()));
        let via = message.top_via().unwrap();
        assert_eq!(via.received(), Some("2001:db8::9:255".parse().unwrap()));
        assert_eq!(via.branch(), Some(&b"z9hG4bKas3"[..]));
        // What we write ourselves has no brackets.
        let mut rewrite = Rewrite::default();
        fill_received(&via, "[2001:db8::99]:5060".parse().unwrap(), &mut rewrite);
        let mut out = Vec::new();
        rewrite.render(message.bytes(), &mut out);
        assert!(memchr::memmem::find(&out, b";received=2001:db8::99;branch=z9hG4bKas3\r\n").is_some());
    });
}

#[test]
fn rfc5118_ipv6_in_sdp() {
    rfc5118!("ipv6-in-sdp", message, {
        assert_eq!(message.check(), Ok(()));
        assert!(message.body().ends_with(b"H263-1998/90000\r\n"));
    });
}

#[test]
fn rfc5118_mult_ip_in_header() {
    rfc5118!("mult-ip-in-header", message, {
        assert_eq!(message.check(), Ok(()));
        let vias = vias(&message);
        assert_eq!(vias[0].host, Host::V6("2001:db8::9:1".parse().unwrap()));
        assert_eq!(vias[0].port, Some(6050));
        assert_eq!(vias[1].host, Host::V4([192, 0, 2, 1].into()));
        assert_eq!(vias[2].host, Host::V6("2001:db8::9:255".parse().unwrap()));
        assert_eq!(vias[2].received(), Some(IpAddr::from([192, 0, 2, 200])));
    });
}

#[test]
fn rfc5118_mult_ip_in_sdp() {
    rfc5118!("mult-ip-in-sdp", message, {
        assert_eq!(message.check(), Ok(()));
        assert_eq!(message.body().len(), 189);
    });
}

#[test]
fn rfc5118_ipv4_mapped_ipv6() {
    rfc5118!("ipv4-mapped-ipv6", message, {
        assert_eq!(message.check(), Ok(()));
        let via = message.top_via().unwrap();
        assert_eq!(via.host, Host::V6("::ffff:192.0.2.10".parse().unwrap()));
        assert_eq!(via.port, Some(19823));
        assert_eq!(vias(&message)[1].host, Host::V6("::ffff:192.0.2.2".parse().unwrap()));
        // The mapped address is the address: a packet from it needs no `received`.
        let mut rewrite = Rewrite::default();
        fill_received(&via, "192.0.2.10:19823".parse().unwrap(), &mut rewrite);
        assert!(rewrite.is_empty());
    });
}

#[test]
fn rfc5118_ipv6_bug_abnf_3_colons() {
    rfc5118!("ipv6-bug-abnf-3-colons", message, {
        assert_eq!(message.check(), Ok(()));
        let uri = Uri::parse(message.request_uri()).unwrap();
        assert_eq!(uri.host, Host::V6("2001:db8::192.0.2.1".parse().unwrap()));
    });
}

#[test]
fn rfc5118_ipv6_correct_abnf_2_colons() {
    rfc5118!("ipv6-correct-abnf-2-colons", message, {
        assert_eq!(message.check(), Ok(()));
        let uri = Uri::parse(message.request_uri()).unwrap();
        assert_eq!(uri.host, Host::V6("2001:db8::192.0.2.1".parse().unwrap()));
    });
}
