//! Where a request goes: the compiled `[[route]]` table.

pub use crate::base::Network;
use crate::settings::{Millis, Outgoing};
use crate::sip::{Dialling, Header, Host, Name};
pub use crate::stack::hop_of_conf::NextHop;
use crate::stack::trunk::Trunk;
use std::net::IpAddr;
use std::ops::Deref;
use std::slice;
use std::sync::Arc;

/// All routes in the order of the conf, with what a message asks of them as a whole worked out once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routes {
    routes: Vec<Route>,
    drop_some: bool,
    have_a_say: bool,
    challenge_some: bool,
    guard_some: bool,
    look_at_source: bool,
}

impl From<Vec<Route>> for Routes {
    fn from(routes: Vec<Route>) -> Routes {
        let any = |test: fn(&Route) -> bool| routes.iter().any(test);
        Routes {
            drop_some: any(|route| route.action == Action::Drop),
            have_a_say: any(|route| route.challenge.is_some() || route.users_only),
            challenge_some: any(|route| route.challenge == Some(true) || route.users_only),
            guard_some: any(|route| route.users_only && !route.hops().is_empty()),
            look_at_source: any(|route| !route.from_source.is_empty()),
            routes,
        }
    }
}

impl Deref for Routes {
    type Target = [Route];

    fn deref(&self) -> &[Route] {
        &self.routes
    }
}

impl<'a> IntoIterator for &'a Routes {
    type Item = &'a Route;
    type IntoIter = slice::Iter<'a, Route>;

    fn into_iter(self) -> slice::Iter<'a, Route> {
        self.routes.iter()
    }
}

impl Routes {
    /// Other routes made of these.
    pub fn change(&mut self, change: impl FnOnce(&mut Vec<Route>)) {
        let mut routes = std::mem::take(&mut self.routes);
        change(&mut routes);
        *self = routes.into();
    }

    /// Whether one answers nothing.
    pub fn drop_some(&self) -> bool {
        self.drop_some
    }

    /// Whether one says who must prove who they are, or who need not.
    pub fn have_a_say(&self) -> bool {
        self.have_a_say
    }

    /// Whether some who take one must prove who they are, whatever `[auth]` says.
    pub fn challenge_some(&self) -> bool {
        self.challenge_some
    }

    /// Whether one has next hops that are for our users only.
    pub fn guard_some(&self) -> bool {
        self.guard_some
    }

    /// Whether one asks where a request comes from.
    pub fn look_at_source(&self) -> bool {
        self.look_at_source
    }

    /// Every next hop.
    pub fn hops(&self) -> impl Iterator<Item = &NextHop> {
        self.iter().flat_map(Route::hops)
    }
}

/// One `[[route]]`. Every condition that is given must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Route {
    /// Upper-case method names; empty: any.
    pub methods: Vec<Vec<u8>>,
    /// Networks in CIDR form; empty: any source.
    pub from_source: Vec<Network>,
    /// Host of the Request-URI, lower-case.
    pub to_host: Option<ToHost>,
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
    /// How much of the requests each target gets, by position; empty: the first gets all, as long as it is well.
    pub weights: Vec<u16>,
    /// Final responses of a target after which the next one is tried; silence and a lost connection always are.
    pub failover: Statuses,
    /// How long a target may say nothing before the next one is tried; `None`: as `[next_hop]` says.
    pub patience: Option<Millis>,
    /// How often each target is asked by an OPTIONS whether it is there; `None`: never.
    pub probe: Option<Millis>,
    /// What is changed in the requests that take this route.
    pub edits: Arc<Edits>,
    /// The account with the carrier to which it leads.
    pub trunk: Option<Arc<Trunk>>,
}

/// A set of final responses other than 2xx; by default 503 alone. A request under way keeps that of its route when the conf changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statuses(Option<Arc<[(u16, u16)]>>);

impl Statuses {
    /// Of ranges, their ends included.
    pub fn new(ranges: Vec<(u16, u16)>) -> Statuses {
        Statuses(Some(ranges.into()))
    }

    pub fn have(&self, status: u16) -> bool {
        match &self.0 {
            None => status == 503,
            Some(ranges) => ranges.iter().any(|(first, last)| (*first..=*last).contains(&status)),
        }
    }
}

/// What a relaying route changes in a request, beyond what every proxy does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edits {
    /// Characters that the user part of the Request-URI loses at its beginning, and what it gains there then.
    pub strip: usize,
    pub prefix: Vec<u8>,
    /// What stands for the host of the Request-URI and its port.
    pub set_host: Option<Vec<u8>>,
    /// Header lines with their ends, as they are sent.
    pub add_header: Vec<u8>,
    /// Names of header fields, lower-case.
    pub remove_header: Vec<Vec<u8>>,
}

impl Edits {
    /// Whether the Request-URI stays as it is.
    pub fn keep_uri(&self) -> bool {
        self.strip == 0 && self.prefix.is_empty() && self.set_host.is_none()
    }

    /// Whether the header fields stay as they are.
    pub fn keep_headers(&self) -> bool {
        self.add_header.is_empty() && self.remove_header.is_empty()
    }

    /// What becomes of the Request-URI.
    pub fn dialling(&self) -> Dialling<'_> {
        Dialling { strip: self.strip, prefix: &self.prefix, host: self.set_host.as_deref() }
    }

    /// Whether this header field goes, in whatever form its name is written.
    pub fn removes(&self, header: &Header) -> bool {
        self.remove_header.iter().any(|name| match header.name {
            Name::Other => name.eq_ignore_ascii_case(header.raw_name),
            known => Name::parse(name) == known,
        })
    }
}

/// The host of a condition, read once.
#[derive(Clone, Debug, PartialEq)]
pub struct ToHost {
    text: Vec<u8>,
    ip: Option<IpAddr>,
}

impl From<Vec<u8>> for ToHost {
    fn from(text: Vec<u8>) -> ToHost {
        let ip = Host::of(&text).ip();
        ToHost { text, ip }
    }
}

impl ToHost {
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    pub fn host(&self) -> Host<'_> {
        match self.ip {
            Some(IpAddr::V4(ip)) => Host::V4(ip),
            Some(IpAddr::V6(ip)) => Host::V6(ip),
            None => Host::Name(&self.text),
        }
    }
}

impl Route {
    /// The next hops of a relaying route that names some.
    pub fn hops(&self) -> &[NextHop] {
        match &self.action {
            Action::Relay(hops) => hops,
            Action::Location | Action::Redirect(_) | Action::Reject(_) | Action::Drop => &[],
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub enum Action {
    /// Send to the first target; the others are tried in order when it fails. Without targets: to where the Request-URI says.
    Relay(Vec<NextHop>),
    /// Look the Request-URI up in the location service.
    #[default]
    Location,
    /// Answer 302 with these URIs, or with the registered contacts when there are none.
    Redirect(Vec<Vec<u8>>),
    /// Answer with this status.
    Reject(u16),
    /// Answer nothing.
    Drop,
}
