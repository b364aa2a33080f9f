//! Handshakes and connections that must fail, with their messages; and settings that must be rejected.

use std::path::Path;

use super::*;
use crate::net::tls::{By, Identity};

/// Returns what the two sides report when a handshake fails, without "handshake failed: " or "closed: ".
fn reasons(line: &Line) -> (String, String) {
    let words = |end: &End| {
        let Some(failure) = &end.failure else {
            return String::new();
        };
        let text = failure.to_string();
        text.split_once(": ").unwrap().1.to_string()
    };
    (words(&line.server), words(&line.client))
}

fn for_each_version(test: impl Fn(Version, Cut)) {
    for version in [Version::Tls12, Version::Tls13] {
        for cut in [Cut::Whole, Cut::OneByOne] {
            test(version, cut);
        }
    }
}

#[test]
fn a_server_of_an_unknown_authority_is_refused() {
    let bench = Bench::new();
    let stranger = Authority::new("another authority");
    let other = write_authorities(bench.folder.path(), "other", &[&stranger]);
    for_each_version(|version, cut| {
        let server = bench.server(&[Kind::Ecdsa], only(version));
        let client = bench.client(|settings| settings.rules.trusted_ca = Some(other.clone()));
        let line = Line::new(&server, &client, NAME, cut);
        let (server, client) = reasons(&line);
        assert_eq!(server, "peer sent alert: unknown ca");
        let expected = [
            "we refused: certificate verify failed: unable to get local issuer certificate",
            "we refused: certificate verify failed: unable to get issuer certificate",
        ];
        assert!(expected.contains(&client.as_str()), "{client}");
        let failure = line.client.failure.unwrap();
        assert_eq!((failure.by, failure.in_handshake), (By::Us, true));
        let whole = "handshake failed: we refused: certificate verify";
        assert!(failure.to_string().starts_with(whole));
        let failure = line.server.failure.unwrap();
        assert_eq!(failure.by, By::Peer);
        assert!(failure.in_handshake);
    });
}

#[test]
fn a_server_that_does_not_prove_its_name_is_refused() {
    let bench = Bench::new();
    let cases: &[(&[&str], &str, &str, bool)] = &[
        // names in the certificate, its common name, the requested name, whether it is proved
        (&["sip.example.com"], "x", "sip.example.com", true),
        (&["sip.example.com"], "x", "SIP.Example.COM.", true),
        (&["sip.example.com"], "x", "example.com", false),
        (&["example.com"], "x", "sip.example.com", false),
        (&["*.example.com"], "x", "sip.example.com", false),
        (&["sip:example.com"], "x", "example.com", true),
        (&["SIP:example.com"], "x", "example.com", true),
        (&["sip:example.com:5061;transport=tls"], "x", "example.com", true),
        // If there is a sip URI, DNS names do not count; a URI of a user or of another scheme is not one.
        (&["sip:example.com", "sip.example.com"], "x", "sip.example.com", false),
        (&["sip:alice@example.com"], "x", "example.com", false),
        (&["https://example.com", "sip.example.com"], "x", "sip.example.com", true),
        (&["sips:example.com"], "x", "example.com", false),
        // The common name counts only if there is no alternative name.
        (&[], "sip.example.com", "sip.example.com", true),
        (&["other.example.com"], "sip.example.com", "sip.example.com", false),
        (&["127.0.0.1"], "sip.example.com", "sip.example.com", false),
        (&[], "Strowger Inc", "strowger inc", false),
        (&["127.0.0.1"], "x", "127.0.0.1", true),
        (&["127.0.0.1"], "x", "127.0.0.2", false),
        (&["::1"], "x", "[::1]", true),
        (&["::1"], "x", "::1", true),
        (&["sip.example.com"], "127.0.0.1", "127.0.0.1", false),
    ];
    for (number, (names, common_name, asked, is_proved)) in cases.iter().enumerate() {
        for version in [Version::Tls12, Version::Tls13] {
            let wish = Wish { common_name, ..Wish::new(names, Kind::Ecdsa) };
            let pair = bench.pair(&format!("case-{number}"), &wish);
            let server = bench.server(&[], |settings| {
                only(version)(settings);
                settings.certificates.default_identity = vec![pair];
            });
            let client = bench.client(|_| {});
            let connected = client.connect(server_address(), asked);
            if *asked == "strowger inc" {
                assert!(connected.is_err());
                continue;
            }
            let mut line = Line::new(&server, &client, asked, Cut::Whole);
            let what = format!("{names:?} {common_name} {asked}");
            if *is_proved {
                line.assert_open();
                line.talk();
                assert!(client.client_sessions() > 0, "{what}");
            } else {
                let (server, reason) = reasons(&line);
                assert_eq!(server, "peer sent alert: bad certificate", "{what}");
                let start = "we refused: certificate verify failed: the certificate ";
                assert!(reason.starts_with(start), "{what}: {reason}");
                assert!(reason.ends_with(&format!(", not {}", asked.to_ascii_lowercase())), "{what}: {reason}");
                assert!(!line.client.tls.is_established());
                assert!(line.client.tls.peer_names().is_empty());
                assert_eq!(client.client_sessions(), 0, "{what}");
            }
        }
    }
}

