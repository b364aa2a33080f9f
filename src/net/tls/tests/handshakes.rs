//! Handshakes that succeed: versions, kinds of keys, which side proves what, and how often the library was called.

use super::*;
use crate::net::tls::Identity;
use crate::settings::Words;

/// Returns the flights that each side counts for a handshake, as `(server, client)`.
fn flights(version: Version, resumed: bool) -> (u32, u32) {
    match (version, resumed) {
        // ClientHello · ClientKeyExchange to Finished; the start · ServerHello to ServerHelloDone · Finished.
        (Version::Tls12, false) => (2, 3),
        // ClientHello · Finished; the start · ServerHello to Finished.
        (Version::Tls12, true) | (Version::Tls13, _) => (2, 2),
    }
}

#[test]
fn every_combination_is_established_and_resumed_with_a_call_for_each_flight() {
    let bench = Bench::new();
    for version in [Version::Tls12, Version::Tls13] {
        for kind in Kind::ALL {
            for is_mutual in [false, true] {
                let server = bench.server(&[kind], |settings| {
                    only(version)(settings);
                    if is_mutual {
                        required(settings);
                    }
                });
                let client = bench.client(|settings| {
                    settings.certificates.client_identity = vec![bench.pair("client", &Wish::new(&["client.example.com"], kind))];
                });
                for (turn, cut) in Cut::ALL.into_iter().enumerate() {
                    let mut line = Line::new(&server, &client, NAME, cut);
                    let what = format!("{version:?} {kind:?} mutual: {is_mutual} {cut:?}");
                    line.assert_open();
                    let is_resumed = turn > 0;
                    assert_eq!(line.client.tls.is_resumed(), is_resumed, "{what}");
                    let version_name = format!("TLSv{}", version.word());
                    assert_eq!(line.client.tls.version(), version_name);
                    assert_eq!(line.server.tls.is_mutual(), is_mutual, "{what}");
                    if !is_resumed {
                        assert_eq!(line.client.tls.is_mutual(), is_mutual, "{what}");
                    }
                    let (of_server, of_client) = flights(version, is_resumed);
                    assert_eq!(line.server.tls.handshake_calls(), of_server, "{what}");
                    if matches!((version, cut), (Version::Tls12, _) | (_, Cut::Whole)) {
                        assert_eq!(line.client.tls.handshake_calls(), of_client, "{what}");
                    }
                    assert_eq!(line.client.tls.peer_names(), [NAME]);
                    let names = line.server.tls.peer_names();
                    if is_mutual {
                        assert_eq!(names, ["client.example.com"], "{what}");
                    } else {
                        assert!(names.is_empty());
                    }
                    line.talk();
                    line.close();
                }
            }
        }
    }
}

#[test]
fn the_name_that_is_asked_for_chooses_the_certificate() {
    let bench = Bench::new();
    for version in [Version::Tls12, Version::Tls13] {
        let identity =
            |name: &str, kind: Kind| Identity { name: name.into(), pairs: vec![bench.pair(name, &Wish::new(&[name], kind))] };
        let server = bench.server(&[Kind::Ecdsa, Kind::Rsa], |settings| {
            only(version)(settings);
            settings.certificates.identities =
                vec![identity("one.example.com", Kind::Ecdsa), identity("Two.example.com", Kind::Rsa)];
        });
        for (asked, shown) in [
            ("one.example.com", "one.example.com"),
            ("ONE.example.com", "one.example.com"),
            ("two.example.com", "two.example.com"),
            ("three.example.com", NAME),
            ("127.0.0.1", NAME),
        ] {
            for _ in 0..2 {
                let client = bench.client(|settings| settings.rules.verify_server = asked == shown);
                let line = Line::new(&server, &client, asked, Cut::Whole);
                line.assert_open();
                let certificate = line.client.tls.peer_certificate().unwrap();
                let names = super::super::names::identities(&certificate);
                assert_eq!(names, [shown], "{asked} {version:?}");
            }
        }
    }
}

