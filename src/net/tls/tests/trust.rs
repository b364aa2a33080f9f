//! A client's identity by its certificate, required purposes, which certificates are shown, and the key exchange groups.

use super::*;
use crate::net::tls::Purpose;

const VERSIONS: [Version; 2] = [Version::Tls12, Version::Tls13];

/// A client that shows a certificate with these names, and a server that asks for one.
fn named(bench: &Bench, version: Version, wish: &Wish) -> (Contexts, Contexts) {
    let pair = bench.pair("named", wish);
    let server = bench.server(&[Kind::Ecdsa], |settings| {
        only(version)(settings);
        settings.rules.verify_client = VerifyClient::Optional;
    });
    let client = bench.client(|settings| settings.certificates.client_identity = vec![pair]);
    (server, client)
}

fn names(line: &Line) -> Option<Vec<String>> {
    let names = line.server.tls.client_names()?;
    Some(names.iter().map(|name| name.to_string()).collect())
}

#[test]
fn a_clients_names_are_those_of_its_certificate_in_resumed_sessions_too() {
    let bench = Bench::new();
    let cases: &[(&[&str], &str, &[&str])] = &[
        (&["sip:alice@example.test"], "x", &["sip:alice@example.test"]),
        (&["SIPS:Alice@Example.Test"], "x", &["SIPS:Alice@Example.Test"]),
        (&["sip:example.test", "sip:a@b.test"], "x", &["sip:example.test", "sip:a@b.test"]),
        (&["example.test", "phone.test"], "x", &["example.test", "phone.test"]),
        // A certificate for one user does not also prove the whole domain.
        (&["sip:alice@example.test", "example.test"], "x", &["sip:alice@example.test"]),
        (&["urn:uuid:1", "example.test"], "x", &["example.test"]),
        (&["192.0.2.1"], "boss.example.test", &[]),
        // The common name proves nothing.
        (&[], "boss.example.test", &[]),
    ];
    for version in VERSIONS {
        for (wanted, common_name, proved) in cases {
            let wish = Wish { common_name, ..Wish::new(wanted, Kind::Ecdsa) };
            let (server, client) = named(&bench, version, &wish);
            for turn in 0..3 {
                let mut line = Line::new(&server, &client, NAME, Cut::Whole);
                line.assert_open();
                line.talk();
                assert_eq!(line.client.tls.is_resumed(), turn > 0);
                assert_eq!(names(&line).unwrap(), *proved, "{version:?} {wanted:?}");
                assert_eq!(line.client.tls.client_names(), None, "it is the client");
                line.close();
            }
        }
    }
}

#[test]
fn who_shows_none_and_who_is_not_asked_is_nobody() {
    let bench = Bench::new();
    for version in VERSIONS {
        let (server, _) = named(&bench, version, &Wish::new(&["a.test"], Kind::Ecdsa));
        let bare = bench.client(|_| {});
        let careless = bench.server(&[Kind::Ecdsa], only(version));
        let shows = bench.client(|settings| {
            let wish = Wish::new(&["sip:alice@example.test"], Kind::Ecdsa);
            settings.certificates.client_identity = vec![bench.pair("shows", &wish)];
        });
        for (server, client) in [(&server, &bare), (&careless, &shows)] {
            let line = Line::new(server, client, NAME, Cut::Whole);
            line.assert_open();
            assert_eq!(names(&line), None);
        }
    }
}

/// Returns the result of a client showing this certificate to a server that accepts these purposes.
fn shake(bench: &Bench, version: Version, shown: &[&str], accepted: &[Purpose]) -> Line {
    let wish = Wish { purposes: shown, ..Wish::new(&["client.test"], Kind::Ecdsa) };
    let pair = bench.pair("purposes", &wish);
    let server = bench.server(&[Kind::Ecdsa], |settings| {
        only(version)(settings);
        settings.rules.verify_client = VerifyClient::Required;
        settings.rules.client_purposes = accepted.to_vec();
    });
    let client = bench.client(|settings| settings.certificates.client_identity = vec![pair]);
    let mut line = Line::new(&server, &client, NAME, Cut::Whole);
    if line.server.failure.is_none() {
        line.talk();
    }
    line
}

#[test]
fn certificates_of_clients_are_made_for_what_the_settings_accept() {
    use Purpose::*;
    let bench = Bench::new();
    let both = [ClientAuth, ServerAuth];
    let cases: &[(&[&str], &[Purpose], bool)] = &[
        (&["clientAuth"], &[ClientAuth], true),
        (&["serverAuth"], &[ClientAuth], false),
        (&["serverAuth"], &both, true),
        (&["clientAuth"], &both, true),
        (&["clientAuth"], &[ServerAuth], false),
        (&["serverAuth"], &[ServerAuth], true),
        (&["emailProtection"], &both, false),
        (&["emailProtection"], &[Any], true),
        (&["emailProtection", "clientAuth"], &[ClientAuth], true),
        // A certificate allows every purpose if it names none.
        (&[], &[ClientAuth], true),
        (&[], &both, true),
    ];
    for version in VERSIONS {
        for (shown, accepted, is_good) in cases {
            let line = shake(&bench, version, shown, accepted);
            let what = format!("{version:?} {shown:?} {accepted:?}");
            match (is_good, &line.server.failure) {
                (true, None) => assert!(line.server.tls.is_mutual(), "{what}"),
                (false, Some(failure)) => {
                    let text = failure.to_string();
                    assert!(text.contains("purpose"), "{what}: {text}");
                }
                (_, failure) => panic!("{what}: {failure:?}"),
            }
        }
    }
}

