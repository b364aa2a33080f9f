//! Every message of RFC 4475 and RFC 5118 through an endpoint that is proxy and registrar of the domains in question, each with
//! the verdict that the RFC gives for such an element.

use strowger::sip::{Index, Message, Uri};
use strowger::stack::counters::Drop;

use crate::bench::*;
use crate::message::{Request, Text, param};

/// Where the messages come from.
const PEER: &str = "192.0.2.77:5099";
const PEER6: &str = "[2001:db8::77]:5099";
/// The phone of every user that is called.
const PHONE: &str = "10.0.1.2:5060";

fn bench() -> Bench {
    Bench::with(|settings| {
        settings.listeners = vec![
            listener("10.0.0.1:5060"),
            listener("[2001:db8::10]:5060"),
            listener("[2001:db8::10]:5070"),
            listener("127.0.0.1:5080"),
            listener("[2001:db8::192.0.2.1]:5060"),
        ];
        settings.domains = [
            "example.com",
            "example.net",
            "example.org",
            "company.com",
            "registrar.example.com",
            "chair-dnrc.example.com",
            "services.example.com",
            "host.example.net",
        ]
        .map(|domain| domain.as_bytes().to_vec())
        .into();
    })
}

/// Gives the user that a request is for a phone, by the canonical form of the Request-URI.
fn settle(b: &Bench, bytes: &[u8]) {
    let mut index = Index::default();
    let Ok(message) = Message::parse(bytes, &mut index) else {
        return;
    };
    let Ok(uri) = Uri::parse(message.request_uri()) else {
        return;
    };
    if uri.user.is_some() {
        let mut aor = Vec::new();
        uri.write_address_of_record(&mut aor);
        let phone = format!("sip:phone@{PHONE}");
        b.location.add(Default::default(), &aor, phone.as_bytes(), 3600).unwrap();
    }
}

/// The header lines as they stand, folds kept, without those named.
fn raw_lines(bytes: &[u8], without: &[&str]) -> Vec<Vec<u8>> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("an end");
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for line in bytes[..end + 2].split_inclusive(|b| *b == b'\n').skip(1) {
        match (line.first(), lines.last_mut()) {
            (Some(b' ' | b'\t'), Some(last)) => last.extend_from_slice(line),
            _ => lines.push(line.to_vec()),
        }
    }
    lines.retain(|line| {
        let name = line.split(|b| *b == b':').next().unwrap_or_default();
        let name = String::from_utf8_lossy(name).trim().to_ascii_lowercase();
        !without.contains(&name.as_str())
    });
    lines
}

/// Forwarded: what must not be edited is bit for bit the same, what must be edited is edited, and an answer finds back.
#[track_caller]
fn forwarded(bytes: &[u8], peer: &str) {
    let mut b = bench();
    settle(&b, bytes);
    let sent = b.send(peer, bytes);
    let at_phone = the(&sent, PHONE).clone();
    let invite = bytes.starts_with(b"INVITE");
    assert_eq!(sent.len(), 1 + usize::from(invite), "{}", show(&sent));
    assert_eq!(at_phone.uri(), format!("sip:phone@{PHONE}"));
    assert_eq!(at_phone.start_line.split(' ').next().map(str::as_bytes), bytes.split(|b| *b == b' ').next());

    let edited = ["via", "v", "max-forwards", "record-route", "route", "max-breadth"];
    assert_eq!(raw_lines(&at_phone.bytes, &edited), raw_lines(bytes, &edited), "\n{at_phone}");
    let before = Text::new(bytes);
    assert_eq!(at_phone.body, before.body);
    let hops = before.header("Max-Forwards").map_or(71, |hops| hops.parse().unwrap());
    assert_eq!(at_phone.header("Max-Forwards"), Some((hops - 1).to_string().as_str()));

    // Our Via on top, the sender's stamped, the others as they were.
    let vias = |text: &Text| text.all("Via").join(" , ");
    let (old, new) = (vias(&before), vias(&at_phone));
    let (ours, rest) = new.split_once(" , ").expect("two Vias");
    assert!(ours.starts_with("SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK"));
    let old_rest = old.split_once(',').map(|(_, rest)| rest);
    let new_rest = rest.split_once(',').map(|(_, rest)| rest);
    assert_eq!(new_rest, old_rest);
    let top = rest.split(',').next().unwrap();
    let source: std::net::SocketAddr = peer.parse().unwrap();
    assert_eq!(param(top, "received"), Some(source.ip().to_string().as_str()));

    // The answer comes back with their Vias and goes to the source's address.
    let status = 486;
    let back = b.send(PHONE, at_phone.answer(status));
    let answer = back.iter().find(|s| s.status() == status).expect("an answer");
    assert_eq!(vias(answer), rest);
    assert_eq!(address(&answer.to).ip(), source.ip());
    b.assert_quiet();
}

