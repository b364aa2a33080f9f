//! What this server requests of others on its own behalf, one duty for each purpose, and how such a request is written.

use crate::base::hash::{write_decimal, write_hex};
use crate::base::{Flow, Id, Instant, Key};
use crate::settings::Millis;
use crate::sip::{Scheme, Uri, write_escaped};
use crate::stack::proxy::locate::{ServerAddress, Tried};
use crate::stack::route::NextHop;
use crate::stack::uac::registration::Registration;

/// A request that is made again and again.
pub struct Duty {
    pub what: What,
    pub call_id: Vec<u8>,
    pub tag: Vec<u8>,
    pub cseq: u32,
    /// When it is next due.
    pub due: Instant,
    /// When it first wanted to leave: answers about its name that arrived later are valid for it.
    pub since: Instant,
    /// It waits for a DNS answer.
    pub is_parked: bool,
    /// The server asked has been silent, and where else the name leads waits for a DNS answer.
    pub seeks_another: bool,
    /// The request in progress, and its flow.
    pub under_way: Option<UnderWay>,
    /// The places of the next hop's name that were tried.
    pub tried: Vec<Tried>,
    /// The place that has answered and is asked once more.
    pub again: Option<ServerAddress>,
}

#[derive(Clone, Copy)]
pub struct UnderWay {
    pub client: Id,
    pub flow: Flow,
    /// Where the next hop's name has led, if it is one.
    pub server: Option<ServerAddress>,
    /// It gives a registration back.
    pub is_removal: bool,
}

pub enum What {
    /// OPTIONS to a target of a route, at this interval.
    Probe { hop: NextHop, every: Millis },
    /// REGISTER with a carrier.
    Registration(Box<Registration>),
}

impl Duty {
    /// Creates a duty. `number` differs for each.
    pub fn new(what: What, number: u64, key: &Key, due: Instant) -> Duty {
        let word = |about: &[u8]| {
            let mut text = Vec::new();
            write_hex(key.hash(&[about, &number.to_le_bytes()]), &mut text);
            text
        };
        Duty {
            what,
            call_id: [word(b"call"), word(b"more of it")].concat(),
            tag: word(b"tag"),
            cseq: 0,
            due,
            since: due,
            is_parked: false,
            seeks_another: false,
            under_way: None,
            tried: Vec::new(),
            again: None,
        }
    }

    pub fn hop(&self) -> &NextHop {
        match &self.what {
            What::Probe { hop, .. } => hop,
            What::Registration(registration) => &registration.trunk.registrar,
        }
    }

    /// The place to ask, if it is not for the name alone to say: the one that has asked for more, or that knows the registration.
    /// A place that has failed is left, unless what it knows is to be given back.
    pub fn preferred(&self, now: Instant, is_well: impl Fn(ServerAddress) -> bool) -> Option<ServerAddress> {
        let What::Registration(registration) = &self.what else {
            return None;
        };
        let known = || {
            let server = registration.granted_by.filter(|_| self.tried.is_empty() && registration.until > now)?;
            (registration.is_leaving || is_well(server)).then_some(server)
        };
        self.again.or_else(known)
    }

    pub fn method(&self) -> &'static [u8] {
        match self.what {
            What::Probe { .. } => b"OPTIONS",
            What::Registration(_) => b"REGISTER",
        }
    }

    /// Appends the request. `advertised` is the listener that it leaves by, `transport` the parameter for its Contact.
    pub fn write(&self, via: &[u8], advertised: &[u8], transport: &[u8], out: &mut Vec<u8>) {
        let mut put = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
        let mut domain = Vec::new();
        write_domain(&self.hop().uri.uri(), &mut domain);
        let (from, to) = match &self.what {
            What::Probe { .. } => ([b"sip:", advertised].concat(), domain.clone()),
            What::Registration(registration) => {
                let own = registration.address();
                (own.clone(), own)
            }
        };
        let mut number = Vec::new();
        write_decimal(u64::from(self.cseq), &mut number);
        put(&[self.method(), b" ", &domain, b" SIP/2.0\r\nVia: ", via, b"\r\nMax-Forwards: 70\r\n"]);
        put(&[b"From: <", &from, b">;tag=", &self.tag, b"\r\nTo: <", &to, b">\r\n"]);
        put(&[b"Call-ID: ", &self.call_id, b"\r\nCSeq: ", &number, b" ", self.method(), b"\r\n"]);
        match &self.what {
            What::Probe { .. } => put(&[b"Accept: application/sdp\r\n"]),
            What::Registration(registration) => {
                let mut user = Vec::new();
                write_escaped(registration.trunk.user.iter().copied(), &mut user);
                let mut expires = Vec::new();
                write_decimal(u64::from(registration.wanted()), &mut expires);
                put(&[b"Contact: <sip:", &user, b"@", advertised, transport, b">\r\n"]);
                put(&[b"Expires: ", &expires, b"\r\n", &registration.authorization]);
            }
        }
        put(&[b"Content-Length: 0\r\n\r\n"]);
    }
}

/// Appends only the next hop's domain: its URI without user and parameters.
pub fn write_domain(uri: &Uri, out: &mut Vec<u8>) {
    out.extend_from_slice(match uri.scheme {
        Scheme::Sips => b"sips:",
        _ => b"sip:",
    });
    out.extend_from_slice(uri.host_text);
    if let Some(port) = uri.port {
        out.push(b':');
        write_decimal(u64::from(port), out);
    }
}
