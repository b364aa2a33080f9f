//! Checks a PEM file (RFC 7468) before its certificates and keys are read: that it exists, is whole, and is of the right kind. The
//! library reports only that a file is not good; this module says why.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// What a file must hold at least one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Certificate,
    PrivateKey,
}

/// More than all the certificate authorities of the world take.
const LARGEST: u64 = 4 << 20;

/// Checks the file. The error is a phrase that follows "FILE, which".
pub(super) fn check(path: &Path, kind: Kind) -> Result<(), String> {
    let unreadable = |error| format!("cannot be read: {error}");
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST {
        return Err("is too large for a PEM file".to_owned());
    }
    check_bytes(&bytes, kind)
}

fn check_bytes(bytes: &[u8], kind: Kind) -> Result<(), String> {
    let text = String::from_utf8_lossy(bytes);
    let mut found = Vec::new();
    let mut lines = text.lines().map(str::trim_end);
    while let Some(line) = lines.next() {
        let Some(label) = boundary(line, "BEGIN") else {
            continue;
        };
        let mut body = String::new();
        let mut encrypted = label == "ENCRYPTED PRIVATE KEY";
        loop {
            let Some(line) = lines.next() else {
                return Err(format!("is not whole: the line -----END {label}----- is missing"));
            };
            match boundary(line, "END") {
                Some(end) if end == label => break,
                Some(end) => {
                    return Err(format!("is not whole: -----BEGIN {label}----- ends with -----END {end}-----"));
                }
                // Headers belong to the old form (RFC 1421), which keys still have.
                None if line.contains(':') => encrypted |= line.contains("ENCRYPTED"),
                None => body.push_str(line.trim()),
            }
        }
        let what = match label {
            "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE" => Kind::Certificate,
            _ if label.ends_with("PRIVATE KEY") => Kind::PrivateKey,
            _ => continue,
        };
        if what == kind && encrypted {
            return Err("is encrypted, and a server has nobody to ask for the password: write the key in the clear with \
                 openssl pkey -in FILE -out NEW"
                .to_owned());
        }
        if what == kind && !is_sequence(&body) {
            return Err(format!("is not whole: what follows -----BEGIN {label}----- is not its base64"));
        }
        found.push(what);
    }
    if found.contains(&kind) {
        return Ok(());
    }
    let (wanted, label) = match kind {
        Kind::Certificate => ("certificate", "CERTIFICATE"),
        Kind::PrivateKey => ("private key", "PRIVATE KEY"),
    };
    Err(match found.first() {
        Some(Kind::PrivateKey) => format!("holds a private key, but no {wanted}"),
        Some(Kind::Certificate) => format!("holds a certificate, but no {wanted}"),
        None if bytes.first() == Some(&SEQUENCE) => {
            "is not a PEM file; it looks like DER: convert it with openssl x509 (or pkey) -inform der -in FILE -out NEW".to_owned()
        }
        None => format!("is not a PEM file of a {wanted}: it has no line -----BEGIN {label}-----"),
    })
}

/// The label of an encapsulation boundary (RFC 7468 §2).
fn boundary<'l>(line: &'l str, which: &str) -> Option<&'l str> {
    line.strip_prefix("-----")?.strip_prefix(which)?.strip_prefix(' ')?.strip_suffix("-----")
}

/// The tag of a SEQUENCE (X.690), with which certificates and private keys begin.
const SEQUENCE: u8 = 0x30;

