//! Sessions resumed: with tickets, without them, across reloads; and never across other identities or checks.

use super::*;
use crate::net::tls::{Identity, TicketSecrets};

fn resumed(server: &Contexts, client: &Contexts, name: &str) -> bool {
    let mut line = Line::new(server, client, name, Cut::Whole);
    line.assert_open();
    line.talk();
    line.close();
    line.client.tls.is_resumed()
}

const VERSIONS: [Version; 2] = [Version::Tls12, Version::Tls13];

#[test]
fn a_dropped_connection_leaves_its_session_good() {
    let bench = Bench::new();
    for version in VERSIONS {
        let server = bench.server(&[Kind::Ecdsa], only(version));
        let client = bench.client(|_| {});
        let mut line = Line::new(&server, &client, NAME, Cut::Whole);
        line.talk();
        drop(line);
        assert!(resumed(&server, &client, NAME), "{version:?}");
    }
}

#[test]
fn tickets_of_tls_13_come_with_the_first_answer() {
    let bench = Bench::new();
    let server = bench.server(&[Kind::Ecdsa], only(Version::Tls13));
    let client = bench.client(|_| {});
    let mut line = Line::new(&server, &client, NAME, Cut::Whole);
    // AWS-LC delays them until the first data, OpenSSL sends them at once.
    let at_once = if cfg!(feature = "aws-lc") { 0 } else { 2 };
    assert_eq!(client.client_sessions(), at_once);
    line.server.tls.send(b"SIP/2.0 100 Trying\r\n").unwrap();
    line.run();
    assert_eq!(client.client_sessions(), 2);
    assert!(resumed(&server, &client, NAME));
}

#[test]
fn a_ticket_of_tls_13_is_used_once_and_a_session_of_tls_12_again() {
    let bench = Bench::new();
    let client = bench.client(|_| {});
    let server = bench.server(&[Kind::Ecdsa], only(Version::Tls13));
    assert!(!resumed(&server, &client, NAME));
    assert_eq!(client.client_sessions(), 2);
    // Three at once with two tickets.
    let mut three = [(); 3].map(|()| {
        let mut end = End::new(client.connect(server_address(), NAME).unwrap());
        end.tls.start().unwrap();
        end
    });
    assert_eq!(client.client_sessions(), 0);
    let count = three
        .iter_mut()
        .map(|end| {
            let mut line = Line {
                server: End::new(server.accept(client_address()).unwrap()),
                client: std::mem::replace(end, End::new(client.connect(server_address(), "other").unwrap())),
                cut: Cut::Whole,
            };
            line.run();
            line.assert_open();
            line.talk();
            line.client.tls.is_resumed()
        })
        .filter(|is_resumed| *is_resumed)
        .count();
    assert_eq!(count, 2);
    assert!(client.client_sessions() >= 3);
    // A long chain of them, each with a ticket of the previous one.
    for _ in 0..100 {
        assert!(resumed(&server, &client, NAME));
    }
    assert!(client.client_sessions() < 80, "not without end");

    let client = bench.client(|_| {});
    let server = bench.server(&[Kind::Ecdsa], only(Version::Tls12));
    assert!(!resumed(&server, &client, NAME));
    for _ in 0..3 {
        let line = Line::new(&server, &client, NAME, Cut::Whole);
        assert!(line.client.tls.is_resumed());
        assert_eq!(client.client_sessions(), 1);
    }
}

#[test]
fn sessions_are_kept_for_each_name_address_and_port() {
    let bench = Bench::new();
    let server = bench.server(&[], |settings| {
        settings.certificates.default_identity = vec![bench.pair("two", &Wish::new(&[NAME, "b.example.com"], Kind::Ecdsa))];
    });
    let client = bench.client(|_| {});
    assert!(!resumed(&server, &client, NAME));
    assert!(!resumed(&server, &client, "b.example.com"));
    assert!(resumed(&server, &client, NAME));
    assert!(resumed(&server, &client, "SIP.example.com."));
    let other_port = "127.0.0.1:5062".parse().unwrap();
    let mut tls = client.connect(other_port, NAME).unwrap();
    tls.start().unwrap();
    let mut line = Line { server: End::new(server.accept(client_address()).unwrap()), client: End::new(tls), cut: Cut::Whole };
    line.run();
    line.assert_open();
    assert!(!line.client.tls.is_resumed());
}

