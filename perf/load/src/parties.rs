//! Who talks: the users, the ends, and what an end says of itself and of all calls in its messages.

use std::net::IpAddr;
use std::rc::Rc;

use crate::template::{Template, Users};
use crate::wire::{Local, Side, spread_host};

/// The text that all messages share, and what a server makes of them.
pub struct Dialect {
    /// The host part of addresses-of-record.
    pub domain: String,
    /// Between the two ends stands only the relay, which changes nothing.
    pub floor: bool,
    /// The answerer is a next hop: the Request-URI of an INVITE reaches it as it left the caller, and nobody is registered.
    pub routed: bool,
    /// How many proxies a request may pass on its way to the answerer.
    pub hops: usize,
    pub body: Body,
    /// A header line that brings the relay's datagrams to the size of the proxy's; empty otherwise.
    pub pad: String,
}

/// The session description (RFC 4566) that INVITE and 200 carry.
pub struct Body {
    /// Its header lines, the empty line, and the body itself.
    pub text: String,
    /// Of the body itself.
    pub length: usize,
}

/// A session description for media at a loopback address of this one's family.
pub fn body(address: IpAddr) -> Body {
    let media = match address {
        IpAddr::V4(_) => "IP4 127.0.0.1",
        IpAddr::V6(_) => "IP6 ::1",
    };
    let body = format!(
        "v=0\r\n\
         o=user1 53655765 2353687637 IN {media}\r\n\
         s=-\r\n\
         c=IN {media}\r\n\
         t=0 0\r\n\
         m=audio 6000 RTP/AVP 0\r\n\
         a=rtpmap:0 PCMU/8000\r\n"
    );
    let length = body.len();
    Body { text: format!("Content-Type: application/sdp\r\nContent-Length: {length}\r\n\r\n{body}"), length }
}

/// A header line of so many bytes.
pub fn pad(bytes: usize) -> String {
    match bytes {
        0 => String::new(),
        // "X-Pad: " and CRLF are part of the size.
        _ => format!("X-Pad: {}\r\n", "p".repeat(bytes.saturating_sub(9))),
    }
}

/// An address as the host of a URI (RFC 3261 §25.1: IPv6reference).
pub fn uri_host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

pub struct Parties {
    pub dialect: Dialect,
    pub users: Rc<Users>,
    pub ends: Vec<End>,
}

impl Parties {
    pub fn new(dialect: Dialect, users: Rc<Users>, locals: &[Local]) -> Parties {
        let ends = locals.iter().map(|local| End::new(*local, &dialect, users.width())).collect();
        Parties { dialect, users, ends }
    }

    /// The ends of a side, by their numbers.
    pub fn of(&self, side: Side) -> Vec<u32> {
        (0..self.ends.len() as u32).filter(|end| self.ends[*end as usize].local.side == side).collect()
    }
}

/// What an end's messages say about it.
pub struct End {
    pub local: Local,
    /// `127.0.0.1:5070`, `[::1]:5070`; as many as the users' contacts are spread over.
    contacts: Vec<String>,
    /// What follows the address in a Contact: the transport, and the line's end.
    pub contact_end: String,
    pub invite: Template,
    /// From Via up to the branch's token.
    pub via: String,
}

impl End {
    fn new(local: Local, dialect: &Dialect, user_width: usize) -> End {
        End {
            local,
            contacts: match local.spread {
                0 => vec![local.address.to_string()],
                spread => (0..spread).map(|number| format!("{}:{}", spread_host(number, spread), local.address.port())).collect(),
            },
            contact_end: format!("{}>\r\n", local.transport.in_uri()),
            invite: invite(&local, dialect, user_width),
            via: format!("Via: SIP/2.0/{} {};branch=z9hG4bK", local.transport.in_via(), local.address),
        }
    }

    /// Host and port of this user's contact, if this is the end that it names.
    pub fn contact_of(&self, user: u32) -> &[u8] {
        match &self.contacts[..] {
            [one] => one.as_bytes(),
            many => many[user as usize % many.len()].as_bytes(),
        }
    }
}

fn invite(local: &Local, dialect: &Dialect, user_width: usize) -> Template {
    let address = local.address;
    let (in_via, in_uri) = (local.transport.in_via(), local.transport.in_uri());
    let Dialect { domain, pad, body, .. } = dialect;
    Template::new(
        &format!(
            "INVITE sip:{{callee}}@{domain} SIP/2.0\r\n\
             Via: SIP/2.0/{in_via} {address};branch=z9hG4bK{{token}}{{branch}};rport\r\n\
             Max-Forwards: 70\r\n\
             From: <sip:{{caller}}@{domain}>;tag={{tag}}\r\n\
             To: <sip:{{callee}}@{domain}>\r\n\
             Call-ID: {{token}}@load\r\n\
             CSeq: {{attempt}} INVITE\r\n\
             Contact: <sip:{{caller}}@{address}{in_uri}>\r\n\
             {pad}\
             User-Agent: strowger-load\r\n\
             {{lines}}\
             {}",
            body.text
        ),
        user_width,
        0,
    )
}