/// The text is base64 of one SEQUENCE, neither cut short nor longer.
fn is_sequence(base64: &str) -> bool {
    let Ok(der) = openssl::base64::decode_block(base64) else {
        return false;
    };
    let (length, head) = match der.as_slice() {
        [SEQUENCE, short @ 0..=0x7f, ..] => (usize::from(*short), 2),
        [SEQUENCE, 0x81, a, ..] => (usize::from(*a), 3),
        [SEQUENCE, 0x82, a, b, ..] => (usize::from(u16::from_be_bytes([*a, *b])), 4),
        [SEQUENCE, 0x83, a, b, c, ..] => (u32::from_be_bytes([0, *a, *b, *c]) as usize, 5),
        _ => return false,
    };
    der.len() == head + length
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBhDCCASmgAwIBAgIUEypMl+4QzE5uJX19q1qwwELMX9MwCgYIKoZIzj0EAwIw
FjEUMBIGA1UEAwwLZXhhbXBsZS5jb20wIBcNMjYxMTIxMDM1MTE5WhgPMjEyNjEw
MjgwMzUxMTlaMBYxFDASBgNVBAMMC2V4YW1wbGUuY29tMFkwEwYHKoZIzj0CAQYI
KoZIzj0DAQcDQgAED5Hi40polynnPzPhCdKF5YgvkVRluxgYkyoPT1lHmN1TBMpt
pF4r2VO686YqAbYPHMeOx68JaXVnUVKbtVFSQqNTMFEwHQYDVR0OBBYEFDdBwZBX
JNoCYanzuRDadLFQxJ10MB8GA1UdIwQYMBaAFDdBwZBXJNoCYanzuRDadLFQxJ10
MA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSQAwRgIhALHjiHq3Vok95iTn
mm+pR9a982gBF7FHbBIzbk61EmqsAiEAiKg146jBEl2yTPdzZ11mc21sVPchGVxW
jABqLGTln1s=
-----END CERTIFICATE-----
";

    /// A SEQUENCE of one INTEGER in place of a key.
    fn key(label: &str, headers: &str) -> String {
        format!("-----BEGIN {label}-----\n{headers}MAMCAQU=\n-----END {label}-----\n")
    }

    #[test]
    fn what_is_good_is_taken() {
        let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        let chain = format!("subject=CN = example.com\n{CERTIFICATE}\n{CERTIFICATE}");
        let windows = CERTIFICATE.replace('\n', "\r\n");
        for certificate in [CERTIFICATE, &chain, &windows] {
            assert_eq!(check_bytes(certificate.as_bytes(), Kind::Certificate), Ok(()));
        }
        for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"] {
            let text = format!("{parameters}{}", key(label, ""));
            assert_eq!(check_bytes(text.as_bytes(), Kind::PrivateKey), Ok(()));
            let both = format!("{CERTIFICATE}{text}");
            assert_eq!(check_bytes(both.as_bytes(), Kind::Certificate), Ok(()));
            assert_eq!(check_bytes(both.as_bytes(), Kind::PrivateKey), Ok(()));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        use Kind::{Certificate, PrivateKey};
        let cut = CERTIFICATE.replace("pF4r2VO686YqAbYPHMeOx68JaXVnUVKbtVFSQqNTMFEwHQYDVR0OBBYEFDdBwZBX\n", "");
        let (open, _) = CERTIFICATE.split_once("-----END").unwrap();
        let old = key("RSA PRIVATE KEY", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n");
        for (text, kind, says) in [
            ("", Certificate, "no line -----BEGIN CERTIFICATE-----"),
            ("hello\n", PrivateKey, "no line -----BEGIN PRIVATE KEY-----"),
            (CERTIFICATE, PrivateKey, "holds a certificate, but no private key"),
            (&key("PRIVATE KEY", ""), Certificate, "holds a private key, but no certificate"),
            (&key("ENCRYPTED PRIVATE KEY", ""), PrivateKey, "is encrypted"),
            (&old, PrivateKey, "is encrypted"),
            (&cut, Certificate, "is not its base64"),
            (&CERTIFICATE.replace("MIIB", "MI*B"), Certificate, "is not its base64"),
            (&CERTIFICATE.replace("n1s=", "n1s"), Certificate, "is not its base64"),
            (open, Certificate, "-----END CERTIFICATE----- is missing"),
            (
                &CERTIFICATE.replace("-----END CERTIFICATE", "-----END PRIVATE KEY"),
                Certificate,
                "ends with -----END PRIVATE KEY-----",
            ),
            ("0\u{82}\u{1}", Certificate, "looks like DER"),
        ] {
            let refusal = check_bytes(text.as_bytes(), kind).unwrap_err();
            assert!(refusal.contains(says), "{text}: {refusal}");
        }
    }

    #[test]
    fn files_are_told_apart() {
        let place = tempfile::tempdir().unwrap();
        let check = |path: &Path| check(path, Kind::Certificate).unwrap_err();
        assert!(check(place.path()).contains("cannot be read"));
        let none = check(Path::new("none/such.pem"));
        assert!(none.contains("No such file"), "{none}");
        let large = place.path().join("large.pem");
        std::fs::write(&large, vec![b'x'; LARGEST as usize + 1]).unwrap();
        assert!(check(&large).contains("too large"));
    }
}
