//! Request processing (RFC 3261 §16.3 to §16.6): one function for each step, in the order of the text.

use super::target::{Target, TargetSet};
use crate::base::{Flow, Id, Instant, Outbox, Pool, ShareHolder, Transport};
use crate::sip::{Message, Method, Name, NameAddr, Scheme, Uri, Via, reply};
use crate::stack::Endpoint;
use crate::stack::branch;
use crate::stack::branch::Mark;
use crate::stack::condition::matches;
use crate::stack::cookie::{self, Verdict};
use crate::stack::counters::Limit;
use crate::stack::hop_uri::{is_sips, transport_of};
use crate::stack::location::Reached;
use crate::stack::passage::{Passed, Possible, Proof};
use crate::stack::peer_flows::{is_end_of, reply_flow};
use crate::stack::refusal::{Extra, Refusal};
use crate::stack::request::{DialogRoute, Request, span_of, unsupported};
use crate::stack::route::{Action, Route};
use crate::stack::settings::{InDialog, Mode, Outgoing, Settings};
use crate::stack::token::Side;
use crate::stack::transaction::Holders;

/// What §16.5 comes to.
pub(in crate::stack) enum Decision {
    /// Relay to the targets collected.
    Forward,
    /// The same, for a request within a dialog that shows none of ours.
    Astray,
    /// Answer with 302 and the targets collected.
    Redirect,
    /// The request is for this server itself.
    Options,
    Register,
    /// A route says that it gets no answer.
    Drop,
}

const ASTRAY: Refusal = Refusal::new(403, "Not On The Route Of The Dialog");

/// Consecutive own Route values that are taken off; more than two are nobody's honest work.
pub(super) const MAX_OWN_ROUTES: usize = 4;

impl Endpoint {
    /// A request other than ACK and CANCEL that belongs to no transaction yet.
    pub(in crate::stack) fn process_request(
        &mut self,
        now: Instant,
        flow: Flow,
        message: &Message,
        key: u128,
        outbox: &mut Outbox,
    ) -> Result<(), Refusal> {
        let (spiral, passed) = self.validate(flow, message, key)?;
        let mut incoming = self.preprocess_route(flow, message)?;
        (incoming.spiral, incoming.passed) = (spiral, passed);
        check_secure(&incoming)?;
        let mut targets = std::mem::take(&mut self.targets);
        targets.clear();
        let mut decision = self.determine_targets(now, message, &incoming, &mut targets);
        if let Ok(Decision::Drop) = decision {
            self.targets = targets;
            self.drop_by_route(message, flow);
            return Ok(());
        }
        // Who is not known learns nothing of who is there.
        let demand = self.demand(message, &incoming);
        if !matches!(decision, Ok(Decision::Register)) {
            decision = self.authenticate_calling(now, message, &mut incoming, demand).and(decision);
        }
        if !matches!(decision, Ok(Decision::Options | Decision::Register)) {
            decision = self.check_max_forwards(message).and(decision);
        }
        if let Ok(Decision::Astray) = decision {
            decision = self.check_astray(&incoming);
        }
        if self.settings.limits.requests_per_aor > 0 && decision.is_ok() {
            decision = self.check_callee(now, message, &incoming).and(decision);
        }
        if let Ok(Decision::Forward) = decision {
            incoming.proof = incoming.proof.max(passed.unwrap_or_default().proof);
            self.mark(message, &mut incoming);
            self.note_refresh(now, message, &incoming);
        }
        let result = match decision {
            Ok(Decision::Forward) if self.settings.proxy.mode == Mode::Stateless => {
                self.forward_stateless(message, &incoming, &targets, key, outbox);
                Ok(())
            }
            Ok(Decision::Forward) => self.forward_stateful(now, message, &incoming, key, &mut targets, outbox),
            // §8.3: never to the place that was asked for.
            Ok(Decision::Redirect) if !targets.keep_other_than(&incoming.parsed) => Err(Refusal::new(404, "Redirected To Itself")),
            Ok(Decision::Redirect) => {
                self.redirect(now, message, &incoming, key, &targets, outbox);
                Ok(())
            }
            Ok(Decision::Astray) => Err(ASTRAY),
            Ok(Decision::Options) => self.answer_options(message, flow, outbox),
            Ok(Decision::Drop) => Ok(()),
            Ok(Decision::Register) => self
                .authenticate_registering(now, message, &incoming, demand)
                .and_then(|()| self.check_registered(now, message, flow))
                .and_then(|()| self.register(now, message, &incoming, key, outbox)),
            Err(refusal) => Err(refusal),
        };
        self.targets = targets;
        result
    }

