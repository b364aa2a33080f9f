//! What an end says of itself in its messages: addresses, the INVITE's text, and the body.

use std::net::IpAddr;

use crate::flow::Dialect;
use crate::template::Template;
use crate::wire::{Local, spread_host};

/// A body, and its length as Content-Length says it.
pub struct Body {
    pub text: &'static str,
    pub length: &'static str,
}

const IPV4_BODY: Body = Body {
    text: "v=0\r\n\
        o=user1 53655765 2353687637 IN IP4 127.0.0.1\r\n\
        s=-\r\n\
        c=IN IP4 127.0.0.1\r\n\
        t=0 0\r\n\
        m=audio 6000 RTP/AVP 0\r\n\
        a=rtpmap:0 PCMU/8000\r\n",
    length: "129",
};

const IPV6_BODY: Body = Body {
    text: "v=0\r\n\
        o=user1 53655765 2353687637 IN IP6 ::1\r\n\
        s=-\r\n\
        c=IN IP6 ::1\r\n\
        t=0 0\r\n\
        m=audio 6000 RTP/AVP 0\r\n\
        a=rtpmap:0 PCMU/8000\r\n",
    length: "117",
};

const _: () = assert!(IPV4_BODY.text.len() == 129 && IPV6_BODY.text.len() == 117, "the lengths must be those of the texts");

/// The session description (RFC 4566) for media at a loopback address of this family.
pub fn body(address: IpAddr) -> &'static Body {
    match address {
        IpAddr::V4(_) => &IPV4_BODY,
        IpAddr::V6(_) => &IPV6_BODY,
    }
}

/// An address as the host of a URI (RFC 3261 §25.1: IPv6reference).
pub fn uri_host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// What an end's messages say about it.
pub struct End {
    /// `127.0.0.1:5070`, `[::1]:5070`
    pub address: String,
    pub port: u16,
    /// As in `Local`.
    pub spread: u32,
    /// What follows the address in a Contact: the transport, and the line's end.
    pub contact_end: String,
    pub invite: Template,
    /// From Via up to the branch's token.
    pub via: String,
}

impl End {
    pub fn new(local: &Local, dialect: &Dialect, user_width: usize) -> End {
        End {
            address: local.address.to_string(),
            port: local.address.port(),
            spread: local.spread,
            contact_end: format!("{}>\r\n", local.transport.in_uri()),
            invite: invite(local, dialect, user_width),
            via: format!("Via: SIP/2.0/{} {};branch=z9hG4bK", local.transport.in_via(), local.address),
        }
    }

    pub fn spread_address(&self, user: u32) -> String {
        format!("{}:{}", spread_host(user, self.spread), self.port)
    }
}

fn invite(local: &Local, dialect: &Dialect, user_width: usize) -> Template {
    let address = local.address;
    let (in_via, in_uri) = (local.transport.in_via(), local.transport.in_uri());
    let Dialect { domain, pad, body, .. } = dialect;
    let Body { text, length } = body;
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
             Content-Type: application/sdp\r\n\
             Content-Length: {length}\r\n\r\n{text}"
        ),
        user_width,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_host_stands_in_brackets() {
        assert_eq!(uri_host("127.0.0.1".parse().expect("address")), "127.0.0.1");
        assert_eq!(uri_host("::1".parse().expect("address")), "[::1]");
    }
}
