//! The phones: what each has registered, and what it may expect of that.

use super::node::{What, field};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// How a phone names what it binds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// By its contact.
    Plain,
    /// By its contact, with an instance: another contact replaces the last one.
    Instance,
    /// By instance and reg-id (RFC 5626), over a NAT: another contact is the same binding.
    Outbound,
}

/// What must be so once all is well.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expectation {
    /// It is not known whether the last REGISTER counts.
    Unknown,
    Bound {
        what: What,
        /// When it expires.
        until: u64,
    },
    Removed,
}

/// A REGISTER that waits for its answer.
#[derive(Clone, Debug)]
pub struct Asked {
    pub then: Expectation,
    /// Other fields that it removes for certain.
    pub gone: Vec<Vec<u8>>,
    /// How the phone was bound before: Call-ID, contact and q, as it remains if this is refused.
    pub before: (u32, u32, u16),
    /// The version is certain to win over what the phone has sent before.
    pub is_certain: bool,
}

pub struct Phone {
    pub aor: String,
    pub number: usize,
    pub kind: Kind,
    pub call_id: u32,
    pub cseq: u32,
    /// Which of its contacts it uses.
    pub contact: u32,
    pub q: u16,
    pub expires_s: u64,
    pub has_path: bool,
    /// All that it has sent with its present Call-ID is newer than what it has sent before, for whoever compares.
    pub is_certain: bool,
    /// The node to which it has sent last.
    pub node: usize,
    pub asked: Option<Asked>,
    pub expects: Expectation,
    /// Fields that it had, and that were removed.
    pub gone: BTreeMap<Vec<u8>, ()>,
}

impl Phone {
    pub fn new(number: usize, kind: Kind) -> Phone {
        Phone {
            aor: format!("user{}@example.com", number / 2),
            number,
            kind,
            call_id: 0,
            cseq: 0,
            contact: 0,
            q: 1000,
            expires_s: 600,
            has_path: number % 5 == 4,
            is_certain: true,
            node: 0,
            asked: None,
            expects: Expectation::Unknown,
            gone: BTreeMap::new(),
        }
    }

    pub fn peer(&self) -> SocketAddr {
        ([198, 51, 100, 1 + self.number as u8], 5060 + (self.contact % 100) as u16).into()
    }

    pub fn uri(&self) -> String {
        match self.kind {
            Kind::Outbound => format!("sip:p{}@10.0.0.{}:5060", self.number, 1 + self.contact % 200),
            // Two spellings of one URI.
            Kind::Plain if self.contact % 2 == 1 => format!("sip:p{}@{};TRANSPORT=udp", self.number, self.host()),
            Kind::Plain => format!("sip:p{}@{};transport=udp", self.number, self.host()),
            Kind::Instance => format!("sip:p{}@{}", self.number, self.peer()),
        }
    }

    /// The same for all contacts of a plain phone.
    fn host(&self) -> String {
        format!("198.51.100.{}:5060", 1 + self.number)
    }

    pub fn instance(&self) -> String {
        match self.kind {
            Kind::Plain => String::new(),
            _ => format!("\"<urn:uuid:00000000-0000-1000-8000-{:012}>\"", self.number),
        }
    }

    fn reg_id(&self) -> u32 {
        u32::from(self.kind == Kind::Outbound)
    }

    pub fn field(&self) -> Vec<u8> {
        field(self.uri().as_bytes(), self.instance().as_bytes(), self.reg_id())
    }

    pub fn call(&self) -> String {
        format!("call-{}-{}", self.number, self.call_id)
    }

    pub fn what(&self) -> What {
        What { uri: self.uri().into_bytes(), call_id: self.call().into_bytes(), path: self.path().into_bytes(), q: self.q }
    }

    fn path(&self) -> String {
        match self.has_path {
            true => "<sip:edge.example.net;lr>".to_owned(),
            false => String::new(),
        }
    }

    pub fn bound_as(&self) -> (u32, u32, u16) {
        (self.call_id, self.contact, self.q)
    }

    /// Its REGISTER for its present contact.
    pub fn register(&self, serial: u64, expires_s: u64) -> String {
        let (uri, aor, call, peer, cseq) = (self.uri(), &self.aor, self.call(), self.peer(), self.cseq);
        let q = f64::from(self.q) / 1000.0;
        let mut contact = format!("<{uri}>;expires={expires_s};q={q:.3}");
        if self.kind != Kind::Plain {
            contact += &format!(";+sip.instance={}", self.instance());
        }
        if self.kind == Kind::Outbound {
            contact += ";reg-id=1";
        }
        let path = match self.has_path {
            true => format!("Path: {}\r\nSupported: path\r\n", self.path()),
            false => String::new(),
        };
        format!(
            "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP {peer};branch=z9hG4bK{serial};rport\r\nMax-Forwards: 70\r\n\
             From: <sip:{aor}>;tag={serial}\r\nTo: <sip:{aor}>\r\nCall-ID: {call}\r\nCSeq: {cseq} REGISTER\r\n\
             Contact: {contact}\r\n{path}Supported: outbound\r\nContent-Length: 0\r\n\r\n"
        )
    }

    /// An answer has come to what it has asked: `is_carried_out` is unknown to it if it is none.
    pub fn answered(&mut self, is_carried_out: Option<bool>) {
        let Some(asked) = self.asked.take() else {
            return;
        };
        match is_carried_out {
            Some(false) => (self.call_id, self.contact, self.q) = asked.before,
            Some(true) => {
                self.is_certain = asked.is_certain;
                self.expects = match asked.is_certain {
                    true => asked.then,
                    false => Expectation::Unknown,
                };
                self.gone.extend(asked.gone.into_iter().map(|field| (field, ())));
            }
            None => {
                self.is_certain &= asked.is_certain;
                self.expects = Expectation::Unknown;
                asked.gone.iter().for_each(|field| _ = self.gone.remove(field));
            }
        }
        if !matches!(self.expects, Expectation::Removed) {
            self.gone.remove(&self.field());
        }
    }
}