#[test]
fn names_that_cannot_be_are_an_error_and_no_panic() {
    let bench = Bench::new();
    let client = bench.client(|_| {});
    for name in ["", "a b", "a\0b", "ä.example", "[::1", "a/b", &"a".repeat(300)] {
        assert!(client.connect(server_address(), name).is_err(), "{name:?}");
    }
    for name in ["a", "under_score.example", "192.0.2.1", "[2001:db8::1]", "2001:db8::1"] {
        assert!(client.connect(server_address(), name).is_ok(), "{name:?}");
    }
}

#[test]
fn an_expired_certificate_is_refused() {
    let bench = Bench::new();
    for_each_version(|version, cut| {
        let wish = Wish { days: -1, ..Wish::new(&[NAME], Kind::Rsa) };
        let pair = bench.pair("expired", &wish);
        let server = bench.server(&[], |settings| {
            only(version)(settings);
            settings.certificates.default_identity = vec![pair.clone()];
        });
        let line = Line::new(&server, &bench.client(|_| {}), NAME, cut);
        let (server, client) = reasons(&line);
        assert_eq!(server, "peer sent alert: certificate expired");
        let expected = "we refused: certificate verify failed: certificate has expired";
        assert_eq!(client, expected);
    });
}

#[test]
fn clients_prove_themselves_as_the_settings_want() {
    let bench = Bench::new();
    let stranger = Authority::new("another authority");
    for_each_version(|version, cut| {
        let good = || vec![bench.pair("good", &Wish::new(&["client.test"], Kind::Ecdsa))];
        let bad = || {
            let certificate = issue(&stranger, &Wish::new(&["client.test"], Kind::Ecdsa));
            vec![write(bench.folder.path(), "bad", Kind::Ecdsa, &[&certificate])]
        };
        let none = Vec::new;
        let shake = |verify: VerifyClient, shown: Vec<Pair>| {
            let server = bench.server(&[Kind::Ecdsa], |settings| {
                only(version)(settings);
                settings.rules.verify_client = verify;
            });
            let client = bench.client(|settings| settings.certificates.client_identity = shown);
            Line::new(&server, &client, NAME, cut)
        };
        for (verify, shown, is_mutual) in [
            (VerifyClient::No, none(), false),
            (VerifyClient::No, bad(), false),
            (VerifyClient::Optional, none(), false),
            (VerifyClient::Optional, good(), true),
            (VerifyClient::Required, good(), true),
        ] {
            let mut line = shake(verify, shown);
            line.assert_open();
            assert_eq!(line.server.tls.is_mutual(), is_mutual);
            assert_eq!(line.client.tls.is_mutual(), is_mutual);
            line.talk();
        }
        for verify in [VerifyClient::Optional, VerifyClient::Required] {
            let line = shake(verify, bad());
            let (server, client) = reasons(&line);
            assert!(server.starts_with("we refused: certificate verify failed: unable to get"), "{server}");
            assert_eq!(client, "peer sent alert: unknown ca");
            // A TLS 1.3 client has finished before its certificate is judged.
            let in_handshake = line.client.failure.unwrap().in_handshake;
            assert_eq!(in_handshake, version == Version::Tls12);
        }
        let line = shake(VerifyClient::Required, none());
        let (server, client) = reasons(&line);
        assert_eq!(server, "we refused: peer did not return a certificate");
        let alert = match version {
            Version::Tls12 => "peer sent alert: handshake failure",
            Version::Tls13 => "peer sent alert: certificate required",
        };
        assert_eq!(client, alert);
    });
}

