//! What one line shows of a message: its start line, and its method and CSeq.

use super::show::visible;

/// A message in a few words.
#[derive(Debug, PartialEq, Eq)]
pub struct Summary {
    /// The whole start line.
    pub start: String,
    /// `INVITE 1` or `200 OK (1 INVITE)`.
    pub label: String,
    /// The class of a response, 1 to 6; `None` for a request.
    pub class: Option<u8>,
}

impl Summary {
    pub fn of(message: &[u8]) -> Summary {
        let text = String::from_utf8_lossy(message);
        let mut lines = text.lines().skip_while(|line| line.trim().is_empty());
        let start = visible(lines.next().unwrap_or_default().trim());
        let cseq = lines
            .take_while(|line| !line.trim().is_empty())
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("cseq"))
            .map(|(_, value)| visible(value.trim()))
            .unwrap_or_default();
        let (first, rest) = start.split_once(' ').unwrap_or((&start, ""));
        let (label, class) = match first.to_ascii_uppercase().starts_with("SIP/") {
            true => {
                let class = rest.bytes().next().filter(u8::is_ascii_digit).map_or(0, |digit| digit - b'0');
                let label = match cseq.is_empty() {
                    true => rest.trim().to_owned(),
                    false => format!("{} ({cseq})", rest.trim()),
                };
                (label, Some(class))
            }
            false => {
                let number = cseq.split_whitespace().next().unwrap_or_default();
                (format!("{first} {number}").trim().to_owned(), None)
            }
        };
        Summary { start, label, class }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(message: &str) -> (String, Option<u8>) {
        let summary = Summary::of(message.as_bytes());
        (summary.label, summary.class)
    }

    #[test]
    fn requests_and_responses() {
        let invite = "INVITE sip:a@b SIP/2.0\r\nVia: x\r\ncseq : 7 INVITE\r\n\r\nCSeq: 8 BYE\r\n";
        assert_eq!(summary(invite), ("INVITE 7".into(), None));
        let ok = "\r\nSIP/2.0 200 OK\r\nCSeq: 7 INVITE\r\n\r\n";
        assert_eq!(summary(ok), ("200 OK (7 INVITE)".into(), Some(2)));
        assert_eq!(summary("SIP/2.0 486 Busy Here"), ("486 Busy Here".into(), Some(4)));
        assert_eq!(summary("garbage\u{1b}[2J"), ("garbage\u{fffd}[2J".into(), None));
        assert_eq!(summary(""), (String::new(), None));
    }
}