#[test]
fn the_kind_of_certificate_is_chosen_by_what_the_client_can_check() {
    let bench = Bench::new();
    let server = bench.server(&[Kind::Rsa, Kind::Ecdsa], |_| {});
    for (ciphers, suite) in [
        ("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
        ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"),
        // The cheaper one for a client that supports both.
        ("", "ECDHE-ECDSA-AES128-GCM-SHA256"),
    ] {
        let client = bench.client(|settings| {
            only(Version::Tls12)(settings);
            settings.rules.ciphers = ciphers.into();
        });
        let mut line = Line::new(&server, &client, NAME, Cut::Whole);
        line.assert_open();
        assert_eq!(line.client.tls.cipher(), suite);
        line.talk();
    }
    // TLS 1.3 chooses by the client's signature algorithms.
    let client = bench.client(only(Version::Tls13));
    let line = Line::new(&server, &client, NAME, Cut::Whole);
    line.assert_open();
    let key = line.client.tls.peer_certificate().unwrap().public_key();
    assert_eq!(key.unwrap().id(), openssl::pkey::Id::EC);
}

#[test]
fn chains_lead_to_the_authority_whatever_their_length() {
    let bench = Bench::new();
    let sub = authority().sub("strowger test sub-authority");
    for version in [Version::Tls12, Version::Tls13] {
        for cut in [Cut::Whole, Cut::OneByOne, Cut::Random(9)] {
            for padding in [0, 20_000, 60_000] {
                let pairs = Kind::ALL.map(|kind| {
                    let wish = Wish { padding, ..Wish::new(&[NAME], kind) };
                    let certificate = issue(&sub, &wish);
                    let file = format!("long-{kind:?}");
                    let chain = [&certificate, &sub.certificate];
                    write(bench.folder.path(), &file, kind, &chain)
                });
                let server = bench.server(&[], |settings| {
                    only(version)(settings);
                    settings.certificates.default_identity = pairs.to_vec();
                });
                for ciphers in ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"] {
                    let client = bench.client(|settings| settings.rules.ciphers = ciphers.into());
                    let mut line = Line::new(&server, &client, NAME, cut);
                    line.assert_open();
                    assert_eq!(line.client.tls.peer_names()[0], NAME);
                    line.talk();
                }
            }
        }
    }
}

#[test]
fn data_of_every_size_arrives() {
    let bench = Bench::new();
    for version in [Version::Tls12, Version::Tls13] {
        let server = bench.server(&[Kind::Ecdsa], only(version));
        let client = bench.client(|_| {});
        for cut in [Cut::Whole, Cut::Random(5)] {
            let mut line = Line::new(&server, &client, NAME, cut);
            for size in [1, 1000, 16_383, 16_384, 16_385, 65_536, 300_000] {
                let data: Vec<u8> = (0..size).map(|byte: u32| (byte % 251) as u8).collect();
                line.client.tls.send(&data).unwrap();
                line.server.tls.send(&data).unwrap();
                line.run();
                assert!(line.server.heard == data, "{size}");
                assert!(line.client.heard == data, "{size}");
                line.server.heard.clear();
                line.client.heard.clear();
            }
            // Several in one read, and what is in the caller's buffer stays.
            line.server.heard.extend_from_slice(b"before ");
            for word in ["one ", "two ", "three"] {
                line.client.tls.send(word.as_bytes()).unwrap();
            }
            line.run();
            assert_eq!(line.server.heard, b"before one two three");
            line.server.heard.clear();
            line.close();
        }
    }
}

#[test]
fn what_is_sent_too_early_goes_with_the_last_flight() {
    let bench = Bench::new();
    for version in [Version::Tls12, Version::Tls13] {
        let server = bench.server(&[Kind::Ecdsa], only(version));
        let client = bench.client(|_| {});
        let mut line = Line {
            server: End::new(server.accept(client_address()).unwrap()),
            client: End::new(client.connect(server_address(), NAME).unwrap()),
            cut: Cut::Whole,
        };
        line.client.tls.send(b"INVITE ").unwrap();
        line.client.tls.start().unwrap();
        line.client.tls.send(b"sip:a").unwrap();
        line.run();
        line.assert_open();
        assert_eq!(line.server.heard, b"INVITE sip:a");
    }
}

#[test]
fn a_close_is_heard_by_both_sides() {
    let bench = Bench::new();
    for version in [Version::Tls12, Version::Tls13] {
        let server = bench.server(&[Kind::Ecdsa], only(version));
        let client = bench.client(|_| {});
        for cut in [Cut::Whole, Cut::OneByOne] {
            // The server first, preceded by data, which is not lost; the client may still send.
            let mut line = Line::new(&server, &client, NAME, cut);
            line.server.tls.send(b"last words").unwrap();
            line.server.tls.close();
            assert!(!line.server.tls.is_established());
            line.run();
            assert!(line.client.closed);
            assert_eq!(line.client.heard, b"last words");
            line.client.tls.close();
            line.client.tls.close();
            line.run();
            assert!(line.server.failure.is_none() && line.client.failure.is_none());
            // During a handshake no close_notify is sent.
            let mut tls = client.connect(server_address(), NAME).unwrap();
            tls.start().unwrap();
            tls.output().clear();
            tls.close();
            assert!(tls.output().is_empty());
        }
    }
}

#[test]
fn a_connection_that_is_idle_holds_no_buffers() {
    let bench = Bench::new();
    let server = bench.server(&[Kind::Ecdsa], |_| {});
    let client = bench.client(|_| {});
    let mut line = Line::new(&server, &client, NAME, Cut::Random(3));
    line.talk();
    for end in [&mut line.server, &mut line.client] {
        assert_eq!(end.tls.held_capacity(), 0);
        assert_eq!(end.tls.output().capacity(), 0);
    }
}
