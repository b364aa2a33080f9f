//! Pieces of text, found naively: separators, parameters, numbers, addresses in brackets.

/// A part of a message's bytes.
pub type Part = std::ops::Range<usize>;

pub fn find(bytes: &[u8], from: usize, what: &[u8]) -> Option<usize> {
    let rest = bytes.get(from..)?;
    rest.windows(what.len()).position(|window| window == what).map(|n| from + n)
}

pub fn trim(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

pub fn trim_end(name: &[u8]) -> &[u8] {
    let end = name.iter().rposition(|b| !matches!(b, b' ' | b'\t'));
    &name[..end.map_or(0, |end| end + 1)]
}

/// A token, as the name of a header field is one (§25.1).
pub fn is_name(name: &[u8]) -> bool {
    let in_token = |b: &u8| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(b);
    !name.is_empty() && name.iter().all(in_token)
}

pub fn trim_part(bytes: &[u8], part: Part) -> Part {
    let text = &bytes[part.clone()];
    let start = part.start + (text.len() - text.trim_ascii_start().len());
    start..start + text.trim_ascii().len()
}

/// Splits at a separator that stands outside quotes and angle brackets.
pub fn split(bytes: &[u8], part: Part, separator: u8, out: &mut Vec<Part>) {
    let (mut quoted, mut angle, mut escaped) = (false, false, false);
    let mut from = part.start;
    for at in part.clone() {
        let byte = bytes[at];
        if escaped {
            escaped = false;
        } else if quoted {
            match byte {
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
        } else if byte == b'"' {
            quoted = true;
        } else if byte == b'<' {
            angle = true;
        } else if byte == b'>' {
            angle = false;
        } else if byte == separator && !angle {
            out.push(trim_part(bytes, from..at));
            from = at + 1;
        }
    }
    out.push(trim_part(bytes, from..part.end));
}

/// A header parameter's value (empty if it has none): behind the closing bracket if there is one.
pub fn param<'a>(value: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut parts = Vec::new();
    split(value, 0..value.len(), b';', &mut parts);
    parts.iter().skip(1).find_map(|part| {
        let text = &value[part.clone()];
        let equals = text.iter().position(|b| *b == b'=').unwrap_or(text.len());
        let (found, rest) = text.split_at(equals);
        trim(found).eq_ignore_ascii_case(name).then(|| trim(rest.strip_prefix(b"=").unwrap_or(rest)))
    })
}

/// The address of a name-addr or addr-spec, without brackets and display name.
pub fn address_spec(value: &[u8]) -> &[u8] {
    match value.iter().position(|b| *b == b'<') {
        Some(open) => {
            let rest = &value[open + 1..];
            let close = rest.iter().position(|b| *b == b'>').unwrap_or(rest.len());
            &rest[..close]
        }
        None => {
            let end = value.iter().position(|b| *b == b';').unwrap_or(value.len());
            trim(&value[..end])
        }
    }
}

/// A Via's sent-by, without the white space that may stand around its colon (§25.1).
pub fn sent_by(via: &[u8]) -> Option<Vec<u8>> {
    let end = via.iter().position(|b| *b == b';').unwrap_or(via.len());
    let head = trim(&via[..end]);
    // Behind the transport, before which the last slash stands, with or without white space.
    let slash = head.iter().rposition(|b| *b == b'/').map_or(0, |n| n + 1);
    let rest = head[slash..].trim_ascii_start();
    let space = rest.iter().position(|b| b.is_ascii_whitespace())?;
    let place = rest[space..].iter().copied();
    Some(place.filter(|b| !b.is_ascii_whitespace()).collect())
}

pub fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    text.iter().try_fold(0u64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
}
