//! Request processing (RFC 3261 §16.3 to §16.6): one function for each step, in the order of the text.

use super::context::Context;
use super::redirect;
use super::target::{Target, TargetSet};
use super::{Extra, Incoming, Refusal};
use crate::base::hash::{read_hex, write_decimal};
use crate::base::{Flow, Id, Instant, Outbox, Transport};
use crate::sip::{Message, Method, Name, NameAddr, Scheme, Uri, Value, Via, fill_received, reply};
use crate::stack::Endpoint;
use crate::stack::branch;
use crate::stack::counters::{Drop, Limit};
use crate::stack::identity::COOKIE_PARAM;
use crate::stack::route::{Action, Route};
use crate::stack::settings::{Fork, Mode, Settings};
use crate::stack::transaction::ClientKind;
use std::net::SocketAddr;

/// What §16.5 comes to.
pub(in crate::stack) enum Decision {
    /// Relay to the targets collected.
    Forward,
    /// Answer with 302 and the targets collected.
    Redirect,
    /// The request is for this server itself.
    Options,
    Register,
}

/// The largest payload of a UDP datagram over IPv4.
const MAX_DATAGRAM: usize = 65_507;

/// Consecutive own Route values that are taken off; more than two are nobody's honest work.
const MAX_OWN_ROUTES: usize = 4;

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
        let spiral = self.validate(flow, message)?;
        let mut incoming = self.preprocess_route(flow, message)?;
        incoming.spiral = spiral;
        let mut targets = std::mem::take(&mut self.targets);
        targets.clear();
        let mut decision = self.determine_targets(now, message, &incoming, &mut targets);
        if !matches!(decision, Ok(Decision::Options | Decision::Register)) {
            decision = self.check_max_forwards(message).and(decision);
        }
        let result = match decision {
            Ok(Decision::Forward) if self.settings.proxy.mode == Mode::Stateless => {
                self.forward_stateless(message, &incoming, &targets, key, outbox);
                Ok(())
            }
            Ok(Decision::Forward) => {
                self.forward_stateful(now, message, &incoming, key, &mut targets, outbox)
            }
            // §8.3: never to the place that was asked for.
            Ok(Decision::Redirect) if !targets.keep_other_than(&incoming.parsed) => {
                Err(Refusal::new(404, "Redirected To Itself"))
            }
            Ok(Decision::Redirect) => {
                self.answer(message, flow, 302, "", outbox, |out| {
                    redirect::write_contacts(&targets, out);
                });
                Ok(())
            }
            Ok(Decision::Options) => self.answer_options(message, flow, outbox),
            Ok(Decision::Register) => self.register(now, message, &incoming, key, outbox),
            Err(refusal) => Err(refusal),
        };
        self.targets = targets;
        result
    }

    // ---- §16.3 Request validation (step 1, the syntax, is `Message::check`) --------------------------------------------

    /// True when the request is a spiral.
    fn validate(&self, flow: Flow, message: &Message) -> Result<bool, Refusal> {
        self.check_uri_scheme(message)?;
        let spiral = self.check_loop(flow, message)?;
        self.check_proxy_require(message)?;
        Ok(spiral)
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

    /// Step 4, as RFC 5393 §4.2.2 has it: a Via of ours whose second part says that nothing has changed since. True when the
    /// request has been here and has changed: a spiral.
    fn check_loop(&self, flow: Flow, message: &Message) -> Result<bool, Refusal> {
        let mut loop_hash = None;
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
            let now = *loop_hash.get_or_insert_with(|| self.loop_hash(flow, message));
            if branch.loop_hash() == now {
                return Err(Refusal::new(482, ""));
            }
        }
        Ok(loop_hash.is_some())
    }

    /// The hash over all that decides the way: of the source too, where a route asks for it.
    pub(in crate::stack) fn loop_hash(&self, flow: Flow, message: &Message) -> u64 {
        let by_source = |route: &Route| !route.from_source.is_empty();
        let source = self.settings.routes.iter().any(by_source);
        self.identity
            .loop_hash(message, source.then(|| flow.peer.ip()))
    }

    /// Step 5: no extension that a proxy would have to understand is known to us.
    fn check_proxy_require(&self, message: &Message) -> Result<(), Refusal> {
        if unsupported(message, Name::ProxyRequire).next().is_some() {
            return Err(Refusal::new(420, "").with(Extra::Unsupported));
        }
        Ok(())
    }

    // ---- §16.4 Route information preprocessing -------------------------------------------------------------------------

    pub(in crate::stack) fn preprocess_route<'a>(
        &self,
        flow: Flow,
        message: &Message<'a>,
    ) -> Result<Incoming<'a>, Refusal> {
        let bad = |fault: crate::sip::Fault| Refusal::new(400, fault.reason());
        let via = message.top_via().map_err(bad)?;
        let uri = message.request_uri();
        let parsed = message.uri().map_err(bad)?;
        let mut incoming = Incoming {
            flow,
            via,
            uri,
            parsed,
            from_strict_router: false,
            own_routes: 0,
            next_route: None,
            listener: None,
            spiral: false,
            trusted: false,
        };
        if message.header(Name::Route).is_none() {
            return Ok(incoming);
        }
        let mut last = None;
        // A strict router has put us into the Request-URI: the real one is the last Route.
        if parsed.param(COOKIE_PARAM).is_some() && self.is_own_uri(&parsed) {
            last = message.values(Name::Route).last();
            if let Some(value) = last {
                let address = NameAddr::parse(value.text).map_err(bad)?;
                incoming.trusted = self.identity.has_cookie(message, &parsed);
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
            let recorded = self.identity.has_cookie(message, &uri);
            if recorded && incoming.own_routes > 0 {
                // RFC 5658 §3: the second of two is the side on which the request leaves.
                incoming.listener = self.settings.listener_named(uri.host_text, uri.port);
            }
            incoming.trusted |= recorded;
            incoming.own_routes += 1;
        }
        Ok(incoming)
    }

    /// True when the URI names this server or one of its domains. One with a foreign `maddr` names that other place (§16.5).
    pub(in crate::stack) fn is_own_uri(&self, uri: &Uri) -> bool {
        let own = |host: &[u8], ip| self.settings.is_own(host, ip, uri.port);
        matches!(uri.scheme, Scheme::Sip | Scheme::Sips)
            && own(uri.host_text, uri.host.ip())
            && uri
                .maddr()
                .is_none_or(|maddr| own(maddr, Settings::ip(maddr)))
    }

    // ---- §16.5 Determining request targets -----------------------------------------------------------------------------

    pub(in crate::stack) fn determine_targets(
        &mut self,
        now: Instant,
        message: &Message,
        incoming: &Incoming,
        targets: &mut TargetSet,
    ) -> Result<Decision, Refusal> {
        let own = self.is_own_uri(&incoming.parsed);
        // Inside a dialog that we let pass: the remote target, by the route that is left.
        if incoming.trusted && (incoming.next_route.is_some() || !own) {
            targets.push(incoming.uri, b"", 1000);
            return Ok(Decision::Forward);
        }
        let settings = self.settings.clone();
        let route = settings
            .routes
            .iter()
            .find(|route| matches(route, message, incoming));
        if let Some(route) = route {
            return self.follow_route(&route.action, now, message, incoming, targets);
        }
        // A Route set that is not ours would make us relay for a stranger.
        if incoming.next_route.is_some() {
            return Err(Refusal::new(403, "Route Not Permitted"));
        }
        if !own {
            return Err(Refusal::new(404, "Not Our Domain"));
        }
        self.locate(now, message, incoming, targets)
    }

    fn follow_route(
        &mut self,
        action: &Action,
        now: Instant,
        message: &Message,
        incoming: &Incoming,
        targets: &mut TargetSet,
    ) -> Result<Decision, Refusal> {
        match action {
            Action::Relay(hops) => {
                if hops.is_empty() {
                    targets.push(incoming.uri, b"", 1000);
                }
                for (number, hop) in hops.iter().enumerate() {
                    let target = targets.push(incoming.uri, b"", 1000);
                    target.hop = Some(hop.address);
                    target.spare = number > 0;
                }
                Ok(Decision::Forward)
            }
            Action::Location => self.locate(now, message, incoming, targets),
            Action::Redirect(uris) => {
                for uri in uris {
                    targets.push(uri, b"", 1000);
                }
                if targets.targets.is_empty() {
                    self.locate(now, message, incoming, targets)?;
                }
                Ok(Decision::Redirect)
            }
            Action::Reject(status) => Err(Refusal::new(*status, "")),
        }
    }

    /// The request is for our domain: for the server itself, for the registrar, or for one of its users.
    fn locate(
        &mut self,
        now: Instant,
        message: &Message,
        incoming: &Incoming,
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
        let known = self.location.lookup(now, &self.aor, |binding| {
            let text = binding.text();
            if secure && !is_sips(text.uri) {
                return;
            }
            let target = targets.push(text.uri, text.path, binding.q);
            target.flow = binding.source.filter(|_| binding.behind_nat);
            target.listener = binding.source.map(|flow| flow.listener);
        });
        match (known, targets.targets.is_empty()) {
            (false, _) => Err(Refusal::new(404, "")),
            (true, true) => Err(Refusal::new(480, "")),
            (true, false) => {
                targets.sort_by_q();
                Ok(match self.settings.proxy.redirect {
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
        incoming: &Incoming,
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
        if self.transactions.is_full() {
            let busy = Refusal::new(503, "Too Many Transactions").with(Extra::RetryAfter(5));
            return Err(busy.because_of(Limit::Transactions));
        }
        let Some(request) = self.transactions.pool.store(span_of(message)) else {
            return Err(Refusal::new(513, ""));
        };
        let mut context = self.spare_contexts.pop().unwrap_or_default();
        context.request = request;
        context.source = Some(incoming.flow);
        context.breadth = breadth;
        context.spiral = incoming.spiral;
        std::mem::swap(&mut context.targets, targets);

        let invite = message.method() == Method::Invite;
        let upstream = reply_flow(incoming.flow, &incoming.via);
        let server = self.transactions.open_server(now, invite, key, upstream);
        if invite {
            self.send_trying(now, server, message, incoming.flow, outbox);
        }
        self.start_branches(now, server, &mut context, message, incoming, outbox);
        let finished = context.branches.is_empty();
        let id = self.contexts.insert(context);
        if let Some(server) = self.transactions.server_mut(server) {
            server.context = Some(id);
        }
        if finished {
            self.finish(now, server, outbox);
        }
        Ok(())
    }

    /// §16.2, §17.2.1: 100 at once.
    pub(in crate::stack) fn send_trying(
        &mut self,
        now: Instant,
        server: Id,
        message: &Message,
        source: Flow,
        outbox: &mut Outbox,
    ) {
        let trying = reply::Reply {
            status: 100,
            received: Some(source.peer),
            ..reply::Reply::default()
        };
        self.transactions.respond(now, server, 100, outbox, |out| {
            reply::write(message, &trying, |_| (), out);
        });
    }

    /// Starts what may run now: in parallel mode all targets, in sequential mode those of the next q, a spare next hop only
    /// when the one before it has failed, and never more at once than Max-Breadth allows (RFC 5393 §5.3.3).
    pub(in crate::stack) fn start_branches(
        &mut self,
        now: Instant,
        server: Id,
        context: &mut Context,
        message: &Message,
        incoming: &Incoming,
        outbox: &mut Outbox,
    ) {
        while !context.closed && context.next_target < context.targets.targets.len() {
            let group = self.next_group(context);
            let allowed = group.min(context.breadth as usize);
            if allowed == 0 {
                return;
            }
            if allowed < group {
                self.counters.hit(Limit::MaxBreadth);
            }
            let mut started = 0;
            for place in 0..allowed {
                let target = context.targets.targets[context.next_target];
                context.next_target += 1;
                let sharers = match context.spiral {
                    true => context.targets.targets.len() + 1 - context.next_target,
                    false => allowed - place,
                };
                let share = context.breadth / sharers as u32;
                let branch = self.forward(
                    now, server, context, message, incoming, &target, share, outbox,
                );
                match branch {
                    Ok(id) => {
                        context.branches.push(id);
                        context.breadth -= share;
                        started += 1;
                    }
                    // §16.9: a target that cannot be reached is a 503 of its own; what is too long for it, a 513.
                    Err(refusal) => {
                        log::info!(
                            "branch to {} not started: {}",
                            String::from_utf8_lossy(context.targets.get(target.uri)),
                            refusal.reason
                        );
                        self.note_failure(context, refusal.status);
                    }
                }
            }
            if started > 0 {
                return;
            }
        }
    }

    /// How many of the targets that are left may run side by side with what runs.
    fn next_group(&self, context: &Context) -> usize {
        let rest = &context.targets.targets[context.next_target..];
        let Some(first) = rest.first() else {
            return 0;
        };
        let sequential = self.settings.proxy.fork == Fork::Sequential;
        let together = rest
            .iter()
            .take_while(|target| !target.spare && (!sequential || target.q == first.q))
            .count();
        match (together, context.branches.is_empty()) {
            // A spare waits for the failure of all before it.
            (0, true) => 1,
            (0, false) => 0,
            // In sequential mode a lower q waits; what is left of the same q (kept back by Max-Breadth) does not.
            (_, false) if sequential && !self.same_q_as_before(context) => 0,
            (together, _) => together,
        }
    }

    fn same_q_as_before(&self, context: &Context) -> bool {
        let targets = &context.targets.targets;
        let before = context.next_target.checked_sub(1).map(|n| targets[n].q);
        before.is_none_or(|q| targets[context.next_target].q == q)
    }

    /// Steps 1 to 10 for one target: the copy is the received bytes with edits, rendered into the outbox.
    #[allow(clippy::too_many_arguments)]
    fn forward(
        &mut self,
        now: Instant,
        server: Id,
        context: &Context,
        message: &Message,
        incoming: &Incoming,
        target: &Target,
        breadth: u32,
        outbox: &mut Outbox,
    ) -> Result<Id, Refusal> {
        let uri = context.targets.get(target.uri);
        let path = context.targets.get(target.path);
        let flow = self.next_hop(incoming, target, uri, path)?;
        let client = self.transactions.next_client_id();
        let (signer, core) = (self.signer, self.core);
        let loop_hash = self.loop_hash(incoming.flow, message);
        self.edit(message, incoming, uri, path, flow, breadth, |out| {
            signer.write_stateful(core, client, loop_hash, out);
        });
        let rewrite = &mut self.rewrite;
        let span = outbox.send(flow, |out| {
            rewrite.render(&message.bytes()[..message.end()], out);
        });
        if span.len() > MAX_DATAGRAM {
            outbox.unsend();
            self.counters.drop(Drop::TooLong);
            return Err(Refusal::new(513, "Too Long For A Datagram"));
        }
        let kind = match message.method() {
            Method::Invite => ClientKind::Invite,
            _ => ClientKind::NonInvite,
        };
        let id = self
            .transactions
            .open_client(now, kind, server, flow, span, outbox);
        if let Some(client) = self.transactions.client_mut(id) {
            client.breadth = breadth;
        }
        Ok(id)
    }

    /// Steps 2 to 8: the edits that make the forwarded request, into the rewriter.
    #[allow(clippy::too_many_arguments)]
    pub(in crate::stack) fn edit(
        &mut self,
        message: &Message,
        incoming: &Incoming,
        uri: &[u8],
        path: &[u8],
        flow: Flow,
        breadth: u32,
        write_branch: impl FnOnce(&mut Vec<u8>),
    ) {
        let uri = without_headers(uri);
        let rewrite = &mut self.rewrite;
        rewrite.clear();
        if message.start() > 0 {
            rewrite.remove(0..message.start());
        }
        // Step 6 looks ahead: a strict router as next hop takes the Request-URI, and the real one goes last.
        let strict = first_route(incoming, path).filter(|route| !is_loose(route));
        let head = incoming.via.value.header.line.start as usize;
        // Record-Route and Route must stand above those that came, which may stand above the Via.
        let top = message.headers_start();

        // Step 2: the Request-URI.
        let new_uri = match strict {
            Some(route) => NameAddr::parse(route).map_or(route, |address| address.uri),
            None => uri,
        };
        if new_uri != message.request_uri() {
            rewrite.replace(message.request_uri_range(), |out| {
                out.extend_from_slice(new_uri);
            });
        }
        if let Some(version) = message.unusual_version() {
            rewrite.replace(version, |out| out.extend_from_slice(b"SIP/2.0"));
        }

        // Step 8: our Via on top, and what RFC 3581 §4 wants to be known of the one below.
        let listener = &self.settings.listeners[flow.listener as usize];
        rewrite.insert(head, |out| {
            out.extend_from_slice(b"Via: SIP/2.0/");
            out.extend_from_slice(flow.transport.name().as_bytes());
            out.push(b' ');
            out.extend_from_slice(&listener.advertise);
            // The branch first: it then stands at the same place in every response, whatever the peer makes of `rport`.
            out.extend_from_slice(b";branch=");
            write_branch(out);
            out.extend_from_slice(b";rport\r\n");
        });
        fill_received(&incoming.via, incoming.flow.peer, rewrite);

        // Step 4: Record-Route; two of them where the sides differ (RFC 5658 §3).
        if self.settings.proxy.record_route && opens_dialog(message.method()) {
            let identity = self.identity;
            let mut record = |listener: u16| {
                let Some(listener) = self.settings.listeners.get(listener as usize) else {
                    return; // gone with the conf of before
                };
                rewrite.insert(top, |out| {
                    out.extend_from_slice(b"Record-Route: <sip:");
                    out.extend_from_slice(&listener.advertise);
                    out.extend_from_slice(b";lr;");
                    out.extend_from_slice(COOKIE_PARAM);
                    out.push(b'=');
                    identity.write_cookie(message, out);
                    out.extend_from_slice(b">\r\n");
                });
            };
            record(flow.listener);
            if flow.listener != incoming.flow.listener {
                record(incoming.flow.listener);
            }
        }

        // §16.4 and step 6: Route values that named us go; those of the binding's Path come.
        for value in message.values(Name::Route).take(incoming.own_routes) {
            rewrite.remove_value(&value);
        }
        if incoming.from_strict_router
            && let Some(value) = message.values(Name::Route).last()
        {
            rewrite.remove_value(&value);
        }
        let mut path = path;
        if strict.is_some() {
            match path.is_empty() {
                true => {
                    if let Some(value) = incoming.next_route {
                        rewrite.remove_value(&value);
                    }
                }
                false => path = after_first_value(path),
            }
        }
        if !path.is_empty() {
            rewrite.insert(top, |out| {
                out.extend_from_slice(b"Route: ");
                out.extend_from_slice(path);
                out.extend_from_slice(b"\r\n");
            });
        }
        if strict.is_some() {
            rewrite.insert(message.headers_end(), |out| {
                out.extend_from_slice(b"Route: <");
                out.extend_from_slice(uri);
                out.extend_from_slice(b">\r\n");
            });
        }

        // Step 3: Max-Forwards, and Max-Breadth (RFC 5393 §5.3.3).
        number_line(
            rewrite,
            message,
            Name::MaxForwards,
            head,
            match message.max_forwards() {
                Ok(Some(hops)) => u32::from(hops.saturating_sub(1)),
                _ => 70,
            },
        );
        number_line(rewrite, message, Name::MaxBreadth, head, breadth);
    }

    /// Max-Breadth of the request: what it says, at most our own maximum, which is also the default.
    pub(in crate::stack) fn incoming_breadth(&self, message: &Message) -> u32 {
        let maximum = self.settings.proxy.max_breadth;
        match message.number(Name::MaxBreadth) {
            Ok(Some(breadth)) => breadth.min(maximum),
            _ => maximum,
        }
    }

    /// Step 7: where the next hop is. The conf's hop, the binding's flow, the topmost Route, or the Request-URI.
    pub(in crate::stack) fn next_hop(
        &self,
        incoming: &Incoming,
        target: &Target,
        uri: &[u8],
        path: &[u8],
    ) -> Result<Flow, Refusal> {
        let towards = |peer: SocketAddr, came_by: u16| {
            self.settings
                .flow_towards(peer, came_by)
                .ok_or(Refusal::new(503, "No Listener For The Next Hop's Family"))
        };
        // The listener where a phone registered, or which the dialog's route names, is the one that reaches it.
        let listener = target
            .listener
            .or(incoming.listener)
            .unwrap_or(incoming.flow.listener);
        if let Some(hop) = target.hop {
            return towards(hop, listener);
        }
        if let (Some(flow), true) = (target.flow, path.is_empty()) {
            let mut hop = towards(flow.peer, flow.listener)?;
            if hop.listener == flow.listener {
                hop = hop.from_local(flow.local()); // the phone's NAT lets only that address in
            }
            return Ok(hop);
        }
        let hop = match first_route(incoming, path) {
            Some(route) => NameAddr::parse(route).map_or(route, |address| address.uri),
            None => uri,
        };
        towards(resolve(hop)?, listener)
    }

    fn answer_options(
        &mut self,
        message: &Message,
        flow: Flow,
        outbox: &mut Outbox,
    ) -> Result<(), Refusal> {
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

/// The message from its start line to the end of its body.
pub(in crate::stack) fn span_of<'a>(message: &Message<'a>) -> &'a [u8] {
    &message.bytes()[message.start()..message.end()]
}

/// Where the response to a request goes (§18.2.2 with RFC 3581 §4): the source address; its port when the client asked
/// for that with `rport`, else the port of sent-by. `maddr` is not followed: it would let a stranger aim our answers.
pub(in crate::stack) fn reply_flow(flow: Flow, via: &crate::sip::Via) -> Flow {
    if flow.transport.is_reliable() || via.rport().is_some() {
        return flow;
    }
    let mut flow = flow;
    flow.peer.set_port(via.port.unwrap_or(5060));
    flow
}

/// Options of Require or Proxy-Require that we do not know.
pub(in crate::stack) fn unsupported<'a>(
    message: &Message<'a>,
    name: Name,
) -> impl Iterator<Item = Value<'a>> + use<'a> {
    let known = move |option: &[u8]| name == Name::Require && option.eq_ignore_ascii_case(b"path");
    message
        .values(name)
        .filter(move |value| !value.text.is_empty() && !known(value.text))
}

fn is_sips(uri: &[u8]) -> bool {
    uri.get(..5)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"sips:"))
}

