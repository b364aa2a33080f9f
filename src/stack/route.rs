//! Where a request goes: the compiled `[[route]]` table.

pub use crate::base::Network;
use crate::base::Transport;
use crate::settings::Outgoing;
use crate::sip::{Scheme, Uri};
use std::borrow::Cow;
use std::net::SocketAddr;

/// One `[[route]]`. Every condition that is given must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Upper-case method names; empty: any.
    pub methods: Vec<Vec<u8>>,
    /// Networks in CIDR form; empty: any source.
    pub from_source: Vec<Network>,
    /// Host of the Request-URI, lower-case.
    pub to_host: Option<Vec<u8>>,
    pub to_user_prefix: Option<Vec<u8>>,
    /// What the User-Agent has in it, one of these, lower-case; empty: anything, and none at all.
    pub user_agent: Vec<Vec<u8>>,
    pub action: Action,
    /// How connections are made for what takes this route; `None`: as the server does in general.
    pub outgoing: Option<Outgoing>,
    /// Whether our own users must prove who they are to take this route; `None`: as `[auth]` says in general.
    pub challenge: Option<bool>,
    /// Whether nobody but our own users, proved, may take this route.
    pub users_only: bool,
}

impl Route {
    /// Whether some who take it must prove who they are, whatever `[auth]` says.
    pub fn challenges(&self) -> bool {
        self.challenge == Some(true) || self.users_only
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send to the first target; the others are tried in order when it fails. Without targets: to where the Request-URI says.
    Relay(Vec<NextHop>),
    /// Look the Request-URI up in the location service.
    Location,
    /// Answer 302 with these URIs, or with the registered contacts when there are none.
    Redirect(Vec<Vec<u8>>),
    /// Answer with this status.
    Reject(u16),
    /// Answer nothing.
    Drop,
}

/// A `target` of a relay route.
#[derive(Clone, Debug, PartialEq)]
pub struct NextHop {
    /// The URI as the conf gives it.
    pub uri: Vec<u8>,
    /// `None`: the host of `uri` is a name, which is looked up for each request (RFC 3263).
    pub address: Option<SocketAddr>,
    /// What `uri` says, or its scheme's default. A name's records may say otherwise where it says nothing.
    pub transport: Transport,
    /// What the peer's certificate must prove over TLS (RFC 5922): the host of `uri`, lower-case, an address without brackets.
    pub host: Vec<u8>,
    /// Which certificate of ours it is shown over TLS if it asks; 0: the one that all are.
    pub identity: u64,
}

impl NextHop {
    /// Whether its URI says nothing of a transport, so that the records of a name may.
    pub fn leaves_transport_open(&self) -> bool {
        let uri = Uri::parse(&self.uri);
        uri.is_ok_and(|uri| uri.scheme != Scheme::Sips && uri.transport().is_none())
    }

    /// For people.
    pub fn uri_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.uri)
    }
}
