//! Handshakes that succeed: versions, kinds of keys, who proves what, and how often the library was called.

use super::*;
use crate::net::tls::Identity;

/// What each side counts for a full handshake, of `(server, client)`.
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
                    settings.client_identity =
                        vec![bench.pair("client", &Wish::new(&["client.example.com"], kind))];
                });
                for (turn, cut) in Cut::ALL.into_iter().enumerate() {
                    let mut line = Line::new(&server, &client, NAME, cut);
                    let what = format!("{version:?} {kind:?} mutual: {is_mutual} {cut:?}");
                    line.assert_open();
                    let is_resumed = turn > 0;
                    assert_eq!(line.client.tls.is_resumed(), is_resumed, "{what}");
                    let version_name = format!("TLSv{}", version.as_str());
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
