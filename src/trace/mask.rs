//! What no copy of a message may show: credentials, and the keys of media. Each byte of them becomes an asterisk, so that lengths stay true.
//!
//! The values of Authorization, Proxy-Authorization, Authentication-Info and Proxy-Authentication-Info are masked whole: with a nonce, a response and
//! the rest beside each other a password can be guessed at leisure. Bodies are looked through too: a part may be a whole message (message/sip).

use super::reading::{Lines, field};
use crate::sip::Name;
use memchr::memmem::find;

const MASK: u8 = b'*';

/// The words that may stay: what kind of credentials these are.
const SCHEMES: [&[u8]; 3] = [b"digest", b"basic", b"bearer"];

/// Overwrites what is secret.
pub fn mask(message: &mut [u8]) {
    let mut at = 0;
    while let Some(line) = Lines::of(&message[at..]).next() {
        let range = at + line.start..at + line.end;
        at = range.end;
        mask_line(&mut message[range]);
    }
}

fn mask_line(line: &mut [u8]) {
    match line.first() {
        Some(b'a' | b'A' | b'p' | b'P' | b'k' | b'K') => {}
        // Nothing secret begins otherwise.
        _ => return,
    }
    if starts_with(line, b"k=") {
        cover(&mut line[2..]);
    } else if starts_with(line, b"a=crypto:") {
        mask_inline_keys(line);
    } else if starts_with(line, b"a=key-mgmt:") {
        let value = line.iter().position(|byte| *byte == b' ').unwrap_or(b"a=key-mgmt:".len());
        cover(&mut line[value..]);
    } else if is_credentials(line)
        && let Some(colon) = line.iter().position(|byte| *byte == b':')
    {
        mask_credentials(&mut line[colon + 1..]);
    }
}

fn starts_with(line: &[u8], word: &[u8]) -> bool {
    line.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

fn is_credentials(line: &[u8]) -> bool {
    let Some((name, _)) = field(line) else {
        return false;
    };
    // No name of the table is the last one's.
    let is_proxy_info = || starts_with(line, b"proxy-authentication-info");
    matches!(
        name,
        Name::Authorization | Name::ProxyAuthorization | Name::AuthenticationInfo
    ) || is_proxy_info()
}

fn mask_credentials(value: &mut [u8]) {
    let start = value
        .iter()
        .position(|byte| !byte.is_ascii_whitespace())
        .unwrap_or(value.len());
    let scheme = value[start..].split(u8::is_ascii_whitespace).next().unwrap_or(&[]);
    let is_known = SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known));
    let from = if is_known { start + scheme.len() } else { start };
    cover(&mut value[from..]);
}

/// RFC 4568 §6.1: `inline:KEY|lifetime|MKI`, and several of them with semicolons.
fn mask_inline_keys(line: &mut [u8]) {
    const INLINE: &[u8] = b"inline:";
    let (mut at, lower) = (0, line.to_ascii_lowercase());
    while let Some(found) = find(&lower[at..], INLINE) {
        let start = at + found + INLINE.len();
        let is_end = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'|' | b';');
        let length = line[start..].iter().position(is_end).unwrap_or(line.len() - start);
        cover(&mut line[start..start + length]);
        at = start + length;
    }
}

/// White space stays, so that lines stay lines.
fn cover(secret: &mut [u8]) {
    for byte in secret {
        if !byte.is_ascii_whitespace() {
            *byte = MASK;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn masked(text: &str, expected: &str) {
        let mut bytes = text.as_bytes().to_vec();
        mask(&mut bytes);
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
        assert_eq!(bytes.len(), text.len());
    }

    #[test]
    fn credentials_in_every_spelling() {
        for name in [
            "Authorization",
            "AUTHORIZATION",
            "authorization ",
            "Proxy-Authorization",
            "proxy-authorization\t",
            "Authentication-Info",
            "Proxy-Authentication-Info",
        ] {
            let stars = "*".repeat(10);
            masked(
                &format!("BYE a SIP/2.0\r\n{name}: Digest user=\"bob\"\r\nCall-ID: Digest user\r\n\r\n"),
                &format!("BYE a SIP/2.0\r\n{name}: Digest {stars}\r\nCall-ID: Digest user\r\n\r\n"),
            );
        }
        masked(
            "A B\nAuthorization:Digest a=\"b\",\n\tresponse=\"cd\"\n e\nTo: x\nAuthorization:\r\n  Basic  c2Vj\r\nauthorization: secret more\n\n",
            "A B\nAuthorization:Digest ******\n\t*************\n *\nTo: x\nAuthorization:\r\n  Basic  ****\r\nauthorization: ****** ****\n\n",
        );
        // The very end, without a line end, and nothing at all.
        masked("A B\r\nAuthorization: Digest x", "A B\r\nAuthorization: Digest *");
        masked("A B\r\nAuthorization:", "A B\r\nAuthorization:");
        masked("Authorization: Digest x=1", "Authorization: Digest ***");
        masked("", "");
    }

    #[test]
    fn parts_of_a_body_too() {
        masked(
            "A B\r\n\r\n--b\r\nContent-Type: message/sip\r\n\r\nINVITE c SIP/2.0\r\nAuthorization: Digest a,\r\n b\r\n\r\n--b--",
            "A B\r\n\r\n--b\r\nContent-Type: message/sip\r\n\r\nINVITE c SIP/2.0\r\nAuthorization: Digest **\r\n *\r\n\r\n--b--",
        );
    }

    #[test]
    fn keys_of_media() {
        masked(
            "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:abc+/=|2^20|1:4;inline:def UNENCRYPTED_SRTP\r\nk=clear:x y\r\na=key-mgmt:mikey AQA\r\n",
            "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:******|2^20|1:4;inline:*** UNENCRYPTED_SRTP\r\nk=******* *\r\na=key-mgmt:mikey ***\r\n",
        );
    }

    /// Of lines that are masked, and of others.
    const PIECES: &[&[u8]] = &[
        b"Authorization",
        b"a=crypto:1 A inline:",
        b"k=",
        b"a=key-mgmt:",
        b"inline:",
        b": ",
        b"Digest ",
        b"\r\n",
        b"\n",
        b" ",
        b"x|;",
        b"\xff\0",
        b"Call-ID:",
    ];

    proptest! {
        /// Peers choose the bytes.
        #[test]
        fn whatever_comes_is_masked_in_its_length_and_once(
            pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40),
        ) {
            let before = pieces.concat();
            let mut once = before.clone();
            mask(&mut once);
            prop_assert!(before.iter().zip(&once).all(|(a, b)| a == b || (*b == MASK && !a.is_ascii_whitespace())));
            let mut twice = once.clone();
            mask(&mut twice);
            prop_assert_eq!(once, twice);
            let reading = crate::trace::reading::Reading::of(&before);
            prop_assert!(reading.call_id.len() <= before.len());
        }
    }

    #[test]
    fn everything_else_stays() {
        for text in [
            "INVITE sip:a@b SIP/2.0\r\nWWW-Authenticate: Digest nonce=\"1\"\r\nk: timer\r\nAccept: a\r\nX-Authorization: b\r\n\r\na=rtpmap:0\r\np=1\r\n",
            "OPTIONS a SIP/2.0\r\nAuthorizations: c\r\nAuthorization\r\n\r\n",
            "\r\n\r\n",
        ] {
            masked(text, text);
        }
    }
}