#[test]
fn versions_that_do_not_meet_are_refused() {
    let bench = Bench::new();
    let server = bench.server(&[Kind::Ecdsa], only(Version::Tls13));
    let client = bench.client(only(Version::Tls12));
    let line = Line::new(&server, &client, NAME, Cut::Whole);
    let (server, client) = reasons(&line);
    assert_eq!(server, "we refused: unsupported protocol");
    assert_eq!(client, "peer sent alert: protocol version");
}

#[test]
fn suites_are_chosen_by_the_settings() {
    let bench = Bench::new();
    let server = |list: &str| {
        bench.server(&[Kind::Rsa], |settings| {
            only(Version::Tls12)(settings);
            settings.rules.ciphers = list.to_string();
        })
    };
    let client = |list: &str| bench.client(|settings| settings.rules.ciphers = list.to_string());
    let suite = |server: &Contexts, client: &Contexts| {
        let mut line = Line::new(server, client, NAME, Cut::Whole);
        line.assert_open();
        line.talk();
        line.client.tls.cipher()
    };
    // What RFC 3261 §26.2.1 makes mandatory, by both of its names.
    for name in ["AES128-SHA", "TLS_RSA_WITH_AES_128_CBC_SHA"] {
        assert_eq!(suite(&server(name), &client(name)), "AES128-SHA");
    }
    let both = "AES128-SHA:ECDHE-RSA-AES256-GCM-SHA384";
    assert_eq!(suite(&server(both), &client(both)), "AES128-SHA");
    let modern = suite(&server(""), &client(""));
    assert_eq!(modern, "ECDHE-RSA-AES128-GCM-SHA256");
    // Not unless it is configured.
    let line = Line::new(&server(""), &client("AES128-SHA"), NAME, Cut::Whole);
    let expected = ["we refused: no shared cipher".to_string()];
    assert!(expected.contains(&reasons(&line).0), "{:?}", reasons(&line));

    let mut settings = bench.settings(&[Kind::Rsa]);
    settings.rules.ciphersuites = "TLS_AES_256_GCM_SHA384".into();
    let server = Contexts::load(&settings, None).unwrap();
    let line = Line::new(&server, &bench.client(|_| {}), NAME, Cut::Whole);
    assert_eq!(line.client.tls.cipher(), "TLS_AES_256_GCM_SHA384");
}