#[test]
fn an_authority_that_issues_for_servers_only_makes_no_clients() {
    use openssl::x509::extension::{BasicConstraints, ExtendedKeyUsage};
    let bench = Bench::new();
    let under = authority().sub_with(|builder| {
        let basic = BasicConstraints::new().critical().ca().build().unwrap();
        builder.append_extension(basic).unwrap();
        let usage = ExtendedKeyUsage::new().server_auth().build().unwrap();
        builder.append_extension(usage).unwrap();
    });
    let leaf = issue(&under, &Wish { purposes: &["clientAuth"], ..Wish::new(&["client.test"], Kind::Ecdsa) });
    let chain = [&leaf, &under.certificate];
    let pair = write(bench.folder.path(), "under", Kind::Ecdsa, &chain);
    for (accepted, is_good) in [
        (vec![Purpose::ClientAuth], false),
        // The whole chain must be made for one of them.
        (vec![Purpose::ClientAuth, Purpose::ServerAuth], false),
        (vec![Purpose::Any], true),
    ] {
        let server = bench.server(&[Kind::Ecdsa], |settings| {
            settings.rules.verify_client = VerifyClient::Required;
            settings.rules.client_purposes = accepted.clone();
        });
        let client = bench.client(|settings| settings.certificates.client_identity = vec![pair.clone()]);
        let line = Line::new(&server, &client, NAME, Cut::Whole);
        let failure = line.server.failure.as_ref().map(ToString::to_string);
        assert_eq!(failure.is_none(), is_good, "{accepted:?}: {failure:?}");
    }
}

#[test]
fn a_session_made_under_other_purposes_is_not_resumed() {
    let bench = Bench::new();
    let mut settings = bench.settings(&[Kind::Ecdsa]);
    settings.rules.verify_client = VerifyClient::Required;
    settings.rules.client_purposes = vec![Purpose::Any];
    let wish = Wish { purposes: &["serverAuth"], ..Wish::new(&["client.test"], Kind::Ecdsa) };
    let pair = bench.pair("server-only", &wish);
    let client = bench.client(|settings| settings.certificates.client_identity = vec![pair]);
    let before = Contexts::load(&settings, None).unwrap();
    let mut line = Line::new(&before, &client, NAME, Cut::Whole);
    line.assert_open();
    line.talk();
    settings.rules.client_purposes = vec![Purpose::ClientAuth];
    let after = Contexts::load(&settings, Some(&before)).unwrap();
    let line = Line::new(&after, &client, NAME, Cut::Whole);
    assert!(line.server.failure.is_some());
}

#[test]
fn a_server_must_be_made_for_a_server_whatever_is_accepted_of_clients() {
    let bench = Bench::new();
    let wish = Wish { purposes: &["clientAuth"], ..Wish::new(&[NAME], Kind::Ecdsa) };
    let pair = bench.pair("no-server", &wish);
    let server = bench.server(&[], |settings| settings.certificates.default_identity = vec![pair]);
    let client = bench.client(|settings| settings.rules.client_purposes = vec![Purpose::Any]);
    let line = Line::new(&server, &client, NAME, Cut::Whole);
    let failure = line.client.failure.expect("a refusal").to_string();
    assert!(failure.contains("purpose"), "{failure}");
}

#[test]
fn a_client_can_be_told_to_show_nothing() {
    let bench = Bench::new();
    for version in VERSIONS {
        for (shows, verify, is_good) in
            [(true, VerifyClient::Required, true), (false, VerifyClient::Optional, true), (false, VerifyClient::Required, false)]
        {
            let server = bench.server(&[Kind::Ecdsa], |settings| {
                only(version)(settings);
                settings.rules.verify_client = verify;
            });
            // It has an identity as a server, which it would show.
            let client = bench.server(&[Kind::Ecdsa], |settings| {
                settings.rules.show_client_certificate = shows;
            });
            assert_eq!(client.shows_client_certificate(), shows);
            let line = Line::new(&server, &client, NAME, Cut::Whole);
            assert_eq!(line.server.failure.is_none(), is_good, "{version:?} {shows}");
            if is_good {
                assert_eq!(line.server.tls.is_mutual(), shows);
                assert_eq!(line.client.tls.is_mutual(), shows);
            }
        }
    }
}

// ---- groups ------------------------------------------------------------------------------------------------------------

const X25519: u16 = 29;
const P256: u16 = 23;
const P384: u16 = 24;
const X25519MLKEM768: u16 = 0x11ec;

