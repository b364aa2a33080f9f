//! Names that the server gives and later recognises by its key, without remembering them: the key of a server transaction
//! (RFC 3261 §17.2.3), the To tag of an answer of our own (§8.2.6.2), and the cookie of our Record-Route.

use crate::base::hash::{read_hex, write_hex};
use crate::base::{Key, Transport};
use crate::sip::{Message, Name, Uri, Via};
use crate::stack::token::Side;
use std::net::IpAddr;

/// The parameter of our Record-Route URI that carries the cookie.
pub const COOKIE_PARAM: &[u8] = b"sc";

/// The length of a tag that [`Identity::write_tag`] writes.
pub const TAG_LEN: usize = 17;

/// Hexadecimal digits of the cookie itself; what follows is the flow token.
const COOKIE_LEN: usize = 16;

/// A Record-Route of ours that has come back as a Route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recorded<'a> {
    /// Whom the request is for: the other side of the dialog than its sender.
    pub towards: Side,
    /// See [`crate::stack::token`].
    pub token: &'a [u8],
}

/// What remembers an answer of our own; the first byte of its To tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Memory {
    /// Nothing: its ACK is absorbed wherever it comes.
    Stateless = b's',
    /// A server transaction, which waits for the ACK.
    Transaction = b'p',
}

#[derive(Clone, Copy, Debug)]
pub struct Identity {
    transactions: Key,
    tags: Key,
    cookies: Key,
    loops: Key,
}

impl Identity {
    pub fn new(secret: Key) -> Identity {
        Identity {
            transactions: secret.derive("transaction"),
            tags: secret.derive("to tag"),
            cookies: secret.derive("record-route"),
            loops: secret.derive("loop"),
        }
    }

    /// The key under which the server transaction of a request is found (§17.2.3). `method` is INVITE for an ACK and a CANCEL that
    /// look for their INVITE.
    ///
    /// Besides branch and sent-by it covers all that an ACK to a non-2xx and a CANCEL share with their INVITE to the letter (§17.1.1.3,
    /// §9.1): Request-URI, Call-ID, the tag of From and the number of CSeq. So who knows or guesses a branch names nothing by it, and
    /// a client that uses one branch for several requests is understood; it is also what §17.2.3 asks of a branch of RFC 2543, or of
    /// none. It does not cover To, Contact, credentials and body: it tells a repetition, and authorises nothing.
    pub fn transaction(&self, message: &Message, via: &Via, method: &[u8]) -> u128 {
        let number = message.cseq().map_or(0, |cseq| cseq.number);
        let numbers = u64::from(number) << 32 | u64::from(sent_by_port(via));
        let (v4, v6, folded): ([u8; 4], [u8; 16], [u8; LONGEST_NAME]);
        let host: &[u8] = match via.host.ip().map(|ip| ip.to_canonical()) {
            Some(IpAddr::V4(ip)) => {
                v4 = ip.octets();
                &v4
            }
            Some(IpAddr::V6(ip)) => {
                v6 = ip.octets();
                &v6
            }
            None => match fold_name(via.host_text) {
                Some((name, len)) => {
                    folded = name;
                    &folded[..len]
                }
                None => via.host_text,
            },
        };
        self.transactions.wide(&[
            &numbers.to_ne_bytes(),
            via.branch().unwrap_or_default(),
            host,
            method,
            // The first one where there are several: such a request is refused, and its ACK has to be known.
            message.header(Name::CallId).map_or(&[], |id| id.value),
            message.from_tag().unwrap_or_default(),
            message.request_uri(),
        ])
    }

    /// The To tag of our own answer to a request: the same for each repetition, and for the ACK that answers it.
    pub fn write_tag(&self, message: &Message, memory: Memory, out: &mut Vec<u8>) {
        out.push(memory as u8);
        write_hex(self.tag(message), out);
    }

    /// For an ACK to an answer of our own: whether some core remembers that answer.
    pub fn own_tag(&self, message: &Message) -> Option<Memory> {
        let tag = message.to_tag()?;
        let (kind, digits) = tag.split_first()?;
        let memory = match kind {
            b's' => Memory::Stateless,
            b'p' => Memory::Transaction,
            _ => return None,
        };
        (tag.len() == TAG_LEN && read_hex(digits) == Some(self.tag(message))).then_some(memory)
    }