/// Answered by this server with one status; nothing else leaves, nothing is remembered.
#[track_caller]
fn answered(bytes: &[u8], peer: &str, status: u16, reason: &str) -> (Bench, Sent) {
    let mut b = bench();
    settle(&b, bytes);
    let answer = only(b.send(peer, bytes));
    assert_eq!(answer.status(), status, "{answer}");
    assert_eq!(answer.reason(), reason);
    assert_eq!(address(&answer.to).ip(), address(peer).ip());
    // What the client needs to find its transaction is there, as far as the request had it.
    let before = Text::new(&[bytes, b"\r\n\r\n"].concat());
    for name in ["Call-ID", "CSeq"] {
        if let [one] = before.all(name)[..] {
            let same = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(answer.header(name).map(same), Some(same(one)), "{name}");
        }
    }
    assert_eq!(b.server_transactions(), 0);
    (b, answer)
}

#[track_caller]
fn dropped(bytes: &[u8], reason: Drop) {
    let mut b = bench();
    let sent = b.send(PEER, bytes);
    assert!(sent.is_empty(), "{}", show(&sent));
    assert_eq!(b.dropped(reason), 1);
    b.assert_quiet();
}

/// `name: file, function and arguments` for each message, and the list of all names.
macro_rules! verdicts {
    ($($name:ident: $file:literal => |$bytes:ident| $verdict:expr;)+) => {
        const FILES: &[&str] = &[$($file),+];
        $(
            #[test]
            fn $name() {
                let $bytes: &[u8] = include_bytes!(concat!("../data/", $file));
                $verdict;
            }
        )+
    };
}

