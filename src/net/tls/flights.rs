//! Where records end (RFC 8446 §5.1) and, in a handshake, where the peer's flight ends (RFC 5246 §7.3, RFC 8446 §2).
//!
//! The library is to be called once for each flight, however the bytes were split on the way. In the clear, the messages show where
//! a flight ends: a ServerHelloDone ends one and a Certificate does not. Encrypted ones do not show it; there the end of a record
//! is taken for the end of the flight unless more bytes have arrived, which then begin something that the peer was still sending.

use super::settings::Side;

const HEADER: usize = 5;

/// The longest record: RFC 5246 §6.2.3 allows 2^14 + 2048.
const MAX_RECORD: usize = (1 << 14) + 2048;

/// More than this is handed over whether or not the flight is complete.
const MAX_HELD: usize = 64 * 1024;

/// The library refuses longer messages (100 kB for a certificate chain); it is to get them at once for that.
const MAX_MESSAGE: usize = 128 * 1024;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const NEW_SESSION_TICKET: u8 = 4;
const CERTIFICATE: u8 = 11;
const SERVER_KEY_EXCHANGE: u8 = 12;
const CERTIFICATE_REQUEST: u8 = 13;
const CERTIFICATE_VERIFY: u8 = 15;
const CLIENT_KEY_EXCHANGE: u8 = 16;
const CERTIFICATE_STATUS: u8 = 22;

/// The random of a ServerHello that is a HelloRetryRequest (RFC 8446 §4.1.3).
const RETRY: [u8; 32] = [
    0xCF, 0x21, 0xAD, 0x74, 0xE5, 0x9A, 0x61, 0x11, 0xBE, 0x1D, 0x8C, 0x02, 0x1E, 0x65, 0xB8, 0x91, 0xC2, 0xA2, 0x11, 0x16, 0x7A,
    0xBB, 0x8C, 0x5E, 0x07, 0x9E, 0x09, 0xE2, 0xC8, 0xA8, 0x33, 0x9C,
];

/// Returns the length of the complete records at the start of `bytes`. What cannot be a record counts as complete, so that it is
/// refused at once.
pub fn whole_records(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        match record(&bytes[at..]) {
            Record::Whole { len, .. } => at += len,
            Record::Partial => return at,
            Record::Garbage => return bytes.len(),
        }
    }
}

enum Record<'a> {
    /// `len` includes the header.
    Whole {
        kind: u8,
        body: &'a [u8],
        len: usize,
    },
    Partial,
    Garbage,
}

fn record(bytes: &[u8]) -> Record<'_> {
    // Refused by its first byte if possible: a plain-text request may be shorter than a header.
    match bytes.first() {
        None => return Record::Partial,
        Some(CHANGE_CIPHER_SPEC..=APPLICATION_DATA) => {}
        Some(_) => return Record::Garbage,
    }
    let Some((header, rest)) = bytes.split_at_checked(HEADER) else {
        return Record::Partial;
    };
    let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
    if header[1] != 3 || len > MAX_RECORD {
        return Record::Garbage;
    }
    match rest.get(..len) {
        Some(body) => Record::Whole { kind: header[0], body, len: HEADER + len },
        None => Record::Partial,
    }
}

/// Follows a handshake from outside and reports when the library has something to do.
pub struct Flights {
    side: Side,
    /// Whether the last complete record ended a flight.
    is_whole: bool,
    /// The peer has sent ChangeCipherSpec: its handshake messages cannot be read any more.
    is_encrypted: bool,
    /// The beginning of a handshake message: type, length, and for a ServerHello what identifies a HelloRetryRequest.
    start: [u8; Flights::START],
    started: usize,
    /// Bytes of the message still to come after `start`.
    rest: usize,
    /// The alert in the last record, if it was a readable one.
    alert: Option<u8>,
    /// How many of the held bytes have been scanned: complete records, each only once.
    seen: usize,
}

impl Flights {
    /// Type (1), length (3), version (2), random (32).
    const START: usize = 38;
    const MESSAGE_HEADER: usize = 4;

