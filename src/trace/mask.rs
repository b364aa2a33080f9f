//! What no copy of a message may show: credentials and media keys. Each byte of them becomes an asterisk, so that lengths are
//! preserved.
//!
//! The values of Authorization, Proxy-Authorization, Authentication-Info and Proxy-Authentication-Info are masked whole: with a
//! nonce and a response side by side a password can be guessed offline. So are those of URI headers, and passwords in SIP URIs.
//! Bodies are searched too: a part may be a whole message (message/sip).
//!
//! The server cannot know how others parse a line, so what any reader might take for a secret is masked.

use crate::sip::Name;
use memchr::memmem::find;
use memchr::{memchr, memchr_iter, memchr2};

const MASK: u8 = b'*';

/// The words that may stay: the kind of credentials.
const SCHEMES: [&[u8]; 3] = [b"digest", b"basic", b"bearer"];

/// Overwrites secrets.
pub fn mask(message: &mut [u8]) {
    for lines in [Lines::Folded, Lines::FoldedAtReturns, Lines::Bare] {
        let mut at = 0;
        while at < message.len() {
            let end = lines.end_of(message, at);
            mask_line(&mut message[at..end]);
            at = end;
        }
    }
    mask_uri_headers(message);
    mask_passwords(message);
}

/// How lines are delimited.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lines {
    /// It ends at a line feed, unless the next one begins with a blank (RFC 3261 §7.3.1).
    Folded,
    /// It also ends at a carriage return that is not followed by a line feed.
    FoldedAtReturns,
    /// The same, and leading blanks have no meaning.
    Bare,
}

impl Lines {
    fn end_of(self, message: &[u8], start: usize) -> usize {
        let one = |at: usize| {
            let rest = &message[at..];
            let found = match self {
                Lines::Folded => memchr(b'\n', rest),
                Lines::FoldedAtReturns | Lines::Bare => memchr2(b'\r', b'\n', rest),
            };
            let end = found.map_or(message.len(), |found| at + found + 1);
            let is_pair = found.is_some() && message[end - 1] == b'\r' && message.get(end) == Some(&b'\n');
            end + usize::from(is_pair)
        };
        let mut end = one(start);
        let is_empty = message[start..end].trim_ascii().is_empty();
        while self != Lines::Bare && !is_empty && matches!(message.get(end), Some(b' ' | b'\t')) {
            end = one(end);
        }
        end
    }
}

/// Includes what only some readers skip, such as a vertical tab.
fn is_blank(byte: &u8) -> bool {
    *byte <= b' '
}

/// Returns the position of the first byte that is not a blank.
fn first(text: &[u8]) -> usize {
    text.iter().position(|byte| !is_blank(byte)).unwrap_or(text.len())
}

fn trim(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| !is_blank(byte)).map_or(0, |last| last + 1);
    &text[first(&text[..end])..end]
}

fn mask_line(line: &mut [u8]) {
    let start = first(line);
    let line = &mut line[start..];
    let Some(kind @ (b'a' | b'A' | b'p' | b'P' | b'k' | b'K')) = line.first().copied() else {
        // Nothing secret begins otherwise.
        return;
    };
    let equals = 1 + first(&line[1..]);
    if line.get(equals) == Some(&b'=') {
        match kind {
            b'k' | b'K' => cover(&mut line[equals + 1..]),
            b'a' | b'A' => mask_attribute(&mut line[equals + 1..]),
            _ => {}
        }
    } else if let Some(colon) = memchr(b':', line)
        && is_credentials(&line[..colon])
    {
        mask_credentials(&mut line[colon + 1..]);
    }
}

fn is_credentials(name: &[u8]) -> bool {
    let name = trim(name);
    matches!(Name::parse(name), Name::Authorization | Name::ProxyAuthorization | Name::AuthenticationInfo)
        || name.eq_ignore_ascii_case(b"proxy-authentication-info")
}

fn mask_credentials(value: &mut [u8]) {
    let start = first(value);
    let scheme = value[start..].split(is_blank).next().unwrap_or(&[]);
    let is_known = SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known));
    let from = if is_known { start + scheme.len() } else { start };
    cover(&mut value[from..]);
}

/// Masks an SDP attribute, given what follows `a=`.
fn mask_attribute(attribute: &mut [u8]) {
    let Some(colon) = memchr(b':', attribute) else {
        return;
    };
    let (name, value) = attribute.split_at_mut(colon);
    let (name, value) = (trim(name).to_ascii_lowercase(), &mut value[1..]);
    match &name[..] {
        // RFC 5939 §3.3.2: a number, and another attribute.
        b"acap" => {
            let number = value.iter().position(|byte| !is_blank(byte) && !byte.is_ascii_digit());
            mask_capability(&mut value[number.unwrap_or(0)..]);
        }
        _ => mask_value(&name, value),
    }
}

