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

/// All routes in the order of the conf, with what they need to know about a message determined once.
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
    /// Changes the routes.
    pub fn change(&mut self, change: impl FnOnce(&mut Vec<Route>)) {
        let mut routes = std::mem::take(&mut self.routes);
        change(&mut routes);
        *self = routes.into();
    }

    /// Returns whether any route drops requests.
    pub fn drop_some(&self) -> bool {
        self.drop_some
    }

    /// Returns whether any route says whose identity must or need not be proved.
    pub fn have_a_say(&self) -> bool {
        self.have_a_say
    }

    /// Returns whether any route demands credentials, whatever `[auth]` says.
    pub fn challenge_some(&self) -> bool {
        self.challenge_some
    }

    /// Returns whether any route has next hops that are for our users only.
    pub fn guard_some(&self) -> bool {
        self.guard_some
    }

    /// Returns whether any route depends on a request's source.
    pub fn look_at_source(&self) -> bool {
        self.look_at_source
    }

    /// Returns every next hop.
    pub fn hops(&self) -> impl Iterator<Item = &NextHop> {
        self.iter().flat_map(Route::hops)
    }
}

/// One `[[route]]`. All given conditions must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Route {
    /// Upper-case method names; empty: any.
    pub methods: Vec<Vec<u8>>,
    /// Networks in CIDR form; empty: any source.
    pub from_source: Vec<Network>,
    /// Host of the Request-URI, lower-case.
    pub to_host: Option<ToHost>,
    pub to_user_prefix: Option<Vec<u8>>,
    /// Substrings of the User-Agent, lower-case, one of which must match; empty: any User-Agent, or none.
    pub user_agent: Vec<Vec<u8>>,
    pub action: Action,
    /// How connections are made for requests that take this route; `None`: the server's default.
    pub outgoing: Option<Outgoing>,
    /// Whether our own users must authenticate to take this route; `None`: as `[auth]` says.
    pub challenge: Option<bool>,
    /// Whether only our own, authenticated users may take this route.
    pub users_only: bool,
    /// The proportion of requests for each target, by position; empty: the first gets all while it is healthy.
    pub weights: Vec<u16>,
    /// Final responses of a target after which the next one is tried; no response and a lost connection always count.
    pub failover: Statuses,
    /// How long a target may stay silent before the next one is tried; `None`: as `[next_hop]` says.
    pub patience: Option<Millis>,
    /// The interval at which each target is probed by an OPTIONS; `None`: never.
    pub probe: Option<Millis>,
    /// Changes to the requests that take this route.
    pub edits: Arc<Edits>,
    /// The carrier account that it leads to.
    pub trunk: Option<Arc<Trunk>>,
}

/// A set of final responses other than 2xx; by default only 503. A request in progress keeps its route's set when the conf changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statuses(Option<Arc<[(u16, u16)]>>);

impl Statuses {
    /// Creates the set from ranges, ends included.
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

/// What a relaying route changes in a request beyond what every proxy does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edits {
    /// Characters removed from the start of the Request-URI's user part, and what is then prepended.
    pub strip: usize,
    pub prefix: Vec<u8>,
    /// Replacement for the Request-URI's host and port.
    pub set_host: Option<Vec<u8>>,
    /// Header lines with their line ends, as sent.
    pub add_header: Vec<u8>,
    /// Names of header fields, lower-case.
    pub remove_header: Vec<Vec<u8>>,
}

impl Edits {
    /// Returns whether the Request-URI is unchanged.
    pub fn keep_uri(&self) -> bool {
        self.strip == 0 && self.prefix.is_empty() && self.set_host.is_none()
    }

    /// Returns whether the header fields are unchanged.
    pub fn keep_headers(&self) -> bool {
        self.add_header.is_empty() && self.remove_header.is_empty()
    }

    /// Returns how the Request-URI is changed.
    pub fn dialling(&self) -> Dialling<'_> {
        Dialling { strip: self.strip, prefix: &self.prefix, host: self.set_host.as_deref() }
    }

    /// Returns whether this header field is removed, in any form of its name.
    pub fn removes(&self, header: &Header) -> bool {
        self.remove_header.iter().any(|name| match header.name {
            Name::Other => name.eq_ignore_ascii_case(header.raw_name),
            known => Name::parse(name) == known,
        })
    }
}

/// The host of a condition, parsed once.
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
    /// Returns the next hops if this is a relaying route that names any.
    pub fn hops(&self) -> &[NextHop] {
        match &self.action {
            Action::Relay(hops) => hops,
            Action::Location | Action::Redirect(_) | Action::Reject(_) | Action::Drop => &[],
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub enum Action {
    /// Send to the first target; if it fails, the others are tried in order. Without targets: to where the Request-URI says.
    Relay(Vec<NextHop>),
    /// Look the Request-URI up in the location service.
    #[default]
    Location,
    /// Answer 302 with these URIs, or with the registered contacts if there are none.
    Redirect(Vec<Vec<u8>>),
    /// Answer with this status.
    Reject(u16),
    /// Do not answer.
    Drop,
}