verdicts! {
    // RFC 4475 §3.1.1 Valid messages
    rfc4475_wsinv_is_forwarded: "rfc4475/wsinv.dat" => |m| forwarded(m, PEER);
    rfc4475_intmeth_is_forwarded: "rfc4475/intmeth.dat" => |m| forwarded(m, PEER);
    rfc4475_esc01_is_forwarded_for_the_user_with_the_escaped_at_sign: "rfc4475/esc01.dat" => |m| forwarded(m, PEER);
    rfc4475_escnull_registers_two_contacts: "rfc4475/escnull.dat" => |m| {
        let (mut b, answer) = answered(m, PEER, 200, "OK");
        assert_eq!(answer.all("Contact").len(), 2);
        assert_eq!(fetch(&mut b, "null-%00-null").len(), 2);
    };
    rfc4475_esc02_is_not_a_register: "rfc4475/esc02.dat" => |m| {
        let (b, _) = answered(m, PEER, 501, "Not Implemented");
        assert_eq!(b.location.bindings(), 0);
    };
    rfc4475_lwsdisp_is_forwarded: "rfc4475/lwsdisp.dat" => |m| forwarded(m, PEER);
    rfc4475_longreq_is_forwarded: "rfc4475/longreq.dat" => |m| forwarded(m, PEER);
    rfc4475_dblreq_registers_and_the_second_message_is_ignored: "rfc4475/dblreq.dat" => |m| {
        let (mut b, _) = answered(m, PEER, 200, "OK");
        assert_eq!(fetch(&mut b, "j.user"), ["<sip:j.user@host.example.com>"]);
    };
    rfc4475_semiuri_is_forwarded_for_the_user_with_the_semicolon: "rfc4475/semiuri.dat" => |m| forwarded(m, PEER);
    rfc4475_transports_is_forwarded: "rfc4475/transports.dat" => |m| forwarded(m, PEER);
    rfc4475_mpart01_is_forwarded: "rfc4475/mpart01.dat" => |m| forwarded(m, PEER);
    rfc4475_unreason_is_nobodys_response: "rfc4475/unreason.dat" => |m| dropped(m, Drop::ForeignResponse);
    rfc4475_noreason_is_nobodys_response: "rfc4475/noreason.dat" => |m| dropped(m, Drop::ForeignResponse);
    // §3.1.2 Invalid messages
    rfc4475_badinv01_is_400: "rfc4475/badinv01.dat" => |m| answered(m, PEER, 400, "Malformed Via");
    rfc4475_clerr_is_400: "rfc4475/clerr.dat" => |m| answered(m, PEER, 400, "Content-Length Beyond End Of Message");
    rfc4475_ncl_is_400: "rfc4475/ncl.dat" => |m| answered(m, PEER, 400, "Malformed Content-Length");
    rfc4475_scalar02_is_400: "rfc4475/scalar02.dat" => |m| {
        let (b, _) = answered(m, PEER, 400, "Malformed CSeq");
        assert_eq!(b.location.bindings(), 0);
    };
    rfc4475_scalarlg_is_dropped: "rfc4475/scalarlg.dat" => |m| dropped(m, Drop::BadResponse);
    rfc4475_quotbal_is_400: "rfc4475/quotbal.dat" => |m| answered(m, PEER, 400, "Malformed To");
    rfc4475_ltgtruri_is_400: "rfc4475/ltgtruri.dat" => |m| answered(m, PEER, 400, "Malformed Request-URI");
    rfc4475_lwsruri_is_400: "rfc4475/lwsruri.dat" => |m| answered(m, PEER, 400, "Malformed Request-URI");
    rfc4475_lwsstart_is_400: "rfc4475/lwsstart.dat" => |m| answered(m, PEER, 400, "Malformed Start Line");
    rfc4475_trws_is_400: "rfc4475/trws.dat" => |m| answered(m, PEER, 400, "Malformed Start Line");
    rfc4475_escruri_is_400: "rfc4475/escruri.dat" => |m| answered(m, PEER, 400, "Header Fields In Request-URI");
    rfc4475_baddate_is_forwarded: "rfc4475/baddate.dat" => |m| forwarded(m, PEER);
    rfc4475_regbadct_is_400: "rfc4475/regbadct.dat" => |m| {
        let (b, _) = answered(m, PEER, 400, "Malformed Address");
        assert_eq!(b.location.bindings(), 0);
    };
    rfc4475_badaspec_is_400: "rfc4475/badaspec.dat" => |m| answered(m, PEER, 400, "Malformed To");
    rfc4475_baddn_is_400: "rfc4475/baddn.dat" => |m| {
        answered(m, PEER, 400, "No Empty Line After Header Fields");
        answered(&[m, b"\r\n"].concat(), PEER, 400, "Malformed From")
    };
    rfc4475_badvers_is_505: "rfc4475/badvers.dat" => |m| answered(m, PEER, 505, "Version Not Supported");
    rfc4475_mismatch01_is_400: "rfc4475/mismatch01.dat" => |m| answered(m, PEER, 400, "CSeq Method Differs From Start Line");
    rfc4475_mismatch02_is_501: "rfc4475/mismatch02.dat" => |m| answered(m, PEER, 501, "Unknown Method Differs From CSeq");
    rfc4475_bigcode_is_dropped: "rfc4475/bigcode.dat" => |m| dropped(m, Drop::BadResponse);
    // §3.2 Transaction layer semantics
    rfc4475_badbranch_is_forwarded_and_matched_as_rfc_2543_has_it: "rfc4475/badbranch.dat" => |m| {
        forwarded(m, PEER);
        badbranch(m)
    };
    // §3.3 Application-layer semantics
    rfc4475_insuf_is_400: "rfc4475/insuf.dat" => |m| answered(m, PEER, 400, "Missing From");
    rfc4475_unkscm_is_416: "rfc4475/unkscm.dat" => |m| answered(m, PEER, 416, "Unsupported URI Scheme");
    rfc4475_novelsc_is_416: "rfc4475/novelsc.dat" => |m| answered(m, PEER, 416, "Unsupported URI Scheme");
    rfc4475_unksm2_is_400_for_a_registrar: "rfc4475/unksm2.dat" => |m| answered(m, PEER, 400, "To Is Not A SIP URI");
    rfc4475_bext01_is_420_with_the_proxys_options: "rfc4475/bext01.dat" => |m| {
        let (_, answer) = answered(m, PEER, 420, "Bad Extension");
        assert_eq!(answer.all("Unsupported"), ["noProxiesSupportThis, norDoAnyProxiesSupportThis"]);
    };
    rfc4475_invut_is_forwarded: "rfc4475/invut.dat" => |m| forwarded(m, PEER);
    rfc4475_regaut01_is_a_query: "rfc4475/regaut01.dat" => |m| answered(m, PEER, 200, "OK");
    rfc4475_multi01_is_400: "rfc4475/multi01.dat" => |m| answered(m, PEER, 400, "More Than One From");
    rfc4475_mcl01_is_400: "rfc4475/mcl01.dat" => |m| answered(m, PEER, 400, "More Than One Content-Length");
    rfc4475_bcast_is_not_sent_on: "rfc4475/bcast.dat" => |m| {
        dropped(m, Drop::ForeignResponse);
        broadcast(m)
    };
    rfc4475_zeromf_is_483: "rfc4475/zeromf.dat" => |m| answered(m, PEER, 483, "Too Many Hops");
    rfc4475_cparam01_the_parameter_is_not_the_uris: "rfc4475/cparam01.dat" => |m| {
        let (mut b, _) = answered(m, PEER, 200, "OK");
        assert_eq!(fetch(&mut b, "watson"), ["<sip:+19725552222@gw1.example.net>"]);
    };
    rfc4475_cparam02_the_parameter_is_the_uris: "rfc4475/cparam02.dat" => |m| {
        let (mut b, _) = answered(m, PEER, 200, "OK");
        assert_eq!(fetch(&mut b, "watson"), ["<sip:+19725552222@gw1.example.net;unknownparam>"]);
    };
    rfc4475_regescrt_the_escaped_header_stays_with_the_binding: "rfc4475/regescrt.dat" => |m| {
        let (mut b, _) = answered(m, PEER, 200, "OK");
        assert_eq!(fetch(&mut b, "user"), ["<sip:user@example.com?Route=%3Csip:sip.example.com%3E>"]);
    };
    rfc4475_sdp01_is_forwarded: "rfc4475/sdp01.dat" => |m| forwarded(m, PEER);
    // §3.4 Backward compatibility
    rfc4475_inv2543_is_forwarded: "rfc4475/inv2543.dat" => |m| forwarded(m, PEER);
    // In the archive, and in no section.
    rfc4475_test_is_not_sip: "rfc4475/test.dat" => |m| dropped(m, Drop::Unreadable);

    // RFC 5118 §4
    rfc5118_ipv6_good_registers: "rfc5118/ipv6-good" => |m| {
        let (mut b, _) = answered(m, PEER6, 200, "OK");
        assert_eq!(fetch(&mut b, "user"), ["<sip:caller@[2001:db8::1]>"]);
    };
    rfc5118_ipv6_bad_is_400: "rfc5118/ipv6-bad" => |m| answered(m, PEER6, 400, "Malformed Request-URI");
    rfc5118_port_ambiguous_is_an_address_and_not_ours: "rfc5118/port-ambiguous" => |m| answered(m, PEER6, 404, "Not Our Domain");
    rfc5118_port_unambiguous_registers: "rfc5118/port-unambiguous" => |m| answered(m, PEER6, 200, "OK");
    rfc5118_received_with_delimiters_is_read_and_replaced: "rfc5118/via-received-param-with-delim" => |m| {
        let (_, answer) = answered(m, PEER6, 404, "No User In Request-URI");
        assert_eq!(answer.via_param("received"), Some("2001:db8::77"));
    };
    rfc5118_received_without_delimiters_is_read_and_replaced: "rfc5118/via-received-param-no-delim" => |m| {
        let (_, answer) = answered(m, PEER6, 200, "OK");
        assert_eq!(answer.via_param("received"), Some("2001:db8::77"));
    };
    rfc5118_ipv6_in_sdp_is_forwarded: "rfc5118/ipv6-in-sdp" => |m| forwarded(m, PEER6);
    rfc5118_mult_ip_in_header_is_forwarded: "rfc5118/mult-ip-in-header" => |m| forwarded(m, PEER6);
    rfc5118_mult_ip_in_sdp_is_forwarded: "rfc5118/mult-ip-in-sdp" => |m| forwarded(m, PEER6);
    rfc5118_ipv4_mapped_ipv6_is_forwarded: "rfc5118/ipv4-mapped-ipv6" => |m| forwarded(m, PEER);
    rfc5118_three_colons_are_two: "rfc5118/ipv6-bug-abnf-3-colons" => |m| forwarded(m, PEER);
    rfc5118_two_colons_are_right: "rfc5118/ipv6-correct-abnf-2-colons" => |m| forwarded(m, PEER);
}