/// As an attribute, but not a capability again.
fn mask_capability(attribute: &mut [u8]) {
    if let Some(colon) = memchr(b':', attribute) {
        let (name, value) = attribute.split_at_mut(colon);
        mask_value(&trim(name).to_ascii_lowercase(), &mut value[1..]);
    }
}

fn mask_value(name: &[u8], value: &mut [u8]) {
    match name {
        b"crypto" => mask_inline_keys(value),
        // RFC 4567: the protocol and its data.
        b"key-mgmt" => {
            const MIKEY: &[u8] = b"mikey";
            let start = first(value);
            let word = value[start..].split(is_blank).next().unwrap_or(&[]);
            let kept = if word.eq_ignore_ascii_case(MIKEY) { MIKEY.len() } else { 0 };
            cover(&mut value[start + kept..]);
        }
        b"ice-pwd" => cover(value),
        _ if name.ends_with(b"psk") => cover(value),
        _ => {}
    }
}

/// RFC 4568 §6.1: `inline:KEY|lifetime|MKI`, possibly several separated by semicolons.
fn mask_inline_keys(line: &mut [u8]) {
    const INLINE: &[u8] = b"inline:";
    let (mut at, lower) = (0, line.to_ascii_lowercase());
    while let Some(found) = find(&lower[at..], INLINE) {
        let behind = at + found + INLINE.len();
        // Some senders write a blank or a bar where the key should begin.
        let is_before = |byte: &u8| is_blank(byte) || *byte == b'|';
        let skipped = line[behind..].iter().position(|byte| !is_before(byte));
        let start = skipped.map_or(line.len(), |skipped| behind + skipped);
        let is_end = |byte: &u8| is_blank(byte) || matches!(byte, b'|' | b';');
        let length = line[start..].iter().position(is_end).unwrap_or(line.len() - start);
        cover(&mut line[start..start + length]);
        at = start + length;
    }
}

/// True for a byte that ends a URI, whatever the URI contains.
fn is_around_uris(byte: &u8) -> bool {
    is_blank(byte) || matches!(byte, b'<' | b'>' | b'"')
}

/// `?Authorization=…` and `&Authorization=…` in a URI (RFC 3261 §19.1.1).
fn mask_uri_headers(message: &mut [u8]) {
    // With each byte escaped as three.
    const LONGEST_NAME: usize = 3 * b"proxy-authentication-info".len();
    let mut at = 0;
    while let Some(found) = memchr2(b'?', b'&', &message[at..]) {
        at += found + 1;
        let near = &message[at..message.len().min(at + LONGEST_NAME + 1)];
        let Some(equals) = memchr(b'=', near) else {
            continue;
        };
        if is_credentials(&unescaped(&near[..equals])) {
            let start = at + equals + 1;
            // Quotes should be escaped here; escaped or not, they do not end the value.
            let is_end = |byte: &u8| is_blank(byte) || matches!(byte, b'<' | b'>' | b'&');
            let length = message[start..].iter().position(is_end).unwrap_or(message.len() - start);
            cover(&mut message[start..start + length]);
            at = start + length;
        }
    }
}

fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let digit = |place: usize| text.get(place).and_then(|byte| char::from(*byte).to_digit(16));
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                plain.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                plain.push(*byte);
                at += 1;
            }
        }
    }
    plain
}

/// `sip:user:PASSWORD@host`.
fn mask_passwords(message: &mut [u8]) {
    let mut before = 0;
    let ats: Vec<usize> = memchr_iter(b'@', message).collect();
    for at in ats {
        let text = &message[before..at];
        let start = text.iter().rposition(is_around_uris).map_or(before, |last| before + last + 1);
        before = at + 1;
        let Some(user) = behind_last_scheme(&message[start..at]) else {
            continue;
        };
        if let Some(colon) = memchr(b':', &message[start + user..at]) {
            cover(&mut message[start + user + colon + 1..at]);
        }
    }
}

/// Returns where the user part begins in the text before an at sign. Several URIs may follow each other, separated by commas.
fn behind_last_scheme(text: &[u8]) -> Option<usize> {
    let is_scheme = |colon: &usize| {
        let before = &text[..*colon];
        let word = before.iter().rposition(|byte| !byte.is_ascii_alphanumeric()).map_or(0, |last| last + 1);
        let is_sip = [&b"sip"[..], b"sips"].iter().any(|scheme| before[word..].eq_ignore_ascii_case(scheme));
        // After a colon it is part of a password.
        is_sip && !before[..word].ends_with(b":")
    };
    let colons = memchr_iter(b':', text).rev();
    colons.into_iter().find(is_scheme).map(|colon| colon + 1)
}