    // ---- §16.3 Request validation (step 1, the syntax, is `Message::check`) --------------------------------------------

    /// What [`Endpoint::check_loop`] says.
    fn validate(&mut self, flow: Flow, message: &Message, key: u128) -> Result<(bool, Option<Passed>), Refusal> {
        self.check_uri_scheme(message)?;
        let (spiral, passed) = self.check_loop(flow, message)?;
        self.check_drain(message, passed)?;
        self.check_overload(flow, message, passed, key)?;
        self.check_proxy_require(message)?;
        Ok((spiral, passed))
    }

    /// Step 2.
    fn check_uri_scheme(&self, message: &Message) -> Result<(), Refusal> {
        match message.uri().map(|uri| uri.scheme) {
            Ok(Scheme::Other) => Err(Refusal::new(416, "")),
            Ok(_) => Ok(()),
            Err(fault) => Err(Refusal::new(400, fault.reason())),
        }
    }

    /// Step 3. It forbids to forward, not to answer: it is asked once it is known that the request is not for this server itself.
    pub(in crate::stack) fn check_max_forwards(&self, message: &Message) -> Result<(), Refusal> {
        match message.max_forwards() {
            Ok(Some(0)) => Err(Refusal::new(483, "").because_of(Limit::MaxForwards)),
            _ => Ok(()),
        }
    }

    /// Step 4, as RFC 5393 §4.2.2 has it: a Via of ours whose second part says that nothing has changed since. Returned: whether there is
    /// a Via of ours at all, as in a spiral, and what the request had proved if it is the one for which that was written.
    pub(in crate::stack) fn check_loop(&mut self, flow: Flow, message: &Message) -> Result<(bool, Option<Passed>), Refusal> {
        let mut loop_hash = None;
        let mut possible = None;
        let mut passed: Option<Passed> = None;
        for (number, value) in message.values(Name::Via).enumerate() {
            if value.text.len() < branch::SHORTEST {
                continue;
            }
            let text = match number {
                0 => message.top_branch(),
                _ => Via::parse(value).ok().and_then(|via| via.branch()),
            };
            let Some(branch) = text.and_then(|text| self.signer.read(text)) else {
                continue;
            };
            let mark = branch.mark();
            let now = *loop_hash.get_or_insert_with(|| self.loop_hash(flow, message));
            if mark.loop_hash == now {
                return Err(Refusal::new(482, ""));
            }
            let possible = possible.get_or_insert_with(|| self.possible_passages(message));
            if let Some(now) = possible.passed(mark.passage) {
                let before = passed.unwrap_or_default();
                passed = Some(Passed {
                    proof: before.proof.max(now.proof),
                    named: before.named | now.named,
                });
            }
        }
        Ok((loop_hash.is_some(), passed))
    }

    /// What our Via would say of this request if it has passed here. In a dialog either side may have opened that.
    fn possible_passages(&mut self, message: &Message) -> Possible {
        let (identity, facts) = (self.identity, &mut self.facts);
        let dialogs = [Side::Caller, Side::Callee].map(|opener| identity.dialog(message, opener, facts).whole);
        let count = if message.to_tag().is_some() { 2 } else { 1 };
        let wall_ms = self.wall_ms + self.now.as_ms();
        self.passages.possible(message, &dialogs[..count], wall_ms)
    }