/// Requests that may open a dialog or refresh its target.
fn opens_dialog(method: Method) -> bool {
    matches!(
        method,
        Method::Invite
            | Method::Subscribe
            | Method::Notify
            | Method::Refer
            | Method::Update
            | Method::Other
    )
}

fn matches(route: &Route, message: &Message, incoming: &Incoming) -> bool {
    let any = |list: &[Vec<u8>], item: &[u8]| list.is_empty() || list.iter().any(|m| m == item);
    // An ACK and a CANCEL take the way of their INVITE (§9.1, §16.10).
    let methods = any(&route.methods, message.method_name())
        || (matches!(message.method(), Method::Ack | Method::Cancel)
            && any(&route.methods, b"INVITE"));
    methods
        && (route.from_source.is_empty()
            || route
                .from_source
                .iter()
                .any(|network| network.contains(incoming.flow.peer.ip())))
        && route
            .to_host
            .as_ref()
            .is_none_or(|host| host.eq_ignore_ascii_case(incoming.parsed.host_text))
        && route
            .to_user_prefix
            .as_ref()
            .is_none_or(|prefix| user_starts_with(&incoming.parsed, prefix))
}

/// Compares as §19.1.4 and RFC 3966 §4 do: an escape is the byte it stands for, and a visual separator in a telephone number
/// is nothing. Else a number could be written so that no route knows it.
fn user_starts_with(uri: &Uri, prefix: &[u8]) -> bool {
    let number = uri.scheme == Scheme::Tel
        || uri
            .param(b"user")
            .flatten()
            .is_some_and(|user| user.eq_ignore_ascii_case(b"phone"));
    let mut rest = uri.user.unwrap_or_default();
    let mut plain = std::iter::from_fn(move || {
        let (first, behind) = rest.split_first()?;
        let escaped = match (first, behind) {
            (b'%', [high, low, ..]) => read_hex(&[*high, *low]),
            _ => None,
        };
        rest = behind.get(if escaped.is_some() { 2.. } else { 0.. })?;
        Some(escaped.map_or(*first, |byte| byte as u8))
    })
    .filter(|byte| !(number && matches!(byte, b'-' | b'.' | b'(' | b')')));
    prefix.iter().all(|byte| plain.next() == Some(*byte))
}