/// Returns the group of the key share in a server's TLS 1.3 answer; `None` in TLS 1.2.
fn group_of(server_hello: &[u8]) -> Option<u16> {
    let at = 5 + 4 + 2 + 32;
    let session = usize::from(server_hello[at]);
    let mut rest = &server_hello[at + 1 + session + 3..];
    let len = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
    rest = &rest[2..2 + len];
    while let [a, b, c, d, more @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*c, *d]));
        if u16::from_be_bytes([*a, *b]) == 51 {
            return Some(u16::from_be_bytes([more[0], more[1]]));
        }
        rest = &more[len..];
    }
    None
}

/// Runs the handshake between these two; returns the bytes of the first flight, and the agreed group.
fn agree(server: &Contexts, client: &Contexts, cut: Cut) -> (Line, usize, Option<u16>) {
    let mut line = Line {
        server: End::new(server.accept(client_address()).unwrap()),
        client: End::new(client.connect(server_address(), NAME).unwrap()),
        cut,
    };
    line.client.tls.start().unwrap();
    let hello = std::mem::take(line.client.tls.output());
    let mut rest = &hello[..];
    while !rest.is_empty() {
        let len = line.cut.next(rest.len());
        line.server.hear(&rest[..len]);
        rest = &rest[len..];
    }
    let group = group_of(line.server.tls.output());
    line.run();
    (line, hello.len(), group)
}

fn groups(names: &'static [&'static str]) -> impl Fn(&mut Settings) {
    move |settings| settings.rules.groups = names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn the_group_that_stands_first_and_both_have_is_taken_without_a_second_hello() {
    let bench = Bench::new();
    let hybrid = cfg!(feature = "aws-lc").then_some(X25519MLKEM768);
    let default = || bench.server(&[Kind::Ecdsa], |_| ());
    let only_of = |names| bench.server(&[Kind::Ecdsa], groups(names));
    let cases = [
        (default(), default(), hybrid.unwrap_or(X25519)),
        // An old peer on either side: the second offered share is for it.
        (only_of(&["X25519"]), default(), X25519),
        (default(), only_of(&["X25519", "P-256"]), X25519),
        (default(), only_of(&["P-256"]), P256),
        (default(), only_of(&["P-384"]), P384),
        (only_of(&["P-384"]), only_of(&["P-384"]), P384),
    ];
    for (number, (server, client, wanted)) in cases.into_iter().enumerate() {
        for cut in Cut::ALL {
            let (mut line, len, group) = agree(&server, &client, cut);
            line.assert_open();
            assert_eq!(group, Some(wanted), "case {number}, {cut:?}");
            // One call for each flight: two of the server, and no third for a second hello.
            assert_eq!(line.server.tls.handshake_calls(), 2, "case {number}, {cut:?}");
            if number == 0 && hybrid.is_some() && !line.client.tls.is_resumed() {
                assert!(len > 1300, "a hello of more than one segment: {len}");
            }
            line.talk();
        }
    }
}

#[test]
fn a_peer_without_the_group_that_was_guessed_asks_again_and_a_peer_of_tls_12_does_not_mind() {
    let bench = Bench::new();
    let server = bench.server(&[Kind::Ecdsa], groups(&["P-384"]));
    let client = bench.client(|_| {});
    let (mut line, _, group) = agree(&server, &client, Cut::OneByOne);
    line.assert_open();
    assert_eq!(group, Some(P384), "by a HelloRetryRequest");
    line.talk();
    let old = bench.server(&[Kind::Ecdsa], |settings| {
        only(Version::Tls12)(settings);
        groups(&["P-256"])(settings);
    });
    for cut in Cut::ALL {
        let (mut line, ..) = agree(&old, &client, cut);
        line.assert_open();
        assert_eq!(line.client.tls.version(), "TLSv1.2");
        line.talk();
    }
    let none = bench.server(&[Kind::Ecdsa], groups(&["P-521"]));
    let client = bench.client(groups(&["P-256"]));
    let line = Line::new(&none, &client, NAME, Cut::Whole);
    assert!(line.server.failure.is_some() && line.client.failure.is_some());
}

#[test]
fn a_group_that_the_library_does_not_have_is_an_error_where_it_was_asked_for() {
    let bench = Bench::new();
    let mut settings = bench.settings(&[Kind::Ecdsa]);
    groups(&["X25519", "X25519MLKEM1"])(&mut settings);
    let error = Contexts::load(&settings, None).err().expect("an error");
    let text = error.to_string();
    assert!(text.starts_with("groups: X25519MLKEM1: ") && text.ends_with(" does not have it"), "{text}");
    assert!(text.contains("SSL") || text.contains("AWS-LC"), "{text}");
    // The default works with every library.
    let settings = bench.settings(&[Kind::Ecdsa]);
    assert_eq!(settings.rules.groups[0], "X25519MLKEM768");
    assert!(Contexts::load(&settings, None).is_ok());
}