    /// A request within a dialog for one of our users that shows none of our routes: the conf says whether it is relayed where we stay on
    /// the path of dialogs. Whoever has proved its name may call that user anyway.
    pub(super) fn check_astray(&self, incoming: &Request) -> Result<Decision, Refusal> {
        let proxy = &self.settings.proxy;
        let is_refused = proxy.record_route
            && proxy.in_dialog_without_route == InDialog::Refuse
            && incoming.proof == Proof::None
            && incoming.passed.is_none_or(|passed| passed.proof != Proof::Credentials);
        match is_refused {
            true => Err(ASTRAY),
            false => Ok(Decision::Forward),
        }
    }

    /// Step 5: no extension that a proxy would have to understand is known to us.
    fn check_proxy_require(&self, message: &Message) -> Result<(), Refusal> {
        if unsupported(message, Name::ProxyRequire).next().is_some() {
            return Err(Refusal::new(420, "").with(Extra::Unsupported));
        }
        Ok(())
    }

    // ---- §16.4 Route information preprocessing -------------------------------------------------------------------------

    pub(in crate::stack) fn preprocess_route<'a>(&mut self, flow: Flow, message: &Message<'a>) -> Result<Request<'a>, Refusal> {
        let bad = |fault: crate::sip::Fault| Refusal::new(400, fault.reason());
        let via = message.top_via().map_err(bad)?;
        let uri = message.request_uri();
        let parsed = message.uri().map_err(bad)?;
        let mut incoming = Request {
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
            mark: Mark::default(),
        };
        if message.header(Name::Route).is_none() {
            return Ok(incoming);
        }
        let mut last = None;
        let mut shown = None;
        let mut misused = false;
        // A strict router has put us into the Request-URI: the real one is the last Route.
        if parsed.param(cookie::PARAM).is_some() && self.is_own_uri(&parsed) {
            last = message.values(Name::Route).last();
            if let Some(value) = last {
                let address = NameAddr::parse(value.text).map_err(bad)?;
                match self.read_cookie(message, &parsed) {
                    Verdict::Ours(recorded) => {
                        incoming.dialog.secure |= parsed.scheme == Scheme::Sips;
                        self.read_token(&recorded, &mut incoming.dialog);
                        shown = Some(recorded);
                    }
                    Verdict::Misused => misused = true,
                    Verdict::Foreign => {}
                }
                incoming.uri = address.uri;
                incoming.parsed = Uri::parse(address.uri).map_err(bad)?;
                incoming.from_strict_router = true;
            }
        }
        for value in message.values(Name::Route) {
            if last.is_some_and(|last| last.span == value.span) {
                break;
            }
            let address = NameAddr::parse(value.text).map_err(bad)?;
            let uri = Uri::parse(address.uri).map_err(bad)?;
            if incoming.own_routes == MAX_OWN_ROUTES || !self.is_own_uri(&uri) {
                incoming.next_route = Some(value);
                break;
            }
            let verdict = self.read_cookie(message, &uri);
            if let Verdict::Misused = verdict {
                misused = true;
            }
            if let Verdict::Ours(recorded) = verdict {
                if incoming.own_routes > 0 {
                    // RFC 5658 §3: the second of two is the side on which the request leaves.
                    let transport = transport_of(&uri).ok().flatten();
                    incoming.listener = self
                        .settings
                        .listener_named(transport.unwrap_or(Transport::Udp), uri.host_text, uri.port);
                }
                incoming.dialog.secure |= uri.scheme == Scheme::Sips;
                self.read_token(&recorded, &mut incoming.dialog);
                shown = shown.or(Some(recorded));
            }
            incoming.own_routes += 1;
        }
        match shown {
            Some(recorded) => self.judge_dialog(message, &recorded, &mut incoming),
            // Who can prove its name is heard as one who shows no cookie.
            None if misused && message.header(Name::ProxyAuthorization).is_none() => {
                return Err(Refusal::new(403, "Not Your Dialog"));
            }
            None => {}
        }
        Ok(incoming)
    }

    /// True when the URI names this server or one of its domains. One with a foreign `maddr` names that other place (§16.5).
    pub(in crate::stack) fn is_own_uri(&self, uri: &Uri) -> bool {
        let own = |host: &[u8], ip| self.settings.is_own(host, ip, uri.port);
        matches!(uri.scheme, Scheme::Sip | Scheme::Sips)
            && own(uri.host_text, uri.host.ip())
            && uri.maddr().is_none_or(|maddr| own(maddr, Settings::ip(maddr)))
    }

    /// Whether the request is inside a dialog that we let pass, and for another place than this: no route is looked at for it.
    pub(in crate::stack) fn is_past_routes(&self, incoming: &Request) -> bool {
        incoming.trusted && (incoming.next_route.is_some() || !self.is_own_uri(&incoming.parsed))
    }

    // ---- §16.5 Determining request targets -----------------------------------------------------------------------------

    pub(in crate::stack) fn determine_targets(
        &mut self,
        now: Instant,
        message: &Message,
        incoming: &Request,
        targets: &mut TargetSet,
    ) -> Result<Decision, Refusal> {
        let own = self.is_own_uri(&incoming.parsed);
        // Inside a dialog that we let pass: the remote target, by the route that is left.
        if incoming.trusted && (incoming.next_route.is_some() || !own) {
            let per_call = incoming.dialog.per_call;
            // Who opened the way is asked by it, unless another proxy stands between (RFC 5626 §5.3).
            let flow = match incoming.next_route {
                None => self.flow_of_dialog(message, incoming),
                Some(_) => None,
            };
            let target = self.push_request_uri(incoming, targets);
            target.per_call = per_call.unwrap_or(self.settings.outgoing == Outgoing::PerCall);
            target.flow = flow;
            return Ok(Decision::Forward);
        }
        let settings = self.settings.clone();
        let route = settings.routes.iter().find(|route| matches(route, message, incoming));
        if let Some(route) = route {
            let decision = self.follow_route(route, now, message, incoming, targets);
            let outgoing = route.outgoing.unwrap_or(settings.outgoing);
            targets.set_per_call(outgoing == Outgoing::PerCall);
            return decision;
        }
        if incoming.stranded && (incoming.next_route.is_some() || !own) {
            return Err(Refusal::new(403, "Not The Target Of The Dialog"));
        }
        // A Route set that is not ours would make us relay for a stranger.
        if incoming.next_route.is_some() {
            return Err(Refusal::new(403, "Route Not Permitted"));
        }
        if !own {
            return Err(Refusal::new(404, "Not Our Domain"));
        }
        let redirect = settings.proxy.redirect;
        let decision = self.locate(now, message, incoming, redirect, targets);
        targets.set_per_call(settings.outgoing == Outgoing::PerCall);
        decision
    }

    fn follow_route(
        &mut self,
        route: &Route,
        now: Instant,
        message: &Message,
        incoming: &Request,
        targets: &mut TargetSet,
    ) -> Result<Decision, Refusal> {
        match &route.action {
            Action::Relay(hops) => {
                if hops.is_empty() {
                    self.push_request_uri(incoming, targets).for_users = route.users_only;
                }
                for (number, hop) in hops.iter().enumerate() {
                    self.push_request_uri(incoming, targets).spare = number > 0;
                    targets.lead_to(hop);
                }
                Ok(Decision::Forward)
            }
            Action::Location => {
                let redirect = self.settings.proxy.redirect;
                self.locate(now, message, incoming, redirect, targets)
            }
            Action::Redirect(uris) => {
                for uri in uris {
                    targets.push(uri, b"", 1000);
                }
                if targets.targets.is_empty() {
                    self.locate(now, message, incoming, true, targets)?;
                }
                Ok(Decision::Redirect)
            }
            Action::Reject(status) => Err(Refusal::new(*status, "")),
            Action::Drop => Ok(Decision::Drop),
        }
    }

    /// The request is for our domain: for the server itself, for the registrar, or for one of its users.
    fn locate(
        &mut self,
        now: Instant,
        message: &Message,
        incoming: &Request,
        redirect: bool,
        targets: &mut TargetSet,
    ) -> Result<Decision, Refusal> {
        let named = incoming.parsed.user.is_some_and(|user| !user.is_empty());
        match message.method() {
            Method::Register if self.settings.registrar.enabled => return Ok(Decision::Register),
            Method::Register => return Err(Refusal::new(403, "No Registrar Here")),
            Method::Options if !named => return Ok(Decision::Options),
            // For the server itself, which is no more than proxy and registrar.
            Method::Other if !named => return Err(Refusal::new(501, "")),
            _ if !named => return Err(Refusal::new(404, "No User In Request-URI")),
            _ => {}
        }
        self.aor.clear();
        incoming.parsed.write_address_of_record(&mut self.aor);
        // A SIPS request must not leave for a SIP contact (RFC 5630 §5.3).
        let secure = incoming.parsed.scheme == Scheme::Sips;
        let (mut insecure, mut dead, mut back) = (0, 0, 0);
        // Targets, by position, whose connection is gone and whose contact is the end that the phone had of it.
        let mut doubtful = 0u64;
        let known = self.location.lookup(now, &self.aor, |binding| {
            if binding.leads_back {
                back += 1;
                return;
            }
            let text = binding.text();
            let sips = is_sips(text.uri);
            if secure && !sips {
                insecure += 1;
                return;
            }
            let source = binding.source();
            let alive = source.filter(|flow| self.ways.is_alive(flow));
            let flow = match binding.reached {
                Reached::ByContact => None,
                Reached::ByFlowFirst => {
                    if alive.is_none() && source.is_some_and(|flow| is_end_of(text.uri, &flow)) {
                        doubtful |= 1u64.checked_shl(targets.targets.len() as u32).unwrap_or(0);
                    }
                    alive
                }
                // The phone can be called again when it has registered by another connection.
                Reached::ByFlow if alive.is_none() && !redirect => {
                    dead += 1;
                    return;
                }
                Reached::ByFlow => alive,
            };
            // A SIP request stays one, but what has registered as secure is called by TLS (RFC 5630 §5.3).
            let target = match sips && !secure && !redirect {
                true => targets.push_sip(text.uri, text.path, binding.q),
                false => targets.push(text.uri, text.path, binding.q),
            };
            target.secure = sips;
            target.flow = flow;
            target.flow_only = binding.reached == Reached::ByFlow && !redirect;
            (target.listener, target.source) = (source.map(|flow| flow.listener), source.map(|flow| flow.peer));
            target.by_operator = source.is_none();
            target.is_unsure = binding.is_unsure;
        });
        // Nobody listens there, unless the phone has bound its port for both. Where another can be called, it is not tried.
        if doubtful != 0 && !redirect && (doubtful.count_ones() as usize) < targets.targets.len() {
            let mut position = 0u32;
            targets.targets.retain(|_| {
                position += 1;
                1u64.checked_shl(position - 1).is_none_or(|bit| doubtful & bit == 0)
            });
            dead += u64::from(doubtful.count_ones());
        }
        self.counters.dead_flows += dead;
        match (known, targets.targets.is_empty()) {
            (false, _) => Err(Refusal::new(404, "")),
            (true, true) if insecure > 0 => Err(Refusal::new(480, "").with(Extra::SipsNotAllowed)),
            (true, true) if back > 0 => Err(Refusal::new(480, "Contact Leads Back To Itself")),
            (true, true) => Err(Refusal::new(480, "")),
            (true, false) => {
                targets.sort_by_q();
                let is_within = message.to_tag().is_some() || message.method() == Method::Ack;
                let shows_dialog = incoming.trusted || incoming.stranded;
                Ok(match redirect {
                    _ if is_within && !shows_dialog => Decision::Astray,
                    true => Decision::Redirect,
                    false => Decision::Forward,
                })
            }
        }
    }

    // ---- §16.6 Request forwarding --------------------------------------------------------------------------------------

    fn forward_stateful(
        &mut self,
        now: Instant,
        message: &Message,
        incoming: &Request,
        key: u128,
        targets: &mut TargetSet,
        outbox: &mut Outbox,
    ) -> Result<(), Refusal> {
        let breadth = self.incoming_breadth(message);
        if breadth == 0 {
            return Err(Refusal::new(440, "").because_of(Limit::MaxBreadth));
        }
        // Serial search by breadth that comes back bounds how many branches there are at a time, not how many there will be: two
        // users that name each other would keep one request busy for ever. What has been here before gets each share once.
        if incoming.spiral && targets.targets.len() > breadth as usize {
            return Err(Refusal::new(440, "").because_of(Limit::MaxBreadth));
        }
        let holders = self.holders(incoming, targets);
        if let Some(limit) = self.transactions.is_full_for(holders) {
            return Err(too_much(limit));
        }
        let Some(request) = self.transactions.pool.store(span_of(message)) else {
            return Err(match span_of(message).len() > Pool::MAX {
                true => Refusal::new(513, ""),
                false => too_much(Limit::TransactionBytes),
            });
        };
        let mut context = self.spare_contexts.pop().unwrap_or_default();
        context.request = request;
        (context.holder, context.held_bytes) = (holders.source, span_of(message).len());
        self.transactions.hold_bytes(holders.source, context.held_bytes);
        context.source = Some(incoming.flow);
        context.breadth = breadth;
        context.spiral = incoming.spiral;
        context.unproved_room = self.room_for_strangers(message, incoming, breadth);
        (context.mark, context.opening) = (incoming.mark, incoming.opening);
        std::mem::swap(&mut context.targets, targets);

        let invite = message.method() == Method::Invite;
        if invite && !self.transactions.refused.is_empty() && message.to_tag().is_some() {
            let key = self.identity.invite(message);
            self.transactions.refused.forget(key);
        }
        let upstream = reply_flow(incoming.flow, &incoming.via);
        let server = self.transactions.open_server(now, invite, key, upstream);
        self.transactions.hold(server, holders);
        if let Some(room) = self.room_for_answers(message, &upstream) {
            self.transactions.bound_answers(server, room);
        }
        if incoming.via.offers_control()
            && let Some(server) = self.transactions.server_mut(server)
        {
            server.offers_control = true;
        }
        if invite {
            self.send_trying(now, server, message, incoming.flow, outbox);
        }
        self.start_branches(now, server, &mut context, message, incoming, outbox);
        let finished = context.is_idle();
        let id = self.contexts.insert(context);
        if let Some(server) = self.transactions.server_mut(server) {
            server.context = Some(id);
        }
        if finished {
            self.finish(now, server, outbox);
        }
        Ok(())
    }

    /// Whose share this request takes: that of where it came from, and where a user's bindings are called, that user's.
    pub(super) fn holders(&self, incoming: &Request, targets: &TargetSet) -> Holders {
        let ip = incoming.flow.peer.ip();
        let shares = &self.transactions.shares;
        let is_bound = targets
            .targets
            .first()
            .is_some_and(|target| target.source.is_some() || target.by_operator);
        Holders {
            source: match self.settings.is_trusted(ip) {
                true => ShareHolder::NOBODY,
                false => shares.of_source(ip),
            },
            aor: match is_bound {
                true => shares.of_name(&self.aor),
                false => ShareHolder::NOBODY,
            },
        }
    }

    /// §16.2, §17.2.1: 100 at once.
    pub(in crate::stack) fn send_trying(&mut self, now: Instant, server: Id, message: &Message, source: Flow, outbox: &mut Outbox) {
        let trying = reply::Reply {
            status: 100,
            received: Some(source.peer),
            feedback: Some(self.feedback()),
            ..reply::Reply::default()
        };
        self.transactions.respond(now, server, 100, outbox, |out| {
            reply::write(message, &trying, |_| (), out);
        });
    }

    /// The Request-URI as a target. Where `maddr` names us, and the request came by the port and transport that the URI names,
    /// those three are no more than our own address, and go (§16.4).
    fn push_request_uri<'t>(&self, incoming: &Request, targets: &'t mut TargetSet) -> &'t mut Target {
        let uri = &incoming.parsed;
        let strip = uri.maddr().is_some_and(|maddr| self.is_own_maddr(maddr, incoming));
        match strip {
            true => targets.push_without_maddr(uri),
            false => targets.push(incoming.uri, b"", 1000),
        }
    }

    fn is_own_maddr(&self, maddr: &[u8], incoming: &Request) -> bool {
        let uri = &incoming.parsed;
        let by = incoming.flow.transport;
        let listener = self.settings.listeners.get(usize::from(incoming.flow.listener));
        let port = uri.port.unwrap_or(by.default_port());
        transport_of(uri).is_ok_and(|named| named.unwrap_or(Transport::Udp) == by)
            && listener.is_some_and(|listener| listener.address.port() == port)
            && self.settings.is_own(maddr, Settings::ip(maddr), None)
    }

    fn answer_options(&mut self, message: &Message, flow: Flow, outbox: &mut Outbox) -> Result<(), Refusal> {
        if unsupported(message, Name::Require).next().is_some() {
            return Err(Refusal::new(420, "").with(Extra::Unsupported));
        }
        self.answer(message, flow, 200, "", outbox, |out| {
            out.extend_from_slice(
                b"Allow: INVITE, ACK, BYE, CANCEL, REGISTER, OPTIONS, PRACK, UPDATE, INFO, REFER, SUBSCRIBE, NOTIFY, \
                  MESSAGE, PUBLISH\r\nAccept: */*\r\nAccept-Encoding: identity\r\nAccept-Language: en\r\nSupported: path\r\n",
            );
        });
        Ok(())
    }
}