    pub fn new(side: Side) -> Flights {
        Flights {
            side,
            is_whole: false,
            is_encrypted: false,
            start: [0; Flights::START],
            started: 0,
            rest: 0,
            alert: None,
            seen: 0,
        }
    }

    /// Scans what has arrived since the last release; returns how many bytes the library is to get now, or zero.
    ///
    /// What is returned counts as taken. The rest must be passed again, together with what arrives after it.
    pub fn take(&mut self, held: &[u8]) -> usize {
        loop {
            match record(held.get(self.seen..).unwrap_or(&[])) {
                Record::Whole { kind, body, len } => {
                    self.see(kind, body);
                    self.seen += len;
                }
                Record::Partial => break,
                Record::Garbage => {
                    self.seen = 0;
                    return held.len();
                }
            }
        }
        let is_at_end = self.seen == held.len() && self.is_whole;
        if is_at_end || held.len() > MAX_HELD {
            self.is_whole = false;
            std::mem::take(&mut self.seen)
        } else {
            0
        }
    }

    /// Returns the alert number of the last record if it was an alert in the clear: encrypted ones are longer.
    pub fn alert(&self) -> Option<i32> {
        self.alert.map(i32::from)
    }

    fn see(&mut self, kind: u8, body: &[u8]) {
        self.alert = match (kind, body) {
            (ALERT, [_, number]) => Some(*number),
            _ => None,
        };
        match kind {
            CHANGE_CIPHER_SPEC => {
                self.is_encrypted = true;
                self.is_whole = false;
            }
            HANDSHAKE if !self.is_encrypted && !body.is_empty() => self.see_messages(body),
            // Encrypted records, alerts, and empty ones, which the library refuses.
            _ => self.is_whole = true,
        }
    }

    fn see_messages(&mut self, mut body: &[u8]) {
        while !body.is_empty() {
            let wanted = self.wanted();
            if self.started < wanted {
                let len = (wanted - self.started).min(body.len());
                let (now, later) = body.split_at(len);
                self.start[self.started..self.started + len].copy_from_slice(now);
                self.started += len;
                body = later;
                if self.started == Flights::MESSAGE_HEADER {
                    let [_, a, b, c, ..] = self.start;
                    self.rest = u32::from_be_bytes([0, a, b, c]) as usize;
                    if self.rest > MAX_MESSAGE {
                        self.is_whole = true;
                        return;
                    }
                } else if self.started > Flights::MESSAGE_HEADER {
                    self.rest -= len;
                }
            } else {
                let len = self.rest.min(body.len());
                self.rest -= len;
                body = &body[len..];
            }
            if self.started >= Flights::MESSAGE_HEADER && self.rest == 0 {
                self.is_whole = self.ends_flight();
                self.started = 0;
            } else {
                self.is_whole = false;
            }
        }
    }

    /// Returns how much of the message's beginning is to be kept.
    fn wanted(&self) -> usize {
        if self.started >= Flights::MESSAGE_HEADER && self.start[0] == SERVER_HELLO {
            let body = self.rest + (self.started - Flights::MESSAGE_HEADER);
            (Flights::MESSAGE_HEADER + body).min(Flights::START)
        } else {
            Flights::MESSAGE_HEADER
        }
    }

    /// True if nothing can follow the message that has just ended before we answer.
    fn ends_flight(&self) -> bool {
        match (self.side, self.start[0]) {
            (Side::Client, SERVER_HELLO) => self.start[6..Flights::START] == RETRY,
            (Side::Client, NEW_SESSION_TICKET | CERTIFICATE | SERVER_KEY_EXCHANGE | CERTIFICATE_REQUEST | CERTIFICATE_STATUS) => {
                false
            }
            (Side::Server, CERTIFICATE | CERTIFICATE_VERIFY | CLIENT_KEY_EXCHANGE) => false,
            // ServerHelloDone and ClientHello do; what does not belong here is for the library to refuse.
            (Side::Server, CLIENT_HELLO) | (_, _) => true,
        }
    }
}
