//! Names that the server gives and later recognises by its key, without remembering them: the key of a server transaction
//! (RFC 3261 §17.2.3), the To tag of an answer of our own (§8.2.6.2), the hash by which a loop is known (RFC 5393), and what all
//! messages of a dialog have in common.

use crate::base::hash::{read_hex, write_hex_digits};
use crate::base::{Key, Transport};
use crate::sip::{Message, Name, Via};
use crate::stack::facts::{fact, write_name};
use crate::stack::token::Side;
use std::net::IpAddr;

/// The length of a tag that [`Identity::write_tag`] writes: a letter, digits that make it unique, digits of the check.
pub const TAG_LEN: usize = 1 + 2 * TAG_HALF;
const TAG_HALF: usize = 8;

/// What remembers an answer of our own; the first byte of its To tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum TagKind {
    /// Nothing: its ACK is absorbed wherever it comes.
    Stateless = b's',
    /// A server transaction, which waits for the ACK.
    Transaction = b'p',
}

/// What a dialog is known by, as keyed hashes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dialog {
    /// Call-ID and the tag of who opened it.
    pub call: u64,
    /// The same, and whose names From and To bear.
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

    /// The INVITE that an ACK is for, whatever their branches.
    pub fn invite(&self, message: &Message) -> u128 {
        let number = message.cseq().map_or(0, |cseq| cseq.number);
        self.transactions.wide(&[
            &number.to_le_bytes(),
            message.header(Name::CallId).map_or(&[], |id| id.value),
            message.from_tag().unwrap_or_default(),
            message.to_tag().unwrap_or_default(),
        ])
    }

    /// The To tag of our own answer to a request: the same for each repetition.
    pub fn write_tag(&self, message: &Message, memory: TagKind, out: &mut Vec<u8>) {
        let call_id = message.header(Name::CallId);
        let number = self.tags.hash(&[
            // The first one where there are several: such a request is answered too.
            call_id.map_or(&[], |call_id| call_id.value),
            message.from_tag().unwrap_or_default(),
            message.top_branch().unwrap_or_default(),
        ]) as u32;
        out.push(memory as u8);
        write_hex_digits(u64::from(number), TAG_HALF, out);
        write_hex_digits(self.tag_check(memory, number), TAG_HALF, out);
    }

    /// Whether the To tag is one that this server (any of its cores, in any run with this key) has given, and what remembers the answer.
    /// Its check covers the tag alone: that the ACK which shows it answers an answer of ours, and belongs to nobody else, follows
    /// whatever branch, Call-ID or From it has; of which request does not.
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

    /// What all messages of one dialog have in common. Who opened it stands in From where `opener` is the caller of this request.
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
        facts.extend_from_slice(&call.to_le_bytes());
        fact(facts, |out| write_name(opened, out));
        fact(facts, |out| write_name(other, out));
        let whole = self.names.text(facts);
        Dialog { call, whole }
    }

    /// What a tag is known by among those of one call; never 0.
    pub fn tag_hash(&self, tag: Option<&[u8]>) -> u32 {
        (self.dialogs.hash(&[tag.unwrap_or_default()]) as u32).max(1)
    }

    /// Everything that decides where a request goes, for loop detection (RFC 5393 §4.2.1): the same again is a loop.
    /// `source` where the way depends on it.
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

    /// The first part of a stateless branch (§16.11): the same for a retransmission, for the CANCEL and for the ACK.
    /// `key` is the transaction's, which those three share.
    pub fn stateless_seed(&self, key: u128, target: usize) -> u64 {
        self.loops.hash_numbers(key as u64, (key >> 64) as u64, target as u64)
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
