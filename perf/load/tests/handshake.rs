//! Handshakes in memory: every kind is what it says it is, and what the library cannot do is told.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_strowger-load");

/// A root, an intermediate authority of it, and ends with each kind of key, with the chain of three in their files.
fn certificates() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chains");
        std::fs::create_dir_all(&directory).expect("directory");
        let openssl = |arguments: &str| {
            let done = Command::new("openssl").current_dir(&directory).args(arguments.split(' ')).output().expect("openssl");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        let p256 = "-newkey ec -pkeyopt ec_paramgen_curve:P-256";
        openssl(&format!("req -x509 {p256} -nodes -subj /CN=root -days 30 -keyout root.key -out root.pem"));
        let sign = |name: &str, by: &str, extensions: &str| {
            std::fs::write(directory.join("extensions"), extensions).expect("a file");
            openssl(&format!(
                "x509 -req -in {name}.csr -CA {by}.pem -CAkey {by}.key -set_serial 7 -days 30 -extfile extensions -out {name}.pem"
            ));
        };
        openssl(&format!("req -new {p256} -nodes -subj /CN=middle -keyout middle.key -out middle.csr"));
        sign("middle", "root", "basicConstraints=critical,CA:true");
        for (name, key) in [("ec", p256), ("rsa", "-newkey rsa:2048"), ("ed25519", "-newkey ed25519")] {
            openssl(&format!("req -new {key} -nodes -subj /CN=end -keyout {name}.key -out {name}.csr"));
            sign(name, "middle", "subjectAltName=IP:127.0.0.1");
            let chain = [name, "middle", "root"]
                .map(|part| std::fs::read_to_string(directory.join(format!("{part}.pem"))).expect("a certificate"));
            std::fs::write(directory.join(format!("{name}-chain.pem")), chain.concat()).expect("a file");
        }
        directory
    })
}

/// With `@` for the directory of certificates.
fn run(line: &str) -> Output {
    let directory = certificates().to_str().expect("a plain path");
    let words = line.split_whitespace().map(|word| word.replace('@', directory));
    Command::new(BINARY)
        .args(["handshake", "--count", "20", "--ca", &format!("{directory}/root.pem")])
        .args(words)
        .output()
        .expect("run")
}

/// The server shows this key's chain.
fn shake(key: &str, line: &str) -> Value {
    let output = run(&format!("--callee-cert @/{key}-chain.pem --callee-key @/{key}.key {line}"));
    let said = String::from_utf8_lossy(&output.stderr);
    let result: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{key} {line}: {error}: {said}"));
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
            let show = format!("--tls-version {version} --callee-verify --cert @/{key}-chain.pem --key @/{key}.key");
            let mutual = shake("ec", &show);
            assert_eq!((&mutual["resumed"], &mutual["mutual"]), (&Value::from(0), &Value::from(true)));
        }
    }
}

#[test]
fn the_hybrid_group_is_agreed_on_or_named_as_missing() {
    let line = "--callee-cert @/ec-chain.pem --callee-key @/ec.key --tls-version 1.3 --groups";
    let output = run(&format!("{line} X25519MLKEM768"));
    let said = String::from_utf8_lossy(&output.stderr);
    match serde_json::from_slice::<Value>(&output.stdout) {
        Ok(result) => assert_eq!(result["group"], "X25519MLKEM768"),
        Err(_) => assert!(said.contains("does not have X25519MLKEM768"), "{said}"),
    }
    let output = run(&format!("{line} X25519,X25519000"));
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("does not have X25519000"), "{said}");
}

#[test]
fn a_chain_without_its_middle_is_refused() {
    let output = run("--callee-cert @/ec.pem --callee-key @/ec.key");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("unable to get local issuer certificate"), "{said}");
}

#[test]
fn cores_are_apart_and_a_core_is_not_apart_from_itself() {
    let distance = |cores: [&str; 2]| {
        Command::new(env!("CARGO_BIN_EXE_strowger-load")).args(["distance", "--cores"]).args(cores).output().unwrap()
    };
    let found = distance(["0", "1"]);
    if found.status.success() {
        let found: Value = serde_json::from_slice(&found.stdout).unwrap();
        let ns = found["round_trip_ns"].as_u64().unwrap();
        assert!((5..100_000).contains(&ns), "{ns} ns");
    } else {
        let why = String::from_utf8_lossy(&found.stderr).into_owned();
        assert!(why.contains("core 1"), "only a machine of one core has none: {why}");
    }
    let found = distance(["0", "0"]);
    assert_eq!(found.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&found.stderr).contains("no distance from itself"));
}
