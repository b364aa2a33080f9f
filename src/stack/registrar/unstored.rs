//! The refusal that replaces a held 200 to a REGISTER if the disk does not take what it would have promised (RFC 3261 §21.5.4).

use crate::base::hash::write_decimal;

/// When the phone may retry, in seconds: a full or missing disk seldom recovers sooner.
pub const RETRY_AFTER_S: u32 = 30;

/// Appends the 503 that is sent instead of `answer`, a response written by the registrar: with the same transaction and tags, but
/// without what only a 200 says.
pub fn refuse(answer: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"SIP/2.0 503 Bindings Cannot Be Stored\r\n");
    let head = match answer.windows(4).position(|four| four == b"\r\n\r\n") {
        Some(end) => answer.get(..end + 2).unwrap_or(answer),
        None => answer,
    };
    let mut keeps = true;
    for line in head.split_inclusive(|byte| *byte == b'\n').skip(1) {
        // A folded line belongs to the previous one.
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            keeps = !is_of_success(line);
        }
        if keeps {
            out.extend_from_slice(line);
        }
    }
    out.extend_from_slice(b"Retry-After: ");
    write_decimal(u64::from(RETRY_AFTER_S), out);
    out.extend_from_slice(b"\r\n\r\n");
}

fn is_of_success(line: &[u8]) -> bool {
    let name = line.split(|byte| *byte == b':').next().unwrap_or(line);
    let name = name.trim_ascii_end();
    [&b"Contact"[..], b"Path"].iter().any(|own| name.eq_ignore_ascii_case(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_promise_goes() {
        let answer = b"SIP/2.0 200 OK\r\n\
            Via: SIP/2.0/UDP 10.0.1.2;branch=z9hG4bK1;\r\n\x20received=10.0.1.3\r\n\
            From: <sip:contact@x>;tag=a\r\n\
            Contact: <sip:a@10.0.1.2>;expires=60\r\n\
            Path: <sip:p;lr>,\r\n\t<sip:q;lr>\r\n\
            CSeq: 7 REGISTER\r\n\
            Content-Length: 0\r\n\r\n";
        let mut out = b"before".to_vec();
        refuse(answer, &mut out);
        let wanted = "beforeSIP/2.0 503 Bindings Cannot Be Stored\r\n\
            Via: SIP/2.0/UDP 10.0.1.2;branch=z9hG4bK1;\r\n\x20received=10.0.1.3\r\n\
            From: <sip:contact@x>;tag=a\r\n\
            CSeq: 7 REGISTER\r\n\
            Content-Length: 0\r\n\
            Retry-After: 30\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&out), wanted);
    }

    #[test]
    fn what_is_no_answer_makes_no_panic() {
        for bytes in [&b""[..], b"SIP/2.0 200 OK", b"\r\n\r\n", b"a\r\nContact"] {
            let mut out = Vec::new();
            refuse(bytes, &mut out);
            assert!(out.starts_with(b"SIP/2.0 503 ") && out.ends_with(b"\r\n\r\n"));
        }
    }
}
