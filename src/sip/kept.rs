//! A URI that is kept with its text, and parsed once.

use super::error::Fault;
use super::uri::{Uri, UriParts};
use std::fmt;
use std::str::FromStr;

/// A URI of the conf: otherwise each message would parse it again.
#[derive(Clone)]
pub struct KeptUri {
    text: Vec<u8>,
    parts: UriParts,
}

impl KeptUri {
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    pub fn uri(&self) -> Uri<'_> {
        self.parts.in_text(&self.text)
    }
}

impl FromStr for KeptUri {
    type Err = Fault;

    fn from_str(text: &str) -> Result<KeptUri, Fault> {
        let text = text.as_bytes().to_vec();
        let parts = UriParts::parse(&text)?;
        Ok(KeptUri { text, parts })
    }
}

impl PartialEq for KeptUri {
    fn eq(&self, other: &KeptUri) -> bool {
        self.text == other.text
    }
}

/// The text as written.
impl fmt::Display for KeptUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.text))
    }
}

impl fmt::Debug for KeptUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::Host;

    #[test]
    fn what_is_kept_reads_as_it_was_written() {
        let text = "sips:gw@GW.example.org:5071;maddr=192.0.2.1;transport=tcp";
        let kept: KeptUri = text.parse().unwrap();
        let (uri, fresh) = (kept.uri(), Uri::parse(text.as_bytes()).unwrap());
        assert_eq!(uri.host, Host::Name(b"GW.example.org"));
        assert_eq!(format!("{uri:?}"), format!("{fresh:?}"));
        assert_eq!((kept.text(), kept.to_string()), (text.as_bytes(), text.to_owned()));
        assert!("sip:".parse::<KeptUri>().is_err());
    }
}