    fn tag(&self, message: &Message) -> u64 {
        let branch = message.top_branch();
        let from_tag = message.from_tag();
        self.tags.hash(&[
            message.call_id().unwrap_or_default(),
            from_tag.unwrap_or_default(),
            branch.unwrap_or_default(),
        ])
    }

    /// The cookie for the dialog that this request opens: bound to its Call-ID, the caller's tag and the token that goes
    /// with it.
    pub fn write_cookie(&self, message: &Message, token: &[u8], out: &mut Vec<u8>) {
        let tag = message.from_tag();
        write_hex(self.cookie(message, tag, token), out);
        out.extend_from_slice(token);
    }

    /// What we recorded, when `uri`, one of our own in a Route, carries the cookie of this request's dialog: then we have
    /// recorded that route ourselves, for a request that was allowed. Either side of the dialog may send. A request without a
    /// To tag is of no dialog (§12.2.1.1): the cookie of one call must not open others past the routes.
    pub fn recorded<'a>(&self, message: &Message, uri: &Uri<'a>) -> Option<Recorded<'a>> {
        let (shown, token) = uri.param(COOKIE_PARAM)??.split_at_checked(COOKIE_LEN)?;
        let shown = read_hex(shown)?;
        let (from, to) = (message.from_tag(), message.to_tag());
        to?;
        let towards = if shown == self.cookie(message, from, token) {
            Side::Callee
        } else if shown == self.cookie(message, to, token) {
            Side::Caller
        } else {
            return None;
        };
        Some(Recorded { towards, token })
    }

    fn cookie(&self, message: &Message, tag: Option<&[u8]>, token: &[u8]) -> u64 {
        self.cookies.hash(&[
            message.call_id().unwrap_or_default(),
            tag.unwrap_or_default(),
            token,
        ])
    }

    /// Everything that decides where a request goes, for loop detection (RFC 5393 §4.2.1): the same again is a loop.
    /// `source` where the way depends on it.
    pub fn loop_hash(&self, message: &Message, source: Option<IpAddr>) -> u64 {
        let mut hash = match source {
            None => self.loops.hash(&[message.request_uri()]),
            Some(IpAddr::V4(ip)) => self.loops.hash(&[message.request_uri(), &ip.octets()]),
            Some(IpAddr::V6(ip)) => self.loops.hash(&[message.request_uri(), &ip.octets()]),
        };
        for route in message.all(Name::Route) {
            hash = self.loops.hash(&[&hash.to_be_bytes(), route.value]);
        }
        hash
    }

    /// The first part of a stateless branch (§16.11): the same for a retransmission, for the CANCEL and for the ACK.
    /// `key` is the transaction's, which those three share.
    pub fn stateless_seed(&self, key: u128, target: usize) -> u64 {
        self.loops
            .hash_numbers(key as u64, (key >> 64) as u64, target as u64)
    }
}

/// No name of the domain name system is longer; what is, is compared as it stands.
const LONGEST_NAME: usize = 255;

/// A host name as it is compared: in lower case, without the dot of the root; `None` where it is so already.
fn fold_name(name: &[u8]) -> Option<([u8; LONGEST_NAME], usize)> {
    let short = name.strip_suffix(b".").unwrap_or(name);
    if short.len() == name.len() && !name.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let mut folded = [0; LONGEST_NAME];
    let place = folded.get_mut(..short.len())?;
    place.copy_from_slice(short);
    place.make_ascii_lowercase();
    Some((folded, short.len()))
}

/// The port of sent-by, and the transport's own where it names none (§18.2.2).
fn sent_by_port(via: &Via) -> u16 {
    let is_tls = || via.transport.eq_ignore_ascii_case(b"TLS");
    via.port.unwrap_or_else(|| match is_tls() {
        true => Transport::Tls.default_port(),
        false => Transport::Udp.default_port(),
    })
}