#[test]
fn a_client_without_tickets_resumes_from_the_servers_memory() {
    use openssl::ssl::{Ssl, SslContext, SslMethod, SslOptions, SslSessionCacheMode};
    // The library's own client, with tickets off: our client has no sessions without them.
    let bench = Bench::new();
    let server = bench.server(&[Kind::Ecdsa], only(Version::Tls12));
    let kept = std::sync::Arc::new(std::sync::Mutex::new(None));
    let keep = kept.clone();
    let mut builder = SslContext::builder(SslMethod::tls_client()).unwrap();
    builder.set_options(SslOptions::NO_TICKET);
    builder.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
    builder.set_new_session_callback(move |_, session| *keep.lock().unwrap() = Some(session));
    let context = builder.build();
    let connect = || {
        let mut ssl = Ssl::new(&context).unwrap();
        if let Some(session) = kept.lock().unwrap().take() {
            assert!(!session.id().is_empty());
            assert!(crate::net::sys::ssl::offer_session(&mut ssl, &session, &context));
        }
        let tls = Tls::from_ssl(ssl, server_address(), super::super::Side::Client);
        let mut line =
            Line { server: End::new(server.accept(client_address()).unwrap()), client: End::new(tls.unwrap()), cut: Cut::Whole };
        line.client.tls.start().unwrap();
        line.run();
        line.assert_open();
        line.client.tls.is_resumed()
    };
    assert!(!connect());
    assert!(connect());
}

#[test]
fn either_side_can_do_without() {
    let bench = Bench::new();
    for version in VERSIONS {
        let with = bench.server(&[Kind::Ecdsa], only(version));
        let without = bench.server(&[Kind::Ecdsa], |settings| {
            only(version)(settings);
            settings.rules.server_session_reuse = false;
        });
        let client = bench.client(|_| {});
        let forgetful = bench.client(|settings| settings.rules.client_session_reuse = false);
        for _ in 0..2 {
            assert!(!resumed(&without, &client, NAME), "{version:?}");
            assert!(!resumed(&with, &forgetful, NAME), "{version:?}");
        }
        assert_eq!(client.client_sessions(), 0);
    }
}

#[test]
fn sessions_outlive_a_reload_that_changes_no_identity_and_no_check() {
    let bench = Bench::new();
    for version in VERSIONS {
        let mut settings = bench.settings(&[Kind::Ecdsa, Kind::Rsa]);
        only(version)(&mut settings);
        settings.rules.verify_client = VerifyClient::Optional;
        let first = Contexts::load(&settings, None).unwrap();
        let client_settings = bench.client(|_| {});
        let client = client_settings;
        assert!(!resumed(&first, &client, NAME));

        // Nothing changed.
        let second = Contexts::load(&settings, Some(&first)).unwrap();
        assert!(resumed(&second, &client, NAME), "{version:?}");
        // The suites changed.
        let mut other = settings.clone();
        other.rules.ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256".into();
        let third = Contexts::load(&other, Some(&second)).unwrap();
        assert!(resumed(&third, &client, NAME), "{version:?}");
        // As a restart would.
        assert!(!resumed(&Contexts::load(&other, None).unwrap(), &client, NAME));
    }
}

