//! Route information preprocessing (RFC 3261 §16.4): what the Request-URI and the Route values that name us say about a request.

use crate::base::{Flow, Transport};
use crate::sip::{Fault, Message, Name, NameAddr, Scheme, Uri, Value};
use crate::stack::cookie::{self, Recorded, Verdict};
use crate::stack::hop_uri::transport_of;
use crate::stack::refusal::Refusal;
use crate::stack::request::Request;
use crate::stack::turn::Turn;

/// Maximum number of consecutive own Route values that are removed; there is no legitimate use for more than two.
pub(super) const MAX_OWN_ROUTES: usize = 4;

/// What our own URIs in a request have shown.
#[derive(Default)]
struct OwnUris<'a> {
    cookie: Option<Recorded<'a>>,
    /// One of them carries the cookie of another dialog or another side.
    is_misused: bool,
}

impl Turn<'_> {
    /// Reads a request as it came on `flow`, up to what its Route says.
    pub fn preprocess_route<'a>(&mut self, flow: Flow, message: &Message<'a>) -> Result<Request<'a>, Refusal> {
        let via = message.top_via().map_err(bad)?;
        let mut request = Request::new(flow, message, &via).map_err(bad)?;
        self.take_routes(&mut request)?;
        Ok(request)
    }

    /// The same for a request whose Via was read before. In place, because a request is large.
    pub fn take_routes(&mut self, request: &mut Request) -> Result<(), Refusal> {
        let message = request.message;
        if !message.has(Name::Route) {
            request.is_own = self.core.is_own_uri(&request.parsed);
            return Ok(());
        }
        let mut own = OwnUris::default();
        let last = self.take_strict_route(request, &mut own)?;
        request.is_own = self.core.is_own_uri(&request.parsed);
        self.take_own_routes(request, last, &mut own)?;
        match own.cookie {
            Some(recorded) => {
                self.judge_dialog(&recorded, request);
                Ok(())
            }
            // A sender that can prove its name is treated like one that shows no cookie.
            None if own.is_misused && !message.has(Name::ProxyAuthorization) => Err(Refusal::new(403, "Not Your Dialog")),
            None => Ok(()),
        }
    }

    /// If a strict router has put us into the Request-URI, the real one is the last Route, which is returned.
    fn take_strict_route<'a>(&mut self, request: &mut Request<'a>, own: &mut OwnUris<'a>) -> Result<Option<Value<'a>>, Refusal> {
        let parsed = request.parsed;
        if parsed.param(cookie::PARAM).is_none() || !self.core.is_own_uri(&parsed) {
            return Ok(None);
        }
        let Some(last) = request.message.values(Name::Route).last() else {
            return Ok(None);
        };
        let address = NameAddr::parse(last.text).map_err(bad)?;
        match self.core.read_cookie(&request.message, &parsed) {
            Verdict::Ours(recorded) => {
                request.dialog.secure |= parsed.scheme == Scheme::Sips;
                self.read_token(&recorded, &mut request.dialog);
                own.cookie = Some(recorded);
            }
            Verdict::Misused => own.is_misused = true,
            Verdict::Foreign => {}
        }
        request.uri = address.uri;
        request.parsed = Uri::parse(address.uri).map_err(bad)?;
        request.from_strict_router = true;
        Ok(Some(last))
    }

    /// Takes the leading Route values that name us, up to the one that has become the Request-URI.
    fn take_own_routes<'a>(
        &mut self,
        request: &mut Request<'a>,
        last: Option<Value<'a>>,
        own: &mut OwnUris<'a>,
    ) -> Result<(), Refusal> {
        let message = request.message;
        for value in message.values(Name::Route) {
            if last.is_some_and(|last| last.span == value.span) {
                break;
            }
            let address = NameAddr::parse(value.text).map_err(bad)?;
            let uri = Uri::parse(address.uri).map_err(bad)?;
            if request.own_routes == MAX_OWN_ROUTES || !self.core.is_own_uri(&uri) {
                request.next_route = Some(value);
                break;
            }
            match self.core.read_cookie(&message, &uri) {
                Verdict::Ours(recorded) => {
                    if request.own_routes > 0 {
                        // RFC 5658 §3: the second of two is the side that the request leaves by.
                        let transport = transport_of(&uri).ok().flatten().unwrap_or(Transport::Udp);
                        let settings = &self.core.settings;
                        request.listener = settings.listener_named(transport, uri.host_text, uri.port);
                    }
                    request.dialog.secure |= uri.scheme == Scheme::Sips;
                    self.read_token(&recorded, &mut request.dialog);
                    own.cookie = own.cookie.or(Some(recorded));
                }
                Verdict::Misused => own.is_misused = true,
                Verdict::Foreign => request.relayed = request.relayed.or_else(|| self.relayed_flow(uri.user, &request.flow)),
            }
            request.own_routes += 1;
        }
        Ok(())
    }

    /// Returns the flow of ours that the user part of our own Route value names, if the request comes from a server that shares our
    /// table.
    fn relayed_flow(&self, user: Option<&[u8]>, from: &Flow) -> Option<Flow> {
        let (shared, token) = (self.core.location.shared()?, user?);
        match shared.is_node_at(from.peer.ip()) {
            true => self.core.read_relay_token(&shared.own(), token),
            false => None,
        }
    }
}

pub(super) fn bad(fault: Fault) -> Refusal {
    Refusal::new(400, fault.reason())
}
