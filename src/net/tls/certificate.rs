//! For how long a certificate is valid, and who is to be told of its end: whoever runs `strowger check`, the log, and the metrics.

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::x509::X509;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long before its end a certificate is told of. Programs that renew certificates do it earlier.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// What a certificate is to us.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// We show it, as server or as client.
    Shown,
    /// Peers are verified by it.
    Trusted,
}

impl Role {
    pub fn label(self) -> &'static str {
        match self {
            Role::Shown => "shown",
            Role::Trusted => "trusted",
        }
    }
}

/// What the conf names, and when it is valid: with its chain, which is as good as its weakest part. Times are seconds since 1970.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Certificate {
    pub file: PathBuf,
    pub role: Role,
    /// The common name, or whatever else its subject says first; it may be empty.
    pub subject: String,
    pub valid_from: i64,
    pub valid_until: i64,
    /// The times as OpenSSL writes them.
    from_text: String,
    until_text: String,
}

impl Certificate {
    /// `rest` is the chain of the certificate.
    pub(super) fn of(file: &Path, first: &X509, rest: &[X509], role: Role) -> Result<Certificate, ErrorStack> {
        let (mut from, mut until) = (first.not_before(), first.not_after());
        for other in rest {
            from = if seconds(other.not_before())? > seconds(from)? { other.not_before() } else { from };
            until = if seconds(other.not_after())? < seconds(until)? { other.not_after() } else { until };
        }
        let subject = first.subject_name();
        let named = subject.entries_by_nid(openssl::nid::Nid::COMMONNAME).next().or_else(|| subject.entries().next());
        let subject = named.map_or_else(String::new, |entry| String::from_utf8_lossy(entry.data().as_slice()).into_owned());
        Ok(Certificate {
            file: file.to_owned(),
            role,
            subject,
            valid_from: seconds(from)?,
            valid_until: seconds(until)?,
            from_text: from.to_string(),
            until_text: until.to_string(),
        })
    }

    /// One of which nothing is known but what the conf says.
    pub fn new(file: PathBuf, role: Role) -> Certificate {
        let text = String::new;
        Certificate { file, role, subject: text(), valid_from: 0, valid_until: 0, from_text: text(), until_text: text() }
    }

    /// Returns a line if it is not valid, or will soon not be.
    pub fn warning(&self, now: SystemTime) -> Option<String> {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        let soon = now.saturating_add(SOON.as_secs() as i64);
        let left = match (self.valid_until - now) / (24 * 3600) {
            0 => "within a day".to_owned(),
            1 => "in 1 day".to_owned(),
            days => format!("in {days} days"),
        };
        let what = match self.role {
            Role::Shown if self.valid_until < now => format!("expired on {}: peers that verify it refuse us", self.until_text),
            Role::Trusted if self.valid_until < now => format!("expired on {}: peers below it are refused", self.until_text),
            _ if self.valid_from > now => format!("not valid before {}", self.from_text),
            _ if self.valid_until < soon => format!("expires on {}, {left}", self.until_text),
            _ => return None,
        };
        Some(match self.role {
            Role::Shown => format!("certificate {}: {what}", self.file.display()),
            Role::Trusted => format!("authority {:?} in {}: {what}", self.subject, self.file.display()),
        })
    }
}

/// Returns the seconds since 1970.
fn seconds(time: &Asn1TimeRef) -> Result<i64, ErrorStack> {
    let since = Asn1Time::from_unix(0)?.diff(time)?;
    Ok(i64::from(since.days) * 24 * 3600 + i64::from(since.secs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_of_when_there_is_something_to_do() {
        let day = 24 * 3600;
        let certificate = |role, from: i64, until: i64| Certificate {
            file: "c.pem".into(),
            role,
            subject: "Example".to_owned(),
            valid_from: from * day,
            valid_until: until * day,
            from_text: "FROM".to_owned(),
            until_text: "UNTIL".to_owned(),
        };
        let now = UNIX_EPOCH + Duration::from_secs(1000 * day as u64);
        let said = |role, from, until| certificate(role, from, until).warning(now);
        assert_eq!(said(Role::Shown, 900, 1014), None);
        assert_eq!(said(Role::Shown, 900, 1013), Some("certificate c.pem: expires on UNTIL, in 13 days".to_owned()));
        assert_eq!(said(Role::Shown, 900, 1001), Some("certificate c.pem: expires on UNTIL, in 1 day".to_owned()));
        assert_eq!(said(Role::Shown, 1001, 2000), Some("certificate c.pem: not valid before FROM".to_owned()));
        let expired = said(Role::Shown, 900, 999).unwrap();
        assert!(expired.starts_with("certificate c.pem: expired on UNTIL"), "{expired}");
        let expired = said(Role::Trusted, 900, 999).unwrap();
        assert!(expired.starts_with("authority \"Example\" in c.pem: expired on UNTIL"), "{expired}");
    }

    #[test]
    fn the_seconds_are_those_since_1970() {
        let time = Asn1Time::from_str("20261231235959Z").unwrap();
        assert_eq!(seconds(&time).unwrap(), 1_798_761_599);
        assert_eq!(seconds(&Asn1Time::from_str("19691231235959Z").unwrap()).unwrap(), -1);
    }
}