#[test]
fn servers_with_one_secret_resume_each_others_sessions() {
    let bench = Bench::new();
    for version in VERSIONS {
        let mut settings = bench.settings(&[Kind::Ecdsa]);
        only(version)(&mut settings);
        let server = |settings: &Settings, secrets: &[u8]| {
            let mut settings = settings.clone();
            settings.ticket_secrets = TicketSecrets(secrets.iter().map(|byte| [*byte; 32]).collect());
            Contexts::load(&settings, None).unwrap()
        };
        let (one, other) = (server(&settings, &[1]), server(&settings, &[1]));
        let client = bench.client(|_| {});
        assert!(!resumed(&one, &client, NAME));
        for server in [&other, &one, &other] {
            assert!(resumed(server, &client, NAME), "{version:?}");
        }
        // The secret is replaced, one server after the other.
        let (both, swapped, after) = (server(&settings, &[1, 2]), server(&settings, &[2, 1]), server(&settings, &[2]));
        // OpenSSL does not show its client the new ticket that comes with a resumed session of TLS 1.2, and gives up the old one.
        let renews = version == Version::Tls13 || cfg!(feature = "aws-lc");
        let steps: &[(&Contexts, &[&Contexts])] = match renews {
            true => &[(&one, &[&both, &swapped, &both, &swapped, &after])],
            false => &[(&one, &[&both]), (&one, &[&swapped]), (&both, &[&swapped]), (&swapped, &[&after])],
        };
        for (first, then) in steps {
            let client = bench.client(|_| {});
            assert!(!resumed(first, &client, NAME));
            for server in *then {
                assert!(resumed(server, &client, NAME), "{version:?}");
            }
        }
        let client = bench.client(|_| {});
        assert!(!resumed(&after, &client, NAME));
        assert!(!resumed(&one, &client, NAME), "it does not have the new one");
        // Other certificates, and other checks.
        let renewed = bench.settings(&[Kind::Ecdsa]);
        assert!(!resumed(&server(&renewed, &[1]), &client, NAME), "{version:?}");
        assert!(!resumed(&one, &client, NAME));
        let mut strict = settings.clone();
        strict.rules.verify_client = VerifyClient::Optional;
        assert!(!resumed(&server(&strict, &[1]), &client, NAME), "{version:?}");
    }
}

#[test]
fn sessions_end_with_the_identity_and_the_checks_they_were_made_under() {
    let bench = Bench::new();
    let stranger = Authority::new("another authority");
    let both = write_authorities(bench.folder.path(), "both", &[authority(), &stranger]);
    for version in VERSIONS {
        let settings = {
            let mut settings = bench.settings(&[Kind::Ecdsa]);
            only(version)(&mut settings);
            settings
        };
        let shown = bench.pair("client", &Wish::new(&["client.test"], Kind::Ecdsa));
        let client_with = |change: &dyn Fn(&mut Settings)| {
            bench.client(|settings| {
                settings.certificates.client_identity = vec![shown.clone()];
                change(settings);
            })
        };
        let changes: [&dyn Fn(&mut Settings); 5] = [
            &|settings| settings.rules.verify_client = VerifyClient::Required,
            &|settings| settings.rules.verify_client = VerifyClient::Optional,
            &|settings| settings.rules.trusted_ca = Some(both.clone()),
            &|settings| {
                let renewed = bench.pair("renewed", &Wish::new(&[NAME], Kind::Ecdsa));
                settings.certificates.default_identity = vec![renewed];
            },
            &|settings| {
                settings.certificates.identities =
                    vec![Identity { name: "x.test".into(), pairs: settings.certificates.default_identity.clone() }];
            },
        ];
        for (number, change) in changes.iter().enumerate() {
            let client = client_with(&|_| {});
            let before = Contexts::load(&settings, None).unwrap();
            assert!(!resumed(&before, &client, NAME));
            assert!(resumed(&before, &client, NAME));
            let mut changed = settings.clone();
            change(&mut changed);
            let after = Contexts::load(&changed, Some(&before)).unwrap();
            assert!(!resumed(&after, &client, NAME), "{version:?} {number}");
            assert!(resumed(&after, &client, NAME));
            // Nor when changed back.
            let back = Contexts::load(&settings, Some(&after)).unwrap();
            assert!(!resumed(&back, &client, NAME), "{version:?} {number}");
        }
        // The client's side: a session made without a check is not offered where a check is required.
        let server = Contexts::load(&settings, None).unwrap();
        let mut client_settings = bench.settings(&[]);
        client_settings.rules.verify_server = false;
        let careless = Contexts::load(&client_settings, None).unwrap();
        assert!(!resumed(&server, &careless, NAME));
        assert!(resumed(&server, &careless, NAME));
        client_settings.rules.verify_server = true;
        let careful = Contexts::load(&client_settings, Some(&careless)).unwrap();
        assert!(!resumed(&server, &careful, NAME));
        assert!(resumed(&server, &careful, NAME));
    }
}

