//! What an answerer checks in a request and what it says to it: both from the message alone, whoever remembers the call.

use crate::end::End;
use crate::flow::Dialect;
use crate::message::{self, Scan, Writer};
use crate::template::TAG;

pub const RINGING: &[u8] = b"SIP/2.0 180 Ringing\r\n";
pub const OK: &[u8] = b"SIP/2.0 200 OK\r\n";

/// Whom a response that makes a dialog speaks for.
pub struct Dialog<'a> {
    pub tag: &'a [u8],
    pub user: &'a [u8],
    /// Host and port of the Contact.
    pub address: &'a [u8],
}

/// Writes a response to `raw` (RFC 3261 §8.2.6). With `dialog` it has a To tag, Record-Route and a Contact; and then a 200 has a body.
pub fn write(
    end: &End,
    dialect: &Dialect,
    status_line: &[u8],
    (raw, scan): (&[u8], &Scan),
    dialog: Option<&Dialog>,
    buffer: &mut [u8],
) -> usize {
    let mut writer = Writer::new(buffer);
    writer.push(status_line);
    for line in scan.via.as_slice() {
        writer.push(line.whole(raw));
    }
    if let Some(dialog) = dialog {
        for line in scan.record_route.as_slice() {
            writer.push(line.whole(raw));
        }
        writer.push(b"To: ");
        writer.push(scan.to.value(raw));
        writer.push(b";tag=");
        writer.push(dialog.tag);
        writer.push(b"\r\n");
    } else {
        writer.push(scan.to.whole(raw));
    }
    writer.push(scan.from.whole(raw));
    writer.push(scan.call_id.whole(raw));
    writer.push(scan.cseq.whole(raw));
    writer.push(dialect.pad.as_bytes());
    if let Some(dialog) = dialog {
        writer.push(b"Contact: <sip:");
        writer.push(dialog.user);
        writer.push(b"@");
        writer.push(dialog.address);
        writer.push(end.contact_end.as_bytes());
    }
    if dialog.is_some() && status_line == OK {
        writer.push(b"Content-Type: application/sdp\r\nContent-Length: ");
        writer.push(dialect.body.length.as_bytes());
        writer.push(b"\r\n\r\n");
        writer.push(dialect.body.text.as_bytes());
    } else {
        writer.push(b"Content-Length: 0\r\n\r\n");
    }
    writer.len()
}

/// As every request leaves the caller.
const MAX_FORWARDS: usize = 70;

/// What must be so in any INVITE, ACK or BYE of a call whose tags, of both sides, are `tag`.
pub fn check(dialect: &Dialect, raw: &[u8], scan: &Scan, tag: &[u8]) -> Result<(), &'static str> {
    debug_assert_eq!(tag.len(), TAG);
    if message::parameter(scan.from.value(raw), b"tag") != Some(tag) {
        return Err("From tag changed");
    }
    let hops = scan.via.len().wrapping_sub(1);
    match dialect.floor {
        true if hops != 0 => return Err("not the caller's Via alone"),
        false if !(1..=dialect.hops).contains(&hops) => return Err("not the Via of each proxy and of the caller"),
        _ => {}
    }
    let forwards = std::str::from_utf8(scan.max_forwards.value(raw)).ok().and_then(|text| text.parse().ok());
    if forwards != MAX_FORWARDS.checked_sub(hops) {
        return Err("Max-Forwards did not fall by one for each proxy");
    }
    let to_tag = message::parameter(scan.to.value(raw), b"tag");
    if raw[0] == b'I' {
        if to_tag.is_some() {
            return Err("To tag in the first INVITE");
        }
        if raw.len() - scan.body != dialect.body.text.len() {
            return Err("body changed");
        }
        if scan.record_route.len() == 0 && !dialect.floor {
            return Err("INVITE without Record-Route");
        }
    } else {
        if to_tag != Some(tag) {
            return Err("To tag changed");
        }
        if scan.routes != 0 && !dialect.floor {
            return Err("Route left in the request");
        }
    }
    Ok(())
}

/// Whether the Request-URI is this user's at this host (and port).
pub fn is_for(raw: &[u8], user: &[u8], address: &[u8]) -> bool {
    let line = raw.strip_prefix(b"INVITE ").or_else(|| raw.get(4..));
    let rest = line
        .and_then(|line| line.strip_prefix(b"sip:"))
        .and_then(|line| line.strip_prefix(user))
        .and_then(|line| line.strip_prefix(b"@"))
        .and_then(|line| line.strip_prefix(address));
    matches!(rest.and_then(<[u8]>::first), Some(b' ' | b';'))
}

/// The number in a CSeq, less one, and the method. All of ours have one digit.
pub fn read_cseq(value: &[u8]) -> Option<(u8, &[u8])> {
    match value {
        [digit @ b'1'..=b'9', b' ', method @ ..] => Some((digit - b'1', method)),
        _ => None,
    }
}
