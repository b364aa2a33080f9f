//! Limits on a request beyond the rules of the RFC: routes that drop it, and the rate allowed for one address-of-record.

use crate::base::Flow;
use crate::sip::{Message, Method, Uri};
use crate::stack::condition::{Origin, meets};
use crate::stack::counters::{Drop, Limit};
use crate::stack::log_event::Subject;
use crate::stack::refusal::{Extra, Refusal};
use crate::stack::request::Request;
use crate::stack::route::Action;
use crate::stack::turn::Turn;

impl Turn<'_> {
    /// Returns whether the route that this request would take drops it. Checked before anything else is answered: a malformed
    /// request must not learn more than a well-formed one.
    pub fn is_dropped(&mut self, flow: Flow, message: &Message) -> bool {
        if !self.core.settings.routes.drop_some() {
            return false;
        }
        let settings = self.core.settings.clone();
        let request = self.preprocess_route(flow, message).ok();
        if request.is_some_and(|request| request.is_past_routes()) {
            return false;
        }
        let uri = request.map(|request| request.parsed);
        let uri = uri.or_else(|| message.uri().ok());
        let origin = Origin { ip: flow.peer.ip(), is_returned: self.core.is_returned(message) };
        let mut routes = settings.routes.iter();
        let route = routes.find(|route| meets(route, message, origin, uri.as_ref()));
        route.is_some_and(|route| route.action == Action::Drop)
    }

    /// Drops the request without an answer.
    pub fn drop_by_route(&mut self, message: &Message, flow: Flow) {
        self.core.counters.drop(Drop::Route);
        self.is_passed_over = true;
        self.log_event(Subject::of(message), message, flow, format_args!("dropped by a [[route]]"));
    }

    /// Refuses a new request for one of our users that exceeds the rate allowed per second.
    pub fn check_callee(&mut self, request: &Request) -> Result<(), Refusal> {
        let uri = &request.parsed;
        let is_user = uri.user.is_some_and(|user| !user.is_empty()) && self.core.is_own_uri(uri);
        match is_user && request.message.to_tag().is_none() && request.message.method() != Method::Register {
            true => self.check_aor(&request.message, request.flow, uri),
            false => Ok(()),
        }
    }

    /// The same for a REGISTER.
    pub fn check_registered(&mut self, message: &Message, flow: Flow) -> Result<(), Refusal> {
        if self.core.settings.limits.requests_per_aor == 0 {
            return Ok(());
        }
        let to = message.to().and_then(|to| Uri::parse(to.uri));
        match to {
            Ok(uri) => self.check_aor(message, flow, &uri),
            Err(_) => Ok(()),
        }
    }

    fn check_aor(&mut self, message: &Message, flow: Flow, uri: &Uri) -> Result<(), Refusal> {
        let limit = self.core.settings.limits.requests_per_aor;
        self.core.aor.clear();
        uri.write_address_of_record(&mut self.core.aor);
        if self.core.sources.admits_for(self.now, &self.core.aor, limit) {
            return Ok(());
        }
        let what = format_args!("answered 480: more than {limit} a second for one address ([limits] requests_per_aor)");
        self.log_event(Subject::of(message), message, flow, what);
        let refusal = Refusal::new(480, "Too Many Requests For This Address");
        Err(refusal.with(Extra::RetryAfter(1)).because_of(Limit::PerAor).logged())
    }
}