/// A SIPS request has come over TLS on every hop, or it is none (RFC 5630 §3.1.3, §5.3): the rule is the same for every method, an ACK and a
/// CANCEL without a transaction too. But for a dialog in which our own Route says `sip:`. It began with a SIP request, so nobody was promised TLS
/// on this side of us; the other side has given a SIPS contact all the same, and who talks to it must be able to hang up. From here on the request
/// goes by TLS.
pub(super) fn check_secure(incoming: &Request) -> Result<(), Refusal> {
    let is_plain = incoming.flow.transport != Transport::Tls;
    let in_plain_dialog = incoming.trusted && !incoming.dialog.secure;
    match incoming.parsed.scheme {
        Scheme::Sips if is_plain && !in_plain_dialog => Err(Refusal::new(400, "SIPS Request Not Over TLS")),
        _ => Ok(()),
    }
}

/// There is no room for another transaction.
fn too_much(limit: Limit) -> Refusal {
    let reason = match limit {
        Limit::TransactionBytes => "Transactions Hold Too Much TagKind",
        Limit::TransactionsOfSource => "Too Many Transactions Of One Source",
        Limit::TransactionsOfAor => "Too Many Transactions For One Address",
        _ => "Too Many Transactions",
    };
    let refusal = Refusal::new(503, reason).with(Extra::RetryAfter(5));
    refusal.because_of(limit)
}
