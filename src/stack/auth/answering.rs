//! How this server answers others' challenges (RFC 3261 §22.2, §22.3; RFC 7616): with the password of a trunk.

use crate::base::Key;
use crate::base::hash::write_hex;
use crate::sip::{Challenge, Credentials, Message, Name};
use crate::stack::auth::digest::{self, Algorithm};
use crate::stack::trunk::Trunk;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Nonces whose counts are remembered: a challenger that accepts one nonce for several requests expects each count once.
const NONCES: usize = 64;

/// A challenge that can be answered.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<'a> {
    pub challenge: Challenge<'a>,
    /// As in the header field, to be kept.
    pub value: &'a [u8],
    /// It came in a 407.
    pub is_proxys: bool,
    algorithm: Algorithm,
    session: bool,
    /// `auth`, `auth-int`, or none.
    qop: Option<&'static [u8]>,
}

impl<'a> Chosen<'a> {
    /// Returns the topmost challenge that we can answer (RFC 8760 §2.4), in the trunk's realm if it names one.
    pub fn of(message: &Message<'a>, trunk: &Trunk) -> Option<Chosen<'a>> {
        let name = match message.status() {
            407 => Name::ProxyAuthenticate,
            _ => Name::WwwAuthenticate,
        };
        let mut all = message.all(name);
        all.find_map(|header| Chosen::read(header.value, name == Name::ProxyAuthenticate, trunk))
    }

    pub fn read(value: &'a [u8], is_proxys: bool, trunk: &Trunk) -> Option<Chosen<'a>> {
        let challenge = Challenge::parse(value).ok()??;
        let (algorithm, session) = match challenge.algorithm {
            None => (Algorithm::Md5, false),
            Some(text) => Algorithm::parse(text)?,
        };
        let offers = |qop: &[u8]| {
            let mut offered = challenge.qop.unwrap_or_default().split(|byte| *byte == b',');
            offered.any(|one| one.trim_ascii().eq_ignore_ascii_case(qop))
        };
        let qop = match challenge.qop {
            None => None,
            Some(_) => Some([&b"auth"[..], b"auth-int"].into_iter().find(|qop| offers(qop))?),
        };
        let fits = trunk.realm.as_ref().is_none_or(|realm| realm == challenge.realm);
        fits.then_some(Chosen { challenge, value, is_proxys, algorithm, session, qop })
    }
}

/// The request to be authenticated.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub method: &'a [u8],
    pub uri: &'a [u8],
    pub body: &'a [u8],
}

/// How often others' nonces were used. All cores share it: to the challenger they are one client (RFC 7616 §3.4).
#[derive(Debug, Default)]
pub struct NonceCounts {
    /// The newest last, each with the count that it was last used with.
    list: Mutex<VecDeque<(u64, u32)>>,
}

impl NonceCounts {
    /// Returns how often this nonce has been used, including this use.
    fn count(&self, nonce: u64) -> u32 {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let known = list.iter().position(|(known, _)| *known == nonce);
        let count = known.and_then(|place| list.remove(place)).map_or(0, |(_, count)| count);
        let count = count.saturating_add(1);
        if list.len() >= NONCES {
            list.pop_front();
        }
        list.push_back((nonce, count));
        count
    }
}

/// Writes answers to challenges; one per core.
pub struct Answering {
    key: Key,
    core: u8,
    answers: u64,
    counts: Arc<NonceCounts>,
}

impl Answering {
    pub fn new(secret: Key, core: u8) -> Answering {
        Answering { key: secret.derive("answers to challenges"), core, answers: 0, counts: Arc::default() }
    }

    /// Sets the counts that all cores share.
    pub fn share(&mut self, counts: Arc<NonceCounts>) {
        self.counts = counts;
    }

    /// Appends the header line that answers a challenge.
    pub fn write(&mut self, trunk: &Trunk, chosen: &Chosen, asked: Asked, out: &mut Vec<u8>) {
        let challenge = &chosen.challenge;
        self.answers += 1;
        let count = format!("{:08x}", self.count(trunk, challenge.nonce));
        let mut cnonce = Vec::new();
        let (core, number) = (self.core.to_le_bytes(), self.answers.to_le_bytes());
        write_hex(self.key.hash(&[b"cnonce", challenge.nonce, &core, &number, asked.uri]), &mut cnonce);
        let has_cnonce = chosen.session || chosen.qop.is_some();
        let credentials = Credentials {
            username: &trunk.auth_user,
            realm: challenge.realm,
            nonce: challenge.nonce,
            uri: asked.uri,
            response: b"",
            algorithm: challenge.algorithm,
            cnonce: has_cnonce.then_some(&cnonce),
            qop: chosen.qop,
            nc: chosen.qop.map(|_| count.as_bytes()),
        };
        let ha1 = digest::ha1(chosen.algorithm, &trunk.auth_user, challenge.realm, trunk.password.reveal());
        let response = digest::response(chosen.algorithm, chosen.session, &ha1, &credentials, asked.method, asked.body);
        let Some(response) = response else {
            debug_assert!(false, "what is needed is there");
            return;
        };
        out.extend_from_slice(match chosen.is_proxys {
            true => b"Proxy-Authorization: Digest ",
            false => b"Authorization: Digest ",
        });
        let mut quoted = |name: &str, value: &[u8]| {
            for part in [name.as_bytes(), b"=\"", value, b"\", "] {
                out.extend_from_slice(part);
            }
        };
        quoted("username", credentials.username);
        quoted("realm", credentials.realm);
        quoted("nonce", credentials.nonce);
        quoted("uri", credentials.uri);
        if let Some(opaque) = challenge.opaque {
            quoted("opaque", opaque);
        }
        if let Some(cnonce) = credentials.cnonce {
            quoted("cnonce", cnonce);
        }
        let mut plain = |name: &str, value: &[u8]| {
            for part in [name.as_bytes(), b"=", value, b", "] {
                out.extend_from_slice(part);
            }
        };
        if let (Some(qop), Some(nc)) = (credentials.qop, credentials.nc) {
            plain("qop", qop);
            plain("nc", nc);
        }
        if let Some(algorithm) = challenge.algorithm {
            plain("algorithm", algorithm);
        }
        out.extend_from_slice(b"response=\"");
        out.extend_from_slice(response.hex().bytes());
        out.extend_from_slice(b"\"\r\n");
    }

    /// Returns how often this nonce has been used, including this use.
    fn count(&self, trunk: &Trunk, nonce: &[u8]) -> u32 {
        self.counts.count(self.key.hash(&[trunk.name.as_bytes(), b"\0", nonce]))
    }
}
