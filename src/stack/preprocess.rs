//! Route information preprocessing (RFC 3261 §16.4): what the Request-URI and the Route values that name us say about a request.

use crate::base::{Flow, Transport};
use crate::sip::{Fault, Message, Method, Name, NameAddr, Scheme, Uri, Value};
use crate::stack::cookie::{self, Recorded, Verdict};
use crate::stack::hop_uri::transport_of;
use crate::stack::passage::Proof;
use crate::stack::refusal::Refusal;
use crate::stack::relay::RelayTokens;
use crate::stack::request::Request;
use crate::stack::turn::Turn;
use std::net::SocketAddr;

/// Maximum number of consecutive own Route values that are removed; there is no legitimate use for more than two.
pub(super) const MAX_OWN_ROUTES: usize = 4;

/// What our own URIs in a request have shown.
#[derive(Default)]
struct OwnUris<'a> {
    cookie: Option<Recorded<'a>>,
    /// One of them carries the cookie of another dialog or another side.
    is_misused: bool,
    /// The first behind it that another server wrote, or an earlier run of this one.
    beyond: Option<Value<'a>>,
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
        request.is_returned = self.core.is_returned(&message);
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
                self.judge_dialog(&recorded, own.beyond.or(request.next_route), request);
                Ok(())
            }
            // That server judges it.
            None if request.node.is_some() => {
                (request.trusted, request.proof) = (true, Proof::Dialog);
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
                    if uri.scheme == Scheme::Sip
                        && let Some(node) = self.node_of(&recorded)
                        && !self.is_done_without(request, &value, &recorded)
                    {
                        (request.next_route, request.node) = (Some(value), Some(node));
                        break;
                    }
                    if own.cookie.is_some_and(|first| !first.is_of_the_run_of(&recorded)) {
                        own.beyond = own.beyond.or(Some(value));
                    }
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
                Verdict::Foreign => {
                    if let (None, Some(flow)) = (request.relayed, self.relayed_flow(uri.user, &request.flow)?) {
                        request.relayed = Some(flow);
                    }
                }
            }
            request.own_routes += 1;
        }
        Ok(())
    }

    /// Returns whether the request finds its way without the server that wrote this Route value: another one behind it, which goes by our
    /// names as well, has the receiver, and only an INVITE or the like needs to know what has changed in the dialog. That server may have
    /// ended a moment ago, and a BYE or an ACK is not sent twice.
    #[cold]
    fn is_done_without(&mut self, request: &Request, value: &Value, recorded: &Recorded) -> bool {
        if !matches!(request.message.method(), Method::Bye | Method::Ack) {
            return false;
        }
        let message = request.message;
        let behind = message.values(Name::Route).skip_while(|other| other.span != value.span).skip(1);
        for other in behind.take(MAX_OWN_ROUTES) {
            let Some(uri) = NameAddr::parse(other.text).ok().and_then(|address| Uri::parse(address.uri).ok()) else {
                return false;
            };
            match self.core.is_own_uri(&uri).then(|| self.core.read_cookie(&message, &uri)) {
                Some(Verdict::Ours(other)) if !other.is_of_the_run_of(recorded) => return true,
                Some(Verdict::Ours(_)) => {}
                _ => return false,
            }
        }
        false
    }

    /// Returns where the living server takes requests that wrote this cookie, if it is another one. It alone reaches what came to it by a
    /// connection or from behind a NAT, and it alone knows what has changed in the dialog. If it is gone, we do what we can.
    #[inline]
    fn node_of(&self, recorded: &Recorded) -> Option<SocketAddr> {
        let cookies = &self.core.cookies;
        match cookies.is_of_this_run(recorded) || cookies.mask_of_predecessor(recorded).is_some() {
            true => None,
            false => self.core.location.shared()?.node_of_run(|run| recorded.is_of_run(run)),
        }
    }

    /// Returns the flow of ours that the user part of our own Route value names, if the request comes from a server that shares our
    /// table. A token that cannot be read is refused as a flow that is gone is: that server then passes the phone over.
    fn relayed_flow(&self, user: Option<&[u8]>, from: &Flow) -> Result<Option<Flow>, Refusal> {
        let (Some(shared), Some(token)) = (self.core.location.shared(), user.filter(|user| RelayTokens::is_like(user))) else {
            return Ok(None);
        };
        let own = shared.own();
        let by_others = || self.core.others.iter().find_map(|other| other.relay_tokens.read(&own, token));
        let flow = self.core.read_relay_token(&own, token).or_else(by_others);
        match (flow, shared.is_node_at(from.peer.ip())) {
            (flow @ Some(_), true) => Ok(flow),
            (None, true) => Err(Refusal::new(430, "")),
            // It has started a moment ago, or is no server of ours: the token alone is not enough.
            (Some(_), false) => Err(Refusal::new(480, "Server Not Known Here Yet")),
            (None, false) => Ok(None),
        }
    }
}

pub(super) fn bad(fault: Fault) -> Refusal {
    Refusal::new(400, fault.reason())
}
