//! What is known of the dialog that a request belongs to: from the cookie and flow token of our Record-Route in its Route, and from
//! what was noted.

use crate::base::{Channel, Flow};
use crate::sip::{Message, Method, NameAddr, Value};
use crate::stack::cookie::Recorded;
use crate::stack::facts::contact;
use crate::stack::identity::Dialog as Call;
use crate::stack::moved::{Kind, Known};
use crate::stack::passage::Proof;
use crate::stack::recognise::cookies_of;
use crate::stack::request::{DialogRoute, Request};
use crate::stack::token::{self, Side};
use crate::stack::turn::Turn;

impl Turn<'_> {
    /// Judges a request that belongs to a dialog that we let pass. Whether it goes where the other side is, and whether its sender
    /// still bears its name, is in the cookie or was noted since. `beyond` is the first Route value that this cookie's writer has not
    /// written.
    pub fn judge_dialog<'a>(&mut self, recorded: &Recorded<'a>, beyond: Option<Value<'a>>, request: &mut Request<'a>) {
        request.shown = Some(*recorded);
        let ends = matches!(request.message.method(), Method::Bye | Method::Ack);
        // What has changed in a dialog that an earlier run began may be unknown: then it can at least be ended. For a URI of ours the
        // routes decide, which are not open to whoever is a party to some dialog.
        let takes_routes = request.is_own && request.next_route.is_none();
        let is_lost = ends
            && !takes_routes
            && !recorded.is_other_sides
            && !self.core.cookies.is_of_this_run(recorded)
            && self.core.cookies.mask_of_predecessor(recorded).is_none();
        let from = request.message.from().map_or(&[][..], |from| from.uri);
        let from_tag = request.message.from_tag().unwrap_or_default();
        let core = &mut *self.core;
        let (cookies, facts) = (cookies_of(&core.cookies, &core.others, recorded), &mut core.facts);
        let (now, moved) = (self.now, &core.location.moved);
        if !cookies.is_named(recorded, from, facts) && !is_lost {
            let known = moved.knows(now, &request.message, from_tag, Kind::Name, from, facts);
            request.renamed = known == Known::No || (known == Known::Perhaps && !ends);
        }
        let route = beyond.and_then(|value| Some(NameAddr::parse(value.text).ok()?.uri));
        request.dialog.is_named = cookies.names_both(recorded);
        let goes_by = ends || cookies.goes_by(recorded, route, facts);
        let leads_to = is_lost || cookies.leads_to(recorded, request.uri, facts) || {
            let tag = request.message.to_tag().unwrap_or_default();
            let known = moved.knows(now, &request.message, tag, Kind::Target, request.uri, facts);
            known == Known::Yes || (known == Known::Perhaps && ends && !takes_routes)
        };
        request.trusted = goes_by && (leads_to || self.is_contact_of_callee(request));
        request.stranded = !request.trusted;
        if request.trusted && !request.renamed {
            request.proof = Proof::Dialog;
        }
    }

    /// Returns whether the other side is one of our users and has registered this contact: whoever may call the user may reach it.
    /// This also gives the flow to it.
    fn is_contact_of_callee(&mut self, request: &mut Request) -> bool {
        let callee = self.find_callee(request);
        request.dialog.flow = callee.flow;
        request.dialog.is_current = true;
        callee.is_contact
    }

    /// Notes where the sender of a request within a dialog wants to be reached from now on, and by what name.
    pub fn note_refresh(&mut self, request: &Request) {
        if !request.trusted {
            return;
        }
        let (Some(tag), Ok(from)) = (request.message.from_tag(), request.message.from()) else {
            return;
        };
        let (moved, facts) = (&self.core.location.moved, &mut self.core.facts);
        // A BYE was not asked to prove it.
        if request.renamed && request.message.method() != Method::Bye {
            moved.note(self.now, &request.message, tag, Kind::Name, from.uri, facts);
        }
        if refreshes_target(request.message.method())
            && let Some(contact) = contact(&request.message)
        {
            moved.note(self.now, &request.message, tag, Kind::Target, contact, facts);
        }
    }

    /// Reads what one of our Record-Routes says about the path to the receiver. If there are two, each describes its own side (RFC
    /// 5658 §3).
    pub fn read_token(&self, recorded: &Recorded, dialog: &mut DialogRoute) {
        if recorded.towards == Side::Callee {
            let per_call = dialog.per_call.unwrap_or_default();
            dialog.per_call = Some(per_call || token::is_per_call(recorded.token));
            dialog.name = dialog.name.or_else(|| token::read_name(recorded.token));
        }
        if recorded.token.is_empty() {
            return;
        }
        dialog.guarded |= token::is_guarded(recorded.token);
        dialog.is_here |= token::is_here(recorded.token);
        if recorded.towards == Side::Callee && dialog.trunk.is_none() {
            dialog.trunk = token::read_trunk(recorded.token);
        }
        if dialog.flow.is_none() {
            dialog.flow = self.recorded_flow(recorded, recorded.towards);
        }
        if dialog.sender.is_none() {
            dialog.sender = self.recorded_flow(recorded, recorded.towards.other());
        }
    }

    /// Returns the flow to one side that our Record-Route names.
    fn recorded_flow(&self, recorded: &Recorded, side: Side) -> Option<Flow> {
        let cookies = &self.core.cookies;
        match cookies.is_of_this_run(recorded) {
            true => token::read(side, recorded.token, cookies.mask()),
            false => self.flow_of_another_run(recorded, side),
        }
    }

    /// Another server may have other listeners and other addresses, and this one may have had others before.
    #[cold]
    fn flow_of_another_run(&self, recorded: &Recorded, side: Side) -> Option<Flow> {
        let (settings, cookies) = (&self.core.settings, &self.core.cookies);
        if let (Some(mask), Some(predecessor)) = (cookies.mask_of_predecessor(recorded), self.core.predecessor()) {
            return predecessor.flow(token::read(side, recorded.token, mask)?, settings);
        }
        let mut flow = token::read(side, recorded.token, cookies.mask())?;
        let listener = settings.listeners.get(usize::from(flow.listener));
        if listener.is_none_or(|listener| listener.transport != flow.transport) {
            flow.listener = settings.listener_towards(flow.transport, flow.peer, flow.listener)?;
        }
        if let Channel::Datagram { local: Some(ip) } = flow.channel
            && !settings.local_addresses.contains(&ip)
        {
            flow.channel = Channel::Datagram { local: None };
        }
        Some(flow)
    }

    /// Returns whether an ACK is for a call recently answered here by a next hop for our users only.
    pub fn was_accepted_there(&mut self, message: &Message) -> bool {
        let dialog = self.core.identity.dialog(message, Side::Caller, &mut self.core.facts);
        self.transactions.accepted.knows(!accepted(&dialog))
    }

    /// Returns whether an ACK without a route of ours is for a call recently answered here: some callees return none, and some
    /// callers omit it.
    pub fn was_accepted(&mut self, message: &Message) -> bool {
        let dialog = self.core.identity.dialog(message, Side::Caller, &mut self.core.facts);
        self.transactions.accepted.knows(accepted(&dialog))
    }
}

/// Returns the key under which a call is remembered until its ACK arrives.
pub(in crate::stack) fn accepted(dialog: &Call) -> u128 {
    u128::from(dialog.whole) << 64 | u128::from(dialog.call.get())
}

/// Returns whether requests of this method update where their sender is to be reached (RFC 3261 §12.2, RFC 3311, RFC 6665).
pub(in crate::stack) fn refreshes_target(method: Method) -> bool {
    matches!(method, Method::Invite | Method::Update | Method::Subscribe | Method::Notify | Method::Refer)
}