#[test]
fn a_session_of_one_name_is_not_resumed_under_another() {
    let bench = Bench::new();
    for version in VERSIONS {
        let both = Wish::new(&["a.example.com", "b.example.com"], Kind::Ecdsa);
        let server = bench.server(&[Kind::Ecdsa], |settings| {
            only(version)(settings);
            settings.certificates.identities = ["a.example.com", "b.example.com"]
                .map(|name| Identity { name: name.into(), pairs: vec![bench.pair(&format!("of-{name}"), &both)] })
                .into();
        });
        let client = bench.client(|_| {});
        assert!(!resumed(&server, &client, "a.example.com"));
        // As if the two names were one to the client: it offers the session of one to the other.
        client.rename_sessions("a.example.com", "b.example.com");
        let mut line = Line::new(&server, &client, "b.example.com", Cut::Whole);
        line.assert_open();
        assert!(!line.client.tls.is_resumed(), "{version:?}");
        line.talk();
    }
}

#[test]
fn a_chain_that_was_good_is_not_good_for_another_name_authority_or_purpose() {
    let bench = Bench::new();
    let stranger = Authority::new("another authority");
    let other = write_authorities(bench.folder.path(), "other", &[&stranger]);
    let mut settings = bench.settings(&[]);
    settings.rules.client_session_reuse = false;
    settings.certificates.default_identity = vec![bench.pair("two", &Wish::new(&[NAME, "b.example.com"], Kind::Ecdsa))];
    settings.rules.verify_client = VerifyClient::Required;
    let both = Contexts::load(&settings, None).unwrap();
    for _ in 0..3 {
        for (name, is_proved) in [(NAME, true), ("b.example.com", true), ("c.test", false)] {
            let line = Line::new(&both, &both, name, Cut::Whole);
            assert_eq!(line.client.failure.is_none(), is_proved, "{name}");
        }
    }
    let mut changed = settings.clone();
    changed.rules.trusted_ca = Some(other);
    let after = Contexts::load(&changed, Some(&both)).unwrap();
    assert!(Line::new(&both, &after, NAME, Cut::Whole).client.failure.is_some());
    assert!(Line::new(&after, &both, NAME, Cut::Whole).server.failure.is_some());
    // And a failure is not remembered as valid.
    for _ in 0..3 {
        assert!(Line::new(&both, &after, NAME, Cut::Whole).client.failure.is_some());
    }
}

#[test]
fn a_thousand_reloads_leave_memory_where_it_was() {
    let bench = Bench::new();
    let settings = {
        let mut settings = bench.settings(&[Kind::Ecdsa, Kind::Rsa]);
        settings.certificates.identities = (0..4)
            .map(|number| Identity { name: format!("{number}.example.com"), pairs: settings.certificates.default_identity.clone() })
            .collect();
        settings.rules.verify_client = VerifyClient::Optional;
        settings
    };
    let client = bench.client(|settings| {
        settings.certificates.client_identity = vec![bench.pair("client", &Wish::new(&["c.test"], Kind::Ecdsa))];
    });
    let mut contexts = Contexts::load(&settings, None).unwrap();
    let mut reload = |round: usize| {
        let mut changed = settings.clone();
        // Different from the previous one, so that nothing is carried over.
        if round % 2 == 1 {
            changed.rules.session_lifetime *= 2;
        }
        let next = Contexts::load(&changed, Some(&contexts)).unwrap();
        contexts = next;
        if round.is_multiple_of(10) {
            let mut line = Line::new(&contexts, &client, "1.example.com", Cut::Whole);
            line.run();
        }
    };
    for round in 0..100 {
        reload(round);
    }
    let before = resident();
    for round in 0..1000 {
        reload(round);
    }
    // Other tests run at the same time and use memory too; a thousand leaked contexts would use far more.
    let after = resident();
    assert!(after < before + 48 * 1024, "{before} KiB before, {after} KiB after");
}

/// Returns the resident memory of the process in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let figure = line.unwrap().split_whitespace().nth(1);
    figure.unwrap().parse().unwrap()
}
