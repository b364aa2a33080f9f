//! Identifiers that the server issues and later recognises by its key, without storing them: the key of a server transaction (RFC
//! 3261 §17.2.3), the To tag of our own answers (§8.2.6.2), the hash that detects a loop (RFC 5393), and what all messages of a
//! dialog share.

use crate::base::hash::{read_hex, write_hex_digits};
use crate::base::{Key, Transport};
use crate::sip::{Message, Name, Via};
use crate::stack::facts::{fact, write_name};
use crate::stack::token::Side;
use std::net::IpAddr;
use std::num::NonZeroU64;

/// The length of a tag written by [`Identity::write_tag`]: a letter, digits that make it unique, and digits of the check.
pub const TAG_LEN: usize = 1 + 2 * TAG_HALF;
const TAG_HALF: usize = 8;

/// What remembers our own answer; the first byte of its To tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum TagKind {
    /// Nothing: its ACK is absorbed wherever it arrives.
    Stateless = b's',
    /// A server transaction, which waits for the ACK.
    Transaction = b'p',
}

/// A dialog's identity, as keyed hashes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dialog {
    /// Call-ID and the opener's tag. Never 0: where there may be none, none takes no room of its own.
    pub call: NonZeroU64,
    /// The same, plus the names in From and To.
    pub whole: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Identity {
    transactions: Key,
    tags: Key,
    dialogs: Key,
    names: Key,
    loops: Key,
}

impl Identity {
    pub fn new(secret: Key) -> Identity {
        Identity {
            transactions: secret.derive("transaction"),
            tags: secret.derive("to tag"),
            dialogs: secret.derive("dialog"),
            names: secret.derive("dialog names"),
            loops: secret.derive("loop"),
        }
    }

    /// Returns the key of a request's server transaction (§17.2.3). `method` is INVITE for an ACK or a CANCEL that looks for its
    /// INVITE.
    ///
    /// Besides branch and sent-by it covers everything that an ACK to a non-2xx and a CANCEL copy verbatim from their INVITE
    /// (§17.1.1.3, §9.1): Request-URI, Call-ID, the tag of From and the number of CSeq. So knowing or guessing a branch is not
    /// enough to name a transaction, and a client that uses one branch for several requests is understood; it is also what §17.2.3
    /// demands for a branch of RFC 2543, or none. It does not cover To, Contact, credentials and body: it detects a retransmission,
    /// and authorises nothing.
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
            // The first one if there are several: such a request is refused, and its ACK has to be recognised.
            message.header(Name::CallId).map_or(&[], |id| id.value),
            message.from_tag().unwrap_or_default(),
            message.request_uri(),
        ])
    }

    /// Identifies the INVITE that an ACK is for, whatever their branches.
    pub fn invite(&self, message: &Message) -> u128 {
        let number = message.cseq().map_or(0, |cseq| cseq.number);
        self.transactions.wide(&[
            &number.to_le_bytes(),
            message.header(Name::CallId).map_or(&[], |id| id.value),
            message.from_tag().unwrap_or_default(),
            message.to_tag().unwrap_or_default(),
        ])
    }

    /// Writes the To tag of our own answer to a request: the same for each retransmission.
    pub fn write_tag(&self, message: &Message, memory: TagKind, out: &mut Vec<u8>) {
        let call_id = message.header(Name::CallId);
        let number = self.tags.hash(&[
            // The first one if there are several: such a request is answered too.
            call_id.map_or(&[], |call_id| call_id.value),
            message.from_tag().unwrap_or_default(),
            message.top_branch().unwrap_or_default(),
        ]) as u32;
        out.push(memory as u8);
        write_hex_digits(u64::from(number), TAG_HALF, out);
        write_hex_digits(self.tag_check(memory, number), TAG_HALF, out);
    }

    /// Returns what remembers the answer if this server (any core, in any run with this key) issued the To tag. Its check covers
    /// only the tag: it proves that the ACK that shows it is for an answer of ours and nothing else's, whatever its branch, Call-ID
    /// or From, but not for which request.
    pub fn own_tag(&self, message: &Message) -> Option<TagKind> {
        let tag = message.to_tag().filter(|tag| tag.len() == TAG_LEN)?;
        let memory = match tag.first()? {
            b's' => TagKind::Stateless,
            b'p' => TagKind::Transaction,
            _ => return None,
        };
        let number = read_hex(tag.get(1..1 + TAG_HALF)?)? as u32;
        let check = read_hex(tag.get(1 + TAG_HALF..)?)?;
        (check == self.tag_check(memory, number)).then_some(memory)
    }

    fn tag_check(&self, memory: TagKind, number: u32) -> u64 {
        let check = self.tags.hash_numbers(memory as u64, u64::from(number), 0);
        check & 0xffff_ffff
    }

    /// Returns what all messages of one dialog share. The opener is in From if `opener` is the caller of this request.
    pub fn dialog(&self, message: &Message, opener: Side, facts: &mut Vec<u8>) -> Dialog {
        facts.clear();
        let from = message.from().map_or(&[][..], |from| from.uri);
        let to = message.to().map_or(&[][..], |to| to.uri);
        let (opened, other, tag) = match opener {
            Side::Caller => (from, to, message.from_tag()),
            Side::Callee => (to, from, message.to_tag()),
        };
        let call_id = message.call_id().unwrap_or_default();
        let call = self.dialogs.hash(&[call_id, tag.unwrap_or_default()]);
        let call = NonZeroU64::new(call).unwrap_or(NonZeroU64::MIN);
        facts.extend_from_slice(&call.get().to_le_bytes());
        fact(facts, |out| write_name(opened, out));
        fact(facts, |out| write_name(other, out));
        let whole = self.names.text(facts);
        Dialog { call, whole }
    }

    /// Returns the hash that identifies a tag within one call; never 0.
    pub fn tag_hash(&self, tag: Option<&[u8]>) -> u32 {
        (self.dialogs.hash(&[tag.unwrap_or_default()]) as u32).max(1)
    }

    /// Hashes everything that decides where a request goes, for loop detection (RFC 5393 §4.2.1): the same hash again is a loop.
    /// `source` is given if the route depends on it.
    pub fn loop_hash(&self, message: &Message, source: Option<IpAddr>) -> u32 {
        let mut hash = match source {
            None => self.loops.hash(&[message.request_uri()]),
            Some(IpAddr::V4(ip)) => self.loops.hash(&[message.request_uri(), &ip.octets()]),
            Some(IpAddr::V6(ip)) => self.loops.hash(&[message.request_uri(), &ip.octets()]),
        };
        for route in message.all(Name::Route) {
            hash = self.loops.hash(&[&hash.to_be_bytes(), route.value]);
        }
        hash as u32
    }

    /// Returns the first part of a stateless branch (§16.11): the same for a retransmission, the CANCEL and the ACK. `key` is the
    /// transaction's, which those three share.
    pub fn stateless_seed(&self, key: u128, target: usize) -> u64 {
        self.loops.hash_numbers(key as u64, (key >> 64) as u64, target as u64)
    }
}

/// No DNS name is longer; anything longer is compared as written.
const LONGEST_NAME: usize = 255;

/// Folds a host name for comparison: lower case, without the root's dot; `None` if it already is.
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

/// Returns the port of sent-by, or the transport's default if it has none (§18.2.2).
fn sent_by_port(via: &Via) -> u16 {
    let is_tls = || via.transport.eq_ignore_ascii_case(b"TLS");
    via.port.unwrap_or_else(|| match is_tls() {
        true => Transport::Tls.default_port(),
        false => Transport::Udp.default_port(),
    })
}