#[test]
fn old_suites_are_for_a_build_that_measures_them() {
    let bench = Bench::new();
    let load = |list: &str| {
        let mut settings = bench.settings(&[Kind::Rsa]);
        only(Version::Tls12)(&mut settings);
        settings.rules.ciphers = list.into();
        Contexts::load(&settings, None).map_err(|error| error.to_string())
    };
    for list in ["NULL-SHA", "RC4-SHA", "ALL", "AES128-SHA:ADH-AES128-SHA"] {
        let error = load(list).err().unwrap();
        assert!(error.ends_with(": unsafe"), "{error}");
    }
    assert_eq!(load("AES128-SHA:AES128-SHY").err().unwrap(), "ciphers: AES128-SHY: no such suite");
    for list in ["DES-CBC3-SHA", "TLS_RSA_WITH_3DES_EDE_CBC_SHA"] {
        match load(list) {
            Ok(contexts) if cfg!(feature = "old-suites") => {
                let client = bench.client(|settings| settings.rules.ciphers = list.into());
                let mut line = Line::new(&contexts, &client, NAME, Cut::Whole);
                line.assert_open();
                line.talk();
                assert_eq!(line.client.tls.cipher(), "DES-CBC3-SHA");
            }
            Ok(_) => panic!("{list} is taken"),
            // Debian builds its OpenSSL without it.
            Err(error) if cfg!(all(feature = "old-suites", not(feature = "aws-lc"))) => {
                assert_eq!(error, "ciphers: DES-CBC3-SHA: no such suite");
            }
            Err(error) => {
                let expected = "ciphers: DES-CBC3-SHA: unsafe, and only in a build with the \
                                feature old-suites";
                assert_eq!(error, expected);
            }
        }
    }
}

#[test]
fn garbage_harms_only_its_own_connection() {
    let bench = Bench::new();
    let server = bench.server(&[Kind::Ecdsa], |_| {});
    let client = bench.client(|_| {});
    let garbage: &[&[u8]] = &[
        b"INVITE sip:alice@example.com SIP/2.0\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\x00\x05hello",
        b"\x17\x03\x03\x00\x05hello",
        b"\x16\x02\x00\x00\x05hello",
        b"\x15\x03\x03\x00\x02\x02\x28",
        &[0xff; 100_000],
    ];
    for bytes in garbage {
        for mut cut in [Cut::Whole, Cut::OneByOne] {
            let mut end = End::new(server.accept(client_address()).unwrap());
            let mut rest = &bytes[..];
            while !rest.is_empty() && end.failure.is_none() {
                let len = cut.next(rest.len());
                end.hear(&rest[..len]);
                rest = &rest[len..];
            }
            assert!(end.failure.is_some(), "{bytes:?}");
            assert!(end.heard.is_empty());
            // Afterwards everything is ignored.
            end.hear(b"more");
            end.tls.send(b"more").unwrap();
            end.tls.close();
        }
    }
    // A failure leaves nothing behind in the thread for the next connection.
    let mut line = Line::new(&server, &client, NAME, Cut::Whole);
    line.assert_open();
    line.talk();
    // On an open connection.
    line.server.hear(b"SIP/2.0 200 OK\r\n\r\n");
    let failure = line.server.failure.as_ref().unwrap();
    assert!(!failure.in_handshake && failure.by == By::Us, "{failure}");
    line.run();
    assert_eq!(line.client.failure.as_ref().unwrap().by, By::Peer);
}

#[test]
fn every_bit_of_a_handshake_matters() {
    let bench = Bench::new();
    let mut random = 7u64;
    for version in [Version::Tls12, Version::Tls13] {
        let server = bench.server(&[Kind::Ecdsa], only(version));
        let client = bench.client(|settings| settings.rules.client_session_reuse = false);
        for _ in 0..600 {
            let mut line = Line {
                server: End::new(server.accept(client_address()).unwrap()),
                client: End::new(client.connect(server_address(), NAME).unwrap()),
                cut: Cut::Whole,
            };
            line.client.tls.start().unwrap();
            // The first flight of either side, with one bit flipped.
            let mut bytes = std::mem::take(line.client.tls.output());
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
            if random >> 63 == 0 {
                line.server.hear(&bytes);
                bytes = std::mem::take(line.server.tls.output());
            }
            // The positions of the version in record headers, which is to be ignored.
            let mut versions = Vec::new();
            let mut start = 0;
            while let Some(header) = bytes.get(start..start + 5) {
                versions.extend([start + 1, start + 2]);
                start += 5 + usize::from(u16::from_be_bytes([header[3], header[4]]));
            }
            assert_eq!(start, bytes.len());
            let at = (random >> 20) as usize % bytes.len();
            bytes[at] ^= 1 << (random >> 60 & 7);
            if random >> 63 == 0 {
                line.client.hear(&bytes);
            } else {
                line.server.hear(&bytes);
            }
            line.run();
            // It fails, or waits for bytes that will not come, but data is never exchanged.
            let both = line.server.tls.is_established() && line.client.tls.is_established();
            assert!(!both || versions.contains(&at), "bit of byte {at} of {bytes:?}");
        }
    }
}