/// White space stays, so that lines remain lines.
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
        // At the very end, without a line end, and empty.
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
        masked(
            "a=acap:1 crypto:1 A inline:KEY|2^20\r\na=acap:2 key-mgmt:mikey KEY\r\na=acap: 3  ice-pwd:KEY\r\na=acap:1 rtpmap:0\r\n",
            "a=acap:1 crypto:1 A inline:***|2^20\r\na=acap:2 key-mgmt:mikey ***\r\na=acap: 3  ice-pwd:***\r\na=acap:1 rtpmap:0\r\n",
        );
        masked(
            "a=ice-ufrag:u\r\na=ice-pwd:PW/+1\r\na=dtls-psk:PW\r\na=DTLS-srtp-PSK: P W\r\na=key-mgmt:KEY\r\n",
            "a=ice-ufrag:u\r\na=ice-pwd:*****\r\na=dtls-psk:**\r\na=DTLS-srtp-PSK: * *\r\na=key-mgmt:***\r\n",
        );
    }

    #[test]
    fn keys_of_media_however_they_are_written() {
        for head in ["a= crypto:1 A ", "a =crypto:1 A ", "a=crypto :1 A ", "a\u{b}=\tCRYPTO\u{b}: 1 A ", " a=crypto:1 A "] {
            for (key, stars) in [
                ("inline:KEY|2^20", "inline:***|2^20"),
                ("inline: KEY|2^20", "inline: ***|2^20"),
                ("inline:|KEY|2^20", "inline:|***|2^20"),
            ] {
                for end in ["\r\n", "\n", "\r"] {
                    masked(
                        &format!("A B{end}{end}v=0{end}{head}{key}{end}b=1{end}"),
                        &format!("A B{end}{end}v=0{end}{head}{stars}{end}b=1{end}"),
                    );
                }
            }
        }
        masked("v=0\r\nk =clear:x\r\n k= y\r\nm=a\r\n", "v=0\r\nk =*******\r\n ** *\r\nm=a\r\n");
    }

    #[test]
    fn credentials_behind_odd_line_ends_and_blanks() {
        masked("A B\rAuthorization: Digest KEY\r KEY\rTo: x\r\r", "A B\rAuthorization: Digest ***\r ***\rTo: x\r\r");
        masked(
            "A B\r\nAuthorization\u{b}: Digest KEY\rKEY\r\n Authorization\u{b} : KEY\r\n",
            "A B\r\nAuthorization\u{b}: Digest ***\r***\r\n ************** * ***\r\n",
        );
        masked("A B\r\nTo: x\r\n Authorization: Basic KEY\r\n", "A B\r\nTo: x\r\n Authorization: Basic ***\r\n");
    }

    #[test]
    fn passwords_in_uris() {
        masked(
            "INVITE sip:alice:SECRET@host:5060;x=a:b@c SIP/2.0\r\nTo: \"x:y\" <SIPS:b:p,&w:d@[2001:db8::1]:5061>;tag=a:b@c\r\nCall-ID: a:b@c\r\n",
            "INVITE sip:alice:******@host:5060;x=a:b@c SIP/2.0\r\nTo: \"x:y\" <SIPS:b:******@[2001:db8::1]:5061>;tag=a:b@c\r\nCall-ID: a:b@c\r\n",
        );
        masked(
            "A B\r\nRoute: sip:a.example,sip:bob@b,sip:c:PW@d:5,sip:c:sip:PW@d\r\nm:sip:a:@b\r\n",
            "A B\r\nRoute: sip:a.example,sip:bob@b,sip:c:**@d:5,sip:c:******@d\r\nm:sip:a:@b\r\n",
        );
    }

    #[test]
    fn credentials_in_the_headers_of_uris() {
        masked(
            "REFER sip:a@b?Authorization=Digest%20x&Subject=y SIP/2.0\r\nRefer-To: <sip:b@c?a=b&proxy-%41uthorization=Digest%20\"x\",y>;z\r\n",
            "REFER sip:a@b?Authorization=**********&Subject=y SIP/2.0\r\nRefer-To: <sip:b@c?a=b&proxy-%41uthorization=**************>;z\r\n",
        );
        masked("A sip:a@b?X-Authorization=1&b B\r\n", "A sip:a@b?X-Authorization=1&b B\r\n");
    }

    /// Pieces of lines that are masked, and of others.
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
        b"\r",
        b"\x0b",
        b"a=acap:1 ",
        b"a=crypto:",
        b"a=ice-pwd:",
        b"sip:a:b",
        b"@h",
        b"?",
        b"&Authorization=",
        b"%41uthorization=",
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
