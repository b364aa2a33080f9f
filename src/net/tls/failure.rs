//! Why a connection failed, as text for one log line: which side refused, and the library's reason. The name of the peer precedes
//! it.

use std::fmt;

use openssl::error::ErrorStack;
use openssl::ssl::SslRef;
use openssl::x509::X509VerifyResult;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    pub by: By,
    /// For example "certificate verify failed: unable to get local issuer certificate" or "unknown ca".
    pub reason: String,
    /// True if the handshake failed, not an established connection.
    pub in_handshake: bool,
}

/// Which side refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    Us,
    /// By an alert.
    Peer,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.in_handshake { "handshake failed" } else { "closed" };
        write!(formatter, "{what}: ")?;
        match self.by {
            By::Us => write!(formatter, "we refused: {}", self.reason),
            By::Peer => write!(formatter, "peer sent alert: {}", self.reason),
        }
    }
}

impl std::error::Error for Failure {}

/// The library's reasons from here on are alerts sent by the peer (SSL_AD_REASON_OFFSET).
const ALERTS: i32 = 1000;

/// Reads the side and the reason from the library's errors; `detail` adds information about a refused certificate.
pub fn read(errors: Option<&ErrorStack>, ssl: &SslRef, detail: Option<&str>) -> (By, String) {
    let errors = errors.map_or(&[][..], |stack| stack.errors());
    for error in errors {
        let code = error.reason_code();
        if let Some(alert) = alert_name(code - ALERTS) {
            return (By::Peer, alert.to_string());
        }
    }
    let Some(first) = errors.first() else {
        return (By::Us, "no reason given".into());
    };
    let mut reason = words(first.reason().unwrap_or("no reason given"));
    if reason == "certificate verify failed" {
        let verdict = ssl.verify_result();
        if let Some(detail) = detail {
            reason = format!("{reason}: {detail}");
        } else if verdict != X509VerifyResult::OK {
            reason = format!("{reason}: {}", words(verdict.error_string()));
        }
    }
    (By::Us, reason)
}

/// Describes an error that does not belong to a connection.
pub fn words_of(errors: &ErrorStack) -> String {
    match errors.errors().first() {
        Some(error) => {
            let reason = words(error.reason().unwrap_or("no reason given"));
            match error.data().map(str::trim) {
                Some(data) if !data.is_empty() => format!("{reason} ({data})"),
                _ => reason,
            }
        }
        None => "no reason given".into(),
    }
}

/// AWS-LC writes CERTIFICATE_VERIFY_FAILED where OpenSSL writes "certificate verify failed".
fn words(reason: &str) -> String {
    if reason.bytes().any(|byte| byte.is_ascii_lowercase()) {
        reason.to_string()
    } else {
        reason.to_ascii_lowercase().replace('_', " ")
    }
}

/// RFC 8446 §6, RFC 5246 §7.2.
pub fn alert_name(alert: i32) -> Option<&'static str> {
    Some(match alert {
        0 => "close notify",
        10 => "unexpected message",
        20 => "bad record mac",
        21 => "decryption failed",
        22 => "record overflow",
        30 => "decompression failure",
        40 => "handshake failure",
        41 => "no certificate",
        42 => "bad certificate",
        43 => "unsupported certificate",
        44 => "certificate revoked",
        45 => "certificate expired",
        46 => "certificate unknown",
        47 => "illegal parameter",
        48 => "unknown ca",
        49 => "access denied",
        50 => "decode error",
        51 => "decrypt error",
        60 => "export restriction",
        70 => "protocol version",
        71 => "insufficient security",
        80 => "internal error",
        86 => "inappropriate fallback",
        90 => "user canceled",
        100 => "no renegotiation",
        109 => "missing extension",
        110 => "unsupported extension",
        112 => "unrecognized name",
        113 => "bad certificate status response",
        115 => "unknown psk identity",
        116 => "certificate required",
        120 => "no application protocol",
        _ => return None,
    })
}