#[test]
fn settings_are_taken_whole_or_not_at_all() {
    let bench = Bench::new();
    let folder = bench.folder.path();
    let write_file = |name: &str, text: &[u8]| {
        let file = folder.join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let good = bench.settings(&[Kind::Ecdsa, Kind::Rsa]);
    assert!(Contexts::load(&good, None).is_ok());
    let empty = write_file("empty.pem", b"");
    let torn = write_file("torn.pem", b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n");
    let locked = {
        let group = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::X9_62_PRIME256V1);
        let key = openssl::ec::EcKey::generate(&group.unwrap()).unwrap();
        let cipher = openssl::symm::Cipher::aes_128_cbc();
        let text = openssl::pkey::PKey::from_ec_key(key).unwrap().private_key_to_pem_pkcs8_passphrase(cipher, b"secret").unwrap();
        write_file("locked.key", &text)
    };
    let check = |change: &dyn Fn(&mut Settings), file: Option<&Path>, reason: &str| {
        let mut settings = good.clone();
        change(&mut settings);
        let error = Contexts::load(&settings, None).err().unwrap();
        assert_eq!(error.file.as_deref(), file, "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    };
    let absent = Path::new("/nonexistent.pem");
    check(
        &|settings| settings.certificates.default_identity[1].certificate = absent.into(),
        Some(absent),
        "No such file or directory",
    );
    check(&|settings| settings.rules.trusted_ca = Some(absent.into()), Some(absent), "No such file or directory");
    check(&|settings| settings.certificates.default_identity[0].certificate = empty.clone(), Some(&empty), "no certificate in it");
    check(&|settings| settings.rules.trusted_ca = Some(torn.clone()), Some(&torn), "not certificates in PEM");
    check(
        &|settings| settings.certificates.default_identity[0].private_key = torn.clone(),
        Some(&torn),
        "not a private key in PEM",
    );
    check(&|settings| settings.certificates.default_identity[0].private_key = locked.clone(), Some(&locked), "encrypted");
    let other_key = good.certificates.default_identity[1].private_key.clone();
    check(
        &|settings| settings.certificates.default_identity[0].private_key = other_key.clone(),
        Some(&other_key),
        "not the private key of the (first) certificate in",
    );
    check(
        &|settings| {
            let first = settings.certificates.default_identity[0].clone();
            settings.certificates.default_identity[1] = first;
        },
        Some(&good.certificates.default_identity[0].private_key),
        "an ECDSA key is given twice",
    );
    check(
        &|settings| {
            settings.rules.trusted_ca = None;
            settings.rules.verify_client = VerifyClient::Optional;
        },
        None,
        "trusted_ca",
    );
    check(
        &|settings| {
            settings.rules.min_version = Version::Tls13;
            settings.rules.max_version = Version::Tls12;
        },
        None,
        "min_version is above max_version",
    );
    check(&|settings| settings.rules.ciphersuites = "TLS_NONE".into(), None, "ciphersuites");
    let twice = Identity { name: "a.example".into(), pairs: vec![good.certificates.default_identity[0].clone()] };
    check(
        &|settings| settings.certificates.identities = vec![twice.clone(), twice.clone()],
        None,
        "two identities of the name a.example",
    );
    check(
        &|settings| {
            settings.certificates.default_identity.clear();
            settings.certificates.identities = vec![twice.clone()];
        },
        None,
        "need a default certificate",
    );
    let nameless = Contexts::load(&Settings::default(), None).unwrap();
    let error = nameless.accept(client_address()).err().unwrap();
    assert_eq!(error.to_string(), "no certificate to show to clients");
}
