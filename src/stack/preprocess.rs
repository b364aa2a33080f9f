//! Route information preprocessing (RFC 3261 §16.4): what the Request-URI and the Route values that name us say of a request.

use crate::base::{Flow, Transport};
use crate::sip::{Message, Name, NameAddr, Scheme, Uri};
use crate::stack::auth::demand::Demand;
use crate::stack::branch::Mark;
use crate::stack::cookie::{self, Verdict};
use crate::stack::hop_uri::transport_of;
use crate::stack::passage::Proof;
use crate::stack::refusal::Refusal;
use crate::stack::request::{DialogRoute, Request};
use crate::stack::turn::Turn;

/// Consecutive own Route values that are taken off; more than two are nobody's honest work.
pub(super) const MAX_OWN_ROUTES: usize = 4;

impl Turn<'_> {
    pub fn preprocess_route<'a>(&mut self, flow: Flow, message: &Message<'a>) -> Result<Request<'a>, Refusal> {
        let bad = |fault: crate::sip::Fault| Refusal::new(400, fault.reason());
        let via = message.top_via().map_err(bad)?;
        let uri = message.request_uri();
        let parsed = message.uri().map_err(bad)?;
        let mut request = Request {
            message: *message,
            key: 0,
            flow,
            via,
            uri,
            parsed,
            from_strict_router: false,
            own_routes: 0,
            next_route: None,
            listener: None,
            dialog: DialogRoute::default(),
            spiral: false,
            passed: None,
            proof: Proof::None,
            trusted: false,
            stranded: false,
            renamed: false,
            shown: None,
            opening: None,
            demand: Demand::Nothing,
            mark: Mark::default(),
        };
        if message.header(Name::Route).is_none() {
            return Ok(request);
        }
        let mut last = None;
        let mut shown = None;
        let mut misused = false;
        // A strict router has put us into the Request-URI: the real one is the last Route.
        if parsed.param(cookie::PARAM).is_some() && self.core.is_own_uri(&parsed) {
            last = message.values(Name::Route).last();
            if let Some(value) = last {
                let address = NameAddr::parse(value.text).map_err(bad)?;
                match self.core.read_cookie(message, &parsed) {
                    Verdict::Ours(recorded) => {
                        request.dialog.secure |= parsed.scheme == Scheme::Sips;
                        self.read_token(&recorded, &mut request.dialog);
                        shown = Some(recorded);
                    }
                    Verdict::Misused => misused = true,
                    Verdict::Foreign => {}
                }
                request.uri = address.uri;
                request.parsed = Uri::parse(address.uri).map_err(bad)?;
                request.from_strict_router = true;
            }
        }
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
            let verdict = self.core.read_cookie(message, &uri);
            if let Verdict::Misused = verdict {
                misused = true;
            }
            if let Verdict::Ours(recorded) = verdict {
                if request.own_routes > 0 {
                    // RFC 5658 §3: the second of two is the side on which the request leaves.
                    let transport = transport_of(&uri).ok().flatten();
                    request.listener =
                        self.core
                            .settings
                            .listener_named(transport.unwrap_or(Transport::Udp), uri.host_text, uri.port);
                }
                request.dialog.secure |= uri.scheme == Scheme::Sips;
                self.read_token(&recorded, &mut request.dialog);
                shown = shown.or(Some(recorded));
            }
            request.own_routes += 1;
        }
        match shown {
            Some(recorded) => self.judge_dialog(&recorded, &mut request),
            // Who can prove its name is heard as one who shows no cookie.
            None if misused && message.header(Name::ProxyAuthorization).is_none() => {
                return Err(Refusal::new(403, "Not Your Dialog"));
            }
            None => {}
        }
        Ok(request)
    }
}