#[test]
fn every_message_of_both_rfcs_has_its_verdict_here() {
    let mut count = 0;
    for rfc in ["rfc4475", "rfc5118"] {
        let folder = format!("{}/tests/data/{rfc}", env!("CARGO_MANIFEST_DIR"));
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(FILES.contains(&format!("{rfc}/{name}").as_str()), "{rfc}/{name}");
            count += 1;
        }
    }
    assert_eq!((count, FILES.len()), (62, 62));
}

/// The contacts of a user of example.com, without their expiry.
fn fetch(b: &mut Bench, user: &str) -> Vec<String> {
    let request = Request::new("REGISTER", "sip:example.com").to(&format!("<sip:{user}@example.com>")).call_id("fetch");
    let answer = b.send_for_one(ALICE, request);
    assert_eq!(answer.status(), 200);
    let bare = |contact: &&str| contact.split(";expires=").next().unwrap().to_string();
    answer.all("Contact").iter().map(bare).collect()
}

/// A repetition finds its transaction although the branch is no identifier; another request from there does not.
fn badbranch(bytes: &[u8]) {
    let mut b = bench();
    settle(&b, bytes);
    assert_eq!(b.send(PEER, bytes).len(), 1);
    assert_eq!(b.send(PEER, bytes).len(), 0, "absorbed");
    let other = String::from_utf8(bytes.to_vec()).unwrap();
    let other = other.replace("CSeq: 8 ", "CSeq: 9 ");
    assert_ne!(other.as_bytes(), bytes);
    assert_eq!(b.send(PEER, other.as_str()).len(), 1);
    b.assert_quiet();
}