/// The Route value that the forwarded request will have on top.
fn first_route<'a>(incoming: &Incoming<'a>, path: &'a [u8]) -> Option<&'a [u8]> {
    if path.is_empty() {
        return incoming.next_route.map(|value| value.text);
    }
    Some(&path[..first_value_len(path)])
}

fn first_value_len(list: &[u8]) -> usize {
    let (mut quoted, mut angle, mut escaped) = (false, false, false);
    for (at, byte) in list.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'<' if !quoted => angle = true,
            b'>' if !quoted => angle = false,
            b',' if !quoted && !angle => return at,
            _ => {}
        }
    }
    list.len()
}

fn after_first_value(list: &[u8]) -> &[u8] {
    list.get(first_value_len(list) + 1..)
        .unwrap_or_default()
        .trim_ascii_start()
}

/// A contact may carry header fields, a Request-URI may not (§16.6 step 2, §19.1.1 table 1).
fn without_headers(uri: &[u8]) -> &[u8] {
    if memchr::memchr(b'?', uri).is_none() {
        return uri;
    }
    match Uri::parse(uri).map(|uri| uri.headers) {
        Ok(Some(headers)) => &uri[..uri.len() - headers.len() - 1],
        _ => uri,
    }
}

fn is_loose(route: &[u8]) -> bool {
    NameAddr::parse(route)
        .and_then(|address| Uri::parse(address.uri))
        .is_ok_and(|uri| uri.is_loose())
}

