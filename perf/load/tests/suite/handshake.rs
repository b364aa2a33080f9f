//! Handshakes in memory: every kind is what it says it is, and what the library cannot do is told. And how far cores are apart.

use serde_json::Value;

use crate::programs::{Run, run};

fn handshakes(line: &str) -> Run {
    run(&format!("handshake --count 20 --ca @/root.pem {line}"))
}

/// The server shows this key's chain.
fn shake(key: &str, line: &str) -> Value {
    let run = handshakes(&format!("--callee-cert @/{key}.pem --callee-key @/{key}.key {line}"));
    let result = run.result().clone();
    for side in ["server", "client"] {
        let quartile = |name: &str| result[side][name].as_f64().expect("a number");
        assert!(quartile("p25") <= quartile("median") && quartile("median") <= quartile("p75"), "{result:#}");
        assert_eq!(result[side]["n"], 20);
    }
    result
}

#[test]
fn each_version_works_with_each_key_and_a_chain_of_three() {
    for (version, keys) in [("1.2", &["rsa", "ec"][..]), ("1.3", &["rsa", "ec", "ed25519"])] {
        for key in keys {
            let result = shake(key, &format!("--tls-version {version} --groups X25519,P-256"));
            assert_eq!(result["version"], format!("TLSv{version}"));
            assert!(result["group"].as_str().is_some_and(|name| name.eq_ignore_ascii_case("X25519")), "{result:#}");
            assert_eq!(result["chain"], 3);
            assert_eq!((&result["resumed"], &result["mutual"]), (&Value::from(0), &Value::from(false)));
        }
    }
}

#[test]
fn sessions_are_resumed_and_clients_show_their_certificates() {
    for version in ["1.2", "1.3"] {
        let resumed = shake("ec", &format!("--tls-version {version} --resume --callee-resume"));
        assert_eq!(resumed["resumed"], 20, "{resumed:#}");
        for key in ["rsa", "ec"] {
            let mutual = shake("ec", &format!("--tls-version {version} --callee-verify --cert @/{key}.pem --key @/{key}.key"));
            assert_eq!((&mutual["resumed"], &mutual["mutual"]), (&Value::from(0), &Value::from(true)));
        }
    }
}

#[test]
fn the_hybrid_group_is_agreed_on_or_named_as_missing() {
    let line = "--callee-cert @/ec.pem --callee-key @/ec.key --tls-version 1.3 --groups";
    let run = handshakes(&format!("{line} X25519MLKEM768"));
    match run.results.first() {
        Some(result) => assert_eq!(result["group"], "X25519MLKEM768"),
        None => run.refused("does not have X25519MLKEM768"),
    }
    handshakes(&format!("{line} X25519,X25519000")).refused("does not have X25519000");
}

#[test]
fn a_chain_without_its_middle_is_refused() {
    handshakes("--callee-cert @/ec-alone.pem --callee-key @/ec.key").refused("unable to get local issuer certificate");
}

#[test]
fn cores_are_apart_and_a_core_is_not_apart_from_itself() {
    let apart = run("distance --cores 0 1");
    match apart.results.first() {
        Some(result) => {
            let ns = result["round_trip_ns"].as_u64().expect("a number");
            assert!((5..100_000).contains(&ns), "{ns} ns");
        }
        // A machine of one core has none.
        None => apart.refused("core 1"),
    }
    run("distance --cores 0 0").refused("no distance from itself");
}