/// Even where the branch is ours, a second Via of 255.255.255.255 that the callee invented sends nothing there: the response goes
/// where the request came from.
fn broadcast(bytes: &[u8]) {
    let mut b = bench();
    b.register("user", "<sip:user@10.0.1.2:5060>");
    let sent = b.send(ALICE, Request::new("INVITE", "sip:user@example.com"));
    let at_phone = the(&sent, PHONE);
    let forged = String::from_utf8(bytes.to_vec()).unwrap();
    let forged = forged.replace("z9hG4bK1324923", at_phone.branch());
    for sent in b.send(PHONE, forged.as_str()) {
        assert_eq!(sent.to, ALICE);
    }
    b.assert_quiet();
}

#[test]
fn unusual_and_empty_reason_phrases_pass_bit_for_bit() {
    for file in ["unreason.dat", "noreason.dat"] {
        let path = format!("{}/tests/data/rfc4475/{file}", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(path).unwrap();
        let line = bytes.split_inclusive(|b| *b == b'\n').next().unwrap();
        let mut line = line.to_vec();
        if file == "noreason.dat" {
            line[9] = b'8';
            line[8] = b'1';
            line[10] = b'0';
        }
        let mut b = Bench::new();
        b.register("bob", "<sip:bob@10.0.1.2:5060>");
        let sent = b.send(ALICE, Request::invite());
        let answer = the(&sent, BOB).answer(299).bytes();
        let rest = answer.iter().position(|b| *b == b'\n').unwrap() + 1;
        let answer = [&line[..], &answer[rest..]].concat();
        let at_alice = b.send_for_one(BOB, &answer);
        assert!(at_alice.bytes.starts_with(&line), "{file}");
    }
}

#[test]
fn a_contact_with_escaped_headers_is_called_without_them() {
    // §19.1.1: a Request-URI has no header fields; §19.1.5: a Route of a stranger's making is nothing to honour.
    let mut b = Bench::new();
    b.register("bob", "<sip:bob@10.0.1.2:5060?Route=%3Csip:10.9.9.9%3E&Subject=x>");
    let sent = b.send(ALICE, Request::invite());
    let at_bob = the(&sent, BOB);
    assert_eq!(at_bob.uri(), "sip:bob@10.0.1.2:5060");
    assert_eq!(at_bob.all("Route").len(), 0);
    // The question mark of a user part is no such thing.
    b.register("what", "<sip:what?@10.0.1.2:5060>");
    let sent = b.send(ALICE, Request::new("INVITE", "sip:what@example.com"));
    assert_eq!(the(&sent, BOB).uri(), "sip:what?@10.0.1.2:5060");
}