/// RFC 3263 without names: host must be an address, and the transport UDP.
fn resolve(uri: &[u8]) -> Result<SocketAddr, Refusal> {
    let uri = Uri::parse(uri).map_err(|_| Refusal::new(503, "Next Hop Is Not A URI"))?;
    match uri.scheme {
        Scheme::Sip => {}
        Scheme::Sips => return Err(Refusal::new(503, "No TLS To The Next Hop")),
        Scheme::Tel | Scheme::Other => return Err(Refusal::new(503, "Next Hop Has No Host")),
    }
    let udp = uri
        .transport()
        .is_none_or(|transport| transport.eq_ignore_ascii_case(Transport::Udp.name().as_bytes()));
    if !udp {
        return Err(Refusal::new(503, "No Such Transport To The Next Hop"));
    }
    let ip = match uri.maddr() {
        Some(maddr) => Settings::ip(maddr),
        None => uri.host.ip(),
    };
    match (ip, uri.port.unwrap_or(5060)) {
        (Some(ip), port) if port != 0 && !ip.is_unspecified() && !ip.is_multicast() => {
            Ok(SocketAddr::new(ip, port))
        }
        (Some(_), _) => Err(Refusal::new(503, "Next Hop Is No Unicast Address")),
        (None, _) => Err(Refusal::new(503, "Next Hop Name Cannot Be Resolved")),
    }
}

/// Replaces the number of a header line, or adds the line. There may be one (§7.3.1): what else has the name goes.
fn number_line(
    rewrite: &mut crate::sip::Rewrite,
    message: &Message,
    name: Name,
    head: usize,
    number: u32,
) {
    let mut lines = message.all(name);
    match lines.next() {
        Some(header) => {
            rewrite.replace(header.value_span.range(), |out| {
                write_decimal(u64::from(number), out);
            });
            lines.for_each(|more| rewrite.remove(more.line.range()));
        }
        None => rewrite.insert(head, |out| {
            out.extend_from_slice(name.canonical().as_bytes());
            out.extend_from_slice(b": ");
            write_decimal(u64::from(number), out);
            out.extend_from_slice(b"\r\n");
        }),
    }
}
